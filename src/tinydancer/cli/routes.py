"""``tinydancer routes``: semantic routes, matched, changed, fitted, and as files.

In: names, texts, files. Out: tables, facts or JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.completion import complete_agent_name
from tinydancer.cli.context import note, open_dancer, state_of
from tinydancer.cli.inputs import STDIN, parse_json, read_text
from tinydancer.cli.options import examples
from tinydancer.errors import InvalidInputError
from tinydancer.policy.wording import plural

if TYPE_CHECKING:
    from tinydancer.policy.route_fitting import RouteFigures
    from tinydancer.policy.route_rules import Route
    from tinydancer.routes import RouteFit

routes_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Send requests to agents by what they mean: semantic routes.",
)
_LOOK = "Look"
_CHANGE = "Change"
_FILES = "Files"
_MISSES_SHOWN = 10


def complete_route_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the routes, for the shell, which must never be shown a failure."""
    try:
        from tinydancer.cli.context import State, settings_of
        from tinydancer.service import TinyDancer

        given = ctx.find_root().params
        settings = settings_of(State(store=given.get("store"), config=given.get("config"), tenant=given.get("tenant")))
        if not Path(settings.store).is_file():
            return []
        with TinyDancer(settings.store, settings=settings) as dancer:
            names = [route.name for route in dancer.store.list_routes()]
    except Exception:
        return []
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]


_Name = Annotated[str, typer.Argument(autocompletion=complete_route_name, help="Name of the route.")]
_Target = Annotated[
    str | None, typer.Option("--to", "-t", metavar="AGENT", autocompletion=complete_agent_name, help="Its agent.")
]
_Description = Annotated[
    str | None, typer.Option("--description", "-d", metavar="TEXT", help="What it is for; counts as an example.")
]
_Utterances = Annotated[
    list[str] | None, typer.Option("--utterance", "-u", metavar="TEXT", help="An example; give it several times.")
]
_Negatives = Annotated[
    list[str] | None,
    typer.Option("--not", metavar="TEXT", help="An example of what resembles the route and is not its."),
]
_Threshold = Annotated[
    float | None, typer.Option("--threshold", metavar="S", help="Similarity from which a request is its, in [-1, 1].")
]
_Priority = Annotated[
    int | None, typer.Option("--priority", metavar="N", help="Among routes that pass, highest first.")
]
_Between = Annotated[
    str | None, typer.Option("--between", metavar="HH:MM-HH:MM", help="Times of day at which it may be taken.")
]
_Zone = Annotated[str | None, typer.Option("--time-zone", metavar="NAME", help="Of --between; UTC without it.")]
_Days = Annotated[str | None, typer.Option("--days", metavar="mon,tue,...", help="Of --between; every day without it.")]
_Tiers = Annotated[
    list[str] | None, typer.Option("--tier", metavar="NAME", help="Whose requests; give it several times.")
]
_RateLimit = Annotated[
    str | None, typer.Option("--rate-limit", metavar="N/SECONDS", help="Requests per seconds, as in 100/3600.")
]


