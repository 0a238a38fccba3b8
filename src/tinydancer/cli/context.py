"""What the global options say, and from it an open `TinyDancer`.

In: the options and variables of one invocation. Out: settings, and a service over the store they name. Everything
heavy (NumPy, the store, the embedder) is imported when a command asks for it, so that help and completion stay fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from tinydancer.config import Settings
    from tinydancer.service import TinyDancer


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The global options of one invocation; None is *not given*."""

    store: str | None = None
    config: str | None = None
    tenant: str | None = None
    quiet: bool = False


def state_of(ctx: typer.Context) -> State:
    """The global options that the command was called with."""
    state: State = ctx.find_root().obj
    return state


def settings_of(state: State) -> Settings:
    """The settings file's values, those of the options in their place.

    Raises
    ------
    ConfigError
        The file that was named does not exist, or it has a mistake.
    """
    from tinydancer.config import CONFIG_FILE, Settings, load_settings

    if state.config is not None:
        settings = load_settings(state.config)
    else:
        settings = load_settings(CONFIG_FILE) if Path(CONFIG_FILE).exists() else Settings()
    given = {key: getattr(state, key) for key in ("store", "tenant") if getattr(state, key) is not None}
    return replace(settings, **given) if given else settings


@contextmanager
def open_dancer(ctx: typer.Context, *, make: bool = False, settings: Settings | None = None) -> Iterator[TinyDancer]:
    """The service over the store of this invocation, closed at the end.

    Parameters
    ----------
    make
        Whether a store that does not exist is made. Without it the command sees an empty one, and a note says so: a
        command that only looks leaves no file behind.
    settings
        Instead of those of the invocation.
    """
    from tinydancer.service import TinyDancer
    from tinydancer.store.opening import is_address

    state = state_of(ctx)
    settings = settings or settings_of(state)
    where: str | None = settings.store
    if not make and not is_address(settings.store) and not Path(settings.store).exists():
        note(ctx, f"The store {settings.store} does not exist yet; the first agent that is registered makes it.")
        where = None
    with TinyDancer(where, settings=settings) as dancer:
        yield dancer


def note(ctx: typer.Context, message: Any) -> None:
    """One line for the person at the terminal, on standard error; ``--quiet`` leaves it out."""
    if not state_of(ctx).quiet:
        typer.echo(message, err=True)
