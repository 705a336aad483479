"""Playing one rollout: T plies of G games by one policy version, written into a slot.

The same code runs in a worker process and, with ``mode="serial"``, in the learner: that is why both give the same bits.
It knows no torch: it asks questions, and whoever has the policy answers them, in this process or in another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import RolloutError
from keisei_lightning.games import NO_MOVE, Game, ResumableGame, Symmetry
from keisei_lightning.parallel.memory.slots import ColumnKey
from keisei_lightning.parallel.opponents.boards import OpponentBoards
from keisei_lightning.parallel.policy.inference_requests import LEARNER, InferenceRequest, InferenceResult, PolicyServer
from keisei_lightning.parallel.supervision.messages import Opponent

__all__ = ["RolloutPlayer", "RolloutResult", "rollout_seeds"]

"""Groups of games that one worker may play: their games are numbered apart."""

_TRAJECTORY_BITS = 32  # games of one incarnation ...
_GROUP_TRAJECTORY_BITS = 28  # ... and of one of its groups
_INCARNATION_BITS = 16


def rollout_seeds(seed: int, worker_id: int, incarnation: int, position: int, group: int = 0) -> tuple[int, int]:
    """Seeds of one rollout: (for the game's openings and all else around it, for sampling actions).

    Every rollout has random streams of its own, all spawned from one seed (``numpy.random.SeedSequence``), so that no
    state of a generator has to be kept to go on from a checkpoint as if there had been no stop.

    Args:
        seed: the run's.
        worker_id: who plays.
        incarnation: in which life.
        position: plies that the collector has delivered before this rollout, were none ever lost.
        group: of the worker's games.
    """
    key = (worker_id, incarnation, position, *([group] if group else []))
    game, actions = np.random.SeedSequence(seed, spawn_key=key).generate_state(2, np.uint32)
    return int(game), int(actions)


@dataclass(slots=True)
class RolloutResult:
    """The games that ended in one rollout (:class:`~keisei_lightning.parallel.supervision.messages.RolloutHeader`)."""

    games: int = 0
    game_plies: int = 0
    results: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    opponents_in_use: tuple[int, ...] = ()
    opponent_results: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def add(self, other: RolloutResult) -> None:
        """Count another group's games too."""
        self.games += other.games
        self.game_plies += other.game_plies
        self.results += other.results
        self.outcomes += other.outcomes
        self.opponents_in_use = tuple(sorted({*self.opponents_in_use, *other.opponents_in_use}))
        for version, (wins, draws, losses) in other.opponent_results.items():
            before = self.opponent_results.get(version, (0, 0, 0))
            self.opponent_results[version] = (before[0] + wins, before[1] + draws, before[2] + losses)


class _View:
    """The state that the policy is shown: the game's own arrays, mirrored for the games that chose so."""

    def __init__(self, game: Game, symmetry: Symmetry | None) -> None:
        self._game, self._symmetry = game, symmetry
        self.rng = np.random.default_rng(0)
        spec, num_games = game.spec, game.num_games
        self.observation = np.zeros((num_games, *spec.observation_shape), np.uint8)
        self.legal = np.zeros((num_games, spec.mask_bytes), np.uint8)
        self.mover = np.zeros(num_games, np.int8)
        self.mirrored = np.zeros(num_games, np.bool_)

    def choose(self, indices: NDArray[np.int64]) -> None:
        """Draw anew, for games that begin, whether they are played mirrored."""
        if self._symmetry is not None:
            self.mirrored[indices] = self.rng.random(len(indices)) < 0.5

    def look(self) -> None:
        """Fill the arrays with the present state of every game."""
        self._game.observe(self.observation, self.legal, self.mover)
        if self._symmetry is None or not (rows := np.flatnonzero(self.mirrored)).size:
            return
        flat = self.observation.reshape(len(self.observation), -1)
        flat[rows] = flat[rows][:, self._symmetry.observation_index]
        bits = np.unpackbits(self.legal[rows], axis=1, count=self._game.spec.num_actions)
        self.legal[rows] = np.packbits(bits[:, self._symmetry.action_index], axis=1)

    def to_game(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The actions as the game labels them: ``shown[j] = legal[action_index[j]]``, so j is the game's index[j]."""
        if self._symmetry is None:
            return actions
        real = self.mirrored & (actions != NO_MOVE)
        return np.where(real, self._symmetry.action_index[actions], actions)


class RolloutPlayer:
    """Plays the games of one worker, rollout after rollout; games go on from one rollout into the next.

    Args:
        game: G boards.
        moves: chooses them.
        num_plies: T.
        worker_id: stored with every ply.
        incarnation: which life of the worker; makes trajectory ids unique.
        seed: the run's.
        start: plies delivered before this run (above 0 in a resumed one).
        stride: plies of one batch of the collector.
        stagger_games: begin the first game of each board somewhere in its course (after uniformly 0 to ``max_plies``
            random plies that are not stored). Otherwise all games would be at the same ply for a long time, and one
            batch would hold openings only, the next one middle games only.
        augment_symmetry: play half of the games in the game's mirror image (stored as the policy saw and played it, so
            its log-probabilities are its own).
        opponents: boards that meet snapshots; None: every game is self-play.
        group: which of the worker's groups of games this is, where it plays several; they have streams of their own.
    """

    def __init__(
        self,
        *,
        game: Game,
        moves: PolicyServer,
        num_plies: int,
        worker_id: int,
        incarnation: int,
        seed: int = 0,
        start: int = 0,
        stride: int = 1,
        stagger_games: bool = False,
        augment_symmetry: bool = False,
        opponents: OpponentBoards | None = None,
        group: int = 0,
    ) -> None:
        self._opponents = opponents
        self._game, self._moves, self._num_plies = game, moves, num_plies
        self._worker_id, self._incarnation, self._group = worker_id, incarnation, group
        self._seed, self._position, self._stride = seed, start, stride
        symmetry = game.spec.symmetries[0] if augment_symmetry and game.spec.symmetries else None
        self._view = _View(game, symmetry)
        life = (worker_id << _INCARNATION_BITS) | incarnation
        self._next_trajectory = (life << _TRAJECTORY_BITS) | (group << _GROUP_TRAJECTORY_BITS)
        self._trajectory = np.zeros(game.num_games, np.int64)
        self._length = np.zeros(game.num_games, np.int64)
        self._games_are_to_begin = True
        self._stagger_games = stagger_games
        game.reset()  # a game that cannot is a worker that cannot start

    def reset_games(self) -> None:
        """Let all games begin anew with the next rollout."""
        self._games_are_to_begin = True
        if self._opponents is not None:
            self._opponents.clear()

    def _begin_streams(self, opponent: Opponent | None) -> tuple[int, int]:
        seeds = rollout_seeds(self._seed, self._worker_id, self._incarnation, self._position, self._group)
        self._position += self._stride
        self._game.seed(seeds[0])
        self._view.rng = np.random.default_rng(seeds[0])
        self._moves.begin_rollout(seeds[1])
        if self._opponents is not None:
            self._opponents.begin_rollout(opponent)
        return seeds

    def _begin_games(self, seeds: tuple[int, int], beat: Callable[[], None]) -> None:
        self._game.reset()
        self._begin(np.arange(self._game.num_games))
        self._view.look()
        if self._stagger_games:
            self._stagger_games = False
            self._stagger(np.random.default_rng(seeds), beat)
        self._games_are_to_begin = False

    def _stagger(self, rng: np.random.Generator, beat: Callable[[], None]) -> None:
        """Play each game on for a random number of random plies; a game that ends on the way begins anew."""
        view, game = self._view, self._game
        left = rng.integers(0, game.spec.max_plies, game.num_games)
        for _ in range(int(left.max(initial=0))):
            beat()
            game.observe(view.observation, view.legal, view.mover)
            legal = np.unpackbits(view.legal, axis=1, count=game.spec.num_actions)
            choices = (legal * rng.random(legal.shape, dtype=np.float32)).argmax(axis=1)
            step = game.step(np.where(left > 0, choices, NO_MOVE))
            self._length += left > 0
            left -= left > 0
            finished = np.flatnonzero(step.terminated | step.truncated)
            if finished.size:
                game.reset(finished)
                self._begin(finished)
        view.look()

    def _begin(self, indices: NDArray[np.int64]) -> None:
        self._trajectory[indices] = self._next_trajectory + np.arange(len(indices))
        self._next_trajectory += len(indices)
        self._length[indices] = 0
        self._view.choose(indices)
        if self._opponents is not None:
            self._opponents.begin_games(indices)

    def play(
        self,
        slot: Mapping[ColumnKey, NDArray[Any]],
        policy_version: int,
        beat: Callable[[], None] = lambda: None,
        *,
        opponent: Opponent | None = None,
    ) -> RolloutResult:
        """Play T plies of every game and write them into a slot.

        Args:
            slot: the columns of the batch table, [G, T, ...].
            policy_version: of the policy's present weights, stored with every ply.
            beat: called once a ply: the sign of life.
            opponent: whom games meet that begin now on the boards for opponents.

        Returns:
            What the finished games came to.

        Raises:
            RolloutError, GameError: see :meth:`steps`.
        """
        steps = self.steps(slot, policy_version, beat, opponent=opponent)
        try:
            question = next(steps)
            while True:
                question = steps.send(self._moves.answer(question))
        except StopIteration as end:
            result: RolloutResult = end.value
            return result

    def steps(
        self,
        slot: Mapping[ColumnKey, NDArray[Any]],
        policy_version: int,
        beat: Callable[[], None] = lambda: None,
        *,
        opponent: Opponent | None = None,
    ) -> Generator[InferenceRequest, InferenceResult, RolloutResult]:
        """The same as :meth:`play`, by somebody who answers the questions that this yields.

        Raises:
            RolloutError: the policy gave numbers of a wrong shape or dtype or that are not finite, or an action out of
                range, or a game goes on without a legal move or past its ``max_plies``. The games are to begin anew
                then.
            GameError: the game found a fault of its own, or the policy's move illegal; likewise.
        """
        seeds = self._begin_streams(opponent)
        if self._games_are_to_begin:  # here, where a hang or a crash is the game's and not the worker's boot
            self._begin_games(seeds, beat)
        result = RolloutResult()
        slot["collector", "policy_version"][:] = policy_version
        slot["collector", "worker_id"][:] = self._worker_id
        for ply in range(self._num_plies):
            beat()
            yield from self._play_ply(slot, ply, result)
        last = yield from self._value()
        self._link_next_states(slot, last)
        if not (np.isfinite(slot["action_log_prob"]).all() and np.isfinite(slot["state_value"]).all()):
            raise RolloutError(f"policy version {policy_version} gave a log-probability or value that is not finite")
        if self._opponents is not None:
            self._opponents.verify()
            result.opponents_in_use = self._opponents.in_use
            result.opponent_results = self._opponents.results
        return result

    def _play_ply(
        self, slot: Mapping[ColumnKey, NDArray[Any]], ply: int, result: RolloutResult
    ) -> Generator[InferenceRequest, InferenceResult, None]:
        view = self._view
        self._check_games()
        to_move = None if self._opponents is None else self._opponents.to_move(view.mover)
        if to_move is not None and (to_move == LEARNER).all():
            to_move = None
        actions, log_prob, value = yield InferenceRequest(view.observation, view.legal, to_move)
        self._check_actions(actions)
        slot["trainable"][:, ply] = True if to_move is None else to_move == LEARNER
        slot["observation"][:, ply] = view.observation
        slot["action_mask"][:, ply] = view.legal
        slot["mover"][:, ply] = view.mover
        slot["action"][:, ply] = actions
        slot["action_log_prob"][:, ply] = log_prob
        slot["state_value"][:, ply] = value
        slot["collector", "traj_ids"][:, ply] = self._trajectory
        mover = view.mover.copy()
        step = self._game.step(view.to_game(actions))
        done = step.terminated | step.truncated
        slot["next", "reward"][:, ply, 0] = step.reward
        slot["next", "terminated"][:, ply, 0] = step.terminated
        slot["next", "truncated"][:, ply, 0] = step.truncated
        slot["next", "done"][:, ply, 0] = done
        self._length += 1
        next_observation = slot.get(("next", "observation"))
        if not done.any():
            view.look()
            slot["next", "mover"][:, ply] = view.mover
            if next_observation is not None:
                next_observation[:, ply] = view.observation
            return
        if step.truncated.any() or next_observation is not None:
            view.look()  # the last state itself: it bootstraps a truncated game
            last_value = yield from self._value()
            slot["next", "state_value"][:, ply] = np.where(step.terminated[:, None], 0.0, last_value)
            if next_observation is not None:
                next_observation[:, ply] = view.observation
        else:
            slot["next", "state_value"][:, ply] = 0.0  # of games that go on: filled when the rollout is complete
        slot["next", "mover"][:, ply] = np.where(step.truncated, view.mover, 1 - mover)
        finished = np.flatnonzero(done)
        self._count(result, finished, step.reward, mover)
        self._game.reset(finished)
        self._begin(finished)
        view.look()
        slot["next", "mover"][:, ply] = np.where(done, slot["next", "mover"][:, ply], view.mover)

    def _check_games(self) -> None:
        spec, stuck = self._game.spec, np.flatnonzero(~self._view.legal.any(axis=1))
        if stuck.size:
            where = self._game.position(int(stuck[0]))
            raise RolloutError(f"{spec.name}: a game goes on without a legal move, in position {where}")
        if (longest := int(self._length.max())) >= spec.max_plies:
            raise RolloutError(f"{spec.name}: a game goes on after {longest} plies, its max_plies is {spec.max_plies}")

    def _check_actions(self, actions: NDArray[np.int64]) -> None:
        """Refuse what the game would take for sitting out: every game is going on and has a legal move."""
        spec = self._game.spec
        if actions.min() < 0 or actions.max() >= spec.num_actions:
            index = int(np.flatnonzero((actions < 0) | (actions >= spec.num_actions))[0])
            raise RolloutError(
                f"policy: action {actions[index]} in position {self._game.position(index)}; must be from 0 to "
                f"{spec.num_actions - 1} ({NO_MOVE}: its logits of the legal moves are not finite)"
            )

    def _value(self) -> Generator[InferenceRequest, InferenceResult, NDArray[np.float32]]:
        answer = yield InferenceRequest(self._view.observation)
        return answer.value

    def _link_next_states(self, slot: Mapping[ColumnKey, NDArray[Any]], last: NDArray[np.float32]) -> None:
        """Fill the value after each ply of a game that went on: the next ply's own, or the one after the last ply."""
        following = np.concatenate([slot["state_value"][:, 1:], last[:, None]], axis=1)
        np.copyto(slot["next", "state_value"], following, where=~slot["next", "done"])

    def _count(
        self, result: RolloutResult, finished: NDArray[np.int64], reward: NDArray[np.float32], mover: NDArray[np.int8]
    ) -> None:
        result.games += len(finished)
        result.game_plies += int(self._length[finished].sum())
        for index in finished.tolist():
            result.outcomes[self._game.outcome(index)] += 1
            if self._opponents is not None:
                self._opponents.count(index, reward=float(reward[index]), mover=int(mover[index]))
            if reward[index] == 0:
                result.results["draw"] += 1
            else:
                first_won = (reward[index] > 0) == (mover[index] == 0)
                result.results["first" if first_won else "second"] += 1

    # ---- games in flight

    def state_dict(self) -> dict[str, Any] | None:
        """The games in flight as plain numbers and text; None if the game cannot tell its history."""
        game = self._game
        if self._games_are_to_begin or not isinstance(game, ResumableGame):
            return None
        return {
            "histories": [game.history(index) for index in range(game.num_games)],
            "mirrored": self._view.mirrored.tolist(),
            "lengths": self._length.tolist(),
            "trajectories": self._trajectory.tolist(),
            "next_trajectory": self._next_trajectory,
            "opponents": None if self._opponents is None else self._opponents.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the games that :meth:`state_dict` told of; anew where a snapshot that they meet is gone.

        Raises:
            GameError: a history cannot be read.
        """
        game, opponents = self._game, state.get("opponents")
        if self._opponents is not None and opponents is not None and not self._opponents.load_state_dict(opponents):
            return
        assert isinstance(game, ResumableGame)
        for index, history in enumerate(state["histories"]):
            game.set_history(index, history)
        self._view.mirrored[:] = state["mirrored"]
        self._length[:] = state["lengths"]
        self._trajectory[:] = state["trajectories"]
        self._next_trajectory = state["next_trajectory"]
        self._view.look()
        self._games_are_to_begin = self._stagger_games = False
