"""Connections: one per thread, closed with them; writes in groups; closing; forking."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback

import pytest

from tests.store.suite import agent, decision, outcome
from tinydancer.errors import NotFoundError, StoreError, StoreFullError, StoreLockedError
from tinydancer.store.connection import Database
from tinydancer.store.sqlite import SqliteStore


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path / "x.db", timeout_s=5)
    database.fetch("PRAGMA journal_mode=WAL")
    database.write(lambda c: c.execute("CREATE TABLE t (x INTEGER NOT NULL) STRICT"), durable=True)
    yield database
    database.close()


def put(value):
    return lambda connection: connection.execute("INSERT INTO t VALUES (?)", (value,)).rowcount


def contents(database):
    return [row[0] for row in database.fetch("SELECT x FROM t ORDER BY x")]


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_each_thread_has_its_connection_and_leaves_none_behind(database):
    for _ in range(20):
        in_thread(lambda: database.fetch("SELECT 1")).join()
    assert len(database._handles) <= 2
    barrier = threading.Barrier(5)

    def work():
        database.fetch("SELECT 1")
        barrier.wait()

    threads = [in_thread(work) for _ in range(5)]
    for thread in threads:
        thread.join()
    assert len(database._handles) == 6


def test_durable_writes_wait_for_the_disk_and_others_do_not(database):
    def synchronous(connection):
        return connection.execute("PRAGMA synchronous").fetchone()[0]

    found = [database.write(synchronous, durable=durable) for durable in (True, False, False, True)]
    assert found == [2, 1, 1, 2]  # FULL, NORMAL
    assert database.fetch("PRAGMA journal_mode") == [("wal",)]


def test_what_a_store_writes_is_durable_as_documented(tmp_path, monkeypatch):
    with SqliteStore(tmp_path / "x.db") as store:
        used: list[bool] = []
        write = store._database.write

        def noted(work, *, durable):
            used.append(durable)
            return write(work, durable=durable)

        monkeypatch.setattr(store._database, "write", noted)
        store.insert_agent(agent("a"))
        store.insert_outcomes([outcome("a")])
        store.replace_agent(agent("a"))
        assert used == [True] * 3
        store.insert_decisions([decision("1")])
        assert used[3:] == [False]
        store.delete_agent("a")
        store.clear_agents()
        store.roll_up()
        assert used[4:] == [True] * 3


def test_writes_that_wait_are_committed_together_and_fail_alone(database):
    started, go_on = threading.Event(), threading.Event()
    results: dict[int, object] = {}

    def slow(connection):
        started.set()
        go_on.wait()
        return put(0)(connection)

    def attempt(key, work):
        def run():
            try:
                results[key] = database.write(work, durable=key % 2 == 0)
            except Exception as error:
                results[key] = error

        return run

    def wrong(connection):
        put(100)(connection)
        raise NotFoundError("nobody")

    first = in_thread(attempt(0, slow))
    started.wait()
    others = [in_thread(attempt(k, put(k))) for k in (1, 2, 3)]
    others += [in_thread(attempt(4, wrong)), in_thread(attempt(5, put(None))), in_thread(attempt(6, put(6)))]
    while len(database._queue) < 6:
        time.sleep(0.001)
    (before,) = database.fetch("PRAGMA data_version")[0]
    go_on.set()
    for thread in (first, *others):
        thread.join()
    assert contents(database) == [0, 1, 2, 3, 6]
    assert [results[k] for k in (0, 1, 2, 3, 6)] == [1] * 5
    assert isinstance(results[4], NotFoundError)
    assert "NOT NULL" in str(results[5])
    assert database.fetch("PRAGMA data_version")[0][0] > before


def test_a_full_file_leaves_of_a_group_what_was_acknowledged(database):
    (pages,) = database.fetch("PRAGMA page_count")[0]
    told: dict[int, object] = {}

    def attempt(key, values):
        def work(connection):
            connection.execute(f"PRAGMA max_page_count={pages + 8}")  # a limit of each connection
            connection.executemany("INSERT INTO t VALUES (?)", [(key * 10**6 + n,) for n in range(values)])
            return values

        try:
            told[key] = database.write(work, durable=True)
        except StoreFullError as error:
            told[key] = error

    started, go_on = threading.Event(), threading.Event()

    def slow(connection):
        started.set()
        go_on.wait()

    threads = [in_thread(lambda: database.write(slow, durable=True))]
    started.wait()
    for key, values in enumerate([10, 100_000, 10, 10]):
        threads.append(in_thread(lambda key=key, values=values: attempt(key, values)))
    while len(database._queue) < 4:
        time.sleep(0.001)
    go_on.set()
    for thread in threads:
        thread.join()
    assert isinstance(told[1], StoreFullError)
    kept = sum(10 for key in (0, 2, 3) if told[key] == 10)
    assert len(contents(database)) == kept
    database.write(put(7), durable=True)
    assert len(contents(database)) == kept + 1


def test_an_interrupted_write_leaves_nothing_and_stops_nobody(database):
    def interrupted(connection):
        put(1)(connection)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.write(interrupted, durable=True)
    database.write(put(2), durable=True)
    assert contents(database) == [2]


def test_a_write_that_is_interrupted_while_it_waits_is_not_made(database):
    # Whoever starts the tests in the background may have SIGINT ignored, and Python then leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    started, go_on = threading.Event(), threading.Event()

    def slow(connection):
        started.set()
        go_on.wait()

    thread = in_thread(lambda: database.write(slow, durable=False))
    started.wait()
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            database.write(put(1), durable=False)
    finally:
        go_on.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
    database.write(put(2), durable=False)
    assert contents(database) == [2]


def test_a_thread_whose_time_is_up_takes_its_write_back(database):
    database.timeout_s = 0.1
    started, go_on = threading.Event(), threading.Event()

    def slow(connection):
        started.set()
        go_on.wait()

    thread = in_thread(lambda: database.write(slow, durable=False))
    started.wait()
    with pytest.raises(StoreLockedError, match=r"0\.1 s"):
        database.write(put(1), durable=False)
    go_on.set()
    thread.join()
    database.write(put(2), durable=False)
    assert contents(database) == [2]


def test_a_write_that_is_being_committed_is_waited_for_even_past_the_timeout(database):
    first_started, first_go_on = threading.Event(), threading.Event()
    second_started, second_go_on = threading.Event(), threading.Event()
    results = []

    def first(connection):
        first_started.set()
        first_go_on.wait()

    def second(connection):
        second_started.set()
        second_go_on.wait()
        return put(2)(connection)

    threads = [in_thread(lambda: database.write(first, durable=False))]
    first_started.wait()
    threads.append(in_thread(lambda: results.append(database.write(second, durable=False))))
    while len(database._queue) < 1:
        time.sleep(0.001)
    database.timeout_s = 0.5
    threads.append(in_thread(lambda: results.append(database.write(put(3), durable=False))))
    while len(database._queue) < 2:
        time.sleep(0.001)
    first_go_on.set()
    second_started.wait()
    time.sleep(0.7)  # longer than the third one waits for its turn
    second_go_on.set()
    for thread in threads:
        thread.join()
    assert results == [1, 1]
    assert contents(database) == [2, 3]


def test_reads_within_one_call_see_one_state(database):
    database.write(put(1), durable=False)

    def work(connection):
        before = connection.execute("SELECT count(*) FROM t").fetchone()
        in_thread(lambda: database.write(put(2), durable=False)).join()
        return before, connection.execute("SELECT count(*) FROM t").fetchone()

    assert database.read(work) == ((1,), (1,))
    assert contents(database) == [1, 2]


def test_an_error_while_reading_is_one_of_the_tree(database):
    with pytest.raises(StoreError, match="no such table"):
        database.fetch("SELECT * FROM absent")
    with pytest.raises(StoreError, match="no such table"):
        database.read(lambda connection: connection.execute("SELECT * FROM absent"))
    assert contents(database) == []


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_closed_store_says_so(tmp_path, in_memory):
    store = SqliteStore(":memory:" if in_memory else tmp_path / "x.db")
    used = threading.Event()
    errors: list[str] = []

    def work():
        if not closed.is_set():
            store.list_agents()
        used.set()
        closed.wait()
        try:
            store.list_agents()
        except StoreError as error:
            errors.append(str(error))

    closed = threading.Event()
    thread = in_thread(work)
    used.wait()
    store.close()
    store.close()
    closed.set()
    thread.join()
    for attempt in (store.version, store.list_agents, lambda: store.insert_agent(agent("a"))):
        with pytest.raises(StoreError, match="is closed"):
            attempt()
    in_thread(work).join()  # a thread that never used it
    assert len(errors) == 2
    assert "is closed" in errors[0]
    if not in_memory:
        assert [file.name for file in tmp_path.iterdir()] == ["x.db"]  # the last to close leaves one file


def in_child(work):
    """Runs `work` in a forked child; what it printed when it failed."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        signal.alarm(60)  # a child that waits for a lock nobody holds must not wait for ever
        try:
            work()
            code = 0
        except BaseException:
            os.write(write_end, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    assert status == 0, told


def test_a_forked_child_opens_its_own_connections(tmp_path):
    store = SqliteStore(tmp_path / "x.db")
    store.insert_agent(agent("a"))
    stop = threading.Event()
    reported = [0]

    def report():
        while not stop.is_set():
            store.insert_outcomes([outcome("a")])
            reported[0] += 1

    thread = in_thread(report)

    def child():
        for _ in range(50):
            store.insert_outcomes([outcome("a", quality=0.5)])
        assert store.agent_stats()["a"].quality_count >= 50
        store.close()

    for _ in range(5):
        in_child(child)
    stop.set()
    thread.join()
    stats = store.agent_stats()["a"]
    assert (stats.quality_count, stats.total_requests) == (250, 250 + reported[0])
    store.check()
    store.close()


def test_closing_in_the_parent_takes_nothing_from_the_child(tmp_path):
    """The last one to close removes the log; SQLite must know that the child is still there."""
    store = SqliteStore(tmp_path / "x.db")
    store.insert_agent(agent("a"))
    read_end, write_end = os.pipe()
    answer_end, told_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        store.insert_outcomes([outcome("a")])
        os.write(told_end, b"opened")
        os.read(read_end, 1)  # until the parent has closed
        store.insert_outcomes([outcome("a")])
        os._exit(0)  # without closing: what was acknowledged is there all the same
    assert os.read(answer_end, 6) == b"opened"
    store.insert_outcomes([outcome("a")])
    store.close()
    os.write(write_end, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    for end in (read_end, write_end, answer_end, told_end):
        os.close(end)
    with SqliteStore(tmp_path / "x.db") as again:
        assert again.agent_stats()["a"].total_requests == 3


def test_a_store_in_memory_goes_on_in_both_after_a_fork():
    store = SqliteStore(":memory:")
    store.insert_agent(agent("a"))

    def child():
        store.insert_agent(agent("b"))
        assert [a.name for a in store.list_agents()] == ["a", "b"]

    in_child(child)
    assert [a.name for a in store.list_agents()] == ["a"]
    store.insert_agent(agent("c"))
    store.close()
