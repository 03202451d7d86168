"""How much of the training is done: by steps, or by the time given, whichever is further."""

from __future__ import annotations

from time import monotonic

from charlstm.storage.run import RunFolder
from charlstm.training.trainer import Trainer


class Clock:
    """Keeps `progress.seconds` and the rates that follow from it."""

    def __init__(self, trainer: Trainer, folder: RunFolder) -> None:
        self.trainer, self.folder = trainer, folder
        self.started_at = monotonic() - trainer.progress.seconds
        self.validation_seconds = 0.0  # seconds that the last validation took, and the save after it
        self.seconds_per_step = 0.0
        self.min_seconds_per_char = (
            0.0  # seconds a character that a step has taken; the first ones map memory and compile
        )

    def update(self) -> float:
        """Share of the training behind us, from 0; 1 or more at the end. A time limit includes the last save."""
        progress, limit = self.trainer.progress, self.trainer.config.training.max_time
        progress.seconds = monotonic() - self.started_at
        by_time = progress.seconds / max(limit - self.reserved_seconds, 1e-3) if limit else 0.0
        return max(self.trainer.batches.epochs_read / self.trainer.config.training.epochs, by_time)

    @property
    def reserved_seconds(self) -> float:
        """Seconds to keep for the end, amply, but no more than half: for a step, a save, and the last validation.

        Until one was measured, a validation is taken to read the text as fast as training does.
        """
        reading = self.validation_seconds or self.min_seconds_per_char * len(self.trainer.tokens.part("val"))
        most = self.trainer.config.training.max_time / 2
        return min(1.2 * (self.seconds_per_step + self.folder.save_seconds + reading), most)

    def record_step(self, seconds: float) -> None:
        """A step took this long. What is reported is a mean over some twenty of them."""
        weight = 0.05 if self.seconds_per_step else 1.0
        self.seconds_per_step += weight * (seconds - self.seconds_per_step)
        batches = self.trainer.batches
        each = seconds / (batches.batch_size * batches.seq_len)
        self.min_seconds_per_char = min(self.min_seconds_per_char or each, each)

    def position(self) -> dict[str, float]:
        """Where the run is and how fast, for a line of metrics."""
        progress = self.trainer.progress
        speed = {"chars_per_second": round(self.chars_per_second)} if self.seconds_per_step else {}
        return {
            "step": progress.step,
            "epoch": self.trainer.batches.epoch,
            "characters": progress.characters,
            "seconds": round(progress.seconds, 3),
            **speed,
        }

    @property
    def chars_per_second(self) -> float:
        batches = self.trainer.batches
        return batches.batch_size * batches.seq_len / max(self.seconds_per_step, 1e-9)

    @property
    def seconds_left(self) -> float:
        progress, limit = self.trainer.progress, self.trainer.config.training.max_time
        by_steps = (self.trainer.total_steps - progress.step) * self.seconds_per_step
        return max(min(by_steps, limit - progress.seconds) if limit else by_steps, 0.0)
