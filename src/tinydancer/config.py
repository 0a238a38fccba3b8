"""Settings of a deployment, from ``tinydancer.yaml`` or from keyword arguments.

In: a YAML file. Out: `Settings`, checked; a mistake is a `ConfigError` that names the file, the line and the key.
Secrets never stand in the file: it names the environment variable that holds the key.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tinydancer import validation as check
from tinydancer.errors import ConfigError, InvalidInputError, TinyDancerError
from tinydancer.snapshot import DecisionSettings
from tinydancer.types import DEFAULT_TENANT, MINILM_SPACE, EmbeddingSpace

CONFIG_FILE = "tinydancer.yaml"
EMBEDDERS = ("static", "minilm", "openai", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderSettings:
    """How texts become vectors.

    Parameters
    ----------
    kind
        ``static`` (shipped, offline, the default), ``minilm`` (the sentence transformer; extra ``minilm``), ``openai``
        (any endpoint that answers ``/v1/embeddings``; extra ``http``), or ``none`` (callers bring vectors).
    space, dim
        Name and dimension of the vector space. By default that of all-MiniLM-L6-v2, 384; ``static`` and ``minilm``
        have no other; ``openai`` must say its dimension, and takes its model's name if it names no space.
    model_path
        ``minilm``: a directory with the model; the installed package's by default.
    base_url, model, api_key_env, timeout_s
        ``openai``: where, which, the environment variable with the key, and how long to wait.
    """

    kind: str = "static"
    space: str | None = None
    dim: int | None = None
    model_path: str | None = None
    base_url: str | None = None
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if self.kind not in EMBEDDERS:
            raise InvalidInputError(f"kind is {check.shown(self.kind)}; expected one of: {', '.join(EMBEDDERS)}.")
        if self.kind == "openai" and not (self.base_url and self.model and self.dim):
            raise InvalidInputError("kind openai has no base_url, no model or no dim; expected all three.")
        space = self.vector_space
        if self.kind in ("static", "minilm") and space != MINILM_SPACE:
            raise InvalidInputError(f"space is {space}; the {self.kind} embedder's is {MINILM_SPACE}.")
        for key in ("space", "model_path", "base_url", "model", "api_key_env"):
            value = getattr(self, key)
            if value is not None and not isinstance(value, str):
                raise InvalidInputError(f"{key} is {check.shown(value)}; expected text.")
        check.number(self.timeout_s, "timeout_s", low=0.001, high=3600.0, unit="s")

    @property
    def vector_space(self) -> EmbeddingSpace:
        """The space, with what the settings leave open filled in."""
        own_name = self.model if self.kind == "openai" and self.model else MINILM_SPACE.name
        name = own_name if self.space is None else self.space
        return EmbeddingSpace(name, MINILM_SPACE.dim if self.dim is None else self.dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a deployment chooses.

    Parameters
    ----------
    store
        Path of the SQLite file.
    tenant
        Whose agents and decisions these are.
    record_decisions
        ``true``, ``false``, or the share of decisions to record, in [0, 1].
    record_requests
        Whether the text of a request is stored with its decision.
    record_features
        Whether a request's vector and facts of its text (0.8 KB) are stored with its decision although no model is in
        use, so that one can be trained on them later. With a model in use they always are: it learns from them.
    max_request_chars
        Longest request accepted, in characters.
    stats_refresh_s
        How old, in seconds, the statistics of other processes' outcomes may be when a decision is made; changes of
        the registry and this process's own outcomes count at once.
    decision_cache_entries
        How many decisions of the latest texts are kept, to be reused for the same text under the same registry, model
        and statistics, and how many embeddings; 0 keeps none. In the memory of each process.
    embedder
        See `EmbedderSettings`.
    decisions
        See `DecisionSettings`.
    """

    store: str = "tinydancer.db"
    tenant: str = DEFAULT_TENANT
    record_decisions: bool | float = True
    record_requests: bool = False
    record_features: bool = False
    max_request_chars: int = check.MAX_REQUEST_CHARS
    stats_refresh_s: float = 0.25
    decision_cache_entries: int = 1000
    embedder: EmbedderSettings = field(default_factory=EmbedderSettings)
    decisions: DecisionSettings = field(default_factory=DecisionSettings)

    def __post_init__(self) -> None:
        store: object = self.store
        if not isinstance(store, str) or not store:
            raise InvalidInputError(f"store is {check.shown(store)}; expected the path of a file.")
        check.name_of(self.tenant, "tenant")
        if not isinstance(self.record_decisions, bool):
            check.number(self.record_decisions, "record_decisions", low=0.0, high=1.0)
        check.boolean(self.record_requests, "record_requests")
        check.boolean(self.record_features, "record_features")
        check.count(self.max_request_chars, "max_request_chars", low=1, high=10**9)
        check.number(self.stats_refresh_s, "stats_refresh_s", low=0.0, high=86_400.0, unit="s")
        check.count(self.decision_cache_entries, "decision_cache_entries", high=1_000_000)

    @property
    def recorded_share(self) -> float:
        """The share of decisions that is recorded, in [0, 1]."""
        return float(self.record_decisions)


