"""What to train a corpus with, from its profile: a preset, the options that suit it, and why.

A place to begin, by rules of thumb; `charlstm train --max-time` measures instead, and `charlstm tune` searches.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from charlstm.data.profile import Profile

SIZES = (
    (200_000, "tiny", "for texts of up to a few hundred kilobytes"),
    (3_000_000, "small", "for a text of a megabyte or so"),
    (20_000_000, "medium", "for some megabytes and an hour or two"),
    (None, "large", "for ten megabytes and more, on a GPU; without one, take medium and --max-time"),
)
"""Presets by the characters below which they suit."""

MANY_SYMBOLS = 1000
"""From so many distinct characters on, the network's first and last matrices are most of it."""

LIST_LINES, LIST_MEAN, LIST_LONGEST, LIST_BLANK, LIST_REPEATED = 30, 30, 100, 0.02, 0.1
"""A list has at least so many lines, of so many characters on average and at most, and few blank or repeated ones."""

LONG_LIST = 500_000
"""Characters beyond which the model that suits short lists is too small."""

FOLDED, FEWER, FEW = 0.002, 0.1, 20
"""Share of the text that folding rare characters may cost; and the share and number of characters it must save."""

FOLDS = (10, 5, 3, 2)

STRANGE = 0.05
"""Share of characters that no text has, beyond which it is none."""

SHORT = 5_000
"""Characters below which a preset's batches leave only a few steps in each pass over the text."""


@dataclass(frozen=True)
class Advice:
    """Options as they are typed, and a sentence why."""

    option: str
    why: str


@dataclass(frozen=True)
class Recommendation:
    """A preset and what to set besides."""

    preset: Advice
    settings: tuple[Advice, ...]

    def __str__(self) -> str:
        """What to type after `charlstm train FILE`."""
        return " ".join(advice.option for advice in (self.preset, *self.settings))

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        advice = [{"option": each.option, "why": each.why} for each in (self.preset, *self.settings)]
        return {"options": str(self), "advice": advice}


def recommend(profile: Profile) -> Recommendation:
    """What suits a corpus of this profile."""
    if is_binary(profile):
        return Recommendation(choose_by_size(profile), (*advise_bytes(profile), *advise_small_batch(profile)))
    settings = (*advise_lines(profile), *advise_folding(profile), *advise_tying(profile), *advise_small_batch(profile))
    return Recommendation(choose_preset(profile), settings)


def choose_preset(profile: Profile) -> Advice:
    symbols = profile.distinct - profile.rarer_than(choose_min_count(profile)).distinct
    if symbols >= MANY_SYMBOLS:
        return Advice("--preset chinese", f"{symbols:,} distinct characters want a wide embedding.")
    if is_list(profile) and profile.characters < LONG_LIST:
        return Advice("--preset names", f"It looks like a list, of {profile.lines.count:,} items, one a line.")
    return choose_by_size(profile)


def choose_by_size(profile: Profile) -> Advice:
    name, about = next((name, about) for below, name, about in SIZES if below is None or profile.characters < below)
    return Advice(f"--preset {name}", f"It has {profile.characters:,} characters, and {name} is {about}.")


def is_list(profile: Profile) -> bool:
    """Whether its lines are short and nearly all different, with none left blank: items, not a text that is wrapped."""
    lines = profile.lines
    return (
        lines.count >= LIST_LINES
        and (profile.characters - lines.count) / lines.count <= LIST_MEAN
        and lines.longest <= LIST_LONGEST
        and lines.blank / lines.count <= LIST_BLANK
        and lines.duplicates <= LIST_REPEATED
    )


def is_binary(profile: Profile) -> bool:
    return count_non_text(profile) > STRANGE * profile.characters


def count_non_text(profile: Profile) -> int:
    """Control characters but for those that lay out a text, and the stand-ins for bytes that could not be decoded."""
    seen = map(chr, profile.points.tolist())
    control = [each for each in seen if unicodedata.category(each) == "Cc" and each not in "\t\n\f\r"]
    return profile.count_of("\N{REPLACEMENT CHARACTER}", *control)


def advise_bytes(profile: Profile) -> Iterator[Advice]:
    share = count_non_text(profile) / profile.characters
    yield Advice("--level byte", f"{share:.0%} of it are control characters or bytes that are no text.")


def advise_lines(profile: Profile) -> Iterator[Advice]:
    if is_list(profile):
        why = f"{1 - profile.lines.duplicates:.0%} of the lines are different: each stands for itself."
        yield Advice("--document line", why)


def advise_folding(profile: Profile) -> Iterator[Advice]:
    count = choose_min_count(profile)
    if count > 1:
        rare = profile.rarer_than(count)
        why = (
            f"{rare.distinct:,} of its {profile.distinct:,} distinct characters are seen fewer than {count} times, "
            f"{rare.count / profile.characters:.2%} of the text: too seldom to be learnt."
        )
        yield Advice(f"--min-count {count}", why)


def choose_min_count(profile: Profile) -> int:
    """The most that can be folded without the text losing much; 1 where folding saves little."""
    for count in FOLDS:
        rare = profile.rarer_than(count)
        enough = rare.distinct >= max(FEW, FEWER * profile.distinct)
        if enough and rare.count <= FOLDED * profile.characters:
            return count
    return 1


def advise_tying(profile: Profile) -> Iterator[Advice]:
    symbols = profile.distinct - profile.rarer_than(choose_min_count(profile)).distinct
    if symbols >= MANY_SYMBOLS:
        why = f"One matrix for reading and writing {symbols:,} characters instead of two makes the model much smaller."
        yield Advice("--head tied", why)


def advise_small_batch(profile: Profile) -> Iterator[Advice]:
    if profile.characters < SHORT:
        why = f"{profile.characters:,} characters are few: so there are more steps in a pass. More text would do more."
        yield Advice("--batch-size 1", why)
