"""The documentation does what it says: its code runs, its settings parse, its links lead somewhere.

The blocks of one page run in order, in one namespace and one temporary folder, as a reader would type them:

- ``python`` runs; where it shows a session (``>>>``), the answers have to be the ones shown.
- ``bash``, ``console``, ``sh``: commands with ``tinydancer`` in them run and have to succeed, targets of ``make`` have
  to exist. What else stands there (cloning, installing) is the reader's own machine and is left alone.
- ``yaml`` and ``json`` have to parse. ``<!-- file: name -->`` above a block writes it to that file for those below.
- ``sql`` is not run: it needs a PostgreSQL server with the extension, whose own tests will run it.

``<!-- not run: reason -->`` above a block leaves it out; the summary at the end of the run counts those.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import LINKED_PAGES, PAGES, ROOT, Block, anchors_of, blocks_of, links_of, name_of

SHELL_LANGUAGES = {"bash", "console", "sh", "shell"}
SHELL_SECONDS = 120
TINYDANCER = re.compile(r"(?:^|[|&;(]\s*)tinydancer\b")
MAKE = re.compile(r"(?:^|[|&;(]\s*)make\s+([a-z][a-z-]*)")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = blocks_of(page.read_text())
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        if block.not_run is None:
            try:
                run(block, page, namespace)
            except Exception as error:
                pytest.fail(failure(block, page, error), pytrace=False)
        else:
            assert block.not_run, f"{name_of(page)}:{block.line} is not run, but does not say why"
    record_property("blocks", len(blocks))
    record_property("blocks not run", [f"{name_of(page)}:{b.line} {b.not_run}" for b in blocks if b.not_run])


def run(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    """Run one block in the working directory; whatever is wrong with it comes out as an exception."""
    if block.language == "python" and block.source.lstrip().startswith(">>>"):
        run_session(block, page, namespace)
    elif block.language == "python":
        # Empty lines in front keep the line numbers of a traceback those of the page.
        exec(compile("\n" * (block.line - 1) + block.source, name_of(page), "exec"), namespace)
    elif block.language in SHELL_LANGUAGES:
        for command in commands_of(block):
            run_command(command)
    elif block.language == "yaml":
        list(yaml.safe_load_all(block.source))
    elif block.language == "json":
        json.loads(block.source)
    if block.file is not None:
        Path(block.file).write_text(block.source)


def run_session(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(block.source, {}, name_of(page), name_of(page), block.line - 1)
    test.globs = namespace
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append, clear_globs=False)
    assert not result.failed, "".join(report)


def commands_of(block: Block) -> list[str]:
    """The commands of a shell block; in a session (``$``), the answers in between are not commands."""
    lines = block.source.splitlines()
    session = any(line.startswith("$ ") for line in lines)
    commands, pending = [], ""
    for line in lines:
        if session and not pending and not line.startswith("$ "):
            continue
        pending += line.removeprefix("$ ") if session and not pending else line
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quotation or a continuation that goes on in the next line
            pending += "\n"
            continue
        if line.endswith("\\"):
            pending += "\n"
            continue
        if words:
            commands.append(pending)
        pending = ""
    assert not pending, f"unfinished command: {pending}"
    return commands


def run_command(command: str) -> None:
    for target in MAKE.findall(command):
        assert target in TARGETS, f"`make {target}`: the Makefile has no such target"
    if TINYDANCER.search(command):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SHELL_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}\nexit status {done.returncode}\n{done.stdout}{done.stderr}"


def failure(block: Block, page: Path, error: Exception) -> str:
    """What a writer of documentation needs: where, which block, and what went wrong inside it."""
    numbered = "".join(f"{n:5}  {line}\n" for n, line in enumerate(block.source.splitlines(), block.line))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name_of(page)]
    where = f"line {frames[-1].lineno}, " if frames else ""
    return f"{name_of(page)}:{block.line} ({block.language})\n{numbered}{where}{type(error).__name__}: {error}"


@pytest.mark.parametrize("page", LINKED_PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links_of(page.read_text()):
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(ROOT):
            broken.append(f"{link}: no such file")
        elif fragment and target.suffix == ".md" and fragment not in anchors_of(target.read_text()):
            broken.append(f"{link}: no such heading")
    assert broken == []


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    seen, todo = {index}, [index]
    while todo:
        page = todo.pop()
        linked = {(page.parent / link.partition("#")[0]).resolve() for link in links_of(page.read_text())}
        todo += sorted(linked & set(PAGES) - seen)
        seen |= linked
    assert [name_of(page) for page in PAGES if page not in seen and page.parent != ROOT] == []


def test_blocks_are_found_with_their_comments() -> None:
    text = (
        "# A\n\n```python\nx = 1\n```\n<!-- not run: needs a key -->\n```bash\nls\n```\n- a\n\n  ```json\n  {}\n  ```\n"
    )
    assert blocks_of(text) == [
        Block("python", "x = 1\n", 4),
        Block("bash", "ls\n", 8, not_run="needs a key"),
        Block("json", "{}\n", 13),
    ]


def test_commands_are_found_in_scripts_and_sessions() -> None:
    script = Block("bash", 'make setup  # once\n\ntinydancer route \\\n  "a\nb"\n# that is all\n', 1)
    assert commands_of(script) == ["make setup  # once", 'tinydancer route \\\n  "a\nb"']
    session = Block("console", "$ tinydancer stats\n12 decisions\n$ make test\nok\n", 1)
    assert commands_of(session) == ["tinydancer stats", "make test"]


@pytest.mark.parametrize(
    "block",
    [
        Block("python", "1 / 0\n", 1),
        Block("python", ">>> 1 + 1\n3\n", 1),
        Block("bash", "make no-such-target\n", 1),
        Block("bash", "echo hello | tinydancer --no-such-option\n", 1),
        Block("yaml", "a: [\n", 1),
        Block("json", "{'a': 1}\n", 1),
    ],
    ids=lambda block: block.language,
)
def test_a_wrong_block_fails(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=r"\S"):
        run(block, ROOT / "README.md", {})


def test_blocks_of_a_page_share_names_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in (
        Block("python", "x = 1\n", 1),
        Block("json", '{"y": 2}\n', 5, file="y.json"),
        Block("python", "import json\nfrom pathlib import Path\nx += json.loads(Path('y.json').read_text())['y']\n", 9),
        Block("python", ">>> x\n3\n", 15),
    ):
        run(block, ROOT / "README.md", namespace)
    assert namespace["x"] == 3


def test_links_and_headings_are_read_outside_code() -> None:
    text = "# One, two\n## `a_b` now\n## Now\n## Now\n[x](a.md#b) `[no](no.md)` [y](https://z)\n"
    text += "```\n# no\n[no](no.md)\n```\n"
    assert links_of(text) == ["a.md#b"]
    assert anchors_of(text) == {"one-two", "a_b-now", "now", "now-1"}
