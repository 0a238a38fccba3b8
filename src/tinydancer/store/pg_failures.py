"""What PostgreSQL's errors mean to a caller: one place turns SQLSTATEs into the tree of ``tinydancer.errors``.

In: a `DatabaseFailure`, which a connection makes of what its driver raised. Out: the error to raise. Only the server's
primary message is ever repeated: the detail may hold a whole row, and a driver's own message the connection string.
"""

from __future__ import annotations

import re

from tinydancer.errors import (
    InvalidInputError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreReadOnlyError,
    StoreVersionError,
    TinyDancerError,
)

UNIQUE_VIOLATION = "23505"
NOT_NULL_VIOLATION = "23502"
CHECK_VIOLATION = "23514"
PRIVILEGE_MISSING = "42501"
READ_ONLY = "25006"
CONNECTION_LOST = "08006"
"""Given by connections themselves, because a driver that lost the server has no SQLSTATE."""


class DatabaseFailure(Exception):  # noqa: N818 - it never leaves the store
    """An error of the server, as a connection reports it to the store.

    Attributes
    ----------
    sqlstate
        Five characters.
    message
        The server's primary message.
    constraint, column
        The constraint that was violated and the column it concerns, where the server names them.
    """

    def __init__(self, sqlstate: str, message: str, *, constraint: str = "", column: str = "") -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate
        self.message = message
        self.constraint = constraint
        self.column = column


def store_error(failure: DatabaseFailure) -> TinyDancerError:
    """The error of the tree for a failure that the store has no special answer to."""
    state, message = failure.sqlstate, failure.message
    if state in ("55P03", "40P01", "40001", "57014"):
        return StoreLockedError(
            f"Another session was in the way: {message}; nothing was changed.",
            hint="Run the transaction again.",
        )
    if state in ("53100", "53200", "54000"):
        return StoreFullError(
            f"PostgreSQL has no room left: {message}; nothing was changed.",
            hint="Free space on the server; everything committed before is still there.",
        )
    if state == READ_ONLY:
        return StoreReadOnlyError(
            "This transaction, or this server, cannot be written.",
            hint="Use the primary server and a transaction that is not read-only, or route without recording.",
        )
    if state in ("42P01", "3F000", "42703", "42883"):
        return StoreVersionError(
            f"The database does not hold this version's tables: {message}.",
            hint="Open it once with PostgresStore.connect, which installs them, "
            "or run: ALTER EXTENSION tiny_dancer UPDATE",
        )
    if state == PRIVILEGE_MISSING:
        return StoreError(
            f"The role may not do that: {message}; nothing was changed.",
            hint="Grant it tiny_dancer_reader, tiny_dancer_router or tiny_dancer_admin, and let it set "
            "tiny_dancer.tenant to the tenant it works for.",
        )
    if state == CHECK_VIOLATION:
        return InvalidInputError(
            f"The store refuses a value: {failure.constraint or message}.",
            hint="Nothing was changed; check the value's range.",
        )
    if state.startswith(("22", "23")):
        return InvalidInputError(
            f"The store refuses a value: {message}.", hint="Nothing was changed; check the value's range and type."
        )
    if state.startswith(("08", "57P")):
        return StoreError(
            "The connection to PostgreSQL was lost; whether a change that was under way is committed is not known.",
            hint="Try again; the next call connects anew.",
        )
    if state.startswith(("53", "28", "3D")):
        return connect_error(message)
    if state.startswith("XX"):
        return StoreCorruptError(f"PostgreSQL reports damage: {message}.", hint="Look into the server's log.")
    return StoreError(f"PostgreSQL failed: {message} (SQLSTATE {state}); nothing was changed.")


_REASONS = (
    (re.compile(r"authentication failed|no password supplied|SCRAM|pg_hba\.conf|role .* does not exist"),
     "PostgreSQL refuses the user or the password", "Check both, and the server's pg_hba.conf."),
    (re.compile(r"database .* does not exist"),
     "the database does not exist", "Create it with createdb, or name another one."),
    (re.compile(r"too many clients|remaining connection slots"),
     "PostgreSQL has no connection left", "Close some, or raise max_connections on the server."),
    (re.compile(r"starting up|shutting down|recovery mode"),
     "PostgreSQL is starting or stopping", "Try again in a moment."),
)  # fmt: skip


def connect_error(message: str, where: str = "") -> StoreError:
    """Why no connection was made, told without the driver's text, which may hold parts of the connection string."""
    for pattern, reason, hint in _REASONS:
        if pattern.search(message):
            return StoreError(f"No connection{where}: {reason}.", hint=hint)
    return StoreError(f"No connection{where}: PostgreSQL does not answer.", hint="Check host, port and that it runs.")
