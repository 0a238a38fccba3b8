"""Train the request classifier that ships with the package, and say how good it is on requests it never saw.

In: the labelled requests in ``evals/classification``, the static embedder and the sentence transformer (from the extra
``minilm``). Out: ``model/data/classifier.safetensors`` and the tables of ``docs/explanation/classifier.md``. One seed,
one NumPy, one torch and one thread give one file, to the byte.

    OMP_NUM_THREADS=1 python scripts/train_classifier.py    # train, save, print the tables
    python scripts/train_classifier.py --evaluate           # print the tables of the weights that are there
    python scripts/train_classifier.py --speed              # time per request beside a plain NumPy product
    python scripts/train_classifier.py --learning-curve     # what more data would bring
    python scripts/train_classifier.py --compare            # what each part of the training brings
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classification_data import (
    FILLED_PER_CLASS,
    TEMPLATES,
    TEST,
    TRAIN,
    LabelledRequest,
    data_sha256,
    fill_templates,
    read_requests,
)
from tinydancer.embedding.base import Embedder
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.model.classifier import SHIPPED_CLASSIFIER, RequestClassifier
from tinydancer.model.classifier_training import train_classifier

SEED = 20
BINS = 10
FloatArray = npt.NDArray[np.float64]
FloatVector = npt.NDArray[np.float32]


def training_requests() -> list[LabelledRequest]:
    """Everything the shipped classifier learns from: written requests, then filled wordings."""
    return read_requests(TRAIN) + fill_templates(TEMPLATES, FILLED_PER_CLASS, SEED)


def train(path: Path, more_vectors: Sequence[FloatVector] = ()) -> RequestClassifier:
    """Train, save to `path` and load again; `more_vectors` are the training requests in other embedders' vectors."""
    requests = training_requests()
    written = len(read_requests(TRAIN))
    classifier, report = train_classifier(
        StaticEmbedder().embed([request.text for request in requests]).vectors,
        [request.label for request in requests],
        [request.capabilities for request in requests],
        texts=[request.text for request in requests],
        more_embeddings=more_vectors,
        groups=[request.source for request in requests],
        representative=np.arange(len(requests)) < written,
        best_f1=True,
        seed=SEED,
    )
    classifier.save(
        path,
        {
            "name": "requests-12",
            "about": "Kinds of request to applications of language models, and what their answers take.",
            "data": "evals/classification: train.tsv, templates.txt",
            "data_sha256": data_sha256(TRAIN, TEMPLATES),
            "embedders": [StaticEmbedder.name, *(["minilm"] if more_vectors else [])],
            "report": report.to_dict(),
            "seed": SEED,
            "written_requests": written,
            "filled_requests": len(requests) - written,
        },
    )
    return RequestClassifier.load(path)


def minilm_vectors(texts: Sequence[str], file: Path | None = None) -> FloatVector:
    """``float32[n, 384]`` by the transformer, or what an earlier run wrote to `file`."""
    if file is not None and file.exists():
        found: FloatVector = np.load(file)
        return found
    from tinydancer.embedding.transformer import MiniLMEmbedder

    vectors = MiniLMEmbedder().embed(texts).vectors
    if file is not None:
        np.save(file, vectors)
    return vectors


def expected_calibration_error(confidence: FloatArray, right: npt.NDArray[np.bool_], bins: int = BINS) -> float:
    """Mean gap between stated and observed share of right answers, over bins of equal width, by their size."""
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float(confidence[number == b].mean() - right[number == b].mean())) * float((number == b).mean())
        for b in np.unique(number)
    ]
    return sum(gaps)


