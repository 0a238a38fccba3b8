"""Training the quality model: from judged answers to a `QualityModel`.

In: vectors of requests, surface features of their texts, a matrix of observed qualities with gaps, costs where known.
Out: a model, and predictions for every training row by a model that did not see it. No files, no clock; a seed.

The parameters minimise, over the answers y(r, a) in [0, 1] that were observed, with the ability split into what all
agents share and what is an agent's own, ``v_a = m + d_a``::

    sum over (r, a) of  H(y, sigma(v_a . h_r + b_a + c_(g(r), a)))
    + 1/2 ( l_W |W_x|^2 + l_S |W_s|^2 + l_d sum |d_a|^2 + l_m |m|^2 + l_c |c|^2 + l_b sum (b_a - b)^2 )

with H the cross-entropy and g(r) the source of a request. The penalty on d_a against the far smaller one on m is what
"small data sets want shrinkage per agent" means: agents differ only as far as the data insist, and what makes a
request hard is learned from all of them together. The offsets c take up what is peculiar to a source as a whole (how
hard it is, how its prompts are laid out), and are dropped afterwards: otherwise the model would spend its surface
features on telling sources apart. The bias of an agent is pulled to the mean b of all, by as much as is believed of a
new agent (l_b is one over that belief's variance, whatever the strength): three answers do not make a bias.

Where requests have tasks, the targets are distilled: a share of each is the agent's mean over the task (of the training
rows, shrunk towards its mean over the source), a teacher with less noise than a single answer (Hinton et al., arXiv
1503.02531, with labels and teacher mixed). The model that comes out needs no task.

Predictions for rows that were left out (cross-fitting) give the calibration (Platt, 1999), the conformal interval and
the figures in the model card; the strength of all penalties is chosen by how well they tell the agents of a request
apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.gradients import Network, backward, forward_cached, sigmoid
from tinydancer.model.optimisation import Adam, dropout_mask, learning_rate_at
from tinydancer.model.quality import QUALITY_BARS, QualityModel
from tinydancer.model.surface import SURFACE_DIM
from tinydancer.types import EmbeddingSpace
from tinydancer.validation import FloatVector

__all__ = [
    "CrossFit",
    "Progress",
    "QualityData",
    "QualityTrainingConfig",
    "cost_head",
    "cross_fit",
    "fit_quality_model",
    "platt",
]

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Progress = Callable[[float, str], None]
"""Called with the share that is done, in [0, 1], and what is being done."""

COVERAGE = 0.9
_INPUT_SCALE = 20.0  # unit vectors of 384 dimensions have entries of 0.05: brought to about 1, where Adam's steps fit
_BIAS_VARIANCE = 0.5
_SHARED_COST_PENALTY, _OWN_COST_PENALTY = 1.0, 10.0
_LEAST_SCALE = 0.05
_TASK_SHRINKAGE = 5.0  # answers' worth of the source's mean in a task's


def _no_progress(share: float, what: str) -> None:
    """For callers that do not look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityTrainingConfig:
    """Knobs of the training; the defaults were chosen by cross-validation over four data sets together.

    Parameters
    ----------
    hidden_dim
        k, numbers that describe a request.
    members
        Networks of k / members units each, trained from different seeds and put side by side as one: the mean of their
        logits varies less than any of them.
    epochs, batch_size, learning_rate
        As usual; of the learning rate a cosine is left. Small data get more epochs, until `min_steps` are made, large
        data fewer, until `max_steps` are.
    strengths
        Factors on all penalties, of which the best by cross-fitting is taken.
    penalty_embedding, penalty_surface, penalty_agent, penalty_shared, penalty_source
        l_W, l_S, l_d, l_m, l_c above.
    task_share
        Share of the target that is the mean of the agent's answers over the request's task.
    dropout
        Share of inputs left out at each step.
    folds
        Parts of the cross-fitting; above `holdout_rows` rows, only the first is predicted.
    seed
        Of everything random.
    """

    hidden_dim: int = 64
    members: int = 2
    epochs: int = 25
    batch_size: int = 512
    min_steps: int = 400
    max_steps: int = 6000
    learning_rate: float = 5e-3
    strengths: tuple[float, ...] = (1.0,)
    penalty_embedding: float = 600.0
    penalty_surface: float = 10.0
    penalty_agent: float = 100.0
    penalty_shared: float = 2.0
    penalty_source: float = 10.0
    task_share: float = 0.3
    dropout: float = 0.1
    folds: int = 5
    holdout_rows: int = 50_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "members", "epochs", "batch_size", "min_steps", "max_steps", "holdout_rows"):
            check.count(getattr(self, name), name, low=1)
        if self.hidden_dim % self.members:
            raise InvalidInputError(
                f"hidden_dim {self.hidden_dim} does not divide into {self.members} members of equal size."
            )
        check.count(self.folds, "folds", low=2, high=100)
        check.count(self.seed, "seed")
        check.number(self.learning_rate, "learning_rate", low=1e-9, high=10.0)
        check.number(self.dropout, "dropout", low=0.0, high=0.95)
        check.number(self.task_share, "task_share", low=0.0, high=1.0)
        for part in ("embedding", "surface", "agent", "shared", "source"):
            check.number(getattr(self, f"penalty_{part}"), f"penalty_{part}", low=0.0)
        if not self.strengths:
            raise InvalidInputError("strengths is empty; expected at least one factor on the penalties.")
        for strength in self.strengths:
            check.number(strength, "a strength", low=1e-6, high=1e6)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {f.name: asdict(self)[f.name] for f in fields(self)}


