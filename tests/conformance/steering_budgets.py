"""Steering scenes on budgets: spending, reservation, limits, paces, periods by the clocks of zones, alerts, errors.

In: nothing. Out: scenes as JSON objects, without expectations; ``generate_steering.py`` adds those.
"""

from __future__ import annotations

from typing import Any

from tests.conformance.steering_plans import agent
from tests.conformance.steering_routes import case, scene, step

ASK = "Summarise this article in three sentences."


def budget(name: str, amount: float, at: str | None = None, /, **config: Any) -> dict[str, Any]:
    """A step that creates a budget."""
    return step("create_budget", at, config={"name": name, "amount_usd": amount, **config})


def route(what: str, at: str | None = None, /, **given: Any) -> dict[str, Any]:
    """A case that asks for an agent."""
    key, tags = given.pop("key", None), given.pop("tags", None)
    context = {name: value for name, value in (("key", key), ("tags", tags)) if value is not None}
    made: dict[str, Any] = {"request": ASK, "objective": "quality", **given}
    if context:
        made["context"] = context
    return case(what, "route", at, **made)


def paid(what: str, of: int, at: str | None = None, /, **outcome: Any) -> dict[str, Any]:
    """A case that reports what became of a decision, counted from the first of the scene."""
    return case(what, "feedback", at, of=of, **outcome)


def scenes() -> list[dict[str, Any]]:
    """All of them."""
    return [
        _spending(), _limits("cheapest"), _limits("free"), _limits("refuse"), _whose(), _one_agent(), _paces(),
        _periods(), _zones(), _times(), _released(), _changed(), _batches(), _bad_budgets(), _bad_calls(),
    ]  # fmt: skip


def _staff() -> list[dict[str, Any]]:
    return [
        agent("dear", embedding={"0": 1.0}, cost_per_request=0.05, avg_latency_ms=900, quality_score=0.95),
        agent("fair", embedding={"0": 1.0}, cost_per_request=0.01, avg_latency_ms=400, quality_score=0.85),
        agent("cheap", embedding={"0": 1.0}, cost_per_request=0.002, avg_latency_ms=200, quality_score=0.7),
    ]


def _free() -> list[dict[str, Any]]:
    return [agent("free", embedding={"0": 1.0}, cost_per_request=0, avg_latency_ms=100, quality_score=0.5)]


def _spending() -> dict[str, Any]:
    prepare = [*_staff(), budget("all", 0.205)]
    cases = [
        case("nothing spent", "list_budgets"),
        route("the first"), route("the second"), route("the third"),
        case("three reserved", "list_budgets"),
        paid("cheaper than thought", 0, cost_usd=0.03), paid("as thought", 1), paid("failed, and cost nothing", 2,
        success=False),
        case("settled", "list_budgets"),
        route("room for one more of them"), route("and another"),
        route("the next best, because that still fits"), route("as long as it does"), route("the cheap one at last"),
        route("and to the end"), route("what is left is too little", error="no_match"),
        case("what is left", "list_budgets"),
        paid("dearer than thought", 3, cost_usd=0.08),
        case("over, by one request's error", "list_budgets"),
        route("nobody any more", error="no_match"),
        route("nor if null is an answer", constraints={"on_no_match": "null"}),
        case("the alerts", "budget_alerts"),
        paid("paid back", 4, success=False),
        route("room again"),
        case("in the end", "list_budgets"),
        paid("a second outcome of the same costs on top", 0, cost_usd=0.001),
        case("which counts", "list_budgets"),
    ]  # fmt: skip
    return scene("spending", "budgets", prepare, cases)


def _limits(behaviour: str) -> dict[str, Any]:
    prepare = [*_staff(), *_free(), budget("tight", 0.061, on_limit=behaviour)]
    gone = {"error": "no_match"} if behaviour == "refuse" else {}
    cases = [
        route("what fits"), route("the next best"), case("a little is left", "list_budgets"),
        route("at the limit", **gone), route("at the limit, again", **gone),
        route("at the limit, by latency", objective="latency", **gone),
        route("at the limit, a floor", constraints={"min_quality": 0.6},
              **({"error": "no_match"} if behaviour != "cheapest" else {})),
        route("at the limit, without the free one", constraints={"excluded_agents": ["free"]},
              **({"error": "no_match"} if behaviour != "cheapest" else {})),
        case("what is used", "list_budgets"),
        paid("it came cheaper", 0, cost_usd=0.001),
        route("room again"),
        case("all alerts", "budget_alerts"),
        case("more money", "update_budget", name="tight", changes={"amount_usd": 0.5}),
        route("as ever"),
        case("none at all", "update_budget", name="tight", changes={"amount_usd": 0}),
        route("nothing may cost anything", **gone),
        case("a budget of nothing", "list_budgets"),
    ]  # fmt: skip
    return scene(f"at the limit: {behaviour}", "budgets", prepare, cases)


