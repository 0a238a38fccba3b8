"""Writes ``docs/model-card.md`` from the quality model that ships: its data, its figures, its limits.

In: the model's file, which says of itself how it was trained and what it reached on requests it had not seen. Out: the
page. ``make model`` runs this after the training; ``python scripts/model_card.py`` does for the file as it is. A test
compares the page with the file, so that neither goes stale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinydancer.evaluation.wording import LABELS, figure
from tinydancer.model.artifact import load_artifact
from tinydancer.model.quality import KIND, shipped_model_path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "model-card.md"

SOURCES = (
    ("mmlu", "MMLU: multiple-choice exam questions of many subjects", "RouteLLM's repository, Apache-2.0"),
    ("gsm8k", "GSM8K: school mathematics in words", "RouteLLM's repository, Apache-2.0"),
    ("routerbench", "ARC-Challenge, MBPP and WinoGrande, with the cost of each answer",
     "RouterBench, through RouterDC's repository"),
    ("open7", "ARC, GSM8K, HumanEval and MMLU", "RouterDC's repository"),
)  # fmt: skip
"""In the order of the training; names, what they are and where from are those of the data's own README."""
MEASURES = ("apgr", "cpt50", "cpt80", "relative_cost_at_95", "relative_cost_at_100", "routed_quality",
            "best_single_quality", "oracle_quality", "ece", "coverage")  # fmt: skip
NAMES = {**LABELS, "routed_quality": "quality, routed", "best_single_quality": "of the best single agent",
         "oracle_quality": "of the oracle"}  # fmt: skip

PAGE_TEXT = """\
# Model card: the shipped quality model

<!-- Written by scripts/model_card.py from the model's file; `make model` trains it anew and writes this page. -->

What decides after `tinydancer models use shipped`. Until then no model does. How it works, what was tried and what the
figures are worth: [The quality model](explanation/quality-model.md). How to use it, and how to go back:
[Use a model](how-to/use-a-model.md).

| | |
| --- | --- |
| file | `tinydancer/model/data/quality.safetensors`, {size:,} bytes |
| SHA-256 of its content | `{sha256}` |
| reads | vectors of the space `{space}` ({dim} dimensions), and {surface} facts of the text |
| describes a request by | {hidden} numbers |
| agents it knows | {agents} |
| trained on vectors of | {embedders} |
| seed, strength of the penalties | {seed}, {strength:g} |
| intervals | {interval} |
| licence of the weights | that of the project |

## Intended use

Choosing among language models for short requests in English, where nothing better is known: before you have outcomes of
your own. With those, [train on them](how-to/train-a-model.md).

Not for: judging people; anything where a single wrong answer matters more than the mean; agents that are no language
models (for those the model is not asked: they keep their own record).

## Data

{requests:,} requests with {outcomes:,} judged answers. Right or wrong, mostly; nobody's preference, nothing of tone or
safety. The file holds nothing of the requests' text but {sketch:,} hashes of 64 bits, by which `tinydancer eval` and
`calibrate` tell whether they are given requests that it learned from.

| data set | requests | agents | what it is | from |
| --- | ---: | ---: | --- | --- |
{data}

Licences are given as far as the data's own README gives them.

| agent | judged answers |
| --- | ---: |
{answers}

## Figures

On requests left out of the training (5-fold cross-validation, the same in which it was calibrated), with 95% bootstrap
bands. They stand in the file: `tinydancer models show shipped --json`.

| | {names} |
| --- |{rule}
{figures}

What APGR, CPT and the rest mean: [Evaluate a model](how-to/evaluate.md#what-the-numbers-mean). These figures are a
little too good where the same question stands in two data sets, laid out differently. `make eval` holds such pairs
together, adds baselines, task types and agents never seen, and takes the mean over several seeds.

## Limits

- **Benchmarks.** Exam questions, school mathematics, short programs. Letters, summaries, conversations and long
  documents are not among them, and who is best at those the model does not know.
- **English**, nearly all of it, and short: the text of a request, not a conversation.
- **The agents of the data.** What answers behind a name may change; a new agent is known only by its stated quality and
  price until [outcomes arrive](how-to/report-outcomes.md).
- **Two agents answered most of it.** Differences between those two are learned from {pair:,} requests; between others
  from fewer, and of other kinds.
- **Wide bands.** With some hundred requests, an APGR is known to about five points. Read the band before the figure.
- {limits}
"""


def page(path: Path) -> str:
    """The page for a model's file."""
    artifact = load_artifact(path, kind=KIND)
    told, facts = artifact.metadata, artifact.metadata["facts"]
    rows = facts["cross_validated"]
    if len(rows) != len(SOURCES):
        raise SystemExit(f"{path} has figures of {len(rows)} data sets; this page is about {len(SOURCES)}.")
    answers: Mapping[str, int] = facts["outcomes_by_agent"]
    interval = told["interval"]
    return PAGE_TEXT.format(
        size=path.stat().st_size,
        sha256=artifact.sha256,
        space=told["space"],
        dim=told["dim"],
        surface=len(told["surface_features"]),
        hidden=told["network"]["hidden_dim"],
        agents=len(told["agents"]),
        embedders={1: "the static embedder", 2: "the static embedder and MiniLM"}[facts["embedders"]],
        seed=facts["config"]["seed"],
        strength=facts["strength"],
        interval="none" if interval is None else f"split conformal, {interval['coverage']:.0%}, from the figures' rows",
        requests=facts["requests"],
        outcomes=facts["outcomes"],
        sketch=len(artifact.tensors["sketch"]),
        data="\n".join(
            f"| {name} | {row['requests']:,} | {len(row['agents'])} | {what} | {origin} |"
            for (name, what, origin), row in zip(SOURCES, rows, strict=True)
        ),
        answers="\n".join(f"| {agent} | {count:,} |" for agent, count in sorted(answers.items())),
        names=" | ".join(name for name, _, _ in SOURCES),
        rule=" ---: |" * len(SOURCES),
        figures="\n".join(_figures(rows)),
        pair=rows[0]["requests"] + rows[1]["requests"],
        limits=facts["limits"],
    )


def _figures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for measure in MEASURES:
        cells = [_cell(measure, row) for row in rows]
        lines.append(f"| {NAMES[measure]} | {' | '.join(cells)} |")
    return lines


def _cell(measure: str, row: Mapping[str, Any]) -> str:
    value, band = row.get(measure), row["intervals"].get(measure)
    if value is None or band is None:
        return figure(measure, value)
    return f"{figure(measure, value)} ({figure(measure, band[0])} to {figure(measure, band[1])})"


def main() -> int:
    """Write the page, or with ``--check`` say whether it is up to date."""
    parser = argparse.ArgumentParser(description="Write docs/model-card.md from the model's file.")
    parser.add_argument("--model", type=Path, default=shipped_model_path())
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if the page differs")
    args = parser.parse_args()
    text = page(args.model)
    if args.check:
        return int(not args.out.exists() or args.out.read_text(encoding="utf-8") != text)
    args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
