"""Compact observations and an encoder of your own: domineering with eight squares in a byte.

    python examples/own_encoder.py             # a quarter of a minute
    python examples/own_encoder.py --epochs 20

Observations travel through shared memory and fill the buffers, so a game writes them as small as it can; the network's
first layer, its encoder, expands them. Here one position is 5 bytes instead of 36. The encoder gives the network the
same numbers, so that training on either observation comes to the same weights, which is shown at the end.
:mod:`keisei_lightning.models.encoder` says how a package registers its encoder.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from lightning.pytorch import seed_everything
from numpy.typing import NDArray
from own_game import Domineering, fit
from torch import Tensor

from keisei_lightning import GameSpec, PolicyPlayer, RandomPlayer, check_game, game_factory, play_match, register_game
from keisei_lightning.models import Encoder, register_encoder, unpack_mask


class CompactDomineering(Domineering):
    """Domineering whose observation has a bit for each square: 1 where a domino lies."""

    def __init__(self, num_games: int, *, size: int = 6) -> None:
        super().__init__(num_games, size=size)
        self.spec = replace(
            self.spec,
            name="compact_domineering",
            observation_shape=((size * size + 7) // 8,),
            encoding="domineering_bits",  # the encoder's name
        )

    def observe(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], mover: NDArray[np.int8]) -> None:
        """Write the bits of the squares; see :meth:`keisei_lightning.Game.observe`."""
        squares = np.empty((self.num_games, 1, self.size, self.size), np.uint8)
        super().observe(squares, legal, mover)
        observation[:] = np.packbits(squares.reshape(self.num_games, -1), axis=1)


class BitsEncoder(Encoder):
    """Bits of the squares to one plane: uint8 [B, ceil(H * W / 8)] to float32 [B, 1, H, W]."""

    def __init__(self, board_shape: tuple[int, int]) -> None:
        super().__init__(num_features=1, is_embedding=False)
        self.board_shape = board_shape

    def forward(self, observation: Tensor) -> Tensor:
        """Expand the bits; see the class."""
        height, width = self.board_shape
        return unpack_mask(observation, height * width).float().view(-1, 1, height, width)


def make_encoder(spec: GameSpec, *, num_features: int) -> BitsEncoder:
    """Make the encoder of a game; ``num_features`` is for encoders that learn their features."""
    return BitsEncoder(spec.board_shape)


# A package does it by the entry-point groups keisei_lightning.games and keisei_lightning.encoders.
register_game("compact_domineering", CompactDomineering)
register_encoder("domineering_bits", make_encoder)


def main() -> None:
    """Train on both observations, compare the weights, and play against random play."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=6, help="rows and columns of the board")
    parser.add_argument("--epochs", type=int, default=4, help="PPO iterations")
    parser.add_argument("--games", type=int, default=100, help="games against random play, an even number")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

    folder = Path("results", "own_encoder")
    trained = {}
    for name in ("domineering", "compact_domineering"):
        game = game_factory(name, size=arguments.size)
        check_game(game)
        print(f"{name}: {game(1).spec.observation_bytes} bytes a position")
        seed_everything(1, verbose=False)
        trained[name] = fit(game, arguments.epochs, resume_from=None, save_to=folder / f"{name}.ckpt")

    weights = [policy.state_dict().values() for policy in trained.values()]
    difference = max(float((ours - theirs).abs().max()) for ours, theirs in zip(*weights, strict=True))
    print(f"largest difference of weights {difference}")
    opponent = RandomPlayer(game(1).spec.num_actions)
    print(play_match(game, PolicyPlayer(trained[name]), opponent, num_games=arguments.games, opening_plies=4))


if __name__ == "__main__":
    main()
