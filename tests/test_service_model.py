"""The service with a trained model: what decides, what outcomes teach, and models that change while it runs."""

from __future__ import annotations

import math
import sqlite3
import sys
import threading
from typing import Any

import numpy as np
import pytest

from tests.quality import SMALL_SPACE, hand_made_model, trained_model, unit
from tinydancer.abilities import AbilityState, features_of
from tinydancer.config import EmbedderSettings, Settings
from tinydancer.embedding.base import CallableEmbedder
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.errors import SpaceMismatchError
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.quality import KIND, AgentProfile, QualityModel, shipped_model_path
from tinydancer.model.surface import surface_features
from tinydancer.model_learning import KEEP_AFTER
from tinydancer.models import add_model, remove_model, use_model
from tinydancer.service import TinyDancer
from tinydancer.snapshot import DecisionSettings, bar_index
from tinydancer.store.sqlite import SqliteStore
from tinydancer.types import MINILM_SPACE

TEXTS = (
    "What is 17 * 23? Show every step (and check it).", "Write a short poem about the harbour at night.",
    "Refactor this function so that it does not recurse:\n\ndef f(n): return f(n - 1) + f(n - 2)",
    "Ist morgen ein Feiertag in München?", "Which of these is NOT a noble gas: argon, neon, or nitrogen?",
)  # fmt: skip
PLAIN = Settings(decisions=DecisionSettings(match_discount=0.0))
"""Without the discount for lesser match, so that an expected quality is the model's own."""


@pytest.fixture(scope="module")
def embedder():
    return StaticEmbedder()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A model of the agents a to f, with an interval."""
    path = tmp_path_factory.mktemp("model") / "mine.safetensors"
    trained_model()[0].save(path)
    return path


@pytest.fixture
def clock():
    """Seconds that a test may move on."""
    return [1000.0]


@pytest.fixture
def opened(tmp_path, embedder, clock):
    """Opens services over one SQLite file, and closes them."""
    services = []

    def open_one(settings=PLAIN, **more):
        store = SqliteStore(tmp_path / "store.db", clock=lambda: clock[0])
        services.append(TinyDancer(store, settings=settings, embedder=embedder, clock=lambda: clock[0], **more))
        return services[-1]

    yield open_one
    for service in services:
        service.close()


@pytest.fixture
def dancer(opened):
    service = opened()
    for name, quality in (("a", 0.9), ("b", 0.8), ("new", 0.6)):
        service.register_agent(name, capabilities=["chat"], cost_per_request=0.01, quality_score=quality)
    return service


def use(dancer, path, name="mine"):
    add_model(dancer.store, name, path.read_bytes())
    use_model(dancer.store, name)


def loaded(path) -> Any:
    """The model of a file; its optional parts are there."""
    return QualityModel.load(path)


def label_of(decision):
    """Before the colon of the weights' name; None without a model."""
    return None if decision.model is None else decision.model.split(":")[0]


def only(dancer, name, text=TEXTS[0], **more):
    """The decision when the others are excluded."""
    others = [r.agent.name for r in dancer.list_agents() if r.agent.name != name]
    decision = dancer.route(text, constraints={"excluded_agents": others}, **more)
    assert decision.agent_name == name
    return decision


def judge(dancer, name, quality, text=TEXTS[0], **more):
    dancer.feedback(only(dancer, name, text, **more), quality=quality)


def said(model, embedder, texts, profiles):
    return model.predict(embedder.embed(texts).vectors, surface_features(texts), profiles)


# --- Who decides ----------------------------------------------------------------------------------------------------


def test_nothing_is_active_unless_somebody_says_so(dancer, opened, model_file):
    before = [d.to_dict() for d in dancer.route_batch(TEXTS)]
    assert all(d["model"] is None for d in before)
    assert "No trained model" in before[0]["reasoning"]
    assert dancer.reload_model() is None
    add_model(dancer.store, "mine", model_file.read_bytes())
    after = [d.to_dict() for d in dancer.route_batch(TEXTS)]
    ids = {"decision_id": None}
    assert [d | ids for d in after] == [d | ids for d in before]
    assert dancer.store.list_decisions()[0].features is None, "nothing is kept for a model that does not decide"


