"""Sets and chains of agents: against all sets, against a simulation with a seed, and at their limits."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from scipy.stats import norm

from tinydancer.errors import RoutingError
from tinydancer.policy import ensembles
from tinydancer.policy.copula import Correlations, any_good
from tinydancer.policy.ensembles import cascade, diverse, ensemble, evaluate_cascade, similarities

DRAWS = 400_000


def pool(seed: int, size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    quality = rng.uniform(0.4, 0.95, size)
    cost = np.exp(rng.uniform(-9.0, -3.0, size))
    return quality, cost, [f"family {i % 3}" for i in range(size)]


# -- ensembles -----------------------------------------------------------------------------------------------------


def test_an_ensemble_is_not_the_top_k():
    """Two strong relatives answer alike; a weaker stranger saves more of what they miss."""
    quality = np.array([0.85, 0.84, 0.75])
    found = ensemble(quality, np.ones(3), ["a", "a", "b"], 2, correlations=Correlations(0.1, 0.9))
    assert found.members == (0, 2)
    assert found.quality == pytest.approx(any_good(quality[[0, 2]], ["a", "b"], Correlations(0.1, 0.9)))
    assert found.quality > any_good(quality[:2], ["a", "a"], Correlations(0.1, 0.9))
    strangers = ensemble(quality, np.ones(3), ["a", "b", "c"], 2, correlations=Correlations(0.1, 0.9))
    assert strangers.members == (0, 1)


def test_a_majority_leaves_out_who_would_spoil_it():
    quality = np.array([0.95, 0.6, 0.6])
    names = ["a", "b", "c"]
    assert ensemble(quality, np.ones(3), names, 3, combination="majority").members == (0,)
    even = ensemble(np.array([0.8, 0.8, 0.8]), np.ones(3), names, 3, combination="majority")
    assert even.members == (0, 1, 2)
    assert even.quality > 0.8


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("combination", ensembles.COMBINATIONS)
def test_growing_sets_comes_close_to_all_sets(seed, combination, monkeypatch):
    quality, cost, families = pool(seed, 9)
    budget = float(np.sort(cost)[:6].sum())
    best = ensemble(quality, cost, families, 4, budget_usd=budget, combination=combination)
    assert best.is_exact
    monkeypatch.setattr(ensembles, "MOST_SETS", 0)
    grown = ensemble(quality, cost, families, 4, budget_usd=budget, combination=combination)
    assert not grown.is_exact
    assert grown.cost_usd <= budget
    assert best.quality - 0.005 <= grown.quality <= best.quality + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_an_ensemble_keeps_to_its_budget(seed):
    quality, cost, families = pool(seed, 7)
    budget = 1.5 * float(np.median(cost))
    found = ensemble(quality, cost, families, 3, budget_usd=budget)
    worths = {
        s: any_good(quality[list(s)], [families[j] for j in s], Correlations())
        for size in (1, 2, 3)
        for s in itertools.combinations(range(7), size)
        if cost[list(s)].sum() <= budget
    }
    assert found.quality == pytest.approx(max(worths.values()), abs=1e-9)
    assert found.cost_usd <= budget


def test_what_costs_nothing_more_is_worth_nothing_more():
    """Among sets that are equally good the cheaper one is taken."""
    found = ensemble(np.array([0.8, 0.8]), np.array([2.0, 1.0]), ["a", "b"], 1)
    assert found.members == (1,)


def test_a_budget_that_pays_for_nobody_names_one_that_will_do():
    with pytest.raises(RoutingError, match="pays for none of 2 agents") as caught:
        ensemble(np.array([0.8, 0.9]), np.array([0.012345, 0.02]), ["a", "b"], 2, budget_usd=0.01)
    found = re.search(r"\$([0-9.]+)", caught.value.hint)
    assert found
    enough = ensemble(np.array([0.8, 0.9]), np.array([0.012345, 0.02]), ["a", "b"], 2, budget_usd=float(found[1]))
    assert enough.members == (0,)


# -- side by side --------------------------------------------------------------------------------------------------


def test_agents_side_by_side_differ():
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    alike = similarities(vectors, ["a", "a", "b", "c"])
    assert alike[0].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert alike[3].tolist() == [0.0, 0.0, 0.0, 0.5]  # it states nothing, and is its own relative
    quality = np.array([0.9, 0.89, 0.8, 0.5])
    assert diverse(quality, np.zeros(4), alike, 2).members == (0, 2)
    assert diverse(quality, np.zeros(4), np.zeros((4, 4)), 2).members == (0, 1)
    assert diverse(quality, np.zeros(4), alike, 9).members == (0, 1, 2, 3)
    # Diversity is worth so much quality, and no more.
    assert diverse(np.array([0.9, 0.89, 0.25, 0.2]), np.zeros(4), alike, 2).members == (0, 1)


def test_side_by_side_within_a_budget_there_may_be_fewer():
    quality, cost = np.array([0.9, 0.8, 0.7]), np.array([3.0, 2.0, 1.5])
    alike = np.zeros((3, 3))
    assert diverse(quality, cost, alike, 2, 4.0).members == (1, 2)
    assert diverse(quality, cost, alike, 2, 3.2).members == (0,)
    assert diverse(quality, cost, alike, 2, 3.5).members == (1, 2)


# -- cascades ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rho", "tau"), [(0.0, 0.5), (0.4, 0.5), (0.4, 0.9), (0.8, 0.2)])
def test_a_chain_is_worth_what_a_simulation_finds(rho, tau):
    quality, cost = np.array([0.6, 0.8, 0.93]), np.array([0.0004, 0.003, 0.03])
    thresholds = (0.8, 0.9)
    found = evaluate_cascade(quality, cost, (0, 1, 2), thresholds, correlation=rho, self_knowledge=tau)
    rng = np.random.default_rng(5)
    latent = math.sqrt(rho) * rng.normal(size=DRAWS) + math.sqrt(1.0 - rho) * rng.normal(size=(3, DRAWS))
    seen = math.sqrt(tau) * latent + math.sqrt(1.0 - tau) * rng.normal(size=(3, DRAWS))
    bars = norm.ppf(quality)[:, None]
    good = latent <= bars
    confidence = norm.cdf((bars - math.sqrt(tau) * seen) / math.sqrt(1.0 - tau))
    going, right, spent, reached = np.ones(DRAWS, bool), np.zeros(DRAWS), np.zeros(DRAWS), []
    for stage in range(3):
        reached.append(going.mean())
        spent += going * cost[stage]
        stands = confidence[stage] >= thresholds[stage] if stage < 2 else np.ones(DRAWS, bool)
        right += going & stands & good[stage]
        going = going & ~stands
    assert found.quality == pytest.approx(right.mean(), abs=4.0 * math.sqrt(0.25 / DRAWS))
    assert found.cost_usd == pytest.approx(spent.mean(), abs=4.0 * spent.std() / math.sqrt(DRAWS))
    assert found.reached == pytest.approx(reached, abs=4.0 * math.sqrt(0.25 / DRAWS))
    # The confidence is calibrated: of the answers of about that confidence, that share is good.
    for low in (0.3, 0.6, 0.9):
        about = (confidence[1] > low) & (confidence[1] < low + 0.05)
        assert good[1][about].mean() == pytest.approx(confidence[1][about].mean(), abs=0.01)


def test_a_chain_of_one_is_the_agent():
    found = evaluate_cascade(np.array([0.7]), np.array([0.01]), (0,), ())
    assert (found.cost_usd, found.thresholds) == (0.01, (0.0,))
    assert found.reached == pytest.approx((1.0,))
    assert found.quality == pytest.approx(0.7, abs=1e-6)


def test_the_cheapest_chain_for_a_quality():
    """Against a grid of chains and thresholds of its own, ten times as fine where the optimum lies."""
    quality, cost = np.array([0.7, 0.9]), np.array([0.001, 0.02])
    found = cascade(quality, cost, 2, target=0.88)
    assert found.members == (0, 1)
    assert found.quality >= 0.88
    assert found.cost_usd < 0.02
    tried = [evaluate_cascade(quality, cost, (0, 1), (t,)) for t in np.linspace(0.3, 0.999, 700)]
    best = min(chain.cost_usd for chain in tried if chain.quality >= 0.88)
    assert found.cost_usd == pytest.approx(best, rel=0.005)


@pytest.mark.parametrize("seed", range(6))
def test_a_chain_is_never_dearer_than_its_best_agent_alone(seed):
    quality, cost, _ = pool(seed, 8)
    found = cascade(quality, cost, 3)
    best = int(quality.argmax())
    assert found.quality >= quality[best] - 1e-6
    assert found.cost_usd <= cost[best] + 1e-12
    assert list(found.members) == sorted(found.members, key=lambda j: cost[j])
    assert found.reached[0] == pytest.approx(1.0)
    longer, shorter = (
        cascade(quality, cost, 3, target=0.9 * quality[best]),
        cascade(quality, cost, 1, target=0.9 * quality[best]),
    )
    assert longer.cost_usd <= shorter.cost_usd + 1e-12


def test_the_best_chain_for_a_budget():
    quality, cost = np.array([0.6, 0.9]), np.array([0.001, 0.02])
    found = cascade(quality, cost, 2, budget_usd=0.01)
    assert found.members == (0, 1)
    assert 0.6 < found.quality < 0.9
    assert found.cost_usd <= 0.01 * (1 + 1e-9)
    assert cascade(quality, cost, 2, budget_usd=0.0015).cost_usd <= 0.0015
    assert cascade(quality, cost, 2, budget_usd=1.0).quality >= 0.9 - 1e-6


def test_an_agent_that_another_beats_in_both_is_in_no_chain():
    found = cascade(np.array([0.7, 0.65, 0.9]), np.array([0.001, 0.002, 0.02]), 3, target=0.88)
    assert 1 not in found.members


def test_targets_and_budgets_that_cannot_be_name_what_can():
    quality, cost = np.array([0.6, 0.9]), np.array([0.001, 0.02])
    with pytest.raises(RoutingError, match=r"reach a quality of 0\.99") as caught:
        cascade(quality, cost, 2, target=0.99)
    found = re.search(r"the best reaches ([0-9.]+) for", caught.value.message)
    assert found
    assert cascade(quality, cost, 2, target=float(found[1])).quality >= float(found[1])
    with pytest.raises(RoutingError, match="pays for no chain") as caught:
        cascade(quality, cost, 2, target=0.88, budget_usd=0.002)
    found = re.search(r"to \$([0-9.]+),", caught.value.hint)
    assert found
    assert cascade(quality, cost, 2, target=0.88, budget_usd=float(found[1])).cost_usd <= float(found[1]) * (1 + 1e-9)
