"""Requests to agents that take only so many each: prices that clear the market, and the cheapest placement.

In: what each pair of request and agent costs, and the agents' room. Out: one agent per request, within the room, at the
least total cost, and what one more place at each agent would save. The part of `tinydancer.policy.assignment` that
deals with capacities.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer.snapshot import Array

Choice = npt.NDArray[np.intp]
Room = npt.NDArray[np.int64]

TEMPERATURES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5, 1e-5)
"""Of the smoothed dual, as shares of the usual difference between a request's agents."""
NEWTON_STEPS = 8


class Placement(NamedTuple):
    """One agent per request.

    Attributes
    ----------
    prices
        ``float64[N]``: what one more place at each agent would save.
    unplaced
        Requests that the room leaves without an agent; the rest is of no use then.
    """

    chosen: Choice
    prices: Array
    unplaced: int = 0


def prices_of(value: Array, resource: Array | None, limit: float, room: Room) -> tuple[float, Array]:
    """Multipliers of the limit and of the room, close to those that maximise the Lagrangian's minimum.

    The minimum over each request's agents is smoothed into ``-t log sum exp(-s / t)`` and the concave function that
    results maximised by Newton's method, projected onto multipliers of at least 0, as the temperature t falls.

    Parameters
    ----------
    value
        ``float64[n, N]``, infinite where an agent may not serve.
    resource
        ``float64[n, N]``, limited by `limit` in sum; None without a limit.
    room
        ``int64[N]``.
    """
    count, agents = value.shape
    unit = _usual_difference(value)
    costs = value / unit
    features = np.zeros(1 + agents)
    scarce = np.flatnonzero(room < np.isfinite(value).sum(axis=0))
    uses, uses_unit = None, 1.0
    if resource is not None:
        uses_unit = _usual_difference(np.where(np.isfinite(value), resource, np.inf))
        uses = resource / uses_unit
    bounds = np.concatenate(([limit / uses_unit if uses is not None else 0.0], room.astype(np.float64)))
    active = np.concatenate(([0] if uses is not None else [], 1 + scarce)).astype(np.intp)
    y = features

    def scores(at: Array) -> Array:
        table: Array = costs + at[1:]
        return table + at[0] * uses if uses is not None else table

    def smoothed(at: Array, temperature: float) -> tuple[float, Array]:
        table = scores(at)
        lowest = table.min(axis=1, keepdims=True)
        table -= lowest
        table /= -temperature
        np.exp(table, out=table)
        mass = table.sum(axis=1, keepdims=True)
        table /= mass
        minimum = float(lowest.sum()) - temperature * float(np.log(mass).sum())
        return minimum - float(at[active] @ bounds[active]), table

    for temperature in TEMPERATURES:
        height, shares = smoothed(y, temperature)
        for _ in range(NEWTON_STEPS):
            gradient = np.zeros_like(y)
            load = shares.sum(axis=0)
            gradient[1:] = load - bounds[1:]
            curvature = np.zeros((1 + agents, 1 + agents))
            curvature[1:, 1:] = np.diag(load) - shares.T @ shares
            if uses is not None:
                weighted = shares * uses
                mean = weighted.sum(axis=1)
                gradient[0] = mean.sum() - bounds[0]
                curvature[0, 0] = (weighted * uses).sum() - (mean * mean).sum()
                curvature[0, 1:] = curvature[1:, 0] = weighted.sum(axis=0) - mean @ shares
            moving = active[(y[active] > 0.0) | (gradient[active] > 0.0)]
            if moving.size == 0 or np.abs(gradient[moving]).max() <= 0.25 + 1e-5 * count:
                break
            matrix = curvature[np.ix_(moving, moving)] / temperature
            matrix[np.diag_indices(moving.size)] += 1e-6 * max(float(np.trace(matrix)) / moving.size, 1e-9)
            step = np.zeros_like(y)
            step[moving] = np.linalg.solve(matrix, gradient[moving])
            size = 1.0
            while size > 1e-4:
                trial = np.maximum(y + size * step, 0.0)
                higher, table = smoothed(trial, temperature)
                if higher > height + 1e-4 * float(gradient @ (trial - y)) or higher - height > 1e-12 * abs(height):
                    break
                size *= 0.25
            else:
                break
            y, height, shares = trial, higher, table
    return float(y[0]) * unit / uses_unit, np.asarray(y[1:] * unit)


