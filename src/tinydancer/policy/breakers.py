"""Circuit breaker: stop calling what fails, try again after a while, carefully.

In: a state, a configuration, an instant, and what happened. Out: the next state. The functions are pure, so a store
can keep the state and several processes can share it; `CircuitBreaker` holds one under a lock for a single process.

::

               failure_threshold failures in a row
     closed ------------------------------------------> open
       ^                                               |   ^
       | success_threshold successes       timeout_s   |   | any failure
       |                                   has passed  v   |
       +-------------------------------------------- half_open   (at most half_open_probes calls under way)

Clocks may jump. Backwards, every remembered instant moves to the new present, so nobody waits longer than timeout_s
from then; forwards, a probe is let through early, which is harmless.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Literal

from tinydancer import validation as check

__all__ = [
    "CLOSED",
    "BreakerConfig",
    "BreakerState",
    "CircuitBreaker",
    "allow",
    "phase_at",
    "record_failure",
    "record_success",
]

Phase = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """When a breaker opens and closes.

    Parameters
    ----------
    failure_threshold
        Failures in a row that open it, at least 1.
    timeout_s
        Seconds it stays open before probes are let through; also the time after which a probe that nobody reported
        on no longer counts as under way. More than 0.
    half_open_probes
        Calls under way at once while half-open, at least 1.
    success_threshold
        Successful probes that close it, at least 1.
    """

    failure_threshold: int = 5
    timeout_s: float = 30.0
    half_open_probes: int = 1
    success_threshold: int = 1

    def __post_init__(self) -> None:
        for name in ("failure_threshold", "half_open_probes", "success_threshold"):
            object.__setattr__(self, name, check.count(getattr(self, name), name, low=1, high=10**6))
        timeout_s = check.number(self.timeout_s, "timeout_s", low=1e-3, high=1e9, unit="s")
        object.__setattr__(self, "timeout_s", timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerState:
    """All that a breaker remembers.

    Attributes
    ----------
    phase
        ``closed``, ``open`` or ``half_open``. An open breaker whose timeout has passed stays ``open`` here until the
        first call asks; `phase_at` knows better.
    failures
        Failures in a row while closed.
    opened_at
        Seconds; when it last opened.
    probes
        When each probe that is under way was let through, oldest first.
    probe_successes
        Successful probes since it became half-open.
    total_successes, total_failures, total_rejected, total_opened
        Counters since the start or the last reset.
    """

    phase: Phase = "closed"
    failures: int = 0
    opened_at: float = 0.0
    probes: tuple[float, ...] = ()
    probe_successes: int = 0
    total_successes: int = 0
    total_failures: int = 0
    total_rejected: int = 0
    total_opened: int = 0


CLOSED = BreakerState()
"""Where every breaker starts."""


def phase_at(state: BreakerState, config: BreakerConfig, now: float) -> Phase:
    """The phase at an instant: an open breaker is half-open once its timeout has passed."""
    if state.phase == "open" and now - state.opened_at >= config.timeout_s:
        return "half_open"
    return state.phase


def allow(state: BreakerState, config: BreakerConfig, now: float) -> tuple[BreakerState, bool]:
    """Ask for one call.

    Parameters
    ----------
    state, config
        The breaker.
    now
        Seconds, on the clock that all calls on this state use.

    Returns
    -------
    BreakerState, bool
        The next state, and whether the call may be made. Whoever is let through reports with `record_success` or
        `record_failure`; a probe that does not is forgotten after ``timeout_s``.
    """
    if state.phase == "closed":
        return state, True
    state = _not_in_future(state, now)
    if phase_at(state, config, now) == "open":
        return replace(state, total_rejected=state.total_rejected + 1), False
    if state.phase == "open":
        state = replace(state, phase="half_open")
    under_way = tuple(start for start in state.probes if now - start < config.timeout_s)
    if len(under_way) < config.half_open_probes:
        return replace(state, probes=(*under_way, now)), True
    return replace(state, probes=under_way, total_rejected=state.total_rejected + 1), False


def record_success(state: BreakerState, config: BreakerConfig, now: float) -> BreakerState:
    """The state after a call succeeded.

    Half-open, it counts only while a probe is under way: the success of a call that was let through long ago says
    nothing about now.
    """
    state = replace(state, total_successes=state.total_successes + 1)
    if state.phase == "closed":
        return replace(state, failures=0)
    if state.phase == "open":
        return state
    under_way = tuple(start for start in state.probes if now - start < config.timeout_s)
    if not under_way:
        return replace(state, probes=())
    if state.probe_successes + 1 >= config.success_threshold:
        return replace(state, phase="closed", failures=0, probes=(), probe_successes=0)
    return replace(state, probes=under_way[1:], probe_successes=state.probe_successes + 1)


def record_failure(state: BreakerState, config: BreakerConfig, now: float) -> BreakerState:
    """The state after a call failed. Half-open, any failure opens it again, late or not: it is the safe reading."""
    state = replace(state, total_failures=state.total_failures + 1)
    if state.phase == "open":
        return state
    failures = state.failures + 1 if state.phase == "closed" else 0
    if state.phase == "closed" and failures < config.failure_threshold:
        return replace(state, failures=failures)
    return replace(
        state,
        phase="open",
        failures=0,
        opened_at=now,
        probes=(),
        probe_successes=0,
        total_opened=state.total_opened + 1,
    )


def _not_in_future(state: BreakerState, now: float) -> BreakerState:
    if state.opened_at <= now and all(start <= now for start in state.probes):
        return state
    return replace(state, opened_at=min(state.opened_at, now), probes=tuple(min(start, now) for start in state.probes))


class CircuitBreaker:
    """One breaker for all threads of a process.

    Parameters
    ----------
    config
        None takes the defaults.

    Notes
    -----
    Every method takes `now` in seconds; a breaker has no clock of its own.
    """

    def __init__(self, config: BreakerConfig | None = None) -> None:
        self.config = config or BreakerConfig()
        self._state = CLOSED
        self._lock = threading.Lock()

    @property
    def state(self) -> BreakerState:
        """The state as it is, counters included; immutable."""
        return self._state

    def allow(self, now: float) -> bool:
        """Whether one call may be made; see `allow`."""
        with self._lock:
            self._state, allowed = allow(self._state, self.config, now)
            return allowed

    def record_success(self, now: float) -> None:
        """A call that was allowed succeeded."""
        with self._lock:
            self._state = record_success(self._state, self.config, now)

    def record_failure(self, now: float) -> None:
        """A call that was allowed failed."""
        with self._lock:
            self._state = record_failure(self._state, self.config, now)

    def phase(self, now: float) -> Phase:
        """``closed``, ``open`` or ``half_open`` at an instant."""
        return phase_at(self._state, self.config, now)

    def status(self, now: float) -> bool:
        """True while closed, False while open or half-open."""
        return self.phase(now) == "closed"

    def counts(self) -> dict[str, int]:
        """Successes, failures, rejected calls and openings since the start or the last reset."""
        state = self._state
        return {
            "successes": state.total_successes,
            "failures": state.total_failures,
            "rejected": state.total_rejected,
            "opened": state.total_opened,
        }

    def reset(self) -> None:
        """Closed, with all counters at zero."""
        with self._lock:
            self._state = CLOSED
