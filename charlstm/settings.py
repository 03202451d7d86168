"""From what was given (flags, variables, files) to a configuration: precedence, types and ranges."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from charlstm.config import ALL_SECTIONS, SECTIONS, Config, resumable_keys
from charlstm.errors import UsageError
from charlstm.fields import DURATION, check_value, invalid_value, suggest_match

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
    """Return the defaults with the given settings in their place. Raises UsageError for an invalid value."""
    return Config(**{name: build_section(section, given, name) for name, section in SECTIONS.items()})  # type: ignore[arg-type]


def updated(config: Config, values: Mapping[str, Any], where: str) -> Config:
    """Return `config` with other values of some settings.

    values: the new values, by `section.key`. A `Setting` carries its own origin for error messages.
    where: the origin of the other values, for error messages.
    Raises UsageError for an unknown key or an invalid value.
    """
    given = {
        check_key(key, where): value if isinstance(value, Setting) else Setting(value, f"{where}: {key}")
        for key, value in values.items()
    }
    sections = {
        name: replace(getattr(config, name), **check_section(section, given, name))
        for name, section in SECTIONS.items()
    }
    return replace(config, **sections)


def build_section(section: type[Section], given: Settings, name: str) -> Section:
    """Return a section with the settings given under `name.key` and the defaults of the others.

    Raises UsageError for an invalid value.
    """
    return section(**check_section(section, given, name))


def check_section(section: type[Any], given: Settings, name: str) -> dict[str, Any]:
    """Return the values given under `name.key`, parsed and checked, by key. Raises UsageError for an invalid one."""
    return {f.name: check_setting(f, given[key]) for f in fields(section) if (key := f"{name}.{f.name}") in given}


def check_setting(f: Field[Any], given: Setting) -> Any:
    """Return the value of a setting, parsed if it is text, and checked. Raises UsageError that names its origin."""
    try:
        return check_value(f, parse_value(f, given.value) if isinstance(given.value, str) else given.value)
    except ValueError:
        raise invalid_value(f, given.value, given.where) from None


def check_resumable(saved: Config, config: Config, given: Mapping[str, Setting] = {}) -> None:
    """Check that a run saved with other settings can be resumed with these.

    given: the settings that the user gave, whose origin the error names.
    Raises UsageError if a setting differs that a resumed run must keep.
    """
    before, after = saved.to_dict(), config.to_dict()
    for key in (f"{section}.{name}" for section, values in before.items() for name in values):
        section, _, name = key.partition(".")
        old, new = before[section][name], after[section][name]
        if old != new and key not in resumable_keys():
            where = given[key].where if key in given else key
            names = ", ".join(sorted(key.partition(".")[2] for key in resumable_keys()))
            raise UsageError(
                f"cannot resume: {where} is {new} here and {old} in the run",
                f"only these can change: {names}; a new run can start from its weights (--init-from)",
            )


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
    """Return a hint with the known name that is most similar, or with all of them if none is."""
    known = list(known)
    return suggest_match(word, known) or f"choose from {', '.join(known)}"


def parse_value(f: Field[Any], text: str) -> Any:
    """Return the value of a setting that a flag, a variable or a string in a file spells. Raises ValueError."""
    if f.metadata["metavar"] == DURATION:
        return parse_duration(text)
    if isinstance(f.default, tuple):
        items = text.split(",")
        return tuple(map(float, items)) if f.default else tuple(items)
    if isinstance(f.default, bool):
        return parse_bool(text)
    kind: Any = type(f.default)
    return kind(text)


def parse_bool(text: str) -> bool:
    """Return the value of "true" or "1", "false" or "0". Raises ValueError."""
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def parse_duration(text: str) -> float:
    """A duration: "90", "90s", "5m", "1h30m". Raises ValueError."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    if not text or not match:
        raise ValueError(text)
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + rest
