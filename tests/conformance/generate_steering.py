"""Writes steering.json: the scenes written by hand or drawn from a seed, and what each case must answer.

In: nothing. Out: steering.json beside this file. The answers are those of Python with SQLite; each is written only if
the oracles come to the same, and if no comparison of a match hangs on the last digits. What is written of classes is
the input alone: the weights change, and an oracle reads them.

Run: ``python -m tests.conformance.generate_steering``
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.conformance import steering_budgets, steering_plans, steering_refused, steering_routes, steering_traffic
from tests.conformance.budgets_oracle import BudgetsOracle
from tests.conformance.cases import Case as RoutingCase
from tests.conformance.cases import Group
from tests.conformance.generate import embed_with
from tests.conformance.oracle import Embed, Oracle
from tests.conformance.plans_oracle import PlansOracle
from tests.conformance.steering import FILE, Case, Scene, Step, scene_of
from tests.conformance.steering_doors import Answer, PythonDoor
from tests.conformance.steering_oracle import ClassesOracle, RoutesOracle
from tests.conformance.steering_routes import DRAWN
from tests.conformance.steering_same import require_same
from tests.conformance.traffic_oracle import TrafficOracle
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.model.classifier import SHIPPED_CLASSIFIER

CLOSE = 1e-5
"""Two similarities that a match compares differ by at least this much, or not at all."""
SEARCHED = ("escalate_below", "reached")
"""Found by search along a flat optimum; the oracle integrates what they give, and doors are compared in one run."""

NOBODY = ("no_agents", "no_match", "routing_error")
"""Errors that are decided, not found in what was given."""


def scenes() -> list[dict[str, Any]]:
    """All scenes, without expectations."""
    return [*steering_routes.scenes(), *steering_refused.scenes(), *steering_plans.scenes(),
            *steering_budgets.scenes(), *steering_traffic.scenes()]  # fmt: skip


def written(given: dict[str, Any]) -> dict[str, Any]:
    """A scene without what was only said by hand."""
    cases = [{key: value for key, value in case.items() if key not in ("gives", "error")} for case in given["cases"]]
    return {**given, "cases": cases}


def without_expectations(given: dict[str, Any]) -> dict[str, Any]:
    """A scene of the file as it was before its answers were computed."""
    cases = [{key: value for key, value in case.items() if key != "expect"} for case in given["cases"]]
    return {**given, "cases": cases}


class Judge:
    """The oracles, following one scene."""

    def __init__(self, scene: Scene, embed: Embed, classes: ClassesOracle) -> None:
        self._scene = scene
        self._embed = embed
        self._classes = classes
        self.routes = RoutesOracle(embed)
        self._other: BudgetsOracle | TrafficOracle | PlansOracle = PlansOracle(embed)
        if scene.kind == "budgets":
            self._other = BudgetsOracle(embed)
        elif scene.kind == "traffic":
            self._other = TrafficOracle(embed)
        for step in scene.prepare:
            self.routes.follow(step)
            self._other.follow(step, {"agent_name": None})

    def judge(self, number: int, answer: Answer) -> None:
        """Stop unless the answer to a case of the scene is right; to be asked in order."""
        case = self._scene.cases[number]
        if "message" in answer and answer["error"] not in NOBODY:
            return  # of what cannot be asked, the scenes say by hand how it is refused
        if case.call == "classify":
            if "message" not in answer:
                require_same(answer, self._classes.answer(case), figures=3e-6)
            return
        if "infer_capabilities" in case.given:
            needing = self._needing(case)
            assert answer["agent_name"] == needing["agent_name"], (answer, needing)
            require_same(answer["estimated_cost"], needing["estimated_cost"], figures=1e-9)
            return
        self._other.follow(case, answer)
        if "message" in answer:
            return
        expected = self.routes.follow(case) if self._scene.kind == "routes" else None
        if expected is not None:
            require_same(answer, expected, figures=2e-6)

    def _needing(self, case: Case) -> dict[str, Any]:
        """The decision with the capabilities required that the classifier names, as far as some agent has them all."""
        given, agents = case.given, [step.given["config"] for step in self._scene.prepare]
        limits = dict(given.get("constraints") or {})
        required = list(limits.get("required_capabilities", ()))
        if given["infer_capabilities"]:
            able = [
                plain for agent in agents
                if agent["name"] not in limits.get("excluded_agents", ())
                and {word.lower() for word in required} <= (plain := _plain(agent["capabilities"])).keys()
            ]  # fmt: skip
            for name, _ in self._classes.answer(case)["capabilities"]:
                left = [plain for plain in able if name in plain]
                if left:
                    able = left
                    required.append(left[0][name])
        oracle = Oracle(Group("", None, agents, [], [], []), self._embed)
        made = {**given, "constraints": {**limits, "required_capabilities": required}}
        found = oracle.decide(RoutingCase(case.name, "route", made, {}))
        assert found is not None
        return found


def _plain(capabilities: list[str]) -> dict[str, str]:
    """Capabilities as the agent writes them, by what they are with small letters and blanks."""
    return {word.lower().replace("_", " ").replace("-", " "): word for word in capabilities}


def depends_on_weights(case: Step) -> bool:
    """Whether the answer changes with every training of the classifier; such answers do not stand in the file."""
    return case.call == "classify" or case.given.get("infer_capabilities") is True


def expectation(case: Step, answer: Answer) -> dict[str, Any]:
    """What of an answer stands in the file."""
    if "message" in answer:
        return answer
    if depends_on_weights(case):
        return {}
    found: dict[str, Any] = json.loads(json.dumps(answer), parse_float=lambda text: float(f"{float(text):.9g}"))
    for member in found.get("members", ()):
        for key in SEARCHED:
            del member[key]
    return found


def objection(given: dict[str, Any], answer: Answer, judge: Judge, number: int) -> str:
    """What is wrong with an answer: against what was said by hand, or what the oracles say. Empty if nothing is."""
    drawn = given.get("error") == DRAWN and answer.get("error") in (None, *NOBODY)
    if not drawn and given.get("error") != answer.get("error"):
        return f"{given.get('error') or 'an answer'} was said"
    if "gives" in given:
        found = answer["matches"][0]["route_name"] if answer["matches"] else None
        if found != given["gives"]:
            return f"{given['gives']!r} was said"
    judge.routes.closest = 1.0
    try:
        judge.judge(number, answer)
    except (AssertionError, KeyError) as error:
        return f"the oracle objects: {error!r}"
    return f"a comparison hangs on {judge.routes.closest:.2g}" if judge.routes.closest < CLOSE else ""


def main() -> None:
    """Write the file."""
    embedder = StaticEmbedder()
    embed = embed_with(embedder)
    classes = ClassesOracle(SHIPPED_CLASSIFIER, embed)
    made, problems = [], []
    with tempfile.TemporaryDirectory() as folder:
        door = PythonDoor(Path(folder) / "store.db", embedder)
        for given in scenes():
            scene = scene_of(written(given))
            judge = Judge(scene, embed, classes)
            door.enter(scene)
            for step in scene.prepare:
                answer = door.do(step)
                if "message" in answer:
                    raise SystemExit(f"{scene.name}: {step} is prepared, but: {answer}")
            put = written(given)
            for number, (case, said, out) in enumerate(zip(scene.cases, given["cases"], put["cases"], strict=True)):
                answer = door.do(case)
                if wrong := objection(said, answer, judge, number):
                    problems.append(f"{case.name}: {wrong}; the answer is {answer}")
                out["expect"] = expectation(case, answer)
            made.append(put)
        door.close()
    if problems:
        raise SystemExit("\n".join(problems))
    text = ",\n".join(_scene_text(given) for given in made)
    FILE.write_text(f'{{"scenes": [\n{text}\n]}}\n', encoding="utf-8")
    print(f"{sum(len(given['cases']) for given in made)} cases in {len(made)} scenes")


def _scene_text(given: dict[str, Any]) -> str:
    parts = []
    for key, value in given.items():
        if isinstance(value, list) and value:
            lines = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in value)
            parts.append(f'"{key}": [\n  {lines}\n ]')
        else:
            parts.append(f'"{key}": {json.dumps(value, ensure_ascii=False)}')
    return "{" + ",\n ".join(parts) + "}"


if __name__ == "__main__":
    main()
