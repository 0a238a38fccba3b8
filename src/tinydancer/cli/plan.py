"""``tinydancer plan``: a team for one request, a batch under one account, a month's budget.

In: a request, a file of requests, an amount of money. Out: tables and facts, or JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.completion import complete_agent_name, complete_capability, complete_objective
from tinydancer.cli.context import note, open_dancer
from tinydancer.cli.inputs import parse_json, read_text, request_source
from tinydancer.cli.options import examples
from tinydancer.errors import InvalidInputError

if TYPE_CHECKING:
    from tinydancer.planning import BatchPlan, BudgetPlan, Team

plan_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Plan for several agents, whole batches, and a month's budget.",
)
_LIMITS = "Limits"
_SHOWN_CHARS = 60

_MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", metavar="USD", help="Most that one request may cost.", rich_help_panel=_LIMITS),
]
_MaxLatency = Annotated[
    float | None,
    typer.Option("--max-latency-ms", metavar="MS", help="Longest mean latency.", rich_help_panel=_LIMITS),
]
_Require = Annotated[
    list[str] | None,
    typer.Option(
        "--require", metavar="CAP", autocompletion=complete_capability, rich_help_panel=_LIMITS,
        help="A capability every agent must name; may be repeated.",
    ),
]  # fmt: skip
_Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude", metavar="NAME", autocompletion=complete_agent_name, rich_help_panel=_LIMITS,
        help="An agent that must not be chosen; may be repeated.",
    ),
]  # fmt: skip


def complete_strategy(incomplete: str) -> list[str]:
    """Names of the strategies, for the shell."""
    return [name for name in ("pipeline", "parallel", "ensemble", "cascade") if name.startswith(incomplete)]


@plan_app.command(
    epilog=examples(
        'tinydancer plan agents "Build and deploy a web application." --num-agents 3 --strategy pipeline',
        'tinydancer plan agents "Is this clause valid?" -s ensemble --budget 0.05',
        'tinydancer plan agents "Translate this contract." -s cascade --quality-target 0.9 --json',
    )
)
def agents(
    ctx: typer.Context,
    text: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="The request; several words are joined. - reads standard input."),
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Read the request from a file.")
    ] = None,
    num_agents: Annotated[
        int, typer.Option("--num-agents", "-n", metavar="N", help="How many, or how many at most.")
    ] = 3,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy", "-s", metavar="NAME", autocompletion=complete_strategy,
            help="pipeline, parallel, ensemble or cascade.",
        ),
    ] = "pipeline",
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", metavar="TEXT", help="A stage of a pipeline; give it once for each, in order."),
    ] = None,
    optimize_for: Annotated[
        str | None,
        typer.Option(
            "--optimize-for", "-o", metavar="OBJECTIVE", autocompletion=complete_objective,
            help="Objective of each stage of a pipeline; balanced unless given.",
        ),
    ] = None,
    quality_target: Annotated[
        float | None,
        typer.Option("--quality-target", metavar="Q", help="Expected quality that a cascade must reach, in [0, 1]."),
    ] = None,
    combination: Annotated[
        str | None,
        typer.Option("--combination", metavar="NAME", help="How an ensemble answers: best_of_n or majority."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="USD", help="Most that the whole team may cost.", rich_help_panel=_LIMITS),
    ] = None,
    max_cost: _MaxCost = None,
    max_latency_ms: _MaxLatency = None,
    require: _Require = None,
    exclude: _Exclude = None,
    key: opt.Key = None,
    tag: opt.Tags = None,
    task: opt.Task = None,
    route_name: opt.RouteName = None,
    as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Choose several agents for one request."""
    from tinydancer.planning import route_multi

    given: dict[str, Any] = {
        "stages": stage or None, "optimize_for": optimize_for, "quality_target": quality_target,
        "combination": combination, "budget_remaining": budget, "max_cost": max_cost,
        "max_latency_ms": max_latency_ms, "required_capabilities": require or None, "excluded_agents": exclude or None,
        "key": key, "tags": tag or None, "task": task, "route_name": route_name,
    }  # fmt: skip
    request = request_source(text, file).rstrip("\r\n")
    with open_dancer(ctx) as dancer:
        team = route_multi(dancer, request, num_agents, strategy, **{k: v for k, v in given.items() if v is not None})
    if as_json:
        output.write_json(team.rows())
    else:
        _write_team(team)


