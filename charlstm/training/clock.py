"""How much of the training is done, by steps or by the time limit, and what the time is spent on."""

from __future__ import annotations

from time import monotonic

from charlstm.storage.run import RunFolder
from charlstm.training.trainer import Trainer

STEP_TIME_DECAY = 0.95
"""Decay of the moving average over step times: speeds are reported as a mean over the last twenty steps or so."""

RESERVE_MARGIN = 1.2
"""Factor on the measured times in the reserve: the next step, save and validation may be slower than the last ones."""

MAX_RESERVE = 0.5
"""Largest share of the time limit that may be reserved: a short limit is not spent on validation and saving alone."""

MIN_TRAINING_SHARE = 0.25
"""Share of the time limit that training gets in any case: one of a few seconds may be over before it begins."""

OTHER_TIME_SHARE = 0.1
"""Share of the time limit for all that is not training: imports, reading the text, validating and saving."""

LAST_READING_SHARE = 0.05
"""Largest share of the time limit for reading the validation part once more, whole if that takes no longer."""

MAX_TRAINING_TEXT = 50_000
"""Characters of the training part that the best model is evaluated on: its loss is then known to about 0.01 nats."""

EXIT_SECONDS = 0.3
"""Time that a process needs to start and to exit, around what the clock measures."""


