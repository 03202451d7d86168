"""Durable writing: a file is replaced as a whole, by way of a temporary file, fsync and rename.

Whoever reads at the same time, or after a crash, finds the old file or the new one, never a part of either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from charlstm.errors import CharlstmError

PARTIAL_SUFFIX = ".part"
"""End of the names of temporary files, which are hidden: `.best.safetensors.x1y2.part`."""

COPY_BYTES = 1 << 20

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
    by default those of any new file. Raises OSError; the caller turns it into an error that names the file.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(DEFAULT_MODE if mode is None else mode)
        Path(temporary).replace(path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def move_atomically(source: Path, path: Path) -> None:
    """Move a file to `path`: rename it or, where `path` is on another file system, copy it. Raises CharlstmError."""
    try:
        with source.open("rb") as file:
            os.fsync(file.fileno())
        source.chmod(DEFAULT_MODE)
        try:
            source.replace(path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with source.open("rb") as file, open_atomically(path) as copy:
                shutil.copyfileobj(file, copy, COPY_BYTES)
            source.unlink()
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
            temporary.replace(path)
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def remove_partial_files(folder: Path, names: Sequence[str]) -> None:
    """Remove the temporary files that killed processes left behind while they wrote files of these names."""
    for name in names:
        for part in folder.glob(f".{name}.*{PARTIAL_SUFFIX}"):
            part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_free_space(folder: Path, needed: int) -> None:
    """Raise CharlstmError if the disk has less than `needed` bytes free; pass if the file system does not report it."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return
    free = disk.f_bavail * disk.f_frsize
    if disk.f_blocks and free < needed:
        raise CharlstmError(
            f"cannot write {folder}: a save needs {needed / 1e6:.1f} MB and the disk has {free / 1e6:.1f} MB free",
            DISK_FULL_HINT,
        )


def write_error(path: Path, error: OSError) -> CharlstmError:
    """Return the error that names the file that could not be written, the reason and, if space ran out, what to do."""
    hints = {errno.ENOSPC: DISK_FULL_HINT, errno.EDQUOT: DISK_FULL_HINT, errno.EFBIG: FILE_SIZE_HINT}
    return CharlstmError(f"cannot write {path}: {error.strerror}", hints.get(error.errno or 0, ""))
