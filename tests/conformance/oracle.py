"""A second opinion on every decision: the formulas of docs/explanation/how-it-decides.md, one agent after another.

In: a group of cases, a function that embeds texts, the weights where the group has a model. Out: for a request the
agent, or None, and the figures that go with it. Slow and plain on purpose: loops over Python floats, nothing of
``decide``, ``policy``, ``snapshot``, ``learn`` or ``model``. ``closest`` says how near the nearest comparison came to
turning the other way, so that no case of the file hangs on the last digit of a matrix product, which another processor
may round differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.cases import JUDGED, Case, Group, config_of
from tests.conformance.weights import USUAL_INPUT_TOKENS, Belief, Weights

Embed = Callable[[str], tuple[Sequence[float], float]]
"""A text's vector, and how many tokens it has."""

D, S, GOOD_ENOUGH, BAR, STATED, UNSTATED = 0.15, 0.2, 0.7, 0.5, 10.0, 2.0
TOKENS_STRENGTH, USUAL_TOKENS, UNKNOWN_INPUT_TOKENS = 5.0, 300.0, 100.0
CHEAPEST_USD, FASTEST_MS, FREE_USD = 1e-6, 0.1, 1e-12
_NESTED = ("cost_model", "cost", "performance")
_ALIASES = {
    "type": "agent_type", "active": "is_active", "latency": "avg_latency_ms", "quality": "quality_score",
    "per_request": "cost_per_request", "per_1k_tokens": "cost_per_1k_tokens",
}  # fmt: skip


@dataclass
class Facts:
    """One agent: its fields without nesting and aliases, its vector, the outcomes reported of it."""

    fields: dict[str, Any]
    vector: list[float] | None
    outcomes: list[dict[str, Any]] = field(default_factory=list)

    def graded(self) -> list[float]:
        """Qualities that count: those judged, and 0 for a failure that nobody judged."""
        counted = []
        for outcome in self.outcomes:
            if outcome.get("quality") is not None:
                counted.append(float(outcome["quality"]))
            elif outcome.get("success") is False:
                counted.append(0.0)
        return counted

    @property
    def prior(self) -> tuple[float, float]:
        """k and q0."""
        stated = self.fields.get("quality_score")
        return (UNSTATED, 0.5) if stated is None else (STATED, float(stated))

    @property
    def quality(self) -> float:
        k, q0 = self.prior
        graded = self.graded()
        return (k * q0 + sum(graded)) / (k + len(graded))

    def reaches(self, bar: float) -> float:
        """P(a); bars and graded answers are counted in steps of 0.05."""
        k, q0 = self.prior
        step = math.ceil(bar * 20 - 1e-9)
        if step == 0:
            return 1.0  # whatever the answer, its quality is at least 0
        graded = self.graded()
        return (k * q0 + sum(math.floor(q * 20 + 1e-9) >= step for q in graded)) / (k + len(graded))

    @property
    def latency_ms(self) -> float | None:
        seen = [o["latency_ms"] for o in self.outcomes if o.get("latency_ms") is not None]
        stated: float | None = self.fields.get("avg_latency_ms")
        return float(sum(seen) / len(seen)) if seen else stated

    @property
    def output_tokens(self) -> float:
        stated = self.fields.get("expected_output_tokens")
        if stated is None:  # embeddings are not billed by output tokens
            stated = 0.0 if self.fields.get("agent_type", "llm").lower() == "embedding" else USUAL_TOKENS
        seen = [o["output_tokens"] for o in self.outcomes if o.get("output_tokens") is not None]
        return float((TOKENS_STRENGTH * stated + sum(seen)) / (TOKENS_STRENGTH + len(seen)))

    def cost(self, tokens_in: float, cached: float, tokens_out: float | None) -> float | None:
        """c(r, a), or None where a price that counts is unknown."""
        prices = {key: value for key, value in self.fields.items() if "cost" in key and value is not None}
        blended = prices.get("cost_per_token")
        if "cost_per_1k_tokens" in prices:
            blended = prices["cost_per_1k_tokens"] / 1000.0
        p_in, p_out = prices.get("input_cost_per_token", blended), prices.get("output_cost_per_token", blended)
        p_cached = prices.get("cached_input_cost_per_token", p_in)
        if not prices or (p_in is None) != (p_out is None) or (p_cached is not None and p_in is None):
            return None
        per_second, seconds = prices.get("cost_per_second", 0.0), self.latency_ms
        if per_second > 0.0 and seconds is None:
            return None
        cached = min(cached, tokens_in)
        return float(
            prices.get("cost_per_request", 0.0) + prices.get("cost_per_call", 0.0)
            + (tokens_in - cached) * (p_in or 0.0) + cached * (p_cached or 0.0)
            + (self.output_tokens if tokens_out is None else tokens_out) * (p_out or 0.0)
            + per_second * (seconds or 0.0) / 1000.0
        )  # fmt: skip


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key in _NESTED and isinstance(value, dict):
            flat.update(_flat(value))
        else:
            flat[_ALIASES.get(key, key)] = value
    return flat


