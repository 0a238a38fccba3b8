"""``tinydancer train``: tables or the store's records in, a model file out; where something is wrong, nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tinydancer.model.artifact import FORMAT_VERSION
from tinydancer.model.quality import QualityModel, shipped_model_path
from tinydancer.tables import OutcomeTable, write_tables

QUICK = ("--strength", "1", "--folds", "2", "--json")
KINDS = (
    ("sum", "What is {a} plus {b}? Give the number only.", (0.2, 0.95)),
    ("letter", "Write a friendly letter to the neighbours of house {a} about {b} noisy chickens.", (0.95, 0.2)),
)


def written(folder, name="", n=100, seed=0, agents=("poet", "sums")):
    """Two files of n requests; poet is good at letters, sums at sums."""
    rng = np.random.default_rng(seed)
    kinds = [KINDS[k] for k in rng.integers(0, 2, n)]
    quality = (rng.random((n, 2)) < np.array([skill for _, _, skill in kinds])).astype(np.float32)
    table = OutcomeTable(
        tuple(f"r{i}" for i in range(n)), tuple(kind for kind, _, _ in kinds),
        tuple(text.format(a=1000 * seed + i, b=i + 3) for i, (_, text, _) in enumerate(kinds)), agents, quality,
        np.tile(np.array([0.01, 0.001], np.float32), (n, 1)),
    )  # fmt: skip
    paths = folder / f"{name}requests.csv.gz", folder / f"{name}outcomes.csv.gz"
    write_tables(table, *paths)
    return tuple(map(str, paths))


def given(*tables):
    return [word for requests, outcomes in tables for word in ("--requests", requests, "--outcomes", outcomes)]


@pytest.fixture
def tables(tmp_path):
    return written(tmp_path)


def test_tables_in_a_model_out(run, tables, tmp_path):
    result = run("train", *given(tables), "--out", "mine.safetensors", *QUICK)
    said = json.loads(result.stdout)
    model = QualityModel.load("mine.safetensors")
    assert said["model"] == "mine.safetensors"
    assert said["sha256"] == model.sha256
    assert said["size_bytes"] == (tmp_path / "mine.safetensors").stat().st_size < 1_000_000
    assert said["facts"] == json.loads(json.dumps(dict(model.facts)))
    assert said["facts"]["requests"] == 100
    assert model.agents == ("poet", "sums")
    assert said["evaluation"]["routed_quality"] > said["evaluation"]["best_single_quality"] + 0.05
    assert said["evaluation"]["model"]["name"] == "mine"
    assert any("100 requests are few" in warning for warning in said["warnings"])
    assert "warning: 100 requests are few" in result.stderr
    assert not (tmp_path / "store.db").exists(), "tables need no store"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.safetensors", "outcomes.csv.gz", "requests.csv.gz"]


def test_the_model_can_be_added_used_and_evaluated(run, tables, tmp_path):
    run("train", *given(tables), "--out", "mine.safetensors", *QUICK)
    run("models", "add", "mine.safetensors", "--use")
    run("agents", "add", "poet", "--quality", "0.5")
    run("agents", "add", "sums", "--quality", "0.5")
    model = QualityModel.load("mine.safetensors")
    chosen = {}
    for text in ("Write a friendly letter to the neighbours about chickens.", "What is 81 plus 17?"):
        decision = json.loads(run("route", text, "--optimize-for", "quality", "--json").stdout)
        assert decision["model"] == model.name
        chosen[text[:5]] = decision["agent_name"]
    assert chosen == {"Write": "poet", "What ": "sums"}
    fresh = written(tmp_path, "fresh-", seed=1)
    said = json.loads(run("eval", *given(fresh), "--model", "mine.safetensors", "--bootstrap", "20", "--json").stdout)
    assert said["model"]["sha256"] == model.sha256
    assert said["routed_quality"] > said["best_single_quality"] + 0.15
    assert not any("trained on" in warning for warning in said["warnings"])
    seen = json.loads(run("eval", *given(tables), "--model", "mine.safetensors", "--bootstrap", "20", "--json").stdout)
    assert any("trained on about 100.0%" in warning for warning in seen["warnings"])


def test_people_get_a_table_and_the_next_step(run, tables):
    result = run("train", *given(tables), "--out", "mine.safetensors", "--strength", "1", "--folds", "2")
    for words in ("best single", "logistic regression", "tinydancer models add mine.safetensors", "poet, sums"):
        assert words in result.stdout
    assert "warning:" in result.stderr
    quiet = run("--quiet", "train", *given(tables), "--out", "again.safetensors", "--strength", "1", "--folds", "2")
    assert quiet.stderr == ""


def test_the_same_seed_gives_the_same_file(run, tables, tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        run("train", *given(tables), "--out", f"{name}.safetensors", "--seed", seed, *QUICK)
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_several_data_sets(run, tables, tmp_path):
    other = written(tmp_path, "other-", n=60, seed=2, agents=("sums", "third"))
    said = json.loads(run("train", *given(tables, other), "--out", "m.safetensors", *QUICK).stdout)
    assert said["facts"]["sources"] == 2
    assert said["facts"]["requests"] == 160
    assert QualityModel.load("m.safetensors").agents == ("poet", "sums", "third")


def test_refining_the_shipped_model_and_a_file(run, tables):
    said = json.loads(run("train", *given(tables), "--out", "one.safetensors", "--from", "shipped", *QUICK).stdout)
    shipped = QualityModel.load(shipped_model_path(), label="shipped")
    assert said["facts"]["started_from"] == shipped.name
    one = QualityModel.load("one.safetensors")
    assert one.hidden_dim == shipped.hidden_dim
    said = json.loads(
        run("train", *given(tables), "--out", "two.safetensors", "--from", "one.safetensors", *QUICK).stdout
    )
    assert said["facts"]["started_from"] == one.name


def test_a_model_of_another_size_can_be_refined(run, tables):
    from tests.quality import trained_model

    trained_model()[0].save("small.safetensors")  # of 6 units
    run("train", *given(tables), "--out", "two.safetensors", "--from", "small.safetensors", *QUICK)
    assert QualityModel.load("two.safetensors").hidden_dim == trained_model()[0].hidden_dim


def test_a_report(run, tables, tmp_path):
    run("train", *given(tables), "--out", "m.safetensors", "--report", "report", *QUICK)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["model"]["name"] == "m"
    assert (tmp_path / "report" / "report.html").stat().st_size > 1000


def test_a_refused_training_leaves_no_folder_for_its_report(run, tables, tmp_path):
    (tmp_path / "kept").mkdir()
    for report in ("new/report", "kept", "kept/report"):
        refused(run, tmp_path, "--requests", tables[0], *OUT, "--report", report)
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "kept").is_dir()
    assert not list((tmp_path / "kept").iterdir())


def test_training_from_what_the_store_recorded(run, store, tmp_path):
    (tmp_path / "tinydancer.yaml").write_text("record_features: true\n")
    agents = ("poet", "sums")
    for name in agents:
        run("agents", "add", name, "--quality", "0.5")
    rng = np.random.default_rng(0)
    from tinydancer.config import load_settings
    from tinydancer.service import TinyDancer

    with TinyDancer(store, settings=load_settings("tinydancer.yaml")) as dancer:
        for i in range(60):
            _, text, skill = KINDS[i % 2]
            for agent, share in zip(agents, skill, strict=True):
                decision = dancer.route(text.format(a=i, b=i), excluded_agents=[a for a in agents if a != agent])
                dancer.feedback(decision, quality=float(rng.random() < share))
    said = json.loads(run("train", "--out", "own.safetensors", *QUICK).stdout)
    assert said["facts"]["requests"] == 60
    assert said["facts"]["outcomes"] == 120
    run("models", "add", "own.safetensors", "--use")
    decision = json.loads(run("route", "What is 81 plus 17?", "--json").stdout)
    assert decision["model"].startswith("own:")


# --- Bad input ------------------------------------------------------------------------------------------------------


def refused(run, tmp_path, *args, code=2):
    """The error of a training that must leave nothing behind."""
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = run("train", *args, *QUICK, code=code)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    assert result.stdout == ""
    return json.loads(result.stderr.splitlines()[-1])


def rewrite(path, change):
    text = gzip.decompress(Path(path).read_bytes()).decode()
    Path(path).write_bytes(gzip.compress(change(text).encode()))


def first_row(text, old, new):
    head, row, rest = text.split("\n", 2)
    assert old in row
    return "\n".join([head, row.replace(old, new, 1), rest])


OUT = ("--out", "m.safetensors")


@pytest.mark.parametrize(
    ("which", "change", "words"),
    [
        ("outcomes", lambda t: "", "is empty"),
        ("outcomes", lambda t: t.split("\n")[0] + "\n", "no rows"),
        ("requests", lambda t: t.split("\n")[0] + "\n", "no rows"),
        ("outcomes", lambda t: first_row(t, "1.0", "nan") if "1.0" in t.split("\n")[1] else first_row(t, "0.0", "nan"),
         "quality is 'nan'"),
        ("outcomes", lambda t: first_row(t, ",1.0,", ",1.2,") if ",1.0," in t.split("\n")[1]
         else first_row(t, ",0.0,", ",1.2,"), "1.2"),
        ("outcomes", lambda t: first_row(t, "r0", "r999999"), "not in"),
        ("outcomes", lambda t: t + t.split("\n")[1] + "\n", "comes twice"),
        ("requests", lambda t: t + t.split("\n")[1] + "\n", "comes twice"),
        ("outcomes", lambda t: t.replace(",0.0,", ",1.0,"), "same quality, 1"),
        ("outcomes", lambda t: "\n".join(t.split("\n")[:21]) + "\n", "10 judged requests; expected at least 20"),
        ("outcomes", lambda t: t.replace("quality", "grade", 1), "no column 'quality'"),
    ],
)  # fmt: skip
def test_tables_that_teach_nothing_are_refused(run, tables, tmp_path, which, change, words):
    rewrite(tables[which == "outcomes"], change)
    error = refused(run, tmp_path, *given(tables), *OUT)
    assert words in error["message"]


def test_a_truncated_table_is_refused(run, tables, tmp_path):
    whole = Path(tables[1]).read_bytes()
    Path(tables[1]).write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused(run, tmp_path, *given(tables), *OUT)["message"]


def test_files_that_are_not_there(run, tables, tmp_path):
    refused(run, tmp_path, "--requests", "absent.csv", "--outcomes", tables[1], *OUT, code=3)
    refused(run, tmp_path, *given(tables), *OUT, "--from", "absent.safetensors", code=3)
    assert "folder of" in refused(run, tmp_path, *given(tables), "--out", "no/such/m.safetensors")["message"]
    (tmp_path / "folder").mkdir()
    assert "is a folder" in refused(run, tmp_path, *given(tables), "--out", "folder")["message"]


def test_half_of_the_tables_are_refused(run, tables, tmp_path):
    error = refused(run, tmp_path, "--requests", tables[0], *OUT)
    assert "1 --requests and 0 --outcomes" in error["message"]
    error = refused(run, tmp_path, *given(tables), "--outcomes", tables[1], *OUT)
    assert "1 --requests and 2 --outcomes" in error["message"]


def test_settings_out_of_range_are_refused(run, tables, tmp_path):
    for words in (["--strength", "0"], ["--strength", "nan"], ["--folds", "1"], ["--seed", "-1"]):
        args = [word for word in QUICK if word != "--json"] if words[0] == "--seed" else ["--json"]
        result = run("train", *given(tables), *OUT, *args, *words, code=2)
        assert result.stdout == ""
    assert not (tmp_path / "m.safetensors").exists()


def damaged(content, how):
    if how == "truncated":
        return content[: len(content) // 2]
    if how == "tampered":
        return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    old, new = (f'"format_version": "{number}"'.encode() for number in (FORMAT_VERSION, FORMAT_VERSION + 1))
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("how", "words"), [("truncated", "no usable model"), ("tampered", "changed after"), ("newer", "format version")]
)
def test_a_damaged_start_is_refused(run, tables, tmp_path, how, words):
    (tmp_path / "start.safetensors").write_bytes(damaged(shipped_model_path().read_bytes(), how))
    error = refused(run, tmp_path, *given(tables), *OUT, "--from", "start.safetensors", code=8)
    assert words in error["message"]
    assert error["hint"]


def test_a_start_of_another_space_is_refused(run, tables, tmp_path):
    from tests.quality import hand_made_model

    hand_made_model(k=48).save(tmp_path / "small.safetensors")
    error = refused(run, tmp_path, *given(tables), *OUT, "--from", "small.safetensors")
    assert "'small' with 6 dimensions" in error["message"]


def test_a_store_without_records_is_refused_and_not_made(run, store, tmp_path):
    error = refused(run, tmp_path, *OUT)
    assert "no judged answers" in error["message"]
    assert "record_features" in error["hint"]
    assert not store.exists()


def test_a_failed_training_leaves_the_old_model(run, tables, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(shipped_model_path().read_bytes())
    rewrite(tables[1], lambda text: text.replace(",0.0,", ",1.0,"))
    refused(run, tmp_path, *given(tables), *OUT)
    run("train", *given(written(tmp_path, "new-")), *OUT, *QUICK)
    assert QualityModel.load("m.safetensors").agents == ("poet", "sums")
