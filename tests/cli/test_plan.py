"""``tinydancer plan``: tables for people, JSON for programs, errors that say what would do."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Run

LINES = "Say good morning to the team.\nProve that the square root of two is irrational.\nTranslate yes into Dutch.\n"


def test_a_team_as_a_table(filled: Run) -> None:
    shown = filled("plan", "agents", "Build and deploy a web application", "-n", "3").stdout
    lines = shown.splitlines()
    assert [line.split()[1] for line in lines[2:5]] == ["plan", "carry", "review"]
    assert "pipeline as a whole" in shown


def test_a_team_as_json(filled: Run) -> None:
    rows = json.loads(
        filled("plan", "agents", "Write a poem.", "-s", "ensemble", "-n", "2", "--budget", "1", "--json").stdout
    )
    assert {row["agent_name"] for row in rows} == {"small", "large"}  # what mystery costs, nobody knows
    assert rows[0]["strategy"] == "ensemble"
    recorded = json.loads(filled("decisions", "--json").stdout)
    assert {row["decision_id"] for row in recorded} == {row["decision_id"] for row in rows}


def test_stages_are_given_one_by_one(filled: Run) -> None:
    rows = json.loads(
        filled("plan", "agents", "A report", "--stage", "Find the facts.", "--stage", "Write them up.", "--json").stdout
    )
    assert [row["role"] for row in rows] == ["Find the facts.", "Write them up."]


def test_a_cascade(filled: Run) -> None:
    shown = filled(
        "plan", "agents", "-", "-s", "cascade", "--quality-target", "0.85", input="Think hard.\n"
    ).stdout  # fmt: skip
    first, second = shown.splitlines()[2:4]
    assert "small" in first
    assert "100%" in first
    assert "large" in second


def test_a_batch_as_a_table(filled: Run, tmp_path) -> None:
    path = tmp_path / "requests.txt"
    path.write_text(LINES)
    shown = filled("plan", "batch", str(path), "--min-mean-quality", "0.8").stdout
    assert len([line for line in shown.splitlines() if line.lstrip().startswith(("1 ", "2 ", "3 "))]) == 3
    assert "the whole batch" in shown
    assert "a mean quality of 0.800" in shown
    assert "proven optimal" in shown


def test_a_batch_as_json(filled: Run) -> None:
    given = '{"request": "Say good morning."}\n\nProve it.\n'
    plan = json.loads(filled("plan", "batch", "-", "--capacity", "small=1", "--json", input=given).stdout)
    assert plan["requests"] == 2
    assert plan["requests_per_agent"] == {"large": 1, "small": 1}
    assert [d["objective"] for d in plan["decisions"]] == ["total_cost"] * 2
    assert plan["total_cost"] == pytest.approx(sum(d["estimated_cost"] for d in plan["decisions"]))


def test_a_batch_for_a_budget(filled: Run) -> None:
    plan = json.loads(filled("plan", "batch", "-", "--budget", "0.005", "--json", input=LINES).stdout)
    assert plan["total_cost"] <= 0.005 * (1 + 1e-9)
    assert plan["quality_floor"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("batch", "-", "--budget", "0.0000001"), "the cheapest assignment costs $"),
        (("batch", "-", "--min-mean-quality", "0.999"), "the most is 0."),
        (("batch", "-", "--capacity", "small=0", "--capacity", "large=1"), "without an agent"),
        (("agents", "-", "-s", "cascade", "--quality-target", "0.999"), "the best reaches"),
    ],
)
def test_what_cannot_be_says_what_can(filled: Run, arguments, message) -> None:
    result = filled("plan", *arguments, input=LINES, code=5)
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("batch", "-", "--capacity", "small"), "expected NAME=N"),
        (("agents", "-", "-s", "swarm"), "Unknown strategy"),
        (("agents", "-", "-n", "0"), "num_agents is 0"),
        (("budget", "0"), "monthly_budget is 0"),
        (("budget", "10", "--quality", "3"), "quality_threshold"),
    ],
)
def test_what_cannot_be_used(filled: Run, arguments, message) -> None:
    assert message in filled("plan", *arguments, input=LINES, code=2).stderr


def test_an_empty_file(filled: Run) -> None:
    assert "The batch is empty" in filled("plan", "batch", "-", input="\n\n", code=2).stderr
    assert 'no text under the key "request"' in filled("plan", "batch", "-", input='{"a": 1}\n', code=2).stderr


def test_a_budget(filled: Run) -> None:
    result = filled("plan", "budget", "100", "--quality", "0.7")
    assert "No traffic is recorded" in result.stderr
    assert "$100.00 a month" in result.stdout
    assert "mystery" in result.stdout
    filled("route", "--batch", "-", input=LINES)
    plan = json.loads(filled("plan", "budget", "100", "--quality", "0.9", "--json").stdout)
    assert plan["observed_decisions"] == 3
    assert plan["total_budget"] == 100.0
    assert sum(plan["shares"].values()) == pytest.approx(1.0)
    rate = json.loads(filled("plan", "budget", "100", "--requests-per-month", "5000", "--json").stdout)
    assert rate["requests_per_month"] == 5000


def test_strategies_are_completed() -> None:
    from tinydancer.cli.plan import complete_strategy

    assert complete_strategy("p") == ["pipeline", "parallel"]


def test_plans_say_whose_requests_they_are(filled: Run) -> None:
    whose = ("--key", "team-a", "--tag", "search", "--tag", "nightly", "--task", "summary", "--route-name", "support")
    filled("plan", "agents", "Write a poem.", "-s", "parallel", "-n", "2", *whose)
    filled("plan", "batch", "-", *whose, input="Say good morning.\n")
    recorded = json.loads(filled("decisions", "--json").stdout)
    assert len(recorded) == 3
    assert all(
        row["context"] == {"key": "team-a", "tags": ["search", "nightly"], "task": "summary", "route_name": "support"}
        for row in recorded
    )
    # The budget of a key holds for plans, too.
    filled("budgets", "create", "little", "0.0001", "--key", "team-a")
    filled("plan", "batch", "-", *whose, input="Say good morning.\n", code=5)
    filled("plan", "batch", "-", "--key", "team-b", input="Say good morning.\n")
