"""Semantic routes over a store: create, change, match, fit.

In: what a door was given, and a `TinyDancer`, whose store, embedder and clock are used. Out: routes, answers, reports.
Every door calls this class. It holds no state that matters: routes and the states of rate limits are in the store, the
snapshot is a cache keyed by the registry's version, which every change of a route moves.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer import intake
from tinydancer import validation as check
from tinydancer.errors import InvalidInputError, UnknownKeyError
from tinydancer.policy.route_fitting import NONE, RouteReport, fit_routes, judge_routes, split_requests
from tinydancer.policy.route_index import is_available
from tinydancer.policy.route_rules import ALWAYS, CHANGEABLE, RateLimit, Route, Utterance
from tinydancer.policy.route_snapshot import (
    NO_CONTEXT,
    RouteContext,
    RoutesSnapshot,
    build_routes_snapshot,
    index_routes,
)
from tinydancer.policy.routes import RouteAnswer, route_one, route_semantically
from tinydancer.service import TinyDancer
from tinydancer.store.routes import contradiction
from tinydancer.validation import FloatVector

__all__ = ["RouteFit", "SemanticRoutes"]

EMBED_AT_ONCE = 64
"""Texts embedded in one call when many routes are created; remote embedders limit it, and progress is shown by it."""
MAX_TOP_K = 1000
EXACT_ROUTES = 50_000
"""Routes up to which all of them are compared with every request: some milliseconds, and no index to build."""
CONFIG_KEYS = (
    "name", "target_agent", "description", "priority", "threshold", "conditions", "calibration", "is_active",
    "embedding", "utterances", "negative_utterances",
)  # fmt: skip
NONE_LABELS = (None, "", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteFit:
    """What `SemanticRoutes.fit` chose, and how that did on requests it was not chosen on.

    Attributes
    ----------
    fitted_on, left_out
        How many requests it was fitted on, and how many were left out because their text is an utterance already or
        came twice.
    thresholds
        By name of the route.
    before, after
        The same held-out requests with the thresholds and calibrations of before and with the new ones.
    missed
        (text, route or None, answered route or None) of the held-out requests that were sent elsewhere.
    kept
        Whether thresholds and calibrations were stored.
    """

    fitted_on: int
    left_out: int
    thresholds: Mapping[str, float]
    before: RouteReport
    after: RouteReport
    missed: tuple[tuple[str, str | None, str | None], ...]
    kept: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "fitted_on": self.fitted_on, "left_out": self.left_out, "kept": self.kept,
            "thresholds": dict(self.thresholds), "before": self.before.to_dict(), "after": self.after.to_dict(),
            "missed": [
                {"request": text, "route_name": own, "answered": given} for text, own, given in self.missed
            ],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Cache:
    registry: int
    snapshot: RoutesSnapshot
    limits: Mapping[str, RateLimit]


class SemanticRoutes:
    """The semantic routes of a `TinyDancer`'s store. Any number of threads may share one.

    Parameters
    ----------
    dancer
        Whose store, embedder and clock.
    exact_routes
        Active routes up to which `match` compares all of them. With more of them, and usearch installed (the extra
        ``index``), it compares exactly those that an index finds, which is built with the first request and takes some
        seconds per ten thousand vectors; `match_batch` always compares all of them. None never builds one.

    Examples
    --------
    >>> dancer = TinyDancer()
    >>> _ = dancer.register_agent("support-agent", "human", ["customer support"])
    >>> routes = SemanticRoutes(dancer)
    >>> _ = routes.create("passwords", "support-agent", utterances=["I forgot my password", "reset my password"])
    >>> routes.match("How do I reset my password?").best.target_agent
    'support-agent'
    >>> routes.match("What is the capital of Peru?").best is None
    True
    >>> dancer.close()
    """

    def __init__(self, dancer: TinyDancer, *, exact_routes: int | None = EXACT_ROUTES) -> None:
        self._exact_routes = check.count(exact_routes, "exact_routes") if exact_routes is not None else None
        self._dancer = dancer
        self._cache: _Cache | None = None
        self._lock = threading.Lock()

    # -- routes ----------------------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        target_agent: str,
        description: str = "",
        *,
        priority: int = 0,
        embedding: npt.ArrayLike | None = None,
        utterances: Sequence[str] = (),
        negative_utterances: Sequence[str] = (),
        threshold: float | None = None,
        conditions: Mapping[str, Any] | None = None,
        is_active: bool = True,
    ) -> Route:
        """Create a route.

        Parameters
        ----------
        name
            Not taken, capitals aside.
        target_agent
            A registered agent.
        description
            What the route is for; counts as an example.
        priority
            Among routes that a request passes, the highest is first.
        embedding
            The vector of the route's description, instead of the embedder's.
        utterances, negative_utterances
            Texts that are for the route, and texts that resemble them and are not.
        threshold
            Similarity from which a request passes, in [-1, 1]; None takes the default.
        conditions
            ``time_range``, ``user_tier`` and ``rate_limit``; see `RouteConditions`.

        Raises
        ------
        AlreadyExistsError
            The name is taken.
        NotFoundError
            The agent is not registered.
        InvalidInputError
            A value cannot be used, or there is no description, utterance or vector that a request could resemble.
        """
        config = {
            "name": name, "target_agent": target_agent, "description": description, "priority": priority,
            "embedding": embedding, "utterances": utterances, "negative_utterances": negative_utterances,
            "threshold": threshold, "conditions": conditions, "is_active": is_active,
        }  # fmt: skip
        (route,) = self._embedded([_Draft.of(config)])
        self._dancer.store.insert_routes([route])
        return route

    def create_many(
        self,
        configs: Sequence[Mapping[str, Any]],
        *,
        replace: bool = False,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[str]:
        """Create many routes from JSON objects with the arguments of `create`, all of them or none; their names.

        Parameters
        ----------
        replace
            Overwrite those that exist, with their utterances, instead of refusing them.
        progress
            Called with the number of routes that have just been prepared.
        """
        drafts = []
        for number, config in enumerate(configs, start=1):
            try:
                drafts.append(_Draft.of(config))
            except InvalidInputError as error:
                raise type(error)(f"Route number {number}: {error.message}", hint=error.hint) from None
        routes = self._embedded(drafts, progress)
        self._dancer.store.insert_routes(routes, replace=replace)
        return [route.name for route in routes]

    def update(self, name: str, changes: Mapping[str, Any]) -> Route:
        """Change some fields of a route; its examples stay.

        Parameters
        ----------
        changes
            Any of ``target_agent``, ``description``, ``embedding``, ``priority``, ``threshold``, ``conditions``,
            ``calibration`` and ``is_active``; None takes the default. A new description without an ``embedding`` is
            embedded anew.

        Raises
        ------
        NotFoundError
            No route of that name, or the new agent is not registered.
        """
        store = self._dancer.store
        route = store.get_route(name)
        if not isinstance(changes, Mapping):
            raise InvalidInputError(f"The change is {check.shown(changes)}; expected a JSON object.")
        if "name" in changes:
            raise UnknownKeyError("The name of a route cannot be changed.", hint="Create one of the other name.")
        check.known_keys(changes, (*CHANGEABLE, "embedding"), "field of a route")
        changed = route.updated({key: value for key, value in changes.items() if key != "embedding"})
        if "description" in changes or "embedding" in changes:
            kept = tuple(u for u in route.utterances if u.kind != "description")
            (described,) = self._embedded([_Draft(changed, changes.get("embedding"), (), (), anything=bool(kept))])
            changed = dataclasses.replace(changed, utterances=described.utterances + kept)
        store.update_routes([changed])
        return changed

    def add_utterances(self, name: str, texts: Sequence[str], *, negative: bool = False) -> int:
        """Add examples, or negative examples, that the route does not have yet; how many.

        Raises
        ------
        NotFoundError
            No route of that name.
        InvalidInputError
            A text is on the other side already.
        """
        checked = self._texts(texts, "utterances")
        kind = "negative" if check.boolean(negative, "negative") else "example"
        utterances = [
            Utterance(text=text, embedding=vector, kind=kind)  # type: ignore[arg-type]
            for text, vector in zip(checked, self._embed(checked), strict=True)
        ]
        return self._dancer.store.add_utterances(check.name_of(name, "route name"), utterances)

    def remove_utterances(self, name: str, texts: Sequence[str]) -> int:
        """Remove examples by their texts, wanted or negative ones; how many there were.

        Raises
        ------
        InvalidInputError
            Nothing that a request could resemble would be left.
        """
        return self._dancer.store.remove_utterances(check.name_of(name, "route name"), self._texts(texts, "utterances"))

    def remove(self, name: str) -> None:
        """Remove a route with its utterances; raises `NotFoundError`."""
        self._dancer.store.delete_route(name)

    def get(self, name: str) -> Route:
        """One route; raises `NotFoundError` with the nearest name as a hint."""
        return self._dancer.store.get_route(name)

    def list_routes(self) -> list[Route]:
        """All routes, active or not, in order of name."""
        return self._dancer.store.list_routes()

    # -- matching --------------------------------------------------------------------------------------------------

    def match(
        self,
        request: str | None = None,
        *,
        embedding: npt.ArrayLike | None = None,
        top_k: int = 3,
        user_tier: str | None = None,
        count: bool = True,
    ) -> RouteAnswer:
        """Find the routes of one request.

        Parameters
        ----------
        request
            Its text; not looked at if `embedding` is given.
        embedding
            Its vector, any length but zero.
        top_k
            How many routes the answer holds at most.
        user_tier
            Whose request it is, for routes that are for some tiers only.
        count
            Whether it counts against the rate limit of the route that is taken.
        """
        top_k, context = _asked(top_k, user_tier)
        dancer = self._dancer
        if embedding is not None:
            space = dancer.space
            vector = check.unit_vector(embedding, "The request's embedding", dim=space.dim, space=space.name)
        elif request is not None:
            vector = dancer.embed(request)
        else:
            raise InvalidInputError("Neither a request nor an embedding is given; expected one of them.")
        current, now = self._current(), dancer._clock()
        answer = route_one(vector, current.snapshot, now=now, context=context, top_k=top_k)
        while current.limits and answer.matches:
            name = answer.matches[0].route_name
            limit = current.limits.get(name)
            if limit is None or dancer.store.take_route_token(name, limit, now, keep=count):
                break
            context = context._replace(exhausted={*context.exhausted, name})
            answer = route_one(vector, current.snapshot, now=now, context=context, top_k=top_k)
        return answer

    def match_batch(
        self,
        requests: Sequence[str] | None = None,
        *,
        embeddings: npt.ArrayLike | None = None,
        top_k: int = 1,
        user_tier: str | None = None,
        count: bool = True,
    ) -> list[RouteAnswer]:
        """Find the routes of many requests at once; as `match`, and with the same answers."""
        top_k, context = _asked(top_k, user_tier)
        batch = intake.many_requests(
            requests, embeddings, intake.pop_sizes({}), embedder=lambda: self._dancer.embedder,
            space=self._dancer.space, max_chars=self._dancer.settings.max_request_chars,
        )  # fmt: skip
        return self._route(batch.embeddings, context, top_k, count=count)

    def snapshot(self) -> RoutesSnapshot:
        """The active routes to active agents as columns, current as of now."""
        return self._current().snapshot

    # -- fitting ---------------------------------------------------------------------------------------------------

    def fit(
        self,
        examples: Iterable[tuple[str | None, str]],
        *,
        min_confidence: float | None = None,
        test_share: float = 0.5,
        seed: int = 0,
        keep: bool = True,
    ) -> RouteFit:
        """Choose thresholds and calibrate confidence from labelled requests, and measure both on held-out ones.

        Parameters
        ----------
        examples
            (name of the route, text); None, an empty name and ``none`` stand for none of the routes. Texts that are
            utterances already, or come twice, are left out.
        min_confidence
            See `fit_routes`.
        test_share
            Share of each route's requests that is measured on and not fitted on, in [0.1, 0.9].
        seed
            Of the split.
        keep
            Whether to store what was fitted; every session uses it from its next request on.

        Raises
        ------
        InvalidInputError
            An unknown route, too few requests, or requests that leave nothing to draw a line between.
        """
        store = self._dancer.store
        stored = store.list_routes()
        open_routes = [dataclasses.replace(r, conditions=ALWAYS) for r in stored]
        snapshot = build_routes_snapshot(open_routes, version="fit", space=self._dancer.space)
        labels, texts, left_out = _labelled(examples, snapshot, stored, self._dancer.settings.max_request_chars)
        fit_on, measure_on = split_requests(labels, seed=check.count(seed, "seed"), test_share=test_share)
        vectors = self._embed(texts)
        own = np.array(labels, dtype=np.intp)
        fitted = fit_routes(vectors[fit_on], own[fit_on].tolist(), snapshot, min_confidence=min_confidence)
        chosen = dict(zip(snapshot.names, zip(*fitted, strict=True), strict=True))
        changed = [
            dataclasses.replace(r, threshold=chosen[r.name][0], calibration=chosen[r.name][1])
            for r in open_routes
            if r.name in chosen
        ]
        refitted = build_routes_snapshot(changed, version="fitted", space=self._dancer.space)
        held_out = own[measure_on].tolist()
        before, after = (
            judge_routes(held_out, route_semantically(vectors[measure_on], routes, now=0.0, top_k=1))
            for routes in (snapshot, refitted)
        )
        answers = route_semantically(vectors[measure_on], refitted, now=0.0, top_k=1)
        names = (*snapshot.names, None)  # -1 is the last
        missed = tuple((texts[measure_on[row]], names[held_out[row]], names[answers.best[row]]) for row in after.missed)
        if keep:
            conditions = {r.name: r.conditions for r in stored}
            store.update_routes([dataclasses.replace(r, conditions=conditions[r.name]) for r in changed])
        return RouteFit(
            fitted_on=len(fit_on), left_out=left_out, before=before, after=after, missed=missed, kept=keep,
            thresholds={name: threshold for name, (threshold, _) in chosen.items()},
        )  # fmt: skip

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _current(self) -> _Cache:
        cache, registry = self._cache, self._dancer.store.registry_version()
        if cache is not None and cache.registry == registry:
            return cache
        with self._lock:
            # Asked before anything is read: what changes while we read is seen as new the next time.
            agents = self._dancer.snapshot()
            serving = {name for name, active in zip(agents.names, agents.active.tolist(), strict=True) if active}
            routes = [r for r in self._dancer.store.list_routes() if r.target_agent in serving]
            snapshot = build_routes_snapshot(routes, version=str(registry), space=self._dancer.space)
            if self._exact_routes is not None and len(snapshot) > self._exact_routes and is_available():
                snapshot = index_routes(snapshot, None if self._cache is None else self._cache.snapshot)
            limits = {r.name: limit for r in routes if (limit := r.conditions.rate_limit) is not None}
            self._cache = _Cache(registry, snapshot, limits)
            return self._cache

    def _route(self, vectors: FloatVector, context: RouteContext, top_k: int, *, count: bool) -> list[RouteAnswer]:
        current, now = self._current(), self._dancer._clock()
        snapshot, store = current.snapshot, self._dancer.store
        answers = route_semantically(vectors, snapshot, now=now, context=context, top_k=top_k)
        if not current.limits:
            return list(answers)
        made: list[RouteAnswer | None] = [None] * len(vectors)
        rows, exhausted = np.arange(len(vectors)), set(context.exhausted)
        while len(rows):
            refused = []
            for place, (row, best) in enumerate(zip(rows.tolist(), answers.best.tolist(), strict=True)):
                name = snapshot.names[best] if best >= 0 else None
                limit = current.limits.get(name) if name is not None else None
                if name is not None and limit is not None:
                    spent = name in exhausted or not store.take_route_token(name, limit, now, keep=count)
                    if spent:
                        exhausted.add(name)
                        refused.append(row)
                        continue
                made[row] = answers[place]
            rows = np.array(refused, dtype=np.intp)
            context = context._replace(exhausted=frozenset(exhausted))
            answers = route_semantically(vectors[rows], snapshot, now=now, context=context, top_k=top_k)
        return [answer for answer in made if answer is not None]

    def _texts(self, given: Any, what: str) -> list[str]:
        return _utterances(given, what, self._dancer.settings.max_request_chars)

    def _embed(self, texts: Sequence[str]) -> FloatVector:
        parts = [np.zeros((0, self._dancer.space.dim), np.float32)]
        for start in range(0, len(texts), EMBED_AT_ONCE):
            parts.append(self._dancer.embedder.embed(texts[start : start + EMBED_AT_ONCE]).vectors)
        return np.concatenate(parts)

    def _embedded(
        self, drafts: Sequence[_Draft], progress: Callable[[int], None] = lambda done: None
    ) -> list[Route]:  # fmt: skip
        """The routes with the vectors of their descriptions and examples; texts are embedded together."""
        max_chars, space = self._dancer.settings.max_request_chars, self._dancer.space
        wanted: list[str] = []
        for draft in drafts:
            own = [*draft.utterances, *draft.negatives]
            if draft.embedding is None and draft.route.description:
                own.append(draft.route.description)
            for text in own:
                check.request_text(text, max_chars=max_chars)
            wanted += own
        unique = list(dict.fromkeys(wanted))
        vectors = dict(zip(unique, self._embed(unique), strict=True))
        routes = []
        for draft in drafts:
            route, made = draft.route, []
            if draft.embedding is not None:
                what = f"The embedding of route {route.name!r}"
                vector = check.unit_vector(draft.embedding, what, dim=space.dim, space=space.name)
                made.append(Utterance(text=route.description or None, embedding=vector, kind="description"))
            elif route.description:
                vector = vectors[route.description]
                made.append(Utterance(text=route.description, embedding=vector, kind="description"))
            made += [Utterance(text=text, embedding=vectors[text]) for text in draft.utterances]
            made += [Utterance(text=text, embedding=vectors[text], kind="negative") for text in draft.negatives]
            if not draft.anything and all(utterance.kind == "negative" for utterance in made):
                raise InvalidInputError(
                    f"The route {route.name!r} has no description, utterance or embedding; nothing could resemble it.",
                    hint="Give at least one of them.",
                )
            routes.append(dataclasses.replace(route, utterances=tuple(made)))
            progress(1)
        return routes


@dataclass(frozen=True, slots=True)
class _Draft:
    """A route whose texts have no vectors yet; ``anything``: it resembles something already."""

    route: Route
    embedding: Any
    utterances: Sequence[str]
    negatives: Sequence[str]
    anything: bool = False

    @classmethod
    def of(cls, config: Any) -> _Draft:
        if not isinstance(config, Mapping):
            raise InvalidInputError(f"The route is {check.shown(config)}; expected a JSON object.")
        check.known_keys(config, CONFIG_KEYS, "field of a route")
        given = {key: value for key, value in config.items() if value is not None}
        for key in ("name", "target_agent"):
            if key not in given:
                raise InvalidInputError(f"The route has no {key}; expected one.")
        examples, negatives = (_utterances(given.pop(key, ()), key) for key in ("utterances", "negative_utterances"))
        embedding = given.pop("embedding", None)
        route = Route(**given)
        if both := set(examples).intersection(negatives):
            raise contradiction(route.name, min(both))
        return cls(route, embedding, examples, negatives)


def _utterances(given: Any, what: str, max_chars: int = check.MAX_REQUEST_CHARS) -> list[str]:
    """Checked texts, each once; a single text is refused rather than split."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidInputError(f"{what} is {check.shown(given)}; expected a list of texts.")
    return list(dict.fromkeys(check.request_text(text, max_chars=max_chars) for text in given))


