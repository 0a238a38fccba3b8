"""From texts to predicted quality, and how long that takes: what an evaluation asks of a model.

In: texts, an embedder, a quality model, profiles of the agents. Out: vectors and predictions in bounded memory, and the
median time of a decision.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tinydancer.embedding.base import Embedder
from tinydancer.evaluation.judge import Predictions
from tinydancer.model.quality import AgentProfile, QualityModel, expected
from tinydancer.model.surface import surface_features

__all__ = ["decider", "embedded", "median_us", "predictions_of"]

Vectors = npt.NDArray[np.float32]
Progress = Callable[[int], None]

TIMED_REQUESTS = 200
_WARM_UP = 5
_AT_ONCE = 512


def embedded(embedder: Embedder, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
    """Vectors of all texts, ``float32[n, dim]``, made in parts; `progress` is told how many each part had."""
    vectors = np.empty((len(texts), embedder.space.dim), np.float32)
    for start in range(0, len(texts), _AT_ONCE):
        some = texts[start : start + _AT_ONCE]
        vectors[start : start + len(some)] = embedder.embed(some).vectors
        if progress is not None:
            progress(len(some))
    return vectors


def predictions_of(
    model: QualityModel,
    profiles: Sequence[AgentProfile],
    texts: Sequence[str],
    embeddings: Vectors,
    progress: Progress | None = None,
) -> Predictions:
    """What a model says about every text and agent, made in parts; columns in the order of `profiles`."""
    beliefs, names = model.believed(profiles), [profile.name for profile in profiles]
    quality, cost_factors = np.empty((2, len(texts), len(profiles)))
    for start in range(0, len(texts), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        surface = surface_features(texts[some])
        phi = model.represent(embeddings[some], surface)
        quality[some] = expected(phi, beliefs.mean)
        cost_factors[some] = model.cost_factors(phi, surface, names)
        if progress is not None:
            progress(len(phi))
    low, high = (None, None) if model.interval is None else model.interval.interval(quality)
    return Predictions(
        quality=quality, name=model.name, sha256=model.sha256, low=low, high=high, cost_factors=cost_factors
    )


def decider(model: QualityModel, profiles: Sequence[AgentProfile], embedder: Embedder) -> Callable[[str], int]:
    """From a text to the position of the agent with the highest predicted quality, one text at a time."""
    beliefs = model.believed(profiles)

    def decide(text: str) -> int:
        vector = embedder.embed((text,)).vectors
        return int(model.predict(vector, surface_features((text,)), beliefs)[0].argmax())

    return decide


def median_us(decide: Callable[[str], object], texts: Sequence[str], timer_ns: Callable[[], int]) -> float:
    """Median µs of deciding about one text at a time, over 200 of them, after a few that do not count.

    Parameters
    ----------
    decide
        Text in, decision out.
    texts
        At least one; spread evenly over the sequence, and repeated if there are fewer than 200.
    timer_ns
        A clock in nanoseconds.
    """
    chosen = [texts[i * len(texts) // TIMED_REQUESTS % len(texts)] for i in range(TIMED_REQUESTS)]
    for text in chosen[:_WARM_UP]:
        decide(text)
    taken = []
    for text in chosen:
        started = timer_ns()
        decide(text)
        taken.append(timer_ns() - started)
    return statistics.median(taken) / 1e3
