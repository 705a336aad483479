"""Workers that only play moves (``mode="central"``): the inference process holds the policy. No torch here.

A worker's games are split into groups. While the inference process evaluates the positions of one group, the worker
plays the moves of another, so that neither process waits for the other.
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
    Player,
    PlayerOptions,
    RolloutWorker,
    WeightSource,
    Worker,
    WorkerStoppedError,
    make_player,
    serve,
)
from keisei_lightning.parallel.policy.inference_requests import InferenceRequest, InferenceResult, PolicyServer
from keisei_lightning.parallel.supervision.heartbeats import HeartbeatBoard
from keisei_lightning.parallel.supervision.messages import BoardView, Opponent, Play, RolloutHeader

__all__ = ["CentralBoot", "GroupedPlayer", "run_central_worker", "split_games"]


def split_games(num_games: int, num_groups: int) -> list[int]:
    """Games of each group: split as evenly as possible, no group empty."""
    groups = min(num_games, num_groups)
    return [num_games // groups + (group < num_games % groups) for group in range(groups)]


@dataclass(frozen=True, kw_only=True, slots=True)
class CentralBoot:
    """Everything that a worker that only plays moves needs; pickled once for each start.

    Attributes:
        worker_id: which worker.
        incarnation: of the worker.
        game: cloudpickled game factory.
        options: how to play.
        slots: where rollouts are written.
        open_mailbox: makes the client's end of the mailbox.
        heartbeats: memory of the heartbeat board.
        seating: of snapshots; None: every game is self-play.
    """

    worker_id: int
    incarnation: int
    game: bytes
    options: PlayerOptions
    slots: Slots
    open_mailbox: Callable[[], MailboxClient]
    heartbeats: SharedBuffer
    seating: Seating | None = None


def run_central_worker(boot: CentralBoot, connection: Connection[Any, Any]) -> None:
    """Target of a worker process (see :func:`~keisei_lightning.parallel.playing.worker.serve`)."""
    serve(lambda beat: _boot(boot, beat), worker_id=boot.worker_id, heartbeats=boot.heartbeats, connection=connection)


def _boot(boot: CentralBoot, beat: Beat) -> Worker:
    client, layout = boot.open_mailbox(), boot.slots.layout
    game: GameFactory = cloudpickle.loads(boot.game)
    firsts = np.cumsum([0, *client.group_games]).tolist()
    players = [
        make_player(
            game(num_games),
            _SeedForwarder(client, group),
            worker_id=boot.worker_id,
            incarnation=boot.incarnation,
            options=boot.options,
            slot_layout=layout,
            opponents=None if boot.seating is None else boot.seating.boards(first, num_games),
            group=group,
        )
        for group, (first, num_games) in enumerate(zip(firsts, client.group_games, strict=False))
    ]
    worker = RolloutWorker(
        worker_id=boot.worker_id,
        incarnation=boot.incarnation,
        weights=_RemoteWeights(client, beat),
        player=GroupedPlayer(players, client.group_games, client),
        slots=boot.slots,
    )
    heartbeats = HeartbeatBoard(boot.heartbeats)
    return _RetryingWorker(worker, lambda: heartbeats.begin_rollout(boot.worker_id))


class _RetryingWorker(Worker):
    """Plays a rollout again if the inference process was replaced while it was played.

    Args:
        worker: plays one rollout.
        count: counts a rollout that is begun.
    """

    def __init__(self, worker: RolloutWorker, count: Callable[[], None]) -> None:
        self._worker, self._count = worker, count

    @override
    def reset_games(self) -> None:
        self._worker.reset_games()

    @override
    def close(self) -> None:
        self._worker.close()

    @override
    def play(self, grant: Play, *, wait_s: float = 0.0, beat: Beat = lambda: None) -> RolloutHeader:
        lost = 0
        while True:
            try:
                return replace(self._worker.play(grant, wait_s=wait_s, beat=beat), lost_rollouts=lost)
            except InferenceRestartedError:  # the new process may hold another version of the weights
                self._worker.reset_games()
                self._count()
                lost += 1
            except InferenceStoppedError:
                raise WorkerStoppedError from None


class _RemoteWeights(WeightSource):
    """The inference process's weights."""

    def __init__(self, client: MailboxClient, beat: Beat) -> None:
        self._client, self._beat = client, beat

    @override
    def adopt(self) -> int:
        return self._client.acquire_version(self._beat)

    @override
    def verify(self) -> None:
        """Nothing to do: the inference process verifies them."""


class _SeedForwarder(PolicyServer):
    """Forwards the seed of a group's random stream. Requests are sent by :class:`GroupedPlayer`."""

    def __init__(self, client: MailboxClient, group: int) -> None:
        self._client, self._group = client, group

    @override
    def begin_rollout(self, seed: int) -> None:
        self._client.set_seed(self._group, seed)

    @override
    def infer(self, request: InferenceRequest) -> InferenceResult:
        raise AssertionError("requests are sent by GroupedPlayer")


class GroupedPlayer(Player):
    """Plays several groups of games concurrently: a group continues as soon as its result has come.

    Args:
        players: of the groups, each with its own games.
        group_games: games of each group.
        client: sends the requests.
    """

    def __init__(self, players: Sequence[RolloutPlayer], group_games: Sequence[int], client: MailboxClient) -> None:
        self._players, self._client = players, client
        ends = np.cumsum(group_games).tolist()
        self._rows = [slice(end - games, end) for end, games in zip(ends, group_games, strict=True)]

    @override
    def reset_games(self) -> None:
        for player in self._players:
            player.reset_games()

    @override
    def close(self) -> None:
        for player in self._players:
            player.close()

    @override
    def draw_boards(self, num_boards: int) -> tuple[BoardView, ...]:
        views: list[BoardView] = []
        for player, rows in zip(self._players, self._rows, strict=True):
            drawn = player.draw_boards(max(0, num_boards - rows.start))
            views += [replace(view, board=rows.start + view.board) for view in drawn]
        return tuple(views)

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
        playing, total = set(range(len(self._players))), RolloutResult()
        try:
            for group, (player, rows) in enumerate(zip(self._players, self._rows, strict=True)):
                part = {key: column[rows] for key, column in slot.items()}
                running[group] = player.steps(part, policy_version, beat, opponent=opponent)
                self._client.submit(group, next(running[group]))
            while playing:
                for group, result in self._client.receive(beat):
                    try:
                        self._client.submit(group, running[group].send(result))
                    except StopIteration as end:
                        total.add(end.value)
                        playing.remove(group)
                        self._client.leave(group)
        finally:
            for group in playing:  # of a rollout that is aborted
                self._client.leave(group)
        return total
