"""What is routed, and among whom, in every row: requests, agents, vectors, candidates, all made from fixed seeds.

In: how many. Out: the same ones each time, every one different from the others, because a hundred copies of one
request would be answered from the processor's cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from bench.registry import Place

from tinydancer.config import Settings
from tinydancer.service import TinyDancer
from tinydancer.types import Agent, Candidate
from tinydancer.validation import FloatVector

T = TypeVar("T")
DIM = 384
NOW = 1.8e9
"""Seconds since 1970, where a fixed instant is needed."""

REQUESTS = (
    "Our nightly import of supplier invoices stopped with a foreign key violation after we renamed a column; please "
    "write a migration that repairs the existing rows and tell me how to test it safely.",
    "I have to give a speech at my sister's wedding in June and would like three short anecdotes that are funny "
    "without embarrassing anybody; she is a vet and he restores old bicycles.",
    "Prove that the sum of the reciprocals of the divisors of a perfect number is exactly two, and explain every step "
    "so that a student in the first year can follow it without help.",
    "Please translate the attached rental contract from German into plain English, keep the numbering of the clauses "
    "and mark the three places where the tenant carries a risk that is unusual in Berlin.",
    "My parcel was marked as delivered on Tuesday but nobody in the house has seen it; the neighbours deny having it "
    "too. What do I have to do now to get my money back?",
    "Compare the side effects of ibuprofen and paracetamol for somebody with mild kidney disease who takes a pill "
    "against high blood pressure every morning, and say clearly when to see a doctor instead.",
    "Write a function in Rust that merges overlapping time intervals in a sorted vector without allocating, with "
    "property tests, and explain what its complexity is when the input happens not to be sorted.",
    "Summarise the minutes of the last four meetings of the works council in ten sentences, grouped by topic, and list "
    "who promised to do what until when, as a table I can paste into mail.",
    "Explain to a ten-year-old why the moon is sometimes visible during the day, why it does not fall down, and what "
    "an experiment with a lamp and an orange could show about its phases.",
    "Which of these two offers for a heat pump is cheaper over fifteen years if electricity costs thirty cents today "
    "and rises by three percent a year, given that the first needs a new compressor halfway?",
    "The customer is angry because the hotel lost his reservation and he slept in his car with two children; draft an "
    "answer that apologises, offers a refund and a weekend, and does not admit liability.",
    "Find the mistake in this regular expression, which should match European dates with two or four digits for the "
    "year but also accepts the thirty-first of February, and suggest a parser that does better.",
    "Plan a vegetarian dinner for eight people, one of whom cannot eat gluten and one no nuts, that can be prepared "
    "the day before, costs less than sixty euros and looks like more.",
    "Describe how the court decided about liability for autonomous lawn mowers that hurt hedgehogs at night, and what "
    "this means for a dealer who lends such machines to his customers by the day.",
    "Read the following stack trace from our Android application, tell me which thread holds the lock that the main "
    "thread is waiting for, and propose the smallest change that removes the deadlock for good.",
    "Good evening! I only wanted to say that the recipe from yesterday worked wonderfully; even my grandmother asked "
    "for a second piece, and that has not happened since the spring of the year before last.",
)  # fmt: skip
"""About thirty words each."""

_CRAFTS = (
    "writes and reviews program code", "solves problems of mathematics step by step", "answers questions of customers",
    "translates between European languages", "summarises long documents", "drafts letters and speeches",
    "explains laws and contracts", "analyses tables of figures", "chats about everyday life",
    "answers questions on medicine",
)  # fmt: skip
_FIELDS = (
    "for small firms", "for banks and insurers", "for schools", "for hospitals", "for public offices", "for farmers",
    "for engineers", "for shops", "for newspapers", "for travellers",
)  # fmt: skip
_MANNERS = (
    "quickly and briefly", "slowly and with great care", "with sources", "in simple words", "in a formal tone",
    "with many examples", "at the lowest price", "without any jargon", "late at night", "as tables and lists",
)  # fmt: skip


def endless(items: Sequence[T]) -> Callable[[], T]:
    """The next item at each call, for ever."""
    turn: Iterator[T] = itertools.cycle(items)
    return turn.__next__


def long_requests(words: int) -> list[str]:
    """Requests of about `words` words each, put together from the short ones."""
    each = max(1, round(words / 30))
    return [" ".join(REQUESTS[(start + i) % len(REQUESTS)] for i in range(each)) for start in range(len(REQUESTS))]


def many_requests(n: int) -> list[str]:
    """`n` different requests of about thirty words."""
    words = [text.split() for text in REQUESTS]
    made = []
    for i in range(n):
        one, other, cut = words[i % 16], words[i // 16 % 16], 10 + i // 256 % 11
        made.append(" ".join((*one[:cut], *other[cut:], f"({i})")))
    return made


def unit_vectors(n: int, seed: int = 1) -> FloatVector:
    """``float32[n, 384]`` of random directions, each of length 1."""
    drawn = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    unit: FloatVector = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def agent_configs(n: int) -> list[dict[str, Any]]:
    """`n` agents with descriptions, prices per token and figures, up to 1,000 of them different in all."""
    rng = np.random.default_rng(2)
    configs = []
    for i in range(n):
        craft, field, manner = _CRAFTS[i % 10], _FIELDS[i // 10 % 10], _MANNERS[i // 100 % 10]
        price = float(10 ** rng.uniform(-7, -5))
        configs.append(
            {
                "name": f"agent-{i:04}", "agent_type": "llm", "capabilities": [craft.split()[0], f"{craft} {field}"],
                "metadata": {"description": f"This agent {craft} {field}, {manner}."},
                "input_cost_per_token": price, "output_cost_per_token": 4 * price,
                "avg_latency_ms": float(rng.uniform(200, 20_000)), "quality_score": float(rng.uniform(0.5, 0.95)),
            }
        )  # fmt: skip
    return configs


def agents(n: int) -> list[Agent]:
    """The same agents, with random vectors in place of those of their descriptions."""
    return [
        replace(Agent.from_config(config), embedding=vector)
        for config, vector in zip(agent_configs(n), unit_vectors(n, seed=3), strict=True)
    ]


def dancer(place: Place, n_agents: int, *, record: bool = False, remember: int = 0) -> TinyDancer:
    """A service over an SQLite file with `n_agents` agents, as a deployment has it; closed with the place.

    Benchmarks ask the same requests again and again, so no decision is reused unless a row is about that: `remember`
    is how many are kept.
    """
    settings = Settings(record_decisions=record, decision_cache_entries=remember)
    made = TinyDancer(place.folder / "bench.db", settings=settings)
    place.closing.callback(made.close)
    made.store.insert_agents(agents(n_agents), replace=False)
    return made


def candidates(n: int) -> list[Candidate]:
    """`n` candidates of 384 dimensions, made over the last thousand hours."""
    rng = np.random.default_rng(4)
    return [
        Candidate(
            id=f"c{i}", embedding=vector, created_at=NOW - 3600.0 * float(rng.uniform(0, 1000)),
            access_count=int(rng.integers(0, 200)), success_rate=float(rng.uniform(0.5, 1.0)),
        )
        for i, vector in enumerate(unit_vectors(n, seed=5))
    ]  # fmt: skip
