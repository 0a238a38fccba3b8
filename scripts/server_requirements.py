"""Writes ``extension/requirements.txt``: the packages that the modules beside a server need, pinned.

In: ``requirements/dev.txt``. Out: the four packages' lines with their hashes. An installed package has no lock file,
but ``tinydancer postgres install`` needs these. Run it after `make lock`; the tests fail when the two differ.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "dev.txt"
TARGET = ROOT / "extension" / "requirements.txt"
PACKAGES = ("numpy", "pyyaml", "tokenizers")


def requirements() -> str:
    """The lock file's lines of the packages; comments left out."""
    blocks = re.findall(r"^([a-z0-9-]+)(==.+ \\\n(?: {4}.*\n)+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    lines = [line for name, rest in blocks if name in PACKAGES for line in f"{name}{rest}".splitlines()]
    return "".join(f"{line}\n" for line in lines if not line.lstrip().startswith("#"))


if __name__ == "__main__":
    TARGET.write_text(requirements(), encoding="utf-8")
