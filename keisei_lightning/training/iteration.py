"""One PPO iteration: a rollout with its advantages, and the progress through its minibatches.

Several learners (ranks) take equally many minibatches, each of its own plies. Minibatch k of a training with R ranks is
that of all of them together; each takes its part of it, and DDP averages the gradients. Where the parts differ in size
(plies against an opponent are not learned from, so ranks have more or fewer), a rank's loss has a weight, so that the
average is the gradient of the mean over all plies of the minibatch, and not a mean of means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from tensordict import TensorDict
from torch import Tensor

from keisei_lightning.models.transfers import to_device, to_host
from keisei_lightning.training.minibatches import minibatches, shuffle_generator

__all__ = ["LOSS_WEIGHT", "Iteration", "joined_rollouts", "own_rollout"]

LOSS_WEIGHT: Final = "loss_weight"
"""Key of a minibatch: float32 [b], the same in all rows, by which its loss is multiplied; missing where it is 1."""


@dataclass(slots=True)
class Iteration:
    """A rollout and the progress through its minibatches.

    Attributes:
        plies: TensorDict [M], with advantages, on the learner's device.
        trainable: int64 [N], rows of it to learn from.
        num_epochs: passes over them.
        num_minibatches: parts of a pass.
        taken: minibatches that were handed out.
        counts: rows to learn from, of each rank that played a part of the iteration.
        rank: which learner this is.
        num_ranks: learners there are now. Where they are as many as played, ``plies`` are this one's own; otherwise
            those of all that played, one rank's after the other's, and each minibatch of them is split anew.
        starts: of the latter, the first row of each rank, and the number of all rows.
    """

    plies: TensorDict
    trainable: Tensor
    num_epochs: int
    num_minibatches: int
    taken: int = 0
    counts: Sequence[int] = ()
    rank: int = 0
    num_ranks: int = 1
    starts: Sequence[int] = ()

    @property
    def _is_own(self) -> bool:
        return len(self.counts) in (0, self.num_ranks)

    def minibatches(self, *, seed: int, number: int) -> Iterator[TensorDict]:
        """The minibatches that were not handed out yet, for this rank.

        Args:
            seed: of the shuffling.
            number: of the iteration.

        Yields:
            TensorDict [b], with :data:`LOSS_WEIGHT` where it is not 1.
        """
        for minibatch in self._own(seed, number) if self._is_own else self._split(seed, number):
            self.taken += 1
            yield minibatch

    def _own(self, seed: int, number: int) -> Iterator[TensorDict]:
        counts = self.counts or [len(self.trainable)]
        parts = min(self.num_minibatches, *counts) if len(counts) > 1 else self.num_minibatches
        weights = loss_weights(counts, parts, self.rank)
        for taken, minibatch in enumerate(
            minibatches(
                self.plies,
                self.trainable,
                num_epochs=self.num_epochs,
                num_minibatches=parts,
                generator=shuffle_generator(seed, number, self.rank),
                skip=self.taken,
            ),
            start=self.taken,
        ):
            yield _weighted(minibatch, weights[taken % parts] if weights else 1.0)

    def _split(self, seed: int, number: int) -> Iterator[TensorDict]:
        """The minibatches of the ranks that played, each split among those that there are now."""
        parts = min(self.num_minibatches, *self.counts)
        generators = [shuffle_generator(seed, number, rank) for rank in range(len(self.counts))]
        trainable = self.trainable.split(list(self.counts))
        device = self.plies.get("action").device
        for epoch in range(self.num_epochs if parts else 0):
            pieces = [
                rows[torch.randperm(len(rows), generator=generator)].tensor_split(parts)
                for rows, generator in zip(trainable, generators, strict=True)
            ]
            for k in range(max(0, self.taken - epoch * parts), parts):
                whole = torch.cat([piece[k] for piece in pieces])
                own = whole.tensor_split(self.num_ranks)[self.rank]
                weight = len(own) * self.num_ranks / len(whole)
                rows = to_device(own if len(own) else whole[:1], device)  # of a mean of nothing there is no gradient
                picked = {key: column.index_select(0, rows) for key, column in self.plies.items()}
                yield _weighted(TensorDict(picked, batch_size=len(rows)), weight)

    def state(self) -> dict[str, Any]:
        """Tensors on the CPU, and numbers; copies, since the rollout may be a view of shared memory."""
        plies = {key: to_host(column, copy=True) for key, column in self.plies.items()}
        numbers = {"num_epochs": self.num_epochs, "num_minibatches": self.num_minibatches, "taken": self.taken}
        counts = {"counts": list(self.counts), "starts": list(self.starts)} if len(self.counts) > 1 else {}
        return {"plies": plies, "trainable": self.trainable.clone(), **numbers, **counts}

    @classmethod
    def restored(
        cls, state: dict[str, Any], *, num_epochs: int, num_minibatches: int, rank: int = 0, num_ranks: int = 1
    ) -> Iteration:
        """From a checkpoint; the numbers are for older checkpoints, which do not have them.

        Args:
            state: of :func:`own_rollout`.
            num_epochs: passes over the plies.
            num_minibatches: parts of a pass.
            rank: which learner this is.
            num_ranks: how many there are.
        """
        plies = TensorDict(state["plies"], batch_size=len(state["plies"]["action"]))
        return cls(
            plies,
            state["trainable"],
            num_epochs=int(state.get("num_epochs", num_epochs)),
            num_minibatches=int(state.get("num_minibatches", num_minibatches)),
            taken=int(state["taken"]),
            counts=state.get("counts", [len(state["trainable"])]),
            rank=rank,
            num_ranks=num_ranks,
            starts=() if len(state.get("counts", ())) == num_ranks else state.get("starts", ()),
        )


def loss_weights(counts: Sequence[int], parts: int, rank: int) -> list[float]:
    """The weight of a rank's loss in each minibatch of a pass, so that the mean over the ranks is one over all plies.

    Args:
        counts: rows to learn from, of each rank.
        parts: minibatches of a pass.
        rank: which one.

    Returns:
        A weight for each minibatch; empty where all are 1.
    """
    if not parts or len(set(counts)) == 1:
        return []
    sizes = [[count // parts + (k < count % parts) for k in range(parts)] for count in counts]  # as tensor_split splits
    return [len(counts) * sizes[rank][k] / sum(size[k] for size in sizes) for k in range(parts)]


def _weighted(minibatch: TensorDict, weight: float) -> TensorDict:
    if weight != 1.0:
        minibatch.set(LOSS_WEIGHT, torch.full((len(minibatch),), weight, device=minibatch.get("action").device))
    return minibatch


def joined_rollouts(states: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """An interrupted iteration as a checkpoint keeps it: the plies of all ranks, one rank's after the other's.

    Args:
        states: of each rank's iteration (:meth:`Iteration.state`); None where it was not in one.
    """
    first = states[0]
    if first is None or len(states) == 1 or first.get("starts") or "counts" not in first:
        return None if first is None else dict(first)  # of all ranks already
    parts = [state for state in states if state is not None]
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part["plies"]["action"]))
    return {
        **first,
        "plies": {key: torch.cat([part["plies"][key] for part in parts]) for key in first["plies"]},
        "trainable": torch.cat([part["trainable"] + start for part, start in zip(parts, starts, strict=False)]),
        "starts": starts,
    }


def own_rollout(state: Mapping[str, Any], rank: int, num_ranks: int) -> dict[str, Any]:
    """What a rank needs of :func:`joined_rollouts`: its own plies, or with another number of ranks those of all."""
    counts, starts = state.get("counts", []), state.get("starts", [])
    if len(counts) != num_ranks or num_ranks == 1:
        return dict(state)
    own = slice(starts[rank], starts[rank + 1])
    return {
        **state,
        "plies": {key: column[own] for key, column in state["plies"].items()},
        "trainable": state["trainable"].split(counts)[rank] - starts[rank],
    }
