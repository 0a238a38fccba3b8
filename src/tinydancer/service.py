"""The room where it all meets: load the snapshot, embed, decide, record; take outcomes, learn.

In: what a door was given. Out: decisions and listings. Every door (Python, command line, SQL, HTTP) calls this class;
it holds no routing logic of its own and no state that matters: what counts is in the store, the snapshot is a cache
keyed by the store's version.
"""

from __future__ import annotations

import dataclasses
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from tinydancer import intake, learn
from tinydancer import validation as check
from tinydancer.abilities import pack_features
from tinydancer.config import Settings
from tinydancer.decide import Decision, Decisions, decide
from tinydancer.decision_cache import CacheStats, DecisionCache, request_key
from tinydancer.embedding.base import Embedder
from tinydancer.errors import InvalidInputError, NotFoundError
from tinydancer.model.conformal import ConformalInterval, conformal_quantile
from tinydancer.model_learning import Learning, begin, go_on, predictor_of
from tinydancer.needs import ActiveClassifier, capabilities_needed
from tinydancer.policy.allowance import Allowance
from tinydancer.prices import agents_from_price_list
from tinydancer.snapshot import Snapshot, build_snapshot
from tinydancer.spending import Held, Spending
from tinydancer.store.base import BudgetAlert, DecisionRow, Store, StoreVersion
from tinydancer.store.opening import open_store
from tinydancer.types import (
    Agent,
    AgentRecord,
    Constraints,
    Outcome,
    RequestBatch,
    RequestContext,
    objective_of,
)
from tinydancer.validation import FloatVector

