"""The shared store: agents, decisions, outcomes and models in a PostgreSQL database, from outside or inside the server.

In: checked nouns. Out: what any session committed, and in the server also what this transaction did. It implements
`tinydancer.store.base.Store`; `tinydancer.store.pg_connection` holds the two ways to the database, and the statements
lie in ``sql/postgres/queries``.

Every change is one statement, which happens whole or not at all, so none needs a transaction of its own. Outcomes are
appended and queued; nothing that two sessions report on touches the same row.
"""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from tinydancer import validation as check
from tinydancer.errors import AlreadyExistsError, NotFoundError, StoreError
from tinydancer.learn import AgentStats
from tinydancer.store.base import DecisionRow, RoutingTotals, StoreVersion
from tinydancer.store.pg_budgets import PostgresBudgets
from tinydancer.store.pg_connection import Connection, PsycopgConnection, Run
from tinydancer.store.pg_failures import NOT_NULL_VIOLATION, UNIQUE_VIOLATION, DatabaseFailure, store_error
from tinydancer.store.pg_models import PostgresModels
from tinydancer.store.pg_queries import QUERIES
from tinydancer.store.pg_routes import PostgresRoutes
from tinydancer.store.pg_rows import (
    Row,
    agent_of,
    agent_record,
    columns_of,
    decision_of,
    decision_row,
    outcome_row,
    stats_of_row,
)
from tinydancer.store.pg_traffic import PostgresTraffic
from tinydancer.types import DEFAULT_TENANT, MINILM_SPACE, Agent, EmbeddingSpace, Outcome

_FINGERPRINT_BITS = 32


