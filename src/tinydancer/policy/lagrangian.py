"""The integer programme behind `tinydancer.policy.assignment`: multipliers, exchanges, proof.

In: what each pair of request and agent is worth and uses, a limit on the use, room per agent. Out: one agent per
request, the value of that, and a bound no assignment is below. The steps are those that the module above describes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer.policy.transport import Choice, Room, place, prices_of
from tinydancer.snapshot import Array

EXCHANGES = 300
"""Cheapest single moves of which pairs are tried."""
ROUNDS = 40
MOST_STATES = 20_000
MOST_WORK = 400_000
"""States of the dynamic programme at once, and in all; beyond them the bound stands in for the proof."""
_RELATIVE = 1e-9


class RoomError(Exception):
    """The room leaves so many requests without an agent."""

    def __init__(self, unplaced: int) -> None:
        super().__init__(unplaced)
        self.unplaced = unplaced


class Problem(NamedTuple):
    """``value`` is infinite where an agent may not serve; ``resource`` is 0 there. ``room`` is None without limits."""

    value: Array
    resource: Array
    limit: float
    room: Room | None

    @property
    def tolerance(self) -> float:
        """Of the limit: sums of thousands of floats in another order differ by less."""
        return _RELATIVE * max(abs(self.limit), float(np.abs(self.resource).max(initial=0.0)))

    def total(self, table: Array, chosen: Choice) -> float:
        """Sum of a table over the pairs that were chosen."""
        return float(table[np.arange(chosen.size), chosen].sum())

    def fits(self, chosen: Choice) -> bool:
        """Whether the limit holds, but for what rounding makes of sums."""
        return self.total(self.resource, chosen) <= self.limit + self.tolerance


class Solution(NamedTuple):
    """Choices, what they are worth, what nothing goes below, and the multipliers that say so."""

    chosen: Choice
    value: float
    bound: float
    multiplier: float
    prices: Array


def solve(problem: Problem) -> Solution | float:
    """The solution; or, where none fits, the least of the resource that any assignment needs."""
    started = _bisect(problem) if problem.room is None else _climb_with_room(problem)
    if isinstance(started, float):
        return started
    # Without any limit nothing is below each request's own best; where prices say less, this counts.
    started = started._replace(bound=max(started.bound, float(problem.value.min(axis=1).sum())))
    improved = _exchanged(problem, started)
    return _proven(problem, improved)


# -- multipliers ---------------------------------------------------------------------------------------------------


def _bound(problem: Problem, multiplier: float, prices: Array) -> float:
    """The Lagrangian's minimum: no assignment within the limits has a smaller value."""
    scores = problem.value + prices
    if multiplier:
        scores = scores + multiplier * problem.resource
    bound = float(scores.min(axis=1).sum())
    if multiplier:
        bound -= multiplier * problem.limit
    return bound if problem.room is None else bound - float(prices @ problem.room)


def _bisect(problem: Problem) -> Solution | float:
    """The multiplier at which the choices begin to fit, and those choices."""
    value, resource = problem.value, problem.resource
    free = np.zeros(value.shape[1])
    low_choice = _first_by(value, np.where(np.isfinite(value), resource, np.inf))
    if problem.fits(low_choice):
        worth = problem.total(value, low_choice)
        return Solution(low_choice, worth, worth, 0.0, free)
    high_choice = _first_by(np.where(np.isfinite(value), resource, np.inf), value)
    least = problem.total(resource, high_choice)
    if not problem.fits(high_choice):
        return least
    # Rows that choose alike at both ends choose so between them: what they use is known, and only the rest is asked.
    rows = np.flatnonzero(low_choice != high_choice)
    used = least - float(resource[rows, high_choice[rows]].sum())
    low, high = 0.0, math.inf
    scale = _spread(value) / max(_spread(resource), 1e-300)
    for _ in range(200):
        middle = (scale if low == 0.0 else 4.0 * low) if math.isinf(high) else 0.5 * (low + high)
        if not low < middle < high or rows.size == 0:
            break
        part = resource[rows]
        choice = (value[rows] + middle * part).argmin(axis=1)
        spent = used + float(part[np.arange(rows.size), choice].sum())
        if spent <= problem.limit + problem.tolerance:
            high, high_choice[rows] = middle, choice
        else:
            low, low_choice[rows] = middle, choice
        if math.isinf(high):
            if low > 1e15 * scale:
                break
            continue
        same = low_choice[rows] == high_choice[rows]
        used += float(resource[rows[same], high_choice[rows[same]]].sum())
        rows = rows[~same]
        if high - low <= 1e-15 * high:
            break
    multiplier = low if math.isinf(high) else high
    bounds = {m: _bound(problem, m, free) for m in (low, multiplier)}
    multiplier = max(bounds, key=lambda m: bounds[m])
    chosen = _mixed(problem, high_choice, low_choice)
    return Solution(chosen, problem.total(value, chosen), bounds[multiplier], multiplier, free)


