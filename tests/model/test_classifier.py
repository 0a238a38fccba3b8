"""The request classifier: closed forms, training on data whose truth is known, and the weights that ship."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import classification_data as data
import train_classifier as script
from tinydancer.embedding.static import StaticEmbedder
from tinydancer.errors import (
    ArtifactError,
    InvalidInputError,
    InvalidNameError,
    InvalidVectorError,
    ModelError,
    NotFoundError,
    SpaceMismatchError,
)
from tinydancer.model.artifact import load_artifact, save_artifact
from tinydancer.model.classifier import SHIPPED_CLASSIFIER, RequestClassifier
from tinydancer.model.classifier_training import default_training, train_classifier
from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.types import MINILM_SPACE, EmbeddingSpace

SPACE = EmbeddingSpace("four", 4)
DOCUMENTED_ACCURACY = 0.893
DOCUMENTED_BY_VECTOR = 0.748
TOLERANCE = 0.02
"""Room for another BLAS or CPU, whose rounding may turn a few close calls: 8 of 420 requests."""

VECTORS = arrays.arrays(np.float32, 4, elements=st.floats(-1e6, 1e6, width=32)).filter(lambda x: np.abs(x).max() > 0.1)


def small(seed=0, classes=("b", "a", "c"), capabilities=("code", "art")):
    network = FastGRNN(
        FastGRNNConfig(input_dim=4, hidden_dim=5, output_dim=len(classes) + len(capabilities), seed=seed)
    )
    network.parameters["b_out"][:] = np.linspace(-1.0, 1.0, len(network.parameters["b_out"]), dtype=np.float32)
    return RequestClassifier(network, classes=classes, capabilities=capabilities, space=SPACE)


def clusters(per_class, seed, spread=0.15, classes=3):
    """Points around orthogonal directions, and the name of each one's direction."""
    rng = np.random.default_rng(seed)
    centers = np.eye(4)[:classes]
    numbers = np.repeat(np.arange(classes), per_class)
    return (centers[numbers] + rng.normal(0.0, spread, (len(numbers), 4))).astype(np.float32), [
        f"class {n}" for n in numbers
    ]


