"""``tinydancer eval``: from two files to a table, JSON, a page; and what is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tinydancer.cli import evaluate as command
from tinydancer.cli.context import State
from tinydancer.cli.errors import Group
from tinydancer.embedding import StaticEmbedder
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.quality import AgentProfile, QualityModel, sketch_of
from tinydancer.model.surface import SURFACE_DIM, surface_features
from tinydancer.tables import OutcomeTable, read_tables, write_tables
from tinydancer.types import MINILM_SPACE, Agent, EmbeddingSpace

AGENTS = ("large", "small")
KINDS = (
    ("sum", "What is {a} plus {b}?", (0.95, 0.9)),
    ("proof", "Prove that there is a prime between {a} and {b} whenever the gap is wide.", (0.8, 0.1)),
    ("letter", "Write a short letter to the landlord of house number {a} about {b} broken tiles.", (0.9, 0.7)),
)


def written(folder, name="", n=90, seed=0, agents=AGENTS):
    rng = np.random.default_rng(seed)
    kinds = [KINDS[k] for k in rng.integers(0, len(KINDS), n)]
    texts = [text.format(a=seed * 1000 + i, b=2 * i + 5) for i, (_, text, _) in enumerate(kinds)]
    quality = np.array([rng.random(2) < skill for _, _, skill in kinds], np.float32)
    cost = np.tile(np.array([0.01, 0.001], np.float32), (n, 1))
    ids = tuple(f"{name}{i}" for i in range(n))
    table = OutcomeTable(ids, tuple(kind for kind, _, _ in kinds), tuple(texts), agents, quality, cost)
    paths = folder / f"{name}requests.csv.gz", folder / f"{name}outcomes.csv"
    write_tables(table, *paths)
    return [str(path) for path in paths]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(cls=Group, pretty_exceptions_enable=False)

    @app.callback()
    def root(ctx: typer.Context, quiet: bool = False) -> None:
        ctx.obj = State(quiet=quiet)

    app.command("eval")(command.evaluate)

    def call(*args: str, tables: list[str] | None = None, code: int = 0, quiet: bool = False) -> Any:
        requests, outcomes = tables or written(tmp_path)
        words = [*(["--quiet"] if quiet else []), "eval", "--requests", requests, "--outcomes", outcomes, *args]
        result = CliRunner().invoke(app, [*words, "--bootstrap", "30"])
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    return call


def saved_model(path, *, agents=AGENTS, texts=(), space=MINILM_SPACE, interval=None):
    """A model file with random weights: everything that is asked of a model, and nothing learned."""
    k, rng = 4, np.random.default_rng(0)
    network = FastGRNN(FastGRNNConfig(input_dim=space.dim + SURFACE_DIM, hidden_dim=k, output_dim=None, seed=1))
    count = len(agents)
    model = QualityModel(
        network=network, space=space, agents=agents, abilities=rng.normal(size=(count, k + 1)).astype(np.float32),
        observed=np.full(count, 50.0), surface_mean=np.zeros(SURFACE_DIM, np.float32),
        surface_scale=np.ones(SURFACE_DIM, np.float32), usual_mean=np.zeros(k), usual_covariance=np.eye(k),
        prior_mean=np.zeros(k), prior_covariance=np.eye(k + 1), information=np.eye(k + 1), bars=np.ones((21, 2)),
        cost_usd=np.full(count, 0.01), cost_weights=np.zeros((count + 1, k + SURFACE_DIM + 1)),
        quality_from_cost=np.zeros(2),
        sketch=sketch_of(texts), interval=interval,
    )  # fmt: skip
    model.save(path)
    return QualityModel.load(path)


@pytest.fixture
def model(tmp_path):
    return saved_model(tmp_path / "random.safetensors")


def test_baselines_alone_as_json(run):
    got = json.loads(run("--model", "none", "--json").stdout)
    assert got["agents"] == ["large", "small"]
    assert got["requests"] == 90
    assert got["model"] is None
    assert got["apgr"] is got["text_to_decision_us_p50"] is None
    assert got["best_single"] == "large"
    assert got["pair"] == {"weak": "small", "strong": "large"}
    assert got["bootstrap"] == 30
    regression = got["baselines"]["logistic regression"]
    assert regression["apgr"] > 0.55
    assert regression["relative_cost_at_95"] < 1.0


def test_a_model_is_measured_and_named(run, model, tmp_path):
    tables = written(tmp_path)
    got = json.loads(run("--model", "random.safetensors", "--json", tables=tables).stdout)
    assert got["model"] == {"name": model.name, "sha256": model.sha256}
    assert got["text_to_decision_us_p50"] > 1.0
    assert got["warnings"] == []
    # The same by hand: what the model says of each text, and the outcome of whom it would choose.
    table = read_tables(*tables)
    profiles = [AgentProfile(name=name) for name in table.agents]
    vectors = StaticEmbedder().embed(table.texts).vectors
    said = model.predict(vectors, surface_features(table.texts), profiles)
    chosen = table.quality[np.arange(len(table)), said.argmax(axis=1)]
    assert got["routed_quality"] == pytest.approx(chosen.mean())
    assert got["brier"] == pytest.approx(((said - table.quality) ** 2).mean())
    assert got["coverage"] is None


def test_the_models_own_intervals_are_counted(run, tmp_path):
    saved_model(tmp_path / "sure.safetensors", interval=ConformalInterval(1.0, 0.9, 100))
    got = json.loads(run("--model", "sure.safetensors", "--json").stdout)
    assert got["coverage"] == 1.0


def test_the_shipped_model_is_the_default(run):
    got = json.loads(run("--json").stdout)
    assert got["model"]["name"].startswith("shipped:")
    assert got["routed_quality"] is not None


def test_people_read_a_table_with_bands(run, model):
    result = run("--model", "random.safetensors")
    lines = result.stdout.splitlines()
    assert "90 requests" in lines[0]
    for name in ("APGR", "CPT50", "cost at 95%", "ECE"):
        assert name in lines[0]
    row = next(line for line in lines if line.startswith("logistic regression"))
    assert re.search(r"0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]", row)
    assert f"{model.name}, SHA-256 {model.sha256}" in result.stdout
    assert "by 5-fold cross-validation over the 90 evaluated requests, seed 0" in result.stdout


def test_a_folder_gets_page_plots_and_json(run, model, tmp_path):
    result = run("--model", "random.safetensors", "--out", "reports/first", "--json")
    folder = tmp_path / "reports" / "first"
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "report.json", "quality.png", "quality-against-cost.png", "quality-against-strong-share.png",
        "calibration.png",
    }  # fmt: skip
    assert json.loads((folder / "report.json").read_text()) == json.loads(result.stdout)
    assert "Wrote calibration.png" in result.stderr
    assert "data:image/png;base64," in (folder / "report.html").read_text()


def test_without_matplotlib_everything_else_works(run, tmp_path, monkeypatch):
    monkeypatch.setattr("tinydancer.evaluation.plots.can_draw", lambda: False)
    result = run("--model", "none", "--out", "report")
    assert "matplotlib is not installed" in result.stderr
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.html", "report.json"}


def test_baselines_learn_from_training_tables(run, tmp_path):
    train = written(tmp_path, "train", n=120, seed=1)
    got = json.loads(
        run("--model", "none", "--train-requests", train[0], "--train-outcomes", train[1], "--json").stdout
    )
    assert got["baselines_trained_on"] == "on 120 requests of the training tables"


def test_a_long_table_is_sampled_and_says_so(run):
    first, again, other = (
        json.loads(run("--model", "none", "--limit", "40", "--seed", seed, "--json").stdout) for seed in ("1", "1", "2")
    )
    assert first["requests"] == 40
    assert first["warnings"] == ["Of 90 evaluated requests 40 were drawn at random (seed 1); --limit takes more."]
    assert first == again
    assert first["best_single_quality"] != other["best_single_quality"]


def test_requests_that_the_model_has_seen_are_told(run, tmp_path):
    tables = written(tmp_path)
    texts = read_tables(*tables).texts
    saved_model(tmp_path / "m.safetensors", texts=[*texts[:30], "Something else."])
    result = run("--model", "m.safetensors", tables=tables)
    assert "warning: The model was trained on about 33.3% of the evaluated requests" in result.stderr
    assert "warning" not in run("--model", "m.safetensors", tables=tables, quiet=True).stderr


def test_agents_that_the_model_does_not_know(run, tmp_path):
    saved_model(tmp_path / "m.safetensors", agents=("large",))
    assert "knows nothing of small: it predicts" in run("--model", "m.safetensors").stderr
    predicted = []
    for quality in (0.1, 0.9):
        (tmp_path / "agents.json").write_text(json.dumps([{"name": "small", "quality_score": quality}]))
        result = run("--model", "m.safetensors", "--agents", "agents.json", "--json")
        assert "knows nothing" not in result.stdout
        predicted.append(json.loads(result.stdout)["shares"]["small"])
    assert predicted[0] < predicted[1]


def test_prices_of_unknown_agents_arrive(tmp_path):
    table = read_tables(*written(tmp_path, n=10))
    agent = Agent.from_config({"name": "small", "cost_per_request": 0.001, "output_cost_per_token": 1e-5,
                               "input_cost_per_token": 0.0, "expected_output_tokens": 40})  # fmt: skip
    unpriced = Agent.from_config({"name": "large"})
    large, small = command._profiles(table, {"small": agent, "large": unpriced}, 300.0)
    assert small.usual_cost_usd == pytest.approx(0.001 + 40 * 1e-5)
    assert large.usual_cost_usd is None


def test_a_model_of_another_space_is_refused(run, tmp_path):
    saved_model(tmp_path / "m.safetensors", space=EmbeddingSpace("elsewhere", 20))
    error = json.loads(run("--model", "m.safetensors", "--json", code=2).stderr)
    assert error["error"] == "space_mismatch"
    assert "The model m:" in error["message"]


def test_a_damaged_model_is_refused(run, tmp_path):
    saved_model(tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(whole[:-100])
    assert json.loads(run("--model", "m.safetensors", "--json", code=8).stderr)["error"] == "invalid_artifact"


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--model", "nowhere.safetensors"), 3, "nowhere.safetensors"),
        (("--train-requests", "x.csv"), 2, "Only one of --train-requests and --train-outcomes"),
        (("--pair", "small", "huge"), 3, "names 'huge', which has no outcomes; the agents are: large, small"),
        (("--limit", "1"), 2, "1 is not in the range"),
        (("--train-requests", "x.csv", "--train-outcomes", "y.csv"), 3, "x.csv does not exist"),
        (("--out", "requests.csv.gz/report"), 2, "cannot be written to"),
    ],
)
def test_what_cannot_be_done_is_said(run, args, code, message):
    assert message in run("--model", "none", *args, code=code).stderr


def test_bad_tables_end_with_file_and_line(run, tmp_path):
    requests, outcomes = written(tmp_path)
    with open(outcomes, "a") as file:
        file.write("0,large,1.5,\n")
    error = run("--model", "none", tables=[requests, outcomes], code=2).stderr
    assert "outcomes.csv, line 182: the outcome of 'large' for '0' comes twice" in error
