"""Matches between two players: every opening from both seats, all games at once, counted with an interval.

A match estimates the points per game that a player can expect from a random opening. It avoids four errors:

* One seat may be worth more: each opening is played twice, with the seats exchanged.
* Deterministic players would repeat one game: openings are random.
* The score would depend on the number of games if repeated openings were left out: all openings are drawn independently
  from one distribution, and a repeated one counts again.
* A score from few games looks exact: the result has its 95 % interval, which is based on the pairs of games. These are
  independent; the two games of a pair are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation.partners import Partners
from keisei_lightning.evaluation.players import RESIGN, Player, RandomPlayer, Turn, ask_player
from keisei_lightning.evaluation.results import GameRecord, MatchResult, Tally
from keisei_lightning.games.protocol import NO_MOVE, Game, GameFactory, OpeningGame, RecordedGame

__all__ = ["play_match"]

_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, with its bits well spread


@dataclass(kw_only=True, slots=True)
class _Played:
    """Raw outcome of every board.

    Attributes:
        points: the player's result: +1, 0, -1.
        plies: plies after the opening.
        outcomes: how each game ended.
        void: whether a game ended because a player had no move.
        moves: uint64, a hash of each game's moves.
        seat: int8, the player's seat.
        times: int64, how often each game counts.
    """

    points: NDArray[np.int8]
    plies: NDArray[np.int64]
    outcomes: list[str]
    void: NDArray[np.bool_]
    moves: NDArray[np.uint64]
    seat: NDArray[np.int8]
    times: NDArray[np.int64]

    @classmethod
    def before(cls, times: NDArray[np.int64]) -> _Played:
        """Boards on which nothing has been played; the player has seat 0 on even boards and seat 1 on odd ones."""
        num_games = len(times)
        return cls(
            points=np.zeros(num_games, dtype=np.int8),
            plies=np.zeros(num_games, dtype=np.int64),
            outcomes=[""] * num_games,
            void=np.zeros(num_games, dtype=np.bool_),
            moves=np.zeros(num_games, dtype=np.uint64),
            seat=(np.arange(num_games) % 2).astype(np.int8),
            times=times,
        )

    @classmethod
    def joined(cls, parts: Sequence[_Played]) -> _Played:
        """All boards, one part's after the other's."""
        return cls(
            points=np.concatenate([part.points for part in parts]),
            plies=np.concatenate([part.plies for part in parts]),
            outcomes=[outcome for part in parts for outcome in part.outcomes],
            void=np.concatenate([part.void for part in parts]),
            moves=np.concatenate([part.moves for part in parts]),
            seat=np.concatenate([part.seat for part in parts]),
            times=np.concatenate([part.times for part in parts]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """What one of several partners played: each board's outcome, records if they are kept, and the game to show."""

    played: _Played
    records: tuple[GameRecord, ...] = ()
    last: Mapping[str, Any] = field(default_factory=dict)


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
    partners: Partners | None = None,
) -> MatchResult:
    """Play every opening twice, with the seats swapped, and count the results.

    All games advance together: each player is called once per ply. The same arguments give the same match if the
    players are deterministic or seeded. Openings are drawn independently, so that one may be drawn again (with
    ``opening_plies=4`` every fifth opening is the start of the game). Its games are played again, unless both players
    are ``deterministic``: then they are played once, and count as often as the opening was drawn.

    Args:
        game: makes the boards.
        player: the player whose score is counted.
        opponent: the other player.
        num_games: number of games, even: boards 2k and 2k + 1 share an opening.
        opening_plies: each opening is 0 to this many random legal plies, uniformly, and replaces that of an
            :class:`~keisei_lightning.games.OpeningGame`; None leaves it its own. It is cut short before a ply that
            would end the game.
        seed: seed of the openings.
        keep_records: keep a record of every game that is played, not only of one.
        progress: called after each ply with the number of games that have ended.
        partners: play a part of the openings each, with players of their own; the result is that of all games, and the
            same for each of them. Games of deterministic players are those that one alone would play.

    Returns:
        The result, as the player sees it.

    Raises:
        ConfigError: ``num_games`` or ``opening_plies`` is illegal.
        GameError: a game continues beyond its ``max_plies``, or a player returns no legal action.
    """
    _check_numbers(num_games, opening_plies)
    dealer = game(num_games // 2)
    openings = _draw_openings(dealer, opening_plies, seed)
    times = np.ones(len(openings), dtype=np.int64)
    if _is_deterministic(player) and _is_deterministic(opponent):
        counts = Counter(openings)
        openings, times = list(counts), np.array(list(counts.values()), dtype=np.int64)
    players = (player, opponent)

    def play(share: slice) -> _Part:
        return _play_part(game, players, openings[share], times[share], keep_records=keep_records, progress=progress)

    if partners is None:
        parts = [play(slice(None))]
    else:
        ends = [len(openings) * end // partners.size for end in range(partners.size + 1)]
        share = slice(ends[partners.rank], ends[partners.rank + 1])
        parts = partners.collect(f"the match against {opponent.name}", lambda: play(share))
    return _summarise(dealer.spec.name, parts, players, openings)


def _play_part(
    game: GameFactory,
    players: tuple[Player, Player],
    openings: list[str],
    times: NDArray[np.int64],
    *,
    keep_records: bool,
    progress: Callable[[int], None],
) -> _Part:
    """Play both games of each opening."""
    if not openings:
        return _Part(played=_Played.before(times))
    board = game(2 * len(openings))
    for pair, opening in enumerate(openings):
        # Both boards are set up: one that kept its history could repeat a position that its twin cannot.
        board.set_position(2 * pair, opening)
        board.set_position(2 * pair + 1, opening)
    log: list[NDArray[np.int64]] = []
    played = _play_out(board, players, np.repeat(times, 2), progress, log.append if keep_records else lambda _: None)
    last = _last_game(played)
    first, second = _names(players, int(played.seat[last]))
    return _Part(
        played=played,
        records=tuple(
            _record(board, played, index, players, start=openings[index // 2], actions=[each[index] for each in log])
            for index in range(board.num_games if keep_records else 0)
        ),
        last={
            "last_record": board.record(last),
            "last_files": _files(board, played, last, (first, second)),
            "last_svg": board.render(last, "svg"),
            "last_title": f"{first} (first) against {second} (second): {played.outcomes[last]}",
        },
    )


def _is_deterministic(player: Player) -> bool:
    return getattr(player, "deterministic", False) is True


def _check_numbers(num_games: int, opening_plies: int | None) -> None:
    errors = []
    if num_games < 2 or num_games % 2:
        errors.append(f"num_games={num_games}: must be even, at least 2 (each opening is played from both seats)")
    if opening_plies is not None and opening_plies < 0:
        errors.append(f"opening_plies={opening_plies}: must be 0 or more")
    if errors:
        raise ConfigError(errors)


def _draw_openings(dealer: Game, opening_plies: int | None, seed: int) -> list[str]:
    """Draw the openings of a match, independently of one another and of their number.

    Args:
        dealer: a board for each opening.
        opening_plies: see :func:`play_match`.
        seed: see :func:`play_match`.

    Returns:
        Positions in the game's own notation.
    """
    rng = np.random.default_rng(seed)
    random_player = RandomPlayer(dealer.spec.num_actions, seed=int(rng.integers(2**63)))
    dealer.seed(int(rng.integers(2**31)))
    if opening_plies is not None and isinstance(dealer, OpeningGame):
        dealer.opening_plies = 0
    dealer.reset()
    _play_randomly(dealer, random_player, rng.integers(0, (opening_plies or 0) + 1, size=dealer.num_games))
    return [dealer.position(index) for index in range(dealer.num_games)]


def _play_randomly(board: Game, random_player: RandomPlayer, plies_left: NDArray[np.int64]) -> None:
    """Play a number of random plies on each board, never to the end of a game."""
    view = _View(board)
    while (plies_left > 0).any():
        playing = np.flatnonzero(plies_left > 0)
        before = {int(i): board.position(int(i)) for i in playing}
        view.look()
        actions = np.full(board.num_games, NO_MOVE, dtype=np.int64)
        actions[playing] = random_player.draw(view.legal[playing])
        result = board.step(actions)
        plies_left[playing] -= 1
        for index, position in before.items():
            if result.terminated[index] or result.truncated[index]:
                board.set_position(index, position)
                plies_left[index] = 0


def _play_out(
    board: Game,
    players: tuple[Player, Player],
    times: NDArray[np.int64],
    progress: Callable[[int], None],
    log: Callable[[NDArray[np.int64]], object],
) -> _Played:
    """Play all games to their ends. ``players[0]`` has seat 0 on even boards and seat 1 on odd ones.

    Every ply's actions, with ``NO_MOVE`` on boards that are over, go to ``log``.
    """
    num_games = board.num_games
    view, played = _View(board), _Played.before(times)
    seat = played.seat
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
        log(actions)
        played.plies += going
        played.moves = np.where(going, (played.moves + (actions + 1).astype(np.uint64)) * _HASH_FACTOR, played.moves)
        ended = going & (result.terminated | result.truncated)
        reward = np.sign(result.reward).astype(np.int8)
        played.points[ended] = np.where(view.mover == seat, reward, -reward)[ended]
        for index in np.flatnonzero(ended):
            played.outcomes[index] = board.outcome(int(index))
        going &= ~ended
        progress(int(times[~going].sum()))
        if not going.any():
            return played
    raise GameError(f"{board.spec.name}: a game went on beyond max_plies={board.spec.max_plies}")


def _summarise(game: str, parts: Sequence[_Part], players: tuple[Player, Player], openings: list[str]) -> MatchResult:
    played = _Played.joined([part.played for part in parts])
    counted = np.where(played.void, 0, played.times)
    ends = np.cumsum([len(part.played.times) for part in parts])
    shown = parts[
        int(np.searchsorted(ends, _last_game(played), side="right"))
    ]  # the best of all is the best of its part
    return MatchResult(
        game=game,
        player=players[0].name,
        opponent=players[1].name,
        as_first=_count(played.points, np.where(played.seat == 0, counted, 0)),
        as_second=_count(played.points, np.where(played.seat == 1, counted, 0)),
        pairs=_count_pairs(played),
        void=int(played.times[played.void].sum()),
        played=len(played.times),
        repeated=int(played.times.sum()) - _count_different(openings, played),
        outcomes=_count_outcomes(played),
        mean_length=float(np.average(played.plies, weights=played.times)),
        records=tuple(record for part in parts for record in part.records),
        **shown.last,
    )


def _count_different(openings: list[str], played: _Played) -> int:
    """Games that differ in their opening, the players' seats, or a move."""
    games = zip(np.repeat(openings, 2).tolist(), played.seat.tolist(), played.moves.tolist(), strict=True)
    return len(set(games))


def _count_pairs(played: _Played) -> tuple[int, ...]:
    """Pairs with two games that count, by the player's points in them."""
    whole = ~played.void.reshape(-1, 2).any(axis=1)
    half_points = (played.points + 1).reshape(-1, 2).sum(axis=1)[whole]
    return tuple(np.bincount(half_points, played.times[::2][whole], minlength=5).astype(np.int64).tolist())


def _count_outcomes(played: _Played) -> dict[str, int]:
    """Games by how they ended, the most frequent way first."""
    outcomes: Counter[str] = Counter()
    for outcome, times in zip(played.outcomes, played.times.tolist(), strict=True):
        outcomes[outcome] += times
    return dict(outcomes.most_common())


def _last_game(played: _Played) -> int:
    """The board to show: the decided game that ended last, or the game that ended last where none was decided."""
    decided = played.points != 0
    shown = decided if decided.any() else np.ones_like(decided)
    return int(np.flatnonzero(shown)[np.argmax(played.plies[shown])])


def _names(players: tuple[Player, Player], seat: int) -> tuple[str, str]:
    """Who sat first and who second, where ``players[0]`` sat in ``seat``."""
    one, other = players[0].name, players[1].name
    return (one, other) if seat == 0 else (other, one)


def _record(
    board: Game,
    played: _Played,
    index: int,
    players: tuple[Player, Player],
    *,
    start: str,
    actions: Sequence[np.int64],
) -> GameRecord:
    first, second = _names(players, int(played.seat[index]))
    return GameRecord(
        first=first,
        second=second,
        outcome=played.outcomes[index],
        points=int(played.points[index]),
        plies=int(played.plies[index]),
        record=board.record(index),
        files=_files(board, played, index, (first, second)),
        times=int(played.times[index]),
        start=start,
        actions=tuple(int(action) for action in actions if action != NO_MOVE),
    )


def _files(board: Game, played: _Played, index: int, players: tuple[str, str]) -> Mapping[str, str]:
    """One game as files, if the game writes any."""
    if not isinstance(board, RecordedGame):
        return {}
    return board.record_files(index, players=players, outcome=played.outcomes[index])


def _count(points: NDArray[np.int8], times: NDArray[np.int64]) -> Tally:
    """Wins, draws and losses, each game as often as it counts."""
    wins, draws, losses = (int(times[result].sum()) for result in (points > 0, points == 0, points < 0))
    return Tally(wins=wins, draws=draws, losses=losses)
