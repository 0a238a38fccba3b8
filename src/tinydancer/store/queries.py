"""Loads the SQL that lies beside this file: each statement named and described where it is written.

In: a file of statements, each introduced by a line ``-- name: some_name`` and described by the comment lines after it.
Out: the statements by name, comments removed. Read once, when the module that uses them is imported.
"""

from __future__ import annotations

import re
from pathlib import Path

from tinydancer.errors import StoreError

SQL_FOLDER = Path(__file__).parent / "sql"

_HEADING = re.compile(r"^-- name: ([a-z][a-z0-9_]*)$", re.MULTILINE)


def load_queries(file: str | Path) -> dict[str, str]:
    """The statements of one file by name; `file` is relative to ``store/sql``.

    Raises
    ------
    StoreError
        If a name occurs twice, or a statement has no description or no text.
    """
    path = SQL_FOLDER / file
    parts = _HEADING.split(path.read_text(encoding="utf-8"))
    queries: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        lines = body.strip().splitlines()
        described = bool(lines) and lines[0].startswith("--")
        statement = "\n".join(line for line in lines if not line.lstrip().startswith("--")).strip().removesuffix(";")
        if name in queries or not described or not statement:
            raise StoreError(f"{path.name}: the query {name!r} is repeated, undescribed or empty.")
        queries[name] = statement
    return queries
