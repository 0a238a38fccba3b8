"""What else was tried for the quality model: other sizes, penalties and targets, on the folds of ``make eval``.

In: the pool of all data sets. Out: one row of figures per variant, from a seed. Its caller is ``evaluate.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from quality_experiments import Pool, Tell, by_requests, by_tasks, not_like, pair_curve
from tinydancer.evaluation import metrics
from tinydancer.evaluation.ground import lay_ground
from tinydancer.evaluation.regression import fit_logistic
from tinydancer.model.quality_training import QualityTrainingConfig, cross_fit

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

WIDTH = 20.0
"""What vectors of unit length are multiplied with, so that a dimension weighs like a standardised fact of the text."""
L2 = 1000.0
WEAK = {"penalty_embedding": 20.0, "penalty_agent": 2.0, "penalty_surface": 1.0, "task_share": 0.0}

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "as shipped": {},
    "no offsets of the data sets": {"penalty_source": 1e9},
    "no task means in the target": {"task_share": 0.0},
    "task means are 85% of the target": {"task_share": 0.85},
    "weak penalties, no task means": WEAK,
    "all penalties × 3": {"strengths": (3.0,)},
    "agents alike (penalty on their own part × 10)": {"penalty_agent": 300.0},
    "agents on their own (penalty × 0.1)": {"penalty_agent": 3.0},
    "k = 16": {"hidden_dim": 16},
    "k = 128": {"hidden_dim": 128},
    "one network of 64": {"members": 1},
    "two networks of 32": {"members": 2},
    "a tenth of the inputs dropped at each step": {"dropout": 0.1},
    "two networks of 32, a tenth dropped, agents alike × 3 (as before)": {
        "members": 2, "dropout": 0.1, "penalty_agent": 100.0,
    },
}  # fmt: skip


def tried(pooled: Pool, seed: int, tell: Tell) -> Iterator[dict[str, Any]]:
    """Figures of every variant; APGR, the quality routed on open7, cost and area on routerbench."""
    requests, tasks = by_requests(pooled, seed), by_tasks(pooled, "mmlu", seed)

    def row(name: str, predict: Callable[[Ints], Floats]) -> dict[str, Any]:
        tell(name)
        quality, unseen = predict(requests), predict(tasks)
        return {
            "variant": name,
            "seed": seed,
            "mmlu": _apgr(pooled, quality, requests, "mmlu"),
            "unseen": _apgr(pooled, unseen, tasks, "mmlu"),
            "gsm8k": _apgr(pooled, quality, requests, "gsm8k"),
            **_costs(pooled, quality, requests),
            "open7": _routed(pooled, quality, "open7"),
        }

    for name, changes in VARIANTS.items():
        yield row(name, partial(_network, pooled, replace(QualityTrainingConfig(seed=seed), **changes)))
    for name, sees_facts in (("logistic regression per agent", False), ("the same with facts of the text", True)):
        yield row(name, partial(_regression, pooled, sees_facts))


def _splits(pooled: Pool, fold: Ints) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    tests = [np.flatnonzero(fold == number) for number in range(int(fold.max()) + 1)]
    return [(not_like(pooled, test), test) for test in tests]


def _network(pooled: Pool, config: QualityTrainingConfig, fold: Ints) -> Floats:
    logits = cross_fit(pooled.data, config, _splits(pooled, fold), strength=config.strengths[0])
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def _regression(pooled: Pool, sees_facts: bool, fold: Ints) -> Floats:
    data = pooled.data
    said = np.full(data.quality.shape, np.nan)
    for train, test in _splits(pooled, fold):
        inputs = WIDTH * data.embeddings[0]
        if sees_facts:
            mean, scale = data.surface[train].mean(axis=0), data.surface[train].std(axis=0) + np.float32(1e-3)
            inputs = np.concatenate([inputs, np.clip((data.surface - mean) / scale, -4.0, 4.0)], axis=1)
        (fit,) = fit_logistic(inputs[train], data.quality[train].astype(np.float64), (L2,))
        said[test] = fit.predict(inputs[test])
    return said


def _of(pooled: Pool, said: Floats, name: str) -> tuple[Floats, Floats]:
    """Predicted and observed quality of a data set's agents."""
    table = pooled.alone(name)
    columns = np.array([pooled.table.agents.index(agent) for agent in table.agents], np.int64)
    return said[np.ix_(pooled.rows(name), columns)], table.quality.astype(np.float64)


def _apgr(pooled: Pool, said: Floats, fold: Ints, name: str) -> float:
    predicted, quality = _of(pooled, said, name)
    weak, strong = np.argsort(quality.mean(axis=0)).tolist()
    gain = predicted[:, strong] - predicted[:, weak]
    return pair_curve(gain, fold[pooled.rows(name)], quality[:, weak], quality[:, strong], 0, 2)[0]


def _routed(pooled: Pool, said: Floats, name: str) -> float:
    routed = metrics.Routed(*_of(pooled, said, name), None)
    return float(routed.at(metrics.ones(len(pooled.rows(name))))["routed_quality"][0])


def _costs(pooled: Pool, said: Floats, fold: Ints) -> dict[str, float]:
    predicted, quality = _of(pooled, said, "routerbench")
    ground = lay_ground(pooled.alone("routerbench"), fold[pooled.rows("routerbench")], None, None, [])
    assert ground.cost_usd is not None
    assert ground.estimated_cost_usd is not None
    assert ground.cheapest is not None
    curve = metrics.CostCurve(
        predicted, ground.estimated_cost_usd, quality, ground.cost_usd, ground.best, ground.cheapest
    )
    found = curve.at(metrics.ones(len(quality)))
    return {name: float(found[name][0]) for name in ("relative_cost_at_95", "area")}
