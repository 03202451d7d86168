"""Prompts as tokens, and the endpoints that turn texts into tokens and back, as evaluation harnesses use them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charlstm.text_model import load
from tests.support.command_line import charlstm
from tests.support.server import RunningServer, running_server
from tests.support.texts import ENGLISH

BEST = "best.safetensors"
SCORED = {"echo": True, "logprobs": 1, "max_tokens": 0}


@pytest.fixture(scope="module")
def server(run: Path, bidirectional_run: Path) -> Iterator[RunningServer]:
    with running_server({"letters": run / BEST, "line": bidirectional_run / BEST}) as started:
        yield started


def train(documents: str, *options: object) -> Path:
    """Return the model file of a run that has read a few lines for a moment."""
    Path("words.txt").write_text(documents, "utf-8")
    shape = ("--hidden", 16, "--batch-size", 2, "--seq-len", 16, "--epochs", 1)
    assert charlstm("train", "words.txt", "-o", "run", *shape, *options, "-q", "--no-samples").code == 0
    return Path("run") / BEST


def tokenize(server: RunningServer, text: str, **fields: Any) -> list[int]:
    reply = server.request("POST", "/tokenize", {"prompt": text, **fields}).json
    assert reply["count"] == len(reply["tokens"])
    tokens: list[int] = reply["tokens"]
    return tokens


def detokenize(server: RunningServer, tokens: list[int]) -> str:
    text: str = server.request("POST", "/detokenize", {"tokens": tokens}).json["prompt"]
    return text


def find_start(server: RunningServer) -> int:
    """Return the token of the start of a text, as a harness finds it."""
    [start] = tokenize(server, server.request("GET", "/tokenizer_info").json["bos_token"])
    return start


def test_the_tokens_of_a_text_are_continued_and_scored_as_the_text(server: RunningServer) -> None:
    tokens = tokenize(server, "The clock")
    assert detokenize(server, tokens) == "The clock"
    for fields in ({"max_tokens": 30, "seed": 1}, {**SCORED, "max_tokens": 5, "temperature": 0}):
        whole = server.complete(prompt="The clock", **fields).json
        for prompt in (tokens, [tokens]):
            reply = server.complete(prompt=prompt, **fields).json
            assert (reply["choices"], reply["usage"]) == (whole["choices"], whole["usage"])


def test_the_start_of_a_text_is_a_token_without_a_log_probability(server: RunningServer, run: Path) -> None:
    text = "\n" + ENGLISH[1000:1400]
    start, tokens = find_start(server), tokenize(server, text)
    assert start not in tokens
    assert detokenize(server, [start, *tokens]) == text
    for fields in ({"stream": False}, {"stream": True}):
        reply = server.complete(prompt=[start, *tokens], **SCORED, **fields)
        choice = (reply.events if fields["stream"] else [reply.json])[0]["choices"][0]
        logprobs = choice["logprobs"]
        assert choice["text"] == text
        assert {key: values[0] for key, values in logprobs.items()} == {
            "tokens": "",
            "token_logprobs": None,
            "top_logprobs": None,
            "text_offset": 0,
        }
        assert logprobs["text_offset"][1:] == list(range(len(text)))
        assert logprobs["token_logprobs"][1:] == pytest.approx(load(run).score(text).tolist(), abs=1e-4)


def test_texts_and_tokens_can_be_in_one_request(server: RunningServer) -> None:
    start, tokens = find_start(server), tokenize(server, "Maud")
    reply = server.complete(prompt=["Maud", tokens, [start, *tokens], [start], []], **SCORED).json
    assert [choice["text"] for choice in reply["choices"]] == ["Maud", "Maud", "Maud", "", ""]
    assert [len(choice["logprobs"]["tokens"]) for choice in reply["choices"]] == [4, 4, 5, 1, 0]
    assert reply["usage"]["prompt_tokens"] == 4 + 4 + 5 + 1


def test_the_end_of_a_document_is_the_start_of_a_text() -> None:
    path = train("one\ntwo\n" * 60, "--document", "line")
    with running_server({"lines": path}) as server:
        start, tokens = find_start(server), tokenize(server, "one")
        assert start == load(path).vocabulary.end_of_document
        once, twice = (
            server.complete(prompt=prompt, **SCORED).json["choices"][0]
            for prompt in ([start, *tokens], [start, *tokens, start, *tokens])
        )
        assert (once["text"], twice["text"]) == ("one", "oneone")
        assert twice["logprobs"]["token_logprobs"][:4] == once["logprobs"]["token_logprobs"]
        assert twice["logprobs"]["token_logprobs"][5:] == once["logprobs"]["token_logprobs"][1:]
        assert twice["logprobs"]["token_logprobs"][4] < 0


def test_the_tokens_of_a_model_of_bytes_are_bytes() -> None:
    with running_server({"bytes": train("naïve café\n" * 60, "--level", "byte")}) as server:
        tokens = tokenize(server, "naïve")
        assert tokens == list("naïve".encode())
        scored = [server.complete(prompt=prompt, **SCORED).json["choices"] for prompt in ("naïve", tokens)]
        assert scored[0] == scored[1]
        assert detokenize(server, [0xC3]) == "\N{REPLACEMENT CHARACTER}"
        assert find_start(server) == 256


def test_an_unknown_character_has_a_token_only_if_it_is_accepted(server: RunningServer) -> None:
    reply = server.request("POST", "/tokenize", {"prompt": "Tömas"})
    assert (reply.status, reply.json["error"]["code"]) == (400, "unknown_characters")
    assert tokenize(server, "Tömas", unknown="replace") == tokenize(server, "T mas")


def test_each_model_of_a_server_has_tokens(server: RunningServer) -> None:
    assert tokenize(server, "the fox") != tokenize(server, "the fox", model="line")
    assert server.request("GET", "/tokenizer_info").json["model"] == "letters"
    assert server.request("GET", "/tokenizer_info?model=line").json["model"] == "line"
    assert server.request("GET", "/tokenizer_info?model=none").status == 404
    assert server.request("POST", "/detokenize", {"tokens": [], "model": "none"}).status == 404


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/completions", {"prompt": [-1]}, "prompt"),
        ("/v1/completions", {"prompt": [[10**6]]}, "prompt"),
        ("/v1/completions", {"prompt": [0] * 100_001}, "prompt"),
        ("/v1/completions", {"prompt": [0], "suffix": "a"}, "prompt"),
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": [1]}, "prompt"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_tokens_that_do_not_exist_are_rejected(
    server: RunningServer, path: str, fields: dict[str, Any], param: str
) -> None:
    reply = server.request("POST", path, fields)
    assert (reply.status, reply.json["error"]["param"]) == (400, param)


def test_the_start_of_a_text_is_first_or_nowhere(server: RunningServer) -> None:
    start, tokens = find_start(server), tokenize(server, "Maud")
    reply = server.complete(prompt=[*tokens, start])
    assert (reply.status, reply.json["error"]["code"]) == (400, "unknown_tokens")
