"""Training the quality model: from judged answers to a `QualityModel`.

In: vectors of requests, surface features of their texts, a matrix of observed qualities with gaps, costs where known.
Out: a model, and predictions for every training row by a model that did not see it. No files, no clock; a seed.

What is minimised stands in `tinydancer.model.quality_fitting`. Predictions for rows that were left out (cross-fitting)
give the calibration (Platt, 1999), the conformal interval and the figures in the model card; the strength of all
penalties is chosen by how well they tell the agents of a request apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer.errors import InvalidInputError
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.fastgrnn import FastGRNN
from tinydancer.model.quality import QualityModel
from tinydancer.model.quality_calibration import (
    bar_lines,
    cost_head,
    excess_in_errors,
    platt,
    quality_from_cost,
    routing_loss,
    routing_losses,
)
from tinydancer.model.quality_data import QualityData, QualityTrainingConfig, Rows
from tinydancer.model.quality_fitting import BIAS_VARIANCE, INPUT_SCALE, Fitted, fit
from tinydancer.model.surface import SURFACE_DIM
from tinydancer.types import EmbeddingSpace

__all__ = ["CrossFit", "Progress", "QualityData", "QualityTrainingConfig", "cross_fit", "fit_quality_model", "folds"]

Array = npt.NDArray[np.float64]
Progress = Callable[[float, str], None]
"""Called with the share that is done, in [0, 1], and what is being done."""

COVERAGE = 0.9


def _no_progress(share: float, what: str) -> None:
    """For callers that do not look."""


def _told_nobody(share: float) -> None:
    """For fits that nobody waits for."""


class CrossFit(NamedTuple):
    """What models predicted for rows they had not seen.

    Attributes
    ----------
    logits
        ``float64[n, M]``, uncalibrated; NaN where no row was left out (large data).
    strength
        The factor on the penalties that was chosen.
    losses
        Of each strength tried, in order: the mean squared error of how far each agent is above or below the others on
        the same request, which is what routing needs; the cross-entropy where no request was answered twice.
    task_share
        The share of task means in the target that did best.
    task_losses
        The best loss with ``task_share`` of the settings and with each of the others.
    """

    logits: Array
    strength: float
    losses: tuple[float, ...]
    task_share: float
    task_losses: tuple[float, ...]


def fit_quality_model(
    data: QualityData,
    space: EmbeddingSpace,
    *,
    config: QualityTrainingConfig | None = None,
    start: QualityModel | None = None,
    progress: Progress = _no_progress,
) -> tuple[QualityModel, CrossFit]:
    """A calibrated model, and what models like it predicted for rows that were left out.

    Parameters
    ----------
    data
        At least 2 requests for every fold.
    space
        Of the embeddings.
    start
        A model to start from: penalties pull towards its parameters instead of towards zero, so that little data
        refine it and much data replace it. Of the strengths the greatest one is taken that is not worse than the best
        by more than a standard error. It must be of the same space.
    progress
        See `Progress`.

    Raises
    ------
    InvalidInputError
        Too few requests, or a start of another space.
    """
    config = config or QualityTrainingConfig()
    if data.embeddings[0].shape[1] != space.dim:
        raise InvalidInputError(
            f"The embeddings have {data.embeddings[0].shape[1]} dimensions; the space {space.name!r} has {space.dim}."
        )
    if start is not None and (start.space != space or start.hidden_dim != config.hidden_dim):
        raise InvalidInputError(
            f"The model to start from reads {start.space.name!r} with {start.space.dim} dimensions and has "
            f"{start.hidden_dim} hidden units; expected {space.name!r}, {space.dim} and {config.hidden_dim}.",
            hint="Train without it, or embed with the embedder it was trained with.",
        )
    if start is not None and (not start.network.config.tied or start.network.config.rank_w is not None):
        raise InvalidInputError(
            "The model to start from is compressed or of an unusual form; expected a tied network with a full W.",
            hint="Start from the model it was made from.",
        )
    at_once = config.folds if len(data) <= config.holdout_rows else 1
    other_shares = config.other_task_shares if data.tasks is not None else ()
    by_strength = sorted(config.strengths)
    fits = at_once * (len(by_strength) + len(other_shares) * min(2, len(by_strength))) + 1
    done = 0

    def part(share: float, what: str) -> None:
        progress(min(1.0, (done + share) / fits), what)

    def tried(strength: float, task_share: float) -> tuple[float, Array]:
        nonlocal done
        logits = np.full(data.quality.shape, np.nan)
        for train, test in folds(data, config)[:at_once]:
            fitted = fit(data, train, config, strength, task_share, start, lambda s: part(s, "cross-fitting"))
            logits[test] = fitted.logits(data, test)
            done += 1
        return routing_loss(logits, data.quality), logits

    losses = []
    best: tuple[float, Array, float, float] | None = None
    kept: list[tuple[float, Array, float]] = []
    cautious = start is not None and at_once > 1
    for strength in config.strengths:
        loss, logits = tried(strength, config.task_share)
        losses.append(loss)
        if cautious:
            kept.append((loss, logits, strength))
        if best is None or loss < best[0]:
            best = loss, logits, strength, config.task_share
    assert best is not None  # strengths is not empty
    if cautious:
        loss, logits, strength = _nearest_to_start(kept, data.quality)
        best = loss, logits, strength, config.task_share
    task_losses = [best[0]]
    place = by_strength.index(best[2])
    for task_share in other_shares:
        of_share = []
        for strength in by_strength[place if cautious else max(0, place - 1) : place + 1]:
            loss, logits = tried(strength, task_share)
            of_share.append(loss)
            if loss < best[0]:
                best = loss, logits, strength, task_share
        task_losses.append(min(of_share))
    _, logits, strength, task_share = best
    cross = CrossFit(logits, strength, tuple(losses), task_share, tuple(task_losses))
    everything = np.arange(len(data))
    done = fits - 1
    fitted = fit(data, everything, config, strength, task_share, start, lambda s: part(s, "training"))
    return _assembled(data, space, config, fitted, cross, refined=start is not None), cross


def _nearest_to_start(
    tried: Sequence[tuple[float, Array, float]], quality: npt.ArrayLike
) -> tuple[float, Array, float]:
    """Of (loss, logits, strength) the one of the greatest strength that is not clearly worse than the best.

    Clearly is by more than a standard error of the difference (Breiman et al., Classification and Regression Trees,
    1984, 3.4.3). What a model knew before is left as far as the data show that this pays: with some hundred requests
    the least loss is chance, and to follow it would unlearn what thousands taught.
    """
    observed = np.asarray(quality, np.float32)
    least = routing_losses(min(tried, key=lambda one: one[0])[1], observed)
    fair = [one for one in tried if excess_in_errors(routing_losses(one[1], observed), least) <= 1.0]
    return max(fair, key=lambda one: one[2])


def cross_fit(
    data: QualityData,
    config: QualityTrainingConfig,
    splits: Sequence[tuple[Rows, Rows]],
    *,
    start: QualityModel | None = None,
    strength: float = 1.0,
    view: int = 0,
) -> Array:
    """Logits for the test rows of each (train, test) split by a model of its training rows; ``float64[n, M]``."""
    logits = np.full(data.quality.shape, np.nan)
    for train, test in splits:
        logits[test] = fit(data, train, config, strength, config.task_share, start, _told_nobody).logits(
            data, test, view
        )
    return logits


def folds(data: QualityData, config: QualityTrainingConfig) -> list[tuple[Rows, Rows]]:
    """Splits of the rows, groups kept together; each row is in the test part of one of them."""
    n = len(data)
    groups = np.arange(n) if data.groups is None else data.groups
    names, of_row = np.unique(groups, return_inverse=True)
    if names.size < config.folds:
        raise InvalidInputError(
            f"There are {names.size} different requests; {config.folds} folds need at least as many.",
            hint="Collect more judged requests: 50 are the least that make sense.",
        )
    part = np.random.default_rng([config.seed, 1]).permutation(names.size) % config.folds
    return [(np.flatnonzero(part[of_row] != f), np.flatnonzero(part[of_row] == f)) for f in range(config.folds)]


def _assembled(
    data: QualityData,
    space: EmbeddingSpace,
    config: QualityTrainingConfig,
    fitted: Fitted,
    cross: CrossFit,
    *,
    refined: bool,
) -> QualityModel:
    """The model of all rows, calibrated by the predictions for rows that were left out."""
    here = ~(np.isnan(cross.logits) | np.isnan(data.quality))
    scale, shift = platt(cross.logits[here], data.quality[here])
    calibrated = scale * cross.logits + shift
    probability = 1.0 / (1.0 + np.exp(-calibrated))
    abilities = np.concatenate([fitted.shared + fitted.own, fitted.bias[:, None]], axis=1) * np.float32(scale)
    abilities[:, -1] += np.float32(shift)

    # Means and covariances from at most this many rows: they are sums over the whole data otherwise.
    sample = np.random.default_rng([config.seed, 3]).permutation(len(data))[:50_000]
    states = fitted.states(data, sample).astype(np.float64)
    phi = np.concatenate([states, np.ones((len(states), 1))], axis=1)
    p = 1.0 / (1.0 + np.exp(-np.clip(phi @ abilities.T.astype(np.float64), -30.0, 30.0)))
    seen = ~np.isnan(data.quality[sample])
    row_weight = np.where(seen, p * (1.0 - p), 0.0).sum(axis=1)
    information = (phi * row_weight[:, None]).T @ phi / max(1, int(seen.sum()))
    prior = np.zeros((config.hidden_dim + 1, config.hidden_dim + 1))
    # Members' own parts add up as if they were one: each has its share of the logits, not of their variance.
    members = 1 if refined else config.members
    own_variance = scale * scale / max(1e-6, config.penalty_agent * cross.strength * members)
    prior[np.diag_indices_from(prior)] = [own_variance] * config.hidden_dim + [BIAS_VARIANCE]

    network = FastGRNN(fitted.network.config, {k: v.copy() for k, v in fitted.network.parameters.items()})
    network.parameters["w"][:, : space.dim] *= np.float32(INPUT_SCALE)
    costs = data.cost_usd[sample].astype(np.float64)
    priced = costs > 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        cost = np.where(priced, costs, 0.0).sum(axis=0) / priced.sum(axis=0)
    surface = fitted.inputs(data, sample)[:, -SURFACE_DIM:]
    cost_features = np.concatenate([states, surface, np.ones((len(states), 1))], axis=1)
    return QualityModel(
        network=network,
        space=space,
        agents=data.agents,
        abilities=abilities.astype(np.float32),
        observed=(~np.isnan(data.quality)).sum(axis=0).astype(np.float64),
        surface_mean=np.asarray(fitted.surface_mean, np.float32),
        surface_scale=np.asarray(fitted.surface_scale, np.float32),
        usual_mean=states.mean(axis=0),
        usual_covariance=np.cov(states.T, bias=True).reshape(config.hidden_dim, config.hidden_dim),
        prior_mean=scale * fitted.shared.astype(np.float64),
        prior_covariance=prior,
        information=information,
        bars=bar_lines(calibrated[here], data.quality[here]),
        cost_usd=cost,
        cost_weights=cost_head(cost_features, costs),
        quality_from_cost=quality_from_cost(data.quality, cost),
        interval=ConformalInterval.from_outcomes(
            np.where(np.isnan(probability), 0.5, probability),
            np.where(np.isnan(probability), np.nan, data.quality),
            COVERAGE,
        ),
    )
