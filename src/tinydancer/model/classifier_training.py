"""Makes a request classifier from labelled examples, calibrated on examples it did not learn from.

In: embeddings, a class for each, and where wanted the capabilities each answer takes. Out: a `RequestClassifier` and a
report of how right it is expected to be.

Every example is predicted once by a network that has not seen it (cross-fitting); these predictions give the report's
figures and the calibration. Then one network learns from all examples. Classes and capabilities are learnt together as
yes-or-no questions; the class logits go through a softmax at the temperature under which the predictions were likeliest
(Guo et al., arXiv 1706.04599, section 4.2), each capability's through a slope and an offset (Platt, "Probabilistic
Outputs for Support Vector Machines", 1999), both folded into the head.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.model.classifier import RequestClassifier, unit_rows_of
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.training import TrainingConfig, head_logits, train_network
from tinydancer.types import MINILM_SPACE, EmbeddingSpace

__all__ = ["ClassifierReport", "default_training", "train_classifier"]

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

LEAST_STEPS = 600
"""Few examples make short epochs; they are repeated until the network has taken this many steps."""
_FEW_ROWS = 50
_FEW_OF_A_CAPABILITY = 5
_PLATT_PULL = 1.0  # strength of the pull towards slope 1 and offset 0, so that ten examples do not overturn them


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierReport:
    """What a training found, all on examples that the predicting network had not seen.

    Attributes
    ----------
    rows
        How many examples there were.
    judged_rows
        How many of them the figures are from.
    class_counts
        Name to number of examples.
    capability_counts
        Name to number of examples that take it.
    folds
        Into how many parts the examples were split.
    accuracy
        Share of examples whose likeliest class was right.
    log_loss, log_loss_uncalibrated
        Mean negative logarithm of the right class's probability, with the temperature and without.
    temperature
        What the class logits were divided by.
    capability_accuracy
        Name to the share of examples on which "above 0.5" was right.
    warnings
        What is wrong with the data without making training senseless.
    """

    rows: int
    judged_rows: int
    class_counts: dict[str, int]
    capability_counts: dict[str, int]
    folds: int
    accuracy: float
    log_loss: float
    log_loss_uncalibrated: float
    temperature: float
    capability_accuracy: dict[str, float]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Fields in JSON's types."""
        return {**asdict(self), "warnings": list(self.warnings)}


def default_training(rows: int) -> TrainingConfig:
    """How a classifier is trained on this many examples, unless told otherwise."""
    batch_size = 64
    epochs = max(60, math.ceil(LEAST_STEPS / math.ceil(rows / batch_size)))
    return TrainingConfig(
        epochs=epochs, batch_size=batch_size, dropout_input=0.3, dropout_state=0.3, validation_share=0.0, patience=None
    )


