"""The names of a run's files, and which model file a command reads. Imports no NumPy, so that the help starts fast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from charlstm.errors import UsageError

BEST, LAST, STATE, GOOD = (f"{name}.safetensors" for name in ("best", "last", "state", "good"))
CONFIG, METRICS, SPOOL, LOCK = "config.toml", "metrics.jsonl", "stdin.txt", "lock"

RUN_FILES = (BEST, LAST, STATE, GOOD, METRICS, SPOOL, CONFIG)
"""What a run writes, besides its lock and the models of `--keep`."""

KEPT_PATTERN = f"step-{'[0-9]' * 6}*.safetensors"
"""The models of `--keep`."""


def find_model(named: Path | None, environ: Mapping[str, str]) -> Path:
    """The model file that was named (a file or a run's folder), else `$CHARLSTM_MODEL`'s, else the newest run's.

    Raises UsageError if there is none.
    """
    if named is None and environ.get("CHARLSTM_MODEL"):
        named = Path(environ["CHARLSTM_MODEL"])
    if named is None:
        return find_model_in(find_newest_run())
    if not named.exists():
        raise UsageError(f"there is no model at {named}", "-m/--model takes a run's folder or a .safetensors file")
    return find_model_in(named) if named.is_dir() else named


def find_model_in(folder: Path) -> Path:
    """The best model of a run, or its newest if none was validated yet. Raises UsageError if it has neither."""
    for name in (BEST, LAST):
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"the folder {folder} holds no model", "-m/--model takes a run's folder or a .safetensors file")


def find_newest_run(runs: Path = Path("runs")) -> Path:
    """The run under `./runs` that was saved last. Raises UsageError if there is none."""
    saved = [path for name in (BEST, LAST) for path in runs.glob(f"*/{name}")]
    if not saved:
        raise UsageError(
            "there is no run under ./runs", "name a model with -m/--model, or train one: charlstm train corpus.txt"
        )
    return max(saved, key=lambda path: path.stat().st_mtime_ns).parent
