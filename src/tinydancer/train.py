"""Train a quality model from tables of judged answers, and say what it is worth.

In: one or more `OutcomeTable`, an embedder, perhaps a model to start from. Out: a `QualityModel` with its model card,
and an `Evaluation` of what models like it predicted for requests they had not seen, beside plain baselines.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.embedding.base import Embedder
from tinydancer.errors import InvalidInputError
from tinydancer.evaluation.baselines import groups_of
from tinydancer.evaluation.judge import Predictions, evaluate
from tinydancer.evaluation.results import Evaluation
from tinydancer.model.quality import QualityModel, factors, sketch_of
from tinydancer.model.quality_calibration import cost_head, platt
from tinydancer.model.quality_training import (
    CrossFit,
    Progress,
    QualityData,
    QualityTrainingConfig,
    fit_quality_model,
    folds,
)
from tinydancer.model.surface import SURFACE_DIM, surface_features
from tinydancer.recorded import MOST_ANSWERS, recorded_data
from tinydancer.store.base import Store
from tinydancer.tables import OutcomeTable
from tinydancer.types import EmbeddingSpace

__all__ = [
    "FEWEST_ROWS", "OTHER_TASK_SHARES", "STRENGTHS", "STRENGTHS_FROM_START", "Trained", "merged", "train",
    "train_recorded",
]  # fmt: skip

Ints = npt.NDArray[np.int64]

FEWEST_ROWS = 20
"""With fewer judged requests, training is refused: whatever came out would be noise."""
FEW_ROWS = 200
STRENGTHS = (0.03, 0.1, 0.3, 1.0)
"""Factors on the penalties that cross-fitting chooses among, unless told otherwise."""
STRENGTHS_FROM_START = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""The same where a model is refined; with the last it learns little more than how good each agent is."""
OTHER_TASK_SHARES = (0.9,)
"""Shares of task means in the target, beside the usual one, that it chooses among where requests have tasks."""
EVALUATED_ROWS = 20_000
IN_MEMORY_ROWS = 200_000
"""Vectors of more requests lie in a temporary file, half a precision each: a million take 0.8 GB of disk."""
_AT_ONCE = 512
_FEWEST_MEASURED = 2
"""Different requests of a source, below which it has no figures of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training gave.

    Attributes
    ----------
    model
        Unsaved; its ``facts`` are the model card.
    evaluation
        Of cross-fitted predictions: each request's came from a model that had not seen it.
    cross
        Those predictions, and how each strength of the penalties did.
    warnings
        Sentences on what may mislead.
    """

    model: QualityModel
    evaluation: Evaluation
    cross: CrossFit
    warnings: tuple[str, ...]


def merged(tables: Sequence[OutcomeTable]) -> tuple[OutcomeTable, Ints]:
    """Several tables as one over all their agents, and which table each request is of; ``int64[n]``."""
    if len(tables) == 1:
        return tables[0], np.zeros(len(tables[0]), np.int64)
    agents = tuple(sorted({name for table in tables for name in table.agents}))
    wide = [table.with_agents(agents) for table in tables]
    tasks = None
    if any(table.tasks is not None for table in tables):
        tasks = tuple(task for table in tables for task in (table.tasks or ("",) * len(table)))
    table = OutcomeTable(
        request_ids=tuple(f"{i}/{name}" for i, table in enumerate(tables) for name in table.request_ids),
        tasks=tasks,
        texts=tuple(text for table in tables for text in table.texts),
        agents=agents,
        quality=np.concatenate([table.quality for table in wide]),
        cost_usd=np.concatenate([table.cost_usd for table in wide]),
        warnings=tuple(dict.fromkeys(warning for table in tables for warning in table.warnings)),
    )
    return table, np.repeat(np.arange(len(tables)), [len(table) for table in tables])


def train(
    tables: Sequence[OutcomeTable],
    embedder: Embedder,
    *,
    config: QualityTrainingConfig | None = None,
    start: QualityModel | None = None,
    more_vectors: Sequence[npt.NDArray[np.float32]] = (),
    name: str = "model",
    resamples: int = 200,
    progress: Progress = lambda share, what: None,
) -> Trained:
    """Fit, calibrate and evaluate a model.

    Parameters
    ----------
    tables
        Each a data set of its own: what is peculiar to one as a whole is not learned.
    embedder
        Of the deployment that the model is for.
    config
        Knobs; None tries `STRENGTHS` (`STRENGTHS_FROM_START` with a start) and `OTHER_TASK_SHARES`.
    start
        A model to refine instead of starting from nothing.
    more_vectors
        The same requests, in the order of the tables, by other embedders of the space; ``float32[n, dim]``.
    name
        Names the model in the evaluation.
    resamples
        Of the evaluation's bootstrap.
    progress
        Called with the share done, in [0, 1], and what is being done.

    Raises
    ------
    InvalidInputError
        Too few requests, or answers that are all alike.
    """
    table, sources = merged(tables)
    doubts = tuple(_doubts(table))
    with contextlib.ExitStack() as stack:
        data = _data(table, sources, embedder, more_vectors, stack, lambda s: progress(0.2 * s, "embedding"))
        return _trained(
            table, data, embedder.space, config, start, name, resamples, doubts,
            lambda share, what: progress(0.2 + 0.8 * share, what),
        )  # fmt: skip


