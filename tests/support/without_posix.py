"""Run a command line on a stand-in for Windows: `python -m tests.support.without_posix train corpus.txt`.

charlstm finds neither the modules nor the functions and constants that only POSIX systems have, and a file that is open
or mapped can be neither replaced nor removed. The first attempt to replace a file fails, as if a virus scanner had it
open. Small texts are treated as large ones: those of pipes are kept in files, and ids are mapped. With `KILL_AT_SAVE=n`
in the environment, the process is killed before it saves its state the n-th time. Linux only.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import mmap
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

POSIX_MODULES = frozenset(
    ("curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "spwd", "syslog", "termios", "tty")
)

POSIX_NAMES = {
    os: """
        O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC chown chroot ctermid fchdir fchmod fchown fork forkpty getgid getgroups
        getloadavg getpgid getpgrp getpriority getuid geteuid getegid killpg lchown lockf mkfifo mknod nice openpty
        posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev sched_getaffinity sched_setaffinity
        sched_yield sendfile set_blocking setpgid setpriority setsid setuid statvfs fstatvfs sync sysconf uname wait
        wait3 wait4 WIFEXITED
    """,
    signal: """
        SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 alarm pause setitimer
    """,
    mmap: " ".join(name for name in dir(mmap) if name.startswith(("MADV_", "MAP_", "PROT_"))),
}
"""What the modules lack on Windows, as far as a command line could want it."""

SCANNED = (".safetensors", ".toml", ".npy")
"""Suffixes of files that are open in a virus scanner when they are replaced for the first time."""

LARGE = 1000
"""Bytes from which on a text counts as large."""

ILLEGAL = set('<>:"|?*\\')
"""Characters that names of files cannot have on Windows."""


def simulate() -> None:
    """Make this process behave as if it ran on Windows, as far as charlstm can notice."""
    saves, kill_at = iter(range(1, 10**9)), int(os.environ.get("KILL_AT_SAVE", "0"))

    def before_replacing(path: Path) -> None:
        if path.name == "state.safetensors" and next(saves) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    hide_posix()
    lock_open_files(before_replacing)
    replace_system_calls()
    treat_small_texts_as_large()


class WindowsModule(ModuleType):
    """A module of the standard library without the names that it lacks on Windows."""

    def __init__(self, module: ModuleType, hidden: str) -> None:
        super().__init__(module.__name__)
        self.module, self.hidden = module, frozenset(hidden.split())

    def __getattr__(self, name: str) -> Any:
        if name in self.hidden:
            raise AttributeError(f"module {self.module.__name__!r} has no attribute {name!r}")
        return getattr(self.module, name)


def hide_posix() -> None:
    """Hide the modules and names of POSIX systems from charlstm, but not from the libraries that it uses."""
    real = builtins.__import__
    replaced = {module.__name__: WindowsModule(module, hidden) for module, hidden in POSIX_NAMES.items()}

    def import_module(name: str, globals: Any = None, *rest: Any, **options: Any) -> Any:
        if str((globals or {}).get("__name__", "")).split(".")[0] != "charlstm":
            return real(name, globals, *rest, **options)
        if name in POSIX_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return replaced.get(name) or real(name, globals, *rest, **options)

    builtins.__import__ = import_module


def lock_open_files(before_replacing: Callable[[Path], None]) -> None:
    """Let files be replaced and removed only while they are neither open nor mapped in this process."""
    replace, unlink = os.replace, os.unlink
    scanned: set[Path] = set()

    def check_name(path: Any) -> None:
        if ILLEGAL & set(Path(path).name):
            raise OSError(errno.EINVAL, "Invalid argument", str(path))

    def guarded_replace(source: Any, target: Any, **options: Any) -> None:
        check_name(target)
        before_replacing(Path(target))
        if Path(target) not in scanned and Path(target).suffix in SCANNED:
            scanned.add(Path(target))
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        for path in (source, target):
            refuse_if_open(path)
        replace(source, target, **options)

    def guarded_unlink(path: Any, **options: Any) -> None:
        refuse_if_open(path)
        unlink(path, **options)

    os.replace = os.rename = guarded_replace  # type: ignore[assignment]
    os.unlink = os.remove = guarded_unlink
    temporary_file = tempfile.TemporaryFile

    def open_temporary(*arguments: Any, **options: Any) -> Any:
        """Open a temporary file. Windows removes it when it is closed, and it has no name here from the start."""
        os.unlink = unlink
        try:
            return temporary_file(*arguments, **options)
        finally:
            os.unlink = guarded_unlink

    tempfile.TemporaryFile = open_temporary


def refuse_if_open(path: Any) -> None:
    """Raise PermissionError if this process has the file open or mapped, by any of its names."""
    with suppress(FileNotFoundError):
        wanted = Path(path).stat()
        if any(os.path.samestat(wanted, other) for other in list_open_files()):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))


def list_open_files() -> Iterator[os.stat_result]:
    """Yield the identity of each file that this process has open or mapped."""
    maps = Path("/proc/self/maps").read_text("utf-8", "surrogateescape").splitlines()
    mapped = {Path(line.split(None, 5)[5]) for line in maps if "/" in line}
    for path in (*Path("/proc/self/fd").iterdir(), *mapped):
        with suppress(OSError):
            yield path.stat()


def replace_system_calls() -> None:
    """Replace the calls that behave in another way on Windows."""
    open_file = os.open

    def open_no_folder(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if Path(path).is_dir() and flags & os.O_TMPFILE != os.O_TMPFILE:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_file(path, flags, *arguments, **options)

    def flush(handle: int) -> None:
        """Do not wait for the disk, but reject what Windows rejects."""
        if (
            not stat.S_ISREG(os.fstat(handle).st_mode)
            or fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        ):
            raise OSError(errno.EBADF, "Bad file descriptor")

    def symlink(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.EPERM, "A required privilege is not held by the client")

    os.open, os.fsync, os.symlink = open_no_folder, flush, symlink  # type: ignore[assignment]
    shutil._use_fd_functions = False  # type: ignore[attr-defined]  # how rmtree works on Windows


def treat_small_texts_as_large() -> None:
    from charlstm.storage import files, spool

    files.LOCKS_OPEN_FILES = True
    spool.MAX_IN_MEMORY = LARGE


if __name__ == "__main__":
    simulate()
    from charlstm.__main__ import run

    sys.argv[0] = "charlstm"
    run()
