"""The training loop, in time order. It yields events and prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from time import monotonic
from typing import Literal, NamedTuple

from charlstm.config import Config
from charlstm.data.corpus import Corpus
from charlstm.errors import DivergedError
from charlstm.evaluation.metrics import Metrics
from charlstm.model.ranks import Ranks
from charlstm.sampling.quantization import measure_quantization
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.storage.state import StateTree
from charlstm.training.clock import Clock
from charlstm.training.events import BestEvaluated, Event, Finished, Saved, Started, Stepped, Validated
from charlstm.training.recovery import (
    check_loss,
    check_validation_loss,
    explain_memory_errors,
    rate_factor,
    roll_back,
)
from charlstm.training.schedule import learning_rate
from charlstm.training.shared_folder import SharedRunFolder
from charlstm.training.trainer import Trainer, check_ranks

LOCAL_SETTINGS = ("data.corpus", "training.threads")

LOG_EVERY = 50
"""Steps between two lines of metrics.jsonl, besides the line of each validation."""


def run_training(
    corpus: Corpus,
    config: Config,
    folder: RunFolder,
    *,
    resume: bool = False,
    overwrite: bool = False,
    init_from: ModelFile | None = None,
    stop: Callable[[], bool] = lambda: False,
    save: Callable[[], bool] = lambda: False,
    validate_at: Callable[[float], bool] | None = None,
    started_at: float | None = None,
    ranks: Ranks | None = None,
) -> Generator[Event, None, None]:
    """Train a model on a corpus, save the run to `folder`, and yield an event for everything that happens.

    resume: continue from the state saved in the folder.
    overwrite: replace a run that the folder already holds.
    init_from: start a new run with the weights of this model.
    stop: called between steps and during a validation. Once it returns True, the run is saved and training ends.
    save: called between steps. Whenever it returns True, the run is saved and training continues.
    validate_at: called between steps with the share of the training done, 0 to 1. Returns whether to validate now;
        replaces `training.validate_every`. It may be called more than once per step and must not count its calls.
    started_at: the time of `time.monotonic()` from which `training.max_time` counts; None is when training begins.
    ranks: the processes that train together; each calls this function with the same arguments. The first one writes the
        folder and has the clock; `stop` and `save` of any take effect on the same step of all. None: this one alone.

    Errors are raised on iteration, and the last save stays on the disk. Raises:

    UsageError: the folder already holds a run, has no state to resume, `init_from` or the device does not fit the
        settings, or the ranks do not divide the streams.
    ModelFileError: the saved state is damaged or does not fit the settings.
    DivergedError: the loss still diverges after several roll backs.
    CharlstmError: the corpus is too small for the settings or has changed since the run was started, another process
        trains in the folder, the folder cannot be written to, memory runs out, another rank has ended, or the ranks
        differ in the text or the settings.
    """
    ranks = ranks or Ranks()
    if ranks.size > 1:
        ranks.from_first(lambda: check_ranks(config, ranks))
        start = {"--resume": resume, "--overwrite": overwrite, "--init-from": init_from is not None}
        ranks.check_equal({"the corpus": corpus.fingerprint, **start, **shared_settings(config)})
        folder = SharedRunFolder(folder.path, ranks)
    if resume:
        folder.check_state_shapes(config.model)
    with closing(Trainer(corpus, config, ranks)) as trainer:
        new_characters = trainer.init_from(init_from) if init_from else ""
        with folder.lock_exclusively():
            state: StateTree | None = None
            if resume:
                state = folder.load_state()
                trainer.load_state_dict(state)
            else:
                folder.create(config, corpus.spool, overwrite=overwrite)
                save_run(trainer, folder)
            run = TrainingRun(trainer, folder, state, stop, save, validate_at, started_at)
            if not resume:
                run.prepare_folder()
            yield Started(
                device=trainer.describe_device(),
                parameters=trainer.parameter_count,
                total_steps=trainer.total_steps,
                steps_per_epoch=trainer.batches.steps_per_epoch,
                step=trainer.progress.step,
                new_characters=new_characters,
            )
            yield from run.train()


def shared_settings(config: Config) -> dict[str, object]:
    """Return the settings, by `section.key`, that the ranks must have in common: the paths of the corpus may differ."""
    sections = config.to_dict()
    settings = {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}
    return {key: value for key, value in settings.items() if key not in LOCAL_SETTINGS}


class Agreement(NamedTuple):
    """What the ranks decide together between two steps."""

    stop: bool  # requested on any rank
    save: bool  # requested on any rank
    time_share: float  # of the time limit that is over, by the clock of the first rank


class TrainingRun:
    """The training loop of one run: takes steps, validates, saves, and rolls back after a divergence.

    `resumed` is the saved state that the run continues from, None for a new run. Its folder is not changed before the
    first step or validation is done: a resumed run that fails or has nothing to do leaves its files as they are.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        resumed: StateTree | None,
        stop: Callable[[], bool],
        save: Callable[[], bool] = lambda: False,
        validate_at: Callable[[float], bool] | None = None,
        started_at: float | None = None,
    ) -> None:
        self.trainer, self.folder, self.stop, self.validate_at = trainer, folder, stop, validate_at
        self.is_save_requested = save
        self.resumed, self.folder_is_ready = resumed, False
        self.clock = Clock(trainer, folder, monotonic() if started_at is None else started_at)
        self.saved_at, self.saved_step = monotonic(), trainer.progress.step
        self.good_is_saved = trainer.progress.validated_step == trainer.progress.step
        self.polled: Sequence[float] = ()  # what the ranks have agreed on with the last step
        trainer.poll = self.poll

    def train(self) -> Iterator[Event]:
        """Take steps and validate, until the end of the training or until `stop()` returns True."""
        progress = self.trainer.progress
        first_step = progress.step
        while True:
            agreed = self.agree()
            self.clock.update(agreed.time_share)
            if agreed.save:
                yield self.save_on_request()
            event: Event | None
            try:
                if not agreed.stop and self.is_validation_due():
                    event = self.validate() if self.trainer.config.validates else self.save()
                elif reason := self.reason_to_end(agreed.stop):
                    break
                else:
                    event = self.step()
            except DivergedError as error:
                self.prepare_folder()
                event = roll_back(self.trainer, self.folder, error)
            if event is not None:
                yield event
            if isinstance(event, (Validated, Saved)):
                self.clock.end_validation()
                self.saved_at, self.saved_step = monotonic(), progress.step

        if reason == "stopped" and progress.step != self.saved_step:
            save_run(self.trainer, self.folder)
        if reason != "stopped" and self.good_is_saved and self.folder.has_good:
            self.folder.mark_good()  # the process that made the last save may have ended before it marked it
        if reason != "stopped" and self.folder_is_ready and self.trainer.config.validates:
            yield from self.evaluate_best()
        yield Finished(
            reason=reason,
            step=progress.step,
            steps=progress.step - first_step,
            seconds=progress.seconds,
            best_loss_nats=progress.best_loss_nats,
        )

    def poll(self) -> list[float]:
        """Return what this rank adds to the sums on which the ranks agree: only the first one has a clock."""
        stop, save = self.stop(), self.is_save_requested()
        if not self.trainer.ranks.is_first:
            return [stop, save, 0, 0]
        return [stop, save, self.is_save_due(), self.clock.read_time_share()]

    def agree(self) -> Agreement:
        """Return what the ranks have agreed on with the last step or, if it was no step, what they do now."""
        polled = self.polled or self.trainer.ranks.sum_numbers(self.poll())
        self.polled = ()
        stops, saves, _, time_share = polled
        return Agreement(stops > 0, saves > 0, time_share)

    def is_save_due(self) -> bool:
        """Return whether the last save was `save_every` seconds ago: by the clock of the first rank."""
        if self.polled:
            return self.polled[2] > 0
        return 0 < self.trainer.config.training.save_every <= monotonic() - self.saved_at

    def prepare_folder(self) -> None:
        """Make the folder ready for what this process writes. Called before the first write, and later without effect.

        The settings and metrics of a resumed run are brought up to date. The last save becomes the state to roll back
        to if it was made at the start or at a validation: the process that made it may have been killed before it
        marked it. Without any good state, the last save is the only one to roll back to.
        """
        if self.folder_is_ready:
            return
        if self.resumed is not None:
            self.folder.truncate_metrics(self.resumed)
            self.folder.write_config(self.trainer.config)
        if self.good_is_saved or not self.folder.has_good:
            self.folder.mark_good()
        self.resumed, self.folder_is_ready = None, True

    def is_validation_due(self) -> bool:
        """Return whether to validate now: at the end, every `validate_every` steps or when `validate_at` says so.

        The same step is never validated twice, and a run with a time limit not shortly before its end. Without a
        validation part, the run is saved instead.
        """
        step, done, settings = self.trainer.progress.step, self.clock.fraction_done, self.trainer.config.training
        if step in (0, self.trainer.progress.validated_step):
            return False
        if done >= 1:
            return True
        if self.validate_at is not None:
            return self.validate_at(done)
        if step % settings.validate_every:
            return False
        steps_left = step * (1 / done - 1)
        return not settings.max_time or steps_left > settings.validate_every / 2

    def reason_to_end(self, stopped: bool) -> Literal["done", "patience", "stopped", ""]:
        """Return why training ends now; empty if it continues. At least one step is taken."""
        progress = self.trainer.progress
        if stopped:
            return "stopped"
        if 0 < self.trainer.config.training.patience <= progress.stale:
            return "patience"
        return "done" if self.clock.fraction_done >= 1 and progress.step else ""

    def step(self) -> Stepped:
        """Take one optimizer step, log it every `LOG_EVERY` steps, and save the run every `save_every` seconds.

        Raises DivergedError.
        """
        trainer, clock, settings = self.trainer, self.clock, self.trainer.config.training
        progress, done = trainer.progress, clock.fraction_done
        lr = rate_factor(trainer) * learning_rate(settings, done, progress.plateaus)
        began = monotonic()
        with explain_memory_errors(trainer):
            loss = trainer.step(lr)
        self.polled = trainer.polled
        self.prepare_folder()
        check_loss(trainer, loss)
        clock.record_step(monotonic() - began)
        if progress.step % LOG_EVERY == 0:
            clock.update()
            if not self.is_validation_due():  # which logs a line of its own
                self.log({"loss_nats": loss})
        if self.is_save_due():
            self.folder.save_in_background(
                trainer.model_file({}), trainer.state_dict(), best=not trainer.config.validates
            )
            self.saved_at = monotonic()
        return Stepped(
            step=progress.step,
            epoch=trainer.batches.epoch,
            fraction_done=done,
            loss_nats=loss,
            learning_rate=lr,
            gradient_norm=progress.gradient_norm,
            chars_per_second=clock.chars_per_second,
            seconds_left=clock.seconds_left,
        )

    def log(self, values: Mapping[str, float]) -> None:
        """Append a line to the metrics: the place in the training, what the last step did, and these values."""
        progress = self.trainer.progress
        last_step = {"learning_rate": progress.learning_rate, "gradient_norm": progress.gradient_norm}
        known = last_step if progress.learning_rate else {}  # not in a state of version 0.1.0
        self.folder.append_metrics({**self.clock.position(), **values, **known})

    def validate(self) -> Validated | None:
        """Evaluate the model on the validation part, log its metrics and save the run. None if `stop()` interrupted it.

        The best model is the one with the lowest forward loss. Raises DivergedError for a loss that is not finite.
        """
        trainer, folder, progress = self.trainer, self.folder, self.trainer.progress
        if trainer.config.training.max_time and self.clock.fraction_done >= 1:
            self.prepare_folder()
            save_run(trainer, folder)  # save first: the last validation may overrun the limit
        self.clock.begin_validation()
        trainer.check_weights()
        with trainer.average.applied():
            metrics = trainer.evaluate_part("val", trainer.config.training.validation_chars, self.stop)
        if metrics is None:
            return None
        self.clock.record_reading(metrics.characters)
        check_validation_loss(trainer, metrics)
        self.prepare_folder()
        best, train_loss = progress.record_validation(metrics.loss_nats), progress.pop_mean_loss()
        trainer.average.observe_loss(metrics.loss_nats)
        losses = {
            "loss_nats": train_loss,
            "validation_loss_nats": metrics.loss_nats,
            "validation_bpc": metrics.bpc,
            "validation_characters": metrics.characters,
        }
        two_sided = {f"validation_{key}": value for key, value in metrics.two_sided().items()}
        self.log({**losses, **two_sided, **trainer.measure_memory()})
        save_run(trainer, folder, metrics, best=best, keep=trainer.config.training.keep)
        folder.mark_good()
        return Validated(
            step=progress.step, seconds=progress.seconds, train_loss_nats=train_loss, metrics=metrics, best=best
        )

    def evaluate_best(self) -> Iterator[BestEvaluated]:
        """Evaluate the best model on training text and, if the validations read a part only, on more validation text.

        The metrics of more validation text replace those in its file. Nothing if `stop()` interrupts it.
        """
        trainer, folder, clock = self.trainer, self.folder, self.clock
        file = folder.load_best()
        trainer.model.load_weights(file.weights)  # training is over, and its state is saved
        file = self.record_quantization(file)
        validation = file.metrics.get("validation", {})
        characters = trainer.ranks.from_first(lambda: clock.last_reading_chars)
        if characters > validation.get("characters", 0):
            metrics = trainer.evaluate_part("val", characters, self.stop)
            if metrics is None:
                return
            validation = metrics.to_dict()
            folder.save_best(replace(file, metrics={**file.metrics, "validation": validation}))
        train = trainer.evaluate_part("train", clock.training_text_chars, self.stop)
        if train is None:
            return
        clock.update()
        event = BestEvaluated(
            step=file.metrics["step"],
            seconds=trainer.progress.seconds,
            train_loss_nats=train.loss_nats,
            validation_loss_nats=validation["loss_nats"],
            validation_characters=validation["characters"],
        )
        best = {f"best_{key}": value for key, value in asdict(event).items() if key != "seconds"}
        folder.append_metrics({**clock.position(), **best})
        yield event

    def record_quantization(self, file: ModelFile) -> ModelFile:
        """Measure what the best model loses by 8-bit weights, and save that with it."""

        def measure() -> ModelFile:
            loss = measure_quantization(file, self.trainer.tokens.part("val"))
            if loss is None:
                return file
            measured = replace(file, metrics={**file.metrics, "quantization_loss_nats": round(loss, 6)})
            self.folder.save_best(measured)
            return measured

        return self.trainer.ranks.from_first(measure)

    def save_on_request(self) -> Saved:
        """Save the run as it is, which has no effect on the steps to come."""
        progress = self.trainer.progress
        if progress.step != self.saved_step:
            self.prepare_folder()
            save_run(self.trainer, self.folder)
            self.saved_at, self.saved_step = monotonic(), progress.step
        loss = progress.loss_sum / progress.loss_count if progress.loss_count else None
        return Saved(step=progress.step, seconds=progress.seconds, train_loss_nats=loss, requested=True)

    def save(self) -> Saved:
        """Log the training loss and save the run, where a run with a validation part would validate."""
        trainer, folder, progress = self.trainer, self.folder, self.trainer.progress
        self.prepare_folder()
        self.clock.begin_validation()
        progress.validated_step, train_loss = progress.step, progress.pop_mean_loss()
        self.log({"loss_nats": train_loss, **trainer.measure_memory()})
        save_run(trainer, folder, keep=trainer.config.training.keep)
        folder.mark_good()
        return Saved(step=progress.step, seconds=progress.seconds, train_loss_nats=train_loss)


def save_run(
    trainer: Trainer,
    folder: RunFolder,
    metrics: Metrics | None = None,
    *,
    best: bool = False,
    keep: int | None = None,
) -> None:
    """Save the model and the training state; `metrics` are those of the validation at this step, if it had one.

    `best` and `keep` are as in `RunFolder.save`. Without a validation part the last model is always the best one.
    """
    validation = {"validation": metrics.to_dict()} if metrics else {}
    best = best or not trainer.config.validates
    folder.save(trainer.model_file(validation), trainer.state_dict(), best=best, keep=keep)
