"""What both stores say of models in the same words: names that are reserved, rows, errors.

In: what a caller gave, or a row of the queries in ``queries/models.sql``. Out: checked values, `ModelRow`, or the error
to raise.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tinydancer import validation as check
from tinydancer.errors import AlreadyExistsError, InvalidInputError, InvalidNameError, NotFoundError
from tinydancer.store.base import NO_MODEL, SHIPPED_MODEL, GradedFeatures, ModelRow

Row = tuple[Any, ...]

_DIGEST = re.compile(r"[0-9a-f]{64}")


def model_parameters(kind: str, name: str, sha256: str, artifact: bytes, metadata: Mapping[str, Any]) -> Row:
    """The parameters of ``insert_model`` after the tenant and before the time, checked.

    Raises
    ------
    InvalidNameError
        A name that is none, or one of the two that are reserved.
    InvalidInputError
        A hash that is none, an empty file, or metadata that is no JSON object.
    """
    check.name_of(kind, "kind of model")
    require_free_name(name)
    try:
        text = json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"The metadata of the model {name!r} are no JSON object: {error}.") from None
    if not artifact:
        raise InvalidInputError(f"The file of the model {name!r} is empty.")
    return kind, name, _digest(sha256), bytes(artifact), text


def require_free_name(name: str) -> None:
    """Raise `InvalidNameError` for a name that no model can be stored under."""
    check.name_of(name, "model name")
    if name in (SHIPPED_MODEL, NO_MODEL):
        raise InvalidNameError(f"A model cannot be named {name!r}: the name is reserved.", hint="Choose another name.")


def state_parameters(model_sha256: str, up_to: int, state: bytes) -> Row:
    """The parameters of ``save_ability_state`` after the tenant, checked."""
    return _digest(model_sha256), check.count(up_to, "up_to"), bytes(state)


def model_of(row: Row) -> ModelRow:
    """From a row of ``list_models`` or ``get_model``."""
    kind, name, sha256, size_bytes, metadata, is_active, created_at = row
    return ModelRow(
        kind=kind, name=name, sha256=sha256, size_bytes=size_bytes, metadata=json.loads(metadata),
        is_active=bool(is_active), created_at=created_at,
    )  # fmt: skip


def active_model_of(rows: list[Row], kind: str) -> ModelRow | None:
    """From the rows of ``active_model``: no row is no model, one without a size stands for the shipped one."""
    if not rows:
        return None
    if rows[0][3] is not None:
        return model_of(rows[0])
    return ModelRow(kind=kind, name=SHIPPED_MODEL, sha256="", size_bytes=0, metadata={}, is_active=True, created_at=0.0)


def graded_of(row: Row) -> GradedFeatures:
    """From a row of ``graded_features``."""
    return GradedFeatures(
        outcome_id=row[0], agent_name=row[1], quality=row[2], features=row[3], request=row[4], cost_usd=row[5],
        occurred_at=row[6],
    )  # fmt: skip


def taken_error(kind: str, name: str) -> AlreadyExistsError:
    """The name is another model's."""
    return AlreadyExistsError(
        f"A {kind} named {name!r} is stored already.", hint="Replace it, remove it first, or choose another name."
    )


def unknown_model(kind: str, name: str, names: Iterable[str]) -> NotFoundError:
    """No such model is stored."""
    near = difflib.get_close_matches(str(name), [SHIPPED_MODEL, *names], n=1)
    return NotFoundError(
        f"No {kind} named {check.shown(name)} is stored.",
        hint=f"Did you mean {near[0]!r}?" if near else "Add it first.",
    )


def _digest(sha256: str) -> str:
    if not _DIGEST.fullmatch(str(sha256)):
        raise InvalidInputError(f"The hash of the model is {check.shown(sha256)}; expected 64 hexadecimal digits.")
    return sha256
