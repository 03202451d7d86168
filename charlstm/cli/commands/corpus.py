"""`charlstm corpus`: describe a text before training."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from charlstm.cli.options import SOURCE, JsonOption, check_record_flags, command
from charlstm.config import DataConfig
from charlstm.console import Console
from charlstm.errors import UsageError
from charlstm.settings import Settings, build_section, from_environment

SOURCE_FLAGS = ("data.glob", "data.separator", "data.column", "data.field")
TEXT_FLAGS = ("data.encoding", "data.newlines", "data.normalize", "data.lower")
READING_FLAGS = SOURCE_FLAGS + TEXT_FLAGS
"""The settings that determine which text is read, and how it is decoded."""


@command(
    *READING_FLAGS,
    short="files glob column field encoding lower as_json",
    examples=("charlstm corpus book.txt", "zcat books.gz | charlstm corpus -"),
)
def corpus(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders or - for stdin.", metavar="CORPUS ...", click_type=SOURCE, show_default=False
        ),
    ],
    *,
    console: Console,
    settings: Settings,
    as_json: JsonOption = False,
) -> None:
    """Describe a corpus before training and suggest a preset."""
    check_record_flags(settings)
    given = {**from_environment(console.environ, "data"), **settings}
    config = replace(build_section(DataConfig, given, "data"), corpus=tuple(files), level="char", errors="replace")
    if "-" in files and not console.piped:
        raise UsageError("'-' is stdin, and nothing was piped in")

    from charlstm.cli.actions.corpus import describe_corpus

    describe_corpus(console, config, settings, as_json=as_json)
