"""Reads documentation pages: their fenced blocks, links and headings.

In: Markdown as written in ``README.md`` and ``docs/``. Out: the blocks with language, line and the comment above them,
so that the tests beside this file can run them.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
"""The pages whose code runs."""
LINKED_PAGES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "changelog.d" / "README.md"]
"""The pages whose links lead somewhere."""

_FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<language>[\w-]*)")
_COMMENT = re.compile(r"<!-- *(?P<kind>not run|file): *(?P<text>.*?) *-->")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Parameters
    ----------
    language
        What stands behind the fence, lower case; empty where nothing does.
    source
        The text between the fences.
    line
        Line of the first line of ``source`` in its page, from 1.
    not_run
        The reason from ``<!-- not run: reason -->`` directly above, or None without such a comment.
    file
        The name from ``<!-- file: name -->`` directly above, or None.
    """

    language: str
    source: str
    line: int
    not_run: str | None = None
    file: str | None = None


def name_of(page: Path) -> str:
    """The page as a reader of the repository names it."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(text: str) -> list[Block]:
    """Every fenced block of a page, in order."""
    blocks = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        start = number + 1
        number = start
        while number < len(lines) and lines[number].strip() != opening["fence"]:
            number += 1
        comment = _COMMENT.fullmatch(lines[start - 2].strip()) if start > 1 else None
        said = {comment["kind"]: comment["text"]} if comment else {}
        source = textwrap.dedent("".join(f"{line}\n" for line in lines[start:number]))
        blocks.append(Block(opening["language"].lower(), source, start + 1, said.get("not run"), said.get("file")))
        number += 1
    return blocks


def prose_of(text: str) -> str:
    """A page without its blocks and code spans, where nothing is a link or a heading."""
    lines, inside = [], ""
    for line in text.splitlines():
        opening = _FENCE.match(line)
        if inside:
            inside = "" if line.strip() == inside else inside
        elif opening:
            inside = opening["fence"]
        else:
            lines.append(line)
    return "\n".join(lines)


def links_of(text: str) -> list[str]:
    """Targets of the page's links that stay inside the repository."""
    prose = re.sub(r"`[^`\n]*`", "", prose_of(text))
    return [
        link["target"] for link in _LINK.finditer(prose) if "://" not in link["target"] and "@" not in link["target"]
    ]


def anchors_of(text: str) -> set[str]:
    """The fragments under which the page's headings can be reached, spelled as GitHub spells them."""
    anchors: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose_of(text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        repeated = next((n for n in range(1, 100) if f"{slug}-{n}" not in anchors), 0)
        anchors.add(f"{slug}-{repeated}" if slug in anchors else slug)
    return anchors
