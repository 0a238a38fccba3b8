"""What kind of request a text is, and what its answer takes: the classifier over a deployment's store and embedder.

In: a text or a vector; labelled examples. Out: all classes with their probabilities, the likeliest of them, and the
capabilities; a classifier of the deployment's own, which the store then holds. Where none is chosen, the one that ships
with the package answers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.classification_files import Example, checked_examples
from tinydancer.errors import InvalidInputError
from tinydancer.model.classifier import KIND, RequestClassifier
from tinydancer.needs import ActiveClassifier, classifier_of
from tinydancer.service import TinyDancer
from tinydancer.store.base import SHIPPED_MODEL, ModelRow

if TYPE_CHECKING:
    from tinydancer.model.classifier_training import ClassifierReport

__all__ = ["RequestClassification"]

_AT_ONCE = 512
_EMBEDDING_SHARE = 0.1


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
        self._active = ActiveClassifier(dancer.store, dancer.space)

    def classify(self, request: str | None = None, *, embedding: npt.ArrayLike | None = None) -> dict[str, Any]:
        """Classes and capabilities of one request, JSON-ready.

        Parameters
        ----------
        request
            Its text.
        embedding
            Its vector, any length but zero; the text, if given too, is not embedded, but its words count. A vector
            alone tells less than a text: docs/explanation/classifier.md says how much.

        Returns
        -------
        dict
            ``classifications`` and ``capabilities`` are lists of [name, probability], the likeliest first: all classes,
            whose probabilities sum to 1, and the capabilities above one half. ``top_category`` and ``confidence`` are
            the first class and its probability, ``model`` names the weights.
        """
        classifier = self._active.now()
        if embedding is not None:
            space = self._dancer.space
            vector = check.unit_vector(embedding, "The request's embedding", dim=space.dim, space=space.name)
            if request is not None:
                check.request_text(request, max_chars=self._dancer.settings.max_request_chars)
        elif request is not None:
            vector = self._dancer.embed(request)
        else:
            raise InvalidInputError("Neither a request nor an embedding is given; expected one of them.")
        classes, capabilities = classifier.answer(vector, request)
        return {
            "classifications": [list(pair) for pair in classes],
            "top_category": classes[0][0],
            "confidence": classes[0][1],
            "capabilities": [list(pair) for pair in capabilities],
            "model": classifier.name,
        }

    def classifier(self) -> RequestClassifier:
        """The classifier that answers now.

        Raises
        ------
        SpaceMismatchError
            None is chosen, and the deployment's space is not that of the shipped one.
        """
        return self._active.now()

    def train(
        self,
        examples: Sequence[Example],
        *,
        folds: int = 5,
        seed: int = 0,
        progress: Callable[[float, str], None] | None = None,
    ) -> tuple[RequestClassifier, ClassifierReport]:
        """Learn classes of your own, and capabilities where the examples name any; nothing is stored.

        Parameters
        ----------
        examples
            At least two classes, each with at least two requests; ten or more of each make a useful classifier.
        folds
            Every figure of the report is on examples that were left out of the training: in so many parts, in turn.
        seed
            Of everything random.
        progress
            Called now and then with the share of the work that is done, in [0, 1], and what it is.

        Raises
        ------
        InvalidInputError
            No examples, one class only, a class with a single example, the same request in two classes, two classes
            whose names differ only in capitals.
        """
        from tinydancer.model.classifier_training import train_classifier

        given = checked_examples(examples)
        for number, example in enumerate(given, start=1):
            try:
                check.request_text(example.text, max_chars=self._dancer.settings.max_request_chars)
            except InvalidInputError as error:
                raise type(error)(f"Example number {number}: {error.message}", hint=error.hint) from None
        texts = [example.text for example in given]
        vectors = []
        for start in range(0, len(texts), _AT_ONCE):
            part = texts[start : start + _AT_ONCE]
            vectors.append(self._dancer.embedder.embed(part).vectors)
            if progress is not None:
                progress(_EMBEDDING_SHARE * (start + len(part)) / len(texts), "embedding")
        named = any(example.capabilities for example in given)
        classifier, report = train_classifier(
            np.concatenate(vectors), [example.label for example in given],
            [example.capabilities for example in given] if named else None,
            texts=texts, space=self._dancer.space, folds=folds, seed=seed,
            progress=None if progress is None else lambda share: progress(
                _EMBEDDING_SHARE + (1.0 - _EMBEDDING_SHARE) * share, "learning"
            ),
        )  # fmt: skip
        classifier.metadata["embedder"] = self._dancer.embedder.name
        classifier.metadata["seed"] = seed
        return classifier, report

    def keep(self, name: str, classifier: RequestClassifier) -> None:
        """Store a trained classifier under a name, and let it answer; one of that name is replaced."""
        with tempfile.TemporaryDirectory(prefix="tinydancer-") as folder:
            path = Path(folder) / "classifier.safetensors"
            classifier.save(path)
            self.use(name, path.read_bytes())

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
            classifier = classifier_of(content, self._dancer.space, f"The file of the classifier {name!r}")
            facts = {"classes": list(classifier.classes), "capabilities": list(classifier.capabilities)}
            store.insert_model(KIND, name, str(classifier.sha256), content, facts, replace=True)
        store.activate_model(KIND, None if name == SHIPPED_MODEL else name)

    def remove(self, name: str) -> None:
        """Forget a stored classifier; if it was the one that answers, the shipped one does from now on.

        Raises
        ------
        NotFoundError
            There is none of that name.
        """
        self._dancer.store.delete_model(KIND, name)

    def stored(self) -> list[ModelRow]:
        """The stored classifiers, in order of name."""
        return self._dancer.store.list_models(KIND)
