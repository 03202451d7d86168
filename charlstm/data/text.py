"""From the bytes of a corpus to its text, in chunks: decoded, line endings and normal form made uniform, files joined.

Memory use does not grow with the corpus. The end of a chunk never separates the bytes of a character, a carriage return
from its newline, or a letter from its accent.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator

from charlstm.config import DataConfig
from charlstm.data.normalize import normalize_chunks
from charlstm.data.records import RecordReader, describe_omissions, join_values
from charlstm.data.sources import expand_sources, read_source, source_bytes
from charlstm.decoding import Changes, TextDecoder, describe_changes
from charlstm.errors import UsageError
from charlstm.storage.locate import STDIN
from charlstm.storage.spool import Spool
from charlstm.vocabulary import Text

DECODING_HINT = (
    "try another --encoding, such as latin-1 or utf-16-le, --errors replace to read such bytes as U+FFFD, or "
    "--level byte for any file"
)


class CorpusReader:
    """The text of the sources that a configuration names. It can be read several times.

    `spool` is the text from stdin. `on_progress` is called with the share of the sources that was read. Raises
    UsageError for a source that cannot be read or settings that contradict each other.
    """

    def __init__(
        self, config: DataConfig, spool: Spool | None = None, on_progress: Callable[[float], None] = lambda share: None
    ) -> None:
        check_data_config(config)
        self.config, self.spool, self.on_progress = config, spool, on_progress
        self.files, self.skipped = expand_sources(config.corpus, config.glob)
        self.size = sum(source_bytes(source, spool) for source in self.files)
        self.bytes_read = 0  # over all readings
        self.records: dict[str, RecordReader] = {}  # by file
        self.changes: dict[str, Changes] = {}  # by file, so that a second reading does not count twice

    def read_files(self) -> Iterator[Iterator[Text]]:
        """Read the text of each file in chunks. Each file must be read to its end before the next."""
        for source in self.files:
            yield self.read_file(source)

    def read_chunks(self) -> Iterator[Text]:
        """Read the text of all files, joined.

        The separator is inserted between files. Without one, each of several text files that lacks a final newline
        gets one, the last included; bytes are joined as they are.

        Raises CharlstmError, with the file and the offset, for bytes that cannot be decoded.
        """
        empty: Text = b"" if self.config.level == "byte" else ""
        separator: Text = self.config.separator.encode() if self.config.level == "byte" else self.config.separator
        for k, file in enumerate(self.read_files()):
            if k and separator:
                yield separator
            last = empty
            for chunk in file:
                yield (last := chunk)
            if isinstance(last, str) and len(self.files) > 1 and not separator and last and not last.endswith("\n"):
                yield "\n"

    def notes(self) -> Iterator[str]:
        """Describe what was not read, and what was changed while reading, one sentence each."""
        yield from self.skipped
        yield from describe_changes(list(self.changes.values()))
        yield from filter(None, [self.describe_omissions()])

    def describe_omissions(self) -> str:
        """Return how many records were left out and why, in one sentence; empty if none were."""
        return describe_omissions(self.records.values(), self.config)

    def read_file(self, source: str) -> Iterator[Text]:
        """Read the text of one file, in chunks that are not empty. Each value of records gets a newline at its end."""
        if self.config.reads_records:
            return join_values(self.read_records(source), "\n")
        data = read_source(source, self.spool, self.report_progress, self.config.level == "char")
        if self.config.level == "byte":
            return data
        return normalize_chunks(self.decode_chunks(data, display_name(source)), self.config)

    def read_records(self, source: str) -> Iterator[str]:
        """Read the values of the records of one file."""
        data = read_source(source, self.spool, self.report_progress, True)
        self.records[source] = RecordReader(display_name(source), self.config)
        return self.records[source].read_values(self.decode_chunks(data, display_name(source)))

    def report_progress(self, size: int) -> None:
        self.bytes_read += size
        self.on_progress(self.bytes_read / max(self.size, 1))

    def decode_chunks(self, data: Iterator[bytes], name: str) -> Iterator[str]:
        config = self.config
        decoder = TextDecoder(name, config.encoding, config.errors, config.newlines, DECODING_HINT)
        for chunk in data:
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)
        self.changes[name] = decoder.changes


def display_name(source: str) -> str:
    return "stdin" if source == STDIN else source


def check_data_config(config: DataConfig) -> None:
    """Raise UsageError for an unknown encoding, or for settings that exclude each other."""
    try:
        b"a".decode(config.encoding, "replace")  # decoding zero bytes succeeds with any name
        codecs.getincrementaldecoder(config.encoding)
    except (LookupError, UnicodeError):
        raise UsageError(
            f"--encoding must be a text encoding that Python knows, such as utf-8, latin-1 or gb18030, "
            f"not {config.encoding!r}"
        ) from None
    if config.column and config.field:
        raise UsageError("--column and --field cannot be combined: one reads CSV and TSV, the other JSON Lines")
    for option, given in {"--level byte": config.level == "byte", "--separator": config.separator != ""}.items():
        if given and config.reads_records:
            record = "--column" if config.column else "--field"
            raise UsageError(f"{record} reads each record as a document of characters, and excludes {option}")
    if config.level == "byte" and (config.lower or config.normalize != "none"):
        option = "--lower" if config.lower else "--normalize"
        raise UsageError(f"{option} applies to characters and cannot be combined with --level byte")
