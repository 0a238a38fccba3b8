"""Semantic routes: which route a request belongs to, or none of them.

In: embedded requests, the routes as columns, the time and whose request it is. Out: for each request the routes that it
passes, in order, each with a probability; or none, with a probability as well. Pure: no clock, no I/O, arrays only.

For request x and route r with examples e, its description among them, and negative examples n:

* the similarity is a mean of two, ``s(x, r) = 0.3 max over e of cos(x, e) + 0.7 cos(x, mean of e)``, which is the
  plain cosine for a route with one vector. The nearest example alone follows single words of it, the mean alone loses
  routes with several sides; ``evals/routes`` has what each of them reaches;
* r is *refused* where its conditions do not hold, or where a negative example is as near as the nearest example:
  ``max over n of cos(x, n) >= max over e of cos(x, e)``;
* r *passes* if it is not refused and ``s(x, r)`` is at least its threshold;
* passing routes stand in order of priority, then of confidence, then of name (of two confidences that are the same
  when rounded, that with the larger argument of sigma is first);
* the confidence is ``sigma(a + b s + c m)``, m the margin to the best other route that is not refused (-1 without
  one; `RouteCalibration`);
* where none passes, the answer is *none of these*, with the probability ``sigma(a' + b' s + c' m)`` of the
  most similar route.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer.policy.route_snapshot import LOWEST, NO_CONTEXT, REFUSED, RouteContext, RoutesSnapshot
from tinydancer.snapshot import Array, Mask
from tinydancer.validation import FloatVector

__all__ = ["RouteAnswer", "RouteAnswers", "RouteMatch", "route_one", "route_semantically"]

FEW = 8
"""Passing routes of a request up to which they are put in order without looking for the first ones beforehand."""
BLOCK_VALUES = 4_000_000
"""Similarities that are in memory at once; more requests than that take are done in parts."""

Indices = npt.NDArray[np.intp]


class RouteMatch(NamedTuple):
    """One route that a request passes.

    Attributes
    ----------
    similarity
        To the nearest of its examples and to their mean, in [-1, 1]; see above.
    confidence
        Probability that the request is this route's.
    """

    route_name: str
    similarity: float
    target_agent: str
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self._asdict()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAnswer:
    """The routes of one request.

    Attributes
    ----------
    matches
        Those it passes, the best first, at most `top_k`; empty where it is none of these.
    none_confidence
        Probability that it belongs to none of the routes.
    nearest
        The route with the highest similarity among those not refused, passed or not; None without any.
    """

    matches: tuple[RouteMatch, ...]
    none_confidence: float
    nearest: RouteMatch | None

    @property
    def best(self) -> RouteMatch | None:
        """The route to take, or None: none of these."""
        return self.matches[0] if self.matches else None

    @property
    def confidence(self) -> float:
        """Probability that the answer, a route or none, is right."""
        return self.matches[0].confidence if self.matches else self.none_confidence

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        best = self.best
        return {
            "route_name": None if best is None else best.route_name,
            "target_agent": None if best is None else best.target_agent,
            "confidence": self.confidence,
            "matches": [match.to_dict() for match in self.matches],
            "nearest": None if self.nearest is None else self.nearest.to_dict(),
        }


NO_ROUTES = RouteAnswer(matches=(), none_confidence=1.0, nearest=None)
"""Where no route comes into question."""


class RouteAnswers:
    """Answers for n requests, as columns; ``answers[i]`` reads one of them.

    Attributes
    ----------
    best
        ``intp[n]``: position of the route to take in ``snapshot.names``; -1 for none of these.
    confidence
        ``float64[n]``: of `best`, or of there being none.
    """

    __slots__ = ("_columns", "best", "confidence", "snapshot")

    def __init__(self, snapshot: RoutesSnapshot, columns: _Columns) -> None:
        self.snapshot = snapshot
        self._columns = columns
        self.best: Indices = np.full(len(columns.none), -1, np.intp)
        self.confidence: Array = columns.none.copy()
        filled = columns.first[1:] > columns.first[:-1]
        at = columns.first[:-1][filled]
        self.best[filled] = columns.route[at]
        self.confidence[filled] = columns.confidence[at]

    def __len__(self) -> int:
        return int(self.best.shape[0])

    def __getitem__(self, row: int) -> RouteAnswer:
        c = self._columns
        row = range(len(self))[row]
        start, stop = c.first[row : row + 2].tolist()
        matches = [
            _match(self.snapshot, *values)
            for values in zip(
                c.route[start:stop].tolist(), c.similarity[start:stop].tolist(), c.confidence[start:stop].tolist(),
                strict=True,
            )
        ]  # fmt: skip
        nearest = None
        if c.nearest[row] >= 0:
            route, similarity = int(c.nearest[row]), float(c.nearest_similarity[row])
            nearest = _match(self.snapshot, route, similarity, float(c.nearest_confidence[row]))
        return RouteAnswer(matches=tuple(matches), none_confidence=float(c.none[row]), nearest=nearest)

    def __iter__(self) -> Iterator[RouteAnswer]:
        return (self[row] for row in range(len(self)))


class _Columns(NamedTuple):
    """The matches of all requests one after another, those of request i from ``first[i]`` up to ``first[i + 1]``.

    Per request ``none``, the probability of none of these, and the nearest route (-1 without any).
    """

    first: Indices
    route: Indices
    similarity: FloatVector
    confidence: Array
    none: Array
    nearest: Indices
    nearest_similarity: FloatVector
    nearest_confidence: Array


def route_semantically(
    queries: FloatVector,
    routes: RoutesSnapshot,
    *,
    now: float,
    context: RouteContext = NO_CONTEXT,
    top_k: int = 3,
) -> RouteAnswers:
    """Find the routes of each request.

    Parameters
    ----------
    queries
        ``float32[n, dim]``, rows of unit length in the snapshot's space.
    routes
        The routes as columns.
    now
        Seconds since 1970; conditions are asked at this instant.
    context
        The same for all of them.
    top_k
        How many routes an answer holds at most, at least 1.
    """
    if not len(routes) or not len(queries):
        return RouteAnswers(routes, _nothing(len(queries)))
    eligible = routes.eligible(now, context)
    if eligible is not None and not eligible.any():
        return RouteAnswers(routes, _nothing(len(queries)))
    block = max(1, BLOCK_VALUES // len(routes.examples))
    if len(queries) <= block:
        return RouteAnswers(routes, _route_block(queries, routes, eligible, top_k))
    parts = [
        _route_block(queries[start : start + block], routes, eligible, top_k) for start in range(0, len(queries), block)
    ]
    counts = np.concatenate([np.diff(part.first) for part in parts])
    joined = zip(*(part[1:] for part in parts), strict=True)
    first = np.concatenate(([0], np.cumsum(counts))).astype(np.intp)
    return RouteAnswers(routes, _Columns(first, *(np.concatenate(column) for column in joined)))


def route_one(
    query: FloatVector,
    routes: RoutesSnapshot,
    *,
    now: float,
    context: RouteContext = NO_CONTEXT,
    top_k: int = 3,
) -> RouteAnswer:
    """The answer of `route_semantically` for one request, ``float32[dim]`` of unit length, in less time."""
    if not routes.names:
        return NO_ROUTES
    if routes.index is not None:
        few = routes.taken(routes.index.near(query))
        similarity = few.compared(query, now, context)
        if np.count_nonzero(similarity > REFUSED) > top_k:
            return _answer(similarity, few, top_k)
    return _answer(routes.compared(query, now, context), routes, top_k)


def _answer(similarity: FloatVector, routes: RoutesSnapshot, top_k: int) -> RouteAnswer:
    """From the similarities of one request."""
    nearest = int(similarity.argmax())
    highest = float(similarity[nearest])
    if highest == REFUSED:
        return NO_ROUTES
    passing = (similarity >= routes.thresholds).nonzero()[0]
    similarity[nearest] = REFUSED
    second = max(float(similarity.max()), -1.0)
    similarity[nearest] = highest
    weights, margin = routes.calibrations[:, nearest].tolist(), highest - second
    likeliest = weights[0] + weights[1] * highest + weights[2] * margin
    if len(passing) > FEW:
        passing = _foremost(passing, similarity, routes, nearest, likeliest, top_k)
    found = []
    for route in passing.tolist():
        own, logit = highest, likeliest
        if route != nearest:
            own = float(similarity[route])
            intercept, slope, by_margin = routes.calibrations[:3, route].tolist()
            logit = intercept + slope * own + by_margin * (own - highest)
        found.append((-int(routes.priorities[route]), -logit, route, own))
    found.sort()
    return RouteAnswer(
        matches=tuple([_match(routes, route, own, _sigmoid(-logit)) for _, logit, route, own in found[:top_k]]),
        none_confidence=_sigmoid(weights[3] + weights[4] * highest + weights[5] * margin),
        nearest=_match(routes, nearest, highest, _sigmoid(likeliest)),
    )


def _route_block(queries: FloatVector, routes: RoutesSnapshot, eligible: Mask | None, top_k: int) -> _Columns:
    similarity = routes.similarity(queries)
    if eligible is not None:
        similarity[:, ~eligible] = REFUSED
    count = len(queries)
    rows = np.arange(count)
    nearest = similarity.argmax(axis=1)
    highest = similarity[rows, nearest]
    # The best of the others, which the nearest route's margin refers to; that of every other one refers to the nearest.
    similarity[rows, nearest] = REFUSED
    second = similarity.max(axis=1)
    similarity[rows, nearest] = highest
    second = np.maximum(second, LOWEST)

    passing = similarity >= routes.thresholds
    if not routes.ranked and np.count_nonzero(passing) > max(FEW, top_k) * count:
        # Most of what passes comes after the first few: putting all of it in order takes longer than the rest.
        logits = _logits(routes.calibrations[:3], similarity, similarity - highest[:, None])
        logits[rows, nearest] = _logits(routes.calibrations[:3, nearest], highest, highest - second)
        logits[~passing] = -np.inf
        if top_k < logits.shape[1]:
            passing &= logits >= np.partition(logits, -top_k, axis=1)[:, -top_k, None]
    request, route = passing.nonzero()
    found = similarity[request, route]
    others = np.where(route == nearest[request], second[request], highest[request])
    logit = _logits(routes.calibrations[:3, route], found, found - others)
    likeliest = _sigmoids(_logits(routes.calibrations[:3, nearest], highest, highest - second))
    none = _sigmoids(_logits(routes.calibrations[3:, nearest], highest, highest - second))
    if eligible is not None or len(routes.negative_of):
        out = highest == REFUSED  # everything is refused by a condition or by a negative example
        none[out], likeliest[out], nearest[out] = 1.0, 0.0, -1
    if len(route) > 1:
        order = np.lexsort((route, -logit, -routes.priorities[route], request))
        if len(route) > top_k:
            ordered = request[order]
            place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
            order = order[place < top_k]
        request, route, found, logit = request[order], route[order], found[order], logit[order]
    first = np.searchsorted(request, np.arange(count + 1))
    return _Columns(first, route, found, _sigmoids(logit), none, nearest, highest, likeliest)


def _foremost(
    passing: Indices, similarity: FloatVector, routes: RoutesSnapshot, nearest: int, likeliest: float, top_k: int
) -> Indices:
    """Those of the passing routes that may be among the first `top_k`; more where several are alike.

    `likeliest` is the logit of the nearest route, whose margin is another than that of the rest.
    """
    if top_k >= len(passing):
        return passing
    own = similarity[passing]
    if routes.alike:
        order = own
    else:
        intercepts, slopes, margins = (column[passing] for column in routes.calibrations[:3])
        wide = own.astype(np.float64)
        order = intercepts + slopes * wide + margins * (wide - float(similarity[nearest]))
        order[passing == nearest] = likeliest
    if routes.ranked:
        priorities = routes.priorities[passing]
        level = np.partition(priorities, -top_k)[-top_k]
        order[priorities > level], order[priorities < level] = np.inf, -np.inf
    first: Indices = passing[order >= np.partition(order, -top_k)[-top_k]]
    return first


def _logits(weights: Array, similarity: FloatVector, margin: FloatVector) -> Array:
    return np.asarray(weights[0] + weights[1] * similarity + weights[2] * margin)


def _sigmoids(logits: Array) -> Array:
    return np.asarray(0.5 * np.tanh(0.5 * logits) + 0.5)


def _sigmoid(logit: float) -> float:
    return 0.5 * math.tanh(0.5 * logit) + 0.5


def _match(routes: RoutesSnapshot, route: int, similarity: float, confidence: float) -> RouteMatch:
    shown = max(-1.0, min(1.0, similarity))  # rounding may leave the range
    return RouteMatch(routes.names[route], shown, routes.targets[route], confidence)


def _nothing(count: int) -> _Columns:
    empty = np.zeros(0)
    return _Columns(
        np.zeros(count + 1, np.intp), empty.astype(np.intp), empty.astype(np.float32), empty, np.ones(count),
        np.full(count, -1, np.intp), np.zeros(count, np.float32), np.zeros(count),
    )  # fmt: skip
