"""Teaches the candidate scorer which candidates answered their query, and measures how well it ranks.

In: for many queries, the features of the candidates that were at hand and whether each really answered. Out: a
`CandidateScorer` whose FastGRNN (5 inputs, 8 hidden, 1 output) learnt from some of the queries and whose conformal
interval comes from others; and figures that compare any scores with the truth: accuracy, AUC, nDCG.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.model.candidates import CandidateScorer
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.features import FEATURE_NAMES
from tinydancer.model.training import TrainingConfig, train_network
from tinydancer.validation import FloatVector

__all__ = ["CandidateFigures", "LabelledCandidates", "candidate_figures", "train_candidate_scorer"]

FloatArray = npt.NDArray[np.float64]

HIDDEN_DIM = 8
LEAST_QUERIES = 8
"""Fewer cannot be split into queries to learn from and queries to calibrate on."""


@dataclass(frozen=True, slots=True)
class LabelledCandidates:
    """The candidates of one request, and which of them answered it.

    Parameters
    ----------
    query
        Names the query: sets with equal names are never split between learning and calibration.
    features
        ``float32[n, 5]`` in [0, 1], as `FeatureEngineer.extract_batch` gives them; at least one row.
    relevant
        ``float64[n]`` in [0, 1]: 1 answered the query, 0 did not.

    Raises
    ------
    InvalidInputError
        Other shapes, NaN, or numbers outside [0, 1].
    """

    query: Hashable
    features: FloatVector = field(compare=False)
    relevant: FloatArray = field(compare=False)

    def __post_init__(self) -> None:
        columns = len(FEATURE_NAMES)
        features = _in_unit_range(self.features, "features", np.dtype(np.float32))
        relevant = _in_unit_range(self.relevant, "relevant", np.dtype(np.float64))
        if features.ndim != 2 or features.shape[1] != columns or not len(features):
            raise InvalidInputError(
                f"features has shape {features.shape}; expected (n, {columns}) with n of 1 or more."
            )
        if relevant.shape != (len(features),):
            raise InvalidInputError(f"relevant has shape {relevant.shape}; expected ({len(features)},).")
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "relevant", relevant)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateFigures:
    """How well scores tell candidates that answered from those that did not.

    Attributes
    ----------
    candidates, queries, sets
        How many there were.
    accuracy
        Share of candidates on the right side of 0.5.
    auc
        Probability that a relevant candidate scores above an irrelevant one, whatever their queries; ties count half.
        None where all are relevant, or none is.
    ndcg
        Mean over the sets that hold a relevant candidate of ``DCG / best DCG``, ``DCG = sum rel_i / log2(rank_i + 1)``
        (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002); None where no set does.
    first_is_right
        Share of those sets whose highest score is a relevant candidate's; None where no set does.
    log_loss
        Mean negative logarithm of the probability that the scores give the truth.
    """

    candidates: int
    queries: int
    sets: int
    accuracy: float
    auc: float | None
    ndcg: float | None
    first_is_right: float | None
    log_loss: float

    def to_dict(self) -> dict[str, Any]:
        """Fields in JSON's types."""
        return asdict(self)


def candidate_figures(sets: Sequence[LabelledCandidates], scores: Sequence[npt.ArrayLike]) -> CandidateFigures:
    """Compare scores with the truth.

    Parameters
    ----------
    sets
        At least one.
    scores
        For each set, shape (n,) in [0, 1]; the higher, the more promising. Of equal scores the worse order counts.

    Raises
    ------
    InvalidInputError
        No sets, or scores of another number or range.
    """
    given = [_in_unit_range(score, "scores", np.dtype(np.float64)) for score in scores]
    if not sets or [s.shape for s in given] != [one.relevant.shape for one in sets]:
        raise InvalidInputError("scores do not fit the sets; expected at least one set, and a score per candidate.")
    flat, truth = np.concatenate(given), np.concatenate([one.relevant for one in sets])
    with_answer = [(one.relevant, score) for one, score in zip(sets, given, strict=True) if one.relevant.max() > 0.0]
    kept = np.clip(flat, 1e-6, 1.0 - 1e-6)
    return CandidateFigures(
        candidates=len(flat),
        queries=len({one.query for one in sets}),
        sets=len(sets),
        accuracy=float(((flat > 0.5) == (truth > 0.5)).mean()),
        auc=_auc(flat, truth > 0.5),
        ndcg=float(np.mean([_ndcg(*pair) for pair in with_answer])) if with_answer else None,
        first_is_right=float(np.mean([_first(*pair) for pair in with_answer])) if with_answer else None,
        log_loss=float(-(truth * np.log(kept) + (1.0 - truth) * np.log(1.0 - kept)).mean()),
    )


