"""Backends play rollouts: in this process, or in others. The collector uses all of them by one interface."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cloudpickle
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameFactory
from keisei_lightning.parallel.memory.slots import Slots
from keisei_lightning.parallel.memory.weights import WeightMemory
from keisei_lightning.parallel.opponents.memory import OpponentSetup
from keisei_lightning.parallel.playing.worker import PlayerOptions
from keisei_lightning.parallel.supervision.events import WorkerHealth
from keisei_lightning.parallel.supervision.messages import Play, RolloutHeader

__all__ = ["Backend", "WorkerInputs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerInputs:
    """What every worker receives.

    Attributes:
        game: makes the boards.
        policy: the learner's; its structure is copied, its weights come through ``weights``.
        options: how to play.
        slots: where rollouts are written.
        weights: published weights.
        opponents: snapshots to play against; None: every game is self-play.
        games_in_flight: of each worker, to resume (serial only); empty: all games are new.
    """

    game: GameFactory
    policy: nn.Module
    options: PlayerOptions
    slots: Slots
    weights: WeightMemory
    opponents: OpponentSetup | None = None
    games_in_flight: Sequence[Mapping[str, Any]] = ()

    def policy_structure(self) -> nn.Module:
        """The policy without its weights (on the meta device): a worker binds published weights to it."""
        return copy.deepcopy(self.policy).to("meta")

    def pickled(self, *parts: object) -> bytes:
        """Pickle what is sent to worker processes.

        Args:
            parts: the game's factory, the policy's structure, or both.

        Raises:
            ConfigError: a part cannot be pickled.
        """
        try:
            pickled: bytes = cloudpickle.dumps(parts if len(parts) > 1 else parts[0])
        except Exception as error:  # whatever a third party's __getstate__ or __reduce__ raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(
                f"the game or the policy cannot be sent to worker processes, since it cannot be pickled ({reason}); "
                'must be picklable by cloudpickle, or be played with mode="serial"'
            ) from error
        return pickled


class Backend(Protocol):
    """Plays rollouts for the collector."""

    lost_rollouts: int

    def start(self) -> None:
        """Start playing; returns before all workers are ready."""
        ...

    def publish(self, weights: Tensor, version: int) -> None:
        """Weights were published in this machine's shared memory: send them to workers that do not share it.

        Args:
            weights: uint8 [WeightLayout.num_bytes], valid until the second publish from now.
            version: of them.
        """
        return

    def grant(self, worker_id: int, play: Play) -> None:
        """Let a worker write one rollout into a slot. If the worker dies, its replacement gets the grant."""
        ...

    def wait(self, timeout_s: float) -> list[RolloutHeader]:
        """Block until rollouts are announced, at most ``timeout_s``; raise the error that ended a worker for good."""
        ...

    def reset_games(self, worker_ids: Sequence[int]) -> None:
        """Let workers begin new games, on all their boards, with their next rollout."""
        ...

    def games_in_flight(self) -> list[dict[str, Any]]:
        """The state of each worker's games, between two rollouts; empty where it cannot be saved."""
        ...

    def health(self) -> list[WorkerHealth]:
        """The present state of every worker."""
        ...

    def shutdown(self, timeout_s: float) -> None:
        """End all workers; twice is harmless."""
        ...
