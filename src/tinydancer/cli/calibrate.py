"""``tinydancer calibrate``: how much may be saved before a promised quality is at risk.

In: two tables with outcomes that the model was not trained on, a target, a model. Out: the setting ``good_enough`` for
the objective ``cost``, certified, and the conformal interval of the answers it leads to; as facts, as JSON, or written
into the settings file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.context import note, settings_of, state_of
from tinydancer.cli.files import write_whole
from tinydancer.cli.tables import SHIPPED, read_agents, read_model, read_outcomes
from tinydancer.errors import InvalidInputError, ModelError, NotFoundError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tinydancer.config import Settings
    from tinydancer.embedding.base import Embedder
    from tinydancer.model.conformal import ConformalInterval
    from tinydancer.model.quality import QualityModel
    from tinydancer.model.risk import OperatingPoint
    from tinydancer.tables import OutcomeTable
    from tinydancer.types import Agent

    Floats = npt.NDArray[np.float64]

_AT_ONCE = 512
_FEWEST_ROWS = 2
_SEEN_AT_MOST = 0.05
"""Some requests are asked again and again, in training as later; more than that is the training data."""
_PROMISE = "The promise"


def calibrate(
    ctx: typer.Context,
    requests: Annotated[
        str, typer.Option("--requests", metavar="FILE", help="CSV of request_id, task (optional), request; may be .gz.")
    ],
    outcomes: Annotated[
        str, typer.Option("--outcomes", metavar="FILE", help="CSV of request_id, agent, quality, cost_usd; may be .gz.")
    ],
    model: Annotated[str, typer.Option("--model", metavar="FILE", help="A model's file, or shipped.")] = SHIPPED,
    agents: Annotated[
        str | None,
        typer.Option(
            "--agents", metavar="FILE",
            help="JSON list of agents whose prices say what a request costs; else the mean cost in the outcomes does.",
        ),
    ] = None,
    target_quality: Annotated[
        float,
        typer.Option(
            "--target-quality", metavar="SHARE", rich_help_panel=_PROMISE,
            help="Share of the best single agent's quality to keep, in (0, 1].",
        ),
    ] = 0.95,
    delta: Annotated[
        float,
        typer.Option(
            "--delta", metavar="P", rich_help_panel=_PROMISE, help="Accepted probability that the promise fails."
        ),
    ] = 0.1,
    test_rows: Annotated[
        int | None,
        typer.Option(
            "--test-rows", metavar="M", min=0, rich_help_panel=_PROMISE,
            help="Promise it for the mean of the next M requests too, by default as many as these; 0: in the long run.",
        ),
    ] = None,
    coverage: Annotated[
        float,
        typer.Option(
            "--coverage", metavar="P", rich_help_panel=_PROMISE,
            help="Probability with which the interval holds a routed answer's quality.",
        ),
    ] = 0.9,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32, help="Of the order of the test.")] = 0,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Save the model there with the interval of the routed answers."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Put good_enough into the settings file instead of showing the line.")
    ] = False,
    as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Find how far routing for cost may go while it keeps a promised share of the best agent's quality.

    The requests must be new to the model. Ends with exit code 8 if they cannot support the promise.
    """
    from tinydancer.intake import make_embedder

    settings = settings_of(state_of(ctx))
    quiet = state_of(ctx).quiet or (as_json and sys.stdout.isatty())
    notes: list[str] = []
    weights = read_model(model)
    table = _usable(read_outcomes(requests, outcomes, quiet=quiet), weights, notes)
    stated = read_agents(agents)
    embedder = make_embedder(settings.embedder)
    with output.progress(len(table), "predicting", quiet=quiet) as advance:
        quality, tokens = _predict(weights, embedder, table, stated, notes, advance)
    cost_usd, source = _costs(table, stated, tokens, embedder, settings, notes)
    found = _calibrated(
        table, quality, cost_usd, target_quality=target_quality, delta=delta, test_rows=test_rows, coverage=coverage,
        seed=seed,
    )  # fmt: skip
    file = _settings_file(ctx)
    if out is not None:
        weights.with_interval(found.interval).save(out)
    if write:
        _write_setting(file, found.point.good_enough)
    if as_json:
        output.write_json(_fields(found, table, weights, source, notes))
        return
    _show(found, table, weights, source)
    for warning in notes:
        note(ctx, f"warning: {warning}")
    if out is not None:
        note(ctx, f"Saved the model with this interval to {out}.")
    if write:
        note(ctx, f"Wrote good_enough: {found.point.good_enough:g} to {file}.")
    else:
        typer.echo(f"\nAdd to {file}, or repeat with --write:\n\n{_lines(found.point.good_enough)}", nl=False)


class _Calibrated(NamedTuple):
    point: OperatingPoint
    interval: ConformalInterval
    """Of the routed answers, which a high prediction may have been chosen for: an interval of all misses them."""
    interval_of_all: ConformalInterval
    """Of every agent's answer, chosen or not."""