def train_candidate_scorer(
    sets: Sequence[LabelledCandidates],
    *,
    config: TrainingConfig | None = None,
    coverage: float = 0.9,
    calibration_share: float = 0.25,
    seed: int = 0,
) -> tuple[CandidateScorer, CandidateFigures]:
    """Learn from labelled candidates; calibrate on queries that were not learnt from.

    Parameters
    ----------
    sets
        Of at least `LEAST_QUERIES` distinct queries, with relevant and irrelevant candidates among them.
    config
        How to train; its seed is replaced by `seed`. None: 80 epochs in batches of 128 at a rate of 0.01.
    coverage
        Of the conformal interval, in (0, 1).
    calibration_share
        Share of the queries in (0, 0.9] that are kept for it.
    seed
        Of the split, the initial weights and the training.

    Returns
    -------
    scorer, figures
        The figures are of the calibration queries.

    Raises
    ------
    InvalidInputError
        Too few queries, or candidates that are all relevant or all irrelevant.
    ModelError
        Training diverged.

    Notes
    -----
    The interval covers exactly for candidates exchangeable with the calibration candidates. Those of one query resemble
    each other, so with few queries the coverage on new ones varies more than their number suggests.
    """
    seed = check.count(seed, "seed")
    calibration_share = check.number(calibration_share, "calibration_share", low=1e-6, high=0.9)
    queries = list(dict.fromkeys(one.query for one in sets))
    if len(queries) < LEAST_QUERIES:
        raise InvalidInputError(
            f"The sets are of {len(queries)} distinct queries; expected at least {LEAST_QUERIES}.",
            hint="A scorer that saw a handful of queries has learnt those queries. The fallback needs none.",
        )
    order = np.random.default_rng([seed, 11]).permutation(len(queries))
    kept = {queries[i] for i in order[: max(1, round(calibration_share * len(queries)))]}
    learning = [one for one in sets if one.query not in kept]
    calibrating = [one for one in sets if one.query in kept]
    network = FastGRNN(FastGRNNConfig(input_dim=len(FEATURE_NAMES), hidden_dim=HIDDEN_DIM, output_dim=1, seed=seed))
    train_network(
        network,
        np.concatenate([one.features for one in learning]),
        np.concatenate([one.relevant for one in learning]),
        config=replace(config or _DEFAULT, seed=seed),
        loss="binary",
    )
    scores = [network.forward_batch(one.features)[:, 0].astype(np.float64) for one in calibrating]
    residuals = np.concatenate([np.abs(one.relevant - s) for one, s in zip(calibrating, scores, strict=True)])
    interval = ConformalInterval.from_residuals(residuals, coverage)
    network.metadata = {"calibration": interval.to_dict()}
    return CandidateScorer(network, interval), candidate_figures(calibrating, scores)


_DEFAULT = TrainingConfig(epochs=80, batch_size=128, learning_rate=0.01, validation_share=0.0, patience=None)


def _auc(scores: FloatArray, relevant: npt.NDArray[np.bool_]) -> float | None:
    """The Mann-Whitney statistic over all pairs, from mean ranks."""
    positives = int(relevant.sum())
    negatives = len(relevant) - positives
    if not positives or not negatives:
        return None
    number, counts = np.unique(scores, return_inverse=True, return_counts=True)[1:]
    mean_rank = np.cumsum(counts) - (counts - 1) / 2.0
    return float((mean_rank[number][relevant].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def _ranks(relevant: FloatArray, scores: FloatArray) -> npt.NDArray[np.intp]:
    """Positions from the highest score to the lowest, irrelevant ones first among equals."""
    return np.lexsort((relevant, -scores))


def _ndcg(relevant: FloatArray, scores: FloatArray) -> float:
    discount = 1.0 / np.log2(np.arange(len(relevant)) + 2.0)
    best = float((np.sort(relevant)[::-1] * discount).sum())
    return float((relevant[_ranks(relevant, scores)] * discount).sum()) / best


def _first(relevant: FloatArray, scores: FloatArray) -> bool:
    return bool(relevant[_ranks(relevant, scores)[0]] > 0.5)


def _in_unit_range(value: Any, name: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    try:
        array = np.asarray(value, dtype=dtype)
    except (TypeError, ValueError):
        raise InvalidInputError(f"{name} is {check.shown(value)}; expected numbers in [0, 1].") from None
    if not np.all((array >= 0.0) & (array <= 1.0)):
        raise InvalidInputError(f"{name} holds NaN or numbers outside [0, 1].")
    return array
