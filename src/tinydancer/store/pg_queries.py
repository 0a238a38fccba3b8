"""Loads the PostgreSQL store's SQL: each statement named, typed and described where it is written.

In: files of statements, each introduced by a line ``-- name: some_name(type, type)`` and described by the comment lines
after it. Out: `Query` objects by name. The types are those of the parameters ``$1``, ``$2``; a connection inside the
server needs them to prepare a plan.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tinydancer.errors import StoreError

POSTGRES_FOLDER = Path(__file__).parent / "sql" / "postgres"
MIGRATIONS_FOLDER = POSTGRES_FOLDER / "migrations"
ROLES_FILE = POSTGRES_FOLDER / "roles.sql"
"""Creates the roles and grants them what they may do; may be run again."""

_HEADING = re.compile(r"^-- name: ([a-z][a-z0-9_]*)\(([a-z0-9_\[\], ]*)\)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Query:
    """One statement; ``types`` are the PostgreSQL types of its parameters."""

    name: str
    types: tuple[str, ...]
    sql: str


def load_typed_queries(path: Path) -> dict[str, Query]:
    """The statements of one file by name.

    Raises
    ------
    StoreError
        If a name occurs twice, or a statement has no description or no text, or uses other parameters than it names.
    """
    parts = _HEADING.split(path.read_text(encoding="utf-8"))
    queries: dict[str, Query] = {}
    for name, given, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        lines = body.strip().splitlines()
        described = bool(lines) and lines[0].startswith("--")
        sql = "\n".join(line for line in lines if not line.lstrip().startswith("--")).strip().removesuffix(";")
        types = tuple(part.strip() for part in given.split(",") if part.strip())
        used = {int(number) for number in re.findall(r"\$(\d+)", sql)}
        if name in queries or not described or not sql or used != set(range(1, len(types) + 1)):
            raise StoreError(f"{path.name}: the query {name!r} is repeated, undescribed, empty or wrongly typed.")
        queries[name] = Query(name, types, sql)
    return queries


def load_all_queries() -> dict[str, Query]:
    """The statements of all files; a name occurs in one of them."""
    queries: dict[str, Query] = {}
    for path in sorted((POSTGRES_FOLDER / "queries").glob("*.sql")):
        found = load_typed_queries(path)
        if repeated := queries.keys() & found.keys():
            raise StoreError(f"{path.name}: the query {min(repeated)!r} is in another file, too.")
        queries.update(found)
    return queries


QUERIES = load_all_queries()
