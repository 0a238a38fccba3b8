"""What a store does when the file cannot be used: a clear error, nothing half written, usable afterwards."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tests.store.suite import agent, decision, outcome
from tinydancer.errors import (
    InvalidInputError,
    SpaceMismatchError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreReadOnlyError,
    StoreVersionError,
)
from tinydancer.store.failures import store_error
from tinydancer.store.sqlite import SqliteStore
from tinydancer.types import EmbeddingSpace


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


def filled(path, number=300):
    with SqliteStore(path) as store:
        store.insert_agent(agent("a"))
        store.insert_decisions([decision(str(i)) for i in range(number)])
        store.insert_outcomes([outcome("a", decision_id=str(i), latency_ms=5.0) for i in range(number)])
    return path


def test_a_locked_file_is_waited_for_and_told_of(path):
    filled(path, 1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with SqliteStore(path, timeout_s=0.3) as store:
        for attempt in (
            lambda: store.insert_agent(agent("b")),
            lambda: store.insert_outcomes([outcome("a")]),
            lambda: store.insert_decisions([decision("x")]),
        ):
            begun = time.monotonic()
            with pytest.raises(StoreLockedError, match=r"locked .* for 0\.\d s"):
                attempt()
            assert time.monotonic() - begun >= 0.3
        assert store.save_ability_state("0" * 64, 1, b"state") is False  # what was learned can be learned again
        assert store.agent_stats()["a"].total_requests == 1  # readers are not in the way of writers, nor they of them
        holder.execute("ROLLBACK")
        store.insert_agent(agent("b"))
        assert [a.name for a in store.list_agents()] == ["a", "b"]
    holder.close()


def test_a_short_lock_is_only_waited_for(path):
    filled(path, 1)
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.2, lambda: holder.execute("ROLLBACK"))
    timer.start()
    with SqliteStore(path, timeout_s=30) as store:
        store.insert_outcomes([outcome("a")])
        assert store.agent_stats()["a"].total_requests == 2
    timer.join()
    holder.close()


def test_threads_that_wait_behind_a_lock_are_all_told(path):
    filled(path, 1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    told = []
    with SqliteStore(path, timeout_s=0.3) as store:

        def report():
            try:
                store.insert_outcomes([outcome("a")])
            except StoreLockedError as error:
                told.append(error)

        threads = [threading.Thread(target=report) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == 6
        assert len({id(error) for error in told}) == 6
        holder.execute("ROLLBACK")
        assert store.agent_stats()["a"].total_requests == 1
        store.insert_outcomes([outcome("a")])
        assert store.agent_stats()["a"].total_requests == 2
    holder.close()


def limit_pages(store, more):
    (pages,) = store._database.fetch("PRAGMA page_count")[0]
    store._database.fetch(f"PRAGMA max_page_count={pages + more}")


def test_a_full_file_is_told_and_nothing_is_half_written(path):
    filled(path)
    with SqliteStore(path) as store:
        limit_pages(store, 1)
        before = store.version(), len(store.list_decisions(10_000))
        with pytest.raises(StoreFullError, match="no room left"):
            store.insert_agents([agent(f"b{i}") for i in range(100)], replace=False)
        with pytest.raises(StoreFullError):
            store.insert_outcomes([outcome("a")] * 5000)
        with pytest.raises(StoreFullError):
            store.insert_decisions([decision(f"x{i}") for i in range(2000)])
        assert (store.version(), len(store.list_decisions(10_000))) == before
        limit_pages(store, 10_000)
        store.insert_outcomes([outcome("a")] * 5000)
        assert store.agent_stats()["a"].total_requests == 5300
        store.check()


def can_mount(folder: Path) -> bool:
    if os.geteuid() != 0 or not Path("/bin/mount").exists():
        return False
    command = ["/bin/mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if not can_mount(folder):
        pytest.skip("mounting a small disk needs root; the page limit above covers the same error")
    try:
        acknowledged = 1
        store = SqliteStore(folder / "store.db")
        store.insert_agent(agent("a"))
        store.insert_outcomes([outcome("a")])
        told = ""
        while not told:
            try:
                store.insert_outcomes([outcome("a")] * 20)
                acknowledged += 20
            except StoreFullError as error:
                told = str(error)
        assert "no room left" in told
        assert store.agent_stats()["a"].total_requests == acknowledged
        store.close()
        with SqliteStore(folder / "store.db") as again:
            assert again.agent_stats()["a"].total_requests == acknowledged
            again.check()
        fill(folder / "filler")
        with pytest.raises(StoreFullError):
            SqliteStore(folder / "new.db")
    finally:
        subprocess.run(["/bin/umount", str(folder)], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as sink, contextlib.suppress(OSError):
        while sink.write(bytes(4096)):
            pass


@pytest.mark.parametrize("content", [b"this is no database, but a letter to a friend. " * 200, b"\x00" * 8192, b"xy"])
def test_a_file_that_is_no_database_is_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(StoreCorruptError, match="not a database"):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_left_alone(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE invoices (id INTEGER)")
    connection.commit()
    connection.close()
    content = path.read_bytes()
    with pytest.raises(StoreError, match="not a store of Tiny Dancer"):
        SqliteStore(path)
    with pytest.raises(StoreError, match="not a store of Tiny Dancer"):
        SqliteStore.open_space(path)
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_store(path):
    path.touch()
    with SqliteStore(path) as store:
        store.insert_agent(agent("a"))
    assert SqliteStore.open_space(path) == store.space


def test_a_truncated_file_is_told(path):
    content = filled(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreCorruptError, match="damaged"):
        SqliteStore(path)


def test_flipped_bytes_in_the_header_are_told(path):
    content = bytearray(filled(path).read_bytes())
    for i in range(16):
        content[i] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(StoreCorruptError):
        SqliteStore(path)


def test_flipped_bytes_in_a_page_are_told_when_it_is_read(path):
    content = bytearray(filled(path).read_bytes())
    connection = sqlite3.connect(path)
    page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'decisions'").fetchone()
    connection.close()
    for i in range(64):
        content[(root - 1) * page_size + i] ^= 0xFF
    path.write_bytes(content)
    with SqliteStore(path) as store:
        with pytest.raises(StoreCorruptError, match="damaged"):
            store.list_decisions()
        with pytest.raises(StoreCorruptError):
            store.insert_decisions([decision("x")])
        with pytest.raises(StoreCorruptError):
            store.check()
        assert [a.name for a in store.list_agents()] == ["a"]  # what is not damaged is still read


def test_a_vector_of_the_wrong_length_in_the_file_is_told(path):
    filled(path, 1)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE agents SET embedding = x'00000000'")
    connection.commit()
    connection.close()
    with SqliteStore(path) as store, pytest.raises(StoreCorruptError, match=r"4 bytes; expected 1536"):
        store.list_agents()


READ_ONLY = """
    import os, sys
    from tests.store.suite import agent, decision, outcome
    from tinydancer.errors import StoreReadOnlyError
    from tinydancer.store.sqlite import SqliteStore
    an_agent, a_decision, an_outcome = agent("b"), decision("x"), outcome("a")
    if os.geteuid() == 0:  # root may write anywhere
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    path, may_open = sys.argv[1], sys.argv[2] == "may open"
    try:
        store = SqliteStore(path, timeout_s=1)
    except StoreReadOnlyError as error:
        assert not may_open and path in str(error) and "permission" in error.hint
        print("refused")
        sys.exit()
    assert may_open
    assert [a.name for a in store.list_agents()] == ["a"]
    assert store.agent_stats()["a"].total_requests == 3
    for attempt in (
        lambda: store.insert_agent(an_agent),
        lambda: store.insert_decisions([a_decision]),
        lambda: store.insert_outcomes([an_outcome]),
    ):
        try:
            attempt()
        except StoreReadOnlyError:
            continue
        raise AssertionError("it was written")
    assert store.save_ability_state("0" * 64, 3, b"state") is False
    assert store.version().outcomes == 3
    print("read")
