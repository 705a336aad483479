"""Does a game keep its contract? What a third party runs on a game of its own.

:func:`check_game` plays random games and compares what the game says with what it does. It needs nothing but the
:class:`~keisei_lightning.games.protocol.Game` protocol, so it cannot know the rules: those need tests of their own.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import NamedTuple

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import GameError, IllegalActionError
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
    and values of rewards and ends; that sitting out and finished boards change nothing; that a reset touches only its
    own boards; ``max_plies``; determinism under a seed; that positions can be restored; names, pictures and records;
    and the symmetries.

    Args:
        factory: makes the game, for example ``game_factory("shogi")``.
        num_games: boards that play at once.
        num_plies: plies to play; more than ``max_plies`` lets every end occur.
        seed: for the moves and for the game's own openings.
        symmetric_position: ``symmetric_position(symmetry_name, position)`` is the transformed position. Needed to
            check a symmetry under which the start is not itself (shogi's mirror); without it only the index arrays of
            such a symmetry are looked at.

    Raises:
        GameError: the game broke its contract; the message says where.
    """
    game = _make(factory, num_games)
    _check_spec(game.spec)
    _check_same_spec(game.spec, _make(_shipped(factory), num_games).spec)
    _Player(game, seed=seed).play(num_plies)
    _check_determinism(factory, num_games, min(num_plies, 100), seed)
    _check_positions(factory, num_games, min(num_plies, 100), seed)
    for number in range(len(game.spec.symmetries)):
        _check_symmetry(factory, number, num_games, num_plies, seed, symmetric_position)


class _View(NamedTuple):
    """What ``observe`` wrote: observation uint8 [G, *obs], legal uint8 [G, bytes], mover int8 [G], mask bool [G, A]."""

    observation: NDArray[np.uint8]
    legal: NDArray[np.uint8]
    mover: NDArray[np.int8]
    mask: NDArray[np.bool_]


def _demand(holds: object, broken: str) -> None:
    if not holds:
        raise GameError(broken)


def _make(factory: GameFactory, num_games: int) -> Game:
    game = factory(num_games)
    _demand(isinstance(game, Game), f"the factory makes a {type(game).__name__}, which lacks methods of Game")
    _demand(game.num_games == num_games, f"num_games is {game.num_games}, not the {num_games} asked for")
    return game


def _shipped(factory: GameFactory) -> GameFactory:
    """The factory as a worker gets it."""
    try:
        copy: GameFactory = cloudpickle.loads(cloudpickle.dumps(factory))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise GameError(f"the factory cannot be pickled for the workers: {error}") from error
    return copy


def _check_spec(spec: GameSpec) -> None:
    _demand(spec.name, "spec.name is empty")
    _demand(spec.num_actions >= 1, f"spec.num_actions={spec.num_actions} must be at least 1")
    _demand(spec.max_plies >= 1, f"spec.max_plies={spec.max_plies} must be at least 1")
    _demand(min(spec.observation_shape, default=0) >= 1, f"spec.observation_shape={spec.observation_shape} is empty")
    if spec.encoding == "planes":
        planes = len(spec.observation_shape) == 3 and spec.observation_shape[1:] == spec.board_shape
        _demand(planes, f"planes of shape {spec.observation_shape} do not fit spec.board_shape={spec.board_shape}")
    for symmetry in spec.symmetries:
        for key, index, size in (
            ("observation_index", symmetry.observation_index, spec.observation_bytes),
            ("action_index", symmetry.action_index, spec.num_actions),
        ):
            permutation = index.dtype == np.int64 and np.array_equal(np.sort(index), np.arange(size))
            _demand(permutation, f"symmetry {symmetry.name!r}: {key} is no int64 permutation of {size} entries")


def _check_same_spec(first: GameSpec, second: GameSpec) -> None:
    for key in ("name", "num_actions", "observation_shape", "max_plies", "encoding", "board_shape"):
        ours, theirs = getattr(first, key), getattr(second, key)
        _demand(ours == theirs, f"spec.{key} differs between two games of one factory: {ours!r} and {theirs!r}")


