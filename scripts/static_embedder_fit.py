"""Fitting a table of token vectors and a weight per token to a teacher's sentence vectors.

In: token ids of texts, the teacher's unit vectors of the texts and of each token alone. Out: a float32 table and
weights such that ``normalise(sum_t w_t E_t)`` is near the teacher's vector of the text.

The loss of a batch of n texts with student vectors v_i and teacher vectors u_i is

    L = mean_i (1 - v_i . u_i)
        + a * mean_{i != j} (v_i . v_j - u_i . u_j)^2
        + b * (1 - corr_{i != j}(v_i . v_j, u_i . u_j))

and the rows are ``E = (P + D) A``: the start P, a small departure D of each token's own, and one matrix A for all
tokens, which learns from every text what the tokens have in common. The first term of L places each text; the second
and third keep the distances between texts, which is what routing reads. Adam (Kingma and Ba, arXiv 1412.6980,
algorithm 1), the rate falling on a cosine; the best state on held-out texts wins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

PULL_EVERY = 10
"""Steps between two pulls home: the same force as a tenth of it at every step, for a tenth of the time."""

FloatArray = npt.NDArray[np.float32]


@dataclass
class Bags:
    """Token ids of n texts, concatenated; text i has ``ids[offsets[i]:offsets[i + 1]]``."""

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, sequences: Sequence[npt.NDArray[np.int32]]) -> Bags:
        """The texts of these token ids."""
        offsets = np.zeros(len(sequences) + 1, np.int64)
        np.cumsum([len(s) for s in sequences], out=offsets[1:])
        return cls(np.concatenate([*sequences, np.zeros(0, np.int32)]).astype(np.int32), offsets)

    def rows(self, chosen: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and start offsets of the chosen texts, as `torch.nn.functional.embedding_bag` wants them."""
        lengths = self.offsets[chosen + 1] - self.offsets[chosen]
        starts = np.zeros(len(chosen), np.int64)
        np.cumsum(lengths[:-1], out=starts[1:])
        index = np.arange(int(lengths.sum())) + np.repeat(self.offsets[chosen] - starts, lengths)
        return torch.from_numpy(self.ids[index].astype(np.int64)), torch.from_numpy(starts)


@dataclass(frozen=True)
class FitSettings:
    """How long and how fast to fit.

    Parameters
    ----------
    dropped_tokens
        Share of the tokens of a text left out at each step, so that no text hangs on one word.
    pull
        Share of the way back to where a row started, per step at full rate: holds rows of rare tokens near their start.
    """

    epochs: int = 6
    batch: int = 1024
    rate: float = 1e-3
    rate_weights: float = 1e-2
    rate_mixing: float = 3e-3
    matrix_weight: float = 8.0
    correlation_weight: float = 2.0
    dropped_tokens: float = 0.1
    pull: float = 2e-3
    patience: int = 2
    seed: int = 0


def frequency_weights(bags: Bags, vocabulary: int, softening: float = 1e-3) -> FloatArray:
    """``a / (a + p_t)`` with the share p_t of token t (Arora, Liang and Ma, ICLR 2017, equation 1)."""
    share = np.bincount(bags.ids, minlength=vocabulary) / max(1, len(bags.ids))
    return (softening / (softening + share)).astype(np.float32)


def embed(table: FloatArray, weights: FloatArray, bags: Bags) -> FloatArray:
    """Unit vectors of all texts in `bags`, ``float32[n, dim]``."""
    full = torch.from_numpy(table * weights[:, None])
    parts = []
    for start in range(0, len(bags.offsets) - 1, 4096):
        ids, starts = bags.rows(np.arange(start, min(start + 4096, len(bags.offsets) - 1)))
        parts.append(F.normalize(F.embedding_bag(ids, full, starts, mode="sum"), dim=1))
    return np.asarray(torch.cat(parts).numpy(), np.float32)


