"""The inference process (``mode="central"``): it has the policy and answers all workers' questions, in batches.

Its loop consumes tokens and the learner's messages and waits for both at once. It submits a group's questions to the
policy as soon as every worker that plays has put one, so that one pass of the network serves all of them. While an
accelerator is at work on them it goes on hearing, and submits other groups'; it hands out a group's answers when they
are there. It takes over new weights only when nobody is in the middle of a rollout, so that a rollout has one version:

- ``schedule="sync"``: the learner says who will begin (:class:`BeginRound`), and nobody begins before all have asked.
  The batches, and so the results, are then the same in every run.
- ``schedule="async"``: a worker begins at once if the weights held are the latest, else when the others have ended
  their rollouts. Who is silent while others wait (it may be dead, and the learner busy) is left out until it speaks.
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
from keisei_lightning.parallel.central.mailbox import Kind, MailboxServer, Token
from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer
from keisei_lightning.parallel.memory.weights import WeightMemory
from keisei_lightning.parallel.opponents.pool import OpponentSetup
from keisei_lightning.parallel.playing.policy_worker import HeldPolicy, LayerBeats, resolve_device
from keisei_lightning.parallel.playing.worker import PlayerOptions, WeightSource, as_child
from keisei_lightning.parallel.policy.inference_requests import Pending, PolicyServer
from keisei_lightning.parallel.supervision.heartbeats import IDLE_BEAT_S, HeartbeatBoard
from keisei_lightning.parallel.supervision.messages import BeginRound, Ready, Stop, ToWorker, WorkerGone
from keisei_lightning.system.allocator import keep_freed_memory
from keisei_lightning.system.openmp import SpinningGovernor

__all__ = ["InferenceBoot", "InferenceScheduler", "LatestWeights", "run_inference"]


class LatestWeights(WeightSource, Protocol):
    """Weights, and whether there are newer ones."""

    version: int

    def is_latest(self) -> bool:
        """No newer ones than those adopted were published."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceBoot:
    """Everything that the inference process needs; pickled once for each start.

    Attributes:
        process_id: which line of the board of signs is its own.
        num_actions: A.
        batch_shape: [most boards of a question, *observation_shape].
        policy: cloudpickled, without weights.
        options: device, precision, threads.
        weights: published weights; it is reader 0.
        open_mailbox: makes the end of it that is here.
        signs: memory of the signs of life.
        waits_for_round: begin nobody before the learner has said who will begin. (Else somebody could have ended a
            rollout before the learner's first word, which would then wait for it.)
        leaves_out_the_silent: batches need not be the same in every run.
        opponents: snapshots to play against; None: every game is self-play.
    """

    process_id: int
    num_actions: int
    batch_shape: tuple[int, ...]
    policy: bytes
    options: PlayerOptions
    weights: WeightMemory
    open_mailbox: Callable[[], MailboxServer]
    signs: SharedBuffer
    waits_for_round: bool
    leaves_out_the_silent: bool
    opponents: OpponentSetup | None = None


@dataclass(slots=True)
class _Caller:
    """A worker that has begun a rollout, or wants to."""

    begin: Token
    groups: set[int] = field(default_factory=set)
    """That it plays; empty while it waits to begin."""


