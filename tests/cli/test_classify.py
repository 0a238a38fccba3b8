"""``tinydancer classify`` and ``tinydancer classifiers``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

EXAMPLES = """class,text,capabilities
billing,I was charged twice,tools
billing,Where is my invoice?,
billing,The amount on the bill is wrong,tools
billing,Send me a receipt for my payment,tools
outage,The site is down,
outage,Nothing loads since this morning,
outage,"Error 503 on every page, what happened?",
outage,The server does not answer,
"""


@pytest.fixture
def labelled(tmp_path: Path) -> str:
    path = tmp_path / "labelled.csv"
    path.write_text(EXAMPLES)
    return str(path)


def test_one_request(run: Run, store: Path):
    shown = run("classify", "Translate", "this letter", "into French")
    first = shown.stdout.splitlines()[2].split()
    assert first[0] == "translation"
    assert float(first[1]) > 0.9
    assert "█" in first[2]
    assert "Its answer takes: translation (" in shown.stdout
    assert len(shown.stdout.splitlines()) == 2 + 12 + 2
    assert shown.stderr == ""
    assert not store.exists()


def test_json_and_top(run: Run):
    found = json.loads(run("classify", "-", "--top", "2", "--json", input="Solve 3x + 1 = 10\n").stdout)
    assert found["top_category"] == found["classifications"][0][0] == "mathematics"
    assert len(found["classifications"]) == 2
    assert found["confidence"] == found["classifications"][0][1]
    assert [name for name, _ in found["capabilities"]][:1] == ["mathematics"]
    assert found["model"].startswith("classifier:")


def test_many_requests_one_per_line(run: Run, tmp_path: Path):
    source = "hello there\n\nWrite a poem about the sea\n"
    lines = run("classify", "--batch", "-", "--json", "--top", "1", input=source).stdout.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [(a["line"], a["top_category"]) for a in answers] == [(1, "conversation"), (3, "writing")]
    (tmp_path / "r.jsonl").write_text('{"request": "hello there"}\n{"text": "Write a poem about the sea"}\n')
    table = run("classify", "--batch", "--file", str(tmp_path / "r.jsonl")).stdout
    assert "conversation" in table
    assert "Write a poem about the sea" in table


@pytest.mark.parametrize(
    ("args", "source", "words"),
    [
        (["-"], "  \n", "empty"),
        (["--batch", "-"], "\n\n", "no request"),
        (["--batch", "-"], "fine\n\x00\n", "Line 2"),
        (["--batch", "-"], '{"question": "x"}\n', 'Line 1 has no "request"'),
        (["x", "--model", "absent.safetensors"], None, "absent.safetensors cannot be read"),
    ],
)
def test_bad_requests(run: Run, args: list[str], source: str | None, words: str):
    result = run("classify", *args, input=source, code=2)
    assert words in result.stderr
    assert result.stdout == ""


def test_classes_of_your_own(run: Run, labelled: str, tmp_path: Path):
    out = tmp_path / "own.safetensors"
    trained = run("classifiers", "train", labelled, "--use", "desk", "--out", str(out), "--seed", "4")
    assert "of 8 unseen requests in the right one of 2 classes" in trained.stdout
    assert "Warning: 8 examples are few" in trained.stderr
    assert "desk answers from now on." in trained.stderr
    assert out.stat().st_size > 1000
    found = json.loads(run("classify", "my invoice is wrong", "--json").stdout)
    assert {name for name, _ in found["classifications"]} == {"billing", "outage"}
    assert found["top_category"] == "billing"
    again = json.loads(run("classify", "my invoice is wrong", "--json", "--model", str(out)).stdout)
    assert again == found
    assert json.loads(run("classify", "x", "--model", "shipped", "--json").stdout)["model"] != found["model"]

    listed = json.loads(run("classifiers", "list", "--json").stdout)
    assert [(one["name"], one["answers"]) for one in listed] == [("shipped", False), ("desk", True)]
    assert "billing, outage" in run("classifiers", "list").stdout
    run("classifiers", "use", "shipped")
    assert json.loads(run("classify", "my invoice is wrong", "--json").stdout)["model"] != found["model"]
    run("classifiers", "use", "copy", "--file", str(out))
    assert json.loads(run("classify", "my invoice is wrong", "--json").stdout) == found
    assert json.loads(run("classifiers", "remove", "copy", "--json").stdout) == {"name": "copy", "removed": True}
    assert "support" in run("classify", "where is my parcel?").stdout
    assert "no-such" in run("classifiers", "use", "no-such", code=3).stderr


def test_training_reports_and_repeats(run: Run, labelled: str, store: Path):
    first = run("classifiers", "train", labelled, "--json", "--folds", "2")
    report = json.loads(first.stdout)["report"]
    assert report["rows"] == 8
    assert report["class_counts"] == {"billing": 4, "outage": 4}
    assert sum(map(sum, report["confusion"])) == 8
    assert set(report["capability_f1"]) == {"tools"}
    assert run("classifiers", "train", labelled, "--json", "--folds", "2").stdout == first.stdout
    assert "Nothing was kept" in run("classifiers", "train", labelled).stderr
    assert not store.exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "holds no examples"),
        ("class,text\na,x\na,y\n", "All examples are of class 'a'"),
        ("class,text\na,x\na,y\nb,z\n", "one request only of: 'b'"),
        ("class,text\na,x\nb,x\n", "is in two classes"),
        ("class,text\na,x\nA,y\n", "differ in capitals only"),
        ("kind,text\na,x\n", "line 2: no class"),
    ],
)
def test_examples_that_cannot_be_learnt_from(run: Run, source: str, words: str):
    assert words in run("classifiers", "train", "-", input=source, code=2).stderr


def test_where_nothing_can_be_written(run: Run, labelled: str, tmp_path: Path):
    assert "cannot be written" in run("classifiers", "train", labelled, "--out", "no/such/c.st", code=2).stderr
    assert "is a folder" in run("classifiers", "train", labelled, "--out", str(tmp_path), code=2).stderr
