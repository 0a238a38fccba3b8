"""Text to unit vectors: the protocol, and the embedders that keep it.

In: texts. Out: ``float32[n, dim]`` of one `EmbeddingSpace`. Importing this package loads none of the libraries behind
an embedder (tokenizers, sentence-transformers, httpx); making an embedder does.
"""

from __future__ import annotations

from tinydancer.embedding.base import CallableEmbedder, Embedded, Embedder
from tinydancer.embedding.http import OpenAICompatibleEmbedder
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.embedding.transformer import MiniLMEmbedder

__all__ = [
    "CallableEmbedder",
    "Embedded",
    "Embedder",
    "MiniLMEmbedder",
    "OpenAICompatibleEmbedder",
    "StaticEmbedder",
]
