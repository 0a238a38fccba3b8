"""Which agents may serve a request, and for each of the others the reason it may not.

In: a snapshot, constraints, and what is expected of each agent for each request. Out: boolean masks, or sentences.
All constraints hold together: an agent that fails one is out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tinydancer.policy.wording import milliseconds, usd
from tinydancer.snapshot import Array, Mask, Snapshot
from tinydancer.types import Constraints


def capable(snapshot: Snapshot, constraints: Constraints) -> Mask:
    """Agents that are active, not excluded, and have every required capability; ``bool[N]``.

    These are the *candidates*: the range of their matches scales the discount on expected quality.
    """
    mask = snapshot.active
    if constraints.required_capabilities:
        words = snapshot.required_words(constraints.required_capabilities)
        if words is None:
            return np.zeros_like(mask)
        mask = mask & ((snapshot.capability_bits & words) == words).all(axis=1)
    if constraints.excluded_agents:
        excluded = set(constraints.excluded_agents)
        mask = mask & np.array([name not in excluded for name in snapshot.names], dtype=np.bool_)
    return mask


def cost_limit_usd(constraints: Constraints) -> float | None:
    """The tighter of ``max_cost`` and ``budget_remaining``, None without either."""
    limits = [v for v in (constraints.max_cost, constraints.budget_remaining) if v is not None]
    return min(limits, default=None)


def feasible(candidates: Mask, constraints: Constraints, *, cost_usd: Array, latency_ms: Array, quality: Array) -> Mask:
    """Candidates within every limit; ``bool[n, N]``. An unknown (NaN) cost or latency fails its limit."""
    allowed = candidates
    if constraints.max_latency_ms is not None:
        allowed = allowed & (latency_ms <= constraints.max_latency_ms)
    limit = cost_limit_usd(constraints)
    if limit is not None:
        allowed = allowed & (cost_usd <= limit)
    if constraints.min_quality is not None:
        allowed = allowed & (quality >= constraints.min_quality)
    return allowed if allowed.ndim == 2 else allowed[None].repeat(cost_usd.shape[0], axis=0)


def exclusion_reasons(
    snapshot: Snapshot,
    constraints: Constraints,
    *,
    cost_usd: Array,
    quality: Array,
    budgets: Mapping[int, str] | None = None,
) -> dict[str, str]:
    """For one request, why each agent that is out is out, in order of name; ``cost_usd`` and ``quality`` are [N].

    `budgets` holds, by position, why agents that satisfy the constraints are out; see `Allowance.reasons`.
    """
    reasons: dict[str, str] = {}
    for i, agent in enumerate(snapshot.agents):
        reason = _reason(snapshot, constraints, i, float(cost_usd[i]), float(quality[i]))
        if budgets and not reason:
            reason = budgets.get(i, "")
        if reason:
            reasons[agent.name] = reason
    return reasons


def _reason(snapshot: Snapshot, constraints: Constraints, i: int, cost: float, quality: float) -> str:
    agent = snapshot.agents[i]
    if not agent.is_active:
        return "is not active"
    if agent.name in constraints.excluded_agents:
        return "is in excluded_agents"
    have = {c.casefold() for c in agent.capabilities}
    lacking = [c for c in constraints.required_capabilities if c.casefold() not in have]
    if lacking:
        return f"lacks required_capabilities: {', '.join(lacking)}"
    found: list[str] = []
    latency = float(snapshot.latency_ms[i])
    if constraints.max_latency_ms is not None and not latency <= constraints.max_latency_ms:
        is_what = "its latency is unknown" if math.isnan(latency) else f"takes about {milliseconds(latency)}"
        found.append(f"{is_what}; max_latency_ms is {constraints.max_latency_ms:g}")
    for key, limit in (("max_cost", constraints.max_cost), ("budget_remaining", constraints.budget_remaining)):
        if limit is not None and not cost <= limit:
            is_what = "its cost is unknown" if math.isnan(cost) else f"costs about {usd(cost)}"
            found.append(f"{is_what}; {key} is {usd(limit)}")
    if constraints.min_quality is not None and not quality >= constraints.min_quality:
        found.append(f"its expected quality is {quality:.6g}; min_quality is {constraints.min_quality:g}")
    return "; ".join(found)
