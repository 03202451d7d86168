"""The run folder of several ranks: the first one writes, and what it reads is sent to the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from charlstm.config import Config
from charlstm.model.ranks import Ranks
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.storage.spool import Spool
from charlstm.storage.state import StateTree


class SharedRunFolder(RunFolder):
    """A run folder that only the first rank needs to reach. An error of its own is raised by all ranks."""

    def __init__(self, path: Path, ranks: Ranks) -> None:
        super().__init__(path)
        self.ranks = ranks

    @contextmanager
    def lock_exclusively(self) -> Iterator[None]:
        with ExitStack() as stack:
            own = super().lock_exclusively()
            self.ranks.from_first(lambda: stack.enter_context(own))
            yield

    def create(self, config: Config, spool: Spool | None = None, *, overwrite: bool = False) -> None:
        create = super().create
        self.ranks.from_first(lambda: create(config, spool, overwrite=overwrite))

    def write_config(self, config: Config) -> None:
        if self.ranks.is_first:
            super().write_config(config)

    def save(self, model: ModelFile, state: StateTree, *, best: bool = False, keep: int | None = None) -> None:
        save = super().save
        self.ranks.from_first(lambda: save(model, state, best=best, keep=keep))

    def save_in_background(self, model: ModelFile, state: StateTree, *, best: bool = False) -> None:
        save = super().save_in_background
        self.ranks.from_first(lambda: save(model, state, best=best))

    def mark_good(self) -> None:
        if self.ranks.is_first:
            super().mark_good()

    def load_best(self) -> ModelFile:
        return self.ranks.from_first(super().load_best)

    def save_best(self, model: ModelFile) -> None:
        if self.ranks.is_first:
            super().save_best(model)

    def load_state(self) -> StateTree:
        return self.ranks.from_first(super().load_state)

    def load_good(self) -> StateTree:
        return self.ranks.from_first(super().load_good)

    def append_metrics(self, entry: Mapping[str, Any]) -> None:
        if self.ranks.is_first:
            super().append_metrics(entry)

    def truncate_metrics(self, state: StateTree) -> None:
        if self.ranks.is_first:
            super().truncate_metrics(state)
