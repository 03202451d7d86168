"""The names of a run's files, and which model file a command reads. Does not import NumPy, so that --help is fast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from charlstm.errors import NoRunError, UsageError

BEST, LAST, STATE, GOOD = (f"{name}.safetensors" for name in ("best", "last", "state", "good"))
CONFIG, METRICS, SPOOL, LOCK_FILE = "config.toml", "metrics.jsonl", "stdin.txt", "lock"

RUN_FILES = (BEST, LAST, STATE, GOOD, METRICS, SPOOL, CONFIG)
"""The files of a run, except its lock and the models of `--keep`."""

SEARCH_JOURNAL = "journal.jsonl"
"""The file that a search of `tune` has and a run does not."""

KEPT_PATTERN = f"step-{'[0-9]' * 6}*.safetensors"
"""The models of `--keep`."""

STDIN = "-"
"""The name of stdin and stdout where a file is expected."""

BUILTIN = "builtin"
"""The name of the model that ships with charlstm. A path of this name takes precedence."""

BUILTIN_MODEL = Path(__file__).with_name("builtin.safetensors")
"""Its file, which `make model` writes."""

MODEL_HINT = f"-m/--model takes a run folder, a .safetensors file or {BUILTIN}, the model that ships with charlstm"


def parse_path(path: str | Path, where: str) -> Path:
    """Return a path. Raises UsageError, which names its origin, if it is empty: that would be the current folder."""
    if path == "":
        raise UsageError(f"{where} must not be empty", "is a shell variable in it unset?")
    return Path(path)


def check_exists(source: str) -> None:
    """Raise UsageError if the text that is named on a command line does not exist."""
    if source != STDIN and not Path(source).exists():
        raise UsageError(f"corpus not found: {source}")


def find_model(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the model file at `path`, else at $CHARLSTM_MODEL, else of the newest run.

    A path may be a model file, a run folder or the name of the built-in model. Raises NoRunError without a path and
    runs, UsageError if there is no model at the path, or if the variable is empty.
    """
    if path is None and "CHARLSTM_MODEL" in environ:
        path = parse_path(environ["CHARLSTM_MODEL"], "CHARLSTM_MODEL")
    if path is None:
        return find_model_in(find_newest_run())
    if path.exists():
        return find_model_in(path) if path.is_dir() else path
    if path == Path(BUILTIN):
        return BUILTIN_MODEL
    run = locate_run(path)
    raise UsageError(f"there is no model at {path}", MODEL_HINT if run == path else f"did you mean {run}?")


def locate_run(path: Path) -> Path:
    """Return a path or, if it does not exist, the run under ./runs that has its name, as `charlstm runs` prints it."""
    inside = Path("runs") / path
    return inside if not path.exists() and ".." not in path.parts and inside.exists() else path


def name_model(path: Path) -> str:
    """Return the name under which a command takes the model file at `path`: the path, or that of the built-in model."""
    return BUILTIN if path == BUILTIN_MODEL else str(path)


def find_model_in(folder: Path) -> Path:
    """Return the best model of a run or, before its first validation, the last one. Raises UsageError for neither."""
    for name in (BEST, LAST):
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"the folder {folder} holds no model: neither {BEST} nor {LAST}", MODEL_HINT)


def name_run(path: Path) -> str:
    """Return a short name for the model at a path: that of its run folder, or that of the file."""
    return path.resolve().parent.name if path.name in (BEST, LAST) else path.stem


def find_newest_run(alternative: str = f"name a model with -m/--model ({BUILTIN} ships with charlstm)") -> Path:
    """Return the run under `./runs` that was saved last; before any search of `tune`.

    Raises NoRunError if there is none. Its hint begins with `alternative`, which says how to name a model or a run.
    """
    saved = [path for name in (BEST, LAST) for path in Path("runs").glob(f"*/{name}")]
    if not saved:
        raise NoRunError(
            "there is no run under ./runs",
            f"{alternative}, or train one: charlstm train corpus.txt",
        )
    runs = [path for path in saved if not (path.parent / SEARCH_JOURNAL).exists()]
    return max(runs or saved, key=lambda path: path.stat().st_mtime_ns).parent
