"""One evaluation: a model's predictions and every baseline, measured on the same requests and the same resamples.

In: a table of outcomes, the requests' vectors, predicted quality. Out: an `Evaluation`. No model is loaded and no text
embedded here: whoever calls brings vectors and predictions, so that any model, or none, can be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer.errors import InvalidInputError
from tinydancer.evaluation import metrics
from tinydancer.evaluation.baselines import BASELINES, FOLDS, Sample, cross_validated, folds_of, groups_of
from tinydancer.evaluation.ground import Ground, lay_ground
from tinydancer.evaluation.results import MEASURES, Curve, Evaluation, Way
from tinydancer.tables import OutcomeTable

__all__ = ["STAGES", "Predictions", "TrainingRows", "evaluate"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

STAGES = 2 * len(BASELINES) + 2
"""How often `evaluate` reports progress, each time with the number of requests."""
_CONSTANT = frozenset({"random", "best single"})
"""Baselines that do not look at the request: no operating point of theirs lies between the agents."""
_CELLS_AT_ONCE = 2_000_000
_SHARE_GRID = np.linspace(0.0, 1.0, 101)
_COST_POINTS = 80


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Predictions:
    """What a model says about the table's requests.

    Attributes
    ----------
    quality
        ``float64[n, N]`` in [0, 1], columns as in the table.
    name, sha256
        Which weights.
    folds
        ``int64[n]`` if each fold was predicted by a fit of its own (cross-validation): then requests are ranked
        inside their fold where ranks count. None if one fit predicted everything.
    low, high
        ``float64[n, N]``: the model's interval for the quality, or None.
    cost_factors
        ``float64[n, N]`` above 0: what the model expects a request to cost, as a share of what the agent usually costs;
        None where it has no opinion.
    """

    quality: Floats
    name: str
    sha256: str | None = None
    folds: Ints | None = None
    low: Floats | None = None
    high: Floats | None = None
    cost_factors: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRows:
    """What baselines learn from when that is not the evaluated table itself; vectors ``float32[m, dim]``."""

    table: OutcomeTable
    embeddings: Vectors


def evaluate(
    table: OutcomeTable,
    embeddings: Vectors,
    predictions: Predictions | None = None,
    *,
    training: TrainingRows | None = None,
    pair: tuple[str, str] | None = None,
    seed: int = 0,
    resamples: int = 200,
    groups: Ints | None = None,
    warnings: tuple[str, ...] = (),
    text_to_decision_us_p50: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure a model and the baselines.

    Parameters
    ----------
    table
        What is evaluated on; its agents are the columns of everything.
    embeddings
        ``float32[n, dim]``, for the baselines.
    predictions
        The model's; None measures baselines only.
    training
        Rows for the baselines and for estimated costs; by default both come from the other folds of `table`.
    pair
        Names of the weak and the strong agent; by default the two agents of a table that has two.
    seed, resamples
        Of folds and bootstrap; how many resamples make a band.
    groups
        ``int64[n]``: requests with the same number are never split among folds; by default those with the same text.
        The number of the task, say, measures how well baselines do on tasks they have never seen.
    warnings
        Put before what is found here.
    text_to_decision_us_p50
        Passed on to the result.
    progress
        Called `STAGES` times with the number of requests.

    Raises
    ------
    NotFoundError
        The pair names an agent without outcomes in the table.
    InvalidInputError
        The table has no two different requests, or the shapes do not fit.
    """
    n = len(table)
    _check_shapes(table, embeddings, predictions)
    notes = [*warnings, *table.warnings]
    together = groups_of(table.texts) if groups is None else groups
    sample = Sample(embeddings, table.quality.astype(np.float64), together, table.tasks)
    different = len(np.unique(together))
    if different < 2:
        raise InvalidInputError(
            f"The table has {different} different request; expected at least two.", hint="Evaluate on more requests."
        )
    train = None if training is None else _training_sample(table, training, notes)
    folds = folds_of(sample.groups, min(FOLDS, different), seed)
    ground = lay_ground(table, folds, training.table if training else None, pair, notes)
    judge = _Judge(ground, metrics.resamples(n, resamples, seed))

    def judged() -> Iterator[_Judged]:
        if predictions is not None:
            yield judge.predicting(predictions, "model")
        for name, baseline in BASELINES.items():
            if name == "per-task mean" and (table.tasks is None or (train is not None and train.tasks is None)):
                continue
            fitted = cross_validated(baseline, sample, folds, seed) if train is None else baseline(train, sample, seed)
            tell(n)
            yield judge.predicting(
                Predictions(quality=fitted, name=name, folds=folds if train is None else None), "baseline"
            )
        for column in range(len(table.agents)):
            yield judge.always(column)
        perfect = Predictions(quality=np.nan_to_num(ground.quality), name="oracle")
        yield judge.predicting(perfect, "oracle")

    tell = progress or _no_progress
    everyone = []
    for one in judged():
        everyone.append(one)
        if one.way.kind != "single":
            tell(n)
    first = everyone[0] if predictions is not None else None
    ways = tuple(one.way if first is None or one is first else _compared(one, first) for one in everyone)
    always_best = next(way for way in ways if way.name == _always(ground.agents[ground.best]))
    return Evaluation(
        agents=table.agents,
        requests=n,
        outcomes=int(np.count_nonzero(~np.isnan(table.quality))),
        model_name=None if predictions is None else predictions.name,
        model_sha256=None if predictions is None else predictions.sha256,
        pair=None if ground.pair is None else (ground.agents[ground.pair[0]], ground.agents[ground.pair[1]]),
        best_single=ground.agents[ground.best],
        cheapest=None if ground.cheapest is None else ground.agents[ground.cheapest],
        best_single_quality=always_best.values["routed_quality"] or 0.0,
        oracle_quality=ways[-1].values["routed_quality"] or 0.0,
        single_bands={
            "best_single_quality": always_best.bands["routed_quality"],
            "oracle_quality": ways[-1].bands["routed_quality"],
        },
        ways=ways,
        baselines_trained_on=(
            f"by {min(FOLDS, different)}-fold cross-validation over the {n:,} evaluated requests, seed {seed}"
            if train is None
            else f"on {len(train):,} requests of the training tables"
        ),
        seed=seed,
        resamples=resamples,
        warnings=tuple(notes),
        text_to_decision_us_p50=text_to_decision_us_p50,
    )


