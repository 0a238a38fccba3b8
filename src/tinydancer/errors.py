"""Every error Tiny Dancer raises on purpose, as one tree.

In: what was given, what was expected, what to do. Out: an exception whose ``code`` is stable for programs, whose
``sqlstate`` the SQL door raises and whose ``http_status`` the HTTP door answers. ``message`` says what was given and
what was expected, ``hint`` says what to do, ``detail`` holds the long part (a reason per agent, say).

::

    TinyDancerError
    ├── InvalidInputError          a value that cannot be used
    │   ├── InvalidTextError       empty, too long, not UTF-8
    │   ├── InvalidVectorError     not finite, zero, not one-dimensional
    │   │   └── SpaceMismatchError another dimension or another embedding space
    │   ├── InvalidNameError       empty, too long, control characters
    │   ├── UnknownObjectiveError  names the valid objectives
    │   └── UnknownKeyError        an unknown constraint, setting or field; names the known ones
    ├── ConfigError                a settings file with a mistake (line and key)
    ├── NotFoundError              no such agent, decision, model, candidate
    ├── AlreadyExistsError         the name is taken
    ├── RoutingError
    │   ├── NoAgentsError          nothing is registered
    │   └── NoMatchError           a reason per agent (``exclusions``)
    ├── ModelError
    │   └── ArtifactError          truncated, tampered with, newer format, wrong shapes
    ├── EmbedderError              an embedding service or library failed
    └── StoreError
        ├── StoreLockedError       another process holds the file too long
        ├── StoreFullError         the disk is full
        ├── StoreReadOnlyError     the file or the transaction cannot be written
        ├── StoreCorruptError      not a database, or damaged
        └── StoreVersionError      written by a newer Tiny Dancer

Messages never carry a secret: no connection string, no key, no header is ever put into one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

__all__ = [
    "AlreadyExistsError",
    "ArtifactError",
    "ConfigError",
    "EmbedderError",
    "InvalidInputError",
    "InvalidNameError",
    "InvalidTextError",
    "InvalidVectorError",
    "ModelError",
    "NoAgentsError",
    "NoMatchError",
    "NotFoundError",
    "RoutingError",
    "SpaceMismatchError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreReadOnlyError",
    "StoreVersionError",
    "TinyDancerError",
    "UnknownKeyError",
    "UnknownObjectiveError",
]


class TinyDancerError(Exception):
    """Base of the tree.

    Parameters
    ----------
    message
        One sentence: what was given and what was expected.
    hint
        One sentence: what to do about it.
    detail
        The long part, several lines if need be.
    """

    code: ClassVar[str] = "tiny_dancer_error"
    sqlstate: ClassVar[str] = "XX000"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments would be lost by the default pickling, and process pools pickle exceptions.
        return (_rebuild, (type(self), self.message, self.__dict__.copy()))

    def to_dict(self) -> dict[str, object]:
        """The error as JSON-ready fields, the same through every door."""
        return {"error": self.code, "message": self.message, "detail": self.detail, "hint": self.hint}


def _rebuild(cls: type[TinyDancerError], message: str, state: dict[str, object]) -> TinyDancerError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class InvalidInputError(TinyDancerError):
    """A value that cannot be used: out of range, of the wrong type, contradictory."""

    code = "invalid_input"
    sqlstate = "22023"
    http_status = 400


class InvalidTextError(InvalidInputError):
    """Text that is empty, too long, or not UTF-8."""

    code = "invalid_text"


class InvalidVectorError(InvalidInputError):
    """A vector that is not finite, is all zeros, or is not one-dimensional."""

    code = "invalid_vector"
    sqlstate = "22000"


class SpaceMismatchError(InvalidVectorError):
    """A vector of another dimension or embedding space than the deployment's; the message names both."""

    code = "space_mismatch"


class InvalidNameError(InvalidInputError):
    """A name that is empty, too long, or holds control characters."""

    code = "invalid_name"


class UnknownObjectiveError(InvalidInputError):
    """An objective that does not exist; the message lists those that do."""

    code = "unknown_objective"


class UnknownKeyError(InvalidInputError):
    """A constraint, setting or field that does not exist; the message lists those that do."""

    code = "unknown_key"


class ConfigError(TinyDancerError):
    """A settings file with a mistake; the message names file, line and key."""

    code = "invalid_config"
    sqlstate = "F0000"
    http_status = 500


class NotFoundError(TinyDancerError):
    """No agent, decision, candidate or model of that name."""

    code = "not_found"
    sqlstate = "42704"
    http_status = 404


class AlreadyExistsError(TinyDancerError):
    """The name is taken."""

    code = "already_exists"
    sqlstate = "42710"
    http_status = 409


class RoutingError(TinyDancerError):
    """A request that cannot be routed."""

    code = "routing_error"
    sqlstate = "P0002"
    http_status = 422


class NoAgentsError(RoutingError):
    """Nothing is registered, so nothing can be chosen."""

    code = "no_agents"


class NoMatchError(RoutingError):
    """No agent satisfies the constraints.

    Attributes
    ----------
    exclusions
        For each agent, in order of name, the reason it was left out.
    """

    code = "no_match"

    def __init__(self, message: str, *, exclusions: Mapping[str, str], hint: str = "") -> None:
        detail = "\n".join(f"{name}: {reason}" for name, reason in exclusions.items())
        super().__init__(message, hint=hint, detail=detail)
        self.exclusions = dict(exclusions)

    def to_dict(self) -> dict[str, object]:
        """As above, with the reason per agent as a mapping."""
        return {**super().to_dict(), "exclusions": self.exclusions}


class ModelError(TinyDancerError):
    """A model that cannot be used for what was asked."""

    code = "model_error"
    sqlstate = "22023"


class ArtifactError(ModelError):
    """A model file that is truncated, tampered with, of a newer format, or of other shapes than it says."""

    code = "invalid_artifact"
    sqlstate = "XX001"


class EmbedderError(TinyDancerError):
    """An embedding service or library failed; never carries the key or the request's headers."""

    code = "embedder_failed"
    sqlstate = "58000"
    http_status = 502


class StoreError(TinyDancerError):
    """The store could not do what was asked; nothing was half written."""

    code = "store_error"
    sqlstate = "58030"
    http_status = 503


class StoreLockedError(StoreError):
    """Another process held the store for longer than the timeout."""

    code = "store_locked"
    sqlstate = "55P03"


class StoreFullError(StoreError):
    """The disk, or the size limit of the file, is exhausted."""

    code = "store_full"
    sqlstate = "53100"


class StoreReadOnlyError(StoreError):
    """The store is readable but cannot be written."""

    code = "store_read_only"
    sqlstate = "25006"


class StoreCorruptError(StoreError):
    """The file is not a database, or is damaged."""

    code = "store_corrupt"
    sqlstate = "XX001"


class StoreVersionError(StoreError):
    """The store was written by a newer Tiny Dancer than this one."""

    code = "store_version"
    sqlstate = "55000"
