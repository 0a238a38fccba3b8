"""The two tables: what is read, what is refused and where, what is warned of."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinydancer import tables
from tinydancer.errors import InvalidInputError, InvalidNameError, InvalidTextError, NotFoundError
from tinydancer.tables import OutcomeTable, read_tables, size_of_tables, write_tables

REQUESTS = 'request_id,task,request\nr1,sums,"What is 2, plus 2?"\nr2,letters,"Write\nto ""Anna""."\nr3,,Grüße\n'
HEAD = "request_id,agent,quality,cost_usd\n"
OUTCOMES = HEAD + "r1,zeta,1,0.5\nr1,alpha,0.25,\nr2,alpha,0,0.001\nr3,zeta,0.75,0\nr3,alpha,1,2e-3\n"


def read(folder: Path, requests: str | bytes = REQUESTS, outcomes: str | bytes = OUTCOMES, **more) -> OutcomeTable:
    for name, content in (("requests.csv", requests), ("outcomes.csv", outcomes)):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_tables(folder / "requests.csv", folder / "outcomes.csv", **more)


def test_every_field_arrives(tmp_path):
    table = read(tmp_path)
    assert table.request_ids == ("r1", "r2", "r3")
    assert table.tasks == ("sums", "letters", "")
    assert table.texts == ("What is 2, plus 2?", 'Write\nto "Anna".', "Grüße")
    assert table.agents == ("alpha", "zeta")
    nan = np.nan
    np.testing.assert_array_equal(table.quality, np.array([[0.25, 1], [0, nan], [1, 0.75]], np.float32))
    np.testing.assert_array_equal(table.cost_usd, np.array([[nan, 0.5], [0.001, nan], [0.002, 0]], np.float32))
    assert table.quality.dtype == table.cost_usd.dtype == np.float32
    assert len(table) == 3


def test_columns_may_come_in_any_order_and_others_are_ignored(tmp_path):
    table = read(
        tmp_path,
        " request ,note,request_id\nHello,x,a\n\nHow are you?,y,b\n",
        "quality,agent,request_id\n1,m,b\n0,m,a\n",
    )
    assert table.texts == ("Hello", "How are you?")
    assert table.tasks is None
    assert table.quality.tolist() == [[0.0], [1.0]]
    assert np.isnan(table.cost_usd).all()
    assert table.cost_usd.shape == (2, 1)


@pytest.mark.parametrize("name", ["requests.csv.gz", "requests.csv"])
def test_gzip_is_told_by_content(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"\xef\xbb\xbf" + REQUESTS.encode()))
    (tmp_path / "outcomes.csv").write_text(OUTCOMES)
    plain = read(tmp_path)
    packed = read_tables(tmp_path / name, tmp_path / "outcomes.csv")
    assert packed.texts == plain.texts
    np.testing.assert_array_equal(packed.quality, plain.quality)


def test_rows_and_agents_are_chosen(tmp_path):
    table = read(tmp_path)
    some = table.rows([2, 0])
    assert some.request_ids == ("r3", "r1")
    assert some.tasks == ("", "sums")
    assert some.quality.tolist() == [[1.0, 0.75], [0.25, 1.0]]
    masked = table.rows(np.array([True, False, True]))
    assert masked.request_ids == ("r1", "r3")
    other = table.with_agents(("zeta", "nobody"))
    assert other.agents == ("zeta", "nobody")
    np.testing.assert_array_equal(other.quality[:, 0], table.quality[:, 1])
    np.testing.assert_array_equal(other.cost_usd[:, 0], table.cost_usd[:, 1])
    assert np.isnan(other.quality[:, 1]).all()
    with pytest.raises(InvalidInputError, match="twice"):
        table.with_agents(("zeta", "zeta"))


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_what_is_written_is_read_back(tmp_path, ending):
    table = read(tmp_path)
    paths = tmp_path / f"r{ending}", tmp_path / f"o{ending}"
    write_tables(table, *paths)
    first = [path.read_bytes() for path in paths]
    again = read_tables(*paths)
    assert (again.request_ids, again.tasks, again.texts, again.agents) == (
        table.request_ids, table.tasks, table.texts, table.agents,
    )  # fmt: skip
    np.testing.assert_array_equal(again.quality, table.quality)
    np.testing.assert_array_equal(again.cost_usd, table.cost_usd)
    write_tables(again, *paths)
    assert [path.read_bytes() for path in paths] == first
    assert (first[0][:2] == b"\x1f\x8b") == (ending == ".csv.gz")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(str.strip),
        min_size=1, max_size=6,
    ),
    data=st.data(),
)  # fmt: skip
def test_any_text_survives_the_round_trip(tmp_path, texts, data):
    grades = st.one_of(st.none(), st.floats(0, 1, width=32))
    quality = np.array([[data.draw(grades) for _ in "ab"] for _ in texts], np.float32)
    quality[:, 0] = 1.0  # every request has an outcome
    nan = np.full_like(quality, np.nan)
    table = OutcomeTable(tuple(str(i) for i in range(len(texts))), None, tuple(texts), ("a", "b"), quality, nan)
    write_tables(table, tmp_path / "r.csv", tmp_path / "o.csv")
    again = read_tables(tmp_path / "r.csv", tmp_path / "o.csv")
    assert again.texts == table.texts
    np.testing.assert_array_equal(again.with_agents(("a", "b")).quality, quality)


BAD_REQUESTS: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "requests.csv is empty"),
    "blank lines": ("\n\n", "requests.csv is empty"),
    "header only": ("request_id,request\n", "no rows"),
    "no text column": ("request_id,prompt\nr1,Hi\n", "no column 'request'; its header is 'request_id, prompt'"),
    "semicolons": ("request_id;request\nr1;Hi\n", "separated by commas, not by ';'"),
    "column twice": ("request_id,request,request\nr1,a,b\n", "two columns 'request'"),
    "id twice": ("request_id,request\nr1,Hi\nr2,Ho\nr1,He\n", "line 4: request_id 'r1' comes twice"),
    "id twice, after a line break": ('request_id,request\nr1,"H\ni"\nr1,He\n', "line 4: request_id 'r1' comes twice"),
    "no id": ("request_id,request\n ,Hi\n", "line 2: the request_id is empty"),
    "blank text": ("request_id,request\nr1,Hi\nr2, \n", "line 3: The request is empty"),
    "NUL": ("request_id,request\nr1,a\x00b\n", "line 2: The request holds a NUL"),
    "field missing": ("request_id,task,request\nr1,Hi\n", "line 2: the row has 2 fields; the header has 3"),
    "field too many": ("request_id,request\nr1,Hi, there\n", "line 2: the row has 3 fields; the header has 2"),
    "open quote": ('request_id,request\nr1,Hi\nr2,"Ho\nr3,He\n', "line 3: this is no CSV"),
    "stray quote": ('request_id,request\nr1,"Hi" there\n', "line 2: this is no CSV"),
    "latin-1": (
        "request_id,request\nr1,Hi\nr2,Grüße\n".encode("latin-1"),
        "line 3: not UTF-8: byte 0xfc at position 5",
    ),
    "too long": ("request_id,request\nr1," + "x" * 400_001 + "\n", "line 2: The request has 400,001 characters"),
}
BAD_OUTCOMES = {
    "nothing": ("", "outcomes.csv is empty"),
    "header only": (HEAD, "no rows"),
    "no quality": ("request_id,agent,score\nr1,a,1\n", "no column 'quality'"),
    "unknown request": (HEAD + "r1,a,1,\nr9,a,1,\n", "line 3: the request_id 'r9' is not in .*requests.csv"),
    "twice": (HEAD + "r1,a,1,\nr1,b,1,\nr1,a,0,\n", "line 4: the outcome of 'a' for 'r1' comes twice"),
    "quality NaN": (HEAD + "r1,a,nan,\n", r"line 2: quality is 'nan'; expected a number in \[0, 1\]"),
    "quality above 1": (HEAD + "r1,a,1.01,\n", "line 2: quality is '1.01'"),
    "quality below 0": (HEAD + "r1,a,-0.1,\n", "line 2: quality is '-0.1'"),
    "quality empty": (HEAD + "r1,a,,\n", "line 2: quality is empty"),
    "quality text": (HEAD + "r1,a,good,\n", "line 2: quality is 'good'"),
    "cost negative": (HEAD + "r1,a,1,-0.5\n", "line 2: cost_usd is '-0.5'"),
    "cost infinite": (HEAD + "r1,a,1,inf\n", "line 2: cost_usd is 'inf'"),
    "cost text": (HEAD + "r1,a,1,$2\n", "line 2: cost_usd is '\\$2'"),
    "no agent": (HEAD + "r1,,1,\n", "line 2: The agent is empty"),
    "blanks around an agent": (HEAD + "r1, a,1,\n", "line 2: The agent is ' a'; expected no blanks"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_requests_are_refused_with_file_and_line(tmp_path, case):
    content, message = BAD_REQUESTS[case]
    with pytest.raises(InvalidInputError, match=message) as caught:
        read(tmp_path, requests=content)
    assert "requests.csv" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("case", BAD_OUTCOMES)
def test_bad_outcomes_are_refused_with_file_and_line(tmp_path, case):
    content, message = BAD_OUTCOMES[case]
    with pytest.raises(InvalidInputError, match=message) as caught:
        read(tmp_path, outcomes=content)
    assert "outcomes.csv" in caught.value.message
    assert caught.value.hint or isinstance(caught.value, InvalidNameError)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError, match=r"nowhere\.csv does not exist"):
        read_tables(tmp_path / "nowhere.csv", tmp_path / "outcomes.csv")
    with pytest.raises(InvalidInputError, match="cannot be read: Is a directory"):
        read_tables(tmp_path, tmp_path / "outcomes.csv")


@pytest.mark.parametrize("damage", ["cut", "cut in the header", "flipped"])
def test_a_damaged_gzip_is_refused(tmp_path, damage):
    packed = bytearray(
        gzip.compress(("request_id,request\n" + "".join(f"r{i},Hi {i * i}\n" for i in range(9999))).encode())
    )
    if damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
    kept = {"cut": len(packed) // 2, "cut in the header": 6, "flipped": len(packed)}[damage]
    with pytest.raises(InvalidInputError, match=r"requests\.csv.*(damaged|no CSV|comes twice|not UTF-8|fields)"):
        read(tmp_path, requests=bytes(packed[:kept]))


def test_a_cut_gzip_of_outcomes_is_no_smaller_table(tmp_path):
    packed = gzip.compress((HEAD + "".join(f"r{i % 3 + 1},agent {i},{i % 2},\n" for i in range(3000))).encode())
    with pytest.raises(InvalidInputError, match="truncated or damaged after line"):
        read(tmp_path, outcomes=packed[:-20])


def test_max_chars_is_the_callers(tmp_path):
    with pytest.raises(InvalidTextError, match="line 2: The request has 18 characters; expected at most 17"):
        read(tmp_path, max_chars=17)


def test_a_request_longer_than_what_csv_allows_by_default(tmp_path):
    import csv

    before = csv.field_size_limit()
    table = read(tmp_path, "request_id,request\nr1," + "x" * 300_000 + "\n", HEAD + "r1,a,1,\n")
    assert len(table.texts[0]) == 300_000
    assert csv.field_size_limit() == before


def test_too_many_cells_are_refused_where_they_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_CELLS", 5)
    with pytest.raises(InvalidInputError, match="line 3: this is agent number 2 for 3 requests; expected at most 5"):
        read(tmp_path)


def test_what_may_mislead_is_said(tmp_path):
    n = 30
    requests = "request_id,request\n" + "".join(f"r{i},Question {min(i, 27)}\n" for i in range(n)) + "lonely,Hello\n"
    outcomes = HEAD + "".join(
        f"r{i},same,1,0.1\nr{i},varied,{i % 2},{0.1 if i else ''}\n" + (f"r{i},rare,1,0.1\n" if i < 4 else "")
        for i in range(n)
    )
    table = read(tmp_path, requests, outcomes)
    assert len(table) == n
    assert "lonely" not in table.request_ids
    assert table.warnings == (
        "1 of 31 requests have no outcome and are left out: lonely.",
        "2 of 31 requests repeat the text of another; repeated texts are kept together wherever rows are split.",
        "Agents with fewer than 10 outcomes, too few to learn much from: rare (4).",
        "Agents whose outcomes are all alike, so that nothing tells requests apart: same (all 1).",
        "1 of 64 outcomes have no cost_usd.",
    )
    assert table.rows([0]).warnings == table.warnings


def test_many_names_in_a_warning_are_counted(tmp_path):
    requests = "request_id,request\n" + "".join(f"r{i},Question {i}\n" for i in range(9))
    table = read(tmp_path, requests, HEAD + "r0,a,1,\n")
    assert table.warnings[0].startswith(
        "8 of 9 requests have no outcome and are left out: r1, r2, r3, r4, r5 and 3 more."
    )


def test_nothing_is_warned_of_without_reason(tmp_path):
    requests = "request_id,request\n" + "".join(f"r{i},Question {i}\n" for i in range(20))
    outcomes = HEAD + "".join(f"r{i},{a},{(i + len(a)) % 2},0.5\n" for i in range(20) for a in ("a", "bb"))
    assert read(tmp_path, requests, outcomes).warnings == ()
    assert read(tmp_path, requests, outcomes.replace(",0.5", ",")).warnings == ()


def test_progress_adds_up_to_the_size_of_the_files(tmp_path):
    requests = "request_id,request\n" + "".join(f"r{i},Question {i}\n" for i in range(9000))
    told: list[int] = []
    read(tmp_path, requests, HEAD + "".join(f"r{i},a,1,\n" for i in range(9000)), progress=told.append)
    paths = tmp_path / "requests.csv", tmp_path / "outcomes.csv"
    assert sum(told) == size_of_tables(*paths) == sum(path.stat().st_size for path in paths)
    assert len(told) > 4
    assert size_of_tables(tmp_path / "nowhere") == 0
