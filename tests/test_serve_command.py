"""`charlstm serve`: its options, its messages, and how it ends."""

from __future__ import annotations

import builtins
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.support.command_line import assert_fails, charlstm
from tests.support.modules import loaded_modules_after

KEY = "secret"


@contextmanager
def serving(*options: object, environ: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run the command in a process of its own on a free port. The value is the process and the URL that it printed."""
    command = [sys.executable, "-m", "charlstm", "serve", "--port", "0", *map(str, options)]
    env = {**os.environ, **(environ or {})}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    assert process.stdout and process.stderr
    try:
        yield process, process.stdout.readline().decode().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def get(url: str, headers: dict[str, str] | None = None, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, headers or {}), timeout=30) as response:
        return json.load(response)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_the_server_quietly_also_while_it_writes(run: Path, number: int, status: int) -> None:
    with serving("-m", run) as (process, url):
        assert get(f"{url}/v1/models")["data"][0]["id"] == "letters"
        streaming = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        body = b'{"max_tokens": 100000, "stream": true}'
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        streaming.sendall(head.encode() + body)
        assert streaming.recv(1)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        streaming.close()
    assert process.returncode == status
    assert (out, err.decode().splitlines()[0]) == (b"", "letters: lstm 1x48, int8")
    assert err.decode().splitlines()[1:] == [f"OpenAI clients take {url}/v1 as their base URL; Ctrl-C ends the server"]


@pytest.mark.slow
def test_the_command_serves_several_models_by_name_and_asks_for_the_key(run: Path, bidirectional_run: Path) -> None:
    options = ("-m", run, "-m", f"fox={bidirectional_run}", "--weights", "fp32", "--host", "0.0.0.0", "-q")
    with serving(*options, environ={"CHARLSTM_API_KEY": KEY}) as (_, url):
        assert url.startswith("http://127.0.0.1:")
        models = get(f"{url}/v1/models", {"Authorization": f"Bearer {KEY}", "Host": "any.example"})["data"]
        assert [(model["id"], model["weights"]) for model in models] == [("letters", "fp32"), ("fox", "fp32")]
        request = {"model": "letters", "prompt": "Tomas ", "max_tokens": 30, "seed": 1}
        reply = get(f"{url}/v1/completions", {"Authorization": f"Bearer {KEY}"}, request)
    expected = charlstm("sample", "-m", run, "-p", "Tomas ", "-l", 30, "--seed", 1, "--weights", "fp32", "--no-echo")
    assert reply["choices"][0]["text"] + "\n" == expected.text


def test_a_port_in_use_is_one_sentence(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_fails(charlstm("serve", "-m", run, "--port", port), 1, f"port {port}", "in use", "--port")


def test_a_host_of_another_machine_is_named_without_advice_on_the_port(run: Path) -> None:
    result = charlstm("serve", "-m", run, "--host", "192.0.2.1", "--port", 0, "--api-key", "0123456789abcdef")
    assert_fails(result, 2, "--host 192.0.2.1 is not an address of this machine: Cannot assign requested address")
    assert "--port" not in result.err
    assert "('" not in result.err


def test_a_host_that_others_can_reach_requires_a_key(run: Path) -> None:
    assert_fails(charlstm("serve", "-m", run, "--host", "0.0.0.0"), 2, "--host 0.0.0.0", "--api-key")
    assert_fails(charlstm("serve", "-m", run, "--host", ""), 2, "--host must not be empty")
    assert_fails(charlstm("serve", "-m", run, "--host", "no.such.host.invalid", "--api-key", KEY), 2, "no.such.host")


@pytest.mark.parametrize("key", ["", "two words", "ключ", "line\n"])
def test_a_key_that_cannot_be_sent_is_rejected(run: Path, key: str) -> None:
    assert_fails(charlstm("serve", "-m", run, "--api-key", key), 2, "--api-key")


def test_a_model_that_is_missing_damaged_or_named_twice_is_one_sentence(run: Path) -> None:
    Path("damaged.safetensors").write_bytes((run / "best.safetensors").read_bytes()[:1000])
    assert_fails(charlstm("serve", "-m", "none"), 2, "none")
    assert_fails(charlstm("serve", "-m", "damaged.safetensors"), 1, "damaged.safetensors")
    both = ("-m", run / "best.safetensors", "-m", run / "last.safetensors")
    assert_fails(charlstm("serve", *both), 2, "two models are named 'letters'", "NAME=MODEL")
    assert_fails(charlstm("serve", run), 2, "unexpected", "-m")
    assert_fails(charlstm("serve"), 2, "there is no run")


def test_a_missing_extra_is_named_with_the_command_that_installs_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def without_starlette(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "starlette":
            raise ModuleNotFoundError(f"No module named {name!r}", name="starlette")
        return importing(name, *arguments, **named)

    for name in [name for name in sys.modules if name.startswith(("charlstm.serving", "charlstm.cli.actions.serve"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_starlette)
    assert_fails(charlstm("serve", "-m", run), 1, "starlette is not installed", "pip install 'charlstm[serve]'")


def test_serving_does_not_import_torch_and_help_imports_no_server() -> None:
    assert not {"torch"} & loaded_modules_after("import charlstm.cli.actions.serve")
    code = "from charlstm.cli.app import main; import os; os.dup2(2, 1); main(['serve', '--help'])"
    assert not {"starlette", "uvicorn", "numpy", "asyncio"} & loaded_modules_after(code)
