"""``tinydancer eval``: what a model is worth on requests whose outcomes are known, beside plain baselines.

In: two tables, a model. Out: a table with bootstrap bands, or JSON; on request a folder with a page, plots and JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.context import note, settings_of, state_of
from tinydancer.cli.files import cannot_write_report, report_folder
from tinydancer.cli.tables import SHIPPED, read_agents, read_model, read_outcomes
from tinydancer.errors import InvalidInputError

if TYPE_CHECKING:
    from tinydancer.evaluation import Evaluation, Way
    from tinydancer.model.quality import AgentProfile, QualityModel
    from tinydancer.tables import OutcomeTable
    from tinydancer.types import Agent

NO_MODEL = "none"
_COMPARISON = "What to compare with"
_SHOWN_SINGLES = 12
_IN_THE_TERMINAL = (
    "routed_quality", "routed_relative_cost", "apgr", "cpt50", "cpt80", "relative_cost_at_95", "relative_cost_at_100",
    "ece",
)  # fmt: skip


def evaluate(
    ctx: typer.Context,
    requests: Annotated[
        str, typer.Option("--requests", metavar="FILE", help="CSV of request_id, task (optional), request; may be .gz.")
    ],
    outcomes: Annotated[
        str, typer.Option("--outcomes", metavar="FILE", help="CSV of request_id, agent, quality, cost_usd; may be .gz.")
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="FILE", help="A model's file; shipped; or none, for baselines only.")
    ] = SHIPPED,
    agents: Annotated[
        str | None,
        typer.Option("--agents", metavar="FILE", help="JSON list of agents, for those that the model does not know."),
    ] = None,
    train_requests: Annotated[
        str | None,
        typer.Option(
            "--train-requests", metavar="FILE", rich_help_panel=_COMPARISON,
            help="Let baselines learn from these instead of by cross-validation.",
        ),
    ] = None,
    train_outcomes: Annotated[
        str | None, typer.Option("--train-outcomes", metavar="FILE", rich_help_panel=_COMPARISON)
    ] = None,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--pair", metavar="WEAK STRONG", rich_help_panel=_COMPARISON,
            help="The agents of APGR and CPT; by default the two of a table with two.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32, help="Of folds, samples and bootstrap.")] = 0,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", metavar="N", min=20, max=10_000, help="Resamples that make a band.")
    ] = 200,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=2, help="Evaluate at most so many requests, drawn by the seed.")
    ] = 20_000,
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Write report.html, report.json and the plots there.")
    ] = None,
    as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Measure a model on requests whose outcomes are known, beside plain baselines.

    Baselines: random, always each agent, best single, per-task mean, nearest neighbours, logistic regression, oracle.
    """
    from tinydancer.evaluation import STAGES, TrainingRows
    from tinydancer.evaluation import evaluate as measure
    from tinydancer.evaluation.predicting import decider, embedded, median_us, predictions_of
    from tinydancer.intake import make_embedder

    if (train_requests is None) != (train_outcomes is None):
        raise InvalidInputError("Only one of --train-requests and --train-outcomes is given; expected both or none.")
    with report_folder(out) as folder:
        settings = settings_of(state_of(ctx))
        quiet = state_of(ctx).quiet or (as_json and sys.stdout.isatty())
        notes: list[str] = []
        table = _drawn(read_outcomes(requests, outcomes, quiet=quiet), limit, seed, "evaluated", notes)
        training_table = None
        if train_requests is not None and train_outcomes is not None:
            training_table = _drawn(
                read_outcomes(train_requests, train_outcomes, quiet=quiet), limit, seed, "training", notes
            )
        embedder = make_embedder(settings.embedder)
        weights = None if model == NO_MODEL else read_model(model)
        every = len(table) + (0 if training_table is None else len(training_table))
        with output.progress(every, "embedding", quiet=quiet) as advance:
            vectors = embedded(embedder, table.texts, advance)
            training = None
            if training_table is not None:
                training = TrainingRows(training_table, embedded(embedder, training_table.texts, advance))
        predictions = text_to_decision_us = None
        if weights is not None:
            embedder.space.require(weights.space, f"The model {weights.name}")
            stated = read_agents(agents)
            notes.extend(_doubts(weights, table, stated))
            profiles = _profiles(table, stated, settings.decisions.default_output_tokens)
            predictions = predictions_of(weights, profiles, table.texts, vectors)
            decide = decider(weights, profiles, embedder)
            text_to_decision_us = median_us(decide, table.texts, time.perf_counter_ns)
        with output.progress(len(table) * STAGES, "measuring", quiet=quiet) as advance:
            result = measure(
                table, vectors, predictions, training=training, pair=pair, seed=seed, resamples=bootstrap,
                warnings=tuple(notes), text_to_decision_us_p50=text_to_decision_us, progress=advance,
            )  # fmt: skip
        if folder is not None:
            write_report(result, folder, ctx)
    if as_json:
        output.write_json(result.to_dict())
    else:
        show_evaluation(result, ctx)


