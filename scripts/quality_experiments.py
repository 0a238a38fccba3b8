"""What a quality model is worth on data it has not seen: the experiments behind ``make eval``.

In: tables of judged answers. Out: evaluations and rows of figures, from a seed; nothing is read or written here.

No prediction comes from a fit that saw the request, nor one that asks the same question in other words around it: the
data sets overlap (the same exam question, laid out differently, answered by other agents), so requests are held out
together with their twins in all data sets. Everything else that a model learns from outcomes (calibration, intervals,
what a request costs) it learns from its training rows, as ``tinydancer train`` would.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.embedding.base import Embedder
from tinydancer.evaluation import Evaluation, Predictions, TrainingRows, evaluate, metrics
from tinydancer.evaluation.baselines import FOLDS, folds_of, groups_of
from tinydancer.evaluation.predicting import embedded, predictions_of
from tinydancer.model.quality import AgentProfile, QualityModel, expected
from tinydancer.model.quality_training import QualityData, QualityTrainingConfig, fit_quality_model
from tinydancer.model.surface import surface_features
from tinydancer.tables import OutcomeTable
from tinydancer.train import merged, train
from tinydancer.types import EmbeddingSpace

Ints = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Tell = Callable[[str], None]

SHINGLE_WORDS = 8
RARE = 5
"""Sequences of words that more requests share are a prompt's template, and tell no twins."""
TWIN_SHARE = 0.5
NEW_AGENTS = ("gpt-4-1106-preview", "mixtral-8x7b-instruct")
PAIR_SETS = ("mmlu", "gsm8k")
LEARNED_FROM = (10, 50, 200)
DRAWS = 5
NOT_THE_NINE = ("gpt-4-1106-preview", "yi-34b-chat")
"""Of the eleven agents of routerbench; the first is in other data sets, too."""
ROWS = (50, 200, 1000, None)
TRAIN_SHARE = 0.7


@dataclass(frozen=True)
class Pool:
    """All data sets as one.

    Attributes
    ----------
    names
        Of the data sets, by source number.
    table, data, sources
        Their rows; vectors by one embedder or more.
    groups
        ``int64[n]``: the same number for requests that ask the same.
    """

    names: tuple[str, ...]
    table: OutcomeTable
    data: QualityData
    sources: Ints
    groups: Ints
    space: EmbeddingSpace

    def rows(self, name: str) -> Ints:
        """Positions of a data set's requests."""
        return np.flatnonzero(self.sources == self.names.index(name))

    def alone(self, name: str) -> OutcomeTable:
        """A data set with its own agents only."""
        return own_agents(self.table.rows(self.rows(name)))


def own_agents(table: OutcomeTable) -> OutcomeTable:
    """Without agents that answered nothing."""
    answered = np.flatnonzero(~np.isnan(table.quality).all(axis=0))
    return table.with_agents([table.agents[i] for i in answered.tolist()])


def pool(tables: Mapping[str, OutcomeTable], embedder: Embedder, more: Sequence[Vectors] = ()) -> Pool:
    """Several data sets as one; `more` holds vectors of all requests by other embedders of the space."""
    table, sources = merged(tuple(tables.values()))
    groups = twins(table.texts)
    names = [f"{source}/{task}" for source, task in zip(sources.tolist(), table.tasks or (), strict=False)]
    tasks = groups_of(names).astype(np.intp) if names else None
    data = QualityData(
        (embedded(embedder, table.texts), *more), surface_features(table.texts), table.quality, table.cost_usd,
        table.agents, sources=sources.astype(np.intp), tasks=tasks, groups=groups.astype(np.intp),
    )  # fmt: skip
    return Pool(tuple(tables), table, data, sources, groups, embedder.space)


