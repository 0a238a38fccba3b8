"""Judged answers with a known truth, and quality models made from them or by hand, for tests of what learns."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
from tinydancer.model.quality import QualityModel
from tinydancer.model.quality_training import QualityData, QualityTrainingConfig, fit_quality_model
from tinydancer.model.surface import SURFACE_DIM
from tinydancer.types import MINILM_SPACE, EmbeddingSpace

SMALL_SPACE = EmbeddingSpace("small", 6)
QUICK = QualityTrainingConfig(
    hidden_dim=6, members=2, epochs=8, batch_size=64, min_steps=150, max_steps=400, folds=2, penalty_agent=100.0,
    dropout=0.1,
)  # fmt: skip
"""A training of a few tenths of a second."""


def unit(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    result: npt.NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return result


def sigma(z: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-np.asarray(z, np.float64)))


def planted(
    n: int = 400,
    *,
    agents: tuple[str, ...] = ("even", "odd"),
    dim: int = 384,
    strength: float = 2.5,
    seed: int = 0,
    noise: float = 1.0,
) -> QualityData:
    """Answers of agents that are good on opposite sides of a direction.

    Agents of even number are good where the first half of the vector's length points one way, those of odd number where
    it points the other; requests lie around two opposite points, `noise` about them.
    """  # fmt: skip
    rng = np.random.default_rng(seed)
    direction = np.random.default_rng(77).normal(size=dim) / np.sqrt(dim)
    side = rng.choice([-1.0, 1.0], n)
    vectors = unit(side[:, None] * direction + noise * rng.normal(size=(n, dim)) / np.sqrt(dim))
    tilt = np.where(np.arange(len(agents)) % 2 == 0, 1.0, -1.0)
    truth = sigma(strength * side[:, None] * tilt)
    quality = (rng.random((n, len(agents))) < truth).astype(np.float32)
    surface = np.abs(rng.normal(1.0, 0.5, (n, SURFACE_DIM))).astype(np.float32)
    cost = (0.001 * np.geomspace(1.0, 10.0, len(agents)) * np.exp(rng.normal(0, 0.2, (n, 1)))).astype(np.float32)
    return QualityData((vectors,), surface, quality, cost, agents)


@lru_cache(maxsize=1)
def trained_model() -> tuple[QualityModel, QualityData]:
    """A model of six agents of the deployment's dimension, and what it was trained on."""
    data = planted(600, agents=("a", "b", "c", "d", "e", "f"), seed=3)
    return fit_quality_model(data, MINILM_SPACE, config=QUICK)[0], data


def hand_made_model(
    agents: tuple[str, ...] = ("a", "b"),
    *,
    k: int = 3,
    space: EmbeddingSpace = SMALL_SPACE,
    seed: int = 0,
    **changes: Any,
) -> QualityModel:
    """Random weights that are round enough to compute with."""  # fmt: skip
    rng = np.random.default_rng(seed)
    network = FastGRNN(FastGRNNConfig(input_dim=space.dim + SURFACE_DIM, hidden_dim=k, rank_u=1, seed=seed))
    network.parameters["b"][:] = rng.normal(0, 0.3, (2, k))
    spread = rng.normal(0, 0.3, (k, k))
    parts: dict[str, Any] = {
        "network": network, "space": space, "agents": agents,
        "abilities": rng.normal(0, 1, (len(agents), k + 1)).astype(np.float32),
        "observed": np.full(len(agents), 30.0), "surface_mean": np.full(SURFACE_DIM, 1.0, np.float32),
        "surface_scale": np.full(SURFACE_DIM, 0.5, np.float32), "usual_mean": np.full(k, 0.1),
        "usual_covariance": spread @ spread.T, "prior_mean": np.linspace(-1.0, 1.0, k),
        "prior_covariance": np.diag([0.3] * k + [0.5]), "information": 0.2 * np.eye(k + 1),
        "bars": np.concatenate([[[30.0, 0.0]], np.stack([np.linspace(1, -1, 20), np.ones(20)], axis=1)]),
        "cost_usd": np.geomspace(0.001, 0.01, len(agents)),
        "cost_weights": np.zeros((len(agents) + 1, k + SURFACE_DIM + 1)), "quality_from_cost": np.array([4.0, 0.5]),
    }  # fmt: skip
    return QualityModel(**{**parts, **changes})
