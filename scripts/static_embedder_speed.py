"""How fast the static embedder is on this machine: medians, one core.

In: nothing. Out: microseconds for one request of 32 words, texts per second in batches of 1,000, milliseconds to make
a process's first embedder, a later one (which does not hash the table again), and where they go.

    TOKENIZERS_PARALLELISM=false OPENBLAS_NUM_THREADS=1 python scripts/static_embedder_speed.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

from tokenizers import Tokenizer

from tinydancer.embedding.static import DATA_DIRECTORY, KIND, TABLE_FILE, TOKENIZER_FILE, StaticEmbedder
from tinydancer.model.artifact import load_artifact

REQUEST = (
    "My landlord wants to raise the rent by twenty percent although our lease runs for another year; is that legal, "
    "and what should I write back to him without starting a fight?"
)
REQUESTS_FILE = Path(__file__).resolve().parent.parent / "evals" / "embedding" / "general_requests.txt"


def seconds(call: Callable[[], object], times: int) -> list[float]:
    """Wall-clock seconds of each of `times` calls."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return taken


def main() -> None:
    # The first one of a process hashes the table and loads the tokenizer's library; it can be timed only once.
    (first,) = seconds(StaticEmbedder, 1)
    embedder = StaticEmbedder()
    lines = [line for line in REQUESTS_FILE.read_text("utf-8").splitlines() if line]
    batch = [f"{lines[i % len(lines)]} {i}" for i in range(1000)]
    long = REQUEST * (1_000_000 // len(REQUEST))
    tokenizer = DATA_DIRECTORY / TOKENIZER_FILE
    seconds(lambda: embedder.embed_one(REQUEST), 2000)
    one = seconds(lambda: embedder.embed_one(REQUEST), 10_000)
    print(f"one request of {len(REQUEST.split())} words: median {median(one) * 1e6:.1f} µs, ", end="")
    print(f"90% within {quantiles(one, n=10)[8] * 1e6:.1f} µs")
    taken = seconds(lambda: embedder.embed_one(long), 200)
    print(f"one text of 1,000,000 characters: median {median(taken) * 1e6:.0f} µs")
    rate = 1000 / median(seconds(lambda: embedder.embed(batch), 21))
    print(f"batch of 1,000 requests of about 10 words: {rate:,.0f} texts/s")
    table = DATA_DIRECTORY / TABLE_FILE
    later = median(seconds(StaticEmbedder, 21)) * 1e3
    parsing = median(seconds(lambda: Tokenizer.from_file(str(tokenizer)), 21)) * 1e3
    mapping = median(seconds(lambda: load_artifact(table, kind=KIND), 21)) * 1e3
    print(f"StaticEmbedder(): first {first * 1e3:.1f} ms, later median {later:.1f} ms, of which", end=" ")
    print(f"tokenizer {parsing:.1f} ms, table {mapping:.2f} ms")
    print(f"size of {TABLE_FILE}: {table.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
