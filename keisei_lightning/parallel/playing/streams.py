"""Random streams and trajectory ids: each rollout of each group of games has its own, derived from one root seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["RolloutStreams", "rollout_seeds"]

_TRAJECTORY_BITS = 32  # games of one incarnation ...
_GROUP_TRAJECTORY_BITS = 28  # ... and of one of its groups (at most options.MAX_GROUPS)
_INCARNATION_BITS = 16


def rollout_seeds(seed: int, worker_id: int, incarnation: int, position: int, group: int = 0) -> tuple[int, int]:
    """The seeds of one rollout: (of the game's openings and all else but the actions, of sampling actions).

    Every rollout has random streams of its own, all spawned from one root seed (``numpy.random.SeedSequence``). So no
    state of a generator has to be saved to resume from a checkpoint as if there had been no interruption.

    Args:
        seed: root seed of every random stream.
        worker_id: which worker plays, numbered over all learners (ranks).
        incarnation: of the worker.
        position: plies that all ranks' collectors had delivered before this rollout, if no rollout were ever lost.
        group: of the worker's games.
    """
    key = (worker_id, incarnation, position, *([group] if group else []))
    game, actions = np.random.SeedSequence(seed, spawn_key=key).generate_state(2, np.uint32)
    return int(game), int(actions)


@dataclass(kw_only=True, slots=True)
class RolloutStreams:
    """The seeds of one group's rollouts, one after the other, and the range of its trajectory ids.

    Attributes:
        seed: root seed of every random stream.
        worker_id: which worker plays, numbered over all learners (ranks); stored with every ply.
        incarnation: of the worker.
        position: plies delivered before the next rollout (above 0 in a resumed run).
        stride: plies of one batch of all ranks.
        group: which of the worker's groups of games plays.
    """

    seed: int = 0
    worker_id: int
    incarnation: int
    position: int = 0
    stride: int = 1
    group: int = 0

    def next_seeds(self) -> tuple[int, int]:
        """The seeds of the next rollout; see :func:`rollout_seeds`."""
        seeds = rollout_seeds(self.seed, self.worker_id, self.incarnation, self.position, self.group)
        self.position += self.stride
        return seeds

    @property
    def first_trajectory(self) -> int:
        """The first of the ids that no other worker, incarnation or group uses."""
        process = (self.worker_id << _INCARNATION_BITS) | self.incarnation
        return (process << _TRAJECTORY_BITS) | (self.group << _GROUP_TRAJECTORY_BITS)
