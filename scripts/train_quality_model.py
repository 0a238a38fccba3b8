"""Train the quality model that ships with the package, and write it beside the code.

In: the four tables of judged answers in ``../shared/data`` (or ``TINYDANCER_DATA``); vectors of the same requests by
the sentence transformer, from a file or from the extra ``minilm``. Out: ``model/data/quality.safetensors``, under 1 MB,
and its figures. The same data, seed and NumPy give the same bytes. None of the requests' text goes into the file: of
each it keeps at most 64 bits of a hash.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

from tinydancer.embedding.static import StaticEmbedder
from tinydancer.model.quality import SHIPPED, shipped_model_path
from tinydancer.model.quality_training import QualityTrainingConfig
from tinydancer.tables import read_tables
from tinydancer.train import merged, train

ROOT = Path(__file__).resolve().parent.parent
SETS = ("mmlu", "gsm8k", "routerbench", "open7")
DATA = Path(os.environ.get("TINYDANCER_DATA") or ROOT.parent / "shared" / "data")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=shipped_model_path())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-minilm", action="store_true", help="train on the static embedder's vectors only")
    parser.add_argument("--minilm-vectors", type=Path, help="a .npy file that is read, or written if it does not exist")
    args = parser.parse_args()
    if not all((DATA / name / "requests.csv.gz").exists() for name in SETS):
        print(f"The tables {', '.join(SETS)} are not in {DATA}; name their folder in TINYDANCER_DATA.", file=sys.stderr)
        return 2
    tables = [read_tables(DATA / name / "requests.csv.gz", DATA / name / "outcomes.csv.gz") for name in SETS]
    table, _ = merged(tables)
    more = [] if args.without_minilm else [minilm_vectors(table.texts, args.minilm_vectors)]
    trained = train(
        tables, StaticEmbedder(), config=QualityTrainingConfig(seed=args.seed), more_vectors=more, name=SHIPPED,
        progress=lambda share, what: print(f"\r{share:5.0%}  {what:<20}", end="", file=sys.stderr, flush=True),
    )  # fmt: skip
    print(file=sys.stderr)
    digest = trained.model.save(args.out)
    print(json.dumps({"sha256": digest, "bytes": args.out.stat().st_size, **dict(trained.model.facts)}, indent=2))
    return 0


def minilm_vectors(texts: tuple[str, ...], file: Path | None) -> np.ndarray:
    """``float32[n, 384]``: a quarter of an hour on one core, hence the file."""
    if file is not None and file.exists():
        vectors: np.ndarray = np.load(file)
        return vectors
    from tinydancer.embedding.transformer import MiniLMEmbedder

    embedder = MiniLMEmbedder()
    vectors = np.empty((len(texts), embedder.space.dim), np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of like length, so that little is padded
    for begin in range(0, len(order), 64):
        part = order[begin : begin + 64]
        vectors[part] = embedder.embed([texts[i] for i in part]).vectors
        print(f"\r{begin / len(order):5.0%}  embedding with MiniLM", end="", file=sys.stderr, flush=True)
    if file is not None:
        np.save(file, vectors)
    return vectors


if __name__ == "__main__":
    sys.exit(main())
