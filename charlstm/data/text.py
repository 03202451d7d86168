"""From the bytes of a corpus to its text, in chunks: decoded, line ends and spelling made uniform, files joined.

However large the corpus, memory holds a chunk or two of it. What belongs together (a character's bytes, a carriage
return and its newline, a letter and its accent) is never torn by a chunk's end.
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
"""No UTF-8 begins so: such a file says itself what it is."""

WITHOUT_SURROGATES = ("utf-8", "utf-16", "utf-32", "ascii", "iso8859-1")
"""Encodings, by their first letters, whose decoders never give half a surrogate pair, which is no character."""


class CorpusReader:
    """The text of the sources of a configuration, to be read as often as one likes.

    `watch` is told which share of them was read. Raises UsageError for a source that cannot be read and for settings
    that make no sense.
    """

    def __init__(
        self, config: DataConfig, spool: Spool | None = None, on_progress: Callable[[float], None] = lambda share: None
    ) -> None:
        check_data_config(config)
        self.config, self.spool, self.on_progress = config, spool, on_progress
        self.files = expand_sources(config.corpus, config.glob)
        self.size = sum(source_bytes(source, spool) for source in self.files)
        self.read = 0  # bytes, over all readings
        self.newlines: set[str] = set()  # the kinds of line ends that were folded, as far as was read
        self.encodings: dict[str, str] = {}  # by file, where it was not that of the configuration

    def documents(self) -> Iterator[Iterator[Text]]:
        """Each file's text, in chunks; each one is to be read to its end before the next."""
        for source in self.files:
            yield self.read_file(source)

    def read_chunks(self) -> Iterator[Text]:
        """The text of all files: joined by the separator or, without one, each file's last line ended.

        Raises CharlstmError, naming file and offset, for bytes that are not text.
        """
        empty: Text = b"" if self.config.level == "byte" else ""
        separator: Text = self.config.separator.encode() if self.config.level == "byte" else self.config.separator
        for k, document in enumerate(self.documents()):
            if k and separator:
                yield separator
            last = empty
            for chunk in document:
                yield (last := chunk)
            if isinstance(last, str) and len(self.files) > 1 and not separator and last and not last.endswith("\n"):
                yield "\n"

    def notes(self) -> Iterator[str]:
        """What was read otherwise than it stood there, in words."""
        for name, encoding in self.encodings.items():
            yield f"{name} says that it is {encoding.upper()}, and was read as that"
        if self.newlines:
            kinds = " and ".join(sorted({"\r\n": "CR LF", "\r": "CR"}[kind] for kind in self.newlines))
            yield f"line ends {kinds} were made LF"

    def read_file(self, source: str) -> Iterator[Text]:
        """One file's text, in chunks that are not empty."""
        data = read_source(source, self.spool, self.report_progress)
        if self.config.level == "byte":
            return data
        return normalize_chunks(self.decode_chunks(data, "stdin" if source == STDIN else source), self.config)

    def report_progress(self, size: int) -> None:
        self.read += size
        self.on_progress(self.read / max(self.size, 1))

    def decode_chunks(self, data: Iterator[bytes], name: str) -> Iterator[str]:
        first = next(data, b"")
        encoding = next((own for bom, own in BOMS if first.startswith(bom)), self.config.encoding)
        if is_utf_8(self.config.encoding) and encoding != self.config.encoding:
            self.encodings[name] = encoding
        else:
            encoding = self.config.encoding
        decoder = TextDecoder(name, encoding, self.config.errors, self.config.newlines)
        yield decoder.decode(first).removeprefix("\ufeff")
        for chunk in data:
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)
        if self.config.newlines == "lf":
            self.newlines |= decoder.newlines - {"\n"}


class TextDecoder:
    """The characters of a file's bytes, a chunk at a time."""

    def __init__(self, name: str, encoding: str, errors: str, newlines: str) -> None:
        self.name, self.encoding, self.errors = name, encoding, errors
        self.inner = codecs.getincrementaldecoder(encoding)(errors)
        self.folding = IncrementalNewlineDecoder(None, translate=newlines == "lf")
        self.read = 0  # bytes
        self.checked = codecs.lookup(encoding).name.startswith(WITHOUT_SURROGATES)

    @property
    def newlines(self) -> set[str]:
        """The kinds of line ends that have been seen."""
        seen: Any = self.folding.newlines
        return set() if seen is None else {seen} if isinstance(seen, str) else set(seen)

    def decode(self, data: bytes, final: bool = False) -> str:
        """Raises CharlstmError that names file and offset for a byte that is not text."""
        waiting = self.waiting()
        try:
            text = self.inner.decode(data, final)
            if not self.checked:
                text.encode()
        except UnicodeDecodeError as error:
            at = self.read - waiting + error.start
            raise CharlstmError(
                f"{self.name}: byte 0x{error.object[error.start]:02x} at offset {at} is not {self.encoding}",
                "--encoding names another encoding, --errors replace puts U+FFFD in its place, --level byte reads any "
                "file",
            ) from error
        except UnicodeError as error:
            raise CharlstmError(f"{self.name} is not {self.encoding}: {error}") from error
        if "\0" in text:
            text = self.without_nul(text)
        self.read += len(data)
        return self.folding.decode(text, final)

    def waiting(self) -> int:
        """Bytes of a character that has begun."""
        try:
            return len(self.inner.getstate()[0])
        except (AttributeError, NotImplementedError, UnicodeError):  # some encodings have no such state
            return 0

    def without_nul(self, text: str) -> str:
        """Raises CharlstmError, unless errors are replaced: where there is a NUL, there is no text in this encoding."""
        if self.errors == "replace":
            return text.replace("\0", "\ufffd")
        raise CharlstmError(
            f"{self.name} holds a NUL near byte {self.read:,}, so it is not text in {self.encoding}",
            "--encoding utf-16-le or utf-16-be may read it; --errors replace writes U+FFFD for it; "
            "--level byte reads any file",
        )


def is_utf_8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def check_data_config(config: DataConfig) -> None:
    """Raises UsageError for an encoding that there is not, and for spelling where the unit is the byte."""
    try:
        b"a".decode(config.encoding, "replace")  # of nothing at all, any encoding decodes
        codecs.getincrementaldecoder(config.encoding)
    except (LookupError, UnicodeError):
        raise UsageError(
            f"--encoding must be an encoding that Python knows, as utf-8, latin-1 or gb18030, not {config.encoding!r}"
        ) from None
    if config.level == "byte" and (config.lower or config.normalize != "none"):
        option = "--lower" if config.lower else "--normalize"
        raise UsageError(f"{option} is for characters, and --level byte reads bytes as they are")
