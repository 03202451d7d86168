"""A recommended preset and options for a corpus, from its profile.

These are rules of thumb for a first run. `charlstm train --max-time` measures speed on this machine instead, and
`charlstm tune` searches.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from charlstm.data.batches import fit_batches
from charlstm.data.profile import Documents, Profile
from charlstm.presets import load_preset
from charlstm.settings import resolve, updated
from charlstm.wording import quantity


class PresetSize(NamedTuple):
    """A preset for texts of fewer than `below` characters (None: any number)."""

    below: int | None
    name: str
    about: str


PRESET_SIZES = (
    PresetSize(200_000, "tiny", "for texts of up to 200 kB"),
    PresetSize(3_000_000, "small", "for texts of 200 kB to 3 MB"),
    PresetSize(20_000_000, "medium", "for texts of 3 to 20 MB and hours of training"),
    PresetSize(None, "large", "for texts of more than 20 MB, on a GPU; without one, use medium and --max-time"),
)

MIN_CHARACTERS = 3
"""Fewest characters to train on: an input, its target, and one to validate on."""

MIN_DOCUMENTS = 2
"""Fewest documents to train on: one of them is to validate on."""

MIN_LIST_CHARACTERS = 100
"""Fewest characters of a list."""

SHORT_TEXT = 5_000
"""Characters below which the batch sizes of the presets leave only a few steps per epoch, or none."""

MANY_SYMBOLS = 1000
"""Distinct characters from which most weights of a network are in its embedding and its head."""

LIST_MIN_LINES = 30
"""Fewest lines of a list. Fewer lines say nothing about the kind of text."""

LIST_MEAN_LENGTH = 30
"""Largest mean length of the lines of a list, in characters. Prose and source code have longer lines."""

LIST_MAX_LENGTH = 100
"""Largest length of a line of a list, in characters. An item is a name, a title or a word."""

LIST_BLANK_SHARE = 0.02
"""Largest share of blank lines in a list. Texts with stanzas or paragraphs have more of them."""

LIST_REPEATED_SHARE = 0.1
"""Largest share of repeated lines in a list. Dialogs and logs have more of them."""

LONG_LIST = 500_000
"""Characters of a list beyond which the model of the preset `names` is too small."""

MIN_COUNTS = (10, 5, 3, 2)
"""Values of --min-count to consider, the largest first."""

MAX_UNKNOWN_TEXT = 0.002
"""Largest share of the text that a --min-count may turn into the unknown symbol, which is never sampled."""

MIN_SAVED_SHARE = 0.1
"""Smallest share of the distinct characters that a --min-count must save to be worth it."""

MIN_SAVED_SYMBOLS = 20
"""Fewest distinct characters that a --min-count must save to be worth it."""

MAX_PRESET_UNKNOWN_TEXT = 0.1
"""Share of the text beyond which the --min-count 2 of the preset `chinese` is turned off."""

MAX_NON_TEXT = 0.05
"""Share of control characters and undecodable bytes beyond which the corpus is treated as binary."""


@dataclass(frozen=True)
class Advice:
    """An option of `charlstm train` as typed, and the reason in one sentence."""

    option: str
    why: str


@dataclass(frozen=True)
class Recommendation:
    """The options to train a corpus with, the preset first; or none, and why the text is too small."""

    advice: tuple[Advice, ...]
    too_small: str = ""

    def __str__(self) -> str:
        """The options to type after `charlstm train CORPUS`."""
        return " ".join(each.option for each in self.advice)

    def to_dict(self) -> dict[str, Any]:
        """Return the recommendation as JSON values."""
        advice = [{"option": each.option, "why": each.why} for each in self.advice]
        return {"options": str(self) or None, "advice": advice, "too_small": self.too_small or None}


def recommend(profile: Profile, documents: Documents | None = None) -> Recommendation:
    """Recommend options for a corpus with this profile, which is read from records if it has `documents`."""
    if documents and documents.count < MIN_DOCUMENTS:
        return Recommendation((), f"The corpus has {documents.count} document; training needs {MIN_DOCUMENTS}.")
    if profile.characters < MIN_CHARACTERS:
        unit = "character" if profile.characters == 1 else "characters"
        return Recommendation(
            (), f"The text has {profile.characters} {unit}; training needs at least {MIN_CHARACTERS}."
        )
    if is_binary(profile) and not documents:
        advice = (choose_by_size(profile), *advise_bytes(profile))
    else:
        advice = (
            choose_preset(profile),
            *(() if documents else advise_lines(profile)),
            *advise_min_count(profile),
            *advise_tying(profile),
            *advise_replacing(profile),
        )
    return Recommendation((*advice, *advise_small_batches(profile, documents, advice[0])))


def choose_preset(profile: Profile) -> Advice:
    if has_many_symbols(profile):
        symbols = count_symbols(profile)
        return Advice("--preset chinese", f"The text has {symbols:,} distinct characters, which need a wide embedding.")
    if is_list(profile) and profile.characters < LONG_LIST:
        items = profile.lines.count - profile.lines.blank
        return Advice("--preset names", f"The text looks like a list of {items:,} items, one per line.")
    return choose_by_size(profile)


def choose_by_size(profile: Profile) -> Advice:
    size = next(size for size in PRESET_SIZES if size.below is None or profile.characters < size.below)
    why = f"The text has {quantity(profile.characters, 'character')}; {size.name} is {size.about}."
    return Advice(f"--preset {size.name}", why)


def is_list(profile: Profile) -> bool:
    """Whether the lines are separate items: many short ones, hardly any blank or repeated."""
    lines = profile.lines
    return (
        lines.count >= LIST_MIN_LINES
        and profile.characters >= MIN_LIST_CHARACTERS
        and (profile.characters - lines.count) / lines.count <= LIST_MEAN_LENGTH
        and lines.longest <= LIST_MAX_LENGTH
        and lines.blank / lines.count <= LIST_BLANK_SHARE
        and lines.duplicates <= LIST_REPEATED_SHARE
        and fills_validation(profile)
    )


def fills_validation(profile: Profile) -> bool:
    """Whether the validation part, a tenth of the text, has at least one whole line."""
    return 10 * (profile.lines.longest + 2) <= profile.characters - profile.lines.blank


def is_binary(profile: Profile) -> bool:
    return count_non_text(profile) > MAX_NON_TEXT * profile.characters


def count_non_text(profile: Profile) -> int:
    """Count control characters, except those that lay out a text, and replacements for undecodable bytes."""
    seen = map(chr, profile.points.tolist())
    control = [each for each in seen if unicodedata.category(each) == "Cc" and each not in "\t\n\f\r"]
    return profile.count_of("\N{REPLACEMENT CHARACTER}", *control)


def advise_bytes(profile: Profile) -> Iterator[Advice]:
    share = count_non_text(profile) / profile.characters
    yield Advice("--level byte", f"{share:.0%} of the text are control characters or bytes that cannot be decoded.")


def advise_lines(profile: Profile) -> Iterator[Advice]:
    if is_list(profile):
        yield Advice("--document line", f"{1 - profile.lines.duplicates:.0%} of the lines are different items.")


def advise_min_count(profile: Profile) -> Iterator[Advice]:
    count = choose_min_count(profile)
    if count > 1:
        rare = profile.rarer_than(count)
        why = (
            f"{rare.distinct:,} of {profile.distinct:,} distinct characters occur fewer than {count} times and make up "
            f"{rare.count / profile.characters:.2%} of the text: too rare to learn."
        )
        yield Advice(f"--min-count {count}", why)
    elif has_many_symbols(profile) and (rare := profile.rarer_than(2)).count > (
        MAX_PRESET_UNKNOWN_TEXT * profile.characters
    ):
        share = rare.count / profile.characters
        why = f"The preset would make unknown the characters that occur once, {share:.0%} of the text."
        yield Advice("--min-count 1", why)


def choose_min_count(profile: Profile) -> int:
    """Choose the largest count that loses little of the text, or 1 if none saves many symbols."""
    for count in MIN_COUNTS:
        rare = profile.rarer_than(count)
        enough = rare.distinct >= max(MIN_SAVED_SYMBOLS, MIN_SAVED_SHARE * profile.distinct)
        if enough and rare.count <= MAX_UNKNOWN_TEXT * profile.characters:
            return count
    return 1


def count_symbols(profile: Profile) -> int:
    """Count the distinct characters that --min-count keeps."""
    return profile.distinct - profile.rarer_than(choose_min_count(profile)).distinct


def has_many_symbols(profile: Profile) -> bool:
    return count_symbols(profile) >= MANY_SYMBOLS


def advise_tying(profile: Profile) -> Iterator[Advice]:
    if has_many_symbols(profile):
        why = f"One matrix for the input and the output of {count_symbols(profile):,} symbols makes the model smaller."
        yield Advice("--head tied", why)


def advise_replacing(profile: Profile) -> Iterator[Advice]:
    if broken := profile.count_of("\N{REPLACEMENT CHARACTER}"):
        read = quantity(broken, "character")
        why = f"{read} could not be decoded, read as U+FFFD; another --encoding may read them."
        yield Advice("--errors replace", why)


def advise_small_batches(profile: Profile, documents: Documents | None, preset: Advice) -> Iterator[Advice]:
    """Recommend smaller batches than those of the preset if the text has no or few of them."""
    config = resolve(load_preset(preset.option.removeprefix("--preset ")))
    last = documents.longest + 1 if documents else 1  # at most: it may be the whole validation part
    training_part = min(round(config.data.split[0] * profile.characters), profile.characters - last)
    is_short = training_part < SHORT_TEXT * config.data.split[0]
    if is_short:
        config = updated(config, {"training.batch_size": 1}, "the recommendation")
    fitted = fit_batches(config, training_part, ())
    if is_short or fitted:
        size = profile.characters if profile.characters < SHORT_TEXT else training_part
        part = "text has" if profile.characters < SHORT_TEXT else "training part may have"
        yield Advice(
            "--batch-size 1", f"The {part} only {quantity(size, 'character')}: one stream gives more steps per epoch."
        )
    if fitted.get("training.seq_len", config.training.seq_len) < config.training.seq_len:
        why = f"The windows of the preset, {config.training.seq_len} characters, are too long for the text."
        yield Advice(f"--seq-len {fitted['training.seq_len']}", why)
