"""Predict the loss that a run reaches, from the size of its model, the characters it reads and the length of its text.

The law is that of Hoffmann et al. (2022, eq. 2): what a text leaves to chance, plus a term that falls with the weights
of the model and one that falls with the characters it reads, each as a power. A character that was read before is worth
less than a new one (Muennighoff et al. 2023, eq. 5), and a character of a large batch is worth less than one of a small
batch, since fewer steps are taken (McCandlish et al. 2018, eq. 2.11): it takes more readings of a text then until one
more is worth nothing. A model that is large for its text also memorizes what it reads again, which the last term adds.
`benchmarks/planning.py` measures the constants.
"""

from __future__ import annotations

from math import expm1
from typing import NamedTuple


class ScalingLaw(NamedTuple):
    """The constants of the law. Losses are in nats per character."""

    weights_factor: float
    weights_exponent: float
    characters_factor: float
    characters_exponent: float
    batch_factor: float
    batch_exponent: float
    """In a batch of factor * characters ** exponent, a character is worth half: long trainings bear large batches."""
    repetitions: float
    """Readings of a text, in the smallest batches, after which one more is worth 1/e of the first: with one layer."""
    depth_exponent: float
    """With several, times the layers to the power of this: dropout between them lets a text be read more often."""
    memorizing_factor: float
    memorizing_exponent: float
    """Of the weights for each character of the text, in the loss that memorizing adds after many readings."""


LAW = ScalingLaw(5.292, 0.2583, 4.541, 0.1284, 0.08158, 0.6358, 1.258, 0.9837, 0.01807, 0.8274)


def in_smallest_batches(characters: float, batch: float, law: ScalingLaw = LAW) -> float:
    """Return how many characters in the smallest batches are worth as much as these, `batch` of them in each step."""
    return characters / (1 + batch / critical_batch(characters, law))


def critical_batch(characters: float, law: ScalingLaw = LAW) -> float:
    """Return the batch, in characters, of which each is worth half as much as in the smallest batches."""
    critical: float = law.batch_factor * characters**law.batch_exponent
    return critical


def predict_excess_loss(
    layers: int, weights: float, characters: float, text_length: float, batch: float, law: ScalingLaw = LAW
) -> float:
    """Return by how much the loss is above what the text leaves to chance, in nats per character.

    On another text it is a multiple of this, which is the same for all runs.
    `weights` are those of the recurrent `layers` that predict a character from the left. `characters` are read of a
    text of `text_length`, `batch` of them in each step.
    """
    read = in_smallest_batches(max(characters, 1.0), batch, law)
    repetitions = law.repetitions * layers**law.depth_exponent
    repetition = -expm1(-max(read / text_length - 1, 0.0) / repetitions)  # from 0, for none, to 1, for any number
    worth = min(read, text_length) + text_length * repetitions * repetition
    memorized = law.memorizing_factor * (weights / text_length) ** law.memorizing_exponent
    excess: float = (
        law.weights_factor * (weights / layers) ** -law.weights_exponent
        + law.characters_factor * worth**-law.characters_exponent
        + memorized * repetition
    )
    return excess
