"""The calibration of a training: values of plies beside what came of their games, however these lie in rollouts."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import TinyNetwork, counting_game
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensordict import TensorDict
from training_fakes import FakeCollector, FourByteNetwork, quiet_trainer

from keisei_lightning.evaluation.calibration import calibrate
from keisei_lightning.models import ActorCritic
from keisei_lightning.training import (
    CalibrationCallback,
    ExperimentLog,
    PPOModule,
    SelfPlayDataModule,
    SelfPlayMetrics,
)
from keisei_lightning.training.finished_games import FinishedGames


def rollout(
    games: list[list[int]],
    *,
    ends: dict[tuple[int, int], float] | None = None,
    cuts: tuple[tuple[int, int], ...] = (),
    opponents: tuple[tuple[int, int], ...] = (),
) -> TensorDict:
    """Rows of game numbers; seats take turns, and the value of a ply is its game's number / 10.

    Args:
        games: of each ply.
        ends: reward of plies that end a game, to their mover.
        cuts: plies that cut a game short.
        opponents: plies of a frozen opponent.
    """
    ids = torch.tensor(games)
    shape = ids.shape
    reward, terminated, truncated = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool), torch.zeros(shape) > 0
    trainable = torch.ones(shape, dtype=torch.bool)
    for place, value in (ends or {}).items():
        terminated[place], reward[place] = True, value
    for place in cuts:
        truncated[place] = True
    for place in opponents:
        trainable[place] = False
    return TensorDict(
        {
            "state_value": (ids / 10).unsqueeze(-1),
            "mover": (torch.arange(shape[1]) % 2).to(torch.int8).expand(shape),
            "trainable": trainable,
            ("next", "reward"): reward.unsqueeze(-1),
            ("next", "done"): (terminated | truncated).unsqueeze(-1),
            ("next", "terminated"): terminated.unsqueeze(-1),
            ("collector", "traj_ids"): ids,
        },
        batch_size=shape,
    )


def found(games: FinishedGames) -> list[tuple[int, int, int]]:
    """Game, mover and result of each ply."""
    plies = games.plies
    return list(zip(plies.game.tolist(), plies.mover.tolist(), plies.result.tolist(), strict=True))


def test_plies_wait_until_their_game_ends_in_whichever_rollout_and_row() -> None:
    games = FinishedGames()
    games.add(rollout([[1, 1, 2, 2], [3, 3, 3, 3]], ends={(0, 1): 1.0}))
    assert found(games) == [(1, 0, -1), (1, 1, 1)]
    # An asynchronous collector may deliver the rows of a worker in another place.
    games.add(rollout([[3, 3, 4, 4], [2, 2, 2, 5]], ends={(0, 1): 0.0, (1, 2): 1.0}))
    second = [(2, seat, 1 - 2 * seat) for seat in (0, 1, 0, 1, 0)]  # its first seat won
    third = [(3, seat, 0) for seat in (0, 1, 0, 1, 0, 1)]
    assert sorted(found(games)[2:]) == sorted(second + third)
    np.testing.assert_allclose(games.plies.value, games.plies.game / 10)


def test_a_game_that_is_cut_short_and_plies_of_opponents_are_left_out() -> None:
    games = FinishedGames()
    cut = rollout([[1, 1, 2, 2]], cuts=((0, 1),), ends={(0, 3): 1.0}, opponents=((0, 3),))
    games.add(cut)
    assert found(games) == [(2, 0, -1)]  # the opponent's move won, and is not learned from
    games.add(rollout([[3, 3, 1, 1]], ends={(0, 1): 1.0}))
    assert found(games)[1:] == [(3, 0, -1), (3, 1, 1)]


def test_the_newest_games_are_kept_and_what_was_lent_is_not() -> None:
    games = FinishedGames(num_kept=4)
    for number in range(1, 6):
        lent = rollout([[number, number]], ends={(0, 1): 1.0})
        games.add(lent)
        lent["state_value"].fill_(9.0)
    assert [game for game, *_ in found(games)] == [4, 4, 5, 5]
    assert games.plies.value.max() == pytest.approx(0.5)


def test_rollouts_whose_games_cannot_be_told_apart_are_passed_over() -> None:
    games = FinishedGames()
    games.add(rollout([[1, 1]], ends={(0, 1): 1.0}).exclude(("collector", "traj_ids")))
    assert found(games) == []


def fit(
    folder: Path, *, epochs: int = 3, directory: Path | None = None
) -> tuple[CalibrationCallback, SelfPlayDataModule]:
    calibration = CalibrationCallback(directory or folder)
    trainer = quiet_trainer(
        folder,
        max_epochs=epochs,
        logger=[
            TensorBoardLogger(str(folder), name="tb", version="", default_hp_metric=False),
            CSVLogger(folder, name="csv", version=""),
        ],
        callbacks=[SelfPlayMetrics(), calibration, ExperimentLog()],
    )
    small = {"mode": "serial", "games_per_worker": 4, "plies_per_rollout": 8}
    data = SelfPlayDataModule(game=counting_game(), collector_options=small, minibatch_size=16, num_epochs=1, seed=3)
    trainer.fit(PPOModule(ActorCritic(TinyNetwork())), datamodule=data)
    return calibration, data


@pytest.mark.slow
def test_tensorboard_has_the_numbers_of_each_iteration_and_a_picture_at_the_end(tmp_path: Path) -> None:
    calibration, data = fit(tmp_path)
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    plies = data.finished_games.plies
    assert 0 < len(plies.game) <= 3 * 32
    expected = calibrate(plies.value, plies.result, plies.game)
    for name, value in (("calibration_error", expected.error), ("brier_score", expected.brier)):
        scalars = events.Scalars(f"self_play/{name}")
        assert len(scalars) == 3
        assert scalars[-1].value == pytest.approx(value, rel=1e-5)
    (picture,) = events.Images("calibration")
    assert picture.step == 6
    assert calibration.files == [tmp_path / "calibration.png"]
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_picture_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "here").touch()
    with caplog.at_level(logging.WARNING, logger="keisei_lightning"):
        calibration, _ = fit(tmp_path, epochs=1, directory=tmp_path / "here")
    assert calibration.files == []
    assert [record.message.startswith("calibration.png was not written to") for record in caplog.records] == [True]


@pytest.mark.slow
def test_a_training_that_does_not_tell_its_games_apart_logs_none(tmp_path: Path) -> None:
    calibration = CalibrationCallback(tmp_path)
    trainer = quiet_trainer(tmp_path, max_epochs=1, callbacks=[calibration])
    data = SelfPlayDataModule(FakeCollector(), minibatch_size=16, num_epochs=1)
    trainer.fit(PPOModule(ActorCritic(FourByteNetwork())), datamodule=data)
    assert "self_play/calibration_error" not in trainer.callback_metrics
    assert calibration.files == []
    assert not (tmp_path / "calibration.png").exists()