def _drawn(table: OutcomeTable, limit: int, seed: int, what: str, notes: list[str]) -> OutcomeTable:
    """At most `limit` rows, in the order of the table."""
    import numpy as np

    if len(table) <= limit:
        return table
    notes.append(f"Of {len(table):,} {what} requests {limit:,} were drawn at random (seed {seed}); --limit takes more.")
    return table.rows(np.sort(np.random.default_rng([seed, len(table)]).permutation(len(table))[:limit]))


def _profiles(table: OutcomeTable, stated: dict[str, Agent], default_output_tokens: float) -> list[AgentProfile]:
    from tinydancer.embedding.base import estimated_tokens
    from tinydancer.model.quality import AgentProfile

    input_tokens = float(estimated_tokens(table.texts).mean())
    profiles = []
    for name in table.agents:
        agent = stated.get(name)
        usual_cost_usd = None
        if agent is not None:
            output_tokens = agent.expected_output_tokens
            usual_cost_usd = agent.cost.estimate_usd(
                input_tokens, default_output_tokens if output_tokens is None else output_tokens
            )
        profiles.append(
            AgentProfile(
                name=name,
                stated_quality=None if agent is None else agent.quality_score,
                usual_cost_usd=usual_cost_usd,
            )
        )
    return profiles


def _doubts(model: QualityModel, table: OutcomeTable, stated: dict[str, Agent]) -> Iterator[str]:
    """What makes the model's figures too bad or too good."""
    strange = [name for name in table.agents if name not in model.agents and name not in stated]
    if strange:
        yield (
            f"The model knows nothing of {', '.join(strange)}: it predicts what it would for any agent. State a "
            "quality_score for them with --agents, or train on outcomes of theirs."
        )
    seen = model.seen_share(table.texts)
    if seen:
        yield (
            f"The model was trained on about {seen:.1%} of the evaluated requests, whose answers it has seen: its "
            "figures are too good. Evaluate on others."
        )


def write_report(result: Evaluation, folder: Path, ctx: typer.Context) -> None:
    """Page, plots and JSON into a folder that is there."""
    from tinydancer.evaluation.page import page
    from tinydancer.evaluation.plots import MISSING, can_draw, draw

    pictures = draw(result)
    if not can_draw():
        typer.echo(MISSING, err=True)
    files = {
        **pictures,
        "report.html": page(result, pictures).encode(),
        "report.json": (json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(),
    }
    try:
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise cannot_write_report(folder, error) from None
    note(ctx, f"Wrote {', '.join(sorted(files))} to {folder}.")


def show_evaluation(result: Evaluation, ctx: typer.Context) -> None:
    """The table, what it is about, and the warnings, on the terminal."""
    from tinydancer.evaluation.wording import LABELS

    columns = [name for name in _IN_THE_TERMINAL if any(way.values[name] is not None for way in result.ways)]
    heads = [LABELS[name] for name in columns]
    rows = list(_rows(result, columns, bands=True))
    if sys.stdout.isatty() and _width(rows) > shutil.get_terminal_size().columns:
        rows = list(_rows(result, columns, bands=False))
    output.write_table((f"{result.requests:,} requests", *heads), rows, numbers=heads)
    facts = [
        ("model", f"{result.model_name}, SHA-256 {result.model_sha256}" if result.model_name else ""),
        ("best single", f"{result.best_single}, quality {result.best_single_quality:.3f}"),
        ("pair", f"{result.pair[0]} (weak), {result.pair[1]} (strong)" if result.pair else ""),
        ("baselines", f"trained {result.baselines_trained_on}"),
        ("bands", f"95% of {result.resamples:,} bootstrap resamples; in a narrow terminal only in --json and --out"),
        ("speed", f"{result.text_to_decision_us_p50:,.0f} µs from text to decision, the median"
         if result.text_to_decision_us_p50 is not None else ""),
    ]  # fmt: skip
    typer.echo()
    output.write_facts("About these figures", facts)
    for warning in result.warnings:
        note(ctx, f"warning: {warning}")


def _width(rows: list[tuple[str, ...]]) -> int:
    return sum(max(map(len, column)) + 2 for column in zip(*rows, strict=True))


def _rows(result: Evaluation, columns: list[str], *, bands: bool) -> Iterator[tuple[str, ...]]:
    from tinydancer.evaluation.wording import with_band

    def cell(name: str, way: Way) -> str:
        value, band = with_band(name, way)
        return f"{value} [{band.replace(' to ', ', ')}]" if band and bands else value

    def quality(way: Way) -> float:
        return way.values["routed_quality"] or 0.0

    singles = sorted((way for way in result.ways if way.kind == "single"), key=quality, reverse=True)
    others = [way for way in result.ways if way.kind != "single"]
    for way in [*others[:-1], *singles[:_SHOWN_SINGLES], others[-1]]:
        yield way.name, *(cell(name, way) for name in columns)
    if len(singles) > _SHOWN_SINGLES:
        yield f"and {len(singles) - _SHOWN_SINGLES:,} agents that are worse", *("" for _ in columns)
