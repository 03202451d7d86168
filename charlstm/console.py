"""The outside world of a command: results go to stdout, everything else to stderr."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from array import array
from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO, StringIO
from select import select
from time import monotonic
from typing import TYPE_CHECKING, BinaryIO, Never, TextIO

from charlstm.errors import CharlstmError, OutputClosedError

if TYPE_CHECKING:
    from tqdm import tqdm

FLUSH_EVERY = 0.1
"""Seconds between flushes of stdout to a pipe. A terminal is flushed at every write."""

LINE_EVERY, LINE_SHARE = 5.0, 0.01
"""Seconds between lines of progress if stderr is not a terminal, and share of the time so far, if that is more: a task
of a day writes hundreds of lines instead of thousands."""

REFRESH_EVERY = 0.1
"""Seconds between redrawings of a progress bar."""

NARROWEST = 40
"""Columns of output, even if the terminal has fewer."""

MAX_DIGITS = 6
"""Digits of $COLUMNS from which it is not a width."""

INPUT_WAIT = 1.0
"""Seconds to wait for a program that may be about to write to stdin."""

UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What can control a terminal or misrepresent a text on it: C0 and C1 controls, overrides of the writing direction, and
surrogates, which stand for bytes that are not UTF-8."""

STYLES = {"dim": "2", "bold": "1", "warning": "33", "error": "31"}
"""SGR codes of ANSI terminals."""


class ClosedOutput(BytesIO):
    """A stdout that was closed before the start: nothing can be written to it."""

    def write(self, _: object, /) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class Console:
    """Standard streams and environment of a command, as one object that a test can replace."""

    def __init__(self, stdin: BinaryIO | None, stdout: BinaryIO, stderr: TextIO, environ: Mapping[str, str]) -> None:
        self.stdin, self.stdout, self.stderr, self.environ = stdin, stdout, stderr, environ
        self.started_at = monotonic()  # of the command: a time limit counts from here
        self.arguments: list[str] = []  # of the command line
        self.color, self.quiet, self.debug = "auto", False, False
        self.rank = 0  # among the processes that run this command together: only the first one writes
        self.bar: ProgressBar | None = None
        self.flushed_at = 0.0
        self.decoder = getincrementaldecoder("utf-8")("surrogateescape")  # of what a terminal shows

    @classmethod
    def from_process(cls) -> Console:
        """Return the console of this process. A stdin that was closed before the start counts as empty."""
        stdout = sys.stdout.buffer if sys.stdout else ClosedOutput()
        return cls(sys.stdin.buffer if sys.stdin else None, stdout, sys.stderr or StringIO(), os.environ)

    def take_rank(self, rank: int) -> None:
        """Take a place among processes that run this command together. Those after the first write only errors."""
        self.rank, self.quiet = rank, self.quiet or rank > 0

    def write(self, data: bytes, *, escaped: bool = False) -> None:
        """Write to stdout. On a terminal, control characters except newlines and tabs are shown escaped.

        escaped: the data comes without untrusted control characters; those in it are for the terminal, as colors are.

        Raises OutputClosedError if the reader of stdout closed it, CharlstmError for another failure.
        """
        if self.rank:
            return
        with self.translate_errors():
            terminal = self.stdout.isatty()
            self.stdout.write(self.escape(data, escaped=escaped) if terminal else data)
            if terminal or monotonic() - self.flushed_at > FLUSH_EVERY:
                self.stdout.flush()
                self.flushed_at = monotonic()

    def flush(self) -> None:
        """Flush stdout. Raises as `write` does."""
        with self.translate_errors():
            if self.stdout.isatty():
                self.stdout.write(self.escape(b"", escaped=True))
            self.stdout.flush()

    def escape(self, data: bytes, *, escaped: bool) -> bytes:
        """Return what a terminal shows for these bytes. Part of a character at their end waits for the next ones."""
        text = self.decoder.decode(b"" if escaped else data, final=escaped)
        return escape_text(text).encode() + (data if escaped else b"")

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, BrokenPipeError) or (error.errno == errno.EINVAL and is_fifo(self.stdout)):
                raise OutputClosedError from error  # Windows reports a closed pipe as an invalid argument
            raise CharlstmError(f"cannot write to stdout: {error.strerror}") from error

    def table(self, rows: Mapping[str, str]) -> None:
        """Write names and values to stdout: a framed table on a terminal, plain columns elsewhere."""
        if not self.stdout.isatty():
            width = max(map(len, rows))
            self.write("".join(f"{name:{width}}  {value}\n" for name, value in rows.items()).encode())
            return
        from rich.console import Console as RichConsole  # deferred: slow to import, and only terminals need it
        from rich.table import Table
        from rich.text import Text

        table = Table(show_header=False)
        for row in rows.items():
            table.add_row(*(Text(escape_text(cell)) for cell in row))
        rendered = StringIO()
        RichConsole(
            file=rendered,
            force_terminal=True,
            no_color=not self.uses_color(self.stdout),
            width=self.width(self.stdout),
            height=len(rows),  # a table has its own; given both, rich does not ask the terminal and the environment
        ).print(table)
        self.write(rendered.getvalue().encode(), escaped=True)

    def note(self, text: str, style: str = "") -> None:
        """Print a line to stderr, unless --quiet."""
        if not self.quiet:
            self.print_line(text, style)

    def warn(self, text: str) -> None:
        self.note(f"warning: {escape_controls(text)}", "warning")

    def error(self, text: str) -> None:
        """Print why the command failed to stderr, even with --quiet."""
        rank = f"rank {self.rank}: " if self.rank else ""
        self.print_line(f"charlstm: {rank}{escape_controls(text)}", "error")

    def print_line(self, text: str, style: str = "") -> None:
        """Print text to stderr, with all control characters except newlines and tabs escaped, and a newline."""
        if self.bar:
            self.bar.clear()
        with suppress(OSError):  # a closed stderr must not end the training
            self.stderr.write(self.styled(escape_text(text), style) + "\n")
            self.stderr.flush()

    def styled(self, text: str, style: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style and self.uses_color(self.stderr) else text

    def uses_color(self, stream: TextIO | BinaryIO) -> bool:
        """Return whether output to this stream is colored: --color, else NO_COLOR and TERM of a terminal."""
        if self.color != "auto":
            return self.color == "always"
        return stream.isatty() and not self.environ.get("NO_COLOR") and self.environ.get("TERM") != "dumb"

    @property
    def can_animate(self) -> bool:
        """Whether stderr can show a progress bar."""
        return self.stderr.isatty() and self.environ.get("TERM") != "dumb" and not self.quiet

    def width(self, stream: TextIO | BinaryIO) -> int:
        """Return the columns for output to this stream: $COLUMNS, else those of its terminal, else 80.

        A width of 0, which some terminals report, or one that is not a number is unknown. The result is at least
        `NARROWEST`.
        """
        given = self.environ.get("COLUMNS", "")
        columns = int(given) if given.isdecimal() and len(given) < MAX_DIGITS else 0
        if not columns:
            with suppress(OSError, ValueError):
                columns = os.get_terminal_size(stream.fileno()).columns
        return max(columns or 80, NARROWEST)

    @property
    def piped(self) -> bool:
        """Whether stdin is a pipe, a file or a socket: input that the user means to be read."""
        if self.stdin is None:
            return False
        try:
            mode = os.fstat(self.stdin.fileno()).st_mode
        except (OSError, ValueError):  # a test's replacement has no file descriptor
            return not self.stdin.isatty()
        return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)

    def has_input(self) -> bool:
        """Whether something was piped in that could still be read: not an empty pipe, and not one in which nothing
        appears within `INPUT_WAIT`, such as a program has that was started by another one. Nothing is read.
        """
        if self.stdin is None or not self.piped:
            return False
        try:
            file = self.stdin.fileno()
        except (OSError, ValueError):
            return bool(self.stdin.read())
        if stat.S_ISREG(os.fstat(file).st_mode):
            return os.fstat(file).st_size > os.lseek(file, 0, os.SEEK_CUR)
        return count_waiting_bytes(file) > 0

    def progress(self) -> ProgressBar:
        """Return a progress bar on a terminal, or a line every few seconds elsewhere."""
        self.bar = ProgressBar(self)
        return self.bar


