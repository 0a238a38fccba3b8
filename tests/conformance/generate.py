"""Writes cases.json: the groups written by hand, groups drawn from a seed, and what each case must answer.

In: the shipped weights. Out: cases.json beside this file. The answers are those of Python with SQLite; a decision is
written only if the oracle comes to the same, and a drawn case only if none of its comparisons hangs on the last digits.
When the shipped weights change, the cases that they decide change: run it again.

Run: ``python -m tests.conformance.generate``
"""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conformance import modelled, special
from tests.conformance.cases import DIM, FILE, Case, Group, group_of
from tests.conformance.doors import Answer, PythonDoor
from tests.conformance.oracle import Embed, Oracle
from tests.conformance.weights import Weights
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.model.quality import shipped_model_path

SEED = 20260
CLOSE = 1e-5
"""Two numbers that a decision compares differ by at least this much, relatively, or not at all."""
CLOSE_WITH_MODEL = 1e-4
"""The same where a network of float32 comes before the comparison."""
FIGURES = (
    "agent_name", "expected_quality", "estimated_cost", "estimated_latency_ms", "confidence", "uncertainty",
    "similarity_score",
)  # fmt: skip
SKILLS = (
    "chat", "coding", "law", "mathematics", "medicine", "music", "travel", "cooking", "history", "marketing", "SQL",
    "translation", "chemistry", "gardening", "poetry", "tax",
)  # fmt: skip
WORDS = (
    "amber", "birch", "cedar", "dune", "ember", "fjord", "grove", "heath", "inlet", "juniper", "knoll", "larch", "moor",
    "nook", "oak", "pine", "quarry", "reef",
)  # fmt: skip
REQUESTS = (
    "Plan three days in Lisbon for a family with small children.",
    "Why does this query scan the whole table although there is an index?",
    "Prove that the square root of two is irrational.",
    "Which herbs grow well on a balcony that faces north?",
    "Draft a friendly reminder about an unpaid invoice.",
    "Explain the causes of the Thirty Years' War to a twelve-year-old.",
    "How long must an egg boil at an altitude of 2,500 metres?",
    "Rewrite this function so that it needs no recursion.",
    "Is a verbal agreement to rent a flat binding?",
    "Traduisez ce poème en anglais sans perdre les rimes.",
    "Welche Nebenwirkungen hat Ibuprofen auf nüchternen Magen?",
    "この文章を丁寧な日本語に直してください。",
)


def embed_with(embedder: StaticEmbedder) -> Embed:
    """Texts to vectors for the oracle; each text once."""
    known: dict[str, tuple[list[float], float]] = {}

    def embed(text: str) -> tuple[list[float], float]:
        if text not in known:
            vectors, counts = embedder.embed((text,))
            known[text] = (vectors[0].tolist(), float(counts[0]))
        return known[text]

    return embed


def shipped_weights() -> Weights:
    """The weights that the package brings, as the oracle reads them."""
    return Weights(shipped_model_path())


def modelled_groups(embed: Embed, shipped: Weights) -> list[dict[str, Any]]:
    """Groups that the shipped weights decide."""
    oracles: dict[str, Oracle] = {}

    def is_sure(given: dict[str, Any]) -> bool:
        group = group_of(given)
        oracle = oracles.get(group.name) or oracles.setdefault(group.name, Oracle(group, embed, shipped))
        oracle.closest = math.inf
        return oracle.decide(group.cases[0]) is not None and oracle.closest >= CLOSE_WITH_MODEL

    return modelled.groups(is_sure)


def drawn_groups(embed: Embed) -> list[dict[str, Any]]:
    """Groups drawn from the seed."""
    sizes = ((1, 3), (2, 6), (3, 8), (3, 8), (4, 8), (5, 10), (6, 10), (8, 10), (12, 12))
    plans = [(f"drawn {i:02}", size, count) for i, (size, count) in enumerate(sizes, start=1)]
    plans.append(("thirty agents", 30, 24))
    return [_drawn_group(random.Random(f"{SEED} {name}"), name, size, count, embed) for name, size, count in plans]


