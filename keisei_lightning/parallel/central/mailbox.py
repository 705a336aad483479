"""The mailbox of ``mode="central"``: requests of workers that only play moves, and results of the inference process.

One block of shared memory holds the requests of each group of games, all workers' side by side, so that a batch over
all workers is a view; the results lie beside them (:mod:`~keisei_lightning.parallel.memory.mailbox_layout`). Small
tokens through pipes announce what the memory holds::

    worker 0 --- request tokens ---\
    worker 1 --- request tokens ---->  one pipe  ---> inference process --- result tokens ---> a pipe for each worker

A token is written whole or not at all (POSIX, up to ``PIPE_BUF`` bytes), also by a process that is killed. The payload
is written first, the token last; every token carries the incarnations of its sender and of its receiver, so that a
message from a dead process is recognised. Whoever has read a token sees the payload that was written before it: the
kernel takes the pipe's lock for both, also on processors that reorder stores. The inference process's incarnation is
read without a token; no payload is read because of it, so it needs no order. This module knows no torch.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.games import GameSpec
from keisei_lightning.parallel.memory.mailbox_layout import GroupBlock, MailboxLayout, MailboxMemory
from keisei_lightning.parallel.policy.inference_requests import LEARNER, InferenceRequest, InferenceResult
from keisei_lightning.parallel.supervision.heartbeats import IDLE_BEAT_S
from keisei_lightning.parallel.supervision.pipes import PipeEnd

__all__ = [
    "InferenceRestartedError",
    "InferenceStoppedError",
    "Mailbox",
    "MailboxClient",
    "MailboxServer",
    "RequestKind",
    "Token",
]

_WAIT_MS = 1000 * IDLE_BEAT_S
_READ_BYTES = 49_152  # a multiple of both tokens' sizes: whole tokens only
_STOPPED = -1  # in place of the inference process's incarnation
_REQUEST_TOKEN = struct.Struct("<IIIHBB")
_RESULT_TOKEN = struct.Struct("<III")
_NO_GROUP = 255


class InferenceRestartedError(Exception):
    """The inference process was replaced: requests to the old one are lost."""


class InferenceStoppedError(Exception):
    """The inference process has stopped for good: the collector is shutting down."""


class RequestKind(IntEnum):
    """What a worker requests."""

    BEGIN = 0  # a version of the weights for one rollout of all its groups
    ACT = 1
    VALUE = 2
    LEAVE = 3  # nothing more for this group in this rollout


class Token(NamedTuple):
    """A worker's announcement of a request.

    Attributes:
        server_incarnation: of the inference process that is to serve it.
        incarnation: of the worker.
        number: counts this incarnation's tokens; the result's token repeats it.
        worker_id: which worker.
        group: of games.
        kind: a :class:`RequestKind`.
    """

    server_incarnation: int
    incarnation: int
    number: int
    worker_id: int
    group: int
    kind: int


class Mailbox:
    """The whole mailbox. The learner makes and keeps it, so that processes at both ends can be replaced.

    Args:
        spec: the game.
        num_workers: W.
        group_games: games of each group of one worker.

    Raises:
        ConfigError: the machine cannot reserve the memory.
    """

    def __init__(self, spec: GameSpec, *, num_workers: int, group_games: Sequence[int]) -> None:
        layout = MailboxLayout(
            num_workers=num_workers,
            group_games=tuple(group_games),
            observation_shape=spec.observation_shape,
            mask_bytes=spec.mask_bytes,
        )
        self._memory = MailboxMemory.reserve(layout)
        self._requests = _pipe()
        self._results = [_pipe() for _ in range(num_workers)]

    def client_factory(self, worker_id: int, incarnation: int) -> Callable[[], MailboxClient]:
        """Makes the client of one incarnation of a worker; to be called in the worker's process."""
        reading, writing = self._results[worker_id][0], self._requests[1]
        return partial(MailboxClient, self._memory, reading, writing, worker_id, incarnation)

    def server_factory(self, incarnation: int) -> Callable[[], MailboxServer]:
        """Makes the server of one incarnation (1, 2, ...) of the inference process; to be called in that process."""
        writing = [results[1] for results in self._results]
        return partial(MailboxServer, self._memory, self._requests[0], writing, incarnation)

    def close(self) -> None:
        """Close memory and pipes; twice is harmless."""
        self._memory.shared.close()
        for end in (*self._requests, *(end for ends in self._results for end in ends)):
            end.close()


