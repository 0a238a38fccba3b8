"""Approximate search for the nearest among very many vectors: what comes into question, to be compared exactly after.

In: unit vectors as rows, and for a request its unit vector. Out: the rows that are probably among the nearest. Exact
search takes time in proportion to the number of routes; up to some fifty thousand that is a few milliseconds, and this
module is not needed. Beyond, it keeps a graph of near neighbours (HNSW: Malkov and Yashunin, "Efficient and robust
approximate nearest neighbor search using hierarchical navigable small world graphs", 2018), built and searched by the
library usearch, an extra. It is built by one thread from rows in a fixed order: the same rows give the same graph.
"""

from __future__ import annotations

import importlib.util
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.validation import FloatVector

__all__ = ["NearRows", "is_available"]

NEIGHBOURS = 16
BUILD_WIDTH = 64
SEARCH_WIDTH = 256
"""Rows that a search keeps in view and gives back; all of them are compared exactly afterwards."""
MOST_REMOVED = 0.25
"""Share of removed rows from which on the graph is built anew: they still take part in every search."""

Indices = npt.NDArray[np.intp]
Keys = npt.NDArray[np.uint64]


def is_available() -> bool:
    """Whether usearch is installed (``pip install 'tiny-dancer[index]'``)."""
    return importlib.util.find_spec("usearch") is not None


class NearRows:
    """The rows near a vector, probably. Never changed once it is made; any number of threads may search it.

    Parameters
    ----------
    rows
        ``float32[n, dim]`` of unit length. In the graph they stand as float16: near ones are told apart afterwards.
    previous
        Of other rows, to copy the graph from if most of it stands: adding a row takes a fraction of a millisecond.
    """

    def __init__(self, rows: FloatVector, previous: NearRows | None = None) -> None:
        from usearch.index import Index

        keys = np.array([int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest()) for row in rows], np.uint64)
        self._order = np.argsort(keys, kind="stable")
        self._keys: Keys = keys[self._order]
        wanted, first = np.unique(keys, return_index=True)
        known = np.zeros(0, np.uint64) if previous is None else np.unique(previous._keys)
        gone = known[~np.isin(known, wanted)]
        self._removed: int = len(gone) + (0 if previous is None else previous._removed)
        if previous is None or self._removed > MOST_REMOVED * len(wanted):
            self._removed, known, gone = 0, known[:0], gone[:0]
            self._graph: Any = Index(
                ndim=rows.shape[1], metric="ip", dtype="f16", connectivity=NEIGHBOURS, expansion_add=BUILD_WIDTH,
                expansion_search=SEARCH_WIDTH,
            )  # fmt: skip
        else:
            self._graph = previous._graph.copy()
        added = np.sort(first[~np.isin(wanted, known)])
        if len(gone):
            self._graph.remove(gone, threads=1)
        if len(added):
            self._graph.add(keys[added], rows[added], threads=1)

    @property
    def memory_bytes(self) -> int:
        """Of the graph, its copy of the vectors included."""
        return int(self._graph.memory_usage)

    def near(self, vector: FloatVector) -> Indices:
        """Positions of the rows, at least `SEARCH_WIDTH` where there are as many, in no order."""
        found: Keys = self._graph.search(vector, SEARCH_WIDTH, threads=1).keys
        start, stop = np.searchsorted(self._keys, found), np.searchsorted(self._keys, found, side="right")
        rows = self._order[start]
        # Rows that are the same have one key.
        more = [self._order[i + 1 : j] for i, j in zip(start.tolist(), stop.tolist(), strict=True) if j > i + 1]
        return np.concatenate((rows, *more)) if more else rows
