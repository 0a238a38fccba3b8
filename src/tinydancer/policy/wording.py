"""Amounts as a person writes them. In: a float. Out: a few characters with a unit."""

from __future__ import annotations

import math


def usd(amount: float) -> str:
    """``$0.00041``, ``$12.50``, ``free``; two significant digits below a cent, ``an unknown cost`` for NaN."""
    if math.isnan(amount):
        return "an unknown cost"
    if amount == 0.0:
        return "free"
    if amount >= 0.01:
        return f"${amount:,.2f}" if amount >= 1.0 else f"${amount:.3g}"
    digits = 1 - math.floor(math.log10(amount))
    return f"${amount:.{min(digits, 15)}f}"


def milliseconds(amount: float) -> str:
    """``35 ms``, ``2.5 s``; ``an unknown time`` for NaN."""
    if math.isnan(amount):
        return "an unknown time"
    return f"{amount:.0f} ms" if amount < 1000.0 else f"{amount / 1000.0:.3g} s"


def plural(count: int, noun: str) -> str:
    """``1 agent``, ``3 agents``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