@dataclass(frozen=True, slots=True)
class QualityData:
    """Judged answers as arrays.

    Parameters
    ----------
    embeddings
        One or more arrays ``float32[n, dim]``: the same requests by different embedders of one space.
    surface
        ``float32[n, F]``.
    quality
        ``float32[n, M]`` in [0, 1], NaN where an agent did not answer.
    cost_usd
        The same shape; NaN where unknown.
    agents
        M names.
    sources
        ``intp[n]``: which data set a request is of; None: one.
    tasks
        ``intp[n]``: which kind of task a request is, in the numbering of all sources; None: unknown.
    groups
        ``intp[n]``: requests of one group (equal texts, say) are never on both sides of a split; None: each its own.
    """

    embeddings: tuple[FloatVector, ...]
    surface: FloatVector
    quality: FloatVector
    cost_usd: FloatVector
    agents: tuple[str, ...]
    sources: Rows | None = None
    tasks: Rows | None = None
    groups: Rows | None = None

    def __post_init__(self) -> None:
        n = len(self)
        first = self.embeddings[0].shape if self.embeddings else ()
        if len(first) != 2 or first[0] != n or any(e.shape != first for e in self.embeddings):
            raise InvalidInputError(
                f"embeddings have the shapes {[e.shape for e in self.embeddings]}; expected one or more of ({n}, dim)."
            )
        shapes = {"surface": (n, SURFACE_DIM), "quality": (n, len(self.agents)), "cost_usd": (n, len(self.agents))}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InvalidInputError(f"{name} has shape {getattr(self, name).shape}; expected {shape}.")
        if n == 0 or not self.agents:
            raise InvalidInputError("There is nothing to learn from: no requests, or no agents.")
        if len(set(self.agents)) != len(self.agents):
            raise InvalidInputError("agents names one twice; expected distinct names.")
        for name in ("sources", "tasks", "groups"):
            numbers = getattr(self, name)
            if numbers is not None and (numbers.shape != (n,) or numbers.min() < 0):
                raise InvalidInputError(f"{name} has shape {numbers.shape}; expected {n} numbers from 0.")
        for array in self.embeddings:
            # In parts, because a mask of a million vectors is half a gigabyte.
            if not all(np.isfinite(array[part]).all() for part in _parts(np.arange(n))):
                raise InvalidInputError("An embedding is NaN or infinite.", hint="Embed the requests again.")
        if not np.isfinite(self.surface).all():
            raise InvalidInputError("A surface feature is NaN or infinite.")
        if np.isinf(self.cost_usd).any() or (self.cost_usd < 0.0).any():
            raise InvalidInputError("A cost is infinite or below 0; expected USD, NaN where unknown.")
        known = self.quality[~np.isnan(self.quality)]
        if not known.size:
            raise InvalidInputError("There is nothing to learn from: no answer was judged.")
        if known.min() < 0.0 or known.max() > 1.0:
            raise InvalidInputError(f"Qualities range from {known.min():g} to {known.max():g}; expected [0, 1].")

    def __len__(self) -> int:
        return int(self.quality.shape[0])


