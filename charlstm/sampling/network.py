"""The network in NumPy, one character at a time: ids in, logits out. The caller carries the state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from charlstm.architecture import BIGRAMS, EMBEDDING, HEAD, HeadNames, bigram_row, highway_name, layer_weight_name
from charlstm.cells import ACTIVATIONS, CELLS, Gates, State, Weights, sigmoid
from charlstm.config import ModelConfig
from charlstm.matrices import Array, Matrix, QuantizedMatrix, matvec
from charlstm.vocabulary import Ids

RECURRENT_MATRICES = ("weight_hh", "weight_hy")

LayerStep = Callable[[Array, State], State]
"""Returns the state of a layer from its projected input, [1, G*H], and its state before, [1, H] each."""

States = list[State]
"""The state of each layer, then that of the bigrams, if any: the last symbol that was read, plus 1, [N, 1]."""

MAX_TABLE = 2**25
"""Entries in the table of input projections, 128 MB; larger ones are not stored."""


class OutputHead(NamedTuple):
    """The output layer: weight [V, M] and bias [V], after an optional projection [M, R] of its input.

    `mix` is the weight and bias of the tanh layer with which the head of both directions starts.
    """

    weight: Matrix
    bias: Array
    projection: Matrix | None
    mix: tuple[Array, Array] | None = None

    @classmethod
    def from_weights(cls, weights: Mapping[str, Array], names: HeadNames, tied: bool) -> OutputHead:
        """Return the head whose weights have these names: `HEAD`, or `JOINT_HEAD` of a bidirectional model."""
        mix = (weights[names.mix_weight], weights[names.mix_bias]) if names.mix_weight else None
        weight = weights[EMBEDDING if tied else names.weight]
        return cls(weight, weights[names.bias], weights.get(names.projection), mix)

    def logits(self, x: Array) -> Array:
        """Return logits [N, V] from the head's input, [N, R]."""
        if self.mix is not None:
            weight, bias = self.mix
            x = np.tanh(matvec(weight, x) + bias)
        return matvec(self.weight, x if self.projection is None else matvec(self.projection, x)) + self.bias


class Clamp(NamedTuple):
    """Units of a layer that are set to a value after each step: their cell state, or the output of a cell without one.

    `rows` are the sequences of which they are set: all, or an array with the sequence of each unit.
    """

    layer: int
    units: Ids  # [K]
    values: Array  # [K]
    rows: Ids | slice = slice(None)


class LogitHead(Protocol):
    """An output layer, or several as one."""

    def logits(self, x: Array) -> Array: ...


class SymbolReader(Protocol):
    """What reads symbols and predicts the next one: a network, or several as one, with the methods of `Network`."""

    quantized: bool

    @property
    def networks(self) -> Sequence[Network]: ...

    @property
    def head(self) -> LogitHead: ...

    def initial_state(self, n: int) -> States: ...

    def step(self, ids: Ids, states: States) -> tuple[Array, States]: ...

    def advance(self, ids: Ids, states: States) -> tuple[Array, States]: ...


