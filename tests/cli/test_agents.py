"""``tinydancer agents``: what is registered is listed, changed, found, exported and removed as it was said."""

from __future__ import annotations

import json
from typing import Any

import pytest


def names(run) -> list[str]:
    return [record["name"] for record in json.loads(run("agents", "list", "--json").stdout)]


def shown(run, name: str) -> Any:
    return json.loads(run("agents", "show", name, "--json").stdout)


def test_add_takes_every_field(run):
    run(
        "agents", "add", "everything", "--type", "Vision", "-c", "charts", "-c", "scans", "-d", "Reads pictures.",
        "--metadata", '{"team": "search"}', "--latency-ms", "420", "--quality", "0.5", "--output-tokens", "77",
        "--cost-per-request", "0.01", "--cost-per-call", "0.02", "--cost-per-second", "0.001",
        "--monthly-fixed-cost", "20", "--input-cost-per-token", "0.000003", "--output-cost-per-token", "0.000004",
        "--cached-input-cost-per-token", "0.000001",
    )  # fmt: skip
    record = shown(run, "everything")
    assert record["agent_type"] == "vision"
    assert record["capabilities"] == ["charts", "scans"]
    assert record["metadata"] == {"team": "search", "description": "Reads pictures."}
    assert (record["avg_latency_ms"], record["quality_score"], record["expected_output_tokens"]) == (420, 0.5, 77)
    assert record["cost_model"] == {
        "cost_per_request": 0.01, "cost_per_call": 0.02, "cost_per_second": 0.001, "monthly_fixed_cost": 20.0,
        "input_cost_per_token": 3e-6, "output_cost_per_token": 4e-6, "cached_input_cost_per_token": 1e-6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "field"),
    [("--cost-per-token", "cost_per_token"), ("--cost-per-1k-tokens", "cost_per_1k_tokens")],
)
def test_add_takes_a_blended_price(run, option, field):
    run("agents", "add", "blended", option, "0.002")
    assert shown(run, "blended")["cost_model"] == {field: 0.002}


def test_prices_per_million_are_prices_per_token(run):
    run("agents", "add", "a", "--input-per-1m", "3", "--output-per-1m", "15", "--cached-input-per-1m", "0.3")
    prices = shown(run, "a")["cost_model"]
    assert prices["input_cost_per_token"] == pytest.approx(3e-6, rel=1e-12)
    assert prices["output_cost_per_token"] == pytest.approx(15e-6, rel=1e-12)
    assert prices["cached_input_cost_per_token"] == pytest.approx(0.3e-6, rel=1e-12)


def test_an_unknown_price_is_said_and_is_no_free_one(run):
    assert "cost is unknown" in run("agents", "add", "mystery").stderr
    assert "cost is unknown" not in run("agents", "add", "free", "--cost-per-request", "0").stderr
    table = run("agents", "list").stdout
    row = {line.split()[0]: line.split()[2] for line in table.splitlines()[2:]}
    assert row == {"mystery": "unknown", "free": "free"}


def test_update_changes_what_is_named_and_nothing_else(filled):
    before = shown(filled, "small")
    filled("agents", "update", "small", "--input-per-1m", "0.30", "-d", "Short answers.")
    after = shown(filled, "small")
    assert after["cost_model"] == {**before["cost_model"], "input_cost_per_token": pytest.approx(0.3e-6)}
    assert after["metadata"] == {"description": "Short answers."}
    same = ("capabilities", "avg_latency_ms", "quality_score", "agent_type", "is_active")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}


def test_a_description_joins_the_metadata_that_is_there(run):
    run("agents", "add", "a", "--metadata", '{"team": "search"}')
    run("agents", "update", "a", "-d", "Finds things.")
    assert shown(run, "a")["metadata"] == {"team": "search", "description": "Finds things."}


def test_remove_asks_and_takes_no_for_an_answer(filled):
    for answer in ("n\n", "", "\n"):
        assert "nothing was removed" in filled("agents", "remove", "small", input=answer, code=2).stderr
    assert "small" in names(filled)
    filled("agents", "remove", "small", input="y\n")
    assert names(filled) == ["large", "mystery"]
    filled("agents", "remove", "large", "--yes")
    assert names(filled) == ["mystery"]


def test_an_agent_that_is_not_active_is_not_chosen(filled):
    filled("agents", "deactivate", "small")
    assert [r["name"] for r in json.loads(filled("agents", "list", "--active", "--json").stdout)] == [
        "large",
        "mystery",
    ]
    assert json.loads(filled("route", "Hello", "-o", "cost", "--json").stdout)["agent_name"] == "large"
    assert json.loads(filled("agents", "activate", "small", "--json").stdout)["is_active"] is True
    assert json.loads(filled("route", "Hello", "-o", "cost", "--json").stdout)["agent_name"] == "small"


