"""The demonstration's report as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

In: a `Report`. Out: HTML with inline SVG, in the colours that the reader's system prefers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tinydancer.demo import Report, Totals
from tinydancer.pages import document, label, places_of_labels, scrolled_table

STYLE = """
tr.group th { background: color-mix(in srgb, var(--soft) 35%, transparent); font-size: .78rem; letter-spacing: .04em;
  text-transform: uppercase; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
.why { border: 1px solid var(--line); border-radius: .5rem; background: var(--card); padding: .8rem 1rem; }
.panel h3 { margin: 0 0 .4rem; font-size: .95rem; }
.why { margin: .75rem 0; } .why p { max-width: none; } .why ul { margin: .4rem 0 0; padding-left: 1.2rem; }
"""


def page(report: Report) -> str:
    """The whole page."""
    cheap, baseline = next(way for way in report.objectives if way.label == "cost"), report.singles[0]
    compared, count = len(report.positions), len(report.requests)
    elsewhere = ", ".join(f"{name} ({n})" for name, n in report.elsewhere().items())
    rents = ", ".join(f"{name}, ${rent:,.2f} a month" for name, rent in report.monthly_fixed_usd.items())
    body = f"""
<h1>{count} requests, {len(report.agents.configs)} agents, {len(report.objectives)} objectives</h1>
<p>Every request was routed under each objective. Over the {compared} requests that {escape(report.best)} has the skills
for, objective <b>cost</b> is estimated at ${cheap.cost_usd:.4f} with an expected quality of {cheap.mean_quality:.3f},
against ${baseline.cost_usd:.4f} and {baseline.mean_quality:.3f} for sending all of them to {escape(report.best)}, the
language model with the highest stated quality.</p>
<p class="faint">{escape(report.basis)}</p>

<h2>What it comes to</h2>
{_totals(report)}
<p class="faint small">“Too late” counts requests whose time limit the chosen agent would miss. The other
{count - compared} requests go to {escape(elsewhere)} under every objective and are in no total. Paid either
way, and in no total: {escape(rents)}. {escape(report.agents.prices)} {escape(report.agents.stated)}</p>

<h2>Hard requests and easy ones</h2>
{_by_difficulty(report)}
<p class="faint small">Under objective cost, which takes the cheapest agent whose expected quality is at least
{report.good_enough:.0%} of the best to be had for the request. Of the requests that every language model has the skills
for; hard is what a low quality is expected of, over all of them.</p>

<h2>Cost against expected quality</h2>
{_scatter((*report.objectives, report.looser), report.singles)}
<p class="faint small">Filled: an objective. Open: one agent for everything. USD per 1,000 requests of this mix, on a
logarithmic scale; further left and further up is better.</p>

<h2>Where they went</h2>
<div class="panels">
{"".join(_panel(way) for way in report.objectives)}
</div>

<h2>Why</h2>
{_reasons(report)}

<h2>Every request</h2>
{_choices(report)}
<p class="faint small">Median time from text to recorded decision in this run: {report.median_us:,.0f} µs.</p>
"""
    return document("Tiny Dancer: the demonstration", body, STYLE)


def _words(objective: str) -> str:
    return objective.replace("_", " ")


def _totals(report: Report) -> str:
    heads = ("cost, USD", "expected quality", "mean latency", "too late", "saved, USD per 1,000", "saved")
    head = "".join(f'<th class="number">{h}</th>' for h in heads)
    rows = [_totals_row(_words(way.label), way, "") for way in report.objectives]
    rows.append(_totals_row(report.looser.label, report.looser, ""))
    for way in report.singles:
        mark = " (the best)" if way.label == report.best else ""
        rows.append(_totals_row(f"all to {way.label}{mark}", way, ' class="single"'))
    return scrolled_table(f"<th></th>{head}", rows)


def _by_difficulty(report: Report) -> str:
    head = '<th class="number">quality expected of all models</th><th>who gets them</th>'
    head += '<th class="number">USD per 1,000</th><th class="number">saved</th>'
    rows = []
    for part in report.parts:
        agents = ", ".join(f"{count}×{name}" for name, count in part.way.agents.items())
        cells = (f"{part.way.cost_usd / part.way.requests * 1000.0:,.2f}", f"{part.way.saved_share:.1%}")
        rows.append(
            f'<tr><td class="name">{part.way.label} ({part.way.requests})</td>'
            f'<td class="number">{part.expected_quality:.2f}</td><td>{escape(agents)}</td>'
            + "".join(f'<td class="number">{cell}</td>' for cell in cells) + "</tr>"
        )  # fmt: skip
    return scrolled_table(f"<th></th>{head}", rows)


def _totals_row(label: str, way: Totals, kind: str) -> str:
    tone = "" if way.saved_share == 0.0 else (" good" if way.saved_share > 0.0 else " bad")
    cells = (
        f"{way.cost_usd:.4f}", f"{way.mean_quality:.3f}", f"{way.mean_latency_ms / 1000.0:.1f} s", f"{way.late}",
        f"{way.saved_usd_per_1000:,.2f}",
    )  # fmt: skip
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    share = f'<td class="number{tone}">{way.saved_share:.1%}</td>'
    return f'<tr{kind}><td class="name">{escape(label)}</td>{numbers}{share}</tr>'


def _scatter(objectives: Sequence[Totals], singles: Sequence[Totals]) -> str:
    """Points at (cost per 1,000 requests on a log scale, mean expected quality), each with its name beside it."""
    width, height, left, right, top, bottom = 960.0, 380.0, 64.0, 110.0, 20.0, 46.0
    ways = [*objectives, *singles]
    costs = [max(way.cost_usd / way.requests * 1000.0, 1e-3) for way in ways]
    low, high = math.floor(math.log10(min(costs) / 3.0)), math.ceil(math.log10(max(costs)))
    floor = math.floor(min(way.mean_quality for way in ways) * 20.0) / 20.0
    ceiling = math.ceil(max(way.mean_quality for way in ways) * 20.0) / 20.0

    def x_of(cost: float) -> float:
        return left + (math.log10(cost) - low) / max(high - low, 1) * (width - left - right)

    def y_of(quality: float) -> float:
        return top + (ceiling - quality) / max(ceiling - floor, 0.05) * (height - top - bottom)

    shapes = []
    for power in range(low, high + 1):
        x = x_of(10.0**power)
        low_y = height - bottom
        shapes.append(f'<line class="axis" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{low_y}"/>')
        shapes.append(f'<text class="faint" x="{x:.1f}" y="{low_y + 20}" text-anchor="middle">${10.0**power:g}</text>')
    for step in range(round(floor * 20), round(ceiling * 20) + 1):
        y = y_of(step / 20.0)
        shapes.append(f'<line class="axis" x1="{left}" y1="{y:.1f}" x2="{width - right}" y2="{y:.1f}"/>')
        shapes.append(f'<text class="faint" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{step / 20.0:.2f}</text>')
    points = [(x_of(cost), y_of(way.mean_quality)) for way, cost in zip(ways, costs, strict=True)]
    names = [_words(way.label) for way in objectives] + [f"all to {way.label}" for way in singles]
    for number, ((x, y), name, place) in enumerate(zip(points, names, places_of_labels(points), strict=True)):
        kind = "dot" if number < len(objectives) else "ring"
        shapes.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="6"/>{label(name, place)}')
    middle = (left + width - right) / 2.0
    unit = "USD per 1,000 requests"
    shapes.append(f'<text class="faint" x="{middle}" y="{height - 6}" text-anchor="middle">{unit}</text>')
    view = f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{unit} against mean expected quality"'
    return f'<div class="panel"><svg {view}>{"".join(shapes)}</svg></div>'


def _panel(way: Totals) -> str:
    most = max(way.agents.values())
    height = 24 * len(way.agents)
    rows = []
    for number, (name, count) in enumerate(way.agents.items()):
        y = 24 * number
        bar = 110.0 * count / most
        rows.append(
            f'<text x="0" y="{y + 16}">{escape(name)}</text>'
            f'<rect class="bar" x="160" y="{y + 5}" width="{bar:.1f}" height="14" rx="2"/>'
            f'<text x="{160 + bar + 6:.1f}" y="{y + 16}">{count}</text>'
        )
    label = f"Requests per agent under {_words(way.label)}"
    return (
        f'<div class="panel"><h3>{_words(way.label)}</h3>'
        f'<svg viewBox="0 0 300 {height}" role="img" aria-label="{label}">{"".join(rows)}</svg></div>'
    )


def _reasons(report: Report) -> str:
    blocks = []
    for i, request in enumerate(report.requests):
        if request.explain is None:
            continue
        row = report.decisions[request.explain][i]
        others = "".join(
            f"<li><b>{escape(a['agent_name'])}</b>: {escape(a['reason'])}.</li>" for a in row["alternatives"]
        )
        blocks.append(
            f'<div class="why"><p><b>“{escape(request.shortened(160))}”</b></p>'
            f"<p>{_words(request.explain)}: {escape(row['reasoning'])}</p>"
            f'<ul class="faint small">{others}</ul></div>'
        )
    return "".join(blocks)


def _choices(report: Report) -> str:
    head = "".join(f"<th>{_words(objective)}</th>" for objective in report.decisions)
    rows, category = [], ""
    for i, request in enumerate(report.requests):
        if request.category != category:
            category = request.category
            rows.append(f'<tr class="group"><th colspan="{len(report.decisions) + 1}">{escape(category)}</th></tr>')
        names = "".join(f'<td class="name">{escape(d[i]["agent_name"])}</td>' for d in report.decisions.values())
        rows.append(f"<tr><td>{escape(request.shortened(120))}</td>{names}</tr>")
    return scrolled_table(f"<th>request</th>{head}", rows)