def count_waiting_bytes(pipe: int) -> int:
    """Return how many bytes can be read from a pipe or socket, after `INPUT_WAIT` at the latest; 0 if unknown."""
    count = array("i", [0])
    with suppress(ImportError, OSError):
        # Deferred: not available on Windows.
        from fcntl import ioctl  # type: ignore[attr-defined, unused-ignore]
        from termios import FIONREAD  # type: ignore[attr-defined, unused-ignore]

        select([pipe], [], [], INPUT_WAIT)
        ioctl(pipe, FIONREAD, count)
    return count[0]


class ProgressBar:
    """Progress of a task, as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.tqdm: tqdm[Never] | None = None
        self.began_at = self.shown_at = monotonic()

    def __enter__(self) -> ProgressBar:
        if self.console.can_animate:
            from tqdm import tqdm  # deferred: slow to import, and only terminals need it

            self.tqdm = tqdm(
                total=1.0,
                file=self.console.stderr,
                leave=False,
                bar_format="{percentage:3.0f}% {bar:20} {desc}",
                dynamic_ncols=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.tqdm is not None:
            self.tqdm.close()
        self.console.bar = None

    def update(self, done: float, text: str) -> None:
        """Show the share of the task that is done, 0 to 1, and a text."""
        if self.tqdm is not None:
            self.tqdm.n = min(done, 1.0)
            self.tqdm.set_description_str(text, refresh=False)
            self.tqdm.update(0)
            if monotonic() - self.shown_at > REFRESH_EVERY:
                self.shown_at = monotonic()
                self.tqdm.refresh()
        elif monotonic() - self.shown_at >= max(LINE_EVERY, LINE_SHARE * (monotonic() - self.began_at)):
            self.shown_at = monotonic()
            self.console.note(f"{done:4.0%}  {text}")

    def clear(self) -> None:
        if self.tqdm is not None:
            self.console.stderr.write("\r\x1b[K")


def is_fifo(stream: BinaryIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # a test's replacement has no file descriptor
        return False


def escape_controls(text: str) -> str:
    """Escape every character of a quotation that is not printable, so that it is one line with nothing hidden."""
    return "".join(c if c.isprintable() else escape_character(c) for c in text)


def escape_text(text: str) -> str:
    """Escape the characters of a text that are unsafe on a terminal, except newlines and tabs."""
    return UNSAFE.sub(lambda match: match[0] if match[0] in "\n\t" else escape_character(match[0]), text)


def escape_character(character: str) -> str:
    """Return a character as in a Python string literal; a byte that is not UTF-8 as in a literal of bytes."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()
