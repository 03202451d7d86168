"""Corrupted and forged files, read by every command that reads such files.

Each is made from a good file by a seeded generator, in one of three ways: bytes are changed as by a bad disk; the
header is rewritten; or the content is altered and the checksum recomputed, to reach the code behind the checksum.
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

from charlstm.storage.locate import BEST, STATE
from charlstm.storage.tensors import METADATA_KEY, Tensors, read_tensors, serialize_tensors
from tests.support.command_line import Result, charlstm
from tests.support.texts import ENGLISH

Document = dict[str, Any]
Change = Callable[[random.Random, Tensors, Document], None]

MAX_CPU_SECONDS = 10
"""A command that takes longer hangs."""

MAX_MEMORY = 512 * 2**20
"""Bytes that reading a file of a few kB may allocate."""

STATM = Path("/proc/self/statm")
"""The memory of the process, on Linux."""

NUMBERS = (0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**400, 0.5, 1e308, float("nan"), float("inf"))
OTHER_VALUES: tuple[Any, ...] = (
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


# ---- corrupted bytes, as by a bad disk or an incomplete copy


def truncate(rng: random.Random, data: bytearray) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def flip_bits(rng: random.Random, data: bytearray) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def overwrite(rng: random.Random, data: bytearray) -> bytes:
    at, length = rng.randrange(len(data)), rng.choice((1, 4, 8, 64, 512))
    data[at : at + length] = rng.choice((b"\0" * length, b"\xff" * length, rng.randbytes(length)))
    return bytes(data)


def extend(rng: random.Random, data: bytearray) -> bytes:
    extra = rng.randbytes(rng.choice((1, 8, 4096)))
    return bytes(data) + extra if rng.random() < 0.5 else extra + bytes(data)


def change_header_length(rng: random.Random, data: bytearray) -> bytes:
    number = rng.choice((0, 1, 2, 7, len(data), len(data) - 8, 2**25, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1))
    return number.to_bytes(8, "little") + bytes(data[8:])


def make_noise(rng: random.Random, data: bytearray) -> bytes:
    return rng.choice((b"", b"\0" * 100, rng.randbytes(200), b"PK\x03\x04" + bytes(data), b"\x80\x04cos\nsystem\n"))


CORRUPTIONS = (truncate, flip_bits, overwrite, extend, change_header_length, make_noise)


# ---- forged headers: offsets, shapes, types, names, nesting


def forge_header(rng: random.Random, data: bytearray) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), bytes(data[8 + length :])
    name = rng.choice([name for name in header if name != "__metadata__"])
    other = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    kind = rng.randrange(10)
    if kind == 0:
        entry["data_offsets"] = list(header[other]["data_offsets"])
    elif kind == 1:
        entry["data_offsets"][rng.randrange(2)] = rng.choice(NUMBERS[:9])
    elif kind == 2:
        entry["shape"] = [rng.choice(NUMBERS) for _ in range(rng.choice((0, 1, 2, 9, 100)))]
    elif kind == 3:
        entry["shape"] = [*entry["shape"][::-1], *rng.choice(([], [1], [0], [2**62, 4]))]
    elif kind == 4:
        entry["dtype"] = rng.choice(("F64", "F16", "BF16", "U8", "O", "object", "V0", "<f4", 7, None))
    elif kind == 5:
        header[rng.choice(("../" * 50 + "x", "a/" * 2000 + "b", "", "\x1b[2J", "x" * 10_000))] = header.pop(name)
    elif kind == 6:
        header["__metadata__"] = rng.choice(OTHER_VALUES)
    elif kind == 7:
        header["__metadata__"][METADATA_KEY] = rng.choice(
            ("[" * 100_000, "{" * 1000, '{"a":' * 50_000, "[]", "1e999", "9" * 10_000)
        )
    elif kind == 8:
        header[name] = rng.choice(OTHER_VALUES)
    else:
        text = ('{"a":' * 20_000).encode() if rng.random() < 0.5 else b"[" * 1_000_000
        return len(text).to_bytes(8, "little") + text + body
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


# ---- forged content with a correct checksum


def make_not_finite(rng: random.Random, tensors: Tensors, document: Document) -> None:
    name = rng.choice([name for name in tensors if tensors[name].dtype == np.float32 and tensors[name].size])
    tensors[name] = tensors[name].copy()
    tensors[name].flat[rng.randrange(tensors[name].size)] = rng.choice((np.nan, np.inf, -np.inf))


def change_shape(rng: random.Random, tensors: Tensors, document: Document) -> None:
    name = rng.choice(list(tensors))
    shape = rng.choice(((), (1,), (0,), (1, 1), (3, 5), tensors[name].shape[::-1], (1, *tensors[name].shape)))
    tensors[name] = np.zeros(shape, tensors[name].dtype)


def change_type(rng: random.Random, tensors: Tensors, document: Document) -> None:
    name = rng.choice(list(tensors))
    with np.errstate(invalid="ignore"):
        tensors[name] = tensors[name].astype(rng.choice(("f8", "f2", "i8", "u1", "?")))


def remove_or_add(rng: random.Random, tensors: Tensors, document: Document) -> None:
    name = rng.choice(list(tensors))
    tensor = tensors.pop(name) if rng.random() < 0.5 else tensors[name]
    if rng.random() < 0.7:
        tensors[rng.choice(("x", f"{name}/x", f"{name}/0/1", "a/" * 3000, "progress/step", "../../x"))] = tensor


def enlarge_model(rng: random.Random, tensors: Tensors, document: Document) -> None:
    sizes = {"hidden": 16384, "layers": 64, "embedding": 16384}
    model = document.get("config", {}).get("model", {})
    model.update(dict(rng.sample(list(sizes.items()), rng.randrange(1, 4))))


def enlarge_vocabulary(rng: random.Random, tensors: Tensors, document: Document) -> None:
    if "vocabulary" in document:
        document["vocabulary"]["characters"] = "".join(map(chr, range(0x4E00, 0x4E00 + rng.choice((1, 500, 20_000)))))


def break_vocabulary(rng: random.Random, tensors: Tensors, document: Document) -> None:
    if "vocabulary" in document:
        size = len(document["vocabulary"]["characters"])
        document["vocabulary"]["characters"] = rng.choice(
            ("", "ba" * size, "a" * size, "\ud800" * size, 7, None, ["a"])
        )


def change_value(rng: random.Random, tensors: Tensors, document: Document) -> None:
    """Replace, remove or rename a random value of the document."""
    node: Any = document
    while True:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        if not isinstance(node[key], (dict, list)) or not node[key] or rng.random() < 0.1:
            break
        node = node[key]
    if isinstance(node, dict) and rng.random() < 0.2:
        value = node.pop(key)
        if rng.random() < 0.5:
            node[f"{key}s"] = value
    else:
        node[key] = rng.choice((*NUMBERS, *OTHER_VALUES))


def change_corpus(rng: random.Random, tensors: Tensors, document: Document) -> None:
    """Change the paths of the corpus it was trained on."""
    if "config" in document:
        document["config"]["data"]["corpus"] = [
            rng.choice(("/dev/zero", "/proc/self/mem", "", "\0", "-", "..", "/nowhere"))
        ]


def change_format(rng: random.Random, tensors: Tensors, document: Document) -> None:
    document["format"] = rng.choice((0, 1, 2, 3, 4, 99, "1", None, [], 1.5, -1))


FORGERIES: tuple[Change, ...] = (
    make_not_finite,
    change_shape,
    change_type,
    remove_or_add,
    enlarge_model,
    enlarge_vocabulary,
    break_vocabulary,
    change_value,
    change_value,
    change_value,
    change_corpus,
    change_format,
)


def forge_files(path: Path, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield the name of a change and the changed file, without end."""
    good = path.read_bytes()
    for number in range(10**9):
        rng = random.Random(f"{seed}/{number}")
        if rng.random() < 0.35:
            change = rng.choice(CORRUPTIONS)
            yield f"{change.__name__} {number}", change(rng, bytearray(good))
        elif rng.random() < 0.3:
            yield f"forge_header {number}", forge_header(rng, bytearray(good))
        else:
            alter = rng.choice(FORGERIES)
            tensors, document = read_tensors(path)
            alter(rng, tensors, document)
            yield f"{alter.__name__} {number}", b"".join(serialize_tensors(tensors, document))


