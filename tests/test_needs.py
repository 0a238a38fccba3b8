"""What a request needs of the agents: never what none of them has, never a combination that none has."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer import TinyDancer
from tinydancer.errors import ArtifactError, InvalidInputError, SpaceMismatchError
from tinydancer.model.classifier import RequestClassifier
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.needs import ActiveClassifier, capabilities_needed, classifier_of
from tinydancer.types import MINILM_SPACE, Constraints

NAMES = ("data analysis", "coding", "tools", "art")
LOGITS = (3.0, 2.0, 1.0, -1.0)
VECTOR = np.eye(1, 384, dtype=np.float32)[0]


@pytest.fixture(scope="module")
def classifier():
    """Needs data analysis most, then coding, then tools, whatever the request; never art."""
    network = FastGRNN(FastGRNNConfig(input_dim=384, hidden_dim=2, output_dim=6))
    network.parameters["w_out"][:] = 0.0
    network.parameters["b_out"][2:] = LOGITS
    return RequestClassifier(network, classes=["x", "y"], capabilities=NAMES, space=MINILM_SPACE)


def needed(classifier, agents, inactive=(), **constraints):
    with TinyDancer() as dancer:
        for name, capabilities in agents.items():
            dancer.register_agent(name, capabilities=capabilities)
        for name in inactive:
            dancer.set_agent_active(name, False)
        return capabilities_needed(classifier, VECTOR, dancer.snapshot(), Constraints(**constraints))


def test_what_an_agent_has_is_required_from_the_likeliest_on(classifier):
    agents = {"all": ["art", "tools", "coding", "data analysis"], "none": ["chat"]}
    assert needed(classifier, agents) == ("data analysis", "coding", "tools")


def test_a_word_that_no_agent_uses_is_not_required(classifier):
    assert needed(classifier, {"one": ["coding", "poetry"]}) == ("coding",)
    assert needed(classifier, {"one": ["poetry"]}) == ()
    assert needed(classifier, {}) == ()


def test_a_combination_that_no_agent_has_is_cut_to_its_likeliest_part(classifier):
    agents = {"one": ["data analysis", "tools"], "two": ["coding", "tools"]}
    assert needed(classifier, agents) == ("data analysis", "tools")


def test_only_agents_that_may_be_chosen_count(classifier):
    agents = {"one": ["coding"], "two": ["tools"], "three": ["data analysis"]}
    assert needed(classifier, agents, inactive=["three"]) == ("coding",)
    assert needed(classifier, agents, inactive=["three"], excluded_agents=("one",)) == ("tools",)
    assert needed(classifier, agents, inactive=["one", "two", "three"]) == ()


def test_what_is_required_already_comes_first_and_is_not_named_again(classifier):
    agents = {"one": ["data analysis"], "two": ["Coding", "tools"]}
    assert needed(classifier, agents, required_capabilities=("CODING",)) == ("tools",)
    assert needed(classifier, agents, required_capabilities=("unheard of",)) == ()


def test_spelling(classifier):
    assert needed(classifier, {"one": ["Data-Analysis", "CODING"]}) == ("data-analysis", "coding")
    # The classifier's own spelling goes first; two others, of which either would exclude agents, are left alone.
    assert needed(classifier, {"one": ["data_analysis"], "two": ["data analysis"]}) == ("data analysis",)
    assert needed(classifier, {"one": ["data_analysis"], "two": ["data-analysis"]}) == ()


def test_what_is_returned_can_be_routed(classifier):
    with TinyDancer() as dancer:
        dancer.register_agent("one", capabilities=["data-analysis", "tools"])
        dancer.register_agent("two", capabilities=["coding"])
        found = capabilities_needed(classifier, VECTOR, dancer.snapshot())
        assert dancer.route("anything", required_capabilities=found).agent_name == "one"


def test_words_count_where_the_text_is_known():
    with TinyDancer() as dancer:
        dancer.register_agent("coder", capabilities=["coding", "translation", "mathematics"])
        text = "Translate this letter into French."
        shipped = ActiveClassifier(dancer.store, dancer.space).now()
        vector, snapshot = dancer.embed(text), dancer.snapshot()
        assert capabilities_needed(shipped, vector, snapshot, text=text) == ("translation",)
        text = "Write a Python function that reverses a linked list."
        assert capabilities_needed(shipped, vector, snapshot, text=text) != ("translation",)


def test_the_active_classifier_is_kept_until_the_registry_changes(classifier, tmp_path):
    path = tmp_path / "c.safetensors"
    classifier.save(path)
    with TinyDancer(str(tmp_path / "x.db")) as dancer:
        active = ActiveClassifier(dancer.store, dancer.space)
        shipped = active.now()
        assert active.now() is shipped
        dancer.store.insert_model("request-classifier", "own", "0" * 64, path.read_bytes(), {}, replace=True)
        dancer.store.activate_model("request-classifier", "own")
        assert active.now().capabilities == NAMES
        dancer.store.activate_model("request-classifier", None)
        assert active.now().classes == shipped.classes


def test_a_bad_file_is_called_by_its_name(tmp_path, classifier):
    path = tmp_path / "c.safetensors"
    classifier.save(path)
    with pytest.raises(ArtifactError, match="The upload"):
        classifier_of(path.read_bytes()[:-3], MINILM_SPACE, "The upload")
    with TinyDancer() as dancer, pytest.raises(SpaceMismatchError):
        classifier_of(path.read_bytes(), type(dancer.space)("other", 3), "The upload")


def test_a_request_is_routed_by_what_it_needs():
    with TinyDancer() as dancer:
        dancer.register_agent("cheap", capabilities=["chat"], cost_per_request=0.001, quality_score=0.9)
        dancer.register_agent("coder", capabilities=["coding"], cost_per_request=0.01, quality_score=0.9)
        request = "Write a Python function that parses dates out of log files, with unit tests."
        assert dancer.route(request, "cost").agent_name == "cheap"
        inferred = dancer.route(request, "cost", infer_capabilities=True)
        assert inferred.agent_name == "coder"
        assert dict(dancer.store.get_decision(inferred.decision_id or "").constraints) == {
            "required_capabilities": ["coding"]
        }
        # The inferred requirement is never mistaken for a decision without one, nor the other way round.
        assert dancer.route(request, "cost").agent_name == "cheap"
        assert dancer.route(request, "cost", infer_capabilities=True).agent_name == "coder"
        assert dancer.route(request, "cost", infer_capabilities=False).agent_name == "cheap"
        vector = dancer.embed(request)
        assert dancer.route(embedding=vector, optimize_for="cost", infer_capabilities=True).agent_name == "coder"
        dancer.remove_agent("coder")
        assert dancer.route(request, "cost", infer_capabilities=True).agent_name == "cheap"
        with pytest.raises(InvalidInputError, match="infer_capabilities"):
            dancer.route(request, infer_capabilities="yes")
        with pytest.raises(InvalidInputError, match="infer_capabilities"):
            dancer.route_batch([request], infer_capabilities=True)
