"""The texts that commands read: a corpus, files named on the command line, or a part of a model's own corpus."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

from charlstm.cli.output import format_duration
from charlstm.config import Config, DataConfig, UnknownPolicy
from charlstm.console import Console, escape_controls
from charlstm.data.batches import fit_batches
from charlstm.data.corpus import Corpus, read_corpus
from charlstm.data.external import ExternalText
from charlstm.data.split import Tokens, default_shares
from charlstm.errors import CharlstmError, UsageError
from charlstm.presets import bundled_corpus
from charlstm.settings import Setting, Settings
from charlstm.storage.locate import BUILTIN_MODEL, STDIN
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.storage.spool import Spool
from charlstm.vocabulary import Vocabulary

READING_CHECK_SECONDS = 0.5
"""Seconds after which the time that reading takes is estimated."""


def read_with_progress(
    console: Console,
    config: DataConfig,
    stdin: BinaryIO | Spool | None,
    vocabulary: Vocabulary | None = None,
    max_time: float = 0.0,
) -> Corpus:
    """Return `read_corpus` of these arguments, with a progress bar.

    max_time: seconds that training may take with reading; 0 is no limit. A note says soon if reading takes longer.
    """
    began, noted = monotonic(), False
    with console.progress() as bar:

        def show(share: float) -> None:
            nonlocal noted
            second_pass, elapsed = share > 1, monotonic() - began
            if 0 < max_time < elapsed / max(share, 1e-9) and elapsed > READING_CHECK_SECONDS and not noted:
                noted = True
                console.note(
                    f"reading the text takes about {format_duration(elapsed / share)}, longer than --max-time "
                    f"{format_duration(max_time)}: training takes a quarter of that time then"
                )
            bar.update(
                share % 1 if share < 2 else 1, "reading the corpus again" if second_pass else "reading the corpus"
            )

        return read_corpus(config, stdin, vocabulary, show)


def with_default_split(config: Config, given: Settings, corpus: Corpus) -> Config:
    """Return the config with a smaller validation part for a large corpus, unless the user set `data.split`."""
    if "data.split" in given:
        return config
    return replace(config, data=replace(config.data, split=default_shares(len(corpus), config.data.split)))


def fit_to_text(console: Console, config: Config, given: Settings, corpus: Corpus) -> Settings:
    """Return the settings that a small text needs and the user left open, after a note; empty for other texts."""
    length = len(corpus.split(config.data.split).part("train"))
    fitted = fit_batches(config, length, given)
    if fitted:
        named = ", ".join(f"{key} {value}" for key, value in fitted.items())
        console.note(f"the text is small, so it is read with {named}")
    return {key: Setting(value, "the size of the text") for key, value in fitted.items()}


def read_files(
    console: Console,
    file: ModelFile,
    files: list[str],
    unknown: UnknownPolicy,
    encoding: str | None = None,
    errors: str | None = None,
) -> tuple[Tokens, dict[str, Any]]:
    """Return the ids of files, read as the model's corpus was, and a description for JSON.

    encoding, errors: override those of the model's corpus.
    """
    if STDIN in files and not console.piped:
        raise UsageError("'-' is stdin, and nothing was piped in")
    own = file.config.data
    config = replace(own, corpus=tuple(files), encoding=encoding or own.encoding, errors=errors or own.errors)
    text = ExternalText(config, file.vocabulary, unknown, console.stdin)
    for note in text.notes:
        console.note(escape_controls(note), "dim")
    counts = {"characters_left_out": text.skipped, "characters_folded": text.replaced}
    return Tokens(text.ids), {"text": ", ".join(files), "bytes": text.bytes, **counts}


def read_part(console: Console, file: ModelFile, part: str | None, path: Path) -> tuple[Tokens, dict[str, Any]]:
    """Return the ids of a part of the model's own corpus (the validation part by default), and a description for JSON.

    Raises CharlstmError if the corpus is gone or has changed, UsageError if it has no such part.
    """
    corpus, text = read_own_corpus(console, file, path)
    name = part or "val"
    tokens = corpus.split(file.config.data.split).part(name)
    if not len(tokens):
        split = f"it was split {','.join(f'{share:g}' for share in file.config.data.split)}"
        if part is None:
            raise UsageError(f"the model's corpus has no validation part: {split}", "name a FILE, or give --part train")
        raise UsageError(f"--part {name}: the model's corpus has no such part", split)
    about = {
        "text": f"{name} part of {text}",
        "bytes": sum(map(file.vocabulary.count_bytes, tokens.chunks())),
        "characters_folded": count_symbol(tokens, file.vocabulary.unknown),
    }
    return tokens, about


def count_symbol(tokens: Tokens, symbol: int | None) -> int:
    """Return how often a symbol occurs in a text."""
    return 0 if symbol is None else sum(int((chunk == symbol).sum()) for chunk in tokens.chunks())


def read_own_corpus(console: Console, file: ModelFile, path: Path) -> tuple[Corpus, str]:
    """Return the corpus that the model at `path` was trained on, and its name.

    Raises CharlstmError if it is gone or has changed, or if neither the run nor the model file records where it is.
    """
    hint = "name a file: charlstm eval FILE"
    folder = RunFolder(path.parent)
    sources = (str(bundled_corpus()),) if path == BUILTIN_MODEL else find_own_sources(file, folder, hint)
    try:
        corpus = read_with_progress(console, replace(file.config.data, corpus=sources), folder.spool, file.vocabulary)
    except UsageError as error:
        raise CharlstmError(f"the model's training corpus is not available: {error.message}", hint) from error
    name = ", ".join("stdin" if source == STDIN else source for source in sources)
    if corpus.fingerprint != file.corpus.get("fingerprint"):
        raise CharlstmError(f"{name} has changed since the model was trained, or is not its training corpus", hint)
    return corpus, name


def find_own_sources(file: ModelFile, folder: RunFolder, hint: str) -> tuple[str, ...]:
    """Return the paths of a model's training corpus. The run records them; a model file of version 0.1 does, too.

    Raises CharlstmError if they are not recorded, because the model file was copied without its run.
    """
    with suppress(UsageError):  # no run, or one whose config.toml cannot be read
        if sources := folder.load_config().data.corpus:
            return sources
    own = file.config.data.corpus
    if own and all(Path(source).is_absolute() or (source == STDIN and folder.spool) for source in own):
        return own
    raise CharlstmError(
        f"there is no run in {folder.path}, and the model file does not record where its training corpus "
        f"({', '.join(own) or 'unnamed'}) is",
        hint,
    )