def train_classifier(
    embeddings: npt.ArrayLike,
    labels: Sequence[str],
    capabilities: Sequence[Collection[str]] | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    representative: npt.ArrayLike | None = None,
    space: EmbeddingSpace = MINILM_SPACE,
    config: TrainingConfig | None = None,
    hidden_dim: int = 64,
    folds: int = 5,
    seed: int = 0,
) -> tuple[RequestClassifier, ClassifierReport]:
    """Learn classes, and capabilities where given, from examples.

    Parameters
    ----------
    embeddings
        Shape (n, dim), one row per example, of any length but zero.
    labels
        n names of classes: at least two classes, each with at least two examples that differ.
    capabilities
        n collections of names: what each example's answer takes. None: the classifier has none.
    groups
        n keys: examples of one key (one template, one author) are predicted together, by a network that has seen none
        of them. None: only examples with equal vectors are.
    representative
        ``bool[n]``: which examples look like the requests to come. The others are learnt from as well, but report and
        calibration leave them out. None: all do.
    space
        The space the embeddings are in.
    config
        How to train; its seed is replaced by `seed`. None: `default_training`.
    hidden_dim
        Numbers in the network's state.
    folds
        Parts for the cross-fitting, at least 2; fewer where the smallest class has fewer examples.
    seed
        Of the split, the initial weights and the training: the same one gives the same classifier.

    Returns
    -------
    classifier, report

    Raises
    ------
    InvalidInputError
        No examples, fewer than two classes, a class with a single example, lists of different lengths, a name that is
        no name.
    SpaceMismatchError, InvalidVectorError
        Embeddings of another dimension, or a row that is zero or not finite.
    ModelError
        Training diverged.
    """
    xs = unit_rows_of(embeddings, space)
    seed = check.count(seed, "seed")
    folds = check.count(folds, "folds", low=2)
    names, class_of = _classes(labels, len(xs))
    capability_names, wanted = _capabilities(capabilities, len(xs))
    equal = _numbered(hashlib.blake2b(row.tobytes(), digest_size=12).digest() for row in xs)
    if groups is not None and len(groups) != len(xs):
        raise InvalidInputError(f"There are {len(xs)} embeddings and {len(groups)} groups; expected as many of each.")
    fold_of, folds = _folds(names, class_of, equal if groups is None else _numbered(groups), folds, seed)
    warnings = _warnings(class_of, equal, capability_names, wanted)
    config = replace(config or default_training(len(xs)), seed=seed)
    targets = np.concatenate([np.eye(len(names))[class_of], wanted], axis=1)

    def fitted(rows: Rows) -> FastGRNN:
        shape = FastGRNNConfig(
            input_dim=space.dim, hidden_dim=hidden_dim, output_dim=targets.shape[1], seed=config.seed
        )
        network = FastGRNN(shape)
        train_network(network, xs[rows], targets[rows], config=config, loss="binary")
        return network

    unseen = np.empty_like(targets)
    for fold in range(folds):
        network = fitted(np.flatnonzero(fold_of != fold))
        unseen[fold_of == fold] = head_logits(network, network.encode_batch(xs[fold_of == fold]))
    like_those_to_come = _representative(representative, len(xs))
    unseen, class_of, wanted = unseen[like_those_to_come], class_of[like_those_to_come], wanted[like_those_to_come]
    by_class, by_capability = unseen[:, : len(names)], unseen[:, len(names) :]
    temperature = _temperature(by_class, class_of)
    lines = [_platt(by_capability[:, k], wanted[:, k]) for k in range(len(capability_names))]
    slopes, offsets = (np.array(part) for part in zip(*lines, strict=True)) if lines else (np.ones(0), np.zeros(0))

    network = fitted(np.arange(len(xs)))
    factors = np.concatenate([np.full(len(names), 1.0 / temperature), slopes])
    shifts = np.concatenate([np.zeros(len(names)), offsets])
    head = network.parameters
    head["w_out"] = (head["w_out"] * factors[:, None]).astype(np.float32)
    head["b_out"] = (head["b_out"] * factors + shifts).astype(np.float32)

    yes = by_capability * slopes + offsets > 0.0
    counts = targets.sum(axis=0).astype(int).tolist()
    report = ClassifierReport(
        rows=len(xs),
        judged_rows=len(class_of),
        class_counts=dict(zip(names, counts[: len(names)], strict=True)),
        capability_counts=dict(zip(capability_names, counts[len(names) :], strict=True)),
        folds=folds,
        accuracy=float((by_class.argmax(axis=1) == class_of).mean()),
        log_loss=_log_loss(by_class / temperature, class_of),
        log_loss_uncalibrated=_log_loss(by_class, class_of),
        temperature=temperature,
        capability_accuracy=dict(zip(capability_names, (yes == wanted).mean(axis=0).tolist(), strict=True)),
        warnings=warnings,
    )
    classifier = RequestClassifier(
        network, classes=names, capabilities=capability_names, space=space, metadata={"report": report.to_dict()}
    )
    return classifier, report


def _classes(labels: Sequence[str], rows: int) -> tuple[list[str], Rows]:
    """Names in order, and the number of each example's."""
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise InvalidInputError(f"labels is {check.shown(labels)}; expected a list of class names.")
    if len(labels) != rows:
        raise InvalidInputError(f"There are {rows} embeddings and {len(labels)} labels; expected as many of each.")
    if rows == 0:
        raise InvalidInputError("There are no examples to learn from.", hint="Give a few for each class.")
    checked = [check.name_of(label, "class") for label in labels]
    names = sorted(set(checked))
    if len(names) < 2:
        raise InvalidInputError(
            f"All {rows} examples are of class {names[0]!r}; a classifier could only repeat it.",
            hint="Give examples of at least two classes; 'other' may be one of them.",
        )
    numbers = {name: i for i, name in enumerate(names)}
    return names, np.array([numbers[label] for label in checked], dtype=np.intp)


def _capabilities(given: Sequence[Collection[str]] | None, rows: int) -> tuple[list[str], FloatArray]:
    """Names in order, and ``[n, K]`` ones and zeros."""
    if given is None:
        return [], np.zeros((rows, 0))
    if len(given) != rows:
        raise InvalidInputError(
            f"There are {rows} embeddings and {len(given)} lists of capabilities; expected as many of each."
        )
    checked = [set(check.names_of(names, "capabilities")) for names in given]
    every = sorted(set().union(*checked))
    wanted = np.array([[name in names for name in every] for names in checked], dtype=np.float64)
    return every, wanted.reshape(rows, len(every))


