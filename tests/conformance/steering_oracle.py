"""A second opinion on routes and classes: the documented formulas, one route after another, in plain Python.

In: the steps of a scene in their order, a function that embeds texts. Out: what each step must answer. Nothing of the
package is called: cosines are sums over lists, conditions are read off a wall clock, a rate limit is a bucket that
fills, the classifier's file is read by hand. ``closest`` says how near the nearest comparison came to turning the
other way, so that no case of the file hangs on the last digit of a product of float32 vectors.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.conformance.oracle import Embed, dot, unit
from tests.conformance.steering import Step

NEAREST, MIDDLE = 0.3, 0.7
"""Of the nearest example and of the middle of all in the similarity."""
THRESHOLDS = {True: 0.26, False: 0.0}
WEIGHTS = {
    (True, ""): (-3.1, 5.9, 10.6), (True, "none_"): (3.2, -16.5, 6.8),
    (False, ""): (-2.3, 4.8, 8.4), (False, "none_"): (1.1, -12.5, 7.0),
}  # fmt: skip
"""What holds where nothing was fitted, for routes with examples and for those with a description only."""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Vector = list[float]


@dataclass
class RouteFacts:
    """One route: its fields, its vectors, and how full the bucket of its rate limit is."""

    fields: dict[str, Any]
    described: Vector | None
    examples: dict[str, Vector] = field(default_factory=dict)
    negatives: dict[str, Vector] = field(default_factory=dict)
    spent: float = 0.0
    spent_at: float = 0.0

    @property
    def positives(self) -> list[Vector]:
        return ([] if self.described is None else [self.described]) + list(self.examples.values())

    @property
    def threshold(self) -> float:
        own = self.fields["threshold"]
        return THRESHOLDS[bool(self.examples)] if own is None else float(own)

    def logit(self, similarity: float, margin: float, of: str = "") -> float:
        """Of the probability that a request is this route's; with ``none_`` that it is nobody's."""
        fitted = self.fields["calibration"]
        a, b, c = WEIGHTS[bool(self.examples), of]
        if fitted is not None:
            a, b, c = (fitted[of + key] for key in ("intercept", "slope", "margin"))
        return float(a + b * similarity + c * margin)


class RoutesOracle:
    """Follows one scene."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._active: dict[str, bool] = {}
        self._routes: dict[str, RouteFacts] = {}
        self.closest = math.inf

    def follow(self, step: Step) -> dict[str, Any] | None:
        """The answer to a step that succeeds; None where the oracle has no opinion."""
        given = step.given
        match step.call:
            case "register":
                self._active[given["config"]["name"]] = given["config"].get("is_active", True)
            case "update_agent":
                name = given["name"]
                self._active[name] = given["changes"].get("is_active", self._active[name])
            case "remove_agent":
                del self._active[given["name"]]
            case "create_route":
                self._create(given["config"])
            case "update_route":
                self._update(given["name"], given["changes"])
            case "delete_route":
                del self._routes[given["name"]]
            case "add_utterances":
                return {"done": True, "count": self._add(**given)}
            case "remove_utterances":
                return {"done": True, "count": self._drop(**given)}
            case "list_routes":
                return {"routes": self._list()}
            case "match":
                return self._match(step)
            case _:
                return None
        return {"done": True}

    # -- what there is ---------------------------------------------------------------------------------------------

    def _vector(self, text: str) -> Vector:
        return unit(self._embed(text)[0])

    def _create(self, config: dict[str, Any]) -> None:
        given = {key: value for key, value in config.items() if value is not None}
        fields = {
            "name": given["name"], "description": given.get("description", ""), "target_agent": given["target_agent"],
            "priority": given.get("priority", 0), "threshold": given.get("threshold"),
            "conditions": given.get("conditions", {}), "calibration": None, "is_active": given.get("is_active", True),
        }  # fmt: skip
        route = RouteFacts(fields, self._described(fields["description"], given.get("embedding")))
        route.examples = {text: self._vector(text) for text in given.get("utterances", ())}
        route.negatives = {text: self._vector(text) for text in given.get("negative_utterances", ())}
        self._routes[fields["name"]] = route

    def _described(self, description: str, embedding: list[float] | None) -> Vector | None:
        if embedding is not None:
            return unit(embedding)
        return self._vector(description) if description else None

    def _update(self, name: str, changes: dict[str, Any]) -> None:
        route = self._routes[name]
        usual = {"description": "", "priority": 0, "conditions": {}, "is_active": True}
        for key, value in changes.items():
            if key != "embedding":
                route.fields[key] = usual.get(key) if value is None else value
        if {"description", "embedding"} & changes.keys():
            route.described = self._described(route.fields["description"], changes.get("embedding"))

    def _add(self, name: str, utterances: list[str], negative: bool = False) -> int:
        route = self._routes[name]
        texts = route.negatives if negative else route.examples
        new = [text for text in dict.fromkeys(utterances) if text not in texts]
        texts |= {text: self._vector(text) for text in new}
        return len(new)

    def _drop(self, name: str, utterances: list[str]) -> int:
        route = self._routes[name]
        found = 0
        for text in dict.fromkeys(utterances):
            for texts in (route.examples, route.negatives):
                found += texts.pop(text, None) is not None
        return found

    def _list(self) -> list[dict[str, Any]]:
        return [
            {**route.fields, "conditions": _told(route.fields["conditions"]), "utterances": list(route.examples),
             "negative_utterances": list(route.negatives)}
            for _, route in sorted(self._routes.items())
        ]  # fmt: skip

    # -- matching --------------------------------------------------------------------------------------------------

    def _match(self, step: Step) -> dict[str, Any]:
        given = step.given
        vector = self._vector(given["request"]) if given.get("embedding") is None else unit(given["embedding"])
        spent: set[str] = set()
        while True:
            answer, best = self._answer(vector, given.get("top_k", 3), given.get("user_tier"), step.clock, spent)
            if best is None or best.fields["conditions"].get("rate_limit") is None:
                return answer
            if self._takes(best, step.clock, keep=given.get("count", True)):
                return answer
            spent.add(best.fields["name"])

    def _answer(
        self, vector: Vector, top_k: int, tier: str | None, now: float, spent: set[str]
    ) -> tuple[dict[str, Any], RouteFacts | None]:
        open_ = [
            route for name, route in sorted(self._routes.items())
            if route.fields["is_active"] and self._active.get(route.fields["target_agent"], False)
            and name not in spent and _holds(route.fields["conditions"], tier, now)
        ]  # fmt: skip
        similar = {route.fields["name"]: s for route in open_ if (s := self._similarity(route, vector)) is not None}
        if not similar:
            return {"matches": [], "none": {"similarity": None, "confidence": 1.0}}, None
        nearest = max(similar, key=lambda name: similar[name])  # the first of equals, in order of name
        margin = {
            name: own - max((s for other, s in similar.items() if other != name), default=-1.0)
            for name, own in similar.items()
        }
        passing = []
        for name, own in similar.items():
            route = self._routes[name]
            self._watch(own, route.threshold)
            if own >= route.threshold:
                passing.append((-route.fields["priority"], -route.logit(own, margin[name]), name, own))
        if not passing:
            none = _sigma(self._routes[nearest].logit(similar[nearest], margin[nearest], "none_"))
            for name, own in similar.items():
                if name != nearest:
                    self._watch(own, similar[nearest])
            return {"matches": [], "none": {"similarity": similar[nearest], "confidence": none}}, None
        passing.sort()
        for one, other in itertools.pairwise(passing):
            if one[0] == other[0]:
                self._watch(one[1], other[1])
        matches = [
            {"route_name": name, "similarity": own, "target_agent": self._routes[name].fields["target_agent"],
             "confidence": _sigma(-logit)}
            for _, logit, name, own in passing[:top_k]
        ]  # fmt: skip
        return {"matches": matches, "none": None}, self._routes[passing[0][2]]

    def _similarity(self, route: RouteFacts, vector: Vector) -> float | None:
        """A mean of two cosines; None where a negative example is as near."""
        near = max(dot(vector, example) for example in route.positives)
        against = max((dot(vector, example) for example in route.negatives.values()), default=-math.inf)
        self._watch(near, against)
        if against >= near:
            return None
        middle = [sum(column) for column in zip(*route.positives, strict=True)]
        length = math.sqrt(dot(middle, middle))
        return NEAREST * near + MIDDLE * (dot(vector, middle) / length if length > 1e-6 else 0.0)

    def _takes(self, route: RouteFacts, now: float, *, keep: bool) -> bool:
        """A bucket that every request fills by one and that leaks evenly; a clock set back fills it, never over."""
        limit = route.fields["conditions"]["rate_limit"]
        if not isinstance(limit, dict):
            limit = {"requests": limit}
        size, per_s = limit["requests"], limit.get("per_s", 60.0)
        level = route.spent - (now - route.spent_at) * size / per_s if route.spent_at else 0.0
        level = min(max(level, 0.0), float(size))
        passes = bool(level + 1.0 <= size + 0.01)
        if keep:
            route.spent, route.spent_at = level + passes, now
        return passes

    def _watch(self, one: float, other: float) -> None:
        if one != other and math.isfinite(one) and math.isfinite(other):
            self.closest = min(self.closest, abs(one - other))


