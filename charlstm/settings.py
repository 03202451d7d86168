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
class Setting:
    """A value somebody gave for a setting, and where: a flag, a variable or a key of a file."""

    value: Any
    where: str


RENAMED_SECTIONS = {"regularisation": "regularization"}
RENAMED_KEYS = {"training.optimiser": "training.optimizer", "data.unit": "data.level"}
"""Names of earlier versions, which stay readable in model files, run folders and config files."""

REMOVED_KEYS = {"training.batch_size_start": 0, "training.seq_len_start": 0, "training.clip_value": 0.0}
"""Settings of earlier versions and their defaults, with which they are still accepted in files."""

Settings = dict[str, Setting]
"""What was given, by `section.key`. Later sources are merged over earlier ones with `|`."""


def resolve(given: Settings) -> Config:
    """Defaults, overridden by what was given. Raises UsageError for a value that cannot be."""
    return Config(**{name: build_section(section, given, name) for name, section in SECTIONS.items()})


def build_section(section: type[Section], given: Settings, name: str) -> Section:
    """One section from what was given under `name.key`; the rest are its defaults."""
    values = {f.name: check_value(f, given[key]) for f in fields(section) if (key := f"{name}.{f.name}") in given}  # type: ignore[arg-type]
    return section(**values)


def from_dict(tree: Mapping[str, Any], where: str) -> Settings:
    """The settings of a TOML document. Raises UsageError for a key that no section has."""
    given = {}
    for written, values in tree.items():
        section = RENAMED_SECTIONS.get(written, written)
        if section not in SECTIONS or not isinstance(values, Mapping):
            raise unknown_key(written, SECTIONS, where)
        for name, value in values.items():
            key = RENAMED_KEYS.get(f"{section}.{name}", f"{section}.{name}")
            if key in REMOVED_KEYS:
                check_removed(key, value, where)
            else:
                given[check_key(key, where)] = Setting(value, f"{where}: {written}.{name}")
    return given


def check_removed(key: str, value: Any, where: str) -> None:
    """Raises UsageError for a removed setting, unless it has the default that it had when it was removed."""
    if value != REMOVED_KEYS[key]:
        raise UsageError(
            f"{where}: {key} = {value} is not supported any more", f"remove it: {REMOVED_KEYS[key]} was off"
        )


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
    return from_dict(tree, where)


def from_assignments(assignments: Iterable[str]) -> Settings:
    """The settings of `--set section.key=value`."""
    given = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment} has no value", "write --set section.key=value")
        given[check_key(key.strip(), "--set")] = Setting(value.strip(), f"--set {key.strip()}")
    return given


def from_environment(environ: Mapping[str, str], *sections: str) -> Settings:
    """The settings of `CHARLSTM_SEQ_LEN` and its like: a variable for every setting that has a flag."""
    for old, new in RENAMED_KEYS.items():
        check_variable(environ, old.partition(".")[2].upper(), new.partition(".")[2].upper())
    return {
        f"{name}.{f.name}": Setting(environ[variable], variable)
        for name in sections
        for f in fields(ALL_SECTIONS[name])
        if f.metadata["flag"] and environ.get(variable := f"CHARLSTM_{f.name.upper()}")
    }


def check_variable(environ: Mapping[str, str], old: str, new: str) -> None:
    """Raises UsageError for a variable under its name of an earlier version."""
    if environ.get(f"CHARLSTM_{old}"):
        raise UsageError(f"CHARLSTM_{old} is now CHARLSTM_{new}")


def check_key(key: str, where: str) -> str:
    keys = [f"{name}.{f.name}" for name, section in SECTIONS.items() for f in fields(section)]
    if key in keys:
        return key
    raise unknown_key(key, keys, where)


def unknown_key(key: str, known: Iterable[str], where: str) -> UsageError:
    section, dot, name = key.partition(".")
    section = RENAMED_SECTIONS.get(section, section)
    renamed = RENAMED_KEYS.get(f"{section}.{name}", f"{section}{dot}{name}")
    if renamed != key and renamed in known:
        return UsageError(f"{where}: {key} is now {renamed}")
    if renamed in REMOVED_KEYS:
        return UsageError(f"{where}: {key} is not supported any more")
    return UsageError(f"{where}: there is no setting {key!r}", suggest_name(key, known))


def suggest_name(word: str, known: Iterable[str]) -> str:
    """A hint: the known word nearest to this one, or all of them."""
    import difflib  # here, because a right command line does not need it

    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def check_value(f: Field[Any], given: Setting) -> Any:
    """The given value in the setting's own type. Raises UsageError with the value, the range and where it stood."""
    default = f.default
    assert default is not MISSING
    try:
        value = convert_value(given.value, default, f.metadata["metavar"])
    except (ValueError, TypeError):
        raise invalid_value(f, given) from None
    if f.metadata["choices"] and value not in f.metadata["choices"]:
        raise invalid_value(f, given)
    if f.name == "split":
        return check_split(value, given)
    if not in_range(value, f.metadata["minimum"], f.metadata["maximum"]):
        raise invalid_value(f, given)
    return value


def convert_value(value: Any, default: Any, metavar: str) -> Any:
    """The value as the type of the default; text is parsed, a TOML value must already fit. Raises ValueError."""
    if metavar == "TIME" and isinstance(value, str):
        return parse_duration(value)
    if isinstance(default, tuple):
        items = value.split(",") if isinstance(value, str) else list(value)
        return tuple(float(item) if default else str(item) for item in items)
    if isinstance(default, bool):
        return parse_bool(value)
    if isinstance(value, bool) or (isinstance(default, str) and not isinstance(value, str)):
        raise ValueError(value)
    if isinstance(default, int) and isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return type(default)(value)


def parse_bool(value: Any) -> bool:
    """True or false, as TOML, a variable or `--set` spells it. Raises ValueError."""
    try:
        return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
    except KeyError:
        raise ValueError(value) from None


def in_range(value: Any, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def invalid_value(f: Field[Any], given: Setting) -> UsageError:
    return UsageError(f"{given.where} must be {describe_range(f)}, not {given.value!r}")


def describe_range(f: Field[Any]) -> str:
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
        return f"a whole number from {about['minimum']:.0f} to {about['maximum']:.0f}"
    return f"a number from {about['minimum']:g} to {about['maximum']:g}"


def check_split(shares: tuple[float, ...], given: Setting) -> tuple[float, ...]:
    if len(shares) in (2, 3) and all(0 < share < 1 for share in shares) and abs(sum(shares) - 1) < 1e-6:
        return shares
    raise invalid_value(next(f for f in fields(DataConfig) if f.name == "split"), given)


def parse_duration(text: str) -> float:
    """A duration: "90", "90s", "5m", "1h30m". Raises ValueError."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    if not text or not match:
        raise ValueError(text)
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + rest
