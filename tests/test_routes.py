"""Semantic routes over a store: creation, matching with conditions and rate limits, fitting, several processes."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer import TinyDancer
from tinydancer import routes as module
from tinydancer.config import EmbedderSettings, Settings
from tinydancer.errors import InvalidInputError, InvalidTextError, NotFoundError, SpaceMismatchError, UnknownKeyError
from tinydancer.routes import SemanticRoutes
from tinydancer.store.sqlite import SqliteStore

NOON = 1_768_392_000.0  # 2026-01-14 12:00 UTC


class Clock:
    def __init__(self):
        self.now = NOON

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def dancer(clock):
    with TinyDancer(clock=clock) as made:
        made.register_agent("support-agent", "human", ["customer support"])
        made.register_agent("docs-agent", "llm", ["documentation"])
        yield made


@pytest.fixture
def routes(dancer):
    made = SemanticRoutes(dancer)
    made.create("passwords", "support-agent", utterances=["I forgot my password", "reset my password"])
    made.create("invoices", "docs-agent", utterances=["send me the invoice", "a copy of my bill"])
    return made


def best(routes, text="reset my password", **more):
    found = routes.match(text, **more).best
    return None if found is None else found.route_name


def test_creating_and_matching(routes):
    assert best(routes) == "passwords"
    answer = routes.match("where is my bill?", top_k=2)
    assert (answer.best.route_name, answer.best.target_agent) == ("invoices", "docs-agent")
    assert best(routes, "how tall is Mount Everest") is None
    vector = routes._dancer.embed("reset my password")
    assert best(routes, None, embedding=vector * 7) == "passwords"
    batch = routes.match_batch(["reset my password", "how tall is Mount Everest", "send the bill"])
    assert [a.best and a.best.route_name for a in batch] == ["passwords", None, "invoices"]
    for row, text in enumerate(("reset my password", "how tall is Mount Everest", "send the bill")):
        assert batch[row].confidence == pytest.approx(routes.match(text).confidence, abs=1e-6)
    assert routes.match_batch([]) == []


def test_an_embedding_stands_for_the_description(routes, dancer):
    vector = 3 * dancer.embed("the garden gate")
    made = routes.create("gate", "docs-agent", "Words that say nothing of it", embedding=vector, threshold=0.9)
    assert made.utterances[0].text == "Words that say nothing of it"
    assert best(routes, "the garden gate") == "gate"
    routes.update("gate", {"description": "An entirely different sentence"})
    assert best(routes, "the garden gate") is None
    assert best(routes, "An entirely different sentence") == "gate"
    routes.update("gate", {"embedding": vector.tolist()})
    assert best(routes, "the garden gate") == "gate"
    with pytest.raises(InvalidInputError, match="nothing could resemble it"):
        routes.update("gate", {"description": ""})
    routes.add_utterances("gate", ["open sesame"])
    routes.update("gate", {"description": None})
    assert [u.kind for u in routes.get("gate").utterances] == ["example"]


def test_without_an_embedder_vectors_are_enough():
    settings = Settings(embedder=EmbedderSettings(kind="none", space="mine", dim=3))
    with TinyDancer(settings=settings) as dancer:
        dancer.register_agent("a")
        routes = SemanticRoutes(dancer)
        routes.create("x", "a", "Described", embedding=[1.0, 0.0, 0.0])
        best = routes.match(embedding=[2.0, 0.1, 0.0]).best
        assert best is not None
        assert best.route_name == "x"
        with pytest.raises(InvalidInputError, match="no embedder"):
            routes.create("y", "a", utterances=["text"])
        with pytest.raises(SpaceMismatchError, match="2 dimensions"):
            routes.match(embedding=[1.0, 0.0])


def test_hours_and_tiers(routes, clock):
    routes.update("passwords", {"conditions": {"time_range": ["09:00", "17:00"], "user_tier": ["gold"]}})
    assert best(routes) is None
    assert best(routes, user_tier="gold") == "passwords"
    clock.now += 6 * 3600
    assert best(routes, user_tier="gold") is None
    clock.now -= 24 * 3600  # a clock that is set back
    assert best(routes, user_tier="gold") is None
    clock.now += 18 * 3600
    assert best(routes, user_tier="gold") == "passwords"


def test_a_rate_limit_gives_way_to_the_next_route(routes, clock):
    routes.create("second", "docs-agent", utterances=["reset my password"], priority=-1)
    routes.update("passwords", {"conditions": {"rate_limit": {"requests": 2, "per_s": 60}}})
    assert [best(routes, count=False) for _ in range(3)] == ["passwords"] * 3
    assert [best(routes) for _ in range(4)] == ["passwords", "passwords", "second", "second"]
    assert best(routes, "a copy of my bill") == "invoices"  # others are not concerned
    clock.now += 30
    batch = routes.match_batch(["reset my password", "a copy of my bill"] * 2)
    assert [a.best.route_name for a in batch] == ["passwords", "invoices", "second", "invoices"]
    routes.remove("second")
    assert best(routes) is None


def test_another_process_sees_changes_at_once(tmp_path):
    def opened():
        return TinyDancer(SqliteStore(tmp_path / "x.db"))

    with opened() as one, opened() as two:
        one.register_agent("a", "llm", ["x"])
        here, there = SemanticRoutes(one), SemanticRoutes(two)
        assert best(there) is None
        here.create("passwords", "a", utterances=["reset my password"])
        assert best(there) == "passwords"
        one.set_agent_active("a", False)
        assert best(there) is None
        one.set_agent_active("a", True)
        here.add_utterances("passwords", ["reset my password please"], negative=True)
        assert best(there, "reset my password please") is None
        snapshot = there.snapshot()
        assert there.snapshot() is snapshot  # nothing changed, nothing is read


def test_many_at_once(routes):
    done: list[int] = []
    configs = [{"name": f"r{i:03}", "target_agent": "docs-agent", "utterances": [f"number {i}"]} for i in range(70)]
    assert routes.create_many(configs, progress=done.append) == [c["name"] for c in configs]
    assert sum(done) == 70
    assert len(routes.list_routes()) == 72
    with pytest.raises(UnknownKeyError, match="Route number 2: Unknown field of a route 'utterance'"):
        routes.create_many([configs[0], {**configs[1], "utterance": "x"}], replace=True)
    with pytest.raises(InvalidInputError, match="Route number 1: The route has no target_agent"):
        routes.create_many([{"name": "x"}])


def test_bad_input(routes):
    with pytest.raises(NotFoundError, match="'support', which is not registered") as caught:
        routes.create("x", "support", utterances=["x"])
    assert caught.value.hint.startswith(("Did you mean", "Register"))
    for more, error, message in (
        ({"threshold": 1.5}, InvalidInputError, "threshold is"),
        ({"threshold": -1.01}, InvalidInputError, "threshold is"),
        ({"utterances": "one text"}, InvalidInputError, "list of texts"),
        ({"utterances": ["x", ""]}, InvalidTextError, "empty"),
        ({"utterances": [], "negative_utterances": ["x"]}, InvalidInputError, "nothing could resemble it"),
        ({"negative_utterances": ["x"]}, InvalidInputError, "as a negative example"),
        ({"embedding": [1.0, 2.0]}, SpaceMismatchError, "2 dimensions"),
        ({"embedding": np.zeros(384)}, InvalidInputError, "all zeros"),
        ({"conditions": {"user_tier": []}}, InvalidInputError, "could never be taken"),
        ({"conditions": []}, InvalidInputError, "expected a JSON object"),
    ):
        with pytest.raises(error, match=message):
            routes.create("x", "docs-agent", **{"utterances": ["x"], **more})
    with pytest.raises(InvalidInputError, match="Neither"):
        routes.match()
    with pytest.raises(InvalidInputError, match="top_k is 0"):
        routes.match("x", top_k=0)
    with pytest.raises(UnknownKeyError, match="cannot be changed"):
        routes.update("passwords", {"name": "y"})
    assert len(routes.list_routes()) == 2


def labelled(number, seed=0):
    rng = np.random.default_rng(seed)
    made = [("passwords", f"please reset the password of account {n}") for n in rng.permutation(999)[:number]]
    made += [("invoices", f"send me a copy of bill number {n}") for n in rng.permutation(999)[:number]]
    return made + [("none", f"how tall is the mountain number {n}") for n in rng.permutation(999)[:number]]


def test_fitting_reports_on_what_it_was_not_fitted_on(routes):
    examples = [*labelled(20), ("passwords", "Reset my  PASSWORD"), labelled(20)[0]]
    report = routes.fit(examples, seed=1, keep=False)
    assert (report.fitted_on, report.after.requests, report.left_out, report.kept) == (30, 30, 2, False)
    assert report.after.accuracy == 1.0
    assert [f.name for f in report.after.routes] == ["invoices", "passwords", None]
    assert [(f.requests, f.right, f.misses) for f in report.after.routes] == [(10, 10, 0)] * 3
    assert routes.get("passwords").threshold is None
    kept = routes.fit(examples, seed=1)
    assert kept.thresholds == report.thresholds
    assert routes.get("passwords").threshold == report.thresholds["passwords"]
    assert routes.get("passwords").calibration.examples == 10
    assert routes.match("reset the password of account 5").confidence > 0.9
    answers = routes.match_batch([text for _, text in labelled(20)])
    named = [a.best.route_name if a.best else "none" for a in answers]
    assert named == [label for label, _ in labelled(20)]
    other = routes.fit(examples, seed=2, keep=False)
    assert other.thresholds != report.thresholds


def test_fitting_keeps_conditions_and_does_not_look_at_them(routes):
    routes.update("passwords", {"conditions": {"user_tier": ["gold"], "rate_limit": 1}})
    report = routes.fit(labelled(20))
    assert report.after.accuracy == 1.0
    assert routes.get("passwords").conditions.to_dict()["user_tier"] == ["gold"]


def test_what_cannot_be_fitted(routes):
    with pytest.raises(InvalidInputError, match="number 2 is labelled 'absent'"):
        routes.fit([("passwords", "a b"), ("absent", "c d")])
    with pytest.raises(InvalidInputError, match="at least 10 requests"):
        routes.fit(labelled(2))
    with pytest.raises(InvalidInputError, match="no line to draw"):
        routes.fit([pair for pair in labelled(30) if pair[0] == "passwords"])
    with pytest.raises(InvalidInputError, match="test_share"):
        routes.fit(labelled(20), test_share=0.0)
    with pytest.raises(InvalidInputError, match="min_confidence"):
        routes.fit(labelled(20), min_confidence=1.0)


@pytest.mark.parametrize("installed", [True, False])
def test_beyond_the_exact_routes_an_index_answers_the_same(dancer, monkeypatch, installed):
    if installed:
        pytest.importorskip("usearch")
    else:
        monkeypatch.setattr(module, "is_available", lambda: False)
    exact, indexed = SemanticRoutes(dancer), SemanticRoutes(dancer, exact_routes=3)
    texts = ["reset my password", "send the bill", "where is my parcel", "translate a letter", "repair my bicycle"]
    for number, text in enumerate(texts[:4]):
        exact.create(f"r{number}", "docs-agent", utterances=[text, f"please {text}"])
    assert exact.snapshot().index is None
    first = indexed.snapshot().index
    assert (first is not None) == installed
    exact.create("r4", "docs-agent", utterances=[texts[4]])
    for text in texts:
        own, other = indexed.match(f"{text} now"), exact.match(f"{text} now")
        assert best(indexed, f"{text} now") == f"r{texts.index(text)}"
        assert [m.route_name for m in own.matches] == [m.route_name for m in other.matches]
        assert own.confidence == pytest.approx(other.confidence, abs=1e-6)
    second = indexed.snapshot().index
    if first is not None and second is not None:
        assert len(second.rows._graph) == len(first.rows._graph) + 1
    exact.remove("r0")
    exact.remove("r1")
    assert indexed.snapshot().index is None
    with pytest.raises(InvalidInputError, match="exact_routes is -1"):
        SemanticRoutes(dancer, exact_routes=-1)
