"""``tinydancer agents``: register, look at, change and remove agents, one at a time.

In: options. Out: calls of the service, and what they answer as a table, as facts, or as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.completion import complete_capability
from tinydancer.cli.context import note, open_dancer
from tinydancer.cli.inputs import parse_json
from tinydancer.cli.options import examples
from tinydancer.errors import InvalidInputError

if TYPE_CHECKING:
    from tinydancer.types import AgentPerformance, AgentRecord

_SAME_FIELDS = (
    "cost_per_request", "cost_per_call", "cost_per_token", "cost_per_1k_tokens", "cost_per_second",
    "monthly_fixed_cost", "input_cost_per_token", "output_cost_per_token", "cached_input_cost_per_token", "agent_type",
)  # fmt: skip
_OTHER_FIELDS = {
    "capability": "capabilities",
    "latency_ms": "avg_latency_ms",
    "quality": "quality_score",
    "output_tokens": "expected_output_tokens",
}
_PER_MILLION = {
    "input_per_1m": "input_cost_per_token",
    "output_per_1m": "output_cost_per_token",
    "cached_input_per_1m": "cached_input_cost_per_token",
}

agents_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Register, list, change and remove the agents that requests are routed to.",
)
_LOOK = "Look"
_CHANGE = "Change"
FILES = "Files"
"""Heading of the commands of `agent_files`."""


@agents_app.command(
    rich_help_panel=_CHANGE,
    epilog=examples(
        "tinydancer agents add small -c chat --input-per-1m 0.15 --output-per-1m 0.6",
        "tinydancer agents add legal --type human -c 'contract law' --cost-per-request 40",
    ),
)
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name of 1 to 200 characters that is not taken.")],
    agent_type: opt.AgentType = None,
    capability: opt.Capabilities = None,
    description: opt.Description = None,
    metadata: opt.Metadata = None,
    latency_ms: opt.LatencyMs = None,
    quality: opt.Quality = None,
    output_tokens: opt.OutputTokens = None,
    input_per_1m: opt.InputPer1m = None,
    output_per_1m: opt.OutputPer1m = None,
    cached_input_per_1m: opt.CachedInputPer1m = None,
    cost_per_request: opt.CostPerRequest = None,
    cost_per_call: opt.CostPerCall = None,
    cost_per_token: opt.CostPerToken = None,
    cost_per_1k_tokens: opt.CostPer1kTokens = None,
    cost_per_second: opt.CostPerSecond = None,
    monthly_fixed_cost: opt.MonthlyFixedCost = None,
    input_cost_per_token: opt.InputCostPerToken = None,
    output_cost_per_token: opt.OutputCostPerToken = None,
    cached_input_cost_per_token: opt.CachedInputCostPerToken = None,
    as_json: opt.Json = False,
) -> None:
    """Register an agent."""
    config = {"name": name, **changes_of(ctx.params, {})}
    with open_dancer(ctx, make=True) as dancer:
        _answer(ctx, dancer.register_agent_full(config), f"Registered {name}.", as_json=as_json)


@agents_app.command(
    rich_help_panel=_CHANGE,
    epilog=examples(
        "tinydancer agents update small --input-per-1m 0.10 --output-per-1m 0.40",
        "tinydancer agents update small -c chat -c translation -c summaries",
    ),
)
def update(
    ctx: typer.Context,
    name: opt.AgentName,
    agent_type: opt.AgentType = None,
    capability: opt.Capabilities = None,
    description: opt.Description = None,
    metadata: opt.Metadata = None,
    latency_ms: opt.LatencyMs = None,
    quality: opt.Quality = None,
    output_tokens: opt.OutputTokens = None,
    input_per_1m: opt.InputPer1m = None,
    output_per_1m: opt.OutputPer1m = None,
    cached_input_per_1m: opt.CachedInputPer1m = None,
    cost_per_request: opt.CostPerRequest = None,
    cost_per_call: opt.CostPerCall = None,
    cost_per_token: opt.CostPerToken = None,
    cost_per_1k_tokens: opt.CostPer1kTokens = None,
    cost_per_second: opt.CostPerSecond = None,
    monthly_fixed_cost: opt.MonthlyFixedCost = None,
    input_cost_per_token: opt.InputCostPerToken = None,
    output_cost_per_token: opt.OutputCostPerToken = None,
    cached_input_cost_per_token: opt.CachedInputCostPerToken = None,
    as_json: opt.Json = False,
) -> None:
    """Change what is stated of an agent; what is not named stays, and so does what was observed.

    Capabilities and metadata are replaced as a whole.
    """
    with open_dancer(ctx) as dancer:
        changes = changes_of(ctx.params, dancer.get_agent(name).agent.metadata)
        if not changes:
            raise InvalidInputError(
                f"Nothing to change about {name!r} is given; expected at least one option.",
                hint="See: tinydancer agents update --help",
            )
        _answer(ctx, dancer.update_agent(name, changes), f"Updated {name}.", as_json=as_json)


@agents_app.command(rich_help_panel=_CHANGE, epilog=examples("tinydancer agents remove small --yes"))
def remove(ctx: typer.Context, name: opt.AgentName, yes: opt.Yes = False) -> None:
    """Remove an agent; its decisions and outcomes stay in the accounts."""
    with open_dancer(ctx) as dancer:
        dancer.get_agent(name)
        if not yes and not _confirmed(f"Remove {output.printable(name)}?"):
            raise InvalidInputError(
                f"Removing {name!r} was not confirmed, so nothing was removed.",
                hint="Answer y, or give --yes; an agent that is only to pause can be deactivated.",
            )
        dancer.remove_agent(name)
    note(ctx, f"Removed {output.printable(name)}.")


@agents_app.command(rich_help_panel=_CHANGE)
def activate(ctx: typer.Context, name: opt.AgentName, as_json: opt.Json = False) -> None:
    """Let an agent be chosen again."""
    with open_dancer(ctx) as dancer:
        _answer(ctx, dancer.set_agent_active(name, True), f"{name} is active.", as_json=as_json)


@agents_app.command(rich_help_panel=_CHANGE)
def deactivate(ctx: typer.Context, name: opt.AgentName, as_json: opt.Json = False) -> None:
    """Keep an agent from being chosen, without forgetting it."""
    with open_dancer(ctx) as dancer:
        _answer(ctx, dancer.set_agent_active(name, False), f"{name} is not active any more.", as_json=as_json)


@agents_app.command("list", rich_help_panel=_LOOK, epilog=examples("tinydancer agents list --active --json"))
def list_(
    ctx: typer.Context,
    active: Annotated[bool, typer.Option("--active", help="Only those that can be chosen.")] = False,
    as_json: opt.Json = False,
) -> None:
    """List the agents with their prices and their record."""
    with open_dancer(ctx) as dancer:
        records = [r for r in dancer.list_agents() if r.agent.is_active or not active]
    if as_json:
        output.write_json([r.to_dict() for r in records])
    elif records:
        output.write_table(
            ("name", "type", "price", "latency", "quality", "success", "requests", "active", "capabilities"),
            [_row(r) for r in records],
            numbers=("latency", "quality", "success", "requests"),
        )
    else:
        note(ctx, "No agents are registered. Register one with: tinydancer agents add NAME")


@agents_app.command(rich_help_panel=_LOOK)
def show(ctx: typer.Context, name: opt.AgentName, as_json: opt.Json = False) -> None:
    """Show one agent: what is stated, and what was observed."""
    with open_dancer(ctx) as dancer:
        record = dancer.get_agent(name)
    if as_json:
        output.write_json(record.to_dict())
    else:
        _write_record(record)


@agents_app.command(
    rich_help_panel=_LOOK,
    epilog=examples("tinydancer agents find 'writing unit tests' --limit 3", "tinydancer agents find coding --exact"),
)
def find(
    ctx: typer.Context,
    capability: Annotated[str, typer.Argument(autocompletion=complete_capability, help="A word or short phrase.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many at most.")] = 10,
    exact: Annotated[bool, typer.Option("--exact", help="Only agents that name it, none that come near it.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Find active agents that have a capability, or one that means much the same."""
    with open_dancer(ctx) as dancer:
        matches = dancer.find_agents_by_capability(capability, limit, semantic=not exact)
    if as_json:
        output.write_json([{**m.record.to_dict(), "similarity": m.similarity, "exact": m.exact} for m in matches])
    elif matches:
        output.write_table(
            ("name", "match", "quality", "price", "capabilities"),
            [
                (
                    m.record.agent.name,
                    "exact" if m.exact else f"{m.similarity:.2f}",
                    output.share(m.record.performance.quality_score),
                    output.price(m.record.to_dict()["cost_model"]),
                    ", ".join(m.record.agent.capabilities),
                )
                for m in matches
            ],
            numbers=("match", "quality"),
        )
    else:
        note(ctx, "No active agent has this capability.")


