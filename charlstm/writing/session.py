"""A text, the model that reads it, and the ghost text at the cursor: what each key does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic

import numpy as np

from charlstm.vocabulary import Ids
from charlstm.writing.buffer import Position, TextBuffer
from charlstm.writing.continuation import Drawing, take_character, take_word
from charlstm.writing.encoding import TextEncoder
from charlstm.writing.graphemes import mark_whole_clusters
from charlstm.writing.infill import MAX_FILLING, Infiller, KeypressError, ignore_keys
from charlstm.writing.reader import Reader
from charlstm.writing.suggestions import Suggestions
from charlstm.writing.window import ReadWindow

SURPRISING_NATS = float(-np.log(0.01))
"""A character is surprising if its probability, given the text before it, is below 1 in 100."""


class Session:
    """An editing session. Methods that change the text or the cursor return at once; `work` does what they caused.

    infiller: for a bidirectional model, what fills the middle of a text.
    """

    def __init__(self, buffer: TextBuffer, drawing: Drawing, encoder: TextEncoder, infiller: Infiller | None) -> None:
        self.buffer, self.drawing, self.encoder, self.infiller = buffer, drawing, encoder, infiller
        length = min(drawing.config.length, MAX_FILLING)
        self.short_drawing = replace(drawing, config=replace(drawing.config, length=length))  # within a text
        bos = drawing.vocabulary.bos
        self.reader = Reader(drawing.network, bos)
        self.backward_reader = Reader(infiller.backward, bos) if infiller else None
        self.window = ReadWindow()
        self.visible_end = buffer.cursor
        self.suggestions: Suggestions | None = None
        self.is_summoned = self.is_dismissed = False
        self.is_interrupted: Callable[[], bool] = ignore_keys
        self.jobs: Iterator[None] = iter(())
        self.has_work = False
        self.refresh()

    @property
    def ghost(self) -> str:
        """The text that is shown at the cursor and can be accepted."""
        return self.suggestions.text if self.suggestions else ""

    @property
    def is_reading(self) -> bool:
        """Whether the model has not read the text up to the cursor yet."""
        return self.reader.find_context(self.place) is None

    @property
    def has_text_after(self) -> bool:
        """Whether anything but white space follows the cursor."""
        line, column = self.buffer.cursor
        lines = self.buffer.lines
        return bool(lines[line][column:].strip()) or any(text.strip() for text in lines[line + 1 :])

    @property
    def suggests(self) -> bool:
        """Whether there is to be ghost text: at the end of the text, or after an edit or on demand elsewhere.

        In the middle of a text only a bidirectional model knows what fits.
        """
        if self.is_dismissed:
            return False
        if self.buffer.cursor == self.buffer.end:
            return True
        return self.is_summoned and (self.infiller is not None or not self.has_text_after)

    @property
    def is_looking(self) -> bool:
        """Whether ghost text is still looked for."""
        is_empty = self.suggestions is not None and self.suggestions.is_empty
        return self.suggests and self.has_work and not self.ghost and not is_empty

    def refresh(self) -> None:
        """Take notice of the text and the cursor as they are now."""
        self.window.follow(self.buffer, self.visible_end)
        before = self.encoder.encode(self.window.before)
        self.place = len(before)
        self.reader.replace_text(np.concatenate([before, self.encoder.encode(self.window.ahead)]))
        if not self.suggests:
            self.suggestions = None
        self.start_jobs()

    def start_jobs(self) -> None:
        self.jobs, self.has_work = self.make_jobs(), True

    def make_jobs(self) -> Iterator[None]:
        """Do what there is to do, the most urgent first. Yields after each step of the network."""
        yield from self.reader.read_to(self.place)
        if self.suggests:
            context = self.reader.find_context(self.place)
            assert context is not None
            is_inside = self.has_text_after
            self.suggestions = self.suggestions or Suggestions(
                self.short_drawing if is_inside else self.drawing, context
            )
            yield from self.suggestions.work(context)
            if self.infiller and is_inside:
                yield from self.fill(self.infiller, self.suggestions)
            else:
                yield from self.suggestions.look_ahead(context)
        yield from self.reader.read_to(len(self.reader.ids), ahead=True)

    def fill(self, infiller: Infiller, suggestions: Suggestions) -> Iterator[None]:
        """Offer what fits between the texts on both sides of the cursor."""
        reader, left = self.backward_reader, self.reader.find_context(self.place)
        assert reader is not None and left is not None
        before, after = self.reader.ids[: self.place], self.encoder.encode(self.window.after)
        reader.replace_text(after[::-1])
        yield from reader.read_to(len(after))
        right = reader.find_context(len(after))
        bos: Ids = np.array([self.drawing.vocabulary.bos])
        while right is not None and not suggestions.is_touched:
            yield
            try:
                fixed = np.concatenate([bos, before]), np.concatenate([after, bos])
                suggestions.offer(infiller.fill(*fixed, left, right, self.is_interrupted))
                return
            except KeypressError:
                continue

    def work(self, seconds: float) -> bool:
        """Work for about this long, or until a key is pressed. Returns whether anything is left to do."""
        end = monotonic() + seconds
        self.has_work = any(monotonic() >= end or self.is_interrupted() for _ in self.jobs)
        return self.has_work

    def handle_edit(self, *, keeps_ghost: bool = False) -> None:
        self.is_summoned, self.is_dismissed = True, False
        if not keeps_ghost:
            self.suggestions = None
        self.refresh()

    def type_text(self, text: str, *, typed: bool = True) -> None:
        """Insert a text at the cursor. Ghost text that begins with it stays, without it."""
        self.buffer.insert(text, typed=typed)
        self.handle_edit(keeps_ghost=self.suggestions is not None and self.suggestions.consume(text))

    def remove(self, start: Position, end: Position) -> None:
        """Remove the text between two places."""
        if start != end:
            self.buffer.remove(start, end)
            self.handle_edit()

    def remove_before(self) -> None:
        """Remove the character before the cursor."""
        self.remove(self.buffer.find_previous(self.buffer.cursor), self.buffer.cursor)

    def remove_after(self) -> None:
        """Remove the character after the cursor."""
        self.remove(self.buffer.cursor, self.buffer.find_next(self.buffer.cursor))

    def remove_word(self) -> None:
        """Remove the word before the cursor."""
        self.remove(self.buffer.find_previous_word(self.buffer.cursor), self.buffer.cursor)

    def undo(self) -> bool:
        """Take back the last edit. Returns whether there was one."""
        return self.handle_undo(self.buffer.undo())

    def redo(self) -> bool:
        """Repeat the edit that was taken back last. Returns whether there was one."""
        return self.handle_undo(self.buffer.redo())

    def handle_undo(self, has_changed: bool) -> bool:
        if has_changed:
            self.handle_edit()
        return has_changed

    def move_to(self, place: Position) -> None:
        """Move the cursor. Ghost text is then shown at the end of the text only."""
        self.buffer.cursor = self.buffer.clip(place)
        self.buffer.joins = False
        self.is_summoned = self.is_dismissed = False
        self.suggestions = None
        self.refresh()

    def show_until(self, place: Position) -> None:
        """Take notice of where the visible text ends."""
        if place != self.visible_end:
            self.visible_end = place
            self.refresh()

    def summon(self) -> None:
        """Show ghost text where the cursor is. If there is none, it is looked for from the beginning."""
        self.is_summoned, self.is_dismissed = True, False
        if not self.ghost:
            self.suggestions = None
        self.refresh()

    def dismiss(self) -> None:
        """Hide the ghost text until the next edit or movement."""
        self.is_dismissed = True
        self.refresh()

    def accept_character(self) -> bool:
        """Insert the first character of the ghost text. Returns whether there was one."""
        return self.accept(take_character(self.ghost))

    def accept_word(self) -> bool:
        """Insert the first word of the ghost text. Returns whether there was one."""
        while self.suggestions and take_word(self.ghost) == self.ghost and self.draw_more(self.suggestions):
            pass
        return self.accept(take_word(self.ghost))

    @staticmethod
    def draw_more(suggestions: Suggestions) -> bool:
        chosen = suggestions.candidates[suggestions.chosen]
        if chosen.is_complete:
            return False
        chosen.draw()
        return True

    def accept(self, text: str) -> bool:
        if text:
            self.type_text(text, typed=False)
        return bool(text)

    def choose_next(self) -> bool:
        """Choose the next candidate for the ghost text; the search for it is left to `work`.

        Returns whether there is ghost text or may be some.
        """
        if self.suggestions is None or self.suggestions.is_empty:
            return False
        self.suggestions.choose_next()
        self.start_jobs()
        return True

    def choose_previous(self) -> bool:
        """Choose the candidate before. Returns whether there is one."""
        if self.suggestions is None or not self.suggestions.choose_previous():
            return False
        self.start_jobs()
        return True

    def find_marked(self, line: int, first: int, last: int) -> list[tuple[int, int]]:
        """Return where the characters in these columns of a line are surprising or unknown.

        Each span of them has the first column and the one after the last, counted from `first`.
        """
        marked = self.encoder.find_unknown(self.buffer.lines[line][first:last])
        begin, surprises = self.window.find_surprises(line, self.reader.surprises, self.encoder)
        surprising = surprises[max(first - begin, 0) : max(last - begin, 0)] > SURPRISING_NATS
        at = max(begin - first, 0)
        found = marked[at : at + len(surprising)]
        found |= surprising[: len(found)]
        mark_whole_clusters(marked, self.buffer.lines[line][first:last])
        edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(np.int8), [0]]))).tolist()
        return list(zip(edges[::2], edges[1::2], strict=True))

    def find_unknown_before(self) -> str:
        """Return the character before the cursor if the model does not know it, else nothing."""
        line, column = self.buffer.cursor
        character = self.buffer.lines[line][column - 1 : column]
        return character if character and self.encoder.find_unknown(character).any() else ""
