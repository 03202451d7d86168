"""The cost of saving: how long training waits for a save, as a share of the time between two saves.

    python benchmarks/saving.py [--preset small] [--saves 10] [--folder DIR] [--json]

Trains a model of each preset for some steps, so that the optimizer has its moments, and saves it repeatedly to a folder
on the disk to measure: in the background, as once per minute, and in the foreground with the best model, as at a
validation. Reports medians.
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
    parser.add_argument("--saves", type=int, default=10, help="saves per preset (default 10)")
    parser.add_argument("--folder", help="folder on the disk to measure (default: the one for temporary files)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.json:
        print(f"{'preset':8} {'size':>9} {'waits':>13} {'of a minute':>12} {'written in':>11} {'at a validation':>16}")
    for name in arguments.preset:
        record = measure_saving(name, arguments.saves, arguments.folder)
        if arguments.json:
            print(json.dumps({"preset": name, **record}))
        else:
            print(
                f"{name:8} {record['bytes'] / 1e6:6.1f} MB {1e3 * record['waiting_seconds']:10.1f} ms "
                f"{record['share']:12.3%} {record['written_seconds']:9.2f} s {record['validation_seconds']:14.2f} s",
                flush=True,
            )


def measure_saving(preset: str, saves: int, folder: str | None) -> dict[str, float]:
    """Return the bytes and median seconds of a save, and the share of `training.save_every` that training waits."""
    config = resolve(
        presets.load_preset(preset) | {"data.corpus": Setting((str(presets.bundled_corpus()),), "the benchmark")}
    )
    trainer = Trainer(read_corpus(config.data), config)
    for _ in range(3):
        trainer.step(1e-3)
    waiting, written, validation = [], [], []
    with tempfile.TemporaryDirectory(dir=folder) as path:
        run = RunFolder(Path(path))
        for _ in range(saves + 1):
            began = perf_counter()
            run.save_in_background(trainer.model_file({}), trainer.state_dict())
            waiting.append(perf_counter() - began)
            run.wait_for_save()
            written.append(run.save_seconds)
            began = perf_counter()
            run.save(trainer.model_file({}), trainer.state_dict(), best=True)
            run.mark_good()
            validation.append(perf_counter() - began)
        size = sum((run.path / name).stat().st_size for name in (LAST, STATE))
    return {
        "bytes": size,
        "waiting_seconds": median(waiting[1:]),
        "share": median(waiting[1:]) / config.training.save_every,
        "written_seconds": median(written[1:]),
        "validation_seconds": median(validation[1:]),
    }


if __name__ == "__main__":
    main()
