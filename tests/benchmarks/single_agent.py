"""Training as ``train.py`` does it, with one thing wrong: advantages as if a single agent made all moves.

The ablation behind "correct two-player mathematics": the next mover's value and reward are taken for the mover's own,
as a collector does that passes self-play on to ordinary generalised advantage estimation.
"""

from __future__ import annotations

import sys

from tensordict import TensorDictBase
from torch import Tensor
from torchrl.objectives.value.functional import vec_generalized_advantage_estimate

from keisei_lightning.commands.train import main
from keisei_lightning.training import minibatches


def single_agent_advantages(batch: TensorDictBase, *, gamma: float, lmbda: float) -> tuple[Tensor, Tensor]:
    """TorchRL's own estimate, blind to whose move it is."""
    following = batch.get("next")
    advantage, value_target = vec_generalized_advantage_estimate(
        gamma,
        lmbda,
        batch.get("state_value"),
        following.get("state_value"),
        following.get("reward"),
        following.get("done"),
        following.get("terminated"),
        time_dim=-2,
    )
    return advantage, value_target


if __name__ == "__main__":
    minibatches.batch_advantages = single_agent_advantages
    sys.exit(main(sys.argv[1:]))
