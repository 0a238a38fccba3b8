"""``tinydancer budgets``: created, spent, changed, looked at."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Run

CREATE = ("budgets", "create", "search", "0.05", "--period", "day", "--key", "team")


def budgets_of(run: Run):
    return json.loads(run("budgets", "list", "--json").stdout)


def test_creating_and_looking(filled: Run):
    assert "no budget yet" in filled("budgets", "list").stderr
    made = filled(
        *CREATE, "--on-limit", "free", "--pacing", "even", "--burst", "1", "--alert-at", "0.9", "--alert-at", "0.5",
        "--time-zone", "Europe/Berlin", "--starts-at", "2026-01-01", "--ends-at", "2999-01-01", "--release-after", "90",
        "--json",
    )  # fmt: skip
    status = json.loads(made.stdout)
    assert status["starts_at"] == "2026-01-01T00:00:00+01:00"
    assert (status["scope"], status["scope_value"], status["period"]) == ("key", "team", "day")
    assert (status["on_limit"], status["alert_at"], status["release_after_s"]) == ("free", [0.5, 0.9], 90.0)
    assert budgets_of(filled) == [status]
    listed = filled("budgets", "list").stdout
    assert "key team" in listed
    assert "0%" in listed
    shown = filled("budgets", "show", "search").stdout
    assert "$0.05 per day" in shown
    assert "Europe/Berlin" in shown
    assert (
        "Created the budget all: $7.00 per 14 days." in filled("budgets", "create", "all", "7", "--period", "14").stderr
    )


def test_routing_spends_it_and_says_when_it_is_gone(filled: Run):
    filled(*CREATE)
    route = ("route", "Prove the theorem.", "--optimize-for", "quality", "--json")
    cost = json.loads(filled(*route, "--key", "team").stdout)["estimated_cost"]
    assert budgets_of(filled)[0]["reserved_usd"] == cost > 0
    filled("budgets", "update", "search", "--amount", str(cost * 1.05))
    refused = filled(*route, "--key", "team", code=5)
    assert "the budget 'search' (key team) has" in refused.stderr
    filled(*route, "--key", "another")
    alerts = json.loads(filled("budgets", "alerts", "--json").stdout)
    assert [(alert["budget"], alert["share"]) for alert in alerts] == [("search", 0.8), ("search", 0.5)]
    filled("budgets", "update", "search", "--amount", "0", "--on-limit", "cheapest")
    assert json.loads(filled(*route, "--key", "team").stdout)["estimated_cost"] <= cost
    assert "search" in filled("budgets", "alerts", "--since", "1 hour").stdout


def test_changing_and_removing(filled: Run):
    filled(*CREATE)
    filled("budgets", "update", "search", "--tag", "x", "--inactive", "--no-alerts", "--period", "total")
    (status,) = budgets_of(filled)
    assert (status["scope"], status["scope_value"], status["is_active"], status["alert_at"]) == ("tag", "x", False, [])
    assert (status["period"], status["period_end"], status["is_open"]) == ("total", None, False)
    assert "(does not hold now)" in filled("budgets", "list").stdout
    assert "Removed the budget search." in filled("budgets", "remove", "search").stderr
    assert budgets_of(filled) == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("create", "b", "-1"), 2, ""),
        (("create", "b", "1", "--period", "fortnight"), 2, "Unknown period 'fortnight'"),
        (("create", "b", "1", "--key", "x", "--tag", "y"), 2, "--key and --tag are given"),
        (("create", "b", "1", "--agent", "smal"), 3, "Did you mean 'small'?"),
        (("create", "b", "1", "--starts-at", "tomorrow"), 2, "expected a time such as"),
        (("create", "Search", "1"), 4, "in capitals only"),
        (("update", "search"), 2, "No change is given"),
        (("update", "search", "--alert-at", "2"), 2, "in [0, 1]"),
        (("show", "serach"), 3, "Did you mean 'search'?"),
        (("alerts", "--since", "soon"), 2, "expected an interval"),
    ],
)
def test_bad_input(filled: Run, arguments, code, says):
    filled(*CREATE)
    assert says in filled("budgets", *arguments, code=code).stderr
    assert len(budgets_of(filled)) == 1