def spearman(left: FloatArray, right: FloatArray) -> float:
    """Spearman's rank correlation of all pairwise similarities i < j of two sets of unit vectors."""
    upper = np.triu_indices(len(left), 1)
    ranks = [np.argsort(np.argsort((m @ m.T)[upper], kind="stable"), kind="stable") for m in (left, right)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def fit(
    bags: Bags,
    targets: npt.NDArray[np.float16],
    groups: Sequence[npt.NDArray[np.int64]],
    table: FloatArray,
    weights: FloatArray,
    score: Callable[[FloatArray, FloatArray], float],
    settings: FitSettings,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[FloatArray, FloatArray]:
    """Fitted table and weights, the best of all epochs by `score` (higher is better).

    Parameters
    ----------
    bags, targets
        Texts and the teacher's vectors of them.
    groups
        Row numbers by source; half of the batches come from one group, so that close texts are told apart too.
    table, weights
        Where to start: P, ``float32[vocabulary, dim]``, and ``float32[vocabulary]``.
    """
    random_ = np.random.default_rng(settings.seed)
    vectors = torch.nn.Parameter(torch.from_numpy(table.copy()))
    log_weights = torch.nn.Parameter(torch.from_numpy(np.log(weights)))
    mixing = torch.nn.Parameter(torch.eye(table.shape[1]))
    optimiser = torch.optim.Adam(
        [
            {"params": [vectors], "lr": settings.rate},
            {"params": [log_weights], "lr": settings.rate_weights},
            {"params": [mixing], "lr": settings.rate_mixing},
        ],
        betas=(0.9, 0.99),
        fused=True,
    )
    rates = [group["lr"] for group in optimiser.param_groups]
    n = len(bags.offsets) - 1
    steps_per_epoch = max(1, n // settings.batch)
    steps = steps_per_epoch * settings.epochs
    home = torch.from_numpy(table)
    chance = torch.Generator().manual_seed(settings.seed)
    best, best_state, since, step = -np.inf, (table, weights), 0, 0
    off_diagonal = ~torch.eye(settings.batch, dtype=torch.bool)
    for epoch in range(settings.epochs):
        started = time.monotonic()
        losses = []
        for batch in _batches(n, groups, settings.batch, random_):
            factor = 0.5 * (1 + np.cos(np.pi * step / steps)) * min(1.0, (step + 1) / 50)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            ids, starts = bags.rows(batch)
            teacher = torch.from_numpy(targets[batch].astype(np.float32))
            factors = log_weights.exp()[ids] * (torch.rand(len(ids), generator=chance) >= settings.dropped_tokens)
            scaled = F.embedding_bag(ids, vectors, starts, mode="sum", per_sample_weights=factors)
            student = F.normalize(scaled @ mixing, dim=1)
            mask = off_diagonal[: len(batch), : len(batch)]
            mine, theirs = (student @ student.T)[mask], (teacher @ teacher.T)[mask]
            apart = (mine - theirs).square().mean()
            centred, centred2 = mine - mine.mean(), theirs - theirs.mean()
            correlation = (centred * centred2).sum() / (centred.norm() * centred2.norm() + 1e-9)
            loss = (
                (1 - (student * teacher).sum(1)).mean()
                + settings.matrix_weight * apart
                + settings.correlation_weight * (1 - correlation)
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if step % PULL_EVERY == 0:
                with torch.no_grad():
                    vectors.lerp_(home, min(1.0, PULL_EVERY * settings.pull * factor))
            losses.append(float(loss.detach()))
            step += 1
        now = ((vectors @ mixing).detach().numpy().copy(), log_weights.detach().exp().numpy().copy())
        value = score(*now)
        report(
            f"epoch {epoch + 1}/{settings.epochs}  loss {np.mean(losses):.4f}  held out {value:.4f}  "
            f"{time.monotonic() - started:.0f} s"
        )
        if value > best:
            best, best_state, since = value, now, 0
        else:
            since += 1
            if since >= settings.patience:
                break
    return best_state


def _batches(
    n: int, groups: Sequence[npt.NDArray[np.int64]], size: int, random_: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """One epoch: every text in one batch, half of the texts among their own kind."""
    own = random_.random(n) < 0.5
    batches = []
    mixed = [np.flatnonzero(~own)]
    for rows in [*mixed, *(g[own[g]] for g in groups)]:
        order = random_.permutation(rows)
        batches += [order[i : i + size] for i in range(0, len(order), size) if len(order) - i >= min(size, 256)]
    random_.shuffle(batches)
    return batches


def quantise(table: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Rows as int8 with one scale each: ``scale = max|row| / 127``, so that ``scale * int8`` is the row."""
    scales = np.maximum(np.abs(table).max(1), 1e-12).astype(np.float32) / np.float32(127)
    return np.clip(np.rint(table / scales[:, None]), -127, 127).astype(np.int8), scales
