"""What a bug report needs to know about the installation and the machine (`charlstm --version --debug`)."""

from __future__ import annotations

import getpass
import locale
import os
import platform
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import charlstm
from charlstm.console import Console
from charlstm.runtime import count_cores, find_time_limit, retain_freed_memory
from charlstm.wording import quantity

PACKAGES = (
    "torch", "numpy", "numba", "llvmlite", "onnx", "optuna", "typer", "rich", "tqdm", "tomli-w",
    "filelock", "backports.zstd",
)  # fmt: skip
"""Distributions that charlstm uses, required or not."""

VARIABLES = re.compile(
    r"(CHARLSTM|OMP|GOMP|KMP|MKL|OPENBLAS|MALLOC|NUMBA|TORCH|PYTORCH|CUDA|LC|PYTHON)_\w+"
    r"|LANG|LANGUAGE|TERM|COLORTERM|NO_COLOR|COLUMNS|LD_PRELOAD|PYTHON(UTF8|IOENCODING|PATH|HASHSEED)|XDG_CACHE_HOME"
)
"""Environment variables that change what charlstm does."""

Probe = Callable[[], object]


def write_details(console: Console) -> None:
    """Write lines of a key and a value, without the name or the home folder of the user.

    What cannot be found out is reported, and not an error: the installation may be broken.
    """
    details = find_details(console)
    retain_freed_memory()
    rows = {key: attempt(value) for key, value in details.items()}
    text = "".join(f"{key} {value}\n" for key, value in rows.items())
    console.write(hide_user(text).encode("utf-8", "surrogateescape"))


def attempt(value: Probe) -> str:
    """Return a value as text, or why it could not be found out."""
    try:
        return " ".join(str(value()).split())
    except Exception as error:
        return f"unknown ({type(error).__name__}: {' '.join(str(error).split())})"


def find_details(console: Console) -> dict[str, Probe]:
    """Return how to find out each value, by its key."""
    return {
        "charlstm": lambda: charlstm.__version__,
        "python": lambda: f"{platform.python_version()} ({platform.python_implementation()}, {platform.machine()})",
        **{name: partial(find_version, name) for name in PACKAGES},
        "platform": platform.platform,
        "processor": find_processor,
        "features": find_features,
        "cores": describe_cores,
        "memory": find_memory,
        "threads": find_threads,
        "blas": find_blas,
        "devices": find_devices,
        "cache": describe_cache,
        "encoding": describe_encoding,
        "stdin": partial(describe_stream, console.stdin),
        "stdout": partial(describe_stream, console.stdout),
        "stderr": partial(describe_stream, console.stderr),
        **{name: partial(str, value) for name, value in find_variables(console.environ)},
    }


def find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def find_processor() -> str:
    """Return the model of the processor."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def find_features() -> str:
    from charlstm.model.hardware import list_features  # torch: if it is broken, the other lines are needed most

    return list_features()


def find_threads() -> str:
    from charlstm.model.hardware import describe_threads

    return describe_threads()


def find_devices() -> str:
    from charlstm.model.hardware import list_devices

    return ", ".join(list_devices())


def describe_cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = find_time_limit()
    return f"{os.cpu_count()}, usable {usable}, cgroup limit {limit or 'none'}, used {count_cores()}"


def find_memory() -> str:
    if not hasattr(os, "sysconf"):  # Windows
        return "unknown"
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB"


def find_blas() -> str:
    """Return the library with which NumPy multiplies matrices."""
    import numpy as np

    blas: Any = np.show_config("dicts")["Build Dependencies"]["blas"]
    return f"{blas.get('name')} {blas.get('version')} {blas.get('openblas configuration', '')}"


def describe_cache() -> str:
    from charlstm.storage.cache import cache_folder, list_cache

    files = list_cache()
    return f"{cache_folder()} ({quantity(len(files), 'file')}, {sum(files.values()):,} bytes)"


def describe_encoding() -> str:
    return (
        f"locale {locale.setlocale(locale.LC_CTYPE)}, preferred {locale.getpreferredencoding(False)}, "
        f"file names {sys.getfilesystemencoding()}, stdout {getattr(sys.stdout, 'encoding', None)}"
    )


def describe_stream(stream: BinaryIO | TextIO | None) -> str:
    if stream is None:
        return "closed"
    if stream.isatty():
        size = os.get_terminal_size(stream.fileno())
        return f"terminal of {size.columns} x {size.lines}"
    mode = os.fstat(stream.fileno()).st_mode
    kinds = {"pipe": stat.S_ISFIFO, "file": stat.S_ISREG, "socket": stat.S_ISSOCK, "device": stat.S_ISCHR}
    return next((kind for kind, matches in kinds.items() if matches(mode)), "unknown")


def find_variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(environ):
        if VARIABLES.fullmatch(name):
            yield name, environ[name]


def hide_user(text: str) -> str:
    """Return a text with ~ instead of the home folder, and instead of the user's name in other paths."""
    with suppress(RuntimeError):  # a user without a home folder
        home = Path.home()
        for folder in {str(home), str(home.resolve())} - {home.anchor}:
            text = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", "~", text)
    with suppress(OSError, KeyError, ImportError):  # a user without a name
        text = re.sub(rf"(?<=[/\\]){re.escape(getpass.getuser())}(?![\w.-])", "~", text)
    return text
