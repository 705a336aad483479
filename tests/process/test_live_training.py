"""A real training tells of its workers and shows games in progress, and learns what it would learn without."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic
from keisei_lightning.models.mlp import MLPNetwork
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.training import LiveStateCallback, PPOModule, SelfPlayDataModule, WeightSyncCallback
from keisei_lightning.training.live_file import LiveState

pytestmark = pytest.mark.process

WORKERS = 2
PATIENCE_S = 300.0
Watch = Callable[[LiveState, SelfPlayCollector], bool]


class Watcher(Callback):
    """Looks at the state after each optimiser step, and ends the training when it has seen enough."""

    def __init__(self, path: Path, watch: Watch) -> None:
        self._path, self._watch = path, watch
        self._until = time.monotonic() + PATIENCE_S

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert time.monotonic() < self._until, "what is looked for was never seen"
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if self._watch(LiveState.parse(self._path.read_text()), datamodule.collector):
            trainer.should_stop = True


def trained(folder: Path, callbacks: list[Callback], *, epochs: int = -1, **options: Any) -> dict[str, torch.Tensor]:
    """Train tic-tac-toe for so many epochs, or until a callback ends it; returns the weights."""
    torch.manual_seed(0)
    game = game_factory("tic_tac_toe")
    policy = ActorCritic(MLPNetwork(spec=game(1).spec, channels=16, num_blocks=1, value_head="scalar"))
    collector = SelfPlayCollector(
        game,
        policy,
        **{
            "num_workers": WORKERS,
            "games_per_worker": 4,
            "plies_per_rollout": 8,
            "threads_per_worker": 1,
            "restart_backoff_s": 0.02,
            "seed": 3,
            **options,
        },
    )
    data = SelfPlayDataModule(collector, minibatch_size=32, num_epochs=1, seed=3)
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        max_epochs=epochs,
        callbacks=[WeightSyncCallback(), *callbacks],
    )
    trainer.fit(PPOModule(policy), datamodule=data)
    return {name: weight.clone() for name, weight in policy.state_dict().items()}


@pytest.mark.parametrize("mode", ["serial", "workers", "central"])
def test_every_mode_shows_its_workers_and_games_that_go_on(tmp_path: Path, mode: str) -> None:
    pictures: dict[tuple[int, int], set[str]] = {}

    def watch(state: LiveState, collector: SelfPlayCollector) -> bool:
        assert [worker.name for worker in state.workers[:WORKERS]] == ["worker 0", "worker 1"]
        assert len(state.workers) == WORKERS + (mode == "central")
        for board in state.boards:
            assert 0 <= board.ply < 9
            assert board.mover == board.ply % 2
            assert board.svg.startswith("<svg")
            pictures.setdefault((board.worker, board.board), set()).add(board.svg)
        seen = [worker for worker in state.workers[:WORKERS] if worker.plies_per_s]
        assert all(worker.state == "running" and worker.last_rollout_s is not None for worker in seen)
        return len(seen) == WORKERS and len(pictures) == 4 and all(len(drawn) >= 3 for drawn in pictures.values())

    live = LiveStateCallback(tmp_path, every_s=0.01)
    trained(tmp_path, [live, Watcher(live.path, watch)], mode=mode)
    assert set(pictures) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert list(tmp_path.iterdir()) == []


def test_the_restart_of_a_killed_worker_is_seen(tmp_path: Path) -> None:
    killed: list[int] = []
    boards_since = 0

    def watch(state: LiveState, collector: SelfPlayCollector) -> bool:
        nonlocal boards_since
        if not killed and state.boards:
            killed.append(collector.health()[1]["pid"])
            os.kill(killed[0], signal.SIGKILL)
        if state.workers[1].restarts == 1 and state.workers[1].state == "running":
            boards_since += any(board.worker == 1 for board in state.boards)
        assert state.workers[0].restarts == 0
        return boards_since >= 3

    live = LiveStateCallback(tmp_path, every_s=0.01)
    trained(tmp_path, [live, Watcher(live.path, watch)], mode="workers")
    assert len(killed) == 1


@pytest.mark.parametrize("mode", ["serial", "workers"])
def test_a_training_that_is_watched_learns_to_the_last_bit_what_it_learns_alone(tmp_path: Path, mode: str) -> None:
    alone = trained(tmp_path, [], epochs=60, mode=mode)
    live = LiveStateCallback(tmp_path, every_s=1e-6)
    seen: list[int] = []

    def watch(state: LiveState, collector: SelfPlayCollector) -> bool:
        seen.append(len(state.boards))
        return False

    watched = trained(tmp_path, [live, Watcher(live.path, watch)], epochs=60, mode=mode)
    assert max(seen) == 4
    assert alone.keys() == watched.keys()
    assert all(torch.equal(alone[name], watched[name]) for name in alone)
