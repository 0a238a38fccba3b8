"""Self-contained HTML pages: what the pages of the demonstration, the evaluation and the traffic have in common.

In: the parts of a page as HTML. Out: a document that needs nothing else: no script, no font, no picture from anywhere,
in the colours that the reader's system prefers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Place", "document", "label", "places_of_labels", "scrolled_table"]

REACH, GAP = 150.0, 16.0
"""Room that a label of a chart takes, in its units: across and down."""
STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #22252b; --faint: #6d7280; --line: #dedbd2; --card: #ffffff;
  --mark: #2b6cb0; --soft: #c9d8ea; --good: #1f7a4d; --bad: #b3402e; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181d; --ink: #e6e4df; --faint: #9aa0ad; --line: #31353e;
  --card: #1e2128; --mark: #7fb2ec; --soft: #2f435c; --good: #6fcf97; --bad: #f08a75; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; }
p { max-width: 46rem; margin: .5rem 0; }
.faint { color: var(--faint); }
.small { font-size: .85rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .86rem; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--faint); font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.number .band { display: block; color: var(--faint); font-size: .75rem; }
td.name { white-space: nowrap; }
tr.single td { color: var(--faint); }
.panel { border: 1px solid var(--line); border-radius: .5rem; background: var(--card); padding: .8rem 1rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; } svg text.faint { fill: var(--faint); }
svg .axis { stroke: var(--line); } svg .dot { fill: var(--mark); } svg .bar { fill: var(--mark); }
svg .ring { fill: var(--card); stroke: var(--faint); stroke-width: 1.5; }
"""


def document(title: str, body: str, style: str = "") -> str:
    """The whole page: a title as plain text, what it shows as HTML, and more rules of style."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}{style.lstrip()}</style>
</head>
<body>
{body.strip()}
</body>
</html>
"""


def scrolled_table(head: str, rows: Iterable[str]) -> str:
    """A table of the cells of its head and of whole rows, all HTML; it scrolls where the page is narrow."""
    body = "".join(rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


class Place(NamedTuple):
    """Where the text beside a point of a chart stands; `anchor` is SVG's ``start`` or ``end``."""

    x: float
    y: float
    anchor: str


def places_of_labels(points: Sequence[tuple[float, float]]) -> list[Place]:
    """Beside the points (x, y): on the right, on the left where another point is in the way, and never overlapping."""
    leftward = [_has_neighbour(points, i) for i in range(len(points))]
    sides = [x - REACH if is_left else x for (x, _), is_left in zip(points, leftward, strict=True)]
    heights = _apart([y for _, y in points], sides)
    return [
        Place(x - 11.0, height, "end") if is_left else Place(x + 11.0, height, "start")
        for (x, _), is_left, height in zip(points, leftward, heights, strict=True)
    ]


def label(text: str, place: Place) -> str:
    """The SVG of one."""
    return f'<text x="{place.x:.1f}" y="{place.y + 4:.1f}" text-anchor="{place.anchor}">{escape(text)}</text>'


def _has_neighbour(points: Sequence[tuple[float, float]], i: int) -> bool:
    """Whether another point lies where the label to the right of point i would."""
    x, y = points[i]
    return any(0.0 < other_x - x < REACH and abs(other_y - y) < GAP for other_x, other_y in points)


def _apart(wanted: Sequence[float], starts: Sequence[float]) -> list[float]:
    """Heights for labels near the wanted ones, at least `GAP` from labels that begin within `REACH` to the side."""
    placed: dict[int, float] = {}
    for i in sorted(range(len(wanted)), key=lambda i: (wanted[i], starts[i])):
        y = wanted[i]
        for j in sorted(placed, key=lambda j: placed[j]):
            if abs(starts[i] - starts[j]) < REACH and abs(y - placed[j]) < GAP:
                y = placed[j] + GAP
        placed[i] = y
    return [placed[i] for i in range(len(wanted))]
