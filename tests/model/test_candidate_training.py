"""The candidate scorer's training: figures against closed forms and scikit-learn, and the weights that ship."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import ndcg_score, roc_auc_score

import candidate_sets
import train_candidate_scorer as script
from classification_data import data_sha256
from tinydancer.errors import InvalidInputError
from tinydancer.model import candidate_training
from tinydancer.model.candidate_training import LabelledCandidates
from tinydancer.model.candidates import CandidateScorer
from tinydancer.model.training import TrainingConfig

# What may be None in general is known to be there in each test.
candidate_figures: Any = candidate_training.candidate_figures
train_candidate_scorer: Any = candidate_training.train_candidate_scorer
QUICK = TrainingConfig(epochs=40, batch_size=64, learning_rate=0.02, validation_share=0.0, patience=None)
ONE_EPOCH = TrainingConfig(epochs=1, validation_share=0.0, patience=None)
DOCUMENTED = {"auc": 0.991, "ndcg": 0.962, "accuracy": 0.981}


def one_set(relevant, query="q", features=None):
    features = np.full((len(relevant), 5), 0.5) if features is None else features
    return LabelledCandidates(query, features, relevant)


def sets_by_rule(queries, seed, noise=0.0):
    """Ten candidates a query; one that is similar and successful answers, but for some noise."""
    rng = np.random.default_rng(seed)
    sets = []
    for q in range(queries):
        features = rng.random((10, 5)).astype(np.float32)
        relevant = ((features[:, 0] > 0.5) & (features[:, 3] > 0.5)).astype(float)
        flipped = rng.random(10) < noise
        sets.append(LabelledCandidates(q, features, np.where(flipped, 1 - relevant, relevant)))
    return sets


class TestFigures:
    def test_by_hand(self):
        figures = candidate_figures([one_set([0, 1, 0])], [[0.9, 0.8, 0.1]])
        assert figures.accuracy == pytest.approx(2 / 3)
        assert figures.auc == pytest.approx(0.5)
        assert figures.ndcg == pytest.approx(1 / np.log2(3))
        assert figures.first_is_right == 0.0
        assert figures.log_loss == pytest.approx(-(np.log(0.1) + np.log(0.8) + np.log(0.9)) / 3)

    def test_equal_scores_count_half_a_pair_and_the_worse_order(self):
        figures = candidate_figures([one_set([1, 0])], [[0.4, 0.4]])
        assert figures.auc == 0.5
        assert figures.ndcg == pytest.approx(1 / np.log2(3))
        assert figures.first_is_right == 0.0

    def test_sets_without_an_answer_count_for_pairs_only(self):
        figures = candidate_figures([one_set([0, 0], "a"), one_set([1, 0], "b")], [[0.9, 0.1], [0.8, 0.2]])
        assert figures.ndcg == 1.0
        assert figures.auc == pytest.approx(2 / 3)
        assert (figures.candidates, figures.queries, figures.sets) == (4, 2, 2)
        nothing = candidate_figures([one_set([0, 0])], [[0.9, 0.1]])
        assert (nothing.auc, nothing.ndcg, nothing.first_is_right) == (None, None, None)

    def test_against_scikit_learn(self):
        rng = np.random.default_rng(0)
        sets = [one_set((rng.random(12) < 0.3).astype(float), q) for q in range(30)]
        scores = [(0.9 * rng.random(12)).round(2) for _ in sets]
        figures = candidate_figures(sets, scores)
        truth = np.concatenate([one.relevant for one in sets])
        assert figures.auc == pytest.approx(roc_auc_score(truth, np.concatenate(scores)))
        distinct = [s + np.arange(12) * 1e-6 for s in scores]
        expected = [ndcg_score([o.relevant], [s]) for o, s in zip(sets, distinct, strict=True) if o.relevant.any()]
        assert candidate_figures(sets, distinct).ndcg == pytest.approx(np.mean(expected))

    def test_scores_that_do_not_fit_are_refused(self):
        with pytest.raises(InvalidInputError, match="at least one set"):
            candidate_figures([], [])
        with pytest.raises(InvalidInputError, match="a score per candidate"):
            candidate_figures([one_set([1, 0])], [[0.5]])
        with pytest.raises(InvalidInputError, match="outside"):
            candidate_figures([one_set([1, 0])], [[0.5, 1.5]])

    @pytest.mark.parametrize(
        ("features", "relevant", "words"),
        [
            (np.zeros((2, 4)), [1, 0], r"\(2, 4\)"),
            (np.zeros((0, 5)), [], "n of 1 or more"),
            (np.full((2, 5), 1.5), [1, 0], "features holds"),
            (np.full((2, 5), np.nan), [1, 0], "features holds"),
            (np.zeros((2, 5)), [1], r"expected \(2,\)"),
            (np.zeros((2, 5)), [1, -1], "relevant holds"),
            ("five", [1], "'five'"),
        ],
    )
    def test_sets_that_make_no_sense_are_refused(self, features, relevant, words):
        with pytest.raises(InvalidInputError, match=words):
            LabelledCandidates("q", features, relevant)


class TestTraining:
    def test_it_learns_a_rule_that_no_sum_of_features_says(self):
        scorer, figures = train_candidate_scorer(sets_by_rule(120, 0), config=QUICK)
        config = scorer.model.config
        assert (config.input_dim, config.hidden_dim, config.output_dim) == (5, 8, 1)
        unseen = sets_by_rule(60, 1)
        ours = candidate_figures(unseen, script.scores_of(scorer, unseen))
        fallback = candidate_figures(unseen, script.scores_of(CandidateScorer(), unseen))
        assert ours.auc > 0.97 > fallback.auc
        assert figures.auc > 0.97
        assert figures.queries == 30

    def test_the_same_seed_gives_the_same_bytes(self, tmp_path):
        digests = []
        for seed in (1, 1, 2):
            scorer, _ = train_candidate_scorer(sets_by_rule(20, 0), config=QUICK, seed=seed)
            digests.append(scorer.model.save(tmp_path / "c.safetensors"))
        assert digests[0] == digests[1] != digests[2]

    def test_the_calibration_travels_with_the_weights(self, tmp_path):
        scorer, _ = train_candidate_scorer(sets_by_rule(40, 0, noise=0.1), config=QUICK, coverage=0.8)
        scorer.model.save(tmp_path / "c.safetensors")
        loaded: Any = CandidateScorer.load(tmp_path / "c.safetensors")
        assert loaded.calibration == scorer.calibration
        assert loaded.calibration.coverage == 0.8
        assert loaded.calibration.n == 100

    def test_the_interval_covers_exchangeable_candidates_as_stated(self):
        # 20% of the labels are flipped, so an interval of 70% must leave out most of them, and no more.
        scorer, _ = train_candidate_scorer(sets_by_rule(600, 0, noise=0.2), config=QUICK, coverage=0.7)
        unseen = sets_by_rule(600, 1, noise=0.2)
        scores = np.concatenate(script.scores_of(scorer, unseen))
        low, high = scorer.calibration.interval(scores)
        truth = np.concatenate([one.relevant for one in unseen])
        # 1,500 calibration and 6,000 new candidates: a standard deviation of 0.013.
        assert np.mean((truth >= low) & (truth <= high)) == pytest.approx(0.7, abs=0.04)

    def test_sets_of_one_query_stay_on_one_side(self):
        _, figures = train_candidate_scorer(sets_by_rule(20, 0) * 3, config=ONE_EPOCH)
        assert (figures.queries, figures.sets) == (5, 15)

    def test_nothing_is_learnt_from_the_queries_of_the_calibration(self):
        # One query of eight, told by its last feature, has it the other way round; it alone has three candidates.
        rng = np.random.default_rng(0)
        sets = []
        for q in range(8):
            for _ in range(40):
                features = rng.random((3 if q == 0 else 2, 5)).astype(np.float32)
                features[:, 0] = np.arange(len(features)) % 2
                features[:, 4] = q == 0
                relevant = features[:, 0].astype(np.float64)
                sets.append(LabelledCandidates(q, features, relevant if q else 1.0 - relevant))
        for seed in range(40):
            _, figures = train_candidate_scorer(sets, config=ONE_EPOCH, calibration_share=1 / 8, seed=seed)
            if figures.candidates == 3 * 40:
                break
        _, figures = train_candidate_scorer(sets, config=QUICK, calibration_share=1 / 8, seed=seed)
        assert figures.candidates == 3 * 40
        assert figures.accuracy < 0.1

    def test_senseless_data_is_refused(self):
        with pytest.raises(InvalidInputError, match="7 distinct queries; expected at least 8"):
            train_candidate_scorer(sets_by_rule(7, 0))
        nothing = [one_set([0, 0], q) for q in range(20)]
        with pytest.raises(InvalidInputError, match="targets are equal"):
            train_candidate_scorer(nothing)
        with pytest.raises(InvalidInputError, match="calibration_share"):
            train_candidate_scorer(sets_by_rule(20, 0), calibration_share=1.0)


@pytest.fixture(scope="module")
def scorer():
    return CandidateScorer.load(script.OUT)


@pytest.fixture(scope="module")
def unseen_sets():
    return candidate_sets.labelled_sets(candidate_sets.TEST, script.TEST_SEED)


class TestShipped:
    def test_it_names_the_data_it_comes_from(self, scorer):
        assert scorer.model.metadata["data_sha256"] == data_sha256(candidate_sets.TRAIN)
        assert script.OUT.stat().st_size < 1_000_000
        config = scorer.model.config
        assert (config.input_dim, config.hidden_dim, config.output_dim) == (5, 8, 1)

    def test_it_beats_fallback_and_similarity_on_unseen_queries(self, scorer, unseen_sets, capsys):
        figures = script.evaluate(scorer, unseen_sets)
        fallback = candidate_figures(unseen_sets, script.scores_of(CandidateScorer(), unseen_sets))
        similarity = candidate_figures(unseen_sets, script.similarities(unseen_sets))
        assert figures.auc > max(fallback.auc, similarity.auc)
        assert figures.ndcg > max(fallback.ndcg, similarity.ndcg) + 0.05
        assert figures.log_loss < fallback.log_loss / 2
        for name, documented in DOCUMENTED.items():
            assert getattr(figures, name) == pytest.approx(documented, abs=0.01)
        page = (script.OUT.parents[4] / "docs" / "explanation" / "classifier.md").read_text("utf-8")
        assert f"| {DOCUMENTED['accuracy']:.3f} | {DOCUMENTED['auc']:.3f} | {DOCUMENTED['ndcg']:.3f} |" in page
        assert "covers 0." in capsys.readouterr().out

    def test_its_interval_covers_unseen_queries(self, scorer, unseen_sets):
        scores = np.concatenate(script.scores_of(scorer, unseen_sets))
        low, high = scorer.calibration.interval(scores)
        truth = np.concatenate([one.relevant for one in unseen_sets])
        assert np.mean((truth >= low) & (truth <= high)) == pytest.approx(0.9, abs=0.03)

    def test_it_says_what_anybody_would(self, scorer):
        rows = {
            "the same question, fresh, used, successful": [0.95, 0.99, 0.6, 0.95, 1.0],
            "the same question, never used yet": [0.95, 0.99, 0.0, 0.0, 1.0],
            "something else, popular": [0.5, 1.0, 0.9, 1.0, 0.3],
            "the same question, old and mostly wrong": [0.95, 0.05, 0.6, 0.2, 1.0],
        }
        confidence, uncertainty = scorer.score(np.array(list(rows.values()), np.float32), [10, 0, 900, 12], np.zeros(5))
        assert (confidence >= 0.85).tolist() == [True, True, False, False]
        assert confidence[2] < 0.1
        assert uncertainty.max() <= 0.15

    def test_the_written_queries_are_on_one_side_only(self):
        train, test = (candidate_sets.read_scenarios(path) for path in (candidate_sets.TRAIN, candidate_sets.TEST))
        texts = [{t for s in some for t in (s.query, s.answer, s.superseded, s.near_miss)} for some in (train, test)]
        assert not texts[0] & texts[1]
        assert (len(train), len(test)) == (100, 40)

    @pytest.mark.slow
    def test_the_script_makes_such_weights_again(self, scorer, unseen_sets, tmp_path):
        again = script.train(tmp_path / "c.safetensors")
        gaps = [
            np.abs(one - other)
            for one, other in zip(
                script.scores_of(again, unseen_sets), script.scores_of(scorer, unseen_sets), strict=True
            )
        ]
        assert np.concatenate(gaps).mean() < 0.01
