"""The HTTP embedder against a real server on this machine: order, batches, retries, bad answers, and the key."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from tinydancer.embedding import Embedder, OpenAICompatibleEmbedder
from tinydancer.embedding.http import LONGEST_WAIT_S
from tinydancer.errors import EmbedderError, InvalidInputError, InvalidVectorError, SpaceMismatchError
from tinydancer.types import EmbeddingSpace

KEY = "sk-very-secret-0123456789"
SPACE = EmbeddingSpace("three", 3)
Answer = tuple[int, dict[str, str], bytes]


def vector_of(text: str) -> list[float]:
    return [float(len(text)), float(text.count("a")), 1.0]


def good(body: dict[str, Any]) -> dict[str, Any]:
    data = [{"object": "embedding", "index": i, "embedding": vector_of(t)} for i, t in enumerate(body["input"])]
    return {"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": 10 * len(data)}}


class Service:
    """A /v1/embeddings service that answers as scripted, then well."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.script: list[Answer | Callable[[dict[str, Any]], Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.requests.append((self.path, dict(self.headers), body))
                step = service.script.pop(0) if service.script else good
                if callable(step):
                    step = (200, {}, json.dumps(step(body)).encode())
                status, headers, payload = step
                if status == 0:  # hang up without a word
                    self.connection.close()
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that gave up waiting is part of a test, and nothing to print."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    one = Service()
    yield one
    one.stop()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def make(
    service: Service, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., OpenAICompatibleEmbedder]]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made: list[OpenAICompatibleEmbedder] = []

    def build(**options: Any) -> OpenAICompatibleEmbedder:
        settings: dict[str, Any] = {"base_url": service.url, "model": "tiny", "space": SPACE, "sleep": waits.append}
        made.append(OpenAICompatibleEmbedder(**{**settings, **options}))
        return made[-1]

    yield build
    for embedder in made:
        embedder.close()


Make = Callable[..., OpenAICompatibleEmbedder]


def test_texts_become_unit_vectors_with_the_documented_request(service: Service, make: Make) -> None:
    embedder = make()
    vectors, counts = embedder.embed(["banana", "kiwi"])
    expected = np.array([vector_of("banana"), vector_of("kiwi")])
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert counts.sum() == pytest.approx(20.0)
    assert counts[0] == pytest.approx(1.5 * counts[1])
    ((path, headers, body),) = service.requests
    assert path == "/v1/embeddings"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {"model": "tiny", "input": ["banana", "kiwi"], "encoding_format": "float"}
    assert isinstance(embedder, Embedder)
    assert (embedder.name, embedder.space) == ("openai-compatible", SPACE)


def test_no_texts_ask_nobody(service: Service, make: Make) -> None:
    vectors, counts = make().embed([])
    assert (vectors.shape, counts.shape, service.requests) == ((0, 3), (0,), [])


def test_many_texts_go_in_batches_and_come_back_in_order(service: Service, make: Make) -> None:
    texts = ["a" * (i + 1) for i in range(10)]
    vectors = make(batch_size=4).embed(texts).vectors
    assert [len(body["input"]) for _, _, body in service.requests] == [4, 4, 2]
    np.testing.assert_allclose(vectors[:, 0] / vectors[:, 2], np.arange(1, 11), rtol=1e-5)


def test_items_are_ordered_by_their_index(service: Service, make: Make) -> None:
    service.script = [lambda body: {"data": good(body)["data"][::-1]}]
    vectors, counts = make().embed(["a", "bbbbbbbb"])
    assert vectors[0, 1] > 0
    assert vectors[1, 1] == 0
    assert counts.tolist() == [1.0, 2.0]


def test_items_without_index_are_taken_as_they_come(service: Service, make: Make) -> None:
    service.script = [lambda body: {"data": [{"embedding": vector_of(t)} for t in body["input"]], "usage": {}}]
    assert make().embed(["b", "a"]).vectors[:, 1].tolist()[0] == 0.0


