"""The state of a run as a file: a tree of dicts with arrays as leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.errors import ModelFileError
from charlstm.tensorfile import Tensors, read_tensors, write_tensors

STATE_FORMAT = 2

Tree = dict[str, Any]


def write_state(path: Path, state: Tree) -> None:
    """Writes the tree whole or not at all. Raises CharlstmError."""
    tensors, document = flatten(state)
    write_tensors(path, tensors, {"format": STATE_FORMAT, "state": document})


def read_state(path: Path) -> Tree:
    """The tree that was saved there. Raises ModelFileError."""
    tensors, document = read_tensors(path)
    if document.get("format") != STATE_FORMAT:
        raise ModelFileError(
            f"{path} has format {document.get('format')!r} and this charlstm reads {STATE_FORMAT}",
            "a newer charlstm may read it",
        )
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ModelFileError(f"{path} holds numbers that are not finite")
    try:
        return unflatten(tensors, document["state"])
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path} is not the state of a run") from error


def flatten(tree: Tree) -> tuple[Tensors, Tree]:
    """The arrays of a tree, by their path in it, and the rest of it as JSON."""
    tensors: Tensors = {}
    document: Tree = {}
    for key, value in tree.items():
        if isinstance(value, np.ndarray):
            tensors[key] = value
        elif isinstance(value, dict) and any(isinstance(leaf, (np.ndarray, dict)) for leaf in value.values()):
            inner, document[key] = flatten(value)
            tensors |= {f"{key}/{name}": array for name, array in inner.items()}
        else:
            document[key] = value
    return tensors, document


def unflatten(tensors: Tensors, document: Tree) -> Tree:
    """The inverse of `flatten`."""
    tree = json.loads(json.dumps(document))
    for path, array in tensors.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = array
    return dict(tree)
