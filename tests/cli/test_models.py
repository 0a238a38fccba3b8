"""``tinydancer models``: what is added is listed, shown, chosen, exported and removed; what is damaged is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.conftest import Run
from tinydancer.cli import models
from tinydancer.model.artifact import FORMAT_VERSION, load_artifact, save_artifact
from tinydancer.model.quality import KIND, shipped_model_path
from tinydancer.store.sqlite import SqliteStore
from tinydancer.types import EmbeddingSpace


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A model's file that is the shipped one but for a note."""
    return variant(tmp_path / "mine.safetensors", "Trained on invoices.")


def variant(path: Path, note: str, **changes: Any) -> Path:
    shipped = load_artifact(shipped_model_path(), kind=KIND)
    facts = {**shipped.metadata["facts"], "note": note}
    save_artifact(path, shipped.tensors, kind=KIND, metadata={**shipped.metadata, "facts": facts, **changes})
    return path


def listed(run: Run) -> dict[str, bool]:
    return {card["name"]: card["is_active"] for card in json.loads(run("models", "list", "--json").stdout)}


def test_the_shipped_model_is_there_and_decides_when_it_is_told_to(run, store):
    (card,) = json.loads(run("models", "list", "--json").stdout)
    shipped = load_artifact(shipped_model_path(), kind=KIND)
    assert (card["name"], card["kind"], card["is_active"], card["is_shipped"]) == ("shipped", KIND, False, True)
    assert (card["sha256"], card["size_bytes"]) == (shipped.sha256, shipped_model_path().stat().st_size)
    assert card["created_at"] is None
    assert card["metadata"] == shipped.metadata
    assert not store.exists()  # who only looks leaves no file behind
    listing = run("models", "list")
    assert listing.stdout.splitlines()[2].split()[:2] == ["shipped", "no"]
    assert "No model decides" in listing.stderr
    assert "tinydancer models use shipped" in listing.stderr
    assert run("models", "use", "shipped").stderr == "shipped decides.\n"
    listing = run("models", "list")
    assert listing.stdout.splitlines()[2].split()[:2] == ["shipped", "yes"]
    assert listing.stderr == ""


