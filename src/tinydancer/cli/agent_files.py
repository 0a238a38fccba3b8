"""``tinydancer agents import``, ``export`` and ``load``: many agents at once, from and to files.

In: a price list in LiteLLM's JSON shape, or agents as JSON. Out: agents in the store, all of a file or none; or JSON.
"""

from __future__ import annotations

from typing import Annotated

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.agents import FILES, agents_app
from tinydancer.cli.context import note, open_dancer, state_of
from tinydancer.cli.inputs import read_json
from tinydancer.cli.options import examples
from tinydancer.policy.wording import plural

_File = Annotated[str, typer.Argument(metavar="FILE", help="A JSON file; - for standard input.")]


@agents_app.command(
    "import",
    rich_help_panel=FILES,
    epilog=examples(
        "tinydancer agents import prices.json 'gpt-*' 'claude-*'",
        "# New prices for the agents that exist, and no new agents:",
        "tinydancer agents import prices.json --update-only",
    ),
)
def import_(
    ctx: typer.Context,
    file: _File,
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATTERN]...", help="Take only models whose name fits one, as in 'gpt-*'."),
    ] = None,
    update_only: Annotated[
        bool, typer.Option("--update-only", help="Only change prices of agents that exist.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Take over a price list in LiteLLM's JSON shape: model name to prices per token.

    Agents that exist keep everything but their prices; others are registered. A price that is absent stays unknown.
    """
    prices = read_json(file)
    with open_dancer(ctx, make=True) as dancer:
        before = {agent.name for agent in dancer.store.list_agents()}
        taken = set(dancer.import_prices(prices, patterns or (), update_only=update_only))
        agents = [agent for agent in dancer.store.list_agents() if agent.name in taken]
    unknown = [agent.name for agent in agents if agent.cost.estimate_usd(1.0, 1.0, seconds=1.0) is None]
    registered, updated = len(taken - before), len(taken & before)
    if as_json:
        output.write_json({"registered": registered, "updated": updated, "unknown_prices": sorted(unknown)})
        return
    note(ctx, f"Registered {plural(registered, 'agent')}, updated the prices of {plural(updated, 'agent')}.")
    if unknown:
        note(ctx, f"{plural(len(unknown), 'agent')} of these have no known cost; see: tinydancer agents list")


@agents_app.command(
    rich_help_panel=FILES,
    epilog=examples("tinydancer agents export > agents.json", "tinydancer --store other.db agents load agents.json"),
)
def export(ctx: typer.Context) -> None:
    """Print all agents as a JSON array, which [bold]agents load[/bold] reads back.

    Vectors are left out: they are made again from the capabilities.
    """
    with open_dancer(ctx) as dancer:
        output.write_json([agent.to_dict() for agent in dancer.store.list_agents()])


@agents_app.command(
    rich_help_panel=FILES,
    epilog=examples("tinydancer agents load agents.json", "tinydancer agents load agents.json --replace"),
)
def load(
    ctx: typer.Context,
    file: _File,
    replace_: Annotated[
        bool, typer.Option("--replace", help="Replace agents that exist instead of refusing the file.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Register the agents of a JSON file: one object, or an array of them; all or none."""
    given = read_json(file)
    configs = given if isinstance(given, list) else [given]
    with (
        open_dancer(ctx, make=True) as dancer,
        output.progress(len(configs), "embedding", quiet=state_of(ctx).quiet) as advance,
    ):
        names = dancer.register_agents(configs, replace=replace_, progress=advance)
    if as_json:
        output.write_json({"loaded": names})
    else:
        note(ctx, f"Loaded {plural(len(names), 'agent')}.")
