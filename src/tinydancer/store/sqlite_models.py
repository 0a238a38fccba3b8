"""The part of the SQLite store that holds models, and what is learned on top of them.

In: a model's file, checked by the caller; states of learning. Out: what any process committed. The statements lie in
``sql/sqlite/queries/models.sql``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from tinydancer import validation as check
from tinydancer.errors import NotFoundError, StoreLockedError, StoreReadOnlyError
from tinydancer.store import models
from tinydancer.store.base import SHIPPED_MODEL, GradedFeatures, ModelRow
from tinydancer.store.connection import Connection, Database
from tinydancer.store.queries import load_queries

_Q = load_queries("sqlite/queries/models.sql")
_GROW_REGISTRY_VERSION = load_queries("sqlite/queries/agents.sql")["grow_registry_version"]


class SqliteModels:
    """Mixed into `tinydancer.store.sqlite.SqliteStore`, which opens the file."""

    _database: Database
    _tenant: str
    _clock: Callable[[], float]

    def insert_model(
        self, kind: str, name: str, sha256: str, artifact: bytes, metadata: Mapping[str, Any], *, replace: bool = False
    ) -> None:
        """Stores a model's file; `AlreadyExistsError` if the name is taken, unless `replace`."""
        row = (self._tenant, *models.model_parameters(kind, name, sha256, artifact, metadata), self._clock())

        def work(connection: Connection) -> None:
            try:
                connection.execute(_Q["put_model" if replace else "insert_model"], row)
            except sqlite3.IntegrityError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                    raise
                raise models.taken_error(kind, name) from None
            connection.execute(_GROW_REGISTRY_VERSION, (self._tenant,))

        self._database.write(work, durable=True)

    def list_models(self, kind: str | None = None) -> list[ModelRow]:
        """Those that are stored, of one kind or of all, in order of kind and name."""
        return [models.model_of(row) for row in self._database.fetch(_Q["list_models"], (self._tenant, kind))]

    def get_model(self, kind: str, name: str) -> ModelRow:
        """One that is stored, without its weights; `NotFoundError` with the nearest name as a hint."""
        rows = self._database.fetch(_Q["get_model"], (self._tenant, kind, name))
        if not rows:
            raise self._database.read(lambda connection: self._unknown_model(connection, kind, name))
        return models.model_of(rows[0])

    def model_artifact(self, kind: str, name: str) -> bytes:
        """The file of one that is stored; `NotFoundError`."""
        rows = self._database.fetch(_Q["model_artifact"], (self._tenant, kind, name))
        if not rows:
            raise self._database.read(lambda connection: self._unknown_model(connection, kind, name))
        return bytes(rows[0][0])

    def activate_model(self, kind: str, name: str | None) -> None:
        """Lets a stored model decide, or `SHIPPED_MODEL`, or with None none; `NotFoundError`."""
        check.name_of(kind, "kind of model")

        def work(connection: Connection) -> None:
            connection.execute(_Q["deactivate_models"], (self._tenant, kind))
            if name == SHIPPED_MODEL:
                connection.execute(_Q["activate_shipped"], (self._tenant, kind, SHIPPED_MODEL, self._clock()))
            elif name is not None and not self._activated(connection, kind, name):
                raise self._unknown_model(connection, kind, name)
            connection.execute(_GROW_REGISTRY_VERSION, (self._tenant,))

        self._database.write(work, durable=True)

    def active_model(self, kind: str) -> ModelRow | None:
        """The one that decides: a stored one, the shipped one (``is_shipped``), or None."""
        return models.active_model_of(self._database.fetch(_Q["active_model"], (self._tenant, kind)), kind)

    def delete_model(self, kind: str, name: str) -> None:
        """Removes one that is stored; if it was active, none is. `NotFoundError`."""

        def work(connection: Connection) -> None:
            if connection.execute(_Q["delete_model"], (self._tenant, kind, name)).rowcount == 0:
                raise self._unknown_model(connection, kind, name)
            connection.execute(_GROW_REGISTRY_VERSION, (self._tenant,))

        self._database.write(work, durable=True)

    def graded_features(self, after: int, limit: int) -> list[GradedFeatures]:
        """Judged outcomes after an outcome id, in order, whose decisions have features."""
        bounds = check.count(after, "after"), check.count(limit, "limit")
        rows = self._database.fetch(_Q["graded_features"], (self._tenant, *bounds))
        return [models.graded_of(row) for row in rows]

    def ability_state(self, model_sha256: str) -> tuple[int, bytes] | None:
        """What was learned on top of a model, and up to which outcome id."""
        rows = self._database.fetch(_Q["ability_state"], (self._tenant, model_sha256))
        return (rows[0][0], rows[0][1]) if rows else None

    def save_ability_state(self, model_sha256: str, up_to: int, state: bytes) -> bool:
        """Keeps a state that knows more outcomes than the stored one; whether it did. Not flushed to the disk."""
        row = (self._tenant, *models.state_parameters(model_sha256, up_to, state))
        try:
            return self._database.write(
                lambda connection: connection.execute(_Q["save_ability_state"], row).rowcount > 0, durable=False
            )
        except (StoreReadOnlyError, StoreLockedError):
            return False

    def _activated(self, connection: Connection, kind: str, name: str) -> bool:
        return connection.execute(_Q["activate_model"], (self._tenant, kind, name)).rowcount > 0

    def _unknown_model(self, connection: Connection, kind: str, name: str) -> NotFoundError:
        names = connection.execute(_Q["model_names"], (self._tenant, kind))
        return models.unknown_model(kind, name, (row[0] for row in names))
