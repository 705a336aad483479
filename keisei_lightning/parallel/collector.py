"""The collector: rollouts from all workers in, TensorDict batches out.

``schedule="sync"``: asking for a batch lets every worker play one rollout with the newest weights (on-policy, lag 0).
``schedule="async"``: workers play on while the learner learns, as long as they have a free slot; what comes out older
than ``max_policy_lag`` is refused and counted.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.collectors import BaseCollector

from keisei_lightning.errors import CollectorClosedError, ConfigError
from keisei_lightning.games import GameFactory
from keisei_lightning.models import unpack_mask
from keisei_lightning.parallel.control import WorkerControl
from keisei_lightning.parallel.intake import NOTHING_UNDELIVERED, to_batch
from keisei_lightning.parallel.memory.slots import ColumnKey
from keisei_lightning.parallel.memory.weight_sources import choose_weights
from keisei_lightning.parallel.memory.weights import copy_weights
from keisei_lightning.parallel.opponents.league import League
from keisei_lightning.parallel.opponents.pool import SnapshotPool, SnapshotStanding
from keisei_lightning.parallel.options import (
    BatchOptions,
    ClusterOptions,
    CollectorOptions,
    OpponentOptions,
    SupervisionOptions,
    WorkerOptions,
)
from keisei_lightning.parallel.session import CollectorSpec, Session
from keisei_lightning.parallel.state.figures import Figure, values_of
from keisei_lightning.parallel.state.rank_share import RankShare
from keisei_lightning.parallel.state.resume_state import ResumeState
from keisei_lightning.parallel.state.stats import CollectionStats
from keisei_lightning.system.openmp import governed_spinning
from keisei_lightning.system.options import SeedOptions, with_keywords

__all__ = ["SelfPlayCollector"]


class SelfPlayCollector(WorkerControl, BaseCollector):
    """Collects self-play in parallel worker processes; a TorchRL collector.

    Iterating it yields TensorDicts of batch size [W * G, T] (time last, names ``(None, "time")``) with the keys of the
    batch table: everything in the mover's view, ``action_mask`` bit-packed, values of the next state instead of next
    observations. Workers start with the first batch (or :meth:`start`) and stop with :meth:`shutdown`, with the
    ``with`` block, or with this process.

    Its options are in groups, each a frozen dataclass of :mod:`keisei_lightning.parallel.options` that says what each
    of them does. Every option of every group may also be given as a keyword, which counts more than its group::

        SelfPlayCollector(game, policy, num_workers=8, games_per_worker=128, heartbeat_s=5)
        SelfPlayCollector(game, policy, CollectorOptions(num_workers=8), supervision=SupervisionOptions(heartbeat_s=5))

    Args:
        game: makes the boards: ``game_factory("shogi")``, or your own (checked by ``check_game``).
        policy: an ``ActorCritic``, or a TorchRL policy that writes ``action``, ``action_log_prob`` and
            ``state_value``. Its present weights are version 0; the workers get copies.
        options: what is played by W ``num_workers`` of G ``games_per_worker`` for T ``plies_per_rollout``.
        workers: how the workers run the policy.
        supervision: when a worker is replaced, and when that ends the training.
        batches: what the iterator delivers.
        opponents: of a share of the games: snapshots that :meth:`push_snapshot` freezes, and members of a ``League``.
        cluster: with ``mode="ray"``, where the workers run: then ``num_workers`` is the number of each node agent.
        replay_buffer: batches are added to it as flat plies, and the iterator yields None, as in TorchRL.
        seed: root seed of every random stream; every worker has its own, spawned from it.
        **keywords: options of all groups but ``opponents`` by name.

    Raises:
        ConfigError: a value that cannot work, or a policy whose results are not those of the game.
        TypeError: a keyword is no option.
        WorkerBootError, WorkerCrashLoopError, TooFewWorkersError, StalePolicyError: while iterating.
    """

    init_random_frames = 0  # TorchRL's Trainer compares with it; self-play has no use for random frames

    def __init__(
        self,
        game: GameFactory,
        policy: nn.Module,
        options: CollectorOptions | None = None,
        *,
        workers: WorkerOptions | None = None,
        supervision: SupervisionOptions | None = None,
        batches: BatchOptions | None = None,
        opponents: OpponentOptions | League | None = None,
        cluster: ClusterOptions | None = None,
        replay_buffer: Any | None = None,
        seed: int = 0,
        **keywords: Any,
    ) -> None:
        super().__init__()
        options, workers, supervision, batches, cluster, _ = with_keywords(
            type(self).__name__,
            *(options or CollectorOptions(), workers or WorkerOptions(), supervision or SupervisionOptions()),
            *(batches or BatchOptions(), cluster or ClusterOptions(), SeedOptions()),
            keywords={**keywords, "seed": seed},
        )
        self._collector_spec = collector_spec = CollectorSpec.checked(
            game,
            policy,
            options,
            workers,
            supervision=supervision,
            batches=batches,
            opponents=opponents,
            cluster=cluster,
        )
        self.spec, self.policy, self.seed, self.replay_buffer = collector_spec.game_spec, policy, seed, replay_buffer
        self.mode, self.schedule, self.max_policy_lag = options.mode, options.schedule, options.max_policy_lag
        self.num_workers, self.games_per_worker = collector_spec.layout.num_workers, options.games_per_worker
        self.plies_per_rollout, self.total_frames = options.plies_per_rollout, batches.total_frames
        self.frames_per_batch = self.num_workers * self.games_per_worker * self.plies_per_rollout
        self.requested_frames_per_batch = self.frames_per_batch
        self.worker_threads = collector_spec.policy_threads
        self._unpack_action_mask = batches.unpack_action_mask
        self._stats, self._version, self._closed = CollectionStats(), 0, False
        self._share = RankShare()
        self._at_work = contextlib.ExitStack()  # what lasts from start() to shutdown()
        self._resume_state = ResumeState(undelivered=NOTHING_UNDELIVERED)
        self._session: Session | None = None
        self._paused: frozenset[int] = frozenset()

    # ---- life

    def start(self) -> None:
        """Start the workers (the first batch does it too). Twice is harmless.

        Raises:
            CollectorClosedError: after :meth:`shutdown`, before :meth:`reopen`.
        """
        if self._closed:
            raise CollectorClosedError("the collector was shut down; reopen() it, or make a new one")
        if self._session is not None:
            return
        self._session = Session(
            self._collector_spec,
            self._resume_state,
            seed=self.seed,
            plies=self._share.plies(self._stats.plies),
            version=self._version,
            paused=self._paused,
            share=self._share,
        )
        self._stats.start()
        self._session.open()
        self._at_work.enter_context(governed_spinning())

    def shutdown(self, timeout: float | None = None, close_env: bool = True, raise_on_error: bool = True) -> None:
        """Stop the workers; returns within ``timeout`` + 1 seconds. Twice is harmless.

        Args:
            timeout: seconds before workers are killed; None: ``shutdown_timeout_s``.
            close_env: taken because TorchRL's collectors do; changes nothing.
            raise_on_error: likewise.
        """
        was_open, self._closed = not self._closed, True
        timeout_s = self._collector_spec.supervision.shutdown_timeout_s if timeout is None else timeout
        with self._at_work:
            if self._session is not None:
                try:
                    if was_open:
                        self._resume_state = self._session.resume_state()  # while the games are still there
                finally:
                    self._session.close(timeout_s)

    def reopen(self) -> None:
        """Let a collector that was shut down be started again; an open one is left as it is.

        Counters, the version and the pool of snapshots go on. With ``mode="serial"`` the games do too; worker processes
        begin new ones, with random streams of their own. The policy's present weights are those of the version.
        """
        if self._closed:
            self._session, self._closed = None, False
            self._stats.forget_window()

    def __enter__(self) -> SelfPlayCollector:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()

    # ---- batches

    def iterator(self) -> Iterator[TensorDictBase | None]:
        """Yield batches until ``total_frames`` plies were delivered, by all ranks together."""
        self.start()
        while self.total_frames < 0 or self._share.plies(self._stats.plies) < self.total_frames:
            try:
                batch = self._next_batch()
            except BaseException:
                self._iterator = None  # TorchRL's next() would keep this one, which has ended, and return None for ever
                raise
            if self.replay_buffer is None:
                yield batch
            else:
                self.replay_buffer.extend(batch.reshape(-1))
                yield None

    def _next_batch(self) -> TensorDictBase:
        if self._closed or self._session is None:
            raise CollectorClosedError("the collector was shut down; reopen() it, or make a new one")
        asked = time.perf_counter()
        batch, headers = self._session.intake.take(self._version, self._build)
        self._stats.add(headers, latest_version=self._version, learner_wait_s=time.perf_counter() - asked)
        return batch

    def _build(self, columns: dict[ColumnKey, Tensor]) -> TensorDictBase:
        if self._unpack_action_mask:
            columns["action_mask"] = unpack_mask(columns["action_mask"], self.spec.num_actions)
        return to_batch(columns)

    # ---- weights

    @property
    def policy_version(self) -> int:
        """The latest published version."""
        return self._version

    def update_policy_weights_(
        self,
        policy_or_weights: nn.Module | TensorDictBase | Mapping[str, Any] | None = None,
        *,
        weights: TensorDictBase | Mapping[str, Any] | None = None,
        policy: nn.Module | None = None,
        weights_dict: Mapping[str, Any] | None = None,
        worker_ids: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        """Publish weights: the version goes up by one, and workers adopt it with their next rollout.

        One copy into shared memory, however many workers there are; it never waits for one. Before :meth:`start` there
        is nobody to tell: the weights at the start are version 0 (or the restored version).

        Args:
            policy_or_weights: a module of the policy's structure, or its weights as a TensorDict or a mapping of names;
                None: the policy that the collector was made with, as it is now.
            weights: the same, by keyword.
            policy: the same, by keyword.
            weights_dict: the same, as TorchRL's trainers give it: ``{"policy": weights}``.
            worker_ids: refused: weights are published for all workers at once.
            **kwargs: ``model_id="policy"`` is accepted.

        Raises:
            WeightsError: a name, shape or dtype differs, or a parameter is not finite; the published weights stay as
                they were.
        """
        given = [policy_or_weights, weights, policy, *(weights_dict or {}).values()]
        models = {kwargs.pop("model_id", "policy"), *(weights_dict or {})}
        source = choose_weights(given, models=models, worker_ids=worker_ids, unknown=kwargs)
        source = self.policy if source is None else source
        if self._session is None:
            copy_weights(source, self.policy)
            return
        start = time.perf_counter()
        self._session.publish(source, self._version + 1)
        self._version += 1
        self._stats.publish_s = time.perf_counter() - start

    # ---- opponents

    def push_snapshot(self) -> bool:
        """Freeze the present policy as the newest snapshot of the pool; the oldest leaves a ring that is full.

        Starts the workers, if they have not been started.

        Returns:
            False if it was put off: games that are going on still need every snapshot that there is room for.

        Raises:
            ConfigError: the collector was made without ``opponents``.
            WeightsError: a parameter is not finite.
        """
        if self._collector_spec.opponents is None:
            raise ConfigError("push_snapshot: the collector has no pool; make it with opponents=OpponentOptions(...)")
        self.start()
        assert self._session is not None
        assert self._session.pool is not None
        return self._session.pool.push(self.policy, self._version)

    @property
    def pool(self) -> SnapshotPool | None:
        """The snapshots and their scores; None before the start, and without ``opponents``."""
        return None if self._session is None else self._session.pool

    @property
    def snapshots(self) -> list[SnapshotStanding]:
        """The pool's ring, oldest first: version, games and the learner's score against each."""
        return [] if self.pool is None else self.pool.standings

    # ---- what is going on

    @property
    def plies(self) -> int:
        """Plies delivered so far (TorchRL's word for them is frames)."""
        return self._stats.plies

    @property
    def games(self) -> int:
        """Games finished in delivered batches so far."""
        return self._stats.games

    @property
    def bytes_per_ply(self) -> int:
        """Shared memory that one ply takes."""
        return self._collector_spec.layout.bytes_per_ply

    def stats(self) -> dict[str, float]:
        """Totals, and rates and shares over the last minute (see ``docs/glossary.md``)."""
        return values_of(self.figures())

    def figures(self) -> dict[str, Figure]:
        """The same, to be combined with those of other learners' collectors (:func:`~.figures.combine`)."""
        session = self._session
        undelivered = self._resume_state.undelivered if session is None else session.intake.undelivered
        workers = dict.fromkeys(("restarts", "healthy_workers", "lost_rollouts"), Figure("sum", 0))
        return {
            **self._stats.figures(),
            **{name: Figure("sum", count) for name, count in undelivered.items()},
            **(workers if session is None else session.figures(self._version)),
        }

    def health(self) -> list[dict[str, Any]]:
        """One entry for each worker, and after them one for the inference process of ``mode="central"``.

        ``worker_id``, ``name``, ``state``, ``pid``, ``incarnation``, ``restarts``, ``last_sign_of_life_s``, ``paused``,
        ``rss_bytes``; ``policy_version`` (that it says it has adopted) and ``policy_lag`` behind the latest, None until
        the first; of its newest rollout ``last_batch_age_s``, ``last_batch_play_s`` and ``last_batch_plies_per_s``.
        """
        return [] if self._session is None else self._session.health(self._version)

    def is_healthy(self) -> bool:
        """Every worker is starting (within its time) or running; before the start there is nothing to complain of."""
        if self._closed:
            return False
        return self._session is None or self._session.is_healthy()

    # ---- state

    def set_seed(self, seed: int, static_seed: bool = False) -> int:
        """Set the seed, before the start; returns the next one (the same if ``static_seed``), as TorchRL's do.

        Raises:
            ConfigError: the workers have started.
        """
        if self._session is not None:
            raise ConfigError(f"seed={seed}: the workers have started; set the seed before the first batch")
        self.seed = seed
        return seed if static_seed else seed + 1

    def set_rank(self, rank: int, num_ranks: int) -> None:
        """Play as one of several learners' collectors, whose workers are numbered through; ConfigError if started."""
        if (rank, num_ranks) == (self._share.rank, self._share.num_ranks):
            return
        if self._session is not None:
            raise ConfigError(f"rank={rank}: the workers have started; set the rank before the first batch")
        self._share = RankShare.counting(rank, num_ranks, self._share.plies(self._stats.plies), self._stats.plies)

    def state_dict(self) -> OrderedDict[str, Any]:
        """Counters, the version, and in serial mode the games in flight, as plain numbers and text.

        With it, ``mode="serial"`` goes on as if there had been no stop. Games that worker processes had in flight are
        missing data afterwards, never spliced.
        """
        resume_state = self._resume_state if self._session is None or self._closed else self._session.resume_state()
        return OrderedDict(
            **self._share.state(self._stats.plies),
            games=self._stats.games,
            policy_version=self._version,
            seed=self.seed,
            **resume_state.state_dict(),
        )

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting where a checkpoint stopped; before the start.

        Raises:
            ConfigError: the workers have started.
        """
        if self._session is not None:
            raise ConfigError("load_state_dict: the workers have started; restore before the first batch")
        self._stats.plies = int(state_dict["plies" if "plies" in state_dict else "frames"])  # an older name
        self._share = self._share.restored(state_dict, self._stats.plies)
        self._stats.games = int(state_dict["games"])
        self._version = int(state_dict["policy_version"])
        self._resume_state = ResumeState.restored(state_dict)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.spec.name}, mode={self.mode}, schedule={self.schedule}, "
            f"{self.num_workers} x {self.games_per_worker} games x {self.plies_per_rollout} plies)"
        )
