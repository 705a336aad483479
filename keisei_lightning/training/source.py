"""What training needs from a collector, and how a callback finds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Trainer
from tensordict import TensorDictBase
from torch import nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import GameSpec
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel.opponents.pool import SnapshotPool
from keisei_lightning.parallel.state.figures import Figure
from keisei_lightning.parallel.supervision.messages import BoardView

__all__ = [
    "RankedSource",
    "RolloutSource",
    "WatchableSource",
    "actor_critic_of",
    "check_same_policy",
    "find_source",
    "learned_policy",
    "source_of",
]


@runtime_checkable
class RolloutSource(Protocol):
    """Yields rollouts and takes new weights: a ``SelfPlayCollector``, or a fake of one in a test."""

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

    def reopen(self) -> None:
        """Make :meth:`start` possible again after :meth:`shutdown`, with the same counters; otherwise do nothing."""
        ...

    def stats(self) -> Mapping[str, float]:
        """Numbers for people and loggers."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Primitives and tensors to resume from."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a :meth:`state_dict`."""
        ...


@runtime_checkable
class RankedSource(RolloutSource, Protocol):
    """A source that plays a part of what several learners (ranks) play together, as a ``SelfPlayCollector`` can.

    Any other :class:`RolloutSource` has to see to it itself that ranks do not play the same games. Checkpoints keep the
    state of the first rank's, and metrics are those of the first rank.
    """

    @property
    def num_workers(self) -> int:
        """Workers of this rank; all ranks have as many."""
        ...

    @property
    def pool(self) -> SnapshotPool | None:
        """Snapshots that games are played against; None: there are none."""
        ...

    def set_rank(self, rank: int, num_ranks: int) -> None:
        """Play as one of several, before the start."""
        ...

    def figures(self) -> Mapping[str, Figure]:
        """The numbers of :meth:`stats`, to be combined with those of other ranks."""
        ...


@runtime_checkable
class WatchableSource(RolloutSource, Protocol):
    """A source that tells of single workers and shows games in progress, as a ``SelfPlayCollector`` does."""

    @property
    def drawn_boards(self) -> Mapping[int, Sequence[BoardView]]:
        """The newest pictures of games in progress, by worker."""
        ...

    def draw_boards(self, num_boards: int) -> None:
        """Have the next rollouts bring such pictures."""
        ...

    def health(self) -> list[dict[str, Any]]:
        """One entry for each worker (see ``SelfPlayCollector.health``)."""
        ...


def source_of(trainer: Trainer) -> RolloutSource:
    """The collector of the trainer's data module.

    Raises:
        ConfigError: the trainer has no data module with a collector.
    """
    source = find_source(trainer)
    if source is None:
        raise ConfigError(
            f"datamodule={type(getattr(trainer, 'datamodule', None)).__name__}: this callback needs "
            "Trainer.fit(..., datamodule=SelfPlayDataModule(collector))"
        )
    return source


def find_source(trainer: Trainer | None) -> RolloutSource | None:
    """The collector of the trainer's data module; None where there is none (yet)."""
    source: RolloutSource | None = getattr(getattr(trainer, "datamodule", None), "collector", None)
    return source


def actor_critic_of(module: object, *, wanted_by: str) -> ActorCritic:
    """The policy that a module trains: its ``actor_critic``, or the only :class:`ActorCritic` inside it.

    Args:
        module: any LightningModule.
        wanted_by: who needs it, for the message.

    Raises:
        ConfigError: it has none, or several and none of them is ``actor_critic``.
    """
    named = getattr(module, "actor_critic", None)
    if isinstance(named, ActorCritic):
        return named
    parts = module.modules() if isinstance(module, nn.Module) else ()
    inside = [part for part in parts if isinstance(part, ActorCritic)]
    if len(inside) == 1:
        return inside[0]
    raise ConfigError(f"{wanted_by}: {type(module).__name__} must have the policy as `actor_critic`, an ActorCritic")


def learned_policy(source: RolloutSource) -> nn.Module | None:
    """The policy that a source plays with, if it has trainable parameters."""
    policy = getattr(source, "policy", None)
    if not isinstance(policy, nn.Module) or not any(weight.requires_grad for weight in policy.parameters()):
        return None
    return policy


def check_same_policy(source: RolloutSource, module: nn.Module) -> None:
    """Refuse a collector whose workers would never get what the module learns.

    A wrapped policy (``as_policy()``) counts as the same one: its parameters are the same objects.

    Args:
        source: the collector.
        module: learns.

    Raises:
        ConfigError: a parameter of the collector's policy is none of the module's.
    """
    policy = learned_policy(source)
    if policy is None:
        return
    learned = {id(weight) for weight in module.parameters()}
    foreign = next((n for n, w in policy.named_parameters() if w.requires_grad and id(w) not in learned), None)
    if foreign is not None:
        raise ConfigError(
            f"collector: its policy is not the one that {type(module).__name__} learns ({foreign} is another object), "
            "so its workers would never get new weights; give both the same ActorCritic object"
        )
