"""The models of a deployment: the shipped one, and those that its store holds.

In: a model's file as bytes, or a name. Out: what is known of a model, or its file. Both doors that manage models, the
command line and SQL, call this. A file is loaded before it is stored: what is truncated, tampered with, of another kind
or space, or of a newer format never reaches the store.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinydancer.errors import ArtifactError, InvalidNameError, ModelError, SpaceMismatchError, TinyDancerError
from tinydancer.model.artifact import load_artifact
from tinydancer.model.quality import KIND, QualityModel, shipped_model_path
from tinydancer.store.base import NO_MODEL, SHIPPED_MODEL, ModelRow, Store
from tinydancer.store.models import require_free_name, taken_error
from tinydancer.types import EmbeddingSpace

__all__ = [
    "ModelCard", "add_model", "add_trained_model", "get_model", "list_models", "load_model", "model_file", "open_model",
    "remove_model", "require_addable", "use_model",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a person wants to know of a model.

    Attributes
    ----------
    sha256
        Of its content, as decisions name it.
    metadata
        What its file says of itself: the agents it knows, the data it was trained on, the figures it reached.
    created_at
        When it was stored, in seconds since 1970; None for the shipped one.
    """

    kind: str
    name: str
    sha256: str
    size_bytes: int
    metadata: Mapping[str, Any]
    is_active: bool
    created_at: float | None

    @property
    def is_shipped(self) -> bool:
        """Whether the package brings it."""
        return self.name == SHIPPED_MODEL

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name, "kind": self.kind, "is_active": self.is_active, "is_shipped": self.is_shipped,
            "sha256": self.sha256, "size_bytes": self.size_bytes, "created_at": self.created_at,
            "metadata": dict(self.metadata),
        }  # fmt: skip


def list_models(store: Store) -> list[ModelCard]:
    """The shipped model first, then the stored ones in order of name; at most one of them is active."""
    return [_shipped(store), *(_card(row) for row in store.list_models(KIND))]


def get_model(store: Store, name: str) -> ModelCard:
    """One of them; raises `NotFoundError` with the nearest name as a hint."""
    return _shipped(store) if name == SHIPPED_MODEL else _card(store.get_model(KIND, name))


def model_file(store: Store, name: str) -> bytes:
    """The file of one of them; raises `NotFoundError`."""
    return shipped_model_path().read_bytes() if name == SHIPPED_MODEL else store.model_artifact(KIND, name)


def open_model(store: Store, row: ModelRow) -> QualityModel:
    """The weights of a row of the store, ready to predict.

    The shipped model lies in its own file, which all processes share; a stored one is written to a file that has no
    name any more once it is mapped.
    """
    if row.is_shipped:
        return _load_shipped()
    with tempfile.TemporaryDirectory(prefix="tinydancer-") as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(store.model_artifact(row.kind, row.name))
        return QualityModel.load(path, label=row.name)


def load_model(store: Store, name: str) -> QualityModel:
    """The weights of one of them, active or not; raises `NotFoundError`."""
    return _load_shipped() if name == SHIPPED_MODEL else open_model(store, store.get_model(KIND, name))


def require_addable(store: Store, name: str, *, replace: bool = False) -> None:
    """Raise what `add_model` would raise for this name, before long work is put into the file."""
    require_free_name(name)
    if not replace and any(row.name == name for row in store.list_models(KIND)):
        raise taken_error(KIND, name)


def add_model(store: Store, name: str, content: bytes, *, replace: bool = False) -> ModelCard:
    """Store a model's file under a name; it does not decide before `use_model`.

    Parameters
    ----------
    content
        The file as a training run wrote it.
    replace
        Take the place of a stored model of that name, which goes on deciding if it did.

    Raises
    ------
    AlreadyExistsError
        The name is taken.
    ArtifactError
        Truncated, tampered with, of another kind or of a newer format.
    SpaceMismatchError
        It was trained in another vector space than the store's.
    """
    metadata, sha256 = _checked(content, f"The file of the model {name!r}", store)
    store.insert_model(KIND, name, sha256, content, metadata, replace=replace)
    return get_model(store, name)


def add_trained_model(store: Store, name: str, model: QualityModel, *, replace: bool = False) -> ModelCard:
    """`add_model` for a model that is in memory."""
    with tempfile.TemporaryDirectory(prefix="tinydancer-") as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        return add_model(store, name, path.read_bytes(), replace=replace)


def use_model(store: Store, name: str) -> None:
    """Let a model decide: a stored one, ``shipped``, or with ``none`` no model.

    Raises
    ------
    NotFoundError
        There is none of that name.
    SpaceMismatchError
        The shipped model reads another vector space than the store's; stored ones were checked when they were added.
    """
    if name == SHIPPED_MODEL:
        shipped = load_artifact(shipped_model_path(), kind=KIND).metadata
        _require_space(EmbeddingSpace(shipped["space"], shipped["dim"]), "The shipped model", store)
    store.activate_model(KIND, None if name == NO_MODEL else name)


def remove_model(store: Store, name: str) -> None:
    """Remove a stored model; if it decided, none does. Raises `NotFoundError`."""
    if name == SHIPPED_MODEL:
        raise InvalidNameError(
            "The shipped model comes with the package and cannot be removed.", hint="Use another one, or none."
        )
    store.delete_model(KIND, name)


def _load_shipped() -> QualityModel:
    return QualityModel.load(shipped_model_path(), label=SHIPPED_MODEL)


def _card(row: ModelRow) -> ModelCard:
    return ModelCard(
        kind=row.kind, name=row.name, sha256=row.sha256, size_bytes=row.size_bytes, metadata=row.metadata,
        is_active=row.is_active, created_at=row.created_at,
    )  # fmt: skip


def _shipped(store: Store) -> ModelCard:
    path = shipped_model_path()
    artifact, active = load_artifact(path, kind=KIND), store.active_model(KIND)
    return ModelCard(
        kind=KIND, name=SHIPPED_MODEL, sha256=artifact.sha256, size_bytes=path.stat().st_size,
        metadata=artifact.metadata, is_active=active is not None and active.is_shipped, created_at=None,
    )  # fmt: skip


def _checked(content: bytes, what: str, store: Store) -> tuple[Mapping[str, Any], str]:
    """Metadata and hash of a model's file that can be used with this store."""
    with tempfile.TemporaryDirectory(prefix="tinydancer-") as folder:
        path = Path(folder) / "model.safetensors"  # models are mapped from files
        path.write_bytes(content)
        try:
            model = QualityModel.load(path)
            artifact = load_artifact(path, kind=KIND)
        except (ModelError, ArtifactError) as error:
            raise _renamed(error, repr(str(path)), what) from None
    _require_space(model.space, what, store)
    return artifact.metadata, artifact.sha256


def _require_space(space: EmbeddingSpace, what: str, store: Store) -> None:
    if space != store.space:
        raise SpaceMismatchError(
            f"{what} was trained in the space {space}; this store is in {store.space}.",
            hint="Train one in this space, or open a store for the other one.",
        )


def _renamed(error: TinyDancerError, path: str, what: str) -> TinyDancerError:
    return type(error)(error.message.replace(path, what), hint=error.hint, detail=error.detail)
