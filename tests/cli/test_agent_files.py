"""``tinydancer agents import``, ``export`` and ``load``: a whole file, or none of it."""

from __future__ import annotations

import json

import pytest

from tinydancer.service import TinyDancer

PRICES = {
    "sample_spec": {"input_cost_per_token": 0.0},
    "north-1": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "mode": "chat"},
    "north-2": {"input_cost_per_token": 3e-6, "mode": "chat"},
    "brush": {"mode": "image_generation", "output_cost_per_image": 0.04},
}


def agents(run) -> dict[str, dict]:
    return {agent["name"]: agent for agent in json.loads(run("agents", "export").stdout)}


def test_import_registers_and_says_what_has_no_price(run, tmp_path):
    (tmp_path / "prices.json").write_text(json.dumps(PRICES))
    result = run("agents", "import", "prices.json")
    assert "Registered 3 agents, updated the prices of 0 agents." in result.stderr
    assert "2 agents" in result.stderr.splitlines()[-1]
    report = json.loads(run("agents", "import", "prices.json", "--json").stdout)
    assert report == {"registered": 0, "updated": 3, "unknown_prices": ["brush", "north-2"]}


def test_import_takes_only_what_fits_a_pattern_and_only_updates_on_request(filled, tmp_path):
    priced = {**PRICES, "small": {"input_cost_per_token": 9e-6}}
    (tmp_path / "prices.json").write_text(json.dumps(priced))
    filled("agents", "import", "prices.json", "--update-only")
    assert set(agents(filled)) == {"small", "large", "mystery"}
    small = agents(filled)["small"]
    assert small["cost_model"] == {"input_cost_per_token": 9e-6, "output_cost_per_token": pytest.approx(0.6e-6)}
    assert small["capabilities"] == ["chat", "translation"]
    filled("agents", "import", "prices.json", "north-*")
    assert set(agents(filled)) == {"small", "large", "mystery", "north-1", "north-2"}


def test_import_reads_standard_input(run):
    run("agents", "import", "-", input=json.dumps(PRICES))
    assert set(agents(run)) == {"north-1", "north-2", "brush"}


def test_export_and_load_carry_everything(filled, tmp_path, monkeypatch):
    filled("agents", "update", "large", "-d", "For hard problems.")
    filled("agents", "deactivate", "small")
    exported = filled("agents", "export").stdout
    (tmp_path / "agents.json").write_text(exported)
    before = json.loads(filled("route", "Prove this theorem.", "--no-record", "--json").stdout)
    monkeypatch.setenv("TINYDANCER_STORE", str(tmp_path / "other.db"))
    assert "Loaded 3 agents." in filled("agents", "load", "agents.json").stderr
    assert filled("agents", "export").stdout == exported
    # The same decision, similarities included: the vectors were made again from the same words.
    assert json.loads(filled("route", "Prove this theorem.", "--no-record", "--json").stdout) == before


def test_load_takes_a_single_object_and_its_own_vector(run, store):
    vector = [0.0] * 383 + [2.0]
    run("agents", "load", "-", input=json.dumps({"name": "one", "cost_per_request": 0.5, "embedding": vector}))
    with TinyDancer(store) as dancer:
        embedding = dancer.store.get_agent("one").embedding
        assert embedding is not None
        assert embedding.tolist() == [0.0] * 383 + [1.0]


def test_load_refuses_agents_that_exist_unless_told(filled):
    two = json.dumps([{"name": "new"}, {"name": "small", "quality_score": 0.1}])
    assert "small" in filled("agents", "load", "-", input=two, code=4).stderr
    assert "new" not in agents(filled)
    filled("agents", "load", "-", "--replace", input=two)
    assert agents(filled)["small"]["quality_score"] == 0.1
    assert "new" in agents(filled)


BAD_FILES = {
    "no JSON": ("load", '[{"name": "p"},', "line 1, column 16"),
    "no object": ("load", "3", "expected a JSON object"),
    "a number for an agent": ("load", '[{"name": "p"}, 3]', "Agent number 2"),
    "an agent without a name": ("load", '[{"name": "p"}, {}]', "Agent number 2: The agent has no name"),
    "an unknown field": ("load", '[{"name": "p", "qualty": 1}]', "Unknown agent field 'qualty'"),
    "a bad value": ("load", '[{"name": "p"}, {"name": "q", "quality_score": 3}]', "quality_score is 3"),
    "a name twice": ("load", '[{"name": "p"}, {"name": "p"}]', "'p' is given twice"),
    "NaN": ("load", '[{"name": "p", "quality_score": NaN}]', "NaN"),
    "a zero vector": ("load", json.dumps({"name": "p", "embedding": [0.0] * 384}), "all zeros"),
    "a vector of another space": ("load", json.dumps([{"name": "p", "embedding": [1.0, 2.0]}]), "384"),
    "deep nesting": ("load", "[" * 100_000, "no JSON"),
    "a list of prices": ("import", "[]", "JSON object"),
    "a negative price": ("import", '{"ok": {}, "bad": {"input_cost_per_token": -1}}', "model 'bad'"),
    "a price in words": ("import", '{"bad": {"input_cost_per_token": "cheap"}}', "'cheap'"),
    "an entry that is no object": ("import", '{"bad": 3}', "model 'bad'"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_changes_nothing(filled, case):
    command, text, expected = BAD_FILES[case]
    before = filled("agents", "export").stdout
    result = filled("agents", command, "-", input=text, code=2)
    assert expected in result.stderr
    assert result.stderr.startswith("error: ")
    assert filled("agents", "export").stdout == before


@pytest.mark.parametrize("command", ["load", "import"])
def test_a_file_that_cannot_be_read_is_named(run, tmp_path, command):
    assert "nowhere.json cannot be read: No such file" in run("agents", command, "nowhere.json", code=2).stderr
    assert "Is a directory" in run("agents", command, str(tmp_path), code=2).stderr
    (tmp_path / "latin.json").write_bytes(b'{"name": "caf\xe9"}')
    assert "byte 0xe9 at position 13" in run("agents", command, "latin.json", code=2).stderr
