"""Optimisation: from gradients to better parameters.

In: a dict of arrays, gradients by the same names, a step's number. Out: the arrays, changed in place. What the arrays
mean does not matter here, so the same code trains a network and whatever a model has beside it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError, ModelError
from tinydancer.model.gradients import FloatArray

__all__ = ["Adam", "Schedule", "dropout_mask", "learning_rate_at", "positive"]

Schedule: TypeAlias = Literal["cosine", "constant", "step"]

NOT_DECAYED = frozenset({"b", "zeta", "nu", "b_out"})
"""Biases and the two scalars of the cell: pulling them to zero would change the cell, not simplify it."""
CELL_BOUNDS: Mapping[str, tuple[float, float]] = {"zeta": (0.0, 1.0), "nu": (0.0, 1.0)}


class Adam:
    """Adam with decoupled weight decay (Kingma and Ba, arXiv 1412.6980; Loshchilov and Hutter, arXiv 1711.05101).

    With gradient g at step t, and all operations element by element::

        m <- beta_1 m + (1 - beta_1) g
        v <- beta_2 v + (1 - beta_2) g^2
        p <- p - rate (m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + epsilon) + decay p)

    Parameters
    ----------
    parameters
        Name to floating-point array, of any names and shapes. `step` changes the arrays in place.
    learning_rate
        Above 0; `step` may be given another.
    weight_decay
        The decay above, at least 0.
    no_decay
        Names that do not decay; beside a network's, a model names its own biases here.
    clip_norm
        Gradients whose Euclidean norm, all taken together, is greater are scaled down to it. None: never.
    bounds
        Name to (low, high), to which the values are cut after each step. Names that are not there do no harm.
    betas, epsilon
        The paper's beta_1, beta_2 and epsilon.

    Raises
    ------
    InvalidInputError
        A setting out of range, or an array that is not of floating point or may not be written.
    """

    def __init__(
        self,
        parameters: Mapping[str, FloatArray],
        *,
        learning_rate: float,
        weight_decay: float = 0.01,
        no_decay: Collection[str] = NOT_DECAYED,
        clip_norm: float | None = None,
        bounds: Mapping[str, tuple[float, float]] = CELL_BOUNDS,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        for name, array in parameters.items():
            if array.dtype.kind != "f" or not array.flags.writeable:
                raise InvalidInputError(
                    f"Parameter {name!r} cannot be trained; expected a writeable array of floating-point numbers.",
                    hint="Arrays of a loaded model lie in its file; copy them first.",
                )
        self.parameters = parameters
        self.learning_rate = positive(learning_rate, "learning_rate")
        self.weight_decay = check.number(weight_decay, "weight_decay", low=0.0)
        self.clip_norm = None if clip_norm is None else positive(clip_norm, "clip_norm")
        self.no_decay = frozenset(no_decay)
        self.bounds = dict(bounds)
        self.betas = tuple(check.number(beta, "a beta", low=0.0, high=1.0 - 1e-9) for beta in betas)
        self.epsilon = positive(epsilon, "epsilon")
        self.steps = 0
        self._first = {name: np.zeros_like(array) for name, array in parameters.items()}
        self._second = {name: np.zeros_like(array) for name, array in parameters.items()}

    def step(self, grads: Mapping[str, FloatArray], learning_rate: float | None = None) -> float:
        """Change the parameters that have a gradient; the others rest.

        Parameters
        ----------
        grads
            Name to gradient, shaped like the parameter.
        learning_rate
            For this step, at least 0; None: the one from the start.

        Returns
        -------
        float
            Norm of all gradients together, before it was clipped.

        Raises
        ------
        InvalidInputError
            A gradient of an unknown name or another shape.
        ModelError
            A gradient is NaN or infinite; nothing was changed.
        """
        rate = self.learning_rate if learning_rate is None else check.number(learning_rate, "learning_rate", low=0.0)
        square = 0.0
        for name, grad in grads.items():
            if name not in self.parameters or grad.shape != self.parameters[name].shape:
                raise InvalidInputError(f"There is no parameter {name!r} of shape {grad.shape} to change.")
            square += float(np.vdot(grad, grad))
        norm = math.sqrt(square) if square >= 0.0 else math.nan
        if not math.isfinite(norm):
            raise ModelError("The gradient is not finite.", hint="Lower the learning rate, or set clip_norm.")
        scale = 1.0 if self.clip_norm is None or norm <= self.clip_norm else self.clip_norm / norm
        self.steps += 1
        keep_first, keep_second = self.betas
        unbias_first, unbias_second = 1.0 - keep_first**self.steps, 1.0 - keep_second**self.steps
        for name, grad in grads.items():
            value, first, second = self.parameters[name], self._first[name], self._second[name]
            clipped = grad * value.dtype.type(scale)
            first *= keep_first
            first += (1.0 - keep_first) * clipped
            second *= keep_second
            second += (1.0 - keep_second) * clipped * clipped
            change = first / (np.sqrt(second / unbias_second) + self.epsilon)
            change = change * (rate / unbias_first)
            if self.weight_decay and name not in self.no_decay:
                change += (rate * self.weight_decay) * value
            value -= change
            if name in self.bounds:
                np.clip(value, *self.bounds[name], out=value)
        return norm


def learning_rate_at(
    step: int, total_steps: int, *, peak: float, schedule: Schedule = "cosine", warmup_share: float = 0.0
) -> float:
    """The learning rate of one step.

    Parameters
    ----------
    step
        From 0.
    total_steps
        At least 1; later steps keep the last rate.
    peak
        The highest rate.
    schedule
        After the warm-up, over the steps that are left: ``cosine``, half a cosine wave from the peak towards 0
        (Loshchilov and Hutter, arXiv 1608.03983, equation 5, without restarts); ``constant``; ``step``, a tenth from
        the middle and a hundredth from three quarters on.
    warmup_share
        Share of all steps, in [0, 1], in which the rate rises in equal steps to the peak.
    """
    warmup = math.ceil(warmup_share * total_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    if schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * done))
    if schedule == "step":
        return peak * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
    return peak


def dropout_mask(rng: np.random.Generator, shape: tuple[int, ...], share: float, dtype: Any = np.float32) -> FloatArray:
    """Factors that zero about this share of numbers and make up for it in the others, so that the mean stays."""
    mask: FloatArray = (rng.random(shape) >= share).astype(dtype)
    mask /= 1.0 - share
    return mask


def positive(value: Any, name: str) -> float:
    """A number above 0, or an error that names it."""
    result = check.number(value, name)
    if result <= 0.0:
        raise InvalidInputError(f"{name} is {check.shown(value)}; expected a number above 0.")
    return result
