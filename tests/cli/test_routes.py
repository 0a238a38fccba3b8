"""``tinydancer routes``: created, matched, changed, fitted, and as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run

ROOT = Path(__file__).resolve().parents[2]
REFUNDS = ("routes", "add", "refunds", "--to", "small", "-u", "I want my money back", "-u", "refund my order")


@pytest.fixture
def routed(filled: Run) -> Run:
    """Two routes to the agents small and large."""
    filled(*REFUNDS)
    filled(
        "routes",
        "add",
        "code",
        "--to",
        "large",
        "-u",
        "write a Python function",
        "-u",
        "fix this bug",
        "--priority",
        "2",
    )
    return filled


def routes_of(run: Run):
    return json.loads(run("routes", "list", "--json").stdout)


def test_adding_and_looking(filled: Run):
    assert "no route yet" in filled("routes", "list").stderr
    made = filled(
        *REFUNDS, "--not", "tax refund", "--threshold", "0.4", "--between", "22:00-06:00", "--time-zone",
        "Europe/Berlin", "--days", "fri,sat", "--tier", "gold", "--rate-limit", "100/3600", "--json",
    )  # fmt: skip
    route = json.loads(made.stdout)
    assert route["conditions"] == {
        "time_range": {"start": "22:00", "end": "06:00", "time_zone": "Europe/Berlin", "days": ["fri", "sat"]},
        "user_tier": ["gold"], "rate_limit": {"requests": 100, "per_s": 3600.0},
    }  # fmt: skip
    assert route["negative_utterances"] == ["tax refund"]
    assert routes_of(filled) == [route]
    listed = filled("routes", "list").stdout
    assert "22:00-06:00 Europe/Berlin, fri sat; for gold; 100 requests per 3600 s" in listed
    shown = filled("routes", "show", "refunds").stdout
    assert "I want my money back; refund my order" in shown
    assert json.loads(filled("routes", "show", "refunds", "--json").stdout) == route


def test_matching_and_none_of_these(routed: Run):
    answer = json.loads(routed("routes", "match", "give", "me", "my", "money", "back", "--json").stdout)
    assert (answer["route_name"], answer["target_agent"]) == ("refunds", "small")
    assert answer["confidence"] == answer["matches"][0]["confidence"]
    assert "refunds" in routed("routes", "match", "-", input="refund the order\n").stdout
    none = routed("routes", "match", "how tall is Mount Everest").stdout
    assert none.startswith("None of these, with probability 0.")
    assert "Nearest: " in none


def test_matching_counts_against_no_limit(routed: Run):
    routed("routes", "update", "refunds", "--rate-limit", "1/60")
    for _ in range(3):
        assert "refunds" in routed("routes", "match", "refund my order").stdout


def test_changing(routed: Run):
    routed("routes", "update", "refunds", "--to", "large", "-u", "open the gate", "--drop", "refund my order", "--not",
           "open the garden gate", "--priority", "7", "--tier", "gold", "--inactive")  # fmt: skip
    route = json.loads(routed("routes", "show", "refunds", "--json").stdout)
    assert (route["target_agent"], route["priority"], route["is_active"]) == ("large", 7, False)
    assert route["utterances"] == ["I want my money back", "open the gate"]
    assert route["conditions"] == {"user_tier": ["gold"]}
    routed("routes", "update", "refunds", "--no-conditions", "--active")
    route = json.loads(routed("routes", "show", "refunds", "--json").stdout)
    assert (route["conditions"], route["is_active"]) == ({}, True)
    routed("routes", "remove", "refunds")
    assert [r["name"] for r in routes_of(routed)] == ["code"]


@pytest.mark.parametrize("form", ["--json", "yaml"])
@pytest.mark.parametrize("shape", [(), ("--semantic-router",)])
def test_out_and_in_again(routed: Run, tmp_path, form, shape):
    routed("routes", "update", "refunds", "--threshold", "0.25", "--not", "naïve 模型", "--tier", "gold")
    before = routes_of(routed)
    text = routed("routes", "export", *shape, *(["--json"] if form == "--json" else [])).stdout
    file = tmp_path / ("routes.json" if form == "--json" else "routes.yaml")
    file.write_text(text, encoding="utf-8")
    routed("routes", "import", str(file), code=4)
    routed("routes", "import", str(file), "--replace")
    assert routes_of(routed) == before
    for route in before:
        routed("routes", "remove", route["name"])
    done = json.loads(routed("routes", "import", str(file), "--json").stdout)
    assert done == {"imported": ["code", "refunds"]}
    assert routes_of(routed) == before


def test_a_file_of_the_other_package(filled: Run, tmp_path):
    layer = {
        "encoder_type": "openai", "encoder_name": "text-embedding-3-small",
        "routes": [
            {"name": "politics", "utterances": ["isn't politics the best thing ever"], "description": None,
             "function_schemas": None, "llm": None, "score_threshold": 0.3, "metadata": {}},
            {"name": "chitchat", "utterances": ["how's the weather today?"], "score_threshold": None},
        ],
    }  # fmt: skip
    file = tmp_path / "layer.yaml"
    file.write_text(yaml.safe_dump(layer))
    refused = filled("routes", "import", str(file), code=2)
    assert "names no target_agent" in refused.stderr
    filled("routes", "import", str(file), "--target", "small")
    found = {r["name"]: (r["target_agent"], r["threshold"], r["utterances"]) for r in routes_of(filled)}
    assert found == {
        "chitchat": ("small", None, ["how's the weather today?"]),
        "politics": ("small", 0.3, ["isn't politics the best thing ever"]),
    }


def test_fitting_on_the_labelled_requests(filled: Run, tmp_path):
    """The repository's own set: thresholds from one half are better on the other than the defaults, or as good."""
    rows = [line.split("\t") for line in (ROOT / "evals/routes/utterances.tsv").read_text().splitlines()[1:]]
    names = sorted({name for name, _ in rows})
    configs = [{"name": n, "target_agent": "small", "utterances": [t for r, t in rows if r == n]} for n in names]
    (tmp_path / "routes.json").write_text(json.dumps(configs))
    filled("routes", "import", "routes.json")
    labelled = str(ROOT / "evals/routes/requests.tsv")
    dry = json.loads(filled("routes", "fit", labelled, "--dry-run", "--json").stdout)
    assert not dry["kept"]
    assert {r["threshold"] for r in routes_of(filled)} == {None}
    text = filled("routes", "fit", labelled)
    assert "none of these" in text.stdout
    assert f"accuracy           {dry['after']['accuracy']:.3f} (before: {dry['before']['accuracy']:.3f})" in text.stdout
    assert {r["name"]: r["threshold"] for r in routes_of(filled)} == dry["thresholds"]
    assert dry["fitted_on"] + dry["after"]["requests"] == 1033
    assert dry["after"]["accuracy"] > 0.6
    assert dry["after"]["calibration_error"] < 0.1
    careful = json.loads(filled("routes", "fit", labelled, "--min-confidence", "0.9", "--dry-run", "--json").stdout)

    def precision(report):
        rows = [row for row in report["after"]["routes"] if row["route_name"] is not None]
        return sum(row["right"] for row in rows) / sum(row["answered"] for row in rows)

    assert precision(careful) > precision(dry) + 0.1