def _observe(game: Game) -> _View:
    """Observe twice, into packed and into strided arrays that hold different rubbish, and compare."""
    spec, count = game.spec, game.num_games
    observation = np.full((count, *spec.observation_shape), 0xAA, dtype=np.uint8)
    legal = np.full((count, spec.mask_bytes), 0xAA, dtype=np.uint8)
    mover = np.full(count, 85, dtype=np.int8)
    wide_observation = np.full((count, 3, *spec.observation_shape), 0x55, dtype=np.uint8)
    wide_legal = np.full((count, 3, spec.mask_bytes), 0x55, dtype=np.uint8)
    wide_mover = np.full((count, 3), 42, dtype=np.int8)
    game.observe(observation, legal, mover)
    game.observe(wide_observation[:, 1], wide_legal[:, 1], wide_mover[:, 1])
    for key, packed, strided in (
        ("observation", observation, wide_observation),
        ("legal", legal, wide_legal),
        ("mover", mover, wide_mover),
    ):
        _demand(np.array_equal(packed, strided[:, 1]), f"observe does not fill all of {key}, or not a strided one")
        rubbish = strided[:, [0, 2]]
        _demand((rubbish == rubbish.flat[0]).all(), f"observe writes beside {key}")
    bits = np.unpackbits(legal, axis=1).astype(np.bool_)
    _demand(not bits[:, spec.num_actions :].any(), "the padding bits of legal are not zero")
    _demand(np.isin(mover, (0, 1)).all(), f"mover must be 0 or 1, not {sorted(set(mover.tolist()))}")
    return _View(observation, legal, mover, bits[:, : spec.num_actions])


def _same(before: _View, after: _View, rows: NDArray[np.bool_]) -> bool:
    """Whether two views agree on the boards chosen by bool [G]."""
    return all(np.array_equal(old[rows], new[rows]) for old, new in zip(before, after, strict=True))


