"""Measure how long the segments of the training text should be, and whether the state is carried into the next one.

    python benchmarks/segments.py long.txt [--seeds 1] [--passes 0.02 1 5 40] [--lengths 0 1024 4096] [--jobs 2]

Every run reads as many characters: of a long text a small share, of a short one the same text many times. The first
line of a group of runs is the text in order (length 0), and "carried" means that a segment starts with the state that
the one before it left. With `--at-documents` every segment begins at the start of the nearest document, if that is less
than half a segment away. The loss is that of pieces from all over the text, which are not trained on, in nats per
character.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from charlstm.config import Config, DataConfig, ModelConfig, TrainingConfig
from charlstm.data.batches import Batches, Window
from charlstm.data.corpus import Corpus
from charlstm.data.split import Tokens
from charlstm.training.schedule import learning_rate
from charlstm.training.trainer import Trainer

VALIDATION, PIECES = 200_000, 50
"""Characters of the validation part, and the number of places they are from."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--passes", type=float, nargs="+", default=[0.02, 1, 5, 40])
    parser.add_argument("--lengths", type=int, nargs="+", default=[0, 1024, 4096, 16384, 65536])
    parser.add_argument("--characters", type=float, default=2e6, help="characters that a run reads")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--document", default="stream")
    parser.add_argument("--at-documents", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one core")
    arguments = parser.parse_args()
    print("| passes | segment | carried | nats/char | standard deviation |")
    print("| --- | --- | --- | --- | --- |")
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        text = (arguments.corpus, arguments.characters, arguments.hidden, arguments.document, arguments.at_documents)
        measure_seed = partial(measure, *text)
        rows = [
            (passes, length, carried)
            for passes, length, carried in product(arguments.passes, arguments.lengths, (False, True))
            if length or not carried
        ]
        runs = {row: [pool.submit(measure_seed, *row, seed) for seed in arguments.seeds] for row in rows}
        for (passes, length, carried), found in runs.items():
            losses = [run.result() for run in found]
            deviation = f"{stdev(losses):.4f}" if len(losses) > 1 else ""
            cells = (f"{passes:g}", f"{length:,}", "yes" if carried else "no", f"{mean(losses):.4f}", deviation)
            print("| " + " | ".join(cells) + " |", flush=True)


def measure(
    path: Path,
    characters: float,
    hidden: int,
    document: str,
    at_documents: bool,
    passes: float,
    length: int,
    carried: bool,
    seed: int,
) -> float:
    """Train on one core, and return the validation loss."""
    config = Config(
        ModelConfig(hidden=hidden),
        DataConfig(corpus=(str(path),), document=document),
        TrainingConfig(segment_len=length, seed=seed, threads=1, device="cpu"),
    )
    steps = round(characters / (config.training.batch_size * config.training.seq_len))
    with (
        patch.object(Batches, "at_segment_start", property(at_epoch_start)) if carried else nullcontext(),
        patch.object(Batches, "next_window", next_window_at_documents) if at_documents else nullcontext(),
    ):
        trainer = Trainer(cut(path, round(characters / passes), config), with_validation(config, characters / passes))
        for step in range(steps):
            trainer.step(learning_rate(config.training, step / steps, 0))
    with trainer.average.applied():
        metrics = trainer.evaluate_part("val", 0)
    assert metrics is not None
    return metrics.loss_nats


def at_epoch_start(batches: Batches) -> bool:
    return batches.step == 0


def next_window_at_documents(batches: Batches) -> Window:
    """Do as `Batches.next_window`, with the segments moved to the starts of documents: their last symbol is the end."""
    segment, window = divmod(batches.step, batches.segment_windows)
    length, end = len(batches.tokens), batches.tokens.ids.max()
    distance = (length - 1) // batches.order.size
    places = (batches.offset + batches.order[segment] * distance) % length
    starts = find_symbol(batches.tokens, int(end))
    after = np.searchsorted(starts, places)
    nearest = np.stack([starts[(after - 1) % len(starts)], starts[after % len(starts)]])
    moves = (nearest - places + length // 2) % length - length // 2
    move = np.take_along_axis(moves, np.abs(moves).argmin(0)[None], 0)[0]
    first = places + np.where(np.abs(move) <= distance // 2, move, 0) + window * batches.seq_len
    ids = batches.tokens[(first + np.arange(batches.seq_len + 1)[:, None]) % length].astype(np.int64)
    batches.advance()
    return ids


@cache
def find_symbol(tokens: Tokens, symbol: int) -> NDArray[np.int64]:
    return np.flatnonzero(tokens.span(0, len(tokens)) == symbol)


def cut(path: Path, length: int, config: Config) -> Corpus:
    """Return about `length` characters from the middle of the text, from which the validation part was taken out.

    A long text is not the same everywhere, so the validation part is pieces from all over it, put at the end.
    """
    text = path.read_text("utf-8")
    start, whole = max((len(text) - length - VALIDATION) // 2, 0), length + VALIDATION
    text = text[start : start + whole]
    piece, distance = VALIDATION // PIECES, len(text) // PIECES
    parts = [text[k * distance : (k + 1) * distance] for k in range(PIECES)]
    kept, taken = "".join(part[:-piece] for part in parts), "".join(part[-piece:] for part in parts)
    return Corpus.from_text(kept + taken, config.data)


def with_validation(config: Config, length: float) -> Config:
    share = VALIDATION / (length + VALIDATION)
    return replace(config, data=replace(config.data, split=(1 - share, share)))


if __name__ == "__main__":
    main()