def _holds(conditions: dict[str, Any], tier: str | None, now: float) -> bool:
    tiers = conditions.get("user_tier")
    if tiers is not None and tier not in ([tiers] if isinstance(tiers, str) else tiers):
        return False
    when = conditions.get("time_range")
    if when is None:
        return True
    if isinstance(when, list):
        when = {"start": when[0], "end": when[1]}
    shown = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=now)).astimezone(
        ZoneInfo(when.get("time_zone", "UTC"))
    )
    clock, day = shown.strftime("%H:%M:%S"), shown.weekday()
    days = [name.lower()[:3] for name in when.get("days", DAYS)]
    start, end = _padded(when["start"]), _padded(when["end"])
    end = "24:00:00" if end == "00:00:00" else end
    if start < end:
        return DAYS[day] in days and start <= clock < end
    return (clock >= start and DAYS[day] in days) or (clock < end and DAYS[day - 1] in days)


def _padded(time: str) -> str:
    parts = [part.zfill(2) for part in time.split(":")]
    return ":".join([*parts, "00"][:3])


def _told(conditions: dict[str, Any] | None) -> dict[str, Any]:
    """Conditions as listings show them: with every default but the days."""
    made: dict[str, Any] = {}
    given = conditions or {}
    when = given.get("time_range")
    if when is not None:
        when = {"start": when[0], "end": when[1]} if isinstance(when, list) else when
        times = {key: _padded(when[key]).removesuffix(":00") for key in ("start", "end")}
        times = {key: value if ":" in value else f"{value}:00" for key, value in times.items()}
        times["end"] = "24:00" if times["end"] == "00:00" else times["end"]
        made["time_range"] = {**times, "time_zone": when.get("time_zone", "UTC")}
        days = [day for day in DAYS if day in [name.lower()[:3] for name in when.get("days", DAYS)]]
        if len(days) < 7:
            made["time_range"]["days"] = days
    if given.get("user_tier") is not None:
        tiers = given["user_tier"]
        made["user_tier"] = [tiers] if isinstance(tiers, str) else list(dict.fromkeys(tiers))
    if given.get("rate_limit") is not None:
        limit = given["rate_limit"]
        limit = limit if isinstance(limit, dict) else {"requests": limit}
        made["rate_limit"] = {"requests": limit["requests"], "per_s": float(limit.get("per_s", 60.0))}
    return made


