"""The plots of an evaluation as PNG, drawn by matplotlib where it is installed (extra ``eval``).

In: an `Evaluation`. Out: pictures as bytes, by the name their file has. The same result gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tinydancer.evaluation.results import Curve, Evaluation, Way

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MISSING", "can_draw", "draw"]

MISSING = "There are no plots: matplotlib is not installed. Install it with: pip install 'tiny-dancer[eval]'"
_INK, _FAINT, _LINE, _PAPER, _MARK = "#22252b", "#6d7280", "#dedbd2", "#ffffff", "#2b6cb0"
_COLORS = {"logistic regression": "#b3402e", "nearest neighbours": "#1f7a4d", "per-task mean": "#b7791f"}
_STYLE: dict[str, Any] = {
    "font.size": 9.5, "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _LINE, "xtick.color": _FAINT,
    "ytick.color": _FAINT, "axes.grid": True, "grid.color": _LINE, "grid.linewidth": 0.6, "axes.spines.top": False,
    "axes.spines.right": False, "figure.facecolor": _PAPER, "axes.facecolor": _PAPER, "legend.frameon": False,
}  # fmt: skip


def can_draw() -> bool:
    """Whether matplotlib is there."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw(evaluation: Evaluation) -> dict[str, bytes]:
    """Every plot that applies: file name to PNG; nothing without matplotlib."""
    if not can_draw():
        return {}
    pictures = {"quality.png": _picture(lambda axes: _quality(axes, evaluation), height=_height(evaluation))}
    if any(way.cost_curve for way in evaluation.ways):
        pictures["quality-against-cost.png"] = _picture(lambda axes: _against_cost(axes, evaluation))
    if any(way.pair_curve for way in evaluation.ways):
        pictures["quality-against-strong-share.png"] = _picture(lambda axes: _against_share(axes, evaluation))
    if any(way.reliability for way in evaluation.ways):
        pictures["calibration.png"] = _picture(lambda axes: _reliability(axes, evaluation), width=5.4, height=5.0)
    return pictures


def _picture(paint: Callable[[Axes], None], *, width: float = 8.2, height: float = 4.8) -> bytes:
    # Neither pyplot nor its global list of figures: this also runs in servers and threads.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The machine's own settings stay outside.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        cast("Any", matplotlib.rcParams).update(_STYLE)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure.subplots())
        page = io.BytesIO()
        figure.savefig(page, format="png", dpi=144, metadata={"Software": None})
    return page.getvalue()


def _line_of(way: Way) -> dict[str, Any]:
    if way.kind == "model":
        return {"color": _MARK, "linewidth": 2.2, "zorder": 5}
    if way.kind == "oracle":
        return {"color": _FAINT, "linewidth": 1.2, "linestyle": ":"}
    return {"color": _COLORS.get(way.name, _FAINT), "linewidth": 1.3, "alpha": 0.9}


def _curve(axes: Axes, way: Way, curve: Curve, **more: Any) -> None:
    line = _line_of(way)
    axes.plot(curve.at, curve.quality, label=way.name, **line, **more)
    if way.kind == "model" or way.name == "logistic regression":
        axes.fill_between(curve.at, curve.low, curve.high, color=line["color"], alpha=0.13, linewidth=0)


def _against_cost(axes: Axes, evaluation: Evaluation) -> None:
    for way in evaluation.ways:
        if way.cost_curve is not None:
            # Between two operating points the better one within the budget counts: a staircase.
            _curve(axes, way, way.cost_curve, drawstyle="steps-post")
    singles = {way.name: way for way in evaluation.ways if way.kind == "single"}
    for name, way in singles.items():
        cost, quality = way.values["routed_relative_cost"], way.values["routed_quality"]
        if cost and quality is not None:
            axes.plot([cost], [quality], "o", markersize=5, markerfacecolor=_PAPER, markeredgecolor=_FAINT, zorder=4)
            axes.annotate(
                name.removeprefix("always "), (cost, quality), xytext=(5, -9), textcoords="offset points",
                fontsize=7.5, color=_FAINT,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value >= 0.1 else f"{value:.1%}")
    axes.set_xlabel(f"mean cost per request, as a share of always using {evaluation.best_single}")
    axes.set_ylabel("mean observed quality")
    axes.legend(loc="lower right")


def _against_share(axes: Axes, evaluation: Evaluation) -> None:
    assert evaluation.pair is not None
    weak, strong = evaluation.pair
    drawn = [way for way in evaluation.ways if way.pair_curve is not None]
    for way in drawn:
        assert way.pair_curve is not None
        if way.name not in ("random", "best single"):
            _curve(axes, way, way.pair_curve)
    anyone = drawn[0].pair_curve
    assert anyone is not None
    axes.plot([0, 1], anyone.quality[[0, -1]], color=_FAINT, linewidth=1.0, linestyle="--", label="random")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"share of requests that go to {strong}; the others go to {weak}")
    axes.set_ylabel("mean observed quality")
    axes.legend(loc="lower right")


def _reliability(axes: Axes, evaluation: Evaluation) -> None:
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1.0, linestyle="--")
    for way in evaluation.ways:
        if way.reliability and way.name not in ("random", "best single"):
            said, seen, _ = np.array(way.reliability).T
            axes.plot(said, seen, marker="o", markersize=3.5, label=way.name, **_line_of(way))
    axes.set_xlabel("mean predicted quality of the bin")
    axes.set_ylabel("mean observed quality of the bin")
    axes.set_aspect("equal")
    axes.legend(loc="upper left")


def _height(evaluation: Evaluation) -> float:
    return 1.1 + 0.27 * len(_ranked(evaluation))


def _ranked(evaluation: Evaluation) -> list[tuple[float, Way]]:
    named = [(way.values["routed_quality"], way) for way in evaluation.ways]
    known = [(quality, way) for quality, way in named if quality is not None]
    # Of hundreds of agents the best few tell enough.
    singles = sorted((pair for pair in known if pair[1].kind == "single"), key=lambda pair: -pair[0])[:12]
    return sorted([*(pair for pair in known if pair[1].kind != "single"), *singles], key=lambda pair: pair[0])


def _quality(axes: Axes, evaluation: Evaluation) -> None:
    ranked = _ranked(evaluation)
    for row, (quality, way) in enumerate(ranked):
        color = _MARK if way.kind == "model" else _COLORS.get(way.name, _FAINT)
        band = way.bands.get("routed_quality")
        if band is not None:
            axes.plot(band, [row, row], color=color, linewidth=5 if way.kind == "model" else 2.5, alpha=0.35)
        axes.plot([quality], [row], "o", color=color, markersize=5)
    axes.set_yticks(range(len(ranked)), [way.name for _, way in ranked])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("mean observed quality of the chosen answers")
