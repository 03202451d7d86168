"""What training shows: its plan, its progress, and advice at its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from math import log
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from charlstm.architecture import count_parameters, vocabulary_share
from charlstm.cli.output import format_duration
from charlstm.config import Config, SamplingConfig
from charlstm.console import Console, ProgressBar, escape_controls, escape_text
from charlstm.data.corpus import Corpus
from charlstm.data.split import Split, Tokens
from charlstm.storage.locate import LAST, STDIN
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.text_model import TextModel
from charlstm.tracking.overview import find_best
from charlstm.training.diagnostics import (
    MANY_PARAMETERS_PER_CHARACTER,
    MAX_PAIRS_COUNTED,
    MIN_COMPARED_CHARACTERS,
    RunSummary,
    Validation,
    diagnose,
    pair_entropy,
)
from charlstm.training.events import BestEvaluated, Event, Finished, RolledBack, Saved, Started, Stepped, Validated
from charlstm.wording import quantity

if TYPE_CHECKING:
    from charlstm.tracking.tensorboard import EventFile

LARGE_VOCABULARY = 1000
"""Symbols from which a warning may suggest a smaller vocabulary."""

MAX_VOCABULARY_SHARE = 0.5
"""Share of the weights in embedding and output layer from which it does."""

SUGGESTED_MIN_COUNT = 3
"""The --min-count that it suggests, unless that is less than twice the current one."""

BAR_COLUMNS = 28
"""Columns of a progress bar and its percentage."""

BAR_SMOOTHING = 0.98
"""Decay per step of the mean that the progress bar shows."""

SAMPLE = SamplingConfig(temperature=0.8, length=160)


def show_plan(console: Console, corpus: Corpus, config: Config, chosen: Collection[str] = ()) -> None:
    """Print the size of the corpus and of the model, with warnings where they do not suit each other.

    chosen: the settings that were chosen for a time limit, which no warning contradicts.
    """
    tokens = show_corpus(console, corpus, config)
    parameters = count_parameters(config.model, corpus.vocabulary.size)
    model = config.model
    console.note(
        f"model    {model.cell} {model.layers} x {model.hidden}{' in each direction' if model.bidirectional else ''}, "
        f"embedding {model.embedding}{f' and {model.bigrams:,} pairs' if model.bigrams else ''}: "
        f"{parameters:,} parameters"
    )
    if warning := check_vocabulary(config, corpus.vocabulary.size, partial(count_symbols_with, corpus)):
        console.warn(warning)
    characters = len(tokens.part("train"))
    if parameters > MANY_PARAMETERS_PER_CHARACTER * characters and "model.hidden" not in chosen:
        console.warn(
            f"{parameters / max(characters, 1):,.0f} parameters for each character of training text: the model will "
            "memorize it; lower --hidden or --layers, or raise --dropout"
        )


def check_vocabulary(config: Config, size: int, size_with_min_count: Callable[[int], int]) -> str:
    """Return a warning if a large vocabulary takes most of the model's weights; else an empty string.

    size_with_min_count: returns the size of the vocabulary with another --min-count.
    """
    share = vocabulary_share(config.model, size)
    if size < LARGE_VOCABULARY or share < MAX_VOCABULARY_SHARE:
        return ""
    min_count = max(SUGGESTED_MIN_COUNT, 2 * config.data.min_count)
    tie = "" if config.model.head == "tied" else "; --head tied makes both share their weights"
    return (
        f"embedding and output layer of {size:,} characters take {share:.0%} of the parameters; "
        f"--min-count {min_count} leaves {size_with_min_count(min_count):,}{tie}"
    )


def count_symbols_with(corpus: Corpus, min_count: int) -> int:
    """Return the size of the vocabulary with a --min-count that is higher than the corpus's own."""
    vocabulary = corpus.vocabulary
    counts = sum(np.bincount(chunk, minlength=vocabulary.size) for chunk in Tokens(corpus.ids).chunks())
    special = [symbol for symbol in (vocabulary.unknown, vocabulary.end_of_document) if symbol is not None]
    kept = np.delete(counts, special) >= min_count
    return int(kept.sum()) + 1 + (vocabulary.end_of_document is not None)


def show_corpus(console: Console, corpus: Corpus, config: Config) -> Split:
    """Print the size of the corpus and of its parts. Returns the parts."""
    tokens = corpus.split(config.data.split)
    parts = ", ".join(f"{len(tokens.part(name)):,} {name}" for name, share in tokens.named_shares if share)
    unit = "characters" if config.data.level == "char" else "bytes"
    size = f"{len(corpus):,} {unit}, {corpus.vocabulary.size:,} distinct"
    if corpus.documents:
        size += f", {quantity(corpus.documents, 'document')}"
    for note in corpus.notes:
        console.note(f"         {escape_controls(note)}")
    console.note(f"corpus   {escape_controls(', '.join(map(shorten_path, config.data.corpus)))}: {size}; {parts}")
    return tokens