@routes_app.command(
    rich_help_panel=_CHANGE,
    epilog=examples(
        "tinydancer routes add refunds --to support -u 'I want my money back' -u 'refund my order'",
        "tinydancer routes add nights --to night-desk -d 'Emergencies' --between 22:00-06:00 --time-zone Europe/Berlin",
        "tinydancer routes add vip --to concierge -u 'book a table' --tier gold --priority 5 --rate-limit 20/60",
    ),
)
def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the route.")],
    to: Annotated[
        str, typer.Option("--to", "-t", metavar="AGENT", autocompletion=complete_agent_name, help="Its agent.")
    ],
    description: _Description = None,
    utterance: _Utterances = None,
    not_: _Negatives = None,
    threshold: _Threshold = None,
    priority: _Priority = None,
    between: _Between = None,
    time_zone: _Zone = None,
    days: _Days = None,
    tier: _Tiers = None,
    rate_limit: _RateLimit = None,
    as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Create a route to a registered agent."""
    from tinydancer.routes import SemanticRoutes

    conditions = _conditions(between, time_zone, days, tier, rate_limit)
    with open_dancer(ctx, make=True) as dancer:
        route = SemanticRoutes(dancer).create(
            name, to, description or "", priority=priority or 0, utterances=utterance or (),
            negative_utterances=not_ or (), threshold=threshold, conditions=conditions,
        )  # fmt: skip
    _answer(ctx, route, f"Created the route {name} to {to}.", as_json=as_json)


@routes_app.command("list", rich_help_panel=_LOOK, epilog=examples("tinydancer routes list --json"))
def list_(ctx: typer.Context, as_json: opt.Json = False) -> None:
    """List the routes."""
    with open_dancer(ctx) as dancer:
        routes = dancer.store.list_routes()
    if as_json:
        output.write_json([route.to_dict() for route in routes])
        return
    if not routes:
        note(ctx, "There is no route yet. Create one with: tinydancer routes add NAME --to AGENT -u 'an example'")
        return
    output.write_table(
        ("route", "agent", "priority", "threshold", "examples", "negative", "conditions", "active"),
        [_row(route) for route in routes], numbers=("priority", "threshold", "examples", "negative"),
    )  # fmt: skip


@routes_app.command(rich_help_panel=_LOOK, epilog=examples("tinydancer routes show refunds"))
def show(ctx: typer.Context, name: _Name, as_json: opt.Json = False) -> None:
    """Show one route with its examples."""
    with open_dancer(ctx) as dancer:
        route = dancer.store.get_route(name)
    if as_json:
        output.write_json(route.to_dict())
        return
    facts = [
        ("agent", route.target_agent), ("description", route.description), ("priority", str(route.priority)),
        ("threshold", _threshold(route)), ("conditions", _shown(route)),
        ("active", "yes" if route.is_active else "no"),
        ("calibrated", f"on {plural(route.calibration.examples, 'request')}" if route.calibration else "no"),
        ("examples", "; ".join(route.texts("example"))), ("not its", "; ".join(route.texts("negative"))),
    ]  # fmt: skip
    output.write_facts(route.name, facts)


@routes_app.command(
    rich_help_panel=_CHANGE,
    epilog=examples(
        "tinydancer routes update refunds -u 'give me back what I paid' --not 'what is a tax refund'",
        "tinydancer routes update refunds --drop 'refund my order' --threshold 0.4",
        "tinydancer routes update refunds --no-conditions --inactive",
    ),
)
def update(
    ctx: typer.Context,
    name: _Name,
    to: _Target = None,
    description: _Description = None,
    utterance: _Utterances = None,
    not_: _Negatives = None,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", metavar="TEXT", help="Remove an example, wanted or negative.")
    ] = None,
    threshold: _Threshold = None,
    priority: _Priority = None,
    between: _Between = None,
    time_zone: _Zone = None,
    days: _Days = None,
    tier: _Tiers = None,
    rate_limit: _RateLimit = None,
    no_conditions: Annotated[bool, typer.Option("--no-conditions", help="It may always be taken.")] = False,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Whether it is taken at all.")] = None,
    as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Change a route; what is not named stays. Conditions are replaced together."""
    from tinydancer.routes import SemanticRoutes

    conditions = _conditions(between, time_zone, days, tier, rate_limit)
    if conditions and no_conditions:
        raise InvalidInputError("Conditions and --no-conditions are given; expected one of them.")
    given = {"target_agent": to, "description": description, "threshold": threshold, "priority": priority,
             "is_active": active, "conditions": {} if no_conditions else conditions or None}  # fmt: skip
    changes = {key: value for key, value in given.items() if value is not None}
    with open_dancer(ctx) as dancer:
        routes = SemanticRoutes(dancer)
        if changes:
            routes.update(name, changes)
        if drop:
            routes.remove_utterances(name, drop)
        if utterance:
            routes.add_utterances(name, utterance)
        if not_:
            routes.add_utterances(name, not_, negative=True)
        route = routes.get(name)
    _answer(ctx, route, f"Changed the route {name}.", as_json=as_json)


@routes_app.command(rich_help_panel=_CHANGE, epilog=examples("tinydancer routes remove refunds"))
def remove(ctx: typer.Context, name: _Name, as_json: opt.Json = False) -> None:
    """Remove a route with its examples."""
    with open_dancer(ctx) as dancer:
        route = dancer.store.get_route(name)
        dancer.store.delete_route(name)
    _answer(ctx, route, f"Removed the route {name}.", as_json=as_json)