def _usable(table: OutcomeTable, model: QualityModel, notes: list[str]) -> OutcomeTable:
    """The rows that every agent answered, if the model was not trained on them."""
    import numpy as np

    notes.extend(table.warnings)
    answered = ~np.isnan(table.quality)
    complete = answered.all(axis=1)
    if complete.sum() < _FEWEST_ROWS:
        counts = ", ".join(f"{name} {count:,}" for name, count in zip(table.agents, answered.sum(axis=0), strict=True))
        raise InvalidInputError(
            f"Only {complete.sum():,} of {len(table):,} requests were answered by every agent; expected at least "
            f"{_FEWEST_ROWS}. Answers: {counts}.",
            hint="Leave agents with few answers out of the outcomes, or have them answer more of these requests.",
        )
    if not complete.all():
        notes.append(
            f"{len(table) - complete.sum():,} of {len(table):,} requests were not answered by every agent and do not "
            "count; the promise holds for requests like the others."
        )
        table = table.rows(complete)
    seen = model.seen_share(table.texts)
    if seen is None:
        notes.append(
            f"Whether the model {model.name} was trained on these requests cannot be told; if it was, the promise is "
            "void."
        )
    elif seen > _SEEN_AT_MOST:
        raise ModelError(
            f"The model {model.name} was trained on about {seen:.0%} of these requests; what it reaches on them says "
            "nothing about new ones.",
            hint="Calibrate on requests that were kept out of its training.",
        )
    elif seen > 0.0:
        notes.append(
            f"The model {model.name} was trained on about {seen:.1%} of these requests, which makes the promise too "
            "good by as much."
        )
    return table


