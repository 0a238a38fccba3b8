"""How a figure is taken: many short samples, each beside a sample of a reference operation.

In: an operation, and a reference to compare it with. Out: a `Figure` with the median, the spread and the ratio of the
two. Machines are noisy, and slow down for seconds at a time; a sample and the reference sample right after it suffer
alike, so that their ratio is worth more than either.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Operation = Callable[[], object]
Sampler = Callable[[], float]

SAMPLE_NS = 200_000
"""A sample repeats an operation for about this long, so that the clock's own cost (some 50 ns) does not count."""
FEWEST_SAMPLES = 7
MOST_SAMPLES = 2_000
PROCESS_SAMPLES = 10


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured.

    Attributes
    ----------
    median, p10, p90
        Median and tenth and ninetieth percentile of the samples, in the unit of the samples.
    samples
        How many there were.
    inner
        How many times each sample repeated the operation; its value is their mean.
    reference
        Median of the reference's samples, in the same unit.
    ratio
        Median of sample over reference sample, pair by pair.
    """

    median: float
    p10: float
    p90: float
    samples: int
    inner: int
    reference: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Parameters
    ----------
    seconds
        Per timed row, reference included.
    quick
        One sample of each and no warm-up worth the name: shows that everything runs, measures nothing.
    """

    seconds: float = 2.0
    quick: bool = False


def timed(operation: Operation, reference: Operation, effort: Effort) -> Figure:
    """Nanoseconds of one call of `operation`, samples of it and of `reference` in turn."""
    inner, reference_inner = _repetitions(operation, effort), _repetitions(reference, effort)
    ends = time.perf_counter_ns() + int(effort.seconds * 1e9)
    own: list[float] = []
    theirs: list[float] = []
    while _go_on(len(own), ends, effort):
        own.append(_sample_ns(operation, inner))
        theirs.append(_sample_ns(reference, reference_inner))
    return _figure(own, theirs, inner)


def sampled(sample: Sampler, reference: Sampler, effort: Effort) -> Figure:
    """Of something that measures itself, such as a process: `PROCESS_SAMPLES` of it and of `reference` in turn."""
    own: list[float] = []
    theirs: list[float] = []
    if not effort.quick:
        # The first process fills the caches of the file system.
        sample()
        reference()
    for _ in range(1 if effort.quick else PROCESS_SAMPLES):
        own.append(sample())
        theirs.append(reference())
    return _figure(own, theirs, 1)


def product_384_by_64() -> Operation:
    """The reference for arithmetic: a 64 x 384 float32 matrix times a vector, in NumPy."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((64, 384)).astype(np.float32)
    vector = rng.standard_normal(384).astype(np.float32)
    return lambda: matrix @ vector


def dumps_small() -> Operation:
    """The reference for Python itself: a small dictionary written as JSON."""
    facts = {"agent": "small", "cost": 0.0021, "latency_ms": 150.0, "tags": ["chat", "translation"], "active": True}
    return lambda: json.dumps(facts)


def append_and_sync(folder: Path) -> Operation:
    """The reference for durable writes: 100 bytes appended to a file and forced to the disk."""
    file = (folder / "reference").open("ab", buffering=0)

    def append() -> None:
        file.write(b"x" * 100)
        os.fsync(file.fileno())

    return append


def _go_on(done: int, ends: int, effort: Effort) -> bool:
    if effort.quick:
        return done < 1
    return done < FEWEST_SAMPLES or (done < MOST_SAMPLES and time.perf_counter_ns() < ends)


def _repetitions(operation: Operation, effort: Effort) -> int:
    """How many calls fill a sample; finding out warms the operation up."""
    if effort.quick:
        operation()
        return 1
    first = _sample_ns(operation, 1)
    again = min(first, _sample_ns(operation, max(1, min(50, int(SAMPLE_NS / first)))))
    return max(1, int(SAMPLE_NS / again))


def _sample_ns(operation: Operation, inner: int) -> float:
    """Mean nanoseconds of `inner` calls, without the garbage collector's pauses."""
    calls = range(inner)
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter_ns()
        for _ in calls:
            operation()
        return max(1.0, (time.perf_counter_ns() - start) / inner)
    finally:
        if collecting:
            gc.enable()


def _figure(own: list[float], theirs: list[float], inner: int) -> Figure:
    p10, median, p90 = np.percentile(own, [10, 50, 90])
    ratios = np.array(own) / np.array(theirs)
    return Figure(
        median=float(median), p10=float(p10), p90=float(p90), samples=len(own), inner=inner,
        reference=float(np.median(theirs)), ratio=float(np.median(ratios)),
    )  # fmt: skip