def _whose() -> dict[str, Any]:
    prepare = [
        *_staff(),
        budget("of a team", 0.06, scope="key", scope_value="team-a", on_limit="cheapest"),
        budget("of a tag", 0.1, scope="tag", scope_value="batch"),
        budget("of all", 1.0, alert_at=[0.1]),
    ]
    cases = [
        route("nobody's"), route("the team's", key="team-a"), route("the team's, the next best", key="team-a"),
        route("the team's, over", key="team-a"), route("another team's", key="team-b"),
        route("another case of letters", key="Team-A"),
        route("with the tag", tags=["batch", "night"]), route("with both", key="team-a", tags=["night", "batch"]),
        route("with another tag", tags=["batches"]), route("with the tag again", tags=["batch"]),
        case("accounts of all three", "list_budgets"),
        paid("one that counts twice", 1, cost_usd=0.02), paid("one that counts three times", 7, cost_usd=0.004),
        case("settled on each", "list_budgets"),
        route("with a tag that is spent", tags=["batch"]),
        case("the alerts", "budget_alerts"),
        case("made for another", "update_budget", name="of a tag", changes={"scope": "key", "scope_value": "team-b"}),
        route("which it now holds for", key="team-b"),
        case("and counts", "list_budgets"),
    ]  # fmt: skip
    return scene("whose requests", "budgets", prepare, cases)


def _one_agent() -> dict[str, Any]:
    prepare = [
        *_staff(),
        agent("unpriced", embedding={"0": 1.0}, avg_latency_ms=50, quality_score=0.99),
        budget("of the dear one", 0.12, scope="agent", scope_value="dear"),
    ]
    cases = [
        route("unknown costs aside", constraints={"excluded_agents": ["unpriced"]}),
        route("an unknown cost is nobody's limit here"),
        route("once more", constraints={"excluded_agents": ["unpriced"]}),
        route("its budget is spent", constraints={"excluded_agents": ["unpriced"]}),
        route("others do not count", objective="cost"),
        case("what it cost", "list_budgets"),
        route("it alone", constraints={"excluded_agents": ["unpriced", "fair", "cheap"]}, error="no_match"),
        case("for all of them, now", "update_budget", name="of the dear one", changes={"scope": "tenant"}),
        route("an unknown cost fits no budget"),
        case("one more for an agent", "create_budget", config={
            "name": "of the fair one", "amount_usd": 0, "scope": "agent", "scope_value": "fair"}),
        route("who may not serve at all"),
        case("both", "list_budgets"),
        case("any agent's at its limit, cheapest", "create_budget", config={
            "name": "of the cheap one", "amount_usd": 0, "scope": "agent", "scope_value": "cheap",
            "on_limit": "cheapest"}),
        route("the cheapest of all serves all the same", objective="cost"),
        case("its account", "list_budgets"),
    ]  # fmt: skip
    return scene("the budget of an agent", "budgets", prepare, cases)


def _paces() -> dict[str, Any]:
    day = "2026-09-21"
    prepare = [*_staff(), budget("even", 0.24, f"{day} 00:00", period="day", pacing="even", burst=0.25)]
    cases = [
        case("a quarter at midnight", "list_budgets", f"{day} 00:00"),
        route("one fits", f"{day} 00:00"), route("the next is smaller", f"{day} 00:00"),
        route("nothing left so far", f"{day} 00:00", error="no_match"),
        route("a little later", f"{day} 00:30"), route("at five", f"{day} 05:00"),
        case("accounts at five", "list_budgets", f"{day} 05:00"),
        route("at noon", f"{day} 12:00"), route("and again", f"{day} 12:00"), case("accounts at noon", "list_budgets",
              f"{day} 12:00"),
        route("in the evening", f"{day} 20:00"), case("all is released", "list_budgets", f"{day} 23:00"),
        route("the next day", "2026-09-22 00:00"), case("begins anew", "list_budgets", "2026-09-22 00:00"),
        case("no burst", "update_budget", "2026-09-22 01:00", name="even", changes={"burst": 0.0}),
        route("nothing is left by one", "2026-09-22 01:00", error="no_match"),
        route("but by seven", "2026-09-22 07:00"),
        case("at once after all", "update_budget", "2026-09-22 07:00", name="even", changes={"pacing": "none"}),
        route("all of it", "2026-09-22 07:00"), case("in the end", "list_budgets", "2026-09-22 07:00"),
        case("a clock set back", "list_budgets", "2026-09-21 06:00"),
    ]  # fmt: skip
    return scene("paces", "budgets", prepare, cases)


