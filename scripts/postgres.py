"""``make postgres`` and ``make postgres-stop``: a private server in ``.pg`` with the extension and example agents.

In: nothing. Out: a running server, ready for ``psql "$(cat .pg/dsn)"``. It listens on a socket in ``.pg`` only. A
repeated run changes nothing; what is in the database stays until ``.pg`` is removed.

    python scripts/postgres.py start|stop [--pg-config PATH]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pg_cluster import Cluster, ClusterError, cluster_at, ensure_packages
from pg_tree import make_tree
from tinydancer.cli import postgres_install
from tinydancer.errors import TinyDancerError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".pg"
DATABASE = "tiny_dancer"
EXAMPLE_AGENTS = ROOT / "src" / "tinydancer" / "demo" / "agents.json"


def start(pg_config: str | None) -> None:
    """Install what is missing, start the server, load the examples into a new database, and say how to connect."""
    if pg_config is None and (installed := ensure_packages()):
        print(f"Installed {', '.join(installed)}")
    private = make_tree(FOLDER / "installation", pg_config=pg_config)
    changed, lines = postgres_install.install(postgres_install.find_server(str(private)))
    if changed:
        print("\n".join(lines[:-1]))
    cluster = cluster_at(FOLDER, pg_config=str(private))
    cluster.initialise()
    cluster.start()
    exists = run(cluster, "postgres", f"SELECT count(*) FROM pg_database WHERE datname = '{DATABASE}'").strip() == "1"
    if not exists:
        fill(cluster)
    elif changed:
        print(f"The database {DATABASE} keeps the functions it has; remove .pg to start anew.")
    (FOLDER / "dsn").write_text(cluster.dsn(DATABASE) + "\n", encoding="utf-8")
    print(cluster.dsn(DATABASE))


def fill(cluster: Cluster) -> None:
    """A database with the extension and the example agents; whole, or not at all."""
    making = f"{DATABASE}_making"
    run(cluster, "postgres", f"DROP DATABASE IF EXISTS {making}")
    run(cluster, "postgres", f"CREATE DATABASE {making}")
    run(cluster, making, "CREATE EXTENSION tiny_dancer CASCADE")
    for agent in json.loads(EXAMPLE_AGENTS.read_text(encoding="utf-8"))["agents"]:
        # "short" is what the demonstration's tables call an agent.
        text = json.dumps({key: value for key, value in agent.items() if key != "short"}).replace("'", "''")
        run(cluster, making, f"SELECT ruvector_register_agent_full('{text}')")
    run(cluster, "postgres", f"ALTER DATABASE {making} RENAME TO {DATABASE}")


def run(cluster: Cluster, database: str, sql: str) -> str:
    """One statement by psql; what it prints."""
    arguments = (
        "-X",
        "-q",
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        database,
        "-c",
        f"SET client_min_messages = error; {sql}",
    )
    if sql.startswith(("CREATE DATABASE", "DROP DATABASE")):
        arguments = (*arguments[:-1], sql)  # which may not stand beside another statement
    return cluster.program("psql", *arguments).stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if all is well."""
    parser = argparse.ArgumentParser(description="A private PostgreSQL with the extension, in .pg.")
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("--pg-config", help="the pg_config of the PostgreSQL to use; Debian's newest by default")
    given = parser.parse_args(arguments)
    try:
        if given.action == "start":
            start(given.pg_config)
        else:
            installed = sorted((FOLDER / "installation").glob("**/bin/pg_config"))
            if installed:
                cluster_at(FOLDER, pg_config=str(installed[-1])).stop()
    except (ClusterError, TinyDancerError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        detail = getattr(error, "detail", "")
        if detail:
            print(detail, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
