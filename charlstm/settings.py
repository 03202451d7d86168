"""From what was given (flags, variables, files) to a configuration: precedence, types and ranges."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from charlstm.config import ALL_SECTIONS, SECTIONS, Config, DataConfig
from charlstm.errors import UsageError

Section = TypeVar("Section")


@dataclass(frozen=True)
class Given:
    """A value somebody gave for a setting, and where: a flag, a variable or a key of a file."""

    value: Any
    where: str


Settings = dict[str, Given]
"""What was given, by `section.key`. Later sources are merged over earlier ones with `|`."""


def resolve(given: Settings) -> Config:
    """Defaults, overridden by what was given. Raises UsageError for a value that cannot be."""
    return Config(**{name: fill(section, given, name) for name, section in SECTIONS.items()})


def fill(section: type[Section], given: Settings, name: str) -> Section:
    """One section from what was given under `name.key`; the rest are its defaults."""
    values = {f.name: check(f, given[key]) for f in fields(section) if (key := f"{name}.{f.name}") in given}  # type: ignore[arg-type]
    return section(**values)


def from_tree(tree: Mapping[str, Any], where: str) -> Settings:
    """The settings of a TOML document. Raises UsageError for a key that no section has."""
    given = {}
    for section, values in tree.items():
        if section not in SECTIONS or not isinstance(values, Mapping):
            raise unknown_key(section, SECTIONS, where)
        for key, value in values.items():
            given[known_key(f"{section}.{key}", where)] = Given(value, f"{where}: {section}.{key}")
    return given


def from_file(path: Path) -> Settings:
    """The settings of a TOML file. Raises UsageError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the config file {path}: {error.strerror}") from error
    return from_toml(data, str(path))


def from_toml(data: bytes, where: str) -> Settings:
    """The settings of a TOML document; its `about` line is for people. Raises UsageError naming where and the line."""
    try:
        tree = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{where} is not TOML: {error}") from error
    tree.pop("about", None)
    return from_tree(tree, where)


def from_assignments(assignments: Iterable[str]) -> Settings:
    """The settings of `--set section.key=value`."""
    given = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment} has no value", "write --set section.key=value")
        given[known_key(key.strip(), "--set")] = Given(value.strip(), f"--set {key.strip()}")
    return given


def from_environment(environ: Mapping[str, str], *sections: str) -> Settings:
    """The settings of `CHARLSTM_SEQ_LEN` and its like: a variable for every setting that has a flag."""
    return {
        f"{name}.{f.name}": Given(environ[variable], variable)
        for name in sections
        for f in fields(ALL_SECTIONS[name])
        if f.metadata["flag"] and environ.get(variable := f"CHARLSTM_{f.name.upper()}")
    }


def known_key(key: str, where: str) -> str:
    keys = [f"{name}.{f.name}" for name, section in SECTIONS.items() for f in fields(section)]
    if key in keys:
        return key
    raise unknown_key(key, keys, where)


def unknown_key(key: str, known: Iterable[str], where: str) -> UsageError:
    return UsageError(f"{where}: there is no setting {key!r}", did_you_mean(key, known))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint: the known word nearest to this one, or all of them."""
    import difflib  # here, because a right command line does not need it

    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def check(f: Field[Any], given: Given) -> Any:
    """The given value in the setting's own type. Raises UsageError with the value, the range and where it stood."""
    default = f.default
    assert default is not MISSING
    try:
        value = convert(given.value, default, f.metadata["metavar"])
    except (ValueError, TypeError):
        raise refused(f, given) from None
    if f.metadata["choices"] and value not in f.metadata["choices"]:
        raise refused(f, given)
    if f.name == "split":
        return checked_split(value, given)
    if not within(value, f.metadata["least"], f.metadata["most"]):
        raise refused(f, given)
    return value


def convert(value: Any, default: Any, metavar: str) -> Any:
    """The value as the type of the default; text is parsed, a TOML value must already fit. Raises ValueError."""
    if metavar == "TIME" and isinstance(value, str):
        return seconds(value)
    if isinstance(default, tuple):
        items = value.split(",") if isinstance(value, str) else list(value)
        return tuple(float(item) if default else str(item) for item in items)
    if isinstance(default, bool):
        return truth(value)
    if isinstance(value, bool) or (isinstance(default, str) and not isinstance(value, str)):
        raise ValueError(value)
    if isinstance(default, int) and isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return type(default)(value)


def truth(value: Any) -> bool:
    """True or false, as TOML, a variable or `--set` spells it. Raises ValueError."""
    try:
        return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
    except KeyError:
        raise ValueError(value) from None


def within(value: Any, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def refused(f: Field[Any], given: Given) -> UsageError:
    return UsageError(f"{given.where} must be {allowed(f)}, not {given.value!r}")


def allowed(f: Field[Any]) -> str:
    """The values a setting takes, in words."""
    about = f.metadata
    if about["choices"]:
        return "one of " + ", ".join(about["choices"])
    if f.name == "split":
        return "two or three shares as 0.9,0.1 that add up to 1"
    if about["metavar"] == "TIME":
        return "a time as 90s, 5m or 1h30m, at most a year"
    if isinstance(f.default, bool):
        return "true or false"
    if isinstance(f.default, str):
        return "text"
    if isinstance(f.default, int):
        return f"a whole number from {about['least']:.0f} to {about['most']:.0f}"
    return f"a number from {about['least']:g} to {about['most']:g}"


def checked_split(shares: tuple[float, ...], given: Given) -> tuple[float, ...]:
    if len(shares) in (2, 3) and all(0 < share < 1 for share in shares) and abs(sum(shares) - 1) < 1e-6:
        return shares
    raise refused(next(f for f in fields(DataConfig) if f.name == "split"), given)


def seconds(text: str) -> float:
    """A duration: "90", "90s", "5m", "1h30m". Raises ValueError."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    if not text or not match:
        raise ValueError(text)
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + rest
