"""Price lists in the JSON shape LiteLLM made common: model name to an object with prices per token.

In: parsed JSON. Out: agents with the prices it states. A price that is absent stays unknown; a price in a unit that
is not the token (per image, per second of audio, per character) leaves the cost unknown rather than wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from tinydancer import validation as check
from tinydancer.errors import InvalidInputError, TinyDancerError
from tinydancer.types import Agent, CostModel

_PRICES = {
    "input_cost_per_token": "input_cost_per_token",
    "output_cost_per_token": "output_cost_per_token",
    "cache_read_input_token_cost": "cached_input_cost_per_token",
}
_TYPES = {
    "chat": "llm",
    "completion": "llm",
    "responses": "llm",
    "embedding": "embedding",
    "image_generation": "vision",
    "audio_transcription": "audio",
    "audio_speech": "audio",
}
_FACTS = ("litellm_provider", "mode", "max_input_tokens", "max_output_tokens")


def agents_from_price_list(prices: Any, patterns: tuple[str, ...] = ()) -> list[Agent]:
    """Agents named as in the list, with its prices; `patterns` (``gpt-*``) choose among them, none takes all.

    Raises
    ------
    InvalidInputError
        The list is no object of objects, or a price is no number, negative or absurd: says which model.
    """
    if not isinstance(prices, Mapping):
        raise InvalidInputError(
            f"The price list is {check.shown(prices)}; expected a JSON object from model names to prices."
        )
    agents = []
    for name, entry in prices.items():
        if name == "sample_spec" or (patterns and not any(fnmatchcase(name, p) for p in patterns)):
            continue
        try:
            agents.append(_agent(name, entry))
        except TinyDancerError as error:
            raise InvalidInputError(f"Price list, model {check.shown(name)}: {error}") from None
    return agents


def _agent(name: str, entry: Any) -> Agent:
    if not isinstance(entry, Mapping):
        raise InvalidInputError(f"its entry is {check.shown(entry)}; expected a JSON object.")
    stated = {ours: entry[theirs] for theirs, ours in _PRICES.items() if entry.get(theirs) is not None}
    mode = str(entry.get("mode") or "chat")
    if mode == "embedding" and "input_cost_per_token" in stated:
        stated.setdefault("output_cost_per_token", 0.0)  # an embedding has no output tokens to bill
    return Agent(
        name=name,
        agent_type=_TYPES.get(mode, mode),
        cost=CostModel(**stated),
        metadata={key: entry[key] for key in _FACTS if entry.get(key) is not None},
    )
