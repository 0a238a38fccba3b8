"""The part of the PostgreSQL store that adds up the traffic.

In: a time range and a grouping. Out: sums and histograms as of one instant: those of the hours that are rolled up plus
the outcomes that are not. The statements lie in ``sql/postgres/queries/traffic.sql``; the traffic is rolled up by
``roll_up`` of ``outcomes.sql``, together with the statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinydancer.errors import StoreError
from tinydancer.policy.analytics import Cell, Traffic, TrafficSums, added_up
from tinydancer.policy.time_ranges import HOUR_S
from tinydancer.store.pg_connection import Connection, Run
from tinydancer.store.pg_failures import DatabaseFailure, store_error
from tinydancer.store.pg_queries import QUERIES
from tinydancer.store.pg_rows import Row

_SUMS = slice(3, 3 + len(TrafficSums._fields))


class PostgresTraffic:
    """Mixed into `tinydancer.store.postgres.PostgresStore`, which opens the database."""

    _connection: Connection
    _tenant: str

    def traffic(self, kind: str, histograms: str, begin: float, starts: Sequence[float]) -> Traffic:
        """The outcomes since an instant; see `tinydancer.store.base.Store.traffic`."""
        whole = math.ceil(begin / HOUR_S) * float(HOUR_S)
        parameters = (self._tenant, kind, histograms, float(begin), whole, [float(start) for start in starts])

        def work(run: Run) -> tuple[list[Row], int, dict[int, str]]:
            if self._connection.commits:  # a function of the extension has it off already
                run(QUERIES["without_jit"], ())
            rows = run(QUERIES["traffic"], parameters)
            outside = int(run(QUERIES["outside_traffic"], (self._tenant,))[0][0])
            return rows, outside, dict(run(QUERIES["agents_by_id"], (self._tenant,)))

        try:
            rows, outside, names = self._connection.together(work)
        except DatabaseFailure as failure:
            raise store_error(failure) from None
        cells, counted = [], []
        for row in rows:
            if row[0] is None:
                counted.append((_heading(row[-3], histograms, names), dict(zip(row[-2], row[-1], strict=True))))
            else:
                cells.append(Cell(row[1] - 1, row[2], names[row[0]], TrafficSums._make(row[_SUMS])))
        return Traffic(added_up(cells), merged(counted), outside)

    def rebuild_traffic(self) -> int:
        """Adds up the traffic anew from the record of outcomes; how many outcomes it has.

        For outcomes that were rolled up before the tables held any traffic. Takes some ten seconds per million; others
        read and report meanwhile, and nobody rolls up.

        Raises
        ------
        StoreError
            The role may not, or the transaction sees an old state of the tables.
        """

        def work(run: Run) -> int:
            if not run(QUERIES["wait_to_roll_up"], (self._tenant,))[0][0]:
                raise StoreError(
                    "The traffic cannot be rebuilt in a transaction that sees an old state of the tables.",
                    hint="Use the isolation level READ COMMITTED.",
                )
            run(QUERIES["clear_traffic"], (self._tenant,))
            run(QUERIES["fill_traffic"], (self._tenant,))
            counted = run(QUERIES["count_traffic"], (self._tenant,))
            return int(counted[0][0]) if counted else 0

        try:
            return self._connection.together(work)
        except DatabaseFailure as failure:
            raise store_error(failure) from None


def merged(counted: Sequence[tuple[str | int, dict[int, int]]]) -> dict[str | int, dict[int, int]]:
    """Histograms by heading; of agents that share a name there are several."""
    found: dict[str | int, dict[int, int]] = {}
    for heading, histogram in counted:
        sums = found.setdefault(heading, {})
        for bucket, number in histogram.items():
            sums[bucket] = sums.get(bucket, 0) + number
    return found


def _heading(text: Any, histograms: str, names: dict[int, str]) -> str | int:
    if histograms == "agent":
        return names[int(text)]
    return int(text) - 1 if histograms == "period" else str(text)
