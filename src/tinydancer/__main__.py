"""``python -m tinydancer``: the command line."""

from __future__ import annotations

from tinydancer.cli import main

main()
