"""Checks that a game keeps its contract: run them on a game of your own.

:func:`check_game` plays random games and compares what the game says with what it does. It needs nothing but the
:class:`~keisei_lightning.games.protocol.Game` protocol, so it cannot know the rules: those need tests of their own.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from xml.etree import ElementTree

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import GameError, IllegalActionError
from keisei_lightning.games.check_optional import check_optional
from keisei_lightning.games.checking import choose, demand, make, observe, same
from keisei_lightning.games.protocol import NO_MOVE, Game, GameFactory, GameSpec, StepResult

__all__ = ["check_game"]

SymmetricPosition = Callable[[str, str], str]


def check_game(
    factory: GameFactory,
    *,
    num_games: int = 8,
    num_plies: int = 400,
    seed: int = 0,
    symmetric_position: SymmetricPosition | None = None,
) -> None:
    """Play random games and raise at the first broken promise.

    Checked are: the spec; that the factory can be pickled and makes the same game each time; that arrays of any strides
    are filled completely; that exactly the legal actions are accepted and a refused step moves no board; shapes, types
    and values of rewards and ends; that sitting out and finished boards change nothing, and that looking at a board
    does not either; that a reset touches only its own boards; ``max_plies``; determinism under a seed; that positions
    can be restored; that legal actions have different names, pictures are SVG, and records have every move; the
    symmetries; and whichever of the optional protocols the game follows.

    Args:
        factory: makes the game, for example ``game_factory("shogi")``.
        num_games: boards that play at once.
        num_plies: plies to play; more than ``max_plies`` lets every end occur.
        seed: for the moves and for the game's own openings.
        symmetric_position: ``symmetric_position(symmetry_name, position)`` is the transformed position. Needed to
            check a symmetry under which the start is not itself (shogi's mirror); without it only the index arrays of
            such a symmetry are checked.

    Raises:
        GameError: the game broke its contract; the message says where.
    """
    game = make(factory, num_games)
    _check_spec(game.spec)
    _check_same_spec(game.spec, make(_shipped(factory), num_games).spec)
    _Player(game, seed=seed).play(num_plies)
    _check_determinism(factory, num_games, min(num_plies, 100), seed)
    _check_positions(factory, num_games, min(num_plies, 100), seed)
    check_optional(factory, num_games, min(num_plies, 100), seed)
    for number in range(len(game.spec.symmetries)):
        _check_symmetry(factory, number, num_games, num_plies, seed, symmetric_position)


def _shipped(factory: GameFactory) -> GameFactory:
    """The factory as a worker gets it."""
    try:
        copy: GameFactory = cloudpickle.loads(cloudpickle.dumps(factory))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise GameError(f"the factory cannot be pickled for the workers: {error}") from error
    return copy


def _check_spec(spec: GameSpec) -> None:
    demand(spec.name, "spec.name is empty")
    demand(spec.num_actions >= 1, f"spec.num_actions={spec.num_actions} must be at least 1")
    demand(spec.max_plies >= 1, f"spec.max_plies={spec.max_plies} must be at least 1")
    demand(min(spec.observation_shape, default=0) >= 1, f"spec.observation_shape={spec.observation_shape} is empty")
    demand(min(spec.board_shape) >= 1, f"spec.board_shape={spec.board_shape} is empty")
    demand(spec.encoding, "spec.encoding is empty")
    squares = spec.board_shape[0] * spec.board_shape[1]
    by_square = not spec.actions_by_square or spec.num_actions % squares == 0
    demand(by_square, f"spec.actions_by_square: {spec.num_actions} actions are no multiple of {squares} squares")
    if spec.encoding == "planes":
        planes = len(spec.observation_shape) == 3 and spec.observation_shape[1:] == spec.board_shape
        demand(planes, f"planes of shape {spec.observation_shape} do not fit spec.board_shape={spec.board_shape}")
    for symmetry in spec.symmetries:
        for key, index, size in (
            ("observation_index", symmetry.observation_index, spec.observation_bytes),
            ("action_index", symmetry.action_index, spec.num_actions),
        ):
            permutation = index.dtype == np.int64 and np.array_equal(np.sort(index), np.arange(size))
            demand(permutation, f"symmetry {symmetry.name!r}: {key} is no int64 permutation of {size} entries")


def _check_same_spec(first: GameSpec, second: GameSpec) -> None:
    for key in (
        "name",
        "num_actions",
        "observation_shape",
        "max_plies",
        "encoding",
        "board_shape",
        "actions_by_square",
    ):
        ours, theirs = getattr(first, key), getattr(second, key)
        demand(ours == theirs, f"spec.{key} differs between two games of one factory: {ours!r} and {theirs!r}")


class _Player:
    """Plays one game object at random and checks everything it says on the way."""

    def __init__(self, game: Game, *, seed: int) -> None:
        self._game = game
        self._rng = np.random.default_rng(seed)
        self._plies = np.zeros(game.num_games, dtype=np.int64)
        self._over = np.zeros(game.num_games, dtype=np.bool_)
        game.seed(seed)
        game.reset()
        self._view = observe(game)

    def play(self, num_plies: int) -> None:
        """Play, resetting finished boards now and then so that some stay finished for a while."""
        for ply in range(num_plies):
            self._check_state()
            if ply % 5 == 0:
                self._check_looking()
                self._check_refusals()
            self._ply()
            if self._over.any() and (ply % 3 == 0 or self._over.all()):
                self._reset(np.flatnonzero(self._over))

    def _check_state(self) -> None:
        for index in range(self._game.num_games):
            legal, over = bool(self._view.mask[index].any()), bool(self._over[index])
            demand(legal or over, f"board {index} is not over and has no legal action: {self._where(index)}")
            demand(not (legal and over), f"finished board {index} has legal actions: {self._where(index)}")
            outcome = self._game.outcome(index)
            demand(bool(outcome) == over, f"outcome {outcome!r} of a board that is {'' if over else 'not '}over")

    def _check_looking(self) -> None:
        """A board's texts are not empty, are the same at the second call, and change nothing."""
        game, index = self._game, int(self._rng.integers(self._game.num_games))
        texts = self._texts(index)
        for key, text in texts.items():
            demand(isinstance(text, str) and text, f"{key} gives no text")
        demand(_is_svg(texts["render svg"]), 'render(index, "svg") gives no SVG element')
        legal = np.flatnonzero(self._view.mask[index]).tolist()
        try:
            names = [game.action_name(index, action) for action in legal]
        except IllegalActionError as error:
            raise GameError(f"action_name refuses an action that legal allows: {error}") from error
        demand(all(names), f"action_name is empty in {self._where(index)}")
        demand(
            len(set(names)) == len(names), f"two legal actions have one name in {self._where(index)}: {sorted(names)}"
        )
        demand(self._texts(index) == texts, "position, record or render gives another text at the second call")
        everything = np.ones(game.num_games, dtype=np.bool_)
        demand(same(self._view, observe(game), everything), "position, record, render or action_name changes a board")

    def _texts(self, index: int) -> dict[str, str]:
        game = self._game
        return {
            "position": game.position(index),
            "record": game.record(index),
            "render": game.render(index, "text"),
            "render svg": game.render(index, "svg"),
        }

    def _check_refusals(self) -> None:
        """Illegal actions are refused, and then nothing has moved, not even the boards with legal ones."""
        everything = np.ones(self._game.num_games, dtype=np.bool_)
        legal = choose(self._view.mask, self._rng)
        index = int(self._rng.integers(self._game.num_games))
        forbidden = np.flatnonzero(~self._view.mask[index])
        tries = [-2, self._game.spec.num_actions, *self._rng.permutation(forbidden)[:4].tolist()]
        for action in tries:
            actions = legal.copy()
            actions[index] = action
            try:
                self._game.step(actions)
            except IllegalActionError:
                demand(same(self._view, observe(self._game), everything), "a refused step has moved a board")
            else:
                raise GameError(f"step accepts the illegal action {action} in {self._where(index)}")

    def _ply(self) -> None:
        before = self._view
        actions = choose(before.mask, self._rng)
        actions[self._rng.random(len(actions)) < 0.1] = NO_MOVE
        given = actions.copy()
        index = int(self._rng.integers(self._game.num_games))
        record = self._game.record(index)
        try:
            result = self._game.step(actions)
        except IllegalActionError as error:
            raise GameError(f"step refuses an action that legal allows: {error}") from error
        demand(np.array_equal(actions, given), "step changes the caller's actions")
        moved = actions != NO_MOVE
        self._check_result(result, moved)
        self._view = observe(self._game)
        demand(same(before, self._view, ~moved), "a board that sat out has changed")
        told = self._game.record(index) != record
        demand(
            told == moved[index], f"record {'forgets a move' if moved[index] else 'changes without a move'}: {record!r}"
        )
        self._plies += moved
        self._over |= result.terminated | result.truncated
        late = np.flatnonzero((self._plies >= self._game.spec.max_plies) & ~self._over)
        demand(late.size == 0, f"a game continues after max_plies={self._game.spec.max_plies} plies")

    def _check_result(self, result: StepResult, moved: NDArray[np.bool_]) -> None:
        shape = (self._game.num_games,)
        for key, values, dtype in (
            ("reward", result.reward, np.float32),
            ("terminated", result.terminated, np.bool_),
            ("truncated", result.truncated, np.bool_),
        ):
            demand(values.shape == shape and values.dtype == dtype, f"{key} must be {np.dtype(dtype)} {shape}")
        ended = result.terminated | result.truncated
        demand(not (result.terminated & result.truncated).any(), "a game is both terminated and truncated")
        demand(np.isin(result.reward, (-1, 0, 1)).all(), "rewards must be -1, 0 or 1")
        demand(not (result.reward[~result.terminated]).any(), "a reward without the end of a game")
        demand(not (result.reward[~moved]).any(), "a reward on a board that sat out")
        demand(np.array_equal(ended[~moved], self._over[~moved]), "terminated or truncated changes without a move")

    def _reset(self, indices: NDArray[np.int64]) -> None:
        before, chosen = self._view, np.zeros(self._game.num_games, dtype=np.bool_)
        chosen[indices] = True
        self._game.reset(indices)
        self._view = observe(self._game)
        demand(same(before, self._view, ~chosen), "reset touches boards that it was not asked for")
        self._over[indices], self._plies[indices] = False, 0

    def _where(self, index: int) -> str:
        return f"position {self._game.position(index)!r}"


def _is_svg(text: str) -> bool:
    try:
        return ElementTree.fromstring(text).tag.rpartition("}")[2] == "svg"
    except ElementTree.ParseError:
        return False


def _check_determinism(factory: GameFactory, num_games: int, num_plies: int, seed: int) -> None:
    """Two games with one seed and the same actions stay equal, openings after resets included."""
    games = [make(factory, num_games) for _ in range(2)]
    rng, everything = np.random.default_rng(seed), np.ones(num_games, dtype=np.bool_)
    for game in games:
        game.seed(seed)
        game.reset()
    for _ in range(num_plies):
        views = [observe(game) for game in games]
        demand(same(views[0], views[1], everything), "two games with the same seed and the same actions differ")
        actions = choose(views[0].mask, rng)
        ended = [np.flatnonzero(result.terminated | result.truncated) for result in _step_all(games, actions)]
        for game, indices in zip(games, ended, strict=True):
            if indices.size:
                game.reset(indices)


def _step_all(games: list[Game], actions: NDArray[np.int64]) -> list[StepResult]:
    return [game.step(actions) for game in games]


def _check_positions(factory: GameFactory, num_games: int, num_plies: int, seed: int) -> None:
    """A position put onto another board has the same mover and legal actions, and at the start the same observation.

    Later the observation may know of a history that the position does not carry (shogi's repetitions).
    """
    game, copy = make(factory, num_games), make(factory, num_games)
    rng, everything = np.random.default_rng(seed), np.ones(num_games, dtype=np.bool_)
    game.seed(seed)
    game.reset()
    copy.reset()
    for ply in range(num_plies):
        view, unfinished = observe(game), np.array([not game.outcome(index) for index in range(num_games)])
        for index in np.flatnonzero(unfinished).tolist():
            position = game.position(index)
            copy.set_position(index, position)
            demand(copy.position(index) == position, f"set_position({position!r}) becomes {copy.position(index)!r}")
            demand(not copy.outcome(index), f"set_position({position!r}) leaves a finished board")
        restored = observe(copy)
        equal = np.array_equal(view.mask[unfinished], restored.mask[unfinished])
        equal = equal and np.array_equal(view.mover[unfinished], restored.mover[unfinished])
        demand(equal, "a restored position has other legal actions or another mover")
        demand(ply > 0 or same(view, restored, everything), "a restored start has another observation")
        game.step(choose(view.mask, rng))
    before = observe(copy)
    try:
        copy.set_position(0, "no position of any game")
    except GameError:
        demand(same(before, observe(copy), everything), "a refused set_position has changed a board")
        return
    raise GameError("set_position accepts text that is no position")


def _check_symmetry(
    factory: GameFactory,
    number: int,
    num_games: int,
    num_plies: int,
    seed: int,
    symmetric_position: SymmetricPosition | None,
) -> None:
    """Play a game and its image move by move: observations, legal actions, rewards and ends stay images."""
    game, image = make(factory, num_games), make(factory, num_games)
    symmetry = game.spec.symmetries[number]
    rng, inverse = np.random.default_rng(seed), np.argsort(symmetry.action_index)

    def start() -> bool:
        for each in (game, image):
            each.seed(seed)
            each.reset()
        if symmetric_position is not None:
            for index in range(num_games):
                image.set_position(index, symmetric_position(symmetry.name, game.position(index)))
            return True
        view = observe(game)
        flat = view.observation.reshape(num_games, -1)
        return np.array_equal(flat[:, symmetry.observation_index], flat)

    if not start():
        return
    for _ in range(num_plies):
        view, mirrored = observe(game), observe(image)
        planes = view.observation.reshape(num_games, -1)[:, symmetry.observation_index]
        named = f"symmetry {symmetry.name!r}"
        demand(np.array_equal(planes, mirrored.observation.reshape(num_games, -1)), f"{named}: observations differ")
        demand(np.array_equal(view.mask[:, symmetry.action_index], mirrored.mask), f"{named}: legal actions differ")
        demand(np.array_equal(view.mover, mirrored.mover), f"{named}: movers differ")
        if not view.mask.any():
            start()
            continue
        actions = choose(view.mask, rng)
        ours = game.step(actions)
        theirs = image.step(np.where(actions == NO_MOVE, NO_MOVE, inverse[actions]))
        demand(all(map(np.array_equal, ours, theirs)), f"{named}: rewards or ends differ")
