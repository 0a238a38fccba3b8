"""The ways in, behind one face. In: a group, then its cases. Out: what each door answered, in the same words.

An answer is the fields of the decision, None where no agent fits, or an error: its code (SQL has none), SQLSTATE
(the command line has none), message, hint, and the reasons per agent.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from typer.testing import CliRunner

from tests.conformance.cases import JUDGED, Case, Group, config_of
from tinydancer import Settings, TinyDancer
from tinydancer.cli import app
from tinydancer.cli.exit_codes import exit_code_of
from tinydancer.embedding.base import Embedder
from tinydancer.errors import NoMatchError, TinyDancerError
from tinydancer.models import use_model

Answer = dict[str, Any] | None
FIELDS = (
    "agent_name", "confidence", "uncertainty", "estimated_cost", "estimated_latency_ms", "expected_quality",
    "similarity_score", "objective", "model", "reasoning", "alternatives",
)  # fmt: skip
NUMBERS = ("max_cost", "max_latency_ms", "min_quality", "budget_remaining", "good_enough")
NAMES = ("required_capabilities", "excluded_agents")


class PythonDoor:
    """`TinyDancer` itself over one store; each group is a tenant."""

    def __init__(self, store: str | Path, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder
        self._open: dict[str, TinyDancer] = {}

    def prepare(self, group: Group) -> None:
        """Choose the group's model, register its agents, report their outcomes, change what changes."""
        dancer = TinyDancer(self._store, settings=Settings(tenant=group.name), embedder=self._embedder)
        self._open[group.name] = dancer
        if group.model is not None:
            use_model(dancer.store, group.model)
        for config in group.agents:
            dancer.register_agent_full(config)
        names = {agent["name"] for agent in group.agents}
        for given in group.outcomes:
            outcome = {key: value for key, value in given.items() if key not in ("routed", "name")}
            name = given["name"]
            if given.get("routed"):
                decision = dancer.route(outcome.pop("request", JUDGED), excluded_agents=sorted(names - {name}))
                dancer.feedback(decision.decision_id or "", **outcome)
            else:
                dancer.update_agent_metrics(name, **outcome)
        for change in group.changes:
            _change(dancer, change)

    def answer(self, group: Group, case: Case) -> Answer:
        """What the door says to one case."""
        try:
            return self._call(self._open[group.name], case)
        except NoMatchError as error:
            return {**error_of(error), "exclusions": error.exclusions}
        except TinyDancerError as error:
            return error_of(error)

    def _call(self, dancer: TinyDancer, case: Case) -> Answer:
        if case.call != "route":
            return {"returned": repr(_change(dancer, {"call": case.call, **case.arguments}))}
        decision: Any = dancer.route(
            case.request, case.objective, case.constraints, embedding=case.embedding, **case.sizes
        )
        return None if decision is None else _fields(decision.to_dict())

    def close(self) -> None:
        for dancer in self._open.values():
            dancer.close()


def _change(dancer: TinyDancer, given: dict[str, Any]) -> Any:
    rest = {key: value for key, value in given.items() if key not in ("call", "name")}
    match given["call"]:
        case "register":
            return dancer.register_agent_full(_config(given["config"]))
        case "update":
            return dancer.update_agent(given["name"], _config(given["changes"]))
        case "remove":
            return dancer.remove_agent(given["name"])
        case "set_active":
            return dancer.set_agent_active(given["name"], given["is_active"])
        case "get":
            return dancer.get_agent(given["name"])
        case "metrics":
            return dancer.update_agent_metrics(given["name"], **rest)
        case "embed":
            return dancer.embed(given["text"])
        case "feedback":
            return dancer.feedback(rest.pop("decision_id"), **rest)
    raise AssertionError(given)


def _config(given: Any) -> Any:
    return config_of(given) if isinstance(given, dict) else given


def error_of(error: TinyDancerError) -> dict[str, Any]:
    return {"error": error.code, "sqlstate": error.sqlstate, "message": error.message, "hint": error.hint}


def _fields(decision: dict[str, Any]) -> dict[str, Any]:
    return {key: decision[key] for key in FIELDS}


