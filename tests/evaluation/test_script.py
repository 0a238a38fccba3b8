"""``make eval``: nothing is measured on what was learned, and every part runs on tables of the promised shape."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import evaluate as script
import quality_experiments as experiments
import quality_variants
from tests.evaluation.conftest import made_up
from tinydancer.embedding import StaticEmbedder
from tinydancer.model.quality_training import QualityTrainingConfig
from tinydancer.tables import write_tables

FAST = QualityTrainingConfig(hidden_dim=8, members=1, min_steps=40, epochs=1, folds=2)
STRONG, WEAK = experiments.NEW_AGENTS


def tables():
    """Four data sets of the promised shape, sixty to a hundred requests each."""
    pair = {"agents": ("cheap", "strong"), "costs": False}
    found = {
        "mmlu": replace(made_up(100, 1, **pair), agents=(WEAK, STRONG)),
        "gsm8k": replace(made_up(60, 2, **pair), agents=(WEAK, STRONG)),
        "routerbench": replace(made_up(80, 3), agents=("a", "b", STRONG)),
        "open7": replace(made_up(60, 4, costs=False), agents=("x", "y", "z")),
    }
    return {name: table.with_agents(sorted(table.agents)) for name, table in found.items()}


@pytest.fixture(scope="module")
def pooled():
    return experiments.pool(tables(), StaticEmbedder())


@pytest.fixture
def data(tmp_path):
    for name, table in tables().items():
        (tmp_path / name).mkdir()
        write_tables(table, tmp_path / name / "requests.csv.gz", tmp_path / name / "outcomes.csv.gz")
    return tmp_path


# -- nothing is measured on what was learned -----------------------------------------------------------------------


def test_the_same_question_in_another_frame_is_a_twin():
    question = "A train leaves the harbour at noon with ninety crates of oranges and stops twice before the border."
    frame = "Answer the following question about a small shop with one word only and nothing else please: "
    texts = [
        question, f"Choose an answer.\n{question}\nA. yes  B. no", "Short one", frame + "who?", frame + "when?",
        frame + "what?", frame + "why?", frame + "how?", frame + "where?", "Short one",
    ]  # fmt: skip
    groups = experiments.twins(texts).tolist()
    assert groups[0] == groups[1] == 0  # named after the first, whatever the order in which pairs are found
    assert groups[2] == groups[9] == 2  # equal texts, however short
    assert len(set(groups[3:9])) == 6  # what many share is a template


def test_training_rows_hold_no_twin_of_a_test_row(pooled):
    groups = pooled.groups.copy()
    groups[:4] = 0
    linked = replace(pooled, groups=groups)
    kept = experiments.not_like(linked, np.array([2, 50]))
    assert not {0, 1, 2, 3, 50} & set(kept.tolist())
    assert len(kept) >= len(groups) - 5 - 5
    assert set(experiments.not_these(linked, np.array([2, 50])).tolist()) == set(range(len(groups))) - {2, 50}
    folds = experiments.by_requests(linked, seed=0)
    assert len(set(folds[:4].tolist())) == 1
    assert set(folds.tolist()) == set(range(5))


def test_no_question_of_the_same_exam_is_kept_in_other_sets(pooled):
    tasks = ["mmlu" if i >= 240 else "other" for i in range(len(pooled.table))]
    examined = replace(pooled, table=replace(pooled.table, tasks=tuple(tasks)))
    kept = experiments.no_exam(examined, np.array([3]))
    assert set(range(4, 240)) <= set(kept.tolist()) | set(np.flatnonzero(pooled.groups == pooled.groups[3]).tolist())
    assert kept.max() < 240


def test_task_types_are_held_out_whole(pooled):
    fold = experiments.by_tasks(pooled, "mmlu", seed=0)
    rows = pooled.rows("mmlu")
    assert set(np.flatnonzero(fold >= 0).tolist()) == set(rows.tolist())
    for task in set(pooled.table.tasks):
        assert len({fold[row] for row in rows.tolist() if pooled.table.tasks[row] == task}) == 1
    said = experiments.cross_predicted(pooled, fold, FAST, lambda _: None)[0]
    assert np.isfinite(said.quality[rows]).all()
    assert np.isnan(said.quality[pooled.rows("open7")]).all()
    found = experiments.evaluated(pooled, "mmlu", fold, said, 0, seed=0, resamples=5)
    by_name = {way.name: way.values for way in found.ways}
    # Nothing is known of a task that was never seen, so its mean is the agent's, and the ranking is chance.
    assert by_name["per-task mean"]["apgr"] == pytest.approx(0.5)
    assert by_name["per-task mean"]["brier"] == pytest.approx(by_name["best single"]["brier"])


def test_what_is_luck_cannot_be_predicted(pooled):
    """Qualities that are coins: whoever looks at the row that is predicted would be better than chance."""
    rng = np.random.default_rng(0)
    quality = rng.integers(0, 2, pooled.data.quality.shape).astype(np.float32)
    quality[np.isnan(pooled.data.quality)] = np.nan
    luck = replace(pooled, data=replace(pooled.data, quality=quality), table=replace(pooled.table, quality=quality))
    fold = experiments.by_requests(luck, seed=0)
    config = replace(FAST, penalty_embedding=0.0, penalty_agent=0.0, penalty_surface=0.0, min_steps=200)
    known = ~np.isnan(quality)

    def likeness(kept):
        said = experiments.cross_predicted(luck, fold, config, lambda _: None, kept)[0]
        return np.corrcoef(said.quality[known], quality[known])[0, 1]

    # Below zero is no wonder: where a fold has many good answers, the others have fewer.
    assert likeness(experiments.not_like) < 0.05
    assert likeness(lambda pool, test: np.arange(len(pool.table))) > 0.3  # what a leak would look like


# -- agents and data sets that the model does not know -------------------------------------------------------------


def test_an_agent_that_is_left_out_is_unknown_and_its_own_requests_too(pooled):
    data = experiments.subset(pooled.data, np.arange(len(pooled.table)), without="x")
    assert "x" not in data.agents
    assert len(data.agents) == len(pooled.table.agents) - 1
    column = pooled.table.agents.index("x")
    alone = pooled.data.quality.copy()
    alone[pooled.rows("open7")] = np.nan
    alone[pooled.rows("open7"), column] = 1.0
    data = experiments.subset(replace(pooled.data, quality=alone), np.arange(len(alone)), without="x")
    assert len(data) == len(pooled.table) - len(pooled.rows("open7"))


def test_a_new_agent_is_measured_before_and_after_outcomes(pooled):
    fold = experiments.by_requests(pooled, seed=0)
    rows = list(experiments.new_agent(pooled, STRONG, fold, FAST, 0, 20, lambda _: None))
    assert {(row["data"], row["known"], row["outcomes"]) for row in rows} == {
        (data, known, count)
        for data in ("mmlu", "gsm8k") for known, count in [("name", 0), *(("stated", n) for n in (0, 10, 50, 200))]
    }  # fmt: skip
    assert all(0.0 <= row["apgr"] <= 1.5 and row["band"][0] <= row["apgr"] <= row["band"][1] for row in rows)


def test_ranking_by_the_truth_scores_what_it_should():
    gain = np.array([0.4, 0.1, 0.3, 0.2])
    weak, strong = np.array([0.0, 1.0, 0.0, 1.0]), np.ones(4)
    # Both requests that the strong agent wins come first: the curve is 0, 1/2, 1, 1, 1.
    assert experiments.pair_curve(gain, np.zeros(4, np.int64), weak, strong, 0, 5)[0] == pytest.approx(3.5 / 5)


def test_training_on_some_rows_from_both_starts(pooled):
    table, rows = pooled.alone("routerbench"), pooled.rows("routerbench")
    start = experiments.start_without(pooled, "routerbench", FAST)
    assert not set(start.agents) & {"a", "b"}
    assert STRONG in start.agents
    found = list(
        experiments.from_rows(
            table, pooled.groups[rows], pooled.data.embeddings[0][rows], StaticEmbedder(), (40, 1000, None),
            {"nothing": None, "start": start}, 0, 5, lambda _: None, FAST,
        )
    )  # fmt: skip
    assert [(count, name) for count, name, _ in found] == [(40, "nothing"), (40, "start"), (56, "nothing"),
                                                           (56, "start")]  # fmt: skip
    for _, _, result in found:
        assert result.requests == 24
        assert result.model is not None
        assert result.baselines_trained_on.startswith("on ")


def test_a_variant_has_all_its_figures(pooled, monkeypatch):
    monkeypatch.setattr(quality_variants, "VARIANTS", {"small": {"hidden_dim": 8, "members": 1, "min_steps": 20}})
    rows = list(quality_variants.tried(pooled, 0, lambda _: None))
    assert [row["variant"] for row in rows] == [
        "small", "logistic regression per agent", "the same with facts of the text",
    ]  # fmt: skip
    assert all(np.isfinite([value for key, value in row.items() if key != "variant"]).all() for row in rows)


# -- the command ---------------------------------------------------------------------------------------------------


def test_without_data_one_sentence_and_code_2(tmp_path, capsys):
    assert script.main(["--data", str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "nowhere for: mmlu, gsm8k, routerbench, open7" in said.err
    assert "TINYDANCER_DATA" in said.err


def test_a_table_per_data_set_targets_and_json(data, tmp_path, capsys):
    arguments = ["--data", str(data), "--only", "pooled", "--only", "targets", "--quick", "--seeds", "3", "4"]
    assert script.main([*arguments, "--resamples", "5", "--json", str(tmp_path / "all.json")]) == 0
    text = capsys.readouterr().out
    assert "### gsm8k: 60 requests, 2 agents" in text
    assert "| | cost at 90% | cost at 95% |" in text
    found = json.loads((tmp_path / "all.json").read_text())
    assert set(found["data sets"]) == {"mmlu", "gsm8k", "routerbench", "open7"}
    results = found["data sets"]["gsm8k"]
    assert [result["seed"] for result in results] == [3, 4]
    assert (
        f"| logistic regression | {np.mean([r['baselines']['logistic regression']['apgr'] for r in results]):.3f} ("
        in text
    )
    assert f"| **model** | {np.mean([result['apgr'] for result in results]):.3f} (" in text
    target = next(row for row in found["targets"] if row["measure"] == "gsm8k, APGR")
    assert target["ours"] == pytest.approx(np.mean([result["apgr"] for result in results]))
    assert target["met"] == (target["ours"] >= 0.64)
    assert found["quick"] is True
    assert found["took_s"] > 0.0


def test_a_page_gets_the_tables_it_asks_for():
    page = "A\n<!-- from make eval: one -->\nold\n<!-- end -->\nB\n<!-- from make eval: two -->\nkept\n<!-- end -->\n"
    sections = ["### one: 5 requests\n\nWords.\n\n| x |\n| --- |\n", "### one, other: 3\n\n| y |\n"]
    table = "<!-- from make eval: one -->\n\n| x |\n| --- |\n\n<!-- end -->"
    once = script.filled(page, sections)
    assert once == f"A\n{table}\nB\n<!-- from make eval: two -->\nkept\n<!-- end -->\n"
    assert script.filled(once, sections) == once


def test_in_some_measures_less_is_more():
    assert script._better("cpt50", 0.2, 0.3)
    assert script._better("relative_cost_at_95", 0.2, 0.3)
    assert script._better("ece", 0.01, 0.02)
    assert script._better("apgr", 0.7, 0.6)
    assert not script._better("area", 0.5, 0.5)
    assert script._better("area", 0.5, 0.5, or_equal=True)
