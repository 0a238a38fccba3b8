"""What was measured, for people and for programs. In: results. Out: a table, or one JSON object."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from bench.peers import Comparison
from bench.registry import Result
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinydancer import __version__

FORMAT = 1


def to_dict(results: Sequence[Result], comparisons: Sequence[Comparison], *, quick: bool) -> dict[str, Any]:
    """Everything, JSON-ready."""
    return {
        "format": FORMAT,
        "tinydancer": __version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "quick": quick,
        "machine": machine(),
        "rows": [result.to_dict() for result in results],
        "peers": [comparison.to_dict() for comparison in comparisons],
    }


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "processors": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "threads": 1,
    }


def print_results(results: Sequence[Result], console: Console) -> None:
    """The table, a blank line between groups."""
    facts = machine()
    console.print(
        f"Python {facts['python']}, NumPy {facts['numpy']}, {facts['architecture']}, "
        f"{facts['processors']} processors, one thread; medians, in brackets the 10th to the 90th percentile."
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("measurement")
    for title in ("median", "spread", "target", "met", "ratio to reference"):
        table.add_column(title, justify="right")
    group = ""
    for result in results:
        if result.row.group != group:
            group = result.row.group
            table.add_row()
            table.add_row(f"[bold]{group}[/bold]")
        table.add_row(*_cells(result))
    console.print(table)
    references = (
        "References: dumps, json.dumps of a small dictionary; product, a 64 x 384 float32 matrix times a vector in "
        "NumPy; fsync, 100 bytes appended and forced to the disk; bare, an interpreter that does nothing."
    )
    console.print(f"\n{references}", highlight=False)
    missed = [result.row.name for result in results if result.met is False]
    with_target = sum(result.met is not None for result in results)
    console.print(f"{with_target - len(missed)} of {with_target} targets met." if with_target else "")
    for name in missed:
        console.print(f"Missed: {name}")


def print_comparisons(comparisons: Sequence[Comparison], console: Console) -> None:
    """Peers, a ratio above 1 where the peer is slower."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("\ncandidates", justify="right")
    for title in (
        "ours, kept\nµs", "ours, made anew\nµs", "peer, its user waits\nµs", "peer, its core\nµs",
        "waits /\nours, kept", "waits /\nmade anew", "core /\nours, kept",
    ):  # fmt: skip
        table.add_column(title, justify="right")
    for one in comparisons:
        table.add_row(
            f"{one.candidates:,}", *(f"{v:,.0f}" for v in (one.kept_us, one.made_us, one.peer_us, one.peer_core_us)),
            *(f"{v:.2f}" for v in (one.waits_over_kept, one.waits_over_made, one.core_over_kept)),
        )  # fmt: skip
    console.print(table)


def markdown(results: Sequence[Result], comparisons: Sequence[Comparison]) -> str:
    """The tables of docs/explanation/speed.md."""
    lines = ["| measurement | median | spread | target | ratio to reference |", "| --- | --- | --- | --- | --- |"]
    group = ""
    for result in results:
        if result.row.group != group:
            group = result.row.group
            lines.append(f"| **{group}** | | | | |")
        name, median, spread, target, _, ratio = _cells(result)
        met = {None: "", True: ", met", False: ", **missed**"}[result.met]
        lines.append(f"| {name.strip()} | {median} | {_plain(spread)} | {target}{met} | {ratio} |")
    if comparisons:
        lines += [
            "",
            "| candidates | ours, kept | ours, made anew | peer, its user waits | peer, its core "
            "| waits / kept | waits / made anew | core / kept |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
    for one in comparisons:
        times = (f"{v:,.0f} µs" for v in (one.kept_us, one.made_us, one.peer_us, one.peer_core_us))
        ratios = (f"{v:.2f}" for v in (one.waits_over_kept, one.waits_over_made, one.core_over_kept))
        lines.append(" | ".join((f"| {one.candidates:,}", *times, *ratios)) + " |")
    return "\n".join(lines) + "\n"


def _plain(cell: str) -> str:
    return Text.from_markup(cell).plain


def figure(value: float) -> str:
    """A number to three significant digits, no exponent."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cells(result: Result) -> tuple[str, ...]:
    row = result.row
    median, low, high = result.spread
    target = "" if row.target is None else f"{'≥' if row.unit == 'per s' else '≤'} {figure(row.target)} {row.unit}"
    met = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[result.met]
    return (
        f"  {row.name}", f"{figure(median)} {row.unit}", f"[dim]{figure(low)} to {figure(high)}[/dim]", target, met,
        f"{figure(result.ratio)} {row.reference}",
    )  # fmt: skip
