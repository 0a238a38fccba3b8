"""Several agents for one request: side by side, as one answer, or one after another until an answer will do.

In: what is expected of each agent for the request (quality as the probability of a good answer, cost), and how alike
agents are. Out: which of them, and what the set is expected to achieve and to cost. How correlated agents are is the
business of `tinydancer.policy.copula`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer.errors import RoutingError
from tinydancer.policy.assignment import rounded
from tinydancer.policy.copula import Correlations, Known, any_good, grid, majority_good, normal_cdf, normal_quantile
from tinydancer.policy.wording import plural, usd
from tinydancer.snapshot import Array

COMBINATIONS = ("best_of_n", "majority")
SIMILARITY_PENALTY = 0.3
"""Quality that a pair of identical agents gives up against a pair that has nothing in common."""
FAMILY_SHARE = 0.5
"""Of the similarity of two agents, what being of one family makes; the rest is what their capabilities share."""
MOST_SETS = 2_000
"""Sets that are looked at one by one; where there are more, sets grow by the agent that adds most."""
SELF_KNOWLEDGE = 0.5
"""Squared correlation of an answer's latent quality with what is seen of it before anybody judges it."""
LONGEST_CASCADE = 3
CASCADE_CANDIDATES = 8
REFINEMENTS = 3
"""Times that the thresholds of the chosen chain are sought again on a grid ten times as fine."""
_TOLERANCE = 1e-12
_QUADRATURE = 1e-6
"""How far the sums over the grid may be from what they stand for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSet:
    """Agents that answer together.

    Attributes
    ----------
    members
        Columns, in the order they are called or named.
    quality
        What is expected of the combined answer, in [0, 1].
    cost_usd
        Of all that is expected to be called.
    is_exact
        Whether every set was looked at.
    """

    members: tuple[int, ...]
    quality: float
    cost_usd: float
    is_exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """Agents that are asked in turn until an answer looks good enough.

    Attributes
    ----------
    members
        Columns, the first asked first.
    thresholds
        One per member: the confidence below which the next is asked; 0 for the last, whose answer stands.
    reached
        Probability that each is asked.
    quality, cost_usd
        Expected of the whole chain.
    """

    members: tuple[int, ...]
    thresholds: tuple[float, ...]
    reached: tuple[float, ...]
    quality: float
    cost_usd: float


def similarities(vectors: Array | npt.NDArray[np.float32], families: Sequence[str]) -> Array:
    """How alike each two agents are, in [0, 1]; ``float64[N, N]``.

    Parameters
    ----------
    vectors
        ``[N, dim]`` of their capabilities; a row of zeros is an agent that states none.
    families
        N names; agents of one name are relatives.
    """
    rows = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0.0)
    related = np.array([[one == other for other in families] for one in families], dtype=np.float64)
    alike: Array = (1.0 - FAMILY_SHARE) * np.clip(rows @ rows.T, 0.0, 1.0) + FAMILY_SHARE * related
    return alike


def diverse(quality: Array, cost_usd: Array, alike: Array, count: int, budget_usd: float = math.inf) -> AgentSet:
    """Agents that answer side by side: the highest sum of quality less what they have in common.

    Maximises ``sum q[j] - penalty * mean over others of alike``; for a set of k, each pair counts with
    ``2 penalty / (k - 1) alike / 2``, so that the weight of diversity does not depend on k (maximal marginal relevance,
    Carbonell and Goldstein, 1998, taken over sets).

    Parameters
    ----------
    quality, cost_usd
        ``float64[N]``, of agents that may be chosen.
    alike
        ``float64[N, N]`` of `similarities`.
    count
        Agents wanted, at least 1; fewer are chosen where there are fewer, or where the budget pays for fewer.

    Raises
    ------
    RoutingError
        The budget pays for no agent.
    """

    def worth(members: tuple[int, ...]) -> float:
        at = list(members)
        pairs = float(np.triu(alike[np.ix_(at, at)], 1).sum())
        return float(quality[at].sum()) - 2.0 * SIMILARITY_PENALTY * pairs / max(len(at) - 1, 1)

    members, exact = _best_set(quality, cost_usd, count, budget_usd, worth, whole=True)
    ordered = tuple(sorted(members, key=lambda j: (-quality[j], j)))
    return AgentSet(
        members=ordered, quality=float(quality[list(members)].mean()), cost_usd=float(cost_usd[list(members)].sum()),
        is_exact=exact,
    )  # fmt: skip


def ensemble(
    quality: Array, cost_usd: Array, families: Sequence[str], count: int, *, budget_usd: float = math.inf,
    combination: str = "best_of_n", correlations: Correlations | None = None,
) -> AgentSet:  # fmt: skip
    """The set of at most `count` agents whose combined answer is expected to be best within a budget.

    Parameters
    ----------
    combination
        ``best_of_n``: somebody picks the best answer, so one good answer is enough. ``majority``: the answer that more
        than half of them give; wrong answers are taken to agree, which is the worst case.
    correlations
        How much agents have in common; the more, the less another of the same family adds.

    Raises
    ------
    RoutingError
        The budget pays for no agent.
    """
    shared = correlations or Correlations()
    good = any_good if combination == "best_of_n" else majority_good
    known: Known = {}

    def worth(members: tuple[int, ...]) -> float:
        at = list(members)
        return good(quality[at], [families[j] for j in at], shared, known)

    members, exact = _best_set(quality, cost_usd, count, budget_usd, worth, whole=False)
    ordered = tuple(sorted(members, key=lambda j: (-quality[j], j)))
    return AgentSet(
        members=ordered, quality=worth(ordered), cost_usd=float(cost_usd[list(members)].sum()), is_exact=exact
    )


def _best_set(
    quality: Array, cost_usd: Array, count: int, budget_usd: float, worth: Callable[[tuple[int, ...]], float],
    *, whole: bool,
) -> tuple[tuple[int, ...], bool]:  # fmt: skip
    """The set of the highest worth: among all where they are few, else grown by the best ratio and by the best gain.

    With `whole`, a larger set is always preferred to a smaller one. Among equals the cheaper one wins, then the order.
    """
    payable = [j for j in range(quality.size) if cost_usd[j] <= budget_usd]
    if not payable:
        least = float(np.nanmin(cost_usd)) if quality.size else math.nan
        raise RoutingError(
            f"A budget of {usd(budget_usd)} pays for none of {plural(quality.size, 'agent')}; the cheapest costs "
            f"{usd(least)}.",
            hint=f"Raise the budget to ${rounded(least, up=True):g}, or loosen a constraint.",
        )
    count = min(count, len(payable))

    def cost(members: tuple[int, ...]) -> float:
        return float(cost_usd[list(members)].sum())

    def rank(members: tuple[int, ...]) -> tuple[float, float, float, tuple[int, ...]]:
        return (-len(members) if whole else 0.0, -round(worth(members), 10), cost(members), members)

    allowance = budget_usd * (1.0 + 1e-12)
    if sum(math.comb(len(payable), size) for size in range(1, count + 1)) <= MOST_SETS:
        sets = (s for size in range(1, count + 1) for s in itertools.combinations(payable, size))
        return min((s for s in sets if cost(s) <= allowance), key=rank), True
    found: list[tuple[int, ...]] = [(j,) for j in payable]
    for per_dollar in (False, True):
        grown: tuple[int, ...] = ()
        held = 0.0
        while len(grown) < count:
            steps = []
            for j in payable:
                bigger = tuple(sorted((*grown, j)))
                if j not in grown and cost(bigger) <= allowance:
                    value = worth(bigger)
                    gain = value - held
                    steps.append((-(gain / max(float(cost_usd[j]), 1e-12) if per_dollar else gain), j, value, bigger))
            if not steps or (not whole and -min(steps)[0] <= _TOLERANCE):
                break
            _, _, held, grown = min(steps)
            found.append(grown)
        if grown:
            found.append(_swapped(grown, payable, rank, lambda s: cost(s) <= allowance))
    return min(found, key=rank), False


def _swapped(
    members: tuple[int, ...], others: Sequence[int],
    rank: Callable[[tuple[int, ...]], tuple[float, float, float, tuple[int, ...]]],
    fits: Callable[[tuple[int, ...]], bool],
) -> tuple[int, ...]:  # fmt: skip
    """Exchange one member for another as long as that is better."""
    while True:
        near = [
            tuple(sorted((*(m for m in members if m != out), into)))
            for out in members
            for into in others
            if into not in members
        ]
        best = min((s for s in near if fits(s)), key=rank, default=members)
        if rank(best) >= rank(members):
            return members
        members = best


# -- cascades ------------------------------------------------------------------------------------------------------


class _Chain(NamedTuple):
    quality: float
    cost_usd: float
    members: tuple[int, ...]
    thresholds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Stage:
    """One agent as a stage, given the request's difficulty z and for each threshold t; ``[t, z]``."""

    accepted: Array
    accepted_and_good: Array
    good: Array


