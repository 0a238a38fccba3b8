"""Steering scenes written by hand: routes and calls that are refused, and the classes of requests.

In: nothing. Out: scenes as JSON objects, without expectations; ``generate_steering.py`` adds those.
"""

from __future__ import annotations

import random
from typing import Any

from tests.conformance.steering_routes import E0, case, desk, route, scene, step


def scenes() -> list[dict[str, Any]]:
    """All of them."""
    return [_empty(), _bad_routes(), _bad_calls(), _classes(), _bad_classes(), _needs()]


def _empty() -> dict[str, Any]:
    cases = [
        case("no routes: text", "match", request="Is anybody there?", gives=None),
        case("no routes: vector", "match", embedding=E0, gives=None),
        case("no routes: list", "list_routes"),
        case("no routes: delete", "delete_route", name="anything", error="not_found"),
        case("no routes: update", "update_route", name="anything", changes={"priority": 1}, error="not_found"),
        case("no routes: an example", "add_utterances", name="anything", utterances=["hello"], error="not_found"),
        case("no agents to lead to", "create_route", config={"name": "r", "target_agent": "a", "description": "d"},
             error="not_found"),
        case("no routes, but the text comes first", "match", request=" ", error="invalid_text"),
    ]  # fmt: skip
    return scene("no routes", "routes", [], cases)


def _bad_routes() -> dict[str, Any]:
    prepare = [*desk("support", "sales"), route("refunds", "support", utterances=["refund my order"])]

    def bad(what: str, error: str, **config: Any) -> dict[str, Any]:
        usual = {"name": "new", "target_agent": "support", "description": "Something else"}
        given = {key: value for key, value in {**usual, **config}.items() if value != "left out"}
        return case(what, "create_route", error=error, config=given)

    def when(what: str, **conditions: Any) -> dict[str, Any]:
        return bad(what, conditions.pop("error", "invalid_input"), conditions=conditions)

    nine = {"start": "09:00", "end": "17:00"}
    cases = [
        bad("an agent that is not registered", "not_found", target_agent="suport"),
        bad("an agent in other capitals", "not_found", target_agent="Support"),
        bad("a name that is taken", "already_exists", name="refunds"),
        bad("a name that differs in capitals only", "already_exists", name="Refunds"),
        bad("an empty name", "invalid_name", name=""),
        bad("blanks around the name", "invalid_name", name=" new "),
        bad("a name of 201 characters", "invalid_name", name="n" * 201),
        bad("a control character in the name", "invalid_name", name="new\u0007"),
        bad("no name", "invalid_input", name="left out"),
        bad("no agent", "invalid_input", target_agent="left out"),
        bad("nothing to resemble", "invalid_input", description="left out"),
        bad("negative examples only", "invalid_input", description="left out", negative_utterances=["not this"]),
        bad("an example on both sides", "invalid_input", utterances=["one", "two"], negative_utterances=["two"]),
        bad("a blank example", "invalid_text", utterances=["fine", " "]),
        bad("examples as one text", "invalid_input", utterances="fine"),
        bad("a threshold above 1", "invalid_input", threshold=1.0001),
        bad("a threshold below -1", "invalid_input", threshold=-1.5),
        bad("a threshold in words", "invalid_input", threshold="high"),
        bad("a priority that is no whole number", "invalid_input", priority=1.5),
        bad("a priority beyond reason", "invalid_input", priority=2**31),
        bad("an unknown field", "unknown_key", weight=3),
        bad("a misspelt field", "unknown_key", treshold=0.5),
        bad("too short a vector", "space_mismatch", embedding=[1.0, 0.0]),
        bad("a vector of zeros", "invalid_vector", embedding=[0.0] * 384),
        bad("active as a text", "invalid_input", is_active="yes"),
        when("an unknown condition", weather="fine", error="unknown_key"),
        when("conditions that contradict each other", time_range={"start": "12:00", "end": "12:00"}),
        when("no end", time_range={"start": "09:00"}),
        when("a time that is none", time_range={"start": "09:00", "end": "25:00"}),
        when("a time in words", time_range={"start": "morning", "end": "17:00"}),
        when("24:00 as the start", time_range={"start": "24:00", "end": "06:00"}),
        when("a zone there is not", time_range={**nine, "time_zone": "Europe/Atlantis"}),
        when("a zone that is a path", time_range={**nine, "time_zone": "../etc/localtime"}),
        when("a day there is not", time_range={**nine, "days": ["someday"]}),
        when("no day", time_range={**nine, "days": []}),
        when("an unknown key of the time", time_range={**nine, "zone": "UTC"}, error="unknown_key"),
        when("three times", time_range=["09:00", "12:00", "17:00"]),
        when("nobody's tier", user_tier=[]),
        when("a blank tier", user_tier=["gold", ""], error="invalid_name"),
        when("no requests", rate_limit={"requests": 0, "per_s": 60}),
        when("fewer than no requests", rate_limit={"requests": -1, "per_s": 60}),
        when("half a request", rate_limit=0.5),
        when("a limit without requests", rate_limit={"per_s": 60}),
        when("more than can be counted", rate_limit={"requests": 101, "per_s": 1.0}),
        when("no time at all", rate_limit={"requests": 1, "per_s": 0}),
        bad("conditions as a list", "invalid_input", conditions=["gold"]),
        case("no object", "create_route", config=["refunds"], error="invalid_input"),
        case("and nothing was created", "list_routes"),
    ]  # fmt: skip
    return scene("bad routes", "routes", prepare, cases)


