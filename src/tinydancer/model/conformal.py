"""Split conformal prediction: intervals whose coverage is a theorem, not a hope.

In: how far a model was off on calibration data it did not learn from. Out: intervals such that, on exchangeable data,
the truth lies in the prediction's interval with at least the chosen probability: of one half-width for all, or wider
where the prediction itself says that chance decides. This is where ``uncertainty`` comes from once a model is
calibrated. What is promised and what is not: ``docs/explanation/guarantees.md``.

Papers: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005); the finite-sample rank is
equation 1 of Angelopoulos and Bates, arXiv 2107.07511; errors divided by a scale are Papadopoulos, Gammerman and Vovk,
"Normalized nonconformity measures for regression conformal prediction" (2008).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError

__all__ = ["SCALE_FLOOR", "ConformalInterval", "conformal_quantile"]

FloatArray = npt.NDArray[np.float64]

SCALE_FLOOR = 0.1
"""What is added to the standard deviation sqrt(p (1 - p)) of a yes or no: a prediction near 0 or 1 is no certainty.

Smaller makes confident predictions narrower and leaves graded outcomes near the ends uncovered more often, larger
comes ever nearer to one half-width for all; docs/explanation/guarantees.md has the experiment.
"""

_COVERAGE_LOW, _COVERAGE_HIGH = 1e-6, 1.0 - 1e-6
_ROUNDING = 1e-12
"""An end computed from the very residual that set the quantile must not miss its outcome by a rounding error."""


def conformal_quantile(residuals: npt.ArrayLike, coverage: float, *, per_request: int = 1) -> float:
    """The smallest half-width that covers with probability `coverage`: the ceil((n + 1) coverage)-th residual.

    Parameters
    ----------
    residuals
        Shape (n,): |truth - prediction| on calibration data that the model was not fitted to; at least 0.
    coverage
        Wanted probability that the truth lies inside, in (0, 1).
    per_request
        The most residuals that one request brings, one for each agent that answered it; residuals of one request
        depend on each other, and the rank becomes ceil((n + per_request) coverage).

    Returns
    -------
    float
        Infinite where n is too small to promise anything: (n + 1) coverage > n, so fewer than 9 residuals for 0.9.

    Raises
    ------
    InvalidInputError
        Residuals that are negative, not finite or not one-dimensional, or a coverage outside (0, 1).

    Notes
    -----
    If the n residuals and the next one are exchangeable and without ties, the next is at most the k-th smallest with
    probability exactly k / (n + 1). With several residuals a request, let K be the k-th smallest of the residuals of
    all requests, the next one's included: k of them are at most K, an equal share of which is the next request's by
    symmetry, and K is at most the k-th smallest of the calibration residuals alone. So a residual drawn from the next
    request's is covered with probability at least k / (n + its own number of residuals).
    """
    coverage = check.number(coverage, "coverage", low=_COVERAGE_LOW, high=_COVERAGE_HIGH)
    try:
        values = np.asarray(residuals, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(f"residuals is {check.shown(residuals)}; expected a list of numbers.") from None
    if values.ndim != 1:
        raise InvalidInputError(f"residuals has shape {values.shape}; expected one dimension.")
    if not np.all((values >= 0.0) & (values < math.inf)):
        raise InvalidInputError("residuals holds negative or non-finite numbers; expected |truth - prediction|.")
    # The subtraction forgives the float product: 100 x 0.55 is 55.00000000000001, and a rank of 56 would be wrong.
    rank = math.ceil((values.size + per_request) * coverage - 1e-9)
    if rank > values.size:
        return math.inf
    return float(np.partition(values, rank - 1)[rank - 1])


@dataclass(frozen=True, slots=True)
class ConformalInterval:
    """Intervals around predictions p of a probability or rate, cut to [0, 1].

    Their half-width is ``quantile`` for all (`scale_floor` None), or ``quantile * s(p)`` with
    ``s(p) = sqrt(p (1 - p)) + scale_floor``.

    Parameters
    ----------
    quantile
        Half-width, or half-width per scale, as `conformal_quantile` gives it; infinite means that nothing is promised
        short of [0, 1].
    coverage
        The probability it was chosen for, in (0, 1).
    n
        Number of calibration residuals behind it.
    scale_floor
        None, or above 0.
    """

    quantile: float
    coverage: float
    n: int
    scale_floor: float | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        if self.quantile != math.inf:
            put(self, "quantile", check.number(self.quantile, "quantile", low=0.0))
        put(self, "coverage", check.number(self.coverage, "coverage", low=_COVERAGE_LOW, high=_COVERAGE_HIGH))
        put(self, "n", check.count(self.n, "n"))
        put(self, "scale_floor", check.optional_number(self.scale_floor, "scale_floor", low=1e-6, high=1e6))

    @classmethod
    def from_residuals(cls, residuals: npt.ArrayLike, coverage: float) -> ConformalInterval:
        """One half-width, from residuals; see `conformal_quantile` for what they are and what is refused."""
        return cls(conformal_quantile(residuals, coverage), coverage, int(np.size(np.asarray(residuals))))

    @classmethod
    def from_outcomes(
        cls, predicted: npt.ArrayLike, observed: npt.ArrayLike, coverage: float, *, scale_floor: float = SCALE_FLOOR
    ) -> ConformalInterval:
        """Widths by prediction, from predictions and what came of them.

        Parameters
        ----------
        predicted
            Shape (n,), one agent's answer per request, or (n, N), several; in [0, 1], by a model that did not learn
            from these outcomes.
        observed
            The same shape; in [0, 1], NaN where there is no outcome.
        coverage
            Wanted probability that the outcome lies inside, in (0, 1). With several agents it holds on average over
            them, not for each, and not for the one that a router picks *because* its prediction is high: calibrate on
            the answers that were picked for that.
        scale_floor
            See `SCALE_FLOOR`.

        Raises
        ------
        InvalidInputError
            Shapes that differ or have no or more than two dimensions, or numbers outside [0, 1].
        """
        center, truth = np.asarray(predicted, dtype=np.float64), np.asarray(observed, dtype=np.float64)
        if center.shape != truth.shape or center.ndim not in (1, 2):
            raise InvalidInputError(
                f"predicted has shape {center.shape} and observed {truth.shape}; expected both (n,) or (n, agents)."
            )
        if not np.all((center >= 0.0) & (center <= 1.0)):
            raise InvalidInputError("predicted holds numbers outside [0, 1] or NaN; expected expected qualities.")
        if np.any((truth < 0.0) | (truth > 1.0)):
            raise InvalidInputError("observed holds numbers outside [0, 1]; expected qualities, NaN where unknown.")
        scores = (np.abs(truth - center) / _scale(center, scale_floor))[~np.isnan(truth)]
        per_request = 1 if center.ndim == 1 else center.shape[1]
        quantile = conformal_quantile(scores, coverage, per_request=per_request)
        return cls(quantile, coverage, scores.size, scale_floor)

    def interval(self, prediction: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends around predictions in [0, 1], each of the shape of `prediction`."""
        center = np.asarray(prediction, dtype=np.float64)
        half = self.quantile if self.scale_floor is None else self.quantile * _scale(center, self.scale_floor)
        half = half + _ROUNDING
        return np.clip(center - half, 0.0, 1.0), np.clip(center + half, 0.0, 1.0)

    def width(self, prediction: npt.ArrayLike) -> FloatArray:
        """Upper less lower end, in [0, 1], of the shape of `prediction`."""
        low, high = self.interval(prediction)
        return np.asarray(high - low)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for a model file's metadata; an infinite half-width is None."""
        quantile = None if math.isinf(self.quantile) else self.quantile
        plain = {"quantile": quantile, "coverage": self.coverage, "n": self.n}
        return plain if self.scale_floor is None else {**plain, "scale_floor": self.scale_floor}

    @classmethod
    def from_dict(cls, given: Any) -> ConformalInterval:
        """What `to_dict` wrote, or wrote before there were scales."""
        if not isinstance(given, Mapping) or not {"quantile", "coverage", "n"} <= given.keys():
            raise InvalidInputError(
                f"The calibration is {check.shown(given)}; expected an object with quantile, coverage and n."
            )
        quantile = math.inf if given["quantile"] is None else given["quantile"]
        return cls(quantile, given["coverage"], given["n"], given.get("scale_floor"))


def _scale(prediction: FloatArray, floor: float) -> FloatArray:
    """The standard deviation of a yes or no of that probability, and `floor`."""
    inside = np.clip(prediction, 0.0, 1.0)
    return np.asarray(np.sqrt(inside * (1.0 - inside)) + floor)
