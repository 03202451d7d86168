"""The pages of `charlstm export --html`: what is in them, read without their script."""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode
from dataclasses import replace
from typing import Any

import numpy as np

from charlstm.matrices import Array
from charlstm.storage.model import ModelFile


def read_script_element(page: str, id: str) -> str:
    """Return the content of a script element."""
    match = re.search(rf'<script type="[^"]*" id="{id}">(.*?)</script>', page, re.DOTALL)
    assert match
    return match[1]


def read_settings(page: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(read_script_element(page, "model"))
    return settings


def read_weights(page: str) -> dict[str, Array]:
    """Return the weights in a page by name, as float32."""
    block = zlib.decompress(b64decode(read_script_element(page, "weights")))
    return {name: read_weight(block, **entry) for name, entry in read_settings(page)["weights"].items()}


def read_weight(block: bytes, at: int, rows: int, columns: int, bytes: int = 0) -> Array:
    if not bytes:
        return np.frombuffer(block, "<f4", columns, at)
    scales = np.frombuffer(block, "<f4", rows, at)
    planes = np.frombuffer(block, np.uint8, bytes * rows * columns, at + 4 * rows).reshape(bytes, rows, columns)
    integers = planes[0].view(np.int8).astype(np.int32)
    for plane in planes[1:]:
        integers = 256 * integers + plane
    return np.asarray(integers * scales[:, None], np.float32)


def with_page_weights(half: ModelFile, page: str) -> ModelFile:
    """Return a model of one direction with the weights of its page instead of its own."""
    return replace(half, weights=read_weights(page))
