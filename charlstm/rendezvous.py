"""Where the processes of one training meet: what torchrun, or `train --processes`, has written to the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from charlstm.errors import UsageError

FILE_VARIABLE = "CHARLSTM_RENDEZVOUS"
"""The file in which the processes of `train --processes` meet. Those of torchrun meet at a network address."""

ADDRESS_VARIABLES = ("MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Rendezvous:
    """The place of this process among those that train together."""

    rank: int
    """From 0 to size - 1; the first one writes the files and to the terminal."""
    size: int
    local_rank: int
    """Its number among those on the same machine, which is that of its GPU."""
    restarts: int
    """How often torchrun has restarted the processes."""
    file: str
    """The file in which they meet; empty: at the network address in the environment."""
    address: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Rendezvous | None:
        """Return the place of this process; None if it trains alone. Raises UsageError for impossible values."""
        file = environ.get(FILE_VARIABLE, "")
        meets = file or all(environ.get(name) for name in ADDRESS_VARIABLES)
        if not (meets and environ.get("RANK") and environ.get("WORLD_SIZE")):
            return None
        rank, size = read_number(environ, "RANK"), read_number(environ, "WORLD_SIZE")
        local_rank = read_number(environ, "LOCAL_RANK", rank)
        if not rank < size:
            raise UsageError(f"the environment has RANK {rank} and WORLD_SIZE {size}", "torchrun sets them")
        restarts = read_number(environ, "TORCHELASTIC_RESTART_COUNT", 0)
        address = ":".join(environ.get(name, "") for name in ADDRESS_VARIABLES)
        return cls(rank, size, local_rank, restarts, file, address)


def read_number(environ: Mapping[str, str], name: str, default: int = 0) -> int:
    value = environ.get(name) or str(default)
    if not (value.isascii() and value.isdecimal()):
        raise UsageError(f"the environment has {name} {value!r}, which is not a number", "torchrun sets it")
    return int(value)
