"""Measures speed and memory: ``make bench``.

In: options, and the folder of the peer where there is one. Out: a table on standard output, progress on standard
error, and JSON or Markdown in a file on request. What each figure means is in docs/explanation/speed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.measure import Effort
    from bench.registry import Result, Row

ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for and print it; the exit status says whether everything ran, not whether it was fast."""
    options = _options(arguments)
    # Before NumPy and tokenizers load, which read them once; for the processes that rows start, too.
    os.environ.update(ONE_THREAD)
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from bench import meanings, models, peers, processes, registry, report, routing, stores  # noqa: F401
    from bench.measure import Effort
    from rich.console import Console

    effort = Effort(seconds=options.seconds, quick=options.quick)
    chosen = [row for row in registry.rows() if _wanted(row, options.only)]
    if not chosen:
        print(f"No measurement is named like {options.only!r}; there are:", file=sys.stderr)
        print("\n".join(f"  {row.name} ({row.group})" for row in registry.rows()), file=sys.stderr)
        return 2
    results = _run(chosen, effort)

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    report.print_results(results, console)
    comparisons: list[peers.Comparison] = []
    if not options.only:
        folder = Path(options.peer) if options.peer else None
        console.print()
        if folder is not None and peers.installed(folder):
            comparisons = peers.compare(folder, effort, _progress)
            _progress("")
            report.print_comparisons(comparisons, console)
        else:
            console.print(peers.HOW_TO_INSTALL)
    if options.markdown:
        Path(options.markdown).write_text(report.markdown(results, comparisons), encoding="utf-8")
    if options.json:
        facts = report.to_dict(results, comparisons, quick=options.quick)
        Path(options.json).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure speed and memory, as medians beside reference operations.")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON, too")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables as Markdown, too")
    parser.add_argument("--only", metavar="PATTERN", help="rows whose name or group matches (* and ? as in a shell)")
    parser.add_argument("--seconds", metavar="S", type=float, default=2.0, help="per timed row (default: 2)")
    parser.add_argument("--quick", action="store_true", help="one sample each: shows that it runs, measures nothing")
    parser.add_argument(
        "--peer", metavar="FOLDER", default=os.environ.get("TINYDANCER_PEER_DIR"),
        help="where npm installed the peer (default: $TINYDANCER_PEER_DIR)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _wanted(row: Row, pattern: str | None) -> bool:
    if pattern is None:
        return True
    return any(fnmatch(text.casefold(), f"*{pattern.casefold()}*") for text in (row.name, row.group))


def _run(rows: Sequence[Row], effort: Effort) -> list[Result]:
    results = []
    started = time.perf_counter()
    for number, row in enumerate(rows, start=1):
        _progress(f"{number}/{len(rows)}  {row.group}: {row.name}")
        results.append(row.run(effort))
    _progress(f"Measured in {time.perf_counter() - started:.0f} s.", end="\n")
    return results


def _progress(text: str, *, end: str = "") -> None:
    """One line that is written over on a terminal, a line each elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end=end, file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
