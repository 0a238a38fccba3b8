"""Split conformal prediction: intervals whose coverage is a theorem, not a hope.

In: how far a model was off on calibration data it did not learn from. Out: a half-width such that, on exchangeable
data, the truth lies within it of the prediction with at least the chosen probability. This is where ``uncertainty``
comes from once a model is calibrated.

Papers: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005); the finite-sample rank is
equation 1 of Angelopoulos and Bates, arXiv 2107.07511.
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

__all__ = ["ConformalInterval", "conformal_quantile"]

FloatArray = npt.NDArray[np.float64]

_COVERAGE_LOW, _COVERAGE_HIGH = 1e-6, 1.0 - 1e-6


def conformal_quantile(residuals: npt.ArrayLike, coverage: float) -> float:
    """The smallest half-width that covers with probability `coverage`: the ceil((n + 1) coverage)-th residual.

    Parameters
    ----------
    residuals
        Shape (n,): |truth - prediction| on calibration data that the model was not fitted to; at least 0.
    coverage
        Wanted probability that the truth lies inside, in (0, 1).

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
    probability exactly k / (n + 1).
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
    rank = math.ceil((values.size + 1) * coverage - 1e-9)
    if rank > values.size:
        return math.inf
    return float(np.partition(values, rank - 1)[rank - 1])


@dataclass(frozen=True, slots=True)
class ConformalInterval:
    """Intervals of one half-width around predictions of a probability or rate, cut to [0, 1].

    Parameters
    ----------
    quantile
        Half-width, as `conformal_quantile` gives it; infinite means that nothing is promised short of [0, 1].
    coverage
        The probability it was chosen for, in (0, 1).
    n
        Number of calibration residuals behind it.
    """

    quantile: float
    coverage: float
    n: int

    def __post_init__(self) -> None:
        put = object.__setattr__
        if self.quantile != math.inf:
            put(self, "quantile", check.number(self.quantile, "quantile", low=0.0))
        put(self, "coverage", check.number(self.coverage, "coverage", low=_COVERAGE_LOW, high=_COVERAGE_HIGH))
        put(self, "n", check.count(self.n, "n"))

    @classmethod
    def from_residuals(cls, residuals: npt.ArrayLike, coverage: float) -> ConformalInterval:
        """Calibrate on residuals; see `conformal_quantile` for what they are and what is refused."""
        return cls(conformal_quantile(residuals, coverage), coverage, int(np.size(np.asarray(residuals))))

    def interval(self, prediction: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends around predictions in [0, 1], each of the shape of `prediction`."""
        center = np.asarray(prediction, dtype=np.float64)
        return np.clip(center - self.quantile, 0.0, 1.0), np.clip(center + self.quantile, 0.0, 1.0)

    def width(self, prediction: npt.ArrayLike) -> FloatArray:
        """Upper less lower end, in [0, 1], of the shape of `prediction`."""
        low, high = self.interval(prediction)
        return np.asarray(high - low)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for a model file's metadata; an infinite half-width is None."""
        quantile = None if math.isinf(self.quantile) else self.quantile
        return {"quantile": quantile, "coverage": self.coverage, "n": self.n}

    @classmethod
    def from_dict(cls, given: Any) -> ConformalInterval:
        """What `to_dict` wrote."""
        if not isinstance(given, Mapping) or not {"quantile", "coverage", "n"} <= given.keys():
            raise InvalidInputError(
                f"The calibration is {check.shown(given)}; expected an object with quantile, coverage and n."
            )
        quantile = math.inf if given["quantile"] is None else given["quantile"]
        return cls(quantile, given["coverage"], given["n"])
