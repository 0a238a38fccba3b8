"""Budgets at the service: what is reserved, recorded, given back and told, in every way to route."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.store.suite import outcome
from tinydancer.budgets import Budgets
from tinydancer.config import Settings
from tinydancer.errors import NoMatchError, NotFoundError, RoutingError, StoreError, StoreLockedError
from tinydancer.planning import assign_batch
from tinydancer.service import TinyDancer
from tinydancer.teams import route_multi

VECTOR = np.ones(384, np.float32)
START = 1_700_000_000.0


class Clock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def dancer(clock, tmp_path):
    with TinyDancer(tmp_path / "store.db", clock=clock) as made:
        made.register_agent("cheap", "llm", ["chat"], 0.002, 150.0, 0.75)
        made.register_agent("dear", "llm", ["coding"], 0.03, 500.0, 0.95)
        yield made


def used(dancer: TinyDancer, name: str = "b") -> tuple[float, float]:
    status = Budgets(dancer).get(name)
    return round(status.spent_usd, 9), round(status.reserved_usd, 9)


def names_of(decisions) -> list[str | None]:
    return [decision and decision.agent_name for decision in decisions]


def best(dancer: TinyDancer, **more):
    return dancer.route(embedding=VECTOR, optimize_for="quality", on_no_match="null", **more)


def test_a_budget_is_spent_and_its_period_brings_a_new_one(dancer, clock):
    Budgets(dancer).create("b", 0.05, "hour")
    assert names_of(best(dancer) for _ in range(12)) == ["dear"] + ["cheap"] * 10 + [None]
    with pytest.raises(NoMatchError) as caught:
        dancer.route("Prove it.")
    assert "the budget 'b' has nothing left until 2023-11-14 23:00 UTC" in caught.value.exclusions["cheap"]
    clock.now += 3600
    assert best(dancer).agent_name == "dear"
    clock.now -= 3600  # a clock that is set back finds the hour as it was
    assert best(dancer) is None
    assert used(dancer) == (0.0, 0.05)


def test_only_whose_budget_it_is_pays(dancer):
    budgets = Budgets(dancer)
    budgets.create("key", 0.04, scope="key", scope_value="a")
    budgets.create("tag", 0.04, scope="tag", scope_value="t")
    assert best(dancer, key="a", tags=["x", "t"]).agent_name == "dear"
    assert (used(dancer, "key"), used(dancer, "tag")) == ((0.0, 0.03), (0.0, 0.03))
    assert names_of([best(dancer, key="a"), best(dancer, tags=["t"]), best(dancer, key="b"), best(dancer)]) == [
        "cheap", "cheap", "dear", "dear",
    ]  # fmt: skip


def test_a_change_counts_from_the_next_request_on_in_every_process(dancer, tmp_path):
    Budgets(dancer).create("b", 0.02)
    with TinyDancer(tmp_path / "store.db", clock=dancer._clock) as other:
        assert best(other).agent_name == "cheap"
        Budgets(dancer).update("b", {"amount_usd": 0.1})
        assert best(other).agent_name == "dear"
        Budgets(dancer).update("b", {"is_active": False})
        assert names_of(best(other) for _ in range(5)) == ["dear"] * 5
        Budgets(dancer).update("b", {"is_active": True})
        assert used(other) == (0.0, 0.032)
        Budgets(dancer).remove("b")
        assert names_of(best(other) for _ in range(5)) == ["dear"] * 5


def test_what_others_spent_or_gave_back_is_known_before_anybody_is_refused(dancer, tmp_path):
    Budgets(dancer).create("b", 0.07, "total")
    with TinyDancer(tmp_path / "store.db", clock=dancer._clock) as other:
        first, second = best(dancer), best(other)
        assert names_of([first, second]) == ["dear", "dear"]
        assert best(other).agent_name == "cheap"
        other.feedback(second, success=False, quality=0.9)
        # `dancer` last saw 0.03 of 0.07 used, and then that 0.032 are: both would do, and both are checked.
        assert best(dancer).agent_name == "dear"
        assert best(other).agent_name == "cheap"
        other.feedback(first, cost_usd=0.001)
        assert best(dancer).agent_name == "dear"


def test_nobody_is_refused_on_what_was_true_some_requests_ago(dancer, tmp_path):
    Budgets(dancer).create("b", 0.03, "total")
    first = best(dancer)
    with TinyDancer(tmp_path / "store.db", clock=dancer._clock) as other:
        with pytest.raises(NoMatchError):
            dancer.route(embedding=VECTOR, optimize_for="quality")
        other.feedback(first, success=False, quality=0.9)
        assert dancer.route(embedding=VECTOR, optimize_for="quality").agent_name == "dear"


def test_a_decision_is_made_again_when_others_were_faster(dancer, tmp_path):
    Budgets(dancer).create("b", 0.05, "total")
    with TinyDancer(tmp_path / "store.db", clock=dancer._clock) as other:
        asked = []
        reserve = dancer.store.reserve

        def slow(claims, reservations, now):
            asked.append(round(claims[0].amount_usd, 9))
            if len(asked) == 1:
                assert best(other).agent_name == "dear"
            return reserve(claims, reservations, now)

        dancer.store.reserve = slow
        assert best(dancer).agent_name == "cheap"
        assert asked == [0.03, 0.002]
    assert used(dancer) == (0.0, 0.032)


def test_a_budget_that_changes_while_it_is_decided_counts_as_it_is(dancer):
    Budgets(dancer).create("b", 0.05, "total")
    reserve, calls = dancer.store.reserve, []

    def late(claims, reservations, now):
        calls.append(claims)
        if len(calls) == 1:
            dancer.store.update_budget(dancer.store.get_budget("b").budget.updated({"amount_usd": 0.01}))
        if len(calls) == 2:
            dancer.store.delete_budget("b")
        return reserve(claims, reservations, now)

    dancer.store.reserve = late
    assert best(dancer).agent_name == "dear"  # the budget is gone by then
    assert [round(c[0].amount_usd, 9) for c in calls] == [0.03, 0.002]


def test_it_ends_where_others_are_always_faster(dancer):
    Budgets(dancer).create("b", 0.05, "total")
    reserve = dancer.store.reserve
    dancer.store.reserve = lambda claims, reservations, now: dataclasses.replace(
        reserve([claim._replace(used_at_most=-1.0) for claim in claims], [], now)
    )
    with pytest.raises(StoreLockedError, match="faster 200 times"):
        best(dancer)


def test_the_limits_behaviours(dancer):
    dancer.register_agent("free", "tool", [], 0.0, 100.0, 0.3)
    budgets = Budgets(dancer)
    budgets.create("b", 0.03, "total", on_limit="free")
    assert names_of(best(dancer) for _ in range(3)) == ["dear", "free", "free"]
    budgets.update("b", {"on_limit": "cheapest"})
    assert best(dancer).agent_name == "free"
    assert best(dancer, min_quality=0.7).agent_name == "cheap"
    assert used(dancer) == (0.0, 0.032)
    budgets.update("b", {"on_limit": "refuse"})
    assert best(dancer) is None
    dancer.record_outcomes([outcome("dear", cost_usd=1.0, occurred_at=START)])
    budgets.update("b", {"on_limit": "free"})
    assert best(dancer).agent_name == "free"  # far over the amount, and nothing is asked of it


def test_pacing_releases_money_with_the_time(dancer, clock):
    clock.now = START - START % 86_400
    Budgets(dancer).create("b", 0.24, "day", pacing="even", burst=0.125)
    assert names_of(best(dancer) for _ in range(2)) == ["dear", None]
    clock.now += 2 * 3600
    status = Budgets(dancer).get("b")
    assert (round(status.ceiling_usd, 9), round(status.remaining_usd, 9)) == (0.05, 0.02)
    assert best(dancer).agent_name == "cheap"
    clock.now += 12 * 3600
    assert names_of(best(dancer) for _ in range(5)) == ["dear"] * 4 + ["cheap"]


def test_a_decision_that_is_not_recorded_is_reserved_and_can_be_reported(clock, tmp_path):
    with TinyDancer(tmp_path / "s.db", clock=clock, settings=Settings(record_decisions=False)) as dancer:
        dancer.register_agent("dear", "llm", [], 0.03, 500.0, 0.95)
        assert best(dancer).decision_id is None
        Budgets(dancer).create("b", 0.1)
        first, second = best(dancer), best(dancer)
        assert dancer.list_decisions() == []
        assert used(dancer) == (0.0, 0.06)
        dancer.feedback(first, cost_usd=0.01)
        dancer.feedback(second.decision_id, cost_usd=0.02)
        assert used(dancer) == (0.03, 0.0)
        with pytest.raises(NotFoundError):
            dancer.feedback(second.decision_id)


def test_what_could_not_be_recorded_is_given_back(dancer):
    Budgets(dancer).create("b", 0.1)

    def full(rows):
        raise StoreError("No room is left.")

    record, dancer.store.insert_decisions = dancer.store.insert_decisions, full
    with pytest.raises(StoreError, match="No room"):
        best(dancer)
    assert used(dancer) == (0.0, 0.0)
    dancer.store.insert_decisions = record
    assert names_of(best(dancer) for _ in range(4)) == ["dear"] * 3 + ["cheap"]


def test_what_is_never_reported_is_given_back_in_time(dancer, clock):
    Budgets(dancer).create("b", 0.03, "total", release_after_s=60)
    assert best(dancer).agent_name == "dear"
    assert best(dancer) is None
    clock.now += 59
    assert best(dancer) is None
    clock.now += 1
    assert best(dancer).agent_name == "dear"
    clock.now -= 3600  # set back: nothing is given back early, and nobody is stuck for good
    assert best(dancer) is None
    clock.now += 7200
    assert best(dancer).agent_name == "dear"


def test_alerts_are_told_once_by_whoever_sees_them_first(dancer, tmp_path):
    told: list[tuple[str, float, float]] = []

    def tell(alert):
        told.append((alert.budget, alert.share, round(alert.used_usd, 9)))

    Budgets(dancer).create("b", 0.1, "total")
    with TinyDancer(tmp_path / "store.db", clock=dancer._clock) as other:
        dancer.on_budget_alert = other.on_budget_alert = tell
        made = [best(dancer), best(other)]
        assert told == [("b", 0.5, 0.06)]
        other.feedback(made[0], cost_usd=0.055)
        assert told[1:] == [("b", 0.8, 0.085)]
        dancer.record_outcomes([outcome("dear", cost_usd=0.5, occurred_at=START)])
        assert told[2:] == [("b", 1.0, 0.585)]
        other.update_agent_metrics("dear", 100.0)
        Budgets(dancer).update("b", {"amount_usd": 0.2})
    assert len(told) == 3
    assert [alert.share for alert in Budgets(dancer).alerts("1 hour")] == [1.0, 0.8, 0.5]


def test_an_alert_is_told_when_the_amount_is_made_smaller(dancer):
    told: list[float] = []
    dancer.on_budget_alert = lambda alert: told.append(alert.share)
    Budgets(dancer).create("b", 1.0, "total")
    best(dancer)
    Budgets(dancer).update("b", {"amount_usd": 0.035})
    assert told == [0.5, 0.8]


# -- many at once --------------------------------------------------------------------------------------------------


def test_a_batch_takes_what_is_left_in_order_or_nothing(dancer):
    Budgets(dancer).create("b", 0.064, "total")
    vectors = np.tile(VECTOR, (6, 1))
    with pytest.raises(NoMatchError, match="request number 5 of 6"):
        dancer.route_batch(embeddings=vectors, optimize_for="quality")
    assert used(dancer) == (0.0, 0.0)
    made = dancer.route_batch(embeddings=vectors, optimize_for="quality", on_no_match="null")
    assert names_of(made) == ["dear", "dear", "cheap", "cheap", None, None]
    assert used(dancer) == (0.0, 0.064)
    assert len({decision.decision_id for decision in made if decision}) == len(dancer.list_decisions()) == 4
    dancer.feedback(made[0], cost_usd=0.0)
    assert used(dancer) == (0.0, 0.034)
    assert names_of(dancer.route_batch(embeddings=vectors[:1], on_no_match="null", optimize_for="quality")) == ["dear"]


def test_a_plan_for_a_batch_keeps_to_the_budgets(dancer):
    dancer.register_agent("free", "tool", [], 0.0, 100.0, 0.2)
    vectors = np.tile(VECTOR, (10, 1))
    budgets = Budgets(dancer)
    budgets.create("b", 0.1, "total", on_limit="free")
    free_of_it = {"good_enough": 0.0}
    plan = assign_batch(dancer, embeddings=vectors, constraints=free_of_it, min_mean_quality=0.75)
    assert plan.cost_usd <= 0.1
    assert (plan.mean_quality or 0.0) >= 0.75
    assert used(dancer)[1] == pytest.approx(plan.cost_usd)
    left = 0.1 - plan.cost_usd
    with pytest.raises(
        RoutingError, match=r"A mean expected quality of 0\.94 costs .*; the budgets have left"
    ) as caught:
        assign_batch(dancer, embeddings=vectors, constraints=free_of_it, min_mean_quality=0.94)
    assert "Raise the budget" in caught.value.hint
    rest = assign_batch(dancer, embeddings=vectors, constraints=free_of_it, budget_remaining=5.0)
    assert rest.cost_usd <= left + 1e-9
    assert sum(used(dancer)) <= 0.1 + 1e-9
    assert None not in rest.decisions


def test_a_plan_that_no_budget_pays_for(dancer):
    vectors = np.tile(VECTOR, (10, 1))
    Budgets(dancer).create("b", 0.01, "total")
    with pytest.raises(NoMatchError, match="request number 6 of 10"):
        assign_batch(dancer, embeddings=vectors)
    plan = assign_batch(dancer, embeddings=vectors, on_no_match="null")
    assert names_of(plan.decisions) == ["cheap"] * 5 + [None] * 5
    assert used(dancer) == (0.0, 0.01)
    none = assign_batch(dancer, embeddings=vectors, on_no_match="null")
    assert (none.decisions, none.cost_usd) == ([None] * 10, 0.0)
    Budgets(dancer).update("b", {"on_limit": "cheapest"})
    assert names_of(assign_batch(dancer, embeddings=vectors).decisions) == ["cheap"] * 10
    assert used(dancer) == (0.0, 0.03)


def test_a_plan_keeps_to_an_agents_own_budget(dancer):
    Budgets(dancer).create("b", 0.065, "total", scope="agent", scope_value="dear")
    vectors = np.tile(VECTOR, (10, 1))
    plan = assign_batch(dancer, embeddings=vectors, min_mean_quality=0.75, budget_remaining=1.0)
    assert dict(plan.requests_per_agent).get("dear", 0) <= 2
    assert sum(used(dancer)) <= 0.065
    plan = assign_batch(dancer, embeddings=vectors, budget_remaining=1.0)
    assert dict(plan.requests_per_agent).get("dear", 0) <= 2
    assert sum(used(dancer)) <= 0.065


@pytest.mark.parametrize("strategy", ["parallel", "ensemble", "cascade", "pipeline"])
def test_a_team_keeps_to_the_budgets_and_reserves_all_it_may_ask(dancer, strategy):
    Budgets(dancer).create("b", 0.0341, "total")
    team = route_multi(dancer, "Plan a party.", 3, strategy)
    cost = sum(member.decision.estimated_cost or 0.0 for member in team.members)
    assert used(dancer) == (0.0, round(cost, 9))
    assert 0 < cost <= 0.0341
    for member in team.members:
        dancer.feedback(member.decision, cost_usd=0.001)
    assert used(dancer) == (round(0.001 * len(team.members), 9), 0.0)
    Budgets(dancer).update("b", {"amount_usd": 0.0})
    with pytest.raises(NoMatchError):
        route_multi(dancer, "Plan a party.", 3, strategy)


def test_a_cascade_that_could_not_be_paid_for_to_its_end_is_shorter(dancer):
    whole = route_multi(dancer, "Plan a party.", 2, "cascade", quality_target=0.9)
    assert [member.decision.agent_name for member in whole.members] == ["cheap", "dear"]
    assert (whole.estimated_cost or 0.0) < 0.0315
    Budgets(dancer).create("b", 0.0315, "total")
    team = route_multi(dancer, "Plan a party.", 2, "cascade", quality_target=0.9)
    assert [member.decision.agent_name for member in team.members] == ["dear"]
    assert used(dancer) == (0.0, 0.03)


def test_the_stages_of_a_pipeline_share_what_is_left(dancer):
    Budgets(dancer).create("b", 0.035, "total")
    team = route_multi(dancer, "Plan a party.", 3, "pipeline", optimize_for="quality")
    assert sorted(member.decision.agent_name for member in team.members) == ["cheap", "cheap", "dear"]
    with pytest.raises(NoMatchError, match=r"Stage number 1"):
        route_multi(dancer, "Plan a party.", 3, "pipeline", optimize_for="quality")
    Budgets(dancer).update("b", {"amount_usd": 0.095})
    team = route_multi(dancer, "Plan a party.", 3, "pipeline", optimize_for="quality", budget_remaining=0.033)
    assert [member.decision.agent_name for member in team.members] == ["cheap"] * 3
    assert used(dancer) == (0.0, 0.04)
    Budgets(dancer).update("b", {"amount_usd": 0.045})
    with pytest.raises(RoutingError, match="does not pay for"):
        route_multi(dancer, "Plan a party.", 3, "pipeline", optimize_for="quality")
    Budgets(dancer).update("b", {"amount_usd": 0.105, "scope": "agent", "scope_value": "dear"})
    with pytest.raises(RoutingError, match=r"than the budget 'b' has left \(\$0\.065\)"):
        route_multi(dancer, "Plan a party.", 3, "pipeline", optimize_for="quality")


def test_no_decision_under_a_budget_comes_from_the_cache(dancer):
    assert [dancer.route("Prove it.", "quality").agent_name for _ in range(2)] == ["dear"] * 2
    hits = dancer.cache_stats().hits
    Budgets(dancer).create("b", 0.05, "total")
    assert [dancer.route("Prove it.", "quality").agent_name for _ in range(3)] == ["dear", "cheap", "cheap"]
    Budgets(dancer).update("b", {"scope": "key", "scope_value": "k"})
    assert [dancer.route("Prove it.", "quality", key="k").agent_name for _ in range(2)] == ["cheap"] * 2
    assert dancer.cache_stats().hits == hits
    assert [dancer.route("Prove it.", "quality").agent_name for _ in range(2)] == ["dear"] * 2
    assert dancer.cache_stats().hits > hits
    assert dancer.route("Prove it.", "quality", key="k").agent_name == "cheap"  # not what was kept for others


def test_without_a_budget_nothing_is_asked_of_the_store(dancer):
    best(dancer)
    asked = []
    for name in ("list_budgets", "budget_uses", "reserve", "raise_alerts"):
        setattr(dancer.store, name, lambda *_, name=name, **__: asked.append(name))
    decision = best(dancer)
    dancer.route_batch(embeddings=np.tile(VECTOR, (3, 1)))
    dancer.feedback(decision, cost_usd=0.5)
    best(dancer)
    assert asked == []


def test_one_question_for_a_request_that_fits(dancer):
    Budgets(dancer).create("b", 10.0)
    best(dancer)
    asked: list[str] = []

    def counted(name):
        method = getattr(dancer.store, name)

        def call(*arguments, **named):
            asked.append(name)
            return method(*arguments, **named)

        return call

    for name in ("list_budgets", "budget_uses", "reserve", "raise_alerts"):
        setattr(dancer.store, name, counted(name))
    for _ in range(3):
        best(dancer)
    assert asked == ["reserve"] * 3


def test_a_file_that_cannot_be_written_keeps_to_the_limits(dancer, tmp_path, clock):
    Budgets(dancer).create("b", 0.05, "total")
    best(dancer)
    from tinydancer.errors import StoreReadOnlyError

    with TinyDancer(tmp_path / "store.db", clock=clock, settings=Settings(record_decisions=False)) as reader:

        def refuse(work, *, durable):
            raise StoreReadOnlyError("The store cannot be written.")

        reader.store._database.write = refuse  # type: ignore[attr-defined]
        for _ in range(3):
            decision = best(reader)
            assert (decision.agent_name, decision.decision_id) == ("cheap", None)
    assert used(dancer) == (0.0, 0.03)
