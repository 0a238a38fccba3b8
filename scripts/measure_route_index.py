"""What the approximate index of semantic routes finds and costs, beside exact search among the same routes.

In: how many routes. Out: a table on standard output: time to build, memory, time per request, and recall: how often the
exact first route is the first one, and how many of the exact first ten are among the ten. Needs the extra ``index``.

    python scripts/measure_route_index.py --routes 100000
    python scripts/measure_route_index.py --routes 20000 --examples 4

Routes are made of texts put together from lists of words and embedded by the static embedder, requests say the same in
other words. Nearer neighbours make an index worse than real routes would: all of them share most of their words with
thousands of others. ``--random`` takes random directions instead, among which nothing is near anything: the worst case.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinydancer.embedding.static import StaticEmbedder
from tinydancer.policy.route_index import is_available
from tinydancer.policy.route_rules import Route, Utterance
from tinydancer.policy.route_snapshot import RoutesSnapshot, build_routes_snapshot, index_routes
from tinydancer.policy.routes import route_one
from tinydancer.types import MINILM_SPACE
from tinydancer.validation import FloatVector

TOP = 10
DEEDS = (
    ("cancel", "call off"), ("order", "buy"), ("repair", "mend"), ("explain", "make clear"), ("find", "look up"),
    ("change", "alter"), ("report", "tell us about"), ("compare", "set side by side"), ("translate", "interpret"),
    ("summarise", "shorten"), ("book", "reserve"), ("return", "send back"), ("insure", "protect"), ("sell", "trade"),
    ("check", "inspect"), ("draw", "sketch"), ("pay", "settle"), ("forward", "pass on"), ("count", "add up"),
    ("write", "draft"), ("deliver", "bring"), ("clean", "wash"), ("install", "set up"), ("lend", "hand out"),
    ("measure", "take the size of"),
)  # fmt: skip
THINGS = (
    ("invoice", "bill"), ("bicycle", "bike"), ("contract", "agreement"), ("washing machine", "washer"),
    ("train ticket", "rail fare"), ("password", "login"), ("letter", "mail"), ("wedding cake", "cake for a marriage"),
    ("heating", "radiator"), ("passport", "travel document"), ("guitar", "string instrument"), ("recipe", "dish"),
    ("photograph", "picture"), ("garden fence", "hedge"), ("tax return", "taxes"), ("database", "table of records"),
    ("medicine", "pills"), ("telephone", "mobile"), ("hotel room", "place to stay"), ("carpet", "rug"),
    ("lecture", "talk"), ("kitchen", "cooker"), ("car tyre", "wheel"), ("loan", "credit"), ("pension", "retirement"),
    ("window", "pane of glass"), ("piano lesson", "music class"), ("spreadsheet", "sheet of figures"),
    ("dog food", "kibble"), ("insurance claim", "damage report"), ("school report", "marks"), ("parcel", "package"),
    ("concert", "show"), ("language course", "vocabulary class"), ("sofa", "couch"), ("printer", "copier"),
    ("electric meter", "power reading"), ("lawn mower", "grass cutter"), ("shoe", "boot"), ("flight", "plane"),
)  # fmt: skip
WHOSE = (
    ("a customer", "someone who buys from us"), ("my mother", "mum"), ("the company", "the firm"),
    ("a student", "a pupil"), ("the neighbours", "people next door"), ("a tenant", "whoever rents"),
    ("the hospital", "the clinic"), ("our team", "us at work"), ("a child", "a kid"), ("the town", "the council"),
)  # fmt: skip
WHEN = (
    ("before Monday", "by the end of the week"), ("abroad", "in another country"), ("at night", "after dark"),
    ("for free", "without paying"), ("in winter", "when it snows"), ("by telephone", "on a call"),
    ("quickly", "in a hurry"), ("for the second time", "once more"), ("on a small budget", "cheaply"),
    ("without leaving home", "online"),
)  # fmt: skip


def texts(number: int, examples: int, seed: int) -> tuple[list[list[str]], list[str]]:
    """Examples of each route, and as many requests, one for each route, in other words."""
    every = list(itertools.product(DEEDS, THINGS, WHOSE, WHEN))
    rng = np.random.default_rng(seed)
    if number > len(every):
        sys.exit(f"--routes is {number:,}; expected at most {len(every):,}.")
    routes, requests = [], []
    for place in rng.permutation(len(every))[:number].tolist():
        deed, thing, whose, when = every[place]
        said = [
            f"{deed[0]} the {thing[0]} of {whose[0]} {when[0]}",
            f"{when[0]} someone should {deed[0]} the {thing[1]} for {whose[0]}",
            f"how to {deed[1]} a {thing[0]} that belongs to {whose[1]}, {when[0]}",
            f"{whose[0]} wants to {deed[0]} a {thing[0]} {when[1]}",
        ]
        routes.append(said[:examples])
        requests.append(f"please help me {deed[1]} the {thing[1]} of {whose[1]}, {when[1]}")
    return routes, requests


def snapshot_of(vectors: FloatVector, examples: int) -> RoutesSnapshot:
    """Routes that all pass, so that the first ten can be compared."""
    routes = [
        Route(
            name=f"route-{i:06}", target_agent="agent", threshold=-1.0,
            utterances=tuple(Utterance(text=None, embedding=v) for v in vectors[i * examples : (i + 1) * examples]),
        )
        for i in range(len(vectors) // examples)
    ]  # fmt: skip
    return build_routes_snapshot(routes, version="measured", space=MINILM_SPACE)


def material(given: argparse.Namespace) -> tuple[FloatVector, FloatVector]:
    """Vectors of routes, and of requests."""
    rng = np.random.default_rng(given.seed)
    if given.random:
        drawn = rng.standard_normal((given.routes * given.examples, MINILM_SPACE.dim)).astype(np.float32)
        chosen = drawn[rng.integers(0, len(drawn), given.requests)]
        asked = chosen + 1.2 * rng.standard_normal(chosen.shape).astype(np.float32)
        return _unit(drawn), _unit(asked)
    routes, requests = texts(given.routes, given.examples, given.seed)
    embedder = StaticEmbedder()
    chosen = rng.permutation(len(requests))[: given.requests].tolist()
    return (
        embedder.embed([text for said in routes for text in said]).vectors,
        embedder.embed([requests[i] for i in chosen]).vectors,
    )


def measure(routes: RoutesSnapshot, queries: FloatVector, top_k: int) -> tuple[list[list[str]], float]:
    """The first routes of each request, and the median time of one in microseconds."""
    found, times = [], []
    for query in queries:
        start = time.perf_counter_ns()
        answer = route_one(query, routes, now=0.0, top_k=top_k)
        times.append((time.perf_counter_ns() - start) / 1e3)
        found.append([match.route_name for match in answer.matches])
    return found, float(np.median(times))


def _unit(vectors: Any) -> FloatVector:
    unit: FloatVector = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routes", type=int, default=100_000)
    parser.add_argument("--examples", type=int, choices=(1, 2, 3, 4), default=1, help="per route")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--random", action="store_true", help="random directions instead of texts")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if not is_available():
        print("usearch is not installed: pip install 'tiny-dancer[index]'", file=sys.stderr)
        return 2
    vectors, queries = material(given)
    exact = snapshot_of(vectors, given.examples)
    start = time.perf_counter()
    indexed = index_routes(exact)
    built_s = time.perf_counter() - start
    start = time.perf_counter()
    index_routes(exact, indexed)
    again_s = time.perf_counter() - start
    right, exact_us = measure(exact, queries, TOP)
    found, indexed_us = measure(indexed, queries, TOP)
    first = np.mean([r[:1] == f[:1] for r, f in zip(right, found, strict=True)])
    ten = np.mean([len(set(r) & set(f)) / len(r) for r, f in zip(right, found, strict=True)])
    matrix_mb = (exact.examples.nbytes + exact.middles.nbytes) / 1e6
    assert indexed.index is not None
    print(f"{len(exact):,} routes, {len(exact.examples):,} examples, {len(queries):,} requests")
    print(f"  vectors                  {matrix_mb:>10,.0f} MB")
    print(f"  index                    {indexed.index.rows.memory_bytes / 1e6:>10,.0f} MB more")
    print(f"  building the index       {built_s:>10.1f} s")
    print(f"  the same, nothing new    {again_s:>10.1f} s")
    print(f"  a request, exact         {exact_us:>10,.0f} µs")
    print(f"  a request, by the index  {indexed_us:>10,.0f} µs")
    print(f"  recall@1                 {first:>10.4f}")
    print(f"  recall@10                {ten:>10.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
