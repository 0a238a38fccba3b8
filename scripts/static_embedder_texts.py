"""Texts to fit the static embedder on, and which of them it must never see.

In: the folder of routing prompts, folders with general text, a seed. Out: lists of `Text`, each with a source and a
split: ``fit``, ``stop`` (early stopping) or ``test``. The split of a document hangs on a hash of its identity, so that
the builder and the evaluation agree on it without exchanging a file.

General text comes from what any Debian machine with Python has (package descriptions, manual pages, documentation,
docstrings) and from Debian packages unpacked below ``--texts-dir``: wordnet-base, fortunes, fortunes-min, dict-gcide,
dict-foldoc, dict-jargon, postgresql-doc-15, libreoffice-help-en-us, debian-handbook.
"""

from __future__ import annotations

import ast
import csv
import gzip
import hashlib
import html
import json
import random
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

MMLU_TASKS_NEVER_FITTED = frozenset(
    {
        "astronomy", "college_chemistry", "global_facts", "high_school_us_history", "jurisprudence",
        "logical_fallacies", "machine_learning", "marketing", "nutrition", "virology",
    }
)  # fmt: skip
SHINGLE_WORDS = 9
COMMON_SHINGLE = 6
"""A run of words in more prompts than this is boilerplate (instructions, worked examples), not a repeated question."""


class Text(NamedTuple):
    """One text, where it comes from, and whether it may be fitted on."""

    source: str
    split: str
    text: str


def percent(identity: str) -> int:
    """A stable number in [0, 100) from an identity."""
    return int.from_bytes(hashlib.sha256(identity.encode("utf-8", "replace")).digest()[:4], "big") % 100


def split_of_document(identity: str) -> str:
    """``test`` for 3 documents of 100, ``stop`` for 2, ``fit`` for the others."""
    bucket = percent(identity)
    return "test" if bucket < 3 else "stop" if bucket < 5 else "fit"


# Routing prompts


class Prompt(NamedTuple):
    """One routing prompt as it was asked."""

    folder: str
    task: str
    text: str


