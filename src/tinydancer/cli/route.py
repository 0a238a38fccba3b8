"""``tinydancer route``: one request, and the agent that should serve it.

In: a text, a file or standard input, an objective and limits. Out: the choice with its reasons, or JSON.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.batch import route_lines
from tinydancer.cli.completion import complete_agent_name, complete_capability, complete_objective
from tinydancer.cli.context import note, open_dancer, settings_of, state_of
from tinydancer.cli.inputs import request_source
from tinydancer.errors import InvalidInputError

if TYPE_CHECKING:
    from tinydancer.config import Settings
    from tinydancer.decide import Decision

_LIMITS = "Limits"
_SIZE = "Size of the request (estimated from its text unless given)"
_MOST_ALTERNATIVES = 1000


def route(
    ctx: typer.Context,
    text: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="The request; several words are joined. - reads standard input."),
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Read the request from a file.")
    ] = None,
    optimize_for: Annotated[
        str,
        typer.Option(
            "--optimize-for", "-o", metavar="OBJECTIVE", autocompletion=complete_objective,
            help="balanced, cost, latency, quality or quality_per_dollar.",
        ),
    ] = "balanced",
    max_cost: Annotated[
        float | None,
        typer.Option("--max-cost", metavar="USD", help="Most this request may cost.", rich_help_panel=_LIMITS),
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option("--max-latency-ms", metavar="MS", help="Longest mean latency.", rich_help_panel=_LIMITS),
    ] = None,
    min_quality: Annotated[
        float | None,
        typer.Option("--min-quality", metavar="Q", help="Lowest expected quality, in [0, 1].", rich_help_panel=_LIMITS),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require", metavar="CAP", autocompletion=complete_capability, rich_help_panel=_LIMITS,
            help="A capability the agent must name; may be repeated.",
        ),
    ] = None,
    infer_capabilities: Annotated[
        bool,
        typer.Option(
            "--infer-capabilities", rich_help_panel=_LIMITS,
            help="Require what the classifier says the request needs, as far as an agent names it.",
        ),
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", metavar="NAME", autocompletion=complete_agent_name, rich_help_panel=_LIMITS,
            help="An agent that must not be chosen; may be repeated.",
        ),
    ] = None,
    budget_remaining: Annotated[
        float | None,
        typer.Option("--budget-remaining", metavar="USD", help="Money that is left.", rich_help_panel=_LIMITS),
    ] = None,
    good_enough: Annotated[
        float | None,
        typer.Option(
            "--good-enough", metavar="SHARE", rich_help_panel=_LIMITS,
            help="Share of the best expected quality that cost, latency and quality_per_dollar accept; 0 accepts all.",
        ),
    ] = None,
    on_no_match: Annotated[
        str,
        typer.Option(
            "--on-no-match", metavar="error|null", rich_help_panel=_LIMITS,
            help="What to do when no agent fits: fail with exit code 5, or answer null.",
        ),
    ] = "error",
    input_tokens: Annotated[
        float | None,
        typer.Option("--input-tokens", metavar="N", help="Tokens the agent will read.", rich_help_panel=_SIZE),
    ] = None,
    cached_input_tokens: Annotated[
        float | None,
        typer.Option(
            "--cached-input-tokens", metavar="N", help="How many of them the provider has in its cache.",
            rich_help_panel=_SIZE,
        ),
    ] = None,
    output_tokens: Annotated[
        float | None,
        typer.Option("--output-tokens", metavar="N", help="Tokens the answer will have.", rich_help_panel=_SIZE),
    ] = None,
    key: opt.Key = None,
    tag: opt.Tags = None,
    task: opt.Task = None,
    route_name: opt.RouteName = None,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch", help='One request per line, or JSON lines with the key "request"; one answer per request.'
        ),
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show every agent, and why it was not chosen.")] = False,
    no_record: Annotated[bool, typer.Option("--no-record", help="Do not record the decision.")] = False,
    as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Choose the agent for a request.

    Prints the agent with what to expect of it and why, and the id of the decision for [bold]tinydancer feedback[/bold].
    """
    given: dict[str, Any] = {
        "max_cost": max_cost, "max_latency_ms": max_latency_ms, "min_quality": min_quality,
        "required_capabilities": require or None, "excluded_agents": exclude or None,
        "budget_remaining": budget_remaining, "good_enough": good_enough, "on_no_match": on_no_match,
        "input_tokens": input_tokens, "cached_input_tokens": cached_input_tokens, "output_tokens": output_tokens,
        "key": key, "tags": tag or None, "task": task, "route_name": route_name,
    }  # fmt: skip
    limits = {key: value for key, value in given.items() if value is not None}
    if infer_capabilities:
        if batch:
            raise InvalidInputError("Both --batch and --infer-capabilities are given; expected one of them.")
        limits["infer_capabilities"] = True
    if explain and batch:
        raise InvalidInputError("Both --batch and --explain are given; expected one of them.")
    source = request_source(text, file)
    settings = _settings(ctx, explain=explain, record=not no_record)
    with open_dancer(ctx, settings=settings) as dancer:
        if batch:
            route_lines(dancer, source, optimize_for, limits, as_json=as_json, quiet=state_of(ctx).quiet)
            return
        # A file ends with a line feed that is no part of what was asked.
        decision = cast("Decision | None", dancer.route(source.rstrip("\r\n"), optimize_for, **limits))
        if decision is None:
            if as_json:
                output.write_json(None)
            else:
                note(ctx, "No agent fits.")
        elif as_json:
            more = {"exclusions": decision.exclusions} if explain else {}
            output.write_json({**decision.to_dict(), **more})
        else:
            _write_decision(decision, explain=explain)


def _settings(ctx: typer.Context, *, explain: bool, record: bool) -> Settings:
    settings = settings_of(state_of(ctx))
    if explain:
        settings = replace(settings, decisions=replace(settings.decisions, max_alternatives=_MOST_ALTERNATIVES))
    return settings if record else replace(settings, record_decisions=False)


def _write_decision(decision: Decision, *, explain: bool) -> None:
    others = [] if explain else [f"{a.agent_name}: {a.reason}" for a in decision.alternatives]
    facts = [
        ("cost", output.money(decision.estimated_cost)),
        ("latency", output.duration(decision.estimated_latency_ms)),
        ("quality", f"{decision.expected_quality:.2f} expected"),
        ("confidence", f"{decision.confidence:.0%} that it reaches {decision.quality_bar:g}"),
        ("match", f"{decision.similarity_score:.2f}"),
        ("why", decision.reasoning),
        *((("instead of", "; ".join(others[:1])),) if others else ()),
        *(("", other) for other in others[1:]),
        ("decision", decision.decision_id or "not recorded"),
    ]
    output.write_facts(decision.agent_name, facts)
    if explain:
        typer.echo()
        output.write_table(
            ("agent", "quality", "cost", "latency", "match", "verdict"),
            _verdicts(decision),
            numbers=("quality", "cost", "latency", "match"),
        )


def _verdicts(decision: Decision) -> list[tuple[str, ...]]:
    """One row per agent: the chosen one, those that came after it, those that were out."""
    chosen = (
        decision.agent_name, f"{decision.expected_quality:.2f}", output.money(decision.estimated_cost),
        output.duration(decision.estimated_latency_ms), f"{decision.similarity_score:.2f}", "chosen",
    )  # fmt: skip
    after = [
        (
            a.agent_name, f"{a.expected_quality:.2f}", output.money(a.estimated_cost),
            output.duration(a.estimated_latency_ms), f"{a.similarity_score:.2f}", a.reason,
        )
        for a in decision.alternatives
    ]  # fmt: skip
    out = [(name, "", "", "", "", f"out: {reason}") for name, reason in decision.exclusions.items()]
    return [chosen, *after, *out]
