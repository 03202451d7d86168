"""The journal of a search, which its processes share."""

from __future__ import annotations

from math import inf
from pathlib import Path

import optuna
from optuna.pruners import BasePruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study
from optuna.trial import FrozenTrial

from charlstm.errors import CharlstmError
from charlstm.storage.files import write_error
from charlstm.storage.locate import SEARCH_JOURNAL
from charlstm.storage.lock import ProcessLock

JOURNAL_LOCK = "journal.lock"

ALLOWED_DISTANCE = {1: 0.06, 2: 0.05, 3: 0.035, 4: 0.025}
"""How far a trial may be behind the best at the same fifth of the time: a share of the loss of that one.

In two searches without pruning (20 trials of 30 seconds, English and Chinese), the best five trials at the end had been
at most 0.048, 0.043, 0.030 and 0.024 behind, and the best one 0.0 to 0.003.
"""


class DistancePruner(BasePruner):
    """Prunes the trials that are far behind the best one at the same share of their time."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether this trial is too far behind to be among the best at its end."""
        rung = trial.last_step
        if rung not in ALLOWED_DISTANCE:
            return False
        losses = [other.intermediate_values.get(rung, inf) for other in study.get_trials(deepcopy=False)]
        return trial.intermediate_values[rung] > min(losses) * (1 + ALLOWED_DISTANCE[rung])


def open_study(folder: Path) -> optuna.Study:
    """Open or create the study in a folder. Raises CharlstmError."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = folder / SEARCH_JOURNAL
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal), JournalLock(folder / JOURNAL_LOCK)))
        return optuna.create_study(storage=storage, study_name="charlstm", pruner=DistancePruner(), load_if_exists=True)
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
