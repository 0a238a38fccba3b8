"""Puts the extension beside a PostgreSQL server, and takes exactly that away again.

In: the server's ``pg_config``. Out: per version, a folder of modules built for the server's own Python
(``PKGLIBDIR/tiny_dancer/VERSION``) and three files in ``SHAREDIR/extension``. Everything is prepared beside its place
and moved there at the end; a manifest in the folder says what belongs to the version.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinydancer._version import __version__
from tinydancer.errors import NotFoundError, StoreError

PACKAGE = Path(__file__).resolve().parent.parent
MANIFEST = "INSTALLED.json"
CONTROL = "tiny_dancer.control"
LEFT_OUT = ("cli", "gateway", "demo", "__pycache__", "extension", "__main__.py")
"""Parts of the package that a server has no use for."""
_LIBPYTHON = re.compile(rb"libpython(3)\.(\d+)[a-z]*\.(?:so|dylib)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A PostgreSQL installation.

    Attributes
    ----------
    version
        As ``pg_config --version`` prints it.
    library, share
        ``PKGLIBDIR`` and ``SHAREDIR``.
    """

    pg_config: str
    version: str
    library: Path
    share: Path

    @property
    def major(self) -> str:
        """``15``, ``17``."""
        found = re.search(r"\d+", self.version)
        return found.group() if found else ""

    @property
    def extensions(self) -> Path:
        """Where control files and scripts lie."""
        return self.share / "extension"

    def modules(self, version: str) -> Path:
        """Where a version's modules lie."""
        return self.library / "tiny_dancer" / version


def find_server(pg_config: str | None = None) -> Server:
    """The server that `pg_config` belongs to; the one on the PATH by default.

    Raises
    ------
    NotFoundError
        There is no such program, or it does not answer.
    """
    program = pg_config or shutil.which("pg_config") or "pg_config"
    try:
        answers = {
            option: subprocess.run([program, f"--{option}"], capture_output=True, text=True, check=True).stdout.strip()
            for option in ("version", "pkglibdir", "sharedir")
        }
    except (OSError, subprocess.CalledProcessError):
        raise NotFoundError(
            f"The program {program!r} cannot be run; it tells where PostgreSQL's files lie.",
            hint="Name it with --pg-config, for example /usr/lib/postgresql/15/bin/pg_config (on Debian it comes with "
            "the package postgresql-15 or libpq-dev).",
        ) from None
    return Server(
        pg_config=program, version=answers["version"], library=Path(answers["pkglibdir"]),
        share=Path(answers["sharedir"]),
    )  # fmt: skip


def server_python(server: Server) -> str:
    """``3.11``: the Python that the server's PL/Python is linked with.

    Raises
    ------
    NotFoundError
        PL/Python is not installed, or does not say.
    """
    found = sorted(server.library.glob("plpython3.*"))
    if not found:
        raise NotFoundError(
            f"PL/Python 3 is not installed for {server.version}: {server.library} holds no plpython3.",
            hint=f"On Debian, as root: apt-get install postgresql-plpython3-{server.major}",
        )
    # The name of the library it needs stands in the file itself; asking the linker would need the machine's tools.
    named = _LIBPYTHON.search(found[0].read_bytes())
    if named is None:
        raise NotFoundError(f"{found[0]} does not say which Python it is built for.")
    return f"{named[1].decode()}.{named[2].decode()}"


