"""A .safetensors file with a JSON document in its header: written whole or not at all, checked when read."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from charlstm.errors import CharlstmError, ModelFileError

Tensors = dict[str, NDArray[Any]]

KEY = "charlstm"
"""The document is one entry of the header: safetensors writes several in an order that differs from run to run."""


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], document: Mapping[str, Any]) -> None:
    """Writes both so that `path` holds either what it held before or all of this. Raises CharlstmError."""
    ordered = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    header = {**document, "crc32": checksum(ordered, document)}
    write_whole(path, save(ordered, metadata={KEY: json.dumps(header, ensure_ascii=True)}))


def read_tensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors and the document. Raises ModelFileError for a file that is not one of ours, or not whole."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        expected = header.pop("crc32")
    except OSError as error:
        raise CharlstmError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path} is not a charlstm model file, or only part of one") from error
    if checksum(tensors, header) != expected:
        raise ModelFileError(f"{path} is damaged: its checksum does not fit what it holds")
    return tensors, header


def checksum(tensors: Mapping[str, NDArray[Any]], document: Mapping[str, Any]) -> int:
    """CRC-32 of the document and of each tensor's name, type, shape and bytes: finds damage, not malice."""
    crc = zlib.crc32(json.dumps(document, sort_keys=True, ensure_ascii=True).encode())
    for name, tensor in tensors.items():
        crc = zlib.crc32(f"{name} {tensor.dtype} {tensor.shape}".encode(), crc)
        crc = zlib.crc32(tensor.data, crc)
    return crc


def write_whole(path: Path, data: bytes) -> None:
    """To a temporary file beside it, flushed to the disk, then renamed into place. Raises CharlstmError."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o666 & ~umask())
            Path(temporary).replace(path)
            flush_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def flush_folder(folder: Path) -> None:
    """Makes the rename itself last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError) -> CharlstmError:
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    return CharlstmError(f"cannot write {path}: {error.strerror}", "make room and go on with --resume" if full else "")


def umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