def test_errors(routed: Run, tmp_path):
    for code, arguments, message in (
        (4, REFUNDS, "'refunds' already"),
        (3, ("routes", "add", "x", "--to", "smal", "-u", "x"), "'smal', which is not registered"),
        (2, ("routes", "add", "x", "--to", "small"), "nothing could resemble it"),
        (2, ("routes", "add", "x", "--to", "small", "-u", "x", "--threshold", "2"), "threshold is 2.0"),
        (2, ("routes", "add", "x", "--to", "small", "-u", "x", "--between", "9"), "expected two times"),
        (2, ("routes", "add", "x", "--to", "small", "-u", "x", "--days", "mon"), "--between, which is not given"),
        (2, ("routes", "add", "x", "--to", "small", "-u", "x", "--rate-limit", "many"), "requests per seconds"),
        (2, ("routes", "add", "x", "--to", "small", "-u", "x", "--not", "x"), "as a negative example"),
        (2, ("routes", "update", "refunds", "--tier", "a", "--no-conditions"), "expected one of them"),
        (3, ("routes", "show", "refund"), "'refund'"),
        (3, ("routes", "remove", "refund"), "Did you mean 'refunds'?"),
        (2, ("routes", "import", "absent.yaml"), "cannot be read"),
    ):
        result = routed(*arguments, code=code)
        assert message in " ".join(result.stderr.split()), (arguments, result.stderr)
    for content, command, message in (
        ("a: [b", ("routes", "import"), "is no YAML"),
        ("[]", ("routes", "import"), "expected a list of routes"),
        (
            '[{"name": "x", "target_agent": "small", "utterance": ["x"]}]',
            ("routes", "import"),
            "Route number 1: Unknown",
        ),
        ("route,text\nabsent,hello\n", ("routes", "fit"), "'absent', which is no active route"),
        ("intent,text\nrefunds,hello\n", ("routes", "fit"), "has no route and text"),
        ("route,text\nrefunds,hello\n", ("routes", "fit"), "expected at least 10 requests"),
        ("{nonsense", ("routes", "fit"), "neither JSON nor JSON lines"),
        ("", ("routes", "fit"), "no labelled request"),
    ):
        (tmp_path / "given").write_text(content)
        result = routed(*command, "given", code=2)
        assert message in " ".join(result.stderr.split()), (content, result.stderr)
    assert len(routes_of(routed)) == 2
