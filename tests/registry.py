"""Agents, requests and snapshots for tests of the decision floors, made up here and by hypothesis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from tinydancer import learn
from tinydancer.snapshot import DecisionSettings, Snapshot, build_snapshot
from tinydancer.types import OBJECTIVES, Agent, Constraints, CostModel, EmbeddingSpace, RequestBatch

SPACE = EmbeddingSpace("test", 4)
CAPABILITIES = ("chat", "code", "law", "math")

# Few different values, so that ties happen, next to values of every size.
prices = st.one_of(st.none(), st.sampled_from([0.0, 0.001, 0.002, 0.03]), st.floats(1e-7, 10.0))
latencies = st.one_of(st.none(), st.sampled_from([0.0, 100.0, 500.0]), st.floats(0.1, 1e5))
qualities = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 0.8, 1.0]), st.floats(0.0, 1.0))
directions = st.lists(st.integers(-3, 3), min_size=4, max_size=4).filter(any).map(lambda v: np.array(v, np.float32))


@st.composite
def agents(draw: st.DrawFn, *, min_size: int = 1, max_size: int = 7) -> list[Agent]:
    """Registries of a few agents with every kind of gap in what is known of them."""
    names = draw(st.lists(st.sampled_from("abcdefghij"), min_size=min_size, max_size=max_size, unique=True))
    return [
        Agent(
            name=name,
            capabilities=tuple(draw(st.lists(st.sampled_from(CAPABILITIES), max_size=3, unique=True))),
            cost=CostModel(cost_per_request=draw(prices), cost_per_second=draw(st.sampled_from([None, None, 0.001]))),
            avg_latency_ms=draw(latencies),
            quality_score=draw(qualities),
            is_active=draw(st.sampled_from([True, True, True, False])),
            embedding=draw(st.one_of(st.none(), directions)),
        )
        for name in names
    ]


constraints = st.builds(
    Constraints,
    max_cost=st.one_of(st.none(), st.sampled_from([0.0, 0.002, 1.0])),
    max_latency_ms=st.one_of(st.none(), st.sampled_from([100.0, 1000.0])),
    min_quality=st.one_of(st.none(), st.sampled_from([0.0, 0.3, 0.8])),
    required_capabilities=st.lists(st.sampled_from(CAPABILITIES), max_size=1).map(tuple),
    excluded_agents=st.lists(st.sampled_from("abcdefghij"), max_size=2).map(tuple),
    budget_remaining=st.one_of(st.none(), st.sampled_from([0.01, 5.0])),
    good_enough=st.one_of(st.none(), st.sampled_from([0.0, 0.9, 1.0])),
    on_no_match=st.just("null"),
)
objectives = st.sampled_from(OBJECTIVES)


def snapshot_of(
    registry: Sequence[Agent],
    *,
    settings: DecisionSettings | None = None,
    stats: dict[str, learn.AgentStats] | None = None,
    space: EmbeddingSpace = SPACE,
) -> Snapshot:
    """The snapshot a service would build."""
    settings = settings or DecisionSettings()
    estimates = {
        a.name: learn.estimate(
            a, (stats or {}).get(a.name, learn.NO_STATS), default_output_tokens=settings.default_output_tokens
        )
        for a in registry
    }
    return build_snapshot(registry, estimates, version="1", space=space, settings=settings)


def batch_of(*vectors: npt.ArrayLike, input_tokens: float = 100.0) -> RequestBatch:
    """Requests in the test space."""
    rows = np.array(vectors, dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return RequestBatch(rows, np.full(len(rows), input_tokens))


ONE = batch_of([1.0, 0.0, 0.0, 0.0])
