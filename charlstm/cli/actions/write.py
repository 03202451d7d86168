"""Edit a text with a model: open, run the editor, and see to it that no text is lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from prompt_toolkit.input import create_input
from prompt_toolkit.output import create_output

from charlstm.cli.commands.write import WriteRequest
from charlstm.cli.editor import MIN_COLUMNS, MIN_ROWS, Editor
from charlstm.cli.escapes import advise_on_escapes
from charlstm.console import Console, escape_controls
from charlstm.errors import CharlstmError, UsageError
from charlstm.storage.locate import name_model
from charlstm.storage.model import ModelFile
from charlstm.text_model import TextModel, draw_seed
from charlstm.wording import quantity
from charlstm.writing.buffer import TextBuffer
from charlstm.writing.continuation import Drawing
from charlstm.writing.encoding import TextEncoder
from charlstm.writing.infill import Infiller
from charlstm.writing.session import Session
from charlstm.writing.textfile import TextFile

SCRATCH = Path("text.txt")
"""Next to which a text without a file is kept if it could not be written to stdout."""


def edit_text(console: Console, path: Path, request: WriteRequest, *, show_model: bool) -> int:
    """Edit a text, and return the exit status: that of the signal, if one ended the editor.

    show_model: print the name of the model on stderr, because the user did not name it.
    """
    check_size()
    file = TextFile(request.file) if request.file else None
    text = file.read() if file else ""
    seed = draw_seed() if request.seed is None else request.seed
    session, weights = open_session(console, ModelFile.load(path), TextBuffer(text), request, seed)
    if request.seed is None or show_model:
        about = [escape_controls(name_model(path)), weights] + [f"--seed {seed}"] * (request.seed is None)
        console.note(", ".join(about), "dim")
    screen = create_output(sys.stdout if console.stdout.isatty() else sys.stderr)
    editor = Editor(session, file, create_input(), screen)
    if unsaved := (file or TextFile(SCRATCH)).find_unsaved():
        editor.message = describe_unsaved(unsaved)
    elif unknown := count_unknown(session):
        editor.message = f"{quantity(unknown, 'unknown character')} (underlined)"
    try:
        status = editor.run()
        if file is None and not editor.was_ended:
            write_text(console, session.buffer.text)
    except BaseException:
        keep_unsaved(console, session, file)
        raise
    if editor.was_ended:
        keep_unsaved(console, session, file)
    return status


def describe_unsaved(files: Sequence[Path]) -> str:
    """Return the message about files of unsaved text, which names the newest."""
    name, others = files[-1].name, len(files) - 1
    return f"{name} and {quantity(others, 'other file')} have unsaved text" if others else f"{name} has unsaved text"


def write_text(console: Console, text: str) -> None:
    """Write a text to stdout, and flush it: what fails then would fail after the text is gone. Raises as `write`."""
    console.write(text.encode() + b"\n" * bool(text))
    console.flush()


def count_unknown(session: Session) -> int:
    """Return how many characters of the text the model does not know, newlines aside."""
    return int(session.encoder.find_unknown("".join(session.buffer.lines)).sum())


def check_size() -> None:
    """Raise UsageError if the terminal is too small to edit on. One that reports no size passes."""
    size = os.get_terminal_size(0)
    if 0 < size.columns < MIN_COLUMNS or 0 < size.lines < MIN_ROWS:
        raise UsageError(
            f"the terminal has {size.columns} columns and {size.lines} rows, and write needs {MIN_COLUMNS} "
            f"and {MIN_ROWS}"
        )


def open_session(
    console: Console, model: ModelFile, buffer: TextBuffer, request: WriteRequest, seed: int
) -> tuple[Session, str]:
    """Return the session, and the kind of weights with which ghost text is drawn."""
    for stop in request.stops:
        advise_on_escapes(console, "--stop", stop, model.vocabulary)
    encoder = TextEncoder(model.vocabulary, model.config.data, request.unknown)
    text_model = TextModel(model)
    infiller = Infiller(model, seed) if model.config.model.bidirectional else None
    weights = "fp32" if infiller else text_model.choose_weights(request.sampling)
    network = infiller.forward if infiller else text_model.build_network(quantized=weights == "int8")
    drawing = Drawing(network, model.vocabulary, request.sampling, seed, request.stops)
    return Session(buffer, drawing, encoder, infiller), weights


def keep_unsaved(console: Console, session: Session, file: TextFile | None) -> None:
    """Write text that is not saved next to its file, and print where it is."""
    if not session.buffer.is_modified:
        return
    try:
        kept = (file or TextFile(SCRATCH)).keep_unsaved(session.buffer.text)
    except CharlstmError as error:
        console.error(str(error))
    else:
        console.error(f"the text was not saved; it is in {kept}")