class Network:
    """Embedding, layers and head of a model, which reads N sequences at once.

    The state of a sequence is reset before it reads the id `end_of_document`. Units in `clamps` do not follow their
    equations.

    quantized: whether the matrices that multiply states are rounded to 8 bits. One product then serves all sequences;
        otherwise they are multiplied one by one, up to `MAX_ROWWISE` of them. Neither depends on how many there are.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, Array],
        end_of_document: int | None = None,
        clamps: Sequence[Clamp] = (),
        *,
        quantized: bool = False,
    ) -> None:
        self.config, self.end_of_document, self.clamps, self.quantized = config, end_of_document, clamps, quantized
        self.cell = CELLS[config.cell]
        self.activation = ACTIVATIONS[config.activation]
        self.embedding = weights[EMBEDDING]
        self.bigrams = weights.get(BIGRAMS)
        self.layers = [layer_weights(weights, config.cell, k) for k in range(config.layers)]
        self.highways = highway_weights(weights, config)
        self.head = OutputHead.from_weights(weights, HEAD, config.head == "tied")
        self.layer_steps: list[LayerStep | None] = [None] * config.layers  # faster steps of one sequence
        if quantized:
            self.quantize()
        # The input projection of a character never changes: it is computed when first read, then looked up. With
        # bigrams it is that of a pair.
        inputs, width = len(self.embedding), len(self.layers[0]["bias_ih"])
        inputs *= 1 if self.bigrams is None else inputs + 1
        self.uses_table = inputs * width <= MAX_TABLE
        self.projections = np.empty((inputs if self.uses_table else 0, width), np.float32)
        self.known_rows: set[int] = set()

    @property
    def networks(self) -> Sequence[Network]:
        """The networks of which the prediction is made: this one."""
        return (self,)

    def quantize(self) -> None:
        """Round the matrices that multiply states. The projection of embeddings, computed once per id, stays exact."""
        is_bounded = self.cell.is_bounded and self.config.between != "residual" and not self.clamps

        def rounded(matrix: Matrix, is_bounded: bool = is_bounded) -> QuantizedMatrix:
            return QuantizedMatrix.quantize(np.asarray(matrix), is_bounded)

        for k, layer in enumerate(self.layers):
            names = [name for name in RECURRENT_MATRICES if name in layer] + ["weight_ih"] * (k > 0)
            self.layers[k] = {**layer, **{name: rounded(layer[name]) for name in names}}
        self.highways = {k: (rounded(weight), bias) for k, (weight, bias) in self.highways.items()}
        weight, bias, projection, mix = self.head
        if projection is None:
            self.head = OutputHead(rounded(weight), bias, None, mix)
        else:
            self.head = OutputHead(rounded(weight, is_bounded=False), bias, rounded(projection), mix)

    def matrices(self) -> Iterator[QuantizedMatrix]:
        """Yield the quantized matrices, and the slices of them that steps have used."""
        highways = [weight for weight, _ in self.highways.values()]
        layers = [weight for layer in self.layers for weight in layer.values()]
        for matrix in (*layers, *highways, self.head.weight, self.head.projection):
            if isinstance(matrix, QuantizedMatrix):
                yield matrix
                yield from matrix.row_slices.values()

    def initial_state(self, n: int) -> States:
        """Return the state of `n` sequences that have read nothing: zeros, [N, H] each."""
        zeros = np.zeros((n, self.config.hidden), np.float32)
        last = [] if self.bigrams is None else [(np.zeros((n, 1), np.float32),)]
        return [(zeros,) * len(self.cell.state) for _ in self.layers] + last

    def step(self, ids: Ids, states: States) -> tuple[Array, States]:
        """Read one id per sequence, [N]. Return the logits of the next one, [N, V], and the state."""
        head_input, after = self.advance(ids, states)
        return self.head.logits(head_input), after

    def advance(self, ids: Ids, states: States) -> tuple[Array, States]:
        """Read one id per sequence, [N], without a prediction. Return the head's input, [N, R], and the state."""
        if self.end_of_document is not None:
            states = reset_rows(states, ids == self.end_of_document)
        x = self.project_ids(ids, None if self.bigrams is None else states[-1][0][:, 0].astype(np.int64))
        outputs: list[Array] = []
        after: States = []
        for k, (layer, old) in enumerate(zip(self.layers, states[: len(self.layers)], strict=True)):
            if k:
                x = matvec(layer["weight_ih"], outputs[-1]) + layer["bias_ih"]
            state, _ = self.step_layer(k, x, old)
            outputs.append(self.combine(k, outputs[-1], state[0]) if k else state[0])
            after.append(state)
        if self.bigrams is not None:
            after.append(((ids + 1).astype(np.float32)[:, None],))
        return (np.concatenate(outputs, 1) if self.config.head == "all" else outputs[-1]), after

    def step_layer(self, k: int, x: Array, old: State) -> tuple[State, Gates]:
        """Return the state and gates of layer k from its projected input, [N, G*H], and its state before.

        A compiled step returns no gates.
        """
        compiled = self.layer_steps[k] if len(x) == 1 else None
        gates: Gates = {}
        if compiled is not None:
            state = compiled(x, old)
        else:
            state, gates = self.cell.step(x, old, self.layers[k], self.activation)
        for clamp in self.clamps:
            if clamp.layer == k:
                state = self.set_units(clamp, state, gates)
        if zoneout := np.float32(self.config.zoneout):
            state = tuple(new + zoneout * (before - new) for before, new in zip(old, state, strict=True))
        return state, gates

    def set_units(self, clamp: Clamp, state: State, gates: Gates) -> State:
        """Return the state of a layer with the units of a clamp set, [N, H] each. The gates are not computed again."""
        *rest, last = state
        last = last.copy()
        last[clamp.rows, clamp.units] = clamp.values
        if self.cell.read_cell is None:
            return (*rest, last)
        return self.cell.read_cell(gates["output"], last, self.layers[clamp.layer]), last

    def combine(self, k: int, u: Array, y: Array) -> Array:
        """Return the input of layer k + 1 from layer k's input and output, as in `charlstm.model.stack`."""
        if self.config.between == "highway":
            weight, bias = self.highways[k]
            return u + sigmoid(matvec(weight, u) + bias) * (y - u)
        return u + y if self.config.between == "residual" else y

    def project_ids(self, ids: Ids, last: Ids | None) -> Array:
        """Return the first layer's input projection W_ih e + b_ih of the embeddings of these ids, [N, G*H].

        last: the symbols before them, plus 1, or 0 for none [N]; None without bigrams.
        """
        if not self.uses_table:
            return self.compute_projection(ids, last)
        rows = ids if last is None else last * len(self.embedding) + ids
        if not self.known_rows.issuperset(rows.tolist()):
            self.projections[rows] = self.compute_projection(ids, last)
            self.known_rows.update(rows.tolist())
        return self.projections[rows]

    def compute_projection(self, ids: Ids, last: Ids | None) -> Array:
        first = self.layers[0]
        projected: Array = matvec(first["weight_ih"], self.embed(ids, last)) + first["bias_ih"]
        return projected

    def embed(self, ids: Ids, last: Ids | None) -> Array:
        """Return the embeddings of these ids, [N, E], plus those of their pairs with the symbols before them."""
        if self.bigrams is None or last is None:
            return self.embedding[ids]
        pairs: Array = self.bigrams[bigram_row(last, ids, len(self.bigrams))] * (last > 0)[:, None]
        return self.embedding[ids] + pairs


