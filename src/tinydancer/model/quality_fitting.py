"""Fitting the parameters of the quality model to judged answers.

In: rows of `QualityData`, a strength of the penalties, perhaps a model to start from. Out: `Fitted` parameters, which
are not calibrated yet. No files, no clock; a seed.

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
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.gradients import Network, backward, forward_cached, sigmoid
from tinydancer.model.optimisation import Adam, learning_rate_at
from tinydancer.model.quality import QualityModel
from tinydancer.model.quality_data import QualityData, QualityTrainingConfig, Rows, parts
from tinydancer.model.surface import SURFACE_DIM
from tinydancer.validation import FloatVector

__all__ = ["BIAS_VARIANCE", "INPUT_SCALE", "Fitted", "fit", "gradients", "task_means"]

Array = npt.NDArray[np.float64]

INPUT_SCALE = 20.0
"""Unit vectors of 384 dimensions have entries of 0.05: brought to about 1, where Adam's steps fit."""
BIAS_VARIANCE = 0.5
_TASK_SHRINKAGE = 5.0  # answers' worth of the source's mean in a task's


@dataclass(frozen=True, slots=True)
class Fitted:
    """Parameters as they were trained: over inputs times `INPUT_SCALE`, before calibration."""

    network: FastGRNN
    shared: FloatVector
    own: FloatVector
    bias: FloatVector
    surface_mean: FloatVector
    surface_scale: FloatVector

    def inputs(self, data: QualityData, rows: Rows, view: int = 0) -> FloatVector:
        """What the network reads of some rows; `view` numbers the embedder."""
        return _inputs(data.embeddings[view][rows], data.surface[rows], self.surface_mean, self.surface_scale)

    def states(self, data: QualityData, rows: Rows, view: int = 0) -> FloatVector:
        """``float32[n, k]``: h of some rows."""
        return np.concatenate([self.network.encode_batch(self.inputs(data, part, view)) for part in parts(rows)])

    def logits(self, data: QualityData, rows: Rows, view: int = 0) -> Array:
        """``float64[n, M]``, uncalibrated."""
        states = self.states(data, rows, view)
        return np.asarray(states @ (self.shared + self.own).T + self.bias, dtype=np.float64)


def _inputs(
    embeddings: FloatVector, surface: FloatVector, mean: FloatVector, scale: FloatVector, out: FloatVector | None = None
) -> FloatVector:
    dim = embeddings.shape[1]
    inputs = np.empty((len(embeddings), dim + SURFACE_DIM), np.float32) if out is None else out
    np.multiply(embeddings, np.float32(INPUT_SCALE), out=inputs[:, :dim])
    np.clip((surface - mean) / scale, -4.0, 4.0, out=inputs[:, dim:])
    return inputs


def fit(
    data: QualityData,
    rows: Rows,
    config: QualityTrainingConfig,
    strength: float,
    task_share: float,
    start: QualityModel | None,
    progress: Callable[[float], None],
) -> Fitted:
    """Parameters from some rows: of one network, or of several side by side.

    Parameters
    ----------
    strength
        Factor on all penalties.
    task_share
        Of the target, where requests have tasks.
    start
        A model to start from, and to be pulled to.
    progress
        Called with the share that is done.
    """
    # A model to start from is one network already, whatever it was put together from.
    members = 1 if start is not None else config.members
    rng = np.random.default_rng([config.seed, 2])
    dim, agents = data.embeddings[0].shape[1], len(data.agents)
    if start is None:
        mean = data.surface[rows].mean(axis=0)
        scale = np.maximum(data.surface[rows].std(axis=0), np.float32(1e-3))
    else:
        mean, scale = np.array(start.surface_mean), np.array(start.surface_scale)
    quality = data.quality[rows]
    known = ~np.isnan(quality)
    sources = np.zeros(rows.size, np.intp) if data.sources is None else data.sources[rows]
    if data.tasks is not None and task_share:
        quality = (1.0 - task_share) * quality + task_share * task_means(quality, data.tasks[rows], sources)
    target = np.where(known, quality, 0.0).astype(np.float32)
    weight = known.astype(np.float32)

    # One step from the zero state never uses U: of rank 1, it takes no room.
    shape = FastGRNNConfig(input_dim=dim + SURFACE_DIM, hidden_dim=config.hidden_dim, rank_u=1, seed=config.seed)
    network, parameters, centres = _start(shape, members, data, target, weight, start, rng)
    parameters["source"] = np.zeros((members, int(sources.max()) + 1, agents), np.float32)
    centres["source"] = np.float32(0.0)
    n = rows.size
    penalties = _penalties(config, strength, dim, n)

    per_epoch = math.ceil(n / config.batch_size)
    steps = min(config.max_steps, max(config.min_steps, config.epochs * per_epoch))
    adam = Adam(parameters, learning_rate=config.learning_rate, weight_decay=0.0)
    room = np.empty((min(n, config.batch_size), dim + SURFACE_DIM), np.float32)
    order = rng.permutation(n)
    begin = 0
    for step in range(steps):
        if begin >= n:
            order, begin = rng.permutation(n), 0
            progress(step / steps)
        batch = order[begin : begin + config.batch_size]
        begin += config.batch_size
        view = data.embeddings[int(rng.integers(len(data.embeddings)))]
        inputs = _inputs(view[rows[batch]], data.surface[rows[batch]], mean, scale, room[: len(batch)])
        if config.dropout:
            _drop(rng, inputs, config.dropout)
        grads = gradients(network, parameters, inputs, sources[batch], target[batch], weight[batch], penalties, centres)
        adam.step(grads, learning_rate_at(step, steps, peak=config.learning_rate, schedule="cosine", warmup_share=0.0))
    progress(1.0)
    part = np.float32(1.0 / members)
    return Fitted(
        network, parameters["shared"] * part, parameters["own"] * part, parameters["bias"].mean(axis=0), mean, scale
    )


