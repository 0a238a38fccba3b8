"""``tinydancer models``: look at the weights that decide, choose among them, add and remove your own.

In: a name, or a file that a training run wrote. Out: tables, facts or JSON, or the file again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinydancer.cli import options as opt
from tinydancer.cli import output
from tinydancer.cli.context import note, open_dancer
from tinydancer.cli.inputs import STDIN, read_bytes
from tinydancer.cli.options import examples
from tinydancer.errors import AlreadyExistsError, InvalidInputError

if TYPE_CHECKING:
    from tinydancer.models import ModelCard

models_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="See which weights decide, choose among them, add and remove your own.",
)
_LOOK = "Look"
_CHANGE = "Change"
_FILES = "Files"
_LONGEST_FACT = 600
"""Characters of one fact on the screen; JSON has all of them."""


def complete_model_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the models, for the shell, which must never be shown a failure."""
    try:
        from tinydancer.cli.context import State, settings_of
        from tinydancer.service import TinyDancer
        from tinydancer.store.base import SHIPPED_MODEL

        given = ctx.find_root().params
        settings = settings_of(State(store=given.get("store"), config=given.get("config"), tenant=given.get("tenant")))
        names = [SHIPPED_MODEL]
        if Path(settings.store).is_file():
            with TinyDancer(settings.store, settings=settings) as dancer:
                names += [row.name for row in dancer.store.list_models()]
    except Exception:
        return []
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]


_Name = Annotated[
    str, typer.Argument(autocompletion=complete_model_name, help="Name of the model; shipped is the package's own.")
]


@models_app.command("list", rich_help_panel=_LOOK, epilog=examples("tinydancer models list --json"))
def list_(ctx: typer.Context, as_json: opt.Json = False) -> None:
    """List the models: the shipped one and your own, and which of them decides, if any."""
    from tinydancer.models import list_models

    with open_dancer(ctx) as dancer:
        cards = list_models(dancer.store)
    if as_json:
        output.write_json([card.to_dict() for card in cards])
        return
    output.write_table(("name", "decides", "agents", "size", "stored", "hash"), [_row(card) for card in cards],
                       numbers=("agents", "size"))  # fmt: skip
    if not any(card.is_active for card in cards):
        note(
            ctx,
            "No model decides: quality comes from what is stated of the agents and from outcomes. "
            "Let one decide with: tinydancer models use shipped",
        )


@models_app.command(
    rich_help_panel=_LOOK, epilog=examples("tinydancer models show shipped", "tinydancer models show mine --json")
)
def show(ctx: typer.Context, name: _Name, as_json: opt.Json = False) -> None:
    """Show the card of one model: what it knows, what it was trained on, what it reached."""
    from tinydancer.models import get_model

    with open_dancer(ctx) as dancer:
        card = get_model(dancer.store, name)
    if as_json:
        output.write_json(card.to_dict())
    else:
        output.write_facts(card.name, _facts(card))


@models_app.command(
    rich_help_panel=_CHANGE, epilog=examples("tinydancer models use mine", "tinydancer models use shipped")
)
def use(ctx: typer.Context, name: _Name, as_json: opt.Json = False) -> None:
    """Let a model decide, in every process that uses the store, from its next decision on."""
    from tinydancer.models import get_model, use_model

    with open_dancer(ctx, make=True) as dancer:
        use_model(dancer.store, get_model(dancer.store, name).name)
        _answer(ctx, get_model(dancer.store, name), f"{name} decides.", as_json=as_json)


@models_app.command(rich_help_panel=_CHANGE)
def none(ctx: typer.Context, as_json: opt.Json = False) -> None:
    """Let no model decide: quality comes from what is stated of the agents and from outcomes."""
    from tinydancer.models import list_models, use_model
    from tinydancer.store.base import NO_MODEL

    with open_dancer(ctx, make=True) as dancer:
        use_model(dancer.store, NO_MODEL)
        if as_json:
            output.write_json([card.to_dict() for card in list_models(dancer.store)])
            return
    note(ctx, "No model decides.")


