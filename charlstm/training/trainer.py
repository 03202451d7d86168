"""All that a training step changes, and so all that has to be saved: model, optimizer, data and progress."""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
import torch

from charlstm.architecture import names_per_symbol
from charlstm.config import Config
from charlstm.data.batches import Batches
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError, DivergedError, ModelFileError, UsageError
from charlstm.model.bidirectional import build_model
from charlstm.model.device import choose_device
from charlstm.model.language_model import detach_states
from charlstm.storage.model import ModelFile
from charlstm.training import optimizer
from charlstm.training.averaging import WeightAverage
from charlstm.training.objective import total_loss
from charlstm.training.progress import Progress


class Trainer:
    """A run between two steps. Raises CharlstmError for a corpus that is too small for the settings."""

    def __init__(self, corpus: Corpus, config: Config) -> None:
        self.config = config
        self.corpus = corpus
        self.vocabulary = corpus.vocabulary
        boundary, settings = self.vocabulary.end_of_document, config.training
        self.device = choose_device(
            config.model, settings.device, settings.precision, settings.engine, resets=boundary is not None
        )
        self.tokens = corpus.split(config.data.split)
        torch.manual_seed(settings.seed)
        self.model = build_model(
            config.model,
            self.vocabulary.size,
            self.device.engine,
            config.regularization,
            boundary,
            settings.look_ahead,
        ).to(self.device.name)
        self.batches = Batches(
            self.tokens.part("train"), settings.seq_len, settings.batch_size, settings.seed, self.model.look_ahead
        )
        self.optimizer = optimizer.build_optimizer(self.model, config.training)
        self.average = WeightAverage(self.model, config.training)
        self.states = self.model.initial_state(config.training.batch_size)
        self.progress = Progress()

        self.validation_bytes = sum(map(self.vocabulary.count_bytes, self.tokens.part("val").chunks()))

    @property
    def total_steps(self) -> int:
        """Optimizer steps in all the epochs asked for, the windows staying as they are."""
        to_come = (self.config.training.epochs - self.batches.epochs_read) * self.batches.steps_per_epoch
        return self.progress.step + round(to_come)

    @property
    def parameter_count(self) -> int:
        """Number of trained weights."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def step(self, learning_rate: float) -> float:
        """Reads one window, back-propagates through it and updates the weights. The loss in nats per character, that
        forwards where there are others.

        Raises DivergedError, with the weights as they were, if the loss or its gradient is not finite.
        """
        if self.batches.at_epoch_start:
            self.states = self.model.initial_state(self.batches.batch_size)
        window = torch.from_numpy(self.batches.next_window()).to(self.device.name)
        with self.device.autocast():
            objectives, states = self.model.compute_objectives(window, self.states)
        self.optimizer.zero_grad()
        total_loss(objectives, self.config).backward()  # type: ignore[no-untyped-call]
        self.add_l1_gradient()
        norm, loss = self.clip_gradients(), objectives[0].losses.nats.item()
        if not (isfinite(loss) and isfinite(norm)):
            raise DivergedError(f"training diverged at step {self.progress.step + 1}: the loss is no longer a number")
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.average.update()
        self.states = detach_states(states)
        self.progress.step += 1
        self.progress.characters += self.batches.seq_len * self.batches.batch_size
        self.progress.loss_sum += loss
        self.progress.loss_count += 1
        return loss

    def clip_gradients(self) -> float:
        """Scales the gradient down to the largest norm allowed (Pascanu et al. 2013). Its norm before that."""
        settings = self.config.training
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip or float("inf"))
        return float(norm)

    def add_l1_gradient(self) -> None:
        """Adds to the gradient that of the matrices' absolute values (Tibshirani 1996), where they are penalised."""
        if l1 := self.config.regularization.l1:
            for weight in optimizer.weight_matrices(self.model):
                weight.grad.add_(weight.detach().sign(), alpha=l1)  # type: ignore[union-attr]

    def model_file(self, metrics: dict[str, Any]) -> ModelFile:
        """The model as it is now, and where it came from; no times, so that the same run makes the same file."""
        tokens, progress = self.tokens, self.progress
        about = {"fingerprint": self.corpus.fingerprint, "characters": len(tokens.ids), "split": list(tokens.shares)}
        place = {"step": progress.step, "characters": progress.characters}
        with self.average.applied():
            return ModelFile(self.config, self.vocabulary, self.model.export_weights(), about, place | metrics)

    def init_from(self, other: ModelFile) -> str:
        """Takes over another model's weights. Gives the characters it does not know, which keep their fresh rows; so
        does a direction that it does not have.

        Raises UsageError if its layers are of another shape.
        """
        for name in ("cell", "activation", "layers", "hidden", "embedding", "between", "head"):
            theirs, ours = getattr(other.config.model, name), getattr(self.config.model, name)
            if theirs != ours:
                raise UsageError(f"--init-from: {name} is {theirs} in that model and {ours} here")
        weights, known = self.model.export_weights(), {piece: i for i, piece in enumerate(other.vocabulary.symbols)}
        rows = [(i, known[piece]) for i, piece in enumerate(self.vocabulary.symbols) if piece in known]
        ours, theirs = np.array(rows, np.int64).reshape(-1, 2).T
        per_symbol = names_per_symbol(self.config.model)
        for name in weights.keys() & other.weights.keys():
            if name in per_symbol:
                weights[name][ours] = other.weights[name][theirs]
            else:
                weights[name] = other.weights[name]
        self.model.load_weights(weights)
        self.average = WeightAverage(self.model, self.config.training)
        return b"".join(piece for piece in self.vocabulary.symbols if piece not in known).decode("utf-8", "replace")

    def state_dict(self) -> dict[str, Any]:
        """Everything that the steps to come depend on."""
        return {
            "corpus": self.corpus.fingerprint,
            "progress": self.progress.state_dict(),
            "batches": self.batches.state_dict(),
            "model": self.model.export_weights(),
            "optimizer": optimizer.state_dict(self.optimizer, self.model.parameters_by_name()),
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
            self.load_parts(state)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise ModelFileError("the saved state does not fit the settings of its run") from error

    def load_parts(self, state: dict[str, Any]) -> None:
        """Raises as the parts do that find something in the state to be impossible."""
        self.progress.load_state_dict(state["progress"])
        check_place(state["batches"])
        self.batches.load_state_dict(state["batches"])
        self.model.load_weights(state["model"])
        parameters = self.model.parameters_by_name()
        optimizer.load_state_dict(self.optimizer, parameters, self.config.training, state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.states = self.model.initial_state(self.batches.batch_size)
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