def cascade(
    quality: Array, cost_usd: Array, count: int, *, target: float | None = None, budget_usd: float | None = None,
    correlation: float = Correlations().across, self_knowledge: float = SELF_KNOWLEDGE,
) -> Cascade:  # fmt: skip
    """The chain and the thresholds that are cheapest for an expected quality, or best for an expected cost.

    Agent j's answer is good where its latent quality ``X = sqrt(rho) Z + sqrt(1 - rho) E`` is at most
    ``Phi^-1(q[j])``, as in `tinydancer.policy.copula`; what is seen of the answer is ``Y = sqrt(tau) X + sqrt(1 - tau)
    W``, and the confidence is ``C = P(good | Y)``, which is calibrated: of the answers with C = c, the share c is good.
    An answer stands where C is at least the threshold. Given Z, the stages are independent, so with A the probability
    that an answer stands and H that it stands and is good,

        quality = E[sum over stages of H[s] prod over earlier of (1 - A)],   cost = E[sum of cost[s] prod of (1 - A)].

    Every chain of up to three agents, cheap to dear, out of those no other agent beats in both, is looked at under
    every combination of 24 thresholds, and the thresholds of the chosen one are refined.

    Parameters
    ----------
    quality, cost_usd
        ``float64[N]``.
    count
        Most agents in the chain; more than three are not used.
    target
        Expected quality of the chain, in [0, 1]; None takes that of the best agent alone, or leaves it open where there
        is a budget.
    budget_usd
        Most that the chain may be expected to cost.
    correlation
        rho in [0, 0.98].
    self_knowledge
        tau in (0, 1): how much an answer shows of whether it is good.

    Raises
    ------
    RoutingError
        No chain reaches this; says what the best one reaches, or what the cheapest that does would cost.
    """
    limit = math.inf if budget_usd is None else budget_usd
    if target is None:
        target = float(quality.max()) - _QUADRATURE if budget_usd is None else 0.0
        best_first = budget_usd is not None
    else:
        best_first = False
    frontier = _frontier(quality, cost_usd)
    thresholds = np.concatenate((np.linspace(0.05, 0.95, 19), [0.97, 0.98, 0.99, 0.995, 0.999]))
    stages = {j: _stage(float(quality[j]), thresholds, correlation, self_knowledge) for j in frontier}
    found: list[_Chain] = []
    closest = (-1.0, 0.0)
    cheapest_that_does = math.inf
    for size in range(1, min(count, LONGEST_CASCADE) + 1):
        for chain in itertools.combinations(frontier, size):
            expected, cost = _figures([stages[j] for j in chain], cost_usd[list(chain)])
            reaches = expected >= target
            closest = max(closest, (float(expected.max()), float(cost.flat[int(expected.argmax())])))
            if reaches.any():
                cheapest_that_does = min(cheapest_that_does, float(cost[reaches].min()))
            picked = _pick(expected, cost, target, limit, best_first=best_first)
            if picked is not None:
                at = tuple(thresholds[list(picked)].tolist())
                found.append(_Chain(float(expected[picked]), float(cost[picked]), chain, at))
    if not found:
        if math.isinf(cheapest_that_does):
            raise RoutingError(
                f"No chain of up to {plural(min(count, LONGEST_CASCADE), 'agent')} is expected to reach a quality of "
                f"{target:.4g}; the best reaches {rounded(closest[0], up=False):g} for {usd(closest[1])}.",
                hint="Lower the target, allow more agents, or register a better one.",
            )
        raise RoutingError(
            f"A budget of {usd(limit)} pays for no chain of an expected quality of {target:.4g}; the cheapest is "
            f"expected to cost {usd(cheapest_that_does)}.",
            hint=f"Raise the budget to ${rounded(cheapest_that_does, up=True):g}, or lower the target.",
        )
    if best_first:
        best = min(found, key=lambda f: (-round(f.quality, 9), f.cost_usd, len(f.members)))
    else:
        best = min(found, key=lambda f: (f.cost_usd, len(f.members), -f.quality))
    width = 0.05
    for _ in range(REFINEMENTS):
        grids = [np.clip(np.linspace(t - width, t + width, 21), 1e-6, 1.0 - 1e-6) for t in best.thresholds]
        finer = [
            _stage(float(quality[j]), grids[s] if s < len(grids) else thresholds, correlation, self_knowledge)
            for s, j in enumerate(best.members)
        ]
        expected, cost = _figures(finer, cost_usd[list(best.members)])
        picked = _pick(expected, cost, target, limit, best_first=best_first)
        if picked is not None:
            at = tuple(float(grids[s][t]) for s, t in enumerate(picked))
            best = best._replace(thresholds=at)
        width *= 0.1
    return evaluate_cascade(
        quality, cost_usd, best.members, best.thresholds, correlation=correlation, self_knowledge=self_knowledge
    )


