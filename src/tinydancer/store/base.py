"""What every store offers: agents, decisions, outcomes, models, and the version of the registry.

In: checked nouns. Out: what was committed, by this process or any other. A method that returns has committed; a
method that raises has changed nothing. Every method may be called from any thread, and every method is limited to the
tenant the store was opened for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from tinydancer.learn import AgentStats
from tinydancer.policy.allowance import Claim
from tinydancer.policy.analytics import Traffic
from tinydancer.policy.budgets import Budget, StoredBudget
from tinydancer.policy.route_rules import RateLimit, Route, Utterance
from tinydancer.types import NO_CONTEXT, Agent, EmbeddingSpace, Outcome, RequestContext

SHIPPED_MODEL = "shipped"
"""Names what this version of the package brings for a kind. Its weights are never stored: only that it is active."""
NO_MODEL = "none"
"""Reserved, so that *none* is never taken for a model."""


class StoreVersion(NamedTuple):
    """Tells whether what was read is still current.

    Attributes
    ----------
    registry
        Grows with every change to the agents and to the models.
    outcomes
        Grows with every outcome.
    """

    registry: int
    outcomes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    """A decision as it is stored.

    ``request`` is the text where recording texts is on, else None; ``constraints`` is JSON-ready. ``features`` is what
    a model learns from when the outcome is known: little-endian float16, the embedding and then the surface features,
    which no store looks into.
    """

    decision_id: str
    decided_at: float
    agent_name: str
    objective: str
    expected_quality: float
    confidence: float
    uncertainty: float
    estimated_cost_usd: float | None
    estimated_latency_ms: float | None
    similarity_score: float
    input_tokens: float
    constraints: Mapping[str, Any]
    model: str | None = None
    request: str | None = None
    features: bytes | None = None
    context: RequestContext = NO_CONTEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """What is known of a model without reading its weights.

    Attributes
    ----------
    kind
        What it is for, ``quality-model`` for example.
    sha256
        Of its content, 64 hexadecimal digits; empty for the shipped one, which the store does not hold.
    size_bytes
        Of its file; 0 for the shipped one.
    metadata
        The JSON object that its file holds, or what the caller made of it.
    is_active
        Whether it is the one of its kind that decides.
    created_at
        When it was stored, in seconds since 1970; 0 for the shipped one.
    """

    kind: str
    name: str
    sha256: str
    size_bytes: int
    metadata: Mapping[str, Any]
    is_active: bool
    created_at: float

    @property
    def is_shipped(self) -> bool:
        """Whether the package brings it; its weights are then not the store's to give."""
        return self.name == SHIPPED_MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedFeatures:
    """A judged answer with what its decision kept to learn from.

    Attributes
    ----------
    outcome_id
        Grows; where to read on from.
    agent_name
        Who answered, which need not be who was decided for.
    quality
        As it was judged, in [0, 1]; 0 for an answer that failed and that nobody judged.
    features
        Of the decision, as they were recorded.
    request
        The text where it was recorded, else None.
    """

    outcome_id: int
    agent_name: str
    quality: float
    features: bytes
    request: str | None
    cost_usd: float | None
    occurred_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTotals:
    """Counts over all decisions and outcomes of the tenant.

    ``estimated_cost_usd`` sums what decisions were expected to cost (unknown ones left out), ``total_cost_usd`` what
    outcomes reported.
    """

    total_decisions: int
    total_outcomes: int
    successes: int
    estimated_cost_usd: float
    total_cost_usd: float
    decisions_by_agent: Mapping[str, int]
    decisions_by_objective: Mapping[str, int]


class BudgetUse(NamedTuple):
    """What is used of one period of a budget.

    Attributes
    ----------
    period
        Its key; see `Period`.
    alerted
        The highest share of the amount that was told, 0 before the first.
    """

    budget_id: int
    period: int
    spent_usd: float
    reserved_usd: float
    alerted: float

    @property
    def used_usd(self) -> float:
        """Spent and reserved."""
        return self.spent_usd + self.reserved_usd


class Reservation(NamedTuple):
    """What one decision is expected to cost one budget; `release_at` is when it is given back, None for never."""

    decision_id: str
    agent_name: str
    budget_id: int
    period: int
    amount_usd: float
    release_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """What came of asking for money.

    Attributes
    ----------
    granted
        Whether it was reserved, or fits where this session may not write.
    uses
        What was used before, as of now, of every budget that was asked; one that was changed or removed since it was
        read is missing.
    kept
        Whether anything was written.
    """

    granted: bool
    uses: tuple[BudgetUse, ...]
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAlert:
    """A share of a budget's amount that was passed in a period, which `period` begins, in seconds since 1970."""

    budget: str
    period: int
    share: float
    used_usd: float
    amount_usd: float
    raised_at: float


