"""Chooses the routes' thresholds and calibrates their confidence from labelled requests, and says how good they are.

In: embedded requests, each with the route it belongs to or none, and the routes as columns. Out: a threshold and a
calibration per route; and, for other requests, accuracy, precision, recall, misses and calibration error. Pure, and the
same input gives the same output: the split takes a seed.

Both fits are logistic regressions with one intercept for all routes and a shrunken offset for each, so that a route
with three examples leans on the others and one with three hundred stands for itself:

* the confidence, ``logit P = a + a_r + b s + c m``, on the two most similar routes of each request;
* *none of these*, ``logit P = a' + b' s + c' m`` on the most similar route;
* the threshold, where ``logit P(x is r's | r is the most similar) = a + a_r + b s`` reaches the wanted probability.

Penalised maximum likelihood, by Newton's method; the Hessian is an arrow (a diagonal for the offsets, few dense rows).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.policy.route_rules import RouteCalibration
from tinydancer.policy.route_snapshot import LOWEST, REFUSED, RoutesSnapshot
from tinydancer.policy.routes import RouteAnswers
from tinydancer.snapshot import Array, Mask
from tinydancer.validation import FloatVector

__all__ = ["FittedRoutes", "RouteFigures", "RouteReport", "fit_routes", "judge_routes", "split_requests"]

NONE = -1
"""The label of a request that belongs to no route."""
FEWEST_REQUESTS = 10
OFFSET_VARIANCE = 1.0
"""Of the routes' offsets before anything is seen of them, in squared logits."""
WEIGHT_VARIANCE = 1e4
"""Of intercept and slopes; wide, only to keep separable data finite."""
NEWTON_STEPS = 50
CALIBRATION_BINS = 10

Indices = npt.NDArray[np.intp]


