"""Makes a request classifier from labelled examples, calibrated on examples it did not learn from.

In: embeddings, a class for each, and where wanted the texts, and the capabilities each answer takes. Out: a
`RequestClassifier` and a report of how right it is expected to be.

Every example is predicted once by a network, and once by words, that have not seen it (cross-fitting); these
predictions give the report's figures and the calibration. Then one network, and one layer of words, learn from all
examples. Classes and capabilities are learnt together as yes-or-no questions. The class logits go through a softmax at
the temperature under which the predictions were likeliest (Guo et al., arXiv 1706.04599, section 4.2), each
capability's through a slope and an offset (Platt, "Probabilistic Outputs for Support Vector Machines", 1999), both
folded into the head. With texts, the same calibration weighs vector against words. Where F1 is asked for, each
capability's offset is moved last, so that one half is the threshold whose expected F1 is highest: for honest
probabilities that is half of that F1, so below one half (Lipton et al., "Optimal Thresholding of Classifiers to
Maximize F1 Measure", 2014), and rare capabilities are not missed.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.model.classifier import RequestClassifier, unit_rows_of
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.training import TrainingConfig, head_logits, train_network
from tinydancer.model.words import Words, learnt_words
from tinydancer.types import MINILM_SPACE, EmbeddingSpace

__all__ = ["ClassifierReport", "default_training", "train_classifier"]

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

LEAST_STEPS = 600
"""Few examples make short epochs; they are repeated until the network has taken this many steps."""
MOST_STEPS = 40_000
"""Many examples need fewer epochs, down to a handful."""
OTHERS_COUNT = 0.5
"""How much an example that is not representative counts beside one that is."""
_FEW_ROWS = 50
_FEW_OF_A_CAPABILITY = 5
_PLATT_PULL = 1.0  # strength of the pull towards where it starts, so that ten examples do not overturn that
_SHARES = 21  # of the vector beside the words, from none to all


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
        Share of examples whose likeliest class was right: by vector and words, where there were texts.
    accuracy_by_vector
        The same by vector alone.
    confusion
        ``[true class][named class]``: numbers of examples, in the order of `class_counts`.
    log_loss
        Mean negative logarithm of the right class's probability: by vector and words, where there were texts.
    log_loss_by_vector, log_loss_uncalibrated
        The same by vector alone, with the temperature and without.
    temperature
        What the class logits by vector were divided by.
    capability_accuracy
        Name to the share of examples on which "above 0.5" was right.
    capability_f1
        Name to the F1 of "above 0.5"; None where it is in no example.
    warnings
        What is wrong with the data without making training senseless.
    """

    rows: int
    judged_rows: int
    class_counts: dict[str, int]
    capability_counts: dict[str, int]
    folds: int
    accuracy: float
    accuracy_by_vector: float
    confusion: tuple[tuple[int, ...], ...]
    log_loss: float
    log_loss_by_vector: float
    log_loss_uncalibrated: float
    temperature: float
    capability_accuracy: dict[str, float]
    capability_f1: dict[str, float | None]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Fields in JSON's types."""
        confusion = [list(row) for row in self.confusion]
        return {**asdict(self), "confusion": confusion, "warnings": list(self.warnings)}

    def of_class(self, name: str) -> tuple[float | None, float | None]:
        """Precision and recall of a class; None where it was never named, or no judged example is of it."""
        confusion = np.array(self.confusion)
        i = list(self.class_counts).index(name)
        hits, named, true = float(confusion[i, i]), int(confusion[:, i].sum()), int(confusion[i].sum())
        return (hits / named if named else None), (hits / true if true else None)


