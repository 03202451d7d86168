"""A search: one short training after the other, with Optuna's journal as their shared memory.

Several processes may search in one folder at once, and any of them may be killed: all results are in the journal, and
the folder of a trial is locked while a process trains in it.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, flock
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import optuna
import tomli_w
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from charlstm.config import Config
from charlstm.data.batches import Batches
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError, DivergedError, UsageError
from charlstm.settings import Settings, current_key, updated
from charlstm.storage.files import write_atomically, write_error
from charlstm.storage.locate import BEST, CONFIG, SEARCH_JOURNAL
from charlstm.storage.run import RunFolder
from charlstm.training.events import Event, Finished, Validated
from charlstm.training.run import run_training
from charlstm.training.trainer import Trainer
from charlstm.tuning.events import TrialFinished
from charlstm.tuning.space import Categorical, Space, Value, fixed_terms, get_setting

BEST_CONFIG, SEARCH_LOCK = "best.toml", "lock"

RUNGS = 5
"""A trial is compared with the others at multiples of a fifth of its time."""

FIRST_RUNG = 2
"""The first multiple at which it is: before that, a high learning rate looks worse than it is."""

MAX_VALIDATION_SHARE = 0.1
"""Share of its time that a trial may spend on validations before its end. On a long text, one may exceed it."""

MIN_TRIALS_TO_PRUNE = 4
"""Trials that must be done before others are compared with them and pruned."""

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
        self.folder, self.corpus, self.config, self.given, self.space = folder, corpus, config, given, space
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
            with suppress(CharlstmError), RunFolder(path).lock_exclusively():
                shutil.rmtree(path, ignore_errors=True)
                number = int(path.name.removeprefix("trial-"))
                with suppress(ValueError):  # the trial ended, and only its folder was left
                    self.study.tell(number, state=TrialState.FAIL)

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
            with suppress(CharlstmError, MemoryError, RuntimeError):  # a trial reports it
                Trainer(self.corpus, updated(self.config, {"model.cell": cell}, ORIGIN)).step(0.0)

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
        with lock_search(self.folder):
            if self.best_trials(1)[0].number != number:
                return False
            for name in (BEST, CONFIG):  # the settings of the trial record where the corpus is
                (trial.path / name).replace(self.folder / name)
            self.write_best()
            return True

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


class TrialMonitor:
    """What happens to one trial: when it is validated, with which results, and why it ends."""

    def __init__(self, trial: optuna.Trial, seconds: float) -> None:
        self.trial, self.seconds = trial, seconds
        self.losses: list[float] = []  # of its validations, nats per character
        self.rung = 0  # of the last validation: the fifths of its time that were over
        self.next_rung = RUNGS  # of the next validation; the last rung is not announced by `validate_at`
        self.validation_began = 0.0
        self.validation_seconds = 0.0  # of all validations
        self.outcome: Literal["", "pruned", "failed"] = ""
        self.reason = ""  # why it failed
        self.stopped = False  # by the user

    @property
    def over(self) -> bool:
        """Whether it was pruned or failed."""
        return self.outcome != ""

    def fail(self, reason: str) -> None:
        """End the trial as failed."""
        self.outcome, self.reason = "failed", reason

    def validate_at(self, done: float) -> bool:
        """Return whether to validate at this share of the training."""
        rung = int(done * RUNGS)
        too_slow = self.validation_seconds > MAX_VALIDATION_SHARE * self.seconds
        if rung <= max(self.rung, FIRST_RUNG - 1) or too_slow:
            return False
        self.next_rung, self.validation_began = rung, monotonic()
        return True

    def record_validation(self, event: Validated) -> None:
        """Report a validation loss to the study, which decides whether the trial is pruned."""
        loss, rung = event.metrics.loss_nats, self.next_rung
        self.next_rung = RUNGS
        if not isfinite(loss):
            self.fail("the validation loss is not finite")
            return
        self.losses.append(loss)
        self.validation_seconds += monotonic() - self.validation_began
        # The end may come twice: the time for the last validation is only known after the first one.
        if rung > self.rung:
            self.rung = rung
            self.trial.report(loss, rung)
            if rung < RUNGS and self.trial.should_prune():
                self.outcome = "pruned"


def open_study(folder: Path) -> optuna.Study:
    """Open or create the study in a folder. Raises CharlstmError."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = folder / SEARCH_JOURNAL
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        pruner = MedianPruner(n_startup_trials=MIN_TRIALS_TO_PRUNE)
        return optuna.create_study(storage=storage, study_name="charlstm", pruner=pruner, load_if_exists=True)
    except OSError as error:
        raise write_error(folder, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CharlstmError(
            f"{journal} is damaged, or not the journal of a search", "name another folder with -o"
        ) from error


@contextmanager
def lock_search(folder: Path) -> Iterator[None]:
    """Wait for the other processes that search in this folder: one at a time writes the best result."""
    with (folder / SEARCH_LOCK).open("a") as file:
        with suppress(OSError):  # a file system without locks: two processes rarely write at once
            flock(file, LOCK_EX)
        yield