def _pick(expected: Array, cost: Array, target: float, limit: float, *, best_first: bool) -> tuple[int, ...] | None:
    """Position of the best combination of thresholds, None where none does."""
    can = (expected >= target) & (cost <= limit * (1.0 + _TOLERANCE))
    if not can.any():
        return None
    key = np.where(can, -expected if best_first else cost, np.inf)
    return tuple(int(i) for i in np.unravel_index(int(key.argmin()), key.shape))


def evaluate_cascade(
    quality: Array, cost_usd: Array, members: Sequence[int], thresholds: Sequence[float],
    *, correlation: float = Correlations().across, self_knowledge: float = SELF_KNOWLEDGE,
) -> Cascade:  # fmt: skip
    """What a chain of given members and thresholds (one per member but the last) is expected to achieve and cost."""
    weights = grid()[1]
    going = np.ones(weights.size)
    reached, expected, cost = [], 0.0, 0.0
    for position, j in enumerate(members):
        reached.append(float(weights @ going))
        cost += reached[-1] * float(cost_usd[j])
        if position == len(members) - 1:
            good = _stage(float(quality[j]), np.zeros(0), correlation, self_knowledge).good
            expected += float(weights @ (going * good))
        else:
            at = _stage(float(quality[j]), np.array([thresholds[position]]), correlation, self_knowledge)
            expected += float(weights @ (going * at.accepted_and_good[0]))
            going = going * (1.0 - at.accepted[0])
    return Cascade(
        members=tuple(members), thresholds=(*(float(t) for t in thresholds[: len(members) - 1]), 0.0),
        reached=tuple(reached), quality=expected, cost_usd=cost,
    )  # fmt: skip


