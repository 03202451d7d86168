"""Where the processes of one training meet: what torchrun, or `train --processes`, has written to the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from charlstm.errors import UsageError

FILE_VARIABLE = "CHARLSTM_RENDEZVOUS"
"""The file in which the processes of `train --processes` meet. Those of torchrun meet at a network address."""

START_VARIABLE = "CHARLSTM_STARTED_AT"
"""When `train --processes` was started, by `time.monotonic()`: a time limit counts from there."""

ADDRESS_VARIABLES = ("MASTER_ADDR", "MASTER_PORT")

MAX_PORT = 65535


@dataclass(frozen=True)
class Rendezvous:
    """The place of this process among those that train together."""

    rank: int
    """From 0 to size - 1; the first one writes the files and to the terminal."""
    size: int
    local_rank: int
    """Its number among those on the same machine, which is that of its GPU."""
    local_size: int
    """How many there are on this machine; 1 if that is unknown."""
    restarts: int
    """How often torchrun has restarted the processes."""
    file: str
    """The file in which they meet; empty: at the network address."""
    host: str
    port: int
    is_hosted: bool
    """Whether torchrun listens at that address; else the first rank does."""

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
        local_size = read_number(environ, "LOCAL_WORLD_SIZE", 1)
        restarts = read_number(environ, "TORCHELASTIC_RESTART_COUNT", 0)
        port = 0 if file else read_number(environ, "MASTER_PORT")
        if port > MAX_PORT:
            raise UsageError(f"the environment has MASTER_PORT {port}", f"the highest is {MAX_PORT}")
        is_hosted = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return cls(rank, size, local_rank, local_size, restarts, file, environ.get("MASTER_ADDR", ""), port, is_hosted)

    @property
    def place(self) -> str:
        """Where the processes meet, for an error message."""
        return f"in {self.file}" if self.file else f"at {self.host}:{self.port}"


def read_number(environ: Mapping[str, str], name: str, default: int = 0) -> int:
    value = environ.get(name) or str(default)
    if not (value.isascii() and value.isdecimal()):
        raise UsageError(f"the environment has {name} {value!r}, which is not a number", "torchrun sets it")
    return int(value)
