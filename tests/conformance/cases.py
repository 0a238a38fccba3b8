"""The conformance cases as objects. In: cases.json. Out: groups, each with its agents, what became of them, its cases.

Cases that share their agents stand in one group, so that a door registers them once. Two notations keep the file
readable: a vector may be an object of positions and values, the other numbers of its 384 being 0; a text may be an
object with ``text`` and how many ``times`` it is repeated.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("cases.json")
DIM = 384
JUDGED = "A request whose answer somebody judged."
"""What an outcome of a decision was an answer to, where it does not say."""


@dataclass(frozen=True, slots=True)
class Group:
    """Agents, the outcomes reported of them, the changes made to them after that, and the cases to replay on them.

    ``model`` names the model that is put to use before all that; None: none.
    """

    name: str
    model: str | None
    agents: list[dict[str, Any]]
    outcomes: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    cases: list[Case]


@dataclass(frozen=True, slots=True)
class Case:
    """One call and what it must answer; ``call`` is ``route`` or the name of another operation, which must fail."""

    name: str
    call: str
    arguments: dict[str, Any]
    expect: dict[str, Any]

    @property
    def request(self) -> str | None:
        return text_of(self.arguments.get("request"))

    @property
    def embedding(self) -> list[Any] | None:
        return vector_of(self.arguments.get("embedding"))

    @property
    def objective(self) -> Any:
        return self.arguments.get("objective", "balanced")

    @property
    def constraints(self) -> Any:
        return self.arguments.get("constraints", {})

    @property
    def sizes(self) -> dict[str, float]:
        sizes: dict[str, float] = self.arguments.get("sizes", {})
        return sizes


def vector_of(given: Any) -> list[Any] | None:
    """A vector written as a list or as an object of positions and values; ``"NaN"`` and ``"Infinity"`` are numbers."""
    if isinstance(given, dict):
        vector = [0.0] * DIM
        for position, value in given.items():
            vector[int(position)] = float(value)
        return vector
    return None if given is None else list(given)


def text_of(given: Any) -> str | None:
    """A text written out or as something repeated."""
    if isinstance(given, dict):
        repeated: str = given["text"]
        return repeated * int(given["times"])
    return None if given is None else str(given)


def config_of(agent: dict[str, Any]) -> dict[str, Any]:
    """An agent's fields as ``ruvector_register_agent_full`` takes them."""
    return {**agent, "embedding": vector_of(agent["embedding"])} if "embedding" in agent else agent


def group_of(given: dict[str, Any]) -> Group:
    """A group from its JSON object."""
    cases = [
        Case(
            name=f"{given['name']}/{case['name']}", call=case.get("call", "route"), expect=case.get("expect", {}),
            arguments=case.get("arguments", case),
        )
        for case in given["cases"]
    ]  # fmt: skip
    return Group(
        given["name"], given.get("model"), [config_of(a) for a in given["agents"]], given.get("outcomes", []),
        given.get("changes", []), cases,
    )  # fmt: skip


def load() -> list[Group]:
    """All groups of the file."""
    return [group_of(group) for group in json.loads(FILE.read_text(encoding="utf-8"))["groups"]]


def close(a: Any, b: Any, *, rel: float, absolute: float = 0.0) -> bool:
    """Whether two numbers are equal within a tolerance; None equals None only."""
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=rel, abs_tol=absolute)