@dataclass
class Counts:
    """How many files were read and rejected."""

    files: int = 0
    read: Counter[str] = field(default_factory=Counter)  # by command; harmless: a change of padding or of a weight
    rejected: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        each = ", ".join(
            f"{name}: {self.rejected[name]} rejected, {self.read[name]} harmless" for name in sorted(self.rejected)
        )
        return f"{self.files} files; {each}"


class ForgedFiles:
    """A good run, and the commands that read its files after they were changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpus = folder / "little.txt"
        self.corpus.write_text(ENGLISH[:700], "utf-8")
        small = ("--hidden", 6, "--set", "model.embedding=3", "--batch-size", 2, "--seq-len", 8, "--epochs", 1)
        self.training = (*small, "--device", "cpu", "--no-samples", "-q")
        made = charlstm("train", self.corpus, "-o", folder / "good", *self.training)
        assert made.code == 0, made.err
        self.file = folder / "file.safetensors"

    def campaign(self, files: int, seed: int = 1) -> Counts:
        """Read this many changed files. Raises AssertionError if a command neither reads nor properly rejects one."""
        counts = Counts()
        models, states = (forge_files(self.folder / "good" / name, seed) for name in (BEST, STATE))
        with limit_resources():
            for number in range(files):
                if number % 3:
                    case, data = next(models)
                    self.check_model(case, data, counts)
                else:
                    case, data = next(states)
                    self.check_state(case, data, counts)
                counts.files += 1
        return counts

    def check_model(self, case: str, data: bytes, counts: Counts) -> None:
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
            before = self.list_files()
            result = self.check(f"{name} {case}", run_limited(*command))
            counts.rejected[name] += result.code != 0
            counts.read[name] += result.code == 0
            if name == "--init-from" and result.code == 0:
                shutil.rmtree(self.folder / "new")
            assert self.list_files() == before, f"{name} {case} wrote something"

    def check_state(self, case: str, data: bytes, counts: Counts) -> None:
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.folder / "good", run)
        (run / STATE).write_bytes(data)
        before = self.list_files()
        result = self.check(f"--resume {case}", run_limited("train", "--resume", "-o", run, "-q"))
        counts.rejected["--resume"] += result.code != 0
        counts.read["--resume"] += result.code == 0
        if result.code:
            assert self.list_files() == before, f"--resume {case} wrote something"

    def check(self, case: str, result: Result) -> Result:
        """Assert that a file was read, or rejected by an error of one line."""
        lines = [line for line in result.err.splitlines() if line.startswith("charlstm: ")]
        assert result.code in (0, 1, 2), (case, result.err)
        assert "Traceback" not in result.err, (case, result.err)
        assert "internal error" not in result.err, (case, result.err)
        assert "memory" not in result.err, (case, result.err)
        assert all(c.isprintable() or c == "\n" for c in result.err), (case, result.err)
        if result.code:
            assert len(lines) == 1, (case, result.err)
            assert len(lines[0]) < 6000, (case, result.err)
        if result.code == 2:  # an intact model that does not fit the settings
            assert "--init-from" in case, (case, result.err)
        return result

    def list_files(self) -> dict[str, tuple[int, int]]:
        """Return size and time of modification of every file."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path): ((stat := path.stat()).st_size, stat.st_mtime_ns) for path in found}


def run_limited(*command: object) -> Result:
    """Run a command line with a limit on its CPU time."""
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_SECONDS)
    try:
        return charlstm(*command)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@contextmanager
def limit_resources() -> Iterator[None]:
    """Limit the memory of the process during the block, and let `run_limited` limit CPU time."""

    def hangs(number: int, frame: FrameType | None) -> None:
        raise AssertionError("the command hangs")

    before, limits = signal.signal(signal.SIGVTALRM, hangs), resource.getrlimit(resource.RLIMIT_AS)
    if STATM.exists():
        pages = int(STATM.read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MAX_MEMORY, limits[1]))
    try:
        yield
    finally:
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
