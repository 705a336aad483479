"""Questions and answers between workers that only play moves and the process that has the policy (``mode="central"``).

One block of shared memory holds the questions of each group of games, all workers' side by side, so that a batch over
all workers is a view; the answers lie beside them (:mod:`~keisei_lightning.parallel.memory.mailbox_layout`). Small
tokens through pipes say what is there::

    worker 0 --- question tokens ---\
    worker 1 --- question tokens ---->  one pipe  ---> inference process --- answer tokens ---> a pipe for each worker

A token is written whole or not at all (POSIX, up to ``PIPE_BUF`` bytes), also by a process that is killed. Payload
first, token last; every token names the life of its sender and of its receiver, so that what a dead process said is
recognised. Who has read a token sees the payload that was written before it: the kernel takes the pipe's lock for both,
also on processors that reorder stores. The number of the inference process's life is looked at without a token; no
payload is read because of it, so it needs no order. This module knows no torch.
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
    "Kind",
    "Mailbox",
    "MailboxClient",
    "MailboxServer",
    "Token",
]

_WAIT_MS = 1000 * IDLE_BEAT_S
_READ_BYTES = 49_152  # whole tokens of either size
_STOPPED = -1  # in place of the inference process's life
_TOKEN = struct.Struct("<IIIHBB")
_ANSWER = struct.Struct("<III")
_NO_GROUP = 255


class InferenceRestartedError(Exception):
    """The inference process was replaced: what was asked of the old one is lost."""


class InferenceStoppedError(Exception):
    """The inference process has stopped for good: the collector is shutting down."""


class Kind(IntEnum):
    """What a worker wants."""

    BEGIN = 0  # a version of the weights for one rollout of all its groups
    ACT = 1
    VALUE = 2
    LEAVE = 3  # nothing more in this rollout, of this group


class Token(NamedTuple):
    """What a worker says.

    Attributes:
        life: of the inference process that it speaks to.
        incarnation: of the worker.
        number: counts what this incarnation has said; the answer repeats it.
        worker_id: who says it.
        group: of games.
        kind: what it wants.
    """

    life: int
    incarnation: int
    number: int
    worker_id: int
    group: int
    kind: int


class Mailbox:
    """All of it, as the learner makes and keeps it, so that processes can be replaced at both ends.

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
        self._questions = _pipe()
        self._answers = [_pipe() for _ in range(num_workers)]

    def worker_end(self, worker_id: int, incarnation: int) -> Callable[[], MailboxClient]:
        """What makes a worker's end of it, in one of its lives; it is to be called in the worker."""
        reading, writing = self._answers[worker_id][0], self._questions[1]
        return partial(MailboxClient, self._memory, reading, writing, worker_id, incarnation)

    def inference_end(self, life: int) -> Callable[[], MailboxServer]:
        """What makes the inference process's end, in one of its lives (1, 2, ...); it is to be called there."""
        writing = [answers[1] for answers in self._answers]
        return partial(MailboxServer, self._memory, self._questions[0], writing, life)

    def close(self) -> None:
        """Give up memory and pipes; twice is harmless."""
        self._memory.shared.close()
        for end in (*self._questions, *(end for ends in self._answers for end in ends)):
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
    """A worker's questions and their answers.

    Args:
        memory: where requests and results lie.
        reading: answers come through it.
        writing: questions go through it.
        worker_id: who asks.
        incarnation: in which life.
    """

    def __init__(
        self,
        memory: MailboxMemory,
        reading: PipeEnd,
        writing: PipeEnd,
        worker_id: int,
        incarnation: int,
    ) -> None:
        self._columns = memory.layout.views(memory.shared.array())
        self._reading, self._writing = reading, writing
        self._worker_id, self._incarnation = worker_id, incarnation
        self._life, self._number = 0, 0
        self._waiting: dict[int, tuple[int, Kind]] = {}  # number -> (group, what)
        self._poll = select.poll()
        self._poll.register(reading.fileno(), select.POLLIN)
        _read(reading.fileno())  # what was meant for the life before

    @property
    def group_games(self) -> list[int]:
        """Games of each group."""
        return [group.observation.shape[1] for group in self._columns.groups]

    def _say(self, group: int, kind: Kind) -> None:
        self._number += 1
        if kind is not Kind.LEAVE:
            self._waiting[self._number] = (group, kind)
        token = Token(self._life, self._incarnation, self._number, self._worker_id, group, kind)
        os.write(self._writing.fileno(), _TOKEN.pack(*token))

    def begin(self, beat: Callable[[], None]) -> int:
        """Ask for weights for one rollout, and wait.

        Returns:
            Their version.

        Raises:
            InferenceRestartedError, InferenceStoppedError: instead of an answer.
        """
        self._waiting.clear()  # of a rollout that was broken off
        while (life := int(self._columns.numbers[0])) == 0:
            beat()  # the inference process is not there yet
            self._poll.poll(_WAIT_MS)
            _read(self._reading.fileno())
        self._life = life
        self._check_life()
        self._say(_NO_GROUP, Kind.BEGIN)
        while not self._hear(beat):
            pass
        return int(self._columns.numbers[1 + self._worker_id])

    def begin_rollout(self, group: int, seed: int) -> None:
        """Give the seed of a group's random stream."""
        self._columns.seeds[self._worker_id, group] = seed

    def ask(self, group: int, question: InferenceRequest) -> None:
        """Put a question."""
        columns = self._columns.groups[group]
        columns.observation[self._worker_id] = question.observation
        if question.legal is not None:
            columns.legal[self._worker_id] = question.legal
            columns.to_move[self._worker_id] = LEARNER if question.to_move is None else question.to_move
        self._say(group, Kind.VALUE if question.legal is None else Kind.ACT)

    def receive(self, beat: Callable[[], None]) -> list[tuple[int, InferenceResult]]:
        """Wait for answers: (group, answer); each is valid until the group's next question.

        Raises:
            InferenceRestartedError, InferenceStoppedError: instead of an answer.
        """
        while not (answered := self._hear(beat)):
            pass
        me, answers = self._worker_id, []
        for group, kind in answered:
            columns = self._columns.groups[group]
            few = slice(0) if kind is Kind.VALUE else slice(None)
            answers.append(
                (group, InferenceResult(columns.action[me, few], columns.log_prob[me, few], columns.value[me]))
            )
        return answers

    def leave(self, group: int) -> None:
        """Say that nothing more comes from a group in this rollout."""
        self._say(group, Kind.LEAVE)

    def _hear(self, beat: Callable[[], None]) -> list[tuple[int, Kind]]:
        beat()
        self._poll.poll(_WAIT_MS)
        data = _read(self._reading.fileno())
        self._check_life()
        heard = []
        for incarnation, number, life in _ANSWER.iter_unpack(data):
            if incarnation == self._incarnation and life == self._life and number in self._waiting:
                heard.append(self._waiting.pop(number))
        return heard

    def _check_life(self) -> None:
        life = int(self._columns.numbers[0])
        if life == _STOPPED:
            raise InferenceStoppedError
        if life != self._life:
            raise InferenceRestartedError


