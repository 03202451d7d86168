"""`train --tensorboard`: the event file of a run while it trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from charlstm.config import Config
from charlstm.errors import MissingExtraError
from charlstm.storage.locate import METRICS
from charlstm.storage.metrics import MetricsReader
from charlstm.storage.run import RunFolder
from charlstm.training.events import Event, Started, Stepped

if TYPE_CHECKING:
    from charlstm.tracking.tensorboard import EventFile

EVENT_FOLDER = "tensorboard"
"""The folder of the event file in a run."""


def check_tensorboard(option: str) -> None:
    """Raise MissingExtraError, with the command that installs it, if TensorBoard is missing."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"{option} needs TensorBoard", "tensorboard", error) from None


def open_event_file(folder: RunFolder, config: Config) -> EventFile:
    """Return the event file of a run. Nothing is written yet."""
    from charlstm.tracking.tensorboard import EventFile

    return EventFile(folder.path / EVENT_FOLDER, config)


def follow_metrics(events: Iterable[Event], file: EventFile, folder: RunFolder, log_every: int) -> Iterator[Event]:
    """Yield the events, and write to the event file what the run logs meanwhile: every `log_every` steps.

    When a resumed run starts, it has not dropped the lines after its last save yet: nothing is written then.
    """
    reader = MetricsReader(folder.path / METRICS)
    for event in events:
        logs_nothing = isinstance(event, Started) or (isinstance(event, Stepped) and event.step % log_every)
        if not logs_nothing:
            file.follow(reader)
        yield event
