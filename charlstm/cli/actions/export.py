"""Export a model: check it, measure it, and write the files of each format with a model card."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from charlstm.cli.actions.export_measurements import measure_export, show_measurements
from charlstm.cli.commands.export import ExportRequest
from charlstm.cli.output import write_json
from charlstm.config import MAX_QUANTIZATION_LOSS, Direction
from charlstm.console import Console, escape_controls
from charlstm.errors import CharlstmError, MissingExtraError, UsageError
from charlstm.export.card import CARD_MARK, CARD_NAME, Measurements, format_card
from charlstm.export.description import is_description
from charlstm.export.page import render_writing_page
from charlstm.export.pytorch import MODULE, check_pytorch, write_pytorch
from charlstm.export.title import find_title
from charlstm.export.usage import format_onnx_program, format_torch_program
from charlstm.storage.files import HTML_START, check_replaceable, write_atomically
from charlstm.storage.model import ModelFile

CARD_START = 1000
"""Bytes of a file within which a model card has its mark."""


@dataclass(frozen=True)
class ExportJob:
    """A model to export, and what was measured of it."""

    console: Console
    file: ModelFile
    request: ExportRequest
    measured: Measurements

    @property
    def direction(self) -> Direction | None:
        """The direction of the graph; None for both."""
        return None if self.request.direction == "both" else self.request.direction


class Format(NamedTuple):
    """A format: how it is checked before anything is written, how it is written, and how its files are used.

    check: raises UsageError for a model or a target that does not suit it.
    write: returns the paths of the files that it has written; none for stdout.
    usage: returns Markdown for the model card; None if the format has no need of a card.
    """

    check: Callable[[ExportJob, Path], None]
    write: Callable[[ExportJob, Path], list[Path]]
    usage: Callable[[ExportJob, Path], str] | None
    is_folder: bool = False


def check_page(job: ExportJob, target: Path) -> None:
    check_file("--html", job, target)
    if job.direction is None:
        raise UsageError("--direction both: a page writes in one direction", "export one page for each")
    job.file.select_direction(job.direction)


def write_page(job: ExportJob, target: Path) -> list[Path]:
    """Write a page, and print its size and what its 8-bit weights cost."""
    name = find_title(job.request.model, job.file)
    page = render_writing_page(job.file, name, job.direction or "forward").encode()
    console, loss = job.console, job.file.metrics.get("quantization_loss_nats")
    size = f"the page has {len(page):,} bytes"
    if not isinstance(loss, float):  # of an older model or a stopped run, it is not known
        console.note(size)
    else:
        console.note(f"{size}; its 8-bit weights change the loss by {loss:+.5f} nats per character")
        if loss > MAX_QUANTIZATION_LOSS:
            console.warn("the page is less accurate than the model, whose weights do not round well to 8 bits")
    return write_file(console, target, page)


FILE_STARTS: Mapping[str, tuple[bytes, str]] = {
    "--html": (HTML_START, "a web page"),
    "--onnx": (rb"\x08.\x12", "an ONNX file"),  # its fields 1 and 2: the version of the format, and its producer
    "--charlstm": (rb".{8}\{", "a model file"),
}
"""How the files of an option begin, as a pattern, and what they are: other files are not replaced."""


def check_file(option: str, job: ExportJob, target: Path) -> None:
    """Raise UsageError for a target that is not to be replaced by a file."""
    if target.is_dir():
        raise UsageError(f"{option} writes a file, and {target} is a folder")
    if target.exists() and target.samefile(job.request.model):
        raise UsageError(f"{option} {target} would replace the model itself", "name another file")
    check_replaceable(target, option, *FILE_STARTS[option])


def write_file(console: Console, target: Path, *pieces: bytes | memoryview) -> list[Path]:
    """Write a file, or stdout, and return the paths of the files that were written."""
    if str(target) == "-":
        console.write(b"".join(pieces))
        return []
    write_atomically(target, *pieces)
    return [target]


def check_onnx(job: ExportJob, target: Path) -> None:
    try:
        from charlstm.export.onnx_file import OnnxOptions
    except ImportError as error:
        raise MissingExtraError("--onnx needs onnx", "onnx", error) from None
    check_file("--onnx", job, target)
    request = job.request
    OnnxOptions(job.direction, request.sequence, request.precision).check(job.file)


def write_onnx(job: ExportJob, target: Path) -> list[Path]:
    from charlstm.export.onnx_file import OnnxOptions, build_onnx

    request = job.request
    options = OnnxOptions(job.direction, request.sequence, request.precision)
    data = build_onnx(job.file, options, job.measured.loss_nats)
    return write_file(job.console, target, data)


def describe_onnx(job: ExportJob, target: Path) -> str:
    program = format_onnx_program(job.file, target.name, job.direction, sequence=job.request.sequence)
    return (
        f"`{target.name}` has the vocabulary and the rules in its metadata. With onnxruntime "
        f"(`pip install onnxruntime`):\n\n```python\n{program}```"
    )


def check_pytorch_folder(job: ExportJob, target: Path) -> None:
    check_pytorch(job.file)
    if target.exists() and not target.is_dir():
        raise UsageError(f"--pytorch writes a folder, and {target} is a file")
    module, config, weights = (target / name for name in ("model.py", "config.json", "model.safetensors"))
    first_line = MODULE.read_bytes().partition(b"\n")[0]
    is_foreign = {
        module: module.exists() and not read_start(module).startswith(first_line),
        config: config.exists() and not is_description(config),
        weights: weights.exists() and not config.exists(),  # nothing says whose they are
    }
    for path, foreign in is_foreign.items():
        if foreign:
            raise UsageError(f"{path} was not written by charlstm export", "name another folder")


def write_pytorch_folder(job: ExportJob, target: Path) -> list[Path]:
    return write_pytorch(job.file, target)


def describe_pytorch(job: ExportJob, target: Path) -> str:
    both = job.file.config.model.bidirectional
    other = "\n\n`load_folder(Path(), backward=True)` loads the backward direction." if both else ""
    return (
        "With charlstm: `charlstm sample -m model.safetensors`. With torch and safetensors only "
        "(`pip install torch safetensors`), in this folder:\n\n"
        f"```python\n{format_torch_program(job.file)}```{other}"
    )


def check_model_file(job: ExportJob, target: Path) -> None:
    check_file("--charlstm", job, target)
    if job.request.precision == "int8":
        raise UsageError("--charlstm has no 8-bit weights", "sample rounds them itself; use --weights fp16")


def write_model_file(job: ExportJob, target: Path) -> list[Path]:
    pieces = job.file.serialize("fp16" if job.request.precision == "fp16" else "fp32")
    return write_file(job.console, target, *pieces)


def describe_model_file(job: ExportJob, target: Path) -> str:
    return f"With charlstm: `charlstm sample -m {target.name}`."


EXPORT_FORMATS: Mapping[str, Format] = {
    "html": Format(check_page, write_page, usage=None),
    "onnx": Format(check_onnx, write_onnx, describe_onnx),
    "pytorch": Format(check_pytorch_folder, write_pytorch_folder, describe_pytorch, is_folder=True),
    "charlstm": Format(check_model_file, write_model_file, describe_model_file),
}
"""The formats by the names of their options."""


def run_export(console: Console, request: ExportRequest) -> None:
    """Write the files of the request, and their paths to stdout."""
    job = ExportJob(console, ModelFile.load(request.model), request, Measurements())
    for name, target in request.targets.items():
        EXPORT_FORMATS[name].check(job, target)
    measured, record = measure_export(console, job.file, request)
    job = replace(job, measured=measured)
    written: list[Path] = []
    for name, target in request.targets.items():
        if EXPORT_FORMATS[name].is_folder:
            make_folder(target)
        written += EXPORT_FORMATS[name].write(job, target)
    written += write_cards(job)
    show_measurements(console, measured)
    if request.as_json:
        write_json(console, {"files": list(map(str, written)), **record})
    elif "-" not in map(str, request.targets.values()):
        console.write("".join(f"{path}\n" for path in written).encode("utf-8", "surrogateescape"))


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CharlstmError(f"cannot make the folder {path}: {error.strerror}") from error


def write_cards(job: ExportJob) -> list[Path]:
    """Write a card to each folder that a file was written to, unless it holds a README.md of its own."""
    usages: dict[Path, list[str]] = defaultdict(list)
    for name, target in job.request.targets.items():
        describe_usage = EXPORT_FORMATS[name].usage
        if describe_usage and str(target) != "-":
            folder = target if EXPORT_FORMATS[name].is_folder else target.parent
            usages[folder].append(describe_usage(job, target))
    written, title = [], find_title(job.request.model, job.file)
    for folder, usage in usages.items():
        card = folder / CARD_NAME
        before = read_start(card, None) if card.exists() else b""
        if before and CARD_MARK.encode() not in before[:CARD_START]:
            job.console.note(f"{escape_controls(str(card))} is not a model card, so it was left as it is")
            continue
        text = format_card(title, job.file, job.measured, "\n\n".join(usage)).encode()
        if before not in (b"", text):
            job.console.note(f"{escape_controls(str(card))} replaces the model card of an earlier export")
        write_atomically(card, text)
        written.append(card)
    return written


def read_start(path: Path, size: int | None = CARD_START) -> bytes:
    """Return the first bytes of a file: this many, or all."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise CharlstmError(f"cannot read {path}: {error.strerror}") from error
