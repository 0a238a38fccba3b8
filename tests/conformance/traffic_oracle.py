"""A second opinion on analytics: outcomes gone through one by one, in plain Python.

In: the steps of a scene in their order, a function that embeds texts. Out: the rows of each report. Nothing of the
package is called. Percentiles are nearest ranks, held to the 3% that are promised; intervals are only required to hold
what they are about.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tests.conformance.cases import Case, Group
from tests.conformance.oracle import Embed, Oracle
from tests.conformance.steering import Step

MEASURED = ("success", "quality", "latency_ms", "cost_usd", "output_tokens")
WITHIN = 0.03
"""Of percentiles, relatively."""


@dataclass(frozen=True)
class Seen:
    """One outcome, and what was known when its agent was chosen."""

    agent: str
    at: float
    measured: dict[str, Any]
    objective: str
    context: dict[str, Any]
    expected_quality: float
    estimated_cost: float | None
    input_tokens: float

    @property
    def cost(self) -> float | None:
        reported: float | None = self.measured["cost_usd"]
        return self.estimated_cost if reported is None else reported


class TrafficOracle:
    """Follows one scene."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._agents: list[dict[str, Any]] = []
        self._outcomes: list[dict[str, Any]] = []
        self._decided: list[tuple[dict[str, Any], dict[str, Any], float]] = []
        self._seen: list[Seen] = []

    def follow(self, step: Step, answer: dict[str, Any]) -> None:
        """Take a step; `AssertionError` if its answer is not right."""
        given = step.given
        match step.call:
            case "register":
                self._agents.append(given["config"])
            case "route":
                found = self._oracle.decide(Case("", "route", given, {}))
                assert found is not None
                assert answer["agent_name"] in (None, found["agent_name"])
                self._decided.append((given, found, self._embed(given["request"])[1]))
            case "feedback":
                self._note(step.clock, **given)
            case "report":
                self._report(answer["rows"], step.clock, **given)

    @property
    def _oracle(self) -> Oracle:
        return Oracle(Group("", None, self._agents, self._outcomes, [], []), self._embed)

    def _note(self, now: float, of: int, **measured: Any) -> None:
        given, found, tokens = self._decided[of]
        known = {"success": True, **dict.fromkeys(MEASURED[1:]), **measured}
        self._outcomes.append({"name": found["agent_name"], **measured})
        self._seen.append(Seen(
            found["agent_name"], now, known, given.get("objective", "balanced"), given.get("context") or {},
            found["expected_quality"], found["estimated_cost"], tokens,
        ))  # fmt: skip

    def _report(
        self, rows: list[dict[str, Any]], now: float, time_range: str = "7 days", group_by: str = "agent",
        baseline: str | None = None, time_zone: str = "UTC",
    ) -> None:  # fmt: skip
        begin = _begin(time_range, now, ZoneInfo(time_zone))
        seen = [one for one in self._seen if one.at >= begin]
        key = _key(group_by.strip().lower(), ZoneInfo(time_zone))
        groups: dict[str, list[Seen]] = {}
        for one in seen:
            groups.setdefault(key(one), []).append(one)
        by_time = group_by in ("day", "hour")
        order = sorted(
            groups, key=lambda name: (min(one.at for one in groups[name]) if by_time else -len(groups[name]), name)
        )
        shown = [row["agent"] or "" for row in rows]
        # A tenant is a scene here, whose name the oracle does not know.
        assert shown == order or (group_by == "tenant" and len(shown) == len(order) == 1), (shown, order)
        for name, row in zip(order, rows, strict=True):
            self._require(row, groups[name])
            if baseline is not None:
                self._compare(row, groups[name], [one for one in seen if one.agent == baseline], baseline)

    def _require(self, row: dict[str, Any], group: list[Seen]) -> None:
        costs = [cost for one in group if (cost := one.cost) is not None]
        latencies = sorted(v for one in group if (v := one.measured["latency_ms"]) is not None)
        graded = [v for one in group if (v := one.measured["quality"]) is not None]
        expected = {
            "total_requests": len(group), "total_cost": sum(costs) if costs else None,
            "avg_cost": _mean(costs), "avg_latency_ms": _mean(latencies),
            "success_rate": sum(one.measured["success"] for one in group) / len(group), "quality": _mean(graded),
            "judged": len(graded), "expected_quality": _mean([one.expected_quality for one in group]),
            "costs_reported": sum(one.measured["cost_usd"] is not None for one in group),
            "costs_estimated": sum(one.measured["cost_usd"] is None and one.cost is not None for one in group),
        }  # fmt: skip
        for key, value in expected.items():
            _near(row[key], value, 1e-6, key)
        for percent in (50, 95, 99):
            rank = math.ceil(percent * len(latencies) / 100 - 1e-9)
            exact = latencies[rank - 1] if latencies else None
            _near(row[f"p{percent}_latency_ms"], exact, WITHIN, f"p{percent}")

    def _compare(self, row: dict[str, Any], group: list[Seen], seen: list[Seen], baseline: str) -> None:
        facts = self._oracle.agents[baseline]
        costed = [one for one in group if one.cost is not None]
        others = [one for one in costed if one.agent != baseline]
        own = sum(one.cost or 0.0 for one in costed if one.agent == baseline)
        paid = sum(one.cost or 0.0 for one in costed)
        assert row["compared_requests"] == len(costed)
        if not costed:
            assert row["baseline_cost"] is None
            return
        price = facts.fields.get("cost_per_request")
        if price is not None:
            there = own + price * len(others)
            _near(row["baseline_cost"], there, 1e-9, "baseline_cost")
            _near(row["saved"], there - paid, 1e-9, "saved")
            _near(row["saved_share"], (there - paid) / there if there else None, 1e-9, "saved_share")
            assert row["saved_low"] is None
        elif row["saved_low"] is not None:
            assert row["saved_low"] <= row["saved"] <= row["saved_high"]
        _near(row["saved"], row["baseline_cost"] - paid, 1e-9, "saved")
        graded = [one for one in group if one.measured["quality"] is not None]
        if not graded:
            assert row["baseline_quality"] is None
            return
        observed = sum(one.measured["quality"] for one in graded) / len(graded)
        missing = sum(one.agent != baseline for one in graded)
        answers = [v for one in seen if (v := one.measured["quality"]) is not None]
        mean = facts.quality if len(answers) < 2 else sum(answers) / len(answers)
        mine = sum(one.measured["quality"] for one in graded if one.agent == baseline)
        there = (mine + missing * mean) / len(graded)
        _near(row["baseline_quality"], there, 1e-9, "baseline_quality")
        _near(row["quality_change"], observed - there, 1e-9, "quality_change")
        if missing:
            assert row["baseline_quality_low"] <= there <= row["baseline_quality_high"]
            assert row["quality_change_low"] <= observed - there <= row["quality_change_high"]


