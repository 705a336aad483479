"""What one learner (rank) of a training does, for the tests of several: ``ranks_program.py FOLDER SCENARIOS``.

The rank, the number of ranks and where they meet are in the environment, as ``torchrun`` puts them there. Each rank
leaves what it has seen of each scenario in ``FOLDER/NAME.RANK.pt``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback
from tensordict import TensorDict, TensorDictBase

from keisei_lightning import make_league
from keisei_lightning.evaluation import MatchResult, PolicyPlayer
from keisei_lightning.games import GameSpec, game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.parallel import OpponentOptions, SelfPlayCollector
from keisei_lightning.training import (
    AtomicCheckpointIO,
    EvaluationCallback,
    LeagueCallback,
    PPOModule,
    SearchTargets,
    SelfPlayDataModule,
    SelfPlayMetrics,
    SnapshotCallback,
    WeightSyncCallback,
)
from keisei_lightning.training.iteration import Iteration
from keisei_lightning.training.minibatches import add_advantages

GAMES, PLIES = 8, 10
EPOCHS, MINIBATCHES = 2, 5
STEPS_PER_ITERATION = EPOCHS * MINIBATCHES


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


class Seen(Callback):
    """Keeps what a fit has gone through.

    Args:
        save: paths of checkpoints, by the optimiser step after which they are saved.
    """

    def __init__(self, save: dict[int, Path] | None = None) -> None:
        self.gradients: list[torch.Tensor] = []
        self.weights: dict[int, torch.Tensor] = {}
        self.metrics: dict[int, dict[str, float]] = {}
        self._save = save or {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.gradients.append(torch.cat([p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        self.weights[step] = torch.cat([parameter.detach().flatten() for parameter in pl_module.parameters()])
        if step in self._save:
            trainer.save_checkpoint(self._save[step])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note(trainer)

    def _note(self, trainer: Trainer) -> None:
        self.metrics[trainer.global_step] = {name: float(value) for name, value in trainer.callback_metrics.items()}


class OfTwoRanks(SelfPlayDataModule):
    """One learner whose minibatches are those of two ranks together, each of which would have half of its workers."""

    def _iteration_of(self, rollout: TensorDictBase, device: torch.device) -> Iteration:
        plies, trainable = add_advantages(rollout, gamma=self.options.gamma, lmbda=self.options.lmbda, normalize=True)
        half = len(plies) // 2
        first = int((trainable < half).sum())
        return Iteration(
            TensorDict(dict(plies.items()), batch_size=len(plies)),
            trainable,
            self.num_epochs,
            self.num_minibatches,
            counts=[first, len(trainable) - first],
            starts=[0, half, len(plies)],
        )


def parts(
    game: str,
    *,
    workers: int,
    minibatch_size: int,
    two_in_one: bool,
    search: dict[str, Any] | None = None,
    members: list[str] | None = None,
    **collector: Any,
) -> tuple[Any, Any]:
    """The module and its data, of the same weights on every rank."""
    seed_everything(1, verbose=False)
    make_game = game_factory(game)
    policy = ActorCritic(build_network(make_game(1).spec, kind="mlp", num_blocks=1, channels=16))
    options = {"mode": "serial", "num_workers": workers, "games_per_worker": GAMES, "plies_per_rollout": PLIES}
    options |= {"threads_per_worker": 1, "seed": 3, "zero_copy": True}
    if "opponents" in collector:
        pool = OpponentOptions(**collector["opponents"])
        collector["opponents"] = pool if members is None else make_league(pool, members, policy)
    source = SelfPlayCollector(make_game, policy, **(options | collector))
    data = (OfTwoRanks if two_in_one else SelfPlayDataModule)(
        source,
        minibatch_size=minibatch_size,
        num_epochs=EPOCHS,
        gamma=0.99,
        search_targets=None if search is None else SearchTargets(make_game, seed=3, **search),
    )
    return PPOModule(policy, learning_rate=1e-3), data


def trainer_of(folder: Path, callbacks: list[Callback], **options: Any) -> Trainer:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": world,
        "strategy": "ddp" if world > 1 else "auto",
        "default_root_dir": folder,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "logger": False,
        "plugins": [AtomicCheckpointIO()],
        "callbacks": callbacks,
    }
    return Trainer(**(defaults | options))


def training(
    folder: Path,
    *,
    game: str,
    workers: int,
    iterations: int = 5,
    two_in_one: bool = False,
    accumulate: int = 1,
    resume: str | None = None,
    save: dict[str, str] | None = None,
    members: list[str] | None = None,
    **collector: Any,
) -> dict[str, Any]:
    """Train, and keep gradients, weights and metrics by the optimiser step."""
    seen = Seen({int(step): folder / name for step, name in (save or {}).items()})
    size = GAMES * PLIES * workers // MINIBATCHES
    module, data = parts(
        game, workers=workers, minibatch_size=size, two_in_one=two_in_one, members=members, **collector
    )
    pools: list[SnapshotCallback] = []
    if "opponents" in collector:
        league = folder / f"league.{rank()}"
        pools = [SnapshotCallback(1) if members is None else LeagueCallback(league, 1)]
    callbacks = [WeightSyncCallback(), *pools, SelfPlayMetrics(), seen]
    standings: list[Any] = []
    callbacks.append(LambdaCallback(on_train_end=lambda trainer, module: standings.extend(data.collector.snapshots)))
    trainer = trainer_of(folder, callbacks, max_epochs=iterations, accumulate_grad_batches=accumulate)
    trainer.fit(module, datamodule=data, ckpt_path=None if resume is None else folder / resume, weights_only=True)
    return {
        "gradients": torch.stack(seen.gradients),
        "weights": seen.weights,
        "metrics": seen.metrics,
        "standings": [(each.version, each.games, each.score) for each in standings],
        "league": [pool.state_dict() for pool in pools],
        "searched": None if data.search_targets is None else data.search_targets.state_dict(),
    }


def frozen_player(spec: GameSpec, *, seed: int, name: str) -> PolicyPlayer:
    """A deterministic opponent: a network that has learned nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return PolicyPlayer(ActorCritic(build_network(spec, kind="mlp", num_blocks=1, channels=16)), name=name)


