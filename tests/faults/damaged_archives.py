"""Damaged compressed files: the text equals the output of gzip, bzip2, xz or zstd, or there is an error.

python -m tests.faults.damaged_archives [--archives 10000] [--seed 1]
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import lzma
import random
import struct
import subprocess
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice

from backports import zstd

from charlstm.config import DataConfig
from charlstm.data.text import CorpusReader
from charlstm.errors import CharlstmError
from charlstm.storage.spool import Spool
from tests.support.texts import ENGLISH

KINDS = ("gzip", "bzip2", "xz", "zstd")

POOL = 24
"""Streams of each kind, which are combined to archives."""

PROTECTED = 18
"""Bytes of the first header, at most: damage behind them leaves the archive recognizable."""

MIN_BYTES = 6
"""What an archive is cut to, at least: a shorter one has no magic number by which it could be recognized."""


@dataclass(frozen=True)
class Stream:
    """One stream of an archive and its text."""

    data: bytes
    text: bytes


# ---- intact streams


def compress_gzip(rng: random.Random, text: bytes, checked: bool) -> bytes:
    if rng.random() < 0.5:
        return gzip.compress(text, rng.choice((1, 6, 9)), mtime=rng.randrange(2**32))
    header = bytearray(b"\x1f\x8b\x08\x1e" + rng.randbytes(6))  # 1e: extra field, name, comment, checksum of the header
    header += b"\x06\0" + rng.randbytes(6) + b"name.txt\0" + b"a comment\0"
    header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    deflate = zlib.compressobj(rng.choice((1, 9)), wbits=-15)
    return bytes(header) + deflate.compress(text) + deflate.flush() + struct.pack("<II", zlib.crc32(text), len(text))


def compress_bzip2(rng: random.Random, text: bytes, checked: bool) -> bytes:
    return bz2.compress(text, rng.choice((1, 9)))


def compress_xz(rng: random.Random, text: bytes, checked: bool) -> bytes:
    checks = [lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256]
    return lzma.compress(text, check=rng.choice(checks if checked else [*checks, lzma.CHECK_NONE]), preset=0)


def compress_zstd(rng: random.Random, text: bytes, checked: bool) -> bytes:
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: rng.choice((1, 3)),
        zstd.CompressionParameter.checksum_flag: int(checked or rng.random() < 0.7),
        zstd.CompressionParameter.content_size_flag: rng.randrange(2),
    }
    return zstd.compress(text, options=options)


COMPRESSORS: dict[str, Callable[[random.Random, bytes, bool], bytes]] = {
    "gzip": compress_gzip,
    "bzip2": compress_bzip2,
    "xz": compress_xz,
    "zstd": compress_zstd,
}


def has_checksum(frame: bytes) -> bool:
    """Whether a zstd frame has a checksum."""
    return bool(frame[4:5] and frame[4] & 4)


def make_skippable_frame(rng: random.Random) -> Stream:
    content = rng.randbytes(rng.choice((0, 4, 100)))
    return Stream(struct.pack("<II", 0x184D2A50 + rng.randrange(16), len(content)) + content, b"")


@cache
def make_pool(kind: str, largest: int, checked: bool) -> tuple[Stream, ...]:
    """Compress texts of 1 kB to `largest` bytes, most of them small; with checksums of the text only, if `checked`."""
    rng = random.Random(kind)
    english = (ENGLISH + " naïve 漢字 😀\n").encode()
    streams = []
    for number in range(POOL):
        size = int(1000 * (largest / 1000) ** ((number / (POOL - 1)) ** 2))
        start = rng.randrange(len(english))
        text = (english[start:] + english * (size // len(english) + 1))[:size]
        text = text.decode("utf-8", "ignore").encode()  # whole characters
        streams.append(Stream(COMPRESSORS[kind](rng, text, checked), text))
    return tuple(streams)


# ---- changes of the structure of an archive


def change_nothing(rng: random.Random, kind: str, streams: list[Stream]) -> None:
    pass


def repeat_stream(rng: random.Random, kind: str, streams: list[Stream]) -> None:
    streams.insert(rng.randrange(1, len(streams) + 1), rng.choice(streams))


def add_zeros(rng: random.Random, kind: str, streams: list[Stream]) -> None:
    size = rng.choice((1, 2, 3, 4, 4, 8, 8, 12, 512, 65536, 100_000))
    streams.insert(rng.randrange(1, len(streams) + 1), Stream(bytes(size), b""))


def add_zeros_at_the_end(rng: random.Random, kind: str, streams: list[Stream]) -> None:
    streams.append(Stream(bytes(rng.choice((1, 3, 4, 8, 65536, 100_001))), b""))


def add_skippable_frame(rng: random.Random, kind: str, streams: list[Stream]) -> None:
    streams.insert(rng.randrange(kind != "zstd", len(streams) + 1), make_skippable_frame(rng))


def add_garbage(rng: random.Random, kind: str, streams: list[Stream]) -> None:
    garbage = rng.choice((b"\n", b"garbage", rng.randbytes(rng.choice((1, 4, 40, 5000)))))
    streams.insert(rng.randrange(1, len(streams) + 1), Stream(garbage, b""))


def add_stream_of_another_kind(rng: random.Random, kind: str, streams: list[Stream]) -> None:
    other = rng.choice([name for name in KINDS if name != kind])
    streams.insert(rng.randrange(1, len(streams) + 1), Stream(COMPRESSORS[other](rng, b"another", True), b"another"))


STRUCTURAL = (
    change_nothing,
    change_nothing,
    repeat_stream,
    add_zeros,
    add_zeros_at_the_end,
    add_skippable_frame,
    add_garbage,
    add_stream_of_another_kind,
)


# ---- damaged bytes, at or after a position


def truncate(rng: random.Random, data: bytearray, ends: list[int], first: int) -> None:
    near_an_end = rng.choice(ends) + rng.randrange(-20, 20)
    del data[max(rng.choice((near_an_end, rng.randrange(len(data)))), first, MIN_BYTES) :]


def flip_bits(rng: random.Random, data: bytearray, ends: list[int], first: int) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(first, len(data))] ^= 1 << rng.randrange(8)


def overwrite(rng: random.Random, data: bytearray, ends: list[int], first: int) -> None:
    at, size = rng.randrange(first, len(data)), rng.choice((1, 4, 64, 512))
    size = min(size, len(data) - at)
    data[at : at + size] = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))


def insert_bytes(rng: random.Random, data: bytearray, ends: list[int], first: int) -> None:
    at = rng.randrange(first, len(data))
    data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))


def delete_bytes(rng: random.Random, data: bytearray, ends: list[int], first: int) -> None:
    at = rng.randrange(max(first, MIN_BYTES), len(data))
    del data[at : at + rng.choice((1, 4, 100))]


def damage_first_block_of_later_stream(rng: random.Random, data: bytearray, ends: list[int], first: int) -> None:
    at = (rng.choice(ends[:-1]) if len(ends) > 1 else first) + rng.randrange(40)
    data[min(at, len(data) - 1)] ^= rng.randrange(1, 256)


def damage_end_of_stream(rng: random.Random, data: bytearray, ends: list[int], first: int) -> None:
    at = rng.choice(ends) - rng.randrange(1, 30)
    data[max(at, first)] ^= rng.randrange(1, 256)


DAMAGES = (
    truncate,
    flip_bits,
    overwrite,
    insert_bytes,
    delete_bytes,
    damage_first_block_of_later_stream,
    damage_first_block_of_later_stream,
    damage_end_of_stream,
)


@dataclass(frozen=True)
class Archive:
    """A changed archive: `text` is what it contains if it is accepted and has checksums.

    `undefined` marks damage of zstd frames without a checksum. Some of them are decoded without an error, but
    differently, by zstd up to 1.5.5 and since 1.5.6.
    """

    number: int
    kind: str
    changes: str
    data: bytes
    text: bytes
    recognizable: bool
    undefined: bool


def make_archives(seed: int, largest: int, checked: bool = False) -> Iterator[Archive]:
    """Generate archives of one to four streams of 1 kB to `largest` bytes, without end."""
    for number in range(10**9):
        rng = random.Random(f"{seed}/{number}")
        kind = KINDS[number % len(KINDS)]
        streams = rng.choices(make_pool(kind, largest, checked), k=rng.randrange(1, 5))
        structural, damage, recognizable = rng.choice(STRUCTURAL), rng.choice(DAMAGES), rng.random() < 0.6
        names = []
        if rng.random() < 0.6:
            structural(rng, kind, streams)
            names.append(structural.__name__)
        data = bytearray(b"".join(stream.data for stream in streams))
        text = b"".join(stream.text for stream in streams)
        if not names or rng.random() < 0.2:
            ends = [sum(len(stream.data) for stream in streams[: k + 1]) for k in range(len(streams))]
            damage(rng, data, ends, PROTECTED if recognizable else 0)
            names.append(damage.__name__)
            if len(data) in ends:  # truncated between two streams
                text = b"".join(stream.text for stream in streams[: ends.index(len(data)) + 1])
        unchecked = kind == "zstd" and not all(has_checksum(stream.data) for stream in streams)
        undefined = unchecked and damage.__name__ in names
        yield Archive(number, kind, " ".join(names), bytes(data), text, recognizable, undefined)


# ---- reading


def read_archive(archive: Archive) -> bytes | None:
    """Return what charlstm reads, or None if it reports an error.

    Every second recognizable archive is read as bytes, so that its text need not be UTF-8.
    """
    level = "byte" if archive.recognizable and len(archive.data) % 2 else "char"
    config = DataConfig(corpus=("-",), level=level, newlines="keep")
    out = io.BytesIO()
    try:
        for chunk in CorpusReader(config, Spool(archive.data)).read_chunks():
            out.write(chunk.encode() if isinstance(chunk, str) else chunk)
    except CharlstmError:
        return None
    return out.getvalue()


@dataclass
class Counts:
    """How many archives were accepted, rejected, and read as the program of their kind does."""

    archives: int = 0
    recognizable: int = 0
    accepted: int = 0
    rejected: int = 0
    equal: int = 0
    undefined: int = 0
    rejected_here_only: Counter[str] = field(default_factory=Counter)
    accepted_here_only: Counter[str] = field(default_factory=Counter)

    def add(self, archive: Archive, found: bytes | None, expected: bytes, status: int | None = None) -> None:
        """Count an archive, what was read of it, and what its program wrote, with its exit status."""
        self.archives += 1
        self.recognizable += archive.recognizable
        changes = f"{archive.kind} {archive.changes}"
        if found is None:
            assert archive.changes != change_nothing.__name__, archive.number
            self.rejected += 1
            self.rejected_here_only[changes] += status == 0
            return
        self.accepted += 1
        if archive.undefined and found != expected:
            assert found == zstd.decompress(archive.data), archive.number
            self.undefined += 1
            return
        assert found == expected, (archive.number, changes, len(found), len(expected))
        self.equal += 1
        self.accepted_here_only[changes] += status not in (0, None)

    def __str__(self) -> str:
        lines = [
            f"{self.archives:,} archives, {self.recognizable:,} of them with an intact first header",
            f"accepted {self.accepted:,}, rejected {self.rejected:,}; equal to the text {self.equal:,}",
            f"damaged zstd frames without a checksum that the program decodes differently: {self.undefined:,}",
        ]
        for title, counts in (
            ("rejected, though the program exits with 0", self.rejected_here_only),
            ("accepted, though the program does not exit with 0", self.accepted_here_only),
        ):
            lines.append(f"{title}: {counts.total():,}")
            lines += [f"  {changes}: {count:,}" for changes, count in counts.most_common() if count]
        return "\n".join(lines)


def compare_with_texts(archives: int, seed: int, largest: int) -> Counts:
    """Read changed archives. Raises AssertionError if one is read without an error, but not in full."""
    counts = Counts()
    for archive in islice(make_archives(seed, largest, checked=True), archives):
        counts.add(archive, read_archive(archive), archive.text)
    return counts


def compare_with_programs(archives: int, seed: int, largest: int) -> Counts:
    """Read changed archives. Raises AssertionError if one is read without an error, but not as its program reads it."""
    counts = Counts()
    for archive in islice(make_archives(seed, largest), archives):
        done = subprocess.run([archive.kind, "-dc"], input=archive.data, capture_output=True, timeout=60, check=False)
        counts.add(archive, read_archive(archive), done.stdout, done.returncode)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archives", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(compare_with_programs(arguments.archives, arguments.seed, largest=2_000_000))


if __name__ == "__main__":
    main()
