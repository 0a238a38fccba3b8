"""The Typer application: global options, the commands in their groups, the table of exit codes.

In: a command line. Out: one command called. Commands import what they need when they run: ``--help`` loads neither
NumPy nor the store.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from tinydancer._version import __version__
from tinydancer.cli import agent_files, output  # noqa: F401  # registers the commands that read and write files
from tinydancer.cli import options as opt
from tinydancer.cli.agents import agents_app
from tinydancer.cli.budgets import budgets_app
from tinydancer.cli.calibrate import calibrate
from tinydancer.cli.classify import classifiers_app, classify
from tinydancer.cli.context import State
from tinydancer.cli.demo import demo
from tinydancer.cli.embed import embed
from tinydancer.cli.errors import Group
from tinydancer.cli.evaluate import evaluate
from tinydancer.cli.exit_codes import MEANINGS
from tinydancer.cli.init import init
from tinydancer.cli.models import models_app
from tinydancer.cli.options import examples
from tinydancer.cli.outcomes import decisions, feedback, stats
from tinydancer.cli.plan import plan_app
from tinydancer.cli.postgres import postgres_app
from tinydancer.cli.report import report
from tinydancer.cli.route import route
from tinydancer.cli.routes import routes_app
from tinydancer.cli.train import train

_START = "Start"
_ROUTE = "Route"
_LEARN = "Look and learn"
_PREDICT = "Predict quality"

_EXIT_CODES = "[bold]Exit codes[/bold]\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "tinydancer demo",
        "tinydancer agents add small -c chat --input-per-1m 0.15 --output-per-1m 0.6",
        'tinydancer route "Translate this letter into French." -o cost --explain',
    )
    + f"\n\n{_EXIT_CODES}",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tinydancer {__version__}")
        raise typer.Exit


def _without_color(wanted: bool) -> None:
    if wanted:
        os.environ["NO_COLOR"] = "1"  # Rich and Typer, which write the help, look here too


@app.callback()
def tinydancer(
    ctx: typer.Context,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="WHERE", envvar="TINYDANCER_STORE", help="SQLite file, or postgresql:// URL."),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", metavar="FILE", envvar="TINYDANCER_CONFIG",
            help="Settings; ./tinydancer.yaml is read where it exists.",
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", metavar="NAME", envvar="TINYDANCER_TENANT", help="Whose agents and decisions."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
    no_color: Annotated[
        bool,
        typer.Option("--no-color", is_eager=True, callback=_without_color, help="No colours; so does NO_COLOR=1."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and leave.")
    ] = False,
) -> None:  # fmt: skip
    """Tiny Dancer routes each request to the agent that serves it best under cost, latency and quality constraints."""
    ctx.obj = State(store=store, config=config, tenant=tenant, quiet=quiet)


def version(as_json: opt.Json = False) -> None:
    """Print the versions of Tiny Dancer and of what it stands on."""
    import platform
    import sqlite3
    from importlib import metadata

    versions = {
        "tinydancer": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: metadata.version(name) for name in ("numpy", "tokenizers", "safetensors")},
    }
    if as_json:
        output.write_json(versions)
    else:
        typer.echo("\n".join(f"{name:<12} {number}" for name, number in versions.items()))


app.command(
    rich_help_panel=_START,
    epilog=examples("tinydancer init", "tinydancer init settings/production.yaml", "tinydancer init --force"),
)(init)
app.command(rich_help_panel=_START)(demo)
app.add_typer(agents_app, name="agents", rich_help_panel=_START)
app.add_typer(postgres_app, name="postgres", rich_help_panel=_START)
app.command(
    rich_help_panel=_ROUTE,
    epilog=examples(
        'tinydancer route "What is the boiling point of ethanol?"',
        "tinydancer route --file letter.txt -o quality --max-cost 0.01 --explain",
        "git diff | tinydancer route - --require coding --json",
        "tinydancer route --batch --file requests.txt --json > decisions.jsonl",
    ),
)(route)
app.add_typer(routes_app, name="routes", rich_help_panel=_ROUTE)
app.add_typer(plan_app, name="plan", rich_help_panel=_ROUTE)
app.command(
    rich_help_panel=_ROUTE,
    epilog=examples(
        'tinydancer classify "Where is my parcel?"',
        'tinydancer classify "Summarise this thread" --top 3 --json',
        "tinydancer classify --batch --file requests.txt --json > classes.jsonl",
    ),
)(classify)
app.add_typer(classifiers_app, name="classifiers", rich_help_panel=_ROUTE)
app.add_typer(budgets_app, name="budgets", rich_help_panel=_ROUTE)
app.command(
    rich_help_panel=_ROUTE,
    epilog=examples("tinydancer embed 'a red car' 'a crimson automobile'", "tinydancer embed 'a red car' --json"),
)(embed)
app.command(
    rich_help_panel=_LEARN,
    epilog=examples(
        "tinydancer feedback DECISION_ID --quality 0.9 --latency-ms 420 --cost 0.0012",
        "tinydancer feedback DECISION_ID --failed",
        "tinydancer feedback --agent small --quality 0.7",
    ),
)(feedback)
app.add_typer(models_app, name="models", rich_help_panel=_PREDICT)
app.command(
    rich_help_panel=_PREDICT,
    epilog=examples(
        "tinydancer train --requests requests.csv.gz --outcomes outcomes.csv.gz --out mine.safetensors",
        "tinydancer train --requests r.csv --outcomes o.csv --from shipped --out mine.safetensors --report report",
        "tinydancer train --out mine.safetensors --json",
    ),
)(train)
app.command(
    "eval",
    rich_help_panel=_PREDICT,
    epilog=examples(
        "tinydancer eval --requests requests.csv.gz --outcomes outcomes.csv.gz --out report",
        "tinydancer eval --requests requests.csv.gz --outcomes outcomes.csv.gz --model mine.safetensors --json",
    ),
)(evaluate)
app.command(
    rich_help_panel=_PREDICT,
    epilog=examples(
        "tinydancer calibrate --requests requests.csv.gz --outcomes outcomes.csv.gz --target-quality 0.95",
        "tinydancer calibrate --requests r.csv --outcomes o.csv --model mine.safetensors --write",
    ),
)(calibrate)
app.command(rich_help_panel=_LEARN, epilog=examples("tinydancer decisions --limit 5 --json"))(decisions)
app.command(rich_help_panel=_LEARN)(stats)
app.command(
    rich_help_panel=_LEARN,
    epilog=examples(
        "tinydancer report --since '30 days' --against large --html traffic.html",
        "tinydancer report --since '24 hours' --by hour --time-zone Europe/Berlin",
        "tinydancer report --by task --json",
    ),
)(report)
app.command(rich_help_panel=_LEARN)(version)


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown as its code instead of ending the command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="tinydancer")
