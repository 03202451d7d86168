"""A .safetensors file with a JSON document in the metadata of its header: written as a whole, read by mapping it.

The layout is that of safetensors: 8 bytes with the length of the header, the header as JSON, the tensors one after the
other. The files are read here, and not by the safetensors package, so that every number in an untrusted file is checked
against the size of the file before it is used.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import CharlstmError, ModelFileError
from charlstm.storage import files

Tensors = dict[str, NDArray[Any]]

METADATA_KEY = "charlstm"
"""The key of the document in the metadata of the header."""

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
"""NumPy's name of a type by that of safetensors."""

DTYPE_NAMES = {np.dtype(numpy_name): name for name, numpy_name in DTYPES.items()}

MAX_HEADER_BYTES = 2**25
"""Twice the size of a vocabulary with every Unicode character."""

MAX_DIMENSIONS = 8


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], document: Mapping[str, Any]) -> None:
    """Replace the file at `path` with tensors and a JSON document. Raises CharlstmError if that fails."""
    files.write_atomically(path, *serialize_tensors(tensors, document))


def serialize_tensors(tensors: Mapping[str, NDArray[Any]], document: Mapping[str, Any]) -> list[bytes | memoryview]:
    """Return the bytes of the file in pieces. The same content leads to the same bytes.

    The widest types come first, so that every tensor is aligned.
    """
    ordered = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    checked = {**document, "crc32": compute_checksum(ordered, document)}
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: json.dumps(checked, ensure_ascii=True)}}
    pieces: list[bytes | memoryview] = []
    end = 0
    for name, tensor in sorted(ordered.items(), key=lambda entry: -entry[1].itemsize):
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": [begin, end]}
        pieces.append(tensor.data)
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *pieces]


def read_tensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Return the tensors and the document of a file. Raises ModelFileError if it is damaged or another kind of file.

    The tensors are views of the mapped file: processes that read the same file share its memory, and writing to a
    tensor changes neither the file nor another process. A file that is replaced by renaming stays as it was for
    the process that has mapped it. Where a mapped file cannot be replaced (Windows), it is read into memory instead.
    """
    with explain_malformed(path):
        tensors, document = parse_tensors(map_or_read(path))
        intact = document.pop("crc32") == compute_checksum(tensors, document)
    if not intact:
        raise ModelFileError(f"{path} is damaged: its checksum does not match its content", "restore it from a copy")
    return tensors, document


def read_document(path: Path) -> dict[str, Any]:
    """Return the document of a file without its tensors, which are not checked. Raises as `read_tensors` does."""
    with explain_malformed(path):
        return parse_header(map_or_read(path))[2]


def check_layout(path: Path) -> None:
    """Check that a file is as long as its header says, without reading tensors. Raises as `read_tensors` does."""
    with explain_malformed(path):
        parse_tensors(map_or_read(path))


@contextmanager
def explain_malformed(path: Path) -> Iterator[None]:
    """Raise CharlstmError for a file that cannot be read in the block, ModelFileError for one that is malformed."""
    try:
        yield
    except OSError as error:
        raise CharlstmError(f"cannot read {path}: {error.strerror or error}") from error
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path} is not a charlstm model file, or it is incomplete") from error


def check_format(path: Path, document: Mapping[str, Any], readable: tuple[int, ...]) -> None:
    """Raise ModelFileError unless the format of a document is among those that can be read, the newest last."""
    found = document.get("format")
    if type(found) is not int or (found <= readable[-1] and found not in readable):
        raise ModelFileError(f"{path} has format {found!r}, which this charlstm does not read")
    if found not in readable:
        raise ModelFileError(
            f"{path} has format {found} and this charlstm reads formats up to {readable[-1]}",
            "a newer charlstm may read it",
        )


def map_or_read(path: Path) -> mmap:
    """Map a file into memory, or read it if the system could not replace it meanwhile.

    Raises OSError, or ValueError if it is empty or not a regular file.
    """
    if path.exists() and not path.is_file():  # opening a named pipe would block until another process writes to it
        raise ValueError(path)
    with path.open("rb") as file:
        if not files.LOCKS_OPEN_FILES:
            return mmap(file.fileno(), 0, access=ACCESS_COPY)
        size = os.fstat(file.fileno()).st_size
        memory = mmap(-1, size)
        file.readinto(memory)
        return memory


def parse_header(data: mmap) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return where the tensors begin, their entries and the document. Raises as `parse_tensors` does."""
    begin = 8 + int.from_bytes(data[:8], "little")
    if not 8 < begin <= min(len(data), 8 + MAX_HEADER_BYTES):
        raise ValueError("the header does not fit into the file")
    header = json.loads(data[8:begin])
    return begin, header, dict(json.loads(header.pop("__metadata__")[METADATA_KEY]))


def parse_tensors(data: mmap) -> tuple[Tensors, dict[str, Any]]:
    """Return tensors and document, whose checksum is still to be checked.

    Raises LookupError, ValueError, TypeError, AttributeError or RecursionError for a malformed file.
    """
    begin, header, document = parse_header(data)
    spans = sorted((tuple(entry["data_offsets"]), name) for name, entry in header.items())
    edges = [0, *(span[1] for span, _ in spans)]
    if edges != [*(span[0] for span, _ in spans), len(data) - begin]:
        raise ValueError("the tensors do not fill the file")
    return {name: map_array(data, begin, header[name]) for name in sorted(header)}, document


def map_array(data: mmap, begin: int, entry: Mapping[str, Any]) -> NDArray[Any]:
    """Return the array that an entry of the header describes: a view or, if it is not aligned, a copy."""
    dtype, shape, (first, last) = np.dtype(DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n <= len(data) for n in (*shape, first, last)):
        raise ValueError("a shape or an offset is impossible")
    if prod(shape) * dtype.itemsize != last - first:
        raise ValueError("a shape does not fit its offsets")
    array: NDArray[Any] = np.ndarray(shape, dtype, data, begin + first)
    return array if array.flags.aligned else array.copy()


def compute_checksum(tensors: Mapping[str, NDArray[Any]], document: Mapping[str, Any]) -> int:
    """Return the CRC-32 of the document and of every tensor's name, type, shape and bytes.

    It detects damage, not intent: whoever forges a file can compute it, too.
    """
    crc = zlib.crc32(json.dumps(document, sort_keys=True, ensure_ascii=True).encode())
    for name, tensor in tensors.items():
        crc = zlib.crc32(f"{name} {tensor.dtype} {tensor.shape}".encode(), crc)
        crc = zlib.crc32(tensor.data, crc)
    return crc


def tensor_bytes(tensors: Mapping[str, NDArray[Any]]) -> int:
    """Return the size of the tensors in bytes, without the header."""
    return sum(tensor.nbytes for tensor in tensors.values())