def test_a_decision_with_a_model_is_the_models(dancer, embedder, model_file):
    use(dancer, model_file)
    model = loaded(model_file)
    profiles = [AgentProfile(name="a"), AgentProfile(name="b"), AgentProfile(name="new", stated_quality=0.6)]
    truth = said(model, embedder, TEXTS, profiles)
    for text, row in zip(TEXTS, truth, strict=True):
        best = dancer.route(text, "quality")
        assert best.agent_name == ("a", "b", "new")[row.argmax()]
        for name, quality in zip(("a", "b", "new"), row, strict=True):
            decision = only(dancer, name, text)
            assert decision.expected_quality == pytest.approx(quality, abs=1e-5)
            assert decision.model == f"mine:{model.sha256[:12]}"
            assert f"The model mine:{model.sha256[:12]} predicts the quality" in decision.reasoning
    recorded = dancer.store.list_decisions(1)[0]
    assert recorded.model == decision.model
    vectors, facts = features_of([recorded.features], MINILM_SPACE)
    np.testing.assert_allclose(vectors[0], embedder.embed(TEXTS[-1:]).vectors[0], atol=1e-3)
    np.testing.assert_allclose(facts[0], surface_features(TEXTS[-1:])[0], rtol=1e-3)


def test_confidence_and_uncertainty_are_the_models(dancer, model_file):
    use(dancer, model_file)
    model = loaded(model_file)
    for bar in (0.5, 0.05, 0.9, 1.0):
        decision = dancer.route(TEXTS[0], "quality", min_quality=bar, on_no_match="null")
        if decision is None:
            continue
        q, (shift, slope) = decision.expected_quality, model.bars[bar_index(bar)]
        truth = 1.0 / (1.0 + math.exp(-(shift + slope * math.log(q / (1.0 - q)))))
        assert decision.confidence == pytest.approx(truth, abs=1e-9)
        assert 0.0 <= decision.confidence <= 1.0
    decision = dancer.route(TEXTS[0], "quality")
    assert decision.uncertainty == pytest.approx(float(model.interval.width(decision.expected_quality)))
    assert 0.0 < decision.uncertainty <= 1.0
    batch = dancer.route_batch(TEXTS, "quality")
    figures = batch[0].batch.chosen_figures()
    np.testing.assert_allclose(figures.confidence, [d.confidence for d in batch])
    np.testing.assert_allclose(figures.uncertainty, [d.uncertainty for d in batch])


def test_a_model_without_interval_leaves_the_deployments(dancer, tmp_path):
    bare = trained_model()[0].with_interval(None)
    bare.save(tmp_path / "bare.safetensors")
    use(dancer, tmp_path / "bare.safetensors")
    assert dancer.route(TEXTS[0]).uncertainty == 1.0
    wide = trained_model()[0].with_interval(ConformalInterval(0.05, 0.9, 500))
    wide.save(tmp_path / "wide.safetensors")
    use(dancer, tmp_path / "wide.safetensors", "wide")
    assert dancer.route(TEXTS[0]).uncertainty <= 0.1 + 1e-9


def test_only_language_models_and_known_names_are_covered(dancer, model_file):
    use(dancer, model_file)
    dancer.register_agent("calculator", "function", quality_score=0.99)
    dancer.register_agent("person", "human", quality_score=0.7)
    dancer.register_agent("c", "function", quality_score=0.99)  # of another type, but the model saw it answer
    for name, stated in (("calculator", 0.99), ("person", 0.7)):
        decision = only(dancer, name)
        assert decision.model is None
        assert decision.expected_quality == pytest.approx(stated)
        assert "No trained model" in decision.reasoning
        assert decision.uncertainty == 1.0
    assert only(dancer, "c").model is not None
    assert only(dancer, "c").expected_quality != pytest.approx(0.99)


