"""The shipped embedder, made once; tests of the real transformer run only when asked for by name."""

from __future__ import annotations

import pytest

from tinydancer.embedding import StaticEmbedder


@pytest.fixture(scope="session")
def static() -> StaticEmbedder:
    return StaticEmbedder()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect (and count as deselected) what needs sentence-transformers, unless ``-m`` speaks of it."""
    if "minilm" in (config.getoption("markexpr") or ""):
        return
    left_out = [item for item in items if item.get_closest_marker("minilm")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