def twins(texts: Sequence[str]) -> Ints:
    """A number per text, the same for texts that share at least half of the shorter one's rare 8-word sequences."""
    parts = [_shingles(text) for text in texts]
    counts = Counter(part for some in parts for part in some)
    parts = [{part for part in some if counts[part] <= RARE} for some in parts]
    holders: defaultdict[int, list[int]] = defaultdict(list)
    for number, some in enumerate(parts):
        for part in some:
            holders[part].append(number)
    shared = Counter((a, b) for who in holders.values() for i, a in enumerate(who) for b in who[i + 1 :])
    leader = groups_of(texts).tolist()
    first = {group: number for number, group in reversed(list(enumerate(leader)))}
    leader = [first[group] for group in leader]

    def find(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    for (a, b), count in shared.items():
        if count >= TWIN_SHARE * min(len(parts[a]), len(parts[b])):
            one, other = find(a), find(b)
            leader[max(one, other)] = min(one, other)
    return np.array([find(number) for number in range(len(texts))], np.int64)


def overlaps(pooled: Pool) -> dict[tuple[str, str], int]:
    """How many requests of one data set have a twin in another."""
    groups = {name: pooled.groups[pooled.rows(name)] for name in pooled.names}
    counts = {(a, b): int(np.isin(groups[a], groups[b]).sum()) for a in groups for b in groups if a != b}
    return {pair: count for pair, count in counts.items() if count}


def _shingles(text: str) -> set[int]:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return {hash(tuple(words[i : i + SHINGLE_WORDS])) for i in range(len(words) - SHINGLE_WORDS + 1)}


def subset(data: QualityData, rows: Ints, without: str | None = None) -> QualityData:
    """Some rows; without an agent, and without the requests that only it answered."""
    columns = np.array([i for i, name in enumerate(data.agents) if name != without], np.int64)
    rows = rows[~np.isnan(data.quality[np.ix_(rows, columns)]).all(axis=1)]
    assert data.sources is not None
    assert data.groups is not None
    cells = np.ix_(rows, columns)
    return QualityData(
        tuple(vectors[rows] for vectors in data.embeddings), data.surface[rows], data.quality[cells],
        data.cost_usd[cells], tuple(data.agents[i] for i in columns.tolist()), sources=data.sources[rows],
        tasks=None if data.tasks is None else data.tasks[rows], groups=data.groups[rows],
    )  # fmt: skip


def not_like(pooled: Pool, test: Ints) -> Ints:
    """Rows that ask nothing that the test rows ask."""
    return np.flatnonzero(~np.isin(pooled.groups, pooled.groups[test]))


def not_these(pooled: Pool, test: Ints) -> Ints:
    """All other rows: a test row's twin in another data set may be among them."""
    return np.setdiff1d(np.arange(len(pooled.table)), test)


def no_exam(pooled: Pool, test: Ints) -> Ints:
    """Rows that ask nothing that the test rows ask, and no question of the same exam in another data set."""
    tasks = np.array(pooled.table.tasks or ())
    elsewhere = (tasks == "mmlu") & (pooled.sources != pooled.sources[test[0]])
    return np.setdiff1d(not_like(pooled, test), np.flatnonzero(elsewhere))


KEPT: Mapping[str, Callable[[Pool, Ints], Ints]] = {
    "without twins": not_like, "twins left in": not_these, "no MMLU question of other sets": no_exam,
}  # fmt: skip
"""What the training keeps when whole task types are held out."""


# -- one model for everything --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predicted:
    """What models said of rows they had not seen, per agent of the pool; NaN where no model was asked."""

    quality: Floats
    low: Floats
    high: Floats
    cost_factors: Floats

    def of(self, pooled: Pool, rows: Ints, agents: Sequence[str], folds: Ints) -> Predictions:
        """Of some rows and agents, as `evaluate` takes them."""
        columns = np.array([pooled.table.agents.index(name) for name in agents], np.int64)
        quality, low, high, factors = (
            array[np.ix_(rows, columns)] for array in (self.quality, self.low, self.high, self.cost_factors)
        )
        return Predictions(quality=quality, name="model", folds=folds, low=low, high=high, cost_factors=factors)


def cross_predicted(
    pooled: Pool,
    fold: Ints,
    config: QualityTrainingConfig,
    tell: Tell,
    kept: Callable[[Pool, Ints], Ints] = not_like,
) -> list[Predicted]:
    """Predictions for the rows of each fold (-1: never asked about) by a model of all other rows; one per embedder."""
    shape = pooled.data.quality.shape
    found = [Predicted(*np.full((4, *shape), np.nan)) for _ in pooled.data.embeddings]
    profiles = [AgentProfile(name=name) for name in pooled.table.agents]
    for number in range(int(fold.max()) + 1):
        tell(f"fold {number + 1} of {int(fold.max()) + 1}")
        test = np.flatnonzero(fold == number)
        model, _ = fit_quality_model(subset(pooled.data, kept(pooled, test)), pooled.space, config=config)
        assert model.interval is not None
        surface = pooled.data.surface[test]
        for vectors, said in zip(pooled.data.embeddings, found, strict=True):
            phi = model.represent(vectors[test], surface)
            said.quality[test] = expected(phi, model.believed(profiles).mean)
            said.low[test], said.high[test] = model.interval.interval(said.quality[test])
            said.cost_factors[test] = model.cost_factors(phi, surface, pooled.table.agents)
    return found


def by_requests(pooled: Pool, seed: int) -> Ints:
    """Folds of all rows, twins together."""
    return folds_of(pooled.groups, FOLDS, seed)


def by_tasks(pooled: Pool, name: str, seed: int) -> Ints:
    """Folds of one data set, whole tasks together; -1 elsewhere."""
    rows = pooled.rows(name)
    tasks = [(pooled.table.tasks or ())[row] for row in rows.tolist()]
    fold = np.full(len(pooled.table), -1, np.int64)
    fold[rows] = folds_of(groups_of(tasks), min(FOLDS, len(set(tasks))), seed)
    return fold


def evaluated(pooled: Pool, name: str, fold: Ints, said: Predicted, view: int, seed: int, resamples: int) -> Evaluation:
    """One data set of the pool; baselines learn from the same folds of it, on the same embedder's vectors."""
    rows, table = pooled.rows(name), pooled.alone(name)
    return evaluate(
        table, pooled.data.embeddings[view][rows], said.of(pooled, rows, table.agents, fold[rows]), seed=seed,
        resamples=resamples, groups=fold[rows],
    )  # fmt: skip


# -- an agent that the model does not know -------------------------------------------------------------------------


def new_agent(
    pooled: Pool, agent: str, fold: Ints, config: QualityTrainingConfig, seed: int, resamples: int, tell: Tell
) -> Iterator[dict[str, Any]]:
    """APGR on the two-agent data sets where the model never saw `agent`, before and after learning online."""
    column = pooled.table.agents.index(agent)
    sets = [name for name in PAIR_SETS if name in pooled.names and agent in pooled.alone(name).agents]
    pairs = {name: pooled.alone(name).agents for name in sets}
    ways = {"name": [0], "stated": [0, *LEARNED_FROM]}
    gains = {
        (name, way, count, draw): np.full(len(pooled.table), np.nan)
        for name in sets for way, counts in ways.items() for count in counts for draw in range(DRAWS if count else 1)
    }  # fmt: skip
    for number in range(int(fold.max()) + 1):
        tell(f"without {agent}, fold {number + 1} of {int(fold.max()) + 1}")
        test = np.flatnonzero(fold == number)
        known = not_like(pooled, test)
        data = subset(pooled.data, known, without=agent)
        model, _ = fit_quality_model(data, pooled.space, config=config)
        stated = float(np.nanmean(pooled.data.quality[known, column]))
        phi = model.represent(pooled.data.embeddings[0], pooled.data.surface)
        for (name, way, count, draw), gain in gains.items():
            other = next(one for one in pairs[name] if one != agent)
            profile = AgentProfile(name=agent, stated_quality=stated if way == "stated" else None)
            beliefs = model.believed([profile, AgentProfile(name=other)])
            if count:
                seen = np.intersect1d(known, pooled.rows(name))
                seen = np.random.default_rng([seed, number, draw]).permutation(seen)[:count]
                beliefs = beliefs.updated(np.zeros(len(seen), np.intp), phi[seen], pooled.data.quality[seen, column])
            rows = np.intersect1d(test, pooled.rows(name))
            said = expected(phi[rows], beliefs.mean)
            gain[rows] = said[:, 0] - said[:, 1]
    for name in sets:
        rows = pooled.rows(name)
        here = pooled.alone(name)
        position = here.agents.index(agent)
        means = np.nanmean(here.quality, axis=0)
        is_strong = bool(means[position] > means[1 - position])
        quality = here.quality.astype(np.float64)
        weak, strong = (quality[:, 1 - position], quality[:, position])[:: 1 if is_strong else -1]
        for way, counts in ways.items():
            for count in counts:
                draws = [
                    pair_curve(gain[rows] * (1 if is_strong else -1), fold[rows], weak, strong, seed, resamples)
                    for (of, how, learned, _), gain in gains.items() if (of, how, learned) == (name, way, count)
                ]  # fmt: skip
                apgr, low, high = np.mean(draws, axis=0)
                yield {
                    "agent": agent, "data": name, "known": way, "outcomes": count, "apgr": apgr, "band": [low, high],
                    "seed": seed,
                }  # fmt: skip


def pair_curve(
    gain: Floats, fold: Ints, weak: Floats, strong: Floats, seed: int, resamples: int
) -> tuple[float, float, float]:
    """APGR, and its bootstrap band, where requests are ranked by `gain` inside their fold."""
    curve = metrics.PairCurve(metrics.ranks_within(gain, fold), weak, strong)
    value = float(curve.at(metrics.ones(len(gain)))["apgr"][0])
    draws = curve.at(metrics.resamples(len(gain), resamples, seed))["apgr"]
    low, high = metrics.interval(draws) or (value, value)
    return value, low, high


# -- a data set of other agents ------------------------------------------------------------------------------------


def nine_agents(pooled: Pool) -> OutcomeTable:
    """Routerbench without two of its agents."""
    table = pooled.alone("routerbench")
    return table.with_agents([name for name in table.agents if name not in NOT_THE_NINE])


def start_without(pooled: Pool, name: str, config: QualityTrainingConfig) -> QualityModel:
    """A model of the other data sets, which asks nothing that this one asks."""
    rows = not_like(pooled, pooled.rows(name))
    data = subset(pooled.data, rows)
    answered = np.flatnonzero(~np.isnan(data.quality).all(axis=0))
    agents = tuple(data.agents[i] for i in answered.tolist())
    data = replace(
        data, quality=data.quality[:, answered], cost_usd=data.cost_usd[:, answered], agents=agents,
        embeddings=data.embeddings[:1],
    )  # fmt: skip
    return fit_quality_model(data, pooled.space, config=config)[0]


def from_rows(
    table: OutcomeTable, groups: Ints, vectors: Vectors, embedder: Embedder, counts: Sequence[int | None],
    starts: Mapping[str, QualityModel | None], seed: int, resamples: int, tell: Tell,
    config: QualityTrainingConfig | None = None,
) -> Iterator[tuple[int, str, Evaluation]]:  # fmt: skip
    """``tinydancer train`` on some of 70% of the rows, from each start, measured on the other 30%.

    Baselines learn from the same rows. Yields the number of rows, the name of the start and the evaluation.
    """
    order = np.random.default_rng([seed, 5]).permutation(np.unique(groups))
    held_out = np.isin(groups, order[int(TRAIN_SHARE * len(order)) :])
    test, others = np.flatnonzero(held_out), np.random.default_rng([seed, 6]).permutation(np.flatnonzero(~held_out))
    profiles = [AgentProfile(name=name) for name in table.agents]
    evaluated_table = table.rows(test)
    for count in counts:
        if count is not None and count >= len(others):
            continue
        rows = np.sort(others[:count])
        for name, start in starts.items():
            tell(f"{len(rows):,} rows from {name}")
            trained = train([own_agents(table.rows(rows))], embedder, config=config, start=start, resamples=1)
            said = predictions_of(trained.model, profiles, evaluated_table.texts, vectors[test])
            yield len(rows), name, evaluate(
                evaluated_table, vectors[test], replace(said, name="model"), seed=seed, resamples=resamples,
                training=TrainingRows(table.rows(rows), vectors[rows]),
            )  # fmt: skip
