"""The state of training between two steps: model, optimizer, position in the text and progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import numpy as np
import torch

import charlstm
from charlstm.architecture import BIGRAMS, names_per_symbol
from charlstm.config import Config
from charlstm.data.batches import Batches
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError, DivergedError, ModelFileError, UsageError
from charlstm.evaluation.evaluate import evaluate
from charlstm.evaluation.metrics import Metrics
from charlstm.evaluation.streams import Streams
from charlstm.model.bidirectional import build_model
from charlstm.model.device import choose_device, use_threads
from charlstm.model.ranks import Ranks, checksum
from charlstm.runtime import MAX_CORES, count_cores, read_memory
from charlstm.storage.model import ModelFile
from charlstm.training.averaging import WeightAverage
from charlstm.training.optimizer import Optimizer, weight_matrices
from charlstm.training.progress import Progress
from charlstm.training.shards import ShardedGradient, concatenate_states, random_state
from charlstm.workers import CAN_FORK, count_processes

SHAPE_SETTINGS = ("cell", "activation", "layers", "hidden", "embedding", "bigrams", "between", "head")
"""Settings of the model that must be the same in a model whose weights are taken over."""

MAX_POSITION = 2**53
"""Largest position in a saved state: floats count exactly up to it."""


class Trainer:
    """Everything that a training step changes.

    corpus: the text and its vocabulary.
    config: the settings of the run.
    ranks: the processes that train together, each with some of the streams.

    With several processes, close the trainer when it is no longer needed.

    Raises CharlstmError for a corpus that is too small for the settings, UsageError for streams that cannot be divided
    among the ranks.
    """

    def __init__(self, corpus: Corpus, config: Config, ranks: Ranks | None = None) -> None:
        self.config, self.ranks = config, ranks or Ranks()
        check_ranks(config, self.ranks)
        self.corpus = corpus
        self.vocabulary = corpus.vocabulary
        end_of_document, settings = self.vocabulary.end_of_document, config.training
        self.device = choose_device(
            config.model, settings.device, settings.precision, settings.engine, resets=end_of_document is not None
        )
        self.tokens = corpus.split(config.data.split)
        torch.manual_seed(settings.seed)
        with use_threads(1):  # initial weights are small matrices, whose threads would wait for each other
            model = build_model(
                config.model,
                self.vocabulary.size,
                self.device.engine,
                config.regularization,
                end_of_document,
                settings.look_ahead,
            )
        self.model = model.to(self.device.name)
        self.batches = Batches.from_config(self.tokens.part("train"), config)
        self.optimizer = Optimizer(self.model, settings)
        self.average = WeightAverage(self.model, settings)
        self.gradient = self.divide_streams(settings.threads or count_cores())
        self.progress = Progress()
        self.poll: Callable[[], Sequence[float]] = tuple  # numbers to add up over the ranks along with the gradients
        self.polled: Sequence[float] = ()  # their sums, after a step; empty without other ranks
        self.validation_chars = self.streams_of("val", config.training.validation_chars).characters

    def divide_streams(self, cores: int) -> ShardedGradient:
        """Divide the streams among as many processes as these cores can run; a GPU gets one."""
        self.cores = cores
        streams = self.ranks.divide(self.config.training.batch_size)
        processes = count_processes(cores, streams.stop - streams.start) if self.device.name == "cpu" else 1
        return ShardedGradient(self.model, self.config, self.device, streams, processes)

    def describe_device(self) -> str:
        """Return the device, the precision, the engine and the number of processes, in words."""
        processes = self.ranks.size * self.gradient.processes
        return f"{self.device}, {processes} processes" if processes > 1 else str(self.device)

    def measure_memory(self) -> dict[str, int]:
        """Return the memory that this rank uses, for a line of metrics.jsonl; empty where that is unknown."""
        used = read_memory([os.getpid(), *self.gradient.pids])
        memory = {"memory_bytes": used} if used else {}
        if self.device.name == "cuda":
            memory["gpu_memory_bytes"] = torch.cuda.max_memory_reserved()
        return memory

    def streams_of(self, part: str, limit: int) -> Streams:
        """Return the streams in which `evaluate_part` reads a part of the corpus."""
        return Streams.for_evaluation(len(self.tokens.part(part)), limit)

    def evaluate_part(self, part: str, limit: int, stop: Callable[[], bool] = lambda: False) -> Metrics | None:
        """Evaluate the model, as it is, on about `limit` characters from all over a part of the corpus; 0 means all.

        Each rank reads some of its streams. Returns None if `stop()` is true before the end, on any rank.
        """
        tokens, vocabulary = self.tokens.part(part), self.vocabulary
        spans = self.streams_of(part, limit).spans
        size = sum(vocabulary.count_bytes(chunk) for span in spans for chunk in tokens.chunks(*span))
        return evaluate(self.model, tokens, vocabulary.bos, size, stop, self.cores, limit, self.ranks)

    def check_weights(self) -> None:
        """Raise CharlstmError unless all ranks have the same weights, to the last bit."""
        self.ranks.check_equal({f"the model at step {self.progress.step:,}": checksum([*self.model.parameters()])})

    def close(self) -> None:
        """End the other processes that share the training. The trainer takes no step afterwards."""
        self.gradient.close()

    @property
    def total_steps(self) -> int:
        """Optimizer steps in all epochs: those taken and those to come."""
        remaining = (self.config.training.epochs - self.batches.epochs_read) * self.batches.steps_per_epoch
        return self.progress.step + round(remaining)

    @property
    def parameter_count(self) -> int:
        """Number of trained weights."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def step(self, learning_rate: float) -> float:
        """Read one window, back-propagate through it and update the weights.

        Returns the loss in nats per character: the forward loss of a bidirectional model. Raises DivergedError if the
        loss or its gradient is not finite; the weights are then unchanged.
        """
        reset, window = self.batches.at_segment_start, self.batches.next_window()
        threads = 1 if CAN_FORK else self.config.training.threads
        with use_threads(threads), self.gradient.use_core():
            loss = self.gradient.compute(window, reset=reset)
            if self.ranks.size > 1:
                loss, *self.polled = self.ranks.sum_gradients(self.model, [loss, *self.poll()])
            self.add_l1_gradient()
            norm = self.clip_gradients()
            if not (isfinite(loss) and isfinite(norm)):
                raise DivergedError(f"training diverged at step {self.progress.step + 1}: the loss is not finite")
            self.optimizer.step(learning_rate)
            self.average.update()
        self.progress.record_step(self.batches.seq_len * self.batches.batch_size, loss, learning_rate, norm)
        return loss

    def clip_gradients(self) -> float:
        """Scale the gradient down to the norm `training.clip` (Pascanu et al. 2013). Returns its norm before."""
        settings = self.config.training
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip or float("inf"))
        return float(norm)

    def add_l1_gradient(self) -> None:
        """Add the gradient of the L1 penalty on the matrices (Tibshirani 1996): l1 * sign(W)."""
        if l1 := self.config.regularization.l1:
            for weight in weight_matrices(self.model):
                weight.grad.add_(weight.detach().sign(), alpha=l1)  # type: ignore[union-attr]

    def model_file(self, metrics: dict[str, Any]) -> ModelFile:
        """Return the model with its averaged weights, its place in training and these metrics.

        The file has no times, so the same run writes the same file.
        """
        tokens, progress = self.tokens, self.progress
        corpus = {"fingerprint": self.corpus.fingerprint, "characters": len(tokens.ids), "split": list(tokens.shares)}
        position = {"step": progress.step, "characters": progress.characters}
        with self.average.applied():
            weights = self.model.export_weights()
            return ModelFile(self.config, self.vocabulary, weights, corpus, position | metrics, charlstm.__version__)

    def init_from(self, other: ModelFile) -> str:
        """Take over the weights of another model, symbol by symbol where a weight has a row per symbol.

        Returns the characters that the other model does not have. Their rows keep their initial values, as does a
        direction that the other model does not have. Raises UsageError for a model with other layers.
        """
        for name in SHAPE_SETTINGS:
            theirs, ours = getattr(other.config.model, name), getattr(self.config.model, name)
            if theirs != ours:
                raise UsageError(
                    f"--init-from: {name} is {theirs} in that model and {ours} here",
                    "leave it out: the value of the model is the default",
                )
        weights, known = self.model.export_weights(), {symbol: i for i, symbol in enumerate(other.vocabulary.symbols)}
        shared = [(i, known[symbol]) for i, symbol in enumerate(self.vocabulary.symbols) if symbol in known]
        our_rows, their_rows = np.array(shared, np.int64).reshape(-1, 2).T
        per_symbol = names_per_symbol(self.config.model)
        same_ids = self.vocabulary.symbols == other.vocabulary.symbols
        for name in weights.keys() & other.weights.keys():
            if name.endswith(BIGRAMS) and not same_ids:
                continue  # a pair has another row there
            if name in per_symbol:
                weights[name][our_rows] = other.weights[name][their_rows]
            else:
                weights[name] = other.weights[name]
        self.model.load_weights(weights)
        self.average = WeightAverage(self.model, self.config.training)
        new = b"".join(symbol for symbol in self.vocabulary.symbols if symbol not in known)
        return new.decode("utf-8", "replace")

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next steps depend on: on the first rank with the states of all streams."""
        return {
            "corpus": self.corpus.fingerprint,
            "progress": self.progress.state_dict(),
            "batches": self.batches.state_dict(),
            "model": self.model.export_weights(),
            "optimizer": self.optimizer.export_moments(self.model.parameters_by_name()),
            "average": self.average.state_dict(),
            "hidden": {
                f"{k}.{n}": part
                for k, state in enumerate(concatenate_states(self.ranks.gather(self.gradient.export_states())))
                for n, part in enumerate(state)
            },
            "ranks": self.ranks.size,
            "cores": self.cores,
            "random": random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state.

        Raises CharlstmError for the state of a run on another text, ModelFileError for one that does not fit the
        settings.
        """
        if state.get("corpus") != self.corpus.fingerprint:
            raise CharlstmError(
                "cannot resume: the corpus has changed since the run was started",
                "start a new run with the weights of this one: --init-from",
            )
        try:
            self.load_parts(state)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise ModelFileError("the saved state does not fit the settings of its run") from error

    def load_parts(self, state: dict[str, Any]) -> None:
        """Load the parts of a state. Raises one of the errors that `load_state_dict` turns into ModelFileError."""
        self.progress.load_state_dict(state["progress"])
        check_position(state["batches"])
        self.batches.load_state_dict(state["batches"])
        self.model.load_weights(state["model"])
        self.optimizer.load_moments(self.model.parameters_by_name(), state["optimizer"])
        self.average.load_state_dict(state["average"])
        cores = state.get("cores", self.cores)  # a state of version 0.1.0-alpha does not have it
        if type(cores) is not int or not 1 <= cores <= MAX_CORES:
            raise ValueError("the state has an impossible number of cores")
        same_ranks = state.get("ranks", 1) == self.ranks.size  # another number of ranks has other cores
        if cores != self.cores and same_ranks and not self.config.training.threads:
            self.gradient.close()
            self.gradient = self.divide_streams(cores)
        shapes = self.model.initial_state(self.batches.batch_size)
        self.gradient.load_states(
            [tuple(state["hidden"][f"{k}.{n}"] for n in range(len(parts))) for k, parts in enumerate(shapes)],
            state["random"],
        )


def check_ranks(config: Config, ranks: Ranks) -> None:
    """Raise UsageError unless the streams can be divided evenly among the ranks."""
    streams = config.training.batch_size
    if streams % ranks.size:
        near = max(streams // ranks.size, 1) * ranks.size
        raise UsageError(f"--batch-size {streams} cannot be divided evenly among {ranks.size} processes", f"{near} can")


def check_position(batches: dict[str, Any]) -> None:
    """Raise ValueError for a position in the text that is impossible."""
    minimums = {"epoch": 0, "step": 0, "offset": 0, "seq_len": 1, "batch_size": 1}
    for name, minimum in minimums.items():
        if type(batches[name]) is not int or not minimum <= batches[name] < MAX_POSITION:
            raise ValueError(f"the position in the data has an impossible {name}")
