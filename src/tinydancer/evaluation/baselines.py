"""What a router has to beat: plain predictions of quality, each from training rows to test rows.

In: two `Sample` s with the same agents. Out: ``float64[n, N]`` predicted quality. Whatever a baseline has to choose
(how many neighbours, how much shrinkage) it chooses inside the training rows. `cross_validated` gives every row a
prediction from a fit that has not seen it, nor a repetition of its text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydancer.evaluation.regression import fit_logistic, log_loss

__all__ = [
    "BASELINES",
    "FOLDS",
    "Sample",
    "agent_means",
    "best_single",
    "cross_validated",
    "folds_of",
    "groups_of",
    "logistic_regression",
    "nearest_neighbours",
    "random_choice",
    "task_means",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOLDS = 5
NEIGHBOURS = (5, 10, 20, 40, 80, 160)
L2 = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
TASK_PRIOR = 5.0
"""Outcomes at the agent's mean that each mean over a task starts with."""
_INNER_FOLDS = 5
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows to learn from or to predict.

    Attributes
    ----------
    embeddings
        ``float32[n, dim]``, rows of unit length.
    quality
        ``float64[n, N]``, NaN where an agent did not answer.
    groups
        ``int64[n]``: rows with the same number have the same text and are never split.
    tasks
        The kind of each request, or None.
    """

    embeddings: npt.NDArray[np.float32]
    quality: Floats
    groups: Ints
    tasks: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.quality)

    def rows(self, index: Ints) -> Sample:
        """The rows at these positions."""
        tasks = None if self.tasks is None else tuple(self.tasks[i] for i in index.tolist())
        return Sample(self.embeddings[index], self.quality[index], self.groups[index], tasks)


Baseline = Callable[[Sample, Sample, int], Floats]
"""Training rows, test rows, seed; the quality of the test rows is not looked at."""


def groups_of(texts: Sequence[str]) -> Ints:
    """A number per text, the same for the same text."""
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, count=len(texts))


def folds_of(groups: Ints, folds: int, seed: int) -> Ints:
    """A fold in [0, folds) per row, as many rows in each as the groups allow."""
    names, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shuffled = np.random.default_rng([seed, len(names)]).permutation(len(names))
    fold = np.empty(len(names), np.int64)
    # Round robin in random order, by size: what stands together is spread first.
    fold[shuffled[np.argsort(-sizes[shuffled], kind="stable")]] = np.arange(len(names)) % folds
    return fold[place]


def cross_validated(baseline: Baseline, sample: Sample, folds: Ints, seed: int) -> Floats:
    """Predictions for every row from the rows of the other folds; `folds` as `folds_of` gives them."""
    predicted = np.full(sample.quality.shape, np.nan)
    for number in np.unique(folds):
        test, train = np.flatnonzero(folds == number), np.flatnonzero(folds != number)
        predicted[test] = baseline(sample.rows(train), sample.rows(test), seed)
    return predicted


def agent_means(quality: Floats) -> Floats:
    """Each agent's mean quality, ``float64[N]``; that of all outcomes for an agent without any, 1/2 without all."""
    known = ~np.isnan(quality)
    counts, sums = known.sum(axis=0), np.where(known, quality, 0.0).sum(axis=0)
    overall = sums.sum() / counts.sum() if counts.any() else 0.5
    return np.where(counts > 0, sums / np.maximum(counts, 1), overall)


def random_choice(train: Sample, test: Sample, seed: int) -> Floats:
    """The same for every agent and request: whoever chooses by this chooses at random."""
    return np.full(test.quality.shape, float(agent_means(train.quality).mean()))


def best_single(train: Sample, test: Sample, seed: int) -> Floats:
    """Each agent's mean, whatever the request: always the same agent is best."""
    return np.repeat(agent_means(train.quality)[None, :], len(test), axis=0)


