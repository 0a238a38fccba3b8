"""Nouns as parameters of the PostgreSQL store's queries, and rows back into nouns.

In: agents, decisions, outcomes; or rows in the column order of the queries. Out: the other. Every number is made a
plain `float` or `int` here, because both drivers write NumPy's own types in ways that the server does not read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinydancer import validation as check
from tinydancer.errors import StoreCorruptError
from tinydancer.learn import SUMMED_FIELDS, AgentStats, latency_bucket, quality_bin
from tinydancer.store.base import DecisionRow
from tinydancer.types import COST_FIELDS, NO_CONTEXT, Agent, CostModel, EmbeddingSpace, Outcome, RequestContext
from tinydancer.validation import FloatVector

Row = tuple[Any, ...]

# What array_send gives: dimensions, has-nulls flag, element type, length, lower bound; then each element's length and
# its four bytes, all in network order.
_ARRAY_HEADER_BYTES = 20
_ARRAY_ELEMENT = np.dtype([("length", ">i4"), ("value", ">f4")])


def vector_of(sent: bytes, space: EmbeddingSpace, what: str) -> FloatVector:
    """``float32[dim]`` from ``array_send`` of a ``real[]``; `StoreCorruptError` if it has another dimension."""
    dim, rest = divmod(len(sent) - _ARRAY_HEADER_BYTES, _ARRAY_ELEMENT.itemsize)
    if rest or dim != space.dim:
        raise StoreCorruptError(
            f"{what} is stored with {dim} dimensions; expected {space.dim} for {space}.", hint="Register it again."
        )
    return np.frombuffer(sent, dtype=_ARRAY_ELEMENT, offset=_ARRAY_HEADER_BYTES)["value"].astype(np.float32)


def agent_record(agent: Agent, space: EmbeddingSpace) -> dict[str, Any]:
    """One object of the array that ``insert_agents`` takes; `SpaceMismatchError` for a vector of another space."""
    embedding = None
    if agent.embedding is not None:
        what = f"The embedding of agent {agent.name!r}"
        embedding = check.vector(agent.embedding, what, dim=space.dim, space=space.name).tolist()
    return {
        "name": agent.name,
        "agent_type": agent.agent_type,
        "capabilities": list(agent.capabilities),
        "cost_model": {key: value for key in COST_FIELDS if (value := getattr(agent.cost, key)) is not None},
        "avg_latency_ms": agent.avg_latency_ms,
        "quality_score": agent.quality_score,
        "expected_output_tokens": agent.expected_output_tokens,
        "is_active": agent.is_active,
        "metadata": dict(agent.metadata),
        "embedding": embedding,
    }


def agent_of(row: Row, space: EmbeddingSpace) -> Agent:
    """From a row of ``get_agent`` or ``list_agents``."""
    name, agent_type, capabilities, prices, latency_ms, quality, output_tokens, active, metadata, embedding = row
    if embedding is not None:
        embedding = vector_of(embedding, space, f"The embedding of agent {name!r}")
    return Agent(
        name=name,
        agent_type=agent_type,
        capabilities=tuple(capabilities),
        cost=CostModel(**json.loads(prices)),
        avg_latency_ms=latency_ms,
        quality_score=quality,
        expected_output_tokens=output_tokens,
        is_active=active,
        metadata=json.loads(metadata),
        embedding=embedding,
    )


def decision_row(row: DecisionRow) -> Row:
    """The parameters of ``insert_decision`` after the tenant."""
    return (
        row.decision_id,
        float(row.decided_at),
        row.agent_name,
        row.objective,
        float(row.expected_quality),
        float(row.confidence),
        float(row.uncertainty),
        _float(row.estimated_cost_usd),
        _float(row.estimated_latency_ms),
        float(row.similarity_score),
        float(row.input_tokens),
        json.dumps(row.constraints) if row.constraints else "{}",
        row.model,
        row.request,
        row.features,
        json.dumps(row.context.to_dict()) if row.context is not NO_CONTEXT else None,
    )


def decision_of(row: Row) -> DecisionRow:
    """From a row of ``get_decision`` or ``list_decisions``."""
    return DecisionRow(
        decision_id=row[0],
        decided_at=row[1],
        agent_name=row[2],
        objective=row[3],
        expected_quality=row[4],
        confidence=row[5],
        uncertainty=row[6],
        estimated_cost_usd=row[7],
        estimated_latency_ms=row[8],
        similarity_score=row[9],
        input_tokens=row[10],
        constraints=json.loads(row[11]),
        model=row[12],
        request=row[13],
        features=row[14],
        context=NO_CONTEXT if row[15] is None else RequestContext(**json.loads(row[15])),
    )


def outcome_row(outcome: Outcome) -> Row:
    """What ``insert_outcomes`` takes of one outcome; the buckets are found here, once."""
    quality, latency_ms = outcome.quality, outcome.latency_ms
    return (
        outcome.agent_name,
        outcome.decision_id,
        float(outcome.occurred_at),
        outcome.success,
        quality,
        None if quality is None else quality_bin(quality),
        latency_ms,
        None if latency_ms is None else latency_bucket(latency_ms),
        outcome.cost_usd,
        outcome.input_tokens,
        outcome.output_tokens,
    )


def columns_of(rows: Sequence[Row]) -> list[list[Any]]:
    """Rows turned into one list per column, as ``unnest`` takes them."""
    return [list(column) for column in zip(*rows, strict=True)]


def stats_of_row(row: Row) -> AgentStats:
    """From a row of ``agent_stats``."""
    first = 2 + len(SUMMED_FIELDS)
    latency_buckets, latency_numbers, quality_bins, quality_numbers = row[first:]
    return AgentStats(
        **dict(zip(SUMMED_FIELDS, row[2:first], strict=True)),
        latency_buckets=dict(zip(latency_buckets or (), latency_numbers or (), strict=True)),
        quality_bins=dict(zip(quality_bins or (), quality_numbers or (), strict=True)),
    )


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)
