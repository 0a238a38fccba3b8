"""What every store must do. A new store is tested by one subclass with one fixture, ``open_store``.

``open_store(tenant)`` opens another store on the same data; each call gives a new object.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tinydancer.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    SpaceMismatchError,
)
from tinydancer.learn import AgentStats, stats_of
from tinydancer.store.base import DecisionRow, Store
from tinydancer.types import Agent, CostModel, Outcome, RequestContext

OpenStore = Callable[..., Store]


def vector(seed: int, dim: int = 384) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=dim).astype(np.float32)


def agent(name: str, **changes) -> Agent:
    values: dict[str, Any] = {
        "agent_type": "llm",
        "capabilities": ("code", "Übersetzung", "a 'quoted'; DROP TABLE agents --"),
        "cost": CostModel(input_cost_per_token=3e-06, output_cost_per_token=1.5e-05),
        "avg_latency_ms": 812.5,
        "quality_score": 0.9,
        "metadata": {"provider": "somebody", "nested": {"list": [1, 2.5, None, "ü"]}},
        "embedding": vector(len(name)),
    }
    return Agent(name=name, **(values | changes))


def decision(decision_id: str, agent_name: str = "a", **changes) -> DecisionRow:
    values: dict[str, Any] = {
        "decided_at": 1_700_000_000.25,
        "objective": "balanced",
        "expected_quality": 0.75,
        "confidence": 0.5,
        "uncertainty": 0.25,
        "estimated_cost_usd": 0.125,
        "estimated_latency_ms": 800.0,
        "similarity_score": -0.5,
        "input_tokens": 42.0,
        "constraints": {"max_cost": 0.5, "excluded_agents": ["x"]},
        "model": "weights-1",
        "request": "Schreibe einen Brief 🙂",
        "context": RequestContext(key="team ä", tags=("one", "two"), task="summary", route_name="support"),
    }
    return DecisionRow(decision_id=decision_id, agent_name=agent_name, **(values | changes))


def outcome(agent_name: str = "a", **changes) -> Outcome:
    return Outcome(agent_name=agent_name, **({"occurred_at": 1_700_000_001.0} | changes))


def assorted_outcomes(number: int, names: tuple[str, ...], seed: int = 0) -> list[Outcome]:
    """Outcomes of every shape: failed, unjudged, unmeasured, graded."""
    rng = np.random.default_rng(seed)

    def maybe(value):
        return value if rng.random() < 0.7 else None

    return [
        outcome(
            names[int(rng.integers(len(names)))],
            success=bool(rng.random() < 0.8),
            quality=maybe(float(rng.random())),
            latency_ms=maybe(float(rng.lognormal(6, 2))),
            cost_usd=maybe(float(rng.random() / 7)),
            input_tokens=maybe(int(rng.integers(1000))),
            output_tokens=maybe(int(rng.integers(1000))),
        )
        for _ in range(number)
    ]


class StoreSuite:
    """Checks of the `Store` protocol."""

    @pytest.fixture
    def open_store(self) -> Iterator[OpenStore]:
        raise NotImplementedError

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Store:
        return open_store("default")

    def test_it_is_a_store(self, store):
        assert isinstance(store, Store)
        assert store.tenant == "default"
        assert (store.space.name, store.space.dim) == ("all-MiniLM-L6-v2", 384)

    def test_an_agent_comes_back_as_it_was_registered(self, store):
        given = agent("gpt", expected_output_tokens=120.5, is_active=False)
        store.insert_agent(given)
        found = store.get_agent("gpt")
        assert found == given
        assert found.embedding is not None
        assert given.embedding is not None
        np.testing.assert_allclose(found.embedding, given.embedding, rtol=0, atol=1e-7)
        assert found.embedding.dtype == np.float32

    def test_an_agent_with_nothing_stated_comes_back(self, store):
        store.insert_agent(Agent(name="bare"))
        found = store.get_agent("bare")
        assert found == Agent(name="bare")
        assert found.embedding is None

    @pytest.mark.parametrize(
        "name", ["'; DROP TABLE agents; --", "$(reboot) `id`", "naïve 模型 🙂", 'a"b', "%_", "x" * 200]
    )
    def test_any_name_is_only_a_name(self, store, name):
        store.insert_agent(agent(name))
        store.insert_outcomes([outcome(name)])
        assert [a.name for a in store.list_agents()] == [name]
        assert store.agent_stats() == {name: AgentStats(total_requests=1, successes=1)}

    def test_agents_are_listed_in_order_of_name(self, store):
        store.insert_agents([agent(name) for name in ("b", "ä", "a", "B", "a1")], replace=False)
        assert [a.name for a in store.list_agents()] == sorted(["b", "ä", "a", "B", "a1"])

    def test_a_name_can_be_registered_once(self, store):
        store.insert_agent(agent("a"))
        with pytest.raises(AlreadyExistsError, match="'a'") as caught:
            store.insert_agent(agent("a", quality_score=0.1))
        assert "Update" in caught.value.hint
        assert store.get_agent("a").quality_score == 0.9

    def test_many_agents_are_registered_all_or_none(self, store):
        store.insert_agent(agent("c"))
        before = store.version()
        with pytest.raises(AlreadyExistsError):
            store.insert_agents([agent("a"), agent("b"), agent("c")], replace=False)
        with pytest.raises(AlreadyExistsError):
            store.insert_agents([agent("d"), agent("d")], replace=False)
        wrong = agent("f", embedding=vector(1, dim=8))
        with pytest.raises(SpaceMismatchError, match=r"8 dimensions.*384"):
            store.insert_agents([agent("e"), wrong], replace=True)
        assert [a.name for a in store.list_agents()] == ["c"]
        assert store.version() == before

    def test_many_agents_replace_those_that_exist(self, store):
        store.insert_agent(agent("a"))
        store.insert_outcomes([outcome("a")])
        store.insert_agents([agent("b"), agent("a", quality_score=0.2)], replace=True)
        assert [(a.name, a.quality_score) for a in store.list_agents()] == [("a", 0.2), ("b", 0.9)]
        assert store.agent_stats()["a"].total_requests == 1

    def test_registering_none_changes_nothing(self, store):
        before = store.version()
        store.insert_agents([], replace=True)
        store.insert_decisions([])
        store.insert_outcomes([])
        assert store.version() == before

    def test_replacing_keeps_the_record(self, store):
        store.insert_agent(agent("a"))
        store.insert_outcomes([outcome("a", quality=0.5)])
        changed = agent("a", agent_type="tool", cost=CostModel(cost_per_call=0.5), embedding=None, metadata={})
        store.replace_agent(changed)
        assert store.get_agent("a") == changed
        assert store.get_agent("a").embedding is None
        assert store.agent_stats()["a"].quality_sum == 0.5

    def test_what_is_not_there_is_not_found_and_the_nearest_name_is_named(self, store):
        store.insert_agent(agent("claude-haiku"))
        before = store.version()
        for attempt in (
            lambda: store.get_agent("claude-haikou"),
            lambda: store.replace_agent(agent("claude-haikou")),
            lambda: store.delete_agent("claude-haikou"),
            lambda: store.insert_outcomes([outcome("claude-haiku"), outcome("claude-haikou")]),
            lambda: store.insert_decisions([decision("1", "claude-haiku"), decision("2", "claude-haikou")]),
        ):
            with pytest.raises(NotFoundError, match="claude-haikou") as caught:
                attempt()
            assert "'claude-haiku'" in caught.value.hint
        with pytest.raises(NotFoundError, match="nothing like it") as caught:
            store.get_agent("nothing like it")
        assert caught.value.hint == "Register it first."
        assert store.version() == before
        assert store.agent_stats() == {}
        assert store.list_decisions() == []

    def test_a_removed_agent_is_gone_and_its_accounts_are_not(self, store):
        store.insert_agents([agent("a"), agent("b")], replace=False)
        store.insert_decisions([decision("1", "a")])
        store.insert_outcomes([outcome("a", cost_usd=0.5), outcome("b", cost_usd=0.25)])
        store.delete_agent("a")
        assert [a.name for a in store.list_agents()] == ["b"]
        assert set(store.agent_stats()) == {"b"}
        with pytest.raises(NotFoundError):
            store.insert_outcomes([outcome("a")])
        assert store.get_decision("1").agent_name == "a"
        totals = store.routing_totals()
        assert (totals.total_outcomes, totals.total_cost_usd) == (2, 0.75)
        assert totals.decisions_by_agent == {"a": 1}

    def test_registered_again_it_starts_with_an_empty_record(self, store):
        for round_number in range(3):
            store.insert_agent(agent("a"))
            assert store.agent_stats() == {}
            store.insert_outcomes([outcome("a", quality=0.5)] * (round_number + 1))
            assert store.agent_stats()["a"].total_requests == round_number + 1
            store.insert_decisions([decision(f"{round_number}", "a")])
            store.delete_agent("a")
        assert store.routing_totals().total_outcomes == 6
        assert store.routing_totals().decisions_by_agent == {"a": 3}

    def test_a_decision_for_an_agent_removed_meanwhile_is_recorded(self, store):
        store.insert_agent(agent("a"))
        store.delete_agent("a")
        store.insert_decisions([decision("1", "a")])
        assert store.get_decision("1").agent_name == "a"

    def test_clearing_removes_every_agent(self, store):
        store.insert_agents([agent("a"), agent("b", is_active=False)], replace=False)
        before = store.version()
        assert store.clear_agents() == 2
        assert store.list_agents() == []
        assert store.version().registry > before.registry
        after = store.version()
        assert store.clear_agents() == 0
        assert store.version() == after

    def test_the_version_grows_with_every_change(self, store):
        seen = [store.version()]
        registry_changes = [
            lambda: store.insert_agent(agent("a")),
            lambda: store.replace_agent(agent("a", quality_score=0.5)),
            lambda: store.insert_agents([agent("a"), agent("b")], replace=True),
            lambda: store.delete_agent("b"),
        ]
        for change in registry_changes:
            change()
            seen.append(store.version())
            assert seen[-1].registry > seen[-2].registry
            assert seen[-1].outcomes == seen[-2].outcomes
        for _ in range(3):
            store.insert_outcomes([outcome("a")])
            seen.append(store.version())
            assert seen[-1].outcomes > seen[-2].outcomes
            assert seen[-1].registry == seen[-2].registry
        store.insert_decisions([decision("1")])
        assert store.version() == seen[-1]

    def test_the_version_notices_other_threads_and_other_stores(self, open_store, store):
        other = open_store("default")
        store.insert_agent(agent("a"))
        before = store.version()
        assert other.version() == before
        thread = threading.Thread(target=lambda: store.insert_outcomes([outcome("a")]))
        thread.start()
        thread.join()
        assert store.version().outcomes > before.outcomes
        assert other.version() == store.version()
        other.insert_agent(agent("b"))
        assert store.version().registry > before.registry

    def test_a_decision_comes_back_as_it_was_recorded(self, store):
        store.insert_agent(agent("a"))
        full = decision("1", estimated_cost_usd=0.1 + 0.2)
        bare = decision(
            "2", estimated_cost_usd=None, estimated_latency_ms=None, constraints={}, model=None, request=None
        )
        store.insert_decisions([full, bare])
        assert store.get_decision("1") == full
        assert store.get_decision("2") == bare
        with pytest.raises(NotFoundError, match="'3'"):
            store.get_decision("3")

    def test_decisions_are_recorded_all_or_none_and_once(self, store):
        store.insert_agent(agent("a"))
        store.insert_decisions([decision("1")])
        with pytest.raises(AlreadyExistsError, match="'1'"):
            store.insert_decisions([decision("2"), decision("1")])
        assert [row.decision_id for row in store.list_decisions()] == ["1"]

    def test_an_impossible_decision_is_refused(self, store):
        store.insert_agent(agent("a"))
        for column, value in (("confidence", 1.5), ("expected_quality", -0.1), ("similarity_score", math.nan)):
            changes: dict[str, Any] = {column: value}
            wrong = decision("1", **changes)
            with pytest.raises(InvalidInputError, match=column):
                store.insert_decisions([decision("2"), wrong])
        assert store.list_decisions() == []

    def test_the_latest_decisions_come_first(self, store):
        store.insert_agent(agent("a"))
        times = [5.0, 9.0, 7.0, 9.0, 1.0]
        store.insert_decisions([decision(str(i), decided_at=t) for i, t in enumerate(times)])
        assert [row.decision_id for row in store.list_decisions()] == ["3", "1", "2", "0", "4"]
        assert [row.decision_id for row in store.list_decisions(2)] == ["3", "1"]
        assert store.list_decisions(0) == []
        with pytest.raises(InvalidInputError, match="limit"):
            store.list_decisions(-1)

    def test_statistics_are_those_of_all_outcomes(self, store):
        names = ("a", "b", "c")
        store.insert_agents([agent(name) for name in (*names, "silent")], replace=False)
        outcomes = assorted_outcomes(2500, names)
        for start in range(0, 2000, 400):
            store.insert_outcomes(outcomes[start : start + 400])
            assert store.agent_stats() == stats_of(outcomes[: start + 400])
        for row in outcomes[2000:]:
            store.insert_outcomes([row])
        assert store.agent_stats() == stats_of(outcomes)

    def test_another_store_on_the_same_data_sees_the_same_statistics(self, open_store, store):
        store.insert_agents([agent("a"), agent("b")], replace=False)
        outcomes = assorted_outcomes(1500, ("a", "b"), seed=1)
        for start in range(0, 1500, 100):
            store.insert_outcomes(outcomes[start : start + 100])
        other = open_store("default")
        assert other.agent_stats() == stats_of(outcomes)
        other.insert_outcomes(outcomes[:10])
        assert store.agent_stats() == other.agent_stats() == stats_of(outcomes + outcomes[:10])

    def test_residuals_are_those_of_the_decisions_judged_last(self, store):
        store.insert_agents([agent("a"), agent("b")], replace=False)
        store.insert_decisions([decision(str(i), expected_quality=0.5) for i in range(6)])
        store.insert_outcomes(
            [
                outcome("a", decision_id="3", quality=0.75),
                outcome("a", decision_id="0", quality=0.0),
                outcome("a", decision_id="1"),  # nobody judged it
                outcome("a", quality=0.9),  # of no decision
                outcome("a", decision_id="unknown", quality=0.9),
                outcome("b", decision_id="2", quality=0.9),  # another agent answered
                outcome("a", decision_id="4", quality=1.0),
                outcome("a", decision_id="3", quality=0.625),  # judged again
                outcome("a", decision_id="3"),
            ]
        )
        assert store.recent_residuals(10) == [0.125, 0.5, 0.5]
        assert store.recent_residuals(1) == [0.125]
        assert store.recent_residuals(0) == []

    def test_totals(self, store):
        empty = store.routing_totals()
        assert (empty.total_decisions, empty.total_outcomes, empty.successes) == (0, 0, 0)
        assert (empty.estimated_cost_usd, empty.total_cost_usd, empty.decisions_by_agent) == (0.0, 0.0, {})
        store.insert_agents([agent("a"), agent("b")], replace=False)
        store.insert_decisions(
            [
                decision("1", "a", objective="cost", estimated_cost_usd=0.5),
                decision("2", "a", objective="quality", estimated_cost_usd=None),
                decision("3", "b", objective="cost", estimated_cost_usd=0.25),
            ]
        )
        store.insert_outcomes([outcome("a", cost_usd=0.125), outcome("b"), outcome("b", success=False, cost_usd=1.0)])
        totals = store.routing_totals()
        assert (totals.total_decisions, totals.total_outcomes, totals.successes) == (3, 3, 2)
        assert (totals.estimated_cost_usd, totals.total_cost_usd) == (0.75, 1.125)
        assert totals.decisions_by_agent == {"a": 2, "b": 1}
        assert totals.decisions_by_objective == {"cost": 2, "quality": 1}

    def test_threads_share_a_store(self, store):
        store.insert_agent(agent("a"))
        errors: list[BaseException] = []

        def report(number: int) -> None:
            try:
                for i in range(40):
                    store.insert_decisions([decision(f"{number}-{i}")])
                    store.insert_outcomes([outcome("a", decision_id=f"{number}-{i}", latency_ms=1.0)])
                    store.agent_stats()
                    with pytest.raises(NotFoundError):  # beside others that succeed
                        store.insert_outcomes([outcome("a"), outcome("nobody")])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=report, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert store.agent_stats()["a"].total_requests == 320
        assert store.routing_totals().total_decisions == 320


class TenantSuite:
    """Checks that tenants who share the data do not see each other."""

    @pytest.fixture
    def open_store(self) -> Iterator[OpenStore]:
        raise NotImplementedError

    def test_tenants_do_not_see_each_other(self, open_store):
        one, two = open_store("one"), open_store("two")
        one.insert_agents([agent("a"), agent("b")], replace=False)
        version = one.version()
        assert two.version() == (0, 0)
        two.insert_agent(agent("a", quality_score=0.1))
        one.insert_decisions([decision("1", "a", expected_quality=0.5)])
        two.insert_decisions([decision("1", "a", expected_quality=0.25)])  # ids are each tenant's own
        one.insert_outcomes([outcome("a", decision_id="1", quality=1.0, cost_usd=0.5)])
        two.insert_outcomes([outcome("a", decision_id="1", quality=0.5)] * 2)
        assert (one.get_agent("a").quality_score, two.get_agent("a").quality_score) == (0.9, 0.1)
        assert (one.get_decision("1").expected_quality, two.get_decision("1").expected_quality) == (0.5, 0.25)
        assert (one.agent_stats()["a"].total_requests, two.agent_stats()["a"].total_requests) == (1, 2)
        assert (one.recent_residuals(9), two.recent_residuals(9)) == ([0.5], [0.25])
        assert (one.routing_totals().total_outcomes, two.routing_totals().total_outcomes) == (1, 2)
        assert len(one.list_decisions()) == len(two.list_decisions()) == 1
        with pytest.raises(NotFoundError):
            two.get_agent("b")
        with pytest.raises(NotFoundError):
            two.delete_agent("b")
        with pytest.raises(NotFoundError):
            two.insert_outcomes([outcome("b")])
        assert two.clear_agents() == 1
        assert [a.name for a in one.list_agents()] == ["a", "b"]
        assert one.version().registry == version.registry