class TestClassify:
    def test_probabilities_are_the_softmax_of_the_heads_first_rows(self):
        classifier, x = small(), np.array([0.5, -0.5, 0.5, 0.5], np.float32)
        p = classifier.network.parameters
        logits = p["w_out"].astype(float) @ classifier.network.forward_single(x).astype(float) + p["b_out"]
        expected = np.exp(logits[:3]) / np.exp(logits[:3]).sum()
        ranked = classifier.classify(x)
        assert dict(ranked) == pytest.approx(dict(zip("bac", expected, strict=True)), abs=1e-6)
        assert [name for name, _ in ranked] == ["bac"[i] for i in np.argsort(-expected)]

    def test_capabilities_are_the_logistic_function_of_the_rest_above_the_threshold(self):
        classifier, x = small(), np.array([0.5, -0.5, 0.5, 0.5], np.float32)
        p = classifier.network.parameters
        logits = p["w_out"].astype(float) @ classifier.network.forward_single(x).astype(float) + p["b_out"]
        expected = dict(zip(("code", "art"), 1 / (1 + np.exp(-logits[3:])), strict=True))
        assert dict(classifier.classify_capabilities(x, threshold=0.0)) == pytest.approx(expected, abs=1e-6)
        above = {name for name, probability in expected.items() if probability > 0.5}
        assert 0 < len(above) <= 2
        assert {name for name, _ in classifier.classify_capabilities(x)} == above
        assert classifier.classify_capabilities(x, threshold=1.0) == []

    def test_equal_probabilities_stand_in_order_of_name(self):
        classifier = small()
        classifier.network.parameters["w_out"][:] = 0.0
        classifier.network.parameters["b_out"][:] = 0.0
        assert classifier.classify([1, 0, 0, 0]) == [(name, pytest.approx(1 / 3)) for name in "abc"]

    def test_length_does_not_matter(self):
        classifier, x = small(), np.array([1.0, 2.0, -3.0, 0.5], np.float32)
        assert dict(classifier.classify(1e-9 * x)) == pytest.approx(dict(classifier.classify(1e9 * x)), abs=1e-6)

    def test_a_batch_says_what_each_alone_does(self):
        classifier, xs = small(), np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
        for one, x in zip(classifier.classify_batch(xs), xs, strict=True):
            assert dict(one) == pytest.approx(dict(classifier.classify(x)), abs=1e-6)
        by_class, by_capability = classifier.predict(xs)
        assert by_class.shape == (7, 3)
        assert by_capability.shape == (7, 2)
        assert dict(classifier.classify_capabilities(xs[3], threshold=0.0)) == pytest.approx(
            dict(zip(("code", "art"), by_capability[3], strict=True)), abs=1e-6
        )

    def test_no_rows_give_no_answers(self):
        assert small().classify_batch([]) == []
        assert small().predict(np.empty((0, 4)))[1].shape == (0, 2)

    @settings(deadline=None)
    @given(VECTORS)
    def test_whatever_the_vector_the_classes_share_one(self, x):
        ranked = small().classify(x)
        probabilities = [probability for _, probability in ranked]
        assert sum(probabilities) == pytest.approx(1.0)
        assert probabilities == sorted(probabilities, reverse=True)
        assert {name for name, _ in ranked} == {"a", "b", "c"}

    @pytest.mark.parametrize(
        ("bad", "error", "words"),
        [
            ([1.0, 2.0], SpaceMismatchError, "2 dimensions.*'four'.*4"),
            ([0.0] * 4, InvalidVectorError, "all zeros"),
            ([1.0, np.nan, 0.0, 0.0], InvalidVectorError, "nan at position 1"),
            ("hello", InvalidVectorError, "hello"),
        ],
    )
    def test_bad_vectors_are_refused(self, bad, error, words):
        with pytest.raises(error, match=words):
            small().classify(bad)
        with pytest.raises(error, match=words):
            small().classify_capabilities(bad)

    @pytest.mark.parametrize(
        ("bad", "error", "words"),
        [
            (np.ones((2, 3)), SpaceMismatchError, "3 dimensions.*'four'.*4"),
            (np.array([[1, 0, 0, 0], [0, 0, 0, 0]]), InvalidVectorError, "number 1 "),
            (np.array([[np.inf, 0, 0, 0]]), InvalidVectorError, "number 0 "),
            (np.ones(4), InvalidVectorError, r"\(4,\)"),
            ([["a"]], InvalidVectorError, "rows of numbers"),
        ],
    )
    def test_bad_rows_are_named(self, bad, error, words):
        with pytest.raises(error, match=words):
            small().predict(bad)

    def test_network_and_names_must_fit(self):
        network = small().network
        with pytest.raises(ModelError, match="5 outputs; 4 dimensions, 2 classes and 2 capabilities take 4 and 4"):
            RequestClassifier(network, classes=["a", "b"], capabilities=["k", "l"], space=SPACE)
        with pytest.raises(ModelError, match="4 inputs"):
            RequestClassifier(network, classes=list("abcde"), space=MINILM_SPACE)
        with pytest.raises(InvalidInputError, match="at least two"):
            RequestClassifier(network, classes=["a"], capabilities=list("bcde"), space=SPACE)
        with pytest.raises(InvalidInputError, match="comes twice in classes"):
            RequestClassifier(network, classes=list("abcda"), space=SPACE)


