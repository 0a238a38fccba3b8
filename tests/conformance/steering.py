"""The steering cases as objects: routes, classes, teams, batches, budgets. In: steering.json. Out: scenes of cases.

A scene is a tenant of its own: what is prepared, then the cases in their order, each one call. Unlike the cases of
`tests.conformance.cases` they may change something, so a door goes through a scene from its beginning. Time stands
still in a case: every door is told what its clock shows. Vectors and long texts are written as in ``cases.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.cases import config_of, text_of, vector_of

FILE = Path(__file__).with_name("steering.json")
NOON = 1_789_992_000.0
"""Monday, 21 September 2026, 12:00:00 UTC: what clocks show where a scene does not say."""
LOOKS = (
    "match", "classify", "list_routes", "team", "assign", "optimize_budget", "list_budgets", "budget_alerts", "route",
    "report",
)  # fmt: skip
"""Calls whose answer says something; the others answer that it is done."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call, what it is given, and the time at which it comes."""

    call: str
    given: dict[str, Any]
    clock: float


@dataclass(frozen=True, slots=True)
class Case(Step):
    """A call and what every door must answer; nothing where that changes with the weights of a model."""

    name: str
    expect: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scene:
    """What is prepared for a tenant, and its cases."""

    name: str
    kind: str
    prepare: list[Step]
    cases: list[Case]


def scene_of(given: dict[str, Any]) -> Scene:
    """A scene from its JSON object."""
    clock = given.get("clock", NOON)
    return Scene(
        given["name"], given["kind"],
        [Step(step["call"], _arguments(step["given"]), step.get("clock", clock)) for step in given["prepare"]],
        [
            Case(
                call=case["call"], given=_arguments(case["given"]), clock=case.get("clock", clock),
                name=f"{given['name']}/{case['name']}", expect=case.get("expect", {}),
            )
            for case in given["cases"]
        ],
    )  # fmt: skip


def read() -> list[dict[str, Any]]:
    """The scenes of the file as they stand there."""
    scenes: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["scenes"]
    return scenes


def load() -> list[Scene]:
    """All scenes of the file."""
    return [scene_of(given) for given in read()]


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    made = dict(given)
    if "embedding" in made:
        made["embedding"] = vector_of(made["embedding"])
    if "embeddings" in made:
        made["embeddings"] = [vector_of(row) for row in made["embeddings"]]
    if isinstance(made.get("request"), dict):
        made["request"] = text_of(made["request"])
    for key in ("config", "changes"):
        if isinstance(made.get(key), dict):
            made[key] = config_of(made[key])
    return made
