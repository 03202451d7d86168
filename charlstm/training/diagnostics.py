"""What the figures of a run that has ended say about its settings: at most one sentence, with the option to change.

Each threshold keeps clear of what healthy runs show. There training loss is measured with dropout and as a mean since
the validation before, so it may lie above the validation loss, and one a fifth below it is nothing unusual either.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlstm.config import Config

FEW_STEPS, MANY_STEPS = 300, 1000
RISEN, OVERFITTED, STILL_FALLING, ALIKE, NO_BETTER, MUCH, BY_HEART = 1.1, 1.025, 1.018, 1.03, 1.02, 1.2, 1.7
"""How many times as high as another a loss must be to count as such."""

LEAST = 0.02
"""A difference in nats below which two losses count as one, whatever their ratio."""

MANY_PARAMETERS, FEW_PARAMETERS = 10, 1 / 30
"""For each character to learn from."""

FEW_UNITS = 32
"""A layer this small may do no better than counting pairs whatever its learning rate."""

MAX_PAIRS_COUNTED = 1_000_000
"""Characters in which pairs are counted: more of them change the figure little."""

OFTEN = 20
"""Times that a pair must occur in them on average: the entropy of rare ones is far too low."""


@dataclass(frozen=True)
class Validation:
    """A validation's losses, in nats per character."""

    step: int
    train_loss_nats: float
    loss_nats: float


@dataclass(frozen=True)
class RunSummary:
    """What is known of a run at its end."""

    config: Config
    validations: Sequence[Validation]
    total_steps: int  # in all the epochs; fewer were taken where the time was up before
    parameters: int
    training_characters: int  # of the training part
    pair_entropy_nats: float | None = None  # `pair_entropy` of it

    @property
    def last(self) -> Validation:
        return self.validations[-1]

    @property
    def length_option(self) -> str:
        """The option that training was as long as."""
        by_time = self.last.step < self.total_steps
        return "--max-time" if by_time else f"--epochs (now {self.config.training.epochs:,})"

    @property
    def lr_option(self) -> str:
        return f"--lr (now {self.config.training.lr:g}; --find-lr proposes one)"


def diagnose(figures: RunSummary) -> str:
    """The one thing to change first; empty where nothing looks wrong."""
    if not figures.validations:
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
    return next(filter(None, (rule(figures) for rule in rules)), "")


def is_above(one: float, other: float, factor: float) -> bool:
    """Whether a loss is clearly higher than another."""
    return one > max(factor * other, other + LEAST)


def check_lost_progress(figures: RunSummary) -> str:
    """Both losses went up: overfitting would have lowered that of training."""
    lowest = figures.validations[0]
    for here in figures.validations[1:]:
        if is_above(here.train_loss_nats, lowest.train_loss_nats, RISEN) and is_above(
            here.loss_nats, lowest.loss_nats, RISEN
        ):
            return (
                f"what was learned by step {lowest.step:,} was lost by step {here.step:,} (validation loss "
                f"{lowest.loss_nats:.2f}, then {here.loss_nats:.2f}): try a lower {figures.lr_option}"
            )
        lowest = min(lowest, here, key=lambda validation: validation.loss_nats)
    return ""


def check_stalled(figures: RunSummary) -> str:
    """No progress in the first half, while the learning rate was high, and much of it once that had come down."""
    last = figures.last
    for k, here in enumerate(figures.validations):
        end = here.step + max(FEW_STEPS, last.step / 20)
        if here.step < FEW_STEPS or end > last.step / 2 or not is_above(here.loss_nats, last.loss_nats, MUCH):
            continue
        stop = bisect_left(figures.validations, end, key=lambda validation: validation.step)
        between = figures.validations[k + 1 : stop + 1]
        if between[-1].step <= last.step / 2 and all(v.loss_nats >= here.loss_nats for v in between):
            return (
                f"nothing was learned from step {here.step:,} to {between[-1].step:,}, and much once the learning rate "
                f"had come down: try a lower {figures.lr_option}"
            )
    return ""


