"""The state of a run as a file: a tree of dicts with arrays as leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.errors import ModelFileError
from charlstm.storage.tensors import Tensors, read_tensors, write_tensors

STATE_FORMAT = 3
"""Format 2 had the optimizer's moments under `optimiser`."""

StateTree = dict[str, Any]


def write_state(path: Path, state: StateTree) -> None:
    """Writes the tree whole or not at all. Raises CharlstmError."""
    tensors, document = flatten(state)
    write_tensors(path, tensors, {"format": STATE_FORMAT, "state": document})


def read_state(path: Path) -> StateTree:
    """The tree that was saved there. Raises ModelFileError."""
    tensors, document = read_tensors(path)
    if document.get("format") not in (2, STATE_FORMAT):
        raise ModelFileError(
            f"{path} has format {document.get('format')!r} and this charlstm reads {STATE_FORMAT}",
            "a newer charlstm may read it",
        )
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ModelFileError(f"{path} holds numbers that are not finite")
    try:
        state = unflatten(tensors, document["state"])
        if document["format"] == 2:
            state["optimizer"] = state.pop("optimiser", {})
        return state
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path} is not the state of a run") from error


def flatten(tree: StateTree) -> tuple[Tensors, StateTree]:
    """The arrays of a tree, by their path in it, and the rest of it as JSON."""
    tensors: Tensors = {}
    document: StateTree = {}
    for key, value in tree.items():
        if isinstance(value, np.ndarray):
            tensors[key] = value
        elif isinstance(value, dict) and any(isinstance(leaf, (np.ndarray, dict)) for leaf in value.values()):
            inner, document[key] = flatten(value)
            tensors |= {f"{key}/{name}": array for name, array in inner.items()}
        else:
            document[key] = value
    return tensors, document


def unflatten(tensors: Tensors, document: StateTree) -> StateTree:
    """The inverse of `flatten`."""
    tree = json.loads(json.dumps(document))
    for path, array in tensors.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = array
    return dict(tree)
