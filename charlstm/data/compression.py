"""Decompression of gzip, xz, bzip2 and zstd files, stream by stream.

A compressed file is a sequence of streams (gzip calls them members and zstd frames), with zero bytes between or after
them where the format allows this. Anything else in it is an error, so that no part of the text is lost silently. The
file objects of the standard library do not ensure that: some take damaged streams for garbage that can be ignored.
"""

from __future__ import annotations

import bz2
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, Protocol

from charlstm.errors import CharlstmError

BLOCK_BYTES = 1 << 16
"""Compressed bytes per read."""

PIECE_BYTES = 1 << 20
"""Bytes that a decompressor returns at a time, at most."""

MAGIC_BYTES = 6
"""Bytes that identify the kind of a stream, at most."""


class Decompressor(Protocol):
    """Decompresses one stream. `bz2.BZ2Decompressor` is an example."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class GzipDecompressor:
    """Decompresses one gzip member."""

    def __init__(self) -> None:
        self.inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)  # 16: with the header and trailer of gzip
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self.inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self.inflater.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        piece = self.inflater.decompress(self.inflater.unconsumed_tail + data, max_length)
        self.needs_input = not self.inflater.unconsumed_tail and len(piece) < max_length
        return piece


def import_zstd() -> Any:
    """Import the module of the standard library, or its backport to Python before 3.14."""
    try:
        from compression import zstd as module  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        from backports import zstd as module
    return module


@dataclass(frozen=True)
class Compression:
    """A kind of compressed file.

    `magic` matches the first bytes of a stream. `is_padding` returns whether a number of zero bytes after a stream, at
    the end of the file or not, is padding.
    """

    name: str
    magic: re.Pattern[bytes]
    new_decompressor: Callable[[], Decompressor]
    is_padding: Callable[[int, bool], bool] = lambda zeros, at_end: False


COMPRESSIONS = (
    Compression("gzip", re.compile(rb"\x1f\x8b"), GzipDecompressor, lambda zeros, at_end: at_end),
    Compression(
        "xz", re.compile(rb"\xfd7zXZ\0"), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), lambda zeros, _: zeros % 4 == 0
    ),
    Compression("bzip2", re.compile(rb"BZh[1-9]"), bz2.BZ2Decompressor),
    Compression(  # the second magic is that of skippable frames, with which the files of pzstd begin
        "zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), lambda: import_zstd().ZstdDecompressor()
    ),
)
"""The kinds of compressed files that are decompressed."""


def detect_compression(head: bytes) -> Compression | None:
    """Identify a compressed file by its first bytes."""
    return next((each for each in COMPRESSIONS if each.magic.match(head)), None)


def decompress(file: BufferedReader, compression: Compression, name: str) -> Iterator[bytes]:
    """Decompress all streams of a file, in pieces.

    The file must be seekable. Raises CharlstmError, with its name, for a damaged or truncated stream and for bytes that
    are neither a stream nor padding.
    """
    while True:
        yield from decompress_stream(file, compression, name)
        at = file.tell()
        zeros = skip_zeros(file)
        head = peek(file, MAGIC_BYTES)
        if (zeros and not compression.is_padding(zeros, not head)) or (head and not compression.magic.match(head)):
            raise broken_archive(name, compression, f"what follows byte {at:,} is neither a stream nor padding")
        if not head:
            return


def decompress_stream(file: BufferedReader, compression: Compression, name: str) -> Iterator[bytes]:
    """Decompress the stream that begins at the position of the file, and leave the file at the end of the stream."""
    decompressor = compression.new_decompressor()
    while not decompressor.eof:
        data = file.read(BLOCK_BYTES) if decompressor.needs_input else b""
        if decompressor.needs_input and not data:
            raise broken_archive(name, compression, "it ends too early")
        try:
            piece = decompressor.decompress(data, PIECE_BYTES)
        except MemoryError:
            raise
        except Exception as error:  # each decompressor raises its own type
            raise broken_archive(name, compression, str(error).rstrip(".")) from error
        if piece:
            yield piece
    file.seek(-len(decompressor.unused_data), os.SEEK_CUR)


def skip_zeros(file: BufferedReader) -> int:
    """Skip the zero bytes at the position of a file, and return their number."""
    count = 0
    while block := file.read(BLOCK_BYTES):
        others = len(block.lstrip(b"\0"))
        count += len(block) - others
        if others:
            file.seek(-others, os.SEEK_CUR)
            break
    return count


def peek(file: BufferedReader, size: int) -> bytes:
    """Return the next `size` bytes of a file, fewer at its end, and stay at its position."""
    head = file.read(size)
    file.seek(-len(head), os.SEEK_CUR)
    return head


def broken_archive(name: str, compression: Compression, reason: str) -> CharlstmError:
    if "too much memory" in reason:
        return CharlstmError(
            f"{name} needs more than 128 MB of memory for its decompression",
            "decompress it with zstd -d --long=31 first",
        )
    return CharlstmError(f"{name} is a broken {compression.name} archive: {reason}")
