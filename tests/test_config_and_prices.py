"""Settings files with mistakes name the line and the key; price lists keep unknown prices unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tinydancer.config import EmbedderSettings, Settings, load_settings, parse_settings
from tinydancer.errors import ConfigError, InvalidInputError
from tinydancer.prices import agents_from_price_list


def test_an_empty_file_gives_the_defaults() -> None:
    assert parse_settings("") == parse_settings("# nothing yet\n") == Settings()


def test_every_kind_of_setting_is_read() -> None:
    settings = parse_settings(
        "store: a.db\nrecord_decisions: 0.25\ndecisions:\n  good_enough: 0.9\n  max_alternatives: 5\n"
        "embedder:\n  kind: openai\n  base_url: http://127.0.0.1:1/v1\n  model: m\n  space: s\n  dim: 8\n"
    )
    assert settings.store == "a.db"
    assert settings.recorded_share == 0.25
    assert (settings.decisions.good_enough, settings.decisions.max_alternatives) == (0.9, 5)
    assert str(settings.embedder.vector_space) == "s[8]"
    assert Settings(record_decisions=False).recorded_share == 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("store: a.db\ntenent: x\n", r"line 2: unknown key 'tenent'.*Did you mean 'tenant'\?"),
        ("decisions:\n  good_enuf: 1\n", r"line 2: unknown key 'decisions.good_enuf'"),
        ("\n\ndecisions:\n  good_enough: 7\n", r"line 4, key 'good_enough': good_enough is 7"),
        ("decisions:\n  match_discount: lots\n", r"line 2, key 'match_discount'"),
        ("record_decisions: 2\n", r"line 1, key 'record_decisions'"),
        ("store: [a\n", r"line 2: no valid YAML"),
        ("- a\n- b\n", r"line 1: the file is no mapping"),
        ("decisions: 5\n", r"line 1: decisions is no mapping"),
        ("store: a\nstore: b\n", r"line 2: the key 'store' is given twice"),
        ("store: 5\n", r"line 1, key 'store': store is 5"),
        ("embedder:\n  kind: magic\n", r"line 2, key 'kind': kind is 'magic'"),
        ("embedder:\n  kind: openai\n", r"line 2, key 'kind': kind openai has no base_url"),
        ("embedder:\n  dim: 5\n", r"line 2, key 'dim'"),
        ("embedder:\n  kind: none\n  dim: -5\n", r"line 3, key 'dim'"),
        ("embedder:\n  model: 5\n", r"model is 5; expected text"),
        ("a: \x07", "no valid YAML"),
    ],
)
def test_a_mistake_names_line_and_key(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_settings(text, "t.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tinydancer init"):
        load_settings(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"store: caf\xe9\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "latin.yaml")
    (tmp_path / "good.yaml").write_text("tenant: t\n")
    assert load_settings(tmp_path / "good.yaml").tenant == "t"


def test_the_shipped_embedders_have_their_own_space() -> None:
    with pytest.raises(InvalidInputError, match=r"all-MiniLM-L6-v2\[384\]"):
        EmbedderSettings(kind="minilm", space="mine")


PRICES: dict[str, Any] = {
    "sample_spec": {"input_cost_per_token": "see the documentation"},
    "gpt-x": {
        "input_cost_per_token": 2.5e-6, "output_cost_per_token": 1e-5, "cache_read_input_token_cost": 1.25e-6,
        "litellm_provider": "someone", "mode": "chat", "max_input_tokens": 128000, "supports_vision": True,
    },
    "embed-x": {"input_cost_per_token": 1e-7, "mode": "embedding"},
    "picture-x": {"input_cost_per_image": 0.04, "mode": "image_generation"},
    "half-x": {"input_cost_per_token": 1e-6},
    "rank-x": {"input_cost_per_query": 0.001, "mode": "rerank"},
}  # fmt: skip


def test_prices_are_taken_over_and_absent_ones_stay_unknown() -> None:
    agents = {a.name: a for a in agents_from_price_list(PRICES)}
    assert set(agents) == set(PRICES) - {"sample_spec"}
    assert agents["gpt-x"].cost.estimate_usd(1000, 100, cached_input_tokens=400) == pytest.approx(
        600 * 2.5e-6 + 400 * 1.25e-6 + 100 * 1e-5
    )
    assert agents["gpt-x"].metadata["max_input_tokens"] == 128000
    assert agents["embed-x"].cost.estimate_usd(1000, 100) == pytest.approx(1e-4)
    assert [agents[n].cost.estimate_usd(1, 1) for n in ("picture-x", "half-x", "rank-x")] == [None] * 3
    assert [agents[n].agent_type for n in ("embed-x", "picture-x", "rank-x")] == ["embedding", "vision", "rerank"]


def test_patterns_choose_models() -> None:
    assert [a.name for a in agents_from_price_list(PRICES, ("gpt-*", "half-x"))] == ["gpt-x", "half-x"]


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ([], "expected a JSON object"),
        ({"m": 5}, "model 'm': its entry is 5"),
        ({"m": {"input_cost_per_token": -1}}, "model 'm': input_cost_per_token is -1"),
        ({"": {}}, "model ''"),
    ],
)
def test_bad_price_lists_name_the_model(prices: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        agents_from_price_list(prices)
