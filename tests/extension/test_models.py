"""Models in SQL: checked, stored and chosen by administrators, seen by every session at its next statement."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.extension.test_errors import shows_nothing_of_python
from tinydancer.model.artifact import FORMAT_VERSION, load_artifact, save_artifact
from tinydancer.model.quality import KIND, shipped_model_path

ACTIVE = "SELECT name FROM ruvector_list_models() WHERE is_active"
LOAD = "SELECT ruvector_load_model(%s, %s)"


@pytest.fixture
def shipped() -> Any:
    return load_artifact(shipped_model_path(), kind=KIND)


@pytest.fixture
def mine(tmp_path, shipped) -> bytes:
    """A model that is the shipped one but for a note."""
    path = tmp_path / "mine.safetensors"
    facts = {**shipped.metadata["facts"], "note": "Trained on invoices."}
    save_artifact(path, shipped.tensors, kind=KIND, metadata={**shipped.metadata, "facts": facts})
    content: bytes = path.read_bytes()
    return content


def test_no_model_decides_until_one_is_loaded_or_used(db, shipped, mine):
    (row,) = db.dicts("SELECT * FROM ruvector_list_models()")
    assert (row["name"], row["kind"], row["is_active"], row["is_shipped"]) == ("shipped", KIND, False, True)
    assert (row["sha256"], row["size_bytes"]) == (shipped.sha256, shipped_model_path().stat().st_size)
    assert (row["created_at"], row["metadata"]) == (None, dict(shipped.metadata))
    loaded = db.one(LOAD, "mine", mine)
    assert (loaded["name"], loaded["is_active"], loaded["size_bytes"]) == ("mine", True, len(mine))
    assert loaded["metadata"]["facts"]["note"] == "Trained on invoices."
    rows = db.dicts("SELECT * FROM ruvector_list_models()")
    assert [(row["name"], row["is_active"]) for row in rows] == [("shipped", False), ("mine", True)]
    assert rows[1]["sha256"] == loaded["sha256"] != shipped.sha256
    assert rows[1]["created_at"] is not None
    assert db.one("SELECT artifact FROM tiny_dancer.models WHERE name = 'mine'") == mine


def test_every_session_sees_it_at_its_next_statement(agents, mine, shipped, tmp_path):
    weights = {
        "shipped": f"shipped:{shipped.sha256[:12]}",
        "mine": f"mine:{load_artifact(tmp_path / 'mine.safetensors', kind=KIND).sha256[:12]}",
    }
    other = agents.connect()
    assert other.execute("SELECT model FROM ruvector_route('Hello')").fetchone() == (None,)
    version = "SELECT version FROM tiny_dancer.registry_versions"
    seen = [agents.one(version)]
    steps: list[tuple[str, tuple[Any, ...], list[str]]] = [
        (LOAD, ("mine", mine), ["mine"]),
        ("SELECT ruvector_use_model('none')", (), []),
        ("SELECT ruvector_use_model('mine')", (), ["mine"]),
        ("SELECT ruvector_use_model('shipped')", (), ["shipped"]),
        ("SELECT ruvector_load_model(%s, %s, true)", ("mine", mine), ["mine"]),
        ("SELECT ruvector_remove_model('mine')", (), []),
    ]
    for sql, parameters, expected in steps:
        agents.one(sql, *parameters)
        assert [row[0] for row in other.execute(ACTIVE).fetchall()] == expected
        row = other.execute(version).fetchone()
        assert row is not None
        seen.append(row[0])
        decided = other.execute("SELECT model FROM ruvector_route('Hello')").fetchone()
        assert decided == (weights[expected[0]] if expected else None,)
    assert seen == sorted(set(seen))


def test_what_is_rolled_back_was_never_there(agents, mine):
    with suppress(psycopg.Rollback), agents.connection.transaction():
        agents.one(LOAD, "mine", mine)
        assert agents.one(ACTIVE) == "mine"
        raise psycopg.Rollback
    assert agents.rows(ACTIVE) == []
    assert agents.one("SELECT count(*) FROM ruvector_list_models()") == 1


def test_errors(db, mine, tmp_path, shipped):
    db.one(LOAD, "mine", mine)
    save_artifact(tmp_path / "other", shipped.tensors, kind="fastgrnn", metadata=shipped.metadata)
    old, new = (f'"format_version": "{number}"'.encode() for number in (FORMAT_VERSION, FORMAT_VERSION + 1))
    assert old in mine
    for name, artifact, sqlstate, message in (
        ("mine", mine, "42710", "'mine' is stored already"),
        ("shipped", mine, "22023", "reserved"),
        ("none", mine, "22023", "reserved"),
        ("", mine, "22023", "empty"),
        (None, mine, "22023", "model name is NULL"),
        ("new", None, "22023", "model's file is NULL"),
        ("new", b"", "XX001", "0 bytes"),
        ("new", mine[: len(mine) // 2], "XX001", "The file of the model 'new' is no usable model file"),
        ("new", mine[:-3] + b"xyz", "XX001", "changed after it was saved"),
        ("new", mine.replace(old, new), "XX001", f"format version {FORMAT_VERSION + 1}"),
        ("new", (tmp_path / "other").read_bytes(), "XX001", "kind 'fastgrnn'"),
    ):
        error = db.fails(LOAD, name, artifact)
        assert error.sqlstate == sqlstate, error
        assert message in error.diag.message_primary
        assert str(tmp_path) not in str(error)
        shows_nothing_of_python(error)
    for sql, sqlstate, message in (
        ("ruvector_use_model('mien')", "42704", "'mien'"),
        ("ruvector_use_model(NULL)", "22023", "NULL"),
        ("ruvector_remove_model('mien')", "42704", "'mien'"),
        ("ruvector_remove_model('shipped')", "22023", "cannot be removed"),
        ("ruvector_remove_model('none')", "42704", "'none'"),
    ):
        error = db.fails(f"SELECT {sql}")
        assert error.sqlstate == sqlstate, error
        assert message in error.diag.message_primary
    assert db.fails("SELECT ruvector_use_model('mien')").diag.message_hint == "Did you mean 'mine'?"
    assert db.rows("SELECT name FROM ruvector_list_models()") == [("shipped",), ("mine",)]
    assert db.one(ACTIVE) == "mine"


def test_a_model_of_another_space_is_refused(db, mine):
    db.one("SELECT tiny_dancer.set_vector_space('other', 384)")
    error = db.fails(LOAD, "mine", mine)
    assert error.sqlstate == "22000"
    assert "all-MiniLM-L6-v2[384]" in error.diag.message_primary
    assert "other[384]" in error.diag.message_primary


def test_only_administrators_change_what_decides(agents, role, mine):
    agents.one(LOAD, "mine", mine)
    for group in ("reader", "router", "admin"):
        with psycopg.connect(agents.dsn, user=role(f"tiny_dancer_{group}"), autocommit=True) as session:
            assert session.execute(ACTIVE).fetchall() == [("mine",)]
            changes: list[tuple[str, tuple[Any, ...]]] = [
                (LOAD, ("theirs", mine)),
                ("SELECT ruvector_use_model('shipped')", ()),
                ("SELECT ruvector_use_model('none')", ()),
                ("SELECT ruvector_use_model('mine')", ()),
                ("SELECT ruvector_remove_model('mine')", ()),
            ]
            for sql, parameters in changes:
                if group == "admin":
                    session.execute(sql, parameters)
                    continue
                with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
                    session.execute(sql, parameters)
                assert "tiny_dancer_admin" in (caught.value.diag.message_hint or "")
    assert agents.rows("SELECT name FROM ruvector_list_models() ORDER BY name") == [("shipped",), ("theirs",)]


def test_reading_models_works_where_nothing_may_be_written(db, mine):
    db.one(LOAD, "mine", mine)
    db.rows("SET default_transaction_read_only = on")
    assert db.one(ACTIVE) == "mine"
    assert db.fails("SELECT ruvector_use_model('none')").sqlstate == "25006"
    error = db.fails("SELECT tiny_dancer._ok(tiny_dancer._read_models('use_model', '{\"name\": \"none\"}'))")
    assert "not allowed in a non-volatile function" in error.diag.message_primary


def test_tenants_have_models_of_their_own(db, role, mine):
    db.one(LOAD, "mine", mine)
    with psycopg.connect(db.dsn, user=role("tiny_dancer_admin"), autocommit=True) as session:
        session.execute("SET tiny_dancer.tenant = 'north'")
        assert session.execute("SELECT name, is_active FROM ruvector_list_models()").fetchall() == [("shipped", False)]
        with pytest.raises(psycopg.errors.UndefinedObject):
            session.execute("SELECT ruvector_use_model('mine')")
        session.execute("SELECT ruvector_use_model('shipped')")
        assert session.execute(ACTIVE).fetchall() == [("shipped",)]
        session.execute("SET tiny_dancer.tenant = 'default'")
        assert session.execute(ACTIVE).fetchall() == [("mine",)]


def test_a_dump_keeps_models_and_what_was_learned(db, new_database, mine):
    db.one(LOAD, "mine", mine)
    db.one(LOAD, "yours", mine)
    db.one("SELECT ruvector_use_model('shipped')")
    db.rows("INSERT INTO tiny_dancer.abilities (model_sha256, up_to, state) VALUES (repeat('a', 64), 7, '\\x0102')")
    listing = "SELECT * FROM ruvector_list_models()"
    before = db.rows(listing)
    db.connection.close()
    target = new_database()
    archive = db.cluster.directory / "models.dump"
    db.cluster.program("pg_dump", "-Fc", "-f", archive, db.name)
    db.cluster.program("pg_restore", "--exit-on-error", "-d", target.name, archive)
    archive.unlink()
    assert target.rows(listing) == before
    assert target.one(ACTIVE) == "shipped"
    assert target.one("SELECT artifact FROM tiny_dancer.models WHERE name = 'yours'") == mine
    assert target.rows("SELECT up_to, state FROM tiny_dancer.abilities") == [(7, b"\x01\x02")]
    target.one("SELECT ruvector_use_model('mine')")
    assert target.one(ACTIVE) == "mine"


def test_loading_leaves_no_file_behind(db, mine):
    before = set(Path("/tmp").glob("tinydancer-*"))
    db.one(LOAD, "mine", mine)
    db.fails(LOAD, "other", mine[:100])
    assert set(Path("/tmp").glob("tinydancer-*")) <= before
