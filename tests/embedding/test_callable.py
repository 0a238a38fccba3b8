"""Any function as an embedder, and the checks that every embedder's output goes through."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer.embedding import CallableEmbedder, Embedder
from tinydancer.embedding.base import estimated_tokens, unit_rows
from tinydancer.errors import EmbedderError, InvalidVectorError, SpaceMismatchError
from tinydancer.types import EmbeddingSpace

SPACE = EmbeddingSpace("plane", 2)


def test_a_function_becomes_an_embedder_of_unit_vectors() -> None:
    embedder = CallableEmbedder(lambda texts: [[len(t), 1] for t in texts], SPACE)
    vectors, counts = embedder.embed(("abc", "abcdefgh"))
    assert isinstance(embedder, Embedder)
    assert (embedder.name, embedder.space) == ("callable", SPACE)
    np.testing.assert_allclose(vectors, [[3 / 10**0.5, 1 / 10**0.5], [8 / 65**0.5, 1 / 65**0.5]], atol=1e-6)
    assert vectors.dtype == np.float32
    assert counts.tolist() == [1.0, 2.0]


def test_no_texts_do_not_call_the_function() -> None:
    def never(texts: list[str]) -> list[list[float]]:
        raise AssertionError

    assert CallableEmbedder(never, SPACE).embed([]).vectors.shape == (0, 2)


def test_what_the_function_raises_is_the_cause() -> None:
    def broken(texts: list[str]) -> list[list[float]]:
        raise KeyError("secret")

    with pytest.raises(EmbedderError, match="raised KeyError") as caught:
        CallableEmbedder(broken, SPACE).embed(["x"])
    assert isinstance(caught.value.__cause__, KeyError)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ([1.0, 2.0], EmbedderError, r"shape \(2,\); expected \(1, 2\)"),
        ([[1.0, 2.0], [3.0, 4.0]], EmbedderError, r"shape \(2, 2\)"),
        ([["a", "b"]], EmbedderError, "no array of numbers"),
        ([[1.0, 2.0, 3.0]], SpaceMismatchError, "3 dimensions; its space 'plane' has 2"),
        ([[0.0, 0.0]], InvalidVectorError, "text number 0"),
        ([[np.nan, 1.0]], InvalidVectorError, "text number 0"),
        ([[np.inf, 1.0]], InvalidVectorError, "text number 0"),
    ],
)
def test_bad_output_is_refused(returned: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CallableEmbedder(lambda texts: returned, SPACE).embed(["x"])  # type: ignore[arg-type,return-value]


def test_rows_of_extreme_length_become_units() -> None:
    rows = unit_rows([[1e30, 0.0], [0.0, 1e-30]], SPACE, 2, "test")
    np.testing.assert_allclose(rows, [[1.0, 0.0], [0.0, 1.0]])


def test_tokens_are_estimated_at_four_characters_each() -> None:
    assert estimated_tokens(["", "abcd", "a" * 400]).tolist() == [1.0, 1.0, 100.0]