def _write_team(team: Team) -> None:
    output.write_table(
        ("", "role", "agent", "cost", "latency", "quality", "asked", "next below"),
        [
            (
                str(position), member.role, member.decision.agent_name, output.money(member.decision.estimated_cost),
                output.duration(member.decision.estimated_latency_ms), f"{member.decision.expected_quality:.2f}",
                f"{member.reached:.0%}", "" if member.escalate_below is None else f"{member.escalate_below:.2f}",
            )
            for position, member in enumerate(team.members, start=1)
        ],
        numbers=("cost", "latency", "quality", "asked", "next below"),
    )  # fmt: skip
    typer.echo()
    output.write_facts(
        f"{team.strategy} as a whole",
        [
            ("quality", f"{team.expected_quality:.3f} expected"),
            ("cost", output.money(team.estimated_cost)),
            ("latency", output.duration(team.estimated_latency_ms)),
        ],
    )


@plan_app.command(
    epilog=examples(
        "tinydancer plan batch requests.txt",
        "tinydancer plan batch requests.txt --min-mean-quality 0.85 --capacity large=100",
        "tinydancer plan batch requests.txt --budget 2.50 --json > plan.json",
    )
)
def batch(
    ctx: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help='One request per line, or JSON lines with the key "request"; - is standard input.'
        ),
    ],
    min_mean_quality: Annotated[
        float | None,
        typer.Option("--min-mean-quality", metavar="Q", help="The cheapest assignment that reaches this mean quality."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="USD", help="The best assignment that this pays for, all requests together."),
    ] = None,
    capacity: Annotated[
        list[str] | None,
        typer.Option("--capacity", metavar="NAME=N", help="Most requests for an agent; may be repeated."),
    ] = None,
    max_cost: _MaxCost = None,
    max_latency_ms: _MaxLatency = None,
    min_quality: Annotated[
        float | None,
        typer.Option(
            "--min-quality", metavar="Q", help="Lowest expected quality of each request.", rich_help_panel=_LIMITS
        ),
    ] = None,
    require: _Require = None,
    exclude: _Exclude = None,
    key: opt.Key = None,
    tag: opt.Tags = None,
    task: opt.Task = None,
    route_name: opt.RouteName = None,
    as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Choose the agents of many requests together: cheapest for a quality, or best for a budget.

    Without either, the mean quality is to be 70% (good_enough) of what the best agents would reach.
    """
    from tinydancer.planning import assign_batch

    requests = _requests(read_text(file))
    given: dict[str, Any] = {
        "min_mean_quality": min_mean_quality, "capacities": _capacities(capacity), "budget_remaining": budget,
        "max_cost": max_cost, "max_latency_ms": max_latency_ms, "min_quality": min_quality,
        "required_capabilities": require or None, "excluded_agents": exclude or None,
        "key": key, "tags": tag or None, "task": task, "route_name": route_name,
    }  # fmt: skip
    with open_dancer(ctx) as dancer:
        plan = assign_batch(dancer, requests, **{key: value for key, value in given.items() if value is not None})
    if as_json:
        decisions = [decision and _brief(decision.to_dict()) for decision in plan.decisions]
        output.write_json({**plan.to_dict(), "decisions": decisions})
    else:
        _write_batch(plan, requests)


def _brief(decision: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in decision.items() if key not in ("alternatives", "reasoning")}


def _requests(source: str) -> list[str]:
    found = []
    for number, line in enumerate(source.splitlines(), start=1):
        text = line.strip()
        if not text:
            continue
        if text.startswith("{"):
            given = parse_json(text, f"Line {number}")
            if not isinstance(given.get("request"), str):
                raise InvalidInputError(f'Line {number} has no text under the key "request"; expected one.')
            text = given["request"]
        found.append(text)
    return found


def _capacities(given: list[str] | None) -> dict[str, int] | None:
    if not given:
        return None
    found = {}
    for entry in given:
        name, sign, number = entry.rpartition("=")
        if not sign or not number.strip().isdigit():
            raise InvalidInputError(f"The capacity is {entry!r}; expected NAME=N, such as large=100.")
        found[name.strip()] = int(number)
    return found


def _write_batch(plan: BatchPlan, requests: list[str]) -> None:
    output.write_table(
        ("line", "agent", "cost", "quality", "request"),
        [
            (str(number), "nobody fits", "", "", text[:_SHOWN_CHARS])
            if decision is None
            else (
                str(number), decision.agent_name, output.money(decision.estimated_cost),
                f"{decision.expected_quality:.2f}", text[:_SHOWN_CHARS],
            )
            for number, (decision, text) in enumerate(zip(plan.decisions, requests, strict=True), start=1)
        ],
        numbers=("line", "cost", "quality"),
    )  # fmt: skip
    typer.echo()
    unit = "in mean quality" if plan.floor is None else "USD"
    proof = "proven optimal" if plan.gap == 0.0 else f"at most {plan.gap:.3g} {unit} from the optimum"
    output.write_facts(
        "the whole batch",
        [
            ("cost", output.money(plan.cost_usd)),
            (
                "quality",
                f"{plan.mean_quality:.3f} expected on average" if plan.mean_quality is not None else "",
            ),
            ("aim", f"a mean quality of {plan.floor:.3f}" if plan.floor is not None else ""),
            ("budget", "" if plan.budget_usd is None else output.money(plan.budget_usd)),
            ("agents", ", ".join(f"{name} {count}" for name, count in plan.requests_per_agent.items())),
            ("proof", proof),
        ],
    )


@plan_app.command(
    epilog=examples(
        "tinydancer plan budget 100",
        "tinydancer plan budget 100 --quality 0.85 --latency-ms 2000 --json",
        "tinydancer plan budget 100 --requests-per-month 50000",
    )
)
def budget(
    ctx: typer.Context,
    usd: Annotated[float, typer.Argument(metavar="USD", help="The budget of 30 days.")],
    quality: Annotated[
        float, typer.Option("--quality", metavar="Q", help="Mean expected quality that is wanted, in [0, 1].")
    ] = 0.8,
    latency_ms: Annotated[
        float, typer.Option("--latency-ms", metavar="MS", help="Longest mean latency of an agent.")
    ] = 5000.0,
    requests_per_month: Annotated[
        float | None,
        typer.Option("--requests-per-month", metavar="N", help="Instead of the rate that was observed."),
    ] = None,
    as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Allocate a month's budget over the agents, for the traffic that was recorded."""
    from tinydancer.planning import optimize_budget

    with open_dancer(ctx) as dancer:
        plan = optimize_budget(dancer, usd, quality, latency_ms, requests_per_month=requests_per_month)
    if as_json:
        output.write_json(plan.to_dict())
        return
    if plan.assumption:
        note(ctx, plan.assumption)
    _write_budget(plan)


def _write_budget(plan: BudgetPlan) -> None:
    output.write_table(
        ("agent", "budget", "share"),
        [(name, output.money(amount), f"{plan.shares[name]:.1%}") for name, amount in plan.allocations.items()],
        numbers=("budget", "share"),
    )
    typer.echo()
    cheapest = "" if plan.cheapest_budget is None else output.money(plan.cheapest_budget)
    output.write_facts(
        f"{output.money(plan.total_budget)} a month",
        [
            ("spent", output.money(sum(plan.allocations.values()))),
            ("requests", f"{plan.requests_per_month:,.0f}"),
            (
                "quality",
                f"{plan.expected_quality:.3f} expected, {'' if plan.meets_threshold else 'not '}what is wanted",
            ),
            ("least budget for the wanted quality", cheapest),
            ("left out", "; ".join(f"{name} {reason}" for name, reason in plan.excluded.items())),
        ],
    )
