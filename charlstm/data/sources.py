"""Where the bytes of a corpus come from: files, folders and a pipe, unpacked where they are packed."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from charlstm.errors import CharlstmError, UsageError
from charlstm.storage.spool import STDIN, Spool

READ_BYTES = 1 << 20
"""Bytes read at a time: what follows from them stays in the processor's cache."""


def expand_sources(sources: Iterable[str], glob: str) -> list[str]:
    """Folders replaced by the files below them that match, sorted. Raises UsageError for what is not there."""
    files = []
    for source in sources:
        path = Path(source)
        if source != STDIN and path.is_dir():
            inside = sorted(
                str(file) for file in match_glob(path, glob) if file.is_file() and not is_hidden(file, path)
            )
            if not inside:
                raise UsageError(f"the folder {source} holds no {glob} file", "--glob names others, as --glob '*.md'")
            files += inside
        elif source != STDIN and not path.exists():
            raise UsageError(f"there is no corpus {source}")
        elif source != STDIN and not path.is_file():
            raise UsageError(f"{source} is neither a file nor a folder", "cat can read it: cat ... | charlstm train -")
        else:
            files.append(source)
    return files


def match_glob(folder: Path, glob: str) -> Iterator[Path]:
    try:
        yield from folder.rglob(glob)
    except (ValueError, NotImplementedError) as error:
        raise UsageError(f"--glob must be a pattern of names as *.txt, not {glob!r}") from error


def is_hidden(file: Path, folder: Path) -> bool:
    """Whether it lies in a folder such as .git or .venv."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def source_bytes(source: str, piped: Spool | None) -> int:
    """Bytes of a file or of the pipe, as they are packed; 0 for what cannot be looked at."""
    if source == STDIN:
        return piped.size if piped else 0
    return Path(source).stat().st_size if Path(source).exists() else 0


def read_source(source: str, piped: Spool | None, on_read: Callable[[int], None]) -> Iterator[bytes]:
    """The bytes of a file or of the pipe, unpacked, a chunk at a time. `watch` is told how many were read, packed.

    Raises UsageError for what cannot be read, CharlstmError for a broken archive.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_source(source, piped))
            kind, unpack = detect_compression(file)
            stream = stack.enter_context(unpack(file)) if unpack else file
        except OSError as error:
            raise UsageError(f"cannot read {source}: {error.strerror}") from error
        at = 0
        while chunk := read_chunk(stream, source, kind):
            on_read(file.tell() - at)
            at = file.tell()
            yield chunk


def open_source(source: str, piped: Spool | None) -> BufferedReader:
    if source != STDIN:
        return Path(source).open("rb")
    if piped is None:
        raise UsageError("- reads stdin, and stdin is closed")
    return BufferedReader(piped.open())  # type: ignore[arg-type]


def read_chunk(stream: BinaryIO, source: str, kind: str) -> bytes:
    name = "stdin" if source == STDIN else source
    try:
        return stream.read(READ_BYTES)
    except Exception as error:  # each unpacker has its own
        if isinstance(error, OSError) and error.errno is not None:
            raise UsageError(f"cannot read {name}: {error.strerror}") from error
        if not kind:
            raise
        said = "it ends too early" if isinstance(error, EOFError) else str(error).rstrip(".")
        raise CharlstmError(f"{name} is a broken {kind} archive: {said}") from error


def detect_compression(file: BufferedReader) -> tuple[str, Callable[[BinaryIO], Any] | None]:
    """What a file is packed with, told by its first bytes, and what unpacks it; nothing for any other file."""
    head = file.peek(6)
    for kind, (magic, unpack) in DECOMPRESSORS.items():
        if head.startswith(magic):
            return kind, unpack
    return "", None


def open_zstd(file: BinaryIO) -> Any:
    return load_zstd().ZstdFile(file)


def load_zstd() -> Any:
    """The standard library's module, or its backport to Pythons before 3.14."""
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
"""By the bytes that such a file begins with."""
