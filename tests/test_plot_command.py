"""`charlstm plot`: curves on a terminal, as an image, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import shutil
import struct
import sys
import termios
import time
import xml.etree.ElementTree as ElementTree
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.cli.actions.plot import START_POLL_SECONDS
from charlstm.cli.app import main
from charlstm.cli.chart import BLANK, Line, draw_chart
from charlstm.cli.ticks import choose_count_ticks, choose_duration_ticks
from charlstm.console import Console
from charlstm.storage.lock import ProcessLock
from charlstm.storage.metrics import MetricsReader
from charlstm.tracking.curves import Curve, find_top, smooth
from charlstm.tracking.quantities import QUANTITIES
from tests.support.command_line import Terminal, assert_fails, charlstm
from tests.test_runs_command import OLD

LETTERS = "abcdefghij"


@pytest.fixture
def ten(run: Path) -> Path:
    """Return a folder with ten runs, whose losses differ by 0.1 from one to the next."""
    for k in range(10):
        folder = Path("ten") / f"run-{k}"
        folder.mkdir(parents=True)
        shutil.copy(run / "last.safetensors", folder)
        lines = (
            {"step": 50 * i, "seconds": i, "passes": i / 9, "characters": 800 * i, "loss_nats": 1 + k / 10 + 2 / i}
            | {"learning_rate": 0.001, "gradient_norm": 0.5, "chars_per_second": 2e5, "memory_bytes": 3e8}
            | {"validation_loss_nats": 1.1 + k / 10 + 2 / i}
            for i in range(1, 201)
        )
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Path("ten")


def test_one_run_is_drawn_with_its_training_and_validation_loss(run: Path) -> None:
    chart = charlstm("plot", run, environ={"COLUMNS": "80"})
    assert chart.code == 0, chart.err
    lines = chart.text.splitlines()
    assert lines[0] == "loss in nats/char over steps"
    assert max(map(len, lines)) <= 80
    assert {line.split("  ")[1].split(" ", 1)[1] for line in lines[-2:]} == {"validation loss", "training loss"}
    assert "\x1b" not in chart.text


def test_ten_runs_are_told_apart_without_color_and_listed_as_they_end(ten: Path) -> None:
    chart = charlstm("plot", *sorted(ten.iterdir()), environ={"COLUMNS": "80"}).text
    rows = chart.splitlines()
    for letter, name in zip(LETTERS, reversed(range(10)), strict=True):
        assert any(letter in row for row in rows[1:13]), letter
        assert re.search(rf"^  {letter} run-{name} +\d", chart, re.MULTILINE)
    heights = [next(k for k, row in enumerate(rows) if letter in row[7:]) for letter in LETTERS]
    assert heights[0] < heights[-1]


@pytest.mark.parametrize("columns", [50, 80])
def test_long_names_are_cut_short_at_their_beginning(ten: Path, columns: int) -> None:
    for k in (1, 2):
        shutil.copytree(ten / "run-1", f"{'experiment-' * 8}{k}")
    chart = charlstm("plot", *Path().glob("experiment-*"), environ={"COLUMNS": str(columns)}).text
    assert max(map(len, chart.splitlines())) <= columns
    assert all(f"experiment-{k}  " in chart for k in (1, 2))


def test_the_beginning_of_a_long_curve_is_cut_off_and_no_point_of_a_short_one() -> None:
    def make_curve(ys: list[float]) -> Curve:
        return Curve("run", QUANTITIES["validation"], np.arange(len(ys), dtype=np.float64), np.array(ys))

    assert find_top([make_curve([3.0, 2.0])]) == 3
    assert find_top([make_curve([3.0])]) == 3
    assert find_top([make_curve([9.0, *[2.0] * 40])]) == 2
    assert find_top([make_curve([9.0, *[2.0] * 40]), make_curve([4.0, 3.0, 2.0, 1.0])]) == 4


def test_a_run_that_ended_at_the_very_start_does_not_stretch_the_axis_of_long_ones(ten: Path) -> None:
    shutil.copytree(ten / "run-1", "early")
    Path("early/metrics.jsonl").write_text('{"step": 50, "validation_loss_nats": 5.5}\n')
    highest = max(float(row.split("│")[0] or 0) for row in plot_rows(ten / "run-0", ten / "run-1", "early"))
    assert highest < 2
    assert "early      5.5000" in charlstm("plot", ten / "run-1", "early").text
    assert float(plot_rows("early")[0].split("│")[0]) == 5.5


def plot_rows(*runs: object) -> list[str]:
    """Return the rows of a chart that have a number at the left."""
    return [row for row in charlstm("plot", *runs).text.splitlines() if re.match(r" *[\d.]+│", row)]


def test_ten_runs_have_ten_colors(ten: Path) -> None:
    chart = charlstm("plot", *sorted(ten.iterdir()), "--color", "always").text
    legend = chart.splitlines()[-10:]
    assert len({re.search(r"\x1b\[([\d;]+)m", line)[1] for line in legend}) == 10  # type: ignore[index]


@pytest.mark.parametrize("axis", ["step", "time", "epoch", "characters"])
def test_every_quantity_is_drawn_over_every_axis(ten: Path, axis: str) -> None:
    known = [name for name in QUANTITIES if name != "gpu-memory"]
    chart = charlstm("plot", ten / "run-1", ten / "run-2", "--what", ",".join(known), "--x", axis)
    assert chart.code == 0, chart.err
    assert chart.text.count("└") == len(known) - 1  # both losses share a chart


def test_runs_of_every_earlier_version_are_drawn() -> None:
    for name in ("version-1", "version-0.1.0-alpha/lstm"):
        for axis in ("step", "time", "epoch", "characters"):
            assert charlstm("plot", OLD / name, "--x", axis).code == 0


@pytest.mark.slow
def test_an_image_is_written_in_the_format_of_its_name_and_is_the_same_each_time(ten: Path) -> None:
    runs = sorted(ten.iterdir())
    for suffix, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        written = charlstm("plot", *runs, "-o", f"out.{suffix}")
        assert (written.code, written.text) == (0, f"out.{suffix}\n"), written.err
        first = Path(f"out.{suffix}").read_bytes()
        assert first.startswith(magic)
        assert charlstm("plot", *runs, "-o", f"out.{suffix}").code == 0
        assert Path(f"out.{suffix}").read_bytes() == first
    texts = [element.text for element in ElementTree.parse("out.svg").iter() if element.tag.endswith("}text")]
    assert all(any(f"run-{k} " in (text or "") for text in texts) for k in range(10))
    assert "validation loss in nats/char" in texts


@pytest.mark.slow
def test_an_image_names_a_single_run_and_shows_the_lowest_loss(ten: Path) -> None:
    metrics = ten / "run-1/metrics.jsonl"
    with metrics.open("a") as file:
        file.write('{"step": 10050, "validation_loss_nats": 1.9, "loss_nats": 1.1}\n')
    texts = read_image_texts(ten / "run-1")
    assert "run-1" in texts
    assert any(text.startswith("validation loss  1.9000, lowest 1.2100") for text in texts)
    texts = read_image_texts(ten / "run-1", ten / "run-2")
    assert any(text.startswith("run-1  1.9000, lowest 1.2100") for text in texts)


def read_image_texts(*runs: Path) -> list[str]:
    assert charlstm("plot", *runs, "-o", "texts.svg").code == 0
    return [e.text or "" for e in ElementTree.parse("texts.svg").iter() if e.tag.endswith("}text")]


@pytest.mark.slow
@pytest.mark.parametrize("points", [3, 100])
def test_thirty_runs_of_an_image_look_different_and_all_are_in_its_legend(points: int) -> None:
    from charlstm.tracking.figure import draw_figure

    xs = np.arange(float(points))
    curves = [Curve(f"run-{k}", QUANTITIES["validation"], xs, xs * 0 + k) for k in range(30)]
    image = draw_figure([("loss", curves)], "steps", "svg", choose_count_ticks)
    assert len(set(re.findall(rb'style="fill: none; (.*?)stroke-width: 1.8', image))) == 30
    markers = re.findall(rb'<path id="(\w+)"[^>]*style="stroke: #(?!000000)', image)
    assert len(set(markers)) == (30 if points == 3 else 0)
    height = float(ElementTree.fromstring(image).attrib["viewBox"].split()[3])
    places = [float(y) for y in re.findall(rb'<text[^>]* y="([\d.-]+)"[^>]*>run-', image)]
    assert len(places) == 30 and min(places) > 0 and max(places) < height


@pytest.mark.slow
def test_names_with_characters_that_matplotlib_interprets_are_shown_as_they_are(ten: Path) -> None:
    for name in ("_hidden", "a$b$c", "100 % & <x>"):
        shutil.copytree(ten / "run-1", name)
    assert charlstm("plot", "_hidden", "a$b$c", "100 % & <x>", "-o", "out.svg").code == 0
    texts = " ".join(e.text or "" for e in ElementTree.parse("out.svg").iter() if e.tag.endswith("}text"))
    assert all(name in texts.replace("\u200b", "") for name in ("_hidden", "a$b$c", "100 % & <x>"))


def test_loss_is_the_name_of_both_losses(run: Path) -> None:
    assert charlstm("plot", run, "--what", "loss").text == charlstm("plot", run, "--what", "validation,train").text


def test_a_run_has_the_name_that_runs_prints_unless_a_path_has_it(ten: Path) -> None:
    shutil.copytree(ten / "run-1", "runs/deep/guide")
    (name,) = [line.split()[0] for line in charlstm("runs").text.splitlines()[1:]]
    assert "lowest 1.2100" in charlstm("plot", name).text
    shutil.copytree(ten / "run-2", name)
    assert "lowest 1.3100" in charlstm("plot", name).text
    assert_fails(charlstm("plot", "../guide"), 2, "no run at ../guide")
    assert_fails(charlstm("sample", "-m", "deep/missing"), 2, "there is no model at deep/missing", "run folder")
    shutil.rmtree(name)
    assert_fails(charlstm("sample", "-m", name), 2, f"did you mean runs/{name}?")


def test_a_run_that_is_about_to_start_is_waited_for(ten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlstm.cli.actions.plot.START_SECONDS", 0.0)
    assert follow("new") == (2, "charlstm: there is no run at new; charlstm runs lists those that there are\n")
    monkeypatch.setattr("charlstm.cli.actions.plot.START_SECONDS", 60.0)
    monkeypatch.setattr(time, "sleep", lambda seconds: shutil.copytree(ten / "run-1", "new"))
    code, err = follow("new")
    assert code == 0
    assert err == "there is no run at new; waiting for it\nno run is in training\n"


def test_a_run_that_has_logged_nothing_yet_is_waited_for_while_it_trains(
    ten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = ten / "run-1/metrics.jsonl"
    logged = metrics.read_text()
    metrics.unlink()
    lock = ProcessLock(ten / "run-1/lock")
    lock.acquire()

    def log(seconds: float) -> None:
        if seconds == START_POLL_SECONDS and not metrics.exists():
            metrics.write_text(logged)
            lock.release()

    monkeypatch.setattr(time, "sleep", log)
    assert follow(ten / "run-1") == (
        0,
        "run-1 has logged no training loss yet; waiting for it\nno run is in training\n",
    )
    metrics.unlink()
    assert follow(ten / "run-1")[0] == 2


def follow(run: object) -> tuple[int, str]:
    """Follow a run on a terminal. Return the exit status and stderr."""
    terminal, follower = os.openpty()
    err = StringIO()
    with os.fdopen(follower, "wb", 0) as out, os.fdopen(terminal, "rb", 0):
        fcntl.ioctl(out, termios.TIOCSWINSZ, struct.pack("4H", 30, 80, 0, 0))
        return main(["plot", "--follow", str(run)], Console(Terminal(), out, err, {})), err.getvalue()


@pytest.mark.parametrize("content", [b"garbage", b"\xff\x00\n\n", b'{"loss_nats": 1}\n'])
def test_a_file_of_metrics_without_any_is_reported_as_damaged(ten: Path, content: bytes) -> None:
    (ten / "run-1/metrics.jsonl").write_bytes(content)
    assert_fails(charlstm("plot", ten / "run-1"), 1, "ten/run-1/metrics.jsonl is damaged")
    assert_fails(charlstm("plot", ten / "run-1", ten / "run-2", "--csv"), 1, "ten/run-1/metrics.jsonl is damaged")


def test_csv_has_a_row_per_line_with_the_numbers_of_the_metrics(run: Path) -> None:
    rows = list(csv.DictReader(StringIO(charlstm("plot", run, "--csv").text)))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "loss_nats" in line]
    assert [float(row["loss_nats"]) for row in rows if row["loss_nats"]] == [line["loss_nats"] for line in logged]
    assert {row["run"] for row in rows} == {"letters"}
    assert list(rows[0])[:5] == ["run", "step", "seconds", "passes", "characters"]
    only = charlstm("plot", run, "--csv", "--what", "validation").text.splitlines()
    assert only[0].split(",")[5:] == ["validation_loss_nats"]
    assert len(only) - 1 == len([line for line in lines if "validation_loss_nats" in line])


def test_json_has_an_object_per_line_with_the_numbers_of_the_csv(ten: Path) -> None:
    options = ("plot", ten / "run-1", ten / "run-2", "--what", "validation,lr,gpu-memory")
    rows = list(csv.DictReader(StringIO(charlstm(*options, "--csv").text)))
    records = [json.loads(line) for line in charlstm(*options, "--json").text.splitlines()]
    assert [{key: str(value) for key, value in record.items()} for record in records] == [
        {key: value for key, value in row.items() if value} for row in rows
    ]
    assert list(records[0]) == [
        "run",
        "step",
        "seconds",
        "passes",
        "characters",
        "validation_loss_nats",
        "learning_rate",
    ]


@pytest.mark.slow
def test_an_image_can_be_piped_and_is_not_written_to_a_terminal(ten: Path) -> None:
    piped = charlstm("plot", ten / "run-1", "-o", "-")
    assert piped.out.startswith(b"<?xml"), piped.err
    assert not Path("-").exists()
    err = StringIO()
    assert main(["plot", str(ten / "run-1"), "-o", "-"], Console(Terminal(), Terminal(), err, {})) == 2
    assert "redirect stdout" in err.getvalue()


def test_runs_outside_the_current_folder_have_names_without_dots(ten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`plot --tensorboard` joins the names to its folder, and nothing may be written outside it."""
    (ten / "inside").mkdir()
    shutil.copytree(ten / "run-1", ten / "inside/run-3")
    monkeypatch.chdir(ten / "inside")
    rows = csv.DictReader(StringIO(charlstm("plot", "../run-1", "run-3", "../inside/run-3", "--csv").text))
    assert list(dict.fromkeys(row["run"] for row in rows)) == ["run-1", "inside/run-3"]


