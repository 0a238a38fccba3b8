"""The default embedder: a table of token vectors, a weight per token, and nothing else to compute.

In: texts. Out: unit vectors in all-MiniLM-L6-v2's own 384-dimensional space, in tens of microseconds, offline. With
``q_t`` the int8 row of token t, ``s_t`` its scale and ``w_t`` its weight,

    embedding(text) = v / |v|,    v = sum over tokens t of the text of  w_t s_t q_t

The table was fitted to the transformer's sentence vectors by ``scripts/build_static_embedder.py``; how, and how near it
comes, is in ``docs/explanation/static-embedder.md``. It is a model file (`tinydancer.model.artifact`),
memory-mapped, so that all processes of a machine share one copy. The file's hash covers the table, and its metadata
holds the tokenizer's hash: together, everything that decides a vector.

Text of printable ASCII is split into tokens here, by the tokenizer's own vocabulary and rules; the tokenizers library,
which takes four times as long to load and several times the memory, comes with the first text of another kind.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinydancer.embedding.base import Embedded
from tinydancer.errors import ArtifactError, InvalidTextError, NotFoundError
from tinydancer.model.artifact import load_artifact
from tinydancer.types import EmbeddingSpace
from tinydancer.validation import FloatVector

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KIND = "static-embedder"
DATA_DIRECTORY = Path(__file__).resolve().parent / "data"
TABLE_FILE = "static.safetensors"
TOKENIZER_FILE = "tokenizer.json"

LONG_TEXT_CHARS = 4096
"""Of a longer text, only the first and the last half of this many characters are embedded."""
UNKNOWN_TOKEN = "[UNK]"
CONTINUATION = "##"
"""Begins the vocabulary's entry for a piece that is not the first of its word."""
TEXTS_PER_PART = 512
KEPT_WORDS = 8192
"""Words of several tokens that are kept with them: a megabyte."""
LONG_WORD_CHARS = 32
"""Longer ones come once; their tokens are not kept."""
# Where the tokenizer splits a text of printable ASCII: at white space, and around each mark.
_WORDS = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_PIECES = re.compile(f"(?:{CONTINUATION})?[a-z0-9]+|{_WORDS.pattern}")


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
        What the file says about itself: space, dimension, teacher, facts of the fit, hash of the tokenizer.

    Raises
    ------
    ArtifactError
        A file is missing, truncated, changed since it was written, of a newer format, or of other shapes than it says.

    Notes
    -----
    Immutable after construction, but for words whose tokens it remembers: one embedder serves any number of threads
    and survives a fork.
    """

    name = "static"

    def __init__(self, directory: str | Path | None = None) -> None:
        directory = DATA_DIRECTORY if directory is None else Path(directory)
        tensors, self.metadata = _load_table(directory / TABLE_FILE)
        self._tokenizer_json, known = _read_tokenizer(directory / TOKENIZER_FILE, self.metadata, len(tensors["table"]))
        self._tokenizer: Tokenizer | None = None
        vocabulary: dict[str, int] = known["model"]["vocab"]
        special = [re.escape(token["content"]) for token in known.get("added_tokens", ())]
        self._not_plain = re.compile("|".join((r"[^\t\n\r -~]", *special)))
        self._tokens = {piece: token for piece, token in vocabulary.items() if _PIECES.fullmatch(piece)}
        self._max_word_chars: int = known["model"]["max_input_chars_per_word"]
        self._pieces: dict[str, list[int]] = {}
        self._table: npt.NDArray[np.int8] = tensors["table"]
        self._factors: FloatVector = tensors["weights"] * tensors["scales"]
        self.space = EmbeddingSpace(self.metadata["space"], self._table.shape[1])
        unknown = vocabulary.get(UNKNOWN_TOKEN)
        if unknown is None or not self._factors[unknown] > 0.0 or not np.any(self._table[unknown]):
            raise ArtifactError(
                f"The table {directory / TABLE_FILE} gives {UNKNOWN_TOKEN} no weight; text without a known token "
                "would have no vector.",
                hint=_REBUILD,
            )
        self._unknown_token = unknown
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
        # The tokenizer's own objects take some ten kilobytes a text; a batch of any size is worked through in parts.
        for start in range(0, len(texts), TEXTS_PER_PART):
            part = slice(start, start + TEXTS_PER_PART)
            self._embed_part(texts[part], vectors[part], counts[part])
        return Embedded(vectors, counts)

    def _embed_part(self, texts: Sequence[str], vectors: FloatVector, counts: npt.NDArray[np.float64]) -> None:
        """Fill in the vectors and token counts of some texts."""
        excerpts = [excerpt(text) for text in texts]
        ids = self._tokenize(excerpts)
        for row, own in zip(vectors, ids, strict=True):
            # One small product per text: four times as fast as one pass over all rows with np.add.reduceat, and bit
            # for bit what `embed_one` gives.
            index = np.array(own, np.intp)
            np.dot(self._factors[index], self._table.take(index, axis=0).astype(np.float32), out=row)
        squares = np.einsum("ij,ij->i", vectors, vectors)
        vectors /= np.sqrt(np.maximum(squares, np.float32(1e-30)))[:, None]
        vectors[squares <= 0.0] = self._unknown
        for i, (text, part, own) in enumerate(zip(texts, excerpts, ids, strict=True)):
            counts[i] = len(own) if part is text else len(own) * (len(text) / len(part))
        np.maximum(counts, 1.0, out=counts)

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

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts, as the tokenizer gives them.

        Most words are one token, and looking them up takes a fraction of the tokenizer's time. It is asked about texts
        with special tokens or with other characters than printable ASCII.
        """
        one, several = self._tokens, self._pieces
        split = [[text] if self._not_plain.search(text) else _WORDS.findall(text.lower()) for text in texts]
        ids = [[one.get(word, -1) for word in words] for words in split]
        unknown = {
            word
            for words, own in zip(split, ids, strict=True)
            if -1 in own
            for word, token in zip(words, own, strict=True)
            if token < 0 and word not in several
        }
        found = {word: self._pieces_of(word) for word in unknown if _WORDS.fullmatch(word)}
        if foreign := [text for text in unknown if text not in found]:
            found.update(zip(foreign, self._ask(foreign), strict=True))
        for i, (words, own) in enumerate(zip(split, ids, strict=True)):
            if -1 in own:
                tokens = [[token] if token >= 0 else several.get(word) or found[word]
                          for word, token in zip(words, own, strict=True)]  # fmt: skip
                ids[i] = list(chain.from_iterable(tokens))
        several.update((word, own) for word, own in found.items() if own and len(word) <= LONG_WORD_CHARS)
        if len(several) > KEPT_WORDS:
            self._pieces = {}  # a new one: another thread may be reading the old one
        return ids

    def _pieces_of(self, word: str) -> list[int]:
        """The tokens of a word: the longest piece that the vocabulary has, and so on with the rest (WordPiece)."""
        tokens = []
        start, prefix = 0, ""
        while start < len(word) <= self._max_word_chars:
            for end in range(len(word), start, -1):
                token = self._tokens.get(prefix + word[start:end])
                if token is not None:
                    break
            else:
                return [self._unknown_token]
            tokens.append(token)
            start, prefix = end, CONTINUATION
        return tokens or [self._unknown_token]

    def _ask(self, texts: list[str]) -> list[list[int]]:
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_buffer(self._tokenizer_json)
        try:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            raise InvalidTextError(
                "A text is no valid Unicode string; the static embedder cannot split it into tokens.",
                hint="Check requests with tinydancer.validation.request_text first.",
            ) from None
        return [encoding.ids for encoding in encodings]


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


