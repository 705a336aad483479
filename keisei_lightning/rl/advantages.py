"""Generalised advantage estimation for two players who take turns.

Notation of Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation" (2016,
arXiv:1506.02438). Every reward and every value here is that of the player who moves, so a change of the mover changes
the sign. With ``c[t] = +1`` where the mover of state t+1 is the mover of state t, and -1 where it is the other player::

    delta[t] = r[t] + gamma * c[t] * V(s[t+1]) - V(s[t])
    A[t]     = delta[t] + gamma * lambda * c[t] * A[t+1]

The paper is the case c = +1. Strict alternation is c = -1, which some call negamax GAE. Nothing is assumed of the order
of turns: a player may move twice. At a terminated state V(s[t+1]) counts as 0. After any ``done`` the recursion starts
anew, so a truncated game bootstraps from its last position, and the next game in the same row never leaks into it.

Plies of a frozen opponent
    The opponent's plies belong to the environment: a decision's successor is the learner's next decision. The learner's
    critic is not consulted at the opponent's positions, and lambda decays once for each decision, so with s[t+1] an
    opponent's position::

        A[t] = r[t] + gamma * c[t] * G[t+1] - V(s[t]),    G[t] = A[t] + V(s[t])

    which is GAE with lambda = 1 at that step. gamma counts plies, as in self-play: a position's value means the same
    whoever is to reply. Where a rollout is cut, or a game truncated, at an opponent's position, its value is the only
    bootstrap there is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor

__all__ = ["AdvantageMoments", "batch_advantages", "normalize_advantage", "two_player_gae"]


def two_player_gae(
    *,
    gamma: float,
    lmbda: float,
    state_value: Tensor,
    next_state_value: Tensor,
    reward: Tensor,
    done: Tensor,
    terminated: Tensor,
    mover: Tensor,
    next_mover: Tensor,
    trainable: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Advantages and value targets of rollouts of two-player games; the formulas are in the module's docstring.

    Args:
        gamma: discount for each ply, in [0, 1].
        lmbda: lambda of the paper, in [0, 1].
        state_value: float [B, T, 1], V(s[t]) to the mover of s[t].
        next_state_value: float [B, T, 1], V(s[t+1]) to the mover of s[t+1].
        reward: float [B, T, 1], to the player who moved at t.
        done: bool [B, T, 1], the game ended with this ply, for whatever reason.
        terminated: bool [B, T, 1], it ended by its rules; implies ``done``.
        mover: int8 [B, T], seat to move in s[t].
        next_mover: int8 [B, T], seat to move in s[t+1].
        trainable: bool [B, T], the learner made this move; all where None.

    Returns:
        advantage [B, T, 1] and value target [B, T, 1] (``advantage + state_value``), to the mover of s[t], of the dtype
        of ``state_value``, without gradient. They are computed in that dtype, in float32 at least. At plies that are
        not trainable the advantage is 0.

    Raises:
        ValueError: a shape or dtype does not fit, gamma or lmbda is out of range, or a game has terminated without
            being done.
    """
    _check_rates(gamma=gamma, lmbda=lmbda)
    _check_tensors(
        state_value.shape,
        floats={"state_value": state_value, "next_state_value": next_state_value, "reward": reward},
        flags={"done": done, "terminated": terminated},
        seats={"mover": mover, "next_mover": next_mover},
        trainable=trainable,
    )
    dtype = torch.promote_types(state_value.dtype, torch.float32)
    # Time first: each step of the recursion then reads and writes contiguous rows [B].
    value, bootstrap, rewards = (
        x.detach().squeeze(-1).T.to(dtype).contiguous() for x in (state_value, next_state_value, reward)
    )
    over, final = (x.squeeze(-1).T.contiguous() for x in (done, terminated))
    # Of two Python numbers torch.where would make float32, in which 0.995 is 0.99500000477.
    sign = torch.where((mover == next_mover).T.contiguous(), value.new_tensor(gamma), value.new_tensor(-gamma))
    delta = rewards + sign * bootstrap.masked_fill(final, 0.0) - value
    carry = (lmbda * sign).masked_fill(over, 0.0)
    learner = None if trainable is None else trainable.T.contiguous()
    if learner is not None:
        _skip_opponent_plies(delta, carry, sign=sign, value=value, bootstrap=bootstrap, over=over, learner=learner)
    advantage = _accumulate(delta, carry, learner)
    advantage, target = (x.T.unsqueeze(-1).to(state_value.dtype).contiguous() for x in (advantage, advantage + value))
    return advantage, target


