"""The demonstration itself, run for real: its data, its figures, its three ways of being shown."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tinydancer import TinyDancer
from tinydancer import demo as sums
from tinydancer.cli import app
from tinydancer.cli.demo import PAPER_COLUMNS, ROUTINGS, parts, run_demo
from tinydancer.demo.page import page
from tinydancer.errors import InvalidInputError
from tinydancer.types import OBJECTIVES, Agent

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def report() -> sums.Report:
    with TinyDancer() as dancer:
        return run_demo(dancer)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    result = CliRunner().invoke(app, ["demo", "--json"])
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


# -- data ----------------------------------------------------------------------------------------------------------


def test_agents_are_of_many_kinds_and_every_price_is_known() -> None:
    agents = [Agent.from_config(config) for config in sums.load_agents().configs]
    assert 12 <= len(agents) <= 16
    assert {"llm", "embedding", "vision", "tool", "api", "human"} <= {agent.agent_type for agent in agents}
    for agent in agents:
        assert agent.cost.estimate_usd(100.0, 100.0, seconds=1.0) is not None, agent.name
        assert agent.quality_score is not None
        assert agent.avg_latency_ms is not None
        assert agent.metadata["price"], f"{agent.name} does not say where its price is from"


def test_short_names_are_short_and_differ() -> None:
    short = sums.load_agents().short_names.values()
    assert max(map(len, short)) <= 10
    assert len(set(short)) == len(short)


def test_requests_are_many_and_varied() -> None:
    requests = sums.load_requests()
    assert len(requests) >= 48
    assert len({r.text for r in requests}) == len(requests)
    assert min(Counter(r.category for r in requests).values()) >= 1
    assert len({r.category for r in requests}) >= 10
    assert min(len(r.text) for r in requests) < 30
    assert max(len(r.text) for r in requests) > 10_000
    assert len(requests) * len(OBJECTIVES) == ROUTINGS


def test_every_required_capability_exists() -> None:
    have = {c for config in sums.load_agents().configs for c in config["capabilities"]}
    for request in sums.load_requests():
        assert set(request.constraints["required_capabilities"]) <= have


# -- figures -------------------------------------------------------------------------------------------------------


def test_totals_are_the_sums_of_the_decisions_shown(report: sums.Report) -> None:
    for way in report.objectives:
        rows = [report.decisions[way.label][i] for i in report.positions]
        assert way.cost_usd == pytest.approx(sum(row["estimated_cost"] for row in rows), rel=1e-12)
        assert way.mean_quality == pytest.approx(sum(row["expected_quality"] for row in rows) / len(rows), rel=1e-12)
        assert dict(way.agents) == Counter(row["agent_name"] for row in rows)


def test_objectives_are_ordered_as_they_mean(report: sums.Report) -> None:
    ways = {way.label: way for way in report.objectives}
    assert set(ways) == set(OBJECTIVES)
    # Cost, latency and quality per dollar choose among the same good enough agents; quality's choice is one of them.
    for other in ("latency", "quality", "quality_per_dollar"):
        assert ways["cost"].cost_usd <= ways[other].cost_usd
    for other in ("cost", "quality", "quality_per_dollar"):
        assert ways["latency"].mean_latency_ms <= ways[other].mean_latency_ms
    assert all(ways["quality"].mean_quality >= way.mean_quality for way in report.objectives)
    assert report.looser.cost_usd < ways["cost"].cost_usd < ways["quality"].cost_usd
    assert report.looser.mean_quality < ways["cost"].mean_quality


def test_each_decision_is_ordered_as_the_objectives_mean(report: sums.Report) -> None:
    for cheap, fast, good in zip(*(report.decisions[o] for o in ("cost", "latency", "quality")), strict=True):
        assert cheap["estimated_cost"] <= min(fast["estimated_cost"], good["estimated_cost"])
        assert fast["estimated_latency_ms"] <= min(cheap["estimated_latency_ms"], good["estimated_latency_ms"])
        assert good["expected_quality"] >= max(cheap["expected_quality"], fast["expected_quality"])


def test_language_models_are_predicted_by_the_shipped_model_and_nobody_else(report: sums.Report) -> None:
    kinds = {config["name"]: config["agent_type"] for config in report.agents.configs}
    rows = [row for decided in report.decisions.values() for row in decided]
    assert report.model.startswith("shipped:")
    for row in rows:
        assert row["model"] == (report.model if kinds[row["agent_name"]] == "llm" else None)


def test_every_choice_under_cost_is_good_enough(report: sums.Report) -> None:
    for cheap, good in zip(report.decisions["cost"], report.decisions["quality"], strict=True):
        assert cheap["expected_quality"] >= report.good_enough * good["expected_quality"]


def test_hard_requests_go_to_stronger_and_dearer_agents_than_easy_ones(report: sums.Report) -> None:
    hard, middle, easy = report.parts
    assert [part.way.label for part in report.parts] == list(sums.PARTS)
    assert hard.expected_quality < middle.expected_quality < easy.expected_quality
    each = [part.way.cost_usd / part.way.requests for part in report.parts]
    assert each[0] > each[1] > each[2]
    stated = {config["name"]: config["quality_score"] for config in report.agents.configs}
    strength = [
        sum(stated[name] * count for name, count in part.way.agents.items()) / part.way.requests
        for part in report.parts
    ]
    assert strength[0] > strength[1] > strength[2]
    assert hard.way.saved_share < easy.way.saved_share
    models = {name for name, config in zip(stated, report.agents.configs, strict=True) if config["agent_type"] == "llm"}
    skilled = [r for r in report.requests if r.constraints["required_capabilities"] == ["text generation"]]
    assert sum(part.way.requests for part in report.parts) == len(skilled)
    assert set().union(*(part.way.agents for part in report.parts)) <= models


def test_every_decision_respects_its_request(report: sums.Report) -> None:
    configs = {config["name"]: config for config in report.agents.configs}
    for i, request in enumerate(report.requests):
        for rows in report.decisions.values():
            agent = configs[rows[i]["agent_name"]]
            assert set(request.constraints["required_capabilities"]) <= set(agent["capabilities"])
            assert rows[i]["estimated_latency_ms"] <= request.constraints.get("max_latency_ms", math.inf)
    assert all(way.late == 0 for way in report.objectives)


def test_the_baseline_is_the_best_agent_at_its_own_price(report: sums.Report) -> None:
    baseline = report.singles[0]
    assert report.best == baseline.label == "claude-opus-4"
    assert dict(baseline.agents) == {report.best: len(report.positions)}
    assert baseline.saved_usd_per_1000 == 0.0
    cost = Agent.from_config(next(c for c in report.agents.configs if c["name"] == report.best)).cost
    # Where routing for quality chose it, the decision's own estimate is what the baseline pays for that request.
    rows = [r for i, r in enumerate(report.decisions["quality"]) if i in report.positions]
    chosen = [row["estimated_cost"] for row in rows if row["agent_name"] == report.best]
    assert 0.0 < sum(chosen) < baseline.cost_usd
    assert min(chosen) >= (cost.estimate_usd(1.0, 0.0) or 0.0)


def test_requests_that_are_not_compared_go_to_the_same_agent_under_every_objective(report: sums.Report) -> None:
    left = [i for i in range(len(report.requests)) if i not in report.positions]
    assert left
    for i in left:
        assert len({rows[i]["agent_name"] for rows in report.decisions.values()}) == 1
    assert sum(report.elsewhere().values()) == len(left)


def test_it_says_the_same_every_time(document: dict[str, Any], report: sums.Report) -> None:
    again = json.loads(json.dumps(report.to_dict()))
    assert document.pop("median_text_to_decision_us") > 0.0
    assert again.pop("median_text_to_decision_us") > 0.0
    assert document == again


# -- ways to be shown ----------------------------------------------------------------------------------------------


def test_printed_tables_hold_every_request_and_the_totals(report: sums.Report) -> None:
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= PAPER_COLUMNS
    for request in report.requests:
        assert request.shortened(30).rstrip("…") in result.stdout
    for way in (*report.objectives, report.looser, *report.singles):
        figures = (f"{way.cost_usd:.4f}", f"{way.mean_quality:.3f}", f"{way.saved_share:.1%}")
        # Two objectives may come to the same sum, so it takes one line that holds all three.
        assert any(all(figure in line for figure in figures) for line in result.stdout.splitlines()), figures
    for part in report.parts:
        figures = (part.way.label, f"{part.expected_quality:.2f}", f"{part.way.saved_share:.1%}")
        assert any(all(figure in line for figure in figures) for line in result.stdout.splitlines()), figures
    words = " ".join(result.stdout.split())
    assert f"by the model {report.model}" in words
    assert "No answer was made or judged here" in words
    assert re.search(r"Median time from text to recorded decision: [\d,]+ µs", result.stdout)


def test_it_fits_a_terminal_of_eighty_columns(report: sums.Report) -> None:
    from rich.console import Console

    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        for part in parts(report, 80):
            console.print(part)
        text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    short = report.agents.short_names
    for name in {row["agent_name"] for rows in report.decisions.values() for row in rows}:
        assert short[name] in text, f"{short[name]} is cut off"


class _Tags(HTMLParser):
    """Open tags and what they point to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_needs_nothing_else(report: sums.Report) -> None:
    html = page(report)
    tags = _Tags()
    tags.feed(html)
    assert tags.open == []
    assert tags.targets == []
    assert "url(" not in html
    assert "@import" not in html
    assert "<script" not in html
    assert "prefers-color-scheme: dark" in html
    for way in report.objectives:
        assert f"{way.cost_usd:.4f}" in html
    assert "No answer was made or judged here" in html
    for part in report.parts:
        assert f"{part.way.label} ({part.way.requests})" in html
    assert html.count("<circle") == len(report.objectives) + 1 + len(report.singles)


