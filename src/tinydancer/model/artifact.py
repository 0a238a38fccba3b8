"""The one file format of every model: safetensors with a kind, a version, facts about the training, and a hash.

In: named arrays, a kind, any JSON object. Out: one file that other safetensors readers can open, and from it
read-only arrays that lie in the file's pages. Nothing is copied and nothing in the file is ever executed, so a model
from a stranger can at worst be refused.

Why our own reader: the safetensors library hands out copies, and a hundred PostgreSQL backends are to share one page
cache. The format is simple enough to read with care: eight bytes of length, a JSON header, the arrays back to back.

Why our own writer: the library writes its metadata in an order drawn anew at each save, so equal models would be
unequal files, and the oldest version that we allow, 0.4.3, writes a broken header where there are no tensors.

The hash (SHA-256) covers kind, version, metadata, and each tensor's name, type, shape and bytes, in order of name. It
finds damage and mix-ups, not an attacker who can write the file. On a processor with SHA instructions it costs about
0.6 ms for 1 MB and 7 ms for 12 MB, once per process and file: a file of the same identity, size and modification time
is not read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.errors import ArtifactError, InvalidInputError, NotFoundError
from tinydancer.validation import shown

__all__ = ["FORMAT_VERSION", "Artifact", "load_artifact", "save_artifact"]

FORMAT_VERSION = 1
"""Version of what we write. A file of a higher version is refused, not guessed at."""

AnyArray = npt.NDArray[Any]

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"), "U32": np.dtype("<u4"), "U16": np.dtype("<u2"), "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ALIGNMENT = 64
_MAX_HEADER_BYTES = 4 << 20
_MAX_AXES = 32
_HEADER_KEYS = ("format", "format_version", "kind", "metadata", "sha256")
_FORMAT = "tiny-dancer"

# Digests already computed in this process, by the identity of the file. The files are few; the cap is a safety net.
_digests: dict[tuple[int, ...], str] = {}
_digests_lock = threading.Lock()
_MAX_DIGESTS = 256


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model file, opened and checked.

    Attributes
    ----------
    kind
        What the file holds, ``fastgrnn`` for example.
    tensors
        Name to read-only array, lying in the mapped file. The mapping lives as long as any of them.
    metadata
        The JSON object that was saved with them.
    sha256
        Hash of the content, 64 hexadecimal digits; equal for equal content, wherever it is stored.
    """

    kind: str
    tensors: Mapping[str, AnyArray] = field(repr=False)
    metadata: Mapping[str, Any]
    sha256: str


