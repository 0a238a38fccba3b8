"""Says what kind of request a text is, and what its answer takes, from the text's vector and, where given, its words.

In: request embeddings, and their texts. Out: a probability for each class, which sum to 1, and one for each capability,
which need not. `classifier_training` makes such a classifier from examples; one for a dozen common kinds of request
ships with the package. One step of a FastGRNN turns the vector into a state, and one linear head reads both answers off
it; the words (see `words`) correct them::

    state = FastGRNN(x)    P(class) = softmax(W_c state + b_c)    P(capability) = sigma(W_k state + b_k)

The calibration, a temperature for the classes and a slope and an offset for each capability, is part of W and b. So is
a shift: a capability is needed where its probability is above one half, and half is where that answer is best.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import ArtifactError, InvalidInputError, InvalidVectorError, ModelError, SpaceMismatchError
from tinydancer.model.artifact import load_artifact, save_artifact
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.words import Words
from tinydancer.types import EmbeddingSpace
from tinydancer.validation import FloatVector

__all__ = ["SHIPPED_CLASSIFIER", "RequestClassifier", "unit_rows_of"]

KIND = "request-classifier"
SHIPPED_CLASSIFIER = Path(__file__).resolve().parent / "data" / "classifier.safetensors"
"""The classifier that comes with the package: twelve classes, ten capabilities, in the space of all-MiniLM-L6-v2."""
CAPABILITY_THRESHOLD = 0.5

FloatArray = npt.NDArray[np.float64]
_OURS = ("config", "classes", "capabilities", "space")


class RequestClassifier:
    """A trained classifier. Its methods change nothing, so any number of threads may share one.

    Parameters
    ----------
    network
        From embeddings to one output per class, then one per capability.
    classes
        At least two distinct names, in the order of the outputs.
    capabilities
        Distinct names, in the order of the outputs that follow; may be empty.
    space
        The space the embeddings are in; of the network's input dimension.
    words
        What the words of a request add, for as many outputs; None: nothing, and texts are not looked at.
    metadata
        Facts that travel with the weights.
    sha256
        Hash of the file they came from, None if they came from none.

    Raises
    ------
    ModelError
        The network does not fit the names or the space.
    InvalidInputError
        Fewer than two classes, or a name that is no name.
    """

    def __init__(
        self,
        network: FastGRNN,
        *,
        classes: Sequence[str],
        capabilities: Sequence[str] = (),
        space: EmbeddingSpace,
        words: Words | None = None,
        metadata: Mapping[str, Any] | None = None,
        sha256: str | None = None,
    ) -> None:
        self.network = network
        self.words = words
        self.classes = _distinct(classes, "classes")
        self.capabilities = _distinct(capabilities, "capabilities")
        self.space = space
        self.metadata = dict(metadata or {})
        self.sha256 = sha256
        if len(self.classes) < 2:
            raise InvalidInputError(f"The classes are {check.shown(list(classes))}; expected at least two.")
        config = network.config
        outputs = len(self.classes) + len(self.capabilities)
        if (config.input_dim, config.output_dim) != (space.dim, outputs):
            raise ModelError(
                f"The network has {config.input_dim} inputs and {config.output_dim or 'no'} outputs; {space.dim} "
                f"dimensions, {len(self.classes)} classes and {len(self.capabilities)} capabilities take {space.dim} "
                f"and {outputs}."
            )
        # In order of name, which a stable sort by probability then keeps among equals.
        self._class_order = sorted((name, i) for i, name in enumerate(self.classes))
        self._capability_order = sorted((name, i) for i, name in enumerate(self.capabilities, len(self.classes)))

    def __repr__(self) -> str:
        return f"RequestClassifier({len(self.classes)} classes, {len(self.capabilities)} capabilities, {self.name})"

    @property
    def name(self) -> str:
        """Which weights say so: ``classifier:`` and the start of their file's hash."""
        return f"classifier:{self.sha256[:12] if self.sha256 else 'unsaved'}"

    def classify(self, embedding: npt.ArrayLike, text: str | None = None) -> list[tuple[str, float]]:
        """All classes with their probabilities, from the likeliest to the least.

        Parameters
        ----------
        embedding
            Shape (dim,), any length but zero.
        text
            The request itself; without it, its vector has to do.

        Returns
        -------
        list of (name, probability)
            The probabilities sum to 1; equal ones stand in order of name.

        Raises
        ------
        SpaceMismatchError
            Another dimension than the classifier's.
        InvalidVectorError
            A vector that is zero, not finite or not one-dimensional.
        """
        return self.answer(self._unit(embedding), text)[0]

    def classify_batch(
        self, embeddings: npt.ArrayLike, texts: Sequence[str] | None = None
    ) -> list[list[tuple[str, float]]]:
        """`classify` for each row of ``[n, dim]``; no rows give an empty list."""
        return [self._ranked_classes(row) for row in self._batch_logits(embeddings, texts).tolist()]

    def classify_capabilities(
        self, embedding: npt.ArrayLike, text: str | None = None, *, threshold: float = CAPABILITY_THRESHOLD
    ) -> list[tuple[str, float]]:
        """The capabilities an answer takes with a probability above a threshold, from the likeliest to the least.

        Parameters
        ----------
        embedding
            Shape (dim,); errors as in `classify`.
        text
            As in `classify`.
        threshold
            In [0, 1]; itself it does not pass.
        """
        threshold = check.number(threshold, "threshold", low=0.0, high=1.0)
        return self._ranked_capabilities(self._logits(self._unit(embedding), text), threshold)

    def answer(
        self, vector: FloatVector, text: str | None = None
    ) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """`classify` and `classify_capabilities` in one pass.

        Parameters
        ----------
        vector
            ``float32[dim]`` of length 1, as an embedder gives it, which is not looked at again.
        text
            As in `classify`.
        """
        logits = self._logits(vector, text)
        return self._ranked_classes(logits), self._ranked_capabilities(logits, CAPABILITY_THRESHOLD)

    def predict(self, embeddings: npt.ArrayLike, texts: Sequence[str] | None = None) -> tuple[FloatArray, FloatArray]:
        """All probabilities of many requests at once.

        Parameters
        ----------
        embeddings
            Shape (n, dim), rows of any length but zero.
        texts
            n texts, as in `classify`.

        Returns
        -------
        by_class, by_capability
            ``float64[n, C]`` with rows that sum to 1, and ``float64[n, K]``, in the order of `classes` and
            `capabilities`.

        Raises
        ------
        SpaceMismatchError
            Rows of another dimension than the classifier's.
        InvalidVectorError
            No matrix, or a row that is zero or not finite; the message names the row.
        InvalidInputError
            Another number of texts than of rows.
        """
        logits = self._batch_logits(embeddings, texts)
        count = len(self.classes)
        return _softmax(logits[:, :count]), _sigmoid(logits[:, count:])

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> str:
        """Write the classifier as a model file; see `save_artifact` for how and for errors.

        Parameters
        ----------
        path
            The file to make or replace.
        metadata
            A JSON object of training facts; None keeps those it has. Config, names and space are ours.

        Returns
        -------
        str
            The content's SHA-256.
        """
        facts = dict(self.metadata if metadata is None else metadata)
        facts |= {
            "config": asdict(self.network.config),
            "classes": list(self.classes),
            "capabilities": list(self.capabilities),
            "space": asdict(self.space),
        }
        words = {} if self.words is None else self.words.tensors()
        return save_artifact(path, {**self.network.parameters, **words}, kind=KIND, metadata=facts)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] = SHIPPED_CLASSIFIER, *, space: EmbeddingSpace | None = None
    ) -> RequestClassifier:
        """A classifier whose read-only weights lie in the mapped file.

        Parameters
        ----------
        path
            A file that `save` wrote; the one that ships with the package by default.
        space
            The deployment's; refused if the classifier's is another. None takes any.

        Raises
        ------
        NotFoundError
            There is no such file.
        ArtifactError
            The file is damaged, of a newer format, of another kind, or its weights are not what it says.
        SpaceMismatchError
            The classifier is of another space.
        """
        artifact = load_artifact(path, kind=KIND)
        facts = dict(artifact.metadata)
        try:
            config, classes, capabilities, own_space = (facts.pop(key) for key in _OURS)
            of_words = {name: array for name, array in artifact.tensors.items() if name.startswith("word_")}
            parameters = {name: array for name, array in artifact.tensors.items() if name not in of_words}
            classifier = cls(
                FastGRNN(FastGRNNConfig(**config), parameters),
                classes=classes,
                capabilities=capabilities,
                space=EmbeddingSpace(**own_space),
                words=Words.from_tensors(of_words, len(classes) + len(capabilities)),
                metadata=facts,
                sha256=artifact.sha256,
            )
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{os.fspath(path)!r} is no usable request classifier: its metadata lacks or misnames {error}.",
                hint="Train and save it again.",
            ) from None
        except (ModelError, InvalidInputError) as error:
            raise ArtifactError(
                f"{os.fspath(path)!r} is no usable request classifier: {error.message}", hint="Train and save it again."
            ) from None
        if space is not None:
            space.require(classifier.space, f"The request classifier {os.fspath(path)!r}")
        return classifier

    def _unit(self, embedding: npt.ArrayLike) -> FloatVector:
        return check.unit_vector(embedding, "The embedding", dim=self.space.dim, space=self.space.name)

    def _logits(self, vector: FloatVector, text: str | None) -> list[float]:
        parameters = self.network.parameters
        logits = parameters["w_out"] @ self.network.forward_single(vector)
        logits += parameters["b_out"]
        if text is not None and self.words is not None:
            logits = self.words.joined(logits, text)
        numbers: list[float] = logits.tolist()
        return numbers

    def _batch_logits(self, embeddings: npt.ArrayLike, texts: Sequence[str] | None) -> FloatArray:
        rows = unit_rows_of(embeddings, self.space)
        if texts is not None and len(texts) != len(rows):
            raise InvalidInputError(
                f"There are {len(rows)} embeddings and {len(texts)} texts; expected as many of each."
            )
        parameters = self.network.parameters
        logits = self.network.encode_batch(rows) @ parameters["w_out"].T + parameters["b_out"]
        if texts is not None and self.words is not None:
            for i, text in enumerate(texts):
                logits[i] = self.words.joined(logits[i], text)
        return logits.astype(np.float64)

    # A dozen numbers are sooner worked off one by one than handed to NumPy.

    def _ranked_classes(self, logits: list[float]) -> list[tuple[str, float]]:
        highest = max(logits[: len(self.classes)])
        powers = [(name, math.exp(logits[i] - highest)) for name, i in self._class_order]
        total = sum([power for _, power in powers])
        ranked = [(name, power / total) for name, power in powers]
        ranked.sort(key=itemgetter(1), reverse=True)
        return ranked

    def _ranked_capabilities(self, logits: list[float], threshold: float) -> list[tuple[str, float]]:
        pairs = [(name, 0.5 * math.tanh(0.5 * logits[i]) + 0.5) for name, i in self._capability_order]
        above = [pair for pair in pairs if pair[1] > threshold]
        above.sort(key=itemgetter(1), reverse=True)
        return above


