"""Files from strangers: broken by accident, or made to do harm. Each is read by all of the commands that read files.

Each is made from a good one by a seeded generator: the bytes changed as a bad disk would, the header rewritten, or the
contents altered and the checksum worked out anew, so that what lies behind the checksum is reached too.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from typer.main import get_command

from charlstm.cli import app as cli
from charlstm.storage.locate import BEST, STATE
from charlstm.storage.tensors import METADATA_KEY, Tensors, read_tensors, serialize_tensors
from tests.conftest import ENGLISH, Result, charlstm

Document = dict[str, Any]
Change = Callable[[random.Random, Tensors, Document], None]

HANGING = 10
"""Seconds of its own time after which a command hangs."""

ROOM = 512 * 2**20
"""Bytes of memory that a process which reads files of a few kB may need beyond what it has."""

STATM = Path("/proc/self/statm")
"""Where Linux says how much memory a process has."""

NUMBERS = (0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**400, 0.5, 1e308, float("nan"), float("inf"))
THINGS = (
    None,
    True,
    "",
    "x" * 5000,
    "\x1b[2J\x9b31m",
    "../../etc/passwd",
    [],
    {},
    [[]],
    {"a": {}},
    "\ud800",
    "9" * 5000,
)


# ---- files that a bad disk or a broken copy makes: the checksum is as it was


def cut(chance: random.Random, data: bytearray) -> bytes:
    return bytes(data[: chance.randrange(len(data))])


def flipped(chance: random.Random, data: bytearray) -> bytes:
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def overwritten(chance: random.Random, data: bytearray) -> bytes:
    at, length = chance.randrange(len(data)), chance.choice((1, 4, 8, 64, 512))
    data[at : at + length] = chance.choice((b"\0" * length, b"\xff" * length, chance.randbytes(length)))
    return bytes(data)


def extended(chance: random.Random, data: bytearray) -> bytes:
    extra = chance.randbytes(chance.choice((1, 8, 4096)))
    return bytes(data) + extra if chance.random() < 0.5 else extra + bytes(data)


def header_length(chance: random.Random, data: bytearray) -> bytes:
    number = chance.choice((0, 1, 2, 7, len(data), len(data) - 8, 2**25, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1))
    return number.to_bytes(8, "little") + bytes(data[8:])


def noise(chance: random.Random, data: bytearray) -> bytes:
    return chance.choice(
        (b"", b"\0" * 100, chance.randbytes(200), b"PK\x03\x04" + bytes(data), b"\x80\x04cos\nsystem\n")
    )


BYTES = (cut, flipped, overwritten, extended, header_length, noise)


# ---- headers that lie: offsets, shapes, types, names, depth


def lying_header(chance: random.Random, data: bytearray) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), bytes(data[8 + length :])
    name = chance.choice([name for name in header if name != "__metadata__"])
    other = chance.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    lie = chance.randrange(10)
    if lie == 0:
        entry["data_offsets"] = list(header[other]["data_offsets"])
    elif lie == 1:
        entry["data_offsets"][chance.randrange(2)] = chance.choice(NUMBERS[:9])
    elif lie == 2:
        entry["shape"] = [chance.choice(NUMBERS) for _ in range(chance.choice((0, 1, 2, 9, 100)))]
    elif lie == 3:
        entry["shape"] = [*entry["shape"][::-1], *chance.choice(([], [1], [0], [2**62, 4]))]
    elif lie == 4:
        entry["dtype"] = chance.choice(("F64", "F16", "BF16", "U8", "O", "object", "V0", "<f4", 7, None))
    elif lie == 5:
        header[chance.choice(("../" * 50 + "x", "a/" * 2000 + "b", "", "\x1b[2J", "x" * 10_000))] = header.pop(name)
    elif lie == 6:
        header["__metadata__"] = chance.choice(THINGS)
    elif lie == 7:
        header["__metadata__"][METADATA_KEY] = chance.choice(
            ("[" * 100_000, "{" * 1000, '{"a":' * 50_000, "[]", "1e999", "9" * 10_000)
        )
    elif lie == 8:
        header[name] = chance.choice(THINGS)
    else:
        text = ('{"a":' * 20_000).encode() if chance.random() < 0.5 else b"[" * 1_000_000
        return len(text).to_bytes(8, "little") + text + body
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


# ---- contents that lie, with a right checksum


def not_finite(chance: random.Random, tensors: Tensors, document: Document) -> None:
    name = chance.choice([name for name in tensors if tensors[name].dtype == np.float32 and tensors[name].size])
    tensors[name] = tensors[name].copy()
    tensors[name].flat[chance.randrange(tensors[name].size)] = chance.choice((np.nan, np.inf, -np.inf))


def other_shape(chance: random.Random, tensors: Tensors, document: Document) -> None:
    name = chance.choice(list(tensors))
    shape = chance.choice(((), (1,), (0,), (1, 1), (3, 5), tensors[name].shape[::-1], (1, *tensors[name].shape)))
    tensors[name] = np.zeros(shape, tensors[name].dtype)


def other_type(chance: random.Random, tensors: Tensors, document: Document) -> None:
    name = chance.choice(list(tensors))
    with np.errstate(invalid="ignore"):
        tensors[name] = tensors[name].astype(chance.choice(("f8", "f2", "i8", "u1", "?")))


def missing_or_more(chance: random.Random, tensors: Tensors, document: Document) -> None:
    name = chance.choice(list(tensors))
    tensor = tensors.pop(name) if chance.random() < 0.5 else tensors[name]
    if chance.random() < 0.7:
        tensors[chance.choice(("x", f"{name}/x", f"{name}/0/1", "a/" * 3000, "progress/step", "../../x"))] = tensor


def huge_model(chance: random.Random, tensors: Tensors, document: Document) -> None:
    sizes = {"hidden": 16384, "layers": 64, "embedding": 16384}
    model = document.get("config", {}).get("model", {})
    model.update(dict(chance.sample(list(sizes.items()), chance.randrange(1, 4))))


def huge_vocabulary(chance: random.Random, tensors: Tensors, document: Document) -> None:
    if "vocabulary" in document:
        document["vocabulary"]["characters"] = "".join(
            map(chr, range(0x4E00, 0x4E00 + chance.choice((1, 500, 20_000))))
        )


def bad_vocabulary(chance: random.Random, tensors: Tensors, document: Document) -> None:
    if "vocabulary" in document:
        size = len(document["vocabulary"]["characters"])
        document["vocabulary"]["characters"] = chance.choice(
            ("", "ba" * size, "a" * size, "\ud800" * size, 7, None, ["a"])
        )


def other_value(chance: random.Random, tensors: Tensors, document: Document) -> None:
    """Somewhere in the document there is something else."""
    node: Any = document
    while True:
        key = chance.choice(list(node)) if isinstance(node, dict) else chance.randrange(len(node))
        if not isinstance(node[key], (dict, list)) or not node[key] or chance.random() < 0.1:
            break
        node = node[key]
    if isinstance(node, dict) and chance.random() < 0.2:
        value = node.pop(key)
        if chance.random() < 0.5:
            node[f"{key}s"] = value
    else:
        node[key] = chance.choice((*NUMBERS, *THINGS))


def other_corpus(chance: random.Random, tensors: Tensors, document: Document) -> None:
    """The text that it was trained on is somewhere else, it says."""
    if "config" in document:
        document["config"]["data"]["corpus"] = [
            chance.choice(("/dev/zero", "/proc/self/mem", "", "\0", "-", "..", "/nowhere"))
        ]


def other_format(chance: random.Random, tensors: Tensors, document: Document) -> None:
    document["format"] = chance.choice((0, 3, 4, 99, "1", None, [], 1.5, -1))


CONTENTS: tuple[Change, ...] = (
    not_finite,
    other_shape,
    other_type,
    missing_or_more,
    huge_model,
    huge_vocabulary,
    bad_vocabulary,
    other_value,
    other_value,
    other_value,
    other_corpus,
    other_format,
)


def mutants(path: Path, seed: int) -> Iterator[tuple[str, bytes]]:
    """Names of what was done, and what came of it, without end."""
    good = path.read_bytes()
    for number in range(10**9):
        chance = random.Random(f"{seed}/{number}")
        if chance.random() < 0.35:
            change = chance.choice(BYTES)
            yield f"{change.__name__} {number}", change(chance, bytearray(good))
        elif chance.random() < 0.3:
            yield f"lying_header {number}", lying_header(chance, bytearray(good))
        else:
            alter = chance.choice(CONTENTS)
            tensors, document = read_tensors(path)
            alter(chance, tensors, document)
            yield f"{alter.__name__} {number}", b"".join(serialize_tensors(tensors, document))


@dataclass
class Tally:
    """What became of the files."""

    files: int = 0
    read: Counter[str] = field(default_factory=Counter)  # by command: harmless, as a change of padding or of a weight
    refused: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        each = ", ".join(
            f"{name}: {self.refused[name]} refused, {self.read[name]} harmless" for name in sorted(self.refused)
        )
        return f"{self.files} files; {each}"


class Strangers:
    """A good run, and the commands that read a file in the place of one of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpus = folder / "little.txt"
        self.corpus.write_text(ENGLISH[:700], "utf-8")
        small = ("--hidden", 6, "--set", "model.embedding=3", "--batch-size", 2, "--seq-len", 8, "--epochs", 1)
        self.training = (*small, "--device", "cpu", "--no-samples", "-q")
        made = charlstm("train", self.corpus, "-o", folder / "good", *self.training)
        assert made.code == 0, made.err
        self.file = folder / "file.safetensors"

    def campaign(self, files: int, seed: int = 1) -> Tally:
        """So many mutants of a model file and of a state file. Raises AssertionError for what should not be."""
        tally = Tally()
        models, states = (mutants(self.folder / "good" / name, seed) for name in (BEST, STATE))
        with bounded():
            for number in range(files):
                if number % 3:
                    what, data = next(models)
                    self.read_model(what, data, tally)
                else:
                    what, data = next(states)
                    self.read_state(what, data, tally)
                tally.files += 1
        return tally

    def read_model(self, what: str, data: bytes, tally: Tally) -> None:
        self.file.write_bytes(data)
        commands = {
            "sample": ("sample", "-m", self.file, "-l", 3, "--seed", 1),
            "eval": ("eval", "-m", self.file, self.corpus, "--unknown", "replace", "--json"),
            "--init-from": (
                "train",
                self.corpus,
                "-o",
                self.folder / "new",
                "--init-from",
                self.file,
                *self.training[4:],
            ),
        }
        for name, command in commands.items():
            before = self.seen()
            result = self.judge(f"{name} {what}", timed(*command))
            tally.refused[name] += result.code != 0
            tally.read[name] += result.code == 0
            if name == "--init-from" and result.code == 0:
                shutil.rmtree(self.folder / "new")
            assert self.seen() == before, f"{name} {what} wrote something"

    def read_state(self, what: str, data: bytes, tally: Tally) -> None:
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.folder / "good", run)
        (run / STATE).write_bytes(data)
        before = self.seen()
        result = self.judge(f"--resume {what}", timed("train", "--resume", "-o", run, "-q"))
        tally.refused["--resume"] += result.code != 0
        tally.read["--resume"] += result.code == 0
        if result.code:
            assert self.seen() == before, f"--resume {what} wrote something"

    def judge(self, what: str, result: Result) -> Result:
        """Asserts that a file was read, or refused in one sentence."""
        lines = [line for line in result.err.splitlines() if line.startswith("charlstm: ")]
        assert result.code in (0, 1, 2), (what, result.err)
        assert "Traceback" not in result.err, (what, result.err)
        assert "should not have happened" not in result.err, (what, result.err)
        assert "not enough memory" not in result.err, (what, result.err)
        assert all(c.isprintable() or c == "\n" for c in result.err), (what, result.err)
        if result.code:
            assert len(lines) == 1, (what, result.err)
            assert len(lines[0]) < 6000, (what, result.err)
        if result.code == 2:  # a good model that does not go with the settings
            assert "--init-from" in what, (what, result.err)
        return result

    def seen(self) -> dict[str, tuple[int, int]]:
        """Every file there is, with its size and when it was written."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path): ((stat := path.stat()).st_size, stat.st_mtime_ns) for path in found}


def timed(*command: object) -> Result:
    """A command line that may not take long."""
    signal.setitimer(signal.ITIMER_VIRTUAL, HANGING)
    try:
        return charlstm(*command)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@contextmanager
def bounded() -> Iterator[None]:
    """Ends what hangs, and refuses memory that no file of a few kB has a use for."""

    def hangs(number: int, frame: FrameType | None) -> None:
        raise AssertionError("it hangs")

    before, limits = signal.signal(signal.SIGVTALRM, hangs), resource.getrlimit(resource.RLIMIT_AS)
    made_anew, cli.app = cli.app, get_command(cli.app)  # type: ignore[assignment]  # once: it is most of the time
    if STATM.exists():
        pages = int(STATM.read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, limits[1]))
    try:
        yield
    finally:
        cli.app = made_anew
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