def save_artifact(
    path: str | os.PathLike[str],
    tensors: Mapping[str, npt.ArrayLike],
    *,
    kind: str,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """Write a model file in one step: readers see the old file or the new one, whole.

    Parameters
    ----------
    path
        The file to make or replace. Whoever has the old file mapped keeps the old content.
    tensors
        Name to array of a fixed-size number type, of any shape, scalars included.
    kind
        Told to `load_artifact`, which refuses another one.
    metadata
        Any JSON object: configuration, training facts.

    Returns
    -------
    str
        The content's SHA-256.

    Raises
    ------
    InvalidInputError
        A type that the format does not hold, or metadata that is no JSON.
    ArtifactError
        The file cannot be written; what was there before is still there.
    """
    arrays = {name: _storable(name, value) for name, value in tensors.items()}
    try:
        text = json.dumps(dict(metadata or {}), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"The metadata of the model file is no JSON: {error}.") from None

    # The widest types come first, so that every tensor starts at a multiple of its own item size.
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    specs: dict[str, dict[str, Any]] = {}
    end = 0
    for name in order:
        array, begin = arrays[name], end
        end += array.nbytes
        specs[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    digest = _digest(FORMAT_VERSION, kind, text, specs, arrays)
    values = (_FORMAT, str(FORMAT_VERSION), kind, text, digest)
    header = json.dumps({"__metadata__": dict(zip(_HEADER_KEYS, values, strict=True)), **specs}).encode()
    header += b" " * (-(8 + len(header)) % _ALIGNMENT)
    if len(header) > _MAX_HEADER_BYTES:
        raise InvalidInputError(
            f"The metadata of the model file takes {len(header):,} bytes; expected at most {_MAX_HEADER_BYTES:,}."
        )
    chunks = [len(header).to_bytes(8, "little"), header, *(arrays[name].tobytes() for name in order)]
    _write_atomically(Path(path), chunks)
    return digest


def load_artifact(path: str | os.PathLike[str], *, kind: str) -> Artifact:
    """Map a model file and check all of it.

    Parameters
    ----------
    path
        A file that `save_artifact` wrote.
    kind
        The kind that is expected.

    Raises
    ------
    NotFoundError
        There is no such file.
    ArtifactError
        Not a model file, truncated, tampered with, of a newer format or of another kind.

    Notes
    -----
    A file that is changed in place while it is mapped changes under its readers; `save_artifact` never does that.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_size < 8:
                raise _broken(path, f"it has {stat.st_size} bytes, less than the length of a header")
            # Access for reading only makes every array over it read-only.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise NotFoundError(
            f"There is no model file {str(path)!r}.", hint="Check the path, or train and save a model there."
        ) from None
    except OSError as error:
        raise _broken(path, f"it cannot be read ({error.strerror})") from None

    head, specs, data_begin = _parse_header(path, content)
    if head["kind"] != kind:
        raise ArtifactError(f"{str(path)!r} holds a model of kind {head['kind']!r}; expected kind {kind!r}.")
    arrays = _map_tensors(path, content, specs, data_begin)
    identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    with _digests_lock:
        digest = _digests.get(identity)
    if digest is None:
        digest = _digest(int(head["format_version"]), kind, head["metadata"], specs, arrays)
        with _digests_lock:
            if len(_digests) >= _MAX_DIGESTS:
                _digests.clear()
            _digests[identity] = digest
    if digest != head["sha256"]:
        raise ArtifactError(
            f"{str(path)!r} was changed after it was saved: its content has the hash {digest[:12]}, "
            f"its header says {shown(head['sha256'][:12])}.",
            hint="Copy or train the model again.",
        )
    try:
        metadata = json.loads(head["metadata"])
    except (ValueError, RecursionError):
        raise _broken(path, "its metadata is no JSON") from None
    if not isinstance(metadata, dict):
        raise _broken(path, "its metadata is no JSON object")
    return Artifact(kind, MappingProxyType(arrays), MappingProxyType(metadata), digest)


def _storable(name: Any, value: npt.ArrayLike) -> AnyArray:
    if not isinstance(name, str) or not name or name == "__metadata__":
        raise InvalidInputError(f"A tensor is named {shown(name)}; expected text other than '__metadata__'.")
    array = np.asarray(value)
    little = array.dtype.newbyteorder("<")
    if little not in _NAMES:
        raise InvalidInputError(
            f"Tensor {name!r} is of type {array.dtype}; expected one of: {', '.join(map(str, _DTYPES.values()))}."
        )
    return np.asarray(array, dtype=little, order="C")


def _digest(
    version: int, kind: str, metadata: str, specs: Mapping[str, Mapping[str, Any]], arrays: Mapping[str, AnyArray]
) -> str:
    names = sorted(arrays)
    described = [[name, specs[name]["dtype"], list(specs[name]["shape"])] for name in names]
    total = hashlib.sha256(json.dumps([version, kind, metadata, described]).encode())
    for name in names:
        total.update(arrays[name].reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _parse_header(path: Path, content: mmap.mmap) -> tuple[dict[str, str], dict[str, dict[str, Any]], int]:
    length = int.from_bytes(content[:8], "little")
    if length > min(len(content) - 8, _MAX_HEADER_BYTES):
        raise _broken(path, f"its header should have {length:,} bytes, the file has {len(content):,}")
    try:
        header = json.loads(content[8 : 8 + length].decode("utf-8"))
    except (ValueError, RecursionError):
        raise _broken(path, "its header is no JSON") from None
    head = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(head, dict) or head.get("format") != _FORMAT:
        raise _broken(path, "its header does not say that Tiny Dancer wrote it")
    version = head.get("format_version")
    if not isinstance(version, str) or not version.isdecimal() or len(version) > 9:
        raise _broken(path, f"its format version is {shown(version)}")
    if int(version) > FORMAT_VERSION:
        raise ArtifactError(
            f"{str(path)!r} is of format version {int(version)}; this Tiny Dancer reads up to {FORMAT_VERSION}.",
            hint="Upgrade Tiny Dancer, or save the model with this version.",
        )
    for key in _HEADER_KEYS:
        if not isinstance(head.get(key), str):
            raise _broken(path, f"its header has no {key}")
    return head, header, 8 + length


def _map_tensors(
    path: Path, content: mmap.mmap, specs: Mapping[str, Any], data_begin: int
) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, AnyArray] = {}
    size = len(content) - data_begin
    spans: list[tuple[int, int]] = []
    for name, spec in specs.items():
        dtype, shape, begin, end = _checked_spec(path, name, spec)
        if end > size:
            raise _broken(path, f"tensor {shown(name)} ends at byte {end:,} of {size:,}; the file is truncated")
        arrays[name] = np.ndarray(shape, dtype, buffer=content, offset=data_begin + begin)
        spans.append((begin, end))
    # The tensors must tile the file: overlaps and holes would be bytes that no hash covers, or that two names share.
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise _broken(path, f"its tensors do not follow each other at byte {position:,}")
        position = end
    if position != size:
        raise _broken(path, f"its tensors take {position:,} bytes, the file has {size:,} for them")
    return arrays


def _checked_spec(path: Path, name: str, spec: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    given = spec if isinstance(spec, dict) else {}
    dtype = _DTYPES.get(str(given.get("dtype")))
    shape, offsets = _sizes(given.get("shape")), _sizes(given.get("data_offsets"))
    if (
        dtype is not None
        and shape is not None
        and len(shape) <= _MAX_AXES
        and offsets is not None
        and len(offsets) == 2
    ):
        begin, end = offsets
        if end - begin == math.prod(shape) * dtype.itemsize:
            return dtype, shape, begin, end
    raise _broken(path, f"tensor {shown(name)} is described as {shown(spec)}")


def _sizes(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, list) and all(type(v) is int and 0 <= v < 2**62 for v in value):
        return tuple(value)
    return None


def _broken(path: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"{str(path)!r} is no usable model file: {why}.", hint="Copy it again from where it was made, or train anew."
    )


def _write_atomically(path: Path, chunks: list[bytes]) -> None:
    # Named by process and thread, and in the same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        # Made with the usual mode (less the umask), not a private one: other users' processes map these files.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        # Where the folder itself is gone or read-only, the first error tells more than a second one.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ArtifactError(
            f"The model file {str(path)!r} cannot be written ({error.strerror}).",
            hint="Check that the folder exists, may be written and has space.",
        ) from None