def place(cost: Array, guess: Array, room: Room) -> Placement:
    """The cheapest placement within the room, by shortest augmenting paths over the agents.

    Starts from each request's best agent under guessed prices; the closer they are, the fewer paths. An edge from agent
    j to agent k is the cheapest request of j to move to k; a path from an agent with too many requests to one with room
    moves one request along each of its edges (or several, where they are alike). Once all fit, paths that lower the
    cost and end at an agent with room are taken until none is left: the optimum, because no cycle of the residual graph
    is negative then (Ahuja, Magnanti and Orlin, "Network Flows", 1993, theorem 9.1).

    Parameters
    ----------
    cost
        ``float64[n, N]``, infinite where an agent may not serve.
    guess
        ``float64[N]``, at least 0.
    room
        ``int64[N]``.
    """
    count, agents = cost.shape
    chosen = (cost + guess).argmin(axis=1)
    load = np.bincount(chosen, minlength=agents)
    tolerance = 1e-12 * float(max(np.abs(cost[np.isfinite(cost)]).max(initial=0.0), guess.max(initial=0.0)))
    edges = np.full((agents, agents), np.inf)

    def refresh(agent: int) -> None:
        mine = np.flatnonzero(chosen == agent)
        edges[agent] = (cost[mine] - cost[mine, agent][:, None]).min(axis=0) if mine.size else np.inf
        edges[agent, agent] = np.inf

    for agent in range(agents):
        refresh(agent)
    turn = 0
    while True:
        turn += 1
        crowded = load > room
        crowd = bool(crowded.any())
        distance, parent = _shortest(edges, crowded if crowd else np.ones(agents, np.bool_), tolerance)
        ends = np.where(load < room, distance, np.inf)
        end = int(ends.argmin())
        if crowd and math.isinf(ends[end]):
            return Placement(chosen, np.zeros(agents), int((load - room)[crowded].sum()))
        if not crowd and (ends[end] >= -tolerance or turn > 5 * count + 50 * agents):
            return Placement(chosen, _worth(distance))
        path = _way_to(end, parent)
        if path[0] == path[-1] and len(path) > 1 and sum(edges[e] for e in pairwise(path)) >= -tolerance:
            if not crowd:
                return Placement(chosen, _worth(distance))
            # Rounding pretends to a circle that pays: then the way with the fewest steps.
            distance, parent = _shortest(np.where(np.isfinite(edges), 1.0, np.inf), crowded, 0.0)
            end = int(np.where(load < room, distance, np.inf).argmin())
            path = _way_to(end, parent)
        if path[0] == path[-1] and len(path) > 1:
            most = count  # around a circle, which rounding of large prices may leave: nobody has more or fewer
        else:
            most = int(room[end] - load[end])
            if crowd:
                most = min(most, int(load[path[0]] - room[path[0]]))
        moves = []
        for one, other in pairwise(path):
            mine = np.flatnonzero(chosen == one)
            rise = cost[mine, other] - cost[mine, one]
            alike = mine[rise <= edges[one, other]]
            most = min(most, alike.size)
            moves.append((alike, other))
        for alike, other in moves:
            chosen[alike[:most]] = other
        load[path[0]] -= most
        load[path[-1]] += most
        for agent in path:
            refresh(agent)


def _worth(distance: Array) -> Array:
    return np.where(np.isfinite(distance), np.maximum(-distance, 0.0), 0.0)


def _way_to(end: int, parent: npt.NDArray[np.intp]) -> list[int]:
    """From where the way to an agent begins, or once around the circle that it turns out to come from."""
    path = [end]
    while parent[path[-1]] >= 0:
        before = int(parent[path[-1]])
        if before in path:
            return [before, *reversed(path[path.index(before) :])]
        path.append(before)
    return path[::-1]


def _shortest(edges: Array, sources: npt.NDArray[np.bool_], tolerance: float) -> tuple[Array, npt.NDArray[np.intp]]:
    """Distances from the nearest source and the way there (Bellman and Ford); -1 is where a way begins."""
    agents = edges.shape[0]
    distance = np.where(sources, 0.0, np.inf)
    parent = np.full(agents, -1, np.intp)
    for _ in range(agents):
        through = distance[:, None] + edges
        best = through.min(axis=0)
        better = best < distance - tolerance
        if not better.any():
            break
        parent = np.where(better, through.argmin(axis=0), parent)
        distance = np.where(better, best, distance)
    return distance, parent


def _usual_difference(table: Array) -> float:
    finite = np.isfinite(table)
    high = np.where(finite, table, -np.inf).max(axis=1)
    low = np.where(finite, table, np.inf).min(axis=1)
    return float((high - low).mean()) or 1.0
