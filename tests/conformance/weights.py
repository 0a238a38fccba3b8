"""A second opinion on what trained weights predict: the formulas of docs/explanation/quality-model.md, one by one.

In: the file of a quality model, read by hand; texts' vectors and the texts. Out: expected quality, and what outcomes
change of it. Plain Python over lists: nothing of ``tinydancer`` is called, neither its reader nor its surface features.
"""

from __future__ import annotations

import array
import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

USUAL_INPUT_TOKENS, TRAINED_ANSWERS, TRUSTED_ANSWERS = 250.0, 200.0, 10.0
_TYPES = {"F64": "d", "F32": "f"}

Vector = list[float]
Matrix = list[Vector]


@dataclass
class Belief:
    """What is believed of one agent: mean and covariance of its ability, and how many answers stand behind it."""

    mean: Vector
    covariance: Matrix | None
    outcomes: float


class Weights:
    """The tensors of a model's file, and what follows from them."""

    def __init__(self, path: Path) -> None:
        raw = path.read_bytes()
        (length,) = struct.unpack_from("<Q", raw)
        header = json.loads(raw[8 : 8 + length])
        about = header.pop("__metadata__")
        facts = json.loads(about["metadata"])
        self.name = f"shipped:{about['sha256'][:12]}"
        self.agents: list[str] = facts["agents"]
        self._interval = facts["interval"]
        self._features: list[str] = facts["surface_features"]
        network = facts["network"]
        if not network["tied"] or network["rank_w"] is not None or network["output_dim"] is not None:
            raise SystemExit(f"The network is {network}; the oracle knows one matrix W, and no head.")
        self._t: dict[str, Any] = {
            name: _nested(raw, 8 + length, spec) for name, spec in header.items() if spec["dtype"] in _TYPES
        }
        self._precision: Matrix | None = None

    # -- the request -----------------------------------------------------------------------------------------------

    def represent(self, vector: Vector, text: str | None, *, halved: bool = False) -> Vector:
        """phi = [h; 1]; `halved` as from what a decision keeps: numbers of 16 bits."""
        t = self._t
        facts = None if text is None else [_facts(text)[name] for name in self._features]
        if halved:
            vector, facts = _halved(vector), None if facts is None else _halved(facts)
        scaled = [0.0] * len(self._features)
        if facts is not None:
            pairs = zip(facts, t["surface_mean"], t["surface_scale"], strict=True)
            scaled = [min(4.0, max(-4.0, (fact - mean) / scale)) for fact, mean, scale in pairs]
        x = [*vector, *scaled]
        zeta, nu = t["network.zeta"], t["network.nu"]
        phi = []
        for row, gate, update in zip(t["network.w"], *t["network.b"], strict=True):
            a = _dot(row, x)
            z = _sigma(a + gate)
            phi.append((zeta * (1.0 - z) + nu) * math.tanh(a + update))
        return [*phi, 1.0]

    # -- agents ----------------------------------------------------------------------------------------------------

    def believed(self, name: str, stated: float | None, usual_usd: float | None) -> Belief:
        """Of an agent that has not answered here."""
        t = self._t
        if name in self.agents:
            row = self.agents.index(name)
            return Belief(list(t["abilities"][row]), None, t["observed"][row])
        if stated is not None:
            p = min(0.99, max(0.01, stated))
            level = math.log(p / (1.0 - p))
        else:
            known = sorted(c for c in t["cost_usd"] if not math.isnan(c))
            middle = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2.0 if known else 1.0
            shift, slope = t["quality_from_cost"]
            level = shift + slope * math.log(usual_usd or middle)
        m = t["prior_mean"]
        spread = _dot(m, [_dot(row, m) for row in t["usual_covariance"]])
        bias = level * math.sqrt(1.0 + math.pi * spread / 8.0) - _dot(m, t["usual_mean"])
        return Belief([*m, bias], [list(row) for row in t["prior_covariance"]], 0.0)

    def quality(self, phi: Vector, belief: Belief) -> float:
        """Expected quality of an answer."""
        return _sigma(_dot(belief.mean, phi))

    def learn(self, name: str, belief: Belief, phi: Vector, y: float) -> None:
        """One judged answer: a step of Newton's method from what was believed."""
        if belief.covariance is None:
            belief.covariance = self._covariance(self.agents.index(name))
        c = belief.covariance
        p = self.quality(phi, belief)
        w = max(p * (1.0 - p), 1e-4)
        direction = [_dot(row, phi) for row in c]
        gain = [d / (1.0 + w * _dot(direction, phi)) for d in direction]
        for i, d in enumerate(direction):
            c[i] = [value - w * d * g for value, g in zip(c[i], gain, strict=True)]
        belief.mean = [m + g * (y - p) for m, g in zip(belief.mean, gain, strict=True)]
        belief.outcomes += 1.0

    def _covariance(self, row: int) -> Matrix:
        t = self._t
        if self._precision is None:
            self._precision = _inverse(t["prior_covariance"])
        weight = min(t["observed"][row], TRAINED_ANSWERS)
        return _inverse([
            [p + weight * i for p, i in zip(prior, information, strict=True)]
            for prior, information in zip(self._precision, t["information"], strict=True)
        ])  # fmt: skip

    # -- what stands in the decision -------------------------------------------------------------------------------

    def discount(self, belief: Belief) -> float:
        """Share of the match discount that applies."""
        return TRUSTED_ANSWERS / (TRUSTED_ANSWERS + belief.outcomes)

    def reaches(self, quality: float, bar: float) -> float:
        """Confidence; bars are counted in steps of 0.05."""
        shift, slope = self._t["bars"][min(20, math.ceil(bar * 20 - 1e-9))]
        q = min(1.0 - 1e-6, max(1e-6, quality))
        return _sigma(shift + slope * math.log(q / (1.0 - q)))

    def uncertainty(self, quality: float) -> float | None:
        """Width of the interval; None where the model brings none."""
        if self._interval is None:
            return None
        half = math.inf if self._interval["quantile"] is None else self._interval["quantile"]
        if (floor := self._interval.get("scale_floor")) is not None:
            half *= math.sqrt(quality * (1.0 - quality)) + floor
        return min(1.0, quality + half) - max(0.0, quality - half)


