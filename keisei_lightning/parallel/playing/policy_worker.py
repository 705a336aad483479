"""Workers that hold a copy of the policy: ``mode="workers"``, and ``mode="serial"`` without the process."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from keisei_lightning.games import GameFactory
from keisei_lightning.models.compiling import compile_for_batches
from keisei_lightning.models.transfers import Lane
from keisei_lightning.parallel.memory.mailbox_layout import GroupBlock
from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer
from keisei_lightning.parallel.memory.slots import Slots
from keisei_lightning.parallel.memory.weights import WeightMemory, WeightReader
from keisei_lightning.parallel.opponents.memory import OpponentSetup
from keisei_lightning.parallel.opponents.policy_server import PooledPolicyServer
from keisei_lightning.parallel.playing.rollout import RolloutPlayer
from keisei_lightning.parallel.playing.worker import Beat, PlayerOptions, RolloutWorker, Worker, make_player, serve
from keisei_lightning.parallel.policy.acting import LocalPolicyServer, acting_policy
from keisei_lightning.parallel.policy.batched_server import BatchedPolicyServer
from keisei_lightning.parallel.policy.inference_requests import InferenceRequest, PolicyServer
from keisei_lightning.parallel.supervision.messages import Play, RolloutHeader
from keisei_lightning.system.allocator import keep_freed_memory
from keisei_lightning.system.devices import resolve_device_name
from keisei_lightning.system.openmp import SpinningGovernor

__all__ = [
    "LayerHeartbeats",
    "PolicyReplica",
    "PolicyWorker",
    "WorkerBoot",
    "make_policy_worker",
    "resolve_device",
    "run_worker",
]

_QUICK_PLY_S = 0.05  # a tenth of the shortest heartbeat


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerBoot:
    """Everything a worker needs; pickled once for each start.

    Attributes:
        worker_id: which worker.
        incarnation: of the worker.
        game_and_policy: cloudpickled (game factory, policy without weights): cloudpickle also sends classes of a script
            or a notebook.
        options: how to play.
        slots: where rollouts are written.
        weights: published weights.
        heartbeats: memory of the heartbeat board.
        opponents: snapshots to play against; None: every game is self-play.
    """

    worker_id: int
    incarnation: int
    game_and_policy: bytes
    options: PlayerOptions
    slots: Slots
    weights: WeightMemory
    heartbeats: SharedBuffer
    opponents: OpponentSetup | None = None


class PolicyWorker(RolloutWorker):
    """A worker whose games can be saved and resumed (see :class:`RolloutPlayer`)."""

    def __init__(self, *, player: RolloutPlayer, **options: Any) -> None:
        super().__init__(player=player, **options)
        self.state_dict, self.load_state_dict = player.state_dict, player.load_state_dict


def make_policy_worker(
    *,
    worker_id: int,
    incarnation: int,
    game: GameFactory,
    policy: nn.Module,
    options: PlayerOptions,
    slots: Slots,
    weights: WeightMemory,
    opponents: OpponentSetup | None = None,
) -> PolicyWorker:
    """Make a worker that evaluates positions itself.

    Args:
        worker_id: which worker.
        incarnation: of the worker.
        game: makes its boards.
        policy: the structure; its parameters and buffers are replaced by views of adopted weights.
        options: how to play.
        slots: where rollouts are written.
        weights: published weights.
        opponents: snapshots to play against; None: every game is self-play.
    """
    boards = game(slots.layout.num_games)
    replica = PolicyReplica(
        policy,
        weights=weights,
        reader_id=worker_id,
        device=resolve_device(options.device, worker_id),
        precision=options.precision,
        num_actions=boards.spec.num_actions,
        opponents=opponents,
    )
    if options.compile_mode is not None:
        replica.compile(options.compile_mode, (slots.layout.num_games, *boards.spec.observation_shape))
    player = make_player(
        boards,
        replica.make_server(),
        worker_id=worker_id,
        incarnation=incarnation,
        options=options,
        slot_layout=slots.layout,
        opponents=None if opponents is None else opponents.seating.boards(0, slots.layout.num_games),
    )
    return PolicyWorker(
        worker_id=worker_id,
        incarnation=incarnation,
        weights=replica.weights,
        player=player,
        slots=slots,
    )


class PolicyReplica:
    """A replica of the policy in this process, which adopts published weights, and the snapshots beside it.

    Args:
        policy: the structure; its parameters and buffers are replaced by views of adopted weights.
        weights: published weights.
        reader_id: which of their readers this is.
        device: of the policies.
        precision: of their arithmetic (see :class:`PlayerOptions`).
        num_actions: A.
        opponents: snapshots to play against; None: every game is self-play.

    Attributes:
        weights: adopts published weights.
    """

    def __init__(
        self,
        policy: nn.Module,
        *,
        weights: WeightMemory,
        reader_id: int,
        device: torch.device,
        precision: str,
        num_actions: int,
        opponents: OpponentSetup | None,
    ) -> None:
        self._policy, self._device, self._precision, self._num_actions = policy, device, precision, num_actions
        self._is_compiled = False
        self._snapshots = None if opponents is None else (opponents.memory, copy.deepcopy(policy))
        self.weights = WeightReader(weights, reader_id=reader_id, module=policy, device=device)
        policy.eval()

    def compile(self, mode: str, batch_shape: tuple[int, ...]) -> None:
        """Compile the network now, so that no rollout waits for it. Snapshots are not compiled.

        Args:
            mode: of ``torch.compile``.
            batch_shape: [most boards of a request, *observation_shape].
        """
        zeros = InferenceRequest(np.zeros(batch_shape, np.uint8))
        server = self._make_local_server()
        compile_for_batches(self._policy, mode=mode, batch_size=batch_shape[0], warm_up=lambda: server.infer(zeros))
        self._is_compiled = True

    def _make_local_server(self) -> LocalPolicyServer:
        policy = acting_policy(self._policy, num_actions=self._num_actions)
        return LocalPolicyServer(policy, self._device, precision=self._precision)

    def make_server(self) -> PolicyServer:
        """A server of a rollout's requests, with a random stream of its own."""
        return self._with_snapshots(self._make_local_server())

    def make_batched_servers(self, blocks: Sequence[GroupBlock], *, is_pinned: bool) -> list[PolicyServer]:
        """A server for each group of games over all workers; each has a random stream of its own.

        Args:
            blocks: the groups' full requests and results.
            is_pinned: whether they lie in pinned memory.
        """
        if self._device.type == "cpu":
            return [self.make_server() for _ in blocks]
        # A compiled network may have CUDA graphs of its own, whose memory serves one request at a time.
        common = Lane(self._device) if self._is_compiled else None
        batched: list[PolicyServer] = []
        for block in blocks:
            learner, lane = self._make_local_server(), common or Lane(self._device)
            fallback = self._with_snapshots(learner)
            batched.append(
                BatchedPolicyServer(learner, fallback, block, lane, is_pinned=is_pinned, capture=not self._is_compiled)
            )
        return batched

    def _with_snapshots(self, learner: LocalPolicyServer) -> PolicyServer:
        if self._snapshots is None:
            return learner
        memory, structure = self._snapshots
        return PooledPolicyServer(
            learner, memory, structure=structure, num_actions=self._num_actions, device=self._device
        )


