"""How a rank of a launcher ends when all ranks have found the same: one of a machine tells it."""

from __future__ import annotations

import pytest
from hydra.errors import ConfigCompositionException

from keisei_lightning.commands import train
from keisei_lightning.errors import ConfigError
from keisei_lightning.system.stopping import Stopped


def be_rank(local_rank: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """This process is one of torchrun's; returns what it sleeps."""
    place = {"RANK": local_rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    for name, value in {"TORCHELASTIC_RUN_ID": "test", **place}.items():
        monkeypatch.setenv(name, str(value))
    slept: list[float] = []
    monkeypatch.setattr(train.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize("error", [ConfigError("x=1: bad"), ConfigCompositionException("bad"), TypeError("bad")])
def test_the_first_rank_of_a_machine_tells_a_bad_configuration_and_the_others_let_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept = be_rank(1, monkeypatch)
    assert train._exit_code(error, []) == 2
    assert capsys.readouterr().err == ""
    assert len(slept) == 1  # the launcher ends all when one has ended
    assert be_rank(0, monkeypatch) == []
    assert train._exit_code(error, []) == 2
    assert capsys.readouterr().err.startswith("keisei: ")


def test_a_stop_is_told_by_the_first_rank_of_a_machine_and_waited_for_by_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept = be_rank(1, monkeypatch)
    assert train._exit_code(Stopped(15), []) == 143
    assert (slept, capsys.readouterr().err) == ([], "")


def test_what_may_be_of_one_rank_alone_is_told_by_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be_rank(1, monkeypatch)
    assert train._exit_code(RuntimeError("of this rank"), []) == 1
    assert "of this rank" in capsys.readouterr().err
