"""The page of `charlstm inspect --html`: its content, and its behavior in a browser."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlstm.inspection.levels import extents
from charlstm.inspection.page import LEVELS, to_css
from charlstm.inspection.palette import PALETTES, contrast, mix_palette
from charlstm.inspection.trace import Series, trace
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import CharVocabulary
from tests.support.browser import browse
from tests.support.command_line import assert_fails, charlstm
from tests.support.models import make_untrained_model
from tests.support.planted import HIDDEN, QUOTE, planted_model, planted_text

TEXT = planted_text(1501, 1)

HOSTILE = "</script><img src=x onerror=document.body.dataset.hit=1><!--"


def write_page(file: ModelFile, text: str, *options: object, model: str = "model.safetensors") -> str:
    file.save(Path(model))
    result = charlstm("inspect", "-m", model, "-", "--html", "page.html", *options, stdin=text.encode())
    assert result.code == 0, result.err
    return Path("page.html").read_text("utf-8")


def test_a_file_that_is_no_page_is_not_replaced() -> None:
    make_untrained_model(CharVocabulary("ab")).save(Path("model.safetensors"))
    Path("x.txt").write_text("mine")
    result = charlstm("inspect", "-m", "model.safetensors", "-", "--html", "x.txt", stdin=b"ab" * 100)
    assert_fails(result, 2, "--html x.txt would replace a file that is not a web page")
    assert Path("x.txt").read_text() == "mine"


def read_data(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    data: dict[str, Any] = json.loads(match[1])
    return data


def read_levels(page: str, index: int, length: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the levels of the units of a series, [n, T]."""
    match = re.search(rf'id="series-{index}">(.*?)</script>', page)
    assert match
    packed = np.frombuffer(zlib.decompress(base64.b64decode(match[1])), np.uint8).reshape(-1, (length + 1) // 2)
    return np.stack([packed & 15, packed >> 4], 2).reshape(len(packed), -1)[:, :length]


def test_the_page_has_the_states_of_all_units_and_the_gates_of_the_ranked_ones() -> None:
    page = write_page(planted_model(TEXT), TEXT)
    data = read_data(page)
    assert data["characters"] == TEXT
    units = {each["quantity"]: each["units"] for each in data["series"]}
    assert units["cell"] == units["hidden"] == list(range(HIDDEN))
    assert QUOTE in units["forget"] and len(units["forget"]) < HIDDEN
    everything = read_data(write_page(planted_model(TEXT), TEXT, "--all"))
    assert all(each["units"] == list(range(HIDDEN)) for each in everything["series"])


def test_the_levels_in_the_page_are_the_values_of_the_trace() -> None:
    file = planted_model(TEXT)
    page = write_page(file, TEXT)
    values = trace(file, file.vocabulary.encode(TEXT)).series[Series("forward", 0, "cell")]
    data = read_data(page)
    index = next(k for k, each in enumerate(data["series"]) if each["quantity"] == "cell")
    levels = read_levels(page, index, len(TEXT)).T
    series = data["series"][index]
    np.testing.assert_allclose(series["extent"], extents(values, 0), rtol=1e-3)
    step = np.array(series["extent"]) / ((LEVELS - 1) / 2)
    shown = series["center"] + (levels.astype(float) - (LEVELS - 1) / 2) * step
    clipped = np.clip(values, -np.array(series["extent"]), series["extent"])
    assert (np.abs(shown - clipped) <= step * 0.51).all()


def test_the_page_asks_nothing_of_the_network() -> None:
    page = re.sub(r'(id="series-\d+">)[^<]*', r"\1", write_page(planted_model(TEXT), TEXT))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<img|src=", page)


@pytest.mark.parametrize("theme", PALETTES)
def test_text_on_every_color_of_the_palette_can_be_read(theme: str) -> None:
    for level in range(LEVELS):
        background = mix_palette(PALETTES[theme], 2 * level / (LEVELS - 1) - 1)
        assert max(contrast(color, background) for color in ((0, 0, 0), (255, 255, 255))) >= 4.5


def hostile_page() -> str:
    """Return the page of a model whose path, text and vocabulary contain markup and ESC."""
    text = (HOSTILE + "\x1b[31m {title} \n") * 30
    file = make_untrained_model(CharVocabulary("".join(sorted(set(text)))), bidirectional=False)
    folder = Path("<img src=x onerror=document.body.dataset.hit=2>\x1b")
    folder.mkdir()
    return write_page(file, text, "--detect", "</script>", model=str(folder / "model.safetensors"))


def test_markup_in_a_text_or_a_path_is_escaped() -> None:
    page = hostile_page()
    assert page.count("</script>") == page.count("<script")
    assert "<img" not in page and "\x1b" not in page
    assert read_data(page)["characters"].startswith(HOSTILE + "\x1b")
    assert read_data(page)["findings"][0]["detector"] == "/</script>/"


@pytest.mark.programs
def test_in_a_browser_keys_move_the_caret_and_colors_are_those_of_the_values() -> None:
    file = planted_model(TEXT)
    page = write_page(file, TEXT)
    place = TEXT.index('"') + 2
    found = browse(
        page,
        "const press = key => document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));"
        f"show('0.{QUOTE}', 'cell').then(() => {{"
        f"for (let k = 0; k < {place}; k++) press('ArrowRight');"
        "document.body.dataset.value = document.getElementById('value').textContent;"
        "document.body.dataset.theme = document.documentElement.dataset.theme;"
        "document.body.dataset.color = getComputedStyle(document.querySelector('.caret')).backgroundColor;"
        "document.body.dataset.carets = document.querySelectorAll('.caret').length;"
        "press('t');"
        "document.body.dataset.other = getComputedStyle(document.querySelector('.caret')).backgroundColor;"
        "press('q');"
        "});",
    )
    cell = trace(file, file.vocabulary.encode(TEXT)).series[Series("forward", 0, "cell")][:, QUOTE]
    assert found["value"] == f"Character {place}, {TEXT[place]}: cell of unit 0.{QUOTE} is {cell[place]:.2f}"
    assert found["carets"] == "1"
    high = {theme: "rgb({}, {}, {})".format(*palette[2]) for theme, palette in PALETTES.items()}
    other = "light" if found["theme"] == "dark" else "dark"
    assert (found["color"], found["other"]) == (high[found["theme"]], high[other])


@pytest.mark.programs
def test_in_a_browser_nothing_in_a_text_or_a_path_runs() -> None:
    found = browse(hostile_page(), "document.body.dataset.images = document.images.length;")
    assert found["images"] == "0" and "hit" not in found


def test_colors_are_written_as_in_css() -> None:
    assert to_css((0, 128, 255)) == "#0080ff"
