"""A trained model as Python users meet it: load, generate, score. No torch."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import SystemRandom

import numpy as np
from numpy.typing import NDArray

from charlstm.config import SamplingConfig
from charlstm.data.spelling import like_corpus
from charlstm.modelfile import ModelFile
from charlstm.runs import find_model
from charlstm.sampling.filters import log_softmax
from charlstm.sampling.generate import Fragment, generate
from charlstm.sampling.network import Network
from charlstm.vocabulary import Text


class TextModel:
    """A model file, ready to write and to read."""

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.config = file.config
        self.vocabulary = file.vocabulary
        self.network = Network(file.config.model, file.weights, file.vocabulary.boundary)

    def generate(
        self,
        prompt: Text = "",
        config: SamplingConfig = SamplingConfig(),
        *,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """The characters of one sample, as they are drawn; the prompt is not among them.

        Raises UsageError if the prompt has a character that the model has never seen.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for fragment in self.fragments(prompt, config, seed=draw_seed() if seed is None else seed, stop=stop):
            yield from decoder.decode(fragment.text, final=bool(fragment.end))

    def fragments(
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
        """`n` samples at once, as bytes; see `charlstm.sampling.generate`. `unknown` is as in `Vocabulary.encode`."""
        ids = self.vocabulary.encode(like_corpus(prompt, self.config.data), unknown)
        return generate(self.network, self.vocabulary, ids, config, seed=seed, n=n, stops=stop, scored=scored)

    def score(self, text: Text) -> NDArray[np.float32]:
        """The natural log-probability of every character of a text given those before it, [length].

        The loss in nats per character is minus its mean. Raises UsageError for a character the model has never
        seen, unless it has an unknown symbol to count it as.
        """
        ids = self.vocabulary.encode(like_corpus(text, self.config.data))
        states = self.network.start(1)
        before = np.concatenate([[self.vocabulary.start], ids[:-1]])
        scores = np.empty(len(ids), np.float32)
        for t in range(len(ids)):
            logits, states = self.network.step(before[t : t + 1], states)
            scores[t] = log_softmax(logits)[0, ids[t]]
        return scores


def load(path: str | Path) -> TextModel:
    """The model of a run's folder or a model file. Raises UsageError or ModelFileError."""
    return TextModel(ModelFile.load(find_model(Path(path), {})))


def draw_seed() -> int:
    """A seed short enough to be typed again."""
    return SystemRandom().randrange(2**32)