def default_training(rows: int) -> TrainingConfig:
    """How a classifier is trained on this many examples, unless told otherwise."""
    batch_size = 64
    steps = math.ceil(rows / batch_size)
    epochs = max(5, min(60, MOST_STEPS // steps), math.ceil(LEAST_STEPS / steps))
    return TrainingConfig(
        epochs=epochs, batch_size=batch_size, dropout_input=0.3, dropout_state=0.3, validation_share=0.0, patience=None
    )


def train_classifier(
    embeddings: npt.ArrayLike,
    labels: Sequence[str],
    capabilities: Sequence[Collection[str]] | None = None,
    *,
    texts: Sequence[str] | None = None,
    more_embeddings: Sequence[npt.ArrayLike] = (),
    groups: Sequence[Hashable] | None = None,
    representative: npt.ArrayLike | None = None,
    space: EmbeddingSpace = MINILM_SPACE,
    config: TrainingConfig | None = None,
    hidden_dim: int = 64,
    folds: int = 5,
    best_f1: bool = False,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
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
    texts
        n texts: what the examples' words are. None: the classifier goes by vectors alone.
    more_embeddings
        The same examples as further embedders of the space give them, each ``[n, dim]``. They are learnt from too;
        report and calibration are of `embeddings`.
    groups
        n keys: examples of one key (one template, one author) are predicted together, by a network that has seen none
        of them. None: only examples with equal vectors are.
    representative
        ``bool[n]``: which examples look like the requests to come. The others are learnt from as well, at
        `OTHERS_COUNT`, but report and calibration leave them out. None: all do.
    space
        The space the embeddings are in.
    config
        How to train; its seed is replaced by `seed`. None: `default_training`.
    hidden_dim
        Numbers in the network's state.
    folds
        Parts for the cross-fitting, at least 2; fewer where the smallest class has fewer examples.
    best_f1
        Move the probabilities of the capabilities so that "above 0.5" has the highest expected F1. They are no longer
        frequencies then, but more of what is needed is named.
    seed
        Of the split, the initial weights and the training: the same one gives the same classifier.
    progress
        Called many times with the share of the work that is done, in [0, 1].

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
    if texts is not None and len(texts) != len(xs):
        raise InvalidInputError(f"There are {len(xs)} embeddings and {len(texts)} texts; expected as many of each.")
    views = [xs, *(unit_rows_of(more, space) for more in more_embeddings)]
    if any(len(view) != len(xs) for view in views):
        raise InvalidInputError(f"more_embeddings has {[len(v) for v in views[1:]]} rows; expected {len(xs)} each.")
    like_those_to_come = _representative(representative, len(xs))
    warnings = _warnings(class_of, equal, capability_names, wanted)
    config = replace(config or default_training(len(xs) * len(views)), seed=seed)
    targets = np.concatenate([np.eye(len(names))[class_of], wanted], axis=1)
    work, done = (folds + 1) * (config.epochs + (0 if texts is None else targets.shape[1])), 0

    def advance(_: object = None) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(1.0, done / work))

    counting = np.where(like_those_to_come, 1.0, OTHERS_COUNT)

    def network_of(rows: Rows) -> FastGRNN:
        shape = FastGRNNConfig(
            input_dim=space.dim, hidden_dim=hidden_dim, output_dim=targets.shape[1], seed=config.seed
        )
        network = FastGRNN(shape)
        train_network(
            network, np.concatenate([view[rows] for view in views]), np.tile(targets[rows], (len(views), 1)),
            config=config, loss="binary", sample_weight=np.tile(counting[rows], len(views)), on_epoch=advance,
        )  # fmt: skip
        return network

    def words_of(rows: Rows) -> Words | None:
        if texts is None:
            return None
        return learnt_words([texts[i] for i in rows.tolist()], targets[rows], counting[rows], on_answer=advance)

    by_vector = np.empty_like(targets)
    by_words = np.empty_like(targets)
    for fold in range(folds):
        learnt, left_out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        network, words = network_of(learnt), words_of(learnt)
        by_vector[left_out] = head_logits(network, network.encode_batch(xs[left_out]))
        if words is not None and texts is not None:
            by_words[left_out] = [words.logits(texts[i]) for i in left_out.tolist()]
    parts = [part[like_those_to_come] for part in ([by_vector] if texts is None else [by_vector, by_words])]
    class_of, wanted = class_of[like_those_to_come], wanted[like_those_to_come]
    alone = _calibrated(parts[:1], class_of, wanted, best_f1=best_f1)
    joint = _calibrated(parts, class_of, wanted, best_f1=best_f1)

    network, words = network_of(np.arange(len(xs))), words_of(np.arange(len(xs)))
    head, factors = network.parameters, alone.factors[0]
    head["w_out"] = (head["w_out"] * factors[:, None]).astype(np.float32)
    head["b_out"] = (head["b_out"] * factors + alone.shifts).astype(np.float32)
    if words is not None:
        # The head's logits are calibrated for the vector alone; what the joint calibration takes of them goes by that.
        of_vector = np.divide(joint.factors[0], factors, out=np.zeros_like(factors), where=factors > 0.0)
        words = words.calibrated(joint.factors[1], joint.shifts - of_vector * alone.shifts, of_vector)

    count = len(names)
    said, yes = joint.logits[:, :count].argmax(axis=1), joint.logits[:, count:] > 0.0
    confusion = np.zeros((count, count), dtype=int)
    np.add.at(confusion, (class_of, said), 1)
    hits, named = (yes & (wanted > 0.0)).sum(axis=0), yes.sum(axis=0) + wanted.sum(axis=0)
    f1 = [float(2.0 * h / n) if w else None for h, n, w in zip(hits, named, wanted.sum(axis=0), strict=True)]
    counts = targets.sum(axis=0).astype(int).tolist()
    report = ClassifierReport(
        rows=len(xs),
        judged_rows=len(class_of),
        class_counts=dict(zip(names, counts[:count], strict=True)),
        capability_counts=dict(zip(capability_names, counts[count:], strict=True)),
        folds=folds,
        accuracy=float((said == class_of).mean()),
        accuracy_by_vector=float((alone.logits[:, :count].argmax(axis=1) == class_of).mean()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        log_loss=_log_loss(joint.logits[:, :count], class_of),
        log_loss_by_vector=_log_loss(alone.logits[:, :count], class_of),
        log_loss_uncalibrated=_log_loss(parts[0][:, :count], class_of),
        temperature=float(1.0 / factors[0]),
        capability_accuracy=dict(zip(capability_names, (yes == wanted).mean(axis=0).tolist(), strict=True)),
        capability_f1=dict(zip(capability_names, f1, strict=True)),
        warnings=warnings,
    )
    classifier = RequestClassifier(
        network, classes=names, capabilities=capability_names, space=space, words=words,
        metadata={"report": report.to_dict()},
    )  # fmt: skip
    return classifier, report


@dataclass(frozen=True, slots=True, eq=False)
class _Calibration:
    """One factor for each part and output, one shift for each output, and the logits that come of them."""

    factors: FloatArray
    shifts: FloatArray
    logits: FloatArray


def _calibrated(parts: Sequence[FloatArray], class_of: Rows, wanted: FloatArray, *, best_f1: bool) -> _Calibration:
    """Weigh the parts' logits ``[n, C + K]``, C classes first, so that the unseen answers become likeliest."""
    outputs = parts[0].shape[1]
    count = outputs - wanted.shape[1]
    factors, shifts = np.empty((len(parts), outputs)), np.zeros(outputs)
    factors[:, :count] = _weights([part[:, :count] for part in parts], class_of)[:, None]
    for k in range(wanted.shape[1]):
        columns = np.stack([part[:, count + k] for part in parts], axis=1)
        slopes, offset = _platt(columns, wanted[:, k])
        factors[:, count + k] = slopes
        # Where nothing tells a capability, the best F1 would be had by always naming it.
        threshold = _best_threshold(columns @ slopes + offset) if best_f1 and slopes.any() else 0.0
        shifts[count + k] = offset - threshold
    logits = sum((part * factor for part, factor in zip(parts, factors, strict=True)), np.zeros(outputs)) + shifts
    return _Calibration(factors, shifts, logits)


def _weights(parts: Sequence[FloatArray], class_of: Rows) -> FloatArray:
    """What each part's class logits are multiplied by: one over a temperature, shared out between two parts."""
    if len(parts) == 1:
        return np.array([1.0 / _temperature(parts[0], class_of)])
    best, chosen = math.inf, np.zeros(2)
    for share in np.linspace(0.0, 1.0, _SHARES):
        mixed = share * parts[0] + (1.0 - share) * parts[1]
        temperature = _temperature(mixed, class_of)
        loss = _smoothed_loss(mixed / temperature, class_of)
        if loss < best:
            best, chosen = loss, np.array([share, 1.0 - share]) / temperature
    return chosen


def _best_threshold(logits: FloatArray) -> float:
    """The logit above which to say yes for the highest expected F1, taking the probabilities at their word."""
    ordered = -np.sort(-logits)
    probabilities = 0.5 * np.tanh(0.5 * ordered) + 0.5
    expected = np.cumsum(probabilities) / (np.arange(1, len(ordered) + 1) + probabilities.sum())
    last = int(expected.argmax())
    following = ordered[last + 1] if last + 1 < len(ordered) else ordered[last] - 1.0
    return min(0.5 * float(ordered[last] + following), 0.0)


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


def _smoothed_loss(logits: FloatArray, class_of: Rows) -> float:
    """As `_log_loss`, with one wrong answer more than there were: a handful of right ones is no certainty.

    Platt's correction of the targets (section 2.2 of his paper), for several classes.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=1))
    doubt = 1.0 / (len(class_of) + 2.0)
    right, average = shifted[np.arange(len(class_of)), class_of], shifted.mean(axis=1)
    return float((total - (1.0 - doubt) * right - doubt * average).mean())


def _temperature(logits: FloatArray, class_of: Rows) -> float:
    """The divisor in [0.05, 20] that makes the right classes likeliest; the loss is convex in its inverse."""
    low, high = 1.0 / 20.0, 20.0
    for _ in range(80):
        third = (high - low) / 3.0
        if _smoothed_loss(logits * (low + third), class_of) < _smoothed_loss(logits * (high - third), class_of):
            high -= third
        else:
            low += third
    return 2.0 / (low + high)


def _platt(logits: FloatArray, wanted: FloatArray) -> tuple[FloatArray, float]:
    """Slopes of ``[n, parts]`` and an offset that make the answers likeliest; no slope is negative.

    By Newton's method, with a pull towards equal slopes of sum 1 and an offset of 0.
    """
    parts = logits.shape[1]
    kept = list(range(parts))
    while kept:
        design = np.concatenate([logits[:, kept], np.ones((len(logits), 1))], axis=1)
        start = np.array([1.0 / parts] * len(kept) + [0.0])
        line = start.copy()
        for _ in range(50):
            probability = 0.5 * np.tanh(0.5 * design @ line) + 0.5
            slope = design.T @ (probability - wanted) + _PLATT_PULL * (line - start)
            curvature = (design.T * (probability * (1.0 - probability))) @ design + _PLATT_PULL * np.eye(len(line))
            step = np.linalg.solve(curvature, slope)
            line -= step
            if np.abs(step).max() < 1e-10:
                break
        if line[:-1].min() > 0.0:
            slopes = np.zeros(parts)
            slopes[kept] = line[:-1]
            return slopes, float(line[-1])
        kept.pop(int(line[:-1].argmin()))  # on unseen examples it knew less than nothing
    # Nothing told it: the base rate is all that can be said.
    rate = (wanted.sum() + 1.0) / (len(wanted) + 2.0)
    return np.zeros(parts), float(math.log(rate / (1.0 - rate)))
