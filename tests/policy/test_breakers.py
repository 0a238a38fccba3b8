"""The circuit breaker: its transitions one by one, against a reference model, and under many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tinydancer.errors import InvalidInputError
from tinydancer.policy.breakers import (
    CLOSED,
    BreakerConfig,
    CircuitBreaker,
    allow,
    phase_at,
    record_failure,
    record_success,
)

CONFIG = BreakerConfig(failure_threshold=3, timeout_s=10.0)


def opened(config=CONFIG, at=100.0):
    state = CLOSED
    for _ in range(config.failure_threshold):
        state = record_failure(state, config, at)
    return state


def test_failures_in_a_row_open_it_and_a_success_starts_the_row_anew():
    state = CLOSED
    for _ in range(5):
        state = record_failure(state, CONFIG, 1.0)
        state = record_failure(state, CONFIG, 1.0)
        assert state.phase == "closed"
        state = record_success(state, CONFIG, 1.0)
    for expected in ("closed", "closed", "open"):
        state = record_failure(state, CONFIG, 2.0)
        assert state.phase == expected
    assert state.opened_at == 2.0
    assert state.total_opened == 1


def test_open_rejects_until_the_timeout_to_the_instant():
    state = opened()
    for now in (100.0, 105.0, 109.999):
        after, allowed = allow(state, CONFIG, now)
        assert not allowed
        assert after.total_rejected == 1
        assert phase_at(state, CONFIG, now) == "open"
    assert phase_at(state, CONFIG, 110.0) == "half_open"
    after, allowed = allow(state, CONFIG, 110.0)
    assert allowed
    assert after.phase == "half_open"


def test_one_probe_closes_it_or_opens_it_again():
    probing, _ = allow(opened(), CONFIG, 110.0)
    assert allow(probing, CONFIG, 111.0)[1] is False
    closed = record_success(probing, CONFIG, 112.0)
    assert closed.phase == "closed"
    assert closed.failures == 0
    assert allow(closed, CONFIG, 112.0)[1]
    again = record_failure(probing, CONFIG, 112.0)
    assert (again.phase, again.opened_at, again.total_opened) == ("open", 112.0, 2)
    assert not allow(again, CONFIG, 121.9)[1]
    assert allow(again, CONFIG, 122.0)[1]


def test_several_probes_and_successes():
    config = BreakerConfig(failure_threshold=1, timeout_s=10.0, half_open_probes=2, success_threshold=3)
    state = opened(config)
    verdicts = []
    for _ in range(4):
        state, allowed = allow(state, config, 110.0)
        verdicts.append(allowed)
    assert verdicts == [True, True, False, False]
    state = record_success(state, config, 111.0)
    state, allowed = allow(state, config, 111.0)
    assert allowed
    state = record_success(state, config, 111.0)
    assert state.phase == "half_open"
    assert record_success(state, config, 111.0).phase == "closed"


@pytest.mark.parametrize("first_round", [(record_success, record_failure), (record_success, record_success)])
def test_every_half_open_spell_counts_its_probes_anew(first_round):
    config = BreakerConfig(failure_threshold=1, timeout_s=10.0, half_open_probes=2, success_threshold=2)
    state = opened(config)
    for report in first_round:
        state, allowed = allow(state, config, 110.0)
        assert allowed
        state = report(state, config, 110.0)
    # A third call was let through before the spell ended, or the breaker closed; now it fails, and time passes.
    state = record_failure(state, config, 111.0)
    assert state.phase == "open"
    assert (state.probes, state.probe_successes) == ((), 0)
    state, _ = allow(state, config, 130.0)
    state = record_success(state, config, 130.0)
    assert state.phase == "half_open"


def test_closing_forgets_the_other_probes():
    config = BreakerConfig(failure_threshold=1, timeout_s=10.0, half_open_probes=3)
    state = opened(config)
    for _ in range(3):
        state, _ = allow(state, config, 110.0)
    closed = record_success(state, config, 110.0)
    assert (closed.phase, closed.probes, closed.probe_successes) == ("closed", (), 0)


def test_a_probe_that_nobody_reports_on_is_released():
    state, _ = allow(opened(), CONFIG, 110.0)
    assert not allow(state, CONFIG, 119.9)[1]
    state, allowed = allow(state, CONFIG, 120.0)
    assert allowed
    assert state.probes == (120.0,)


def test_a_success_that_comes_too_late_does_not_close_it():
    state, _ = allow(opened(), CONFIG, 110.0)
    late = record_success(state, CONFIG, 130.0)
    assert late.phase == "half_open"
    assert late.probes == ()
    assert late.total_successes == 1


def test_reports_while_open_only_count():
    state = opened()
    for report in (record_success, record_failure):
        after = report(state, CONFIG, 105.0)
        assert (after.phase, after.opened_at) == ("open", 100.0)
    assert record_failure(state, CONFIG, 105.0).total_failures == 4


def test_a_clock_that_jumps_back_costs_at_most_one_timeout():
    state = opened(at=1_000_000.0)
    state, allowed = allow(state, CONFIG, 50.0)
    assert not allowed
    assert not allow(state, CONFIG, 59.9)[1]
    state, allowed = allow(state, CONFIG, 60.0)
    assert allowed
    # The same for a probe under way.
    state, allowed = allow(state, CONFIG, 5.0)
    assert not allowed
    assert allow(state, CONFIG, 15.0)[1]
    # And its success counts, though it seems to come before it began.
    probing, _ = allow(opened(), CONFIG, 110.0)
    assert record_success(probing, CONFIG, 3.0).phase == "closed"


def test_a_clock_that_jumps_forward_is_harmless():
    state, allowed = allow(opened(), CONFIG, 1e12)
    assert allowed
    assert record_success(state, CONFIG, 1e12).phase == "closed"


@pytest.mark.parametrize(
    "values",
    [
        {"failure_threshold": 0},
        {"failure_threshold": 1.5},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"half_open_probes": 0},
        {"success_threshold": True},
    ],
)
def test_bad_configurations_are_refused(values):
    with pytest.raises(InvalidInputError):
        BreakerConfig(**values)


class Reference(RuleBasedStateMachine):
    """The breaker beside the plainest possible bookkeeping, on a clock that goes forward."""

    @initialize(
        threshold=st.integers(1, 3), timeout=st.integers(1, 4), probes=st.integers(1, 3), successes=st.integers(1, 3)
    )
    def start(self, threshold, timeout, probes, successes):
        self.config = BreakerConfig(
            failure_threshold=threshold, timeout_s=timeout, half_open_probes=probes, success_threshold=successes
        )
        self.breaker = CircuitBreaker(self.config)
        self.now = 0
        self.events: list[str] = []  # since it last closed
        self.since: int | None = None  # when it opened; None while closed
        self.half = False
        self.running: list[int] = []
        self.good = 0
        self.totals = {"successes": 0, "failures": 0, "rejected": 0, "opened": 0}

    def drop_expired(self):
        self.running = [start for start in self.running if self.now - start < self.config.timeout_s]

    def open(self):
        self.since, self.half, self.running, self.good, self.events = self.now, False, [], 0, []
        self.totals["opened"] += 1

    @rule(seconds=st.integers(0, 5))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def ask(self):
        expected = True
        if self.since is not None:
            if not self.half and self.now - self.since >= self.config.timeout_s:
                self.half = True
            self.drop_expired()
            expected = self.half and len(self.running) < self.config.half_open_probes
            if expected:
                self.running.append(self.now)
            else:
                self.totals["rejected"] += 1
        assert self.breaker.allow(self.now) is expected

    @rule()
    def succeed(self):
        self.breaker.record_success(self.now)
        self.totals["successes"] += 1
        self.drop_expired()
        if self.since is None:
            self.events = []
        elif self.half and self.running:
            self.running.pop(0)
            self.good += 1
            if self.good == self.config.success_threshold:
                self.since, self.half, self.running, self.good = None, False, [], 0

    @rule()
    def fail(self):
        self.breaker.record_failure(self.now)
        self.totals["failures"] += 1
        if self.half:
            self.open()
        elif self.since is None:
            self.events.append("failure")
            if len(self.events) == self.config.failure_threshold:
                self.open()

    @rule()
    def reset(self):
        self.breaker.reset()
        self.events, self.since, self.half, self.running, self.good = [], None, False, [], 0
        self.totals = dict.fromkeys(self.totals, 0)

    @invariant()
    def agrees(self):
        if not hasattr(self, "breaker"):
            return
        assert self.breaker.status(self.now) is (self.since is None)
        waiting = self.since is not None and not self.half and self.now - self.since < self.config.timeout_s
        phase = "closed" if self.since is None else "open" if waiting else "half_open"
        assert self.breaker.phase(self.now) == phase
        assert self.breaker.counts() == self.totals
        assert len(self.breaker.state.probes) <= self.config.half_open_probes


TestReference = Reference.TestCase
TestReference.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


@given(
    st.lists(st.tuples(st.sampled_from(["ask", "succeed", "fail"]), st.floats(0, 1e6))),
    st.integers(1, 3),
    st.floats(0, 1e6),
)
def test_whatever_the_clock_did_it_lets_calls_through_again(events, probes, now):
    config = BreakerConfig(failure_threshold=2, timeout_s=10.0, half_open_probes=probes)
    breaker = CircuitBreaker(config)
    for event, instant in events:
        if event == "ask":
            breaker.allow(instant)
        elif event == "succeed":
            breaker.record_success(instant)
        else:
            breaker.record_failure(instant)
    # One question tells it the time; a timeout later it lets a call through.
    breaker.allow(now)
    assert breaker.allow(now + config.timeout_s + 1e-3)


@pytest.mark.parametrize("probes", [1, 3])
def test_fifty_threads_get_no_more_probes_than_the_bound(probes):
    breaker = CircuitBreaker(BreakerConfig(failure_threshold=1, timeout_s=5.0, half_open_probes=probes))
    for round_ in range(20):
        start = 100.0 * round_
        breaker.record_failure(start)
        gate = threading.Barrier(50)

        def ask(now=start + 50.0, gate=gate):
            gate.wait()
            return breaker.allow(now)

        with ThreadPoolExecutor(50) as pool:
            verdicts = [future.result() for future in [pool.submit(ask) for _ in range(50)]]
        assert sum(verdicts) == probes
        breaker.record_success(start + 51.0)
        assert breaker.status(start + 51.0)


def test_no_report_from_many_threads_is_lost():
    breaker = CircuitBreaker(BreakerConfig(failure_threshold=10**6))

    def report():
        for _ in range(500):
            breaker.record_failure(1.0)
            breaker.record_success(1.0)

    threads = [threading.Thread(target=report) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert breaker.counts() == {"successes": 8000, "failures": 8000, "rejected": 0, "opened": 0}