def _periods() -> dict[str, Any]:
    names: dict[str, Any] = {
        "hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month", "yearly": "year", "once": "total",
        "every ten days": 10,
    }  # fmt: skip
    prepare = [*_staff(), *(budget(name, 1.0, period=period, alert_at=[]) for name, period in names.items())]
    times = (
        "2026-09-21 12:00", "2026-09-21 12:59:59", "2026-09-21 13:00", "2026-09-22 00:00", "2026-09-27 23:59:59",
        "2026-09-28 00:00", "2026-10-01 00:00", "2026-12-31 23:59:59.5", "2027-01-01 00:00", "2028-02-29 10:00",
    )  # fmt: skip
    cases = []
    for number, when in enumerate(times):
        cases += [route(f"one at {when}", when, objective=("quality", "cost")[number % 2])]
        cases += [case(f"accounts at {when}", "list_budgets", when)]
    cases.append(case("an hour ago", "list_budgets", "2026-09-21 12:30"))
    return scene("periods", "budgets", prepare, cases)


def _zones() -> dict[str, Any]:
    names = {
        "Berlin's": "Europe/Berlin",
        "New York's": "America/New_York",
        "Kathmandu's": "Asia/Kathmandu",
        "UTC's": "UTC",
    }
    prepare = [
        *_staff(),
        *(budget(name, 0.24, period="day", time_zone=zone, pacing="even", burst=1) for name, zone in names.items()),
        budget("Berlin's hours", 0.24, period="hour", time_zone="Europe/Berlin"),
        budget("Berlin's weeks", 2.0, period="week", time_zone="Europe/Berlin", pacing="even"),
    ]  # fmt: skip
    times = (
        # 29 March in Berlin has 23 hours, 25 October 25; 8 March in New York 23, 1 November 25.
        "2026-03-28 22:59:59", "2026-03-28 23:00", "2026-03-29 00:30", "2026-03-29 01:30", "2026-03-29 21:59:59",
        "2026-03-29 22:00", "2026-10-24 22:00", "2026-10-25 00:30", "2026-10-25 01:30", "2026-10-25 22:59:59",
        "2026-10-25 23:00", "2026-03-08 05:00", "2026-03-09 03:59:59", "2026-11-01 04:30", "2026-11-02 04:59:59",
        "2026-09-21 18:14:59", "2026-09-21 18:15",
    )  # fmt: skip
    cases = []
    for number, when in enumerate(times):
        if number % 3 == 0:
            cases.append(route(f"one at {when}", when, objective="cost"))
        cases.append(case(f"accounts at {when}", "list_budgets", when))
    return scene("budgets by the clocks of zones", "budgets", prepare, cases)


def _times() -> dict[str, Any]:
    prepare = [
        *_staff(),
        budget("autumn", 0.05, starts_at="2026-09-22T00:00:00+00:00", ends_at="2026-12-22T00:00:00+00:00"),
        budget("a fortnight", 0.3, period=14, starts_at="2026-09-10T15:00:00+02:00", time_zone="Europe/Berlin"),
        budget("a campaign", 0.5, period="total", pacing="even", starts_at="2026-09-21T00:00:00+00:00",
               ends_at="2026-09-26T00:00:00+00:00", burst=0),
        budget("asleep", 0, is_active=False),
    ]  # fmt: skip
    times = (
        "2026-09-09 12:00", "2026-09-10 13:00", "2026-09-21 00:00", "2026-09-21 12:00", "2026-09-22 00:00",
        "2026-09-23 22:00", "2026-09-25 23:59:59", "2026-09-26 00:00", "2026-12-21 23:59:59", "2026-12-22 00:00",
    )  # fmt: skip
    cases = []
    for when in times:
        cases += [route(f"one at {when}", when, error=DRAWN), case(f"accounts at {when}", "list_budgets", when)]
    return scene("starts and ends", "budgets", prepare, cases)


