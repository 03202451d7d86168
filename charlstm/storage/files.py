"""Durable writing: a file is replaced as a whole, by way of a temporary file, fsync and rename.

Whoever reads at the same time, or after a crash, finds the old file or the new one, never a part of either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from charlstm.errors import CharlstmError, UsageError

MAX_START = 100
"""Bytes of a file by which its kind is known."""

HTML_START = rb"\s*<!doctype html"
"""How a web page begins, as a regular expression that ignores case."""

PARTIAL_SUFFIX = ".part"
"""End of the names of temporary files, which are hidden: `.best.safetensors.x1y2.part`."""

COPY_BYTES = 1 << 20

LOCKS_OPEN_FILES = sys.platform == "win32"
"""Whether the system replaces and removes a file only while no process has it open or mapped."""

MAX_RETRIES, RETRY_SECONDS = 20, 0.05
"""How often, and how far apart, to try again to replace or remove a file that another process has open."""

Returned = TypeVar("Returned")

DISK_FULL_HINT = "free disk space"
FILE_SIZE_HINT = "raise the file-size limit (ulimit -f)"


def read_default_mode() -> int:
    """Return the permissions of a new file under the umask of the process, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


DEFAULT_MODE = read_default_mode()
"""Permissions of a new file. Read once, at import: meanwhile, a file that another thread creates gets no umask."""


def write_atomically(path: Path, *pieces: bytes | memoryview) -> None:
    """Replace the file with these bytes. Raises CharlstmError, with the old file still there, if that fails."""
    try:
        with open_atomically(path) as file:
            for piece in pieces:
                file.write(piece)
    except OSError as error:
        raise write_error(path, error) from error


@contextmanager
def open_atomically(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file next to `path` that replaces it at the end of the block.

    If the block raises, the temporary file is removed and `path` stays as it was. `mode` is the file's permissions,
    by default those of any new file. Raises OSError, also for a folder, a device or a pipe, which would be replaced;
    the caller turns it into an error that names the file.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "it is not a regular file")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(DEFAULT_MODE if mode is None else mode)
        replace_file(Path(temporary), path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def move_atomically(source: Path, path: Path) -> None:
    """Move a file to `path`: rename it or, where `path` is on another file system, copy it. Raises CharlstmError."""
    try:
        with source.open("r+b") as file:  # Windows flushes only files that are open for writing
            os.fsync(file.fileno())
        source.chmod(DEFAULT_MODE)
        try:
            replace_file(source, path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with source.open("rb") as file, open_atomically(path) as copy:
                shutil.copyfileobj(file, copy, COPY_BYTES)
            remove_file(source)
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error


def link_atomically(source: Path, path: Path) -> None:
    """Make `path` a hard link to the file that `source` is now, or a copy where the file system has no links.

    A link takes no time and no space. `source` may be replaced later; `path` keeps the content. Raises CharlstmError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        if path.exists() and path.samefile(source):
            return
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(source)
        except OSError:
            write_atomically(path, source.read_bytes())
        else:
            replace_file(temporary, path)
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def replace_file(source: Path, path: Path) -> None:
    """Rename a file and replace the one at `path`. Raises OSError."""
    retry_while_in_use(lambda: source.replace(path))


def remove_file(path: Path) -> None:
    """Remove a file if it exists. Raises OSError."""
    retry_while_in_use(lambda: path.unlink(missing_ok=True))


def retry_while_in_use(action: Callable[[], Returned]) -> Returned:
    """Return the result of `action`. Where open files are locked, try for a second until it raises no PermissionError.

    On Windows, a virus scanner or an indexer may have opened a file that was written a moment ago.
    """
    for _ in range(MAX_RETRIES if LOCKS_OPEN_FILES else 0):
        with contextlib.suppress(PermissionError):
            return action()
        time.sleep(RETRY_SECONDS)
    return action()


def remove_partial_files(folder: Path, names: Sequence[str]) -> None:
    """Remove the temporary files that killed processes left behind while they wrote files of these names."""
    for name in names:
        for part in folder.glob(f".{name}.*{PARTIAL_SUFFIX}"):
            remove_file(part)


def sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a rename in it survives a power cut.

    Windows cannot open a folder, and some network file systems cannot flush one: nothing can be done there.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def check_folder(path: Path, option: str) -> None:
    """Raise UsageError if the path of an option is a file, CharlstmError if no file can be written to such a folder.

    A folder that does not exist yet is made and removed again, with those above it.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; {option} names a folder")
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # another process has just written to it
                folder.rmdir()


def check_replaceable(path: Path, option: str, start: bytes, kind: str) -> None:
    """Raise UsageError if writing the file of an option would replace one of another kind.

    start: how files of this kind begin, as a regular expression. An empty file is replaced, too.
    """
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            data = file.read(MAX_START)
    except OSError as error:
        raise write_error(path, error) from error
    if data and not re.match(start, data, re.DOTALL | re.IGNORECASE):
        raise UsageError(f"{option} {path} would replace a file that is not {kind}", "name another file")


def check_free_space(folder: Path, needed: int) -> None:
    """Raise CharlstmError if the disk has less than `needed` bytes free; pass if the file system does not report it."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return
    if disk.total and disk.free < needed:
        raise CharlstmError(
            f"cannot write {folder}: a save needs {needed / 1e6:.1f} MB and the disk has {disk.free / 1e6:.1f} MB free",
            DISK_FULL_HINT,
        )


def write_error(path: Path, error: OSError) -> CharlstmError:
    """Return the error that names the file that could not be written, the reason and, if space ran out, what to do."""
    hints = {errno.ENOSPC: DISK_FULL_HINT, errno.EDQUOT: DISK_FULL_HINT, errno.EFBIG: FILE_SIZE_HINT}
    return CharlstmError(f"cannot write {path}: {error.strerror}", hints.get(error.errno or 0, ""))
