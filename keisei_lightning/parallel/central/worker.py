"""Workers that only play moves (``mode="central"``): somebody else has the policy. No torch here.

A worker's games are split into groups. While the inference process judges the positions of one group, the worker plays
the moves of the other, so that neither waits for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from keisei_lightning.games import GameFactory
from keisei_lightning.parallel.central.mailbox import InferenceRestartedError, InferenceStoppedError, MailboxClient
from keisei_lightning.parallel.memory.shared_buffer import SharedBuffer
from keisei_lightning.parallel.memory.slots import ColumnKey, Slots
from keisei_lightning.parallel.opponents.boards import Seating
from keisei_lightning.parallel.playing.rollout import RolloutPlayer, RolloutResult
from keisei_lightning.parallel.playing.worker import (
    Beat,
    LeaveError,
    Player,
    PlayerOptions,
    RolloutWorker,
    WeightSource,
    Worker,
    make_player,
    serve,
)
from keisei_lightning.parallel.policy.inference_requests import InferenceRequest, InferenceResult, PolicyServer
from keisei_lightning.parallel.supervision.heartbeats import HeartbeatBoard
from keisei_lightning.parallel.supervision.messages import Opponent, Play, RolloutHeader

__all__ = ["CentralBoot", "GroupedPlayer", "run_central_worker", "split_games"]


def split_games(num_games: int, num_groups: int) -> list[int]:
    """Games of each group: as even as possible, no group empty."""
    groups = min(num_games, num_groups)
    return [num_games // groups + (group < num_games % groups) for group in range(groups)]


@dataclass(frozen=True, kw_only=True, slots=True)
class CentralBoot:
    """Everything that a worker needs which only plays moves; pickled once for each start.

    Attributes:
        worker_id: which worker.
        incarnation: which life of it.
        game: cloudpickled game factory.
        options: how to play.
        slots: where rollouts are written.
        open_mailbox: makes the worker's end of it.
        signs: memory of the signs of life.
        seating: of snapshots; None: every game is self-play.
    """

    worker_id: int
    incarnation: int
    game: bytes
    options: PlayerOptions
    slots: Slots
    open_mailbox: Callable[[], MailboxClient]
    signs: SharedBuffer
    seating: Seating | None = None


def run_central_worker(boot: CentralBoot, connection: Connection[Any, Any]) -> None:
    """Target of a worker process (see :func:`~keisei_lightning.parallel.playing.worker.serve`)."""
    serve(lambda beat: _boot(boot, beat), worker_id=boot.worker_id, signs=boot.signs, connection=connection)


def _boot(boot: CentralBoot, beat: Beat) -> Worker:
    asking, layout = boot.open_mailbox(), boot.slots.layout
    game: GameFactory = cloudpickle.loads(boot.game)
    firsts = np.cumsum([0, *asking.group_games]).tolist()
    players = [
        make_player(
            game(num_games),
            _Seeds(asking, group),
            worker_id=boot.worker_id,
            incarnation=boot.incarnation,
            options=boot.options,
            slot_layout=layout,
            opponents=None if boot.seating is None else boot.seating.boards(first, num_games),
            group=group,
        )
        for group, (first, num_games) in enumerate(zip(firsts, asking.group_games, strict=False))
    ]
    worker = RolloutWorker(
        worker_id=boot.worker_id,
        incarnation=boot.incarnation,
        weights=_RemoteWeights(asking, beat),
        player=GroupedPlayer(players, asking.group_games, asking),
        slots=boot.slots,
    )
    signs = HeartbeatBoard(boot.signs)
    return _RetryingWorker(worker, lambda: signs.begin_rollout(boot.worker_id))


class _RetryingWorker(Worker):
    """Plays a rollout anew when the inference process was replaced in its middle.

    Args:
        worker: that plays.
        count: counts a rollout that is begun.
    """

    def __init__(self, worker: RolloutWorker, count: Callable[[], None]) -> None:
        self._worker, self._count = worker, count

    @override
    def reset_games(self) -> None:
        self._worker.reset_games()

    @override
    def play(self, grant: Play, *, wait_s: float = 0.0, beat: Beat = lambda: None) -> RolloutHeader:
        lost = 0
        while True:
            try:
                return replace(self._worker.play(grant, wait_s=wait_s, beat=beat), lost=lost)
            except InferenceRestartedError:  # what it has judged so far is of a version that nobody has any more
                self._worker.reset_games()
                self._count()
                lost += 1
            except InferenceStoppedError:
                raise LeaveError from None


class _RemoteWeights(WeightSource):
    """The inference process's weights."""

    def __init__(self, asking: MailboxClient, beat: Beat) -> None:
        self._asking, self._beat = asking, beat

    @override
    def adopt(self) -> int:
        return self._asking.begin(self._beat)

    @override
    def verify(self) -> None:
        """The inference process does."""


class _Seeds(PolicyServer):
    """Hands on the seed of a group's random stream; the questions go another way."""

    def __init__(self, asking: MailboxClient, group: int) -> None:
        self._asking, self._group = asking, group

    @override
    def begin_rollout(self, seed: int) -> None:
        self._asking.begin_rollout(self._group, seed)

    @override
    def answer(self, question: InferenceRequest) -> InferenceResult:
        raise AssertionError("questions are put by GroupedPlayer")


class GroupedPlayer(Player):
    """Plays several groups of games at once: whichever has its answer goes on.

    Args:
        players: of the groups, each with its own games.
        group_games: games of each group.
        asking: where the questions go.
    """

    def __init__(self, players: Sequence[RolloutPlayer], group_games: Sequence[int], asking: MailboxClient) -> None:
        self._players, self._asking = players, asking
        ends = np.cumsum(group_games).tolist()
        self._rows = [slice(end - games, end) for end, games in zip(ends, group_games, strict=True)]

    @override
    def reset_games(self) -> None:
        for player in self._players:
            player.reset_games()

    @override
    def play(
        self,
        slot: Mapping[ColumnKey, NDArray[Any]],
        policy_version: int,
        beat: Beat = lambda: None,
        *,
        opponent: Opponent | None = None,
    ) -> RolloutResult:
        running: dict[int, Generator[InferenceRequest, InferenceResult, RolloutResult]] = {}
        playing, result = set(range(len(self._players))), RolloutResult()
        try:
            for group, (player, rows) in enumerate(zip(self._players, self._rows, strict=True)):
                part = {key: column[rows] for key, column in slot.items()}
                running[group] = player.steps(part, policy_version, beat, opponent=opponent)
                self._asking.ask(group, next(running[group]))
            while playing:
                for group, answer in self._asking.receive(beat):
                    try:
                        self._asking.ask(group, running[group].send(answer))
                    except StopIteration as end:
                        result.add(end.value)
                        playing.remove(group)
                        self._asking.leave(group)
        finally:
            for group in playing:  # of a rollout that is broken off
                self._asking.leave(group)
        return result
