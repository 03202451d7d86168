"""The training state as a file: a tree of dicts with arrays as leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.errors import ModelFileError
from charlstm.storage.tensors import Tensors, check_format, read_tensors, write_tensors

STATE_FORMAT = 3
READABLE_STATE_FORMATS = (2, STATE_FORMAT)
"""Format 2 has the optimizer's moments under `optimiser`, by the paths of the torch parameters at that time."""

StateTree = dict[str, Any]


def write_state(path: Path, state: StateTree) -> None:
    """Replace the file with this tree. Raises CharlstmError if that fails."""
    tensors, document = flatten(state)
    write_tensors(path, tensors, {"format": STATE_FORMAT, "state": document})


def read_state(path: Path) -> StateTree:
    """Return the tree in a file. Raises ModelFileError if the file is damaged or has another format."""
    tensors, document = read_tensors(path)
    check_format(path, document, READABLE_STATE_FORMATS)
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ModelFileError(f"{path} holds numbers that are not finite", "restore it from a copy")
    try:
        state = unflatten(tensors, document["state"])
        if document["format"] == 2:
            moments = state.pop("optimiser", {})
            state["optimizer"] = {name_in_file(path): moments[path] for path in moments}
        return state
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path} is not the state of a run", "restore it from a copy") from error


def name_in_file(path: str) -> str:
    """Return the name in a model file of a torch parameter of format 2: `layers.0.weight_hh` for
    `forwards.stack.layers.0.core.weight_hh_l0`."""
    path = path.removeprefix("forwards.").replace("backwards.", "backward.").replace("head.projection", "projection")
    return path.replace("stack.", "").replace(".core.", ".").removesuffix("_l0")


def flatten(tree: StateTree) -> tuple[Tensors, StateTree]:
    """Return the arrays of a tree by their paths (`optimizer/head.bias/exp_avg`), and the rest of the tree."""
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
    """Return the tree: the inverse of `flatten`."""
    tree = json.loads(json.dumps(document))
    for path, array in tensors.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = array
    return dict(tree)
