"""The layer over words and pairs: features by hand, the fit against its optimality conditions, files."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinydancer.errors import ModelError
from tinydancer.model import words as module
from tinydancer.model.words import Words, features_of, learnt_words

TEXTS = ["write a poem", "write a story", "sum of two", "sum of three", "a story of two", "poem of three"]
TARGETS = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1], [0, 0]], dtype=float)


def test_features_are_words_signs_and_pairs_with_both_ends():
    assert len(features_of("write a poem")) == 3 + 4
    assert features_of("Write a POEM") == features_of("  write\na poem ")
    assert features_of("a b") != features_of("b a")
    assert len(features_of("a b") & features_of("b a")) == 2
    assert len(features_of("a b") & features_of("a c")) == 2  # the word, and that it comes first
    assert len(features_of("b a") & features_of("c a")) == 2  # the word, and that it comes last


def test_all_numbers_are_one_number():
    assert features_of("12 times 7") == features_of("3 times 2025")
    assert features_of("12 times") != features_of("x times")


def test_of_a_long_text_both_ends_count():
    middle = "unseen " * 2000
    found = features_of(f"summarise this {middle} in German")
    assert len(found & features_of("summarise this")) == 4
    assert len(found & features_of("in German")) == 4
    inside = features_of(f"{'a ' * 600}hidden treasure{' a' * 600}")
    assert not inside & (features_of("hidden treasure") - features_of(""))
    assert features_of("x" * 300_000)  # and it takes no time


@pytest.mark.parametrize("text", ["", "   ", "日本語のテキスト", "\ud800", "🙂🙂", "²³"])
def test_any_text_has_features(text):
    assert features_of(text)


def test_logits_by_hand():
    rows = {key: i for i, key in enumerate(sorted(features_of("a b")))}
    idf = np.arange(1.0, 1.0 + len(rows))
    weights = np.arange(2.0 * len(rows)).reshape(-1, 2)
    words = Words(
        rows, np.column_stack([weights, idf**2]).astype(np.float32), np.array([0.5, -0.5], np.float32),
        np.array([2.0, 3.0], np.float32),
    )  # fmt: skip
    expected = weights.sum(axis=0) / math.sqrt((idf**2).sum()) + [0.5, -0.5]
    assert words.logits("A b") == pytest.approx(expected, rel=1e-6)
    by_vector = np.array([1.0, -1.0], np.float32)
    assert words.joined(by_vector, "a b") == pytest.approx(expected + np.array([2.0, -3.0]), rel=1e-6)
    assert words.logits("something else").tolist() == [0.5, -0.5]
    assert words.joined(by_vector, "something else").tolist() == by_vector.tolist()
    changed = words.calibrated(np.array([2.0, 0.0]), np.array([1.0, 7.0]), np.array([1.0, 0.0]))
    assert changed.joined(by_vector, "a b") == pytest.approx([2 * expected[0] + 1 + 1, 7.0], rel=1e-6)


def test_the_fit_is_the_optimum(monkeypatch):
    """The gradient of the penalised loss is zero: per answer, X'(p - y) + penalty * weights."""
    monkeypatch.setattr(module, "STEPS", 20_000)
    monkeypatch.setattr(module, "_SMALL_STEP", 1e-12)
    counting = np.array([1.0, 1.0, 0.5, 2.0, 1.0, 1.0])
    words = learnt_words(TEXTS, TARGETS, counting)
    idf = np.sqrt(words.weights[:, -1].astype(float))
    fitted = words.weights[:, :-1].astype(float) / idf[:, None]
    design = np.zeros((len(TEXTS), len(words.rows)))
    for i, text in enumerate(TEXTS):
        for key in features_of(text) & words.rows.keys():
            design[i, words.rows[key]] = idf[words.rows[key]]
    design /= np.linalg.norm(design, axis=1, keepdims=True)
    probability = 1.0 / (1.0 + np.exp(-(design @ fitted + words.bias)))
    residuals = counting[:, None] * (probability - TARGETS)
    assert np.abs(design.T @ residuals + module.PENALTY * fitted).max() < 1e-5
    assert np.abs(residuals.sum(axis=0)).max() < 1e-5
    assert words.logits(TEXTS[0]) == pytest.approx(design[0] @ fitted + words.bias, abs=1e-5)


def test_words_of_one_text_are_not_learnt_and_the_fit_repeats():
    words = learnt_words([*TEXTS, "zebra zebra"], np.vstack([TARGETS, [0, 0]]))
    assert not (features_of("zebra") - features_of("")) & words.rows.keys()
    again = learnt_words([*TEXTS, "zebra zebra"], np.vstack([TARGETS, [0, 0]]))
    assert dict(again.rows) == dict(words.rows)
    assert again.weights.tobytes() == words.weights.tobytes()


def test_an_answer_that_all_or_none_have_gets_a_bias():
    words = learnt_words(TEXTS, np.column_stack([np.ones(6), np.zeros(6)]))
    assert all(words.logits(text)[0] > 0 > words.logits(text)[1] for text in TEXTS)
    assert np.isfinite(words.weights).all()


def test_texts_that_share_nothing_are_no_error():
    words = learnt_words(["a", "b"], np.eye(2))
    assert words.logits("a").shape == (2,)


class TestTensors:
    def test_they_come_back(self):
        words = learnt_words(TEXTS, TARGETS)
        back = Words.from_tensors(words.tensors(), 2)
        assert back is not None
        assert dict(back.rows) == dict(words.rows)
        assert back.logits(TEXTS[0]) == pytest.approx(words.logits(TEXTS[0]), abs=1e-2)
        assert Words.from_tensors({}, 2) is None

    @pytest.mark.parametrize(
        "change",
        [
            {"word_bias": None},
            {"word_bias": np.zeros(3, np.float32)},
            {"word_vector_factors": np.array([np.nan, 1.0], np.float32)},
            {"word_keys": np.zeros(3, np.uint32)},
            {"word_keys": np.zeros(2, np.int64)},
        ],
    )
    def test_what_does_not_fit_is_refused(self, change):
        tensors = {**learnt_words(TEXTS, TARGETS).tensors(), **change}
        with pytest.raises(ModelError, match="words"):
            Words.from_tensors({name: array for name, array in tensors.items() if array is not None}, 2)

    def test_weights_without_a_length_are_refused(self):
        tensors = learnt_words(TEXTS, TARGETS).tensors()
        tensors["word_weights"][0, -1] = 0.0
        with pytest.raises(ModelError, match="words"):
            Words.from_tensors(tensors, 2)
