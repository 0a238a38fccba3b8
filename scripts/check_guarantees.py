"""Check what the guarantees promise, over many random splits of data whose truth is known or held out.

In: synthetic requests, and the data sets in ../shared/data (or where TINYDANCER_DATA points) if they are there; a
logistic regression per agent over the static embedder's vectors, trained on half of each, predicts. Out: the tables of
docs/explanation/guarantees.md, from a seed.

    python scripts/check_guarantees.py
    python scripts/check_guarantees.py --splits 50 --only synthetic

The first table is about the intervals: how often they hold an outcome, and how wide they are; the second about the
floor of their scale. The third is about the operating point: how often the promise of 95% of the best single agent's
quality fails at delta = 0.1.

* "truth": the calibration rows are drawn with replacement from the held-out rows (or from the synthetic distribution),
  whose mean is the truth. A valid procedure fails in at most 10% of the draws.
* "other part": the held-out rows are split in two; calibrated on one half, counted on the other, whose mean is as
  noisy as the first half's. Without a margin for it, this count may exceed 10% although the promise is kept.

With ``--share 0.8`` the calibration part is four fifths, and the rest, which is counted on, the noisier part.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value

from tinydancer.errors import ModelError
from tinydancer.model.conformal import ConformalInterval
from tinydancer.model.risk import STEPS, cheapest_good_enough, find_operating_point

FloatArray = npt.NDArray[np.float64]
Search = Callable[["Rows", FloatArray, int, int], float | None]
"""Calibration rows, costs, seed and size of the part that is counted on, to ``good_enough``; None: no promise."""

TARGET, DELTA, COVERAGE = 0.95, 0.1, 0.9
MODELS = 10
"""Of each data set, on different halves of it."""
SYNTHETIC_ROWS = 2000
TRUTH_ROWS = 100_000
FLOORS = (None, 0.02, 0.05, 0.1, 0.2, 0.5)


class Rows(NamedTuple):
    """n requests and N agents: predicted and observed quality ``[n, N]``."""

    predicted: FloatArray
    observed: FloatArray

    def take(self, index: npt.NDArray[np.intp]) -> Rows:
        """Some of the requests."""
        return Rows(self.predicted[index], self.observed[index])


@dataclass(frozen=True)
class Source:
    """Held-out rows of one data set, one set for each of several models, and what the agents cost."""

    name: str
    held_out: list[Rows]
    cost_usd: FloatArray
    costs_are_known: bool


# -- data ----------------------------------------------------------------------------------------------------------


def synthetic_rows(n: int, seed: int, *, graded: bool = False) -> Rows:
    """Three agents of growing ability; a model that knows the difficulty of a request up to noise."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0.0, 1.5, (n, 1))
    ability = np.array([0.3, 1.0, 1.8])
    truth = 1.0 / (1.0 + np.exp(difficulty - ability))
    predicted = 1.0 / (1.0 + np.exp(0.8 * (difficulty + rng.normal(0.0, 0.5, (n, 3))) - ability))
    if graded:
        return Rows(predicted, rng.beta(2.0 * truth + 1e-9, 2.0 * (1.0 - truth) + 1e-9))
    return Rows(predicted, (rng.random((n, 3)) < truth).astype(np.float64))


def synthetic(*, graded: bool, splits: int, seed: int) -> Source:
    """New rows for every split, so that the splits are independent draws."""
    held_out = [synthetic_rows(SYNTHETIC_ROWS, seed + split, graded=graded) for split in range(splits)]
    return Source(f"synthetic, {'graded' if graded else '0 or 1'}", held_out, np.array([1.0, 5.0, 20.0]), True)


