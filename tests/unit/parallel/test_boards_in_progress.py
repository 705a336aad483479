"""Pictures of games in progress: drawn only when asked for, bounded, and worth no rollout."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from fakes import CountingGame
from numpy.typing import NDArray

from keisei_lightning.games import RenderFormat
from keisei_lightning.parallel.central.worker import GroupedPlayer
from keisei_lightning.parallel.memory.slots import ColumnKey, SlotLayout, Slots
from keisei_lightning.parallel.playing.drawing import BoardDrawer
from keisei_lightning.parallel.playing.rollout import RolloutPlayer, RolloutResult
from keisei_lightning.parallel.playing.streams import RolloutStreams
from keisei_lightning.parallel.playing.worker import RolloutWorker
from keisei_lightning.parallel.policy.inference_requests import InferenceRequest, InferenceResult
from keisei_lightning.parallel.supervision.messages import BoardView, Play

NUM_GAMES, NUM_PLIES = 3, 4


class Clock:
    """Goes on by ``step_s`` each time it is looked at."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now, self.step_s = 100.0, step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


class DrawnGame(CountingGame):
    """Draws its boards as it is told to: a text, or an exception to raise."""

    def __init__(self, num_games: int, pictures: Mapping[int, Any] | None = None) -> None:
        super().__init__(num_games)
        self.pictures, self.drawn = pictures or {}, list[int]()

    def render(self, index: int, format: RenderFormat = "text") -> str:
        assert format == "svg"
        self.drawn.append(index)
        picture = self.pictures.get(index, f"<svg>{index}</svg>")
        if isinstance(picture, BaseException):
            raise picture
        return picture


class FirstMoveServer:
    """Always chooses the first legal move."""

    def begin_rollout(self, seed: int) -> None: ...

    def infer(self, request: InferenceRequest) -> InferenceResult:
        games = len(request.observation)
        legal = None if request.legal is None else np.unpackbits(request.legal, axis=1)
        actions = np.zeros(0, np.int64) if legal is None else legal.argmax(1)
        return InferenceResult(actions, np.zeros(len(actions), np.float32), np.zeros((games, 1), np.float32))


class ConstantWeights:
    def adopt(self) -> int:
        return 7

    def verify(self) -> None: ...


def player_of(game: CountingGame, group: int = 0) -> RolloutPlayer:
    streams = RolloutStreams(worker_id=0, incarnation=0, group=group)
    return RolloutPlayer(game=game, server=FirstMoveServer(), num_plies=NUM_PLIES, streams=streams)


def worker_of(game: CountingGame) -> RolloutWorker:
    layout = SlotLayout.for_game(game.spec, num_slots=1, num_workers=1, num_games=game.num_games, num_plies=NUM_PLIES)
    return RolloutWorker(
        worker_id=0, incarnation=0, weights=ConstantWeights(), player=player_of(game), slots=Slots.reserve(layout)
    )


def test_a_worker_draws_its_first_boards_after_a_rollout_that_asks_for_them() -> None:
    game = DrawnGame(NUM_GAMES)
    worker = worker_of(game)
    assert worker.play(Play(slot=0)).boards == ()
    assert game.drawn == []
    boards = worker.play(Play(slot=0, boards_to_draw=2)).boards
    # Each move adds 1: after 8 plies of a game to 10 the first player is to move.
    assert boards == tuple(BoardView(board=n, ply=2 * NUM_PLIES, mover=0, svg=f"<svg>{n}</svg>") for n in range(2))


def test_more_boards_than_there_are_is_all_of_them() -> None:
    assert len(worker_of(DrawnGame(NUM_GAMES)).play(Play(slot=0, boards_to_draw=99)).boards) == NUM_GAMES


def test_boards_of_a_later_group_are_numbered_on() -> None:
    sizes = [2, 1]
    games = [DrawnGame(size) for size in sizes]
    players = [player_of(game, group) for group, game in enumerate(games)]
    grouped = GroupedPlayer(players, sizes, None)  # type: ignore[arg-type]
    assert [(view.board, view.svg) for view in grouped.draw_boards(9)] == [
        (0, "<svg>0</svg>"),
        (1, "<svg>1</svg>"),
        (2, "<svg>0</svg>"),
    ]
    games[0].drawn.clear()
    games[1].drawn.clear()
    grouped = GroupedPlayer([player_of(game, n) for n, game in enumerate(games)], sizes, None)  # type: ignore[arg-type]
    assert [view.board for view in grouped.draw_boards(1)] == [0]
    assert games[1].drawn == []


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (ZeroDivisionError("no board"), "ZeroDivisionError: no board"),
        ("x" * 65_537, "its picture has 65537 bytes, at most 65536 are shown"),
        (None, "AttributeError"),
        ("\ud800", "UnicodeEncodeError"),
    ],
)
def test_a_board_that_cannot_be_shown_is_left_out_with_one_warning(
    caplog: pytest.LogCaptureFixture, picture: Any, reason: str
) -> None:
    game = DrawnGame(NUM_GAMES, {0: picture, 2: picture})
    drawer = BoardDrawer(game, clock=Clock())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [view.board for view in drawer.draw(NUM_GAMES, [1, 2, 3], [1, 0, 1])] == [1]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"counting: a game in progress cannot be shown: {reason}")


def test_an_empty_picture_is_none_and_a_large_one_within_the_limit_is_shown() -> None:
    drawer = BoardDrawer(DrawnGame(2, {0: "", 1: "x" * 65_536}), clock=Clock())
    assert [view.board for view in drawer.draw(2, [0, 0], [0, 0])] == [1]


def test_a_slow_drawing_is_not_repeated_before_it_is_half_a_percent_of_the_time() -> None:
    clock = Clock(step_s=1.0)
    drawer = BoardDrawer(DrawnGame(1), clock=clock)
    assert len(drawer.draw(1, [0], [0])) == 1  # it took a second
    clock.now += 197.0
    assert drawer.draw(1, [0], [0]) == ()
    clock.now += 2.0
    assert len(drawer.draw(1, [0], [0])) == 1


def test_a_rollout_that_failed_shows_nothing() -> None:
    class FailingGame(DrawnGame):
        def step(self, actions: NDArray[np.int64]) -> Any:
            from keisei_lightning.errors import GameError

            raise GameError("a broken board")

    game = FailingGame(NUM_GAMES)
    header = worker_of(game).play(Play(slot=0, boards_to_draw=2))
    assert header.failure is not None
    assert header.boards == ()
    assert game.drawn == []


def test_asking_for_pictures_changes_no_ply() -> None:
    slots: list[dict[ColumnKey, NDArray[Any]]] = []
    for shown in (0, 2):
        game = DrawnGame(NUM_GAMES)
        layout = SlotLayout.for_game(game.spec, num_slots=1, num_workers=1, num_games=NUM_GAMES, num_plies=NUM_PLIES)
        slot = layout.views(np.zeros(layout.num_bytes, np.uint8), 0, 0)
        player = player_of(game)
        for _ in range(3):
            assert isinstance(player.play(slot, 1), RolloutResult)
            player.draw_boards(shown)
        slots.append(slot)
    assert slots[0].keys() == slots[1].keys()
    assert all((slots[0][key] == slots[1][key]).all() for key in slots[0])
