"""The inference process (``mode="central"``): it holds the policy and serves all workers' requests, in batches.

Its loop consumes tokens and the learner's messages, and waits for both at once. It submits a group's requests to the
policy as soon as every worker that plays the group has sent one, so that one forward pass serves all of them. While an
accelerator computes, the loop continues to read, and submits other groups' requests; it delivers a group's results when
they are complete. It adopts new weights only when no worker is within a rollout, so that a rollout has one version:

- ``schedule="sync"``: the learner announces which workers will begin (:class:`BeginRound`), and none of them begins
  before all have asked to. The batches, and so the results, are then the same in every run.
- ``schedule="async"``: a worker begins at once if the weights held are the latest, else when the others have ended
  their rollouts. A worker that sends nothing while others wait (it may be dead, and the learner busy) is excluded until
  it sends something.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import cloudpickle
import torch

from keisei_lightning.models.transfers import PinnedMemory
from keisei_lightning.parallel.central.mailbox import MailboxServer, RequestKind, Token
from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer
from keisei_lightning.parallel.memory.weights import WeightMemory
from keisei_lightning.parallel.opponents.memory import OpponentSetup
from keisei_lightning.parallel.playing.policy_worker import LayerHeartbeats, PolicyReplica, resolve_device
from keisei_lightning.parallel.playing.worker import PlayerOptions, WeightSource, child_process
from keisei_lightning.parallel.policy.inference_requests import PendingResult, PolicyServer
from keisei_lightning.parallel.supervision.heartbeats import IDLE_BEAT_S, HeartbeatBoard
from keisei_lightning.parallel.supervision.messages import BeginRound, Ready, Stop, ToWorker, WorkerGone
from keisei_lightning.system.allocator import keep_freed_memory
from keisei_lightning.system.openmp import SpinningGovernor

__all__ = ["InferenceBoot", "InferenceScheduler", "LatestWeights", "run_inference"]


class LatestWeights(WeightSource, Protocol):
    """Weights, and whether newer ones were published."""

    version: int

    def is_latest(self) -> bool:
        """Whether no weights newer than the adopted ones were published."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceBoot:
    """Everything that the inference process needs; pickled once for each start.

    Attributes:
        process_id: its line of the heartbeat board.
        num_actions: A.
        batch_shape: [most boards of a request, *observation_shape].
        policy: cloudpickled, without weights.
        options: device, precision, threads.
        weights: published weights; this process is reader 0.
        open_mailbox: makes the server's end of the mailbox.
        heartbeats: memory of the heartbeat board.
        waits_for_round: let no worker begin before the learner's first :class:`BeginRound`. (Otherwise a worker could
            have ended its rollout before that message came, which would then wait for the worker.)
        excludes_silent_workers: batches need not be the same in every run.
        opponents: snapshots to play against; None: every game is self-play.
    """

    process_id: int
    num_actions: int
    batch_shape: tuple[int, ...]
    policy: bytes
    options: PlayerOptions
    weights: WeightMemory
    open_mailbox: Callable[[], MailboxServer]
    heartbeats: SharedBuffer
    waits_for_round: bool
    excludes_silent_workers: bool
    opponents: OpponentSetup | None = None


@dataclass(slots=True)
class _Client:
    """A worker that has begun a rollout, or waits to begin one."""

    begin: Token
    groups: set[int] = field(default_factory=set)
    """The groups that it plays; empty while it waits to begin."""