"""


def run_read_only(path, expectation):
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(READ_ONLY), str(path), expectation],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture
def public_path(tmp_path):
    """A store in a folder that another user may reach, since root is refused nothing."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o711)
    folder = tmp_path / "shared"
    folder.mkdir()
    return filled(folder / "store.db", 3)


def test_a_read_only_file_is_read_and_not_written(public_path):
    public_path.chmod(0o444)
    public_path.parent.chmod(0o777)
    assert run_read_only(public_path, "may open") == "read"


def test_a_read_only_directory_is_told(public_path):
    public_path.chmod(0o444)
    public_path.parent.chmod(0o555)
    assert run_read_only(public_path, "may not open") == "refused"
    assert run_read_only(public_path.parent / "new.db", "may not open") == "refused"
    public_path.parent.chmod(0o755)


def test_a_directory_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StoreError, match=r"directory .*missing does not exist") as caught:
        SqliteStore(tmp_path / "missing" / "store.db")
    assert not isinstance(caught.value, (StoreReadOnlyError, StoreCorruptError))
    with pytest.raises(StoreError, match="is a directory; expected a file"):
        SqliteStore(tmp_path)
    with pytest.raises(InvalidInputError, match="NUL"):
        SqliteStore("a\x00b")


def test_a_file_that_was_removed_is_not_silently_made_anew(path):
    with SqliteStore(path) as store:
        store.insert_agent(agent("a"))
        for file in path.parent.glob("store.db*"):
            file.unlink()
        errors = []

        def read():
            try:
                store.list_agents()
            except StoreError as error:
                errors.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert "cannot be opened" in str(errors[0])
        assert not path.exists()


