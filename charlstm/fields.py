"""How a setting is declared in `charlstm.config`, and how its value is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from charlstm.errors import UsageError

DURATION = "TIME"
"""The metavar of a setting in seconds. Its text form is parsed as a duration (90s, 5m, 1h30m)."""


def setting(
    default: Any,
    help: str,
    *,
    flag: bool | str = False,
    resumable: bool = False,
    in_old_runs: Any = None,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    metavar: str = "",
    allowed: str = "",
    valid: Callable[[Any], bool] = lambda value: True,
) -> Any:
    """Declare a setting as a dataclass field.

    help: one sentence, which the command line prints next to the default.
    flag: whether the setting has a command-line option and a variable; "-x" also adds a short option.
    resumable: whether a resumed run may change it.
    in_old_runs: the value in runs that were made before the setting existed, if it is not the default.
    minimum, maximum: inclusive range of a number.
    choices: the strings that are allowed, if not all are.
    metavar: placeholder for the value in the help. The default is made from the type or the choices.
    allowed: the allowed values in words, for error messages. The default is made from the type and the range.
    valid: a further check of a value of the right type.
    """
    metadata = {
        "help": help,
        "flag": flag,
        "resumable": resumable,
        "in_old_runs": in_old_runs,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "metavar": metavar,
        "allowed": allowed,
        "valid": valid,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class CheckedFields:
    """Base of a dataclass whose fields are settings, checked whenever one is constructed."""

    def __post_init__(self) -> None:
        """Check every field and convert it to its own type. Raises UsageError, which names the class and the field."""
        for f in fields(self):
            value = getattr(self, f.name)
            try:
                object.__setattr__(self, f.name, check_value(f, value))
            except ValueError:
                raise invalid_value(f, value, f"{type(self).__name__}.{f.name}") from None


def check_value(f: Field[Any], value: Any) -> Any:
    """Return `value` as the type of the setting `f`: an int as a float, a list as a tuple.

    Raises ValueError for the wrong type, a number out of range or an unknown choice.
    """
    try:
        converted = convert_value(value, f.default)
    except (TypeError, OverflowError) as error:
        raise ValueError(value) from error
    metadata = f.metadata
    if metadata["choices"] and converted not in metadata["choices"]:
        raise ValueError(value)
    if not in_range(converted, metadata["minimum"], metadata["maximum"]) or not metadata["valid"](converted):
        raise ValueError(value)
    return converted


def convert_value(value: Any, default: Any) -> Any:
    """Return `value` as the type of `default`. Raises TypeError or ValueError for a value that does not fit it."""
    if isinstance(default, bool) and value in (True, False):
        return bool(value)
    if isinstance(default, str) and isinstance(value, str):
        return value
    if isinstance(default, tuple) and isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(float(item) if default else str(item) for item in value)
    if isinstance(default, (bool, str, tuple)) or isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{value!r} does not fit a setting of type {type(default).__name__}")
    if isinstance(default, float):
        return float(value)
    if isinstance(value, Integral):
        return int(value)
    if float(value).is_integer():
        return int(float(value))
    raise ValueError(value)


def in_range(value: Any, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def invalid_value(f: Field[Any], value: Any, where: str) -> UsageError:
    """Return the error for a value that a setting cannot have."""
    hint = suggest_match(value, f.metadata["choices"]) if isinstance(value, str) else ""
    return UsageError(f"{where} must be {describe_range(f)}, not {value!r}", hint)


def describe_range(f: Field[Any]) -> str:
    """Return the allowed values of a setting, in words."""
    metadata = f.metadata
    if metadata["allowed"]:
        return str(metadata["allowed"])
    if metadata["choices"]:
        return "one of " + ", ".join(metadata["choices"])
    if metadata["metavar"] == DURATION:
        return "a time such as 90s, 5m or 1h30m, at most a year"
    if isinstance(f.default, bool):
        return "true or false"
    if isinstance(f.default, str):
        return "text"
    if isinstance(f.default, int):
        return f"a whole number from {metadata['minimum']:.0f} to {metadata['maximum']:.0f}"
    return f"a number from {metadata['minimum']:g} to {metadata['maximum']:g}"


def document_fields(section: type[CheckedFields]) -> str:
    """Return the docstring of a section, with a line for each of its settings."""
    lines = [f"{f.name}: {f.metadata['help']} {describe_default(f)}" for f in fields(section)]
    return "\n".join([*(section.__doc__ or "").splitlines(), "", *(f"    {line}" for line in lines), ""])


def describe_default(f: Field[Any]) -> str:
    """Return the allowed values and the default of a setting, in words."""
    allowed = describe_range(f)
    return f"{allowed[0].upper()}{allowed[1:]}; the default is {f.default!r}."


def suggest_match(word: str, known: Iterable[str]) -> str:
    """Return a hint with the known word that is most similar, or "" if none is."""
    import difflib  # deferred: a valid command line does not need it

    similar = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {similar[0]!r}?" if similar else ""
