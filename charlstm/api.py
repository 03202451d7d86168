"""Training from Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from charlstm.config import Config
from charlstm.data.corpus import derive_run_name, read_corpus
from charlstm.data.split import default_shares
from charlstm.storage.run import RunFolder
from charlstm.training.events import Event
from charlstm.training.run import train as events


def train(
    corpus: str | Path | Sequence[str | Path],
    config: Config | None = None,
    folder: str | Path | None = None,
    *,
    overwrite: bool = False,
) -> Iterator[Event]:
    """Trains on files and folders, saving to `folder` (`runs/<corpus name>` if None), and tells what happens.

    Raises UsageError for a source that is not there or a folder that holds a run already, CharlstmError for a
    corpus that does not suit the settings, DivergedError if the loss is no longer a number.
    """
    sources = tuple(
        str(Path(source).absolute()) for source in ([corpus] if isinstance(corpus, (str, Path)) else corpus)
    )
    given = config or Config()
    data = replace(given.data, corpus=sources)
    text = read_corpus(data)
    if config is None:
        data = replace(data, split=default_shares(len(text), data.split))
    target = RunFolder(Path(folder) if folder else Path("runs") / derive_run_name(sources))
    return events(text, replace(given, data=data), target, overwrite=overwrite)
