"""The operating point: how much cheaper routing may get before the promised quality is at risk.

In: what a model expects of each agent for n requests that it did not learn from, what the agents' answers were worth,
and what they cost. Out: the smallest ``good_enough`` that is certified: with probability 1 - delta over the choice of
these requests, the quality of the routed answers is at least ``target_quality`` of the best single agent's.

The policies are those of the objective ``cost``, one for each lambda = ``good_enough`` in [0, 1]: the cheapest agent
whose expected quality is at least lambda times the best agent's. They are tested from the most careful, lambda = 1,
downwards, each at level delta, until one fails (Learn then Test with fixed-sequence testing: Angelopoulos, Bates,
Candes, Jordan and Lei, arXiv 2110.01052). The test of one policy is by betting against its null hypothesis
(Waudby-Smith and Ramdas, arXiv 2010.09686), valid for every n and every distribution of bounded outcomes. The proof,
the assumptions and simulations: ``docs/explanation/guarantees.md``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError, ModelError

__all__ = ["STEPS", "OperatingPoint", "betting_p_value", "cheapest_good_enough", "find_operating_point"]

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

STEPS = 100
"""The lambdas tested are 1, 1 - 1/100, ..., 0."""
_MOST_OF_A_STAKE = 0.75
"""Largest share of the wealth that one observation can lose; c in arXiv 2010.09686."""
_MOST_ROWS_TO_ASK_FOR = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What was certified, and what it gives on the calibration rows.

    Attributes
    ----------
    good_enough
        The certified share of the best expected quality, in [0, 1]: the setting of that name, for the objective
        ``cost``.
    target_quality, delta
        The promise: routed quality of at least `target_quality` times the best single agent's, with probability
        1 - `delta`.
    n
        Rows it was calibrated on.
    test_rows
        The promise also covers the mean of that many future requests; 0: the long run only.
    p_value
        The largest of the p-values of this point, at most `delta`.
    best_single
        Position of the agent with the highest mean quality on these rows.
    best_single_quality, routed_quality
        Means over these rows, in [0, 1].
    routed_quality_low
        Lower confidence bound of level 1 - `delta` for the expectation of `routed_quality` at this one point.
    relative_quality
        `routed_quality` / `best_single_quality`; 1 where both are 0.
    relative_cost
        Estimated cost of the routed answers as a share of always asking the best single agent; None where its cost
        or that of a chosen agent is unknown, or the best single agent is free.
    agent_shares
        Share of the requests that each agent gets.
    """

    good_enough: float
    target_quality: float
    delta: float
    n: int
    test_rows: int
    p_value: float
    best_single: int
    best_single_quality: float
    routed_quality: float
    routed_quality_low: float
    relative_quality: float
    relative_cost: float | None
    agent_shares: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "agent_shares": list(self.agent_shares)}


def cheapest_good_enough(predicted: FloatArray, cost_usd: FloatArray, good_enough: float) -> IndexArray:
    """The objective ``cost``: the cheapest agent that is good enough.

    Parameters
    ----------
    predicted
        ``float64[n, N]``: expected quality.
    cost_usd
        ``float64[n, N]`` or ``float64[N]``: estimated cost, NaN where unknown, which counts as dearest; of equals the
        first is taken.
    good_enough
        Share of the best expected quality that suffices, in [0, 1].

    Returns
    -------
    ``intp[n]``
        Positions of the chosen agents.
    """
    eligible = predicted >= good_enough * predicted.max(axis=1, keepdims=True)
    known = np.where(np.isnan(cost_usd), np.finfo(np.float64).max, cost_usd)
    chosen: IndexArray = np.where(eligible, known, np.inf).argmin(axis=1)
    return chosen


def betting_p_value(gains: FloatArray, *, low: float, high: float, delta: float) -> float:
    """A p-value against "the expected gain is at most 0" that is valid at every sample size.

    Parameters
    ----------
    gains
        ``float64[n]``: values in [`low`, `high`], in random order; `low` < 0 < `high`.
    low, high
        The bounds.
    delta
        Level at which the test shall be sharp, in (0, 1); it is valid at every level.

    Returns
    -------
    float
        In (0, 1].

    Notes
    -----
    Start with a wealth of 1 and stake some of it on every observation, ``K_t = K_(t-1) (1 + b_t x_t)``, where the bet
    b_t >= 0 depends on earlier observations only and can never lose all. Under the null, K is a nonnegative
    supermartingale: it ever reaches 1 / alpha with probability at most alpha (Ville's inequality), so 1 / max K is a
    p-value. The bets are the predictable plug-in of arXiv 2010.09686 for a known n: with x scaled to [0, 1], the
    scaled null mean m and the running variance v, ``b_t = min(sqrt(2 log(1 / delta) / (n v_(t-1))), c / m)``.
    """
    n = gains.size
    span = high - low
    scaled, null_mean = (gains - low) / span, -low / span
    count = np.arange(2.0, n + 2.0)  # one imagined observation, of mean 1/2 and variance 1/4, comes before all
    mean = (0.5 + np.cumsum(scaled)) / count
    variance = np.full(n, 0.25)
    variance[1:] = ((0.25 + np.cumsum((scaled - mean) ** 2)) / count)[:-1]
    bets = np.minimum(np.sqrt(2.0 * math.log(1.0 / delta) / (n * variance)), _MOST_OF_A_STAKE / null_mean)
    log_wealth = np.cumsum(np.log1p(bets * (scaled - null_mean)))
    return math.exp(-max(0.0, float(log_wealth.max())))


