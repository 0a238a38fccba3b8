"""Features against values worked out by hand, and the properties the module promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import InvalidInputError, InvalidVectorError, SpaceMismatchError
from tinydancer.model.features import FEATURE_NAMES, FeatureConfig, FeatureEngineer
from tinydancer.types import Candidate

NOW = 1_700_000_000.0
HOUR = 3600.0


def candidate(id="a", embedding=(1.0, 0.0), **given):
    return Candidate(id=id, embedding=np.array(embedding, np.float32), **({"created_at": NOW} | given))


def features(query=(1.0, 0.0), wanted=None, *, config=None, **given):
    return FeatureEngineer(config).extract_features(np.array(query, np.float32), candidate(**given), wanted, now=NOW)


def test_one_candidate_by_hand():
    found = features(
        (3.0, 4.0),
        {"lang": "en", "topic": "law", "year": 2020},
        embedding=(2.0, 0.0),
        created_at=NOW - 500 * HOUR,
        access_count=20,
        success_rate=0.75,
        metadata={"lang": "en", "topic": "tax"},
    )
    assert found.semantic_similarity == pytest.approx((1 + 3 / 5) / 2, abs=1e-6)
    assert found.recency_score == pytest.approx(math.exp(-0.5), abs=1e-6)
    assert found.frequency_score == pytest.approx(math.log(21) / (math.log(21) + math.log(11)), abs=1e-6)
    assert found.success_rate == 0.75
    assert found.metadata_overlap == pytest.approx(1 / 4, abs=1e-6)  # shared: lang; all: en, law, tax, 2020
    weighted = 0.5 * 0.8 + 0.2 * math.exp(-0.5) + 0.1 * found.frequency_score + 0.15 * 0.75 + 0.05 * 0.25
    assert found.combined_score == pytest.approx(weighted, abs=1e-6)
    assert float(found.features.sum()) == pytest.approx(weighted, abs=1e-6)
    assert found.features.shape == (5,)
    assert found.features.dtype == np.float32


@pytest.mark.parametrize(
    ("embedding", "similarity"), [((2.0, 0.0), 1.0), ((0.0, 9.0), 0.5), ((-0.1, 0.0), 0.0), ((1.0, 1.0), 0.8535534)]
)
def test_similarity_runs_from_opposite_to_same(embedding, similarity):
    assert features(embedding=embedding).semantic_similarity == pytest.approx(similarity, abs=1e-6)


def test_recency_halves_in_29_days_by_default_and_the_future_is_now():
    assert features(created_at=NOW - 693.147 * HOUR).recency_score == pytest.approx(0.5, abs=1e-5)
    assert features(created_at=NOW + 500 * HOUR).recency_score == 1.0
    assert features(created_at=0.0, config=FeatureConfig(recency_decay=1e9)).recency_score == 0.0
    assert features(created_at=0.0, config=FeatureConfig(recency_decay=0.0)).recency_score == 1.0


@pytest.mark.parametrize(("count", "score"), [(0, 0.0), (10, 0.5), (120, 2 / 3), (2**53, 0.9387)])
def test_frequency_saturates(count, score):
    assert features(access_count=count).frequency_score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize(
    ("theirs", "ours", "overlap"),
    [
        ({"a": 1}, {"a": 1}, 1.0),
        ({"a": 1}, {"a": 1.0}, 1.0),
        ({"a": 1}, {"a": True}, 0.0),
        ({"a": None}, {"b": None}, 0.0),
        ({"a": None}, {"a": None}, 1.0),
        ({"a": 1}, {"a": 2}, 0.0),
        ({"a": [1, {"x": 2}]}, {"a": [1, {"x": 2}]}, 1.0),
        ({}, {"a": 1}, 0.0),
        ({"a": 1}, {}, 0.0),
        ({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2, "d": 4}, 0.5),
    ],
)
def test_metadata_overlap_is_jaccard_over_pairs(theirs, ours, overlap):
    assert features(wanted=ours, metadata=theirs).metadata_overlap == overlap
    assert features(wanted=None, metadata=theirs).metadata_overlap == 0.0


vectors = st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) > 1e-3)
candidates = st.builds(
    lambda embedding, created_at, count, rate, metadata: candidate(
        "x", embedding, created_at=created_at, access_count=count, success_rate=rate, metadata=metadata
    ),
    vectors,
    st.floats(0, 2e9),
    st.integers(0, 2**53),
    st.floats(0, 1),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=3),
)


@given(vectors, st.lists(candidates, max_size=5), st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)))
def test_every_feature_is_in_the_unit_interval_and_independent_of_the_neighbours(query, many, metadata):
    engineer = FeatureEngineer()
    together = engineer.extract_batch(query, many, metadata, now=NOW)
    assert together.shape == (len(many), 5)
    assert together.dtype == np.float32
    assert ((together >= 0.0) & (together <= 1.0)).all()
    for one, row in zip(many, together, strict=True):
        alone = engineer.extract_features(query, one, metadata, now=NOW)
        np.testing.assert_array_equal(row * engineer.weights, alone.features)
        assert [getattr(alone, name) for name in FEATURE_NAMES] == row.tolist()


@given(candidates, st.integers(1, 10**6), st.floats(0, 1), st.floats(0, 1e9))
def test_each_feature_rises_with_what_it_measures(one, more, rate, younger):
    engineer = FeatureEngineer()
    # Clear of float32's resolution at the top of the frequency's range.
    better = Candidate(
        id="x",
        embedding=one.embedding,
        metadata=one.metadata,
        created_at=one.created_at + younger,
        access_count=min(one.access_count + more, 2**53),
        success_rate=max(one.success_rate, rate),
    )
    low, high = engineer.extract_batch(one.embedding, [one, better], now=NOW)
    assert (high >= low).all()


def test_many_rows_cross_the_chunks():
    rng = np.random.default_rng(5)
    matrix = rng.normal(size=(700, 24)).astype(np.float32)
    query = rng.normal(size=24)
    found = FeatureEngineer().extract_batch(query, [candidate(str(i), row) for i, row in enumerate(matrix)], now=NOW)
    wide = matrix.astype(float)
    cosine = wide @ query / np.linalg.norm(wide, axis=1) / np.linalg.norm(query)
    np.testing.assert_allclose(found[:, 0], (1 + cosine) / 2, atol=1e-6)


@pytest.mark.parametrize("size", [1e-22, 1e-30, 1e18])
def test_vectors_of_extreme_length_have_their_direction(size):
    engineer = FeatureEngineer()
    found = engineer.extract_batch([3.0, 4.0], [candidate("a", (size, 0.0)), candidate("b", (0.6, 0.8))], now=NOW)
    np.testing.assert_allclose(found[:, 0], [0.8, 1.0], atol=1e-6)


def test_rows_add_up_to_the_combined_score():
    engineer = FeatureEngineer(FeatureConfig(
        similarity_weight=0.5, recency_weight=0.3, frequency_weight=0.1, success_weight=0.05, metadata_weight=0.05,
        recency_decay=0.001,
    ))  # fmt: skip
    one = candidate(success_rate=1.0, access_count=10)
    row = engineer.extract_batch([1.0, 0.0], [one], now=NOW)[0]
    assert float(row @ engineer.weights) == pytest.approx(0.5 + 0.3 + 0.05 + 0.05, abs=1e-6)


def test_the_default_weights_add_up_to_one():
    assert sum(FeatureConfig().weights) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    "values",
    [
        {"similarity_weight": 0.6},
        {"similarity_weight": -0.5, "recency_weight": 1.2},
        {"success_weight": math.nan},
        {"recency_decay": -0.1},
        {"recency_decay": math.inf},
        {"metadata_weight": "0.05"},
    ],
)
def test_bad_configurations_are_refused(values):
    with pytest.raises(InvalidInputError):
        FeatureConfig(**values)


def test_weights_that_do_not_add_up_say_their_sum():
    with pytest.raises(InvalidInputError, match=r"add up to 1\.5; expected 1\. Divide"):
        FeatureConfig(similarity_weight=1.0)


def test_another_dimension_names_the_candidate_and_both():
    with pytest.raises(SpaceMismatchError, match="Candidate 'b' has 3 dimensions; the query has 2"):
        FeatureEngineer().extract_batch([1.0, 0.0], [candidate(), candidate("b", (1.0, 0.0, 0.0))], now=NOW)


@pytest.mark.parametrize("query", [(0.0, 0.0), (math.nan, 1.0), (math.inf, 1.0), ((1.0, 0.0),), (), "ab"])
def test_a_query_that_is_no_direction_is_refused(query):
    with pytest.raises(InvalidVectorError):
        FeatureEngineer().extract_batch(query, [candidate()], now=NOW)


@pytest.mark.parametrize("value", [math.nan, 0.0])
def test_a_candidate_changed_after_its_check_is_found(value):
    spoilt = candidate("spoilt", (1.0, 1.0))
    spoilt.embedding[:] = value
    with pytest.raises(InvalidVectorError, match="'spoilt'"):
        FeatureEngineer().extract_batch([1.0, 0.0], [candidate(), spoilt], now=NOW)


def test_bad_metadata_and_instants_are_refused():
    with pytest.raises(InvalidInputError, match="metadata"):
        FeatureEngineer().extract_batch([1.0, 0.0], [candidate()], ["a"], now=NOW)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="now"):
        FeatureEngineer().extract_batch([1.0, 0.0], [candidate()], now=math.nan)
