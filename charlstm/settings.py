"""From flags, environment variables, files and presets to a `Config`. The settings are declared in `config.py`.

Each source is read into `Settings`: values by `section.key`, each with its origin for error messages. Sources are
merged with `|`, the one with the highest precedence last, and `resolve` turns the result into a `Config`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from charlstm.config import ALL_SECTIONS, SECTIONS, Config, resumable_keys
from charlstm.errors import CharlstmError, UsageError
from charlstm.fields import DURATION, check_value, invalid_value, suggest_match

Section = TypeVar("Section")


@dataclass(frozen=True)
class Setting:
    """A value that the user gave for a setting.

    value: text from the command line or the environment, or a value from TOML.
    where: its origin (a flag, a variable or a key of a file), which error messages name.
    """

    value: Any
    where: str


Settings = dict[str, Setting]
"""The values that the user gave, by `section.key`."""

RENAMED_SECTIONS = {"regularisation": "regularization"}
RENAMED_KEYS = {"training.optimiser": "training.optimizer", "data.unit": "data.level"}
"""Names of earlier versions. Model files, run folders and config files may use them; flags and variables may not."""

REMOVED_KEYS = {"training.batch_size_start": 0, "training.seq_len_start": 0, "training.clip_value": 0.0}
"""Settings of earlier versions, and the default with which files may still contain them."""


def resolve(given: Settings) -> Config:
    """Return the defaults, replaced by the given settings. Raises UsageError for an invalid value."""
    return Config(**{name: build_section(section, given, name) for name, section in SECTIONS.items()})  # type: ignore[arg-type]


def updated(config: Config, values: Mapping[str, Any], where: str) -> Config:
    """Return `config` with some settings replaced.

    values: the new values by `section.key`. A `Setting` among them carries its own origin.
    where: the origin of the other values, which error messages name.

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
    """Return one section: its defaults, replaced by the settings given under `name.key`. Raises as `resolve` does."""
    return section(**check_section(section, given, name))


def check_section(section: type[Any], given: Settings, name: str) -> dict[str, Any]:
    """Return the values given under `name.key` by key, parsed and checked. Raises UsageError for an invalid value."""
    return {f.name: check_setting(f, given[key]) for f in fields(section) if (key := f"{name}.{f.name}") in given}


def check_setting(f: Field[Any], given: Setting) -> Any:
    """Return the value of a setting, parsed if it is text, and checked. Raises UsageError, which names its origin."""
    try:
        return check_value(f, parse_value(f, given.value) if isinstance(given.value, str) else given.value)
    except ValueError:
        raise invalid_value(f, given.value, given.where) from None


def check_resumable(saved: Config, config: Config, given: Mapping[str, Setting] = {}) -> None:
    """Check that a run can be resumed with other settings than it was saved with.

    saved: the settings of the run.
    config: the settings to resume it with.
    given: the settings that the user gave, whose origins the error names.

    Raises UsageError if they differ in a setting that a resumed run must keep.
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


def from_file(path: Path) -> Settings:
    """Read the settings of a TOML file. Raises UsageError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the config file {path}: {error.strerror}") from error
    return from_toml(data, str(path))


def from_toml(data: bytes, where: str) -> Settings:
    """Read the settings of a TOML document. A top-level `about` is ignored. Raises UsageError, which names `where`."""
    import tomllib  # both imports are deferred: without a config file, every command starts without them

    from charlstm.decoding import decode_text

    try:
        tree = tomllib.loads(decode_text(data, where))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{where} is not valid TOML: {error}") from error
    except CharlstmError as error:
        raise UsageError(error.message, error.hint) from error
    tree.pop("about", None)
    return from_dict(tree, where)


