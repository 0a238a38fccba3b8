"""Facts of texts: by hand, by a plain reimplementation that reads character by character, and for absurd texts."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.model.surface import COUNTED_BYTES, SURFACE_DIM, SURFACE_NAMES, surface_features


def facts_of(text: str) -> dict[str, float]:
    return dict(zip(SURFACE_NAMES, surface_features([text])[0].tolist(), strict=True))


def by_hand(**told: float) -> dict[str, float]:
    return dict.fromkeys(SURFACE_NAMES, 0.0) | told


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", by_hand(characters_per_word=1.0)),
        (
            "What is 12+30?",
            by_hand(
                log_characters=math.log(15), log_words=math.log(4), digits=4 / 14, operators=1 / 14, capitals=1 / 14,
                log_question_marks=math.log(2), characters_per_word=14 / 3, log_numbers=math.log(3),
            ),
        ),
        (
            "Größe (ü)?\n",
            by_hand(
                log_characters=math.log(12), log_words=math.log(3), brackets=2 / 11, capitals=1 / 11,
                line_breaks=1 / 11, not_ascii=3 / 11, log_question_marks=math.log(2), characters_per_word=11 / 2,
            ),
        ),
        (
            "日本語",
            by_hand(log_characters=math.log(4), log_words=math.log(2), not_ascii=1.0, characters_per_word=3.0),
        ),
        (
            "20231105",
            by_hand(
                log_characters=math.log(9), log_words=math.log(2), digits=1.0, characters_per_word=8.0,
                log_numbers=math.log(2),
            ),
        ),
        (
            "a_1 $x$ not \\",
            by_hand(
                log_characters=math.log(14), log_words=math.log(5), digits=1 / 13, characters_per_word=13 / 4,
                has_formula=1.0, has_underscore=1.0, has_negation=1.0, log_numbers=math.log(2),
            ),
        ),
        ("\t \n", by_hand(log_characters=math.log(4), line_breaks=1 / 3, characters_per_word=3.0)),
        ("\x01\x7f", by_hand(log_characters=math.log(3), log_words=math.log(2), characters_per_word=2.0)),
    ],
)  # fmt: skip
def test_facts_by_hand(text, facts):
    assert facts_of(text) == pytest.approx(facts, abs=1e-6)


@pytest.mark.parametrize("text", ["It is not so.", "which one, except two", "He doesn't know", "do NOT go"])
def test_negations(text):
    assert facts_of(text)["has_negation"] == 1.0


@pytest.mark.parametrize("text", ["nothing", "a knot is tied", "exception", "not"])
def test_words_that_only_look_like_negations(text):
    assert facts_of(text)["has_negation"] == 0.0


def test_of_a_long_text_both_ends_are_counted_and_its_whole_length():
    n = 10_000
    middle = "9" * (5 * n - COUNTED_BYTES)
    half = "ab (?" * 10_000
    text = half[: COUNTED_BYTES // 2] + middle + half[: COUNTED_BYTES // 2]
    facts = facts_of(text)
    assert facts["log_characters"] == pytest.approx(math.log1p(5 * n), rel=1e-6)
    assert facts["digits"] == 0.0, "the middle is not looked at"
    assert facts["brackets"] == pytest.approx(1 / 5, abs=2e-4)
    words = len((half[: COUNTED_BYTES // 2] * 2).split())
    assert facts["log_words"] == pytest.approx(math.log1p(words * 5 * n / COUNTED_BYTES), rel=1e-6)


def test_a_cut_through_a_character_does_no_harm():
    facts = facts_of("x" + "語" * 20_000)  # 4,096 is not at the border of a character of three bytes
    assert facts["log_characters"] == pytest.approx(math.log1p(20_001), rel=1e-6)
    assert facts["not_ascii"] == pytest.approx(1.0, abs=1e-3)
    assert facts["digits"] == 0.0


def plainly(text: str) -> list[float]:
    """The same, written for reading; for texts that are counted whole."""
    count = max(1, len(text))
    words = re.findall(r"[^ \t\r\v\f\n]+", text)
    return [
        math.log1p(len(text)),
        math.log1p(len(words)),
        sum(c in "0123456789" for c in text) / count,
        sum(c in "+-*/=^<>" for c in text) / count,
        sum(c in "()[]{}" for c in text) / count,
        sum("A" <= c <= "Z" for c in text) / count,
        text.count("\n") / count,
        sum(ord(c) > 127 for c in text) / count,
        math.log1p(text.count("?")),
        count / max(1, len(words)),
        float("$" in text or "\\" in text),
        float("_" in text),
        float(any(word in text for word in (" not ", " NOT ", " except ", " EXCEPT ", "n't "))),
        math.log1p(len(re.findall("[0-9]+", text))),
    ]


texts = st.one_of(
    st.text(max_size=300),
    st.text("ab 12\n\t?$_+()Üé語😀", max_size=300),
    st.lists(st.sampled_from([" not ", "n't ", "12", "x", " ", "(a)", "É?"]), max_size=30).map("".join),
)


@given(texts)
def test_they_are_what_a_plain_count_gives(text):
    np.testing.assert_allclose(surface_features([text])[0], plainly(text), rtol=1e-5, atol=1e-6)


@given(st.text(st.characters(), max_size=50), st.integers(1, 2000))
def test_whatever_comes_they_are_finite_and_not_negative(text, times):
    features = surface_features([text * times])  # lone surrogates among them
    assert features.dtype == np.float32
    assert features.shape == (1, SURFACE_DIM)
    assert np.isfinite(features).all()
    assert (features >= 0.0).all()
    assert np.isfinite(features.astype(np.float16)).all(), "decisions keep them in half precision"


@given(st.lists(texts, max_size=8))
def test_a_batch_is_its_texts_one_by_one(batch):
    together = surface_features(batch)
    assert together.shape == (len(batch), SURFACE_DIM)
    for row, text in zip(together, batch, strict=True):
        np.testing.assert_array_equal(row, surface_features([text])[0])


def test_a_lone_surrogate_is_counted_as_one_character():
    assert facts_of("a \ud800b")["log_characters"] == pytest.approx(math.log(5))


def test_the_longest_text_fits_half_precision():
    assert np.isfinite(surface_features(["x" * 1_000_000]).astype(np.float16)).all()
