"""Advice at the end of a run: at most one sentence on its settings, with the option to change.

The thresholds leave room for what healthy runs show. During training, the training loss is measured with dropout and as
a mean since the previous validation, so it may lie above the validation loss or a fifth below it. At the end, the best
model is evaluated on text of both parts: only these two losses tell how much a model has memorized.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlstm.config import Config
from charlstm.wording import quantity

FEW_STEPS = 300
"""Below this many optimizer steps, a run is too short to learn more than the frequencies of characters."""

MANY_STEPS = 1000
"""From this many steps on, a model must do better than counting pairs of characters."""

# How many times higher a loss must be than another one to count.

RISEN = 1.1
"""Both losses rose by this factor: what was learned is lost. Noise between two validations stays below it."""

OVERFITTED = 1.025
"""The validation loss at the end is this far above its best: more than the 1 to 2 % of runs that end a little late."""

STILL_FALLING = 1.018
"""The validation loss fell by this factor in the last quarter: more epochs would lower it further."""

GENERALIZATION_GAP = 1.03
"""The validation loss is this far above the training loss: the model has started to memorize."""

NO_BETTER_THAN_PAIRS = 1.02
"""A loss this far above the entropy of pairs is no better than counting pairs."""

STALLED_THEN_FELL = 1.2
"""The loss of a stalled run is this far above its final loss, so the stall was not the end of what can be learned."""

MEMORIZED = 1.7
"""The validation loss is this far above the training loss: the model has memorized its text."""

SLOW_FIRST_STEP = 0.5
"""Share of the time of a run that its first step takes only if it compiles: its settings are not to blame then."""

MIN_DIFFERENCE_NATS = 0.02
"""Losses closer than this count as equal, whatever their ratio."""

MIN_COMPARED_CHARACTERS = 5_000
"""Validation characters from which the losses of the best model are compared: on fewer, they differ by chance."""

MANY_PARAMETERS_PER_CHARACTER = 10
"""A model with more can memorize its text: `train` warns before it starts, and advice on overfitting names its size."""

FEW_PARAMETERS_PER_CHARACTER = 1 / 30
"""A model with fewer, that does not overfit, may be too small for its text."""

FEW_UNITS = 32
"""A layer smaller than this may do no better than counting pairs with any learning rate."""

MAX_PAIRS_COUNTED = 1_000_000
"""Characters in which pairs are counted: more change the entropy little."""

MIN_COUNT_PER_PAIR = 20
"""Occurrences that a pair needs on average: with fewer, the entropy is estimated far too low."""


@dataclass(frozen=True)
class Validation:
    """The losses at a validation, in nats per character.

    step: optimizer steps taken so far.
    train_loss_nats: mean training loss since the previous validation.
    loss_nats: loss on the validation part.
    """

    step: int
    train_loss_nats: float
    loss_nats: float


@dataclass(frozen=True)
class RunSummary:
    """The losses and sizes of a finished run.

    config: its settings.
    validations: all validations, in order.
    total_steps: optimizer steps in all epochs; the run has taken fewer if its time ran out.
    parameters: weights of the model.
    training_characters: characters in the training part.
    pair_entropy_nats: `pair_entropy` of the training part.
    best: the losses of the best model, both without dropout; None is those of the last validation.
    chosen: the settings (`section.key`) that were chosen for a time limit. No advice contradicts them.
    first_step_share: share of the time of the run that its first step took.
    """

    config: Config
    validations: Sequence[Validation]
    total_steps: int
    parameters: int
    training_characters: int
    pair_entropy_nats: float | None = None
    best: Validation | None = None
    chosen: Collection[str] = ()
    first_step_share: float = 0.0

    @property
    def last(self) -> Validation:
        return self.validations[-1]

    def memorizes(self, factor: float) -> bool:
        """Return whether the validation loss is above the training loss by this factor."""
        compared = self.best or self.last
        return is_above(compared.loss_nats, compared.train_loss_nats, factor)

    @property
    def length_option(self) -> str:
        """The option that ended training; empty if more passes over the text would not help."""
        if self.last.step < self.total_steps:
            return "--max-time"
        return "" if "training.epochs" in self.chosen else f"--epochs (now {self.config.training.epochs:,})"

    @property
    def lr_option(self) -> str:
        return f"--lr (now {self.config.training.lr:g}; --find-lr suggests one)"


def diagnose(run: RunSummary) -> str:
    """Return the one thing to change first; empty if nothing looks wrong."""
    if not run.validations:
        return ""
    rules = (
        check_lost_progress,
        check_stalled,
        check_no_learning,
        check_overfitting,
        check_few_steps,
        check_still_learning,
        check_too_small,
    )
    return next(filter(None, (rule(run) for rule in rules)), "")


def is_above(loss: float, other: float, factor: float) -> bool:
    """Return whether a loss is clearly higher than another one."""
    return loss > max(factor * other, other + MIN_DIFFERENCE_NATS)


def check_lost_progress(run: RunSummary) -> str:
    """Both losses rose. Overfitting would have lowered the training loss."""
    best = run.validations[0]
    for here in run.validations[1:]:
        train_rose = is_above(here.train_loss_nats, best.train_loss_nats, RISEN)
        if train_rose and is_above(here.loss_nats, best.loss_nats, RISEN):
            return (
                f"training lost its progress between step {best.step:,} and step {here.step:,} (validation loss "
                f"{best.loss_nats:.2f}, then {here.loss_nats:.2f}): try a lower {run.lr_option}"
            )
        best = min(best, here, key=lambda validation: validation.loss_nats)
    return ""


def check_stalled(run: RunSummary) -> str:
    """The loss did not fall for a stretch of the first half and fell much afterwards: the peak rate was too high."""
    last = run.last
    for k, here in enumerate(run.validations):
        end = here.step + max(FEW_STEPS, last.step / 20)
        fell_later = is_above(here.loss_nats, last.loss_nats, STALLED_THEN_FELL)
        if here.step < FEW_STEPS or end > last.step / 2 or not fell_later:
            continue
        stop = bisect_left(run.validations, end, key=lambda validation: validation.step)
        between = run.validations[k + 1 : stop + 1]
        if between[-1].step <= last.step / 2 and all(v.loss_nats >= here.loss_nats for v in between):
            return (
                f"the loss did not fall from step {here.step:,} to step {between[-1].step:,}, and fell much once the "
                f"learning rate was lower: try a lower {run.lr_option}"
            )
    return ""


def check_no_learning(run: RunSummary) -> str:
    """After many steps, counting pairs of characters would have done as well."""
    last, pairs, few = run.last, run.pair_entropy_nats, run.config.model.hidden < FEW_UNITS
    loss = min(last.train_loss_nats, last.loss_nats)
    if last.step < MANY_STEPS or few or pairs is None or not is_above(loss, pairs, NO_BETTER_THAN_PAIRS):
        return ""
    longer = f", or raise {run.length_option}" if last.step < 3 * MANY_STEPS and run.length_option else ""
    return (
        f"a loss of {loss:.2f} nats/char after {last.step:,} steps is no better than counting pairs of "
        f"characters ({pairs:.2f}): try another {run.lr_option}{longer}"
    )


def check_overfitting(run: RunSummary) -> str:
    """The validation loss rose while the training loss fell, or the two are far apart."""
    last, best = run.last, min(run.validations, key=lambda validation: validation.loss_nats)
    if is_above(last.loss_nats, best.loss_nats, OVERFITTED) and last.train_loss_nats < best.train_loss_nats:
        evidence = (
            f"validation loss {best.loss_nats:.2f} at step {best.step:,}, whose model is kept, "
            f"and {last.loss_nats:.2f} at the end"
        )
    elif run.memorizes(MEMORIZED):
        compared = run.best or last
        evidence = f"training loss {compared.train_loss_nats:.2f}, validation loss {compared.loss_nats:.2f}"
    else:
        return ""
    model, too_large = run.config.model, run.parameters > MANY_PARAMETERS_PER_CHARACTER * run.training_characters
    changes = {
        "model.dropout": f"raise --dropout (now {model.dropout:g})",
        "model.hidden": f"lower --hidden (now {model.hidden})" if too_large else "",
        "training.epochs": f"lower {run.length_option}" if run.length_option else "",
    }
    open_changes = [change for key, change in changes.items() if change and key not in run.chosen]
    return f"the model overfits ({evidence}): {' or '.join(open_changes) or 'more text would help most'}"


def check_few_steps(run: RunSummary) -> str:
    """The run was short, and the model has not started to memorize."""
    last = run.last
    if last.step >= FEW_STEPS or run.memorizes(GENERALIZATION_GAP) or not run.length_option:
        return ""
    few = f"{quantity(last.step, 'step')} {'is' if last.step == 1 else 'are'} too few to learn much"
    if run.first_step_share > SLOW_FIRST_STEP and last.step < run.total_steps:
        return (
            f"{few}: the first took {run.first_step_share:.0%} of the time, to compile, which happens once; train "
            "again with --overwrite"
        )
    can_shrink = run.config.training.batch_size > 1 and "training.batch_size" not in run.chosen
    smaller = " or lower --batch-size" if can_shrink else ""
    return f"{few}: raise {run.length_option}{smaller}"


def check_still_learning(run: RunSummary) -> str:
    """The validation loss fell over the last quarter, and the model has not started to memorize."""
    last, since = run.last, 0.75 * run.last.step
    steps, losses = [v.step for v in run.validations], [v.loss_nats for v in run.validations]
    before = float(np.interp(since, steps, losses))
    falling = is_above(before, last.loss_nats, STILL_FALLING)
    if not falling or run.memorizes(GENERALIZATION_GAP) or not run.length_option:
        return ""
    fall = f"from {before:.2f} to {last.loss_nats:.2f} in the last quarter"
    return f"the validation loss was still falling ({fall}): raise {run.length_option}"


def check_too_small(run: RunSummary) -> str:
    """A small model that has learned all it can."""
    large = run.parameters > FEW_PARAMETERS_PER_CHARACTER * run.training_characters
    if large or run.memorizes(GENERALIZATION_GAP) or "model.hidden" in run.chosen:
        return ""
    return (
        f"the model is small for its text ({run.parameters:,} parameters, {run.training_characters:,} characters): "
        f"raise --hidden (now {run.config.model.hidden})"
    )


def pair_entropy(ids: NDArray[np.integer]) -> float | None:
    """Return the entropy of a character given the one before it, in nats; None if the text is too short to tell."""
    codes = ids[:MAX_PAIRS_COUNTED].astype(np.uint64)
    _, pairs = np.unique(codes[:-1] << 32 | codes[1:], return_counts=True)
    _, firsts = np.unique(codes[:-1], return_counts=True)
    if len(codes) < MIN_COUNT_PER_PAIR * max(len(pairs), 1):
        return None
    return entropy_nats(pairs) - entropy_nats(firsts)


def entropy_nats(counts: NDArray[np.integer]) -> float:
    """Return the entropy of a distribution, given as counts, in nats."""
    shares = counts / counts.sum()
    return max(0.0, -float((shares * np.log(shares)).sum()))
