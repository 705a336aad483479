"""What one learner (rank) of a training does, for the tests of several: ``ranks_program.py FOLDER SCENARIO [OPTIONS]``.

The rank, the number of ranks and where they meet are in the environment, as ``torchrun`` puts them there. Each rank
leaves what it has seen in ``FOLDER/SCENARIO.RANK.pt``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from tensordict import TensorDict, TensorDictBase

from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.parallel import OpponentOptions, SelfPlayCollector
from keisei_lightning.training import AtomicCheckpointIO, PPOModule, SelfPlayDataModule, SelfPlayMetrics
from keisei_lightning.training.iteration import Iteration
from keisei_lightning.training.minibatches import add_advantages

GAMES, PLIES = 8, 10
EPOCHS, MINIBATCHES = 2, 5
STEPS_PER_ITERATION = EPOCHS * MINIBATCHES


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


class Seen(Callback):
    """Keeps what a fit has gone through."""

    def __init__(self) -> None:
        self.gradients: list[torch.Tensor] = []
        self.metrics: dict[str, float] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.gradients.append(torch.cat([p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}


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


def parts(game: str, *, workers: int, minibatch_size: int, two_in_one: bool, **collector: Any) -> tuple[Any, Any]:
    """The module and its data, of the same weights on every rank."""
    seed_everything(1, verbose=False)
    make_game = game_factory(game)
    policy = ActorCritic(build_network(make_game(1).spec, kind="mlp", num_blocks=1, channels=16))
    options = {"mode": "serial", "num_workers": workers, "games_per_worker": GAMES, "plies_per_rollout": PLIES}
    options |= {"threads_per_worker": 1, "seed": 3, "zero_copy": True}
    if "opponents" in collector:
        collector["opponents"] = OpponentOptions(**collector["opponents"])
    source = SelfPlayCollector(make_game, policy, **(options | collector))
    data = (OfTwoRanks if two_in_one else SelfPlayDataModule)(
        source, minibatch_size=minibatch_size, num_epochs=EPOCHS, gamma=0.99
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


def identity(folder: Path, *, game: str, iterations: int = 5, two_in_one: bool = False, **options: Any) -> Any:
    """Train, and keep gradients, weights and metrics."""
    seen = Seen()
    size = GAMES * PLIES * options["workers"] // MINIBATCHES
    module, data = parts(game, minibatch_size=size, two_in_one=two_in_one, **options)
    trainer = trainer_of(folder, [SelfPlayMetrics(), seen], max_epochs=iterations)
    trainer.fit(module, datamodule=data)
    return {
        "gradients": torch.stack(seen.gradients),
        "weights": torch.cat([parameter.detach().flatten() for parameter in module.parameters()]),
        "metrics": seen.metrics,
        "plies": data.collector.plies,
        "steps": trainer.global_step,
    }


SCENARIOS = {"identity": identity}


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for place, (scenario, options) in enumerate(json.loads(sys.argv[2])):
        result = SCENARIOS[scenario](folder, **options)
        torch.save(result, folder / f"{place}.{rank()}.pt")


if __name__ == "__main__":
    main()
