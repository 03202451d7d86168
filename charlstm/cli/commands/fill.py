"""`charlstm fill`: what could have stood in the gaps of a text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlstm.cli.options import ModelOption, command
from charlstm.cli.prompt import read_prompt
from charlstm.config import DataConfig, UnknownPolicy
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.settings import Settings
from charlstm.storage.locate import find_model

if TYPE_CHECKING:
    from charlstm.infilling.filler import Filler, Filling
    from charlstm.infilling.template import Template
    from charlstm.sampling.network import Ids


@command(
    short="text model gap any_ num seed as_json",
    examples=("charlstm fill 'To be, or ___ to be'", "charlstm fill -n 5 --any 8 'the _ sat' < /dev/null"),
)
def fill(
    text: Annotated[
        str | None,
        typer.Argument(
            help="The text with its gaps. (default: what is piped in)", metavar="[TEXT]", show_default=False
        ),
    ] = None,
    *,
    console: Console,
    settings: Settings,
    model: ModelOption = None,
    gap: Annotated[str, typer.Option(help="The sign that stands for an unknown character.", metavar="SIGN")] = "_",
    any_: Annotated[
        int | None,
        typer.Option(
            "--any",
            help="Gaps may be of any length up to this, however many signs there are.",
            metavar="N",
            min=1,
            max=1000,
            show_default=False,
        ),
    ] = None,
    num: Annotated[int, typer.Option("-n", "--num", help="Proposals to write, the best first.", min=1, max=1000)] = 1,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Same seed, same proposals. (default: one is drawn, and shown on stderr)",
            min=0,
            envvar="CHARLSTM_SEED",
        ),
    ] = None,
    unknown: Annotated[UnknownPolicy, typer.Option(help="Characters that the model has never seen.")] = "error",
    as_json: Annotated[
        bool, typer.Option("--json", help="Write a JSON object for each proposal, with its log-probability.")
    ] = False,
) -> None:
    """Fill the gaps of a text."""
    text = read_prompt(console, None if text == "-" else text, None, "text")
    if not text:
        raise UsageError("there is no text to fill", "charlstm fill 'To be, or ___ to be', or pipe one in")

    from charlstm.infilling.filler import Filler
    from charlstm.infilling.template import parse_templates
    from charlstm.storage.model import ModelFile
    from charlstm.text_model import draw_seed

    path = find_model(model, console.environ)
    drawn = draw_seed() if seed is None else seed
    filler = Filler(ModelFile.load(path), drawn)
    found = parse_templates(texts_of(text, filler.file.config.data), gap, any_)
    fixed = [read(filler, template, unknown, number, len(found)) for number, template in enumerate(found, 1)]
    shown = f", --seed {drawn}" if seed is None else ""
    console.note(f"{escape_controls(str(path))}, by {filler.method}{shown}", "dim")
    for number, template in enumerate(found, 1):
        proposals = filled(console, filler, template, fixed[number - 1], num)
        write(console, filler, template, proposals, number, as_json)


def texts_of(text: str, data: DataConfig) -> list[str]:
    """Each line is a text of its own where the model reads lines so."""
    if data.document != "line":
        return [text]
    return (text.replace("\r\n", "\n") if data.newlines == "lf" else text).split("\n")


def read(filler: Filler, template: Template, unknown: UnknownPolicy, number: int, count: int) -> list[Ids]:
    """What stands between the gaps. Raises UsageError that names the line, of several, with an unknown character."""
    try:
        return filler.encode(template, unknown)
    except UsageError as error:
        raise UsageError(f"line {number}: {error.message}" if count > 1 else error.message, error.hint) from error


def filled(console: Console, filler: Filler, template: Template, fixed: list[Ids], n: int) -> list[Filling]:
    """Proposals for the gaps of a text, with their progress shown."""
    with console.progress() as bar:
        return filler.fill(template, fixed, n, lambda done: bar.update(done, f"filling {len(template.gaps):,} gaps"))


def write(
    console: Console, filler: Filler, template: Template, proposals: list[Filling], line: int, as_json: bool
) -> None:
    for index, proposal in enumerate(proposals):
        if as_json:
            entry = as_object(filler, template, proposal, index, line)
            console.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            continue
        if len(proposals) > 1:
            console.note(f"{proposal.log_probability:.2f} nats", "dim")
        console.write(as_text(console, template, proposal) + b"\n")


def as_text(console: Console, template: Template, proposal: Filling) -> bytes:
    """The filled text; on a terminal with colours, what was filled in is bold."""
    bold = b"\x1b[1m%b\x1b[0m" if console.uses_color(console.stdout) else b"%b"
    return b"".join(bold % piece if new else piece for piece, new in template.pieces(proposal.fills))


def as_object(filler: Filler, template: Template, proposal: Filling, index: int, line: int) -> dict[str, Any]:
    return {
        "text": template.render(proposal.fills).decode("utf-8", "replace"),
        "fills": [fill.decode("utf-8", "replace") for fill in proposal.fills],
        "log_probability_nats": round(proposal.log_probability, 6),
        "line": line,
        "index": index,
        "seed": filler.seed,
        "method": filler.method,
    }