def _skip_opponent_plies(
    delta: Tensor, carry: Tensor, *, sign: Tensor, value: Tensor, bootstrap: Tensor, over: Tensor, learner: Tensor
) -> None:
    """Where the successor is an opponent's ply: lambda = 1, so that the critic's value there cancels out of delta.

    Args:
        delta: float [T, B], as all others; written to.
        carry: factor of the next advantage; written to.
        sign: gamma, negative where the mover changes.
        value: V(s[t]).
        bootstrap: V(s[t+1]).
        over: bool, the game ended.
        learner: bool, the learner made this move.
    """
    through = ~learner[1:] & ~over[:-1]
    carry[:-1] = torch.where(through, sign[:-1], carry[:-1])
    delta[:-1] += torch.where(through, sign[:-1] * (value[1:] - bootstrap[:-1]), 0.0)


def _accumulate(delta: Tensor, carry: Tensor, learner: Tensor | None) -> Tensor:
    """The recursion ``A[t] = delta[t] + carry[t] * A[t+1]``, in place.

    Args:
        delta: float [T, B]; becomes the advantage.
        carry: float [T, B], factor of the next ply's advantage; not read at the last ply.
        learner: bool [T, B], elsewhere the advantage becomes 0; None: everywhere.
    """
    for t in range(len(delta) - 2, -1, -1):
        delta[t] += carry[t] * delta[t + 1]
    return delta if learner is None else delta.masked_fill_(~learner, 0.0)


def batch_advantages(batch: TensorDictBase, *, gamma: float, lmbda: float) -> tuple[Tensor, Tensor]:
    """:func:`two_player_gae` of a collected batch.

    Args:
        batch: TensorDict [B, T] with the keys of the collector's batch table.
        gamma: discount per ply.
        lmbda: GAE's lambda.

    Returns:
        ``advantage`` and ``value_target``, each float [B, T, 1], in the mover's view.
    """
    following = batch.get("next")
    return two_player_gae(
        gamma=gamma,
        lmbda=lmbda,
        state_value=batch.get("state_value"),
        next_state_value=following.get("state_value"),
        reward=following.get("reward"),
        done=following.get("done"),
        terminated=following.get("terminated"),
        mover=batch.get("mover"),
        next_mover=following.get("mover"),
        trainable=batch.get("trainable"),
    )


def normalize_advantage(advantage: Tensor, mask: Tensor | None = None) -> Tensor:
    """Shift and scale advantages to mean 0 and standard deviation 1.

    Advantages that are all the same, but for rounding, say nothing about the moves, and become 0: divided by their
    deviation, the last bits of their mean would.

    Args:
        advantage: float [..., 1].
        mask: bool [...], which plies count; all where None.

    Returns:
        float [..., 1], 0 where the mask is False, and everywhere if fewer than two plies count.

    Raises:
        ValueError: a shape or dtype does not fit.
    """
    keep = torch.ones_like(advantage, dtype=torch.bool) if mask is None else mask.unsqueeze(-1)
    if keep.shape != advantage.shape or keep.dtype != torch.bool:
        raise ValueError(
            f"mask must be bool {list(advantage.shape[:-1])} for an advantage {list(advantage.shape)}, "
            f"not {keep.dtype} {list(keep.shape[:-1])}"
        )
    count = keep.sum().clamp(min=1)
    centered = advantage.masked_fill(~keep, 0.0)
    largest = centered.abs().max() if centered.numel() else centered.new_zeros(())
    for _ in range(2):  # the second time takes away what rounding has left of the mean
        centered = (centered - centered.sum() / count).masked_fill(~keep, 0.0)
    deviation = (centered.square().sum() / (count - 1).clamp(min=1)).sqrt()
    rounding = torch.finfo(advantage.dtype).eps
    scale = torch.where(deviation > rounding * largest, 1.0 / (deviation + rounding), 0.0)
    return centered * scale


