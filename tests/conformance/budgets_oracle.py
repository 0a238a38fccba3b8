"""A second opinion on budgets: accounts kept by hand, one request after another, in plain Python.

In: the steps of a scene in their order, a function that embeds texts. Out: what each step must answer. Nothing of the
package is called. An account belongs to a budget and a period; a decision reserves its estimate on the accounts that
count it, an outcome settles that; who may serve is decided agent by agent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tests.conformance.cases import Case, Group
from tests.conformance.oracle import Embed, Expected, Oracle
from tests.conformance.steering import Step
from tests.conformance.steering_same import require_same

FIELDS: dict[str, Any] = {
    "period": "month", "scope": "tenant", "scope_value": None, "time_zone": "UTC", "starts_at": None, "ends_at": None,
    "on_limit": "refuse", "pacing": "none", "burst": 0.1, "alert_at": [0.5, 0.8, 1.0], "release_after_s": None,
    "is_active": True,
}  # fmt: skip
SPARE = 1e-9
"""Share of the amount by which sums may miss it."""


@dataclass
class Account:
    """Of one budget in one period."""

    spent: float = 0.0
    reserved: dict[int, float] = field(default_factory=dict)
    alerted: float = 0.0

    @property
    def used(self) -> float:
        return self.spent + sum(self.reserved.values())


@dataclass
class Kept:
    """A budget, its accounts by the beginning of their period, and when which reservation is given back."""

    fields: dict[str, Any]
    accounts: dict[float, Account] = field(default_factory=dict)
    due: dict[int, float] = field(default_factory=dict)

    def is_open(self, now: float) -> bool:
        f = self.fields
        starts, ends = instant(f["starts_at"], f["time_zone"]), instant(f["ends_at"], f["time_zone"])
        return bool(f["is_active"]) and (starts is None or starts <= now) and (ends is None or now < ends)

    def period(self, now: float) -> tuple[float, float]:
        """Where the calendar's period begins and ends, whether or not the budget holds all of it."""
        f = self.fields
        if f["period"] == "total":
            return 0.0, math.inf
        zone = ZoneInfo(f["time_zone"])
        shown = datetime.fromtimestamp(now, UTC).astimezone(zone)
        today = shown.date()
        match f["period"]:
            case "hour":
                begun = now - shown.minute * 60 - shown.second - shown.microsecond / 1e6
                return round(begun), round(begun) + 3600.0
            case "day":
                first, last = today, today + timedelta(1)
            case "week":
                first = today - timedelta(today.weekday())
                last = first + timedelta(7)
            case "month":
                first = today.replace(day=1)
                last = (first + timedelta(31)).replace(day=1)
            case "year":
                first, last = date(today.year, 1, 1), date(today.year + 1, 1, 1)
            case days:
                starts = instant(f["starts_at"], f["time_zone"])
                anchor = date(1970, 1, 5) if starts is None else datetime.fromtimestamp(starts, zone).date()
                first = anchor + timedelta((today - anchor).days // int(days) * int(days))
                last = first + timedelta(int(days))
        begin, end = (datetime(d.year, d.month, d.day, tzinfo=zone).timestamp() for d in (first, last))
        return begin, end

    def held(self, now: float) -> tuple[float, float]:
        """The same, cut to the time the budget holds."""
        f = self.fields
        begin, end = self.period(now)
        begin = -math.inf if f["period"] == "total" else begin
        starts, ends = instant(f["starts_at"], f["time_zone"]), instant(f["ends_at"], f["time_zone"])
        return max(begin, -math.inf if starts is None else starts), min(end, math.inf if ends is None else ends)

    def account(self, now: float) -> Account:
        return self.accounts.setdefault(self.period(now)[0], Account())

    def ceiling(self, now: float) -> float:
        f = self.fields
        if f["pacing"] == "none":
            return float(f["amount_usd"])
        begin, end = self.held(now)
        elapsed = min(1.0, max(0.0, (now - begin) / (end - begin)))
        return float(f["amount_usd"]) * min(1.0, elapsed + float(f["burst"]))

    def room(self, now: float) -> float:
        """What one request may cost; 0 where nothing is left."""
        spare = self.fields["amount_usd"] * SPARE
        left = self.ceiling(now) - self.account(now).used
        return 0.0 if left <= spare else left + spare

    def counts(self, context: dict[str, Any]) -> bool:
        f = self.fields
        if f["scope"] == "key":
            return bool(context.get("key") == f["scope_value"])
        return f["scope"] != "tag" or f["scope_value"] in context.get("tags", ())

    def give_back(self, now: float) -> None:
        for decision in [decision for decision, at in self.due.items() if at <= now]:
            del self.due[decision]
            for account in self.accounts.values():
                account.reserved.pop(decision, None)


class BudgetsOracle:
    """Follows one scene."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._agents: list[dict[str, Any]] = []
        self._outcomes: list[dict[str, Any]] = []
        self._budgets: dict[str, Kept] = {}
        self._decided: list[tuple[str | None, dict[str, Any]]] = []
        self._alerts: list[dict[str, Any]] = []

    def follow(self, step: Step, answer: dict[str, Any]) -> None:
        """Take a step; `AssertionError` if its answer is not right."""
        given, now = step.given, step.clock
        match step.call:
            case "register":
                self._agents.append(given["config"])
            case "create_budget":
                config = {key: value for key, value in given["config"].items() if value is not None}
                self._budgets[config["name"]] = Kept({**FIELDS, **_plain(config)})
            case "update_budget":
                self._update(given["name"], given["changes"])
            case "remove_budget":
                del self._budgets[given["name"]]
            case "list_budgets":
                require_same(answer, {"budgets": self._list(now)}, figures=1e-9)
            case "budget_alerts":
                require_same(answer, {"alerts": self._told(now, given.get("time_range", "7 days"))}, figures=1e-9)
            case "route":
                self._route(answer, now, **given)
            case "assign":
                self._assign(answer, now, **given)
            case "feedback":
                self._feedback(now, **given)

    def _update(self, name: str, changes: dict[str, Any]) -> None:
        kept = self._budgets[name]
        if "scope" in changes and "scope_value" not in changes:
            kept.fields["scope_value"] = None
        kept.fields |= _plain({key: FIELDS[key] if value is None else value for key, value in changes.items()})

    # -- deciding --------------------------------------------------------------------------------------------------

    @property
    def _oracle(self) -> Oracle:
        return Oracle(Group("", None, self._agents, self._outcomes, [], []), self._embed)

    def _holding(self, now: float, context: dict[str, Any]) -> list[Kept]:
        names = [agent["name"] for agent in self._agents]
        for kept in self._budgets.values():
            kept.give_back(now)
        return [
            kept for kept in self._budgets.values()
            if kept.is_open(now) and kept.counts(context)
            and (kept.fields["scope"] != "agent" or kept.fields["scope_value"] in names)
        ]  # fmt: skip

    def _within(self, holding: list[Kept], found: Expected, now: float, taken: dict[int, float]) -> list[str]:
        """Who may serve: of each budget, those whose cost fits, or whom its limit lets pass."""
        rooms = {}
        for kept in holding:
            room = kept.room(now) - taken.get(id(kept), 0.0)
            rooms[id(kept)] = 0.0 if room <= 2 * SPARE * kept.fields["amount_usd"] else room
        left = list(found.allowed)
        for kept in (k for k in holding if k.fields["scope"] == "agent"):
            name, behaviour, room = kept.fields["scope_value"], kept.fields["on_limit"], rooms[id(kept)]
            cost = found.cost.get(name)
            fits = cost is not None and cost <= room and not (behaviour == "refuse" and room <= 0.0)
            if behaviour == "cheapest" and cost is not None:
                fits = fits or cost <= _least(found.cost[n] for n in found.allowed)
            left = [n for n in left if n != name or fits]
        otherwise = list(left)
        for kept in (k for k in holding if k.fields["scope"] != "agent"):
            behaviour, room = kept.fields["on_limit"], rooms[id(kept)]
            priced = [cost for n in otherwise if (cost := found.cost[n]) is not None and cost > 0.0]
            reached = room <= 0.0 or (bool(priced) and min(priced) > room)
            cheapest = _least(found.cost[n] for n in otherwise)
            kept_names = []
            for n in left:
                cost = found.cost[n]
                fits = cost is not None and cost <= room
                if reached and behaviour == "refuse":
                    fits = False
                if reached and behaviour == "cheapest":
                    fits = cost is not None and cost <= cheapest
                kept_names += [n] if fits else []
            left = kept_names
        return left

    def _route(
        self, answer: dict[str, Any], now: float, request: str | None = None, objective: str = "balanced",
        constraints: Any = None, embedding: Any = None, context: Any = None,
    ) -> None:  # fmt: skip
        context = context or {}
        given = {"request": request, "embedding": embedding, "objective": objective, "constraints": constraints or {}}
        holding = self._holding(now, context)
        found = self._oracle.decide(
            Case("", "route", given, {}), lambda expected: self._within(holding, expected, now, {})
        )
        if found is None:
            refused = (constraints or {}).get("on_no_match") != "null"
            assert answer.get("error", "no_match") == "no_match"
            assert ("message" in answer) == refused, answer
            self._decided += [] if refused else [(None, context)]
            if refused and self._agents:
                assert list(answer["exclusions"]) == sorted(agent["name"] for agent in self._agents)
            return
        assert answer.get("agent_name") == found["agent_name"], (answer, found)
        require_same(answer["estimated_cost"], found["estimated_cost"], figures=1e-9)
        self._reserve(holding, [(found["agent_name"], found["estimated_cost"])], context, now)

    def _reserve(
        self, holding: list[Kept], chosen: list[tuple[str, float | None]], context: dict[str, Any], now: float
    ) -> None:
        first = len(self._decided)
        self._decided += [(name, context) for name, _ in chosen]
        for kept in holding:
            account = kept.account(now)
            before = account.used
            for number, (name, cost) in enumerate(chosen, start=first):
                counts = kept.fields["scope"] != "agent" or kept.fields["scope_value"] == name
                if counts and cost:
                    account.reserved[number] = cost
                    if kept.fields["release_after_s"] is not None:
                        kept.due[number] = now + kept.fields["release_after_s"]
            if account.used > before:
                self._raise(kept, account, now)

    def _assign(
        self, answer: dict[str, Any], now: float, requests: list[str], constraints: Any = None, context: Any = None
    ) -> None:
        """Only whether the plan keeps to what is left, and refuses where its requests in order would be."""
        holding = self._holding(now, context or {})
        taken: dict[int, float] = {}
        for text in requests:
            given = {"request": text, "objective": "cost", "constraints": constraints or {}}
            found = self._oracle.decide(
                Case("", "route", given, {}), lambda expected: self._within(holding, expected, now, taken)
            )
            if found is None:
                assert answer.get("error", "no_match") == "no_match"
                assert "message" in answer, answer
                return
            for kept in holding:
                taken[id(kept)] = taken.get(id(kept), 0.0) + found["estimated_cost"]
        assert "message" not in answer, answer
        table = [self._oracle.expected(Case("", "route", {"request": text}, {})) for text in requests]
        costs = [table[i].cost[name] or 0.0 for i, name in enumerate(answer["agents"])]
        require_same(answer["total_cost"], sum(costs), figures=1e-9)
        for kept in holding:
            assert kept.fields["on_limit"] == "cheapest" or sum(costs) <= kept.room(now), (costs, kept)
        self._reserve(holding, list(zip(answer["agents"], costs, strict=True)), context or {}, now)

    # -- accounts --------------------------------------------------------------------------------------------------

    def _feedback(self, now: float, of: int, success: bool = True, cost_usd: float | None = None, **more: Any) -> None:
        name, context = self._decided[of]
        assert name is not None
        self._outcomes.append({"name": name, "success": success, **more})
        charged = False
        for kept in self._budgets.values():
            own = [account for account in kept.accounts.values() if of in account.reserved]
            kept.due.pop(of, None)
            if own:
                estimate = own[0].reserved.pop(of)
                own[0].spent += (estimate if success else 0.0) if cost_usd is None else cost_usd
                charged = True
            elif (
                cost_usd and kept.is_open(now) and kept.counts(context)
                and (kept.fields["scope"] != "agent" or kept.fields["scope_value"] == name)
            ):  # fmt: skip
                kept.account(now).spent += cost_usd
                charged = True
        if charged:
            for kept in self._budgets.values():
                if kept.is_open(now):
                    self._raise(kept, kept.account(now), now)

    def _raise(self, kept: Kept, account: Account, now: float) -> None:
        f, used = kept.fields, account.used
        for share in sorted(f["alert_at"]):
            if share > account.alerted and used > 0.0 and share * f["amount_usd"] <= used + SPARE * f["amount_usd"]:
                account.alerted = share
                begin = kept.period(now)[0]
                self._alerts.append({
                    "budget": f["name"], "share": share, "used_usd": used, "amount_usd": f["amount_usd"],
                    "period_start": begin or None, "raised_at": now,
                })  # fmt: skip

    def _told(self, now: float, time_range: str) -> list[dict[str, Any]]:
        count, unit = time_range.split()
        since = now - float(count) * {"days": 86_400, "day": 86_400, "hours": 3600, "hour": 3600}[unit]
        kept = [alert for alert in self._alerts if alert["raised_at"] >= since]
        return sorted(kept, key=lambda alert: (-alert["raised_at"], alert["budget"], alert["share"]))

    def _list(self, now: float) -> list[dict[str, Any]]:
        made = []
        for name in sorted(self._budgets):
            kept = self._budgets[name]
            kept.give_back(now)
            f, account, (begin, end) = kept.fields, kept.account(now), kept.held(now)
            reserved = sum(account.reserved.values())
            ceiling = kept.ceiling(now)
            made.append({
                **f, "period": str(f["period"]), "alert_at": sorted(f["alert_at"]),
                "starts_at": instant(f["starts_at"], f["time_zone"]),
                "ends_at": instant(f["ends_at"], f["time_zone"]), "spent_usd": account.spent, "reserved_usd": reserved,
                "ceiling_usd": ceiling, "remaining_usd": max(0.0, ceiling - account.spent - reserved),
                "is_open": kept.is_open(now), "period_start": None if math.isinf(begin) else begin,
                "period_end": None if math.isinf(end) else end,
            })  # fmt: skip
        return made


def instant(given: Any, time_zone: str) -> float | None:
    """Seconds since 1970 of an ISO time, by the clock of the zone where it names no offset."""
    if not isinstance(given, str):
        return None if given is None else float(given)
    found = datetime.fromisoformat(given)
    return (found if found.tzinfo is not None else found.replace(tzinfo=ZoneInfo(time_zone))).timestamp()


def _least(costs: Any) -> float:
    return min((cost for cost in costs if cost is not None), default=-1.0)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Words in small letters, as they are kept."""
    words = ("period", "scope", "on_limit", "pacing")
    return {key: value.lower() if key in words and isinstance(value, str) else value for key, value in fields.items()}
