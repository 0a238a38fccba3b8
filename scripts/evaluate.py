"""Evaluates the quality model on the data beside the project: ``make eval``.

In: the four data sets in ``../shared/data`` or where ``TINYDANCER_DATA`` points. Out: tables in Markdown on standard
output, and everything as JSON on request. What is measured, and how nothing is measured on what was learned:
``quality_experiments.py``. Figures are means over the seeds, and so are both ends of the bootstrap bands beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from quality_experiments import Pool
    from tinydancer.embedding.base import Embedder
    from tinydancer.evaluation import Evaluation, Way
    from tinydancer.model.quality_training import QualityTrainingConfig
    from tinydancer.tables import OutcomeTable

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TINYDANCER_DATA") or ROOT.parent / "shared" / "data")
MISSING = 2
SETS = ("mmlu", "gsm8k", "routerbench", "open7")
"""In the order of ``train_quality_model.py``, so that one file of vectors serves both."""

PAIR = ("apgr", "cpt50", "cpt80", "cpt95", "routed_quality", "ece", "coverage")
COSTS = ("relative_cost_at_90", "relative_cost_at_95", "relative_cost_at_98", "relative_cost_at_100", "area",
         "routed_quality", "ece", "coverage")  # fmt: skip
QUALITY = ("routed_quality", "ece", "brier", "coverage")
MEASURES = {"mmlu": PAIR, "gsm8k": PAIR, "routerbench": COSTS, "open7": QUALITY}
NINE_AGENTS = "nine agents never seen, from"
JUDGED_BY = ("relative_cost_at_90", "relative_cost_at_95", "relative_cost_at_98", "area", "routed_quality")
"""What "above every baseline" refers to; not the calibration error, in which whoever predicts means only is best."""
LOWER_IS_BETTER = ("cpt", "relative_cost", "ece", "brier")


class Target(NamedTuple):
    """What the project set itself, for rows that are not among these data."""

    measure: str
    part: str
    plain: str
    target: float


TARGETS = (
    Target("apgr", "mmlu", ".654", 0.67),
    Target("cpt50", "mmlu", "32.6%", 0.30),
    Target("cpt80", "mmlu", "55.9%", 0.54),
    Target("apgr", "mmlu, unseen task types", ".584", 0.63),
    Target("apgr", "gsm8k", ".624", 0.64),
    Target("relative_cost_at_95", "routerbench", "29%", 0.25),
    Target("relative_cost_at_100", "routerbench", "83%", 0.75),
    Target("routed_quality", "open7", ".615", 0.630),
)
NEW_AGENT_TARGET = 0.58


@dataclass
class Run:
    """One run: what it was asked, and what it has found so far."""

    pooled: Pool
    embedder: Embedder
    config: QualityTrainingConfig
    seeds: Sequence[int]
    resamples: int
    is_quick: bool
    started: float
    found: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[str, list[Evaluation]] = field(default_factory=dict)

    def tell(self, what: str) -> None:
        """How far it is, on standard error."""
        print(f"[{time.monotonic() - self.started:5.0f} s] {what}", file=sys.stderr, flush=True)

    def config_of(self, seed: int) -> QualityTrainingConfig:
        """As trained for the package, but for the seed."""
        return replace(self.config, seed=seed)

    def quick_config_of(self, seed: int) -> QualityTrainingConfig:
        """Calibrated in two folds: enough where ranks are all that counts."""
        return replace(self.config, seed=seed, folds=2)

    def telling(self, what: str) -> Callable[[str], None]:
        """`tell` with `what` in front."""
        return lambda more: self.tell(f"{what}: {more}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate what was asked for; 2 without the data."""
    options = _options(arguments)
    folder = Path(options.data)
    missing = [name for name in SETS if not (folder / name / "outcomes.csv.gz").exists()]
    if missing:
        print(
            f"There are no tables in {folder} for: {', '.join(missing)}. Put the data sets there, or name their folder "
            "with TINYDANCER_DATA or --data.",
            file=sys.stderr,
        )
        return MISSING
    run = _begun(options, folder)
    said: list[str] = []
    for name, part in PARTS.items():
        if name in (options.only or [name for name in PARTS if not (name == "tried" and options.quick)]):
            for text in part(run):
                print(text, flush=True)
                said.append(text)
    run.tell("done")
    if options.write:
        options.write.write_text(filled(options.write.read_text(encoding="utf-8"), said), encoding="utf-8")
    if options.json:
        told = run.found | {
            "data sets": {name: [one.to_dict() for one in some] for name, some in run.evaluations.items()},
            "seeds": list(run.seeds), "quick": run.is_quick, "took_s": time.monotonic() - run.started,
        }  # fmt: skip
        Path(options.json).write_text(json.dumps(told, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def filled(page: str, sections: Sequence[str]) -> str:
    """A page with the table of each section that it asks for.

    ``<!-- from make eval: mmlu -->`` asks for the one headed ``mmlu`` or ``mmlu: ...``, and ``<!-- end -->`` ends it.
    What is asked for and not among the sections stays as it is.
    """
    tables: dict[str, str] = {}
    for section in sections:
        heading, _, rest = section.partition("\n")
        table = "\n".join(line for line in rest.splitlines() if line.startswith("|"))
        tables.setdefault(heading.removeprefix("### ").partition(":")[0], table)

    def put(found: re.Match[str]) -> str:
        table = tables.get(found["name"])
        return found[0] if table is None else f"{found['open']}\n\n{table}\n\n<!-- end -->"

    return re.sub(r"(?P<open><!-- from make eval: (?P<name>[^>]*?) -->)\n.*?<!-- end -->", put, page, flags=re.DOTALL)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Evaluate the quality model on the data sets beside the project.")
    parser.add_argument("--data", metavar="FOLDER", default=str(DATA), help=f"where they are (default: {DATA})")
    parser.add_argument("--only", choices=tuple(PARTS), action="append", help="one part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="one seed, few resamples, calibration in two folds")
    parser.add_argument(
        "--seeds", metavar="SEED", type=int, nargs="+", help="of folds and training (default: 0 1 2; --quick: 0)"
    )
    parser.add_argument("--resamples", metavar="N", type=int, help="of the bootstrap (default: 200; --quick: 40)")
    parser.add_argument(
        "--minilm-vectors", metavar="FILE", type=Path,
        help="train on both embedders and measure each: a .npy file as train_quality_model.py writes it",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON, too")
    parser.add_argument(
        "--write", metavar="PAGE", type=Path, help="put the tables into a page, where its comments ask for them"
    )  # fmt: skip
    return parser.parse_args(arguments)


def _begun(options: argparse.Namespace, folder: Path) -> Run:
    import numpy as np

    from quality_experiments import pool
    from tinydancer.embedding import StaticEmbedder
    from tinydancer.model.quality_training import QualityTrainingConfig
    from tinydancer.tables import read_tables

    started = time.monotonic()
    tables = {
        name: read_tables(folder / name / "requests.csv.gz", folder / name / "outcomes.csv.gz") for name in SETS
    }  # fmt: skip
    more = [] if options.minilm_vectors is None else [np.load(options.minilm_vectors)]
    embedder = StaticEmbedder()
    return Run(
        pooled=pool(tables, embedder, more), embedder=embedder,
        config=QualityTrainingConfig(folds=2 if options.quick else QualityTrainingConfig().folds),
        seeds=options.seeds or ([0] if options.quick else [0, 1, 2]),
        resamples=options.resamples or (40 if options.quick else 200), is_quick=options.quick, started=started,
    )  # fmt: skip


# -- one model, pooled over all data sets --------------------------------------------------------------------------


def _pooled(run: Run) -> Iterator[str]:
    from quality_experiments import by_requests, cross_predicted, evaluated, overlaps

    twins = [f"{count:,} of {a} have one in {b}" for (a, b), count in overlaps(run.pooled).items()]
    yield f"Twins, which are held out together: {'; '.join(twins) or 'none'}.\n"
    views = ("static", "MiniLM")[: len(run.pooled.data.embeddings)]
    for seed in run.seeds:
        fold = by_requests(run.pooled, seed)
        said = cross_predicted(run.pooled, fold, run.config_of(seed), run.telling(f"pooled, seed {seed}"))
        for view, name in enumerate(views):
            for data in SETS:
                run.tell(f"measuring {data}, {name} vectors, seed {seed}")
                found = evaluated(run.pooled, data, fold, said[view], view, seed, run.resamples)
                run.evaluations.setdefault(data if view == 0 else f"{data}, {name} vectors", []).append(found)
    for name in [f"{data}{suffix}" for suffix in ("", ", MiniLM vectors") for data in SETS]:
        if name in run.evaluations:
            yield _markdown(name, MEASURES[name.partition(",")[0]], run.evaluations[name])


def _unseen(run: Run) -> Iterator[str]:
    from quality_experiments import KEPT, by_tasks, cross_predicted, evaluated

    name = "mmlu, unseen task types"
    for seed in run.seeds:
        fold = by_tasks(run.pooled, "mmlu", seed)
        for kept, rows in KEPT.items():
            if run.is_quick and kept != "without twins":
                continue
            tell = run.telling(f"unseen tasks, {kept}, seed {seed}")
            config = run.config_of(seed) if kept == "without twins" else run.quick_config_of(seed)
            said = cross_predicted(run.pooled, fold, config, tell, rows)
            for view in range(len(said)):
                vectors = ", MiniLM vectors" if view else ""
                found = evaluated(run.pooled, "mmlu", fold, said[view], view, seed, run.resamples)
                title = name if kept == "without twins" else f"{name}, {kept}"
                run.evaluations.setdefault(f"{title}{vectors}", []).append(found)
    shown = {title: results for title, results in run.evaluations.items() if title.startswith(name)}
    for title, results in shown.items():
        yield _markdown(title, PAIR, results)
    measures = PAIR[:4]
    lines = ["### What the training kept: the model on task types never seen", "",
             f"| training rows, vectors | {' | '.join(_label(measure) for measure in measures)} |",
             f"| --- |{' ---: |' * len(measures)}"]  # fmt: skip
    for title, results in shown.items():
        cells = [_cell(measure, _same("model", results)) for measure in measures]
        lines.append(f"| {title.removeprefix(name).removeprefix(', ') or 'without twins'} | {' | '.join(cells)} |")
    yield "\n".join([*lines, ""])


# -- agents and data sets that the model does not know -------------------------------------------------------------


def _new_agent(run: Run) -> Iterator[str]:
    from quality_experiments import NEW_AGENTS, by_requests, new_agent

    found = []
    for seed in run.seeds:
        fold = by_requests(run.pooled, seed)
        for agent in NEW_AGENTS:
            tell = run.telling(f"new agent, seed {seed}")
            found += list(new_agent(run.pooled, agent, fold, run.quick_config_of(seed), seed, run.resamples, tell))
    run.found["new agent"] = found
    columns = list(dict.fromkeys((row["known"], row["outcomes"]) for row in found))
    heads = {"name": "nothing but its name", "stated": "its stated quality"}
    titles = [heads[known] if not count else f"and {count} outcomes" for known, count in columns]
    lines = ["### An agent that the model never saw: APGR", "", f"| | {' | '.join(titles)} |",
             f"| --- |{' ---: |' * len(columns)}"]  # fmt: skip
    for agent, data in dict.fromkeys((row["agent"], row["data"]) for row in found):
        cells = []
        for known, count in columns:
            rows = [row for row in found if (row["agent"], row["data"], row["known"], row["outcomes"])
                    == (agent, data, known, count)]  # fmt: skip
            low, high = (fmean(ends) for ends in zip(*(row["band"] for row in rows), strict=True))
            cells.append(f"{fmean(row['apgr'] for row in rows):.3f} ({low:.3f} to {high:.3f})")
        lines.append(f"| {agent}, {data} | {' | '.join(cells)} |")
    yield "\n".join([*lines, ""])


def _nine_agents(run: Run) -> Iterator[str]:
    from quality_experiments import nine_agents

    found = _from_rows(run, "routerbench", nine_agents(run.pooled), "area", run.resamples, run.seeds)
    run.found["nine agents"] = found
    for name, results in run.evaluations.items():
        if name.startswith(NINE_AGENTS):
            yield _markdown(name, COSTS, results)
    yield _learning_curves(found, "routerbench, nine agents")


def _rows(run: Run) -> Iterator[str]:
    run.found["rows"] = []
    for data, measure in {"mmlu": "apgr", "open7": "routed_quality"}.items():
        # Sixteen searches for the best penalties per seed: two seeds tell what matters from what does not.
        found = _from_rows(run, data, run.pooled.alone(data), measure, 20, run.seeds[:2])
        run.found["rows"] += found
        yield _learning_curves(found, data)


def _from_rows(
    run: Run, data: str, table: OutcomeTable, measure: str, resamples: int, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    from quality_experiments import ROWS, from_rows, start_without

    rows = run.pooled.rows(data)
    vectors, groups = run.pooled.data.embeddings[0][rows], run.pooled.groups[rows]
    counts = ROWS if not run.is_quick else (50, None)
    found: list[dict[str, Any]] = []
    for seed in seeds:
        starts = {"nothing": None, "the other data sets": start_without(run.pooled, data, run.quick_config_of(seed))}
        tell = run.telling(f"rows of {data}, seed {seed}")
        results = list(from_rows(table, groups, vectors, run.embedder, counts, starts, seed, resamples, tell))
        most = max(count for count, _, _ in results)
        for count, start, result in results:
            if data == "routerbench" and count == most:
                run.evaluations.setdefault(f"{NINE_AGENTS} {start}", []).append(result)
            values = {way.name: way.values[measure] for way in result.ways if way.kind in ("model", "baseline")}
            # The last number of rows differs by a few from seed to seed, for twins stay together.
            shown = count if count in counts else None
            found.append({"measure": measure, "rows": shown, "start": start, "seed": seed, "of": data} | values)
    return found


def _learning_curves(found: Sequence[Mapping[str, Any]], label: str) -> str:
    baselines = ("per-task mean", "nearest neighbours", "logistic regression")
    lines = [f"### How many rows of {label}: {_label(found[0]['measure'])} on the other 30%", "",
             f"| rows | from nothing | from the other data sets | {' | '.join(baselines)} |",
             f"| ---: | ---: | ---: |{' ---: |' * len(baselines)}"]  # fmt: skip
    for count in dict.fromkeys(row["rows"] for row in found):
        some = [row for row in found if row["rows"] == count]
        starts = ([row["model"] for row in some if row["start"] == start]
                  for start in ("nothing", "the other data sets"))  # fmt: skip
        cells = [_mean(values) for values in (*starts, *([row.get(name) for row in some] for name in baselines))]
        lines.append(f"| {f'{count:,}' if count else 'all 70%'} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _tried(run: Run) -> Iterator[str]:
    from quality_variants import tried
    from tinydancer.evaluation.wording import figure

    # Two seeds are enough to tell what matters from what does not; each is fifteen trainings in five folds, twice.
    seeds = run.seeds[:2]
    found = [row for seed in seeds for row in tried(run.pooled, seed, run.telling(f"tried, {seed}"))]
    run.found["tried"] = found
    columns = {
        "mmlu": "mmlu, APGR", "unseen": "unseen task types", "gsm8k": "gsm8k, APGR",
        "relative_cost_at_95": "routerbench, cost at 95%", "area": "its area", "open7": "open7, quality",
    }  # fmt: skip
    lines = ["### What was tried", "", f"| | {' | '.join(columns.values())} |", f"| --- |{' ---: |' * len(columns)}"]
    for variant in dict.fromkeys(row["variant"] for row in found):
        some = [row for row in found if row["variant"] == variant]
        cells = [figure(name, fmean(row[name] for row in some)) for name in columns]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    yield "\n".join([*lines, ""])


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.3f}" if known else "–"


# -- tables --------------------------------------------------------------------------------------------------------


def _label(measure: str) -> str:
    from tinydancer.evaluation.wording import LABELS

    return LABELS[measure]


def _same(name: str, results: Sequence[Evaluation]) -> list[Way]:
    return [way for result in results for way in result.ways if way.name == name]


def _value(measure: str, ways: Sequence[Way]) -> float | None:
    values = [value for way in ways if (value := way.values[measure]) is not None]
    return fmean(values) if values else None


def _cell(measure: str, ways: Sequence[Way]) -> str:
    from tinydancer.evaluation.wording import figure

    value = _value(measure, ways)
    bands = [band for way in ways if (band := way.bands.get(measure)) is not None]
    cell = figure(measure, value)
    if value is not None and bands and any(low != high for low, high in bands):
        low, high = (figure(measure, fmean(ends)) for ends in zip(*bands, strict=True))
        cell += f" ({low} to {high})"
    return cell


def _markdown(title: str, measures: Sequence[str], results: Sequence[Evaluation]) -> str:
    first = results[0]
    lines = [
        f"### {title}: {first.requests:,} requests, {len(first.agents)} agents",
        "",
        f"Best single agent: {first.best_single}, {fmean(one.best_single_quality for one in results):.3f}; oracle: "
        f"{fmean(one.oracle_quality for one in results):.3f}. Seeds: {', '.join(str(one.seed) for one in results)}. "
        f"Baselines trained {first.baselines_trained_on.partition(', seed')[0]}.",
        "",
        f"| | {' | '.join(_label(name) for name in measures)} |",
        f"| --- |{' ---: |' * len(measures)}",
    ]
    for way in first.ways:
        if way.kind != "single":
            same = _same(way.name, results)
            name = f"**{way.name}**" if way.kind == "model" else way.name
            lines.append(f"| {name} | {' | '.join(_cell(measure, same) for measure in measures)} |")
    return "\n".join([*lines, ""])


def _targets(run: Run) -> Iterator[str]:
    """What was aimed at, beside what these data show: those are other rows, so it is an estimate of what to expect."""
    rows = [*_aimed_at(run), *_other_targets(run)]
    if not rows:
        return
    lines = ["### Targets, in cross-validation", "",
             "| measure | plain baseline, rows kept apart | logistic regression here | best baseline here | model here "
             "| target | met here |", "| --- | ---: | ---: | ---: | ---: | ---: | --- |"]  # fmt: skip
    lines += [f"| {' | '.join(row.pop('cells'))} | {'yes' if row['met'] else '**no**'} |" for row in rows]
    run.found["targets"] = rows
    yield "\n".join([*lines, ""])


def _aimed_at(run: Run) -> Iterator[dict[str, Any]]:
    from tinydancer.evaluation.wording import figure

    for measure, part, plain, aim in TARGETS:
        results = run.evaluations.get(part)
        if not results:
            continue
        model = _same("model", results)
        ours, (best, name) = _value(measure, model), _best_baseline(measure, results)
        title = f"{part}, {_label(measure)}"
        regression = _cell(measure, _same("logistic regression", results))
        met = ours is not None and _better(measure, ours, aim, or_equal=True)
        cells = [title, plain, regression, f"{figure(measure, best)} ({name})", _cell(measure, model),
                 figure(measure, aim)]  # fmt: skip
        yield {"measure": title, "target": aim, "ours": ours, "best_baseline": best, "met": met, "cells": cells}


def _other_targets(run: Run) -> Iterator[dict[str, Any]]:
    for known, words in (("stated", "its stated quality"), ("name", "only its name")):
        some = [row["apgr"] for row in run.found.get("new agent", ()) if (row["known"], row["outcomes"]) == (known, 0)]
        if some:
            ours, title = fmean(some), f"a new agent, {words} known, APGR (mean over agents and data sets)"
            cells = [title, ".50", "0.500", "0.500", f"{ours:.3f}", f"{NEW_AGENT_TARGET:.3f}"]
            yield {"measure": title, "target": NEW_AGENT_TARGET, "ours": ours, "met": ours >= NEW_AGENT_TARGET,
                   "cells": cells}  # fmt: skip
    for name, results in run.evaluations.items():
        if name.startswith(NINE_AGENTS):
            ahead = list(_ahead(results))
            title = f"{name}: baselines ahead in {len(JUDGED_BY)} measures"
            cells = [title, "–", "–", "–", f"{len(ahead)}{': ' * bool(ahead)}{'; '.join(ahead)}", "0"]
            yield {"measure": title, "target": 0, "ours": len(ahead), "ahead": ahead, "met": not ahead, "cells": cells}


def _ahead(results: Sequence[Evaluation]) -> Iterator[str]:
    """Which baselines are ahead of the model in which measure, on the mean over the seeds."""
    for measure in JUDGED_BY:
        ours, (best, name) = _value(measure, _same("model", results)), _best_baseline(measure, results)
        if ours is not None and best is not None and _better(measure, best, ours):
            yield f"{_label(measure)}, {name}"


def _best_baseline(measure: str, results: Sequence[Evaluation]) -> tuple[float | None, str]:
    best, name = None, ""
    for way in results[0].ways:
        value = _value(measure, _same(way.name, results)) if way.kind == "baseline" else None
        if value is not None and (best is None or _better(measure, value, best)):
            best, name = value, way.name
    return best, name


def _better(measure: str, one: float, other: float, *, or_equal: bool = False) -> bool:
    if or_equal and one == other:
        return True
    return one < other if measure.startswith(LOWER_IS_BETTER) else one > other


PARTS: Mapping[str, Callable[[Run], Iterator[str]]] = {
    "pooled": _pooled, "unseen": _unseen, "new-agent": _new_agent, "nine-agents": _nine_agents, "targets": _targets,
    "rows": _rows, "tried": _tried,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
