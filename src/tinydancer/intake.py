"""What a door was given, as the nouns that ``decide`` takes.

In: texts or vectors, constraints as a mapping or as keyword arguments, and what is known of a request's size. Out: a
`RequestBatch` and `Constraints`, checked; or an error that says which request, or which key, could not be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.config import EmbedderSettings
from tinydancer.embedding.base import Embedder, estimated_tokens
from tinydancer.errors import InvalidInputError
from tinydancer.model.surface import surface_features
from tinydancer.types import CONTEXT_KEYS, NO_CONTEXT, Constraints, EmbeddingSpace, RequestBatch, RequestContext
from tinydancer.validation import FloatVector

UNKNOWN_INPUT_TOKENS = 100.0
"""Tokens assumed of a request that comes as a vector alone and states none."""

_SIZES = ("input_tokens", "cached_input_tokens", "output_tokens")


def one_request(
    text: str | None,
    embedding: npt.ArrayLike | None,
    sizes: Mapping[str, float],
    *,
    embedder: Callable[[], Embedder],
    space: EmbeddingSpace,
    max_chars: int,
    surface: bool = False,
) -> RequestBatch:
    """A batch of one, from a text, a vector, or both; `embedder` is asked for only if there is no vector.

    With `surface`, the facts of the text that trained models read are looked up too.
    """
    if text is not None:
        check.request_text(text, max_chars=max_chars)
    tokens = UNKNOWN_INPUT_TOKENS
    if embedding is not None:
        vectors = check.unit_vector(embedding, "The request's embedding", dim=space.dim, space=space.name)[None]
        if text is not None:
            tokens = estimated_tokens((text,))[0]
    elif text is not None:
        vectors, counts = embedder().embed((text,))
        tokens = counts[0]
    else:
        raise InvalidInputError("Neither a request nor an embedding is given; expected one of them.")
    return _batch(vectors, np.array([tokens]), sizes, (text,) if surface and text is not None else None)


def many_requests(
    texts: Sequence[str] | None,
    embeddings: npt.ArrayLike | None,
    sizes: Mapping[str, float],
    *,
    embedder: Callable[[], Embedder],
    space: EmbeddingSpace,
    max_chars: int,
    surface: bool = False,
) -> RequestBatch:
    """A batch from texts, vectors, or both; the first that cannot be used is named by its number, counted from 1."""
    if isinstance(texts, str):
        raise InvalidInputError("The requests are one text; expected a list of texts.")
    if texts is None and embeddings is None:
        raise InvalidInputError("Neither requests nor embeddings are given; expected one of them.")
    for number, text in enumerate(texts or (), start=1):
        try:
            check.request_text(text, max_chars=max_chars)
        except InvalidInputError as error:
            raise type(error)(f"Request number {number}: {error.message}", hint=error.hint) from None
    facts_of = texts if surface else None
    if embeddings is None:
        vectors, tokens = embedder().embed(texts or ())
        return _batch(vectors, tokens, sizes, facts_of)
    vectors = _unit_rows(embeddings, space)
    if texts is None:
        return _batch(vectors, np.full(len(vectors), UNKNOWN_INPUT_TOKENS), sizes)
    if len(texts) != len(vectors):
        raise InvalidInputError(f"{len(texts)} requests and {len(vectors)} embeddings are given; expected as many.")
    return _batch(vectors, estimated_tokens(texts), sizes, facts_of)


def _unit_rows(embeddings: npt.ArrayLike, space: EmbeddingSpace) -> FloatVector:
    array = embeddings if isinstance(embeddings, np.ndarray) else None
    if array is not None and array.ndim == 2 and array.shape[1] == space.dim:
        rows = np.asarray(array, dtype=np.float32)
        squares = np.einsum("ij,ij->i", rows, rows)
        if ((squares > 1e-30) & (squares < 1e30)).all():
            unit: FloatVector = rows / np.sqrt(squares)[:, None]
            return unit
    # Not a plain matrix, or something is wrong with it: one by one, to say what and where.
    checked = [
        check.unit_vector(row, f"Embedding number {number}", dim=space.dim, space=space.name)
        for number, row in enumerate(embeddings, start=1)  # type: ignore[arg-type]
    ]
    return np.array(checked, dtype=np.float32).reshape(len(checked), space.dim)


def _batch(
    vectors: FloatVector,
    tokens: npt.NDArray[np.float64],
    sizes: Mapping[str, float],
    texts: Sequence[str] | None = None,
) -> RequestBatch:
    if "input_tokens" in sizes:
        tokens = np.full(len(vectors), sizes["input_tokens"])
    surface = None if texts is None else surface_features(texts)
    return RequestBatch(vectors, tokens, sizes.get("cached_input_tokens", 0.0), sizes.get("output_tokens"), surface)


def pop_sizes(limits: dict[str, Any]) -> dict[str, float]:
    """Take what says how large a request is out of keyword arguments; what remains are constraints."""
    if not limits:
        return {}
    given = {key: limits.pop(key) for key in _SIZES if key in limits}
    return {key: check.number(v, key, low=0.0, high=1e12) for key, v in given.items() if v is not None}


def pop_context(limits: dict[str, Any]) -> RequestContext:
    """Take what says whose request it is out of keyword arguments; what remains are constraints."""
    if not limits or limits.keys().isdisjoint(CONTEXT_KEYS):
        return NO_CONTEXT
    return RequestContext.from_mapping({key: limits.pop(key) for key in CONTEXT_KEYS if key in limits})


def pop_switch(limits: dict[str, Any], name: str) -> bool:
    """Take a switch out of keyword arguments; None and absent are off."""
    given = limits.pop(name, None)
    return False if given is None else check.boolean(given, name)


def constraints_of(given: Constraints | Mapping[str, Any] | None, limits: Mapping[str, Any]) -> Constraints:
    """Constraints from an object or a mapping, with keyword arguments laid over them."""
    if not limits and isinstance(given, Constraints):
        return given
    base = given.to_dict() if isinstance(given, Constraints) else given
    if base is not None and not isinstance(base, Mapping):
        raise InvalidInputError(f"The constraints are {check.shown(base)}; expected a JSON object.")
    return Constraints.from_mapping({**(base or {}), **limits})


def make_embedder(settings: EmbedderSettings) -> Embedder:
    """The embedder the settings name; loads only the libraries that it needs.

    Raises
    ------
    InvalidInputError
        The settings say that callers bring their own vectors.
    """
    if settings.kind == "static":
        from tinydancer.embedding.static import StaticEmbedder

        return StaticEmbedder()
    if settings.kind == "minilm":
        from tinydancer.embedding.transformer import MiniLMEmbedder

        return MiniLMEmbedder(settings.model_path)
    if settings.kind == "openai":
        from tinydancer.embedding.http import OpenAICompatibleEmbedder

        return OpenAICompatibleEmbedder(
            base_url=settings.base_url or "", model=settings.model or "", space=settings.vector_space,
            api_key_env=settings.api_key_env, read_timeout_s=settings.timeout_s,
        )  # fmt: skip
    raise InvalidInputError(
        "A text is given, and the settings have no embedder (kind: none).",
        hint="Give the request's embedding instead, or set embedder.kind to static.",
    )
