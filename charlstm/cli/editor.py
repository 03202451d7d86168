"""The editor on a terminal, by prompt_toolkit: keys, drawing, and work between keys."""

from __future__ import annotations

import asyncio
import errno
import select
import signal
from contextlib import suppress
from time import monotonic
from typing import Any

from prompt_toolkit.application import Application
from prompt_toolkit.data_structures import Point
from prompt_toolkit.input import Input
from prompt_toolkit.layout import HSplit, Layout, UIContent, UIControl, Window
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.styles import Style

from charlstm.cli.editor_keys import bind_keys
from charlstm.cli.status_line import format_status
from charlstm.errors import CharlstmError
from charlstm.writing.session import Session
from charlstm.writing.textfile import TextFile
from charlstm.writing.view import View

MIN_COLUMNS, MIN_ROWS = 20, 4

FIRST_WORK = 0.005
"""Seconds of work before what a key did is drawn, so that it is drawn with some ghost text."""

SLICE = 0.03
"""Seconds of work between two looks at what else is to be done. A key ends a slice at once."""

DRAW_EVERY = 0.25
"""Seconds between two drawings while the model reads."""

STYLE = Style.from_dict({"ghost": "dim", "marked": "underline", "status": "reverse"})
"""Attributes instead of colors: every terminal has them, and NO_COLOR does not concern them."""

TOO_SMALL = "too small"

ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def is_hangup(error: BaseException) -> bool:
    """Return whether an error means that the terminal is gone."""
    return isinstance(error, EOFError) or (isinstance(error, OSError) and error.errno == errno.EIO)


class TextControl(UIControl):
    """Draws the visible part of the text."""

    def __init__(self, editor: Editor) -> None:
        self.editor = editor

    def is_focusable(self) -> bool:
        return True

    def create_content(self, width: int, height: int | None) -> UIContent:
        if width < MIN_COLUMNS // 2 or not height:
            return UIContent(lambda _: [("", TOO_SMALL)], 1)
        screen = self.editor.view.draw(width - 1, height)
        if self.editor.session.has_work:  # what has become visible is to be read
            self.editor.wake.set()
        rows = [[(f"class:{style}" if style else "", text) for style, text in row] for row in screen.rows]
        rows[screen.cursor_row].append(("", " "))  # for the cursor behind the last character
        return UIContent(lambda k: list(rows[k]), len(rows), Point(screen.cursor_index, screen.cursor_row))


class StatusControl(UIControl):
    """Draws the line with the name of the file, messages and keys."""

    def __init__(self, editor: Editor) -> None:
        self.editor = editor

    def create_content(self, width: int, height: int | None) -> UIContent:
        editor = self.editor
        text = format_status(editor.session, editor.file, editor.message, width)
        return UIContent(lambda _: [("class:status", text)], 1)


class Editor:
    """Edits the text of a session until the user quits.

    file: where Ctrl-S saves; None for a text that is written to stdout at the end.
    """

    def __init__(self, session: Session, file: TextFile | None, keyboard: Input, screen: Output) -> None:
        self.session: Session = session
        self.file: TextFile | None = file
        self.view: View = View(session)
        self.message: str = ""
        """Shown below the text. It begins with the keys that it names: a narrow terminal shows its beginning only."""
        self.was_ended = False
        """Whether a signal or the end of the terminal ended the editor."""
        self.warned = ""
        """What the last key warned of: repeated, it is done."""
        self.app: Application[int] = Application(
            Layout(HSplit([Window(TextControl(self)), Window(StatusControl(self), height=1)])),
            key_bindings=bind_keys(self),
            style=STYLE,
            full_screen=True,
            color_depth=ColorDepth.MONOCHROME,
            input=keyboard,
            output=screen,
        )
        self.app.ttimeoutlen = 0.05  # seconds until Escape is a key of its own
        self.app.timeoutlen = 0.05
        self.wake = asyncio.Event()
        session.is_interrupted = self.has_input

    def run(self) -> int:
        """Edit until the user quits, and return the exit status."""
        return asyncio.run(self.run_app())

    async def run_app(self) -> int:
        loop = asyncio.get_running_loop()
        failures: list[BaseException] = []

        def fail(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            failures.append(context.get("exception") or RuntimeError(context["message"]))
            if not self.app.is_done:
                self.app.exit(result=1)

        loop.set_exception_handler(fail)
        for number in ENDING_SIGNALS:
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, self.end, 128 + number)
        try:
            status = await self.app.run_async(
                pre_run=self.start_work,
                set_exception_handler=False,
                handle_sigint=False,
            )
        except (EOFError, OSError) as error:
            failures.append(error)
        if not failures:
            return status
        if is_hangup(failures[0]):
            self.was_ended = True
            return 128 + getattr(signal, "SIGHUP", 1)
        raise failures[0]

    def start_work(self) -> None:
        self.app.create_background_task(self.work_between_keys())

    def end(self, status: int) -> None:
        """End the editor, because of a signal."""
        self.was_ended = True
        if not self.app.is_done:
            self.app.exit(result=status)

    async def work_between_keys(self) -> None:
        """Do the work of the session in slices, and draw what they bring."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            is_left, drawn_at, drawn_ghost = True, monotonic(), self.session.ghost
            while is_left:
                await asyncio.sleep(0.001)  # keys and drawing come first
                is_left = self.session.work(SLICE)
                if not is_left or self.session.ghost != drawn_ghost or monotonic() - drawn_at > DRAW_EVERY:
                    drawn_at, drawn_ghost = monotonic(), self.session.ghost
                    self.app.invalidate()

    def has_input(self) -> bool:
        """Whether a key waits to be read."""
        with suppress(OSError, ValueError):
            return bool(select.select([self.app.input.fileno()], [], [], 0)[0])
        return False

    def finish_key(self) -> None:
        """Compute the start of the ghost text for the next frame, and schedule the rest."""
        if not self.app.key_processor.input_queue:
            self.session.work(FIRST_WORK)
        self.wake.set()

    def save(self) -> None:
        """Save the text; if another program has changed the file, at the second request only."""
        if self.file is None:
            self.message = "^Q writes to stdout: no FILE was named"
        elif self.file.has_changed() and self.warned != "changed":
            self.message = f"^S overwrites what another program wrote to {self.file.path}"
            self.warned = "changed"
        else:
            self.save_to(self.file)

    def save_to(self, file: TextFile) -> None:
        try:
            file.save(self.session.buffer.text)
        except CharlstmError as error:
            self.message = str(error)
        else:
            self.session.buffer.mark_saved()
            self.message, self.warned = f"saved {file.path}", ""

    def quit(self, status: int) -> None:
        """Quit; with text that is not saved, at the second request only."""
        if self.file is not None and self.session.buffer.is_modified and self.warned != "unsaved":
            self.message, self.warned = "^S save  ^Q discard: the text is not saved", "unsaved"
        else:
            self.app.exit(result=status)
