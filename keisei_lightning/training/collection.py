"""The collection of several learners (ranks): each has a collector of its own, and together they are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keisei_lightning.errors import ConfigError
from keisei_lightning.parallel.state.rank_share import joined_states, own_state
from keisei_lightning.training.iteration import Iteration, joined_rollouts, own_rollout
from keisei_lightning.training.ranks import Ranks
from keisei_lightning.training.source import RankedSource, RolloutSource

__all__ = ["SharedCollection"]

Results = Mapping[int, Sequence[int]]
"""Wins, draws and losses by the version of the snapshot that they are against."""


class SharedCollection:
    """A learner's collector, as a part of that of all learners; with one learner, as all of it.

    Args:
        ranks: the learners.
        source: the collector of this one.
    """

    def __init__(self, ranks: Ranks, source: RolloutSource) -> None:
        self._ranks, self._source = ranks, source
        self._ranked = source if isinstance(source, RankedSource) else None

    def begin(self) -> None:
        """Let the collector play this learner's part; before its start.

        Raises:
            ConfigError: the collectors of the learners are not of one size.
        """
        if self._ranked is not None:
            self._ranked.set_rank(self._ranks.rank, self._ranks.size)
        sizes = self._ranks.collect("making the collector", lambda: self._source.frames_per_batch)
        if len(set(sizes)) > 1:
            raise ConfigError(
                f"num_workers: the learners play {', '.join(map(str, sizes))} plies a batch; must be the same on all "
                "(auto counts the CPUs of each machine: give a number)"
            )

    def take_results(self) -> Results:
        """Results against snapshots in this learner's batch, if the learners' are to be combined."""
        pool = None if self._ranked is None or self._ranks.size == 1 else self._ranked.pool
        return {} if pool is None else pool.take_results()

    def add_results(self, parts: Sequence[Results]) -> None:
        """Let this learner's pool, as every other one, count the results of all learners, as one batch.

        Args:
            parts: of each learner.
        """
        pool = None if self._ranked is None or self._ranks.size == 1 else self._ranked.pool
        if pool is None:
            return
        combined: dict[int, list[int]] = {}
        for results in parts:
            for version, counts in results.items():
                before = combined.get(version, [0, 0, 0])
                combined[version] = [old + new for old, new in zip(before, counts, strict=True)]
        pool.add_results(combined)

    def joined(
        self, collector: Mapping[str, Any], rollout: Mapping[str, Any] | None
    ) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
        """The states of all learners as a checkpoint keeps them, on the first rank, which writes it.

        Args:
            collector: state of this learner's.
            rollout: of its interrupted iteration; None: it is not in one.
        """
        parts = self._ranks.collect_at_first((collector, rollout))
        if len(parts) < 2:
            return collector, rollout
        if self._ranked is not None:
            collector = joined_states([part for part, _ in parts])
        return collector, joined_rollouts([part for _, part in parts])

    def own(self, collector: Mapping[str, Any]) -> Mapping[str, Any]:
        """The state of this learner's collector, of :meth:`joined`'s with any number of learners."""
        if self._ranked is None:
            return collector
        return own_state(
            collector,
            rank=self._ranks.rank,
            num_ranks=self._ranks.size,
            workers_per_rank=self._ranked.num_workers,
        )

    def own_iteration(self, rollout: Mapping[str, Any], *, num_epochs: int, num_minibatches: int) -> Iteration:
        """This learner's part of the interrupted iteration of :meth:`joined`, with any number of learners.

        Args:
            rollout: of a checkpoint.
            num_epochs: passes over its plies, where the checkpoint is too old to say.
            num_minibatches: parts of a pass, likewise.
        """
        return Iteration.restored(
            own_rollout(rollout, self._ranks.rank, self._ranks.size),
            num_epochs=num_epochs,
            num_minibatches=num_minibatches,
            rank=self._ranks.rank,
            num_ranks=self._ranks.size,
        )
