"""Every module stands on a floor, imports only downwards or sideways, and is pure where its floor is.

The floors are those of ``[tool.tinydancer]`` in ``pyproject.toml``. Imports are read from the syntax tree, those inside
functions and under ``TYPE_CHECKING`` included: one that runs upwards is a mistake in the design wherever it hides.
"""

from __future__ import annotations

import ast
import graphlib
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["tinydancer"]
FLOORS: list[list[str]] = SETTINGS["floors"]
PURE_FLOORS: int = SETTINGS["pure_floors"]

# fmt: off
IMPURE_MODULES = frozenset({
    "asyncio", "glob", "http", "httpx", "io", "logging", "mmap", "multiprocessing", "os", "pathlib", "psycopg",
    "random", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile",
    "time", "urllib", "uuid",
})
# fmt: on
"""The clock, chance, the environment and every way in or out."""
MAPPED_FILES = frozenset({"io", "mmap", "os", "pathlib", "sys", "tempfile"})
"""Embedders and models map their files into memory, and write them whole or not at all."""
MAY_IMPORT = {
    "embedding": MAPPED_FILES,
    "model": MAPPED_FILES,
    # A service is called over the network, with its key from the environment, again after a pause.
    "embedding.http": IMPURE_MODULES,
    "embedding.transformer": IMPURE_MODULES,
}
CLOCK_CALLS = {(of, name) for of in ("datetime", "date") for name in ("now", "utcnow", "today")}
SEEDED = {"default_rng", "Generator", "SeedSequence", "PCG64", "BitGenerator"}
"""The part of ``numpy.random`` that has no hidden state, provided that a seed is given."""


def modules_of(package: Path) -> dict[str, Path]:
    """Module name below the package (``policy.budgets``; a package by its own name) to its file."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def floor_of(module: str, floors: Sequence[Sequence[str]]) -> int:
    """Number of the module's floor, from 1; 0 for a module that was given none."""
    room = module.split(".")[0]
    return next((number for number, rooms in enumerate(floors, 1) if room in rooms), 0)


