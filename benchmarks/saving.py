"""What saving costs: the seconds of a save beside the time between two of them.

    python benchmarks/saving.py [--preset small] [--saves 10] [--folder DIR] [--json]

A model of the preset is trained for some steps, so that the optimiser has its moments, and saved again and again to a
folder on the disk in question, as at a validation that is the best so far: the newest model, the best, the state.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from charlstm import presets
from charlstm.checkpoint import RunFolder
from charlstm.data.corpus import read_corpus
from charlstm.settings import Given, resolve
from charlstm.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="*", default=["demo", "small", "medium", "large"])
    parser.add_argument("--saves", type=int, default=10)
    parser.add_argument("--folder", help="(default: a temporary one)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.json:
        print(f"{'preset':10} {'saved':>9} {'a save':>9} {'worst':>9}   share of the default interval (worst)")
    for name in arguments.preset:
        figures = measured(name, arguments.saves, arguments.folder)
        if arguments.json:
            print(json.dumps({"preset": name, **figures}))
        else:
            print(
                f"{name:10} {figures['bytes'] / 1e6:6.1f} MB {figures['seconds'] * 1e3:6.0f} ms "
                f"{figures['worst_seconds'] * 1e3:6.0f} ms   {figures['share']:.2%} ({figures['worst_share']:.2%})",
                flush=True,
            )


def measured(preset: str, saves: int, folder: str | None) -> dict[str, float]:
    """Bytes and seconds of a save, and what share of the time between two by default that is."""
    config = resolve(presets.preset(preset) | {"data.corpus": Given((str(presets.corpus()),), "the benchmark")})
    trainer = Trainer(read_corpus(config.data), config)
    for _ in range(3):
        trainer.step(1e-3)
    with tempfile.TemporaryDirectory(dir=folder) as path:
        run = RunFolder(Path(path))
        times = []
        for _ in range(saves + 1):
            began = perf_counter()
            run.save(trainer.model_file({}), trainer.state_dict(), best=True)
            run.mark_good()
            times.append(perf_counter() - began)
        size = sum(file.stat().st_size for file in run.path.iterdir() if file.name != "good.safetensors")
    seconds, worst = median(times[1:]), max(times[1:])
    interval = config.training.save_every
    return {
        "bytes": size,
        "seconds": seconds,
        "worst_seconds": worst,
        "share": seconds / interval,
        "worst_share": worst / interval,
    }


if __name__ == "__main__":
    main()