def test_add_use_show_export_remove(run, mine, tmp_path):
    content = mine.read_bytes()
    added = json.loads(run("models", "add", str(mine), "--json").stdout)
    assert (added["name"], added["is_active"], added["size_bytes"]) == ("mine", False, len(content))
    assert added["metadata"]["facts"]["note"] == "Trained on invoices."
    assert listed(run) == {"shipped": False, "mine": False}
    assert run("models", "use", "mine").stderr == "mine decides.\n"
    assert listed(run) == {"shipped": False, "mine": True}
    shown = json.loads(run("models", "show", "mine", "--json").stdout)
    assert shown == {**added, "is_active": True}
    text = run("models", "show", "mine").stdout
    space = f"{added['metadata']['space']}, {added['metadata']['dim']} dimensions"
    agents = added["metadata"]["agents"]
    for fact in (KIND, added["sha256"], "Trained on invoices.", "yes", space, f"{len(agents)}: {agents[0]}"):
        assert fact in text
    run("models", "export", "mine", "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == content
    assert run("models", "remove", "mine").stderr == "Removed mine. No model decides now.\n"
    assert listed(run) == {"shipped": False}


def test_a_choice_is_seen_by_every_process(run, process, mine):
    run("models", "add", str(mine), "--use")
    done = process("models", "list", "--json")
    assert done.returncode == 0, done.stderr
    assert {card["name"]: card["is_active"] for card in json.loads(done.stdout)} == {"shipped": False, "mine": True}


def test_none_and_shipped(run):
    assert json.loads(run("models", "use", "shipped", "--json").stdout)["is_active"] is True
    assert listed(run) == {"shipped": True}
    assert "No model decides" in run("models", "none").stderr
    assert listed(run) == {"shipped": False}
    assert "No model decides" in run("models", "list").stderr
    run("models", "remove", "shipped", code=2)
    run("models", "export", "shipped", "out.safetensors")
    assert Path("out.safetensors").read_bytes() == shipped_model_path().read_bytes()


def test_names_and_replacing(run, mine, tmp_path):
    run("models", "add", str(mine), "--name", "support")
    again = variant(tmp_path / "again.safetensors", "Trained anew.")
    failed = run("models", "add", str(again), "--name", "support", "--use", code=4)
    assert "'support' is stored already" in failed.stderr
    assert listed(run) == {"shipped": False, "support": False}
    run("models", "add", str(again), "--name", "support", "--use", "--replace")
    assert json.loads(run("models", "show", "support", "--json").stdout)["metadata"]["facts"]["note"] == "Trained anew."
    assert listed(run)["support"] is True
    run("models", "add", "-", "--name", "piped", input=mine.read_bytes())
    assert "piped" in listed(run)
    assert "--name" in run("models", "add", "-", input=mine.read_bytes(), code=2).stderr
    for name in ("shipped", "none"):
        assert "reserved" in run("models", "add", str(mine), "--name", name, code=2).stderr


def test_a_name_that_is_not_there(run, mine):
    run("models", "add", str(mine))
    for command in (("show", "mien"), ("use", "mien"), ("remove", "mien"), ("export", "mien", "x")):
        failed = run("models", *command, code=3)
        assert "'mien'" in failed.stderr
        assert "Did you mean 'mine'?" in failed.stderr
    assert not Path("x").exists()


def test_what_exists_is_not_overwritten(run, mine):
    failed = run("models", "export", "shipped", str(mine), code=4)
    assert "exists" in failed.stderr
    assert load_artifact(mine, kind=KIND).metadata["facts"]["note"] == "Trained on invoices."
    assert "cannot be written" in run("models", "export", "shipped", "no/such/folder", code=2).stderr
    assert "cannot be read" in run("models", "add", "absent.safetensors", code=2).stderr


def damaged(content: bytes, how: str) -> bytes:
    if how == "truncated":
        return content[: len(content) * 3 // 4]
    if how == "empty":
        return b""
    if how == "tampered":
        return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    if how == "newer":
        old, new = (f'"format_version": "{number}"'.encode() for number in (FORMAT_VERSION, FORMAT_VERSION + 1))
        assert len(old) == len(new)
        assert old in content
        return content.replace(old, new)
    return b"\x80\x04\x95 not a model, but a pickle, say"


@pytest.mark.parametrize(
    ("how", "message"),
    [("truncated", "truncated|header"), ("empty", "0 bytes"), ("tampered", "changed after it was saved"),
     ("newer", f"format version {FORMAT_VERSION + 1}"), ("foreign", "no usable model file")],
)  # fmt: skip
def test_a_damaged_file_is_refused(run, mine, how, message):
    mine.write_bytes(damaged(mine.read_bytes(), how))
    failed = run("models", "add", str(mine), code=8)
    assert re.search(message, failed.stderr), failed.stderr
    assert "The file of the model 'mine'" in failed.stderr  # not a name that nobody gave it
    assert "hint:" in failed.stderr
    assert listed(run) == {"shipped": False}


def test_parts_that_do_not_fit_are_refused(run, tmp_path):
    agents = load_artifact(shipped_model_path(), kind=KIND).metadata["agents"]
    variant(tmp_path / "misfit.safetensors", "Whole, but wrong.", agents=agents[1:])
    failed = run("models", "add", "misfit.safetensors", code=8)
    assert "The file of the model 'misfit' is no usable quality model" in failed.stderr


def test_another_kind_is_refused(run, tmp_path):
    shipped = load_artifact(shipped_model_path(), kind=KIND)
    save_artifact(tmp_path / "other.safetensors", shipped.tensors, kind="fastgrnn", metadata=shipped.metadata)
    assert "'fastgrnn'" in run("models", "add", "other.safetensors", code=8).stderr


def test_a_model_of_another_space_is_refused(run, store, mine, tmp_path):
    SqliteStore(store, space=EmbeddingSpace("other", 384)).close()
    settings = tmp_path / "tinydancer.yaml"
    settings.write_text("embedder:\n  kind: none\n  space: other\n  dim: 384\n")
    failed = run("models", "add", str(mine), code=2)
    assert "all-MiniLM-L6-v2[384]" in failed.stderr
    assert "other[384]" in failed.stderr
    failed = run("models", "use", "shipped", code=2)
    assert "The shipped model" in failed.stderr
    assert "other[384]" in failed.stderr


def test_tenants_have_models_of_their_own(run, mine):
    run("models", "add", str(mine), "--use")
    north = json.loads(run("--tenant", "north", "models", "list", "--json").stdout)
    assert [(card["name"], card["is_active"]) for card in north] == [("shipped", False)]


def test_names_complete(run, store, mine):
    root = SimpleNamespace(params={"store": str(store)})
    ctx: Any = SimpleNamespace(find_root=lambda: root)
    assert models.complete_model_name(ctx, "") == ["shipped"]
    run("models", "add", str(mine))
    assert models.complete_model_name(ctx, "") == ["shipped", "mine"]
    assert models.complete_model_name(ctx, "m") == ["mine"]
    store.write_bytes(b"no store" * 4096)
    assert models.complete_model_name(ctx, "m") == []
