"""Programs that other people use: the official openai client, llm and curl, against a server and the llm plugin."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from charlstm.storage.locate import BUILTIN_MODEL
from charlstm.text_model import load
from tests.support.command_line import charlstm
from tests.support.modules import loaded_modules_after
from tests.support.server import RunningServer, running_server

LLM = Path(sys.executable).with_name("llm")
KEY = "sk-secret"


@pytest.fixture(scope="module")
def server(run: Path, bidirectional_run: Path) -> Iterator[RunningServer]:
    files = {"letters": run / "best.safetensors", "line": bidirectional_run / "best.safetensors"}
    with running_server(files, key=KEY) as started:
        yield started


def run_llm(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run llm with its files in the folder of the test."""
    environ = {**os.environ, "LLM_USER_PATH": str(Path("llm-user").absolute())}
    return subprocess.run(
        [LLM, *map(str, arguments)], input=stdin, capture_output=True, text=True, env=environ, timeout=120, check=False
    )


def connect(server: RunningServer, key: str = KEY) -> Any:
    """Return OpenAI's client of a server."""
    import openai  # takes a second

    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=key, max_retries=0)


def sampled(run: Path, *options: object) -> str:
    return charlstm("sample", "-m", run, "--no-echo", "--raw", *options).text


@pytest.mark.slow
def test_the_openai_client_gets_texts_streams_scores_and_errors(server: RunningServer, run: Path) -> None:
    import openai  # takes a second

    client = connect(server)
    assert [model.id for model in client.models.list()] == ["letters", "line"]
    expected = sampled(run, "-p", "The ", "-l", 60, "--seed", 4, "-t", 0.7)
    options: dict[str, Any] = {"model": "letters", "prompt": "The ", "max_tokens": 60, "seed": 4, "temperature": 0.7}
    whole = client.completions.create(**options)
    assert whole.choices[0].text == expected
    assert whole.usage and whole.usage.completion_tokens == 60
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**options, stream=True)) == expected
    filled = client.completions.create(
        model="line", prompt="the fox and the d", suffix="g sat on the mat", max_tokens=1, seed=1
    )
    assert filled.choices[0].text == "o"
    with pytest.raises(openai.BadRequestError, match=r"U\+00E9") as unknown:
        client.completions.create(model="letters", prompt="é")
    assert unknown.value.code == "unknown_characters"
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="none", prompt="a")
    with pytest.raises(openai.AuthenticationError):
        connect(server, "wrong").models.list()
    client.close()


