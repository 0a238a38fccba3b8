"""Rows for what a caller waits for: a text or a vector in, the name of the chosen agent out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from bench import material
from bench.measure import Operation
from bench.registry import CANDIDATES, OBJECTIVE, TEXT, VECTOR, Place, row

from tinydancer.decide import decide
from tinydancer.model.candidates import CandidateScorer
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.router import Router, RoutingRequest
from tinydancer.types import OBJECTIVES, RequestBatch

BATCH = 10_000
_ROUTE = "TinyDancer.route over an SQLite file, until the chosen agent's name is read; 16 requests in turn"


def _route_texts(place: Place, texts: list[str], *, record: bool = False, remember: int = 0) -> Operation:
    dancer = material.dancer(place, 20, record=record, remember=remember)
    text = material.endless(texts)
    return lambda: dancer.route(text()).agent_name


@row("text to decision, 20 agents", group=TEXT, target=150.0, how=f"{_ROUTE}, of 30 words; not recorded")
def text_to_decision(place: Place) -> Operation:
    return _route_texts(place, list(material.REQUESTS))


@row("the same, 200 words", group=TEXT, how=f"{_ROUTE}, of about 200 words; not recorded")
def long_text_to_decision(place: Place) -> Operation:
    return _route_texts(place, material.long_requests(200))


@row("the same, 30 words, recorded", group=TEXT, how=f"{_ROUTE}, of 30 words; each decision committed to the file")
def recorded_text_to_decision(place: Place) -> Operation:
    return _route_texts(place, list(material.REQUESTS), record=True)


@row("the same, 30 words, asked before", group=TEXT, how=f"{_ROUTE}, of 30 words, all in the cache; not recorded")
def repeated_text_to_decision(place: Place) -> Operation:
    return _route_texts(place, list(material.REQUESTS), remember=1000)


@row("the same, 30 words, never asked before", group=TEXT, how=f"{_ROUTE}, of 30 words, the cache on; not recorded")
def new_text_to_decision(place: Place) -> Operation:
    return _route_texts(place, material.many_requests(5000), remember=1000)


@row(
    "10,000 texts at once, 20 agents", group=TEXT, unit="per s", items=BATCH,
    how="TinyDancer.route_batch, not recorded; texts of 30 words, all different; decisions per second",
)  # fmt: skip
def batch_of_texts(place: Place) -> Operation:
    dancer = material.dancer(place, 20)
    texts = material.many_requests(BATCH)
    return lambda: dancer.route_batch(texts)


def _route_vectors(place: Place, n_agents: int, objective: str = "balanced") -> Operation:
    dancer = material.dancer(place, n_agents)
    vector = material.endless(list(material.unit_vectors(64)))
    return lambda: dancer.route(optimize_for=objective, embedding=vector()).agent_name


def _decide_only(place: Place, n_agents: int) -> Operation:
    snapshot = material.dancer(place, n_agents).snapshot()
    batches = [RequestBatch(vector[None], np.array([100.0])) for vector in material.unit_vectors(64)]
    batch = material.endless(batches)
    return lambda: decide(batch(), snapshot, now=material.NOW)


_VECTOR = "TinyDancer.route(embedding=...) over an SQLite file, until the name is read; 64 in turn; not recorded"


@row("embedding to decision, 20 agents", group=VECTOR, target=40.0, how=_VECTOR)
def vector_to_decision(place: Place) -> Operation:
    return _route_vectors(place, 20)


@row("embedding to decision, 1,000 agents", group=VECTOR, target=150.0, how=_VECTOR)
def vector_to_decision_among_1000(place: Place) -> Operation:
    return _route_vectors(place, 1000)


@row("decide() alone, 20 agents", group=VECTOR, how="decide on a snapshot: no store, no checks of the input")
def decide_alone(place: Place) -> Operation:
    return _decide_only(place, 20)


@row("decide() alone, 1,000 agents", group=VECTOR, how="decide on a snapshot: no store, no checks of the input")
def decide_alone_among_1000(place: Place) -> Operation:
    return _decide_only(place, 1000)


def _objective(objective: str) -> Callable[[Place], Operation]:
    return lambda place: _route_vectors(place, 20, objective)


for _name in OBJECTIVES:
    row(f"embedding to decision, {_name}", group=OBJECTIVE, how=_VECTOR)(_objective(_name))


@row(
    "a decision read in full", group=VECTOR,
    how="as embedding to decision with 20 agents, then Decision.to_dict(): reasoning and alternatives written out",
)  # fmt: skip
def read_in_full(place: Place) -> Operation:
    dancer = material.dancer(place, 20)
    vector = material.endless(list(material.unit_vectors(64)))
    return lambda: dancer.route(embedding=vector()).to_dict()


def candidate_router(n: int, *, trained: bool = False) -> Operation:
    """Route over `n` candidates that are kept, each query a new one; `trained` scores by a network of 5 to 8 to 1."""
    scorer = CandidateScorer(FastGRNN(FastGRNNConfig(input_dim=5, hidden_dim=8, output_dim=1))) if trained else None
    router = Router(scorer=scorer)
    kept = material.candidates(n)
    query = material.endless(list(material.unit_vectors(64)))
    return lambda: router.route(RoutingRequest(query_embedding=query(), candidates=kept)).decisions[0].candidate_id


_CANDIDATES = "RoutingRequest made and Router.route called, 384 dimensions; candidates kept, queries new"


@row("route over 10 candidates", group=CANDIDATES, how=_CANDIDATES)
def ten_candidates(place: Place) -> Operation:
    return candidate_router(10)


@row("route over 100 candidates", group=CANDIDATES, how=_CANDIDATES)
def hundred_candidates(place: Place) -> Operation:
    return candidate_router(100)


@row("route over 1,000 candidates", group=CANDIDATES, how=_CANDIDATES)
def thousand_candidates(place: Place) -> Operation:
    return candidate_router(1000)


@row(
    "route over 100 candidates, FastGRNN", group=CANDIDATES,
    how=f"{_CANDIDATES}; scored by a FastGRNN of 5 inputs, 8 hidden, 1 output instead of the fallback",
)  # fmt: skip
def hundred_candidates_by_network(place: Place) -> Operation:
    return candidate_router(100, trained=True)
