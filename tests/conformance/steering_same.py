"""Whether two answers say the same: names and words exactly, figures within a tolerance."""

from __future__ import annotations

import re
from typing import Any

NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")
ONE_OF_MANY = "Route number 1: "
"""How errors of a route begin that came as one of many, as all of them do in SQL."""


def require_same(found: Any, expected: Any, *, figures: float, where: str = "") -> None:
    """Stop unless two answers are the same; `figures` is the tolerance of numbers, relative to what is above 1."""
    if isinstance(expected, dict) and isinstance(found, dict):
        if "message" in expected or "message" in found:
            require_same_error(found, expected)
            return
        assert expected.keys() == found.keys(), (where, sorted(found), sorted(expected))
        for key, value in expected.items():
            require_same(found[key], value, figures=figures, where=f"{where}.{key}")
    elif isinstance(expected, (list, tuple)) and isinstance(found, (list, tuple)):
        assert len(found) == len(expected), (where, found, expected)
        for place, (one, other) in enumerate(zip(found, expected, strict=True)):
            require_same(one, other, figures=figures, where=f"{where}[{place}]")
    elif isinstance(expected, float) or isinstance(found, float):
        assert isinstance(found, (int, float)), (where, found, expected)
        assert isinstance(expected, (int, float)), (where, found, expected)
        assert abs(found - expected) <= figures * max(1.0, abs(expected)), (where, found, expected)
    elif isinstance(expected, str) and isinstance(found, str):
        assert same_text(found, expected), (where, found, expected)
    else:
        assert found == expected, (where, found, expected)


def require_same_error(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Kind, SQLSTATE, words, and the agents that reasons are given for; a door has no word for the one or the other."""
    assert "message" in expected, (found, expected)
    assert "message" in found, (found, expected)
    for key in ("error", "sqlstate"):
        assert found.get(key, expected.get(key)) == expected.get(key, found.get(key)), (found, expected)
    one, other = (error["message"].removeprefix(ONE_OF_MANY) for error in (found, expected))
    assert same_text(one, other), (one, other)
    if expected.get("error") != "no_agents":  # SQL names its own function there
        assert same_text(found["hint"], expected["hint"]), (found["hint"], expected["hint"])
    one, other = (error.get("exclusions", {}) for error in (found, expected))
    assert list(one) == list(other)
    for name, reason in one.items():
        assert same_text(reason, other[name]), (name, reason, other[name])


def same_text(one: str, other: str) -> bool:
    """Equal words, and numbers equal to what they are printed with."""
    numbers = zip(NUMBER.findall(one), NUMBER.findall(other), strict=False)
    return NUMBER.sub("#", one) == NUMBER.sub("#", other) and all(
        x == y or abs(float(x) - float(y)) <= 5e-6 * abs(float(y)) for x, y in numbers
    )
