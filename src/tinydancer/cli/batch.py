"""``tinydancer route --batch``: many requests, one answer each.

In: lines of text, or JSON lines with the key "request". Out: one JSON object per request, or a table. A request that
no agent fits is answered with the reasons and does not stop the others; a line that is no request stops everything
before anything is routed.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from tinydancer.cli import exit_codes, output
from tinydancer.cli.inputs import parse_json
from tinydancer.errors import InvalidInputError, InvalidTextError, NoMatchError, TinyDancerError
from tinydancer.policy.wording import plural, usd

if TYPE_CHECKING:
    from tinydancer.decide import Decision
    from tinydancer.service import TinyDancer

_AT_ONCE = 256
_SHOWN_CHARS = 60


class _Line(NamedTuple):
    number: int
    request: str


class _Answer(NamedTuple):
    line: _Line
    decision: Decision | None
    error: NoMatchError | None


def route_lines(
    dancer: TinyDancer, source: str, objective: str, limits: Mapping[str, Any], *, as_json: bool, quiet: bool
) -> None:
    """Route every line of `source` and print the answers in its order; exit code 5 if some request fits no agent."""
    from tinydancer.types import Constraints

    Constraints(on_no_match=limits["on_no_match"])  # the service is only ever asked with "null" below
    lines = _checked(_lines(source), dancer.settings.max_request_chars)
    rows: list[tuple[str, ...]] = []
    chosen: Counter[str] = Counter()
    cost_usd = 0.0
    # JSON lines on a terminal and a bar on the same terminal would run into each other.
    bar_is_welcome = not quiet and not (as_json and sys.stdout.isatty())
    with output.progress(len(lines), "routing", quiet=not bar_is_welcome) as advance:
        for answer in _answers(dancer, lines, objective, dict(limits)):
            if as_json:
                typer.echo(output.json_text(_fields(answer), sys.stdout))
            else:
                rows.append(_row(answer))
            if answer.decision is not None:
                chosen[answer.decision.agent_name] += 1
                cost_usd += answer.decision.estimated_cost or 0.0
            advance(1)
    if not as_json:
        output.write_table(
            ("line", "agent", "cost", "latency", "quality", "request"), rows,
            numbers=("line", "cost", "latency", "quality"),
        )  # fmt: skip
    if not quiet:
        by_agent = ", ".join(f"{output.printable(name)} {count:,}" for name, count in chosen.most_common())
        typer.echo(f"{plural(len(lines), 'request')}, about {usd(cost_usd)}: {by_agent or 'no agent fits'}", err=True)
    if chosen.total() < len(lines) and limits.get("on_no_match") != "null":
        raise typer.Exit(exit_codes.NO_AGENT)


def _lines(source: str) -> Iterator[_Line]:
    """The requests with the numbers of their lines; blank lines are skipped."""
    texts = [(number, text.strip()) for number, text in enumerate(source.split("\n"), start=1) if text.strip()]
    if not texts:
        raise InvalidTextError("The batch is empty; expected one request per line.")
    if not _is_json_line(texts[0][1]):
        yield from (_Line(number, text) for number, text in texts)
        return
    for number, text in texts:
        record = parse_json(text, f"Line {number}")
        if not isinstance(record, dict) or not isinstance(record.get("request"), str):
            raise InvalidInputError(
                f"Line {number} has no text under the key 'request'; expected one, as on the first line.",
                hint='A line looks like this: {"request": "Translate this letter."}',
            )
        yield _Line(number, record["request"])


def _is_json_line(text: str) -> bool:
    try:
        record = json.loads(text)
    except ValueError:
        return False
    return isinstance(record, dict) and "request" in record


def _checked(lines: Iterator[_Line], max_chars: int) -> list[_Line]:
    from tinydancer.validation import request_text

    checked = []
    for line in lines:
        try:
            checked.append(_Line(line.number, request_text(line.request, max_chars=max_chars)))
        except TinyDancerError as error:
            raise type(error)(f"Line {line.number}: {error.message}", hint=error.hint) from None
    return checked


def _answers(dancer: TinyDancer, lines: list[_Line], objective: str, limits: dict[str, Any]) -> Iterator[_Answer]:
    on_no_match = limits.pop("on_no_match")
    for start in range(0, len(lines), _AT_ONCE):
        some = lines[start : start + _AT_ONCE]
        decisions = dancer.route_batch([line.request for line in some], objective, on_no_match="null", **limits)
        for line, decision in zip(some, decisions, strict=True):
            error = None
            if decision is None and on_no_match == "error":
                error = _reasons(dancer, line.request, objective, limits)
            yield _Answer(line, decision, error)


def _reasons(dancer: TinyDancer, request: str, objective: str, limits: dict[str, Any]) -> NoMatchError | None:
    try:
        dancer.route(request, objective, **limits)
    except NoMatchError as error:
        return error
    return None  # an agent that fits was registered meanwhile; the next run will find it


def _fields(answer: _Answer) -> dict[str, Any]:
    if answer.decision is not None:
        return {"line": answer.line.number, **answer.decision.to_dict()}
    error = {} if answer.error is None else {"error": answer.error.to_dict()}
    return {"line": answer.line.number, "agent_name": None, **error}


def _row(answer: _Answer) -> tuple[str, ...]:
    text = " ".join(answer.line.request.split())
    text = text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."
    number, decision = str(answer.line.number), answer.decision
    if decision is None:
        return number, "no agent fits", "", "", "", text
    return (
        number, decision.agent_name, output.money(decision.estimated_cost),
        output.duration(decision.estimated_latency_ms), f"{decision.expected_quality:.2f}", text,
    )  # fmt: skip
