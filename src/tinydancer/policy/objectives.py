"""Which of the agents that may serve a request is best, under each objective.

In: for each request and agent the expected quality, cost, latency and match, and a mask of who may serve. Out: the
agents in order of preference, as keys to be minimised one after the other. What is unknown (NaN) comes last. Columns
are in order of name, so that equals fall to the name and the same input always gives the same decision.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tinydancer.snapshot import Array, DecisionSettings, Mask

UNKNOWN = 1e300
"""Stands for a key that is unknown: worse than any known one, better than not being allowed at all."""
CHEAPEST_USD = 1e-6
FASTEST_MS = 0.1
FREE_USD = 1e-12


def good_enough(allowed: Mask, quality: Array, share: float) -> Mask:
    """Allowed agents whose expected quality is at least `share` of the best allowed one's; ``bool[n, N]``."""
    if share <= 0.0:
        return allowed
    best_quality = np.maximum.reduce(np.where(allowed, quality, -1.0), axis=1, keepdims=True)
    result: Mask = allowed & (quality >= share * best_quality)
    return result


def preference_keys(
    objective: str,
    allowed: Mask,
    *,
    quality: Array,
    cost_usd: Array,
    latency_ms: Array,
    match: Array,
    settings: DecisionSettings,
) -> tuple[Array, ...]:
    """Keys to minimise, the most important first, each of shape (n, N); ties in all of them fall to the name."""
    if objective == "cost":
        return known_first(cost_usd), -match
    if objective == "latency":
        return np.broadcast_to(known_first(latency_ms), match.shape), -match
    if objective == "quality":
        return -quality, known_first(cost_usd), -match
    if objective == "quality_per_dollar":
        return known_first(-quality / np.maximum(cost_usd, FREE_USD)), -match
    return (-balanced_utility(allowed, quality, cost_usd, latency_ms, match, settings),)


def balanced_utility(
    allowed: Mask, quality: Array, cost_usd: Array, latency_ms: Array, match: Array, settings: DecisionSettings
) -> Array:
    """Weighted sum of cheapness, speed, quality and match, each scaled to [0, 1] over the allowed agents.

    Cost and latency are scaled by their logarithms, with a floor of a ten-thousandth of a cent and a tenth of a
    millisecond, below which nobody cares; an unknown one counts as the worst.
    """
    terms = np.empty((4, *match.shape))  # what is to be maximised, one plane each
    np.maximum(cost_usd, CHEAPEST_USD, out=terms[0])
    np.log(terms[0], out=terms[0])
    np.negative(terms[0], out=terms[0])
    terms[1] = -np.log(np.maximum(latency_ms, FASTEST_MS))
    terms[2] = quality
    terms[3] = match
    counted = terms if np.logical_and.reduce(allowed, axis=None) else np.where(allowed, terms, np.nan)
    high = np.fmax.reduce(counted, axis=2, keepdims=True)  # NaN only where nobody is allowed or nothing is known
    spread = high - np.fmin.reduce(counted, axis=2, keepdims=True)
    np.maximum(spread, 1e-300, out=spread)
    # From the top down, so that where nobody differs all that is known counts as best, and what is unknown as worst.
    terms -= high
    terms /= spread
    terms += 1.0
    terms[np.isnan(terms)] = 0.0
    utility: Array = np.dot(settings.weights, terms.reshape(4, -1)).reshape(match.shape)
    return utility


def known_first(values: Array) -> Array:
    """NaN becomes `UNKNOWN`."""
    return np.where(np.isnan(values), UNKNOWN, values)


def best(allowed: Mask, keys: tuple[Array, ...]) -> npt.NDArray[np.intp]:
    """For each request the allowed agent with the smallest keys, -1 where none is allowed; ``intp[n]``."""
    some = np.logical_or.reduce(allowed, axis=1)
    for key in keys[:-1]:
        masked = np.where(allowed, key, np.inf)
        allowed = masked == np.minimum.reduce(masked, axis=1, keepdims=True)
    # argmin and argmax take the first of equals, which is the first by name.
    return np.where(some, np.where(allowed, keys[-1], np.inf).argmin(axis=1), -1)


def ranked(allowed: npt.NDArray[np.bool_], keys: tuple[Array, ...]) -> npt.NDArray[np.intp]:
    """For one request, the positions of the allowed agents from best to worst; inputs are [N]."""
    positions = np.flatnonzero(allowed)
    # lexsort's last key counts most, and it is stable, so equals stay in order of name.
    order = np.lexsort(tuple(key[positions] for key in reversed(keys)))
    return positions[order]