class _Point(NamedTuple):
    """The Lagrangian's minimum at one multiplier; `excess`, by which its choices pass the limit, is its slope there."""

    multiplier: float
    chosen: Choice
    prices: Array
    bound: float
    excess: float


def _climb_with_room(problem: Problem) -> Solution | float:
    """The multiplier that maximises the bound, found where the tangents of two points meet, and choices that fit."""
    value, resource, limit, room = problem
    assert room is not None
    bounded = math.isfinite(limit)
    first, guess = prices_of(value, resource if bounded else None, limit, room)

    def at(multiplier: float, guess: Array) -> _Point:
        placed = place(value + multiplier * resource if multiplier else value, guess, room)
        if placed.unplaced:
            raise RoomError(placed.unplaced)
        excess = problem.total(resource, placed.chosen) - limit
        return _Point(multiplier, placed.chosen, placed.prices, _bound(problem, multiplier, placed.prices), excess)

    tolerance = problem.tolerance
    point = at(first, guess)
    low = high = None
    for step in (1e-3, 1e-2, 0.1, 0.2, 0.4, 1.0, 3.0, 10.0, 1e3, 1e6):
        if point.excess > tolerance:
            low = point
            if high is not None:
                break
            up = point.multiplier * (1.0 + step) if point.multiplier else 1e-3 * _spread(value) / _spread(resource)
            point = at(up, point.prices)
        else:
            high = point
            if low is not None or point.multiplier == 0.0:
                break
            point = at(point.multiplier / (1.0 + step) if step < 1e6 else 0.0, point.prices)
    if high is None:
        needs = np.where(np.isfinite(value), resource, np.inf)
        least = place(needs, prices_of(needs, None, math.inf, room)[1], room).chosen
        if low is not None and not problem.fits(least):
            return problem.total(resource, least)
        return Solution(least, problem.total(value, least), point.bound, point.multiplier, point.prices)
    best = high
    for _ in range(30):
        if low is None:
            break
        meet = (low.bound - low.excess * low.multiplier) - (high.bound - high.excess * high.multiplier)
        meet /= high.excess - low.excess
        if not low.multiplier < meet < high.multiplier:
            break
        share = (meet - low.multiplier) / (high.multiplier - low.multiplier)
        point = at(meet, low.prices + share * (high.prices - low.prices))
        ceiling = low.bound + low.excess * (meet - low.multiplier)
        if point.excess > tolerance:
            low = point
        else:
            high = point
        best = max(best, point, key=lambda p: p.bound)
        if point.bound >= ceiling - 1e-12 * abs(ceiling):
            break
    chosen = high.chosen if low is None else _mixed(problem, high.chosen, low.chosen)
    return Solution(chosen, problem.total(value, chosen), best.bound, best.multiplier, best.prices)


