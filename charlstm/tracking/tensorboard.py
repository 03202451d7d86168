"""metrics.jsonl as an event file for TensorBoard: all scalars, the settings, and texts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from charlstm.config import Config
from charlstm.storage.files import open_atomically, remove_file, write_error
from charlstm.storage.metrics import LoggedLine, MetricsReader
from charlstm.storage.model import without_paths
from charlstm.tracking.curves import is_number

FILE_PATTERN = "events.out.tfevents.*.charlstm"
"""The name of an event file: TensorBoard reads those with `tfevents` in their names, in the order of their names."""

TAGS = {
    "loss_nats": "loss/train",
    "validation_loss_nats": "loss/validation",
    "validation_bpc": "loss/validation_bpc",
    "learning_rate": "learning_rate",
    "gradient_norm": "gradient_norm",
    "chars_per_second": "chars_per_second",
    "memory_bytes": "memory_bytes",
    "gpu_memory_bytes": "gpu_memory_bytes",
}
"""The names of scalars in TensorBoard, which shows a group for each part before a slash. The others are below these."""

PLACES = ("step", "seconds", "training_seconds")
"""What says where a line is, and is no scalar."""

CONFIG_TAG, SAMPLE_TAG = "config", "sample"


class EventFile:
    """The event file in a folder, which follows a metrics.jsonl.

    A run that is resumed or rolled back drops lines of its metrics. The file is then replaced by one with the lines
    that are left, and with the texts up to there, so that it never has a step twice. Its name has a time and nothing of
    the machine. Raises CharlstmError if it cannot be written.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder, self.config = folder, config
        self.path: Path | None = None

    def follow(self, reader: MetricsReader) -> None:
        """Write what the metrics have that the file does not."""
        written = len(reader.entries)
        replaced = reader.update()
        if self.path is None or replaced:
            self.rewrite(reader.entries)
        elif len(reader.entries) > written:
            self.append(encode_entry(entry, self.started_at) for entry in reader.entries[written:])

    def rewrite(self, entries: Sequence[LoggedLine]) -> None:
        """Replace the file by one with these lines of metrics, and the texts that it has up to the last of them."""
        last = max((entry["step"] for entry in entries), default=0)
        seconds = max((entry.get("seconds", 0.0) for entry in entries), default=0.0)
        self.started_at = time.time() - seconds  # as if the run had not been interrupted
        old = sorted(self.folder.glob(FILE_PATTERN))
        texts = [data for path in old for data in read_texts(path) if Event.FromString(data).step <= last]
        path = self.folder / FILE_PATTERN.replace("*", f"{time.time():.6f}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open_atomically(path) as file:
                writer = RecordWriter(file)
                for data in [*self.encode_head(), *texts, *(encode_entry(each, self.started_at) for each in entries)]:
                    writer.write(data)
            for other in old:
                remove_file(other)
        except OSError as error:
            raise write_error(path, error) from error
        self.path = path

    def add_text(self, step: int, text: str) -> None:
        """Append a sample that was drawn at a step."""
        indented = "".join(f"    {line}\n" for line in text.split("\n"))  # a block of code in Markdown
        self.append(
            [Event(wall_time=time.time(), step=step, summary=text_pb(SAMPLE_TAG, indented)).SerializeToString()]
        )

    def encode_head(self) -> Iterator[bytes]:
        """Yield how a file begins. A TensorBoard that has read an earlier one drops that."""
        yield Event(wall_time=self.started_at, file_version="brain.Event:2").SerializeToString()
        start = SessionLog(status=SessionLog.START)
        yield Event(wall_time=self.started_at, step=0, session_log=start).SerializeToString()
        settings = replace(self.config, data=without_paths(self.config.data)).to_toml()
        summary = text_pb(CONFIG_TAG, f"```toml\n{settings}```")
        yield Event(wall_time=self.started_at, step=0, summary=summary).SerializeToString()

    def append(self, events: Iterable[bytes]) -> None:
        assert self.path is not None
        try:
            with self.path.open("ab") as file:
                writer = RecordWriter(file)
                for data in events:
                    writer.write(data)
        except OSError as error:
            raise write_error(self.path, error) from error


def encode_entry(entry: LoggedLine, started_at: float) -> bytes:
    """Return a line of metrics as an event with a value for each scalar."""
    values = [
        Summary.Value(tag=TAGS.get(key, f"other/{key}"), simple_value=value)
        for key, value in entry.items()
        if key not in PLACES and is_number(value)
    ]
    wall_time = started_at + entry.get("seconds", 0.0)
    event = Event(wall_time=wall_time, step=entry["step"], summary=Summary(value=values))
    return bytes(event.SerializeToString())


def read_texts(path: Path) -> Iterator[bytes]:
    """Yield the events of a file that have a sample. What was cut short is left out."""
    for data in RawEventFileLoader(os.fspath(path)).Load():
        event = Event.FromString(data)
        if any(value.tag == SAMPLE_TAG for value in event.summary.value):
            yield data
