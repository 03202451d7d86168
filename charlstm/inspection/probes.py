"""What the state of a model knows about the lines of a text: a linear probe of labels, and the unit that knows most.

The probe is a logistic regression with an L1 penalty (Radford et al. 2017, section 4), under which most weights are 0.
Its accuracy is that on lines which neither the weights nor the penalty were fitted to. Next to it are those of the most
frequent label, and of the same probe on how often each character occurs in a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from charlstm.errors import UsageError
from charlstm.inspection.lines import LineState
from charlstm.matrices import Array
from charlstm.vocabulary import Ids
from charlstm.wording import quantity

SHARES = (0.6, 0.2)
"""Shares of the lines that weights and penalty are fitted to; the others are held out."""

MIN_LINES, MIN_OF_A_LABEL = 40, 5
"""Fewest lines, and fewest lines with each label, for a probe."""

PENALTIES = tuple(2.0**-k for k in range(1, 11))
"""Penalties that are tried, as shares of the least one under which all weights are 0."""

ITERATIONS = 300


@dataclass(frozen=True)
class LabelProbe:
    """How well a label is predicted from some features.

    features: what it is predicted from.
    accuracy: share of the held-out lines whose label is predicted.
    used: features with a weight.
    """

    features: str
    accuracy: float
    used: int

    def to_dict(self) -> dict[str, Any]:
        """Return the probe as JSON values."""
        return {"features": self.features, "accuracy": round(self.accuracy, 4), "used": self.used}


@dataclass(frozen=True)
class ProbeResult:
    """The probes of one set of labels, and the number of held-out lines."""

    probes: tuple[LabelProbe, ...]
    held_out: int


def probe_labels(
    lines: Sequence[LineState], labels: Sequence[str], unit_names: Sequence[str], seed: int
) -> ProbeResult:
    """Return how well the labels of lines can be predicted.

    lines: the lines of a text with their states, [S].
    labels: one for each line.
    unit_names: of the S values of a state.
    seed: draws the lines that are held out.

    Raises UsageError for labels of another number, a single label, and too few lines.
    """
    names, classes = check_labels(labels, len(lines))
    order = np.random.default_rng(seed).permutation(len(lines))
    parts = np.split(order, [round(SHARES[0] * len(order)), round(sum(SHARES) * len(order))])
    states = standardize_features(np.stack([line.state for line in lines]), parts[0])
    characters = standardize_features(character_shares([line.text for line in lines]), parts[0])
    majority = np.bincount(classes[np.concatenate(parts[:2])], minlength=len(names)).argmax()
    best = best_feature(states[parts[0]], classes[parts[0]])
    probes = (
        LabelProbe("the most frequent label", float((classes[parts[2]] == majority).mean()), 0),
        fit_probe("how often each character occurs", characters, classes, parts),
        fit_probe("the state", states, classes, parts),
        fit_probe(f"unit {unit_names[best]}", states[:, best : best + 1], classes, parts),
    )
    return ProbeResult(probes, len(parts[2]))


def check_labels(labels: Sequence[str], lines: int) -> tuple[list[str], Ids]:
    """Return the distinct labels, and the number of that of each line. Raises UsageError unless they can be probed."""
    if len(labels) != lines:
        raise UsageError(f"the labels are {len(labels):,}, and the text has {quantity(lines, 'line')}")
    names, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise UsageError("all lines have the same label")
    if lines < MIN_LINES or counts.min() < MIN_OF_A_LABEL:
        raise UsageError(
            f"a probe needs {MIN_LINES} lines and {MIN_OF_A_LABEL} with each label: there are {lines}, and "
            f"{counts.min()} with the label {str(names[counts.argmin()])!r}"
        )
    return names.tolist(), classes.astype(np.int64)


def character_shares(lines: Sequence[str]) -> Array:
    """Return the share of each character in each line, [lines, distinct characters]."""
    alphabet = {character: k for k, character in enumerate(sorted(set("".join(lines))))}
    counts = np.zeros((len(lines), max(len(alphabet), 1)), np.float32)
    for row, line in zip(counts, lines, strict=True):
        for character in line:
            row[alphabet[character]] += 1 / len(line)
    return counts


def standardize_features(values: Array, fitted: Ids) -> Array:
    """Return features with mean 0 and variance 1 over the lines that are fitted to; 0 for a constant one."""
    mean, deviation = values[fitted].mean(0), values[fitted].std(0)
    return np.asarray(np.where(deviation > 1e-6, (values - mean) / np.maximum(deviation, 1e-6), 0), np.float32)


def best_feature(values: Array, classes: Ids) -> int:
    """Return the feature whose means differ most between the classes, relative to its variance within them."""
    one_hot = np.eye(int(classes.max()) + 1, dtype=np.float32)[classes]
    counts = one_hot.sum(0)
    means = (one_hot.T @ values) / np.maximum(counts, 1)[:, None]
    between = (counts[:, None] * np.square(means - values.mean(0))).sum(0)
    within = np.square(values - means[classes]).sum(0)
    return int((between / np.maximum(within, 1e-6)).argmax())


def fit_probe(name: str, values: Array, classes: Ids, parts: Sequence[Ids]) -> LabelProbe:
    """Fit a probe with each penalty, and return the one with the best accuracy on the lines for that."""
    fitted, chosen, held_out = parts
    one_hot = np.eye(int(classes.max()) + 1, dtype=np.float32)[classes]
    start = np.abs(values[fitted].T @ (one_hot[fitted].mean(0) - one_hot[fitted])).max() / len(fitted)
    best: tuple[float, Array, Array] | None = None
    weights = np.zeros((values.shape[1], one_hot.shape[1]), np.float32)
    bias = np.log(np.maximum(one_hot[fitted].mean(0), 1e-6))
    for share in PENALTIES:
        weights, bias = fit_logistic(values[fitted], one_hot[fitted], float(start * share), weights, bias)
        accuracy = measure_accuracy(values[chosen], classes[chosen], weights, bias)
        if best is None or accuracy > best[0]:
            best = accuracy, weights, bias
    assert best is not None
    used = int((np.abs(best[1]).max(1) > 0).sum())
    return LabelProbe(name, measure_accuracy(values[held_out], classes[held_out], *best[1:]), used)


def measure_accuracy(values: Array, classes: Ids, weights: Array, bias: Array) -> float:
    return float(((values @ weights + bias).argmax(1) == classes).mean())


def fit_logistic(values: Array, one_hot: Array, penalty: float, weights: Array, bias: Array) -> tuple[Array, Array]:
    """Return the weights [S, K] and bias [K] of a logistic regression with an L1 penalty on the weights.

    It minimizes by accelerated proximal gradients (Beck and Teboulle 2009, FISTA), from these weights on.
    """
    rate = 2 / (largest_eigenvalue(values) + 1)  # of the softmax, whose curvature is at most 1/2
    ahead, ahead_bias, momentum = weights, bias, 1.0
    for _ in range(ITERATIONS):
        errors = softmax(values @ ahead + ahead_bias) - one_hot
        step = ahead - rate * (values.T @ errors) / len(values)
        new = np.sign(step) * np.maximum(np.abs(step) - rate * penalty, 0)
        new_bias = ahead_bias - rate * errors.mean(0)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        share = np.float32((momentum - 1) / following)
        ahead, ahead_bias = new + share * (new - weights), new_bias + share * (new_bias - bias)
        weights, bias, momentum = new, new_bias, following
    return weights.astype(np.float32), bias.astype(np.float32)


def largest_eigenvalue(values: Array) -> float:
    """Return the largest eigenvalue of the covariance of features, by power iteration."""
    vector = np.ones(values.shape[1], np.float32) / np.float32(values.shape[1] ** 0.5)
    size = 0.0
    for _ in range(30):
        image = values.T @ (values @ vector) / len(values)
        size = float(np.linalg.norm(image))
        if size == 0:
            break
        vector = image / np.float32(size)
    return size


def softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(weights / weights.sum(1, keepdims=True))
