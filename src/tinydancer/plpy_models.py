"""The part of the SQL door that manages and trains models.

In: a session, and arguments as PL/Python hands them over. Out: the answer as JSON text, or the error as JSON text, as
`tinydancer.plpy_entry` gives them. What a role may change is decided by the privileges on the table of models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinydancer import models
from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.plpy_entry import ServerRefusalError, Session
from tinydancer.store.pg_failures import PRIVILEGE_MISSING, READ_ONLY
from tinydancer.store.pg_queries import load_typed_queries

if TYPE_CHECKING:
    from tinydancer.train import Trained

__all__ = ["call", "load_model", "train_router"]

MOST_OUTCOMES = 1_000_000
"""Judged answers that one training may ask for."""
LOOK_EVERY_S = 0.1
"""How often a training asks the server whether to go on."""
NOT_READY = "55000"
"""SQLSTATE where the arguments are right and what was recorded does not suffice."""

_Q = load_typed_queries(Path(__file__).with_suffix(".sql"))


def load_model(session: Session, name: str | None, artifact: bytes | None, replace: bool | None) -> str | None:
    """``ruvector_load_model``: checks, stores and activates."""

    def work(_: Any) -> dict[str, Any]:
        store, given = session._service().store, _required(name, "model name")
        models.add_model(store, given, _required(artifact, "model's file"), replace=replace is True)
        models.use_model(store, given)
        return models.get_model(store, given).to_dict()

    return session._answer(work, None)


def train_router(session: Session, args: str) -> str | None:
    """``ruvector_train_router``: learns from what the tenant recorded, stores and activates what came out."""
    return session._answer(_train, args, session)


def call(session: Session, operation: str, args: str) -> str | None:
    """``list_models``, ``use_model`` or ``remove_model`` with arguments as a JSON object."""
    return session._answer(_OPERATIONS[operation], args, session)


def _train(args: dict[str, Any], session: Session) -> dict[str, Any]:
    # Neither every session nor every start of the program pays for what only a training needs.
    from tinydancer.model.quality_training import QualityTrainingConfig
    from tinydancer.train import STRENGTHS, STRENGTHS_FROM_START, train_recorded

    store = session._service().store
    given = {key: value if key == "start" else _required(value, f"value of {key}") for key, value in args.items()}
    name, replace = given["name"], given["replace"]
    most = check.count(given["max_outcomes"], "max_outcomes", low=1, high=MOST_OUTCOMES)
    _require_administrator(session)
    models.require_addable(store, name, replace=replace)
    start = None if given["start"] is None else models.load_model(store, given["start"])
    # A model to start from is one network already, of the size it has.
    shape: dict[str, Any] = {} if start is None else {"hidden_dim": start.hidden_dim, "members": 1}
    strengths = STRENGTHS if start is None else STRENGTHS_FROM_START
    config = QualityTrainingConfig(strengths=strengths, seed=given["seed"], **shape)
    if start is not None:
        store.space.require(start.space, "The model to start from")
    try:
        trained = train_recorded(
            store, config=config, start=start, name=name, most=most, progress=_going_on(session)
        )  # fmt: skip
    except InvalidInputError as error:  # every argument was looked at: it is the data that do not suffice
        raise ServerRefusalError(NOT_READY, error.message, hint=error.hint) from None
    card = models.add_trained_model(store, name, trained.model, replace=replace)
    if given["activate"]:
        models.use_model(store, name)
        card = models.get_model(store, name)
    return {
        "name": card.name, "sha256": card.sha256, "size_bytes": card.size_bytes, "is_active": card.is_active,
        "facts": {key: value for key, value in trained.model.facts.items() if key != "cross_validated"},
        "evaluation": _figures(trained), "warnings": list(dict.fromkeys(_warnings(trained))),
    }  # fmt: skip


def _figures(trained: Trained) -> dict[str, Any]:
    """The headline figures on requests that were left out of the training."""
    (found,) = trained.model.facts["cross_validated"]
    figures = {key: value for key, value in found.items() if key != "intervals"}
    figures["brier"], figures["brier_of_means"] = _errors(trained)
    return figures | dict.fromkeys(_OF_CHOOSING) if _nobody_compared(trained) else figures


def _warnings(trained: Trained) -> Iterator[str]:
    own, means = _errors(trained)
    if own is not None and means is not None and own >= means:
        yield (
            f"On requests it had not seen, the model predicts quality no better than each agent's mean does: mean "
            f"squared error {own:.4f} against {means:.4f}."
        )
    if _nobody_compared(trained):
        yield (
            "No request was answered by more than one agent, so how good its choices are cannot be told: "
            f"{', '.join(_OF_CHOOSING)} are null."
        )
    yield from trained.warnings
    yield from trained.evaluation.warnings


def _nobody_compared(trained: Trained) -> bool:
    return bool(trained.evaluation.outcomes == trained.evaluation.requests)


def _errors(trained: Trained) -> tuple[float | None, float | None]:
    """Mean squared error of the model's predictions, and of each agent's mean, whatever the request."""
    own, *others = trained.evaluation.ways
    means = next(way for way in others if way.kind == "baseline" and way.name == "best single")
    return own.values["brier"], means.values["brier"]


_OF_CHOOSING = (
    "apgr", "cpt50", "cpt80", "relative_cost_at_95", "relative_cost_at_100", "routed_quality", "oracle_quality",
)  # fmt: skip


def _require_administrator(session: Session) -> None:
    may, read_only = session._connection.fetch(_Q["may_change_models"])[0]
    if not may:
        raise ServerRefusalError(
            PRIVILEGE_MISSING, "Only administrators may train models.", hint="Grant the role tiny_dancer_admin."
        )
    if read_only == "on":
        raise ServerRefusalError(READ_ONLY, "A model cannot be trained in a read-only transaction.")


def _going_on(session: Session) -> Callable[[float, str], None]:
    """A training's progress: Python notices neither a cancelled statement nor a timeout, but the server does."""
    asked = time.monotonic()

    def progress(_share: float, _what: str) -> None:
        nonlocal asked
        if time.monotonic() - asked >= LOOK_EVERY_S:
            session._connection.fetch(_Q["go_on"])
            asked = time.monotonic()

    return progress


def _list(args: dict[str, Any], session: Session) -> list[dict[str, Any]]:
    return [card.to_dict() for card in models.list_models(session._service().store)]


def _use(args: dict[str, Any], session: Session) -> bool:
    models.use_model(session._service().store, _required(args["name"], "model name"))
    return True


def _remove(args: dict[str, Any], session: Session) -> bool:
    models.remove_model(session._service().store, _required(args["name"], "model name"))
    return True


_OPERATIONS = {"list_models": _list, "use_model": _use, "remove_model": _remove}


def _required(value: Any, what: str) -> Any:
    if value is None:
        raise InvalidInputError(f"The {what} is NULL; expected a value.")
    return value
