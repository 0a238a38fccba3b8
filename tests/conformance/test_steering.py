"""One file of steering cases, replayed through every door: the same routes, classes, teams, plans, accounts, errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conformance import generate_steering
from tests.conformance.conftest import address
from tests.conformance.generate import embed_with
from tests.conformance.steering import LOOKS, Scene, load, read
from tests.conformance.steering_doors import Answer, CommandDoor, Door, PythonDoor, SqlDoor
from tests.conformance.steering_oracle import ClassesOracle
from tests.conformance.steering_same import require_same, require_same_error
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.model.classifier import SHIPPED_CLASSIFIER

SCENES = load()
DOORS = {"python-sqlite": PythonDoor, "python-postgres": PythonDoor, "sql": SqlDoor, "cli": CommandDoor}
SPENDS = ("route", "assign")
"""Calls that look and change something as well."""
EXACT = 1e-9
"""Figures of two doors in one run, but for what an answer's own type rounds away."""
MATCHED = 2e-6
"""Figures that hang on a product of float32 vectors, or pass through a column of float32."""


class Replay:
    """A door, and what it answered: a scene is played from its beginning when one of its cases is first asked for."""

    def __init__(self, door: Door) -> None:
        self.door = door
        # What is not put to the command line itself is done by Python on its file, in a fraction of the time.
        self._helper = door.python if isinstance(door, CommandDoor) else door
        self._answers: dict[str, list[Answer | None]] = {}

    def answers(self, scene: Scene) -> list[Answer | None]:
        """One per case; None where the door has no words for it."""
        if scene.name not in self._answers:
            self.door.enter(scene)
            for step in scene.prepare:
                answer = self._helper.do(step)
                assert "message" not in answer, (step, answer)
            self._answers[scene.name] = [self._answer(scene, number) for number in range(len(scene.cases))]
        return self._answers[scene.name]

    def _answer(self, scene: Scene, number: int) -> Answer | None:
        case = scene.cases[number]
        if is_asked(self.door, scene, number):
            return self.door.do(case)
        if self._helper is not self.door and (case.call not in LOOKS or case.call in SPENDS):
            self._helper.do(case)  # because what comes next depends on it
        return None


def asked(door: str) -> list[tuple[Scene, int]]:
    """The cases that go through a door."""
    return [
        (scene, number)
        for scene in SCENES
        for number in range(len(scene.cases))
        if is_asked(DOORS[door], scene, number)
    ]


def is_asked(door: Door | type[Door], scene: Scene, number: int) -> bool:
    """Whether a case goes through a door: if it has words for it; through the slow one every second case."""
    is_slow = door is CommandDoor or isinstance(door, CommandDoor)
    return door.says(scene.cases[number]) and (number % 2 == 0 or not is_slow)


def parameters() -> list[Any]:
    return [
        pytest.param(door, scene, number, id=f"{door}: {scene.cases[number].name}",
                     marks=[pytest.mark.postgres] if door in ("python-postgres", "sql") else [])
        for door in DOORS
        for scene, number in asked(door)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def open_steering(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, static_embedder: StaticEmbedder
) -> Iterator[Callable[[str], Replay]]:
    """The door of that name."""
    opened: dict[str, Replay] = {}

    def make(name: str) -> Door:
        path: Path = tmp_path_factory.mktemp(f"steering-{name}")
        if name == "python-sqlite":
            return PythonDoor(path / "store.db", static_embedder)
        if name == "cli":
            return CommandDoor(path, static_embedder)
        new_dsn = request.getfixturevalue("new_dsn")
        if name == "python-postgres":  # a database that never heard of the extension
            return PythonDoor(address(new_dsn("steering_plain", "template1")), static_embedder)
        dsn = new_dsn("steering_sql", request.getfixturevalue("template"))
        return SqlDoor(psycopg.connect(dsn, autocommit=True))

    def open_by_name(name: str) -> Replay:
        if name not in opened:
            opened[name] = Replay(make(name))
        return opened[name]

    yield open_by_name
    for replay in opened.values():
        replay.door.close()


@pytest.mark.parametrize(("door", "scene", "number"), parameters())
def test_every_door_answers_as_the_file_says(open_steering, door, scene, number):
    case, answer = scene.cases[number], open_steering(door).answers(scene)[number]
    assert answer is not None
    reference = open_steering("python-sqlite").answers(scene)[number]
    if "message" in case.expect or "message" in answer:
        require_same_error(answer, case.expect)
        require_same_error(answer, reference)
        return
    if case.call not in LOOKS:
        assert answer["done"] is True
        assert answer.get("count", case.expect.get("count")) == case.expect.get("count")
        return
    require_same(answer, reference, figures=MATCHED if case.call in ("match", "classify") else EXACT)
    if not generate_steering.depends_on_weights(case):
        found = generate_steering.expectation(case, answer)
        require_same(found, case.expect, figures=MATCHED)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_the_oracles_come_to_the_same(open_steering, static_embedder, scene):
    """Each answer once more, by the documented formulas or by going through everything there is."""
    embed = embed_with(static_embedder)
    judge = generate_steering.Judge(scene, embed, ClassesOracle(SHIPPED_CLASSIFIER, embed))
    for number, answer in enumerate(open_steering("python-sqlite").answers(scene)):
        judge.judge(number, answer)
    assert judge.routes.closest >= generate_steering.CLOSE


def test_the_file_is_what_its_generator_writes():
    given = [generate_steering.written(scene) for scene in generate_steering.scenes()]
    assert [generate_steering.without_expectations(scene) for scene in read()] == given


def test_many_matches_at_once_are_the_same(open_steering, tmp_path, static_embedder):
    """`match_batch` and `match` go different ways to one answer."""
    door = PythonDoor(tmp_path / "store.db", static_embedder)
    compared = 0
    names = ("routes by vectors", "priorities", "routes by texts", "sixty routes")
    for scene in (scene for scene in SCENES if scene.name in names):
        door.enter(scene)
        for step in scene.prepare:
            door.do(step)
        for case in scene.cases:
            one, many = door.match_both(case)
            require_same(many, one, figures=MATCHED)
            compared += 1
    door.close()
    assert compared >= 80


def test_there_are_enough_cases_of_every_kind():
    looking = [(scene, case) for scene in SCENES for case in scene.cases if case.call in LOOKS]
    failing = [(scene, case) for scene in SCENES for case in scene.cases if "message" in case.expect]
    assert len({case.name for scene in SCENES for case in scene.cases}) == sum(len(scene.cases) for scene in SCENES)
    through_all = [pair for pair in asked("sql") if CommandDoor.says(pair[0].cases[pair[1]])]
    assert len(through_all) >= 400
    assert len(asked("cli")) >= 300
    assert len({scene.name for scene, _ in looking}) >= 30
    assert len({id(case) for _, case in [*looking, *failing]}) >= 900
    kinds = Counter(scene.kind for scene, _ in looking)
    wanted = ("routes", "classes", "teams", "batches", "months", "budgets", "traffic")
    assert all(kinds[kind] >= 40 for kind in wanted), kinds
    assert {case.expect["error"] for _, case in failing} >= {
        "already_exists", "invalid_input", "invalid_name", "invalid_text", "invalid_vector", "no_agents", "no_match",
        "not_found", "routing_error", "space_mismatch", "unknown_key", "unknown_objective",
    }  # fmt: skip
