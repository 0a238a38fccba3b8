"""Fails when the pure floors are covered by less than the share of lines that ``pyproject.toml`` asks for.

In: the coverage data of a finished test run, and ``[tool.tinydancer]``: which module stands on which floor, how many
floors are pure, what share of their lines must have run. Out: a table of lines and branches per floor; exit status 1
below the gate. It exists because coverage.py gates a whole project only, and branches together with lines.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

import coverage

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "tinydancer"
NEEDS_MINILM = "embedding/transformer.py"


def main() -> int:
    """Print the table and return the exit status."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["tinydancer"]
    floor_of = {name: number for number, names in enumerate(settings["floors"], 1) for name in names}
    left_out = set() if importlib.util.find_spec("sentence_transformers") else {NEEDS_MINILM}

    total: Counter[tuple[int, str]] = Counter()
    for path, summary in measured_files().items():
        floor = floor_of.get(Path(path).parts[0].removesuffix(".py"), len(settings["floors"]))
        if floor <= settings["pure_floors"] and path not in left_out:
            for key in ("num_statements", "covered_lines", "num_branches", "covered_branches"):
                total[floor, key] += summary[key]
                total[0, key] += summary[key]

    print(f"\n{'coverage':<42}{'lines':>16}{'branches':>19}")
    for floor in range(1, settings["pure_floors"] + 1):
        names = ", ".join(settings["floors"][floor - 1])
        print(f"{floor} {names:<40}{share(total, floor, 'lines')}{share(total, floor, 'branches')}")
    print(f"{'floors 1 to ' + str(settings['pure_floors']):<42}{share(total, 0, 'lines')}{share(total, 0, 'branches')}")
    if left_out:
        print(f"{NEEDS_MINILM} is left out: the minilm extra, which it needs to run, is not installed.")

    lines, covered = total[0, "num_statements"], total[0, "covered_lines"]
    needed = settings["covered_lines_percent"]
    if covered * 100 < needed * lines or not lines:
        print(f"{covered} of {lines} lines were run, at least {needed}% are needed;", end=" ")
        print("`.venv/bin/coverage report` names the missing ones.")
        return 1
    return 0


def measured_files() -> dict[str, dict[str, int]]:
    """Path below the package, with ``/``, to coverage.py's summary of that file."""
    data = coverage.Coverage(data_file=str(ROOT / ".coverage"), config_file=str(ROOT / "pyproject.toml"))
    data.load()
    with tempfile.TemporaryDirectory() as folder:
        outfile = Path(folder) / "coverage.json"
        data.json_report(outfile=str(outfile))
        files = json.loads(outfile.read_text())["files"]
    return {
        (ROOT / path).resolve().relative_to(PACKAGE).as_posix(): found["summary"]
        for path, found in files.items()
        if (ROOT / path).resolve().is_relative_to(PACKAGE)
    }


def share(total: Counter[tuple[int, str]], floor: int, what: str) -> str:
    """Two columns: how many of how many, and the percentage."""
    of = total[floor, "num_statements" if what == "lines" else "num_branches"]
    covered = total[floor, f"covered_{what}"]
    return f"{covered:>6}/{of:<5}{covered / of:>7.1%}" if of else f"{'-':>19}"


if __name__ == "__main__":
    sys.exit(main())
