"""``tinydancer demo``: a mix of requests routed under each objective, and what that saves.

In: the package's own agents and requests (``tinydancer.demo``). Out: tables, a JSON document, or an HTML page. Needs no
key and no network; nothing is random, so that only the timing differs from run to run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from tinydancer.demo import Report
    from tinydancer.service import TinyDancer

ROUTINGS = 260
"""How many decisions there are to make: what the progress bar counts up to."""
PAPER_COLUMNS = 110
"""Width of what is printed where there is no terminal."""
STYLES = {"quality": "magenta", "balanced": "cyan", "cost": "green", "latency": "yellow", "quality_per_dollar": "blue"}


def demo(
    ctx: typer.Context,
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as one JSON document.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write one self-contained HTML page.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", metavar="FILE", help="Keep agents and decisions in a new SQLite file.")
    ] = None,
) -> None:
    """Route fifty-two requests under each objective and show the money saved.

    Fifteen agents with public list prices, requests of every kind; the shipped model predicts how well each language
    model will answer. No key, no network, nothing is sent anywhere.
    """
    from tinydancer.cli import output
    from tinydancer.errors import InvalidInputError
    from tinydancer.service import TinyDancer

    store = store or _named_store(ctx)
    with TinyDancer(store) as dancer, output.progress(ROUTINGS, "Routing", quiet=json_output) as step:
        report = run_demo(dancer, step)
    if html is not None:
        from tinydancer.demo.page import page

        try:
            html.write_text(page(report), encoding="utf-8")
        except OSError as error:
            raise InvalidInputError(f"The page cannot be written to {html}: {error.strerror}.") from None
    if json_output:
        output.write_json(report.to_dict())
        return
    console = output.console()
    if not console.is_terminal:
        console.width = PAPER_COLUMNS
    for part in parts(report, console.width):
        console.print(part)
    if html is not None:
        console.print(f"The page is in {html}.")


def run_demo(dancer: TinyDancer, step: Callable[[int], None] = lambda done: None) -> Report:
    """Register the demonstration's agents, route its requests by the shipped model under each objective, and add up.

    Parameters
    ----------
    dancer
        Its store holds no agents, or the demonstration's own.
    step
        Called with 1 after each routing.

    Raises
    ------
    InvalidInputError
        The store holds agents of somebody else's.
    """
    from tinydancer import demo as sums
    from tinydancer.config import Settings
    from tinydancer.errors import InvalidInputError
    from tinydancer.models import use_model
    from tinydancer.service import TinyDancer
    from tinydancer.snapshot import DecisionSettings
    from tinydancer.store.base import SHIPPED_MODEL
    from tinydancer.types import OBJECTIVES

    agents, requests = sums.load_agents(), sums.load_requests()
    present = {record.agent.name for record in dancer.list_agents()}
    strangers = sorted(present - agents.short_names.keys())
    if strangers:
        raise InvalidInputError(
            f"The store holds agents that are not the demonstration's ({', '.join(strangers[:3])}); expected none.",
            hint="Name a new file with --store, or leave it out.",
        )
    for config in agents.configs:
        if config["name"] not in present:
            dancer.register_agent_full(config)
    use_model(dancer.store, SHIPPED_MODEL)

    decisions: dict[str, list[dict[str, Any]]] = {objective: [] for objective in OBJECTIVES}
    elapsed_us: list[float] = []
    for request in requests:
        for objective in OBJECTIVES:
            start = time.perf_counter_ns()
            decision = dancer.route(
                request.text, objective, dict(request.constraints), output_tokens=request.output_tokens
            )
            elapsed_us.append((time.perf_counter_ns() - start) / 1000.0)
            fields = decision.to_dict()
            del fields["decision_id"]  # random, and refers to nothing once the store is gone
            decisions[objective].append(fields)
            step(1)

    # What every agent would offer, decided with the same code but without time limits, and without recording it.
    everybody = Settings(record_decisions=False, decisions=DecisionSettings(max_alternatives=len(agents.configs)))
    observer = TinyDancer(dancer.store, settings=everybody, embedder=dancer.embedder)
    options, looser = [], []
    for request in requests:
        limits = {**request.constraints, "good_enough": sums.LOOSER}
        decision = observer.route(request.text, "cost", limits, output_tokens=request.output_tokens)
        looser.append(sums.choice_of(decision.to_dict()))
        skills = {k: v for k, v in request.constraints.items() if k != "max_latency_ms"}
        decision = observer.route(request.text, "quality", skills, output_tokens=request.output_tokens)
        offers = [sums.choice_of(decision.to_dict()), *(sums.choice_of(a.to_dict()) for a in decision.alternatives)]
        options.append({offer.agent: offer for offer in offers})
    return sums.report(agents, requests, decisions, looser, options, statistics.median(elapsed_us))


def parts(report: Report, width: int) -> list[RenderableType]:
    """What the command prints on a terminal of `width` columns, from top to bottom."""
    from rich.padding import Padding
    from rich.rule import Rule

    agents, requests = len(report.agents.configs), len(report.requests)
    return [
        Rule(f"{requests} requests, {agents} agents, {len(report.objectives)} objectives"),
        "Which agent each request goes to, under each objective. Nothing is sent anywhere.\n",
        choices_table(report, width),
        Rule("Why: five of them"),
        *(Padding(block, (0, 0, 1, 2)) for block in explanations(report)),
        Rule("Where they went"),
        shares_table(report),
        Rule("What it comes to"),
        totals_table(report),
        Rule("Hard requests and easy ones, under cost"),
        parts_table(report),
        Padding(notes(report), (0, 0, 1, 0)),
        closing(report),
    ]


def choices_table(report: Report, width: int) -> Table:
    """One row per request, one column per objective: who gets it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    short = report.agents.short_names
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("request", no_wrap=True)
    for objective in report.decisions:
        table.add_column(_heading(objective), no_wrap=True, style=STYLES[objective])
    room = max(18, width - 2 - 12 * len(report.decisions))
    category = ""
    for i, request in enumerate(report.requests):
        if request.category != category:
            category = request.category
            table.add_row(Text(category, style="bold"))
        names = [short[rows[i]["agent_name"]] for rows in report.decisions.values()]
        table.add_row(Text("  " + request.shortened(room - 2)), *names)
    return table


