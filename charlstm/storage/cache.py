"""The cache folder: the ids of large corpora, by what they were made from, so that a changed file has other ones.

A store is there whole or not at all. Nothing in it is needed: what is missing is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import CharlstmError
from charlstm.storage.files import write_error

IdStore = NDArray[np.unsignedinteger[Any]]

SUFFIX, PARTIAL_STORE = ".npy", ".part"
CACHE_FORMAT = 1
"""To be raised when the ids of a text would be others."""


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """$CHARLSTM_CACHE, else $XDG_CACHE_HOME/charlstm, else ~/.cache/charlstm."""
    if own := environ.get("CHARLSTM_CACHE"):
        return Path(own)
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "charlstm"


def store_name(fingerprint: str, vocabulary: Mapping[str, Any], document: str) -> str:
    """The name of the ids of a text: other text, other symbols or other documents, another name."""
    about = json.dumps([CACHE_FORMAT, fingerprint, vocabulary, document], sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()[:32]


def load_ids(name: str, length: int, dtype: np.dtype[Any]) -> IdStore | None:
    """The ids of this name, [length], mapped into memory; None where there are none, or not these."""
    try:
        store: IdStore = np.load(cache_folder() / (name + SUFFIX), mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return store if store.shape == (length,) and store.dtype == dtype else None


def save_ids(name: str, chunks: Iterable[IdStore], length: int, dtype: np.dtype[Any]) -> IdStore:
    """Keeps ids under this name and gives them back, mapped into memory.

    Raises CharlstmError where there is no room or no permission, or where the chunks are not so many ids.
    """
    with open_store(name + SUFFIX) as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
        )
        written = 0
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, dtype).data)
            written += len(chunk)
        if written != length:
            raise CharlstmError("the corpus changed while it was read", "wait until nobody writes to it")
    store = load_ids(name, length, dtype)
    assert store is not None
    return store


def gather_ids(chunks: Iterable[IdStore], dtype: np.dtype[Any], most: int) -> IdStore:
    """Ids side by side: in memory or, beyond so many bytes, in a file without a name, which goes with the process.

    Raises CharlstmError where there is no room for it.
    """
    kept: list[IdStore] = []
    size = 0
    try:
        with ExitStack() as stack:
            file: Any = None
            for chunk in chunks:
                kept.append(chunk.astype(dtype))
                size += kept[-1].nbytes
                if size > most:
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
    """A file that is gone once nobody has it open or mapped."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=cache_folder())


@contextmanager
def open_store(name: str) -> Iterator[BinaryIO]:
    """A file of the cache folder: in place once it is whole, and gone if it never is. Raises CharlstmError."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="store-", suffix=PARTIAL_STORE, delete=False) as file:
            try:
                yield file  # type: ignore[misc]
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(folder / name)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(file.name).unlink()
                raise
    except OSError as error:
        raise cache_error(folder, error) from error


def cache_error(folder: Path, error: OSError) -> CharlstmError:
    said = write_error(folder, error)
    return CharlstmError(said.message, "it keeps the ids of large corpora: CHARLSTM_CACHE names another folder")


def list_cache() -> dict[str, int]:
    """The files of the cache by name, with their bytes; unfinished ones are another process's, or a dead one's."""
    folder = cache_folder()
    if not folder.is_dir():
        return {}
    return {
        path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.suffix in (SUFFIX, PARTIAL_STORE)
    }


def clear_cache() -> int:
    """Removes all of them; a store in use stays whole for who has it mapped. Gives the bytes. Raises CharlstmError."""
    found = list_cache()
    for name in found:
        try:
            (cache_folder() / name).unlink(missing_ok=True)
        except OSError as error:
            raise CharlstmError(f"cannot remove {cache_folder() / name}: {error.strerror}") from error
    return sum(found.values())
