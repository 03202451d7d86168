"""The run folder: the files of one training run, written whole and read again to resume it.

It knows names and files, not their meaning: the training state is a tree of dicts with arrays as leaves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any

import numpy as np

from charlstm.architecture import HEAD, weight_shapes
from charlstm.config import Config, ModelConfig
from charlstm.errors import CharlstmError, ModelFileError, UsageError
from charlstm.settings import from_run, resolve
from charlstm.storage.files import (
    DISK_FULL_HINT,
    FILE_SIZE_HINT,
    check_free_space,
    link_atomically,
    remove_file,
    remove_partial_files,
    write_atomically,
    write_error,
)
from charlstm.storage.locate import BEST, CONFIG, GOOD, KEPT_PATTERN, LAST, LOCK_FILE, METRICS, RUN_FILES, SPOOL, STATE
from charlstm.storage.lock import ProcessLock
from charlstm.storage.metrics import LoggedLine, MetricsReader, parse_step
from charlstm.storage.model import ModelFile
from charlstm.storage.spool import Spool
from charlstm.storage.state import StateTree, flatten, read_state, write_state
from charlstm.storage.tensors import tensor_bytes

MAX_HEADER_ESTIMATE = 2**16
"""Bytes of a file besides its tensors: names, settings and vocabulary. Most files have less."""


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.save_seconds = 0.0  # of the last save
        self.writer: Thread | None = None  # of a save in the background
        self.failure: CharlstmError | None = None  # of the last save in the background

    # Beginning a run

    @property
    def exists(self) -> bool:
        """Whether a run was saved here."""
        return any((self.path / name).exists() for name in (BEST, LAST, STATE))

    def check_unused(self, *, overwrite: bool = False) -> None:
        """Raise UsageError if the folder holds a run, or a file that has the name of one of a run's files."""
        if overwrite:
            return
        if self.exists:
            hint = "--resume continues it, --overwrite replaces it, -o names another folder"
            raise UsageError(f"{self.path} already holds a run", hint)
        taken = [name for name in RUN_FILES if (self.path / name).exists()]
        if taken:
            raise UsageError(
                f"{self.path} already holds {', '.join(taken)}", "--overwrite replaces it, -o names another folder"
            )

    @contextmanager
    def lock_exclusively(self) -> Iterator[None]:
        """Keep other processes from training in this folder during the block, and remove the lock file after it.

        Raises CharlstmError if another process trains here, with its id, or if the folder cannot be written to; after
        the block, also if the last save in the background failed.
        """
        lock = ProcessLock(self.path / LOCK_FILE)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except BlockingIOError as error:
            raise CharlstmError(
                f"{self.path} is being trained by {lock.read_owner()}",
                "wait until it has ended, or name another folder with -o",
            ) from error
        except OSError as error:
            raise write_error(self.path, error) from error
        try:
            remove_partial_files(self.path, (*RUN_FILES, KEPT_PATTERN))
            yield
            self.wait_for_save()
        finally:
            self.join_writer()
            lock.release()

    @property
    def is_training(self) -> bool:
        """Whether a process trains in this folder now."""
        return ProcessLock(self.path / LOCK_FILE).is_held()

    @contextmanager
    def advise_resuming(self) -> Iterator[None]:
        """Add --resume to the hint of an error about space in the block, if a saved state can be resumed.

        The train command uses it. `tune` does not: it removes the run of a trial that failed.
        """
        try:
            yield
        except CharlstmError as error:
            if error.hint in (DISK_FULL_HINT, FILE_SIZE_HINT) and (self.path / STATE).exists():
                error.hint += " and continue with --resume"
            raise

    def create(self, config: Config, spool: Spool | None = None, *, overwrite: bool = False) -> None:
        """Start a run. A corpus read from stdin is moved to the folder, so that the run can be resumed and evaluated.

        Raises UsageError if the folder holds a run, CharlstmError if it cannot be written to.
        """
        self.check_unused(overwrite=overwrite)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in RUN_FILES:
                remove_file(self.path / name)
            if overwrite:
                self.remove_kept(0)
        except OSError as error:
            raise write_error(self.path, error) from error
        if spool is not None:
            spool.move_to(self.path / SPOOL)
        self.write_config(config)

    def write_config(self, config: Config) -> None:
        """Write the settings of the run. Raises CharlstmError if that fails."""
        write_atomically(self.path / CONFIG, config.to_toml().encode())

    # Saving

    def save(self, model: ModelFile, state: StateTree, *, best: bool = False, keep: int | None = None) -> None:
        """Save the last model, the training state and, with `best`, the model as the best one.

        With `keep`, the model is also kept under the name of its step, and of such models the last `keep`. The state
        is written last and has its own copy of the weights: if the process is killed in between, the state on disk is
        whole and consistent. Raises CharlstmError, with the files as they were, if the disk has too little space.
        """
        self.wait_for_save()
        self.write_files(model, state | {"logged": self.metrics_size}, best, keep)

    def save_in_background(self, model: ModelFile, state: StateTree, *, best: bool = False) -> None:
        """Save as `save` does, in a thread. The caller must not change the model and the state meanwhile.

        An error is raised by the next save, or at the end by `lock_exclusively`.
        """
        self.wait_for_save()
        self.writer = Thread(target=self.write_in_thread, args=(model, state | {"logged": self.metrics_size}, best))
        self.writer.start()

    def write_in_thread(self, model: ModelFile, state: StateTree, best: bool) -> None:
        try:
            self.write_files(model, state, best)
        except CharlstmError as error:
            self.failure = error

    def join_writer(self) -> None:
        """Wait for a save in the background."""
        if self.writer is not None:
            self.writer.join()
            self.writer = None

    def wait_for_save(self) -> None:
        """Wait for a save in the background. Raises CharlstmError if it failed."""
        self.join_writer()
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def write_files(self, model: ModelFile, state: StateTree, best: bool = False, keep: int | None = None) -> None:
        started = monotonic()
        model_bytes = tensor_bytes(model.weights) + MAX_HEADER_ESTIMATE
        state_bytes = tensor_bytes(flatten(state)[0]) + MAX_HEADER_ESTIMATE
        check_free_space(self.path, (1 + best) * model_bytes + state_bytes)
        model.save(self.path / LAST)
        if best:
            model.save(self.path / BEST)
        if keep is not None:
            self.keep_model(model.metrics["step"], keep)
        write_state(self.path / STATE, state)
        self.save_seconds = monotonic() - started

    def keep_model(self, step: int, count: int) -> None:
        """Keep the last model under the name of its step, and of such models the last `count`."""
        if count:
            link_atomically(self.path / LAST, self.path / f"step-{step:06}.safetensors")
        self.remove_kept(count)

    def remove_kept(self, count: int) -> None:
        """Remove the models of `--keep` except the last `count`."""
        kept = sorted(self.path.glob(KEPT_PATTERN), key=lambda path: (len(path.name), path.name))
        for path in kept[: max(len(kept) - count, 0)]:
            remove_file(path)

    def mark_good(self) -> None:
        """Make the state that was saved last the one to roll back to. Raises CharlstmError if that fails."""
        if not (self.has_good and (self.path / GOOD).samefile(self.path / STATE)):
            link_atomically(self.path / STATE, self.path / GOOD)

    def load_best(self) -> ModelFile:
        """Return the best model. Raises ModelFileError if it is damaged."""
        return ModelFile.load(self.path / BEST)

    def save_best(self, model: ModelFile) -> None:
        """Replace the best model. Raises CharlstmError if that fails."""
        model.save(self.path / BEST)

    # Resuming

    def load_config(self) -> Config:
        """Return the settings of the run. Raises UsageError if the folder holds no run."""
        if not (self.path / CONFIG).exists():
            raise UsageError(f"there is no run in {self.path}", "-o names the folder of a run")
        return resolve(from_run(self.path / CONFIG))

    def load_state(self) -> StateTree:
        """Return the state that was saved last. Raises UsageError if there is none, ModelFileError if it is damaged."""
        if not (self.path / STATE).exists():
            raise UsageError(f"{self.path} has no saved state to resume from", "--overwrite starts a new run there")
        return read_state(self.path / STATE)

    def check_state_shapes(self, config: ModelConfig) -> None:
        """Raise ModelFileError if the saved weights do not have the shapes of this model.

        Called before the model is built: the settings may ask for any size, the file is as large as it is.
        """
        weights = self.load_state().get("model")
        tensors = weights if isinstance(weights, dict) else {}
        found = {name: getattr(weight, "shape", None) for name, weight in tensors.items()}
        if found != weight_shapes(config, int(np.size(tensors.get(HEAD.bias, ())))):
            raise ModelFileError(
                f"{self.path / STATE} holds weights that do not fit the settings of the run",
                f"restore it or {self.path / CONFIG} from a copy, or start a new run with --init-from",
            )

    @property
    def has_good(self) -> bool:
        """Whether there is a state to roll back to."""
        return (self.path / GOOD).exists()

    def load_good(self) -> StateTree:
        """Return the state to roll back to. Raises ModelFileError if it is damaged."""
        return read_state(self.path / GOOD)

    @property
    def spool(self) -> Spool | None:
        """The corpus that the run read from stdin, if it did."""
        return Spool(path=self.path / SPOOL) if (self.path / SPOOL).exists() else None

    # Metrics

    @property
    def metrics_size(self) -> int:
        """Length of the metrics in bytes."""
        path = self.path / METRICS
        return path.stat().st_size if path.exists() else 0

    def append_metrics(self, entry: Mapping[str, Any]) -> None:
        """Append a line to the metrics. Raises CharlstmError if that fails."""
        try:
            with (self.path / METRICS).open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise write_error(self.path / METRICS, error) from error

    def read_metrics(self) -> list[LoggedLine]:
        """Return the lines of the metrics, from the first step on. A line that was cut short is left out."""
        reader = MetricsReader(self.path / METRICS)
        reader.update()
        return reader.entries

    def truncate_metrics(self, state: StateTree) -> None:
        """Remove the lines that were appended after this state was saved, and a line that was cut short."""
        path, step, size = self.path / METRICS, state["progress"].get("step", 0), state.get("logged")
        if path.exists():
            data = path.read_bytes()[: size if isinstance(size, int) else None]  # the first version saved no size
            lines = data.decode("utf-8", "replace").splitlines()
            kept = [line for line in lines if parse_step(line) <= step]
            write_atomically(path, "".join(line + "\n" for line in kept).encode())
