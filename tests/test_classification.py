"""The classifier over a store: the shipped one, and one of the deployment's own."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer import TinyDancer
from tinydancer.classification import RequestClassification
from tinydancer.classification_files import Example
from tinydancer.config import EmbedderSettings, Settings
from tinydancer.errors import (
    ArtifactError,
    InvalidInputError,
    InvalidNameError,
    InvalidTextError,
    NotFoundError,
    SpaceMismatchError,
)
from tinydancer.model.classifier import SHIPPED_CLASSIFIER, RequestClassifier
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.types import MINILM_SPACE


@pytest.fixture
def own(tmp_path):
    """The file of an untrained classifier with two classes."""
    network = FastGRNN(FastGRNNConfig(input_dim=384, hidden_dim=4, output_dim=2, seed=1))
    path = tmp_path / "own.safetensors"
    RequestClassifier(network, classes=["left", "right"], space=MINILM_SPACE).save(path)
    return path.read_bytes()


def test_the_shipped_one_answers_until_another_is_chosen(own, tmp_path):
    path = str(tmp_path / "x.db")
    with TinyDancer(path) as dancer, TinyDancer(path) as other:
        here, there = RequestClassification(dancer), RequestClassification(other)
        shipped = RequestClassifier.load(SHIPPED_CLASSIFIER)
        text = "Translate this letter into French."
        found = here.classify(text)
        expected, needed = shipped.answer(dancer.embed(text), text)
        assert found["classifications"] == [list(pair) for pair in expected]
        assert (found["top_category"], found["confidence"]) == expected[0]
        assert found["capabilities"] == [list(pair) for pair in needed]
        by_vector = here.classify(embedding=dancer.embed(text))["confidence"]
        assert by_vector != found["confidence"]
        assert here.classify(text, embedding=dancer.embed(text))["confidence"] == pytest.approx(found["confidence"])
        assert here.classify(embedding=dancer.embed(text) * 3)["top_category"] == "translation"
        here.use("mine", own)
        assert {name for name, _ in there.classify(text)["classifications"]} == {"left", "right"}
        assert there.classify(text)["capabilities"] == []
        here.use("shipped")
        assert there.classify(text) == found
        here.use("mine")
        assert there.classify(text)["top_category"] in ("left", "right")


def test_bad_input(own):
    with TinyDancer() as dancer:
        kinds = RequestClassification(dancer)
        with pytest.raises(InvalidInputError, match="Neither"):
            kinds.classify()
        with pytest.raises(InvalidInputError, match="empty"):
            kinds.classify("")
        with pytest.raises(SpaceMismatchError):
            kinds.classify(embedding=np.ones(3))
        with pytest.raises(NotFoundError):
            kinds.use("absent")
        with pytest.raises(ArtifactError, match="The file of the classifier 'mine'"):
            kinds.use("mine", own[:100])
        with pytest.raises(InvalidTextError):
            kinds.classify("\x00", embedding=np.ones(384))
        with pytest.raises(InvalidNameError, match="shipped"):
            kinds.use("shipped", own)
        assert kinds.classify("hello")["model"].startswith("classifier:")
    settings = Settings(embedder=EmbedderSettings(kind="none", space="mine", dim=3))
    with TinyDancer(settings=settings) as dancer, pytest.raises(SpaceMismatchError):
        RequestClassification(dancer).classify(embedding=[1.0, 0.0, 0.0])


EXAMPLES = [
    *(Example(text, "billing", ("tools",)) for text in (
        "I was charged twice", "Where is my invoice?", "The amount on the bill is wrong", "Refund my last payment",
        "Send me a receipt", "My card was charged again",
    )),
    *(Example(text, "outage") for text in (
        "The site is down", "Nothing loads since this morning", "Error 503 on every page", "The server does not answer",
        "Your service cannot be reached", "The page stays white",
    )),
]  # fmt: skip


def test_classes_of_your_own(tmp_path):
    path = str(tmp_path / "x.db")
    with TinyDancer(path) as dancer, TinyDancer(path) as other:
        kinds = RequestClassification(dancer)
        shares: list[float] = []
        classifier, report = kinds.train(EXAMPLES, seed=2, progress=lambda share, what: shares.append(share))
        assert classifier.classes == ("billing", "outage")
        assert classifier.capabilities == ("tools",)
        assert report.rows == 12
        assert shares[-1] == 1.0
        assert kinds.stored() == []  # nothing is kept until it is asked for
        kinds.keep("desk", classifier)
        there = RequestClassification(other).classify("I was charged for a second month")
        assert there["top_category"] == "billing"
        assert [name for name, _ in there["capabilities"]] == ["tools"]
        assert [(row.name, row.is_active) for row in kinds.stored()] == [("desk", True)]
        assert kinds.train(EXAMPLES, seed=2)[1] == report
        kinds.remove("desk")
        assert RequestClassification(other).classify("Translate this.")["top_category"] == "translation"


def test_examples_that_cannot_be_learnt_from():
    with TinyDancer() as dancer:
        kinds = RequestClassification(dancer)
        with pytest.raises(InvalidTextError, match="Example number 13: The request is empty"):
            kinds.train([*EXAMPLES, Example(" ", "outage")])
        with pytest.raises(InvalidInputError, match="is in two classes, 'outage' and 'billing'"):
            kinds.train([*EXAMPLES, Example("The  site is down", "billing")])
