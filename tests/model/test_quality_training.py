"""Training the quality model: its gradient against finite differences, its pieces by hand, and what it learns."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import ttest_rel
from sklearn.linear_model import LogisticRegression

from tests.quality import QUICK, SMALL_SPACE, hand_made_model, planted, sigma, unit
from tinydancer.errors import InvalidInputError, TinyDancerError
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.gradients import Weights, in_float64
from tinydancer.model.quality import AgentProfile
from tinydancer.model.quality_calibration import cost_head, excess_in_errors, platt, routing_loss, routing_losses
from tinydancer.model.quality_data import QualityData, QualityTrainingConfig
from tinydancer.model.quality_fitting import gradients, task_means
from tinydancer.model.quality_training import cross_fit, fit_quality_model, folds
from tinydancer.model.surface import SURFACE_DIM
from tinydancer.types import MINILM_SPACE, EmbeddingSpace

PAIR = [AgentProfile(name="even"), AgentProfile(name="odd")]


def data_of(quality, *, seed=0, dim=384, agents=None, **more):
    """Random requests with these qualities."""
    quality = np.asarray(quality, np.float32)
    n, count = quality.shape
    rng = np.random.default_rng(seed)
    surface = np.abs(rng.normal(1.0, 0.5, (n, SURFACE_DIM))).astype(np.float32)
    names = agents or tuple(f"agent {i}" for i in range(count))
    return QualityData(
        (unit(rng.normal(size=(n, dim))),), surface, quality, more.pop("cost_usd", np.full_like(quality, np.nan)),
        names, **more,
    )  # fmt: skip


def rows_of(data, rows):
    """Some rows of the data."""
    return QualityData(
        tuple(e[rows] for e in data.embeddings), data.surface[rows], data.quality[rows], data.cost_usd[rows],
        data.agents,
        *(None if part is None else part[rows] for part in (data.sources, data.tasks, data.groups)),
    )  # fmt: skip


def interval_of(model):
    assert model.interval is not None
    return model.interval


def routed(model, data, profiles=PAIR):
    """Mean quality of choosing by predicted quality, and of the best single agent."""
    chosen = model.predict(data.embeddings[0], data.surface, profiles).argmax(axis=1)
    return data.quality[np.arange(len(data)), chosen].mean(), data.quality.mean(axis=0).max()


# --- The gradient ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [1, 2])
def test_the_gradient_of_the_whole_loss_is_that_of_finite_differences(members):
    rng = np.random.default_rng(members)
    n, inputs, k, agents = 7, 5, 4, 3
    network = in_float64(FastGRNN(FastGRNNConfig(input_dim=inputs, hidden_dim=k, rank_u=1)))
    cell = {name: network.parameters[name] for name in ("w", "b")}
    parameters = cell | {
        "shared": np.zeros(k), "own": np.zeros((agents, k)), "bias": np.zeros((members, agents)),
        "source": np.zeros((members, 2, agents)),
    }  # fmt: skip
    for array in parameters.values():
        array[...] = rng.normal(0, 0.6, array.shape)
    centres: dict[str, Any] = {name: rng.normal(0, 0.3, parameters[name].shape) for name in ("w", "shared", "own")}
    centres["source"] = np.float64(0.0)
    penalties: dict[str, Any] = {"w": np.array([0.3, 0.3, 0.3, 0.1, 0.1]), "own": 0.2, "shared": 0.05, "source": 0.4}
    xs: Any = rng.normal(size=(n, inputs))
    sources = np.array([0, 1, 0, 0, 1, 0, 1])
    y: Any = rng.random((n, agents))
    weight: Any = (rng.random((n, agents)) < 0.7).astype(np.float64)

    def loss():
        """The formula of the module's docstring, per request, written out: each member has its own part of h."""
        p = parameters
        terms = xs @ p["w"].T
        h = (1.0 - sigma(terms + p["b"][0])) * np.tanh(terms + p["b"][1])
        total = 0.0
        for member in range(members):
            its = slice(member * k // members, (member + 1) * k // members)
            for r in range(n):
                for a in range(agents):
                    z = (p["shared"] + p["own"][a])[its] @ h[r, its]
                    z += p["bias"][member, a] + p["source"][member, sources[r], a]
                    total -= weight[r, a] * (y[r, a] * math.log(sigma(z)) + (1 - y[r, a]) * math.log(1 - sigma(z)))
        pull = sum(np.sum(penalties[name] * (p[name] - centres[name]) ** 2) for name in penalties)
        return total / n + 0.5 * pull

    grads = gradients(
        Weights(network.config, network.parameters), parameters, xs, sources, y, weight, penalties, centres
    )
    assert grads.keys() == parameters.keys()
    for name, array in parameters.items():
        numeric = np.empty_like(array)
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + 1e-6
            above = loss()
            array[index] = kept - 1e-6
            numeric[index] = (above - loss()) / 2e-6
            array[index] = kept
        np.testing.assert_allclose(grads[name], numeric, atol=1e-8, rtol=1e-6, err_msg=name)


# --- What it learns -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_file(tmp_path):
    data = planted(120)
    digests = []
    for number, config in enumerate([QUICK, QUICK, dataclasses.replace(QUICK, seed=1)]):
        model, _ = fit_quality_model(data, MINILM_SPACE, config=config)
        digests.append(model.save(tmp_path / f"{number}.safetensors"))
    assert digests[0] == digests[1] != digests[2]
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()


def test_it_learns_who_is_good_at_what():
    model, cross = fit_quality_model(planted(400), MINILM_SPACE, config=QUICK)
    fresh = planted(1000, seed=50)
    got, best_single = routed(model, fresh)
    assert best_single < 0.6
    assert got > best_single + 0.2  # agents are right 92% of the time on their side, and sides can nearly be told apart
    assert got > 0.8
    predicted = model.predict(fresh.embeddings[0], fresh.surface, PAIR)
    assert abs(predicted.mean() - fresh.quality.mean()) < 0.05, "calibrated"
    assert cross.logits.shape == (400, 2)
    assert np.isfinite(cross.logits).all()
    assert cross.losses[0] < 0.15


def test_where_there_is_nothing_to_learn_it_predicts_the_mean():
    rng = np.random.default_rng(1)
    noise = data_of((rng.random((400, 2)) < [0.8, 0.3]).astype(np.float32), seed=2, agents=("even", "odd"))
    model, _ = fit_quality_model(noise, MINILM_SPACE, config=QUICK)
    predicted = model.predict(*(lambda d: (d.embeddings[0], d.surface))(planted(500, seed=5)), PAIR)
    np.testing.assert_allclose(predicted.mean(axis=0), [0.8, 0.3], atol=0.08)
    assert predicted.std(axis=0).max() < 0.08


def test_an_agent_with_three_answers_stays_near_what_all_share():
    data = planted(400, agents=("a", "b", "c", "d"))
    # All four alike: good on one side; the last one answered three times, wrongly, there.
    alike = np.repeat(data.quality[:, :1], 4, axis=1)
    right = np.flatnonzero(alike[:, 0] == 1.0)
    alike[:, 3] = np.nan
    alike[right[:3], 3] = 0.0
    few = dataclasses.replace(data, quality=alike)
    model, _ = fit_quality_model(few, MINILM_SPACE, config=QUICK)
    shared = model.prior_mean
    own = model.abilities[:, :-1] - shared
    assert np.linalg.norm(own[3]) < 0.1 * np.linalg.norm(shared)
    predicted = model.predict(data.embeddings[0], data.surface, [AgentProfile(name=name) for name in "ad"])
    assert np.corrcoef(*predicted.T).min() > 0.95, "what is hard for the others is hard for it"


def test_graded_answers_are_learned_as_they_are():
    plain = planted(400)
    truth = np.where(plain.quality > 0, 0.7, 0.4).astype(np.float32)  # grades between, never 0 or 1
    model, _ = fit_quality_model(dataclasses.replace(plain, quality=truth), MINILM_SPACE, config=QUICK)
    fresh = planted(800, seed=51)
    predicted = model.predict(fresh.embeddings[0], fresh.surface, PAIR)
    assert ((predicted > 0.35) & (predicted < 0.75)).all()
    chosen = predicted.argmax(axis=1)
    assert fresh.quality[np.arange(800), chosen].mean() > 0.75
    reach = model.bars
    assert sigma(reach[7, 0]) > 0.9, "0.35 is always reached"
    assert sigma(reach[16, 0]) < 0.1, "0.8 never"


def test_gaps_do_not_hinder_it():
    data = planted(700)
    gaps = data.quality.copy()
    rng = np.random.default_rng(2)
    one = rng.integers(0, 2, 700)
    gaps[np.arange(700), one] = np.nan  # each request was answered by one agent only
    model, cross = fit_quality_model(dataclasses.replace(data, quality=gaps), MINILM_SPACE, config=QUICK)
    got, best_single = routed(model, planted(1000, seed=52))
    assert got > best_single + 0.15
    assert model.observed.tolist() == (~np.isnan(gaps)).sum(axis=0).tolist()
    assert np.isfinite(cross.logits).all()


def test_an_agent_without_an_answer_and_one_that_is_always_right():
    data = planted(200, agents=("even", "odd", "absent", "right"))
    quality = data.quality.copy()
    quality[:, 2], quality[:, 3] = np.nan, 1.0
    model, _ = fit_quality_model(dataclasses.replace(data, quality=quality), MINILM_SPACE, config=QUICK)
    assert model.observed.tolist() == [200.0, 200.0, 0.0, 200.0]
    profiles = [AgentProfile(name="right"), AgentProfile(name="absent", stated_quality=0.9)]
    predicted = model.predict(data.embeddings[0], data.surface, profiles)
    assert predicted[:, 0].mean() > 0.9
    assert (predicted[:, 0] < 1.0).all()
    assert predicted[:, 1].mean() == pytest.approx(0.9, abs=0.02), "nothing was seen of it: what is stated holds"


def test_all_embedders_of_a_space_are_learned():
    data = planted(400)
    turned = data.embeddings[0][:, ::-1].copy()  # what the other says is found elsewhere in the vector
    both = dataclasses.replace(data, embeddings=(data.embeddings[0], turned))
    model, _ = fit_quality_model(both, MINILM_SPACE, config=QUICK)
    for view in (0, 1):
        shown = dataclasses.replace(both, embeddings=(both.embeddings[view],))
        got, best_single = routed(model, shown)
        assert got > best_single + 0.15


def test_what_is_peculiar_to_a_source_is_not_learned_from_its_texts():
    """Two sources of different difficulty whose texts differ in length: length must not become the reason."""
    rng = np.random.default_rng(3)
    source = np.repeat([0, 1], 300)
    quality = (rng.random((600, 2)) < np.where(source == 0, 0.9, 0.2)[:, None]).astype(np.float32)
    plain = data_of(quality, seed=4, dim=4)
    surface = plain.surface.copy()
    surface[:, 0] = source + rng.normal(0, 0.1, 600)
    untold = dataclasses.replace(plain, surface=surface)
    config = dataclasses.replace(QUICK, penalty_source=0.1, members=1, min_steps=1500, max_steps=1500)
    gap = []
    for data in (dataclasses.replace(untold, sources=source), untold):
        logits = cross_fit(data, config, folds(data, config))
        gap.append(float(logits[source == 0].mean() - logits[source == 1].mean()))
    assert gap[1] > 2.0  # the truth is a difference of 3.6
    assert gap[0] < 0.75 * gap[1]


def test_prices_are_learned():
    data = planted(600, agents=tuple("abcdef"))
    cost = data.cost_usd.copy()
    cost[:, 5] = np.nan
    cost[::3, 0] = 0.0  # no price at all, rather than a free answer
    model, _ = fit_quality_model(dataclasses.replace(data, cost_usd=cost), MINILM_SPACE, config=QUICK)
    for agent in range(5):
        column = cost[:, agent]
        assert model.cost_usd[agent] == pytest.approx(np.nanmean(column[~(column == 0.0)]), rel=1e-5)
    assert math.isnan(model.cost_usd[5])
    phi = model.represent(data.embeddings[0], data.surface)
    assert model.cost_factors(phi, data.surface, data.agents)[:, 1].mean() == pytest.approx(1.0, abs=0.02)
    unpriced = dataclasses.replace(data, cost_usd=np.full_like(cost, np.nan))
    model, _ = fit_quality_model(unpriced, MINILM_SPACE, config=QUICK)
    assert np.isnan(model.cost_usd).all()
    assert (model.cost_factors(phi, data.surface, data.agents) == 1.0).all()


def test_dear_agents_that_are_better_teach_that_price_tells():
    rng = np.random.default_rng(5)
    skill = np.array([0.2, 0.4, 0.6, 0.8, 0.9])
    quality = (rng.random((300, 5)) < skill).astype(np.float32)
    cost = np.broadcast_to(np.geomspace(1e-4, 1e-2, 5), (300, 5)).astype(np.float32)
    model, _ = fit_quality_model(data_of(quality, cost_usd=cost), MINILM_SPACE, config=QUICK)
    assert model.quality_from_cost[1] > 0.3
    backwards = data_of(quality[:, ::-1].copy(), cost_usd=cost)
    model, _ = fit_quality_model(backwards, MINILM_SPACE, config=QUICK)
    assert model.quality_from_cost[1] == 0.0, "a line that falls would make the dearest the worst"


def test_costs_of_requests_are_learned():
    rng = np.random.default_rng(6)
    features = np.concatenate([rng.normal(size=(4000, 3)), np.ones((4000, 1))], axis=1)
    own = np.array([[1.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    usual = np.array([0.01, 0.001])
    cost = usual * np.exp(features[:, :3] @ own.T)
    cost[:1000, 1] = np.nan
    weights = cost_head(features, cost)
    assert weights.shape == (3, 4)
    np.testing.assert_allclose(weights[:2, :3], own, atol=0.05)
    factor = np.exp(features @ weights.T)
    np.testing.assert_allclose((factor[:, :2] * np.nanmean(cost, axis=0))[1000:], cost[1000:], rtol=0.15)
    assert not cost_head(features[:7], cost[:7]).any(), "too few to tell"


# --- Starting from a model ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base():
    return fit_quality_model(planted(400), MINILM_SPACE, config=QUICK)[0]


def test_a_huge_penalty_stays_at_the_start(base):
    backwards = planted(100, seed=9)
    flipped = dataclasses.replace(backwards, quality=1.0 - backwards.quality)
    strong = dataclasses.replace(QUICK, strengths=(1e6,))
    model, cross = fit_quality_model(flipped, MINILM_SPACE, config=strong, start=base)
    assert cross.strength == 1e6
    # Adam moves by about its learning rate however large the pull back, so it stays within a step or two.
    np.testing.assert_allclose(model.network.parameters["w"], base.network.parameters["w"], atol=20 * 2e-3)
    np.testing.assert_array_equal(model.surface_mean, base.surface_mean)
    np.testing.assert_array_equal(model.surface_scale, base.surface_scale)
    scale = model.prior_mean @ base.prior_mean / (base.prior_mean @ base.prior_mean)  # of the calibration
    np.testing.assert_allclose(model.abilities[:, :-1], scale * base.abilities[:, :-1], atol=0.01)


def test_little_data_refine_and_much_data_replace(base):
    fresh = planted(1000, seed=53)
    one_more, _ = fit_quality_model(planted(60, seed=10), MINILM_SPACE, config=QUICK, start=base)
    got, best_single = routed(one_more, fresh)
    assert got > best_single + 0.2
    alone, _ = fit_quality_model(planted(60, seed=10), MINILM_SPACE, config=QUICK)
    assert got >= routed(alone, fresh)[0] - 0.01
    much = planted(800, seed=11)
    turned, _ = fit_quality_model(
        dataclasses.replace(much, quality=1.0 - much.quality), MINILM_SPACE,
        config=dataclasses.replace(QUICK, epochs=40, max_steps=2000, strengths=(0.1,)), start=base,
    )  # fmt: skip
    got, best_single = routed(turned, dataclasses.replace(fresh, quality=1.0 - fresh.quality))
    assert got > best_single + 0.15


def test_a_start_is_left_only_where_the_data_show_that_it_pays(base):
    several = dataclasses.replace(QUICK, strengths=(0.3, 1.0, 30.0))
    # A few requests from where the start was trained: whatever is least by chance, nothing speaks against the start.
    _, stays = fit_quality_model(planted(60, seed=10), MINILM_SPACE, config=several, start=base)
    assert stays.strength == 30.0
    # Many requests that say the opposite.
    much = planted(400, seed=11)
    opposite = dataclasses.replace(much, quality=1.0 - much.quality)
    _, leaves = fit_quality_model(opposite, MINILM_SPACE, config=several, start=base)
    assert leaves.strength < 30.0
    assert min(leaves.losses) < leaves.losses[2]


def test_a_difference_of_means_is_measured_in_standard_errors():
    rng = np.random.default_rng(4)
    one = rng.random(400)
    other = one + rng.normal(0.01, 0.1, 400)
    paired = ttest_rel(other, one).statistic
    assert excess_in_errors(other, one) == pytest.approx(paired * math.sqrt(400 / 399), rel=1e-9)
    assert excess_in_errors(one, other) == pytest.approx(-excess_in_errors(other, one))
    assert excess_in_errors(one, one) == 0.0
    assert excess_in_errors(one + 0.5, one) > 1e9


def test_losses_of_requests_average_to_the_loss():
    rng = np.random.default_rng(5)
    logits, quality = rng.normal(size=(50, 3)), rng.random((50, 3)).astype(np.float32)
    quality[rng.random((50, 3)) < 0.4] = np.nan
    quality[:2, 1:] = np.nan  # answered once, by no more than one: they tell nobody apart
    losses = routing_losses(logits, quality)
    assert len(losses) == int(((~np.isnan(quality)).sum(axis=1) > 1).sum())
    assert losses.mean() == pytest.approx(routing_loss(logits, quality))
    alone = np.where(np.arange(3) == 0, quality, np.nan).astype(np.float32)
    assert len(routing_losses(logits, alone)) == int((~np.isnan(alone)).sum())


def test_agents_the_start_does_not_know_may_join(base):
    data = planted(300, agents=("new", "odd"), seed=12)
    model, _ = fit_quality_model(data, MINILM_SPACE, config=QUICK, start=base)
    got, best_single = routed(model, planted(1000, agents=("new", "odd"), seed=54), [AgentProfile(name="new"), PAIR[1]])
    assert got > best_single + 0.15


def test_a_start_that_does_not_fit_is_refused(base):
    data = planted(60)
    with pytest.raises(InvalidInputError, match=r"'other' with 384 dimensions|'all-MiniLM-L6-v2' with 384"):
        fit_quality_model(data, EmbeddingSpace("other", 384), config=QUICK, start=base)
    with pytest.raises(InvalidInputError, match=r"6 hidden units.* and 8"):
        fit_quality_model(data, MINILM_SPACE, config=dataclasses.replace(QUICK, hidden_dim=8), start=base)
    low_rank = hand_made_model(k=6, space=MINILM_SPACE)
    config = FastGRNNConfig(input_dim=384 + SURFACE_DIM, hidden_dim=6, rank_w=2, rank_u=1)
    compressed = dataclasses.replace(low_rank, network=FastGRNN(config))
    with pytest.raises(InvalidInputError, match="compressed"):
        fit_quality_model(data, MINILM_SPACE, config=QUICK, start=compressed)


# --- Calibration ----------------------------------------------------------------------------------------------------


def test_platt_is_a_logistic_regression():
    rng = np.random.default_rng(7)
    z = rng.normal(0.5, 1.5, 3000)
    y = (rng.random(3000) < sigma(0.6 * z - 0.4)).astype(np.float64)
    theirs = LogisticRegression(C=1e9).fit(z[:, None], y)
    scale, shift = platt(z, y, shrinkage=0.0)
    assert scale == pytest.approx(theirs.coef_[0, 0], abs=1e-4)
    assert shift == pytest.approx(theirs.intercept_[0], abs=1e-4)
    assert platt(z, y) == pytest.approx((0.6, -0.4), abs=0.1)


def test_platt_by_hand():
    """Predictions of 0 say nothing of the scale, which stays 1; the shift solves sum(sigma(b) - y) + 2.5 b = 0."""
    scale, shift = platt(np.zeros(8), np.array([1, 1, 1, 1, 1, 1, 0.5, 0.5]))
    assert scale == pytest.approx(1.0)
    assert 8 * sigma(shift) - 7.0 + 2.5 * shift == pytest.approx(0.0, abs=1e-9)
    assert platt(np.zeros(0), np.zeros(0)) == pytest.approx((1.0, 0.0))


@given(
    st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([0.1, 1.0, 5.0, 30.0]),
    st.sampled_from(["right", "wrong", "coin", "graded", "sign", "against"]),
)  # fmt: skip
def test_platt_finds_the_least_loss_whatever_comes(seed, n, spread, kind):
    rng = np.random.default_rng(seed)
    z = rng.normal(rng.normal(0, spread), spread, n)
    y = {
        "right": np.ones(n), "wrong": np.zeros(n), "coin": np.round(rng.random(n)), "graded": rng.random(n),
        "sign": (z > 0).astype(np.float64), "against": (z < 0).astype(np.float64),
    }[kind]  # fmt: skip

    def loss(theta):
        u = theta[0] * z + theta[1]
        return np.sum(np.logaddexp(0, u) - y * u) + 1.25 * ((theta[0] - 1.0) ** 2 + theta[1] ** 2)

    best = minimize(loss, [1.0, 0.0], method="L-BFGS-B", bounds=[(0.05, None), (None, None)])
    found = platt(z, y)
    assert found[0] >= 0.05
    assert loss(found) <= best.fun + 1e-4


def test_predictions_that_are_worth_nothing_become_the_mean():
    rng = np.random.default_rng(8)
    z = rng.normal(3.0, 2.0, 2000)
    y = (rng.random(2000) < sigma(1.5 - z)).astype(np.float64)  # the higher, the worse
    scale, shift = platt(z, y)
    assert scale == 0.05
    assert sigma(scale * z + shift).mean() == pytest.approx(y.mean(), abs=0.01)


def test_strengths_are_chosen_by_what_was_left_out():
    data = planted(300)
    config = dataclasses.replace(QUICK, strengths=(1e6, 1.0))
    model, cross = fit_quality_model(data, MINILM_SPACE, config=config)
    assert len(cross.losses) == 2
    assert cross.losses[1] < cross.losses[0]
    assert cross.strength == 1.0
    alone = fit_quality_model(data, MINILM_SPACE, config=QUICK)
    np.testing.assert_array_equal(model.abilities, alone[0].abilities)
    assert alone[1].losses == cross.losses[1:]


def test_how_much_of_task_means_is_chosen_by_what_was_left_out():
    # Answers are luck within a task, and tasks can be told apart by their vectors: the more of the mean, the better.
    rng = np.random.default_rng(3)
    tasks = rng.integers(0, 4, 240)
    chance = np.array([[0.9, 0.3], [0.3, 0.8], [0.6, 0.2], [0.2, 0.5]])[tasks]
    centres = np.random.default_rng(4).normal(size=(4, 384))
    data = dataclasses.replace(
        data_of((rng.random(chance.shape) < chance).astype(np.float32)),
        embeddings=(unit(centres[tasks] + 1.5 * rng.normal(size=(240, 384))),), tasks=tasks,
    )  # fmt: skip
    # The strengths out of order: the next weaker one is that of value, not of position.
    config = dataclasses.replace(QUICK, task_share=0.0, other_task_shares=(1.0,), strengths=(0.3, 0.03, 0.1))
    _, cross = fit_quality_model(data, MINILM_SPACE, config=config)
    assert cross.task_share == 1.0
    assert len(cross.losses) == 3
    assert cross.task_losses[0] == min(cross.losses)
    assert cross.task_losses[1] < cross.task_losses[0]
    fixed = dataclasses.replace(config, task_share=1.0, other_task_shares=(), strengths=(cross.strength,))
    alone = fit_quality_model(data, MINILM_SPACE, config=fixed)[1]
    assert alone.losses == cross.task_losses[1:]
    np.testing.assert_array_equal(alone.logits, cross.logits)
    # Without tasks there is nothing to choose.
    without = fit_quality_model(dataclasses.replace(data, tasks=None), MINILM_SPACE, config=config)[1]
    assert without.task_share == 0.0
    assert len(without.task_losses) == 1


def test_intervals_cover_what_was_left_out():
    model, _ = fit_quality_model(planted(400), MINILM_SPACE, config=QUICK)
    fresh = planted(2000, seed=55)
    low, high = interval_of(model).interval(model.predict(fresh.embeddings[0], fresh.surface, PAIR))
    covered = ((low <= fresh.quality) & (fresh.quality <= high)).mean()
    assert covered > 0.87  # 0.9 on average; this calibration set has 800 answers, so a standard deviation of 0.015


# --- Splits ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(2, 7), st.integers(7, 40))
def test_folds_cover_every_row_once_and_keep_groups_together(seed, count, n):
    groups = np.random.default_rng(seed).integers(0, max(count, n // 2), n)
    groups[:count] = np.arange(count)
    data = data_of(np.ones((n, 1)), dim=4, groups=groups)
    parts = folds(data, QualityTrainingConfig(folds=count, seed=seed))
    assert len(parts) == count
    tested = np.concatenate([test for _, test in parts])
    assert sorted(tested.tolist()) == list(range(n))
    for train, test in parts:
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(n))
        assert not set(groups[train].tolist()) & set(groups[test].tolist())
        assert test.size


def test_repeated_requests_are_not_predicted_by_a_model_that_saw_them():
    """Requests without any pattern, each twice: whoever splits them apart predicts them far too well."""
    rng = np.random.default_rng(9)
    half = data_of((rng.random((100, 2)) < 0.5).astype(np.float32), seed=9)
    twice = rows_of(half, np.tile(np.arange(100), 2))
    config = dataclasses.replace(
        QUICK, dropout=0.0, penalty_embedding=0.0, penalty_agent=0.0, epochs=100, max_steps=1500
    )
    losses = [
        fit_quality_model(dataclasses.replace(twice, groups=g), MINILM_SPACE, config=config)[1].losses[0]
        for g in (np.tile(np.arange(100), 2), None)
    ]
    by_chance = float(np.mean((half.quality - half.quality.mean(axis=1, keepdims=True)) ** 2))
    assert losses[0] > by_chance - 0.005
    assert losses[1] < losses[0] - 0.03


def test_large_data_are_predicted_in_part():
    data = planted(300)
    config = dataclasses.replace(QUICK, holdout_rows=299, folds=3)
    shares = []
    model, cross = fit_quality_model(
        data, MINILM_SPACE, config=config, progress=lambda share, what: shares.append(share)
    )
    predicted = ~np.isnan(cross.logits).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(predicted), folds(data, config)[0][1])
    assert np.isnan(cross.logits[~predicted]).all()
    assert interval_of(model).n == predicted.sum() * 2
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    got, best_single = routed(model, planted(1000, seed=56))
    assert got > best_single + 0.2


def test_progress_goes_from_nothing_to_all():
    told = []
    fit_quality_model(
        planted(100), MINILM_SPACE, config=dataclasses.replace(QUICK, strengths=(1.0, 2.0)),
        progress=lambda *report: told.append(report),
    )  # fmt: skip
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert 0.0 < shares[0] < 0.2
    assert shares[-1] == pytest.approx(1.0)
    assert {what for _, what in told} == {"cross-fitting", "training"}


def test_cross_fit_predicts_the_rows_it_is_told_to():
    data = planted(200)
    split = (np.arange(100), np.arange(100, 150))
    logits = cross_fit(data, QUICK, [split])
    assert np.isfinite(logits[100:150]).all()
    assert np.isnan(np.delete(logits, np.arange(100, 150), axis=0)).all()
    alone = rows_of(data, np.arange(150))
    np.testing.assert_array_equal(cross_fit(alone, QUICK, [split])[100:150], logits[100:150])


# --- Tasks ----------------------------------------------------------------------------------------------------------


def test_task_means_by_hand():
    nan = math.nan
    quality = np.array([[1, nan], [0, nan], [1, 0], [nan, 1], [1, 1]], np.float32)
    tasks, sources = np.array([0, 0, 1, 1, 2]), np.array([0, 0, 0, 0, 1])
    # Of agent 0 the mean over source 0 is 2/3, of agent 1 it is 1/2; both are 1 in source 1. Five answers' worth each.
    truth = [
        [(1 + 5 * 2 / 3) / 7, (0 + 5 / 2) / 5], [(1 + 5 * 2 / 3) / 7, 0.5], [(1 + 5 * 2 / 3) / 6, (1 + 5 / 2) / 7],
        [(1 + 5 * 2 / 3) / 6, (1 + 5 / 2) / 7], [1.0, 1.0],
    ]  # fmt: skip
    np.testing.assert_allclose(task_means(quality, tasks, sources), truth, rtol=1e-6)


def test_tasks_take_the_noise_out_of_targets():
    """Answers are coins of their task's bias; with tasks known, predictions come nearer to the biases."""
    rng = np.random.default_rng(10)
    tasks = rng.integers(0, 2, 150)
    centres = unit(rng.normal(size=(2, 384)))
    vectors = unit(centres[tasks] + 0.15 * rng.normal(size=(150, 384)))
    truth = np.array([[0.9, 0.3], [0.2, 0.7]])
    plain = data_of((rng.random((150, 2)) < truth[tasks]).astype(np.float32))
    off = []
    for told in (tasks, None):
        data = dataclasses.replace(plain, embeddings=(vectors,), tasks=told)
        config = dataclasses.replace(QUICK, task_share=0.9, folds=5)
        _, cross = fit_quality_model(data, MINILM_SPACE, config=config)
        off.append(float(np.mean((sigma(cross.logits) - truth[tasks]) ** 2)))
    assert off[0] < off[1]


# --- Bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quality": np.full((20, 2), np.nan, np.float32)}, "no answer was judged"),
        ({"quality": np.full((20, 2), 1.5, np.float32)}, r"Qualities range from 1\.5"),
        ({"quality": np.full((20, 2), -0.1, np.float32)}, r"expected \[0, 1\]"),
        ({"quality": np.full((20, 2), np.inf, np.float32)}, "Qualities range"),
        ({"quality": np.ones((19, 2), np.float32)}, "have the shapes"),
        ({"quality": np.ones((20, 3), np.float32)}, r"quality has shape \(20, 3\)"),
        ({"cost_usd": np.ones((20, 1), np.float32)}, "cost_usd has shape"),
        ({"cost_usd": np.full((20, 2), np.inf, np.float32)}, "cost is infinite"),
        ({"cost_usd": np.full((20, 2), -1.0, np.float32)}, "below 0"),
        ({"surface": np.ones((20, 3), np.float32)}, "surface has shape"),
        ({"surface": np.full((20, SURFACE_DIM), np.nan, np.float32)}, "surface feature is NaN"),
        ({"embeddings": ()}, "have the shapes"),
        ({"embeddings": (np.ones(20, np.float32),)}, "have the shapes"),
        ({"embeddings": (np.ones((20, 4), np.float32), np.ones((20, 5), np.float32))}, "have the shapes"),
        ({"embeddings": (np.ones((20, 4), np.float32), np.full((20, 4), np.nan, np.float32))}, "embedding is NaN"),
        ({"agents": ("a", "a")}, "names one twice"),
        ({"groups": np.arange(19)}, "groups has shape"),
        ({"tasks": np.full(20, -1)}, "tasks has shape"),
        ({"sources": np.zeros(21, np.intp)}, "sources has shape"),
    ],
)
def test_data_that_do_not_fit_are_refused(change, words):
    good = data_of(np.ones((20, 2)))
    with pytest.raises(InvalidInputError, match=words):
        dataclasses.replace(good, **change)


def test_no_requests_and_no_agents_are_refused():
    with pytest.raises(InvalidInputError, match="nothing to learn"):
        data_of(np.ones((0, 2)))
    with pytest.raises(InvalidInputError, match="nothing to learn"):
        data_of(np.ones((5, 0)))


def test_too_few_requests_are_refused():
    with pytest.raises(InvalidInputError, match="4 different requests; 5 folds"):
        fit_quality_model(data_of(np.ones((4, 2))), MINILM_SPACE)
    repeated = data_of(np.ones((20, 2)), groups=np.zeros(20, np.intp))
    with pytest.raises(InvalidInputError, match="1 different requests"):
        fit_quality_model(repeated, MINILM_SPACE)


def test_vectors_of_another_space_are_refused_before_the_work():
    with pytest.raises(InvalidInputError, match=r"384 dimensions; the space 'small' has 6"):
        fit_quality_model(planted(60), SMALL_SPACE, config=QUICK)


def test_one_class_and_one_agent_train_to_something_sensible():
    for value in (0.0, 1.0):
        model, _ = fit_quality_model(data_of(np.full((60, 1), value)), MINILM_SPACE, config=QUICK)
        data = planted(50, seed=57)
        predicted = model.predict(data.embeddings[0], data.surface, [AgentProfile(name="agent 0")])
        assert np.isfinite(predicted).all()
        assert abs(predicted - value).mean() < 0.15


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_dim": 0}, {"hidden_dim": 7, "members": 2}, {"members": 0}, {"folds": 1}, {"seed": -1}, {"seed": 1.5},
        {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"dropout": 1.0}, {"task_share": 1.1},
        {"other_task_shares": (-0.1,)},
        {"penalty_agent": -1.0}, {"strengths": ()}, {"strengths": (0.0,)}, {"strengths": (math.inf,)},
        {"batch_size": 0}, {"epochs": "many"},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(TinyDancerError):
        QualityTrainingConfig(**change)


def test_settings_are_json_ready():
    assert QualityTrainingConfig(seed=3).to_dict()["seed"] == 3
