"""A folder that runs share: what one writes another takes, once, and nothing that lies there is trusted."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import TinyNetwork, VersionNetwork, counting_game
from league_players import RANDOM
from training_fakes import quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import League, OpponentOptions, SelfPlayCollector
from keisei_lightning.parallel.memory.weight_sources import named_weights
from keisei_lightning.parallel.memory.weights import WeightLayout
from keisei_lightning.training import LeagueCallback, PPOModule, SelfPlayDataModule, WeightSyncCallback
from keisei_lightning.training.pool_folder import PoolFolder

LAYOUT = WeightLayout.of(ActorCritic(TinyNetwork()))


def folder_of(path: Path, name: str = "main", kept: int = 2) -> PoolFolder:
    return PoolFolder(path / "pool", name=name, game="counting", kept=kept)


def files(path: Path) -> list[str]:
    return sorted(file.name for file in (path / "pool").iterdir())


def names(folder: PoolFolder) -> list[str]:
    return [name for name, _ in folder.take(LAYOUT)]


def test_another_run_takes_a_snapshot_as_it_was_and_once(tmp_path: Path) -> None:
    main, exploiter, policy = folder_of(tmp_path), folder_of(tmp_path, "exploiter"), ActorCritic(TinyNetwork())
    main.publish(policy, 7)
    before = {name: tensor.clone() for name, tensor in named_weights(policy).items()}
    with torch.no_grad():
        policy.network.linear.weight += 1.0
    ((name, weights),) = exploiter.take(LAYOUT)
    assert name == f"{main.run} 7"
    assert set(weights) == set(before)
    assert all(torch.equal(weights[key], before[key]) for key in before)
    assert names(exploiter) == []
    assert names(main) == []  # its own


def test_only_the_newest_of_a_run_is_taken_and_its_older_ones_are_removed(tmp_path: Path) -> None:
    main, exploiter = folder_of(tmp_path), folder_of(tmp_path, "exploiter")
    for version in (2, 10, 9, 11):  # not in the order of the alphabet
        main.publish(ActorCritic(TinyNetwork()), version)
    assert files(tmp_path) == [f"{main.run}.v10.snapshot", f"{main.run}.v11.snapshot"]
    assert names(exploiter) == [f"{main.run} 11"]


def test_a_snapshot_that_there_was_no_room_for_is_found_again(tmp_path: Path) -> None:
    main, exploiter = folder_of(tmp_path), folder_of(tmp_path, "exploiter")
    main.publish(ActorCritic(TinyNetwork()), 3)
    for _ in exploiter.take(LAYOUT):
        break
    assert names(exploiter) == [f"{main.run} 3"]


def test_two_runs_of_one_name_are_two_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    main, other = folder_of(tmp_path), folder_of(tmp_path)
    assert main.run != other.run
    other.publish(ActorCritic(TinyNetwork()), 1)
    assert names(main) == [f"{other.run} 1"]
    again = folder_of(tmp_path)
    again.load_state_dict(main.state_dict())
    assert again.run == main.run
    assert names(again) == []


class _Trap:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, ("sprung",)


def _weights(**changes: Any) -> dict[str, Any]:
    return {**dict(named_weights(ActorCritic(TinyNetwork()))), **changes}


def _content(**changes: Any) -> dict[str, Any]:
    return {"format": 1, "game": "counting", "weights": _weights(), **changes}


NAN = torch.full((4, 2), torch.nan)
FOREIGN: dict[str, tuple[Any, str]] = {
    "no zip file": (b"no snapshot at all", "cannot be read as a checkpoint"),
    "code": (_content(weights=_Trap()), "reading that would run code"),
    "a list": ([1, 2], "it is no snapshot"),
    "another format": (_content(format=2), "it is no snapshot"),
    "another game": (_content(game="shogi"), "it is of another game (shogi)"),
    "no weights": (_content(weights=3), "it is of another network"),
    "another network": (
        _content(weights=dict(named_weights(ActorCritic(VersionNetwork())))),
        "it is of another network",
    ),
    "another size": (_content(weights=_weights(**{"network.linear.bias": torch.zeros(9)})), "torch.float32 [9], but"),
    "not finite": (_content(weights=_weights(**{"network.linear.weight": NAN})), "is not finite"),
    "large": (_content(more=torch.zeros(1 << 19)), "larger than a snapshot of this network"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_snapshot_of_this_network_is_told_once_and_nothing_in_it_is_called(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, reason = FOREIGN[what]
    path = tmp_path / "pool" / "someone-1.v4.snapshot"
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    (path.parent / "notes.txt").write_text("not ours")
    main = folder_of(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert names(main) == names(main) == []
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path} is not taken into the league: ")
    assert reason in record.getMessage()
    assert not (tmp_path / "sprung").exists()
    assert files(tmp_path) == ["notes.txt", "someone-1.v4.snapshot"]


def fit(folder: PoolFolder, path: Path, *, own_snapshots: bool = True) -> tuple[SelfPlayCollector, LeagueCallback]:
    policy = ActorCritic(TinyNetwork())
    league = League(options=OpponentOptions(share=1.0, max_snapshots=3), players=(RANDOM,))
    collector = SelfPlayCollector(
        counting_game(), policy, mode="serial", games_per_worker=8, plies_per_rollout=12, opponents=league
    )
    callback = LeagueCallback(path, every_n_epochs=2, folder=folder, own_snapshots=own_snapshots)
    trainer = quiet_trainer(path, max_epochs=6, callbacks=[WeightSyncCallback(), callback])
    trainer.fit(PPOModule(policy), datamodule=SelfPlayDataModule(collector, minibatch_size=32))
    return collector, callback


def test_an_exploiter_plays_the_snapshots_of_the_main_run_and_not_its_own(tmp_path: Path) -> None:
    main, exploiter = folder_of(tmp_path), folder_of(tmp_path, "exploiter")
    fit(main, tmp_path / "main")
    collector, callback = fit(exploiter, tmp_path / "exploiter", own_snapshots=False)
    (guest,) = collector.snapshots
    assert guest.name == f"{main.run} {guest.name.rpartition(' ')[2]}"
    assert guest.games > 0
    assert collector.pool is not None
    assert set(collector.pool.totals) == {guest.name, "random"}
    assert len(callback.table.periods) == 3


def test_guests_survive_a_resume_with_their_names(tmp_path: Path) -> None:
    main = folder_of(tmp_path)
    fit(main, tmp_path / "main")
    collector, _ = fit(folder_of(tmp_path, "exploiter"), tmp_path / "exploiter", own_snapshots=False)
    league = League(options=OpponentOptions(share=1.0, max_snapshots=3), players=(RANDOM,))
    resumed = SelfPlayCollector(
        counting_game(), ActorCritic(TinyNetwork()), mode="serial", games_per_worker=8, opponents=league
    )
    resumed.load_state_dict(collector.state_dict())
    with resumed:
        resumed.start()
        assert resumed.snapshots == collector.snapshots
        assert resumed.snapshots[0].name.startswith("main-")


def test_an_exploiter_without_a_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match="own_snapshots=False: must be True without a folder"):
        LeagueCallback("here", own_snapshots=False)