class InferenceScheduler:
    """Who has asked what, and who is answered when.

    Args:
        mailbox: to the workers.
        weights: what the policy holds.
        moves: the policy, with a random stream for each group.
        waits_for_round: begin nobody before the first :class:`BeginRound`.
    """

    def __init__(
        self,
        mailbox: MailboxServer,
        weights: LatestWeights,
        moves: Sequence[PolicyServer],
        *,
        waits_for_round: bool = False,
    ) -> None:
        self._mailbox, self._weights, self._moves = mailbox, weights, moves
        self._waits_for_round = waits_for_round
        self._awaited: set[int] = set()
        self._callers: dict[int, _Caller] = {}
        self._silent: set[int] = set()
        self._questions: list[dict[int, Token]] = [{} for _ in moves]
        self._in_flight: list[list[tuple[list[Token], Pending]]] = [[] for _ in moves]
        self._is_new = [False] * len(moves)  # no question of this round has been answered yet

    def hear_learner(self, message: BeginRound | WorkerGone) -> None:
        """Take in what the learner says."""
        match message:
            case BeginRound(workers=workers):
                self._awaited |= set(workers)
                self._waits_for_round = False
            case WorkerGone(worker_id=worker_id, incarnation=incarnation):
                self._awaited.discard(worker_id)
                caller = self._callers.get(worker_id)
                if caller is not None and caller.begin.incarnation <= incarnation:
                    self._forget(worker_id)

    def _forget(self, worker_id: int) -> None:
        self._callers.pop(worker_id, None)
        self._silent.discard(worker_id)
        for questions in self._questions:
            questions.pop(worker_id, None)

    def hear_worker(self, token: Token) -> None:
        """Take in what a worker says."""
        worker_id = token.worker_id
        if token.kind == Kind.BEGIN:
            self._forget(worker_id)  # a life before, of which nobody has told us yet
            self._callers[worker_id] = _Caller(token)
            return
        caller = self._callers.get(worker_id)
        if caller is None or caller.begin.incarnation != token.incarnation:
            return  # said by a worker that has died since
        self._silent.discard(worker_id)
        if token.kind == Kind.LEAVE:
            self._questions[token.group].pop(worker_id, None)
            caller.groups.discard(token.group)
            if not caller.groups:
                del self._callers[worker_id]
        else:
            self._questions[token.group][worker_id] = token

    def leave_out_the_silent(self) -> None:
        """Wait no longer for those who have asked nothing, where others have: until they speak again."""
        for group, asked in enumerate(self._questions):
            if asked and not self._in_flight[group]:
                self._silent |= self._playing(group) - asked.keys()

    def _playing(self, group: int) -> set[int]:
        """Workers that a group's answers wait for."""
        return {
            worker_id
            for worker_id, caller in self._callers.items()
            if group in caller.groups and worker_id not in self._silent
        }

    @property
    def is_waiting(self) -> bool:
        """Whether a request is in flight: a device is at work on it."""
        return any(self._in_flight)

    def serve(self) -> int:
        """Hand out every result that is there, and submit every request that is complete.

        Waits for no device: each group has one request in flight at most, and others are submitted meanwhile.

        Returns:
            How many groups' requests were submitted.
        """
        for group in range(len(self._moves)):
            self._collect(group)
        self._begin_rollouts()
        return sum(self._submit(group) for group in range(len(self._moves)))

    def _begin_rollouts(self) -> None:
        waiting = {worker_id: caller for worker_id, caller in self._callers.items() if not caller.groups}
        self._awaited -= waiting.keys()
        if not waiting or self._awaited or self._waits_for_round:
            return
        if len(waiting) == len(self._callers):  # nobody plays
            if self.is_waiting:  # who asked has died, and yet the policy is at work on it
                return
            if self._weights.version >= 0:
                self._weights.verify()
            self._weights.adopt()
            self._is_new = [True] * len(self._moves)
        elif not self._weights.is_latest():
            return
        for caller in waiting.values():
            caller.groups = set(range(len(self._moves)))
            self._mailbox.grant_version(caller.begin, self._weights.version)

    def _submit(self, group: int) -> bool:
        asked = self._questions[group]
        if not asked or self._in_flight[group] or not self._playing(group) <= asked.keys():
            return False
        tokens = [asked[worker_id] for worker_id in sorted(asked)]
        asked.clear()
        if self._is_new[group]:
            self._is_new[group] = False
            self._moves[group].begin_rollout(self._mailbox.seed_of(tokens[0].worker_id, group))
        for kind in (Kind.ACT, Kind.VALUE):
            if batch := [token for token in tokens if token.kind == kind]:
                pending = self._moves[group].submit(self._mailbox.question(batch))
                self._in_flight[group].append((batch, pending))
        self._collect(group)  # on a CPU it is done: nobody waits for the next group's
        return True

    def _collect(self, group: int) -> None:
        """Hand out a group's results if they are all there.

        What a worker had asked that has died since is handed out too: its next life knows by the token that it is not
        meant, and has no answer in this place before its own request, which waits for this one.
        """
        in_flight = self._in_flight[group]
        if in_flight and all(pending.is_done() for _, pending in in_flight):
            for tokens, pending in in_flight:
                self._mailbox.answer(tokens, pending.result())
            in_flight.clear()


def run_inference(boot: InferenceBoot, connection: Connection[Any, ToWorker]) -> None:
    """Target of the inference process.

    Ends with exit status 0 when told to stop, 1 after it has sent a ``Failure``.
    """
    with as_child(connection) as post:
        signs = HeartbeatBoard(boot.signs)

        def beat() -> None:
            signs.beat(boot.process_id)

        compile_mode = boot.options.compile_mode
        layers = LayerBeats(beat) if compile_mode is None else None  # a compiled network has no layers to hook
        keep_freed_memory()
        torch.set_num_threads(boot.options.num_threads)
        if boot.options.num_threads > 1:
            SpinningGovernor().start()  # for the life of this process
        device = resolve_device(boot.options.device, 0)
        held = HeldPolicy(
            cloudpickle.loads(boot.policy),
            weights=boot.weights,
            reader_id=0,
            device=device,
            precision=boot.options.precision,
            num_actions=boot.num_actions,
            opponents=boot.opponents,
        )
        if compile_mode is not None:
            held.compile(compile_mode, boot.batch_shape)
        mailbox = boot.open_mailbox()
        with PinnedMemory(mailbox.memory, device) as memory:
            moves = held.make_batched_moves(mailbox.blocks, is_pinned=memory.is_pinned)
            desk = InferenceScheduler(mailbox, held.weights, moves, waits_for_round=boot.waits_for_round)
            mailbox.announce()
            post(Ready(pid=os.getpid()))
            _serve(boot, connection, mailbox, desk, beat=beat, layers=layers)


def _serve(
    boot: InferenceBoot,
    connection: Connection[Any, ToWorker],
    mailbox: MailboxServer,
    desk: InferenceScheduler,
    *,
    beat: Callable[[], None],
    layers: LayerBeats | None,
) -> None:
    """Hear learner and workers, and serve, until told to stop."""
    while True:
        beat()
        is_waiting = desk.is_waiting
        if is_waiting:
            os.sched_yield()  # the results are expected any moment: look again at once, but let workers run
        nobody_speaks = not wait([connection, mailbox.fileno()], 0.0 if is_waiting else IDLE_BEAT_S)
        tokens = mailbox.read()  # before the learner's messages: those of a grant come before what follows from it
        while connection.poll():
            match connection.recv():
                case Stop():
                    mailbox.stop()
                    return
                case BeginRound() | WorkerGone() as message:
                    desk.hear_learner(message)
        for token in tokens:
            desk.hear_worker(token)
        if nobody_speaks and not is_waiting and boot.leaves_out_the_silent:
            desk.leave_out_the_silent()
        start = time.perf_counter()
        if (passes := desk.serve()) and layers is not None:
            layers.adapt((time.perf_counter() - start) / passes)
