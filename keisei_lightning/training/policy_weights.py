"""The weights of a policy in a checkpoint file, put into a network that is there."""

from __future__ import annotations

import os
from typing import Any, Final

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.models import ActorCritic
from keisei_lightning.models.resnet import ResidualNetwork
from keisei_lightning.published import checkpoint_file
from keisei_lightning.training.checkpoint_header import CheckpointHeader, load_checked, network_errors
from keisei_lightning.training.saved_weights import saved_weights

__all__ = ["load_weights", "put_weights", "read_checkpoint"]

_PREFIX: Final = "actor_critic."
"""Where the module keeps the policy in its state dictionary."""

_NETWORK: Final = "network."
"""Where the policy keeps its network."""


def load_weights(policy: ActorCritic, path: str | os.PathLike[str], spec: GameSpec) -> None:
    """Give a policy the weights of a checkpoint; whatever else is in the file is left alone.

    A residual network takes those of a shallower one too, and computes the same then.

    Args:
        policy: of any network.
        path: a checkpoint file, or the name of a published policy, such as ``"published:shogi"``.
        spec: of the policy's game.

    Raises:
        ConfigError: the file is missing, corrupt, or no checkpoint of this package, or it is of another game or of
            another network; the policy is as it was.
    """
    checkpoint, header = read_checkpoint(path)
    header.check(spec, path=str(path))
    put_weights(checkpoint, policy, path=str(path), deepens=True)


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Any], CheckpointHeader]:
    """Read a whole checkpoint, on the CPU.

    Args:
        path: as :func:`load_weights` takes it.

    Returns:
        Its content, and its header.

    Raises:
        ConfigError: it is missing, corrupt, or no checkpoint of this package.
    """
    file = checkpoint_file(path)
    if not os.path.isfile(file):
        raise ConfigError(f"ckpt_path={path}: there is no such file")
    checkpoint = load_checked(file, map_location="cpu")
    return checkpoint, CheckpointHeader.from_checkpoint(checkpoint, path=str(path))


def put_weights(checkpoint: dict[str, Any], policy: ActorCritic, *, path: str, deepens: bool = False) -> None:
    """Put the weights of a checkpoint that was read into a policy.

    Args:
        checkpoint: its content.
        policy: that takes them.
        path: for the message.
        deepens: a residual network may have more blocks than that of the file.

    Raises:
        ConfigError: they are another network's.
    """
    saved = saved_weights(checkpoint, path=path)
    weights = {key.removeprefix(_PREFIX): value for key, value in saved.items() if key.startswith(_PREFIX)}
    if deepens and isinstance(policy.network, ResidualNetwork):
        of_network = {key.removeprefix(_NETWORK): value for key, value in weights.items()}
        weights |= {_NETWORK + key: value for key, value in policy.network.further_blocks(of_network).items()}
    if errors := network_errors(weights, policy.state_dict(), path=path):
        raise ConfigError(errors)
    policy.load_state_dict(weights)
