"""Storage of candidates, as the documents use it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from tests.store.suite import agent, vector
from tinydancer.errors import InvalidInputError, InvalidVectorError, NotFoundError, SpaceMismatchError
from tinydancer.store.candidates import RoutingStatistics, Storage
from tinydancer.store.sqlite import SqliteStore
from tinydancer.types import Candidate, EmbeddingSpace


@pytest.fixture
def storage(tmp_path):
    with Storage(tmp_path / "routing.db", clock=lambda: 1_700_000_000.0) as storage:
        yield storage


def candidate(name, **changes):
    values: dict[str, Any] = {"embedding": vector(len(name)), "created_at": 5.0}
    return Candidate(id=name, **(values | changes))


def test_the_documents_example_works(storage):
    storage.insert_candidate(candidate("candidate-1", access_count=10, success_rate=0.95))
    assert len(storage.query_candidates(50)) == 1
    storage.record_routing("candidate-1", [0.5] * 384, 0.92, True, 0.08, 8_500)
    storage.record_routing("candidate-2", np.full(384, 0.5), 0.5, False, 0.5, 1_500)
    statistics = storage.get_statistics()
    assert (statistics.total_routes, statistics.lightweight_routes, statistics.powerful_routes) == (2, 1, 1)
    assert statistics.avg_inference_time_us == 5_000.0
    assert statistics.avg_confidence == pytest.approx(0.71)
    assert statistics.avg_uncertainty == pytest.approx(0.29)


def test_without_routings_there_are_no_means(storage):
    assert storage.get_statistics() == RoutingStatistics(
        total_routes=0,
        lightweight_routes=0,
        powerful_routes=0,
        avg_inference_time_us=None,
        avg_confidence=None,
        avg_uncertainty=None,
    )


def test_a_candidate_comes_back_as_it_was(storage):
    given = candidate("ä' --", metadata={"a": [1, None, "ü"]}, access_count=3, success_rate=0.5)
    storage.insert_candidate(given)
    found = storage.get_candidate("ä' --")
    assert found == given
    np.testing.assert_array_equal(found.embedding, given.embedding)


def test_the_same_id_replaces(storage):
    storage.insert_candidate(candidate("a", access_count=1))
    storage.insert_candidate(candidate("a", access_count=2, metadata={"new": True}, embedding=vector(99)))
    (found,) = storage.query_candidates(10)
    assert (found.access_count, found.metadata) == (2, {"new": True})
    np.testing.assert_array_equal(found.embedding, vector(99))


def test_the_most_used_come_first_then_the_latest(storage):
    for name, uses, created_at in [("a", 1, 1.0), ("b", 5, 1.0), ("c", 5, 2.0), ("d", 0, 9.0), ("e", 5, 2.0)]:
        storage.insert_candidate(candidate(name, access_count=uses, created_at=created_at))
    assert [c.id for c in storage.query_candidates(10)] == ["c", "e", "b", "a", "d"]
    assert [c.id for c in storage.query_candidates(2)] == ["c", "e"]
    assert storage.query_candidates(0) == []
    with pytest.raises(InvalidInputError, match="limit"):
        storage.query_candidates(-1)


def test_what_is_not_there_is_not_found(storage):
    storage.insert_candidate(candidate("a"))
    storage.record_routing("a", vector(1), 0.5, True, 0.5, 1.0)
    storage.delete_candidate("a")
    for attempt in (storage.get_candidate, storage.delete_candidate):
        with pytest.raises(NotFoundError, match="'a'"):
            attempt("a")
    assert storage.get_statistics().total_routes == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("", vector(1), 0.5, True, 0.5, 1.0), InvalidInputError),
        (("a", vector(1, dim=3), 0.5, True, 0.5, 1.0), SpaceMismatchError),
        (("a", [float("nan")] * 384, 0.5, True, 0.5, 1.0), InvalidVectorError),
        (("a", vector(1), 1.5, True, 0.5, 1.0), InvalidInputError),
        (("a", vector(1), 0.5, "yes", 0.5, 1.0), InvalidInputError),
        (("a", vector(1), 0.5, True, -0.5, 1.0), InvalidInputError),
        (("a", vector(1), 0.5, True, 0.5, -1.0), InvalidInputError),
    ],
)
def test_wrong_figures_are_refused(storage, arguments, error):
    with pytest.raises(error):
        storage.record_routing(*arguments)
    assert storage.get_statistics().total_routes == 0


def test_a_vector_of_another_dimension_is_refused(storage):
    with pytest.raises(SpaceMismatchError, match=r"8 dimensions.*384"):
        storage.insert_candidate(candidate("a", embedding=vector(1, dim=8)))
    assert storage.query_candidates(10) == []


def test_the_space_is_the_files(tmp_path):
    space = EmbeddingSpace("small", 8)
    with Storage(tmp_path / "x.db", space=space) as storage:
        storage.insert_candidate(candidate("a", embedding=vector(1, dim=8)))
    with Storage(tmp_path / "x.db") as storage:
        assert storage.space == space
        assert storage.get_candidate("a").embedding.shape == (8,)
    with pytest.raises(SpaceMismatchError):
        Storage(tmp_path / "x.db", space=EmbeddingSpace("small", 9))


def test_a_store_and_a_storage_share_a_file_and_tenants_do_not_share_candidates(tmp_path):
    path = tmp_path / "x.db"
    with SqliteStore(path) as store, Storage(path) as one, Storage(path, tenant="two") as two:
        store.insert_agent(agent("a"))
        one.insert_candidate(candidate("a"))
        two.insert_candidate(candidate("a", access_count=7))
        two.record_routing("a", vector(1), 0.5, True, 0.5, 1.0)
        assert (one.get_candidate("a").access_count, two.get_candidate("a").access_count) == (0, 7)
        two.delete_candidate("a")
        assert [c.id for c in one.query_candidates(9)] == ["a"]
        assert (one.get_statistics().total_routes, two.get_statistics().total_routes) == (0, 1)


def test_threads_share_a_storage(storage):
    def work(number):
        for i in range(25):
            storage.insert_candidate(candidate(f"{number}-{i}"))
            storage.record_routing(f"{number}-{i}", vector(1), 0.5, i % 2 == 0, 0.5, 1.0)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(storage.query_candidates(1000)) == 200
    statistics = storage.get_statistics()
    assert (statistics.total_routes, statistics.lightweight_routes) == (200, 104)
