"""The bytes of a corpus: files, folders and stdin, decompressed if necessary."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path

from charlstm.data.compression import MAGIC_BYTES, Compression, decompress, detect_compression, peek
from charlstm.data.formats import reject_other_formats
from charlstm.errors import UsageError
from charlstm.storage.locate import STDIN, check_exists
from charlstm.storage.spool import Spool
from charlstm.wording import quantity

READ_BYTES = 1 << 20
"""Bytes per read, small enough for the decoded text to stay in the processor's cache."""


def expand_sources(sources: Iterable[str], glob: str) -> tuple[list[str], list[str]]:
    """Replace each folder by the files below it that match `glob`, whatever their case, sorted.

    Hidden files and folders are skipped. Also returns a sentence for each folder in which files are skipped.

    Raises UsageError for a source that does not exist, is neither a file nor a folder, or cannot be listed.
    """
    files: list[str] = []
    notes: list[str] = []
    for source in sources:
        path = Path(source)
        if source != STDIN and path.is_dir():
            inside = find_files(path, glob)
            files += inside
            notes += describe_skipped(path, glob, len(inside), find_skipped(path, set(inside)))
            continue
        check_exists(source)
        if source != STDIN and not path.is_file():
            raise UsageError(f"{source} is neither a file nor a folder", f"pipe it in with cat {source}, and name it -")
        files.append(source)
    return files, notes


def find_files(folder: Path, glob: str) -> list[str]:
    """Return the files below a folder to read. Raises UsageError for an invalid pattern, or if no file matches it."""
    try:
        matches = [str(file) for file in folder.rglob(ignore_case(glob)) if file.is_file()]
    except (ValueError, NotImplementedError, re.error) as error:
        raise UsageError(f"--glob must be a pattern of file names such as *.txt, not {glob!r}") from error
    files = sorted(file for file in matches if not is_hidden(file, folder))
    if not files:
        raise UsageError(
            f"the folder {folder} contains no {glob} file", "choose others with --glob, such as --glob '*.md'"
        )
    return files


def ignore_case(glob: str) -> str:
    """Return a pattern that matches both cases of each letter."""
    return re.sub(r"\[(!?\]?)([^\]]*)\]|(.)", match_both_cases, glob, flags=re.DOTALL)


def match_both_cases(piece: re.Match[str]) -> str:
    start, inside, character = piece.groups()
    if character is None:  # [a-z]
        return f"[{start}{inside.swapcase()}{inside}]"
    return (
        f"[{character}{character.swapcase()}]" if len(character.swapcase()) == 1 and character.isalpha() else character
    )


def find_skipped(folder: Path, files: set[str]) -> list[str]:
    """Return the files below a folder that are not among `files`. Raises UsageError if a folder cannot be listed."""

    def report(error: OSError) -> None:
        if not is_hidden(error.filename, folder):
            raise UsageError(f"cannot read the folder {error.filename}: {error.strerror}") from error

    found = (str(Path(parent, name)) for parent, _, names in os.walk(folder, onerror=report) for name in names)
    return [file for file in found if file not in files]


def describe_skipped(folder: Path, glob: str, read: int, skipped: list[str]) -> Iterator[str]:
    """Describe in one sentence how many files of a folder are read and skipped, if any are skipped."""
    if not skipped:
        return
    kinds = Counter(name_kind(file, folder) for file in skipped)
    reasons = ", ".join(
        f"{kinds[kind]:,} {phrase.format(glob=glob)}" for kind, phrase in SKIPPED.items() if kinds[kind]
    )
    yield f"{folder}: read {quantity(read, 'file')}, skipped {reasons}; --glob chooses the files"


SKIPPED = {"other": "not matching {glob}", "hidden": "hidden", "special": "broken links or special files"}
"""Kinds of files that are skipped in a folder, and how they are described."""


def name_kind(file: str, folder: Path) -> str:
    """Return why a file is skipped: a key of `SKIPPED`."""
    if is_hidden(file, folder):
        return "hidden"
    return "other" if Path(file).is_file() else "special"


def is_hidden(file: str, folder: Path) -> bool:
    """Whether the file, or a folder between it and `folder`, has a name that starts with a dot."""
    return any(part.startswith(".") for part in Path(file).relative_to(folder).parts)


def source_bytes(source: str, spool: Spool | None) -> int:
    """Return the size of a file or of stdin in bytes, as compressed; 0 for a file that does not exist."""
    if source == STDIN:
        return spool.size if spool else 0
    return Path(source).stat().st_size if Path(source).exists() else 0


def read_source(source: str, spool: Spool | None, on_read: Callable[[int], None], is_text: bool) -> Iterator[bytes]:
    """Read a file or stdin in chunks, decompressed.

    `on_read` is called with the number of compressed bytes read for each chunk. Raises UsageError for a source that
    cannot be read, CharlstmError for a broken archive and, if `is_text`, for a file format that is not plain text.
    """
    name = "stdin" if source == STDIN else source
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_source(source, spool))
            compression = detect_compression(peek(file, MAGIC_BYTES))
            at = 0
            for number, chunk in enumerate(read_chunks(file, compression, name)):
                if is_text and number == 0:
                    reject_other_formats(chunk, source, compression)
                on_read(file.tell() - at)
                at = file.tell()
                yield chunk
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror}") from error


def open_source(source: str, spool: Spool | None) -> BufferedReader:
    if source != STDIN:
        return Path(source).open("rb")
    if spool is None:
        raise UsageError("cannot read '-' (stdin): stdin is closed")
    return BufferedReader(spool.open())  # type: ignore[arg-type]


def read_chunks(file: BufferedReader, compression: Compression | None, name: str) -> Iterator[bytes]:
    """Read a file in chunks of READ_BYTES, decompressed; only the last one is shorter."""
    if compression is None:
        while chunk := file.read(READ_BYTES):
            yield chunk
        return
    buffer = bytearray()
    for piece in decompress(file, compression, name):
        buffer += piece
        while len(buffer) >= READ_BYTES:
            yield bytes(buffer[:READ_BYTES])
            del buffer[:READ_BYTES]
    if buffer:
        yield bytes(buffer)