class PostgresStore(PostgresModels, PostgresRoutes, PostgresBudgets, PostgresTraffic):
    """A store in one PostgreSQL database, for any number of threads, processes and machines at once.

    Parameters
    ----------
    connection
        `PsycopgConnection` or `PlpyConnection`; the store closes it.
    space
        The vector space; None takes the database's own. A new database is bound to the space it is first opened with.
    tenant
        Whose rows these are; other tenants' rows are neither seen nor touched.
    clock
        Gives seconds since 1970.

    Raises
    ------
    SpaceMismatchError
        If the database is in another space.
    StoreError
        If the database cannot be used, or does not hold the tables (`connect` installs them).
    """

    def __init__(
        self,
        connection: Connection,
        *,
        space: EmbeddingSpace | None = MINILM_SPACE,
        tenant: str = DEFAULT_TENANT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tenant = check.name_of(tenant, "tenant")
        self._connection = connection
        self._clock = clock
        connection.use_tenant(self._tenant)
        found = self._stored_space()
        if found is None:
            made = space or MINILM_SPACE
            self._write("put_space", made.name, made.dim)
            found = self._stored_space() or made
        if space is not None:
            space.require(found, "The database")
        self._space = found

    @classmethod
    def connect(
        cls,
        dsn: str,
        *,
        space: EmbeddingSpace | None = MINILM_SPACE,
        tenant: str = DEFAULT_TENANT,
        clock: Callable[[], float] = time.time,
        timeout_s: float = 30.0,
        max_connections: int = 16,
    ) -> PostgresStore:
        """A store at a libpq connection string, from outside; installs or upgrades the tables where necessary.

        `timeout_s` is how long to wait for a connection or a lock, `max_connections` how many to open at most.
        """
        from tinydancer.store.pg_migrations import migrate

        timeout_s = check.number(timeout_s, "timeout_s", low=0.1, high=86_400.0, unit="s")
        max_connections = check.count(max_connections, "max_connections", low=1, high=10_000)
        connection = PsycopgConnection(dsn, max_connections=max_connections, timeout_s=timeout_s)
        try:
            migrate(connection)
            return cls(connection, space=space, tenant=tenant, clock=clock)
        except DatabaseFailure as failure:
            connection.close()
            raise store_error(failure) from None
        except BaseException:
            connection.close()
            raise

    @property
    def tenant(self) -> str:
        """Whose rows are seen."""
        return self._tenant

    @property
    def space(self) -> EmbeddingSpace:
        """The vector space of every embedding in the database."""
        return self._space

    def __enter__(self) -> PostgresStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections. May be repeated."""
        self._connection.close()

    # Versions.

    def version(self) -> StoreVersion:
        """The current version, whoever changed it last; see `registry_version` and `outcomes_version`."""
        registry, outcomes, fingerprint = self._fetch("version", self._tenant)[0]
        return StoreVersion(registry, outcomes << _FINGERPRINT_BITS | fingerprint % (1 << _FINGERPRINT_BITS))

    def registry_version(self) -> int:
        """Grows with every change to agents and models; a number seen before a ROLLBACK never comes again."""
        rows = self._fetch("registry_version", self._tenant)
        return int(rows[0][0]) if rows else 0

    def outcomes_version(self) -> int:
        """Differs between any two sets of visible outcomes, and grows with every outcome.

        The upper bits count the outcomes. The lower 32 sum the hashes of their ids, so that a count that is reached a
        second time after a ROLLBACK, with other outcomes, is told from the first. Reads the tail.
        """
        return self.version().outcomes

    # Agents.

    def insert_agent(self, agent: Agent) -> None:
        """Registers one agent; `AlreadyExistsError` if the name is taken."""
        self.insert_agents([agent], replace=False)

    def insert_agents(self, agents: Sequence[Agent], *, replace: bool) -> None:
        """Registers all of them or none; with `replace`, those that exist are overwritten and keep their record."""
        records = [agent_record(agent, self._space) for agent in agents]
        if not records:
            return
        if replace:
            records = list({record["name"]: record for record in records}.values())  # the last of a name counts
        query = QUERIES["put_agents" if replace else "insert_agents"]
        try:
            self._connection.write(query, (self._tenant, json.dumps(records), float(self._clock())))
        except DatabaseFailure as failure:
            if failure.sqlstate != UNIQUE_VIOLATION:
                raise store_error(failure) from None
        else:
            return
        raise AlreadyExistsError(
            f"An agent named {self._taken_name(records)!r} is registered already.",
            hint="Update it, remove it first, or choose another name.",
        )

    def replace_agent(self, agent: Agent) -> None:
        """Overwrites what an agent states and keeps its record; `NotFoundError` if it is not registered."""
        record = json.dumps(agent_record(agent, self._space))
        if self._write("replace_agent", self._tenant, record, float(self._clock()))[0][0] == 0:
            raise self._unknown_agent(agent.name)

    def delete_agent(self, name: str) -> None:
        """Removes an agent; `NotFoundError` if it is not registered. What happened stays in the accounts."""
        if self._write("remove_agents", self._tenant, str(name), float(self._clock()))[0][0] == 0:
            raise self._unknown_agent(name)

    def clear_agents(self) -> int:
        """Removes every agent; how many there were."""
        return int(self._write("remove_agents", self._tenant, None, float(self._clock()))[0][0])

    def get_agent(self, name: str) -> Agent:
        """One agent; `NotFoundError` with the nearest existing name as a hint."""
        rows = self._fetch("get_agent", self._tenant, str(name))
        if not rows:
            raise self._unknown_agent(name)
        return agent_of(rows[0], self._space)

    def list_agents(self) -> list[Agent]:
        """All, active or not, in order of name."""
        return [agent_of(row, self._space) for row in self._fetch("list_agents", self._tenant)]

    def agent_stats(self) -> dict[str, AgentStats]:
        """Everything observed per agent name; agents without an outcome are left out."""
        rows = self._fetch("agent_stats", self._tenant)
        return {name: stats_of_row(row) for row in rows for name, registered in [row[:2]] if registered}

    def roll_up(self) -> int:
        """Moves the tail of outcomes into the statistics; how many, 0 if another session does it just now.

        Happens by itself, too, about once in 500 outcomes.
        """

        def work(run: Run) -> int:
            if not run(QUERIES["may_roll_up"], (self._tenant,))[0][0]:
                return 0
            return int(run(QUERIES["roll_up"], (self._tenant,))[0][0])

        try:
            return self._connection.together(work)
        except DatabaseFailure as failure:
            raise store_error(failure) from None

    # What happened.

    def insert_decisions(self, rows: Sequence[DecisionRow]) -> None:
        """Records decisions, all or none; `NotFoundError` if an agent was never registered."""
        if not rows:
            return
        records = [decision_row(row) for row in rows]
        try:
            if len(records) == 1:
                self._connection.write(QUERIES["insert_decision"], (self._tenant, *records[0]))
            else:
                self._connection.write(QUERIES["insert_decisions"], (self._tenant, *columns_of(records)))
            return
        except DatabaseFailure as caught:
            failure = caught
        if failure.sqlstate == UNIQUE_VIOLATION:
            ids = [row.decision_id for row in rows]
            recorded = {found[0] for found in self._fetch("recorded_decisions", self._tenant, ids)}
            raise AlreadyExistsError(f"The decision {_first_taken(ids, recorded)!r} is recorded already.")
        if failure.sqlstate == NOT_NULL_VIOLATION and failure.column == "agent_id":
            ever = {found[0] for found in self._fetch("names_ever", self._tenant)}
            raise self._unknown_agent(
                next((r.agent_name for r in rows if r.agent_name not in ever), rows[0].agent_name)
            )
        raise store_error(failure)

    def get_decision(self, decision_id: str) -> DecisionRow:
        """One decision; `NotFoundError` if it was not recorded."""
        rows = self._fetch("get_decision", self._tenant, str(decision_id))
        if not rows:
            raise NotFoundError(
                f"There is no decision {check.shown(decision_id)}.",
                hint="Decisions are found only if recording was on when they were made.",
            )
        return decision_of(rows[0])

    def list_decisions(self, limit: int = 100) -> list[DecisionRow]:
        """The latest first, at most `limit`."""
        limit = check.count(limit, "limit")
        return [decision_of(row) for row in self._fetch("list_decisions", self._tenant, limit)]

    def insert_outcomes(self, outcomes: Sequence[Outcome]) -> bool:
        """Appends outcomes, all or none; whether a budget was charged. `NotFoundError` if an agent is not registered.

        Waits for nobody, except for sessions that spend of the same budgets, with which it settles in the same
        transaction.
        """
        if not outcomes:
            return False
        columns = columns_of([outcome_row(outcome) for outcome in outcomes])

        def append_and_settle(run: Run) -> tuple[bool, bool]:
            due = run(QUERIES["insert_outcomes"], (self._tenant, *columns, True))[0][0]
            return due, self._settle(run, outcomes)

        try:
            charged, due = False, None
            if not self._has_budgets:
                due = self._connection.write(QUERIES["insert_outcomes"], (self._tenant, *columns, False))[0][0]
            if due is None:  # there are budgets, and nothing was appended
                due, charged = self._connection.together(append_and_settle)
        except DatabaseFailure as caught:
            failure = caught
        else:
            if due:
                self._roll_up_meanwhile()
            return charged
        if failure.sqlstate == NOT_NULL_VIOLATION and failure.column == "agent_id":
            names = self._names()
            wrong = (o.agent_name for o in outcomes if o.agent_name not in names)
            raise self._unknown_agent(next(wrong, outcomes[0].agent_name))
        raise store_error(failure)

    def recent_residuals(self, limit: int) -> list[float]:
        """|observed quality - expected quality| of the decisions judged last, the latest first.

        A decision that was judged more than once counts once, by its last judgement; an outcome of another agent than
        the one decided for does not count.
        """
        limit = check.count(limit, "limit")
        return [row[0] for row in self._fetch("recent_residuals", self._tenant, limit)]

    def routing_totals(self) -> RoutingTotals:
        """Counts over all decisions and outcomes of the tenant, removed agents included."""
        observed = [stats_of_row(row) for row in self._fetch("agent_stats", self._tenant)]
        by_agent: dict[str, int] = {}
        by_objective: dict[str, int] = {}
        estimated_cost_usd = 0.0
        for name, objective, number, cost_usd in self._fetch("decision_totals", self._tenant):
            by_agent[name] = by_agent.get(name, 0) + number
            by_objective[objective] = by_objective.get(objective, 0) + number
            estimated_cost_usd += cost_usd
        return RoutingTotals(
            total_decisions=sum(by_agent.values()),
            total_outcomes=sum(stats.total_requests for stats in observed),
            successes=sum(stats.successes for stats in observed),
            estimated_cost_usd=estimated_cost_usd,
            total_cost_usd=float(sum(stats.cost_sum_usd for stats in observed)),
            decisions_by_agent=by_agent,
            decisions_by_objective=by_objective,
        )

    # Helpers.

    def _write(self, name: str, *parameters: Any) -> list[Row]:
        try:
            return self._connection.write(QUERIES[name], parameters)
        except DatabaseFailure as failure:
            raise store_error(failure) from None

    def _stored_space(self) -> EmbeddingSpace | None:
        rows = self._fetch("get_space")
        return EmbeddingSpace(*rows[0]) if rows else None

    def _roll_up_meanwhile(self) -> None:
        try:
            self.roll_up()
        except StoreError:
            # The outcomes are committed already, and the next session to be due rolls them up. In the server nothing is
            # committed yet, and an error that is swallowed would hide a cancelled statement.
            if not self._connection.commits:
                raise

    def _names(self) -> set[str]:
        return {row[0] for row in self._fetch("agent_names", self._tenant)}

    def _taken_name(self, records: Sequence[dict[str, Any]]) -> str:
        return _first_taken([record["name"] for record in records], self._names())

    def _unknown_agent(self, name: str) -> NotFoundError:
        near = difflib.get_close_matches(str(name), sorted(self._names()), n=1)
        return NotFoundError(
            f"No agent named {check.shown(name)} is registered.",
            hint=f"Did you mean {near[0]!r}?" if near else "Register it first.",
        )


def open_postgres(
    dsn: str,
    space: EmbeddingSpace | None = MINILM_SPACE,
    tenant: str = DEFAULT_TENANT,
    clock: Callable[[], float] = time.time,
) -> PostgresStore:
    """The store that ``postgresql://`` and ``postgres://`` addresses name; see `PostgresStore.connect`."""
    return PostgresStore.connect(dsn, space=space, tenant=tenant, clock=clock)


def _first_taken(given: Sequence[str], existing: set[str]) -> str:
    """The first that exists, or else is given twice; another session may have removed it meanwhile."""
    seen = set(existing)
    for name in given:
        if name in seen:
            return name
        seen.add(name)
    return given[0]
