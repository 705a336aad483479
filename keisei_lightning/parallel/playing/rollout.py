"""Plays one rollout: T plies of G games by one policy version, written into a slot.

The same code runs in a worker process and, with ``mode="serial"``, in the learner: that is why both give the same bits.
It knows no torch: it sends inference requests to a policy server, in this process or in another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keisei_lightning.errors import RolloutError
from keisei_lightning.games import NO_MOVE, Game, ResumableGame, StepResult
from keisei_lightning.games.turns import RESIGN
from keisei_lightning.parallel.memory.slots import ColumnKey
from keisei_lightning.parallel.opponents.boards import OpponentBoards
from keisei_lightning.parallel.playing.drawing import BoardDrawer
from keisei_lightning.parallel.playing.streams import RolloutStreams
from keisei_lightning.parallel.playing.view import PolicyView
from keisei_lightning.parallel.policy.inference_requests import LEARNER, InferenceRequest, InferenceResult, PolicyServer
from keisei_lightning.parallel.supervision.messages import BoardView, Opponent

__all__ = ["RolloutPlayer", "RolloutResult"]


@dataclass(slots=True)
class RolloutResult:
    """The games that ended in one rollout (:class:`~keisei_lightning.parallel.supervision.messages.RolloutHeader`)."""

    games: int = 0
    game_plies: int = 0
    results: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    opponents_in_use: tuple[int, ...] = ()
    opponent_results: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    opponent_voids: dict[int, int] = field(default_factory=dict)

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
        self.opponent_voids = dict(Counter(self.opponent_voids) + Counter(other.opponent_voids))


class RolloutPlayer:
    """Plays the games of one worker, rollout after rollout. A game continues from one rollout to the next.

    Args:
        game: G boards.
        server: serves the inference requests.
        num_plies: T.
        streams: random streams and trajectory ids of these games.
        stagger_games: begin the first game of each board somewhere in its course (after uniformly 0 to ``max_plies``
            random plies that are not stored). Otherwise all games would be at the same ply for a long time: one batch
            would hold only openings, the next one only middle games.
        augment_symmetry: play half of the games in the game's mirror image. They are stored as the policy saw and
            played them, so its log-probabilities are its own.
        opponents: boards that meet opponents; None: every game is self-play.
    """

    def __init__(
        self,
        *,
        game: Game,
        server: PolicyServer,
        num_plies: int,
        streams: RolloutStreams,
        stagger_games: bool = False,
        augment_symmetry: bool = False,
        opponents: OpponentBoards | None = None,
    ) -> None:
        self._game, self._server, self._num_plies, self._streams = game, server, num_plies, streams
        self._opponents, self._drawer = opponents, BoardDrawer(game)
        symmetry = game.spec.symmetries[0] if augment_symmetry and game.spec.symmetries else None
        self._view = PolicyView(game, symmetry)
        self._next_trajectory = streams.first_trajectory
        self._trajectory = np.zeros(game.num_games, np.int64)
        self._length = np.zeros(game.num_games, np.int64)
        self._needs_new_games = True
        self._stagger_games = stagger_games
        game.reset()  # a game that cannot be reset is a worker that cannot start

    def reset_games(self) -> None:
        """Begin new games, on all boards, with the next rollout."""
        self._needs_new_games = True
        if self._opponents is not None:
            self._opponents.clear()

    def close(self) -> None:
        """End what opponents hold, such as engines' processes; may be repeated."""
        if self._opponents is not None:
            self._opponents.close()

    def draw_boards(self, num_boards: int) -> tuple[BoardView, ...]:
        """Draw the first boards, after a rollout (:class:`BoardDrawer`)."""
        return self._drawer.draw(num_boards, self._length.tolist(), self._view.mover.tolist())

    def _begin_streams(self, opponent: Opponent | None) -> tuple[int, int]:
        seeds = self._streams.next_seeds()
        self._game.seed(seeds[0])
        self._view.rng = np.random.default_rng(seeds[0])
        self._server.begin_rollout(seeds[1])
        if self._opponents is not None:
            self._opponents.begin_rollout(opponent, seeds[1])
        return seeds

    def _begin_games(self, seeds: tuple[int, int], beat: Callable[[], None]) -> None:
        self._game.reset()
        self._begin(np.arange(self._game.num_games))
        self._view.refresh()
        if self._stagger_games:
            self._stagger_games = False
            self._stagger(np.random.default_rng(seeds), beat)
        self._needs_new_games = False

    def _stagger(self, rng: np.random.Generator, beat: Callable[[], None]) -> None:
        """Play a random number of random plies in each game; a game that ends meanwhile is followed by a new one."""
        view, game = self._view, self._game
        left = rng.integers(0, game.spec.max_plies, game.num_games)
        for _ in range(int(left.max(initial=0))):
            beat()
            view.observe()
            legal = np.unpackbits(view.legal, axis=1, count=game.spec.num_actions)
            choices = (legal * rng.random(legal.shape, dtype=np.float32)).argmax(axis=1)
            step = game.step(np.where(left > 0, choices, NO_MOVE))
            self._length += left > 0
            left -= left > 0
            finished = np.flatnonzero(step.terminated | step.truncated)
            if finished.size:
                game.reset(finished)
                self._begin(finished)
        view.refresh()

    def _begin(self, indices: NDArray[np.int64]) -> None:
        self._trajectory[indices] = self._next_trajectory + np.arange(len(indices))
        self._next_trajectory += len(indices)
        self._length[indices] = 0
        self._view.begin_games(indices)
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
            slot: the columns of the batch, [G, T, ...].
            policy_version: of the policy's present weights, stored with every ply.
            beat: sends a heartbeat; called once a ply.
            opponent: of games that begin now on the boards for opponents.

        Returns:
            The results of the finished games.

        Raises:
            RolloutError, GameError: see :meth:`steps`.
        """
        steps = self.steps(slot, policy_version, beat, opponent=opponent)
        try:
            request = next(steps)
            while True:
                request = steps.send(self._server.infer(request))
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
        """The same as :meth:`play`, as a generator that yields inference requests and is sent their results.

        Raises:
            RolloutError: the policy's results are of a wrong shape or dtype, not finite, or an action out of range; or
                a game continues without a legal move or past its ``max_plies``. New games must begin then.
            GameError: the game found its own state invalid, or the policy's move illegal; likewise.
        """
        seeds = self._begin_streams(opponent)
        if self._needs_new_games:  # not at the start, where a hang or a crash would be a failed start of the worker
            self._begin_games(seeds, beat)
        result = RolloutResult()
        slot["collector", "policy_version"][:] = policy_version
        slot["collector", "worker_id"][:] = self._streams.worker_id
        for ply in range(self._num_plies):
            beat()
            yield from self._play_ply(slot, ply, result, beat)
        last = yield from self._value()
        self._fill_next_values(slot, last)
        if not (np.isfinite(slot["action_log_prob"]).all() and np.isfinite(slot["state_value"]).all()):
            raise RolloutError(f"policy version {policy_version} gave a log-probability or value that is not finite")
        if self._opponents is not None:
            self._opponents.verify()
            result.opponents_in_use = self._opponents.in_use
            result.opponent_results = self._opponents.results
            result.opponent_voids = self._opponents.voids
        return result

    def _play_ply(
        self, slot: Mapping[ColumnKey, NDArray[Any]], ply: int, result: RolloutResult, beat: Callable[[], None]
    ) -> Generator[InferenceRequest, InferenceResult, None]:
        view = self._view
        self._check_games()
        to_move = None if self._opponents is None else self._opponents.to_move(view.mover)
        if to_move is not None and (to_move == LEARNER).all():
            to_move = None
        # Where a player is to move, the learner's network values the position, and its move is not played.
        served = None if to_move is None else np.maximum(to_move, LEARNER)
        actions, log_prob, value = yield InferenceRequest(view.observation, view.legal, served)
        self._check_actions(actions)
        stops = None
        if to_move is not None and (to_move < LEARNER).any():
            actions, log_prob, stops = self._let_players_move(to_move, actions, log_prob, beat)
        slot["trainable"][:, ply] = True if to_move is None else to_move == LEARNER
        slot["observation"][:, ply] = view.observation
        slot["action_mask"][:, ply] = view.legal
        slot["mover"][:, ply] = view.mover
        slot["action"][:, ply] = actions
        slot["action_log_prob"][:, ply] = log_prob
        slot["state_value"][:, ply] = value
        slot["collector", "traj_ids"][:, ply] = self._trajectory
        mover = view.mover.copy()
        step = self._step(view.to_game(actions), stops)
        done = step.terminated | step.truncated
        slot["next", "reward"][:, ply, 0] = step.reward
        slot["next", "terminated"][:, ply, 0] = step.terminated
        slot["next", "truncated"][:, ply, 0] = step.truncated
        slot["next", "done"][:, ply, 0] = done
        self._length += 1
        next_observation = slot.get(("next", "observation"))
        if not done.any():
            view.refresh()
            slot["next", "mover"][:, ply] = view.mover
            if next_observation is not None:
                next_observation[:, ply] = view.observation
            return
        if step.truncated.any() or next_observation is not None:
            view.refresh()  # the last state itself: its value bootstraps a truncated game
            last_value = yield from self._value()
            slot["next", "state_value"][:, ply] = np.where(step.terminated[:, None], 0.0, last_value)
            if next_observation is not None:
                next_observation[:, ply] = view.observation
        else:
            slot["next", "state_value"][:, ply] = 0.0  # of games that continue: filled when the rollout is complete
        slot["next", "mover"][:, ply] = np.where(step.truncated, view.mover, 1 - mover)
        finished = np.flatnonzero(done)
        self._count(result, finished, step.reward, mover, stops)
        self._game.reset(finished)
        self._begin(finished)
        view.refresh()
        slot["next", "mover"][:, ply] = np.where(done, slot["next", "mover"][:, ply], view.mover)

    def _let_players_move(
        self,
        to_move: NDArray[np.int64],
        actions: NDArray[np.int64],
        log_prob: NDArray[np.float32],
        beat: Callable[[], None],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64] | None]:
        """Replace the moves of boards where players are to move by those that they choose.

        Returns:
            Actions and log-probabilities (0 of a player's); and int64 [G], ``RESIGN`` or ``NO_MOVE`` where a player has
            given the game up or has no move, 0 elsewhere; None: there are no such boards.
        """
        assert self._opponents is not None
        actions, log_prob, stops = actions.copy(), log_prob.copy(), np.zeros(len(actions), np.int64)
        for player in np.unique(to_move[to_move < LEARNER]).tolist():
            rows = np.flatnonzero(to_move == player)
            chosen = self._opponents.choose(player, self._view.turn(rows), beat)
            if chosen is None:
                chosen = np.full(len(rows), NO_MOVE, np.int64)
            stops[rows] = np.where(chosen < 0, chosen, 0)
            # A stopped game's action is the network's, as any legal one would do: it is stored, and not played.
            actions[rows] = np.where(chosen < 0, actions[rows], self._view.from_game(rows, chosen))
            log_prob[rows] = 0.0
        return actions, log_prob, stops if stops.any() else None

    def _step(self, actions: NDArray[np.int64], stops: NDArray[np.int64] | None) -> StepResult:
        """Play the actions. A player who resigns has lost; a game whose player has no move is cut short."""
        if stops is None:
            return self._game.step(actions)
        step = self._game.step(np.where(stops < 0, NO_MOVE, actions))
        return StepResult(
            reward=np.where(stops == RESIGN, np.float32(-1.0), step.reward),
            terminated=step.terminated | (stops == RESIGN),
            truncated=step.truncated | (stops == NO_MOVE),
        )

    def _check_games(self) -> None:
        spec, stuck = self._game.spec, np.flatnonzero(~self._view.legal.any(axis=1))
        if stuck.size:
            where = self._game.position(int(stuck[0]))
            raise RolloutError(f"{spec.name}: a game continues without a legal move, in position {where}")
        if (longest := int(self._length.max())) >= spec.max_plies:
            raise RolloutError(
                f"{spec.name}: a game continues after {longest} plies, its max_plies is {spec.max_plies}"
            )

    def _check_actions(self, actions: NDArray[np.int64]) -> None:
        """Refuse an action that the game would take for a skipped turn: every game continues and has a legal move."""
        spec = self._game.spec
        if actions.min() < 0 or actions.max() >= spec.num_actions:
            index = int(np.flatnonzero((actions < 0) | (actions >= spec.num_actions))[0])
            raise RolloutError(
                f"policy: action {actions[index]} in position {self._game.position(index)}; must be from 0 to "
                f"{spec.num_actions - 1} ({NO_MOVE}: its logits of the legal moves are not finite)"
            )

    def _value(self) -> Generator[InferenceRequest, InferenceResult, NDArray[np.float32]]:
        result = yield InferenceRequest(self._view.observation)
        return result.value

    def _fill_next_values(self, slot: Mapping[ColumnKey, NDArray[Any]], last: NDArray[np.float32]) -> None:
        """Fill the value after each ply of a game that continued: the next ply's, or ``last`` after the last ply."""
        following = np.concatenate([slot["state_value"][:, 1:], last[:, None]], axis=1)
        np.copyto(slot["next", "state_value"], following, where=~slot["next", "done"])

    def _count(
        self,
        result: RolloutResult,
        finished: NDArray[np.int64],
        reward: NDArray[np.float32],
        mover: NDArray[np.int8],
        stops: NDArray[np.int64] | None,
    ) -> None:
        for index in finished.tolist():
            if stops is not None and stops[index] == NO_MOVE:
                assert self._opponents is not None
                self._opponents.count_void(index)
                continue
            result.games += 1
            result.game_plies += int(self._length[index])
            resigned = stops is not None and stops[index] == RESIGN
            result.outcomes["resignation" if resigned else self._game.outcome(index)] += 1
            if self._opponents is not None:
                self._opponents.count(index, reward=float(reward[index]), mover=int(mover[index]))
            if reward[index] == 0:
                result.results["draw"] += 1
            else:
                first_won = (reward[index] > 0) == (mover[index] == 0)
                result.results["first" if first_won else "second"] += 1

    # ---- games in flight

    def state_dict(self) -> dict[str, Any] | None:
        """The games in flight as plain numbers and text; None if the game has no history."""
        game = self._game
        if self._needs_new_games or not isinstance(game, ResumableGame):
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
        """Resume the games of a :meth:`state_dict`; new games begin if a snapshot that they meet was overwritten since.

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
        self._view.refresh()
        self._needs_new_games = self._stagger_games = False
