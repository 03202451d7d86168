"""A lock on a folder. It belongs to the kernel and ends with the process that has it, however that process ends."""

from __future__ import annotations

import os
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import TextIO


def open_locked(path: Path) -> TextIO:
    """Open and lock a file, and write the id of this process to it; closing it releases the lock.

    Raises BlockingIOError if another process has the lock. On a file system without locks, the file is not locked.
    """
    while True:
        file = path.open("a+", encoding="ascii")
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        except OSError:
            return file
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            file.truncate(0)
            print(os.getpid(), file=file, flush=True)
            return file
        file.close()  # a process that has just ended removed it after it was opened here
