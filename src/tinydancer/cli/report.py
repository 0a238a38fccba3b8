"""``tinydancer report``: what the traffic came to, on the terminal and as one HTML page.

In: how far to look back, what to group by, an agent to compare with. Out: figures, a table with bars, a trend; JSON; an
HTML page.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.completion import complete_agent_name
from tinydancer.cli.context import note, open_dancer
from tinydancer.errors import InvalidInputError

if TYPE_CHECKING:
    from tinydancer.analytics import Analytics, Trend
    from tinydancer.policy.analytics import Savings, TrafficRow

_BAR = 12
_SPARKS = "▁▂▃▄▅▆▇█"
_MOST_TREND = 31
"""Lines of a trend on a terminal; the page shows all of it."""


def complete_grouping(incomplete: str) -> list[str]:
    """Names of the groupings, for the shell."""
    from tinydancer.policy.analytics import GROUPINGS

    return [name for name in GROUPINGS if name.startswith(incomplete)]


def report(
    ctx: typer.Context,
    since: Annotated[
        str, typer.Option("--since", metavar="INTERVAL", help="How far to look back: '7 days', '24 hours', '1 mon'.")
    ] = "7 days",
    by: Annotated[
        str,
        typer.Option(
            "--by", metavar="GROUPING", autocompletion=complete_grouping,
            help="agent, route, tenant, task, day, hour or objective.",
        ),
    ] = "agent",
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="AGENT", autocompletion=complete_agent_name,
            help="Compare with always using this agent.",
        ),
    ] = None,
    time_zone: Annotated[
        str, typer.Option("--time-zone", metavar="ZONE", help="Whose days and hours, such as Europe/Berlin.")
    ] = "UTC",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write one self-contained HTML page.")
    ] = None,
    as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Show what the traffic cost, how fast and how good it was, and what it saved."""
    from tinydancer.analytics import routing_analytics, trend

    with open_dancer(ctx) as dancer:
        chosen = routing_analytics(dancer, since, by, against, time_zone=time_zone)
        course = trend(dancer, since, time_zone=time_zone)
        has_agents = bool(dancer.store.list_agents())
        if html is not None:
            from tinydancer.report_page import page

            by_agent = chosen if chosen.group_by == "agent" else routing_analytics(dancer, since, time_zone=time_zone)
            _write(html, page(chosen, by_agent, course))
    if as_json:
        output.write_json(chosen.to_dict())
    elif chosen.rows:
        _show(ctx, chosen, course)
    else:
        _nothing(ctx, since, has_agents=has_agents)
    if html is not None and not as_json:
        note(ctx, f"The page is in {html}.")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"The page cannot be written to {path}: {error.strerror}.") from None


def _nothing(ctx: typer.Context, since: str, *, has_agents: bool) -> None:
    if not has_agents:
        note(ctx, "There is nothing to report: no agents are registered. Register one: tinydancer agents add NAME")
        return
    note(
        ctx,
        f"No outcomes were reported in the last {since}. Route a request (tinydancer route TEXT), then report what "
        "came of it (tinydancer feedback DECISION_ID --cost 0.0012 --latency-ms 420 --quality 0.9); or look further "
        "back with --since.",
    )


def _show(ctx: typer.Context, chosen: Analytics, course: Trend) -> None:
    totals = chosen.totals
    known = totals.costs_reported + totals.costs_estimated
    output.write_facts(
        f"The last {_length(chosen)}",
        [
            ("requests", f"{totals.total_requests:,}, {totals.success_rate or 0.0:.1%} went well"),
            ("cost", _cost(totals, known)),
            ("quality", _judged(totals)),
            ("latency", _latency(totals)),
            *_saving_facts(chosen.baseline, totals.savings),
        ],
    )
    typer.echo()
    _write_rows(chosen)
    if chosen.group_by not in ("day", "hour") and len(course.labels) > 1:
        typer.echo()
        _write_trend(course)
    if chosen.note:
        note(ctx, chosen.note)


def _length(chosen: Analytics) -> str:
    from tinydancer.policy.wording import milliseconds

    seconds = chosen.end - chosen.begin
    return f"{seconds / 86_400.0:.3g} days" if seconds >= 2 * 86_400.0 else milliseconds(seconds * 1000.0)


def _cost(totals: TrafficRow, known: int) -> str:
    if totals.total_cost is None:
        return "not known"
    parts = [output.money(totals.total_cost)]
    if totals.costs_estimated:
        parts.append(f"{totals.costs_estimated:,} of {totals.total_requests:,} estimated")
    if known < totals.total_requests:
        parts.append(f"{totals.total_requests - known:,} without a known cost")
    return ", ".join(parts)