def test_vectors_alone_are_requests_too(dancer, embedder, model_file):
    use(dancer, model_file)
    model = loaded(model_file)
    vectors = embedder.embed(TEXTS).vectors
    profiles = [AgentProfile(name="a"), AgentProfile(name="b"), AgentProfile(name="new", stated_quality=0.6)]
    truth = model.predict(vectors, None, profiles).max(axis=1)
    batch = dancer.route_batch(embeddings=vectors, optimize_for="quality")
    np.testing.assert_allclose([d.expected_quality for d in batch], truth, atol=1e-5)
    assert dancer.route(embedding=vectors[0], optimize_for="quality").expected_quality == pytest.approx(truth[0], 1e-5)
    both = dancer.route_batch(TEXTS, "quality", embeddings=vectors)
    by_text = dancer.route_batch(TEXTS, "quality")
    assert [d.expected_quality for d in both] == pytest.approx([d.expected_quality for d in by_text], abs=1e-6)
    kept = dancer.store.list_decisions(1000)[-1].features
    assert np.isnan(features_of([kept], MINILM_SPACE)[1]).all()


def test_a_batch_decides_as_single_requests_do(dancer, model_file):
    use(dancer, model_file)
    many = [f"{TEXTS[i % 5]} {i}" for i in range(300)]  # more than a block
    for objective in ("quality", "cost", "balanced"):
        together = dancer.route_batch(many, objective)
        alone = [dancer.route(text, objective) for text in many[::7]]
        assert [d.agent_name for d in together[::7]] == [d.agent_name for d in alone]
        assert [d.expected_quality for d in together[::7]] == pytest.approx(
            [d.expected_quality for d in alone], abs=1e-6
        )
        assert [d.model for d in together[::7]] == [d.model for d in alone]


@pytest.mark.parametrize("count", [2, 3, 5, 8, 19])
def test_agents_that_are_alike_tie_and_the_first_name_wins(opened, model_file, count):
    service = opened()
    for i in range(count):
        service.register_agent(f"twin {i:02}", capabilities=["chat"], cost_per_request=0.01, quality_score=0.7)
    use(service, model_file)
    many = [f"{TEXTS[i % 5]} {i}" for i in range(40)]
    chosen = {d.agent_name for d in service.route_batch(many, "quality")}
    chosen |= {service.route(text, "quality").agent_name for text in many}
    assert chosen == {"twin 00"}


def test_a_model_of_another_space_is_refused(tmp_path):
    with TinyDancer(
        SqliteStore(tmp_path / "s.db", space=SMALL_SPACE), embedder=CallableEmbedder(lambda t: np.ones((len(t), 6)),
        SMALL_SPACE),
    ) as service:  # fmt: skip
        service.register_agent("a")
        with pytest.raises(SpaceMismatchError, match="small"):
            add_model(service.store, "odd", shipped_model_path().read_bytes())
        before = service.route("Hello")
        with pytest.raises(SpaceMismatchError, match=r"The shipped model .*small"):
            use_model(service.store, "shipped")
        assert service.route("Hello").model == before.model  # refused, not chosen and failing later
        hand_made_model().save(tmp_path / "m.safetensors")
        use(service, tmp_path / "m.safetensors")
        assert label_of(service.route("Hello")) == "mine"


# --- Learning -------------------------------------------------------------------------------------------------------


def test_judged_answers_change_what_is_expected_of_that_agent(dancer, model_file):
    use(dancer, model_file)
    before = {name: only(dancer, name).expected_quality for name in ("a", "b", "new")}
    for _ in range(30):
        judge(dancer, "new", 1.0)
    after = {name: only(dancer, name).expected_quality for name in ("a", "b", "new")}
    assert after["new"] > before["new"] + 0.15
    assert {name: after[name] for name in "ab"} == {name: before[name] for name in "ab"}
    for _ in range(60):
        judge(dancer, "new", 0.0)
    assert only(dancer, "new").expected_quality < after["new"] - 0.3
    for _ in range(30):
        dancer.feedback(only(dancer, "a"), success=False)
    assert only(dancer, "a").expected_quality < before["a"] - 0.05, "a failed call is a bad answer"


def test_the_prediction_is_that_of_the_update(dancer, embedder, model_file):
    use(dancer, model_file)
    model = loaded(model_file)
    qualities = [1.0, 0.0, 0.5, 1.0, 1.0]
    for text, quality in zip(TEXTS, qualities, strict=True):
        judge(dancer, "new", quality, text)
    packed = [row.features for row in reversed(dancer.store.list_decisions(5))]
    beliefs = model.believed([AgentProfile(name="new", stated_quality=0.6)]).updated(
        np.zeros(5, np.intp), model.represent(*features_of(packed, MINILM_SPACE)), qualities
    )
    truth = model.predict(embedder.embed(TEXTS).vectors, surface_features(TEXTS), beliefs)[:, 0]
    assert [only(dancer, "new", text).expected_quality for text in TEXTS] == pytest.approx(truth.tolist(), abs=1e-5)


