"""What commands print: JSON for programs, calm tables and lines for people.

In: plain values. Out: text on standard output; colours and the terminal's width only where there is a terminal. Rich is
imported when a table or a bar is drawn, not before.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TextIO

import typer

from tinydancer.policy.wording import milliseconds, usd

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UNBOUNDED_COLUMNS = 100_000
"""Width of a page that is no terminal: nothing on it is wrapped or cut."""
BAR_FROM = 200
"""Pieces of work from which on a progress bar is worth its line."""
_CODES = {"bold": "1", "dim": "2", "red": "1;31"}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def use_color(stream: TextIO) -> bool:
    """Whether a stream is a terminal whose owner did not ask for plain text."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, style: str, stream: TextIO) -> str:
    """Text in bold, dim or red where `use_color` holds."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if use_color(stream) else text


def printable(text: str) -> str:
    """Text without the control characters that would steer a terminal."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def json_text(value: Any, stream: TextIO, *, indent: int | None = None) -> str:
    """JSON; letters outside ASCII as themselves only where the stream can write them."""
    is_utf8 = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, ensure_ascii=not is_utf8, allow_nan=False, indent=indent)


def write_json(value: Any) -> None:
    """One value, for programs: indented on a terminal, one line elsewhere."""
    typer.echo(json_text(value, sys.stdout, indent=2 if sys.stdout.isatty() else None))


def write_facts(title: str, facts: Iterable[tuple[str, str]]) -> None:
    """A title and lines of ``label  value``, wrapped to the terminal's width; facts without a value are left out."""
    rows = [(label, value) for label, value in facts if value]
    indent = 2 + max((len(label) for label, _ in rows), default=0) + 2
    width = max(shutil.get_terminal_size().columns, indent + 30) if sys.stdout.isatty() else UNBOUNDED_COLUMNS
    typer.echo(paint(printable(title), "bold", sys.stdout))
    for label, value in rows:
        lines = textwrap.wrap(printable(value), width - indent, break_long_words=False, break_on_hyphens=False)
        typer.echo(f"  {paint(label.ljust(indent - 4), 'dim', sys.stdout)}  {lines[0]}")
        for line in lines[1:]:
            typer.echo(" " * indent + line)


def console(*, err: bool = False) -> Console:
    """A Rich console on standard output or standard error."""
    from rich.console import Console

    class Page(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # the root command knows what to do about it

    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else UNBOUNDED_COLUMNS
    colors: Literal["auto"] | None = "auto" if use_color(stream) else None
    return Page(file=stream, width=width, color_system=colors, highlight=False, markup=False, emoji=False)


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
    """A table; the columns named in `numbers` are aligned to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table: Table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(
            column, justify="right" if column in numbers else "left", overflow="fold", no_wrap=column in numbers
        )
    for row in rows:
        table.add_row(*(printable(cell) for cell in row))
    page = console()
    if page.is_terminal:
        page.print(table)
        return
    with page.capture() as captured:
        page.print(table)
    # Rich fills the last column with blanks, which nobody wants in a file.
    typer.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


@contextmanager
def progress(total: int, doing: str, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error while there is much to do; yields what is called with each number of pieces done."""
    if quiet or total < BAR_FROM or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(err=True), transient=True) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda done: bar.advance(task, done)


# -- values as people read them ------------------------------------------------------------------------------------


def money(amount: float | None) -> str:
    """``$0.00041``, ``free``, ``unknown``."""
    return "unknown" if amount is None else usd(amount)


def duration(amount_ms: float | None) -> str:
    """``350 ms``, ``2.5 s``, ``unknown``."""
    return "unknown" if amount_ms is None else milliseconds(amount_ms)


def share(value: float | None) -> str:
    """``0.82``, ``unknown``."""
    return "unknown" if value is None else f"{value:.2f}"


def meter(part: float, width: int = 16) -> str:
    """A bar of blocks, `part` of `width` filled."""
    blocks = round(part * width)
    return "\N{FULL BLOCK}" * blocks if blocks or not part else "\N{LEFT ONE EIGHTH BLOCK}"


def price(cost_model: Mapping[str, float]) -> str:
    """An agent's prices in a few words: ``$2.50 in, $10.00 out per 1M tokens``."""
    from tinydancer.types import CostModel

    cost = CostModel(**cost_model)
    fixed, per_input, _, per_output, per_second = cost.columns()
    if math.isnan(fixed):  # no price, or that of one side of the tokens only
        return "unknown"
    parts = [f"{usd(fixed)} per request"] if fixed else []
    if per_input or per_output:
        one, other = usd(per_input * 1e6), usd(per_output * 1e6)
        parts.append(f"{one if one == other else f'{one} in, {other} out'} per 1M tokens")
    if per_second:
        parts.append(f"{usd(per_second)} per second")
    if cost.monthly_fixed_cost:
        parts.append(f"{usd(cost.monthly_fixed_cost)} a month")
    return " + ".join(parts) or "free"
