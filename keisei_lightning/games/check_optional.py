"""Checks of the optional protocols that a game follows: openings, histories, copies, records, clicks, descriptions."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np

from keisei_lightning.errors import GameError
from keisei_lightning.games.checking import choose, demand, make, observe, same
from keisei_lightning.games.protocol import (
    NO_MOVE,
    ClickableGame,
    CopyableGame,
    DescribedGame,
    Game,
    GameFactory,
    OpeningGame,
    RecordedGame,
    ResumableGame,
    StepResult,
)
from keisei_lightning.games.records import replay
from keisei_lightning.games.saved_game import ReplayableGame, SavedGame

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
    if isinstance(game, CopyableGame):
        _check_copies(game, make(factory, num_games), num_plies, seed)
    if isinstance(game, RecordedGame):
        _check_record_files(game, num_plies, seed)
    if isinstance(game, ClickableGame):
        _check_parts(game, num_plies, seed)
    if isinstance(game, ReplayableGame):
        _check_records_back(game, make(factory, 1))


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

    def put(index: int) -> None:
        copy.set_history(index, game.history(index))
        expected, found = game.history(index), copy.history(index)
        demand(expected == found, f"after set_history history is {found!r} instead of {expected!r}")

    _check_put("set_history", put, game, copy, num_plies, seed)
    try:
        copy.set_history(0, "no history of any game")
    except GameError:
        return
    raise GameError("set_history accepts text that is no history")


def _check_copies(game: CopyableGame, copy: Game, num_plies: int, seed: int) -> None:
    """A board that was put where another one was looks alike, and plays alike; moves do not reach the copy."""
    assert isinstance(copy, CopyableGame)

    def put(index: int) -> None:
        board = game.copy_boards(np.array([index]))
        copy.put_boards(np.array([index]), board)
        legal = observe(copy).mask[index]
        if legal.any():
            actions = np.full(game.num_games, NO_MOVE)
            actions[index] = np.flatnonzero(legal)[-1]
            copy.step(actions)
            copy.put_boards(np.array([index]), board)

    _check_put("put_boards", put, game, copy, num_plies, seed)


def _check_put(name: str, put: Callable[[int], None], game: Game, copy: Game, num_plies: int, seed: int) -> None:
    """Play on two games whose boards are now and then put where the first one's are, finished ones too."""
    rng, everything = np.random.default_rng(seed), np.ones(game.num_games, dtype=np.bool_)
    game.reset()
    copy.reset()
    fresh = np.arange(game.num_games)
    for ply in range(num_plies):
        for index in fresh if ply % 3 else range(game.num_games):
            put(int(index))
            _demand_same(name, game, copy, int(index))
        view = observe(game)
        demand(same(view, observe(copy), everything), f"after {name} the boards are observed otherwise")
        actions = choose(view.mask, rng)
        results = [each.step(actions) for each in (game, copy)]
        for key, expected, found in zip(StepResult._fields, *results, strict=True):
            demand(np.array_equal(expected, found), f"after {name} a ply has another {key}")
        fresh = np.flatnonzero(results[0].terminated | results[0].truncated)
        game.reset(fresh)


def _demand_same(name: str, game: Game, copy: Game, index: int) -> None:
    for key, expected, found in (
        ("position", game.position(index), copy.position(index)),
        ("outcome", game.outcome(index), copy.outcome(index)),
        ("record", game.record(index), copy.record(index)),
    ):
        demand(expected == found, f"after {name} {key} is {found!r} instead of {expected!r}")


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


def _check_parts(game: ClickableGame, num_plies: int, seed: int) -> None:
    """The parts of every legal action are in the picture, each with its middle inside the view box."""
    rng = np.random.default_rng(seed)
    game.reset()
    for _ in range(num_plies):
        mask = observe(game).mask
        index = int(rng.integers(game.num_games))
        parts = _drawn_parts(game.render(index, "svg"))
        for action in np.flatnonzero(mask[index]).tolist():
            for part in game.move_parts(index, action):
                name = game.action_name(index, action)
                demand(part in parts, f"move_parts: no element of the picture has {part!r}, a part of {name!r}")
        result = game.step(choose(mask, rng))
        game.reset(np.flatnonzero(result.terminated | result.truncated))


def _drawn_parts(svg: str) -> set[str]:
    """Names of the parts of a picture."""
    root = ElementTree.fromstring(svg)
    left, top, width, height = map(float, root.attrib.get("viewBox", "0 0 0 0").split())
    parts = set()
    for drawn in root.iter():
        if (part := drawn.attrib.get("data-part")) is not None:
            at = drawn.attrib.get("data-x"), drawn.attrib.get("data-y")
            demand(None not in at, f"the element of part {part!r} has no data-x and data-y")
            x, y = float(at[0] or 0), float(at[1] or 0)
            inside = left <= x <= left + width and top <= y <= top + height
            demand(inside, f"the middle of part {part!r}, {x:g} {y:g}, is not in the view box")
            parts.add(part)
    return parts


def _check_records_back(game: ReplayableGame, copy: Game) -> None:
    """Records of boards that were played on are read back, in every format, to games that continue where these are."""
    assert isinstance(copy, ReplayableGame)
    for index in range(game.num_games):
        files = game.record_files(index, players=_PLAYERS, outcome=game.outcome(index))
        for suffix, text in files.items():
            demand(suffix in game.record_formats, f"record_formats lacks {suffix}, which record_files writes")
            saved = game.read_record(text, suffix)
            demand(saved.players == _PLAYERS, f"read_record: {suffix} has players {saved.players}")
            demand(saved.outcome == game.outcome(index), f"read_record: {suffix} has outcome {saved.outcome!r}")
            replay(copy, 0, saved)
            _demand_there(suffix, game, index, copy)
    for suffix in game.record_formats:
        again = game.read_record(game.write_record(saved, suffix), suffix)
        demand(again.moves == saved.moves, f"write_record: {suffix} has other moves than it was given")
        _demand_refusal(game, suffix)


def _demand_there(suffix: str, game: Game, index: int, copy: Game) -> None:
    """The position itself may be told otherwise: some formats have no place for the number of plies before a start."""
    for key, expected, found in (
        ("outcome", game.outcome(index), copy.outcome(0)),
        ("legal moves", observe(game).mask[index].tolist(), observe(copy).mask[0].tolist()),
    ):
        demand(expected == found, f"read_record: a game that is played again from {suffix} has another {key}")


def _demand_refusal(game: ReplayableGame, suffix: str) -> None:
    """Text that is no record is a GameError of one line."""
    for text in ("", "no record of any game", "\x00\n"):
        try:
            saved: SavedGame = game.read_record(text, suffix)
        except GameError as error:
            demand("\n" not in str(error), f"read_record: {suffix} is refused in more than one line")
        else:
            raise GameError(f"read_record takes {text!r} for a game in {suffix}: {saved}")
