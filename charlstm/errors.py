"""The exceptions that charlstm raises, with their exit statuses."""


class CharlstmError(Exception):
    """A failure that the user can fix.

    message: what was wrong, in one sentence, with the value.
    hint: what to do about it, if anything is known.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(CharlstmError):
    """An argument, option, variable or config file that is invalid."""

    exit_code = 2


class NoRunError(UsageError):
    """No model and no run is named, and `./runs` has none."""


class DivergedError(CharlstmError):
    """The loss or the gradient is not finite."""

    exit_code = 3


class ModelFileError(CharlstmError):
    """A model file or training state that is damaged, incomplete or not supported."""


class MissingExtraError(CharlstmError):
    """A package is not installed, because the extra of charlstm that installs it is not.

    what: what needs the extra, as "serve needs Starlette and uvicorn".
    """

    def __init__(self, what: str, extra: str, error: ImportError) -> None:
        super().__init__(f"{what}, and {error.name} is not installed", f"pip install 'charlstm[{extra}]'")


class OutputClosedError(Exception):
    """The reader of stdout closed it, as `| head` does. The command ends without an error message."""


class ReportedError(CharlstmError):
    """An error that another of the processes that train together reports: this one only ends, with that exit status."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an exception means that memory ran out.

    On a CPU torch raises a plain RuntimeError, so its message decides.
    """
    message = str(error).lower()
    phrases = (
        "out of memory",
        "alloc_cpu",
        "can't allocate",
        "bad allocation",
        "bad_alloc",
        "could not create a memory",
    )
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in message for phrase in phrases)
    )
