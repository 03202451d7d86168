"""What can go wrong, said in one sentence, with the exit status it ends in."""


class CharlstmError(Exception):
    """A failure that a user can act on.

    `message` is one sentence with the offending value in it; `hint` says what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(CharlstmError):
    """The command line, environment or a config file asks for something that cannot be."""

    exit_code = 2


class DivergedError(CharlstmError):
    """The loss or its gradient is no longer a finite number."""

    exit_code = 3


def is_out_of_memory(error: Exception) -> bool:
    """torch has no MemoryError of its own on a CPU, and one of another family on a GPU."""
    said = str(error).lower()
    words = ("out of memory", "alloc_cpu", "can't allocate", "bad allocation", "bad_alloc", "could not create a memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(word in said for word in words))


class OutputClosedError(Exception):
    """Nobody reads stdout any more, as after `| head`: a reason to end, not a failure."""


class ModelFileError(CharlstmError):
    """A file that should hold a model or a training state does not hold a whole one."""
