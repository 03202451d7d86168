"""A stand-in for mlflow that appends what it is given to mlflow.jsonl."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path


def start_run(run_name: str | None = None) -> AbstractContextManager[None]:
    return nullcontext()


def log_metric(key: str, value: float, step: int | None = None) -> None:
    with Path("mlflow.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, key: value}) + "\n")
