"""An overview of a run from its files, which a process may be writing."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any, Literal

from charlstm.architecture import count_parameters
from charlstm.config import Config
from charlstm.errors import CharlstmError, UsageError
from charlstm.storage.locate import BEST, BUILTIN, CONFIG, LAST, METRICS, SEARCH_JOURNAL, STATE
from charlstm.storage.metrics import LoggedLine, MetricsReader
from charlstm.storage.model import ModelFile, name_sources
from charlstm.storage.run import RunFolder
from charlstm.storage.tensors import check_layout

RunState = Literal["training", "ended", "stopped", "damaged"]

TIME_OVER = 0.9
"""Share of a time limit after which a run has ended: some of the limit is kept for the end. Newer runs record it."""


@dataclass(frozen=True)
class Overview:
    """A run at a glance. What its files do not say is None.

    path: the folder.
    state: whether a process trains it now; else whether one of its files is damaged, as far as a look at the sizes
        shows, and whether it ended by itself or was stopped, killed included.
    damage: which file is damaged, and how; empty if none is, or while it trains.
    model: the settings of the model, with those of the rest of the run.
    parameters: weights of the model.
    corpus: the names of the files of its text.
    characters: characters read in training.
    passes: how often it has read the training part.
    fraction_done: share of the training done.
    seconds: time that it has taken, over all resumptions.
    train_loss_nats: mean training loss before the last validation, nats per character.
    best_loss_nats: lowest validation loss, at `best_step`.
    chars_per_second: speed of training, when it last logged one.
    world_size: processes that `--processes` or torchrun started.
    modified: when its files last changed, in seconds since 1970.
    """

    path: Path
    state: RunState
    damage: str
    config: Config
    parameters: int
    corpus: tuple[str, ...]
    step: int
    characters: int | None
    passes: float | None
    fraction_done: float | None
    seconds: float | None
    train_loss_nats: float | None
    best_step: int | None
    best_loss_nats: float | None
    chars_per_second: float | None
    world_size: int | None
    modified: float

    @property
    def best_bpc(self) -> float | None:
        """The lowest validation loss in bits per character."""
        return None if self.best_loss_nats is None else self.best_loss_nats / log(2)

    def to_dict(self) -> dict[str, Any]:
        """Return the overview as JSON values."""
        model, training = self.config.model, self.config.training
        return {
            "run": str(self.path),
            "state": self.state,
            "damage": self.damage or None,
            "cell": model.cell,
            "layers": model.layers,
            "hidden": model.hidden,
            "bidirectional": model.bidirectional,
            "parameters": self.parameters,
            "corpus": list(self.corpus),
            "step": self.step,
            "characters": self.characters,
            "passes": self.passes,
            "epochs": training.epochs,
            "max_time": training.max_time,
            "fraction_done": self.fraction_done,
            "seconds": self.seconds,
            "train_loss_nats": self.train_loss_nats,
            "best_step": self.best_step,
            "best_loss_nats": self.best_loss_nats,
            "best_bpc": self.best_bpc,
            "chars_per_second": self.chars_per_second,
            "world_size": self.world_size,
            "modified": self.modified,
        }


def find_runs(folder: Path) -> Iterator[Path]:
    """Yield the runs in a folder and in its subfolders, by name, and the folder itself. Hidden ones are left out.

    A link to a run is one, too. Other links are not followed: they could lead back to the folder.
    """
    for name, subfolders, files in os.walk(folder):
        subfolders[:] = sorted(each for each in subfolders if not each.startswith("."))
        if {BEST, LAST} & {*files}:
            yield Path(name)
        links = (path for each in subfolders if (path := Path(name, each)).is_symlink())
        yield from (path for path in links if any((path / model).is_file() for model in (BEST, LAST)))


def describe_run(folder: Path) -> Overview:
    """Return the overview of the run in a folder. Raises CharlstmError if its model file cannot be read."""
    state: RunState = (
        "training" if RunFolder(folder).is_training else "stopped"
    )  # first: a run that ends meanwhile has all
    header, path = load_run_header(folder), folder / METRICS
    reader = MetricsReader(path)
    reader.update()
    last = merge_entries(reader.entries)
    is_search = (folder / SEARCH_JOURNAL).exists()  # it keeps the best model only
    if state != "training" and (is_search or has_ended(header.config, reader.entries, last)):
        state = "ended"
    damage = "" if state == "training" else find_damage(folder, reader)
    best = find_best(reader.entries, header.metrics)
    changed = path if path.exists() else find_header(folder)
    return Overview(
        path=folder,
        state="damaged" if damage else state,
        damage=damage,
        config=header.config,
        parameters=count_parameters(header.config.model, header.vocabulary.size),
        corpus=tuple(name_sources(header.config.data)),
        step=int(last.get("step", header.metrics.get("step", 0))),
        characters=last.get("characters", header.metrics.get("characters")),
        passes=last.get("passes", count_passes(header, last.get("characters"))),
        fraction_done=last.get("fraction_done"),
        seconds=last.get("seconds"),
        train_loss_nats=last.get("loss_nats"),
        best_step=best[0],
        best_loss_nats=best[1],
        chars_per_second=last.get("chars_per_second"),
        world_size=last.get("world_size"),
        modified=changed.stat().st_mtime,
    )


def find_damage(folder: Path, reader: MetricsReader) -> str:
    """Return the damage to the files of a run, in words, or an empty string. Weights are not read."""
    try:
        for name in (BEST, LAST, STATE):
            if (folder / name).exists():
                check_layout(folder / name)
        if (folder / CONFIG).exists():
            tomllib.loads((folder / CONFIG).read_text("utf-8"))
    except CharlstmError as error:
        return error.message
    except ValueError as error:
        return f"{folder / CONFIG} is not TOML: {error}"
    return f"none of the lines of {reader.path} has metrics" if reader.is_damaged else ""


def find_header(folder: Path) -> Path:
    """Return the model file that has the settings of a run as they are now. Raises UsageError if there is none."""
    for name in (LAST, BEST):  # a search of `tune` has the best model only
        if (folder / name).is_file():
            return folder / name
    hint = "name the folder of a run, as in charlstm plot runs/*"
    if folder.is_file():
        raise UsageError(f"{folder} is a file, not the folder of a run", hint)
    if folder == Path(BUILTIN) and not folder.exists():
        raise UsageError(f"{BUILTIN} is a model without a run: it has no training history", hint)
    if not folder.exists():
        raise UsageError(f"there is no run at {folder}", "charlstm runs lists those that there are")
    raise UsageError(f"the folder {folder} holds no run", hint)


def load_run_header(folder: Path) -> ModelFile:
    """Return what a run is, without weights, by its best model if the last is damaged.

    Raises CharlstmError if neither can be read.
    """
    path, best = find_header(folder), folder / BEST
    try:
        return ModelFile.load_header(path)
    except CharlstmError:
        if path == best or not best.is_file():
            raise
        return ModelFile.load_header(best)


def merge_entries(entries: list[LoggedLine]) -> LoggedLine:
    """Return the last value of everything that was logged; the training loss is that of the last validation or save."""
    last: LoggedLine = {}
    for entry in entries:
        is_mean = "validation_loss_nats" in entry or "loss_nats" not in last
        last |= entry if is_mean else {key: value for key, value in entry.items() if key != "loss_nats"}
    return last


def has_ended(config: Config, entries: list[LoggedLine], last: LoggedLine) -> bool:
    """Return whether a run that is not being trained ended by itself."""
    if not entries or "best_step" in entries[-1]:
        return bool(entries)
    if "fraction_done" in last:
        return bool(last["fraction_done"] >= 1)
    limit = config.training.max_time
    return bool(
        last.get("epoch", 0) >= config.training.epochs or (limit and last.get("seconds", 0.0) >= TIME_OVER * limit)
    )


def find_best(entries: list[LoggedLine], metrics: Mapping[str, Any]) -> tuple[int | None, float | None]:
    """Return the step and the loss of the best model: of its last evaluation, else of the lowest validation.

    metrics: those of the model file, for a search that logs none.
    """
    if entries and "best_validation_loss_nats" in entries[-1]:
        return entries[-1]["best_step"], entries[-1]["best_validation_loss_nats"]
    found = [(entry["validation_loss_nats"], entry["step"]) for entry in entries if "validation_loss_nats" in entry]
    if not found and not entries and "validation" in metrics:
        found = [(metrics["validation"]["loss_nats"], metrics["step"])]
    loss, step = min(found, default=(None, None))
    return step, loss


def count_passes(header: ModelFile, characters: int | None) -> float | None:
    """Return how often this many characters are the training part: earlier versions did not log it."""
    corpus = header.corpus
    if characters is None or not {"characters", "split"} <= corpus.keys():
        return None
    return round(characters / max(float(corpus["characters"]) * float(corpus["split"][0]), 1.0), 5)
