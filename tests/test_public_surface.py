"""The public names, one by one: a name that appears or goes does so on purpose, with a line in the changelog."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tinydancer

PUBLIC = [
    "Agent",
    "AgentPerformance",
    "AgentRecord",
    "Alternative",
    "CallableEmbedder",
    "Candidate",
    "CapabilityMatch",
    "CircuitBreaker",
    "Constraints",
    "CostModel",
    "Decision",
    "DecisionSettings",
    "Decisions",
    "Embedded",
    "Embedder",
    "EmbedderSettings",
    "EmbeddingSpace",
    "FastGRNN",
    "FastGRNNConfig",
    "FeatureConfig",
    "FeatureEngineer",
    "MiniLMEmbedder",
    "OpenAICompatibleEmbedder",
    "Outcome",
    "RequestBatch",
    "RequestContext",
    "Router",
    "RouterConfig",
    "RoutingDecision",
    "RoutingRequest",
    "RoutingResponse",
    "Settings",
    "Snapshot",
    "SqliteStore",
    "StaticEmbedder",
    "Storage",
    "Store",
    "TinyDancer",
    "TinyDancerError",
    "__version__",
    "load_settings",
]
LOADED_WHEN_USED = ("httpx", "psycopg", "rich", "sentence_transformers", "torch", "typer")


def test_the_public_names_are_these() -> None:
    assert sorted(tinydancer.__all__) == PUBLIC
    assert dir(tinydancer) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(tinydancer, name)
    assert name == "__version__" or (value.__doc__ and value.__name__ == name)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        tinydancer.no_such_name  # noqa: B018


def test_importing_and_using_the_core_loads_no_extra_and_no_command_line() -> None:
    program = "import sys, tinydancer; [getattr(tinydancer, name) for name in tinydancer.__all__]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint(LOADED_WHEN_USED)
