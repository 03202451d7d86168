"""Milliseconds from a key to the first ghost text of `charlstm write`, on a terminal.

    python benchmarks/writing.py [--cell lstm] [--layers 2] [--hidden 512] [--keys 60] [--size 80x24] [--megabytes 0]

The model has random weights. A key is written to a pseudo-terminal, and the time until the first dimmed text comes back
is taken: reading the key, the edit, the steps of the network, and drawing. What a terminal emulator needs to show it is
not part of it. `type` types characters that are not the ghost text, `backspace` removes them, `accept` presses Right,
`candidate` presses Down. With --megabytes the text is that long.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, perf_counter, sleep

import numpy as np

from charlstm.architecture import weight_shapes
from charlstm.config import Config, ModelConfig
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import CharVocabulary

CHARACTERS = "\n !',.?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
DIM = b"\x1b[0;2m"
RIGHT, DOWN = b"\x1b[C", b"\x1b[B"
PAUSE = 0.3
"""Seconds between two keys, in which the ghost text is completed."""

TIMEOUT = 5.0


def save_random_model(path: Path, cell: str, layers: int, hidden: int) -> None:
    vocabulary = CharVocabulary("".join(sorted(CHARACTERS)))
    config = Config(ModelConfig(cell=cell, layers=layers, hidden=hidden))
    random = np.random.default_rng(0)
    shapes = weight_shapes(config.model, vocabulary.size)
    weights = {name: random.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    ModelFile(config, vocabulary, weights).save(path)


@contextmanager
def editor(folder: Path, columns: int, rows: int) -> Iterator[int]:
    """Run the editor on a terminal of this size, and yield the other side of it."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    command = [sys.executable, "-m", "charlstm", "write", "text.txt", "-m", "model.safetensors", "--seed", "1"]
    environ = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, cwd=folder, env=environ, stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    )
    os.close(follower)
    try:
        if not read_until(leader, DIM, 60.0):
            sys.exit("no ghost text appeared")
        yield leader
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def read_until(terminal: int, wanted: bytes, seconds: float) -> bool:
    """Read the terminal's output until some bytes appear. Returns whether they did in time."""
    shown, end = b"", monotonic() + seconds
    while wanted not in shown:
        if monotonic() > end:
            return False
        if select.select([terminal], [], [], 0.01)[0]:
            try:
                shown += os.read(terminal, 1 << 16)
            except OSError:  # Linux reports the end of a terminal as an error
                return False
    return True


def drain(terminal: int, seconds: float) -> None:
    """Read the terminal's output for some seconds."""
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            os.read(terminal, 1 << 16)


def time_keys(terminal: int, keys: Sequence[bytes]) -> list[float]:
    """Return the milliseconds from each key to the first ghost text."""
    times = []
    for key in keys:
        drain(terminal, PAUSE)
        start = perf_counter()
        os.write(terminal, key)
        if read_until(terminal, DIM, TIMEOUT):
            times.append(1000 * (perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--keys", type=int, default=60, help="keys of each kind")
    parser.add_argument("--size", default="80x24", help="columns and rows of the terminal")
    parser.add_argument("--megabytes", type=float, default=0.0, help="length of the text")
    arguments = parser.parse_args()
    columns, rows = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_random_model(folder / "model.safetensors", arguments.cell, arguments.layers, arguments.hidden)
        text = (Path(__file__).parent.parent / "corpora" / "english.txt").read_text("utf-8")[:100_000]
        count = int(arguments.megabytes * 1e6 / len(text)) + 1
        (folder / "text.txt").write_text(text * count if arguments.megabytes else text[:1500], "utf-8")
        with editor(folder, columns, rows) as terminal:
            sleep(1)
            typed = [b"XYZQ"[k % 4 : k % 4 + 1] for k in range(arguments.keys)]
            kinds = {
                "type": typed,
                "backspace": [b"\x7f"] * arguments.keys,
                "accept": [RIGHT] * arguments.keys,
                "candidate": [DOWN] * min(arguments.keys, 20),
            }
            size = (folder / "text.txt").stat().st_size
            print(f"{arguments.cell} {arguments.layers}x{arguments.hidden}, {arguments.size}, text of {size:,} bytes")
            print(f"{'key':10} {'median':>7} {'90 %':>7} {'most':>7}  ms to the first ghost text")
            for kind, keys in kinds.items():
                times = np.array(time_keys(terminal, keys))
                shown = "".join(f"{value:8.1f}" for value in (*np.quantile(times, [0.5, 0.9]), times.max()))
                print(f"{kind:10}{shown}  ({len(times)} of {len(keys)} keys)", flush=True)


if __name__ == "__main__":
    main()