def test_a_service_without_key_gets_no_authorization(service: Service, make: Make) -> None:
    make(api_key_env=None).embed(["x"])
    assert "Authorization" not in service.requests[0][1]


# Retries


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(service: Service, make: Make, waits: list[float], status: int) -> None:
    service.script = [(status, {}, b"busy"), (status, {}, b"busy")]
    assert make(backoff_s=1.0).embed(["x"]).vectors.shape == (1, 3)
    assert len(service.requests) == 3
    assert len(waits) == 2
    assert 1.0 <= waits[0] <= 1.25
    assert 2.0 <= waits[1] <= 2.5


def test_a_dropped_connection_is_tried_again(service: Service, make: Make, waits: list[float]) -> None:
    service.script = [(0, {}, b"")]
    assert make().embed(["x"]).vectors.shape == (1, 3)
    assert len(waits) == 1


@pytest.mark.parametrize(
    ("header", "waited"),
    [("7", 7.0), ("0", 0.0), ("100000", LONGEST_WAIT_S), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("-3", None)],
)
def test_retry_after_is_honoured_within_reason(
    service: Service, make: Make, waits: list[float], header: str, waited: float | None
) -> None:
    service.script = [(429, {"Retry-After": header}, b"")]
    make(backoff_s=0.5).embed(["x"])
    if waited is None:
        assert 0.5 <= waits[0] <= 0.625
    else:
        assert waits == [waited]


def test_jitter_comes_from_the_seed(service: Service, make: Make, waits: list[float]) -> None:
    for seed in (1, 1, 2):
        service.script = [(500, {}, b"")]
        make(seed=seed).embed(["x"])
    assert waits[0] == waits[1] != waits[2]


def test_after_the_last_try_the_error_says_what_happened(service: Service, make: Make, waits: list[float]) -> None:
    service.script = [(503, {}, b"")] * 9
    with pytest.raises(EmbedderError, match="answered 503, 3 times"):
        make(retries=2).embed(["x"])
    assert len(service.requests) == 3
    assert len(waits) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_a_refusal_is_not_tried_again(service: Service, make: Make, waits: list[float], status: int) -> None:
    service.script = [(status, {}, json.dumps({"error": f"bad key {KEY}"}).encode())]
    with pytest.raises(EmbedderError, match=f"answered {status}") as caught:
        make().embed(["x"])
    assert (len(service.requests), waits) == (1, [])
    assert KEY not in str(caught.value.to_dict())


def test_a_slow_answer_is_a_timeout(service: Service, make: Make) -> None:
    release = threading.Event()

    def slow(body: dict[str, Any]) -> dict[str, Any]:
        release.wait(20)
        return good(body)

    service.script = [slow]
    started = time.monotonic()
    with pytest.raises(EmbedderError, match="did not answer: ReadTimeout"):
        make(read_timeout_s=0.2, retries=0).embed(["x"])
    release.set()
    assert time.monotonic() - started < 15


def test_nobody_listening_is_an_error_after_the_retries(make: Make, waits: list[float]) -> None:
    gone = Service()
    gone.stop()
    with pytest.raises(EmbedderError, match="ConnectError, 2 times") as caught:
        make(base_url=gone.url, retries=1).embed(["x"])
    assert len(waits) == 1
    assert gone.url in str(caught.value)


# Bad answers


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([1, 2], "no JSON object"),
        ({"data": "none"}, "no embeddings for 1 texts"),
        ({}, "no embeddings for 1 texts"),
        ({"data": []}, "0 embeddings for 1 texts"),
        ({"data": [{"index": 1, "embedding": [1, 2, 3]}]}, "wrong or repeated index"),
        ({"data": [{"index": "0", "embedding": [1, 2, 3]}]}, "wrong or repeated index"),
        ({"data": ["?"]}, "wrong or repeated index"),
        ({"data": [{"index": 0, "embedding": "AAAA"}]}, "no list of numbers"),
        ({"data": [{"index": 0}]}, "no list of numbers"),
        ({"data": [{"index": 0, "embedding": ["a", "b", "c"]}]}, "no array of numbers"),
    ],
)
def test_a_bad_answer_is_an_error_that_says_how(service: Service, make: Make, answer: Any, message: str) -> None:
    service.script = [lambda body: answer]
    with pytest.raises(EmbedderError, match=message):
        make().embed(["x"])


