"""The part of the SQL door that plans: teams, batches under one account, budgets.

In: a session, and arguments as PL/Python hands them over. Out: the answer as JSON text or as columns, or the error, as
`tinydancer.plpy_entry` gives them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tinydancer.errors import InvalidInputError, InvalidTextError, InvalidVectorError
from tinydancer.planning import assign_batch, optimize_budget, route_multi
from tinydancer.plpy_entry import (
    COLUMNS,
    MAX_BATCH,
    Session,
    _columns,
    _constraints,
    _latency_text,
    _limits,
    array_of,
)
from tinydancer.policy.wording import plural

__all__ = ["assign_many", "call"]

_PLAN_KEYS = ("min_mean_quality", "capacities")


def assign_many(
    session: Session, requests: list[Any] | None, embeddings: bytes | None, ids: int | None, limits: str,
    explain: bool | None,
) -> tuple[Any, ...]:  # fmt: skip
    """``ruvector_batch_route`` and ``ruvector_route_rows`` for ``total_cost``: as `Session.route_many`."""
    try:
        return (None, *_assign(session, requests, embeddings, ids, json.loads(limits), explain is True))
    except Exception as error:
        return (session._failure_of(error), *[None] * COLUMNS)


def call(session: Session, operation: str, args: str) -> str | None:
    """``route_multi`` or ``optimize_budget`` with arguments as a JSON object."""
    return session._answer(_OPERATIONS[operation], args, session)


def _assign(
    session: Session, requests: list[Any] | None, embeddings: bytes | None, ids: int | None,
    given: dict[str, Any], explain: bool,
) -> tuple[list[Any] | None, ...]:  # fmt: skip
    vectors = None
    if embeddings is None:
        if requests is None:
            raise InvalidTextError("The requests are NULL; expected a text[].")
        if None in requests:
            raise InvalidTextError(f"Request number {requests.index(None) + 1} is NULL; expected a text.")
        count, what = len(requests), "requests"
    else:
        if not embeddings:
            raise InvalidVectorError("The embeddings are NULL; expected a float4[] with a vector in each row.")
        vectors = array_of(embeddings, "Embedding number {row}")
        count, what = len(vectors), "embeddings"
        if count and vectors.ndim != 2:
            raise InvalidVectorError(
                f"The embeddings have {plural(vectors.ndim, 'dimension')}; expected two, a vector in each row."
            )
        requests = None
    if ids is not None and ids != count:
        raise InvalidInputError(f"{ids:,} ids and {count:,} {what} are given; expected as many.")
    if not count:
        raise InvalidInputError("The batch is empty; expected at least one request.")
    if count > MAX_BATCH:
        raise InvalidInputError(
            f"{count:,} requests are given; expected at most {MAX_BATCH:,} in one call.", hint="Call it in parts."
        )
    constraints, limits = _limits(given)
    if isinstance(constraints, Mapping):
        limits = {**{key: constraints[key] for key in _PLAN_KEYS if constraints.get(key) is not None}, **limits}
        constraints = _constraints({key: value for key, value in constraints.items() if key not in _PLAN_KEYS})
    plan = assign_batch(session._service(), requests, constraints, embeddings=vectors, **limits)
    return _columns(plan.decisions, explain=explain)


def _route_multi(args: dict[str, Any], session: Session) -> list[dict[str, Any]]:
    request = args["request"]
    if request is None:
        raise InvalidTextError("The request is NULL; expected a text.")
    count = 3 if args["num_agents"] is None else args["num_agents"]
    strategy = "pipeline" if args["strategy"] is None else args["strategy"]
    options = {} if args["options"] is None else args["options"]
    if not isinstance(options, Mapping):
        raise InvalidInputError('The options are no JSON object; expected one, such as {"quality_target": 0.9}.')
    team = route_multi(session._service(), request, count, strategy, _constraints(args["constraints"]), **options)
    return [{**row, "estimated_latency": _latency_text(row["estimated_latency_ms"])} for row in team.rows()]


def _optimize_budget(args: dict[str, Any], session: Session) -> dict[str, Any]:
    if args["monthly_budget"] is None:
        raise InvalidInputError("The monthly_budget is NULL; expected USD.")
    given = {key: value for key, value in args.items() if value is not None}
    return optimize_budget(session._service(), **given).to_dict()


_OPERATIONS = {"route_multi": _route_multi, "optimize_budget": _optimize_budget}