def read_prompts(data: Path) -> list[Prompt]:
    """All prompts below `data`, the list brackets that one source wraps them in removed."""
    csv.field_size_limit(10**9)
    prompts = []
    for path in sorted(data.glob("*/requests.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                text = row["request"]
                if text[:2] in ("['", '["') and text[-2:] in ("']", '"]'):
                    text = str(ast.literal_eval(text)[0])
                prompts.append(Prompt(path.parent.name, row["task"], text))
    if not prompts:
        raise SystemExit(f"No */requests.csv.gz below {data}; give the folder of routing data with --data.")
    return prompts


def prompt_splits(prompts: list[Prompt]) -> list[str]:
    """The split of each prompt: ``test-task``, ``test``, ``stop``, ``fit`` or ``unused``.

    Whole MMLU tasks are ``test-task``. MMLU prompts whose task is not named may belong to one of them, and prompts that
    share a question with a held-out prompt would give it away: both are ``unused``.
    """
    splits = []
    for prompt in prompts:
        bucket = percent(prompt.text)
        if prompt.task in MMLU_TASKS_NEVER_FITTED:
            splits.append("test-task")
        elif prompt.task == "mmlu":
            splits.append("unused")
        else:
            splits.append("test" if bucket < 12 else "stop" if bucket < 16 else "fit")
    shingles = [_shingles(p.text) for p in prompts]
    common = Counter(s for one in shingles for s in one)
    held_out = {s for one, split in zip(shingles, splits, strict=True) if split not in ("fit", "unused") for s in one}
    for i, one in enumerate(shingles):
        if splits[i] == "fit" and any(s in held_out and common[s] <= COMMON_SHINGLE for s in one):
            splits[i] = "unused"
    return splits


def _shingles(text: str) -> set[int]:
    words = re.findall(r"\w+", text.lower())
    if len(words) <= SHINGLE_WORDS:
        return {hash(tuple(words))}
    return {hash(tuple(words[i : i + SHINGLE_WORDS])) for i in range(len(words) - SHINGLE_WORDS + 1)}


def shuffled(paths: Iterable[Path]) -> list[Path]:
    """Paths in an order that hangs on their names only: a reader who stops early has seen some of everything."""
    return sorted(paths, key=lambda path: hashlib.sha256(path.name.encode("utf-8", "replace")).digest())


# General text, one generator of (document identity, text) per kind of source


def package_descriptions() -> Iterator[tuple[str, str]]:
    """Short and long descriptions of Debian packages, and package names with their tags."""
    listing = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=False).stdout.decode(
        "utf-8", "replace"
    )
    yield from _stanzas(listing)
    for path in sorted(Path("/var/lib/apt/lists").glob("*Translation-en*")):
        if path.suffix in (".lz4", ".xz", ".bz2"):
            continue
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from _stanzas(file.read().decode("utf-8", "replace"))


def _stanzas(listing: str) -> Iterator[tuple[str, str]]:
    for stanza in listing.split("\n\n"):
        name = re.search(r"^Package: (\S+)", stanza, re.M)
        description = re.search(r"^Description(?:-en)?: (.*(?:\n .*)*)", stanza, re.M)
        if name and description:
            short, _, long = description[1].partition("\n")
            stem = re.sub(r"[-.\d].*", "", name[1].removeprefix("lib")) or name[1]
            yield stem, short
            for paragraph in re.split(r"\n \.\n", long):
                yield stem, paragraph


def manual_pages() -> Iterator[tuple[str, str]]:
    """Paragraphs of the English manual pages, roff requests and escapes taken out."""
    for path in shuffled(Path("/usr/share/man").glob("man[1-8]/*.gz")):
        try:
            with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
                source = file.read(60_000)
        except OSError:
            continue
        plain = re.sub(r"^[.'](?:TP|PP|SH|IP|P|LP|HP|br|sp|Pp|It|Sh|Ss)\b.*$", "\n", source, flags=re.M)
        plain = re.sub(
            r"^[.'](?:\\\"|TH|so|if|ie|el|de|ds|nr|nf|fi|ft|in|ad|na|hy|ne|RS|RE|UR|UE).*$", "", plain, flags=re.M
        )
        plain = re.sub(r"^\.[A-Za-z]{1,2} ", "", plain, flags=re.M)
        plain = re.sub(r"\\f[A-Z]|\\f\(..|\\f\[\w*\]|\\[&/,|^]|\\s[-+]?\d", "", plain)
        plain = plain.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\")
        for paragraph in re.split(r"\n\s*\n", plain):
            yield f"man/{path.name}", paragraph


def documentation(roots: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Paragraphs of plain-text, Markdown and HTML documentation."""
    for root in roots:
        for path in shuffled(root.rglob("*")):
            name = path.name.lower()
            if (
                not path.is_file()
                or "changelog" in name
                or "copyright" in name
                or re.search(r"/[a-z]{2}-[A-Z]{2}/", str(path).replace("/en-US/", "/"))
            ):
                continue
            try:
                with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
                    raw = file.read(400_000)
            except (OSError, EOFError):
                continue
            if name.endswith((".html", ".htm")):
                yield from ((f"doc/{path.name}", part) for part in html_paragraphs(raw.decode("utf-8", "replace")))
            elif re.search(r"readme|news|faq|\.(txt|md|rst)(\.gz)?$", name):
                for part in re.split(r"\n\s*\n", raw.decode("utf-8", "replace")):
                    yield f"doc/{path.parent.name}/{path.name}", part


def html_paragraphs(page: str) -> Iterator[str]:
    """The text of paragraphs, headings and list items of an HTML page."""
    page = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.S | re.I)
    for block in re.split(r"</?(?:p|div|li|h\d|td|th|dt|dd|pre|table|tr|ul|ol|dl|title)\b[^>]*>", page, flags=re.I):
        yield html.unescape(re.sub(r"<[^>]+>", "", block))


def python_sources(roots: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Docstrings, comments and whole short functions of Python files."""
    for root in roots:
        for path in shuffled(root.rglob("*.py")):
            identity = f"py/{path.parent.name}/{path.name}"
            if path.stat().st_size > 60_000:
                continue
            try:
                source = path.read_text("utf-8")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    tree = ast.parse(source)
            except (SyntaxError, ValueError, OSError, RecursionError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                    doc = ast.get_docstring(node)
                    for part in re.split(r"\n\s*\n", doc or ""):
                        yield identity, part
                    if isinstance(node, ast.FunctionDef) and percent(identity + node.name) < 15:
                        yield identity, (ast.get_source_segment(source, node) or "")[:900]
            for match in re.finditer(r"(?:^ *# .*\n)+", source, re.M):
                yield identity, re.sub(r"^ *# ?", "", match[0], flags=re.M)


def wordnet(root: Path) -> Iterator[tuple[str, str]]:
    """Words with their definitions, definitions alone, and the example sentences, of WordNet's data files."""
    for path in sorted(root.rglob("wordnet/data.*")):
        for line in path.read_text("utf-8", "replace").splitlines():
            if line.startswith("  ") or "|" not in line:
                continue
            fields, gloss = line.split("|", 1)
            parts = fields.split()
            words = [w.replace("_", " ") for w in parts[4 : 4 + 2 * int(parts[3], 16) : 2]]
            definition = gloss.split('"')[0].strip(" ;")
            identity = f"wordnet/{parts[0]}"
            yield identity, f"{', '.join(words)}: {definition}"
            yield identity, words[0]
            yield identity, definition
            for example in re.findall(r'"([^"]+)"', gloss):
                yield identity, example


def dictionaries(root: Path) -> Iterator[tuple[str, str]]:
    """Paragraphs of dictd dictionaries."""
    for path in sorted(root.rglob("*.dict.dz")):
        with gzip.open(path) as file:
            body = file.read().decode("utf-8", "replace")
        for number, entry in enumerate(re.split(r"\n(?=\S)", body)):
            plain = re.sub(r"[{}\\]|\[1913 Webster\]|\[.*?PJC\]", "", entry)
            for part in re.split(r"\n\s*\n", plain):
                yield f"{path.name}/{number // 20}", part


def fortunes(root: Path) -> Iterator[tuple[str, str]]:
    """Sayings, quotations and riddles."""
    for path in sorted((root).rglob("games/fortunes/*")):
        if path.is_file() and not path.is_symlink() and path.suffix == "":
            for number, saying in enumerate(path.read_text("utf-8", "replace").split("\n%\n")):
                yield f"fortunes/{path.name}/{number}", saying


def lemmas(root: Path) -> dict[str, list[str]]:
    """Common words of WordNet by part of speech, to fill the slots of synthetic requests."""
    found: dict[str, list[str]] = {}
    for kind in ("noun", "verb", "adj"):
        words = []
        for path in root.rglob(f"wordnet/index.{kind}"):
            for line in path.read_text("utf-8").splitlines():
                parts = line.split()
                if not line.startswith(" ") and len(parts[0]) > 2 and not re.search(r"[\d.]", parts[0]):
                    words += [parts[0].replace("_", " ")] * (1 + 2 * (int(parts[2]) > 1) + 2 * (int(parts[2]) > 3))
        found[kind] = words
    return found


# Cutting


def clean(text: str) -> str:
    """One line, blanks collapsed, rules and ornaments removed."""
    return re.sub(r"\s+", " ", re.sub(r"[-=_*#~.]{4,}", " ", text)).strip()


def worth_fitting(text: str) -> bool:
    """Whether the text is words rather than a table of numbers or an address."""
    letters = sum(c.isalpha() or c == " " for c in text)
    return len(text) >= 3 and letters >= 0.6 * len(text)


def cut_prompt(text: str, random_: random.Random) -> Iterator[str]:
    """A prompt whole, its question alone, its sentences, and one random span."""
    yield text
    pieces = [p.strip() for p in re.split(r"\n+|(?<=[.?!]) ", text) if len(p.split()) >= 4]
    if len(pieces) > 1:
        yield pieces[0]
        yield from random_.sample(pieces, min(4, len(pieces)))
    words = text.split()
    if len(words) > 24:
        start = random_.randrange(len(words) - 12)
        yield " ".join(words[start : start + random_.randint(6, 60)])
        yield " ".join(words[-random_.randint(15, 50) :])


def cut_paragraph(text: str, random_: random.Random, max_words: int = 70) -> Iterator[str]:
    """A paragraph cut to at most about `max_words` words, and now and then a short span of it."""
    words = text.split()
    if len(words) > max_words:
        start = random_.randrange(max(1, len(words) - max_words))
        words = words[start : start + random_.randint(max_words // 2, max_words)]
    yield " ".join(words)
    if len(words) > 20 and random_.random() < 0.3:
        start = random_.randrange(len(words) - 8)
        yield " ".join(words[start : start + random_.randint(3, 14)])


CAPS = {
    "man": 25_000, "packages": 45_000, "doc": 45_000, "python": 45_000, "wordnet": 110_000, "dict": 50_000,
    "fortunes": 30_000,
}  # fmt: skip


def general_texts(texts_dir: Path, seed: int, scale: float = 1.0) -> list[Text]:
    """General text by source, cut to short paragraphs, without repetitions, at most ``CAPS * scale`` of each source."""
    python_roots = [
        Path(p) for p in sorted({str(Path(ast.__file__).parent), *(p for p in sys.path if "site-packages" in p)})
    ]
    documents = [
        Path("/usr/share/doc"),
        *sorted(texts_dir.glob("*/usr/share/doc")),
        *sorted(texts_dir.glob("*/usr/share/libreoffice")),
    ]
    sources = {
        "packages": package_descriptions(),
        "man": manual_pages(),
        "doc": documentation(documents),
        "python": python_sources(python_roots),
        "wordnet": wordnet(texts_dir),
        "dict": dictionaries(texts_dir),
        "fortunes": fortunes(texts_dir),
    }
    result = []
    for source, items in sources.items():
        random_ = random.Random(f"{seed}/{source}")
        seen: dict[str, str] = {}
        for identity, raw in items:
            paragraph = clean(raw)
            if worth_fitting(paragraph) and (source == "wordnet" or paragraph.count(" ") >= 2):
                seen.setdefault(paragraph, split_of_document(identity))
                if len(seen) >= 2 * CAPS[source] and source != "wordnet":
                    break
        kept = list(seen.items())
        random_.shuffle(kept)
        for paragraph, split in kept[: int(CAPS[source] * scale)]:
            result += [Text(source, split, cut) for cut in cut_paragraph(paragraph, random_)]
    return result


def general_texts_kept(work: Path, texts_dir: Path, seed: int, scale: float) -> list[Text]:
    """As `general_texts`, kept in the work folder: collecting takes two minutes, and machines hold different texts."""
    path = work / f"general-{seed}-{scale}.json"
    if not path.exists():
        path.write_text(json.dumps(general_texts(texts_dir, seed, scale)), "utf-8")
    return [Text(*one) for one in json.loads(path.read_text("utf-8"))]
