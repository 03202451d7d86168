"""Several ranks that train together: the same run, whatever their number."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charlstm.config import CELL_NAMES
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError, ReportedError, UsageError
from charlstm.model.ranks import Ranks
from charlstm.rendezvous import FILE_VARIABLE, Rendezvous
from charlstm.storage.run import RunFolder
from charlstm.storage.tensors import read_tensors
from charlstm.training.events import Event, Finished, RolledBack, Stepped, Validated
from charlstm.training.run import run_training
from charlstm.training.trainer import Trainer
from tests.support.ranks import run_ranks, try_ranks
from tests.support.texts import ENGLISH
from tests.support.training import CORPUS, make_config, stop_at

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the ranks are forks of the test")

RANDOM: dict[str, Any] = {
    "bigrams": 40,
    "dropout": 0.3,
    "zoneout": 0.1,
    "weight_dropout": 0.2,
    "embedding_dropout": 0.1,
    "activation_penalty": 1.0,
    "temporal_penalty": 1.0,
    "layers": 2,
}


def train_steps(
    ranks: Ranks, count: int, corpus: Corpus = CORPUS, double: bool = False, **settings: Any
) -> list[float]:
    """Return the losses of some steps of a batch of 8 streams; `double` computes in float64."""
    trainer = Trainer(corpus, make_config(batch_size=8, threads=1, ema=0.0, **settings), ranks)
    if double:
        trainer.model.double()
    return [trainer.step(2e-3) for _ in range(count)]


def compare(size: int, count: int, tolerance: float, accumulate: int = 1, **settings: Any) -> None:
    """Compare the losses of a run on one rank with those on more, or with the streams read in parts."""
    whole = train_steps(Ranks(), count, **settings)
    for losses in run_ranks(size, lambda ranks: train_steps(ranks, count, accumulate=accumulate, **settings)):
        np.testing.assert_allclose(losses, whole, rtol=0, atol=tolerance)


@pytest.mark.parametrize("cell", [pytest.param(cell, marks=pytest.mark.long) for cell in CELL_NAMES])
def test_the_losses_do_not_depend_on_the_number_of_ranks(cell: str) -> None:
    """In float64, where only rounding is left: 1e-10 after 200 steps, with every kind of random mask."""
    compare(2, 200, 1e-10, double=True, cell=cell, **RANDOM)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"bidirectional": True},
    {"dropout_mask": "window"},
    {"cell": "gru", "engine": "torch", "zoneout": 0.0},
]


@pytest.mark.long
@pytest.mark.parametrize("settings", VARIANTS, ids=str)
@pytest.mark.parametrize(("size", "accumulate"), [(1, 2), (2, 1), (2, 2), (4, 1), (4, 2)])
def test_the_streams_may_be_divided_among_ranks_and_in_time(
    settings: dict[str, Any], size: int, accumulate: int
) -> None:
    compare(size, 200, 1e-5, accumulate, **RANDOM | settings)


@pytest.mark.parametrize(("size", "accumulate"), [(2, 1), (4, 2)])
def test_a_few_steps_on_several_ranks_have_the_losses_of_one(size: int, accumulate: int) -> None:
    compare(size, 10, 1e-5, accumulate, **RANDOM)


def test_the_losses_on_documents_do_not_depend_on_the_number_of_ranks() -> None:
    text = Corpus.from_text(ENGLISH[:2500], replace(make_config().data, document="line"))
    compare(2, 30, 1e-5, corpus=text, **RANDOM | {"zoneout": 0.0})


def train(ranks: Ranks, folder: Path, last_step: int = 0, **options: Any) -> list[Event]:
    """Run a training, up to this step if it is not 0, and return its events."""
    watch, stop = stop_at(last_step or 10**9)
    config = make_config(batch_size=8, threads=1, **RANDOM | {"zoneout": 0.0})
    found: list[Event] = watch(run_training(CORPUS, config, RunFolder(folder), ranks=ranks, stop=stop, **options))
    return found


def end_of(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def weights(folder: Path) -> dict[str, Any]:
    return read_tensors(folder / "last.safetensors")[0]


def test_a_run_can_be_resumed_on_another_number_of_ranks(tmp_path: Path) -> None:
    train(Ranks(), tmp_path / "whole")
    train(Ranks(), tmp_path / "parts", last_step=13)
    run_ranks(2, lambda ranks: train(ranks, tmp_path / "parts", last_step=37, resume=True))
    train(Ranks(), tmp_path / "parts", resume=True)
    for name, value in weights(tmp_path / "whole").items():
        np.testing.assert_allclose(weights(tmp_path / "parts")[name], value, rtol=0, atol=1e-5)


def test_resuming_on_as_many_ranks_is_exact(tmp_path: Path) -> None:
    run_ranks(2, lambda ranks: train(ranks, tmp_path / "whole"))
    run_ranks(2, lambda ranks: train(ranks, tmp_path / "parts", last_step=13))
    run_ranks(2, lambda ranks: train(ranks, tmp_path / "parts", resume=True))
    for name, value in weights(tmp_path / "whole").items():
        np.testing.assert_array_equal(weights(tmp_path / "parts")[name], value)


def test_all_ranks_see_the_same_events_and_validations(tmp_path: Path) -> None:
    alone = train(Ranks(), tmp_path / "alone")
    first, second = run_ranks(2, lambda ranks: train(ranks, tmp_path / "two"))
    assert [type(event) for event in first] == [type(event) for event in second] == [type(event) for event in alone]
    validations = [[e.metrics for e in events if isinstance(e, Validated)] for events in (first, second, alone)]
    assert validations[0] == validations[1]
    for two, one in zip(validations[0], validations[2], strict=True):
        assert two.loss_nats == pytest.approx(one.loss_nats, abs=1e-5)


def test_a_request_to_any_rank_stops_all_on_the_same_step(tmp_path: Path) -> None:
    def stop_second(ranks: Ranks) -> list[Event]:
        return train(ranks, tmp_path / "run", last_step=13 if ranks.rank == 1 else 0)

    first, second = run_ranks(2, stop_second)
    assert end_of(first).reason == end_of(second).reason == "stopped"
    assert end_of(first).step == end_of(second).step
    assert RunFolder(tmp_path / "run").load_state()["progress"]["step"] == end_of(first).step


def test_a_time_limit_ends_all_ranks_on_the_same_step(tmp_path: Path) -> None:
    def run(ranks: Ranks) -> list[Event]:
        config = make_config(batch_size=8, threads=1, max_time=1.0, epochs=10**6)
        return list(run_training(CORPUS, config, RunFolder(tmp_path / "run"), ranks=ranks))

    first, second = run_ranks(2, run)
    assert end_of(first).reason == end_of(second).reason == "done"
    assert end_of(first).step == end_of(second).step > 10


def test_a_run_that_diverges_rolls_back_on_all_ranks(tmp_path: Path) -> None:
    def run(ranks: Ranks) -> list[Event]:
        config = make_config(batch_size=8, threads=1, lr=1e-2, validate_every=10)
        events = run_training(CORPUS, config, RunFolder(tmp_path / "run"), ranks=ranks)
        found = []
        for event in events:
            found.append(event)
            if isinstance(event, Stepped) and event.step == 25 and not any(isinstance(e, RolledBack) for e in found):
                spoil(events)
        return found

    def spoil(events: Any) -> None:
        """Make the weights of this rank useless; that of the other one follows from the sum of the gradients."""
        trainer = events.gi_frame.f_locals["trainer"]
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(float("nan"))

    first, second = run_ranks(2, run)
    assert [type(event) for event in first] == [type(event) for event in second]
    assert any(isinstance(event, RolledBack) for event in first)
    assert end_of(first).reason == "done"


def test_errors_of_the_first_rank_are_raised_by_all(tmp_path: Path) -> None:
    train(Ranks(), tmp_path / "run", last_step=3)
    first, second = try_ranks(2, lambda ranks: train(ranks, tmp_path / "run"))
    assert isinstance(first, UsageError)
    assert isinstance(second, ReportedError)
    assert "already holds a run" in str(first)
    assert (first.exit_code, second.exit_code) == (2, 2)


def test_ranks_with_different_settings_or_texts_end(tmp_path: Path) -> None:
    def other_settings(ranks: Ranks) -> list[Event]:
        config = make_config(batch_size=8, threads=1, lr=1e-3 * (1 + ranks.rank))
        return list(run_training(CORPUS, config, RunFolder(tmp_path / "run"), ranks=ranks))

    def other_text(ranks: Ranks) -> list[Event]:
        text = Corpus.from_text(ENGLISH[ranks.rank : 2500])
        return list(run_training(text, make_config(batch_size=8), RunFolder(tmp_path / "run"), ranks=ranks))

    for function, what in ((other_settings, "training.lr"), (other_text, "the corpus")):
        first, second = try_ranks(2, function)
        assert isinstance(second, ReportedError)
        assert f"{what} of rank 1 is not that of rank 0" in str(first)
    assert not (tmp_path / "run").exists()


def test_weights_that_differ_between_ranks_end_the_run(tmp_path: Path) -> None:
    def run(ranks: Ranks) -> list[Event]:
        config = make_config(batch_size=8, threads=1)
        events: Any = run_training(CORPUS, config, RunFolder(tmp_path / "run"), ranks=ranks)
        for event in events:
            if isinstance(event, Stepped) and event.step == 5 and ranks.rank:
                with torch.no_grad():
                    next(events.gi_frame.f_locals["trainer"].model.parameters())[0, 0] += 1e-3
        return []

    first, _ = try_ranks(2, run)
    assert "of rank 1 is not that of rank 0" in str(first)


def test_streams_that_cannot_be_divided_are_an_error(tmp_path: Path) -> None:
    def run(ranks: Ranks) -> list[Event]:
        return list(run_training(CORPUS, make_config(batch_size=8), RunFolder(tmp_path / "run"), ranks=ranks))

    first, *others = try_ranks(3, run)
    assert isinstance(first, UsageError)
    assert str(first) == "--batch-size 8 cannot be divided evenly among 3 processes; 6 can"
    assert all(isinstance(error, ReportedError) for error in others)


def test_a_rank_whose_peer_has_ended_says_so(tmp_path: Path) -> None:
    def run(ranks: Ranks) -> list[Event]:
        events = run_training(CORPUS, make_config(batch_size=8), RunFolder(tmp_path / "run"), ranks=ranks)
        for event in events:
            if isinstance(event, Stepped) and event.step == 5 and ranks.rank:
                raise ValueError("this rank fails")
        return []

    first, second = try_ranks(2, run)
    assert str(second) == "this rank fails"
    assert "a process that trains with this one has ended" in str(first)


def test_ranks_that_do_not_meet_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rank of an address does not answer."""
    monkeypatch.setattr("charlstm.model.ranks.TIMEOUT", timedelta(seconds=1))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # it does not listen
        port = unused.getsockname()[1]
        place = Rendezvous(1, 2, 1, 2, 0, "", "127.0.0.1", port, False)
        with pytest.raises(CharlstmError, match=rf"did not meet at 127\.0\.0\.1:{port} within 1 s"), Ranks.join(place):
            pass


def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        place = Rendezvous(0, 2, 0, 2, 0, "", "127.0.0.1", port, False)
        with pytest.raises(CharlstmError, match=rf"the port at 127\.0\.0\.1:{port} is in use"), Ranks.join(place):
            pass


def test_the_place_among_the_ranks_is_read_from_the_environment() -> None:
    address = {"MASTER_ADDR": "head", "MASTER_PORT": "29500"}
    torchrun = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", **address}
    place = Rendezvous.from_environ(torchrun)
    assert place == Rendezvous(3, 8, 1, 4, 0, "", "head", 29500, False)
    assert Rendezvous.from_environ({"RANK": "3", "WORLD_SIZE": "8"}) is None  # set by something else
    own = Rendezvous.from_environ({"RANK": "0", "WORLD_SIZE": "2", FILE_VARIABLE: "/tmp/x"})
    assert own is not None
    assert own.file == "/tmp/x"
    for wrong in ({"RANK": "8"}, {"RANK": "x"}, {"WORLD_SIZE": "-1"}, {"MASTER_PORT": "99999"}):
        with pytest.raises(UsageError, match="the environment has"):
            Rendezvous.from_environ(torchrun | wrong)