@routes_app.command(
    rich_help_panel=_LOOK,
    epilog=examples(
        "tinydancer routes match 'Where is my money?'", "tinydancer routes match - --top 5 --json < mail.txt"
    ),
)
def match(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="TEXT", help="The request; - for standard input.")],
    top: Annotated[int, typer.Option("--top", "-k", metavar="N", help="How many routes at most.")] = 3,
    tier: Annotated[str | None, typer.Option("--tier", metavar="NAME", help="Whose request it is.")] = None,
    as_json: opt.Json = False,
) -> None:
    """See which routes a request passes, or that it is none of these. Counts against no rate limit."""
    from tinydancer.routes import SemanticRoutes

    text = read_text(STDIN) if words == [STDIN] else " ".join(words)
    with open_dancer(ctx) as dancer:
        # An index for one request would take longer to build than all comparisons.
        answer = SemanticRoutes(dancer, exact_routes=None).match(text, top_k=top, user_tier=tier, count=False)
    if as_json:
        output.write_json(answer.to_dict())
        return
    if answer.best is None:
        near = answer.nearest
        nearest = f" Nearest: {near.route_name} ({near.similarity:.2f})." if near is not None else ""
        typer.echo(output.printable(f"None of these, with probability {answer.confidence:.2f}.{nearest}"))
        return
    output.write_table(
        ("route", "agent", "similarity", "confidence"),
        [(m.route_name, m.target_agent, f"{m.similarity:.2f}", f"{m.confidence:.2f}") for m in answer.matches],
        numbers=("similarity", "confidence"),
    )