def _penalties(config: QualityTrainingConfig, strength: float, dim: int, n: int) -> dict[str, Any]:
    """By parameter, l above over the number of training requests."""
    column = np.full(dim + SURFACE_DIM, config.penalty_embedding)
    column[dim:] = config.penalty_surface
    penalties: dict[str, Any] = {
        "w": column, "own": config.penalty_agent, "shared": config.penalty_shared, "source": config.penalty_source,
    }  # fmt: skip
    penalties = {name: np.float32(strength / n) * np.float32(value) for name, value in penalties.items()}
    # The same belief that a new agent starts with: three answers do not make a bias.
    return penalties | {"bias": np.float32(1.0 / BIAS_VARIANCE / n)}


def _drop(rng: np.random.Generator, inputs: FloatVector, share: float) -> None:
    """Zero about this share of the inputs, in 256ths, and make up for it in the others, so that the mean stays."""
    dropped = max(1, round(256 * share))
    # One byte decides, not one float64: drawing those took longer than the step they were drawn for.
    kept = np.frombuffer(rng.bytes(inputs.size), np.uint8).reshape(inputs.shape) >= dropped
    inputs *= kept
    inputs *= np.float32(256.0 / (256 - dropped))


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

    Members side by side have a loss each, over their own part of the states, and the sum of these is what it is of.

    Parameters
    ----------
    network
        Holds ``w`` and ``b``, which `parameters` names, too.
    parameters
        ``w``, ``b``; ``shared`` ``[k]`` (m) and ``own`` ``[M, k]`` (d), one member after the other; ``bias``
        ``[members, M]`` (b); ``source`` ``[members, sources, M]`` (c).
    inputs, sources
        ``[B, input]`` and ``intp[B]``.
    target, weight
        ``[B, M]``: y, and 1 where it was observed, else 0.
    penalties, centres
        By parameter: l above over the number of training requests, and what it pulls towards.
    """
    members, count = parameters["bias"].shape
    states, cache = forward_cached(network, inputs)
    each = states.reshape(len(states), members, -1).transpose(1, 0, 2)
    ability = (parameters["shared"] + parameters["own"]).reshape(count, members, -1).transpose(1, 0, 2)
    of_source = (sources[:, None] == np.arange(parameters["source"].shape[1])).astype(states.dtype)
    logits = each @ ability.transpose(0, 2, 1) + parameters["bias"][:, None] + of_source @ parameters["source"]
    grad = (sigmoid(logits) - target) * (weight / np.float32(len(inputs)))
    of_ability = (grad.transpose(0, 2, 1) @ each).transpose(1, 0, 2).reshape(count, -1)
    of_states = (grad @ ability).transpose(1, 0, 2).reshape(states.shape)
    of_cell, _ = backward(network, cache, of_states, inputs=False)
    # zeta and nu stay at 1 and 0, where members can share them: after one step zeta is but a scale of the abilities.
    grads = {name: g for name, g in of_cell.items() if name in parameters}
    grads |= {"own": of_ability, "shared": of_ability.sum(axis=0), "bias": grad.sum(axis=1)}
    grads["source"] = of_source.T @ grad
    for name, penalty in penalties.items():
        grads[name] = grads[name] + penalty * (parameters[name] - centres[name])
    return grads


def task_means(quality: FloatVector, tasks: Rows, sources: Rows) -> FloatVector:
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
    members: int,
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
        p["w"][:, : inputs - SURFACE_DIM] /= np.float32(INPUT_SCALE)
        shared = np.asarray(start.prior_mean, np.float32).copy()
        for i, name in enumerate(data.agents):
            row = start.row(name)
            if row is not None:
                own[i] = start.abilities[row, :-1] - shared
                usual_bias[i] = bias[i] = start.abilities[row, -1]
        centres = {"w": p["w"].copy(), "shared": shared.copy(), "own": own.copy()}
    cell = {name: p[name] for name in ("w", "b")}
    centres["bias"] = usual_bias
    return network, {**cell, "shared": shared, "own": own, "bias": np.tile(bias, (members, 1))}, centres