class InferenceScheduler:
    """Decides when requests are submitted to the policy, and when a worker may begin a rollout.

    Args:
        mailbox: of the workers.
        weights: of the policy.
        servers: the policy, one server for each group of games, each with a random stream of its own.
        waits_for_round: let no worker begin before the first :class:`BeginRound`.
    """

    def __init__(
        self,
        mailbox: MailboxServer,
        weights: LatestWeights,
        servers: Sequence[PolicyServer],
        *,
        waits_for_round: bool = False,
    ) -> None:
        self._mailbox, self._weights, self._servers = mailbox, weights, servers
        self._waits_for_round = waits_for_round
        self._awaited: set[int] = set()
        self._clients: dict[int, _Client] = {}
        self._silent: set[int] = set()
        self._requests: list[dict[int, Token]] = [{} for _ in servers]
        self._in_flight: list[list[tuple[list[Token], PendingResult]]] = [[] for _ in servers]
        self._needs_seed = [False] * len(servers)  # no request of this round was submitted yet

    def handle_message(self, message: BeginRound | WorkerGone) -> None:
        """Handle a message of the learner."""
        match message:
            case BeginRound(workers=workers):
                self._awaited |= set(workers)
                self._waits_for_round = False
            case WorkerGone(worker_id=worker_id, incarnation=incarnation):
                self._awaited.discard(worker_id)
                client = self._clients.get(worker_id)
                if client is not None and client.begin.incarnation <= incarnation:
                    self._remove_client(worker_id)

    def _remove_client(self, worker_id: int) -> None:
        self._clients.pop(worker_id, None)
        self._silent.discard(worker_id)
        for requests in self._requests:
            requests.pop(worker_id, None)

    def handle_token(self, token: Token) -> None:
        """Handle a worker's token."""
        worker_id = token.worker_id
        if token.kind == RequestKind.BEGIN:
            self._remove_client(worker_id)  # an earlier incarnation, whose death the learner has not announced yet
            self._clients[worker_id] = _Client(token)
            return
        client = self._clients.get(worker_id)
        if client is None or client.begin.incarnation != token.incarnation:
            return  # its sender has died since
        self._silent.discard(worker_id)
        if token.kind == RequestKind.LEAVE:
            self._requests[token.group].pop(worker_id, None)
            client.groups.discard(token.group)
            if not client.groups:
                del self._clients[worker_id]
        else:
            self._requests[token.group][worker_id] = token

    def exclude_silent_workers(self) -> None:
        """Wait no longer for workers that have sent no request where others have, until they send something."""
        for group, requests in enumerate(self._requests):
            if requests and not self._in_flight[group]:
                self._silent |= self._playing(group) - requests.keys()

    def _playing(self, group: int) -> set[int]:
        """Workers whose requests a group's batch waits for."""
        return {
            worker_id
            for worker_id, client in self._clients.items()
            if group in client.groups and worker_id not in self._silent
        }

    @property
    def is_waiting(self) -> bool:
        """Whether a request is in flight: a device computes its result."""
        return any(self._in_flight)

    def serve(self) -> int:
        """Deliver every result that is complete, and submit every request that is complete.

        Waits for no device: each group has at most one request in flight, and others are submitted meanwhile.

        Returns:
            How many groups' requests were submitted.
        """
        for group in range(len(self._servers)):
            self._deliver(group)
        self._begin_rollouts()
        return sum(self._submit(group) for group in range(len(self._servers)))

    def _begin_rollouts(self) -> None:
        waiting = {worker_id: client for worker_id, client in self._clients.items() if not client.groups}
        self._awaited -= waiting.keys()
        if not waiting or self._awaited or self._waits_for_round:
            return
        if len(waiting) == len(self._clients):  # no worker is within a rollout
            if self.is_waiting:  # the request's sender has died, and yet the policy is in use
                return
            if self._weights.version >= 0:
                self._weights.verify()
            self._weights.adopt()
            self._needs_seed = [True] * len(self._servers)
        elif not self._weights.is_latest():
            return
        for client in waiting.values():
            client.groups = set(range(len(self._servers)))
            self._mailbox.grant_version(client.begin, self._weights.version)

    def _submit(self, group: int) -> bool:
        requests = self._requests[group]
        if not requests or self._in_flight[group] or not self._playing(group) <= requests.keys():
            return False
        tokens = [requests[worker_id] for worker_id in sorted(requests)]
        requests.clear()
        if self._needs_seed[group]:
            self._needs_seed[group] = False
            self._servers[group].begin_rollout(self._mailbox.seed_of(tokens[0].worker_id, group))
        for kind in (RequestKind.ACT, RequestKind.VALUE):
            if batch := [token for token in tokens if token.kind == kind]:
                pending = self._servers[group].submit(self._mailbox.request(batch))
                self._in_flight[group].append((batch, pending))
        self._deliver(group)  # on a CPU it is complete: it need not wait for the next group's
        return True

    def _deliver(self, group: int) -> None:
        """Deliver a group's results if all of them are complete.

        Results for a worker that has died since are delivered too: its next incarnation recognises by the token that
        they are not its own, and has no result in this place before its own request, which waits for this one.
        """
        in_flight = self._in_flight[group]
        if in_flight and all(pending.is_done() for _, pending in in_flight):
            for tokens, pending in in_flight:
                self._mailbox.deliver(tokens, pending.result())
            in_flight.clear()


