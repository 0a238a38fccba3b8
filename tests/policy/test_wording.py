"""Amounts read as a person would write them."""

from __future__ import annotations

import math

import pytest

from tinydancer.policy.wording import milliseconds, plural, price, usd


@pytest.mark.parametrize(
    ("amount", "words"),
    [(math.nan, "an unknown cost"), (0.0, "$0"), (0.00041, "$0.00041"), (0.0000001234, "$0.00000012"),
     (0.002, "$0.0020"), (0.01, "$0.01"), (0.0145, "$0.0145"), (0.03, "$0.03"), (0.6, "$0.60"), (2.5, "$2.50"),
     (1234567.891, "$1,234,567.89")],
)  # fmt: skip
def test_money(amount: float, words: str) -> None:
    assert usd(amount) == words
    assert price(amount) == ("free" if amount == 0.0 else words)


@pytest.mark.parametrize(
    ("amount", "words"),
    [(math.nan, "an unknown time"), (0.4, "0 ms"), (35.2, "35 ms"), (999.0, "999 ms"), (2500.0, "2.5 s"),
     (720_000.0, "12 min"), (5_400_000.0, "1.5 h"), (7.2e9, "2,000 h")],
)  # fmt: skip
def test_durations(amount: float, words: str) -> None:
    assert milliseconds(amount) == words


def test_plurals() -> None:
    assert [plural(n, "agent") for n in (0, 1, 2, 10_000)] == ["0 agents", "1 agent", "2 agents", "10,000 agents"]
