"""The part of the SQLite store that adds up the traffic, from the record of outcomes as it is.

In: a time range and a grouping. Out: sums and histograms as of one instant. The statements lie in
``sql/sqlite/queries/traffic.sql``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from tinydancer.policy.analytics import Cell, Traffic, TrafficSums, added_up
from tinydancer.policy.time_ranges import HOUR_S
from tinydancer.store.connection import Connection, Database, Row
from tinydancer.store.queries import load_queries

_Q = load_queries("sqlite/queries/traffic.sql")


class SqliteTraffic:
    """Mixed into `tinydancer.store.sqlite.SqliteStore`, which opens the file."""

    _database: Database
    _tenant: str

    def traffic(self, kind: str, histograms: str, begin: float, starts: Sequence[float]) -> Traffic:
        """The outcomes since an instant; see `tinydancer.store.base.Store.traffic`."""
        by_hour, value = len(starts) > 1, kind if histograms == "value" else ""
        parameters = (self._tenant, float(begin), by_hour, value)

        def work(connection: Connection) -> tuple[list[Row], list[Row], dict[int, str]]:
            return (
                connection.execute(_Q["traffic"], parameters).fetchall(),
                connection.execute(_Q["traffic_latencies"], (*parameters, histograms == "agent")).fetchall(),
                dict(connection.execute(_Q["agents_by_id"], (self._tenant,)).fetchall()),
            )

        sums, latencies, names = self._database.read(work)
        cells = added_up(
            Cell(_period(hour, starts), group, names[agent_id], TrafficSums(requests, int(successes), *rest))
            for agent_id, hour, group, requests, successes, *rest in sums
        )
        found: dict[str | int, dict[int, int]] = {}
        for agent_id, hour, group, bucket, number in latencies:
            key: str | int = group
            if histograms != "value":
                key = names[agent_id] if histograms == "agent" else _period(hour, starts)
            counts = found.setdefault(key, {})
            counts[bucket] = counts.get(bucket, 0) + number
        return Traffic(cells, found)


def _period(hour: int, starts: Sequence[float]) -> int:
    return bisect_right(starts, hour * HOUR_S) - 1 if len(starts) > 1 else 0
