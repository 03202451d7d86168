"""How torch's threads wait."""

from __future__ import annotations

import os

import pytest

from charlstm.threads import SPINS, share_the_processor


@pytest.mark.parametrize(
    ("already", "expected"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_give_up_their_core_unless_the_user_said_how_they_wait(
    already: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in already.items():
        monkeypatch.setenv(name, value)
    share_the_processor()
    assert os.environ.get("GOMP_SPINCOUNT") == expected
