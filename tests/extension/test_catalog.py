"""The extension as PostgreSQL sees it: comments, volatility, search paths, dump and restore, upgrade, removal."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

import sql_reference
from tinydancer._version import __version__
from tinydancer.cli import postgres_install
from tinydancer.errors import NotFoundError

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = """
    SELECT p.oid::regprocedure::text AS signature, p.proname, p.provolatile, p.prosecdef, p.proconfig, p.prosqlbody,
           l.lanname, p.proparallel, obj_description(p.oid, 'pg_proc') AS comment
    FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
    JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'tiny_dancer'
"""
STABLE = {
    "ruvector_get_agent", "ruvector_list_agents", "ruvector_find_agents_by_capability", "ruvector_routing_stats",
    "ruvector_list_models", "ruvector_list_routes", "ruvector_classify_request", "ruvector_optimize_budget",
    "ruvector_routing_analytics",
}  # fmt: skip


def test_every_function(db):
    functions = db.dicts(FUNCTIONS)
    assert len(functions) > 20
    for function in functions:
        name = function["proname"]
        assert function["comment"], f"{name} has no comment"
        assert not function["prosecdef"], f"{name} would run with its owner's rights"
        # A body that was parsed when it was created holds no names that a search path could lead elsewhere.
        pinned = "search_path=pg_catalog, pg_temp" in (function["proconfig"] or ())
        # One that is compiled into the server looks none up, either.
        nameless = function["prosqlbody"] or function["lanname"] == "internal"
        assert pinned or nameless, f"{name} looks names up in the caller's search path"
        if name.startswith("ruvector_"):
            expected = "i" if name == "ruvector_embed" else "s" if name in STABLE else "v"
            assert function["provolatile"] == expected, name
        if function["lanname"] == "plpython3u":
            # PL/Python runs each statement in a subtransaction, which parallel mode forbids, even in its leader.
            assert function["proparallel"] == "u", name


def test_reading_functions_cannot_write(agents):
    """STABLE is not a promise only: the server refuses the change."""
    error = agents.fails("SELECT tiny_dancer._ok(tiny_dancer._read('register_agent', '{\"name\": \"sneaked in\"}'))")
    assert "not allowed in a non-volatile function" in error.diag.message_primary
    assert agents.one("SELECT count(*) FROM ruvector_list_agents()") == 2


def test_the_reference_is_what_is_installed(new_database):
    db = new_database()  # without pgvector, whose overloads are not listed
    db.rows("CREATE EXTENSION tiny_dancer CASCADE")
    assert (ROOT / "docs" / "reference" / "sql.md").read_text() == sql_reference.page(db.connection)


def test_drop_extension_leaves_nothing(db):
    before = db.one("SELECT count(*) FROM pg_class WHERE relnamespace = 'tiny_dancer'::regnamespace")
    assert before > 10
    db.rows("DROP EXTENSION tiny_dancer")
    assert db.rows("SELECT nspname FROM pg_namespace WHERE nspname = 'tiny_dancer'") == []
    assert db.rows("SELECT proname FROM pg_proc WHERE proname LIKE 'ruvector%'") == []
    # The same session may have it again.
    db.rows("CREATE EXTENSION tiny_dancer")
    assert db.one("SELECT ruvector_register_agent('a', 'llm', ARRAY['x'], 1, 1, 0.5)") is True
    assert db.one("SELECT agent_name FROM ruvector_route('Hello')") == "a"


def test_another_schema(new_database):
    database = new_database()
    database.rows("CREATE SCHEMA router")
    database.rows("CREATE EXTENSION tiny_dancer SCHEMA router CASCADE")
    assert database.one("SELECT router.ruvector_register_agent('a', 'llm', ARRAY['x'], 1, 1, 0.5)") is True
    assert database.one("SELECT agent_name FROM router.ruvector_route('Hello')") == "a"


@pytest.mark.parametrize("style", ["plain", "custom"])
def test_dump_and_restore(agents, new_database, tmp_path, style):
    decision = agents.one("SELECT decision_id FROM ruvector_route('Write a function', 'quality')")
    agents.rows("SELECT ruvector_feedback(%s, quality := 0.5)", decision)
    agents.rows("SELECT ruvector_update_agent_metrics('gpt-4', i, true, 0.5) FROM generate_series(1, 20) AS i")
    agents.rows("SET tiny_dancer.tenant = 'other'")
    agents.rows("SELECT ruvector_register_agent('hidden', 'llm', ARRAY['x'], 1, 1, 0.5)")
    agents.rows("RESET tiny_dancer.tenant")
    listing = "SELECT * FROM ruvector_list_agents()"
    before, stats = agents.rows(listing), agents.one("SELECT ruvector_routing_stats()")
    agents.connection.close()

    target = new_database()
    cluster = agents.cluster
    if style == "plain":
        script = cluster.program("pg_dump", agents.name).stdout
        done = subprocess.run(
            [str(cluster.bindir / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target.dsn],
            input=script, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    else:
        archive = cluster.directory / "archive.dump"
        cluster.program("pg_dump", "-Fc", "-f", archive, agents.name)
        cluster.program("pg_restore", "--exit-on-error", "-d", target.name, archive)
        archive.unlink()
    assert target.rows(listing) == before
    assert target.one("SELECT ruvector_routing_stats()") == stats
    assert target.one("SELECT ruvector_feedback(%s, quality := 1.0)", decision) is True
    # Numbers go on where they stopped: nothing collides, and no session takes an old registry for the new one.
    assert target.one("SELECT ruvector_register_agent('after', 'llm', ARRAY['x'], 1, 1, 0.5)") is True
    assert target.one("SELECT ruvector_routing_stats()")["total_outcomes"] == stats["total_outcomes"] + 1
    target.rows("SET tiny_dancer.tenant = 'other'")
    assert [row[0] for row in target.rows(listing)] == ["hidden"]


def test_two_versions_and_the_way_between(server, new_database):
    """A synthetic next version beside this one: databases of both in one cluster, and ALTER EXTENSION UPDATE."""
    later = "99.0.0"
    modules = server.modules(later)
    shutil.copytree(server.modules(__version__), modules)
    made = [server.extensions / f"tiny_dancer--{later}.sql", server.extensions / f"tiny_dancer--{later}.control",
            server.extensions / f"tiny_dancer--{__version__}--{later}.sql"]  # fmt: skip
    try:
        (modules / "tinydancer" / "_version.py").write_text(f'__version__ = "{later}"\n')
        for path in modules.glob("tinydancer/__pycache__/_version*"):
            path.unlink()
        files = postgres_install.extension_files(modules, later)
        made[0].write_text(files[f"tiny_dancer--{later}.sql"])
        made[1].write_text(files[f"tiny_dancer--{later}.control"])
        again = (ROOT / "extension" / "functions" / "10_session.sql").read_text()
        upgrade = again.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION").replace("@VERSION@", later)
        made[2].write_text(upgrade)
        old, new = new_database(), new_database()
        old.rows(f"CREATE EXTENSION tiny_dancer VERSION '{__version__}' CASCADE")
        new.rows(f"CREATE EXTENSION tiny_dancer VERSION '{later}' CASCADE")
        for database in (old, new):
            database.rows("SELECT ruvector_register_agent('a', 'llm', ARRAY['x'], 1, 1, 0.5)")
            assert database.one("SELECT agent_name FROM ruvector_route('Hello')") == "a"
        old.rows(f"ALTER EXTENSION tiny_dancer UPDATE TO '{later}'")
        # This session has loaded the modules of before; it says so instead of mixing the two.
        error = old.fails("SELECT agent_name FROM ruvector_route('Hello')")
        assert error.sqlstate == "55000"
        assert error.diag.message_hint == "Connect again."
        fresh = old.connect()
        assert fresh.execute("SELECT agent_name FROM ruvector_route('Hello')").fetchone() == ("a",)
        loaded = "SELECT extversion FROM pg_extension WHERE extname = 'tiny_dancer'"
        assert fresh.execute(loaded).fetchone() == (later,)
    finally:
        shutil.rmtree(modules)
        for path in made:
            path.unlink(missing_ok=True)


def test_modules_that_are_gone(server, new_database, template):
    database = new_database(template)
    modules = server.modules(__version__)
    away = modules.with_name("away")
    modules.rename(away)
    try:
        error = database.fails("SELECT agent_name FROM ruvector_route('Hello')")
    finally:
        away.rename(modules)
    assert error.sqlstate == "58P01"
    assert "tinydancer postgres install" in error.diag.message_hint
    assert "Traceback" not in str(error.diag.context)


def test_installing_again_changes_nothing(server):
    before = {path: path.stat().st_mtime_ns for path in server.library.glob("tiny_dancer/**/*")}
    changed, lines = postgres_install.install(server)
    assert not changed
    assert "already" in lines[0]
    assert {path: path.stat().st_mtime_ns for path in server.library.glob("tiny_dancer/**/*")} == before


def test_a_server_without_plpython(server, tmp_path):
    bare = postgres_install.Server(pg_config="pg_config", version="PostgreSQL 15.1", library=tmp_path, share=tmp_path)
    with pytest.raises(NotFoundError, match="PL/Python 3 is not installed") as caught:
        postgres_install.install(bare)
    assert caught.value.hint.endswith("apt-get install postgresql-plpython3-15")
    (tmp_path / "plpython3.so").write_bytes(b"\0libpython3.2.so.1.0\0")
    with pytest.raises(NotFoundError, match=r"built for Python 3\.2, and no python3\.2"):
        postgres_install.install(bare)
    assert [path.name for path in tmp_path.iterdir()] == ["plpython3.so"]
    with pytest.raises(NotFoundError, match="cannot be run"):
        postgres_install.find_server(str(tmp_path / "pg_config"))


def test_uninstall_takes_away_what_install_wrote(server, tmp_path):
    """On a copy of the folders, with a file of somebody else's among them."""
    library, share = tmp_path / "lib", tmp_path / "share"
    (share / "extension").mkdir(parents=True)
    library.mkdir()
    copy = postgres_install.Server(pg_config="pg_config", version=server.version, library=library, share=share)
    (share / "extension" / "other.control").write_text("")
    shutil.copy(next(server.library.glob("plpython3.*")), library)
    before = sorted(tmp_path.rglob("*"))
    changed, _ = postgres_install.install(copy)
    assert changed
    assert (share / "extension" / "tiny_dancer.control").is_file()
    assert postgres_install.installed_versions(copy) == [__version__]
    postgres_install.uninstall(copy)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(NotFoundError, match="is not installed"):
        postgres_install.uninstall(copy)


