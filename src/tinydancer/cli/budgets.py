"""``tinydancer budgets``: what may be spent, what is spent, and alerts.

In: names, amounts, periods. Out: tables, facts or JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.context import note, open_dancer
from tinydancer.cli.options import examples
from tinydancer.errors import InvalidInputError
from tinydancer.policy.wording import usd

if TYPE_CHECKING:
    from tinydancer.budgets import BudgetStatus

budgets_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Limit what is spent: budgets per tenant, agent, key or tag.",
)
_LOOK = "Look"
_CHANGE = "Change"


def complete_budget_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the budgets, for the shell, which must never be shown a failure."""
    try:
        from tinydancer.cli.context import State, settings_of
        from tinydancer.service import TinyDancer

        given = ctx.find_root().params
        settings = settings_of(State(store=given.get("store"), config=given.get("config"), tenant=given.get("tenant")))
        if not Path(settings.store).is_file():
            return []
        with TinyDancer(settings.store, settings=settings) as dancer:
            names = [stored.budget.name for stored in dancer.store.list_budgets()]
    except Exception:
        return []
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]


_Name = Annotated[str, typer.Argument(autocompletion=complete_budget_name, help="Name of the budget.")]
_Agent = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="It counts what this agent costs.")]
_Key = Annotated[str | None, typer.Option("--key", metavar="NAME", help="It counts the requests of this key.")]
_Tag = Annotated[str | None, typer.Option("--tag", metavar="NAME", help="It counts the requests with this tag.")]
_Limit = Annotated[
    str | None,
    typer.Option("--on-limit", metavar="WHAT", help="At the limit: refuse, free (agents only) or cheapest (over it)."),
]
_Pacing = Annotated[
    str | None, typer.Option("--pacing", metavar="HOW", help="none, or even: released evenly over the period.")
]
_Burst = Annotated[
    float | None, typer.Option("--burst", metavar="SHARE", help="Share of the amount to be ahead of an even pace by.")
]
_Alerts = Annotated[
    list[float] | None, typer.Option("--alert-at", metavar="SHARE", help="Share of the amount; give it several times.")
]
_Zone = Annotated[str | None, typer.Option("--time-zone", metavar="NAME", help="Whose clock begins the periods.")]
_Starts = Annotated[str | None, typer.Option("--starts-at", metavar="TIME", help="From when on it holds, ISO 8601.")]
_Ends = Annotated[str | None, typer.Option("--ends-at", metavar="TIME", help="Until when it holds, ISO 8601.")]
_Release = Annotated[
    float | None,
    typer.Option("--release-after", metavar="SECONDS", help="When a request without an outcome no longer counts."),
]


@budgets_app.command(
    rich_help_panel=_CHANGE,
    epilog=examples(
        "tinydancer budgets create everything 500",
        "tinydancer budgets create search 20 --period day --key search-team --on-limit cheapest --pacing even",
        "tinydancer budgets create trial 5 --period 14 --agent gpt-4 --time-zone Europe/Berlin --alert-at 0.9",
    ),
)
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the budget.")],
    amount: Annotated[float, typer.Argument(metavar="USD", help="How much per period.")],
    period: Annotated[
        str,
        typer.Option("--period", metavar="PERIOD", help="hour, day, week, month, year, total, or a number of days."),
    ] = "month",
    agent: _Agent = None,
    key: _Key = None,
    tag: _Tag = None,
    on_limit: _Limit = None,
    pacing: _Pacing = None,
    burst: _Burst = None,
    alert_at: _Alerts = None,
    time_zone: _Zone = None,
    starts_at: _Starts = None,
    ends_at: _Ends = None,
    release_after: _Release = None,
    as_json: opt.Json = False,
) -> None:
    """Create a budget: of the whole tenant, or of an agent, a key or a tag."""
    from tinydancer.budgets import Budgets

    more = _scope(agent, key, tag) | _given(
        on_limit=on_limit, pacing=pacing, burst=burst, alert_at=alert_at, time_zone=time_zone, starts_at=starts_at,
        ends_at=ends_at, release_after_s=release_after,
    )  # fmt: skip
    with open_dancer(ctx, make=True) as dancer:
        status = Budgets(dancer).create(name, amount, period, **more)
    _answer(ctx, status, f"Created the budget {name}: {_limit(status)}.", as_json=as_json)


