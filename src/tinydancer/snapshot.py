"""The registry as columns: everything ``decide`` reads, immutable, shared by all threads without a lock.

In: agents, what was learned of each, and the vectors of their capabilities. Out: a `Snapshot` of arrays with one entry
per agent, in order of name, so that the same registry gives the same snapshot whatever the order of registration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.quality import QualityModel, expected
from tinydancer.policy.budgets import StoredBudget
from tinydancer.types import Agent, EmbeddingSpace, RequestBatch
from tinydancer.validation import FloatVector

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

QUALITY_BINS = 21
"""Qualities are counted in steps of 0.05; the last bin holds exactly 1.0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionSettings:
    """What a deployment chooses about its decisions.

    Parameters
    ----------
    good_enough
        Share of the best candidate's expected quality that ``cost``, ``latency`` and ``quality_per_dollar`` accept;
        in [0, 1], 0 switches it off.
    quality_bar
        The quality an answer must reach to count as good where a request names no ``min_quality``; confidence is the
        probability of reaching it.
    match_discount
        Share by which the expected quality of the worst-matching candidate is lowered; in [0, 1].
    match_spread
        Difference of cosine similarities from which that discount applies in full; smaller differences, which are
        mostly noise of the embedding, lower the quality in proportion.
    weight_cost, weight_latency, weight_quality, weight_match
        Weights of the ``balanced`` objective, each at least 0, not all 0.
    default_output_tokens
        Tokens of an answer, for agents that state nothing and of which nothing was observed.
    max_alternatives
        How many other agents a decision names.
    """

    good_enough: float = 0.7
    quality_bar: float = 0.5
    match_discount: float = 0.15
    match_spread: float = 0.2
    weight_cost: float = 0.25
    weight_latency: float = 0.25
    weight_quality: float = 0.25
    weight_match: float = 0.25
    default_output_tokens: float = 300.0
    max_alternatives: int = 3

    def __post_init__(self) -> None:
        for key in ("good_enough", "quality_bar", "match_discount"):
            check.number(getattr(self, key), key, low=0.0, high=1.0)
        check.number(self.match_spread, "match_spread", low=1e-6, high=2.0)
        weights = [getattr(self, f"weight_{part}") for part in ("cost", "latency", "quality", "match")]
        for weight in weights:
            check.number(weight, "a weight of the balanced objective", low=0.0, high=1e6)
        check.number(sum(weights), "the sum of the weights of the balanced objective", low=1e-9)
        check.number(self.default_output_tokens, "default_output_tokens", low=0.0, high=1e9)
        check.count(self.max_alternatives, "max_alternatives", high=1000)

    @property
    def weights(self) -> tuple[float, float, float, float]:
        """The weights of cost, latency, quality and match."""
        return self.weight_cost, self.weight_latency, self.weight_quality, self.weight_match


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEstimate:
    """What is expected of an agent before a request is looked at.

    Attributes
    ----------
    quality
        Mean of the Beta posterior, in [0, 1].
    meets_bar
        ``float64[21]``: probability that an answer's quality is at least 0, 0.05, ..., 1.
    latency_ms
        NaN if unknown.
    output_tokens
        Tokens of a usual answer.
    graded_answers
        How many answers it was learned from; 0 while only stated values are known.
    """

    quality: float
    meets_bar: Array
    latency_ms: float
    output_tokens: float
    graded_answers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A trained model over the agents of a snapshot.

    Attributes
    ----------
    model
        The weights.
    abilities
        ``float32[N, k + 1]``: what is believed of each agent now.
    covered
        ``bool[N]``: agents whose quality the model predicts; the others keep their own record.
    discount
        ``float64[N]``: share of the match discount that applies. A model that saw an agent answer knows what the agent
        is good at; of one that it never saw, only the capabilities tell.
    """

    model: QualityModel
    abilities: FloatVector
    covered: Mask
    discount: Array

    def quality(self, requests: RequestBatch, otherwise: Array) -> Array:
        """Expected quality before any match, ``float64[n, N]``; `otherwise` holds that of agents not covered."""
        phi = self.model.represent(requests.embeddings, requests.surface)
        return np.where(self.covered, expected(phi, self.abilities), otherwise)

    def reach(self, quality: npt.ArrayLike, bar: int) -> Array:
        """Calibrated probability that an answer of an expected quality reaches a bar; shape of `quality`."""
        shift, slope = self.model.bars[bar].tolist()
        q = np.clip(np.asarray(quality, dtype=np.float64), 1e-6, 1.0 - 1e-6)
        return np.asarray(1.0 / (1.0 + np.exp(-(shift + slope * np.log(q / (1.0 - q))))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """N agents as columns. Build it with `build_snapshot`.

    Attributes
    ----------
    version
        Names the state of the registry it was built from.
    names, agents
        N entries, in order of name.
    active
        ``bool[N]``.
    capability_rows, capability_index
        ``float32[U, dim]`` different capability vectors, and for each agent the row that is its own; -1 without one.
    capability_bits
        ``uint64[N, W]``: which words of `vocabulary` an agent has.
    fixed_usd, input_usd, cached_usd, output_usd
        ``float64[N]``: price of a request besides its tokens, and per token; NaN if unknown.
    usual_usd
        ``float64[N]``: price of a request besides its input tokens, if the answer is as long as usual.
    output_tokens, latency_ms, quality
        ``float64[N]``: see `AgentEstimate`.
    graded_answers
        ``intp[N]``: likewise.
    meets_bar
        ``float64[N, 21]``.
    interval
        Conformal interval for quality, or None without calibration data.
    predictor
        Trained weights and what they need to predict each request's quality; None without.
    budgets
        Those that are active; what is spent of them is not part of a snapshot.
    """

    version: str
    space: EmbeddingSpace
    settings: DecisionSettings
    names: tuple[str, ...]
    agents: tuple[Agent, ...]
    active: Mask
    capability_rows: FloatVector
    capability_index: npt.NDArray[np.intp]
    vocabulary: Mapping[str, int]
    capability_bits: npt.NDArray[np.uint64]
    fixed_usd: Array
    input_usd: Array
    cached_usd: Array
    output_usd: Array
    usual_usd: Array
    output_tokens: Array
    latency_ms: Array
    quality: Array
    meets_bar: Array
    graded_answers: npt.NDArray[np.intp]
    interval: ConformalInterval | None = None
    predictor: Predictor | None = None
    budgets: tuple[StoredBudget, ...] = ()
    _aligned: bool = field(default=False, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def match(self, embeddings: FloatVector) -> Array:
        """Cosine similarity of each request with each agent's capabilities; ``float64[n, N]`` in [-1, 1].

        An agent without a vector is a generalist: it matches as the others do on average. Agents with the same
        capabilities share one row, so that they match exactly alike and ties fall to the name, not to rounding.
        """
        if self.capability_rows.shape[0] == 0:
            return np.zeros((embeddings.shape[0], len(self.names)))
        similarity = (embeddings @ self.capability_rows.T).astype(np.float64)
        if self._aligned:
            return similarity
        missing = self.capability_index < 0
        result: Array = similarity[:, self.capability_index]
        if missing.any():
            result[:, missing] = result[:, ~missing].mean(axis=1, keepdims=True)
        return result

    def estimated_cost_usd(self, requests: RequestBatch) -> Array:
        """USD of each request at each agent, NaN where a price is unknown; ``float64[n, N]``."""
        tokens = requests.input_tokens[:, None]
        if requests.cached_input_tokens:
            cached = np.minimum(tokens, requests.cached_input_tokens)
            cost = (tokens - cached) * self.input_usd
            cost += cached * self.cached_usd
        else:
            cost = tokens * self.input_usd
        if requests.output_tokens is None:
            cost += self.usual_usd
        else:
            cost += self.fixed_usd + self.output_usd * requests.output_tokens
        return cost

    def interval_of(self, agent: int) -> ConformalInterval | None:
        """The conformal interval of one agent's quality: its model's where one covers it and brings one."""
        predictor = self.predictor
        if predictor is not None and predictor.model.interval is not None and predictor.covered[agent]:
            return predictor.model.interval
        return self.interval

    def required_words(self, required: Sequence[str]) -> npt.NDArray[np.uint64] | None:
        """The bits of `required`, or None if no agent knows one of the words."""
        words = np.zeros(self.capability_bits.shape[1], np.uint64)
        for capability in required:
            bit = self.vocabulary.get(capability.casefold())
            if bit is None:
                return None
            words[bit // 64] |= np.uint64(1) << np.uint64(bit % 64)
        return words


def build_snapshot(
    agents: Sequence[Agent],
    estimates: Mapping[str, AgentEstimate],
    *,
    version: str,
    space: EmbeddingSpace,
    settings: DecisionSettings,
    interval: ConformalInterval | None = None,
    predictor: Predictor | None = None,
    budgets: Sequence[StoredBudget] = (),
) -> Snapshot:
    """Columns from agents; the order in which they come does not matter.

    Raises
    ------
    SpaceMismatchError
        An agent's embedding is not of the deployment's dimension.
    """
    ordered = tuple(sorted(agents, key=lambda a: a.name))
    count = len(ordered)
    prices = np.array([a.cost.columns() for a in ordered], dtype=np.float64).reshape(count, 5)
    known = [estimates[a.name] for a in ordered]
    latency = np.array([e.latency_ms for e in known], dtype=np.float64)
    seconds_usd = np.where(prices[:, 4] > 0.0, prices[:, 4] * latency / 1000.0, 0.0)  # NaN where latency is unknown
    vocabulary, bits = _capability_bits(ordered)
    rows, index = _capability_rows(ordered, space)
    columns: dict[str, Any] = {
        "active": np.array([a.is_active for a in ordered], dtype=np.bool_),
        "capability_rows": rows,
        "capability_index": index,
        "capability_bits": bits,
        "fixed_usd": prices[:, 0] + seconds_usd,
        "input_usd": prices[:, 1].copy(),
        "cached_usd": prices[:, 2].copy(),
        "output_usd": prices[:, 3].copy(),
        "output_tokens": np.array([e.output_tokens for e in known], dtype=np.float64),
        "latency_ms": latency,
        "graded_answers": np.array([e.graded_answers for e in known], dtype=np.intp),
        "quality": np.array([e.quality for e in known], dtype=np.float64),
        "meets_bar": np.array([e.meets_bar for e in known], dtype=np.float64).reshape(count, QUALITY_BINS),
    }
    columns["usual_usd"] = columns["fixed_usd"] + columns["output_usd"] * columns["output_tokens"]
    for array in columns.values():
        array.setflags(write=False)
    return Snapshot(
        version=version, space=space, settings=settings, names=tuple(a.name for a in ordered), agents=ordered,
        vocabulary=vocabulary, interval=interval, predictor=predictor,
        budgets=tuple(stored for stored in budgets if stored.budget.is_active),
        _aligned=bool(np.array_equal(index, np.arange(count))), **columns,
    )  # fmt: skip


def bar_index(bar: float) -> int:
    """Column of ``meets_bar`` for a quality bar: the first step at or above it."""
    return min(QUALITY_BINS - 1, math.ceil(bar * (QUALITY_BINS - 1) - 1e-9))


def _capability_bits(agents: Sequence[Agent]) -> tuple[dict[str, int], npt.NDArray[np.uint64]]:
    words = sorted({c.casefold() for a in agents for c in a.capabilities})
    vocabulary = {word: bit for bit, word in enumerate(words)}
    bits = np.zeros((len(agents), max(1, -(-len(words) // 64))), np.uint64)
    for row, agent in zip(bits, agents, strict=True):
        for capability in agent.capabilities:
            bit = vocabulary[capability.casefold()]
            row[bit // 64] |= np.uint64(1) << np.uint64(bit % 64)
    return vocabulary, bits


def _capability_rows(agents: Sequence[Agent], space: EmbeddingSpace) -> tuple[FloatVector, npt.NDArray[np.intp]]:
    rows: dict[bytes, int] = {}
    index = np.full(len(agents), -1, np.intp)
    vectors: list[FloatVector] = []
    for position, agent in enumerate(agents):
        if agent.embedding is None:
            continue
        vector = check.vector(
            agent.embedding, f"The embedding of agent {agent.name!r}", dim=space.dim, space=space.name
        )
        index[position] = rows.setdefault(vector.tobytes(), len(vectors))
        if index[position] == len(vectors):
            vectors.append(vector)
    matrix = np.array(vectors, dtype=np.float32).reshape(len(vectors), space.dim)
    return np.ascontiguousarray(matrix), index
