"""File formats that are not plain text: recognized by every command that reads a text, with a command that helps."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shlex
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from charlstm.data.formats import FORMATS
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import ENGLISH, SMALL

TEXT = ENGLISH[:3000].encode()
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstd.compress,
}


def make_tar(tar_format: int = tarfile.DEFAULT_FORMAT, name: str = "a.txt") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(TEXT)
        archive.addfile(member, io.BytesIO(TEXT))
    return out.getvalue()


def make_original_tar() -> bytes:
    """Return an archive of the first tar: the header ends after the checksum, without a magic number."""
    header = bytearray(make_tar(tarfile.USTAR_FORMAT))
    header[257:512] = bytes(255)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def make_zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else method)
    return out.getvalue()


def media_type(name: str) -> tuple[str, bytes]:
    return "mimetype", f"application/{name}".encode()


CONTENT_TYPES = ("[Content_Types].xml", TEXT)
FILES = {
    "tar": (make_tar(), "a tar archive", "tar -xOf {}"),
    "GNU tar": (make_tar(tarfile.GNU_FORMAT, "long/" * 50 + "name"), "a tar archive", "tar -xOf {}"),
    "ustar": (make_tar(tarfile.USTAR_FORMAT), "a tar archive", "tar -xOf {}"),
    "original tar": (make_original_tar(), "a tar archive", "tar -xOf {}"),
    "zip": (make_zip(("a.txt", TEXT)), "a zip archive", "unzip -p {}"),
    "stored zip": (make_zip(("a.txt", TEXT), method=zipfile.ZIP_STORED), "a zip archive", "unzip -p {}"),
    "empty zip": (make_zip(), "a zip archive", "unzip -p {}"),
    "docx": (make_zip(CONTENT_TYPES, ("word/document.xml", TEXT)), "a Word document", "pandoc -f docx -t plain {}"),
    "odt": (
        make_zip(media_type("vnd.oasis.opendocument.text"), ("content.xml", TEXT)),
        "an OpenDocument text",
        "pandoc -f odt -t plain {}",
    ),
    "epub": (make_zip(media_type("epub+zip"), ("x.xhtml", TEXT)), "an EPUB book", "pandoc -f epub -t plain {}"),
    "xlsx": (make_zip(CONTENT_TYPES, ("xl/workbook.xml", TEXT)), "an Office document", "export it as plain text"),
    "doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504), "an Office document", "export it as plain text"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24), "a 7z archive", "7z x -so {}"),
    "rar": (b"Rar!\x1a\x07\x01\x00" + bytes(24), "a rar archive", "unrar p -inul {}"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "a PDF document", "pdftotext {} -"),
    "ASCII pdf": (b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\n", "a PDF document", "pdftotext {} -"),
    "lzma": (lzma.compress(TEXT, lzma.FORMAT_ALONE), "an lzma file", "xz -dc {}"),
    "lzma with a size": (
        b"\x5d\0\0\x80\0" + len(TEXT).to_bytes(8, "little") + lzma.compress(TEXT, lzma.FORMAT_ALONE)[13:],
        "an lzma file",
        "xz -dc {}",
    ),
    "lzip": (b"LZIP\x01\x0c" + bytes(range(40)), "an lzip file", "lzip -dc {}"),
    "lz4": (b"\x04\x22\x4d\x18\x64\x40\xa7" + bytes(range(40)), "an lz4 file", "lz4 -dc {}"),
    "compress": (b"\x1f\x9d\x90" + bytes(range(40)), "a .Z file", "gzip -dc {}"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_another_format_is_an_error_with_a_command_that_extracts_its_text(kind: str) -> None:
    data, name, command = FILES[kind]
    for path in ("x.txt", "two words; echo.txt", "-odd.txt"):
        Path(path).write_bytes(data)
        quoted = {"-odd.txt": "./-odd.txt"}.get(path, shlex.quote(path))
        shown = charlstm("corpus", f"./{path}" if path.startswith("-") else path)
        assert_fails(shown, 1, f"{path} is {name}, not plain text; ", command.format(quoted))
    assert_fails(charlstm("train", "-", stdin=data), 1, f"stdin is {name}, not plain text", command.format("FILE"))
    assert_fails(charlstm("train", "x.txt", "--encoding", "latin-1", "--errors", "replace"), 1, name)


def test_every_format_has_an_example() -> None:
    assert {name for _, name, _ in FILES.values()} == {each.name for each in FORMATS}


@pytest.mark.slow
def test_eval_and_score_recognize_other_formats_too(run: Path) -> None:
    Path("x.txt").write_bytes(make_tar())
    for command in (("eval", "x.txt"), ("score", "x.txt"), ("sample", "--adapt", "x.txt")):
        assert_fails(charlstm(*command, "-m", run), 1, "x.txt is a tar archive", "tar -xOf x.txt")


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_a_compressed_file_of_another_format_is_an_error_with_a_command(kind: str) -> None:
    tar = ("x.txt contains a tar archive, not plain text", "tar -xOf x.txt")
    pdf = ("x.txt contains a PDF document, not plain text", f"decompress it with {kind} -d first")
    twice = (f"x.txt was compressed twice, with gzip and {kind}", f"{kind} -dc x.txt")
    for data, parts in {make_tar(): tar, FILES["pdf"][0]: pdf, gzip.compress(TEXT): twice}.items():
        Path("x.txt").write_bytes(COMPRESSORS[kind](data))
        assert_fails(charlstm("corpus", "x.txt"), 1, *parts)
        assert_fails(charlstm("corpus", "-", stdin=COMPRESSORS[kind](data)), 1, parts[0].replace("x.txt", "stdin"))


def test_texts_that_resemble_other_formats_are_read() -> None:
    for start in ("BZhang", "PK", "%PDF", "LZIP", "7z", "Rar!", "ustar  ", "P*M", "]]", f"{'u' * 257}ustar "):
        Path("x.txt").write_text(f"{start} {ENGLISH[:3000]}")
        assert charlstm("corpus", "x.txt").code == 0


@pytest.mark.slow
def test_a_byte_model_reads_the_bytes_of_any_format() -> None:
    for kind in ("tar", "zip", "pdf", "lzma"):
        Path("x.txt").write_bytes(FILES[kind][0] * 20)
        shown = charlstm("train", "x.txt", "--level", "byte", "--dry-run", *SMALL)
        assert shown.code == 0, shown.err
