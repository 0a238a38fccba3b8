"""A whole evaluation on made-up outcomes whose truth is known, as a result, as JSON, as plots and as a page."""

from __future__ import annotations

import base64
import html.parser
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.conftest import COST_USD, made_up, truth_of, vectors_of
from tinydancer.errors import InvalidInputError, NotFoundError
from tinydancer.evaluation import MEASURES, STAGES, Predictions, TrainingRows, evaluate, plots
from tinydancer.evaluation.page import page

NAN = np.nan
ISSUE_KEYS = {
    "agents", "requests", "apgr", "cpt50", "cpt80", "relative_cost_at_95", "relative_cost_at_100", "routed_quality",
    "best_single_quality", "oracle_quality", "ece", "text_to_decision_us_p50",
}  # fmt: skip


def said(table, **more):
    return Predictions(quality=truth_of(table), name="truth", sha256="0" * 64, **more)


def judged(table, predictions=None, **more):
    return evaluate(table, vectors_of(table), predictions, **{"resamples": 40, **more})


def way(result, name):
    return next(way for way in result.ways if way.name == name)


def test_the_truth_beats_every_baseline_and_no_one_beats_the_oracle():
    table = made_up(900)
    result = judged(table, said(table))
    model = result.model
    assert [w.kind for w in result.ways] == ["model"] + ["baseline"] * 5 + ["single"] * 3 + ["oracle"]
    for other in result.ways[1:-1]:
        assert model.values["routed_quality"] >= other.values["routed_quality"] - 0.01
    assert result.oracle_quality == pytest.approx(np.nanmax(table.quality, axis=1).mean())
    assert result.best_single == "strong"
    assert result.best_single_quality == pytest.approx(table.quality[:, 2].mean())
    assert result.cheapest == "cheap"
    # Sums to cheap, letters to middle, riddles to strong: the best single agent's quality for a fraction of its cost.
    assert model.values["relative_cost_at_95"] < 0.5
    assert model.values["area"] > way(result, "nearest neighbours").values["area"] - 0.02
    assert model.values["ece"] < 0.06
    for name in ("per-task mean", "nearest neighbours", "logistic regression"):
        assert way(result, name).values["relative_cost_at_95"] < 0.7
    # Riddles go to strong, and half of the sums, where cheap is as good.
    expected = np.mean([{"riddles": 1.0, "sums": 0.5, "letters": 0.0}[task] for task in table.tasks])
    assert model.shares["strong"] == pytest.approx(expected)


def test_bands_hold_their_figures_and_differences_are_paired():
    table = made_up(400)
    result = judged(table, said(table), resamples=200)
    for each in result.ways:
        for name, band in each.bands.items():
            value = each.values[name]
            if band is not None and value is not None and name not in ("ece",):
                assert band[0] - 1e-9 <= value <= band[1] + 1e-9, (each.name, name)
    ahead = way(result, "random").ahead["routed_quality"]
    assert ahead[0] == pytest.approx(
        result.model.values["routed_quality"] - way(result, "random").values["routed_quality"]
    )
    assert 0.0 < ahead[1] < ahead[0] < ahead[2]
    # Against something that chooses alike, the requests cancel out: no width at all.
    assert way(result, "oracle").ahead["routed_quality"][0] < 0.0
    assert result.model.ahead == {}


def test_two_agents_are_a_pair_and_more_are_not():
    two = made_up(300, agents=("cheap", "strong"), costs=False)
    result = judged(two, said(two))
    assert result.pair == ("cheap", "strong")
    assert result.model.values["apgr"] > 0.6
    assert way(result, "random").values["apgr"] == pytest.approx(0.5)
    assert way(result, "best single").values["apgr"] == pytest.approx(0.5)
    assert result.model.values["relative_cost_at_95"] is None
    assert result.cheapest is None
    three = made_up(300)
    assert judged(three, said(three)).model.values["apgr"] is None
    chosen = judged(three, said(three), pair=("middle", "strong"))
    assert chosen.pair == ("middle", "strong")
    assert chosen.model.values["apgr"] > 0.6