DRAWN = "drawn"


def _released() -> dict[str, Any]:
    day = "2026-09-21"
    prepare = [*_staff(), budget("forgetful", 0.1, period="day", release_after_s=600), budget("never", 1.0)]
    cases = [
        route("one", f"{day} 12:00"), route("two", f"{day} 12:05"), case("reserved", "list_budgets", f"{day} 12:05"),
        route("none is left", f"{day} 12:09", error="no_match"),
        route("the first is given back", f"{day} 12:10"), case("one for the other", "list_budgets", f"{day} 12:10"),
        paid("reported in time", 1, f"{day} 12:14", cost_usd=0.04), case("settled", "list_budgets", f"{day} 12:14"),
        paid("reported too late", 0, f"{day} 12:15", cost_usd=0.06),
        case("charged all the same", "list_budgets", f"{day} 12:15"),
        case("and given back", "list_budgets", f"{day} 12:21"),
        route("none is left again", f"{day} 12:22", error="no_match"),
        route("until tomorrow", "2026-09-22 00:00"), case("in the end", "list_budgets", "2026-09-22 00:00"),
    ]  # fmt: skip
    return scene("what is given back", "budgets", prepare, cases)


def _changed() -> dict[str, Any]:
    prepare = [*_staff(), budget("b", 0.3, alert_at=[0.3, 0.6])]
    cases = [
        route("before"), route("before, too"), case("an alert", "budget_alerts"),
        case("a larger amount", "update_budget", name="b", changes={"amount_usd": 0.6, "alert_at": [0.9, 0.2]}),
        case("what was spent stays", "list_budgets"),
        route("more"), case("lower shares were told", "budget_alerts"),
        case("by the day", "update_budget", name="b", changes={"period": "day"}),
        case("a new account", "list_budgets"), route("counts there"), case("one of the new", "list_budgets"),
        case("by the month again", "update_budget", name="b", changes={"period": "month"}),
        case("the old account", "list_budgets"),
        case("off", "update_budget", name="b", changes={"is_active": False}),
        route("counts nowhere"), case("nothing was counted", "list_budgets"),
        case("another one", "create_budget", config={"name": "a", "amount_usd": 5, "period": "week"}),
        paid("a decision from before it", 0, cost_usd=0.02), case("counts for it, too", "list_budgets"),
        case("on again", "update_budget", name="b", changes={"is_active": True, "on_limit": "Free"}),
        route("of both"), case("both accounts", "list_budgets"),
        case("gone", "remove_budget", name="b"), case("one is left", "list_budgets"),
        paid("a decision that it knew of", 1, cost_usd=0.5), case("the other is charged", "list_budgets"),
        case("alerts stay", "budget_alerts"),
        case("alerts of an hour", "budget_alerts", "2026-09-21 14:00", time_range="1 hour"),
        case("alerts of a day", "budget_alerts", "2026-09-22 11:59:59", time_range="1 day"),
        case("that name again", "create_budget", config={"name": "b", "amount_usd": 0.1}),
        case("begins at nothing", "list_budgets"),
    ]  # fmt: skip
    return scene("changed budgets", "budgets", prepare, cases)


def _batches() -> dict[str, Any]:
    prepare = [*_staff(), budget("for batches", 0.1)]
    three = [ASK, "Explain it to a child.", "And now in verse."]
    cases = [
        case("three within it", "assign", requests=three, constraints={"min_mean_quality": 0.75}),
        case("what they reserve", "list_budgets"),
        case("the money that is left", "assign", requests=three[:2], constraints={"budget_remaining": 0.5}),
        case("what is left then", "list_budgets"),
        route("little", error=DRAWN),
        case("too many for what is left", "assign", requests=three * 4, error=DRAWN),
        case("nothing is half reserved", "list_budgets"),
        case("soft", "update_budget", name="for batches", changes={"on_limit": "cheapest"}),
        case("over", "assign", requests=three * 4, error=DRAWN),
        case("in the end", "list_budgets"),
        case("the alerts", "budget_alerts"),
    ]
    return scene("batches within budgets", "budgets", prepare, cases)


