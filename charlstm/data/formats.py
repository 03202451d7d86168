"""File formats that are not plain text, and the commands that extract their text."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from charlstm.data.compression import Compression, detect_compression
from charlstm.errors import CharlstmError
from charlstm.storage.locate import STDIN


@dataclass(frozen=True)
class FileFormat:
    """A file format: its name, a test of the first bytes of a file, and a shell command that writes the text."""

    name: str
    matches: Callable[[bytes], bool]
    command: str = ""


def starts_with(*magic: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magic)


def is_zip_with(*members: bytes) -> Callable[[bytes], bool]:
    """Return a test for zip archives that contain one of these, uncompressed: names of members or a media type."""
    return lambda head: head.startswith(b"PK\x03\x04") and any(member in head for member in members)


def is_tar(head: bytes) -> bool:
    """Whether the bytes begin with the header of a member of a tar archive, which contains its own checksum.

    Archives of the original tar have no magic number.
    """
    header = head[:512]
    if header[257:265] in (b"ustar\x0000", b"ustar  \0"):
        return True
    try:
        checksum = int(header[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    return len(header) == 512 and checksum == sum(header) - sum(header[148:156]) + 8 * ord(" ")


def is_lzma_alone(head: bytes) -> bool:
    """Whether the bytes are a header of xz's predecessor, which has no magic number: xz checks the same fields."""
    if len(head) < 13 or head[0] >= 225:
        return False
    dictionary, size = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:13], "little")
    plausible = {2**n + part for n in range(12, 32) for part in (0, 2 ** (n - 1))}
    return dictionary in plausible and (size == 2**64 - 1 or size < 2**38)


FORMATS = (
    FileFormat("a tar archive", is_tar, "tar -xOf {file}"),
    FileFormat(
        "an EPUB book",
        is_zip_with(b"mimetypeapplication/epub+zip", b"META-INF/container.xml"),
        "pandoc -f epub -t plain {file}",
    ),
    FileFormat(
        "an OpenDocument text",
        is_zip_with(b"mimetypeapplication/vnd.oasis.opendocument.text"),
        "pandoc -f odt -t plain {file}",
    ),
    FileFormat("a Word document", is_zip_with(b"word/document.xml"), "pandoc -f docx -t plain {file}"),
    FileFormat(
        "an Office document",
        is_zip_with(b"mimetypeapplication/vnd.oasis.opendocument.", b"xl/workbook.xml", b"ppt/presentation.xml"),
    ),
    FileFormat("an Office document", starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")),
    FileFormat("a zip archive", starts_with(b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"), "unzip -p {file}"),
    FileFormat("a 7z archive", starts_with(b"7z\xbc\xaf\x27\x1c"), "7z x -so {file}"),
    FileFormat("a rar archive", starts_with(b"Rar!\x1a\x07"), "unrar p -inul {file}"),
    FileFormat("a PDF document", starts_with(b"%PDF-1.", b"%PDF-2."), "pdftotext {file} -"),
    FileFormat("an lzma file", is_lzma_alone, "xz -dc {file}"),
    FileFormat("an lzip file", starts_with(b"LZIP\x00", b"LZIP\x01"), "lzip -dc {file}"),
    FileFormat("an lz4 file", starts_with(b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18"), "lz4 -dc {file}"),
    FileFormat("a .Z file", starts_with(b"\x1f\x9d"), "gzip -dc {file}"),
)
"""In the order in which they are tried: documents that are zip archives precede other zip archives."""


def reject_other_formats(head: bytes, source: str, compression: Compression | None) -> None:
    """Raise CharlstmError for a text whose first bytes are those of another file format.

    `source` is the file or `-`, and `compression` is how it was compressed.
    """
    name, file = ("stdin", "FILE") if source == STDIN else (source, quote_path(source))
    found = next((each for each in FORMATS if each.matches(head)), None)
    if found and not compression:
        command = found.command.format(file=file)
        hint = f"extract its text: {command}" if command else "export it as plain text"
        raise CharlstmError(f"{name} is {found.name}, not plain text", hint)
    if found and compression:
        tar = f"extract its text: {found.command.format(file=file)}"
        hint = tar if found.matches is is_tar else f"decompress it with {compression.name} -d first"
        raise CharlstmError(f"{name} contains {found.name}, not plain text", hint)
    if compression and (inner := detect_compression(head)):
        raise CharlstmError(
            f"{name} was compressed twice, with {inner.name} and {compression.name}",
            f"decompress it once: {compression.name} -dc {file}",
        )


def quote_path(path: str) -> str:
    """Quote a path for a shell, so that no program takes it for an option."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)
