"""The candidate router: which memories, documents or responses are good enough for the lightweight model.

In: a query vector and candidates. Out: for each candidate a confidence, an uncertainty and whether the lightweight
model may serve it, best first. A circuit breaker guards the scoring: while it is open, the configured powerful agent
is the answer and the response says so.

The decision itself is `tinydancer.model.candidates.decide_candidates`; this room puts features, model, breaker, clock
and recorder together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from tinydancer import validation as check
from tinydancer.errors import ConfigError, InvalidInputError, ModelError, StoreError
from tinydancer.model.candidates import CandidateScorer, decide_candidates
from tinydancer.model.features import FeatureConfig, FeatureEngineer
from tinydancer.policy.breakers import BreakerConfig, CircuitBreaker
from tinydancer.store.candidates import Storage
from tinydancer.types import Candidate, EmbeddingSpace, json_object
from tinydancer.validation import FloatVector

__all__ = ["Router", "RouterConfig", "RoutingDecision", "RoutingRequest", "RoutingResponse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    """Settings of a `Router`.

    Parameters
    ----------
    model_path
        Model file of a FastGRNN with five inputs and one output; None scores by the documented fallback.
    confidence_threshold
        Lowest confidence that lets the lightweight model serve a candidate, in [0, 1].
    max_uncertainty
        Highest uncertainty that does, in [0, 1].
    enable_circuit_breaker
        Whether failures of the model lead to the powerful agent (True) or to `ModelError` (False).
    circuit_breaker_threshold
        Failures in a row that open the breaker.
    circuit_breaker_timeout_s
        Seconds it stays open before one call tries again.
    enable_quantization
        Accepted for the settings files that have it, and **not in effect**: weights are used as ``float32``. Every
        response carries a note that says so.
    database_path
        SQLite file in which every decision is recorded, see `tinydancer.store.candidates.Storage`; None records none.
    space
        The vector space of that file; None takes the file's own, and for a new one all-MiniLM-L6-v2's.
    features
        Weights of the features.
    recency_decay
        Rate of forgetting per hour; None takes the one in `features` (0.001 by default).
    powerful_agent
        The agent that answers while the breaker is open.
    """

    model_path: str | os.PathLike[str] | None = None
    confidence_threshold: float = 0.85
    max_uncertainty: float = 0.15
    enable_circuit_breaker: bool = True
    circuit_breaker_threshold: int = 5
    circuit_breaker_timeout_s: float = 30.0
    enable_quantization: bool = False
    database_path: str | os.PathLike[str] | None = None
    space: EmbeddingSpace | None = None
    features: FeatureConfig = field(default_factory=FeatureConfig)
    recency_decay: float | None = None
    powerful_agent: str = "powerful"

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("confidence_threshold", "max_uncertainty"):
            put(self, name, check.number(getattr(self, name), name, low=0.0, high=1.0))
        for name in ("enable_circuit_breaker", "enable_quantization"):
            put(self, name, check.boolean(getattr(self, name), name))
        threshold = check.count(self.circuit_breaker_threshold, "circuit_breaker_threshold", low=1, high=10**6)
        put(self, "circuit_breaker_threshold", threshold)
        timeout_s = check.number(
            self.circuit_breaker_timeout_s, "circuit_breaker_timeout_s", low=1e-3, high=1e9, unit="s"
        )
        put(self, "circuit_breaker_timeout_s", timeout_s)
        if self.recency_decay is not None:
            put(self, "features", replace(self.features, recency_decay=self.recency_decay))
        put(self, "recency_decay", self.features.recency_decay)
        check.name_of(self.powerful_agent, "powerful agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRequest:
    """A query and what might answer it.

    Parameters
    ----------
    query_embedding
        ``float32[dim]``, any length but zero.
    candidates
        At least one, with distinct ids and embeddings of the query's dimension.
    metadata
        A JSON object; its pairs are looked for in the candidates' metadata.

    Raises
    ------
    InvalidInputError
        No candidates, something that is no `Candidate`, or an id that comes twice.
    InvalidVectorError
        A query that is zero or not finite.
    """

    query_embedding: FloatVector = field(compare=False, repr=False)
    candidates: Sequence[Candidate]
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "query_embedding", check.vector(self.query_embedding, "The query embedding"))
        given: Any = self.candidates
        if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
            raise InvalidInputError(f"candidates is {check.shown(given)}; expected a list of candidates.")
        candidates: tuple[Candidate, ...] = tuple(given)
        put(self, "candidates", candidates)
        if not candidates:
            raise InvalidInputError("The list of candidates is empty; expected at least one.")
        for kind in set(map(type, candidates)):
            if not issubclass(kind, Candidate):
                raise InvalidInputError(f"candidates holds a {kind.__name__}; expected Candidate objects only.")
        ids = [c.id for c in candidates]
        if len(set(ids)) != len(ids):
            seen: set[str] = set()
            twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise InvalidInputError(f"Candidate id {twice!r} comes twice; expected distinct ids.")
        if self.metadata is not None:
            put(self, "metadata", json_object(self.metadata, "metadata"))


class RoutingDecision(NamedTuple):
    """What was decided about one candidate.

    Attributes
    ----------
    candidate_id
        The candidate.
    confidence
        In [0, 1].
    use_lightweight
        Whether the lightweight model may serve it: confident enough and certain enough.
    uncertainty
        In [0, 1]; width of an interval, see `tinydancer.model.candidates.Scores`.
    model
        Which weights said so; ``fallback`` without trained weights, ``none`` while the breaker is open.
    """

    candidate_id: str
    confidence: float
    use_lightweight: bool
    uncertainty: float
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingResponse:
    """The answer to a `RoutingRequest`.

    Attributes
    ----------
    decisions
        One per candidate, by confidence from high to low, equal ones by id.
    inference_time_us
        Microseconds from the request to the finished decisions, features included, recording not.
    feature_time_us
        How many of them went into the features.
    candidates_processed
        How many candidates were scored; 0 if `fallback`.
    fallback
        Whether nothing was scored because the model fails: every decision then has confidence 0, uncertainty 1 and
        no lightweight model.
    agent
        The powerful agent that answers if `fallback`; else None.
    notes
        Sentences on what did not go as configured.
    """

    decisions: tuple[RoutingDecision, ...]
    inference_time_us: float
    feature_time_us: float
    candidates_processed: int
    fallback: bool = False
    agent: str | None = None
    notes: tuple[str, ...] = ()


Recorder = Callable[[RoutingRequest, RoutingResponse], None]


class Router:
    """Routes candidates; one may be shared by all threads.

    Parameters
    ----------
    config
        None takes the defaults.
    scorer
        Scores instead of what ``model_path`` names, for weights that are in memory only.
    recorder
        Called with every request and its response. A `StoreError` of it does not undo the decision; the response
        carries a note.
    clock
        Seconds since 1970, for the age of candidates and for the breaker.
    timer
        Nanoseconds, for the timings in responses.

    Raises
    ------
    NotFoundError, ArtifactError
        The model file is missing or unusable.
    StoreError
        The file at ``database_path`` cannot be used.
    ConfigError
        Two are given where one is expected: ``database_path`` and `recorder`, or ``model_path`` and `scorer`.
    """

    def __init__(
        self,
        config: RouterConfig | None = None,
        *,
        scorer: CandidateScorer | None = None,
        recorder: Recorder | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.config = config = config or RouterConfig()
        if config.database_path is not None and recorder is not None:
            raise ConfigError("Both database_path and recorder are given; expected one of them.")
        if config.model_path is not None and scorer is not None:
            raise ConfigError("Both model_path and scorer are given; expected one of them.")
        self._storage: Storage | None = None
        self._recorder = recorder
        if config.database_path is not None:
            self._storage = Storage(config.database_path, space=config.space, clock=clock)
            self._recorder = self._store
        self._clock = clock
        self._timer = timer
        self._engineer = FeatureEngineer(config.features)
        self._breaker: CircuitBreaker | None = None
        if config.enable_circuit_breaker:
            self._breaker = CircuitBreaker(
                BreakerConfig(
                    failure_threshold=config.circuit_breaker_threshold, timeout_s=config.circuit_breaker_timeout_s
                )
            )
        self._notes: tuple[str, ...] = ()
        if config.enable_quantization:
            self._notes = ("enable_quantization is not in effect: the weights are used as float32.",)
        # The one thing that changes: an immutable bundle, replaced by a single assignment, read once per request.
        self._scorer = scorer or CandidateScorer()
        if config.model_path is not None:
            self._scorer = CandidateScorer.load(config.model_path)

    def close(self) -> None:
        """Close the file at ``database_path``, if there is one. May be repeated."""
        if self._storage is not None:
            self._storage.close()

    def __enter__(self) -> Router:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def model(self) -> str:
        """Which weights score now; ``fallback`` without trained weights."""
        return self._scorer.name

    @property
    def circuit_breaker(self) -> CircuitBreaker | None:
        """The breaker with its counts and `reset`, or None if it is off."""
        return self._breaker

    def circuit_breaker_status(self) -> bool | None:
        """True while closed (healthy), False while open or half-open, None if the breaker is off."""
        return None if self._breaker is None else self._breaker.status(self._clock())

    def reload_model(self) -> str:
        """Read the model file again, while other threads go on routing with the weights they started with.

        Returns
        -------
        str
            The name of the weights that score from now on. The breaker starts anew, since it knew the old ones.

        Raises
        ------
        NotFoundError, ArtifactError
            The file is missing or unusable; the old weights stay.
        ModelError
            There is no ``model_path`` to read.
        """
        if self.config.model_path is None:
            raise ModelError("This router has no model file to read again.", hint="Set model_path in its config.")
        scorer = CandidateScorer.load(self.config.model_path)
        self._scorer = scorer
        if self._breaker is not None:
            self._breaker.reset()
        return scorer.name

    def route(self, request: RoutingRequest, now: float | None = None) -> RoutingResponse:
        """Decide about every candidate of a request.

        Parameters
        ----------
        request
            Query and candidates.
        now
            Seconds since 1970 at which candidates have their age; None asks the clock.

        Raises
        ------
        InvalidVectorError, SpaceMismatchError
            A candidate's vector is unusable or of another dimension. Bad input is the caller's: the breaker does not
            count it.
        ModelError
            The model gave no usable scores, and the breaker is off.
        """
        started_ns = self._timer()
        instant = self._clock()
        scorer = self._scorer
        candidates = request.candidates
        features = self._engineer.extract_batch(
            request.query_embedding, candidates, request.metadata, now=instant if now is None else now
        )
        feature_us = (self._timer() - started_ns) / 1e3
        if self._breaker is not None and not self._breaker.allow(instant):
            return self._finish(request, self._powerful(request, started_ns, feature_us, "The circuit breaker is open"))
        try:
            counts = np.fromiter(map(attrgetter("access_count"), candidates), np.float64, count=len(candidates))
            confidence, uncertainty = scorer.score(features, counts, self._engineer.weights)
        except ModelError as error:
            if self._breaker is None:
                raise
            self._breaker.record_failure(instant)
            return self._finish(request, self._powerful(request, started_ns, feature_us, error.message.rstrip(".")))
        if self._breaker is not None:
            self._breaker.record_success(instant)
        light = decide_candidates(
            confidence,
            uncertainty,
            confidence_threshold=self.config.confidence_threshold,
            max_uncertainty=self.config.max_uncertainty,
        )
        # First by id, then by confidence with a sort that keeps the order of equals.
        ids = [c.id for c in candidates]
        by_id = np.array(sorted(range(len(ids)), key=ids.__getitem__))
        order = by_id[np.argsort(-confidence[by_id], kind="stable")]
        rows = zip(
            map(ids.__getitem__, order.tolist()),
            confidence[order].tolist(),
            light[order].tolist(),
            uncertainty[order].tolist(),
            repeat(scorer.name, len(ids)),
            strict=True,
        )
        response = RoutingResponse(
            # What RoutingDecision._make does, without a Python call for each of a thousand rows.
            decisions=tuple(map(tuple.__new__, repeat(RoutingDecision), rows)),
            inference_time_us=(self._timer() - started_ns) / 1e3,
            feature_time_us=feature_us,
            candidates_processed=len(candidates),
            notes=self._notes,
        )
        return self._finish(request, response)

    def _powerful(self, request: RoutingRequest, started_ns: int, feature_us: float, why: str) -> RoutingResponse:
        agent = self.config.powerful_agent
        decisions = tuple(RoutingDecision(i, 0.0, False, 1.0, "none") for i in sorted(c.id for c in request.candidates))
        return RoutingResponse(
            decisions=decisions,
            inference_time_us=(self._timer() - started_ns) / 1e3,
            feature_time_us=feature_us,
            candidates_processed=0,
            fallback=True,
            agent=agent,
            notes=(*self._notes, f"{why}, so the powerful agent {agent!r} answers."),
        )

    def _store(self, request: RoutingRequest, response: RoutingResponse) -> None:
        assert self._storage is not None
        rows = [(d.candidate_id, d.confidence, d.use_lightweight, d.uncertainty) for d in response.decisions]
        self._storage.record_routings(rows, request.query_embedding, response.inference_time_us)

    def _finish(self, request: RoutingRequest, response: RoutingResponse) -> RoutingResponse:
        if self._recorder is None:
            return response
        try:
            self._recorder(request, response)
        except StoreError as error:
            return replace(response, notes=(*response.notes, f"This decision was not recorded: {error.message}"))
        return response
