"""A network of your own: trained on tic-tac-toe, then loaded again from its checkpoint.

    python examples/own_network.py                # a quarter of a minute
    python examples/own_network.py --width 256 --epochs 60

A network is any torch module that maps uint8 observations [B, *observation_shape] to logits [B, A] and state values
[B, 1], both in the mover's view; legal moves are not its business. The checkpoint, in ``results/own_network/``, records
what the network is made from (its recipe) and cannot choose what is called: ``load_policy`` is told the network by
``model``, and ``keisei eval`` by ``model._target_=own_network.DenseNetwork model.width=128``.
"""

import argparse
import math
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor, nn

from keisei_lightning import (
    ActorCritic,
    GameSpec,
    PolicyPlayer,
    PPOModule,
    RandomPlayer,
    SelfPlayCollector,
    SelfPlayDataModule,
    game_factory,
    load_policy,
    play_match,
)


class DenseNetwork(nn.Module):
    """Hidden layers that each see the position again, beside what the layer before has made of it.

    The architecture is that of Sinha et al. 2020, "D2RL: Deep Dense Architectures in Reinforcement Learning"
    (https://arxiv.org/abs/2010.09163).

    Args:
        spec: the game.
        width: units of a hidden layer.
        depth: hidden layers.
    """

    def __init__(self, spec: GameSpec, *, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        num_inputs = math.prod(spec.observation_shape)
        widths = [num_inputs, *[num_inputs + width] * (depth - 1)]
        self.hidden = nn.ModuleList(nn.Linear(width_in, width) for width_in in widths)
        self.policy = nn.Linear(width, spec.num_actions)
        self.value = nn.Linear(width, 1)
        nn.init.zeros_(self.policy.weight)  # the first policy is uniform over the legal moves
        nn.init.zeros_(self.policy.bias)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate positions: uint8 [B, *observation_shape] to logits float32 [B, A] and values float32 [B, 1]."""
        position = observation.float().flatten(1)
        first, *further = self.hidden
        x = first(position).relu()
        for layer in further:
            x = layer(torch.cat([position, x], dim=1)).relu()
        return self.policy(x), self.value(x).tanh()


def main() -> None:
    """Train the network, load it again, compare the two, and play against random play."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=128, help="units of a hidden layer")
    parser.add_argument("--epochs", type=int, default=20, help="PPO iterations")
    parser.add_argument("--games", type=int, default=400, help="games against random play, an even number")
    arguments = parser.parse_args()
    seed_everything(1, verbose=False)

    game = game_factory("tic_tac_toe")
    spec = game(1).spec
    network = DenseNetwork(spec, width=arguments.width)
    policy = ActorCritic(network)
    print(f"{type(network).__name__}: {sum(weight.numel() for weight in network.parameters())} parameters")

    # What a checkpoint needs to tell, for load_policy and keisei eval. The path is that of this file as a module.
    model = {"_target_": "own_network.DenseNetwork", "width": arguments.width}
    recipe = {"env": {"game": "tic_tac_toe", "options": {}}, "model": model}
    module = PPOModule(policy, learning_rate=2e-3, entropy_coeff=0.03, recipe=recipe)
    data = SelfPlayDataModule(SelfPlayCollector(game, policy, games_per_worker=64), minibatch_size=256)
    trainer = Trainer(max_epochs=arguments.epochs, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(module, data)
    checkpoint = Path("results", "own_network", "last.ckpt")
    trainer.save_checkpoint(checkpoint)

    loaded = load_policy(checkpoint, model=model)
    observation = torch.randint(2, (256, *spec.observation_shape), dtype=torch.uint8)
    with torch.inference_mode():
        trained, again = policy.eval()(observation), loaded.actor_critic(observation)
    differences = [(ours - theirs).abs().max().item() for ours, theirs in zip(trained, again, strict=True)]
    print(f"{checkpoint}: largest difference of logits {differences[0]}, of state values {differences[1]}")

    player = PolicyPlayer(loaded.actor_critic, name=type(network).__name__)
    match = play_match(loaded.game, player, RandomPlayer(spec.num_actions), num_games=arguments.games, opening_plies=2)
    print(match)


if __name__ == "__main__":
    main()
