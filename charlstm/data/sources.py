"""The bytes of a corpus: files, folders and stdin, decompressed if necessary."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from charlstm.errors import CharlstmError, UsageError
from charlstm.storage.spool import STDIN, Spool

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
        elif source != STDIN and not path.exists():
            raise UsageError(f"corpus not found: {source}")
        elif source != STDIN and not path.is_file():
            raise UsageError(f"{source} is neither a file nor a folder", f"pipe it: cat {source} | charlstm train -")
        else:
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
    yield f"{folder}: read {read:,} file{'s' * (read != 1)}, skipped {reasons}; --glob chooses the files"


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


def read_source(source: str, spool: Spool | None, on_read: Callable[[int], None]) -> Iterator[bytes]:
    """Read a file or stdin in chunks, decompressed.

    `on_read` is called with the number of compressed bytes read for each chunk. Raises UsageError for a source that
    cannot be read, CharlstmError for a broken archive.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_source(source, spool))
            kind, decompress = detect_compression(file)
            stream = stack.enter_context(decompress(file)) if decompress else file
        except OSError as error:
            raise UsageError(f"cannot read {source}: {error.strerror}") from error
        at = 0
        while chunk := read_chunk(stream, source, kind):
            on_read(file.tell() - at)
            at = file.tell()
            yield chunk


def open_source(source: str, spool: Spool | None) -> BufferedReader:
    if source != STDIN:
        return Path(source).open("rb")
    if spool is None:
        raise UsageError("cannot read '-' (stdin): stdin is closed")
    return BufferedReader(spool.open())  # type: ignore[arg-type]


def read_chunk(stream: BinaryIO, source: str, kind: str) -> bytes:
    name = "stdin" if source == STDIN else source
    try:
        return stream.read(READ_BYTES)
    except Exception as error:  # each decompressor raises its own type
        if isinstance(error, OSError) and error.errno is not None:
            raise UsageError(f"cannot read {name}: {error.strerror}") from error
        if not kind:
            raise
        reason = "it ends too early" if isinstance(error, EOFError) else str(error).rstrip(".")
        raise CharlstmError(f"{name} is a broken {kind} archive: {reason}") from error


def detect_compression(file: BufferedReader) -> tuple[str, Callable[[BinaryIO], Any] | None]:
    """Identify a compressed file by its first bytes: the kind and its decompressor, or "" and None."""
    head = file.peek(6)
    for kind, (magic, decompress) in DECOMPRESSORS.items():
        if head.startswith(magic):
            return kind, decompress
    return "", None


def open_zstd(file: BinaryIO) -> Any:
    return import_zstd().ZstdFile(file)


def import_zstd() -> Any:
    """Import the module of the standard library, or its backport to Python before 3.14."""
    try:
        from compression import zstd as module  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        from backports import zstd as module
    return module


DECOMPRESSORS: dict[str, tuple[bytes, Callable[[BinaryIO], Any]]] = {
    "gzip": (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    "xz": (b"\xfd7zXZ\x00", lzma.LZMAFile),
    "zstd": (b"\x28\xb5\x2f\xfd", open_zstd),
    "bzip2": (b"BZh", bz2.BZ2File),
}
"""The first bytes of each kind of compressed file, and its decompressor."""
