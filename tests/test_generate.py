"""Samples: reproducible, ended where they should be, without unknown symbols."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import charlstm
from charlstm.architecture import weight_shapes
from charlstm.config import Config, Direction, ModelConfig, SamplingConfig
from charlstm.sampling import generate as generate_module
from charlstm.sampling.filters import log_softmax
from charlstm.sampling.stop_strings import StopMatcher
from charlstm.storage.model import ModelFile
from charlstm.text_model import TextModel
from charlstm.vocabulary import CharVocabulary, Vocabulary
from tests.support.models import MODELS


def untrained(vocabulary: Vocabulary, cell: str = "lstm") -> TextModel:
    config = Config(model=ModelConfig(cell=cell, layers=2, hidden=8, embedding=4))
    random = np.random.default_rng(0)
    weights = {
        name: random.standard_normal(shape).astype("f")
        for name, shape in weight_shapes(config.model, vocabulary.size).items()
    }
    return TextModel(ModelFile(config, vocabulary, weights))


def samples(model: TextModel, n: int, **settings: object) -> list[bytes]:
    stop = settings.pop("stop", ())
    texts = [b""] * n
    for fragment in model.stream_fragments("ab", SamplingConfig(**settings), seed=5, n=n, stop=stop):  # type: ignore[arg-type]
        texts[fragment.index] += fragment.text
    return texts


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_sample_does_not_depend_on_how_many_are_drawn(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained(CharVocabulary("abcdefgh"), cell)
    five = samples(model, 5, length=40)
    assert len(set(five)) == 5
    assert samples(model, 2, length=40) == five[:2]
    monkeypatch.setattr(generate_module, "MAX_BATCH", 3)
    assert samples(model, 5, length=40) == five


def test_the_unknown_symbol_is_never_sampled() -> None:
    model = untrained(CharVocabulary("ab", with_unknown=True))
    model.network.networks[0].head.bias[2] = 50
    assert set(samples(model, 1, length=300)[0]) == set(b"ab")


def test_a_sample_ends_before_the_first_stop_string() -> None:
    model = untrained(CharVocabulary("abcd"))
    free = samples(model, 4, length=200)
    for text, stopped in zip(free, samples(model, 4, length=200, stop=("cd", "dad")), strict=True):
        ends = [at for stop in (b"cd", b"dad") if (at := text.find(stop)) >= 0]
        assert stopped == (text[: min(ends)] if ends else text)


def test_the_last_fragment_gives_the_reason_why_a_sample_ended(run: Path) -> None:
    model = charlstm.load(run)
    reasons = {
        f.stop_reason
        for f in model.stream_fragments("", SamplingConfig(length=200), seed=1, n=8, stop=["e"])
        if f.stop_reason
    }
    assert reasons == {"stop"}
    assert [f.stop_reason for f in model.stream_fragments("", SamplingConfig(length=3), seed=1)][-1] == "length"


class Documents(CharVocabulary):
    """Letters and an end-of-document symbol, which is written as no byte."""

    def __init__(self, characters: str) -> None:
        super().__init__(characters)
        self.end_of_document = self.size
        self.size += 1

    @property
    def symbols(self) -> list[bytes]:
        return [*super().symbols, b""]

    @property
    def start(self) -> int:
        return self.size - 1


def ends(model: TextModel, n: int, **settings: object) -> tuple[list[bytes], list[str], list[float]]:
    """Return the texts of samples without a prompt, their stop reasons and their mean log-probabilities."""
    stop = settings.pop("stop", ())
    texts, reasons, means = [b""] * n, [""] * n, [0.0] * n
    for f in model.stream_fragments("", SamplingConfig(**settings), seed=5, n=n, stop=stop, scored=True):  # type: ignore[arg-type]
        assert not reasons[f.index]
        texts[f.index], reasons[f.index], means[f.index] = (
            texts[f.index] + f.text,
            f.stop_reason,
            f.mean_log_probability,
        )
    return texts, reasons, means


def test_a_sample_ends_with_its_document_whose_end_counts_in_the_mean() -> None:
    model = untrained(Documents("abcd"))
    texts, reasons, means = ends(model, 40, length=0)
    assert set(reasons) == {"document"}
    assert len({len(text) for text in texts}) > 3
    for text, mean in zip(texts, means, strict=True):
        ids = [*model.vocabulary.encode(text.decode()).tolist(), model.vocabulary.end_of_document]
        network, read, total = model.quantized_network, model.vocabulary.bos, 0.0
        states = network.initial_state(1)
        for i in ids:  # the end is predicted like any character
            logits, states = network.step(np.array([read]), states)
            total, read = total + float(log_softmax(logits)[0, i]), i
        assert mean == pytest.approx(total / len(ids), abs=1e-4)


def test_length_and_stop_strings_also_apply_to_documents() -> None:
    model = untrained(Documents("abcd"))
    free, _, _ = ends(model, 40, length=0)
    limited, reasons, _ = ends(model, 40, length=2)
    assert limited == [text[:2] for text in free]
    assert reasons == ["length" if len(text) >= 2 else "document" for text in free]
    stops = [f"{chr(text[-1])}z" for text in map(bytes, filter(None, free))]
    unchanged, reasons, _ = ends(model, 40, length=0, stop=tuple(set(stops)))
    assert unchanged == free
    assert set(reasons) == {"document"}


pieces_ = st.lists(st.text("ab漢", min_size=1, max_size=3).map(str.encode), max_size=20)
stops_ = st.lists(st.text("ab漢", min_size=1, max_size=4).map(str.encode), min_size=1, max_size=3)


@given(pieces_, stops_)
def test_a_stop_matcher_passes_on_all_bytes_before_the_first_stop_string(
    pieces: list[bytes], stops: list[bytes]
) -> None:
    matcher, passed, seen = StopMatcher(stops), b"", b""
    for piece in pieces:
        seen += piece
        passed += matcher.push(piece)
        passed.decode()  # never half a character
        if matcher.stopped:
            break
    ends = [at for stop in stops if (at := seen.find(stop)) >= 0]
    assert matcher.stopped == bool(ends)
    assert passed + matcher.flush() == (seen[: min(ends)] if ends else seen)


def test_a_loaded_model_generates_characters_and_scores_text(run: Path) -> None:
    model = charlstm.load(run)
    text = list(model.generate("The ", SamplingConfig(length=50, temperature=0.5), seed=1))
    assert len(text) == 50
    assert all(len(character) == 1 for character in text)
    assert text == list(model.generate("The ", SamplingConfig(length=50, temperature=0.5), seed=1))
    likely, unlikely = model.score("the the"), model.score("qzxjqzx")
    assert likely.shape == (7,)
    assert likely.mean() > unlikely.mean()
    with pytest.raises(charlstm.UsageError, match=r"U\+6F22"):
        model.score("漢")


def test_the_mean_log_probability_ignores_temperature_and_filters(run: Path) -> None:
    model = charlstm.load(run)
    config = SamplingConfig(length=30, temperature=0.3, top_k=3, weights="fp32")  # that of `score`
    *_, last = model.stream_fragments("Tom", config, seed=3, scored=True)
    text = "Tom" + "".join(model.generate("Tom", config, seed=3))
    assert last.mean_log_probability == pytest.approx(model.score(text)[3:].mean(), abs=1e-4)


def has_new_runs_only(prompt: bytes, sample: bytes, length: int) -> bool:
    """Return whether the runs of this length that end in the sample occur only once in the prompt and the sample."""
    text = prompt + sample
    ends = range(max(len(prompt), length - 1) + 1, len(text) + 1)
    return all(text.find(text[end - length : end]) == end - length for end in ends)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_no_run_of_n_characters_is_written_twice(length: int, temperature: int, direction: Direction) -> None:
    model = TextModel(MODELS[True], direction)
    prompt = b"abcabcdefgh\nabc"
    config = SamplingConfig(length=300, no_repeat=length, temperature=temperature)
    texts, reasons = [b""] * 3, [""] * 3
    for f in model.stream_fragments(prompt.decode(), config, seed=3, n=3):
        texts[f.index], reasons[f.index] = texts[f.index] + f.text, f.stop_reason
    for text, reason in zip(texts, reasons, strict=True):
        before, after = (prompt, text) if direction == "forward" else (prompt[::-1], text[::-1])
        assert has_new_runs_only(before, after, length)
        whole = before + after
        every = [whole + symbol for symbol in model.vocabulary.symbols]
        repeats = [other.find(other[len(other) - length :]) < len(other) - length for other in every]
        assert reason == ("repeat" if all(repeats) else "length")
    assert ("repeat" in reasons) == (length < 3)


def test_a_sample_without_repeats_does_not_depend_on_how_many_are_drawn() -> None:
    model = untrained(CharVocabulary("abcdefgh"))
    five = samples(model, 5, length=100, no_repeat=3)
    assert samples(model, 2, length=100, no_repeat=3) == five[:2]
    assert five != samples(model, 5, length=100)
    assert samples(model, 5, length=100, no_repeat=101) == samples(model, 5, length=100)


def test_a_document_may_end_wherever_it_would_end_without_repeats() -> None:
    model = untrained(Documents("abcd"))
    texts, reasons, _ = ends(model, 40, length=0, no_repeat=2)
    assert set(reasons) <= {"document", "repeat"}
    assert all(has_new_runs_only(b"", text, 2) for text in texts)
