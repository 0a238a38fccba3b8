"""The two tables that training and evaluation read: requests, and how well each agent answered them.

In: ``requests.csv[.gz]`` (``request_id, task, request``; the task may be missing) and ``outcomes.csv[.gz]``
(``request_id, agent, quality, cost_usd``; the cost may be missing or empty). Out: an `OutcomeTable` with one row per
request and one column per agent. What cannot be used is an error that names file, line and remedy; what can be used
but may mislead is a sentence in `OutcomeTable.warnings`.

Both files are read as streams, row by row; what stays in memory are the texts and eight bytes per cell.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError, InvalidTextError, NotFoundError, TinyDancerError

__all__ = ["MAX_CELLS", "OutcomeTable", "read_requests", "read_tables", "size_of_tables", "write_tables"]

FloatMatrix = npt.NDArray[np.float32]
Progress = Callable[[int], None]

MAX_CELLS = 100_000_000
"""Most cells, requests times agents, that a table may have: 800 MB with costs."""
FEW_OUTCOMES = 10
"""An agent with fewer outcomes is named in the warnings."""
_NAMED = 5
_REPORT_EVERY_ROWS = 2_000
_GZIP_MAGIC = b"\x1f\x8b"
_NAN = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeTable:
    """Requests and what each agent's answer to them was worth.

    Attributes
    ----------
    request_ids
        n distinct ids.
    tasks
        The kind of each request, ``""`` where none is given; None if the file has no such column.
    texts
        The n requests.
    agents
        N names, sorted.
    quality
        ``float32[n, N]`` in [0, 1]; NaN where the agent did not answer. No row is all NaN.
    cost_usd
        ``float32[n, N]`` in USD, at least 0; NaN where unknown.
    warnings
        Sentences on what may mislead.
    """

    request_ids: tuple[str, ...]
    tasks: tuple[str, ...] | None
    texts: tuple[str, ...]
    agents: tuple[str, ...]
    quality: FloatMatrix
    cost_usd: FloatMatrix
    warnings: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.request_ids)

    def rows(self, index: npt.ArrayLike) -> OutcomeTable:
        """The requests at `index` (positions, or a mask of length n), in that order; agents and warnings stay.

        An agent without an outcome in these rows keeps its column, of NaN.
        """
        chosen = np.asarray(index)
        chosen = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
        positions = chosen.tolist()
        return replace(
            self,
            request_ids=tuple(self.request_ids[i] for i in positions),
            tasks=None if self.tasks is None else tuple(self.tasks[i] for i in positions),
            texts=tuple(self.texts[i] for i in positions),
            quality=self.quality[chosen],
            cost_usd=self.cost_usd[chosen],
        )

    def with_agents(self, agents: Sequence[str]) -> OutcomeTable:
        """The same requests with these columns, in this order; an agent the table does not have gets NaN.

        Requests that none of them answered stay, as rows of NaN. Unlike those of `read_tables`, the agents are in
        the order given.
        """
        position = {name: column for column, name in enumerate(self.agents)}
        names = tuple(agents)
        if len(set(names)) != len(names):
            raise InvalidInputError("agents names one twice; expected distinct names.")
        quality = np.full((len(self), len(names)), np.nan, np.float32)
        cost_usd = quality.copy()
        for column, name in enumerate(names):
            if name in position:
                quality[:, column] = self.quality[:, position[name]]
                cost_usd[:, column] = self.cost_usd[:, position[name]]
        return replace(self, agents=names, quality=quality, cost_usd=cost_usd)


class Requests(NamedTuple):
    """What a file of requests holds, in its order."""

    ids: list[str]
    tasks: list[str] | None
    texts: list[str]


def read_tables(
    requests_path: str | Path,
    outcomes_path: str | Path,
    *,
    max_chars: int = check.MAX_REQUEST_CHARS,
    progress: Progress | None = None,
) -> OutcomeTable:
    """Read and check both tables.

    Parameters
    ----------
    requests_path, outcomes_path
        UTF-8 CSV with a header, plain or gzip (told apart by content). Columns in any order; others are ignored.
    max_chars
        Longest request, in characters.
    progress
        Called with the number of bytes of the files read since the last call; `size_of_tables` has their sum.

    Raises
    ------
    NotFoundError
        A file does not exist.
    InvalidInputError
        A file is empty, truncated, no UTF-8, no CSV or without a column; a request is blank or comes twice; an
        outcome is of an unknown request, comes twice, or has a quality that is no number in [0, 1], a negative cost,
        or no agent; there are more than `MAX_CELLS` cells. The message names file and line.
    """
    requests = read_requests(requests_path, max_chars=max_chars, progress=progress)
    columns = _read_outcomes(Path(outcomes_path), requests.ids, Path(requests_path), progress)
    agents = tuple(sorted(columns.quality))
    answered = np.zeros(len(requests.ids), np.bool_)
    for values in columns.quality.values():
        answered |= ~np.isnan(np.frombuffer(values, np.float32))
    kept = np.flatnonzero(answered)
    quality = _stacked(columns.quality, agents, kept)
    cost_usd = _stacked(columns.cost_usd, agents, kept) if columns.cost_usd else _all_unknown(quality.shape)
    everything = len(kept) == len(requests.ids)
    warnings = _warnings_on_requests(requests, answered)
    ids, tasks, texts = (
        values if everything or values is None else [values[i] for i in kept.tolist()] for values in requests
    )
    assert ids is not None
    assert texts is not None
    return OutcomeTable(
        request_ids=tuple(ids),
        tasks=None if tasks is None else tuple(tasks),
        texts=tuple(texts),
        agents=agents,
        quality=quality,
        cost_usd=cost_usd,
        warnings=(*warnings, *_warnings_on_outcomes(agents, quality, cost_usd)),
    )


def size_of_tables(*paths: str | Path) -> int:
    """Bytes of the files together, as `read_tables` reports its progress; a file that does not exist counts 0."""
    return sum(Path(path).stat().st_size for path in paths if Path(path).exists())


def read_requests(
    path: str | Path, *, max_chars: int = check.MAX_REQUEST_CHARS, progress: Progress | None = None
) -> Requests:
    """Read the table of requests alone; parameters and errors as those of `read_tables`."""
    file = Path(path)
    ids: list[str] = []
    texts: list[str] = []
    tasks: list[str] | None = None
    seen: set[str] = set()
    with _rows(file, ("request_id", "request"), ("task",), progress) as (rows, has):
        if has["task"]:
            tasks = []
        for line, (request_id, text, task) in rows:
            if not request_id.strip():
                raise _bad(
                    file, line, "the request_id is empty; expected a text that names the request.",
                    hint="Number the requests, for example.",
                )  # fmt: skip
            if request_id in seen:
                raise _bad(
                    file, line, f"request_id {check.shown(request_id)} comes twice; expected each request once.",
                    hint="Remove one of the rows, or give it an id of its own.",
                )  # fmt: skip
            try:
                check.request_text(text, max_chars=max_chars)
            except InvalidTextError as error:
                raise InvalidTextError(f"{_at(file, line)}: {error.message}", hint=error.hint) from None
            seen.add(request_id)
            ids.append(request_id)
            texts.append(text)
            if tasks is not None:
                tasks.append(sys.intern(task))
    if not ids:
        raise InvalidInputError(
            f"{file} has a header and no rows; expected at least one request.", hint="Check what wrote the file."
        )
    return Requests(ids, tasks, texts)


def write_tables(table: OutcomeTable, requests_path: str | Path, outcomes_path: str | Path) -> None:
    """Write a table as the two files that `read_tables` reads; gzip where the name ends in ``.gz``.

    The same table gives the same bytes.
    """
    with _writer(Path(requests_path)) as write:
        write.writerow(("request_id", "task", "request") if table.tasks is not None else ("request_id", "request"))
        for i, (request_id, text) in enumerate(zip(table.request_ids, table.texts, strict=True)):
            write.writerow((request_id, text) if table.tasks is None else (request_id, table.tasks[i], text))
    with _writer(Path(outcomes_path)) as write:
        write.writerow(("request_id", "agent", "quality", "cost_usd"))
        for request_id, qualities, costs in zip(table.request_ids, table.quality, table.cost_usd, strict=True):
            for agent, quality, cost in zip(table.agents, qualities, costs, strict=True):
                if not np.isnan(quality):
                    # The shortest decimals that read back as the same float32.
                    write.writerow((request_id, agent, str(quality), "" if np.isnan(cost) else str(cost)))


# -- outcomes ------------------------------------------------------------------------------------------------------


class _Columns(NamedTuple):
    quality: dict[str, array[float]]
    cost_usd: dict[str, array[float]]


def _read_outcomes(file: Path, ids: Sequence[str], requests_file: Path, progress: Progress | None) -> _Columns:
    """One array of length n per agent that occurs; costs only of agents that have some."""
    position = {request_id: i for i, request_id in enumerate(ids)}
    unknown = array("f", [_NAN]) * len(ids)
    columns = _Columns({}, {})
    with _rows(file, ("request_id", "agent", "quality"), ("cost_usd",), progress) as (rows, _):
        for line, (request_id, agent, quality_text, cost_text) in rows:
            row = position.get(request_id)
            if row is None:
                raise _bad(
                    file, line, f"the request_id {check.shown(request_id)} is not in {requests_file}.",
                    hint="Add the request there, or remove its outcomes.",
                )  # fmt: skip
            column = columns.quality.get(agent)
            if column is None:
                column = columns.quality[_new_agent(file, line, agent, columns, len(ids))] = unknown[:]
            elif column[row] == column[row]:  # not NaN
                raise _bad(
                    file, line, f"the outcome of {check.shown(agent)} for {check.shown(request_id)} comes twice.",
                    hint="Keep one row per request and agent, for example the mean of repeated answers.",
                )  # fmt: skip
            column[row] = _quality(file, line, quality_text)
            if cost_text and not cost_text.isspace():
                cost = columns.cost_usd.get(agent)
                if cost is None:
                    cost = columns.cost_usd[agent] = unknown[:]
                cost[row] = _cost(file, line, cost_text)
    if not columns.quality:
        raise InvalidInputError(
            f"{file} has a header and no rows; expected at least one outcome.", hint="Check what wrote the file."
        )
    return columns


def _new_agent(file: Path, line: int, agent: str, columns: _Columns, n: int) -> str:
    try:
        name = check.name_of(agent, "agent")
    except TinyDancerError as error:
        raise type(error)(f"{_at(file, line)}: {error.message}", hint=error.hint) from None
    agents = len(columns.quality) + 1
    if agents * n > MAX_CELLS:
        raise _bad(
            file, line,
            f"this is agent number {agents:,} for {n:,} requests; expected at most {MAX_CELLS:,} pairs of both.",
            hint="Split the tables by agents, or leave out agents with few outcomes.",
        )  # fmt: skip
    return name


def _quality(file: Path, line: int, text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        quality = _NAN
    if not 0.0 <= quality <= 1.0:
        given = "empty" if not text.strip() else check.shown(text)
        raise _bad(
            file, line, f"quality is {given}; expected a number in [0, 1].",
            hint="Scale grades to [0, 1], 1 for correct; leave out the row where nobody judged the answer.",
        )  # fmt: skip
    return quality


def _cost(file: Path, line: int, text: str) -> float:
    try:
        cost = float(text)
    except ValueError:
        cost = _NAN
    if not 0.0 <= cost < float("inf"):
        raise _bad(
            file, line, f"cost_usd is {check.shown(text)}; expected a number of USD, at least 0.",
            hint="Leave the field empty where the cost is not known.",
        )  # fmt: skip
    return cost


def _stacked(columns: dict[str, array[float]], agents: Sequence[str], kept: npt.NDArray[np.int64]) -> FloatMatrix:
    """Columns as a matrix of the rows to keep; each column is let go as soon as it is copied."""
    matrix = np.full((len(kept), len(agents)), np.nan, np.float32)
    for number, name in enumerate(agents):
        if name in columns:
            matrix[:, number] = np.frombuffer(columns.pop(name), np.float32)[kept]
    return matrix


def _all_unknown(shape: tuple[int, ...]) -> FloatMatrix:
    """NaN of that shape that takes the room of one number."""
    return np.broadcast_to(np.float32(np.nan), shape)


# -- what may mislead ----------------------------------------------------------------------------------------------


def _warnings_on_requests(requests: Requests, answered: npt.NDArray[np.bool_]) -> list[str]:
    warnings = []
    missing = np.flatnonzero(~answered)
    if len(missing):
        names = _some([requests.ids[i] for i in missing[: _NAMED + 1].tolist()], len(missing))
        warnings.append(f"{_of(len(missing), len(answered))} requests have no outcome and are left out: {names}.")
    # 64-bit hashes instead of the texts: 8 MB per million, and two of a million agree once in 37 million files.
    hashes = np.fromiter(map(hash, requests.texts), np.int64, count=len(requests.texts))
    repeated = len(hashes) - len(np.unique(hashes))
    if repeated:
        warnings.append(
            f"{_of(repeated, len(hashes))} requests repeat the text of another; "
            "repeated texts are kept together wherever rows are split."
        )
    return warnings


def _warnings_on_outcomes(agents: Sequence[str], quality: FloatMatrix, cost_usd: FloatMatrix) -> list[str]:
    few, alike = [], []
    priced = outcomes = 0
    for column, name in enumerate(agents):
        known = ~np.isnan(quality[:, column])
        values = quality[known, column]
        outcomes += len(values)
        priced += int(np.count_nonzero(~np.isnan(cost_usd[known, column])))
        if len(values) < FEW_OUTCOMES:
            few.append(f"{name} ({len(values)})")
        elif values.min() == values.max():
            alike.append(f"{name} (all {values[0]:g})")
    warnings = []
    if few:
        names = _some(few, len(few))
        warnings.append(f"Agents with fewer than {FEW_OUTCOMES} outcomes, too few to learn much from: {names}.")
    if alike:
        names = _some(alike, len(alike))
        warnings.append(f"Agents whose outcomes are all alike, so that nothing tells requests apart: {names}.")
    if 0 < priced < outcomes:
        warnings.append(f"{_of(outcomes - priced, outcomes)} outcomes have no cost_usd.")
    return warnings


def _some(names: Sequence[str], total: int) -> str:
    shown = ", ".join(check.shown(name)[1:-1] for name in names[:_NAMED])
    return shown if total <= _NAMED else f"{shown} and {total - _NAMED:,} more"


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}"


# -- CSV, as a stream ----------------------------------------------------------------------------------------------

_Row = tuple[int, tuple[str, ...]]
_field_limit_lock = threading.Lock()


@contextmanager
def _rows(
    file: Path, required: Sequence[str], optional: Sequence[str], progress: Progress | None
) -> Iterator[tuple[Iterator[_Row], dict[str, bool]]]:
    """The rows of a file as (line, required and optional fields in that order), and which optional columns exist."""
    try:
        raw = file.open("rb")
    except FileNotFoundError:
        raise NotFoundError(f"The file {file} does not exist.", hint="Check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"The file {file} cannot be read: {reason}.") from None
    # The limit is one for the whole process, and its default is shorter than a request may be.
    with raw, _field_limit_lock:
        usual = csv.field_size_limit(sys.maxsize)
        try:
            is_gzip = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            plain: BinaryIO = gzip.GzipFile(fileobj=raw) if is_gzip else raw  # type: ignore[assignment]
            reader = csv.reader(io.TextIOWrapper(plain, "utf-8-sig", newline=""), strict=True)
            header = [name.strip() for name in next(_guarded(file, reader), (0, []))[1]]
            columns = _columns(file, header, required, optional)
            rows = _guarded(file, reader)
            yield _fields(file, rows, columns, len(header), raw, progress), {c: c in header for c in optional}
        finally:
            csv.field_size_limit(usual)


def _columns(file: Path, header: list[str], required: Sequence[str], optional: Sequence[str]) -> list[int | None]:
    if not any(header):
        raise InvalidInputError(
            f"{file} is empty; expected a header with {', '.join(required)}.", hint="Check what wrote the file."
        )
    missing = [name for name in required if name not in header]
    if missing:
        other = next((sign for sign in (";", "\t") if len(header) == 1 and sign in header[0]), None)
        hint = f"Fields are separated by commas, not by {other!r}." if other else "Rename or add the column."
        given = check.shown(", ".join(header), 200)
        raise InvalidInputError(f"{file} has no column {missing[0]!r}; its header is {given}.", hint=hint)
    twice = next((name for name in (*required, *optional) if header.count(name) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"{file} has two columns {twice!r}; expected one.", hint="Rename or remove one.")
    return [header.index(name) if name in header else None for name in (*required, *optional)]


def _guarded(file: Path, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line it begins on; whatever breaks on the way is an error that says where."""
    while True:
        line = reader.line_num + 1  # type: ignore[attr-defined]
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _bad(
                file, line, f"this is no CSV: {error}.",
                hint="Put fields with commas, quotes or line breaks into double quotes, and double the quotes inside.",
            ) from None  # fmt: skip
        except UnicodeDecodeError:
            raise _not_utf8(file) from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InvalidInputError(
                f"{file} is truncated or damaged after line {line - 1:,}: {error}.".replace("..", "."),
                hint="Copy or compress the file again.",
            ) from None
        yield line, row