def test_outcomes_that_tell_nothing_of_a_request_are_ignored(dancer, model_file):
    judge(dancer, "a", 0.0)  # before any model: no features were kept
    use(dancer, model_file)
    before = only(dancer, "a").expected_quality
    dancer.update_agent_metrics("a", quality=0.0)
    dancer.feedback(only(dancer, "a"), latency_ms=5.0)
    assert only(dancer, "a").expected_quality == before


def test_the_record_from_before_the_model_is_what_an_unknown_agent_starts_from(dancer, model_file):
    for _ in range(200):
        dancer.update_agent_metrics("new", quality=0.95)
    use(dancer, model_file)
    started = np.mean([only(dancer, "new", text).expected_quality for text in TEXTS])
    assert started > 0.85, "stated was 0.6"
    judge(dancer, "new", 1.0)
    assert np.mean([only(dancer, "new", text).expected_quality for text in TEXTS]) > started - 0.01


@pytest.mark.parametrize("answers", [30, KEEP_AFTER + 20])
def test_another_service_over_the_same_file_knows_the_same(dancer, opened, clock, model_file, answers):
    """One learns answer by answer, the other reads them all at once, or what was written down and the rest."""
    use(dancer, model_file)
    witness = opened()
    first = only(witness, "new").expected_quality
    rng = np.random.default_rng(0)
    for i in range(answers):
        judge(dancer, "new" if i % 3 else "a", float(rng.random() < 0.9), f"{TEXTS[i % 5]} {i}")
    clock[0] += 10.0
    late = opened()
    stored = dancer.store.ability_state(loaded(model_file).sha256)
    assert (stored is not None) == (answers > KEEP_AFTER)
    for name in ("a", "b", "new"):
        theirs = [only(service, name, text).expected_quality for service in (witness, late) for text in TEXTS]
        mine = [only(dancer, name, text).expected_quality for text in TEXTS] * 2
        assert theirs == pytest.approx(mine, abs=1e-5)
    assert abs(only(witness, "new").expected_quality - first) > 0.02


def test_what_was_written_down_and_cannot_be_read_is_learned_again(dancer, opened, tmp_path, model_file):
    use(dancer, model_file)
    for i in range(KEEP_AFTER + 5):
        judge(dancer, "new", 1.0, f"{TEXTS[i % 5]} {i}")
    learned = only(dancer, "new").expected_quality
    connection = sqlite3.connect(tmp_path / "store.db")
    with connection:
        assert connection.execute("UPDATE abilities SET state = x'00ff'").rowcount == 1
    connection.close()
    late = opened()
    assert only(late, "new").expected_quality == pytest.approx(learned, abs=1e-4)


def test_what_is_learned_on_one_model_is_not_mixed_with_another(dancer, tmp_path, model_file):
    use(dancer, model_file)
    for _ in range(10):
        judge(dancer, "new", 1.0)
    mine = only(dancer, "new").expected_quality
    hand_made_model(("a", "x"), space=MINILM_SPACE).save(tmp_path / "two.safetensors")
    use(dancer, tmp_path / "two.safetensors", "two")
    assert label_of(only(dancer, "new")) == "two"
    use_model(dancer.store, "mine")
    assert only(dancer, "new").expected_quality == pytest.approx(mine, abs=1e-6)


def test_a_removed_agent_is_forgotten(dancer, model_file):
    use(dancer, model_file)
    for _ in range(20):
        judge(dancer, "new", 1.0)
        judge(dancer, "b", 0.0)
    learned = only(dancer, "b").expected_quality
    dancer.remove_agent("new")
    assert [r.agent.name for r in dancer.list_agents()] == ["a", "b"]
    assert only(dancer, "b").expected_quality == pytest.approx(learned, abs=1e-5), "the others keep what was learned"


