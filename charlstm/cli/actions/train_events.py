"""The events of a training run in JSON, and notes about its speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from charlstm.cli.output import format_duration, write_json
from charlstm.console import Console
from charlstm.training.events import BestEvaluated, Event, Finished, RolledBack, Saved, Started, Stepped, Validated

LENGTH_CHECK_STEPS = 20
"""Steps after which the time of a run without a limit is estimated."""

LONG_RUN_SECONDS = 24 * 3600.0
"""A run that takes longer says so."""

SLOWNESS = 0.7
"""Share of the planned speed below which training is much slower than planned: a size of model earlier."""

SLOWNESS_CHECK = 0.1
"""Share of the training after which its speed is compared with the plan."""


def note_slowness(console: Console, events: Iterable[Event], planned: float) -> Iterator[Event]:
    """Yield the events, and note once if training is much slower than the `planned` characters/s."""
    steps, seconds_per_character, noted = 0, 0.0, False
    for event in events:
        if isinstance(event, Stepped) and event.chars_per_second and not noted:
            steps, seconds_per_character = steps + 1, seconds_per_character + 1 / event.chars_per_second
            speed = steps / seconds_per_character
            if noted := event.fraction_done > SLOWNESS_CHECK and speed < SLOWNESS * planned:
                console.note(
                    f"training at {speed:,.0f} characters/s; the settings were chosen for {planned:,.0f}. Do other "
                    "programs use the processor?"
                )
        yield event


def note_length(console: Console, events: Iterable[Event]) -> Iterator[Event]:
    """Yield the events, and note after some steps if the run will take very long."""
    for count, event in enumerate(events):
        if isinstance(event, Stepped) and count == LENGTH_CHECK_STEPS:
            seconds, speed = event.seconds_left or 0.0, event.chars_per_second or 0.0
            if seconds > LONG_RUN_SECONDS:
                console.note(
                    f"this run takes about {format_duration(seconds)} at {speed:,.0f} characters/s; --max-time 8h "
                    "would choose settings for eight hours"
                )
        yield event


def write_events(console: Console, events: Iterable[Event], folder: Path) -> Iterator[Event]:
    """Yield the events, and write all except the single steps to stdout as JSON."""
    for event in events:
        record = describe_event(event)
        if isinstance(event, Finished):
            record["run"] = str(folder)
        if record:
            write_json(console, record)
        yield event


def describe_event(event: Event) -> dict[str, Any]:
    """Return the JSON record of an event, with the keys of metrics.jsonl; empty for a step."""
    names = {
        Started: "started",
        Validated: "validated",
        Saved: "saved",
        RolledBack: "rolled_back",
        BestEvaluated: "best_evaluated",
        Finished: "finished",
    }
    if type(event) not in names:
        return {}
    record = asdict(event)
    if isinstance(event, (Validated, Saved)):
        record["loss_nats"] = record.pop("train_loss_nats")
    if isinstance(event, Validated):
        del record["metrics"]
        record |= {f"validation_{name}": value for name, value in event.metrics.to_dict().items()}
    return {"event": names[type(event)], **record}
