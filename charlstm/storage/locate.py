"""The names of a run's files, and which model file a command reads. Does not import NumPy, so that --help is fast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from charlstm.errors import UsageError

BEST, LAST, STATE, GOOD = (f"{name}.safetensors" for name in ("best", "last", "state", "good"))
CONFIG, METRICS, SPOOL, LOCK_FILE = "config.toml", "metrics.jsonl", "stdin.txt", "lock"

RUN_FILES = (BEST, LAST, STATE, GOOD, METRICS, SPOOL, CONFIG)
"""The files of a run, except its lock and the models of `--keep`."""

SEARCH_JOURNAL = "journal.jsonl"
"""The file that a search of `tune` has and a run does not."""

KEPT_PATTERN = f"step-{'[0-9]' * 6}*.safetensors"
"""The models of `--keep`."""

MODEL_HINT = "-m/--model takes a run folder or a .safetensors file"


def parse_path(path: str | Path, where: str) -> Path:
    """Return a path. Raises UsageError, which names its origin, if it is empty: that would be the current folder."""
    if path == "":
        raise UsageError(f"{where} must not be empty", "is a shell variable in it unset?")
    return Path(path)


def find_model(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the model file at `path`, else at $CHARLSTM_MODEL, else of the newest run.

    A path may be a model file or a run folder. Raises UsageError if there is no model, or if the variable is empty.
    """
    if path is None and "CHARLSTM_MODEL" in environ:
        path = parse_path(environ["CHARLSTM_MODEL"], "CHARLSTM_MODEL")
    if path is None:
        return find_model_in(find_newest_run())
    if not path.exists():
        raise UsageError(f"there is no model at {path}", MODEL_HINT)
    return find_model_in(path) if path.is_dir() else path


def find_model_in(folder: Path) -> Path:
    """Return the best model of a run or, before its first validation, the last one. Raises UsageError for neither."""
    for name in (BEST, LAST):
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"the folder {folder} holds no model: neither {BEST} nor {LAST}", MODEL_HINT)


def find_newest_run() -> Path:
    """Return the run under `./runs` that was saved last; before any search of `tune`.

    Raises UsageError if there is none.
    """
    saved = [path for name in (BEST, LAST) for path in Path("runs").glob(f"*/{name}")]
    if not saved:
        raise UsageError(
            "there is no run under ./runs", "name a model with -m/--model, or train one: charlstm train corpus.txt"
        )
    runs = [path for path in saved if not (path.parent / SEARCH_JOURNAL).exists()]
    return max(runs or saved, key=lambda path: path.stat().st_mtime_ns).parent