def _nested(raw: bytes, base: int, spec: dict[str, Any]) -> Any:
    """A tensor as a number, a list, or a list of lists."""
    begin, end = spec["data_offsets"]
    numbers = array.array(_TYPES[spec["dtype"]], raw[base + begin : base + end]).tolist()
    match spec["shape"]:
        case []:
            return numbers[0]
        case [_]:
            return numbers
        case [rows, columns]:
            return [numbers[i * columns : (i + 1) * columns] for i in range(rows)]
    raise SystemExit(f"A tensor has the shape {spec['shape']}; the oracle knows up to two axes.")


def _facts(text: str) -> dict[str, float]:
    """Facts of a short text by name."""
    n = max(1, len(text))
    words = re.findall(r"[^ \t\r\v\f\n]+", text)

    def share(members: str) -> float:
        return sum(text.count(member) for member in members) / n

    return {
        "log_characters": math.log(1 + len(text)),
        "log_words": math.log(1 + len(words)),
        "digits": share("0123456789"),
        "operators": share("+-*/=^<>"),
        "brackets": share("()[]{}"),
        "capitals": share("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        "line_breaks": share("\n"),
        "not_ascii": sum(ord(c) > 127 for c in text) / n,
        "log_question_marks": math.log(1 + text.count("?")),
        "characters_per_word": n / max(1, len(words)),
        "has_formula": float("$" in text or "\\" in text),
        "has_underscore": float("_" in text),
        "has_negation": float(bool(re.search(r" not | NOT | except | EXCEPT |n't ", text))),
        "log_numbers": math.log(1 + len(re.findall(r"[0-9]+", text))),
    }


def _halved(numbers: Vector) -> Vector:
    return list(struct.unpack(f"<{len(numbers)}e", struct.pack(f"<{len(numbers)}e", *numbers)))


def _sigma(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value)) if value >= 0.0 else math.exp(value) / (1.0 + math.exp(value))


def _dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _inverse(matrix: Matrix) -> Matrix:
    """Gauss-Jordan with row pivots."""
    n = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(n))] for i, row in enumerate(matrix)]
    for i in range(n):
        pivot = max(range(i, n), key=lambda r, i=i: abs(rows[r][i]))  # type: ignore[misc]
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for r in range(n):
            if r != i and (factor := rows[r][i]) != 0.0:
                rows[r] = [value - factor * own for value, own in zip(rows[r], rows[i], strict=True)]
    return [row[n:] for row in rows]
