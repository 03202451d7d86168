"""`charlstm sample --novelty`: how much of each sample is copied from the training text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from charlstm.cli.texts import read_own_corpus
from charlstm.console import Console, escape_controls
from charlstm.data.split import Tokens
from charlstm.errors import CharlstmError
from charlstm.sampling.fragments import Fragment
from charlstm.sampling.novelty import MIN_RUN, Novelty, measure_novelty
from charlstm.storage.model import ModelFile

BATCH_BYTES = 1_000_000
"""Bytes of samples that are searched for in one pass over the training text."""

MAX_QUOTE = 60
"""Characters of a copied run that are shown."""


class NoveltyReport:
    """Compares samples with the training part of the model's corpus.

    Raises CharlstmError if the corpus is gone or has changed.
    """

    def __init__(self, console: Console, file: ModelFile, path: Path) -> None:
        try:
            corpus, _ = read_own_corpus(console, file, path)
        except CharlstmError as error:
            hint = "--novelty compares the samples with that text; name the model in its run folder with -m"
            raise CharlstmError(error.message, hint) from error
        self.console = console
        self.vocabulary = file.vocabulary
        self.text: Tokens = corpus.split(file.config.data.split).part("train")

    def measure(self, samples: list[bytes]) -> list[tuple[Novelty, str]]:
        """Return how much of each sample is copied, and its longest copied run."""
        ids = [self.vocabulary.encode(sample).astype(self.vocabulary.dtype) for sample in samples]
        found = measure_novelty(ids, self.text.chunks())
        runs = [own[one.start : one.start + one.longest] for one, own in zip(found, ids, strict=True)]
        return [
            (one, self.vocabulary.decode(run).decode(errors="replace")) for one, run in zip(found, runs, strict=True)
        ]

    def follow(self, fragments: Iterable[Fragment]) -> Iterator[Fragment]:
        """Yield the fragments as they come, and print a line about each sample on stderr."""
        complete: list[bytes] = []
        text, first = b"", 0
        for fragment in fragments:
            yield fragment
            text += fragment.text
            if fragment.stop_reason:
                complete.append(text)
                text = b""
            if sum(map(len, complete)) >= BATCH_BYTES:
                self.show(complete, first)
                complete, first = [], first + len(complete)
        self.show(complete, first)

    def show(self, samples: list[bytes], first: int) -> None:
        """Print a line about each sample; `first` is the number of samples before them."""
        unit = "characters" if self.vocabulary.level == "char" else "bytes"
        for number, (found, run) in enumerate(self.measure(samples), first + 1):
            quote = escape_controls(run if len(run) <= MAX_QUOTE else run[: MAX_QUOTE - 1] + "…")
            self.console.note(
                f"sample {number}: the longest run copied from the training text has {found.longest:,} {unit} "
                f'("{quote}"); {found.covered:.0%} of the sample is in copied runs of {MIN_RUN} or more',
                "dim",
            )

    def add_to(self, results: Iterable[tuple[bytes, dict[str, Any]]]) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield samples and their records, with the keys of --novelty added."""
        batch: list[tuple[bytes, dict[str, Any]]] = []
        for result in results:
            batch.append(result)
            if sum(len(text) for text, _ in batch) >= BATCH_BYTES:
                yield from self.add_to_batch(batch)
                batch = []
        yield from self.add_to_batch(batch)

    def add_to_batch(self, batch: list[tuple[bytes, dict[str, Any]]]) -> Iterator[tuple[bytes, dict[str, Any]]]:
        measured = self.measure([text for text, _ in batch])
        for (text, record), (one, run) in zip(batch, measured, strict=True):
            own = {"longest_run_characters": one.longest, "longest_run": run, "copied_share": round(one.covered, 6)}
            yield text, record | own
