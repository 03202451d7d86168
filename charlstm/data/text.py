"""From the bytes of a corpus to its text, in chunks: decoded, line endings and normal form made uniform, files joined.

Memory use does not grow with the corpus. The end of a chunk never separates the bytes of a character, a carriage return
from its newline, or a letter from its accent.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from io import IncrementalNewlineDecoder
from typing import Any

from charlstm.config import DataConfig
from charlstm.data.normalize import normalize_chunks
from charlstm.data.sources import expand_sources, read_source, source_bytes
from charlstm.errors import CharlstmError, UsageError
from charlstm.storage.spool import STDIN, Spool
from charlstm.vocabulary import Text

BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and the encoding that each identifies. None of them is valid UTF-8.

UTF-32-LE precedes UTF-16-LE, because its mark begins with that of UTF-16-LE.
"""

WITHOUT_SURROGATES = ("utf-8", "utf-16", "utf-32", "ascii", "iso8859-1")
"""Prefixes of encodings whose decoders never produce a lone surrogate, which is not a character."""


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
        self.files = expand_sources(config.corpus, config.glob)
        self.size = sum(source_bytes(source, spool) for source in self.files)
        self.bytes_read = 0  # over all readings
        self.converted_newlines: set[str] = set()
        self.detected_encodings: dict[str, str] = {}  # by file, if it is not that of the configuration

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
        """Describe what was changed while reading, one sentence each."""
        for name, encoding in self.detected_encodings.items():
            yield f"{name} starts with a byte order mark: read as {encoding.upper()}"
        if self.converted_newlines:
            kinds = " and ".join(sorted({"\r\n": "CR LF", "\r": "CR"}[kind] for kind in self.converted_newlines))
            yield f"converted {kinds} line endings to LF"

    def read_file(self, source: str) -> Iterator[Text]:
        """Read the text of one file, in chunks that are not empty."""
        data = read_source(source, self.spool, self.report_progress)
        if self.config.level == "byte":
            return data
        return normalize_chunks(self.decode_chunks(data, "stdin" if source == STDIN else source), self.config)

    def report_progress(self, size: int) -> None:
        self.bytes_read += size
        self.on_progress(self.bytes_read / max(self.size, 1))

    def decode_chunks(self, data: Iterator[bytes], name: str) -> Iterator[str]:
        first = next(data, b"")
        encoding = next((marked for bom, marked in BOMS if first.startswith(bom)), self.config.encoding)
        if is_utf_8(self.config.encoding) and encoding != self.config.encoding:
            self.detected_encodings[name] = encoding
        else:
            encoding = self.config.encoding
        decoder = TextDecoder(name, encoding, self.config.errors, self.config.newlines)
        yield decoder.decode(first).removeprefix("\ufeff")
        for chunk in data:
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)
        if self.config.newlines == "lf":
            self.converted_newlines |= decoder.newlines_seen - {"\n"}


class TextDecoder:
    """Decodes the bytes of one file, in chunks, and converts its line endings.

    `name` is the name of the file in errors; `encoding`, `errors` and `newlines` are as in `DataConfig`.
    """

    def __init__(self, name: str, encoding: str, errors: str, newlines: str) -> None:
        self.name, self.encoding, self.errors = name, encoding, errors
        self.bytes_decoder = codecs.getincrementaldecoder(encoding)(errors)
        self.newline_decoder = IncrementalNewlineDecoder(None, translate=newlines == "lf")
        self.bytes_read = 0
        self.without_surrogates = codecs.lookup(encoding).name.startswith(WITHOUT_SURROGATES)

    @property
    def newlines_seen(self) -> set[str]:
        """The kinds of line endings read so far."""
        seen: Any = self.newline_decoder.newlines
        return set() if seen is None else {seen} if isinstance(seen, str) else set(seen)

    def decode(self, data: bytes, final: bool = False) -> str:
        """Decode a chunk. Raises CharlstmError, with the file and the offset, for a byte that cannot be decoded."""
        pending = self.count_pending()
        try:
            text = self.bytes_decoder.decode(data, final)
            if not self.without_surrogates:
                text.encode()  # raises UnicodeEncodeError for a lone surrogate
        except UnicodeDecodeError as error:
            at = self.bytes_read - pending + error.start
            raise CharlstmError(
                f"{self.name}: byte 0x{error.object[error.start]:02x} at offset {at} is not {self.encoding}",
                "try another --encoding, --errors replace to read such bytes as U+FFFD, or --level byte for any file",
            ) from error
        except UnicodeError as error:
            raise CharlstmError(f"{self.name} is not {self.encoding}: {error}") from error
        if "\0" in text:
            text = self.replace_nul(text)
        self.bytes_read += len(data)
        return self.newline_decoder.decode(text, final)

    def count_pending(self) -> int:
        """Count the bytes of an incomplete character at the end of the last chunk."""
        try:
            return len(self.bytes_decoder.getstate()[0])
        except (AttributeError, NotImplementedError, UnicodeError):  # some decoders have no such state
            return 0

    def replace_nul(self, text: str) -> str:
        """Replace NUL by U+FFFD. Raises CharlstmError unless errors are replaced.

        NUL in decoded text nearly always means the wrong encoding.
        """
        if self.errors == "replace":
            return text.replace("\0", "\ufffd")
        raise CharlstmError(
            f"{self.name} contains a NUL near byte {self.bytes_read:,}, so it is not text in {self.encoding}",
            "try --encoding utf-16-le or utf-16-be, --errors replace to read NUL as U+FFFD, or --level byte for any "
            "file",
        )


def is_utf_8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def check_data_config(config: DataConfig) -> None:
    """Raise UsageError for an unknown encoding, or for a normal form or lower case at byte level."""
    try:
        b"a".decode(config.encoding, "replace")  # decoding zero bytes succeeds with any name
        codecs.getincrementaldecoder(config.encoding)
    except (LookupError, UnicodeError):
        raise UsageError(
            f"--encoding must be a text encoding that Python knows, such as utf-8, latin-1 or gb18030, "
            f"not {config.encoding!r}"
        ) from None
    if config.level == "byte" and (config.lower or config.normalize != "none"):
        option = "--lower" if config.lower else "--normalize"
        raise UsageError(f"{option} applies to characters and cannot be combined with --level byte")
