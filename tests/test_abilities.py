"""What outcomes teach, as a value: it goes on from where it was, and it can be written down and read back."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.quality import SMALL_SPACE, hand_made_model, trained_model, unit
from tinydancer.abilities import AbilityState, GradedAnswer, features_of, pack_features
from tinydancer.errors import ArtifactError
from tinydancer.model.quality import AgentProfile
from tinydancer.model.surface import SURFACE_DIM, surface_features
from tinydancer.types import EmbeddingSpace

PROFILES = {
    "a": AgentProfile(name="a"), "new": AgentProfile(name="new", stated_quality=0.4),
    "other": AgentProfile(name="other", stated_quality=0.4),
}  # fmt: skip


def answers_of(count, *, names=("a", "new"), seed=0, dim=6, quality=None):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(count, dim)))
    facts = np.abs(rng.normal(1, 0.5, (count, SURFACE_DIM))).astype(np.float32)
    return [
        GradedAnswer(
            names[i % len(names)], float(rng.random() if quality is None else quality),
            pack_features(vectors[i], facts[i] if i % 5 else None),
        )
        for i in range(count)
    ]  # fmt: skip


def equal(one, other):
    assert one.names == other.names
    np.testing.assert_array_equal(one.beliefs.mean, other.beliefs.mean)
    np.testing.assert_array_equal(one.beliefs.covariance, other.beliefs.covariance)
    np.testing.assert_array_equal(one.beliefs.outcomes, other.beliefs.outcomes)


# --- Features -------------------------------------------------------------------------------------------------------


@given(
    arrays.arrays(np.float32, 6, elements=st.floats(-1, 1, width=16)),
    st.one_of(st.none(), arrays.arrays(np.float32, SURFACE_DIM, elements=st.floats(0, 8192, width=16))),
)
def test_features_come_back(vector, facts):
    packed = pack_features(vector, facts)
    assert len(packed) == 2 * (6 + SURFACE_DIM)
    vectors, surface = features_of([packed, packed], SMALL_SPACE)
    assert vectors.dtype == surface.dtype == np.float32
    np.testing.assert_array_equal(vectors, [vector, vector])
    np.testing.assert_array_equal(surface[0], np.full(SURFACE_DIM, np.nan) if facts is None else facts)


def test_features_of_a_real_text_keep_three_digits():
    text = "Prove that 2 + 2 = 4, and no more than that? " * 3_000
    vector, facts = unit(np.random.default_rng(0).normal(size=(1, 384)))[0], surface_features([text])[0]
    vectors, surface = features_of([pack_features(vector, facts)], EmbeddingSpace("s", 384))
    np.testing.assert_allclose(vectors[0], vector, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(surface[0], facts, rtol=1e-3, atol=1e-7)


def test_features_are_little_endian_halves():
    packed = pack_features(np.array([1.0, -2.0], np.float32), None)
    assert packed[:4] == b"\x00\x3c\x00\xc0"


def test_features_of_another_space_are_refused():
    with pytest.raises(ArtifactError, match=r"42 bytes; expected 40 for 6 dimensions"):
        features_of([pack_features(np.ones(6, np.float32), None), b"x" * 42], SMALL_SPACE)


def test_no_features_are_no_rows():
    vectors, surface = features_of([], SMALL_SPACE)
    assert (vectors.shape, surface.shape) == ((0, 6), (0, SURFACE_DIM))


# --- Learning -------------------------------------------------------------------------------------------------------


def test_all_at_once_is_one_by_one():
    model, answers = hand_made_model(), answers_of(40)
    at_once = AbilityState().extended(model, answers, PROFILES.__getitem__)
    stepwise = AbilityState()
    for answer in answers:
        stepwise = stepwise.extended(model, [answer], PROFILES.__getitem__)
    assert at_once.names == stepwise.names == ("a", "new")
    # One row or many in a product of matrices: the last bit of float32 may differ.
    np.testing.assert_allclose(at_once.beliefs.mean, stepwise.beliefs.mean, atol=1e-5)
    np.testing.assert_allclose(at_once.beliefs.covariance, stepwise.beliefs.covariance, atol=1e-6)
    assert at_once.beliefs.outcomes.tolist() == [30.0 + 20, 20.0]


def test_it_is_the_models_update_from_the_models_beliefs():
    model, answers = hand_made_model(), answers_of(7, names=("new",))
    state = AbilityState().extended(model, answers, PROFILES.__getitem__)
    vectors, facts = features_of([a.features for a in answers], SMALL_SPACE)
    truth = model.believed([PROFILES["new"]]).updated(
        np.zeros(7, np.intp), model.represent(vectors, facts), [a.quality for a in answers]
    )
    np.testing.assert_array_equal(state.beliefs.mean, truth.mean)
    np.testing.assert_array_equal(state.beliefs.covariance, truth.covariance)


def test_agents_without_an_answer_keep_to_their_profile():
    model = hand_made_model()
    state = AbilityState().extended(model, answers_of(20, names=("new",), quality=1.0), PROFILES.__getitem__)
    beliefs = state.over(model, list(PROFILES.values()))
    plain = model.believed(list(PROFILES.values()))
    np.testing.assert_array_equal(beliefs.mean[[0, 2]], plain.mean[[0, 2]])
    np.testing.assert_array_equal(beliefs.mean[1], state.beliefs.mean[0])
    assert beliefs.outcomes.tolist() == [30.0, 20.0, 0.0]
    vectors = unit(np.random.default_rng(1).normal(size=(30, 6)))
    predicted = model.predict(vectors, None, beliefs)
    assert (predicted[:, 1] > predicted[:, 2]).all(), "the same profile, but twenty good answers"


def test_what_is_given_is_never_changed():
    model = hand_made_model()
    first = AbilityState().extended(model, answers_of(5), PROFILES.__getitem__)
    kept = AbilityState.from_bytes(first.to_bytes())
    first.extended(model, answers_of(5, seed=1), PROFILES.__getitem__)
    first.over(model, list(PROFILES.values())).mean[:] = 7.0
    equal(first, kept)


def test_features_of_another_size_are_passed_over():
    model, answers = hand_made_model(), answers_of(10)
    odd = [GradedAnswer("other", 1.0, b"x" * 41), *answers[:5], GradedAnswer("a", 1.0, b""), *answers[5:]]
    equal(
        AbilityState().extended(model, odd, PROFILES.__getitem__),
        AbilityState().extended(model, answers, PROFILES.__getitem__),
    )
    nothing = AbilityState()
    assert nothing.extended(model, [GradedAnswer("other", 1.0, b"")], PROFILES.__getitem__) is nothing


def test_only_some_agents_are_kept():
    model = hand_made_model()
    state = AbilityState().extended(model, answers_of(12, names=("a", "new", "other")), PROFILES.__getitem__)
    less = state.without({"other": 1, "a": 1, "unheard of": 1})
    assert less.names == ("a", "other")
    np.testing.assert_array_equal(less.beliefs.mean, state.beliefs.mean[[0, 2]])
    assert state.without({}).names == ()
    equal(state.without({}).extended(model, [], PROFILES.__getitem__), state.without({}))
    again = state.without({}).extended(model, answers_of(3), PROFILES.__getitem__)
    equal(again, AbilityState().extended(model, answers_of(3), PROFILES.__getitem__))


# --- Written down ---------------------------------------------------------------------------------------------------


def test_it_goes_on_after_a_rest_as_without_one():
    model = trained_model()[0]
    answers = answers_of(150, names=("a", "new", "other"), dim=384)
    state = AbilityState().extended(model, answers[:100], PROFILES.__getitem__)
    read = AbilityState.from_bytes(state.to_bytes())
    equal(read, state)
    assert read.to_bytes() == state.to_bytes()
    equal(
        read.extended(model, answers[100:], PROFILES.__getitem__),
        state.extended(model, answers[100:], PROFILES.__getitem__),
    )


def test_nothing_can_be_written_down_too():
    equal(AbilityState.from_bytes(AbilityState().to_bytes()), AbilityState())


def test_names_of_any_kind_are_kept():
    profile = AgentProfile(name='ü\n"é', stated_quality=0.5)
    state = AbilityState().extended(
        hand_made_model(),
        [GradedAnswer(profile.name, 1.0, pack_features(np.ones(6, np.float32), None))],
        lambda name: profile,
    )
    equal(AbilityState.from_bytes(state.to_bytes()), state)


def state_bytes():
    return AbilityState().extended(hand_made_model(), answers_of(8), PROFILES.__getitem__).to_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:10],
        lambda raw: raw[:-8],
        lambda raw: raw[:-3],
        lambda raw: raw + b"\x00" * 8,
        lambda raw: b"[]\n",
        lambda raw: b"null\n",
        lambda raw: b"{}\n",
        lambda raw: b'{"names": ["a"], "width": -1}\n',
        lambda raw: b'{"names": ["a"], "width": 100000000}\n' + raw,
        lambda raw: raw.replace(b'"width": 4', b'"width": 5'),
        lambda raw: raw.split(b"\n", 1)[0] + b"\n" + b"\xff" * len(raw.split(b"\n", 1)[1]),
        lambda raw: b"\x80\x04" + raw,
    ],
)
def test_what_is_no_state_is_refused(damage):
    with pytest.raises(ArtifactError, match="cannot be read"):
        AbilityState.from_bytes(damage(state_bytes()))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_state_or_an_error(raw):
    with contextlib.suppress(ArtifactError):
        AbilityState.from_bytes(raw)


def test_its_head_is_a_line_of_json():
    head = json.loads(state_bytes().split(b"\n", 1)[0])
    assert head["names"] == ["a", "new"]
