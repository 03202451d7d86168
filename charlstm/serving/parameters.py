"""The fields of requests: their types, ranges and defaults. docs/serving.md has them as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, get_args

from charlstm.config import SamplingConfig, UnknownPolicy
from charlstm.infilling.template import MAX_GAP
from charlstm.serving.batch import MAX_ACTIVE
from charlstm.serving.errors import ApiError

MAX_PROMPT_LENGTH = 100_000
"""Characters of a prompt. A network reads a few thousand per second."""

MAX_NEW = 100_000
"""Characters of a continuation."""

MAX_STOPS, MAX_STOP_LENGTH = 16, 1000
"""Stop strings of a request, and characters of one."""

MAX_TOP = 20
"""Likeliest symbols that are reported for each place."""

MAX_SEED = 2**63 - 1

UNKNOWN: tuple[UnknownPolicy, ...] = get_args(UnknownPolicy)
"""What to do with characters that the model does not know."""


class Fields:
    """The fields of a request by name. null counts as absent. Each method raises ApiError, which names the field."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = {name: value for name, value in values.items() if value is not None}

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get_flag(self, name: str) -> bool:
        value = self.values.get(name, False)
        if not isinstance(value, bool):
            reject_value(name, "true or false", value)
        return value

    def get_integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
            reject_value(name, "an integer", value)
        if not low <= value <= high:
            reject_value(name, f"between {low:,} and {high:,}", value)
        return int(value)

    def get_number(self, name: str, default: float, low: float, high: float) -> float:
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            reject_value(name, "a number", value)
        if not low <= value <= high:  # NaN is not, and an integer may be too long for a float
            reject_value(name, f"between {low:g} and {high:g}", value)
        return float(value)

    def get_text(self, name: str, default: str = "", longest: int = MAX_PROMPT_LENGTH) -> str:
        return check_text(name, self.values.get(name, default), longest)

    def get_texts(self, name: str, most: int, longest: int) -> list[str]:
        """Return a text, or a list of them, as a list."""
        value = self.values.get(name, [])
        texts = value if isinstance(value, list) else [value]
        if len(texts) > most:
            raise ApiError(f"{name} has {len(texts)} texts, more than {most}", param=name)
        return [check_text(name, text, longest) for text in texts]

    def get_prompts(self, most: int, longest: int) -> list[str | tuple[int, ...]]:
        """Return a text or the list of its tokens, or a list of those, as a list."""
        value = self.values.get("prompt", [])
        is_list = isinstance(value, list) and not (value and is_token(value[0]))
        prompts = value if is_list else [value]
        if len(prompts) > most:
            raise ApiError(f"prompt has {len(prompts)} texts, more than {most}", param="prompt")
        return [
            check_tokens("prompt", each) if isinstance(each, list) else check_text("prompt", each, longest)
            for each in prompts
        ]

    def get_unknown(self) -> UnknownPolicy:
        value = self.get_text("unknown", "error")
        policy = next((policy for policy in UNKNOWN if policy == value), None)
        if policy is None:
            reject_value("unknown", f"one of {', '.join(UNKNOWN)}", value)
        return policy

    def get_stops(self) -> tuple[str, ...]:
        stops = self.get_texts("stop", MAX_STOPS, MAX_STOP_LENGTH)
        if "" in stops:
            raise ApiError("stop must not be empty", param="stop")
        return tuple(stops)

    def get_seed(self) -> int | None:
        return self.get_integer("seed", 0, 0, MAX_SEED) if "seed" in self else None

    def get_filters(self, length: int) -> SamplingConfig:
        """Return the settings that decide how characters are drawn, and how many."""
        return SamplingConfig(
            temperature=self.get_number("temperature", 1.0, 0.0, 100.0),
            top_p=self.get_number("top_p", 1.0, 0.0, 1.0),
            top_k=self.get_integer("top_k", 0, 0, 2_000_000),
            min_p=self.get_number("min_p", 0.0, 0.0, 1.0),
            length=length,
        )


def is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_tokens(name: str, value: Any) -> tuple[int, ...]:
    """Return tokens. Raises ApiError for something else, or too many."""
    if not isinstance(value, list) or not all(map(is_token, value)):
        reject_value(name, "tokens", value)
    if len(value) > MAX_PROMPT_LENGTH:
        raise ApiError(f"{name} has {len(value):,} tokens, more than {MAX_PROMPT_LENGTH:,}", param=name)
    return tuple(value)


