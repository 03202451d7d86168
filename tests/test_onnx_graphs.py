"""ONNX graphs compute what charlstm computes, for every cell and option of a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlstm.config import CELL_NAMES, Direction, ModelConfig
from charlstm.export.onnx_file import OnnxOptions, build_onnx
from charlstm.export.rounding import Precision, measure_rounding, round_weights
from charlstm.export.sequence_graph import OPERATORS
from charlstm.sampling.network import Network
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import ByteVocabulary, CharVocabulary, Ids
from tests.support.onnx_models import LETTERS, OnnxModel, make_random_model

TOLERANCE = 1e-4
DOCUMENTS = CharVocabulary("\n abcdefgh", with_unknown=True, documents=True)
CONFIG = ModelConfig(layers=2, hidden=12, embedding=8)

model_configs = st.builds(
    ModelConfig,
    cell=st.sampled_from(CELL_NAMES),
    layers=st.integers(1, 3),
    hidden=st.just(12),
    embedding=st.sampled_from([8, 12]),
    bigrams=st.sampled_from([0, 7]),
    bidirectional=st.booleans(),
    activation=st.sampled_from(["tanh", "softsign"]),
    zoneout=st.sampled_from([0.0, 0.1]),
    between=st.sampled_from(["plain", "residual", "highway"]),
    head=st.sampled_from(["top", "all", "tied"]),
)
vocabularies = st.sampled_from([LETTERS, DOCUMENTS, ByteVocabulary(documents=False), ByteVocabulary(documents=True)])


def random_ids(file: ModelFile, *shape: int) -> Ids:
    """Return random symbols [T, N], the ends of documents among them."""
    return np.random.default_rng(1).integers(0, file.vocabulary.size, shape)


def max_difference(file: ModelFile, options: OnnxOptions, ids: Ids) -> float:
    """Return the largest difference of a logit between onnxruntime, one step at a time, and NumPy."""
    model = OnnxModel(build_onnx(file, options), ids.shape[1])
    half = file.select_direction(options.direction or "forward")
    weights = round_weights(half.weights, options.precision)
    network = Network(half.config.model, weights, file.vocabulary.end_of_document)
    states, worst = network.initial_state(ids.shape[1]), 0.0
    for each in ids:
        logits, states = network.step(each, states)
        worst = max(worst, float(np.abs(model.read(each) - logits).max()))
    return worst


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_the_step_graph_of_a_cell_agrees_with_numpy_over_1000_characters(cell: str, layers: int) -> None:
    file = make_random_model(replace(CONFIG, cell=cell, layers=layers))
    assert max_difference(file, OnnxOptions(), random_ids(file, 1000, 1)) < TOLERANCE


@pytest.mark.slow
@given(config=model_configs, vocabulary=vocabularies, direction=st.sampled_from(["forward", "backward"]))
@settings(max_examples=25)
def test_the_step_graph_of_any_model_agrees_with_numpy(
    config: ModelConfig, vocabulary: CharVocabulary | ByteVocabulary, direction: Direction
) -> None:
    file = make_random_model(config, vocabulary)
    options = OnnxOptions(direction if config.bidirectional else "forward")
    onnx.checker.check_model(onnx.load_from_string(build_onnx(file, options)), full_check=True)
    assert max_difference(file, options, random_ids(file, 40, 2)) < TOLERANCE


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_graph_with_rounded_weights_agrees_with_numpy_on_the_same_weights(cell: str, precision: Precision) -> None:
    file = make_random_model(replace(CONFIG, cell=cell, zoneout=0.1, head="tied"))
    assert max_difference(file, OnnxOptions(precision=precision), random_ids(file, 60, 2)) < TOLERANCE


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_rounded_weights_take_less_space(precision: Precision) -> None:
    file = make_random_model(replace(CONFIG, hidden=128))
    whole, rounded = (len(build_onnx(file, OnnxOptions(precision=each))) for each in ("fp32", precision))
    assert rounded < {"fp16": 0.55, "int8": 0.3}[precision] * whole


@pytest.mark.slow
@given(
    config=model_configs.map(lambda config: replace(config, zoneout=0.0, bidirectional=False)),
    cell=st.sampled_from(list(OPERATORS)),
    vocabulary=vocabularies,
    length=st.sampled_from([1, 7, 90]),
)
@settings(max_examples=15)
def test_a_sequence_at_once_gives_the_logits_and_the_state_of_its_steps(
    config: ModelConfig, cell: str, vocabulary: CharVocabulary | ByteVocabulary, length: int
) -> None:
    file = make_random_model(replace(config, cell=cell), vocabulary)
    ids = random_ids(file, length + 5, 2)
    if vocabulary.end_of_document is not None:
        ids %= vocabulary.size - 1
        ids[0] = vocabulary.end_of_document
    sequence, step = (OnnxModel(build_onnx(file, OnnxOptions(sequence=each)), 2) for each in (True, False))
    together = np.concatenate([sequence.read(ids[:length]), sequence.read(ids[length:])])
    assert np.abs(together - [step.read(each) for each in ids]).max() < TOLERANCE
    for name, value in step.state.items():
        assert np.abs(sequence.state[name] - value).max() < TOLERANCE, name


def greedy_texts_agree(file: ModelFile, length: int) -> bool:
    """Return whether onnxruntime and NumPy choose the same symbols, up to a place where two are as likely."""
    model = OnnxModel(build_onnx(file, OnnxOptions()))
    network = Network(file.config.model, file.weights, file.vocabulary.end_of_document)
    ids, states = np.array([file.vocabulary.bos]), network.initial_state(1)
    for _ in range(length):
        found = model.read(ids)
        logits, states = network.step(ids, states)
        if found.argmax() != logits.argmax():
            best, second = np.sort(logits[0])[::-1][:2]
            return bool(best - second < TOLERANCE)
        ids = logits.argmax(1)
    return True


@pytest.mark.long
@pytest.mark.parametrize("vocabulary", [LETTERS, DOCUMENTS, ByteVocabulary()], ids=["stream", "documents", "bytes"])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_depth_and_head_of_a_cell_agrees_with_numpy_over_1000_characters(
    cell: str, vocabulary: CharVocabulary | ByteVocabulary
) -> None:
    for layers, head in ((1, "top"), (1, "tied"), (2, "all"), (2, "tied"), (3, "top")):
        file = make_random_model(replace(CONFIG, cell=cell, layers=layers, head=head), vocabulary)
        assert max_difference(file, OnnxOptions(), random_ids(file, 1000, 1)) < TOLERANCE
        assert greedy_texts_agree(file, 1000)


@pytest.mark.parametrize("cell", OPERATORS)
def test_a_sequence_of_512_characters_agrees_with_numpy(cell: str) -> None:
    file = make_random_model(replace(CONFIG, cell=cell))
    ids = random_ids(file, 512, 1)
    network = Network(file.config.model, file.weights)
    states, expected = network.initial_state(1), []
    for each in ids:
        logits, states = network.step(each, states)
        expected.append(logits)
    assert np.abs(OnnxModel(build_onnx(file, OnnxOptions(sequence=True))).read(ids) - expected).max() < TOLERANCE


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_loss_by_rounded_weights_is_that_of_onnxruntime(precision: Precision) -> None:
    file = make_random_model(CONFIG)
    weights = dict(file.weights)
    for name, weight in weights.items():
        if weight.ndim == 2:  # one large weight in each row leaves few steps for the others
            weights[name] = weight.copy()
            weights[name][:, 0] *= {"fp16": 1.0, "int8": 60.0}[precision]
    file = replace(file, weights=weights)
    places = random_ids(file, 96, 65)
    losses = [
        OnnxModel(build_onnx(file, OnnxOptions(sequence=True, precision=each)), 65).losses(places)[31:].mean()
        for each in (precision, "fp32")
    ]
    measured = measure_rounding(file, precision, places)
    assert measured == pytest.approx(losses[0] - losses[1], abs=1e-5)
    if precision == "int8":
        assert abs(measured) > 1e-3


def test_a_weight_that_float16_cannot_represent_is_an_error() -> None:
    file = make_random_model(CONFIG)
    file.weights["head.weight"][0, 0] = 1e5
    with pytest.raises(Exception, match=r"head\.weight has a weight of magnitude 100,000, and float16 ends at 65,504"):
        build_onnx(file, OnnxOptions(precision="fp16"))


def test_equal_models_give_equal_files() -> None:
    kinds: list[tuple[Literal["fp32", "int8"], bool]] = [("fp32", False), ("int8", True)]
    for precision, sequence in kinds:
        options = OnnxOptions(sequence=sequence, precision=precision)
        assert build_onnx(make_random_model(CONFIG), options) == build_onnx(make_random_model(CONFIG), options)
