"""What saving costs: the seconds for which training stands still, beside the time between two saves.

    python benchmarks/saving.py [--preset small] [--saves 10] [--folder DIR] [--json]

A model of the preset is trained for some steps, so that the optimizer has its moments, and saved again and again to a
folder on the disk in question: in the background, as once a minute, and at once with the best model too, as at a
validation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from charlstm import presets
from charlstm.data.corpus import read_corpus
from charlstm.settings import Setting, resolve
from charlstm.storage.locate import LAST, STATE
from charlstm.storage.run import RunFolder
from charlstm.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="*", default=["demo", "small", "medium", "large"])
    parser.add_argument("--saves", type=int, default=10)
    parser.add_argument("--folder", help="(default: a temporary one)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.json:
        print(
            f"{'preset':8} {'to write':>9} {'stands still':>13} {'of a minute':>12} {'written in':>11} "
            f"{'at a validation':>16}"
        )
    for name in arguments.preset:
        figures = measured(name, arguments.saves, arguments.folder)
        if arguments.json:
            print(json.dumps({"preset": name, **figures}))
        else:
            print(
                f"{name:8} {figures['bytes'] / 1e6:6.1f} MB {1e3 * figures['still_seconds']:10.1f} ms "
                f"{figures['share']:12.3%} {figures['written_seconds']:9.2f} s {figures['validation_seconds']:14.2f} s",
                flush=True,
            )


def measured(preset: str, saves: int, folder: str | None) -> dict[str, float]:
    """Bytes and median seconds of a save, and what share of the time between two by default it stops training for."""
    config = resolve(
        presets.load_preset(preset) | {"data.corpus": Setting((str(presets.bundled_corpus()),), "the benchmark")}
    )
    trainer = Trainer(read_corpus(config.data), config)
    for _ in range(3):
        trainer.step(1e-3)
    still, written, validation = [], [], []
    with tempfile.TemporaryDirectory(dir=folder) as path:
        run = RunFolder(Path(path))
        for _ in range(saves + 1):
            began = perf_counter()
            run.save_in_background(trainer.model_file({}), trainer.state_dict())
            still.append(perf_counter() - began)
            run.wait_for_save()
            written.append(run.save_seconds)
            began = perf_counter()
            run.save(trainer.model_file({}), trainer.state_dict(), best=True)
            run.mark_good()
            validation.append(perf_counter() - began)
        size = sum((run.path / name).stat().st_size for name in (LAST, STATE))
    return {
        "bytes": size,
        "still_seconds": median(still[1:]),
        "share": median(still[1:]) / config.training.save_every,
        "written_seconds": median(written[1:]),
        "validation_seconds": median(validation[1:]),
    }


if __name__ == "__main__":
    main()
