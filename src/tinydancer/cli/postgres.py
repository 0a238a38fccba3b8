"""``tinydancer postgres``: the extension beside a PostgreSQL server.

In: where the server's ``pg_config`` is. Out: what was installed, removed or found, line by line.
"""

from __future__ import annotations

from typing import Annotated

import typer

from tinydancer.cli import options as opt
from tinydancer.cli.options import examples

PgConfig = Annotated[
    str | None,
    typer.Option("--pg-config", metavar="PATH", help="The server's pg_config; the one on the PATH by default."),
]

postgres_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Put the extension beside a PostgreSQL server, or take it away."
)


@postgres_app.command(
    epilog=examples(
        "sudo tinydancer postgres install",
        "sudo tinydancer postgres install --pg-config /usr/lib/postgresql/17/bin/pg_config",
    )
)
def install(
    pg_config: PgConfig = None,
    python: Annotated[
        str | None,
        typer.Option("--python", metavar="PATH", help="An interpreter of the version that PL/Python is built for."),
    ] = None,
) -> None:
    """Install the extension's files and, built for the server's own Python, the modules they call.

    May be repeated: it says so where there is nothing to do. `uninstall` takes away exactly what this wrote.
    """
    from tinydancer.cli import postgres_install as files

    _, lines = files.install(files.find_server(pg_config), python=python)
    typer.echo("\n".join(lines))


@postgres_app.command(epilog=examples("sudo tinydancer postgres uninstall"))
def uninstall(
    pg_config: PgConfig = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="VERSION", help="Another version than this one.")
    ] = None,
) -> None:
    """Remove what `install` wrote. Databases keep their tables; DROP EXTENSION there first."""
    from tinydancer._version import __version__
    from tinydancer.cli import postgres_install as files

    typer.echo("\n".join(files.uninstall(files.find_server(pg_config), version or __version__)))


@postgres_app.command(epilog=examples("tinydancer postgres status", "tinydancer postgres status --json"))
def status(pg_config: PgConfig = None, as_json: opt.Json = False) -> None:
    """Say which server was found, which Python it needs, and which versions are installed."""
    from tinydancer.cli import output
    from tinydancer.cli import postgres_install as files

    facts = dict(files.describe(files.find_server(pg_config)))
    if as_json:
        output.write_json(facts)
    else:
        typer.echo("\n".join(f"{label:<18} {fact}" for label, fact in facts.items()))