@runtime_checkable
class Store(Protocol):
    """Where state rests. Opening one for a space other than the stored one raises `SpaceMismatchError`."""

    @property
    def tenant(self) -> str:
        """Whose rows are seen."""
        ...

    @property
    def space(self) -> EmbeddingSpace:
        """The vector space of every embedding in it."""
        ...

    def version(self) -> StoreVersion:
        """The current version, whoever changed it last."""
        ...

    def registry_version(self) -> int:
        """Its first part alone: cheap enough to ask before every decision (a few microseconds)."""
        ...

    # Agents. An agent's embedding is stored with the store's space and must be of its dimension.
    def insert_agent(self, agent: Agent) -> None:
        """Raises `AlreadyExistsError` if the name is taken, with a hint at updating."""
        ...

    def replace_agent(self, agent: Agent) -> None:
        """Raises `NotFoundError`; keeps what was observed of it."""
        ...

    def insert_agents(self, agents: Sequence[Agent], *, replace: bool) -> None:
        """All of them or none, in one transaction; `replace` overwrites agents that exist."""
        ...

    def delete_agent(self, name: str) -> None:
        """Removes an agent; raises `NotFoundError`.

        Its decisions and outcomes stay for the accounts; an agent that is registered under the same name later starts
        with an empty record.
        """
        ...

    def clear_agents(self) -> int:
        """Removes every agent; how many there were."""
        ...

    def get_agent(self, name: str) -> Agent:
        """Raises `NotFoundError` with the nearest existing name as a hint."""
        ...

    def list_agents(self) -> list[Agent]:
        """All, active or not, in order of name."""
        ...

    def agent_stats(self) -> dict[str, AgentStats]:
        """Everything observed, per agent name: what is rolled up plus the tail; exact."""
        ...

    # What happened.
    def insert_decisions(self, rows: Sequence[DecisionRow]) -> None:
        """Appends, all of them or none."""
        ...

    def get_decision(self, decision_id: str) -> DecisionRow:
        """Raises `NotFoundError`."""
        ...

    def list_decisions(self, limit: int = 100) -> list[DecisionRow]:
        """The latest first."""
        ...

    def insert_outcomes(self, outcomes: Sequence[Outcome]) -> bool:
        """Appends and settles with the budgets; whether one was charged. `NotFoundError` for an unregistered agent.

        Never waits for a statistic. What a decision reserved is given back and what it cost is spent instead: its
        estimate where the cost of a success is unknown. A cost without a reservation is charged to the budgets that it
        falls under, in the period in which it occurred.
        """
        ...

    def recent_residuals(self, limit: int) -> list[float]:
        """|observed quality - expected quality| of the latest judged decisions, the latest first."""
        ...

    def routing_totals(self) -> RoutingTotals:
        """Counts over everything recorded."""
        ...

    def traffic(self, kind: str, histograms: str, begin: float, starts: Sequence[float]) -> Traffic:
        """The outcomes since an instant, added up, as of one instant; exact.

        Parameters
        ----------
        kind
            What a value is: ``objective``, ``route`` or ``task``; empty for outcomes without one.
        histograms
            What latencies are counted by: ``agent``, ``value`` or ``period``; values are told apart with ``value``.
        begin
            Seconds since 1970. There is no end: outcomes whose clock was ahead count, too.
        starts
            The beginnings of periods, ascending. An outcome belongs to the period in which its hour (of UTC) begins.
        """
        ...

    # Models. A kind has one that is active: a stored one, or the shipped one, or none. Every change to them moves the
    # registry's version.
    def insert_model(
        self, kind: str, name: str, sha256: str, artifact: bytes, metadata: Mapping[str, Any], *, replace: bool = False
    ) -> None:
        """Stores a model's file, which the caller has checked; with `replace` over one of that name, active or not.

        Raises `AlreadyExistsError` if the name is taken, `InvalidNameError` for `SHIPPED_MODEL` and `NO_MODEL`.
        """
        ...

    def list_models(self, kind: str | None = None) -> list[ModelRow]:
        """Those that are stored, of one kind or of all, in order of kind and name; the shipped ones are not."""
        ...

    def get_model(self, kind: str, name: str) -> ModelRow:
        """One that is stored; raises `NotFoundError` with the nearest name as a hint."""
        ...

    def model_artifact(self, kind: str, name: str) -> bytes:
        """The file of one that is stored; raises `NotFoundError`."""
        ...

    def activate_model(self, kind: str, name: str | None) -> None:
        """Lets a stored model decide, or `SHIPPED_MODEL`, or with None none; raises `NotFoundError`."""
        ...

    def active_model(self, kind: str) -> ModelRow | None:
        """The one that decides, or None; of the shipped one (``is_shipped``) the row holds the name only."""
        ...

    def delete_model(self, kind: str, name: str) -> None:
        """Removes one that is stored; if it was active, none is. Raises `NotFoundError`."""
        ...

    # Learning.
    def graded_features(self, after: int, limit: int) -> list[GradedFeatures]:
        """Outcomes with a quality, or without success, whose decisions have features; after an outcome id, in order.

        An answer that was judged twice is there twice. Read on with the last `outcome_id`. What a transaction that is
        still open may precede is left for later.
        """
        ...

    def ability_state(self, model_sha256: str) -> tuple[int, bytes] | None:
        """What was learned on top of a model: up to which outcome id, and the state, which no store looks into."""
        ...

    def save_ability_state(self, model_sha256: str, up_to: int, state: bytes) -> bool:
        """Keeps a state that knows more outcomes than the stored one; whether it did.

        Never waits and never fails for want of permission: False if another session is at it, or if this one may not
        write.
        """
        ...

    # Semantic routes. Every change to them moves the registry's version; rate limits do not.
    def insert_routes(self, routes: Sequence[Route], *, replace: bool = False) -> None:
        """Keeps all of them or none; with `replace`, those that exist are overwritten with their utterances.

        Raises `AlreadyExistsError` for a name that is taken, or differs from another in capitals only, and
        `NotFoundError` for a target agent that is not registered.
        """
        ...

    def update_routes(self, routes: Sequence[Route]) -> None:
        """Overwrites fields and descriptions, all or none; examples stay. Raises `NotFoundError`."""
        ...

    def delete_route(self, name: str) -> None:
        """Removes a route with its utterances; raises `NotFoundError`."""
        ...

    def add_utterances(self, name: str, utterances: Sequence[Utterance]) -> int:
        """Adds examples that the route does not have yet; how many. Raises `NotFoundError`."""
        ...

    def remove_utterances(self, name: str, texts: Sequence[str]) -> int:
        """Removes examples by their texts, wanted or negative ones; how many there were. Raises `NotFoundError`."""
        ...

    def get_route(self, name: str) -> Route:
        """One route with its utterances; raises `NotFoundError` with the nearest name as a hint."""
        ...

    def list_routes(self) -> list[Route]:
        """All, active or not, in order of name, with their utterances."""
        ...

    def take_route_token(self, name: str, limit: RateLimit, now: float, *, keep: bool = True) -> bool:
        """Asks a route's rate limit for one request, across all processes; without `keep` it is only looked at."""
        ...

    # Budgets. Every change to them moves the registry's version; what is spent does not.
    def insert_budget(self, budget: Budget) -> None:
        """Keeps a new budget.

        Raises `AlreadyExistsError` for a name that is taken, or differs from another in capitals only, and
        `NotFoundError` for an agent that is not registered.
        """
        ...

    def update_budget(self, budget: Budget) -> None:
        """Overwrites the budget of that name; raises `NotFoundError`. What was spent and reserved stays."""
        ...

    def delete_budget(self, name: str) -> None:
        """Removes a budget with its accounts and reservations; raises `NotFoundError`. Its alerts stay."""
        ...

    def get_budget(self, name: str) -> StoredBudget:
        """Raises `NotFoundError` with the nearest name as a hint."""
        ...

    def list_budgets(self) -> list[StoredBudget]:
        """All, active or not, in order of name."""
        ...

    def budget_uses(
        self, periods: Sequence[tuple[int, int]], *, release: Sequence[int] = (), now: float = 0.0
    ) -> list[BudgetUse]:
        """What is used of budgets, given by id and period; of those without a request there is none.

        Of the budgets in `release`, reservations whose time is up by `now` are given back first, where this session may
        write.
        """
        ...

    def reserve(self, claims: Sequence[Claim], reservations: Sequence[Reservation], now: float) -> Reserved:
        """Reserves of several budgets, of all or of none, if each has at most so much used as its claim says.

        In a transaction or a file that cannot be written, and for a role that may only read, it is only looked at.
        """
        ...

    def cancel_reservations(self, decision_ids: Sequence[str]) -> None:
        """Gives back what decisions reserved."""
        ...

    def reserved_agent(self, decision_id: str) -> str | None:
        """The agent that a decision under a budget was made for, until its outcome is reported; None if unknown."""
        ...

    def raise_alerts(
        self, stored: StoredBudget, period: int, shares: Sequence[float], used_usd: float, now: float
    ) -> list[float]:
        """Keeps alerts and tells whoever listens to the store; those that nobody told before."""
        ...

    def budget_alerts(self, since: float) -> list[BudgetAlert]:
        """Alerts since an instant, the latest first."""
        ...

    def close(self) -> None:
        """Ends the use of the store; may be repeated."""
        ...
