"""What every way of choosing is measured on: quality, costs, and who is best, cheapest, weak and strong.

In: a table, the folds of its rows, perhaps training rows. Out: a `Ground`; what was filled in or left out becomes a
sentence among the warnings.
"""

from __future__ import annotations

import warnings as python_warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydancer.errors import InvalidInputError, NotFoundError
from tinydancer.tables import OutcomeTable

__all__ = ["Ground", "lay_ground"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """The facts that do not depend on who predicts.

    Attributes
    ----------
    agents
        N names.
    quality
        ``float64[n, N]``, NaN where an agent did not answer.
    cost_usd
        ``float64[n, N]``, known wherever quality is; None if costs are not known.
    estimated_cost_usd
        ``float64[n, N]``: each agent's mean cost over training rows, or over the other folds of the table: what can
        be known before the call.
    best
        Column with the highest mean quality among the agents that answered at least half as often as the busiest.
    cheapest
        Column with the lowest mean cost, or None.
    pair
        Columns of the weak and the strong agent, or None.
    """

    agents: tuple[str, ...]
    quality: Floats
    cost_usd: Floats | None
    estimated_cost_usd: Floats | None
    best: int
    cheapest: int | None
    pair: tuple[int, int] | None

    @property
    def has_costs(self) -> bool:
        """Whether costs are known, and the best single agent is not free."""
        return self.cost_usd is not None and bool(np.nansum(self.cost_usd[:, self.best]) > 0.0)


def lay_ground(
    table: OutcomeTable, folds: Ints, training: OutcomeTable | None, pair: tuple[str, str] | None, notes: list[str]
) -> Ground:
    """Work out the facts; sentences on what was filled in or cannot be said are appended to `notes`."""
    quality = table.quality.astype(np.float64)
    known = ~np.isnan(quality)
    answers = known.sum(axis=0)
    if not known.all():
        share = 1.0 - known.mean()
        notes.append(
            f"{share:.1%} of the pairs of request and agent have no outcome: only agents that answered a request can "
            "be chosen for it, and an agent's mean is over the requests it answered."
        )
    means = _means(quality)
    best = int(np.argmax(np.where(2 * answers >= answers.max(), means, -np.inf)))
    cost = _filled_costs(table, known, notes)
    estimated = None if cost is None else _estimated(table, cost, folds, training)
    cheapest = None if cost is None else int(np.nanargmin(np.where(answers > 0, _means(cost), np.nan)))
    ground = Ground(table.agents, quality, cost, estimated, best, cheapest, _pair(table, quality, pair, notes))
    if cost is not None and not ground.has_costs:
        notes.append(f"The best single agent, {table.agents[best]}, costs nothing: relative costs are not given.")
    return ground


def _means(values: Floats) -> Floats:
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore", RuntimeWarning)  # an agent without any: NaN is what is meant
        result: Floats = np.nanmean(values, axis=0)
    return result


def _filled_costs(table: OutcomeTable, known: npt.NDArray[np.bool_], notes: list[str]) -> Floats | None:
    cost = np.where(known, table.cost_usd.astype(np.float64), np.nan)
    missing = known & np.isnan(cost)
    if not missing.any():
        return cost
    if missing.sum() == known.sum():
        return None
    means = _means(cost)
    unpriced = known.any(axis=0) & np.isnan(means)
    without = [table.agents[column] for column in np.flatnonzero(unpriced)]
    if without:
        notes.append(f"No cost is known of {', '.join(without)}: relative costs are not given.")
        return None
    notes.append(f"{int(missing.sum()):,} unknown costs count as the agent's mean cost.")
    return np.where(missing, means, cost)


def _estimated(table: OutcomeTable, cost: Floats, folds: Ints, training: OutcomeTable | None) -> Floats:
    """What a call is expected to cost, from rows other than its own."""
    overall = _means(cost)
    estimated = np.empty_like(cost)
    if training is not None:
        evaluated = set(table.texts)
        others = training.rows([i for i, text in enumerate(training.texts) if text not in evaluated])
        means = _means(others.with_agents(table.agents).cost_usd.astype(np.float64))
        if not np.isnan(means).all():
            estimated[:] = np.where(np.isnan(means), overall, means)
            return estimated
    for fold in np.unique(folds):
        means = _means(cost[folds != fold])
        estimated[folds == fold] = np.where(np.isnan(means), overall, means)
    return estimated


def _pair(
    table: OutcomeTable, quality: Floats, names: tuple[str, str] | None, notes: list[str]
) -> tuple[int, int] | None:
    if names is not None:
        for name in names:
            if name not in table.agents:
                raise NotFoundError(
                    f"The pair names {name!r}, which has no outcomes; the agents are: {', '.join(table.agents)}."
                )
        if names[0] == names[1]:
            raise InvalidInputError(f"The pair is {names[0]!r} twice; expected two agents.")
        weak, strong = (table.agents.index(name) for name in names)
    elif len(table.agents) == 2:
        weak, strong = 0, 1
    else:
        return None
    both = ~np.isnan(quality[:, [weak, strong]]).any(axis=1)
    weak_mean, strong_mean = quality[both][:, [weak, strong]].mean(axis=0) if both.any() else (0.0, 0.0)
    if names is None and weak_mean > strong_mean:
        weak, strong, weak_mean, strong_mean = strong, weak, strong_mean, weak_mean
    if not strong_mean > weak_mean:
        notes.append(
            f"{table.agents[strong]} is not better than {table.agents[weak]} on the {int(both.sum()):,} requests that "
            "both answered: APGR and CPT are not given."
        )
        return None
    return weak, strong
