"""A store of one's own per test, and the program called in this process or, where that matters, as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tinydancer.cli import app

Run = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[bytes]"]

AGENTS = (
    ("small", "-c", "chat", "-c", "translation", "--input-per-1m", "0.15", "--output-per-1m", "0.60",
     "--latency-ms", "350", "--quality", "0.78"),
    ("large", "-c", "coding", "-c", "reasoning", "--input-per-1m", "2.50", "--output-per-1m", "10",
     "--latency-ms", "900", "--quality", "0.94"),
    ("mystery", "-c", "poetry"),
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of a store that does not exist yet, named by the environment; the test runs in its directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYDANCER_STORE", str(tmp_path / "store.db"))
    return tmp_path / "store.db"


@pytest.fixture
def run(store: Path) -> Run:
    """Call the program in this process: ``run("agents", "list", input=..., code=0)``."""

    def call(*args: str, input: str | bytes | None = None, code: int = 0) -> Result:
        result = CliRunner().invoke(app, list(args), input=input)
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    return call


@pytest.fixture
def filled(run: Run) -> Run:
    """The same, with three agents in the store: small is cheap, large is good, mystery has no price."""
    for agent in AGENTS:
        run("agents", "add", *agent)
    return run


@pytest.fixture
def process(store: Path) -> Process:
    """Call the program as a process of its own, with bytes in and bytes out."""

    def call(*args: str | bytes, input: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "tinydancer", *args]
        env = {**os.environ, **environment}
        return subprocess.run(command, input=input, capture_output=True, env=env, timeout=60, check=False)

    return call