def evaluate(
    classifier: RequestClassifier, requests: Sequence[LabelledRequest], embedder: Embedder, *, words: bool = True
) -> float:
    """Print the tables; the accuracy. Without `words`, of the vectors alone."""
    texts = [request.text for request in requests]
    by_class, by_capability = classifier.predict(embedder.embed(texts).vectors, texts if words else None)
    names = np.array(classifier.classes)
    truth = np.array([classifier.classes.index(request.label) for request in requests])
    guess, confidence = by_class.argmax(axis=1), by_class.max(axis=1)
    right = guess == truth
    accuracy = float(right.mean())
    error = 1.96 * (accuracy * (1 - accuracy) / len(truth)) ** 0.5
    in_two = float(np.mean([t in order[-2:] for t, order in zip(truth, by_class.argsort(axis=1), strict=True)]))
    by = "vectors and words" if words else "vectors alone"
    print(f"requests {len(truth)}, embedder {embedder.name}, by {by}, weights {classifier.name}")
    print(f"accuracy {accuracy:.3f} (95%: +- {error:.3f}), right class among the first two {in_two:.3f}")
    print(f"log loss {-np.log(by_class[np.arange(len(truth)), truth]).mean():.3f}, ", end="")
    print(f"calibration error {expected_calibration_error(confidence, right):.3f}\n")
    print("| class | requests | precision | recall | most often taken for |\n| --- | --: | --: | --: | --- |")
    for c, name in enumerate(names):
        mine, said = truth == c, guess == c
        others = np.bincount(guess[mine & ~right], minlength=len(names))
        taken = ", ".join(f"{names[o]} {others[o]}" for o in np.argsort(-others, kind="stable")[:2] if others[o])
        precision = f"{right[said].mean():.2f}" if said.any() else "-"
        print(f"| {name} | {mine.sum()} | {precision} | {right[mine].mean():.2f} | {taken} |")
    print("\n| confidence | requests | stated | right |\n| --- | --: | --: | --: |")
    for low, high in ((0.0, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 0.9), (0.9, 1.001)):
        rows = (confidence >= low) & (confidence < high)
        if rows.any():
            stated, observed = confidence[rows].mean(), right[rows].mean()
            print(f"| {low} to {min(high, 1.0)} | {rows.sum()} | {stated:.2f} | {observed:.2f} |")
    print("\n| capability | requests | precision | recall | F1 | calibration error |")
    print("| --- | --: | --: | --: | --: | --: |")
    wanted = np.array([[k in request.capabilities for k in classifier.capabilities] for request in requests])
    yes = by_capability > 0.5
    for k, capability in enumerate(classifier.capabilities):
        print(_capability_row(capability, wanted[:, k], yes[:, k], by_capability[:, k]))
    print(_capability_row("all together", wanted.ravel(), yes.ravel(), by_capability.ravel()))
    print(f"\nall capabilities right: {np.all(yes == wanted, axis=1).mean():.3f}", end="")
    print(f", if none were ever named: {np.all(~wanted, axis=1).mean():.3f}")
    return accuracy


def _capability_row(
    name: str, wanted: npt.NDArray[np.bool_], yes: npt.NDArray[np.bool_], probability: FloatArray
) -> str:
    both = int((wanted & yes).sum())
    precision = f"{both / yes.sum():.2f}" if yes.any() else "-"
    gap = expected_calibration_error(probability, wanted)
    f1 = 2 * both / (wanted.sum() + yes.sum())
    return f"| {name} | {wanted.sum()} | {precision} | {both / wanted.sum():.2f} | {f1:.2f} | {gap:.3f} |"


def learning_curve(test: Sequence[LabelledRequest]) -> None:
    """Print the accuracy on `test` after training on shares of the data: what more data would bring."""
    embedder = StaticEmbedder()
    vectors = embedder.embed([request.text for request in test]).vectors
    written, filled = read_requests(TRAIN), fill_templates(TEMPLATES, FILLED_PER_CLASS, SEED)
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(written))
    texts = [request.text for request in test]
    truth = np.array([request.label for request in test])
    print("| written | filled | by vector | by vector and words |\n| --: | --: | --: | --: |")
    for share, with_filled in ((0.25, False), (0.5, False), (1.0, False), (0.25, True), (0.5, True), (1.0, True)):
        some = [written[i] for i in order[: round(share * len(written))]] + (filled if with_filled else [])
        classifier, _ = train_classifier(
            embedder.embed([request.text for request in some]).vectors,
            [request.label for request in some],
            texts=[request.text for request in some],
            groups=[request.source for request in some],
            folds=2,
            seed=SEED,
        )
        names = np.array(classifier.classes)
        right = [
            (names[classifier.predict(vectors, given)[0].argmax(axis=1)] == truth).mean() for given in (None, texts)
        ]
        cells = " | ".join(f"{share_right:.3f}" for share_right in right)
        print(f"| {round(share * len(written))} | {len(filled) if with_filled else 0} | {cells} |")


