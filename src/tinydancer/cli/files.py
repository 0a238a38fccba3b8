"""Files that commands write, whole or not at all; folders that are made before a command knows whether it succeeds.

In: paths, text. Out: the files; what was there stays as it was if something fails.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tinydancer.errors import InvalidInputError


@contextmanager
def report_folder(out: str | None) -> Iterator[Path | None]:
    """The folder of a report, made before the work begins that would be lost without it; None without a path.

    If the work fails, folders that were made for it and are still empty go again.
    """
    if out is None:
        yield None
        return
    folder = Path(out)
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise cannot_write_report(folder, error) from None
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # one that holds something stays, and those above it
            for path in made:
                path.rmdir()
        raise


def cannot_write_report(folder: Path, error: Exception) -> InvalidInputError:
    """What to raise where a report cannot be put."""
    reason = getattr(error, "strerror", None) or error
    return InvalidInputError(
        f"The report cannot be written to {folder}: {reason}.", hint="Name a folder that can be made or written to."
    )


def write_whole(file: Path, text: str) -> None:
    """Write beside the file first, so that a full disk leaves the old one as it was."""
    handle, beside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, file)
    except OSError:
        os.unlink(beside)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
