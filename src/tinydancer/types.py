"""The nouns: agents, candidates, requests, constraints, outcomes.

In: plain values from any door. Out: immutable objects that were checked once, here, so that nothing below has to
check again. Decisions and snapshots, which are columnar, live in ``tinydancer.decide`` and ``tinydancer.snapshot``.

All money is in US dollars, all latencies in milliseconds, all qualities and probabilities in [0, 1], all instants in
seconds since 1970 (UTC).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError, SpaceMismatchError, UnknownObjectiveError
from tinydancer.validation import FloatVector

OBJECTIVES = ("balanced", "cost", "latency", "quality", "quality_per_dollar")
AGENT_TYPES = (
    "llm", "embedding", "specialized", "vision", "audio", "multimodal", "tool", "api", "human", "ensemble",
)  # fmt: skip
DEFAULT_TENANT = "default"
ABSURD_USD = 1e6
"""No single price or cost of one request is believed above this."""
ABSURD_MS = 1e9
"""No latency is believed above this (eleven days)."""


def objective_of(value: Any) -> str:
    """The objective's name in lower case, or `UnknownObjectiveError` with the list of valid ones."""
    text = value.strip().lower() if isinstance(value, str) else value
    if text in OBJECTIVES:
        return str(text)
    raise UnknownObjectiveError(f"Unknown objective {check.shown(value)}; expected one of: {', '.join(OBJECTIVES)}.")


def agent_type_of(value: Any) -> str:
    """An agent type in lower case: one of `AGENT_TYPES`, or any other name, which is a custom type."""
    return check.name_of(value, "agent type").lower()


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """The vector space a deployment lives in; travels with every vector that is stored.

    Parameters
    ----------
    name
        Names the space, not the model: two embedders that share a space (static and transformer MiniLM) share it.
    dim
        Number of dimensions, at least 1.
    """

    name: str
    dim: int

    def __post_init__(self) -> None:
        check.name_of(self.name, "embedding space")
        object.__setattr__(self, "dim", check.count(self.dim, "dim", low=1, high=65_536))

    def require(self, other: EmbeddingSpace, what: str) -> None:
        """Raise `SpaceMismatchError` naming both spaces unless they are the same."""
        if self != other:
            raise SpaceMismatchError(
                f"{what} is in space {other.name!r} ({other.dim} dimensions); "
                f"this deployment uses {self.name!r} ({self.dim} dimensions).",
                hint="Embed again with the deployment's embedder, or open a store for the other space.",
            )

    def __str__(self) -> str:
        return f"{self.name}[{self.dim}]"


MINILM_SPACE = EmbeddingSpace("all-MiniLM-L6-v2", 384)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """What an agent charges, in USD. ``None`` is *unknown*, 0 is *free*.

    One request is estimated as ``cost_per_request + cost_per_call + input tokens x input price + output tokens x
    output price + expected seconds x cost_per_second``. The input and output prices default to the blended
    ``cost_per_token`` (or ``cost_per_1k_tokens / 1000``). An agent that names no price at all, or the price of one
    side of the tokens only, has an unknown cost. ``monthly_fixed_cost`` is paid whether or not a request comes, so
    it adds nothing to one request: alone, it makes a request free.
    """

    cost_per_request: float | None = None
    cost_per_call: float | None = None
    cost_per_token: float | None = None
    cost_per_1k_tokens: float | None = None
    cost_per_second: float | None = None
    monthly_fixed_cost: float | None = None
    input_cost_per_token: float | None = None
    output_cost_per_token: float | None = None
    cached_input_cost_per_token: float | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            limit = 1e12 if f.name == "monthly_fixed_cost" else ABSURD_USD
            value = check.optional_number(getattr(self, f.name), f.name, low=0.0, high=limit, unit="USD")
            object.__setattr__(self, f.name, value)
        if self.cost_per_token is not None and self.cost_per_1k_tokens is not None:
            raise InvalidInputError(
                "Both cost_per_token and cost_per_1k_tokens are given; expected one price for the tokens.",
                hint="Keep one of them.",
            )

    @property
    def input_price(self) -> float | None:
        """USD per input token, None if unknown."""
        return self.input_cost_per_token if self.input_cost_per_token is not None else self._blended

    @property
    def output_price(self) -> float | None:
        """USD per output token, None if unknown."""
        return self.output_cost_per_token if self.output_cost_per_token is not None else self._blended

    @property
    def cached_input_price(self) -> float | None:
        """USD per input token served from the provider's cache; the plain input price unless stated."""
        return self.cached_input_cost_per_token if self.cached_input_cost_per_token is not None else self.input_price

    @property
    def _blended(self) -> float | None:
        return self.cost_per_1k_tokens / 1000.0 if self.cost_per_1k_tokens is not None else self.cost_per_token

    def columns(self) -> tuple[float, float, float, float, float]:
        """(fixed, per input token, per cached input token, per output token, per second), all NaN if unknown."""
        given = [f.name for f in fields(self) if getattr(self, f.name) is not None]
        prices = (self.input_price, self.output_price)
        half_known = (prices[0] is None) != (prices[1] is None) or (
            self.cached_input_cost_per_token is not None and prices[0] is None
        )
        if not given or half_known:
            return (math.nan,) * 5
        fixed = (self.cost_per_request or 0.0) + (self.cost_per_call or 0.0)
        return (
            fixed,
            self.input_price or 0.0,
            self.cached_input_price or 0.0,
            self.output_price or 0.0,
            self.cost_per_second or 0.0,
        )

    def estimate_usd(
        self,
        input_tokens: float,
        output_tokens: float,
        *,
        cached_input_tokens: float = 0.0,
        seconds: float | None = None,
    ) -> float | None:
        """USD for one request, or None if a price that counts, or the time it is paid by, is unknown."""
        fixed, per_input, per_cached, per_output, per_second = self.columns()
        if math.isnan(fixed) or (per_second > 0.0 and seconds is None):
            return None
        cached = min(cached_input_tokens, input_tokens)
        tokens = (input_tokens - cached) * per_input + cached * per_cached + output_tokens * per_output
        return fixed + tokens + per_second * (seconds or 0.0)


