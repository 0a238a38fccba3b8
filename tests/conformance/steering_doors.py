"""The ways in for the steering cases, behind one face. In: a scene, then its steps. Out: answers in the same words.

An answer is what the call gave, with the same names through every door, or an error as in `tests.conformance.doors`.
Every door's clock is set: Python takes one, the command line runs in this process, and in the server the modules run in
the session's own interpreter, where the owner of the database may say what the service takes for its clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from typer.testing import CliRunner

from tests.conformance.doors import EXIT_CODES, error_of
from tests.conformance.steering import Scene, Step
from tests.conformance.steering_words import words_of
from tinydancer import Settings, TinyDancer
from tinydancer.analytics import routing_analytics
from tinydancer.budgets import Budgets, alert_dict
from tinydancer.classification import RequestClassification
from tinydancer.cli import app
from tinydancer.embedding.base import Embedder
from tinydancer.errors import NoMatchError, TinyDancerError
from tinydancer.planning import assign_batch, optimize_budget, route_multi
from tinydancer.routes import SemanticRoutes

Answer = dict[str, Any]
DONE: Answer = {"done": True}
DECIDED = ("agent_name", "estimated_cost", "estimated_latency_ms", "expected_quality", "objective")
MEMBER = (
    "role", "agent_name", "estimated_cost", "estimated_latency_ms", "expected_quality", "similarity_score",
    "escalate_below", "reached",
)  # fmt: skip
TEAM = ("combined_quality", "combined_cost", "combined_latency_ms", "is_optimal")
TEAM_OPTIONS = (
    "stages", "optimize_for", "quality_target", "combination", "correlation", "family_correlation", "self_knowledge",
)  # fmt: skip
LARGEST_INTEGER = 2**31 - 1
"""Of SQL's type of that name."""
FROZEN = """
DO $body$
from tinydancer import service
service._shown_to_tests = [{now}]
service.TinyDancer.__init__.__kwdefaults__["clock"] = lambda: service._shown_to_tests[0]
$body$ LANGUAGE plpython3u
"""


