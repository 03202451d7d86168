"""The keys of the editor."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from charlstm.writing.buffer import Position

if TYPE_CHECKING:
    from charlstm.cli.editor import Editor

Action = Callable[["Editor"], object]


def move(target: Callable[[Editor], Position]) -> Action:
    """Return the action that moves the cursor to a place."""

    def act(editor: Editor) -> None:
        editor.session.move_to(target(editor))

    return act


def press_right(editor: Editor) -> None:
    if not editor.session.accept_character():
        editor.session.move_to(editor.session.buffer.find_next(editor.session.buffer.cursor))


def press_tab(editor: Editor) -> None:
    if editor.session.accept_word():
        return
    if editor.session.suggests and editor.session.is_reading:
        editor.message = "the model is still reading"
    elif editor.session.is_looking:
        editor.message = "the model is still looking for a candidate"
    else:
        editor.session.type_text("\t")


def press_down(editor: Editor) -> None:
    if not editor.session.choose_next():
        editor.view.move_rows(1)


def press_up(editor: Editor) -> None:
    if not editor.session.choose_previous():
        editor.view.move_rows(-1)


def press_summon(editor: Editor) -> None:
    editor.session.summon()
    if not editor.session.suggests:
        editor.message = "only a bidirectional model suggests text here"


KEYS: dict[str, Action] = {
    "right": press_right,
    "tab": press_tab,
    "down": press_down,
    "up": press_up,
    "left": move(lambda editor: editor.session.buffer.find_previous(editor.session.buffer.cursor)),
    "c-right": move(lambda editor: editor.session.buffer.find_next_word(editor.session.buffer.cursor)),
    "c-left": move(lambda editor: editor.session.buffer.find_previous_word(editor.session.buffer.cursor)),
    "home": move(lambda editor: editor.view.find_row_edges()[0]),
    "end": move(lambda editor: editor.view.find_row_edges()[1]),
    "c-home": move(lambda editor: Position(0, 0)),
    "c-end": move(lambda editor: editor.session.buffer.end),
    "pageup": lambda editor: editor.view.move_rows(-max(editor.view.height - 1, 1)),
    "pagedown": lambda editor: editor.view.move_rows(max(editor.view.height - 1, 1)),
    "enter": lambda editor: editor.session.type_text("\n"),
    "c-j": lambda editor: editor.session.type_text("\n"),
    "backspace": lambda editor: editor.session.remove_before(),
    "delete": lambda editor: editor.session.remove_after(),
    "c-w": lambda editor: editor.session.remove_word(),
    "c-z": lambda editor: editor.session.undo(),
    "c-y": lambda editor: editor.session.redo(),
    "c-@": press_summon,
    "escape": lambda editor: editor.session.dismiss(),
    "c-s": lambda editor: editor.save(),
    "c-q": lambda editor: editor.quit(0),
    "c-c": lambda editor: editor.quit(130),
    "c-l": lambda editor: editor.app.renderer.clear(),
}
"""What each key does. Ctrl-Space is c-@."""

VERTICAL = {"up", "down", "pageup", "pagedown"}
"""Keys that keep the cursor to its column."""

CONFIRMING = {"c-s", "c-q", "c-c"}
"""Keys that do, pressed again, what they warned of."""


def bind_keys(editor: Editor) -> KeyBindings:
    """Return the bindings of all keys."""
    bindings = KeyBindings()

    def handle(name: str, act: Action) -> None:
        @bindings.add(name)
        def _(event: KeyPressEvent) -> None:
            prepare_key(editor, name)
            act(editor)
            if not editor.app.is_done:
                editor.finish_key()

    for name, action in KEYS.items():
        handle(name, action)

    @bindings.add("<any>")
    def _(event: KeyPressEvent) -> None:
        if text := clean_text(event.data):  # of the other keys, it is an escape sequence
            prepare_key(editor, "")
            editor.session.type_text(text)
            editor.finish_key()

    @bindings.add("<bracketed-paste>")
    def _(event: KeyPressEvent) -> None:
        prepare_key(editor, "")
        lines = event.data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        editor.session.type_text("\n".join(map(clean_text, lines)), typed=False)
        editor.finish_key()

    return bindings


def clean_text(text: str) -> str:
    """Return a text without what a key or paste has that is not text: control characters except tabs, broken UTF-8."""
    if text.startswith("\x1b"):
        return ""
    return "".join(c for c in text if c == "\t" or unicodedata.category(c) not in ("Cc", "Cs"))


def prepare_key(editor: Editor, name: str) -> None:
    """Forget what only the last key was about."""
    editor.message = ""
    if name not in CONFIRMING:
        editor.warned = ""
    if name not in VERTICAL:
        editor.view.goal = None
