"""What training needs of a collector, and how a callback finds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Trainer
from tensordict import TensorDictBase

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec

__all__ = ["RolloutSource", "source_of"]


@runtime_checkable
class RolloutSource(Protocol):
    """Whatever yields rollouts and takes new weights: a ``SelfPlayCollector``, or a fake of one in a test."""

    @property
    def spec(self) -> GameSpec:
        """The game that is played."""
        ...

    @property
    def frames_per_batch(self) -> int:
        """Plies in one rollout batch: G * T."""
        ...

    @property
    def schedule(self) -> str:
        """``"sync"`` (collect, train, publish) or ``"async"`` (collect while training)."""
        ...

    @property
    def policy_version(self) -> int:
        """The version published last."""
        ...

    def start(self) -> None:
        """Start the workers, if they have not been started."""
        ...

    def __iter__(self) -> Iterator[TensorDictBase]:
        """Rollouts [G, T] with the keys of the batch table, each valid until the next one is asked for."""
        ...

    def update_policy_weights_(self) -> None:
        """Publish the present weights of the policy."""
        ...

    def shutdown(self, timeout: float | None = None) -> None:
        """Stop all workers; may be called again."""
        ...

    def stats(self) -> Mapping[str, float]:
        """Numbers for people and loggers."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Primitives and tensors to go on from."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict`."""
        ...


def source_of(trainer: Trainer) -> RolloutSource:
    """The collector of the trainer's data module.

    Raises:
        ConfigError: the trainer has no data module with a collector.
    """
    source = getattr(getattr(trainer, "datamodule", None), "collector", None)
    if source is None:
        raise ConfigError(
            f"datamodule={type(getattr(trainer, 'datamodule', None)).__name__}: this callback needs "
            "Trainer.fit(..., datamodule=SelfPlayDataModule(collector))"
        )
    collector: RolloutSource = source
    return collector
