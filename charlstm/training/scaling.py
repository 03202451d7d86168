"""Predict the loss that a run reaches, from the size of its model, the characters it reads and the length of its text.

The law is that of Hoffmann et al. (2022, eq. 2): what a text leaves to chance, plus a term that falls with the weights
of the model and one that falls with the characters it reads, each as a power. A character that was read before is worth
less than a new one (Muennighoff et al. 2023, eq. 5), and a character of a large batch is worth less than one of a small
batch, since fewer steps are taken (McCandlish et al. 2018, eq. 2.11). A model that is large for its text also memorizes
what it reads again, which the last term adds. `benchmarks/planning.py` measures the constants.
"""

from __future__ import annotations

from math import expm1
from typing import NamedTuple


class ScalingLaw(NamedTuple):
    """The constants of the law. Losses are in nats per character."""

    weights_factor: float
    weights_exponent: float
    layers_exponent: float
    """Weights of several layers count as those of one, times the layers to the power of this."""
    characters_factor: float
    characters_exponent: float
    batch_factor: float
    batch_exponent: float
    """In a batch of factor * characters ** exponent, a character is worth half: long trainings bear large batches."""
    repetitions: float
    """Readings of a text after which one more is worth 1/e of the first."""
    memorizing_factor: float
    memorizing_exponent: float
    """Of the weights for each character of the text, in the loss that memorizing adds after many readings."""


LAW = ScalingLaw(4.294, 0.2343, 0.01, 5.514, 0.1566, 0.3204, 0.5429, 3.347, 0.01457, 1.166)


def saturate_repetitions(characters: float, text_length: float, law: ScalingLaw) -> float:
    """Return the readings of a text after the first on a scale from 0, for none, to 1, for any number."""
    return -expm1(-max(characters / text_length - 1, 0.0) / law.repetitions)


def count_effective_characters(characters: float, text_length: float, batch: float, law: ScalingLaw = LAW) -> float:
    """Return how many characters, each read once in the smallest batches, are worth as much as these.

    `characters` are read of a text of `text_length`, `batch` of them in each step.
    """
    repeated = text_length * law.repetitions * saturate_repetitions(characters, text_length, law)
    worth = min(characters, text_length) + repeated
    critical: float = law.batch_factor * worth**law.batch_exponent
    return worth / (1 + batch / critical)


def predict_excess_loss(
    layers: int, weights: float, characters: float, text_length: float, batch: float, law: ScalingLaw = LAW
) -> float:
    """Return by how much the loss is above what the text leaves to chance, in nats per character.

    On another text it is a multiple of this, which is the same for all runs.
    `weights` are those of the recurrent `layers` that predict a character from the left. The other parameters are those
    of `count_effective_characters`.
    """
    effective = count_effective_characters(max(characters, 1.0), text_length, batch, law)
    wide = weights * layers ** (law.layers_exponent - 1)
    memorized = law.memorizing_factor * (weights / text_length) ** law.memorizing_exponent
    excess: float = (
        law.weights_factor * wide**-law.weights_exponent
        + law.characters_factor * effective**-law.characters_exponent
        + memorized * saturate_repetitions(characters, text_length, law)
    )
    return excess
