"""Models: FastGRNN and its file format, candidate features and scores, conformal calibration.

In: vectors and counts. Out: states, scores and intervals. Nothing here knows stores, clocks or doors; the public names
load on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinydancer.model.artifact import Artifact, load_artifact, save_artifact
    from tinydancer.model.candidates import CandidateScorer, Scores, decide_candidates, wilson_width
    from tinydancer.model.conformal import ConformalInterval, conformal_quantile
    from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
    from tinydancer.model.features import FEATURE_NAMES, FeatureConfig, FeatureEngineer, Features

__all__ = [
    "FEATURE_NAMES",
    "Artifact",
    "CandidateScorer",
    "ConformalInterval",
    "FastGRNN",
    "FastGRNNConfig",
    "FeatureConfig",
    "FeatureEngineer",
    "Features",
    "Scores",
    "conformal_quantile",
    "decide_candidates",
    "load_artifact",
    "save_artifact",
    "wilson_width",
]

_HOMES = {
    "artifact": ("Artifact", "load_artifact", "save_artifact"),
    "candidates": ("CandidateScorer", "Scores", "decide_candidates", "wilson_width"),
    "conformal": ("ConformalInterval", "conformal_quantile"),
    "fastgrnn": ("FastGRNN", "FastGRNNConfig"),
    "features": ("FEATURE_NAMES", "FeatureConfig", "FeatureEngineer", "Features"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