def _drawn_group(rng: random.Random, name: str, size: int, count: int, embed: Embed) -> dict[str, Any]:
    names = [f"{rng.choice(WORDS)}-{number}" for number in range(1, size + 1)]
    rng.shuffle(names)
    made = special.group(name, [_drawn_agent(rng, n) for n in names], [])
    made["outcomes"] = [
        _drawn_outcome(rng, agent) for agent in names if rng.random() < 0.5 for _ in range(rng.randint(1, 12))
    ]
    figures = _usual_figures(made, embed)
    unmatched = 0
    while len(made["cases"]) < count:
        case = _drawn_case(rng, f"case {len(made['cases']) + 1:02}", figures, names)
        group = group_of({**made, "cases": [case]})
        oracle = Oracle(group, embed)
        answer = oracle.decide(group.cases[0])
        if oracle.closest < CLOSE or (answer is None and unmatched >= max(1, count // 8)):
            continue
        unmatched += answer is None
        made["cases"].append(case)
    return made


def _drawn_agent(rng: random.Random, name: str) -> dict[str, Any]:
    quality = 0.4 + 0.58 * rng.random()
    dear = 10 ** (4.0 * quality - 3.0 + rng.uniform(-0.7, 0.7))  # the better, the dearer, as a rule
    prices: Callable[[], dict[str, float]] = rng.choice([
        lambda: {"input_cost_per_token": _digits(dear * 1e-6), "output_cost_per_token": _digits(dear * 4e-6)},
        lambda: {"input_cost_per_token": _digits(dear * 1e-6), "output_cost_per_token": _digits(dear * 5e-6),
                 "cached_input_cost_per_token": _digits(dear * 1e-7)},
        lambda: {"cost_per_request": _digits(dear * 1e-3)},
        lambda: {"cost_per_call": _digits(dear * 8e-4), "monthly_fixed_cost": 50.0},
        lambda: {"cost_per_1k_tokens": _digits(dear * 2e-3)},
        lambda: {"cost_per_second": _digits(dear * 5e-4)},
        dict,
    ])  # fmt: skip
    made: dict[str, Any] = {"name": name, "capabilities": rng.sample(SKILLS, rng.randint(0, 3)), **prices()}
    if rng.random() < 0.9:
        made["quality_score"] = round(quality, 3)
    if rng.random() < 0.85:
        made["avg_latency_ms"] = _digits(10 ** rng.uniform(1.7, 3.9))
    if rng.random() < 0.3:
        made["expected_output_tokens"] = rng.randint(20, 2000)
    if rng.random() < 0.1:
        made["is_active"] = False
    if rng.random() < 0.2:
        made["embedding"] = _drawn_vector(rng)
    return made


def _drawn_vector(rng: random.Random) -> dict[str, float]:
    return {str(p): round(rng.uniform(-1, 1), 3) or 1.0 for p in sorted(rng.sample(range(DIM), 8))}


def _drawn_outcome(rng: random.Random, name: str) -> dict[str, Any]:
    outcome: dict[str, Any] = {"name": name}
    if rng.random() < 0.8:
        outcome["quality"] = rng.choice([0.0, 0.25, 0.5, 0.7, 0.85, 1.0, round(rng.random(), 3)])
    if rng.random() < 0.7:
        outcome["latency_ms"] = _digits(10 ** rng.uniform(1.7, 3.9))
    if rng.random() < 0.15:
        outcome["success"] = False
    return outcome


def _usual_figures(made: dict[str, Any], embed: Embed) -> dict[str, list[float]]:
    agents = Oracle(group_of(made), embed).agents.values()
    costs = [a.cost(100.0, 0.0, None) for a in agents]
    return {
        "cost": sorted(c for c in costs if c is not None) or [0.01],
        "latency": sorted(a.latency_ms for a in agents if a.latency_ms is not None) or [100.0],
        "quality": sorted(a.quality for a in agents),
    }


def _drawn_case(rng: random.Random, name: str, figures: dict[str, list[float]], names: list[str]) -> dict[str, Any]:
    constraints: dict[str, Any] = {}
    if rng.random() < 0.35:
        constraints["max_cost"] = _digits(rng.choice(figures["cost"]) * rng.uniform(0.7, 1.5))
    if rng.random() < 0.2:
        constraints["budget_remaining"] = _digits(rng.choice(figures["cost"]) * rng.uniform(0.9, 3.0))
    if rng.random() < 0.3:
        constraints["max_latency_ms"] = _digits(rng.choice(figures["latency"]) * rng.uniform(0.8, 1.5))
    if rng.random() < 0.3:
        constraints["min_quality"] = round(rng.choice(figures["quality"]) * rng.uniform(0.75, 0.99), 3)
    if rng.random() < 0.15:
        constraints["required_capabilities"] = [rng.choice([str.lower, str.upper])(rng.choice(SKILLS))]
    if rng.random() < 0.25:
        constraints["excluded_agents"] = rng.sample(names, max(1, len(names) // 4))
    if rng.random() < 0.3:
        constraints["good_enough"] = rng.choice([0.0, 0.5, 0.85, 0.95, 1.0])
    if rng.random() < 0.1:
        constraints["on_no_match"] = "null"
    request: Any = rng.choice(REQUESTS) if rng.random() < 0.7 else _drawn_vector(rng)
    if isinstance(request, str) and rng.random() < 0.25:
        constraints["sizes"] = {"input_tokens": rng.randint(1, 20000), "output_tokens": rng.randint(1, 4000)}
    return special.route(name, request, rng.choice(special.OBJECTIVES), **constraints)


def _digits(value: float) -> float:
    return float(f"{value:.3g}")


def expectation(group: Group, answer: Answer) -> dict[str, Any]:
    """What of an answer stands in the file."""
    if answer is None:
        return {"agent_name": None}
    if "error" in answer:
        return answer
    return {key: answer[key] for key in (FIGURES if group.model is None else (*FIGURES, "model"))}


def closeness(group: Group) -> float:
    """How far from every edge the cases of a group have to be."""
    return CLOSE if group.model is None else CLOSE_WITH_MODEL


def require_agreement(group: Group, case: Case, expected: dict[str, Any], oracle: Oracle) -> None:
    """Stop unless the oracle would choose the same, at a distance from every edge."""
    if "error" in expected and expected["error"] != "no_match":
        return
    second = oracle.decide(case) or {"agent_name": None}
    if second["agent_name"] != expected.get("agent_name"):
        raise SystemExit(f"{case.name}: {expected}, but the oracle says {second}")
    if oracle.closest < closeness(group):
        raise SystemExit(f"{case.name}: a comparison hangs on the last digits ({oracle.closest:.2g})")


def inputs(embed: Embed, shipped: Weights) -> list[dict[str, Any]]:
    """All groups, without expectations."""
    return [*special.groups(), *drawn_groups(embed), *modelled_groups(embed, shipped)]


def read() -> list[dict[str, Any]]:
    """The groups of the file as they stand there."""
    groups: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["groups"]
    return groups


def without_expectations(group: dict[str, Any]) -> dict[str, Any]:
    """A group of the file as it was before its answers were computed."""
    cases = [{key: value for key, value in case.items() if key != "expect"} for case in group["cases"]]
    return {**group, "cases": cases}


def main() -> None:
    """Write the file."""
    embedder = StaticEmbedder()
    embed, shipped = embed_with(embedder), shipped_weights()
    made = inputs(embed, shipped)
    with tempfile.TemporaryDirectory() as folder:
        door = PythonDoor(Path(folder) / "store.db", embedder)
        for given in made:
            group: Group = group_of(given)
            door.prepare(group)
            oracle = Oracle(group, embed, shipped)
            for case, written in zip(group.cases, given["cases"], strict=True):
                written["expect"] = expectation(group, door.answer(group, case))
                require_agreement(group, case, written["expect"], oracle)
        door.close()
    groups = ",\n".join(_group_text(given) for given in made)
    FILE.write_text(f'{{"groups": [\n{groups}\n]}}\n', encoding="utf-8")
    print(f"{sum(len(g['cases']) for g in made)} cases in {len(made)} groups")


def _group_text(given: dict[str, Any]) -> str:
    parts = []
    for key, value in given.items():
        if isinstance(value, list) and value:
            lines = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in value)
            parts.append(f'"{key}": [\n  {lines}\n ]')
        else:
            parts.append(f'"{key}": {json.dumps(value, ensure_ascii=False)}')
    return "{" + ",\n ".join(parts) + "}"


if __name__ == "__main__":
    main()
