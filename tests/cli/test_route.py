"""``tinydancer route``: the service's decision, told to people and to programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tinydancer.service import TinyDancer
from tinydancer.types import CONSTRAINT_KEYS, OBJECTIVES

FRENCH = "Translate this letter into French."


def decided(result) -> Any:
    return json.loads(result.stdout)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_json_is_what_the_service_decides(filled, store, objective):
    got = decided(filled("route", FRENCH, "-o", objective, "--json", "--no-record"))
    with TinyDancer(store) as dancer:
        expected = dancer.route(FRENCH, objective)
        assert got == {**expected.to_dict(), "decision_id": None}


def test_every_constraint_arrives(filled, store):
    filled(
        "route", FRENCH, "--max-cost", "0.5", "--max-latency-ms", "1000", "--min-quality", "0.1", "--require", "chat",
        "--require", "translation", "--exclude", "large", "--exclude", "nobody", "--budget-remaining", "2",
        "--good-enough", "0.5", "--on-no-match", "null",
    )  # fmt: skip
    with TinyDancer(store) as dancer:
        (row,) = dancer.store.list_decisions()
    assert dict(row.constraints) == {
        "max_cost": 0.5, "max_latency_ms": 1000.0, "min_quality": 0.1, "required_capabilities": ["chat", "translation"],
        "excluded_agents": ["large", "nobody"], "budget_remaining": 2.0, "good_enough": 0.5, "on_no_match": "null",
    }  # fmt: skip
    assert set(row.constraints) == set(CONSTRAINT_KEYS)


def test_the_size_of_the_request_changes_its_cost(filled):
    sizes = ("--input-tokens", "1000", "--output-tokens", "2000", "--json")
    got = decided(filled("route", FRENCH, "--exclude", "large", "--exclude", "mystery", *sizes))
    assert got["estimated_cost"] == pytest.approx(1000 * 0.15e-6 + 2000 * 0.60e-6, rel=1e-9)
    filled("agents", "update", "small", "--cached-input-per-1m", "0.01")
    cached = ("--cached-input-tokens", "400")
    got = decided(filled("route", FRENCH, "--exclude", "large", "--exclude", "mystery", *sizes, *cached))
    assert got["estimated_cost"] == pytest.approx(600 * 0.15e-6 + 400 * 0.01e-6 + 2000 * 0.60e-6, rel=1e-9)


def test_a_text_may_come_in_every_way(filled, tmp_path):
    (tmp_path / "letter.txt").write_text(FRENCH + "\n")
    ways = [
        filled("route", FRENCH, "--json", "--no-record"),
        filled("route", *FRENCH.split(), "--json", "--no-record"),
        filled("route", "--file", "letter.txt", "--json", "--no-record"),
        filled("route", "-", "--json", "--no-record", input=FRENCH + "\n"),
        filled("route", "--json", "--no-record", input=FRENCH),
        filled("route", "-", "--json", "--no-record", input=b"\xef\xbb\xbf" + FRENCH.encode()),
    ]
    assert len({way.stdout for way in ways}) == 1


def test_people_read_the_agent_the_reason_and_the_id(filled, store):
    text = filled("route", FRENCH, "-o", "cost").stdout
    with TinyDancer(store) as dancer:
        (row,) = dancer.store.list_decisions()
        decision = dancer.route(FRENCH, "cost")
    assert text.splitlines()[0] == "small"
    assert row.decision_id in text
    assert decision.reasoning in text
    assert "$0.00018" in text


def test_explain_has_a_row_for_every_agent(filled):
    text = filled("route", FRENCH, "-o", "quality", "--max-cost", "1", "--exclude", "small", "--explain").stdout
    rows = {line.split()[0]: line for line in text.split("verdict\n")[1].splitlines()[1:]}
    assert set(rows) == {"small", "large", "mystery"}
    assert rows["large"].endswith("chosen")
    assert "out: is in excluded_agents" in rows["small"]
    assert "out: its cost is unknown" in rows["mystery"]
    got = decided(filled("route", FRENCH, "--exclude", "small", "--explain", "--json"))
    assert got["exclusions"] == {"small": "is in excluded_agents"}


def test_explain_is_not_limited_to_the_usual_number_of_alternatives(run):
    for i in range(7):
        run("agents", "add", f"a{i}", "--cost-per-request", str(i))
    assert len(decided(run("route", "Hello", "--json"))["alternatives"]) == 3
    assert len(decided(run("route", "Hello", "--explain", "--json"))["alternatives"]) == 6


def test_recording_can_be_switched_off(filled):
    assert decided(filled("route", "Hello", "--json", "--no-record"))["decision_id"] is None
    assert "not recorded" in filled("route", "Hello", "--no-record").stdout
    assert json.loads(filled("decisions", "--json").stdout) == []


def test_no_match_gives_a_reason_per_agent(filled):
    result = filled("route", "Hello", "--max-cost", "0.00000001", code=5)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert [line.split(":")[0].strip() for line in lines[1:4]] == ["large", "mystery", "small"]
    assert lines[4].startswith("hint: ")
    as_json = filled("route", "Hello", "--max-cost", "0.00000001", "--json", code=5)
    assert as_json.stdout == ""
    error = json.loads(as_json.stderr)
    assert error["error"] == "no_match"
    assert set(error["exclusions"]) == {"large", "mystery", "small"}


def test_a_long_list_of_reasons_is_cut_for_people_only(run):
    run("agents", "load", "-", input=json.dumps([{"name": f"agent-{i:02}"} for i in range(30)]))
    people = run("route", "Hello", "--max-cost", "1", code=5).stderr.splitlines()
    assert len(people) == 1 + 20 + 1 + 1
    assert "10 more" in people[21]
    assert len(json.loads(run("route", "Hello", "--max-cost", "1", "--json", code=5).stderr)["exclusions"]) == 30


def test_no_match_may_be_an_answer(filled):
    result = filled("route", "Hello", "--max-cost", "0.00000001", "--on-no-match", "null", "--json")
    assert result.stdout == "null\n"
    assert "No agent fits." in filled("route", "Hello", "--max-cost", "0.00000001", "--on-no-match", "null").stderr


BAD = {
    "empty text": ([""], "empty"),
    "blank text": ([" \n "], "empty"),
    "1 MB of text": (["x" * 100_000] * 10, "1,000,009 characters"),
    "an unknown objective": (["Hi", "-o", "cheap"], "quality_per_dollar"),
    "an unknown constraint": (["Hi", "--max-price", "3"], "--max-cost"),
    "quality above 1": (["Hi", "--min-quality", "2"], "[0, 1]"),
    "a NaN limit": (["Hi", "--max-cost", "nan"], "max_cost is nan"),
    "a negative limit": (["Hi", "--max-latency-ms", "-5"], "max_latency_ms is -5.0"),
    "an unknown way out": (["Hi", "--on-no-match", "maybe"], "'maybe'"),
    "an unknown way out of a batch": (["--batch", "--on-no-match", "maybe", "Hi"], "'maybe'"),
    "negative tokens": (["Hi", "--input-tokens", "-1"], "input_tokens"),
    "an empty capability": (["Hi", "--require", ""], "required_capabilities"),
    "two sources": (["Hi", "--file", "f.txt"], "--file"),
    "standard input and a file": (["-", "--file", "f.txt"], "--file"),
    "a file that is not there": (["--file", "f.txt"], "f.txt cannot be read"),
    "batch and explain": (["Hi", "--batch", "--explain"], "--explain"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_nothing_is_recorded(filled, case):
    args, expected = BAD[case]
    result = filled("route", *args, code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr
    as_json = json.loads(filled("route", *args[:1], "--json", *args[1:], code=2).stderr)
    assert set(as_json) == {"error", "message", "detail", "hint"}
    assert json.loads(filled("decisions", "--json").stdout) == []


def test_text_that_is_not_utf8_is_located(filled, tmp_path):
    assert "byte 0xe9 at position 3" in filled("route", "-", input=b"caf\xe9", code=2).stderr
    (tmp_path / "latin.txt").write_bytes(b"Stra\xdfe")
    assert "latin.txt is not UTF-8: byte 0xdf at position 4" in filled("route", "-f", "latin.txt", code=2).stderr


def test_no_agents_says_what_to_do(run):
    assert "tinydancer agents add" in run("route", "Hello", code=5).stderr


# -- many at once --------------------------------------------------------------------------------------------------


def test_a_batch_decides_as_one_by_one(filled):
    texts = ["Hello there", "Write a parser in Rust.", FRENCH]
    lines = [
        json.loads(line) for line in filled("route", "--batch", "--json", input="\n".join(texts)).stdout.splitlines()
    ]
    assert [line["line"] for line in lines] == [1, 2, 3]
    for text, line in zip(texts, lines, strict=True):
        single = decided(filled("route", text, "--json"))
        for key in ("agent_name", "reasoning"):
            assert line[key] == single[key]
        assert line["similarity_score"] == pytest.approx(single["similarity_score"], abs=1e-6)
    assert len({line["decision_id"] for line in lines}) == 3


def test_a_batch_skips_blank_lines_and_keeps_the_numbers(filled, tmp_path):
    (tmp_path / "requests.txt").write_text("Hello\r\n\r\n   \nGoodbye\n")
    result = filled("route", "--batch", "--file", "requests.txt", "--json")
    assert [json.loads(line)["line"] for line in result.stdout.splitlines()] == [1, 4]
    assert "2 requests" in result.stderr


def test_json_lines_are_read_by_their_key(filled):
    records: list[dict[str, Any]] = [{"request": "Write code.\nIn Python.", "id": 7}, {"request": "Hello"}]
    text = "\n".join(json.dumps(r) for r in records)
    lines = [json.loads(line) for line in filled("route", "--batch", "--json", "-", input=text).stdout.splitlines()]
    for record, line in zip(records, lines, strict=True):
        single = decided(filled("route", record["request"], "--json"))
        assert line["agent_name"] == single["agent_name"]
        assert line["similarity_score"] == pytest.approx(single["similarity_score"], abs=1e-6)


def test_a_batch_as_a_table(filled):
    rows = filled("route", "--batch", input="Hello\nWrite a parser in Rust.\n").stdout.splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert rows[0].endswith("Hello")


def test_a_request_that_nobody_fits_does_not_stop_the_others(filled):
    requests = ("Write a parser in Rust.", "Translate this chat into French.")
    best = [decided(filled("route", text, "-o", "quality", "--json"))["expected_quality"] for text in requests]
    assert best[0] > best[1]
    bar, text = str(sum(best) / 2), "\n".join(requests)
    result = filled("route", "--batch", "--json", "--min-quality", bar, "-o", "quality", input=text, code=5)
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first["agent_name"] == "large"
    assert second["agent_name"] is None
    assert set(second["error"]["exclusions"]) == {"small", "large", "mystery"}
    table = filled("route", "--batch", "--min-quality", bar, "-o", "quality", input=text, code=5).stdout
    assert "no agent fits" in table.splitlines()[-1]
    quiet = filled(
        "route", "--batch", "--json", "--min-quality", bar, "-o", "quality", "--on-no-match", "null", input=text
    )
    assert json.loads(quiet.stdout.splitlines()[1]) == {"line": 2, "agent_name": None}


def test_a_batch_larger_than_a_block_is_complete_and_in_order(filled):
    texts = [f"Question number {i}" for i in range(600)]
    result = filled("route", "--batch", "--json", input="\n".join(texts))
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["line"] for line in lines] == list(range(1, 601))
    assert json.loads(filled("stats", "--json").stdout)["total_decisions"] == 600


BAD_BATCHES = {
    "nothing": (" \n \n", "The batch is empty"),
    "a NUL": ("Hello\nwor\0ld\n", "Line 2: The request holds a NUL"),
    "a record without the key": ('{"request": "a"}\n{"text": "b"}\n', "Line 2 has no text under the key 'request'"),
    "a record that is no JSON": ('{"request": "a"}\n\nplain\n', "Line 3 is no JSON"),
    "a record of a number": ('{"request": "a"}\n{"request": 3}\n', "Line 2"),
    "an empty request": ('{"request": "a"}\n{"request": " "}\n', "Line 2: The request is empty"),
    "a line that is too long": ("Hello\n" + "x" * 400_001, "Line 2: The request has 400,001 characters"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_a_bad_line_is_named_before_anything_is_routed(filled, case):
    text, expected = BAD_BATCHES[case]
    result = filled("route", "--batch", "--json", input=text, code=2)
    assert result.stdout == ""
    assert expected in json.loads(result.stderr)["message"]
    assert json.loads(filled("decisions", "--json").stdout) == []
