"""Read a text with a model, and show its units, gates and states."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.cells import CELLS
from charlstm.cli.actions.inspect_lines import write_probes, write_states
from charlstm.cli.commands.inspect import DEFAULT_LENGTH, InspectRequest
from charlstm.cli.findings import ablation_rows, excerpt_rows, finding_rows, format_table, gate_rows, write_lines
from charlstm.cli.heatmap import Guess, draw_text
from charlstm.cli.output import escape_field, write_json
from charlstm.cli.texts import read_files, read_part
from charlstm.config import ModelConfig
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.inspection.detectors import Detector, detect, detect_surprise
from charlstm.inspection.gates import GateStatistics, measure_gates
from charlstm.inspection.intervention import Ablation, ablate, categorize
from charlstm.inspection.levels import extents, middle, to_levels
from charlstm.inspection.page import render_page
from charlstm.inspection.patterns import detect_patterns
from charlstm.inspection.ranking import rank_units
from charlstm.inspection.scatter import draw_scatter
from charlstm.inspection.similar import find_similar
from charlstm.inspection.text import ReadText
from charlstm.inspection.trace import PredictionTrace, Trace, trace
from charlstm.sampling.units import Unit
from charlstm.storage.files import HTML_START, check_replaceable, write_atomically
from charlstm.storage.locate import name_model
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Vocabulary
from charlstm.wording import quantity

MEMORY_SHARE = 0.4
"""Share of the memory of the machine that the states over a text may take: ranking units needs as much again."""

TYPICAL_MEMORY = 8 * 2**30
"""Bytes of memory where the system does not report it."""


def inspect_model(console: Console, path: Path, request: InspectRequest) -> None:
    """Read the text with the model and write what the request asks for."""
    if request.html:
        check_replaceable(request.html, "--html", HTML_START, "a web page")
    file = ModelFile.load(path)
    unit = Unit.parse(request.unit, file.config.model) if request.unit else None
    text, about = read_text(console, file, path, request)
    patterns = detect_patterns(text.characters, request.patterns)
    with console.progress() as bar:
        recorded = trace(file, text.ids, lambda share: bar.update(share, "reading the text"))
    record = {"model": name_model(path), "text": about, "characters": len(text.characters)}
    if request.gates:
        write_gates(console, measure_gates(recorded), record, request)
    elif request.like:
        write_similar(console, text, recorded, record, request)
    elif request.labels:
        write_probes(console, file, text, recorded, record, request)
    elif request.states:
        write_states(console, file, text, recorded, request)
    elif unit:
        write_unit(console, file, text, recorded, unit, record, request)
    else:
        write_ranking(console, file, text, recorded, patterns, record, request)


def read_text(console: Console, file: ModelFile, path: Path, request: InspectRequest) -> tuple[ReadText, str]:
    """Return the text, and its description. Raises UsageError for an empty or too long one."""
    if request.file is None:
        tokens, about = read_part(console, file, request.part, path)
    else:
        tokens, about = read_files(console, file, [request.file], request.unknown, request.encoding, request.errors)
    length = request.length or (DEFAULT_LENGTH if request.file is None else len(tokens))
    length = min(length, len(tokens))
    if not length:
        raise UsageError("the text to inspect is empty")
    check_memory(file.config.model, length)
    return ReadText.from_ids(tokens.span(0, length).astype(np.int64), file.vocabulary), about["text"]


def check_memory(config: ModelConfig, length: int) -> None:
    """Raise UsageError if the states over a text of this length do not fit in memory."""
    quantities = 6  # of an LSTM, which has the most
    per_character = 4 * config.hidden * config.layers * (1 + config.bidirectional) * quantities
    available = MEMORY_SHARE * memory_size()
    if length * per_character > available:
        raise UsageError(
            f"the states over {length:,} characters take {length * per_character / 2**30:,.0f} GB of memory",
            f"inspect the beginning of the text with -l N, at most {int(available / per_character):,}",
        )


def memory_size() -> int:
    """Return the bytes of memory of this machine."""
    try:
        read = os.sysconf  # type: ignore[attr-defined, unused-ignore]  # not available on Windows
        return int(read("SC_PAGE_SIZE") * read("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return TYPICAL_MEMORY


def write_ranking(
    console: Console,
    file: ModelFile,
    text: ReadText,
    recorded: Trace,
    patterns: Sequence[Detector],
    record: dict[str, Any],
    request: InspectRequest,
) -> None:
    """Write the unit that follows each detector best, and what fixing it costs if that is asked for.

    Raises UsageError if the text is so short that nothing varies in it.
    """
    shown = text.select(recorded)
    detectors = [*patterns, *detect(text.characters), *detect_surprise(shown)]
    findings, rare = rank_units(shown, detectors, request.seed)
    if not findings:
        raise UsageError(
            f"nothing varies enough in a text of {quantity(len(text.characters), 'character')} to find a unit for it",
            "give a longer text",
        )
    units = list(dict.fromkeys(each.best.unit for each in findings))
    ablations = fix_units(console, file, text, recorded, units, request.seed) if request.ablate else []
    if request.html:
        about = f"{file.config.model.cell}, {len(text.characters):,} characters of {record['text']}"
        title = escape_controls(record["model"])
        page = render_page(title, about, text.characters, shown, findings, all_units=request.all_units)
        write_atomically(request.html, page.encode("utf-8"))
    if request.as_json:
        found = [each.to_dict() for each in findings]
        names = [each.name for each in rare]
        write_json(console, {**record, "findings": found, "not_ranked": names, **ablations_to_json(ablations)})
        return
    excerpts = excerpt_rows(console, text.characters, shown, findings) if console.uses_color(console.stdout) else {}
    write_lines(console, format_table(finding_rows(findings), excerpts))
    if named := [escape_controls(each.name) for each in rare if len(np.unique(each.values)) > 1]:
        console.note(f"too rare in this text to rank: {', '.join(named)}", "dim")
    write_ablations(console, ablations)


def write_unit(
    console: Console,
    file: ModelFile,
    text: ReadText,
    recorded: Trace,
    unit: Unit,
    record: dict[str, Any],
    request: InspectRequest,
) -> None:
    """Write the text with the values of one unit, and what fixing it costs if that is asked for."""
    shown = text.select(recorded)
    quantity = request.quantity or CELLS[file.config.model.cell].state[-1]
    values = shown.of_unit(unit, quantity)
    ablations = fix_units(console, file, text, recorded, [unit], request.seed) if request.ablate else []
    if request.as_json:
        rounded = [round(value, 4) for value in values.tolist()]
        about = {"unit": str(unit), "quantity": quantity, "content": text.characters, "values": rounded}
        write_json(console, {**record, **about, **ablations_to_json(ablations)})
        return
    center = middle(quantity, values)
    reach = float(extents(values[:, None], center)[0])
    console.note(
        f"{quantity} of unit {unit}: {center - reach:.3g} is blue or 0, {center:.3g} is white, "
        f"{center + reach:.3g} is orange or 9",
        "dim",
    )
    guesses = list_guesses(shown.predictions[unit.direction], file.vocabulary, request.predictions)
    write_lines(
        console, draw_text(console, text.characters, to_levels(quantity, values[:, None])[:, 0].tolist(), guesses)
    )
    write_ablations(console, ablations)


def write_similar(
    console: Console, text: ReadText, recorded: Trace, record: dict[str, Any], request: InspectRequest
) -> None:
    """Write the spans of the text in which most units are on that are on in the given one."""
    assert request.like is not None
    start, end = request.like
    similar = find_similar(text.select(recorded), start, end)
    spans = [(start, len(similar.units)), *similar.spans]
    if request.as_json:
        units = [{"unit": str(unit), "sign": sign} for unit, sign in similar.units]
        found = [
            {"start": place, "units": count, "content": text.characters[place : place + end - start]}
            for place, count in spans
        ]
        write_json(console, {**record, "units": units, "spans": found})
        return
    names = " ".join(f"{'-' * (sign < 0)}{unit}" for unit, sign in similar.units)
    console.note(f"on throughout {start}:{end}: {names}", "dim")
    rows = [("place", "units", "text")] + [
        (f"{place}:{place + end - start}", str(count), escape_field(text.characters[place : place + end - start]))
        for place, count in spans
    ]
    write_lines(console, format_table(rows))


def list_guesses(predictions: PredictionTrace, vocabulary: Vocabulary, count: int) -> list[list[Guess]]:
    """Return the `count` most likely next characters at each place; nothing for 0."""
    if not count:
        return []
    names = [symbol.decode("utf-8", "surrogateescape") for symbol in vocabulary.symbols]
    likeliest, probabilities = (each[:, :count].tolist() for each in (predictions.likeliest, predictions.probabilities))
    return [
        [Guess(names[i], p) for i, p in zip(*pair, strict=True)] for pair in zip(likeliest, probabilities, strict=True)
    ]


def fix_units(
    console: Console, file: ModelFile, text: ReadText, recorded: Trace, units: Sequence[Unit], seed: int
) -> list[Ablation]:
    """Return what each unit is worth, with a progress bar."""
    categories = {name: text.spread(mask) for name, mask in categorize(text.characters).items()}
    with console.progress() as bar:
        return ablate(file, recorded, units, categories, seed, lambda share: bar.update(share, "fixing units"))


def write_ablations(console: Console, ablations: Sequence[Ablation]) -> None:
    if ablations:
        title = f"change of the loss in nats, and how many of {ablations[0].random_units} random units cost less"
        write_lines(console, ["", title, *format_table(ablation_rows(ablations))])


def ablations_to_json(ablations: Sequence[Ablation]) -> dict[str, Any]:
    return {"ablations": [each.to_dict() for each in ablations]} if ablations else {}


def write_gates(
    console: Console, statistics: Sequence[GateStatistics], record: dict[str, Any], request: InspectRequest
) -> None:
    """Write how far the gates are open, and draw it if that is asked for."""
    if request.plot:
        write_atomically(request.plot, draw_scatter(statistics).encode())
    gates = [each.to_dict() for each in statistics]
    if request.as_json:
        write_json(console, {**record, "gates": gates})
    else:
        write_lines(console, format_table(gate_rows(gates)))
