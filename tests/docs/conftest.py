"""Counts, at the end of the run, the blocks of the documentation, and names those that are not run and why."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    recorded = [
        recorded
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
        for recorded in report.user_properties
    ]
    total = sum(value for key, value in recorded if key == "blocks")
    left_out = [line for key, value in recorded if key == "blocks not run" for line in value]
    if total:
        terminalreporter.write_sep("-", "documentation")
        terminalreporter.write_line(f"{total} blocks, {len(left_out)} of them not run")
        for line in left_out:
            terminalreporter.write_line(f"  {line}")