class CrossFit(NamedTuple):
    """What models predicted for rows they had not seen.

    Attributes
    ----------
    logits
        ``float64[n, M]``, uncalibrated; NaN where no row was left out (large data).
    strength
        The factor on the penalties that did best.
    losses
        Of each strength tried, in order: the mean squared error of how far each agent is above or below the others on
        the same request, which is what routing needs; the cross-entropy where no request was answered twice.
    """

    logits: Array
    strength: float
    losses: tuple[float, ...]


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
        refine it and much data replace it. It must be of the same space.
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
    fits = len(config.strengths) * (config.folds if len(data) <= config.holdout_rows else 1) + 1
    done = 0

    def part(share: float, what: str) -> None:
        progress((done + share) / fits, what)

    best: CrossFit | None = None
    losses = []
    for strength in config.strengths:
        logits = np.full(data.quality.shape, np.nan)
        for number, (train, test) in enumerate(folds(data, config)):
            fitted = _fit(data, train, config, strength, start, lambda s: part(s, "cross-fitting"))
            logits[test] = fitted.logits(data, test)
            done += 1
            if number == 0 and len(data) > config.holdout_rows:
                break
        losses.append(_routing_loss(logits, data.quality))
        if best is None or losses[-1] < min(losses[:-1]):
            best = CrossFit(logits, strength, ())
    assert best is not None  # strengths is not empty
    cross = best._replace(losses=tuple(losses))
    fitted = _fit(data, np.arange(len(data)), config, cross.strength, start, lambda s: part(s, "training"))
    return _assembled(data, space, config, fitted, cross, refined=start is not None), cross


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
        logits[test] = _fit(data, train, config, strength, start, lambda _: None).logits(data, test, view)
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


@dataclass(frozen=True, slots=True)
class _Fitted:
    """Parameters as they were trained: over inputs times `_INPUT_SCALE`, before calibration."""

    network: FastGRNN
    shared: FloatVector
    own: FloatVector
    bias: FloatVector
    surface_mean: FloatVector
    surface_scale: FloatVector

    def inputs(self, data: QualityData, rows: Rows, view: int = 0) -> FloatVector:
        return _inputs(data.embeddings[view][rows], data.surface[rows], self.surface_mean, self.surface_scale)

    def states(self, data: QualityData, rows: Rows, view: int = 0) -> FloatVector:
        parts = [self.network.encode_batch(self.inputs(data, part, view)) for part in _parts(rows)]
        return np.concatenate(parts)

    def logits(self, data: QualityData, rows: Rows, view: int = 0) -> Array:
        states = self.states(data, rows, view)
        return np.asarray(states @ (self.shared + self.own).T + self.bias, dtype=np.float64)


def _parts(rows: Rows, size: int = 8192) -> list[Rows]:
    return [rows[begin : begin + size] for begin in range(0, max(1, rows.size), size)]


def _inputs(embeddings: FloatVector, surface: FloatVector, mean: FloatVector, scale: FloatVector) -> FloatVector:
    dim = embeddings.shape[1]
    inputs = np.empty((len(embeddings), dim + SURFACE_DIM), np.float32)
    np.multiply(embeddings, np.float32(_INPUT_SCALE), out=inputs[:, :dim])
    np.clip((surface - mean) / scale, -4.0, 4.0, out=inputs[:, dim:])
    return inputs


def _fit(
    data: QualityData,
    rows: Rows,
    config: QualityTrainingConfig,
    strength: float,
    start: QualityModel | None,
    progress: Callable[[float], None],
) -> _Fitted:
    """Parameters from some rows: of one network, or of several side by side."""
    # A model to start from is one network already, whatever it was put together from.
    count = 1 if start is not None else config.members
    members = [
        _fit_member(data, rows, config, strength, start, config.hidden_dim // count, number,
                    lambda share, number=number: progress((number + share) / count))  # type: ignore[misc]
        for number in range(count)
    ]  # fmt: skip
    return members[0] if count == 1 else _side_by_side(members)