def _begin(time_range: str, now: float, zone: ZoneInfo) -> float:
    """So long ago: days and months by the calendar of the zone, hours by the second."""
    count, unit = re.fullmatch(r"(\d+) (day|hour|mon|week)s?", time_range).groups()  # type: ignore[union-attr]
    here = datetime.fromtimestamp(now, UTC).astimezone(zone)
    match unit:
        case "hour":
            return now - 3600.0 * int(count)
        case "mon":
            place = here.year * 12 + here.month - 1 - int(count)
            return here.replace(year=place // 12, month=place % 12 + 1).timestamp()
    return (here - timedelta(days=int(count) * (7 if unit == "week" else 1))).timestamp()


def _key(group_by: str, zone: ZoneInfo) -> Callable[[Seen], str]:
    def begun(one: Seen) -> datetime:
        """Outcomes are counted by the hour of UTC."""
        return datetime.fromtimestamp(one.at // 3600 * 3600, UTC).astimezone(zone)

    ways: dict[str, Callable[[Seen], str]] = {
        "agent": lambda one: one.agent,
        "objective": lambda one: one.objective,
        "route": lambda one: str(one.context.get("route_name") or ""),
        "task": lambda one: str(one.context.get("task") or ""),
        "tenant": lambda one: "",
        "day": lambda one: begun(one).date().isoformat(),
        "hour": lambda one: begun(one).isoformat(" ", "minutes"),
    }
    return ways[group_by]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _near(found: Any, expected: Any, tolerance: float, what: str) -> None:
    if found is None or expected is None:
        assert found is expected, (what, found, expected)
        return
    assert abs(found - expected) <= tolerance * max(abs(expected), 1e-3), (what, found, expected)