def _choose(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random legal action for each board, NO_MOVE where there is none."""
    actions = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)
    return np.where(mask.any(axis=1), actions, NO_MOVE).astype(np.int64)


class _Player:
    """Plays one game object at random and looks at everything it says on the way."""

    def __init__(self, game: Game, *, seed: int) -> None:
        self._game = game
        self._rng = np.random.default_rng(seed)
        self._plies = np.zeros(game.num_games, dtype=np.int64)
        self._over = np.zeros(game.num_games, dtype=np.bool_)
        game.seed(seed)
        game.reset()
        self._view = _observe(game)

    def play(self, num_plies: int) -> None:
        """Play, resetting finished boards now and then so that some stay finished for a while."""
        for ply in range(num_plies):
            self._check_state()
            if ply % 5 == 0:
                self._check_refusals()
            self._ply()
            if self._over.any() and (ply % 3 == 0 or self._over.all()):
                self._reset(np.flatnonzero(self._over))

    def _check_state(self) -> None:
        for index in range(self._game.num_games):
            legal, over = bool(self._view.mask[index].any()), bool(self._over[index])
            _demand(legal or over, f"board {index} is going on without a legal action: {self._where(index)}")
            _demand(not (legal and over), f"finished board {index} has legal actions: {self._where(index)}")
            outcome = self._game.outcome(index)
            _demand(bool(outcome) == over, f"outcome {outcome!r} of a board that is {'over' if over else 'going on'}")
        index = int(self._rng.integers(self._game.num_games))
        texts = [self._game.position(index), self._game.record(index), self._game.render(index, "text")]
        _demand(all(isinstance(text, str) and text for text in texts), "position, record or render gives no text")
        _demand("<svg" in self._game.render(index, "svg"), 'render(index, "svg") gives no SVG')
        if not self._over[index]:
            action = int(_choose(self._view.mask, self._rng)[index])
            _demand(self._game.action_name(index, action), f"action_name({index}, {action}) is empty")

    def _check_refusals(self) -> None:
        """Illegal actions are refused, and then nothing has moved, not even the boards with legal ones."""
        everything = np.ones(self._game.num_games, dtype=np.bool_)
        legal = _choose(self._view.mask, self._rng)
        index = int(self._rng.integers(self._game.num_games))
        forbidden = np.flatnonzero(~self._view.mask[index])
        tries = [-2, self._game.spec.num_actions, *self._rng.permutation(forbidden)[:4].tolist()]
        for action in tries:
            actions = legal.copy()
            actions[index] = action
            try:
                self._game.step(actions)
            except IllegalActionError:
                _demand(_same(self._view, _observe(self._game), everything), "a refused step has moved a board")
            else:
                raise GameError(f"step accepts the illegal action {action} in {self._where(index)}")

    def _ply(self) -> None:
        before = self._view
        actions = _choose(before.mask, self._rng)
        actions[self._rng.random(len(actions)) < 0.1] = NO_MOVE
        given = actions.copy()
        try:
            result = self._game.step(actions)
        except IllegalActionError as error:
            raise GameError(f"step refuses an action that legal allows: {error}") from error
        _demand(np.array_equal(actions, given), "step changes the caller's actions")
        moved = actions != NO_MOVE
        self._check_result(result, moved)
        self._view = _observe(self._game)
        _demand(_same(before, self._view, ~moved), "a board that sat out has changed")
        self._plies += moved
        self._over |= result.terminated | result.truncated
        late = np.flatnonzero((self._plies >= self._game.spec.max_plies) & ~self._over)
        _demand(late.size == 0, f"a game goes on after max_plies={self._game.spec.max_plies} plies")

    def _check_result(self, result: StepResult, moved: NDArray[np.bool_]) -> None:
        shape = (self._game.num_games,)
        for key, values, dtype in (
            ("reward", result.reward, np.float32),
            ("terminated", result.terminated, np.bool_),
            ("truncated", result.truncated, np.bool_),
        ):
            _demand(values.shape == shape and values.dtype == dtype, f"{key} must be {np.dtype(dtype)} {shape}")
        ended = result.terminated | result.truncated
        _demand(not (result.terminated & result.truncated).any(), "a game is both terminated and truncated")
        _demand(np.isin(result.reward, (-1, 0, 1)).all(), "rewards must be -1, 0 or 1")
        _demand(not (result.reward[~result.terminated]).any(), "a reward without the end of a game")
        _demand(not (result.reward[~moved]).any(), "a reward on a board that sat out")
        _demand(np.array_equal(ended[~moved], self._over[~moved]), "terminated or truncated changes without a move")

    def _reset(self, indices: NDArray[np.int64]) -> None:
        before, chosen = self._view, np.zeros(self._game.num_games, dtype=np.bool_)
        chosen[indices] = True
        self._game.reset(indices)
        self._view = _observe(self._game)
        _demand(_same(before, self._view, ~chosen), "reset touches boards that it was not asked for")
        self._over[indices], self._plies[indices] = False, 0

    def _where(self, index: int) -> str:
        return f"position {self._game.position(index)!r}"


def _check_determinism(factory: GameFactory, num_games: int, num_plies: int, seed: int) -> None:
    """Two games with one seed and the same actions stay equal, openings after resets included."""
    games = [_make(factory, num_games) for _ in range(2)]
    rng, everything = np.random.default_rng(seed), np.ones(num_games, dtype=np.bool_)
    for game in games:
        game.seed(seed)
        game.reset()
    for _ in range(num_plies):
        views = [_observe(game) for game in games]
        _demand(_same(views[0], views[1], everything), "two games with the same seed and the same actions differ")
        actions = _choose(views[0].mask, rng)
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
    game, copy = _make(factory, num_games), _make(factory, num_games)
    rng, everything = np.random.default_rng(seed), np.ones(num_games, dtype=np.bool_)
    game.seed(seed)
    game.reset()
    copy.reset()
    for ply in range(num_plies):
        view, going_on = _observe(game), np.array([not game.outcome(index) for index in range(num_games)])
        for index in np.flatnonzero(going_on).tolist():
            position = game.position(index)
            copy.set_position(index, position)
            _demand(copy.position(index) == position, f"set_position({position!r}) becomes {copy.position(index)!r}")
            _demand(not copy.outcome(index), f"set_position({position!r}) leaves a finished board")
        restored = _observe(copy)
        same = np.array_equal(view.mask[going_on], restored.mask[going_on])
        same = same and np.array_equal(view.mover[going_on], restored.mover[going_on])
        _demand(same, "a restored position has other legal actions or another mover")
        _demand(ply > 0 or _same(view, restored, everything), "a restored start has another observation")
        game.step(_choose(view.mask, rng))
    try:
        copy.set_position(0, "no position of any game")
    except GameError:
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
    game, image = _make(factory, num_games), _make(factory, num_games)
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
        view = _observe(game)
        flat = view.observation.reshape(num_games, -1)
        return np.array_equal(flat[:, symmetry.observation_index], flat)

    if not start():
        return
    for _ in range(num_plies):
        view, mirrored = _observe(game), _observe(image)
        planes = view.observation.reshape(num_games, -1)[:, symmetry.observation_index]
        named = f"symmetry {symmetry.name!r}"
        _demand(np.array_equal(planes, mirrored.observation.reshape(num_games, -1)), f"{named}: observations differ")
        _demand(np.array_equal(view.mask[:, symmetry.action_index], mirrored.mask), f"{named}: legal actions differ")
        _demand(np.array_equal(view.mover, mirrored.mover), f"{named}: movers differ")
        if not view.mask.any():
            start()
            continue
        actions = _choose(view.mask, rng)
        ours = game.step(actions)
        theirs = image.step(np.where(actions == NO_MOVE, NO_MOVE, inverse[actions]))
        _demand(all(map(np.array_equal, ours, theirs)), f"{named}: rewards or ends differ")
