"""The file that is edited: read as UTF-8, and saved with the line endings, mark and permissions that it had."""

from __future__ import annotations

import codecs
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from charlstm.decoding import CONVERT_HINT, MARK, TextDecoder
from charlstm.errors import CharlstmError, UsageError
from charlstm.storage.files import open_atomically, remove_file, write_error

MAX_FILE_BYTES = 100_000_000
"""Bytes of the largest file that is opened. The text takes a few times as much memory."""

UNSAVED_SUFFIX = ".unsaved"

Stamp = tuple[int, int] | None
"""The time of modification and the size of a file, from which it is seen to have changed; None if there is none."""


class TextFile:
    """A text file, which need not exist yet.

    The newline at its end is not part of the text; a new file gets one, as every text file has. Line endings are CR LF
    if all of them were.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mark, self.newline, self.final_newline = "", "\n", True
        self.is_empty = True  # or new: without a text it then stays empty
        self.mode: int | None = None
        self.stamp: Stamp = None

    def read(self) -> str:
        """Return the text, empty for a file that does not exist.

        Raises UsageError if it cannot be read or created there, CharlstmError if it is not text in UTF-8.
        """
        try:
            self.stamp = read_stamp(self.path)
            if self.stamp is None:
                if not self.path.parent.is_dir():
                    raise UsageError(f"cannot create {self.path}: there is no folder {self.path.parent}")
                return ""
            check_regular(self.path)
            self.mode = stat.S_IMODE(self.path.stat().st_mode)
            data = self.path.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {self.path}: {error.strerror}") from error
        return self.decode(data)

    def decode(self, data: bytes) -> str:
        """Return the text of the file's bytes. Raises CharlstmError if they are not UTF-8."""
        decoder = TextDecoder(str(self.path))
        decoder.decode(data, final=True)
        if codecs.lookup(decoder.encoding).name != "utf-8":
            raise CharlstmError(f"{self.path} is {decoder.encoding.upper()}, and write edits UTF-8", CONVERT_HINT)
        text = data.decode("utf-8")
        self.mark = MARK if text.startswith(MARK) else ""
        text = text.removeprefix(MARK)
        if text.count("\r\n") == text.count("\n") > 0:
            self.newline, text = "\r\n", text.replace("\r\n", "\n")
        self.final_newline, self.is_empty = text.endswith("\n") or not text, not text
        return text.removesuffix("\n")

    def encode(self, text: str) -> bytes:
        """Return the bytes with which a text is saved."""
        whole = text + "\n" if self.final_newline and (text or not self.is_empty) else text
        return (self.mark + whole.replace("\n", self.newline)).encode()

    def has_changed(self) -> bool:
        """Return whether another program has written or removed the file since it was read or saved."""
        with suppress(OSError):
            return read_stamp(self.path) != self.stamp
        return False

    def save(self, text: str) -> None:
        """Replace the file durably. Raises CharlstmError, with the old file still there, if that fails."""
        path = self.path.resolve()  # a symbolic link stays one
        try:
            with open_atomically(path, self.mode) as file:
                file.write(self.encode(text))
            self.stamp = read_stamp(path)
        except OSError as error:
            raise write_error(self.path, error) from error

    def find_unsaved(self) -> list[Path]:
        """Return the files in which `keep_unsaved` has left text, the oldest first."""
        name = re.compile(re.escape(self.path.name + UNSAVED_SUFFIX) + r"(\.[0-9]+)?")
        with suppress(OSError):
            found = [path for path in self.path.parent.iterdir() if name.fullmatch(path.name)]
            return sorted(found, key=lambda path: path.lstat().st_mtime_ns)
        return []

    def keep_unsaved(self, text: str) -> Path:
        """Write a text next to the file, where nothing is yet, and return where. Raises CharlstmError if that fails."""
        path = self.path.with_name(self.path.name + UNSAVED_SUFFIX)
        try:
            path = reserve_free_path(path)
            try:
                with open_atomically(path, self.mode) as file:
                    file.write(self.encode(text))
            except BaseException:
                remove_file(path)
                raise
        except OSError as error:
            raise write_error(path, error) from error
        return path


def reserve_free_path(path: Path) -> Path:
    """Create an empty file at a path, or with a number behind its name if that exists, and return where.

    The name is taken at once, because a terminal that closes ends all editors on it. Neither a file nor what a symbolic
    link points to is replaced. Raises OSError.
    """
    free, number = path, 0
    while True:
        try:
            free.touch(exist_ok=False)
        except FileExistsError:
            number += 1
            free = path.with_name(f"{path.name}.{number}")
        else:
            return free


def read_stamp(path: Path) -> Stamp:
    """Return the stamp of a file, None if there is none. Raises OSError if it cannot be looked at."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def check_regular(path: Path) -> None:
    """Raise UsageError for a path that is not a file, or for a file that is too large."""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{path} is a folder", "name a file: charlstm write FILE")
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is not a regular file")
    if found.st_size > MAX_FILE_BYTES:
        raise UsageError(
            f"{path} has {found.st_size:,} bytes, and write opens at most {MAX_FILE_BYTES:,}",
            "write a part of it: tail -c 1000000",
        )
    if not os.access(path, os.R_OK):
        raise UsageError(f"cannot read {path}: permission denied")
