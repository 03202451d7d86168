"""Count the random starts after which a model is lost: it predicts a text far worse than if it had read it from its
beginning.

    python benchmarks/random_starts.py corpus.txt [--seconds 30] [--cells lstm gru] [--segment-len 4096]

Trains a model of each cell at its default size. Then it reads the validation part from 1,000 random places, from the
initial state, with and without BOS in front. A start is lost if characters 100 to 300 after it cost over one nat more
than in a reading from the beginning. Also prints the mean loss of these characters in both.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from charlstm.config import CELL_NAMES, Config, DataConfig, ModelConfig, TrainingConfig
from charlstm.data.corpus import read_corpus
from charlstm.evaluation.forward import evaluation_mode
from charlstm.evaluation.streams import MAX_CHUNK_LOGITS, MAX_CHUNK_STEPS
from charlstm.model.language_model import LanguageModel
from charlstm.training.schedule import learning_rate
from charlstm.training.trainer import Trainer

STARTS = 1000
FIRST, LAST = 100, 300
MARGIN = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--cells", nargs="+", choices=CELL_NAMES, default=list(CELL_NAMES))
    parser.add_argument("--segment-len", type=int, default=TrainingConfig.segment_len)
    parser.add_argument("--split", type=float, default=0.9, help="share of the training part")
    arguments = parser.parse_args()
    print("| cell | lost of 1,000 | with BOS | nats/char from the beginning | from random places | with BOS |")
    print("| --- " * 6 + "|")
    for cell in arguments.cells:
        config = Config(
            ModelConfig(cell=cell),
            DataConfig(corpus=(str(arguments.corpus),), split=(arguments.split, 1 - arguments.split)),
            TrainingConfig(segment_len=arguments.segment_len, device="cpu"),
        )
        trainer = train(config, arguments.seconds)
        ids, bos = trainer.tokens.part("val").span(0, 50_000).astype(np.int64), trainer.vocabulary.bos
        assert isinstance(trainer.model, LanguageModel)
        with trainer.average.applied(), evaluation_mode(trainer.model), torch.inference_mode():
            whole = score(trainer.model, np.concatenate([[bos], ids])[:, None])[:, 0]
            starts = np.random.default_rng(1).integers(0, len(ids) - LAST - 1, STARTS)
            places = starts + np.arange(LAST + 1)[:, None]
            plain = score(trainer.model, ids[places])
            with_bos = score(trainer.model, np.concatenate([np.full((1, STARTS), bos), ids[places]]))[1:]
        own = whole[places[FIRST + 1 :]].mean(0)
        found = [losses[FIRST:].mean(0) for losses in (plain, with_bos)]
        lost = [int((losses > own + MARGIN).sum()) for losses in found]
        means = [own.mean(), *(losses.mean() for losses in found)]
        cells = (cell, *map(str, lost), *(f"{loss:.4f}" for loss in means))
        print("| " + " | ".join(cells) + " |", flush=True)
        trainer.close()


def train(config: Config, seconds: float) -> Trainer:
    """Return a trainer after this time, with a learning rate that has fallen to its last value."""
    trainer = Trainer(read_corpus(config.data), config)
    trainer.step(0.0)  # compiles and starts processes
    began = perf_counter()
    while (done := (perf_counter() - began) / seconds) < 1:
        trainer.step(learning_rate(config.training, done, 0))
    return trainer


def score(model: LanguageModel, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the losses of ids [T+1, B] after the first, read from the initial state, in nats [T, B]."""
    losses: list[torch.Tensor] = []
    states = model.initial_state(ids.shape[1])
    steps = int(min(max(MAX_CHUNK_LOGITS // (ids.shape[1] * model.head.out_features), 1), MAX_CHUNK_STEPS))
    for first in range(0, len(ids) - 1, steps):
        chunk = torch.from_numpy(ids[first : first + steps + 1])
        logits, states = model(chunk[:-1], states)
        losses.append(torch.nn.functional.cross_entropy(logits.transpose(1, 2), chunk[1:], reduction="none"))
    return torch.cat(losses).numpy()


if __name__ == "__main__":
    main()