@routes_app.command(
    "import",
    rich_help_panel=_FILES,
    epilog=examples(
        "tinydancer routes import routes.yaml",
        "# A file of the semantic-router package, whose routes name no agents:",
        "tinydancer routes import layer.json --target support --replace",
    ),
)
def import_(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON or YAML; - for standard input.")],
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="AGENT", autocompletion=complete_agent_name, help="For routes that name none."
        ),
    ] = None,
    replace_: Annotated[bool, typer.Option("--replace", help="Replace routes that exist.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Create the routes of a file, all or none: our own shape, or that of the semantic-router package."""
    from tinydancer.route_files import configs_of
    from tinydancer.routes import SemanticRoutes

    configs = configs_of(_parsed(file), target=target)
    with (
        open_dancer(ctx, make=True) as dancer,
        output.progress(len(configs), "embedding", quiet=state_of(ctx).quiet) as advance,
    ):
        names = SemanticRoutes(dancer).create_many(configs, replace=replace_, progress=advance)
    if as_json:
        output.write_json({"imported": names})
    else:
        note(ctx, f"Imported {plural(len(names), 'route')}.")


@routes_app.command(
    rich_help_panel=_FILES,
    epilog=examples("tinydancer routes export > routes.yaml", "tinydancer routes export --semantic-router --json"),
)
def export(
    ctx: typer.Context,
    semantic_router: Annotated[
        bool, typer.Option("--semantic-router", help="In the shape of the semantic-router package.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Print all routes as YAML, or as JSON, which [bold]routes import[/bold] reads back.

    Vectors are left out: they are made again from the texts.
    """
    from tinydancer.route_files import semantic_router_file

    with open_dancer(ctx) as dancer:
        routes = dancer.store.list_routes()
    made: Any = semantic_router_file(routes) if semantic_router else [route.to_dict() for route in routes]
    if as_json:
        output.write_json(made)
        return
    import yaml

    typer.echo(yaml.safe_dump(made, allow_unicode=True, sort_keys=False, width=100), nl=False)


@routes_app.command(
    rich_help_panel=_FILES,
    epilog=examples(
        "tinydancer routes fit labelled.tsv",
        "tinydancer routes fit labelled.jsonl --min-confidence 0.9 --dry-run --json",
    ),
)
def fit(
    ctx: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Requests with the columns route (or none) and text; TSV, CSV, JSON.")
    ],
    min_confidence: Annotated[
        float | None,
        typer.Option("--min-confidence", metavar="P", help="Probability that a request at the threshold is its."),
    ] = None,
    test_share: Annotated[
        float, typer.Option("--test-share", metavar="SHARE", help="Share that is measured on and not fitted on.")
    ] = 0.5,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the split.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report; store nothing.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Choose thresholds and calibrate confidence from labelled requests, and measure both on held-out ones."""
    from tinydancer.route_files import labelled_of
    from tinydancer.routes import SemanticRoutes

    what = "Standard input" if file == STDIN else f"The file {file}"
    labelled = labelled_of(read_text(file), what=what)
    with open_dancer(ctx) as dancer:
        report = SemanticRoutes(dancer).fit(
            labelled, min_confidence=min_confidence, test_share=test_share, seed=seed, keep=not dry_run
        )
    if as_json:
        output.write_json(report.to_dict())
        return
    _write_report(ctx, report)


def _write_report(ctx: typer.Context, report: RouteFit) -> None:
    before, after = report.before, report.after
    output.write_table(
        ("route", "threshold", "requests", "precision", "recall", "misses"),
        [_figures(figures, report.thresholds.get(figures.name or "")) for figures in after.routes],
        numbers=("threshold", "requests", "precision", "recall", "misses"),
    )
    typer.echo("")
    output.write_facts(
        f"{plural(after.requests, 'held-out request')}, fitted on {report.fitted_on:,}",
        [
            ("accuracy", f"{after.accuracy:.3f} (before: {before.accuracy:.3f})"),
            ("calibration error", f"{after.calibration_error:.3f} (before: {before.calibration_error:.3f})"),
            ("misses", "; ".join(
                f"{text} ({own or 'none'}, not {given or 'none'})" for text, own, given in report.missed[:_MISSES_SHOWN]
            )),
        ],
    )  # fmt: skip
    if report.left_out:
        note(ctx, f"Left out {plural(report.left_out, 'request')} whose text is an utterance, or came twice.")
    note(ctx, "Stored." if report.kept else "Nothing was stored.")


def _figures(figures: RouteFigures, threshold: float | None) -> tuple[str, ...]:
    return (
        figures.name or "none of these", "" if threshold is None else f"{threshold:.2f}", f"{figures.requests:,}",
        *("" if share is None else f"{share:.2f}" for share in (figures.precision, figures.recall)),
        f"{figures.misses:,}",
    )  # fmt: skip


def _conditions(
    between: str | None, time_zone: str | None, days: str | None, tier: list[str] | None, rate_limit: str | None
) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if between is not None:
        start, separator, end = between.partition("-")
        if not separator:
            raise InvalidInputError(f"--between is {between!r}; expected two times, as in 09:00-17:30.")
        made["time_range"] = {"start": start.strip(), "end": end.strip()}
        if time_zone is not None:
            made["time_range"]["time_zone"] = time_zone
        if days is not None:
            made["time_range"]["days"] = [day.strip() for day in days.split(",")]
    elif time_zone is not None or days is not None:
        raise InvalidInputError("--time-zone and --days say more about --between, which is not given.")
    if tier:
        made["user_tier"] = tier
    if rate_limit is not None:
        requests, separator, per_s = rate_limit.partition("/")
        try:
            made["rate_limit"] = {"requests": int(requests), "per_s": float(per_s) if separator else 60.0}
        except ValueError:
            raise InvalidInputError(
                f"--rate-limit is {rate_limit!r}; expected requests per seconds, as in 100/3600."
            ) from None
    return made


def _parsed(file: str) -> Any:
    text, what = read_text(file), "Standard input" if file == STDIN else f"The file {file}"
    if file.endswith(".json") or text.lstrip()[:1] in ("[", "{"):
        return parse_json(text, what)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInputError(f"{what} is no YAML: {' '.join(str(error).split())}.") from None


def _answer(ctx: typer.Context, route: Route, done: str, *, as_json: bool) -> None:
    if as_json:
        output.write_json(route.to_dict())
    else:
        note(ctx, output.printable(done))


def _row(route: Route) -> tuple[str, ...]:
    return (
        route.name, route.target_agent, str(route.priority), _threshold(route), str(len(route.texts("example"))),
        str(len(route.texts("negative"))), _shown(route), "yes" if route.is_active else "no",
    )  # fmt: skip


def _threshold(route: Route) -> str:
    return "default" if route.threshold is None else f"{route.threshold:.2f}"


def _shown(route: Route) -> str:
    when, conditions = route.conditions.to_dict().get("time_range"), route.conditions
    parts = []
    if when is not None:
        days = f", {' '.join(when['days'])}" if "days" in when else ""
        parts.append(f"{when['start']}-{when['end']} {when['time_zone']}{days}")
    if conditions.user_tier is not None:
        parts.append(f"for {', '.join(conditions.user_tier)}")
    if conditions.rate_limit is not None:
        parts.append(f"{plural(conditions.rate_limit.requests, 'request')} per {conditions.rate_limit.per_s:g} s")
    return "; ".join(parts)
