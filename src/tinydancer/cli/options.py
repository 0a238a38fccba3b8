"""Options and arguments that several commands share, declared once.

In: nothing. Out: annotated types for the signatures of the commands.
"""

from __future__ import annotations

from typing import Annotated

import typer

from tinydancer.cli.completion import complete_agent_name, complete_agent_type, complete_capability

_PRICES = "Prices (USD; not given is unknown, 0 is free)"
_STATED = "What is stated, until outcomes tell"

AgentName = Annotated[str, typer.Argument(autocompletion=complete_agent_name, help="Name of the agent.")]
Json = Annotated[bool, typer.Option("--json", help="Pure JSON on standard output; errors as JSON too.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

AgentType = Annotated[
    str | None,
    typer.Option(
        "--type", "-t", metavar="TYPE", autocompletion=complete_agent_type,
        help="llm, embedding, specialized, vision, audio, multimodal, tool, api, human, ensemble, or your own.",
    ),
]  # fmt: skip
Capabilities = Annotated[
    list[str] | None,
    typer.Option(
        "--capability", "-c", metavar="WORDS", autocompletion=complete_capability,
        help="What it can do, a word or short phrase; give it several times.",
    ),
]  # fmt: skip
Description = Annotated[
    str | None,
    typer.Option(
        "--description", "-d", metavar="TEXT", help="What it is good at; joins what requests are matched against."
    ),
]
Metadata = Annotated[str | None, typer.Option("--metadata", metavar="JSON", help="Any JSON object to keep with it.")]

LatencyMs = Annotated[
    float | None, typer.Option("--latency-ms", metavar="MS", help="Mean latency in ms.", rich_help_panel=_STATED)
]
Quality = Annotated[
    float | None, typer.Option("--quality", metavar="Q", help="Mean quality, in [0, 1].", rich_help_panel=_STATED)
]
OutputTokens = Annotated[
    float | None,
    typer.Option("--output-tokens", metavar="N", help="Tokens of a usual answer.", rich_help_panel=_STATED),
]

InputPer1m = Annotated[
    float | None,
    typer.Option("--input-per-1m", metavar="USD", help="Per million input tokens.", rich_help_panel=_PRICES),
]
OutputPer1m = Annotated[
    float | None,
    typer.Option("--output-per-1m", metavar="USD", help="Per million output tokens.", rich_help_panel=_PRICES),
]
CachedInputPer1m = Annotated[
    float | None,
    typer.Option(
        "--cached-input-per-1m", metavar="USD", help="Per million input tokens that the provider has in its cache.",
        rich_help_panel=_PRICES,
    ),
]  # fmt: skip
CostPerRequest = Annotated[
    float | None, typer.Option("--cost-per-request", metavar="USD", help="Per request.", rich_help_panel=_PRICES)
]
CostPerCall = Annotated[
    float | None,
    typer.Option("--cost-per-call", metavar="USD", help="Per call, on top of a request's.", rich_help_panel=_PRICES),
]
CostPerToken = Annotated[
    float | None,
    typer.Option("--cost-per-token", metavar="USD", help="Per token, input and output alike.", rich_help_panel=_PRICES),
]
CostPer1kTokens = Annotated[
    float | None,
    typer.Option(
        "--cost-per-1k-tokens", metavar="USD", help="Per thousand tokens, input and output alike.",
        rich_help_panel=_PRICES,
    ),
]  # fmt: skip
CostPerSecond = Annotated[
    float | None,
    typer.Option("--cost-per-second", metavar="USD", help="Per second it takes.", rich_help_panel=_PRICES),
]
MonthlyFixedCost = Annotated[
    float | None,
    typer.Option(
        "--monthly-fixed-cost", metavar="USD", help="Per month, whatever it does; alone, a request is free.",
        rich_help_panel=_PRICES,
    ),
]  # fmt: skip
InputCostPerToken = Annotated[
    float | None,
    typer.Option("--input-cost-per-token", metavar="USD", help="Per input token.", rich_help_panel=_PRICES),
]
OutputCostPerToken = Annotated[
    float | None,
    typer.Option("--output-cost-per-token", metavar="USD", help="Per output token.", rich_help_panel=_PRICES),
]
CachedInputCostPerToken = Annotated[
    float | None,
    typer.Option(
        "--cached-input-cost-per-token", metavar="USD", help="Per input token from the cache.", rich_help_panel=_PRICES
    ),
]

_WHOSE = "Whose request it is (for reports and budgets)"

Key = Annotated[
    str | None,
    typer.Option("--key", metavar="NAME", help="Who asks: a key's name, a user, a team.", rich_help_panel=_WHOSE),
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="NAME", help="Count it under this; may be repeated.", rich_help_panel=_WHOSE),
]
Task = Annotated[
    str | None, typer.Option("--task", metavar="NAME", help="What kind of request it is.", rich_help_panel=_WHOSE)
]
RouteName = Annotated[
    str | None,
    typer.Option("--route-name", metavar="NAME", help="The route that brought it.", rich_help_panel=_WHOSE),
]


def examples(*lines: str) -> str:
    """The end of a command's help: commands to try, one per line; a line that starts with # explains the next."""
    shown = "\n".join(f"[dim]{line}[/dim]" if line.startswith("#") else f"$ {line}" for line in lines)
    return f"[bold]Examples[/bold]\n{shown}"