def _mixed(problem: Problem, fits: Choice, worth_more: Choice) -> Choice:
    """As much of `worth_more`, which passes the limit, as can be taken over into `fits`.

    Both minimise the Lagrangian at multipliers that are equal or nearly so, so whatever is taken over is worth what it
    uses; where many requests are alike, they all change at one multiplier, and a part of them fits. Requests
    that change from one agent to another alike are taken together, along ways that leave the agents between as full.
    """
    value, resource, limit, room = problem
    agents = value.shape[1]
    chosen = fits.copy()
    slack = limit - problem.total(resource, chosen)
    tolerance = problem.tolerance
    groups: dict[tuple[int, int], Choice] = {}
    differ = np.flatnonzero(fits != worth_more)
    more = resource[differ, worth_more[differ]] - resource[differ, fits[differ]]
    gain = value[differ, fits[differ]] - value[differ, worth_more[differ]]
    order = np.argsort(-gain / np.maximum(np.abs(more), 1e-300), kind="stable")
    differ, more = differ[order], more[order]
    if room is None:
        taken = differ[np.cumsum(np.maximum(more, 0.0)) <= slack + tolerance]
        chosen[taken] = worth_more[taken]
        return chosen
    pairs = fits[differ] * agents + worth_more[differ]
    for pair in np.unique(pairs):
        groups[divmod(int(pair), agents)] = differ[pairs == pair]
    surplus = np.bincount(fits, minlength=agents) - np.bincount(worth_more, minlength=agents)
    while groups:
        way, ends = _way(groups, surplus)
        rows = [groups[pair] for pair in way]
        most = min(row.size for row in rows)
        if ends:
            most = min(most, int(surplus[way[0][0]]), int(-surplus[way[-1][1]]))
        uses = np.zeros(most)
        for row in rows:
            uses += resource[row[:most], worth_more[row[:most]]] - resource[row[:most], chosen[row[:most]]]
        count = int(np.searchsorted(np.maximum.accumulate(np.cumsum(uses)), slack + tolerance, side="right"))
        for pair, row in zip(way, rows, strict=True):
            chosen[row[:count]] = worth_more[row[:count]]
            groups[pair] = row[count:]
        if ends:
            surplus[way[0][0]] -= count
            surplus[way[-1][1]] += count
        slack -= float(uses[:count].sum())
        if count < most:
            break  # the limit is used up but for less than one of these; the rest is left to the exchanges
        groups = {pair: row for pair, row in groups.items() if row.size}
    return chosen


def _way(
    groups: Mapping[tuple[int, int], Choice], surplus: npt.NDArray[np.int64]
) -> tuple[list[tuple[int, int]], bool]:
    """Edges from an agent that gives requests away to one that takes some, or around a circle; whether there are ends.

    Whoever is between them has no more and no fewer after it.
    """
    onward = dict(groups.keys())
    start = next((one for one in onward if surplus[one] > 0), next(iter(onward)))
    way = [start]
    while way[-1] in onward:
        after = onward[way[-1]]
        if after in way:
            ring = [*way[way.index(after) :], after]
            return list(pairwise(ring)), False
        way.append(after)
        if surplus[start] > 0 and surplus[after] < 0:
            break
    return list(pairwise(way)), True


def _first_by(first: Array, second: Array) -> Choice:
    """Per row the column of the smallest `first`, and among equals of the smallest `second`."""
    ties = first == first.min(axis=1, keepdims=True)
    choice: Choice = np.where(ties, second, np.inf).argmin(axis=1)
    return choice


def _spread(table: Array) -> float:
    finite = np.isfinite(table)
    spread = np.where(finite, table, -np.inf).max(axis=1) - np.where(finite, table, np.inf).min(axis=1)
    return float(spread.mean()) or 1.0


# -- from nearly best to best --------------------------------------------------------------------------------------


