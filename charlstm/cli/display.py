"""What `charlstm train` shows while it runs: one consumer of the training events."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from math import log
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from charlstm.architecture import count_parameters, vocabulary_share
from charlstm.config import Config, SamplingConfig
from charlstm.console import Console, ProgressBar, escape_controls
from charlstm.data.corpus import Corpus
from charlstm.data.split import PART_NAMES, Split, Tokens
from charlstm.storage.locate import LAST
from charlstm.storage.model import ModelFile
from charlstm.storage.spool import STDIN
from charlstm.text_model import TextModel
from charlstm.training.diagnostics import MAX_PAIRS_COUNTED, RunSummary, Validation, diagnose, pair_entropy

if TYPE_CHECKING:
    from charlstm.storage.run import RunFolder
    from charlstm.training.events import Event, Finished, RolledBack, Started, Stepped, Validated

FAR_MORE = 10
"""A model with this many times more parameters than it has characters to learn from is remarked upon."""

LARGE, MOST = 1000, 0.5
"""A vocabulary of so many symbols is remarked upon where embedding and head have this share of the weights."""

RARE = 3
"""The --min-count that is proposed then, or twice the one there is."""

SAMPLE = SamplingConfig(temperature=0.8, length=160)


def show_plan(console: Console, corpus: Corpus, config: Config) -> None:
    """The corpus's figures and the model's size."""
    tokens = show_corpus(console, corpus, config)
    parameters = count_parameters(config.model, corpus.vocabulary.size)
    model = config.model
    console.note(
        f"model    {model.cell} {model.layers} x {model.hidden}{', in each direction' if model.bidirectional else ''}, "
        f"embedding {model.embedding}: {parameters:,} parameters"
    )
    if remark := vocabulary_remark(config, corpus.vocabulary.size, partial(size_with, corpus)):
        console.warn(remark)
    characters = len(tokens.part("train"))
    if parameters > FAR_MORE * characters:
        console.warn(
            f"that is {parameters / max(characters, 1):,.0f} parameters for each character to learn from, "
            "and it will learn them by heart; lower --hidden or --layers, or raise --dropout"
        )


def vocabulary_remark(config: Config, size: int, left: Callable[[int], int]) -> str:
    """On a large vocabulary whose embedding and head are most of the model; else empty.

    `left` gives the symbols that there are with another --min-count.
    """
    share = vocabulary_share(config.model, size)
    if size < LARGE or share < MOST:
        return ""
    least = max(RARE, 2 * config.data.min_count)
    tie = "" if config.model.head == "tied" else ", --head tied shares the weights of the two"
    return (
        f"vocabulary: embedding and head of {size:,} characters take {share:.0%} of the parameters; "
        f"--min-count {least} would leave {left(least):,}{tie}"
    )


def size_with(corpus: Corpus, min_count: int) -> int:
    """The symbols of a vocabulary with this --min-count, from one with a lower."""
    vocabulary = corpus.vocabulary
    counts = sum(np.bincount(chunk, minlength=vocabulary.size) for chunk in Tokens(corpus.ids).chunks())
    others = [symbol for symbol in (vocabulary.unknown, vocabulary.end_of_document) if symbol is not None]
    kept = np.delete(counts, others) >= min_count
    return int(kept.sum()) + 1 + (vocabulary.end_of_document is not None)


def show_corpus(console: Console, corpus: Corpus, config: Config) -> Split:
    """The corpus's figures, and its parts."""
    tokens = corpus.split(config.data.split)
    parts = ", ".join(f"{len(tokens.part(part)):,} {part}" for part in PART_NAMES[: len(config.data.split)])
    unit = "characters" if config.data.level == "char" else "bytes"
    size = f"{len(corpus):,} {unit}, {corpus.vocabulary.size:,} distinct"
    if corpus.documents:
        size += f", {corpus.documents:,} documents with an end symbol each"
    for remark in corpus.notes:
        console.note(f"         {escape_controls(remark)}")
    console.note(f"corpus   {escape_controls(', '.join(map(short, config.data.corpus)))}: {size}; {parts}")
    return tokens