def test_a_pair_that_cannot_be():
    table = made_up(60)
    with pytest.raises(NotFoundError, match="'nobody', which has no outcomes; the agents are: cheap, middle, strong"):
        judged(table, pair=("nobody", "strong"))
    with pytest.raises(InvalidInputError, match="twice"):
        judged(table, pair=("strong", "strong"))
    backwards = judged(table, pair=("strong", "cheap"))
    assert backwards.pair is None
    assert any("cheap is not better than strong" in warning for warning in backwards.warnings)


def test_baselines_learn_from_training_rows_where_given():
    table, other = made_up(200), made_up(300, seed=1)
    result = judged(table, training=TrainingRows(other, vectors_of(other)))
    assert result.baselines_trained_on == "on 300 requests of the training tables"
    by_hand = other.quality.mean(axis=0)
    best = way(result, "best single")
    assert best.values["brier"] == pytest.approx(((table.quality - by_hand) ** 2).mean(), rel=1e-5)
    assert judged(table).baselines_trained_on == "by 5-fold cross-validation over the 200 evaluated requests, seed 0"


def test_training_rows_that_are_evaluated_are_left_out():
    table = made_up(200)
    both = made_up(300, seed=1)
    both = replace(both, texts=table.texts[:100] + both.texts[100:])
    result = judged(table, training=TrainingRows(both, vectors_of(both)))
    assert result.baselines_trained_on == "on 200 requests of the training tables"
    assert any(warning.startswith("100 of 300 training requests are evaluated, too") for warning in result.warnings)
    with pytest.raises(InvalidInputError, match="Every training request is evaluated"):
        judged(table, training=TrainingRows(table, vectors_of(table)))


def test_an_agent_that_training_does_not_know_is_named():
    table, other = made_up(100), made_up(150, seed=1, agents=("cheap", "strong"))
    result = judged(table, training=TrainingRows(other, vectors_of(other)))
    assert any(w.endswith("predict the mean for them: middle.") for w in result.warnings)


def test_holes_are_said_and_do_not_break_anything():
    table = made_up(300, holes=0.3)
    result = judged(table, said(table))
    assert any("no outcome: only agents that answered" in warning for warning in result.warnings)
    assert result.outcomes == int((~np.isnan(table.quality)).sum())
    assert way(result, "always cheap").values["routed_quality"] == pytest.approx(np.nanmean(table.quality[:, 0]))
    json.dumps(result.to_dict(), allow_nan=False)


def test_an_agent_with_one_lucky_outcome_is_not_the_best_single():
    table = made_up(100)
    quality = table.quality.copy()
    quality[:, 0] = NAN
    quality[0, 0] = 1.0
    assert judged(replace(table, quality=quality)).best_single == "strong"


def test_unknown_costs():
    table = made_up(100)
    some, none_of_one, free = table.cost_usd.copy(), table.cost_usd.copy(), table.cost_usd * 0.0
    some[:10, 0] = NAN
    filled = judged(replace(table, cost_usd=some))
    assert any(w == "10 unknown costs count as the agent's mean cost." for w in filled.warnings)
    assert way(filled, "oracle").values["relative_cost_at_95"] is not None
    none_of_one[:, 1] = NAN
    for cost, sentence in ((none_of_one, "No cost is known of middle"), (free, "strong, costs nothing")):
        result = judged(replace(table, cost_usd=cost))
        assert any(sentence in w for w in result.warnings)
        assert way(result, "oracle").values["relative_cost_at_95"] is None
        assert way(result, "always cheap").values["routed_relative_cost"] is None


