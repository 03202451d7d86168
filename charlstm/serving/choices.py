"""One text of a response: its characters, its tokens with their log-probabilities, and why it ended."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections import deque
from typing import Any

from charlstm.sampling.fragments import Fragment
from charlstm.serving.jobs import SymbolScore
from charlstm.serving.models import ServedModel

FINISH_REASONS = {"stop": "stop", "document": "stop", "length": "length"}
"""OpenAI's name for why a sample ended."""


class Choice:
    """A text that grows. `take` returns what has been added since the last call, as JSON.

    with_scores: report tokens and their log-probabilities. A token is a symbol of the model.
    """

    def __init__(self, index: int, model: ServedModel, *, with_scores: bool) -> None:
        self.index, self.model, self.with_scores = index, model, with_scores
        self.decoder, self.offset_decoder = (getincrementaldecoder("utf-8")("replace") for _ in range(2))
        self.text, self.finish_reason = "", ""
        self.added: list[tuple[SymbolScore | None, int]] = []  # with the offset in the text; None: the start of a text
        self.offset = 0
        self.held_back: deque[SymbolScore] = deque()  # of symbols that may be the start of a stop string
        self.written = 0  # bytes that were written and are not yet accounted for by a score

    def add_prompt(self, text: str, scores: list[SymbolScore], offsets: list[int], *, starts: bool) -> None:
        """Begin the text with the prompt, as it was sent. `offsets` are those of the symbols that the model read.

        starts: the prompt begins with the token of the start of a text, which has no log-probability.
        """
        self.text += text
        if starts:
            self.added.append((None, 0))
        self.added += zip(scores, offsets, strict=True)
        self.offset = len(text)

    def add(self, fragment: Fragment, score: SymbolScore | None) -> None:
        """Add what was drawn."""
        self.text += self.decoder.decode(fragment.text, final=bool(fragment.stop_reason))
        self.finish_reason = FINISH_REASONS.get(fragment.stop_reason, "")
        if score is None:
            return
        self.held_back.append(score)
        self.written += len(fragment.text)
        while self.held_back and 0 < (size := len(self.symbol(self.held_back[0]))) <= self.written:
            self.written -= size
            self.add_score(self.held_back.popleft())

    def symbol(self, score: SymbolScore) -> bytes:
        return self.model.vocabulary.symbols[score.symbol]

    def add_score(self, score: SymbolScore) -> None:
        self.added.append((score, self.offset))
        self.offset += len(self.offset_decoder.decode(self.symbol(score)))

    def take(self) -> dict[str, Any]:
        """Return what has been added since the last call."""
        text, self.text = self.text, ""
        logprobs = self.take_scores() if self.with_scores else None
        return {
            "index": self.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": self.finish_reason or None,
        }

    @property
    def has_news(self) -> bool:
        return bool(self.text or self.added or self.finish_reason)

    def take_scores(self) -> dict[str, list[Any]]:
        names, (added, self.added) = self.model.token_names, (self.added, [])
        return {
            "tokens": [names[score.symbol] if score else "" for score, _ in added],
            "token_logprobs": [round(score.log_probability, 6) if score else None for score, _ in added],
            "top_logprobs": [name_likeliest(names, score) if score else None for score, _ in added],
            "text_offset": [offset for _, offset in added],
        }


def name_likeliest(names: list[str], score: SymbolScore) -> dict[str, float]:
    """Return the log-probabilities of the likeliest tokens and of the token itself."""
    pairs = {**dict(score.likeliest), score.symbol: score.log_probability}
    return {names[symbol]: round(log_p, 6) for symbol, log_p in pairs.items()}