class SqlDoor:
    """The functions of the extension; each group is a tenant.

    Parameters
    ----------
    connection
        In autocommit mode, to a database that has the extension.
    as_json
        Limits of a text's routing go into ``constraints`` as jsonb, instead of each into its own argument.
    outside
        Registers the agents and reports the outcomes instead, from outside the server on the same tables.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], *, as_json: bool = False, outside: PythonDoor | None = None
    ) -> None:
        self._connection = connection
        self._as_json = as_json
        self._outside = outside

    def prepare(self, group: Group) -> None:
        """Choose the group's model, register its agents, report their outcomes, change what changes."""
        if self._outside is not None:
            self._outside.prepare(group)
            return
        self._enter(group)
        if group.model is not None:
            self._value("ruvector_use_model(%s)", group.model)
        for config in group.agents:
            self._value("ruvector_register_agent_full(%s::jsonb)", json.dumps(config))
        names = {agent["name"] for agent in group.agents}
        for given in group.outcomes:
            outcome = {key: value for key, value in given.items() if key not in ("routed", "name")}
            name = given["name"]
            if given.get("routed"):
                call = "decision_id FROM ruvector_route(%s::text, excluded_agents := %s::text[])"
                decision_id = self._value(call, outcome.pop("request", JUDGED), sorted(names - {name}))
                self._feedback(decision_id, outcome)
            else:
                self._change({"call": "metrics", "name": name, **outcome})
        for change in group.changes:
            self._change(change)

    def answer(self, group: Group, case: Case) -> Answer:
        """What the door says to one case."""
        self._enter(group)
        try:
            return self._call(case)
        except psycopg.Error as error:
            diag = error.diag
            found: dict[str, Any] = {
                "sqlstate": error.sqlstate, "message": diag.message_primary, "hint": diag.message_hint or "",
            }  # fmt: skip
            if diag.message_detail:
                lines = diag.message_detail.split("\n")
                found["exclusions"] = dict(line.split(": ", 1) for line in lines)
            return found

    def _enter(self, group: Group) -> None:
        self._connection.execute("SELECT set_config('tiny_dancer.tenant', %s, false)", (group.name,))

    def _call(self, case: Case) -> Answer:
        if case.call != "route":
            return {"returned": repr(self._change({"call": case.call, **case.arguments}))}
        if case.embedding is not None:
            given = json.dumps(case.constraints)
            decision = self._value("ruvector_route(%s::real[], %s, %s::jsonb)", case.embedding, case.objective, given)
            return None if decision is None else _fields(decision)
        named = {} if self._as_json else _typed(case.constraints)
        rest = {key: value for key, value in case.constraints.items() if key not in named} or None
        call = ["%s::text", "%s::text"]
        call += [f"{key} := %s::{_sql_type(key)}" for key in named]
        call += [f"{key} := %s::float8" for key in case.sizes]
        call += ["constraints := %s::jsonb"]
        values = [case.request, case.objective, *named.values(), *case.sizes.values(), json.dumps(rest)]
        with self._connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(f"SELECT * FROM ruvector_route({', '.join(call)})", values).fetchone()
        assert row is not None
        return None if row["agent_name"] is None else _fields(row)

    def _change(self, given: dict[str, Any]) -> Any:
        rest = {key: value for key, value in given.items() if key not in ("call", "name")}
        name = given.get("name")
        match given["call"]:
            case "register":
                return self._value("ruvector_register_agent_full(%s::jsonb)", json.dumps(_config(given["config"])))
            case "update":
                changes = json.dumps(_config(given["changes"]))
                return self._value("ruvector_update_agent(%s, %s::jsonb)", name, changes)
            case "remove":
                return self._value("ruvector_remove_agent(%s)", name)
            case "set_active":
                return self._value("ruvector_set_agent_active(%s, %s)", name, given["is_active"])
            case "get":
                return self._value("ruvector_get_agent(%s)", name)
            case "metrics":
                call = "ruvector_update_agent_metrics(%s, %s::float8, %s, %s::float8)"
                return self._value(call, name, rest.get("latency_ms"), rest.get("success", True), rest.get("quality"))
            case "embed":
                return self._value("ruvector_embed(%s)", given["text"])
            case "feedback":
                return self._feedback(rest.pop("decision_id"), rest)
        raise AssertionError(given)

    def _feedback(self, decision_id: str, outcome: dict[str, Any]) -> Any:
        names = {"cost_usd": "cost", "quality": "quality", "latency_ms": "latency_ms"}
        given = [f"{names.get(k, k)} := %s::{'float8' if k in names else _OTHER[k]}" for k in outcome]
        return self._value(f"ruvector_feedback({', '.join(['%s', *given])})", decision_id, *outcome.values())

    def _value(self, call: str, *values: Any) -> Any:
        row = self._connection.execute(f"SELECT {call}", values).fetchone()
        return None if row is None else row[0]

    def close(self) -> None:
        self._connection.close()
        if self._outside is not None:
            self._outside.close()


