"""The shipped table: small enough, consistent, and refused when anything about it was changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tinydancer.embedding import StaticEmbedder
from tinydancer.embedding.static import (
    DATA_DIRECTORY,
    FORMAT_VERSION,
    TABLE_FILE,
    TOKENIZER_FILE,
    content_hash,
    read_table,
)
from tinydancer.errors import ArtifactError

SHIPPED = DATA_DIRECTORY / TABLE_FILE
Tensors = dict[str, Any]
WORDS = ["[PAD]", "[UNK]", "hello", "world"]


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small but complete embedder, changed as a test wishes, and returns its folder."""

    def write(
        change: Callable[[Tensors, dict[str, str]], None] = lambda tensors, metadata: None, *, rehash: bool = True
    ) -> Path:
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
        tensors: Tensors = {
            "table": np.array([[0, 0], [0, 127], [127, 0], [-127, 0]], np.int8),
            "scales": np.full(4, 1 / 127, np.float32),
            "weights": np.array([0.0, 1.0, 2.0, 2.0], np.float32),
        }
        metadata = {
            "format_version": "1",
            "kind": "static-embedder",
            "space": "two-dimensional",
            "dim": "2",
            "tokenizer_sha256": hashlib.sha256(tokenizer).hexdigest(),
        }
        if rehash:
            change(tensors, metadata)
        metadata["sha256"] = content_hash(tensors, metadata)
        if not rehash:
            change(tensors, metadata)
        save_file(tensors, tmp_path / TABLE_FILE, metadata)
        return tmp_path

    return write


def test_the_shipped_table_is_at_most_twelve_million_bytes() -> None:
    assert SHIPPED.stat().st_size <= 12_000_000


def test_the_shipped_table_says_where_it_comes_from_and_how_well_it_fits() -> None:
    tensors, metadata = read_table(SHIPPED)
    assert metadata["format_version"] == str(FORMAT_VERSION)
    assert (metadata["space"], metadata["dim"]) == ("all-MiniLM-L6-v2", "384")
    assert "Apache-2.0" in metadata["teacher"]
    fit = json.loads(metadata["fit"])
    assert fit["held_out_int8"] == pytest.approx(fit["held_out"], abs=0.002)
    assert fit["held_out_int8"] > fit["held_out_before"]
    assert (tensors["scales"] > 0).all()
    assert (tensors["weights"] >= 0).all()


def test_safetensors_own_reader_sees_the_same_tensors() -> None:
    theirs, (ours, _) = load_file(SHIPPED), read_table(SHIPPED)
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(tensor, ours[name])


def test_the_table_is_mapped_read_only() -> None:
    table = read_table(SHIPPED)[0]["table"]
    assert not table.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 1


def test_a_small_embedder_gives_what_the_formula_says(small: Callable[..., Path]) -> None:
    embedder = StaticEmbedder(small())
    np.testing.assert_allclose(embedder.embed_one("hello nobody")[0], np.array([2.0, 1.0]) / np.sqrt(5.0), atol=1e-6)
    assert embedder.space.name == "two-dimensional"
    assert embedder.metadata["kind"] == "static-embedder"


def test_tokens_that_cancel_each_other_give_the_unknown_tokens_vector(small: Callable[..., Path]) -> None:
    embedder = StaticEmbedder(small())
    vector, count = embedder.embed_one("hello world")
    np.testing.assert_array_equal(vector, [0.0, 1.0])
    assert count == 2.0
    np.testing.assert_array_equal(embedder.embed(["hello", "hello world"]).vectors, [[1.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize("kept", [0, 5, 8, 300, 100_000, -1])
def test_a_truncated_table_is_refused(tmp_path: Path, kept: int) -> None:
    (tmp_path / TOKENIZER_FILE).write_bytes((DATA_DIRECTORY / TOKENIZER_FILE).read_bytes())
    (tmp_path / TABLE_FILE).write_bytes(SHIPPED.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=r"static\.safetensors") as caught:
        StaticEmbedder(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("place", [0.001, 0.25, 0.5, 0.99, 0.99999])
def test_one_flipped_bit_is_noticed(tmp_path: Path, place: float) -> None:
    raw = bytearray(SHIPPED.read_bytes())
    raw[int(len(raw) * place)] ^= 1
    (tmp_path / TABLE_FILE).write_bytes(raw)
    with pytest.raises(ArtifactError, match="changed after it was written"):
        read_table(tmp_path / TABLE_FILE)


def test_changed_metadata_is_noticed(small: Callable[..., Path]) -> None:
    folder = small(lambda tensors, metadata: metadata.update(space="another"), rehash=False)
    with pytest.raises(ArtifactError, match="changed after it was written"):
        StaticEmbedder(folder)


def test_a_newer_format_names_both_versions(small: Callable[..., Path]) -> None:
    folder = small(lambda tensors, metadata: metadata.update(format_version="2"))
    with pytest.raises(ArtifactError, match="format version 2; this Tiny Dancer reads up to 1") as caught:
        StaticEmbedder(folder)
    assert "Upgrade" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: m.update(kind="fastgrnn"), "kind 'fastgrnn'"),
        (lambda t, m: m.update(dim="3"), "hash or shapes"),
        (lambda t, m: t.update(weights=t["weights"][:3].copy()), "hash or shapes"),
        (lambda t, m: t.update(table=t["table"].astype(np.float32)), "type F32, expected I8"),
        (lambda t, m: t.pop("scales"), "truncated or damaged"),
        (lambda t, m: m.pop("format_version"), "header cannot be read"),
        (lambda t, m: t.update({k: v[:3].copy() for k, v in t.items()}), "4 tokens; the table has 3 rows"),
        (lambda t, m: t.update(weights=np.array([1, 0, 1, 1], np.float32)), r"gives \[UNK\] no weight"),
        (lambda t, m: m.update(tokenizer_sha256="0"), "not the tokenizer"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    small: Callable[..., Path], change: Callable[[Tensors, dict[str, str]], None], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        StaticEmbedder(small(change))


def test_missing_files_are_named(tmp_path: Path, small: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactError, match=TABLE_FILE):
        StaticEmbedder(tmp_path / "nowhere")
    folder = small()
    (folder / TOKENIZER_FILE).unlink()
    with pytest.raises(ArtifactError, match=TOKENIZER_FILE):
        StaticEmbedder(folder)


@pytest.mark.parametrize(
    "raw", [b"\xff" * 64, b"\x08" + b"\0" * 7 + b"not json", b"\x02" + b"\0" * 7 + b"{}", b"\x02" + b"\0" * 7 + b"[]"]
)
def test_another_kind_of_file_is_no_token_table(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / TABLE_FILE).write_bytes(raw)
    with pytest.raises(ArtifactError, match="header cannot be read"):
        read_table(tmp_path / TABLE_FILE)