def _predict(
    model: QualityModel,
    embedder: Embedder,
    table: OutcomeTable,
    stated: dict[str, Agent],
    notes: list[str],
    advance: Any,
) -> tuple[Floats, Floats]:
    """Expected quality ``[n, N]`` and the tokens of each request ``[n]``."""
    import numpy as np

    from tinydancer.model.quality import AgentProfile
    from tinydancer.model.surface import surface_features

    embedder.space.require(model.space, f"The model {model.name}")
    profiles = [
        AgentProfile(name=name, stated_quality=stated[name].quality_score if name in stated else None)
        for name in table.agents
    ]
    strange = [name for name in table.agents if name not in model.agents and name not in stated]
    if strange:
        notes.append(
            f"The model knows nothing of {', '.join(strange)}: it predicts what it would for any agent. State a "
            "quality_score for them with --agents, or train on outcomes of theirs."
        )
    quality, tokens = np.empty((len(table), len(table.agents))), np.empty(len(table))
    for start in range(0, len(table), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        texts = table.texts[some]
        vectors, tokens[some] = embedder.embed(texts)
        quality[some] = model.predict(vectors, surface_features(texts), profiles)
        advance(len(texts))
    return quality, tokens


def _costs(
    table: OutcomeTable,
    stated: dict[str, Agent],
    tokens: Floats,
    embedder: Embedder,
    settings: Settings,
    notes: list[str],
) -> tuple[Floats, str]:
    """Estimated cost in USD, ``[n, N]`` or ``[N]``, and where it comes from."""
    import numpy as np

    if stated:
        missing = [name for name in table.agents if name not in stated]
        if missing:
            raise NotFoundError(
                f"--agents does not describe {', '.join(missing)}; expected every agent of the outcomes.",
                hint="Add them with their prices, or leave them out of the outcomes.",
            )
        return _priced([stated[name] for name in table.agents], tokens, embedder, settings), "agents"
    known = ~np.isnan(table.cost_usd)
    if not known.any():
        notes.append(
            "The outcomes state no cost, so the better an agent is on average, the dearer it is taken to be. The "
            "promise holds if its price says the same: state prices with --agents."
        )
        return np.argsort(np.argsort(table.quality.mean(axis=0, dtype=np.float64))).astype(np.float64), "assumed"
    unknown = [name for column, name in enumerate(table.agents) if not known[:, column].any()]
    if unknown:
        notes.append(f"The outcomes state no cost of {', '.join(unknown)}, which therefore count as the dearest.")
    total = np.where(known, table.cost_usd, 0.0).sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return total / known.sum(axis=0), "outcomes"


def _priced(agents: list[Agent], tokens: Floats, embedder: Embedder, settings: Settings) -> Floats:
    """What the router itself will estimate."""
    import numpy as np

    from tinydancer import learn
    from tinydancer.snapshot import build_snapshot
    from tinydancer.types import RequestBatch

    decisions = settings.decisions
    estimates = {
        agent.name: learn.estimate(agent, learn.NO_STATS, default_output_tokens=decisions.default_output_tokens)
        for agent in agents
    }
    snapshot = build_snapshot(agents, estimates, version="", space=embedder.space, settings=decisions)
    vectors = np.empty((len(tokens), 0), np.float32)  # what a request is about does not change its price
    return snapshot.estimated_cost_usd(RequestBatch(vectors, tokens))


def _calibrated(
    table: OutcomeTable,
    quality: Floats,
    cost_usd: Floats,
    *,
    target_quality: float,
    delta: float,
    test_rows: int | None,
    coverage: float,
    seed: int,
) -> _Calibrated:
    import numpy as np

    from tinydancer.model.conformal import ConformalInterval
    from tinydancer.model.risk import cheapest_good_enough, find_operating_point

    point = find_operating_point(
        quality, table.quality, cost_usd, target_quality=target_quality, delta=delta, test_rows=test_rows, seed=seed
    )
    chosen = np.arange(len(table)), cheapest_good_enough(quality, cost_usd, point.good_enough)
    return _Calibrated(
        point,
        ConformalInterval.from_outcomes(quality[chosen], table.quality[chosen], coverage),
        ConformalInterval.from_outcomes(quality, table.quality, coverage),
    )


def _fields(
    found: _Calibrated, table: OutcomeTable, model: QualityModel, source: str, notes: list[str]
) -> dict[str, Any]:
    point = found.point
    known = None if source == "assumed" else point.relative_cost
    return {
        **point.to_dict(),
        "best_single": table.agents[point.best_single],
        "relative_cost": known,
        "cost_source": source,
        "agent_shares": dict(zip(table.agents, point.agent_shares, strict=True)),
        "interval": found.interval.to_dict(),
        "interval_of_all": found.interval_of_all.to_dict(),
        "model": model.name,
        "model_sha256": model.sha256,
        "warnings": notes,
    }


def _show(found: _Calibrated, table: OutcomeTable, model: QualityModel, source: str) -> None:
    import numpy as np

    point, interval = found.point, found.interval
    best = table.agents[point.best_single]
    reach = f", over the next {point.test_rows:,} requests too" if point.test_rows else ""
    low, high = interval.interval(np.array([0.5, 0.9]))
    cost = (
        f"{point.relative_cost:.0%} of always asking {best}, "
        + ("by the prices given" if source == "agents" else "by the mean costs in the outcomes")
        if point.relative_cost is not None and source != "assumed"
        else "unknown"
    )
    routed = sorted(zip(point.agent_shares, table.agents, strict=True), reverse=True)
    facts = [
        ("promise", f"at least {point.target_quality:.1%} of the best single agent's quality, with probability "
         f"{1.0 - point.delta:.0%}{reach}"),
        ("evidence", f"{point.n:,} requests; p-value {point.p_value:.2g}"),
        ("quality", f"{point.routed_quality:.3f} routed (at least {point.routed_quality_low:.3f}), "
         f"{point.best_single_quality:.3f} by always asking {best}: {point.relative_quality:.1%}"),
        ("cost", cost),
        ("answers by", ", ".join(f"{name} {share:.0%}" for share, name in routed if share)),
        ("interval", f"holds {interval.coverage:.0%} of the routed answers' qualities: {low[0]:.2f} to {high[0]:.2f} "
         f"around 0.5, {low[1]:.2f} to {high[1]:.2f} around 0.9"),
        ("model", f"{model.name}, SHA-256 {model.sha256}"),
    ]  # fmt: skip
    output.write_facts(f"good_enough: {point.good_enough:g}", facts)


# -- the settings file ---------------------------------------------------------------------------------------------


def _settings_file(ctx: typer.Context) -> str:
    from tinydancer.config import CONFIG_FILE

    return state_of(ctx).config or CONFIG_FILE


def _lines(good_enough: float) -> str:
    return f"decisions:\n  good_enough: {good_enough:g}\n"


def _write_setting(file: str, good_enough: float) -> None:
    """Change the one value in the file, or make the file; comments and order stay."""
    from tinydancer.config import parse_settings

    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        changed = with_good_enough(text, good_enough)
        parse_settings(changed, file)
        write_whole(path, changed)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"The file {file} cannot be written: {reason}.") from None


def with_good_enough(text: str, good_enough: float) -> str:
    """The text of a valid settings file with ``decisions.good_enough`` changed or added, the rest as it was."""
    import yaml

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    sections = {} if root is None else {key.value: (key, value) for key, value in root.value}
    if "decisions" not in sections:
        return _joined(text, _lines(good_enough))
    key, section = sections["decisions"]
    if not section.value:
        start, end = key.start_mark.index, section.end_mark.index
        return f"{text[:start]}{_lines(good_enough).rstrip()}{text[end:]}"
    values = {inner.value: value for inner, value in section.value}
    if "good_enough" in values:
        old = values["good_enough"]
        return f"{text[: old.start_mark.index]}{good_enough:g}{text[old.end_mark.index :]}"
    first = section.value[0][0].start_mark
    separator = ", " if section.flow_style else f"\n{' ' * first.column}"
    return f"{text[: first.index]}good_enough: {good_enough:g}{separator}{text[first.index :]}"


def _joined(text: str, more: str) -> str:
    return more if not text else f"{text.rstrip()}\n\n{more}"