@dataclass(frozen=True)
class Expected:
    """Of one request: the agents within the limits, in order of name, and by name what is expected of candidates."""

    allowed: list[str]
    quality: dict[str, float]
    cost: dict[str, float | None]
    latency: dict[str, float | None]
    match: dict[str, float]


class Oracle:
    """Decides the cases of one group.

    Attributes
    ----------
    closest
        The smallest relative difference, other than none at all, between two numbers that a decision compared.
    """

    def __init__(self, group: Group, embed: Embed, shipped: Weights | None = None) -> None:
        self._embed = embed
        self._weights = None if group.model is None else shipped
        assert (self._weights is None) == (group.model is None), "the group has a model: its weights are needed"
        self._learned: dict[str, Belief] = {}
        self.closest = math.inf
        self.residuals: list[float] = []
        self.agents: dict[str, Facts] = {}
        for config in group.agents:
            self._put(_flat(config_of(config)), None)
        for outcome in group.outcomes:
            facts = self.agents[outcome["name"]]
            if outcome.get("routed"):
                self._judge(outcome["name"], outcome)
            facts.outcomes.append(outcome)
        for change in group.changes:
            name = change["name"]
            if change["call"] == "remove":
                del self.agents[name]
            elif change["call"] == "set_active":
                self.agents[name].fields["is_active"] = change["is_active"]
            else:
                changes = _flat(config_of(change["changes"]))
                fields = {**self.agents[name].fields, **changes}
                if "embedding" not in changes and {"capabilities", "metadata"} & changes.keys():
                    fields["embedding"] = None
                self._put(fields, self.agents[name].outcomes)

    def _put(self, fields: dict[str, Any], outcomes: list[dict[str, Any]] | None) -> None:
        vector = fields.get("embedding")
        parts = [", ".join(dict.fromkeys(fields.get("capabilities") or ()))]
        parts.append(((fields.get("metadata") or {}).get("description") or "").strip()[:2000])
        description = ". ".join(part for part in parts if part)
        if vector is None and description:
            vector = self._embed(description)[0]
        self.agents[fields["name"]] = Facts(fields, None if vector is None else unit(vector), outcomes or [])

    # -- the model -------------------------------------------------------------------------------------------------

    def _judge(self, name: str, outcome: dict[str, Any]) -> None:
        """What the outcome of a decision, which had no other candidate, so that nothing was discounted, teaches."""
        text, quality = outcome.get("request", JUDGED), outcome.get("quality")
        vector = unit(self._embed(text)[0])
        if quality is not None:
            self.residuals.append(abs(quality - self._promised(name, vector, text)[0]))
        if (belief := self._belief(name)) is None or (quality is None and outcome.get("success", True)):
            return
        assert self._weights is not None
        self._weights.learn(name, belief, self._weights.represent(vector, text, halved=True), quality or 0.0)
        self._learned[name] = belief

    def _belief(self, name: str) -> Belief | None:
        """What the model believes of an agent; None where it does not speak of it."""
        agent, weights = self.agents[name], self._weights
        if weights is None or (agent.fields.get("agent_type", "llm").lower() != "llm" and name not in weights.agents):
            return None
        unknown = agent.fields.get("quality_score") is None and not agent.graded()
        stated, usual_usd = None if unknown else agent.quality, agent.cost(USUAL_INPUT_TOKENS, 0.0, None)
        return self._learned.get(name) or weights.believed(name, stated, usual_usd)

    def _promised(self, name: str, vector: list[float], text: str | None) -> tuple[float, float]:
        """Expected quality of an answer before any match, and the share of the discount for it."""
        belief = self._belief(name)
        if belief is None or self._weights is None:
            return self.agents[name].quality, 1.0
        phi = self._weights.represent(vector, text)
        return self._weights.quality(phi, belief), self._weights.discount(belief)

    # -- one request -----------------------------------------------------------------------------------------------

    def decide(self, case: Case, within: Callable[[Expected], list[str]] | None = None) -> dict[str, Any] | None:
        """The agent and its figures; None where no agent fits. `within` leaves some of those within the limits."""
        limits, objective = case.constraints or {}, case.objective.strip().lower()
        found = self.expected(case)
        agents, quality, cost, latency = self.agents, found.quality, found.cost, found.latency
        match, allowed = found.match, found.allowed if within is None else within(found)
        if not allowed:
            return None
        eligible = allowed
        if objective in ("cost", "latency", "quality_per_dollar"):
            share = GOOD_ENOUGH if limits.get("good_enough") is None else limits["good_enough"]
            bar = share * max(quality[n] for n in allowed)
            eligible = [n for n in allowed if self._at_least(quality[n], bar)]
        if objective == "balanced":
            keys = {n: (-u,) for n, u in self._utilities(allowed, cost, latency, quality, match).items()}
        else:
            keys = {n: self._keys(objective, cost[n], latency[n], quality[n], match[n]) for n in eligible}
        chosen = self._first(eligible, keys)
        bar = BAR if limits.get("min_quality") is None else limits["min_quality"]
        own = agents[chosen].quality
        made: dict[str, Any] = {
            "agent_name": chosen, "expected_quality": quality[chosen], "estimated_cost": cost[chosen],
            "estimated_latency_ms": latency[chosen], "similarity_score": match[chosen],
            "confidence": agents[chosen].reaches(bar) * (quality[chosen] / own if own > 0.0 else 1.0),
            "uncertainty": self._uncertainty(quality[chosen]),
        }  # fmt: skip
        if self._weights is not None:
            made["model"] = None
            if self._belief(chosen) is not None:
                made["model"] = self._weights.name
                made["confidence"] = self._weights.reaches(quality[chosen], bar)
                width = self._weights.uncertainty(quality[chosen])
                made["uncertainty"] = made["uncertainty"] if width is None else width
        return made

    def expected(self, case: Case) -> Expected:
        """What is expected of every candidate for one request, and which of them are within the limits."""
        limits, sizes = case.constraints or {}, case.sizes
        vector, tokens = self._request(case)
        tokens = sizes.get("input_tokens", tokens)
        agents = dict(sorted(self.agents.items()))
        match = self._matches(agents, vector)
        candidates = [name for name in agents if self._is_candidate(agents[name], limits)]
        if not candidates:
            return Expected([], {}, {}, {}, match)
        best, worst = max(match[n] for n in candidates), min(match[n] for n in candidates)
        quality = {}
        for n in candidates:
            promised, share = self._promised(n, vector, case.request)
            quality[n] = promised * (1.0 - share * D * (best - match[n]) / max(best - worst, S))
        cost = {
            n: agents[n].cost(tokens, sizes.get("cached_input_tokens", 0.0), sizes.get("output_tokens"))
            for n in candidates
        }
        latency = {n: agents[n].latency_ms for n in candidates}
        allowed = [
            n for n in candidates
            if self._within(cost[n], limits.get("max_cost")) and self._within(cost[n], limits.get("budget_remaining"))
            and self._within(latency[n], limits.get("max_latency_ms"))
            and (limits.get("min_quality") is None or self._at_least(quality[n], limits["min_quality"]))
        ]  # fmt: skip
        return Expected(allowed, quality, cost, latency, match)

    def _request(self, case: Case) -> tuple[list[float], float]:
        if case.embedding is not None:
            return unit(case.embedding), UNKNOWN_INPUT_TOKENS
        assert case.request is not None
        vector, tokens = self._embed(case.request)
        return unit(vector), tokens

    def _matches(self, agents: dict[str, Facts], request: list[float]) -> dict[str, float]:
        known = {n: dot(request, a.vector) for n, a in agents.items() if a.vector is not None}
        mean = sum(known.values()) / len(known) if known else 0.0
        return {n: known.get(n, mean) for n in agents}

    def _is_candidate(self, agent: Facts, limits: dict[str, Any]) -> bool:
        have = {c.casefold() for c in agent.fields.get("capabilities") or ()}
        return (
            agent.fields.get("is_active", True)
            and agent.fields["name"] not in (limits.get("excluded_agents") or ())
            and all(c.casefold() in have for c in limits.get("required_capabilities") or ())
        )

    def _keys(self, objective: str, cost: float | None, latency: float | None, quality: float, match: float) -> tuple:
        unknown = math.inf
        dollars = unknown if cost is None else cost
        if objective == "cost":
            return dollars, -match
        if objective == "latency":
            return unknown if latency is None else latency, -match
        if objective == "quality":
            return -quality, dollars, -match
        return unknown if cost is None else -quality / max(cost, FREE_USD), -match

    def _utilities(
        self, allowed: list[str], cost: dict, latency: dict, quality: dict[str, float], match: dict[str, float]
    ) -> dict[str, float]:
        terms: list[dict[str, float | None]] = [
            {n: None if cost[n] is None else -math.log(max(cost[n], CHEAPEST_USD)) for n in allowed},
            {n: None if latency[n] is None else -math.log(max(latency[n], FASTEST_MS)) for n in allowed},
            {n: quality[n] for n in allowed},
            {n: match[n] for n in allowed},
        ]
        utilities = dict.fromkeys(allowed, 0.0)
        for term in terms:
            known = [v for v in term.values() if v is not None]
            low, high = min(known, default=0.0), max(known, default=0.0)
            for name, value in term.items():
                # Where nobody differs all are the best, 1; who is unknown is the worst, 0.
                if value is not None:  # what is unknown gets nothing, as the worst does
                    utilities[name] += 0.25 * ((value - low) / (high - low) if high > low else 1.0)
        return utilities

    def _uncertainty(self, expected: float) -> float:
        latest = sorted(self.residuals[-1000:])
        rank = math.ceil(0.9 * (len(latest) + 1) - 1e-9)
        if rank > len(latest):
            return 1.0
        half = latest[rank - 1]
        return min(1.0, expected + half) - max(0.0, expected - half)

    # -- comparisons, watched --------------------------------------------------------------------------------------

    def _watch(self, a: float, b: float) -> None:
        if a != b and math.isfinite(a) and math.isfinite(b):
            self.closest = min(self.closest, abs(a - b) / max(abs(a), abs(b)))

    def _within(self, value: float | None, limit: float | None) -> bool:
        if limit is None:
            return True
        if value is None:
            return False
        self._watch(value, limit)
        return value <= limit

    def _at_least(self, value: float, limit: float) -> bool:
        self._watch(value, limit)
        return value >= limit

    def _first(self, names: list[str], keys: dict[str, tuple]) -> str:
        for i in range(len(keys[names[0]])):
            best = min(keys[n][i] for n in names)
            for n in names:
                self._watch(keys[n][i], best)
            names = [n for n in names if keys[n][i] == best]
        return names[0]  # in order of name


def unit(vector: Sequence[float]) -> list[float]:
    """The vector at length 1."""
    length = math.sqrt(sum(float(x) ** 2 for x in vector))
    return [float(x) / length for x in vector]


def dot(a: list[float], b: list[float]) -> float:
    """The inner product."""
    return sum(x * y for x, y in zip(a, b, strict=True))
