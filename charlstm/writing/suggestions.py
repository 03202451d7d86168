"""The candidates for the ghost text at a place, of which one is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from charlstm.infilling.context import Context
from charlstm.writing.continuation import Continuation, Drawing, take_word

MAX_ATTEMPTS = 32
"""Continuations that are drawn to find one that begins with another word."""


class GhostText(Protocol):
    """A text that can be accepted at the cursor, from its beginning."""

    text: str

    @property
    def is_complete(self) -> bool: ...

    def draw(self) -> None: ...


class FillingText:
    """What an infilling proposes: a text that is complete from the start."""

    is_complete = True

    def __init__(self, text: str) -> None:
        self.text = text

    def draw(self) -> None:
        """Do nothing: the text is complete."""


class Suggestions:
    """The candidates at one place, of which no two begin with the same word."""

    def __init__(self, drawing: Drawing, context: Context) -> None:
        self.drawing = drawing
        self.candidates: list[GhostText] = [Continuation(drawing, context, 0)]
        self.chosen = 0
        self.next_index = 1
        self.is_seeking = False
        """Whether another candidate was asked for and is not found yet."""
        self.is_exhausted = drawing.config.temperature == 0
        self.is_touched = False
        """Whether the user has chosen or accepted something."""

    @property
    def text(self) -> str:
        """The chosen candidate."""
        return self.candidates[self.chosen].text

    @property
    def is_empty(self) -> bool:
        """Whether there is no text and none will be found."""
        return self.is_exhausted and not any(map(is_usable, self.candidates))

    def choose_next(self) -> None:
        """Choose the next candidate; if it is not found yet, when `work` has found it."""
        self.is_touched = True
        if self.chosen + 1 < len(self.candidates):
            self.chosen += 1
        else:
            self.is_seeking = not self.is_exhausted

    def choose_previous(self) -> bool:
        """Choose the candidate before. Returns whether there is one."""
        self.is_seeking = False
        if not self.chosen:
            return False
        self.chosen -= 1
        return True

    def work(self, context: Context) -> Iterator[None]:
        """Find another candidate, if one was asked for, and draw the rest of the chosen one.

        context: that of the place where the candidates are now.

        Yields after each draw.
        """
        if self.is_seeking:
            yield from self.find_another(context)
            self.is_seeking = False
            self.chosen = len(self.candidates) - 1
        yield from self.draw_chosen()
        if not self.text:
            yield from self.replace_empty(context)

    def draw_chosen(self) -> Iterator[None]:
        """Draw the rest of the chosen candidate. Yields after each draw."""
        chosen = self.candidates[self.chosen]
        while not chosen.is_complete:
            chosen.draw()
            yield

    def replace_empty(self, context: Context) -> Iterator[None]:
        """Leave out candidates that ended before their first character, if there is or can be found another one."""
        if not any(map(is_usable, self.candidates)):
            yield from self.find_another(context)
        if usable := list(filter(is_usable, self.candidates)):
            self.candidates, self.chosen = usable, min(self.chosen, len(usable) - 1)
            yield from self.draw_chosen()

    def look_ahead(self, context: Context) -> Iterator[None]:
        """Find the candidate after the chosen one before it is asked for. Yields as `work` does."""
        if self.chosen + 1 == len(self.candidates):
            yield from self.find_another(context)

    def find_another(self, context: Context) -> Iterator[None]:
        """Append a continuation that begins with another word than the candidates, if one is found."""
        words = {take_word(candidate.text) for candidate in self.candidates}
        for _ in range(0 if self.is_exhausted else MAX_ATTEMPTS):
            found = Continuation(self.drawing, context, self.next_index)
            while not found.is_complete and take_word(found.text) == found.text:
                found.draw()
                yield
            self.next_index += 1
            if found.text and take_word(found.text) not in words:
                self.candidates.append(found)
                return
        self.is_exhausted = True

    def consume(self, typed: str) -> bool:
        """Keep the candidates that begin with a text that was typed or accepted, without it.

        Returns whether anything is left of any: otherwise new ones are needed.
        """
        begun = [candidate for candidate in self.candidates if candidate.text.startswith(typed)]
        chosen = self.candidates[self.chosen]
        for candidate in begun:
            candidate.text = candidate.text[len(typed) :]
        kept = list(filter(is_usable, begun))
        if not kept:
            return False
        self.candidates, self.chosen = kept, kept.index(chosen) if chosen in kept else 0
        self.next_index = 0  # of the samples at the new place
        self.is_seeking, self.is_exhausted = False, self.drawing.config.temperature == 0
        self.is_touched = True
        return True

    def offer(self, fillings: Sequence[str]) -> None:
        """Put fillings, the best first, in place of the candidates, unless the user has chosen one."""
        if fillings and not self.is_touched:
            self.candidates = [FillingText(text) for text in fillings]
            self.chosen = 0


def is_usable(candidate: GhostText) -> bool:
    """Return whether a candidate has text or may still get some."""
    return bool(candidate.text) or not candidate.is_complete
