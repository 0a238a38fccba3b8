"""The candidate router from the outside: the documents' examples, bad input, a failing model, reloading under load."""

from __future__ import annotations

import itertools
import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import (
    ArtifactError,
    ConfigError,
    InvalidInputError,
    InvalidNameError,
    InvalidVectorError,
    ModelError,
    NotFoundError,
    SpaceMismatchError,
    StoreError,
    StoreFullError,
    StoreLockedError,
)
from tinydancer.model.candidates import CandidateScorer
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.features import FeatureConfig
from tinydancer.router import Router, RouterConfig, RoutingDecision, RoutingRequest
from tinydancer.store.candidates import Storage
from tinydancer.types import Candidate, EmbeddingSpace

NOW = 1_700_000_000.0
SHAPE = FastGRNNConfig(input_dim=5, hidden_dim=8, output_dim=1)


class Clock:
    def __init__(self, now=NOW):
        self.now = now

    def __call__(self):
        return self.now


def candidate(id="a", embedding=None, **given):
    values = np.full(384, 0.5) if embedding is None else embedding
    return Candidate(
        id=id, embedding=values, **({"created_at": NOW, "access_count": 100, "success_rate": 0.95} | given)
    )


def request(*candidates, query=None, metadata=None):
    return RoutingRequest(
        query_embedding=np.full(384, 0.5) if query is None else query,
        candidates=candidates or (candidate(),),
        metadata=metadata,
    )


def constant_model(path, logit, metadata=None):
    """A model file whose every score is the logistic of `logit`."""
    model = FastGRNN(SHAPE)
    model.parameters["w_out"][:] = 0.0
    model.parameters["b_out"][:] = logit
    return model.save(path, metadata)


def broken_scorer():
    """Weights that went bad in memory: every score is NaN until they are mended."""
    model = FastGRNN(SHAPE)
    model.parameters["w_out"][:] = np.nan
    return model, CandidateScorer(model)


def test_tutorial_1_a_well_tried_match_goes_to_the_lightweight_model():
    router = Router(clock=Clock())
    response = router.route(
        RoutingRequest(
            query_embedding=np.full(384, 0.9, np.float32),
            candidates=[
                Candidate(
                    id="high-quality",
                    embedding=np.full(384, 0.85, np.float32),
                    created_at=NOW,
                    access_count=100,
                    success_rate=0.98,
                )
            ],
        )
    )
    (decision,) = response.decisions
    assert decision.candidate_id == "high-quality"
    assert decision.use_lightweight is True
    assert decision.confidence >= 0.85
    assert decision.uncertainty <= 0.15
    assert decision.model == router.model == "fallback"
    assert (response.fallback, response.agent, response.notes) == (False, None, ())


def test_quick_start_ten_uses_are_too_few_to_be_certain():
    (decision,) = Router(clock=Clock()).route(request(candidate(access_count=10))).decisions
    assert decision.confidence >= 0.85
    assert decision.uncertainty > 0.15
    assert decision.use_lightweight is False


def test_an_unrelated_candidate_is_not_confident():
    query = np.r_[np.ones(192), np.zeros(192)]
    (decision,) = Router(clock=Clock()).route(request(candidate(embedding=1 - query), query=query)).decisions
    assert decision.confidence < 0.85
    assert decision.use_lightweight is False


def test_decisions_come_by_confidence_then_id_and_in_json_ready_types():
    rng = np.random.default_rng(0)
    many = [candidate(f"c{i:03d}", rng.normal(size=384)) for i in rng.permutation(300)]
    twins = [candidate(name) for name in ("twin-b", "twin-a", "twin-c")]
    response = Router(clock=Clock()).route(request(*many, *twins))
    keys = [(-d.confidence, d.candidate_id) for d in response.decisions]
    assert keys == sorted(keys)
    assert [d.candidate_id for d in response.decisions[:3]] == ["twin-a", "twin-b", "twin-c"]
    assert {d.candidate_id for d in response.decisions} == {c.id for c in (*many, *twins)}
    assert response.candidates_processed == 303
    assert all(type(d) is RoutingDecision for d in response.decisions)
    assert json.loads(json.dumps(response.decisions[0]._asdict())) == response.decisions[0]._asdict()