_SECTIONS: dict[str, type[Any]] = {"embedder": EmbedderSettings, "decisions": DecisionSettings}


def load_settings(path: str | Path) -> Settings:
    """Read a settings file.

    Raises
    ------
    ConfigError
        The file cannot be read, is no YAML, or holds an unknown key or a bad value: says which, on which line.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"The settings file {file} does not exist.", hint="Write one with: tinydancer init") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The settings file {file} cannot be read: {error}.") from None
    return parse_settings(text, str(file))


def parse_settings(text: str, file: str = CONFIG_FILE) -> Settings:
    """`load_settings` on a text; `file` names it in errors."""
    import yaml  # a session inside PostgreSQL reads no file, and its memory counts

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{file}, line {line}: no valid YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: no valid YAML: {error}.") from None
    if node is None:
        return Settings()
    values = _mapping(node, file, Settings, "")
    for section, kind in _SECTIONS.items():
        if section in values:
            values[section] = _build(kind, *_section(values[section], file, kind, section), file)
    settings: Settings = _build(Settings, values, {key: _line(node, key) for key in values}, file)
    return settings


def _section(node: Any, file: str, kind: type[Any], section: str) -> tuple[dict[str, Any], dict[str, int]]:
    values = _mapping(node, file, kind, section)
    return values, {key: _line(node, key) for key in values}


def _mapping(node: Any, file: str, kind: type[Any], section: str) -> dict[str, Any]:
    """The plain values of a YAML mapping; sections stay nodes."""
    import yaml

    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{file}, line {line}: {section or 'the file'} is no mapping; expected 'key: value' lines.")
    known = [f.name for f in fields(kind)]
    values: dict[str, Any] = {}
    loader = yaml.SafeLoader("")
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        where = f"{section}.{key}" if section else key
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ConfigError(
                f"{file}, line {line}: unknown key {check.shown(where)}; known are: {', '.join(known)}.",
                hint=f"Did you mean {near[0]!r}?" if near else "",
            )
        if key in values:
            raise ConfigError(f"{file}, line {line}: the key {where!r} is given twice.")
        is_section = not section and key in _SECTIONS
        values[key] = value_node if is_section else loader.construct_object(value_node, deep=True)
    return values


def _line(node: Any, key: str) -> int:
    return next(int(k.start_mark.line) + 1 for k, _ in node.value if k.value == key)


def _build(kind: type[Any], values: dict[str, Any], lines: dict[str, int], file: str) -> Any:
    try:
        return kind(**values)
    except (TinyDancerError, TypeError) as error:
        # The check names the key it stumbled over first; without one the first line of the section must do.
        message = str(error)
        key = next((k for k in values if k in message), next(iter(values), ""))
        raise ConfigError(f"{file}, line {lines.get(key, 1)}, key {key!r}: {message}") from None