def from_dict(tree: Mapping[str, Any], where: str, *, for_training: bool = True) -> Settings:
    """Read settings from nested dicts, as TOML has them; names of earlier versions are translated.

    for_training: False for a trained model, which does not depend on how it was trained: removed settings are ignored.

    Raises UsageError for an unknown section or key, or for a removed setting that was in use.
    """
    given = {}
    for written, values in tree.items():
        section = RENAMED_SECTIONS.get(written, written)
        if section not in SECTIONS or not isinstance(values, Mapping):
            raise unknown_key(written, SECTIONS, where)
        for name, value in values.items():
            key = current_key(f"{section}.{name}")
            if key in REMOVED_KEYS:
                if for_training:
                    check_removed(key, value, where)
            else:
                given[check_key(key, where)] = Setting(value, f"{where}: {written}.{name}")
    return given


def from_run(path: Path) -> Settings:
    """Read the `config.toml` of a run, which may have been made before a setting existed. Raises UsageError."""
    old = {
        f"{name}.{f.name}": Setting(value, f"{path}: {name}.{f.name}")
        for name, section in SECTIONS.items()
        for f in fields(section)
        if (value := f.metadata["in_old_runs"]) is not None
    }
    return old | from_file(path)


def from_assignments(assignments: Iterable[str]) -> Settings:
    """Read the settings of `--set section.key=value`. Raises UsageError."""
    given = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment} has no value", "write --set section.key=value")
        given[check_key(key.strip(), "--set")] = Setting(value.strip(), f"--set {key.strip()}")
    return given


def from_environment(environ: Mapping[str, str], *sections: str) -> Settings:
    """Read these sections from environment variables, such as CHARLSTM_SEQ_LEN for training.seq_len.

    Only settings with a flag have one; empty variables are ignored. Raises UsageError for a variable that has the old
    name of a renamed setting.
    """
    for old, new in RENAMED_KEYS.items():
        section, _, name = new.partition(".")
        if section in sections and environ.get(variable_name(old.partition(".")[2])):
            raise UsageError(f"{variable_name(old.partition('.')[2])} is now {variable_name(name)}")
    return {
        f"{name}.{f.name}": Setting(environ[variable], variable)
        for name in sections
        for f in fields(ALL_SECTIONS[name])
        if f.metadata["flag"] and environ.get(variable := variable_name(f.name))
    }


def variable_name(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"CHARLSTM_{name.upper()}"


def current_key(key: str) -> str:
    """Return the name that this version uses for a `section.key` of an earlier one."""
    section, dot, name = key.partition(".")
    key = f"{RENAMED_SECTIONS.get(section, section)}{dot}{name}"
    return RENAMED_KEYS.get(key, key)


def check_key(key: str, where: str) -> str:
    """Return `key` if it is a setting of a run. Raises UsageError."""
    keys = [f"{name}.{f.name}" for name, section in SECTIONS.items() for f in fields(section)]
    if key in keys:
        return key
    raise unknown_key(key, keys, where)


def check_removed(key: str, value: Any, where: str) -> None:
    """Raise UsageError for a removed setting, unless it has its old default."""
    if value != REMOVED_KEYS[key]:
        raise UsageError(f"{where}: {key} = {value} is no longer supported", "remove this setting")


def unknown_key(key: str, known: Iterable[str], where: str) -> UsageError:
    """Return the error for a key that is not a setting: its new name, that it was removed, or a suggestion."""
    known, current = list(known), current_key(key)
    if current != key and current in known:
        return UsageError(f"{where}: {key} is now {current}")
    if current in REMOVED_KEYS:
        return UsageError(f"{where}: {key} is no longer supported")
    same_name = [k for k in known if k.partition(".")[2] == key]
    hint = f"did you mean {same_name[0]!r}?" if same_name else suggest_name(key, known)
    return UsageError(f"{where}: unknown setting {key!r}", hint)


def suggest_name(word: str, known: Iterable[str]) -> str:
    """Return a hint with the most similar known name, or with all of them if none is similar."""
    known = list(known)
    return suggest_match(word, known) or f"choose from {', '.join(known)}"


def parse_value(f: Field[Any], text: str) -> Any:
    """Return the value of a setting that is given as text. Raises ValueError."""
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
    """Return the seconds that "90", "90s", "5m" or "1h30m" spells. Raises ValueError."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    if not text or not match:
        raise ValueError(text)
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds
