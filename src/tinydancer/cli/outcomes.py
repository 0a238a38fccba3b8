"""``tinydancer feedback``, ``stats`` and ``decisions``: what happened.

In: the id of a decision, or an agent, and what was measured. Out: an outcome in the store; totals and listings.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.completion import complete_agent_name
from tinydancer.cli.context import note, open_dancer
from tinydancer.errors import InvalidInputError

if TYPE_CHECKING:
    from tinydancer.store.base import DecisionRow
    from tinydancer.types import AgentRecord, Outcome


def feedback(
    ctx: typer.Context,
    decision_id: Annotated[
        str | None, typer.Argument(metavar="[DECISION_ID]", help="As tinydancer route printed it.")
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option("--agent", metavar="NAME", autocompletion=complete_agent_name, help="Without a decision: whose."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="No answer came, or none of use.")] = False,
    quality: Annotated[float | None, typer.Option("--quality", metavar="Q", help="How good it was, in [0, 1].")] = None,
    latency_ms: Annotated[float | None, typer.Option("--latency-ms", metavar="MS", help="How long it took.")] = None,
    cost: Annotated[float | None, typer.Option("--cost", metavar="USD", help="What it cost.")] = None,
    input_tokens: Annotated[int | None, typer.Option("--input-tokens", metavar="N", help="Tokens read.")] = None,
    output_tokens: Annotated[int | None, typer.Option("--output-tokens", metavar="N", help="Tokens written.")] = None,
    as_json: opt.Json = False,
) -> None:
    """Report what came of a decision, so that the next ones are better."""
    if (decision_id is None) == (agent is None):
        given = "Neither a DECISION_ID nor --agent is" if agent is None else "Both a DECISION_ID and --agent are"
        raise InvalidInputError(
            f"{given} given; expected one of them.", hint="tinydancer decisions lists the latest decisions."
        )
    measured: dict[str, Any] = {
        "success": not failed, "quality": quality, "latency_ms": latency_ms, "cost_usd": cost,
        "input_tokens": input_tokens, "output_tokens": output_tokens,
    }  # fmt: skip
    with open_dancer(ctx) as dancer:
        if decision_id is not None:
            outcome = dancer.feedback(decision_id, **measured)
        else:
            outcome = dancer.update_agent_metrics(str(agent), **measured)
    if as_json:
        output.write_json(_fields(outcome))
    else:
        note(ctx, f"Recorded for {output.printable(outcome.agent_name)}.")


def stats(ctx: typer.Context, as_json: opt.Json = False) -> None:
    """Show totals, and what each agent got and how it did."""
    with open_dancer(ctx) as dancer:
        totals = dancer.routing_stats()
        records = dancer.list_agents()
    if as_json:
        output.write_json({**totals, "agents": [r.to_dict() for r in records]})
        return
    decisions, outcomes = totals["total_decisions"], totals["total_outcomes"]
    by_objective = sorted(totals["decisions_by_objective"].items())
    output.write_facts(
        "Totals",
        [
            ("agents", f"{totals['total_agents']:,}, {totals['active_agents']:,} of them active"),
            ("decisions", f"{decisions:,}"),
            ("for", ", ".join(f"{name} {count:,}" for name, count in by_objective)),
            ("outcomes", f"{outcomes:,}" + (f", {totals['success_rate']:.1%} went well" if outcomes else "")),
            ("estimated", output.money(totals["estimated_cost_usd"]) if decisions else ""),
            ("reported", output.money(totals["total_cost_usd"]) if outcomes else ""),
        ],
    )
    rows = _agent_rows(totals["decisions_by_agent"], {r.agent.name: r for r in records}, decisions)
    if rows:
        typer.echo()
        output.write_table(
            ("agent", "decisions", "", "outcomes", "success", "quality", "latency", "P95", "spent"), rows,
            numbers=("decisions", "outcomes", "success", "quality", "latency", "P95", "spent"),
        )  # fmt: skip


def decisions(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many at most.")] = 20,
    as_json: opt.Json = False,
) -> None:
    """List the latest decisions, the latest first."""
    with open_dancer(ctx) as dancer:
        rows = dancer.list_decisions(limit)
    if as_json:
        output.write_json([_decision_fields(row) for row in rows])
    elif rows:
        with_text = any(row.request is not None for row in rows)
        output.write_table(
            ("decided", "agent", "objective", "cost", "quality", "decision", *(("request",) if with_text else ())),
            [_decision_row(row, with_text=with_text) for row in rows],
            numbers=("cost", "quality", "decision"),
        )
    else:
        note(ctx, "No decisions are recorded yet. Make one with: tinydancer route TEXT")


def _fields(value: Outcome | DecisionRow) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _decision_fields(row: DecisionRow) -> dict[str, Any]:
    """JSON-ready; the features are for machines that learn, and are left out."""
    values = {key: value for key, value in _fields(row).items() if key != "features"}
    return {**values, "constraints": dict(row.constraints), "context": row.context.to_dict()}


def _agent_rows(by_agent: dict[str, int], records: dict[str, AgentRecord], total: int) -> list[tuple[str, ...]]:
    """The agents that got most first; removed ones, of which only the decisions are left, among them."""
    rows: list[tuple[str, ...]] = []
    for name in sorted({*by_agent, *records}, key=lambda name: (-by_agent.get(name, 0), name)):
        count, record = by_agent.get(name, 0), records.get(name)
        bar = output.meter(count / total if total else 0.0)
        if record is None:
            rows.append((f"{name} (removed)", f"{count:,}", bar, "", "", "", "", "", ""))
            continue
        seen = record.performance
        observed = seen.total_requests > 0
        rows.append(
            (
                name, f"{count:,}", bar, f"{seen.total_requests:,}", f"{seen.success_rate:.0%}" if observed else "",
                output.share(seen.quality_score), output.duration(seen.avg_latency_ms),
                "" if seen.p95_latency_ms is None else output.duration(seen.p95_latency_ms),
                output.money(seen.total_cost_usd) if seen.total_cost_usd else "",
            )
        )  # fmt: skip
    return rows


def _decision_row(row: DecisionRow, *, with_text: bool) -> tuple[str, ...]:
    when = datetime.fromtimestamp(row.decided_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    text = " ".join((row.request or "").split())
    return (
        when, row.agent_name, row.objective, output.money(row.estimated_cost_usd), f"{row.expected_quality:.2f}",
        row.decision_id, *((text[:60],) if with_text else ()),
    )  # fmt: skip