def train_recorded(
    store: Store,
    *,
    config: QualityTrainingConfig | None = None,
    start: QualityModel | None = None,
    name: str = "model",
    most: int = MOST_ANSWERS,
    resamples: int = 200,
    progress: Progress = lambda share, what: None,
) -> Trained:
    """`train` on what a store recorded: judged answers to decisions that kept their requests' features.

    Parameters
    ----------
    most
        How many answers to take, the latest.

    Raises
    ------
    InvalidInputError
        Too few of them, or answers that are all alike.
    """
    data = recorded_data(store, most=most)
    numbers = tuple(map(str, range(len(data))))
    # Texts need not have been recorded; equal features are one request already.
    table = OutcomeTable(numbers, None, numbers, data.agents, data.quality, data.cost_usd)
    doubts = tuple(_doubts(table))
    return _trained(table, data, store.space, config, start, name, resamples, doubts, progress)


def _trained(
    table: OutcomeTable,
    data: QualityData,
    space: EmbeddingSpace,
    config: QualityTrainingConfig | None,
    start: QualityModel | None,
    name: str,
    resamples: int,
    doubts: tuple[str, ...],
    progress: Progress,
) -> Trained:
    if config is None:
        strengths = STRENGTHS if start is None else STRENGTHS_FROM_START
        config = QualityTrainingConfig(strengths=strengths, other_task_shares=OTHER_TASK_SHARES)
    warnings = list(doubts)
    sources = np.zeros(len(data), np.int64) if data.sources is None else data.sources.astype(np.int64)
    model, cross = fit_quality_model(
        data, space, config=config, start=start, progress=lambda share, what: progress(0.8 * share, what)
    )
    progress(0.8, "evaluating")
    evaluation, figures = _evaluated(
        table, data, model, cross, config, sources, name, resamples, lambda: progress(0.8, "evaluating")
    )
    if len(config.strengths) > 1 and start is not None and cross.strength == max(config.strengths):
        warnings.append(
            f"These answers do not show that it pays to leave {start.name}, the model to start from: the strongest "
            f"pull towards it ({cross.strength:g}) was kept, and little but the agents' levels was learned."
        )
    elif len(config.strengths) > 1 and cross.strength in (min(config.strengths), max(config.strengths)):
        edge, further = ("weakest", "weaker") if cross.strength == min(config.strengths) else ("strongest", "stronger")
        warnings.append(f"The {edge} penalty tried ({cross.strength:g}) did best; a {further} one may do better.")
    facts = {
        "requests": len(table),
        "outcomes": int((~np.isnan(table.quality)).sum()),
        "sources": int(sources.max()) + 1,
        "outcomes_by_agent": {a: int(n) for a, n in zip(table.agents, model.observed.tolist(), strict=True)},
        "embedders": len(data.embeddings),
        "started_from": None if start is None else start.name,
        "strength": cross.strength,
        "loss_by_strength": dict(zip(map(str, config.strengths), cross.losses, strict=True)),
        "task_share": cross.task_share if data.tasks is not None else None,
        "loss_by_task_share": (
            dict(zip(map(str, (config.task_share, *config.other_task_shares)), cross.task_losses, strict=True))
            if data.tasks is not None
            else None
        ),
        "config": config.to_dict(),
        "cross_validated": figures,
        "limits": (
            "Figures are of requests like those of the training. Other traffic, languages or lengths may do worse: "
            "evaluate on your own."
        ),
    }
    sketch = np.empty(0, np.uint64) if table.texts is table.request_ids else sketch_of(table.texts)
    model = replace(model, facts=facts, sketch=sketch, label=name)
    progress(1.0, "done")
    return Trained(model=model, evaluation=evaluation, cross=cross, warnings=tuple(warnings))


def _doubts(table: OutcomeTable) -> Iterator[str]:
    """What may mislead; raises where nothing can be learned."""
    if len(table) < FEWEST_ROWS:
        raise InvalidInputError(
            f"The tables have {len(table)} judged requests; expected at least {FEWEST_ROWS}.",
            hint="Collect more; from 50 on, training that starts from the shipped model begins to make sense.",
        )
    known = table.quality[~np.isnan(table.quality)]
    if not known.size:
        raise InvalidInputError("None of the answers was judged: there is nothing to learn from.")
    if float(known.max() - known.min()) < 1e-6:
        raise InvalidInputError(
            f"All {known.size:,} answers have the same quality, {known[0]:g}: there is nothing to learn.",
            hint="Include answers that failed as well as answers that were good.",
        )
    if len(table) < FEW_ROWS:
        yield (
            f"{len(table)} requests are few: expect figures that move by several points with the seed. Starting from "
            "the shipped model helps most here."
        )
    if len(table.agents) == 1:
        yield "There is one agent only: the model will tell hard requests from easy ones, but has nothing to route to."
    yield from table.warnings