def test_page_is_written_where_asked(tmp_path: Path) -> None:
    target = tmp_path / "demo.html"
    result = CliRunner().invoke(app, ["demo", "--html", str(target)])
    assert result.exit_code == 0, result.output
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_page_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--html", str(tmp_path / "no" / "demo.html")])
    assert result.exit_code == 2
    assert "cannot be written" in result.output


@pytest.mark.parametrize("before", [True, False], ids=["global option", "own option"])
def test_store_keeps_agents_and_decisions_and_may_be_used_again(tmp_path: Path, before: bool) -> None:
    option = ["--store", str(tmp_path / "demo.db")]
    for _ in range(2):
        result = CliRunner().invoke(app, [*option, "demo"] if before else ["demo", *option])
        assert result.exit_code == 0, result.output
    with TinyDancer(tmp_path / "demo.db") as dancer:
        totals = dancer.routing_stats()
    assert totals["total_agents"] == len(sums.load_agents().configs)
    assert totals["total_decisions"] == 2 * ROUTINGS


def test_a_store_in_the_environment_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYDANCER_STORE", str(tmp_path / "real.db"))
    assert CliRunner().invoke(app, ["demo"]).exit_code == 0
    assert not (tmp_path / "real.db").exists()


def test_somebody_elses_store_is_refused_and_unchanged() -> None:
    with TinyDancer() as dancer:
        dancer.register_agent("mine", "llm", ["chat"], 0.001)
        with pytest.raises(InvalidInputError, match="mine"):
            run_demo(dancer)
        assert [record.agent.name for record in dancer.list_agents()] == ["mine"]


def test_words_about_the_demonstration_count_right(report: sums.Report) -> None:
    requests, agents = len(report.requests), len(report.agents.configs)
    assert f"{requests} requests, {agents} agents" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (requests, agents) == (52, 15), "the command's help and docs/tutorial.md say fifty-two and fifteen"


def test_picture_in_the_documentation_shows_these_figures() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "render_demo_image.py"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
