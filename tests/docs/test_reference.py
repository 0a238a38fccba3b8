"""The committed reference is what the code says today, and every docstring's session gives the answers it shows."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import generate_reference
import tinydancer
from tests.docs.pages import ROOT

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(tinydancer.__path__, "tinydancer.")
    if not module.name.endswith(("__main__", "plpy_entry"))
)


@pytest.mark.parametrize("name", generate_reference.PAGES)
def test_reference_is_up_to_date(name: str) -> None:
    committed = (ROOT / "docs" / "reference" / name).read_text()
    assert committed == generate_reference.PAGES[name](), "run `make docs` and commit the result"


def test_no_page_is_left_behind() -> None:
    # What SQL offers is read from a server with the extension: tests/extension holds that page to it.
    pages = {path.name for path in (ROOT / "docs" / "reference").iterdir()}
    assert pages - {"sql.md"} == set(generate_reference.PAGES)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_show_what_happens(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_a_docstring_becomes_markdown() -> None:
    doc = """One ``line``.

    Parameters
    ----------
    cost_usd
        What it costs,
        at least 0.
    names : list of str

    Examples
    --------
    >>> 1 + 1
    2
    """
    assert generate_reference.markdown(inspect.cleandoc(doc)) == (
        "One `line`.\n\n**Parameters**\n\n- `cost_usd`: What it costs, at least 0.\n- `names : list of str`\n\n"
        "**Examples**\n\n```pycon\n>>> 1 + 1\n2\n```\n\n"
    )
