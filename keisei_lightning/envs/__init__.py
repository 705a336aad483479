"""Games as TorchRL environments."""

from keisei_lightning.envs.board_game import BoardGameEnv, random_policy

__all__ = ["BoardGameEnv", "random_policy"]
