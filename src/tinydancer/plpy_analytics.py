"""The part of the SQL door that adds up the traffic.

In: a session, and arguments as PL/Python hands them over. Out: the answer as JSON text, or the error, as
`tinydancer.plpy_entry` gives them.
"""

from __future__ import annotations

from typing import Any

from tinydancer.analytics import routing_analytics, row_dict
from tinydancer.plpy_entry import Session

__all__ = ["call"]


def call(session: Session, operation: str, args: str) -> str | None:
    """``routing_analytics`` or ``rebuild_traffic`` with arguments as a JSON object."""
    return session._answer(_OPERATIONS[operation], args, session)


def _routing_analytics(args: dict[str, Any], session: Session) -> list[dict[str, Any]]:
    given = {key: value for key, value in args.items() if value is not None}
    found = routing_analytics(session._service(), **given)
    if found.note:
        session._plpy.notice(found.note)
    return [row_dict(row) for row in found.rows]


def _rebuild_traffic(args: dict[str, Any], session: Session) -> int:
    store: Any = session._service().store  # of this door it is the PostgreSQL one
    return int(store.rebuild_traffic())


_OPERATIONS = {"routing_analytics": _routing_analytics, "rebuild_traffic": _rebuild_traffic}