def resolve_device(device: str, number: int) -> torch.device:
    """The device of this name; "auto" assigns the CUDA devices to processes in turn, else the CPU."""
    count = torch.cuda.device_count() if device == "auto" else 0  # it loads the driver: only if it matters
    return torch.device(resolve_device_name(device, num_cuda_devices=count, number=number))


def run_worker(boot: WorkerBoot, connection: Connection[Any, Any]) -> None:
    """Target of a worker process (see :func:`~keisei_lightning.parallel.playing.worker.serve`)."""
    serve(lambda beat: _boot(boot, beat), worker_id=boot.worker_id, heartbeats=boot.heartbeats, connection=connection)


def _boot(boot: WorkerBoot, beat: Beat) -> Worker:
    keep_freed_memory()
    torch.set_num_threads(boot.options.num_threads)
    if boot.options.num_threads > 1:
        SpinningGovernor().start()  # until this process ends
    game, policy = cloudpickle.loads(boot.game_and_policy)
    worker = make_policy_worker(
        worker_id=boot.worker_id,
        incarnation=boot.incarnation,
        game=game,
        policy=policy,
        options=boot.options,
        slots=boot.slots,
        weights=boot.weights,
        opponents=boot.opponents,
    )
    if boot.options.compile_mode is not None:
        return worker  # a compiled network has no layers to hook
    return _LayerBeatingWorker(worker, LayerHeartbeats(beat), num_plies=boot.slots.layout.num_plies)


class _LayerBeatingWorker(Worker):
    """A worker that decides after each rollout whether layers are to send heartbeats."""

    def __init__(self, worker: RolloutWorker, layers: LayerHeartbeats, *, num_plies: int) -> None:
        self._worker, self._layers, self._num_plies = worker, layers, num_plies

    @override
    def reset_games(self) -> None:
        self._worker.reset_games()

    @override
    def close(self) -> None:
        self._worker.close()

    @override
    def play(self, grant: Play, *, wait_s: float = 0.0, beat: Beat = lambda: None) -> RolloutHeader:
        header = self._worker.play(grant, wait_s=wait_s, beat=beat)
        self._layers.adapt(header.play_s / self._num_plies)
        return header


class LayerHeartbeats:
    """Sends a heartbeat before every layer of a forward pass, where a pass is slow.

    In a network of a few small layers the hook would take a sixth of the time, and a heartbeat a ply is enough there.

    Args:
        beat: sends a heartbeat.
    """

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._hook: RemovableHandle | None = None
        self.adapt(math.inf)  # until the first rollout shows how long a ply takes

    def adapt(self, ply_s: float) -> None:
        """Install or remove the hook, by the seconds that a ply has taken."""
        if ply_s < _QUICK_PLY_S and self._hook is not None:
            self._hook.remove()
            self._hook = None
        elif ply_s >= _QUICK_PLY_S and self._hook is None:
            self._hook = register_module_forward_pre_hook(lambda module, args: self._beat())
