"""Many requests and one account: which agent serves which, so that the whole batch is cheapest, or best.

In: for n requests and N agents the expected quality, the estimated cost and who may serve what; a floor on the mean
quality, or a budget for the whole batch; how many requests each agent takes. Out: one agent per request, and a bound
that no assignment can beat, which certifies how far from the optimum this one can be at most.

Both tasks are one integer programme, with v and r standing for cost and minus quality, or for minus quality and cost:

    minimise  sum v[i, a(i)]   subject to   sum r[i, a(i)] <= limit   and   #{i: a(i) = j} <= capacity[j]

Its Lagrangian (Fisher, "The Lagrangian Relaxation Method for Solving Integer Programming Problems", 1981) prices the
limit with a multiplier and each capacity with another. Without capacities the best multiplier is found by bisection;
with them by Newton's method on the smoothed dual, and for a multiplier the capacities are then met exactly, by shortest
augmenting paths over the agents (`tinydancer.policy.transport`). What remains is decided by exchanges of two requests,
and by dynamic programming over the requests whose choice the bound leaves open, which proves the optimum wherever
there are few enough of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydancer.errors import InvalidInputError, RoutingError
from tinydancer.policy.lagrangian import Problem, RoomError, Solution, solve
from tinydancer.policy.transport import Choice
from tinydancer.policy.wording import plural
from tinydancer.snapshot import Array, Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One agent per request.

    Attributes
    ----------
    chosen
        ``intp[n]``: column of the agent of each request.
    cost_usd
        Of all requests together.
    mean_quality
        Expected, over the requests.
    bound
        What no assignment beats: a least total cost (`cheapest`), or a highest mean quality (`best_quality`).
    gap
        How far the assignment can be from the optimum at most, in the same unit; 0 where it is the optimum.
    limit_price
        USD that one more point of total quality costs (`cheapest`), or total quality that one more USD buys
        (`best_quality`), at the margin; 0 where the limit does not bind.
    capacity_prices
        ``float64[N]``: what one more request that agent j may take is worth, in the unit of the total.
    """

    chosen: Choice
    cost_usd: float
    mean_quality: float
    bound: float
    gap: float
    limit_price: float
    capacity_prices: Array


def cheapest(
    quality: Array,
    cost_usd: Array,
    allowed: Mask | None = None,
    *,
    min_mean_quality: float | None = None,
    min_quality: float | None = None,
    capacities: Sequence[float | None] | Array | None = None,
) -> Assignment:
    """The cheapest assignment under a floor on the mean expected quality.

    Parameters
    ----------
    quality, cost_usd
        ``float64[n, N]``; a cost that is NaN is unknown, and such a pair is left out.
    allowed
        ``bool[n, N]``; None allows every pair.
    min_mean_quality
        Floor on the mean over the requests, in [0, 1]; None is none.
    min_quality
        Floor for each request.
    capacities
        Most requests per agent, N entries; None, NaN or infinity is no limit.

    Raises
    ------
    RoutingError
        No assignment satisfies this; says what would.
    InvalidInputError
        No requests, arrays of other shapes, or a capacity below 0.
    """
    quality, cost_usd, mask, room = _checked(quality, cost_usd, allowed, min_quality, capacities)
    count = quality.shape[0]
    limit = math.inf if min_mean_quality is None else -count * float(min_mean_quality)
    problem = Problem(np.where(mask, cost_usd, np.inf), np.where(mask, -quality, 0.0), limit, room)
    found = _solved(problem)
    if isinstance(found, float):
        most = rounded(-found / count, up=False)
        raise RoutingError(
            f"No assignment of {plural(count, 'request')} reaches a mean expected quality of {min_mean_quality:g}"
            f"{'' if room is None else ' within the capacities'}; the most is {most:g}.",
            hint=f"Lower the floor to {most:g}, loosen a constraint, or register a better agent.",
        )
    cost = found.value
    return Assignment(
        chosen=found.chosen, cost_usd=cost, mean_quality=problem.total(quality, found.chosen) / count,
        bound=min(found.bound, cost), gap=_distance(cost, found.bound), limit_price=found.multiplier,
        capacity_prices=found.prices,
    )  # fmt: skip