def _fields(
    file: Path,
    rows: Iterator[tuple[int, list[str]]],
    columns: list[int | None],
    width: int,
    raw: BinaryIO,
    progress: Progress | None,
) -> Iterator[_Row]:
    told = 0
    for number, (line, row) in enumerate(rows):
        if not row:  # an empty line
            continue
        if len(row) != width:
            raise _bad(
                file, line, f"the row has {len(row)} fields; the header has {width}.",
                hint="Put fields with commas or line breaks into double quotes.",
            )  # fmt: skip
        yield line, tuple("" if column is None else row[column] for column in columns)
        if progress is not None and number % _REPORT_EVERY_ROWS == 0:
            progress(raw.tell() - told)
            told = raw.tell()
    if progress is not None:
        progress(raw.tell() - told)


def _not_utf8(file: Path) -> InvalidTextError:
    """The decoder reads ahead and knows no lines; a second look finds the line."""
    with file.open("rb") as raw:
        is_gzip = raw.read(2) == _GZIP_MAGIC
    with gzip.open(file) if is_gzip else file.open("rb") as plain:
        for number, line in enumerate(plain, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return InvalidTextError(
                    f"{_at(file, number)}: not UTF-8: byte 0x{line[error.start]:02x} at position {error.start:,}.",
                    hint="Convert the file first, for example with: iconv -f LATIN1 -t UTF-8",
                )
    return InvalidTextError(f"{file} is not UTF-8.")


def _at(file: Path, line: int) -> str:
    return f"{file}, line {line:,}"


def _bad(file: Path, line: int, what: str, *, hint: str) -> InvalidInputError:
    return InvalidInputError(f"{_at(file, line)}: {what}", hint=hint)


class _Writer(NamedTuple):
    writerow: Callable[[Sequence[str]], object]


@contextmanager
def _writer(file: Path) -> Iterator[_Writer]:
    with file.open("wb") as raw:
        # No name and no time of day in the gzip header: equal tables are equal files.
        packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) if file.name.endswith(".gz") else None
        with io.TextIOWrapper(packed or raw, "utf-8", newline="") as text:
            yield _Writer(csv.writer(text, lineterminator="\n").writerow)
