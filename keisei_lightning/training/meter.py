"""Metrics of the minibatches of one PPO iteration, kept on the device until its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from tensordict import TensorDictBase
from torch import Tensor

from keisei_lightning.models.transfers import to_device, to_host
from keisei_lightning.training.ranks import ALONE, Ranks

__all__ = ["EpochMeter"]

_FIRST: Final = {"first_kl": "behaviour_kl", "first_ratio": "behaviour_ratio"}
"""Metrics of the first minibatch only, with the names that they have in the loss."""

_NUM_MOMENTS: Final = 4
"""Mean and variance of a minibatch's value targets, and of the residuals (target minus value)."""

_FIRST_CAPACITY: Final = 64


class EpochMeter:
    """Metrics of one epoch: a row of numbers for each minibatch, on the device, so that adding a row waits for nothing.

    They are aggregated on the CPU in double precision at the end of the epoch. A minibatch is weighted by its plies:
    two minibatches of one pass may differ by a ply. With several learners (ranks) each has a row for its own part of
    each minibatch; :meth:`compute` takes those of all.

    Args:
        names: of the metrics that are means over the plies.
        device: where their values are.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self._names = tuple(names)
        self._rows = torch.zeros(_FIRST_CAPACITY, self._num_columns, device=device)
        self._plies: list[int] = []
        self._grad_norms = torch.zeros((), device=device)
        self._num_grad_norms = 0
        self._num_first = 1

    @property
    def _num_columns(self) -> int:
        return len(self._names) + len(_FIRST) + _NUM_MOMENTS

    @classmethod
    def restored(cls, state: Mapping[str, Any], names: Sequence[str], device: torch.device) -> EpochMeter:
        """The meter of a :meth:`state`; an empty one for a state of another version of this package."""
        meter = cls(names, device)
        rows = state.get("rows")
        if rows is not None and rows.shape[1] == meter._num_columns:
            meter._plies, meter._num_grad_norms = list(state["plies"]), int(state["num_grad_norms"])
            meter._num_first = int(state.get("num_first", 1))
            meter._rows = torch.cat([to_device(rows, device), meter._rows])
            meter._grad_norms = to_device(state["grad_norms"], device)
        return meter

    def state(self) -> dict[str, Any]:
        """Numbers and tensors, for a checkpoint."""
        return {
            "rows": self._rows[: len(self._plies)].clone(),
            "plies": list(self._plies),
            "grad_norms": self._grad_norms.clone(),
            "num_grad_norms": self._num_grad_norms,
            **({} if self._num_first == 1 else {"num_first": self._num_first}),
        }

    @torch.no_grad()
    def add(self, losses: TensorDictBase, *, value: Tensor, value_target: Tensor) -> None:
        """Add one minibatch.

        Args:
            losses: one number under each name, ``behaviour_kl`` and ``behaviour_ratio``; others are ignored.
            value: float [b, 1], the network's state values.
            value_target: float [b, 1], their targets.
        """
        numbers = [losses.get(name) for name in (*self._names, *_FIRST.values())]
        for data in (value_target, value_target - value):
            variance, mean = torch.var_mean(data.float(), correction=0)
            numbers += [mean, variance]
        count = len(self._plies)
        if count == len(self._rows):
            self._rows = torch.cat([self._rows, torch.zeros_like(self._rows)])
        self._rows[count].copy_(torch.cat([number.reshape(1) for number in numbers]))
        self._plies.append(value_target.numel())

    def add_grad_norm(self, norm: Tensor) -> None:
        """Add one optimiser step's gradient norm, before clipping."""
        self._grad_norms += norm
        self._num_grad_norms += 1

    def compute(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """The epoch's metrics by name, over all ranks; empty before the first minibatch.

        Args:
            ranks: the learners, all of which call this.

        Returns:
            The means over the plies; ``first_kl`` and ``first_ratio`` of the first minibatch; ``grad_norm``, the mean
            over the optimiser steps, if there were any; and ``explained_variance``, which is
            ``1 - Var(target - value) / Var(target)`` over all the epoch's plies; left out where the targets vary by no
            more than rounding.
        """
        parts = ranks.collect("the means of an epoch's metrics", self._to_host)
        plies = torch.cat([part.plies for part in parts])
        if not len(plies):
            return {}
        rows = torch.cat([part.rows for part in parts])
        means = (plies @ rows) / plies.sum()
        metrics = dict(zip(self._names, means.tolist(), strict=False))
        firsts = torch.cat([part.rows[: part.num_first] for part in parts])[:, len(self._names) :]
        weight = torch.cat([part.plies[: part.num_first] for part in parts])
        first = firsts[0] if len(firsts) == 1 else (weight @ firsts) / weight.sum()
        metrics |= dict(zip(_FIRST, first.tolist(), strict=False))
        if (explained := _explained_variance(plies, rows[:, -_NUM_MOMENTS:])) is not None:
            metrics["explained_variance"] = explained
        if parts[0].num_grad_norms:  # the gradients are the same on all ranks
            metrics["grad_norm"] = parts[0].grad_norms / parts[0].num_grad_norms
        return metrics

    def _to_host(self) -> _Rows:
        """What the metrics are computed from: the one transfer of the metrics."""
        used = self._rows[: len(self._plies)].reshape(-1)
        numbers = to_host(torch.cat([used, self._grad_norms.reshape(1)])).double()
        return _Rows(
            rows=numbers[:-1].view(len(self._plies), -1) if self._plies else numbers.new_zeros(0, self._num_columns),
            plies=torch.tensor(self._plies, dtype=torch.float64),
            num_first=self._num_first,
            grad_norms=float(numbers[-1]),
            num_grad_norms=self._num_grad_norms,
        )

    def joined_state(self, ranks: Ranks) -> dict[str, Any]:
        """The state of the meters of all ranks, as that of one: on the first rank, which writes it.

        Args:
            ranks: the learners, all of which call this.
        """
        if ranks.size == 1:
            return self.state()
        states = ranks.collect_at_first({**self.state(), "rows": to_host(self._rows[: len(self._plies)])})
        if not states:
            return self.state()
        firsts = [int(state.get("num_first", 1)) if state["plies"] else 0 for state in states]
        order = [*((state, slice(0, first)) for state, first in zip(states, firsts, strict=True))]
        order += [(state, slice(first, None)) for state, first in zip(states, firsts, strict=True)]
        return {
            **states[0],
            "rows": torch.cat([state["rows"][part] for state, part in order]),
            "plies": [plies for state, part in order for plies in state["plies"][part]],
            "num_first": sum(firsts),
        }

    @classmethod
    def of_rank(cls, state: Mapping[str, Any], names: Sequence[str], device: torch.device, rank: int) -> EpochMeter:
        """A rank's meter of a :meth:`joined_state`: the first rank takes all rows, since their means are over all."""
        meter = cls.restored(state, names, device)
        if rank > 0:
            meter._plies, meter._num_first = [], 0
        return meter


@dataclass(frozen=True, slots=True)
class _Rows:
    """The numbers of one rank's epoch, on the CPU.

    Attributes:
        rows: float64 [n, columns], of each minibatch.
        plies: float64 [n], its plies.
        num_first: so many rows are of the epoch's first minibatch.
        grad_norms: sum of the gradients' norms.
        num_grad_norms: how many they are.
    """

    rows: Tensor
    plies: Tensor
    num_first: int
    grad_norms: float
    num_grad_norms: int


def _explained_variance(plies: Tensor, moments: Tensor) -> float | None:
    """Share of the variance of the value targets that the values explain; None: the targets have no variance.

    Args:
        plies: float64 [n], of each minibatch.
        moments: float64 [n, 4]: mean and variance of the targets, mean and variance of the residuals.
    """
    weight = plies / plies.sum()

    def variance(mean: Tensor, within: Tensor) -> float:
        # Of all plies together: the variance within the minibatches and that of their means.
        return float(weight @ (within + (mean - weight @ mean).square()))

    total = variance(moments[:, 0], moments[:, 1])
    square = float(weight @ (moments[:, 1] + moments[:, 0].square()))
    if total <= (4.0 * torch.finfo(torch.float32).eps) ** 2 * square:
        return None
    return 1.0 - variance(moments[:, 2], moments[:, 3]) / total
