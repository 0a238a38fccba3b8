"""``tinydancer train``: a quality model from tables of judged answers, or from what the store recorded.

In: tables, or the store. Out: a model file, a report of what it is worth on requests it did not see; JSON on demand.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.context import note, open_dancer, settings_of, state_of
from tinydancer.cli.files import report_folder
from tinydancer.cli.tables import read_model, read_outcomes
from tinydancer.errors import InvalidInputError

if TYPE_CHECKING:
    from tinydancer.tables import OutcomeTable

NOTHING = "nothing"


def train(
    ctx: typer.Context,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The model file to write.")],
    requests: Annotated[
        list[str] | None,
        typer.Option("--requests", metavar="FILE", help="CSV of request_id, task (optional), request; may be .gz."),
    ] = None,
    outcomes: Annotated[
        list[str] | None,
        typer.Option("--outcomes", metavar="FILE", help="CSV of request_id, agent, quality, cost_usd; may be .gz."),
    ] = None,
    start: Annotated[
        str,
        typer.Option("--from", metavar="MODEL", help="Refine this model: a file, shipped, or nothing."),
    ] = NOTHING,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32, help="Of everything random.")] = 0,
    strength: Annotated[
        list[float] | None,
        typer.Option(
            "--strength",
            metavar="X",
            help="Factor on the penalties; several are compared. [0.03 to 1; with --from 0.1 to 30]",
        ),
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=2, max=20, help="Parts of the cross-validation.")] = 5,
    report: Annotated[
        str | None, typer.Option("--report", metavar="DIR", help="Write report.html, report.json and the plots there.")
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Train a quality model on your own judged answers, and measure it beside plain baselines.

    Give --requests and --outcomes, several times for several data sets; without them, what the store recorded is used.
    """
    from tinydancer.cli.evaluate import show_evaluation, write_report
    from tinydancer.intake import make_embedder
    from tinydancer.model.quality_training import QualityTrainingConfig
    from tinydancer.train import OTHER_TASK_SHARES, STRENGTHS, STRENGTHS_FROM_START, train_recorded
    from tinydancer.train import train as fit

    state, settings = state_of(ctx), settings_of(state_of(ctx))
    quiet = state.quiet or as_json
    file = _writable(out)
    with report_folder(report) as folder:
        tables = _tables(requests or [], outcomes or [], quiet)
        begun = None if start == NOTHING else read_model(start)
        usual = STRENGTHS if begun is None else STRENGTHS_FROM_START
        config = QualityTrainingConfig(
            strengths=tuple(strength or usual), other_task_shares=OTHER_TASK_SHARES, seed=seed, folds=folds
        )
        if begun is not None:
            # What is refined keeps its size; it is one network, whatever it was put together from.
            members = config.members if begun.hidden_dim % config.members == 0 else 1
            config = replace(config, hidden_dim=begun.hidden_dim, members=members)
        with output.progress(1000, "training", quiet=quiet) as advance:
            done = 0

            def progress(share: float, what: str) -> None:
                nonlocal done
                now = int(1000 * share)
                if now > done:
                    advance(now - done)
                    done = now

            if tables:
                embedder = make_embedder(settings.embedder)
                trained = fit(tables, embedder, config=config, start=begun, name=file.stem, progress=progress)
            else:
                with open_dancer(ctx) as dancer:
                    trained = train_recorded(
                        dancer.store, config=config, start=begun, name=file.stem, progress=progress
                    )
        for warning in trained.warnings:
            note(ctx, f"warning: {warning}")
        digest = trained.model.save(file)
        if folder is not None:
            write_report(trained.evaluation, folder, ctx)
    if as_json:
        output.write_json(
            {
                "model": str(file), "sha256": digest, "size_bytes": file.stat().st_size,
                "warnings": list(trained.warnings), "facts": dict(trained.model.facts),
                "evaluation": trained.evaluation.to_dict(),
            }
        )  # fmt: skip
        return
    show_evaluation(trained.evaluation, ctx)
    typer.echo()
    output.write_facts(
        str(file),
        [
            ("size", f"{file.stat().st_size:,} bytes"),
            ("hash", digest),
            ("agents", ", ".join(trained.model.agents)),
            ("use it", f"tinydancer models add {file} && tinydancer models use {file.stem}"),
        ],
    )


def _writable(out: str) -> Path:
    """The model file's path, checked before the work begins that would be lost without it."""
    file = Path(out)
    if not file.parent.is_dir():
        raise InvalidInputError(f"The folder of {out} does not exist.", hint="Make it first, or name another file.")
    if file.is_dir():
        raise InvalidInputError(f"{out} is a folder.", hint="Name a file in it.")
    if not os.access(file.parent, os.W_OK):
        raise InvalidInputError(f"The folder of {out} may not be written to.", hint="Name a file in another one.")
    return file


def _tables(requests: list[str], outcomes: list[str], quiet: bool) -> list[OutcomeTable]:
    if len(requests) != len(outcomes):
        raise InvalidInputError(
            f"{len(requests)} --requests and {len(outcomes)} --outcomes are given; expected as many of each."
        )
    return [read_outcomes(asked, answered, quiet=quiet) for asked, answered in zip(requests, outcomes, strict=True)]