@pytest.mark.parametrize("answers", [20, KEEP_AFTER + 5])
def test_an_agent_that_is_registered_again_starts_anew(dancer, opened, model_file, answers):
    use(dancer, model_file)
    fresh = only(dancer, "new").expected_quality
    for i in range(answers):  # the larger number is written down in the store, too
        judge(dancer, "new", 0.0, f"{TEXTS[i % 5]} {i}")
    assert only(dancer, "new").expected_quality < fresh - 0.1
    (old,) = [r.agent for r in dancer.list_agents() if r.agent.name == "new"]
    dancer.remove_agent("new")
    dancer.register_agent_full(old.to_dict())
    assert only(dancer, "new").expected_quality == pytest.approx(fresh, abs=1e-5)
    assert only(opened(), "new").expected_quality == pytest.approx(fresh, abs=1e-5)


def test_updating_an_agent_keeps_what_was_learned(dancer, model_file):
    use(dancer, model_file)
    for _ in range(20):
        judge(dancer, "new", 1.0)
    learned = only(dancer, "new").expected_quality
    dancer.update_agent("new", {"cost_per_request": 0.5})
    assert only(dancer, "new").expected_quality == pytest.approx(learned, abs=1e-5)


def test_features_are_kept_without_a_model_if_asked_for(opened, embedder):
    service = opened(Settings(record_features=True))
    service.register_agent("a", quality_score=0.5)
    service.feedback(service.route(TEXTS[0]), quality=1.0)
    (row,) = service.store.graded_features(0, 10)
    assert (row.agent_name, row.quality) == ("a", 1.0)
    np.testing.assert_allclose(
        features_of([row.features], MINILM_SPACE)[1][0], surface_features(TEXTS[:1])[0], rtol=1e-3
    )


def test_an_unrecorded_decision_teaches_nothing_and_does_no_harm(opened, model_file):
    service = opened(Settings(record_decisions=False))
    service.register_agent("a", quality_score=0.5)
    use(service, model_file)
    before = service.route(TEXTS[0]).expected_quality
    service.feedback(service.route(TEXTS[0]), quality=0.0)
    assert service.route(TEXTS[0]).expected_quality == before


def test_what_is_written_down_is_of_registered_agents(dancer, model_file):
    use(dancer, model_file)
    for names in (("a", "new"), ("a", "b")):
        for i in range(KEEP_AFTER + 1):
            judge(dancer, names[i % 2], 1.0)
        dancer.route(TEXTS[0])
        _, raw = dancer.store.ability_state(loaded(model_file).sha256)
        assert AbilityState.from_bytes(raw).names == names
        if "new" in names:
            dancer.remove_agent("new")


# --- Models that change ---------------------------------------------------------------------------------------------


