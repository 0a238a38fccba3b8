"""The part of the SQL door that trains classifiers of requests, and chooses among them.

In: a session, and arguments as PL/Python hands them over. Out: the answer as JSON text, or the error as JSON text, as
`tinydancer.plpy_entry` gives them. What a role may change is decided by the privileges on the table of models.
"""

from __future__ import annotations

from typing import Any

from tinydancer.classification import RequestClassification
from tinydancer.classification_files import Example
from tinydancer.errors import InvalidInputError, InvalidTextError
from tinydancer.plpy_entry import Session
from tinydancer.plpy_models import _going_on, _require_administrator

__all__ = ["call"]


def call(session: Session, operation: str, args: str) -> str | None:
    """One of the operations below with arguments as a JSON object."""
    return session._answer(_OPERATIONS[operation], args, session)


def _train(args: dict[str, Any], session: Session) -> dict[str, Any]:
    texts, labels = _required(args["examples"], "examples"), _required(args["classes"], "classes")
    name = _required(args["name"], "classifier name")
    needs = [None] * len(texts) if args["capabilities"] is None else args["capabilities"]
    if not len(texts) == len(labels) == len(needs):
        raise InvalidInputError(
            f"There are {len(texts):,} examples, {len(labels):,} classes and {len(needs):,} capabilities; expected as "
            "many of each."
        )
    for what, values in (("Example", texts), ("Class", labels)):
        if None in values:
            raise InvalidTextError(f"{what} number {values.index(None) + 1} is NULL; expected a text.")
    examples = [
        Example(text, label, tuple(part.strip() for part in (named or "").split(",") if part.strip()))
        for text, label, named in zip(texts, labels, needs, strict=True)
    ]
    _require_administrator(session)
    kinds = RequestClassification(session._service())
    classifier, report = kinds.train(examples, seed=_required(args["seed"], "seed"), progress=_going_on(session))
    kinds.keep(name, classifier)
    return {
        "name": name, "classes": list(classifier.classes), "capabilities": list(classifier.capabilities),
        "report": report.to_dict(),
    }  # fmt: skip


def _use(args: dict[str, Any], session: Session) -> bool:
    RequestClassification(session._service()).use(_required(args["name"], "classifier name"))
    return True


def _remove(args: dict[str, Any], session: Session) -> bool:
    RequestClassification(session._service()).remove(_required(args["name"], "classifier name"))
    return True


_OPERATIONS = {"train_classifier": _train, "use_classifier": _use, "remove_classifier": _remove}


def _required(value: Any, what: str) -> Any:
    if value is None:
        raise InvalidInputError(f"The {what} is NULL; expected a value.")
    return value