class MailboxServer:
    """All workers' questions, and the answers to them.

    Args:
        memory: where requests and results lie.
        reading: questions come through it.
        writing: answers go through these, one for each worker.
        life: of this inference process.

    Attributes:
        memory: uint8, where everything lies.
        blocks: what the groups' full requests and their results are, each in one piece.
    """

    def __init__(self, memory: MailboxMemory, reading: PipeEnd, writing: Sequence[PipeEnd], life: int) -> None:
        layout = memory.layout
        self.memory = memory.shared.array()
        self._columns = layout.views(self.memory)
        self._reading, self._writing, self._life = reading, writing, life
        self.num_workers, self.num_groups = layout.num_workers, len(layout.group_games)
        self.blocks: list[GroupBlock] = [columns.block(self.memory) for columns in self._columns.groups]

    def announce(self) -> None:
        """Say that this life is there; whoever waits for the one before hears it."""
        self._tell_all(self._life)

    def stop(self) -> None:
        """Say that there will be no other life."""
        self._tell_all(_STOPPED)

    def _tell_all(self, life: int) -> None:
        self._columns.numbers[0] = life
        for worker_id in range(self.num_workers):
            self._write(worker_id, 0, 0)  # answers nothing: it wakes

    def _write(self, worker_id: int, incarnation: int, number: int) -> None:
        os.write(self._writing[worker_id].fileno(), _ANSWER.pack(incarnation, number, self._life))

    def fileno(self) -> int:
        """What to wait on for questions."""
        return self._reading.fileno()

    def read(self) -> list[Token]:
        """Every token that is there for this life; does not block."""
        tokens = (Token(*fields) for fields in _TOKEN.iter_unpack(_read(self._reading.fileno())))
        return [token for token in tokens if token.life == self._life]

    def grant_version(self, token: Token, version: int) -> None:
        """InferenceResult a worker that begins a rollout."""
        self._columns.numbers[1 + token.worker_id] = version
        self._write(token.worker_id, token.incarnation, token.number)

    def seed_of(self, worker_id: int, group: int) -> int:
        """What a worker gave as the seed of a group's random stream."""
        return int(self._columns.seeds[worker_id, group])

    def question(self, tokens: Sequence[Token]) -> InferenceRequest:
        """The questions of one group and one kind, one behind the other."""
        group = self._columns.groups[tokens[0].group]
        observation = self._rows(group.observation, tokens)
        if tokens[0].kind == Kind.VALUE:
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

    def answer(self, tokens: Sequence[Token], answer: InferenceResult) -> None:
        """Hand out the answers to :meth:`question`."""
        group = self._columns.groups[tokens[0].group]
        games = group.observation.shape[1]
        for at, token in enumerate(tokens):
            rows = slice(at * games, (at + 1) * games)
            if token.kind == Kind.ACT:
                group.action[token.worker_id] = answer.action[rows]
                group.log_prob[token.worker_id] = answer.log_prob[rows]
            group.value[token.worker_id] = answer.value[rows]
            self._write(token.worker_id, token.incarnation, token.number)