def _data(
    table: OutcomeTable,
    sources: Ints,
    embedder: Embedder,
    more: Sequence[npt.NDArray[np.float32]],
    stack: contextlib.ExitStack,
    progress: Any,
) -> QualityData:
    n, dim = len(table), embedder.space.dim
    vectors: Any
    if n <= IN_MEMORY_ROWS:
        vectors = np.empty((n, dim), np.float32)
    else:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tinydancer-"))
        vectors = np.memmap(Path(folder) / "vectors", np.float16, "w+", shape=(n, dim))
    surface = np.empty((n, SURFACE_DIM), np.float32)
    for begin in range(0, n, _AT_ONCE):
        texts = table.texts[begin : begin + _AT_ONCE]
        vectors[begin : begin + len(texts)] = embedder.embed(texts).vectors
        surface[begin : begin + len(texts)] = surface_features(texts)
        progress(begin / n)
    for other in more:
        if other.shape != (n, dim):
            raise InvalidInputError(f"Other vectors have shape {other.shape}; expected ({n}, {dim}).")
    groups = groups_of(table.texts)
    return QualityData(
        (vectors, *more), surface, table.quality, table.cost_usd, table.agents,
        sources=sources.astype(np.intp), tasks=_tasks(table, sources), groups=groups.astype(np.intp),
    )  # fmt: skip


def _tasks(table: OutcomeTable, sources: Ints) -> npt.NDArray[np.intp] | None:
    """The number of each request's task; requests without one share one per source. None where none has any."""
    if table.tasks is None or not any(table.tasks):
        return None
    names = [f"{source}/{task}" for source, task in zip(sources.tolist(), table.tasks, strict=True)]
    return np.unique(np.array(names), return_inverse=True)[1].astype(np.intp)


def _evaluated(
    table: OutcomeTable,
    data: QualityData,
    model: QualityModel,
    cross: CrossFit,
    config: QualityTrainingConfig,
    sources: Ints,
    name: str,
    resamples: int,
    alive: Callable[[], None],
) -> tuple[Evaluation, list[dict[str, Any]]]:
    """The evaluation of the whole, and the headline figures of each source."""
    part = np.full(len(data), -1, np.int64)
    for number, (_, test) in enumerate(folds(data, config)):
        part[test] = number
    here = np.flatnonzero(~np.isnan(cross.logits).all(axis=1))
    if here.size > EVALUATED_ROWS:
        here = np.sort(np.random.default_rng([config.seed, 4]).permutation(here)[:EVALUATED_ROWS])
    known = ~(np.isnan(cross.logits) | np.isnan(data.quality))
    scale, shift = platt(cross.logits[known], data.quality[known])
    probability = 1.0 / (1.0 + np.exp(-(scale * cross.logits + shift)))

    # Costs too are predicted by what was learned from the other parts.
    vectors = np.asarray(data.embeddings[0][here], dtype=np.float32)
    features = model.cost_features(model.represent(vectors, data.surface[here]), data.surface[here])
    cost_factors = np.ones((len(data), len(table.agents)))
    for number in range(config.folds):
        test = part[here] == number
        if test.any() and not test.all():
            weights = cost_head(features[~test], data.cost_usd[here[~test]])
            cost_factors[here[test]] = factors(features[test], weights[:-1])

    def of(rows: Ints, count: int) -> Evaluation:
        subset = table.rows(rows)
        answered = ~np.isnan(subset.quality).all(axis=0)
        columns = np.flatnonzero(answered)
        subset = subset.with_agents([table.agents[i] for i in columns])
        quality = probability[np.ix_(rows, columns)]
        low, high = (None, None) if model.interval is None else model.interval.interval(quality)
        vectors = np.asarray(data.embeddings[0][rows], dtype=np.float32)
        predictions = Predictions(
            quality=quality, name=name, folds=part[rows], low=low, high=high,
            cost_factors=cost_factors[np.ix_(rows, columns)],
        )  # fmt: skip
        return evaluate(
            subset, vectors, predictions, seed=config.seed, resamples=count, progress=lambda _: alive()
        )  # fmt: skip

    whole = of(here, resamples)
    figures = []
    for source in range(int(sources.max()) + 1):
        rows = here[sources[here] == source]
        if len({table.texts[i] for i in rows.tolist()}) < _FEWEST_MEASURED:
            continue
        one = whole if int(sources.max()) == 0 else of(rows, resamples)
        said = one.to_dict()
        figures.append({key: said[key] for key in _FIGURES} | {"intervals": said["intervals"]})
    return whole, figures


_FIGURES = (
    "requests", "agents", "apgr", "cpt50", "cpt80", "relative_cost_at_95", "relative_cost_at_100", "routed_quality",
    "best_single", "best_single_quality", "oracle_quality", "ece", "coverage",
)  # fmt: skip
