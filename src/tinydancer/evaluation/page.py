"""An evaluation as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

In: an `Evaluation` and its plots. Out: HTML with the pictures inside, in the colours that the reader's system prefers.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from tinydancer.evaluation.plots import MISSING
from tinydancer.evaluation.results import Evaluation, Way
from tinydancer.evaluation.wording import COLUMNS, LABELS, MEANINGS, figure, with_band

__all__ = ["page"]

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #22252b; --faint: #6d7280; --line: #dedbd2; --card: #ffffff;
  --mark: #2b6cb0; --soft: #c9d8ea; --warn: #b3402e; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181d; --ink: #e6e4df; --faint: #9aa0ad; --line: #31353e;
  --card: #1e2128; --mark: #7fb2ec; --soft: #2f435c; --warn: #f08a75; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; }
p, li { max-width: 46rem; } p { margin: .5rem 0; }
.faint { color: var(--faint); } .small { font-size: .85rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .86rem; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--faint); font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.number .band { display: block; color: var(--faint); font-size: .75rem; }
td.name { white-space: nowrap; }
tr.model td { background: color-mix(in srgb, var(--soft) 40%, transparent); font-weight: 600; }
tr.single td { color: var(--faint); }
ul.warnings { border-left: 3px solid var(--warn); margin: 1rem 0; padding: .25rem 0 .25rem 1.75rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.25rem; max-width: 56rem; font-size: .9rem; }
dt { font-weight: 600; } dd { margin: 0; color: var(--faint); }
figure { margin: 0; border: 1px solid var(--line); border-radius: .5rem; background: #ffffff; padding: .8rem; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
"""
_CAPTIONS = {
    "quality.png": "Quality of what is chosen when quality alone counts; bars are 95% bootstrap bands.",
    "quality-against-cost.png": (
        "The best quality within each budget. Circles: always the same agent. Shaded: 95% bootstrap bands. The oracle "
        "knows every answer before asking."
    ),
    "quality-against-strong-share.png": "Quality as more requests go to the strong agent. Shaded: 95% bootstrap bands.",
    "calibration.png": "On the dashed line predictions mean what they say.",
}


def page(evaluation: Evaluation, pictures: Mapping[str, bytes]) -> str:
    """The whole page; `pictures` as `tinydancer.evaluation.plots.draw` gives them."""
    who = evaluation.model_name or "the baselines"
    plots = "".join(_figure(name, png) for name, png in pictures.items()) or f"<p>{escape(MISSING)}</p>"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tiny Dancer: evaluation of {escape(who)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(who[0].upper() + who[1:])} on {evaluation.requests:,} requests, {len(evaluation.agents)} agents</h1>
{_summary(evaluation)}
{_warnings(evaluation.warnings)}

<h2>Figures</h2>
{_table(evaluation)}
<p class="faint small">Below each figure: its 95% interval over {evaluation.resamples:,} bootstrap resamples of the
requests (seed {evaluation.seed}). Baselines were trained
{escape(evaluation.baselines_trained_on)}.</p>
{_ahead(evaluation)}

<h2>Plots</h2>
{plots}

<h2>What they mean</h2>
{_meanings(evaluation)}
</body>
</html>
"""


def _summary(evaluation: Evaluation) -> str:
    lines = [
        f"Always using {escape(evaluation.best_single)}, the best single agent here, gives quality "
        f"{evaluation.best_single_quality:.3f}; an oracle that knows every answer reaches "
        f"{evaluation.oracle_quality:.3f}."
    ]
    model = evaluation.model
    if model is not None:
        if model.values["routed_quality"] is not None:
            lines.append(f"The model reaches {model.values['routed_quality']:.3f} when quality alone counts.")
        cost = model.values["relative_cost_at_95"]
        if cost is not None:
            lines.append(f"It reaches 95% of the best agent's quality at {cost:.0%} of its cost.")
        if model.values["apgr"] is not None and evaluation.pair is not None:
            weak, strong = map(escape, evaluation.pair)
            lines.append(f"Between {weak} and {strong} its APGR is {model.values['apgr']:.3f} (chance: 0.5).")
    facts = []
    if evaluation.model_sha256:
        facts.append(f"Weights: {escape(evaluation.model_name or '')}, SHA-256 {escape(evaluation.model_sha256)}.")
    if evaluation.text_to_decision_us_p50 is not None:
        facts.append(f"Median time from text to decision: {evaluation.text_to_decision_us_p50:,.0f} µs.")
    faint = f'<p class="faint small">{" ".join(facts)}</p>' if facts else ""
    return f"<p>{' '.join(lines)}</p>{faint}"


def _warnings(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<ul class="warnings">{items}</ul>' if items else ""


def _columns(evaluation: Evaluation) -> list[str]:
    return [name for name in COLUMNS if any(way.values.get(name) is not None for way in evaluation.ways)]


def _table(evaluation: Evaluation) -> str:
    columns = _columns(evaluation)
    head = "".join(f'<th class="number">{escape(LABELS[name])}</th>' for name in columns)
    rows = (_row(way, columns) for way in evaluation.ways)
    return _scrolled(f"<th></th>{head}", rows)


def _row(way: Way, columns: Sequence[str]) -> str:
    cells = []
    for name in columns:
        value, band = with_band(name, way)
        below = f'<span class="band">{escape(band)}</span>' if band else ""
        cells.append(f'<td class="number">{escape(value)}{below}</td>')
    return f'<tr class="{way.kind}"><td class="name">{escape(way.name)}</td>{"".join(cells)}</tr>'


def _ahead(evaluation: Evaluation) -> str:
    """How far the model is ahead of each baseline, with the bands of the difference."""
    baselines = [way for way in evaluation.ways if way.kind == "baseline" and way.ahead]
    names = [name for name in _columns(evaluation) if any(name in way.ahead for way in baselines)]
    if not names:
        return ""
    head = "".join(f'<th class="number">{escape(LABELS[name])}</th>' for name in names)
    rows = []
    for way in baselines:
        cells = []
        for name in names:
            if name in way.ahead:
                value, low, high = (figure(name, number, signed=True) for number in way.ahead[name])
                cells.append(f'<td class="number">{value}<span class="band">{low} to {high}</span></td>')
            else:
                cells.append('<td class="number">–</td>')
        rows.append(f'<tr><td class="name">{escape(way.name)}</td>{"".join(cells)}</tr>')
    return f"<h2>The model minus each baseline</h2>{_scrolled(f'<th></th>{head}', rows)}"


def _scrolled(head: str, rows: Iterable[str]) -> str:
    body = "".join(rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(name: str, png: bytes) -> str:
    caption = escape(_CAPTIONS[name])
    data = base64.b64encode(png).decode("ascii")
    image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
    return f'<figure>{image}</figure><p class="faint small">{caption}</p>'


def _meanings(evaluation: Evaluation) -> str:
    shown = _columns(evaluation)
    return f"<dl>{''.join(f'<dt>{escape(LABELS[n])}</dt><dd>{escape(MEANINGS[n])}</dd>' for n in shown)}</dl>"
