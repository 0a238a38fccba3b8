"""The traffic as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

In: analytics by a grouping and by agent, and a trend. Out: HTML with inline SVG, in the colours that the reader's
system prefers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from html import escape
from zoneinfo import ZoneInfo

from tinydancer.analytics import Analytics, Trend
from tinydancer.pages import document, label, places_of_labels, scrolled_table
from tinydancer.policy.analytics import Savings, TrafficRow
from tinydancer.policy.wording import milliseconds, plural, usd

__all__ = ["NONE", "page"]

NONE = "(none)"
"""The heading of outcomes without a route, a task or an objective."""
COLORS = 7
"""Agents that a chart tells apart; the others are one."""
STYLE = """
:root { --c0: #2b6cb0; --c1: #c2703d; --c2: #3f8f6b; --c3: #8a5fb0; --c4: #b09a2e; --c5: #b0486a; --c6: #4a9fb0;
  --c7: #8b8f99; }
@media (prefers-color-scheme: dark) { :root { --c0: #6fa8e8; --c1: #e39a6b; --c2: #6cc39b; --c3: #b795dc; --c4: #d6c258;
  --c5: #e0809f; --c6: #7fcadb; --c7: #888d99; } }
.big { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1rem; margin: 1.5rem 0; }
.big div { border: 1px solid var(--line); border-radius: .5rem; background: var(--card); padding: .7rem 1rem; }
.big b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .6rem 0 0; padding: 0; list-style: none;
  font-size: .85rem; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: .15em; margin-right: .45em; }
svg .band { stroke: var(--soft); stroke-width: 9; stroke-linecap: round; }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; fill: none; }
svg .paid { fill: var(--soft); }
"""
_WIDTH = 960.0
_ROW = 30.0
_NAMES = 190.0
"""Room for the names at the left of a chart of rows."""


def page(chosen: Analytics, agents: Analytics, course: Trend) -> str:
    """The whole page: the rows of `chosen`, the charts from the agents' rows and from the trend."""
    zone = ZoneInfo(chosen.time_zone)
    begin, end = (datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d %H:%M") for at in (chosen.begin, chosen.end))
    note = f'<p class="bad">{escape(chosen.note)}</p>' if chosen.note else ""
    parts = [
        f"<h1>{plural(chosen.totals.total_requests, 'request')}, {begin} to {end}</h1>",
        f'<p class="faint">Times are those of {escape(chosen.time_zone)}. Costs are as reported, or else as estimated '
        f"when it was decided. Percentiles of latencies are within 3%.</p>{note}",
        _figures(chosen.totals),
        f"<h2>Cost per {'hour' if course.is_hourly else 'day'}, by agent</h2>{_course(course)}",
        f"<h2>Latency by agent</h2>{_latencies(agents.rows)}",
        f"<h2>Quality against cost</h2>{_scatter(agents.rows)}",
        _savings(chosen),
        f"<h2>By {chosen.group_by}</h2>{_table(chosen)}",
    ]
    return document("Tiny Dancer: the traffic", "\n".join(part for part in parts if part), STYLE)


def _figures(totals: TrafficRow) -> str:
    shown = [
        ("requests", f"{totals.total_requests:,}"), ("cost", _usd(totals.total_cost)),
        ("per request", _usd(totals.avg_cost)), ("went well", _share(totals.success_rate)),
        ("quality", _quality(totals.quality)), ("P95 latency", _ms(totals.p95_latency_ms)),
    ]  # fmt: skip
    if totals.savings is not None and totals.savings.saved is not None:
        shown.append(("saved", _signed_usd(totals.savings.saved)))
    cells = "".join(f'<div><b>{value}</b><span class="faint small">{name}</span></div>' for name, value in shown)
    return f'<div class="big">{cells}</div>'


def _course(course: Trend) -> str:
    """Stacked bars, one per period."""
    names = list(course.cost_usd)
    shown, rest = names[:COLORS], names[COLORS:]
    series = [(name, course.cost_usd[name], f"var(--c{i})") for i, name in enumerate(shown)]
    if rest:
        others = [sum(costs) for costs in zip(*(course.cost_usd[name] for name in rest), strict=True)]
        series.append((f"{len(rest)} others", others, "var(--c7)"))
    count = len(course.labels)
    sums = [sum(costs[i] for _, costs, _ in series) for i in range(count)]
    most = max(sums, default=0.0)
    if most <= 0.0:
        return '<p class="faint">No cost is known.</p>'
    left, right, top, height, base = 70.0, 30.0, 12.0, 300.0, 262.0
    step = _step(most)
    scale = (base - top) / (math.ceil(most / step) * step)
    shapes = []
    for i in range(math.ceil(most / step) + 1):
        y = base - i * step * scale
        shapes.append(f'<line class="axis" x1="{left}" y1="{y:.1f}" x2="{_WIDTH - right}" y2="{y:.1f}"/>')
        shapes.append(f'<text class="faint" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{usd(i * step)}</text>')
    room = (_WIDTH - left - right) / count
    bar, every = min(room * 0.8, 60.0), max(1, math.ceil(count / 10))
    for i, name in enumerate(course.labels):
        x, y = left + room * i + (room - bar) / 2.0, base
        for agent, costs, color in series:
            if (tall := costs[i] * scale) > 0.0:
                y -= tall
                title = f"<title>{escape(agent)}, {escape(name)}: {usd(costs[i])}</title>"
                shapes.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{tall:.2f}" style="fill:{color}">'
                    f"{title}</rect>"
                )
        if i % every == 0:
            text = name[5:16] if course.is_hourly else name[5:]
            shapes.append(
                f'<text class="faint" x="{x + bar / 2:.1f}" y="{base + 20}" text-anchor="middle">{text}</text>'
            )
    items = "".join(f'<li><i style="background:{color}"></i>{escape(name)}</li>' for name, _, color in series)
    return f'{_svg(height, "Cost by period and agent", shapes)}<ul class="legend">{items}</ul>'


def _latencies(rows: Sequence[TrafficRow]) -> str:
    """One row per agent: P50 as a point, from there to P95 a band, P99 as a ring, on a logarithmic scale."""
    known = [
        (row.group or NONE, row.p50_latency_ms, row.p95_latency_ms, row.p99_latency_ms)
        for row in rows
        if row.p50_latency_ms and row.p95_latency_ms and row.p99_latency_ms
    ]
    if not known:
        return '<p class="faint">No latency was reported.</p>'
    low = math.floor(math.log10(min(p50 for _, p50, _, _ in known)))
    high = max(low + 1, math.ceil(math.log10(max(p99 or 1.0 for _, _, _, p99 in known))))
    right, height = _WIDTH - 90.0, _ROW * len(known) + 40.0

    def x_of(ms: float) -> float:
        return _NAMES + (math.log10(ms) - low) / (high - low) * (right - _NAMES)

    shapes = []
    for power in range(low, high + 1):
        x = x_of(10.0**power)
        shapes.append(f'<line class="axis" x1="{x:.1f}" y1="8" x2="{x:.1f}" y2="{height - 28}"/>')
        shapes.append(f'<text class="faint" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{_tick(power)}</text>')
    for i, (name, p50, p95, p99) in enumerate(known):
        y = _ROW * i + 26.0
        shapes.append(f'<text x="{_NAMES - 14}" y="{y + 4}" text-anchor="end">{escape(_short(name))}</text>')
        shapes.append(f'<line class="band" x1="{x_of(p50):.1f}" y1="{y}" x2="{x_of(p95):.1f}" y2="{y}"/>')
        shapes.append(f'<circle class="ring" cx="{x_of(p99):.1f}" cy="{y}" r="4"/>')
        title = (
            f"<title>{escape(name)}: P50 {milliseconds(p50)}, P95 {milliseconds(p95)}, P99 {milliseconds(p99)}</title>"
        )
        shapes.append(f'<circle class="dot" cx="{x_of(p50):.1f}" cy="{y}" r="5">{title}</circle>')
        shapes.append(f'<text class="faint" x="{x_of(p99) + 10:.1f}" y="{y + 4}">{milliseconds(p99)}</text>')
    caption = '<p class="faint small">Point: P50. Band: up to P95. Ring: P99. Logarithmic scale.</p>'
    return _svg(height, "P50, P95 and P99 of the latency by agent", shapes) + caption


def _scatter(rows: Sequence[TrafficRow]) -> str:
    """Agents at (mean cost on a log scale, mean judged quality); those that are free at the left edge."""
    known = [(row.group or NONE, row.avg_cost, row.quality) for row in rows if row.avg_cost is not None]
    judged = [(name, cost, quality) for name, cost, quality in known if quality is not None]
    if not judged:
        return '<p class="faint">No answer was judged. Report qualities to see what the money buys.</p>'
    paid = [cost for _, cost, _ in judged if cost]
    low = math.floor(math.log10(min(paid))) if paid else -3
    high = max(low + 1, math.ceil(math.log10(max(paid)))) if paid else -2
    floor = math.floor(min(quality for _, _, quality in judged) * 10.0) / 10.0
    ceiling = max(floor + 0.1, math.ceil(max(quality for _, _, quality in judged) * 10.0) / 10.0)
    left, right, top, base, height = 64.0, _WIDTH - 110.0, 20.0, 300.0, 346.0
    begin = left + (100.0 if len(paid) < len(judged) else 0.0)

    def x_of(cost: float) -> float:
        return begin + (math.log10(cost) - low) / (high - low) * (right - begin) if cost else left + 20.0

    def y_of(quality: float) -> float:
        return top + (ceiling - quality) / (ceiling - floor) * (base - top)

    shapes = []
    for power in range(low, high + 1):
        x = x_of(10.0**power)
        shapes.append(f'<line class="axis" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{base}"/>')
        shapes.append(f'<text class="faint" x="{x:.1f}" y="{base + 20}" text-anchor="middle">${10.0**power:g}</text>')
    if begin > left:
        shapes.append(f'<text class="faint" x="{left + 20}" y="{base + 20}" text-anchor="middle">free</text>')
    for step in range(round(floor * 10), round(ceiling * 10) + 1):
        y = y_of(step / 10.0)
        shapes.append(f'<line class="axis" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        shapes.append(f'<text class="faint" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{step / 10.0:.1f}</text>')
    points = [(x_of(cost), y_of(quality)) for _, cost, quality in judged]
    for (name, _, _), (x, y), place in zip(judged, points, places_of_labels(points), strict=True):
        shapes.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="6"/>{label(_short(name), place)}')
    unit = "mean cost of a request, logarithmic scale; further left and further up is better"
    middle = (left + right) / 2.0
    shapes.append(f'<text class="faint" x="{middle}" y="{height - 6}" text-anchor="middle">{unit}</text>')
    return _svg(height, "Mean quality against mean cost, by agent", shapes)


def _savings(chosen: Analytics) -> str:
    """What was paid beside what the baseline would have taken, with its interval; nothing without a baseline."""
    total = chosen.totals.savings
    if chosen.baseline is None or total is None:
        return ""
    heading = f"<h2>Against always using {escape(chosen.baseline)}</h2>"
    if total.saved is None or total.baseline_cost is None:
        return f'{heading}<p class="faint">Nothing to compare: {escape(total.cost_basis)}.</p>'
    bars = [("all", total.baseline_cost - total.saved, total)]
    bars += [
        (row.group or NONE, row.savings.baseline_cost - row.savings.saved, row.savings)
        for row in chosen.rows[:20]
        if row.savings is not None and row.savings.saved is not None and row.savings.baseline_cost is not None
    ]
    most = max(max(paid, found.baseline_cost or 0.0, _highest(paid, found)) for _, paid, found in bars) or 1.0
    right, height = _WIDTH - 130.0, 44.0 * len(bars) + 8.0
    scale = (right - _NAMES) / most
    shapes = []
    for i, (name, paid, found) in enumerate(bars):
        y = 44.0 * i + 10.0
        there = (found.baseline_cost or 0.0) * scale
        shapes.append(f'<text x="{_NAMES - 14}" y="{y + 20}" text-anchor="end">{escape(_short(name))}</text>')
        shapes.append(f'<rect class="bar" x="{_NAMES}" y="{y}" width="{paid * scale:.1f}" height="13" rx="2"/>')
        shapes.append(f'<rect class="paid" x="{_NAMES}" y="{y + 16}" width="{there:.1f}" height="13" rx="2"/>')
        end = max(paid * scale, there)
        if found.saved_low is not None and found.saved_high is not None:
            low, high = (_NAMES + (paid + bound) * scale for bound in (found.saved_low, found.saved_high))
            end = max(end, high - _NAMES)
            ends = f"M{low:.1f} {y + 18.5}v8m0 -4H{high:.1f}m0 -4v8"
            shapes.append(f'<path class="whisker" d="{ends}"/>')
        text = _signed_usd(found.saved)
        shapes.append(f'<text class="faint" x="{_NAMES + end + 10:.1f}" y="{y + 19}">{text}</text>')
    caption = (
        f'<p class="faint small">Above: what was paid. Below: what {escape(chosen.baseline)} would have taken, with '
        f"its 95% interval where it is predicted from a sample. Basis: {escape(total.cost_basis)}.</p>"
    )
    return f"{heading}<p>{_sentence(total)}</p>{_svg(height, 'Paid, and at the baseline', shapes)}{caption}"


def _sentence(total: Savings) -> str:
    assert total.saved is not None
    share = "" if total.saved_share is None else f" ({abs(total.saved_share):.0%})"
    low_high = ""
    if total.saved_low is not None and total.saved_high is not None:
        low_high = f", 95% interval {_signed_usd(total.saved_low)} to {_signed_usd(total.saved_high)}"
    word, tone = ("Saved", "good") if total.saved >= 0.0 else ("Paid more", "bad")
    parts = [f'<b class="{tone}">{word}: {usd(abs(total.saved))}{share}</b>{low_high}.']
    if total.baseline_quality is not None and total.quality_change is not None:
        parts.append(f"Quality there: {total.baseline_quality:.3f}")
        if total.baseline_quality_low is not None and total.baseline_quality_high is not None:
            parts[-1] += f" (95% interval {total.baseline_quality_low:.3f} to {total.baseline_quality_high:.3f})"
        parts[-1] += f"; observed: {total.quality_change:+.3f} against it."
    return " ".join(parts)


def _table(chosen: Analytics) -> str:
    heads = ["requests", "cost", "per request", "P50", "P95", "P99", "went well", "quality", "judged"]
    if chosen.baseline is not None:
        heads += ["saved", "quality against"]
    head = "".join(f'<th class="number">{name}</th>' for name in heads)
    rows = [_row(row, "") for row in chosen.rows]
    if len(rows) > 1:
        rows.append(_row(chosen.totals, ' class="single"', "all"))
    return scrolled_table(f"<th>{chosen.group_by}</th>{head}", rows)


def _row(row: TrafficRow, kind: str, name: str | None = None) -> str:
    cells = [
        f"{row.total_requests:,}", _usd(row.total_cost), _usd(row.avg_cost), _ms(row.p50_latency_ms),
        _ms(row.p95_latency_ms), _ms(row.p99_latency_ms), _share(row.success_rate), _quality(row.quality),
        f"{row.judged:,}",
    ]  # fmt: skip
    if row.savings is not None:
        found = row.savings
        change = "" if found.quality_change is None else f"{found.quality_change:+.3f}"
        money, better = _signed_usd(found.saved), change
        if found.saved_low is not None and found.saved_high is not None:
            money += _band(f"{_signed_usd(found.saved_low)} to {_signed_usd(found.saved_high)}")
        if found.quality_change_low is not None and found.quality_change_high is not None:
            better += _band(f"{found.quality_change_low:+.3f} to {found.quality_change_high:+.3f}")
        cells += [money, better]
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f'<tr{kind}><td class="name">{escape(name or row.group or NONE)}</td>{numbers}</tr>'


def _band(text: str) -> str:
    return f'<span class="band">{text}</span>'


def _highest(paid: float, found: Savings) -> float:
    return paid + (found.saved_high or 0.0)


def _svg(height: float, name: str, shapes: Sequence[str]) -> str:
    view = f'viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{escape(name)}"'
    return f'<div class="panel"><svg {view}>{"".join(shapes)}</svg></div>'


def _step(most: float) -> float:
    """A round distance for three to six lines up to `most`."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(power * step for step in (0.2, 0.25, 0.5, 1.0, 2.0, 2.5) if most / (power * step) <= 5.0)


def _tick(power: int) -> str:
    return f"{10.0**power:g} ms" if power < 3 else f"{10.0 ** (power - 3):g} s"


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _usd(amount: float | None) -> str:
    return "" if amount is None else usd(amount)


def _signed_usd(amount: float | None) -> str:
    if amount is None:
        return ""
    return f"\N{MINUS SIGN}{usd(-amount)}" if amount < 0.0 else usd(amount)


def _ms(amount: float | None) -> str:
    return "" if amount is None else milliseconds(amount)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _quality(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
