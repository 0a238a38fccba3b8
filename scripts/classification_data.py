"""The labelled requests in ``evals/classification``: read, and the wordings with slots filled.

In: ``train.tsv``, ``test.tsv`` (each request written by itself) and ``templates.txt`` (wordings whose slots are filled
from a seed). Out: labelled requests, and a hash over what was read. ``evals/classification/README.md`` says what the
classes and capabilities are, and how the requests came about.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "evals" / "classification"
TRAIN, TEST, TEMPLATES = (FOLDER / name for name in ("train.tsv", "test.tsv", "templates.txt"))
HEADER = "class\tcapabilities\ttext"
FILLED_PER_CLASS = 95
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}
_PADDED_SLOTS = {"open": "{} ", "end": "{}"}


@dataclass(frozen=True, slots=True)
class LabelledRequest:
    """A request with its class, its capabilities, and what it stems from: itself, or a wording with slots."""

    text: str
    label: str
    capabilities: tuple[str, ...]
    source: str


def read_requests(path: Path) -> list[LabelledRequest]:
    r"""The requests of a TSV file; ``\n``, ``\t`` and ``\\`` in a text stand for newline, tab and backslash."""
    header, *lines = path.read_text("utf-8").splitlines()
    if header != HEADER:
        raise SystemExit(f"{path}: the first line is {header!r}; expected {HEADER!r}.")
    requests = []
    for number, line in enumerate(lines, start=2):
        fields = line.split("\t")
        if len(fields) != 3:
            raise SystemExit(f"{path}:{number}: {len(fields)} fields; expected class, capabilities, text.")
        label, capabilities, text = fields
        text = re.sub(r"\\[nt\\]", lambda match: _ESCAPES[match[0]], text)
        requests.append(LabelledRequest(text, label, _names(capabilities), text))
    return requests


def fill_templates(path: Path, per_class: int, seed: int) -> list[LabelledRequest]:
    """Distinct requests from the wordings of a file, each wording in turn, `per_class` of every class."""
    slots, wordings = _read_templates(path)
    rng = random.Random(seed)
    requests = []
    for label in dict.fromkeys(wording.label for wording in wordings):
        own = [wording for wording in wordings if wording.label == label]
        seen: set[str] = set()
        for turn in range(per_class * 20):
            wording = own[turn % len(own)]
            text = re.sub(r"\{(\w+)\}", lambda match: rng.choice(slots[match[1]]), wording.text).strip()
            if text not in seen:
                seen.add(text)
                requests.append(LabelledRequest(text, label, wording.capabilities, wording.source))
            if len(seen) == per_class:
                break
    return requests


def _read_templates(path: Path) -> tuple[dict[str, list[str]], list[LabelledRequest]]:
    slots: dict[str, list[str]] = {}
    wordings: list[LabelledRequest] = []
    label = ""
    shared: tuple[str, ...] = ()
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("$"):
            name, _, values = line[1:].partition(" = ")
            pattern = _PADDED_SLOTS.get(name, "{}")
            slots[name] = [pattern.format(value.strip()) if value.strip() else "" for value in values.split(";")]
        elif line.startswith("## "):
            label, _, names = line[3:].partition(" | ")
            label, shared = label.rstrip(" |"), _names(names)
        elif line and not line.startswith("#"):
            text, marked, names = line.partition(" @@")
            text = text.replace(r"\n", "\n")
            wordings.append(LabelledRequest(text, label, _names(names) if marked else shared, line))
    return slots, wordings


def data_sha256(*paths: Path) -> str:
    """One hash over the content of files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