def _asked(top_k: Any, user_tier: Any) -> tuple[int, RouteContext]:
    context = NO_CONTEXT if user_tier is None else RouteContext(user_tier=check.name_of(user_tier, "user_tier"))
    return check.count(top_k, "top_k", low=1, high=MAX_TOP_K), context


def _labelled(
    examples: Iterable[tuple[str | None, str]], snapshot: RoutesSnapshot, stored: Sequence[Route], max_chars: int
) -> tuple[list[int], list[str], int]:
    """Labels as positions, texts, and how many were left out."""
    place = {name: number for number, name in enumerate(snapshot.names)}
    seen = {_folded(text) for route in stored for u in route.utterances if (text := u.text) is not None}
    labels: list[int] = []
    texts: list[str] = []
    left_out = 0
    for number, (label, text) in enumerate(examples, start=1):
        check.request_text(text, max_chars=max_chars)
        if label not in place and label not in NONE_LABELS:
            raise InvalidInputError(
                f"Request number {number} is labelled {check.shown(label)}, which is no active route.",
                hint="Requests of no route are labelled with none, or with nothing.",
            )
        if _folded(text) in seen:
            left_out += 1
            continue
        seen.add(_folded(text))
        labels.append(place.get(label or "", NONE))
        texts.append(text)
    return labels, texts, left_out


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
