"""Shell completion of values: agents, capabilities, objectives.

In: what was typed so far. Out: words that begin with it. Completion must never fail or write anything, so that
whatever goes wrong gives no words.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tinydancer.types import Agent


def complete_agent_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the agents in the store."""
    return _starting(incomplete, (agent.name for agent in _agents(ctx)))


def complete_capability(ctx: typer.Context, incomplete: str) -> list[str]:
    """Capabilities that some agent has."""
    return _starting(incomplete, sorted({c for agent in _agents(ctx) for c in agent.capabilities}))


def complete_agent_type(incomplete: str) -> list[str]:
    """The types of agents that are known by name."""
    from tinydancer.types import AGENT_TYPES

    return _starting(incomplete, AGENT_TYPES)


def complete_objective(incomplete: str) -> list[str]:
    """The objectives."""
    from tinydancer.types import OBJECTIVES

    return _starting(incomplete, OBJECTIVES)


def _starting(incomplete: str, words: Iterable[str]) -> list[str]:
    # A shell takes what it is given for typed text: a name with a control character in it would be typed as well.
    return [word for word in words if word.startswith(incomplete) and word.isprintable()]


def _agents(ctx: typer.Context) -> list[Agent]:
    try:
        from tinydancer.cli.context import State, settings_of
        from tinydancer.service import TinyDancer

        given = ctx.find_root().params
        settings = settings_of(State(store=given.get("store"), config=given.get("config"), tenant=given.get("tenant")))
        if not Path(settings.store).is_file():
            return []
        with TinyDancer(settings.store, settings=settings) as dancer:
            return dancer.store.list_agents()
    except Exception:
        return []
