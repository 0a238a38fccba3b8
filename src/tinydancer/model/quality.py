"""The quality model: how good an answer each agent will give to this request.

In: vectors of requests, cheap facts of their texts, agents. Out: expected quality per request and agent, in [0, 1].

A FastGRNN reads the request, its embedding x and its surface features s (standardised), and leaves k numbers h that
say what kind of request it is and how hard. Each agent a is a vector of ability and a bias, as in item response theory
(Lord, "Applications of Item Response Theory", 1980; many dimensions: Reckase, 2009)::

    h = FastGRNN([x; s])          q(r, a) = sigma(v_a . h_r + b_a)

So one model serves any number of agents, and an agent that it never saw starts from what is known of such agents::

    (v, b) ~ N(m, S),    b such that the expected quality over usual requests is the quality stated for the agent

and sharpens with each judged answer y (Laplace's approximation, one Newton step, O(k^2))::

    phi = [h; 1],  p = sigma(mean . phi),  w = p (1 - p)
    C' = C - w (C phi)(C phi)^T / (1 + w phi . C phi),    mean' = mean + C' phi (y - p)

The mean of sigma over a Gaussian is taken by MacKay's approximation, E sigma(u) = sigma(m / sqrt(1 + pi s^2 / 8)) for
u ~ N(m, s^2) (Neural Computation 4, 1992, equation 10). Training: `tinydancer.model.quality_training`.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import ArtifactError, InvalidInputError, ModelError, SpaceMismatchError
from tinydancer.model.artifact import load_artifact, save_artifact
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.fastgrnn import FastGRNN, config_of
from tinydancer.model.surface import SURFACE_DIM, SURFACE_NAMES
from tinydancer.types import EmbeddingSpace
from tinydancer.validation import FloatVector

__all__ = [
    "KIND",
    "Abilities",
    "AgentProfile",
    "QualityModel",
    "expected",
    "factors",
    "shipped_model_path",
    "sketch_of",
]

KIND: Final = "quality-model"
SHIPPED: Final = "shipped"
QUALITY_BARS: Final = 21
"""Bars 0, 0.05, ..., 1 whose passing is predicted; those of `tinydancer.snapshot`."""
SKETCH_SIZE: Final = 2048
"""Hashes of training requests that a model keeps, to tell whether it saw a request."""
_STATED_LOW, _STATED_HIGH = 0.01, 0.99
_LOGIT_LIMIT = 30.0

Array = npt.NDArray[np.float64]


def shipped_model_path() -> Path:
    """The quality model that comes with the package."""
    return Path(__file__).resolve().parent / "data" / "quality.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProfile:
    """What is known of an agent before it answered anything.

    Parameters
    ----------
    name
        The agent; a model that was trained with it knows it by this name.
    stated_quality
        In [0, 1]; None if nobody stated one.
    usual_cost_usd
        USD of a usual request, at least 0; None if unknown. Where no quality is stated, the price hints at it.
    """

    name: str
    stated_quality: float | None = None
    usual_cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Abilities:
    """Gaussian beliefs about N agents' ability vectors (the bias last); immutable, `updated` gives new ones.

    Attributes
    ----------
    mean
        ``float64[N, k + 1]``.
    covariance
        ``float64[N, k + 1, k + 1]``.
    outcomes
        ``float64[N]``: judged answers behind each.
    """

    mean: Array
    covariance: Array
    outcomes: Array

    def updated(
        self, agents: npt.NDArray[np.intp], representations: npt.NDArray[np.floating[Any]], quality: npt.ArrayLike
    ) -> Abilities:
        """After m more judged answers, taken in order.

        Parameters
        ----------
        agents
            ``intp[m]``: which row answered.
        representations
            ``[m, k + 1]``: as `QualityModel.represent` gives them.
        quality
            ``[m]``: how good each answer was, in [0, 1].

        Notes
        -----
        The order makes little difference, but some: each step linearises at the mean of the moment.
        """
        mean, covariance, outcomes = self.mean.copy(), self.covariance.copy(), self.outcomes.copy()
        phis = np.asarray(representations, dtype=np.float64)
        for a, phi, y in zip(agents.tolist(), phis, np.asarray(quality, dtype=np.float64), strict=True):
            p = 1.0 / (1.0 + math.exp(-max(-_LOGIT_LIMIT, min(_LOGIT_LIMIT, float(mean[a] @ phi)))))
            w = max(p * (1.0 - p), 1e-4)
            direction = covariance[a] @ phi
            share = 1.0 / (1.0 + w * float(direction @ phi))
            # One vector with itself, so that rounding leaves the covariance symmetric to the last bit.
            covariance[a] -= (w * share) * np.outer(direction, direction)
            mean[a] += (share * (y - p)) * direction
            outcomes[a] += 1.0
        return Abilities(mean, covariance, outcomes)


@dataclass(frozen=True)
class QualityModel:
    """A trained model; its methods change nothing, so any number of threads may share one.

    Attributes
    ----------
    network
        Reads ``[embedding; standardised surface features]`` and leaves the k numbers h.
    space
        Of the embeddings it reads.
    agents
        M agents it was trained with, in the order of the rows below.
    abilities
        ``float32[M, k + 1]``, calibrated: the bias last.
    observed
        ``float64[M]``: judged answers it was trained with.
    surface_mean, surface_scale
        ``float32[F]``: what surface features are standardised by.
    usual_mean, usual_covariance
        ``[k]``, ``[k, k]``: of h over the training requests.
    prior_mean, prior_covariance
        ``[k]`` and ``[k + 1, k + 1]``: abilities of an agent that it does not know.
    information
        ``[k + 1, k + 1]``: Fisher information of one usual answer.
    bars
        ``[21, 2]``: the probability that an answer reaches bar j is ``sigma(bars[j, 0] + bars[j, 1] logit q)``.
    cost_usd
        ``float64[M]``: mean cost of an answer in training; NaN where the data had none.
    cost_weights
        ``[M + 1, k + F + 1]``: logarithm of a request's cost, as a share of its agent's usual one, over ``[h; s; 1]``;
        the last row is that of agents not known.
    quality_from_cost
        ``[2]``: logit of quality, as a line over the logarithm of the usual cost.
    interval
        Conformal interval from predictions on rows that were left out of training; None without.
    facts
        What the training said of itself: data, figures, limits. JSON.
    sketch
        ``uint64[<= 2048]``: the smallest hashes of the training requests.
    sha256
        Hash of the file; None if it came from none.
    """

    network: FastGRNN
    space: EmbeddingSpace
    agents: tuple[str, ...]
    abilities: FloatVector
    observed: Array
    surface_mean: FloatVector
    surface_scale: FloatVector
    usual_mean: Array
    usual_covariance: Array
    prior_mean: Array
    prior_covariance: Array
    information: Array
    bars: Array
    cost_usd: Array
    cost_weights: Array
    quality_from_cost: Array
    interval: ConformalInterval | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    sketch: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    sha256: str | None = None
    label: str = "model"

    def __post_init__(self) -> None:
        k, count, inputs = self.hidden_dim, len(self.agents), self.space.dim + SURFACE_DIM
        shapes = {
            "abilities": (count, k + 1), "observed": (count,), "surface_mean": (SURFACE_DIM,),
            "surface_scale": (SURFACE_DIM,), "usual_mean": (k,), "usual_covariance": (k, k), "prior_mean": (k,),
            "prior_covariance": (k + 1, k + 1), "information": (k + 1, k + 1), "bars": (QUALITY_BARS, 2),
            "cost_usd": (count,), "cost_weights": (count + 1, k + SURFACE_DIM + 1), "quality_from_cost": (2,),
        }  # fmt: skip
        if self.network.config.input_dim != inputs or self.network.config.output_dim is not None:
            raise ModelError(
                f"The network reads {self.network.config.input_dim} numbers; a quality model of the space "
                f"{self.space.name!r} reads {self.space.dim} + {SURFACE_DIM} and has no head."
            )
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ModelError(f"{name} has shape {array.shape}; expected {shape}.")
            if name != "cost_usd" and not np.isfinite(array).all():
                raise ModelError(f"{name} holds numbers that are not finite.")
        if not (self.surface_scale > 0.0).all():
            raise ModelError("surface_scale holds numbers that are not above 0.")
        known_usd = self.cost_usd[~np.isnan(self.cost_usd)]
        if not ((known_usd > 0.0) & np.isfinite(known_usd)).all():
            raise ModelError("cost_usd holds numbers that are infinite or not above 0.")
        if len(set(self.agents)) != count:
            raise ModelError("The model names an agent twice.")
        object.__setattr__(self, "_row", {name: i for i, name in enumerate(self.agents)})

    @property
    def hidden_dim(self) -> int:
        """k: numbers that describe a request."""
        return self.network.config.hidden_dim

    @property
    def name(self) -> str:
        """Which weights predict: the label and the start of their hash; stands in decisions."""
        return f"{self.label}:{self.sha256[:12] if self.sha256 else 'unsaved'}"

    def row(self, agent: str) -> int | None:
        """Position of an agent that it was trained with."""
        rows: dict[str, int] = self.__dict__["_row"]
        return rows.get(agent)

    def represent(self, embeddings: FloatVector, surface: FloatVector | None) -> FloatVector:
        """``float32[n, k + 1]``: h and a constant 1 for n requests.

        Parameters
        ----------
        embeddings
            ``float32[n, dim]``, rows of unit length.
        surface
            ``float32[n, F]`` from `tinydancer.model.surface`; None where there is no text: as of a usual request.
        """
        n, dim = embeddings.shape
        if dim != self.space.dim:
            raise SpaceMismatchError(
                f"The requests have {dim} dimensions; the model {self.name} reads {self.space.name!r} "
                f"with {self.space.dim}."
            )
        inputs = np.empty((n, dim + SURFACE_DIM), np.float32)
        inputs[:, :dim] = embeddings
        inputs[:, dim:] = self.standardised(surface) if surface is not None else 0.0
        phi = np.empty((n, self.hidden_dim + 1), np.float32)
        phi[:, :-1] = self.network.encode_batch(inputs)
        phi[:, -1] = 1.0
        return phi

    def standardised(self, surface: FloatVector) -> FloatVector:
        """Surface features less their mean, over their scale, cut to [-4, 4]; a row of NaN becomes 0."""
        scaled: FloatVector = (surface - self.surface_mean) / self.surface_scale
        return np.nan_to_num(np.minimum(np.maximum(scaled, -4.0, out=scaled), 4.0, out=scaled), copy=False, nan=0.0)

    def believed(self, profiles: Sequence[AgentProfile]) -> Abilities:
        """What is believed of N agents before this deployment saw an answer of theirs.

        Agents that answered in training have their trained abilities, others start from their profile.
        """
        k = self.hidden_dim
        mean = np.empty((len(profiles), k + 1))
        covariance = np.empty((len(profiles), k + 1, k + 1))
        outcomes = np.zeros(len(profiles))
        precision = np.linalg.inv(self.prior_covariance)
        for i, profile in enumerate(profiles):
            row = self.row(profile.name)
            if row is not None and self.observed[row] > 0.0:
                mean[i] = self.abilities[row]
                # Traffic differs from benchmarks: what was learned there counts as this many answers here at most.
                weight = min(self.observed[row], _TRAINED_ANSWERS)
                covariance[i] = np.linalg.inv(precision + weight * self.information)
                outcomes[i] = self.observed[row]
            else:
                mean[i], covariance[i] = self._prior_of(profile)
        # Inverting leaves the last bits unsymmetric; whoever writes a covariance down writes half of it.
        return Abilities(mean, 0.5 * (covariance + covariance.transpose(0, 2, 1)), outcomes)

    def _prior_of(self, profile: AgentProfile) -> tuple[Array, Array]:
        mean = np.append(self.prior_mean, 0.0)
        stated, cost = profile.stated_quality, profile.usual_cost_usd
        if stated is not None:
            level = _logit(min(_STATED_HIGH, max(_STATED_LOW, stated)))
        else:
            cheap = self.quality_from_cost
            usual = float(np.nanmedian(self.cost_usd)) if np.isfinite(self.cost_usd).any() else 1.0
            level = float(cheap[0] + cheap[1] * math.log(cost if cost else usual))
        # The bias that makes the mean over usual requests what was stated (MacKay's approximation, turned around).
        spread = float(self.prior_mean @ self.usual_covariance @ self.prior_mean)
        mean[-1] = level * math.sqrt(1.0 + math.pi * spread / 8.0) - float(self.prior_mean @ self.usual_mean)
        return mean, self.prior_covariance.copy()

    def predict(
        self, embeddings: FloatVector, surface: FloatVector | None, agents: Sequence[AgentProfile] | Abilities
    ) -> Array:
        """Expected quality of n requests at N agents; ``float64[n, N]`` in [0, 1].

        Parameters
        ----------
        embeddings, surface
            As in `represent`.
        agents
            Profiles; or beliefs, where outcomes were seen.
        """
        beliefs = agents if isinstance(agents, Abilities) else self.believed(agents)
        return expected(self.represent(embeddings, surface), beliefs.mean)

    def cost_factors(self, representations: FloatVector, surface: FloatVector | None, agents: Sequence[str]) -> Array:
        """Cost of each request as a share of what each agent usually costs; ``float64[n, N]`` above 0.

        From the training data: some requests make an agent talk longer.
        """
        rows = [len(self.agents) if (row := self.row(name)) is None else row for name in agents]
        return factors(self.cost_features(representations, surface), self.cost_weights[rows])

    def cost_features(self, representations: FloatVector, surface: FloatVector | None) -> Array:
        """``[h; s; 1]``, which costs are predicted from; ``float64[n, k + F + 1]``."""
        features = np.zeros((representations.shape[0], self.cost_weights.shape[1]))
        features[:, : self.hidden_dim] = representations[:, :-1]
        if surface is not None:
            features[:, self.hidden_dim : -1] = self.standardised(surface)
        features[:, -1] = 1.0
        return features

    def seen_share(self, texts: Sequence[str]) -> float | None:
        """Share of `texts` that were among the training requests; exact up to 2,048 of those, else an estimate.

        None where the model says nothing of its training requests, or too few of `texts` can be judged.
        """
        if not self.sketch.size or not texts:
            return None
        hashes = np.array([text_hash(text) for text in texts], dtype=np.uint64)
        if self.sketch.size == SKETCH_SIZE:
            # Only hashes in the sketch's range can be looked up: those above its largest were not kept.
            hashes = hashes[hashes <= self.sketch.max()]
        if not hashes.size:
            return None
        return float(np.isin(hashes, self.sketch).mean())

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that decides a prediction, by name."""
        own = {name: np.asarray(getattr(self, name)) for name in _TENSORS}
        return own | {f"network.{name}": array for name, array in self.network.parameters.items()}

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the model as one file; see `save_artifact`. The content's SHA-256."""
        metadata = {
            "agents": list(self.agents),
            "space": self.space.name,
            "dim": self.space.dim,
            "surface_features": list(SURFACE_NAMES),
            "network": asdict(self.network.config),
            "interval": None if self.interval is None else self.interval.to_dict(),
            "facts": dict(self.facts),
        }
        return save_artifact(path, self.tensors(), kind=KIND, metadata=metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, label: str | None = None) -> QualityModel:
        """A model whose arrays lie in the mapped file.

        Parameters
        ----------
        path
            A file that `save` wrote.
        label
            Stands in ``name``; by default the file's name without its suffix.

        Raises
        ------
        NotFoundError
            There is no such file.
        ArtifactError
            The file is damaged, of a newer format, of another kind, or its parts do not fit each other.
        """
        artifact = load_artifact(path, kind=KIND)
        facts = artifact.metadata
        try:
            if facts.get("surface_features") != list(SURFACE_NAMES):
                raise ModelError("It reads other surface features than this version computes.")
            tensors = dict(artifact.tensors)
            parameters = {
                name.removeprefix("network."): tensors.pop(name)
                for name in list(tensors)
                if name.startswith("network.")
            }
            if tensors.keys() != set(_TENSORS):
                raise ModelError(f"It holds {', '.join(sorted(tensors))}; expected {', '.join(sorted(_TENSORS))}.")
            interval = facts.get("interval")
            return cls(
                network=FastGRNN(config_of(facts.get("network")), parameters),
                space=EmbeddingSpace(check.name_of(facts.get("space"), "space"), check.count(facts.get("dim"), "dim")),
                agents=check.names_of(facts.get("agents"), "agents"),
                interval=None if interval is None else ConformalInterval.from_dict(interval),
                facts=facts.get("facts") or {},
                sha256=artifact.sha256,
                label=Path(path).stem if label is None else label,
                **tensors,
            )
        except (ModelError, InvalidInputError) as error:
            raise ArtifactError(
                f"{os.fspath(path)!r} is no usable quality model: {error.message}", hint="Train it again."
            ) from None

    def with_interval(self, interval: ConformalInterval | None) -> QualityModel:
        """The same model with another calibration; unsaved."""
        return replace(self, interval=interval, sha256=None)


