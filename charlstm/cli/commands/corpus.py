"""`charlstm corpus`: what a text is made of, before a model is trained on it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from charlstm.cli.options import command
from charlstm.config import DataConfig
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.settings import Settings, build_section, from_environment

if TYPE_CHECKING:
    from charlstm.data.profile import Group, Profile
    from charlstm.data.recommend import Recommendation

FLAGS = tuple(f"data.{name}" for name in ("glob", "separator", "encoding", "newlines", "normalize", "lower"))
"""What decides which text is read."""

SHOWN = 6
"""Scripts in the table; --json has them all."""


@command(
    *FLAGS,
    short="files glob encoding lower as_json",
    examples=("charlstm corpus book.txt", "zcat books.gz | charlstm corpus -"),
)
def corpus(
    files: Annotated[
        list[str], typer.Argument(help="Files, folders or - for stdin.", metavar="CORPUS ...", show_default=False)
    ],
    *,
    console: Console,
    settings: Settings,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Describe a corpus before training and suggest a preset."""
    given = {**from_environment(console.environ, "data"), **settings}
    config = replace(build_section(DataConfig, given, "data"), corpus=tuple(files), level="char", errors="replace")
    if "-" in files and not console.piped:
        raise UsageError("- reads stdin, and nothing was piped in")

    from charlstm.data.recommend import recommend

    profile = read(console, config)
    advice = recommend(profile)
    if as_json:
        found = {**profile.to_dict(), "suggestion": advice.to_dict()}
        console.write(json.dumps(found, ensure_ascii=False).encode() + b"\n")
    else:
        console.table(dict(rows(profile, advice)))


def read(console: Console, config: DataConfig) -> Profile:
    from charlstm.data.profile import Profile
    from charlstm.data.text import CorpusReader
    from charlstm.storage.spool import Spool

    with console.progress() as bar:
        piped = Spool.from_stdin(config.corpus, console.stdin)
        reader = CorpusReader(config, piped, lambda share: bar.update(share, "reading the corpus"))
        profile = Profile.from_chunks(chunk for chunk in reader.read_chunks() if isinstance(chunk, str))
    for remark in reader.notes():
        console.note(escape_controls(remark))
    if broken := profile.count_of("\N{REPLACEMENT CHARACTER}"):
        console.warn(f"{broken:,} characters are not {config.encoding} and count as U+FFFD; --encoding names another")
    return profile


def rows(profile: Profile, advice: Recommendation) -> Iterator[tuple[str, str]]:
    """The table: what it is made of, what there is to beat, what to try."""
    lines, size = profile.lines, profile.characters
    yield "characters", f"{size:,} ({profile.bytes:,} bytes in UTF-8)"
    yield "distinct", f"{profile.distinct:,}, {profile.rarer_than(2).distinct:,} of them seen once"
    yield "scripts", shares(profile.scripts, size)
    yield "categories", shares(profile.categories, size)
    yield (
        "rarest",
        ", ".join(f"{escape_controls(each)} (U+{ord(each):04X}) {count:,}" for each, count in profile.rarest),
    )
    yield "lines", f"{lines.count:,}, {lines.blank:,} of them blank; the longest has {lines.longest:,} characters"
    first = f" (among the first {lines.compared:,})" if lines.compared < lines.count - lines.blank else ""
    yield "repeated lines", f"{lines.duplicates:.1%}{first}"
    yield "entropy", f"{profile.order0:.3f} bits/char"
    order3 = profile.order3
    yield "given 3 before", measured(order3.bpc, order3.characters, size) if order3 else "too little text to tell"
    yield "xz", measured(profile.xz.bpc, profile.xz.characters, size)
    for each in (advice.preset, *advice.settings):
        yield each.option, each.why


def measured(bpc: float, characters: int, size: int) -> str:
    return f"{bpc:.3f} bits/char" + (f" (of the first {characters:,} characters)" if characters < size else "")


def shares(groups: Sequence[Group], size: int) -> str:
    more = f" and {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
    return ", ".join(f"{group.name} {group.count / size:.1%} ({group.distinct:,})" for group in groups[:SHOWN]) + more
