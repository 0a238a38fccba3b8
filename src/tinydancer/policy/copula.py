"""How likely several agents are right together, if what is hard for one is hard for the others.

In: each agent's probability of a good answer, the family it belongs to, and two correlations. Out: distributions over
what they get right together, in closed form up to quadrature.

The model is a Gaussian copula with one factor for the request and one per family (Vasicek, "Loan Portfolio Value",
2002; with families, the nested form of Gregory and Laurent, "In the Core of Correlation", 2004). Agent j's answer is
good where

    sqrt(rho) Z + sqrt(rho_f - rho) F[family(j)] + sqrt(1 - rho_f) E[j]  <=  Phi^-1(q[j])

with independent standard normal Z (the request's difficulty), F and E. Given Z and F, agents are independent of each
other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError
from tinydancer.snapshot import Array

CORRELATION = 0.4
"""Of the latent quality of two agents on one request, where nothing is known of it."""
FAMILY_CORRELATION = 0.7
"""Likewise of two agents of one family."""
HIGHEST = 0.98
"""Correlations above are refused: the grid below no longer resolves the steps they make."""
_SURE = 1e-9
_REACH = 8.0
_NORMAL = NormalDist()
_CDF_STEP = 1.0 / 512.0
_CDF = np.array([0.5 * math.erfc(-x / math.sqrt(2.0)) for x in np.arange(-_REACH, _REACH + _CDF_STEP, _CDF_STEP)])


@lru_cache(maxsize=1)
def grid(points: int = 121) -> tuple[Array, Array]:
    """Nodes and weights for expectations over a standard normal: the trapezoid, which is spectrally exact here."""
    nodes = np.linspace(-6.5, 6.5, points)
    weights = np.exp(-0.5 * nodes * nodes)
    weights /= weights.sum()
    nodes.setflags(write=False)
    weights.setflags(write=False)
    return nodes, weights


def normal_cdf(x: Array) -> Array:
    """Phi, from a table with linear interpolation; the error is below 2e-7."""
    at = (np.clip(x, -_REACH, _REACH - 1e-9) + _REACH) / _CDF_STEP
    low = at.astype(np.intp)
    share = at - low
    return np.asarray(_CDF[low] * (1.0 - share) + _CDF[low + 1] * share)


def normal_quantile(probability: Array) -> Array:
    """Phi^-1, of probabilities drawn in from 0 and 1 by a billionth."""
    inside = np.clip(probability, _SURE, 1.0 - _SURE)
    return np.array([_NORMAL.inv_cdf(p) for p in np.ravel(inside).tolist()]).reshape(np.shape(inside))


@dataclass(frozen=True, slots=True)
class Correlations:
    """Of two agents' latent quality on one request, in [0, 0.98].

    Parameters
    ----------
    across
        Of any two (rho).
    family
        Of two of one family (rho_f), at least `across`.
    """

    across: float = CORRELATION
    family: float = FAMILY_CORRELATION

    def __post_init__(self) -> None:
        check.number(self.across, "correlation", low=0.0, high=HIGHEST)
        check.number(self.family, "family_correlation", low=0.0, high=HIGHEST)
        if self.family < self.across:
            raise InvalidInputError(
                f"family_correlation is {self.family:g} and correlation {self.across:g}; expected the former to be no "
                "less, since agents of one family share what any two share."
            )


Known = dict[tuple[float, ...], Array]
"""What was computed of families; hand the same one over to ask the same about many sets of agents."""


def any_good(quality: Array, families: Sequence[str], correlations: Correlations, known: Known | None = None) -> float:
    """Probability that at least one of the answers is good: what the best of them is worth to whoever can tell."""
    weights = grid()[1]
    none = np.ones(weights.size)
    for family in _families(families):
        none = none * _of_family(quality[family], correlations, known, bad=True)
    return float(1.0 - weights @ none)


def all_good(quality: Array, families: Sequence[str], correlations: Correlations) -> float:
    """Probability that all of the answers are good, as a chain of steps needs it."""
    weights = grid()[1]
    every = np.ones(weights.size)
    for family in _families(families):
        every = every * _of_family(quality[family], correlations, None, bad=False)
    return float(weights @ every)


def majority_good(
    quality: Array, families: Sequence[str], correlations: Correlations, known: Known | None = None
) -> float:
    """Probability that more than half of the answers are good, half of it where exactly half are."""
    weights = grid()[1]
    counts = np.ones((weights.size, 1))  # [z, number of good answers so far]
    for family in _families(families):
        mine = _counts_of_family(quality[family], correlations, known)
        joined = np.zeros((weights.size, counts.shape[1] + mine.shape[1] - 1))
        for number in range(mine.shape[1]):
            joined[:, number : number + counts.shape[1]] += mine[:, number, None] * counts
        counts = joined
    distribution = weights @ counts
    size = len(families)
    more = float(distribution[size // 2 + 1 :].sum())
    return more + (0.5 * float(distribution[size // 2]) if size % 2 == 0 else 0.0)


def _families(families: Sequence[str]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for position, family in enumerate(families):
        groups.setdefault(family, []).append(position)
    return list(groups.values())


def _conditional(quality: Array, correlations: Correlations) -> Array:
    """Probability of a good answer given Z and F; ``float64[agents, z, f]``, f of length 1 for a family of one."""
    nodes = grid()[0]
    bars = normal_quantile(quality)[:, None, None]
    common = math.sqrt(correlations.across) * nodes[None, :, None]
    if quality.size == 1:
        return normal_cdf((bars - common) / math.sqrt(1.0 - correlations.across))
    shared = math.sqrt(correlations.family - correlations.across) * nodes[None, None, :]
    return normal_cdf((bars - common - shared) / math.sqrt(1.0 - correlations.family))


def _of_family(quality: Array, correlations: Correlations, known: Known | None, *, bad: bool) -> Array:
    """Probability given Z that all of a family are bad, or good, F integrated out; ``float64[z]``."""
    key = tuple(quality.tolist())
    if known is not None and key in known:
        return known[key]
    good = _conditional(quality, correlations)
    all_of_them = np.multiply.reduce(1.0 - good if bad else good, axis=0)
    found = np.asarray(all_of_them @ _weights_of(good))
    if known is not None:
        known[key] = found
    return found


def _counts_of_family(quality: Array, correlations: Correlations, known: Known | None) -> Array:
    """Probability given Z of each number of good answers in a family; ``float64[z, agents + 1]``."""
    key = tuple(quality.tolist())
    if known is not None and key in known:
        return known[key]
    good = _conditional(quality, correlations)
    counts = np.zeros((good.shape[0] + 1, *good.shape[1:]))
    counts[0] = 1.0
    for number, probability in enumerate(good, start=1):
        counts[1 : number + 1] = counts[1 : number + 1] * (1.0 - probability) + counts[:number] * probability
        counts[0] *= 1.0 - probability
    found = np.asarray((counts @ _weights_of(good)).T)
    if known is not None:
        known[key] = found
    return found


def _weights_of(good: Array) -> Array:
    return grid()[1] if good.shape[2] > 1 else np.ones(1)