def note_compilation(console: Console, config: Config) -> None:
    """Print that training begins with compiling, if it needs functions that are not compiled yet."""
    from charlstm.model.device import choose_device, must_compile

    if choose_device(config.model, config.training.device).name == "cpu" and must_compile():
        console.note("compiling for this machine, once: later runs start faster")


class Display:
    """Shows the events of a training run on stderr: a progress bar, a line per validation, samples."""

    def __init__(
        self,
        console: Console,
        corpus: Corpus,
        config: Config,
        folder: RunFolder,
        samples: bool,
        chosen: Collection[str] = (),
        event_file: EventFile | None = None,
    ) -> None:
        self.console, self.corpus, self.config, self.folder, self.samples = console, corpus, config, folder, samples
        self.chosen = chosen  # settings that were chosen for a time limit
        self.event_file = event_file  # for TensorBoard, which gets the samples too
        self.smoothed_loss: float | None = None
        self.validation = ""
        self.lowest: tuple[int, float] | None = None  # step and loss of the best validation
        self.best: BestEvaluated | None = None
        self.began_at = 0.0  # of training
        self.first_step_seconds = 0.0

    def read_lowest(self) -> tuple[int, float] | None:
        """Return the step and the loss of the best validation before this process."""
        step, loss = find_best(self.folder.read_metrics(), {})
        return None if step is None or loss is None else (step, loss)

    def follow(self, events: Iterable[Event]) -> Finished:
        """Show all events and return the last."""
        with self.console.progress() as bar:
            for event in events:
                match event:
                    case Started():
                        started, self.began_at = event, monotonic()
                        self.show_start(event)
                    case Stepped():
                        self.update_bar(event, bar)
                    case Validated():
                        self.show_validation(event)
                    case Saved():
                        self.show_save(event)
                    case RolledBack():
                        self.show_rollback(event)
                    case BestEvaluated():
                        self.show_best(event)
                    case Finished():
                        if event.reason != "stopped" and event.steps:
                            self.show_reached(event)
                            self.show_advice(started)
                        return event
        raise AssertionError("training ended without a Finished event")

    def show_start(self, event: Started) -> None:
        training = self.config.training
        limit = f" or {format_duration(training.max_time)}" if training.max_time else ""
        plan = f"{quantity(training.epochs, 'epoch')} of {quantity(event.steps_per_epoch, 'step')}{limit}"
        step = f"{training.batch_size} x {training.seq_len} characters per step"
        self.console.note(f"training on {event.device}: {plan}, {step}")
        if event.step:
            self.lowest = self.read_lowest()
            self.console.note(f"resumed at step {event.step:,} of {escape_controls(str(self.folder.path))}")
        if event.new_characters:
            self.console.note(
                f"characters that the --init-from model does not have start with new weights: "
                f"{escape_controls(event.new_characters[:80])}"
            )

    def update_bar(self, event: Stepped, bar: ProgressBar) -> None:
        self.first_step_seconds = self.first_step_seconds or monotonic() - self.began_at
        before = event.loss_nats if self.smoothed_loss is None else self.smoothed_loss
        self.smoothed_loss = BAR_SMOOTHING * before + (1 - BAR_SMOOTHING) * event.loss_nats
        parts = [
            "" if event.seconds_left is None else f"{format_duration(event.seconds_left)} left",
            f"loss {self.smoothed_loss:.3f}{self.validation}",
            "" if event.chars_per_second is None else f"{event.chars_per_second:,.0f} chars/s",
            f"step {event.step:,}  epoch {event.epoch + 1}",
        ]
        bar.update(event.fraction_done, self.join_fitting([*filter(None, parts)]))

    def join_fitting(self, parts: Sequence[str]) -> str:
        """Return the parts that fit next to a progress bar: the first ones matter most."""
        room = self.console.width(self.console.stderr) - BAR_COLUMNS
        text = parts[0]
        for part in parts[1:]:
            if len(text) + 2 + len(part) <= room:
                text += f"  {part}"
        return text

    def show_validation(self, event: Validated) -> None:
        metrics = event.metrics
        losses = f"loss {event.train_loss_nats:.4f}  validation {metrics.loss_nats:.4f}, {metrics.bpc:.4f} bpc"
        if metrics.backward_loss_nats is not None:
            losses += f"  backward {metrics.backward_loss_nats:.4f}, both sides {metrics.pseudo_likelihood_nats:.4f}"
        best = f"  {self.compare_with_best(event)}"
        self.console.note(f"step {event.step:,}  {format_duration(event.seconds)}  {losses}{best}")
        self.show_sample(event.step)

    def compare_with_best(self, event: Validated) -> str:
        """Return whether a validation is the best so far, or where the best was; remember it for the progress bar."""
        loss = event.metrics.loss_nats
        if event.best:
            self.lowest = (event.step, loss)
        self.validation = f"  val {loss:.3f}"
        if event.best or self.lowest is None:
            return "best so far" if event.best else "not the best"
        self.validation += f", best {self.lowest[1]:.3f}"
        return f"best: {self.lowest[1]:.4f} at step {self.lowest[0]:,}"

    def show_save(self, event: Saved) -> None:
        loss = "" if event.train_loss_nats is None else f"  loss {event.train_loss_nats:.4f} nats/char"
        why = " on SIGUSR1" if event.requested else ""
        self.console.note(f"step {event.step:,}  {format_duration(event.seconds)}{loss}  saved{why}")
        if not event.requested:
            self.show_sample(event.step)

    def show_sample(self, seed: int) -> None:
        if not self.samples or (self.console.quiet and self.event_file is None):
            return
        sample = self.draw_sample(seed)
        self.console.note("\n".join("    " + escape_text(line) for line in sample.split("\n")), "dim")
        if self.event_file is not None:
            self.event_file.add_text(seed, sample)

    def show_rollback(self, event: RolledBack) -> None:
        self.smoothed_loss = None
        self.console.warn(
            f"{event.reason}; rolled back to step {event.to_step:,}, with {event.rate_factor:g} of the learning rate"
        )

    def show_best(self, event: BestEvaluated) -> None:
        """Print the losses of the best model, if the validations before read a part of the validation text only."""
        self.best = event
        if not self.validates_partly:
            return
        whole = self.validation_length
        read = (
            "the validation part"
            if event.validation_characters == whole
            else (f"{event.validation_characters:,} of {whole:,} characters of the validation part")
        )
        self.console.note(
            f"best model, step {event.step:,}: {event.validation_loss_nats:.4f} nats/char, "
            f"{event.validation_loss_nats / log(2):.4f} bpc on {read}; {event.train_loss_nats:.4f} on training text"
        )

    def show_reached(self, event: Finished) -> None:
        """Print the steps and the time, with the lowest loss where validations read the whole validation part."""
        loss = None if self.validates_partly else event.best_loss_nats
        best = "" if loss is None else f"; lowest validation loss {loss:.4f} nats/char, {loss / log(2):.4f} bpc"
        self.console.note(f"{quantity(event.step, 'step')} in {format_duration(event.seconds)}{best}")

    @property
    def validation_length(self) -> int:
        return len(self.corpus.split(self.config.data.split).part("val"))

    @property
    def validates_partly(self) -> bool:
        """Whether validations read a part of the validation part only."""
        return 0 < self.config.training.validation_chars < self.validation_length

    def show_advice(self, started: Started) -> None:
        """Print the one setting to change, if any. Metrics that cannot be read must not fail a run that is saved."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            if not self.console.quiet and (advice := self.diagnose_run(started)):
                self.console.note(advice)

    def diagnose_run(self, started: Started) -> str:
        """Return advice on the settings of the run in one sentence; empty if they look right."""
        history = [
            Validation(line["step"], line["loss_nats"], line["validation_loss_nats"])
            for line in self.folder.read_metrics()
            if "validation_loss_nats" in line
        ]
        train = self.corpus.split(self.config.data.split).part("train")
        best = None
        if self.best and self.best.validation_characters >= MIN_COMPARED_CHARACTERS:
            best = Validation(self.best.step, self.best.train_loss_nats, self.best.validation_loss_nats)
        return diagnose(
            RunSummary(
                self.config,
                history,
                started.total_steps,
                started.parameters,
                len(train),
                pair_entropy(train.span(0, MAX_PAIRS_COUNTED)),
                best,
                self.chosen,
                self.first_step_seconds / (monotonic() - self.began_at),
            )
        )

    def draw_sample(self, seed: int) -> str:
        """Return a few lines from the model that was just saved, read from its file."""
        model = TextModel(ModelFile.load(self.folder.path / LAST))
        return "".join(model.generate("", SAMPLE, seed=seed)).strip()


def shorten_path(source: str) -> str:
    """Return the path relative to the current folder where that is shorter."""
    if source == STDIN:
        return "stdin"
    return min(source, os.path.relpath(source), key=len) if Path(source).is_absolute() else source
