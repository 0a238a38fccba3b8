"""Where every failure of a command ends: a few lines on standard error, and an exit code.

In: whatever a command raises. Out: ``error:``, the detail, ``hint:``; or the error as one JSON object where ``--json``
was given. A traceback only with TINYDANCER_DEBUG=1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from tinydancer.cli import exit_codes
from tinydancer.errors import TinyDancerError

MAX_DETAIL_LINES = 20
DEBUG = "TINYDANCER_DEBUG"


class Group(TyperGroup):
    """The root command: runs the others and answers for their failures."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a reader that stopped reading ends it without a word."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # caught here, because Typer itself would end with code 1
            _discard_output()
            raise typer.Exit(exit_codes.CLOSED_PIPE) from None
        return result

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command line and leave with its exit code."""
        given = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in given[: given.index("--")] if "--" in given else "--json" in given
        try:
            result = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
            code = result if isinstance(result, int) else exit_codes.OK
        except (KeyboardInterrupt, typer.Abort):
            code = exit_codes.INTERRUPTED
        except Exception as error:
            if os.environ.get(DEBUG, "") not in ("", "0"):
                raise
            code = report(error, as_json=as_json)
            _discard_output()
        if code == exit_codes.INTERRUPTED:
            typer.echo("Interrupted.", err=True)
        if standalone_mode:
            sys.exit(code)
        return code


def report(error: Exception, *, as_json: bool) -> int:
    """Say on standard error what went wrong; the exit code that stands for it."""
    if isinstance(error, TinyDancerError):
        fields, code = error.to_dict(), exit_codes.exit_code_of(error)
    elif hasattr(error, "format_message"):  # what Typer raises for wrong usage, in whichever module it keeps that
        code = exit_codes.INVALID_INPUT
        message = str(error.format_message())
        if type(error).__name__ == "NoArgsIsHelpError":  # the message is the help, or was printed already
            typer.echo(message, nl=bool(message))
            return code
        fields = {"error": "usage", "message": message, "detail": "", "hint": _usage_hint(error)}
    else:
        code = exit_codes.UNEXPECTED
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        hint = f"This should not happen. {DEBUG}=1 in the environment shows where it did."
        fields = {"error": "unexpected", "message": what, "detail": "", "hint": hint}
    if as_json:
        from tinydancer.cli.output import json_text

        typer.echo(json_text(fields, sys.stderr), err=True)
    else:
        _show(str(fields["message"]), str(fields["detail"]), str(fields["hint"]))
    return code


def _show(message: str, detail: str, hint: str) -> None:
    from tinydancer.cli.output import paint, printable

    typer.echo(f"{paint('error:', 'red', sys.stderr)} {printable(message)}", err=True)
    lines = detail.splitlines()
    for line in lines[:MAX_DETAIL_LINES]:
        typer.echo(f"  {printable(line)}", err=True)
    if len(lines) > MAX_DETAIL_LINES:
        typer.echo(f"  ... and {len(lines) - MAX_DETAIL_LINES:,} more; --json has them all", err=True)
    if hint:
        typer.echo(f"{paint('hint:', 'bold', sys.stderr)} {printable(hint)}", err=True)


def _usage_hint(error: Exception) -> str:
    ctx = getattr(error, "ctx", None)
    return f"See: {ctx.command_path} --help" if ctx is not None else ""


def _discard_output() -> None:
    """Send nowhere what cannot be written: flushing it at exit would fail once more, and loudly."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