def compare(more_vectors: FloatVector) -> None:
    """Print what each part of the training brings, cross-fitted on the written training requests, never on the test."""
    requests = training_requests()
    texts = [request.text for request in requests]
    static, written = StaticEmbedder().embed(texts).vectors, len(read_requests(TRAIN))
    print("| training | by vector | log loss | by vector and words | log loss | mean F1 of the capabilities |")
    print("| --- | --: | --: | --: | --: | --: |")
    ways: tuple[tuple[str, dict[str, Any]], ...] = (
        ("static vectors", {}),
        ("static and MiniLM vectors", {"more_embeddings": [more_vectors]}),
        ("as shipped: both, best F1", {"more_embeddings": [more_vectors], "best_f1": True}),
        ("both, state of 128", {"more_embeddings": [more_vectors], "hidden_dim": 128}),
        ("both, state of 16", {"more_embeddings": [more_vectors], "hidden_dim": 16}),
        ("judged on MiniLM's: both", {"vectors": more_vectors, "more_embeddings": [static]}),
    )
    for name, given in ways:
        _, report = train_classifier(
            given.pop("vectors", static), [r.label for r in requests], [r.capabilities for r in requests],
            texts=texts, groups=[r.source for r in requests], representative=np.arange(len(requests)) < written,
            seed=SEED, **given,
        )  # fmt: skip
        f1 = np.mean([value for value in report.capability_f1.values() if value is not None])
        figures = (report.accuracy_by_vector, report.log_loss_by_vector, report.accuracy, report.log_loss, f1)
        print(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |", flush=True)


def _median_us(call: Callable[[], object], repeats: int = 3000) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1e3)
    return statistics.median(times)


def speed(classifier: RequestClassifier) -> None:
    """Print medians per request, beside the product of a matrix of the network's size with a vector."""
    from tinydancer.classification import RequestClassification
    from tinydancer.service import TinyDancer

    text = "Translate this sentence into Danish, please."
    vector = StaticEmbedder().embed_one(text)[0]
    matrix = np.ascontiguousarray(classifier.network.w_update)
    many = np.tile(vector, (1000, 1))
    with TinyDancer() as dancer:
        kinds = RequestClassification(dancer)
        for what, call in (
            (f"NumPy product {matrix.shape[0]} x {matrix.shape[1]} by vector", lambda: matrix @ vector),
            ("`RequestClassification.classify`, vector", lambda: kinds.classify(embedding=vector)),
            ("`RequestClassification.classify`, text of seven words, embedding included", lambda: kinds.classify(text)),
            ("`RequestClassifier.classify`, vector", lambda: classifier.classify(vector)),
            ("`RequestClassifier.answer`, vector and text", lambda: classifier.answer(vector, text)),
        ):
            print(f"| {what} | {_median_us(call):.1f} µs |")
    each = _median_us(lambda: classifier.predict(many), 30) / len(many)
    print(f"| `predict`, 1,000 vectors at once, each | {each:.2f} µs |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=SHIPPED_CLASSIFIER, help="file of the weights")
    parser.add_argument("--evaluate", action="store_true", help="do not train")
    parser.add_argument("--speed", action="store_true", help="measure time per request, nothing else")
    parser.add_argument("--learning-curve", action="store_true", help="accuracy by amount of data, nothing else")
    parser.add_argument("--minilm", action="store_true", help="evaluate on MiniLM's vectors (needs the extra minilm)")
    parser.add_argument("--vectors-only", action="store_true", help="evaluate without the words")
    parser.add_argument("--compare", action="store_true", help="parts of the training, cross-fitted, nothing else")
    parser.add_argument("--without-minilm", action="store_true", help="train on the static embedder's vectors only")
    parser.add_argument("--minilm-vectors", type=Path, help="a .npy file that is read, or written if it does not exist")
    arguments = parser.parse_args()
    if arguments.learning_curve:
        learning_curve(read_requests(TEST))
        return
    if arguments.evaluate or arguments.speed:
        classifier = RequestClassifier.load(arguments.out)
    else:
        texts = [request.text for request in training_requests()]
        more = [] if arguments.without_minilm else [minilm_vectors(texts, arguments.minilm_vectors)]
        if arguments.compare:
            compare(*more)
            return
        arguments.out.parent.mkdir(exist_ok=True)
        classifier = train(arguments.out, more)
        print("cross-fitted on the training requests:", classifier.metadata["report"], "\n")
    if arguments.speed:
        speed(classifier)
        return
    embedder: Embedder = StaticEmbedder()
    if arguments.minilm:
        from tinydancer.embedding.transformer import MiniLMEmbedder

        embedder = MiniLMEmbedder()
    evaluate(classifier, read_requests(TEST), embedder, words=not arguments.vectors_only)


if __name__ == "__main__":
    main()
