"""What SQLite's errors mean to a caller: one place turns them into the tree of ``tinydancer.errors``.

In: an exception of ``sqlite3``, the file it happened on, and how long was waited. Out: the error to raise, which says
what happened to which file and what to do about it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

from tinydancer.errors import (
    InvalidInputError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreReadOnlyError,
    TinyDancerError,
)

NEARLY_FULL_BYTES = 256 * 1024
"""With less than this free, a failed write is told as a full disk: SQLite cannot always tell the two apart."""

RAISED = (sqlite3.Error, UnicodeEncodeError, OverflowError)
"""What ``execute`` raises: SQLite's own errors, and text or whole numbers that it cannot store."""

_REFUSED = (
    sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, UnicodeEncodeError, OverflowError
)  # fmt: skip
_PRIMARY = 0xFF  # the low byte of an extended result code


def primary_code(error: Exception) -> int:
    """The primary result code of an error; 0 for errors that the Python module raises by itself."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & _PRIMARY


def is_busy(error: Exception) -> bool:
    """Whether another connection is in the way, so that trying again may help."""
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def locked_error(path: str, waited_s: float) -> StoreLockedError:
    """Another process, or another thread of this one, did not let go of the file."""
    return StoreLockedError(
        f"The store {path} stayed locked by another writer for {waited_s:.1f} s; nothing was changed.",
        hint="Look for a process that holds a transaction open on the file, or raise timeout_s.",
    )


def store_error(error: Exception, path: str, waited_s: float = 0.0) -> TinyDancerError:
    """The error of the tree for one of those in `RAISED`."""
    code = primary_code(error)
    if is_busy(error):
        return locked_error(path, waited_s)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _nearly_full(path)):
        return StoreFullError(
            f"There is no room left to write to the store {path}; nothing was changed.",
            hint="Free space on its disk; everything committed before is still there.",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return read_only_error(path)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return corrupt_error(path, str(error))
    if code == sqlite3.SQLITE_CANTOPEN:
        return _cannot_open_error(path, str(error))
    if isinstance(error, _REFUSED):
        return InvalidInputError(
            f"The store refuses a value: {error}.", hint="Nothing was changed; check the value's range and type."
        )
    return StoreError(f"The store {path} failed: {error}; nothing was changed.")


def read_only_error(path: str) -> StoreReadOnlyError:
    """The file, or the directory in which SQLite keeps its log beside it, cannot be written."""
    return StoreReadOnlyError(
        f"The store {path} cannot be written.",
        hint="Give this user write permission on the file and on its directory, or route without recording.",
    )


def corrupt_error(path: str, found: str) -> StoreCorruptError:
    """The file is damaged, or is no database at all."""
    return StoreCorruptError(
        f"The store {path} is damaged or is not a database: {found}.",
        hint="Restore it from a backup, or save what is readable with: sqlite3 FILE .recover",
    )


def _cannot_open_error(path: str, found: str) -> StoreError:
    parent = Path(path).parent
    if not parent.is_dir():
        return StoreError(f"The directory {parent} does not exist.", hint="Create it, or name another file.")
    if Path(path).is_dir():
        return StoreError(f"{path} is a directory; expected a file.", hint="Name a file in it, such as tinydancer.db.")
    if not os.access(parent, os.W_OK):
        return read_only_error(path)
    return StoreError(f"The store {path} cannot be opened: {found}.", hint="Check its permissions.")


def _nearly_full(path: str) -> bool:
    try:
        return shutil.disk_usage(Path(path).parent).free < NEARLY_FULL_BYTES
    except OSError:
        return False
