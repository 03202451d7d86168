"""A database that searches on several machines share, in the place of the journal in a folder."""

from __future__ import annotations

import warnings
from time import monotonic

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from charlstm.errors import CharlstmError
from charlstm.tuning.journal import DistancePruner

HEARTBEAT_SECONDS, GRACE_SECONDS = 20, 120
"""How often a process records that its trial still runs, and after how long a silent one counts as dead."""


class Database:
    """The study of a search in a database, and the signs of life of its trials.

    name: of the study.
    url: the address of the database, as SQLAlchemy has it: postgresql://user@host/name.

    Raises CharlstmError if the database cannot be opened.
    """

    def __init__(self, name: str, url: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.recorded_at = 0.0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna calls heartbeats experimental
                self.storage = RDBStorage(
                    url,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                    heartbeat_stale_trial_callback=retry_trial,
                )
            self.study = optuna.create_study(
                storage=self.storage, study_name=name, pruner=DistancePruner(), load_if_exists=True
            )
        except (ImportError, SQLAlchemyError, StorageInternalError) as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            hint = "install its driver: for PostgreSQL, pip install 'psycopg[binary]'"
            raise CharlstmError(
                f"cannot open the database {hide_password(url)}: {reason}",
                hint if isinstance(error, ImportError) else "",
            ) from error

    def record_life(self, number: int) -> None:
        """Record that this trial runs, unless that was done a moment ago."""
        if monotonic() - self.recorded_at < HEARTBEAT_SECONDS:
            return
        self.recorded_at = monotonic()
        study = self.storage.get_study_id_from_name(self.study.study_name)
        self.storage.record_heartbeat(self.storage.get_trial_id_from_study_id_trial_number(study, number))

    def retry_dead_trials(self) -> None:
        """Mark the trials of dead processes as failed, and enqueue them again."""
        self.recorded_at = 0.0  # the next trial is another one
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls it experimental
            fail_stale_trials(self.study)

    def close(self) -> None:
        """Close the connections."""
        self.storage.remove_session()
        self.storage.engine.dispose()


def retry_trial(study: Study, trial: FrozenTrial) -> None:
    """Enqueue the settings of a trial again."""
    study.enqueue_trial(trial.params, user_attrs=trial.user_attrs)


def hide_password(url: str) -> str:
    """Return the address of a database without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "of --storage"
