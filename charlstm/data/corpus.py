"""Files, folders and stdin to one text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from charlstm.config import DataConfig
from charlstm.errors import CharlstmError, UsageError
from charlstm.vocabulary import Text

STDIN = "-"


@dataclass(frozen=True)
class Corpus:
    """A text and where it came from."""

    text: Text
    piped: bytes | None = None  # what came from stdin, which cannot be read again

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the text in UTF-8: tells whether this is the corpus that a model was trained on."""
        return hashlib.sha256(self.text.encode() if isinstance(self.text, str) else self.text).hexdigest()


def read_corpus(config: DataConfig, stdin: BinaryIO | None = None) -> Corpus:
    """The texts that `config.corpus` names, one after the other, each file's last line ended.

    Raises UsageError for a source that cannot be read, CharlstmError for bytes that are not text, and for no text.
    """
    check_encoding(config.encoding)
    sources = expand(config.corpus)
    piped = read_stdin(stdin) if STDIN in sources else None
    texts = [read_source(source, config, piped or b"") for source in sources]
    text = texts[0] if len(texts) == 1 else join(texts, config.unit)
    if not text:
        raise CharlstmError(f"the corpus is empty: {', '.join(config.corpus)}")
    return Corpus(text, piped)


def expand(sources: Iterable[str]) -> list[str]:
    """Folders replaced by the *.txt files below them, sorted. Raises UsageError for what is not there."""
    files = []
    for source in sources:
        path = Path(source)
        if source != STDIN and path.is_dir():
            inside = sorted(str(file) for file in path.rglob("*.txt") if file.is_file() and not hidden(file, path))
            if not inside:
                raise UsageError(f"the folder {source} holds no *.txt file")
            files += inside
        elif source != STDIN and not path.exists():
            raise UsageError(f"there is no corpus {source}")
        elif source != STDIN and not path.is_file():
            raise UsageError(f"{source} is neither a file nor a folder", "cat can read it: cat ... | charlstm train -")
        else:
            files.append(source)
    return files


def hidden(file: Path, folder: Path) -> bool:
    """Whether it lies in a folder such as .git or .venv."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def read_stdin(stdin: BinaryIO | None) -> bytes:
    if stdin is None:
        raise UsageError("- reads stdin, and stdin is closed")
    return stdin.read()


def read_source(source: str, config: DataConfig, piped: bytes) -> Text:
    if source == STDIN:
        return decode(piped, "stdin", config)
    try:
        return decode(Path(source).read_bytes(), source, config)
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error.strerror}") from error


def decode(data: bytes, name: str, config: DataConfig) -> Text:
    """The text of these bytes. Raises CharlstmError that names file and offset for a byte that is not text."""
    if config.unit == "byte":
        return data
    try:
        text = data.decode(config.encoding, config.errors).removeprefix("\ufeff")
        text.encode()  # some encodings can spell half a surrogate pair, which is no character
        return text
    except UnicodeDecodeError as error:
        raise CharlstmError(
            f"{name}: byte 0x{data[error.start]:02x} at offset {error.start} is not {config.encoding}",
            "--encoding names another encoding, --errors replace puts U+FFFD in its place, --unit byte reads any file",
        ) from error
    except UnicodeError as error:
        raise CharlstmError(f"{name} is not {config.encoding}: {error}") from error


def check_encoding(encoding: str) -> None:
    try:
        b"a".decode(encoding, "replace")  # of nothing at all, any encoding decodes
    except (LookupError, UnicodeError):
        raise UsageError(
            f"--encoding must be an encoding that Python knows, as utf-8, latin-1 or gb18030, not {encoding!r}"
        ) from None


def join(texts: list[Text], unit: str) -> Text:
    if unit == "byte":
        return b"".join(text for text in texts if isinstance(text, bytes))
    return "".join(text if text.endswith("\n") or not text else text + "\n" for text in texts if isinstance(text, str))


def name_of(sources: Sequence[str]) -> str:
    """What to call a run on these: the first one's name, without its ending."""
    return "stdin" if sources[0] == STDIN else Path(sources[0]).resolve().stem or "corpus"