def unit_rows_of(embeddings: npt.ArrayLike, space: EmbeddingSpace) -> FloatVector:
    """Embeddings as ``float32[n, dim]`` with rows of length 1; errors as in `RequestClassifier.predict`."""
    try:
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and is found below
            rows = np.asarray(embeddings, dtype=np.float32)
    except (TypeError, ValueError):
        raise InvalidVectorError(f"embeddings is {check.shown(embeddings)}; expected rows of numbers.") from None
    if rows.size == 0 and rows.ndim in {1, 2}:
        return np.empty((0, space.dim), dtype=np.float32)
    if rows.ndim != 2:
        raise InvalidVectorError(f"embeddings has shape {rows.shape}; expected (n, {space.dim}).")
    if rows.shape[1] != space.dim:
        raise SpaceMismatchError(
            f"The embeddings have {rows.shape[1]} dimensions; the classifier's space {space.name!r} has {space.dim}.",
            hint="Embed the requests with an embedder of that space, or train a classifier in yours.",
        )
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0.0)))
    if bad.size:
        raise InvalidVectorError(
            f"Embedding number {int(bad[0])} (from 0) is zero or not finite; expected a direction.",
            hint="It usually stands for empty text or a failed embedding.",
        )
    unit: FloatVector = (rows / lengths[:, None]).astype(np.float32)
    return unit


def _distinct(names: Any, what: str) -> tuple[str, ...]:
    checked = check.names_of(names, what)
    if len(checked) != len(names):
        raise InvalidInputError(f"A name comes twice in {what}; expected distinct names.")
    return checked


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _sigmoid(logits: FloatArray) -> FloatArray:
    return np.asarray(0.5 * np.tanh(0.5 * logits) + 0.5)
