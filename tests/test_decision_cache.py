"""The cache of decisions: the same text is decided once, and never on what has changed since."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tinydancer.config import Settings
from tinydancer.decision_cache import MOST_CELLS, DecisionCache, request_key
from tinydancer.embedding.base import CallableEmbedder
from tinydancer.errors import InvalidInputError, InvalidTextError
from tinydancer.service import TinyDancer
from tinydancer.types import EmbeddingSpace

SPACE = EmbeddingSpace("letters", 26)


class CountingEmbedder(CallableEmbedder):
    """Counts letters, and how often it was asked."""

    def __init__(self) -> None:
        super().__init__(self._vectors, space=SPACE)
        self.texts: list[str] = []

    def _vectors(self, texts: list[str]) -> np.ndarray:
        self.texts += texts
        counts = [[1.0 + text.lower().count(chr(97 + i)) for i in range(26)] for text in texts]
        return np.array(counts, dtype=np.float32)


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def dancer(embedder) -> Iterator[TinyDancer]:
    with TinyDancer(embedder=embedder, settings=Settings(stats_refresh_s=0.0), clock=iter(range(10**6)).__next__) as it:
        it.register_agent("small", "llm", ["chat"], 0.001, 300.0, 0.85)
        it.register_agent("large", "llm", ["reasoning"], 0.03, 900.0, 0.95)
        embedder.texts.clear()
        yield it


def counts(dancer: TinyDancer) -> tuple[int, int, int]:
    stats = dancer.cache_stats()
    return stats.hits, stats.embedding_hits, stats.misses


def test_the_same_text_is_decided_once(dancer, embedder):
    first, second = dancer.route("Good morning", "cost"), dancer.route("Good morning", "cost")
    assert embedder.texts == ["Good morning"]
    assert counts(dancer) == (1, 0, 1)
    assert dancer.cache_stats().hit_rate == 0.5
    # Two decisions all the same: each with an id and an instant of its own, both on record.
    assert first.decision_id != second.decision_id
    assert second.decided_at > first.decided_at
    assert {**first.to_dict(), "decision_id": ""} == {**second.to_dict(), "decision_id": ""}
    assert [row.decision_id for row in dancer.list_decisions()] == [second.decision_id, first.decision_id]


def test_another_question_about_the_same_text_is_another_decision(dancer, embedder):
    answers = {
        dancer.route("Good morning", "cost").agent_name,
        dancer.route("Good morning", "quality").agent_name,
        dancer.route("Good morning", "quality", max_cost=0.01).agent_name,
    }
    assert answers == {"small", "large"}
    assert counts(dancer) == (0, 2, 1)
    assert embedder.texts == ["Good morning"]
    # Sizes belong to the request: they change what it costs.
    dancer.update_agent("small", {"input_cost_per_token": 0.001, "output_cost_per_token": 0.0})
    costs = [dancer.route("Good morning", "cost", input_tokens=n).estimated_cost for n in (1, 1, 5)]
    assert costs == pytest.approx([0.002, 0.002, 0.006])


@pytest.mark.parametrize("change", ["agents", "outcomes", "model"])
def test_what_changes_is_seen_at_once(dancer, change):
    assert dancer.route("Good morning", "cost").agent_name == "small"
    if change == "agents":
        dancer.set_agent_active("small", False)
    elif change == "outcomes":
        for _ in range(200):
            dancer.update_agent_metrics("small", quality=0.0)
    else:
        dancer.reload_model()
    expected = "small" if change == "model" else "large"
    assert dancer.route("Good morning", "cost").agent_name == expected
    assert dancer.cache_stats().hits == 0


def test_what_another_process_changes_is_seen_at_once(tmp_path: Path, embedder):
    path = tmp_path / "shared.db"
    with TinyDancer(path, embedder=embedder) as one, TinyDancer(path, embedder=embedder) as other:
        one.register_agent("small", cost_per_request=0.001, quality_score=0.7)
        one.register_agent("large", cost_per_request=0.03, quality_score=0.9)
        assert other.route("Good morning", "cost").agent_name == "small"
        one.remove_agent("small")
        assert other.route("Good morning", "cost").agent_name == "large"


def test_tenants_share_nothing(tmp_path: Path, embedder):
    path = tmp_path / "shared.db"
    with (
        TinyDancer(path, embedder=embedder, settings=Settings(tenant="one")) as one,
        TinyDancer(path, embedder=embedder, settings=Settings(tenant="two")) as two,
    ):
        one.register_agent("of-one", cost_per_request=0.001)
        two.register_agent("of-two", cost_per_request=0.001)
        for _ in range(2):
            assert one.route("Good morning").agent_name == "of-one"
            assert two.route("Good morning").agent_name == "of-two"
        assert counts(one) == counts(two) == (1, 0, 1)


def test_it_is_bounded_and_forgets_the_oldest(embedder):
    with TinyDancer(embedder=embedder, settings=Settings(decision_cache_entries=3)) as dancer:
        dancer.register_agent("a", cost_per_request=0.001)
        for text in ("one", "two", "three", "one", "four"):  # "two" has not been asked for the longest
            dancer.route(text)
        stats = dancer.cache_stats()
        assert (stats.entries, stats.capacity) == (3, 3)
        embedder.texts.clear()
        for text in ("one", "three", "four", "two"):
            dancer.route(text)
        assert embedder.texts == ["two"]


def test_many_agents_leave_room_for_fewer_decisions(embedder):
    with TinyDancer(embedder=embedder, settings=Settings(decision_cache_entries=100_000)) as dancer:
        dancer.register_agents([{"name": f"agent {i}", "cost_per_request": 0.1} for i in range(50)])
        dancer.route("Good morning")
        assert dancer.cache_stats().capacity == MOST_CELLS // 50


def test_it_can_be_switched_off(embedder):
    with TinyDancer(embedder=embedder, settings=Settings(decision_cache_entries=0)) as dancer:
        dancer.register_agent("a", cost_per_request=0.001)
        for _ in range(2):
            dancer.route("Good morning")
        assert embedder.texts.count("Good morning") == 2
        assert dancer.cache_stats().to_dict() == {
            "hits": 0, "embedding_hits": 0, "misses": 0, "hit_rate": None, "entries": 0, "capacity": 0,
        }  # fmt: skip
    with pytest.raises(InvalidInputError, match="decision_cache_entries"):
        Settings(decision_cache_entries=-1)


def test_a_text_that_is_refused_is_refused_again(dancer):
    for _ in range(2):
        with pytest.raises(InvalidTextError):
            dancer.route("   ")
    assert dancer.cache_stats().entries == 0


def test_long_texts_are_known_by_their_digest():
    long = "a" * 10_000
    assert len(request_key(long, {}, surface=False).content) == 32
    assert request_key(long, {}, surface=False) != request_key(long + "a", {}, surface=False)
    assert request_key("short", {}, surface=False) != request_key("short", {}, surface=True)


def test_an_answer_for_an_older_snapshot_is_not_taken(dancer):
    cache = DecisionCache(10)
    key = request_key("text", {}, surface=False)
    old = dancer.route("text").batch
    dancer.update_agent("small", {"quality_score": 0.8})
    new = dancer.route("text").batch
    batch = dancer._decided("text", None, {}, new.snapshot, "cost", new.constraints)[1]
    cache.keep(key, old, batch, is_new=True)
    assert cache.decided(key, new.snapshot, old.objective, old.constraints, 0.0) is None
    assert cache.decided(key, old.snapshot, old.objective, old.constraints, 0.0) is not None
    cache.keep(key, new, batch, is_new=False)
    assert cache.decided(key, old.snapshot, old.objective, old.constraints, 0.0) is None


def test_threads_get_the_decisions_of_their_own_requests(dancer):
    texts = [f"request number {i}" for i in range(40)]
    alone = {text: dancer.route(text, "balanced").to_dict() for text in texts}
    wrong: list[str] = []

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, len(texts), 200).tolist():
            found = dancer.route(texts[i], "balanced").to_dict()
            if {**found, "decision_id": ""} != {**alone[texts[i]], "decision_id": ""}:
                wrong.append(texts[i])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert dancer.cache_stats().hits > 1000
