"""`python -m charlstm`."""

from charlstm.cli.app import run

run()