def test_what_a_run_logs_is_complete(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines[:-1]:
        assert {"gradient_norm", "learning_rate", "characters", "passes", "world_size", "fraction_done"} <= line.keys()
        assert ("memory_bytes" in line) == ("validation_loss_nats" in line and sys.platform == "linux")
    assert all(0 < line["gradient_norm"] < 1e3 for line in lines[:-1])
    assert all(2**20 < line["memory_bytes"] < 2**40 for line in lines if "memory_bytes" in line)
    assert lines[-1]["fraction_done"] == 1
    assert lines[-2]["passes"] == 2


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--what", "los"), ("unknown quantity 'los'", "'loss'")),
        (("-o", "out.gif"), ("out.gif", ".svg, .png or .pdf")),
        (("-o", "out.svg", "--csv"), ("-o and --csv",)),
        (("--follow",), ("terminal",)),
        (("--x", "hours"), ("--x", "hours")),
        (("--tensorboard", "tb", "--what", "lr"), ("--what",)),
        (("--tensorboard", "tb", "--x", "time"), ("--x",)),
        (("--csv", "--x", "step"), ("--x",)),
        (("--json", "--x", "time"), ("--x",)),
        (("--json", "--csv"), ("--csv and --json",)),
    ],
)
def test_bad_options_are_usage_errors(run: Path, options: tuple[str, ...], parts: tuple[str, ...]) -> None:
    assert_fails(charlstm("plot", run, *options), 2, *parts)


