"""Which classifier answers now, and the capabilities that it says a request needs.

In: a store, a request's vector and text, a snapshot of the agents. Out: a `RequestClassifier`; names of capabilities
that can be required of the agents. It knows nothing of the service, which may therefore call it.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from tinydancer.errors import ArtifactError
from tinydancer.model.classifier import KIND, SHIPPED_CLASSIFIER, RequestClassifier
from tinydancer.policy.constraints import capable
from tinydancer.snapshot import Snapshot
from tinydancer.store.base import Store
from tinydancer.types import Constraints, EmbeddingSpace
from tinydancer.validation import FloatVector

__all__ = ["ActiveClassifier", "capabilities_needed", "classifier_of"]

_BETWEEN_WORDS = re.compile(r"[\s_-]+")


class ActiveClassifier:
    """The classifier that answers in a store, read anew when the store's registry has changed."""

    def __init__(self, store: Store, space: EmbeddingSpace) -> None:
        self._store, self._space = store, space
        self._kept: tuple[int, RequestClassifier] | None = None

    def now(self) -> RequestClassifier:
        """The store's own where one is chosen, else the one that ships with the package.

        Raises
        ------
        SpaceMismatchError
            None is chosen, and the deployment's space is not that of the shipped one.
        """
        registry = self._store.registry_version()
        kept = self._kept
        if kept is not None and kept[0] == registry:
            return kept[1]
        row = self._store.active_model(KIND)
        if row is None or row.is_shipped:
            found = RequestClassifier.load(SHIPPED_CLASSIFIER, space=self._space)
        else:
            content = self._store.model_artifact(KIND, row.name)
            found = classifier_of(content, self._space, f"The classifier {row.name!r}")
        self._kept = registry, found
        return found


def classifier_of(content: bytes, space: EmbeddingSpace, what: str) -> RequestClassifier:
    """The classifier in a file's content.

    Raises
    ------
    ArtifactError
        The file is damaged, of a newer format, or no classifier's; the message calls it `what`.
    SpaceMismatchError
        It is of another space.
    """
    with tempfile.TemporaryDirectory(prefix="tinydancer-") as folder:
        path = Path(folder) / "classifier.safetensors"
        path.write_bytes(content)
        try:
            return RequestClassifier.load(path, space=space)
        except ArtifactError as error:
            raise ArtifactError(error.message.replace(repr(str(path)), what), hint=error.hint) from None


def capabilities_needed(
    classifier: RequestClassifier,
    vector: FloatVector,
    snapshot: Snapshot,
    constraints: Constraints | None = None,
    *,
    text: str | None = None,
) -> tuple[str, ...]:
    """The capabilities to require of the agents for one request, in the agents' own spelling.

    Those whose probability is above one half, from the likeliest on, as far as some agent has them all: a word that no
    agent uses, or a combination that none has, must not make a request unroutable. Only agents count that are active,
    not excluded, and have what is required anyway; limits on cost, latency and quality are not looked at, so that such
    a limit together with an inferred capability can still leave no agent.

    Parameters
    ----------
    classifier
        Of the snapshot's space.
    vector
        ``float32[dim]`` of length 1, as an embedder gives it.
    snapshot
        The agents. Capitals make no difference to a capability; where no agent writes one as the classifier does,
        neither do blanks, hyphens and underscores, as long as the agents write it in one way only.
    constraints
        What the caller requires and excludes already. What is required already is not named again.
    text
        The request, where known: its words tell more than its vector alone.

    Returns
    -------
    tuple of str
        Empty where nothing is needed, or no agent has it.
    """
    given = constraints or Constraints()
    candidates = capable(snapshot, given)
    if not candidates.any():
        return ()
    required = {name.casefold() for name in given.required_capabilities}
    needed = []
    for name, _ in classifier.answer(vector, text)[1]:
        word = _spelled(name, snapshot)
        bits = None if word is None or word in required else snapshot.required_words((word,))
        if word is None or bits is None:
            continue
        left = candidates & ((snapshot.capability_bits & bits) == bits).all(axis=1)
        if left.any():
            candidates = left
            needed.append(word)
    return tuple(needed)


def _spelled(name: str, snapshot: Snapshot) -> str | None:
    """The agents' word for a capability, in small letters; None where they have none, or several."""
    word = name.casefold()
    if word in snapshot.vocabulary:
        return word
    plain = _BETWEEN_WORDS.sub(" ", word)
    alike = [known for known in snapshot.vocabulary if _BETWEEN_WORDS.sub(" ", known) == plain]
    return alike[0] if len(alike) == 1 else None
