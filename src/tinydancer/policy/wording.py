"""Amounts as a person writes them. In: a float. Out: a few characters with a unit."""

from __future__ import annotations

import math


def usd(amount: float) -> str:
    """``$0.00041``, ``$0.0145``, ``$12.50``, ``$0``; ``an unknown cost`` for NaN."""
    if math.isnan(amount):
        return "an unknown cost"
    if amount == 0.0:
        return "$0"
    if amount >= 1.0:
        return f"${amount:,.2f}"
    significant = 2 if amount < 0.01 else 3
    decimals = max(2, significant - 1 - math.floor(math.log10(amount)))
    text = f"{amount:.{min(decimals, 15)}f}"
    # Trailing zeros beyond the cent say nothing in this range.
    return f"${text.rstrip('0').ljust(4, '0')}" if amount >= 0.01 else f"${text}"


def price(amount: float) -> str:
    """As `usd`, with ``free`` for nothing."""
    return "free" if amount == 0.0 else usd(amount)


def milliseconds(amount: float) -> str:
    """``35 ms``, ``2.5 s``, ``12 min``, ``1.5 h``; ``an unknown time`` for NaN."""
    if math.isnan(amount):
        return "an unknown time"
    for unit, size in (("h", 3_600_000.0), ("min", 60_000.0), ("s", 1000.0)):
        if amount >= size:
            return f"{amount / size:,.3g} {unit}" if amount < 1000 * size else f"{amount / size:,.0f} {unit}"
    return f"{amount:.0f} ms"


def plural(count: int, noun: str) -> str:
    """``1 agent``, ``3 agents``, ``10,000 requests``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
