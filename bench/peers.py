"""Our candidate routing beside the original Rust core, in turn, on vectors of the same size.

In: the folder in which the npm package ``@ruvector/tiny-dancer`` was installed. Out: a `Comparison` per number of
candidates. The package is no part of this repository and nothing here needs it; without it there is no comparison.
"""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from bench import material
from bench.measure import Effort, Operation
from bench.routing import candidate_router

from tinydancer.router import Router, RoutingRequest
from tinydancer.types import Candidate

VARIABLE = "TINYDANCER_PEER_DIR"
PACKAGE = "@ruvector/tiny-dancer"
COUNTS = (10, 100, 1000)
ROUNDS = 20
DRIVER = Path(__file__).with_name("peer.js")
HOW_TO_INSTALL = (
    f"The peer, npm's {PACKAGE}, is not installed, so nothing is compared. To compare: in a scratch folder outside the "
    f"repository, npm install {PACKAGE}, then {VARIABLE}=FOLDER make bench (needs Node 18 or newer)."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians in microseconds of one routing call over some candidates.

    Attributes
    ----------
    kept_us, made_us
        Ours, request object included: candidates kept from call to call, and all candidates made anew (and checked)
        from their vectors for the call.
    peer_us, peer_core_us
        The peer's: what its caller waits (candidates kept, as JavaScript objects), and what its Rust core reports.
    waits_over_kept, waits_over_made, core_over_kept
        Medians over the rounds of the peer's time over ours; above 1, the peer takes longer.
    """

    candidates: int
    kept_us: float
    made_us: float
    peer_us: float
    peer_core_us: float
    waits_over_kept: float
    waits_over_made: float
    core_over_kept: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def installed(folder: Path | None) -> bool:
    """Whether the package lies in `folder` and there is a Node to run it."""
    return folder is not None and (folder / "node_modules" / PACKAGE).is_dir() and shutil.which("node") is not None


def compare(folder: Path, effort: Effort, progress: Callable[[str], object]) -> list[Comparison]:
    """Both in turn, `ROUNDS` times for each number of candidates."""
    with subprocess.Popen(
        ["node", str(DRIVER), str(folder.resolve()), str(material.DIM)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as peer:  # fmt: skip
        assert peer.stdin is not None
        assert peer.stdout is not None
        found = []
        for count in COUNTS:
            progress(f"peer, {count:,} candidates")
            found.append(_compare(count, peer.stdin, peer.stdout, effort))
        peer.stdin.close()
    return found


def _compare(count: int, ask: IO[str], answer: IO[str], effort: Effort) -> Comparison:
    kept, made = candidate_router(count), _from_vectors(count)
    repetitions = 1 if effort.quick else max(5, 2000 // count)
    rows = []
    for number in range(2 if effort.quick else ROUNDS + 1):
        print(f"{count} {repetitions}", file=ask, flush=True)
        theirs = json.loads(answer.readline())
        ours = [_median_us(operation, repetitions) for operation in (kept, made)]
        if number:  # the first round warms all of them up
            rows.append((*ours, float(np.median(theirs["waits"])), float(np.median(theirs["core"]))))
    kept_us, made_us, waits_us, core_us = np.array(rows).T
    return Comparison(
        candidates=count, kept_us=float(np.median(kept_us)), made_us=float(np.median(made_us)),
        peer_us=float(np.median(waits_us)), peer_core_us=float(np.median(core_us)),
        waits_over_kept=float(np.median(waits_us / kept_us)), waits_over_made=float(np.median(waits_us / made_us)),
        core_over_kept=float(np.median(core_us / kept_us)),
    )  # fmt: skip


def _median_us(operation: Operation, repetitions: int) -> float:
    taken = []
    gc.disable()
    try:
        for _ in range(repetitions):
            start = time.perf_counter_ns()
            operation()
            taken.append((time.perf_counter_ns() - start) / 1e3)
    finally:
        gc.enable()
    return float(np.median(taken))


def _from_vectors(count: int) -> Operation:
    """Routing by a caller that has only arrays and figures, and makes every candidate for the call."""
    router = Router()
    kept: Sequence[Candidate] = material.candidates(count)
    fields = [(c.id, c.embedding, c.created_at, c.access_count, c.success_rate) for c in kept]
    query = material.endless(list(material.unit_vectors(64)))

    def route() -> str:
        made = [
            Candidate(id=name, embedding=vector, created_at=created, access_count=used, success_rate=rate)
            for name, vector, created, used, rate in fields
        ]
        return router.route(RoutingRequest(query_embedding=query(), candidates=made)).decisions[0].candidate_id

    return route