@budgets_app.command("list", rich_help_panel=_LOOK, epilog=examples("tinydancer budgets list --json"))
def list_(ctx: typer.Context, as_json: opt.Json = False) -> None:
    """List the budgets with what is spent of them."""
    from tinydancer.budgets import Budgets

    with open_dancer(ctx) as dancer:
        found = Budgets(dancer).list()
    if as_json:
        output.write_json([status.to_dict() for status in found])
        return
    if not found:
        note(ctx, "There is no budget yet. Create one with: tinydancer budgets create NAME USD")
        return
    output.write_table(
        ("budget", "whose", "amount", "period", "spent", "reserved", "left", "used", "at the limit"),
        [_row(status) for status in found], numbers=("amount", "spent", "reserved", "left"),
    )  # fmt: skip


@budgets_app.command(rich_help_panel=_LOOK, epilog=examples("tinydancer budgets show search"))
def show(ctx: typer.Context, name: _Name, as_json: opt.Json = False) -> None:
    """Show one budget with what is spent of it."""
    from tinydancer.budgets import Budgets

    with open_dancer(ctx) as dancer:
        status = Budgets(dancer).get(name)
    if as_json:
        output.write_json(status.to_dict())
        return
    budget, stated = status.budget, status.to_dict()
    paced = f"even, {budget.burst:.0%} ahead; {usd(status.ceiling_usd)} by now" if budget.pacing == "even" else "none"
    released = "" if budget.release_after_s is None else f"{budget.release_after_s:g} s without an outcome"
    output.write_facts(
        budget.name,
        [
            ("limit", _limit(status)), ("whose", budget.whose or "the tenant's"), ("spent", usd(status.spent_usd)),
            ("reserved", usd(status.reserved_usd)), ("left", usd(status.remaining_usd)),
            ("period", " to ".join(t for t in (stated["period_start"], stated["period_end"]) if t)),
            ("time zone", budget.time_zone), ("starts", stated["starts_at"] or ""), ("ends", stated["ends_at"] or ""),
            ("at the limit", budget.on_limit), ("pacing", paced), ("released", released),
            ("alerts", ", ".join(f"{share:.0%}" for share in budget.alert_at)),
            ("holds now", "yes" if status.is_open else "no"),
        ],
    )  # fmt: skip


@budgets_app.command(
    rich_help_panel=_CHANGE,
    epilog=examples(
        "tinydancer budgets update search --amount 30",
        "tinydancer budgets update search --on-limit free --no-alerts",
        "tinydancer budgets update search --inactive",
    ),
)
def update(
    ctx: typer.Context,
    name: _Name,
    amount: Annotated[float | None, typer.Option("--amount", metavar="USD", help="How much per period.")] = None,
    period: Annotated[
        str | None,
        typer.Option("--period", metavar="PERIOD", help="hour, day, week, month, year, total, or a number of days."),
    ] = None,
    agent: _Agent = None,
    key: _Key = None,
    tag: _Tag = None,
    on_limit: _Limit = None,
    pacing: _Pacing = None,
    burst: _Burst = None,
    alert_at: _Alerts = None,
    no_alerts: Annotated[bool, typer.Option("--no-alerts", help="No alerts any more.")] = False,
    time_zone: _Zone = None,
    starts_at: _Starts = None,
    ends_at: _Ends = None,
    release_after: _Release = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Whether it holds at all.")] = None,
    as_json: opt.Json = False,
) -> None:
    """Change a budget; what is not named stays, and so does what was spent."""
    from tinydancer.budgets import Budgets

    if alert_at and no_alerts:
        raise InvalidInputError("--alert-at and --no-alerts are given; expected one of them.")
    changes = _scope(agent, key, tag) | _given(
        amount_usd=amount, period=period, on_limit=on_limit, pacing=pacing, burst=burst,
        alert_at=[] if no_alerts else alert_at or None, time_zone=time_zone, starts_at=starts_at, ends_at=ends_at,
        release_after_s=release_after, is_active=active,
    )  # fmt: skip
    if not changes:
        raise InvalidInputError("No change is given.", hint="Name one, such as --amount 50.")
    with open_dancer(ctx) as dancer:
        status = Budgets(dancer).update(name, changes)
    _answer(ctx, status, f"Changed the budget {name}: {_limit(status)}.", as_json=as_json)


@budgets_app.command(rich_help_panel=_CHANGE, epilog=examples("tinydancer budgets remove search"))
def remove(ctx: typer.Context, name: _Name, as_json: opt.Json = False) -> None:
    """Remove a budget with its accounts; its alerts stay."""
    from tinydancer.budgets import Budgets

    with open_dancer(ctx) as dancer:
        status = Budgets(dancer).get(name)
        Budgets(dancer).remove(name)
    _answer(ctx, status, f"Removed the budget {name}.", as_json=as_json)


@budgets_app.command(
    rich_help_panel=_LOOK,
    epilog=examples("tinydancer budgets alerts", "tinydancer budgets alerts --since '24 hours' --json"),
)
def alerts(
    ctx: typer.Context,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="How far back, as in '7 days' or '24 hours'.")
    ] = "7 days",
    as_json: opt.Json = False,
) -> None:
    """See which shares of budgets were passed, the latest first."""
    from tinydancer.budgets import Budgets, alert_dict

    with open_dancer(ctx) as dancer:
        found = [alert_dict(alert) for alert in Budgets(dancer).alerts(since)]
    if as_json:
        output.write_json(found)
        return
    if not found:
        note(ctx, f"No share of a budget was passed in the last {since}.")
        return
    output.write_table(
        ("when", "budget", "share", "used", "amount"),
        [(a["raised_at"], a["budget"], f"{a['share']:.0%}", usd(a["used_usd"]), usd(a["amount_usd"])) for a in found],
        numbers=("share", "used", "amount"),
    )


def _scope(agent: str | None, key: str | None, tag: str | None) -> dict[str, Any]:
    given = {name: value for name, value in (("agent", agent), ("key", key), ("tag", tag)) if value is not None}
    if len(given) > 1:
        raise InvalidInputError(f"{' and '.join(f'--{name}' for name in given)} are given; expected one of them.")
    return {key: value for name, named in given.items() for key, value in (("scope", name), ("scope_value", named))}


def _given(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _answer(ctx: typer.Context, status: BudgetStatus, done: str, *, as_json: bool) -> None:
    if as_json:
        output.write_json(status.to_dict())
    else:
        note(ctx, output.printable(done))


def _limit(status: BudgetStatus) -> str:
    period = status.budget.period
    if period == "total":
        return f"{usd(status.budget.amount_usd)} in total"
    return f"{usd(status.budget.amount_usd)} per {period if isinstance(period, str) else f'{period} days'}"


def _row(status: BudgetStatus) -> tuple[str, ...]:
    budget = status.budget
    used = status.spent_usd + status.reserved_usd
    share = min(1.0, used / budget.amount_usd) if budget.amount_usd else 1.0
    period = budget.period if isinstance(budget.period, str) else f"{budget.period} days"
    what = budget.on_limit if status.is_open else "(does not hold now)"
    return (
        budget.name, budget.whose or "tenant", usd(budget.amount_usd), period, usd(status.spent_usd),
        usd(status.reserved_usd), usd(status.remaining_usd), f"{output.meter(share, 10)} {share:.0%}", what,
    )  # fmt: skip
