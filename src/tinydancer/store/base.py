"""What every store offers: agents, decisions, outcomes, candidates, and the version of the registry.

In: checked nouns. Out: what was committed, by this process or any other. A method that returns has committed; a
method that raises has changed nothing. Every method may be called from any thread, and every method is limited to the
tenant the store was opened for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from tinydancer.learn import AgentStats
from tinydancer.types import Agent, EmbeddingSpace, Outcome


class StoreVersion(NamedTuple):
    """Tells whether what was read is still current.

    Attributes
    ----------
    registry
        Grows with every change to the agents.
    outcomes
        Grows with every outcome.
    """

    registry: int
    outcomes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    """A decision as it is stored.

    ``request`` is the text where recording texts is on, else None; ``constraints`` is JSON-ready.
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

    def insert_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Appends; raises `NotFoundError` if an agent is not registered. Never waits for a statistic."""
        ...

    def recent_residuals(self, limit: int) -> list[float]:
        """|observed quality - expected quality| of the latest judged decisions, the latest first."""
        ...

    def routing_totals(self) -> RoutingTotals:
        """Counts over everything recorded."""
        ...

    def close(self) -> None:
        """Ends the use of the store; may be repeated."""
        ...