_OTHER = {"success": "boolean", "output_tokens": "bigint", "input_tokens": "bigint"}


def _typed(constraints: dict[str, Any]) -> dict[str, Any]:
    """The constraints that are of their argument's type."""
    typed = {}
    for key, value in constraints.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        texts = isinstance(value, list) and all(isinstance(v, str) for v in value)
        if (key in NUMBERS and number) or (key in NAMES and texts) or (key == "on_no_match" and isinstance(value, str)):
            typed[key] = value
    return typed


def _sql_type(key: str) -> str:
    return "float8" if key in NUMBERS else "text[]" if key in NAMES else "text"


class CommandDoor:
    """``tinydancer route --json`` in this process, on SQLite files that a `PythonDoor` prepared."""

    def __init__(self, folder: Path, embedder: Embedder) -> None:
        self._folder = folder
        self._embedder = embedder

    def prepare(self, group: Group) -> None:
        if group.model is not None:
            chosen = CliRunner().invoke(app, [*self._where(group), "models", "use", group.model])
            assert chosen.exit_code == 0, chosen.stderr
        door = PythonDoor(self._folder / "store.db", self._embedder)
        door.prepare(replace(group, model=None))
        door.close()

    def _where(self, group: Group) -> list[str]:
        return ["--store", str(self._folder / "store.db"), "--tenant", group.name, "-q"]

    def answer(self, group: Group, case: Case) -> Answer:
        """What the command printed."""
        args = [*self._where(group), "route", "--json", "-o", case.objective]
        flags = {"required_capabilities": "--require", "excluded_agents": "--exclude"}
        for key, value in {**case.constraints, **case.sizes}.items():
            for one in value if isinstance(value, list) else [value]:
                args += [flags.get(key, f"--{key.replace('_', '-')}"), str(one)]
        result = CliRunner().invoke(app, [*args, "--", str(case.request)])
        if result.exit_code == 0:
            decision = json.loads(result.stdout)
            return None if decision is None else _fields(decision)
        error = json.loads(result.stderr)
        if result.exit_code != EXIT_CODES.get(error["error"]):
            error["error"] += f" with exit code {result.exit_code}"
        return {key: error[key] for key in ("error", "message", "hint", "exclusions") if key in error}

    def close(self) -> None:
        """Nothing stays open."""


def _subclasses(kind: type[TinyDancerError]) -> list[type[TinyDancerError]]:
    return [kind, *(c for direct in kind.__subclasses__() for c in _subclasses(direct))]


EXIT_CODES = {kind.code: exit_code_of(kind.__new__(kind, "")) for kind in _subclasses(TinyDancerError)}

Door = PythonDoor | SqlDoor | CommandDoor


def can_say(door: str, case: Case) -> bool:
    """Whether a case can be put to a door at all: not every door has a word for everything."""
    if door == "cli":
        sayable = len(_typed(case.constraints)) == len(case.constraints)
        return sayable and case.call == "route" and case.request is not None
    if door.startswith("sql"):
        if case.embedding is not None:
            return not case.sizes
        return "cached_input_tokens" not in case.sizes
    return True
