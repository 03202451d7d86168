"""The `charlstm` command, also as `python -m charlstm`."""

import sys


def run() -> None:
    """Runs the command line; Ctrl-C is quiet even while modules are still being imported."""
    try:
        from charlstm.cli.app import main

        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    run()