def _judged(totals: TrafficRow) -> str:
    if totals.quality is None:
        return "no answer was judged"
    return f"{totals.quality:.3f} over {totals.judged:,} judged answers"


def _latency(totals: TrafficRow) -> str:
    if totals.p50_latency_ms is None:
        return ""
    named = ((totals.p50_latency_ms, "P50"), (totals.p95_latency_ms, "P95"), (totals.p99_latency_ms, "P99"))
    return ", ".join(f"{name} {output.duration(value)}" for value, name in named)


def _saving_facts(baseline: str | None, savings: Savings | None) -> list[tuple[str, str]]:
    if baseline is None or savings is None:
        return []
    if savings.saved is None or savings.baseline_cost is None:
        return [(f"against {baseline}", f"not known: {savings.cost_basis}")]
    money = _signed(savings.saved)
    if savings.saved_share is not None:
        money += f" ({savings.saved_share:.0%} of {output.money(savings.baseline_cost)})"
    if savings.saved_low is not None and savings.saved_high is not None:
        money += f", 95% interval {_signed(savings.saved_low)} to {_signed(savings.saved_high)}"
    facts = [(f"saved against {baseline}", f"{money}; {savings.cost_basis}")]
    if savings.baseline_quality is not None and savings.quality_change is not None:
        quality = f"{savings.baseline_quality:.3f}"
        if savings.baseline_quality_low is not None and savings.baseline_quality_high is not None:
            quality += f" (95% interval {savings.baseline_quality_low:.3f} to {savings.baseline_quality_high:.3f})"
        facts.append((f"quality at {baseline}", f"{quality}; observed {savings.quality_change:+.3f} against it"))
    return facts


def _write_rows(chosen: Analytics) -> None:
    most = max(row.total_cost or 0.0 for row in chosen.rows)
    measure = "cost" if most else "requests"
    if not most:
        most = float(max(row.total_requests for row in chosen.rows))
    columns = [chosen.group_by, "requests", "cost", "", "P50", "P95", "P99", "success", "quality", "judged"]
    if chosen.baseline is not None:
        columns += ["saved", "quality against"]
    rows = []
    for row in chosen.rows:
        part = ((row.total_cost or 0.0) if measure == "cost" else row.total_requests) / most
        latencies = (row.p50_latency_ms, row.p95_latency_ms, row.p99_latency_ms)
        cells = [
            row.group or "(none)",
            f"{row.total_requests:,}",
            "" if row.total_cost is None else output.money(row.total_cost),
            output.meter(part, _BAR) if part else "",
            *("" if value is None else output.duration(value) for value in latencies),
            "" if row.success_rate is None else f"{row.success_rate:.1%}",
            "" if row.quality is None else f"{row.quality:.3f}",
            f"{row.judged:,}",
        ]
        if row.savings is not None:
            change = row.savings.quality_change
            cells.append("" if row.savings.saved is None else _signed(row.savings.saved))
            cells.append("" if change is None else f"{change:+.3f}")
        rows.append(cells)
    output.write_table(columns, rows, numbers=[name for name in columns[1:] if name])


def _write_trend(course: Trend) -> None:
    costs = [sum(values) for values in zip(*course.cost_usd.values(), strict=True)]
    requests = [sum(values) for values in zip(*course.requests.values(), strict=True)]
    shown = slice(max(0, len(costs) - _MOST_TREND), None)
    values: list[Any] = costs if any(costs) else requests
    unit = "hour" if course.is_hourly else "day"
    line = "".join(_spark(value, max(values)) for value in values[shown])
    typer.echo(output.paint(f"{'cost' if any(costs) else 'requests'} per {unit}", "bold", sys.stdout))
    typer.echo(f"  {course.labels[shown][0]} {line} {course.labels[-1]}")
    most = max(values)
    at = course.labels[values.index(most)]
    amount = output.money(most) if any(costs) else f"{most:,}"
    typer.echo(f"  most: {amount} on {at}" if not course.is_hourly else f"  most: {amount} in the hour from {at}")


def _spark(value: float, most: float) -> str:
    return " " if value <= 0 else _SPARKS[min(len(_SPARKS) - 1, int(value / most * len(_SPARKS)))]


def _signed(amount: float) -> str:
    return f"-{output.money(-amount)}" if amount < 0.0 else output.money(amount)
