"""Builds a directory of Python modules for the interpreter that a PostgreSQL server embeds.

In: a directory and the server's Python. Out: Tiny Dancer with what its core needs (NumPy, PyYAML,
tokenizers), in the versions of the lock file, as wheels for that Python, readable by everybody. The server's Python is
rarely the user's, and it must not load the user's packages.

    python scripts/pg_modules.py DIRECTORY [--pg-config PATH] [--python PATH]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pg_cluster import ClusterError, find_bindir

ROOT = Path(__file__).resolve().parent.parent
LOCK_FILE = ROOT / "requirements" / "dev.txt"
CORE_PACKAGES = ("numpy", "pyyaml", "tokenizers")


def server_python(*, pg_config: str | None = None) -> Path:
    """The interpreter of the version that the server's PL/Python is linked with.

    Raises
    ------
    ClusterError
        If PL/Python is not installed, or no interpreter of its version is found.
    """
    bindir = find_bindir(pg_config)
    done = subprocess.run([str(bindir / "pg_config"), "--pkglibdir"], capture_output=True, text=True, check=False)
    library = Path(done.stdout.strip() or bindir.parent / "lib") / "plpython3.so"
    if not library.is_file():
        raise ClusterError(
            f"PL/Python is not installed beside {bindir}; on Debian: apt-get install postgresql-plpython3-15."
        )
    linked = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=False).stdout
    match = re.search(r"libpython(3\.\d+)", linked)
    if match is None:
        raise ClusterError(f"{library} is not linked with a libpython3; name the interpreter with --python.")
    # The distribution's own first: that is the one whose library the server loads.
    for folder in ("/usr/bin", "/usr/local/bin"):
        path = Path(folder) / f"python{match[1]}"
        if path.is_file():
            return path
    found = shutil.which(f"python{match[1]}")
    if found is None:
        raise ClusterError(
            f"The server embeds Python {match[1]}, and there is no python{match[1]} to build modules for."
        )
    return Path(found)


def install_core_packages(target: Path, python: Path) -> None:
    """Puts the locked wheels of the core's dependencies into ``target``, built for ``python``."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(_locked(CORE_PACKAGES))
        requirements.flush()
        # pip runs under the server's interpreter, which need not have a pip of its own.
        command = [
            sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "--quiet",
            "--target", str(target), "--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile",
            "--no-warn-script-location", "-r", requirements.name,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"pip failed for {python}: {done.stderr.strip()}")


def copy_package(target: Path) -> None:
    """Puts Tiny Dancer itself into ``target``."""
    shutil.rmtree(target / "tinydancer", ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "src" / "tinydancer", target / "tinydancer", ignore=ignored)


def finish(target: Path, python: Path) -> None:
    """Compiles everything for ``python`` and lets everybody read it."""
    subprocess.run([str(python), "-m", "compileall", "-q", str(target)], capture_output=True, check=False)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))


def build(target: Path, python: Path) -> None:
    """All of the above, from nothing."""
    target.mkdir(parents=True, exist_ok=True)
    install_core_packages(target, python)
    copy_package(target)
    finish(target, python)


def _locked(names: Sequence[str]) -> str:
    """The lock file's lines of some packages, their hashes included."""
    blocks = re.split(r"\n(?=[a-z0-9])", LOCK_FILE.read_text(encoding="utf-8"))
    # A package may be locked once for older and once for newer interpreters; pip reads the markers.
    found = [(block.split("==")[0].strip(), block) for block in blocks]
    if missing := set(names) - {name for name, _ in found}:
        raise ClusterError(f"{LOCK_FILE.name} does not name {', '.join(sorted(missing))}; run scripts/lock.sh.")
    return "\n".join(block for name, block in found if name in names) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if all is well."""
    parser = argparse.ArgumentParser(description="Python modules for a PostgreSQL server.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--pg-config", help="the pg_config of the server; the newest one by default")
    parser.add_argument("--python", type=Path, help="the interpreter, where it cannot be found from the server")
    given = parser.parse_args(arguments)
    try:
        build(given.directory.resolve(), given.python or server_python(pg_config=given.pg_config))
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