def test_a_folder_without_a_run_is_named(run: Path) -> None:
    Path("runs").mkdir()
    assert_fails(charlstm("plot", run, "runs"), 2, "runs holds no run", "charlstm plot runs/*")
    assert_fails(charlstm("plot", "missing"), 2, "missing")
    assert_fails(charlstm("plot"), 2, "there is no run under ./runs")


def test_a_model_or_a_file_in_place_of_a_run_is_named(run: Path) -> None:
    assert_fails(charlstm("plot"), 2, "there is no run under ./runs; name a run folder, or train one")
    assert_fails(charlstm("plot", "builtin"), 2, "builtin is a model without a run: it has no training history")
    Path("x.txt").touch()
    assert_fails(charlstm("plot", "x.txt"), 2, "x.txt is a file, not the folder of a run")


def test_a_run_that_has_logged_nothing_yet_is_an_error(run: Path) -> None:
    Path("new").mkdir()
    shutil.copy(run / "last.safetensors", "new")
    assert_fails(charlstm("plot", "new"), 2, "new has logged no training loss yet")


@pytest.mark.parametrize(
    ("option", "module", "extra"),
    [(("-o", "out.png"), "matplotlib", "plot"), (("--tensorboard", "tb"), "tensorboard", "tensorboard")],
)
def test_a_missing_extra_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...], module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "charlstm.tracking.figure", raising=False)
    assert_fails(charlstm("plot", run, *option), 1, module, f"pip install 'charlstm[{extra}]'")


