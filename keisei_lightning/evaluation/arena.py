"""Matches between two players: every opening from both seats, all games at once, counted with an interval.

Strength claims go wrong in three ways that this module closes: one seat may be worth more (each opening is played
twice, with the seats swapped), deterministic players repeat one game (openings are random, and no two pairs of games
begin alike as long as there are enough of them), and a score from few games is read as if it were exact (the result
carries its 95 % interval).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation.players import RESIGN, Player, RandomPlayer, Turn, ask_player
from keisei_lightning.evaluation.results import GameRecord, MatchResult, Tally
from keisei_lightning.games.protocol import NO_MOVE, Game, GameFactory, OpeningGame

__all__ = ["play_match"]

_OPENING_DRAWS = 20
"""How often an opening that another pair of games has already is drawn anew."""

_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, with its bits well spread


@dataclass(kw_only=True, slots=True)
class _Played:
    """Raw outcome of every board.

    Attributes:
        points: of the player: +1, 0, -1.
        plies: played after the opening.
        outcomes: how each game ended.
        void: games that ended because somebody had no answer.
        moves: uint64, a hash of each game's moves.
    """

    points: NDArray[np.int8]
    plies: NDArray[np.int64]
    outcomes: list[str]
    void: NDArray[np.bool_]
    moves: NDArray[np.uint64]


class _View:
    """The arrays that a game writes its state into, allocated once for a match."""

    def __init__(self, board: Game) -> None:
        spec = board.spec
        self._board = board
        self.observation = np.zeros((board.num_games, *spec.observation_shape), dtype=np.uint8)
        self.legal = np.zeros((board.num_games, spec.mask_bytes), dtype=np.uint8)
        self.mover = np.zeros(board.num_games, dtype=np.int8)

    def look(self) -> None:
        self._board.observe(self.observation, self.legal, self.mover)

    def turn(self, indices: NDArray[np.int64]) -> Turn:
        return Turn(game=self._board, indices=indices, observation=self.observation[indices], legal=self.legal[indices])

    def key(self, index: int) -> bytes:
        """What tells one position from another."""
        return bytes(self.observation[index].tobytes() + self.mover[index].tobytes())


def play_match(
    game: GameFactory,
    player: Player,
    opponent: Player,
    *,
    num_games: int,
    opening_plies: int | None = None,
    seed: int = 0,
    keep_records: bool = False,
    progress: Callable[[int], None] = lambda finished: None,
) -> MatchResult:
    """Play every opening twice, with the seats swapped, and count.

    All games advance together: one call of each player per ply. The same arguments give the same match, as far as the
    players are deterministic or seeded.

    Args:
        game: makes the boards.
        player: the player whose score is asked for.
        opponent: the other one.
        num_games: games in all, an even number: boards 2k and 2k + 1 share an opening.
        opening_plies: each opening is 0 to this many random legal plies, uniformly, never ends the game, and replaces
            that of an :class:`~keisei_lightning.games.OpeningGame`; None leaves it its own. Another pair's opening is
            drawn anew; where there are too few of them, games may repeat, which the result counts.
        seed: of the openings.
        keep_records: keep a record of every game, not only of the last.
        progress: is told after each ply how many games have ended.

    Returns:
        The counts, from the player's side.

    Raises:
        ConfigError: a number that cannot work.
        GameError: a game that goes on beyond its ``max_plies``, or what a player gives is no legal action.
    """
    _check_numbers(num_games, opening_plies)
    board = game(num_games)
    view = _View(board)
    openings = _deal_openings(board, view, game(num_games // 2), opening_plies, seed)
    seat = (np.arange(num_games) % 2).astype(np.int8)
    played = _play_out(board, view, (player, opponent), seat, progress)
    counted = ~played.void
    kept = range(num_games if keep_records else 0)
    last = _last_game(played)
    first, second = _names((player, opponent), seat[last])
    return MatchResult(
        game=board.spec.name,
        player=player.name,
        opponent=opponent.name,
        as_first=_count(played.points[counted & (seat == 0)]),
        as_second=_count(played.points[counted & (seat == 1)]),
        void=int(played.void.sum()),
        repeated=_count_repeated(openings, seat, played),
        outcomes=dict(Counter(played.outcomes).most_common()),
        mean_length=float(played.plies.mean()),
        records=tuple(_record(board, played, index, (player, opponent), seat) for index in kept),
        last_record=board.record(last),
        last_svg=board.render(last, "svg"),
        last_title=f"{first} (first) against {second} (second): {played.outcomes[last]}",
    )


def _check_numbers(num_games: int, opening_plies: int | None) -> None:
    faults = []
    if num_games < 2 or num_games % 2:
        faults.append(
            f"num_games={num_games}: must be an even number from 2 on (each opening is played from both seats)"
        )
    if opening_plies is not None and opening_plies < 0:
        faults.append(f"opening_plies={opening_plies}: must be 0 or more")
    if faults:
        raise ConfigError(faults)


def _deal_openings(board: Game, view: _View, dealer: Game, opening_plies: int | None, seed: int) -> list[bytes]:
    """Give boards 2k and 2k + 1 a random opening, no two pairs the same where that is possible.

    Args:
        board: the boards of the match.
        view: of them.
        dealer: half as many boards, on which the openings are played.
        opening_plies: see :func:`play_match`.
        seed: likewise.

    Returns:
        What tells each board's opening from the others.
    """
    rng = np.random.default_rng(seed)
    chance = RandomPlayer(board.spec.num_actions, seed=int(rng.integers(2**63)))
    dealer.seed(int(rng.integers(2**31)))
    if opening_plies is not None and isinstance(dealer, OpeningGame):
        dealer.opening_plies = 0
    dealt = _View(dealer)
    known: set[bytes] = set()
    pending = np.arange(dealer.num_games)
    for _ in range(_OPENING_DRAWS):
        dealer.reset(pending)
        _play_randomly(dealer, dealt, chance, rng, pending, opening_plies or 0)
        dealt.look()
        repeated = []
        for index in pending.tolist():
            key = dealt.key(index)
            if key in known:
                repeated.append(index)
            known.add(key)
        pending = np.array(repeated, dtype=np.int64)
        if not len(pending):
            break
    for pair in range(dealer.num_games):
        # Both get it by set_position: a board that kept its history could repeat a position that its twin cannot.
        position = dealer.position(pair)
        board.set_position(2 * pair, position)
        board.set_position(2 * pair + 1, position)
    view.look()
    return [view.key(index) for index in range(board.num_games)]


def _play_randomly(
    board: Game,
    view: _View,
    chance: RandomPlayer,
    rng: np.random.Generator,
    indices: NDArray[np.int64],
    most_plies: int,
) -> None:
    """Play 0 to ``most_plies`` random plies on some boards, never to the end of a game."""
    plies_left = np.zeros(board.num_games, dtype=np.int64)
    plies_left[indices] = rng.integers(0, most_plies + 1, size=len(indices))
    while (plies_left > 0).any():
        playing = np.flatnonzero(plies_left > 0)
        before = {int(i): board.position(int(i)) for i in playing}
        view.look()
        actions = np.full(board.num_games, NO_MOVE, dtype=np.int64)
        actions[playing] = chance.draw(view.legal[playing])
        result = board.step(actions)
        plies_left[playing] -= 1
        for index, position in before.items():
            if result.terminated[index] or result.truncated[index]:
                board.set_position(index, position)
                plies_left[index] = 0


def _play_out(
    board: Game,
    view: _View,
    players: tuple[Player, Player],
    seat: NDArray[np.int8],
    progress: Callable[[int], None],
) -> _Played:
    """Play all boards to their ends; ``players[0]`` sits in ``seat`` of each board."""
    num_games = board.num_games
    played = _Played(
        points=np.zeros(num_games, dtype=np.int8),
        plies=np.zeros(num_games, dtype=np.int64),
        outcomes=[""] * num_games,
        void=np.zeros(num_games, dtype=np.bool_),
        moves=np.zeros(num_games, dtype=np.uint64),
    )
    going = np.ones(num_games, dtype=np.bool_)
    for _ in range(board.spec.max_plies + 1):
        view.look()
        actions = np.full(num_games, NO_MOVE, dtype=np.int64)
        asked = going.copy()
        for player, to_move in zip(players, (view.mover == seat, view.mover != seat), strict=True):
            indices = np.flatnonzero(asked & to_move)
            if len(indices):
                actions[indices] = ask_player(player, view.turn(indices))
        for index in np.flatnonzero(asked & (actions == NO_MOVE)):
            played.void[index], played.outcomes[index] = True, "void"
        for index in np.flatnonzero(actions == RESIGN):
            played.points[index] = -1 if view.mover[index] == seat[index] else 1
            played.outcomes[index] = "resignation"
        going &= actions >= 0
        actions[~going] = NO_MOVE
        result = board.step(actions)
        played.plies += going
        played.moves = np.where(going, (played.moves + (actions + 1).astype(np.uint64)) * _HASH_FACTOR, played.moves)
        ended = going & (result.terminated | result.truncated)
        reward = np.sign(result.reward).astype(np.int8)
        played.points[ended] = np.where(view.mover == seat, reward, -reward)[ended]
        for index in np.flatnonzero(ended):
            played.outcomes[index] = board.outcome(int(index))
        going &= ~ended
        progress(num_games - int(going.sum()))
        if not going.any():
            return played
    raise GameError(f"{board.spec.name}: a game went on beyond max_plies={board.spec.max_plies}")


def _count_repeated(openings: list[bytes], seat: NDArray[np.int8], played: _Played) -> int:
    """Games that went move by move as another one of the match, with the players in the same seats."""
    games = zip(openings, seat.tolist(), played.moves.tolist(), strict=True)
    return len(openings) - len(set(games))


def _last_game(played: _Played) -> int:
    """The board to show: of those that were won or lost (of all, where none was), the one that ended last."""
    decided = played.points != 0
    shown = decided if decided.any() else np.ones_like(decided)
    return int(np.flatnonzero(shown)[np.argmax(played.plies[shown])])


def _names(players: tuple[Player, Player], seat: int) -> tuple[str, str]:
    """Who sat first and who second, where ``players[0]`` sat in ``seat``."""
    one, other = players[0].name, players[1].name
    return (one, other) if seat == 0 else (other, one)


def _record(
    board: Game, played: _Played, index: int, players: tuple[Player, Player], seat: NDArray[np.int8]
) -> GameRecord:
    first, second = _names(players, int(seat[index]))
    return GameRecord(
        first=first,
        second=second,
        outcome=played.outcomes[index],
        points=int(played.points[index]),
        plies=int(played.plies[index]),
        record=board.record(index),
    )


def _count(points: NDArray[np.int8]) -> Tally:
    return Tally(wins=int((points > 0).sum()), draws=int((points == 0).sum()), losses=int((points < 0).sum()))
