"""Seconds and memory to find the copied runs of 20 samples of 500 characters in a text, and in 100 MB made from it.

    python benchmarks/novelty.py [CORPUS] [--megabytes 100] [--json]

The 100 MB are the text repeated, with one character in fifty changed. Without a corpus the text is words drawn at
random. Half of the samples are new (the text's characters, shuffled), half are pieces of the text. Memory is the growth
of the process's peak.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import perf_counter

import numpy as np

from charlstm.sampling.novelty import measure_novelty
from charlstm.vocabulary import Codes, code_points

CHUNK = 1_000_000
SAMPLES, LENGTH, PIECE = 20, 500, 25


def random_words(random: np.random.Generator) -> Codes:
    """Return a million characters that repeat themselves about as much as a language does."""
    words = ["".join(map(chr, random.integers(97, 123, random.integers(1, 10)))) for _ in range(5000)]
    shares = 1 / np.arange(1, len(words) + 1)
    return code_points(" ".join(random.choice(words, 170_000, p=shares / shares.sum())))


def samples_of(text: Codes, random: np.random.Generator) -> list[Codes]:
    new = [random.permutation(text)[:LENGTH] for _ in range(SAMPLES // 2)]
    starts = random.integers(len(text) - PIECE, size=(SAMPLES // 2, LENGTH // PIECE))
    return new + [np.concatenate([text[start : start + PIECE] for start in places]) for places in starts.tolist()]


def in_chunks(text: Codes) -> Iterator[Codes]:
    return (text[first : first + CHUNK] for first in range(0, len(text), CHUNK))


def repeated(text: Codes, megabytes: int, random: np.random.Generator) -> Iterator[Codes]:
    for first in range(0, megabytes * 1_000_000, CHUNK):
        chunk = np.take(text, np.arange(first, first + CHUNK), mode="wrap")
        places = random.integers(CHUNK, size=CHUNK // 50)
        chunk[places] = random.choice(text, len(places))
        yield chunk


def repeat_letter(length: int) -> Codes:
    """Return one character, repeated."""
    return np.full(length, ord("a"), np.uint32)


def measure(name: str, samples: list[Codes], text: Iterable[Codes], characters: int) -> dict[str, object]:
    before, start_time = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, perf_counter()
    found = measure_novelty(samples, text)
    elapsed = perf_counter() - start_time
    return {
        "text": name,
        "characters": characters,
        "seconds": round(elapsed, 2),
        "megabytes": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024),
        "longest": max(of.longest for of in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", type=Path)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    random = np.random.default_rng(1)
    text = code_points(arguments.corpus.read_text("utf-8")) if arguments.corpus else random_words(random)
    samples = samples_of(text, random)
    size = arguments.megabytes * 1_000_000
    rows = [
        measure("the text", samples, in_chunks(text), len(text)),
        measure("repeated with noise", samples, repeated(text, arguments.megabytes, random), size),
        measure("one character, repeated", [repeat_letter(LENGTH)] * SAMPLES, in_chunks(repeat_letter(CHUNK)), CHUNK),
    ]
    for result in rows:
        line = "{text:24}{characters:14,} characters{seconds:8} s{megabytes:6} MB  longest run {longest}"
        print(json.dumps(result) if arguments.json else line.format(**result))


if __name__ == "__main__":
    main()
