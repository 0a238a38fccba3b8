"""Matching of semantic routes against a plain loop, and the rules of order, refusal and *none of these*."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer.errors import SpaceMismatchError
from tinydancer.policy import route_snapshot
from tinydancer.policy import routes as module
from tinydancer.policy.route_rules import Route, RouteCalibration, RouteConditions, Utterance
from tinydancer.policy.route_snapshot import RouteContext, build_routes_snapshot
from tinydancer.policy.routes import route_one, route_semantically
from tinydancer.types import EmbeddingSpace

SPACE = EmbeddingSpace("test", 8)
NOON = 1_768_392_000.0  # 2026-01-14 12:00 UTC, a Wednesday
CALIBRATION = RouteCalibration(intercept=-1, slope=4, margin=2, none_intercept=1, none_slope=-5, none_margin=-1)


def unit(*values):
    vector = np.zeros(8, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


def route(name, *examples, negatives=(), **more):
    own = [Utterance(text=None, embedding=v) for v in examples]
    own += [Utterance(text=None, embedding=v, kind="negative") for v in negatives]
    conditions = RouteConditions.from_mapping(more.pop("conditions", {}))
    more = {"target_agent": f"agent of {name}", "calibration": CALIBRATION, "threshold": 0.5, **more}
    return Route(name=name, utterances=tuple(own), conditions=conditions, **more)


def snapshot(*routes):
    return build_routes_snapshot(routes, version="1", space=SPACE)


def names(answer):
    return [match.route_name for match in answer.matches]


def ask(routes, *query, **more):
    made, given_ = snapshot(*routes), {"now": NOON, "top_k": 10} | more
    answer = route_one(unit(*query), made, **given_)
    together = route_semantically(unit(*query)[None, :], made, **given_)[0]
    assert names(answer) == names(together)
    assert answer.confidence == pytest.approx(together.confidence, abs=1e-5)
    return answer


def sigma(x):
    return 1.0 / (1.0 + math.exp(-x))


def plainly(query, routes, top_k):
    """The rules of the module, written as loops."""
    similar = {}
    for r in routes:
        positive = [u.embedding.astype(float) for u in r.utterances if u.kind != "negative"]
        middle = np.mean(positive, axis=0)
        nearest = max(float(query @ v) for v in positive)
        negative = [float(query @ u.embedding) for u in r.utterances if u.kind == "negative"]
        if not negative or max(negative) < nearest:
            similar[r.name] = 0.3 * nearest + 0.7 * float(query @ middle) / np.linalg.norm(middle)
    found = []
    for r in routes:
        if r.name in similar and similar[r.name] >= r.threshold:
            other = max((s for name, s in similar.items() if name != r.name), default=-1.0)
            c = r.calibration
            logit = c.intercept + c.slope * similar[r.name] + c.margin * (similar[r.name] - other)
            found.append((-r.priority, -sigma(logit), r.name, similar[r.name]))
    return [(name, s, -c) for _, c, name, s in sorted(found)][:top_k]


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 5), st.integers(1, 4))
def test_it_agrees_with_a_plain_loop(seed, number, examples, top_k):
    rng = np.random.default_rng(seed)
    vectors = lambda n: [unit(*v) for v in rng.normal(size=(n, 8))]  # noqa: E731
    routes = [
        route(f"r{i:02}", *vectors(int(rng.integers(1, examples + 1))), negatives=vectors(int(rng.integers(3))),
              threshold=float(rng.uniform(-0.5, 0.5)), priority=int(rng.integers(2)))
        for i in range(number)
    ]  # fmt: skip
    queries = np.stack(vectors(7))
    shuffled = [routes[i] for i in rng.permutation(number)]
    answers = route_semantically(queries, snapshot(*shuffled), now=NOON, top_k=top_k)
    for row, query in enumerate(queries):
        expected = plainly(query.astype(float), routes, top_k)
        got = [(m.route_name, m.similarity, m.confidence) for m in answers[row].matches]
        assert [m[0] for m in got] == [m[0] for m in expected]
        np.testing.assert_allclose([m[1:] for m in got], [m[1:] for m in expected], atol=2e-5)
        assert (answers.best[row] >= 0) == bool(expected)
        alone, together = route_one(query, snapshot(*routes), now=NOON, top_k=top_k), answers[row]
        assert names(alone) == [m[0] for m in expected]
        assert alone.none_confidence == pytest.approx(together.none_confidence, abs=2e-5)
        assert (alone.nearest is None) == (together.nearest is None)
        if alone.nearest is not None and together.nearest is not None:
            assert alone.nearest[0] == together.nearest[0]
            assert alone.nearest[3] == pytest.approx(together.nearest[3], abs=2e-5)


def test_priority_then_confidence_then_name():
    routes = [
        route("b", unit(1)),
        route("a", unit(1)),
        route("low", unit(1, 0.5)),
        route("first", unit(1, 1), priority=1),
    ]
    assert names(ask(routes, 1)) == ["first", "a", "b", "low"]
    assert names(ask(routes, 1, top_k=2)) == ["first", "a"]
    assert names(ask([*routes[:3], route("first", unit(1, 1), priority=1, threshold=0.9)], 1)) == ["a", "b", "low"]


def test_none_of_these_is_an_answer():
    answer = ask([route("a", unit(1)), route("b", unit(0, 1))], 0.3, 0.1, 1)
    length = math.sqrt(0.09 + 0.01 + 1)
    assert answer.best is None
    assert answer.nearest is not None
    assert answer.nearest.route_name == "a"
    assert answer.nearest.similarity == pytest.approx(0.3 / length, abs=1e-6)
    assert answer.confidence == pytest.approx(sigma(1 - 5 * 0.3 / length - 0.2 / length), abs=1e-6)
    assert answer.to_dict()["route_name"] is None
    nothing = ask([], 1)
    assert (nothing.best, nothing.nearest, nothing.confidence) == (None, None, 1.0)


def test_a_negative_example_as_near_refuses():
    near, far = unit(1, 0.1), unit(0, 1)
    assert names(ask([route("a", unit(1), negatives=[near])], 1, 0.1)) == []
    assert names(ask([route("a", unit(1), negatives=[far])], 1, 0.1)) == ["a"]
    assert names(ask([route("a", unit(1), negatives=[unit(1)])], 1)) == []  # a tie refuses
    answer = ask([route("a", unit(1), negatives=[near]), route("b", unit(1, 1))], 1, 0.1)
    assert names(answer) == ["b"]
    # Who was refused is no rival either: the margin is that of a route alone.
    s = 1.1 / math.sqrt(2 * 1.01)
    assert answer.matches[0].confidence == pytest.approx(sigma(-1 + 4 * s + 2 * (s + 1)), abs=1e-5)


def test_conditions():
    day = {"time_range": {"start": "09:00", "end": "17:00"}}
    routes = [route("day", unit(1), conditions=day), route("gold", unit(1), conditions={"user_tier": ["gold"]}),
              route("always", unit(1)), route("both", unit(1), conditions={**day, "user_tier": ["gold", "silver"]}),
              route("off", unit(1), is_active=False)]  # fmt: skip
    gold = RouteContext(user_tier="gold")
    assert names(ask(routes, 1)) == ["always", "day"]
    assert names(ask(routes, 1, context=gold)) == ["always", "both", "day", "gold"]
    assert names(ask(routes, 1, context=gold, now=NOON + 6 * 3600)) == ["always", "gold"]
    assert names(ask(routes, 1, context=RouteContext(user_tier="lead"))) == ["always", "day"]
    assert names(ask(routes, 1, context=RouteContext(exhausted={"always"}))) == ["day"]
    only = [route("day", unit(1), conditions=day)]
    night = ask(only, 1, now=NOON + 6 * 3600)
    assert (night.best, night.nearest, night.confidence) == (None, None, 1.0)


@given(st.integers(0, 10**9), st.booleans())
def test_columns_of_conditions_hold_when_the_conditions_do(seconds, gold):
    zones = ("UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu")
    ranges = [
        {"start": f"{(5 * i) % 24:02}:15", "end": f"{(11 * i + 3) % 24:02}:45", "time_zone": zones[i % 4],
         "days": ["mon", "wed", "sun"] if i % 3 else ["sat"]}
        for i in range(12)
    ]  # fmt: skip
    routes = [
        route(f"r{i:02}", unit(1), conditions={"time_range": when, "user_tier": ["gold"] if i % 2 else None})
        for i, when in enumerate(ranges)
    ]
    now, tier = 1.7e9 + seconds, "gold" if gold else None
    mask = snapshot(*routes).eligible(now, RouteContext(user_tier=tier))
    assert mask is not None
    expected = [
        r.conditions.time_range is not None and r.conditions.time_range.holds(now)
        and (r.conditions.user_tier is None or gold)
        for r in routes
    ]  # fmt: skip
    assert mask.tolist() == expected


def test_many_requests_in_blocks_answer_alike(monkeypatch):
    rng = np.random.default_rng(5)
    routes = snapshot(*(route(f"r{i}", unit(*v), threshold=0.2) for i, v in enumerate(rng.normal(size=(9, 8)))))
    queries = rng.normal(size=(50, 8)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    whole = route_semantically(queries, routes, now=NOON)
    monkeypatch.setattr(module, "BLOCK_VALUES", 9 * 7)
    parts = route_semantically(queries, routes, now=NOON)
    assert whole.best.tolist() == parts.best.tolist()
    assert [names(a) for a in whole] == [names(a) for a in parts]
    assert len(route_semantically(queries[:0], routes, now=NOON)) == 0


def test_what_only_has_a_description_and_what_only_has_negatives():
    described = Route(
        name="d", target_agent="x", utterances=(Utterance(text="d", embedding=unit(1), kind="description"),)
    )
    exemplified = Route(name="e", target_agent="x", utterances=(Utterance(text="e", embedding=unit(1)),))
    empty = Route(name="n", target_agent="x", utterances=(Utterance(text="n", embedding=unit(1), kind="negative"),))
    made = snapshot(described, exemplified, empty)
    assert made.names == ("d", "e")
    expected = [route_snapshot.DESCRIBED_THRESHOLD, route_snapshot.DEFAULT_THRESHOLD]
    assert made.thresholds.tolist() == pytest.approx(expected)
    opposite = route("o", unit(1), unit(-1))
    assert ask([opposite], 1).nearest.similarity == pytest.approx(0.3)
    with pytest.raises(SpaceMismatchError, match="3 dimensions"):
        snapshot(route("a", np.ones(3, np.float32)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(20, 60), st.booleans(), st.booleans(), st.integers(1, 25))
def test_more_than_a_few_that_pass(seed, number, ranked, alike, top_k):
    rng = np.random.default_rng(seed)
    routes = []
    for i in range(number):
        fitted = RouteCalibration(
            intercept=rng.normal(), slope=rng.normal(3), margin=rng.normal(2), none_intercept=0, none_slope=0,
            none_margin=0,
        )  # fmt: skip
        routes.append(
            route(f"r{i:02}", *(unit(*v) for v in rng.normal(size=(1 + i % 2, 8))), threshold=-1.0,
                  priority=int(rng.integers(3)) if ranked else 1, calibration=CALIBRATION if alike else fitted)
        )  # fmt: skip
    made = snapshot(*routes)
    assert (made.ranked, made.alike) == (ranked and len({r.priority for r in routes}) > 1, alike)
    queries = np.stack([unit(*v) for v in rng.normal(size=(3, 8))])
    together = route_semantically(queries, made, now=NOON, top_k=top_k)
    for row, query in enumerate(queries):
        expected = plainly(query.astype(float), routes, top_k)
        for answer in (route_one(query, made, now=NOON, top_k=top_k), together[row]):
            assert names(answer) == [name for name, *_ in expected]
            got = [m[1::2] for m in answer.matches]
            np.testing.assert_allclose(got, [m[1:] for m in expected], atol=2e-5)


def test_certainty_that_rounds_to_one_still_has_an_order():
    sure = RouteCalibration(intercept=90, slope=9, margin=0, none_intercept=0, none_slope=0, none_margin=0)
    routes = [route(name, unit(1, x), calibration=sure) for name, x in (("a", 0.3), ("b", 0.1), ("c", 0.2))]
    answer = ask(routes, 1)
    assert names(answer) == ["b", "c", "a"]
    assert [m.confidence for m in answer.matches] == [1.0, 1.0, 1.0]


def test_a_snapshot_cannot_be_written_to():
    made = snapshot(route("a", unit(1), unit(0, 1), negatives=[unit(0, 0, 1)]))
    for array in (made.examples, made.middles, made.negatives, made.thresholds, made.calibrations):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
