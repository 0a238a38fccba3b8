"""Keeps candidates and what was decided about them, in the same kind of file as everything else.

In: `Candidate` objects and the figures of routings. Out: the candidates, the most used first, and counts and means over
the routings. Candidates are memories, documents or responses that may already answer a request.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

from tinydancer import validation as check
from tinydancer.errors import NotFoundError
from tinydancer.store.migrations import open_database
from tinydancer.store.queries import load_queries
from tinydancer.store.rows import candidate_of, candidate_row, vector_bytes
from tinydancer.types import DEFAULT_TENANT, Candidate, EmbeddingSpace
from tinydancer.validation import FloatVector

_Q = load_queries("sqlite/queries/candidates.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingStatistics:
    """Counts and means over all routings of candidates; the means are None until there is one.

    ``lightweight_routes`` went to a lightweight model, ``powerful_routes`` to a powerful one.
    """

    total_routes: int
    lightweight_routes: int
    powerful_routes: int
    avg_inference_time_us: float | None
    avg_confidence: float | None
    avg_uncertainty: float | None


class Storage:
    """Candidates in a SQLite file, which may be a `SqliteStore`'s.

    Parameters
    ----------
    path
        The file, made if it does not exist, or ``:memory:``.
    space
        The vector space; None takes that of the file, and for a new file all-MiniLM-L6-v2's with 384 dimensions.
    tenant, timeout_s, clock
        As for `tinydancer.store.sqlite.SqliteStore`, with its errors.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        space: EmbeddingSpace | None = None,
        tenant: str = DEFAULT_TENANT,
        timeout_s: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tenant = check.name_of(tenant, "tenant")
        self._clock = clock
        timeout_s = check.number(timeout_s, "timeout_s", low=0.0, high=threading.TIMEOUT_MAX, unit="s")
        self._database, self._space = open_database(path, space=space, clock=clock, timeout_s=timeout_s)

    @property
    def space(self) -> EmbeddingSpace:
        """The vector space of every embedding in the file."""
        return self._space

    def __enter__(self) -> Storage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. May be repeated."""
        self._database.close()

    def insert_candidate(self, candidate: Candidate) -> None:
        """Stores a candidate, on the disk when this returns; one of the same id is replaced.

        Raises
        ------
        SpaceMismatchError
            If its embedding has another dimension than the file's space.
        """
        row = candidate_row(candidate, self._tenant, self._space)
        self._database.write(lambda connection: connection.execute(_Q["put_candidate"], row), durable=True)

    def query_candidates(self, limit: int) -> list[Candidate]:
        """At most `limit` candidates: the most used first, among equals the latest."""
        limit = check.count(limit, "limit")
        rows = self._database.fetch(_Q["query_candidates"], (self._tenant, limit))
        return [candidate_of(row, self._space) for row in rows]

    def get_candidate(self, candidate_id: str) -> Candidate:
        """One candidate; `NotFoundError` if there is none of that id."""
        rows = self._database.fetch(_Q["get_candidate"], (self._tenant, candidate_id))
        if not rows:
            raise _unknown_candidate(candidate_id)
        return candidate_of(rows[0], self._space)

    def delete_candidate(self, candidate_id: str) -> None:
        """Removes a candidate; `NotFoundError` if there is none of that id. Its routings stay in the statistics."""
        row = (self._tenant, candidate_id)
        removed = self._database.write(lambda c: c.execute(_Q["delete_candidate"], row).rowcount, durable=True)
        if not removed:
            raise _unknown_candidate(candidate_id)

    def record_routing(
        self,
        candidate_id: str,
        query_embedding: FloatVector,
        confidence: float,
        use_lightweight: bool,
        uncertainty: float,
        inference_time_us: float,
    ) -> None:
        """Appends what was decided about a candidate, which need not be stored here.

        It survives the death of the process at once, and that of the operating system within seconds.

        Parameters
        ----------
        query_embedding
            ``float32[dim]`` in the file's space.
        confidence, uncertainty
            In [0, 1].
        inference_time_us
            Microseconds, at least 0.
        """
        self.record_routings(
            [(candidate_id, confidence, use_lightweight, uncertainty)], query_embedding, inference_time_us
        )

    def record_routings(
        self,
        decisions: Iterable[tuple[str, float, bool, float]],
        query_embedding: FloatVector,
        inference_time_us: float,
    ) -> None:
        """As `record_routing`, for all candidates of one request: all of them or none.

        Parameters
        ----------
        decisions
            Candidate id, confidence, use_lightweight, uncertainty of each.
        inference_time_us
            Microseconds the whole request took; stands in each row.
        """
        query = vector_bytes(query_embedding, self._space, "The query's embedding")
        time_us = check.number(inference_time_us, "inference_time_us", low=0.0, unit="µs")
        now = self._clock()
        rows = [
            (
                self._tenant,
                check.name_of(candidate_id, "candidate id"),
                query,
                check.number(confidence, "confidence", low=0.0, high=1.0),
                check.boolean(use_lightweight, "use_lightweight"),
                check.number(uncertainty, "uncertainty", low=0.0, high=1.0),
                time_us,
                now,
            )
            for candidate_id, confidence, use_lightweight, uncertainty in decisions
        ]
        self._database.write(lambda connection: connection.executemany(_Q["record_routing"], rows), durable=False)

    def get_statistics(self) -> RoutingStatistics:
        """Counts and means over every routing that was recorded."""
        total, lightweight, time_us, confidence, uncertainty = self._database.fetch(
            _Q["routing_statistics"], (self._tenant,)
        )[0]
        return RoutingStatistics(
            total_routes=total,
            lightweight_routes=lightweight,
            powerful_routes=total - lightweight,
            avg_inference_time_us=time_us,
            avg_confidence=confidence,
            avg_uncertainty=uncertainty,
        )


def _unknown_candidate(candidate_id: str) -> NotFoundError:
    return NotFoundError(f"There is no candidate {check.shown(candidate_id)}.", hint="Insert it first.")
