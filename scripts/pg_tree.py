"""A private PostgreSQL installation: the machine's own programs, with an extension folder that nobody else uses.

In: an installed server's ``pg_config``. Out: a directory with copies of its programs, links to everything else, and a
``pg_config`` that names this directory's folders. PostgreSQL finds its files relative to its program, so an extension
that is installed here exists here only: no root is needed, and the machine's own installation stays as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from pg_cluster import ClusterError, find_bindir


def make_tree(target: Path, *, pg_config: str | None = None) -> Path:
    """Make the installation, or bring an existing one up to date; its ``pg_config``.

    Raises
    ------
    ClusterError
        The machine's PostgreSQL is laid out so that it cannot be moved.
    """
    source = find_bindir(pg_config)
    folders = {name: _asked(source / "pg_config", name) for name in ("bindir", "pkglibdir", "sharedir")}
    made = target / source.relative_to("/")
    for program in folders["bindir"].iterdir():
        _copy(program, target / program.relative_to("/"))
    for folder in (folders["pkglibdir"], folders["sharedir"], folders["sharedir"] / "extension"):
        for path in folder.iterdir():
            if path.name not in ("extension", "tiny_dancer") and not path.name.startswith("tiny_dancer"):
                _link(path, target / path.relative_to("/"))
    (target / (folders["sharedir"] / "extension").relative_to("/")).mkdir(parents=True, exist_ok=True)
    for name, folder in folders.items():
        if _asked(made / "pg_config", name) != target / folder.relative_to("/"):
            raise ClusterError(f"{source} cannot be used from another place: it looks for its {name} in {folder}.")
    return made / "pg_config"


def _asked(pg_config: Path, name: str) -> Path:
    done = subprocess.run([str(pg_config), f"--{name}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{pg_config} --{name} failed: {done.stderr.strip()}")
    return Path(done.stdout.strip())


def _copy(source: Path, target: Path) -> None:
    # A link would lead PostgreSQL back to where its program really lies.
    found = source.stat()
    if target.is_file() and (target.stat().st_size, target.stat().st_mtime_ns) == (found.st_size, found.st_mtime_ns):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy2(source, beside)
    beside.replace(target)


def _link(source: Path, target: Path) -> None:
    if target.is_symlink() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)
