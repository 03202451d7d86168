"""The `charlstm` command, also as `python -m charlstm`."""

import os
import sys


def run() -> None:
    """Runs the command line; Ctrl-C is quiet even while modules are still being imported."""
    try:
        from charlstm.cli.app import main

        status = main()
    except KeyboardInterrupt:
        status = 130
    settle()
    sys.exit(status)


def settle() -> None:
    """Empties the streams now. What one of them no longer takes is dropped: Python would complain of it at exit."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    run()