def _bad_calls() -> dict[str, Any]:
    prepare = [
        *desk("support", "sales"),
        route("refunds", "support", utterances=["refund my order"], negative_utterances=["tax refund"]),
    ]

    def update(what: str, error: str, name: str = "refunds", **changes: Any) -> dict[str, Any]:
        return case(what, "update_route", error=error, name=name, changes=changes)

    cases = [
        case("no routes at all wanted", "match", request="refund", top_k=0, error="invalid_input"),
        case("fewer than none", "match", request="refund", top_k=-1, error="invalid_input"),
        case("too many", "match", request="refund", top_k=1001, error="invalid_input"),
        case("half a route", "match", request="refund", top_k=1.5, error="invalid_input"),
        case("an empty request", "match", request="", error="invalid_text"),
        case("a blank request", "match", request=" \n\t", error="invalid_text"),
        case("too long a request", "match", request={"text": "refund ", "times": 60000}, error="invalid_text"),
        case("too short a vector", "match", embedding=[0.5, 0.5], error="space_mismatch"),
        case("a vector of zeros", "match", embedding={"0": 0.0}, error="invalid_vector"),
        case("a vector with infinity", "match", embedding={"0": "Infinity"}, error="invalid_vector"),
        case("a vector with no number", "match", embedding={"4": "NaN"}, error="invalid_vector"),
        update("an unknown route", "not_found", name="refund", priority=1),
        update("another agent that there is not", "not_found", target_agent="nobody"),
        update("another name", "unknown_key", name="refunds", **{"nam": "x"}),
        update("a threshold out of range", "invalid_input", threshold=2),
        update("an unknown field", "unknown_key", colour="red"),
        update("a bad condition", "invalid_input", conditions={"user_tier": []}),
        update("no agent", "invalid_name", target_agent=None),
        update("half a calibration", "invalid_input", calibration={"slope": 1.0}),
        update("priority in words", "invalid_input", priority="first"),
        case("the name itself", "update_route", name="refunds", changes={"name": "returns"}, error="unknown_key"),
        case("changes as a list", "update_route", name="refunds", changes=["priority"], error="invalid_input"),
        case("an unknown route to add to", "add_utterances", name="refnds", utterances=["x"], error="not_found"),
        case("what is negative already", "add_utterances", name="refunds", utterances=["tax refund"],
             error="invalid_input"),
        case("what is positive already", "add_utterances", name="refunds", utterances=["refund my order"],
             negative=True, error="invalid_input"),
        case("a blank example", "add_utterances", name="refunds", utterances=["fine", ""], error="invalid_text"),
        case("the last example", "remove_utterances", name="refunds", utterances=["refund my order"],
             error="invalid_input"),
        case("an unknown route to take from", "remove_utterances", name="nothing", utterances=["x"],
             error="not_found"),
        case("an unknown route to delete", "delete_route", name="Refunds", error="not_found"),
        case("and nothing has changed", "list_routes"),
    ]  # fmt: skip
    return scene("bad calls", "routes", prepare, cases)


