"""A plugin of llm (https://llm.datasette.io): `llm -m charlstm/NAME "ROMEO:"` continues a text. Only llm imports it.

NAME is a run under ./runs, the model of $CHARLSTM_MODEL, or builtin, the model that ships with charlstm.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any, cast

import llm
from pydantic import Field, create_model

from charlstm.config import SamplingConfig, UnknownPolicy
from charlstm.errors import CharlstmError, UsageError
from charlstm.storage.locate import BUILTIN, BUILTIN_MODEL, find_model, find_model_in, name_run


def define_options() -> type[llm.Options]:
    """Return the options of a prompt: the settings of `charlstm sample`, a stop string and a seed."""
    options: dict[str, Any] = {
        f.name: (type(f.default) | None, Field(None, description=f.metadata["help"])) for f in fields(SamplingConfig)
    }
    options["stop"] = (str | None, Field(None, description="End before this text.", min_length=1))
    options["seed"] = (int | None, Field(None, description="The same seed gives the same text.", ge=0))
    options["unknown"] = (UnknownPolicy | None, Field(None, description="Unknown characters of the prompt."))
    return create_model("SamplingOptions", __base__=llm.Options, **options)


class CharlstmModel(llm.Model):
    """A trained model. A conversation is one text, which each prompt continues."""

    can_stream = True
    Options = define_options()  # type: ignore[assignment]

    def __init__(self, name: str, path: Path) -> None:
        self.model_id, self.path = f"charlstm/{name}", path

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response,
        conversation: llm.Conversation | None = None,
    ) -> Iterator[str]:
        """Yield the characters that continue the conversation."""
        from charlstm.text_model import load  # NumPy, which other models of llm do without

        text = join_turns(prompt, conversation)
        given = prompt.options.model_dump(exclude_none=True)
        seed, stop, unknown = given.pop("seed", None), given.pop("stop", None), given.pop("unknown", "error")
        try:
            model = load(self.path)
            config = SamplingConfig(**{"length": model.file.default_length, **given})
            yield from model.generate(text, config, seed=seed, stop=[stop] if stop else [], unknown=unknown)
        except CharlstmError as error:
            hint = f"; {error.hint}".replace("--unknown", "-o unknown") if "--unknown" in error.hint else ""
            raise llm.ModelError(error.message.removeprefix("SamplingConfig.") + hint) from error


def join_turns(prompt: llm.Prompt, conversation: llm.Conversation | None) -> str:
    """Return the texts of the conversation, one after the other, without instructions, which no model here follows."""
    try:
        from llm.parts import TextPart  # not at the top: llm before 0.32 has no parts
    except ImportError:
        responses = [] if conversation is None else cast("list[llm.Response]", conversation.responses)
        turns = [*((each.prompt.prompt, each.text()) for each in responses), (prompt.prompt,)]
        return "".join(text or "" for text in chain.from_iterable(turns))
    parts = (part for message in prompt.messages if message.role in ("user", "assistant") for part in message.parts)
    return "".join(part.text for part in parts if isinstance(part, TextPart))


@llm.hookimpl
def register_models(register: Callable[[llm.Model], None]) -> None:
    """Report the models to llm."""
    for name, path in find_named_models(Path("runs"), os.environ).items():
        register(CharlstmModel(name, path))


def find_named_models(runs: Path, environ: Mapping[str, str]) -> dict[str, Path]:
    """Return the model that ships, those of the runs in a folder, and that of $CHARLSTM_MODEL, by name."""
    found = {BUILTIN: BUILTIN_MODEL}
    for folder in sorted(runs.iterdir()) if runs.is_dir() else ():
        with suppress(UsageError):  # it holds no model
            found[folder.name] = find_model_in(folder)
    if "CHARLSTM_MODEL" in environ:
        with suppress(UsageError):
            path = find_model(None, environ)
            found[name_run(path)] = path
    return found
