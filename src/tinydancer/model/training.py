"""Training: from examples to a network that has learnt them, the same one for the same seed.

In: a network, examples, a `TrainingConfig`. Out: the network, changed in place, and a `TrainingReport`. No files, no
clock, no chance but the seed's: progress goes to a callback, and saving is the caller's.

`train_network` is the whole loop for a FastGRNN with a head. Its parts (back-propagation in `gradients`, `losses`,
`optimisation`, `training_data`) can be imported from here, and serve models with parameters beside a network's too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError, ModelError
from tinydancer.model.fastgrnn import FastGRNN
from tinydancer.model.gradients import (
    Cache,
    FloatArray,
    Gradients,
    Network,
    Weights,
    backward,
    forward_cached,
    head_backward,
    head_logits,
    in_float64,
    sigmoid,
)
from tinydancer.model.losses import (
    Loss,
    binary_cross_entropy,
    distillation,
    loss_and_gradient,
    softmax,
    softmax_cross_entropy,
)
from tinydancer.model.optimisation import Adam, Schedule, dropout_mask, learning_rate_at, positive
from tinydancer.model.training_data import (
    CHUNK_ROWS,
    Examples,
    Rows,
    balanced_class_weights,
    checked_examples,
    checked_masks,
    data_warnings,
    split_rows,
)

__all__ = [
    "Adam",
    "Cache",
    "EpochReport",
    "Loss",
    "Network",
    "TrainingConfig",
    "TrainingReport",
    "Weights",
    "backward",
    "balanced_class_weights",
    "binary_cross_entropy",
    "distillation",
    "dropout_mask",
    "forward_cached",
    "head_backward",
    "head_logits",
    "in_float64",
    "learning_rate_at",
    "loss_and_gradient",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "split_rows",
    "train_network",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How to train.

    Parameters
    ----------
    epochs
        Passes over the training rows, at most.
    batch_size
        Rows per step.
    learning_rate, schedule, warmup_share
        Peak and course of the learning rate; see `learning_rate_at`.
    weight_decay, clip_norm
        See `Adam`.
    dropout_input, dropout_state
        Shares, in [0, 1), of the inputs and of the last state's numbers that are zeroed at random while training.
    class_balance
        Weigh classes so that each counts as much as the others; see `balanced_class_weights`.
    validation_share
        Share of the rows, in [0, 1), held out to choose the best epoch. 0: none are, and the last epoch's weights stay.
    patience
        Epochs without a better validation loss after which training ends; None: never before `epochs`.
    temperature, alpha
        Of the distillation, where there is a teacher; see `distillation`.
    seed
        Of the split, the order of the rows and the dropout.

    Raises
    ------
    InvalidInputError
        A value out of range; the message says which, and what was expected.
    """

    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 3e-3
    schedule: Schedule = "cosine"
    warmup_share: float = 0.05
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0
    dropout_input: float = 0.0
    dropout_state: float = 0.0
    class_balance: bool = False
    validation_share: float = 0.15
    patience: int | None = 10
    temperature: float = 2.0
    alpha: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("epochs", "batch_size"):
            put(self, name, check.count(getattr(self, name), name, low=1))
        for name in ("learning_rate", "temperature"):
            put(self, name, positive(getattr(self, name), name))
        for name, high in (("warmup_share", 1.0), ("alpha", 1.0), ("weight_decay", math.inf)):
            put(self, name, check.number(getattr(self, name), name, low=0.0, high=high))
        for name, high in (("dropout_input", 0.95), ("dropout_state", 0.95), ("validation_share", 0.9)):
            put(self, name, check.number(getattr(self, name), name, low=0.0, high=high))
        if self.schedule not in get_args(Schedule):
            known = ", ".join(get_args(Schedule))
            raise InvalidInputError(f"schedule is {check.shown(self.schedule)}; expected one of: {known}.")
        if self.clip_norm is not None:
            put(self, "clip_norm", positive(self.clip_norm, "clip_norm"))
        if self.patience is not None:
            put(self, "patience", check.count(self.patience, "patience", low=1))
        put(self, "class_balance", check.boolean(self.class_balance, "class_balance"))
        put(self, "seed", check.count(self.seed, "seed"))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """One pass over the training rows.

    Attributes
    ----------
    epoch
        From 1.
    training_loss
        Mean over the epoch's steps, dropout included, while the weights changed.
    validation_loss
        After the epoch, without dropout; None without validation rows.
    learning_rate
        Of the epoch's last step.
    gradient_norm
        Mean over the steps, before clipping.
    """

    epoch: int
    training_loss: float
    validation_loss: float | None
    learning_rate: float
    gradient_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """What a training did.

    Attributes
    ----------
    config
        How it was told to train.
    loss
        ``"binary"`` or ``"softmax"``.
    training_rows, validation_rows
        How many rows it learnt from and chose the epoch by.
    epochs
        One entry for each epoch that was run.
    best_epoch
        The epoch whose weights the network has now.
    stopped_early
        Whether patience ended it.
    warnings
        What is wrong with the data without making training senseless.
    """

    config: TrainingConfig
    loss: Loss
    training_rows: int
    validation_rows: int
    epochs: tuple[EpochReport, ...]
    best_epoch: int
    stopped_early: bool
    warnings: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Fields in JSON's types, as `from_dict` takes them."""
        return {**asdict(self), "epochs": [asdict(e) for e in self.epochs], "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> TrainingReport:
        """The report that `to_dict` wrote.

        Raises
        ------
        InvalidInputError
            A key that is missing or unknown.
        """
        names = [f.name for f in fields(cls)]
        check.known_keys(given, names, "key of a training report")
        missing = [name for name in names if name not in given]
        if missing:
            raise InvalidInputError(f"The training report has no {missing[0]!r}; expected: {', '.join(names)}.")
        check.known_keys(given["config"], [f.name for f in fields(TrainingConfig)], "training setting")
        return cls(
            **{
                **given,
                "config": TrainingConfig(**given["config"]),
                "epochs": tuple(EpochReport(**epoch) for epoch in given["epochs"]),
                "warnings": tuple(given["warnings"]),
            }
        )


def train_network(
    network: FastGRNN,
    xs: npt.ArrayLike,
    targets: npt.ArrayLike,
    *,
    config: TrainingConfig | None = None,
    loss: Loss = "binary",
    lengths: npt.ArrayLike | None = None,
    teacher_logits: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    masks: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> TrainingReport:
    """Train a network with a head, in place.

    Parameters
    ----------
    network
        Its parameters change; those of a loaded network are copied first. Its ``sha256`` becomes None.
    xs
        ``[n, input]``, one step each, or ``[n, T, input]``, sequences. Rows with equal inputs are never split between
        training and validation.
    targets
        ``[n, output]`` in [0, 1]: for ``binary`` each number a probability of its own, for ``softmax`` rows with sum 1.
        ``[n]``: for ``binary`` one output, for ``softmax`` the number of the class, from 0.
    config
        How; None: the defaults.
    loss
        ``binary`` (yes or no for each output) or ``softmax`` (one class among the outputs).
    lengths
        ``intp[n]``: how many vectors of each sequence count.
    teacher_logits
        ``[n, output]``: what a better model's head says before its logistic function or softmax, to be distilled.
    sample_weight
        ``[n]``, or ``[n, output]`` for ``binary``; not negative. 0 leaves a row or number out.
    masks
        Parameter name to booleans of its shape: where False, the parameter is 0 and stays so.
    on_epoch
        Called after every epoch.

    Returns
    -------
    TrainingReport

    Raises
    ------
    InvalidInputError
        No rows, lengths or shapes that do not fit, NaN or infinities, targets outside [0, 1], targets that are all
        equal, so that there is nothing to tell apart.
    ModelError
        The network has no head; or training diverged, and the network is as it was at its best epoch before.
    """
    config = config or TrainingConfig()
    data = checked_examples(network, xs, targets, loss, lengths, teacher_logits, sample_weight)
    masks = checked_masks(network, masks or {})
    for name, array in network.parameters.items():
        if not array.flags.writeable:
            network.parameters[name] = array.copy()
    network.sha256 = None
    for name, mask in masks.items():
        network.parameters[name] *= mask

    training, validation = split_rows(data.xs, data.targets, config.validation_share, config.seed, data.lengths)
    warnings = data_warnings(data, training, validation)
    run = _Run(network, config, data, masks, len(training))
    best, best_epoch, best_loss = _copied(network), 0, math.inf
    epochs: list[EpochReport] = []
    stopped_early = False
    for epoch in range(1, config.epochs + 1):
        try:
            # What overflows is not finite, and is found: a warning from NumPy would say no more.
            with np.errstate(over="ignore", invalid="ignore"):
                report = run.epoch(epoch, training, validation)
        except ModelError as error:
            _restore(network, best)
            raise ModelError(
                f"Training diverged in epoch {epoch}: {error.message} The network is as after epoch {best_epoch}.",
                hint="Lower the learning rate, or set clip_norm.",
            ) from None
        epochs.append(report)
        now = -math.inf if report.validation_loss is None else report.validation_loss
        if now < best_loss or report.validation_loss is None:
            best, best_epoch, best_loss = _copied(network), epoch, now
        if on_epoch is not None:
            on_epoch(report)
        if config.patience is not None and epoch - best_epoch >= config.patience:
            stopped_early = epoch < config.epochs
            break
    _restore(network, best)
    return TrainingReport(
        config=config,
        loss=loss,
        training_rows=len(training),
        validation_rows=len(validation),
        epochs=tuple(epochs),
        best_epoch=best_epoch,
        stopped_early=stopped_early,
        warnings=tuple(warnings),
    )


class _Run:
    """One training under way: the optimiser and the streams of chance."""

    def __init__(
        self,
        network: FastGRNN,
        config: TrainingConfig,
        data: Examples,
        masks: Mapping[str, npt.NDArray[np.bool_]],
        training_rows: int,
    ) -> None:
        self.network, self.config, self.data, self.masks = network, config, data, masks
        self.adam = Adam(
            network.parameters,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        )
        self.class_weights = (
            balanced_class_weights(data.targets, data.loss, data.weight) if config.class_balance else None
        )
        self.total_steps = config.epochs * math.ceil(training_rows / config.batch_size)
        self.step = 0
        self.order_rng = np.random.default_rng([config.seed, 1])
        self.dropout_rng = np.random.default_rng([config.seed, 2])

    def epoch(self, number: int, training: Rows, validation: Rows) -> EpochReport:
        order = self.order_rng.permutation(training)
        rate = total = norms = 0.0
        starts = range(0, len(order), self.config.batch_size)
        for start in starts:
            rows = np.sort(order[start : start + self.config.batch_size])
            rate = learning_rate_at(
                self.step,
                self.total_steps,
                peak=self.config.learning_rate,
                schedule=self.config.schedule,
                warmup_share=self.config.warmup_share,
            )
            loss, norm = self._train_on(rows, rate)
            total += loss * len(rows)
            norms += norm
            self.step += 1
        return EpochReport(
            epoch=number,
            training_loss=total / len(order),
            validation_loss=self._loss_of(validation) if len(validation) else None,
            learning_rate=rate,
            gradient_norm=norms / len(starts),
        )

    def _train_on(self, rows: Rows, rate: float) -> tuple[float, float]:
        config, network = self.config, self.network
        xs, lengths = self._inputs(rows)
        if config.dropout_input:
            xs = xs * dropout_mask(self.dropout_rng, xs.shape, config.dropout_input, xs.dtype)
        states, cache = forward_cached(network, xs, lengths)
        kept = None
        if config.dropout_state:
            kept = dropout_mask(self.dropout_rng, states.shape, config.dropout_state, states.dtype)
            states = states * kept
        loss, by_logits = self._loss(head_logits(network, states), rows)
        if not math.isfinite(loss):
            raise ModelError("The loss is not finite.")
        grads, by_states = head_backward(network, states, by_logits)
        if kept is not None:
            by_states = by_states * kept
        grads |= backward(network, cache, by_states, inputs=False)[0]
        for name, mask in self.masks.items():
            grads[name] *= mask
        # A masked zero stays zero: it has no gradient, so no moments, and nothing to decay.
        return loss, self.adam.step(grads, rate)

    def _loss_of(self, rows: Rows) -> float:
        total = 0.0
        for part in _chunks(rows):
            states, _ = forward_cached(self.network, *self._inputs(part))
            total += self._loss(head_logits(self.network, states), part)[0] * len(part)
        return total / len(rows)

    def _inputs(self, rows: Rows) -> tuple[FloatArray, Rows | None]:
        return self.data.xs[rows], None if self.data.lengths is None else self.data.lengths[rows]

    def _loss(self, logits: FloatArray, rows: Rows) -> tuple[float, FloatArray]:
        data = self.data
        # Weights have a mean of 1 over all rows, so dividing by the size of the batch (not by its weights) gives light
        # batches the light steps they should have.
        given: dict[str, Any] = {
            "weights": None if data.weight is None else data.weight[rows],
            "class_weights": self.class_weights,
            "divisor": float(logits.size if data.loss == "binary" else len(rows)),
        }
        if data.teacher_logits is None:
            return loss_and_gradient(data.loss, logits, data.targets[rows], **given)
        return distillation(
            data.loss,
            logits,
            data.targets[rows],
            data.teacher_logits[rows],
            temperature=self.config.temperature,
            alpha=self.config.alpha,
            **given,
        )


def _chunks(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows), CHUNK_ROWS):
        yield rows[start : start + CHUNK_ROWS]


def _copied(network: FastGRNN) -> Gradients:
    return {name: array.copy() for name, array in network.parameters.items()}


def _restore(network: FastGRNN, saved: Mapping[str, FloatArray]) -> None:
    for name, array in network.parameters.items():
        array[...] = saved[name]
