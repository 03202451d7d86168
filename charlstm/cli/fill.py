"""`charlstm fill`: what could have stood in the gaps of a text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlstm.cli.options import ModelOption
from charlstm.cli.prompt import read_prompt
from charlstm.config import Unknown
from charlstm.console import Console, printable
from charlstm.errors import UsageError
from charlstm.runs import find_model
from charlstm.settings import Settings

if TYPE_CHECKING:
    from charlstm.sampling.proposals import Filler, Proposal
    from charlstm.sampling.template import Template


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
    unknown: Annotated[Unknown, typer.Option(help="Characters that the model has never seen.")] = "error",
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Write a JSON object for each proposal, with its log-probability.")
    ] = False,
) -> None:
    """Fill the gaps of a text: charlstm fill 'To be, or ___ to be'."""
    if len(gap) != 1:
        raise UsageError(f"--gap must be one character, not {gap!r}")
    text = read_prompt(console, None if text == "-" else text, None)
    if not text:
        raise UsageError("there is no text to fill", "charlstm fill 'To be, or ___ to be', or pipe one in")

    from charlstm.modelfile import ModelFile
    from charlstm.sampling.proposals import Filler
    from charlstm.sampling.template import templates
    from charlstm.sampling.text_model import draw_seed

    path = find_model(model, console.environ)
    drawn = draw_seed() if seed is None else seed
    filler = Filler(ModelFile.load(path), drawn)
    texts = text.split("\n") if filler.file.config.data.document == "line" else [text]
    gapped = templates(texts, gap, any_)
    shown = f", --seed {drawn}" if seed is None else ""
    console.note(f"{printable(str(path))}, by {filler.method}{shown}", "dim")
    for template in gapped:
        for index, proposal in enumerate(filler.proposals(template, num, unknown)):
            if jsonl:
                console.write(json.dumps(as_object(filler, template, proposal, index), ensure_ascii=False).encode())
            else:
                if num > 1:
                    console.note(f"{proposal.log_probability:.2f} nats", "dim")
                console.write(as_text(console, template, proposal))
            console.write(b"\n")


def as_text(console: Console, template: Template, proposal: Proposal) -> bytes:
    """The filled text; on a terminal with colours, what was filled in is bold."""
    bold = b"\x1b[1m%b\x1b[0m" if console.coloured(console.stdout) else b"%b"
    return b"".join(bold % piece if new else piece for piece, new in template.filled(proposal.fills))


def as_object(filler: Filler, template: Template, proposal: Proposal, index: int) -> dict[str, Any]:
    return {
        "text": template.text(proposal.fills).decode("utf-8", "replace"),
        "fills": [fill.decode("utf-8", "replace") for fill in proposal.fills],
        "log_probability_nats": round(proposal.log_probability, 6),
        "index": index,
        "seed": filler.seed,
        "method": filler.method,
    }
