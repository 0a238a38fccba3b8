"""Any embedding service that speaks the ``/v1/embeddings`` dialect of OpenAI.

In: texts. Out: unit vectors in the space the caller names. Needs the extra ``http`` (httpx). The key is read from an
environment variable when the embedder is made and appears nowhere else: not in errors, not in ``repr``, not in logs.
Sleep and the seed of the jitter come in as arguments, so that a test waits for nobody.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinydancer import validation as check
from tinydancer.embedding.base import Embedded, estimated_tokens, unit_rows
from tinydancer.errors import EmbedderError, InvalidInputError
from tinydancer.types import EmbeddingSpace

if TYPE_CHECKING:
    import httpx

DEFAULT_API_KEY_ENV = "OPENAI_API_KEY"
RETRIED_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504})
LONGEST_WAIT_S = 60.0
"""No single wait between two tries is longer, whatever the service asks for."""
_INSTALL = "Install it with: pip install 'tiny-dancer[http]'"


class OpenAICompatibleEmbedder:
    """Vectors from an HTTP service: OpenAI, Ollama, vLLM, llama.cpp, text-embeddings-inference and others.

    Parameters
    ----------
    base_url
        With the version path, for example ``https://api.openai.com/v1`` or ``http://localhost:11434/v1``.
    model
        The service's name of the model.
    space
        The space its vectors are in; its ``dim`` is checked on every answer.
    api_key_env
        Environment variable with the key; None for a service without one.
    connect_timeout_s, read_timeout_s
        Seconds to wait for a connection, and for an answer, each above 0.
    batch_size
        Most texts per call, at least 1.
    retries
        Further tries after a failed one (connection, timeout, 408, 409, 429, 5xx), at least 0.
    backoff_s
        First wait in seconds; it doubles with each try, with up to a quarter of jitter on top. A ``Retry-After`` in
        seconds is honoured instead. No wait is longer than `LONGEST_WAIT_S`.
    sleep
        Called with seconds.
    seed
        Of the jitter.

    Attributes
    ----------
    name
        ``openai-compatible``.

    Raises
    ------
    EmbedderError
        httpx is not installed, or the environment variable with the key is empty.
    InvalidInputError
        An argument out of range.
    """

    name = "openai-compatible"

    def __init__(
        self,
        base_url: str,
        model: str,
        space: EmbeddingSpace,
        *,
        api_key_env: str | None = DEFAULT_API_KEY_ENV,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 30.0,
        batch_size: int = 128,
        retries: int = 3,
        backoff_s: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
        seed: int = 0,
    ) -> None:
        if not str(base_url).startswith(("http://", "https://")):
            raise InvalidInputError("base_url must start with http:// or https://.")
        self.space = space
        self.model = check.name_of(model, "embedding model")
        self._batch_size = check.count(batch_size, "batch_size", low=1)
        self._retries = check.count(retries, "retries")
        self._backoff_s = check.number(backoff_s, "backoff_s", low=0.0, unit="s")
        self._sleep = sleep
        self._random = random.Random(seed)
        connect_s = check.number(connect_timeout_s, "connect_timeout_s", low=1e-3, unit="s")
        read_s = check.number(read_timeout_s, "read_timeout_s", low=1e-3, unit="s")
        try:
            import httpx
        except ImportError:
            raise EmbedderError("The HTTP embedder needs httpx.", hint=_INSTALL) from None
        try:
            url = httpx.URL(base_url.rstrip("/") + "/embeddings")
        except httpx.InvalidURL:
            raise InvalidInputError("base_url is no valid URL.") from None
        if url.userinfo:
            raise InvalidInputError("base_url holds a user name or password.", hint="Use api_key_env for the key.")
        # Queries may hold keys; only scheme, host and path are ever shown.
        self._url, self._where = url, str(url.copy_with(query=None))
        headers = {}
        if api_key_env is not None:
            key = os.environ.get(api_key_env, "").strip()
            if not key:
                raise EmbedderError(
                    f"The environment variable {api_key_env} with the key of {self._where} is not set.",
                    hint="Set it, or pass api_key_env=None for a service without a key.",
                )
            headers["Authorization"] = f"Bearer {key}"
        timeout = httpx.Timeout(read_s, connect=connect_s)
        self._client: httpx.Client = httpx.Client(headers=headers, timeout=timeout, follow_redirects=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._where!r}, model={self.model!r}, space={self.space})"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> OpenAICompatibleEmbedder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def embed(self, texts: Sequence[str]) -> Embedded:
        """See `Embedder.embed`; at most ``batch_size`` texts go into one call, calls follow each other.

        Token counts are estimated from characters, spread so that they sum to the service's own count if it gives one.
        """
        if not texts:
            return Embedded(np.zeros((0, self.space.dim), np.float32), np.zeros(0))
        vectors, counts = [], []
        for start in range(0, len(texts), self._batch_size):
            batch = list(texts[start : start + self._batch_size])
            answer = self._ask({"model": self.model, "input": batch, "encoding_format": "float"})
            vectors.append(self._vectors(answer, len(batch)))
            counts.append(_spread_tokens(answer, batch))
        return Embedded(np.concatenate(vectors), np.concatenate(counts))

    def _ask(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        import httpx

        for attempt in range(self._retries + 1):
            wait_s = self._backoff_s * 2.0**attempt * (1.0 + 0.25 * self._random.random())
            try:
                response = self._client.post(self._url, json=body)
            except httpx.TransportError as error:
                problem = f"did not answer: {type(error).__name__}"
            else:
                if response.status_code == 200:
                    return self._json(response)
                problem = f"answered {response.status_code}"
                if response.status_code not in RETRIED_STATUS:
                    raise self._error(problem, "Check base_url, model and key.")
                wait_s = _retry_after_s(response.headers.get("retry-after"), wait_s)
            if attempt < self._retries:
                self._sleep(min(wait_s, LONGEST_WAIT_S))
        raise self._error(f"{problem}, {self._retries + 1} times", "Try later, or raise retries or the timeouts.")

    def _json(self, response: httpx.Response) -> Mapping[str, Any]:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, Mapping):
            raise self._error("answered something that is no JSON object", "Check base_url; it ends in /v1, usually.")
        return answer

    def _vectors(self, answer: Mapping[str, Any], n: int) -> npt.NDArray[np.float32]:
        """The vectors in the order of the texts: services may answer in any, each item says its ``index``."""
        items = answer.get("data")
        if not isinstance(items, list) or len(items) != n:
            given = len(items) if isinstance(items, list) else "no"
            raise self._error(f"returned {given} embeddings for {n} texts")
        ordered: list[Any] = [None] * n
        for position, item in enumerate(items):
            index = item.get("index", position) if isinstance(item, Mapping) else None
            if not isinstance(index, int) or not 0 <= index < n or ordered[index] is not None:
                raise self._error(f"returned a wrong or repeated index at position {position}")
            ordered[index] = item.get("embedding")
            if not isinstance(ordered[index], list):
                raise self._error(f"returned no list of numbers at position {position}")
        return unit_rows(ordered, self.space, n, f"{self.model} at {self._where}")

    def _error(self, problem: str, hint: str = "") -> EmbedderError:
        return EmbedderError(f"The embedding service {self._where} {problem}.", hint=hint)


def _spread_tokens(answer: Mapping[str, Any], texts: list[str]) -> npt.NDArray[np.float64]:
    estimates = estimated_tokens(texts)
    usage = answer.get("usage")
    total = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    if not isinstance(total, int) or total < len(texts):
        return estimates
    return np.maximum(1.0, estimates * (total / float(estimates.sum())))


def _retry_after_s(header: str | None, otherwise: float) -> float:
    try:
        seconds = float(header) if header else otherwise
    except ValueError:  # a date; our own back-off serves as well
        return otherwise
    return seconds if seconds >= 0.0 else otherwise
