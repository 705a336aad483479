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
from typing import Any, Literal

from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.collectors import BaseCollector

from keisei_lightning.errors import CollectorClosedError, ConfigError
from keisei_lightning.games import GameFactory
from keisei_lightning.models import unpack_mask
from keisei_lightning.parallel.checks import check_memory, check_options
from keisei_lightning.parallel.intake import NOTHING_UNDELIVERED, to_batch
from keisei_lightning.parallel.memory.slots import ColumnKey, SlotLayout
from keisei_lightning.parallel.memory.weight_sources import choose_weights
from keisei_lightning.parallel.memory.weights import copy_weights
from keisei_lightning.parallel.opponents.pool import SnapshotStanding
from keisei_lightning.parallel.options import OpponentOptions
from keisei_lightning.parallel.playing.worker import PlayerOptions
from keisei_lightning.parallel.policy.acting import check_policy
from keisei_lightning.parallel.session import CollectorSpec, ResumeState, Session
from keisei_lightning.parallel.stats import CollectionStats
from keisei_lightning.parallel.supervision.restarts import RestartPolicy
from keisei_lightning.system.machine import share_of_cpus
from keisei_lightning.system.openmp import governed_spinning

__all__ = ["SelfPlayCollector"]


class SelfPlayCollector(BaseCollector):
    """Collects self-play in parallel worker processes; a TorchRL collector.

    Iterating it yields TensorDicts of batch size [W * G, T] (time last, names ``(None, "time")``) with the keys of the
    batch table: everything in the mover's view, ``action_mask`` bit-packed, values of the next state instead of next
    observations. Workers start with the first batch (or :meth:`start`) and stop with :meth:`shutdown`, with the
    ``with`` block, or with this process.

    Args:
        game: makes the boards: ``game_factory("shogi")``, or your own (checked by ``check_game``).
        policy: an ``ActorCritic``, or a TorchRL policy that writes ``action``, ``action_log_prob`` and
            ``state_value``. Its present weights are version 0; the workers get copies.
        mode: "workers" (a process each, with a copy of the policy), "central" (a process each, which only plays moves,
            and one that judges positions for all of them: for an accelerator) or "serial" (no process; the same numbers
            as "workers").
        schedule: "sync" or "async".
        num_workers: W.
        games_per_worker: G, games that one worker plays at once.
        plies_per_rollout: T.
        total_frames: stop after this many plies; -1: never.
        max_policy_lag: largest number of versions that a delivered rollout may be behind the latest published one.
        slots_per_worker: rollouts that may be stored for each worker; with "async", a worker plays on while
            one is free.
        start_method: of worker processes: "forkserver", "spawn", or None for the best there is.
        worker_device: device of the policy in the workers, or in the inference process: "cpu", "cuda:0", or "auto"
            (CUDA devices in turn, else CPU).
        worker_precision: of the policy's arithmetic there: "32-true" or "bf16-mixed". The learner's own should be the
            same, or the two are not quite the same policy (``train/first_ratio`` tells).
        compile_mode: of ``torch.compile`` for the network there ("default", "reduce-overhead", ...): compiled when a
            worker starts, for as many boards as it plays. The numbers are then the same but for rounding. None: not
            compiled.
        threads_per_worker: torch threads of a worker, or of the inference process; None: its share of the CPUs (with
            "async", of half of them: the learner works at the same time), at most ``OMP_NUM_THREADS``.
        groups_per_worker: with ``mode="central"``: a worker's games are split into so many groups. While one group's
            positions are judged, it plays the moves of another.
        heartbeat_s: a worker without a sign of life (one a ply) for this long is replaced.
        start_timeout_s: a worker must be ready within this time.
        shutdown_timeout_s: how long :meth:`shutdown` asks politely before it kills.
        max_restarts: of one worker within ``restart_window_s``; the next death raises ``WorkerCrashLoopError``.
        restart_window_s: sliding window of that budget.
        restart_backoff_s: delay before a restart after a short life (shorter than ``restart_window_s / max_restarts``);
            doubled for each further one on end, up to 30 s. Any other restart comes at once.
        drop_oldest: with ``schedule="async"``: of more waiting rollouts than a batch takes, deliver the newest and drop
            (and count) the others. By default nothing is ever dropped: workers wait for the learner.
        min_healthy_workers: with fewer alive, ``TooFewWorkersError``; 0: as long as the budgets last.
        unpack_action_mask: deliver ``action_mask`` as bool [W * G, T, A].
        include_next_observation: store ("next", "observation") too.
        stagger_games: begin the first games somewhere in their course, so that every batch holds all phases of a game.
        augment_symmetry: play half of the games in the game's mirror image.
        opponents: play a share of the games against snapshots that :meth:`push_snapshot` freezes; None: self-play only.
        zero_copy: a batch is a view of shared memory where it can be, valid until the next batch is asked for.
            Otherwise it is a copy and yours.
        replay_buffer: batches are added to it as flat plies, and the iterator yields None, as in TorchRL.
        seed: root seed of every random stream; every worker has its own streams, spawned from it.

    Raises:
        ConfigError: a value that cannot work, or a policy whose results are not those of the game.
        WorkerBootError, WorkerCrashLoopError, TooFewWorkersError, StalePolicyError: while iterating.
    """

    init_random_frames = 0  # TorchRL's Trainer compares with it; self-play has no use for random frames

    def __init__(
        self,
        game: GameFactory,
        policy: nn.Module,
        *,
        mode: Literal["serial", "workers", "central"] = "workers",
        schedule: Literal["sync", "async"] = "sync",
        num_workers: int = 1,
        games_per_worker: int = 64,
        plies_per_rollout: int = 32,
        total_frames: int = -1,
        max_policy_lag: int = 2,
        slots_per_worker: int = 2,
        drop_oldest: bool = False,
        start_method: Literal["forkserver", "spawn"] | None = None,
        worker_device: str = "cpu",
        worker_precision: Literal["32-true", "bf16-mixed"] = "32-true",
        compile_mode: str | None = None,
        threads_per_worker: int | None = None,
        groups_per_worker: int = 2,
        heartbeat_s: float = 10.0,
        start_timeout_s: float = 120.0,
        shutdown_timeout_s: float = 10.0,
        max_restarts: int = 5,
        restart_window_s: float = 300.0,
        restart_backoff_s: float = 0.5,
        min_healthy_workers: int = 0,
        unpack_action_mask: bool = False,
        include_next_observation: bool = False,
        stagger_games: bool = True,
        augment_symmetry: bool = False,
        opponents: OpponentOptions | None = None,
        zero_copy: bool = False,
        replay_buffer: Any | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_options(locals())
        self.mode, self.schedule = mode, schedule
        self.num_workers, self.games_per_worker = num_workers, games_per_worker
        self.plies_per_rollout = plies_per_rollout
        self.total_frames, self.max_policy_lag = total_frames, max_policy_lag
        self.frames_per_batch = num_workers * games_per_worker * plies_per_rollout
        self.requested_frames_per_batch = self.frames_per_batch
        self.policy, self.seed, self.replay_buffer = policy, seed, replay_buffer
        self.spec = game(1).spec
        if augment_symmetry and not self.spec.symmetries:
            raise ConfigError(f"augment_symmetry=True: {self.spec.name} has no symmetry; leave it False")
        check_policy(policy, self.spec)  # fails here, not in a worker
        if opponents is not None and round(opponents.share * games_per_worker) < 1:
            raise ConfigError(f"opponents.share={opponents.share}: must be at least one of {games_per_worker} games")
        self._layout = SlotLayout.for_game(
            self.spec,
            num_slots=slots_per_worker if schedule == "async" else 1,
            num_workers=num_workers,
            num_games=games_per_worker,
            num_plies=plies_per_rollout,
            include_next_observation=include_next_observation,
        )
        check_memory(
            self._layout,
            policy=policy,
            num_snapshots=opponents.num_buffers if opponents else 0,
            mode=mode,
            start_method=start_method,
        )
        with_policy = 1 if mode == "central" else num_workers  # processes
        threads = threads_per_worker or share_of_cpus(with_policy if schedule == "sync" else 2 * with_policy)
        self.worker_threads = with_policy * threads  # torch threads of all of them
        self._plan = CollectorSpec(
            game=game,
            policy=policy,
            mode=mode,
            schedule=schedule,
            layout=self._layout,
            player_options=PlayerOptions(
                device=worker_device,
                precision=worker_precision,
                num_threads=threads,
                compile_mode=compile_mode,
                stagger_games=stagger_games,
                augment_symmetry=augment_symmetry,
            ),
            restart_policy=RestartPolicy(
                heartbeat_s=heartbeat_s,
                start_timeout_s=start_timeout_s,
                max_restarts=max_restarts,
                window_s=restart_window_s,
                backoff_s=restart_backoff_s,
                min_healthy_workers=min_healthy_workers,
            ),
            start_method=start_method,
            opponents=opponents,
            max_policy_lag=max_policy_lag,
            zero_copy=zero_copy,
            drop_oldest=drop_oldest,
            groups_per_worker=groups_per_worker,
        )
        self._shutdown_timeout_s, self._unpack_action_mask = shutdown_timeout_s, unpack_action_mask
        self._stats = CollectionStats()
        self._at_work = contextlib.ExitStack()  # what lasts from start() to shutdown()
        self._version = 0
        self._origin = ResumeState(undelivered=NOTHING_UNDELIVERED)
        self._session: Session | None = None
        self._closed = False
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
            self._plan,
            self._origin,
            seed=self.seed,
            plies=self._stats.plies,
            version=self._version,
            paused=self._paused,
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
        with self._at_work:
            if self._session is not None:
                try:
                    if was_open:
                        self._origin = self._session.origin()  # while the games are still there
                finally:
                    self._session.close(self._shutdown_timeout_s if timeout is None else timeout)

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
        """Yield batches until ``total_frames`` plies were delivered."""
        self.start()
        while self.total_frames < 0 or self._stats.plies < self.total_frames:
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
        self._session.weights.publish(source, self._version + 1)
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
        if self._plan.opponents is None:
            raise ConfigError("push_snapshot: the collector has no pool; make it with opponents=OpponentOptions(...)")
        self.start()
        assert self._session is not None
        assert self._session.pool is not None
        return self._session.pool.push(self.policy, self._version)

    @property
    def snapshots(self) -> list[SnapshotStanding]:
        """The pool's ring, oldest first: version, games and the learner's score against each."""
        pool = None if self._session is None else self._session.pool
        return [] if pool is None else pool.standings

    # ---- control

    def pause_workers(self, worker_ids: Sequence[int] | None = None) -> None:
        """Let workers (default: all) play no further rollouts; those they are playing are still delivered.

        A batch is then made of the other workers' rollouts alone.
        """
        self._set_paused(self._paused.union(range(self.num_workers) if worker_ids is None else worker_ids))

    def resume_workers(self, worker_ids: Sequence[int] | None = None) -> None:
        """Let paused workers (default: all) play on."""
        self._set_paused(self._paused.difference(range(self.num_workers) if worker_ids is None else worker_ids))

    def _set_paused(self, worker_ids: frozenset[int]) -> None:
        self._paused = worker_ids
        if self._session is not None:
            self._session.intake.set_paused(worker_ids)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Context in which no worker begins a rollout."""
        running = [worker_id for worker_id in range(self.num_workers) if worker_id not in self._paused]
        self.pause_workers(running)
        try:
            yield
        finally:
            self.resume_workers(running)

    def reset_games(self, worker_ids: Sequence[int] | None = None) -> None:
        """Let workers (default: all) begin all their games anew before their next rollout."""
        if self._session is not None:
            self._session.backend.reset_games(range(self.num_workers) if worker_ids is None else worker_ids)

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
        return self._layout.bytes_per_ply

    def stats(self) -> dict[str, float]:
        """Totals, and rates and shares over the last minute (see ``README.md``, metrics)."""
        session = self._session
        undelivered = self._origin.undelivered if session is None else session.intake.undelivered
        workers = {"restarts": 0, "healthy_workers": 0, "lost_rollouts": 0}
        return {
            **self._stats.summary(),
            **undelivered,
            **(workers if session is None else session.summary(self._version)),
        }

    def health(self) -> list[dict[str, Any]]:
        """One entry for each worker, and after them one for the inference process of ``mode="central"``.

        ``worker_id``, ``name``, ``state``, ``pid``, ``incarnation``, ``restarts``, ``last_sign_of_life_s``;
        ``policy_version`` (the one that it says it has adopted) and ``policy_lag`` behind the latest, None before its
        first; ``last_batch_age_s``; ``rss_bytes``; ``paused``.
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

    def state_dict(self) -> OrderedDict[str, Any]:
        """Counters, the version, and in serial mode the games in flight, as plain numbers and text.

        With it, ``mode="serial"`` goes on as if there had been no stop. Games that worker processes had in flight are
        missing data afterwards, never spliced.
        """
        origin = self._origin if self._session is None or self._closed else self._session.origin()
        return OrderedDict(
            plies=self._stats.plies,
            games=self._stats.games,
            policy_version=self._version,
            seed=self.seed,
            **origin.state_dict(),
        )

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting where a checkpoint stopped; before the start.

        Raises:
            ConfigError: the workers have started.
        """
        if self._session is not None:
            raise ConfigError("load_state_dict: the workers have started; restore before the first batch")
        self._stats.plies = int(state_dict["plies" if "plies" in state_dict else "frames"])  # an older name
        self._stats.games = int(state_dict["games"])
        self._version = int(state_dict["policy_version"])
        self._origin = ResumeState.restored(state_dict)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.spec.name}, mode={self.mode}, schedule={self.schedule}, "
            f"{self.num_workers} x {self.games_per_worker} games x {self.plies_per_rollout} plies)"
        )
