"""`charlstm train --find-lr`: what a learning-rate range test shows, and the rate it proposes."""

from __future__ import annotations

from charlstm.cli.chart import chart
from charlstm.config import Config
from charlstm.console import Console
from charlstm.data.corpus import Corpus
from charlstm.runtime import configure_process


def show_range_test(console: Console, corpus: Corpus, config: Config) -> int:
    """Draws the loss over the learning rate and prints a rate to train with. Gives the exit status.

    Raises CharlstmError as training does, and where no rate makes the loss fall.
    """
    configure_process()
    from charlstm.training.lr_range_test import run_range_test, suggest_rate
    from charlstm.training.trainer import Trainer

    trainer = Trainer(corpus, config)
    console.note(f"trying learning rates on {trainer.device}; nothing is saved")
    curve = []
    with console.progress() as bar:
        for tried in run_range_test(trainer):
            curve.append(tried)
            bar.update(tried.fraction_done, f"learning rate {tried.rate:.2g}  loss {tried.loss_nats:.3f}")
    rate = suggest_rate(curve)
    console.note("loss in nats/char, smoothed, over the learning rate:")
    console.note("\n".join(chart([(tried.rate, tried.loss_nats) for tried in curve], rate, console.width)))
    console.write(f"{rate:.2g}\n".encode())
    return 0
