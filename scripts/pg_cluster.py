"""Starts and stops a private PostgreSQL cluster in a directory, for development and tests.

In: a directory. Out: a running server that nobody else uses, and its connection string. It listens on a socket in the
directory, and on TCP only if asked to, then on 127.0.0.1 and a free port. PostgreSQL refuses to run as root, so root
hands the directory to an unprivileged user. Only the server whose pid stands in the directory is ever stopped.
Servers in a `scratch_folder` end with the process that made it, even one that is killed.

    python scripts/pg_cluster.py start .pg          # prints the connection string, writes it to .pg/dsn
    python scripts/pg_cluster.py status .pg
    python scripts/pg_cluster.py stop .pg
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pwd
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux, without the terminating zero."""
SOCKET_PORT = 5432
"""Names the socket only, as long as the cluster does not listen on TCP."""
ENCODING = ("--encoding=UTF8", "--locale=C.UTF-8")


class ClusterError(Exception):
    """Something that keeps the cluster from running, said in one sentence."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster in ``directory``; ``bindir`` holds the server's programs.

    Attributes
    ----------
    user
        Who runs it: None for the caller, or an unprivileged user if the caller is root.
    """

    directory: Path
    bindir: Path
    user: str | None

    @property
    def data(self) -> Path:
        """Where the tables rest."""
        return self.directory / "data"

    @property
    def socket_dir(self) -> Path:
        """The directory of the socket: in the cluster's own, or in /tmp if that path would be too long for a socket."""
        inside = self.directory / "socket"
        if len(os.fsencode(inside / ".s.PGSQL.65535")) <= SOCKET_PATH_BYTES:
            return inside
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"tiny_dancer_pg_{digest}"

    @property
    def running(self) -> bool:
        """Whether the server whose pid stands in the directory runs."""
        return self.data.is_dir() and self._run("pg_ctl", "status", "-D", self.data, check=False).returncode == 0

    def dsn(self, database: str = "postgres", *, user: str = "postgres") -> str:
        """A connection string over the socket."""
        return f"host={_quoted(str(self.socket_dir))} port={self.port} dbname={_quoted(database)} user={_quoted(user)}"

    def tcp_dsn(self, database: str = "postgres", *, user: str = "postgres") -> str | None:
        """A connection string over TCP, without the password; None if the cluster does not listen there."""
        lines = self._postmaster_lines()
        if len(lines) < 6 or lines[5].strip() != "127.0.0.1":
            return None
        return f"host=127.0.0.1 port={self.port} dbname={_quoted(database)} user={_quoted(user)}"

    @property
    def port(self) -> int:
        """The port of a running server, which is also in the name of its socket."""
        lines = self._postmaster_lines()
        return int(lines[3]) if len(lines) > 3 else SOCKET_PORT

    def initialise(self, *, scram: bool = False) -> None:
        """Makes the cluster if there is none; with `scram` a password, kept in ``password``, is asked for."""
        if (self.data / "PG_VERSION").is_file():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        password = self.directory / "password"
        arguments: list[str | Path] = ["-D", self.data, "-U", "postgres", *ENCODING, "--no-instructions"]
        if scram:
            with open(os.open(password, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(secrets.token_urlsafe(24))
            arguments += ["--auth=scram-sha-256", f"--pwfile={password}"]
        else:
            arguments += ["--auth-local=trust", "--auth-host=scram-sha-256"]
        self._give_away()
        self._run("initdb", *arguments)

    def start(self, *, tcp: bool = False, fsync: bool = True, settings: dict[str, str] | None = None) -> None:
        """Starts the server and waits until it answers; does nothing if it runs already.

        Parameters
        ----------
        tcp
            Listen on 127.0.0.1, too, on a free port.
        fsync
            Off is faster, and loses the cluster if the machine crashes: for tests.
        settings
            Further server settings.
        """
        if self.running:
            return
        self._make_socket_dir()
        given = {
            "listen_addresses": "127.0.0.1" if tcp else "",
            "unix_socket_directories": str(self.socket_dir),
            "port": str(self._last_port() or _free_port()) if tcp else str(SOCKET_PORT),
            "max_connections": "150",
            "shared_buffers": "128MB",
            "fsync": "on" if fsync else "off",
            "full_page_writes": "on" if fsync else "off",
            "synchronous_commit": "on",
            "log_min_messages": "warning",
            **(settings or {}),
        }
        # In the file rather than on the command line, where pg_ctl would have a shell take quotes apart.
        text = "".join(f"{key} = '{_doubled(value)}'\n" for key, value in given.items())
        path = self.data / "postgresql.auto.conf"
        path.write_text(text, encoding="utf-8")
        log = self.directory / "server.log"
        done = self._run("pg_ctl", "start", "-w", "-t", "60", "-D", self.data, "-l", log, check=False)
        if done.returncode != 0:
            tail = log.read_text(errors="replace").splitlines()[-5:] if log.is_file() else [done.stderr.strip()]
            raise ClusterError("PostgreSQL did not start: " + " / ".join(tail))

    def stop(self, mode: str = "fast") -> None:
        """Stops the server of this directory; does nothing if it does not run."""
        if self.running:
            self._run("pg_ctl", "stop", "-w", "-D", self.data, "-m", mode)

    def remove(self) -> None:
        """Stops the server and deletes the cluster's files."""
        self.stop("immediate")
        for path in (self.directory, self.socket_dir):
            shutil.rmtree(path, ignore_errors=True)

    def program(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs one of the server's programs (psql, pg_dump) against the cluster as the superuser."""
        return self._run(name, "-h", self.socket_dir, "-p", str(self.port), "-U", "postgres", *arguments)

    def _postmaster_lines(self) -> list[str]:
        # Its pid, data directory, start, port, socket directory and address, one per line.
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _last_port(self) -> int | None:
        """The port of the last start on TCP, if it is still free: clients find a restarted server where it was."""
        path = self.data / "postgresql.auto.conf"
        match = re.search(r"^port = '(\d+)'", path.read_text(encoding="utf-8"), re.MULTILINE)
        if match is None or int(match[1]) == SOCKET_PORT:
            return None
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", int(match[1])))
            except OSError:
                return None
        return int(match[1])

    def _make_socket_dir(self) -> None:
        path = self.socket_dir
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        owner = pwd.getpwnam(self.user).pw_uid if self.user else os.geteuid()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), owner}:
            raise ClusterError(f"{path} belongs to somebody else; choose a cluster directory with a shorter path.")
        self._give_away()

    def _give_away(self) -> None:
        if self.user is None:
            return
        account = pwd.getpwnam(self.user)
        for path in (self.directory, self.directory / "password", self.socket_dir):
            if path.exists():
                os.chown(path, account.pw_uid, account.pw_gid)
        for parent in self.directory.parents:
            if not _may_enter(parent, account):
                raise ClusterError(
                    f"The user {self.user} may not enter {parent}; choose a directory that it can reach."
                )

    def _run(self, program: str, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [str(self.bindir / program), *map(str, arguments)]
        if self.user is not None:
            account = pwd.getpwnam(self.user)
            identity = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups")
            command = ["setpriv", *identity, "--", *command]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        # A virtual environment that comes first on the PATH would be PL/Python's, with all that is in it.
        environment["PATH"] = os.defpath
        # Not pipes: the server would inherit them, and waiting for their end would be waiting for the server's.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd="/", env=environment, check=False
            )
            out.seek(0)
            err.seek(0)
            result = subprocess.CompletedProcess(command, done.returncode, out.read(), err.read())
        if check and result.returncode != 0:
            raise ClusterError(f"{program} failed: {result.stderr.strip() or result.stdout.strip()}")
        return result


def cluster_at(directory: str | Path, *, pg_config: str | None = None) -> Cluster:
    """The cluster of a directory, which need not exist yet."""
    return Cluster(Path(directory).resolve(), find_bindir(pg_config), _server_user())


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A folder that a server's user may enter; with the block, or with this process, it goes, and every server in it.

    Another process sees to that. Its standard input is a pipe whose other end only this one holds, so that it reads the
    end of it however this one ends.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    watcher = subprocess.Popen(
        [sys.executable, "-I", __file__, "clear", str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        start_new_session=True,  # out of reach of what a terminal sends to us
    )  # fmt: skip
    try:
        yield folder
    finally:
        watcher.communicate()


def clear(folder: Path) -> None:
    """Stops every server whose cluster lies in the folder, and deletes the folder."""
    for options in list(folder.rglob("postmaster.opts")):  # before the first of them is deleted
        program = options.read_text(encoding="utf-8").partition(' "')[0]
        Cluster(options.parent.parent, Path(program).parent, _server_user()).remove()
    shutil.rmtree(folder, ignore_errors=True)


def find_bindir(pg_config: str | None = None) -> Path:
    """Where initdb is: beside the given or found ``pg_config``, or Debian's newest version."""
    candidates: list[Path] = []
    if pg_config is not None:
        candidates = [_bindir_of(pg_config)]
    else:
        candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version_of, reverse=True)
        if found := shutil.which("pg_config"):
            candidates.append(_bindir_of(found))
    for bindir in candidates:
        if (bindir / "initdb").is_file():
            return bindir
    raise ClusterError(
        f"There is no initdb in {candidates[0]}; install the server of that version."
        if pg_config is not None
        else "PostgreSQL's server is not installed; on Debian: apt-get install postgresql."
    )


def ensure_packages(version: int | None = None) -> list[str]:
    """Installs Debian's PostgreSQL server and PL/Python where they are missing; which were installed.

    Parameters
    ----------
    version
        The major version; by default the newest that is installed, and where none is, the newest that apt offers.

    Raises
    ------
    ClusterError
        If they are missing and cannot be installed, with the command that would.
    """
    if version is None:
        installed = [int(_version_of(path.parent)) for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
        version = max(installed, default=None)
    missing = ["postgresql", "postgresql-plpython3-VERSION"] if version is None else _missing_packages(version)
    if not missing:
        return []
    install = ["apt-get", "install", "--yes", "--no-install-recommends"]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError(f"Missing: {', '.join(missing)}. Run as root: {' '.join((*install, *missing))}")
    # Debian would make and start a cluster of its own; the one in the directory is enough.
    config = Path("/etc/postgresql-common/createcluster.conf")
    ours = not config.exists()
    if ours:
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text("create_main_cluster = false\n")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        # Where a file stands already, dpkg keeps it instead of asking.
        keep = ["-o", "Dpkg::Options::=--force-confold"]
        _asked(["apt-get", "update"], environment)
        if version is None:
            # One package for each version; the server of that version comes with it.
            names = _asked(["apt-cache", "search", "--names-only", r"^postgresql-plpython3-[0-9]+$"], environment)
            offered = [int(number) for number in re.findall(r"^postgresql-plpython3-(\d+) ", names, re.MULTILINE)]
            if not offered:
                raise ClusterError("apt offers no postgresql-plpython3; install PostgreSQL with PL/Python by hand.")
            missing = _missing_packages(max(offered))
        _asked([*install, *keep, *missing], environment)
    finally:
        if ours:
            config.unlink(missing_ok=True)
    return missing


def _missing_packages(version: int) -> list[str]:
    lib = Path(f"/usr/lib/postgresql/{version}")
    missing = [] if (lib / "bin" / "initdb").is_file() else [f"postgresql-{version}"]
    if not (lib / "lib" / "plpython3.so").is_file():
        missing.append(f"postgresql-plpython3-{version}")
    return missing


def _asked(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return done.stdout


def _bindir_of(pg_config: str) -> Path:
    try:
        done = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ClusterError(f"{pg_config} cannot be run: {error.strerror}.") from None
    if done.returncode != 0:
        raise ClusterError(f"{pg_config} --bindir failed: {done.stderr.strip()}")
    return Path(done.stdout.strip())


def _version_of(bindir: Path) -> float:
    try:
        return float(bindir.parent.name)
    except ValueError:
        return 0.0


def _server_user() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        if shutil.which("setpriv") is None:
            raise ClusterError("PostgreSQL does not run as root, and setpriv (util-linux) is missing.")
        return name
    raise ClusterError("PostgreSQL does not run as root, and there is no user postgres or nobody.")


def _may_enter(directory: Path, account: pwd.struct_passwd) -> bool:
    found = directory.stat()
    if found.st_uid == account.pw_uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid in os.getgrouplist(account.pw_name, account.pw_gid):
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _quoted(value: str) -> str:
    """A value of a connection string."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return value if re.fullmatch(r"[\w./-]+", value) else f"'{escaped}'"


def _doubled(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if all is well, 1 if not, 3 from ``status`` if the server does not run."""
    parser = argparse.ArgumentParser(description="A private PostgreSQL cluster in a directory.")
    parser.add_argument(
        "action",
        choices=("start", "stop", "status", "clear"),
        help="clear waits for the end of its input, then stops what runs in the directory and deletes it",
    )
    parser.add_argument("directory")
    parser.add_argument("--pg-config", help="the pg_config of the PostgreSQL to use; the newest one by default")
    parser.add_argument("--tcp", action="store_true", help="listen on 127.0.0.1, too, on a free port")
    parser.add_argument("--scram", action="store_true", help="ask for a password, which is kept in DIRECTORY/password")
    parser.add_argument("--no-fsync", action="store_true", help="faster; a crash of the machine loses the cluster")
    parser.add_argument("--ensure-packages", action="store_true", help="install Debian's packages where missing")
    given = parser.parse_args(arguments)
    try:
        if given.action == "clear":
            sys.stdin.buffer.read()
            clear(Path(given.directory))
            return 0
        if given.ensure_packages:
            ensure_packages()
        cluster = cluster_at(given.directory, pg_config=given.pg_config)
        if given.action == "start":
            cluster.initialise(scram=given.scram)
            cluster.start(tcp=given.tcp, fsync=not given.no_fsync)
            (cluster.directory / "dsn").write_text(cluster.dsn() + "\n", encoding="utf-8")
        elif given.action == "stop":
            cluster.stop()
            return 0
        if not cluster.running:
            print("not running")
            return 3
        print(cluster.dsn())
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
