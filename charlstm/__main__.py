"""The `charlstm` command, also as `python -m charlstm`."""

import io
import os
import sys


def run() -> None:
    """Run the command line and exit with its status. Ctrl-C during the imports ends it without a traceback."""
    use_utf8()
    use_one_blas_thread()
    try:
        from charlstm.cli.app import main

        status = main()
    except KeyboardInterrupt:
        status = 130
    flush_streams()
    sys.exit(status)


def use_utf8() -> None:
    """Write UTF-8 with `\\n` at the ends of lines, whatever the locale, the code page or the system."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")


def use_one_blas_thread() -> None:
    """Make NumPy multiply matrices on one thread. Call it before the first import of NumPy.

    A character takes a dozen small products, and threads that share one wait for each other after each of them: next to
    another program, a model of 1x384 then wrote a fifth of its characters/s. Work that is worth more than one core is
    shared among processes.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def flush_streams() -> None:
    """Flush stdout and stderr. If one was closed, redirect it to /dev/null, or Python reports the error at exit."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    run()
