"""All that a training step changes, and so all that has to be saved: model, optimiser, data and progress."""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
import torch

from charlstm.config import Config
from charlstm.data.batches import Batches
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError, DivergedError, ModelFileError, UsageError
from charlstm.model.bidirectional import model_of
from charlstm.model.device import choose
from charlstm.model.language_model import detach
from charlstm.modelfile import BACKWARD, ModelFile
from charlstm.training import optimiser
from charlstm.training.averaging import Average
from charlstm.training.events import Started
from charlstm.training.penalties import to_minimise
from charlstm.training.progress import Progress

BY_SYMBOL = ("embedding.weight", "head.weight", "head.bias", "joint.weight", "joint.bias")
"""The weights with a row for each symbol of the vocabulary, in either direction."""


class Trainer:
    """A run between two steps. Raises CharlstmError for a corpus that is too small for the settings."""

    def __init__(self, corpus: Corpus, config: Config) -> None:
        self.config = config
        self.corpus = corpus
        self.vocabulary = corpus.vocabulary
        boundary, settings = self.vocabulary.boundary, config.training
        self.device = choose(
            config.model, settings.device, settings.precision, settings.engine, resets=boundary is not None
        )
        self.tokens = corpus.parts(config.data.split)
        torch.manual_seed(settings.seed)
        self.model = model_of(
            config.model,
            self.vocabulary.size,
            self.device.engine,
            config.regularisation,
            boundary,
            settings.look_ahead,
        ).to(self.device.name)
        self.batches = Batches(
            self.tokens.part("train"), settings.seq_len, settings.batch_size, settings.seed, self.model.look_ahead
        )
        self.optimiser = optimiser.optimiser_of(self.model, config.training)
        self.average = Average(self.model, config.training)
        self.states = self.model.start(config.training.batch_size)
        self.progress = Progress()

        self.validation_bytes = sum(map(self.vocabulary.count_bytes, self.tokens.part("val").chunks()))

    @property
    def total_steps(self) -> int:
        """Optimiser steps in all the epochs asked for, the windows staying as they are."""
        to_come = (self.config.training.epochs - self.batches.epochs_read) * self.batches.steps_per_epoch
        return self.progress.step + round(to_come)

    def started(self, fresh: str) -> Started:
        """The event that tells what is about to be trained; `fresh` are characters new to the weights taken over."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return Started(
            str(self.device), parameters, self.total_steps, self.batches.steps_per_epoch, self.progress.step, fresh
        )

    def step(self, learning_rate: float) -> float:
        """Reads one window, back-propagates through it and updates the weights. The loss in nats per character, that
        forwards where there are others.

        Raises DivergedError, with the weights as they were, if the loss or its gradient is not finite.
        """
        if self.batches.at_start:
            self.states = self.model.start(self.batches.batch_size)
        window = torch.from_numpy(self.batches.next()).to(self.device.name)
        with self.device.autocast():
            objectives, states = self.model.objectives(window, self.states)
        self.optimiser.zero_grad()
        to_minimise(objectives, self.config).backward()  # type: ignore[no-untyped-call]
        self.add_l1()
        norm, loss = self.clip(), objectives[0].losses.nats.item()
        if not (isfinite(loss) and isfinite(norm)):
            raise DivergedError(f"training diverged at step {self.progress.step + 1}: the loss is no longer a number")
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        self.average.update()
        self.states = detach(states)
        self.progress.step += 1
        self.progress.characters += self.batches.seq_len * self.batches.batch_size
        self.progress.loss_sum += loss
        self.progress.loss_count += 1
        return loss

    def clip(self) -> float:
        """Scales the gradient down to the largest norm allowed (Pascanu et al. 2013). Its norm before that."""
        settings = self.config.training
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip or float("inf"))
        if settings.clip_value:
            torch.nn.utils.clip_grad_value_(self.model.parameters(), settings.clip_value)
        return float(norm)

    def add_l1(self) -> None:
        """Adds to the gradient that of the matrices' absolute values (Tibshirani 1996), where they are penalised."""
        if l1 := self.config.regularisation.l1:
            for weight in optimiser.matrices(self.model):
                weight.grad.add_(weight.detach().sign(), alpha=l1)  # type: ignore[union-attr]

    def resize_windows(self, done: float) -> None:
        """At the beginning of an epoch: windows as many and as long as are due with this share of the training done."""
        settings = self.config.training
        if self.batches.at_start:
            self.batches.resize(
                between(settings.seq_len_start or settings.seq_len, settings.seq_len, done),
                between(settings.batch_size_start or settings.batch_size, settings.batch_size, done),
            )

    def model_file(self, figures: dict[str, Any]) -> ModelFile:
        """The model as it is now, and where it came from; no times, so that the same run makes the same file."""
        tokens, progress = self.tokens, self.progress
        about = {"fingerprint": self.corpus.fingerprint, "characters": len(tokens.ids), "split": list(tokens.split)}
        place = {"step": progress.step, "characters": progress.characters}
        with self.average.in_place():
            return ModelFile(self.config, self.vocabulary, self.model.weights(), about, place | figures)

    def start_from(self, other: ModelFile) -> str:
        """Takes over another model's weights. Gives the characters it does not know, which keep their fresh rows; so
        does a direction that it does not have.

        Raises UsageError if its layers are of another shape.
        """
        for name in ("cell", "activation", "layers", "hidden", "embedding", "between", "head"):
            theirs, ours = getattr(other.config.model, name), getattr(self.config.model, name)
            if theirs != ours:
                raise UsageError(f"--init-from: {name} is {theirs} in that model and {ours} here")
        weights, known = self.model.weights(), {piece: i for i, piece in enumerate(other.vocabulary.pieces)}
        rows = [(i, known[piece]) for i, piece in enumerate(self.vocabulary.pieces) if piece in known]
        ours, theirs = np.array(rows, np.int64).reshape(-1, 2).T
        for name in weights.keys() & other.weights.keys():
            if name.removeprefix(BACKWARD) in BY_SYMBOL:
                weights[name][ours] = other.weights[name][theirs]
            else:
                weights[name] = other.weights[name]
        self.model.load_weights(weights)
        self.average = Average(self.model, self.config.training)
        return b"".join(piece for piece in self.vocabulary.pieces if piece not in known).decode("utf-8", "replace")

    def state_dict(self) -> dict[str, Any]:
        """Everything that the steps to come depend on."""
        return {
            "corpus": self.corpus.fingerprint,
            "progress": self.progress.state_dict(),
            "batches": self.batches.state_dict(),
            "model": self.model.weights(),
            "optimiser": optimiser.state_dict(self.optimiser, self.model),
            "average": self.average.state_dict(),
            "hidden": {
                f"{k}.{n}": part.cpu().numpy().copy()
                for k, state in enumerate(self.states)
                for n, part in enumerate(state)
            },
            "random": random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises CharlstmError if the state is of a run on another text, ModelFileError if it is none of this run's."""
        if state.get("corpus") != self.corpus.fingerprint:
            raise CharlstmError(
                "the corpus has changed since this run was begun, so it cannot be resumed",
                "begin another run with --init-from",
            )
        try:
            self.restore(state)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise ModelFileError("the saved state does not fit the settings of its run") from error

    def restore(self, state: dict[str, Any]) -> None:
        """Raises as the parts do that find something in the state to be impossible."""
        self.progress.load_state_dict(state["progress"])
        check_place(state["batches"])
        self.batches.load_state_dict(state["batches"])
        self.model.load_weights(state["model"])
        optimiser.load_state_dict(self.optimiser, self.model, self.config.training, state["optimiser"])
        self.average.load_state_dict(state["average"])
        self.states = self.model.start(self.batches.batch_size)
        for k, parts in enumerate(self.states):
            saved = [state["hidden"][f"{k}.{n}"] for n in range(len(parts))]
            if any(new.shape != old.shape for new, old in zip(saved, parts, strict=True)):
                raise ValueError("hidden")
            self.states[k] = tuple(torch.from_numpy(new.copy()).to(self.device.name) for new in saved)
        set_random_state(state["random"])


def check_place(batches: dict[str, Any]) -> None:
    """Raises ValueError for a place that no reading of a text comes to."""
    for name in ("epoch", "step", "offset", "seq_len", "batch_size"):
        if type(batches[name]) is not int or not name.endswith(("len", "size")) <= batches[name] < 2**53:
            raise ValueError(name)


def between(first: int, last: int, done: float) -> int:
    """A whole number on the way from one to another, by equal factors."""
    factor: float = (last / first) ** min(done, 1.0)
    return round(first * factor)


def random_state() -> dict[str, Any]:
    """What torch's generators will draw next; dropout draws from them."""
    state = {"cpu": torch.get_rng_state().numpy()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state().numpy()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(torch.from_numpy(state["cpu"].copy()))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.from_numpy(state["cuda"].copy()))