_TENSORS = (
    "abilities", "observed", "surface_mean", "surface_scale", "usual_mean", "usual_covariance", "prior_mean",
    "prior_covariance", "information", "bars", "cost_usd", "cost_weights", "quality_from_cost", "sketch",
)  # fmt: skip
_TRAINED_ANSWERS = 200.0


def expected(representations: FloatVector, mean: npt.NDArray[np.floating[Any]]) -> Array:
    """``sigma(phi . ability)``: ``float64[n, N]`` from representations of (n, k + 1) and abilities of (N, k + 1)."""
    logits = np.asarray(representations @ mean.T, dtype=np.float64)
    logits *= 0.5
    np.tanh(logits, out=logits)
    logits *= 0.5
    logits += 0.5
    return logits


def factors(features: Array, weights: Array) -> Array:
    """``exp(features . weights)``, within a factor of 150 of 1; ``float64[n, N]``."""
    return np.exp(np.clip(features @ weights.T, -5.0, 5.0))


def text_hash(text: str) -> int:
    """64 bits of a text's SHA-256: enough to tell texts apart, too few to tell anything about them."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")


def sketch_of(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """The smallest 2,048 hashes of the texts, in order: a sample that does not depend on order or repetition."""
    hashes = np.unique(np.array([text_hash(text) for text in texts], dtype=np.uint64))
    return hashes[:SKETCH_SIZE]


def _logit(p: float) -> float:
    return math.log(p / (1.0 - p))
