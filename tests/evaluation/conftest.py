"""A table of made-up requests: sums, letters and riddles, three agents that are good at different ones."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer.tables import OutcomeTable

KINDS = {"sums": "What is {a} plus {b} times {a}?", "letters": "Write letter number {a} to my aunt in street {b}.",
         "riddles": "Riddle {a}: which animal walks on {b} legs at noon?"}  # fmt: skip
SKILL = {"cheap": (0.9, 0.4, 0.1), "middle": (0.5, 0.9, 0.3), "strong": (0.9, 0.85, 0.8)}
COST_USD = {"cheap": 0.001, "middle": 0.004, "strong": 0.02}


def made_up(n=240, seed=0, *, agents=tuple(SKILL), costs=True, holes=0.0):
    """Outcomes drawn from `SKILL`, which depends on the kind of the request only."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, n)
    names = list(KINDS)
    texts = tuple(KINDS[names[k]].format(a=i, b=rng.integers(2, 999)) for i, k in enumerate(kinds))
    skill = np.array([SKILL[agent] for agent in agents]).T[kinds]
    quality = (rng.random(skill.shape) < skill).astype(np.float32)
    cost = np.array([COST_USD[agent] for agent in agents]) * rng.uniform(0.5, 1.5, skill.shape)
    holes_at = rng.random(skill.shape) < holes
    holes_at[:, -1] = False
    quality[holes_at] = np.nan
    cost[holes_at] = np.nan
    return OutcomeTable(
        tuple(f"r{seed}-{i}" for i in range(n)), tuple(names[k] for k in kinds), texts, tuple(agents), quality,
        cost.astype(np.float32) if costs else np.full_like(quality, np.nan),
    )  # fmt: skip


def vectors_of(table):
    """The kind as a direction, with noise: what an embedder would say."""
    rng = np.random.default_rng(len(table))
    base = np.eye(6, dtype=np.float32)[[list(KINDS).index(task) for task in table.tasks]]
    noisy = base + 0.2 * rng.normal(size=base.shape).astype(np.float32)
    return noisy / np.linalg.norm(noisy, axis=1, keepdims=True)


def truth_of(table):
    """The skill behind the outcomes: the best prediction there can be."""
    kinds = [list(KINDS).index(task) for task in table.tasks]
    return np.array([SKILL[agent] for agent in table.agents]).T[kinds]


@pytest.fixture
def table():
    return made_up()
