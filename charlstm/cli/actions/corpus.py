"""Describe a corpus and recommend options to train it with."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from charlstm.cli.commands.corpus import READING_FLAGS, SOURCE_FLAGS
from charlstm.cli.output import write_json
from charlstm.config import DataConfig
from charlstm.console import Console, escape_controls
from charlstm.data.profile import Documents, Group, Profile
from charlstm.data.recommend import Advice, Recommendation, recommend
from charlstm.data.text import CorpusReader
from charlstm.settings import Setting, Settings
from charlstm.storage.spool import Spool
from charlstm.wording import quantity

MAX_SCRIPTS = 6
"""Scripts and categories in the table; --json has all of them."""


def describe_corpus(console: Console, config: DataConfig, settings: Settings, *, as_json: bool) -> None:
    """Write the statistics of a corpus and the recommended options.

    settings: the flags that the user gave, which the recommendation repeats.
    """
    profile, documents = read_profile(console, config)
    recommendation = repeat_flags(recommend(profile, documents), settings)
    if as_json:
        about = {"documents": documents.count, "longest_document": documents.longest} if documents else {}
        write_json(console, {**profile.to_dict(), **about, "suggestion": recommendation.to_dict()})
    else:
        console.table(dict(table_rows(profile, documents, recommendation)))


def read_profile(console: Console, config: DataConfig) -> tuple[Profile, Documents | None]:
    """Read the corpus with a progress bar, and report what was changed in it on stderr.

    Returns its profile and, if it is read from records, the size of its documents.
    """
    with console.progress() as bar:
        spool = Spool.from_stdin(config.corpus, console.stdin)
        reader = CorpusReader(config, spool, lambda share: bar.update(share, "reading the corpus"))
        chunks = (chunk for chunk in reader.read_chunks() if isinstance(chunk, str))
        profile = Profile.from_chunks(chunks, ", ".join(config.corpus), reader.describe_omissions)
    for note in reader.notes():
        console.note(escape_controls(note))
    if broken := profile.count_of("\N{REPLACEMENT CHARACTER}"):
        console.warn(
            f"{quantity(broken, 'character')} not in {config.encoding}, read as U+FFFD; try another --encoding"
        )
    records = list(reader.records.values())
    documents = Documents(sum(each.kept for each in records), max((each.longest for each in records), default=0))
    return profile, documents if config.reads_records else None


def repeat_flags(recommendation: Recommendation, settings: Settings) -> Recommendation:
    """Add the flags of this command, so that the recommended options read the text in the same way."""
    if recommendation.too_small:
        return recommendation
    binary = any(advice.option == "--level byte" for advice in recommendation.advice)
    flags = [as_flag(settings[name]) for name in (SOURCE_FLAGS if binary else READING_FLAGS) if name in settings]
    repeated = [Advice(flag, "Reads the text as this command did.") for flag in flags]
    return replace(recommendation, advice=(*recommendation.advice, *repeated))


def as_flag(setting: Setting) -> str:
    """Return the flag as it was typed."""
    if isinstance(setting.value, bool):
        return setting.where if setting.value else setting.where.replace("--", "--no-", 1)
    return f"{setting.where} {shlex.quote(str(setting.value))}"


def table_rows(
    profile: Profile, documents: Documents | None, recommendation: Recommendation
) -> Iterator[tuple[str, str]]:
    """Generate the rows of the table: statistics, baselines, recommended options."""
    lines, characters = profile.lines, profile.characters
    yield "characters", f"{characters:,} ({profile.bytes:,} bytes in UTF-8)"
    if documents:
        yield "documents", f"{documents.count:,}, the longest with {quantity(documents.longest, 'character')}"
    yield "distinct characters", f"{profile.distinct:,} ({profile.rarer_than(2).distinct:,} occur once)"
    yield "scripts", format_groups(profile.scripts, characters)
    yield "categories", format_groups(profile.categories, characters)
    yield "rarest", ", ".join(f"{escape_controls(each)} (U+{ord(each):04X}) {n:,}" for each, n in profile.rarest)
    yield "lines", f"{lines.count:,} ({lines.blank:,} blank), the longest with {quantity(lines.longest, 'character')}"
    scope = f" (of the first {lines.compared:,})" if lines.compared < lines.count - lines.blank else ""
    yield "repeated lines", f"{lines.duplicates:.1%}{scope}"
    yield "order-0 entropy", f"{profile.order0:.3f} bits/char"
    order3 = profile.order3
    yield (
        "order-3 entropy",
        format_bpc(order3.bpc, order3.characters, characters) if order3 else "not available: the text is too short",
    )
    yield "xz", format_bpc(profile.xz.bpc, profile.xz.characters, characters)
    if recommendation.too_small:
        yield "too small", recommendation.too_small
    for advice in recommendation.advice:
        yield escape_controls(advice.option), advice.why


def format_bpc(bpc: float, measured: int, characters: int) -> str:
    scope = f" (first {measured:,} characters)" if measured < characters else ""
    return f"{bpc:.3f} bits/char{scope}"


def format_groups(groups: Sequence[Group], characters: int) -> str:
    """Format the share of each group and, in parentheses, its number of distinct characters."""
    more = f" and {len(groups) - MAX_SCRIPTS} more" if len(groups) > MAX_SCRIPTS else ""
    return (
        ", ".join(f"{group.name} {group.count / characters:.1%} ({group.distinct:,})" for group in groups[:MAX_SCRIPTS])
        + more
    )