def find_python(version: str) -> str:
    """An interpreter of that version, which compiles the modules.

    Raises
    ------
    NotFoundError
        There is none.
    """
    candidates = (f"/usr/bin/python{version}", f"python{version}", sys.executable)
    for candidate in candidates:
        path = shutil.which(candidate)
        if path is None:
            continue
        asked = subprocess.run(
            [path, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if asked.stdout.strip() == version:
            return path
    raise NotFoundError(
        f"The server's PL/Python is built for Python {version}, and no python{version} is on this machine; the modules "
        "have to be made for that version.",
        hint=f"On Debian, as root: apt-get install python{version}",
    )


def extension_folder() -> Path:
    """Where the package keeps the extension's sources: inside the wheel, or beside ``src`` in a clone."""
    for folder in (PACKAGE / "extension", PACKAGE.parent.parent / "extension"):
        if (folder / CONTROL).is_file():
            return folder
    raise NotFoundError(
        "This installation of Tiny Dancer does not hold the extension's files.", hint="Install it again."
    )


def extension_files(modules: Path, version: str = __version__) -> dict[str, str]:
    """Name to text of what lies in ``SHAREDIR/extension``."""
    from tinydancer.store.pg_migrations import adopting_sql
    from tinydancer.store.pg_queries import ROLES_FILE

    folder = extension_folder()
    parts = [
        '\\echo Use "CREATE EXTENSION tiny_dancer CASCADE" to load this file. \\quit\n',
        adopting_sql(),
        ROLES_FILE.read_text(encoding="utf-8"),
        *(path.read_text(encoding="utf-8") for path in sorted((folder / "functions").glob("*.sql"))),
    ]
    script = "\n".join(parts).replace("@VERSION@", version)
    upgrades = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("tiny_dancer--*--*.sql"))}
    return {
        f"tiny_dancer--{version}.sql": script,
        f"tiny_dancer--{version}.control": f"module_pathname = '{modules}'\n",
        CONTROL: (folder / CONTROL).read_text(encoding="utf-8").replace("@VERSION@", version),
        **upgrades,
    }


def requirements_text() -> str:
    """The pinned third-party packages that a server needs, with their hashes."""
    return (extension_folder() / "requirements.txt").read_text(encoding="utf-8")