class _Judged(NamedTuple):
    """A way, and its measures in every resample."""

    way: Way
    resampled: dict[str, Floats]


class _Judge:
    """Measures ways of choosing on the same ground and the same resamples."""

    def __init__(self, ground: Ground, weights: Floats) -> None:
        self._ground = ground
        self._weights = weights
        self._once = metrics.ones(len(ground.quality))
        best_cost = None if ground.cost_usd is None else metrics.mean_quality(ground.cost_usd[:, ground.best])
        self._best_cost = best_cost
        self._budgets = _budgets(ground)

    def predicting(self, said: Predictions, kind: str) -> _Judged:
        """A way that goes by predicted quality."""
        ground, predicted = self._ground, said.quality
        routed = metrics.Routed(predicted, ground.quality, ground.cost_usd)
        measures = [self._routed(routed)]
        calibration = None
        if kind != "oracle":
            calibration = metrics.Calibration(predicted, ground.quality)
            measures.append(calibration.at)
        if said.low is not None and said.high is not None:
            covered = metrics.coverage(said.low, said.high, ground.quality)
            measures.append(lambda weights: {"coverage": covered(weights)})
        pair_curve = cost_curve = None
        if ground.pair is not None:
            weak, strong = ground.pair
            gain = predicted[:, strong] - predicted[:, weak]
            if said.folds is not None:
                gain = metrics.ranks_within(gain, said.folds)
            pair_curve = metrics.PairCurve(gain, ground.quality[:, weak], ground.quality[:, strong])
            measures.append(pair_curve.at)
        if ground.has_costs and said.name not in _CONSTANT:
            assert ground.cost_usd is not None
            assert ground.estimated_cost_usd is not None
            assert ground.cheapest is not None
            estimated = ground.estimated_cost_usd
            if said.cost_factors is not None:
                estimated = estimated * said.cost_factors
            cost_curve = metrics.CostCurve(
                predicted, estimated, ground.quality, ground.cost_usd, ground.best, ground.cheapest
            )
            measures.append(cost_curve.at)
        values, resampled = self._measured(measures)
        way = Way(
            name=said.name,
            kind=kind,
            values=values,
            bands={name: metrics.interval(draws) for name, draws in resampled.items()},
            pair_curve=None if pair_curve is None else self._curve(pair_curve.points, _SHARE_GRID),
            cost_curve=None if cost_curve is None else self._curve(cost_curve.within_budget, self._budgets),
            reliability=() if calibration is None else tuple(calibration.diagram()),
            shares=dict(zip(ground.agents, routed.shares.mean(axis=0).tolist(), strict=True)),
        )
        return _Judged(way, resampled)

    def always(self, column: int) -> _Judged:
        """The same agent for every request that it answered."""
        ground = self._ground
        quality = metrics.mean_quality(ground.quality[:, column])
        cost = None if ground.cost_usd is None else metrics.mean_quality(ground.cost_usd[:, column])

        def measure(weights: Floats) -> dict[str, Floats]:
            found = {"routed_quality": quality(weights)}
            if cost is not None and self._best_cost is not None and ground.has_costs:
                found["routed_relative_cost"] = cost(weights) / self._best_cost(weights)
            return found

        values, resampled = self._measured([measure])
        bands = {name: metrics.interval(draws) for name, draws in resampled.items()}
        return _Judged(Way(name=_always(ground.agents[column]), kind="single", values=values, bands=bands), resampled)

    def _routed(self, routed: metrics.Routed) -> Callable[[Floats], dict[str, Floats]]:
        def measure(weights: Floats) -> dict[str, Floats]:
            found = routed.at(weights)
            cost = found.pop("routed_cost_usd")
            if self._ground.has_costs and self._best_cost is not None:
                found["routed_relative_cost"] = cost / self._best_cost(weights)
            return found

        return measure

    def _measured(
        self, measures: Sequence[Callable[[Floats], Mapping[str, Floats]]]
    ) -> tuple[dict[str, float | None], dict[str, Floats]]:
        step = max(1, _CELLS_AT_ONCE // len(self._ground.quality))
        values: dict[str, float | None] = {}
        resampled: dict[str, Floats] = {}
        for measure in measures:
            values.update({name: _value(found[0]) for name, found in measure(self._once).items()})
            parts = [measure(self._weights[start : start + step]) for start in range(0, len(self._weights), step)]
            for name in parts[0] if parts else ():
                resampled[name] = np.concatenate([part[name] for part in parts])
        return {name: values.get(name) for name in MEASURES}, resampled

    def _curve(self, points: Callable[[Floats, Floats], Floats], grid: Floats) -> Curve:
        draws = points(self._weights, grid)
        low, high = np.full(len(grid), np.nan), np.full(len(grid), np.nan)
        for i, column in enumerate(draws.T):
            low[i], high[i] = metrics.interval(column) or (np.nan, np.nan)
        return Curve(grid, points(self._once, grid)[0], low, high)


def _compared(one: _Judged, model: _Judged) -> Way:
    """The way, with how far the model is ahead of it; what the requests do to both cancels in the difference."""
    ahead = {}
    for name, draws in one.resampled.items():
        mine, theirs = model.way.values.get(name), one.way.values.get(name)
        if mine is None or theirs is None or name not in model.resampled:
            continue
        band = metrics.interval(model.resampled[name] - draws)
        if band is not None:
            ahead[name] = (mine - theirs, *band)
    return replace(one.way, ahead=ahead)


def _check_shapes(table: OutcomeTable, embeddings: Vectors, predictions: Predictions | None) -> None:
    n, agents = table.quality.shape
    if embeddings.ndim != 2 or len(embeddings) != n:
        raise InvalidInputError(f"embeddings has shape {embeddings.shape}; expected a row for each of {n} requests.")
    if predictions is None:
        return
    factors = predictions.cost_factors
    if factors is not None and not (factors > 0.0).all():
        raise InvalidInputError("predictions.cost_factors holds numbers that are not above 0.")
    for name in ("quality", "low", "high", "cost_factors"):
        array = getattr(predictions, name)
        if array is not None and (array.shape != (n, agents) or not np.isfinite(array).all()):
            raise InvalidInputError(
                f"predictions.{name} has shape {array.shape}; expected finite numbers of shape ({n}, {agents})."
            )


def _training_sample(table: OutcomeTable, training: TrainingRows, notes: list[str]) -> Sample:
    """The training rows with the columns of `table`, without requests that are evaluated."""
    evaluated = set(table.texts)
    fresh = np.array([text not in evaluated for text in training.table.texts], np.bool_)
    if not fresh.all():
        notes.append(
            f"{int((~fresh).sum()):,} of {len(fresh):,} training requests are evaluated, too; the baselines do not "
            "learn from them, but a model that was trained on them knows the answers."
        )
    if not fresh.any():
        raise InvalidInputError(
            "Every training request is evaluated, too; expected others.",
            hint="Leave the training tables out, and the baselines are cross-validated.",
        )
    without = [name for name in table.agents if name not in training.table.agents]
    if without:
        notes.append(
            f"Without outcomes in the training tables, so that baselines predict the mean for them: "
            f"{', '.join(without)}."
        )
    rows = training.table.rows(fresh).with_agents(table.agents)
    return Sample(
        training.embeddings[fresh], rows.quality.astype(np.float64), groups_of(rows.texts), rows.tasks
    )  # fmt: skip


def _budgets(ground: Ground) -> Floats:
    """Costs, as shares of the best single agent's, at which curves are drawn: evenly on a logarithmic scale."""
    if not ground.has_costs:
        return np.zeros(0)
    assert ground.cost_usd is not None
    assert ground.cheapest is not None
    means = np.nanmean(ground.cost_usd[:, [ground.cheapest, ground.best]], axis=0)
    low = max(float(means[0] / means[1]), 1e-4)
    return np.geomspace(min(low, 0.5), 1.0, _COST_POINTS)


def _always(agent: str) -> str:
    return f"always {agent}"


def _value(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def _no_progress(done: int) -> None:
    return None
