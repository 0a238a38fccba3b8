"""The operating point: valid at every sample size, sharp enough to save, and honest where it cannot promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.risk_control.fwer_control import control_fwer
from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value

from tinydancer.errors import InvalidInputError, ModelError
from tinydancer.model.risk import STEPS, betting_p_value, cheapest_good_enough, find_operating_point
from tinydancer.policy import objectives

TARGET, DELTA = 0.95, 0.1


# -- the policies --------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]), st.booleans())
def test_the_policies_are_those_of_the_objective_cost(seed, share, per_request):
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, 6, (7, 4)) / 5  # many ties
    cost_usd = rng.choice([0.0, 1.0, 2.0, np.nan], (7, 4) if per_request else 4)
    everyone = np.ones((7, 4), np.bool_)
    keys = (objectives.known_first(np.broadcast_to(cost_usd, (7, 4))), np.zeros((7, 4)))
    expected = objectives.best(objectives.good_enough(everyone, predicted, share), keys)
    np.testing.assert_array_equal(cheapest_good_enough(predicted, cost_usd, share), expected)


# -- the test of one policy ----------------------------------------------------------------------------------------


def test_the_wealth_is_that_of_the_bets_one_by_one():
    rng = np.random.default_rng(1)
    gains = rng.choice([-0.95, 0.05, 1.0], 60, p=[0.1, 0.7, 0.2])
    # The definition, in plain Python: scaled to [0, 1], a running mean and variance with one imagined observation.
    zero = 0.95 / 1.95
    wealth = most = 1.0
    total, squares = 0.5, 0.25
    for t, gain in enumerate(gains):
        x = (gain + 0.95) / 1.95
        bet = min(math.sqrt(2 * math.log(1 / DELTA) / (60 * squares / (t + 1))), 0.75 / zero)
        wealth *= 1 + bet * (x - zero)
        most = max(most, wealth)
        total += x
        squares += (x - total / (t + 2)) ** 2
    assert 0.01 < 1 / most < 0.9
    assert betting_p_value(gains, low=-0.95, high=1.0, delta=DELTA) == pytest.approx(1 / most, rel=1e-9)


@pytest.mark.parametrize("n", [5, 40, 400])
@pytest.mark.parametrize(
    ("values", "chances"),
    [
        ([-0.95, 0.95], [0.5, 0.5]),
        ([-0.95, 0.05], [0.05, 0.95]),  # rare losses, whose absence looks like a gain
        ([-0.05, 0.95], [0.95, 0.05]),
        ([-0.95, 0.0, 0.05, 1.0], [0.1, 0.3, 0.55, 0.0675]),
    ],
)
def test_p_values_are_valid_on_the_boundary(n, values, chances):
    chances = np.array(chances) / np.sum(chances)
    values = np.array(values) - np.dot(values, chances)  # mean 0 exactly
    rng = np.random.default_rng([n, len(values)])
    trials = 2_000
    p_values = np.array(
        [
            betting_p_value(rng.choice(values, n, p=chances), low=values.min(), high=values.max(), delta=DELTA)
            for _ in range(trials)
        ]
    )
    for level in (0.02, 0.1, 0.3):
        assert (p_values <= level).mean() <= level + 3 * math.sqrt(level * (1 - level) / trials)
    assert p_values.min() > 0.0
    assert p_values.max() <= 1.0


def test_the_test_finds_what_is_there_and_the_papers_bound_does_not():
    # Of 400 answers, 4% are worse, 8% better, and the rest equal: a mean gain of 0.08. A bound that knows only the
    # range of the gains, 1.95, needs several times as many; that is why the bets, which see the spread, are used.
    rng = np.random.default_rng(2)
    gains = rng.choice([-0.95, 0.04, 1.0], 400, p=[0.04, 0.88, 0.08])
    assert betting_p_value(gains, low=-0.95, high=1.0, delta=DELTA) < 0.01
    loss = np.array([(1.0 - gains.mean()) / 1.95])
    assert compute_hoeffding_bentkus_p_value(loss, len(gains), 1.0 / 1.95)[0, 0] > 0.1


@given(st.lists(st.floats(-0.95, 1.0), min_size=1, max_size=40), st.floats(0.01, 0.5))
def test_p_values_are_between_0_and_1_and_losses_prove_nothing(gains, delta):
    gains = np.array(gains)
    assert 0.0 < betting_p_value(gains, low=-0.95, high=1.0, delta=delta) <= 1.0
    assert betting_p_value(-np.abs(gains) * 0.95, low=-0.95, high=1.0, delta=delta) == 1.0


# -- the walk ------------------------------------------------------------------------------------------------------


def rows(n: int, seed: int, *, noise: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and observed quality of three agents of growing ability, on requests of known difficulty."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0.0, 1.5, (n, 1))
    ability = np.array([0.0, 1.0, 2.0])
    truth = 1.0 / (1.0 + np.exp(difficulty - ability))
    predicted = 1.0 / (1.0 + np.exp(difficulty - ability + rng.normal(0.0, noise, (n, 3))))
    return predicted, (rng.random((n, 3)) < truth).astype(np.float64)


COST = np.array([1.0, 5.0, 20.0])


def margins(predicted: np.ndarray, observed: np.ndarray, cost_usd: np.ndarray) -> np.ndarray:
    """For each step of good_enough, from 1 downwards, mean gain over `TARGET` of the best single agent."""
    routed = np.stack(
        [
            observed[np.arange(len(observed)), cheapest_good_enough(predicted, cost_usd, step / STEPS)]
            for step in range(STEPS, -1, -1)
        ]
    )
    result: np.ndarray = routed.mean(axis=1) - TARGET * observed.mean(axis=0).max()
    return result


def plug_in(predicted: np.ndarray, observed: np.ndarray, cost_usd: np.ndarray) -> float:
    """The naive choice: the last step whose mean on these rows is above the target."""
    bad = np.flatnonzero(margins(predicted, observed, cost_usd) < 0.0)
    return (STEPS - (bad[0] - 1 if bad.size else STEPS)) / STEPS


def violated(share: float | None, truth: np.ndarray) -> bool:
    return share is not None and truth[STEPS - round(share * STEPS)] < 0.0


def certified(predicted, observed, cost_usd, **options) -> float | None:
    try:
        return find_operating_point(predicted, observed, cost_usd, **options).good_enough
    except ModelError:
        return None


def test_the_promise_holds_over_many_draws_and_the_naive_choice_breaks_it():
    truth = margins(*rows(200_000, 0), COST)
    draws = 200
    found, naive = [], []
    for seed in range(1, draws + 1):
        predicted, observed = rows(400, seed)
        found.append(certified(predicted, observed, COST, test_rows=0))
        naive.append(plug_in(predicted, observed, COST))
    broken = np.mean([violated(share, truth) for share in found])
    # At most delta, whatever the draw; three standard errors are allowed to chance.
    assert broken <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / draws)
    assert np.mean([violated(share, truth) for share in naive]) > 0.3
    # It is not kept by promising nothing: nearly always a point is found, and below the most careful one.
    shares = [share for share in found if share is not None]
    assert len(shares) > 0.95 * draws
    assert np.mean(shares) < 0.95


def test_the_promise_holds_where_every_step_is_on_the_boundary():
    # Both agents answer equally well whatever is predicted, but for the dearer one's advantage that makes the cheap one
    # worth exactly 95% less a hair: every policy that asks the cheap one at all fails by a hair.
    rng = np.random.default_rng(11)
    good = 0.8
    cheap = TARGET * good - 1e-9
    draws, broken = 300, 0
    for _ in range(draws):
        observed = (rng.random((300, 2)) < [cheap, good]).astype(np.float64)
        predicted = np.column_stack([np.full(300, 0.5), np.full(300, 1.0)])
        share = certified(predicted, observed, np.array([1.0, 10.0]), test_rows=0)
        broken += share is not None and share <= 0.5
    assert broken / draws <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / draws)


def test_by_default_the_mean_of_as_many_future_rows_is_promised_too():
    draws = 300
    broken = {0: 0, None: 0}
    for seed in range(draws):
        predicted, observed = rows(400, 2 * seed)
        truth = margins(*rows(400, 2 * seed + 1), COST)  # not the truth: the mean of 400 future rows
        for test_rows in broken:
            broken[test_rows] += violated(certified(predicted, observed, COST, test_rows=test_rows), truth)
    assert broken[None] / draws <= DELTA
    assert broken[None] < broken[0]


def test_fewer_future_rows_and_a_smaller_delta_ask_for_more_care():
    predicted, observed = rows(2_000, 5)
    shares = [
        certified(predicted, observed, COST, test_rows=test_rows, delta=delta)
        for test_rows, delta in ((0, 0.3), (0, 0.1), (None, 0.1), (300, 0.1), (300, 0.02))
    ]
    known = [share for share in shares if share is not None]
    assert len(known) == 5
    assert known == sorted(known)
    assert known[0] < known[-1]


def test_the_walk_is_the_fixed_sequence_of_mapie():
    for seed in range(20):
        predicted, observed = rows(500, 100 + seed)
        order = np.random.default_rng(3).permutation(500)
        p_values = []
        for step in range(STEPS, -1, -1):
            chosen = cheapest_good_enough(predicted, COST, step / STEPS)
            gains = observed[np.arange(500), chosen][:, None] - TARGET * observed
            p_values.append(max(betting_p_value(gains[order, a], low=-TARGET, high=1.0, delta=DELTA) for a in range(3)))
        rejected = control_fwer(np.array(p_values), DELTA, "fixed_sequence")
        share = certified(predicted, observed, COST, test_rows=0, seed=3)
        assert share == (STEPS - rejected[-1]) / STEPS


def test_what_is_reported_is_what_was_measured():
    predicted, observed = rows(3_000, 6)
    point = find_operating_point(predicted, observed, COST)
    chosen = cheapest_good_enough(predicted, COST, point.good_enough)
    routed = observed[np.arange(3_000), chosen]
    assert (point.n, point.test_rows, point.target_quality, point.delta) == (3_000, 3_000, 0.95, 0.1)
    assert point.best_single == 2
    assert point.best_single_quality == pytest.approx(observed[:, 2].mean())
    assert point.routed_quality == pytest.approx(routed.mean())
    assert point.relative_quality == pytest.approx(routed.mean() / observed[:, 2].mean())
    assert point.relative_cost == pytest.approx(COST[chosen].mean() / 20.0)
    np.testing.assert_allclose(point.agent_shares, np.bincount(chosen, minlength=3) / 3_000)
    assert 0.0 < point.p_value <= 0.1
    assert point.routed_quality - 0.05 < point.routed_quality_low < point.routed_quality
    assert point.to_dict()["agent_shares"] == list(point.agent_shares)


def test_the_lower_bound_covers():
    low = []
    truth = 0.9
    for seed in range(200):
        observed = (np.random.default_rng(seed).random((200, 1)) < truth).astype(np.float64)
        low.append(find_operating_point(np.ones((200, 1)), observed, [1.0]).routed_quality_low)
    assert np.mean(np.array(low) > truth) <= DELTA
    assert np.mean(low) > truth - 0.08


def test_the_order_of_the_rows_is_drawn_from_the_seed():
    predicted, observed = rows(600, 7)
    one = find_operating_point(predicted, observed, COST, seed=1)
    assert one == find_operating_point(predicted, observed, COST, seed=1)
    assert one.p_value != find_operating_point(predicted, observed, COST, seed=2).p_value


def test_costs_may_differ_by_request_and_be_unknown():
    predicted, observed = rows(2_000, 8)
    alike = find_operating_point(predicted, observed, np.tile(COST, (2_000, 1)))
    assert alike == find_operating_point(predicted, observed, COST)
    unknown = find_operating_point(predicted, observed, [1.0, 5.0, math.nan])
    assert unknown.good_enough == alike.good_enough
    assert unknown.relative_cost is None
    assert find_operating_point(predicted, observed, [0.0, 0.0, 0.0]).relative_cost is None


# -- refusals ------------------------------------------------------------------------------------------------------


def test_too_few_rows_are_refused_with_the_number_that_would_do():
    predicted, observed = rows(30, 9)
    with pytest.raises(ModelError, match="from 30 rows") as caught:
        find_operating_point(predicted, observed, COST)
    number = int(caught.value.hint.split(" rows")[0].split()[-1].replace(",", ""))
    assert 60 <= number <= 1_000
    # The estimate is no guess: that many rows are enough, or twice that many.
    enough = [certified(*rows(size, 10), COST) is not None for size in (number, 2 * number)]
    assert any(enough)


def test_a_model_that_chooses_badly_is_refused_however_many_rows():
    _, observed = rows(3_000, 11)
    against = np.tile([0.9, 0.5, 0.1], (3_000, 1))  # it always expects the worst agent to be the best
    with pytest.raises(ModelError, match="even the most careful routing") as caught:
        find_operating_point(against, observed, COST)
    assert "More rows will not help" in caught.value.hint


def test_a_target_at_what_is_reached_is_refused_as_too_near():
    observed = np.ones((500, 2))
    with pytest.raises(ModelError, match="cannot be promised") as caught:
        find_operating_point(np.ones((500, 2)), observed, [1.0, 2.0], target_quality=1.0)
    assert "More rows will not help" in caught.value.hint
    observed[:250, 0], observed[0, 0] = 0.999999, 1.0
    predicted = np.column_stack([np.zeros(500), np.ones(500)])
    with pytest.raises(ModelError, match="too near") as caught:
        find_operating_point(predicted, observed, [1.0, 2.0], target_quality=0.999999)
    assert "1,000,000" in caught.value.hint


@pytest.mark.parametrize(
    ("predicted", "observed", "cost_usd", "complaint"),
    [
        (np.ones((0, 2)), np.ones((0, 2)), [1, 2], "shape"),
        (np.ones((3, 2)), np.ones((2, 2)), [1, 2], "shape"),
        (np.ones(3), np.ones(3), [1], "shape"),
        (np.ones((3, 2)), np.ones((3, 2)), [1, 2, 3], "cost_usd has shape"),
        (np.full((3, 2), 1.1), np.ones((3, 2)), [1, 2], "predicted holds"),
        (np.ones((3, 2)), np.full((3, 2), -0.1), [1, 2], "observed holds"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), [1, 2], "predicted lacks"),
        (np.ones((3, 2)), np.full((3, 2), np.nan), [1, 2], "observed lacks"),
        (np.ones((3, 2)), np.ones((3, 2)), [1, -2], "negative"),
    ],
)
def test_bad_tables_are_refused(predicted, observed, cost_usd, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        find_operating_point(predicted, observed, cost_usd)


@pytest.mark.parametrize(
    "options",
    [{"target_quality": 0.0}, {"target_quality": 1.1}, {"delta": 0.0}, {"delta": 1.0}, {"test_rows": -1}],
)
def test_bad_promises_are_refused(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        find_operating_point(*rows(50, 0), COST, **options)