@dataclass(frozen=True, kw_only=True, slots=True)
class AdvantageMoments:
    """What normalising needs to know of a set of advantages, so that several sets can be normalised as one.

    Attributes:
        count: how many there are.
        mean: of them.
        squares: sum of the squared distances from the mean.
        largest: the largest absolute value.
    """

    count: int
    mean: float
    squares: float
    largest: float

    @classmethod
    def of(cls, advantage: Tensor) -> AdvantageMoments:
        """The moments of advantages of any shape, in float64."""
        values = advantage.double()
        if not values.numel():
            return cls(count=0, mean=0.0, squares=0.0, largest=0.0)
        mean = values.mean()
        squares, largest = (values - mean).square().sum(), values.abs().max()
        return cls(count=values.numel(), mean=float(mean), squares=float(squares), largest=float(largest))

    @classmethod
    def combined(cls, parts: Sequence[AdvantageMoments]) -> AdvantageMoments:
        """The moments of several sets together (Chan, Golub and LeVeque 1979, for any number of sets)."""
        count = sum(part.count for part in parts)
        mean = sum(part.count * part.mean for part in parts) / max(count, 1)
        squares = sum(part.squares + part.count * (part.mean - mean) ** 2 for part in parts)
        return cls(count=count, mean=mean, squares=squares, largest=max(part.largest for part in parts))

    def normalize(self, advantage: Tensor) -> Tensor:
        """Shift and scale advantages of this set, or of a part of it, as :func:`normalize_advantage` does.

        Args:
            advantage: float, of any shape.

        Returns:
            The same shape and dtype.
        """
        rounding = torch.finfo(advantage.dtype).eps
        deviation = math.sqrt(self.squares / max(self.count - 1, 1))
        scale = 1.0 / (deviation + rounding) if deviation > rounding * self.largest else 0.0
        return ((advantage.double() - self.mean) * scale).to(advantage.dtype)


def _check_rates(**rates: float) -> None:
    """Refuse a rate outside [0, 1]."""
    for name, rate in rates.items():
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"{name}={rate} must be in [0, 1]")


def _check_tensors(
    shape: torch.Size,
    *,
    floats: dict[str, Tensor],
    flags: dict[str, Tensor],
    seats: dict[str, Tensor],
    trainable: Tensor | None,
) -> None:
    """Refuse tensors of the wrong shape or dtype, before broadcasting accepts them, and flags that contradict."""
    if len(shape) != 3 or shape[-1] != 1 or shape[1] == 0:
        raise ValueError(f"state_value must be [B, T, 1] with T > 0, not {list(shape)}")
    plies = shape[:-1]
    for name, tensor in floats.items():
        if tensor.shape != shape or not tensor.is_floating_point():
            raise ValueError(f"{name} must be float {list(shape)}, not {tensor.dtype} {list(tensor.shape)}")
    for name, tensor in flags.items():
        if tensor.shape != shape or tensor.dtype != torch.bool:
            raise ValueError(f"{name} must be bool {list(shape)}, not {tensor.dtype} {list(tensor.shape)}")
    for name, tensor in seats.items():
        if tensor.shape != plies or tensor.is_floating_point():
            raise ValueError(f"{name} must be int8 {list(plies)}, not {tensor.dtype} {list(tensor.shape)}")
    if trainable is not None and (trainable.shape != plies or trainable.dtype != torch.bool):
        raise ValueError(f"trainable must be bool {list(plies)}, not {trainable.dtype} {list(trainable.shape)}")
    if bool((flags["terminated"] & ~flags["done"]).any()):
        raise ValueError("terminated must imply done: a game has ended by its rules and is not done")
