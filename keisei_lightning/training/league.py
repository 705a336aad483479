"""A league while training: its members by name, when a snapshot joins it, and its table."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.registry import parse_player, player_factory
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel.opponents.league import League, PolicyMember
from keisei_lightning.parallel.opponents.players import PlayerMember
from keisei_lightning.parallel.opponents.pool import SnapshotPool
from keisei_lightning.parallel.opponents.standings import snapshot_name
from keisei_lightning.parallel.options import OpponentOptions
from keisei_lightning.published import checkpoint_file, is_checkpoint
from keisei_lightning.training.checkpoint import AtomicCheckpointIO
from keisei_lightning.training.checkpoint_header import network_errors
from keisei_lightning.training.evaluation import metric_name
from keisei_lightning.training.league_table import LeagueTable, Period
from keisei_lightning.training.options import LeagueOptions, SnapshotOptions
from keisei_lightning.training.pool_folder import PoolFolder
from keisei_lightning.training.ranks import ranks_of
from keisei_lightning.training.saved_weights import saved_weights
from keisei_lightning.training.snapshots import SnapshotCallback
from keisei_lightning.training.source import find_source

__all__ = ["LeagueCallback", "make_league"]

log = logging.getLogger(__name__)

_PREFIX = "actor_critic."
"""Where a module keeps the policy in its state dictionary."""


def make_league(options: OpponentOptions, members: Sequence[str], actor_critic: ActorCritic) -> League:
    """Make a league of members by name. Nothing is started.

    Args:
        options: of the opponents.
        members: players by name (:func:`~keisei_lightning.evaluation.make_player`), and checkpoint files.
        actor_critic: the policy that learns, whose network those of the checkpoints must have.

    Raises:
        ConfigError: with a line for each member that cannot be.
    """
    players: list[PlayerMember] = []
    policies: list[PolicyMember] = []
    errors: list[str] = []
    for name in members:
        try:
            if is_checkpoint(name):
                policies.append(PolicyMember(name, _read_policy(name, actor_critic)))
            else:
                players.append(PlayerMember(parse_player(name).text, player_factory(name)))
        except ConfigError as error:
            errors += [line.replace("ckpt_path=", "opponents.members=", 1) for line in error.errors]
    if errors:
        raise ConfigError(errors)
    return League(options=options, players=tuple(players), policies=tuple(policies))


def _read_policy(path: str, actor_critic: ActorCritic) -> ActorCritic:
    """A policy of the learner's network, with a checkpoint's weights."""
    checkpoint = AtomicCheckpointIO().load_checkpoint(checkpoint_file(path), map_location="cpu")  # type: ignore[arg-type]
    saved = saved_weights(checkpoint, path=path)
    weights = {name.removeprefix(_PREFIX): value for name, value in saved.items() if name.startswith(_PREFIX)}
    policy = copy.deepcopy(actor_critic)
    if errors := network_errors(weights, policy.state_dict(), path=path):
        raise ConfigError(errors)
    policy.load_state_dict(weights)
    return policy


@runtime_checkable
class _LeagueSource(Protocol):
    @property
    def pool(self) -> SnapshotPool | None: ...

    @property
    def policy_version(self) -> int: ...

    @property
    def plies(self) -> int: ...

    @property
    def policy(self) -> nn.Module: ...


class LeagueCallback(SnapshotCallback):
    """Lets snapshots join the collector's league, and keeps its table.

    It logs ``league/score`` (against the frozen policies, the mean over them), ``league/score_vs_NAME`` for each player
    and checkpoint, as soon as games against it have ended, and after each snapshot ``league/elo``. Files in
    ``directory``, written after each snapshot and at the end: ``league.csv`` and ``league.png``
    (:class:`~keisei_lightning.training.league_table.LeagueTable`). The table is in the checkpoint.

    Args:
        directory: where to write.
        every_n_epochs: iterations between two snapshots.
        join_score: a snapshot that is due joins only if the learner's mean score against the frozen policies is at
            least this; otherwise it is asked again an iteration later. None: it joins always.
        folder: shared with other runs: snapshots are written there, and those of others join at the end of the
            iteration in which they are found. None: there is none.
        own_snapshots: this run's snapshots join its own ring; otherwise only the folder has them.

    Raises:
        ConfigError: an option is out of its bounds, ``own_snapshots`` is False without a folder, or (when training
            starts) the collector has no pool, or there are several learners (ranks) and a folder.
    """

    def __init__(
        self,
        directory: str | Path,
        every_n_epochs: int = SnapshotOptions.every_n_epochs,
        join_score: float | None = None,
        *,
        folder: PoolFolder | None = None,
        own_snapshots: bool = True,
    ) -> None:
        super().__init__(every_n_epochs)
        if folder is None and not own_snapshots:
            raise ConfigError("own_snapshots=False: must be True without a folder (nobody would have them)")
        self._folder, self._own_snapshots = folder, own_snapshots
        self.directory = Path(directory)
        self.join_score = LeagueOptions(join_score=join_score).join_score
        self.table = LeagueTable()
        self.files: list[Path] = []
        """What has been written last."""
        self._is_due = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a collector that has no pool, and a folder with several learners (ranks)."""
        self._league_source(trainer)
        if self._folder is not None and ranks_of(trainer).size > 1:
            raise ConfigError("folder: must be None with several learners (ranks), which would find different files")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a snapshot join, if it is time and the learner has reached the score, and those of others; log scores."""
        pool = self._pool(trainer)
        if self._folder is not None:
            for name, weights in self._folder.take(pool.memory.layout):
                if not pool.push_guest(name, weights):
                    break  # it is found again an iteration later
        self._is_due |= (trainer.current_epoch + 1) % self.every_n_epochs == 0
        values = {"league/score": pool.score_of_policies} if pool.has_policies else {}
        values |= {f"league/score_vs_{metric_name(each.member)}": each.score for each in pool.staying if each.games}
        if self._is_due and pool.score_of_policies >= (self.join_score or 0.0):
            self._join(trainer, pool, values)
        pl_module.log_dict(values, batch_size=1)

    def _join(self, trainer: Trainer, pool: SnapshotPool, values: dict[str, float]) -> None:
        present = self._present(trainer, epochs_done=trainer.current_epoch + 1)
        name = snapshot_name(self._league_source(trainer).policy_version)
        if self._own_snapshots and not self._push(trainer):
            log.warning(
                "epoch %d: no snapshot was taken: games in flight still need every buffer", trainer.current_epoch
            )
            return
        self._is_due = False
        self._publish(trainer)
        if (elo := self.table.rate(present).get(present.name)) is not None:
            values["league/elo"] = elo
        self.table.end(present, name, pool.totals)
        self._write(trainer, epochs_done=trainer.current_epoch + 1)

    def _publish(self, trainer: Trainer) -> None:
        if self._folder is None:
            return
        source = self._league_source(trainer)
        try:
            self._folder.publish(source.policy, source.policy_version)
        except OSError as error:  # the others play on without it, and so does this run
            log.warning("a snapshot was not written to the league's folder: %s", error)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        self._write(trainer, epochs_done=trainer.current_epoch)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the table as it is."""
        if getattr(find_source(trainer), "pool", None) is not None:
            self._write(trainer, epochs_done=trainer.current_epoch)

    def state_dict(self) -> dict[str, Any]:
        """The table, and whether a snapshot is due: plain numbers and text."""
        folder = None if self._folder is None else self._folder.state_dict()
        return {**self.table.state_dict(), "is_due": self._is_due, "folder": folder}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a :meth:`state_dict`."""
        self.table.load_state_dict(state_dict)
        self._is_due = bool(state_dict["is_due"])
        if self._folder is not None and state_dict["folder"] is not None:
            self._folder.load_state_dict(state_dict["folder"])

    def _present(self, trainer: Trainer, *, epochs_done: int) -> Period:
        plies = self._league_source(trainer).plies * ranks_of(trainer).size
        return self.table.present(self._pool(trainer).totals, epoch=epochs_done, plies=plies)

    def _write(self, trainer: Trainer, *, epochs_done: int) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        try:
            self.files = self.table.write(self.directory, self._present(trainer, epochs_done=epochs_done))
        except OSError as error:  # a table is worth no training's exit code; the checkpoint has what is in it
            log.warning("the league's table was not written to %s: %s", self.directory, error)

    def _league_source(self, trainer: Trainer) -> _LeagueSource:
        source = self._source(trainer)
        if not isinstance(source, _LeagueSource):
            raise ConfigError(f"{type(source).__name__}: has no pool, which LeagueCallback needs")
        return source

    def _pool(self, trainer: Trainer) -> SnapshotPool:
        pool = self._league_source(trainer).pool
        if pool is None:
            raise ConfigError("LeagueCallback: the collector has no pool; make it with opponents=League(...)")
        return pool