def test_damaged_lines_of_metrics_are_left_out() -> None:
    good = '{"step": 1, "loss_nats": 2.0}\n'
    for damaged in (
        "{\n",
        "[]\n",
        "1\n",
        '{"loss_nats": 1}\n',
        '{"step": null}\n',
        "\n",
        "\udc80\n",
        '{"step": 1}, 2\n',
    ):
        Path("metrics.jsonl").write_bytes((good + damaged + good).encode("utf-8", "surrogateescape"))
        reader = MetricsReader(Path("metrics.jsonl"))
        reader.update()
        assert reader.entries == [{"step": 1, "loss_nats": 2.0}] * 2, damaged


finite = st.floats(0, 1e6)


@given(
    st.lists(st.lists(finite, min_size=1, max_size=60), min_size=1, max_size=12),
    st.integers(20, 200),
    st.integers(4, 24),
    st.sampled_from([choose_count_ticks, choose_duration_ticks]),
)
def test_a_chart_of_any_lines_fits_its_size_and_shows_each(
    curves: list[list[float]], width: int, rows: int, ticks: object
) -> None:
    lines = [Line(np.arange(1.0, len(ys) + 1), ys, chr(ord("a") + k)) for k, ys in enumerate(curves)]
    chart = draw_chart(lines, width, ticks, rows=rows)  # type: ignore[arg-type]
    assert len(chart) == rows + 2
    assert all(len(row) <= width for row in chart)
    assert any(c > chr(BLANK) or c.isalpha() for row in chart[:rows] for c in row)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=300))
def test_smoothing_keeps_the_range_and_the_mean_of_a_constant(ys: list[float]) -> None:
    values = np.array(ys)
    smoothed = smooth(Curve("run", QUANTITIES["train"], np.arange(float(len(ys))), values)).ys
    assert len(smoothed) == len(values)
    assert values.min() - 1e-9 <= smoothed.min() and smoothed.max() <= values.max() + 1e-9
    assert smoothed[0] == pytest.approx(values[0]) and smoothed[-1] == pytest.approx(values[-1])


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 60)), max_size=20), st.integers(0, 20))
def test_metrics_that_grow_and_are_cut_short_are_read_like_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int]], keep: int
) -> None:
    """A reader that follows a file sees, at each moment, the complete lines that it has then."""
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    reader, content = MetricsReader(path), b""
    for number, (step, cut) in enumerate(writes):
        line = json.dumps({"step": step, "number": number}).encode() + b"\n"
        if number == keep:  # a roll back
            content = b"".join(content.splitlines(keepends=True)[: step // 10])
        content += line
        path.write_bytes(content[: len(content) - cut])
        reader.update()
        fresh = MetricsReader(path)
        fresh.update()
        assert reader.entries == fresh.entries
