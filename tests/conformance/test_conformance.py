"""One file of cases, replayed through every door: the same decisions, the same errors."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from tests.conformance import generate
from tests.conformance.cases import Case, Group, close, load
from tests.conformance.doors import Answer, can_say
from tests.conformance.oracle import Oracle
from tests.conformance.weights import Weights

GROUPS = load()
CASES = [(group, case) for group in GROUPS for case in group.cases]
DOORS = ("python-sqlite", "python-postgres", "sql", "sql-jsonb", "cli")
# The third part of the texts and of the errors, since each takes a start of the whole program.
COMMANDS = [pair for pair in CASES if can_say("cli", pair[1])][::3]

EXACT = 1e-9
"""Relative; sums of a few float64."""
MATCHED = 1e-6
"""Absolute; figures that hang on a product of float32 vectors, whose last digits differ between processors."""
PREDICTED = 2e-6
"""Absolute; what a network of float32 predicts."""
RUN = "The shipped weights are others than those of cases.json. Run: python -m tests.conformance.generate"
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")


def asked(door: str) -> list[tuple[Group, Case]]:
    """The cases that go through a door."""
    return COMMANDS if door == "cli" else [pair for pair in CASES if can_say(door, pair[1])]


def parameters() -> list[Any]:
    return [
        pytest.param(door, group, case, id=f"{door}: {case.name}",
                     marks=[pytest.mark.postgres] if "postgres" in door or "sql-" in door or door == "sql" else [])
        for door in DOORS
        for group, case in asked(door)
    ]  # fmt: skip


@pytest.mark.parametrize(("door", "group", "case"), parameters())
def test_every_door_answers_as_the_file_says(open_door, door, group, case):
    answer = open_door(door).answer(group, case)
    require_as_expected(answer, case.expect, door)
    if door != "python-sqlite":
        require_same(answer, open_door("python-sqlite").answer(group, case))


def require_as_expected(answer: Answer, expect: dict[str, Any], door: str) -> None:
    """The answer against the file: names, codes and words exactly, figures within their tolerance."""
    if "error" in expect:
        assert answer is not None
        assert "error" in answer or "sqlstate" in answer, f"an error was expected: {expect}"
        for key in ("error", "sqlstate"):
            assert answer.get(key, expect[key]) == expect[key]
        assert same_text(answer["message"], expect["message"]), (answer["message"], expect["message"])
        if expect["error"] != "no_agents" or not door.startswith("sql"):  # SQL names its own function there
            assert answer["hint"] == expect["hint"]
        reasons, expected = answer.get("exclusions", {}), expect.get("exclusions", {})
        assert list(reasons) == list(expected)
        for name, reason in reasons.items():
            assert same_text(reason, expected[name]), (name, reason, expected[name])
        return
    assert (answer or {"agent_name": None}).get("agent_name", answer) == expect["agent_name"]
    require_figures(answer or {}, expect)


def require_figures(found: dict[str, Any], expect: dict[str, Any]) -> None:
    """Every figure of the file."""
    absolute = PREDICTED if "model" in expect else MATCHED
    assert "model" not in expect or found["model"] == expect["model"]
    for key in set(expect) - {"agent_name", "model"}:
        tolerance = {"rel": EXACT} if key.startswith("estimated") else {"rel": 0.0, "absolute": absolute}
        assert close(found[key], expect[key], **tolerance), (key, found[key], expect[key])


def require_same(answer: Answer, reference: Answer) -> None:
    """The answers of two doors in this run, with the reasons and the runners-up, which the file does not hold."""
    if answer is None or reference is None or "agent_name" not in reference:
        return  # nothing that the file does not hold
    assert {k: answer[k] for k in ("objective", "model")} == {k: reference[k] for k in ("objective", "model")}
    assert same_text(answer["reasoning"], reference["reasoning"])
    assert len(answer["alternatives"]) == len(reference["alternatives"])
    for a, b in zip(answer["alternatives"], reference["alternatives"], strict=True):
        assert a["agent_name"] == b["agent_name"]
        assert same_text(a["reason"], b["reason"])
        for key in ("estimated_cost", "estimated_latency_ms"):
            assert close(a[key], b[key], rel=EXACT)
        for key in ("expected_quality", "similarity_score"):
            assert close(a[key], b[key], rel=0.0, absolute=MATCHED)


def same_text(a: str, b: str) -> bool:
    """Equal words, and numbers equal to what they are printed with: 1 for a column of numbers is 1.0 for an option."""
    numbers = zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=False)
    return _NUMBER.sub("#", a) == _NUMBER.sub("#", b) and all(
        close(float(x), float(y), rel=5e-6) or x == y for x, y in numbers
    )


@pytest.fixture(scope="module")
def shipped() -> Weights:
    return generate.shipped_weights()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_the_file_says_what_the_formulas_say(static_embedder, shipped, group):
    """Every decision of the file, by the documented formulas one agent after another, without any of our code."""
    oracle = Oracle(group, generate.embed_with(static_embedder), shipped)
    for case in group.cases:
        if case.expect.get("error", "no_match") != "no_match":
            continue
        expected = oracle.decide(case)
        if expected is None:
            assert case.expect.get("error") == "no_match" or case.constraints["on_no_match"] == "null", case.name
            assert case.expect.get("agent_name") is None
            if "error" in case.expect:
                assert list(case.expect["exclusions"]) == sorted(oracle.agents), case.name
            continue
        assert case.expect.get("agent_name") == expected["agent_name"], case.name
        require_figures(case.expect, expected)
    assert oracle.closest >= generate.closeness(group)


def test_the_file_is_of_the_weights_that_are_shipped(shipped):
    """And they decide: for agents that they know, for others, and not for what is no language model."""
    cases = [case for group, case in CASES if group.model is not None]
    assert len(cases) >= 30
    decided = Counter(case.expect["model"] for case in cases)
    assert set(decided) == {shipped.name, None}, RUN
    assert decided[shipped.name] >= 20
    chosen = {case.expect["agent_name"] for case in cases}
    assert chosen & set(shipped.agents)
    assert {name for name in chosen if name.startswith(("newcomer", "learner"))}
    assert len({case.objective for case in cases}) == 5
    assert any(case.request is None for case in cases)


def test_the_file_is_what_its_generator_writes(static_embedder, shipped):
    given = generate.inputs(generate.embed_with(static_embedder), shipped)
    assert [generate.without_expectations(group) for group in generate.read()] == given


def test_there_are_enough_cases_of_every_kind():
    everywhere = [case for _, case in CASES if all(can_say(door, case) for door in DOORS if door != "cli")]
    decided = [case for case in everywhere if case.expect.get("agent_name")]
    failing = [case for case in everywhere if "error" in case.expect]
    assert len(everywhere) >= 200
    assert len(decided) >= 200
    assert len(failing) >= 60
    assert len(COMMANDS) >= 40
    assert len({case.name for _, case in CASES}) == len(CASES)
    assert not [case.name for _, case in CASES if "returned" in case.expect]
    codes = Counter(case.expect["error"] for case in failing)
    assert set(codes) == {
        "already_exists", "invalid_input", "invalid_name", "invalid_text", "invalid_vector", "no_agents", "no_match",
        "not_found", "space_mismatch", "unknown_key", "unknown_objective",
    }  # fmt: skip
    assert len({case.objective for case in decided}) >= 5
    assert {len(group.agents) for group in GROUPS} >= {0, 1, 2, 30}
    assert Counter(case.expect.get("uncertainty") == 1.0 for case in decided)[False] >= 5
