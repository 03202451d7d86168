"""Measure the speed of reading a corpus, and the memory it takes.

    python benchmarks/corpus.py [FILE ...] [--rounds 5] [--large 2000]

For the bundled corpora, or each FILE, prints MB of UTF-8 per second on one core: for the first reading (decode, convert
line endings, hash, count), for the second reading (decode, look up the ids), and for comparison a Python loop that
looks up each character in a dictionary. With --large N, makes texts of 2 MB and N MB and prints the seconds until the
first training step, from the start of the process, and the peak memory of the process. The large text is trained on
twice: the second time its ids are in the cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time, time

from charlstm import presets
from charlstm.config import DataConfig
from charlstm.data.corpus import TextSurvey
from charlstm.data.documents import read_codes
from charlstm.data.text import CorpusReader
from charlstm.storage.spool import Spool

SIZE = 30_000_000
"""Bytes to read at least; a smaller text is repeated."""

FIRST_STEP = """
import resource, sys, time
import charlstm
from charlstm.config import Config, ModelConfig, TrainingConfig
from charlstm.training.events import Stepped
config = Config(ModelConfig(hidden=64), training=TrainingConfig(device="cpu", save_every=0))
for event in charlstm.train(sys.argv[1], config, sys.argv[3], overwrite=True):
    if isinstance(event, Stepped) and event.step == 1:
        seconds = time.time() - float(sys.argv[2])
    if isinstance(event, Stepped) and event.step == 200:
        break
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def measure_readings(data: bytes) -> tuple[float, float, float]:
    """Return the seconds of the first reading, the second reading and the dictionary loop."""
    start = process_time()
    survey = TextSurvey(DataConfig(corpus=("-",)))
    reader = CorpusReader(survey.config, Spool(data))
    for codes in read_codes(reader, survey.update_hash):
        survey.add(codes)
    vocabulary = survey.vocabulary()
    counted = process_time()
    for codes in read_codes(reader):
        vocabulary.lookup_or_unknown(codes)
    encoded = process_time()
    encode_with_dictionary(data)
    return counted - start, encoded - counted, process_time() - encoded


def encode_with_dictionary(data: bytes) -> list[int]:
    """Encode a text as most character-level programs do, for comparison."""
    text = data.decode()
    ids = {character: i for i, character in enumerate(sorted(set(text)))}
    return [ids[character] for character in text]


def measure_first_step(path: Path, folder: Path) -> tuple[float, float]:
    """Return the seconds until the first step, and the peak memory in MB after 200 steps."""
    environment = {**os.environ, "CHARLSTM_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FIRST_STEP, str(path), str(time()), str(folder / f"run-{path.stem}")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=0, metavar="MB")
    arguments = parser.parse_args()
    bundled = [presets.bundled_folder("corpora") / name for name in ("english.txt", "chinese.txt")]
    for path in arguments.files or bundled:
        data = path.read_bytes()
        data *= -(-SIZE // len(data))
        times = [median(side) for side in zip(*(measure_readings(data) for _ in range(arguments.rounds)), strict=True)]
        rates = [len(data) / 1e6 / seconds for seconds in times]
        both = len(data) / 1e6 / (times[0] + times[1])
        print(
            f"{path.name}: first reading {rates[0]:,.0f} MB/s, second {rates[1]:,.0f} MB/s, both {both:,.0f} MB/s; "
            f"dictionary loop {rates[2]:,.0f} MB/s",
            flush=True,
        )
    if arguments.large:
        with TemporaryDirectory() as name:
            folder = Path(name)
            text = bundled[0].read_bytes()
            for megabytes in (2, arguments.large):
                with (folder / f"{megabytes}.txt").open("wb") as file:
                    for _ in range(megabytes * 1_000_000 // len(text) + 1):
                        file.write(text)
            for label, megabytes in (("", 2), ("", arguments.large), (", again", arguments.large)):
                seconds, memory = measure_first_step(folder / f"{megabytes}.txt", folder)
                print(f"{megabytes:,} MB{label}: first step after {seconds:.1f} s, {memory:,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
