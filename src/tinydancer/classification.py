"""What kind of request a text is, and what its answer takes: the classifier over a deployment's store and embedder.

In: a text or a vector. Out: all classes with their probabilities, the likeliest of them, and the capabilities. A store
may hold a classifier of the deployment's own, trained by `tinydancer.model.classifier_training`; where none is chosen,
the one that ships with the package answers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import ArtifactError, InvalidInputError
from tinydancer.model.classifier import KIND, SHIPPED_CLASSIFIER, RequestClassifier
from tinydancer.service import TinyDancer
from tinydancer.store.base import SHIPPED_MODEL

__all__ = ["RequestClassification"]


class RequestClassification:
    """Classifies requests for a `TinyDancer`.

    Examples
    --------
    >>> dancer = TinyDancer()
    >>> found = RequestClassification(dancer).classify("Translate this letter into French.")
    >>> found["top_category"]
    'translation'
    >>> dancer.close()
    """

    def __init__(self, dancer: TinyDancer) -> None:
        self._dancer = dancer
        self._cache: tuple[int, RequestClassifier] | None = None

    def classify(self, request: str | None = None, *, embedding: npt.ArrayLike | None = None) -> dict[str, Any]:
        """Classes and capabilities of one request, JSON-ready.

        Parameters
        ----------
        request
            Its text; not looked at if `embedding` is given.
        embedding
            Its vector, any length but zero.

        Returns
        -------
        dict
            ``classifications`` and ``capabilities`` are lists of [name, probability], the likeliest first: all classes,
            whose probabilities sum to 1, and the capabilities above one half. ``top_category`` and ``confidence`` are
            the first class and its probability, ``model`` names the weights.
        """
        classifier = self.classifier()
        if embedding is not None:
            space = self._dancer.space
            vector = check.unit_vector(embedding, "The request's embedding", dim=space.dim, space=space.name)
        elif request is not None:
            vector = self._dancer.embed(request)
        else:
            raise InvalidInputError("Neither a request nor an embedding is given; expected one of them.")
        classes = classifier.classify(vector)
        return {
            "classifications": [list(pair) for pair in classes],
            "top_category": classes[0][0],
            "confidence": classes[0][1],
            "capabilities": [list(pair) for pair in classifier.classify_capabilities(vector)],
            "model": classifier.name,
        }

    def classifier(self) -> RequestClassifier:
        """The classifier that answers now.

        Raises
        ------
        SpaceMismatchError
            None is chosen, and the deployment's space is not that of the shipped one.
        """
        store, space = self._dancer.store, self._dancer.space
        registry = store.registry_version()
        if self._cache is not None and self._cache[0] == registry:
            return self._cache[1]
        row = store.active_model(KIND)
        if row is None or row.is_shipped:
            found = RequestClassifier.load(SHIPPED_CLASSIFIER, space=space)
        else:
            found = self._load(store.model_artifact(KIND, row.name), f"The classifier {row.name!r}")
        self._cache = registry, found
        return found

    def use(self, name: str, content: bytes | None = None) -> None:
        """Let a classifier of your own answer, in every process from its next request on.

        Parameters
        ----------
        name
            Of a stored one, or ``shipped``.
        content
            The file that `RequestClassifier.save` wrote, to store under that name first; one of that name is replaced.

        Raises
        ------
        ArtifactError
            The file is damaged, of a newer format, or no classifier's.
        SpaceMismatchError
            It is of another space than the store.
        NotFoundError
            There is none of that name.
        """
        store = self._dancer.store
        if content is not None:
            classifier = self._load(content, f"The file of the classifier {name!r}")
            facts = {"classes": list(classifier.classes), "capabilities": list(classifier.capabilities)}
            store.insert_model(KIND, name, str(classifier.sha256), content, facts, replace=True)
        store.activate_model(KIND, None if name == SHIPPED_MODEL else name)

    def _load(self, content: bytes, what: str) -> RequestClassifier:
        with tempfile.TemporaryDirectory(prefix="tinydancer-") as folder:
            path = Path(folder) / "classifier.safetensors"
            path.write_bytes(content)
            try:
                return RequestClassifier.load(path, space=self._dancer.space)
            except ArtifactError as error:
                raise ArtifactError(error.message.replace(repr(str(path)), what), hint=error.hint) from None
