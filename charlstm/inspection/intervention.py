"""What a model loses when a unit is fixed: a unit that remembers a quotation is missed where the quotation ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from charlstm.cells import CELLS
from charlstm.config import Direction
from charlstm.errors import UsageError
from charlstm.inspection.detectors import BRACKETS, CJK_QUOTES, QUOTES, Flags, before, depth, inside
from charlstm.inspection.trace import Series, Trace, directions, trace
from charlstm.matrices import Array
from charlstm.sampling.filters import log_softmax
from charlstm.sampling.network import Clamp, Network, States
from charlstm.sampling.reading_order import ReadingOrder
from charlstm.sampling.units import Target, Unit
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Ids
from charlstm.wording import quantity

RANDOM_UNITS = 50
"""Units of similar variance that each ablated unit is compared with."""

POOL = 100
"""Random units among which those are found: each ablated unit has its own 50 of them."""

MIN_CATEGORY = 5
"""Fewest characters of a category that is reported."""

MIN_LENGTH = 4
"""Fewest symbols of a text of which the second half is read."""

PROGRESS_EVERY = 50
"""Steps between two calls of `progress`."""


@dataclass(frozen=True)
class Effect:
    """What fixing a unit costs in one category of characters.

    change: change of the loss, nats per character.
    random_median: the median of the change over random units of similar variance.
    exceeded: how many of those cost less.
    """

    change: float
    random_median: float
    exceeded: int


@dataclass(frozen=True)
class Ablation:
    """What the second half of a text costs more while a unit is fixed at its mean.

    unit: the unit.
    effects: by category.
    random_units: the number of random units that it is compared with.
    """

    unit: Unit
    effects: dict[str, Effect]
    random_units: int

    def to_dict(self) -> dict[str, Any]:
        """Return the ablation as JSON values."""
        effects = {
            name: {
                "change_nats": round(effect.change, 5),
                "random_median_nats": round(effect.random_median, 5),
                "exceeded": effect.exceeded,
            }
            for name, effect in self.effects.items()
        }
        return {"unit": str(self.unit), "effects": effects, "random_units": self.random_units}


def categorize(text: str) -> dict[str, Flags]:
    """Return where the characters of each category are, [C]. Every character is in one category."""
    codes = np.array([ord(character) for character in text], np.int64)
    quoted, bracketed = np.zeros((2, len(text)), bool)
    for _, opening, closing in (*QUOTES, *CJK_QUOTES):
        quoted |= inside(codes, opening, closing)
    for _, opening, closing in BRACKETS:
        bracketed |= depth(codes, opening, closing) > 0
    newline = codes == ord("\n")
    closing_quote, closing_bracket = (before(each) & ~each & ~newline for each in (quoted, bracketed))
    found = {
        "line ends": newline,
        "closing quotes": closing_quote,
        "closing brackets": closing_bracket & ~closing_quote,
        "inside quotes": before(quoted) & quoted & ~newline & ~closing_bracket,
        "inside brackets": before(bracketed) & bracketed & ~newline & ~before(quoted),
    }
    found["elsewhere"] = ~np.logical_or.reduce(list(found.values()))
    return found


def ablate(
    file: ModelFile,
    recorded: Trace,
    units: Sequence[Unit],
    categories: Mapping[str, Flags],
    seed: int = 1,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Ablation]:
    """Return what each unit is worth: the cell state, or the output of a cell without one, is fixed at its mean.

    file: the model.
    recorded: of the model over a text of T symbols.
    units: those to fix, one at a time.
    categories: where the symbols of each category are, [T].
    seed: draws the random units.
    progress: called with the share that is done.

    Raises UsageError for a text that is too short.
    """
    if len(recorded.ids) < MIN_LENGTH:
        raise UsageError(
            f"the text is too short to fix units in its second half: {quantity(len(recorded.ids), 'character')}"
        )
    half = slice(len(recorded.ids) // 2, None)
    masks = {name: mask[half] for name, mask in categories.items() if mask[half].sum() >= MIN_CATEGORY}
    found: dict[Unit, Ablation] = {}
    for direction in directions(file.config.model):
        own = [unit for unit in units if unit.direction == direction]
        if not own:
            continue
        variances = unit_variances(file, recorded, direction)
        pool = draw_pool(list(variances), own, seed)
        losses = losses_with_fixed_units(file, recorded, direction, [*own, *pool], progress)
        changes = {name: (losses[:, mask] - losses[0, mask]).mean(1)[1:] for name, mask in masks.items()}
        for k, unit in enumerate(own):
            distances = [abs(np.log(variances[unit] / variances[other])) for other in pool]
            similar = np.argsort(distances, kind="stable")[:RANDOM_UNITS] + len(own)
            effects = {
                name: Effect(
                    float(change[k]), float(np.median(change[similar])), int((change[similar] < change[k]).sum())
                )
                for name, change in changes.items()
            }
            found[unit] = Ablation(unit, effects, len(similar))
    return [found[unit] for unit in units]


def fixed_quantity(file: ModelFile) -> str:
    """Return what a clamp sets: the cell state, or the output of a cell without one."""
    return CELLS[file.config.model.cell].state[-1]


def target_values(file: ModelFile, targets: Mapping[Unit, Target], read_ids: Callable[[], Ids]) -> dict[Unit, float]:
    """Return the values that units are to be fixed at.

    read_ids: returns the text for the means and deviations of units, [T]; not called if no target needs them.

    Raises UsageError if that text is empty.
    """
    if not any(target.in_deviations for target in targets.values()):
        return {unit: target.value for unit, target in targets.items()}
    ids = read_ids()
    if not len(ids):
        raise UsageError("the mean of a unit needs a text")
    recorded, quantity = trace(file, ids), fixed_quantity(file)
    values = {}
    for unit, target in targets.items():
        over_text = recorded.of_unit(unit, quantity)
        mean, deviation = float(over_text.mean()), float(over_text.std())
        values[unit] = mean + target.value * deviation if target.in_deviations else target.value
    return values


def unit_variances(file: ModelFile, recorded: Trace, direction: Direction) -> dict[Unit, float]:
    """Return the variance of what a clamp would fix, for each unit of a direction."""
    quantity = fixed_quantity(file)
    return {
        Unit(layer, number, direction): max(float(variance), 1e-12)
        for layer in range(file.config.model.layers)
        for number, variance in enumerate(recorded.series[Series(direction, layer, quantity)].var(0))
    }


def draw_pool(candidates: Sequence[Unit], excluded: Sequence[Unit], seed: int) -> list[Unit]:
    """Return random units that are not among the excluded ones."""
    others = [unit for unit in candidates if unit not in set(excluded)]
    chosen = np.random.default_rng(seed).permutation(len(others))[:POOL]
    return [others[k] for k in chosen]


def losses_with_fixed_units(
    file: ModelFile, recorded: Trace, direction: Direction, units: Sequence[Unit], progress: Callable[[float], None]
) -> Array:
    """Return the loss of each symbol of the second half of a text, in nats: as it is, and with each unit fixed.

    The result is [1 + units, T - T // 2]. The forward direction begins with the state that the first half left.
    """
    quantity, half, order = fixed_quantity(file), file.select_direction(direction), ReadingOrder(direction)
    clamps = []
    for layer in range(file.config.model.layers):
        rows = [k + 1 for k, unit in enumerate(units) if unit.layer == layer]
        numbers = [units[row - 1].number for row in rows]
        means = recorded.series[Series(direction, layer, quantity)].mean(0)[numbers]
        clamps.append(Clamp(layer, np.array(numbers, np.int64), means, np.array(rows, np.int64)))
    network = Network(half.config.model, half.weights, file.vocabulary.end_of_document, clamps)
    middle, count = len(recorded.ids) // 2, 1 + len(units)
    read = np.concatenate([[file.vocabulary.bos], order.convert(recorded.ids)])
    states = network.initial_state(count)
    if direction == "forward":
        states = states_after(network, recorded, middle - 2, count)
        read = read[middle:]
    losses = np.empty((count, len(recorded.ids) - middle), np.float32)
    for t in range(losses.shape[1]):
        logits, states = network.step(np.full(count, read[t]), states)
        losses[:, t] = -log_softmax(logits)[:, read[t + 1]]
        if t % PROGRESS_EVERY == 0:
            progress(t / losses.shape[1])
    return losses if direction == "forward" else np.ascontiguousarray(losses[:, ::-1])


def states_after(network: Network, recorded: Trace, place: int, count: int) -> States:
    """Return the state of `count` sequences after the symbol at a place of a recorded."""
    return [
        tuple(
            np.repeat(recorded.series[Series("forward", layer, name)][place : place + 1], count, 0)
            for name in network.cell.state
        )
        for layer in range(len(network.layers))
    ]
