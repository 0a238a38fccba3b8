"""The program as a process: exit codes, pipes, signals, terminals, what it loads; and its help and completion."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
import typer

from tinydancer import errors
from tinydancer.cli import app, exit_codes
from tinydancer.types import CONSTRAINT_KEYS, COST_FIELDS, OBJECTIVES

PROGRAM = [sys.executable, "-m", "tinydancer"]


def subclasses(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(below for child in kind.__subclasses__() for below in subclasses(child))]


def test_every_error_has_an_exit_code_of_its_own_kind():
    codes = {
        kind.__name__: exit_codes.exit_code_of(Exception.__new__(kind))
        for kind in subclasses(errors.TinyDancerError)
        if kind.__module__ == errors.__name__  # the SQL door has one of its own, which no command meets
    }
    unexpected = {name for name, code in codes.items() if code == exit_codes.UNEXPECTED}
    assert unexpected == {"TinyDancerError"}
    assert {codes[name] for name in ("InvalidTextError", "UnknownKeyError", "SpaceMismatchError")} == {2}
    assert [codes[n] for n in ("NotFoundError", "AlreadyExistsError", "NoMatchError", "NoAgentsError")] == [3, 4, 5, 5]
    assert [codes[n] for n in ("StoreFullError", "ConfigError", "EmbedderError", "ArtifactError")] == [6, 7, 8, 8]


def test_the_way_through(process, store):
    assert process("agents", "add", "small", "-c", "chat", "--cost-per-request", "0.001").returncode == 0
    routed = process("route", "-", "--json", input="Grüße aus Köln!\n".encode())
    assert routed.returncode == 0
    decision = json.loads(routed.stdout)
    assert process("feedback", decision["decision_id"], "--quality", "1").returncode == 0
    assert json.loads(process("stats", "--json").stdout)["total_outcomes"] == 1
    assert process("agents", "add", "small").returncode == 4
    assert process("agents", "show", "large").returncode == 3
    assert process("route", "Hello", "--max-cost", "0").returncode == 5
    assert process("route", b"caf\xe9").returncode == 2
    assert process("route", "-", input=b"caf\xe9").stderr.startswith(b"error: Standard input is not UTF-8: byte 0xe9")


def test_a_damaged_store_is_said_to_be_so(process, store):
    store.write_bytes(b"This is no database, whatever its name says. " * 100)
    before = store.read_bytes()
    for args in (["stats"], ["route", "Hello"], ["agents", "add", "a"]):
        result = process(*args)
        assert result.returncode == 6
        assert result.stderr.startswith(b"error: ")
    assert store.read_bytes() == before


@pytest.mark.parametrize("as_json", [True, False])
def test_a_closed_pipe_ends_it_quietly(process, as_json):
    agents = [{"name": f"agent-{i:04}", "cost_per_request": 0.1, "metadata": {"note": "x" * 200}} for i in range(500)]
    assert process("agents", "load", "-", input=json.dumps(agents).encode()).returncode == 0
    args = ["agents", "list", *(["--json"] if as_json else [])]
    with subprocess.Popen([*PROGRAM, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        complaint = running.stderr.read()
        assert running.wait(60) == exit_codes.CLOSED_PIPE
    assert complaint == b""


def test_an_interrupt_ends_it_with_130_and_changes_nothing(process):
    process("agents", "add", "small")
    with subprocess.Popen(
        [*PROGRAM, "agents", "remove", "small"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stderr is not None
        asked = b""
        while b"[y/N]" not in asked:
            asked += running.stderr.read(1)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == exit_codes.INTERRUPTED
        assert b"Traceback" not in running.stderr.read()
    assert process("agents", "show", "small").returncode == 0


def test_a_full_disk_under_the_output_is_an_error(process):
    process("agents", "add", "small")
    with open("/dev/full", "wb") as full:
        result = subprocess.run([*PROGRAM, "agents", "export"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert result.returncode == exit_codes.UNEXPECTED
    assert b"No space left" in result.stderr
    assert b"Traceback" not in result.stderr
    assert b"Exception ignored" not in result.stderr


def test_a_bug_is_one_line_and_a_traceback_only_on_request(process, tmp_path):
    # A library that breaks while it is imported stands for any bug.
    (tmp_path / "numpy.py").write_text("raise RuntimeError('broken installation')\n")
    result = process("stats", PYTHONPATH=str(tmp_path))
    assert result.returncode == exit_codes.UNEXPECTED
    assert result.stderr.splitlines()[0] == b"error: RuntimeError: broken installation"
    assert b"Traceback" not in result.stderr
    loud = process("stats", PYTHONPATH=str(tmp_path), TINYDANCER_DEBUG="1")
    assert b"Traceback" in loud.stderr
    assert json.loads(process("stats", "--json", PYTHONPATH=str(tmp_path)).stderr)["error"] == "unexpected"


def test_an_encoding_without_the_letters_is_no_failure(process):
    process("agents", "add", "größe-漢", PYTHONUTF8="1")
    table = process("agents", "list", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert table.returncode == 0
    assert b"gr\xf6\xdfe-\\u6f22" in table.stdout
    as_json = process("agents", "list", "--json", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert json.loads(as_json.stdout)[0]["name"] == "größe-漢"


def on_a_terminal(*args: str, **environment: str) -> str:
    """What the program writes to a terminal."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", **environment}
    env.pop("NO_COLOR") if not env["NO_COLOR"] else None
    with subprocess.Popen([*PROGRAM, *args], stdout=theirs, stderr=theirs, stdin=theirs, env=env) as running:
        os.close(theirs)
        text = b""
        while True:
            try:
                some = os.read(ours, 65536)
            except OSError:  # Linux reports the end of a terminal as an error
                break
            if not some:
                break
            text += some
        assert running.wait(60) == 0
    os.close(ours)
    return text.decode()