def _side_by_side(members: Sequence[_Fitted]) -> _Fitted:
    """One network whose logits are the mean of theirs."""
    first = members[0].network
    hidden = sum(member.network.config.hidden_dim for member in members)
    network = FastGRNN(replace(first.config, hidden_dim=hidden))
    for name, axis in (("w", 0), ("b", 1)):
        parts = [member.network.parameters[name] for member in members]
        network.parameters[name][...] = np.concatenate(parts, axis=axis)
    share = np.float32(1.0 / len(members))
    return _Fitted(
        network,
        np.concatenate([member.shared for member in members]) * share,
        np.concatenate([member.own for member in members], axis=1) * share,
        np.mean([member.bias for member in members], axis=0),
        members[0].surface_mean,
        members[0].surface_scale,
    )


def _fit_member(
    data: QualityData,
    rows: Rows,
    config: QualityTrainingConfig,
    strength: float,
    start: QualityModel | None,
    k: int,
    member: int,
    progress: Callable[[float], None],
) -> _Fitted:
    rng = np.random.default_rng([config.seed, 2, member])
    dim, agents = data.embeddings[0].shape[1], len(data.agents)
    if start is None:
        mean = data.surface[rows].mean(axis=0)
        scale = np.maximum(data.surface[rows].std(axis=0), np.float32(1e-3))
    else:
        mean, scale = np.array(start.surface_mean), np.array(start.surface_scale)
    quality = data.quality[rows]
    known = ~np.isnan(quality)
    sources = np.zeros(rows.size, np.intp) if data.sources is None else data.sources[rows]
    if data.tasks is not None and config.task_share:
        quality = (1.0 - config.task_share) * quality + config.task_share * _task_means(
            quality, data.tasks[rows], sources
        )
    target = np.where(known, quality, 0.0).astype(np.float32)
    weight = known.astype(np.float32)

    # One step from the zero state never uses U: of rank 1, it takes no room.
    shape = FastGRNNConfig(input_dim=dim + SURFACE_DIM, hidden_dim=k, rank_u=1, seed=config.seed + member)
    network, parameters, centres = _start(shape, data, target, weight, start, rng)
    parameters["source"] = np.zeros((int(sources.max()) + 1, agents), np.float32)
    centres["source"] = np.float32(0.0)
    column = np.full(dim + SURFACE_DIM, config.penalty_embedding, np.float32)
    column[dim:] = config.penalty_surface
    penalties: dict[str, Any] = {
        "w": column, "own": config.penalty_agent, "shared": config.penalty_shared, "source": config.penalty_source,
    }  # fmt: skip
    n = rows.size
    penalties = {name: np.float32(strength) * value / np.float32(n) for name, value in penalties.items()}
    # The same belief that a new agent starts with: three answers do not make a bias.
    penalties["bias"] = np.float32(1.0 / _BIAS_VARIANCE / n)

    per_epoch = math.ceil(n / config.batch_size)
    steps = min(config.max_steps, max(config.min_steps, config.epochs * per_epoch))
    adam = Adam(parameters, learning_rate=config.learning_rate, weight_decay=0.0)
    order = rng.permutation(n)
    begin = 0
    for step in range(steps):
        if begin >= n:
            order, begin = rng.permutation(n), 0
            progress(step / steps)
        batch = order[begin : begin + config.batch_size]
        begin += config.batch_size
        view = data.embeddings[int(rng.integers(len(data.embeddings)))]
        inputs = _inputs(view[rows[batch]], data.surface[rows[batch]], mean, scale)
        if config.dropout:
            inputs *= dropout_mask(rng, inputs.shape, config.dropout)
        grads = gradients(network, parameters, inputs, sources[batch], target[batch], weight[batch], penalties, centres)
        adam.step(grads, learning_rate_at(step, steps, peak=config.learning_rate, schedule="cosine", warmup_share=0.0))
    progress(1.0)
    return _Fitted(network, parameters["shared"], parameters["own"], parameters["bias"], mean, scale)


