"""Training from tables: the model, its card, what it is said to be worth, and what is refused or warned of."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from tests.quality import QUICK, sigma
from tinydancer import train as training
from tinydancer.config import Settings
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.errors import InvalidInputError
from tinydancer.model.quality import AgentProfile, QualityModel
from tinydancer.model.surface import surface_features
from tinydancer.service import TinyDancer
from tinydancer.tables import OutcomeTable
from tinydancer.train import FEWEST_ROWS, merged, train, train_recorded
from tinydancer.types import MINILM_SPACE

KINDS = (
    ("sum", "What is {a} plus {b}? Give the number only.", (0.95, 0.2)),
    ("letter", "Write a friendly letter to the neighbours of house {a} about {b} noisy chickens.", (0.2, 0.95)),
)


@pytest.fixture(scope="module")
def embedder():
    return StaticEmbedder()


def table_of(n=120, *, seed=0, agents=("poet", "sums"), tasks=True, name="r"):
    """Requests of two kinds: sums is good at the first, poet at the second; sums costs a tenth."""
    rng = np.random.default_rng(seed)
    kinds = [KINDS[k] for k in rng.integers(0, 2, n)]
    skill = np.array([skills[::-1] for _, _, skills in kinds])[:, : len(agents)]
    quality = (rng.random(skill.shape) < skill).astype(np.float32)
    cost = np.tile(np.array([0.01, 0.001], np.float32)[: len(agents)], (n, 1))
    return OutcomeTable(
        tuple(f"{name}{i}" for i in range(n)), tuple(kind for kind, _, _ in kinds) if tasks else None,
        tuple(text.format(a=1000 * seed + i, b=i + 3) for i, (_, text, _) in enumerate(kinds)), agents, quality, cost,
    )  # fmt: skip


def trained(tables, embedder, **more):
    more = {"config": QUICK, "resamples": 20, **more}
    return train(tables if isinstance(tables, list) else [tables], embedder, **more)


def test_it_learns_and_beats_the_best_single_agent(embedder, tmp_path):
    table = table_of(200)
    shares = []
    result = trained(table, embedder, name="mine", progress=lambda share, what: shares.append((share, what)))
    evaluation = result.evaluation
    assert evaluation.model_name == "mine"
    assert evaluation.requests == 200
    assert evaluation.agents == ("poet", "sums")
    routed = evaluation.ways[0].values["routed_quality"]
    assert routed > evaluation.best_single_quality + 0.2
    assert [share for share, _ in shares] == sorted(share for share, _ in shares)
    assert shares[-1] == (1.0, "done")
    fresh = table_of(300, seed=5)
    predicted = result.model.predict(
        embedder.embed(fresh.texts).vectors, surface_features(fresh.texts),
        [AgentProfile(name="poet"), AgentProfile(name="sums")],
    )  # fmt: skip
    chosen = fresh.quality[np.arange(300), predicted.argmax(axis=1)].mean()
    assert chosen > fresh.quality.mean(axis=0).max() + 0.2
    assert chosen == pytest.approx(routed, abs=0.08), "what was promised is kept"
    result.model.save(tmp_path / "m.safetensors")
    assert QualityModel.load(tmp_path / "m.safetensors").facts == json.loads(json.dumps(dict(result.model.facts)))


def test_the_evaluation_is_of_predictions_for_unseen_requests(embedder):
    """Answers that are coins: a model that were judged on what it saw would look good."""
    rng = np.random.default_rng(1)
    plain = table_of(200)
    coins = dataclasses.replace(plain, quality=(rng.random((200, 2)) < 0.5).astype(np.float32))
    config = dataclasses.replace(QUICK, penalty_embedding=0.0, penalty_agent=0.0, dropout=0.0, epochs=60)
    result = trained(coins, embedder, config=config)
    assert result.evaluation.ways[0].values["routed_quality"] < 0.62


def test_the_card_says_what_it_was_trained_on(embedder):
    table = table_of(100)
    result = trained(table, embedder)
    facts = result.model.facts
    assert (facts["requests"], facts["outcomes"], facts["sources"]) == (100, 200, 1)
    assert facts["outcomes_by_agent"] == {"poet": 100, "sums": 100}
    assert facts["started_from"] is None
    assert facts["config"] == QUICK.to_dict() | {"strengths": facts["config"]["strengths"]}
    assert facts["loss_by_strength"] == {"1.0": result.cross.losses[0]}
    (figures,) = facts["cross_validated"]
    assert figures["requests"] == 100
    assert figures["routed_quality"] == pytest.approx(result.evaluation.ways[0].values["routed_quality"])
    assert 0.8 < figures["coverage"] <= 1.0
    assert result.model.seen_share(table.texts) == 1.0
    assert result.model.seen_share(["What is the capital of France?"]) == 0.0


def test_the_same_seed_gives_the_same_model(embedder, tmp_path):
    table = table_of(60)
    assert trained(table, embedder).model.save(tmp_path / "1.safetensors") == trained(table, embedder).model.save(
        tmp_path / "2.safetensors"
    )


def test_several_tables_are_several_sources(embedder):
    other = dataclasses.replace(table_of(80, seed=7, tasks=False), agents=("poet", "third"))
    result = trained([table_of(100), other], embedder)
    assert result.model.agents == ("poet", "sums", "third")
    assert result.model.observed.tolist() == [180.0, 100.0, 80.0]
    assert result.model.facts["sources"] == 2
    assert [figures["requests"] for figures in result.model.facts["cross_validated"]] == [100, 80]
    assert [figures["agents"] for figures in result.model.facts["cross_validated"]] == [
        ["poet", "sums"], ["poet", "third"],
    ]  # fmt: skip


def test_a_source_of_one_request_does_no_harm(embedder):
    result = trained([table_of(60), table_of(1, seed=9)], embedder)
    assert [figures["requests"] for figures in result.model.facts["cross_validated"]] == [60]
    assert result.model.facts["sources"] == 2


def test_merging_keeps_everything_in_place():
    one, two = table_of(3), dataclasses.replace(table_of(2, seed=1, tasks=False), agents=("sums", "zulu"))
    table, sources = merged([one, two])
    assert sources.tolist() == [0, 0, 0, 1, 1]
    assert table.agents == ("poet", "sums", "zulu")
    assert len(set(table.request_ids)) == 5
    assert table.texts == one.texts + two.texts
    assert table.tasks == (*one.tasks, "", "")
    nan = np.full((3, 1), np.nan)
    np.testing.assert_array_equal(table.quality[:3], np.append(one.quality, nan, axis=1))
    np.testing.assert_array_equal(table.quality[3:], np.append(nan[:2], two.quality, axis=1))
    np.testing.assert_array_equal(table.cost_usd[3:, 1:], two.cost_usd)
    alone, sources = merged([one])
    assert alone is one
    assert sources.tolist() == [0, 0, 0]


def test_tasks_of_different_sources_are_different_tasks():
    table, sources = merged([table_of(30), table_of(30, seed=1), table_of(10, seed=2, tasks=False)])
    tasks = training._tasks(table, sources)
    assert tasks is not None
    assert table.tasks is not None
    assert len(set(tasks.tolist())) == 5
    for kind in range(5):
        rows = np.flatnonzero(tasks == kind)
        assert len({(sources[i], table.tasks[i]) for i in rows}) == 1
    assert training._tasks(*merged([table_of(5, tasks=False)])) is None


def test_more_vectors_of_the_same_requests(embedder):
    table = table_of(60)
    vectors = embedder.embed(table.texts).vectors
    result = trained(table, embedder, more_vectors=[vectors[:, ::-1].copy()])
    assert result.model.facts["embedders"] == 2
    with pytest.raises(InvalidInputError, match=r"shape \(59, 384\); expected \(60, 384\)"):
        trained(table, embedder, more_vectors=[vectors[:59]])


def test_repeated_texts_stay_together(embedder):
    once = table_of(60)
    twice = dataclasses.replace(
        once, request_ids=(*once.request_ids, *(f"again {i}" for i in range(60))), tasks=once.tasks * 2,
        texts=once.texts * 2, quality=np.tile(once.quality, (2, 1)), cost_usd=np.tile(once.cost_usd, (2, 1)),
    )  # fmt: skip
    result = trained(twice, embedder, config=dataclasses.replace(QUICK, folds=5))
    logits = result.cross.logits
    np.testing.assert_allclose(logits[:60], logits[60:], atol=1e-5)


def test_starting_from_a_model(embedder):
    base = trained(table_of(200), embedder, name="base").model
    few = table_of(40, seed=3)
    refined, alone = trained(few, embedder, start=base), trained(few, embedder)
    assert refined.model.facts["started_from"] == base.name
    assert refined.cross.losses[0] < alone.cross.losses[0]


def test_few_requests_one_agent_and_the_edge_of_strengths_are_told(embedder):
    result = trained(table_of(60, agents=("sums",)), embedder)
    assert any("60 requests are few" in warning for warning in result.warnings)
    assert any("one agent only" in warning for warning in result.warnings)
    noted = dataclasses.replace(table_of(200), warnings=("Something about the file.",))
    config = dataclasses.replace(QUICK, strengths=(1.0, 1e6))
    result = trained(noted, embedder, config=config)
    assert "Something about the file." in result.warnings
    assert any("The weakest penalty tried (1) did best; a weaker one" in warning for warning in result.warnings)
    assert not any("few" in warning for warning in result.warnings)
    assert set(result.model.facts["loss_by_strength"]) == {"1.0", "1000000.0"}


def test_without_costs_and_without_tasks(embedder):
    bare = table_of(80, tasks=False)
    bare = dataclasses.replace(bare, cost_usd=np.full_like(bare.cost_usd, np.nan))
    result = trained(bare, embedder)
    assert result.evaluation.ways[0].values["relative_cost_at_95"] is None
    assert math.isnan(result.model.cost_usd[0])


def test_graded_answers_and_gaps(embedder):
    table = table_of(120)
    rng = np.random.default_rng(2)
    quality = (0.25 + 0.5 * table.quality).astype(np.float32)
    quality[np.arange(120), rng.integers(0, 2, 120)] = np.nan
    result = trained(dataclasses.replace(table, quality=quality), embedder)
    assert result.model.facts["outcomes"] == 120
    assert ((sigma(result.cross.logits) > 0.1) & (sigma(result.cross.logits) < 0.9)).all()


def test_large_data_lie_in_a_file_and_train_to_nearly_the_same(embedder, monkeypatch):
    table = table_of(150)
    here = trained(table, embedder)
    monkeypatch.setattr(training, "IN_MEMORY_ROWS", 100)
    monkeypatch.setattr(training, "EVALUATED_ROWS", 70)
    monkeypatch.setattr(training, "_AT_ONCE", 32)
    there = trained(table, embedder)
    np.testing.assert_allclose(there.model.abilities, here.model.abilities, atol=0.05)  # half precision
    assert there.evaluation.requests == 70
    assert there.model.facts["requests"] == 150


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (table_of(FEWEST_ROWS - 1), "19 judged requests; expected at least 20"),
        (dataclasses.replace(table_of(60), quality=np.ones((60, 2), np.float32)), "All 120 answers .* quality, 1"),
        (dataclasses.replace(table_of(60), quality=np.full((60, 2), 0.5, np.float32)), r"quality, 0\.5"),
        (dataclasses.replace(table_of(60), quality=np.full((60, 2), np.nan, np.float32)), "None of the answers"),
        (dataclasses.replace(table_of(60), quality=np.full((60, 2), 2.0, np.float32)), r"same quality|\[0, 1\]"),
        (dataclasses.replace(table_of(60), texts=("the same",) * 60), "1 different requests"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(embedder, table, words):
    with pytest.raises(InvalidInputError, match=words) as caught:
        trained(table, embedder)
    assert caught.value.message


def test_an_agent_that_is_always_right_and_one_without_an_answer(embedder):
    table = table_of(80).with_agents(["poet", "sums", "right", "silent"])
    table.quality[:, 2] = 1.0
    result = trained(table, embedder)
    assert result.model.observed.tolist() == [80.0, 80.0, 80.0, 0.0]
    assert "silent" not in result.evaluation.agents


# --- From the store -------------------------------------------------------------------------------------------------


def recorded(service, n=200):
    """Routes to both agents and reports what the table says."""
    table = table_of(n)
    for i, text in enumerate(table.texts):
        for column, name in enumerate(table.agents):
            others = [other for other in table.agents if other != name]
            decision = service.route(text, constraints={"excluded_agents": others})
            service.feedback(decision, quality=float(table.quality[i, column]), cost_usd=0.01)


def test_training_from_what_was_recorded(embedder):
    with TinyDancer(embedder=embedder, settings=Settings(record_features=True)) as service:
        for name in ("poet", "sums"):
            service.register_agent(name)
        recorded(service)
        result = train_recorded(service.store, config=QUICK, name="own", resamples=20)
    assert result.model.space == MINILM_SPACE
    assert result.model.agents == ("poet", "sums")
    assert result.model.facts["requests"] == 200
    assert result.model.facts["outcomes"] == 400
    assert result.model.sketch.size == 0, "without texts nobody can say what was seen"
    assert result.model.seen_share(["anything"]) is None
    routed = result.evaluation.to_dict()["routed_quality"]
    assert routed > result.evaluation.best_single_quality + 0.15


def test_too_little_was_recorded(embedder):
    with TinyDancer(embedder=embedder, settings=Settings(record_features=True)) as service:
        for name in ("poet", "sums"):
            service.register_agent(name)
        with pytest.raises(InvalidInputError, match="no judged answers"):
            train_recorded(service.store, config=QUICK)
        recorded(service, 5)
        with pytest.raises(InvalidInputError, match="5 judged requests"):
            train_recorded(service.store, config=QUICK)