def _bad_budgets() -> dict[str, Any]:
    def bad(what: str, error: str, **config: Any) -> dict[str, Any]:
        given = {"name": "new", "amount_usd": 5, **config}
        given = {key: value for key, value in given.items() if value != "left out"}
        return case(what, "create_budget", error=error, config=given)

    year = {"starts_at": "2026-01-01T00:00:00+00:00"}
    cases = [
        bad("a name that is taken", "already_exists", name="taken"),
        bad("a name that differs in capitals only", "already_exists", name="Taken"),
        bad("an empty name", "invalid_name", name=""),
        bad("a control character in the name", "invalid_name", name="new\u0001"),
        bad("no name", "invalid_input", name="left out"),
        bad("no amount", "invalid_input", amount_usd="left out"),
        bad("less than nothing", "invalid_input", amount_usd=-1),
        bad("more than there is", "invalid_input", amount_usd=1e13),
        bad("an amount in words", "invalid_input", amount_usd="much"),
        bad("an unknown period", "invalid_input", period="fortnight"),
        bad("no days", "invalid_input", period=0),
        bad("a century", "invalid_input", period=36500),
        bad("an unknown scope", "invalid_input", scope="user", scope_value="x"),
        bad("a key without its name", "invalid_input", scope="key"),
        bad("a name for the tenant", "invalid_input", scope_value="x"),
        bad("a blank tag", "invalid_name", scope="tag", scope_value=" "),
        bad("an agent there is not", "not_found", scope="agent", scope_value="deer"),
        bad("an unknown limit", "invalid_input", on_limit="stop"),
        bad("an unknown pace", "invalid_input", pacing="slow"),
        bad("a burst above 1", "invalid_input", pacing="even", burst=1.5),
        bad("a burst below 0", "invalid_input", pacing="even", burst=-0.5),
        bad("an unknown zone", "invalid_input", time_zone="Mars/Olympus"),
        bad("an end before its start", "invalid_input", ends_at="2025-12-31T00:00:00+00:00", **year),
        bad("an end at its start", "invalid_input", ends_at="2026-01-01T00:00:00+00:00", **year),
        bad("an even pace without an end", "invalid_input", period="total", pacing="even", **year),
        bad("an even pace without a start", "invalid_input", period="total", pacing="even",
            ends_at="2026-12-31T00:00:00+00:00"),
        bad("a share of nothing", "invalid_input", alert_at=[0.0, 0.5]),
        bad("a share above 1", "invalid_input", alert_at=[1.5]),
        bad("given back at once", "invalid_input", release_after_s=0),
        bad("an unknown field", "unknown_key", colour="red"),
        case("no object", "create_budget", config=[5], error="invalid_input"),
        case("and nothing was created", "list_budgets"),
    ]  # fmt: skip
    return scene("bad budgets", "budgets", [*_staff(), budget("taken", 1.0)], cases)


def _bad_calls() -> dict[str, Any]:
    def update(what: str, error: str, **changes: Any) -> dict[str, Any]:
        return case(what, "update_budget", error=error, name="b", changes=changes)

    cases = [
        case("an unknown budget", "update_budget", name="c", changes={"amount_usd": 1}, error="not_found"),
        case("another case of letters", "update_budget", name="B", changes={"amount_usd": 1}, error="not_found"),
        case("an unknown budget to remove", "remove_budget", name="nothing", error="not_found"),
        case("no change", "update_budget", name="b", changes={}, error="invalid_input"),
        case("changes as a list", "update_budget", name="b", changes=["amount_usd"], error="invalid_input"),
        update("less than nothing", "invalid_input", amount_usd=-0.01),
        update("no amount", "invalid_input", amount_usd=None),
        update("another name", "unknown_key", name="c"),
        update("an unknown field", "unknown_key", spent_usd=0),
        update("an unknown period", "invalid_input", period="decade"),
        update("an end before its start", "invalid_input", starts_at="2026-06-01T00:00:00+00:00",
               ends_at="2026-05-01T00:00:00+00:00"),
        update("for nobody", "invalid_input", scope="tag"),
        update("for an agent there is not", "not_found", scope="agent", scope_value="nobody"),
        route("a key of blanks", key="  ", error="invalid_name"),
        route("a tag that is no text", tags=[""], error="invalid_name"),
        route("too many tags", tags=[f"tag {n}" for n in range(17)], error="invalid_input"),
        case("a range that is none", "budget_alerts", time_range="soon", error="invalid_input"),
        case("and nothing has changed", "list_budgets"),
    ]  # fmt: skip
    return scene("bad calls on budgets", "budgets", [*_staff(), budget("b", 1.0)], cases)
