"""What a month's budget is best spent on: how much of the traffic goes to which agent.

In: a sample of the traffic with what each agent would achieve and cost on it, the budget, and the quality that is
wanted. Out: shares, money per agent, and what that achieves. The allocation is the linear programme

    maximise  sum x[i, j] q[i, j]   subject to   sum x[i, j] c[i, j] <= budget,   sum over j of x[i, j] = 1,   x >= 0

over the sampled requests, solved as `tinydancer.policy.assignment` solves it for whole requests; a sample that is small
is laid out several times, so that halves of requests do not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinydancer.errors import RoutingError
from tinydancer.policy.assignment import Assignment, best_quality, cheapest, rounded
from tinydancer.policy.wording import usd
from tinydancer.snapshot import Array, Mask

PERIOD_DAYS = 30
LEAST_ROWS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Where a budget goes.

    Attributes
    ----------
    spend_usd, share
        ``float64[N]``: money per agent in the period, and its share of the requests.
    requests
        In the period, over all agents.
    quality
        Expected, over all requests.
    quality_gap
        How much more, at most, another allocation could achieve.
    cheapest_usd
        The least budget that reaches the quality that was wanted; None if none does, or where nothing tells.
    most_quality
        What these agents reach at any price; None where nothing tells.
    """

    spend_usd: Array
    share: Array
    requests: float
    quality: float
    quality_gap: float
    cheapest_usd: float | None
    most_quality: float | None


def allocate(
    quality: Array, cost_usd: Array, allowed: Mask, *, budget_usd: float, requests: float, min_quality: float
) -> Allocation:
    """The allocation of the highest expected quality within the budget, over observed traffic.

    Parameters
    ----------
    quality, cost_usd, allowed
        ``[n, N]``, a sample of the traffic; every row has an agent that is allowed and whose cost is known.
    budget_usd
        For the period, at least 0.
    requests
        In the period; what the sample stands for.
    min_quality
        Mean expected quality that is wanted; what it would cost is told beside the allocation.

    Raises
    ------
    RoutingError
        The budget does not pay for the traffic, whoever serves it; says what would.
    """
    copies = max(1, -(-LEAST_ROWS // quality.shape[0]))
    quality, cost_usd = np.tile(quality, (copies, 1)), np.tile(cost_usd, (copies, 1))
    allowed = np.tile(allowed, (copies, 1))
    rows, agents = quality.shape
    scale = requests / rows
    least = cheapest(quality, cost_usd, allowed)
    if least.cost_usd * scale > budget_usd * (1.0 + 1e-9):
        raise RoutingError(
            f"A budget of {usd(budget_usd)} does not pay for {requests:,.0f} requests; served as cheaply as possible, "
            f"they cost {usd(least.cost_usd * scale)}.",
            hint=f"Raise the budget to ${rounded(least.cost_usd * scale, up=True):g}, or plan for at most "
            f"{math.floor(requests * budget_usd / (least.cost_usd * scale)):,} requests.",
        )
    part = max(budget_usd / scale, least.cost_usd)
    best = best_quality(quality, cost_usd, allowed, budget_usd=part)
    usable = allowed & np.isfinite(cost_usd)
    # By duality: what the budget is worth, and what requests are worth that pay for themselves, bound every allocation.
    left = np.where(usable, quality - best.limit_price * np.nan_to_num(cost_usd), -np.inf).max(axis=1)
    bound = float(left.sum() + best.limit_price * part) / rows
    most = float(np.where(usable, quality, -np.inf).max(axis=1).mean())
    enough: Assignment | None = None
    if min_quality <= most:
        enough = cheapest(quality, cost_usd, allowed, min_mean_quality=min_quality)
    return Allocation(
        spend_usd=np.bincount(best.chosen, weights=cost_usd[np.arange(rows), best.chosen], minlength=agents) * scale,
        share=np.bincount(best.chosen, minlength=agents) / rows, requests=requests, quality=best.mean_quality,
        quality_gap=max(0.0, bound - best.mean_quality),
        cheapest_usd=None if enough is None else enough.cost_usd * scale, most_quality=most,
    )  # fmt: skip


def allocate_uniformly(quality: Array, cost_usd: Array, allowed: Mask, *, budget_usd: float) -> Allocation:
    """The allocation where no traffic is known: the agents serve equally many requests, as many as the budget pays for.

    Parameters
    ----------
    quality, cost_usd, allowed
        ``[N]``, of a usual request; some agent is allowed.
    """
    count = int(np.count_nonzero(allowed))
    share = allowed / count
    per_round = float(cost_usd[allowed].sum())
    rounds = budget_usd / per_round if per_round > 0.0 else 0.0
    return Allocation(
        spend_usd=np.where(allowed, cost_usd, 0.0) * rounds, share=share, requests=rounds * count,
        quality=float(quality[allowed].mean()), quality_gap=0.0, cheapest_usd=None, most_quality=None,
    )  # fmt: skip