def check_no_learning(figures: RunSummary) -> str:
    """After many steps, a model of one character's context would have done as well."""
    last, pairs, few = figures.last, figures.pair_entropy_nats, figures.config.model.hidden < FEW_UNITS
    loss = min(last.train_loss_nats, last.loss_nats)
    if last.step < MANY_STEPS or few or pairs is None or not is_above(loss, pairs, NO_BETTER):
        return ""
    longer = f", or raise {figures.length_option}" if last.step < 3 * MANY_STEPS else ""
    return (
        f"a loss of {loss:.2f} nats/char after {last.step:,} steps is no better than counting pairs of "
        f"characters ({pairs:.2f}): try another {figures.lr_option}{longer}"
    )


def check_overfitting(figures: RunSummary) -> str:
    """Validation got worse while training got better, or the two are worlds apart."""
    last, best = figures.last, min(figures.validations, key=lambda validation: validation.loss_nats)
    if is_above(last.loss_nats, best.loss_nats, OVERFITTED) and last.train_loss_nats < best.train_loss_nats:
        kept = f"best at step {best.step:,}, whose model is kept"
        seen = f"{kept}; validation loss {best.loss_nats:.2f} there, {last.loss_nats:.2f} at the end"
    elif is_above(last.loss_nats, last.train_loss_nats, BY_HEART):
        seen = f"training loss {last.train_loss_nats:.2f}, validation {last.loss_nats:.2f}"
    else:
        return ""
    model, share = figures.config.model, figures.parameters / figures.training_characters
    smaller = f" or lower --hidden (now {model.hidden})" if share > MANY_PARAMETERS else ""
    change = f"raise --dropout (now {model.dropout:g}){smaller}, or lower {figures.length_option}"
    return f"it learns its text by heart ({seen}): {change}"


def check_few_steps(figures: RunSummary) -> str:
    last = figures.last
    if last.step >= FEW_STEPS or is_above(last.loss_nats, last.train_loss_nats, ALIKE):
        return ""
    return f"{last.step:,} steps are few to learn from: raise {figures.length_option}, or lower --batch-size"


def check_still_learning(figures: RunSummary) -> str:
    """Validation improved over the last quarter, and nothing is learned by heart yet."""
    last, since = figures.last, 0.75 * figures.last.step
    before = float(np.interp(since, [v.step for v in figures.validations], [v.loss_nats for v in figures.validations]))
    if not is_above(before, last.loss_nats, STILL_FALLING) or is_above(last.loss_nats, last.train_loss_nats, ALIKE):
        return ""
    fall = f"validation loss {before:.2f} to {last.loss_nats:.2f} in the last quarter"
    return f"it was still learning ({fall}): raise {figures.length_option}"


def check_too_small(figures: RunSummary) -> str:
    """A small model that has learned all it can."""
    last = figures.last
    if figures.parameters > FEW_PARAMETERS * figures.training_characters or is_above(
        last.loss_nats, last.train_loss_nats, ALIKE
    ):
        return ""
    return (
        f"{figures.parameters:,} parameters are few for {figures.training_characters:,} characters: "
        f"raise --hidden (now {figures.config.model.hidden})"
    )


def pair_entropy(ids: NDArray[np.integer]) -> float | None:
    """Entropy of a character in nats once the one before it is known, as counted; None where a text is too short."""
    codes = ids[:MAX_PAIRS_COUNTED].astype(np.uint64)
    _, pairs = np.unique(codes[:-1] << 32 | codes[1:], return_counts=True)
    _, firsts = np.unique(codes[:-1], return_counts=True)
    if len(codes) < OFTEN * max(len(pairs), 1):
        return None
    return entropy_nats(pairs) - entropy_nats(firsts)


def entropy_nats(counts: NDArray[np.integer]) -> float:
    """In nats."""
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())
