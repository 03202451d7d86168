"""When training diverges: back to the last good state with a lower learning rate, a few times, then an end with advice.

The last good state is that of the last validation, or of the beginning. It lies on the disk: there it costs training
no memory and saving no time (a second name for the file that was saved), and it outlives the process. It is taken at
validations and not at every save, because those go by the clock: a run that was interrupted falls back to the same
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

RATE_FACTOR = 0.5
"""What the learning rate is multiplied by each time."""

MAX_ROLLBACKS = 5
"""Times that a run may fall back."""

RISE_FACTOR, MAX_RISEN_STEPS = 2.0, 20
"""A loss of so many times what it was at first, for so many steps on end, does not come down again by itself."""


def rate_factor(trainer: Trainer) -> float:
    """What the schedule's learning rate is multiplied by; with another --lr it is 1 again."""
    progress = trainer.progress
    return RATE_FACTOR**progress.setbacks if progress.setback_lr == trainer.config.training.lr else 1.0


def check_loss(trainer: Trainer, loss: float) -> None:
    """Raises DivergedError once the loss of the last steps has been far above that of the first, or of guessing."""
    progress = trainer.progress
    if progress.first_loss is None:
        progress.first_loss = loss
    limit = RISE_FACTOR * max(progress.first_loss, log(trainer.vocabulary.size))
    progress.climbed = progress.climbed + 1 if loss > limit else 0
    if progress.climbed >= MAX_RISEN_STEPS:
        raise DivergedError(
            f"training diverged at step {progress.step}: the loss has risen "
            f"from {progress.first_loss:.2f} to {loss:.2f}"
        )


def check_validation_loss(trainer: Trainer, evaluation: Metrics) -> None:
    """Raises DivergedError for a validation loss that is none."""
    if not isfinite(evaluation.loss_nats):
        raise DivergedError(
            f"training diverged at step {trainer.progress.step}: the validation loss is no longer a number"
        )


def roll_back(trainer: Trainer, folder: RunFolder, error: DivergedError) -> RolledBack:
    """The last good state again, with a lower learning rate, saved and logged. Raises the error, with advice, once
    that has been done too often; the last good state is then the one that is saved."""
    progress, lr = trainer.progress, trainer.config.training.lr
    step, seconds = progress.step, progress.seconds
    setbacks = 1 + (progress.setbacks if progress.setback_lr == lr else 0)
    good = folder.load_good()
    trainer.load_state_dict(good)
    folder.truncate_metrics(good)
    progress.seconds, progress.setbacks, progress.setback_lr = seconds, min(setbacks, MAX_ROLLBACKS), lr
    if setbacks > MAX_ROLLBACKS:
        folder.save(trainer.model_file({}), trainer.state_dict())
        raise DivergedError(
            f"{error.message}; {MAX_ROLLBACKS} times the run went back to the last good state with half the rate",
            f"lower --lr ({lr:g} here); --resume goes on from step {progress.step}, the last good one",
        ) from error
    event = RolledBack(step, progress.step, error.message, rate_factor(trainer))
    folder.append_metrics(
        {"step": event.to_step, "diverged_at_step": event.step, "why": event.reason, "rate_factor": event.rate_factor}
    )
    folder.save(trainer.model_file({}), trainer.state_dict())
    folder.mark_good()
    return event


@contextmanager
def explain_memory_errors(trainer: Trainer) -> Iterator[None]:
    """Too little memory as an error that names what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        batches = trainer.batches
        raise CharlstmError(
            f"there is not enough memory for a step of {batches.batch_size} streams of {batches.seq_len} characters",
            f"lower --batch-size ({batches.batch_size} here) or --seq-len ({batches.seq_len}) and begin anew; "
            "if other programs took it, --resume goes on",
        ) from error
