"""A trained model as Python users meet it: load, generate, score. No torch."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import SystemRandom

import numpy as np
from numpy.typing import NDArray

from charlstm.config import Direction, SamplingConfig
from charlstm.data.normalize import normalize_text
from charlstm.sampling.filters import log_softmax
from charlstm.sampling.generate import Fragment, generate
from charlstm.sampling.network import Network
from charlstm.sampling.reversal import reverse_fragments
from charlstm.storage.locate import find_model
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Text


class TextModel:
    """A model file, ready to write and to read, in this direction.

    Raises UsageError for one that the model does not have.
    """

    def __init__(self, file: ModelFile, direction: Direction = "forward") -> None:
        self.file, self.direction = file, direction
        self.config = file.config
        self.vocabulary = file.vocabulary
        half = file.select_direction(direction)
        self.network = Network(half.config.model, half.weights, file.vocabulary.end_of_document)

    def generate(
        self,
        prompt: Text = "",
        config: SamplingConfig = SamplingConfig(),
        *,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """The characters of one sample, as they are drawn; the prompt is not among them. Backward, they lead up to the
        prompt, and come in reading order once all of them are drawn.

        Raises UsageError if the prompt has a character that the model has never seen.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for fragment in self.stream_fragments(prompt, config, seed=draw_seed() if seed is None else seed, stop=stop):
            yield from decoder.decode(fragment.text, final=bool(fragment.end))

    def stream_fragments(
        self,
        prompt: Text,
        config: SamplingConfig,
        *,
        seed: int,
        n: int = 1,
        stop: Sequence[str] = (),
        unknown: str = "error",
        scored: bool = False,
    ) -> Iterator[Fragment]:
        """`n` samples at once, as bytes; see `charlstm.sampling.generate`. `unknown` is as in `Vocabulary.encode`.

        Backward, each is one fragment.
        """
        ids, backward = self.vocabulary.encode(normalize_text(prompt, self.config.data), unknown), self.step == -1
        fragments = generate(
            self.network, self.vocabulary, ids, config, seed=seed, n=n, stops=stop, scored=scored, backward=backward
        )
        return reverse_fragments(fragments) if backward else fragments

    def score(self, text: Text) -> NDArray[np.float32]:
        """The natural log-probability of every character of a text given those before it, [length]; backward, given
        those after it.

        The loss in nats per character is minus its mean. Raises UsageError for a character the model has never
        seen, unless it has an unknown symbol to count it as.
        """
        ids = self.vocabulary.encode(normalize_text(text, self.config.data))[:: self.step]
        states = self.network.initial_state(1)
        before = np.concatenate([[self.vocabulary.bos], ids[:-1]])
        scores = np.empty(len(ids), np.float32)
        for t in range(len(ids)):
            logits, states = self.network.step(before[t : t + 1], states)
            scores[t] = log_softmax(logits)[0, ids[t]]
        return scores[:: self.step]

    def fill(
        self, text: str, n: int = 1, *, gap: str = "_", most: int | None = None, seed: int | None = None
    ) -> list[tuple[str, float]]:
        """The `n` likeliest ways of filling a text's gaps that were found, and their natural log-probabilities, the
        likeliest first.

        `gap` stands for one unknown character, or a run of it, with `most`, for 1 to so many. Raises UsageError for a
        text without gaps and as `generate` does.
        """
        from charlstm.infilling.filler import Filler  # here, as sampling needs none of it
        from charlstm.infilling.template import parse_templates

        (template,) = parse_templates([text], gap, most)
        filler = Filler(self.file, draw_seed() if seed is None else seed)
        proposals = filler.fill(template, filler.encode(template), n)
        return [(template.render(found.fills).decode("utf-8", "replace"), found.log_probability) for found in proposals]

    @property
    def step(self) -> int:
        """The step from a character to the one that is read after it."""
        return -1 if self.direction == "backward" else 1


def load(path: str | Path, direction: Direction = "forward") -> TextModel:
    """The model of a run's folder or a model file; `direction` is of a bidirectional one. Raises UsageError or
    ModelFileError."""
    return TextModel(ModelFile.load(find_model(Path(path), {})), direction)


def draw_seed() -> int:
    """A seed short enough to be typed again."""
    return SystemRandom().randrange(2**32)
