"""Tiny Dancer: routes each request to the agent that serves it best under cost, latency and quality constraints.

>>> import tinydancer
>>> dancer = tinydancer.TinyDancer()
>>> dancer.register_agent("small", "llm", ["chat"], 0.002, 150.0, 0.75).agent.name
'small'
>>> dancer.route("Good morning!", optimize_for="cost").agent_name
'small'
>>> dancer.close()

Names are imported when first used, so that ``import tinydancer`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tinydancer._version import __version__

if TYPE_CHECKING:
    from tinydancer.config import EmbedderSettings, Settings, load_settings
    from tinydancer.decide import Decision, Decisions
    from tinydancer.embedding.base import CallableEmbedder, Embedded, Embedder
    from tinydancer.embedding.http import OpenAICompatibleEmbedder
    from tinydancer.embedding.static import StaticEmbedder
    from tinydancer.embedding.transformer import MiniLMEmbedder
    from tinydancer.errors import TinyDancerError
    from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
    from tinydancer.model.features import FeatureConfig, FeatureEngineer
    from tinydancer.policy.breakers import CircuitBreaker
    from tinydancer.policy.explain import Alternative
    from tinydancer.router import Router, RouterConfig, RoutingDecision, RoutingRequest, RoutingResponse
    from tinydancer.service import CapabilityMatch, TinyDancer
    from tinydancer.snapshot import DecisionSettings, Snapshot
    from tinydancer.store.base import Store
    from tinydancer.store.candidates import Storage
    from tinydancer.store.sqlite import SqliteStore
    from tinydancer.types import (
        Agent,
        AgentPerformance,
        AgentRecord,
        Candidate,
        Constraints,
        CostModel,
        EmbeddingSpace,
        Outcome,
        RequestBatch,
        RequestContext,
    )

_HOMES = {
    "config": ("EmbedderSettings", "Settings", "load_settings"),
    "decide": ("Decision", "Decisions"),
    "embedding.base": ("CallableEmbedder", "Embedded", "Embedder"),
    "embedding.http": ("OpenAICompatibleEmbedder",),
    "embedding.static": ("StaticEmbedder",),
    "embedding.transformer": ("MiniLMEmbedder",),
    "errors": ("TinyDancerError",),
    "model.fastgrnn": ("FastGRNN", "FastGRNNConfig"),
    "model.features": ("FeatureConfig", "FeatureEngineer"),
    "policy.breakers": ("CircuitBreaker",),
    "policy.explain": ("Alternative",),
    "router": ("Router", "RouterConfig", "RoutingDecision", "RoutingRequest", "RoutingResponse"),
    "service": ("CapabilityMatch", "TinyDancer"),
    "snapshot": ("DecisionSettings", "Snapshot"),
    "store.base": ("Store",),
    "store.candidates": ("Storage",),
    "store.sqlite": ("SqliteStore",),
    "types": (
        "Agent", "AgentPerformance", "AgentRecord", "Candidate", "Constraints", "CostModel", "EmbeddingSpace",
        "Outcome", "RequestBatch", "RequestContext",
    ),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Agent", "AgentPerformance", "AgentRecord", "Alternative", "CallableEmbedder", "Candidate", "CapabilityMatch",
    "CircuitBreaker", "Constraints", "CostModel", "Decision", "DecisionSettings", "Decisions", "Embedded", "Embedder",
    "EmbedderSettings", "EmbeddingSpace", "FastGRNN", "FastGRNNConfig", "FeatureConfig", "FeatureEngineer",
    "MiniLMEmbedder", "OpenAICompatibleEmbedder", "Outcome", "RequestBatch", "RequestContext", "Router",
    "RouterConfig", "RoutingDecision", "RoutingRequest", "RoutingResponse", "Settings", "Snapshot", "SqliteStore",
    "StaticEmbedder", "Storage", "Store", "TinyDancer", "TinyDancerError", "__version__", "load_settings",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'tinydancer' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tinydancer.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
