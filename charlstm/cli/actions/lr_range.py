"""`charlstm train --find-lr`: a learning-rate range test, its curve and the rate it suggests."""

from __future__ import annotations

from contextlib import closing

from charlstm.cli.chart import Line, draw_chart
from charlstm.cli.display import note_compilation
from charlstm.cli.output import write_json
from charlstm.cli.ticks import choose_decade_ticks
from charlstm.config import Config
from charlstm.console import Console
from charlstm.data.corpus import Corpus
from charlstm.runtime import retain_freed_memory


def run_lr_range_test(console: Console, corpus: Corpus, config: Config, *, as_json: bool) -> int:
    """Draw the loss over the learning rate on stderr and write the suggested rate. Returns the exit status.

    Raises CharlstmError as training does, and where no rate makes the loss fall.
    """
    retain_freed_memory()
    from charlstm.training.lr_range_test import run_range_test, suggest_rate
    from charlstm.training.trainer import Trainer

    curve = []
    note_compilation(console, config)
    with closing(Trainer(corpus, config)) as trainer:
        console.note(f"testing learning rates on {trainer.describe_device()}; nothing is saved")
        with console.progress() as bar:
            for point in run_range_test(trainer):
                curve.append(point)
                bar.update(point.fraction_done, f"learning rate {point.learning_rate:.2g}  loss {point.loss_nats:.3f}")
    rate = suggest_rate(curve)
    console.note("smoothed loss in nats/char over the learning rate:")
    console.note(
        "\n".join(
            draw_chart(
                [Line([point.learning_rate for point in curve], [point.loss_nats for point in curve])],
                console.width(console.stderr),
                choose_decade_ticks,
                log_x=True,
                arrow=(rate, f"{rate:.2g}"),
            )
        )
    )
    if as_json:
        write_json(console, {"lr": float(f"{rate:.2g}")})
    else:
        console.write(f"{rate:.2g}\n".encode())
    return 0
