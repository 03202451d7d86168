"""Short programs for the model card: what runs an exported model without charlstm."""

from __future__ import annotations

from charlstm.config import Direction
from charlstm.storage.model import ModelFile

ONNX_START = """\
import json

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession({name!r})
about = json.loads(session.get_modelmeta().custom_metadata_map["charlstm"])
characters = {characters}
state = {{
    each.name: np.zeros((1, *each.shape[1:]), np.int64 if each.type == "tensor(int64)" else np.float32)
    for each in session.get_inputs()[1:]
}}
"""

ONNX_STEP = """

def read(id):
    logits, *after = session.run(None, {{"ids": np.array([id]), **state}})
    state.update(zip(state, after))
    return logits[0]

"""

ONNX_SEQUENCE = """text = {text!r}
ids = np.array([about["bos"], *map(characters.index, text){end}])
logits = session.run(["logits"], {{"ids": ids[:, None], **state}})[0][: len(text), 0].astype(float)
log_sums = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
print("nats per character:", np.mean(log_sums - logits[np.arange(len(text)), ids[1 : len(text) + 1]]))
"""

TORCH_START = """\
from pathlib import Path

import numpy as np
import torch
from model import load_folder

model, about = load_folder(Path(){backward})
characters = {characters}
state = None


def read(id):
    global state
    with torch.no_grad():
        logits, state = model(torch.tensor([[id]]), state)
    return logits[0, 0].numpy()

"""

WRITE = """
random = np.random.default_rng(1)
text = ""
logits = read(about["bos"])
while len(text) < 200:
    {unknown}p = np.exp(np.float64(logits - logits.max()))
    id = random.choice(len(p), p=p / p.sum())
    {end}text += characters[id]
    logits = read(id)
print({printed})
"""


def format_onnx_program(file: ModelFile, name: str, direction: Direction | None, *, sequence: bool) -> str:
    """Return a program for an ONNX file of this name: it writes a text, or scores one."""
    start = ONNX_START.format(name=name, characters=format_characters(file))
    if not sequence:
        return start + ONNX_STEP.format() + format_writing_program(file, direction)
    end = ', about["bos"]' if direction is None else ""
    return start + ONNX_SEQUENCE.format(text="".join(find_known_characters(file))[:20], end=end)


def format_torch_program(file: ModelFile) -> str:
    """Return a program that writes a text with the exported folder, in which it runs."""
    return TORCH_START.format(characters=format_characters(file), backward="") + format_writing_program(file, "forward")


def format_writing_program(file: ModelFile, direction: Direction | None) -> str:
    vocabulary = file.vocabulary
    text = "text[::-1]" if direction == "backward" else "text"
    if vocabulary.level == "byte":
        text = f'{text}.encode("latin-1").decode("utf-8", "replace")'
    end = 'if id == about["end_of_document"]:\n        break\n    '
    return WRITE.format(
        unknown='logits[about["unknown"]] = -np.inf\n    ' if vocabulary.unknown is not None else "",
        end=end if vocabulary.end_of_document is not None else "",
        printed=text,
    )


def format_characters(file: ModelFile) -> str:
    """Return the expression for the characters by their ids; those of a model of bytes are 0 to 255."""
    return '"".join(map(chr, range(256)))' if file.vocabulary.level == "byte" else 'about["vocabulary"]["characters"]'


def find_known_characters(file: ModelFile) -> list[str]:
    """Return characters that a model knows, for an example: letters and spaces before others."""
    symbols = [
        symbol.decode("latin-1" if file.vocabulary.level == "byte" else "utf-8")
        for symbol in file.vocabulary.symbols
        if symbol
    ]
    letters = [symbol for symbol in symbols if symbol.isalpha()]
    return letters or symbols