COST_FIELDS = tuple(f.name for f in fields(CostModel))


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Something a request can be sent to, as it was registered.

    Parameters
    ----------
    name
        Unique within a tenant; 1 to 200 characters.
    agent_type
        One of `AGENT_TYPES` or a name of your own.
    capabilities
        Words or short phrases. Required capabilities match them exactly; requests match them by meaning.
    cost
        Prices; see `CostModel`.
    avg_latency_ms, quality_score
        What is stated before anything was observed; None is unknown.
    expected_output_tokens
        Tokens of a usual answer, until outcomes tell; None takes the deployment's default.
    metadata
        Any JSON object; ``description`` joins the capabilities in what requests are matched against.
    embedding
        ``float32[dim]`` in the deployment's space; None has it made from the capabilities.
    """

    name: str
    agent_type: str = "llm"
    capabilities: tuple[str, ...] = ()
    cost: CostModel = field(default_factory=CostModel)
    avg_latency_ms: float | None = None
    quality_score: float | None = None
    expected_output_tokens: float | None = None
    is_active: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)
    embedding: FloatVector | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        check.name_of(self.name, "agent name")
        put(self, "agent_type", agent_type_of(self.agent_type))
        put(self, "capabilities", check.names_of(self.capabilities, "capabilities"))
        put(self, "avg_latency_ms", check.optional_number(
            self.avg_latency_ms, "avg_latency_ms", low=0.0, high=ABSURD_MS, unit="ms"))  # fmt: skip
        put(self, "quality_score", check.optional_number(self.quality_score, "quality_score", low=0.0, high=1.0))
        put(self, "expected_output_tokens", check.optional_number(
            self.expected_output_tokens, "expected_output_tokens", low=0.0, high=1e9))  # fmt: skip
        put(self, "is_active", check.boolean(self.is_active, "is_active"))
        put(self, "metadata", json_object(self.metadata, "metadata"))
        if not isinstance(self.cost, CostModel):
            raise InvalidInputError(f"cost is {check.shown(self.cost)}; expected a CostModel.")
        if self.embedding is not None:
            put(self, "embedding", check.unit_vector(self.embedding, f"The embedding of agent {self.name!r}"))

    @property
    def description(self) -> str:
        """The text that requests are matched against: the capabilities, and a description from the metadata."""
        parts = [", ".join(self.capabilities)]
        described = self.metadata.get("description")
        if isinstance(described, str) and described.strip():
            parts.append(described.strip()[:2000])
        return ". ".join(p for p in parts if p)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Agent:
        """An agent from one JSON object, as ``ruvector_register_agent_full`` takes it.

        Prices stand beside the other fields or inside ``cost_model``; stated performance stands beside them or
        inside ``performance``. Unknown keys are an error that lists the known ones.
        """
        return cls(**agent_fields(config))

    def updated(self, changes: Mapping[str, Any]) -> Agent:
        """The agent with some fields changed; the name stays, prices that are not named stay."""
        values = agent_fields(changes, base=self)
        if values.pop("name", self.name) != self.name:
            raise InvalidInputError(
                f"An update names the agent {check.shown(changes.get('name'))}; expected {self.name!r}.",
                hint="Names do not change: register the new name and remove the old one.",
            )
        # A description that changed wants a new embedding, unless one comes with it.
        if "embedding" not in values and ({"capabilities", "metadata"} & values.keys()):
            values["embedding"] = None
        return replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """The agent as JSON-ready fields, the embedding left out; `from_config` reads it back."""
        prices = {name: getattr(self.cost, name) for name in COST_FIELDS if getattr(self.cost, name) is not None}
        return {
            "name": self.name,
            "agent_type": self.agent_type,
            "capabilities": list(self.capabilities),
            "cost_model": prices,
            "avg_latency_ms": self.avg_latency_ms,
            "quality_score": self.quality_score,
            "expected_output_tokens": self.expected_output_tokens,
            "is_active": self.is_active,
            "metadata": dict(self.metadata),
        }


_ALIASES = {
    "type": "agent_type",
    "active": "is_active",
    "latency": "avg_latency_ms",
    "quality": "quality_score",
    "per_request": "cost_per_request",
    "per_call": "cost_per_call",
    "per_token": "cost_per_token",
    "per_1k_tokens": "cost_per_1k_tokens",
    "per_second": "cost_per_second",
    "monthly_fixed": "monthly_fixed_cost",
    "cache_read_input_token_cost": "cached_input_cost_per_token",
}
_AGENT_KEYS = (
    "name", "agent_type", "capabilities", "avg_latency_ms", "quality_score", "expected_output_tokens", "is_active",
    "metadata", "embedding",
)  # fmt: skip
# What was observed cannot be stated, but a listing may be registered again as it came.
_OBSERVED_KEYS = ("p95_latency_ms", "p99_latency_ms", "success_rate", "total_requests")


def agent_fields(config: Mapping[str, Any], *, base: Agent | None = None) -> dict[str, Any]:
    """The arguments of `Agent` in a JSON object, nested and aliased keys resolved, unknown keys refused."""
    if not isinstance(config, Mapping):
        raise InvalidInputError(f"The agent is {check.shown(config)}; expected a JSON object.")
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key in ("cost_model", "cost", "performance") and isinstance(value, Mapping):
            known = (*COST_FIELDS, *_AGENT_KEYS, *_OBSERVED_KEYS)
            nested: dict[str, Any] = {_ALIASES.get(str(k), str(k)): v for k, v in value.items()}
            check.known_keys(nested, known, f"key in {key}")
            flat.update(nested)
        else:
            flat[_ALIASES.get(key, key)] = value
    check.known_keys(flat, (*COST_FIELDS, *_AGENT_KEYS, *_OBSERVED_KEYS, "cost_model", "performance"), "agent field")
    values = {key: flat[key] for key in _AGENT_KEYS if key in flat}
    for key in ("capabilities", "metadata"):
        if key in values and values[key] is None:
            values[key] = () if key == "capabilities" else {}
    prices = {key: flat[key] for key in COST_FIELDS if key in flat}
    if base is not None:
        if prices:
            values["cost"] = replace(base.cost, **prices)
    elif "name" not in values:
        raise InvalidInputError("The agent has no name; expected at least the key 'name'.")
    else:
        values["cost"] = CostModel(**prices)
    return values


def json_object(value: Any, what: str) -> dict[str, Any]:
    """A JSON object as a plain dict: string keys, finite numbers, at most 64 KiB."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{what} is {check.shown(value)}; expected a JSON object.")
    if not value:
        return {}
    try:
        text = json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{what} is no JSON: {error}.") from None
    if len(text) > 65_536:
        raise InvalidInputError(f"{what} takes {len(text):,} bytes as JSON; expected at most 65,536.")
    result: dict[str, Any] = json.loads(text)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPerformance:
    """What was observed of an agent, beside what was stated.

    ``quality_score`` is the plain mean of observed qualities, the stated score until the first observation;
    ``avg_latency_ms`` likewise. ``p95_latency_ms`` and ``p99_latency_ms`` are None until a latency was observed, and
    are exact to 1% (a histogram with logarithmic buckets). ``success_rate`` is 1.0 until the first outcome.
    """

    avg_latency_ms: float | None = None
    p95_latency_ms: float | None = None
    p99_latency_ms: float | None = None
    quality_score: float | None = None
    success_rate: float = 1.0
    total_requests: int = 0
    total_cost_usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """An agent together with what was observed of it: a row of the listing."""

    agent: Agent
    performance: AgentPerformance

    def to_dict(self) -> dict[str, Any]:
        """The listing's columns, named as the documents name them, then the rest of the agent."""
        agent, seen = self.agent, self.performance
        return {
            "name": agent.name,
            "agent_type": agent.agent_type,
            "capabilities": list(agent.capabilities),
            "cost_per_request": agent.cost.cost_per_request,
            "avg_latency_ms": seen.avg_latency_ms,
            "p95_latency_ms": seen.p95_latency_ms,
            "p99_latency_ms": seen.p99_latency_ms,
            "quality_score": seen.quality_score,
            "success_rate": seen.success_rate,
            "total_requests": seen.total_requests,
            "total_cost_usd": seen.total_cost_usd,
            "is_active": agent.is_active,
            "cost_model": agent.to_dict()["cost_model"],
            "expected_output_tokens": agent.expected_output_tokens,
            "metadata": dict(agent.metadata),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What a decision must respect.

    Parameters
    ----------
    max_cost
        USD for this request; an agent whose cost is unknown fails it.
    max_latency_ms
        Milliseconds, compared with the agent's mean latency; an unknown latency fails it.
    min_quality
        Lowest expected quality, in [0, 1].
    required_capabilities
        All of them must be among the agent's, in any case of letters.
    excluded_agents
        Names that must not be chosen; a name that is not registered does no harm.
    budget_remaining
        USD that are left; an agent that would cost more fails.
    good_enough
        Overrides the deployment's share of the best expected quality that ``cost``, ``latency`` and
        ``quality_per_dollar`` accept; 0 switches it off.
    on_no_match
        ``error`` (default) or ``null``: raise, or answer with no decision.
    """

    max_cost: float | None = None
    max_latency_ms: float | None = None
    min_quality: float | None = None
    required_capabilities: tuple[str, ...] = ()
    excluded_agents: tuple[str, ...] = ()
    budget_remaining: float | None = None
    good_enough: float | None = None
    on_no_match: str = "error"

    def __post_init__(self) -> None:
        put = object.__setattr__
        for key, high, unit in (
            ("max_cost", math.inf, "USD"),
            ("max_latency_ms", math.inf, "ms"),
            ("min_quality", 1.0, ""),
            ("budget_remaining", math.inf, "USD"),
            ("good_enough", 1.0, ""),
        ):
            given = getattr(self, key)
            if given is not None:
                put(self, key, check.number(given, key, low=0.0, high=high, unit=unit))
        put(self, "required_capabilities", check.names_of(self.required_capabilities, "required_capabilities"))
        put(self, "excluded_agents", check.names_of(self.excluded_agents, "excluded_agents"))
        if self.on_no_match not in ("error", "null"):
            raise InvalidInputError(f"on_no_match is {check.shown(self.on_no_match)}; expected 'error' or 'null'.")

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any] | None) -> Constraints:
        """From JSON or keyword arguments; unknown keys are an error that lists the known ones, None is absent."""
        if not given:
            return NO_CONSTRAINTS
        if not isinstance(given, Mapping):
            raise InvalidInputError(f"The constraints are {check.shown(given)}; expected a JSON object.")
        check.known_keys(given, CONSTRAINT_KEYS, "constraint")
        return cls(**{key: value for key, value in given.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """Only what is set, JSON-ready."""
        values = {key: getattr(self, key) for key in CONSTRAINT_KEYS}
        kept = {k: v for k, v in values.items() if v is not None and v != () and (k, v) != ("on_no_match", "error")}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}


CONSTRAINT_KEYS = tuple(f.name for f in fields(Constraints))
NO_CONSTRAINTS = Constraints()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """Whose request it is: for accounts and budgets, never for the choice between agents that both may serve.

    Parameters
    ----------
    key
        Who sends it: the name of an API key, a user or a team; never a secret, because it is stored.
    tags
        Whatever else it is to be counted under, at most 16 names.
    task
        What kind of request it is.
    route_name
        The semantic route that brought it.
    """

    key: str | None = None
    tags: tuple[str, ...] = ()
    task: str | None = None
    route_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("key", "task", "route_name"):
            if getattr(self, name) is not None:
                check.name_of(getattr(self, name), name)
        tags = check.names_of(self.tags, "tags")
        if len(tags) > MOST_TAGS:
            raise InvalidInputError(f"{len(tags)} tags are given; expected at most {MOST_TAGS}.")
        object.__setattr__(self, "tags", tuple(dict.fromkeys(tags)))

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any] | None) -> RequestContext:
        """From JSON or keyword arguments; unknown keys are an error that lists the known ones, None is absent."""
        if not given:
            return NO_CONTEXT
        if not isinstance(given, Mapping):
            raise InvalidInputError(f"The context is {check.shown(given)}; expected a JSON object.")
        check.known_keys(given, CONTEXT_KEYS, "key of a context")
        return cls(**{key: value for key, value in given.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """Only what is set, JSON-ready."""
        values = {"key": self.key, "tags": list(self.tags), "task": self.task, "route_name": self.route_name}
        return {key: value for key, value in values.items() if value}


MOST_TAGS = 16
CONTEXT_KEYS = tuple(f.name for f in fields(RequestContext))
NO_CONTEXT = RequestContext()


@dataclass(frozen=True, slots=True)
class RequestBatch:
    """One request or many, embedded already; every array has the batch as its leading axis.

    Parameters
    ----------
    embeddings
        ``float32[n, dim]``, rows of unit length in the deployment's space.
    input_tokens
        ``float64[n]``: tokens the agent will read; counted, estimated, or given by the caller.
    cached_input_tokens
        How many of them the provider has in its cache; one number for all.
    output_tokens
        Tokens each answer is expected to have; None takes each agent's own expectation.
    surface
        ``float32[n, F]``: facts of the texts, for models that read them; None without texts, or without such a model.
    """

    embeddings: FloatVector
    input_tokens: npt.NDArray[np.float64]
    cached_input_tokens: float = 0.0
    output_tokens: float | None = None
    surface: FloatVector | None = None

    def __len__(self) -> int:
        return int(self.embeddings.shape[0])

    def rows(self, start: int, stop: int) -> RequestBatch:
        """The requests from `start` up to `stop`, as views."""
        return RequestBatch(
            self.embeddings[start:stop], self.input_tokens[start:stop], self.cached_input_tokens, self.output_tokens,
            None if self.surface is None else self.surface[start:stop],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of sending one request to one agent.

    Parameters
    ----------
    agent_name
        The agent that answered.
    decision_id
        The decision that sent it there; None for an outcome reported without one.
    success
        Whether an answer came at all.
    quality
        How good it was, in [0, 1]; None if nobody judged.
    latency_ms, cost_usd, input_tokens, output_tokens
        As measured; None if not measured.
    occurred_at
        Seconds since 1970.
    """

    agent_name: str
    occurred_at: float
    decision_id: str | None = None
    success: bool = True
    quality: float | None = None
    latency_ms: float | None = None
    cost_usd: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        check.name_of(self.agent_name, "agent name")
        if self.decision_id is not None:
            check.name_of(self.decision_id, "decision id")
        put(self, "occurred_at", check.number(self.occurred_at, "occurred_at", low=0.0, high=1e12, unit="s"))
        put(self, "success", check.boolean(self.success, "success"))
        put(self, "quality", check.optional_number(self.quality, "quality", low=0.0, high=1.0))
        put(self, "latency_ms", check.optional_number(
            self.latency_ms, "latency_ms", low=0.0, high=ABSURD_MS, unit="ms"))  # fmt: skip
        put(self, "cost_usd", check.optional_number(
            self.cost_usd, "cost_usd", low=0.0, high=ABSURD_USD, unit="USD"))  # fmt: skip
        for key in ("input_tokens", "output_tokens"):
            if getattr(self, key) is not None:
                put(self, key, check.count(getattr(self, key), key, high=10**12))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that may already answer a request: a memory, a document, a response.

    Parameters
    ----------
    id
        Names the candidate; 1 to 200 characters.
    embedding
        ``float32[dim]``, any length but zero.
    created_at
        Seconds since 1970.
    access_count
        How often it was used, at least 0.
    success_rate
        Share of those uses that went well, in [0, 1].
    metadata
        Any JSON object.
    """

    id: str
    embedding: FloatVector = field(compare=False, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0
    access_count: int = 0
    success_rate: float = 0.0

    def __post_init__(self) -> None:
        put = object.__setattr__
        check.name_of(self.id, "candidate id")
        put(self, "embedding", check.vector(self.embedding, f"The embedding of candidate {self.id!r}"))
        put(self, "metadata", json_object(self.metadata, "metadata"))
        put(self, "created_at", check.number(self.created_at, "created_at", low=0.0, high=1e12, unit="s"))
        put(self, "access_count", check.count(self.access_count, "access_count"))
        put(self, "success_rate", check.number(self.success_rate, "success_rate", low=0.0, high=1.0))