def gradients(
    network: Network,
    parameters: Mapping[str, Any],
    inputs: FloatVector,
    sources: Rows,
    target: FloatVector,
    weight: FloatVector,
    penalties: Mapping[str, Any],
    centres: Mapping[str, Any],
) -> dict[str, Any]:
    """Of the loss above over a batch, per request, with respect to every parameter that is trained.

    Parameters
    ----------
    network
        Holds ``w`` and ``b``, which `parameters` names, too.
    parameters
        ``w``, ``b``, ``shared`` (m), ``own`` (d), ``bias`` (b), ``source`` (c).
    inputs, sources
        ``[B, input]`` and ``intp[B]``.
    target, weight
        ``[B, M]``: y, and 1 where it was observed, else 0.
    penalties, centres
        By parameter: l above over the number of training requests, and what it pulls towards.
    """
    states, cache = forward_cached(network, inputs)
    ability = parameters["shared"] + parameters["own"]
    logits = states @ ability.T + parameters["bias"] + parameters["source"][sources]
    grad = (sigmoid(logits) - target) * (weight / np.float32(len(inputs)))
    of_ability = grad.T @ states
    of_cell, _ = backward(network, cache, grad @ ability, inputs=False)
    # zeta and nu stay at 1 and 0, where members can share them: after one step zeta is but a scale of the abilities.
    grads = {name: g for name, g in of_cell.items() if name in parameters}
    grads |= {"own": of_ability, "shared": of_ability.sum(axis=0), "bias": grad.sum(axis=0)}
    grads["source"] = np.zeros_like(parameters["source"])
    np.add.at(grads["source"], sources, grad)
    for name, penalty in penalties.items():
        grads[name] = grads[name] + penalty * (parameters[name] - centres[name])
    return grads


def _task_means(quality: FloatVector, tasks: Rows, sources: Rows) -> FloatVector:
    """Each row's mean quality per agent over its task, shrunk towards that over its source; ``[n, M]``."""

    def sums(of: Rows) -> tuple[Array, Array]:
        total = np.zeros((int(of.max()) + 1, quality.shape[1]))
        count = np.zeros_like(total)
        np.add.at(total, of, np.where(known, quality, 0.0))
        np.add.at(count, of, known)
        return total, count

    known = ~np.isnan(quality)
    over_source, n_source = sums(sources)
    of_source = (over_source / np.maximum(n_source, 1.0))[sources]
    over_task, n_task = sums(tasks)
    means = (over_task[tasks] + _TASK_SHRINKAGE * of_source) / (n_task[tasks] + _TASK_SHRINKAGE)
    return means.astype(np.float32)


def _start(
    shape: FastGRNNConfig,
    data: QualityData,
    target: FloatVector,
    weight: FloatVector,
    start: QualityModel | None,
    rng: np.random.Generator,
) -> tuple[FastGRNN, dict[str, Any], dict[str, Any]]:
    """The network, all parameters that are trained (the network's among them), and what penalties pull towards."""
    agents, k, inputs = len(data.agents), shape.hidden_dim, shape.input_dim
    network = FastGRNN(shape)
    p = network.parameters
    answers = weight.sum(axis=0)
    # Shrunk towards one half, so that an agent without an answer, or with like ones, starts at a finite bias.
    share = (target.sum(axis=0) + 1.0) / (answers + 2.0)
    bias = np.log(share / (1.0 - share)).astype(np.float32)
    usual_bias = np.full(agents, bias[answers > 0].mean() if (answers > 0).any() else 0.0, np.float32)
    own = np.zeros((agents, k), np.float32)
    if start is None:
        p["w"][:] = rng.uniform(-0.05, 0.05, (k, inputs))
        p["b"][1] = rng.normal(0.0, 0.3, k)
        shared = rng.normal(0.0, 0.3, k).astype(np.float32)
        own[:] = rng.normal(0.0, 0.1, (agents, k))
        centres: dict[str, Any] = {name: np.float32(0.0) for name in ("w", "shared", "own")}
    else:
        for name, array in start.network.parameters.items():
            if name in p and p[name].shape == array.shape:
                p[name][...] = array
        p["w"][:, : inputs - SURFACE_DIM] /= np.float32(_INPUT_SCALE)
        shared = np.asarray(start.prior_mean, np.float32).copy()
        for i, name in enumerate(data.agents):
            row = start.row(name)
            if row is not None:
                own[i] = start.abilities[row, :-1] - shared
                usual_bias[i] = bias[i] = start.abilities[row, -1]
        centres = {"w": p["w"].copy(), "shared": shared.copy(), "own": own.copy()}
    cell = {name: p[name] for name in ("w", "b")}
    centres["bias"] = usual_bias
    return network, {**cell, "shared": shared, "own": own, "bias": bias}, centres


