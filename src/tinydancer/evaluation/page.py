"""An evaluation as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

In: an `Evaluation` and its plots. Out: HTML with the pictures inside, in the colours that the reader's system prefers.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from tinydancer.evaluation.plots import MISSING
from tinydancer.evaluation.results import Evaluation, Way
from tinydancer.evaluation.wording import COLUMNS, LABELS, MEANINGS, figure, with_band
from tinydancer.pages import document, scrolled_table

__all__ = ["page"]

STYLE = """
li { max-width: 46rem; }
tr.model td { background: color-mix(in srgb, var(--soft) 40%, transparent); font-weight: 600; }
ul.warnings { border-left: 3px solid var(--bad); margin: 1rem 0; padding: .25rem 0 .25rem 1.75rem; }
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
    body = f"""
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
"""
    return document(f"Tiny Dancer: evaluation of {who}", body, STYLE)


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
    return scrolled_table(f"<th></th>{head}", rows)


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
    return f"<h2>The model minus each baseline</h2>{scrolled_table(f'<th></th>{head}', rows)}"


def _figure(name: str, png: bytes) -> str:
    caption = escape(_CAPTIONS[name])
    data = base64.b64encode(png).decode("ascii")
    image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
    return f'<figure>{image}</figure><p class="faint small">{caption}</p>'


def _meanings(evaluation: Evaluation) -> str:
    shown = _columns(evaluation)
    return f"<dl>{''.join(f'<dt>{escape(LABELS[n])}</dt><dd>{escape(MEANINGS[n])}</dd>' for n in shown)}</dl>"
