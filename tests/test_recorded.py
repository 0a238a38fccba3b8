"""What a deployment recorded as training data: real stores, through the door that records."""

from __future__ import annotations

import numpy as np
import pytest

from tests.quality import unit
from tinydancer import recorded
from tinydancer.config import Settings
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.errors import InvalidInputError
from tinydancer.model.surface import SURFACE_DIM, surface_features
from tinydancer.recorded import recorded_data
from tinydancer.service import TinyDancer
from tinydancer.types import MINILM_SPACE

TEXTS = ("What is 3 + 4?", "Write a poem about the sea.", "Translate: good morning")
KEEPING = Settings(record_features=True)


@pytest.fixture(scope="module")
def embedder():
    return StaticEmbedder()


@pytest.fixture
def dancer(embedder):
    with TinyDancer(embedder=embedder, settings=KEEPING, clock=lambda: 1000.0, seed=1) as service:
        service.register_agent("good", quality_score=0.9)
        service.register_agent("bad", quality_score=0.1)
        yield service


def answer(dancer, text, *, by="good", **measured):
    """Route to an agent by excluding the others, and report."""
    others = [r.agent.name for r in dancer.list_agents() if r.agent.name != by]
    decision = dancer.route(text, constraints={"excluded_agents": others})
    assert decision.agent_name == by
    dancer.feedback(decision, **measured)


def test_answers_of_several_agents_to_one_request_stand_side_by_side(dancer, embedder):
    answer(dancer, TEXTS[0], quality=0.75, cost_usd=0.02)
    answer(dancer, TEXTS[1], quality=1.0)
    answer(dancer, TEXTS[0], by="bad", quality=0.25, cost_usd=0.01)
    answer(dancer, TEXTS[2], by="bad", success=False)
    data = recorded_data(dancer.store)
    assert data.agents == ("bad", "good")
    np.testing.assert_allclose(data.quality, [[0.25, 0.75], [np.nan, 1.0], [0.0, np.nan]])
    np.testing.assert_allclose(data.cost_usd, [[0.01, 0.02], [np.nan, np.nan], [np.nan, np.nan]])
    np.testing.assert_allclose(data.embeddings[0], embedder.embed(TEXTS).vectors, atol=1e-3)
    np.testing.assert_allclose(data.surface, surface_features(TEXTS), rtol=1e-3)
    assert data.sources is data.tasks is data.groups is None


def test_of_repeated_answers_the_mean_is_taken(dancer):
    for quality in (1.0, 0.0, 0.5, 0.5):
        answer(dancer, TEXTS[0], quality=quality)
    answer(dancer, TEXTS[0], quality=1.0, cost_usd=0.04)
    answer(dancer, TEXTS[0], quality=0.0, cost_usd=0.02)
    data = recorded_data(dancer.store)
    np.testing.assert_allclose(data.quality, [[0.5]])
    np.testing.assert_allclose(data.cost_usd, [[0.03]])


def test_what_nobody_judged_and_what_has_no_features_is_left_out(dancer, embedder):
    answer(dancer, TEXTS[0], latency_ms=5.0)
    dancer.update_agent_metrics("good", quality=1.0)
    answer(dancer, TEXTS[1], quality=0.5)
    with TinyDancer(dancer.store, embedder=embedder) as forgetful:
        answer(forgetful, TEXTS[2], quality=0.5)
        data = recorded_data(dancer.store)
    assert len(data) == 1
    np.testing.assert_allclose(data.surface, surface_features(TEXTS[1:2]), rtol=1e-3)


def test_requests_that_came_as_vectors_count_as_usual_ones(dancer):
    for text in TEXTS:
        answer(dancer, text, quality=1.0)
    vector = unit(np.random.default_rng(0).normal(size=(1, 384)))[0]
    decision = dancer.route(embedding=vector)
    dancer.feedback(decision, quality=0.0)
    data = recorded_data(dancer.store)
    np.testing.assert_allclose(data.embeddings[0][3], vector, atol=1e-3)
    np.testing.assert_allclose(data.surface[3], data.surface[:3].mean(axis=0), rtol=1e-5)


def test_vectors_alone_are_enough(dancer):
    for vector in np.random.default_rng(1).normal(size=(4, 384)):
        dancer.feedback(dancer.route(embedding=vector), quality=0.5)
    data = recorded_data(dancer.store)
    assert data.surface.shape == (4, SURFACE_DIM)
    assert not data.surface.any()


def test_only_the_latest_are_taken(dancer, monkeypatch):
    monkeypatch.setattr(recorded, "_AT_ONCE", 3)
    for number in range(10):
        answer(dancer, f"Request number {number}", quality=number / 10)
    np.testing.assert_allclose(recorded_data(dancer.store).quality[:, 0], np.arange(10) / 10, atol=1e-6)
    latest = recorded_data(dancer.store, most=4)
    np.testing.assert_allclose(latest.quality[:, 0], [0.6, 0.7, 0.8, 0.9], atol=1e-6)


def test_agents_that_were_removed_teach_no_more(dancer):
    """Another may be registered under the name, and is not to be trained on a stranger's answers."""
    answer(dancer, TEXTS[0], by="bad", quality=0.5)
    answer(dancer, TEXTS[0], quality=1.0)
    assert recorded_data(dancer.store).agents == ("bad", "good")
    dancer.remove_agent("bad")
    assert recorded_data(dancer.store).agents == ("good",)


def test_nothing_to_learn_from_is_an_error(dancer):
    with pytest.raises(InvalidInputError, match="no judged answers") as caught:
        recorded_data(dancer.store)
    assert "record_features" in caught.value.hint


def test_tenants_learn_from_their_own(tmp_path, embedder):
    path = tmp_path / "store.db"
    for tenant, quality in (("north", 0.25), ("south", 0.75)):
        with TinyDancer(path, embedder=embedder, settings=Settings(record_features=True, tenant=tenant)) as dancer:
            dancer.register_agent("good")
            answer(dancer, TEXTS[0], quality=quality)
    with TinyDancer(path, embedder=embedder, settings=Settings(tenant="north")) as dancer:
        np.testing.assert_allclose(recorded_data(dancer.store).quality, [[0.25]])
    assert dancer.space == MINILM_SPACE
