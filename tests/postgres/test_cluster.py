"""The private cluster of development: started, found, stopped, and nothing else touched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

import pg_cluster
import pg_modules

pytestmark = pytest.mark.postgres


@pytest.fixture
def directory():
    with pg_cluster.scratch_folder("tiny_dancer_pg_") as made:
        yield made


def test_start_status_stop(directory, capsys):
    where = str(directory / "pg")
    assert pg_cluster.main(["status", where]) == 3
    try:
        assert pg_cluster.main(["start", where, "--no-fsync"]) == 0
        dsn = capsys.readouterr().out.splitlines()[-1]
        assert (directory / "pg" / "dsn").read_text().strip() == dsn
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
            assert connection.execute("SHOW fsync").fetchone() == ("off",)
            connection.execute("CREATE TABLE kept ()")
        assert pg_cluster.main(["start", where]) == 0  # it runs already
        assert pg_cluster.main(["stop", where]) == 0
        assert pg_cluster.main(["stop", where]) == 0
        assert pg_cluster.main(["status", where]) == 3
        assert pg_cluster.main(["start", where]) == 0
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT FROM kept")
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
    finally:
        pg_cluster.cluster_at(where).remove()


def test_a_long_path_and_a_password(directory):
    cluster = pg_cluster.cluster_at(directory / ("long name with 'quotes' " * 4))
    assert len(os.fsencode(cluster.socket_dir / ".s.PGSQL.65535")) <= pg_cluster.SOCKET_PATH_BYTES
    try:
        cluster.initialise(scram=True)
        cluster.start(tcp=True, fsync=False)
        password = (cluster.directory / "password").read_text()
        assert (cluster.directory / "password").stat().st_mode & 0o077 == 0
        over_tcp = cluster.tcp_dsn()
        assert over_tcp is not None
        for dsn in (cluster.dsn(), over_tcp):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(dsn)
            psycopg.connect(f"{dsn} password={password}").close()
    finally:
        cluster.remove()
    assert not cluster.socket_dir.exists()


START_AND_WAIT = """
import os, sys, time
from pathlib import Path
from pg_cluster import cluster_at, scratch_folder

with scratch_folder("tiny_dancer_killed_") as folder:
    cluster = cluster_at(folder / ("long name" * 10), pg_config=os.environ.get("PG_CONFIG"))
    cluster.initialise()
    cluster.start(fsync=False)
    pid = (cluster.data / "postmaster.pid").read_text().splitlines()[0]
    print(pid, folder, cluster.socket_dir, sep="|", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_no_server_behind():
    scripts = str(Path(pg_cluster.__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT], env={**os.environ, "PYTHONPATH": scripts}, text=True,
        stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        pid, *paths = process.stdout.readline().strip().split("|")
        assert (Path("/proc") / pid).exists()
        assert all(Path(path).is_dir() for path in paths)
        process.kill()
    wait_until_gone(f"/proc/{pid}", *paths)


def wait_until_gone(*paths: str) -> None:
    """What another process does takes its time; a minute is for a machine that is busy with something else."""
    deadline = time.monotonic() + 60.0
    while left := [path for path in paths if Path(path).exists()]:
        assert time.monotonic() < deadline, f"{left} is still there"
        time.sleep(0.05)


def test_a_scratch_folder_goes_with_its_servers():
    with pg_cluster.scratch_folder("tiny_dancer_pg_") as folder:
        cluster = pg_cluster.cluster_at(folder / "pg", pg_config=os.environ.get("PG_CONFIG"))
        cluster.initialise()
        cluster.start(fsync=False)
        pid = (cluster.data / "postmaster.pid").read_text().splitlines()[0]
    assert not folder.exists()
    wait_until_gone(f"/proc/{pid}")


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(pg_cluster.ClusterError, match="nowhere"):
        pg_cluster.find_bindir(str(tmp_path / "nowhere"))


def test_the_servers_python_is_found(cluster):
    python = pg_modules.server_python(pg_config=str(cluster.bindir / "pg_config"))
    assert python.is_file()
