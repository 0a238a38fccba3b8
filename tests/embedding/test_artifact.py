"""The shipped table: small enough, consistent, and refused when it or its tokenizer is not what it was."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinydancer.embedding import StaticEmbedder
from tinydancer.embedding.static import DATA_DIRECTORY, KIND, TABLE_FILE, TOKENIZER_FILE
from tinydancer.errors import ArtifactError
from tinydancer.model.artifact import load_artifact, save_artifact

SHIPPED = DATA_DIRECTORY / TABLE_FILE
Fields = dict[str, Any]
Change = Callable[[Fields, Fields], object]
WORDS = ["[PAD]", "[UNK]", "hello", "world"]


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small but complete embedder, changed as a test wishes, and returns its folder."""

    def write(change: Change = lambda tensors, metadata: None, *, kind: str = KIND) -> Path:
        tokenizer = json.dumps(
            {
                "version": "1.0",
                "model": {
                    "type": "WordPiece",
                    "unk_token": "[UNK]",
                    "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100,
                    "vocab": {word: i for i, word in enumerate(WORDS)},
                },
                "pre_tokenizer": {"type": "Whitespace"},
            }
        ).encode()
        (tmp_path / TOKENIZER_FILE).write_bytes(tokenizer)
        tensors: Fields = {
            "table": np.array([[0, 0], [0, 127], [127, 0], [-127, 0]], np.int8),
            "scales": np.full(4, 1 / 127, np.float32),
            "weights": np.array([0.0, 1.0, 2.0, 2.0], np.float32),
        }
        metadata: Fields = {
            "space": "two-dimensional",
            "dim": 2,
            "tokenizer_sha256": hashlib.sha256(tokenizer).hexdigest(),
        }
        change(tensors, metadata)
        save_artifact(tmp_path / TABLE_FILE, tensors, kind=kind, metadata=metadata)
        return tmp_path

    return write


@pytest.fixture
def altered(tmp_path: Path) -> Callable[[bytes], Path]:
    """A folder with the shipped tokenizer and the given bytes in place of the table."""

    def write(raw: bytes) -> Path:
        (tmp_path / TOKENIZER_FILE).write_bytes((DATA_DIRECTORY / TOKENIZER_FILE).read_bytes())
        (tmp_path / TABLE_FILE).write_bytes(raw)
        return tmp_path

    return write


def test_the_shipped_table_is_at_most_twelve_million_bytes() -> None:
    assert SHIPPED.stat().st_size <= 12_000_000


def test_the_shipped_table_says_where_it_comes_from_and_how_well_it_fits() -> None:
    shipped = load_artifact(SHIPPED, kind=KIND)
    assert (shipped.metadata["space"], shipped.metadata["dim"]) == ("all-MiniLM-L6-v2", 384)
    assert "Apache-2.0" in shipped.metadata["teacher"]
    fit = shipped.metadata["fit"]
    assert fit["held_out_int8"] == pytest.approx(fit["held_out"], abs=0.002)
    assert fit["held_out_int8"] > fit["held_out_before"]
    assert (shipped.tensors["scales"] > 0).all()
    assert (shipped.tensors["weights"] >= 0).all()


def test_the_embedder_reads_the_table_where_it_is_mapped(small: Callable[..., Path]) -> None:
    for embedder in (StaticEmbedder(), StaticEmbedder(small())):
        assert isinstance(embedder._table.base, mmap.mmap)


def test_a_small_embedder_gives_what_the_formula_says(small: Callable[..., Path]) -> None:
    embedder = StaticEmbedder(small())
    np.testing.assert_allclose(embedder.embed_one("hello nobody")[0], np.array([2.0, 1.0]) / np.sqrt(5.0), atol=1e-6)
    assert (embedder.space.name, embedder.space.dim) == ("two-dimensional", 2)
    assert embedder.metadata["space"] == "two-dimensional"