class Clock:
    """The time of a run: `progress.seconds`, the share of the training done, and the speed of training.

    A time limit counts from `started_at`, a time of `monotonic()`: the start of the command, before the text is read.
    """

    def __init__(self, trainer: Trainer, folder: RunFolder, started_at: float) -> None:
        self.trainer, self.folder = trainer, folder
        self.started_at = started_at - trainer.progress.seconds
        self.fraction_done = 0.0  # share of the training done: 1 or more at the end
        self.validation_started_at = 0.0
        self.validation_seconds = 0.0  # of the last validation, the save after it and the caller's use of the event
        self.reading_seconds_per_char = 0.0  # of the last validation, without those
        self.steps = 0  # recorded by this process
        self.seconds_per_step = 0.0  # moving average; 0 before the first step
        self.min_seconds_per_char = 0.0  # of the fastest step: the first steps also map memory and compile

    def update(self, time_share: float | None = None) -> None:
        """Read the clock: write the time that the run has taken to `progress.seconds`, and set `fraction_done`.

        Both stay as they are until the next update, so that the decisions of one iteration agree with each other.

        time_share: the share of the time limit that is over, if the ranks have agreed on it: else that of this clock.
        """
        self.trainer.progress.seconds = monotonic() - self.started_at
        by_steps = self.trainer.batches.epochs_read / self.trainer.config.training.epochs
        self.fraction_done = max(by_steps, self.read_time_share() if time_share is None else time_share)

    def read_time_share(self) -> float:
        """Return the share of the training that is done by the time limit; 0 without a limit.

        It is the time of the steps so far as a share of it and of the time that is left for more: reading the text
        takes part of the limit, but none of the training.
        """
        progress, limit = self.trainer.progress, self.trainer.config.training.max_time
        if not limit:
            return 0.0
        seconds = monotonic() - self.started_at
        least = MIN_TRAINING_SHARE * limit - progress.training_seconds
        left = max(limit - self.reserved_seconds - seconds, least, 0.0)
        return progress.training_seconds / (progress.training_seconds + left) if left else 1.0

    @property
    def reserved_seconds(self) -> float:
        """Seconds of a time limit that are kept for the end.

        They are for one more step, the last validation, two saves, the last readings of both parts and the exit. Before
        the first validation, validating is assumed to read the text as fast as training does.
        """
        validation = self.validation_seconds or self.min_seconds_per_char * self.trainer.validation_chars
        training_text = self.seconds_per_read_char * self.training_text_chars
        saves = 2 * self.folder.save_seconds
        needed = RESERVE_MARGIN * (self.seconds_per_step + saves + validation + training_text) + EXIT_SECONDS
        return min(needed + self.last_reading_seconds, MAX_RESERVE * self.trainer.config.training.max_time)

    @property
    def last_reading_seconds(self) -> float:
        """Seconds of a time limit for reading the validation part once more at the end: all of it, or as much as fits.

        0 where every validation reads all of it.
        """
        trainer, limit = self.trainer, self.trainer.config.training.max_time
        whole = len(trainer.tokens.part("val"))
        if trainer.validation_chars == whole:
            return 0.0
        other = trainer.progress.seconds - trainer.progress.training_seconds
        left = max(OTHER_TIME_SHARE * limit - other, 0.0)
        return min(whole * self.seconds_per_read_char, left, LAST_READING_SHARE * limit)

    @property
    def seconds_per_read_char(self) -> float:
        """Seconds for a character of an evaluation: as for one of training, before the first."""
        return self.reading_seconds_per_char or self.min_seconds_per_char

    @property
    def training_text_chars(self) -> int:
        """Characters of the training part that the best model is evaluated on."""
        return min(self.trainer.validation_chars, MAX_TRAINING_TEXT)

    @property
    def last_reading_chars(self) -> int:
        """Characters of the validation part that the best model reads at the end: without a time limit, all."""
        trainer = self.trainer
        whole, at_once = len(trainer.tokens.part("val")), trainer.validation_chars
        if not trainer.config.training.max_time or not self.reading_seconds_per_char:
            return whole
        fits = round(self.last_reading_seconds / self.reading_seconds_per_char)
        return min(max(fits, at_once), whole)

    def record_step(self, seconds: float) -> None:
        """Update the speed of training with the time that a step took.

        The first step also compiles, maps memory and starts processes: the second takes its place in the average.
        """
        self.steps += 1
        self.trainer.progress.training_seconds += seconds
        weight = max(1 - STEP_TIME_DECAY, 1 / max(self.steps - 1, 1))
        self.seconds_per_step += weight * (seconds - self.seconds_per_step)
        seconds_per_char = seconds / self.chars_per_step
        self.min_seconds_per_char = min(self.min_seconds_per_char or seconds_per_char, seconds_per_char)

    def begin_validation(self) -> None:
        """Start to measure a validation."""
        self.validation_started_at = monotonic()

    def record_reading(self, characters: int) -> None:
        """Record that a validation has read this many characters since `begin_validation()`."""
        self.reading_seconds_per_char = (monotonic() - self.validation_started_at) / characters

    def end_validation(self) -> None:
        """Record the time since `begin_validation()`."""
        self.validation_seconds = monotonic() - self.validation_started_at

    def position(self) -> dict[str, float]:
        """Return the place in the training, its time and its speed, for a line of metrics.jsonl."""
        progress, batches = self.trainer.progress, self.trainer.batches
        speed = {} if self.chars_per_second is None else {"chars_per_second": round(self.chars_per_second)}
        return {
            "step": progress.step,
            "epoch": batches.epoch,
            "passes": round(batches.epochs_read, 5),
            "characters": progress.characters,
            "fraction_done": round_down(min(self.fraction_done, 1.0)),
            "seconds": round(progress.seconds, 3),
            "training_seconds": round(progress.training_seconds, 3),
            "world_size": self.trainer.ranks.size,
            **speed,
        }

    @property
    def chars_per_step(self) -> int:
        """Characters read in one step."""
        return self.trainer.batches.batch_size * self.trainer.batches.seq_len

    @property
    def chars_per_second(self) -> float | None:
        """Training speed, averaged over the last steps. None before the second: the first also compiles."""
        return self.chars_per_step / max(self.seconds_per_step, 1e-9) if self.steps > 1 else None

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the training ends, by steps or by the time limit. None before the second step."""
        if self.steps < 2:
            return None
        progress, limit = self.trainer.progress, self.trainer.config.training.max_time
        by_steps = (self.trainer.total_steps - progress.step) * self.seconds_per_step
        return max(min(by_steps, limit - progress.seconds) if limit else by_steps, 0.0)


def round_down(share: float) -> float:
    """Return a share with five digits that is 1 only if all is done."""
    return int(share * 1e5) / 1e5
