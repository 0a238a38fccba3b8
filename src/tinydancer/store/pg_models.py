"""The part of the PostgreSQL store that holds models, and what is learned on top of them.

In: a model's file, checked by the caller; states of learning. Out: what any session committed. The statements lie in
``sql/postgres/queries/models.sql`` and ``learning.sql``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tinydancer import validation as check
from tinydancer.errors import NotFoundError, TinyDancerError
from tinydancer.store import models
from tinydancer.store.base import SHIPPED_MODEL, GradedFeatures, ModelRow
from tinydancer.store.pg_connection import Connection, Run
from tinydancer.store.pg_failures import PRIVILEGE_MISSING, READ_ONLY, UNIQUE_VIOLATION, DatabaseFailure, store_error
from tinydancer.store.pg_queries import QUERIES
from tinydancer.store.pg_rows import Row


class PostgresModels:
    """Mixed into `tinydancer.store.postgres.PostgresStore`, which opens the database."""

    _connection: Connection
    _tenant: str
    _clock: Callable[[], float]

    def insert_model(
        self, kind: str, name: str, sha256: str, artifact: bytes, metadata: Mapping[str, Any], *, replace: bool = False
    ) -> None:
        """Stores a model's file; `AlreadyExistsError` if the name is taken, unless `replace`."""
        row = (self._tenant, *models.model_parameters(kind, name, sha256, artifact, metadata), float(self._clock()))
        try:
            self._connection.write(QUERIES["put_model" if replace else "insert_model"], row)
        except DatabaseFailure as failure:
            if failure.sqlstate != UNIQUE_VIOLATION:
                raise store_error(failure) from None
            raise models.taken_error(kind, name) from None

    def list_models(self, kind: str | None = None) -> list[ModelRow]:
        """Those that are stored, of one kind or of all, in order of kind and name."""
        return [models.model_of(row) for row in self._fetch("list_models", self._tenant, kind)]

    def get_model(self, kind: str, name: str) -> ModelRow:
        """One that is stored, without its weights; `NotFoundError` with the nearest name as a hint."""
        rows = self._fetch("get_model", self._tenant, str(kind), str(name))
        if not rows:
            raise self._unknown_model(kind, name)
        return models.model_of(rows[0])

    def model_artifact(self, kind: str, name: str) -> bytes:
        """The file of one that is stored; `NotFoundError`."""
        rows = self._fetch("model_artifact", self._tenant, str(kind), str(name))
        if not rows:
            raise self._unknown_model(kind, name)
        return bytes(rows[0][0])

    def activate_model(self, kind: str, name: str | None) -> None:
        """Lets a stored model decide, or `SHIPPED_MODEL`, or with None none; `NotFoundError`."""
        check.name_of(kind, "kind of model")

        def work(run: Run) -> None:
            # One statement would not do: after it had waited for the lock, it would still see what was active before.
            run(QUERIES["change_registry"], (self._tenant,))
            run(QUERIES["deactivate_models"], (self._tenant, kind))
            if name == SHIPPED_MODEL:
                run(QUERIES["activate_shipped"], (self._tenant, kind, SHIPPED_MODEL, float(self._clock())))
            elif name is not None and not run(QUERIES["activate_model"], (self._tenant, kind, str(name))):
                names = run(QUERIES["model_names"], (self._tenant, kind))
                raise models.unknown_model(kind, name, (row[0] for row in names))

        try:
            self._connection.together(work)
        except DatabaseFailure as failure:
            raise store_error(failure) from None

    def active_model(self, kind: str) -> ModelRow | None:
        """The one that decides: a stored one, the shipped one (``is_shipped``), or None."""
        return models.active_model_of(self._fetch("active_model", self._tenant, str(kind)), kind)

    def delete_model(self, kind: str, name: str) -> None:
        """Removes one that is stored; if it was active, none is. `NotFoundError`."""
        try:
            removed = self._connection.write(QUERIES["delete_model"], (self._tenant, str(kind), str(name)))[0][0]
        except DatabaseFailure as failure:
            raise store_error(failure) from None
        if not removed:
            raise self._unknown_model(kind, name)

    def graded_features(self, after: int, limit: int) -> list[GradedFeatures]:
        """Judged outcomes after an outcome id, in order, whose decisions have features.

        An outcome comes only when no transaction is open any more that began to write before its own: ids are drawn
        before commits, and a reader that goes on from the last one would miss what is committed late.
        """
        bounds = check.count(after, "after"), check.count(limit, "limit")
        return [models.graded_of(row) for row in self._fetch("graded_features", self._tenant, *bounds)]

    def ability_state(self, model_sha256: str) -> tuple[int, bytes] | None:
        """What was learned on top of a model, and up to which outcome id."""
        rows = self._fetch("ability_state", self._tenant, str(model_sha256))
        return (rows[0][0], bytes(rows[0][1])) if rows else None

    def save_ability_state(self, model_sha256: str, up_to: int, state: bytes) -> bool:
        """Keeps a state that knows more outcomes than the stored one; whether it did.

        False, too, where another session is at it, in a transaction that is read-only or not READ COMMITTED, and for a
        role that may only read.
        """
        row = (self._tenant, *models.state_parameters(model_sha256, up_to, state))
        try:
            return bool(self._connection.write(QUERIES["save_ability_state"], row))
        except DatabaseFailure as failure:
            if failure.sqlstate in (READ_ONLY, PRIVILEGE_MISSING):
                return False
            raise store_error(failure) from None
        except TinyDancerError as error:  # a connection inside the server may have translated it already
            if error.sqlstate in (READ_ONLY, PRIVILEGE_MISSING):
                return False
            raise

    def _unknown_model(self, kind: str, name: str) -> NotFoundError:
        names = self._fetch("model_names", self._tenant, str(kind))
        return models.unknown_model(kind, name, (row[0] for row in names))

    def _fetch(self, name: str, *parameters: Any) -> list[Row]:
        try:
            return self._connection.fetch(QUERIES[name], parameters)
        except DatabaseFailure as failure:
            raise store_error(failure) from None
