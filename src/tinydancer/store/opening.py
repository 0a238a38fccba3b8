"""From what a user names a store by, to the store. In: a path, an address, or None. Out: an open `Store`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tinydancer.errors import InvalidInputError
from tinydancer.store.base import Store
from tinydancer.types import EmbeddingSpace

_KEYWORDS = re.compile(r"(^|\s)(host|hostaddr|port|dbname|user|password|passfile|service)\s*=")


def is_address(where: str | Path) -> bool:
    """Whether this names a server (``postgresql://...``, or ``host=... dbname=...``) rather than a file.

    What names a server may hold a password, and must not be taken for a path and repeated in a message.
    """
    return "://" in str(where) or bool(_KEYWORDS.search(str(where)))


def open_store(where: str | Path | None, *, space: EmbeddingSpace, tenant: str, clock: Callable[[], float]) -> Store:
    """The store at a path, or on the PostgreSQL server that an address names, made if it does not exist.

    None gives one in memory that ends with the object.

    Raises
    ------
    InvalidInputError
        An address of a kind that this version does not know. The address is not repeated: it may hold a password.
    """
    if where is not None and is_address(where):
        scheme = str(where).split("://", 1)[0] if "://" in str(where) else "postgresql"
        if scheme in ("postgresql", "postgres"):
            from tinydancer.store.postgres import open_postgres

            return open_postgres(str(where), space=space, tenant=tenant, clock=clock)
        raise InvalidInputError(
            f"The store's address begins with {scheme + '://'!r}; expected postgresql:// or the path of a file.",
            hint="Give a path such as tinydancer.db.",
        )
    from tinydancer.store.sqlite import SqliteStore

    return SqliteStore(":memory:" if where is None else where, space=space, tenant=tenant, clock=clock)
