"""The completions API: texts, seeds, log-probabilities, and every field of the table in docs/serving.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.config import DataConfig
from charlstm.data.normalize import normalize_text
from charlstm.serving.offsets import locate_characters
from charlstm.text_model import load
from tests.support.command_line import charlstm
from tests.support.server import RunningServer, running_server
from tests.support.texts import ENGLISH

BEST = "best.safetensors"


@pytest.fixture(scope="module")
def server(run: Path, bidirectional_run: Path) -> Iterator[RunningServer]:
    """A server of a model of letters and a bidirectional one that has memorized a line."""
    with running_server({"letters": run / BEST, "line": bidirectional_run / BEST}) as started:
        yield started


def first_text(server: RunningServer, **fields: Any) -> str:
    reply = server.complete(**fields)
    assert reply.status == 200, reply.body
    text: str = reply.json["choices"][0]["text"]
    return text


def sampled(run: Path, *options: object) -> str:
    """Return what `charlstm sample` writes."""
    return charlstm("sample", "-m", run, "--no-echo", "--raw", *options).text


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, ()),
        ({"temperature": 0.5}, ("-t", 0.5)),
        ({"temperature": 0}, ("-t", 0)),
        ({"top_p": 0.6}, ("--top-p", 0.6)),
        ({"top_k": 3}, ("--top-k", 3)),
        ({"min_p": 0.2}, ("--min-p", 0.2)),
        ({"stop": "e"}, ("--stop", "e")),
        ({"stop": ["the", "an"]}, ("--stop", "the", "--stop", "an")),
        ({"prompt": "Tomas "}, ("-p", "Tomas ")),
    ],
)
def test_a_text_is_the_one_that_sample_writes_with_the_same_settings(
    server: RunningServer, run: Path, fields: dict[str, Any], options: tuple[object, ...]
) -> None:
    expected = sampled(run, "-l", 80, "--seed", 3, *options)
    assert first_text(server, max_tokens=80, seed=3, **fields) == expected


def test_without_a_limit_a_text_is_as_long_as_that_of_sample(server: RunningServer, run: Path) -> None:
    assert first_text(server, seed=5) == sampled(run, "--seed", 5)


def test_each_of_several_texts_is_the_one_of_sample(server: RunningServer, run: Path) -> None:
    reply = server.complete(prompt=["The ", "Maud "], n=3, max_tokens=40, seed=7).json
    assert [choice["index"] for choice in reply["choices"]] == list(range(6))
    texts = [choice["text"] for choice in reply["choices"]]
    for k, prompt in enumerate(("The ", "Maud ")):
        expected = sampled(run, "-l", 40, "-n", 3, "--seed", 7, "-p", prompt)
        assert "".join(texts[3 * k : 3 * k + 3]) == expected
    assert reply["usage"] == {"prompt_tokens": 9, "completion_tokens": 240, "total_tokens": 249}


def test_a_text_is_the_same_alone_and_next_to_others(server: RunningServer) -> None:
    requests = [
        {"prompt": ENGLISH[k * 50 : k * 50 + 7 * k], "max_tokens": 60 + k, "seed": k, "temperature": 0.5 + k % 3 / 4}
        for k in range(16)
    ]
    alone = [first_text(server, **request) for request in requests]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda request: first_text(server, **request), requests))
    assert together == alone


def test_a_stream_has_the_same_text_and_ends_with_the_reason(server: RunningServer) -> None:
    request = {"prompt": "The ", "max_tokens": 200, "n": 2, "seed": 1, "logprobs": 2, "echo": True}
    whole = server.complete(**request).json["choices"]
    reply = server.complete(**request, stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    for choice in whole:
        pieces = [each for event in reply.events for each in event["choices"] if each["index"] == choice["index"]]
        assert len(pieces) > 1
        assert "".join(piece["text"] for piece in pieces) == choice["text"]
        assert [piece["finish_reason"] for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]
        for key, values in choice["logprobs"].items():
            assert [value for piece in pieces for value in piece["logprobs"][key]] == values


def test_a_stream_reports_the_usage_only_if_asked_to(server: RunningServer) -> None:
    request = {"prompt": "The", "max_tokens": 5, "stream": True}
    assert all(event["choices"] for event in server.complete(**request).events)
    last = server.complete(**request, stream_options={"include_usage": True}).events[-1]
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 5)


def test_echo_with_logprobs_agrees_with_eval_and_score(server: RunningServer, run: Path) -> None:
    text = ENGLISH[1000:4000]
    Path("text.txt").write_text(text, "utf-8")
    logprobs = server.complete(prompt=text, max_tokens=0, echo=True, logprobs=0).json["choices"][0]["logprobs"]
    rows = [json.loads(line) for line in charlstm("score", "-m", run, "text.txt", "--json").text.splitlines()]
    scores = [row["log_probability_nats"] for row in rows]
    assert logprobs["tokens"] == list(text)
    assert np.abs(np.subtract(logprobs["token_logprobs"], scores)).max() < 1e-4
    loss = json.loads(charlstm("eval", "-m", run, "text.txt", "--json").text)["loss_nats"]
    assert abs(np.mean(logprobs["token_logprobs"]) + loss) < 1e-5


def test_tokens_are_aligned_with_the_text(server: RunningServer) -> None:
    request = {"prompt": "The clock", "max_tokens": 30, "seed": 2, "logprobs": 3, "echo": True, "stop": ["e "]}
    choice = server.complete(**request).json["choices"][0]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert logprobs["text_offset"] == list(range(len(choice["text"])))
    for token, log_p, top in zip(*(logprobs[k] for k in ("tokens", "token_logprobs", "top_logprobs")), strict=True):
        assert top[token] == log_p <= max(top.values())
        assert len(top) in (3, 4)
    greedy = server.complete(prompt="The clock", max_tokens=5, temperature=0, logprobs=1).json["choices"][0]["logprobs"]
    assert [list(top) for top in greedy["top_logprobs"]] == [[token] for token in greedy["tokens"]]


def test_log_probabilities_of_a_text_of_bytes_name_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("naïve café\n" * 60, "utf-8")
    options = ("--level", "byte", "--hidden", 16, "--batch-size", 2, "--seq-len", 16, "--epochs", 1, "-q")
    assert charlstm("train", "words.txt", "-o", "run", *options, "--no-samples").code == 0
    with running_server({"bytes": tmp_path / "run" / BEST}) as server:
        choice = server.complete(prompt="naïve", echo=True, logprobs=0, max_tokens=0).json["choices"][0]
        assert choice["logprobs"]["tokens"] == ["n", "a", "bytes:\\xc3", "bytes:\\xaf", "v", "e"]
        assert choice["logprobs"]["text_offset"] == [0, 1, 2, 2, 3, 4]
        streamed = server.complete(max_tokens=200, seed=1, stream=True).events
        whole = server.complete(max_tokens=200, seed=1).json["choices"][0]["text"]
        assert "".join(event["choices"][0]["text"] for event in streamed) == whole


def test_offsets_are_those_in_the_prompt_that_was_sent_also_if_the_model_skips_characters(
    server: RunningServer,
) -> None:
    request = {"prompt": "a☃b", "unknown": "skip", "echo": True, "logprobs": 0, "max_tokens": 2, "seed": 1}
    choice = server.complete(**request).json["choices"][0]
    assert choice["text"].startswith("a☃b")
    assert choice["logprobs"]["tokens"][:2] == ["a", "b"]
    assert choice["logprobs"]["text_offset"] == [0, 2, 3, 4]
    replaced = server.complete(**{**request, "unknown": "replace"}).json["choices"][0]
    assert replaced["logprobs"]["text_offset"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "settings", "offsets"),
    [
        ("a\r\nb\rc", {}, [0, 1, 3, 4, 5]),
        ("a\r\nb", {"newlines": "keep"}, [0, 1, 2, 3]),
        ("e\u0301b", {"normalize": "nfc"}, [0, 2]),
        ("\u0958b", {"normalize": "nfc"}, [0, 0, 1]),
        ("ﬁn", {"normalize": "nfkc"}, [0, 0, 1]),
        ("İS", {"lower": True}, [0, 0, 1]),
        ("\u1100\u1161\u11a8b", {"normalize": "nfc"}, [0, 3]),
        ("", {}, []),
    ],
)
def test_each_character_of_a_normalized_text_has_its_offset_before(
    text: str, settings: dict[str, Any], offsets: list[int]
) -> None:
    config = DataConfig(**settings)
    assert locate_characters(text, config) == offsets
    assert len(normalize_text(text, config)) == len(offsets)


@given(st.text(), st.sampled_from(["none", "nfc", "nfkc"]), st.booleans())
def test_every_character_of_a_normalized_text_has_an_offset(text: str, form: Any, lower: bool) -> None:
    config = DataConfig(normalize=form, lower=lower)
    offsets = locate_characters(text, config)
    assert len(offsets) == len(normalize_text(text, config))
    assert offsets == sorted(offsets)


def test_a_document_ends_where_the_model_ends_it(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("one\ntwo\nsix\n" * 80, "utf-8")
    options = ("--document", "line", "--hidden", 24, "--batch-size", 2, "--seq-len", 16, "--epochs", 8, "-q")
    assert charlstm("train", "words.txt", "-o", "run", *options, "--no-samples").code == 0
    with running_server({"words": tmp_path / "run" / BEST}) as server:
        for choice in server.complete(n=5, seed=1).json["choices"]:
            assert choice["finish_reason"] == "stop"
            assert len(choice["text"]) < 50


def test_a_suffix_is_read_by_a_bidirectional_model(server: RunningServer, bidirectional_run: Path) -> None:
    before, after = "the fox and the d", "g sat on the mat"
    reply = server.complete(model="line", prompt=before, suffix=after, max_tokens=1, seed=1).json
    assert reply["choices"] == [{"index": 0, "text": "o", "logprobs": None, "finish_reason": "stop"}]
    assert reply["usage"]["completion_tokens"] == 1
    expected = load(bidirectional_run).fill(before + "_" + after, max_gap=3, seed=1)[0][0]
    text = first_text(server, model="line", prompt=before, suffix=after, max_tokens=3, seed=1)
    assert before + text + after == expected
    streamed = server.complete(model="line", prompt=before, suffix=after, max_tokens=1, seed=1, stream=True, n=2)
    assert [event["choices"][0]["index"] for event in streamed.events] == [0, 1]


def test_infill_answers_as_llama_server_does(server: RunningServer, run: Path) -> None:
    request = {"input_prefix": "the fox and ", "prompt": "the d", "input_suffix": "g sat on", "n_predict": 1, "seed": 1}
    reply = server.request("POST", "/infill", {**request, "model": "line", "stream": False, "n_indent": 0}).json
    assert (reply["content"], reply["timings"]["prompt_n"]) == ("o", 17)
    wanted = {"response_fields": ["content", "timings/predicted_n", "tokens_cached"]}
    reply = server.request("POST", "/infill", {**request, "model": "line", **wanted}).json
    assert reply == {"content": "o", "timings/predicted_n": 1}
    at_end = {"input_prefix": "Tom", "prompt": "as ", "input_suffix": "\n", "n_predict": 30, "seed": 4, "top_k": 2}
    text = server.request("POST", "/infill", at_end).json["content"]
    assert text == sampled(run, "-p", "Tomas ", "-l", 30, "--seed", 4, "--top-k", 2)
    stopped = server.request("POST", "/infill", {**at_end, "stop": [text[5]]}).json["content"]
    assert stopped == text[: text.index(text[5])]
    assert server.request("POST", "/infill", {**at_end, "n_predict": 0}).json["content"] == ""


@pytest.mark.parametrize(
    "change", [{"stream": True}, {"n_predict": 1001}, {"input_suffix": "é"}, {"prompt": "é"}], ids=str
)
def test_an_infill_that_is_not_possible_is_rejected(server: RunningServer, change: dict[str, Any]) -> None:
    request = {"input_prefix": "a", "input_suffix": "b", "n_predict": 1, **change}
    assert server.request("POST", "/infill", request).status == 400


def test_only_the_text_next_to_the_cursor_is_read(server: RunningServer) -> None:
    near = {"input_prefix": "the " * 250, "input_suffix": "fox " * 250, "model": "line", "n_predict": 2, "seed": 1}
    far = {**near, "input_prefix": "é" + "the " * 250, "input_suffix": "fox " * 250 + "é"}
    assert (
        server.request("POST", "/infill", far).json["content"]
        == server.request("POST", "/infill", near).json["content"]
    )


REJECTED = [
    ({"model": "none"}, "model", 404),
    ({"prompt": 3}, "prompt", 400),
    ({"prompt": [1, True]}, "prompt", 400),
    ({"prompt": ["a", 2]}, "prompt", 400),
    ({"prompt": ["a"] * 65}, "prompt", 400),
    ({"prompt": "a" * 100_001}, "prompt", 400),
    ({"prompt": "\ud800"}, "prompt", 400),
    ({"prompt": "Ünï"}, "prompt", 400),
    ({"prompt": ["a"] * 30, "n": 3}, "n", 400),
    ({"suffix": "Ü"}, "suffix", 400),
    ({"suffix": "a", "echo": True}, "echo", 400),
    ({"suffix": "a", "logprobs": 1}, "logprobs", 400),
    ({"suffix": "a", "max_tokens": 0}, "max_tokens", 400),
    ({"suffix": "a", "max_tokens": 1001}, "max_tokens", 400),
    ({"max_tokens": -1}, "max_tokens", 400),
    ({"max_tokens": 100_001}, "max_tokens", 400),
    ({"max_tokens": 20_000, "n": 51}, "max_tokens", 400),
    ({"max_tokens": 100_000, "logprobs": 20}, "logprobs", 400),
    ({"max_tokens": 2.5}, "max_tokens", 400),
    ({"max_tokens": True}, "max_tokens", 400),
    ({"temperature": -1}, "temperature", 400),
    ({"temperature": "hot"}, "temperature", 400),
    ({"temperature": float("nan")}, "temperature", 400),
    ({"temperature": 10**400}, "temperature", 400),
    ({"top_p": 1.5}, "top_p", 400),
    ({"top_k": -1}, "top_k", 400),
    ({"min_p": 2}, "min_p", 400),
    ({"n": 0}, "n", 400),
    ({"n": 65}, "n", 400),
    ({"stop": ""}, "stop", 400),
    ({"stop": ["a"] * 17}, "stop", 400),
    ({"stop": "a" * 1001}, "stop", 400),
    ({"stop": 1}, "stop", 400),
    ({"seed": -1}, "seed", 400),
    ({"seed": 2**63}, "seed", 400),
    ({"echo": "yes"}, "echo", 400),
    ({"logprobs": 21}, "logprobs", 400),
    ({"logprobs": True}, "logprobs", 400),
    ({"stream": 1}, "stream", 400),
    ({"stream_options": []}, "stream_options", 400),
    ({"best_of": 2}, "best_of", 400),
    ({"frequency_penalty": 0.5}, "frequency_penalty", 400),
    ({"presence_penalty": -1}, "presence_penalty", 400),
    ({"logit_bias": {"50256": -100}}, "logit_bias", 400),
    ({"unknown": "guess"}, "unknown", 400),
]


@pytest.mark.parametrize(("fields", "param", "status"), REJECTED, ids=lambda value: str(value)[:40])
def test_an_invalid_field_is_rejected_by_name(
    server: RunningServer, fields: dict[str, Any], param: str, status: int
) -> None:
    reply = server.complete(**{"max_tokens": 1, **fields})
    assert reply.status == status
    error = reply.json["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me", "store": True, "metadata": {"a": 1}, "some_field_of_the_future": [1]},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "best_of": 1},
        {"frequency_penalty": None, "stop": None, "logprobs": None, "suffix": None, "n": None, "stream": None},
        {"model": "letters", "stop": [], "suffix": ""},
        {"n": 1.0, "top_k": 0, "min_p": 0, "top_p": 1, "temperature": 1, "unknown": "error"},
    ],
    ids=["ignored", "neutral", "null", "empty", "defaults"],
)
def test_fields_that_are_neutral_or_not_known_change_nothing(server: RunningServer, fields: dict[str, Any]) -> None:
    assert first_text(server, max_tokens=20, seed=1, **fields) == first_text(server, max_tokens=20, seed=1)


def test_an_unknown_character_is_named_unless_it_is_accepted(server: RunningServer) -> None:
    reply = server.complete(prompt="Tömas ñ", max_tokens=5)
    error = reply.json["error"]
    assert (reply.status, error["code"], error["characters"]) == (400, "unknown_characters", "öñ")
    assert "U+00F6" in error["message"]
    skipped = first_text(server, prompt="Tömas ñ", max_tokens=20, seed=1, unknown="skip")
    assert skipped == first_text(server, prompt="Tmas ", max_tokens=20, seed=1)
    replaced = first_text(server, prompt="Tömas ñ", max_tokens=20, seed=1, unknown="replace")
    assert replaced == first_text(server, prompt="T mas  ", max_tokens=20, seed=1)


def test_models_are_listed_and_chosen_by_name(server: RunningServer) -> None:
    listed = server.request("GET", "/v1/models").json
    assert [model["id"] for model in listed["data"]] == ["letters", "line"]
    assert server.request("GET", "/v1/models/line").json == listed["data"][1]
    assert server.request("GET", "/v1/models/none").status == 404
    assert server.complete(model="line", max_tokens=1).json["model"] == "line"
    assert server.complete(max_tokens=1).json["model"] == "letters"


def test_a_text_of_a_seed_that_was_drawn_can_be_repeated(server: RunningServer) -> None:
    reply = server.complete(max_tokens=30).json
    assert first_text(server, max_tokens=30, seed=reply["seed"]) == reply["choices"][0]["text"]
    assert first_text(server, max_tokens=30) != reply["choices"][0]["text"]


def test_nothing_is_drawn_for_no_characters(server: RunningServer) -> None:
    choice = server.complete(prompt="The", max_tokens=0).json["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("", "length")
    assert first_text(server, prompt="The", max_tokens=0, echo=True) == "The"
    assert first_text(server, prompt="", max_tokens=0, echo=True, logprobs=1) == ""
