"""What the quality model is trained on, and the knobs of its training.

In: arrays of judged answers. Out: the same, checked. Why: a NaN or a quality above 1 is refused here, where it can be
named, and not found later in a model that predicts nonsense.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.model.surface import SURFACE_DIM
from tinydancer.validation import FloatVector

__all__ = ["QualityData", "QualityTrainingConfig", "Rows", "parts"]

Rows = npt.NDArray[np.intp]


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
    other_task_shares
        Tried, too, each with the strength that was best for `task_share` and the next weaker one; the best by
        cross-fitting is taken. Much of a mean helps where later requests are of the tasks of the training, and harms
        on task types never seen, which cross-fitting over requests does not show.
    dropout
        Share of inputs left out at each step.
    folds
        Parts of the cross-fitting; above `holdout_rows` rows, only the first is predicted.
    seed
        Of everything random.
    """

    hidden_dim: int = 64
    members: int = 4
    epochs: int = 25
    batch_size: int = 512
    min_steps: int = 400
    max_steps: int = 6000
    learning_rate: float = 5e-3
    strengths: tuple[float, ...] = (1.0,)
    penalty_embedding: float = 600.0
    penalty_surface: float = 10.0
    penalty_agent: float = 30.0
    penalty_shared: float = 2.0
    penalty_source: float = 10.0
    task_share: float = 0.3
    other_task_shares: tuple[float, ...] = ()
    dropout: float = 0.0
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
        for share in (self.task_share, *self.other_task_shares):
            check.number(share, "a task share", low=0.0, high=1.0)
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
            if not all(np.isfinite(array[part]).all() for part in parts(np.arange(n))):
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


def parts(rows: Rows, size: int = 8192) -> list[Rows]:
    """Rows a part at a time, so that what is computed of them stays small; one empty part where there are none."""
    return [rows[begin : begin + size] for begin in range(0, max(1, rows.size), size)]