def evaluation(folder: Path, *, game: str) -> dict[str, Any]:
    """Play matches before anything is learned: against a deterministic opponent and a random one."""
    module, data = parts(game, workers=1, minibatch_size=16, two_in_one=False)
    played = EvaluationCallback(
        game_factory(game), opponents=[frozen_player, "random"], num_games=34, opening_plies=3, at_start=True
    )
    results: list[MatchResult] = []
    keep = LambdaCallback(on_train_start=lambda trainer, module: results.extend(played.results.values()))
    trainer = trainer_of(folder, [played, keep], max_epochs=1, limit_train_batches=1)
    trainer.fit(module, datamodule=data)
    return {
        "deterministic": asdict(results[0]),
        "random games": results[1].num_games,
        "random": asdict(results[1]),
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
    }


def killed_worker(folder: Path) -> dict[str, Any]:
    """Train with worker processes, of which one of rank 1 is killed in the second iteration."""
    module, data = parts("tic_tac_toe", workers=1, minibatch_size=16, two_in_one=False, mode="workers")

    def kill(trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        if rank() == 1 and trainer.global_step == STEPS_PER_ITERATION + 1:
            os.kill(data.collector.health()[0]["pid"], signal.SIGKILL)

    seen = Seen()
    callbacks = [LambdaCallback(on_train_batch_start=kill), SelfPlayMetrics(), seen]
    trainer = trainer_of(folder, callbacks, max_epochs=3)
    trainer.fit(module, datamodule=data)
    return {"weights": seen.weights, "metrics": seen.metrics}


def failing_collector(folder: Path) -> dict[str, Any]:
    """Train with a collector that fails on rank 1, with its second batch; what each rank raises."""
    module, data = parts("tic_tac_toe", workers=1, minibatch_size=16, two_in_one=False)
    batches = data.collector.iterator

    def failing() -> Iterator[Any]:
        for number, batch in enumerate(batches()):
            if number == 1 and rank() == 1:
                raise ValueError("on purpose")
            yield batch

    data.collector.iterator = failing
    try:
        trainer_of(folder, [], max_epochs=3).fit(module, datamodule=data)
    except Exception as error:  # noqa: BLE001 - it is what the test is about
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": None}


def changed_weights(folder: Path) -> dict[str, Any]:
    """Train with a callback that changes a weight on rank 1 alone; what each rank raises."""
    module, data = parts("tic_tac_toe", workers=1, minibatch_size=16, two_in_one=False)

    def change(trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if rank() == 1 and batch_idx == 3:
            with torch.no_grad():
                next(module.parameters()).view(-1)[0] += 1.0

    try:
        trainer_of(folder, [LambdaCallback(on_train_batch_end=change)], max_epochs=2).fit(module, datamodule=data)
    except Exception as error:  # noqa: BLE001 - it is what the test is about
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": None}


SCENARIOS: dict[str, Callable[..., dict[str, Any]]] = {
    "training": training,
    "evaluation": evaluation,
    "killed_worker": killed_worker,
    "failing_collector": failing_collector,
    "changed_weights": changed_weights,
}


def run(folder: Path, scenarios: list[tuple[str, str, dict[str, Any]]]) -> None:
    """Play scenarios, each under a name, and leave what came of them."""
    for name, scenario, options in scenarios:
        torch.save(SCENARIOS[scenario](folder, **options), folder / f"{name}.{rank()}.pt")


def main() -> None:
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), json.loads(sys.argv[2]))


if __name__ == "__main__":
    main()
