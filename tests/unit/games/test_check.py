"""``check_game`` passes every built-in game, and finds each way to break the contract."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keisei_lightning.errors import GameError
from keisei_lightning.games import (
    NO_MOVE,
    GameFactory,
    GameSpec,
    RenderFormat,
    StepResult,
    Symmetry,
    check_game,
    game_factory,
)
from keisei_lightning.games.open_spiel.game import OpenSpielGame
from keisei_lightning.games.shogi.codec import mirror_sfen


@pytest.mark.parametrize("opening_plies", [pytest.param(0, marks=pytest.mark.slow), 6])
@pytest.mark.parametrize(
    "name",
    ["tic_tac_toe", "connect_four", "hex(board_size=5)", "othello", "breakthrough(rows=6,columns=6)", "mancala"],
)
def test_open_spiel_games_keep_their_contract(name: str, opening_plies: int) -> None:
    check_game(game_factory(name, opening_plies=opening_plies), num_games=3, num_plies=100)


@pytest.mark.parametrize(
    "options", [pytest.param({"max_plies": 110}, marks=pytest.mark.slow), {"opening_plies": 30, "max_plies": 60}]
)
def test_shogi_keeps_its_contract(options: dict[str, int]) -> None:
    check_game(
        game_factory("shogi", **options),
        num_games=4,
        num_plies=130,
        symmetric_position=lambda _, position: mirror_sfen(position),
    )


# One broken game for each check. All are tic-tac-toe with one fault.


class TicTacToe(OpenSpielGame):
    def __init__(self, num_games: int) -> None:
        super().__init__("tic_tac_toe", num_games)

    def with_spec(self, **changes: object) -> None:
        self._spec = dataclasses.replace(self._spec, **changes)  # type: ignore[arg-type]


Bytes = NDArray[np.uint8]
Seats = NDArray[np.int8]


class ForgetsAMove(TicTacToe):
    def observe(self, observation: Bytes, legal: Bytes, mover: Seats) -> None:
        super().observe(observation, legal, mover)
        legal[:, 0] &= np.where(legal[:, 0] == 0xFF, 0x7F, 0xFF).astype(np.uint8)


class InventsAMove(TicTacToe):
    def observe(self, observation: Bytes, legal: Bytes, mover: Seats) -> None:
        super().observe(observation, legal, mover)
        legal[legal.any(axis=1), 0] |= 0x80


class SetsPaddingBits(TicTacToe):
    def observe(self, observation: Bytes, legal: Bytes, mover: Seats) -> None:
        super().observe(observation, legal, mover)
        legal[:, -1] |= 1


class LeavesLegalBits(TicTacToe):
    def observe(self, observation: Bytes, legal: Bytes, mover: Seats) -> None:
        found = np.zeros_like(legal)
        super().observe(observation, found, mover)
        legal |= found


class LeavesAPlane(TicTacToe):
    def observe(self, observation: Bytes, legal: Bytes, mover: Seats) -> None:
        super().observe(scratch := np.zeros_like(observation), legal, mover)
        observation[:, :2] = scratch[:, :2]


class NeedsPackedArrays(TicTacToe):
    def observe(self, observation: Bytes, legal: Bytes, mover: Seats) -> None:
        super().observe(observation, legal, mover)
        if not observation.flags.c_contiguous:
            observation[...] = 0


class WritesBeside(TicTacToe):
    def observe(self, observation: Bytes, legal: Bytes, mover: Seats) -> None:
        super().observe(observation, legal, mover)
        if observation.base is not None:
            observation.base[:, 0] = 0


class CountsSeatsFromOne(TicTacToe):
    def observe(self, observation: Bytes, legal: Bytes, mover: Seats) -> None:
        super().observe(observation, legal, mover)
        mover += 1


class KeepsLegalMovesAtTheEnd(TicTacToe):
    def observe(self, observation: Bytes, legal: Bytes, mover: Seats) -> None:
        super().observe(observation, legal, mover)
        legal[~legal.any(axis=1), 0] = 0x80


class HasNoMovesAtTheStart(TicTacToe):
    def observe(self, observation: Bytes, legal: Bytes, mover: Seats) -> None:
        super().observe(observation, legal, mover)
        legal[...] = 0


class MovesBeforeItRefuses(TicTacToe):
    def step(self, actions: NDArray[np.int64]) -> StepResult:
        for index in range(self.num_games):
            alone = np.full(self.num_games, NO_MOVE)
            alone[index] = actions[index]
            result = super().step(alone)
        return result


class AcceptsAnything(TicTacToe):
    def step(self, actions: NDArray[np.int64]) -> StepResult:
        legal = self._legal.lookup(np.arange(self.num_games), np.asarray(actions)) > 0
        return super().step(np.where(legal, actions, NO_MOVE))


class ChangesTheCallersActions(TicTacToe):
    def step(self, actions: NDArray[np.int64]) -> StepResult:
        result = super().step(actions)
        actions[...] = 0
        return result


class MovesBoardsThatSitOut(TicTacToe):
    def step(self, actions: NDArray[np.int64]) -> StepResult:
        idle = [i for i in range(self.num_games) if actions[i] == NO_MOVE and not self.outcome(i)]
        result = super().step(actions)
        self.reset(np.array(idle, dtype=np.int64))
        return result


class RewardsInDoublePrecision(TicTacToe):
    def step(self, actions: NDArray[np.int64]) -> StepResult:
        result = super().step(actions)
        return result._replace(reward=result.reward.astype(np.float64))  # type: ignore[arg-type]


class RewardsTheMargin(TicTacToe):
    def step(self, actions: NDArray[np.int64]) -> StepResult:
        result = super().step(actions)
        return result._replace(reward=result.reward * 2)


class RewardsEveryPly(TicTacToe):
    def step(self, actions: NDArray[np.int64]) -> StepResult:
        result = super().step(actions)
        return result._replace(reward=np.where(actions == NO_MOVE, 0, 1).astype(np.float32))


class RewardsForTheResultTwice(TicTacToe):
    def step(self, actions: NDArray[np.int64]) -> StepResult:
        result = super().step(actions)
        return result._replace(reward=np.array(self._result, dtype=np.float32))


class EndsInBothWays(TicTacToe):
    def step(self, actions: NDArray[np.int64]) -> StepResult:
        result = super().step(actions)
        return result._replace(truncated=result.terminated)


class ForgetsThatItIsOver(TicTacToe):
    def step(self, actions: NDArray[np.int64]) -> StepResult:
        result = super().step(actions)
        return result._replace(terminated=result.terminated & (actions != NO_MOVE))


class ResetsAllBoards(TicTacToe):
    def reset(self, indices: NDArray[np.int64] | None = None) -> None:
        super().reset()


class PlaysOnPastItsLimit(TicTacToe):
    def __init__(self, num_games: int) -> None:
        super().__init__(num_games)
        self._limit = self._spec
        self.with_spec(max_plies=4)

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        promised, self._spec = self._spec, self._limit
        try:
            return super().step(actions)
        finally:
            self._spec = promised


class IgnoresItsSeed(TicTacToe):
    def __init__(self, num_games: int) -> None:
        super().__init__(num_games)
        self.opening_plies = 4
        self._random = random.Random()

    def seed(self, seed: int) -> None:
        pass


class ForgetsPositions(TicTacToe):
    def set_position(self, index: int, position: str) -> None:
        super().set_position(index, position)
        self.reset(np.array([index]))


class AcceptsAnyPosition(TicTacToe):
    def set_position(self, index: int, position: str) -> None:
        if position[0] in "-0123456789":
            super().set_position(index, position)


class RestoresTheOtherMover(TicTacToe):
    def set_position(self, index: int, position: str) -> None:
        super().set_position(index, position)
        self._mover[index] ^= 1


class HasNoOutcome(TicTacToe):
    def outcome(self, index: int) -> str:
        return ""


class DrawsNoPicture(TicTacToe):
    def render(self, index: int, format: RenderFormat = "text") -> str:
        return super().render(index)


class WritesNoRecord(TicTacToe):
    def record(self, index: int) -> str:
        return ""


class NamesNoMove(TicTacToe):
    def action_name(self, index: int, action: int) -> str:
        return ""


class NamesTwoMovesAlike(TicTacToe):
    def action_name(self, index: int, action: int) -> str:
        return f"column {action % 3}"


class DrawsHalfAPicture(TicTacToe):
    def render(self, index: int, format: RenderFormat = "text") -> str:
        return "<svg>" if format == "svg" else super().render(index)


class RecordsTheStartOnly(TicTacToe):
    def record(self, index: int) -> str:
        return "start"


class TellsTheTime(TicTacToe):
    asked = 0

    def record(self, index: int) -> str:
        self.asked += 1
        return f"{super().record(index)} {self.asked}"


class ChangesSeatsWhenItNamesAMove(TicTacToe):
    def action_name(self, index: int, action: int) -> str:
        self._mover[index] ^= 1
        return str(action)


class ResetsBeforeItRefusesAPosition(TicTacToe):
    def set_position(self, index: int, position: str) -> None:
        self.reset(np.array([index]))
        super().set_position(index, position)


class HasNoActionsBySquare(TicTacToe):
    def __init__(self, num_games: int) -> None:
        super().__init__(num_games)
        self.with_spec(actions_by_square=True, num_actions=10)


class AlwaysPlaysAnOpening(TicTacToe):
    @property
    def opening_plies(self) -> int:  # type: ignore[override]
        return 4

    @opening_plies.setter
    def opening_plies(self, plies: int) -> None:
        pass


class EndsInItsOpening(TicTacToe):
    def _opening(self, state: Any) -> Any:
        while self.opening_plies and not state.is_terminal():
            state.apply_action(state.legal_actions()[0])
        return state


class ForgetsItsHistory(TicTacToe):
    def set_history(self, index: int, history: str) -> None:
        super().set_history(index, "-" if history[0].isdecimal() else history)


class CopiesOnlyTheFirstBoard(TicTacToe):
    def copy_boards(self, indices: NDArray[np.int64]) -> list[str]:
        return [self.history(0)] * len(indices)

    def put_boards(self, indices: NDArray[np.int64], boards: Sequence[str]) -> None:
        for index, board in zip(indices.tolist(), boards, strict=True):
            self.set_history(index, board)


class RestoresTheOtherMoverOfAHistory(TicTacToe):
    def set_history(self, index: int, history: str) -> None:
        super().set_history(index, history)
        self._mover[index] ^= 1


class RewardsDifferAfterAHistory(TicTacToe):
    restored = False

    def set_history(self, index: int, history: str) -> None:
        super().set_history(index, history)
        self.restored = True

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        result = super().step(actions)
        return result._replace(reward=-result.reward) if self.restored else result


class AcceptsAnyHistory(TicTacToe):
    def set_history(self, index: int, history: str) -> None:
        if history[0] in "-0123456789":
            super().set_history(index, history)


class WritesFiles(TicTacToe):
    """Keeps its promises."""

    files: Mapping[str, str] = {".txt": "{0} and {1}", ".log": "{1}, {0}"}

    def record_files(self, index: int, *, players: tuple[str, str], outcome: str) -> Mapping[str, str]:
        return {ending: text.format(*players) for ending, text in self.files.items()}


class WritesNoFiles(WritesFiles):
    files: Mapping[str, str] = {}


class WritesFilesWithoutEndings(WritesFiles):
    files: Mapping[str, str] = {"txt": "{0} and {1}"}


class WritesFilesWithoutNames(WritesFiles):
    files: Mapping[str, str] = {".txt": "{0}"}


class DescribesNothing(TicTacToe):
    implementation = ""


class HasAnotherBoardShape(TicTacToe):
    def __init__(self, num_games: int) -> None:
        super().__init__(num_games)
        self.with_spec(board_shape=(9, 1))


class IsAnotherGameEachTime(TicTacToe):
    made = 0

    def __init__(self, num_games: int) -> None:
        super().__init__(num_games)
        IsAnotherGameEachTime.made += 1
        self.with_spec(max_plies=9 + IsAnotherGameEachTime.made)


def symmetric(spec: GameSpec, *, squares: list[int], actions: list[int]) -> tuple[Symmetry, ...]:
    index = np.concatenate([np.array(squares) + plane * 9 for plane in range(3)])
    assert spec.observation_bytes == 27
    return (Symmetry(name="turn", observation_index=index, action_index=np.array(actions)),)


TURNED = [8, 7, 6, 5, 4, 3, 2, 1, 0]
SHIFTED = [1, 2, 0, 4, 5, 3, 7, 8, 6]


class TurnsTheBoardButNotTheActions(TicTacToe):
    def __init__(self, num_games: int) -> None:
        super().__init__(num_games)
        self.with_spec(symmetries=symmetric(self._spec, squares=TURNED, actions=list(range(9))))


class ShiftsTheBoard(TicTacToe):
    def __init__(self, num_games: int) -> None:
        super().__init__(num_games)
        self.with_spec(symmetries=symmetric(self._spec, squares=SHIFTED, actions=SHIFTED))


class MapsTwoActionsToOne(TicTacToe):
    def __init__(self, num_games: int) -> None:
        super().__init__(num_games)
        self.with_spec(symmetries=symmetric(self._spec, squares=TURNED, actions=[0, *TURNED[1:]]))


class ClicksWhereNothingIs(TicTacToe):
    def move_parts(self, index: int, action: int) -> tuple[str, ...]:
        return (f"square {action}",)


class ClicksOutsideItsPicture(TicTacToe):
    def render(self, index: int, format: RenderFormat = "text") -> str:
        return super().render(index, format).replace('data-x="46"', 'data-x="460"')


class ClicksNowhere(TicTacToe):
    def render(self, index: int, format: RenderFormat = "text") -> str:
        return super().render(index, format).replace("data-y", "data-z")


BROKEN: dict[GameFactory, str] = {
    ForgetsAMove: "step accepts the illegal action 0 in position",
    InventsAMove: "refuses an action that legal allows",
    SetsPaddingBits: "the padding bits of legal are not zero",
    LeavesLegalBits: "observe does not fill all of legal",
    LeavesAPlane: "observe does not fill all of observation",
    NeedsPackedArrays: "observe does not fill all of observation, or not a strided one",
    WritesBeside: "observe writes beside observation",
    CountsSeatsFromOne: "mover must be 0 or 1, not [",
    KeepsLegalMovesAtTheEnd: "has legal actions",
    HasNoMovesAtTheStart: "is not over and has no legal action",
    MovesBeforeItRefuses: "a refused step has moved a board",
    AcceptsAnything: "step accepts the illegal action -2",
    ChangesTheCallersActions: "step changes the caller's actions",
    MovesBoardsThatSitOut: "a board that sat out has changed",
    RewardsInDoublePrecision: "reward must be float32",
    RewardsTheMargin: "rewards must be -1, 0 or 1",
    RewardsEveryPly: "a reward without the end of a game",
    RewardsForTheResultTwice: "a reward on a board that sat out",
    EndsInBothWays: "a game is both terminated and truncated",
    ForgetsThatItIsOver: "terminated or truncated changes without a move",
    ResetsAllBoards: "reset touches boards that it was not asked for",
    PlaysOnPastItsLimit: "a game continues after max_plies=4 plies",
    IgnoresItsSeed: "two games with the same seed and the same actions differ",
    ForgetsPositions: "becomes '-'",
    AcceptsAnyPosition: "set_position accepts text that is no position",
    RestoresTheOtherMover: "another mover",
    HasNoOutcome: "outcome '' of a board that is over",
    DrawsNoPicture: "gives no SVG",
    WritesNoRecord: "record gives no text",
    NamesNoMove: "action_name is empty in position",
    NamesTwoMovesAlike: "two legal actions have one name in position",
    DrawsHalfAPicture: "gives no SVG element",
    RecordsTheStartOnly: "record forgets a move: 'start'",
    TellsTheTime: "gives another text at the second call",
    ChangesSeatsWhenItNamesAMove: "render or action_name changes a board",
    ResetsBeforeItRefusesAPosition: "a refused set_position has changed a board",
    HasNoActionsBySquare: "10 actions are no multiple of 9 squares",
    AlwaysPlaysAnOpening: "with opening_plies=0 boards start in different positions",
    EndsInItsOpening: "a random opening ends a game: ['first player wins']",
    ForgetsItsHistory: "after set_history history is '-' instead of ",
    CopiesOnlyTheFirstBoard: "after put_boards position is ",
    RestoresTheOtherMoverOfAHistory: "after set_history the boards are observed otherwise",
    RewardsDifferAfterAHistory: "after set_history a ply has another reward",
    AcceptsAnyHistory: "set_history accepts text that is no history",
    WritesNoFiles: "record_files gives no file",
    WritesFilesWithoutEndings: "'txt' is no ending of a file's name",
    WritesFilesWithoutNames: ".txt lacks a player's name",
    ClicksWhereNothingIs: "move_parts: no element of the picture has 'square 0', a part of 'x(0,0)'",
    ClicksOutsideItsPicture: "the middle of part '0,0', 460 46, is not in the view box",
    ClicksNowhere: "the element of part '0,0' has no data-x and data-y",
    DescribesNothing: "implementation gives no text",
    HasAnotherBoardShape: "do not fit spec.board_shape=(9, 1)",
    IsAnotherGameEachTime: "spec.max_plies differs between two games of one factory",
    TurnsTheBoardButNotTheActions: "symmetry 'turn': observations differ",
    ShiftsTheBoard: "symmetry 'turn': rewards or ends differ",
    MapsTwoActionsToOne: "symmetry 'turn': action_index is no int64 permutation of 9 entries",
}


@pytest.mark.parametrize(("factory", "broken"), BROKEN.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_a_broken_promise_is_named(factory: GameFactory, broken: str) -> None:
    with pytest.raises(GameError) as caught:
        check_game(factory, num_games=6, num_plies=60)
    assert broken in str(caught.value)


@pytest.mark.parametrize("factory", [TicTacToe, WritesFiles])
def test_the_same_game_without_a_fault_passes(factory: GameFactory) -> None:
    check_game(factory, num_games=6, num_plies=60)


def test_a_factory_that_cannot_be_shipped_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(GameError, match="the factory cannot be pickled for the workers"):
        check_game(lambda num_games: TicTacToe(num_games) if lock else TicTacToe(1))


def test_something_else_than_a_game_is_named() -> None:
    with pytest.raises(GameError, match="the factory makes a list, which lacks methods of Game"):
        check_game(lambda num_games: [num_games])  # type: ignore[arg-type, return-value]
    with pytest.raises(GameError, match="num_games is 1, not the 8 asked for"):
        check_game(lambda num_games: TicTacToe(1))
