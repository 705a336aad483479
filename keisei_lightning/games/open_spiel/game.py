"""Any two-player zero-sum perfect-information game of OpenSpiel, on G boards, by its OpenSpiel string.

A game must be sequential, without chance and without hidden information, and its observation tensor must hold whole
numbers from 0 to 255; everything else is refused when the game is made. How a tensor and the actions are turned to the
mover's view is in :mod:`keisei_lightning.games.open_spiel.views`.

The winner's reward is +1 and the loser's -1 whatever the margin. A game that reaches ``max_plies`` before its own end
is a draw. Turns need not alternate: passes are moves like any other, and the mover is whoever OpenSpiel says.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from open_spiel.python.observation import make_observation

from keisei_lightning.errors import GameError, IllegalActionError, UnsupportedGameError
from keisei_lightning.games.arrays import LegalMoves, OwnThread, as_actions, as_indices, check_options
from keisei_lightning.games.open_spiel.drawings import Drawing, drawing_of
from keisei_lightning.games.open_spiel.library import load, longest_game
from keisei_lightning.games.open_spiel.views import seat_view
from keisei_lightning.games.protocol import GameSpec, RenderFormat, StepResult
from keisei_lightning.games.svg import text_svg

__all__ = ["OpenSpielGame", "make"]

_NO_MOVES_YET = "-"


class OpenSpielGame:
    """G boards of one OpenSpiel game; a :class:`~keisei_lightning.games.protocol.Game`.

    Args:
        game_string: the game in OpenSpiel's notation.
        num_games: G.
        max_plies: a game is drawn after this many plies (default: no game is cut; see :func:`longest_game`).
        opening_plies: each reset plays uniformly 0 to this many uniformly random legal plies, passing over those that
            would end the game.

    Raises:
        UnsupportedGameError: the game is unknown or of another kind.
        ConfigError: an option is out of range.
    """

    def __init__(
        self, game_string: str, num_games: int, *, max_plies: int | None = None, opening_plies: int = 0
    ) -> None:
        self._game = load(game_string)
        self._name = str(self._game).removesuffix("()")
        longest = longest_game(self._game)
        max_plies = longest if max_plies is None else max_plies
        check_options(
            self._name, {"num_games": (num_games, 1), "max_plies": (max_plies, 1), "opening_plies": (opening_plies, 0)}
        )
        self._view = seat_view(self._game)
        self._spec = GameSpec(
            name=self._name,
            num_actions=self._game.num_distinct_actions(),
            observation_shape=self._view.shape,
            max_plies=min(max_plies, longest),
            board_shape=(self._view.shape[-2], self._view.shape[-1]),
            symmetries=self._view.symmetries,
        )
        self._cuts_games = max_plies < longest
        self.opening_plies = min(opening_plies, self._spec.max_plies - 1)
        self._random = random.Random(0)
        self._thread = OwnThread(self._name)
        self._observer = make_observation(self._game)
        self._states: list[Any] = []
        self._outcome: list[str] = [""] * num_games
        self._result: list[int] = [0] * num_games  # to the first player
        # The last column is the seat to move, for games whose view needs it.
        self._tensor = np.zeros((num_games, self._observer.tensor.size + 1), dtype=np.float32)
        self._mover = np.zeros(num_games, dtype=np.int8)
        self._ended = np.zeros(num_games, dtype=np.bool_)
        self._legal = LegalMoves(num_games, self._spec.num_actions, highest=self._spec.num_actions)
        _check_values(self._game, self._name)

    @property
    def spec(self) -> GameSpec:
        """The game's constant shape."""
        return self._spec

    @property
    def num_games(self) -> int:
        """G, the number of boards."""
        return len(self._outcome)

    def seed(self, seed: int) -> None:
        """Seed the random openings."""
        self._random.seed(seed)

    def reset(self, indices: NDArray[np.int64] | None = None) -> None:
        """Put boards back to the start and play their random openings."""
        self._thread.check()
        named = as_indices(indices, self.num_games)
        if not self._states:
            self._states = [None] * self.num_games
            named = list(range(self.num_games))  # no board has a state yet
        for index in named:
            self._states[index] = self._opening(self._game.new_initial_state())
        self._refresh(named)

    def observe(self, observation: NDArray[np.uint8], legal: NDArray[np.uint8], mover: NDArray[np.int8]) -> None:
        """Write the state of every board into the caller's arrays."""
        self._ready()
        bytes_ = self._tensor.astype(np.uint8)
        if not np.array_equal(bytes_, self._tensor):
            raise UnsupportedGameError(f"{self._name}: its observation is not made of whole numbers from 0 to 255")
        observation[...] = self._view.turn(bytes_, self._mover)
        self._legal.pack(legal)
        mover[...] = self._mover

    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Play one action on every board."""
        self._ready()
        rows, labels = as_actions(actions, self.num_games)
        moves = self._legal.lookup(rows, labels)
        if not moves.all():
            self._refuse(int(rows[moves == 0][0]), int(labels[moves == 0][0]))
        movers = self._mover[rows].tolist()
        named = rows.tolist()
        for row, move in zip(named, moves.tolist(), strict=True):
            self._states[row].apply_action(move - 1)
        self._refresh(named)
        reward = np.zeros(self.num_games, dtype=np.float32)
        reward[rows] = [self._result[row] * (1 - 2 * mover) for row, mover in zip(named, movers, strict=True)]
        return StepResult(reward, self._ended.copy(), np.zeros(self.num_games, dtype=np.bool_))

    def position(self, index: int) -> str:
        """OpenSpiel's action numbers from the start, separated by blanks; ``-`` for the start itself."""
        return " ".join(map(str, self._state(index).history())) or _NO_MOVES_YET

    def set_position(self, index: int, position: str) -> None:
        """Play a board from the start by OpenSpiel's action numbers.

        Raises:
            GameError: an entry is no legal action of its position, or the game is over at the end.
        """
        self._state(index)
        state = self._game.new_initial_state()
        for entry in [] if position.strip() == _NO_MOVES_YET else position.split():
            if not entry.isdecimal() or state.is_terminal() or int(entry) not in state.legal_actions():
                raise GameError(f"{self._name}: the move list {position!r} has no legal move at {entry!r}")
            state.apply_action(int(entry))
        if state.is_terminal() or state.move_number() >= self._spec.max_plies:
            raise GameError(f"{self._name}: the position {position!r} is already over")
        self._states[index] = state
        self._refresh([index])

    def history(self, index: int) -> str:
        """The same as :meth:`position`, which has all moves."""
        return self.position(index)

    def set_history(self, index: int, history: str) -> None:
        """The same as :meth:`set_position`."""
        self.set_position(index, history)

    def copy_boards(self, indices: NDArray[np.int64]) -> list[Any]:
        """Some boards as they are, for :meth:`put_boards`: their states, and what was read of them."""
        return [
            (
                self._state(index).clone(),
                (self._outcome[index], self._result[index], bool(self._ended[index])),
                self._tensor[index].copy(),
                int(self._mover[index]),
                self._legal.row(index),
            )
            for index in as_indices(indices, self.num_games)
        ]

    def put_boards(self, indices: NDArray[np.int64], boards: Sequence[Any]) -> None:
        """Put some boards where others were when :meth:`copy_boards` copied them."""
        self._ready()
        for index, board in zip(as_indices(indices, self.num_games), boards, strict=True):
            state, result, self._tensor[index], self._mover[index], legal = board
            self._outcome[index], self._result[index], self._ended[index] = result
            self._states[index] = state.clone()
            self._legal.put_row(index, legal)

    def state(self, index: int) -> Any:
        """A copy of one board's ``pyspiel.State``, for a search: moves on the copy do not reach the board."""
        return self._state(index).clone()

    def label(self, index: int, move: int) -> int:
        """The action label, in the mover's view of one board, of one of OpenSpiel's actions (legal or not).

        Raises:
            GameError: OpenSpiel has no such action.
        """
        self._state(index)
        if not 0 <= move < self._spec.num_actions:
            raise GameError(
                f"{self._name}: OpenSpiel has no action {move}: they go from 0 to {self._spec.num_actions - 1}"
            )
        return int(self._view.to_label[self._mover[index], move])

    def action_name(self, index: int, action: int) -> str:
        """OpenSpiel's name of a legal action of one board's mover.

        Raises:
            IllegalActionError: the action is not legal on that board.
        """
        state = self._state(index)
        return str(state.action_to_string(state.current_player(), self._move(index, action)))

    def outcome(self, index: int) -> str:
        """``first player wins``, ``second player wins``, ``draw``, ``max plies``; empty while it is not over."""
        self._state(index)
        return self._outcome[index]

    def move_parts(self, index: int, action: int) -> tuple[str, ...]:
        """What a person clicks to play a legal action; nothing for a pass, and where the board is not drawn."""
        move = self._move(index, action)
        return () if self._drawing is None else self._drawing.move_parts(move)

    def render(self, index: int, format: RenderFormat = "text") -> str:
        """Draw one board; OpenSpiel's own text where it is unknown where the stones are."""
        state, drawing = self._state(index), self._drawing
        if drawing is None:
            return text_svg(str(state)) if format == "svg" else str(state)
        board = drawing.squares(self._raw(state, 0))
        played, over = state.history(), self._outcome[index]
        last = drawing.moved(board, played[-1]) if played else ()
        mover = None if over else int(state.current_player())
        status = over if mover is None else f"{('first', 'second')[mover]} to move"
        if format == "text":
            return f"{drawing.text(state, board, last)}\nply {len(played)}: {status}"
        line = drawing.winning(board, last[-1]) if over.endswith("wins") and last else ()
        title = f"{self._name}, ply {len(played)}: {status}"
        return drawing.svg(board, last=last, line=line, mover=mover, title=title)

    def record(self, index: int) -> str:
        """The moves of one board's game, numbered, with the result at the end."""
        replayed, words = self._game.new_initial_state(), []
        for number, action in enumerate(self._state(index).history(), start=1):
            words.append(f"{number}. {replayed.action_to_string(replayed.current_player(), action)}")
            replayed.apply_action(action)
        result = {0: "1/2-1/2", 1: "1-0", -1: "0-1"}[self._result[index]] if self._outcome[index] else "*"
        return " ".join([*words, result])

    @cached_property
    def _drawing(self) -> Drawing | None:
        return drawing_of(self._game, self._view.stones)

    def _ready(self) -> None:
        """Refuse another thread, and make the boards if there are none."""
        self._thread.check()
        if not self._states:
            self.reset()

    def _state(self, index: int) -> Any:
        self._ready()
        return self._states[as_indices(np.array([index]), self.num_games)[0]]

    def _move(self, index: int, action: int) -> int:
        """OpenSpiel's action of a legal action of one board's mover."""
        self._state(index)
        move = int(self._legal.lookup(np.array([index]), np.array([action]))[0])
        if move == 0:
            self._refuse(index, action)
        return move - 1

    def _refuse(self, index: int, action: int) -> None:
        state = self._states[index]
        raise IllegalActionError(
            game=self._name, ply=state.move_number(), position=self.position(index), move=str(action)
        )

    def _raw(self, state: Any, seat: int) -> NDArray[np.float32]:
        """The observation tensor of a state, flat; valid until the next call."""
        self._observer.set_from(state, seat)
        tensor: NDArray[np.float32] = self._observer.tensor
        return tensor

    def _refresh(self, indices: list[int]) -> None:
        """Read some boards into the arrays, and end those that are over."""
        moves: list[int] = []
        sizes: list[int] = []
        tensor, observer, max_plies = self._tensor, self._observer, self._spec.max_plies
        for index in indices:
            state = self._states[index]
            mover = state.current_player()
            if mover < 0 or state.move_number() >= max_plies:
                options: list[int] = []
                mover = self._end(index, state)
            else:
                self._outcome[index], self._result[index] = "", 0
                options = state.legal_actions()
            observer.set_from(state, mover)
            tensor[index, :-1] = observer.tensor
            self._mover[index] = mover
            moves += options
            sizes.append(len(options))
        rows = np.array(indices, dtype=np.int64)
        tensor[rows, -1] = self._mover[rows]
        self._ended[rows] = np.array(sizes) == 0
        numbers = np.array(moves, dtype=np.int64)
        labels = self._view.to_label[np.repeat(self._mover[rows], sizes), numbers]
        self._legal.write(rows, sizes, labels, numbers + 1)

    def _end(self, index: int, state: Any) -> int:
        """Note how a board's game ended; returns the seat whose turn it would be.

        Raises:
            GameError: it has not, though it is as long as OpenSpiel says that a game can be.
        """
        if state.is_terminal():
            result = int(np.sign(state.player_return(0)))
            outcome = {0: "draw", 1: "first player wins", -1: "second player wins"}[result]
        elif self._cuts_games:
            result, outcome = 0, "max plies"
        else:
            raise GameError(
                f"{self._name}: OpenSpiel says that no game is longer than {self._spec.max_plies} plies, and one goes "
                f"on in position {' '.join(map(str, state.history()))}; give it a smaller max_plies"
            )
        self._outcome[index], self._result[index] = outcome, result
        last = state.full_history()[-1].player
        return 1 - int(last)

    def _opening(self, state: Any) -> Any:
        """Play a random opening on a fresh state."""
        for _ in range(self._random.randint(0, self.opening_plies)):
            options = state.legal_actions()
            first = self._random.randrange(len(options))
            after = (state.child(action) for action in options[first:] + options[:first])
            going_on = next((child for child in after if not child.is_terminal()), None)
            if going_on is None:  # every move would end the game: the opening is a little shorter
                break
            state = going_on
        return state


def _check_values(game: Any, name: str) -> None:
    """Refuse a game whose tensor holds anything but bytes, as one game shows that plays the middle legal move."""
    state = game.new_initial_state()
    for _ in range(64):
        values = np.array(state.observation_tensor(0))
        if (values != values.astype(np.uint8)).any():
            raise UnsupportedGameError(f"{name}: its observation is not made of whole numbers from 0 to 255")
        if state.is_terminal():
            return
        options = state.legal_actions()
        state.apply_action(options[len(options) // 2])


def make(game_string: str, num_games: int, *, max_plies: int | None = None, opening_plies: int = 0) -> OpenSpielGame:
    """Make an OpenSpiel game by its string; see :class:`OpenSpielGame`."""
    return OpenSpielGame(game_string, num_games, max_plies=max_plies, opening_plies=opening_plies)