def _numbered(keys: Iterable[Hashable]) -> Rows:
    """Number of each key, in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.intp)


def _folds(names: list[str], class_of: Rows, groups: Rows, folds: int, seed: int) -> tuple[Rows, int]:
    """The part of each example, and how many parts there are: groups together, classes spread evenly."""
    # A group goes by the class of its first example.
    firsts = np.unique(groups, return_index=True)[1]
    counts = np.bincount(class_of[firsts], minlength=len(names))
    if counts.min() < 2:
        name, have = names[int(counts.argmin())], np.bincount(class_of)[counts.argmin()]
        raise InvalidInputError(
            f"Class {name!r} has {have} example(s) in {counts.min()} group(s) of its own; expected at least 2 that "
            "differ from each other.",
            hint="Add examples, or merge it with another class. Ten or more per class make a useful classifier.",
        )
    folds = min(folds, int(counts.min()))
    rng = np.random.default_rng([seed, 7])
    part = np.empty(len(firsts), dtype=np.intp)
    shift = 0
    for number in range(len(names)):
        mine = rng.permutation(np.flatnonzero(class_of[firsts] == number))
        part[mine] = (np.arange(len(mine)) + shift) % folds
        shift += len(mine)  # so that small classes do not all miss the same last part
    return part[groups], folds


def _representative(given: npt.ArrayLike | None, rows: int) -> npt.NDArray[np.bool_]:
    if given is None:
        return np.ones(rows, dtype=np.bool_)
    chosen = np.asarray(given)
    if chosen.shape != (rows,) or chosen.dtype != np.bool_ or not chosen.any():
        raise InvalidInputError(
            f"representative is {check.shown(given)}; expected {rows} booleans, at least one of them true."
        )
    return chosen


def _warnings(class_of: Rows, groups: Rows, capability_names: list[str], wanted: FloatArray) -> tuple[str, ...]:
    warnings = []
    if len(class_of) < _FEW_ROWS:
        warnings.append(f"{len(class_of)} examples are few: the report and the calibration are rough.")
    pairs = set(zip(groups.tolist(), class_of.tolist(), strict=True))
    disputed = [group for group, classes in Counter(group for group, _ in pairs).items() if classes > 1]
    if disputed:
        rows = int(np.isin(groups, disputed).sum())
        warnings.append(f"{rows} examples share their vector with one of another class; no classifier can tell them.")
    repeated = len(groups) - len(set(groups.tolist()))
    if repeated:
        warnings.append(f"{repeated} of {len(groups)} examples repeat the vector of an earlier one.")
    for name, count in zip(capability_names, wanted.sum(axis=0).tolist(), strict=True):
        if min(count, len(wanted) - count) < _FEW_OF_A_CAPABILITY:
            warnings.append(
                f"Capability {name!r} is in {int(count)} of {len(wanted)} examples; what is said of it means little."
            )
    return tuple(warnings)


def _log_loss(logits: FloatArray, class_of: Rows) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=1))
    return float((total - shifted[np.arange(len(class_of)), class_of]).mean())


def _temperature(logits: FloatArray, class_of: Rows) -> float:
    """The divisor in [0.05, 20] that makes the right classes likeliest; the loss is convex in its inverse."""
    low, high = 1.0 / 20.0, 20.0
    for _ in range(80):
        third = (high - low) / 3.0
        if _log_loss(logits * (low + third), class_of) < _log_loss(logits * (high - third), class_of):
            high -= third
        else:
            low += third
    return 2.0 / (low + high)


def _platt(logits: FloatArray, wanted: FloatArray) -> tuple[float, float]:
    """Slope and offset that make the answers likeliest, by Newton's method with a pull towards (1, 0)."""
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    start = np.array([1.0, 0.0])
    line = start.copy()
    for _ in range(50):
        probability = 0.5 * np.tanh(0.5 * design @ line) + 0.5
        slope = design.T @ (probability - wanted) + _PLATT_PULL * (line - start)
        curvature = (design.T * (probability * (1.0 - probability))) @ design + _PLATT_PULL * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        line -= step
        if np.abs(step).max() < 1e-10:
            break
    if line[0] > 0.0:
        return float(line[0]), float(line[1])
    # On unseen examples the network knew less than nothing of it: the base rate is all that can be said.
    rate = (wanted.sum() + 1.0) / (len(wanted) + 2.0)
    return 0.0, float(math.log(rate / (1.0 - rate)))