@pytest.mark.parametrize("trained", [False, True])
@given(order=st.permutations(range(9)))
def test_the_order_of_candidates_does_not_matter(trained, order):
    rng = np.random.default_rng(1)
    many = [candidate(f"c{i}", rng.normal(size=384), access_count=i, metadata={"k": i % 2}) for i in range(9)]
    scorer = CandidateScorer(FastGRNN(SHAPE)) if trained else None
    router = Router(scorer=scorer, clock=Clock())
    plain = router.route(request(*many, metadata={"k": 1})).decisions
    assert router.route(request(*[many[i] for i in order], metadata={"k": 1})).decisions == plain


def test_age_is_counted_from_now_or_from_the_clock():
    router = Router(clock=Clock(NOW + 1e9))
    old = router.route(request()).decisions[0].confidence
    fresh = router.route(request(), now=NOW).decisions[0].confidence
    assert fresh > old
    assert Router(clock=Clock()).route(request()).decisions[0].confidence == fresh


def test_the_configuration_reaches_the_features():
    day = request(candidate(created_at=NOW - 86_400))
    slow = Router(RouterConfig(recency_decay=0.0), clock=Clock()).route(day).decisions[0].confidence
    fast = Router(RouterConfig(recency_decay=1.0), clock=Clock()).route(day).decisions[0].confidence
    assert slow > fast
    weights = FeatureConfig(similarity_weight=0.7, recency_weight=0.0, recency_decay=1.0)
    config = RouterConfig(features=weights)
    assert config.recency_decay == 1.0
    no_recency = Router(config, clock=Clock()).route(day).decisions[0].confidence
    assert no_recency > fast
    assert RouterConfig().recency_decay == 0.001


def test_thresholds_are_the_configured_ones():
    strict = RouterConfig(confidence_threshold=0.99)
    assert not Router(strict, clock=Clock()).route(request()).decisions[0].use_lightweight
    certain = RouterConfig(max_uncertainty=0.01)
    assert not Router(certain, clock=Clock()).route(request()).decisions[0].use_lightweight
    assert Router(clock=Clock()).route(request()).decisions[0].use_lightweight


def test_timings_are_in_microseconds():
    ticks = itertools.count(0, 1_500)
    response = Router(clock=Clock(), timer=lambda: next(ticks)).route(request())
    assert response.feature_time_us == 1.5
    assert response.inference_time_us == 3.0
    real = Router().route(request())
    assert 0 < real.feature_time_us < real.inference_time_us


@pytest.mark.parametrize("candidates", [[], (), None, "abc", 3, {"a": 1}])
def test_no_usable_list_of_candidates_is_an_error(candidates):
    with pytest.raises(InvalidInputError):
        RoutingRequest(query_embedding=np.ones(1, np.float32), candidates=candidates)


def test_bad_requests_are_errors_of_the_tree():
    with pytest.raises(InvalidInputError, match="'b' comes twice"):
        request(candidate("a"), candidate("b"), candidate("c"), candidate("b"))
    with pytest.raises(InvalidInputError, match="holds a dict"):
        request(candidate(), {"id": "b"})
    with pytest.raises(InvalidInputError, match="metadata"):
        request(metadata=[1])
    for query in ([float("nan")] * 384, [float("inf")] * 384, np.zeros(384), "text", [[1.0]]):
        with pytest.raises(InvalidVectorError):
            request(query=query)


def test_bad_input_is_no_failure_of_the_model():
    router = Router(RouterConfig(circuit_breaker_threshold=1), clock=Clock())
    spoilt = candidate("spoilt")
    spoilt.embedding[:] = np.nan
    for _ in range(3):
        with pytest.raises(SpaceMismatchError, match="'short' has 3 dimensions; the query has 384"):
            router.route(request(candidate(), candidate("short", [1.0, 2.0, 3.0])))
        with pytest.raises(InvalidVectorError, match="'spoilt'"):
            router.route(request(spoilt))
        with pytest.raises(InvalidInputError, match="now"):
            router.route(request(), now=float("nan"))
    assert router.circuit_breaker_status() is True
    assert router.circuit_breaker is not None
    assert router.circuit_breaker.counts()["failures"] == 0


