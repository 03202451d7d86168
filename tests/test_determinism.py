"""The same seed gives the same samples: with other samples next to them, in every output format, on any threads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from charlstm.architecture import weight_shapes
from charlstm.cells import CELLS
from charlstm.config import Config, ModelConfig, SamplingConfig
from charlstm.storage.model import ModelFile
from charlstm.text_model import TextModel
from charlstm.vocabulary import CharVocabulary
from tests.support.command_line import charlstm, run_process

pytestmark = pytest.mark.slow


def untrained(**model: object) -> ModelFile:
    """Return a model with random weights, wide enough for BLAS to divide its products in more than one way."""
    config = Config(model=ModelConfig(**{"layers": 2, "hidden": 96, "embedding": 24} | model))  # type: ignore[arg-type]
    vocabulary = CharVocabulary("\n" + "".join(map(chr, range(32, 96))))
    random = np.random.default_rng(1)
    sizes = weight_shapes(config.model, vocabulary.size)
    return ModelFile(config, vocabulary, {k: 0.2 * random.standard_normal(s, np.float32) for k, s in sizes.items()})


def samples(model: TextModel, n: int, temperature: float) -> list[tuple[bytes, float]]:
    """Return the text of each sample and its mean log-probability."""
    settings = SamplingConfig(temperature=temperature, length=40)
    texts, means = [b""] * n, [0.0] * n
    for fragment in model.stream_fragments("AB", settings, seed=3, n=n, scored=True):
        texts[fragment.index] += fragment.text
        means[fragment.index] = fragment.mean_log_probability
    return list(zip(texts, means, strict=True))


@pytest.mark.parametrize(
    "model",
    [*({"cell": cell} for cell in CELLS), {"between": "highway", "head": "all", "zoneout": 0.1}, {"head": "tied"}],
    ids=str,
)
def test_a_sample_does_not_depend_on_the_number_of_samples(model: dict[str, object]) -> None:
    text_model = TextModel(untrained(**model))
    for temperature in (1.0, 0.05):
        most = samples(text_model, 65, temperature)
        for n in (1, 2, 7, 64):
            assert samples(text_model, n, temperature) == most[:n]


def test_samples_have_the_same_text_as_plain_text_as_json_and_alone(tmp_path: Path) -> None:
    untrained().save(tmp_path / "m.safetensors")
    options = ("sample", "-m", tmp_path / "m.safetensors", "-l", 30, "--seed", 4, "-p", "A")
    plain = charlstm(*options, "-n", 3).text
    objects = [json.loads(line) for line in charlstm(*options, "-n", 3, "--json").text.splitlines()]
    assert "".join(f"{each['prompt']}{each['text']}\n" for each in objects) == plain
    assert plain.startswith(charlstm(*options).text)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_samples_do_not_depend_on_the_number_of_threads(tmp_path: Path, cell: str) -> None:
    untrained(cell=cell, hidden=320).save(tmp_path / "m.safetensors")
    options = ("sample", "-m", tmp_path / "m.safetensors", "-l", 60, "--seed", 4, "-n", 2, "--json")
    runs = [run_process(*options, environ={"OPENBLAS_NUM_THREADS": n, "OMP_NUM_THREADS": n}) for n in ("1", "2", "3")]
    assert runs[0].code == 0, runs[0].err
    assert runs[0].out == runs[1].out == runs[2].out
