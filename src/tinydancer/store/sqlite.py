"""The embedded store: agents, decisions, outcomes and models in one SQLite file.

In: checked nouns. Out: what any process committed to the file. It implements `tinydancer.store.base.Store`; connections
and transactions are `tinydancer.store.connection`'s business, the statements lie in ``sql/sqlite/queries``.

Changes to agents, and outcomes, are on the disk when a method returns. Decisions are recorded on the hot path of
routing: they survive the death of the process, but an operating system that crashes may take the last few with it.
"""

from __future__ import annotations

import difflib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from tinydancer import validation as check
from tinydancer.errors import AlreadyExistsError, NotFoundError
from tinydancer.learn import SUMMED_FIELDS, AgentStats, Tally
from tinydancer.store.base import DecisionRow, RoutingTotals, StoreVersion
from tinydancer.store.connection import Connection, Row
from tinydancer.store.failures import corrupt_error
from tinydancer.store.migrations import open_database, read_space
from tinydancer.store.queries import load_queries
from tinydancer.store.rows import agent_of, agent_row, decision_of, decision_row, outcome_row
from tinydancer.store.sqlite_budgets import SqliteBudgets
from tinydancer.store.sqlite_models import SqliteModels
from tinydancer.store.sqlite_routes import SqliteRoutes
from tinydancer.store.sqlite_traffic import SqliteTraffic
from tinydancer.store.statistics import RunningStats, add_row
from tinydancer.types import DEFAULT_TENANT, MINILM_SPACE, Agent, EmbeddingSpace, Outcome

TAIL_LENGTH = 1000
"""Outcomes are rolled up when about this many are not."""

_Q = {
    **load_queries("sqlite/queries/agents.sql"),
    **load_queries("sqlite/queries/decisions.sql"),
    **load_queries("sqlite/queries/outcomes.sql"),
}


