"""The lines of docs/python.md for other trackers pass on what a run logs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.texts import ENGLISH, ROOT

MAX_LINES = 6
SETTINGS = """import charlstm
config = charlstm.Config(
    charlstm.ModelConfig(hidden=8, embedding=8),
    training=charlstm.TrainingConfig(epochs=1, batch_size=4, seq_len=16, validate_every=10),
)
"""
VALIDATION_KEYS = {"wandb": "loss/validation", "trackio": "loss/validation", "mlflow": "loss_validation"}


def block_of(tracker: str) -> str:
    """Return the lines for a tracker, with its import."""
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    (block,) = re.findall(rf"^```python\n(import {tracker}\n.*?)^```", page, re.DOTALL | re.MULTILINE)
    return str(block)


@pytest.mark.slow
@pytest.mark.parametrize("tracker", VALIDATION_KEYS)
def test_the_lines_for_a_tracker_log_every_validation(tracker: str) -> None:
    Path("letters.txt").write_text(ENGLISH[:1500], "utf-8")
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "support" / "trackers")}
    program = SETTINGS + block_of(tracker)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ, timeout=120)
    assert done.returncode == 0, done.stderr
    key = VALIDATION_KEYS[tracker]
    logged = {line["step"]: line[key] for line in read_lines(f"{tracker}.jsonl") if key in line}
    own = {
        line["step"]: line["validation_loss_nats"]
        for line in read_lines(f"runs/{tracker}/metrics.jsonl")
        if "validation_loss_nats" in line
    }
    assert logged == own
    assert len(own) > 1


@pytest.mark.parametrize("tracker", VALIDATION_KEYS)
def test_six_lines_and_an_import_are_enough(tracker: str) -> None:
    lines = [line for line in block_of(tracker).splitlines() if line and not line.startswith("import ")]
    assert len(lines) <= MAX_LINES


def read_lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
