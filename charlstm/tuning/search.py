"""A search: one short training after the other, with Optuna's journal as their shared memory.

Several processes may search in one folder at once, and any of them may be killed: all results are in the journal, and
the folder of a trial is locked while a process trains in it.
"""

from __future__ import annotations

import shutil
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import mean
from time import monotonic
from typing import TYPE_CHECKING, Any

import optuna
import tomli_w
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.samplers import GPSampler
from optuna.trial import FrozenTrial, TrialState

from charlstm.config import Config
from charlstm.data.batches import Batches
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError, DivergedError, UsageError
from charlstm.settings import Settings, updated
from charlstm.storage.files import replace_file, write_atomically, write_error
from charlstm.storage.locate import BEST, CONFIG, SEARCH_JOURNAL
from charlstm.storage.lock import ProcessLock
from charlstm.storage.run import RunFolder
from charlstm.training.auto_config import choose_config
from charlstm.training.events import Event, Finished, Validated
from charlstm.training.run import run_training
from charlstm.training.trainer import Trainer
from charlstm.tuning.events import TrialFinished
from charlstm.tuning.journal import open_study
from charlstm.tuning.monitor import RUNGS, TrialMonitor
from charlstm.tuning.space import Space, Value, get_setting, space_around, unset_keys

if TYPE_CHECKING:
    from charlstm.tuning.database import Database

BEST_CONFIG, SEARCH_LOCK = "best.toml", "lock"

MIN_TRIALS_TO_RANK = 10
"""Trials that must be done before the settings are ranked by importance."""

ORIGIN = "the search"
"""Where the values of planned and searched settings come from, for error messages."""

SEARCHED_VALUE = "searched"
"""The saved value of a setting that is searched."""

RANDOM_TRIALS = 4
"""Trials with values drawn at random, before the sampler has enough results to learn from."""

PLANNED, SIZES = "plan", "sizes"
"""Keys of the study under which the planned settings and the sizes nearly as good are saved: a continued search, maybe
on another machine, has the same ones. The first is also an attribute of the trial of the plan."""

NEARLY_AS_GOOD = 0.05
"""Nats per character by which the predicted loss of a size may be above the best for it to be searched."""

REPEATS = "repeats"
"""Attribute of a trial that repeats another one with another seed: the number of that one."""

PRUNED = "pruned"
"""Attribute of a trial that was pruned: its result is extrapolated."""

PLACE = "place"
"""Attribute of a trial in a database: the machine and the folder in which it was trained."""

MAX_REPEATS = 5
"""Trials that are repeated at most at the end of a search."""


def open_database(folder: Path, url: str) -> Database:
    """Open the database of a search, in which it has the name of its folder. Raises CharlstmError."""
    from charlstm.tuning.database import Database  # SQLAlchemy is slow to import, and only databases need it

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    return Database(folder.name, url)


