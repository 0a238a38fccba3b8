"""Nouns as the rows of tables, and back.

In: agents, decisions, outcomes, candidates; or rows in the column order of the queries. Out: the other. Vectors are
stored as the bytes of little-endian float32, structures as JSON.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tinydancer import validation as check
from tinydancer.errors import StoreCorruptError
from tinydancer.learn import latency_bucket, quality_bin
from tinydancer.store.base import DecisionRow
from tinydancer.types import (
    COST_FIELDS,
    NO_CONTEXT,
    Agent,
    Candidate,
    CostModel,
    EmbeddingSpace,
    Outcome,
    RequestContext,
)
from tinydancer.validation import FloatVector

Row = tuple[Any, ...]
STORED = np.dtype("<f4")


def vector_bytes(vector: FloatVector, space: EmbeddingSpace, what: str) -> bytes:
    """``float32[dim]`` as 4 x dim bytes; `SpaceMismatchError` if it has another dimension than the space."""
    checked = check.vector(vector, what, dim=space.dim, space=space.name)
    return checked.astype(STORED, copy=False).tobytes()


def vector_of(stored: bytes, space: EmbeddingSpace, what: str) -> FloatVector:
    """The stored vector, which nobody can write to; `StoreCorruptError` if it has another dimension."""
    if len(stored) != STORED.itemsize * space.dim:
        raise StoreCorruptError(
            f"{what} is stored with {len(stored)} bytes; expected {STORED.itemsize * space.dim} for {space}.",
            hint="Register it again.",
        )
    return np.frombuffer(stored, dtype=STORED).astype(np.float32, copy=False)


def agent_row(agent: Agent, tenant: str, space: EmbeddingSpace, now: float) -> Row:
    """The parameters of ``insert_agent`` and ``replace_agent``."""
    embedding = None
    if agent.embedding is not None:
        embedding = vector_bytes(agent.embedding, space, f"The embedding of agent {agent.name!r}")
    prices = {key: value for key in COST_FIELDS if (value := getattr(agent.cost, key)) is not None}
    return (
        tenant,
        agent.name,
        agent.agent_type,
        json.dumps(agent.capabilities, ensure_ascii=False),
        json.dumps(prices),
        agent.avg_latency_ms,
        agent.quality_score,
        agent.expected_output_tokens,
        agent.is_active,
        json.dumps(agent.metadata),
        embedding,
        now,
    )


def agent_of(row: Row, space: EmbeddingSpace) -> Agent:
    """From a row of ``get_agent`` or ``list_agents``."""
    name, agent_type, capabilities, prices, latency_ms, quality, output_tokens, active, metadata, embedding = row
    if embedding is not None:
        embedding = vector_of(embedding, space, f"The embedding of agent {name!r}")
    return Agent(
        name=name,
        agent_type=agent_type,
        capabilities=json.loads(capabilities),
        cost=CostModel(**json.loads(prices)),
        avg_latency_ms=latency_ms,
        quality_score=quality,
        expected_output_tokens=output_tokens,
        is_active=bool(active),
        metadata=json.loads(metadata),
        embedding=embedding,
    )


def decision_row(row: DecisionRow, tenant: str) -> Row:
    """The parameters of ``insert_decision``."""
    return (
        tenant,
        row.decision_id,
        row.decided_at,
        row.agent_name,
        row.objective,
        row.expected_quality,
        row.confidence,
        row.uncertainty,
        row.estimated_cost_usd,
        row.estimated_latency_ms,
        row.similarity_score,
        row.input_tokens,
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


def outcome_row(outcome: Outcome, tenant: str) -> Row:
    """The parameters of ``insert_outcome``; the buckets are found here, once."""
    quality, latency_ms = outcome.quality, outcome.latency_ms
    return (
        tenant,
        outcome.agent_name,
        outcome.decision_id,
        outcome.occurred_at,
        outcome.success,
        quality,
        None if quality is None else quality_bin(quality),
        latency_ms,
        None if latency_ms is None else latency_bucket(latency_ms),
        outcome.cost_usd,
        outcome.input_tokens,
        outcome.output_tokens,
    )


def candidate_row(candidate: Candidate, tenant: str, space: EmbeddingSpace) -> Row:
    """The parameters of ``put_candidate``."""
    return (
        tenant,
        candidate.id,
        vector_bytes(candidate.embedding, space, f"The embedding of candidate {candidate.id!r}"),
        json.dumps(candidate.metadata),
        candidate.created_at,
        candidate.access_count,
        candidate.success_rate,
    )


def candidate_of(row: Row, space: EmbeddingSpace) -> Candidate:
    """From a row of ``get_candidate`` or ``query_candidates``."""
    name, embedding, metadata, created_at, access_count, success_rate = row
    return Candidate(
        id=name,
        embedding=vector_of(embedding, space, f"The embedding of candidate {name!r}"),
        metadata=json.loads(metadata),
        created_at=created_at,
        access_count=access_count,
        success_rate=success_rate,
    )
