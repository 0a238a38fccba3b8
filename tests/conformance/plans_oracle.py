"""A second opinion on teams, batches and a month's budget: every set and every assignment, one after another.

In: the steps of a scene, a function that embeds texts. Out: what each plan must answer, or what must hold of it where
an answer is found by search: the value of a chain is integrated anew and compared with other chains; an allocation is
held against the linear programme's dual. Plain Python; integrals by Simpson's rule over functions of ``math`` and
``statistics``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

from tests.conformance.cases import Case, Group
from tests.conformance.oracle import Embed, Expected, Oracle, dot
from tests.conformance.steering import Step

NORMAL = NormalDist()
ALIKE, RHO, RHO_FAMILY, TAU, GOOD_ENOUGH, USUAL_TOKENS = 0.3, 0.4, 0.7, 0.5, 0.7, 250.0
CLOSE, INTEGRAL = 1e-9, 2e-6
DAY_S, PERIOD_DAYS = 86_400.0, 30.0
ROLES = {1: ["carry out"], 2: ["carry out", "review"], 3: ["plan", "carry out", "review"]}
STAGES = {
    "plan": "Plan the steps of this task", "carry out": "Carry out this task",
    "review": "Review the result of this task and correct its mistakes",
}  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """No plan; ``figure`` is what the hint must name, to four digits."""

    code: str
    figure: float | None = None
    up: bool = True

    def require(self, answer: dict[str, Any]) -> None:
        assert answer.get("error", self.code) == self.code, (answer, self)
        assert "message" in answer, (answer, self)
        if self.figure is not None:
            assert _four_digits(self.figure, up=self.up) in answer["hint"], (answer["hint"], self)


Check = Callable[[dict[str, Any]], None]


class PlansOracle:
    """Follows one scene."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._agents: list[dict[str, Any]] = []
        self._outcomes: list[dict[str, Any]] = []
        self._routed: list[tuple[float, dict[str, Any], str]] = []
        self._tokens: list[float] = []

    def follow(self, step: Step, answer: dict[str, Any]) -> None:
        """Take a step; `AssertionError` if its answer is not right."""
        given = step.given
        match step.call:
            case "register":
                self._agents.append(given["config"])
            case "metrics":
                self._outcomes.append(given)
            case "route":
                self._routed.append((step.clock, given, answer["agent_name"]))
            case "team":
                self._team(answer, **given)
            case "assign":
                self._assign(answer, **given)
            case "optimize_budget":
                self._optimize(answer, step.clock, **given)

    @property
    def _oracle(self) -> Oracle:
        return Oracle(Group("", None, self._agents, self._outcomes, [], []), self._embed)

    def _expected(self, request: str | None, constraints: dict[str, Any], embedding: Any = None) -> Expected:
        given = {"request": request, "embedding": embedding, "constraints": constraints}
        return self._oracle.expected(Case("", "route", given, {}))

    def _decided(self, request: str, objective: str, constraints: dict[str, Any]) -> str | None:
        given = {"request": request, "objective": objective, "constraints": constraints}
        found = self._oracle.decide(Case("", "route", given, {}))
        return None if found is None else str(found["agent_name"])

    def _family(self, name: str) -> str:
        metadata = self._oracle.agents[name].fields.get("metadata") or {}
        for key in ("family", "provider"):
            if str(metadata.get(key) or "").strip():
                return f"{key} {metadata[key].strip().lower()}"
        return f"agent {name}"

    # -- batches ---------------------------------------------------------------------------------------------------

    def _assign(
        self, answer: dict[str, Any], requests: Any = None, embeddings: Any = None, constraints: Any = None
    ) -> None:
        limits = dict(constraints or {})
        floor, budget = limits.pop("min_mean_quality", None), limits.pop("budget_remaining", None)
        room, silent = limits.pop("capacities", {}), limits.pop("on_no_match", None) == "null"
        share = limits.get("good_enough") or GOOD_ENOUGH
        texts = [(text, None) for text in requests] if embeddings is None else [(None, row) for row in embeddings]
        tables = [self._expected(text, limits, row) for text, row in texts]
        if not silent and any(not table.allowed for table in tables):
            return Refusal("no_match").require(answer)
        served = [i for i, table in enumerate(tables) if table.allowed]
        if not served:
            return _equal(answer, {"agents": [None] * len(tables), "total_cost": 0, "mean_quality": None})
        payable = [[n for n in tables[i].allowed if tables[i].cost[n] is not None] for i in served]
        if any(not names for names in payable):
            return Refusal("routing_error").require(answer)
        if floor is None and budget is None:
            best = [max(tables[i].quality[n] for n in names) for i, names in zip(served, payable, strict=True)]
            floor = share * sum(best) / len(served)
        every = [
            (sum(tables[i].cost[n] or 0.0 for i, n in zip(served, names, strict=True)),
             sum(tables[i].quality[n] for i, n in zip(served, names, strict=True)) / len(served), names)
            for names in itertools.product(*payable)
            if all(names.count(name) <= most for name, most in room.items())
        ]  # fmt: skip
        if not every:
            return Refusal("routing_error").require(answer)
        fitting = [
            one for one in every
            if (budget is None or one[0] <= budget * (1 + CLOSE)) and (floor is None or one[1] >= floor - CLOSE)
        ]  # fmt: skip
        if not fitting:
            return self._refused(every, floor, budget).require(answer)
        if floor is not None:
            fitting.sort(key=lambda one: (one[0], -one[1]))
        else:
            fitting.sort(key=lambda one: (-one[1], one[0]))
        cost, quality, names = fitting[0]
        if floor is not None:
            near(answer["total_cost"], cost, 1e-9 * cost)
        assert answer["agents"].count(None) == len(tables) - len(served)
        chosen = tuple(answer["agents"][i] for i in served)
        (own,) = (one for one in every if one[2] == chosen)
        near(answer["mean_quality"], own[1], 1e-6)
        near(answer["total_cost"], own[0], 1e-9 * own[0])
        near(own[1] if floor is None else own[0], quality if floor is None else cost, 1e-9)
        tied = [
            one for one in fitting
            if (abs(one[0] - cost) <= 1e-7 * cost if floor is not None else abs(one[1] - quality) <= 1e-6)
        ]  # fmt: skip
        assert len(tied) > 1 or chosen == names, (chosen, names)
        return None

    @staticmethod
    def _refused(every: list[Any], floor: float | None, budget: float | None) -> Refusal:
        """What would do: the least money, or the most quality."""
        reaching = [cost for cost, quality, _ in every if floor is None or quality >= floor - CLOSE]
        if not reaching:
            return Refusal("routing_error", max(quality for _, quality, _ in every), up=False)
        assert budget is not None
        least = min(cost for cost, _, _ in every)
        return Refusal("routing_error", least if least > budget * (1 + CLOSE) else min(reaching))

    # -- teams -----------------------------------------------------------------------------------------------------

    def _team(
        self, answer: dict[str, Any], request: str, num_agents: int = 3, strategy: str = "pipeline",
        constraints: Any = None, options: Any = None,
    ) -> None:  # fmt: skip
        limits, options = dict(constraints or {}), dict(options or {})
        limits.pop("on_no_match", None)
        strategy = strategy.strip().lower()
        budget = limits.get("budget_remaining")
        if strategy == "pipeline":
            return self._pipeline(answer, request, num_agents, limits, options, budget)
        if strategy == "cascade":
            limits.pop("budget_remaining", None)
        if not self._agents:
            return Refusal("no_agents").require(answer)
        table = self._expected(request, limits)
        if not table.allowed:
            return Refusal("no_match").require(answer)
        names = [n for n in table.allowed if table.cost[n] is not None or (budget is None and strategy != "cascade")]
        if not names:
            return Refusal("routing_error").require(answer)
        if strategy == "cascade":
            return self._cascade(answer, table, names, num_agents, options, budget)
        known = {n: table.cost[n] or 0.0 for n in names}
        spend = math.inf if budget is None else budget
        payable = [n for n in names if known[n] <= spend]
        if not payable:
            return Refusal("routing_error", min(known.values())).require(answer)
        sets = [
            members
            for size in range(1, min(num_agents, len(payable)) + 1)
            for members in itertools.combinations(payable, size)
            if sum(known[n] for n in members) <= spend * (1 + 1e-12)
        ]
        if strategy == "parallel":
            most = max(len(members) for members in sets)
            sets = [members for members in sets if len(members) == most]
            worth = {members: self._apart(table, members) for members in sets}
        else:
            across, family = options.get("correlation", RHO), options.get("family_correlation")
            shared = (across, max(across, RHO_FAMILY) if family is None else family)
            good = any_good if options.get("combination", "best_of_n") == "best_of_n" else majority_good
            worth = {members: good([(table.quality[n], self._family(n)) for n in members], *shared) for members in sets}
        ranked = sorted(sets, key=lambda members: (-round(worth[members], 7), sum(known[n] for n in members), members))
        best = ranked[0]
        for other in ranked[1:]:
            gap = abs(worth[other] - worth[best])
            assert gap == 0.0 or gap > 2 * INTEGRAL, f"{best} and {other} differ by {gap:.2g}: choose another case"
        ordered = sorted(best, key=lambda n: (-table.quality[n], n))
        self._members(answer, [(n, table) for n in ordered])
        whole = sum(table.quality[n] for n in best) / len(best) if strategy == "parallel" else worth[best]
        near(answer["combined_quality"], whole, INTEGRAL)
        role = "candidate" if options.get("combination", "best_of_n") == "best_of_n" else "voter"
        role = "independent" if strategy == "parallel" else role
        assert {member["role"] for member in answer["members"]} == {role}
        costs = [table.cost[n] for n in best]
        near(answer["combined_cost"], None if None in costs else sum(c for c in costs if c is not None), 1e-12)
        times = [table.latency[n] for n in best]
        near(answer["combined_latency_ms"], None if None in times else max(t for t in times if t is not None), 1e-6)
        assert answer["is_optimal"] is True
        return None

    def _apart(self, table: Expected, members: tuple[str, ...]) -> float:
        """Quality less what pairs have in common."""
        pairs = 0.0
        for one, other in itertools.combinations(members, 2):
            vectors = [self._oracle.agents[n].vector for n in (one, other)]
            cosine = 0.0 if None in vectors else dot(*(v for v in vectors if v is not None))
            pairs += 0.5 * min(1.0, max(0.0, cosine)) + 0.5 * (self._family(one) == self._family(other))
        return sum(table.quality[n] for n in members) - 2.0 * ALIKE * pairs / max(len(members) - 1, 1)

    def _members(self, answer: dict[str, Any], expected: Sequence[tuple[str, Expected]]) -> None:
        assert [member["agent_name"] for member in answer["members"]] == [name for name, _ in expected]
        for member, (name, table) in zip(answer["members"], expected, strict=True):
            near(member["expected_quality"], table.quality[name], 1e-6)
            near(member["similarity_score"], table.match[name], 1e-6)
            near(member["estimated_cost"], table.cost[name], 1e-12)
            near(member["estimated_latency_ms"], table.latency[name], 1e-6)

    def _pipeline(
        self, answer: dict[str, Any], request: str, count: int, limits: dict[str, Any], options: dict[str, Any],
        budget: float | None,
    ) -> None:  # fmt: skip
        named = options.get("stages")
        stages: list[tuple[str, str, list[str]]]
        if named is None:
            stages = [(role, f"{STAGES[role]}: {request}", []) for role in ROLES[count]]
        else:
            stages = [_stage(number, stage, request) for number, stage in enumerate(named, start=1)]
        if not self._agents:
            return Refusal("no_agents").require(answer)
        objective = options.get("optimize_for", "balanced")
        tables, chosen = [], []
        for _, text, needs in stages:
            own = {**limits, "required_capabilities": [*limits.get("required_capabilities", []), *needs]}
            name = self._decided(text, objective, own)
            if name is None:
                return Refusal("no_match").require(answer)
            tables.append(self._expected(text, own))
            chosen.append(name)
        costs = [table.cost[n] for table, n in zip(tables, chosen, strict=True)]
        if budget is not None and sum(c or 0.0 for c in costs) > budget * (1 + CLOSE):
            ways = itertools.product(*([n for n in t.allowed if t.cost[n] is not None] for t in tables))
            every = [
                (sum(t.cost[n] or 0.0 for t, n in zip(tables, names, strict=True)),
                 sum(t.quality[n] for t, n in zip(tables, names, strict=True)), names)
                for names in ways
            ]  # fmt: skip
            fitting = [one for one in every if one[0] <= budget * (1 + CLOSE)]
            if not fitting:
                return Refusal("routing_error", min(one[0] for one in every)).require(answer)
            fitting.sort(key=lambda one: -one[1])
            assert len(fitting) == 1 or fitting[0][1] - fitting[1][1] > 1e-6, "two are as good: choose another case"
            chosen = list(fitting[0][2])
            costs = [table.cost[n] for table, n in zip(tables, chosen, strict=True)]
        self._members(answer, list(zip(chosen, tables, strict=True)))
        assert [member["role"] for member in answer["members"]] == [role for role, _, _ in stages]
        near(answer["combined_cost"], None if None in costs else sum(c for c in costs if c is not None), 1e-12)
        times = [table.latency[n] for table, n in zip(tables, chosen, strict=True)]
        near(answer["combined_latency_ms"], None if None in times else sum(t for t in times if t is not None), 1e-6)
        across = options.get("correlation", RHO)
        family = options.get("family_correlation", max(across, RHO_FAMILY))
        agents = [(table.quality[n], self._family(n)) for table, n in zip(tables, chosen, strict=True)]
        near(answer["combined_quality"], all_good(agents, across, family), INTEGRAL)
        return None

    def _cascade(
        self, answer: dict[str, Any], table: Expected, names: list[str], count: int, options: dict[str, Any],
        budget: float | None,
    ) -> None:  # fmt: skip
        rho, tau = options.get("correlation", RHO), options.get("self_knowledge", TAU)
        cost = {n: table.cost[n] or 0.0 for n in names}
        target = options.get("quality_target")
        wanted = target or 0.0
        if target is None:
            wanted = 0.0 if budget is not None else max(table.quality[n] for n in names) - 1e-6
        coarse = self._coarse(table, names, cost, count, rho, tau)
        if "members" not in answer:
            assert answer.get("error", "routing_error") == "routing_error"
            reaching = [one for one in coarse if one[0] >= wanted]
            assert not any(budget is None or one[1] <= budget for one in reaching), "a chain would do"
            return
        members = [member["agent_name"] for member in answer["members"]]
        thresholds = [member["escalate_below"] for member in answer["members"]]
        assert thresholds[-1] is None
        assert sorted(members, key=lambda n: cost[n]) == members
        assert 1 <= len(members) <= min(count, 3)
        quality, spent, reached = chain_of([table.quality[n] for n in members], thresholds[:-1], rho, tau,
                                           [cost[n] for n in members], fine=True)  # fmt: skip
        self._members(answer, [(n, table) for n in members])
        near(answer["combined_quality"], quality, INTEGRAL)
        near(answer["combined_cost"], spent, 1e-5 * spent + 1e-12)
        for member, share in zip(answer["members"], reached, strict=True):
            near(member["reached"], share, INTEGRAL)
        times = [table.latency[n] for n in members]
        total = None if None in times else sum((t or 0.0) * r for t, r in zip(times, reached, strict=True))
        near(answer["combined_latency_ms"], total, 1e-2)
        assert quality >= wanted - 5e-6
        assert budget is None or spent <= budget * (1 + 1e-5)
        for other_quality, other_cost in coarse:
            if budget is not None and target is None:
                assert other_cost > budget or other_quality <= quality + 1e-4, "a better chain within the budget"
            elif other_quality >= wanted + 1e-4 and (budget is None or other_cost <= budget):
                assert other_cost >= spent * (1 - 1e-3), "a cheaper chain that reaches the target"

    def _coarse(
        self, table: Expected, names: list[str], cost: dict[str, float], count: int, rho: float, tau: float
    ) -> list[tuple[float, float]]:
        """(quality, cost) of chains of one and two agents under a few thresholds."""
        found = [(table.quality[n], cost[n]) for n in names]
        if count > 1:
            for one, other in itertools.permutations(names, 2):
                if cost[one] <= cost[other]:
                    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
                        pair = [table.quality[one], table.quality[other]]
                        quality, spent, _ = chain_of(pair, [threshold], rho, tau, [cost[one], cost[other]], fine=False)
                        found.append((quality, spent))
        return found

    # -- a month's budget ------------------------------------------------------------------------------------------

    def _optimize(
        self, answer: dict[str, Any], now: float, monthly_budget: float, quality_threshold: float = 0.8,
        latency_threshold_ms: float = 5000.0, requests_per_month: float | None = None,
    ) -> None:  # fmt: skip
        agents = dict(sorted(self._oracle.agents.items()))
        if not agents:
            return Refusal("no_agents").require(answer)
        usual = {n: facts.cost(USUAL_TOKENS, 0.0, None) for n, facts in agents.items()}
        fit = [
            n for n, facts in agents.items()
            if facts.fields.get("is_active", True) and facts.latency_ms is not None
            and facts.latency_ms <= latency_threshold_ms and usual[n] is not None
        ]  # fmt: skip
        if not fit:
            Refusal("no_match").require(answer)
            return None if "exclusions" not in answer else _equal(list(answer["exclusions"]), list(agents))
        quality = {n: agents[n].quality for n in agents}
        rows = [
            (given, tokens) for (at, given, _), tokens in zip(self._routed, self._token_counts(), strict=True)
            if now - at <= PERIOD_DAYS * DAY_S
        ]  # fmt: skip
        tables = []
        for given, tokens in rows:
            limits = given.get("constraints") or {}
            kept = {k: v for k, v in limits.items() if k in ("required_capabilities", "excluded_agents")}
            able = [n for n in fit if self._oracle._is_candidate(agents[n], kept)]
            if able:
                tables.append({n: (quality[n], agents[n].cost(tokens, 0.0, None) or 0.0) for n in able})
        if "message" not in answer:
            _equal(answer["observed_decisions"], len(rows))
            _equal(sorted(answer["excluded"]), sorted(set(agents) - set(fit)))
            _equal(answer["period_days"], 30)
        if not tables and requests_per_month is None:
            return self._uniform(answer, fit, quality, usual, monthly_budget, quality_threshold)
        if tables:
            first = min(at for at, given, _ in self._routed if now - at <= PERIOD_DAYS * DAY_S)
            days = max((now - first) / DAY_S, 1.0)
            requests = requests_per_month or len(tables) / days * PERIOD_DAYS
        else:
            requests = requests_per_month or 0.0
            tables = [{n: (quality[n], usual[n] or 0.0) for n in fit}]
        return self._allocation(answer, tables, requests, monthly_budget, quality_threshold)

    def _token_counts(self) -> list[float]:
        for _, given, _ in self._routed[len(self._tokens) :]:
            text = given.get("request")
            self._tokens.append(100.0 if text is None else self._embed(text)[1])
        return self._tokens

    @staticmethod
    def _uniform(
        answer: dict[str, Any], fit: list[str], quality: dict[str, float], usual: dict[str, float | None],
        budget: float, threshold: float,
    ) -> None:  # fmt: skip
        good = [n for n in fit if quality[n] >= threshold] or fit
        per_round = sum(usual[n] or 0.0 for n in good)
        rounds = budget / per_round if per_round else 0.0
        _equal(sorted(answer["allocations"]), sorted(good))
        for name in good:
            near(answer["allocations"][name], (usual[name] or 0.0) * rounds, 1e-9 * budget)
            near(answer["shares"][name], 1.0 / len(good), 1e-12)
        mean = sum(quality[n] for n in good) / len(good)
        near(answer["expected_quality"], mean, 1e-9)
        near(answer["requests_per_month"], rounds * len(good), 1e-6 * max(rounds, 1.0))
        _equal(answer["meets_threshold"], mean >= threshold - 1e-9)
        _equal(answer["observed_decisions"], 0)
        assert "No traffic is recorded" in answer["assumption"]

    @staticmethod
    def _allocation(
        answer: dict[str, Any], tables: list[dict[str, tuple[float, float]]], requests: float, budget: float,
        threshold: float,
    ) -> None:  # fmt: skip
        scale = requests / len(tables)
        least = sum(min(cost for _, cost in table.values()) for table in tables) * scale
        if least > budget * (1 + CLOSE):
            return Refusal("routing_error", least).require(answer)
        most = max(q for table in tables for q, _ in table.values())
        low = min(q for table in tables for q, _ in table.values())
        copies = max(1, -(-1000 // len(tables)))
        step = (most - low) / (copies * len(tables))
        best = _dual([list(table.values()) for table in tables], budget / scale) / len(tables)
        assert best - step - 1e-9 <= answer["expected_quality"] <= best + 1e-9, (answer["expected_quality"], best)
        assert answer["expected_quality"] + answer["quality_gap"] >= best - 1e-9
        near(sum(answer["shares"].values()), 1.0, 1e-9)
        spent = sum(answer["allocations"].values())
        near(answer["expected_spend"], spent, 1e-9 * budget)
        assert spent <= budget * (1 + 1e-9)
        near(answer["requests_per_month"], requests, 1e-6 * requests)
        _equal(answer["meets_threshold"], answer["expected_quality"] >= threshold - 1e-9)
        reach = sum(max(q for q, _ in table.values()) for table in tables) / len(tables)
        if threshold > reach:
            assert answer["cheapest_budget"] is None
        else:
            swapped = [[(-cost, -quality) for quality, cost in table.values()] for table in tables]
            needed = -_dual(swapped, -threshold * len(tables)) * scale
            dearest = max(cost for table in tables for _, cost in table.values()) * scale / copies
            assert needed * (1 - 1e-9) - 1e-12 <= answer["cheapest_budget"] <= needed + dearest + 1e-9
        return None


def _dual(rows: Sequence[Sequence[tuple[float, float]]], limit: float) -> float:
    """The most of the first figure that uses at most the limit of the second: the least value of the dual."""
    prices = {0.0}
    for row in rows:
        for (v, c), (w, d) in itertools.combinations(row, 2):
            if c != d and (v - w) / (c - d) > 0.0:
                prices.add((v - w) / (c - d))
    return min(price * limit + sum(max(v - price * c for v, c in row) for row in rows) for price in prices)


def _stage(number: int, stage: Any, request: str) -> tuple[str, str, list[str]]:
    if isinstance(stage, str):
        return stage[:60], stage, []
    needs = stage.get("required_capabilities", [])
    role = stage.get("role") or (", ".join(needs) if needs else f"stage {number}")
    return role[:60], stage.get("text") or f"{role}: {request}", needs


# -- what several agents get right together: a Gaussian copula -----------------------------------------------------

Agents = Sequence[tuple[float, str]]
"""Probability of a good answer, and family."""


@cache
def _nodes(half: int) -> list[tuple[float, float]]:
    """Simpson's rule over a standard normal, from -7 to 7."""
    width = 7.0 / half
    found = []
    for i in range(-half, half + 1):
        x = i * width
        weight = (1.0 if abs(i) == half else 4.0 if (i + half) % 2 else 2.0) * width / 3.0
        found.append((x, weight * math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)))
    return found


def _cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def _quantile(p: float) -> float:
    return NORMAL.inv_cdf(min(1.0 - 1e-9, max(1e-9, p)))


@cache
def _counts_of(qualities: tuple[float, ...], across: float, family: float) -> list[list[float]]:
    """For each node of the request's difficulty the probabilities of 0, 1, ... good answers within a family."""
    bars = [_quantile(q) for q in qualities]
    found = []
    for z, _ in _nodes(100):
        own = [0.0] * (len(bars) + 1)
        shared = _nodes(40) if len(bars) > 1 else [(0.0, 1.0)]
        spread, between = (1.0 - family, family - across) if len(bars) > 1 else (1.0 - across, 0.0)
        for f, weight in shared:
            counts = [1.0]
            for bar in bars:
                p = _cdf((bar - math.sqrt(across) * z - math.sqrt(between) * f) / math.sqrt(spread))
                counts = [
                    (counts[k] * (1.0 - p) if k < len(counts) else 0.0) + (counts[k - 1] * p if k else 0.0)
                    for k in range(len(counts) + 1)
                ]
            own = [total + weight * share for total, share in zip(own, counts, strict=True)]
        found.append(own)
    return found


def _distribution(agents: Agents, across: float, family: float) -> list[float]:
    families: dict[str, list[float]] = {}
    for quality, name in agents:
        families.setdefault(name, []).append(quality)
    columns = [_counts_of(tuple(sorted(members)), across, family) for members in families.values()]
    total = [0.0] * (len(agents) + 1)
    for row, (_, weight) in enumerate(_nodes(100)):
        counts = [1.0]
        for column in columns:
            mine = column[row]
            counts = [
                sum(counts[i] * mine[k - i] for i in range(len(counts)) if 0 <= k - i < len(mine))
                for k in range(len(counts) + len(mine) - 1)
            ]
        total = [sum_ + weight * share for sum_, share in zip(total, counts, strict=True)]
    return total


def any_good(agents: Agents, across: float, family: float) -> float:
    """At least one."""
    return 1.0 - _distribution(agents, across, family)[0]


def all_good(agents: Agents, across: float, family: float) -> float:
    """Every one."""
    return _distribution(agents, across, family)[-1]


def majority_good(agents: Agents, across: float, family: float) -> float:
    """More than half, and half of an even split."""
    counts, size = _distribution(agents, across, family), len(agents)
    return sum(counts[size // 2 + 1 :]) + (0.5 * counts[size // 2] if size % 2 == 0 else 0.0)


@cache
def _stage_of(quality: float, threshold: float | None, rho: float, tau: float, half: int) -> list[tuple[float, float]]:
    """For each node of the difficulty: P(the answer stands), P(it stands and is good)."""
    bar = _quantile(quality)
    found = []
    for z, _ in _nodes(half):
        centre, spread = math.sqrt(rho) * z, math.sqrt(1.0 - rho)
        if threshold is None:
            found.append((1.0, _cdf((bar - centre) / spread)))
            continue
        seen = (bar - math.sqrt(1.0 - tau) * _quantile(threshold)) / math.sqrt(tau)
        stands = _cdf((seen - math.sqrt(tau) * centre) / math.sqrt(1.0 - tau * rho))
        # Over what is the agent's own in the latent quality, up to where the answer is good.
        high = min(max((bar - centre) / spread, -7.0), 7.0)
        steps = 2 * half
        width = (high + 7.0) / steps
        both = 0.0
        for i in range(steps + 1):
            e = -7.0 + i * width
            weight = (1.0 if i in (0, steps) else 4.0 if i % 2 else 2.0) * width / 3.0
            latent = centre + spread * e
            density = math.exp(-0.5 * e * e) / math.sqrt(2.0 * math.pi)
            both += weight * density * _cdf((seen - math.sqrt(tau) * latent) / math.sqrt(1.0 - tau))
        found.append((stands, both))
    return found


def chain_of(
    qualities: Sequence[float], thresholds: Sequence[float], rho: float, tau: float, costs: Sequence[float],
    *, fine: bool,
) -> tuple[float, float, list[float]]:  # fmt: skip
    """Expected quality and cost of a chain, and how often each of its agents is asked."""
    half = 70 if fine else 24
    stages = [
        _stage_of(quality, threshold, rho, tau, half)
        for quality, threshold in zip(qualities, [*thresholds, None], strict=True)
    ]
    going = [weight for _, weight in _nodes(half)]
    quality, cost, reached = 0.0, 0.0, []
    for stage, price in zip(stages, costs, strict=True):
        reached.append(sum(going))
        cost += reached[-1] * price
        quality += sum(share * both for share, (_, both) in zip(going, stage, strict=True))
        going = [share * (1.0 - stands) for share, (stands, _) in zip(going, stage, strict=True)]
    return quality, cost, reached


def near(found: float | None, expected: float | None, tolerance: float) -> None:
    """Stop unless two figures are equal within a tolerance; None equals None only."""
    if found is None or expected is None:
        assert found is expected, (found, expected)
        return
    assert abs(found - expected) <= tolerance, (found, expected, tolerance)


def _equal(found: Any, expected: Any) -> None:
    assert found == expected, (found, expected)


def _four_digits(figure: float, *, up: bool) -> str:
    unit = 10.0 ** (math.floor(math.log10(abs(figure))) - 3)
    steps = math.ceil(figure / unit - 1e-6) if up else math.floor(figure / unit + 1e-6)
    return f"{float(f'{steps * unit:.4g}'):g}"