def check_text(name: str, value: Any, longest: int) -> str:
    """Return a text. Raises ApiError for something else, one that is too long, or one that is not Unicode."""
    if not isinstance(value, str):
        reject_value(name, "a text", value)
    if len(value) > longest:
        raise ApiError(f"{name} has {len(value):,} characters, more than {longest:,}", param=name)
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ApiError(f"{name} contains half of a surrogate pair, which is not a character", param=name)
    return value


def reject_value(name: str, wanted: str, value: Any) -> NoReturn:
    """Raise ApiError for the value of a field that must be something else."""
    shown = repr(value)
    raise ApiError(f"{name} must be {wanted}, not {shown if len(shown) <= 40 else shown[:40] + '…'}", param=name)


@dataclass(frozen=True)
class CompletionRequest:
    """A request to /v1/completions."""

    model: str | None
    prompts: tuple[str | tuple[int, ...], ...]
    """Texts, or the tokens of texts."""
    suffix: str
    max_tokens: int | None
    filters: SamplingConfig
    """Without the length: that is `max_tokens`, or the model decides."""
    n: int
    stops: tuple[str, ...]
    seed: int | None
    echo: bool
    logprobs: int | None
    stream: bool
    includes_usage: bool
    unknown: UnknownPolicy

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> CompletionRequest:
        """Read the fields of a request. Raises ApiError."""
        fields = Fields(values)
        reject_unavailable(fields)
        n = fields.get_integer("n", 1, 1, MAX_ACTIVE)
        prompts = fields.get_prompts(MAX_ACTIVE, MAX_PROMPT_LENGTH) or [""]
        if n * len(prompts) > MAX_ACTIVE:
            raise ApiError(f"n times the number of prompts is {n * len(prompts)}, more than {MAX_ACTIVE}", param="n")
        if fields.get_integer("best_of", n, 1, MAX_ACTIVE) != n:
            raise ApiError("best_of is not supported, except if it equals n", param="best_of")
        request = cls(
            model=fields.get_text("model") if "model" in fields else None,
            prompts=tuple(prompts),
            suffix=fields.get_text("suffix"),
            max_tokens=fields.get_integer("max_tokens", 0, 0, MAX_NEW) if "max_tokens" in fields else None,
            filters=fields.get_filters(0),
            n=n,
            stops=fields.get_stops(),
            seed=fields.get_seed(),
            echo=fields.get_flag("echo"),
            logprobs=fields.get_integer("logprobs", 0, 0, MAX_TOP) if "logprobs" in fields else None,
            stream=fields.get_flag("stream"),
            includes_usage=parse_stream_options(fields),
            unknown=fields.get_unknown(),
        )
        request.check_suffix()
        return request

    def check_suffix(self) -> None:
        """Raise ApiError for fields that cannot be combined with a suffix."""
        if not self.suffix:
            return
        if not all(isinstance(prompt, str) for prompt in self.prompts):
            raise ApiError("with suffix, prompt must be a text", param="prompt")
        if self.echo or self.logprobs is not None:
            name = "echo" if self.echo else "logprobs"
            raise ApiError(f"{name} cannot be combined with suffix", param=name)
        if self.max_tokens is not None and not 1 <= self.max_tokens <= MAX_GAP:
            raise ApiError(f"with suffix, max_tokens must be between 1 and {MAX_GAP:,}", param="max_tokens")


def reject_unavailable(fields: Fields) -> None:
    """Raise ApiError for fields that would change the text and are not supported, unless they are neutral."""
    for name in ("frequency_penalty", "presence_penalty"):
        if fields.get_number(name, 0.0, -100.0, 100.0) != 0:
            raise ApiError(f"{name} is not supported, except if it is 0", param=name)
    if fields.values.get("logit_bias", {}) != {}:
        raise ApiError("logit_bias is not supported, except if it is empty", param="logit_bias")


def parse_stream_options(fields: Fields) -> bool:
    """Return whether the stream ends with the usage."""
    options = fields.values.get("stream_options", {})
    if not isinstance(options, dict):
        reject_value("stream_options", "an object", options)
    return Fields(options).get_flag("include_usage")
