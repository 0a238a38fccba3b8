"""Train the candidate scorer that ships with the package, and compare it with the fallback on queries it never saw.

In: the written queries and memories in ``evals/candidates``, the static embedder, a seed. Out:
``model/data/candidates.safetensors`` and the tables of ``docs/explanation/classifier.md``. One seed, one NumPy and one
thread give one file, to the byte.

    OMP_NUM_THREADS=1 python scripts/train_candidate_scorer.py    # train, save, print the tables
    python scripts/train_candidate_scorer.py --evaluate           # print the tables of the weights that are there
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from candidate_sets import TEST, TRAIN, labelled_sets
from classification_data import data_sha256
from tinydancer.model.candidate_training import (
    CandidateFigures,
    LabelledCandidates,
    candidate_figures,
    train_candidate_scorer,
)
from tinydancer.model.candidates import CandidateScorer
from tinydancer.model.features import FeatureEngineer

OUT = Path(__file__).resolve().parent.parent / "src" / "tinydancer" / "model" / "data" / "candidates.safetensors"
SEED = 5
TEST_SEED = 6
BOOTSTRAPS = 1000


def train(path: Path) -> CandidateScorer:
    """Train, save to `path` and load again."""
    scorer, figures = train_candidate_scorer(labelled_sets(TRAIN, SEED), seed=SEED)
    assert scorer.model is not None
    scorer.model.save(
        path,
        {
            **scorer.model.metadata,
            "name": "candidates-5",
            "about": "Scores memories, documents and responses by five features.",
            "data": "evals/candidates: train.tsv",
            "data_sha256": data_sha256(TRAIN),
            "embedder": "static",
            "calibration_figures": figures.to_dict(),
            "seed": SEED,
        },
    )
    return CandidateScorer.load(path)


def scores_of(scorer: CandidateScorer, sets: Sequence[LabelledCandidates]) -> list[npt.NDArray[np.float64]]:
    """The scorer's confidences, set by set."""
    weights = FeatureEngineer().weights
    return [scorer.score(one.features, np.zeros(len(one.features)), weights).confidence for one in sets]


def similarities(sets: Sequence[LabelledCandidates]) -> list[npt.NDArray[np.float64]]:
    """The first feature alone."""
    return [one.features[:, 0].astype(np.float64) for one in sets]


def evaluate(scorer: CandidateScorer, sets: Sequence[LabelledCandidates]) -> CandidateFigures:
    """Print the tables; the scorer's figures."""
    ways = {
        "similarity alone": similarities(sets),
        "the fallback formula": scores_of(CandidateScorer(), sets),
        f"trained, {scorer.name}": scores_of(scorer, sets),
    }
    figures = {name: candidate_figures(sets, scores) for name, scores in ways.items()}
    mine = figures[f"trained, {scorer.name}"]
    shares = float(np.concatenate([one.relevant for one in sets]).mean())
    print(f"queries {mine.queries}, sets {mine.sets}, candidates {mine.candidates}, of which answer {shares:.3f}\n")
    print("| score | accuracy | AUC | nDCG | first is right | log loss |\n| --- | --: | --: | --: | --: | --: |")
    for name, f in figures.items():
        print(f"| {name} | {f.accuracy:.3f} | {f.auc:.3f} | {f.ndcg:.3f} | {f.first_is_right:.3f} | {f.log_loss:.3f} |")
    print(f"| never relevant | {1 - shares:.3f} | | | | |\n")
    low, high = _ndcg_gain(sets, ways[f"trained, {scorer.name}"], ways["the fallback formula"])
    print(f"nDCG gained over the fallback, 95% interval over queries: {low:.3f} to {high:.3f}")
    if scorer.calibration is not None:
        ours = np.concatenate(ways[f"trained, {scorer.name}"])
        truth = np.concatenate([one.relevant for one in sets])
        lower, upper = scorer.calibration.interval(ours)
        covered = float(((truth >= lower) & (truth <= upper)).mean())
        sure = ours >= 0.85
        interval = scorer.calibration
        print(f"interval of half-width {interval.quantile:.3f} for {interval.coverage:.0%}: covers {covered:.3f}")
        print(f"confidence of 0.85 or more: {sure.sum()}, of which answer {truth[sure].mean():.3f}")
        light = sure & (scorer.calibration.width(ours) <= 0.15)
        print(f"light under the default thresholds: {light.sum()}, of which answer {truth[light].mean():.3f}")
    return mine


def _ndcg_gain(
    sets: Sequence[LabelledCandidates],
    ours: Sequence[npt.NDArray[np.float64]],
    theirs: Sequence[npt.NDArray[np.float64]],
) -> tuple[float, float]:
    """95% interval of the mean gain, by drawing queries with replacement."""
    by_query: dict[object, list[float]] = {}
    for one, mine, other in zip(sets, ours, theirs, strict=True):
        if one.relevant.max() > 0.0:
            gain = (candidate_figures([one], [mine]).ndcg or 0.0) - (candidate_figures([one], [other]).ndcg or 0.0)
            by_query.setdefault(one.query, []).append(gain)
    means = np.array([np.mean(gains) for gains in by_query.values()])
    rng = np.random.default_rng(0)
    drawn = means[rng.integers(len(means), size=(BOOTSTRAPS, len(means)))].mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="file of the weights")
    parser.add_argument("--evaluate", action="store_true", help="do not train")
    arguments = parser.parse_args()
    if arguments.evaluate:
        scorer = CandidateScorer.load(arguments.out)
    else:
        arguments.out.parent.mkdir(exist_ok=True)
        scorer = train(arguments.out)
        assert scorer.model is not None
        print("on the calibration queries:", scorer.model.metadata["calibration_figures"], "\n")
    evaluate(scorer, labelled_sets(TEST, TEST_SEED))
    print("\nThe same queries, where age, use, success and owner say nothing:\n")
    evaluate(scorer, labelled_sets(TEST, TEST_SEED, alike=True))


if __name__ == "__main__":
    main()
