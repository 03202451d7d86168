"""A trained model for use from Python: load it, sample from it, score text, fill gaps. Does not import torch."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from random import SystemRandom

import numpy as np
from numpy.typing import NDArray

from charlstm.config import Direction, SamplingConfig
from charlstm.data.normalize import normalize_text
from charlstm.sampling.filters import log_softmax
from charlstm.sampling.fragments import Fragment
from charlstm.sampling.generate import generate
from charlstm.sampling.mixture import Mixture
from charlstm.sampling.network import Clamp, Network, SymbolReader
from charlstm.sampling.reading_order import ReadingOrder
from charlstm.storage.locate import find_model, parse_path
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Text


class TextModel:
    """A trained model that samples, scores and fills text in one direction. `charlstm.load` returns one.

    file: the contents of the model file: configuration, vocabulary, weights, metrics.
    direction: "forward" reads and writes from the beginning of a text, "backward" from its end. Only a bidirectional
        model has both.
    clamps: units that do not follow their equations; `clamp` makes them.
    mixture: n-grams with which the distributions are mixed that samples are drawn from.
    averaged: another model of the same vocabulary, with whose distributions those of this one are averaged.

    Raises UsageError for a direction that one of the models does not have, or another vocabulary.
    """

    def __init__(
        self,
        file: ModelFile,
        direction: Direction = "forward",
        clamps: Sequence[Clamp] = (),
        mixture: Mixture | None = None,
        averaged: ModelFile | None = None,
    ) -> None:
        self.file, self.direction, self.clamps, self.mixture = file, direction, clamps, mixture
        self.config = file.config
        self.vocabulary = file.vocabulary
        self.averaged = averaged
        self.files = (file, averaged) if averaged else (file,)
        self.halves = [each.select_direction(direction) for each in self.files]
        if averaged:
            file.check_same_vocabulary(averaged)

    @cached_property
    def network(self) -> SymbolReader:
        """The network in float32."""
        return self.build_network(quantized=False)

    @cached_property
    def quantized_network(self) -> SymbolReader:
        """The network with 8-bit weights."""
        return self.build_network(quantized=True)

    def build_network(self, *, quantized: bool) -> SymbolReader:
        end_of_document = self.vocabulary.end_of_document
        own, *others = (
            Network(half.config.model, half.weights, end_of_document, clamps, quantized=quantized)
            for half, clamps in zip(self.halves, (self.clamps, ()), strict=False)
        )
        if not others:
            return own
        from charlstm.sampling.averaging import AveragedNetwork  # deferred: few samples need it

        return AveragedNetwork(own, *others)

    def generate(
        self,
        prompt: Text = "",
        config: SamplingConfig | None = None,
        *,
        seed: int | None = None,
        stop: Sequence[str] = (),
        unknown: str = "error",
    ) -> Iterator[str]:
        """Sample one text after the prompt and yield its characters as they are drawn, without the prompt.

        A backward model writes the text that leads up to the prompt, and yields it once it is complete.

        prompt: the text to continue; `bytes` for a model of bytes. Empty starts a new text.
        config: temperature, filters and length. With a length of 0 the sample ends at a stop string, at the end of the
            document (if the model has documents) or never. None is the defaults, with a length of 100,000 if the model
            has documents.
        seed: the same seed gives the same text. None draws one.
        stop: stop strings, at which the sample ends. They are not part of it.
        unknown: what to do with characters of the prompt that are not in the vocabulary: "error", "skip" or "replace".

        Raises UsageError for a character in the prompt that is not in the vocabulary, unless `unknown` allows it.
        """
        if config is None:
            config = SamplingConfig(length=self.file.default_length)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        seed = draw_seed() if seed is None else seed
        for fragment in self.stream_fragments(prompt, config, seed=seed, stop=stop, unknown=unknown):
            yield from decoder.decode(fragment.text, final=bool(fragment.stop_reason))

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
        processes: int = 1,
    ) -> Iterator[Fragment]:
        """Sample `n` texts after the prompt together and yield their fragments, interleaved, as UTF-8.

        A backward model yields each text as one fragment.

        prompt: the text to continue; `bytes` for a model of bytes.
        config: temperature, filters and length.
        seed: a sample depends on the seed and its own index only, not on `n`.
        n: number of samples.
        stop: stop strings, at which a sample ends.
        unknown: what to do with characters of the prompt that are not in the vocabulary, as in `Vocabulary.encode`.
        scored: compute the `mean_log_probability` of the fragments, which takes some time.
        processes: how many share the samples, which are the same for any number of them.

        Raises UsageError for an unknown character, unless `unknown` allows it.
        """
        ids, direction = self.vocabulary.encode(normalize_text(prompt, self.config.data), unknown), self.direction
        network = self.quantized_network if self.choose_weights(config) == "int8" else self.network
        return generate(
            network,
            self.vocabulary,
            ids,
            config,
            seed=seed,
            n=n,
            stops=stop,
            scored=scored,
            direction=direction,
            processes=processes,
            mixture=self.mixture,
        )

    def choose_weights(self, config: SamplingConfig) -> str:
        """Return the weights to sample with, "int8" or "fp32", as `ModelFile.choose_weights`."""
        return "fp32" if any(file.choose_weights(config) == "fp32" for file in self.files) else "int8"

    def score(self, text: Text) -> NDArray[np.float32]:
        """Return the natural log-probability of each character given those before it, [length].

        A backward model scores each character given those after it. The loss in nats per character is minus the mean.

        text: the text to score, of any length; `bytes` for a model of bytes. `charlstm.evaluate` is faster for long
            texts.

        Raises UsageError for a character that is not in the vocabulary, unless the vocabulary has an unknown symbol.
        """
        order = ReadingOrder(self.direction)
        ids = order.convert(self.vocabulary.encode(normalize_text(text, self.config.data)))
        states = self.network.initial_state(1)
        inputs = np.concatenate([[self.vocabulary.bos], ids[:-1]])
        scores = np.empty(len(ids), np.float32)
        for t in range(len(ids)):
            logits, states = self.network.step(inputs[t : t + 1], states)
            scores[t] = log_softmax(logits)[0, ids[t]]
        return order.convert(scores)

    def trace(self, text: Text) -> dict[str, NDArray[np.generic]]:
        """Return the states and gates of the model while it reads a text of T symbols, by name, [T, ...] each.

        `layers.1.cell` [T, H] is the cell state of the second layer after each symbol, `layers.0.forget` a gate of the
        first; those of the backward direction begin with `backward.`. Besides: `ids` [T], `log_probabilities` [T] of
        each symbol given those before it, `entropies` [T] of the prediction made after it, in nats, and the `likeliest`
        next symbols [T, K] with their `probabilities`.

        text: the text to read, after BOS; `bytes` for a model of bytes.

        Raises UsageError for a character that is not in the vocabulary, unless the vocabulary has an unknown symbol.
        """
        from charlstm.inspection.trace import trace  # deferred: sampling does without it

        return trace(self.file, self.vocabulary.encode(normalize_text(text, self.config.data))).arrays()

    def clamp(self, units: Mapping[str, float | str], text: Text = "") -> TextModel:
        """Return this model with some more units fixed: their cell state, or the output of a cell without one.

        units: by name, as "1.37" or "backward.0.5", a value, or the text of one with a sign, as "+2": as many standard
            deviations from the mean of the unit over `text`.
        text: the text for means and deviations.

        Raises UsageError for a unit that the model does not have or that is in the other direction, and for deviations
        without a text.
        """
        # deferred: a tenth of the start-up time of `charlstm sample`
        from charlstm.inspection.intervention import target_values
        from charlstm.sampling.units import Target, Unit, make_clamps

        targets = {
            Unit.parse(name, self.config.model): Target.parse(value) if isinstance(value, str) else Target(value, False)
            for name, value in units.items()
        }
        ids = self.vocabulary.encode(normalize_text(text, self.config.data))
        values = target_values(self.file, targets, lambda: ids)
        clamps = [*self.clamps, *make_clamps(values, self.direction)]
        return TextModel(self.file, self.direction, clamps, self.mixture, self.averaged)

    def fill(
        self, text: str, n: int = 1, *, gap: str = "_", max_gap: int | None = None, seed: int | None = None
    ) -> list[tuple[str, float]]:
        """Return the most likely ways found to fill the gaps of a text, as (filled text, log-probability), best first.

        A bidirectional model considers the text on both sides of a gap, and fills it far better than another.

        text: the text, with a gap marker for each unknown character.
        n: number of fillings to return. Fewer are returned if fewer are found.
        gap: the gap marker, one character.
        max_gap: if given, a run of markers is a gap of 1 to this many characters.
        seed: the same seed gives the same fillings. None draws one.

        Raises UsageError for a text without gaps, an invalid marker or a character that is not in the vocabulary.
        """
        from charlstm.infilling.filler import Filler  # deferred: a tenth of the start-up time of `charlstm sample`
        from charlstm.infilling.template import parse_templates

        (template,) = parse_templates([text], gap, max_gap)
        filler = Filler(self.file, draw_seed() if seed is None else seed)
        fillings = filler.fill(template, filler.encode(template), n)
        return [(template.render(found.fills).decode("utf-8", "replace"), found.log_probability) for found in fillings]


def load(path: str | Path, direction: Direction = "forward", *, average: str | Path | None = None) -> TextModel:
    """Load a trained model.

    path: a run folder, whose best model is loaded, a model file or "builtin", the model that ships with charlstm.
    direction: "forward" or, for a bidirectional model, "backward".
    average: another model of the same vocabulary, with whose distributions those of this one are averaged in samples
        and scores.

    Raises UsageError if `path` is empty, no model is there, it lacks the direction or the vocabularies differ,
    ModelFileError if it is damaged.
    """
    file, *others = (
        ModelFile.load(find_model(parse_path(each, "the path of the model"), {}))
        for each in (path, average)
        if each is not None
    )
    return TextModel(file, direction, averaged=others[0] if others else None)


def draw_seed() -> int:
    """Return a random seed of at most ten digits, short enough to type."""
    return SystemRandom().randrange(2**32)
