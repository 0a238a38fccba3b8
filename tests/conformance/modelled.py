"""Groups whose qualities the shipped weights predict. In: a judge of cases. Out: groups as JSON objects.

What is drawn depends on the weights, because no case may hang on their last digits. When they change, so does
cases.json: ``python -m tests.conformance.generate``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.conformance import special
from tests.conformance.special import agent

SHIPPED = "shipped"
REQUESTS = (
    "What is 17 * 24 + (316 - 58) / 6? Show your steps.",
    "A train leaves at 9:40 and arrives at 13:05. How long does the journey take, and how fast is it over 287 km?",
    "Let $f(x) = x^2 - 3x$. Which of the following is not a root of f' ?\n(A) 0\n(B) 1.5\n(C) both\n(D) neither",
    "Write a polite letter to my landlord about the broken heating.",
    "Which organ produces insulin, and what happens when it doesn't work?",
    "def total(items):\n    return sum(item['price_eur'] for item in items)\n# Why does this fail for an empty list?",
    "Hallo! Wie schreibt man eine höfliche Absage auf eine Einladung?",
    "Name three novels of the nineteenth century that are set in London.",
    "Is it legal to record a telephone call without consent?",
    "地球から月までの距離はどのくらいですか。",
)
KNOWN = ("gpt-4-1106-preview", "mixtral-8x7b-instruct", "claude-instant-v1", "mistral-7b-chat")
"""Agents of the training data, under the names that they have there."""

Judge = Callable[[dict[str, Any]], bool]
"""Whether a group with one case can be told for sure."""


def groups(is_sure: Judge) -> list[dict[str, Any]]:
    """A group without outcomes, and one whose agents have answered here."""
    return [_as_shipped(is_sure), _with_outcomes(is_sure)]


def _llm(name: str, dollars_per_million: float, latency_ms: float, *capabilities: str, **fields: Any) -> dict[str, Any]:
    return agent(
        name, *capabilities, input_cost_per_token=dollars_per_million * 1e-6,
        output_cost_per_token=dollars_per_million * 4e-6, avg_latency_ms=latency_ms, **fields,
    )  # fmt: skip


def _as_shipped(is_sure: Judge) -> dict[str, Any]:
    agents = [
        _llm(KNOWN[0], 10.0, 3100, "reasoning", "mathematics"),
        _llm(KNOWN[1], 0.6, 900, "chat", "French", quality_score=0.99),  # what is stated does not count: it is known
        _llm(KNOWN[2], 0.8, 700),
        _llm("newcomer", 2.5, 1200, "law", "letters", quality_score=0.83),
        _llm("newcomer without a word", 0.3, 450),
        agent("newcomer without a price", "medicine", avg_latency_ms=600),
        agent("calculator", "sums", agent_type="tool", cost_per_request=4e-4, avg_latency_ms=500, quality_score=0.6),
    ]  # fmt: skip
    made = special.group("shipped model", agents, [], model=SHIPPED)
    return _filled(made, random.Random("shipped model"), 24, is_sure)


def _with_outcomes(is_sure: Judge) -> dict[str, Any]:
    agents = [
        _llm(KNOWN[1], 0.6, 900, "chat"),
        _llm(KNOWN[3], 0.2, 400),
        _llm("learner", 1.5, 800, "chat", "law", quality_score=0.6),
        _llm("learner without a word", 0.9, 650),
        agent("clerk", "letters", agent_type="human", cost_per_request=0.5, avg_latency_ms=60000, quality_score=0.9),
    ]
    judged = [
        (KNOWN[1], 0, 1.0), (KNOWN[1], 3, 0.0), ("learner", 4, 1.0), ("learner", 1, 0.25), ("learner", 8, 0.75),
        ("learner without a word", 2, 1.0), ("learner without a word", 5, None), (KNOWN[1], 7, 0.5), ("clerk", 3, 0.8),
        ("learner without a word", 9, 0.9), ("learner", 6, 0.0), ("clerk", 6, 1.0),
    ]  # fmt: skip
    outcomes: list[dict[str, Any]] = []
    for name, number, quality in judged:
        came = {"success": False} if quality is None else {"quality": quality}  # nobody judged it, but it failed
        outcomes.append({"name": name, "routed": True, "request": REQUESTS[number], **came})
    outcomes += [{"name": "clerk", "quality": 0.95}, {"name": "learner", "latency_ms": 750}]
    made = special.group("shipped model, outcomes", agents, [], model=SHIPPED, outcomes=outcomes)
    return _filled(made, random.Random("shipped model, outcomes"), 12, is_sure)


def _filled(made: dict[str, Any], rng: random.Random, count: int, is_sure: Judge) -> dict[str, Any]:
    """The group with cases that are drawn until there are enough of which one can be sure."""
    while len(made["cases"]) < count:
        number = len(made["cases"])
        objective = special.OBJECTIVES[number % len(special.OBJECTIVES)]
        case = special.route(
            f"case {number + 1:02}", _request(rng, number), objective, **_limits(rng, made["agents"])
        )  # fmt: skip
        if is_sure({**made, "cases": [case]}):
            made["cases"].append(case)
    return made


def _request(rng: random.Random, number: int) -> Any:
    if number % 6 == 5:  # a vector without a text has no facts of one
        return {str(p): round(rng.uniform(-1, 1), 3) or 1.0 for p in sorted(rng.sample(range(384), 12))}
    return rng.choice(REQUESTS)


def _limits(rng: random.Random, agents: list[dict[str, Any]]) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if rng.random() < 0.25:
        limits["min_quality"] = round(rng.uniform(0.3, 0.7), 3)
    if rng.random() < 0.25:
        limits["max_cost"] = float(f"{10 ** rng.uniform(-3.5, -1.5):.3g}")
    if rng.random() < 0.2:
        limits["max_latency_ms"] = float(rng.choice((650, 950, 2000)))
    if rng.random() < 0.35:
        limits["good_enough"] = rng.choice((0.5, 0.9, 0.97))
    if rng.random() < 0.35:
        limits["excluded_agents"] = sorted(a["name"] for a in rng.sample(agents, 2))
    return limits
