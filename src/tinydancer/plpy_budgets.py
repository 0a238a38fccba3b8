"""The part of the SQL door that manages budgets.

In: a session, and arguments as PL/Python hands them over. Out: the answer as JSON text, or the error as JSON text, as
`tinydancer.plpy_entry` gives them. What a role may change is decided by the privileges on the tables.
"""

from __future__ import annotations

from typing import Any

from tinydancer.budgets import Budgets, alert_dict
from tinydancer.errors import InvalidInputError
from tinydancer.plpy_entry import Session

__all__ = ["call"]


def call(session: Session, operation: str, args: str) -> str | None:
    """One of the operations below with arguments as a JSON object."""
    return session._answer(_OPERATIONS[operation], args, session)


def _create(args: dict[str, Any], session: Session) -> bool:
    if isinstance(args.get("alert_at"), list) and None in args["alert_at"]:
        raise InvalidInputError("alert_at holds a NULL; expected shares of the amount.")
    Budgets(session._service()).create_from(args)
    return True


def _update(args: dict[str, Any], session: Session) -> bool:
    name, changes = _required(args, "name", "name of the budget"), _required(args, "changes", "change")
    Budgets(session._service()).update(name, changes)
    return True


def _remove(args: dict[str, Any], session: Session) -> bool:
    Budgets(session._service()).remove(_required(args, "name", "name of the budget"))
    return True


def _list(args: dict[str, Any], session: Session) -> list[dict[str, Any]]:
    found = [status.to_dict() for status in Budgets(session._service()).list()]
    return [{**status, "period": str(status["period"])} for status in found]


def _alerts(args: dict[str, Any], session: Session) -> list[dict[str, Any]]:
    time_range = _required(args, "time_range", "time_range")
    return [alert_dict(alert) for alert in Budgets(session._service()).alerts(time_range)]


_OPERATIONS = {
    "create_budget": _create, "update_budget": _update, "remove_budget": _remove, "list_budgets": _list,
    "budget_alerts": _alerts,
}  # fmt: skip


def _required(args: dict[str, Any], key: str, what: str) -> Any:
    if args.get(key) is None:
        raise InvalidInputError(f"The {what} is NULL; expected a value.")
    return args[key]
