"""Targets of a win-draw-loss head: a distribution over the three outcomes for every ply.

An expected score does not distinguish a position that is always drawn from one that is won and lost equally often, nor
does a head that is trained only through it. So the head has a distribution as its target, as in Leela Chess Zero
(https://lczero.org/blog/2020/04/wdl-head/); the loss is the cross-entropy.

PPO's games are cut at the end of a rollout, so a target is not the outcome alone: it is the lambda-return of
distributions, a categorical distributional return of three atoms (Bellemare et al. 2017, arXiv:1707.06887)::

    T[t] = outcome                                                 where the game ends with ply t
    T[t] = (1 - gamma) draw + gamma c[t] ((1 - lambda) P(s[t+1]) + lambda T[t+1])       elsewhere

with c[t] exchanging win and loss where the mover changes. A discount takes the part ``1 - gamma`` to the draw at each
ply, as it takes a value to zero. So the expected score of T is the value target of GAE itself, and only one number more
is needed: the probability q that either player wins, the discounted return of ``abs(r)``, whose sign never changes.
"""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from keisei_lightning.rl.advantages import two_player_gae

__all__ = ["outcome_targets"]


def outcome_targets(
    batch: TensorDictBase, decisive: Tensor, value_target: Tensor, *, gamma: float, lmbda: float
) -> Tensor:
    """Targets of a head of win, draw and loss.

    Args:
        batch: TensorDict [B, T] with the keys of the collector's batch table.
        decisive: float [B, T, 1], the network's probability q that the game from s[t] is not drawn.
        value_target: float [B, T, 1], of :func:`~keisei_lightning.rl.batch_advantages` with the same gamma and lmbda.
        gamma: discount per ply.
        lmbda: GAE's lambda.

    Returns:
        float [B, T, 3]: probabilities of the mover's win, draw and loss; ``win - loss`` is the value target.

    Raises:
        ValueError: a shape or dtype does not fit, or a rate is out of range.
    """
    following = batch.get("next")
    state_value, next_state_value = batch.get("state_value"), following.get("state_value")
    # A rollout does not hold the position after its last ply. There, and where a game is truncated, the one before it
    # stands for it: under one policy the probability of a draw has no drift.
    after = torch.where(following.get("done"), decisive, torch.cat([decisive[:, 1:], decisive[:, -1:]], dim=1))
    same_mover = torch.zeros_like(batch.get("mover"))  # so that no sign changes
    _, target = two_player_gae(
        gamma=gamma,
        lmbda=lmbda,
        # An expected score other than 0 implies at least such a chance of a win; older weights may have given it.
        state_value=decisive.maximum(state_value.abs()),
        next_state_value=after.maximum(next_state_value.abs()),
        reward=following.get("reward").abs(),
        done=following.get("done"),
        terminated=following.get("terminated"),
        mover=same_mover,
        next_mover=same_mover,
        trainable=batch.get("trainable"),
    )
    score = value_target.clamp(-1.0, 1.0)
    target = target.clamp(max=1.0).maximum(score.abs())
    return torch.cat([(target + score) / 2, 1.0 - target, (target - score) / 2], dim=-1)