def _sigma(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value)) if value >= 0.0 else math.exp(value) / (1.0 + math.exp(value))


WORDS = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
LONG = 2_000
"""Characters of which words are looked at; of a longer text its first and its last half of this."""
TYPES = {"F32": "f", "F16": "e", "U32": "I"}


class ClassesOracle:
    """What the shipped classifier's file says of a request.

    One step of its network, one linear head, and what the text's words and pairs of neighbours add.
    """

    def __init__(self, path: Path, embed: Embed) -> None:
        raw = path.read_bytes()
        (length,) = struct.unpack_from("<Q", raw)
        header = json.loads(raw[8 : 8 + length])
        about = header.pop("__metadata__")
        facts = json.loads(about["metadata"])
        config = facts["config"]
        if not config["tied"] or config["rank_w"] is not None:
            raise SystemExit(f"The classifier's network is {config}; the oracle knows one matrix W.")
        self.name = f"classifier:{about['sha256'][:12]}"
        self.classes: list[str] = facts["classes"]
        self.capabilities: list[str] = facts["capabilities"]
        self._embed = embed
        self._t: dict[str, list[float]] = {}
        for name, spec in header.items():
            begin, end = spec["data_offsets"]
            kind, count = TYPES[spec["dtype"]], math.prod(spec["shape"])
            self._t[name] = list(struct.unpack(f"<{count}{kind}", raw[8 + length + begin : 8 + length + end]))
        self._rows = {int(key): row for row, key in enumerate(self._t.get("word_keys", ()))}

    def answer(self, step: Step) -> dict[str, Any]:
        """As ``classify`` gives it."""
        given = step.given.get("embedding")
        x = unit(self._embed(step.given["request"])[0] if given is None else given)
        t, width = self._t, len(self._t["b"]) // 2
        (zeta,), (nu,) = t["zeta"], t["nu"]
        state = []
        for row in range(width):
            a = dot(t["w"][row * len(x) : (row + 1) * len(x)], x)
            z = _sigma(a + t["b"][row])
            state.append((zeta * (1.0 - z) + nu) * math.tanh(a + t["b"][width + row]))
        logits = [dot(t["w_out"][row * width : (row + 1) * width], state) + bias for row, bias in enumerate(t["b_out"])]
        if given is None and self._rows:
            logits = self._with_words(logits, step.given["request"])
        first = len(self.classes)
        powers = [math.exp(value - max(logits[:first])) for value in logits[:first]]
        classes = _ranked(self.classes, [power / sum(powers) for power in powers])
        wanted = [pair for pair in _ranked(self.capabilities, [_sigma(v) for v in logits[first:]]) if pair[1] > 0.5]
        return {
            "classifications": classes, "top_category": classes[0][0], "confidence": classes[0][1],
            "capabilities": wanted, "model": self.name,
        }  # fmt: skip

    def _with_words(self, logits: list[float], text: str) -> list[float]:
        if len(text) > LONG:
            text = f"{text[: LONG // 2]}\n{text[-LONG // 2 :]}"
        words = ["0" if word.isdigit() else word for word in WORDS.findall(text.lower())]
        pairs = [f"{one} {other}" for one, other in itertools.pairwise(["<", *words, ">"])]
        width = len(logits) + 1
        total = [0.0] * width
        for feature in {*words, *pairs}:
            row = self._rows.get(zlib.crc32(feature.encode()))
            if row is not None:
                own = self._t["word_weights"][row * width : (row + 1) * width]
                total = [have + more for have, more in zip(total, own, strict=True)]
        if total[-1] == 0.0:
            return logits  # no word is known: the vector has to do
        norm = math.sqrt(total[-1])
        return [
            factor * by_vector + own / norm + bias
            for factor, by_vector, own, bias in zip(
                self._t["word_vector_factors"], logits, total[:-1], self._t["word_bias"], strict=True
            )
        ]


def _ranked(names: Sequence[str], shares: Sequence[float]) -> list[list[Any]]:
    return [list(pair) for pair in sorted(zip(names, shares, strict=True), key=lambda pair: (-pair[1], pair[0]))]