class Search:
    """The trials in a folder: those that it has and those to come.

    folder: the folder of the search; it is created if it does not exist.
    corpus: the text.
    config: the settings; those that the user did not set are planned for the time of a trial, as for `--max-time`.
    given: the settings that the user set; they are the same in every trial.
    storage: the address of a database in which searches on several machines meet; None: a journal in the folder.

    Raises UsageError if the folder holds a run or another search, CharlstmError if it cannot be written, its journal is
    damaged, the database cannot be reached or the corpus is too small for any settings.
    """

    def __init__(
        self, folder: Path, corpus: Corpus, config: Config, given: Settings, storage: str | None = None
    ) -> None:
        self.folder, self.given = folder, given
        self.corpus = replace(corpus, spool=None)  # a trial would move the text to its folder, which is removed
        self.tokens = corpus.split(config.data.split)
        if not (folder / (SEARCH_JOURNAL if storage is None else BEST_CONFIG)).exists():
            RunFolder(folder).check_unused()
        self.database = open_database(folder, storage) if storage is not None else None
        self.study = self.database.study if self.database else open_study(folder)
        self.check_terms(config)
        with self.exclusively():
            self.config = self.load_or_choose_plan(config)
            around = space_around(self.config, self.study.user_attrs[SIZES])
            self.space: Space = {key: values for key, values in around.items() if key in unset_keys(given)}
            self.discard_killed()
            self.enqueue_plan()

    def close(self) -> None:
        """Close the connections to a database."""
        if self.database:
            self.database.close()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Keep other processes of this search out of the block."""
        lock = ProcessLock(self.folder / SEARCH_LOCK)
        lock.acquire(wait=True)
        try:
            yield
        finally:
            lock.release()

    def load_or_choose_plan(self, config: Config) -> Config:
        """Return the settings of the plan: those that the journal has, or new ones, which depend on the machine."""
        if not {PLANNED, SIZES} <= self.study.user_attrs.keys():
            choice = choose_config(self.corpus, config, self.given)
            limit = choice.best.loss_nats + NEARLY_AS_GOOD
            models = [each.config.model for each in choice.candidates if each.loss_nats < limit]
            chosen = choice.best.config.to_dict()
            planned = {f"{name}.{key}": value for name, section in chosen.items() for key, value in section.items()}
            if not {PLANNED, SIZES} <= self.study.user_attrs.keys():  # another machine may have chosen meanwhile
                self.study.set_user_attr(SIZES, [(model.layers, model.hidden) for model in models])
                self.study.set_user_attr(PLANNED, {k: v for k, v in planned.items() if not k.startswith("data.")})
        return updated(config, self.study.user_attrs[PLANNED], ORIGIN)

    def check_terms(self, config: Config) -> None:
        """Raise UsageError if the settings or the corpus are not those that this search was started with."""
        terms = {key: get_setting(config, key) for key in self.given if not key.startswith("data.corpus")}
        terms |= dict.fromkeys(unset_keys(self.given), SEARCHED_VALUE)
        saved, hint = self.study.user_attrs, "name another folder with -o"
        if not saved:
            self.study.set_user_attr("settings", terms)
            self.study.set_user_attr("corpus", self.corpus.fingerprint)
            return
        if saved["corpus"] != self.corpus.fingerprint:
            raise UsageError(f"{self.folder} holds a search on another corpus", hint)
        if SIZES not in saved and self.completed:
            raise UsageError(f"{self.folder} holds a search of an earlier version, with other ranges", hint)
        before = saved["settings"]
        for key in {**terms, **before}:
            here, there = (values.get(key, get_setting(Config(), key)) for values in (terms, before))
            if here != there:
                where = self.given[key].where if key in self.given else key
                unit = "s" if key == "training.max_time" else ""
                raise UsageError(f"{where} is {here}{unit} here and {there}{unit} in the search in {self.folder}", hint)

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

    def enqueue_plan(self) -> None:
        """Give the first trial the planned settings, so that the result is never worse."""
        params = {key: values.encode(get_setting(self.config, key)) for key, values in self.space.items()}
        if all(trial.state == TrialState.FAIL for trial in self.study.get_trials(deepcopy=False)):
            self.study.enqueue_trial(params, user_attrs={PLANNED: True})

    def run_trials(self, count: int, stop: Callable[[], bool] = lambda: False) -> Iterator[Event | TrialFinished]:
        """Run `count` trials, or until `stop()` returns True, then repeat the best ones and the plan.

        The trial that `stop()` interrupts does not count.
        """
        self.warm_up()
        for _ in range(count):
            if stop():
                return
            if self.database:
                self.database.retry_dead_trials()
            yield from self.run_trial(stop)
        yield from self.repeat_best(stop)

    def repeat_best(self, stop: Callable[[], bool]) -> Iterator[Event | TrialFinished]:
        """Train the two best candidates and the plan again with another seed: the lowest of many losses is partly luck.

        Where another one is then among the best two, it is repeated, too.
        """
        for _ in range(MAX_REPEATS):
            best = self.best_trials(2)
            candidates = [*best, *(trial for trial in self.completed if PLANNED in trial.user_attrs)]
            candidate = next((trial for trial in candidates if len(self.losses(trial)) == 1), None)
            if len(best) < 2 or candidate is None or stop():
                return
            self.study.enqueue_trial(candidate.params, user_attrs={REPEATS: candidate.number})
            yield from self.run_trial(stop)

    def warm_up(self) -> None:
        """Take one step, so that compiling does not cost the first trial time."""
        with (
            suppress(CharlstmError, MemoryError, RuntimeError),  # a trial reports it
            closing(Trainer(self.corpus, self.config)) as trainer,
        ):
            trainer.step(0.0)

    def run_trial(self, stop: Callable[[], bool]) -> Iterator[Event | TrialFinished]:
        """Run one trial: yield the events of its training, then its result.

        A trial that `stop()` or an error interrupts has failed, and a stopped one yields no result.
        """
        trial = self.ask()
        if self.database:
            trial.set_user_attr(PLACE, self.place)
        repeats = trial.user_attrs.get(REPEATS)
        seed = self.config.training.seed + (repeats is not None)
        folder = RunFolder(self.folder / f"trial-{trial.number}")
        monitor, began = TrialMonitor(trial, self.config.training.max_time, repeats is None), monotonic()
        state = TrialState.FAIL
        try:
            values = {key: values.suggest(trial, key) for key, values in self.space.items()}
            config = updated(self.config, values | {"training.seed": seed}, ORIGIN)
            yield from self.train_trial(monitor, config, folder, stop)
            if not monitor.stopped:
                state = TrialState.PRUNED if monitor.over else TrialState.COMPLETE
        finally:
            loss = min(monitor.losses, default=None)
            if monitor.outcome == "pruned":  # for Optuna, it is complete: its sampler learns from no other trials
                trial.set_user_attr(PRUNED, True)
                self.study.tell(trial, self.extrapolate(monitor), TrialState.COMPLETE)
            else:
                self.study.tell(trial, loss if state == TrialState.COMPLETE else None, state)
            candidate = trial.number if repeats is None else repeats
            best = state == TrialState.COMPLETE and self.keep_best(candidate, folder)
            shutil.rmtree(folder.path, ignore_errors=True)
        if not monitor.stopped:
            outcome, seconds = monitor.outcome or "done", monotonic() - began
            done = monitor.rung / RUNGS
            yield TrialFinished(trial.number, outcome, loss, done, values, seconds, monitor.reason, best, repeats)

    def extrapolate(self, monitor: TrialMonitor) -> float:
        """Return about the loss that a pruned trial would have reached, nats per character.

        It is as far behind the best trial as when it was pruned.
        """
        curve = self.best_trials(1)[0].intermediate_values if self.completed else {}
        return monitor.losses[-1] * curve.get(RUNGS, 1.0) / curve.get(monitor.rung, curve.get(RUNGS, 1.0))

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
                if self.database:
                    self.database.record_life(monitor.trial.number)
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
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Heartbeat")  # that of Study.optimize; see Database.record_life
            trial = self.study.ask()
        self.study.sampler = self.make_sampler(trial.number)  # another process may have asked at the same moment
        return trial

    def make_sampler(self, number: int) -> GPSampler:
        """Return the sampler of a trial: Bayesian optimization with a Gaussian process (Snoek et al. 2012)."""
        seed = (self.config.training.seed * 1_000_003 + number) % 2**32
        return GPSampler(n_startup_trials=1 + RANDOM_TRIALS, seed=seed)

    def keep_best(self, candidate: int, trial: RunFolder) -> bool:
        """Keep the model and settings of this trial, of this candidate, if it is the best one so far.

        Returns whether it is.
        """
        with self.exclusively():
            if self.best_trials(1)[0].number != candidate:
                return False
            for name in (BEST, CONFIG):  # the settings of the trial record where the corpus is
                replace_file(trial.path / name, self.folder / name)
            self.write_best()
            return True

    def place_of_best(self) -> str:
        """Return where the best model is, if not in this folder; else an empty string."""
        place: str = self.best_trials(1)[0].user_attrs.get(PLACE, self.place)
        return "" if place == self.place else place

    @property
    def place(self) -> str:
        """This machine and folder, where the best model of this process is."""
        return f"{socket.gethostname()}:{self.folder.absolute()}"

    def write_best(self) -> Path:
        """Write the settings of the best trial to a file for --config. Returns its path."""
        path = self.folder / BEST_CONFIG
        write_atomically(path, self.config_toml(self.best_trials(1)[0]).encode())
        return path

    def config_toml(self, trial: FrozenTrial) -> str:
        """Return the settings that the user set, those of the plan and those that this trial found, as TOML."""
        config = updated(self.config, self.searched_values(trial), ORIGIN)
        time = f"{config.training.max_time:g}s"
        result = f"{self.loss(trial):.4f} nats/char after {time}"
        document: dict[str, Any] = {"about": f"Trial {trial.number} of a search: {result}. --max-time trains longer."}
        default = Config()
        for section, settings in config.to_dict().items():
            for name, value in settings.items():
                key = f"{section}.{name}"
                if key in self.given or key in self.space or (section != "data" and value != get_setting(default, key)):
                    document.setdefault(section, {})[name] = time if name == "max_time" else value
        return tomli_w.dumps(document)

    def searched_values(self, trial: FrozenTrial) -> dict[str, Value]:
        """Return the searched settings of a trial by `section.key`."""
        return {key: values.decode(trial.params[key]) for key, values in self.space.items()}

    def losses(self, trial: FrozenTrial) -> list[float]:
        """Return the losses of a candidate, in nats per character: that of its trial, and of its repetition, if any."""
        same = [each for each in self.completed if trial.number in (each.number, each.user_attrs.get(REPEATS))]
        return [each.value for each in same if each.value is not None]

    def loss(self, trial: FrozenTrial) -> float:
        """Return the mean of these losses."""
        return mean(self.losses(trial))

    def best_trials(self, count: int) -> list[FrozenTrial]:
        """Return the best candidates, of all processes, best first: trials that trained to their end."""
        candidates = [trial for trial in self.completed if REPEATS not in trial.user_attrs]
        return sorted(candidates, key=lambda trial: (self.loss(trial), trial.number))[:count]

    @property
    def with_result(self) -> list[FrozenTrial]:
        """The trials that trained to their end or were pruned, of all processes, with the repetitions."""
        return self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])

    @property
    def completed(self) -> list[FrozenTrial]:
        """Those that trained to their end."""
        return [trial for trial in self.with_result if PRUNED not in trial.user_attrs]

    @property
    def finished_trials(self) -> int:
        """Number of trials that are over, of all processes, without repetitions."""
        over = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])
        return sum(REPEATS not in trial.user_attrs for trial in over)

    def parameter_importances(self) -> dict[str, float]:
        """Return how much each setting matters for the loss, as shares, largest first; empty after a few trials.

        PED-ANOVA (Watanabe et al. 2023).
        """
        if len(self.with_result) < MIN_TRIALS_TO_RANK:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna before 5 calls it experimental
            return optuna.importance.get_param_importances(self.study, evaluator=PedAnovaImportanceEvaluator())
