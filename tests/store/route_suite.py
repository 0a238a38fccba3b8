"""What every store must do with semantic routes. As `suite`: one subclass, one fixture per store."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tests.store.suite import OpenStore, agent, vector
from tinydancer.errors import AlreadyExistsError, InvalidInputError, NotFoundError, SpaceMismatchError
from tinydancer.policy.route_rules import RateLimit, Route, RouteCalibration, RouteConditions, Utterance, take_token
from tinydancer.store.base import Store

CALIBRATION = RouteCalibration(
    intercept=-1.25, slope=4, margin=2, none_intercept=1, none_slope=-5, none_margin=-1, examples=7
)


def route(name: str, *texts: str, **changes) -> Route:
    own = tuple(Utterance(text=text, embedding=vector(len(text))) for text in texts or ("an example",))
    return Route(name=name, **({"target_agent": "a", "utterances": own} | changes))


class RouteSuite:
    """Checks of the part of the `Store` protocol that holds semantic routes."""

    @pytest.fixture
    def open_store(self) -> Iterator[OpenStore]:
        raise NotImplementedError

    @pytest.fixture
    def desk(self, open_store: OpenStore) -> Store:
        made = open_store("default")
        made.insert_agents([agent("a"), agent("b")], replace=False)
        return made

    def test_a_route_comes_back_as_it_was_created(self, desk):
        given = Route(
            name="Rückgabe 'x'", target_agent="b", description="Für Rückgaben 🙂", priority=-3, threshold=0.375,
            conditions=RouteConditions.from_mapping(
                {"time_range": ["22:00", "04:00"], "user_tier": ["gold"], "rate_limit": {"requests": 5, "per_s": 10}}
            ),
            calibration=CALIBRATION, is_active=False,
            utterances=(
                Utterance(text="Für Rückgaben 🙂", embedding=vector(1), kind="description"),
                Utterance(text="I want my money back; DROP TABLE routes", embedding=vector(2)),
                Utterance(text=None, embedding=vector(3)),
                Utterance(text="ein Rückgabewert in C", embedding=vector(4), kind="negative"),
            ),
        )  # fmt: skip
        desk.insert_routes([given])
        (found,) = desk.list_routes()
        assert found == given == desk.get_route(given.name)
        for one, other in zip(found.utterances, given.utterances, strict=True):
            np.testing.assert_allclose(one.embedding, other.embedding, rtol=0, atol=1e-7)
            assert one.embedding.dtype == np.float32

    def test_all_or_none_and_in_order_of_name(self, desk):
        desk.insert_routes([route("b"), route("C"), route("a")])
        assert [r.name for r in desk.list_routes()] == ["C", "a", "b"]
        for taken in ("b", "B"):
            with pytest.raises(AlreadyExistsError, match="'b' already"):
                desk.insert_routes([route("new"), route(taken)])
        with pytest.raises(AlreadyExistsError, match="'twice' already"):
            desk.insert_routes([route("twice"), route("Twice")])
        with pytest.raises(NotFoundError, match="'aa', which is not registered") as caught:
            desk.insert_routes([route("new"), route("newer", target_agent="aa")])
        assert caught.value.hint == "Did you mean 'a'?"
        with pytest.raises(SpaceMismatchError):
            desk.insert_routes([route("new", utterances=(Utterance(text="x", embedding=vector(1, 3)),))])
        assert [r.name for r in desk.list_routes()] == ["C", "a", "b"]

    def test_replacing_overwrites_everything(self, desk):
        desk.insert_routes([route("r", "one", "two", threshold=0.5, priority=4)])
        desk.insert_routes([route("r", "three", target_agent="b"), route("s")], replace=True)
        found = desk.get_route("r")
        assert (found.target_agent, found.threshold, found.priority) == ("b", None, 0)
        assert found.texts("example") == ["three"]
        with pytest.raises(AlreadyExistsError, match="capitals only"):
            desk.insert_routes([route("R")], replace=True)

    def test_updating_keeps_the_examples(self, desk):
        described = Utterance(text="before", embedding=vector(1), kind="description")
        example = Utterance(text="one", embedding=vector(2))
        desk.insert_routes([route("r", utterances=(described, example)), route("s")])
        anew = Utterance(text="after", embedding=vector(3), kind="description")
        desk.update_routes([
            Route(name="r", target_agent="b", description="after", threshold=0.25, calibration=CALIBRATION,
                  utterances=(anew,)),
            Route(name="s", target_agent="b"),
        ])  # fmt: skip
        found = desk.get_route("r")
        assert (found.target_agent, found.threshold, found.calibration) == ("b", 0.25, CALIBRATION)
        assert sorted((u.kind, u.text) for u in found.utterances) == [("description", "after"), ("example", "one")]
        with pytest.raises(NotFoundError, match="'absent'"):
            desk.update_routes([route("s", priority=9), route("absent")])
        with pytest.raises(NotFoundError, match="not registered"):
            desk.update_routes([route("s", priority=9, target_agent="nobody")])
        assert desk.get_route("s").priority == 0

    def test_utterances_come_and_go(self, desk):
        desk.insert_routes([route("r", "one")])
        new = [Utterance(text=text, embedding=vector(9)) for text in ("one", "two", "two", "three")]
        assert desk.add_utterances("r", new) == 2
        assert desk.add_utterances("r", new) == 0
        negative = Utterance(text="not me", embedding=vector(8), kind="negative")
        assert desk.add_utterances("r", [negative]) == 1
        with pytest.raises(InvalidInputError, match="'two' as an example and as a negative example"):
            desk.add_utterances("r", [Utterance(text="x", embedding=vector(1)),
                                       Utterance(text="two", embedding=vector(9), kind="negative")])  # fmt: skip
        found = desk.get_route("r")
        assert found.texts("example") == ["one", "two", "three"]
        assert found.texts("negative") == ["not me"]
        assert desk.remove_utterances("r", ["two", "not me", "absent"]) == 2
        with pytest.raises(InvalidInputError, match="no utterance left"):
            desk.remove_utterances("r", ["one", "three"])
        assert desk.get_route("r").texts("example") == ["one", "three"]
        for attempt in (desk.add_utterances, desk.remove_utterances):
            with pytest.raises(NotFoundError, match="'absent'"):
                attempt("absent", [])

    def test_removing(self, desk):
        desk.insert_routes([route("refunds"), route("invoices")])
        desk.delete_route("refunds")
        assert [r.name for r in desk.list_routes()] == ["invoices"]
        for attempt in (desk.delete_route, desk.get_route):
            with pytest.raises(NotFoundError, match="'invoice'") as caught:
                attempt("invoice")
            assert caught.value.hint == "Did you mean 'invoices'?"
        desk.insert_routes([route("refunds", "another")])
        assert desk.get_route("refunds").texts("example") == ["another"]

    def test_every_change_moves_the_version(self, desk):
        seen = [desk.registry_version()]
        for change in (
            lambda: desk.insert_routes([route("r")]),
            lambda: desk.update_routes([route("r", priority=1)]),
            lambda: desk.add_utterances("r", [Utterance(text="two", embedding=vector(2))]),
            lambda: desk.remove_utterances("r", ["two"]),
            lambda: desk.insert_routes([route("r")], replace=True),
            lambda: desk.delete_route("r"),
        ):
            change()
            seen.append(desk.registry_version())
        assert seen == sorted(set(seen))
        desk.insert_routes([route("r")])
        before = desk.registry_version()
        with pytest.raises(AlreadyExistsError):
            desk.insert_routes([route("r")])
        desk.take_route_token("r", RateLimit(requests=5), 1e9)
        assert desk.registry_version() == before

    def test_rate_limits_are_those_of_the_rule(self, desk):
        desk.insert_routes([route("r"), route("s")])
        limit = RateLimit(requests=3, per_s=60.0)
        moments = [1e9, 1e9, 1e9 + 1, 1e9 + 2, 1e9 + 25, 1e9 - 500, 1e9 - 400, 1e9 + 9000]
        state, expected = None, []
        for now in moments:
            state, passes = take_token(state, limit, now)
            expected.append(passes)
        assert [desk.take_route_token("r", limit, now) for now in moments] == expected
        assert not all(expected)
        assert [desk.take_route_token("s", limit, 1e9, keep=False) for _ in range(5)] == [True] * 5
        assert [desk.take_route_token("s", limit, 1e9) for _ in range(5)] == [True] * 3 + [False] * 2
        assert not desk.take_route_token("s", limit, 1e9, keep=False)

    def test_threads_that_add_at_once_lose_nothing(self, open_store, desk):
        desk.insert_routes([route("r")])
        limit = RateLimit(requests=25, per_s=1e6)
        passes: list[bool] = []

        def work(number):
            own = open_store("default")
            for i in range(5):
                own.add_utterances("r", [Utterance(text=f"{number}.{i}", embedding=vector(i))])
                passes.extend(own.take_route_token("r", limit, 1e9) for _ in range(2))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = sorted(["an example", *(f"{n}.{i}" for n in range(4) for i in range(5))])
        assert sorted(desk.get_route("r").texts("example")) == expected
        assert (len(passes), sum(passes)) == (40, 25)


class RouteTenantSuite:
    """The same for stores that several tenants share."""

    def test_tenants_see_their_own_routes(self, open_store):
        one, other = open_store("one"), open_store("other")
        for store in (one, other):
            store.insert_agent(agent("a"))
        one.insert_routes([route("r", "of one")])
        other.insert_routes([route("r", "of the other")])
        limit = RateLimit(requests=1)
        assert one.take_route_token("r", limit, 1e9)
        assert other.take_route_token("r", limit, 1e9)
        before = other.registry_version()
        one.delete_route("r")
        assert one.list_routes() == []
        assert other.registry_version() == before
        assert other.get_route("r").texts("example") == ["of the other"]
