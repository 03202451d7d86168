"""`charlstm sample --novelty`: what of each sample stands word for word in the text that the model has learnt from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlstm.console import Console, escape_controls
from charlstm.errors import CharlstmError

if TYPE_CHECKING:
    from charlstm.data.split import Tokens
    from charlstm.sampling.generate import Fragment
    from charlstm.sampling.novelty import Novelty
    from charlstm.storage.model import ModelFile

AT_ONCE = 1_000_000
"""Bytes of samples that are looked for in one reading of the text."""

QUOTED = 60
"""Characters of a run that are shown."""


class Lookout:
    """The part of its corpus that a model was trained on. Raises CharlstmError if that is gone or has changed."""

    def __init__(self, console: Console, file: ModelFile, path: Path) -> None:
        from charlstm.cli.texts import own_corpus

        try:
            corpus = own_corpus(console, file, path)
        except CharlstmError as error:
            raise CharlstmError(error.message, "--novelty looks for the samples in that text") from error
        self.vocabulary = file.vocabulary
        self.text: Tokens = corpus.split(file.config.data.split).part("train")

    def look(self, samples: list[bytes]) -> list[tuple[Novelty, str]]:
        """What of each sample stands in the text, and its longest run."""
        from charlstm.sampling.novelty import measure_novelty

        ids = [self.vocabulary.encode(sample).astype(self.vocabulary.dtype) for sample in samples]
        found = measure_novelty(ids, self.text.chunks())
        runs = [own[one.start : one.start + one.longest] for one, own in zip(found, ids, strict=True)]
        return [
            (one, self.vocabulary.decode(run).decode(errors="replace")) for one, run in zip(found, runs, strict=True)
        ]

    def noting(self, console: Console, fragments: Iterable[Fragment]) -> Iterator[Fragment]:
        """The fragments as they come; once their samples have ended, a line about each on stderr."""
        ended: list[bytes] = []
        text, first = b"", 0
        for fragment in fragments:
            yield fragment
            text += fragment.text
            if fragment.end:
                ended.append(text)
                text = b""
            if sum(map(len, ended)) >= AT_ONCE:
                self.note(console, ended, first)
                ended, first = [], first + len(ended)
        self.note(console, ended, first)

    def note(self, console: Console, samples: list[bytes], first: int) -> None:
        from charlstm.sampling.novelty import MIN_RUN

        unit = "characters" if self.vocabulary.level == "char" else "bytes"
        for number, (found, run) in enumerate(self.look(samples), first + 1):
            quoted = escape_controls(run if len(run) <= QUOTED else run[: QUOTED - 1] + "…")
            console.note(
                f"sample {number}: the longest run that stands in the training text has {found.longest:,} {unit} "
                f'("{quoted}"); {found.covered:.0%} of it is in runs of {MIN_RUN} or more',
                "dim",
            )

    def adding(self, results: Iterable[tuple[bytes, dict[str, Any]]]) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Samples and what there is to say of each, with what was found out here."""
        waiting: list[tuple[bytes, dict[str, Any]]] = []
        for result in results:
            waiting.append(result)
            if sum(len(text) for text, _ in waiting) >= AT_ONCE:
                yield from self.added(waiting)
                waiting = []
        yield from self.added(waiting)

    def added(self, results: list[tuple[bytes, dict[str, Any]]]) -> Iterator[tuple[bytes, dict[str, Any]]]:
        found = self.look([text for text, _ in results])
        for (text, result), (one, run) in zip(results, found, strict=True):
            own = {"longest_run_characters": one.longest, "longest_run": run, "copied_share": round(one.covered, 6)}
            yield text, result | own