def explanations(report: Report) -> list[RenderableType]:
    """Reasoning and alternatives of the requests that ask for it."""
    from rich.text import Text

    blocks: list[RenderableType] = []
    for i, request in enumerate(report.requests):
        if request.explain is None:
            continue
        row = report.decisions[request.explain][i]
        block = Text()
        block.append(f"“{request.shortened(90)}”\n", style="bold")
        block.append(f"{_words(request.explain)}: ", style=STYLES[request.explain])
        block.append(row["reasoning"])
        for other in row["alternatives"]:
            block.append(f"\n  {other['agent_name']}: {other['reason']}.", style="dim")
        blocks.append(block)
    return blocks


def shares_table(report: Report) -> Table:
    """How many of the compared requests each agent gets under each objective, as bars."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("agent", no_wrap=True)
    for objective in report.decisions:
        table.add_column(_heading(objective), no_wrap=True, style=STYLES[objective])
    most = max(max(way.agents.values()) for way in report.objectives)
    for name, short in report.agents.short_names.items():
        counts = [way.agents.get(name, 0) for way in report.objectives]
        if any(counts):
            table.add_row(short, *(_bar(count, most) for count in counts))
    return table


def totals_table(report: Report) -> Table:
    """Cost, quality, latency and saving per objective, and of the agents that could serve everything alone."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", no_wrap=True)
    headings = (
        "cost\nUSD",
        "expected\nquality",
        "mean\nlatency",
        "too\nlate",
        "saved, USD per\n1,000 requests",
        "saved",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for way in report.objectives:
        table.add_row(_words(way.label), *_figures(way), style=STYLES[way.label])
    table.add_row(report.looser.label, *_figures(report.looser), style=STYLES["cost"])
    for way in report.singles:
        mark = " (the best)" if way.label == report.best else ""
        table.add_row(f"all to {way.label}{mark}", *_figures(way), style="dim")
    return table


def parts_table(report: Report) -> Table:
    """Who gets the hard requests and who the easy ones."""
    from rich import box
    from rich.table import Table

    short = report.agents.short_names
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("quality expected\nof all models", justify="right", no_wrap=True)
    table.add_column("who gets them, the cheapest that is good enough", style=STYLES["cost"])
    table.add_column("USD per\n1,000", justify="right", no_wrap=True)
    table.add_column("saved", justify="right", no_wrap=True)
    for part in report.parts:
        way = part.way
        agents = ", ".join(f"{count}×{short[name]}" for name, count in way.agents.items())
        cost = f"{way.cost_usd / way.requests * 1000.0:,.2f}"
        label = f"{way.label} ({way.requests})"
        table.add_row(label, f"{part.expected_quality:.2f}", agents, cost, f"{way.saved_share:.1%}")
    return table


def notes(report: Report) -> str:
    """What the figures are and are not."""
    compared, requests = len(report.positions), len(report.requests)
    elsewhere = ", ".join(f"{name} ({count})" for name, count in report.elsewhere().items())
    rents = ", ".join(f"{name}: ${rent:,.2f} a month" for name, rent in report.monthly_fixed_usd.items())
    baseline = report.singles[0]
    in_parts = sum(part.way.requests for part in report.parts)
    return (
        f"Good enough is an expected quality of at least {report.good_enough:.0%} of the best to be had for the "
        "request; cost, latency and quality per dollar choose among those who are.\n"
        f"Totals are over the {compared} requests that {report.best} has the skills for; the other "
        f"{requests - compared} go to {elsewhere} under every objective. The best agent, against which savings are "
        "reckoned, is the language model with the highest stated quality, sent every request; it would be too late "
        f"for {baseline.late} of them. The thirds are of the {in_parts} that every language model has the skills for.\n"
        f"Not in the totals, because it is paid either way: {rents}.\n"
        f"Stated: {report.agents.prices} {report.agents.stated}\n"
        f"{report.basis} What it is worth on answers that were: docs/explanation/quality-model.md."
    )


def closing(report: Report) -> str:
    """The measured time and what to try next."""
    return (
        f"Median time from text to recorded decision: {report.median_us:,.0f} µs. Try next: "
        "tinydancer demo --html demo.html, tinydancer init, tinydancer agents add --help, docs/tutorial.md."
    )


def _named_store(ctx: typer.Context) -> Path | None:
    """The global ``--store`` where it was typed; one from the environment is for real work, not for demonstrations."""
    root = ctx.find_root()
    source = root.get_parameter_source("store")
    typed = source is not None and source.name == "COMMANDLINE"
    return Path(root.params["store"]) if typed else None


def _figures(way: Any) -> list[str]:
    return [
        f"{way.cost_usd:.4f}", f"{way.mean_quality:.3f}", f"{way.mean_latency_ms / 1000.0:.1f} s", str(way.late),
        f"{way.saved_usd_per_1000:,.2f}", f"{way.saved_share:.1%}",
    ]  # fmt: skip


def _bar(count: int, most: int, width: int = 7) -> str:
    """A bar of eighths of a character, and the number it stands for."""
    eighths = round(8 * width * count / most)
    bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
    return f"{bar:<{width}} {count:>2}" if count else ""


def _words(objective: str) -> str:
    return objective.replace("_", " ")


def _heading(objective: str) -> str:
    return _words(objective).replace("quality per dollar", "quality/$")
