"""Matches between two players: every opening from both seats, all games at once, counted with an interval.

Strength claims go wrong in three ways that this module closes: one seat may be worth more (each opening is played
twice, with the seats swapped), deterministic players repeat one game (openings are random), and a score from few games
is read as if it were exact (the result carries its 95 % interval).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation.players import Player, RandomPlayer
from keisei_lightning.games.protocol import NO_MOVE, Game, GameFactory

__all__ = ["MatchResult", "Tally", "play_match", "wilson_interval"]

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson_interval(score: float, num_games: int, *, z: float = Z_95) -> tuple[float, float]:
    r"""Wilson's score interval for a proportion.

    .. math::
        \frac{p + \frac{z^2}{2n} \pm z \sqrt{\frac{p (1 - p)}{n} + \frac{z^2}{4 n^2}}}{1 + \frac{z^2}{n}}

    A draw counts as half a win here. The variance of such a score is at most that of a proportion with the same mean,
    so with draws the interval is wider than it needs to be, never narrower.

    Args:
        score: p, points per game in [0, 1].
        num_games: n, at least 1.
        z: quantile of the standard normal distribution; the default gives 95 %.

    Returns:
        Lower and upper end, within [0, 1].

    References:
        E. B. Wilson (1927), "Probable inference, the law of succession, and statistical inference", Journal of the
        American Statistical Association 22.
    """
    centre = score + z * z / (2 * num_games)
    spread = z * math.sqrt(max(0.0, score * (1.0 - score)) / num_games + z * z / (4 * num_games * num_games))
    scale = 1.0 + z * z / num_games
    # At scores of 0 and 1 an end is the score itself; rounding must not put it on the wrong side.
    return max(0.0, min(score, (centre - spread) / scale)), min(1.0, max(score, (centre + spread) / scale))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Wins, draws and losses of one player.

    Attributes:
        wins: games won.
        draws: games drawn, with those that were cut short without a result.
        losses: games lost.
    """

    wins: int = 0
    draws: int = 0
    losses: int = 0

    @property
    def games(self) -> int:
        """Number of games counted."""
        return self.wins + self.draws + self.losses

    @property
    def score(self) -> float:
        """Points per game: (wins + draws / 2) / games."""
        return (self.wins + 0.5 * self.draws) / self.games if self.games else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The score's 95 % interval; see :func:`wilson_interval`."""
        return wilson_interval(self.score, self.games) if self.games else (0.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchResult:
    """What a match came to, as the first-named player sees it.

    Attributes:
        game: the game's name.
        player: name of the player whose wins are counted.
        opponent: name of the other one.
        as_first: its games in seat 0.
        as_second: its games in seat 1.
        outcomes: how many games ended in which way ("checkmate", "max plies", ...).
        mean_length: plies of a game on average, without its opening.
        last_record: one game as a record that other programs read (KIF for shogi): the last to be won or lost, or the
            last to end where all were drawn.
        last_svg: the final position of that game as a drawing.
        last_title: one line that names that game's players, seats and end.
    """

    game: str
    player: str
    opponent: str
    as_first: Tally
    as_second: Tally
    outcomes: Mapping[str, int] = field(default_factory=dict)
    mean_length: float = 0.0
    last_record: str = ""
    last_svg: str = ""
    last_title: str = ""

    @property
    def total(self) -> Tally:
        """Both seats together."""
        first, second = self.as_first, self.as_second
        return Tally(
            wins=first.wins + second.wins, draws=first.draws + second.draws, losses=first.losses + second.losses
        )

    @property
    def wins(self) -> int:
        """Games won."""
        return self.total.wins

    @property
    def draws(self) -> int:
        """Games drawn."""
        return self.total.draws

    @property
    def losses(self) -> int:
        """Games lost."""
        return self.total.losses

    @property
    def num_games(self) -> int:
        """Games played."""
        return self.total.games

    @property
    def score(self) -> float:
        """Points per game: (wins + draws / 2) / games."""
        return self.total.score

    @property
    def interval(self) -> tuple[float, float]:
        """The score's 95 % interval; see :func:`wilson_interval`."""
        return self.total.interval

    def __str__(self) -> str:
        """One line for a person."""
        low, high = self.interval
        return (
            f"{self.player} scores {self.score:.1%} against {self.opponent} "
            f"(95 % interval {low:.1%} to {high:.1%}; {self.wins} wins, {self.draws} draws, {self.losses} losses)"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Played:
    """Raw outcome of every board: points of the player (+1, 0, -1), and plies played."""

    points: NDArray[np.int8]
    plies: NDArray[np.int64]


class _View:
    """The arrays that a game writes its state into, allocated once for a match."""

    def __init__(self, board: Game) -> None:
        spec = board.spec
        self.observation = np.zeros((board.num_games, *spec.observation_shape), dtype=np.uint8)
        self.legal = np.zeros((board.num_games, spec.mask_bytes), dtype=np.uint8)
        self.mover = np.zeros(board.num_games, dtype=np.int8)

    def look(self, board: Game) -> None:
        board.observe(self.observation, self.legal, self.mover)


def play_match(
    game: GameFactory,
    player: Player,
    opponent: Player,
    *,
    num_games: int,
    opening_plies: int | None = None,
    seed: int = 0,
) -> MatchResult:
    """Play every opening twice, with the seats swapped, and count.

    All games advance together: one forward pass per player and ply. The same arguments give the same match, as far as
    the players are deterministic or seeded.

    Args:
        game: makes the boards.
        player: the player whose score is asked for.
        opponent: the other one.
        num_games: games in all, an even number: boards 2k and 2k + 1 share an opening.
        opening_plies: each opening is 0 to this many random legal plies, uniformly, and never ends the game. None
            leaves the openings to the game's own ``opening_plies`` option.
        seed: of the openings.

    Returns:
        The counts, from the player's side.

    Raises:
        ConfigError: a number that cannot work.
        GameError: a game that goes on beyond its ``max_plies``.
    """
    _check_numbers(num_games, opening_plies)
    board = game(num_games)
    view = _View(board)
    _deal_openings(board, view, opening_plies or 0, seed)
    seat = (np.arange(num_games) % 2).astype(np.int8)
    played = _play_out(board, view, (player, opponent), seat)
    last = _last_game(played)
    seats = (player.name, opponent.name) if seat[last] == 0 else (opponent.name, player.name)
    return MatchResult(
        game=board.spec.name,
        player=player.name,
        opponent=opponent.name,
        as_first=_count(played.points[seat == 0]),
        as_second=_count(played.points[seat == 1]),
        outcomes=dict(Counter(board.outcome(i) for i in range(num_games)).most_common()),
        mean_length=float(played.plies.mean()),
        last_record=board.record(last),
        last_svg=board.render(last, "svg"),
        last_title=f"{seats[0]} (first) against {seats[1]} (second): {board.outcome(last)}",
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


def _deal_openings(board: Game, view: _View, opening_plies: int, seed: int) -> None:
    """Give boards 2k a random opening each, and boards 2k + 1 the same one."""
    rng = np.random.default_rng(seed)
    chance = RandomPlayer(board.spec.num_actions, seed=int(rng.integers(2**63)))
    board.seed(int(rng.integers(2**31)))
    board.reset()
    plies_left = np.zeros(board.num_games, dtype=np.int64)
    plies_left[::2] = rng.integers(0, opening_plies + 1, size=board.num_games // 2)
    while (plies_left > 0).any():
        indices = np.flatnonzero(plies_left > 0)
        before = {int(i): board.position(int(i)) for i in indices}
        view.look(board)
        actions = np.full(board.num_games, NO_MOVE, dtype=np.int64)
        actions[indices] = chance.choose(view.observation[indices], view.legal[indices])
        result = board.step(actions)
        plies_left[indices] -= 1
        for index, position in before.items():
            if result.terminated[index] or result.truncated[index]:
                board.set_position(index, position)
                plies_left[index] = 0
    for first in range(0, board.num_games, 2):
        position = board.position(first)
        # Both get it by set_position: a board that kept its history could repeat a position that its twin cannot.
        board.set_position(first, position)
        board.set_position(first + 1, position)


def _play_out(board: Game, view: _View, players: tuple[Player, Player], seat: NDArray[np.int8]) -> _Played:
    """Play all boards to their ends; ``players[0]`` sits in ``seat`` of each board."""
    points = np.zeros(board.num_games, dtype=np.int8)
    plies = np.zeros(board.num_games, dtype=np.int64)
    going = np.ones(board.num_games, dtype=np.bool_)
    for _ in range(board.spec.max_plies + 1):
        view.look(board)
        actions = np.full(board.num_games, NO_MOVE, dtype=np.int64)
        for player, to_move in zip(players, (view.mover == seat, view.mover != seat), strict=True):
            indices = np.flatnonzero(going & to_move)
            if len(indices):
                actions[indices] = player.choose(view.observation[indices], view.legal[indices])
        result = board.step(actions)
        plies += going
        ended = going & (result.terminated | result.truncated)
        reward = np.sign(result.reward).astype(np.int8)
        points[ended] = np.where(view.mover == seat, reward, -reward)[ended]
        going &= ~ended
        if not going.any():
            return _Played(points=points, plies=plies)
    raise GameError(f"{board.spec.name}: a game went on beyond max_plies={board.spec.max_plies}")


def _last_game(played: _Played) -> int:
    """The board to show: of those that were won or lost (of all, where none was), the one that ended last."""
    decided = played.points != 0
    shown = decided if decided.any() else np.ones_like(decided)
    return int(np.flatnonzero(shown)[np.argmax(played.plies[shown])])


def _count(points: NDArray[np.int8]) -> Tally:
    return Tally(wins=int((points > 0).sum()), draws=int((points == 0).sum()), losses=int((points < 0).sum()))