def test_tokens_that_cancel_each_other_give_the_unknown_tokens_vector(small: Callable[..., Path]) -> None:
    embedder = StaticEmbedder(small())
    vector, count = embedder.embed_one("hello world")
    np.testing.assert_array_equal(vector, [0.0, 1.0])
    assert count == 2.0
    np.testing.assert_array_equal(embedder.embed(["hello", "hello world"]).vectors, [[1.0, 0.0], [0.0, 1.0]])


# What any model file is refused for is shown in tests/model/test_artifact.py; here, that the embedder asks.


@pytest.mark.parametrize("kept", [0, 300, 100_000, -1])
def test_a_truncated_table_is_refused(altered: Callable[[bytes], Path], kept: int) -> None:
    with pytest.raises(ArtifactError, match=r"static\.safetensors") as caught:
        StaticEmbedder(altered(SHIPPED.read_bytes()[:kept]))
    assert caught.value.hint


@pytest.mark.parametrize("tensor", ["scales", "weights", "table"])
def test_one_flipped_bit_is_noticed(altered: Callable[[bytes], Path], tensor: str) -> None:
    raw = bytearray(SHIPPED.read_bytes())
    held = load_artifact(SHIPPED, kind=KIND).tensors[tensor].tobytes()
    raw[raw.index(held) + len(held) // 2] ^= 1
    with pytest.raises(ArtifactError, match="changed after it was saved"):
        StaticEmbedder(altered(bytes(raw)))


def test_a_newer_format_names_both_versions(altered: Callable[[bytes], Path]) -> None:
    raw = SHIPPED.read_bytes().replace(b'"format_version": "1"', b'"format_version": "2"', 1)
    with pytest.raises(ArtifactError, match="format version 2; this Tiny Dancer reads up to 1") as caught:
        StaticEmbedder(altered(raw))
    assert "Upgrade" in caught.value.hint


def test_a_model_of_another_kind_is_no_table(small: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactError, match="kind 'fastgrnn'; expected kind 'static-embedder'"):
        StaticEmbedder(small(kind="fastgrnn"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: m.update(dim=3), r"'table': \('int8', \(4, 2\)\).*expected .*\('int8', \(4, 3\)\)"),
        (lambda t, m: m.pop("dim"), r"expected .*\(4, None\)"),
        (lambda t, m: t.update(weights=t["weights"][:3]), r"'weights': \('float32', \(3,\)\).*; expected"),
        (lambda t, m: t.update(scales=t["scales"][:3]), r"'scales': \('float32', \(3,\)\).*; expected"),
        (lambda t, m: t.update(table=t["table"][0]), r"'table': \('int8', \(2,\)\).*; expected"),
        (lambda t, m: t.update(table=t["table"].astype(np.float32)), r"'table': \('float32', .*; expected .*'int8'"),
        (lambda t, m: t.update(weights=t["weights"].astype(float)), r"'weights': \('float64', .*; expected"),
        (lambda t, m: t.pop("scales"), "expected .*'scales'"),
        (lambda t, m: t.pop("table"), "expected .*'table'"),
        (lambda t, m: t.update({k: v[:3] for k, v in t.items()}), "4 tokens; the table has 3 rows"),
        (lambda t, m: t.update(weights=np.array([1, 0, 1, 1], np.float32)), r"gives \[UNK\] no weight"),
        (lambda t, m: m.update(tokenizer_sha256="0"), "not the tokenizer"),
        (lambda t, m: m.pop("tokenizer_sha256"), "not the tokenizer"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(small: Callable[..., Path], change: Change, message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        StaticEmbedder(small(change))
    assert "build_static_embedder" in caught.value.hint


def test_missing_files_are_named(tmp_path: Path, small: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactError, match=TABLE_FILE) as caught:
        StaticEmbedder(tmp_path / "nowhere")
    assert "Install the package again" in caught.value.hint
    folder = small()
    (folder / TOKENIZER_FILE).unlink()
    with pytest.raises(ArtifactError, match=TOKENIZER_FILE):
        StaticEmbedder(folder)
