"""The cache folder: the ids of large corpora, and what numba has compiled. Everything in it can be made again.

The ids of a corpus are a .npy file whose name depends on the text and the vocabulary: a changed text has another file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import CharlstmError
from charlstm.storage.files import PARTIAL_SUFFIX, open_atomically, remove_file, write_error
from charlstm.storage.locate import parse_path
from charlstm.storage.lock import ProcessLock

IdStore = NDArray[np.unsignedinteger[Any]]

CACHE_FORMAT = 1
"""Part of every name: increase it when the same text and vocabulary lead to other ids."""

SUFFIX = ".npy"
LOCK_SUFFIX = ".lock"
COMPILED = "numba"
PRIVATE = 0o600
"""Permissions of the ids: a text may be readable for its owner only."""


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return $CHARLSTM_CACHE, else $XDG_CACHE_HOME/charlstm, else ~/.cache/charlstm.

    Raises UsageError if CHARLSTM_CACHE is empty. An empty XDG_CACHE_HOME counts as unset, as its specification says.
    """
    if (own := environ.get("CHARLSTM_CACHE")) is not None:
        return parse_path(own, "CHARLSTM_CACHE")
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "charlstm"


def store_name(fingerprint: str, vocabulary: Mapping[str, Any], document: str) -> str:
    """Return the name of the ids of a text, which depends on the text, the vocabulary and where documents end."""
    about = json.dumps([CACHE_FORMAT, fingerprint, vocabulary, document], sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()[:32]


def load_ids(name: str, length: int, dtype: np.dtype[Any]) -> IdStore | None:
    """Map stored ids [length] into memory. Return None if there are none of this name, length and type."""
    try:
        store: IdStore = np.load(cache_folder() / (name + SUFFIX), mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return store if store.shape == (length,) and store.dtype == dtype else None


@contextlib.contextmanager
def lock_name(name: str) -> Iterator[None]:
    """Wait until no other process stores ids under this name, and keep others from it within the context.

    Raises CharlstmError if the folder cannot be written to.
    """
    folder = cache_folder()
    lock = ProcessLock(folder / (name + LOCK_SUFFIX))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(wait=True)
    except OSError as error:
        raise cache_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def save_ids(name: str, chunks: Iterable[IdStore], length: int, dtype: np.dtype[Any]) -> IdStore:
    """Store ids [length] under this name and map them into memory.

    Raises CharlstmError if the file cannot be written, or if the chunks do not add up to `length` ids.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open_atomically(folder / (name + SUFFIX), PRIVATE) as file:
            write_array(file, chunks, length, dtype)
    except OSError as error:
        # Another process may have stored the same ids meanwhile, and Windows does not replace a file that it has open.
        if (store := load_ids(name, length, dtype)) is None:
            raise cache_error(folder, error) from error
        return store
    store = load_ids(name, length, dtype)
    assert store is not None
    return store


def write_array(file: BinaryIO, chunks: Iterable[IdStore], length: int, dtype: np.dtype[Any]) -> None:
    """Write a .npy file chunk by chunk."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)
    written = 0
    for chunk in chunks:
        file.write(np.ascontiguousarray(chunk, dtype).data)
        written += len(chunk)
    if written != length:
        raise CharlstmError(
            f"the corpus changed while it was read: {length:,} characters at first, {written:,} the second time",
            "wait until no program writes to it, or train on a copy",
        )


def gather_ids(chunks: Iterable[IdStore], dtype: np.dtype[Any], max_bytes: int) -> IdStore:
    """Concatenate ids: in memory or, beyond `max_bytes`, in an unnamed file that is removed with the process.

    Raises CharlstmError if the file cannot be written.
    """
    kept: list[IdStore] = []
    size = 0
    try:
        with ExitStack() as stack:
            file: Any = None
            for chunk in chunks:
                kept.append(chunk.astype(dtype))
                size += kept[-1].nbytes
                if size > max_bytes:
                    file = file or stack.enter_context(open_unnamed())
                    file.writelines(ids.data for ids in kept)
                    kept.clear()
            if file is None:
                return np.concatenate([np.empty(0, dtype), *kept])
            file.flush()
            return np.memmap(file, dtype, "r")
    except OSError as error:
        raise cache_error(cache_folder(), error) from error


def open_unnamed() -> Any:
    """Open a file that exists only while it is open or mapped."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=cache_folder())


def cache_error(folder: Path, error: OSError) -> CharlstmError:
    return CharlstmError(
        write_error(folder, error).message,
        "this folder holds the ids of large corpora; set CHARLSTM_CACHE to use another one",
    )


def compiled_folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder for what numba compiles, made if necessary; None if it cannot be written to.

    It is in the cache folder unless NUMBA_CACHE_DIR names another one.
    """
    folder = Path(environ.get("NUMBA_CACHE_DIR") or cache_folder(environ) / COMPILED)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else None


@cache
def identify_modules(folder: Path) -> str:
    """Return a name for the present state of the modules in a folder and in those below it."""
    files = [(str(path.relative_to(folder)), path.stat()) for path in sorted(folder.rglob("*.py"))]
    states = [(name, state.st_size, state.st_mtime_ns) for name, state in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def list_cache() -> dict[str, int]:
    """Return the size in bytes of every file of the cache, by its path in the folder.

    Temporary files (`.part`) belong to a running process or were left behind by one that was killed.
    """
    folder = cache_folder()
    if not folder.is_dir():
        return {}
    stores = [path for path in folder.iterdir() if path.suffix in (SUFFIX, PARTIAL_SUFFIX, LOCK_SUFFIX)]
    compiled = [path for path in (folder / COMPILED).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted([*stores, *compiled])}


def clear_cache() -> int:
    """Remove every file of the cache and return their size in bytes. Raises CharlstmError if one cannot be removed.

    A process that has a file mapped keeps its content; on Windows such a file cannot be removed, and the others are.
    """
    found, failures = list_cache(), []
    for name in found:
        try:
            remove_file(cache_folder() / name)
        except OSError as error:
            failures.append(error)
    for folder in sorted(filter(Path.is_dir, (cache_folder() / COMPILED).rglob("*")), reverse=True):
        with contextlib.suppress(OSError):  # another process has just compiled something
            folder.rmdir()
    if failures:
        hint = "a charlstm that still runs may use it" if isinstance(failures[0], PermissionError) else ""
        raise CharlstmError(f"cannot remove {failures[0].filename}: {failures[0].strerror}", hint)
    return sum(found.values())
