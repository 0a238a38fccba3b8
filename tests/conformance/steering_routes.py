"""Steering scenes written by hand: semantic routes.

In: nothing. Out: scenes as JSON objects, without expectations; ``generate_steering.py`` adds those. ``gives`` says by
hand which route is taken (None: none of these), ``error`` which kind of error it is; both are checked and not written.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

E0: dict[str, Any] = {"0": 1.0}
E1: dict[str, Any] = {"1": 1.0}
UNASKED: Any = object()
DRAWN = "drawn"
"""For the kind of error of a case that was drawn: there may be a plan or none, which the oracle knows."""


def step(call: str, at: str | None = None, /, **given: Any) -> dict[str, Any]:
    """One call that prepares a scene; `at` is a time in UTC, as in ``2026-03-29 00:30``."""
    return {"call": call, "given": given} | ({} if at is None else {"clock": seconds(at)})


def case(
    what: str, call: str, at: str | None = None, /, *, gives: Any = UNASKED, error: str | None = None, **given: Any
) -> dict[str, Any]:
    """One case."""
    made = {"name": what, **step(call, at, **given)}
    return made | ({} if gives is UNASKED else {"gives": gives}) | ({} if error is None else {"error": error})


def scene(name: str, kind: str, prepare: list[dict[str, Any]], cases: list[dict[str, Any]]) -> dict[str, Any]:
    """A scene."""
    return {"name": name, "kind": kind, "prepare": prepare, "cases": cases}


def seconds(at: str) -> float:
    """Since 1970, of a time in UTC."""
    return datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()


def desk(*names: str) -> list[dict[str, Any]]:
    """Agents to route to, of which nothing else matters."""
    return [step("register", config={"name": name, "capabilities": [name]}) for name in names]


def route(name: str, agent: str, **config: Any) -> dict[str, Any]:
    """A step that creates a route."""
    return step("create_route", config={"name": name, "target_agent": agent, **config})


def at(angle: float) -> dict[str, Any]:
    """A vector of that cosine with the first axis, in the plane of the first two."""
    return {"0": angle, "1": (1.0 - angle * angle) ** 0.5}


def scenes() -> list[dict[str, Any]]:
    """All of them."""
    return [
        _vectors(), _priorities(), _thresholds(), _texts(), _described(), _negatives(), _tiers(), _hours(), _zones(),
        _rates(), _rate_and_reserve(), _inactive(), _changes(), _many(),
    ]  # fmt: skip


def _vectors() -> dict[str, Any]:
    prepare = [
        *desk("support", "docs", "sales"),
        route("along", "support", embedding=E0, threshold=0.5),
        route("across", "docs", embedding=E1, threshold=0.5),
        route("between", "sales", embedding={"0": 0.6, "1": 0.8}, threshold=0.9),
        route("elsewhere", "sales", embedding={"7": 3.0, "9": -4.0}, threshold=0.55),
    ]
    cases = [
        case("the very vector", "match", embedding=E0, gives="along"),
        case("another length of it", "match", embedding={"0": 250.0}, gives="along"),
        case("a tiny length of it", "match", embedding={"0": 1e-12}, gives="along"),
        case("the other axis", "match", embedding=E1, gives="across"),
        case("a cosine of 0.8, nearer to the middle", "match", embedding=at(0.8), top_k=1, gives="between"),
        case("a cosine of 0.6 belongs to the middle", "match", embedding={"0": 0.6, "1": 0.8}, gives="between"),
        case("two pass", "match", embedding=at(0.8), top_k=5),
        case("only the first of them", "match", embedding=at(0.8), top_k=1),
        case("as many as there are", "match", embedding=at(0.75), top_k=1000),
        case("three pass", "match", embedding={"0": 0.65, "1": 0.76}, top_k=3),
        case("two of the three", "match", embedding={"0": 0.65, "1": 0.76}, top_k=2),
        case("the opposite direction", "match", embedding={"0": -1.0}, gives=None),
        case("at right angles to all", "match", embedding={"20": 1.0}, gives=None),
        case("near none", "match", embedding={"0": 0.3, "20": 0.95}, gives=None),
        case("a little below the threshold", "match", embedding={"0": 0.499, "20": 0.8666}, gives=None),
        case("a little above the threshold", "match", embedding={"0": 0.501, "20": 0.8654}, gives="along"),
        case("a route of two numbers", "match", embedding={"7": 0.6, "9": -0.8}, gives="elsewhere"),
        case("one of its numbers", "match", embedding={"7": 1.0}, gives="elsewhere"),
        case("its other number", "match", embedding={"9": -1.0}, gives="elsewhere"),
        case("its other number, turned round", "match", embedding={"9": 1.0}, gives=None),
        case("between two of them", "match", embedding={"0": 1.1, "7": 0.6, "9": -0.8}, top_k=4),
        case("as little as all", "match", embedding={"0": 0.5, "1": 0.4, "7": 0.2, "9": 0.1, "30": 0.7}, top_k=4),
    ]
    return scene("routes by vectors", "routes", prepare, cases)


def _priorities() -> dict[str, Any]:
    same = {"embedding": E0, "threshold": 0.1}
    prepare = [
        *desk("a", "b"),
        route("low", "a", priority=-3, **same),
        route("usual", "a", **same),
        route("alike one", "b", priority=4, **same),
        route("alike two", "a", priority=4, **same),
        route("high but far", "b", priority=2147483647, embedding=at(0.5), threshold=0.95),
        route("lowest", "b", priority=-2147483647, embedding=E1, threshold=0.1),
    ]
    cases = [
        case("priority before likeness", "match", embedding=E0, top_k=9, gives="alike one"),
        case("equal in everything but the name", "match", embedding=E0, top_k=2),
        case("the first alone", "match", embedding=E0, top_k=1, gives="alike one"),
        case("the highest, once it passes", "match", embedding=at(0.5), top_k=3, gives="high but far"),
        case("the highest, barely", "match", embedding=at(0.74), top_k=3, gives="high but far"),
        case("the lowest alone", "match", embedding=at(0.05), top_k=3, gives="lowest"),
        case("the lowest comes last, though nearest", "match", embedding=at(0.2), top_k=9, gives="alike one"),
        case("none", "match", embedding={"0": -0.5, "1": -0.5}, gives=None),
    ]
    return scene("priorities", "routes", prepare, cases)


def _thresholds() -> dict[str, Any]:
    prepare = [
        *desk("a"),
        route("anything", "a", embedding={"3": 1.0}, threshold=-1, priority=-1),
        route("exactly", "a", embedding=E0, threshold=1),
        route("half", "a", embedding=E0, threshold=0.5),
        route("not against", "a", embedding=E1, threshold=0),
    ]
    cases = [
        case("the opposite of anything", "match", embedding={"3": -1.0}, top_k=9),
        case("anything at all", "match", embedding={"11": 1.0}, top_k=9),
        case("well below one", "match", embedding=at(0.9), gives="half"),
        case("below one half", "match", embedding={"0": 0.4, "11": 0.9}, gives="not against"),
        case("against the second axis", "match", embedding={"0": 0.4, "1": -0.3, "11": 0.85}, gives="anything"),
        case("for the second axis", "match", embedding={"1": 0.001, "11": 1.0}, gives="not against"),
        case("all but exactly", "match", embedding=at(0.72), top_k=9, gives="half"),
    ]
    return scene("thresholds", "routes", prepare, cases)


DESKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "refunds": ("support", (
        "I want my money back for the broken lamp", "please refund my last order", "how do I return these shoes",
        "when will I be repaid for the parcel I sent back", "the jacket does not fit, can I exchange it",
    )),
    "passwords": ("support", (
        "I forgot my password", "I cannot sign in to my account", "please reset my login",
        "the code for signing in never arrives",
    )),
    "code": ("coder", (
        "write a Python function that sorts a list", "why does my program crash with a null pointer",
        "fix the bug in this loop", "how do I write a unit test for this class",
    )),
    "travel": ("guide", (
        "find me a hotel near the station", "which trains go to Vienna tomorrow", "book a flight to Lisbon in May",
        "what is there to see in Porto",
    )),
    "cooking": ("cook", (
        "a recipe for lentil soup", "how long must I bake a potato", "what can I cook with leeks and cheese",
    )),
    "weather": ("forecast", ("will it rain this afternoon", "how warm will it be on Sunday", "is a storm coming")),
}  # fmt: skip


def _texts() -> dict[str, Any]:
    agents = desk("coder", "cook", "forecast", "guide", "support")
    prepare = agents + [
        route(name, agent, utterances=list(texts)) for name, (agent, texts) in DESKS.items()
    ]  # fmt: skip
    requests = (
        "give me my money back", "the parcel came damaged and I want a refund", "can I return a coat after a month",
        "I do not remember my password", "my account is locked", "send me a new login code",
        "write a function that reverses a string in Java", "the tests crash on my machine",
        "there is a bug in the parser",
        "is there a cheap hotel in Graz", "when does the next train to Munich leave",
        "flights from Oslo to Rome in June",
        "how do I cook rice", "a soup with carrots and ginger", "what can I bake with three eggs",
        "do I need an umbrella this afternoon", "will it snow on Monday", "how strong will the wind be tomorrow",
        "who painted the Night Watch", "what is the square root of 144", "tell me a story about a fox",
        "refund my hotel", "a Python program for the weather", "reset the oven", "book", "?",
        "HOW DO I RETURN THESE SHOES",
        "how do I return these shoes", "Wie bekomme ich mein Geld zurück?", "明日は雨が降りますか",
    )  # fmt: skip
    cases = [case(text, "match", request=text, top_k=1 + number % 4) for number, text in enumerate(requests)]
    cases += [case("a long request", "match", request={"text": "Where is my refund? ", "times": 200})]
    return scene("routes by texts", "routes", prepare, cases)


def _described() -> dict[str, Any]:
    prepare = [
        *desk("a", "b", "c"),
        route("complaints", "a", description="Complaints about deliveries, damaged goods and late parcels"),
        route("careers", "b", description="Questions about open positions and applications for a job"),
        route("press", "c", description="Inquiries from journalists, interviews and statements", threshold=0.35),
        route(
            "both", "a", description="Invoices and payments", utterances=["I was charged twice", "the bill is wrong"]
        ),
        route("by its vector", "b", description="Nothing of this counts", embedding={"5": 1.0}, threshold=0.6),
    ]
    requests = (
        "my parcel is three days late", "are you hiring engineers", "I would like to interview your director",
        "I was charged twice", "the invoice has the wrong address", "nothing of this counts",
        "what time is it in Tokyo",
        "may I apply for the position in the warehouse", "the goods were damaged",
        "a statement for our newspaper, please",
    )  # fmt: skip
    cases = [case(text, "match", request=text, top_k=2 + number % 3) for number, text in enumerate(requests)]
    cases.append(case("the vector in place of a description", "match", embedding={"5": 2.0}, gives="by its vector"))
    return scene("routes by descriptions", "routes", prepare, cases)


def _negatives() -> dict[str, Any]:
    prepare = [
        *desk("support", "coder"),
        route("passwords", "support", utterances=["reset my password", "I cannot log in"],
              negative_utterances=["write code that checks a password", "what makes a password strong"]),
        route("code", "coder", utterances=["write code that sorts numbers", "review my code"]),
    ]  # fmt: skip
    cases = [
        case("an example", "match", request="reset my password", gives="passwords"),
        case("a negative example", "match", request="write code that checks a password", top_k=2),
        case("near a negative example", "match", request="write code that tests passwords", top_k=2),
        case("the other negative example", "match", request="what makes a password strong"),
        case("near an example", "match", request="please reset the password of my account", gives="passwords"),
        case("neither", "match", request="how high is the Matterhorn"),
        case(
            "more of them", "add_utterances", name="code", utterances=["code of conduct", "dress code"], negative=True
        ),
        case("what became negative", "match", request="what is the dress code"),
        case("and is positive again", "remove_utterances", name="code", utterances=["dress code", "code of conduct"]),
        case("as before", "match", request="what is the dress code", top_k=2),
        case("what is kept", "list_routes"),
    ]
    return scene("negative examples", "routes", prepare, cases)


def _tiers() -> dict[str, Any]:
    prepare = [
        *desk("a", "b"),
        route(
            "gold desk", "a", embedding=E0, threshold=0.5, priority=2, conditions={"user_tier": ["gold", "platinum"]}
        ),
        route("staff desk", "b", embedding=E0, threshold=0.5, priority=1, conditions={"user_tier": "staff"}),
        route("everybody", "b", embedding=at(0.8), threshold=0.7),
    ]
    cases = [
        case("gold", "match", embedding=E0, user_tier="gold", gives="gold desk"),
        case("platinum", "match", embedding=E0, user_tier="platinum", gives="gold desk"),
        case("staff", "match", embedding=E0, user_tier="staff", gives="staff desk"),
        case("silver", "match", embedding=E0, user_tier="silver", gives="everybody"),
        case("no tier", "match", embedding=E0, gives="everybody"),
        case("another case of letters", "match", embedding=E0, user_tier="Gold", gives="everybody"),
        case("gold, both that pass", "match", embedding=E0, user_tier="gold", top_k=5),
        case("no tier, and far from the rest", "match", embedding={"0": 0.6, "1": -0.8}, gives=None),
        case("gold, and far from the rest", "match", embedding={"0": 0.6, "1": -0.8}, user_tier="gold",
             gives="gold desk"),
        case("a tier of blanks", "match", embedding=E0, user_tier="  ", error="invalid_name"),
        case("a tier with a line break", "match", embedding=E0, user_tier="go\nld", error="invalid_name"),
        case("what is kept", "list_routes"),
        case("for everybody now", "update_route", name="gold desk", changes={"conditions": None}),
        case("no tier any more", "match", embedding=E0, gives="gold desk"),
        case("for others", "update_route", name="gold desk", changes={"conditions": {"user_tier": ["bronze"]}}),
        case("gold no more", "match", embedding=E0, user_tier="gold", gives="everybody"),
        case("bronze by text", "match", request="Good morning.", user_tier="bronze"),
    ]  # fmt: skip
    return scene("tiers", "routes", prepare, cases)


def _hours() -> dict[str, Any]:
    weekdays = ["mon", "tue", "wed", "thu", "fri"]
    spans: dict[str, Any] = {
        "office": {"start": "09:00", "end": "17:30", "days": weekdays},
        "nights": {"start": "22:00", "end": "06:00"},
        "friday night": {"start": "20:00", "end": "04:00", "days": ["Friday"]},
        "to the second": {"start": "11:59:58", "end": "12:00:01"},
        "all of Saturday": {"start": "00:00", "end": "24:00", "days": ["sat"]},
        "from noon on": {"start": "12:00", "end": "00:00"},
        "a pair": ["7:05", "7:10"],
        "midnight to midnight": {"start": "00:00", "end": "00:00", "days": ["wed"]},
    }
    axis = {name: {str(50 + number): 1.0} for number, name in enumerate(spans)}
    prepare = desk("a") + [
        route(name, "a", embedding=axis[name], threshold=0.5, conditions={"time_range": span})
        for name, span in spans.items()
    ]  # fmt: skip

    def asked(name: str, when: str, *, open_: bool) -> dict[str, Any]:
        return case(f"{name} at {when}", "match", when, embedding=axis[name], gives=name if open_ else None)

    times = (
        ("office", "2026-09-21 08:59:59", False), ("office", "2026-09-21 09:00:00", True),
        ("office", "2026-09-21 17:29:59", True), ("office", "2026-09-21 17:30:00", False),
        ("office", "2026-09-19 12:00:00", False), ("office", "2026-09-20 12:00:00", False),
        ("office", "2026-09-25 12:00:00", True),
        ("nights", "2026-09-21 21:59:59", False), ("nights", "2026-09-21 22:00:00", True),
        ("nights", "2026-09-22 00:00:00", True), ("nights", "2026-09-22 05:59:59", True),
        ("nights", "2026-09-22 06:00:00", False),
        ("friday night", "2026-09-25 19:59:59", False), ("friday night", "2026-09-25 20:00:00", True),
        ("friday night", "2026-09-26 03:59:59", True), ("friday night", "2026-09-26 04:00:00", False),
        ("friday night", "2026-09-25 02:00:00", False), ("friday night", "2026-09-26 21:00:00", False),
        ("to the second", "2026-09-21 11:59:57", False), ("to the second", "2026-09-21 11:59:58", True),
        ("to the second", "2026-09-21 12:00:00.9", True), ("to the second", "2026-09-21 12:00:01", False),
        ("all of Saturday", "2026-09-18 23:59:59", False), ("all of Saturday", "2026-09-19 00:00:00", True),
        ("all of Saturday", "2026-09-19 23:59:59", True), ("all of Saturday", "2026-09-20 00:00:00", False),
        ("from noon on", "2026-09-21 11:59:59", False), ("from noon on", "2026-09-21 23:59:59", True),
        ("from noon on", "2026-09-22 00:00:00", False),
        ("midnight to midnight", "2026-09-23 00:00:00", True), ("midnight to midnight", "2026-09-23 23:59:59", True),
        ("midnight to midnight", "2026-09-24 00:00:00", False),
        ("a pair", "2026-09-21 07:05:00", True), ("a pair", "2026-09-21 07:10:00", False),
    )  # fmt: skip
    cases = [asked(name, when, open_=open_) for name, when, open_ in times]
    cases.append(case("what is kept", "list_routes"))
    return scene("times of day", "routes", prepare, cases)


def _zones() -> dict[str, Any]:
    spans: dict[str, Any] = {
        "berlin office": {"start": "09:00", "end": "17:00", "time_zone": "Europe/Berlin"},
        "berlin small hours": {"start": "02:00", "end": "03:00", "time_zone": "Europe/Berlin"},
        "new york sunday": {"start": "01:00", "end": "03:30", "time_zone": "America/New_York", "days": ["sun"]},
        "kolkata": {"start": "10:00", "end": "10:30", "time_zone": "Asia/Kolkata"},
        "kathmandu": {"start": "00:00", "end": "00:15", "time_zone": "Asia/Kathmandu", "days": ["tue"]},
        "lord howe": {"start": "01:45", "end": "02:15", "time_zone": "Australia/Lord_Howe"},
        "apia monday": {"start": "06:00", "end": "09:00", "time_zone": "Pacific/Apia", "days": ["mon"]},
        "midway monday": {"start": "06:00", "end": "09:00", "time_zone": "Pacific/Midway", "days": ["mon"]},
    }  # fmt: skip
    axis = {name: {str(90 + number): 1.0} for number, name in enumerate(spans)}
    prepare = desk("a") + [
        route(name, "a", embedding=axis[name], threshold=0.5, conditions={"time_range": span})
        for name, span in spans.items()
    ]  # fmt: skip
    times = (
        # Winter and summer time: 9 o'clock is 8 or 7 in UTC.
        ("berlin office", "2026-01-12 07:59:59", False), ("berlin office", "2026-01-12 08:00:00", True),
        ("berlin office", "2026-07-13 06:59:59", False), ("berlin office", "2026-07-13 07:00:00", True),
        ("berlin office", "2026-07-13 15:00:00", False), ("berlin office", "2026-01-12 15:59:59", True),
        # 29 March: 1:59:59 is followed by 3:00:00. 25 October: 2 to 3 comes twice.
        ("berlin small hours", "2026-03-28 01:30:00", True), ("berlin small hours", "2026-03-29 00:59:59", False),
        ("berlin small hours", "2026-03-29 01:00:00", False), ("berlin small hours", "2026-03-29 01:30:00", False),
        ("berlin small hours", "2026-03-30 00:30:00", True), ("berlin small hours", "2026-10-24 00:30:00", True),
        ("berlin small hours", "2026-10-25 00:30:00", True), ("berlin small hours", "2026-10-25 01:30:00", True),
        ("berlin small hours", "2026-10-25 02:00:00", False),
        # 8 March: 2 becomes 3. 1 November: 1 to 2 comes twice.
        ("new york sunday", "2026-03-08 06:59:59", True), ("new york sunday", "2026-03-08 07:00:00", True),
        ("new york sunday", "2026-03-08 07:30:00", False), ("new york sunday", "2026-11-01 05:00:00", True),
        ("new york sunday", "2026-11-01 06:59:00", True), ("new york sunday", "2026-11-01 08:29:59", True),
        ("new york sunday", "2026-11-01 08:30:00", False), ("new york sunday", "2026-11-02 06:30:00", False),
        ("kolkata", "2026-09-21 04:29:59", False), ("kolkata", "2026-09-21 04:30:00", True),
        ("kolkata", "2026-09-21 05:00:00", False),
        ("kathmandu", "2026-09-21 18:14:59", False), ("kathmandu", "2026-09-21 18:15:00", True),
        ("kathmandu", "2026-09-22 18:15:00", False),
        # 5 April: at 2:00 clocks go back by half an hour only.
        ("lord howe", "2026-04-04 14:50:00", True), ("lord howe", "2026-04-04 15:10:00", False),
        ("lord howe", "2026-04-04 15:20:00", True), ("lord howe", "2026-04-04 15:45:00", False),
        # One instant, 24 hours apart on the calendar.
        ("apia monday", "2026-09-20 17:30:00", True), ("midway monday", "2026-09-20 17:30:00", False),
        ("apia monday", "2026-09-21 17:30:00", False), ("midway monday", "2026-09-21 17:30:00", True),
    )  # fmt: skip
    cases = [
        case(f"{name} at {when}", "match", when, embedding=axis[name], gives=name if open_ else None)
        for name, when, open_ in times
    ]
    cases += [
        case("a route that always holds", "update_route", name="kolkata", changes={"conditions": {}}),
        case("at any time", "match", "2026-02-02 02:02", embedding=axis["kolkata"], gives="kolkata"),
        case("another zone", "update_route", name="kathmandu", changes={
            "conditions": {"time_range": {"start": "00:00", "end": "00:15", "time_zone": "UTC", "days": ["tue"]}}}),
        case("the old zone no more", "match", "2026-09-21 18:15:00", embedding=axis["kathmandu"], gives=None),
        case("by the new one", "match", "2026-09-22 00:14:59", embedding=axis["kathmandu"], gives="kathmandu"),
        case("what is kept", "list_routes"),
    ]  # fmt: skip
    return scene("time zones", "routes", prepare, cases)


def _rates() -> dict[str, Any]:
    prepare = [
        *desk("a", "b"),
        route("twice a minute", "a", embedding=E0, threshold=0.5, conditions={"rate_limit": 2}),
        route("hourly", "a", embedding={"5": 1.0}, threshold=0.5,
              conditions={"rate_limit": {"requests": 3, "per_s": 3600}}),
        route("reserve", "b", embedding=at(0.8), threshold=0.7),
    ]  # fmt: skip

    def asked(what: str, when: str, vector: dict[str, Any], gives: str | None) -> dict[str, Any]:
        return case(what, "match", f"2026-09-21 {when}", embedding=vector, gives=gives, count=True)

    five: dict[str, Any] = {"5": 1.0}
    cases = [
        asked("the first", "12:00:00", E0, "twice a minute"),
        asked("the second", "12:00:00", E0, "twice a minute"),
        asked("the third goes elsewhere", "12:00:00", E0, "reserve"),
        asked("half a minute is not quite there", "12:00:29", E0, "reserve"),
        asked("half a minute gives one back", "12:00:30", E0, "twice a minute"),
        asked("and one only", "12:00:30", E0, "reserve"),
        asked("both are back", "12:02:00", E0, "twice a minute"),
        asked("the second of them", "12:02:00", E0, "twice a minute"),
        asked("no third", "12:02:01", E0, "reserve"),
        asked("the other limit is its own", "12:02:01", five, "hourly"),
        asked("two of three", "12:02:02", five, "hourly"),
        asked("three of three", "12:02:03", five, "hourly"),
        asked("none is left, and nothing else passes", "12:02:04", five, None),
        case("looking counts nothing", "match", "2026-09-21 12:30:00", embedding=five, gives="hourly", count=False),
        case("looking again", "match", "2026-09-21 12:30:00", embedding=five, gives="hourly", count=False),
        asked("one is back", "12:30:00", five, "hourly"),
        asked("no more", "12:30:01", five, None),
        asked("a clock set back", "11:00:00", five, None),
        asked("nobody waits longer than the time", "12:00:01", five, "hourly"),
        asked("a clock far ahead", "23:00:00", five, "hourly"),
        asked("all were back", "23:00:00", five, "hourly"),
        asked("to the last", "23:00:00", five, "hourly"),
        asked("and then none", "23:00:00", five, None),
        case("the limit is lifted", "update_route", "2026-09-21 23:00:00", name="hourly", changes={"conditions": {}}),
        asked("no limit", "23:00:00", five, "hourly"),
        asked("no limit at all", "23:00:00", five, "hourly"),
    ]
    return scene("rate limits", "routes", prepare, cases)


def _rate_and_reserve() -> dict[str, Any]:
    limit = {"rate_limit": {"requests": 1, "per_s": 600}}
    prepare = [
        *desk("a", "b", "c"),
        route("first", "a", embedding=E0, threshold=0.5, priority=3, conditions=limit),
        route("second", "b", embedding=E0, threshold=0.5, priority=2, conditions=limit),
        route("third", "c", embedding=E0, threshold=0.5, priority=1, conditions={**limit, "user_tier": ["gold"]}),
    ]
    cases = [
        case(f"{what}: {tier or 'no tier'}", "match", embedding=E0, user_tier=tier, count=True, gives=gives, top_k=3)
        for what, tier, gives in (
            ("a", None, "first"), ("b", "gold", "second"), ("c", None, None), ("d", "gold", "third"), ("e", "gold",
            None),
        )
    ]  # fmt: skip
    return scene("one limit after another", "routes", prepare, cases)


def _inactive() -> dict[str, Any]:
    prepare = [
        *desk("a", "b"),
        route("on", "a", embedding=E0, threshold=0.5),
        route("off", "b", embedding=E0, threshold=0.5, priority=9, is_active=False),
        route("to b", "b", embedding=at(0.8), threshold=0.7),
    ]
    cases = [
        case("what is off is not taken", "match", embedding=E0, top_k=5, gives="on"),
        case("switched on", "update_route", name="off", changes={"is_active": True}),
        case("is taken", "match", embedding=E0, top_k=5, gives="off"),
        case("its agent is switched off", "update_agent", name="b", changes={"is_active": False}),
        case("both of its routes are out", "match", embedding=at(0.9), top_k=5, gives="on"),
        case("the agent is back", "update_agent", name="b", changes={"is_active": True}),
        case("so are they", "match", embedding=at(0.9), top_k=5, gives="off"),
        case("the agent is removed", "remove_agent", name="b"),
        case("they stay, but are not taken", "match", embedding=at(0.9), top_k=5, gives="on"),
        case("and are listed", "list_routes"),
        case("the other, too", "update_agent", name="a", changes={"is_active": False}),
        case("nobody is left", "match", embedding=E0, gives=None),
        case("an agent of that name comes", "register", config={"name": "b", "capabilities": ["b"]}),
        case("the routes lead to it", "match", embedding=E0, gives="off"),
    ]
    return scene("what is switched off", "routes", prepare, cases)


def _changes() -> dict[str, Any]:
    prepare = [
        *desk("a", "b"),
        route("orders", "a", description="Orders and deliveries", utterances=["where is my order", "cancel my order"]),
        route("opening hours", "b", utterances=["when do you open", "are you open on Sunday"], priority=1),
    ]
    where, opening = "where is the parcel that I ordered", "until when is the shop open on Sunday"
    cases = [
        case("before", "match", request=where),
        case("to another agent", "update_route", name="orders", changes={"target_agent": "b"}),
        case("which it leads to now", "match", request=where),
        case("a threshold nothing reaches", "update_route", name="orders", changes={"threshold": 0.999}),
        case("nothing passes", "match", request=where, gives=None),
        case("the default again", "update_route", name="orders", changes={"threshold": None}),
        case("as before", "match", request=where),
        case("two more examples", "add_utterances", name="orders",
             utterances=["track my parcel", "where is my order", "the courier did not come"]),
        case("nearer now", "match", request=where),
        case("none of them is new", "add_utterances", name="orders", utterances=["track my parcel"]),
        case("an example less", "remove_utterances", name="orders", utterances=["cancel my order", "never given"]),
        case("further from what is gone", "match", request="I want to cancel what I ordered", top_k=2),
        case("another description", "update_route", name="orders", changes={"description": "Parcels on their way"}),
        case("which counts", "match", request="is the parcel on its way"),
        case("no description", "update_route", name="orders", changes={"description": None}),
        case("which no longer counts", "match", request="is the parcel on its way"),
        case("a vector instead", "update_route", name="orders", changes={"embedding": {"33": 1.0}, "threshold": 0.2}),
        case("which counts with the examples", "match", embedding={"33": 1.0, "1": 0.2}),
        case("a calibration of its own", "update_route", name="opening hours", changes={"calibration": {
            "intercept": -2.0, "slope": 4.5, "margin": 1.5, "none_intercept": 1.0, "none_slope": -5.0,
            "none_margin": -2.0, "examples": 40}}),
        case("by which it is sure", "match", request=opening),
        case("and unsure", "match", request="open the door, please", top_k=2),
        case("back to the default one", "update_route", name="opening hours", changes={"calibration": None}),
        case("as sure as before", "match", request=opening),
        case("priority and conditions at once", "update_route", name="opening hours",
             changes={"priority": -7, "conditions": {"user_tier": ["shopper"], "rate_limit": 30}}),
        case("what is kept", "list_routes"),
        case("gone", "delete_route", name="opening hours"),
        case("and not matched", "match", request=opening),
        case("nor listed", "list_routes"),
        case("made anew", "create_route", config={
            "name": "Opening Hours", "target_agent": "a", "utterances": ["when do you open"], "threshold": 0.1}),
        case("and found", "match", request=opening),
        case("the last one, too", "delete_route", name="Opening Hours"),
        case("and the other", "delete_route", name="orders"),
        case("nothing is left", "list_routes"),
        case("nothing to match", "match", request=opening, gives=None),
    ]  # fmt: skip
    return scene("changes", "routes", prepare, cases)


def _many() -> dict[str, Any]:
    rng = random.Random("sixty routes")

    def vector() -> dict[str, float]:
        return {str(p): round(rng.uniform(-1, 1), 3) or 0.5 for p in sorted(rng.sample(range(24), 8))}

    prepare = desk(*(f"agent {n}" for n in range(5)))
    for number in range(60):
        more: dict[str, Any] = {}
        if rng.random() < 0.5:
            more["threshold"] = round(rng.uniform(-0.2, 0.8), 3)
        if rng.random() < 0.5:
            more["priority"] = rng.randint(-2, 2)
        if rng.random() < 0.2:
            more["conditions"] = {"user_tier": [rng.choice(["gold", "silver"])]}
        prepare.append(route(f"route {number:02}", f"agent {rng.randrange(5)}", embedding=vector(), **more))
    cases = [
        case(f"drawn {number:02}", "match", embedding=vector(), top_k=rng.choice([1, 2, 5, 20]),
             **({"user_tier": rng.choice(["gold", "silver"])} if rng.random() < 0.4 else {}))
        for number in range(24)
    ]  # fmt: skip
    return scene("sixty routes", "routes", prepare, cases)
