"""Self-play in a plain TorchRL loop: the collector alone, without Lightning.

    python examples/torchrl_loop.py               # a quarter of a minute: tic-tac-toe
    python examples/torchrl_loop.py --plies 200000 --workers 4

``SelfPlayCollector`` is a ``torchrl.collectors.BaseCollector``. Its batches are TensorDicts [games, time] with
TorchRL's keys, and TorchRL's ``ClipPPOLoss`` takes them as they are. Advantages of two players are computed by
``batch_advantages``. ``update_policy_weights_`` publishes the weights, which the workers adopt with their next rollout.
The weights are saved in ``results/torchrl_loop/``.
"""

import argparse
from pathlib import Path

import torch
from torchrl.objectives import ClipPPOLoss

from keisei_lightning import (
    ActorCritic,
    PolicyPlayer,
    RandomPlayer,
    SelfPlayCollector,
    build_network,
    game_factory,
    play_match,
)
from keisei_lightning.rl import batch_advantages


def main() -> None:
    """Train, publish after each batch, and play against random play before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plies", type=int, default=40_960, help="plies to play in all")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--games", type=int, default=400, help="games against random play, an even number")
    arguments = parser.parse_args()
    torch.manual_seed(1)

    game = game_factory("tic_tac_toe")
    spec = game(1).spec
    policy = ActorCritic(build_network(spec, kind="mlp", num_blocks=2, channels=128))
    loss_module = ClipPPOLoss(policy.as_actor(), policy.as_critic(), entropy_coeff=0.03)
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-3)
    collector = SelfPlayCollector(
        game,
        policy,
        num_workers=arguments.workers,
        games_per_worker=64,
        plies_per_rollout=32,
        total_frames=arguments.plies,
    )

    def evaluate() -> None:
        match = play_match(
            game, PolicyPlayer(policy), RandomPlayer(spec.num_actions), num_games=arguments.games, opening_plies=2
        )
        print(f"version {collector.policy_version}: {match}")

    evaluate()
    with collector:  # the workers stop with the block, however it ends
        for batch in collector:
            versions = batch["collector", "policy_version"].unique().tolist()
            assert versions == [collector.policy_version]  # the weights that are about to learn played it
            batch["advantage"], batch["value_target"] = batch_advantages(batch, gamma=0.99, lmbda=0.95)
            plies = batch.reshape(-1)
            for _ in range(2):  # passes over the batch
                for minibatch in plies[torch.randperm(len(plies))].split(256):
                    losses = loss_module(minibatch)
                    optimizer.zero_grad()
                    (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
                    torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
                    optimizer.step()
            collector.update_policy_weights_()  # version + 1
            if collector.policy_version % 5 == 0:
                print(f"version {collector.policy_version}: {losses['entropy'].item():.2f} nats of entropy")
        stats = collector.stats()
    evaluate()

    file = Path("results", "torchrl_loop", "policy.pt")
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(policy.state_dict(), file)
    print(f"{stats['plies']} plies, {stats['games']} games; weights of version {collector.policy_version} in {file}")


if __name__ == "__main__":
    main()
