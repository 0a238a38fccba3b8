"""What an evaluation found: plain values, ready for JSON, for a terminal and for plots.

In: what `tinydancer.evaluation.judge` measured. Out: `Evaluation`, one `Way` of choosing for the model and one for each
baseline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MEASURES", "Curve", "Evaluation", "Way"]

Floats = npt.NDArray[np.float64]
Band = tuple[float, float]

MEASURES = (
    "apgr", "cpt50", "cpt80", "cpt95", "relative_cost_at_90", "relative_cost_at_95", "relative_cost_at_98",
    "relative_cost_at_100", "area", "routed_quality", "routed_relative_cost", "ece", "brier", "coverage",
)  # fmt: skip
"""What is measured of a way of choosing; not every one applies to every way and table."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Mean quality over a grid, with its bootstrap band.

    Attributes
    ----------
    at
        ``float64[m]``: shares of strong calls, or costs as shares of the best single agent's.
    quality, low, high
        ``float64[m]``; NaN where the curve has no point.
    """

    at: Floats
    quality: Floats
    low: Floats
    high: Floats

    def to_dict(self) -> dict[str, list[float | None]]:
        """Lists of equal length; None for NaN."""
        columns = {"at": self.at, "quality": self.quality, "low": self.low, "high": self.high}
        return {name: [_number(v) for v in values.tolist()] for name, values in columns.items()}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Way:
    """One way of choosing agents, and what it is worth.

    Attributes
    ----------
    name
        As reports call it.
    kind
        ``model``, ``baseline``, ``single`` (always one agent) or ``oracle``.
    values
        Measure to value; None where it does not apply.
    bands
        Measure to the bootstrap interval; None where there is none.
    ahead
        Measure to (model minus this way, low, high), paired over the resamples; empty for the model itself.
    cost_curve, pair_curve
        Quality against relative cost, and against the share of calls to the strong agent; None where not applicable.
    reliability
        Mean predicted, mean observed and number of pairs per bin; empty where nothing was predicted.
    shares
        Agent to the share of requests it is chosen for when quality alone counts.
    """

    name: str
    kind: str
    values: dict[str, float | None]
    bands: dict[str, Band | None]
    ahead: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    cost_curve: Curve | None = None
    pair_curve: Curve | None = None
    reliability: tuple[tuple[float, float, int], ...] = ()
    shares: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        curves = {"cost": self.cost_curve, "pair": self.pair_curve}
        return {
            "kind": self.kind,
            **{measure: self.values.get(measure) for measure in MEASURES},
            "intervals": {name: None if band is None else list(band) for name, band in self.bands.items()},
            "model_minus_this": {name: list(numbers) for name, numbers in self.ahead.items()},
            "shares": self.shares,
            "reliability": [
                {"predicted": said, "observed": seen, "pairs": pairs} for said, seen, pairs in self.reliability
            ],
            "curves": {name: None if curve is None else curve.to_dict() for name, curve in curves.items()},
        }


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Evaluation:
    """The whole result.

    Attributes
    ----------
    agents
        All agents of the table.
    requests
        How many were evaluated.
    outcomes
        How many pairs of request and agent have an outcome.
    model_name, model_sha256
        Which weights; None if only baselines were evaluated.
    pair
        Weak and strong agent of the pair measures, or None.
    best_single, cheapest
        The agent with the highest mean quality, and the one with the lowest mean cost (None without costs).
    best_single_quality, oracle_quality
        Mean quality of always the best agent, and of the best agent of each request.
    ways
        The model first, if there is one; then baselines, single agents and the oracle.
    baselines_trained_on
        ``by 5-fold cross-validation ...`` or ``on 1,200 requests ...``.
    seed, resamples
        Of the folds and the bootstrap, and how many resamples the bands come from.
    warnings
        Sentences on what may mislead.
    text_to_decision_us_p50
        Median µs from a text to a decision; None if it was not measured.
    """

    agents: tuple[str, ...]
    requests: int
    outcomes: int
    model_name: str | None
    model_sha256: str | None
    pair: tuple[str, str] | None
    best_single: str
    cheapest: str | None
    best_single_quality: float
    oracle_quality: float
    single_bands: dict[str, Band | None]
    ways: tuple[Way, ...]
    baselines_trained_on: str
    seed: int
    resamples: int
    warnings: tuple[str, ...]
    text_to_decision_us_p50: float | None = None

    @property
    def model(self) -> Way | None:
        """The model's way, or None."""
        return next((way for way in self.ways if way.kind == "model"), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the model's measures on top, null where they do not apply, and every other way below."""
        model = self.model
        values = model.values if model else {}
        bands = {**(model.bands if model else {}), **self.single_bands}
        return {
            "agents": list(self.agents),
            "requests": self.requests,
            "outcomes": self.outcomes,
            "model": None if self.model_name is None else {"name": self.model_name, "sha256": self.model_sha256},
            "pair": None if self.pair is None else {"weak": self.pair[0], "strong": self.pair[1]},
            "best_single": self.best_single,
            "cheapest": self.cheapest,
            **{measure: values.get(measure) for measure in MEASURES},
            "best_single_quality": self.best_single_quality,
            "oracle_quality": self.oracle_quality,
            "text_to_decision_us_p50": self.text_to_decision_us_p50,
            "intervals": {name: None if band is None else list(band) for name, band in bands.items()},
            "reliability": model.to_dict()["reliability"] if model else [],
            "curves": model.to_dict()["curves"] if model else {"cost": None, "pair": None},
            "shares": model.shares if model else {},
            "baselines": {way.name: way.to_dict() for way in self.ways if way.kind != "model"},
            "baselines_trained_on": self.baselines_trained_on,
            "seed": self.seed,
            "bootstrap": self.resamples,
            "warnings": list(self.warnings),
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
