"""The approximate index of routes: what it finds is answered exactly, and what it must not miss is always looked at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer.policy import route_index, route_snapshot
from tinydancer.policy.route_index import NearRows
from tinydancer.policy.route_rules import Route, RouteConditions, Utterance
from tinydancer.policy.route_snapshot import RouteContext, build_routes_snapshot, index_routes
from tinydancer.policy.routes import route_one
from tinydancer.types import EmbeddingSpace

pytest.importorskip("usearch")

DIM = 16
SPACE = EmbeddingSpace("test", DIM)
NOW = 1_768_392_000.0  # 2026-01-14 12:00 UTC, a Wednesday


def units(rng, n):
    drawn = rng.standard_normal((n, DIM)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def route(name, examples, negatives=(), conditions=None, **more):
    own = [Utterance(text=None, embedding=v) for v in examples]
    own += [Utterance(text=None, embedding=v, kind="negative") for v in negatives]
    return Route(
        name=name, target_agent=f"agent of {name}", utterances=tuple(own),
        conditions=RouteConditions.from_mapping(conditions or {}), **{"threshold": -1.0, **more},
    )  # fmt: skip


def snapshot(routes):
    return build_routes_snapshot(routes, version="1", space=SPACE)


def varied(rng, n):
    """Routes with one to four examples, some with negative ones, some for gold only, some by night only."""
    conditions: tuple[dict[str, object], ...] = ({}, {}, {"user_tier": ["gold"]}, {"time_range": ["22:00", "06:00"]})
    return [
        route(f"r{i:04}", units(rng, int(rng.integers(1, 5))), units(rng, int(rng.integers(3))),
              conditions=conditions[int(rng.integers(4))], threshold=float(rng.uniform(-0.5, 0.5)),
              priority=int(rng.integers(2)))
        for i in range(n)
    ]  # fmt: skip


def close(one, other):
    assert [m.route_name for m in one.matches] == [m.route_name for m in other.matches]
    assert [m.target_agent for m in one.matches] == [m.target_agent for m in other.matches]
    found = [(m.similarity, m.confidence) for m in one.matches]
    np.testing.assert_allclose(found, [(m.similarity, m.confidence) for m in other.matches], atol=1e-5)
    assert one.none_confidence == pytest.approx(other.none_confidence, abs=1e-5)
    assert (one.nearest is None) == (other.nearest is None)
    assert one.nearest is None or one.nearest[0] == other.nearest[0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 40))
def test_some_of_the_routes_answer_as_if_there_were_no_others(seed, n):
    rng = np.random.default_rng(seed)
    routes = varied(rng, n)
    chosen = np.sort(rng.permutation(n)[: int(rng.integers(1, n + 1))])
    few, alone = snapshot(routes).taken(chosen), snapshot([routes[i] for i in chosen])
    for query in units(rng, 5):
        for context in (RouteContext(), RouteContext(user_tier="gold", exhausted={routes[0].name})):
            close(*(route_one(query, made, now=NOW, context=context, top_k=3) for made in (few, alone)))


def test_where_the_index_sees_every_row_the_answers_are_exact():
    rng = np.random.default_rng(1)
    exact = snapshot(varied(rng, 60))
    indexed = index_routes(exact)
    assert indexed.index is not None
    assert len(exact.examples) + len(exact.middles) <= route_index.SEARCH_WIDTH
    for query in units(rng, 50):
        for context in (RouteContext(), RouteContext(user_tier="gold")):
            close(*(route_one(query, made, now=NOW, context=context, top_k=5) for made in (indexed, exact)))


def test_few_rows_in_view_still_find_most_of_the_nearest():
    rng = np.random.default_rng(2)
    rows = units(rng, 3000)
    index, queries = NearRows(rows), units(rng, 200)
    nearest = (queries @ rows.T).argmax(axis=1)
    found = [own in index.near(query) for own, query in zip(nearest, queries, strict=True)]
    assert np.mean(found) > 0.98
    assert max(len(index.near(query)) for query in queries) <= route_index.SEARCH_WIDTH


def test_the_same_rows_give_the_same_index():
    rng = np.random.default_rng(3)
    rows, queries = units(rng, 2000), units(rng, 50)
    one, other = NearRows(rows), NearRows(rows.copy())
    assert all(one.near(query).tolist() == other.near(query).tolist() for query in queries)


def test_rows_that_are_the_same_are_all_found():
    rng = np.random.default_rng(4)
    rows = units(rng, 20)
    twice = np.concatenate((rows, rows[:5]))
    assert sorted(NearRows(twice).near(rows[3]).tolist()) == list(range(25))


def test_changed_rows_are_seen_and_the_former_index_stays_as_it_was():
    rng = np.random.default_rng(5)
    rows = units(rng, 200)
    former = NearRows(rows)
    changed = np.concatenate((units(rng, 3), rows[10:]))  # ten rows gone, three new, all others elsewhere
    latter = NearRows(changed, former)
    assert latter._removed == 10
    for position, row in enumerate(changed):
        assert position in latter.near(row)
    assert sorted(latter.near(rows[0]).tolist()) == list(range(193))
    assert sorted(former.near(rows[0]).tolist()) == list(range(200))
    back = NearRows(rows, latter)  # what was removed comes again
    assert sorted(back.near(rows[0]).tolist()) == list(range(200))
    assert NearRows(rows[:120], former)._removed == 0  # so much is gone that it was built anew


def test_a_far_route_of_higher_priority_is_not_missed(monkeypatch):
    monkeypatch.setattr(route_index, "SEARCH_WIDTH", 4)
    rng = np.random.default_rng(6)
    query, *others = units(rng, 100)
    routes = [route(f"r{i:02}", [v]) for i, v in enumerate(others)]
    routes.append(route("first", [-query], priority=1))
    indexed = index_routes(snapshot(routes))
    assert indexed.index is not None
    assert len(indexed.index.near(query)) == 5
    close(*(route_one(query, made, now=NOW, top_k=2) for made in (indexed, snapshot(routes))))
    assert route_one(query, indexed, now=NOW).matches[0].route_name == "first"
    monkeypatch.setattr(route_snapshot, "MOST_PRIOR", 0)
    assert index_routes(snapshot(routes)).index is None


def test_where_what_is_near_does_not_come_into_question_everything_is_compared(monkeypatch):
    monkeypatch.setattr(route_index, "SEARCH_WIDTH", 8)
    rng = np.random.default_rng(7)
    query = units(rng, 1)[0]
    near = units(rng, 50) * 0.1 + query
    gold = [route(f"g{i:02}", [v], conditions={"user_tier": ["gold"]}) for i, v in enumerate(near)]
    far = [route(f"f{i:02}", [v]) for i, v in enumerate(units(rng, 50) * 0.5 - query)]
    made = [index_routes(snapshot(gold + far)), snapshot(gold + far)]
    close(*(route_one(query, one, now=NOW, top_k=3) for one in made))
    assert route_one(query, made[0], now=NOW, top_k=3).matches[0].route_name.startswith("f")
    assert index_routes(snapshot([])).index is None
