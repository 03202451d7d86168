"""What happens in a training run, as `run_training` yields it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from charlstm.evaluation.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class Started:
    """The first event: everything is ready, and this process has not trained yet.

    device: the device and precision, as "cpu, bfloat16".
    parameters: weights of the model.
    total_steps: optimizer steps in all epochs. A time limit may end the run earlier.
    steps_per_epoch: optimizer steps per pass over the training part.
    step: steps already taken: 0, or the step that a resumed run continues from.
    new_characters: characters of the corpus that the model of `init_from` does not have.
    """

    device: str
    parameters: int
    total_steps: int
    steps_per_epoch: int
    step: int
    new_characters: str = ""


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """The optimizer took one step.

    step: steps taken so far.
    epoch: passes over the training part that are complete.
    fraction_done: share of the training done before this step, 0 to 1, by steps or by the time limit.
    loss_nats: mean training loss of this batch, nats per character (the forward loss of a bidirectional model).
    learning_rate: the rate of this step.
    gradient_norm: norm of the gradient before clipping.
    chars_per_second: training speed, averaged over the last steps; None at the first step of this process, which also
        compiles.
    seconds_left: estimated seconds until the training ends; None at the first step.
    """

    step: int
    epoch: int
    fraction_done: float
    loss_nats: float
    learning_rate: float
    gradient_norm: float
    chars_per_second: float | None
    seconds_left: float | None


@dataclass(frozen=True, kw_only=True)
class Validated:
    """The model was evaluated on the validation part, and the run was saved.

    step: steps taken so far.
    seconds: time that the run has taken before this validation, over all resumptions.
    train_loss_nats: mean training loss since the last validation, nats per character, with dropout.
    metrics: the metrics of the validation part, or of `training.validation_chars` characters from all over it.
    best: whether this is the lowest validation loss so far.
    """

    step: int
    seconds: float
    train_loss_nats: float
    metrics: Metrics
    best: bool


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The run was saved where one with a validation part would have been validated, or because `save()` asked for it.

    step: steps taken so far.
    seconds: time that the run has taken before this save, over all resumptions.
    train_loss_nats: mean training loss since the last validation or such save, nats per character, with dropout; None
        if no step was taken since.
    requested: whether `save()` asked for it. A run without a validation part is otherwise saved in place of one, and
        its last model is the best.
    """

    step: int
    seconds: float
    train_loss_nats: float | None
    requested: bool = False


@dataclass(frozen=True, kw_only=True)
class RolledBack:
    """Training diverged and continues from the last good state with a lower learning rate.

    step: the step at which it diverged.
    to_step: the step that it continues from.
    reason: why it counts as diverged, in one sentence.
    rate_factor: factor on the learning rate of the schedule from now on.
    """

    step: int
    to_step: int
    reason: str
    rate_factor: float


@dataclass(frozen=True, kw_only=True)
class BestEvaluated:
    """Training ended, and the best model was evaluated.

    step: the step of the best model.
    seconds: time that the run has taken, over all resumptions.
    train_loss_nats: its loss on pieces from all over the training part, nats per character, without dropout.
    validation_loss_nats: its loss on the validation part, or on as much of it as there was time for.
    validation_characters: how much that is.
    """

    step: int
    seconds: float
    train_loss_nats: float
    validation_loss_nats: float
    validation_characters: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The last event: training ended, and the run is saved.

    reason: "done" (all epochs, or the time limit), "patience" (no better validation loss) or "stopped" (by `stop()`).
    step: steps taken so far.
    steps: steps taken since Started.
    seconds: time that the run has taken, over all resumptions.
    best_loss_nats: lowest validation loss, nats per character; None before the first validation or without any.
    """

    reason: Literal["done", "patience", "stopped"]
    step: int
    steps: int
    seconds: float
    best_loss_nats: float | None


Event = Started | Stepped | Validated | Saved | RolledBack | BestEvaluated | Finished
"""What `run_training` yields: Started; Stepped, Validated, Saved and RolledBack; BestEvaluated; Finished.

BestEvaluated is missing if training was stopped, or without a validation part."""