def _exchanged(problem: Problem, start: Solution) -> Solution:
    """Moves of one or two requests that lower the value within the limits, the best first, until there is none."""
    value, resource, limit, room = problem
    count, agents = value.shape
    chosen, total = start.chosen.copy(), start.value
    tolerance = problem.tolerance
    scores = value + start.prices
    if start.multiplier:
        scores = scores + start.multiplier * resource
    slack = limit - problem.total(resource, chosen)
    free = np.full(agents + 1, count, np.int64)  # the last one is nobody: where a move that is none goes
    if room is not None:
        free[:agents] = room - np.bincount(chosen, minlength=agents)
    for _ in range(ROUNDS):
        if total - start.bound <= 1e-12 * max(abs(total), 1e-300):
            break
        regret = scores - scores[np.arange(count), chosen][:, None]
        regret[np.arange(count), chosen] = np.inf
        flat = regret.ravel()
        first = np.argpartition(flat, EXCHANGES)[:EXCHANGES] if flat.size > EXCHANGES else np.arange(flat.size)
        first = first[np.isfinite(flat[first])]
        row = np.append(first // agents, -1)
        to = np.append(first % agents, agents)
        of = np.append(chosen[row[:-1]], agents)
        gain = np.append(value[row[:-1], to[:-1]] - value[row[:-1], of[:-1]], 0.0)
        more = np.append(resource[row[:-1], to[:-1]] - resource[row[:-1], of[:-1]], 0.0)
        both = gain[:, None] + gain
        can = (both < -1e-13 * max(abs(total), 1e-300)) & (row[:, None] != row)
        if math.isfinite(limit):
            can &= more[:, None] + more <= slack + tolerance
        if room is not None:
            left = free[to] - 1
            left[-1] = count
            lacks = left[:, None] - (to[:, None] == to) + (of == to[:, None])
            can &= (lacks >= 0) & (lacks.T >= 0)
        at = int(np.where(can, both, np.inf).argmin())
        one, other = divmod(at, row.size)
        if not can[one, other]:
            break
        for move in (one, other):
            if row[move] >= 0:
                chosen[row[move]] = to[move]
                free[to[move]] -= 1
                free[of[move]] += 1
        total = problem.total(value, chosen)
        slack = limit - problem.total(resource, chosen)
    return start._replace(chosen=chosen, value=total)


def _proven(problem: Problem, start: Solution) -> Solution:
    """The optimum, by dynamic programming over the choices that the bound leaves open; `start` if they are too many.

    A choice whose regret (what it costs more than the row's best under the multipliers) exceeds the gap between value
    and bound is in no better assignment; nor is a set of choices whose regrets together do.
    """
    value, resource, limit, room = problem
    count, agents = value.shape
    gap = start.value - start.bound
    if gap <= 1e-12 * max(abs(start.value), 1e-300):
        return start
    scores = value + start.prices
    if start.multiplier:
        scores = scores + start.multiplier * resource
    regret = scores - scores.min(axis=1, keepdims=True)
    open_ = regret <= gap
    widths = open_.sum(axis=1)
    rows = np.flatnonzero(widths > 1)
    if rows.size * 2 > MOST_WORK:
        return start
    # First the rows whose second choice costs most: they rule out the most.
    rows = rows[np.argsort(-np.partition(regret[rows], 1, axis=1)[:, 1], kind="stable")] if agents > 1 else rows
    settled = np.flatnonzero(widths == 1)
    fixed = regret[settled].argmin(axis=1)
    least = np.where(open_[rows], resource[rows], np.inf).min(axis=1)
    to_come = np.append(np.cumsum(least[::-1])[::-1], 0.0)  # the least that the rows from here on use
    spent = np.zeros(1)
    worth, lost = np.zeros(1), np.zeros(1)
    allowance = limit + problem.tolerance - float(resource[settled, fixed].sum())
    free = None if room is None else (room - np.bincount(fixed, minlength=agents))[None].astype(np.int32)
    steps: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
    work = 0
    for position, row in enumerate(rows):
        options = np.flatnonzero(open_[row])
        work += spent.size * options.size
        if work > MOST_WORK:
            return start
        parent = np.repeat(np.arange(spent.size), options.size)
        option = np.tile(options, spent.size)
        spent, worth = spent[parent] + resource[row, option], worth[parent] + value[row, option]
        lost = lost[parent] + regret[row, option]
        keep = lost < gap
        if math.isfinite(limit):
            keep &= spent + to_come[position + 1] <= allowance
        if free is not None:
            free = free[parent]
            free[np.arange(parent.size), option] -= 1
            keep &= free[np.arange(parent.size), option] >= 0
        kept = np.flatnonzero(keep)
        if free is None:  # of two that differ in nothing else, the one that is dearer and uses more is never needed
            kept = kept[np.lexsort((spent[kept], worth[kept]))]
            used = spent[kept]
            before = np.minimum.accumulate(np.concatenate(([np.inf], used[:-1])))
            kept = kept[used < before]
        else:
            free = free[kept]
        spent, worth, lost = spent[kept], worth[kept], lost[kept]
        steps.append((parent[kept], option[kept]))
        if spent.size == 0 or spent.size > MOST_STATES:
            break
    if spent.size > MOST_STATES:
        return start
    proven = start._replace(bound=start.value)
    if spent.size == 0:
        return proven  # nothing better than what is known already
    at = int(worth.argmin())
    chosen = np.empty(count, np.intp)
    chosen[settled] = fixed
    for row, (parent, option) in zip(rows[::-1], reversed(steps), strict=True):
        chosen[row] = option[at]
        at = int(parent[at])
    total = problem.total(value, chosen)
    return start._replace(chosen=chosen, value=total, bound=total) if total < start.value else proven
