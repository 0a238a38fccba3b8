"""What the static embedder is fitted on, and that nothing held out leaks into it."""

from __future__ import annotations

import csv
import gzip
import random
from pathlib import Path

import pytest

from static_embedder_requests import PHRASES, REQUESTS, SLOTS, RequestWriter, synthetic_requests
from static_embedder_texts import (
    MMLU_TASKS_NEVER_FITTED,
    Prompt,
    clean,
    cut_paragraph,
    cut_prompt,
    html_paragraphs,
    prompt_splits,
    read_prompts,
    split_of_document,
    worth_fitting,
)

WORDS = [
    "amber", "basin", "cedar", "delta", "ember", "flint", "grove", "heath", "inlet", "jetty", "knoll", "lagoon",
    "marsh", "north", "ochre", "pier",
]  # fmt: skip


def question(number: int) -> str:
    return " ".join(random.Random(number).choices(WORDS, k=20)) + f" number {number}?"


def test_whole_tasks_are_held_out_and_unnamed_tasks_unused() -> None:
    prompts = [Prompt("mmlu", task, question(i)) for i, task in enumerate(sorted(MMLU_TASKS_NEVER_FITTED))]
    prompts.append(Prompt("open7", "mmlu", question(99)))
    assert prompt_splits(prompts) == ["test-task"] * len(MMLU_TASKS_NEVER_FITTED) + ["unused"]


def test_a_question_repeated_in_another_folder_does_not_leak() -> None:
    held_out = Prompt("mmlu", "astronomy", question(1) + "\nA. yes\nB. no\nAnswer:")
    same = [Prompt("open7", "arc_easy", f"Question {i}: " + question(1)) for i in range(4)]
    others = [Prompt("open7", "arc_easy", question(i)) for i in range(100, 160)]
    splits = prompt_splits([held_out, *same, *others])
    assert splits[0] == "test-task"
    assert "fit" not in splits[1:5]
    assert splits.count("fit") > 30


def test_splits_hang_on_content_alone() -> None:
    prompts = [Prompt("gsm8k", "gsm8k", question(i)) for i in range(200)]
    assert prompt_splits(prompts)[::-1] == prompt_splits(prompts[::-1])
    shares = [split_of_document(f"document {i}") for i in range(5000)]
    assert 0.02 < shares.count("test") / 5000 < 0.04
    assert 0.012 < shares.count("stop") / 5000 < 0.028


def test_prompts_are_read_without_the_brackets_one_source_has(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    with gzip.open(tmp_path / "some" / "requests.csv.gz", "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["request_id", "task", "request"])
        writer.writerow(["1", "t", repr(["What's new?\nTell me."])])
        writer.writerow(["2", "t", "[1, 2] is a list"])
    assert [p.text for p in read_prompts(tmp_path)] == ["What's new?\nTell me.", "[1, 2] is a list"]
    with pytest.raises(SystemExit, match="--data"):
        read_prompts(tmp_path / "nothing")


def test_cuts_are_parts_of_the_text() -> None:
    text = "The first sentence is here. The second one follows it. " * 6 + "Is this the question?\nA. one\nB. two"
    for cut in cut_prompt(text, random.Random(0)):
        assert " ".join(cut.split()) in " ".join(text.split())
    paragraph = " ".join(f"word{i}" for i in range(300))
    for cut in cut_paragraph(paragraph, random.Random(1)):
        assert cut in paragraph
        assert len(cut.split()) <= 70


def test_cleaning_keeps_words_and_drops_ornaments() -> None:
    assert clean("a\n\n  b =====\tc") == "a b c"
    assert worth_fitting("plain words here")
    assert not worth_fitting("0x7f3a 0011 2233 9f")
    assert [
        p.strip() for p in html_paragraphs("<h1>T &amp; U</h1><script>x()</script><p>one <b>two</b></p>") if p.strip()
    ] == [
        "T & U",
        "one two",
    ]


def test_every_wording_can_be_filled_and_the_seed_decides() -> None:
    writer = RequestWriter({}, random.Random(0))
    for wording in REQUESTS + PHRASES:
        filled = writer._fill(wording)
        assert "{" not in filled
        assert filled
    assert all(items and len(items) == len(set(items)) for items in SLOTS.values())
    words = {"noun": ["violin", "harbour"], "verb": ["paint"], "adj": ["green"]}
    first = list(synthetic_requests(words, ["Some context to work on."], 300, seed=3))
    assert first == list(synthetic_requests(words, ["Some context to work on."], 300, seed=3))
    assert first != list(synthetic_requests(words, ["Some context to work on."], 300, seed=4))
    assert len(set(first)) > 250
