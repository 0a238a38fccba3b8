"""Five numbers that say how promising a candidate is for a request.

In: a query vector, candidates, metadata of the request, an instant. Out: similarity, recency, frequency, success rate
and metadata overlap, each in [0, 1] and each larger when the candidate is more promising, in that order. A
candidate's numbers depend on itself and the request alone, never on which other candidates came along.

========================  ==========================================================================================
semantic_similarity       (1 + cosine) / 2: 1 same direction, 0.5 unrelated, 0 opposite
recency_score             exp(-recency_decay x age in hours); an instant in the future counts as now
frequency_score           a / (a + log(1 + 10)) with a = log(1 + access_count): 0 never used, 0.5 at 10 uses, below 1
success_rate              as the candidate states it
metadata_overlap          Jaccard: shared key-value pairs over all distinct pairs; 0 where the request has none
========================  ==========================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError, SpaceMismatchError
from tinydancer.types import Candidate
from tinydancer.validation import FloatVector

__all__ = ["FEATURE_NAMES", "FeatureConfig", "FeatureEngineer", "Features"]

FEATURE_NAMES = ("semantic_similarity", "recency_score", "frequency_score", "success_rate", "metadata_overlap")
SUCCESS_RATE = FEATURE_NAMES.index("success_rate")
HALF_FREQUENCY_COUNT = 10
"""Uses at which the frequency score is one half."""

_SECONDS_PER_HOUR = 3600.0
_ROWS_AT_A_TIME = 128  # 0.2 MB of 384 dimensions: rows are multiplied while they are still in the cache
_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureConfig:
    """How the features weigh in the combined score.

    Parameters
    ----------
    similarity_weight, recency_weight, frequency_weight, success_weight, metadata_weight
        Each in [0, 1], together 1, so that the combined score is in [0, 1] too.
    recency_decay
        Rate of forgetting per hour, at least 0. At 0.001 a candidate's recency halves every 29 days.
    """

    similarity_weight: float = 0.5
    recency_weight: float = 0.2
    frequency_weight: float = 0.1
    success_weight: float = 0.15
    metadata_weight: float = 0.05
    recency_decay: float = 0.001

    def __post_init__(self) -> None:
        for f in fields(self):
            high = math.inf if f.name == "recency_decay" else 1.0
            object.__setattr__(self, f.name, check.number(getattr(self, f.name), f.name, low=0.0, high=high))
        total = sum(self.weights)
        if abs(total - 1.0) > 1e-6:
            raise InvalidInputError(
                f"The feature weights add up to {total:g}; expected 1.", hint=f"Divide each of them by {total:g}."
            )

    @property
    def weights(self) -> tuple[float, float, float, float, float]:
        """The weights in the order of `FEATURE_NAMES`."""
        return (
            self.similarity_weight,
            self.recency_weight,
            self.frequency_weight,
            self.success_weight,
            self.metadata_weight,
        )


@dataclass(frozen=True, slots=True)
class Features:
    """The features of one candidate for one request.

    Attributes
    ----------
    semantic_similarity, recency_score, frequency_score, success_rate, metadata_overlap
        Each in [0, 1], as the module describes them.
    features
        ``float32[5]``: each times its weight, so that their sum is the combined score in [0, 1].
    """

    semantic_similarity: float
    recency_score: float
    frequency_score: float
    success_rate: float
    metadata_overlap: float
    features: FloatVector = field(compare=False)

    @property
    def combined_score(self) -> float:
        """The weighted mean of the five, in [0, 1]."""
        return float(self.features.sum(dtype=np.float64))


class FeatureEngineer:
    """Computes features, for one candidate or for many at once.

    Parameters
    ----------
    config
        Weights and decay; None takes the defaults.
    """

    def __init__(self, config: FeatureConfig | None = None) -> None:
        self.config = config or FeatureConfig()
        self.weights: FloatVector = np.array(self.config.weights, dtype=np.float32)

    def extract_features(
        self,
        query: npt.ArrayLike,
        candidate: Candidate,
        query_metadata: Mapping[str, Any] | None = None,
        *,
        now: float,
    ) -> Features:
        """The features of one candidate; parameters and errors as in `extract_batch`."""
        row = self.extract_batch(query, (candidate,), query_metadata, now=now)[0]
        similarity, recency, frequency, success, overlap = map(float, row)
        return Features(similarity, recency, frequency, success, overlap, features=row * self.weights)

    def extract_batch(
        self,
        query: npt.ArrayLike,
        candidates: Sequence[Candidate],
        query_metadata: Mapping[str, Any] | None = None,
        *,
        now: float,
    ) -> FloatVector:
        """The features of many candidates, before any weight.

        Parameters
        ----------
        query
            Shape (dim,), any length but zero.
        candidates
            n of them, with embeddings of the query's dimension.
        query_metadata
            Pairs to look for in the candidates' metadata. Numbers are equal by value; true is not 1.
        now
            Seconds since 1970.

        Returns
        -------
        float32[n, 5] in [0, 1], columns as in `FEATURE_NAMES`. Times ``weights``, its rows add up to the combined
        score.

        Raises
        ------
        InvalidVectorError
            A vector that is zero or not finite.
        SpaceMismatchError
            A candidate of another dimension than the query; the message names both.
        InvalidInputError
            `now` is no instant, or `query_metadata` no object.
        """
        unit_query = check.unit_vector(query, "The query embedding")
        now = check.number(now, "now", low=0.0, high=1e12, unit="s")
        if query_metadata is not None and not isinstance(query_metadata, Mapping):
            raise InvalidInputError(f"The query's metadata is {check.shown(query_metadata)}; expected an object.")
        n = len(candidates)
        features = np.empty((n, len(FEATURE_NAMES)), dtype=np.float32)
        features[:, 0] = _similarities(unit_query, candidates)
        age_hours = (now - _column(candidates, "created_at")) / _SECONDS_PER_HOUR
        features[:, 1] = np.exp(-self.config.recency_decay * np.maximum(age_hours, 0.0))
        used = np.log1p(_column(candidates, "access_count"))
        features[:, 2] = used / (used + math.log1p(HALF_FREQUENCY_COUNT))
        features[:, SUCCESS_RATE] = _column(candidates, "success_rate")
        features[:, 4] = _overlaps(candidates, query_metadata) if query_metadata else 0.0
        return features


def _column(candidates: Sequence[Candidate], name: str) -> npt.NDArray[np.float64]:
    return np.fromiter(map(attrgetter(name), candidates), dtype=np.float64, count=len(candidates))


def _similarities(unit_query: FloatVector, candidates: Sequence[Candidate]) -> FloatVector:
    """(1 + cosine) / 2 of each candidate, ``float32[n]``."""
    dim = unit_query.size
    embeddings = [c.embedding for c in candidates]
    if set(map(len, embeddings)) - {dim}:
        odd = next(c for c in candidates if len(c.embedding) != dim)
        raise SpaceMismatchError(
            f"Candidate {odd.id!r} has {len(odd.embedding)} dimensions; the query has {dim}.",
            hint="Embed both with the same embedder.",
        )
    n = len(embeddings)
    dots = np.empty(n, dtype=np.float32)
    squares = np.empty(n, dtype=np.float32)
    # One buffer for all chunks: fresh memory of this size costs more in page faults than the arithmetic does.
    buffer = np.empty((min(n, _ROWS_AT_A_TIME), dim), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for start in range(0, n, _ROWS_AT_A_TIME):
            chunk = embeddings[start : start + _ROWS_AT_A_TIME]
            stop = start + len(chunk)
            rows = buffer[: len(chunk)]
            np.concatenate(chunk, out=rows.reshape(-1))
            # Row by row, unlike a matrix product, so that a candidate's rounding does not depend on its place.
            np.einsum("ij,j->i", rows, unit_query, out=dots[start:stop])
            np.einsum("ij,ij->i", rows, rows, out=squares[start:stop])
        cosines = dots / np.sqrt(squares)
    # Lengths whose squares leave float32 (or arrays that were changed after they were checked) are done with care.
    for i in np.flatnonzero(~((squares > 1e-30) & (squares < 1e38))).tolist():
        row = check.unit_vector(embeddings[i], f"The embedding of candidate {candidates[i].id!r}")
        cosines[i] = np.dot(row, unit_query)
    cosines *= 0.5
    cosines += 0.5
    # Rounding may leave [0, 1] by a hair.
    return np.minimum(np.maximum(cosines, 0.0, out=cosines), 1.0, out=cosines)


def _overlaps(candidates: Sequence[Candidate], wanted: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Shared pairs over all distinct pairs, ``float64[n]``; `wanted` is not empty."""
    metadata = [c.metadata for c in candidates]
    n = len(metadata)
    shared = np.zeros(n)
    for key, value in wanted.items():
        shared += np.fromiter((_same(m.get(key, _ABSENT), value) for m in metadata), dtype=bool, count=n)
    sizes = np.fromiter(map(len, metadata), dtype=np.float64, count=n)
    return shared / (sizes + len(wanted) - shared)


def _same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, bool) == isinstance(other, bool) and bool(one == other))
