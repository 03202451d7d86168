"""A lock file. The operating system releases the lock when the process that has it ends, however it ends."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from filelock import lock_descriptor

from charlstm.storage.files import retry_while_in_use

POLL_SECONDS = 0.01
"""Seconds between two attempts to get a lock that another process has."""

LOCK_ATTEMPTS = 5
"""Attempts after which another process has the lock: for a moment, one may that only looks whether it is taken."""


class ProcessLock:
    """A lock that one process has at a time. The file exists only while it is locked."""

    def __init__(self, path: Path) -> None:
        self.path, self.handle = path, -1

    def acquire(self, *, wait: bool = False) -> None:
        """Get the lock and write the id of this process to the file. On a file system without locks, do only that.

        wait: wait for the process that has the lock, instead of raising BlockingIOError.
        """
        while not self.open_and_lock(wait):
            os.close(self.handle)  # a process that has just ended removed the file after it was opened here
        try:
            os.write(self.handle, f"pid {os.getpid():<20}\n".encode())  # always as long: it replaces an older one
        except OSError:
            self.release()
            raise

    def open_and_lock(self, wait: bool) -> bool:
        """Open and lock the file. Return whether the path still names it."""
        self.handle = retry_while_in_use(lambda: os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666))
        try:
            locked = self.wait_for_lock() if wait else self.try_to_lock()
        except OSError:
            return True
        if not locked:
            os.close(self.handle)
            raise BlockingIOError(self.path)
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.handle))
        except FileNotFoundError:
            return False

    def wait_for_lock(self) -> bool:
        return lock_descriptor(self.handle, blocking=True, poll_interval=POLL_SECONDS)

    def try_to_lock(self) -> bool:
        """Lock the open file. Return whether that succeeded. Raises OSError on a file system without locks."""
        for attempt in range(LOCK_ATTEMPTS):
            time.sleep(POLL_SECONDS * bool(attempt))
            if lock_descriptor(self.handle, blocking=False):
                return True
        return False

    def is_held(self) -> bool:
        """Return whether a process has the lock. On a file system without locks: whether the file exists."""
        try:
            self.handle = os.open(self.path, os.O_RDWR)
        except OSError:
            return self.path.exists()  # the lock of another user
        try:
            return not self.try_to_lock()
        except OSError:
            return True
        finally:
            os.close(self.handle)

    def release(self) -> None:
        """Remove the file and release the lock.

        The file is removed first: after the release, it may be the lock of another process. Windows does not remove
        an open file; there it is removed after the release, unless another process has opened it.
        """
        removed = self.try_to_remove()
        os.close(self.handle)
        if not removed:
            self.try_to_remove()

    def try_to_remove(self) -> bool:
        """Remove the file. Return whether that succeeded."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def read_owner(self) -> str:
        """Return which process has the lock, for an error message."""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(1)  # on Windows, the first byte is locked and cannot be read
            if match := re.match(rb"id (\d+)", file.read(32)):
                return f"process {int(match[1])}"
        return "another process"
