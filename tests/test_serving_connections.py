"""Connections to the server: who may ask, and clients that leave, wait or send nonsense."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from base64 import b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from time import sleep
from types import ModuleType

import pytest
from starlette.responses import Response
from starlette.types import Message

from charlstm.export.page import format_page_policy, render_writing_page
from charlstm.infilling import candidates, context, ranking
from charlstm.infilling.gaps import GapBatch
from charlstm.matrices import Array
from charlstm.pages import hash_source
from charlstm.sampling.filters import log_softmax
from charlstm.serving import guard
from charlstm.serving import server as server_module
from charlstm.serving.filling import FillingThread
from charlstm.serving.page import render_home
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Ids
from tests.support.server import RunningServer, running_server, wait_until

MODEL = "best.safetensors"
LONG = {"prompt": "The ", "max_tokens": 100_000, "seed": 1}


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[RunningServer]:
    with running_server({"letters": run / MODEL}) as started:
        yield started


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for silent clients for a moment only."""
    monkeypatch.setattr(server_module, "PATIENCE", 0.1)
    monkeypatch.setattr(guard, "BODY_WAIT", 0.2)


def connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def post(path: str, body: bytes, headers: str = "") -> bytes:
    """Return a request as bytes."""
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def read_all(connection: socket.socket) -> bytes:
    """Return what the server sends until it closes the connection."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def count_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "example.com"},
        {"Host": "example.com:80"},
        {"Host": "localhost.example.com"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Host": "localhost/health?"},
        {"Host": "me@localhost"},
        {"Origin": "http://["},
        {"Origin": "https://example.com"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
    ids=str,
)
def test_a_request_that_another_site_may_have_made_is_rejected(
    server: RunningServer, headers: Mapping[str, str]
) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/completions"), ("GET", "/"), ("GET", "/health")):
        assert server.request(method, path, b"{}" if method == "POST" else None, headers).status == 403


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "localhost:1234"])
def test_the_names_of_this_machine_are_accepted(server: RunningServer, name: str) -> None:
    assert server.request("GET", "/health", headers={"Host": name}).json == {"status": "ok"}
    assert server.request("GET", "/health", headers={"Host": name, "Origin": f"http://{name}"}).status == 200


def test_a_connection_sends_at_once_what_it_has(server: RunningServer) -> None:
    """Otherwise the second part of a response waits for 40 ms on a connection that is used again."""
    with connect(server):
        wait_until(lambda: server.count_connections() > 0)
        for connection in server.server.server_state.connections:
            accepted = connection.transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_no_response_can_be_framed_sniffed_or_read_by_another_site(server: RunningServer) -> None:
    for path in ("/", "/health", "/v1/models", "/none"):
        headers = server.request("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert not [name for name in headers if name.startswith("access-control") or name == "server"]
    preflight = {"Origin": f"http://localhost:{server.port}", "Access-Control-Request-Method": "POST"}
    assert server.request("OPTIONS", "/v1/completions", headers=preflight).status in (403, 405)


def test_an_internal_error_has_the_headers_of_every_response(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.models["letters"], "describe", None)
    reply = server.request("GET", "/v1/models")
    assert (reply.status, reply.json["error"]["type"]) == (500, "server_error")
    assert reply.headers.items() >= guard.SECURITY_HEADERS.items()


def test_a_page_lists_the_models_and_allows_only_its_own_style(server: RunningServer) -> None:
    page = server.request("GET", "/models")
    assert page.headers["content-type"].startswith("text/html")
    assert b'<a href="/write/letters">letters</a>' in page.body
    assert f"http://127.0.0.1:{server.port}/v1/completions".encode() in page.body
    assert all(endpoint in page.body for endpoint in (b">GET /<", b">GET /write/NAME<", b">GET /models<"))
    assert b"prefers-color-scheme: dark" in page.body
    style = page.body.decode().split("<style>")[1].split("</style>")[0]
    assert f"style-src {hash_source(style)};" in page.headers["content-security-policy"]
    assert "script-src" not in page.headers["content-security-policy"]
    assert server.request("GET", "/write/none").status == 404


def test_the_name_of_a_model_can_neither_end_an_element_nor_turn_the_text_around(server: RunningServer) -> None:
    page = render_home({"<b>\u202e{url}": server.models["letters"]}, "http://localhost")
    assert "\u202e" not in page
    assert page.count("<b>") == 0
    assert page.count("{url}") == 1


def test_the_only_model_writes_on_the_page_at_the_root(server: RunningServer, run: Path) -> None:
    page = server.request("GET", "/")
    assert page.body.decode() == render_writing_page(ModelFile.load(run / MODEL), "letters")
    assert server.request("GET", "/write/letters").body == page.body
    assert page.headers["content-security-policy"].startswith(format_page_policy())


def test_a_key_is_required_of_everyone_if_there_is_one(run: Path) -> None:
    with running_server({"letters": run / MODEL}, key="secret") as server:
        basic = {name: b64encode(f"me:{name}".encode()).decode() for name in ("secret", "wrong")}
        for authorization, status in (
            ("Bearer secret", 200),
            (f"Basic {basic['secret']}", 200),
            ("Bearer wrong", 401),
            (f"Basic {basic['wrong']}", 401),
            ("Basic ???", 401),
            ("Basic \xe9", 401),
            ("secret", 401),
            ("", 401),
        ):
            headers = {"Authorization": authorization}
            for path in ("/v1/models", "/"):
                reply = server.request("GET", path, headers=headers)
                assert reply.status == status, authorization
            assert server.request("GET", "/health", headers=headers).status == 200
        assert reply.json["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "host", [b"localhost/health?", b"localhost/health#", b"localhost\\", b"a b", b"[::1]a", b"a:b"]
)
@pytest.mark.parametrize("names", [frozenset({"localhost"}), None], ids=["this machine", "any name"])
def test_a_host_with_more_than_a_name_and_a_port_reaches_nothing(host: bytes, names: frozenset[str] | None) -> None:
    """The frameworks build a URL from it, in which the path of another request can appear."""
    assert answer_from_guard({"host": host}, names=names, key="secret") == 403


def test_the_key_is_asked_for_by_the_path_that_is_routed() -> None:
    for headers, status in (({"host": b"localhost"}, 401), ({}, 401), ({"authorization": b"Bearer secret"}, 200)):
        assert answer_from_guard(headers, names=None, key="secret") == status


def answer_from_guard(headers: Mapping[str, bytes], names: frozenset[str] | None, key: str) -> int:
    """Return the status of a request for /v1/models that no server has parsed, with an application that accepts all."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/models",
        "query_string": b"",
        "headers": [(name.encode(), value) for name, value in headers.items()],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(guard.Guard(Response(), names, key)(scope, receive, send))
    status: int = sent[0]["status"]
    return status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"3", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"max_tokens": ' + b"9" * 10_000 + b"}", 400),
        (b'{"prompt": "' + b"a" * 2**20 + b'"}', 413),
    ],
    ids=["empty", "cut", "list", "number", "not UTF-8", "deep", "huge number", "long"],
)
def test_a_body_that_is_no_request_is_rejected(server: RunningServer, body: bytes, status: int) -> None:
    for path in ("/v1/completions", "/infill"):
        with connect(server) as connection:
            connection.sendall(post(path, body, "Connection: close\r\n"))
            assert read_all(connection).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/none", 404), ("DELETE", "/v1/models", 405)])