@pytest.fixture
def eager_threads():
    """Threads that take turns every 0.1 ms: more orders of events in less time."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("eager_threads")
def test_switching_while_sixteen_threads_route(dancer, opened, tmp_path):
    """Not one error, and each decision is wholly that of the model it names."""
    settings = Settings(record_decisions=False)
    busy = opened(settings)
    trained_model()[0].save(tmp_path / "second.safetensors")
    add_model(dancer.store, "second", (tmp_path / "second.safetensors").read_bytes())
    table = {}
    names = {}
    for choice in ("shipped", "second", "none"):
        use_model(dancer.store, choice)
        alone = opened(settings)
        names[choice] = alone.reload_model()
        for text in TEXTS:
            table[names[choice], text] = told(alone.route(text, "quality"))
    assert len(set(names.values())) == 3
    assert len({table[name, TEXTS[0]] for name in names.values()}) == 3
    done, seen = threading.Event(), set()
    failures: list[Any] = []

    def work(number):
        try:
            i = number
            while not done.is_set():
                text = TEXTS[i % len(TEXTS)]
                decisions = [busy.route(text, "quality")] if i % 3 else busy.route_batch([text] * 2, "quality")
                for decision in decisions:
                    seen.add(decision.model)
                    if not alike(told(decision), table[decision.model, text]):
                        failures.append((told(decision), table[decision.model, text]))
                i += 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    switcher = opened(settings)
    for number in range(50):
        use_model(switcher.store, ("shipped", "second", "none")[number % 3])
        if number % 5 == 0:
            busy.reload_model()
        done.wait(0.02)
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert seen == set(names.values())


def told(decision):
    return decision.agent_name, decision.expected_quality, decision.model


def alike(one, other):
    """Equal, but for the last bits of float32, in which a request of a batch may differ from one on its own."""
    return one[::2] == other[::2] and abs(one[1] - other[1]) < 1e-6


def test_a_choice_counts_from_the_next_request_on_in_every_service(dancer, opened, model_file):
    other = opened()
    assert other.route(TEXTS[0]).model is None
    use(dancer, model_file)
    assert label_of(other.route(TEXTS[0])) == "mine"
    use_model(dancer.store, "shipped")
    shipped = QualityModel.load(shipped_model_path(), label="shipped").name
    assert other.route(TEXTS[0]).model == shipped
    use_model(dancer.store, "none")
    assert other.route(TEXTS[0]).model is None
    use_model(dancer.store, "mine")
    remove_model(dancer.store, "mine")
    assert other.route(TEXTS[0]).model is None


def test_a_model_that_is_replaced_is_read_anew(dancer, tmp_path, model_file):
    use(dancer, model_file)
    first = dancer.route(TEXTS[0]).model
    hand_made_model(("a", "b"), space=MINILM_SPACE).save(tmp_path / "two.safetensors")
    add_model(dancer.store, "mine", (tmp_path / "two.safetensors").read_bytes(), replace=True)
    assert dancer.route(TEXTS[0]).model not in (first, None)


def test_reload_model_reads_again(dancer, model_file):
    use(dancer, model_file)
    before = dancer.snapshot()
    assert dancer.snapshot() is before
    name = dancer.reload_model()
    assert name == before.predictor.model.name
    assert dancer.snapshot() is not before
    assert dancer.snapshot().predictor.model is not before.predictor.model


def test_a_model_that_is_removed_while_it_is_being_read(tmp_path, embedder, model_file):
    """Between the question which one decides and the reading of its file another process may remove it."""

    class Unlucky(SqliteStore):
        def model_artifact(self, kind, name):
            self.delete_model(kind, name)
            return super().model_artifact(kind, name)

    with TinyDancer(Unlucky(tmp_path / "s.db"), embedder=embedder) as service:
        service.register_agent("a")
        use(service, model_file)
        assert service.route(TEXTS[0]).model is None
        assert service.store.active_model(KIND) is None


def test_what_a_snapshot_holds_cannot_be_changed(dancer, model_file):
    use(dancer, model_file)
    judge(dancer, "a", 1.0)
    predictor = dancer.snapshot().predictor
    for array in (predictor.abilities, predictor.covered, predictor.discount):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    assert predictor.covered.all()
    assert predictor.discount[0] < predictor.discount[2] == pytest.approx(1.0)


def test_the_match_discount_fades_with_what_the_model_saw(opened, model_file):
    """Of an agent without answers the capabilities count in full, of one with many hardly at all."""
    plain, counted = opened(), opened(Settings(decisions=DecisionSettings(match_discount=0.5)))
    plain.register_agent("a", capabilities=["poetry"])
    plain.register_agent("new", capabilities=["poetry"], quality_score=0.6)
    plain.register_agent("sums", capabilities=["arithmetic and calculation"], quality_score=0.6)
    use(plain, model_file)
    batch = counted.route_batch([TEXTS[0]]), plain.route_batch([TEXTS[0]])
    values = [
        {name: d.batch.values(0, i)[0] for i, name in enumerate(("a", "new", "sums"))} for (d,) in batch
    ]  # fmt: skip
    loss = {name: 1.0 - values[0][name] / values[1][name] for name in values[0]}
    assert loss["sums"] == pytest.approx(0.0, abs=1e-9)
    assert loss["new"] > 0.1
    assert 0.0 < loss["a"] < 0.05 * loss["new"]


def test_callers_who_bring_vectors_have_models_too(tmp_path, model_file):
    settings = Settings(embedder=EmbedderSettings(kind="none"))
    with TinyDancer(tmp_path / "s.db", settings=settings) as service:
        service.register_agent("a")
        use(service, model_file)
        vector = unit(np.random.default_rng(0).normal(size=(1, 384)))[0]
        assert label_of(service.route(embedding=vector)) == "mine"
        assert label_of(service.route(TEXTS[0], embedding=vector)) == "mine"
