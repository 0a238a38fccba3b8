"""``make postgres`` and ``make postgres-stop`` in a copy of the repository; the documentation's SQL in psql."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pg_cluster import scratch_folder
from tests.docs.pages import ROOT, blocks_of

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "how-to" / "install-in-postgresql.md"
NEEDED = ("Makefile", "extension", "requirements", "scripts", "src")
EXAMPLES = 15
"""Agents of the demonstration, which are there from the start."""


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    with scratch_folder("tiny_dancer_make_") as folder:
        for name in NEEDED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / name, folder / name)
        yield folder


def make(copy: Path, target: str) -> list[str]:
    """The target's output; the environment of the packages is that of these tests, so that none is made."""
    python = f"PY={shlex.quote(sys.executable)}"
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(copy), "--assume-old=setup", python, target],
        env={**os.environ, "PYTHONPATH": str(copy / "src")}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def psql(copy: Path, sql: str) -> list[str]:
    """What psql prints for SQL that is pasted into it, connected as the documentation says."""
    done = subprocess.run(
        ["bash", "-c", 'exec psql -X -A -t -v ON_ERROR_STOP=1 "$(cat .pg/dsn)"'],
        cwd=copy, input=sql, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def pasted() -> str:
    """The block of the page with which a reader begins, once there is a server."""
    (block,) = [b for b in blocks_of(PAGE.read_text()) if b.language == "sql" and "ruvector_register_agent" in b.source]
    return block.source


def test_from_nothing_to_a_decision_and_back(copy):
    dsn = make(copy, "postgres")[-1]
    assert (copy / ".pg" / "dsn").read_text().strip() == dsn
    assert psql(copy, "SHOW listen_addresses; SELECT count(*) FROM ruvector_list_agents();") == ["", str(EXAMPLES)]

    *registered, decision = psql(copy, pasted())
    assert registered == ["t", "t"]
    agent, confidence, cost, latency = decision.split("|")
    assert agent in psql(copy, "SELECT name FROM ruvector_list_agents()")
    assert 0.0 < float(confidence) < 1.0
    assert float(cost) > 0.0
    assert latency.endswith("ms")
    counts = "SELECT s->>'total_agents', s->>'total_decisions' FROM ruvector_routing_stats() AS s"
    assert psql(copy, counts) == [f"{EXAMPLES + 2}|1"]

    assert make(copy, "postgres") == [dsn]  # it runs, and has everything
    assert make(copy, "postgres-stop") == []
    assert not (copy / ".pg" / "data" / "postmaster.pid").exists()
    assert not any(path.name.startswith(".s.PGSQL") for path in (copy / ".pg" / "socket").iterdir())
    assert make(copy, "postgres-stop") == []

    assert make(copy, "postgres") == [dsn]
    assert psql(copy, counts) == [f"{EXAMPLES + 2}|1"]  # tables outlive the server
    make(copy, "postgres-stop")
    new = {path.name for path in copy.iterdir()} - set(NEEDED)
    assert new == {".pg"}
