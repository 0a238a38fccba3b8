"""Connections to one SQLite file: one per thread, transactions that commit whole or not at all, safe after a fork.

In: a path and work to do, given as functions of a connection. Out: what the work returns, committed; or an error of the
tree, nothing changed. It exists so that the stores above contain no locking, no retrying and no error translation.

Every operation holds the lock of the connection it runs on. That is what makes three things simple: closing from
another thread, closing what dead threads left, and forking (all connections are closed before a fork, because SQLite
keeps record of its file locks per process and a child would believe in locks that it does not have).
"""

from __future__ import annotations

import copy
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from tinydancer.errors import InvalidInputError, StoreError
from tinydancer.store.failures import RAISED, is_busy, locked_error, store_error

T = TypeVar("T")
Connection = sqlite3.Connection
Row = tuple[Any, ...]

MEMORY = ":memory:"
FIRST_PAUSE_S = 0.0002
LONGEST_PAUSE_S = 0.002
"""SQLite's own waiting sleeps up to 100 ms between attempts, which starves one process beside another that writes
without pause; attempts every 2 ms find a gap soon."""
CACHED_STATEMENTS = 256


class _Handle:
    """A connection with the lock that every use of it holds; ``raw`` is None once it is closed."""

    __slots__ = ("lock", "raw", "synchronous", "thread")

    def __init__(self, raw: Connection, thread: threading.Thread) -> None:
        self.lock = threading.Lock()
        self.raw: Connection | None = raw
        self.synchronous = ""
        self.thread = weakref.ref(thread)


class _Job(Generic[T]):
    """Something to be written, and what came of it."""

    __slots__ = ("done", "durable", "error", "result", "work")

    result: T

    def __init__(self, work: Callable[[Connection], T], durable: bool) -> None:
        self.work = work
        self.durable = durable
        self.done = False
        self.error: Exception | None = None


