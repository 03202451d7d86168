"""The text that a model is measured on or learns from: files that were named, or a part of its own corpus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from charlstm.config import UnknownPolicy
from charlstm.console import Console, escape_controls
from charlstm.errors import CharlstmError, UsageError

if TYPE_CHECKING:
    from charlstm.data.corpus import Corpus
    from charlstm.data.split import Tokens
    from charlstm.storage.model import ModelFile

Part = Literal["train", "val", "test"]


def given_text(
    console: Console,
    file: ModelFile,
    files: list[str],
    unknown: UnknownPolicy,
    encoding: str | None = None,
    errors: str | None = None,
) -> tuple[Tokens, dict[str, Any]]:
    """The text of files named on the command line, read as the corpus was unless said otherwise; its figures."""
    from charlstm.data.external import ExternalText
    from charlstm.data.split import Tokens
    from charlstm.storage.spool import STDIN

    if STDIN in files and not console.piped:
        raise UsageError("- reads stdin, and nothing was piped in")
    own = file.config.data
    reading = replace(own, corpus=tuple(files), encoding=encoding or own.encoding, errors=errors or own.errors)
    text = ExternalText(reading, file.vocabulary, unknown, console.stdin)
    for remark in text.notes:
        console.note(escape_controls(remark), "dim")
    left = {"characters_left_out": text.skipped, "characters_folded": text.replaced}
    return Tokens(text.ids), {"text": ", ".join(files), "bytes": text.bytes, **left}


def own_part(console: Console, file: ModelFile, part: Part | None, path: Path) -> tuple[Tokens, dict[str, Any]]:
    """A part of the corpus that the model was trained on, that to validate with unless named, and its figures.

    Raises CharlstmError if that text is gone or has changed.
    """
    corpus = own_corpus(console, file, path)
    name = part or "val"
    tokens = corpus.split(file.config.data.split).part(name)
    if not len(tokens):
        raise UsageError(
            f"--part {name}: the model's corpus has no such part",
            f"it was split {', '.join(map(str, file.config.data.split))}",
        )
    about = {
        "text": f"{name} part of {', '.join(file.config.data.corpus)}",
        "bytes": sum(map(file.vocabulary.count_bytes, tokens.chunks())),
        "characters_folded": count(tokens, file.vocabulary.unknown),
    }
    return tokens, about


def count(tokens: Tokens, symbol: int | None) -> int:
    """How often a symbol stands in a text."""
    return 0 if symbol is None else sum(int((chunk == symbol).sum()) for chunk in tokens.chunks())


def own_corpus(console: Console, file: ModelFile, path: Path) -> Corpus:
    """The corpus that the model was trained on. Raises CharlstmError if that text is gone or has changed."""
    from charlstm.cli.reading import read
    from charlstm.storage.run import RunFolder

    sources = file.config.data.corpus
    try:
        corpus = read(console, file.config.data, RunFolder(path.parent).spool, file.vocabulary)
    except UsageError as error:
        raise CharlstmError(
            f"the text that the model was trained on is not to be had: {error.message}",
            "name a file: charlstm eval FILE",
        ) from error
    if corpus.fingerprint != file.corpus.get("fingerprint"):
        raise CharlstmError(
            f"{', '.join(sources)} has changed since the model was trained", "name a file: charlstm eval FILE"
        )
    return corpus
