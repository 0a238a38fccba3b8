"""Rows for what happens around a decision: the store's writes and reads, and the snapshot it is made on."""

from __future__ import annotations

import itertools

from bench import material
from bench.measure import Operation
from bench.registry import SNAPSHOT, STORE, Place, row

from tinydancer import learn
from tinydancer.snapshot import build_snapshot
from tinydancer.store.base import DecisionRow
from tinydancer.types import MINILM_SPACE, Outcome


@row("version()", group=STORE, how="Store.version, asked before every decision")
def version(place: Place) -> Operation:
    return material.dancer(place, 20).store.version


@row("insert one decision", group=STORE, how="Store.insert_decisions of one row, committed to the file, not forced")
def insert_decision(place: Place) -> Operation:
    store = material.dancer(place, 20).store
    number = itertools.count()

    def insert() -> None:
        decision = DecisionRow(
            decision_id=f"{next(number):032x}", decided_at=material.NOW, agent_name="agent-0007", objective="balanced",
            expected_quality=0.8, confidence=0.9, uncertainty=0.2, estimated_cost_usd=0.001,
            estimated_latency_ms=300.0, similarity_score=0.4, input_tokens=40.0, constraints={},
        )  # fmt: skip
        store.insert_decisions([decision])

    return insert


@row(
    "insert one outcome, durable", group=STORE, reference="fsync",
    how="Store.insert_outcomes of one row, forced to the disk before it returns; the file lies under $TMPDIR",
)  # fmt: skip
def insert_outcome(place: Place) -> Operation:
    store = material.dancer(place, 20).store
    outcome = Outcome(agent_name="agent-0007", occurred_at=material.NOW, quality=0.8, latency_ms=310.0, cost_usd=0.001)
    return lambda: store.insert_outcomes([outcome])


@row(
    "insert 1,000 outcomes at once, each", group=STORE, items=1000, reference="fsync",
    how="Store.insert_outcomes of 1,000 rows in one durable transaction; time divided by 1,000",
)  # fmt: skip
def insert_outcomes(place: Place) -> Operation:
    store = material.dancer(place, 20).store
    outcomes = [
        Outcome(agent_name=f"agent-{i % 20:04}", occurred_at=material.NOW, quality=0.8, latency_ms=310.0)
        for i in range(1000)
    ]
    return lambda: store.insert_outcomes(outcomes)


def _build(place: Place, n_agents: int) -> Operation:
    dancer = material.dancer(place, n_agents)
    agents, stats = dancer.store.list_agents(), dancer.store.agent_stats()
    settings = dancer.settings.decisions

    def build() -> object:
        estimates = {
            agent.name: learn.estimate(
                agent, stats.get(agent.name, learn.NO_STATS), default_output_tokens=settings.default_output_tokens
            )
            for agent in agents
        }
        return build_snapshot(agents, estimates, version="1", space=MINILM_SPACE, settings=settings)

    return build


_BUILD = "learn.estimate for every agent and build_snapshot, from agents in memory; happens when the registry changes"


@row("build, 20 agents", group=SNAPSHOT, how=_BUILD)
def build_20(place: Place) -> Operation:
    return _build(place, 20)


@row("build, 1,000 agents", group=SNAPSHOT, how=_BUILD, unit="ms")
def build_1000(place: Place) -> Operation:
    return _build(place, 1000)


@row(
    "decision after an outcome, 20 agents", group=SNAPSHOT, reference="fsync",
    how="TinyDancer.feedback, forced to the disk, then route(embedding=...): statistics and snapshot made anew",
)  # fmt: skip
def decision_after_outcome(place: Place) -> Operation:
    dancer = material.dancer(place, 20)
    vector = material.endless(list(material.unit_vectors(64)))

    def learn_and_route() -> str:
        dancer.update_agent_metrics("agent-0007", latency_ms=300.0, quality=0.8)
        return dancer.route(embedding=vector()).agent_name

    return learn_and_route
