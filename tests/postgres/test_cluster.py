"""The private cluster of development: started, found, stopped, and nothing else touched."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psycopg
import pytest

import pg_cluster
import pg_modules

pytestmark = pytest.mark.postgres


@pytest.fixture
def directory():
    made = Path(tempfile.mkdtemp(prefix="tiny_dancer_pg_"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


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


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(pg_cluster.ClusterError, match="nowhere"):
        pg_cluster.find_bindir(str(tmp_path / "nowhere"))


def test_the_servers_python_is_found(cluster):
    python = pg_modules.server_python(pg_config=str(cluster.bindir / "pg_config"))
    assert python.is_file()
