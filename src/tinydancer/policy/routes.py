"""Semantic routes: which route a request belongs to, or none of them.

In: embedded requests, the routes as columns, the time and whose request it is. Out: for each request the routes that it
passes, in order, each with a probability; or none, with a probability as well. Pure: no clock, no I/O, arrays only.

For request x and route r with examples e, its description among them, and negative examples n:

* the similarity is the mean of two: ``s(x, r) = (max over e of cos(x, e) + cos(x, mean of e)) / 2``, which is the
  plain cosine for a route with one vector. The nearest example alone follows single words of it, the mean alone loses
  routes with several sides; ``evals/routes`` has what each of the three reaches;
* r is *refused* where its conditions do not hold, or where a negative example is as near as the nearest example:
  ``max over n of cos(x, n) >= max over e of cos(x, e)``;
* r *passes* if it is not refused and ``s(x, r)`` is at least its threshold;
* passing routes stand in order of priority, then of confidence, then of name;
* the confidence is ``sigma(a + b s + c m)``, m the margin to the best other route that is not refused (-1 without
  one; `RouteCalibration`);
* where none passes, the answer is *none of these*, with the probability ``sigma(a' + b' s + c' m)`` of the
  most similar route.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.policy.route_rules import DAYS, Route, RouteCalibration, TimeRange, local_time
from tinydancer.snapshot import Array, Mask
from tinydancer.types import EmbeddingSpace
from tinydancer.validation import FloatVector

__all__ = [
    "DEFAULT_CALIBRATION",
    "DEFAULT_THRESHOLD",
    "DESCRIBED_CALIBRATION",
    "DESCRIBED_THRESHOLD",
    "RouteAnswer",
    "RouteAnswers",
    "RouteContext",
    "RouteMatch",
    "RoutesSnapshot",
    "build_routes_snapshot",
    "route_one",
    "route_semantically",
]

DEFAULT_THRESHOLD = 0.26
DEFAULT_CALIBRATION = RouteCalibration(
    intercept=-3.1, slope=5.9, margin=10.6, none_intercept=3.2, none_slope=-16.5, none_margin=6.8
)
"""For routes with examples that nothing was fitted for: what ``scripts/evaluate_routes.py --defaults`` gives."""
DESCRIBED_THRESHOLD = 0.0
DESCRIBED_CALIBRATION = RouteCalibration(
    intercept=-2.3, slope=4.8, margin=8.4, none_intercept=1.1, none_slope=-12.5, none_margin=7.0
)
"""For routes that only have a description: a request resembles it less than it resembles another request. The threshold
is low on purpose: a route that was given nothing but a sentence takes what is nearest to it rather than nothing."""
LOWEST, HALF = np.float32(-1.0), np.float32(0.5)
REFUSED = np.float32(-2.0)
"""Stands for the similarity of a route that does not come into question; below every threshold."""
TINY = 1e-6
FEW = 32
"""Passing routes of one request up to which they are put in order one by one."""
BLOCK_VALUES = 4_000_000
"""Similarities that are in memory at once; more requests than that take are done in parts."""

Indices = npt.NDArray[np.intp]


class RouteContext(NamedTuple):
    """What is known of a request besides its text.

    Attributes
    ----------
    user_tier
        Whose it is; None is not known.
    exhausted
        Names of the routes whose rate limits let nothing through just now.
    """

    user_tier: str | None = None
    exhausted: Collection[str] = ()


NO_CONTEXT = RouteContext()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutesSnapshot:
    """N routes as columns, in order of name. Build it with `build_routes_snapshot`.

    Attributes
    ----------
    version
        Names the state of the registry it was built from.
    examples, starts
        ``float32[U, dim]`` unit rows, route by route, and the first row of each route.
    middles
        ``float32[N, dim]`` unit rows, the means of each route's examples; no rows where every route has one example.
    negatives, negative_starts, negative_of
        Likewise for negative examples, of the routes ``negative_of`` that have some.
    thresholds
        ``float32[N]``.
    priorities
        ``int64[N]``.
    calibrations
        ``float64[N, 6]``: intercept, slope and margin, and the same of none, see `RouteCalibration`.
    limited
        ``bool[N]``: routes with a rate limit.
    conditions
        What the eligibility at an instant is computed from; None where every route always holds.
    """

    version: str
    space: EmbeddingSpace
    names: tuple[str, ...]
    targets: tuple[str, ...]
    examples: FloatVector
    starts: Indices
    middles: FloatVector
    negatives: FloatVector
    negative_starts: Indices
    negative_of: Indices
    thresholds: npt.NDArray[np.float32]
    priorities: npt.NDArray[np.int64]
    calibrations: Array
    limited: Mask
    conditions: _Conditions | None

    def __len__(self) -> int:
        return len(self.names)

    def similarity(self, queries: FloatVector) -> FloatVector:
        """Similarity of each request to each route, ``float32[n, N]``; `REFUSED` by negative examples."""
        found: FloatVector = queries @ self.examples.T
        if len(self.middles):
            found = np.maximum.reduceat(found, self.starts, axis=1)
        refused: Mask | None = None
        if len(self.negative_of):
            against = np.maximum.reduceat(queries @ self.negatives.T, self.negative_starts, axis=1)
            refused = found[:, self.negative_of] <= against
        if len(self.middles):
            found += queries @ self.middles.T
            found *= HALF
        if refused is not None:
            found[:, self.negative_of] = np.where(refused, REFUSED, found[:, self.negative_of])
        return found

    def eligible(self, now: float, context: RouteContext) -> Mask | None:
        """Routes whose conditions hold, ``bool[N]``; None stands for all."""
        mask = None if self.conditions is None else self.conditions.hold(now, context.user_tier)
        if context.exhausted:
            spent = np.array([name in context.exhausted for name in self.names], dtype=np.bool_)
            mask = ~spent if mask is None else mask & ~spent
        return mask


@dataclass(frozen=True, slots=True)
class _Conditions:
    """Time ranges, each once, as columns of one entry per range; ``range_of[N]`` is -1 for routes without one."""

    zones: tuple[str, ...]
    zone_of: Indices
    start_s: npt.NDArray[np.int64]
    end_s: npt.NDArray[np.int64]
    days: Mask
    range_of: Indices
    for_everybody: Mask
    tiers: Mapping[str, Mask]

    def hold(self, now: float, user_tier: str | None) -> Mask:
        mask = self.for_everybody
        if user_tier is not None and (own := self.tiers.get(user_tier)) is not None:
            mask = mask | own
        if not self.zones:
            return mask
        shown = np.array([local_time(zone, now) for zone in self.zones])[self.zone_of]
        weekday, second = shown[:, 0], shown[:, 1]
        rows = np.arange(len(weekday))
        today, yesterday = self.days[rows, weekday], self.days[rows, weekday - 1]
        over_midnight = self.start_s >= self.end_s
        holds = np.where(
            over_midnight,
            (today & (second >= self.start_s)) | (yesterday & (second < self.end_s)),
            today & (self.start_s <= second) & (second < self.end_s),
        )
        # The last entry stands for -1: no time range, which always holds.
        return np.asarray(mask & np.append(holds, True)[self.range_of])


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
    eligible = None
    if routes.conditions is not None or context.exhausted:
        eligible = routes.eligible(now, context)
    if not routes.names or (eligible is not None and not eligible.any()):
        return RouteAnswers(routes, _nothing(1))[0]
    similarity = routes.similarity(query[None, :])[0]
    if eligible is not None:
        similarity[~eligible] = REFUSED
    nearest = int(similarity.argmax())
    highest = float(similarity[nearest])
    if highest == REFUSED:
        return RouteAnswers(routes, _nothing(1))[0]
    passing = (similarity >= routes.thresholds).nonzero()[0]
    similarity[nearest] = REFUSED
    second = max(float(np.maximum.reduce(similarity)), -1.0)
    similarity[nearest] = highest
    if len(passing) > FEW:
        return route_semantically(query[None, :], routes, now=now, context=context, top_k=top_k)[0]
    found = []
    for route in passing.tolist():
        own = float(similarity[route])
        confidence = _sigmoid(routes.calibrations[route], own, own - (second if route == nearest else highest), 0)
        found.append((-int(routes.priorities[route]), -confidence, route, own))
    found.sort()
    weights, margin = routes.calibrations[nearest], highest - second
    return RouteAnswer(
        matches=tuple([_match(routes, route, own, -confidence) for _, confidence, route, own in found[:top_k]]),
        none_confidence=_sigmoid(weights, highest, margin, 3),
        nearest=_match(routes, nearest, highest, _sigmoid(weights, highest, margin, 0)),
    )


def build_routes_snapshot(routes: Sequence[Route], *, version: str, space: EmbeddingSpace) -> RoutesSnapshot:
    """Columns from routes, the active ones only; the order in which they come does not matter.

    Raises
    ------
    SpaceMismatchError
        An utterance's vector is not of the deployment's dimension.
    """
    ordered = sorted((r for r in routes if r.is_active and _positive(r)), key=lambda r: r.name)
    examples = [[u.embedding for u in r.utterances if u.kind != "negative"] for r in ordered]
    negatives = [[u.embedding for u in r.utterances if u.kind == "negative"] for r in ordered]
    exemplified = [any(u.kind == "example" for u in r.utterances) for r in ordered]
    calibrations = [
        r.calibration or (DEFAULT_CALIBRATION if has_examples else DESCRIBED_CALIBRATION)
        for r, has_examples in zip(ordered, exemplified, strict=True)
    ]
    thresholds = [
        r.threshold if r.threshold is not None else DEFAULT_THRESHOLD if has_examples else DESCRIBED_THRESHOLD
        for r, has_examples in zip(ordered, exemplified, strict=True)
    ]
    with_negatives = [number for number, vectors in enumerate(negatives) if vectors]
    columns: dict[str, Any] = {
        "examples": _unit_rows([v for vectors in examples for v in vectors], space),
        "starts": _starts([len(vectors) for vectors in examples]),
        "middles": _middles(examples, space),
        "negatives": _unit_rows([v for vectors in negatives for v in vectors], space),
        "negative_starts": _starts([len(negatives[number]) for number in with_negatives]),
        "negative_of": np.array(with_negatives, dtype=np.intp),
        "thresholds": np.array(thresholds, dtype=np.float32),
        "priorities": np.array([r.priority for r in ordered], dtype=np.int64),
        "calibrations": np.array(
            [(c.intercept, c.slope, c.margin, c.none_intercept, c.none_slope, c.none_margin) for c in calibrations],
            dtype=np.float64,
        ).reshape(len(ordered), 6),
        "limited": np.array([r.conditions.rate_limit is not None for r in ordered], dtype=np.bool_),
    }
    for array in columns.values():
        array.setflags(write=False)
    return RoutesSnapshot(
        version=version, space=space, names=tuple(r.name for r in ordered),
        targets=tuple(r.target_agent for r in ordered), conditions=_conditions(ordered), **columns,
    )  # fmt: skip


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
    request, route = passing.nonzero()
    found = similarity[request, route]
    others = np.where(route == nearest[request], second[request], highest[request])
    confidence = _probability(routes.calibrations[route, :3], found, found - others)
    likeliest = _probability(routes.calibrations[nearest, :3], highest, highest - second)
    none = _probability(routes.calibrations[nearest, 3:], highest, highest - second)
    if eligible is not None or len(routes.negative_of):
        out = highest == REFUSED  # everything is refused by a condition or by a negative example
        none[out], likeliest[out], nearest[out] = 1.0, 0.0, -1
    if len(route) > 1:
        order = np.lexsort((route, -confidence, -routes.priorities[route], request))
        if len(route) > top_k:
            ordered = request[order]
            place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
            order = order[place < top_k]
        request, route, found, confidence = request[order], route[order], found[order], confidence[order]
    first = np.searchsorted(request, np.arange(count + 1))
    return _Columns(first, route, found, confidence, none, nearest, highest, likeliest)


def _probability(weights: Array, similarity: FloatVector, margin: FloatVector) -> Array:
    logits = weights[:, 0] + weights[:, 1] * similarity + weights[:, 2] * margin
    return np.asarray(0.5 * np.tanh(0.5 * logits) + 0.5)


def _sigmoid(weights: Array, similarity: float, margin: float, first: int) -> float:
    """As `_probability`, of one route; the weights begin at `first`."""
    intercept, slope, by_margin = weights[first : first + 3].tolist()
    return 0.5 * math.tanh(0.5 * (intercept + slope * similarity + by_margin * margin)) + 0.5


def _match(routes: RoutesSnapshot, route: int, similarity: float, confidence: float) -> RouteMatch:
    shown = max(-1.0, min(1.0, similarity))  # rounding may leave the range
    return RouteMatch(routes.names[route], shown, routes.targets[route], confidence)


def _nothing(count: int) -> _Columns:
    empty = np.zeros(0)
    return _Columns(
        np.zeros(count + 1, np.intp), empty.astype(np.intp), empty.astype(np.float32), empty, np.ones(count),
        np.full(count, -1, np.intp), np.zeros(count, np.float32), np.zeros(count),
    )  # fmt: skip


def _positive(route: Route) -> bool:
    return any(utterance.kind != "negative" for utterance in route.utterances)


def _unit_rows(vectors: Sequence[FloatVector], space: EmbeddingSpace) -> FloatVector:
    checked = [check.unit_vector(v, "The embedding of an utterance", dim=space.dim, space=space.name) for v in vectors]
    return np.ascontiguousarray(np.array(checked, dtype=np.float32).reshape(len(checked), space.dim))


def _middles(examples: Sequence[Sequence[FloatVector]], space: EmbeddingSpace) -> FloatVector:
    if all(len(vectors) == 1 for vectors in examples):
        return np.zeros((0, space.dim), np.float32)
    means = np.stack([_unit_rows(vectors, space).mean(axis=0, dtype=np.float64) for vectors in examples])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    # Examples that point in opposite directions have no mean direction; it then resembles nothing.
    return np.ascontiguousarray(np.divide(means, lengths, where=lengths > TINY, out=np.zeros_like(means)), np.float32)


def _starts(counts: Sequence[int]) -> Indices:
    return np.cumsum([0, *counts], dtype=np.intp)[:-1]


def _conditions(routes: Sequence[Route]) -> _Conditions | None:
    if not any(r.conditions.time_range is not None or r.conditions.user_tier is not None for r in routes):
        return None
    ranges: dict[TimeRange, int] = {}
    range_of = [
        -1 if r.conditions.time_range is None else ranges.setdefault(r.conditions.time_range, len(ranges))
        for r in routes
    ]
    zones = tuple(sorted({when.time_zone for when in ranges}))
    tiers = sorted({tier for r in routes for tier in r.conditions.user_tier or ()})
    return _Conditions(
        zones,
        np.array([zones.index(when.time_zone) for when in ranges], dtype=np.intp),
        np.array([when.start_s for when in ranges], dtype=np.int64),
        np.array([when.end_s for when in ranges], dtype=np.int64),
        np.array([[day in when.days for day in DAYS] for when in ranges], dtype=np.bool_).reshape(len(ranges), 7),
        np.array(range_of, dtype=np.intp),
        np.array([r.conditions.user_tier is None for r in routes], dtype=np.bool_),
        {
            tier: np.array([tier in (r.conditions.user_tier or ()) for r in routes], dtype=np.bool_) for tier in tiers
        },
    )  # fmt: skip
