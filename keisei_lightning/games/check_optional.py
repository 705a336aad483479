"""Checks of the optional protocols that a game follows: openings, histories, records and descriptions."""

from __future__ import annotations

import numpy as np

from keisei_lightning.errors import GameError
from keisei_lightning.games.checking import choose, demand, make, observe, same
from keisei_lightning.games.protocol import (
    DescribedGame,
    Game,
    GameFactory,
    OpeningGame,
    RecordedGame,
    ResumableGame,
    StepResult,
)

__all__ = ["check_optional"]

_PLAYERS = ("alice", "bob")


def check_optional(factory: GameFactory, num_games: int, num_plies: int, seed: int) -> None:
    """Check whichever of the optional protocols a game follows.

    Args:
        factory: makes the game.
        num_games: boards that play at once.
        num_plies: plies to play.
        seed: for the moves and for the game's own openings.

    Raises:
        GameError: the game broke a promise.
    """
    game = make(factory, num_games)
    game.seed(seed)
    if isinstance(game, DescribedGame):
        demand(isinstance(game.implementation, str) and game.implementation, "implementation gives no text")
    if isinstance(game, OpeningGame):
        _check_openings(game)
    if isinstance(game, ResumableGame):
        _check_histories(game, make(factory, num_games), num_plies, seed)
    if isinstance(game, RecordedGame):
        _check_record_files(game, num_plies, seed)


def _check_openings(game: OpeningGame) -> None:
    """``opening_plies`` can be set: without any, boards start alike; with some, no game ends in its opening."""
    given = game.opening_plies
    game.opening_plies = 0
    game.reset()
    starts = {game.position(index) for index in range(game.num_games)}
    demand(len(starts) == 1, f"with opening_plies=0 boards start in different positions: {sorted(starts)}")
    game.opening_plies = max(1, game.spec.max_plies - 1)
    game.reset()
    outcomes = {game.outcome(index) for index in range(game.num_games)}
    demand(outcomes == {""}, f"a random opening ends a game: {sorted(outcomes)}")
    game.opening_plies = given


def _check_histories(game: ResumableGame, copy: Game, num_plies: int, seed: int) -> None:
    """A board that was put where another one's history left it looks alike, and plays alike from there on."""
    assert isinstance(copy, ResumableGame)
    rng, everything = np.random.default_rng(seed), np.ones(game.num_games, dtype=np.bool_)
    game.reset()
    copy.reset()
    fresh = np.arange(game.num_games)
    for ply in range(num_plies):
        for index in fresh if ply % 3 else range(game.num_games):
            _restore(game, copy, int(index))
        view = observe(game)
        demand(same(view, observe(copy), everything), "after set_history the boards are observed otherwise")
        actions = choose(view.mask, rng)
        results = [each.step(actions) for each in (game, copy)]
        for key, expected, found in zip(StepResult._fields, *results, strict=True):
            demand(np.array_equal(expected, found), f"after set_history a ply has another {key}")
        fresh = np.flatnonzero(results[0].terminated | results[0].truncated)
        game.reset(fresh)
    try:
        copy.set_history(0, "no history of any game")
    except GameError:
        return
    raise GameError("set_history accepts text that is no history")


def _restore(game: ResumableGame, copy: ResumableGame, index: int) -> None:
    """Put a board of ``copy`` where one of ``game`` is."""
    copy.set_history(index, game.history(index))
    for key, expected, found in (
        ("history", game.history(index), copy.history(index)),
        ("position", game.position(index), copy.position(index)),
        ("record", game.record(index), copy.record(index)),
    ):
        demand(expected == found, f"after set_history {key} is {found!r} instead of {expected!r}")


def _check_record_files(game: RecordedGame, num_plies: int, seed: int) -> None:
    """Files have endings, texts and the players' names, however the game ended."""
    rng = np.random.default_rng(seed)
    game.reset()
    for _ in range(num_plies):
        game.step(choose(observe(game).mask, rng))
    for index in range(game.num_games):
        over = game.outcome(index)
        for outcome in [over] if over else ["resignation", "void"]:
            files = game.record_files(index, players=_PLAYERS, outcome=outcome)
            demand(files, "record_files gives no file")
            for ending, text in files.items():
                demand(ending.startswith("."), f"record_files: {ending!r} is no ending of a file's name")
                demand(all(player in text for player in _PLAYERS), f"record_files: {ending} lacks a player's name")
