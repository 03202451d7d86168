"""The records of CSV, TSV and JSON Lines files: the text of one column or field of each."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import PurePath
from typing import Any

from charlstm.config import DataConfig
from charlstm.data.normalize import normalize_text
from charlstm.errors import CharlstmError, UsageError

DELIMITERS = ",\t;|"
"""What may separate the columns of a file, the most likely first."""

TAB_SUFFIXES = (".tsv", ".tab")

SNIFFED_LINES = 20
"""Lines at the start of a file from which its delimiter is detected."""

MAX_FIELD = 2**31 - 1
"""Largest field of a CSV file, in characters: csv keeps the limit in a C long, which may have 32 bits."""

MAX_NAMES, MAX_NAME = 20, 40
"""Columns that an error lists, and characters of each."""

JOINED_CHARACTERS = 1 << 16
"""Characters of the values of records that are handled at once."""

ABSENT = object()
"""What `find_field` returns for a record without the field."""


class RecordReader:
    """Reads the values of one file, and counts the records that it leaves out.

    name: the name of the file in errors.
    config: names the column or the field.
    """

    def __init__(self, name: str, config: DataConfig) -> None:
        self.name, self.config = name, config
        self.records = self.kept = 0
        self.longest = 0  # characters of the longest value that was kept
        self.missing = self.not_text = self.empty = 0  # records without the value, and with one that has no text
        self.line = 0  # the first of the current record, from 1

    def read_values(self, chunks: Iterable[str]) -> Iterator[str]:
        """Yield the value of each record that has one, normalized, from the text of the file in chunks.

        Raises UsageError for a column that the file does not have, CharlstmError for a malformed record.
        """
        lines = split_lines(chunks)
        for value in self.read_column(lines) if self.config.column else self.read_field(lines):
            text = normalize_text(self.check_characters(value), self.config)
            assert isinstance(text, str)
            if text:
                self.kept, self.longest = self.kept + 1, max(self.longest, len(text))
                yield text
            else:
                self.empty += 1

    def read_column(self, lines: Iterator[str]) -> Iterator[str]:
        """Yield the values of a column. Its name is in the first row; a number means that all rows are records."""
        csv.field_size_limit(MAX_FIELD)
        lines, blank = skip_blank_lines(lines)
        sample = list(islice(lines, SNIFFED_LINES))
        rows = csv.reader(chain(sample, lines), delimiter=self.detect_delimiter(sample), strict=True)
        index = None
        for row in self.read_rows(rows, blank):
            if index is None:
                index, is_header = self.find_column(row)
                if is_header:
                    continue
            self.records += 1
            if index < len(row):
                yield row[index]
            else:
                self.missing += 1

    def read_rows(self, rows: Any, lines_before: int) -> Iterator[list[str]]:
        """Yield the rows of a `csv.reader` that are not blank. Raises CharlstmError for a malformed one."""
        while True:
            self.line = lines_before + rows.line_num + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                raise CharlstmError(
                    f"{self.name}, line {self.line}: not valid CSV: {error}",
                    "a field with a quote or a newline must be quoted, with each quote in it doubled",
                ) from error
            if row:
                yield row

    def detect_delimiter(self, sample: list[str]) -> str:
        """Return the delimiter: a tab by the name of the file, else that of the header or of most first lines."""
        suffixes = PurePath(self.name.lower()).suffixes[-2:]  # .tsv, .tsv.gz
        if any(suffix in TAB_SUFFIXES for suffix in suffixes):
            return "\t"

        def rate(delimiter: str) -> tuple[bool, int, int]:
            rows: list[list[str]] = []
            with suppress(csv.Error):  # reported when the records are read
                rows += (row for row in csv.reader(sample, delimiter=delimiter) if row)
            ((width, count),) = Counter(map(len, rows)).most_common(1) or [(0, 0)]
            return self.config.column in (rows[0] if rows else ()), count * (width > 1), width

        return max(DELIMITERS, key=rate)

    def find_column(self, first: list[str]) -> tuple[int, bool]:
        """Return the index of the column, and whether the first row is a header. Raises UsageError if it is missing."""
        column = self.config.column
        if not (column.isdecimal() and int(column) > 0):
            if column in first:
                return first.index(column), True
            names = ", ".join(name[:MAX_NAME] for name in first[:MAX_NAMES]) + ", ..." * (len(first) > MAX_NAMES)
            raise UsageError(f"{self.name} has no column {column!r}", f"its first row has: {names}")
        if int(column) > len(first):
            raise UsageError(f"{self.name} has no column {column}", f"its first row has {len(first)}")
        return int(column) - 1, False

    def read_field(self, lines: Iterator[str]) -> Iterator[str]:
        """Yield the values of a field of the JSON object on each line."""
        for self.line, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise CharlstmError(
                    f"{self.name}, line {self.line}: not valid JSON: {reason}",
                    "--field reads JSON Lines, one object per line; jq -c '.[]' FILE makes them of an array",
                ) from error
            self.records += 1
            value = find_field(record, self.config.field.removeprefix("."))
            if isinstance(value, str):
                yield value
            elif value is ABSENT:
                self.missing += 1
            else:
                self.not_text += 1

    def check_characters(self, value: str) -> str:
        r"""Return a value without NUL and lone surrogates, which JSON can escape (\u0000, \ud800) and no text contains.

        They are replaced by U+FFFD. Raises CharlstmError unless errors are replaced.
        """
        try:
            value.encode()
            if "\0" not in value:
                return value
        except UnicodeEncodeError:
            pass
        if self.config.errors == "strict":
            raise CharlstmError(
                f"{self.name}, line {self.line}: the value has an escaped NUL or half of a surrogate pair",
                "--errors replace reads it as U+FFFD",
            )
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


def find_field(record: Any, path: str) -> Any:
    """Return the value at `a.b.c` in nested objects, or `ABSENT`. A key may itself contain dots."""
    if not isinstance(record, dict):
        return ABSENT
    if path in record:
        return record[path]
    head, dot, rest = path.partition(".")
    return find_field(record.get(head), rest) if dot else ABSENT


def skip_blank_lines(lines: Iterator[str]) -> tuple[Iterator[str], int]:
    """Return the lines from the first one that is not blank, and the number of those before it."""
    blank = 0
    for line in lines:
        if line.strip("\r\n"):
            return chain([line], lines), blank
        blank += 1
    return iter(()), blank


def split_lines(chunks: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a text that is given in chunks, with their newlines."""
    begun: list[str] = []  # the parts of an unfinished line
    for chunk in chunks:
        first, *lines = chunk.split("\n")
        begun.append(first)
        for line in lines:
            yield "".join(begun) + "\n"
            begun = [line]
    if last := "".join(begun):
        yield last


def join_values(values: Iterable[str], end: str) -> Iterator[str]:
    """Join values, each followed by `end`, to chunks that are worth their overhead."""
    parts: list[str] = []
    size = 0
    for value in values:
        parts.append(value + end)
        size += len(parts[-1])
        if size >= JOINED_CHARACTERS:
            yield "".join(parts)
            parts, size = [], 0
    if parts:
        yield "".join(parts)


def describe_omissions(readers: Iterable[RecordReader], config: DataConfig) -> str:
    """Return how many records were left out and why, in one sentence; empty if none were."""
    found = list(readers)
    wanted = f"column {config.column!r}" if config.column else f"field {config.field!r}"
    reasons = {
        f"without the {wanted}": sum(reader.missing for reader in found),
        "with a value that is not text": sum(reader.not_text for reader in found),
        "with an empty value": sum(reader.empty for reader in found),
    }
    omitted = sum(reasons.values())
    if not omitted:
        return ""
    parts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
    return f"left out {omitted:,} of {sum(reader.records for reader in found):,} records: {parts}"
