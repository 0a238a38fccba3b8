"""What compression costs and gains: ``python bench/compression.py``, about a minute.

In: nothing; a network from 384 inputs over 64 states to 12 outputs is trained here, on a task made from a seed. Out: a
table of its compressed forms, each as loaded from its file: bytes on disk, share of right answers on rows that no form
has seen, time of a single step and of a row of a batch of 256, and both beside the full network in the same run. And a
table of the ways to multiply a compressed matrix, which is why networks are multiplied in full.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.measure import Effort
    from rich.console import Console

    from tinydancer.model.compression import AnyArray
    from tinydancer.model.fastgrnn import FastGRNN
    from tinydancer.model.gradients import FloatArray

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
INPUTS, STATES, OUTPUTS = 384, 64, 12
TOPICS = 12
BATCH = 256
RANK = 8
SEED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FormFigures:
    """One row of the first table; ratios are to the full network, time by time in the same run."""

    form: str
    file_bytes: int
    accuracy: float
    single_us: float
    single_ratio: float
    batch_us: float
    batch_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductFigures:
    """One row of the second table: W x in one form, beside the full product."""

    rows: int
    columns: int
    form: str
    single_us: float
    single_ratio: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, compress, measure and print."""
    parser = argparse.ArgumentParser(description="Measure what compressing a network costs and gains.")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON, too")
    parser.add_argument("--quick", action="store_true", help="few rows, one sample each: shows that it runs")
    options = parser.parse_args(arguments)
    # Before NumPy loads, which reads them once.
    os.environ.update(ONE_THREAD)
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from bench.measure import Effort
    from rich.console import Console

    effort = Effort(seconds=0.6, quick=options.quick)
    started = time.perf_counter()
    shares = yardsticks(options.quick)
    forms = figures_of_forms(effort)
    products = figures_of_products(effort)
    seconds = time.perf_counter() - started
    print_tables(forms, products, Console(width=None if sys.stdout.isatty() else 120, highlight=False))
    print("right, for comparison: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    print(f"{seconds:.0f} s, one thread, seed {SEED}")
    if options.json:
        facts = {
            "seed": SEED, "quick": options.quick, "seconds": round(seconds, 1), "yardsticks": shares,
            "forms": [asdict(row) for row in forms], "products": [asdict(row) for row in products],
        }  # fmt: skip
        Path(options.json).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return 0


def examples(n: int, seed: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Unit vectors around twelve topics, each with twelve answers of yes or no, and the chances of a yes.

    A vector mixes two topics with noise, like the embedding of a request that is about two things. Each output has an
    ability for every topic, drawn once; its chance follows from both abilities and from their product, which no linear
    model of the vector can say.
    """
    import numpy as np

    world = np.random.default_rng(SEED)
    topics = world.normal(size=(TOPICS, INPUTS)) / np.sqrt(INPUTS)
    ability = world.normal(0.3, 1.0, (TOPICS, OUTPUTS))
    rng = np.random.default_rng([SEED, seed])
    one, two = rng.integers(0, TOPICS, (2, n))
    xs = topics[one] + topics[two] + rng.normal(0, 0.6 / np.sqrt(INPUTS), (n, INPUTS))
    xs /= np.linalg.norm(xs, axis=1, keepdims=True)
    both = ability[one] * ability[two] + 0.5 * (ability[one] + ability[two])
    chances = 1.0 / (1.0 + np.exp(-3.0 * both))
    answers = rng.random((n, OUTPUTS)) < chances
    return xs.astype(np.float32), answers.astype(np.float32), chances


def yardsticks(quick: bool) -> dict[str, float]:
    """Share of right answers of whoever says the commoner one, of a linear regression, and of who knows the chances."""
    import numpy as np

    xs, targets, _ = examples(*_training_rows(quick))
    new, wanted, chances = examples(*_new_rows(quick))
    weights = np.linalg.lstsq(np.c_[xs, np.ones(len(xs))], targets, rcond=None)[0]
    linear = np.c_[new, np.ones(len(new))] @ weights
    common = np.broadcast_to(targets.mean(axis=0), wanted.shape)
    said = {"commoner answer": common, "linear regression": linear, "the true chances": chances}
    return {name: float(np.mean((values > 0.5) == (wanted > 0.5))) for name, values in said.items()}


def figures_of_forms(effort: Effort) -> list[FormFigures]:
    """Train the network, make every form of it, and measure each as loaded from its file."""
    import numpy as np

    from tinydancer.model.compression import (
        CompressedFastGRNN,
        factorized,
        magnitude_masks,
        prune_gradually,
    )
    from tinydancer.model.fastgrnn import FastGRNN, FastGRNNConfig
    from tinydancer.model.training import TrainingConfig, train_network

    xs, targets, _ = examples(*_training_rows(effort.quick))
    new, wanted, _ = examples(*_new_rows(effort.quick))

    def train(network: FastGRNN, epochs: int, rate: float, masks: Mapping[str, Any] | None = None) -> None:
        config = TrainingConfig(
            epochs=1 if effort.quick else epochs, batch_size=128, learning_rate=rate, weight_decay=0.1,
            dropout_input=0.1, patience=None, seed=SEED,
        )  # fmt: skip
        train_network(network, xs, targets, config=config, masks=masks)
        progress()

    def copied(network: FastGRNN) -> FastGRNN:
        return FastGRNN(network.config, {name: array.copy() for name, array in network.parameters.items()})

    full = FastGRNN(FastGRNNConfig(input_dim=INPUTS, hidden_dim=STATES, output_dim=OUTPUTS, seed=SEED))
    train(full, 30, 5e-3)
    forms: list[tuple[str, FastGRNN]] = [("full", full), ("int8", CompressedFastGRNN(full))]
    for sparsity in (0.8, 0.9):
        cut, tuned = copied(full), copied(full)
        for name, mask in magnitude_masks(cut.parameters, sparsity).items():
            cut.parameters[name] *= mask
        prune_gradually(tuned.parameters, sparsity, partial(train, tuned, 10, 2e-3), rounds=4)
        name = f"pruned {sparsity:.0%}"
        forms += [
            (f"{name}, not tuned", CompressedFastGRNN(cut, int8=False)),
            (f"{name}, tuned", CompressedFastGRNN(tuned, int8=False)),
            (f"{name}, tuned, int8", CompressedFastGRNN(tuned)),
        ]
    cut = factorized(full, rank_w=RANK, rank_u=RANK)
    tuned = copied(cut)
    train(tuned, 20, 2e-3)
    forms += [
        (f"rank {RANK}, not tuned", cut),
        (f"rank {RANK}, tuned", tuned),
        (f"rank {RANK}, tuned, int8", CompressedFastGRNN(tuned)),
    ]

    single, batch = new[0], new[:BATCH]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "full.safetensors"
        full.save(path)
        reference = FastGRNN.load(path)
        figures = []
        for number, (name, form) in enumerate(forms):
            path = Path(folder) / f"{number}.safetensors"
            form.save(path)
            loaded = type(form).load(path)
            one = _timed(loaded.forward_single, reference.forward_single, single, effort)
            many = _timed(loaded.forward_batch, reference.forward_batch, batch, effort)
            right = (loaded.forward_batch(new) > 0.5) == (wanted > 0.5)
            progress()
            row = FormFigures(
                form=name, file_bytes=path.stat().st_size, accuracy=float(np.mean(right)),
                single_us=one[0], single_ratio=one[1], batch_us=many[0] / BATCH, batch_ratio=many[1],
            )  # fmt: skip
            figures.append(row)
    return figures


def figures_of_products(effort: Effort) -> list[ProductFigures]:
    """One vector times a matrix, in each form that a compressed matrix could be multiplied in."""
    import numpy as np

    from tinydancer.model.compression import SparseRows, magnitude_masks, quantized

    figures = []
    for rows, columns in ((STATES, INPUTS), (512, 1536)):
        rng = np.random.default_rng(SEED)
        matrix = rng.normal(size=(rows, columns)).astype(np.float32)
        x = rng.normal(size=columns).astype(np.float32)
        values, scales = quantized(matrix)
        rounded, x_scales = quantized(x[None])
        ways: list[tuple[str, Callable[[FloatArray], object]]] = [
            ("full", matrix.__matmul__),
            ("int8, full again at each call", partial(_widened_product, values, scales)),
            ("int8 times int8, summed in int32", partial(_whole_product, values, rounded[0], scales * x_scales)),
        ]
        for sparsity in (0.8, 0.9, 0.95, 0.98, 0.99):
            mask = magnitude_masks({"m": matrix}, sparsity, ["m"])["m"]
            ways.append((f"sparse rows, {sparsity:.0%} pruned", SparseRows.of(matrix * mask).times))
        for name, way in ways:
            taken = _timed(way, ways[0][1], x, effort)
            figures.append(
                ProductFigures(rows=rows, columns=columns, form=name, single_us=taken[0], single_ratio=taken[1])
            )
            progress()
    return figures


def _widened_product(values: AnyArray, scales: FloatArray, x: FloatArray) -> FloatArray:
    product: FloatArray = (values.astype("float32") @ x) * scales
    return product


def _whole_product(values: AnyArray, rounded: AnyArray, scales: FloatArray, _: FloatArray) -> FloatArray:
    import numpy as np

    # Faster than @ of int32, which has no vector units either; rounding x is left out of the time.
    product: FloatArray = np.einsum("rc,c->r", values, rounded, dtype=np.int32) * scales
    return product


def print_tables(forms: Sequence[FormFigures], products: Sequence[ProductFigures], console: Console) -> None:
    from rich.table import Table

    table = Table(title=f"A network of {INPUTS} inputs, {STATES} states, {OUTPUTS} outputs", box=None)
    table.add_column("form")
    for heading in ("bytes", "of full", "right", "step µs", "of full", f"row of {BATCH} µs", "of full"):
        table.add_column(heading, justify="right")
    for row in forms:
        table.add_row(
            row.form, f"{row.file_bytes:,}", f"{row.file_bytes / forms[0].file_bytes:.0%}", f"{row.accuracy:.1%}",
            f"{row.single_us:.1f}", f"{row.single_ratio:.2f}", f"{row.batch_us:.2f}", f"{row.batch_ratio:.2f}",
        )  # fmt: skip
    console.print(table)
    table = Table(title="A matrix times one vector", box=None)
    for heading in ("matrix", "form"):
        table.add_column(heading)
    for heading in ("µs", "of full"):
        table.add_column(heading, justify="right")
    for product in products:
        table.add_row(
            f"{product.rows} x {product.columns}", product.form, f"{product.single_us:.1f}",
            f"{product.single_ratio:.2f}",
        )  # fmt: skip
    console.print(table)


def _training_rows(quick: bool) -> tuple[int, int]:
    return (400 if quick else 16_000), 1


def _new_rows(quick: bool) -> tuple[int, int]:
    return (400 if quick else 4_000), 2


def progress() -> None:
    """One more dot on standard error."""
    print(".", end="", file=sys.stderr, flush=True)


def _timed(
    operation: Callable[[FloatArray], object], reference: Callable[[FloatArray], object], x: FloatArray, effort: Effort
) -> tuple[float, float]:
    """Median microseconds of a call, and its ratio to the reference's beside it."""
    from bench.measure import timed

    figure = timed(lambda: operation(x), lambda: reference(x), effort)
    return figure.median / 1e3, figure.ratio


if __name__ == "__main__":
    raise SystemExit(main())
