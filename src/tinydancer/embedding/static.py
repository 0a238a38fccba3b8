"""The default embedder: a table of token vectors, a weight per token, and nothing else to compute.

In: texts. Out: unit vectors in all-MiniLM-L6-v2's own 384-dimensional space, in tens of microseconds, offline. With
``q_t`` the int8 row of token t, ``s_t`` its scale and ``w_t`` its weight,

    embedding(text) = v / |v|,    v = sum over tokens t of the text of  w_t s_t q_t

The table was fitted to the transformer's sentence vectors by ``scripts/build_static_embedder.py``; how, and how near it
comes, is in ``docs/explanation/static-embedder.md``. The file is safetensors, memory-mapped, so that all processes of a
machine share one copy; its metadata carries a hash over everything that decides a vector.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinydancer.embedding.base import Embedded
from tinydancer.errors import ArtifactError, InvalidTextError
from tinydancer.types import EmbeddingSpace
from tinydancer.validation import FloatVector

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT_VERSION = 1
KIND = "static-embedder"
DATA_DIRECTORY = Path(__file__).resolve().parent / "data"
TABLE_FILE = "static.safetensors"
TOKENIZER_FILE = "tokenizer.json"

LONG_TEXT_CHARS = 4096
"""Of a longer text, only the first and the last half of this many characters are embedded."""
UNKNOWN_TOKEN = "[UNK]"
TOKENS_PER_CHUNK = 2048
"""Rows gathered at once for a batch: 3 MB as float32, which stays in a core's cache."""

_DTYPES: dict[str, np.dtype[Any]] = {"I8": np.dtype(np.int8), "F32": np.dtype("<f4")}
_TENSORS = {"table": "I8", "scales": "F32", "weights": "F32"}


