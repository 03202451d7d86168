"""`charlstm tune --storage`: searches on several machines that share a database."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from optuna.trial import TrialState

from charlstm.tuning import database
from charlstm.tuning.database import Database
from tests.support.command_line import assert_fails, charlstm

OPTIONS = ("--trials", 1, "--time", "1s", "--hidden", 16, "--layers", 1, "--threads", 1)


def search(corpus: Path, machine: str, url: str) -> str:
    """Run a trial in a folder that stands for another machine, and return its stderr."""
    done = charlstm("tune", corpus, *OPTIONS, "--storage", url, "-o", f"{machine}/search")
    assert done.code == 0, done.err
    assert done.text == f"{machine}/search/best.toml\n"
    return done.err


def check_shared_search(corpus: Path, url: str) -> None:
    assert "continuing" not in search(corpus, "one", url)
    second = search(corpus, "two", url)
    assert "continuing after 1 trial" in second
    assert Path("one/search/best.toml").exists()
    results = [Path(f"{machine}/search/best.toml").read_text() for machine in ("one", "two")]
    place = f"the model of the best trial is in {socket.gethostname()}:{Path('one/search').absolute()}"
    is_there = Path("two/search/best.safetensors").exists()
    assert is_there or place in second
    assert all("nats/char after 1s" in result for result in results)


@pytest.mark.slow
def test_searches_in_two_folders_share_a_database(corpus: Path) -> None:
    check_shared_search(corpus, f"sqlite:///{Path('search.db').absolute()}")


def test_the_trial_of_a_dead_process_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(database, "GRACE_SECONDS", 1)
    url = f"sqlite:///{tmp_path / 'search.db'}"
    dead = Database("search", url)
    with pytest.warns(UserWarning, match="Heartbeat"):
        trial = dead.study.ask()
    trial.suggest_float("training.lr", 0.001, 0.1)
    dead.record_life(trial.number)
    other = Database("search", url)
    other.retry_dead_trials()
    assert [each.state for each in other.study.trials] == [TrialState.RUNNING]
    time.sleep(2.1)
    other.retry_dead_trials()
    failed, again = other.study.trials
    assert (failed.state, again.state) == (TrialState.FAIL, TrialState.WAITING)
    assert again.system_attrs["fixed_params"] == trial.params
    dead.close()
    other.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "cannot open the database of --storage"),
        ("sqlite:////no/such/folder/x.db", "cannot open the database sqlite:////no/such/folder/x.db"),
        ("postgresql://me:secret@127.0.0.1:1/x", "cannot open the database postgresql://me:***@127.0.0.1:1/x"),
    ],
)
def test_a_database_that_cannot_be_opened_is_an_error_without_its_password(
    corpus: Path, url: str, message: str
) -> None:
    failed = charlstm("tune", corpus, *OPTIONS, "--storage", url, "-q")
    assert_fails(failed, 1, message)
    assert "secret" not in failed.err


def test_an_empty_address_is_a_usage_error(corpus: Path) -> None:
    assert_fails(charlstm("tune", corpus, *OPTIONS, "--storage", ""), 2, "--storage must not be empty")


@pytest.fixture
def postgres() -> Iterator[str]:
    """The address of a database of a PostgreSQL server, which does not run as root."""
    server = next(Path("/usr/lib/postgresql").glob("*/bin"))
    user = pwd.getpwnam("postgres").pw_name if os.getuid() == 0 else None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with TemporaryDirectory() as folder:  # not that of the test, which only its owner may enter
        if user:
            shutil.chown(folder, user)

        def run(program: str, *arguments: object) -> None:
            command = [str(server / program), *map(str, arguments)]
            subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)

        run("initdb", "-D", "data", "-A", "trust", "-U", "charlstm")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")
        try:
            run("createdb", "-h", "127.0.0.1", "-p", port, "-U", "charlstm", "search")
            yield f"postgresql://charlstm@127.0.0.1:{port}/search"
        finally:
            run("pg_ctl", "-D", "data", "-m", "immediate", "stop")


@pytest.mark.programs
def test_searches_share_a_postgresql_database(corpus: Path, postgres: str) -> None:
    check_shared_search(corpus, postgres)
