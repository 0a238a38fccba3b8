"""Adds outcome rows up to what `tinydancer.learn.stats_of` makes of the same outcomes, to the last bit.

In: rows of outcomes in the order they were appended. Out: `AgentStats` per agent id. Sums of floating point numbers
depend on the order of the additions; here they always go on from the sum so far, outcome by outcome, so that it makes
no difference how many were rolled up before and how many stand in the tail.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tinydancer.learn import AgentStats, Tally

Row = tuple[Any, ...]


def add_row(tally: Tally, row: Row) -> None:
    """Adds one row of the query ``tail``."""
    _, _, success, quality, _, latency_ms, _, cost_usd, output_tokens = row
    tally.add(success, quality, latency_ms, cost_usd, output_tokens)


class RunningStats:
    """Everything observed of a tenant's agents up to one outcome; reading on costs only what is new.

    Attributes
    ----------
    up_to
        Number of the last outcome that is added; None before the first reading.
    by_agent_id
        What was observed, removed agents included; agents without an outcome are left out.
    """

    def __init__(self) -> None:
        self.up_to: int | None = None
        self.by_agent_id: dict[int, AgentStats] = {}
        self._tallies: dict[int, Tally] = {}

    def begin(self, up_to: int, sums: Iterable[Row], histograms: Iterable[Row]) -> None:
        """Starts from what is rolled up, given as rows of ``rolled_up_stats`` and ``rolled_up_histograms``."""
        self._tallies = {agent_id: Tally(rest) for agent_id, *rest in sums}
        for agent_id, measure, bucket, number in histograms:
            tally = self._tallies[agent_id]
            (tally.latency_buckets if measure == "latency_ms" else tally.quality_bins)[bucket] = number
        self.by_agent_id = {agent_id: tally.stats() for agent_id, tally in self._tallies.items()}
        self.up_to = up_to

    def extend(self, tail: Iterable[Row]) -> None:
        """Adds the rows that follow, in order."""
        touched = set()
        for row in tail:
            agent_id = row[1]
            touched.add(agent_id)
            if agent_id not in self._tallies:
                self._tallies[agent_id] = Tally()
            add_row(self._tallies[agent_id], row)
            self.up_to = row[0]
        for agent_id in touched:
            self.by_agent_id[agent_id] = self._tallies[agent_id].stats()
