"""The journal of a search, which its processes share."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.pruners import MedianPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from charlstm.errors import CharlstmError
from charlstm.storage.files import write_error
from charlstm.storage.locate import SEARCH_JOURNAL
from charlstm.storage.lock import ProcessLock

JOURNAL_LOCK = "journal.lock"

MIN_TRIALS_TO_PRUNE = 4
"""Trials that must be done before others are compared with them and pruned."""


def open_study(folder: Path) -> optuna.Study:
    """Open or create the study in a folder. Raises CharlstmError."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = folder / SEARCH_JOURNAL
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal), JournalLock(folder / JOURNAL_LOCK)))
        pruner = MedianPruner(n_startup_trials=MIN_TRIALS_TO_PRUNE)
        return optuna.create_study(storage=storage, study_name="charlstm", pruner=pruner, load_if_exists=True)
    except OSError as error:
        raise write_error(folder, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CharlstmError(
            f"{journal} is damaged, or not the journal of a search", "name another folder with -o"
        ) from error


class JournalLock(JournalFileOpenLock):
    """A lock of Optuna's journal that ends with its process. Optuna's own locks stay when a process is killed."""

    def __init__(self, path: Path) -> None:
        self.lock = ProcessLock(path)

    def acquire(self) -> bool:
        self.lock.acquire(wait=True)
        return True

    def release(self) -> None:
        self.lock.release()