class TestFile:
    def test_it_comes_back_as_it_was(self, tmp_path):
        classifier = small()
        digest = classifier.save(tmp_path / "c.safetensors", {"about": "test"})
        loaded = RequestClassifier.load(tmp_path / "c.safetensors", space=SPACE)
        assert loaded.classes == ("b", "a", "c")
        assert loaded.capabilities == ("code", "art")
        assert loaded.metadata == {"about": "test"}
        assert loaded.sha256 == digest
        assert loaded.name == f"classifier:{digest[:12]}"
        assert classifier.name == "classifier:unsaved"
        assert loaded.classify([1, 2, 3, 4]) == classifier.classify([1, 2, 3, 4])
        assert loaded.words is None
        assert loaded.classify([1, 2, 3, 4], "whatever") == loaded.classify([1, 2, 3, 4])
        assert loaded.save(tmp_path / "again.safetensors") == digest
        assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()

    def test_words_come_back_with_it(self, tmp_path):
        xs, labels = clusters(8, seed=0)
        texts = [f"{label} number {i}" for i, label in enumerate(labels)]
        classifier, _ = train_classifier(xs, labels, texts=texts, space=SPACE, hidden_dim=4)
        digest = classifier.save(tmp_path / "c.safetensors")
        loaded = RequestClassifier.load(tmp_path / "c.safetensors", space=SPACE)
        assert loaded.words is not None
        # The weights of words are stored in half precision.
        for one, other in zip(loaded.predict(xs, texts), classifier.predict(xs, texts), strict=True):
            assert one == pytest.approx(other, abs=2e-3)
        assert loaded.save(tmp_path / "again.safetensors") == digest

    def test_words_that_do_not_fit_are_refused(self, tmp_path):
        path = tmp_path / "c.safetensors"
        small().save(path)
        artifact = load_artifact(path, kind="request-classifier")
        save_artifact(
            path, {**artifact.tensors, "word_bias": np.zeros(5, np.float32)}, kind="request-classifier",
            metadata=artifact.metadata,
        )  # fmt: skip
        with pytest.raises(ArtifactError, match="words do not fit"):
            RequestClassifier.load(path)

    def test_another_space_is_refused(self, tmp_path):
        small().save(tmp_path / "c.safetensors")
        with pytest.raises(SpaceMismatchError, match=r"'four'.*all-MiniLM"):
            RequestClassifier.load(tmp_path / "c.safetensors", space=MINILM_SPACE)

    def test_missing_truncated_and_changed_files_are_refused(self, tmp_path):
        path = tmp_path / "c.safetensors"
        with pytest.raises(NotFoundError):
            RequestClassifier.load(path)
        small().save(path)
        content = bytearray(path.read_bytes())
        path.write_bytes(content[:-5])
        with pytest.raises(ArtifactError):
            RequestClassifier.load(path)
        content[-3] ^= 1
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match="changed after it was saved"):
            RequestClassifier.load(path)

    def test_another_kind_is_refused(self, tmp_path):
        FastGRNN(FastGRNNConfig(input_dim=4, hidden_dim=3, output_dim=1)).save(tmp_path / "other.safetensors")
        with pytest.raises(ArtifactError, match="'fastgrnn'"):
            RequestClassifier.load(tmp_path / "other.safetensors")

    @pytest.mark.parametrize(
        "change",
        [
            {"classes": None},
            {"classes": ["a", "b"]},
            {"capabilities": None},
            {"space": {"name": "four"}},
            {"config": {"depth": 3}},
            {"config": {"input_dim": 4, "hidden_dim": 6, "output_dim": 5}},
        ],
    )
    def test_metadata_that_does_not_fit_is_refused(self, tmp_path, change):
        path = tmp_path / "c.safetensors"
        small().save(path)
        artifact = load_artifact(path, kind="request-classifier")
        facts = {key: value for key, value in {**artifact.metadata, **change}.items() if value is not None}
        tensors = {name: array.copy() for name, array in artifact.tensors.items()}
        save_artifact(path, tensors, kind="request-classifier", metadata=facts)
        with pytest.raises(ArtifactError, match="no usable request classifier"):
            RequestClassifier.load(path)


