"""The classifier over a store: the shipped one, and one of the deployment's own."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer import TinyDancer
from tinydancer.classification import RequestClassification
from tinydancer.config import EmbedderSettings, Settings
from tinydancer.errors import ArtifactError, InvalidInputError, NotFoundError, SpaceMismatchError
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
        expected = shipped.classify(dancer.embed(text))
        assert found["classifications"] == [list(pair) for pair in expected]
        assert (found["top_category"], found["confidence"]) == expected[0]
        assert found["capabilities"] == [list(p) for p in shipped.classify_capabilities(dancer.embed(text))]
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
        assert kinds.classify("hello")["model"].startswith("classifier:")
    settings = Settings(embedder=EmbedderSettings(kind="none", space="mine", dim=3))
    with TinyDancer(settings=settings) as dancer, pytest.raises(SpaceMismatchError):
        RequestClassification(dancer).classify(embedding=[1.0, 0.0, 0.0])