def test_a_repeated_index_is_an_error(service: Service, make: Make) -> None:
    service.script = [lambda body: {"data": [{"index": 0, "embedding": [1, 2, 3]}] * 2}]
    with pytest.raises(EmbedderError, match="repeated index at position 1"):
        make().embed(["x", "y"])


def test_html_is_no_json(service: Service, make: Make) -> None:
    service.script = [(200, {}, b"<html>welcome</html>")]
    with pytest.raises(EmbedderError, match="no JSON object"):
        make().embed(["x"])


def test_another_dimension_names_both(service: Service, make: Make) -> None:
    service.script = [lambda body: {"data": [{"index": 0, "embedding": [1.0, 2.0]}]}]
    with pytest.raises(SpaceMismatchError, match="2 dimensions; its space 'three' has 3"):
        make().embed(["x"])


@pytest.mark.parametrize("vector", [[float("nan"), 1.0, 1.0], [0.0, 0.0, 0.0], [float("inf"), 1.0, 1.0]])
def test_a_vector_without_direction_is_an_error(service: Service, make: Make, vector: list[float]) -> None:
    service.script = [lambda body: {"data": [{"index": 0, "embedding": vector}]}]
    with pytest.raises(InvalidVectorError, match="zero or non-finite"):
        make().embed(["x"])


# Construction and the key


def test_the_key_is_in_no_error_repr_or_log(service: Service, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service.script = [(500, {}, KEY.encode()), (401, {}, KEY.encode())]
    embedder = make()
    with pytest.raises(EmbedderError) as caught:
        embedder.embed(["x"])
    shown = [repr(embedder), str(caught.value), repr(caught.value), str(caught.value.__cause__), caplog.text]
    assert not any(KEY in text for text in shown)
    assert "tiny" in repr(embedder)


def test_a_missing_key_names_the_variable(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "  ")
    with pytest.raises(EmbedderError, match="MY_KEY"):
        make(api_key_env="MY_KEY")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:80"}, "http://"),
        ({"base_url": "http://[::1"}, "no valid URL"),
        ({"base_url": f"http://me:{KEY}@127.0.0.1/v1"}, "user name or password"),
        ({"model": ""}, "embedding model"),
        ({"batch_size": 0}, "batch_size"),
        ({"retries": -1}, "retries"),
        ({"read_timeout_s": 0}, "read_timeout_s"),
        ({"connect_timeout_s": float("nan")}, "connect_timeout_s"),
        ({"backoff_s": -1}, "backoff_s"),
    ],
)
def test_a_bad_argument_is_named_and_no_password_shown(make: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        make(**options)
    assert KEY not in str(caught.value)


def test_a_query_in_the_url_is_not_shown(make: Make, service: Service) -> None:
    assert KEY not in repr(make(base_url=f"{service.url}?key={KEY}"))


def test_it_closes_its_connections_when_left(make: Make) -> None:
    with make() as embedder:
        embedder.embed(["x"])
    with pytest.raises(RuntimeError, match="closed"):
        embedder.embed(["x"])


def test_without_httpx_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['httpx'] = None\n"
        "from tinydancer.embedding import OpenAICompatibleEmbedder\n"
        "from tinydancer.types import MINILM_SPACE\n"
        "OpenAICompatibleEmbedder('http://localhost/v1', 'm', MINILM_SPACE, api_key_env=None)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "EmbedderError" in run.stderr
    assert "pip install 'tiny-dancer[http]'" in run.stderr
