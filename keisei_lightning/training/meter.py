"""Means over the minibatches of one PPO iteration, kept on the device until it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from keisei_lightning.models.transfers import to_device, to_host

__all__ = ["EpochMeter"]


class EpochMeter:
    """Means over the minibatches of one epoch, summed on the device: adding one waits for nothing.

    Args:
        names: of the metrics.
        device: where their values are.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self._names = names
        self._sums = torch.zeros(len(names), device=device)
        self._first: Tensor | None = None
        self._count = 0
        self._grad_norms = torch.zeros((), device=device)
        self._num_grad_norms = 0

    @classmethod
    def restored(cls, state: Mapping[str, Any], names: Sequence[str], device: torch.device) -> EpochMeter:
        """The meter that :meth:`state` was asked of."""
        meter = cls(names, device)
        meter._sums, meter._grad_norms = to_device(state["sums"], device), to_device(state["grad_norms"], device)
        meter._first = None if state["first"] is None else to_device(state["first"], device)
        meter._count, meter._num_grad_norms = int(state["count"]), int(state["num_grad_norms"])
        return meter

    def state(self) -> dict[str, Any]:
        """Numbers and tensors, for a checkpoint."""
        return {
            "sums": self._sums.clone(),
            "first": None if self._first is None else self._first.clone(),
            "count": self._count,
            "grad_norms": self._grad_norms.clone(),
            "num_grad_norms": self._num_grad_norms,
        }

    def add(self, metrics: TensorDictBase) -> None:
        """Add one minibatch: under each name one float32 number, and whatever else there is."""
        values = torch.cat([metrics.get(name).detach().reshape(1) for name in self._names])
        self._sums += values
        self._count += 1
        if self._first is None:
            self._first = values

    def add_grad_norm(self, norm: Tensor) -> None:
        """Add one optimiser step's gradient norm, before clipping."""
        self._grad_norms += norm
        self._num_grad_norms += 1

    def compute(self) -> dict[str, float]:
        """The means by name, and the first minibatch's as ``first_kl`` and ``first_ratio``; nothing of no minibatch."""
        if self._first is None:
            return {}
        numbers = torch.cat([self._sums / self._count, self._first, self._grad_norms.reshape(1)])
        values = to_host(numbers).tolist()  # the one transfer of an epoch's metrics
        metrics = dict(zip(self._names, values, strict=False))
        first = dict(zip(self._names, values[len(self._names) :], strict=False))
        metrics |= {"first_kl": first["kl_approx"], "first_ratio": first["mean_ratio"]}
        if self._num_grad_norms:
            metrics["grad_norm"] = values[-1] / self._num_grad_norms
        return metrics
