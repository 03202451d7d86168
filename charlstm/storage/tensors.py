"""A .safetensors file with a JSON document in its header: written whole or not at all, mapped and checked when read.

The layout is safetensors' (8 bytes with the header's length, a JSON header, the tensors one after the other), read and
written here so that no number in a file is believed before it has been held against the file's size.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from math import prod
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import CharlstmError, ModelFileError
from charlstm.storage.files import write_atomically

Tensors = dict[str, NDArray[Any]]

METADATA_KEY = "charlstm"
"""The document is one entry of the header's metadata."""

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
"""safetensors' names of the types, and NumPy's."""

DTYPE_NAMES = {np.dtype(theirs): ours for ours, theirs in DTYPES.items()}

MAX_HEADER_BYTES = 2**25
"""Bytes: twice what a vocabulary of every character there is takes."""

MAX_DIMENSIONS = 8


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], document: Mapping[str, Any]) -> None:
    """Writes both so that `path` holds either what it held before or all of this. Raises CharlstmError."""
    write_atomically(path, *serialize_tensors(tensors, document))


def serialize_tensors(tensors: Mapping[str, NDArray[Any]], document: Mapping[str, Any]) -> list[bytes | memoryview]:
    """The file, in pieces: the same content makes the same bytes. The widest types come first, so that all align."""
    ordered = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    signed = {**document, "crc32": compute_checksum(ordered, document)}
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: json.dumps(signed, ensure_ascii=True)}}
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
    """The tensors and the document. Raises ModelFileError for a file that is not one of ours, or not whole.

    The tensors are the file's own memory, mapped: processes that read one file share it, and what one of them writes
    to its tensors stays with it. A file replaced by renaming stays as it was for who has it open.
    """
    try:
        data = map_file(path)
        tensors, document = parse_tensors(data)
        whole = document.pop("crc32") == compute_checksum(tensors, document)
    except OSError as error:
        raise CharlstmError(f"cannot read {path}: {error.strerror or error}") from error
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path} is not a charlstm model file, or only part of one") from error
    if not whole:
        raise ModelFileError(f"{path} is damaged: its checksum does not fit what it holds")
    return tensors, document


def map_file(path: Path) -> mmap:
    """The bytes of a file. Raises OSError or, for what is no file or an empty one, ValueError."""
    if path.exists() and not path.is_file():  # to open a pipe would be to wait for somebody to write to it
        raise ValueError(path)
    with path.open("rb") as file:
        return mmap(file.fileno(), 0, access=ACCESS_COPY)


def parse_tensors(data: mmap) -> tuple[Tensors, dict[str, Any]]:
    """What is in the file, not yet held against its checksum. Raises as a careless reader would."""
    begin = 8 + int.from_bytes(data[:8], "little")
    if not 8 < begin <= min(len(data), 8 + MAX_HEADER_BYTES):
        raise ValueError("the header does not fit into the file")
    header = json.loads(data[8:begin])
    document = json.loads(header.pop("__metadata__")[METADATA_KEY])
    spans = sorted((tuple(entry["data_offsets"]), name) for name, entry in header.items())
    edges = [0, *(span[1] for span, _ in spans)]
    if edges != [*(span[0] for span, _ in spans), len(data) - begin]:
        raise ValueError("the tensors do not fill the file")
    return {name: map_array(data, begin, header[name]) for name in sorted(header)}, document


def map_array(data: mmap, begin: int, entry: Mapping[str, Any]) -> NDArray[Any]:
    """The array that an entry of the header describes, in the file's own memory if it lies at a fitting address."""
    dtype, shape, (first, last) = np.dtype(DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n <= len(data) for n in (*shape, first, last)):
        raise ValueError("a shape or an offset is impossible")
    if prod(shape) * dtype.itemsize != last - first:
        raise ValueError("a shape does not fit its offsets")
    array: NDArray[Any] = np.ndarray(shape, dtype, data, begin + first)
    return array if array.flags.aligned else array.copy()


def compute_checksum(tensors: Mapping[str, NDArray[Any]], document: Mapping[str, Any]) -> int:
    """CRC-32 of the document and of each tensor's name, type, shape and bytes: finds damage, not malice."""
    crc = zlib.crc32(json.dumps(document, sort_keys=True, ensure_ascii=True).encode())
    for name, tensor in tensors.items():
        crc = zlib.crc32(f"{name} {tensor.dtype} {tensor.shape}".encode(), crc)
        crc = zlib.crc32(tensor.data, crc)
    return crc


def tensor_bytes(tensors: Mapping[str, NDArray[Any]]) -> int:
    """Bytes, without the header's."""
    return sum(tensor.nbytes for tensor in tensors.values())
