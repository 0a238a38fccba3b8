"""``tinydancer calibrate``: from two files to a certified setting, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from tinydancer.cli.app import tinydancer as root
from tinydancer.cli.calibrate import calibrate, with_good_enough
from tinydancer.cli.errors import Group
from tinydancer.config import load_settings, parse_settings
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.quality import QUALITY_BARS, QualityModel, sketch_of
from tinydancer.model.risk import cheapest_good_enough, find_operating_point
from tinydancer.model.surface import SURFACE_DIM, surface_features
from tinydancer.tables import OutcomeTable, write_tables
from tinydancer.types import MINILM_SPACE

AGENTS = ("large", "small")
COST_USD = (0.01, 0.001)
# What is asked, and how often large and small get it right.
KINDS = (
    ("What is {a} plus {b}?", (0.97, 0.97)),
    ("Name a town that lies {a} miles from {b} other towns.", (0.95, 0.93)),
    ("Prove that there is a prime between {a} and {b} whenever the gap is wide.", (0.9, 0.1)),
    ("Write a short letter to the landlord of house number {a} about {b} broken tiles.", (0.95, 0.9)),
)
HIDDEN = 8


def drawn(n: int, seed: int, *, cost: bool = True) -> OutcomeTable:
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, len(KINDS), n)
    texts = tuple(KINDS[k][0].format(a=seed * 100_000 + i, b=2 * i + 5) for i, k in enumerate(kinds))
    quality = (rng.random((n, 2)) < np.array([KINDS[k][1] for k in kinds])).astype(np.float32)
    cost_usd = np.tile(np.array(COST_USD, np.float32), (n, 1)) if cost else np.full((n, 2), np.nan, np.float32)
    ids = tuple(f"r{i}" for i in range(n))
    return OutcomeTable(ids, None, texts, AGENTS, quality, cost_usd)


def trained(table: OutcomeTable, *, knows: bool = True) -> QualityModel:
    """A quality model whose network is as drawn and whose abilities are fitted to a table."""
    network = FastGRNN(FastGRNNConfig(input_dim=MINILM_SPACE.dim + SURFACE_DIM, hidden_dim=HIDDEN, seed=3))
    surface = surface_features(table.texts)
    scale = np.maximum(surface.std(axis=0), 1e-3).astype(np.float32)
    model = QualityModel(
        network=network, space=MINILM_SPACE, agents=AGENTS, abilities=np.zeros((2, HIDDEN + 1), np.float32),
        observed=np.full(2, float(len(table))), surface_mean=surface.mean(axis=0), surface_scale=scale,
        usual_mean=np.zeros(HIDDEN), usual_covariance=np.eye(HIDDEN), prior_mean=np.zeros(HIDDEN),
        prior_covariance=np.eye(HIDDEN + 1), information=np.eye(HIDDEN + 1),
        bars=np.tile([0.0, 1.0], (QUALITY_BARS, 1)), cost_usd=np.array(COST_USD),
        cost_weights=np.zeros((3, HIDDEN + SURFACE_DIM + 1)), quality_from_cost=np.zeros(2),
        sketch=sketch_of(table.texts) if knows else np.empty(0, np.uint64),
    )  # fmt: skip
    phi = model.represent(StaticEmbedder().embed(table.texts).vectors, surface)
    for agent in range(2):
        fitted = LogisticRegression(C=100.0, max_iter=1000).fit(phi[:, :-1], table.quality[:, agent] > 0.5)
        model.abilities[agent] = np.append(fitted.coef_[0], fitted.intercept_)
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "mine.safetensors"
    trained(drawn(600, 1)).save(path)
    return str(path)


@pytest.fixture
def run(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(cls=Group, pretty_exceptions_enable=False)
    app.callback()(root)
    app.command()(calibrate)

    def call(*args: str, table: OutcomeTable | None = None, model: str = model, code: int = 0, first: Any = ()) -> Any:
        files = [tmp_path / "requests.csv.gz", tmp_path / "outcomes.csv"]
        write_tables(drawn(600, 2) if table is None else table, *files)
        words = ["calibrate", "--requests", str(files[0]), "--outcomes", str(files[1]), "--model", model]
        result = CliRunner().invoke(app, [*first, *words, *args])
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    return call


def predicted(model: str, table: OutcomeTable) -> np.ndarray:
    weights = QualityModel.load(model)
    phi = weights.represent(StaticEmbedder().embed(table.texts).vectors, surface_features(table.texts))
    logits = phi.astype(np.float64) @ weights.abilities.T.astype(np.float64)
    return 1.0 / (1.0 + np.exp(-logits))


def test_json_holds_what_was_certified(run, model):
    got = json.loads(run("--json").stdout)
    table = drawn(600, 2)
    quality = predicted(model, table)
    point = find_operating_point(quality, table.quality, COST_USD)
    assert got["good_enough"] == point.good_enough < 1.0
    assert (got["target_quality"], got["delta"], got["n"], got["test_rows"]) == (0.95, 0.1, 600, 600)
    assert got["p_value"] <= 0.1
    assert got["best_single"] == "large"
    assert got["relative_quality"] > 0.95
    assert got["relative_cost"] == pytest.approx(point.relative_cost, rel=1e-4)
    assert got["relative_cost"] < 0.6
    assert got["cost_source"] == "outcomes"
    assert got["agent_shares"] == dict(zip(AGENTS, point.agent_shares, strict=True))
    chosen = np.arange(600), cheapest_good_enough(quality, np.array(COST_USD), point.good_enough)
    routed = ConformalInterval.from_outcomes(quality[chosen], table.quality[chosen], 0.9)
    assert got["interval"]["quantile"] == pytest.approx(routed.quantile, rel=1e-3)
    assert got["interval"]["n"] == 600
    assert got["interval_of_all"]["n"] == 1200
    assert got["model"] == QualityModel.load(model).name
    assert got["model_sha256"] == QualityModel.load(model).sha256
    assert got["warnings"] == []


def test_what_is_promised_holds_on_new_rows(run, model):
    share = json.loads(run("--json").stdout)["good_enough"]
    table = drawn(4_000, 5)
    chosen = cheapest_good_enough(predicted(model, table), np.array(COST_USD), share)
    assert table.quality[np.arange(4_000), chosen].mean() >= 0.95 * table.quality.mean(axis=0).max()


def test_people_read_promise_evidence_and_the_line_to_add(run):
    result = run()
    lines = result.stdout.splitlines()
    assert lines[0].startswith("good_enough: 0.")
    assert "at least 95.0% of the best single agent's quality, with probability 90%, over the next 600" in lines[1]
    assert any(line.strip().startswith("cost") and "of always asking large" in line for line in lines)
    assert "Add to tinydancer.yaml" in result.stdout
    added = result.stdout[result.stdout.index("decisions:") :]
    assert f"good_enough: {parse_settings(added).decisions.good_enough:g}" == lines[0]


def test_the_promise_can_be_chosen(run):
    def good_enough(*args: str) -> float:
        share: float = json.loads(run("--json", *args).stdout)["good_enough"]
        return share

    assert good_enough("--target-quality", "0.8") < good_enough("--delta", "0.4") <= good_enough()
    assert good_enough("--test-rows", "0") <= good_enough("--test-rows", "5000") <= good_enough()
    assert "or more test_rows" in run("--test-rows", "20", code=8).stderr
    narrow, wide = (
        json.loads(run("--json", "--coverage", coverage).stdout)["interval"] for coverage in ("0.6", "0.95")
    )
    assert narrow["quantile"] < wide["quantile"]


def test_prices_of_agents_go_before_costs_in_the_outcomes(run, tmp_path):
    agents = [{"name": "large", "cost_per_request": 0.5}, {"name": "small", "cost_per_request": 0.4}]
    (tmp_path / "agents.json").write_text(json.dumps(agents))
    got = json.loads(run("--json", "--agents", "agents.json").stdout)
    assert got["cost_source"] == "agents"
    assert got["relative_cost"] == pytest.approx(got["agent_shares"]["large"] + 0.8 * got["agent_shares"]["small"])
    # The other way round, the large one is the cheaper one, and always good enough.
    agents = [{"name": "large", "input_cost_per_token": 1e-7}, {"name": "small", "input_cost_per_token": 1e-6}]
    (tmp_path / "agents.json").write_text(json.dumps([{**a, "output_cost_per_token": 0} for a in agents]))
    got = json.loads(run("--json", "--agents", "agents.json").stdout)
    assert got["agent_shares"]["large"] == 1.0
    assert got["relative_cost"] == pytest.approx(1.0)
    (tmp_path / "agents.json").write_text(json.dumps(agents[:1]))
    assert "does not describe small" in run("--agents", "agents.json", code=3).stderr


def test_without_costs_the_better_agent_counts_as_the_dearer_one(run):
    got = json.loads(run("--json", table=drawn(600, 2, cost=False)).stdout)
    assert got["cost_source"] == "assumed"
    assert got["relative_cost"] is None
    assert got["agent_shares"]["small"] > 0.5
    assert "state no cost" in got["warnings"][-1]
    assert "unknown" in run(table=drawn(600, 2, cost=False)).stdout


def test_an_agent_without_cost_counts_as_the_dearest(run):
    table = drawn(600, 2)
    table.cost_usd[:, 1] = np.nan
    result = run(table=table)
    assert "no cost of small" in result.stderr
    assert "answers by  large 100%" in result.stdout


# -- the settings file and the model -------------------------------------------------------------------------------


def test_write_changes_the_one_value(run, tmp_path):
    share = json.loads(run("--json", "--write").stdout)["good_enough"]
    assert load_settings(tmp_path / "tinydancer.yaml").decisions.good_enough == share
    other = tmp_path / "other.yaml"
    other.write_text("# mine\ntenant: me\ndecisions:\n  good_enough: 0.123 # was guessed\n  quality_bar: 0.6\n")
    result = run("--write", first=("--config", str(other)))
    assert f"Wrote good_enough: {share:g} to {other}" in result.stderr
    assert "Add to" not in result.stdout
    assert other.read_text() == (
        f"# mine\ntenant: me\ndecisions:\n  good_enough: {share:g} # was guessed\n  quality_bar: 0.6\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "decisions:\n  good_enough: 0.9\n"),
        ("# nothing\n", "# nothing\n\ndecisions:\n  good_enough: 0.9\n"),
        ("tenant: me", "tenant: me\n\ndecisions:\n  good_enough: 0.9\n"),
        (
            "decisions:\n    quality_bar: 0.6\ntenant: me\n",
            "decisions:\n    good_enough: 0.9\n    quality_bar: 0.6\ntenant: me\n",
        ),
        ("decisions: {quality_bar: 0.6}\n", "decisions: {good_enough: 0.9, quality_bar: 0.6}\n"),
        ("decisions: {}\ntenant: me\n", "decisions:\n  good_enough: 0.9\ntenant: me\n"),
        ("decisions: {good_enough: 1}\n", "decisions: {good_enough: 0.9}\n"),
        ("decisions:\n  good_enough: 1\n", "decisions:\n  good_enough: 0.9\n"),
        ("décisions_: 1\ndecisions:\n  good_enough: 1", "décisions_: 1\ndecisions:\n  good_enough: 0.9"),
    ],
)
def test_a_settings_text_keeps_everything_else(text, expected):
    changed = with_good_enough(text, 0.9)
    assert changed == expected
    assert yaml.safe_load(changed)["decisions"]["good_enough"] == 0.9


def test_out_saves_the_model_with_the_interval(run, tmp_path, model):
    result = run("--out", "calibrated.safetensors")
    assert "Saved the model with this interval" in result.stderr
    saved, before = QualityModel.load(tmp_path / "calibrated.safetensors"), QualityModel.load(model)
    assert before.interval is None
    assert saved.interval is not None
    assert (saved.interval.coverage, saved.interval.n) == (0.9, 600)
    np.testing.assert_array_equal(saved.abilities, before.abilities)


# -- refusals ------------------------------------------------------------------------------------------------------


def test_the_training_rows_are_refused(run):
    result = run(table=drawn(600, 1), code=8)
    assert "was trained on about 100% of these requests" in result.stderr
    assert "kept out of its training" in result.stderr


def test_a_few_requests_of_the_training_are_told(run):
    old, new = drawn(600, 1), drawn(600, 2)
    mixed = OutcomeTable(new.request_ids, None, (*old.texts[:12], *new.texts[12:]), AGENTS, new.quality, new.cost_usd)
    warnings = json.loads(run("--json", table=mixed).stdout)["warnings"]
    assert "trained on about 2.0% of these requests" in warnings[0]


def test_a_model_that_does_not_say_is_told(run, tmp_path):
    path = tmp_path / "silent.safetensors"
    trained(drawn(300, 1), knows=False).save(path)
    assert "cannot be told" in json.loads(run("--json", model=str(path)).stdout)["warnings"][0]


def test_too_few_rows_are_refused_with_a_number(run, tmp_path):
    result = run("--write", table=drawn(25, 2), code=8)
    assert "cannot be promised with confidence 90% from 25 rows" in result.stderr
    assert "rows like these would do" in result.stderr
    assert not (tmp_path / "tinydancer.yaml").exists()


def test_rows_that_some_agent_did_not_answer_do_not_count(run):
    table = drawn(600, 2)
    table.quality[:40, 1] = np.nan
    got = json.loads(run("--json", table=table).stdout)
    assert got["n"] == 560
    assert any("40 of 600 requests were not answered by every agent" in warning for warning in got["warnings"])
    table.quality[:599, 1] = np.nan
    result = run(table=table, code=2)
    assert "Only 1 of 600 requests" in result.stderr
    assert "large 600, small 1" in result.stderr


def test_an_agent_that_the_model_does_not_know_is_told(run):
    table = drawn(600, 2)
    renamed = OutcomeTable(table.request_ids, None, table.texts, ("huge", "small"), table.quality, table.cost_usd)
    result = run(table=renamed, code=8)  # nothing is known of it, so nothing can be promised
    assert "cannot be promised" in result.stderr


def test_a_missing_model_is_named(run, tmp_path):
    assert "nowhere.safetensors" in run(model=str(tmp_path / "nowhere.safetensors"), code=3).stderr


def test_a_settings_file_that_cannot_be_written_is_named(run, tmp_path):
    config = Path(tmp_path / "gone" / "tinydancer.yaml")
    assert "does not exist" in run("--write", first=("--config", str(config)), code=7).stderr