class TestTraining:
    def test_it_learns_what_can_be_told_apart(self):
        xs, labels = clusters(20, seed=0)
        capabilities = [["first"] if label == "class 0" else [] for label in labels]
        classifier, report = train_classifier(xs, labels, capabilities, space=SPACE, hidden_dim=8)
        unseen, truth = clusters(50, seed=1)
        by_class, by_capability = classifier.predict(unseen)
        assert np.mean(np.array(classifier.classes)[by_class.argmax(axis=1)] == np.array(truth)) > 0.97
        assert np.mean((by_capability[:, 0] > 0.5) == (np.array(truth) == "class 0")) > 0.97
        assert report.accuracy > 0.95
        assert report.capability_accuracy["first"] > 0.95
        assert report.class_counts == {f"class {n}": 20 for n in range(3)}
        assert report.capability_counts == {"first": 20}
        assert report.warnings == ()
        assert json.loads(json.dumps(classifier.metadata["report"])) == classifier.metadata["report"]

    def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(self, tmp_path):
        xs, labels = clusters(8, seed=0)
        digests = [
            train_classifier(xs, labels, space=SPACE, hidden_dim=4, seed=seed)[0].save(tmp_path / "c.safetensors")
            for seed in (3, 3, 4)
        ]
        assert digests[0] == digests[1] != digests[2]

    def test_a_few_examples_per_class_suffice_for_easy_classes(self):
        xs, labels = clusters(2, seed=2, spread=0.05)
        classifier, report = train_classifier(xs, labels, space=SPACE, hidden_dim=8)
        assert report.folds == 2
        assert "few" in report.warnings[0]
        unseen, truth = clusters(20, seed=3, spread=0.05)
        assert [ranked[0][0] for ranked in classifier.classify_batch(unseen)] == truth

    def test_probabilities_are_calibrated_where_the_truth_is_a_coin(self):
        # Class and vector are independent, 70 to 30: the best that can be said is (0.7, 0.3), log loss 0.611.
        rng = np.random.default_rng(0)
        xs = rng.normal(size=(400, 4)).astype(np.float32)
        labels = ["yes" if u < 0.7 else "no" for u in rng.random(400)]
        capabilities = [["heads"] if u < 0.2 else [] for u in rng.random(400)]
        classifier, report = train_classifier(xs, labels, capabilities, space=SPACE, hidden_dim=8)
        by_class, by_capability = classifier.predict(rng.normal(size=(2000, 4)))
        assert by_class[:, classifier.classes.index("yes")].mean() == pytest.approx(0.7, abs=0.06)
        assert by_capability.mean() == pytest.approx(0.2, abs=0.06)
        assert report.log_loss == pytest.approx(0.611, abs=0.04)
        assert report.log_loss <= report.log_loss_uncalibrated + 1e-9

    def test_overconfident_training_is_cooled_down(self):
        rng = np.random.default_rng(5)
        xs = rng.normal(size=(60, 4)).astype(np.float32)
        labels = [("yes", "no")[i] for i in rng.integers(2, size=60)]
        config = replace(default_training(60), epochs=800, dropout_input=0.0, dropout_state=0.0, weight_decay=0.0)
        _, report = train_classifier(xs, labels, space=SPACE, config=config, hidden_dim=16)
        assert report.temperature > 2.0
        assert report.log_loss < report.log_loss_uncalibrated - 0.2

    def test_equal_vectors_are_predicted_by_a_network_that_saw_none_of_them(self):
        # Forty vectors of a random class each, four times over: who saw a copy would be right every time.
        rng = np.random.default_rng(0)
        xs = np.repeat(rng.normal(size=(40, 4)), 4, axis=0)
        labels = np.repeat([("yes", "no")[i % 2] for i in range(40)], 4).tolist()
        _, report = train_classifier(xs, labels, space=SPACE, hidden_dim=16)
        assert report.accuracy < 0.7
        assert "120 of 160 examples repeat" in report.warnings[0]

    def test_groups_are_predicted_by_a_network_that_saw_none_of_them(self):
        rng = np.random.default_rng(0)
        centers = np.repeat(rng.normal(size=(40, 4)), 4, axis=0)
        xs = centers + rng.normal(0.0, 1e-3, centers.shape)
        labels = np.repeat([("yes", "no")[i % 2] for i in range(40)], 4).tolist()
        groups = np.repeat(np.arange(40), 4).tolist()
        config = replace(default_training(160), epochs=600, dropout_input=0.0, dropout_state=0.0)
        _, split = train_classifier(xs, labels, space=SPACE, hidden_dim=32, config=config)
        _, whole = train_classifier(xs, labels, groups=groups, space=SPACE, hidden_dim=32, config=config)
        assert split.accuracy > whole.accuracy + 0.15

    def test_only_representative_examples_are_judged(self):
        xs, labels = clusters(20, seed=0, spread=0.02)
        rng = np.random.default_rng(0)
        noise, noisy = rng.normal(size=(60, 4)), [f"class {n}" for n in rng.integers(3, size=60)]
        every, names = np.concatenate([xs, noise]), labels + noisy
        _, all_judged = train_classifier(every, names, space=SPACE, hidden_dim=8)
        _, report = train_classifier(every, names, representative=np.arange(120) < 60, space=SPACE, hidden_dim=8)
        assert (report.rows, report.judged_rows) == (120, 60)
        assert report.accuracy > all_judged.accuracy + 0.15
        assert sum(report.class_counts.values()) == 120

    def test_words_tell_what_vectors_do_not(self):
        """Equal vectors, different words: by vector a guess, by words all right."""
        rng = np.random.default_rng(0)
        xs = rng.normal(size=(120, 4))
        kinds = [("ask", "tell")[i % 2] for i in range(120)]
        fillers = ["red", "blue", "green", "grey", "brown"]
        texts = [f"{'what is' if kind == 'ask' else 'here comes'} {rng.choice(fillers)}" for kind in kinds]
        classifier, report = train_classifier(xs, kinds, texts=texts, space=SPACE, hidden_dim=8)
        assert report.accuracy == 1.0
        assert report.accuracy_by_vector < 0.7
        assert report.log_loss < 0.2 < report.log_loss_by_vector
        assert classifier.classify(xs[0], "what is violet")[0][0] == "ask"
        assert classifier.classify(xs[0], "here comes violet")[0][0] == "tell"
        assert classifier.classify(xs[0], "unheard") == classifier.classify(xs[0])

    def test_words_that_tell_nothing_do_no_harm(self):
        xs, labels = clusters(40, seed=0)
        rng = np.random.default_rng(0)
        texts = [" ".join(rng.choice(list("abcdefgh"), 4)) for _ in labels]
        classifier, report = train_classifier(xs, labels, texts=texts, space=SPACE, hidden_dim=8)
        assert report.accuracy >= report.accuracy_by_vector - 0.02
        unseen, truth = clusters(50, seed=1)
        by_class, _ = classifier.predict(unseen, ["a b c d"] * 150)
        assert np.mean(np.array(classifier.classes)[by_class.argmax(axis=1)] == np.array(truth)) > 0.95

    def test_one_vector_and_text_is_one_of_many(self):
        xs, labels = clusters(8, seed=0)
        texts = [f"{label} number {i}" for i, label in enumerate(labels)]
        capabilities = [["first"] if label == "class 0" else [] for label in labels]
        classifier, _ = train_classifier(xs, labels, capabilities, texts=texts, space=SPACE, hidden_dim=4)
        by_class, by_capability = classifier.predict(xs, texts)
        unit = xs[3] / np.linalg.norm(xs[3])
        ranked, named = classifier.answer(unit, texts[3])
        assert dict(ranked) == pytest.approx(dict(zip(classifier.classes, by_class[3], strict=True)), abs=1e-5)
        assert dict(named) == pytest.approx({"first": by_capability[3, 0]}, abs=1e-5)
        assert classifier.classify_batch(xs, texts)[3][0][0] == ranked[0][0]
        assert classifier.classify_capabilities(xs[3], texts[3])[0][0] == "first"
        with pytest.raises(InvalidInputError, match="24 embeddings and 23 texts"):
            classifier.predict(xs, texts[1:])

    def test_best_f1_names_a_rare_capability_more_often(self):
        """Needed in a third of the cases where x is positive, and nowhere else: honest says no, F1 says yes there."""
        rng = np.random.default_rng(3)
        xs, labels = rng.normal(size=(600, 4)), [("a", "b")[i % 2] for i in range(600)]
        needed = [["rare"] if x[0] > 0 and rng.random() < 0.35 else [] for x in xs]
        reports = [
            train_classifier(xs, labels, needed, space=SPACE, hidden_dim=8, best_f1=best)[1] for best in (False, True)
        ]
        honest, best = (report.capability_f1["rare"] for report in reports)
        assert honest is not None
        assert best is not None
        assert honest < 0.2
        assert best == pytest.approx(2 * 0.35 / (1 + 0.35), abs=0.08)  # saying yes wherever x is positive

    def test_a_handful_of_right_answers_is_no_certainty(self):
        xs, labels = clusters(3, seed=2, spread=0.02)
        classifier, report = train_classifier(xs, labels, texts=labels, space=SPACE, hidden_dim=8)
        assert report.accuracy == 1.0
        assert 0.8 < classifier.classify(xs[0], labels[0])[0][1] < 0.999

    def test_further_vectors_of_the_same_examples_are_learnt_too(self):
        xs, labels = clusters(20, seed=0)
        turned = -xs[:, [1, 2, 0, 3]]
        alone, _ = train_classifier(xs, labels, space=SPACE, hidden_dim=8)
        both, report = train_classifier(xs, labels, more_embeddings=[turned], space=SPACE, hidden_dim=8)
        truth = np.array(labels)

        def right(classifier, rows):
            return np.mean(np.array(classifier.classes)[classifier.predict(rows)[0].argmax(axis=1)] == truth)

        assert right(alone, turned) < 0.7 < right(both, turned)
        assert report.rows == 60
        with pytest.raises(InvalidInputError, match="more_embeddings"):
            train_classifier(xs, labels, more_embeddings=[turned[1:]], space=SPACE)

    def test_the_report_counts_what_was_taken_for_what(self):
        rng = np.random.default_rng(0)
        xs, labels = rng.normal(size=(90, 4)), [f"class {i % 3}" for i in range(90)]
        _, report = train_classifier(xs, labels, space=SPACE, hidden_dim=8)
        confusion = np.array(report.confusion)
        assert confusion.sum() == report.judged_rows == 90
        assert confusion.sum(axis=1).tolist() == list(report.class_counts.values())
        assert np.trace(confusion) / 90 == pytest.approx(report.accuracy)
        precision, recall = report.of_class("class 1")
        assert recall == pytest.approx(confusion[1, 1] / 30)
        assert precision == pytest.approx(confusion[1, 1] / confusion[:, 1].sum())

    def test_progress_goes_from_nothing_to_all(self):
        xs, labels = clusters(4, seed=0)
        seen: list[float] = []
        train_classifier(xs, labels, texts=labels, space=SPACE, hidden_dim=4, folds=2, progress=seen.append)
        assert seen == sorted(seen)
        assert 0.0 < seen[0] < 0.05
        assert seen[-1] == 1.0

    def test_contradictions_and_rare_capabilities_are_told(self):
        xs, labels = clusters(20, seed=0)
        xs[1] = xs[0]
        labels[1] = "class 2"
        capabilities = [["rare"]] + [[]] * 59
        _, report = train_classifier(xs, labels, capabilities, space=SPACE, hidden_dim=4)
        assert any("2 examples share their vector with one of another class" in w for w in report.warnings)
        assert any("'rare' is in 1 of 60" in w for w in report.warnings)

    def test_a_capability_that_vectors_do_not_show_keeps_its_base_rate(self):
        rng = np.random.default_rng(1)
        xs, labels = clusters(60, seed=0)
        capabilities = [["luck"] if u < 0.3 else [] for u in rng.random(180)]
        classifier, _ = train_classifier(xs, labels, capabilities, space=SPACE, hidden_dim=8)
        probability = classifier.predict(clusters(60, seed=9)[0])[1]
        assert probability.mean() == pytest.approx(sum(map(len, capabilities)) / 180, abs=0.06)
        assert np.abs(probability - probability.mean()).max() < 0.35

    @pytest.mark.parametrize(
        ("labels", "error", "words"),
        [
            ([], InvalidInputError, "4 embeddings and 0 labels"),
            (["a", "a", "a", "a"], InvalidInputError, "of class 'a'; a classifier could only repeat it"),
            (["a", "a", "a", "b"], InvalidInputError, "'b' has 1 example"),
            (["a", "a", " ", "b"], InvalidNameError, "class is empty"),
            (["a", "a", None, "b"], InvalidNameError, "None"),
            ("aabb", InvalidInputError, "'aabb'; expected a list"),
        ],
    )
    def test_senseless_labels_are_refused(self, labels, error, words):
        with pytest.raises(error, match=words):
            train_classifier(np.eye(4), labels, space=SPACE)

    def test_senseless_examples_are_refused(self):
        labels = ["a", "a", "b", "b"]
        bad = np.eye(4)
        bad[2, 2] = np.nan
        with pytest.raises(InvalidVectorError, match="number 2 "):
            train_classifier(bad, labels, space=SPACE)
        with pytest.raises(SpaceMismatchError, match=r"4 dimensions.*384"):
            train_classifier(np.eye(4), labels)
        with pytest.raises(InvalidInputError, match="no examples"):
            train_classifier(np.empty((0, 4)), [], space=SPACE)
        with pytest.raises(InvalidInputError, match="2 lists of capabilities"):
            train_classifier(np.eye(4), labels, [["x"], []], space=SPACE)
        with pytest.raises(InvalidInputError, match="'math'; expected a list"):
            train_classifier(np.eye(4), labels, ["math"] * 4, space=SPACE)
        with pytest.raises(InvalidInputError, match="3 groups"):
            train_classifier(np.eye(4), labels, groups=[1, 2, 3], space=SPACE)
        with pytest.raises(InvalidInputError, match="3 texts"):
            train_classifier(np.eye(4), labels, texts=["x", "y", "z"], space=SPACE)
        with pytest.raises(InvalidInputError, match="4 booleans"):
            train_classifier(np.eye(4), labels, representative=[1, 0, 1, 0], space=SPACE)
        with pytest.raises(InvalidInputError, match="'b' has 2 example"):
            train_classifier(np.eye(4)[[0, 1, 2, 2]], labels, space=SPACE)