def test_a_failing_model_opens_the_breaker_and_the_powerful_agent_answers():
    model, scorer = broken_scorer()
    clock = Clock()
    config = RouterConfig(circuit_breaker_threshold=2, circuit_breaker_timeout_s=30.0, powerful_agent="big-one")
    router = Router(config, scorer=scorer, clock=clock)
    first = router.route(request(candidate("b"), candidate("a")))
    assert first.fallback
    assert first.agent == "big-one"
    assert first.candidates_processed == 0
    assert first.decisions == (
        RoutingDecision("a", 0.0, False, 1.0, "none"),
        RoutingDecision("b", 0.0, False, 1.0, "none"),
    )
    assert "not finite" in first.notes[0]
    assert router.circuit_breaker_status() is True
    router.route(request())
    assert router.circuit_breaker_status() is False
    while_open = router.route(request())
    assert while_open.fallback
    assert while_open.notes == ("The circuit breaker is open, so the powerful agent 'big-one' answers.",)
    assert router.circuit_breaker is not None
    assert router.circuit_breaker.counts() == {"successes": 0, "failures": 2, "rejected": 1, "opened": 1}

    # The weights are mended, the time passes, one probe finds out.
    model.parameters["w_out"][:] = 0.0
    assert router.route(request()).fallback
    clock.now += 30.0
    healed = router.route(request())
    assert not healed.fallback
    assert healed.decisions[0].confidence == 0.5
    assert router.circuit_breaker_status() is True


def test_a_broken_request_does_not_use_up_the_probe():
    model, scorer = broken_scorer()
    clock = Clock()
    router = Router(RouterConfig(circuit_breaker_threshold=1), scorer=scorer, clock=clock)
    router.route(request())
    model.parameters["w_out"][:] = 0.0
    clock.now += 60.0
    with pytest.raises(SpaceMismatchError):
        router.route(request(candidate("short", [1.0])))
    assert not router.route(request()).fallback


def test_without_a_breaker_the_error_reaches_the_caller():
    _, scorer = broken_scorer()
    router = Router(RouterConfig(enable_circuit_breaker=False), scorer=scorer)
    assert router.circuit_breaker_status() is None
    assert router.circuit_breaker is None
    with pytest.raises(ModelError, match="not finite"):
        router.route(request())


def test_without_a_breaker_healthy_models_route():
    response = Router(RouterConfig(enable_circuit_breaker=False), clock=Clock()).route(request())
    assert response.decisions[0].use_lightweight


def test_trained_weights_with_their_calibration(tmp_path):
    interval = ConformalInterval(0.04, 0.9, 100)
    digest = constant_model(tmp_path / "m", 4.0, {"calibration": interval.to_dict()})
    router = Router(RouterConfig(model_path=tmp_path / "m"))
    (decision,) = router.route(request(candidate(access_count=0))).decisions
    assert decision.model == f"fastgrnn:{digest[:12]}"
    assert decision.confidence == pytest.approx(1 / (1 + np.exp(-4.0)), abs=1e-6)
    assert decision.uncertainty == pytest.approx(0.04 + 1 - decision.confidence, abs=1e-9)
    assert decision.use_lightweight


def test_a_model_that_cannot_be_loaded_stops_the_start(tmp_path):
    with pytest.raises(NotFoundError):
        Router(RouterConfig(model_path=tmp_path / "none"))
    (tmp_path / "bad").write_bytes(b"not a model at all")
    with pytest.raises(ArtifactError):
        Router(RouterConfig(model_path=tmp_path / "bad"))


def test_reload_takes_the_new_weights_and_keeps_the_old_where_it_fails(tmp_path):
    path = tmp_path / "m"
    constant_model(path, 1.0)
    router = Router(RouterConfig(model_path=path, circuit_breaker_threshold=1))
    assert router.circuit_breaker is not None
    router.circuit_breaker.record_failure(0.0)
    assert router.circuit_breaker_status() is False
    digest = constant_model(path, 3.0)
    assert router.reload_model() == router.model == f"fastgrnn:{digest[:12]}"
    assert router.circuit_breaker_status() is True
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ArtifactError):
        router.reload_model()
    path.unlink()
    with pytest.raises(NotFoundError):
        router.reload_model()
    assert router.model == f"fastgrnn:{digest[:12]}"


def test_reload_without_a_breaker(tmp_path):
    constant_model(tmp_path / "m", 1.0)
    router = Router(RouterConfig(model_path=tmp_path / "m", enable_circuit_breaker=False))
    assert router.reload_model() == router.model


def test_reload_without_a_file_says_so():
    with pytest.raises(ModelError, match="model_path"):
        Router().reload_model()