def _load_table(path: Path) -> tuple[Mapping[str, npt.NDArray[Any]], dict[str, Any]]:
    """The mapped tensors ``table``, ``scales``, ``weights`` and the metadata, of types and shapes that fit together."""
    try:
        artifact = load_artifact(path, kind=KIND)
    except NotFoundError as error:
        # Part of the package: nobody asked for a model by name, so a missing table is a broken installation.
        raise ArtifactError(error.message, hint=_REBUILD) from None
    tensors, metadata = artifact.tensors, dict(artifact.metadata)
    held = {name: (str(tensor.dtype), tensor.shape) for name, tensor in tensors.items()}
    vocabulary = tensors["scales"].size if "scales" in tensors else 0
    expected = {
        "table": ("int8", (vocabulary, metadata.get("dim"))),
        "scales": ("float32", (vocabulary,)),
        "weights": ("float32", (vocabulary,)),
    }
    if held != expected:
        raise ArtifactError(f"{path} holds the tensors {held}; expected {expected}.", hint=_REBUILD)
    return tensors, metadata


def _read_tokenizer(path: Path, metadata: Mapping[str, Any], rows: int) -> tuple[bytes, dict[str, Any]]:
    """The tokenizer's file, and what it holds."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"Cannot read the tokenizer {path}: {error}.", hint=_REBUILD) from None
    if hashlib.sha256(raw).hexdigest() != metadata.get("tokenizer_sha256"):
        raise ArtifactError(f"{path} is not the tokenizer that the table was fitted with.", hint=_REBUILD)
    known: dict[str, Any] = json.loads(raw)
    kind = (known["model"]["type"], known["model"].get("continuing_subword_prefix"))
    if kind != ("WordPiece", CONTINUATION):
        raise ArtifactError(
            f"{path} is a tokenizer of the kind {kind[0]} with the prefix {kind[1]!r}; expected WordPiece with "
            f"{CONTINUATION!r}.",
            hint=_REBUILD,
        )
    vocabulary = known["model"]["vocab"]
    tokens = len(vocabulary) + sum(token["content"] not in vocabulary for token in known.get("added_tokens", ()))
    if tokens > rows:
        raise ArtifactError(f"{path} has {tokens:,} tokens; the table has {rows:,} rows.", hint=_REBUILD)
    return raw, known


_REBUILD = "Install the package again, or build the file with scripts/build_static_embedder.py."