class PythonDoor:
    """The classes themselves over one store."""

    def __init__(self, store: str | Path, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder
        self._now = 0.0
        self._dancer: TinyDancer | None = None
        self._decisions: list[str] = []

    def enter(self, scene: Scene) -> None:
        """What comes now is for the scene's tenant."""
        self.close()
        dancer = TinyDancer(
            self._store, settings=Settings(tenant=scene.name), embedder=self._embedder, clock=lambda: self._now
        )
        self._dancer, self._routes = dancer, SemanticRoutes(dancer)
        self._classes = RequestClassification(dancer)
        self._budgets = Budgets(dancer)
        self._decisions = []

    @staticmethod
    def says(step: Step) -> bool:
        """Whether the door has words for a step."""
        return True

    def do(self, step: Step) -> Answer:
        """What the door answers to one step."""
        self._now = step.clock
        call: Callable[..., Answer] = getattr(self, f"_{step.call}")
        try:
            return call(**step.given)
        except NoMatchError as error:
            return {**error_of(error), "exclusions": error.exclusions}
        except TinyDancerError as error:
            return error_of(error)

    def close(self) -> None:
        """Close the store."""
        if self._dancer is not None:
            self._dancer.close()

    @property
    def _service(self) -> TinyDancer:
        assert self._dancer is not None, "enter a scene first"
        return self._dancer

    # -- agents and traffic ----------------------------------------------------------------------------------------

    def _register(self, config: dict[str, Any]) -> Answer:
        self._service.register_agent_full(config)
        return DONE

    def _update_agent(self, name: str, changes: dict[str, Any]) -> Answer:
        self._service.update_agent(name, changes)
        return DONE

    def _remove_agent(self, name: str) -> Answer:
        self._service.remove_agent(name)
        return DONE

    def _metrics(self, name: str, **outcome: Any) -> Answer:
        self._service.update_agent_metrics(name, **outcome)
        return DONE

    def _route(
        self, request: str | None = None, objective: str = "balanced", constraints: Any = None, embedding: Any = None,
        context: Any = None, **infer: bool,
    ) -> Answer:  # fmt: skip
        decision: Any = self._service.route(
            request, objective, constraints, embedding=embedding, **(context or {}), **infer
        )
        found = None if decision is None else decision.to_dict()
        self.note_decision(found)
        return {"agent_name": None} if found is None else _only(found, DECIDED)

    def note_decision(self, found: dict[str, Any] | None) -> None:
        """Keep a decision's id, to which feedback may come."""
        self._decisions.append("" if found is None else found["decision_id"])

    def _feedback(self, of: int, **outcome: Any) -> Answer:
        self._service.feedback(self._decisions[of], **outcome)
        return DONE

    # -- routes and classes ----------------------------------------------------------------------------------------

    def _create_route(self, config: Any) -> Answer:
        if isinstance(config, dict) and {"name", "target_agent"} <= config.keys() <= _ROUTE_TYPES.keys():
            self._routes.create(**config)
        else:
            self._routes.create_many([config])
        return DONE

    def _update_route(self, name: str, changes: Any) -> Answer:
        self._routes.update(name, changes)
        return DONE

    def _delete_route(self, name: str) -> Answer:
        self._routes.remove(name)
        return DONE

    def _add_utterances(self, name: str, utterances: Any, negative: bool = False) -> Answer:
        return {"done": True, "count": self._routes.add_utterances(name, utterances, negative=negative)}

    def _remove_utterances(self, name: str, utterances: Any) -> Answer:
        return {"done": True, "count": self._routes.remove_utterances(name, utterances)}

    def _list_routes(self) -> Answer:
        return {"routes": [route.to_dict() for route in self._routes.list_routes()]}

    def _match(self, count: bool = True, **given: Any) -> Answer:
        return _matched(self._routes.match(given.pop("request", None), count=count, **given).to_dict())

    def match_both(self, step: Step) -> tuple[Answer, Answer]:
        """A match by itself, and as one of many."""
        self._now = step.clock
        given = {key: step.given[key] for key in ("top_k", "user_tier") if key in step.given}
        text, vector = step.given.get("request"), step.given.get("embedding")
        one = self._routes.match(text, embedding=vector, count=False, **given)
        many = self._routes.match_batch(
            None if text is None else ["Something else.", text],
            embeddings=None if vector is None else [[1.0] * len(vector), vector], count=False, **{"top_k": 3, **given},
        )  # fmt: skip
        return _matched(one.to_dict()), _matched(many[1].to_dict())

    def _classify(self, request: str | None = None, embedding: Any = None) -> Answer:
        return self._classes.classify(request, embedding=embedding)

    # -- plans -----------------------------------------------------------------------------------------------------

    def _team(
        self, request: str, num_agents: Any = 3, strategy: Any = "pipeline", constraints: Any = None,
        options: dict[str, Any] | None = None,
    ) -> Answer:  # fmt: skip
        return _team(route_multi(self._service, request, num_agents, strategy, constraints, **(options or {})).rows())

    def _assign(
        self, requests: Any = None, embeddings: Any = None, constraints: Any = None, context: Any = None
    ) -> Answer:
        rest = dict(constraints or {})
        more = {key: rest.pop(key) for key in ("min_mean_quality", "capacities") if key in rest}
        plan = assign_batch(self._service, requests, rest, embeddings=embeddings, **more, **(context or {}))
        return _assigned([None if d is None else d.to_dict() for d in plan.decisions])

    def _optimize_budget(self, monthly_budget: Any, **more: Any) -> Answer:
        return optimize_budget(self._service, monthly_budget, **more).to_dict()

    # -- budgets ---------------------------------------------------------------------------------------------------

    def _create_budget(self, config: Any) -> Answer:
        self._budgets.create_from(config)
        return DONE

    def _update_budget(self, name: str, changes: Any) -> Answer:
        self._budgets.update(name, changes)
        return DONE

    def _remove_budget(self, name: str) -> Answer:
        self._budgets.remove(name)
        return DONE

    def _list_budgets(self) -> Answer:
        return _accounts([status.to_dict() for status in self._budgets.list()])

    def _budget_alerts(self, time_range: str = "7 days") -> Answer:
        return _alerts([alert_dict(alert) for alert in self._budgets.alerts(time_range)])

    def _report(self, **given: Any) -> Answer:
        return {"rows": routing_analytics(self._service, **given).to_dict()["rows"]}


class SqlDoor:
    """The functions of the extension, over a connection in autocommit mode."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._connection.execute("SELECT tiny_dancer._boot()")
        self._now: float | None = None
        self._decisions: list[str] = []

    def enter(self, scene: Scene) -> None:
        """What comes now is for the scene's tenant."""
        self._connection.execute("SELECT set_config('tiny_dancer.tenant', %s, false)", (scene.name,))
        self._decisions = []

    @staticmethod
    def says(step: Step) -> bool:
        """Whether the door has words for a step: arguments have their types, and some are left to Python."""
        given = step.given
        if step.call == "match":
            top_k = given.get("top_k", 3)
            return given.get("count") is not False and isinstance(top_k, int) and not isinstance(top_k, bool)
        if step.call == "classify":
            return "request" in given
        if step.call == "create_route":
            config = given["config"]
            return isinstance(config, dict) and {"name", "target_agent"} <= config.keys() and all(
                key in _ROUTE_TYPES and isinstance(value, _ROUTE_TYPES[key][1])
                and not (isinstance(value, int) and value > LARGEST_INTEGER)
                for key, value in config.items()
            )  # fmt: skip
        if step.call == "create_budget":
            config = given["config"]
            return isinstance(config, dict) and {"name", "amount_usd"} <= config.keys() and all(
                (name := str(_SQL_NAMES.get(key, key))) in _BUDGET_TYPES and isinstance(value, _BUDGET_TYPES[name][1])
                for key, value in config.items()
            )  # fmt: skip
        if step.call == "budget_alerts":
            return given.get("time_range") != "soon"  # which is no interval
        if step.call in ("add_utterances", "remove_utterances"):
            return isinstance(given["utterances"], list) and all(isinstance(u, str) for u in given["utterances"])
        if step.call == "team":
            return isinstance(given.get("num_agents", 3), int) and isinstance(given.get("strategy", ""), str)
        return True

    def do(self, step: Step) -> Answer:
        """What the door answers to one step."""
        if step.clock != self._now:
            self._connection.execute(FROZEN.format(now=float(step.clock)))
            self._now = step.clock
        call: Callable[..., Answer] = getattr(self, f"_{step.call}")
        try:
            return call(**step.given)
        except psycopg.Error as error:
            diag = error.diag
            found: Answer = {
                "sqlstate": error.sqlstate, "message": diag.message_primary, "hint": diag.message_hint or "",
            }  # fmt: skip
            if diag.message_detail:
                found["exclusions"] = dict(line.split(": ", 1) for line in diag.message_detail.split("\n"))
            return found

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _one(self, call: str, *values: Any) -> Any:
        row = self._connection.execute(f"SELECT {call}", values).fetchone()
        return None if row is None else row[0]

    def _rows(self, call: str, *values: Any) -> list[dict[str, Any]]:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(f"SELECT * FROM {call}", values).fetchall()

    def _done(self, call: str, *values: Any) -> Answer:
        return {"done": self._one(call, *values)}

    # -- agents and traffic ----------------------------------------------------------------------------------------

    def _register(self, config: dict[str, Any]) -> Answer:
        return self._done("ruvector_register_agent_full(%s::jsonb)", json.dumps(config))

    def _update_agent(self, name: str, changes: dict[str, Any]) -> Answer:
        return self._done("ruvector_update_agent(%s, %s::jsonb)", name, json.dumps(changes))

    def _remove_agent(self, name: str) -> Answer:
        return self._done("ruvector_remove_agent(%s)", name)

    def _metrics(
        self, name: str, latency_ms: float | None = None, success: bool = True, quality: float | None = None
    ) -> Answer:
        call = "ruvector_update_agent_metrics(%s, %s::float8, %s, %s::float8)"
        return self._done(call, name, latency_ms, success, quality)

    def _route(
        self, request: str | None = None, objective: str = "balanced", constraints: Any = None, embedding: Any = None,
        context: Any = None, infer_capabilities: bool | None = None,
    ) -> Answer:  # fmt: skip
        limits, about = json.dumps(constraints), json.dumps(context)
        if embedding is not None:
            call = "ruvector_route(%s::real[], %s, %s::jsonb, context := %s::jsonb)"
            found = self._one(call, embedding, objective, limits, about)
        else:
            call = (
                "ruvector_route(%s::text, %s, constraints := %s::jsonb, context := %s::jsonb, infer_capabilities := %s)"
            )
            (found,) = self._rows(call, request, objective, limits, about, infer_capabilities)
        if found is None or found["agent_name"] is None:
            self._decisions.append("")
            return {"agent_name": None}
        self._decisions.append(found["decision_id"])
        return _only(found, DECIDED)

    def _feedback(self, of: int, **outcome: Any) -> Answer:
        types = {"success": "boolean", "output_tokens": "bigint", "input_tokens": "bigint"}
        names = {"cost_usd": "cost"}
        given = [f"{names.get(key, key)} := %s::{types.get(key, 'float8')}" for key in outcome]
        return self._done(f"ruvector_feedback({', '.join(['%s', *given])})", self._decisions[of], *outcome.values())

    # -- routes and classes ----------------------------------------------------------------------------------------

    def _create_route(self, config: dict[str, Any]) -> Answer:
        if "embedding" in config and config.keys() <= _THIRD_PLACE:
            values = [config.get(key) for key in ("name", "description", "embedding", "target_agent", "priority")]
            return self._done("ruvector_create_route(%s, %s, %s::real[], %s, coalesce(%s::integer, 0))", *values)
        named = {"description": None, **config}
        call = ", ".join(f"{key} := %s::{_ROUTE_TYPES[key][0]}" for key in named)
        values = [json.dumps(value) if key == "conditions" and value is not None else value
                  for key, value in named.items()]  # fmt: skip
        return self._done(f"ruvector_create_route({call})", *values)

    def _update_route(self, name: str, changes: Any) -> Answer:
        return self._done("ruvector_update_route(%s, %s::jsonb)", name, json.dumps(changes))

    def _delete_route(self, name: str) -> Answer:
        return self._done("ruvector_delete_route(%s)", name)

    def _add_utterances(self, name: str, utterances: list[str], negative: bool = False) -> Answer:
        call = "ruvector_add_utterances(%s, %s::text[], negative := %s)"
        return {"done": True, "count": self._one(call, name, utterances, negative)}

    def _remove_utterances(self, name: str, utterances: list[str]) -> Answer:
        return {"done": True, "count": self._one("ruvector_remove_utterances(%s, %s::text[])", name, utterances)}

    def _list_routes(self) -> Answer:
        return {"routes": self._rows("ruvector_list_routes()")}

    def _match(
        self, request: str | None = None, embedding: Any = None, top_k: int = 3, user_tier: str | None = None,
        count: bool = True,
    ) -> Answer:  # fmt: skip
        given, kind = (request, "text") if embedding is None else (embedding, "real[]")
        rows = self._rows(f"ruvector_semantic_route(%s::{kind}, %s, %s)", given, top_k, user_tier)
        if rows[0]["route_name"] is not None:
            return {"matches": rows, "none": None}
        (row,) = rows
        assert row["target_agent"] is None
        return {"matches": [], "none": {key: row[key] for key in ("similarity", "confidence")}}

    def _classify(self, request: str) -> Answer:
        found: Answer = self._one("ruvector_classify_request(%s)", request)
        return found

    # -- plans -----------------------------------------------------------------------------------------------------

    def _team(
        self, request: str, num_agents: int = 3, strategy: str = "pipeline", constraints: Any = None,
        options: Any = None,
    ) -> Answer:  # fmt: skip
        call = "ruvector_route_multi(%s, %s, %s, %s::jsonb, %s::jsonb)"
        rows = self._rows(call, request, num_agents, strategy, json.dumps(constraints), json.dumps(options))
        assert {row["strategy_used"] for row in rows} == {strategy.strip().lower()}
        return _team(rows)

    def _assign(
        self, requests: Any = None, embeddings: Any = None, constraints: Any = None, context: Any = None
    ) -> Answer:
        given, kind = (requests, "text[]") if embeddings is None else (embeddings, "real[]")
        call = f"ruvector_batch_route(%s::{kind}, 'total_cost', constraints := %s::jsonb, context := %s::jsonb)"
        rows = self._rows(call, given, json.dumps(constraints), json.dumps(context))
        assert [row["request_number"] for row in rows] == list(range(1, len(rows) + 1))
        return _assigned([None if row["agent_name"] is None else row for row in rows])

    def _optimize_budget(self, monthly_budget: Any, **more: Any) -> Answer:
        named = {"monthly_budget": monthly_budget, **more}
        call = f"ruvector_optimize_budget({', '.join(f'{key} := %s::float8' for key in named)})"
        found: Answer = self._one(call, *named.values())
        return found

    # -- budgets ---------------------------------------------------------------------------------------------------

    def _create_budget(self, config: dict[str, Any]) -> Answer:
        named = {_SQL_NAMES.get(key, key): value for key, value in config.items()}
        call = ", ".join(f"{key} := %s::{_BUDGET_TYPES[key][0]}" for key in named)
        values = [f"{value} seconds" if key == "release_after" else value for key, value in named.items()]
        return self._done(f"ruvector_create_budget({call})", *values)

    def _update_budget(self, name: str, changes: Any) -> Answer:
        return self._done("ruvector_update_budget(%s, %s::jsonb)", name, json.dumps(changes))

    def _remove_budget(self, name: str) -> Answer:
        return self._done("ruvector_remove_budget(%s)", name)

    def _list_budgets(self) -> Answer:
        return _accounts(self._rows("ruvector_list_budgets()"))

    def _budget_alerts(self, time_range: str = "7 days") -> Answer:
        return _alerts(self._rows("ruvector_budget_alerts(%s::interval)", time_range))

    def _report(self, **given: Any) -> Answer:
        named = ", ".join(f"{key} := %s::text" for key in given)
        return {"rows": self._rows(f"ruvector_routing_analytics({named})", *given.values())}


_NUMBER = (int, float)
_ROUTE_TYPES: dict[str, tuple[str, Any]] = {
    "name": ("text", str), "description": ("text", str), "target_agent": ("text", str), "priority": ("integer", int),
    "embedding": ("real[]", list), "threshold": ("float8", _NUMBER), "conditions": ("jsonb", object),
    "utterances": ("text[]", list), "negative_utterances": ("text[]", list), "is_active": ("boolean", bool),
}  # fmt: skip
_BUDGET_TYPES: dict[str, tuple[str, Any]] = {
    "name": ("text", str), "amount_usd": ("float8", _NUMBER), "period": ("text", (str, int)), "scope": ("text", str),
    "scope_value": ("text", str), "on_limit": ("text", str), "pacing": ("text", str), "alert_at": ("float8[]", list),
    "time_zone": ("text", str), "starts_at": ("timestamptz", str), "ends_at": ("timestamptz", str),
    "burst": ("float8", _NUMBER), "release_after": ("interval", _NUMBER), "is_active": ("boolean", bool),
}  # fmt: skip
_SQL_NAMES = {"release_after_s": "release_after"}
_THIRD_PLACE = {"name", "description", "embedding", "target_agent", "priority"}


class CommandDoor:
    """Commands in this process, on an SQLite file that ``python`` has open as well."""

    def __init__(self, folder: Path, embedder: Embedder) -> None:
        self._file = folder / "store.db"
        self.python = PythonDoor(self._file, embedder)
        self._tenant = ""

    def enter(self, scene: Scene) -> None:
        """What comes now is for the scene's tenant."""
        self._tenant = scene.name
        self.python.enter(scene)

    @staticmethod
    def says(step: Step) -> bool:
        """Whether there is a command that says exactly this."""
        return words_of(step) is not None

    def do(self, step: Step) -> Answer:
        """What the command printed."""
        words = words_of(step)
        assert words is not None, f"there is no command for {step}"
        command, read = words
        with _clock_of_commands(step.clock):
            where = ["--store", str(self._file), "--tenant", self._tenant, "-q"]
            result = CliRunner().invoke(app, [*where, *command], input=read)
        if result.exit_code != 0:
            error = json.loads(result.stderr)
            if result.exit_code != EXIT_CODES.get(error["error"]):
                error["error"] += f" with exit code {result.exit_code}"
            return {key: error[key] for key in ("error", "message", "hint", "exclusions") if key in error}
        found = json.loads(result.stdout)
        if step.call == "route":
            self.python.note_decision(found)
        return _printed(step, found)

    def close(self) -> None:
        """Close what Python has open."""
        self.python.close()


Door = PythonDoor | SqlDoor | CommandDoor


@contextmanager
def _clock_of_commands(now: float) -> Iterator[None]:
    defaults: dict[str, Any] = TinyDancer.__init__.__kwdefaults__ or {}
    before = defaults["clock"]
    defaults["clock"] = lambda: now
    try:
        yield
    finally:
        defaults["clock"] = before


def _printed(step: Step, found: Any) -> Answer:
    match step.call:
        case "match":
            return _matched(found)
        case "list_routes":
            return {"routes": found}
        case "list_budgets":
            return _accounts(found)
        case "budget_alerts":
            return _alerts(found)
        case "report":
            return {"rows": found["rows"]}
        case "team":
            return _team(found)
        case "assign":
            made = _assigned(found["decisions"])
            assert abs(made["total_cost"] - found["total_cost"]) <= 1e-9 * made["total_cost"]
            return made
        case "classify" | "optimize_budget":
            answer: Answer = found
            return answer
        case "route":
            return {"agent_name": None} if found is None else _only(found, DECIDED)
    return DONE


def _only(found: dict[str, Any], keys: tuple[str, ...]) -> Answer:
    return {key: found[key] for key in keys}


def _matched(found: dict[str, Any]) -> Answer:
    """`RouteAnswer.to_dict` as the rows of SQL have it."""
    if found["matches"]:
        assert found["route_name"] == found["matches"][0]["route_name"]
        return {"matches": found["matches"], "none": None}
    nearest = found["nearest"]
    similarity = None if nearest is None else nearest["similarity"]
    return {"matches": [], "none": {"similarity": similarity, "confidence": found["confidence"]}}


def _team(rows: list[dict[str, Any]]) -> Answer:
    assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
    return {"members": [_only(row, MEMBER) for row in rows], **_only(rows[0], TEAM)}


def _assigned(decisions: list[dict[str, Any] | None]) -> Answer:
    served = [decision for decision in decisions if decision is not None]
    return {
        "agents": [None if decision is None else decision["agent_name"] for decision in decisions],
        "total_cost": sum(decision["estimated_cost"] for decision in served),
        "mean_quality": sum(d["expected_quality"] for d in served) / len(served) if served else None,
    }


def _accounts(rows: list[dict[str, Any]]) -> Answer:
    """Budgets in one shape: instants in seconds, a period as a text."""
    times = ("starts_at", "ends_at", "period_start", "period_end")
    return {
        "budgets": [
            {**row, "period": str(row["period"]), **{key: _seconds(row[key]) for key in times}} for row in rows
        ]
    }  # fmt: skip


def _alerts(rows: list[dict[str, Any]]) -> Answer:
    """Alerts in one shape, those of one instant in order of budget and share."""
    raised = [_seconds(row["raised_at"]) or 0.0 for row in rows]
    assert raised == sorted(raised, reverse=True)
    made = [{**row, "raised_at": at, "period_start": _seconds(row["period_start"])}
            for row, at in zip(rows, raised, strict=True)]  # fmt: skip
    return {"alerts": sorted(made, key=lambda row: (-row["raised_at"], row["budget"], row["share"]))}


def _seconds(shown: Any) -> float | None:
    if shown is None:
        return None
    return (shown if isinstance(shown, datetime) else datetime.fromisoformat(shown)).timestamp()
