"""How far exported models are from charlstm: every cell, depth and head, trained for a few seconds on English.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/export.py [--seconds 4] [--hidden 128]
        [--characters 1000] [--cell lstm]

Each line has the largest difference of a logit between onnxruntime and NumPy over a text, for a graph of one step and
for one of the whole text (- where ONNX has no operator); how many characters of greedy text agree, and by how much the
two best logits differ where they part; the change of the loss by float16 and 8-bit weights, in nats per character of
the validation part; the size of the file in bytes per parameter with 8-bit weights; and the characters per second of
onnxruntime on one core, one sequence, next to those of NumPy.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import onnxruntime

import charlstm
from charlstm.architecture import count_parameters
from charlstm.config import CELL_NAMES, Config, DataConfig, ModelConfig, TrainingConfig
from charlstm.data.split import Tokens
from charlstm.export.onnx_file import OnnxOptions, build_onnx
from charlstm.export.rounding import measure_rounding
from charlstm.export.sequence_graph import OPERATORS
from charlstm.matrices import Array
from charlstm.presets import bundled_corpus
from charlstm.sampling.network import Network
from charlstm.sampling.quantization import choose_places
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Ids

HEADS = ("top", "all", "tied")


class OnnxModel:
    """A graph of one sequence in onnxruntime on one core. It carries the state."""

    def __init__(self, data: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(data, options)
        types = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
        inputs = self.session.get_inputs()[1:]
        self.state = {each.name: np.zeros((1, *each.shape[1:]), types[each.type]) for each in inputs}

    def read(self, ids: Ids) -> Array:
        """Return the logits after ids: [N] in a graph of one step, [T, N] in one of a sequence."""
        logits, *after = self.session.run(None, {"ids": ids, **self.state})
        self.state = dict(zip(self.state, after, strict=True))
        return np.asarray(logits)


def list_configs(hidden: int, cell: str | None) -> Iterator[tuple[str, ModelConfig, DataConfig]]:
    """Yield the models with their names: every cell, depth and head, then documents and bytes."""
    for name in [cell] if cell else CELL_NAMES:
        for layers in (1, 2):
            for head in HEADS[: 1 if layers == 1 else None]:
                yield f"{name} {layers} {head}", ModelConfig(name, layers, hidden, head=head), DataConfig()
    wide = ModelConfig(cell or "lstm", 2, hidden, bigrams=1024, between="highway")
    yield "lines, pairs", wide, DataConfig(document="line")
    yield "bytes, highway", wide, DataConfig(level="byte")


def train_model(model: ModelConfig, data: DataConfig, seconds: float, folder: Path) -> ModelFile:
    for _ in charlstm.train(bundled_corpus(), Config(model, data, TrainingConfig(max_time=seconds, threads=1)), folder):
        pass
    return ModelFile.load(folder / "best.safetensors")


def compare_steps(file: ModelFile, network: Network, ids: Ids) -> tuple[float, float, float]:
    """Return the largest difference of a logit over a text, and the characters per second of onnxruntime and NumPy."""
    model, states, worst = OnnxModel(build_onnx(file, OnnxOptions())), network.initial_state(1), 0.0
    seconds = np.zeros(2)
    for each in ids:
        times = [perf_counter()]
        found = model.read(each)
        times.append(perf_counter())
        logits, states = network.step(each, states)
        times.append(perf_counter())
        seconds += np.diff(times)
        worst = max(worst, float(np.abs(found - logits).max()))
    return worst, len(ids) / seconds[0], len(ids) / seconds[1]


def compare_greedy(file: ModelFile, network: Network, length: int) -> str:
    """Return how many characters agree and, if not all, by how much the two best logits differ where they part."""
    model, states = OnnxModel(build_onnx(file, OnnxOptions())), network.initial_state(1)
    ids = np.array([file.vocabulary.bos])
    for done in range(length):
        found = model.read(ids)[0]
        logits, states = network.step(ids, states)
        if found.argmax() != logits.argmax():
            best, second = np.sort(logits[0])[::-1][:2]
            return f"{done:5} ({best - second:.0e})"
        ids = logits.argmax(1)
    return f"{length:5}"


def compare_sequence(file: ModelFile, network: Network, ids: Ids) -> str:
    """Return the largest difference of a logit of the graph of a whole text; documents are compared up to an end."""
    if file.config.model.cell not in OPERATORS:
        return "-"
    end = file.vocabulary.end_of_document
    if end is not None:
        ids = np.concatenate([[[end]], ids[ids[:, 0] != end]])
    states, expected = network.initial_state(1), []
    for each in ids:
        logits, states = network.step(each, states)
        expected.append(logits)
    found = OnnxModel(build_onnx(file, OnnxOptions(sequence=True))).read(ids)
    return f"{np.abs(found - expected).max():.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--characters", type=int, default=1000)
    parser.add_argument("--cell", choices=CELL_NAMES)
    arguments = parser.parse_args()
    print(
        f"{'model':22} {'step':>8} {'sequence':>8} {'greedy':>13} {'fp16':>9} {'int8':>9} {'B/param':>7}  characters/s"
    )
    for name, model, data in list_configs(arguments.hidden, arguments.cell):
        with tempfile.TemporaryDirectory() as folder:
            file = train_model(model, data, arguments.seconds, Path(folder) / "run")
        text = bundled_corpus().read_text("utf-8")[-20 * arguments.characters :]
        tokens = file.vocabulary.encode(text.replace("\n", "") if data.document == "line" else text)
        ids, places = tokens[: arguments.characters, None], choose_places(Tokens(tokens.astype(file.vocabulary.dtype)))
        assert places is not None
        network = Network(file.config.model, file.weights, file.vocabulary.end_of_document)
        worst, onnx_speed, numpy_speed = compare_steps(file, network, ids)
        sequence, greedy = compare_sequence(file, network, ids), compare_greedy(file, network, arguments.characters)
        losses = [measure_rounding(file, precision, places) for precision in ("fp16", "int8")]
        size = len(build_onnx(file, OnnxOptions(precision="int8"))) / count_parameters(model, file.vocabulary.size)
        print(
            f"{name:22} {worst:8.1e} {sequence:>8} {greedy:>13} {losses[0]:+9.5f} {losses[1]:+9.5f} {size:7.2f}  "
            f"{onnx_speed:,.0f} ({numpy_speed:,.0f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