def real(folder: Path, seed: int) -> Source:
    """One logistic regression per agent on a random half, for each of several random halves."""
    from sklearn.linear_model import LogisticRegression

    from tinydancer.embedding.static import StaticEmbedder
    from tinydancer.tables import read_tables

    table = read_tables(folder / "requests.csv.gz", folder / "outcomes.csv.gz")
    table = table.rows(~np.isnan(table.quality).any(axis=1))
    vectors = StaticEmbedder().embed(table.texts).vectors
    quality = table.quality.astype(np.float64)
    held_out = []
    for model in range(MODELS):
        order = np.random.default_rng([seed, model]).permutation(len(table))
        train, rest = order[: len(order) // 2], order[len(order) // 2 :]
        twice = np.concatenate([vectors[train], vectors[train]])
        label = np.repeat([1, 0], len(train))
        predicted = np.empty((len(rest), len(table.agents)))
        for agent in range(len(table.agents)):
            weight = np.concatenate([quality[train, agent], 1.0 - quality[train, agent]])
            some = weight > 0.0
            fitted = LogisticRegression(max_iter=300).fit(twice[some], label[some], sample_weight=weight[some])
            predicted[:, agent] = fitted.predict_proba(vectors[rest])[:, 1]
        held_out.append(Rows(predicted, quality[rest]))
    known = not np.isnan(table.cost_usd).any()
    # Without costs, the better agent counts as the dearer one.
    cost_usd = table.cost_usd.mean(axis=0) if known else np.argsort(np.argsort(quality.mean(axis=0)))
    return Source(folder.name, held_out, cost_usd.astype(np.float64), known)


def parts(source: Source, splits: int, seed: int, share: float) -> Iterator[tuple[Rows, Rows]]:
    """Calibration and test rows, `splits` times; `share` of the rows calibrate."""
    for split in range(splits):
        rows = source.held_out[split % len(source.held_out)]
        order = np.random.default_rng([seed, split]).permutation(len(rows.observed))
        middle = int(len(order) * share)
        yield rows.take(order[:middle]), rows.take(order[middle:])


# -- intervals -----------------------------------------------------------------------------------------------------


def one_width(rows: Rows) -> ConformalInterval:
    return ConformalInterval.from_residuals(np.abs(rows.observed - rows.predicted).ravel(), COVERAGE)


def by_prediction(rows: Rows) -> ConformalInterval:
    return ConformalInterval.from_outcomes(rows.predicted, rows.observed, COVERAGE)


def best_choice(rows: Rows) -> Rows:
    """Of each request, the agent that is expected to answer it best, as one column."""
    index = np.arange(len(rows.predicted)), rows.predicted.argmax(axis=1)
    return Rows(rows.predicted[index][:, None], rows.observed[index][:, None])


def column(rows: Rows, agent: int) -> Rows:
    return Rows(rows.predicted[:, [agent]], rows.observed[:, [agent]])


def held(interval: ConformalInterval, rows: Rows) -> tuple[FloatArray, FloatArray]:
    """Whether each outcome lies in its interval, and the widths."""
    low, high = interval.interval(rows.predicted)
    return ((low <= rows.observed) & (rows.observed <= high)).astype(np.float64), high - low


def intervals_table(source: Source, splits: int, seed: int, share: float) -> Iterator[tuple[str, ...]]:
    """Mean coverage, its spread over splits and mean width: over all answers, and over those of the best choice."""
    variants: dict[str, list[tuple[float, float, float, float]]] = {}
    for calibration, test in parts(source, splits, seed, share):
        best = best_choice(test)
        for name, interval in {
            "one width": one_width(calibration),
            "by prediction": by_prediction(calibration),
            "by prediction, chosen": by_prediction(best_choice(calibration)),
        }.items():
            covered, width = held(interval, test)
            best_covered, best_width = held(interval, best)
            variants.setdefault(name, []).append((covered.mean(), width.mean(), best_covered.mean(), best_width.mean()))
        agents = range(test.observed.shape[1])
        each = [held(by_prediction(column(calibration, agent)), column(test, agent)) for agent in agents]
        choice = test.predicted.argmax(axis=1)
        covered, width = (np.hstack(part) for part in zip(*each, strict=True))
        rows = np.arange(len(choice))
        variants.setdefault("by prediction, per agent", []).append(
            (covered.mean(), width.mean(), covered[rows, choice].mean(), width[rows, choice].mean())
        )
    for name, values in variants.items():
        coverage, width, best_coverage, best_width = np.mean(values, axis=0)
        spread = np.std([value[0] for value in values])
        yield (
            source.name, name, f"{coverage:.1%}", f"{spread:.1%}", f"{width:.3f}", f"{best_coverage:.1%}",
            f"{best_width:.3f}",
        )  # fmt: skip


def noise(*, splits: int, seed: int) -> Source:
    """One agent whose grade is the prediction and an error of one size everywhere: what a small floor is wrong for."""
    held_out = []
    for split in range(splits):
        rng = np.random.default_rng([seed, split])
        predicted = 1.0 / (1.0 + np.exp(-rng.normal(0.0, 2.0, (SYNTHETIC_ROWS, 1))))
        held_out.append(Rows(predicted, np.clip(predicted + rng.normal(0.0, 0.1, predicted.shape), 0.0, 1.0)))
    return Source("synthetic, graded with even noise", held_out, np.array([1.0]), True)


def floors_table(source: Source, splits: int, seed: int, share: float) -> Iterator[tuple[str, ...]]:
    """Mean coverage and width for several floors, over all predictions and over the tenth nearest to 0 or 1."""
    for floor in FLOORS:
        values = []
        for calibration, test in parts(source, splits, seed, share):
            interval = one_width(calibration)
            if floor is not None:
                interval = ConformalInterval.from_outcomes(
                    calibration.predicted, calibration.observed, COVERAGE, scale_floor=floor
                )
            covered, width = held(interval, test)
            certainty = np.abs(test.predicted - 0.5)
            near = certainty >= np.quantile(certainty, 0.9)
            values.append((covered.mean(), width.mean(), covered[near].mean(), width[near].mean()))
        coverage, width, near_coverage, near_width = np.mean(values, axis=0)
        name = "one width" if floor is None else f"{floor:g}"
        yield source.name, name, f"{coverage:.1%}", f"{width:.3f}", f"{near_coverage:.1%}", f"{near_width:.3f}"


# -- operating points ----------------------------------------------------------------------------------------------


def gains_of(rows: Rows, cost_usd: FloatArray, share: float) -> FloatArray:
    chosen = cheapest_good_enough(rows.predicted, cost_usd, share)
    gains: FloatArray = rows.observed[np.arange(len(chosen)), chosen][:, None] - TARGET * rows.observed
    return gains


def fixed_sequence(refuted: Callable[[FloatArray], bool]) -> Search:
    """The same walk with another test."""

    def search(rows: Rows, cost_usd: FloatArray, _seed: int, _counted_rows: int) -> float | None:
        last = None
        for step in range(STEPS, -1, -1):
            if not refuted(gains_of(rows, cost_usd, step / STEPS)):
                break
            last = step / STEPS
        return last

    return search


def hoeffding_bentkus(gains: FloatArray) -> bool:
    """The test of the paper, on the gains scaled to a loss in [0, 1]."""
    losses, level = (1.0 - gains.mean(axis=0)) / (1.0 + TARGET), 1.0 / (1.0 + TARGET)
    return bool(np.max(compute_hoeffding_bentkus_p_value(losses, len(gains), level)) <= DELTA)


def normal(gains: FloatArray) -> bool:
    """The textbook test, right for many rows only."""
    error = np.maximum(gains.std(axis=0, ddof=1), 1e-12) / math.sqrt(len(gains))
    return bool((gains.mean(axis=0) / error).min() >= 1.2815515655446004)


def betting(*, long_run: bool = False, told: bool = False) -> Search:
    """What ``tinydancer calibrate`` does: by default, with ``--test-rows 0``, or told how many rows are counted on."""

    def search(rows: Rows, cost_usd: FloatArray, seed: int, counted_rows: int) -> float | None:
        try:
            return find_operating_point(
                rows.predicted, rows.observed, cost_usd, target_quality=TARGET, delta=DELTA, seed=seed,
                test_rows=0 if long_run else counted_rows if told else None,
            ).good_enough  # fmt: skip
        except ModelError:
            return None

    return search


TOLD = "betting, --test-rows of the other part"
PROCEDURES: dict[str, Search] = {
    "plug-in mean": fixed_sequence(lambda gains: bool(gains.mean(axis=0).min() >= 0.0)),
    "normal test": fixed_sequence(normal),
    "Hoeffding-Bentkus": fixed_sequence(hoeffding_bentkus),
    "betting, --test-rows 0": betting(long_run=True),
    "betting, default": betting(),
    TOLD: betting(told=True),
}


class Count(NamedTuple):
    """Of one split: whether nothing was promised, whether it broke in truth and on the other half, what it cost."""

    refused: bool
    broken_in_truth: bool
    broken_on_half: bool
    relative_cost: float
    best_calls: float
    good_enough: float
    coverage: float


def counted(search: Search, source: Source, truth: Rows | None, split: int, calibration: Rows, test: Rows) -> Count:
    """One split; `truth` is the population, by default all held-out rows of the split's model."""
    cost = source.cost_usd
    share = search(calibration, cost, split, len(test.observed))
    pool, drawn_share = truth, share  # synthetic calibration rows are a draw from the population already
    if pool is None:
        pool = source.held_out[split % len(source.held_out)]
        index = np.random.default_rng([7, split]).integers(0, len(pool.observed), len(calibration.observed))
        drawn_share = search(pool.take(index), cost, split, len(test.observed))
    broken = drawn_share is not None and gains_of(pool, cost, drawn_share).mean(axis=0).min() < 0.0
    if share is None:
        return Count(True, broken, False, math.nan, math.nan, math.nan, math.nan)
    chosen = cheapest_good_enough(test.predicted, cost, share)
    best = int(pool.observed.mean(axis=0).argmax())
    return Count(
        refused=False,
        broken_in_truth=broken,
        broken_on_half=bool(gains_of(test, cost, share).mean(axis=0).min() < 0.0),
        relative_cost=cost[chosen].mean() / cost[best],
        best_calls=float((chosen == best).mean()),
        good_enough=share,
        coverage=float(held(by_prediction(routed(calibration, cost, share)), routed(test, cost, share))[0].mean()),
    )


def routed(rows: Rows, cost_usd: FloatArray, share: float) -> Rows:
    """Of each request, the agent it is sent to, as one column."""
    index = np.arange(len(rows.predicted)), cheapest_good_enough(rows.predicted, cost_usd, share)
    return Rows(rows.predicted[index][:, None], rows.observed[index][:, None])


def operating_table(
    source: Source, splits: int, seed: int, share: float, truth: Rows | None
) -> Iterator[tuple[str, ...]]:
    """How often each procedure promised nothing, broke its promise, and what was left to pay."""
    for name, search in PROCEDURES.items():
        if name == TOLD and share == 0.5:
            continue  # the other part is as large as the first, which is the default
        counts = [
            counted(search, source, truth, split, calibration, test)
            for split, (calibration, test) in enumerate(parts(source, splits, seed, share))
        ]
        refused, in_truth, on_half, *others = np.array(counts, dtype=np.float64).T
        means = [float(np.nanmean(other)) if np.isfinite(other).any() else math.nan for other in others]
        if not source.costs_are_known:
            means[0] = math.nan
        shown = zip(means, (".0%", ".0%", ".3f", ".1%"), strict=True)
        yield (
            source.name, name, f"{refused.mean():.0%}", f"{in_truth.mean():.1%}", f"{on_half.mean():.1%}",
            *("-" if math.isnan(value) else format(value, form) for value, form in shown),
        )  # fmt: skip


# -- output --------------------------------------------------------------------------------------------------------


def show(title: str, heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def sources(only: str | None, splits: int, seed: int) -> Iterator[tuple[Source, Rows | None]]:
    """Each source with its population where that is known."""
    for graded in (False, True):
        source = synthetic(graded=graded, splits=splits, seed=seed)
        if only in (None, "synthetic", source.name):
            yield source, synthetic_rows(TRUTH_ROWS, seed + splits, graded=graded)
    data = Path(os.environ.get("TINYDANCER_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    for name in ("gsm8k", "routerbench", "mmlu", "open7"):
        if only not in (None, name):
            continue
        if (data / name).is_dir():
            yield real(data / name, seed), None
        else:
            print(f"{data / name} is not there; it is left out.")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="synthetic, or the name of a data set")
    parser.add_argument("--share", type=float, default=0.5, help="of the held-out rows that calibrate")
    arguments = parser.parse_args()
    splits, seed, share = arguments.splits, arguments.seed, arguments.share
    started = time.perf_counter()
    found = list(sources(arguments.only, splits, seed))
    show(
        f"Intervals of {COVERAGE:.0%}, {splits} splits",
        ("rows", "calibration", "coverage", "spread", "width", "of the best choice", "width"),
        (row for source, _ in found for row in intervals_table(source, splits, seed, share)),
    )
    graded_evenly = [noise(splits=splits, seed=seed)] if arguments.only in (None, "synthetic") else []
    show(
        f"What is added to the scale, {splits} splits",
        ("rows", "floor", "coverage", "width", "of the surest tenth", "width"),
        (
            row
            for source in [*graded_evenly, *(source for source, _ in found)]
            for row in floors_table(source, splits, seed, share)
        ),
    )
    show(
        f"Promise of {TARGET:.0%} of the best single agent's quality, delta {DELTA}, {splits} splits",
        ("rows", "procedure", "no promise", "truth", "other part", "cost", "calls to the best", "good_enough",
         "coverage of the routed"),
        (row for source, truth in found for row in operating_table(source, splits, seed, share, truth)),
    )  # fmt: skip
    print(f"\nTook {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
