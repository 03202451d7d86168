"""Where runs are, and which model a name means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from charlstm.errors import UsageError

BEST, LAST, STATE, GOOD = (f"{name}.safetensors" for name in ("best", "last", "state", "good"))


def find_model(named: Path | None, environ: Mapping[str, str]) -> Path:
    """The model file that was named (a file or a run's folder), else `$CHARLSTM_MODEL`'s, else the newest run's.

    Raises UsageError if there is none.
    """
    if named is None and environ.get("CHARLSTM_MODEL"):
        named = Path(environ["CHARLSTM_MODEL"])
    if named is None:
        return model_of(newest_run())
    if not named.exists():
        raise UsageError(f"there is no model at {named}", "-m/--model takes a run's folder or a .safetensors file")
    return model_of(named) if named.is_dir() else named


def model_of(folder: Path) -> Path:
    """The best model of a run, or its newest if none was validated yet. Raises UsageError if it has neither."""
    for name in (BEST, LAST):
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"the folder {folder} holds no model", "-m/--model takes a run's folder or a .safetensors file")


def newest_run(runs: Path = Path("runs")) -> Path:
    """The run under `./runs` that was saved last. Raises UsageError if there is none."""
    saved = [path for name in (BEST, LAST) for path in runs.glob(f"*/{name}")]
    if not saved:
        raise UsageError(
            "there is no run under ./runs", "name a model with -m/--model, or train one: charlstm train corpus.txt"
        )
    return max(saved, key=lambda path: path.stat().st_mtime_ns).parent