def reset_rows(states: States, mask: NDArray[np.bool_]) -> States:
    """Return the state with zeros in the rows of `mask` [N]."""
    if not mask.any():
        return states
    keep = ~mask[:, None]
    return [tuple(part * keep for part in state) for state in states]


def prefill(network: SymbolReader, ids: Ids) -> tuple[Array, States]:
    """Read one sequence of at least one id. Return the head's input, [1, R], and the state after it."""
    states = network.initial_state(1)
    for i in range(len(ids)):
        head_input, states = network.advance(ids[i : i + 1], states)
    return head_input, states


def select_rows(states: States, rows: Ids) -> States:
    """Return these rows of every array of the state."""
    return [tuple(array[rows] for array in state) for state in states]


def highway_weights(weights: Mapping[str, Array], config: ModelConfig) -> dict[int, tuple[Matrix, Array]]:
    """Return the weight and bias of the highway around each layer that has one."""
    around = range(1, config.layers) if config.between == "highway" else ()
    return {k: (weights[highway_name(k, "weight")], weights[highway_name(k, "bias")]) for k in around}


def layer_weights(weights: Mapping[str, Array], cell: str, k: int) -> Weights:
    """Return the weights of layer k by their names in `Cell.shapes`."""
    return {name: weights[layer_weight_name(k, name)] for name in CELLS[cell].shapes(1, 1)}
