"""The training loop, in time order. It yields what happened and prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic

from charlstm.config import Config
from charlstm.data.corpus import Corpus
from charlstm.errors import DivergedError
from charlstm.evaluation.evaluate import evaluate
from charlstm.evaluation.metrics import Metrics
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.training.clock import Clock
from charlstm.training.events import Event, Finished, Stepped, Validated
from charlstm.training.recovery import check_finite, check_loss, explain_memory_errors, rate_factor, roll_back
from charlstm.training.schedule import learning_rate
from charlstm.training.trainer import Trainer

LOG_EVERY = 50


def train(
    corpus: Corpus,
    config: Config,
    folder: RunFolder,
    *,
    resume: bool = False,
    overwrite: bool = False,
    init_from: ModelFile | None = None,
    stop: Callable[[], bool] = lambda: False,
    validate_at: Callable[[float], bool] | None = None,
) -> Iterator[Event]:
    """Trains on a corpus and saves to `folder`, going on from the state saved there (`resume`) or beginning anew.

    Where there is a run, beginning anew takes `overwrite`. Once `stop()` is true, the step is ended and the run
    saved. `validate_at(share of the training done)`, asked between steps, replaces `training.validate_every`.
    Raises CharlstmError for a corpus that does not suit the settings, a folder that another process trains in,
    a full disk, divergence; what was saved stays.
    """
    if resume:
        folder.check_state_shapes(config.model)
    trainer = Trainer(corpus, config)
    fresh = trainer.init_from(init_from) if init_from else ""
    with folder.lock_exclusively():
        if resume:
            state = folder.load_state()
            trainer.load_state_dict(state)
            folder.truncate_metrics(state)
            folder.write_config(config)
        else:
            folder.create(config, corpus.spool, overwrite=overwrite)
            save_run(trainer, folder)
        if trainer.progress.validated_step == trainer.progress.step or not folder.has_good:
            folder.mark_good()
        yield trainer.started_event(fresh)
        yield from run_steps(trainer, folder, stop, validate_at)


def run_steps(
    trainer: Trainer, folder: RunFolder, stop: Callable[[], bool], validate_at: Callable[[float], bool] | None = None
) -> Iterator[Event]:
    """Step after step, with validations in between, to the end or until `stop()` is true."""
    config = trainer.config
    progress, clock = trainer.progress, Clock(trainer, folder)
    first, saved = progress.step, monotonic()
    while True:
        done, stopped = clock.update(), stop()
        if not stopped and is_validation_due(trainer, done, validate_at):
            if done >= 1 and config.training.max_time:
                save_run(trainer, folder)  # now, lest the time run out while the last validation runs
            began = monotonic()
            try:
                found = validate(trainer, stop)
            except DivergedError as error:
                yield roll_back(trainer, folder, error)
                continue
            if found is not None:
                yield save_validated(trainer, folder, found, clock.position())
                saved = monotonic()
                clock.validation_seconds = saved - began
            continue
        hopeless = 0 < config.training.patience <= progress.stale
        if (done >= 1 and progress.step) or hopeless or stopped:
            break

        rate, began = rate_factor(trainer) * learning_rate(config.training, done, progress.plateaus), monotonic()
        try:
            with explain_memory_errors(trainer):
                loss = trainer.step(rate)
            check_loss(trainer, loss)
        except DivergedError as error:
            yield roll_back(trainer, folder, error)
            continue
        clock.record_step(monotonic() - began)
        if progress.step % LOG_EVERY == 0 and not is_validation_due(trainer, clock.update(), validate_at):
            folder.append_metrics({**clock.position(), "loss_nats": loss, "learning_rate": rate})
        if 0 < config.training.save_every <= monotonic() - saved:
            folder.save_in_background(trainer.model_file({}), trainer.state_dict())
            saved = monotonic()
        yield Stepped(
            progress.step, trainer.batches.epoch, done, loss, rate, clock.chars_per_second, clock.seconds_left
        )

    if stopped:
        save_run(trainer, folder)
    yield Finished(
        "stopped" if stopped else "patience" if hopeless else "done",
        progress.step,
        progress.step - first,
        progress.seconds,
        progress.best_loss_nats,
    )


def is_validation_due(trainer: Trainer, done: float, validate_at: Callable[[float], bool] | None = None) -> bool:
    """Whether to validate now: at the end, and every so many steps or as told, but not twice at one step."""
    step = trainer.progress.step
    return 0 < step != trainer.progress.validated_step and (
        done >= 1 or (validate_at(done) if validate_at else step % trainer.config.training.validate_every == 0)
    )


def validate(trainer: Trainer, stop: Callable[[], bool]) -> Metrics | None:
    """The metrics of the validation part; None if it was stopped. Raises DivergedError if the loss is no number."""
    ids = trainer.tokens.part("val")
    with trainer.average.applied():
        metrics = evaluate(trainer.model, ids, trainer.vocabulary.bos, trainer.validation_bytes, stop)
    if metrics is not None:
        check_finite(trainer, metrics)
    return metrics


def save_validated(trainer: Trainer, folder: RunFolder, metrics: Metrics, place: dict[str, float]) -> Validated:
    """Saves the run with its new metrics. The best model is the one with the lowest forward loss."""
    progress = trainer.progress
    best, train_loss = progress.record_validation(metrics.loss_nats), progress.pop_mean_loss()
    trainer.average.observe_loss(metrics.loss_nats)
    losses = {"loss_nats": train_loss, "validation_loss_nats": metrics.loss_nats, "validation_bpc": metrics.bpc}
    two_sided = {f"validation_{key}": value for key, value in metrics.two_sided().items()}
    folder.append_metrics({**place, **losses, **two_sided})
    save_run(trainer, folder, metrics, best=best)
    folder.mark_good()
    return Validated(progress.step, progress.seconds, train_loss, metrics, best)


def save_run(trainer: Trainer, folder: RunFolder, metrics: Metrics | None = None, *, best: bool = False) -> None:
    validation = {"validation": metrics.to_dict()} if metrics else {}
    keep = trainer.config.training.keep if metrics else None
    folder.save(trainer.model_file(validation), trainer.state_dict(), best=best, keep=keep)