def test_one_token_table_for_all_backends(agents):
    """The table is mapped from its file: two backends share its pages, and neither has a copy of its own."""
    sessions = [agents.connect(), agents.connect()]
    for session in sessions:
        session.execute("SELECT ruvector_embed('x')")
    for session in sessions:
        row = session.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        try:
            text = Path(f"/proc/{row[0]}/smaps").read_text()
        except (FileNotFoundError, PermissionError):
            pytest.skip("this system does not show the maps of another process")
        (block,) = text.split("static.safetensors\n")[1:]
        sizes = dict(line.split(":", 1) for line in block.splitlines()[:18] if line.endswith("kB"))
        kilobytes = {key: int(value.split()[0]) for key, value in sizes.items()}
        assert kilobytes["Anonymous"] == 0
        assert kilobytes["Shared_Clean"] + kilobytes["Shared_Dirty"] > 10_000


def test_a_store_from_outside_shares_the_tables(agents):
    from tinydancer.service import TinyDancer
    from tinydancer.store.postgres import PostgresStore

    with TinyDancer(PostgresStore.connect(agents.dsn)) as dancer:
        assert [record.agent.name for record in dancer.list_agents()] == ["gpt-3.5-turbo", "gpt-4"]
        dancer.register_agent("from-outside", "llm", ["functions"], 0.0001, 1.0, 1.0)
        assert agents.one("SELECT agent_name FROM ruvector_route('Write a function', 'quality')") == "from-outside"
        outside = dancer.route("Write a function", "cost")
    inside = agents.dicts("SELECT * FROM ruvector_route('Write a function', 'cost')")[0]
    assert (outside.agent_name, outside.estimated_cost) == (inside["agent_name"], inside["estimated_cost"])


def test_sql_errors_are_psycopg_s_own_classes(agents):
    assert isinstance(agents.fails("SELECT ruvector_register_agent('gpt-4')"), psycopg.errors.DuplicateObject)
    assert isinstance(agents.fails("SELECT ruvector_get_agent('x')"), psycopg.errors.UndefinedObject)