def _pipe() -> tuple[PipeEnd, PipeEnd]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    return PipeEnd(reading), PipeEnd(writing)


def _read(fd: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(fd, _READ_BYTES)
    return b""


class MailboxClient:
    """A worker's end: sends requests, receives results.

    Args:
        memory: of requests and results.
        reading: result tokens come through it.
        writing: request tokens go through it.
        worker_id: which worker.
        incarnation: of the worker.
    """

    def __init__(
        self, memory: MailboxMemory, reading: PipeEnd, writing: PipeEnd, worker_id: int, incarnation: int
    ) -> None:
        self._columns = memory.layout.views(memory.shared.array())
        self._reading, self._writing = reading, writing
        self._worker_id, self._incarnation = worker_id, incarnation
        self._server_incarnation, self._number = 0, 0
        self._pending: dict[int, tuple[int, RequestKind]] = {}  # number -> (group, kind)
        self._poll = select.poll()
        self._poll.register(reading.fileno(), select.POLLIN)
        _read(reading.fileno())  # results for the incarnation before

    @property
    def group_games(self) -> list[int]:
        """Games of each group."""
        return [group.observation.shape[1] for group in self._columns.groups]

    def _send_token(self, group: int, kind: RequestKind) -> None:
        self._number += 1
        if kind is not RequestKind.LEAVE:
            self._pending[self._number] = (group, kind)
        token = Token(self._server_incarnation, self._incarnation, self._number, self._worker_id, group, kind)
        os.write(self._writing.fileno(), _REQUEST_TOKEN.pack(*token))

    def acquire_version(self, beat: Callable[[], None]) -> int:
        """Request weights for one rollout, and wait for them.

        Args:
            beat: called while waiting: the heartbeat.

        Returns:
            Their version.

        Raises:
            InferenceRestartedError: the inference process was replaced meanwhile.
            InferenceStoppedError: the collector is shutting down.
        """
        self._pending.clear()  # of a rollout that was aborted
        while (incarnation := int(self._columns.numbers[0])) == 0:
            beat()  # the inference process is not ready yet
            self._poll.poll(_WAIT_MS)
            _read(self._reading.fileno())
        self._server_incarnation = incarnation
        self._check_server()
        self._send_token(_NO_GROUP, RequestKind.BEGIN)
        while not self._receive_tokens(beat):
            pass
        return int(self._columns.numbers[1 + self._worker_id])

    def set_seed(self, group: int, seed: int) -> None:
        """Set the seed of a group's random stream."""
        self._columns.seeds[self._worker_id, group] = seed

    def submit(self, group: int, request: InferenceRequest) -> None:
        """Send a group's request; does not wait."""
        columns = self._columns.groups[group]
        columns.observation[self._worker_id] = request.observation
        if request.legal is not None:
            columns.legal[self._worker_id] = request.legal
            columns.to_move[self._worker_id] = LEARNER if request.to_move is None else request.to_move
        self._send_token(group, RequestKind.VALUE if request.legal is None else RequestKind.ACT)

    def receive(self, beat: Callable[[], None]) -> list[tuple[int, InferenceResult]]:
        """Wait for results: (group, result) each. A result is valid until the group's next request.

        Args:
            beat: called while waiting: the heartbeat.

        Raises:
            InferenceRestartedError: the inference process was replaced meanwhile.
            InferenceStoppedError: the collector is shutting down.
        """
        while not (served := self._receive_tokens(beat)):
            pass
        own, results = self._worker_id, []
        for group, kind in served:
            columns = self._columns.groups[group]
            rows = slice(0) if kind is RequestKind.VALUE else slice(None)
            results.append(
                (group, InferenceResult(columns.action[own, rows], columns.log_prob[own, rows], columns.value[own]))
            )
        return results

    def leave(self, group: int) -> None:
        """Announce that a group sends no more requests in this rollout."""
        self._send_token(group, RequestKind.LEAVE)

    def _receive_tokens(self, beat: Callable[[], None]) -> list[tuple[int, RequestKind]]:
        beat()
        self._poll.poll(_WAIT_MS)
        data = _read(self._reading.fileno())
        self._check_server()
        served = []
        for incarnation, number, server_incarnation in _RESULT_TOKEN.iter_unpack(data):
            if (
                incarnation == self._incarnation
                and server_incarnation == self._server_incarnation
                and number in self._pending
            ):
                served.append(self._pending.pop(number))
        return served

    def _check_server(self) -> None:
        incarnation = int(self._columns.numbers[0])
        if incarnation == _STOPPED:
            raise InferenceStoppedError
        if incarnation != self._server_incarnation:
            raise InferenceRestartedError


class MailboxServer:
    """The inference process's end: reads all workers' requests, delivers their results.

    Args:
        memory: of requests and results.
        reading: request tokens come through it.
        writing: result tokens go through these, one for each worker.
        incarnation: of this inference process.

    Attributes:
        memory: uint8, the whole memory.
        blocks: the groups' full requests and their results, each in one run of bytes.
    """

    def __init__(self, memory: MailboxMemory, reading: PipeEnd, writing: Sequence[PipeEnd], incarnation: int) -> None:
        layout = memory.layout
        self.memory = memory.shared.array()
        self._columns = layout.views(self.memory)
        self._reading, self._writing, self._incarnation = reading, writing, incarnation
        self.num_workers, self.num_groups = layout.num_workers, len(layout.group_games)
        self.blocks: list[GroupBlock] = [columns.block(self.memory) for columns in self._columns.groups]

    def announce(self) -> None:
        """Announce that this incarnation is ready; workers that wait for the one before notice it."""
        self._publish_incarnation(self._incarnation)

    def stop(self) -> None:
        """Announce that there will be no further incarnation."""
        self._publish_incarnation(_STOPPED)

    def _publish_incarnation(self, incarnation: int) -> None:
        self._columns.numbers[0] = incarnation
        for worker_id in range(self.num_workers):
            self._send_token(worker_id, 0, 0)  # matches no request: it only wakes the worker

    def _send_token(self, worker_id: int, incarnation: int, number: int) -> None:
        os.write(self._writing[worker_id].fileno(), _RESULT_TOKEN.pack(incarnation, number, self._incarnation))

    def fileno(self) -> int:
        """The descriptor that is readable when requests have come."""
        return self._reading.fileno()

    def read(self) -> list[Token]:
        """All tokens for this incarnation that have come; does not block."""
        tokens = (Token(*fields) for fields in _REQUEST_TOKEN.iter_unpack(_read(self._reading.fileno())))
        return [token for token in tokens if token.server_incarnation == self._incarnation]

    def grant_version(self, token: Token, version: int) -> None:
        """Let a worker begin its rollout with a version of the weights."""
        self._columns.numbers[1 + token.worker_id] = version
        self._send_token(token.worker_id, token.incarnation, token.number)

    def seed_of(self, worker_id: int, group: int) -> int:
        """The seed that a worker has set for a group's random stream."""
        return int(self._columns.seeds[worker_id, group])

    def request(self, tokens: Sequence[Token]) -> InferenceRequest:
        """The requests of one group and one kind, concatenated."""
        group = self._columns.groups[tokens[0].group]
        observation = self._rows(group.observation, tokens)
        if tokens[0].kind == RequestKind.VALUE:
            return InferenceRequest(observation)
        to_move = self._rows(group.to_move, tokens)
        return InferenceRequest(
            observation, self._rows(group.legal, tokens), None if (to_move == LEARNER).all() else to_move
        )

    def _rows(self, column: NDArray[Any], tokens: Sequence[Token]) -> NDArray[Any]:
        workers = [token.worker_id for token in tokens]
        first, last = workers[0], workers[-1]
        if workers == list(range(first, last + 1)):  # a view
            return column[first : last + 1].reshape(-1, *column.shape[2:])
        return np.concatenate([column[worker_id] for worker_id in workers])

    def deliver(self, tokens: Sequence[Token], result: InferenceResult) -> None:
        """Write the result of :meth:`request` to the workers' rows, and announce it to each."""
        group = self._columns.groups[tokens[0].group]
        games = group.observation.shape[1]
        for at, token in enumerate(tokens):
            rows = slice(at * games, (at + 1) * games)
            if token.kind == RequestKind.ACT:
                group.action[token.worker_id] = result.action[rows]
                group.log_prob[token.worker_id] = result.log_prob[rows]
            group.value[token.worker_id] = result.value[rows]
            self._send_token(token.worker_id, token.incarnation, token.number)
