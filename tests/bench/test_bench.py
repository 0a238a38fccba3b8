"""``make bench`` runs every measurement and says what it found; how fast anything is, is not tested."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench import meanings, measure, models, peers, processes, registry, routing, stores  # noqa: F401
from bench.measure import Effort, Figure
from bench.registry import Result, Row
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent.parent
KEYS = {
    "name", "group", "unit", "median", "p10", "p90", "samples", "calls_per_sample", "items", "target", "met",
    "reference", "ratio", "how",
}  # fmt: skip
TARGETS = {
    "text to decision, 20 agents": (150.0, "µs"),
    "embedding to decision, 20 agents": (40.0, "µs"),
    "embedding to decision, 1,000 agents": (150.0, "µs"),
    "vector to route, 1,000 routes": (60.0, "µs"),
    "text to route, 1,000 routes": (150.0, "µs"),
    "classify a vector": (60.0, "µs"),
    "10,000 requests by total_cost, 20 agents": (1000.0, "ms"),
    "the same, under a budget and capacities": (1000.0, "ms"),
    "forward_single": (15.0, "µs"),
    "step": (15.0, "µs"),
    "forward_batch of 256, each": (2.0, "µs"),
    "import tinydancer": (250.0, "ms"),
    "from tinydancer import TinyDancer": (250.0, "ms"),
    "memory after import tinydancer": (60.0, "MB"),
    "memory after from tinydancer import TinyDancer": (60.0, "MB"),
    'tinydancer route "..."': (500.0, "ms"),
}


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != peers.VARIABLE}
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / "run.py"), "--quick", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def of(unit: str, nanoseconds: list[float], **more: Any) -> Result:
    low, median, high = nanoseconds
    row = Row(name="r", group="g", unit=unit, how="", prepare=lambda place: lambda: None, **more)  # type: ignore[arg-type]
    return Result(row, Figure(median=median, p10=low, p90=high, samples=3, inner=1, reference=500.0, ratio=4.0))


@pytest.mark.slow
def test_every_measurement_runs_and_is_reported(tmp_path: Path) -> None:
    done = bench(tmp_path, "--json", "figures.json")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in written["rows"]] == [row.name for row in registry.rows()]
    for row in written["rows"]:
        assert row.keys() == KEYS
        assert row["name"] in done.stdout
        assert 0.0 <= row["p10"] <= row["median"] <= row["p90"]
        assert row["ratio"] >= 0.0
        assert row["how"]
        assert (row["met"] is None) == (row["target"] is None)
    assert written["quick"] is True
    assert written["peers"] == []
    assert peers.VARIABLE in done.stdout
    assert f"of {len(TARGETS)} targets met" in done.stdout
    assert f"{len(written['rows'])}/{len(written['rows'])}" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_targets_are_those_the_project_asks_for() -> None:
    assert {row.name: (row.target, row.unit) for row in registry.rows() if row.target is not None} == TARGETS


def test_only_takes_a_part(tmp_path: Path) -> None:
    done = bench(tmp_path, "--only", "fastgrnn, 384*", "--json", "part.json", "--markdown", "part.md")
    assert done.returncode == 0, done.stderr
    names = [row["name"] for row in json.loads((tmp_path / "part.json").read_text(encoding="utf-8"))["rows"]]
    assert names == ["forward_single", "step", "forward_batch of 256, each"]
    heading, line, group, *rows = (tmp_path / "part.md").read_text(encoding="utf-8").splitlines()
    assert [name in row for name, row in zip(names, rows, strict=True)] == [True] * 3
    assert {row.count("|") for row in (heading, line, group, *rows)} == {6}


def test_a_pattern_that_fits_nothing_lists_what_there_is(tmp_path: Path) -> None:
    done = bench(tmp_path, "--only", "no such row")
    assert done.returncode == 2
    assert "embedding to decision, 20 agents" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("result", "spread", "ratio", "met"),
    [
        (of("µs", [1000.0, 2000.0, 3000.0], target=2.0), (2.0, 1.0, 3.0), 4.0, True),
        (of("µs", [1000.0, 2000.0, 3000.0], target=1.9), (2.0, 1.0, 3.0), 4.0, False),
        (of("µs", [1000.0, 2000.0, 3000.0], items=4), (0.5, 0.25, 0.75), 1.0, None),
        (of("ms", [1e6, 2e6, 3e6]), (2.0, 1.0, 3.0), 4.0, None),
        # Items per second: the slowest sample is the lowest rate, and a target is a lower bound.
        (of("per s", [1e6, 2e6, 4e6], items=10, target=5000.0), (5000.0, 2500.0, 10000.0), 0.4, True),
        (of("per s", [1e6, 2e6, 4e6], items=10, target=5001.0), (5000.0, 2500.0, 10000.0), 0.4, False),
        (of("MB", [10.0, 20.0, 30.0], reference_sampler=lambda: 1.0), (20.0, 10.0, 30.0), 4.0, None),
    ],
)
def test_figures_are_turned_into_the_rows_unit(result: Result, spread: tuple[float, ...], ratio: float, met: Any):
    assert result.spread == pytest.approx(spread)
    assert result.ratio == pytest.approx(ratio)
    assert result.met is met


def test_samples_and_reference_samples_alternate() -> None:
    calls: list[str] = []

    def one(name: str, value: float) -> measure.Sampler:
        def sample() -> float:
            calls.append(name)
            return value

        return sample

    figure = measure.sampled(one("a", 6.0), one("b", 2.0), Effort())
    assert calls == ["a", "b"] * (measure.PROCESS_SAMPLES + 1)
    assert (figure.median, figure.reference, figure.ratio, figure.samples) == (6.0, 2.0, 3.0, measure.PROCESS_SAMPLES)


def test_short_operations_are_repeated_within_a_sample() -> None:
    figure = measure.timed(lambda: None, lambda: None, Effort(seconds=0.0))
    assert figure.samples == measure.FEWEST_SAMPLES
    assert figure.inner > 100
    assert figure.p10 <= figure.median <= figure.p90


def test_what_is_measured_is_different_each_time() -> None:
    from bench import material

    assert len(set(material.many_requests(10_000))) == 10_000
    assert len({agent["metadata"]["description"] for agent in material.agent_configs(1000)}) == 1000
    assert all(25 <= len(text.split()) <= 40 for text in material.REQUESTS)
    assert all(170 <= len(text.split()) <= 260 for text in material.long_requests(200))


def test_a_comparison_is_written_in_full() -> None:
    from bench import report

    one = peers.Comparison(
        candidates=1000, kept_us=500.0, made_us=4000.0, peer_us=2000.0, peer_core_us=1000.0,
        waits_over_kept=4.0, waits_over_made=0.5, core_over_kept=2.0,
    )  # fmt: skip
    last = report.markdown([], [one]).splitlines()[-1]
    assert last == "| 1,000 | 500 µs | 4,000 µs | 2,000 µs | 1,000 µs | 4.00 | 0.50 | 2.00 |"
    console = Console(width=140, record=True, file=io.StringIO())
    report.print_comparisons([one], console)
    found = console.export_text().splitlines()[-1].split()
    assert " ".join(found) == "1,000 500 4,000 2,000 1,000 4.00 0.50 2.00"


def test_a_peer_that_is_not_there_is_not_installed(tmp_path: Path) -> None:
    assert not peers.installed(None)
    assert not peers.installed(tmp_path)
