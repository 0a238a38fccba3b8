"""Whatever the order of outcomes, roll-ups and restarts: the statistics are those of all outcomes, to the last bit."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.suite import agent, assorted_outcomes, outcome
from tinydancer.learn import stats_of
from tinydancer.store import sqlite
from tinydancer.store.sqlite import SqliteStore
from tinydancer.types import Outcome

NAMES = ("a", "b", "c")
OUTCOMES = st.builds(
    outcome,
    st.sampled_from(NAMES),
    success=st.booleans(),
    quality=st.none() | st.floats(0, 1),
    latency_ms=st.none() | st.floats(0, 1e9),
    cost_usd=st.none() | st.floats(0, 1e6),
    output_tokens=st.none() | st.integers(0, 10**12),
)
STEPS = st.lists(
    st.lists(OUTCOMES, min_size=1, max_size=12) | st.sampled_from(["roll up", "restart", "read", "other"]), max_size=12
)


@settings(max_examples=40)
@given(steps=STEPS, tail_length=st.integers(1, 20))
def test_statistics_equal_those_of_all_outcomes(steps, tail_length):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "TAIL_LENGTH", tail_length)
        path = Path(folder) / "store.db"
        store, other = SqliteStore(path), SqliteStore(path)
        store.insert_agents([agent(name) for name in NAMES], replace=False)
        reported: list[Outcome] = []
        for step in steps:
            if step == "roll up":
                store.roll_up()
            elif step == "restart":
                store.close()
                store = SqliteStore(path)
            elif step == "read":
                assert store.agent_stats() == stats_of(reported)
            elif step == "other":
                other.insert_outcomes([outcome("b", quality=0.1)])
                reported.append(outcome("b", quality=0.1))
            else:
                store.insert_outcomes(step)
                reported += step
        assert store.agent_stats() == other.agent_stats() == stats_of(reported)
        store.close()
        other.close()


def test_outcomes_are_rolled_up_by_themselves_and_on_request(tmp_path):
    with SqliteStore(tmp_path / "x.db") as store:
        assert store.roll_up() == 0
        store.insert_agents([agent(name) for name in NAMES], replace=False)
        outcomes = assorted_outcomes(2345, NAMES)
        for start in range(0, len(outcomes), 5):
            store.insert_outcomes(outcomes[start : start + 5])
        rolled_up_to = store._database.fetch("SELECT rolled_up_to FROM tenants")[0][0]
        assert rolled_up_to == 2000
        assert store.roll_up() == 345
        assert store.roll_up() == 0
        store.delete_agent("c")
    with SqliteStore(tmp_path / "x.db") as again:
        expected = stats_of(outcomes)
        assert again.agent_stats() == {name: expected[name] for name in ("a", "b")}
        assert again.routing_totals().total_outcomes == 2345


def test_what_is_rolled_up_is_not_added_again(tmp_path):
    """The rolled-up tables alone hold the statistics: the outcomes before the watermark are not read for them."""
    path = tmp_path / "x.db"
    with SqliteStore(path) as store:
        store.insert_agent(agent("a"))
        store.insert_outcomes([outcome("a", quality=0.5, latency_ms=7.0)] * 50)
        store.roll_up()
        store.insert_outcomes([outcome("a", quality=1.0)])
    connection = sqlite3.connect(path)
    connection.execute("UPDATE outcomes SET quality = 0.0 WHERE id <= 50")
    connection.commit()
    connection.close()
    with SqliteStore(path) as store:
        assert store.agent_stats()["a"].quality_sum == 26.0
        assert (
            store.agent_stats()["a"].latency_buckets
            == stats_of([outcome("a", latency_ms=7.0)] * 50)["a"].latency_buckets
        )


def test_unchanged_statistics_are_not_built_again(tmp_path):
    with SqliteStore(tmp_path / "x.db") as store:
        store.insert_agents([agent("a"), agent("b")], replace=False)
        store.insert_outcomes([outcome("a"), outcome("b")])
        before = store.agent_stats()
        store.insert_outcomes([outcome("b")])
        after = store.agent_stats()
        assert after["a"] is before["a"]
        assert after["b"].total_requests == 2
        assert before["b"].total_requests == 1
