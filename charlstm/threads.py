"""How torch's threads on a CPU wait for each other."""

from __future__ import annotations

import os

SPINS = "300"


def share_the_processor() -> None:
    """Makes a thread that waits give up its core soon. To be called before torch is first imported.

    A recurrent layer lets its threads meet hundreds of times a step. By default OpenMP (libgomp) has them spin, for
    300,000 turns, and as soon as any other program wants a core, the thread that is waited for is the one not
    running: on 2 cores, training beside one busy program fell from 33,000 characters/s to 700. Who sets
    OMP_WAIT_POLICY or GOMP_SPINCOUNT is left alone.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
