"""Rows for whole processes: what starting, importing and one command cost, in time and in memory.

A process is started anew for each sample, next to one of a bare interpreter. Its files are in the operating system's
cache, as they are for everybody but the first user after a boot. Where other programs keep the processors busy, the
time that passes says more about them; the processor time, user and system together, is the process's own.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import material
from bench.measure import Sampler
from bench.registry import COMMAND, IMPORT, Place, row

Clock = Callable[[], float]

LIBRARY = "from tinydancer import TinyDancer"
ROUTE_ONE_TEXT = f"""
{LIBRARY}
dancer = TinyDancer()
dancer.register_agent("small", "llm", ["chat"], 0.002, 150.0, 0.75)
dancer.route("Good morning!").agent_name
"""
PRINT_RESIDENT_MB = """
for line in open("/proc/self/status"):
    if line.startswith("VmRSS"):
        print(int(line.split()[1]) * 1024 / 1e6)
"""


def _run(words: Sequence[str], *, folder: Path | None = None) -> str:
    store = {} if folder is None else {"TINYDANCER_STORE": str(folder / "bench.db")}
    done = subprocess.run(
        words, cwd=folder, env={**os.environ, **store}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{list(words)} ended with exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def passed_ms() -> float:
    """Time on the wall."""
    return time.perf_counter_ns() / 1e6


def processor_ms() -> float:
    """Processor time of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e3


def _ms(clock: Clock, words: Sequence[str], *, folder: Path | None = None) -> float:
    start = clock()
    _run(words, folder=folder)
    return clock() - start


def _bare(clock: Clock) -> Sampler:
    return lambda: _ms(clock, [sys.executable, "-c", "pass"])


def _resident_mb(code: str) -> Sampler:
    return lambda: float(_run([sys.executable, "-c", code + PRINT_RESIDENT_MB]))


def _resident(code: str) -> Callable[[Place], Sampler]:
    return lambda place: _resident_mb(code)


def _python(code: str, clock: Clock = passed_ms) -> Callable[[Place], Sampler]:
    """Milliseconds beyond those of a bare interpreter started just before."""

    def prepare(place: Place) -> Sampler:
        bare = _bare(clock)

        def sample() -> float:
            without = bare()
            return max(0.0, _ms(clock, [sys.executable, "-c", code]) - without)

        return sample

    return prepare


def _command(*words: str, clock: Clock = passed_ms) -> Callable[[Place], Sampler]:
    def prepare(place: Place) -> Sampler:
        material.dancer(place, 20).close()
        program = Path(sys.executable).with_name("tinydancer")
        start = [str(program)] if program.exists() else [sys.executable, "-m", "tinydancer"]
        return lambda: _ms(clock, [*start, *words], folder=place.folder)

    return prepare


def _process_row(
    name: str, group: str, how: str, prepare: Callable[[Place], Sampler], *, clock: Clock = passed_ms,
    target: float | None = None,
) -> None:  # fmt: skip
    reference = "bare start" if clock is passed_ms else "bare start, processor"
    row(
        name, group=group, how=how, unit="ms", target=target, reference=reference, reference_sampler=_bare(clock)
    )(prepare)  # fmt: skip


_BEYOND = "a new process each time, less a bare interpreter started just before it"
_process_row(
    "a bare interpreter, start to end", IMPORT, "python -c pass: what the next rows leave out",
    lambda place: _bare(passed_ms),
)  # fmt: skip
_process_row("import tinydancer", IMPORT, _BEYOND, _python("import tinydancer"), target=250.0)
_process_row(LIBRARY, IMPORT, _BEYOND, _python(LIBRARY), target=250.0)
_process_row(
    f"{LIBRARY}, processor time", IMPORT, f"{_BEYOND}; user and system time",
    _python(LIBRARY, processor_ms), clock=processor_ms,
)  # fmt: skip
_process_row("import, open a store, route one text", IMPORT, _BEYOND, _python(ROUTE_ONE_TEXT))

for _name, _code, _target in (
    ("memory after import tinydancer", "import tinydancer", 60.0),
    (f"memory after {LIBRARY}", LIBRARY, 60.0),
    ("memory after one text was routed", ROUTE_ONE_TEXT, None),
):
    row(
        _name, group=IMPORT, unit="MB", target=_target, reference="bare memory", reference_sampler=_resident_mb(""),
        how="VmRSS of a new process: interpreter, libraries, and what was touched of the mapped token table (12 MB)",
    )(_resident(_code))  # fmt: skip

_ROUTE = ("route", material.REQUESTS[0])
_process_row(
    'tinydancer route "..."', COMMAND, "the whole process, 20 agents in the store, the decision recorded",
    _command(*_ROUTE), target=500.0,
)  # fmt: skip
_process_row(
    'tinydancer route "...", processor time', COMMAND, "as above; user and system time, the interpreter's included",
    _command(*_ROUTE, clock=processor_ms), clock=processor_ms,
)  # fmt: skip
_process_row("tinydancer --help", COMMAND, "the whole process", _command("--help"))
