"""The training loop, in time order. It yields what happened and prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic

from charlstm.checkpoint import RunFolder
from charlstm.config import Config
from charlstm.data.corpus import Corpus
from charlstm.errors import DivergedError
from charlstm.evaluation.either import Figures, figures
from charlstm.modelfile import ModelFile
from charlstm.training.clock import Clock
from charlstm.training.events import Event, Finished, Stepped, Validated
from charlstm.training.recovery import check_finite, fall_back, lowered, memory_named, watch
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
        folder.check_state(config.model)
    trainer = Trainer(corpus, config)
    fresh = trainer.start_from(init_from) if init_from else ""
    with folder.sole_writer():
        if resume:
            state = folder.load_state()
            trainer.load_state_dict(state)
            folder.forget_after(state)
            folder.write_config(config)
        else:
            folder.create(config, corpus.piped, overwrite=overwrite)
            save(trainer, folder)
        if trainer.progress.validated_step == trainer.progress.step or not folder.has_good:
            folder.mark_good()
        yield trainer.started(fresh)
        yield from run(trainer, folder, stop, validate_at)


def run(
    trainer: Trainer, folder: RunFolder, stop: Callable[[], bool], validate_at: Callable[[float], bool] | None = None
) -> Iterator[Event]:
    """Step after step, with validations in between, to the end or until `stop()` is true."""
    config = trainer.config
    progress, clock = trainer.progress, Clock(trainer, folder)
    first, saved = progress.step, monotonic()
    while True:
        done, stopped = clock.done(), stop()
        if not stopped and due(trainer, done, validate_at):
            if done >= 1 and config.training.max_time:
                save(trainer, folder)  # now, lest the time run out while the last validation runs
            began = monotonic()
            try:
                found = validate(trainer, stop)
            except DivergedError as error:
                yield fall_back(trainer, folder, error)
                continue
            if found is not None:
                yield save_validated(trainer, folder, found, clock.place())
                saved = monotonic()
                clock.validating = saved - began
            continue
        hopeless = 0 < config.training.patience <= progress.stale
        if (done >= 1 and progress.step) or hopeless or stopped:
            break

        trainer.resize_windows(done)
        rate, began = lowered(trainer) * learning_rate(config.training, done, progress.plateaus), monotonic()
        try:
            with memory_named(trainer):
                loss = trainer.step(rate)
            watch(trainer, loss)
        except DivergedError as error:
            yield fall_back(trainer, folder, error)
            continue
        clock.stepped(monotonic() - began)
        if progress.step % LOG_EVERY == 0 and not due(trainer, clock.done(), validate_at):
            folder.log({**clock.place(), "loss_nats": loss, "learning_rate": rate})
        if 0 < config.training.save_every <= monotonic() - saved:
            folder.save_soon(trainer.model_file({}), trainer.state_dict())
            saved = monotonic()
        yield Stepped(
            progress.step, trainer.batches.epoch, done, loss, rate, clock.chars_per_second, clock.seconds_left
        )

    if stopped:
        save(trainer, folder)
    yield Finished(
        "stopped" if stopped else "patience" if hopeless else "done",
        progress.step,
        progress.step - first,
        progress.seconds,
        progress.best_loss_nats,
    )


def due(trainer: Trainer, done: float, validate_at: Callable[[float], bool] | None = None) -> bool:
    """Whether to validate now: at the end, and every so many steps or as told, but not twice at one step."""
    step = trainer.progress.step
    return 0 < step != trainer.progress.validated_step and (
        done >= 1 or (validate_at(done) if validate_at else step % trainer.config.training.validate_every == 0)
    )


def validate(trainer: Trainer, stop: Callable[[], bool]) -> Figures | None:
    """The figures of the validation part; None if it was stopped. Raises DivergedError if the loss is no number."""
    ids = trainer.tokens.part("val")
    with trainer.average.in_place():
        found = figures(trainer.model, ids, trainer.vocabulary.start, trainer.validation_bytes, stop)
    if found is not None:
        check_finite(trainer, found.evaluation)
    return found


def save_validated(trainer: Trainer, folder: RunFolder, found: Figures, place: dict[str, float]) -> Validated:
    """Saves the run with its new figures. The best model is the one with the lowest loss forwards."""
    progress, evaluation = trainer.progress, found.evaluation
    best, train_loss = progress.validated(evaluation.loss_nats), progress.take_mean_loss()
    trainer.average.validated(evaluation.loss_nats)
    losses = {"loss_nats": train_loss, "validation_loss_nats": evaluation.loss_nats, "validation_bpc": evaluation.bpc}
    folder.log({**place, **losses, **{f"validation_{name}": value for name, value in found.beside.items()}})
    save(trainer, folder, found, best=best)
    folder.mark_good()
    return Validated(progress.step, progress.seconds, train_loss, evaluation, best, found.beside)


def save(trainer: Trainer, folder: RunFolder, found: Figures | None = None, *, best: bool = False) -> None:
    validation = {"validation": found.to_dict()} if found else {}
    keep = trainer.config.training.keep if found else None
    folder.save(trainer.model_file(validation), trainer.state_dict(), best=best, keep=keep)