CALIBRATION_ROWS = 1000
"""How many of the latest judged decisions calibrate the conformal interval."""
COVERAGE = 0.9
EMBED_AT_ONCE = 64
"""Agents embedded in one call when many are registered; remote embedders limit it, and progress is shown by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilityMatch:
    """An agent found by a capability.

    Attributes
    ----------
    similarity
        1 for an agent that names the capability, else the cosine similarity of the two meanings.
    exact
        Whether it names it.
    """

    record: AgentRecord
    similarity: float
    exact: bool


@dataclass(frozen=True, slots=True)
class _Cache:
    """What was read, and the version of the store it was read at."""

    registry: int
    outcomes: int
    read_at: float
    agents: tuple[Agent, ...]
    snapshot: Snapshot
    learning: Learning | None = None


class TinyDancer:
    """A router over a store.

    Parameters
    ----------
    store
        A `Store`, the path of an SQLite file, or None for a store in memory that ends with the object.
    settings
        See `Settings`; its ``store`` is for doors that open one, and is not looked at here.
    embedder
        An `Embedder`; None makes the one the settings name, on first use.
    clock
        Returns seconds since 1970.
    seed
        Makes decision ids and the sampling of recorded decisions reproducible; None draws from the system.

    Attributes
    ----------
    on_budget_alert
        Called with a `BudgetAlert` where this object is the first to see that a share of a budget's amount is passed,
        after the decision is recorded; None does nothing.

    Examples
    --------
    >>> dancer = TinyDancer()
    >>> dancer.register_agent("small", "llm", ["chat"], 0.002, 150.0, 0.75).agent.name
    'small'
    >>> dancer.register_agent("large", "llm", ["coding", "reasoning"], 0.03, 500.0, 0.95).agent.name
    'large'
    >>> dancer.route("Say hello to the new colleague.", optimize_for="cost").agent_name
    'small'
    >>> dancer.close()
    """

    def __init__(
        self,
        store: Store | str | Path | None = None,
        *,
        settings: Settings | None = None,
        embedder: Embedder | None = None,
        clock: Callable[[], float] = time.time,
        seed: int | None = None,
    ) -> None:
        self.settings = settings or Settings()
        space = embedder.space if embedder is not None else self.settings.embedder.vector_space
        if store is None or isinstance(store, (str, Path)):
            store = open_store(store, space=space, tenant=self.settings.tenant, clock=clock)
        else:
            space.require(store.space, "The embedder")
        self.store: Store = store
        self.space = space
        self._embedder = embedder
        self._clock = clock
        self._random = None if seed is None else random.Random(seed)
        self._cache: _Cache | None = None
        self._own_outcomes = False
        self._decision_cache = DecisionCache(self.settings.decision_cache_entries)
        self._spending = Spending(store, self._new_id)
        self._classifier = ActiveClassifier(store, self.space)
        self.on_budget_alert: Callable[[BudgetAlert], None] | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __enter__(self) -> TinyDancer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- texts to vectors ------------------------------------------------------------------------------------------

    @property
    def embedder(self) -> Embedder:
        """The embedder, made on first use.

        Raises
        ------
        InvalidInputError
            The settings say that callers bring their own vectors.
        """
        return self._get_embedder()

    def _get_embedder(self) -> Embedder:
        if self._embedder is None:
            with self._lock:
                if self._embedder is None:
                    self._embedder = intake.make_embedder(self.settings.embedder)
        return self._embedder

    def embed(self, text: str) -> FloatVector:
        """``float32[dim]`` of unit length for one text."""
        check.request_text(text, max_chars=self.settings.max_request_chars)
        vector: FloatVector = self.embedder.embed((text,)).vectors[0]
        return vector

    # -- agents ----------------------------------------------------------------------------------------------------

    def register_agent(
        self,
        name: str,
        agent_type: str = "llm",
        capabilities: Sequence[str] = (),
        cost_per_request: float | None = None,
        avg_latency_ms: float | None = None,
        quality_score: float | None = None,
        **more: Any,
    ) -> AgentRecord:
        """Register an agent; `more` takes every other field of `Agent` and every price of `CostModel`.

        Raises
        ------
        AlreadyExistsError
            The name is taken.
        """
        return self.register_agent_full(
            {
                "name": name, "agent_type": agent_type, "capabilities": capabilities,
                "cost_per_request": cost_per_request, "avg_latency_ms": avg_latency_ms, "quality_score": quality_score,
                **more,
            }
        )  # fmt: skip

    def register_agent_full(self, config: Mapping[str, Any]) -> AgentRecord:
        """Register an agent from one JSON object; see `Agent.from_config`."""
        (agent,) = self._with_embeddings([Agent.from_config(config)])
        self.store.insert_agent(agent)
        return self._record(agent, {})

    def register_agents(
        self,
        configs: Sequence[Mapping[str, Any]],
        *,
        replace: bool = False,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[str]:
        """Register many agents from JSON objects, all of them or none; their names, in the order given.

        Parameters
        ----------
        configs
            See `Agent.from_config`; an error names the first that cannot be used by its number, counted from 1.
        replace
            Overwrite those that exist, which keep what was observed of them, instead of refusing them.
        progress
            Called with the number of agents that have just been prepared.
        """
        agents: dict[str, Agent] = {}
        for number, config in enumerate(configs, start=1):
            try:
                agent = Agent.from_config(config)
            except InvalidInputError as error:
                raise type(error)(f"Agent number {number}: {error.message}", hint=error.hint) from None
            if agent.name in agents:
                raise InvalidInputError(f"Agent number {number}: the name {agent.name!r} is given twice.")
            agents[agent.name] = agent
        ready: list[Agent] = []
        for start in range(0, len(agents), EMBED_AT_ONCE):
            ready += self._with_embeddings(list(agents.values())[start : start + EMBED_AT_ONCE])
            progress(min(EMBED_AT_ONCE, len(agents) - start))
        self.store.insert_agents(ready, replace=replace)
        return list(agents)

    def update_agent(self, name: str, changes: Mapping[str, Any]) -> AgentRecord:
        """Change some fields of an agent; what was observed of it stays.

        Raises
        ------
        NotFoundError
            No agent of that name.
        """
        (agent,) = self._with_embeddings([self.store.get_agent(name).updated(changes)])
        self.store.replace_agent(agent)
        return self.get_agent(name)

    def remove_agent(self, name: str) -> None:
        """Remove an agent; its decisions and outcomes stay in the accounts."""
        self.store.delete_agent(name)

    def set_agent_active(self, name: str, is_active: bool) -> AgentRecord:
        """An agent that is not active is never chosen."""
        return self.update_agent(name, {"is_active": is_active})

    def get_agent(self, name: str) -> AgentRecord:
        """One agent with what was observed of it."""
        return self._record(self.store.get_agent(name), self.store.agent_stats())

    def list_agents(self) -> list[AgentRecord]:
        """All agents, in order of name."""
        stats = self.store.agent_stats()
        return [self._record(agent, stats) for agent in self.store.list_agents()]

    def clear_agents(self) -> int:
        """Remove all agents; how many there were."""
        return self.store.clear_agents()

    def find_agents_by_capability(
        self, capability: str, limit: int = 10, *, semantic: bool = True
    ) -> list[CapabilityMatch]:
        """Active agents that name the capability, best quality first; then, if `semantic`, those nearest in meaning."""
        check.name_of(capability, "capability")
        check.count(limit, "limit", low=0)
        wanted = capability.casefold()
        records = [r for r in self.list_agents() if r.agent.is_active]
        found = [
            CapabilityMatch(record=r, similarity=1.0, exact=True)
            for r in records
            if wanted in (c.casefold() for c in r.agent.capabilities)
        ]
        found.sort(key=lambda m: (-(m.record.performance.quality_score or 0.0), m.record.agent.name))
        if semantic:
            vector = self.embed(capability)
            exact = {m.record.agent.name for m in found}
            near = [
                CapabilityMatch(record=r, similarity=float(r.agent.embedding @ vector), exact=False)
                for r in records
                if r.agent.embedding is not None and r.agent.name not in exact
            ]
            found += sorted(near, key=lambda m: (-m.similarity, m.record.agent.name))
        return found[:limit]

    def import_prices(self, prices: Any, patterns: Sequence[str] = (), *, update_only: bool = False) -> list[str]:
        """Take over a price list in LiteLLM's JSON shape; the names that were registered or updated.

        Agents that exist keep everything but the prices the list states; others are registered, unless
        `update_only`. All or none.
        """
        listed = agents_from_price_list(prices, tuple(patterns))
        existing = {a.name: a for a in self.store.list_agents()}
        taken = []
        for agent in listed:
            known = existing.get(agent.name)
            if known is None:
                if not update_only:
                    taken.append(agent)
                continue
            stated = agent.to_dict()["cost_model"]
            taken.append(dataclasses.replace(known, cost=dataclasses.replace(known.cost, **stated)))
        self.store.insert_agents(self._with_embeddings(taken), replace=True)
        return [a.name for a in taken]

    # -- routing ---------------------------------------------------------------------------------------------------

    @overload
    def route(
        self, request: str | None = None, optimize_for: str = "balanced",
        constraints: Constraints | Mapping[str, Any] | None = None, *, embedding: npt.ArrayLike | None = None,
        on_no_match: Literal["null"], **limits: Any,
    ) -> Decision | None: ...  # fmt: skip

    @overload
    def route(
        self, request: str | None = None, optimize_for: str = "balanced",
        constraints: Constraints | Mapping[str, Any] | None = None, *, embedding: npt.ArrayLike | None = None,
        **limits: Any,
    ) -> Decision: ...  # fmt: skip

    def route(
        self,
        request: str | None = None,
        optimize_for: str = "balanced",
        constraints: Constraints | Mapping[str, Any] | None = None,
        *,
        embedding: npt.ArrayLike | None = None,
        **limits: Any,
    ) -> Decision | None:
        """Choose the agent for one request.

        Parameters
        ----------
        request
            Its text; may be left out if `embedding` is given.
        optimize_for
            ``balanced``, ``cost``, ``latency``, ``quality`` or ``quality_per_dollar``.
        constraints
            `Constraints`, or a mapping with their names; single ones may stand as keyword arguments instead.
        embedding
            The request's vector in the deployment's space, any length but zero; None embeds the text.
        limits
            Constraints by name (``max_cost=0.01``); what is known of the size of the request: ``input_tokens``,
            ``cached_input_tokens``, ``output_tokens``; whose it is: ``key``, ``tags``, ``task``, ``route_name`` (see
            `RequestContext`); and ``infer_capabilities=True``, to require what the classifier says the request needs,
            as far as some agent names it (see `tinydancer.needs.capabilities_needed`).

        Raises
        ------
        NoMatchError
            No agent fits; holds a reason per agent. With ``on_no_match="null"`` the answer is None instead.
        """
        objective = objective_of(optimize_for)
        sizes, context = intake.pop_sizes(limits), intake.pop_context(limits)
        infer = intake.pop_switch(limits, "infer_capabilities")
        allowed = intake.constraints_of(constraints, limits)
        snapshot = self.snapshot()
        texts = None if request is None else (request,)
        if not snapshot.budgets:
            decisions, batch = self._decided(request, embedding, sizes, snapshot, objective, allowed, infer=infer)
            return self._remember(decisions, batch, texts, context)[0]

        def make(allowance: Allowance | None) -> list[Decisions]:
            nonlocal batch
            decisions, batch = self._decided(
                request, embedding, sizes, snapshot, objective, allowed, allowance, infer=infer
            )
            return [decisions]

        held = self._spending.within(make, snapshot, context, self._clock())
        return self._remember(held.parts[0], batch, texts, context, held)[0]

    def route_batch(
        self,
        requests: Sequence[str] | None = None,
        optimize_for: str = "balanced",
        constraints: Constraints | Mapping[str, Any] | None = None,
        *,
        embeddings: npt.ArrayLike | None = None,
        **limits: Any,
    ) -> list[Decision | None]:
        """Choose an agent for each of many requests at once; as `route`, and with the same answers.

        Every request must be fit for routing, or none is routed; the error names the first that is not.
        """
        objective = objective_of(optimize_for)
        sizes, context = intake.pop_sizes(limits), intake.pop_context(limits)
        allowed = intake.constraints_of(constraints, limits)
        snapshot = self.snapshot()
        batch = intake.many_requests(
            requests, embeddings, sizes, embedder=self._get_embedder, space=self.space,
            max_chars=self.settings.max_request_chars, surface=self._keeps_features(snapshot),
        )  # fmt: skip
        now = self._clock()

        def make(allowance: Allowance | None) -> list[Decisions]:
            return [
                decide(batch, snapshot, now=now, objective=objective, constraints=allowed, allowance=allowance)
            ]  # fmt: skip

        held = self._spending.within(make, snapshot, context, now, exactly=True)
        return self._remember(held.parts[0], batch, requests, context, held)

    def cache_stats(self) -> CacheStats:
        """How often a request's decision, or its embedding, was reused by this object."""
        return self._decision_cache.stats()

    # -- outcomes --------------------------------------------------------------------------------------------------

    def feedback(self, decision: Decision | str, *, success: bool = True, **measured: Any) -> Outcome:
        """Report what came of a decision; `measured` takes the other fields of `Outcome`.

        Parameters
        ----------
        decision
            A `Decision`, or the ``decision_id`` of one that was recorded.

        Raises
        ------
        NotFoundError
            No decision of that id was recorded, or its agent has been removed.
        """
        if isinstance(decision, Decision):
            name, decision_id = decision.agent_name, decision.decision_id
        else:
            name, decision_id = self._agent_of(decision), decision
        return self._outcome(name, decision_id, {"success": success, **measured})

    def update_agent_metrics(
        self, name: str, latency_ms: float | None = None, success: bool = True, quality: float | None = None,
        **measured: Any,
    ) -> Outcome:  # fmt: skip
        """Report an outcome of an agent that no recorded decision led to."""
        return self._outcome(name, None, {"latency_ms": latency_ms, "success": success, "quality": quality, **measured})

    def record_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Report many outcomes at once: all of them or none."""
        charged = self.store.insert_outcomes(outcomes)
        self._own_outcomes = True
        if charged:
            self._tell(self._spending.alerts_due(self._clock()))

    def list_decisions(self, limit: int = 100) -> list[DecisionRow]:
        """The latest recorded decisions, the latest first."""
        return self.store.list_decisions(check.count(limit, "limit"))

    def routing_stats(self) -> dict[str, Any]:
        """Totals over agents, decisions and outcomes, JSON-ready."""
        agents = self.store.list_agents()
        totals = self.store.routing_totals()
        return {
            "total_agents": len(agents),
            "active_agents": sum(a.is_active for a in agents),
            "total_decisions": totals.total_decisions,
            "total_outcomes": totals.total_outcomes,
            "success_rate": totals.successes / totals.total_outcomes if totals.total_outcomes else None,
            "estimated_cost_usd": totals.estimated_cost_usd,
            "total_cost_usd": totals.total_cost_usd,
            "decisions_by_agent": dict(totals.decisions_by_agent),
            "decisions_by_objective": dict(totals.decisions_by_objective),
        }

    # -- the snapshot ----------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The registry as columns, current as of now (see ``Settings.stats_refresh_s``)."""
        cache = self._cache
        if (
            cache is not None
            and not self._own_outcomes
            and cache.registry == self.store.registry_version()
            # A clock that was set back must not keep old statistics alive, so a negative age counts as old.
            and 0.0 <= self._clock() - cache.read_at < self.settings.stats_refresh_s
        ):
            return cache.snapshot
        return self._refresh()

    def reload_model(self) -> str | None:
        """Read the active model again, whatever the store's version says; the name of its weights, None without one.

        Nothing waits for it: requests that are being decided go on with the snapshot they began with, whole, and those
        that come after see the new one. It is needed after a file was replaced in place only; `use_model` and other
        changes through the store are seen by themselves.
        """
        with self._lock:
            self._cache = None
        self._decision_cache.clear()
        predictor = self.snapshot().predictor
        return None if predictor is None else predictor.model.name

    def _keeps_features(self, snapshot: Snapshot) -> bool:
        """Whether facts of the texts are needed: to predict, or to learn from later."""
        return snapshot.predictor is not None or self.settings.record_features

    def _refresh(self) -> Snapshot:
        with self._lock:
            cache, now = self._cache, self._clock()
            # Asked for before anything is read: what arrives while we read is seen as new the next time.
            version, own_outcomes, self._own_outcomes = self.store.version(), self._own_outcomes, False
            if cache is not None and cache.registry == version.registry and cache.outcomes == version.outcomes:
                self._cache = dataclasses.replace(cache, read_at=now)
                return cache.snapshot
            try:
                self._cache = self._read(version, now, cache)
            except BaseException:
                self._own_outcomes = own_outcomes
                raise
            return self._cache.snapshot

    def _read(self, version: StoreVersion, now: float, cache: _Cache | None) -> _Cache:
        same_agents = cache is not None and cache.registry == version.registry
        agents = cache.agents if cache is not None and same_agents else tuple(self.store.list_agents())
        stats = self.store.agent_stats()
        tokens = self.settings.decisions.default_output_tokens
        estimates = {
            a.name: learn.estimate(a, stats.get(a.name, learn.NO_STATS), default_output_tokens=tokens) for a in agents
        }
        # The registry's version, which every change of the models moves, says whether the model is still the one.
        begun = cache.learning if cache is not None and same_agents else begin(self.store, self.space)
        learning = None if begun is None else go_on(self.store, begun, agents, estimates)
        snapshot = build_snapshot(
            agents,
            estimates,
            version=f"{version.registry}.{version.outcomes}",
            space=self.space,
            settings=self.settings.decisions,
            interval=self._interval(),
            predictor=None if learning is None else predictor_of(learning, agents, estimates),
            budgets=cache.snapshot.budgets if cache is not None and same_agents else self.store.list_budgets(),
        )
        return _Cache(version.registry, version.outcomes, now, agents, snapshot, learning)

    def _interval(self) -> ConformalInterval | None:
        residuals = self.store.recent_residuals(CALIBRATION_ROWS)
        if not residuals:
            return None
        quantile = conformal_quantile(np.array(residuals), COVERAGE)
        return ConformalInterval(quantile=quantile, coverage=COVERAGE, n=len(residuals))

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _decided(
        self, request: str | None, embedding: npt.ArrayLike | None, sizes: Mapping[str, float], snapshot: Snapshot,
        objective: str, constraints: Constraints, allowance: Allowance | None = None, *, infer: bool = False,
    ) -> tuple[Decisions, RequestBatch]:  # fmt: skip
        """The decision for one request: the one of a moment ago where nothing has changed since.

        Only texts are looked up. A vector is decided in little more time than it takes to look it up and to keep it.
        Under a budget a decision depends on what is left, and only the text's embedding is taken; so it is where the
        classifier says what a request needs.
        """
        cache, surface, now = self._decision_cache, self._keeps_features(snapshot), self._clock()
        key = batch = None
        if cache.is_on and isinstance(request, str) and embedding is None:
            key = request_key(request, sizes, surface=surface)
            if allowance is None and not infer:
                kept = cache.decided(key, snapshot, objective, constraints, now)
                if kept is not None:
                    return kept
            batch = cache.embedded(key)
        is_new = batch is None
        if batch is None:
            batch = intake.one_request(
                request, embedding, sizes, embedder=self._get_embedder, space=self.space,
                max_chars=self.settings.max_request_chars, surface=surface,
            )  # fmt: skip
        if infer:
            needed = self._capabilities_needed(batch, request, snapshot, constraints)
            constraints = dataclasses.replace(
                constraints, required_capabilities=(*constraints.required_capabilities, *needed)
            )
        decisions = decide(batch, snapshot, now=now, objective=objective, constraints=constraints, allowance=allowance)
        if key is not None and allowance is None and not infer:
            cache.keep(key, decisions, batch, is_new=is_new)
        return decisions, batch

    def _capabilities_needed(
        self, batch: RequestBatch, request: str | None, snapshot: Snapshot, constraints: Constraints
    ) -> tuple[str, ...]:
        return capabilities_needed(self._classifier.now(), batch.embeddings[0], snapshot, constraints, text=request)

    def _record(self, agent: Agent, stats: Mapping[str, learn.AgentStats]) -> AgentRecord:
        return AgentRecord(agent=agent, performance=learn.performance(agent, stats.get(agent.name, learn.NO_STATS)))

    def _with_embeddings(self, agents: Sequence[Agent]) -> list[Agent]:
        """The agents, with vectors for those that describe themselves and bring none."""
        brings_vectors = self._embedder is None and self.settings.embedder.kind == "none"
        bare = []
        for agent in agents:
            if agent.embedding is not None:
                what = f"The embedding of agent {agent.name!r}"
                check.vector(agent.embedding, what, dim=self.space.dim, space=self.space.name)
            elif agent.description and not brings_vectors:
                bare.append(agent)
        vectors = self.embedder.embed([agent.description for agent in bare]).vectors if bare else ()
        made = {agent.name: vector for agent, vector in zip(bare, vectors, strict=True)}
        return [dataclasses.replace(a, embedding=made[a.name]) if a.name in made else a for a in agents]

    def _remember(
        self, decisions: Decisions, batch: RequestBatch, requests: Sequence[str] | None, context: RequestContext,
        held: Held | None = None, part: int = 0,
    ) -> list[Decision | None]:  # fmt: skip
        """Give ids to the decisions that are to be recorded, and record them; of `held` they are this part."""
        made = list(decisions)
        reserved = None if held is None else held.of(part)
        share = self.settings.recorded_share
        if share == 0.0 and held is None:
            return made
        rows = []
        keeps_features = self._keeps_features(decisions.snapshot)
        for i, decision in enumerate(made):
            if decision is None:
                continue
            decision.decision_id = None if reserved is None else reserved[i]
            if share < 1.0 and self._draw() >= share:
                continue
            if decision.decision_id is None:
                decision.decision_id = self._new_id(decision.decided_at)
            text = requests[i] if requests is not None and self.settings.record_requests else None
            features = None
            if keeps_features:
                features = pack_features(batch.embeddings[i], None if batch.surface is None else batch.surface[i])
            rows.append(
                DecisionRow(
                    decision_id=decision.decision_id, decided_at=decision.decided_at, agent_name=decision.agent_name,
                    objective=decision.objective, expected_quality=decision.expected_quality,
                    confidence=decision.confidence, uncertainty=decision.uncertainty,
                    estimated_cost_usd=decision.estimated_cost, estimated_latency_ms=decision.estimated_latency_ms,
                    similarity_score=decision.similarity_score, input_tokens=float(batch.input_tokens[i]),
                    constraints=decisions.constraints.to_dict(), model=decision.model, request=text,
                    features=features, context=context,
                )
            )  # fmt: skip
        if rows:
            try:
                self.store.insert_decisions(rows)
            except BaseException:
                if held is not None:
                    self._spending.cancel(held)
                raise
        if held is not None and held.alerts and part == len(held.parts) - 1:
            self._tell(held.alerts)
        return made

    def _tell(self, alerts: Sequence[BudgetAlert]) -> None:
        if self.on_budget_alert is not None:
            for alert in alerts:
                self.on_budget_alert(alert)

    def _agent_of(self, decision_id: str) -> str:
        """Whom a decision was made for; a budget may know of one that was not recorded."""
        try:
            return self.store.get_decision(decision_id).agent_name
        except NotFoundError:
            name = self.store.reserved_agent(decision_id)
            if name is None:
                raise
            return name

    def _outcome(self, name: str, decision_id: str | None, values: dict[str, Any]) -> Outcome:
        check.known_keys(values, _MEASURED, "field of an outcome")
        given = {key: value for key, value in values.items() if value is not None}
        outcome = Outcome(agent_name=name, decision_id=decision_id, **{"occurred_at": self._clock(), **given})
        self.record_outcomes([outcome])
        return outcome

    def _draw(self) -> float:
        return random.random() if self._random is None else self._random.random()

    def _new_id(self, now: float) -> str:
        """32 hexadecimal digits that sort by time: 12 of milliseconds, 20 of randomness (time first, as in UUID 7)."""
        # The system's randomness, not a generator in this process: after a fork two of those would repeat each other.
        tail = os.urandom(10) if self._random is None else self._random.randbytes(10)
        return f"{int(now * 1000):012x}{tail.hex()}"


_MEASURED = ("success", "quality", "latency_ms", "cost_usd", "input_tokens", "output_tokens", "occurred_at")
