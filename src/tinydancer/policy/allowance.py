"""What budgets leave for requests: who fits in what is left, and what happens where nobody does.

In: the budgets that hold for a request with what is used of them, what each agent costs, who may serve otherwise. Out:
who may serve within the budgets; what a choice takes from each; a sentence per agent that is out.

An agent fits if its cost is known and at most what is left of every budget that counts it. An agent's own budget is a
limit on that agent. Any other is at its limit where nothing is left, or where no agent with a price that may serve
otherwise fits; then its ``on_limit`` says who may: nobody, those that cost nothing, or the cheapest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer.policy.budgets import Period, StoredBudget, ceiling_usd, period_of, tolerance_usd, until
from tinydancer.policy.wording import usd

__all__ = ["Allowance", "Claim", "Holding"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Holding(NamedTuple):
    """A budget that holds for a request, at an instant.

    Attributes
    ----------
    ceiling_usd
        What may have been spent of its period by then.
    used_usd
        What is spent and reserved.
    """

    stored: StoredBudget
    period: Period
    ceiling_usd: float
    used_usd: float

    @classmethod
    def at(cls, stored: StoredBudget, now: float, used_usd: float = 0.0) -> Holding:
        """A budget at an instant."""
        budget = stored.budget
        return cls(stored, period_of(budget, now), ceiling_usd(budget, now), used_usd)

    @property
    def left_usd(self) -> float:
        """What is left, at least 0."""
        return max(0.0, self.ceiling_usd - self.used_usd)


class Claim(NamedTuple):
    """What decisions take from one budget together, and how much may be used before for them to stand.

    ``used_at_most`` is infinite where the limit is a soft one and was reached.
    """

    stored: StoredBudget
    period: Period
    amount_usd: float
    used_at_most: float


@dataclass(frozen=True, slots=True)
class Allowance:
    """The budgets that hold for some requests of one context, over the N agents of a snapshot.

    Attributes
    ----------
    holdings
        B of them.
    agents
        For each the position of the agent it is for, -1 where it counts all of them.
    """

    holdings: tuple[Holding, ...]
    agents: tuple[int, ...]

    @classmethod
    def over(cls, holdings: Sequence[Holding], names: Sequence[str]) -> Allowance | None:
        """Over agents by their names; None if no budget holds. Budgets of agents that are not there hold nobody."""
        position = {name: i for i, name in enumerate(names)}
        found, agents = [], []
        for holding in holdings:
            budget = holding.stored.budget
            if budget.scope == "agent" and budget.scope_value not in position:
                continue
            found.append(holding)
            agents.append(position[budget.scope_value] if budget.scope == "agent" and budget.scope_value else -1)
        return cls(tuple(found), tuple(agents)) if found else None

    def room(self, taken: Array | None = None) -> Array:
        """What an agent may cost at most after `taken` (``float64[n, B]``), ``float64[n, B]``; 0 is nothing left."""
        left = np.array([h.ceiling_usd - h.used_usd for h in self.holdings])
        spare = np.array([tolerance_usd(h.stored.budget) for h in self.holdings])
        rest = left[None] if taken is None else left - taken
        result: Array = np.where(rest <= spare, 0.0, rest + spare)
        return result

    def usd(self, names: Sequence[str]) -> Array:
        """The most each agent may cost now, infinite where no budget counts it; ``float64[N]``."""
        most = np.full(len(names), np.inf)
        for agent, room in zip(self.agents, self.room()[0].tolist(), strict=True):
            where = slice(None) if agent < 0 else slice(agent, agent + 1)
            most[where] = np.minimum(most[where], room)
        return most

    def within(self, allowed: Mask, cost_usd: Array, room: Array) -> Mask:
        """Who of those that may serve otherwise may within the budgets.

        Parameters
        ----------
        allowed, cost_usd
            ``[n, N]``.
        room
            ``[n, B]`` or ``[1, B]``, see `room`.
        """
        result = allowed.copy()
        for column, (holding, agent) in enumerate(zip(self.holdings, self.agents, strict=True)):
            if agent >= 0:
                cost = cost_usd[:, agent]
                fits = cost <= room[:, column]
                behaviour = holding.stored.budget.on_limit
                if behaviour == "refuse":
                    fits = fits & (room[:, column] > 0.0)
                elif behaviour == "cheapest":
                    fits = fits | (cost <= _least(allowed, cost_usd))
                result[:, agent] &= fits
        otherwise = result
        for column, (holding, agent) in enumerate(zip(self.holdings, self.agents, strict=True)):
            if agent < 0:
                fits = cost_usd <= room[:, column, None]
                behaviour = holding.stored.budget.on_limit
                if behaviour != "free":  # where it is, those that fit at the limit are those that cost nothing
                    reached = self._reached(otherwise, cost_usd, room[:, column])[:, None]
                    if behaviour == "refuse":
                        fits = fits & ~reached
                    else:
                        fits = np.where(reached, cost_usd <= _least(otherwise, cost_usd)[:, None], fits)
                result = result & fits
        return result

    def taken(self, chosen: npt.NDArray[np.intp], cost_usd: Array) -> Array:
        """What the choices take from each budget; ``float64[n, B]`` from ``intp[n]``, -1 for none, and ``[n, N]``."""
        cost = np.where(chosen < 0, 0.0, cost_usd[np.arange(len(chosen)), np.maximum(chosen, 0)])
        columns = [cost if agent < 0 else np.where(chosen == agent, cost, 0.0) for agent in self.agents]
        return np.stack(columns, axis=1)

    def claims(self, allowed: Mask, cost_usd: Array, chosen: npt.NDArray[np.intp]) -> list[Claim]:
        """What is to be reserved for the choices, and what of the budgets must be left for them to stand.

        Parameters
        ----------
        allowed
            ``bool[n, N]``: who may serve otherwise, budgets aside.
        """
        if not (chosen >= 0).any():
            return []
        amounts = self.taken(chosen, cost_usd).sum(axis=0).tolist()
        made = []
        for holding, agent, amount in zip(self.holdings, self.agents, amounts, strict=True):
            budget = holding.stored.budget
            spare, needed = tolerance_usd(budget), amount
            if budget.on_limit == "refuse" and agent < 0:
                # A request that costs nothing is refused like any other at the limit.
                least = self._least_price(allowed, cost_usd) if len(chosen) == 1 else 0.0
                needed = max(amount, least, 2.0 * spare)
            if needed <= 0.0:
                continue
            most = holding.ceiling_usd + spare - needed
            if budget.on_limit == "cheapest" and amount > holding.left_usd + spare:
                most = math.inf
            made.append(Claim(holding.stored, holding.period, amount, most))
        return made

    def cap_usd(self, allowed: Mask, cost_usd: Array) -> float:
        """What requests may cost together by the budgets that count all agents: what is left of each.

        At a soft limit, what the cheapest agents of those that may serve each request, ``bool[n, N]``, cost together.
        """
        caps = [math.inf]
        for holding, agent, room in zip(self.holdings, self.agents, self.room()[0].tolist(), strict=True):
            if agent < 0:
                is_soft = holding.stored.budget.on_limit == "cheapest"
                caps.append(max(room, float(np.maximum(_least(allowed, cost_usd), 0.0).sum())) if is_soft else room)
        return min(caps)

    def passed(self, chosen: npt.NDArray[np.intp], cost_usd: Array) -> list[Holding]:
        """The budgets of which choices take more together than is left, those with a soft limit aside."""
        sums, rooms = self.taken(chosen, cost_usd).sum(axis=0).tolist(), self.room()[0].tolist()
        return [
            holding
            for holding, taken, room in zip(self.holdings, sums, rooms, strict=True)
            if taken > room and holding.stored.budget.on_limit != "cheapest"
        ]

    def reasons(self, allowed: Mask, cost_usd: Array, room: Array) -> dict[int, str]:
        """For one request, why agents that may serve otherwise may not; all inputs of length N, B the last."""
        within = self.within(allowed[None], cost_usd[None], room[None])[0]
        found = {}
        for agent in np.flatnonzero(allowed & ~within).tolist():
            column = self._binding(agent, allowed, cost_usd, room)
            found[agent] = self._sentence(column, float(cost_usd[agent]), float(room[column]))
        return found

    def _binding(self, agent: int, allowed: Mask, cost_usd: Array, room: Array) -> int:
        """The budget that rules an agent out: one that does so alone, among those the one with the least left."""
        counting = [column for column, only in enumerate(self.agents) if only in (-1, agent)]
        counting.sort(key=lambda column: (room[column], column))
        for column in counting:
            alone = Allowance((self.holdings[column],), (self.agents[column],))
            if not alone.within(allowed[None], cost_usd[None], room[None, [column]])[0, agent]:
                return column
        return counting[0]

    def _sentence(self, column: int, cost: float, room: float) -> str:
        holding = self.holdings[column]
        budget = holding.stored.budget
        left = max(0.0, room - tolerance_usd(budget))
        so_far = " so far" if budget.pacing == "even" and holding.ceiling_usd < budget.amount_usd else ""
        end = until(budget, holding.period)
        has = f"has {usd(left)} left{so_far}" if left else f"has nothing left{so_far}"
        what = (
            f"the budget {budget.name!r}{f' ({budget.whose})' if budget.whose else ''} {has}{f' {end}' if end else ''}"
        )
        if math.isnan(cost):
            return f"its cost is unknown; {what}"
        if cost <= room and budget.on_limit == "refuse":
            return f"{what}, and then refuses every request"
        return f"{'costs nothing' if not cost else f'costs about {usd(cost)}'}; {what}"

    @staticmethod
    def _reached(allowed: Mask, cost_usd: Array, room: Array) -> Mask:
        """Where a budget is at its limit; ``bool[n]``."""
        priced = allowed & (cost_usd > 0.0)
        fits = priced & (cost_usd <= room[:, None])
        result: Mask = (room <= 0.0) | (priced.any(axis=1) & ~fits.any(axis=1))
        return result

    @staticmethod
    def _least_price(allowed: Mask, cost_usd: Array) -> float:
        """Of the first request, the least cost of an agent with a price; 0 if there is none."""
        priced = cost_usd[0][allowed[0] & (cost_usd[0] > 0.0)]
        return float(priced.min()) if priced.size else 0.0


def _least(allowed: Mask, cost_usd: Array) -> Array:
    """The least known cost of those allowed, -1 where there is none; ``float64[n]``."""
    least = np.where(allowed & (cost_usd >= 0.0), cost_usd, np.inf).min(axis=1, initial=np.inf)
    return np.where(np.isinf(least), -1.0, least)
