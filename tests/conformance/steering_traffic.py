"""Steering scenes on analytics: what the traffic came to, by group, and against always using one agent.

In: nothing. Out: scenes as JSON objects, without expectations; ``generate_steering.py`` adds those.
"""

from __future__ import annotations

import random
from typing import Any

from tests.conformance.steering_plans import TEXTS, agent
from tests.conformance.steering_routes import case, scene, step

NOW = "2026-09-28 12:30"


def scenes() -> list[dict[str, Any]]:
    """All of them."""
    return [_traffic(), _clocks(), _nothing()]


def _staff() -> list[dict[str, Any]]:
    return [
        agent("dear", "reasoning", cost_per_request=0.05, avg_latency_ms=900, quality_score=0.95),
        agent("fair", "writing", cost_per_request=0.01, avg_latency_ms=400, quality_score=0.85),
        agent("cheap", "chat", cost_per_request=0.002, avg_latency_ms=200, quality_score=0.7),
        agent("by tokens", "translation", input_cost_per_token=2e-6, output_cost_per_token=1e-5, avg_latency_ms=300,
              quality_score=0.8),
        agent("never asked", "law", cost_per_request=0.2, avg_latency_ms=5000, quality_score=0.99),
        agent("unpriced", "law", avg_latency_ms=50, quality_score=0.6),
    ]  # fmt: skip


def report(what: str, at: str = NOW, /, **given: Any) -> dict[str, Any]:
    """A case that asks for a report."""
    return case(what, "report", at, **given)


def _traffic() -> dict[str, Any]:
    rng = random.Random("a week and more of traffic")
    prepare = _staff()
    for number in range(40):
        day, hour, minute = 12 + number * 16 // 40, rng.randrange(24), rng.randrange(60)
        context: dict[str, Any] = {}
        if rng.random() < 0.7:
            context["task"] = rng.choice(["summary", "draft", "code"])
        if rng.random() < 0.5:
            context["route_name"] = rng.choice(["support", "sales"])
        who = rng.choice(["dear", "fair", "cheap", "by tokens", "unpriced"])
        others = [name for name in ("dear", "fair", "cheap", "by tokens", "unpriced", "never asked") if name != who]
        when = f"2026-09-{day:02} {hour:02}:{minute:02}"
        prepare.append(step(
            "route", when, request=f"{rng.choice(TEXTS)} ({rng.randint(100, 999)})",
            objective=rng.choice(["cost", "quality", "balanced"]), constraints={"excluded_agents": others},
            **({"context": context} if context else {}),
        ))  # fmt: skip
        outcome: dict[str, Any] = {}
        if rng.random() < 0.8:
            outcome["latency_ms"] = float(f"{10 ** rng.uniform(1.5, 3.8):.4g}")
        if rng.random() < 0.6:
            outcome["quality"] = round(rng.uniform(0.3, 1.0), 2)
        if rng.random() < 0.4:
            outcome["cost_usd"] = float(f"{10 ** rng.uniform(-3, -1):.3g}")
        if rng.random() < 0.5:
            outcome["output_tokens"] = rng.randint(20, 900)
        if rng.random() < 0.15:
            outcome["success"] = False
        prepare.append(step("feedback", when, of=number, **outcome))
    groups = ("agent", "route", "tenant", "task", "day", "hour", "objective")
    cases = [report(f"by {group}", group_by=group) for group in groups]
    cases += [report(f"by {group}, against the dear one", group_by=group, baseline="dear") for group in groups]
    cases += [
        report("usual"), report("in capitals", group_by=" Agent "), report("one day", time_range="1 day"),
        report("two weeks", time_range="2 weeks", group_by="task"), report("a month", time_range="1 mon",
        group_by="day"),
        report("a hundred hours", time_range="100 hours", group_by="hour"),
        report("an hour in which nothing was", time_range="1 hour"),
        report("all of it, against the cheap one", time_range="30 days", baseline="cheap"),
        report("against one with prices of tokens", time_range="30 days", baseline="by tokens"),
        report("by task, against it", time_range="30 days", group_by="task", baseline="by tokens"),
        report("against one that was never asked", time_range="30 days", group_by="task", baseline="never asked"),
        report("against one without a price", time_range="30 days", baseline="fair", group_by="objective"),
        report("days in Kathmandu", time_range="10 days", group_by="day", time_zone="Asia/Kathmandu"),
        report("hours in New York", time_range="3 days", group_by="hour", time_zone="America/New_York"),
        report("before any of it", "2026-09-01 00:00"), report("in the midst of it", "2026-09-28 00:00",
        group_by="day"),
        report("much later", "2027-09-28 12:30", time_range="30 days"),
        report("much later, all the same", "2027-09-28 12:30", time_range="13 mons", group_by="agent"),
    ]  # fmt: skip
    return scene("what the traffic came to", "traffic", prepare, cases)


def _clocks() -> dict[str, Any]:
    prepare = _staff()
    # On 25 October 2026 an hour comes twice in Berlin.
    times = (
        "2026-10-24 21:30", "2026-10-24 22:00", "2026-10-25 00:15", "2026-10-25 00:45", "2026-10-25 01:15",
        "2026-10-25 02:15", "2026-10-25 22:59", "2026-10-25 23:00",
    )  # fmt: skip
    for number, when in enumerate(times):
        prepare += [
            step("route", when, request=TEXTS[number], objective="cost"),
            step("feedback", when, of=number, latency_ms=100.0 * (number + 1), quality=0.5 + 0.05 * number),
        ]
    now = "2026-10-26 06:00"
    cases = [
        report(f"{unit}s in {zone}", now, group_by=unit, time_range="3 days", time_zone=zone)
        for unit in ("day", "hour")
        for zone in ("UTC", "Europe/Berlin")
    ]
    cases += [
        report(
            "a day of 24 hours", "2026-10-26 01:15", group_by="hour", time_range="24 hours", time_zone="Europe/Berlin"
        ),
        report("a day of 25 hours", "2026-10-26 00:15", group_by="hour", time_range="1 day", time_zone="Europe/Berlin"),
    ]
    return scene("traffic while clocks change", "traffic", prepare, cases)


def _nothing() -> dict[str, Any]:
    def bad(what: str, error: str, **given: Any) -> dict[str, Any]:
        return case(what, "report", error=error, **given)

    cases = [
        report("nothing yet"), report("nothing yet, by day", group_by="day"), report("nothing yet, against one",
        baseline="dear"),
        bad("an unknown group", "invalid_input", group_by="colour"),
        bad("an empty group", "invalid_input", group_by=""),
        bad("no time at all", "invalid_input", time_range="0 days"),
        bad("a time to come", "invalid_input", time_range="-1 day"),
        bad("a time in words", "invalid_input", time_range="lately"),
        bad("an unknown agent", "not_found", baseline="deer"),
        bad("an unknown zone", "invalid_input", time_zone="Europe/Atlantis"),
    ]  # fmt: skip
    return scene("no traffic", "traffic", _staff(), cases)
