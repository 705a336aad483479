"""What Lightning iterates over: the minibatches of one PPO iteration are an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from lightning.pytorch import Trainer
from tensordict import TensorDict

__all__ = ["Iterations", "MinibatchLoader"]


class Iterations(Protocol):
    """What the loader needs from the data module."""

    trainer: Trainer | None
    iteration: int

    @property
    def num_epochs(self) -> int:
        """Passes over a rollout."""
        ...

    @property
    def num_minibatches(self) -> int:
        """Minibatches in one pass over a rollout."""
        ...

    def iteration_minibatches(self) -> Iterator[TensorDict]:
        """The minibatches of one PPO iteration."""
        ...


class MinibatchLoader:
    """What Lightning iterates over: one epoch is one PPO iteration.

    It has a length: without one, Lightning prefetches a batch, so that a whole rollout would be played too early, and
    discarded at the end.

    Args:
        data: the data module that owns the collector.
    """

    def __init__(self, data: Iterations) -> None:
        self._data = data
        self._overfit: list[TensorDict] = []
        self._running: Iterator[TensorDict] | None = None

    def __len__(self) -> int:
        """Minibatches in an epoch."""
        return self._data.num_epochs * self._data.num_minibatches

    def __iter__(self) -> Iterator[TensorDict]:
        """A new epoch. Nothing is collected before the first ``next``."""
        self.release()
        self._running = self._repeated() if self._overfits() else self._data.iteration_minibatches()
        return self._running

    def release(self) -> None:
        """Release the rollout of an epoch that ended early."""
        running, self._running = self._running, None
        close = getattr(running, "close", None)
        if close is not None:
            close()

    def state_dict(self) -> dict[str, Any]:
        """The iteration; Lightning asks in the middle of an epoch. The data module keeps the rest."""
        return {"iteration": self._data.iteration}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a :meth:`state_dict`."""
        self._data.iteration = int(state_dict["iteration"])

    @property
    def is_attached(self) -> bool:
        """Whether a trainer has the data module; without it no weights are published and no worker is stopped."""
        return self._data.trainer is not None

    def _overfits(self) -> bool:
        trainer = self._data.trainer
        return trainer is not None and trainer.overfit_batches > 0  # type: ignore[attr-defined]

    def _repeated(self) -> Iterator[TensorDict]:
        """The minibatches of the first rollout, every epoch again (``overfit_batches``)."""
        if not self._overfit:
            for minibatch in self._data.iteration_minibatches():
                self._overfit.append(minibatch)
                yield minibatch
                # Lightning may abandon a generator early: what it has not asked for is not needed later either.
        else:
            yield from (minibatch.clone(recurse=False) for minibatch in self._overfit)
