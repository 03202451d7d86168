"""`charlstm show`: presets, cells and the cache."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import torch

from charlstm import presets
from charlstm.config import CELL_NAMES
from tests.support.command_line import assert_fails, charlstm


def test_show_presets_lists_each_preset_with_its_description() -> None:
    listed = charlstm("show", "presets").text.splitlines()
    assert [line.split()[0] for line in listed] == presets.preset_names()
    objects = [json.loads(line) for line in charlstm("show", "presets", "--json").text.splitlines()]
    assert {entry["preset"]: entry["about"] for entry in objects} == {
        name: presets.describe_preset(name) for name in presets.preset_names()
    }


def test_show_presets_with_a_name_prints_a_config_that_train_accepts(corpus: Path) -> None:
    shown = charlstm("show", "presets", "tiny")
    assert tomllib.loads(shown.text)["model"]["hidden"] == 256
    Path("mine.toml").write_bytes(shown.out)
    assert "hidden = 256" in charlstm("train", corpus, "--config", "mine.toml", "--dry-run").text
    entry = json.loads(charlstm("show", "presets", "tiny", "--json").text)
    assert (entry["preset"], entry["settings"]["model.hidden"]) == ("tiny", 256)
    assert_fails(charlstm("show", "presets", "tinny"), 2, "'tinny'", "did you mean 'tiny'?")


def test_show_cells_prints_equations_and_source_of_every_cell() -> None:
    result = charlstm("show", "cells")
    assert result.code == 0
    assert all(f"{name}: " in result.text for name in CELL_NAMES)
    assert "c_t = f * c_{t-1} + i * g" in result.text
    assert "Elman 1990" in result.text


def test_show_cells_counts_the_parameters_of_the_size_asked_for() -> None:
    result = charlstm("show", "cells", "lstm", "--hidden", 10, "--layers", 2, "--json")
    described = json.loads(result.out)
    assert described["cell"] == "lstm"
    assert described["parameters"] == sum(p.numel() for i in (64, 10) for p in torch.nn.LSTM(i, 10).parameters())
    assert described["equations"][-1].startswith("o = sigmoid(")


def test_show_cells_rejects_an_unknown_cell_with_the_nearest_name() -> None:
    assert_fails(charlstm("show", "cells", "lstn"), 2, "'lstn'", "did you mean 'lstm'?")


def test_the_commands_of_earlier_versions_name_their_successors() -> None:
    assert_fails(charlstm("cells"), 2, "charlstm show cells")
    assert_fails(charlstm("cache", "--clear"), 2, "charlstm show cache")
