"""Self-play in a Lightning Trainer of your own, with the callbacks and the logger that you are used to.

    python examples/own_trainer.py                # half a minute: connect four
    python examples/own_trainer.py --epochs 60 --workers 8

There is no second training loop: ``SelfPlayDataModule`` and ``PPOModule`` are an ordinary data module and an ordinary
module, one Lightning epoch is one PPO iteration, and what the evaluation logs can be monitored like any other metric.
Workers start with the first batch and stop with the fit. The files of the run (metrics by epoch, the best and the last
checkpoint, curves, a game) are in ``results/own_trainer/``.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from keisei_lightning import (
    ActorCritic,
    AtomicCheckpointIO,
    CurvesCallback,
    EvaluationCallback,
    PolicyPlayer,
    PPOModule,
    SelfPlayCollector,
    SelfPlayDataModule,
    SelfPlayMetrics,
    TrainingProgress,
    build_network,
    game_factory,
    load_policy,
    make_player,
    play_match,
)

EVALUATE_EVERY_N_EPOCHS = 2


def main() -> None:
    """Train with evaluations, then let the best checkpoint play a final match from openings it has not seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8, help="PPO iterations")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--games", type=int, default=100, help="games of an evaluation, an even number")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    seed_everything(1, verbose=False)
    folder = Path("results", "own_trainer")

    game = game_factory("connect_four", opening_plies=4)
    model: dict[str, Any] = {"kind": "resnet", "num_blocks": 1, "channels": 32}
    policy = ActorCritic(build_network(game(1).spec, **model))
    collector = SelfPlayCollector(
        game, policy, num_workers=arguments.workers, games_per_worker=64, plies_per_rollout=32, zero_copy=True
    )
    data = SelfPlayDataModule(collector, gamma=0.995, lmbda=0.95, num_epochs=2, minibatch_size=256)
    recipe = {"env": {"game": "connect_four", "options": {"opening_plies": 4}}, "model": model}
    module = PPOModule(policy, learning_rate=2e-3, final_learning_rate=5e-4, entropy_coeff=0.02, recipe=recipe)

    evaluation = EvaluationCallback(
        game, opponents=["random", "tactics"], num_games=arguments.games, every_n_epochs=EVALUATE_EVERY_N_EPOCHS
    )
    best = ModelCheckpoint(
        folder,
        filename="best",
        monitor=evaluation.monitor,  # eval/score_vs_random, of the first opponent
        mode="max",
        save_last=True,
        every_n_epochs=EVALUATE_EVERY_N_EPOCHS,
    )
    trainer = Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        log_every_n_steps=1,
        gradient_clip_val=0.5,
        default_root_dir=folder,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[
            evaluation,  # before those that read what it logs
            SelfPlayMetrics(),
            best,
            CurvesCallback(folder),
            LearningRateMonitor(),
            TrainingProgress(),
        ],
        plugins=[AtomicCheckpointIO()],  # checkpoints that are whole or absent
        enable_model_summary=False,
    )
    trainer.fit(module, data)

    for result in evaluation.results.values():
        print(result)
    print(f"{trainer.callback_metrics['train/entropy']:.2f} nats of entropy, {collector.stats()['games']} games played")

    loaded = load_policy(best.best_model_path)
    player = PolicyPlayer(loaded.actor_critic, name="best.ckpt")
    opponent = make_player("random", loaded.game(1).spec, seed=777)
    print(play_match(loaded.game, player, opponent, num_games=arguments.games, seed=777))


if __name__ == "__main__":
    main()
