"""The command line: converts what is typed, calls the service, converts back what it answers.

In: arguments, files, standard input. Out: text for people or JSON for programs, and an exit code. ``main`` is the
console script, ``app`` the Typer application, from which the reference is generated.
"""

from __future__ import annotations

from tinydancer.cli.app import app, main

__all__ = ["app", "main"]
