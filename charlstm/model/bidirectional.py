"""Two language models, one for each direction, and a head that predicts a character from both of its sides.

The forward one has read x_1 .. x_{t-1} when it predicts x_t, the backward one x_N .. x_{t+1}. Neither has seen x_t,
nor has the joint head, which reads what goes up from both there: ELMo's biLM (Peters et al. 2018, sec. 3.1), joined at
the top.
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
    """The two models, whose embedding is the same, and the joint head.

    The backward model is a language model like the other one, of texts turned round: it reads the ids that it is given
    in the order in which it is given them. Raises as LanguageModel does.
    """

    def __init__(
        self,
        config: ModelConfig,
        size: int,
        engine: Engine = "kernel",
        regularization: RegularizationConfig = RegularizationConfig(),
        end_of_document: int | None = None,
        look_ahead: int = 1,
    ) -> None:
        super().__init__()
        self.config = config
        forwards = LanguageModel(config, size, engine, regularization, end_of_document)
        self.embedding = forwards.embedding
        self.forward_lm = forwards
        self.backward_lm = LanguageModel(config, size, engine, regularization, end_of_document, self.embedding)
        reads = 2 * config.hidden * forwards.head_layers
        self.joint = JointHead(reads, config.joint_width, self.embedding, config.head == "tied")
        self.look_ahead = look_ahead

    @property
    def head(self) -> Head:
        """The forward model's."""
        return self.forward_lm.head

    def compute_objectives(self, window: Tensor, states: TensorStates) -> tuple[list[Objective], TensorStates]:
        """What to minimise over a window [T+1+A, B] of which the last A characters are the look-ahead: the losses of
        the T characters before those, forwards, backwards and from both sides.

        `states` are the forward model's. The backward one begins with the last of the look-ahead, of which nothing is
        scored and nothing learnt but what state it leads to.
        """
        steps = len(window) - 1 - self.look_ahead
        targets = window[1 : steps + 1]
        ahead = window[2:].flip(0)  # x_{T+A} .. x_2, the last T of which are read to predict x_T .. x_1
        forward, states = self.forward_lm.unroll(window[:steps], states)
        with torch.no_grad():
            begin = self.backward_lm.initial_state(window.shape[1])
            begin = self.backward_lm.unroll(ahead[:-steps], begin)[1] if len(ahead) > steps else begin
        backward, _ = self.backward_lm.unroll(ahead[-steps:], begin)
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
        """What the joint head reads to predict characters, of what the two heads do for the same ones."""
        return torch.cat([forward, backward], -1)

    def initial_state(self, batch: int) -> TensorStates:
        """The forward model's state of B texts of which nothing has been read."""
        return self.forward_lm.initial_state(batch)


Model = LanguageModel | BidirectionalModel


def build_model(
    config: ModelConfig,
    size: int,
    engine: Engine = "kernel",
    regularization: RegularizationConfig = RegularizationConfig(),
    end_of_document: int | None = None,
    look_ahead: int = 1,
) -> Model:
    """The model of the settings."""
    if config.bidirectional:
        return BidirectionalModel(config, size, engine, regularization, end_of_document, look_ahead)
    return LanguageModel(config, size, engine, regularization, end_of_document)