def fingerprint(files: dict[str, str], python_version: str) -> str:
    """Names what would be installed; equal to the manifest's, there is nothing to do."""
    digest = hashlib.sha256(f"{python_version}\n{requirements_text()}".encode())
    for name, text in sorted(files.items()):
        digest.update(f"{name}\n{text}".encode())
    for path in package_files():
        digest.update(f"{path.relative_to(PACKAGE)} {path.stat().st_size}".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def package_files() -> list[Path]:
    """The package's own files that a server needs."""
    found = []
    for path in sorted(PACKAGE.rglob("*")):
        parts = path.relative_to(PACKAGE).parts
        if path.is_file() and not any(part in LEFT_OUT for part in parts) and path.suffix != ".pyc":
            found.append(path)
    return found


def install(server: Server, *, python: str | None = None) -> tuple[bool, list[str]]:
    """Install this version; whether anything was to be done, and what was done.

    Raises
    ------
    NotFoundError
        PL/Python or an interpreter of its version is missing.
    StoreError
        The folders cannot be written, or the packages cannot be fetched; nothing was changed.
    """
    wanted = server_python(server)
    interpreter = python or find_python(wanted)
    modules = server.modules(__version__)
    if "'" in str(modules) or "\\" in str(modules):
        raise StoreError(f"The folder {modules} has a quote or backslash in its name.")
    files = extension_files(modules)
    print_ = fingerprint(files, wanted)
    known = manifest(server, __version__)
    if known is not None and known["fingerprint"] == print_ and all(Path(f).exists() for f in known["files"]):
        return False, [f"Tiny Dancer {__version__} is installed for {server.version} already."]
    try:
        modules.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{__version__}.", dir=modules.parent))
        try:
            _fill(staging, interpreter)
            targets = [str(server.extensions / name) for name in files]
            (staging / MANIFEST).write_text(json.dumps({"fingerprint": print_, "python": wanted, "files": targets}))
            staging.chmod(0o755)
            _swap(staging, modules)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        for name, text in files.items():
            _write(server.extensions / name, text)
    except OSError as error:
        raise StoreError(
            f"{error.filename or modules} cannot be written: {error.strerror}.",
            hint="PostgreSQL's folders belong to root: repeat as root.",
        ) from None
    return True, [
        f"Found {server.version}, whose PL/Python is built for Python {wanted} ({interpreter}).",
        f"Installed the modules in {modules}",
        f"Installed {', '.join(files)} in {server.extensions}",
        "In each database, as a superuser: CREATE EXTENSION tiny_dancer CASCADE;",
    ]


def uninstall(server: Server, version: str = __version__) -> list[str]:
    """Remove what `install` wrote for a version; what other versions need stays.

    Raises
    ------
    NotFoundError
        That version is not installed.
    """
    known = manifest(server, version)
    if known is None:
        raise NotFoundError(f"Tiny Dancer {version} is not installed for {server.version}.")
    others = [one for one in installed_versions(server) if one != version]
    kept = {CONTROL} if others else set()
    done = []
    try:
        for name in known["files"]:
            path = Path(name)
            if path.name not in kept and path.exists():
                path.unlink()
                done.append(f"Removed {path}")
        modules = server.modules(version)
        shutil.rmtree(modules)
        done.append(f"Removed {modules}")
        if not any(modules.parent.iterdir()):
            modules.parent.rmdir()
    except OSError as error:
        raise StoreError(f"{error.filename} cannot be removed: {error.strerror}.", hint="Repeat as root.") from None
    return done


def installed_versions(server: Server) -> list[str]:
    """The versions whose modules lie beside the server."""
    return sorted(path.parent.name for path in (server.library / "tiny_dancer").glob(f"[0-9]*/{MANIFEST}"))


def manifest(server: Server, version: str) -> dict[str, Any] | None:
    """What was installed for a version; None if nothing was."""
    try:
        found: dict[str, Any] = json.loads((server.modules(version) / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return found


def _fill(staging: Path, interpreter: str) -> None:
    """Third-party packages, our own, and the compiled form of both, which a backend may not write itself."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text(requirements_text())
        _run(
            [
                *_pip(interpreter), "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps",
                "--require-hashes", "--only-binary", ":all:", "--no-compile", "--target", str(staging),
                "--requirement", str(listed),
            ],
            "The packages that the server needs cannot be installed",
        )  # fmt: skip
    for path in package_files():
        target = staging / "tinydancer" / path.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.rmtree(staging / "bin", ignore_errors=True)
    _remove_tests(staging)
    _run(
        [interpreter, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(staging)],
        "The modules cannot be compiled",
    )
    for path in staging.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _remove_tests(staging: Path) -> None:
    """A third of NumPy is its tests."""
    for path in sorted(staging.glob("numpy/**/tests")):
        shutil.rmtree(path, ignore_errors=True)


def _pip(interpreter: str) -> list[str]:
    """A pip that runs under `interpreter`, which need not have one of its own: its version decides what is fetched."""
    for pip in ([sys.executable, "-m", "pip", "--python", interpreter], [interpreter, "-m", "pip"]):
        if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode == 0:
            return pip
    raise NotFoundError(
        "No pip was found, which fetches the packages that the server needs.",
        hint="On Debian, as root: apt-get install python3-pip",
    )


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise StoreError(f"{what}; nothing was changed.", detail="\n".join(lines[-5:]))


def _swap(new: Path, place: Path) -> None:
    """Put a folder in its place; sessions that have loaded the old one keep what they have."""
    if not place.exists():
        os.rename(new, place)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{place.name}.old.", dir=place.parent))
    os.rename(place, old / "it")
    os.rename(new, place)
    shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(beside, 0o644)
    os.replace(beside, path)


def describe(server: Server) -> Iterable[tuple[str, str]]:
    """What ``status`` prints."""
    yield "server", server.version
    yield "pg_config", server.pg_config
    try:
        yield "PL/Python", f"built for Python {server_python(server)}"
    except NotFoundError as error:
        yield "PL/Python", str(error)
    for version in installed_versions(server):
        yield f"Tiny Dancer {version}", str(server.modules(version))
    if not installed_versions(server):
        yield "Tiny Dancer", "not installed"