def test_find_names_exact_matches_first_then_near_ones(filled):
    found = json.loads(filled("agents", "find", "CHAT", "--json").stdout)
    assert (found[0]["name"], found[0]["exact"], found[0]["similarity"]) == ("small", True, 1.0)
    assert [match["exact"] for match in found] == [True, False, False]
    assert [m["name"] for m in json.loads(filled("agents", "find", "chat", "--exact", "--json").stdout)] == ["small"]
    assert json.loads(filled("agents", "find", "programming", "-n", "1", "--json").stdout)[0]["name"] == "large"
    assert "No active agent" in filled("agents", "find", "haikus", "--exact").stderr


def test_show_for_people_names_everything_stated(filled):
    text = filled("agents", "show", "small").stdout
    assert text.splitlines()[0] == "small"
    for part in ("chat, translation", "350 ms", "0.78", "per 1M tokens", "none yet"):
        assert part in text


def test_a_table_that_is_no_terminal_is_neither_cut_nor_padded(run):
    long = "a" * 200
    run("agents", "add", long, "-c", "b" * 200)
    lines = run("agents", "list").stdout.splitlines()
    assert long in lines[2]
    assert "b" * 200 in lines[2]
    assert all(line == line.rstrip() and "\x1b" not in line for line in lines)


def test_control_characters_do_not_reach_the_terminal(run):
    run("agents", "add", "a", "-d", "red \x1b[31m \x9b alert")
    assert "\x1b" not in run("agents", "show", "a").stdout
    assert "\x9b" not in run("agents", "show", "a").stdout
    assert shown(run, "a")["metadata"]["description"] == "red \x1b[31m \x9b alert"


def test_looking_makes_no_file(run, store):
    assert run("agents", "list", "--json").stdout == "[]\n"
    assert "does not exist yet" in run("agents", "list").stderr
    assert run("--quiet", "agents", "list").stderr == ""
    run("agents", "show", "nobody", code=3)
    run("route", "Hello", code=5)
    assert not store.exists()


BAD = {
    "the name of another": (["agents", "add", "small"], 4, "small"),
    "no name": (["agents", "add", ""], 2, "empty"),
    "a blank name": (["agents", "add", "  "], 2, "empty"),
    "a name of 10,000 characters": (["agents", "add", "n" * 10_000], 2, "10,000 characters"),
    "a name with a line feed": (["agents", "add", "a\nb"], 2, "control characters"),
    "quality above 1": (["agents", "add", "a", "--quality", "1.5"], 2, "[0, 1]"),
    "quality NaN": (["agents", "add", "a", "--quality", "nan"], 2, "nan"),
    "quality in words": (["agents", "add", "a", "--quality", "good"], 2, "'good' is not a valid float"),
    "a negative price": (["agents", "add", "a", "--cost-per-request", "-1"], 2, "cost_per_request is -1.0"),
    "a negative price per million": (["agents", "add", "a", "--input-per-1m", "-1"], 2, "--input-per-1m is -1.0"),
    "an absurd price": (["agents", "add", "a", "--cost-per-call", "1e9"], 2, "cost_per_call"),
    "an infinite price": (["agents", "add", "a", "--output-per-1m", "inf"], 2, "--output-per-1m is inf"),
    "the same price twice": (
        ["agents", "add", "a", "--input-per-1m", "3", "--input-cost-per-token", "0.1"], 2, "--input-cost-per-token"
    ),
    "two prices for a token": (
        ["agents", "add", "a", "--cost-per-token", "1", "--cost-per-1k-tokens", "1"], 2, "one price"
    ),
    "metadata that is no JSON": (["agents", "add", "a", "--metadata", "{"], 2, "line 1, column 2"),
    "metadata that is a list": (["agents", "add", "a", "--metadata", "[1]"], 2, "JSON object"),
    "metadata that is a list, described": (["agents", "add", "a", "--metadata", "[1]", "-d", "x"], 2, "JSON object"),
    "metadata with NaN": (["agents", "add", "a", "--metadata", '{"x": NaN}'], 2, "NaN"),
    "nobody to show": (["agents", "show", "smal"], 3, "Did you mean 'small'?"),
    "nobody to update": (["agents", "update", "nobody", "--quality", "0.5"], 3, "nobody"),
    "nothing to update": (["agents", "update", "small"], 2, "Nothing to change"),
    "nobody to remove": (["agents", "remove", "nobody"], 3, "nobody"),
    "nobody to activate": (["agents", "activate", "nobody"], 3, "nobody"),
    "a negative limit": (["agents", "find", "chat", "-n", "-1"], 2, "-1"),
    "no command": (["agents", "ad"], 2, "No such command 'ad'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_nothing_is_written(filled, case):
    args, code, expected = BAD[case]
    before = filled("agents", "export").stdout
    result = filled(*args, code=code)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert filled("agents", "export").stdout == before


@pytest.mark.parametrize(
    "name", ["x'; DROP TABLE agents; --", '"; rm -rf ~; echo "', "$(reboot)", "-", "ünï", "a.b/c:d"]
)
def test_names_are_names_whatever_they_look_like(filled, name):
    filled("agents", "add", "--cost-per-request", "0", "--", name)
    assert shown(filled, name)["name"] == name
    filled("agents", "remove", "--yes", "--", name)
    assert names(filled) == ["large", "mystery", "small"]
