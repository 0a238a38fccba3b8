"""Says what kind of request a text is, and what its answer takes, from the text's vector alone.

In: request embeddings. Out: a probability for each class, which sum to 1, and one for each capability, which need not.
`classifier_training` makes such a classifier from examples; one for a dozen common kinds of request ships with the
package. One step of a FastGRNN turns the vector into a state, and one linear head reads both answers off it::

    state = FastGRNN(x)    P(class) = softmax(W_c state + b_c)    P(capability) = sigma(W_k state + b_k)

The calibration, a temperature for the classes and a slope and an offset for each capability, is part of W and b.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import ArtifactError, InvalidInputError, InvalidVectorError, ModelError, SpaceMismatchError
from tinydancer.model.artifact import load_artifact, save_artifact
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
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
        metadata: Mapping[str, Any] | None = None,
        sha256: str | None = None,
    ) -> None:
        self.network = network
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

    def __repr__(self) -> str:
        return f"RequestClassifier({len(self.classes)} classes, {len(self.capabilities)} capabilities, {self.name})"

    @property
    def name(self) -> str:
        """Which weights say so: ``classifier:`` and the start of their file's hash."""
        return f"classifier:{self.sha256[:12] if self.sha256 else 'unsaved'}"

    def classify(self, embedding: npt.ArrayLike) -> list[tuple[str, float]]:
        """All classes with their probabilities, from the likeliest to the least.

        Parameters
        ----------
        embedding
            Shape (dim,), any length but zero.

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
        logits = self._logits(check.unit_vector(embedding, "The embedding", dim=self.space.dim, space=self.space.name))
        return _ranked(self.classes, _softmax(logits[: len(self.classes)]))

    def classify_batch(self, embeddings: npt.ArrayLike) -> list[list[tuple[str, float]]]:
        """`classify` for each row of ``[n, dim]``; no rows give an empty list."""
        return [_ranked(self.classes, row) for row in self.predict(embeddings)[0]]

    def classify_capabilities(
        self, embedding: npt.ArrayLike, *, threshold: float = CAPABILITY_THRESHOLD
    ) -> list[tuple[str, float]]:
        """The capabilities an answer takes with a probability above a threshold, from the likeliest to the least.

        Parameters
        ----------
        embedding
            Shape (dim,); errors as in `classify`.
        threshold
            In [0, 1]; itself it does not pass.
        """
        threshold = check.number(threshold, "threshold", low=0.0, high=1.0)
        logits = self._logits(check.unit_vector(embedding, "The embedding", dim=self.space.dim, space=self.space.name))
        ranked = _ranked(self.capabilities, _sigmoid(logits[len(self.classes) :]))
        return [pair for pair in ranked if pair[1] > threshold]

    def predict(self, embeddings: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """All probabilities of many requests at once.

        Parameters
        ----------
        embeddings
            Shape (n, dim), rows of any length but zero.

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
        """
        logits = self._logits(unit_rows_of(embeddings, self.space))
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
        return save_artifact(path, self.network.parameters, kind=KIND, metadata=facts)

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
            classifier = cls(
                FastGRNN(FastGRNNConfig(**config), artifact.tensors),
                classes=classes,
                capabilities=capabilities,
                space=EmbeddingSpace(**own_space),
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

    def _logits(self, x: FloatVector) -> FloatArray:
        parameters = self.network.parameters
        state = self.network.forward_single(x) if x.ndim == 1 else self.network.encode_batch(x)
        return (state @ parameters["w_out"].T + parameters["b_out"]).astype(np.float64)


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


def _ranked(names: Sequence[str], probabilities: FloatArray) -> list[tuple[str, float]]:
    pairs = list(zip(names, probabilities.tolist(), strict=True))
    pairs.sort(key=lambda pair: (-pair[1], pair[0]))
    return pairs


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _sigmoid(logits: FloatArray) -> FloatArray:
    return np.asarray(0.5 * np.tanh(0.5 * logits) + 0.5)
