"""Candidate sets with known answers, made from the written texts in ``evals/candidates``.

In: a file of queries, each with the memory that answers it, one that has been superseded, and a near miss; a seed. Out:
sets of candidates as a router would see them, and which of them answer. The texts were written; how old, how often used
and how successful a memory is, and what its metadata says, is drawn. ``evals/candidates/README.md`` says from what.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinydancer.embedding.static import StaticEmbedder
from tinydancer.model.candidate_training import LabelledCandidates
from tinydancer.model.features import FeatureEngineer
from tinydancer.types import Candidate
from tinydancer.validation import FloatVector

FOLDER = Path(__file__).resolve().parent.parent / "evals" / "candidates"
TRAIN, TEST = FOLDER / "train.tsv", FOLDER / "test.tsv"
HEADER = ["topic", "query", "answer", "superseded", "near_miss"]
NOW = 1_750_000_000.0
SETS_PER_QUERY = 8
USERS = ("ada", "ben", "cleo", "dov")


@dataclass(frozen=True, slots=True)
class Kind:
    """How memories of one kind look to a router.

    Attributes
    ----------
    age_days, age_spread
        Median age, and the standard deviation of its logarithm.
    uses, uses_spread
        Median number of uses, and the same.
    unused
        Share that nobody has used yet.
    success
        Parameters of the Beta distribution of the true success rate; the observed one counts the uses.
    same_user
        Share that belongs to the user who asks.
    """

    age_days: float
    age_spread: float
    uses: float
    uses_spread: float
    unused: float
    success: tuple[float, float]
    same_user: float


ANSWER = Kind(20, 1.5, 10, 1.2, 0.30, (12, 2), 0.8)
SUPERSEDED = Kind(250, 0.9, 20, 1.2, 0.05, (5, 4), 0.8)
NEAR_MISS = Kind(60, 1.5, 8, 1.2, 0.20, (6, 3), 0.8)
POPULAR = Kind(15, 1.5, 150, 0.9, 0.00, (14, 2), 0.4)
UNRELATED = Kind(60, 1.6, 6, 1.3, 0.20, (6, 3), 0.4)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A query and the written memories about it."""

    topic: str
    query: str
    answer: str
    superseded: str
    near_miss: str


def read_scenarios(path: Path) -> list[Scenario]:
    """The rows of a file."""
    header, *lines = path.read_text("utf-8").splitlines()
    if header.split("\t") != HEADER:
        raise SystemExit(f"{path}: the first line is {header!r}; expected {HEADER}.")
    return [Scenario(*line.split("\t")) for line in lines]


def labelled_sets(path: Path, seed: int, *, alike: bool = False) -> list[LabelledCandidates]:
    """`SETS_PER_QUERY` sets for every query of a file, the features by the default `FeatureEngineer`.

    `alike` draws age, use, success and owner of all memories as of unrelated ones, so that they say nothing.
    """
    scenarios = read_scenarios(path)
    texts = [text for s in scenarios for text in (s.query, s.answer, s.superseded, s.near_miss)]
    vectors = dict(zip(texts, StaticEmbedder().embed(texts).vectors, strict=True))
    engineer = FeatureEngineer()
    rng = np.random.default_rng(seed)
    sets = []
    for number, scenario in enumerate(scenarios):
        others = scenarios[:number] + scenarios[number + 1 :]
        for _ in range(SETS_PER_QUERY):
            user = str(rng.choice(USERS))
            members = list(_members(scenario, others, rng))
            candidates = [
                _candidate(f"c{i}", vectors[text], topic, UNRELATED if alike else kind, user, rng)
                for i, (text, topic, kind) in enumerate(members)
            ]
            metadata = {"user": user, "topic": scenario.topic} if rng.random() < 0.6 else None
            features = engineer.extract_batch(vectors[scenario.query], candidates, metadata, now=NOW)
            relevant = np.array([float(text == scenario.answer) for text, _, _ in members])
            sets.append(LabelledCandidates(scenario.query, features, relevant))
    return sets


def _members(scenario: Scenario, others: list[Scenario], rng: np.random.Generator) -> Iterator[tuple[str, str, Kind]]:
    """Text, topic and kind of each memory in one set; nothing may answer at all, and often an old answer is around."""
    for text, kind, share in (
        (scenario.answer, ANSWER, 0.85),
        (scenario.superseded, SUPERSEDED, 0.6),
        (scenario.near_miss, NEAR_MISS, 0.8),
    ):
        if rng.random() < share:
            yield text, scenario.topic, kind
    chosen = rng.permutation(len(others))[: int(rng.integers(8, 28))]
    for place, i in enumerate(chosen.tolist()):
        other = others[i]
        text = (other.answer, other.near_miss, other.superseded)[int(rng.integers(3))]
        yield text, other.topic, POPULAR if place < 2 else UNRELATED


def _candidate(
    name: str, vector: FloatVector, topic: str, kind: Kind, user: str, rng: np.random.Generator
) -> Candidate:
    age_s = 86_400.0 * math.exp(rng.normal(math.log(kind.age_days), kind.age_spread))
    uses = 0 if rng.random() < kind.unused else 1 + int(math.exp(rng.normal(math.log(kind.uses), kind.uses_spread)))
    good = int(rng.binomial(uses, rng.beta(*kind.success)))
    owner = user if rng.random() < kind.same_user else str(rng.choice([u for u in USERS if u != user]))
    return Candidate(
        id=name,
        embedding=vector,
        metadata={"user": owner, "topic": topic},
        created_at=max(0.0, NOW - age_s),
        access_count=uses,
        success_rate=good / uses if uses else 0.0,
    )
