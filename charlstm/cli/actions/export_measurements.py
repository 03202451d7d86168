"""What `charlstm export` measures: how much of a sample is training text, and what rounded weights lose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from charlstm.cli.commands.export import ExportRequest
from charlstm.cli.texts import read_own_corpus
from charlstm.config import Direction, SamplingConfig
from charlstm.console import Console, escape_controls
from charlstm.data.corpus import Corpus
from charlstm.data.split import Tokens
from charlstm.errors import CharlstmError
from charlstm.export.card import Measurements, Memorization
from charlstm.export.rounding import measure_rounding
from charlstm.sampling.novelty import MIN_RUN, measure_novelty
from charlstm.sampling.quantization import choose_places
from charlstm.sampling.reading_order import ReadingOrder
from charlstm.storage.model import ModelFile
from charlstm.text_model import TextModel
from charlstm.vocabulary import Ids

SAMPLED_CHARACTERS = 2000
"""Characters that are sampled and looked up in the training text."""

MAX_SAMPLES = 100
"""Documents that are sampled at most, if they are short."""

ADVICE = "before you give the model away, check that you may give away its training text"
"""What both notes about memorization end with: who has a model can extract text that it has memorized."""


def measure_export(console: Console, file: ModelFile, request: ExportRequest) -> tuple[Measurements, dict[str, Any]]:
    """Return what was measured, and the same as JSON."""
    corpus = find_corpus(console, file, request.model)
    sample = draw_sample(file)
    memorization = measure_memorization(file, corpus, sample) if corpus else None
    record: dict[str, Any] = {"weights": request.precision}
    loss, text = 0.0, ""
    if request.precision != "fp32":
        text, tokens = choose_text(file, corpus, sample)
        loss = measure_loss(file, request, tokens)
        record |= {"weights_loss_nats": round(loss, 6), "weights_loss_text": text}
    if memorization:
        record |= {
            "sample_characters": memorization.characters,
            "copied_share": round(memorization.copied_share, 6),
            "longest_run_characters": memorization.longest_run,
        }
    return Measurements(memorization, request.precision, loss, text), record


def find_corpus(console: Console, file: ModelFile, path: Path) -> Corpus | None:
    """Return the training corpus. If it is not available, print why and return None."""
    try:
        return read_own_corpus(console, file, path)[0]
    except CharlstmError as error:
        console.note(f"how much of a sample is training text is not known: {escape_controls(error.message)}; {ADVICE}")
        return None


def draw_sample(file: ModelFile) -> list[bytes]:
    """Return samples of `SAMPLED_CHARACTERS` together. They are the same every time."""
    model = TextModel(file)
    samples: list[bytes] = []
    left = SAMPLED_CHARACTERS
    for seed in range(MAX_SAMPLES):
        fragments = model.stream_fragments("", SamplingConfig(length=left), seed=seed)
        samples.append(b"".join(fragment.text for fragment in fragments))
        left -= len(file.vocabulary.encode(samples[-1])) + 1
        if left < 1:
            break
    return samples


def measure_memorization(file: ModelFile, corpus: Corpus, sample: list[bytes]) -> Memorization:
    ids = [file.vocabulary.encode(text).astype(file.vocabulary.dtype) for text in sample]
    found = measure_novelty(ids, corpus.split(file.config.data.split).part("train").chunks())
    characters = sum(map(len, ids))
    copied = sum(each.covered * len(own) for each, own in zip(found, ids, strict=True))
    return Memorization(characters, copied / max(characters, 1), max(each.longest for each in found), MIN_RUN)


def choose_text(file: ModelFile, corpus: Corpus | None, sample: list[bytes]) -> tuple[str, Tokens]:
    """Return the validation part or, if there is none, the sample; with its name."""
    if corpus and len(tokens := corpus.split(file.config.data.split).part("val")) >= SAMPLED_CHARACTERS:
        return "its validation part", tokens
    ids: list[int] = []
    for text in sample:
        ids += [file.vocabulary.bos, *file.vocabulary.encode(text).tolist()]
    return "its own sample", Tokens(np.array(ids, file.vocabulary.dtype))


def measure_loss(file: ModelFile, request: ExportRequest, tokens: Tokens) -> float:
    """Return what the model loses by rounded weights, in nats per character: of both directions, the larger loss."""
    directions: tuple[Direction, ...] = ("forward", "backward")
    if request.direction != "both":
        directions = (request.direction,)
    places: Ids | None = choose_places(tokens)
    if places is None:
        raise CharlstmError(
            "the model's samples are too short to measure what rounded weights lose", "use --weights fp32"
        )
    return max(
        measure_rounding(file.select_direction(each), request.precision, ReadingOrder(each).convert(places))
        for each in directions
    )


def show_measurements(console: Console, measured: Measurements) -> None:
    if measured.precision != "fp32":
        console.note(
            f"{measured.precision} weights change the loss by {measured.loss_nats:+.5f} nats per character of "
            f"{measured.loss_text}"
        )
    if found := measured.memorization:
        console.note(
            f"{found.copied_share:.1%} of a sample of {found.characters:,} characters is copied from the training text "
            f"in runs of {found.min_run} or more (longest: {found.longest_run:,}); {ADVICE}"
        )
