"""Reading a corpus while somebody waits."""

from __future__ import annotations

from dataclasses import replace
from typing import BinaryIO

from charlstm.config import Config, DataConfig
from charlstm.console import Console
from charlstm.data.corpus import Corpus, read_corpus
from charlstm.data.split import default_shares
from charlstm.settings import Settings
from charlstm.storage.spool import Spool
from charlstm.vocabulary import Vocabulary


def read(
    console: Console, config: DataConfig, stdin: BinaryIO | Spool | None, vocabulary: Vocabulary | None = None
) -> Corpus:
    """`read_corpus`, with its progress shown where it takes long."""
    with console.progress() as bar:

        def watch(share: float) -> None:
            bar.update(
                share % 1 if share < 2 else 1, "reading the corpus" if share <= 1 else "reading it again for its ids"
            )

        return read_corpus(config, stdin, vocabulary, watch)


def with_split(config: Config, given: Settings, corpus: Corpus) -> Config:
    """The settings; of a large corpus, no more is kept to validate with than needed, unless somebody said how much."""
    if "data.split" in given:
        return config
    return replace(config, data=replace(config.data, split=default_shares(len(corpus), config.data.split)))