def imports_of(module: str, path: Path, package: str, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a module imports; names inside the package as ``known`` spells them."""
    own = [package] if module == "__init__" else [package, *module.split(".")]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = own[: len(own) - node.level + (path.name == "__init__.py")] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            targets = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            yield node.lineno, _as_known(target, package, known)


def _as_known(target: str, package: str, known: dict[str, Path]) -> str:
    """The module behind an imported name: ``tinydancer.types.Agent`` comes from ``tinydancer.types``."""
    parts = target.split(".")
    if parts[0] != package:
        return target
    for length in range(len(parts), 1, -1):
        if ".".join(parts[1:length]) in known:
            return ".".join(parts[:length])
    return f"{package}.{parts[1] if len(parts) > 2 else '__init__'}"


def violations(package: Path, floors: Sequence[Sequence[str]], pure_floors: int) -> list[str]:
    """One sentence per import that runs upwards, circle, impurity and module without a floor."""
    known = modules_of(package)
    found: list[str] = []
    beside: dict[str, set[str]] = {}
    for module, path in sorted(known.items()):
        floor = floor_of(module, floors)
        if not floor:
            found.append(f"{module} stands on no floor; give it one in pyproject.toml, [tool.tinydancer].")
            continue
        allowed = MAY_IMPORT.get(module, MAY_IMPORT.get(module.split(".")[0], frozenset()))
        for line, target in imports_of(module, path, package.name, known):
            if target.split(".")[0] == package.name:
                other = target.partition(".")[2]
                if floor_of(other, floors) > floor:
                    found.append(f"{module}:{line} imports {other}, which stands above it.")
                elif other != module:
                    beside.setdefault(module, set()).add(other)
            elif floor <= pure_floors and target.split(".")[0] in IMPURE_MODULES - allowed:
                found.append(f"{module}:{line} imports {target}; its floor has no I/O, clock, chance or environment.")
        if floor <= pure_floors:
            found.extend(f"{module}:{line} {what}" for line, what in _impure_calls(path, files=bool(allowed)))
    try:
        graphlib.TopologicalSorter(beside).prepare()
    except graphlib.CycleError as error:
        found.append("circle: " + " imports ".join(reversed(error.args[1])))
    return found


def _impure_calls(path: Path, *, files: bool) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        match node:
            case ast.Call(func=ast.Name(id="open" | "input" | "print" as name)) if not (files and name == "open"):
                yield node.lineno, f"calls {name}()."
            case ast.Call(func=ast.Attribute(value=ast.Name(id=of), attr=name)) if (of, name) in CLOCK_CALLS:
                yield node.lineno, f"reads the clock with {of}.{name}(); the time comes in as an argument."
            case ast.Attribute(value=ast.Attribute(attr="random"), attr=name) if name not in SEEDED:
                yield node.lineno, f"uses numpy.random.{name}, which has a hidden state; a generator comes in instead."
            case ast.Call(func=ast.Attribute(attr="default_rng") | ast.Name(id="default_rng"), args=[], keywords=[]):
                yield node.lineno, "makes a generator without a seed."


def test_every_import_runs_downwards_and_pure_floors_are_pure() -> None:
    found = violations(ROOT / "src" / "tinydancer", FLOORS, PURE_FLOORS)
    assert not found, "\n".join(found)


def test_every_floor_names_a_module_once() -> None:
    rooms = [room for floor in FLOORS for room in floor]
    assert sorted(set(rooms)) == sorted(rooms)


MISTAKES = {
    "upwards": ({"types": "from house.decide import x"}, "types:1 imports decide, which stands above it."),
    "upwards, relative": ({"policy/a": "from ..decide import x"}, "policy.a:1 imports decide, which stands above it."),
    "upwards, in a function": (
        {"types": "def f():\n    import house.policy.a"},
        "types:2 imports policy.a, which stands above it.",
    ),
    "upwards, to the front door": ({"types": "from house import anything"}, "types:1 imports __init__, which stands"),
    "circle": ({"policy/a": "from house.policy import b", "policy/b": "from .a import x"}, "circle: policy."),
    "no floor": ({"stray": ""}, "stray stands on no floor"),
    "clock": ({"decide": "import time"}, "decide:1 imports time;"),
    "clock, by datetime": ({"decide": "import datetime\nnow = datetime.now()"}, "decide:2 reads the clock"),
    "environment": ({"policy/a": "from os import environ"}, "policy.a:1 imports os.environ;"),
    "file": ({"decide": "f = open('x')"}, "decide:1 calls open()."),
    "hidden state": ({"decide": "import numpy as np\nx = np.random.rand()"}, "decide:2 uses numpy.random.rand"),
    "no seed": ({"decide": "import numpy as np\nr = np.random.default_rng()"}, "decide:2 makes a generator without"),
}
SOUND = {
    "__init__": "from house.decide import x\nfrom house import store",
    "types": "import json",
    "policy/__init__": "",
    "policy/a": "from house.types import x\nfrom house.policy.b import y",
    "policy/b": "from .. import types",
    "decide": "import numpy as np\nfrom house.policy import a\nr = np.random.default_rng(7)",
    "store": "import sqlite3, time\nfrom house import decide\nx = open('x')",
}


def build(folder: Path, files: dict[str, str]) -> Path:
    house = folder / "house"
    for name, source in files.items():
        path = house / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return house


SMALL_HOUSE = [["types"], ["policy"], ["decide"], ["store"], ["__init__"]]


def test_the_check_accepts_a_sound_house(tmp_path: Path) -> None:
    assert violations(build(tmp_path, SOUND), SMALL_HOUSE, 3) == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_check_catches(mistake: str, tmp_path: Path) -> None:
    files, expected = MISTAKES[mistake]
    found = violations(build(tmp_path, SOUND | files), SMALL_HOUSE, 3)
    assert len(found) == 1
    assert found[0].startswith(expected)
