"""What the traffic came to: cost, latency, success and quality of a time range by group, and savings.

In: a `TinyDancer` and what a door was given. Out: `Analytics`, whose rows every door shows. The store adds up what
happened (`Store.traffic`); what the sums mean is ``policy/analytics``'s business. An outcome counts when it occurred,
whenever it was reported.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tinydancer import validation as check
from tinydancer.errors import NotFoundError
from tinydancer.model_learning import USUAL_INPUT_TOKENS
from tinydancer.policy.analytics import (
    Baseline,
    Cell,
    Savings,
    Traffic,
    TrafficRow,
    TrafficSums,
    grouping_of,
    histogram_key,
    kind_of,
    row_of,
    saved,
)
from tinydancer.policy.time_ranges import begin_of, interval_of, periods_of
from tinydancer.policy.wording import plural
from tinydancer.service import TinyDancer

__all__ = ["Analytics", "Trend", "routing_analytics", "trend"]

DAYS_FROM_S = 3 * 86_400
"""A trend over less than this is one by the hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analytics:
    """The traffic of a time range by group.

    Attributes
    ----------
    rows
        One per group that has outcomes: days and hours in order of time, others in order of their requests.
    totals
        All of them together; its group is None.
    group_by, baseline, time_zone
        What was asked for.
    begin, end
        Seconds since 1970.
    note
        What is missing from the figures, and what to do about it; empty if nothing is.
    """

    rows: Sequence[TrafficRow]
    totals: TrafficRow
    group_by: str
    baseline: str | None
    time_zone: str
    begin: float
    end: float
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the rows as `row_dict` gives them."""
        return {
            "group_by": self.group_by, "baseline": self.baseline, "time_zone": self.time_zone, "begin": self.begin,
            "end": self.end, "note": self.note, "rows": [row_dict(row) for row in self.rows],
            "totals": row_dict(self.totals),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """How cost and requests went on, by day or by hour.

    Attributes
    ----------
    labels
        Of the periods, in order of time; those without outcomes are among them.
    cost_usd, requests
        Per agent, one number per period. Agents in order of what they cost, the dearest first.
    is_hourly
        Whether the periods are hours.
    """

    labels: Sequence[str]
    cost_usd: Mapping[str, Sequence[float]]
    requests: Mapping[str, Sequence[int]]
    is_hourly: bool


def routing_analytics(
    dancer: TinyDancer,
    time_range: str = "7 days",
    group_by: str = "agent",
    baseline: str | None = None,
    *,
    time_zone: str = "UTC",
) -> Analytics:
    """Add up the outcomes of a time range by group, and compare them with always using one agent.

    Parameters
    ----------
    dancer
        Whose store.
    time_range
        How far to look back, as PostgreSQL writes intervals: ``7 days``, ``24 hours``, ``1 mon``, ``1 day 02:00:00``,
        ``P7D``. Days and months go by the calendar of the time zone.
    group_by
        ``agent``, ``route``, ``tenant``, ``task``, ``day``, ``hour`` or ``objective``.
    baseline
        The agent to compare with; see `Savings`.
    time_zone
        Whose days and hours; a name of the IANA table.

    Raises
    ------
    InvalidInputError
        The time range, the grouping or the zone cannot be used.
    NotFoundError
        The baseline neither is registered nor has any outcome in the time range.
    """
    by = grouping_of(group_by)
    end = dancer._clock()
    begin = begin_of(interval_of(time_range), end, time_zone)
    periods = periods_of(begin, end, by if by in ("day", "hour") else None, time_zone)
    traffic = dancer.store.traffic(kind_of(by), histogram_key(by), begin, periods.starts)
    against = None if baseline is None else _baseline(dancer, check.name_of(baseline, "baseline"), traffic.cells)
    groups: dict[str | int, list[Cell]] = {}
    for cell in traffic.cells:
        groups.setdefault(_key(by, cell), []).append(cell)
    rows = [
        _row(_heading(by, key, periods.labels, dancer), cells, traffic.histograms.get(key, {}), against)
        for key, cells in sorted(groups.items(), key=lambda item: _order(*item))
    ]
    everything: Counter[int] = Counter()
    for histogram in traffic.histograms.values():
        everything.update(histogram)
    return Analytics(
        rows=rows, totals=_row(None, traffic.cells, everything, against), group_by=by, baseline=baseline,
        time_zone=time_zone, begin=begin, end=end, note=_note(traffic),
    )  # fmt: skip


def trend(dancer: TinyDancer, time_range: str = "7 days", *, time_zone: str = "UTC") -> Trend:
    """Cost and requests per agent, by day, or by hour where the range is short; see `routing_analytics`."""
    end = dancer._clock()
    begin = begin_of(interval_of(time_range), end, time_zone)
    is_hourly = end - begin < DAYS_FROM_S
    periods = periods_of(begin, end, "hour" if is_hourly else "day", time_zone)
    cost: dict[str, list[float]] = {}
    requests: dict[str, list[int]] = {}
    for cell in dancer.store.traffic("objective", "period", begin, periods.starts).cells:
        cost.setdefault(cell.agent, [0.0] * len(periods.labels))[cell.period] += cell.sums.total_usd
        requests.setdefault(cell.agent, [0] * len(periods.labels))[cell.period] += cell.sums.requests
    order = sorted(cost, key=lambda name: (-sum(cost[name]), -sum(requests[name]), name))
    return Trend(
        labels=periods.labels, cost_usd={name: cost[name] for name in order},
        requests={name: requests[name] for name in order}, is_hourly=is_hourly,
    )  # fmt: skip


def row_dict(row: TrafficRow) -> dict[str, Any]:
    """One row as an object of one level; ``agent`` is the group, as the documents call it."""
    found = {f.name: getattr(row, f.name) for f in fields(row) if f.name not in ("group", "savings")}
    savings = row.savings or _NO_SAVINGS
    against = {f"compared_{f.name}" if f.name == "requests" else f.name: getattr(savings, f.name) for f in _SAVINGS}
    if row.savings is None:
        against = dict.fromkeys(against)
    return {"agent": row.group, **found, **against}


_NO_SAVINGS = Savings(requests=0)
_SAVINGS = fields(Savings)


def _row(
    group: str | None, cells: Sequence[Cell], histogram: Mapping[int, int], baseline: Baseline | None
) -> TrafficRow:
    sums = TrafficSums()
    for cell in cells:
        sums = sums.plus(cell.sums)
    return row_of(group, sums, histogram, None if baseline is None else saved(cells, baseline))


def _key(by: str, cell: Cell) -> str | int:
    if by == "agent":
        return cell.agent
    return cell.value if histogram_key(by) == "value" else cell.period


def _heading(by: str, key: str | int, labels: Sequence[str], dancer: TinyDancer) -> str | None:
    if by == "tenant":
        return dancer.store.tenant
    if isinstance(key, int):
        return labels[key]
    return key or None


def _order(key: str | int, cells: Sequence[Cell]) -> tuple[int, str]:
    if isinstance(key, int):
        return key, ""
    return -sum(cell.sums.requests for cell in cells), key


def _baseline(dancer: TinyDancer, name: str, cells: Sequence[Cell]) -> Baseline:
    snapshot = dancer.snapshot()
    everyone, seen = TrafficSums(), TrafficSums()
    for cell in cells:
        everyone = everyone.plus(cell.sums)
        if cell.agent == name:
            seen = seen.plus(cell.sums)
    usual_input = everyone.input_sum / everyone.input_count if everyone.input_count else USUAL_INPUT_TOKENS
    if name not in snapshot.names:
        if seen.requests:
            return Baseline(name=name, seen=seen, input_tokens=usual_input)
        known = sorted({*snapshot.names, *(cell.agent for cell in cells)})
        near = difflib.get_close_matches(name, known, n=1)
        raise NotFoundError(
            f"The baseline {check.shown(name)} is not registered, and there is no outcome of it.",
            hint=f"Did you mean {near[0]!r}?" if near else "Name an agent, as tinydancer agents list shows them.",
        )
    j = snapshot.names.index(name)
    return Baseline(
        name=name, seen=seen, request_usd=float(snapshot.fixed_usd[j]), input_usd=float(snapshot.input_usd[j]),
        output_usd=float(snapshot.output_usd[j]), input_tokens=usual_input,
        output_tokens=float(snapshot.output_tokens[j]), quality=float(snapshot.quality[j]),
    )  # fmt: skip


def _note(traffic: Traffic) -> str:
    if not traffic.outside:
        return ""
    return (
        f"{plural(traffic.outside, 'outcome')} of the time before there were analytics can be missing here. Add "
        "them, as an administrator: SELECT tiny_dancer.rebuild_traffic(), or PostgresStore.rebuild_traffic() in Python."
    )