def best_quality(
    quality: Array,
    cost_usd: Array,
    allowed: Mask | None = None,
    *,
    budget_usd: float,
    min_quality: float | None = None,
    capacities: Sequence[float | None] | Array | None = None,
) -> Assignment:
    """The assignment of the highest total expected quality that a budget for all requests together pays for.

    Parameters and errors are those of `cheapest`; `budget_usd` is at least 0.
    """
    quality, cost_usd, mask, room = _checked(quality, cost_usd, allowed, min_quality, capacities)
    count = quality.shape[0]
    problem = Problem(np.where(mask, -quality, np.inf), np.where(mask, cost_usd, 0.0), float(budget_usd), room)
    found = _solved(problem)
    if isinstance(found, float):
        least = rounded(found, up=True)
        raise RoutingError(
            f"A budget of ${budget_usd:g} does not pay for {plural(count, 'request')}"
            f"{'' if room is None else ' within the capacities'}; the cheapest assignment costs ${least:g}.",
            hint=f"Raise the budget to ${least:g}, loosen a constraint, or register a cheaper agent.",
        )
    mean = -found.value / count
    bound = -found.bound / count
    return Assignment(
        chosen=found.chosen, cost_usd=problem.total(cost_usd, found.chosen), mean_quality=mean,
        bound=max(bound, mean), gap=_distance(bound, mean), limit_price=found.multiplier, capacity_prices=found.prices,
    )  # fmt: skip


def _checked(
    quality: Array, cost_usd: Array, allowed: Mask | None, min_quality: float | None,
    capacities: Sequence[float | None] | Array | None,
) -> tuple[Array, Array, Mask, npt.NDArray[np.int64] | None]:  # fmt: skip
    quality, cost_usd = np.asarray(quality, np.float64), np.asarray(cost_usd, np.float64)
    if quality.ndim != 2 or quality.shape != cost_usd.shape or (allowed is not None and allowed.shape != quality.shape):
        raise InvalidInputError(
            f"quality has shape {quality.shape}, cost_usd {cost_usd.shape}; expected one row per request and one "
            "column per agent in both, and in allowed."
        )
    count, agents = quality.shape
    if not count or not agents:
        raise InvalidInputError("There is nothing to assign; expected at least one request and one agent.")
    mask = np.isfinite(cost_usd) & np.isfinite(quality)
    if allowed is not None:
        mask = mask & allowed
    unknown = ~np.logical_or.reduce(mask, axis=1)
    if unknown.any():
        raise RoutingError(
            f"{_numbers(unknown)} no agent that fits and whose cost is known.",
            hint="State the prices of the agents (0 is free), or loosen a constraint.",
        )
    if min_quality is not None:
        good = mask & (quality >= min_quality)
        short = ~np.logical_or.reduce(good, axis=1)
        if short.any():
            most = rounded(float(np.where(mask, quality, -1.0).max(axis=1)[short].min()), up=False)
            raise RoutingError(
                f"{_numbers(short)} no agent of an expected quality of {min_quality:g}.",
                hint=f"A floor of {most:g} per request would do.",
            )
        mask = good
    room = None
    if capacities is not None:
        given = np.array([math.inf if c is None else float(c) for c in capacities])
        if given.shape != (agents,):
            raise InvalidInputError(f"{given.size} capacities are given; expected {agents}, one per agent.")
        given[np.isnan(given)] = math.inf
        if (given < 0).any():
            raise InvalidInputError(f"A capacity is {given.min():g}; expected at least 0.")
        room = np.minimum(np.floor(given), count).astype(np.int64)
        if (room >= mask.sum(axis=0)).all():
            room = None
    return quality, cost_usd, mask, room


def _solved(problem: Problem) -> Solution | float:
    try:
        return solve(problem)
    except RoomError as error:
        count = problem.value.shape[0]
        raise RoutingError(
            f"The capacities leave {plural(error.unplaced, 'request')} of {count:,} without an agent.",
            hint=f"Raise them by {error.unplaced:,} in all, for agents that may serve those requests.",
        ) from None


def _distance(high: float, low: float) -> float:
    """How far apart value and bound are; 0 where rounding alone keeps them apart."""
    return high - low if high - low > 1e-12 * abs(high) else 0.0


def rounded(amount: float, *, up: bool) -> float:
    """To four significant digits, so that it can be typed, in the direction in which it still does."""
    if amount == 0.0 or not math.isfinite(amount):
        return amount
    unit = 10.0 ** (math.floor(math.log10(abs(amount))) - 3)
    steps = amount / unit
    whole = math.ceil(steps - 1e-6) if up else math.floor(steps + 1e-6)
    return float(f"{whole * unit:.4g}")


def _numbers(which: Mask) -> str:
    """``Request number 3 of 10 has``, ``4 of 10 requests (the first is number 3) have``."""
    where = np.flatnonzero(which)
    if where.size == 1:
        return f"Request number {int(where[0]) + 1} of {which.size:,} has"
    return f"{where.size:,} of {which.size:,} requests (the first is number {int(where[0]) + 1}) have"
