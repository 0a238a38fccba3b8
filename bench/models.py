"""Rows for what turns texts into vectors and vectors into states: the static embedder and FastGRNN."""

from __future__ import annotations

from bench import material
from bench.measure import Operation
from bench.registry import EMBEDDING, NETWORK, Place, row

from tinydancer.embedding.static import StaticEmbedder
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig

BATCH = 256


@row("embed one request", group=EMBEDDING, how="StaticEmbedder.embed of one text of 30 words, 16 in turn")
def embed_one(place: Place) -> Operation:
    embedder = StaticEmbedder()
    text = material.endless(material.REQUESTS)
    return lambda: embedder.embed((text(),))


@row("embed one greeting", group=EMBEDDING, how="StaticEmbedder.embed of one text of 4 words")
def embed_greeting(place: Place) -> Operation:
    embedder = StaticEmbedder()
    return lambda: embedder.embed(("Good morning, little one.",))


@row(
    "embed 1,000 texts at once", group=EMBEDDING, unit="per s", items=1000,
    how="StaticEmbedder.embed of 1,000 different texts of 30 words; texts per second",
)  # fmt: skip
def embed_many(place: Place) -> Operation:
    embedder = StaticEmbedder()
    texts = material.many_requests(1000)
    return lambda: embedder.embed(texts)


def _network() -> FastGRNN:
    return FastGRNN(FastGRNNConfig(input_dim=material.DIM, hidden_dim=64))


@row(
    "forward_single", group=NETWORK, target=15.0, reference="product",
    how="one step from the zero state; full rank, tied, 64 inputs in turn",
)  # fmt: skip
def forward_single(place: Place) -> Operation:
    network = _network()
    x = material.endless(list(material.unit_vectors(64)))
    return lambda: network.forward_single(x())


@row("step", group=NETWORK, target=15.0, reference="product", how="one step from a given state, 64 inputs in turn")
def step(place: Place) -> Operation:
    network = _network()
    x = material.endless(list(material.unit_vectors(64)))
    state = network.forward_single(x())
    return lambda: network.step(x(), state)


@row(
    "forward_batch of 256, each", group=NETWORK, target=2.0, reference="product", items=BATCH,
    how="256 inputs, one step each, in one call; time divided by 256",
)  # fmt: skip
def forward_batch(place: Place) -> Operation:
    network = _network()
    xs = material.unit_vectors(BATCH)
    return lambda: network.forward_batch(xs)
