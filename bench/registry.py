"""The list of everything that is measured.

In: functions marked with `row`. Out: `rows`, group by group. A row's function receives a
`Place`, prepares there whatever it needs (none of that is timed), and returns the operation to measure.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench import measure
from bench.measure import Effort, Figure, Operation, Sampler

Unit = Literal["µs", "ms", "MB", "per s"]

NS_PER = {"µs": 1e3, "ms": 1e6}
REFERENCES: dict[str, Callable[[Path], Operation]] = {
    "product": lambda folder: measure.product_384_by_64(),
    "dumps": lambda folder: measure.dumps_small(),
    "fsync": measure.append_and_sync,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row prepares itself: a folder that is removed, and things that are closed, when it has been measured."""

    folder: Path
    closing: ExitStack


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Something to measure.

    Attributes
    ----------
    name, group
        As they stand in the table.
    unit
        ``µs`` and ``ms`` per item, ``per s`` items per second, ``MB`` of 1,000,000 bytes.
    how
        How it is taken, in a sentence.
    prepare
        Gives the operation, or for `samples_itself` a function that returns one sample in ms or MB.
    target
        What the project asks for: at most, or for ``per s`` at least. None where it asks for nothing.
    reference
        Name of the reference operation, or of the reference's own sampler.
    items
        How many items one call handles.
    """

    name: str
    group: str
    unit: Unit
    how: str
    prepare: Callable[[Place], Callable[[], Any]]
    target: float | None = None
    reference: str = "dumps"
    reference_sampler: Sampler | None = None
    items: int = 1

    @property
    def samples_itself(self) -> bool:
        """Whether the row measures a process rather than a call."""
        return self.reference_sampler is not None

    def run(self, effort: Effort) -> Result:
        """Prepare, measure, clean up."""
        with _place() as place:
            prepared = self.prepare(place)
            if self.reference_sampler is not None:
                return Result(self, measure.sampled(prepared, self.reference_sampler, effort))
            return Result(self, measure.timed(prepared, REFERENCES[self.reference](place.folder), effort))


@dataclass(frozen=True, slots=True)
class Result:
    """A row and its figure."""

    row: Row
    figure: Figure

    @property
    def spread(self) -> tuple[float, float, float]:
        """(median, p10, p90) in the row's unit."""
        low, median, high = (self._in_unit(v) for v in (self.figure.p10, self.figure.median, self.figure.p90))
        return median, min(low, high), max(low, high)

    @property
    def ratio(self) -> float:
        """Time (or memory) of one item over that of the reference."""
        return self.figure.ratio / self.row.items

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None without one."""
        target, median = self.row.target, self.spread[0]
        if target is None:
            return None
        return median >= target if self.row.unit == "per s" else median <= target

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        median, p10, p90 = self.spread
        return {
            "name": self.row.name, "group": self.row.group, "unit": self.row.unit, "median": median, "p10": p10,
            "p90": p90, "samples": self.figure.samples, "calls_per_sample": self.figure.inner, "items": self.row.items,
            "target": self.row.target, "met": self.met, "reference": self.row.reference, "ratio": self.ratio,
            "how": self.row.how,
        }  # fmt: skip

    def _in_unit(self, value: float) -> float:
        if self.row.samples_itself:
            return value
        if self.row.unit == "per s":
            return self.row.items / (value / 1e9)
        return value / self.row.items / NS_PER[self.row.unit]


GROUPS = (
    TEXT := "text to decision",
    VECTOR := "embedding to decision",
    OBJECTIVE := "embedding to decision by objective, 20 agents",
    CANDIDATES := "candidates",
    ROUTES := "semantic routes, 384 dimensions",
    CLASSES := "classification",
    BATCHES := "batches",
    EMBEDDING := "static embedder",
    NETWORK := "FastGRNN, 384 inputs, 64 hidden",
    STORE := "store, an SQLite file",
    SNAPSHOT := "snapshot",
    IMPORT := "import",
    COMMAND := "command line, a new process",
)
ROWS: list[Row] = []


def rows() -> list[Row]:
    """All of them, in the order of `GROUPS`, within a group as they were marked."""
    return sorted(ROWS, key=lambda row: GROUPS.index(row.group))


def row(
    name: str, *, group: str, how: str, **more: Any
) -> Callable[[Callable[[Place], Callable[[], Any]]], Callable[[Place], Callable[[], Any]]]:
    """Put the function it decorates on the list; `more` are the other fields of `Row`."""

    def register(prepare: Callable[[Place], Callable[[], Any]]) -> Callable[[Place], Callable[[], Any]]:
        if any(known.name == name for known in ROWS):
            raise ValueError(f"Two rows are named {name!r}.")
        ROWS.append(Row(name=name, group=group, how=how, prepare=prepare, **{"unit": "µs", **more}))
        return prepare

    return register


@contextmanager
def _place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="tinydancer-bench-") as folder, ExitStack() as closing:
        yield Place(Path(folder), closing)
