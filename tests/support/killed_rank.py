"""`charlstm` as a rank that is killed at a chosen moment: torchrun ... -m tests.support.killed_rank SEED KILLS LOG ...

In each of the first KILLS lives of the ranks, one of them ends itself with SIGKILL: while it starts, meets the others,
takes a step, saves or validates, in turn. LOG gets a line for each kill. The other arguments are those of `charlstm`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from charlstm.cli.actions import train
from charlstm.cli.app import main
from charlstm.model import ranks
from charlstm.storage import state
from charlstm.training import trainer
from charlstm.training.shards import ShardedGradient

MOMENTS: dict[str, tuple[Any, str, int]] = {
    "start": (train, "read_with_progress", 1),
    "rendezvous": (ranks, "agree_on_attempt", 1),
    "step": (ShardedGradient, "compute", 150),
    "save": (state, "write_tensors", 4),
    "validation": (trainer, "evaluate", 4),
}
"""Where the rank is killed: a function, and how often it may be called at most until then."""


def arm(life: int, seed: str, log: Path) -> None:
    """Patch the function at which this rank is killed in this life, if it is the victim."""
    random = Random(f"{seed} {life}")
    moment = list(MOMENTS)[life % len(MOMENTS)]
    victim = 0 if moment == "save" else random.randrange(int(os.environ["WORLD_SIZE"]))  # only the first one saves
    owner, name, most = MOMENTS[moment]
    fatal, before = random.randint(1, most), random.random() < 0.5
    if int(os.environ["RANK"]) != victim:
        return
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def end(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == fatal and before:
            kill()
        result = original(*arguments, **options)
        if calls == fatal:
            kill()
        return result

    def kill() -> None:
        with log.open("a") as file:
            file.write(f"{moment}\n")
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, end)


if __name__ == "__main__":
    seed, kills, log, *arguments = sys.argv[1:]
    life = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if life < int(kills):
        arm(life, seed, Path(log))
    sys.exit(main(arguments))
