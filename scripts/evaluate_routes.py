"""How well semantic routes find the intent of a request: accuracy on labelled requests, out-of-scope ones included.

In: ``evals/routes``. Out: a table on standard output, or JSON. Thresholds and calibrations are fitted on four fifths of
the requests and measured on the fifth, five times over, so that each request is measured once and never fitted on.

    python scripts/evaluate_routes.py
    python scripts/evaluate_routes.py --embedder minilm --json

``--defaults`` fits what routes without a fit of their own start from (``DEFAULT_CALIBRATION`` and its like).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.config import EmbedderSettings
from tinydancer.embedding.base import Embedder
from tinydancer.intake import make_embedder
from tinydancer.policy.route_fitting import FittedRoutes, fit_routes, judge_routes
from tinydancer.policy.route_rules import Route, Utterance
from tinydancer.policy.route_snapshot import RoutesSnapshot, build_routes_snapshot
from tinydancer.policy.routes import route_semantically
from tinydancer.validation import FloatVector

FOLDER = Path(__file__).resolve().parent.parent / "evals" / "routes"
FOLDS = 5
SHARED = ("slope", "margin", "none_intercept", "none_slope", "none_margin")


def rows_of(name: str) -> list[tuple[str, str]]:
    """(route, text) of one of the files."""
    lines = (FOLDER / f"{name}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [(route, text) for route, _, text in (line.partition("\t") for line in lines)]


def routes_from(embedder: Embedder, *, described: bool) -> list[Route]:
    """The routes by their examples, or by their descriptions alone."""
    rows = rows_of("descriptions" if described else "utterances")
    vectors = embedder.embed([text for _, text in rows]).vectors
    found: dict[str, list[Utterance]] = {}
    for (name, text), vector in zip(rows, vectors, strict=True):
        kind: Any = "description" if described else "example"
        found.setdefault(name, []).append(Utterance(text=text, embedding=vector, kind=kind))
    return [Route(name=name, target_agent=name, utterances=tuple(own)) for name, own in found.items()]


def fitted_snapshot(routes: Sequence[Route], embedder: Embedder, fitted: FittedRoutes) -> RoutesSnapshot:
    """The routes, which stand in order of name, with what was fitted."""
    changed = [
        Route(name=r.name, target_agent=r.name, utterances=r.utterances, threshold=threshold, calibration=calibration)
        for r, threshold, calibration in zip(routes, *fitted, strict=True)
    ]
    return build_routes_snapshot(changed, version="fitted", space=embedder.space)


def cross_fitted(
    routes: Sequence[Route], embedder: Embedder, queries: FloatVector, labels: npt.NDArray[np.intp], seed: int
) -> dict[str, Any]:
    """Figures over all requests, each answered by a fit that did not see it."""
    plain = build_routes_snapshot(routes, version="plain", space=embedder.space)
    fold = np.random.default_rng(seed).permutation(len(labels)) % FOLDS
    sure = np.zeros(len(labels))
    answered = np.full(len(labels), -1, dtype=np.intp)
    for number in range(FOLDS):
        held_out = fold == number
        fitted = fit_routes(queries[~held_out], labels[~held_out].tolist(), plain)
        snapshot = fitted_snapshot(routes, embedder, fitted)
        answers = route_semantically(queries[held_out], snapshot, now=0.0, top_k=1)
        answered[held_out], sure[held_out] = answers.best, answers.confidence
    right = answered == labels
    inside, refused = labels >= 0, answered < 0
    bins = np.minimum((sure * 10).astype(np.intp), 9)
    unfitted = judge_routes(labels.tolist(), route_semantically(queries, plain, now=0.0, top_k=1))
    return {
        "requests": len(labels),
        "accuracy": float(right.mean()),
        "accuracy_in_scope": float(right[inside].mean()),
        "nearest_in_scope": float((plain.similarity(queries)[inside].argmax(axis=1) == labels[inside]).mean()),
        "precision": float(right[~refused].mean()),
        "recall_of_none": float(right[~inside].mean()),
        "brier": float(((sure - right) ** 2).mean()),
        "calibration_error": float(np.abs(np.bincount(bins, sure - right, 10)).sum() / len(labels)),
        "accuracy_unfitted": unfitted.accuracy,
        "calibration_error_unfitted": unfitted.calibration_error,
    }


def pooled_defaults(
    routes: Sequence[Route], embedder: Embedder, queries: FloatVector, labels: npt.NDArray[np.intp]
) -> dict[str, float]:
    """One threshold and one calibration for all routes: medians of theirs."""
    fitted = fit_routes(queries, labels.tolist(), build_routes_snapshot(routes, version="", space=embedder.space))
    return {
        "threshold": float(np.median(fitted.thresholds)),
        "intercept": float(np.median([c.intercept for c in fitted.calibrations])),
        **{key: getattr(fitted.calibrations[0], key) for key in SHARED},
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedder", choices=("static", "minilm"), default="static")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--defaults", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    embedder = make_embedder(EmbedderSettings(kind=given.embedder))
    rows = rows_of("requests")
    queries = embedder.embed([text for _, text in rows]).vectors
    found = {}
    for described in (False, True):
        routes = sorted(routes_from(embedder, described=described), key=lambda r: r.name)
        place = {r.name: number for number, r in enumerate(routes)}
        labels = np.array([place.get(name, -1) for name, _ in rows], dtype=np.intp)
        by = "descriptions" if described else "utterances"
        if given.defaults:
            found[by] = pooled_defaults(routes, embedder, queries, labels)
        else:
            found[by] = cross_fitted(routes, embedder, queries, labels, given.seed)
    if given.json:
        print(json.dumps({"embedder": given.embedder, "seed": given.seed, **found}))
        return
    for by, figures in found.items():
        print(f"{given.embedder}, by {by}")
        for key, value in figures.items():
            print(f"  {key.replace('_', ' '):<28} {value:>8.4g}")


if __name__ == "__main__":
    main()
