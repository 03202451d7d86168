"""The search itself: trial after trial, each a short training, with Optuna's journal as the memory they share.

Several processes may search in one folder at once, and any may be killed: all a process knows is in the journal, and
a trial's own folder is locked for as long as somebody trains in it.
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
from charlstm.settings import Settings, updated
from charlstm.storage.files import write_atomically, write_error
from charlstm.storage.locate import BEST
from charlstm.storage.run import RunFolder
from charlstm.training.events import Event, Finished, Validated
from charlstm.training.run import run_training
from charlstm.training.trainer import Trainer
from charlstm.tuning.events import TrialFinished
from charlstm.tuning.space import Categorical, Space, Value, fixed_terms, get_setting

JOURNAL, SETTINGS, LOCK = "journal.jsonl", "best.toml", "lock"

RUNGS, FIRST_RUNG = 5, 2
"""A trial is validated after 2, 3 and 4 fifths of its time and at its end: before that, a high learning rate only
seems bad."""

MAX_VALIDATION_SHARE = 0.1
"""Share of its time that a trial may spend on being validated before its end; a long text is then validated once."""

BEFORE_CUTTING, BEFORE_WEIGHING = 4, 10
"""Trials that must have run to their end before one is compared with them, and before it is said what mattered."""


class Search:
    """The trials in a folder: those that there are, and those to come.

    Raises UsageError if the folder holds a run or another search, CharlstmError if nothing can be written there or
    its journal is damaged, or the corpus is too small for any settings.
    """

    def __init__(self, folder: Path, corpus: Corpus, config: Config, given: Settings, space: Space) -> None:
        self.folder, self.corpus, self.config, self.given, self.space = folder, corpus, config, given, space
        self.tokens = corpus.split(config.data.split)
        if not (folder / JOURNAL).exists():
            RunFolder(folder).check_unused()
        self.study = open_study(folder)
        self.check_same()
        self.forget_killed()
        self.suggest_given()

    def check_same(self) -> None:
        """Raises UsageError that names what is another here than it was when this search was begun."""
        settings, there = fixed_terms(self.config, self.space), self.study.user_attrs
        if not there:
            self.study.set_user_attr("settings", settings)
            self.study.set_user_attr("corpus", self.corpus.fingerprint)
            return
        another = "-o names another folder"
        if there["corpus"] != self.corpus.fingerprint:
            raise UsageError(f"{self.folder} holds a search on another corpus", another)
        for key, now in settings.items():
            was = there["settings"].get(key, now)
            if was != now:
                where = self.given[key].where if key in self.given else key
                raise UsageError(f"{where} is {now} here and {was} in the search in {self.folder}", another)

    def forget_killed(self) -> None:
        """Trials whose process was killed have failed: nobody holds the lock of their folder any more."""
        for path in self.folder.glob("trial-*"):
            with suppress(CharlstmError), RunFolder(path).lock_exclusively():
                shutil.rmtree(path, ignore_errors=True)
                number = int(path.name.removeprefix("trial-"))
                with suppress(ValueError):  # it had ended, and only its folder was left
                    self.study.tell(number, state=TrialState.FAIL)

    def suggest_given(self) -> None:
        """The first trial has the settings as they are given: whatever is found is at least as good."""
        first = {key: values.encode(get_setting(self.config, key)) for key, values in self.space.items()}
        tried = self.study.get_trials(deepcopy=False)
        if not any(trial.state != TrialState.FAIL for trial in tried):
            self.study.enqueue_trial(first)

    def run_trials(self, count: int, stop: Callable[[], bool] = lambda: False) -> Iterator[Event | TrialFinished]:
        """Runs so many trials, or until `stop()` is true; the one that this cuts short does not count."""
        self.warm_up()
        for _ in range(count):
            if stop():
                return
            yield from self.run_trial(stop)

    def warm_up(self) -> None:
        """A step with each cell, unrecorded: what that compiles must not cost the first trials time."""
        cells = self.space.get("model.cell")
        for cell in cells.choices if isinstance(cells, Categorical) else (self.config.model.cell,):
            with suppress(CharlstmError, MemoryError, RuntimeError):  # a trial will tell
                Trainer(self.corpus, updated(self.config, {"model.cell": cell}, "the search")).step(0.0)

    def run_trial(self, stop: Callable[[], bool]) -> Iterator[Event | TrialFinished]:
        """One trial: the events of its training, then how it ended. It has failed if `stop()` or an error ended it."""
        trial = self.ask()
        folder = RunFolder(self.folder / f"trial-{trial.number}")
        attempt, began = Attempt(trial, self.config.training.max_time), monotonic()
        state = TrialState.FAIL
        try:
            values = {key: values.suggest(trial, key) for key, values in self.space.items()}
            yield from self.train(attempt, updated(self.config, values, "the search"), folder, stop)
            if not attempt.stopped:
                state = TrialState.PRUNED if attempt.outcome else TrialState.COMPLETE
        finally:
            loss = min(attempt.losses, default=None)
            self.study.tell(trial, loss if state == TrialState.COMPLETE else None, state)
            best = state == TrialState.COMPLETE and self.keep(trial.number, folder.path / BEST)
            shutil.rmtree(folder.path, ignore_errors=True)
        if not attempt.stopped:
            outcome, seconds = attempt.outcome or "done", monotonic() - began
            yield TrialFinished(trial.number, outcome, loss, attempt.rung / RUNGS, values, seconds, attempt.why, best)

    def train(self, attempt: Attempt, config: Config, folder: RunFolder, stop: Callable[[], bool]) -> Iterator[Event]:
        """The training of a trial. That it cannot be trained so is a result, and no reason to end the search."""
        try:
            Batches(self.tokens.part("train"), config.training.seq_len, config.training.batch_size, seed=0)
        except CharlstmError as error:
            attempt.failed(error.message)
            return
        try:
            for event in run_training(
                self.corpus, config, folder, stop=lambda: attempt.over or stop(), validate_at=attempt.validate_at
            ):
                yield event
                if isinstance(event, Validated):
                    attempt.validated(event)
                elif isinstance(event, Finished):
                    attempt.stopped = event.reason == "stopped" and not attempt.over
        except DivergedError as error:
            attempt.failed(error.message)
        except (MemoryError, RuntimeError) as error:  # torch has no MemoryError of its own on a CPU
            attempt.failed(str(error).partition("\n")[0])

    def ask(self) -> optuna.Trial:
        """The next trial. What is drawn for it depends on the seed, its number and the trials that ended before."""
        self.study.sampler = self.sampler(len(self.study.get_trials(deepcopy=False)))
        trial = self.study.ask()
        self.study.sampler = self.sampler(trial.number)  # if another process asked at the same moment
        return trial

    def sampler(self, number: int) -> TPESampler:
        return TPESampler(seed=(self.config.training.seed * 1_000_003 + number) % 2**32)

    def keep(self, number: int, model: Path) -> bool:
        """Keeps the model of this trial, and returns True, if it is the best so far."""
        with lock_search(self.folder):
            if self.best_trials(1)[0].number != number:
                return False
            model.replace(self.folder / BEST)
            self.write_best()
            return True

    def write_best(self) -> Path:
        """Writes the settings of the best trial, as a file for --config."""
        path = self.folder / SETTINGS
        write_atomically(path, self.settings_of(self.best_trials(1)[0]).encode())
        return path

    def settings_of(self, trial: FrozenTrial) -> str:
        """What was given and what was found; the rest are the defaults."""
        found = self.searched_values(trial)
        config = updated(self.config, found, "the search")
        time = f"{config.training.max_time:g}s"
        about = (
            f"Trial {trial.number} of a search: {trial.value:.4f} nats/char after {time}; --max-time trains for longer."
        )
        document: dict[str, Any] = {"about": about}
        for key in fixed_terms(config, {}):
            if key in self.given or key in found:
                section, _, name = key.partition(".")
                document.setdefault(section, {})[name] = time if name == "max_time" else get_setting(config, key)
        return tomli_w.dumps(document)

    def searched_values(self, trial: FrozenTrial) -> dict[str, Value]:
        """The settings of a trial that are searched."""
        return {key: values.decode(trial.params[key]) for key, values in self.space.items()}

    def best_trials(self, count: int) -> list[FrozenTrial]:
        """The best trials of those that ran to their end, by all processes, the best first."""
        return sorted(self.completed, key=lambda trial: (trial.value, trial.number))[:count]

    @property
    def completed(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])

    @property
    def finished_trials(self) -> int:
        """Trials that came to an end, by all processes."""
        return len(self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED]))

    def parameter_importances(self) -> dict[str, float]:
        """The share of each setting in what sets the best trials apart, the largest first. Empty after a few trials.

        PED-ANOVA (Watanabe et al. 2023).
        """
        if len(self.completed) < BEFORE_WEIGHING:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it was experimental before Optuna 5
            return optuna.importance.get_param_importances(self.study, evaluator=PedAnovaImportanceEvaluator())


class Attempt:
    """How a trial goes: when it is to be validated, what came of that, and why it ended."""

    def __init__(self, trial: optuna.Trial, seconds: float) -> None:
        self.trial, self.seconds = trial, seconds
        self.losses: list[float] = []
        self.rung = 0  # where it was validated last
        self.due = RUNGS  # where it is to be next, as far as is known
        self.asked = self.spent = 0.0  # when, and how long in all
        self.outcome: Literal["", "pruned", "failed"] = ""
        self.why = ""
        self.stopped = False

    @property
    def over(self) -> bool:
        return self.outcome != ""

    def failed(self, why: str) -> None:
        self.outcome, self.why = "failed", why

    def validate_at(self, done: float) -> bool:
        """Whether to validate at this share of the training."""
        rung = int(done * RUNGS)
        if rung <= max(self.rung, FIRST_RUNG - 1) or self.spent > MAX_VALIDATION_SHARE * self.seconds:
            return False
        self.due, self.asked = rung, monotonic()
        return True

    def validated(self, event: Validated) -> None:
        """Tells the study, which says whether to go on."""
        loss, rung = event.metrics.loss_nats, self.due
        self.due = RUNGS
        if not isfinite(loss):
            self.failed("the loss on the validation part is no longer a number")
            return
        self.losses.append(loss)
        self.spent += monotonic() - self.asked
        if rung > self.rung:  # the end may come twice: the first time, it was not known how short a validation is
            self.rung = rung
            self.trial.report(loss, rung)
            if rung < RUNGS and self.trial.should_prune():
                self.outcome = "pruned"


def open_study(folder: Path) -> optuna.Study:
    """The study in this folder, begun if there is none. Raises CharlstmError."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = folder / JOURNAL
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        pruner = MedianPruner(n_startup_trials=BEFORE_CUTTING)
        return optuna.create_study(storage=storage, study_name="charlstm", pruner=pruner, load_if_exists=True)
    except OSError as error:
        raise write_error(folder, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CharlstmError(f"{journal} is damaged or no journal of a search", "-o names another folder") from error


@contextmanager
def lock_search(folder: Path) -> Iterator[None]:
    """Waits for the other processes that search here; one at a time writes what is best."""
    with (folder / LOCK).open("a") as file:
        with suppress(OSError):  # a file system without locks is no reason not to search
            flock(file, LOCK_EX)
        yield