def changes_of(params: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The agent fields that the options of ``add`` and ``update`` name; `metadata` is what the agent has so far."""
    from tinydancer.types import ABSURD_USD
    from tinydancer.validation import number

    given = {key: value for key, value in params.items() if value is not None and value not in ([], ())}
    changes = {key: given[key] for key in _SAME_FIELDS if key in given}
    changes |= {field: given[key] for key, field in _OTHER_FIELDS.items() if key in given}
    for key, field in _PER_MILLION.items():
        if key not in given:
            continue
        if field in changes:
            options = [f"--{name.replace('_', '-')}" for name in (key, field)]
            raise InvalidInputError(f"Both {options[0]} and {options[1]} are given; expected one of them.")
        option = f"--{key.replace('_', '-')}"
        changes[field] = number(given[key], option, low=0.0, high=ABSURD_USD * 1e6, unit="USD") / 1e6
    if "metadata" in given:
        changes["metadata"] = parse_json(given["metadata"], "--metadata")
    if "description" in given:
        base = changes.get("metadata", metadata)
        if not isinstance(base, Mapping):
            raise InvalidInputError(f"--metadata is {given['metadata']}; expected a JSON object.")
        changes["metadata"] = {**base, "description": given["description"]}
    return changes


def _answer(ctx: typer.Context, record: AgentRecord, done: str, *, as_json: bool) -> None:
    if as_json:
        output.write_json(record.to_dict())
        return
    note(ctx, output.printable(done))
    if record.agent.cost.estimate_usd(1.0, 1.0, seconds=1.0) is None:
        note(ctx, "Its cost is unknown: it fails every limit on cost, and the objective cost takes it last.")


def _row(record: AgentRecord) -> tuple[str, ...]:
    agent, seen = record.agent, record.performance
    return (
        agent.name,
        agent.agent_type,
        output.price(agent.to_dict()["cost_model"]),
        output.duration(seen.avg_latency_ms),
        output.share(seen.quality_score),
        f"{seen.success_rate:.0%}" if seen.total_requests else "",
        f"{seen.total_requests:,}",
        "yes" if agent.is_active else "no",
        ", ".join(agent.capabilities),
    )


def _write_record(record: AgentRecord) -> None:
    agent, seen = record.agent, record.performance
    metadata = {key: value for key, value in agent.metadata.items() if key != "description"}
    tokens = agent.expected_output_tokens
    output.write_facts(
        agent.name,
        [
            ("type", agent.agent_type),
            ("active", "yes" if agent.is_active else "no"),
            ("capabilities", ", ".join(agent.capabilities)),
            ("description", str(agent.metadata.get("description", ""))),
            ("price", output.price(agent.to_dict()["cost_model"])),
            ("latency", output.duration(seen.avg_latency_ms)),
            ("P95, P99", f"{output.duration(seen.p95_latency_ms)}, {output.duration(seen.p99_latency_ms)}"),
            ("quality", output.share(seen.quality_score)),
            ("answer", "" if tokens is None else f"{tokens:g} tokens"),
            ("requests", _count_of(seen)),
            ("spent", output.money(seen.total_cost_usd) if seen.total_cost_usd else ""),
            ("metadata", json.dumps(metadata, ensure_ascii=False) if metadata else ""),
        ],
    )


def _count_of(seen: AgentPerformance) -> str:
    return f"{seen.total_requests:,}, {seen.success_rate:.1%} went well" if seen.total_requests else "none yet"


def _confirmed(question: str) -> bool:
    typer.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):  # the end of the input, where nobody pressed return
        typer.echo(err=True)
    return answer.strip().lower() in ("y", "yes")
