"""``tinydancer init``: a settings file to start from.

In: a path. Out: a file with every setting, its default and what it does; whole, or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinydancer.cli.context import note
from tinydancer.cli.files import write_whole
from tinydancer.cli.settings_template import TEMPLATE
from tinydancer.errors import AlreadyExistsError, InvalidInputError

_FILE = "tinydancer.yaml"


def init(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="[PATH]", help="A file, or a directory for it.")] = _FILE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
) -> None:
    """Write a commented settings file, tinydancer.yaml."""
    file = Path(path) / _FILE if Path(path).is_dir() else Path(path)
    if file.exists() and not force:
        raise AlreadyExistsError(
            f"The file {file} exists; expected a new one.", hint="Choose another name, or overwrite it with --force."
        )
    try:
        write_whole(file, TEMPLATE)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"The file {file} cannot be written: {reason}.") from None
    note(ctx, f"Wrote {file}. Every value in it is the default; change what you need.")