class StaticEmbedder:
    """Texts to unit vectors by a weighted sum of token vectors.

    Parameters
    ----------
    directory
        Folder with ``static.safetensors`` and ``tokenizer.json``; the ones that ship with the package by default.

    Attributes
    ----------
    space
        `MINILM_SPACE` for the table that ships.
    name
        ``static``.
    metadata
        What the file says about itself: format version, space, facts of the fit, hashes.

    Raises
    ------
    ArtifactError
        A file is missing, truncated, changed since it was written, of a newer format, or of other shapes than it says.

    Notes
    -----
    Immutable after construction: one embedder serves any number of threads and survives a fork.
    """

    name = "static"

    def __init__(self, directory: str | Path = DATA_DIRECTORY) -> None:
        directory = Path(directory)
        tensors, self.metadata = read_table(directory / TABLE_FILE)
        self._tokenizer = _load_tokenizer(directory / TOKENIZER_FILE, self.metadata, len(tensors["table"]))
        self._table: npt.NDArray[np.int8] = tensors["table"]
        self._factors: FloatVector = tensors["weights"] * tensors["scales"]
        self.space = EmbeddingSpace(self.metadata["space"], self._table.shape[1])
        unknown = self._tokenizer.token_to_id(UNKNOWN_TOKEN)
        if unknown is None or not self._factors[unknown] > 0.0 or not np.any(self._table[unknown]):
            raise ArtifactError(
                f"The table {directory / TABLE_FILE} gives {UNKNOWN_TOKEN} no weight; text without a known token "
                "would have no vector.",
                hint=_REBUILD,
            )
        row = self._table[unknown].astype(np.float32)
        self._unknown: FloatVector = row / np.float32(math.sqrt(float(np.dot(row, row))))

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors and token counts of `texts`.

        Parameters
        ----------
        texts
            n checked texts. Of one longer than `LONG_TEXT_CHARS` characters both ends are embedded, and its tokens are
            estimated from theirs.

        Returns
        -------
        Embedded
            ``float32[n, dim]`` with rows of unit length, ``float64[n]`` token counts of at least 1.

        Raises
        ------
        InvalidTextError
            A text is no valid Unicode.
        """
        if len(texts) == 1:
            vector, count = self.embed_one(texts[0])
            return Embedded(vector[None], np.array([count]))
        vectors = np.empty((len(texts), self.space.dim), np.float32)
        counts = np.empty(len(texts), np.float64)
        if not texts:
            return Embedded(vectors, counts)
        excerpts = [excerpt(text) for text in texts]
        ids = self._tokenize(excerpts)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        ends = np.cumsum(lengths)
        flat = np.fromiter((i for one in ids for i in one), np.int32, int(ends[-1]))
        start = 0
        while start < len(texts):
            # A chunk ends before the text that would overflow it, and holds one text at least.
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + TOKENS_PER_CHUNK, side="right")))
            self._sum_rows(flat[before : ends[stop - 1]], lengths[start:stop], vectors[start:stop])
            start = stop
        squares = np.einsum("ij,ij->i", vectors, vectors)
        vectors /= np.sqrt(np.maximum(squares, np.float32(1e-30)))[:, None]
        vectors[squares <= 0.0] = self._unknown
        for i, (text, part) in enumerate(zip(texts, excerpts, strict=True)):
            counts[i] = lengths[i] if part is text else lengths[i] * (len(text) / len(part))
        return Embedded(vectors, np.maximum(counts, 1.0))

    def embed_one(self, text: str) -> tuple[FloatVector, float]:
        """The vector ``float32[dim]`` of one text and its token count: what `embed` gives, by the shortest way."""
        part = text if len(text) <= LONG_TEXT_CHARS else excerpt(text)
        ids = self._tokenize([part])[0]
        if not ids:
            return self._unknown.copy(), 1.0
        index = np.array(ids, np.intp)
        vector: FloatVector = self._factors[index] @ self._table.take(index, axis=0).astype(np.float32)
        square = float(np.dot(vector, vector))
        count = float(len(ids)) if part is text else len(ids) * (len(text) / len(part))
        if square <= 0.0:
            return self._unknown.copy(), count
        vector /= np.float32(math.sqrt(square))
        return vector, count

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        try:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            raise InvalidTextError(
                "A text is no valid Unicode string; the static embedder cannot split it into tokens.",
                hint="Check requests with tinydancer.validation.request_text first.",
            ) from None
        return [encoding.ids for encoding in encodings]

    def _sum_rows(self, ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64], out: FloatVector) -> None:
        # One small product per text: four times as fast as one pass over all rows with np.add.reduceat, and bit for
        # bit what `embed_one` gives.
        ends = np.cumsum(lengths)
        for row, end, length in zip(out, ends.tolist(), lengths.tolist(), strict=True):
            own = ids[end - length : end]
            np.dot(self._factors[own], self._table.take(own, axis=0).astype(np.float32), out=row)


def excerpt(text: str) -> str:
    """The text itself, or the two ends of a long one, cut at white space.

    Both ends matter: a long prompt opens with the instruction or ends in the question.
    """
    if len(text) <= LONG_TEXT_CHARS:
        return text
    half = LONG_TEXT_CHARS // 2
    head, tail = text[:half], text[-half:]
    if not text[half].isspace():
        head = (head.rsplit(None, 1) or [""])[0] or head
    if not text[-half - 1].isspace():
        tail = (tail.split(None, 1) or [""])[-1] or tail
    return f"{head} {tail}"


# The file


def content_hash(tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """SHA-256 over all tensors (name, type, shape, bytes) and all metadata but the hash itself, in hexadecimal."""
    digest = hashlib.sha256()
    plain = {key: value for key, value in metadata.items() if key != "sha256"}
    digest.update(json.dumps(plain, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def read_table(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """The memory-mapped, read-only tensors ``table``, ``scales``, ``weights`` and the metadata of a checked file.

    The layout is that of safetensors: eight bytes with the length of a JSON header, the header, the tensors.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"Cannot read the token table {path}: {error}.", hint=_REBUILD) from None
    header_end = 8 + int.from_bytes(mapped[:8], "little")
    try:
        header: dict[str, Any] = json.loads(mapped[8:header_end])
        metadata: dict[str, str] = header.pop("__metadata__")
        version = int(metadata["format_version"])
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ArtifactError(f"{path} is no token table: its header cannot be read.", hint=_REBUILD) from None
    if metadata.get("kind") != KIND:
        raise ArtifactError(f"{path} is of kind {metadata.get('kind')!r}; expected {KIND!r}.", hint=_REBUILD)
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {version}; this Tiny Dancer reads up to {FORMAT_VERSION}.",
            hint="Upgrade Tiny Dancer, or use the table that ships with it.",
        )
    try:
        tensors = {name: _view(mapped, header[name], dtype, header_end) for name, dtype in _TENSORS.items()}
        vocabulary, dim = tensors["table"].shape
        consistent = tensors["scales"].shape == tensors["weights"].shape == (vocabulary,) and dim == int(
            metadata["dim"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is truncated or damaged: {error}.", hint=_REBUILD) from None
    if not consistent or content_hash(tensors, metadata) != metadata.get("sha256"):
        raise ArtifactError(f"{path} was changed after it was written: its hash or shapes do not match.", hint=_REBUILD)
    return tensors, metadata


def _view(mapped: mmap.mmap, entry: Mapping[str, Any], dtype: str, base: int) -> npt.NDArray[Any]:
    if entry["dtype"] != dtype:
        raise ValueError(f"a tensor has type {entry['dtype']}, expected {dtype}")
    shape = tuple(int(n) for n in entry["shape"])
    begin, end = entry["data_offsets"]
    kind = _DTYPES[dtype]
    if end - begin != math.prod(shape) * kind.itemsize or base + end > len(mapped):
        raise ValueError("a tensor reaches past the end of the file")
    tensor: npt.NDArray[Any] = np.frombuffer(mapped, kind, math.prod(shape), base + int(begin)).reshape(shape)
    return tensor


def _load_tokenizer(path: Path, metadata: Mapping[str, str], vocabulary: int) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"Cannot read the tokenizer {path}: {error}.", hint=_REBUILD) from None
    if hashlib.sha256(raw).hexdigest() != metadata.get("tokenizer_sha256"):
        raise ArtifactError(f"{path} is not the tokenizer that the table was fitted with.", hint=_REBUILD)
    tokenizer: Tokenizer = Tokenizer.from_buffer(raw)
    if tokenizer.get_vocab_size() > vocabulary:
        raise ArtifactError(
            f"{path} has {tokenizer.get_vocab_size():,} tokens; the table has {vocabulary:,} rows.", hint=_REBUILD
        )
    return tokenizer


_REBUILD = "Install the package again, or build the file with scripts/build_static_embedder.py."
