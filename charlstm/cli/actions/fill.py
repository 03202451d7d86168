"""Fill the gaps of texts and write the fillings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from charlstm.cli.escapes import advise_on_escapes
from charlstm.cli.output import write_json
from charlstm.cli.prompt import decode_prompt
from charlstm.config import DataConfig, UnknownPolicy
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.infilling.filler import Filler, Filling
from charlstm.infilling.template import Template, parse_templates
from charlstm.storage.locate import name_model
from charlstm.storage.model import ModelFile
from charlstm.text_model import draw_seed
from charlstm.vocabulary import Ids
from charlstm.wording import quantity

BOLD, RESET = b"\x1b[1m", b"\x1b[0m"
"""SGR sequences around what was filled in."""


def write_fillings(
    console: Console,
    path: Path,
    text: str | bytes,
    *,
    gap: str,
    any_length: int | None,
    num: int,
    seed: int | None,
    unknown: UnknownPolicy,
    as_json: bool,
) -> None:
    """Fill the gaps of a text, or of each line for a model of lines, and write the best `num` fillings of each."""
    used_seed = draw_seed() if seed is None else seed
    filler = Filler(ModelFile.load(path), used_seed)
    if isinstance(text, str):
        advise_on_escapes(console, "the text", text, filler.vocabulary)
    data = filler.file.config.data
    templates = parse_templates(
        split_documents(decode_prompt(console, text, data.level, unknown, "text"), data), gap, any_length
    )
    fixed = [
        encode_fixed(filler, template, unknown, number, len(templates)) for number, template in enumerate(templates, 1)
    ]
    shown_seed = f", --seed {used_seed}" if seed is None else ""
    console.note(f"{escape_controls(name_model(path))}, by {filler.method}{shown_seed}", "dim")
    for number, template in enumerate(templates, 1):
        fillings = fill_with_progress(console, filler, template, fixed[number - 1], num)
        write_ranked(console, filler, template, fillings, number, as_json)


def split_documents(text: str, data: DataConfig) -> list[str]:
    """Return the lines of the text for a model that reads each line as a document, else the text."""
    if data.for_plain_text().document != "line":
        return [text]
    return (text.replace("\r\n", "\n") if data.newlines == "lf" else text).split("\n")


def encode_fixed(filler: Filler, template: Template, unknown: UnknownPolicy, number: int, count: int) -> list[Ids]:
    """Return the ids of the texts between the gaps. Raises UsageError for an unknown character, naming its line."""
    try:
        return filler.encode(template, unknown)
    except UsageError as error:
        raise UsageError(f"line {number}: {error.message}" if count > 1 else error.message, error.hint) from error


def fill_with_progress(console: Console, filler: Filler, template: Template, fixed: list[Ids], n: int) -> list[Filling]:
    with console.progress() as bar:
        return filler.fill(
            template, fixed, n, lambda done: bar.update(done, f"filling {quantity(len(template.gaps), 'gap')}")
        )


def write_ranked(
    console: Console, filler: Filler, template: Template, fillings: list[Filling], line: int, as_json: bool
) -> None:
    """Write the fillings of one text, the best first."""
    for index, filling in enumerate(fillings):
        if as_json:
            write_json(console, to_record(filler, template, filling, index, line))
            continue
        if len(fillings) > 1:
            console.note(f"{filling.log_probability:.2f} nats", "dim")
        write_filling(console, template, filling)


def write_filling(console: Console, template: Template, filling: Filling) -> None:
    """Write the filled text; with color, what was filled in is bold."""
    bold = console.uses_color(console.stdout)
    for piece, is_gap in template.pieces(filling.fills):
        if is_gap and bold:
            console.write(BOLD, escaped=True)
        console.write(piece)
        if is_gap and bold:
            console.write(RESET, escaped=True)
    console.write(b"\n")


def to_record(filler: Filler, template: Template, filling: Filling, index: int, line: int) -> dict[str, Any]:
    return {
        "text": template.render(filling.fills).decode("utf-8", "replace"),
        "fills": [fill.decode("utf-8", "replace") for fill in filling.fills],
        "log_probability_nats": round(filling.log_probability, 6),
        "line": line,
        "index": index,
        "seed": filler.seed,
        "method": filler.method,
    }
