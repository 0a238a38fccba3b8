"""Scores candidates, says how sure it is, and decides which may be served by the lightweight model.

In: the features of candidates and how often each was used. Out: a confidence and an uncertainty per candidate, both in
[0, 1], and who said so. With trained weights, a FastGRNN of five inputs, one output scores. Without, the documented
fallback does: a logistic function of the weighted features, which rises with each of them. An untrained network never
decides anything.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer.errors import ArtifactError, InvalidInputError, ModelError
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.fastgrnn import FastGRNN
from tinydancer.model.features import FEATURE_NAMES, SUCCESS_RATE
from tinydancer.validation import FloatVector

__all__ = ["FALLBACK", "CandidateScorer", "Scores", "decide_candidates", "wilson_width"]

FALLBACK = "fallback"
"""What the field ``model`` says where no trained weights scored."""
FALLBACK_SLOPE = 10.0
FALLBACK_MIDPOINT = 0.65
"""The fallback's confidence is ``logistic(slope x (combined score - midpoint))``. With the default weights an
unrelated candidate that is otherwise perfect stays below 0.75, and 0.85 takes a combined score of 0.824: a fresh
candidate with 100 uses, 98% of them successful, passes it from a cosine of about 0.65."""

_Z_90 = 1.6448536269514722  # the normal distribution's 95th percentile: two sides of 5% leave 90%
_STEPS = 1e6  # confidences are whole millionths

FloatArray = npt.NDArray[np.float64]


class Scores(NamedTuple):
    """What a scorer says of n candidates.

    Attributes
    ----------
    confidence
        ``float64[n]`` in [0, 1], to six decimals, so that equal candidates tie whatever their place in a batch.
    uncertainty
        ``float64[n]`` in [0, 1]: the width of an interval of 90% (Wilson) or of the calibrated coverage (conformal).
    """

    confidence: FloatArray
    uncertainty: FloatArray


@dataclass(frozen=True, slots=True)
class CandidateScorer:
    """Trained weights with their calibration, or neither: an immutable bundle that is swapped as one.

    Parameters
    ----------
    model
        A FastGRNN from the five features (in [0, 1], before any weight) to one score; None scores by the fallback.
    calibration
        Conformal interval of the scores; None takes the Wilson interval of each candidate's success rate.

    Raises
    ------
    ModelError
        The network has other inputs or outputs.
    """

    model: FastGRNN | None = None
    calibration: ConformalInterval | None = None

    def __post_init__(self) -> None:
        if self.model is None:
            return
        config = self.model.config
        if (config.input_dim, config.output_dim) != (len(FEATURE_NAMES), 1):
            raise ModelError(
                f"The network has {config.input_dim} inputs and {config.output_dim or 'no'} outputs; a candidate "
                f"scorer has {len(FEATURE_NAMES)} ({', '.join(FEATURE_NAMES)}) and 1.",
                hint="Train it with FastGRNNConfig(input_dim=5, output_dim=1).",
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CandidateScorer:
        """Weights from a model file, and the calibration under ``calibration`` in its metadata where there is one.

        Raises
        ------
        NotFoundError
            There is no such file.
        ArtifactError
            The file is damaged, of another kind, of other shapes, or its calibration makes no sense.
        """
        model = FastGRNN.load(path)
        calibration = model.metadata.get("calibration")
        try:
            return cls(model, None if calibration is None else ConformalInterval.from_dict(calibration))
        except (ModelError, InvalidInputError) as error:
            raise ArtifactError(
                f"{os.fspath(path)!r} is no usable candidate scorer: {error.message}", hint=error.hint
            ) from None

    @property
    def name(self) -> str:
        """Which weights score: ``fastgrnn:`` and the start of their file's hash, or ``fallback``."""
        if self.model is None:
            return FALLBACK
        return f"fastgrnn:{self.model.sha256[:12] if self.model.sha256 else 'unsaved'}"

    def score(self, features: FloatVector, access_count: npt.ArrayLike, weights: FloatVector) -> Scores:
        """Confidence and uncertainty of n candidates.

        Parameters
        ----------
        features
            ``float32[n, 5]``, as `FeatureEngineer.extract_batch` gives them.
        access_count
            Shape (n,): how often each candidate was used.
        weights
            ``float32[5]``: used by the fallback; trained weights have their own.

        Raises
        ------
        ModelError
            The network's output is not finite: it is broken, whatever the input.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            if self.model is None:
                combined = np.einsum("ij,j->i", features, weights, dtype=np.float64)
                raw = 1.0 / (1.0 + np.exp(-FALLBACK_SLOPE * (combined - FALLBACK_MIDPOINT)))
            else:
                raw = self.model.forward_batch(features)[:, 0].astype(np.float64)
        if not np.isfinite(raw).all():
            raise ModelError(
                f"The candidate model {self.name} gave a score that is not finite.", hint="Train or load it again."
            )
        confidence = np.rint(raw * _STEPS) / _STEPS
        if self.calibration is not None:
            return Scores(confidence, self.calibration.width(confidence))
        return Scores(confidence, wilson_width(features[:, SUCCESS_RATE], access_count))


def wilson_width(success_rate: npt.ArrayLike, n: npt.ArrayLike) -> FloatArray:
    """Width of the 90% Wilson score interval of a rate seen n times, in (0, 1]; 1 where n is 0.

    Parameters
    ----------
    success_rate
        Observed share, in [0, 1].
    n
        Number of observations behind it, at least 0; of a shape that goes with `success_rate`.

    Notes
    -----
    Wilson (1927): the ends are ``(p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)``. Multiplied
    through by n, the width needs no special case at n = 0.
    """
    p = np.asarray(success_rate, dtype=np.float64)
    count = np.asarray(n, dtype=np.float64)
    square = _Z_90 * _Z_90
    return np.asarray(2.0 * _Z_90 * np.sqrt(count * p * (1.0 - p) + square / 4.0) / (count + square))


def decide_candidates(
    confidence: npt.ArrayLike, uncertainty: npt.ArrayLike, *, confidence_threshold: float, max_uncertainty: float
) -> npt.NDArray[np.bool_]:
    """Which candidates the lightweight model may serve: sure enough, and surely so.

    Parameters
    ----------
    confidence, uncertainty
        Shape (n,), in [0, 1].
    confidence_threshold
        Lowest confidence that passes, itself included.
    max_uncertainty
        Highest uncertainty that passes, itself included.

    Returns
    -------
    bool[n]
    """
    return np.asarray(
        (np.asarray(confidence) >= confidence_threshold) & (np.asarray(uncertainty) <= max_uncertainty), dtype=np.bool_
    )