def find_operating_point(
    predicted: npt.ArrayLike,
    observed: npt.ArrayLike,
    cost_usd: npt.ArrayLike,
    *,
    target_quality: float = 0.95,
    delta: float = 0.1,
    test_rows: int | None = None,
    seed: int = 0,
) -> OperatingPoint:
    """The cheapest policy for which the quality of the routed answers is certified.

    Parameters
    ----------
    predicted
        ``[n, N]`` in [0, 1]: expected quality of N agents for n requests, by a model that was not trained on them.
    observed
        ``[n, N]`` in [0, 1]: what the answers were worth; every agent answered every request.
    cost_usd
        ``[n, N]`` or ``[N]``: estimated cost as the router will estimate it, at least 0, NaN where unknown.
    target_quality
        Share of the best single agent's quality to keep, in (0, 1].
    delta
        Accepted probability that the promise fails, in (0, 1).
    test_rows
        How many future requests the promise shall cover as their own mean, n by default. Their chance comes on top of
        that of the calibration rows; by the central limit theorem, so this part holds approximately. 0 promises the
        long run only.
    seed
        Of the order in which observations are bet on.

    Raises
    ------
    InvalidInputError
        Shapes that do not fit, numbers out of range, a missing outcome, no row at all.
    ModelError
        Not even the most careful policy can be certified; says about how many rows would do, if any number would.
    """
    quality, outcomes, cost = _checked(predicted, observed, cost_usd)
    target = check.number(target_quality, "target_quality", low=1e-6, high=1.0)
    delta = check.number(delta, "delta", low=1e-6, high=1.0 - 1e-6)
    n = outcomes.shape[0]
    future = n if test_rows is None else check.count(test_rows, "test_rows")
    order = np.random.default_rng(seed).permutation(n)
    found: tuple[float, IndexArray, float] | None = None
    for step in range(STEPS, -1, -1):
        share = step / STEPS
        chosen = cheapest_good_enough(quality, cost, share)
        p_value = _p_value(_gains(outcomes, chosen, target)[order], target, delta, future)
        if p_value > delta:
            break
        found = share, chosen, p_value
    if found is None:
        gains = _gains(outcomes, cheapest_good_enough(quality, cost, 1.0), target)
        raise _refusal(gains, outcomes.mean(axis=0), target=target, delta=delta, test_rows=test_rows, seed=seed)
    share, chosen, p_value = found
    rows = np.arange(n)
    routed, means = outcomes[rows, chosen], outcomes.mean(axis=0)
    best = int(means.argmax())
    mean, best_mean = float(routed.mean()), float(means[best])
    return OperatingPoint(
        good_enough=share, target_quality=target, delta=delta, n=n, test_rows=future, p_value=p_value,
        best_single=best, best_single_quality=best_mean, routed_quality=mean,
        routed_quality_low=_lower_bound(routed[order], delta),
        relative_quality=mean / best_mean if best_mean > 0.0 else 1.0,
        relative_cost=_relative_cost(np.broadcast_to(cost, outcomes.shape), chosen, best),
        agent_shares=tuple((np.bincount(chosen, minlength=outcomes.shape[1]) / n).tolist()),
    )  # fmt: skip


