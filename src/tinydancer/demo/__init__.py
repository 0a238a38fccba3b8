"""The demonstration's data and its arithmetic: agents with list prices, requests, and what routing them costs.

In: the two JSON files beside this module, and per request the choices that were made. Out: requests as nouns, totals
per objective, who gets the hard requests and who the easy ones, and the comparison with sending everything to the best
agent. Pure but for reading those two files; the routing and the printing are the command's (``tinydancer.cli.demo``),
the HTML page is ``tinydancer.demo.page``'s.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

LLM_TYPES = ("llm", "multimodal")
"""Kinds of agents among which the best one, the baseline, is looked for."""
LOOSER = 0.7
"""A smaller share of the best expected quality than the requests ask for, and the default, to show what that saves."""
PARTS = ("the hardest third", "the middle third", "the easiest third")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoAgents:
    """The agents as they are registered, and what to say about their figures.

    Attributes
    ----------
    configs
        One object per agent, fit for ``TinyDancer.register_agent_full``.
    short_names
        Name to at most ten characters, for tables.
    prices, stated
        Where the prices are from, and what the latencies and qualities are.
    """

    configs: tuple[dict[str, Any], ...]
    short_names: Mapping[str, str]
    prices: str
    stated: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRequest:
    """One request of the mix.

    Attributes
    ----------
    number
        From 1.
    text
        As it is routed.
    constraints
        Names and values as ``TinyDancer.route`` takes them.
    output_tokens
        Length of the answer where the request tells; None leaves it to the agents.
    explain
        The objective under which the command explains this request; None: it does not.
    """

    number: int
    category: str
    text: str
    constraints: Mapping[str, Any]
    output_tokens: float | None = None
    explain: str | None = None

    def shortened(self, width: int) -> str:
        """The text on one line of at most `width` characters."""
        line = " ".join(self.text[: 4 * width].split())
        return line if len(line) <= width else line[: width - 1].rstrip() + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One request at one agent: what it is expected to cost, take and be worth. USD, milliseconds, [0, 1]."""

    agent: str
    cost_usd: float
    latency_ms: float
    quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a way of routing comes to over n requests.

    Attributes
    ----------
    label
        The objective, or the name of the agent that gets everything.
    cost_usd
        Sum over the requests.
    mean_quality, mean_latency_ms
        Means over the requests.
    agents
        How many requests each agent got, the busiest first.
    late
        How many requests would be answered after their time limit.
    saved_usd_per_1000, saved_share
        Against the baseline: USD per 1,000 requests of this mix, and as a share of the baseline's cost. Negative
        where it costs more.
    """

    label: str
    requests: int
    cost_usd: float
    mean_quality: float
    mean_latency_ms: float
    agents: Mapping[str, int]
    late: int = 0
    saved_usd_per_1000: float = 0.0
    saved_share: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {**values, "agents": dict(self.agents)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Requests about as hard as each other, and who gets them under objective ``cost``.

    Attributes
    ----------
    expected_quality
        Mean over the requests and over all language models: what makes them hard or easy.
    way
        `Totals` over these requests, with what they save against sending them to the best agent.
    """

    expected_quality: float
    way: Totals

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {"expected_quality_of_all_models": self.expected_quality, **self.way.to_dict()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything the demonstration found.

    Attributes
    ----------
    agents, requests
        What was routed to and what was routed.
    decisions
        Objective to one decision per request: the fields of ``Decision.to_dict`` without the id.
    best
        The baseline's name.
    positions
        Positions of the requests that the baseline has the skills for: the ones that are compared.
    objectives
        `Totals` per objective over those, with what they save.
    looser
        `Totals` of objective ``cost`` with `LOOSER` as the share of the best quality that is good enough.
    parts
        The compared requests that every language model could serve, the hardest first, in `PARTS`.
    singles
        `Totals` of every agent that could serve all of those by itself; the baseline comes first.
    median_us
        Median time from text to recorded decision, in microseconds: the one figure that differs from run to run.
    """

    agents: DemoAgents
    requests: tuple[DemoRequest, ...]
    decisions: Mapping[str, Sequence[Mapping[str, Any]]]
    best: str
    positions: tuple[int, ...]
    objectives: tuple[Totals, ...]
    looser: Totals
    parts: tuple[Part, ...]
    singles: tuple[Totals, ...]
    median_us: float

    @property
    def monthly_fixed_usd(self) -> dict[str, float]:
        """Rents that are paid whether or not a request comes, and stand in no total."""
        rents = {c["name"]: c.get("monthly_fixed_cost") for c in self.agents.configs}
        return {name: float(rent) for name, rent in rents.items() if rent is not None}

    @property
    def model(self) -> str:
        """The weights that predicted the language models' quality, as decisions name them."""
        rows = (row for decided in self.decisions.values() for row in decided)
        return next(str(row["model"]) for row in rows if row["model"] is not None)

    @property
    def basis(self) -> str:
        """What expected quality rests on, and what it does not."""
        return (
            f"Predicted: how well each language model will answer each request, by the model {self.model}. It learned "
            "from exam questions, school mathematics and programming answered by other, older models, and knows of "
            "these no more than the stated quality they start from: it tells hard requests from easy ones. No answer "
            "was made or judged here."
        )

    @property
    def good_enough(self) -> float:
        """The share of the best expected quality that the requests ask for."""
        return float(self.requests[0].constraints["good_enough"])

    def elsewhere(self) -> dict[str, int]:
        """Agents of the requests that are not compared, with how many each gets; the same under each objective."""
        rows = next(iter(self.decisions.values()))
        left = (row["agent_name"] for i, row in enumerate(rows) if i not in self.positions)
        return dict(sorted(Counter(left).items()))

    def to_dict(self) -> dict[str, Any]:
        """The whole report as one JSON document."""
        return {
            "agents": [dict(config) for config in self.agents.configs],
            "prices": self.agents.prices,
            "stated": self.agents.stated,
            "best_agent": self.best,
            "requests": [
                {
                    "number": r.number, "category": r.category, "text": r.text, "constraints": dict(r.constraints),
                    "output_tokens": r.output_tokens, "is_compared": i in self.positions,
                    "decisions": {objective: rows[i] for objective, rows in self.decisions.items()},
                }
                for i, r in enumerate(self.requests)
            ],
            "compared_requests": len(self.positions),
            "objectives": [t.to_dict() for t in self.objectives],
            "cost_if_looser": self.looser.to_dict(),
            "by_difficulty": [part.to_dict() for part in self.parts],
            "model": self.model,
            "one_agent_for_everything": [t.to_dict() for t in self.singles],
            "monthly_fixed_usd_not_in_totals": self.monthly_fixed_usd,
            "median_text_to_decision_us": self.median_us,
        }  # fmt: skip


def report(
    agents: DemoAgents,
    requests: Sequence[DemoRequest],
    decisions: Mapping[str, Sequence[Mapping[str, Any]]],
    looser: Sequence[Choice],
    options: Sequence[Mapping[str, Choice]],
    median_us: float,
) -> Report:
    """Add up what was decided.

    Parameters
    ----------
    decisions
        Objective to one decision per request, as JSON-ready fields.
    looser
        One choice per request under objective ``cost`` with ``good_enough`` at `LOOSER`.
    options
        Per request what each agent with the skills for it would offer, time limits left aside.
    """
    best = best_agent(agents.configs)
    positions = covered(options, best)
    limits = [requests[i].constraints.get("max_latency_ms") for i in positions]
    others = sorted(set.intersection(*(set(options[i]) for i in positions)) - {best})
    ways = {name: [options[i][name] for i in positions] for name in (best, *others)}
    baseline = totals(best, ways[best], limits)
    return Report(
        agents=agents, requests=tuple(requests), decisions=decisions, best=best, positions=positions,
        objectives=tuple(
            compared(totals(objective, [choice_of(rows[i]) for i in positions], limits), baseline)
            for objective, rows in decisions.items()
        ),
        looser=compared(totals(f"cost, good_enough {LOOSER:g}", [looser[i] for i in positions], limits), baseline),
        parts=by_difficulty(agents.configs, requests, positions, decisions["cost"], options, best),
        singles=tuple(compared(totals(name, ways[name], limits), baseline) for name in (best, *others)),
        median_us=median_us,
    )  # fmt: skip


def by_difficulty(
    configs: Sequence[Mapping[str, Any]],
    requests: Sequence[DemoRequest],
    positions: Sequence[int],
    decisions: Sequence[Mapping[str, Any]],
    options: Sequence[Mapping[str, Choice]],
    best: str,
) -> tuple[Part, ...]:
    """The requests at `positions` in three parts, by the quality expected of all language models together.

    Only those that each of these models has the skills for, so that the mean is over the same agents. ``decisions[i]``
    says who gets request i.
    """
    models = [config["name"] for config in configs if config["agent_type"] in LLM_TYPES]
    eases = {
        i: math.fsum(options[i][name].quality for name in models) / len(models)
        for i in positions
        if all(name in options[i] for name in models)
    }
    order = sorted(eases, key=lambda i: (eases[i], i))
    parts = []
    for number, label in enumerate(PARTS):
        own = order[len(order) * number // len(PARTS) : len(order) * (number + 1) // len(PARTS)]
        limits = [requests[i].constraints.get("max_latency_ms") for i in own]
        way = totals(label, [choice_of(decisions[i]) for i in own], limits)
        baseline = totals(best, [options[i][best] for i in own], limits)
        parts.append(Part(expected_quality=math.fsum(eases[i] for i in own) / len(own), way=compared(way, baseline)))
    return tuple(parts)


def choice_of(fields: Mapping[str, Any]) -> Choice:
    """A `Choice` from the fields of a decision or of an alternative; what is unknown becomes NaN."""
    cost, latency = fields["estimated_cost"], fields["estimated_latency_ms"]
    return Choice(
        agent=fields["agent_name"],
        cost_usd=math.nan if cost is None else cost,
        latency_ms=math.nan if latency is None else latency,
        quality=fields["expected_quality"],
    )


def load_agents() -> DemoAgents:
    """The agents of ``agents.json``."""
    data = _read("agents.json")
    configs = tuple({k: v for k, v in agent.items() if k != "short"} for agent in data["agents"])
    short = {agent["name"]: agent["short"] for agent in data["agents"]}
    return DemoAgents(configs=configs, short_names=short, prices=data["prices"], stated=data["stated"])


def load_requests() -> tuple[DemoRequest, ...]:
    """The requests of ``requests.json``, defaults filled in and the long one put together."""
    data = _read("requests.json")
    return tuple(_request(number, row, data["defaults"]) for number, row in enumerate(data["requests"], start=1))


def best_agent(configs: Sequence[Mapping[str, Any]]) -> str:
    """The baseline: the language model with the highest stated quality, the first by name among equals."""
    models = [c for c in configs if c["agent_type"] in LLM_TYPES and c.get("quality_score") is not None]
    return str(min(models, key=lambda c: (-c["quality_score"], c["name"]))["name"])


def covered(options: Sequence[Mapping[str, Choice]], agent: str) -> tuple[int, ...]:
    """Positions of the requests that an agent has the skills for; ``options[i]`` maps agents to what they offer."""
    return tuple(i for i, offers in enumerate(options) if agent in offers)


def totals(label: str, choices: Sequence[Choice], limits_ms: Sequence[float | None]) -> Totals:
    """Sums and means over one choice per request; ``limits_ms`` are the requests' time limits, None without one.

    Raises
    ------
    ValueError
        No choices, or not as many limits.
    """
    if not choices:
        raise ValueError("No choices to add up; expected at least one.")
    pairs = zip(choices, limits_ms, strict=True)
    late = sum(limit is not None and choice.latency_ms > limit for choice, limit in pairs)
    counts = Counter(c.agent for c in choices)
    return Totals(
        label=label,
        requests=len(choices),
        cost_usd=math.fsum(c.cost_usd for c in choices),
        mean_quality=math.fsum(c.quality for c in choices) / len(choices),
        mean_latency_ms=math.fsum(c.latency_ms for c in choices) / len(choices),
        agents=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        late=late,
    )


def compared(way: Totals, baseline: Totals) -> Totals:
    """A way of routing with what it saves against the baseline, over the same requests."""
    if way.requests != baseline.requests:
        raise ValueError(f"{way.requests} requests against {baseline.requests}; expected the same ones.")
    saved = baseline.cost_usd - way.cost_usd
    values = {name: getattr(way, name) for name in Totals.__slots__}
    values["saved_usd_per_1000"] = saved / way.requests * 1000.0
    values["saved_share"] = saved / baseline.cost_usd if baseline.cost_usd else 0.0
    return Totals(**values)


def _read(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(files("tinydancer.demo").joinpath(name).read_text(encoding="utf-8"))
    return data


def _request(number: int, row: Mapping[str, Any], defaults: Mapping[str, Any]) -> DemoRequest:
    own = {key: row[key] for key in ("required_capabilities", "max_latency_ms") if key in row}
    merged = {key: value for key, value in {**defaults, **own}.items() if value is not None}
    return DemoRequest(
        number=number, category=row["category"], text=row["text"] if "text" in row else _long_text(row),
        constraints=merged, output_tokens=row.get("output_tokens"), explain=row.get("explain"),
    )  # fmt: skip


def _long_text(row: Mapping[str, Any]) -> str:
    """A document of numbered entries: the lines again and again, under the question."""
    lines = [line for _ in range(row["repeat"]) for line in row["lines"]]
    return "\n".join([row["opening"], "", *(f"{number}. {line}" for number, line in enumerate(lines, start=1))])