def task_means(train: Sample, test: Sample, seed: int) -> Floats:
    """Each agent's mean over the request's task, shrunk a little; its overall mean for a task never seen."""
    means = agent_means(train.quality)
    predicted = np.repeat(means[None, :], len(test), axis=0)
    if train.tasks is None or test.tasks is None:
        return predicted
    names, place = np.unique(np.array([*train.tasks, *test.tasks], object), return_inverse=True)
    known = ~np.isnan(train.quality)
    counts, sums = np.zeros((len(names), len(means))), np.zeros((len(names), len(means)))
    np.add.at(counts, place[: len(train)], known)
    np.add.at(sums, place[: len(train)], np.where(known, train.quality, 0.0))
    by_task = (sums + TASK_PRIOR * means) / (counts + TASK_PRIOR)
    predicted = by_task[place[len(train) :]]
    return predicted


def nearest_neighbours(train: Sample, test: Sample, seed: int) -> Floats:
    """The mean over the k training requests with the highest cosine; k by the squared error inside `train`."""
    ks = [k for k in NEIGHBOURS if k < len(train)] or [len(train)]
    k = ks[0]
    inner_train, inner_test = _inner_split(train, seed)
    if len(ks) > 1 and len(inner_test):
        guesses = _neighbour_means(inner_train, inner_test.embeddings, ks)
        errors = [np.nanmean((guess - inner_test.quality) ** 2) for guess in guesses]
        k = ks[int(np.argmin(errors))]
    return _neighbour_means(train, test.embeddings, [k])[0]


def _neighbour_means(train: Sample, embeddings: npt.NDArray[np.float32], ks: Sequence[int]) -> list[Floats]:
    """One matrix per k; among the k nearest only those that an agent answered count for it."""
    most = min(max(ks), len(train))
    known = ~np.isnan(train.quality)
    filled = np.where(known, train.quality, 0.0)
    fallback = agent_means(train.quality)
    results = [np.empty((len(embeddings), filled.shape[1])) for _ in ks]
    for start in range(0, len(embeddings), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        likeness = embeddings[some] @ train.embeddings.T
        near = np.argpartition(-likeness, most - 1, axis=1)[:, :most]
        near = np.take_along_axis(near, np.argsort(-np.take_along_axis(likeness, near, 1), axis=1, kind="stable"), 1)
        for result, k in zip(results, ks, strict=True):
            counts, sums = known[near[:, :k]].sum(axis=1), filled[near[:, :k]].sum(axis=1)
            result[some] = np.where(counts > 0, sums / np.maximum(counts, 1), fallback)
    return results


def logistic_regression(train: Sample, test: Sample, seed: int) -> Floats:
    """One logistic regression per agent on the embedding; shrinkage, the same for all, by log-loss inside `train`."""
    l2 = L2[len(L2) // 2]
    inner_train, inner_test = _inner_split(train, seed)
    if len(inner_test):
        fits = fit_logistic(inner_train.embeddings, inner_train.quality, L2)
        losses = [log_loss(fit.predict(inner_test.embeddings), inner_test.quality) for fit in fits]
        l2 = L2[int(np.argmin(losses))] if np.isfinite(losses).all() else l2
    (fit,) = fit_logistic(train.embeddings, train.quality, (l2,))
    predicted = fit.predict(test.embeddings)
    without_outcomes = np.isnan(train.quality).all(axis=0)
    predicted[:, without_outcomes] = agent_means(train.quality)[without_outcomes]
    return predicted


def _inner_split(train: Sample, seed: int) -> tuple[Sample, Sample]:
    fold = folds_of(train.groups, _INNER_FOLDS, seed + 1)
    return train.rows(np.flatnonzero(fold != 0)), train.rows(np.flatnonzero(fold == 0))


BASELINES: Mapping[str, Baseline] = {
    "random": random_choice,
    "best single": best_single,
    "per-task mean": task_means,
    "nearest neighbours": nearest_neighbours,
    "logistic regression": logistic_regression,
}
"""Those that learn or pretend to, by the name they have in reports, from the simplest to the best."""
