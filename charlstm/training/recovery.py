"""What happens when training diverges: the run is rolled back to its last good state with a lower learning rate.

The last good state is the one at the last validation, or at the start. It is a file in the run folder, so it costs no
memory, survives the process, and takes no time to save: it is a second name for the state file. Saves between
validations are not used, because their steps depend on the time: a run that was interrupted rolls back to the same
state as one that was not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite, log

from charlstm.errors import CharlstmError, DivergedError, is_out_of_memory
from charlstm.evaluation.metrics import Metrics
from charlstm.storage.run import RunFolder
from charlstm.training.events import RolledBack
from charlstm.training.trainer import Trainer

ROLLBACK_LR_FACTOR = 0.5
"""Factor on the learning rate at each roll back."""

MAX_ROLLBACKS = 5
"""Roll backs after which a run fails: at 1/32 of the learning rate, something else is wrong."""

RISE_FACTOR = 2.0
"""A loss is far too high above this multiple of the first step's loss, or of a uniform guess if that is higher."""

MAX_RISEN_STEPS = 20
"""Consecutive steps with such a loss after which the run counts as diverged: healthy runs show single ones."""


def rate_factor(trainer: Trainer) -> float:
    """Return the factor on the learning rate of the schedule. It is 1 again once `--lr` has changed."""
    progress = trainer.progress
    return ROLLBACK_LR_FACTOR**progress.setbacks if progress.setback_lr == trainer.config.training.lr else 1.0


def check_loss(trainer: Trainer, loss: float) -> None:
    """Raise DivergedError if the training loss of the last steps was far above that of the first step."""
    progress = trainer.progress
    if progress.first_loss is None:
        progress.first_loss = loss
    limit = RISE_FACTOR * max(progress.first_loss, log(trainer.vocabulary.size))
    progress.climbed = progress.climbed + 1 if loss > limit else 0
    if progress.climbed >= MAX_RISEN_STEPS:
        raise DivergedError(
            f"training diverged at step {progress.step}: the loss rose from {progress.first_loss:.2f} to {loss:.2f}"
        )


def check_validation_loss(trainer: Trainer, metrics: Metrics) -> None:
    """Raise DivergedError if the validation loss is not finite."""
    if not isfinite(metrics.loss_nats):
        raise DivergedError(f"training diverged at step {trainer.progress.step}: the validation loss is not finite")


def roll_back(trainer: Trainer, folder: RunFolder, error: DivergedError) -> RolledBack:
    """Load the last good state, lower the learning rate, save and log both.

    Raises the error, with advice, after `MAX_ROLLBACKS` roll backs. The run folder then holds the last good state.
    """
    progress, lr = trainer.progress, trainer.config.training.lr
    step, seconds, training_seconds = progress.step, progress.seconds, progress.training_seconds
    rollbacks = 1 + (progress.setbacks if progress.setback_lr == lr else 0)
    good = folder.load_good()
    trainer.load_state_dict(good)
    folder.truncate_metrics(good)
    progress.seconds, progress.training_seconds = seconds, training_seconds
    progress.setbacks, progress.setback_lr = min(rollbacks, MAX_ROLLBACKS), lr
    if rollbacks > MAX_ROLLBACKS:
        folder.save(trainer.model_file({}), trainer.state_dict(), best=not trainer.config.validates)
        raise DivergedError(
            f"{error.message}, after {MAX_ROLLBACKS} roll backs that each halved the learning rate",
            f"lower --lr (now {lr:g}); --resume continues from step {progress.step}, the last good one",
        ) from error
    event = RolledBack(step=step, to_step=progress.step, reason=error.message, rate_factor=rate_factor(trainer))
    folder.append_metrics(
        {
            "step": event.to_step,
            "diverged_at_step": event.step,
            "why": event.reason,
            "rate_factor": event.rate_factor,
        }
    )
    folder.save(trainer.model_file({}), trainer.state_dict(), best=not trainer.config.validates)
    folder.mark_good()
    return event


@contextmanager
def explain_memory_errors(trainer: Trainer) -> Iterator[None]:
    """Turn an out-of-memory error into a CharlstmError that names what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        batches = trainer.batches
        raise CharlstmError(
            f"not enough memory for a training step on {batches.batch_size} streams of {batches.seq_len} characters",
            f"start a new run with a lower --batch-size (now {batches.batch_size}) or --seq-len (now "
            f"{batches.seq_len}); if other programs took the memory, --resume continues this one",
        ) from error
