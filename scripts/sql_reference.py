"""Writes ``docs/reference/sql.md`` from the COMMENTs of an installed extension, so that the manual is never behind.

In: nothing, or the connection string of a database that has the extension and no pgvector. Out: one page of Markdown.
Without a database it makes a server of its own, installs the extension as it stands here, and removes both. The tests
of the extension fail when the committed page differs from what this writes.

    python scripts/sql_reference.py
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "sql.md"
HEAD = """<!-- Written by scripts/sql_reference.py from the functions' comments. -->

# SQL

What `CREATE EXTENSION tiny_dancer CASCADE` brings; see [how to install it](../how-to/install-in-postgresql.md).
Arguments may be given by position or by name (`max_cost := 0.01`). Money is in USD, latencies in milliseconds,
qualities and probabilities in [0, 1].
"""
SETTINGS = """## Settings

Set them as any other: for a session (`SET tiny_dancer.tenant = 'north'`), a role or a database (`ALTER ROLE ... SET`).

| setting | default | meaning |
| --- | --- | --- |
| `tiny_dancer.tenant` | `default` | whose agents, decisions and outcomes are seen and written |
| `tiny_dancer.record_decisions` | `on` | `on`, `off`, or the share to record; a read-only transaction records none |
| `tiny_dancer.record_requests` | `off` | whether a request's text is stored with its decision |
| `tiny_dancer.record_features` | `off` | whether what a model can be trained on is; with a model in use it always is |
| `tiny_dancer.good_enough` | `0.7` | share of the best expected quality that counts as good enough |
| `tiny_dancer.quality_bar` | `0.5` | the quality that `confidence` refers to where a request names no `min_quality` |
| `tiny_dancer.default_output_tokens` | `300` | tokens of an answer, for agents of which nothing is known |
| `tiny_dancer.max_alternatives` | `3` | how many other agents a decision names |
| `tiny_dancer.max_request_chars` | `400000` | longest request accepted |
| `tiny_dancer.stats_refresh_s` | `0.25` | how old the statistics of other sessions' outcomes may be, in seconds |
| `tiny_dancer.decision_cache_entries` | `1000` | decisions of the latest texts that a session keeps to reuse |
| `tiny_dancer.debug` | `off` | whether an unexpected error shows where in Python it happened |
"""
FUNCTIONS = """
    SELECT p.proname AS name, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result,
           obj_description(p.oid, 'pg_proc') AS comment, p.pronamespace::regnamespace::text AS schema
    FROM pg_proc AS p JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'tiny_dancer'
    WHERE p.proname NOT LIKE '\\_%'
    ORDER BY p.pronamespace::regnamespace::text COLLATE "C", p.proname COLLATE "C", p.pronargs,
             pg_get_function_arguments(p.oid) COLLATE "C"
"""
ROLES = """## Roles

| role | may |
| --- | --- |
| `tiny_dancer_reader` | see agents, decisions, outcomes and statistics of its tenant; route with recording off |
| `tiny_dancer_router` | that, and route with recording, report outcomes |
| `tiny_dancer_admin` | that, and register, change and remove agents; load, train, choose and remove models |

The owner of the tables alone may call `ruvector_clear_agents` and `tiny_dancer.set_vector_space`. Grant a role to a
login role: `GRANT tiny_dancer_router TO my_service`.
"""


def page(connection: Any) -> str:
    """The page for the extension that this connection's database has."""
    parts = [HEAD]
    for name, arguments, result, comment, schema in connection.execute(FUNCTIONS).fetchall():
        shown = name if schema == "public" else f"{schema}.{name}"
        parts.append(f"## {shown}\n\n```sql\n{signature(shown, arguments, result)}\n```\n\n{comment}\n")
    return "\n".join([*parts, SETTINGS, ROLES])


def signature(name: str, arguments: str, result: str) -> str:
    """The function as one would declare it, an argument on a line where it is long."""
    # PostgreSQL shows every default with its type, which stands beside it already.
    arguments = re.sub(r"(DEFAULT (?:NULL|'[^']*'))::[a-z ]+(?:\[\])?", r"\1", arguments)
    one_line = f"{name}({arguments}) RETURNS {result}"
    if len(one_line) <= 100:
        return one_line
    listed = "".join(f"    {one},\n" for one in arguments.split(", ")).removesuffix(",\n")
    if result.startswith("TABLE("):
        columns = ",\n".join(f"    {one}" for one in result.removeprefix("TABLE(").removesuffix(")").split(", "))
        result = f"TABLE (\n{columns}\n)"
    return f"{name}(\n{listed}\n) RETURNS {result}" if listed else f"{name}() RETURNS {result}"


@contextmanager
def own_database() -> Iterator[str]:
    """A connection string to a new server with the extension, which goes with the block."""
    import psycopg

    from pg_cluster import cluster_at, ensure_packages, scratch_folder
    from pg_tree import make_tree
    from tinydancer.cli import postgres_install

    ensure_packages()
    with scratch_folder("tiny_dancer_reference_") as folder:
        server = postgres_install.find_server(str(make_tree(folder / "installation")))
        postgres_install.install(server)
        cluster = cluster_at(folder / "cluster", pg_config=server.pg_config)
        cluster.initialise()
        cluster.start(fsync=False)
        with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION tiny_dancer CASCADE")
        yield cluster.dsn()


def main() -> None:
    """Write the page."""
    import psycopg

    with contextlib.ExitStack() as stack:
        dsn = sys.argv[1] if len(sys.argv) > 1 else stack.enter_context(own_database())
        connection = stack.enter_context(psycopg.connect(dsn))
        PAGE.write_text(page(connection), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(PAGE.parents[2])}\n")


if __name__ == "__main__":
    main()
