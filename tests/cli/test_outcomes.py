"""``tinydancer feedback``, ``stats``, ``decisions``, ``embed``, ``init``, ``version``, and the global options."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from tinydancer._version import __version__
from tinydancer.cli.output import meter, price
from tinydancer.cli.settings_template import TEMPLATE
from tinydancer.config import EmbedderSettings, Settings, load_settings, parse_settings
from tinydancer.service import TinyDancer
from tinydancer.snapshot import DecisionSettings


def decide(run, text="Hello", *args) -> Any:
    return json.loads(run("route", text, "--json", *args).stdout)


def test_feedback_reaches_the_agent_of_the_decision(filled):
    made = decide(filled)
    got = json.loads(
        filled(
            "feedback", made["decision_id"], "--quality", "0.25", "--latency-ms", "123", "--cost", "0.5",
            "--input-tokens", "10", "--output-tokens", "20", "--json",
        ).stdout
    )  # fmt: skip
    assert got.pop("occurred_at") > 1.7e9
    assert got == {
        "agent_name": made["agent_name"], "decision_id": made["decision_id"], "success": True, "quality": 0.25,
        "latency_ms": 123.0, "cost_usd": 0.5, "input_tokens": 10, "output_tokens": 20,
    }  # fmt: skip
    record = json.loads(filled("agents", "show", made["agent_name"], "--json").stdout)
    assert (record["total_requests"], record["quality_score"], record["total_cost_usd"]) == (1, 0.25, 0.5)


def test_feedback_without_a_decision(filled):
    assert "Recorded for small." in filled("feedback", "--agent", "small", "--failed").stderr
    filled("feedback", "--agent", "small", "--quality", "1")
    record = json.loads(filled("agents", "show", "small", "--json").stdout)
    assert (record["total_requests"], record["success_rate"], record["quality_score"]) == (2, 0.5, 1.0)


def test_what_was_reported_changes_the_next_decision(filled):
    assert decide(filled, "Hello", "-o", "quality")["agent_name"] == "large"
    for _ in range(30):
        filled("feedback", "--agent", "large", "--quality", "0")
    assert decide(filled, "Hello", "-o", "quality")["agent_name"] == "small"


BAD = {
    "an unknown decision": (["feedback", "nope"], 3, "nope"),
    "an unknown agent": (["feedback", "--agent", "nobody"], 3, "nobody"),
    "neither": (["feedback", "--quality", "1"], 2, "Neither"),
    "both": (["feedback", "id", "--agent", "small"], 2, "Both"),
    "quality above 1": (["feedback", "--agent", "small", "--quality", "1.01"], 2, "quality is 1.01"),
    "quality NaN": (["feedback", "--agent", "small", "--quality", "nan"], 2, "quality is nan"),
    "a negative cost": (["feedback", "--agent", "small", "--cost", "-1"], 2, "cost_usd is -1.0"),
    "an infinite latency": (["feedback", "--agent", "small", "--latency-ms", "inf"], 2, "latency_ms is inf"),
    "half a token": (["feedback", "--agent", "small", "--input-tokens", "1.5"], 2, "1.5"),
    "a negative limit": (["decisions", "--limit", "-1"], 2, "-1"),
    "no text to embed": (["embed"], 2, "TEXT"),
    "an empty text to embed": (["embed", "a", ""], 2, "empty"),
    "a file that cannot be written": (["embed", "a", "--numpy", "nowhere/v.npy"], 2, "nowhere/v.npy"),
    "a directory that is not there": (["init", "nowhere/tinydancer.yaml"], 2, "nowhere"),
    "no settings": (["--config", "nowhere.yaml", "stats"], 7, "nowhere.yaml does not exist"),
    "an empty tenant": (["--tenant", " ", "stats"], 2, "tenant"),
    "a store that is a directory": (["--store", "/", "stats"], 6, "directory"),
    "a store in a directory that is not there": (["--store", "nowhere/s.db", "agents", "add", "a"], 6, "nowhere"),
    "an address for a store": (["--store", "mysql://me:pa55word@host/db", "stats"], 2, "'mysql://'"),
    "no such server": (["--store", "postgresql://me:pa55word@127.0.0.1:1/db", "stats"], 6, "does not answer"),
    "no such command": (["rout", "Hello"], 2, "No such command 'rout'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_nothing_is_written(filled, case):
    args, code, expected = BAD[case]
    result = filled(*args, code=code)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr
    assert "pa55word" not in result.stderr
    assert json.loads(filled("stats", "--json").stdout)["total_outcomes"] == 0


def test_stats_add_up(filled):
    for objective in ("cost", "cost", "quality"):
        decide(filled, "Hello", "-o", objective)
    decide(filled, "Hello", "--exclude", "large", "--exclude", "small")
    filled("feedback", "--agent", "small", "--cost", "0.25", "--latency-ms", "100")
    filled("agents", "remove", "mystery", "--yes")
    totals = json.loads(filled("stats", "--json").stdout)
    assert totals["decisions_by_agent"] == {"small": 2, "large": 1, "mystery": 1}
    assert totals["decisions_by_objective"] == {"balanced": 1, "cost": 2, "quality": 1}
    assert (totals["total_agents"], totals["total_outcomes"], totals["total_cost_usd"]) == (2, 1, 0.25)
    assert [agent["name"] for agent in totals["agents"]] == ["large", "small"]
    text = filled("stats").stdout
    rows = {line.split("  ")[0]: line for line in text.split("spent\n")[1].splitlines()[1:]}
    assert list(rows) == ["small", "large", "mystery (removed)"]
    assert rows["small"].count("█") == 2 * rows["large"].count("█") == 8


def test_decisions_come_latest_first(filled):
    ids = [decide(filled, f"Hello {i}")["decision_id"] for i in range(5)]
    listed = json.loads(filled("decisions", "--limit", "3", "--json").stdout)
    assert {row["decision_id"] for row in listed} <= set(ids)
    assert len(listed) == 3
    assert [row["decided_at"] for row in listed] == sorted((row["decided_at"] for row in listed), reverse=True)
    assert ids[4] in filled("decisions", "-n", "1").stdout
    assert "No decisions" in filled("--tenant", "other", "decisions").stderr


def test_texts_are_listed_where_they_are_recorded(filled, tmp_path):
    (tmp_path / "tinydancer.yaml").write_text("record_requests: true\n")
    decide(filled, "A very particular request\nin two lines")
    assert "A very particular request in two lines" in filled("decisions").stdout


def test_embed_gives_the_service_s_vectors(run, tmp_path):
    texts = ["a red car", "a crimson automobile", "tax law"]
    with TinyDancer() as dancer:
        expected = np.array([dancer.embed(text) for text in texts])
    got = json.loads(run("embed", *texts, "--json").stdout)
    assert (got["space"], got["dim"]) == ("all-MiniLM-L6-v2", 384)
    np.testing.assert_array_equal(np.array(got["embeddings"], dtype=np.float32), expected)
    run("embed", *texts, "--numpy", "vectors")
    saved = np.load(tmp_path / "vectors")
    assert saved.dtype == np.float32
    np.testing.assert_array_equal(saved, expected)
    np.testing.assert_array_equal(
        json.loads(run("embed", "-", "--json", input="tax law\n").stdout)["embeddings"][0], expected[2]
    )
    near = f"{expected[0] @ expected[1]:.2f}"
    assert near in run("embed", *texts).stdout.split("Cosine similarity")[1]


# -- settings ------------------------------------------------------------------------------------------------------


def test_the_template_is_the_defaults_and_names_every_setting():
    assert parse_settings(TEMPLATE) == Settings()
    for section, kind in (("", Settings), ("embedder", EmbedderSettings), ("decisions", DecisionSettings)):
        body = re.split(rf"(?m)^{section}:", TEMPLATE)[1] if section else TEMPLATE
        for setting in fields(kind):
            assert re.search(rf"(?m)^{'  ' if section else ''}{setting.name}:", body), (section, setting.name)


def test_init_writes_once(run, tmp_path):
    run("init")
    file = tmp_path / "tinydancer.yaml"
    assert load_settings(file) == Settings()
    file.write_text("tenant: mine\n")
    assert "--force" in run("init", code=4).stderr
    assert file.read_text() == "tenant: mine\n"
    run("init", "--force")
    assert load_settings(file) == Settings()
    (tmp_path / "sub").mkdir()
    run("init", "sub")
    run("init", "other.yaml")
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        "other.yaml", "sub/tinydancer.yaml", "tinydancer.yaml",
    ]  # fmt: skip


def test_settings_come_from_the_file_and_options_go_before_them(run, tmp_path, monkeypatch):
    monkeypatch.delenv("TINYDANCER_STORE")
    (tmp_path / "tinydancer.yaml").write_text("store: from-file.db\ntenant: alpha\n")
    run("agents", "add", "a")
    assert (tmp_path / "from-file.db").exists()
    run("--tenant", "beta", "agents", "add", "b")
    run("--store", "from-option.db", "agents", "add", "c")
    (tmp_path / "other.yaml").write_text("store: from-option.db\ntenant: alpha\n")

    def names(*options: str) -> list[str]:
        return [agent["name"] for agent in json.loads(run(*options, "agents", "list", "--json").stdout)]

    assert names() == ["a"]
    assert names("--tenant", "beta") == ["b"]
    assert names("--config", "other.yaml") == ["c"]
    monkeypatch.setenv("TINYDANCER_CONFIG", "other.yaml")
    assert names() == ["c"]
    monkeypatch.setenv("TINYDANCER_TENANT", "beta")
    monkeypatch.setenv("TINYDANCER_STORE", "from-file.db")
    assert names() == ["b"]


def test_a_mistake_in_the_settings_names_file_line_and_key(run, tmp_path):
    (tmp_path / "tinydancer.yaml").write_text("tenant: a\ndecisions:\n  quality_bar: 3\n")
    error = run("stats", code=7).stderr
    for part in ("tinydancer.yaml", "line 3", "quality_bar", "[0, 1]"):
        assert part in error


# -- versions and words --------------------------------------------------------------------------------------------


def test_versions(run):
    assert run("--version").stdout == f"tinydancer {__version__}\n"
    assert json.loads(run("version", "--json").stdout)["tinydancer"] == __version__
    assert __version__ in run("version").stdout


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ({}, "unknown"),
        ({"input_cost_per_token": 1e-6}, "unknown"),
        ({"cost_per_request": 0.0}, "free"),
        ({"cost_per_request": 0.02, "cost_per_call": 0.01}, "$0.03 per request"),
        ({"input_cost_per_token": 2.5e-6, "output_cost_per_token": 1e-5}, "$2.50 in, $10.00 out per 1M tokens"),
        ({"cost_per_1k_tokens": 0.002}, "$2.00 per 1M tokens"),
        ({"cost_per_second": 0.05, "monthly_fixed_cost": 20.0}, "$0.05 per second + $20.00 a month"),
    ],
)
def test_prices_in_words(prices, expected):
    assert price(prices) == expected


@pytest.mark.parametrize(("part", "blocks"), [(0.0, ""), (0.001, "▏"), (0.5, "█" * 8), (1.0, "█" * 16)])
def test_meter(part, blocks):
    assert meter(part) == blocks
