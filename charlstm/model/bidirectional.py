"""Two language models, one per direction, and a head that predicts each character from both of its sides.

The forward model has read x_1 .. x_{t-1} when it predicts x_t; the backward model has read x_N .. x_{t+1}. Neither has
read x_t, nor has the joint head, which reads the outputs of both at that position. This is the biLM of ELMo (Peters et
al. 2018, sec. 3.1) with a common prediction on top.
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.config import ModelConfig, RegularizationConfig
from charlstm.model.head import Head, JointHead
from charlstm.model.language_model import LanguageModel, Objective, compute_head_losses
from charlstm.model.layers import Engine
from charlstm.model.stack import TensorStates
from charlstm.model.weights import ExportableModule


class BidirectionalModel(ExportableModule):
    """A forward model, a backward model with the same embedding, and a joint head.

    The backward model is an ordinary language model of the reversed text: the caller reverses the ids. The parameters
    are those of `LanguageModel`, and one more.

    Args:
        look_ahead: characters after a window that the backward model reads in training, unscored, before the window.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        engine: Engine = "kernel",
        regularization: RegularizationConfig = RegularizationConfig(),
        end_of_document: int | None = None,
        look_ahead: int = 1,
    ) -> None:
        super().__init__()
        self.config = config
        forward_lm = LanguageModel(config, vocabulary_size, engine, regularization, end_of_document)
        self.embedding = forward_lm.embedding
        self.forward_lm = forward_lm
        self.backward_lm = LanguageModel(
            config, vocabulary_size, engine, regularization, end_of_document, self.embedding
        )
        inputs = 2 * config.hidden * forward_lm.head_layers
        self.joint = JointHead(inputs, config.joint_width, self.embedding, config.head == "tied")
        self.look_ahead = look_ahead

    @property
    def head(self) -> Head:
        """The head of the forward model."""
        return self.forward_lm.head

    def compute_objectives(self, window: Tensor, states: TensorStates) -> tuple[list[Objective], TensorStates]:
        """Return three losses of the targets of a window: forward, backward and from both sides.

        The backward model has no state to carry over, because it would come from the next window. It starts from its
        initial state at the end of the look-ahead, whose characters are neither scored nor a source of gradients.

        Args:
            window: [T+1+A, B]; the targets are the T characters after the first, the last A are the look-ahead.
            states: those of the forward model; returned after T characters.
        """
        steps = len(window) - 1 - self.look_ahead
        targets = window[1 : steps + 1]
        following = window[2:].flip(
            0
        )  # x_{T+1+A} .. x_3; after reading the last T, one by one, it predicts x_{T+1} .. x_2
        forward, states = self.forward_lm.unroll(window[:steps], states)
        with torch.no_grad():
            state = self.backward_lm.initial_state(window.shape[1])
            state = self.backward_lm.unroll(following[:-steps], state)[1] if len(following) > steps else state
        backward, _ = self.backward_lm.unroll(following[-steps:], state)
        both = self.join(forward.head_input, backward.head_input.flip(0))
        smoothing = self.forward_lm.label_smoothing
        return [
            Objective(compute_head_losses(self.forward_lm.head, forward.head_input, targets, smoothing), forward),
            Objective(
                compute_head_losses(self.backward_lm.head, backward.head_input, targets.flip(0), smoothing), backward
            ),
            Objective(compute_head_losses(self.joint, both, targets, smoothing), None),
        ], states

    def join(self, forward: Tensor, backward: Tensor) -> Tensor:
        """Concatenate what the forward and the backward head read for the same targets: the input of the joint head."""
        return torch.cat([forward, backward], -1)

    def initial_state(self, batch: int) -> TensorStates:
        """Return the states of the forward model for B sequences before their first character."""
        return self.forward_lm.initial_state(batch)


Model = LanguageModel | BidirectionalModel


def build_model(
    config: ModelConfig,
    vocabulary_size: int,
    engine: Engine = "kernel",
    regularization: RegularizationConfig = RegularizationConfig(),
    end_of_document: int | None = None,
    look_ahead: int = 1,
) -> Model:
    """Return a model with random weights, bidirectional or not as the config says."""
    if config.bidirectional:
        return BidirectionalModel(config, vocabulary_size, engine, regularization, end_of_document, look_ahead)
    return LanguageModel(config, vocabulary_size, engine, regularization, end_of_document)