def _frontier(quality: Array, cost_usd: Array) -> list[int]:
    """Agents, cheap to dear, each better than every cheaper one; of many, the first, the last and some between."""
    kept: list[int] = []
    for j in np.lexsort((-quality, cost_usd)).tolist():
        if not kept or quality[j] > quality[kept[-1]]:
            kept.append(j)
    if len(kept) > CASCADE_CANDIDATES:
        at = np.unique(np.linspace(0, len(kept) - 1, CASCADE_CANDIDATES).round().astype(int))
        kept = [kept[i] for i in at]
    return kept


def _stage(quality: float, thresholds: Array, correlation: float, self_knowledge: float) -> _Stage:
    nodes, _ = grid()
    bar = float(normal_quantile(np.array([quality]))[0])
    spread = math.sqrt(1.0 - correlation)
    centre = math.sqrt(correlation) * nodes
    good = normal_cdf((bar - centre) / spread)
    # The confidence reaches t where what is seen lies below this.
    root = math.sqrt(self_knowledge)
    seen = (bar - math.sqrt(1.0 - self_knowledge) * normal_quantile(thresholds)) / root
    accepted = normal_cdf((seen[:, None] - root * centre) / math.sqrt(1.0 - self_knowledge * correlation))
    # Good and accepted: over the agent's own part of the latent quality, up to the bar, where the answer is good.
    own, weights = np.polynomial.legendre.leggauss(48)
    low = -6.5
    high = np.clip((bar - centre) / spread, low, 6.5)  # [z]
    e = low + 0.5 * (own[:, None] + 1.0) * (high - low)  # [own, z]
    density = np.exp(-0.5 * e * e) / math.sqrt(2.0 * math.pi) * weights[:, None] * 0.5 * (high - low)
    latent = centre + spread * e
    stands = normal_cdf((seen[:, None, None] - root * latent) / math.sqrt(1.0 - self_knowledge))
    return _Stage(accepted, np.asarray((stands * density).sum(axis=1)), good)


def _figures(stages: Sequence[_Stage], cost_usd: Array) -> tuple[Array, Array]:
    """Expected quality and cost of a chain under every combination of thresholds, one axis per stage but the last."""
    weights = grid()[1]
    going = weights[None]  # [combinations, z], weighted
    shape: tuple[int, ...] = ()
    expected = np.zeros(1)
    cost = np.zeros(1)
    for position, stage in enumerate(stages):
        cost = cost + going.sum(axis=1) * cost_usd[position]
        if position == len(stages) - 1:
            expected = expected + going @ stage.good
            break
        count = stage.accepted.shape[0]
        shape = (*shape, count)
        expected = (expected[:, None] + going @ stage.accepted_and_good.T).ravel()
        cost = np.repeat(cost, count)
        going = (going[:, None, :] * (1.0 - stage.accepted)[None]).reshape(-1, weights.size)
    return expected.reshape(shape), cost.reshape(shape)