@pytest.fixture(scope="module")
def classifier():
    return RequestClassifier.load(space=MINILM_SPACE)


class TestShipped:
    def test_it_names_the_data_it_comes_from(self, classifier):
        assert classifier.metadata["data_sha256"] == data.data_sha256(data.TRAIN, data.TEMPLATES)
        assert len(classifier.classes) == 12
        assert "other" in classifier.classes
        assert SHIPPED_CLASSIFIER.stat().st_size < 1_000_000

    def test_it_is_as_good_on_unseen_requests_as_the_docs_say(self, classifier, capsys):
        requests = data.read_requests(data.TEST)
        accuracy = script.evaluate(classifier, requests, StaticEmbedder())
        assert f"accuracy {accuracy:.3f}" in capsys.readouterr().out
        assert accuracy == pytest.approx(DOCUMENTED_ACCURACY, abs=TOLERANCE)
        by_vector = script.evaluate(classifier, requests, StaticEmbedder(), words=False)
        assert by_vector == pytest.approx(DOCUMENTED_BY_VECTOR, abs=TOLERANCE)
        page = (data.FOLDER.parent.parent / "docs" / "explanation" / "classifier.md").read_text("utf-8")
        assert f"**{DOCUMENTED_ACCURACY:.1%}**" in page
        assert f"**{DOCUMENTED_BY_VECTOR:.1%}**" in page

    def test_it_knows_a_plain_request_of_each_kind(self, classifier):
        plain = {
            "coding": "Write a Python function that reverses a linked list.",
            "translation": "Translate this sentence to Norwegian.",
            "mathematics": "Solve the equation 4x + 3 = 19.",
            "summarisation": "Summarise this article in three bullet points.",
            "customer-support": "My parcel has not arrived, I want a refund.",
            "conversation": "Hello, how are you?",
        }
        texts = list(plain.values())
        vectors = StaticEmbedder().embed(texts).vectors
        assert [ranked[0][0] for ranked in classifier.classify_batch(vectors, texts)] == list(plain)
        names = {name for name, _ in classifier.classify_capabilities(vectors[0], texts[0])}
        assert names == {"coding"}

    @pytest.mark.slow
    def test_the_script_makes_such_weights_again(self, classifier, tmp_path, capsys):
        """Without the transformer's vectors, which need an extra, and serve those who route with them."""
        again = script.train(tmp_path / "c.safetensors")
        requests = data.read_requests(data.TEST)
        assert script.evaluate(again, requests, StaticEmbedder()) == pytest.approx(DOCUMENTED_ACCURACY, abs=TOLERANCE)
        texts = [request.text for request in requests]
        vectors = StaticEmbedder().embed(texts).vectors
        assert np.abs(again.predict(vectors, texts)[0] - classifier.predict(vectors, texts)[0]).mean() < 0.02