def test_a_newer_file_is_left_alone(path):
    filled(path, 1)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO schema_migrations VALUES (99, 'of_the_future', 'x', 0.0)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreVersionError, match="schema 99") as caught:
        SqliteStore(path)
    assert "upgrade" in caught.value.hint


def test_a_file_of_an_unreleased_build_is_left_alone(path):
    filled(path, 1)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE schema_migrations SET sha256 = 'other' WHERE number = 1")
    connection.commit()
    connection.close()
    with pytest.raises(StoreVersionError, match="0001_initial"):
        SqliteStore(path)


def test_a_file_in_another_space_names_both(path):
    filled(path, 1)
    with pytest.raises(SpaceMismatchError, match=r"all-MiniLM-L6-v2.*384.*bge-small.*512"):
        SqliteStore(path, space=EmbeddingSpace("bge-small", 512))
    with pytest.raises(SpaceMismatchError, match=r"all-MiniLM-L6-v2.*another"):
        SqliteStore(path, space=EmbeddingSpace("another", 384))
    SqliteStore(path).close()


def test_the_space_of_a_file_can_be_asked(path):
    assert SqliteStore.open_space(path) is None
    assert not path.exists()
    path.touch()
    assert SqliteStore.open_space(path) is None
    SqliteStore(path, space=EmbeddingSpace("bge-small", 512)).close()
    assert SqliteStore.open_space(path) == EmbeddingSpace("bge-small", 512)
    sqlite3.connect(path.with_name("empty.db")).close()
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM meta")
    connection.commit()
    connection.close()
    assert SqliteStore.open_space(path) is None
    SqliteStore(path).close()  # an opening that was interrupted before the space was recorded
    assert SqliteStore.open_space(path) == EmbeddingSpace("all-MiniLM-L6-v2", 384)


def test_arguments_are_checked(path):
    with pytest.raises(InvalidInputError, match="timeout_s"):
        SqliteStore(path, timeout_s=-1)
    with pytest.raises(InvalidInputError, match="tenant"):
        SqliteStore(path, tenant="")


def mangled(given, **changes):
    """An object that went around its own checks."""
    for name, value in changes.items():
        object.__setattr__(given, name, value)
    return given


def test_values_that_sqlite_cannot_store_are_refused(path):
    filled(path, 1)
    with SqliteStore(path) as store:
        for wrong in ({"decision_id": ""}, {"model": object()}, {"model": b"bytes"}, {"model": "\ud800"}):
            with pytest.raises(InvalidInputError):
                store.insert_decisions([decision(**({"decision_id": "x"} | wrong))])
        with pytest.raises(InvalidInputError):
            store.insert_outcomes([outcome("a", decision_id={"not": "text"})])
        with pytest.raises(InvalidInputError):
            store.get_agent("\ud800")
        with pytest.raises(InvalidInputError, match="quality_score"):
            store.insert_agent(mangled(agent("b"), quality_score=7.0))
        assert store.version().outcomes == 1
        assert len(store.list_decisions()) == 1


def test_an_error_of_the_disk_is_told(path):
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    told = store_error(error, str(path))
    assert type(told) is StoreError
    assert "disk I/O error" in told.message
    denied = sqlite3.OperationalError("access permission denied")
    denied.sqlite_errorcode = sqlite3.SQLITE_PERM
    assert type(store_error(denied, str(path))) is StoreReadOnlyError
    assert type(store_error(error, "/nowhere/at/all")) is StoreError
