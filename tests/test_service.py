"""The whole house through its Python door: real embedder, real SQLite files, several processes' worth of stores."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinydancer import intake
from tinydancer.config import EmbedderSettings, Settings
from tinydancer.embedding.base import CallableEmbedder, Embedder
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.errors import (
    AlreadyExistsError,
    InvalidInputError,
    InvalidTextError,
    NoMatchError,
    NotFoundError,
    SpaceMismatchError,
    StoreError,
    UnknownKeyError,
)
from tinydancer.service import TinyDancer
from tinydancer.types import MINILM_SPACE, Constraints, EmbeddingSpace, Outcome, RequestContext


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return StaticEmbedder()


@pytest.fixture
def dancer(embedder: Embedder) -> Iterator[TinyDancer]:
    with TinyDancer(embedder=embedder, clock=lambda: 1000.0, seed=1) as service:
        service.register_agent("gpt-4", "llm", ["coding", "reasoning"], 0.03, 500.0, 0.95)
        service.register_agent("gpt-3.5", "llm", ["general"], 0.002, 150.0, 0.75)
        yield service


def test_the_documents_quick_start(dancer: TinyDancer) -> None:
    decision = dancer.route("Write a Python function to calculate Fibonacci numbers", optimize_for="cost")
    assert decision.agent_name == "gpt-3.5"
    dancer.update_agent_metrics("gpt-4", 450.0, True, 0.92)
    listed = {r.agent.name: r.performance for r in dancer.list_agents()}
    assert listed["gpt-4"].avg_latency_ms == 450.0
    assert listed["gpt-4"].quality_score == pytest.approx(0.92)
    assert listed["gpt-4"].p95_latency_ms == pytest.approx(450.0, rel=0.01)
    assert dancer.routing_stats() == {
        "total_agents": 2, "active_agents": 2, "total_decisions": 1, "total_outcomes": 1, "success_rate": 1.0,
        "estimated_cost_usd": pytest.approx(0.002), "total_cost_usd": 0.0, "decisions_by_agent": {"gpt-3.5": 1},
        "decisions_by_objective": {"cost": 1},
    }  # fmt: skip


def test_a_decision_can_be_looked_up_and_answered(dancer: TinyDancer) -> None:
    decision = dancer.route("Explain how a heap works.", "quality", {"min_quality": 0.5}, max_cost=0.5)
    assert decision.decision_id is not None
    row = dancer.store.get_decision(decision.decision_id)
    assert (row.agent_name, row.objective, row.decided_at) == ("gpt-4", "quality", 1000.0)
    assert row.constraints == {"min_quality": 0.5, "max_cost": 0.5}
    assert row.request is None, "texts are not kept unless asked for"
    by_object = dancer.feedback(decision, quality=1.0)
    by_id = dancer.feedback(decision.decision_id, success=False, latency_ms=900.0)
    assert (by_object.agent_name, by_id.agent_name) == ("gpt-4", "gpt-4")
    assert dancer.get_agent("gpt-4").performance.success_rate == 0.5


def test_routing_follows_what_it_learns(dancer: TinyDancer) -> None:
    assert dancer.route("Hello there", "quality").agent_name == "gpt-4"
    dancer.record_outcomes([Outcome(agent_name="gpt-4", occurred_at=0.0, quality=0.1) for _ in range(50)])
    dancer.record_outcomes([Outcome(agent_name="gpt-3.5", occurred_at=0.0, quality=0.9) for _ in range(50)])
    assert dancer.route("Hello there", "quality").agent_name == "gpt-3.5"


def test_the_conformal_interval_narrows_with_judged_decisions(dancer: TinyDancer) -> None:
    first = dancer.route("Summarise this paragraph.", "quality")
    assert first.uncertainty == 1.0
    for _ in range(40):
        decision = dancer.route("Summarise this paragraph.", "quality")
        dancer.feedback(decision, quality=0.9)
    assert dancer.route("Summarise this paragraph.", "quality").uncertainty < 0.4


def test_a_batch_decides_as_single_requests_do(dancer: TinyDancer) -> None:
    requests = ["Fix this bug in my code", "Good morning", "Prove that 2 is prime", "x" * 5000, "¿Qué hora es?"]
    for objective in ("balanced", "cost", "quality"):
        together = dancer.route_batch(requests, objective)
        alone = [dancer.route(r, objective) for r in requests]
        assert [d.agent_name for d in together if d] == [d.agent_name for d in alone]
        assert [d.estimated_cost for d in together if d] == pytest.approx([d.estimated_cost for d in alone])
    assert dancer.routing_stats()["total_decisions"] == 3 * 2 * len(requests)
    assert dancer.route_batch([]) == []


def test_vectors_instead_of_texts(dancer: TinyDancer, embedder: Embedder) -> None:
    texts = ["Write a sorting routine", "Tell me a joke"]
    vectors = embedder.embed(texts).vectors
    by_text = dancer.route_batch(texts, "balanced")
    for embeddings in (vectors * 7, list(vectors), vectors.tolist(), vectors.astype(np.float64)):
        by_vector = dancer.route_batch(embeddings=embeddings)
        assert [d.agent_name for d in by_vector if d] == [d.agent_name for d in by_text if d]
    single = dancer.route(embedding=vectors[0])
    assert single.agent_name == by_text[0].agent_name  # type: ignore[union-attr]
    both = dancer.route_batch(texts, embeddings=vectors)
    assert both[1].agent_name == by_text[1].agent_name  # type: ignore[union-attr]


def test_the_size_of_a_request_can_be_told(dancer: TinyDancer) -> None:
    dancer.register_agent(
        "metered", input_cost_per_token=1e-3, cached_input_cost_per_token=1e-4, output_cost_per_token=1e-2,
    )  # fmt: skip
    only = {"excluded_agents": ["gpt-4", "gpt-3.5"]}
    told = dancer.route("Hi", constraints=only, input_tokens=100, cached_input_tokens=50, output_tokens=10)
    assert told.estimated_cost == pytest.approx(50 * 1e-3 + 50 * 1e-4 + 10 * 1e-2)
    batch = dancer.route_batch(["Hi", "Ho"], constraints=only, input_tokens=100, output_tokens=10)
    assert [d.estimated_cost for d in batch if d] == pytest.approx([0.2, 0.2])
    longer = dancer.route("Please answer this much longer question about many things.", constraints=only)
    assert (longer.estimated_cost or 0) > (dancer.route("Hi", constraints=only).estimated_cost or 0)
    with pytest.raises(InvalidInputError, match="input_tokens is -1"):
        dancer.route("Hi", input_tokens=-1)


def test_constraints_may_be_given_in_every_form(dancer: TinyDancer) -> None:
    forms: list[tuple[Any, dict[str, Any]]] = [
        (Constraints(max_cost=0.01), {}), ({"max_cost": 0.01}, {}), (None, {"max_cost": 0.01}),
        (Constraints(max_cost=5), {"max_cost": 0.01}),
    ]  # fmt: skip
    for constraints, limits in forms:
        assert dancer.route("Hello", "quality", constraints, **limits).agent_name == "gpt-3.5"
    assert dancer.route("Hello", min_quality=1.0, on_no_match="null") is None
    with pytest.raises(UnknownKeyError, match="max_price"):
        dancer.route("Hello", max_price=3)
    with pytest.raises(InvalidInputError, match="expected a JSON object"):
        dancer.route("Hello", constraints=[1], max_cost=1)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"requests": "one text"}, InvalidInputError, "expected a list of texts"),
        ({}, InvalidInputError, "Neither requests nor embeddings"),
        ({"requests": ["fine", ""]}, InvalidTextError, "Request number 2: The request is empty"),
        ({"requests": ["a"], "embeddings": np.ones((2, 384))}, InvalidInputError, "1 requests and 2 embeddings"),
        ({"embeddings": np.ones((2, 3))}, SpaceMismatchError, "Embedding number 1 has 3 dimensions"),
        ({"embeddings": np.zeros((1, 384))}, InvalidInputError, "Embedding number 1 is all zeros"),
    ],
)
def test_a_bad_batch_routes_nothing(
    dancer: TinyDancer, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        dancer.route_batch(**arguments)
    assert dancer.routing_stats()["total_decisions"] == 0


@pytest.mark.parametrize("bad", ["", " ", "x" * 1_000_000, "\ud800", b"abc"])
def test_bad_texts_are_refused(dancer: TinyDancer, bad: Any) -> None:
    with pytest.raises(InvalidTextError):
        dancer.route(bad)
    with pytest.raises(InvalidTextError):
        dancer.embed(bad)


def test_nothing_to_route_on_is_an_error(dancer: TinyDancer) -> None:
    with pytest.raises(InvalidInputError, match="Neither a request nor an embedding"):
        dancer.route()
    with pytest.raises(SpaceMismatchError, match="384"):
        dancer.route(embedding=[1.0, 2.0])


def test_agents_live_and_change(dancer: TinyDancer) -> None:
    with pytest.raises(AlreadyExistsError) as caught:
        dancer.register_agent("gpt-4")
    assert "Update" in caught.value.hint
    dancer.update_agent_metrics("gpt-4", 400.0)
    changed = dancer.update_agent("gpt-4", {"capabilities": ["poetry"], "cost_per_request": 0.001})
    assert changed.performance.total_requests == 1, "what was observed stays"
    assert changed.agent.embedding is not None
    np.testing.assert_allclose(changed.agent.embedding, dancer.embed("poetry"), atol=1e-6)
    assert dancer.route("Hi", "cost").agent_name == "gpt-4"
    dancer.set_agent_active("gpt-4", False)
    assert dancer.route("Hi", "cost").agent_name == "gpt-3.5"
    dancer.remove_agent("gpt-4")
    for missing in (dancer.get_agent, dancer.remove_agent):
        with pytest.raises(NotFoundError):
            missing("gpt-4")
    assert dancer.clear_agents() == 1
    assert dancer.list_agents() == []


def test_agents_are_found_by_capability_exactly_first_then_by_meaning(dancer: TinyDancer) -> None:
    dancer.register_agent("poet", capabilities=["poetry"], quality_score=0.5)
    dancer.register_agent("bard", capabilities=["Poetry"], quality_score=0.9)
    dancer.register_agent("mute", quality_score=1.0)
    dancer.register_agent("off", capabilities=["poetry"], is_active=False)
    found = dancer.find_agents_by_capability("poetry")
    assert [m.record.agent.name for m in found[:2]] == ["bard", "poet"]
    assert [m.exact for m in found] == [True, True, False, False]
    assert {m.record.agent.name for m in found[2:]} == {"gpt-4", "gpt-3.5"}
    assert [m.record.agent.name for m in dancer.find_agents_by_capability("poetry", semantic=False)] == ["bard", "poet"]
    assert len(dancer.find_agents_by_capability("verse", 1)) == 1


def test_price_lists_are_taken_over_whole_or_not_at_all(dancer: TinyDancer) -> None:
    prices: dict[str, Any] = {
        "gpt-4": {"input_cost_per_token": 1e-5, "output_cost_per_token": 3e-5},
        "new": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "mode": "chat"},
    }
    assert dancer.import_prices(prices, update_only=True) == ["gpt-4"]
    known = dancer.get_agent("gpt-4").agent
    assert (known.quality_score, known.cost.input_cost_per_token) == (0.95, 1e-5)
    with pytest.raises(InvalidInputError):
        dancer.import_prices({**prices, "bad": {"input_cost_per_token": -1}})
    with pytest.raises(NotFoundError):
        dancer.get_agent("new")
    assert dancer.import_prices(prices, ["n*"]) == ["new"]
    assert dancer.get_agent("new").performance.quality_score is None


def test_recording_can_be_off_or_sampled(embedder: Embedder) -> None:
    for share, low, high in ((False, 0, 0), (0.5, 30, 70), (True, 100, 100)):
        with TinyDancer(embedder=embedder, settings=Settings(record_decisions=share), seed=3) as dancer:
            dancer.register_agent("a", cost_per_request=1.0)
            made = [dancer.route("Hello") for _ in range(100)]
            recorded = dancer.routing_stats()["total_decisions"]
            assert low <= recorded <= high
            assert sum(d.decision_id is not None for d in made) == recorded


def test_requests_are_kept_when_asked_for(embedder: Embedder) -> None:
    with TinyDancer(embedder=embedder, settings=Settings(record_requests=True)) as dancer:
        dancer.register_agent("a")
        decision = dancer.route("Remember me")
        assert dancer.store.get_decision(decision.decision_id or "").request == "Remember me"
        assert decision.decision_id != dancer.route("Remember me").decision_id


def test_whose_request_it_is_is_recorded_and_changes_no_decision(dancer: TinyDancer) -> None:
    whose: dict[str, Any] = {"key": "team-a", "tags": ["search", "nightly", "search"], "task": "summary"}
    whose["route_name"] = "support"
    named, plain = dancer.route("Sum this up", "cost", **whose), dancer.route("Sum this up", "cost")
    assert {**named.to_dict(), "decision_id": ""} == {**plain.to_dict(), "decision_id": ""}
    kept = dancer.store.get_decision(named.decision_id or "").context
    assert kept == RequestContext(key="team-a", tags=("search", "nightly"), task="summary", route_name="support")
    assert kept.to_dict() == {**whose, "tags": ["search", "nightly"]}
    assert dancer.store.get_decision(plain.decision_id or "").context == RequestContext()
    for decision in dancer.route_batch(["One", "Two"], key="team-b"):
        assert decision is not None
        assert dancer.store.get_decision(decision.decision_id or "").context.key == "team-b"
    with pytest.raises(InvalidInputError, match="17 tags"):
        dancer.route("Hi", tags=[f"tag {i}" for i in range(17)])
    with pytest.raises(InvalidInputError, match="key"):
        dancer.route("Hi", key="")
    with pytest.raises(UnknownKeyError, match="route_name"):
        RequestContext.from_mapping({"keys": "team-a"})


def test_feedback_that_cannot_be_placed_changes_nothing(dancer: TinyDancer) -> None:
    with pytest.raises(NotFoundError):
        dancer.feedback("no-such-decision")
    with pytest.raises(NotFoundError):
        dancer.update_agent_metrics("nobody", 1.0)
    with pytest.raises(UnknownKeyError, match="latency_ms"):
        dancer.feedback(dancer.route("Hi"), latency=3)
    with pytest.raises(InvalidInputError):
        dancer.update_agent_metrics("gpt-4", 100.0, True, math.nan)
    assert dancer.routing_stats()["total_outcomes"] == 0


def test_what_another_process_registers_is_seen_at_the_next_request(tmp_path: Path, embedder: Embedder) -> None:
    path = tmp_path / "shared.db"
    with TinyDancer(path, embedder=embedder) as one, TinyDancer(path, embedder=embedder) as other:
        one.register_agent("first", cost_per_request=0.5, quality_score=0.9)
        assert other.route("Hello", "cost").agent_name == "first"
        one.register_agent("second", cost_per_request=0.1, quality_score=0.9)
        assert other.route("Hello", "cost").agent_name == "second"
        one.set_agent_active("second", False)
        assert other.route("Hello", "cost").agent_name == "first"


def test_outcomes_of_another_process_count_after_the_refresh_interval(tmp_path: Path, embedder: Embedder) -> None:
    now = [1000.0]
    settings = Settings(stats_refresh_s=5.0)
    with (
        TinyDancer(tmp_path / "s.db", embedder=embedder) as writer,
        TinyDancer(tmp_path / "s.db", embedder=embedder, settings=settings, clock=lambda: now[0]) as reader,
    ):
        writer.register_agent("a", quality_score=0.5)
        before = reader.route("Hi").expected_quality
        writer.record_outcomes([Outcome(agent_name="a", occurred_at=0.0, quality=1.0)] * 10)
        assert reader.route("Hi").expected_quality == before
        now[0] += 5.0
        assert reader.route("Hi").expected_quality == pytest.approx((5 + 10) / 20)
        writer.update_agent_metrics("a", quality=0.0)
        now[0] -= 100.0  # a clock that was set back must not freeze the statistics
        assert reader.route("Hi").expected_quality == pytest.approx((5 + 10) / 21)


def test_state_survives_the_process(tmp_path: Path, embedder: Embedder) -> None:
    with TinyDancer(tmp_path / "s.db", embedder=embedder) as dancer:
        dancer.register_agent("a", quality_score=0.5, metadata={"k": [1, "é"]}, cost_per_1k_tokens=0.01)
        decision = dancer.route("Hi")
        dancer.feedback(decision, quality=0.8, output_tokens=12, cost_usd=0.25)
        before = dancer.list_agents()
    with TinyDancer(tmp_path / "s.db", embedder=embedder) as again:
        assert again.list_agents() == before
        assert again.routing_stats()["total_cost_usd"] == 0.25


def test_tenants_do_not_see_each_other(tmp_path: Path, embedder: Embedder) -> None:
    path = tmp_path / "s.db"
    with (
        TinyDancer(path, embedder=embedder, settings=Settings(tenant="a")) as a,
        TinyDancer(path, embedder=embedder, settings=Settings(tenant="b")) as b,
    ):
        a.register_agent("same", quality_score=0.9)
        b.register_agent("same", quality_score=0.1)
        decision = a.route("Hi")
        assert b.get_agent("same").performance.quality_score == 0.1
        with pytest.raises(NotFoundError):
            b.feedback(decision.decision_id or "")
        assert b.routing_stats()["total_decisions"] == 0
        b.clear_agents()
        assert len(a.list_agents()) == 1


def test_a_deployment_with_vectors_of_its_own() -> None:
    settings = Settings(embedder=EmbedderSettings(kind="none", space="mine", dim=3))
    with TinyDancer(settings=settings) as dancer:
        dancer.register_agent("x", embedding=[1, 0, 0], quality_score=0.8)
        dancer.register_agent("y", embedding=[0, 1, 0], quality_score=0.8)
        dancer.register_agent("z", capabilities=["no vector"], quality_score=0.1)
        assert dancer.route(embedding=[0, 5, 0], optimize_for="quality").agent_name == "y"
        with pytest.raises(InvalidInputError, match="kind: none"):
            dancer.route("text")
        with pytest.raises(SpaceMismatchError, match="3"):
            dancer.register_agent("w", embedding=[1, 0, 0, 0])


def test_an_embedder_of_ones_own_brings_its_space(tmp_path: Path) -> None:
    space = EmbeddingSpace("letters", 26)

    def letters(texts: list[str]) -> list[list[int]]:
        return [[t.lower().count(chr(97 + i)) + (i == 0) for i in range(26)] for t in texts]

    path = tmp_path / "s.db"
    with TinyDancer(path, embedder=CallableEmbedder(letters, space)) as dancer:
        dancer.register_agent("zzz", capabilities=["zzz"], quality_score=0.5)
        dancer.register_agent("qqq", capabilities=["qqq"], quality_score=0.5)
        assert dancer.route("zzzz!", "quality").agent_name == "zzz"
    with pytest.raises(SpaceMismatchError, match="letters"):
        TinyDancer(path)


def test_the_store_must_be_of_the_embedders_space(tmp_path: Path, embedder: Embedder) -> None:
    with TinyDancer(tmp_path / "s.db", embedder=embedder) as dancer:
        other = CallableEmbedder(lambda texts: [[1.0]] * len(texts), EmbeddingSpace("one", 1))
        with pytest.raises(SpaceMismatchError, match="one"):
            TinyDancer(dancer.store, embedder=other)
        assert dancer.store.space == MINILM_SPACE


def test_an_address_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(InvalidInputError) as caught:
        TinyDancer("mysql://me:sesame@host/db")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["host=127.0.0.1 port=1 password=se/same dbname=x", "postgresql://me:se%2Fsame@127.0.0.1:1/x"]
)
def test_an_address_is_no_path_and_its_password_stays_out_of_the_message(address: str) -> None:
    with pytest.raises(StoreError) as caught:
        TinyDancer(address)
    assert "does not answer" in str(caught.value)
    assert "same" not in str(caught.value) + caught.value.detail + caught.value.hint


def test_many_threads_route_and_report_on_one_service(tmp_path: Path, embedder: Embedder) -> None:
    with TinyDancer(tmp_path / "s.db", embedder=embedder) as dancer:
        for i in range(5):
            dancer.register_agent(f"a{i}", cost_per_request=i + 1.0, quality_score=0.9)
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for i in range(25):
                    decision = dancer.route(f"Request {number} {i}", "cost")
                    dancer.feedback(decision, quality=1.0)
                    if number == 0:
                        dancer.set_agent_active("a4", i % 2 == 0)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        stats = dancer.routing_stats()
        assert (stats["total_decisions"], stats["total_outcomes"]) == (200, 200)


def test_ids_are_reproducible_from_a_seed_and_sort_by_time(embedder: Embedder) -> None:
    def ids(now: float) -> list[str]:
        with TinyDancer(embedder=embedder, clock=lambda: now, seed=9) as dancer:
            dancer.register_agent("a")
            return [dancer.route("Hi").decision_id or "" for _ in range(3)]

    assert ids(5.0) == ids(5.0)
    assert max(ids(5.0)) < min(ids(6.0))
    assert {len(i) for i in ids(5.0)} == {32}


def test_no_match_lists_every_agent(dancer: TinyDancer) -> None:
    with pytest.raises(NoMatchError) as caught:
        dancer.route("Hello", max_cost=0.0001)
    assert set(caught.value.exclusions) == {"gpt-4", "gpt-3.5"}


def test_embedders_are_made_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    made = intake.make_embedder(EmbedderSettings(kind="openai", base_url="http://127.0.0.1:9/v1", model="m", dim=5))
    assert (made.name, made.space) == ("openai-compatible", EmbeddingSpace("m", 5))


def test_many_agents_are_registered_together_or_not_at_all(dancer: TinyDancer) -> None:
    done: list[int] = []
    configs = [{"name": f"n{i}", "capabilities": [f"skill {i}"]} for i in range(100)]
    assert dancer.register_agents(configs, progress=done.append) == [c["name"] for c in configs]
    assert sum(done) == 100
    with pytest.raises(InvalidInputError, match="Agent number 2: the name 'x' is given twice"):
        dancer.register_agents([{"name": "x"}, {"name": "x"}])
    with pytest.raises(InvalidInputError, match="Agent number 2: quality_score is 7"):
        dancer.register_agents([{"name": "y"}, {"name": "z", "quality_score": 7}])
    with pytest.raises(AlreadyExistsError):
        dancer.register_agents([{"name": "y"}, {"name": "gpt-4"}])
    dancer.register_agents([{"name": "gpt-4", "quality_score": 0.5}], replace=True)
    assert len(dancer.list_agents()) == 102
    assert dancer.get_agent("gpt-4").performance.quality_score == 0.5


def test_the_reason_says_how_much_was_observed(dancer: TinyDancer) -> None:
    assert "the quality is its stated score," in dancer.route("Hi", "cost").reasoning
    dancer.update_agent_metrics("gpt-3.5", quality=0.8)
    assert "its record of 1 judged answer beside its stated score" in dancer.route("Hi", "cost").reasoning
    assert dancer.list_decisions(1)[0].agent_name == "gpt-3.5"