def test_colours_are_for_terminals_whose_owner_wants_them(process):
    process("agents", "add", "small", "-c", "chat", "--cost-per-request", "0.001")
    assert "\x1b[" in on_a_terminal("agents", "list", NO_COLOR="")
    assert "\x1b[1msmall" in on_a_terminal("route", "Hello", NO_COLOR="")
    assert "\x1b[" not in on_a_terminal("route", "Hello", NO_COLOR="1")
    assert "\x1b[" not in on_a_terminal("--no-color", "route", "Hello", "--explain", NO_COLOR="")


def test_long_work_shows_a_bar_unless_asked_for_quiet(process, tmp_path):
    process("agents", "add", "small", "-c", "chat", "--cost-per-request", "0.001")
    (tmp_path / "requests.txt").write_text("\n".join(f"Question {i}" for i in range(300)))
    args = ("route", "--batch", "--file", "requests.txt")
    assert "300/300" in on_a_terminal(*args, NO_COLOR="1")
    assert "300/300" not in on_a_terminal("--quiet", *args, NO_COLOR="1")
    assert b"300/300" not in process(*args).stderr


LIGHT = (["--help"], ["--version"], ["agents", "add", "--help"], ["route", "--help"])


@pytest.mark.parametrize("args", LIGHT, ids=" ".join)
def test_help_loads_nothing_heavy(args):
    script = (
        "import sys\nfrom tinydancer.cli import app\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'tokenizers', 'safetensors', 'yaml', 'sqlite3', 'asyncio'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_routing_does_not_load_rich():
    script = (
        "import sys\nfrom tinydancer.cli import app\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\n"
        "print('rich.console' in sys.modules)\n"
    )
    args = ["--store", "none.db", "route", "Hello"]
    result = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"


# -- help and completion -------------------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    root: Any = typer.main.get_command(app)
    groups = {name: root.commands[name].commands for name in ("agents", "postgres")}
    inner = {f"{group} {name}": command for group, own in groups.items() for name, command in own.items()}
    return {**root.commands, **inner}


UNEXEMPLIFIED = {
    "agents", "budgets", "models", "plan", "postgres", "routes", "demo", "stats", "version", "agents show",
    "agents activate", "agents deactivate", "models none",
}  # fmt: skip


def test_every_command_has_one_line_of_summary_and_examples():
    for name, command in commands().items():
        summary = command.help.split("\n\n")[0]
        assert summary.endswith("."), name
        assert len(summary) <= 110, name
        if name not in UNEXEMPLIFIED:
            assert re.search(r"\$ (sudo )?tinydancer", command.epilog), name


def test_help_names_the_objectives_prices_constraints_and_exit_codes(run):
    help_of_route = " ".join(run("route", "--help").stdout.split())
    for objective in OBJECTIVES:
        assert objective in help_of_route
    renamed = {"required_capabilities": "--require", "excluded_agents": "--exclude"}
    for key in CONSTRAINT_KEYS:
        assert renamed.get(key, f"--{key.replace('_', '-')}") in help_of_route
    for command in ("add", "update"):
        text = run("agents", command, "--help").stdout
        for field in COST_FIELDS:
            assert f"--{field.replace('_', '-')}" in text
    root = run("--help").stdout
    for code, meaning in exit_codes.MEANINGS.items():
        assert f"{code:>3}  {meaning}" in root


def complete(process, words: str, **environment: str) -> list[str]:
    result = process(
        _TINYDANCER_COMPLETE="complete_bash", COMP_WORDS=f"tinydancer {words}",
        COMP_CWORD=str(len(words.split(" "))), **environment,
    )  # fmt: skip
    assert result.stderr == b""
    words_found: list[str] = result.stdout.decode().split()
    return words_found


def test_names_complete_from_the_store(process, store, tmp_path):
    for name in ("small", "smart", "large"):
        process("agents", "add", name, "-c", f"{name}-talk")
    assert complete(process, "agents show sm") == ["small", "smart"]
    assert complete(process, "route Hello --exclude l") == ["large"]
    assert complete(process, "route Hello --require ") == ["large-talk", "small-talk", "smart-talk"]
    assert complete(process, "route Hello -o qual") == ["quality", "quality_per_dollar"]
    assert complete(process, f"--store {tmp_path / 'none.db'} agents show ") == []
    assert not (tmp_path / "none.db").exists()


def test_completion_never_fails(process, store, tmp_path):
    store.write_bytes(b"no database " * 1000)
    assert complete(process, "agents show sm") == []
    (tmp_path / "tinydancer.yaml").write_text("nonsense: [")
    assert complete(process, "agents show sm") == []
    assert complete(process, "agents show sm", TINYDANCER_STORE="postgresql://host/db") == []