def test_what_does_not_exist_is_an_error_in_json(server: RunningServer, method: str, path: str, status: int) -> None:
    reply = server.request(method, path)
    assert reply.status == status
    assert path in reply.json["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_rows_of_a_client_that_leaves_are_free_in_the_next_step(server: RunningServer, stream: bool) -> None:

    with connect(server) as connection:
        connection.sendall(post("/v1/completions", json.dumps({**LONG, "n": 5, "stream": stream}).encode()))
        wait_until(lambda: server.count_rows() == 5)
    wait_until(lambda: server.count_rows() == 0)
    assert server.complete(max_tokens=5).status == 200


def test_a_client_that_leaves_while_its_prompt_is_read_or_waits_is_forgotten(server: RunningServer) -> None:

    prompts = [{**LONG, "prompt": "the " * 10_000, "n": 40, "max_tokens": 9999} for _ in range(3)]
    connections = [connect(server) for _ in prompts]
    for connection, request in zip(connections, prompts, strict=True):
        connection.sendall(post("/v1/completions", json.dumps(request).encode()))
    wait_until(lambda: server.count_rows() == 3)
    for connection in connections:
        connection.close()
    wait_until(lambda: server.count_rows() == 0)


def test_a_filling_ends_when_its_client_leaves(bidirectional_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = {"prompt": "the fox and the d", "suffix": "g sat", "max_tokens": 1, "seed": 1}
    started = Event()

    def sweep_forever(predictors: object, batch: GapBatch, random: object) -> Iterator[Ids]:
        started.set()
        while True:
            yield batch.ids

    with running_server({"line": bidirectional_run / MODEL}) as server:
        with monkeypatch.context() as patch, connect(server) as connection:
            patch.setattr(ranking, "run_sweeps", sweep_forever)
            connection.sendall(post("/v1/completions", json.dumps(request).encode()))
            assert started.wait(30)
        assert server.complete(**request).json["choices"][0]["text"] == "o"


@pytest.mark.parametrize("stage", [candidates, context], ids=["drawing", "ranking"])
def test_a_filling_with_a_model_of_one_direction_ends_when_its_client_leaves(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, stage: ModuleType
) -> None:
    started, steps = Event(), 0

    def step_slowly(logits: Array) -> Array:
        nonlocal steps
        steps += 1
        started.set()
        sleep(0.02)
        return log_softmax(logits)

    async def abandon() -> None:
        filling = FillingThread()
        filled = filling.fill(server.models["letters"], "The ", " clock", 300, 1, seed=1, unknown="error")
        task = asyncio.create_task(filled)
        await asyncio.to_thread(started.wait, 30)
        task.cancel()
        await asyncio.to_thread(filling.pool.shutdown)

    monkeypatch.setattr(context, "log_softmax", step_slowly)
    monkeypatch.setattr(candidates, "draw_ids", lambda logits, *_: step_slowly(logits).argmax(1))
    if stage is context:
        monkeypatch.setattr(ranking, "draw_candidates", lambda predictors, batch, *_: batch)
    asyncio.run(abandon())
    assert steps < 30


def test_more_samples_than_the_batch_has_rows_wait_for_their_turn(server: RunningServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda seed: server.complete(n=40, max_tokens=30, seed=seed), range(4)))
    assert all(len(reply.json["choices"]) == 40 for reply in replies)
    assert (
        replies[3].json["choices"][39]["text"]
        == server.complete(n=40, max_tokens=30, seed=3).json["choices"][39]["text"]
    )


def test_a_failing_step_is_reported_and_the_next_request_is_served(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(server.models["letters"].sampling.network, "advance", None)
        reply = server.complete(max_tokens=5)
        assert (reply.status, reply.json["error"]["type"]) == (500, "server_error")
        assert b"error" in server.request("POST", "/v1/completions", {"stream": True}).body
    assert server.complete(max_tokens=5).status == 200


def test_connections_beyond_the_limit_get_503(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(server_module, "MAX_CONNECTIONS", 4)
        with running_server({"letters": run / MODEL}) as crowded:
            waiting = [connect(crowded) for _ in range(4)]
            wait_until(lambda: crowded.request("GET", "/health").status == 503)
            for connection in waiting:
                connection.close()
            wait_until(lambda: crowded.request("GET", "/health").status == 200)


@pytest.mark.usefixtures("impatient")
def test_a_client_that_never_ends_a_body_that_nothing_reads_is_dropped(server: RunningServer) -> None:
    with connect(server) as connection:
        connection.settimeout(3)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"a")
        read_all(connection)  # until the server closes it


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /health HT",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Head",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    ],
    ids=["nothing", "half a line", "half a header", "half a second request", "half a body"],
)
def test_a_silent_client_is_dropped(server: RunningServer, sent: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(sent)
        read_all(connection)  # until the server closes it
    assert server.request("GET", "/health").status == 200


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_client_that_reads_nothing_is_dropped(server: RunningServer) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        request = {**LONG, "max_tokens": 5000, "n": 9, "stream": True, "logprobs": 20}
        connection.sendall(post("/v1/completions", json.dumps(request).encode()))
        wait_until(lambda: server.count_rows() == 9)
        (job,) = server.models["letters"].sampling.active
        wait_until(lambda: server.count_rows() == 0)
        assert not job.has_ended
        wait_until(lambda: server.count_connections() == 0)


@pytest.mark.long
def test_ten_thousand_malformed_requests_leave_nothing_behind(server: RunningServer) -> None:
    """Random bytes, and valid requests with some bytes changed, cut short or repeated."""
    source = random.Random(1)
    valid = post("/v1/completions", b'{"prompt": "The ", "max_tokens": 3, "n": 2, "stream": true}')
    server.complete(max_tokens=1)
    files = count_open_files()
    for _ in range(10_000):
        kind = source.randrange(4)
        data = bytearray(valid if kind else source.randbytes(source.randrange(200)))
        if kind == 1:
            for _ in range(source.randrange(1, 6)):
                data[source.randrange(len(data))] = source.randrange(256)
        elif kind == 2:
            data = data[: source.randrange(len(data))]
        elif kind == 3:
            data = data * 3 + data[: source.randrange(len(data))]
        with connect(server) as connection:
            connection.sendall(data)
            if source.random() < 0.5:
                connection.settimeout(0.002)
                with suppress(OSError):
                    connection.recv(4096)
    wait_until(lambda: server.count_rows() == 0)
    wait_until(lambda: count_open_files() <= files + 2)
    assert server.complete(max_tokens=5).status == 200