@pytest.mark.slow
def test_the_openai_client_chats_with_a_model_that_continues_the_messages(server: RunningServer, run: Path) -> None:
    import openai  # takes a second

    expected = sampled(run, "-p", "Tomas and Maud", "-l", 30, "--seed", 2)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Tomas"},
        {"role": "assistant", "content": [{"type": "text", "text": " and Maud"}]},
    ]
    options: dict[str, Any] = {"model": "letters", "messages": messages, "max_completion_tokens": 30, "seed": 2}
    wrong: list[dict[str, Any]] = [{"messages": []}, {"tools": [{}]}, {"messages": [{"role": "user", "content": 3}]}]
    with connect(server) as client:
        assert client.chat.completions.create(**options).choices[0].message.content == expected
        chunks = client.chat.completions.create(**options, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
        for change in wrong:
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(**{**options, **change})


def test_an_evaluation_harness_finds_the_log_probabilities_of_a_continuation(server: RunningServer) -> None:
    """lm-eval's local-completions asks for one character more than it scores, and slices the context off."""
    context, continuation = "The clock ", "in the hall"
    request = {
        "model": "letters",
        "prompt": [context + continuation],
        "echo": True,
        "max_tokens": 1,
        "logprobs": 10,
        "temperature": 0,
        "seed": 1234,
    }
    reply = server.request("POST", "/v1/completions", request, {"Authorization": f"Bearer {KEY}"}).json
    logprobs = reply["choices"][0]["logprobs"]
    assert "".join(logprobs["tokens"][len(context) : -1]) == continuation
    scores = logprobs["token_logprobs"][len(context) : -1]
    tops = logprobs["top_logprobs"][len(context) : -1]
    assert len(scores) == len(continuation)
    assert all(score <= max(top.values()) for score, top in zip(scores, tops, strict=True))


def test_an_evaluation_harness_scores_a_text_from_its_start(server: RunningServer, run: Path) -> None:
    """As lm-eval's local-completions does with a remote tokenizer: it sends tokens, the start of a text first."""
    headers, text = {"Authorization": f"Bearer {KEY}"}, "The clock in the hall"

    def tokenize(text: str) -> list[int]:
        body = {"prompt": text, "add_special_tokens": False}
        tokens: list[int] = server.request("POST", "/tokenize", body, headers).json["tokens"]
        return tokens

    info = server.request("GET", "/tokenizer_info", headers=headers).json
    assert info["eos_token"] == info["bos_token"]
    [start] = tokenize(info["bos_token"])
    request = {"model": "letters", "prompt": [[start, *tokenize(text)]], "echo": True, "max_tokens": 1, "logprobs": 1}
    reply = server.request("POST", "/v1/completions", request, headers).json
    scores = reply["choices"][0]["logprobs"]["token_logprobs"][1:-1]
    assert sum(scores) == pytest.approx(load(run).score(text).sum(), abs=1e-3)


@pytest.mark.long
def test_llm_talks_to_the_server(server: RunningServer, run: Path) -> None:
    url = f"http://127.0.0.1:{server.port}/v1"
    expected = sampled(run, "-p", "Tomas ", "-l", 40, "--seed", 3)
    options = ("-o", "max_tokens", 40, "-o", "seed", 3)
    done = run_llm("openai", "endpoint", url, "Tomas ", "-m", "letters", "--key", KEY, *options)
    assert (done.returncode, done.stdout) == (0, expected + "\n"), done.stderr
    assert "letters" in run_llm("openai", "endpoint", url, "--models", "--key", KEY).stdout


@pytest.mark.long
def test_llm_runs_a_model_by_the_name_of_its_run(run: Path) -> None:
    shutil.copytree(run, Path("runs") / "letters")
    assert "charlstm/letters" in run_llm("models", "list").stdout
    options = ("-o", "length", 40, "-o", "seed", 3, "-o", "temperature", 0.5)
    done = run_llm("-m", "charlstm/letters", "Tomas ", *options)
    first = sampled(run, "-p", "Tomas ", "-l", 40, "--seed", 3, "-t", 0.5)
    assert (done.returncode, done.stdout) == (0, first + "\n"), done.stderr
    continued = run_llm("-c", " and ", *options).stdout
    assert continued == sampled(run, "-p", f"Tomas {first} and ", "-l", 40, "--seed", 3, "-t", 0.5) + "\n"
    for arguments, message in (
        (("é",), "U+00E9"),
        (("é",), "-o unknown skip leaves such characters out"),
        (("a", "-o", "top_p", 7), "top_p must be a number from 0 to 1"),
    ):
        failed = run_llm("-m", "charlstm/letters", *arguments)
        assert failed.returncode == 1
        assert failed.stderr.startswith("Error: ")
        assert message in failed.stderr


def test_with_an_older_llm_a_conversation_is_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from charlstm.llm_plugin import join_turns  # takes a second

    monkeypatch.setitem(sys.modules, "llm.parts", None)  # llm before 0.32 does not have it

    def prompt(text: str | None) -> Any:
        return SimpleNamespace(prompt=text)

    responses = [SimpleNamespace(prompt=prompt(given), text=lambda: "x") for given in ("Tomas", None)]
    assert join_turns(prompt("Maud"), None) == "Maud"
    assert join_turns(prompt(" end"), cast(Any, SimpleNamespace(responses=responses))) == "Tomasxx end"


def test_the_plugin_has_the_builtin_model_unless_a_run_has_its_name(run: Path, tmp_path: Path) -> None:
    from charlstm.llm_plugin import find_named_models  # takes a second

    assert find_named_models(tmp_path / "runs", {}) == {"builtin": BUILTIN_MODEL}
    shutil.copytree(run, tmp_path / "runs" / "builtin")
    assert find_named_models(tmp_path / "runs", {}) == {"builtin": tmp_path / "runs" / "builtin" / "best.safetensors"}


@pytest.mark.slow
def test_llm_runs_the_model_that_ships_and_accepts_unknown_characters_on_demand() -> None:
    assert "charlstm/builtin" in run_llm("models", "list").stdout
    options = ("-o", "length", 40, "-o", "seed", 3, "-o", "unknown", "skip")
    done = run_llm("-m", "charlstm/builtin", "The Ж", *options)
    expected = charlstm("sample", "-m", "builtin", "-p", "The ", "-l", 40, "--seed", 3, "--no-echo").text
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_the_plugin_is_not_imported_without_llm() -> None:
    assert not {"llm", "pydantic"} & loaded_modules_after("import charlstm, charlstm.text_model, charlstm.cli.app")


@pytest.mark.programs
def test_curl_gets_a_text_a_stream_and_ghost_text_as_llama_vim_asks_for_it(server: RunningServer, run: Path) -> None:
    def curl(path: str, body: dict[str, object]) -> str:
        """Send what llama.vim sends: the body on stdin, the key in a header."""
        command = ["curl", "--silent", "--no-buffer", "--request", "POST", f"http://127.0.0.1:{server.port}{path}"]
        command += ["--header", "Content-Type: application/json", "--header", f"Authorization: Bearer {KEY}"]
        done = subprocess.run(
            [*command, "--data", "@-"], input=json.dumps(body), capture_output=True, text=True, check=True
        )
        return done.stdout

    text = json.loads(curl("/v1/completions", {"prompt": "The ", "seed": 1, "max_tokens": 30}))["choices"][0]["text"]
    assert text == sampled(run, "-p", "The ", "-l", 30, "--seed", 1)
    stream = curl("/v1/completions", {"prompt": "The ", "seed": 1, "max_tokens": 30, "stream": True})
    assert stream.endswith("data: [DONE]\n\n")
    ghost = {
        "id_slot": 0,
        "input_prefix": "the fox and the dog sat on the mat\n",
        "input_suffix": "g sat on the mat\n",
        "input_extra": [{"text": "the", "filename": "a.txt"}],
        "prompt": "the fox and the d",
        "n_predict": 1,
        "stop": [],
        "n_indent": 0,
        "top_k": 40,
        "top_p": 0.90,
        "samplers": ["top_k", "top_p", "infill"],
        "stream": False,
        "cache_prompt": True,
        "t_max_prompt_ms": 500,
        "t_max_predict_ms": 1000,
        "response_fields": ["content", "timings/prompt_n", "timings/prompt_ms", "truncated", "tokens_cached"],
        "model": "line",
        "seed": 1,
    }
    assert json.loads(curl("/infill", ghost))["content"] == "o"
