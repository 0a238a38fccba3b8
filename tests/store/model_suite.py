"""What every store must do with models, and with what is learned. As `suite`: one subclass, one fixture per store."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.store.suite import OpenStore, agent, decision, outcome
from tinydancer.errors import AlreadyExistsError, InvalidInputError, InvalidNameError, NotFoundError
from tinydancer.store.base import NO_MODEL, SHIPPED_MODEL, Store

KIND = "quality-model"


def weights(seed: int, size: int = 1000) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(store: Store, name: str, seed: int = 0, *, kind: str = KIND, replace: bool = False, **metadata: Any) -> bytes:
    content = weights(seed)
    store.insert_model(kind, name, digest(content), content, metadata, replace=replace)
    return content


def features(seed: int) -> bytes:
    return np.random.default_rng(seed).normal(size=400).astype("<f2").tobytes()


def active(store: Store, kind: str = KIND) -> str | None:
    row = store.active_model(kind)
    return None if row is None else row.name


class ModelSuite:
    """Checks of the part of the `Store` protocol that holds models and what is learned on top of them."""

    @pytest.fixture
    def open_store(self) -> Iterator[OpenStore]:
        raise NotImplementedError

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Store:
        return open_store("default")

    def test_a_model_comes_back_as_it_was_stored(self, store):
        metadata = {"agents": ["a", "ü"], "figures": {"apgr": 0.67}, "nothing": None}
        content = weights(3, 300_000)  # more than a page, and more than PostgreSQL keeps in a row
        store.insert_model(KIND, "mine", digest(content), content, metadata)
        row = store.get_model(KIND, "mine")
        assert (row.kind, row.name, row.sha256, row.size_bytes) == (KIND, "mine", digest(content), 300_000)
        assert dict(row.metadata) == metadata
        assert (row.is_active, row.is_shipped) == (False, False)
        assert row.created_at > 1_700_000_000
        assert store.list_models(KIND) == [row]
        assert store.model_artifact(KIND, "mine") == content

    def test_models_are_listed_by_kind_and_name(self, store):
        for name in ("b", "a", "B"):
            put(store, name)
        put(store, "a", 1, kind="candidate-scorer")
        listed = [(row.kind, row.name) for row in store.list_models()]
        assert listed == [("candidate-scorer", "a"), (KIND, "B"), (KIND, "a"), (KIND, "b")]
        assert [row.name for row in store.list_models(KIND)] == ["B", "a", "b"]
        assert store.list_models("classifier") == []

    def test_a_name_can_be_stored_once_unless_it_is_replaced(self, store):
        content = put(store, "mine", 1, note="old")
        store.activate_model(KIND, "mine")
        before = store.version()
        with pytest.raises(AlreadyExistsError, match="'mine'") as caught:
            put(store, "mine", 2)
        assert "Replace" in caught.value.hint
        assert store.version() == before
        assert store.model_artifact(KIND, "mine") == content
        content = put(store, "mine", 2, replace=True, note="new")
        assert store.model_artifact(KIND, "mine") == content
        row = store.active_model(KIND)
        assert row is not None
        assert (row.name, row.sha256, row.metadata) == ("mine", digest(content), {"note": "new"})
        put(store, "other", 3, replace=True)  # nothing to replace
        assert active(store) == "mine"

    def test_no_model_decides_until_one_is_activated(self, store):
        assert store.active_model(KIND) is None
        put(store, "mine")
        put(store, "yours", 1)
        assert active(store) is None
        store.activate_model(KIND, SHIPPED_MODEL)
        row = store.active_model(KIND)
        assert row is not None
        assert (row.kind, row.name, row.is_shipped, row.is_active) == (KIND, SHIPPED_MODEL, True, True)
        assert (row.sha256, row.size_bytes, dict(row.metadata)) == ("", 0, {})  # its weights are not the store's
        for name in ("mine", "yours", "yours", None, None, "mine", SHIPPED_MODEL, SHIPPED_MODEL, None, "yours"):
            store.activate_model(KIND, name)
            assert active(store) == name
            marked = [row.name for row in store.list_models() if row.is_active]
            assert marked == ([name] if name in ("mine", "yours") else [])
        assert active(store, "candidate-scorer") is None  # each kind has its own
        store.activate_model("candidate-scorer", SHIPPED_MODEL)
        assert (active(store), active(store, "candidate-scorer")) == ("yours", SHIPPED_MODEL)

    def test_none_and_shipped_are_no_models(self, store):
        store.activate_model(KIND, None)
        store.activate_model("classifier", SHIPPED_MODEL)
        assert store.list_models() == []
        for name in (NO_MODEL, SHIPPED_MODEL):
            with pytest.raises(InvalidNameError, match="reserved"):
                put(store, name)
            for attempt in (store.get_model, store.model_artifact, store.delete_model):
                with pytest.raises(NotFoundError):
                    attempt(KIND, name)
        with pytest.raises(NotFoundError):
            store.activate_model(KIND, NO_MODEL)
        assert active(store) is None

    def test_a_model_that_is_not_there_is_not_found_and_the_nearest_name_is_named(self, store):
        put(store, "chat-2026")
        store.activate_model(KIND, "chat-2026")
        before = store.version()
        for attempt in (store.get_model, store.model_artifact, store.activate_model, store.delete_model):
            with pytest.raises(NotFoundError, match="chat-2062") as caught:
                attempt(KIND, "chat-2062")
            assert "'chat-2026'" in caught.value.hint
            with pytest.raises(NotFoundError):
                attempt("classifier", "chat-2026")
        with pytest.raises(NotFoundError) as caught:
            store.activate_model(KIND, "shiped")
        assert "'shipped'" in caught.value.hint
        assert store.version() == before
        assert active(store) == "chat-2026"

    def test_a_removed_model_leaves_none(self, store):
        put(store, "mine")
        put(store, "yours", 1)
        store.activate_model(KIND, SHIPPED_MODEL)
        store.activate_model(KIND, "yours")
        store.delete_model(KIND, "mine")
        assert active(store) == "yours"
        store.delete_model(KIND, "yours")
        assert active(store) is None  # not what decided before it
        assert store.list_models() == []
        put(store, "yours", 2)  # the name is free, and does not decide because an earlier one did
        assert active(store) is None

    def test_every_change_moves_the_registry_s_version(self, open_store, store):
        other = open_store("default")
        store.insert_agent(agent("a"))
        changes = [
            lambda: put(store, "mine"),
            lambda: put(store, "mine", 1, replace=True),
            lambda: store.activate_model(KIND, "mine"),
            lambda: store.activate_model(KIND, None),
            lambda: store.activate_model(KIND, SHIPPED_MODEL),
            lambda: store.delete_model(KIND, "mine"),
        ]
        for change in changes:
            before = other.registry_version()
            change()
            assert other.registry_version() > before
            assert other.version() == store.version()

    def test_before_the_first_agent_changes_move_it_too(self, store):
        assert store.registry_version() == 0
        store.activate_model(KIND, None)
        first = store.registry_version()
        assert first > 0
        put(store, "mine")
        assert store.registry_version() > first

    def test_what_cannot_be_stored_is_refused(self, store):
        content = weights(0)
        for arguments in (
            (KIND, "mine", "no hash", content, {}),
            (KIND, "mine", digest(content).upper(), content, {}),
            (KIND, "mine", digest(content), b"", {}),
            (KIND, "mine", digest(content), content, {"apgr": float("nan")}),
            (KIND, "mine", digest(content), content, {"set": {1}}),
            (KIND, " ", digest(content), content, {}),
            ("", "mine", digest(content), content, {}),
        ):
            with pytest.raises(InvalidInputError):
                store.insert_model(*arguments)
        assert store.list_models() == []
        assert store.registry_version() == 0

    def test_activations_at_the_same_time_leave_one(self, open_store):
        store = open_store("default")
        names = [f"m{i}" for i in range(4)]
        for i, name in enumerate(names):
            put(store, name, i)
        errors: list[BaseException] = []

        def activate(own: Store, first: int) -> None:
            try:
                for i in range(12):
                    own.activate_model(KIND, [*names, None, SHIPPED_MODEL][(first + i) % 6])
            except BaseException as error:
                errors.append(error)

        stores = [open_store("default") for _ in names]
        threads = [threading.Thread(target=activate, args=(own, i)) for i, own in enumerate(stores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sum(row.is_active for row in store.list_models()) <= 1
        store.activate_model(KIND, "m2")
        assert [row.name for row in store.list_models() if row.is_active] == ["m2"]

    def test_a_decision_keeps_its_features(self, store):
        store.insert_agent(agent("a"))
        given = [decision("1", features=features(1)), decision("2"), decision("3", features=b"\x00\xff")]
        store.insert_decisions(given[:1])
        store.insert_decisions(given[1:])
        assert [store.get_decision(row.decision_id) for row in given] == given
        assert sorted(store.list_decisions(), key=lambda row: row.decision_id) == given

    def test_graded_features_are_those_of_judged_outcomes_in_order(self, store):
        store.insert_agents([agent("a"), agent("b")], replace=False)
        store.insert_decisions(
            [decision(str(i), features=features(i)) for i in range(6)] + [decision("bare"), decision("silent")]
        )
        store.insert_outcomes(
            [
                outcome("a", decision_id="3", quality=0.75, cost_usd=0.125, occurred_at=1_700_000_002.5),
                outcome("a", decision_id="0", success=False),  # nobody judged it, but it failed
                outcome("a", decision_id="1"),  # nobody judged it
                outcome("a", quality=0.9),  # of no decision
                outcome("a", decision_id="unknown", quality=0.9),
                outcome("a", decision_id="bare", quality=0.9),  # without features
                outcome("b", decision_id="2", quality=0.5),  # another agent answered
            ]
        )
        store.insert_outcomes([outcome("a", decision_id="3", quality=0.625, success=False)])  # judged again
        found = store.graded_features(0, 100)
        seen = [(row.agent_name, row.quality, row.features) for row in found]
        assert seen == [
            ("a", 0.75, features(3)), ("a", 0.0, features(0)), ("b", 0.5, features(2)), ("a", 0.625, features(3)),
        ]  # fmt: skip
        assert (found[0].cost_usd, found[0].occurred_at) == (0.125, 1_700_000_002.5)
        assert found[0].request == "Schreibe einen Brief 🙂"
        assert found[1].cost_usd is None
        ids = [row.outcome_id for row in found]
        assert ids == sorted(set(ids))
        store.delete_agent("b")
        store.insert_agent(agent("b"))
        assert {row.agent_name for row in store.graded_features(0, 100)} == {"a"}, "the new b starts anew"

    def test_graded_features_are_read_on_from_the_last(self, store):
        store.insert_agent(agent("a"))
        store.insert_decisions([decision(str(i), features=features(i)) for i in range(25)])
        store.insert_outcomes([outcome("a", decision_id=str(i), quality=i / 32) for i in range(25)])
        read, after = [], 0
        while found := store.graded_features(after, 10):
            assert len(found) <= 10
            read += [row.quality for row in found]
            after = found[-1].outcome_id
        assert read == [i / 32 for i in range(25)]
        store.insert_outcomes([outcome("a", decision_id="7", quality=1.0)])
        assert [row.quality for row in store.graded_features(after, 10)] == [1.0]
        assert store.graded_features(0, 0) == []
        for arguments in ((-1, 10), (0, -1)):
            with pytest.raises(InvalidInputError):
                store.graded_features(*arguments)

    def test_a_state_is_kept_if_it_knows_more(self, open_store, store):
        other = open_store("default")
        one, two = digest(b"1"), digest(b"2")
        assert store.ability_state(one) is None
        assert store.save_ability_state(one, 0, b"nothing yet") is True
        assert store.save_ability_state(one, 7, b"seven") is True
        assert other.save_ability_state(one, 7, b"another seven") is False
        assert other.save_ability_state(one, 6, b"six") is False
        assert other.save_ability_state(two, 3, b"") is True
        assert other.save_ability_state(one, 8, features(8) * 20) is True
        assert store.ability_state(one) == (8, features(8) * 20)
        assert store.ability_state(two) == (3, b"")
        for arguments in (("no hash", 1, b""), (one, -1, b"")):
            with pytest.raises(InvalidInputError):
                store.save_ability_state(*arguments)

    def test_learning_moves_no_version(self, store):
        store.insert_agent(agent("a"))
        before = store.version()
        store.save_ability_state(digest(b"1"), 1, b"state")
        assert store.version() == before


class ModelTenantSuite:
    """Checks that tenants see neither each other's models nor what was learned of each other's requests."""

    @pytest.fixture
    def open_store(self) -> Iterator[OpenStore]:
        raise NotImplementedError

    def test_tenants_have_models_of_their_own(self, open_store):
        one, two = open_store("one"), open_store("two")
        mine = put(one, "mine", 1)
        one.activate_model(KIND, "mine")
        version = one.registry_version()
        assert (active(one), active(two)) == ("mine", None)
        assert two.list_models() == []
        assert two.registry_version() == 0
        for attempt in (two.get_model, two.model_artifact, two.activate_model, two.delete_model):
            with pytest.raises(NotFoundError) as caught:
                attempt(KIND, "mine")
            assert "mine" not in caught.value.hint
        theirs = put(two, "mine", 2)
        two.activate_model(KIND, SHIPPED_MODEL)
        assert (one.model_artifact(KIND, "mine"), two.model_artifact(KIND, "mine")) == (mine, theirs)
        assert (active(one), active(two)) == ("mine", SHIPPED_MODEL)
        two.delete_model(KIND, "mine")
        assert active(one) == "mine"
        assert one.registry_version() == version

    def test_tenants_learn_on_their_own(self, open_store):
        one, two = open_store("one"), open_store("two")
        for number, store in enumerate((one, two)):
            store.insert_agent(agent("a"))
            store.insert_decisions([decision("1", features=features(number))])
            store.insert_outcomes([outcome("a", decision_id="1", quality=0.25 + number / 2)])
        two.insert_outcomes([outcome("a", decision_id="1", quality=1.0)])
        assert [(row.quality, row.features) for row in one.graded_features(0, 9)] == [(0.25, features(0))]
        assert [row.quality for row in two.graded_features(0, 9)] == [0.75, 1.0]
        sha256 = digest(b"weights")
        assert one.save_ability_state(sha256, 9, b"one") is True
        assert two.ability_state(sha256) is None
        assert two.save_ability_state(sha256, 1, b"two") is True
        assert (one.ability_state(sha256), two.ability_state(sha256)) == ((9, b"one"), (1, b"two"))