class TestData:
    def test_test_and_training_requests_share_nothing(self):
        training, test = script.training_requests(), data.read_requests(data.TEST)
        assert not {r.text.casefold() for r in training} & {r.text.casefold() for r in test}
        assert len(test) >= 400
        assert len(data.read_requests(data.TRAIN)) >= len(training) / 2
        assert len(training) >= 1200
        for requests in (training, test):
            assert {r.label for r in requests} == set(RequestClassifier.load().classes)
            assert {k for r in requests for k in r.capabilities} == set(RequestClassifier.load().capabilities)

    def test_the_readme_defines_every_class_and_capability(self):
        readme = (data.FOLDER / "README.md").read_text("utf-8")
        shipped = RequestClassifier.load()
        assert all(f"| `{name}` |" in readme for name in (*shipped.classes, *shipped.capabilities))

    def test_wordings_are_filled_from_the_seed(self):
        one = data.fill_templates(data.TEMPLATES, 30, 1)
        assert one == data.fill_templates(data.TEMPLATES, 30, 1) != data.fill_templates(data.TEMPLATES, 30, 2)
        assert all("{" not in r.text and r.text.strip() for r in one)
        assert len({(r.label, r.text) for r in one}) == len(one) == 30 * 12

    def test_escapes_are_read(self, tmp_path):
        path = tmp_path / "r.tsv"
        path.write_text(f"{data.HEADER}\ncoding\tcoding, tools\ta\\nb\\tc\\\\n\n", "utf-8")
        (request,) = data.read_requests(path)
        assert request.text == "a\nb\tc\\n"
        assert request.capabilities == ("coding", "tools")


@pytest.mark.parametrize(
    ("confidence", "right", "expected"),
    [([0.95, 0.95], [True, True], 0.05), ([0.55, 0.55, 0.95, 0.95], [True, False, True, True], 0.05)],
)
def test_calibration_error_by_hand(confidence, right, expected):
    assert script.expected_calibration_error(np.array(confidence), np.array(right)) == pytest.approx(expected)


def test_inference_loads_no_training_code():
    probe = "import sys, tinydancer.model.classifier; print('tinydancer.model.training' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"