def test_relative_cost_of_single_agents():
    table = made_up(2000)
    result = judged(table)
    for name, cost in COST_USD.items():
        got = way(result, f"always {name}").values["routed_relative_cost"]
        assert got == pytest.approx(cost / COST_USD["strong"], rel=0.05)


def test_intervals_of_the_model_are_counted():
    table = made_up(100)
    everything = np.zeros_like(truth_of(table)), np.ones_like(truth_of(table))
    covered = judged(table, said(table, low=everything[0], high=everything[1]))
    assert covered.model.values["coverage"] == 1.0
    nothing = np.full_like(truth_of(table), 0.4), np.full_like(truth_of(table), 0.6)
    assert judged(table, said(table, low=nothing[0], high=nothing[1])).model.values["coverage"] == 0.0
    assert judged(table, said(table)).model.values["coverage"] is None


def test_the_models_own_idea_of_costs_moves_its_curve_only():
    table = made_up(300)
    plain, costly = (
        judged(table, said(table, cost_factors=factors))
        for factors in (
            None,
            np.where(np.array(table.tasks) == "riddles", 0.01, 1.0)[:, None] * np.ones(len(table.agents)),
        )
    )
    # Riddles seem cheap to keep with the strong agent, and are not: less quality for small budgets.
    assert costly.model.values["area"] < plain.model.values["area"] - 0.01
    assert plain.model.values["routed_quality"] == costly.model.values["routed_quality"]
    assert way(plain, "logistic regression").values == way(costly, "logistic regression").values
    with pytest.raises(InvalidInputError, match="cost_factors"):
        judged(table, said(table, cost_factors=np.zeros((300, len(table.agents)))))
    with pytest.raises(InvalidInputError, match="cost_factors"):
        judged(table, said(table, cost_factors=np.ones(300)))


def test_predictions_of_folds_are_ranked_in_their_folds():
    table = made_up(300, agents=("cheap", "strong"))
    folds = np.arange(300) % 2
    shifted = truth_of(table)
    shifted[folds == 1, 1] -= 0.8  # a fit with another intercept
    apgr = {
        name: judged(table, Predictions(quality=quality, name=name, folds=given)).model.values["apgr"]
        for name, quality, given in (
            ("plain", truth_of(table), folds),
            ("shifted", shifted, folds),
            ("mixed", shifted, None),
        )
    }
    assert apgr["plain"] == pytest.approx(apgr["shifted"])
    assert apgr["mixed"] < apgr["plain"] - 0.02


def test_the_same_seed_is_the_same_result():
    table = made_up(120)
    first, again, other = (judged(table, said(table), seed=seed).to_dict() for seed in (1, 1, 2))
    assert first == again
    assert first["intervals"] != other["intervals"]


def test_what_cannot_be_evaluated():
    table = made_up(30)
    with pytest.raises(InvalidInputError, match="embeddings has shape"):
        evaluate(table, vectors_of(table)[:5])
    with pytest.raises(InvalidInputError, match=r"predictions\.quality has shape \(30, 2\)"):
        judged(table, Predictions(quality=truth_of(table)[:, :2], name="short"))
    with pytest.raises(InvalidInputError, match=r"predictions\.quality .* finite"):
        judged(table, Predictions(quality=truth_of(table) * NAN, name="broken"))
    with pytest.raises(InvalidInputError, match="1 different request"):
        judged(replace(table, texts=("the same",) * 30))


def test_two_requests_are_enough():
    table = made_up(200).rows([0, 1])
    result = judged(table, said(table))
    assert result.requests == 2
    assert "by 2-fold" in result.baselines_trained_on


def test_no_tasks_no_task_means():
    table = replace(made_up(60), tasks=None)
    vectors = vectors_of(made_up(60))
    assert "per-task mean" not in {w.name for w in evaluate(table, vectors, resamples=20).ways}


def test_progress_is_told_once_per_stage():
    table = made_up(60)
    told: list[int] = []
    judged(table, said(table), progress=told.append)
    assert told == [60] * STAGES


