"""What ``train``, ``eval`` and ``calibrate`` read: judged answers, models, agents of stated quality and price.

In: paths and names as the options give them. Out: tables, weights, agents; with progress on standard error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinydancer.cli import output
from tinydancer.cli.inputs import read_json

if TYPE_CHECKING:
    from tinydancer.model.quality import QualityModel
    from tinydancer.tables import OutcomeTable
    from tinydancer.types import Agent

SHIPPED = "shipped"


def read_outcomes(requests: str, outcomes: str, *, quiet: bool) -> OutcomeTable:
    """One data set from its two files."""
    from tinydancer.tables import read_tables, size_of_tables

    with output.progress(size_of_tables(requests, outcomes), "reading", quiet=quiet) as advance:
        return read_tables(requests, outcomes, progress=advance)


def read_model(name: str) -> QualityModel:
    """The weights in a file, or the shipped ones."""
    from tinydancer.model.quality import QualityModel, shipped_model_path

    if name == SHIPPED:
        return QualityModel.load(shipped_model_path(), label=SHIPPED)
    return QualityModel.load(name)


def read_agents(path: str | None) -> dict[str, Agent]:
    """The agents of a JSON file by name; none without a file."""
    from tinydancer.types import Agent

    if path is None:
        return {}
    given = read_json(path)
    agents = [Agent.from_config(config) for config in (given if isinstance(given, list) else [given])]
    return {agent.name: agent for agent in agents}