class SqliteStore(SqliteModels, SqliteRoutes, SqliteBudgets, SqliteTraffic):
    """A store in one SQLite file, for many threads and several processes at once.

    Parameters
    ----------
    path
        The file, made if it does not exist, or ``:memory:`` for a store that ends with the object.
    space
        The vector space; a file is bound to the one it was made for.
    tenant
        Whose rows these are; other tenants' rows in the same file are neither seen nor touched.
    timeout_s
        How long to wait for another writer, in seconds.
    clock
        Gives seconds since 1970.

    Raises
    ------
    SpaceMismatchError
        If the file is in another space.
    StoreError
        If the file cannot be used: see the errors below it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        space: EmbeddingSpace = MINILM_SPACE,
        tenant: str = DEFAULT_TENANT,
        timeout_s: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tenant = check.name_of(tenant, "tenant")
        self._clock = clock
        timeout_s = check.number(timeout_s, "timeout_s", low=0.0, high=threading.TIMEOUT_MAX, unit="s")
        self._database, self._space = open_database(path, space=space, clock=clock, timeout_s=timeout_s)
        self._stats = RunningStats()
        self._stats_lock = threading.Lock()

    @staticmethod
    def open_space(path: str | os.PathLike[str]) -> EmbeddingSpace | None:
        """The space an existing file is bound to; None if there is no file yet. Changes nothing."""
        return read_space(path)

    @property
    def tenant(self) -> str:
        """Whose rows are seen."""
        return self._tenant

    @property
    def space(self) -> EmbeddingSpace:
        """The vector space of every embedding in the file."""
        return self._space

    @property
    def path(self) -> str:
        """The absolute path of the file, or ``:memory:``."""
        return self._database.path

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file, after whatever is running on it. May be repeated."""
        self._database.close()

    def version(self) -> StoreVersion:
        """The current version, whoever changed it last."""
        return StoreVersion(*self._database.fetch(_Q["version"], (self._tenant,))[0])

    def registry_version(self) -> int:
        """Grows with every change to the agents and to the models, whoever made it."""
        rows = self._database.fetch(_Q["registry_version"], (self._tenant,))
        return int(rows[0][0]) if rows else 0

    def insert_agent(self, agent: Agent) -> None:
        """Registers one agent; `AlreadyExistsError` if the name is taken."""
        self.insert_agents([agent], replace=False)

    def replace_agent(self, agent: Agent) -> None:
        """Overwrites what an agent states and keeps its record; `NotFoundError` if it is not registered."""
        row = agent_row(agent, self._tenant, self._space, self._clock())

        def work(connection: Connection) -> None:
            if connection.execute(_Q["replace_agent"], row).rowcount == 0:
                raise self._unknown_agent(connection, agent.name)
            connection.execute(_Q["grow_registry_version"], (self._tenant,))

        self._database.write(work, durable=True)

    def insert_agents(self, agents: Sequence[Agent], *, replace: bool) -> None:
        """Registers all of them or none; with `replace`, those that exist are overwritten and keep their record."""
        rows = [agent_row(agent, self._tenant, self._space, self._clock()) for agent in agents]
        if not rows:
            return

        def work(connection: Connection) -> None:
            connection.execute(_Q["grow_registry_version"], (self._tenant,))
            for row in rows:
                if replace and connection.execute(_Q["replace_agent"], row).rowcount:
                    continue
                try:
                    connection.execute(_Q["insert_agent"], row)
                except sqlite3.IntegrityError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                        raise
                    raise AlreadyExistsError(
                        f"An agent named {row[1]!r} is registered already.",
                        hint="Update it, remove it first, or choose another name.",
                    ) from None

        self._database.write(work, durable=True)

    def delete_agent(self, name: str) -> None:
        """Removes an agent; `NotFoundError` if it is not registered. What happened stays in the accounts."""

        def work(connection: Connection) -> None:
            if connection.execute(_Q["remove_agent"], (self._tenant, name, self._clock())).rowcount == 0:
                raise self._unknown_agent(connection, name)
            connection.execute(_Q["grow_registry_version"], (self._tenant,))

        self._database.write(work, durable=True)

    def clear_agents(self) -> int:
        """Removes every agent; how many there were."""

        def work(connection: Connection) -> int:
            removed = connection.execute(_Q["remove_all_agents"], (self._tenant, self._clock())).rowcount
            if removed:
                connection.execute(_Q["grow_registry_version"], (self._tenant,))
            return removed

        return self._database.write(work, durable=True)

    def get_agent(self, name: str) -> Agent:
        """One agent; `NotFoundError` with the nearest existing name as a hint."""
        rows = self._database.fetch(_Q["get_agent"], (self._tenant, name))
        if not rows:
            raise self._database.read(lambda connection: self._unknown_agent(connection, name))
        return agent_of(rows[0], self._space)

    def list_agents(self) -> list[Agent]:
        """All, active or not, in order of name."""
        return [agent_of(row, self._space) for row in self._database.fetch(_Q["list_agents"], (self._tenant,))]

    def agent_stats(self) -> dict[str, AgentStats]:
        """Everything observed per agent name; agents without an outcome are left out."""

        def work(connection: Connection) -> dict[str, AgentStats]:
            observed = self._observed(connection)
            names = connection.execute(_Q["agent_names"], (self._tenant,))
            return {name: observed[agent_id] for agent_id, name in names if agent_id in observed}

        return self._database.read(work)

    def roll_up(self) -> int:
        """Adds the tail of outcomes to the rolled-up statistics; how many there were. Happens by itself, too."""
        return self._database.write(self._roll_up, durable=True)

    def insert_decisions(self, rows: Sequence[DecisionRow]) -> None:
        """Records decisions, all or none; `NotFoundError` if an agent was never registered."""
        if not rows:
            return
        records = [decision_row(row, self._tenant) for row in rows]
        statement = _Q["insert_decision"]

        def work(connection: Connection) -> None:
            for record in records:
                try:
                    connection.execute(statement, record)
                except sqlite3.IntegrityError as error:
                    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                        raise AlreadyExistsError(f"The decision {record[1]!r} is recorded already.") from None
                    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_NOTNULL and "agent_id" in str(error):
                        raise self._unknown_agent(connection, record[3]) from None
                    raise

        self._database.write(work, durable=False)

    def get_decision(self, decision_id: str) -> DecisionRow:
        """One decision; `NotFoundError` if it was not recorded."""
        rows = self._database.fetch(_Q["get_decision"], (self._tenant, decision_id))
        if not rows:
            raise NotFoundError(
                f"There is no decision {check.shown(decision_id)}.",
                hint="Decisions are found only if recording was on when they were made.",
            )
        return decision_of(rows[0])

    def list_decisions(self, limit: int = 100) -> list[DecisionRow]:
        """The latest first, at most `limit`."""
        limit = check.count(limit, "limit")
        return [decision_of(row) for row in self._database.fetch(_Q["list_decisions"], (self._tenant, limit))]

    def insert_outcomes(self, outcomes: Sequence[Outcome]) -> bool:
        """Appends outcomes and settles with the budgets, all or none; whether a budget was charged.

        `NotFoundError` if an agent is not registered.
        """
        rows = [outcome_row(outcome, self._tenant) for outcome in outcomes]
        if not rows:
            return False

        def work(connection: Connection) -> bool:
            last_id = 0
            for row in rows:
                cursor = connection.execute(_Q["insert_outcome"], row)
                if cursor.rowcount == 0:
                    raise self._unknown_agent(connection, row[1])
                last_id = cursor.lastrowid or 0
            charged = self._settle(connection, outcomes)
            rolled_up_to = connection.execute(_Q["rolled_up_to"], (self._tenant,)).fetchone()[0]
            if last_id - rolled_up_to >= TAIL_LENGTH:
                self._roll_up(connection)
            return charged

        return self._database.write(work, durable=True)

    def recent_residuals(self, limit: int) -> list[float]:
        """|observed quality - expected quality| of the decisions judged last, the latest first.

        A decision that was judged more than once counts once, by its last judgement; an outcome of another agent than
        the one decided for does not count.
        """
        limit = check.count(limit, "limit")
        return [row[0] for row in self._database.fetch(_Q["recent_residuals"], (self._tenant, limit))]

    def routing_totals(self) -> RoutingTotals:
        """Counts over all decisions and outcomes of the tenant, removed agents included."""

        def work(connection: Connection) -> tuple[list[AgentStats], list[Row]]:
            observed = list(self._observed(connection).values())
            return observed, connection.execute(_Q["decision_totals"], (self._tenant,)).fetchall()

        observed, decided = self._database.read(work)
        by_agent: dict[str, int] = {}
        by_objective: dict[str, int] = {}
        for name, objective, number, _ in decided:
            by_agent[name] = by_agent.get(name, 0) + number
            by_objective[objective] = by_objective.get(objective, 0) + number
        return RoutingTotals(
            total_decisions=sum(by_agent.values()),
            total_outcomes=sum(stats.total_requests for stats in observed),
            successes=sum(stats.successes for stats in observed),
            estimated_cost_usd=float(sum(row[3] for row in decided)),
            total_cost_usd=float(sum(stats.cost_sum_usd for stats in observed)),
            decisions_by_agent=by_agent,
            decisions_by_objective=by_objective,
        )

    def check(self) -> None:
        """Reads the whole file; `StoreCorruptError` says what is damaged. Takes about a second per gigabyte."""
        found = self._database.fetch("PRAGMA integrity_check(10)")
        if found != [("ok",)]:
            raise corrupt_error(self.path, "; ".join(row[0] for row in found))

    def _observed(self, connection: Connection) -> dict[int, AgentStats]:
        """Stats per agent id, read on from where the last call stopped; removed agents included."""
        with self._stats_lock:
            stats = self._stats
            if stats.up_to is None:
                watermark = connection.execute(_Q["rolled_up_to"], (self._tenant,)).fetchone() or (0,)
                sums = connection.execute(_Q["rolled_up_stats"], (self._tenant,)).fetchall()
                histograms = connection.execute(_Q["rolled_up_histograms"], (self._tenant,)).fetchall()
                stats.begin(watermark[0], sums, histograms)
            stats.extend(connection.execute(_Q["tail"], (self._tenant, stats.up_to)).fetchall())
            return dict(stats.by_agent_id)

    def _roll_up(self, connection: Connection) -> int:
        found = connection.execute(_Q["rolled_up_to"], (self._tenant,)).fetchone()
        if found is None:  # a tenant without agents has no outcomes
            return 0
        tail = connection.execute(_Q["tail"], (self._tenant, found[0])).fetchall()
        if not tail:
            return 0
        sums = {agent_id: rest for agent_id, *rest in connection.execute(_Q["rolled_up_stats"], (self._tenant,))}
        tallies: dict[int, Tally] = {}
        for row in tail:
            agent_id = row[1]
            if agent_id not in tallies:
                # Histograms hold whole numbers, so what is new in them can be added by SQL; sums go on from the last.
                tallies[agent_id] = Tally(sums[agent_id]) if agent_id in sums else Tally()
            add_row(tallies[agent_id], row)
        for agent_id, tally in tallies.items():
            connection.execute(_Q["put_stats"], (self._tenant, agent_id, *(tally.sums[f] for f in SUMMED_FIELDS)))
            for measure, buckets in (("latency_ms", tally.latency_buckets), ("quality", tally.quality_bins)):
                new = [(self._tenant, agent_id, measure, bucket, number) for bucket, number in buckets.items()]
                connection.executemany(_Q["add_to_histogram"], new)
        connection.execute(_Q["put_rolled_up_to"], (self._tenant, tail[-1][0]))
        return len(tail)

    def _unknown_agent(self, connection: Connection, name: str) -> NotFoundError:
        names = [row[1] for row in connection.execute(_Q["agent_names"], (self._tenant,))]
        near = difflib.get_close_matches(str(name), names, n=1)
        return NotFoundError(
            f"No agent named {check.shown(name)} is registered.",
            hint=f"Did you mean {near[0]!r}?" if near else "Register it first.",
        )
