"""Evaluation: what a model is worth on recorded outcomes, against plain baselines, with bootstrap bands and plots.

In: tables, vectors, predicted quality. Out: an `Evaluation`, as JSON, as plots, as a page. `metrics` holds the
measures, `baselines` what a router has to beat, `judge` puts both together, `plots` and `page` show it.
"""

from __future__ import annotations

from tinydancer.evaluation.judge import STAGES, Predictions, TrainingRows, evaluate
from tinydancer.evaluation.results import MEASURES, Curve, Evaluation, Way

__all__ = ["MEASURES", "STAGES", "Curve", "Evaluation", "Predictions", "TrainingRows", "Way", "evaluate"]
