"""Characters per second of `charlstm serve` for one client and for many at once, and the time to the first ones.

    python benchmarks/serving.py [--clients 16] [--length 2000] [--rounds 5] [--layers 2] [--hidden 128] [--json]

The server is a process of its own, and so are the clients together. The weights are random. In each round, one client
asks for a text and then all do, each for as many characters, as streams. Medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from charlstm.config import Config, ModelConfig
from charlstm.model.language_model import LanguageModel
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import CharVocabulary

VOCABULARY = CharVocabulary("".join(chr(32 + i) for i in range(65)))


@dataclass(frozen=True)
class Reading:
    """How long the texts of some clients took."""

    characters: int
    seconds: float
    first_seconds: Sequence[float]

    @property
    def rate(self) -> float:
        return self.characters / self.seconds


def write_model(path: Path, layers: int, hidden: int) -> None:
    """Write a model of random weights."""
    config = ModelConfig(layers=layers, hidden=hidden)
    weights = LanguageModel(config, VOCABULARY.size, "torch").export_weights()
    ModelFile(Config(model=config), VOCABULARY, weights).save(path)


async def read_text(port: int, length: int, seed: int) -> tuple[int, float]:
    """Ask for a text. Return its characters and the seconds until the first ones."""
    started = perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"prompt": "THE ", "max_tokens": length, "seed": seed, "stream": True}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    characters, first = 0, 0.0
    async for line in reader:
        if line.startswith(b'data: {"'):
            characters += len(json.loads(line.removeprefix(b"data: "))["choices"][0]["text"])
            first = first or perf_counter() - started
    writer.close()
    return characters, first


async def read_texts(port: int, clients: int, length: int) -> Reading:
    started = perf_counter()
    texts = await asyncio.gather(*(read_text(port, length, seed) for seed in range(clients)))
    return Reading(sum(n for n, _ in texts), perf_counter() - started, [first for _, first in texts])


async def compare(port: int, clients: int, length: int, rounds: int) -> dict[str, float]:
    """Return the medians over the rounds."""
    await read_texts(port, clients, 200)
    one, many = [], []
    for _ in range(rounds):
        one.append(await read_texts(port, 1, length))
        many.append(await read_texts(port, clients, length))
    return {
        "one_client_chars_per_second": median(reading.rate for reading in one),
        "all_clients_chars_per_second": median(reading.rate for reading in many),
        "ratio": median(b.rate / a.rate for a, b in zip(one, many, strict=True)),
        "first_seconds_alone": median(reading.first_seconds[0] for reading in one),
        "first_seconds_of_all": median(max(reading.first_seconds) for reading in many),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("clients", 16), ("length", 2000), ("rounds", 5), ("layers", 2), ("hidden", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.safetensors"
        write_model(path, options.layers, options.hidden)
        command = [sys.executable, "-m", "charlstm", "serve", "-q", "--port", "0", "-m", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            port = int(server.stdout.readline().strip().rpartition(":")[2])
            found = asyncio.run(compare(port, options.clients, options.length, options.rounds))
            server.terminate()
    if options.json:
        print(json.dumps({"model": f"{options.layers}x{options.hidden}", "clients": options.clients, **found}))
        return
    for name, value in found.items():
        print(f"{name:32} {value:10.4g}")


if __name__ == "__main__":
    main()
