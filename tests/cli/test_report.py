"""``tinydancer report``: tables and a trend for people, JSON for programs, one HTML page that needs nothing else."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Run
from tinydancer.service import TinyDancer
from tinydancer.types import Outcome

DAY_S = 86_400.0


@pytest.fixture
def busy(filled: Run, store: Path) -> Run:
    """The agents with outcomes of the last five days: small half of the cost of large, mystery without any cost."""
    now = time.time()
    with TinyDancer(store) as dancer:
        dancer.record_outcomes(
            [
                Outcome(
                    agent_name=("small", "large")[i % 2], occurred_at=now - i * DAY_S / 20, success=i % 10 != 0,
                    quality=(0.7, 0.9)[i % 2] if i % 3 else None, latency_ms=100.0 * (1 + i % 2) + i,
                    cost_usd=0.01 * (1 + i % 2), input_tokens=1000, output_tokens=500,
                )
                for i in range(100)
            ]
            + [Outcome(agent_name="mystery", occurred_at=now - 60.0)]
        )  # fmt: skip
    return filled


def test_a_report_for_people(busy: Run) -> None:
    shown = busy("report").stdout
    assert "The last 7 days" in shown
    assert re.search(r"requests\s+101, 90.1% went well", shown)
    assert re.search(r"cost\s+\$1.50, 1 without a known cost", shown)
    rows = [line.split() for line in shown.splitlines() if line.startswith(("small", "large", "mystery"))]
    assert [row[0] for row in rows] == ["large", "small", "mystery"]
    assert rows[0][:3] == ["large", "50", "$1.00"]
    assert "████████████" in rows[0]
    assert "██████" in rows[1]
    assert "cost per day" in shown
    assert re.search(r"  \d{4}-\d\d-\d\d [ ▁▂▃▄▅▆▇█]{8} \d{4}-\d\d-\d\d", shown)


def test_savings(busy: Run) -> None:
    told = json.loads(busy("report", "--against", "large", "--json").stdout)
    assert told["baseline"] == "large"
    small = next(row for row in told["rows"] if row["agent"] == "small")
    assert small["saved"] == pytest.approx(50 * (1000 * 2.5e-6 + 500 * 1e-5 - 0.01))
    shown = busy("report", "--against", "large").stdout
    assert re.search(r"saved against large\s+-\$0.125 \(-9% of \$1.38\); its price for their tokens", shown)
    assert re.search(r"quality at large\s+0\.900 \(95% interval 0\.\d+ to 0\.\d+\); observed -0\.1", shown)
    assert "saved" in shown.splitlines()[8]


@pytest.mark.parametrize(("by", "groups"), [("objective", ["(none)"]), ("tenant", ["default"]), ("task", ["(none)"])])
def test_groupings(busy: Run, by: str, groups: list[str]) -> None:
    shown = busy("report", "--by", by).stdout
    table = shown[shown.index(f"\n{by} ") :].splitlines()
    assert [line.split()[0] for line in table[3 : 3 + len(groups)]] == groups
    assert json.loads(busy("report", "--by", by, "--json").stdout)["rows"][0]["total_requests"] == 101


def test_days_and_hours_are_those_of_a_zone(busy: Run) -> None:
    days = json.loads(busy("report", "--by", "day", "--time-zone", "Asia/Tokyo", "--json").stdout)
    assert days["time_zone"] == "Asia/Tokyo"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", row["agent"]) for row in days["rows"])
    hours = json.loads(
        busy("report", "--since", "3 hours", "--by", "hour", "--time-zone", "Asia/Tokyo", "--json").stdout
    )
    assert hours["rows"][-1]["agent"].endswith(":00+09:00")
    assert "cost per" not in busy("report", "--by", "hour", "--since", "3 hours").stdout


def test_an_empty_store_says_what_to_do_first(run: Run, filled: Run) -> None:
    result = filled("report")
    assert result.stdout == ""
    assert "No outcomes were reported in the last 7 days" in result.stderr
    assert "tinydancer feedback DECISION_ID" in result.stderr
    assert json.loads(filled("report", "--json").stdout)["rows"] == []
    for name in ("small", "large", "mystery"):
        filled("agents", "remove", name, "--yes")
    assert "tinydancer agents add NAME" in run("report").stderr


def test_a_store_that_does_not_exist_stays_away(run: Run, store: Path, tmp_path: Path) -> None:
    assert "tinydancer agents add NAME" in run("report", "--html", str(tmp_path / "r.html")).stderr
    assert not store.exists()
    assert "No cost is known." in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--by", "week"), "expected one of agent, route, tenant, task, day, hour, objective"),
        (("--since", "lately"), "expected an interval such as '7 days'"),
        (("--since", "-7 days"), "ends before it begins"),
        (("--against", "lage"), "Did you mean 'large'?"),
        (("--time-zone", "Mars"), "Unknown time_zone 'Mars'"),
        (("--html", "no/such/folder/r.html"), "The page cannot be written"),
    ],
)  # fmt: skip
def test_mistakes(busy: Run, args: tuple[str, ...], words: str) -> None:
    result = busy("report", *args, code=3 if args[0] == "--against" else 2)
    assert words in result.stderr


# -- the page ------------------------------------------------------------------------------------------------------


def page_of(run: Run, tmp_path: Path, *args: str) -> str:
    path = tmp_path / "traffic.html"
    result = run("report", "--html", str(path), *args)
    assert f"The page is in {path}" in result.stderr
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_needs_nothing_else(busy: Run, tmp_path: Path) -> None:
    for args in ((), ("--by", "hour", "--since", "30 hours"), ("--against", "small", "--by", "tenant")):
        text = page_of(busy, tmp_path, *args)
        assert text.startswith("<!DOCTYPE html>")
        assert "prefers-color-scheme: dark" in text
        for outside in ("<script", "url(", "@import", "href", "src=", "http"):
            assert outside not in text
        body = text[text.index("<body>") : text.index("</html>")]
        tree = ElementTree.fromstring(body)
        assert [heading.text for heading in tree.iter("h1")] == [tree.findtext("h1")]
        numbers = [
            float(n) for shape in tree.iter() for k, n in shape.attrib.items() if k in ("x", "y", "cx", "x1", "x2")
        ]
        assert numbers
        assert min(numbers) >= -1.0
        assert max(numbers) <= 960.0
        assert not [n for shape in tree.iter() for n in shape.attrib.values() if n in ("nan", "inf")]


def test_the_page_draws_every_agent(busy: Run, tmp_path: Path) -> None:
    text = page_of(busy, tmp_path, "--against", "large")
    tree = ElementTree.fromstring(text[text.index("<body>") : text.index("</html>")])
    charts = {svg.attrib["aria-label"]: svg for svg in tree.iter("svg")}
    assert list(charts) == [
        "Cost by period and agent", "P50, P95 and P99 of the latency by agent",
        "Mean quality against mean cost, by agent", "Paid, and at the baseline",
    ]  # fmt: skip
    days = {
        rect.findtext("title", "").split(", ")[1].split(":")[0]
        for rect in charts["Cost by period and agent"].iter("rect")
    }
    assert 5 <= len(days) <= 7
    heights: dict[str, float] = {}
    for rect in charts["Cost by period and agent"].iter("rect"):
        name = rect.findtext("title", "").split(",")[0]
        heights[name] = heights.get(name, 0.0) + float(rect.attrib["height"])
    assert heights["large"] == pytest.approx(2.0 * heights["small"], rel=0.02)
    points = charts["Mean quality against mean cost, by agent"].findall("circle")
    assert len(points) == 2  # nobody judged mystery
    labels = "".join(charts["Paid, and at the baseline"].itertext())
    assert "\N{MINUS SIGN}$0.125" in labels


def test_names_are_escaped(filled: Run, store: Path, tmp_path: Path) -> None:
    name = "<b>&'\"</b>"
    filled("agents", "add", name, "--cost-per-request", "0.1")
    with TinyDancer(store) as dancer:
        measured = {"cost_usd": 0.1, "latency_ms": 5.0, "quality": 0.5}
        dancer.record_outcomes([Outcome(agent_name=name, occurred_at=time.time(), **measured)])  # type: ignore[arg-type]
    text = page_of(filled, tmp_path, "--against", name)
    assert "<b>&" not in text
    ElementTree.fromstring(text[text.index("<body>") : text.index("</html>")])
