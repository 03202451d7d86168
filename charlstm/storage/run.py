"""The run folder: what a run leaves on the disk, saved whole or not at all, and how it is picked up again.

It knows names and files, not what they mean: the training state is a tree of dicts with arrays as leaves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any, TextIO

import numpy as np

from charlstm.architecture import HEAD, weight_shapes
from charlstm.config import Config, ModelConfig
from charlstm.console import escape_controls
from charlstm.errors import CharlstmError, ModelFileError, UsageError
from charlstm.settings import from_file, resolve
from charlstm.storage.files import (
    check_free_space,
    link_atomically,
    remove_partial_files,
    write_atomically,
    write_error,
)
from charlstm.storage.locate import BEST, CONFIG, GOOD, KEPT_PATTERN, LAST, LOCK, METRICS, RUN_FILES, SPOOL, STATE
from charlstm.storage.model import ModelFile
from charlstm.storage.spool import Spool
from charlstm.storage.state import StateTree, flatten, read_state, write_state
from charlstm.storage.tensors import tensor_bytes

MAX_HEADER_ESTIMATE = 2**16
"""Bytes that a file takes beside its tensors, amply."""


class RunFolder:
    """One run's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.save_seconds = 0.0  # seconds that the last save took
        self.writer: Thread | None = None  # while something is written in the background
        self.failure: CharlstmError | None = None  # of what was

    @property
    def exists(self) -> bool:
        """Whether a run was saved here."""
        return any((self.path / name).exists() for name in (BEST, LAST, STATE))

    def check_unused(self, *, overwrite: bool = False) -> None:
        """Raises UsageError where there is a run already, or a file of a run's, that is not to be overwritten."""
        if overwrite:
            return
        if self.exists:
            hint = "--resume goes on with it, --overwrite starts anew, -o names another folder"
            raise UsageError(f"{self.path} already holds a run", hint)
        taken = [name for name in RUN_FILES if (self.path / name).exists()]
        if taken:
            raise UsageError(
                f"{self.path} already holds {', '.join(taken)}", "--overwrite replaces it, -o names another folder"
            )

    @contextmanager
    def lock_exclusively(self) -> Iterator[None]:
        """Keeps every other process from training in this folder. The lock ends with the process, however that ends.

        Raises CharlstmError, with the other's process id, where one does so already, or where nothing can be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = lock_file(self.path / LOCK)
        except BlockingIOError as error:
            other = escape_controls((self.path / LOCK).read_text("ascii", "replace").strip())
            raise CharlstmError(
                f"{self.path} is being trained by process {other}",
                "wait until it has ended, or -o names another folder",
            ) from error
        except OSError as error:
            raise write_error(self.path, error) from error
        with file:
            try:
                remove_partial_files(self.path, (*RUN_FILES, KEPT_PATTERN))
                yield
                self.wait_for_save()
            finally:
                self.join()
                (self.path / LOCK).unlink(missing_ok=True)

    def create(self, config: Config, spool: Spool | None = None, *, overwrite: bool = False) -> None:
        """Begins a run; what its corpus read from stdin is kept, so that it can be resumed and evaluated.

        Raises UsageError where there is a run already, CharlstmError where nothing can be written.
        """
        self.check_unused(overwrite=overwrite)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in RUN_FILES:
                (self.path / name).unlink(missing_ok=True)
            if overwrite:
                self.prune_kept(0)
        except OSError as error:
            raise write_error(self.path, error) from error
        if spool is not None:
            spool.move_to(self.path / SPOOL)
        self.write_config(config)

    def write_config(self, config: Config) -> None:
        write_atomically(self.path / CONFIG, config.to_toml().encode())

    def load_config(self) -> Config:
        """The settings the run was begun with. Raises UsageError if there is no run here."""
        if not (self.path / CONFIG).exists():
            raise UsageError(f"there is no run in {self.path}", "-o names a run's folder")
        return resolve(from_file(self.path / CONFIG))

    def save(self, model: ModelFile, state: StateTree, *, best: bool = False, keep: int | None = None) -> None:
        """The newest model, the best if it is that, and all that going on from here takes. Raises CharlstmError, with
        what was there before still there, if the disk has no room for it.

        `keep` also keeps the model under the name of its step, and so many such models.

        The state comes last and holds its own copy of the weights: whichever of these writes is cut short, the
        state in place is whole and agrees with itself.
        """
        self.wait_for_save()
        self.write(model, state | {"logged": self.metrics_size}, best, keep)

    def save_in_background(self, model: ModelFile, state: StateTree) -> None:
        """As `save`, but written while the caller goes on; what it was given must not change meanwhile.

        What goes wrong is raised by the next save, or at the end by `sole_writer`.
        """
        self.wait_for_save()
        self.writer = Thread(target=self.write_in_thread, args=(model, state | {"logged": self.metrics_size}))
        self.writer.start()

    def write_in_thread(self, model: ModelFile, state: StateTree) -> None:
        try:
            self.write(model, state)
        except CharlstmError as error:
            self.failure = error

    def join(self) -> None:
        """Waits for what is written in the background."""
        if self.writer is not None:
            self.writer.join()
            self.writer = None

    def wait_for_save(self) -> None:
        """The same. Raises CharlstmError if it could not be written."""
        self.join()
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def write(self, model: ModelFile, state: StateTree, best: bool = False, keep: int | None = None) -> None:
        began = monotonic()
        check_free_space(
            self.path,
            (1 + best) * (tensor_bytes(model.weights) + MAX_HEADER_ESTIMATE)
            + tensor_bytes(flatten(state)[0])
            + MAX_HEADER_ESTIMATE,
        )
        model.save(self.path / LAST)
        if best:
            model.save(self.path / BEST)
        if keep is not None:
            self.keep_step(model.metrics["step"], keep)
        write_state(self.path / STATE, state)
        self.save_seconds = monotonic() - began

    def mark_good(self) -> None:
        """What was saved last is what to fall back to. Raises CharlstmError."""
        link_atomically(self.path / STATE, self.path / GOOD)

    @property
    def has_good(self) -> bool:
        return (self.path / GOOD).exists()

    def keep_step(self, step: int, most: int) -> None:
        if most:
            link_atomically(self.path / LAST, self.path / f"step-{step:06}.safetensors")
        self.prune_kept(most)

    def prune_kept(self, most: int) -> None:
        """Removes kept models but the newest so many."""
        kept = sorted(self.path.glob(KEPT_PATTERN), key=lambda path: (len(path.name), path.name))
        for path in kept[: max(len(kept) - most, 0)]:
            path.unlink(missing_ok=True)

    def load_state(self) -> StateTree:
        """What `save` was given. Raises UsageError if nothing was saved, ModelFileError if it is damaged."""
        if not (self.path / STATE).exists():
            raise UsageError(f"{self.path} has no saved state to resume from", "--overwrite starts anew")
        return read_state(self.path / STATE)

    def check_state_shapes(self, config: ModelConfig) -> None:
        """Raises ModelFileError where the saved weights are not of these sizes: before anything that large is made."""
        weights = self.load_state().get("model")
        tensors = weights if isinstance(weights, dict) else {}
        found = {name: getattr(weight, "shape", None) for name, weight in tensors.items()}
        if found != weight_shapes(config, int(np.size(tensors.get(HEAD.bias, ())))):
            raise ModelFileError(f"{self.path / STATE} holds weights that do not fit the settings of the run")

    def load_good(self) -> StateTree:
        """The state to fall back to. Raises ModelFileError if it is damaged."""
        return read_state(self.path / GOOD)

    @property
    def metrics_size(self) -> int:
        """Bytes of metrics so far."""
        path = self.path / METRICS
        return path.stat().st_size if path.exists() else 0

    def append_metrics(self, entry: Mapping[str, Any]) -> None:
        """Adds a line to the metrics. Raises CharlstmError if it cannot."""
        try:
            with (self.path / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise write_error(self.path / METRICS, error) from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines that were logged, over all resumptions; none where there is no file."""
        path = self.path / METRICS
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if parse_step(line) < float("inf")]

    def truncate_metrics(self, state: StateTree) -> None:
        """Drops the metrics that were logged after this state was saved, and a last line that was cut short."""
        path, step, size = self.path / METRICS, state["progress"].get("step", 0), state.get("logged")
        if path.exists():
            own = path.read_bytes()[: size if isinstance(size, int) else None]  # an older charlstm did not say
            lines = own.decode("utf-8", "replace").splitlines()
            kept = [line for line in lines if parse_step(line) <= step]
            write_atomically(path, "".join(line + "\n" for line in kept).encode())

    @property
    def spool(self) -> Spool | None:
        """What the run read from stdin, to be read again."""
        return Spool(path=self.path / SPOOL) if (self.path / SPOOL).exists() else None


def lock_file(path: Path) -> TextIO:
    """A file that nobody else holds, with this process's id in it. Raises BlockingIOError if somebody does."""
    while True:
        file = path.open("a+", encoding="ascii")
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        except OSError:  # a file system without locks is no reason not to train
            return file
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            file.truncate(0)
            print(os.getpid(), file=file, flush=True)
            return file
        file.close()  # it was removed, by a process that has ended just now


def parse_step(line: str) -> float:
    """The step of a line of metrics; infinite for half a line."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return float("inf")