def run_inference(boot: InferenceBoot, connection: Connection[Any, ToWorker]) -> None:
    """Target of the inference process.

    It ends with exit status 0 after :class:`Stop`, with 1 after it has sent a ``Failure``.
    """
    with child_process(connection) as send:
        heartbeats = HeartbeatBoard(boot.heartbeats)

        def beat() -> None:
            heartbeats.beat(boot.process_id)

        compile_mode = boot.options.compile_mode
        layers = LayerHeartbeats(beat) if compile_mode is None else None  # a compiled network has no layers to hook
        keep_freed_memory()
        torch.set_num_threads(boot.options.num_threads)
        if boot.options.num_threads > 1:
            SpinningGovernor().start()  # until this process ends
        device = resolve_device(boot.options.device, 0)
        replica = PolicyReplica(
            cloudpickle.loads(boot.policy),
            weights=boot.weights,
            reader_id=0,
            device=device,
            precision=boot.options.precision,
            num_actions=boot.num_actions,
            opponents=boot.opponents,
        )
        if compile_mode is not None:
            replica.compile(compile_mode, boot.batch_shape)
        mailbox = boot.open_mailbox()
        with PinnedMemory(mailbox.memory, device) as memory:
            servers = replica.make_batched_servers(mailbox.blocks, is_pinned=memory.is_pinned)
            scheduler = InferenceScheduler(mailbox, replica.weights, servers, waits_for_round=boot.waits_for_round)
            mailbox.announce()
            send(Ready(pid=os.getpid()))
            _serve(boot, connection, mailbox, scheduler, beat=beat, layers=layers)


def _serve(
    boot: InferenceBoot,
    connection: Connection[Any, ToWorker],
    mailbox: MailboxServer,
    scheduler: InferenceScheduler,
    *,
    beat: Callable[[], None],
    layers: LayerHeartbeats | None,
) -> None:
    """Handle the learner's messages and the workers' tokens, and serve requests, until :class:`Stop` comes."""
    while True:
        beat()
        is_waiting = scheduler.is_waiting
        if is_waiting:
            os.sched_yield()  # the results are expected any moment: look again at once, but let workers run
        is_quiet = not wait([connection, mailbox.fileno()], 0.0 if is_waiting else IDLE_BEAT_S)
        tokens = mailbox.read()  # before the learner's messages: those of a grant come before what follows from it
        while connection.poll():
            match connection.recv():
                case Stop():
                    mailbox.stop()
                    return
                case BeginRound() | WorkerGone() as message:
                    scheduler.handle_message(message)
        for token in tokens:
            scheduler.handle_token(token)
        if is_quiet and not is_waiting and boot.excludes_silent_workers:
            scheduler.exclude_silent_workers()
        start = time.perf_counter()
        if (passes := scheduler.serve()) and layers is not None:
            layers.adapt((time.perf_counter() - start) / passes)
