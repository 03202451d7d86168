"""Every setting: its default, its range and its one line of help, here and nowhere else.

Flags, `CHARLSTM_*` variables, TOML keys and the documentation are all made from these dataclasses.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w

from charlstm.errors import UsageError


def setting(
    default: Any,
    help: str,
    *,
    flag: bool | str = False,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    metavar: str = "",
) -> Any:
    """A field with a default, a help line and the values it may take.

    `flag` gives it an option of its own; as "-x", a short one too.
    """
    about = {"help": help, "flag": flag, "least": least, "most": most, "choices": choices, "metavar": metavar}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class ModelConfig:
    """The network: an embedding, a stack of recurrent layers, a linear head."""

    cell: str = setting("lstm", "Recurrent cell.", flag=True, choices=("lstm", "gru", "rnn"))
    layers: int = setting(1, "Recurrent layers, one on the other.", flag=True, least=1, most=64)
    hidden: int = setting(384, "Units in each layer.", flag=True, least=1, most=16384)
    embedding: int = setting(64, "Width of a character's vector.", least=1, most=16384)
    dropout: float = setting(
        0.0, "Share of units left out between layers and before the head.", flag=True, least=0.0, most=0.95
    )


@dataclass(frozen=True)
class DataConfig:
    """What is read, and what a symbol is."""

    corpus: tuple[str, ...] = setting((), "Files and folders the text came from; - is stdin.")
    unit: str = setting(
        "char",
        "What the model reads and writes: characters, or the bytes of any file.",
        flag=True,
        choices=("char", "byte"),
    )
    encoding: str = setting("utf-8", "Encoding of the corpus.", flag=True)
    errors: str = setting(
        "strict", "A byte that is not text: an error, or U+FFFD in its place.", flag=True, choices=("strict", "replace")
    )
    min_count: int = setting(
        1, "Fold characters seen fewer times than this into one unknown symbol.", flag=True, least=1, most=1e9
    )
    split: tuple[float, ...] = setting(
        (0.9, 0.1), "Shares of train, validation and, if a third is given, test.", flag=True, metavar="A,B[,C]"
    )


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are found."""

    seq_len: int = setting(
        64, "Characters back-propagated through at a time (truncated BPTT).", flag=True, least=1, most=65536
    )
    batch_size: int = setting(16, "Parallel streams through the corpus.", flag=True, least=1, most=65536)
    lr: float = setting(8e-3, "Peak learning rate of AdamW.", flag=True, least=1e-8, most=10.0)
    epochs: int = setting(20, "Passes over the training part.", flag=True, least=1, most=1e6)
    max_time: float = setting(
        0.0,
        "Stop after this long, as 90s, 5m or 1h30m; the learning rate decays to fit. 0: no limit.",
        flag=True,
        least=0.0,
        most=3e7,
        metavar="TIME",
    )
    warmup: float = setting(
        0.02, "Share of training over which the learning rate climbs to its peak.", least=0.0, most=1.0
    )
    final_lr: float = setting(
        0.02, "Learning rate at the end, as a share of the peak; a cosine leads there.", least=0.0, most=1.0
    )
    beta1: float = setting(0.9, "AdamW's decay of the gradient's mean.", least=0.0, most=0.9999)
    beta2: float = setting(0.99, "AdamW's decay of the gradient's square.", least=0.0, most=0.99999)
    weight_decay: float = setting(
        0.01, "AdamW's weight decay; biases and the embedding are spared.", least=0.0, most=10.0
    )
    clip: float = setting(1.0, "Largest norm of the gradient. 0: not clipped.", least=0.0, most=1e6)
    validate_every: int = setting(500, "Steps between validations; each one saves the run.", least=1, most=1e9)
    seed: int = setting(
        1, "Seed of the initial weights, the dropout and the order of the data.", flag=True, least=0, most=2**63 - 1
    )
    device: str = setting("auto", "Where to train.", flag=True, choices=("auto", "cpu", "cuda", "mps"))
    precision: str = setting(
        "auto", "Arithmetic of the forward and backward pass.", flag=True, choices=("auto", "fp32", "bf16")
    )


@dataclass(frozen=True)
class SamplingConfig:
    """How a character is drawn from the model's distribution."""

    temperature: float = setting(
        1.0, "Below 1 plays safe, above 1 takes risks, 0 always takes the likeliest.", flag="-t", least=0.0, most=100.0
    )
    top_k: int = setting(0, "Draw from the K likeliest only. 0: off.", flag=True, least=0, most=2e6)
    top_p: float = setting(
        1.0, "Draw from the likeliest that together have this probability. 1: off.", flag=True, least=0.0, most=1.0
    )
    min_p: float = setting(
        0.0, "Leave out what is less likely than this share of the likeliest. 0: off.", flag=True, least=0.0, most=1.0
    )
    length: int = setting(
        500, "Characters to write, the prompt not counted. 0: until stopped.", flag="-l", least=0, most=1e12
    )


@dataclass(frozen=True)
class Config:
    """All that decides a run; `config.toml` in the run's folder is this, written out."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts, fit for TOML and JSON."""
        return {
            section: {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
            for section, values in asdict(self).items()
        }

    def to_toml(self) -> str:
        """What `config.toml` holds and `--config` takes."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], where: str = "config") -> Config:
        """The inverse of `to_dict`. Raises UsageError for an unknown key or a value out of range."""
        return resolve(from_tree(tree, where))


Unknown = Literal["error", "skip", "replace"]
"""What to do with a character that the model has never seen."""

Section = TypeVar("Section")
SECTIONS: dict[str, type] = {"model": ModelConfig, "data": DataConfig, "training": TrainingConfig}


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
    """The settings of a TOML file; its `about` line is for people. Raises UsageError naming file and line."""
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the config file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    tree.pop("about", None)
    return from_tree(tree, str(path))


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
        for f in fields(SECTIONS.get(name, SamplingConfig))
        if f.metadata["flag"] and (variable := f"CHARLSTM_{f.name.upper()}") in environ
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
    if isinstance(value, bool) or (isinstance(default, str) and not isinstance(value, str)):
        raise ValueError(value)
    if isinstance(default, int) and isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return type(default)(value)


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
    kind = (
        "a time as 90s, 5m or 1h30m"
        if about["metavar"] == "TIME"
        else "a whole number"
        if isinstance(f.default, int)
        else "a number"
    )
    if isinstance(f.default, str):
        return "text"
    return f"{kind} from {about['least']:.15g} to {about['most']:.15g}"


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