@models_app.command(
    rich_help_panel=_CHANGE,
    epilog=examples(
        "tinydancer models add model.safetensors --name support-2026 --use",
        "# Trained anew, under the same name:",
        "tinydancer models add model.safetensors --name support-2026 --replace",
    ),
)
def add(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A model's file; - for standard input.")],
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="Instead of the file's name without its ending.")
    ] = None,
    use_: Annotated[bool, typer.Option("--use", help="Let it decide at once.")] = False,
    replace_: Annotated[bool, typer.Option("--replace", help="Take the place of a model of that name.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Add a model to the store, after checking that it is whole and of the store's vector space."""
    from tinydancer.models import add_model, get_model, use_model

    if name is None and file == STDIN:
        raise InvalidInputError("A model from standard input has no name; expected --name.")
    given = Path(file).stem if name is None else name
    content, _ = read_bytes(file)
    with open_dancer(ctx, make=True) as dancer:
        add_model(dancer.store, given, content, replace=replace_)
        if use_:
            use_model(dancer.store, given)
        card = get_model(dancer.store, given)
    done = "and it decides." if card.is_active else f"Let it decide with: tinydancer models use {given}"
    _answer(ctx, card, f"Added {given}{', ' if card.is_active else '. '}{done}", as_json=as_json)


@models_app.command(rich_help_panel=_CHANGE, epilog=examples("tinydancer models remove mine"))
def remove(ctx: typer.Context, name: _Name, as_json: opt.Json = False) -> None:
    """Remove a model of your own; if it decided, none does."""
    from tinydancer.models import get_model, remove_model

    with open_dancer(ctx) as dancer:
        card = get_model(dancer.store, name)
        remove_model(dancer.store, name)
    left = " No model decides now." if card.is_active else ""
    _answer(ctx, card, f"Removed {name}.{left}", as_json=as_json)


@models_app.command(rich_help_panel=_FILES, epilog=examples("tinydancer models export shipped shipped.safetensors"))
def export(
    ctx: typer.Context,
    name: _Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write it; a file that exists stays.")],
    as_json: opt.Json = False,
) -> None:
    """Write a model's file, byte for byte as it was added."""
    from tinydancer.models import get_model, model_file

    with open_dancer(ctx) as dancer:
        card, content = get_model(dancer.store, name), model_file(dancer.store, name)
    try:
        with open(file, "xb") as stream:
            stream.write(content)
    except FileExistsError:
        raise AlreadyExistsError(f"The file {file} exists.", hint="Name another one, or remove it first.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"The file {file} cannot be written: {reason}.") from None
    _answer(ctx, card, f"Wrote {_size(len(content))} to {file}.", as_json=as_json)


def _answer(ctx: typer.Context, card: ModelCard, done: str, *, as_json: bool) -> None:
    if as_json:
        output.write_json(card.to_dict())
    else:
        note(ctx, output.printable(done))


def _row(card: ModelCard) -> tuple[str, ...]:
    agents = card.metadata.get("agents")
    return (
        card.name,
        "yes" if card.is_active else "no",
        f"{len(agents):,}" if isinstance(agents, (list, tuple)) else "",
        _size(card.size_bytes),
        _date(card.created_at),
        card.sha256[:12],
    )


def _facts(card: ModelCard) -> list[tuple[str, str]]:
    told = dict(card.metadata)
    agents, training = told.get("agents") or (), told.get("facts") or {}
    return [
        ("decides", "yes" if card.is_active else "no"),
        ("kind", card.kind),
        ("space", f"{told.get('space')}, {told.get('dim')} dimensions"),
        ("agents", f"{len(agents)}: {', '.join(agents)}" if agents else "none by name"),
        *((key.replace("_", " "), _shortened(_plain(value))) for key, value in training.items()),
        ("interval", _plain(told["interval"]) if told.get("interval") else "not calibrated"),
        ("size", _size(card.size_bytes)),
        ("hash", card.sha256),
        ("stored", _date(card.created_at) or "with the package"),
    ]


def _plain(value: Any) -> str:
    """Any JSON as words: ``apgr 0.67, cpt50 0.3``."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(inner) for inner in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "unknown"}[value]
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_FACT else f"{text[:_LONGEST_FACT].rsplit(' ', 1)[0]} ... (--json has the rest)"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"


def _date(created_at: float | None) -> str:
    return "" if created_at is None else datetime.fromtimestamp(created_at).astimezone().strftime("%Y-%m-%d %H:%M")