def test_reloading_under_sixteen_threads_never_mixes_models(tmp_path):
    path = tmp_path / "m"
    expected: dict[str, float] = {}
    for logit in (-2.0, 2.0):
        digest = constant_model(path, logit)
        expected[f"fastgrnn:{digest[:12]}"] = round(float(1 / (1 + np.exp(-logit))), 6)
    router = Router(RouterConfig(model_path=path))
    many = request(*[candidate(f"c{i}") for i in range(5)])
    done = threading.Event()
    seen: set[str] = set()
    problems: list[object] = []

    def work():
        try:
            while not done.is_set():
                response = router.route(many)
                if {(d.model, d.confidence) for d in response.decisions} - set(expected.items()):
                    problems.append(response)
                if len({d.model for d in response.decisions}) != 1 or response.fallback:
                    problems.append(response)
                seen.add(response.decisions[0].model)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for i in range(20):
        constant_model(path, -2.0 if i % 2 else 2.0)
        router.reload_model()
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert seen == set(expected)


def test_the_recorder_sees_what_was_decided_and_its_failure_undoes_nothing(tmp_path):
    rows = []
    router = Router(recorder=lambda *row: rows.append(row), clock=Clock())
    asked = request()
    answer = router.route(asked)
    assert rows == [(asked, answer)]

    def locked(*_):
        raise StoreLockedError("The store is locked.")

    answer = Router(recorder=locked, clock=Clock()).route(asked)
    assert answer.decisions[0].use_lightweight
    assert answer.notes == ("This decision was not recorded: The store is locked.",)


def test_a_fallback_is_recorded_too():
    _, scorer = broken_scorer()
    rows = []

    def full(*row):
        rows.append(row)
        raise StoreFullError("The disk is full.")

    response = Router(scorer=scorer, recorder=full).route(request())
    assert response.fallback
    assert len(response.notes) == 2
    assert len(rows) == 1


def test_a_bug_in_the_recorder_is_not_hidden():
    def bug(*_):
        raise KeyError("oops")

    with pytest.raises(KeyError):
        Router(recorder=bug).route(request())


def test_quantization_is_accepted_and_said_to_have_no_effect():
    plain = Router(clock=Clock()).route(request())
    noted = Router(RouterConfig(enable_quantization=True), clock=Clock()).route(request())
    assert noted.decisions == plain.decisions
    assert noted.notes == ("enable_quantization is not in effect: the weights are used as float32.",)


def test_decisions_are_recorded_in_the_configured_file(tmp_path):
    asked = request()
    dim = len(asked.query_embedding)
    space = EmbeddingSpace("test", dim)
    with Router(RouterConfig(database_path=tmp_path / "routing.db", space=space), clock=Clock()) as router:
        answer = router.route(asked)
        router.route(asked)
    with Storage(tmp_path / "routing.db") as storage:
        statistics = storage.get_statistics()
    light = sum(d.use_lightweight for d in answer.decisions)
    assert (statistics.total_routes, statistics.lightweight_routes) == (2 * len(answer.decisions), 2 * light)
    mean = sum(d.confidence for d in answer.decisions) / len(answer.decisions)
    assert statistics.avg_confidence == pytest.approx(mean)
    with pytest.raises(StoreError):
        Router(RouterConfig(database_path=tmp_path / "nowhere" / "routing.db"))


def test_contradictory_configurations_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="database_path"):
        Router(RouterConfig(database_path=tmp_path / "x.db"), recorder=print)
    with pytest.raises(ConfigError, match="one of them"):
        Router(RouterConfig(model_path=tmp_path / "m"), scorer=CandidateScorer())


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"confidence_threshold": 1.1}, InvalidInputError),
        ({"max_uncertainty": -0.1}, InvalidInputError),
        ({"confidence_threshold": float("nan")}, InvalidInputError),
        ({"enable_circuit_breaker": "yes"}, InvalidInputError),
        ({"enable_quantization": 1}, InvalidInputError),
        ({"circuit_breaker_threshold": 0}, InvalidInputError),
        ({"circuit_breaker_timeout_s": 0}, InvalidInputError),
        ({"recency_decay": -1.0}, InvalidInputError),
        ({"powerful_agent": " "}, InvalidNameError),
    ],
)
def test_bad_configurations_are_refused(values, error):
    with pytest.raises(error):
        RouterConfig(**values)


def test_the_model_package_offers_its_names_lazily():
    import tinydancer.model as package

    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
