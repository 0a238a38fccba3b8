"""Rows for what a request means and what many of them cost together: semantic routes, classification, batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from bench import material
from bench.measure import Operation
from bench.registry import BATCHES, CLASSES, ROUTES, Place, row

from tinydancer.classification import RequestClassification
from tinydancer.planning import assign_batch
from tinydancer.policy.route_rules import Route, Utterance
from tinydancer.routes import SemanticRoutes
from tinydancer.validation import FloatVector

N_ROUTES = 1000
EXAMPLES = 8
BATCH = 10_000
FLOOR = 0.75


def routes_of(n: int, examples: int, *, dim: int = material.DIM) -> list[Route]:
    """`n` routes of random directions: one description each, or `examples` that lie 50 degrees from the route's own."""
    rng = np.random.default_rng(6)
    kind: Any = "description" if examples == 1 else "example"
    made = []
    for number, own in enumerate(rng.standard_normal((n, dim))):
        vectors = own + (0.0 if examples == 1 else 1.2) * rng.standard_normal((examples, dim))
        utterances = tuple(Utterance(text=None, embedding=v, kind=kind) for v in _unit(vectors))
        made.append(Route(name=f"route-{number:06}", target_agent=f"agent-{number % 20:04}", utterances=utterances))
    return made


def near(routes: list[Route], n: int) -> list[FloatVector]:
    """`n` requests, each about 50 degrees from an utterance of a route."""
    rng = np.random.default_rng(7)
    chosen = [routes[i] for i in rng.integers(0, len(routes), n)]
    vectors = np.stack([r.utterances[0].embedding for r in chosen])
    return list(_unit(vectors + 1.2 * rng.standard_normal(vectors.shape) / np.sqrt(vectors.shape[1])))


def _unit(vectors: Any) -> FloatVector:
    unit: FloatVector = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _routes(place: Place, examples: int) -> tuple[SemanticRoutes, list[Route]]:
    dancer = material.dancer(place, 20)
    made = routes_of(N_ROUTES, examples)
    dancer.store.insert_routes(made)
    return SemanticRoutes(dancer), made


def _by_vector(place: Place, examples: int) -> Operation:
    routes, made = _routes(place, examples)
    vector = material.endless(near(made, 64))
    return lambda: routes.match(embedding=vector()).best


_MATCH = "SemanticRoutes.match over an SQLite file, until the best route is read"


@row(
    "vector to route, 1,000 routes", group=ROUTES, target=60.0,
    how=f"{_MATCH}; a vector per route, top 3; 64 vectors in turn; about half of the routes pass",
)  # fmt: skip
def vector_to_route(place: Place) -> Operation:
    return _by_vector(place, 1)


@row("the same, 8 examples each", group=ROUTES, how=f"{_MATCH}; 8 vectors per route, top 3; 64 vectors in turn")
def vector_to_route_by_examples(place: Place) -> Operation:
    return _by_vector(place, EXAMPLES)


@row(
    "text to route, 1,000 routes", group=ROUTES, target=150.0,
    how=f"{_MATCH}; a vector per route, top 3; 16 texts of 30 words in turn",
)  # fmt: skip
def text_to_route(place: Place) -> Operation:
    routes, _ = _routes(place, 1)
    text = material.endless(material.REQUESTS)
    return lambda: routes.match(text()).best


@row(
    "10,000 vectors to routes at once", group=ROUTES, unit="per s", items=BATCH,
    how="SemanticRoutes.match_batch over 1,000 routes of a vector each, top 1; requests per second",
)  # fmt: skip
def vectors_to_routes(place: Place) -> Operation:
    routes, _ = _routes(place, 1)
    vectors = material.unit_vectors(BATCH)
    return lambda: routes.match_batch(embeddings=vectors)


@row(
    "classify a vector", group=CLASSES, target=60.0,
    how="RequestClassification.classify(embedding=...) over an SQLite file, the shipped classifier; 64 in turn",
)  # fmt: skip
def classify_vector(place: Place) -> Operation:
    classification = RequestClassification(material.dancer(place, 20))
    vector = material.endless(list(material.unit_vectors(64)))
    return lambda: classification.classify(embedding=vector())


@row("classify a text", group=CLASSES, how="RequestClassification.classify of a text of 30 words, 16 in turn")
def classify_text(place: Place) -> Operation:
    classification = RequestClassification(material.dancer(place, 20))
    text = material.endless(material.REQUESTS)
    return lambda: classification.classify(text())


@row(
    "10,000 requests by total_cost, 20 agents", group=BATCHES, unit="ms", target=1000.0,
    how=f"assign_batch of 10,000 vectors under a mean quality of {FLOOR}, not recorded; the whole call",
)  # fmt: skip
def total_cost(place: Place) -> Operation:
    dancer = material.dancer(place, 20)
    vectors = material.unit_vectors(BATCH)
    return lambda: assign_batch(dancer, embeddings=vectors, min_mean_quality=FLOOR)


@row(
    "the same, under a budget and capacities", group=BATCHES, unit="ms", target=1000.0,
    how="as before; half of the money that the best agents would cost, and at most 2,000 requests for each agent",
)  # fmt: skip
def total_cost_within(place: Place) -> Operation:
    dancer = material.dancer(place, 20)
    vectors = material.unit_vectors(BATCH)
    capacities = {agent.agent.name: BATCH // 5 for agent in dancer.list_agents()}
    dearest = assign_batch(dancer, embeddings=vectors, budget_remaining=1e6, capacities=capacities)
    budget = dearest.cost_usd / 2
    return lambda: assign_batch(dancer, embeddings=vectors, budget_remaining=budget, capacities=capacities)
