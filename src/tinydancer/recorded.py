"""What a deployment recorded, as a table to train on: every judged answer whose decision kept its request's features.

In: a store. Out: vectors, facts and outcomes as `QualityData`. Texts are not needed; where they were recorded, nobody
reads them here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tinydancer.abilities import features_of
from tinydancer.errors import InvalidInputError
from tinydancer.model.quality_training import QualityData
from tinydancer.store.base import GradedFeatures, Store
from tinydancer.validation import FloatVector

__all__ = ["MOST_ANSWERS", "recorded_data"]

MOST_ANSWERS = 1_000_000
_AT_ONCE = 5_000


def recorded_data(store: Store, *, most: int = MOST_ANSWERS) -> QualityData:
    """The latest judged answers, at most `most`; one row per different request, in the order they came.

    Of an agent's several answers to one request, or several judgements of one answer, the mean is taken.

    Raises
    ------
    InvalidInputError
        None were recorded.
    """
    answers: list[GradedFeatures] = []
    after = 0
    while rows := store.graded_features(after, _AT_ONCE):
        answers = (answers + rows)[-most:]
        after = rows[-1].outcome_id
    if not answers:
        raise InvalidInputError(
            "The store has no judged answers to learn from: none of its outcomes has a quality and a decision that "
            "kept its request's features.",
            hint="Turn record_features on (or use a model), route, report outcomes with a quality, and come back.",
        )
    agents = tuple(sorted({answer.agent_name for answer in answers}))
    row = {name: i for i, name in enumerate(agents)}
    # One row per request: answers of several agents to the same features stand side by side.
    packed = list(dict.fromkeys(answer.features for answer in answers))
    at = {features: i for i, features in enumerate(packed)}
    vectors, facts = features_of(packed, store.space)
    cells = np.array([(at[answer.features], row[answer.agent_name]) for answer in answers])
    quality = _means(cells, [answer.quality for answer in answers], (len(packed), len(agents)))
    usd = [np.nan if answer.cost_usd is None else answer.cost_usd for answer in answers]
    cost = _means(cells, usd, quality.shape)
    return QualityData((vectors,), _without_gaps(facts), quality, cost, agents)


def _means(cells: npt.NDArray[np.intp], values: Sequence[float], shape: tuple[int, ...]) -> FloatVector:
    """Mean of the values in each cell that are known; NaN where none is."""
    known = ~np.isnan(values)
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, tuple(cells[known].T), np.asarray(values)[known])
    np.add.at(count, tuple(cells[known].T), 1.0)
    means: FloatVector = np.divide(total, count, out=np.full(shape, np.nan), where=count > 0).astype(np.float32)
    return means


def _without_gaps(facts: FloatVector) -> FloatVector:
    """Requests that came as vectors alone get the mean of the others' facts, which is how a model reads them later."""
    missing = np.isnan(facts[:, 0])
    usual = np.zeros(facts.shape[1], np.float32) if missing.all() else facts[~missing].mean(axis=0)
    return np.where(missing[:, None], usual, facts)