class FittedRoutes(NamedTuple):
    """What was fitted, with one entry per route of the snapshot."""

    thresholds: tuple[float, ...]
    calibrations: tuple[RouteCalibration, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteFigures:
    """How one route, or *none of these*, did.

    Attributes
    ----------
    requests, answered, right
        How many requests belong to it, were sent to it, and both.
    """

    name: str | None
    requests: int
    answered: int
    right: int

    @property
    def precision(self) -> float | None:
        """Share of what was sent to it that belongs to it; None if nothing was."""
        return self.right / self.answered if self.answered else None

    @property
    def recall(self) -> float | None:
        """Share of what belongs to it that was sent to it; None if nothing does."""
        return self.right / self.requests if self.requests else None

    @property
    def misses(self) -> int:
        """What belongs to it and was sent elsewhere."""
        return self.requests - self.right

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "route_name": self.name, "requests": self.requests, "answered": self.answered, "right": self.right,
            "misses": self.misses, "precision": self.precision, "recall": self.recall,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteReport:
    """How the routes did on labelled requests.

    Attributes
    ----------
    accuracy
        Share of requests that were sent where they belong, or to none if they belong to none.
    brier
        Mean squared difference between confidence and being right, in [0, 1].
    calibration_error
        Expected calibration error over ten equal bins of confidence.
    routes
        One entry per route in order of name, and *none of these* last.
    missed
        Positions of the requests that were sent elsewhere.
    """

    requests: int
    accuracy: float
    brier: float
    calibration_error: float
    routes: tuple[RouteFigures, ...]
    missed: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without `missed`, whose texts the caller has."""
        return {
            "requests": self.requests, "accuracy": self.accuracy, "misses": len(self.missed), "brier": self.brier,
            "calibration_error": self.calibration_error, "routes": [figures.to_dict() for figures in self.routes],
        }  # fmt: skip


def split_requests(labels: Sequence[int], *, seed: int, test_share: float) -> tuple[Indices, Indices]:
    """Positions to fit on and to measure on, each in order: of every label the same share, drawn from the seed."""
    share = check.number(test_share, "test_share", low=0.1, high=0.9)
    generator = np.random.default_rng(seed)
    given = np.asarray(labels, dtype=np.intp)
    held_out = np.zeros(len(given), dtype=np.bool_)
    for label in np.unique(given).tolist():
        own = generator.permutation(np.flatnonzero(given == label))
        # One of a kind is fitted on: a figure from one request would say less than the request teaches.
        held_out[own[: round(share * len(own)) if len(own) > 1 else 0]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def fit_routes(
    queries: FloatVector, labels: Sequence[int], routes: RoutesSnapshot, *, min_confidence: float | None = None
) -> FittedRoutes:
    """Thresholds and calibrations from labelled requests.

    Parameters
    ----------
    queries
        ``float32[n, dim]``, rows of unit length.
    labels
        Position of each request's route in ``routes.names``, -1 for none of them.
    routes
        The routes; their thresholds and conditions are not looked at, their negative examples are.
    min_confidence
        None makes the fewest mistakes: a threshold is the similarity from which a request whose most similar route this
        is rather belongs to it than to none. A number in [0.01, 0.99] is the probability of belonging to it that such a
        request must have: higher ones make fewer wrong answers and more misses.

    Raises
    ------
    InvalidInputError
        Fewer than ten requests, or none that belongs to the route it resembles most.
    """
    wanted = check.optional_number(min_confidence, "min_confidence", low=0.01, high=0.99)
    own = np.asarray(labels, dtype=np.intp)
    if len(own) < FEWEST_REQUESTS or not len(routes):
        raise InvalidInputError(
            f"{len(own)} labelled requests and {len(routes)} routes are left to fit on; expected at least "
            f"{FEWEST_REQUESTS} requests and a route.",
            hint="Label some requests of each route, and some that belong to none.",
        )
    route, s, margin = _two_nearest(queries, routes)
    right, known = route == own[:, None], s > REFUSED
    if not right[:, 0].any() or right[:, 0].all():
        what = "None" if not right[:, 0].any() else "Every one"
        raise InvalidInputError(
            f"{what} of the {len(own)} labelled requests belongs to the route that it resembles most; there is no "
            "line to draw.",
            hint="Label requests of all routes, and some that belong to none of them.",
        )
    # Sent to it, a request of another route is as wrong as sent to none; such requests then have no say in the matter.
    counts = np.ones(len(own), np.bool_) if wanted is not None else right[:, 0] | (own < 0)
    counts &= known[:, 0]
    line = _logistic(s[counts, :1], route[counts, 0], right[counts, 0], len(routes))
    level = 0.0 if wanted is None else np.log(wanted / (1.0 - wanted))
    thresholds = np.clip((level - line.intercepts) / max(line.weights[0], 1e-6), -1.0, 1.0)
    features = np.stack([s[known], margin[known]], axis=1)
    second = _logistic(features, route[known], right[known], len(routes))
    examples = np.bincount(own[own >= 0], minlength=len(routes))
    slope, by_margin = second.weights.tolist()
    sure = known[:, 0]
    outside = _logistic(
        np.stack([s[sure, 0], margin[sure, 0]], axis=1), np.zeros(int(sure.sum()), np.intp), own[sure] < 0, 1
    )
    none_intercept, (none_slope, none_margin) = float(outside.intercepts[0]), outside.weights.tolist()
    calibrations = tuple(
        RouteCalibration(
            intercept=intercept, slope=slope, margin=by_margin, none_intercept=none_intercept, none_slope=none_slope,
            none_margin=none_margin, examples=number,
        )
        for intercept, number in zip(second.intercepts.tolist(), examples.tolist(), strict=True)
    )  # fmt: skip
    # Rounded, because a person reads it; what was measured is the rounded one.
    return FittedRoutes(tuple(np.round(thresholds, 4).tolist()), calibrations)


def judge_routes(labels: Sequence[int], answers: RouteAnswers) -> RouteReport:
    """How answers did against the labels, which name positions in ``answers.snapshot.names``, -1 for none."""
    own, given = np.asarray(labels, dtype=np.intp), answers.best
    right = own == given
    names = answers.snapshot.names
    figures = [
        RouteFigures(
            name=None if number == NONE else names[number], requests=int((own == number).sum()),
            answered=int((given == number).sum()), right=int((right & (own == number)).sum()),
        )
        for number in [*range(len(names)), NONE]
    ]  # fmt: skip
    sure = answers.confidence
    count = max(1, len(own))
    return RouteReport(
        requests=len(own), accuracy=float(right.sum()) / count, brier=float(((sure - right) ** 2).sum()) / count,
        calibration_error=_calibration_error(sure, right), routes=tuple(figures),
        missed=tuple(np.flatnonzero(~right).tolist()),
    )  # fmt: skip


class _Logistic(NamedTuple):
    intercepts: Array
    weights: Array


def _two_nearest(queries: FloatVector, routes: RoutesSnapshot) -> tuple[Indices, Array, Array]:
    """The two most similar routes that do not refuse a request, ``[n, 2]``: which, similarity, margin."""
    similarity = routes.similarity(queries)
    rows = np.arange(len(queries))
    nearest = similarity.argmax(axis=1)
    highest = similarity[rows, nearest]
    similarity[rows, nearest] = REFUSED
    other = similarity.argmax(axis=1)
    second = similarity[rows, other]
    # As where a request is routed: a single route has its margin to -1.
    margins = np.stack([highest - np.maximum(second, LOWEST), second - highest], axis=1).astype(np.float64)
    found = np.stack([highest, second], axis=1).astype(np.float64)
    return np.stack([nearest, other], axis=1), found, margins


def _logistic(features: Array, group: Indices, right: Mask, groups: int) -> _Logistic:
    """Penalised maximum likelihood of ``logit P = beta . (1, features) + offset[group]``."""
    x = np.column_stack([np.ones(len(features)), features])
    y = right.astype(np.float64)
    beta, offset = np.zeros(x.shape[1]), np.zeros(groups)
    for _ in range(NEWTON_STEPS):
        p = 0.5 * np.tanh(0.5 * (x @ beta + offset[group])) + 0.5
        weight = np.maximum(p * (1.0 - p), 1e-9)
        up = x.T @ (y - p) - beta / WEIGHT_VARIANCE
        up_offset = np.bincount(group, y - p, groups) - offset / OFFSET_VARIANCE
        dense = (x * weight[:, None]).T @ x + np.eye(len(beta)) / WEIGHT_VARIANCE
        arm = np.stack([np.bincount(group, weight * column, groups) for column in x.T], axis=1)
        diagonal = np.bincount(group, weight, groups) + 1.0 / OFFSET_VARIANCE
        step = np.linalg.solve(dense - arm.T @ (arm / diagonal[:, None]), up - arm.T @ (up_offset / diagonal))
        step_offset = (up_offset - arm @ step) / diagonal
        # Newton's full step may overshoot where data are almost separable.
        scale = min(1.0, 10.0 / max(np.abs(step).max(), np.abs(step_offset).max(), 1e-12))
        beta, offset = beta + scale * step, offset + scale * step_offset
        if np.abs(step).max() < 1e-9 and np.abs(step_offset).max() < 1e-9:
            break
    return _Logistic(beta[0] + offset, beta[1:])


def _calibration_error(sure: Array, right: Mask) -> float:
    bins = np.minimum((sure * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    apart = np.bincount(bins, sure - right, CALIBRATION_BINS)
    return float(np.abs(apart).sum() / max(1, len(sure)))