CLASSIFIED = (
    "Write a Python function that merges two sorted lists.", "Why does my SQL query time out?",
    "Refactor this class so that it needs no inheritance.", "Hello, how are you today?",
    "Tell me a joke about penguins.",
    "My order arrived broken and I want my money back.", "I cannot log in to my account.",
    "Which product sold best per region in the attached table?", "Plot the trend of these monthly figures.",
    "List all people and places named in this article.", "Extract the invoice number and the total as JSON.",
    "What is the derivative of x squared times sine x?", "A train leaves at 9 and travels 300 km at 120 km/h.",
    "Plan a three-day trip to Lisbon for a family.", "Make a schedule for moving house within two weeks.",
    "What is the capital of Mongolia?", "Who wrote The Master and Margarita?", "When did the Berlin Wall fall?",
    "Summarise this report in five sentences.", "Give me the key points of the meeting notes.",
    "Translate this letter into French.", "How do you say good night in Finnish?",
    "Write a short poem about autumn leaves.", "Draft an e-mail that declines an invitation politely.",
    "What is in this picture?", "Search the web for today's exchange rate.",
    "Call the weather service and tell me the result.",
    "Review this contract of eighty pages for risks.", "Is it ethical to eat meat? Weigh the arguments.",
    "asdf qwer zxcv", "ok", "42", "¿Cuál es la capital de Perú?", "Übersetze diesen Satz ins Englische.",
    "日本の首都はどこですか",
)  # fmt: skip


def _classes() -> dict[str, Any]:
    cases = [case(text, "classify", request=text) for text in CLASSIFIED]
    cases += [case("a long request", "classify", request={"text": "Summarise this paragraph. ", "times": 300})]
    rng = random.Random("vectors to classify")
    for number in range(4):
        vector = {str(p): round(rng.uniform(-1, 1), 3) or 0.5 for p in sorted(rng.sample(range(384), 40))}
        cases.append(case(f"a vector: {number + 1}", "classify", embedding=vector))
    return scene("kinds of request", "classes", [], cases)


def _bad_classes() -> dict[str, Any]:
    cases = [
        case("nothing", "classify", request="", error="invalid_text"),
        case("blanks", "classify", request="  \n", error="invalid_text"),
        case("too long", "classify", request={"text": "words ", "times": 70000}, error="invalid_text"),
        case("too short a vector", "classify", embedding=[1.0], error="space_mismatch"),
        case("a vector of zeros", "classify", embedding={"2": 0.0}, error="invalid_vector"),
    ]
    return scene("what has no kind", "classes", [], cases)


def _needs() -> dict[str, Any]:
    agents = {
        "coder": (["Coding", "reasoning"], 0.02), "linguist": (["translation", "creative_writing"], 0.008),
        "analyst": (["data analysis", "mathematics", "reasoning"], 0.03), "reader": (["long-documents"], 0.015),
        "searcher": (["web search", "tools"], 0.012), "anybody": ([], 0.001),
    }  # fmt: skip
    prepare = [
        step("register", config={
            "name": name, "capabilities": capabilities, "cost_per_request": usd, "avg_latency_ms": 300,
            "quality_score": 0.8,
        })
        for name, (capabilities, usd) in agents.items()
    ]  # fmt: skip
    asked = CLASSIFIED[:32:2]
    cases = [
        case(f"needed: {text}", "route", request=text, objective="cost", infer_capabilities=True) for text in asked
    ]
    cases += [
        case("not asked for", "route", request=CLASSIFIED[0], objective="cost", infer_capabilities=False),
        case("beside what is required", "route", request=CLASSIFIED[20], objective="cost", infer_capabilities=True,
             constraints={"required_capabilities": ["reasoning"]}),
        case("whoever has it is excluded", "route", request=CLASSIFIED[20], objective="cost", infer_capabilities=True,
             constraints={"excluded_agents": ["linguist"]}),
        case("a limit of cost", "route", request=CLASSIFIED[0], objective="quality", infer_capabilities=True,
             constraints={"max_cost": 0.05}),
    ]  # fmt: skip
    return scene("what a request needs", "classes", prepare, cases)
