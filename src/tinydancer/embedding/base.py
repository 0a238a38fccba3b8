"""What every embedder is: texts in, unit vectors of one space out.

In: a sequence of checked, non-empty texts. Out: ``float32[n, dim]``, each row of Euclidean length 1, in the space the
embedder names, and how many tokens each text has. Embedders know nothing of stores, agents or doors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tinydancer.errors import EmbedderError, InvalidVectorError, SpaceMismatchError
from tinydancer.types import EmbeddingSpace
from tinydancer.validation import FloatVector

CHARS_PER_TOKEN = 4.0
"""English text has about four characters a token; used where nobody counts."""


class Embedded(NamedTuple):
    """Vectors and token counts of n texts.

    Attributes
    ----------
    vectors
        ``float32[n, dim]``, rows of unit length.
    token_counts
        ``float64[n]``: tokens of each text, counted or estimated.
    """

    vectors: FloatVector
    token_counts: npt.NDArray[np.float64]


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into unit vectors.

    Attributes
    ----------
    space
        The space all its vectors are in.
    name
        Names the embedder (``static``, ``minilm``, ``openai-compatible``, ``callable``); recorded with decisions.
    """

    @property
    def space(self) -> EmbeddingSpace:
        """The space all its vectors are in."""
        ...

    @property
    def name(self) -> str:
        """Names the embedder."""
        ...

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors and token counts of `texts`; an empty sequence gives arrays of length 0.

        Raises
        ------
        EmbedderError
            The service or library behind it failed.
        """
        ...


def estimated_tokens(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Tokens by the rule of four characters each, at least 1; ``float64[n]``."""
    return np.array([max(1.0, len(t) / CHARS_PER_TOKEN) for t in texts], dtype=np.float64)


def unit_rows(vectors: npt.ArrayLike, space: EmbeddingSpace, n: int, who: str) -> FloatVector:
    """What an embedder returned as ``float32[n, dim]`` with rows of length 1, or an error that says what it was."""
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError):
        raise EmbedderError(f"The embedder {who} returned no array of numbers.") from None
    if array.ndim != 2 or array.shape[0] != n:
        raise EmbedderError(f"The embedder {who} returned shape {array.shape}; expected ({n}, {space.dim}).")
    if array.shape[1] != space.dim:
        raise SpaceMismatchError(
            f"The embedder {who} returned {array.shape[1]} dimensions; its space {space.name!r} has {space.dim}."
        )
    lengths = np.sqrt(np.einsum("ij,ij->i", array, array, dtype=np.float64))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0.0)))
    if bad.size:
        raise InvalidVectorError(
            f"The embedder {who} returned a zero or non-finite vector for text number {int(bad[0])}."
        )
    result: FloatVector = (array / lengths[:, None]).astype(np.float32)
    return result


class CallableEmbedder:
    """Any function from a list of texts to vectors, as an `Embedder`.

    Parameters
    ----------
    function
        Takes a list of n texts, returns an array-like of shape (n, dim).
    space
        The space its vectors are in.
    """

    name = "callable"

    def __init__(self, function: Callable[[list[str]], npt.ArrayLike], space: EmbeddingSpace) -> None:
        self._function = function
        self.space = space

    def embed(self, texts: Sequence[str]) -> Embedded:
        """See `Embedder.embed`; what the function raises arrives as `EmbedderError` with it as the cause."""
        if not texts:
            return Embedded(np.zeros((0, self.space.dim), np.float32), np.zeros(0))
        try:
            vectors = self._function(list(texts))
        except Exception as error:
            raise EmbedderError(f"The embedding function raised {type(error).__name__}.") from error
        return Embedded(unit_rows(vectors, self.space, len(texts), "function"), estimated_tokens(texts))