# -- JSON, plots, page ---------------------------------------------------------------------------------------------


def test_json_has_what_was_promised():
    table = made_up(120)
    got = json.loads(json.dumps(judged(table, said(table), text_to_decision_us_p50=88.5).to_dict(), allow_nan=False))
    assert set(got) >= ISSUE_KEYS | set(MEASURES)
    assert got["agents"] == ["cheap", "middle", "strong"]
    assert got["requests"] == 120
    assert got["text_to_decision_us_p50"] == 88.5
    assert got["model"] == {"name": "truth", "sha256": "0" * 64}
    assert got["apgr"] is None
    assert got["intervals"]["routed_quality"][0] <= got["routed_quality"] <= got["intervals"]["routed_quality"][1]
    assert set(got["baselines"]) == {
        "random", "best single", "per-task mean", "nearest neighbours", "logistic regression", "always cheap",
        "always middle", "always strong", "oracle",
    }  # fmt: skip
    curve = got["curves"]["cost"]
    assert len(curve["at"]) == len(curve["quality"]) == len(curve["low"]) == len(curve["high"])
    known = [(q, low, high) for q, low, high in zip(curve["quality"], curve["low"], curve["high"], strict=True) if low]
    assert known
    assert curve["quality"][-1] == pytest.approx(max(q for q, _, _ in known))


def test_without_a_model_its_figures_are_null():
    got = judged(made_up(60)).to_dict()
    assert {got[name] for name in MEASURES} == {None}
    assert got["model"] is None
    assert got["baselines"]["logistic regression"]["routed_quality"] is not None


def test_plots_are_png_and_repeat():
    pytest.importorskip("matplotlib")
    result = judged(made_up(80, agents=("cheap", "strong")), None)
    pictures = plots.draw(result)
    assert set(pictures) == {
        "quality.png", "quality-against-cost.png", "quality-against-strong-share.png", "calibration.png",
    }  # fmt: skip
    assert all(png.startswith(b"\x89PNG\r\n\x1a\n") for png in pictures.values())
    assert plots.draw(result) == pictures
    plain = judged(made_up(80, costs=False))
    assert set(plots.draw(plain)) == {"quality.png", "calibration.png"}


class _Page(html.parser.HTMLParser):
    """Collects tags and what they refer to; fails on a tag that closes what is not open."""

    void = frozenset({"meta", "img", "link", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone():
    pytest.importorskip("matplotlib")
    table = replace(made_up(120), agents=("cheap", "middle", "<b>strong</b>"))
    quality = np.full((120, 3), 0.5)
    result = evaluate(
        table, vectors_of(table), Predictions(quality=quality, name="a & b"), resamples=30, warnings=("<script>",)
    )  # fmt: skip
    pictures = plots.draw(result)
    text = page(result, pictures)
    parsed = _Page()
    parsed.feed(text)
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert "b" not in parsed.tags
    assert "http" not in text
    assert [base64.b64decode(link.removeprefix("data:image/png;base64,")) for link in parsed.links] == [
        *pictures.values()
    ]
    assert "A &amp; b on 120 requests, 3 agents" in text
    assert "&lt;script&gt;" in text
    for measure in ("quality", "cost at 95%", "ECE"):
        assert f">{measure}</th>" in text


def test_figures_on_the_page_are_those_of_the_result():
    table = made_up(120)
    result = judged(table, said(table), text_to_decision_us_p50=88.5)
    text = page(result, {})
    (row,) = re.findall(r'<tr class="model">.*?</tr>', text)
    assert f">{result.model.values['routed_quality']:.3f}<" in row
    assert f">{100 * result.model.values['relative_cost_at_95']:.1f}%<" in row
    assert "matplotlib is not installed" in text
    assert "88 µs" in text


def test_nothing_is_drawn_without_matplotlib(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert plots.draw(judged(made_up(40))) == {}
