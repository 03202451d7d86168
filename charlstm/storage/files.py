"""Files written whole or not at all: temporary file, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from charlstm.errors import CharlstmError


def write_atomically(path: Path, *pieces: bytes | memoryview) -> None:
    """To a temporary file beside it, flushed to the disk, then renamed into place. Raises CharlstmError."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL_SUFFIX)
        try:
            with os.fdopen(handle, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o666 & ~read_umask())
            Path(temporary).replace(path)
            sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise write_error(path, error) from error


PARTIAL_SUFFIX = ".part"


def link_atomically(path: Path, other: Path) -> None:
    """Makes `other` a second name of this file as it is now, which costs nothing; or a copy, where the file system has
    no links. Raises CharlstmError."""
    temporary = other.with_name(f".{other.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        if other.exists() and other.samefile(path):
            return
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(path)
        except OSError:
            write_atomically(other, path.read_bytes())
        else:
            temporary.replace(other)
            sync_folder(other.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise write_error(other, error) from error


def remove_partial_files(folder: Path, names: Sequence[str]) -> None:
    """Removes what processes that were killed while they wrote these files have left behind."""
    for name in names:
        for part in folder.glob(f".{name}.*{PARTIAL_SUFFIX}"):
            part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes the rename itself last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_free_space(folder: Path, needed: int) -> None:
    """Raises CharlstmError where the disk has less room than this many bytes; where it does not say, it may have it."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return
    free = disk.f_bavail * disk.f_frsize
    if disk.f_blocks and free < needed:
        raise CharlstmError(
            f"cannot write {folder}: saving takes {needed / 1e6:.1f} MB and the disk has {free / 1e6:.1f} MB left",
            DISK_FULL_HINT,
        )


DISK_FULL_HINT = "make room and go on with --resume"


def write_error(path: Path, error: OSError) -> CharlstmError:
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    return CharlstmError(f"cannot write {path}: {error.strerror}", DISK_FULL_HINT if full else "")


def read_umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