def _routing_loss(logits: Array, quality: FloatVector) -> float:
    """See `CrossFit`. The cross-entropy alone would choose penalties that are too strong to tell agents apart."""
    known = ~(np.isnan(quality) | np.isnan(logits))
    rows = known.sum(axis=1) > 1
    if not rows.any():
        return _cross_entropy(logits, quality)
    scale, shift = platt(logits[known], quality[known])
    error = np.where(known, 1.0 / (1.0 + np.exp(-(scale * np.where(known, logits, 0.0) + shift))) - quality, 0.0)[rows]
    answers = known[rows]
    # Less the request's mean error, which raises or lowers all agents alike.
    error -= answers * (error.sum(axis=1) / answers.sum(axis=1))[:, None]
    return float(np.sum(error * error) / answers.sum())


def _cross_entropy(logits: Array, quality: FloatVector) -> float:
    """Mean over the answers that were both observed and predicted."""
    here = ~(np.isnan(quality) | np.isnan(logits))
    z, y = logits[here], quality[here]
    return float(np.mean(np.logaddexp(0.0, z) - y * z)) if z.size else math.nan


def platt(logits: Array, quality: npt.ArrayLike, *, shrinkage: float = 10.0) -> tuple[float, float]:
    """Scale a > 0 and shift b that make ``sigma(a logit + b)`` a calibrated probability (Platt, 1999).

    Parameters
    ----------
    logits, quality
        Shape (m,); qualities in [0, 1].
    shrinkage
        Answers' worth of belief in (1, 0), which keeps few data from doing harm.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(quality, np.float64)
    ones = np.ones((z.size, 1))
    features, penalty = np.append(z[:, None], ones, axis=1), 0.25 * shrinkage
    scale, shift = _logistic_fit(features, y, np.array([1.0, 0.0]), penalty).tolist()
    if scale < _LEAST_SCALE:
        # A negative scale would turn predictions around: they are worth nothing then, and the mean is what is left.
        scale = _LEAST_SCALE
        (shift,) = _logistic_fit(ones, y, np.zeros(1), penalty, offset=scale * z).tolist()
    return scale, shift


def _logistic_fit(features: Array, y: Array, centre: Array, penalty: float, offset: Array | float = 0.0) -> Array:
    """Minimises the cross-entropy of ``sigma(features . theta + offset)`` + ``penalty / 2 |theta - centre|^2``."""

    def loss(theta: Array) -> float:
        u, off = features @ theta + offset, theta - centre
        return float(np.sum(np.logaddexp(0.0, u) - y * u) + 0.5 * penalty * (off @ off))

    theta, value = centre, loss(centre)
    for _ in range(100):
        p = sigmoid(features @ theta + offset)
        gradient = features.T @ (p - y) + penalty * (theta - centre)
        hessian = (features * (p * (1.0 - p))[:, None]).T @ features + penalty * np.eye(theta.size)
        step = np.linalg.solve(hessian, gradient)
        # Where predictions are far out the loss is all but straight, and a whole Newton step leads away.
        size = 1.0
        while (after := loss(theta - size * step)) > value - 1e-4 * size * float(gradient @ step) and size > 1e-9:
            size *= 0.5
        if after >= value:
            break
        theta, value = theta - size * step, after
        if np.abs(step).max() < 1e-8:
            break
    return theta


def _assembled(
    data: QualityData,
    space: EmbeddingSpace,
    config: QualityTrainingConfig,
    fitted: _Fitted,
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
    prior[np.diag_indices_from(prior)] = [own_variance] * config.hidden_dim + [_BIAS_VARIANCE]

    network = FastGRNN(fitted.network.config, {k: v.copy() for k, v in fitted.network.parameters.items()})
    network.parameters["w"][:, : space.dim] *= np.float32(_INPUT_SCALE)
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
        bars=_bars(calibrated[here], data.quality[here]),
        cost_usd=cost,
        cost_weights=cost_head(cost_features, costs),
        quality_from_cost=_quality_from_cost(data, cost),
        interval=ConformalInterval.from_outcomes(
            np.where(np.isnan(probability), 0.5, probability),
            np.where(np.isnan(probability), np.nan, data.quality),
            COVERAGE,
        ),
    )


def _bars(logits: Array, quality: FloatVector) -> Array:
    """Per quality bar, the line over the logit that gives the probability of reaching it."""
    lines = np.zeros((QUALITY_BARS, 2))
    for j in range(QUALITY_BARS):
        reached = (quality >= j / (QUALITY_BARS - 1) - 1e-9).astype(np.float64)
        slope, shift = platt(logits, reached)
        lines[j] = shift, slope
    lines[0] = 30.0, 0.0  # every answer reaches 0
    return lines


def cost_head(features: Array, cost_usd: npt.NDArray[np.floating[Any]]) -> Array:
    """What makes requests dear: ``QualityModel.cost_weights`` from training rows.

    Parameters
    ----------
    features
        ``float64[n, k + F + 1]``: see ``QualityModel.cost_features``.
    cost_usd
        ``[n, M]``; NaN where unknown.

    Returns
    -------
    float64[M + 1, k + F + 1]
        Zero, so that every request costs the usual, where too few costs are known.
    """
    known = cost_usd > 0.0
    mean = np.where(known, cost_usd, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    relative = np.log(np.where(known, cost_usd, 1.0) / np.where(mean > 0.0, mean, 1.0), dtype=np.float64)
    weights = np.zeros((cost_usd.shape[1] + 1, features.shape[1]))
    rows = np.flatnonzero(known.any(axis=1))
    if rows.size < 2 * weights.shape[1]:
        return weights
    features, known, relative = features[rows], known[rows], np.where(known, relative, 0.0)[rows]
    shared = _ridge(features, relative.sum(axis=1) / known.sum(axis=1), _SHARED_COST_PENALTY)
    for agent in range(len(mean)):
        here = known[:, agent]
        own = _ridge(features[here], relative[here, agent] - features[here] @ shared, _OWN_COST_PENALTY)
        weights[agent] = _unbiased(shared + own, features[here])
    weights[-1] = _unbiased(shared, features)
    return weights


def _ridge(features: Array, target: Array, penalty: float) -> Array:
    """Least squares with a penalty on all weights but the last, the constant's."""
    ridge = np.eye(features.shape[1]) * penalty
    ridge[-1, -1] = 1e-6
    return np.asarray(np.linalg.solve(features.T @ features + ridge, features.T @ target), dtype=np.float64)


def _unbiased(weights: Array, features: Array) -> Array:
    """The weights with a constant that makes costs, not their logarithms, right on average."""
    if len(features):
        weights = weights.copy()
        weights[-1] -= math.log(float(np.mean(np.exp(features @ weights))))
    return weights


def _quality_from_cost(data: QualityData, cost: Array) -> Array:
    """Logit of an agent's mean quality as a line over the logarithm of its mean cost; flat where costs say nothing."""
    answers = (~np.isnan(data.quality)).sum(axis=0)
    mean = (np.nansum(data.quality, axis=0) + 1.0) / (answers + 2.0)
    levels = np.log(mean / (1.0 - mean))
    priced = np.isfinite(cost) & (cost > 0.0)
    if priced.sum() < 4:
        return np.array([float(levels.mean()), 0.0])
    slope, intercept = np.polyfit(np.log(cost[priced]), levels[priced], 1)
    return np.array([float(intercept), max(0.0, float(slope))])
