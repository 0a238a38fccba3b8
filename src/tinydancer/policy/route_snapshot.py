"""The semantic routes of a deployment as columns: what requests are compared with.

In: routes. Out: a `RoutesSnapshot`, which says how similar requests are to each route, and which conditions hold at an
instant. Immutable, and pure: no clock, no I/O. What similarity is stands in `tinydancer.policy.routes`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.policy.route_index import NearRows
from tinydancer.policy.route_rules import DAYS, Route, RouteCalibration, TimeRange, local_time
from tinydancer.snapshot import Array, Mask
from tinydancer.types import EmbeddingSpace
from tinydancer.validation import FloatVector

__all__ = [
    "DEFAULT_CALIBRATION",
    "DEFAULT_THRESHOLD",
    "DESCRIBED_CALIBRATION",
    "DESCRIBED_THRESHOLD",
    "LOWEST",
    "NO_CONTEXT",
    "REFUSED",
    "RouteContext",
    "RoutesSnapshot",
    "build_routes_snapshot",
    "index_routes",
]

DEFAULT_THRESHOLD = 0.26
DEFAULT_CALIBRATION = RouteCalibration(
    intercept=-3.1, slope=5.9, margin=10.6, none_intercept=3.2, none_slope=-16.5, none_margin=6.8
)
"""For routes with examples that nothing was fitted for: near what ``scripts/evaluate_routes.py --defaults`` gives."""
DESCRIBED_THRESHOLD = 0.0
DESCRIBED_CALIBRATION = RouteCalibration(
    intercept=-2.3, slope=4.8, margin=8.4, none_intercept=1.1, none_slope=-12.5, none_margin=7.0
)
"""For routes that only have a description: a request resembles it less than it resembles another request. The threshold
is low on purpose: a route that was given nothing but a sentence takes what is nearest to it rather than nothing."""
NEAREST_SHARE, MIDDLE_SHARE = np.float32(0.3), np.float32(0.7)
"""Of the nearest example and of the middle of all examples in the similarity."""
LOWEST = np.float32(-1.0)
REFUSED = np.float32(-2.0)
"""Stands for the similarity of a route that does not come into question; below every threshold."""
TINY = 1e-6
MOST_PRIOR = 1000
"""Routes of a higher priority than the lowest up to which an index helps: they come into question however far."""

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
        ``float64[6, N]``: intercept, slope and margin, and the same of none, see `RouteCalibration`.
    ranked
        Whether there is more than one priority.
    alike
        Whether the more similar of two routes is always the more probable one: they share one calibration that grows.
    index
        Finds what comes into question for one request among very many routes; None compares all of them.
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
    ranked: bool
    alike: bool
    index: _Index | None = None

    def __len__(self) -> int:
        return len(self.names)

    def similarity(self, queries: FloatVector) -> FloatVector:
        """Of each request to each route, ``float32[n, N]``, or of one, ``[N]``; `REFUSED` by negative examples."""
        found: FloatVector = queries @ self.examples.T
        if len(self.middles):
            found = np.maximum.reduceat(found, self.starts, axis=-1)
        refused: Mask | None = None
        if len(self.negative_of):
            against = np.maximum.reduceat(queries @ self.negatives.T, self.negative_starts, axis=-1)
            refused = found[..., self.negative_of] <= against
        if len(self.middles):
            middle = queries @ self.middles.T
            middle *= MIDDLE_SHARE
            found *= NEAREST_SHARE
            found += middle
        if refused is not None:
            found[..., self.negative_of] = np.where(refused, REFUSED, found[..., self.negative_of])
        return found

    def compared(self, query: FloatVector, now: float, context: RouteContext) -> FloatVector:
        """As `similarity`, of one request; `REFUSED` by conditions as well."""
        found = self.similarity(query)
        if (self.conditions is not None or context.exhausted) and (hold := self.eligible(now, context)) is not None:
            found[~hold] = REFUSED
        return found

    def taken(self, chosen: Indices) -> RoutesSnapshot:
        """Some of the routes, at these positions in ascending order."""
        of = chosen.tolist()
        rows, starts = _rows_of(self.starts, len(self.examples), chosen)
        negative = np.isin(self.negative_of, chosen, assume_unique=True).nonzero()[0]
        against, negative_starts = _rows_of(self.negative_starts, len(self.negatives), negative)
        return RoutesSnapshot(
            version=self.version, space=self.space, names=tuple([self.names[i] for i in of]),
            targets=tuple([self.targets[i] for i in of]), examples=self.examples[rows], starts=starts,
            middles=self.middles[chosen] if len(self.middles) else self.middles, negatives=self.negatives[against],
            negative_starts=negative_starts, negative_of=np.searchsorted(chosen, self.negative_of[negative]),
            thresholds=self.thresholds[chosen], priorities=self.priorities[chosen],
            calibrations=self.calibrations[:, chosen], limited=self.limited[chosen],
            conditions=None if self.conditions is None else self.conditions.taken(chosen), ranked=self.ranked,
            alike=self.alike,
        )  # fmt: skip

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

    def taken(self, chosen: Indices) -> _Conditions:
        return replace(
            self, range_of=self.range_of[chosen], for_everybody=self.for_everybody[chosen],
            tiers={tier: mask[chosen] for tier, mask in self.tiers.items()},
        )  # fmt: skip

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


@dataclass(frozen=True, slots=True)
class _Index:
    """Which routes the rows of the index are of: first all examples, then the middles; and those always compared."""

    rows: NearRows
    route_of: Indices
    prior: Indices

    def near(self, query: FloatVector) -> Indices:
        return np.unique(np.concatenate((self.route_of[self.rows.near(query)], self.prior)))


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
        )
        .reshape(len(ordered), 6)
        .T.copy(),
        "limited": np.array([r.conditions.rate_limit is not None for r in ordered], dtype=np.bool_),
    }
    for array in columns.values():
        array.setflags(write=False)
    return RoutesSnapshot(
        version=version, space=space, names=tuple(r.name for r in ordered),
        targets=tuple(r.target_agent for r in ordered), conditions=_conditions(ordered),
        ranked=len({r.priority for r in ordered}) > 1,
        alike=len(shared := set(calibrations)) == 1 and all(min(c.slope, c.margin) > 0.0 for c in shared), **columns,
    )  # fmt: skip


def index_routes(routes: RoutesSnapshot, previous: RoutesSnapshot | None = None) -> RoutesSnapshot:
    """The same routes, among which `route_one` finds those that come into question by an index.

    Needs usearch (`tinydancer.policy.route_index.is_available`) and takes some seconds per ten thousand vectors. What
    comes into question are the routes of the vectors, examples and middles, that are nearest to the request, and all
    routes whose priority is not the lowest one; where there are more than `MOST_PRIOR` of those, nothing is indexed.
    Similarity, conditions, confidence and order of what was found are exact; what was not found cannot be the answer.

    Parameters
    ----------
    previous
        Another state of the routes, whose index serves for the vectors that did not change.
    """
    lowest = routes.priorities.min(initial=0)
    prior = (routes.priorities > lowest).nonzero()[0] if routes.ranked else np.zeros(0, np.intp)
    if not len(routes) or len(prior) > MOST_PRIOR:
        return routes
    former = None if previous is None or previous.index is None else previous.index.rows
    counts = np.diff(routes.starts, append=len(routes.examples))
    numbers = np.arange(len(routes))
    rows, route_of = routes.examples, np.repeat(numbers, counts)
    if len(routes.middles):
        # Routes that are one vector have it twice, under one key.
        rows, route_of = np.concatenate((rows, routes.middles)), np.concatenate((route_of, numbers))
    return replace(routes, index=_Index(NearRows(rows, former), route_of, prior))


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


def _rows_of(starts: Indices, end: int, chosen: Indices) -> tuple[Indices, Indices]:
    """The rows of some of the parts that begin at `starts`, and where each begins among them."""
    counts = np.diff(starts, append=end)[chosen]
    first = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) + np.repeat(starts[chosen] - first, counts), first


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