class Display:
    """Turns events into a bar, lines and samples on stderr."""

    def __init__(self, console: Console, corpus: Corpus, config: Config, folder: RunFolder, samples: bool) -> None:
        self.console, self.corpus, self.config, self.folder, self.samples = console, corpus, config, folder, samples
        self.loss: float | None = None  # smoothed
        self.validation = ""

    def follow(self, events: Iterable[Event]) -> Finished:
        """Shows all of them and gives the last."""
        from charlstm.training.events import Finished, RolledBack, Started, Stepped, Validated

        with self.console.progress() as bar:
            for event in events:
                match event:
                    case Started():
                        started = event
                        self.started(event)
                    case Stepped():
                        self.stepped(event, bar)
                    case Validated():
                        self.validated(event)
                    case RolledBack():
                        self.fell_back(event)
                    case Finished():
                        if event.reason != "stopped" and event.steps:
                            self.guide(started)
                        return event
        raise AssertionError("training ended without saying so")

    def started(self, event: Started) -> None:
        training = self.config.training
        limit = f" or {duration(training.max_time)}" if training.max_time else ""
        plan = f"{training.epochs:,} epochs of {event.steps_per_epoch:,} steps{limit}"
        step = f"{training.batch_size} x {training.seq_len} characters a step"
        self.console.note(f"training on {event.device}: {plan}, {step}")
        if event.step:
            self.console.note(f"resumed at step {event.step:,}")
        if event.new_characters:
            self.console.note(
                f"new to the model of --init-from, with fresh weights: {escape_controls(event.new_characters[:80])}"
            )

    def stepped(self, event: Stepped, bar: ProgressBar) -> None:
        self.loss = event.loss_nats if self.loss is None else 0.98 * self.loss + 0.02 * event.loss_nats
        bpc = self.loss / log(2)
        speed = f"{event.chars_per_second:,.0f} characters/s"
        bar.update(
            event.fraction_done,
            f"loss {self.loss:.3f}  bpc {bpc:.3f}{self.validation}  {speed}  {duration(event.seconds_left)} left",
        )

    def validated(self, event: Validated) -> None:
        figures = event.metrics
        self.validation = f"  val {figures.loss_nats:.3f}"
        losses = (
            f"loss {event.train_loss_nats:.4f}  validation {figures.loss_nats:.4f} nats/char, {figures.bpc:.4f} bpc"
        )
        if figures.backward_loss_nats is not None:
            losses += (
                f"  backward {figures.backward_loss_nats:.4f}, from both sides {figures.pseudo_likelihood_nats:.4f}"
            )
        best = "  best so far" if event.best else ""
        self.console.note(f"step {event.step:,}  {duration(event.seconds)}  {losses}{best}")
        if self.samples and not self.console.quiet:
            self.console.note(self.sample(event.step), "dim")

    def fell_back(self, event: RolledBack) -> None:
        self.loss = None
        self.console.warn(
            f"{event.reason}; back to step {event.to_step:,}, with {event.factor:g} of the learning rate from here on"
        )

    def guide(self, started: Started) -> None:
        """The one thing to change, if any; figures that cannot be read are no reason to fail a run that is saved."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            sentence = "" if self.console.quiet else guidance(self.corpus, self.config, self.folder, started)
            if sentence:
                self.console.note(sentence)

    def sample(self, seed: int) -> str:
        """A few lines from the model just saved, as anyone else would read it."""
        model = TextModel(ModelFile.load(self.folder.path / LAST))
        text = "".join(model.generate("", SAMPLE, seed=seed))
        return "\n".join("    " + escape_controls(line) for line in text.strip().splitlines())


def guidance(corpus: Corpus, config: Config, folder: RunFolder, started: Started) -> str:
    """What a run that has ended says about its settings, in a sentence; empty if all looks well."""
    history = [
        Validation(line["step"], line["loss_nats"], line["validation_loss_nats"])
        for line in folder.read_metrics()
        if "validation_loss_nats" in line
    ]
    train = corpus.split(config.data.split).part("train")
    pairs = pair_entropy(train.span(0, MAX_PAIRS_COUNTED))
    return diagnose(RunSummary(config, history, started.total_steps, started.parameters, len(train), pairs))


def short(source: str) -> str:
    """A path as one would type it here, where that is shorter."""
    if source == STDIN:
        return "stdin"
    return min(source, os.path.relpath(source), key=len) if Path(source).is_absolute() else source


def duration(seconds: float) -> str:
    """As 45s, 3m20s or 2h05m."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
