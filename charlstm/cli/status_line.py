"""The line below the text of the editor: where the cursor is, what the model does, and the keys."""

from __future__ import annotations

from charlstm.console import escape_controls
from charlstm.vocabulary import name_character
from charlstm.writing.graphemes import count_cells, draw_clusters
from charlstm.writing.session import Session
from charlstm.writing.textfile import TextFile

NEW_TEXT = "new text"
SAVE_KEYS = "^S save  ^Q quit"
GHOST_KEYS = f"Tab word  → character  ↓ other  {SAVE_KEYS}", f"Tab word  ↓ other  {SAVE_KEYS}"
"""The keys that are useful where there is ghost text: all of them, or if they do not fit, some."""


def format_status(session: Session, file: TextFile | None, message: str, width: int) -> str:
    """Return the line, `width` cells long: as much of it as there is room for."""
    name = draw_clusters(escape_controls(file.path.name)) if file else NEW_TEXT
    left = f" {name}{'*' if session.buffer.is_modified else ''}  {session.buffer.cursor.line + 1:,}"
    left += f":{session.buffer.cursor.column + 1:,}"
    middle = draw_clusters(message) or draw_model(session)
    keys = [*(GHOST_KEYS if session.ghost else ()), SAVE_KEYS]
    for parts in (*((left, middle, each) for each in keys), (left, middle), (middle or left,)):
        line = "  ".join(part for part in parts if part)
        if count_cells(line) < width:
            break
    return fit(line, width)


def draw_model(session: Session) -> str:
    """Return what the model does, or does not know."""
    if unknown := session.find_unknown_before():
        return f"the model does not know {name_character(unknown)}"
    if session.is_reading:
        return f"reading {session.reader.scored / max(session.place, 1):.0%}"
    if suggestions := session.suggestions:
        if suggestions.is_seeking:
            return "looking for another candidate"
        if suggestions.chosen:
            return f"candidate {suggestions.chosen + 1}"
        if suggestions.is_empty and not session.has_work:  # which may find what fits before other text
            return "the model suggests nothing here"
    return ""


def fit(line: str, width: int) -> str:
    """Cut a line, or fill it with spaces, to this many cells."""
    while count_cells(line) > width:
        line = line[:-1]
    return line + " " * (width - count_cells(line))
