"""What the measures are called, how their numbers are written, and what they mean, the same wherever they are shown.

In: names and values. Out: text.
"""

from __future__ import annotations

from tinydancer.evaluation.results import MEASURES, Way

__all__ = ["COLUMNS", "LABELS", "MEANINGS", "figure", "with_band"]

LABELS = {
    "apgr": "APGR",
    "cpt50": "CPT50",
    "cpt80": "CPT80",
    "cpt95": "CPT95",
    "relative_cost_at_90": "cost at 90%",
    "relative_cost_at_95": "cost at 95%",
    "relative_cost_at_98": "cost at 98%",
    "relative_cost_at_100": "cost at 100%",
    "area": "area",
    "routed_quality": "quality",
    "routed_relative_cost": "cost",
    "ece": "ECE",
    "brier": "Brier",
    "coverage": "coverage",
}
COLUMNS = tuple(sorted(MEASURES, key=lambda name: name not in ("routed_quality", "routed_relative_cost")))
"""The measures in the order of a table: what is chosen when quality alone counts first."""
MEANINGS = {
    "apgr": "Mean share of the gap between the weak and the strong agent that is recovered, over all shares of calls "
    "to the strong one. 0.5 is chance.",
    "cpt50": "Share of calls to the strong agent that recovers 50% of the gap.",
    "cpt80": "Share of calls to the strong agent that recovers 80% of the gap.",
    "cpt95": "Share of calls to the strong agent that recovers 95% of the gap.",
    **{
        f"relative_cost_at_{x}": f"Least cost at which {x}% of the best single agent's quality is reached, as a share "
        "of always using that agent; 100% is using it."
        for x in (90, 95, 98, 100)
    },
    "area": "Best quality within a budget, as a share of the best single agent's, averaged over budgets from the "
    "cheapest agent's cost to the best one's.",
    "routed_quality": "Mean observed quality when each request goes to the agent with the highest predicted quality.",
    "routed_relative_cost": "What that costs, as a share of always using the best single agent.",
    "ece": "Expected calibration error: mean distance between predicted and observed quality, over 15 bins of equal "
    "mass.",
    "brier": "Mean squared distance between predicted and observed quality.",
    "coverage": "Share of outcomes that lie in the model's interval for them.",
}
_PERCENT = frozenset(name for name in MEASURES if name.startswith("cpt") or "cost" in name or name == "coverage")


def figure(measure: str, value: float | None, *, signed: bool = False) -> str:
    """``0.654`` or ``32.6%``; a dash where the measure does not apply."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    if measure in _PERCENT:
        return f"{100.0 * value:{sign}.1f}%"
    return f"{value:{sign}.3f}"


def with_band(measure: str, way: Way) -> tuple[str, str]:
    """A way's figure and its interval as text; the interval is empty where there is none or it is a point."""
    value, band = way.values.get(measure), way.bands.get(measure)
    if value is None or band is None or band[0] == band[1]:
        return figure(measure, value), ""
    return figure(measure, value), f"{figure(measure, band[0])} to {figure(measure, band[1])}"