class Database:
    """One SQLite file, or one database in memory, usable from any thread.

    Parameters
    ----------
    path
        The file, created if absent, or ``:memory:``, which is one connection that the threads take in turn.
    timeout_s
        How long to wait for another writer before `StoreLockedError`.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout_s: float = 30.0) -> None:
        self.in_memory = os.fspath(path) == MEMORY
        self.path = MEMORY if self.in_memory else os.path.abspath(path)
        self.timeout_s = timeout_s
        self._guard = threading.Lock()  # the list of handles, and closing
        self._write_lock = threading.Lock()  # the threads of a process queue here instead of polling the file
        self._queue: deque[_Job[Any]] = deque()
        self._handles: list[_Handle] = []
        self._local = threading.local()
        self._closed = False
        self._shared: _Handle | None = None
        if "\x00" in self.path:
            raise InvalidInputError("The path of the store holds a NUL character.")
        handle = self._connect(create=True)
        self._handles.append(handle)
        if self.in_memory:
            self._shared = handle
        else:
            self._local.handle = handle
        _OPEN.add(self)

    def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of one SELECT."""
        handle = self._take()
        try:
            raw = handle.raw
            assert raw is not None
            return self._patiently(lambda: raw.execute(sql, parameters).fetchall())
        except RAISED as error:
            raise store_error(error, self.path) from error
        finally:
            handle.lock.release()

    def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` makes of several SELECTs that all see the same state."""
        handle = self._take()
        try:
            raw = handle.raw
            assert raw is not None
            try:
                self._patiently(lambda: raw.execute("BEGIN"))
                # The state is fixed by the first read, not by BEGIN.
                self._patiently(lambda: raw.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall())
                return work(raw)
            except RAISED as error:
                raise store_error(error, self.path) from error
            finally:
                self._roll_back(handle)
        finally:
            handle.lock.release()

    def write(self, work: Callable[[Connection], T], *, durable: bool) -> T:
        """What `work` returns, once all it wrote is committed; if it raises, nothing is.

        With `durable` the commit has reached the disk when this returns; without, it survives the death of the process
        but may be lost, as a whole, if the operating system dies within seconds.

        Threads that wait for their turn are served together: one of them commits for all, and each is told of its own
        success or error only then. So eight threads wait for the disk once, not eight times.
        """
        job: _Job[T] = _Job(work, durable)
        handle = self._take()
        try:
            self._queue.append(job)
            try:
                if not self._write_lock.acquire(timeout=self.timeout_s) and self._withdraw(job):
                    raise locked_error(self.path, self.timeout_s)
            except KeyboardInterrupt:  # nobody is to commit for a caller who is told that it failed
                self._withdraw(job, wait=False)
                raise
            try:
                if not job.done:
                    self._commit(handle)
            finally:
                self._write_lock.release()
        finally:
            handle.lock.release()
        if job.error is not None:
            raise job.error
        return job.result

    def close(self) -> None:
        """Closes every connection of every thread, after what is running on it. May be repeated."""
        with self._guard:
            self._closed = True
            for handle in self._handles:
                with handle.lock:
                    self._discard(handle)
            self._handles.clear()
        _OPEN.discard(self)

    def _withdraw(self, job: _Job[Any], *, wait: bool = True) -> bool:
        """Takes back a job whose time is up; if it is being committed already, its result is waited for instead."""
        try:
            self._queue.remove(job)
            return True
        except ValueError:
            if wait:
                self._write_lock.acquire()
            return False

    def _commit(self, handle: _Handle) -> None:
        """Runs all jobs that wait in one transaction; each learns its own error, and all learn of a failed commit."""
        jobs: list[_Job[Any]] = []
        while self._queue:
            jobs.append(self._queue.popleft())
        try:
            self._transact(handle, jobs)
        except Exception as error:
            self._roll_back(handle)
            for job in jobs:  # each raises an object of its own
                job.error = job.error or self._told(error if job is jobs[0] else copy.copy(error))
        except BaseException:
            self._roll_back(handle)
            for job in jobs:
                job.error = job.error or StoreError(f"Writing to {self.path} was interrupted; nothing was changed.")
            raise
        finally:
            for job in jobs:
                job.done = True

    def _transact(self, handle: _Handle, jobs: Sequence[_Job[Any]]) -> None:
        raw = handle.raw
        assert raw is not None
        synchronous = "FULL" if any(job.durable for job in jobs) else "NORMAL"
        if handle.synchronous != synchronous:  # cannot be changed inside a transaction
            self._patiently(lambda: raw.execute(f"PRAGMA synchronous={synchronous}"))  # reads the schema first
            handle.synchronous = synchronous
        self._patiently(lambda: raw.execute("BEGIN IMMEDIATE"))
        if len(jobs) == 1:
            jobs[0].result = jobs[0].work(raw)
        else:
            for job in jobs:
                self._run_beside_others(raw, job)
        raw.execute("COMMIT")

    def _run_beside_others(self, raw: Connection, job: _Job[Any]) -> None:
        raw.execute("SAVEPOINT job")
        try:
            job.result = job.work(raw)
        except Exception as error:
            if not raw.in_transaction:  # SQLite gave up the whole transaction
                raise
            raw.execute("ROLLBACK TO job")
            job.error = self._told(error)
        raw.execute("RELEASE job")

    def _told(self, error: Exception) -> Exception:
        """The error as the caller gets it: one of the tree."""
        if not isinstance(error, RAISED):
            return error
        told = store_error(error, self.path)
        told.__cause__ = error
        return told

    def _roll_back(self, handle: _Handle) -> None:
        raw = handle.raw
        if raw is None or not raw.in_transaction:  # SQLite rolls back by itself after some errors
            return
        try:
            raw.execute("ROLLBACK")
        except sqlite3.Error:
            if not self.in_memory:  # a connection in an unknown state is worth less than none
                self._discard(handle)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        begun = time.monotonic()
        pause = FIRST_PAUSE_S
        while True:
            try:
                return attempt()
            except sqlite3.Error as error:
                waited = time.monotonic() - begun
                if not is_busy(error):
                    raise
                if waited >= self.timeout_s:
                    raise locked_error(self.path, waited) from error
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _take(self) -> _Handle:
        """The calling thread's handle, open and locked."""
        while True:
            handle = self._shared or getattr(self._local, "handle", None) or self._open_for_this_thread()
            handle.lock.acquire()
            if handle.raw is not None:
                return handle
            handle.lock.release()
            self._local.handle = None
            if self._closed:
                raise _closed_error(self.path)

    def _open_for_this_thread(self) -> _Handle:
        with self._guard:
            if self._closed:
                raise _closed_error(self.path)
            for handle in self._handles:
                thread = handle.thread()
                if thread is None or not thread.is_alive():
                    with handle.lock:
                        self._discard(handle)
            self._handles = [handle for handle in self._handles if handle.raw is not None]
            handle = self._connect(create=False)
            self._handles.append(handle)
        self._local.handle = handle
        return handle

    def _connect(self, *, create: bool) -> _Handle:
        mode = "rwc" if create else "rw"  # a file that somebody removed is not silently made anew
        target = MEMORY if self.in_memory else f"{Path(self.path).as_uri()}?mode={mode}"
        raw: Connection | None = None
        try:
            raw = sqlite3.connect(
                target,
                timeout=0.0,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=CACHED_STATEMENTS,
                uri=not self.in_memory,
            )
            raw.execute("PRAGMA foreign_keys=ON")
            raw.execute("PRAGMA cell_size_check=ON")  # finds damaged pages when they are read
        except sqlite3.Error as error:
            if raw is not None:
                raw.close()
            raise store_error(error, self.path) from error
        return _Handle(raw, threading.current_thread())

    @staticmethod
    def _discard(handle: _Handle) -> None:
        if handle.raw is not None:
            handle.raw.close()
            handle.raw = None

    def _before_fork(self) -> None:
        self._guard.acquire()
        for handle in self._handles:
            handle.lock.acquire()
            if not self.in_memory:
                self._discard(handle)

    def _after_fork(self) -> None:
        for handle in self._handles:
            handle.lock.release()
        self._handles = [handle for handle in self._handles if handle.raw is not None]
        self._guard.release()


def _closed_error(path: str) -> StoreError:
    return StoreError(f"The store {path} is closed.", hint="Open it again.")


_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()
_FORK_LOCK = threading.Lock()
_FORKING: list[Database] = []


def _before_fork() -> None:
    _FORK_LOCK.acquire()
    _FORKING.extend(_OPEN)
    for database in _FORKING:
        database._before_fork()


def _after_fork() -> None:
    for database in _FORKING:
        database._after_fork()
    _FORKING.clear()
    _FORK_LOCK.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
