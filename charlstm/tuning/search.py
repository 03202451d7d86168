"""A search: one short training after the other, with Optuna's journal as their shared memory.

Several processes may search in one folder at once, and any of them may be killed: all results are in the journal, and
the folder of a trial is locked while a process trains in it.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import optuna
import tomli_w
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from charlstm.config import Config
from charlstm.data.batches import Batches
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError, DivergedError, UsageError
from charlstm.settings import Settings, current_key, updated
from charlstm.storage.files import replace_file, write_atomically
from charlstm.storage.locate import BEST, CONFIG, SEARCH_JOURNAL
from charlstm.storage.lock import ProcessLock
from charlstm.storage.run import RunFolder
from charlstm.training.events import Event, Finished, Validated
from charlstm.training.run import run_training
from charlstm.training.trainer import Trainer
from charlstm.tuning.events import TrialFinished
from charlstm.tuning.journal import open_study
from charlstm.tuning.monitor import RUNGS, TrialMonitor
from charlstm.tuning.space import Categorical, Space, Value, fixed_terms, get_setting

BEST_CONFIG, SEARCH_LOCK = "best.toml", "lock"

MIN_TRIALS_TO_RANK = 10
"""Trials that must be done before the settings are ranked by importance."""

ORIGIN = "the search"
"""Where the values of searched settings come from, for error messages."""


class Search:
    """The trials in a folder: those that it has and those to come.

    folder: the folder of the search; it is created if it does not exist.
    corpus: the text.
    config: the settings of every trial, except the searched ones.
    given: the settings that the user set; they are written to the resulting config file.
    space: the settings that are searched.

    Raises UsageError if the folder holds a run or another search, CharlstmError if it cannot be written, its journal is
    damaged or the corpus is too small for any settings.
    """

    def __init__(self, folder: Path, corpus: Corpus, config: Config, given: Settings, space: Space) -> None:
        self.folder, self.config, self.given, self.space = folder, config, given, space
        self.corpus = replace(corpus, spool=None)  # a trial would move the text to its folder, which is removed
        self.tokens = corpus.split(config.data.split)
        if not (folder / SEARCH_JOURNAL).exists():
            RunFolder(folder).check_unused()
        self.study = open_study(folder)
        self.check_terms()
        self.discard_killed()
        self.enqueue_given()

    def check_terms(self) -> None:
        """Raise UsageError if the settings or the corpus are not those that this search was started with."""
        terms, saved = fixed_terms(self.config, self.space), self.study.user_attrs
        if not saved:
            self.study.set_user_attr("settings", terms)
            self.study.set_user_attr("corpus", self.corpus.fingerprint)
            return
        hint = "name another folder with -o"
        if saved["corpus"] != self.corpus.fingerprint:
            raise UsageError(f"{self.folder} holds a search on another corpus", hint)
        before = {current_key(key): value for key, value in saved["settings"].items()}
        for key, value in terms.items():
            if before.get(key, value) != value:
                where = self.given[key].where if key in self.given else key
                raise UsageError(f"{where} is {value} here and {before[key]} in the search in {self.folder}", hint)

    def discard_killed(self) -> None:
        """Mark the trials of killed processes as failed: no process holds the lock of their folder."""
        for path in self.folder.glob("trial-*"):
            number = path.name.removeprefix("trial-")
            if not number.isdecimal():
                continue
            with suppress(CharlstmError):
                with RunFolder(path).lock_exclusively(), suppress(ValueError):  # it ended, only its folder was left
                    self.study.tell(int(number), state=TrialState.FAIL)
                shutil.rmtree(path, ignore_errors=True)

    def enqueue_given(self) -> None:
        """Give the first trial the settings as they are, so that the result is at least as good."""
        params = {key: values.encode(get_setting(self.config, key)) for key, values in self.space.items()}
        if all(trial.state == TrialState.FAIL for trial in self.study.get_trials(deepcopy=False)):
            self.study.enqueue_trial(params)

    def run_trials(self, count: int, stop: Callable[[], bool] = lambda: False) -> Iterator[Event | TrialFinished]:
        """Run `count` trials, or until `stop()` returns True. The trial that it interrupts does not count."""
        self.warm_up()
        for _ in range(count):
            if stop():
                return
            yield from self.run_trial(stop)

    def warm_up(self) -> None:
        """Take one step with each cell, so that compiling does not cost the first trials time."""
        cells = self.space.get("model.cell")
        for cell in cells.choices if isinstance(cells, Categorical) else (self.config.model.cell,):
            config = updated(self.config, {"model.cell": cell}, ORIGIN)
            with (
                suppress(CharlstmError, MemoryError, RuntimeError),  # a trial reports it
                closing(Trainer(self.corpus, config)) as trainer,
            ):
                trainer.step(0.0)

    def run_trial(self, stop: Callable[[], bool]) -> Iterator[Event | TrialFinished]:
        """Run one trial: yield the events of its training, then its result.

        A trial that `stop()` or an error interrupts has failed, and a stopped one yields no result.
        """
        trial = self.ask()
        folder = RunFolder(self.folder / f"trial-{trial.number}")
        monitor, began = TrialMonitor(trial, self.config.training.max_time), monotonic()
        state = TrialState.FAIL
        try:
            values = {key: values.suggest(trial, key) for key, values in self.space.items()}
            yield from self.train_trial(monitor, updated(self.config, values, ORIGIN), folder, stop)
            if not monitor.stopped:
                state = TrialState.PRUNED if monitor.over else TrialState.COMPLETE
        finally:
            loss = min(monitor.losses, default=None)
            self.study.tell(trial, loss if state == TrialState.COMPLETE else None, state)
            best = state == TrialState.COMPLETE and self.keep_best(trial.number, folder)
            shutil.rmtree(folder.path, ignore_errors=True)
        if not monitor.stopped:
            outcome, seconds = monitor.outcome or "done", monotonic() - began
            done = monitor.rung / RUNGS
            yield TrialFinished(trial.number, outcome, loss, done, values, seconds, monitor.reason, best)

    def train_trial(
        self, monitor: TrialMonitor, config: Config, folder: RunFolder, stop: Callable[[], bool]
    ) -> Iterator[Event]:
        """Train with the settings of a trial. Settings that cannot be trained are a result: the search continues."""
        try:
            Batches.from_config(self.tokens.part("train"), config)
        except CharlstmError as error:
            monitor.fail(error.message)
            return
        try:
            for event in run_training(
                self.corpus, config, folder, stop=lambda: monitor.over or stop(), validate_at=monitor.validate_at
            ):
                yield event
                if isinstance(event, Validated):
                    monitor.record_validation(event)
                elif isinstance(event, Finished):
                    monitor.stopped = event.reason == "stopped" and not monitor.over
        except DivergedError as error:
            monitor.fail(error.message)
        except (MemoryError, RuntimeError) as error:  # on a CPU, torch raises RuntimeError where memory runs out
            monitor.fail(str(error).partition("\n")[0])

    def ask(self) -> optuna.Trial:
        """Return the next trial. Its settings depend on the seed, its number and the results of finished trials."""
        self.study.sampler = self.make_sampler(len(self.study.get_trials(deepcopy=False)))
        trial = self.study.ask()
        self.study.sampler = self.make_sampler(trial.number)  # another process may have asked at the same moment
        return trial

    def make_sampler(self, number: int) -> TPESampler:
        """Return the sampler of a trial: a tree-structured Parzen estimator (Bergstra et al. 2011)."""
        return TPESampler(seed=(self.config.training.seed * 1_000_003 + number) % 2**32)

    def keep_best(self, number: int, trial: RunFolder) -> bool:
        """Keep the model and settings of this trial if it is the best so far. Returns whether it is."""
        lock = ProcessLock(self.folder / SEARCH_LOCK)
        lock.acquire(wait=True)
        try:
            if self.best_trials(1)[0].number != number:
                return False
            for name in (BEST, CONFIG):  # the settings of the trial record where the corpus is
                replace_file(trial.path / name, self.folder / name)
            self.write_best()
            return True
        finally:
            lock.release()

    def write_best(self) -> Path:
        """Write the settings of the best trial to a file for --config. Returns its path."""
        path = self.folder / BEST_CONFIG
        write_atomically(path, self.config_toml(self.best_trials(1)[0]).encode())
        return path

    def config_toml(self, trial: FrozenTrial) -> str:
        """Return the settings that the user set and those that this trial found, as TOML."""
        found = self.searched_values(trial)
        config = updated(self.config, found, ORIGIN)
        time = f"{config.training.max_time:g}s"
        about = f"Trial {trial.number} of a search: {trial.value:.4f} nats/char after {time}. --max-time trains longer."
        document: dict[str, Any] = {"about": about}
        for key in fixed_terms(config, {}):
            if key in self.given or key in found:
                section, _, name = key.partition(".")
                document.setdefault(section, {})[name] = time if name == "max_time" else get_setting(config, key)
        return tomli_w.dumps(document)

    def searched_values(self, trial: FrozenTrial) -> dict[str, Value]:
        """Return the searched settings of a trial by `section.key`."""
        params = {current_key(key): value for key, value in trial.params.items()}
        return {key: values.decode(params[key]) for key, values in self.space.items()}

    def best_trials(self, count: int) -> list[FrozenTrial]:
        """Return the best trials that trained to their end, of all processes, best first."""
        return sorted(self.completed, key=lambda trial: (trial.value, trial.number))[:count]

    @property
    def completed(self) -> list[FrozenTrial]:
        """The trials that trained to their end, of all processes."""
        return self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])

    @property
    def finished_trials(self) -> int:
        """Number of trials that trained to their end or were pruned, of all processes."""
        return len(self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED]))

    def parameter_importances(self) -> dict[str, float]:
        """Return how much each setting matters for the loss, as shares, largest first; empty after a few trials.

        PED-ANOVA (Watanabe et al. 2023).
        """
        if len(self.completed) < MIN_TRIALS_TO_RANK:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna before 5 calls it experimental
            return optuna.importance.get_param_importances(self.study, evaluator=PedAnovaImportanceEvaluator())