def _checked(
    predicted: npt.ArrayLike, observed: npt.ArrayLike, cost_usd: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    quality, outcomes, cost = (np.asarray(a, dtype=np.float64) for a in (predicted, observed, cost_usd))
    if quality.ndim != 2 or not quality.size or outcomes.shape != quality.shape:
        raise InvalidInputError(
            f"predicted has shape {quality.shape} and observed {outcomes.shape}; expected both (n, agents), neither 0."
        )
    if cost.shape not in (quality.shape, quality.shape[1:]):
        raise InvalidInputError(f"cost_usd has shape {cost.shape}; expected {quality.shape} or {quality.shape[1:]}.")
    for name, values in (("predicted", quality), ("observed", outcomes)):
        if np.isnan(values).any():
            raise InvalidInputError(
                f"{name} lacks numbers (NaN); expected one for every request and agent.",
                hint="Leave out the requests that some agent did not answer.",
            )
        if values.min() < 0.0 or values.max() > 1.0:
            raise InvalidInputError(f"{name} holds numbers outside [0, 1]; expected qualities.")
    if np.any(cost < 0.0):
        raise InvalidInputError("cost_usd holds negative numbers; expected costs, NaN where unknown.")
    return quality, outcomes, cost


def _gains(outcomes: FloatArray, chosen: IndexArray, target: float) -> FloatArray:
    """How far each routed answer is above `target` times each agent's answer; ``float64[n, N]`` in [-target, 1]."""
    routed = outcomes[np.arange(outcomes.shape[0]), chosen]
    gains: FloatArray = routed[:, None] - target * outcomes
    return gains


def _p_value(gains: FloatArray, target: float, delta: float, test_rows: int) -> float:
    """Against "some agent's expected gain is below 0", for the long run and for the next `test_rows` requests.

    The null is a union over the agents and is rejected only if it is for each of them; the probability that this is a
    mistake is at most that for one agent of which it is true, so the largest p-value needs no correction. The search
    ends at the first agent whose p-value is above `delta`.
    """
    largest = 0.0
    for agent in np.argsort(gains.mean(axis=0)):
        column = np.ascontiguousarray(gains[:, agent])
        largest = max(largest, betting_p_value(column, low=-target, high=1.0, delta=delta))
        if test_rows:
            largest = max(largest, _next_rows_p_value(column, test_rows))
        if largest > delta:
            break
    return largest


def _next_rows_p_value(gains: FloatArray, test_rows: int) -> float:
    """Against "the mean gain over the next `test_rows` requests is below 0", from the normal approximation.

    The mean of n rows less that of `test_rows` others has mean 0 and variance s^2 (1 / n + 1 / test_rows).
    """
    n = gains.size
    mean = float(gains.mean())
    error = float(gains.std(ddof=min(1, n - 1))) * math.sqrt(1.0 / n + 1.0 / test_rows)
    return NormalDist().cdf(-mean / error) if error > 0.0 else float(mean < 0.0)


def _lower_bound(values: FloatArray, delta: float) -> float:
    """The largest mean, to a thousandth, that the same bets refute at level `delta`; 0 where they refute none."""
    low, high = 0, 1000
    while high - low > 1:
        middle = (low + high) // 2
        mean = middle / 1000
        p_value = betting_p_value(values - mean, low=-mean, high=1.0 - mean, delta=delta)
        low, high = (middle, high) if p_value <= delta else (low, middle)
    return low / 1000


def _relative_cost(cost: FloatArray, chosen: IndexArray, best: int) -> float | None:
    spent, alone = float(cost[np.arange(chosen.size), chosen].sum()), float(cost[:, best].sum())
    return spent / alone if spent >= 0.0 and alone > 0.0 else None


def _refusal(
    gains: FloatArray, means: FloatArray, *, target: float, delta: float, test_rows: int | None, seed: int
) -> ModelError:
    """Why nothing is promised, and about how many rows would do: these ones, repeated until they suffice.

    `gains` are those of the most careful policy, `means` the agents' mean qualities.
    """
    n = gains.shape[0]
    best = float(means.max())
    excess = float(gains.mean(axis=0).min())
    reached = f"{target + excess / best:.1%} of the best single agent's quality" if best > 0.0 else "no quality at all"
    what = f"A target of {target:.1%} cannot be promised with confidence {1.0 - delta:.0%} from {n:,} rows"
    if excess <= 0.0:
        return ModelError(
            f"{what}: even the most careful routing (good_enough 1) reaches {reached} there.",
            hint="More rows will not help; lower the target, or train the model on more outcomes of these agents.",
        )
    easier = "lower the target, or accept a larger delta" + (", or more test_rows" if test_rows else "")
    rng = np.random.default_rng(seed)
    rows = 2 * n
    while rows <= _MOST_ROWS_TO_ASK_FOR:
        if _p_value(gains[rng.permutation(rows) % n], target, delta, rows if test_rows is None else test_rows) <= delta:
            return ModelError(
                f"{what}: the most careful routing (good_enough 1) reaches {reached} there, which may be chance.",
                hint=f"About {rows:,} rows like these would do; else {easier}.",
            )
        rows *= 2
    return ModelError(
        f"{what}: the most careful routing (good_enough 1) reaches {reached} there, too near to the target.",
        hint=f"Even {_MOST_ROWS_TO_ASK_FOR:,} rows would not do; {easier}.",
    )
