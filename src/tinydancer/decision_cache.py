"""What was decided for the same text a moment ago, so that it need not be decided again.

In: texts, and the snapshot they are decided on. Out: the decision made for the same text on the same snapshot, or at
least its embedding, or nothing. A snapshot stands for one state of one tenant's registry, model and statistics, so a
decision is never reused across tenants, nor after anything changed that it depends on. Both parts are bounded and drop
what was not asked for the longest. A cache belongs to one `TinyDancer`; it holds no state that matters.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tinydancer.decide import Decisions
from tinydancer.snapshot import Snapshot
from tinydancer.types import Constraints, RequestBatch

__all__ = ["CacheStats", "DecisionCache", "request_key"]

MOST_CELLS = 250_000
"""Decisions kept, times agents: with a thousand agents 250 decisions, some fifteen megabytes."""
LONGEST_KEY_CHARS = 256
"""Longer texts are known by their digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """How often a cache helped.

    Attributes
    ----------
    hits
        Requests whose decision was reused.
    embedding_hits
        Others whose text was embedded already.
    misses
        Requests that found nothing.
    entries, capacity
        Decisions that are kept, and how many may be.
    """

    hits: int
    embedding_hits: int
    misses: int
    entries: int
    capacity: int

    @property
    def hit_rate(self) -> float | None:
        """Share of the requests whose decision was reused; None before the first."""
        asked = self.hits + self.embedding_hits + self.misses
        return self.hits / asked if asked else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "hits": self.hits, "embedding_hits": self.embedding_hits, "misses": self.misses, "hit_rate": self.hit_rate,
            "entries": self.entries, "capacity": self.capacity,
        }  # fmt: skip


class RequestKey(NamedTuple):
    """What makes two requests the same.

    ``content`` is the text, or a long text's digest; ``sizes`` are those that were stated; ``surface`` says whether the
    facts of the text were looked up.
    """

    content: str | bytes
    sizes: tuple[tuple[str, float], ...]
    surface: bool


_Asked = tuple[RequestKey, str, Constraints]


def request_key(text: str, sizes: Mapping[str, float], *, surface: bool) -> RequestKey:
    """The key of a text."""
    content: str | bytes = text
    if len(text) > LONGEST_KEY_CHARS:
        content = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()
    return RequestKey(content, tuple(sizes.items()) if sizes else (), surface)


class DecisionCache:
    """Decisions and embeddings of the latest requests. Any number of threads may share one.

    Parameters
    ----------
    capacity
        Most decisions, and most embeddings, that are kept; 0 keeps none.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._requests: OrderedDict[RequestKey, RequestBatch] = OrderedDict()
        self._decisions: OrderedDict[tuple[RequestKey, str, Constraints], tuple[Decisions, RequestBatch]] = (
            OrderedDict()
        )
        self._snapshot: Snapshot | None = None
        self._hits = self._embedding_hits = self._misses = 0

    @property
    def is_on(self) -> bool:
        """Whether anything is ever kept."""
        return self._capacity > 0

    def decided(
        self, key: RequestKey, snapshot: Snapshot, objective: str, constraints: Constraints, now: float
    ) -> tuple[Decisions, RequestBatch] | None:
        """The decision for the same request on the same snapshot, as of `now`, and the request; counts if found."""
        with self._lock:
            if self._snapshot is not snapshot:
                return None
            asked = (key, objective, constraints)
            found = self._decisions.get(asked)
            if found is None:
                return None
            self._decisions.move_to_end(asked)
            if key in self._requests:
                self._requests.move_to_end(key)
            self._hits += 1
        made, batch = found
        return Decisions(snapshot, objective, constraints, now, made._trace), batch

    def embedded(self, key: RequestKey) -> RequestBatch | None:
        """A text as it was embedded before, under whatever registry; counts if found."""
        with self._lock:
            batch = self._requests.get(key)
            if batch is not None:
                self._requests.move_to_end(key)
                self._embedding_hits += 1
            return batch

    def keep(self, key: RequestKey, decisions: Decisions, batch: RequestBatch, *, is_new: bool) -> None:
        """Keeps a decision while its snapshot is the current one, and a text's embedding for longer.

        With `is_new` the request was found in neither part, which counts as a miss.
        """
        snapshot = decisions.snapshot
        with self._lock:
            if is_new:
                self._misses += 1
                _put(self._requests, key, batch, self._capacity)
            if self._snapshot is not snapshot:
                self._decisions.clear()
                self._snapshot = snapshot
            asked = (key, decisions.objective, decisions.constraints)
            _put(self._decisions, asked, (decisions, batch), self._room(snapshot))

    def clear(self) -> None:
        """Forgets everything but the counts."""
        with self._lock:
            self._requests.clear()
            self._decisions.clear()
            self._snapshot = None

    def stats(self) -> CacheStats:
        """How often it helped so far."""
        with self._lock:
            return CacheStats(
                hits=self._hits, embedding_hits=self._embedding_hits, misses=self._misses,
                entries=len(self._decisions),
                capacity=self._capacity if self._snapshot is None else self._room(self._snapshot),
            )  # fmt: skip

    def _room(self, snapshot: Snapshot) -> int:
        return min(self._capacity, MOST_CELLS // max(len(snapshot), 1))


def _put(kept: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    if most <= 0:
        return
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
