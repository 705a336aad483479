"""Games that the learner plays by a tree search, so that its policy and values learn from what searches find.

PPO's own plies go on as they are. Beside them, at the start of an iteration, the learner's policy plays a few plies of
some games of its own by a search of the present weights. Each position is kept with the search's improved policy and
its value; with every minibatch of PPO's the module learns from some of those kept
(:mod:`keisei_lightning.training.search_loss`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from tensordict import TensorDict

from keisei_lightning.errors import ConfigError
from keisei_lightning.games.protocol import Game, GameFactory, GameSpec, ResumableGame
from keisei_lightning.models import ActorCritic, evaluation_mode
from keisei_lightning.search import Roots, SearchOptions, TreeSearch, copies_of
from keisei_lightning.search.network import NetworkEvaluator
from keisei_lightning.system.options import with_keywords
from keisei_lightning.training.optimizer import fraction_trained
from keisei_lightning.training.options import SearchTargetOptions
from keisei_lightning.training.ranks import Ranks
from keisei_lightning.training.search_loss import joined_minibatch
from keisei_lightning.training.search_window import SearchWindow
from keisei_lightning.training.source import actor_critic_of

__all__ = ["SearchTargets"]

_PLAYING: Final = 2**31  # first words of keys of random streams: no worker has such a number
_DRAWING: Final = 2**31 + 1


class SearchTargets:
    """Plays games by searches beside the collector's, and keeps the newest positions to learn from.

    Nothing is made before the first search. All of it happens in the learner's process and thread, between the rollout
    and its minibatches, so it works with every mode of the collector; under DDP each learner (rank) plays games of its
    own.

    Args:
        game: makes the boards.
        options: how much is searched, how, and how much of it is learned; None: their defaults, but enabled.
        seed: root seed of the random streams.
        **keywords: single options by name; they take precedence over ``options``.

    Attributes:
        options: all of them.
        seconds: how long the searches of the latest iteration took.
        searched: positions searched in it.

    Raises:
        ConfigError: an option is out of its bounds.
        TypeError: a keyword is no option.
    """

    def __init__(
        self, game: GameFactory, options: SearchTargetOptions | None = None, *, seed: int = 0, **keywords: Any
    ) -> None:
        self.options: SearchTargetOptions
        (self.options,) = with_keywords(
            type(self).__name__, options or SearchTargetOptions(enabled=True), keywords=keywords
        )
        self._factory, self._seed = game, seed
        self._game: Game | None = None
        self._window: SearchWindow | None = None
        self.seconds, self.searched = 0.0, 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to learn from."""
        return self._window is None or len(self._window) == 0

    def check(self, spec: GameSpec) -> None:
        """Refuse a game that is not the one that is trained.

        Args:
            spec: of the game that is trained.

        Raises:
            ConfigError: the searches' is another.
        """
        own = self._factory(1).spec
        if (own.name, own.num_actions, own.observation_shape) != (spec.name, spec.num_actions, spec.observation_shape):
            raise ConfigError(f"search_targets: search {own.name}; must search {spec.name}, the game that is trained")

    def begin_iteration(self, trainer: Trainer, ranks: Ranks, *, iteration: int, plies: int) -> None:
        """Search, if so much of the training is done.

        Args:
            trainer: in a fit.
            ranks: the learners, all of which call this.
            iteration: number of the PPO iteration.
            plies: of its rollout, of one rank.

        Raises:
            ConfigError: the trainer's module has no policy.
            ConfigError, GameError: as :meth:`play`.
        """
        policy = actor_critic_of(trainer.lightning_module, wanted_by="search_targets")
        total_steps = float(trainer.estimated_stepping_batches)

        def search() -> None:
            with trainer.precision_plugin.train_step_context():  # a loader's work is done outside of it
                self.play(policy, iteration=iteration, plies=plies, rank=ranks.rank)

        def is_due() -> bool:
            return fraction_trained(trainer, trainer.global_step, total_steps) >= self.options.from_fraction

        # The first rank says for all: where max_time ends the training, it is a question of the clock.
        if ranks.collect("asking whether searches are due", is_due)[0]:
            ranks.collect("searching", search)
        else:
            self.skip()

    def skip(self) -> None:
        """An iteration without searches: what is kept is forgotten."""
        self.seconds, self.searched = 0.0, 0
        if self._window is not None:
            self._window.clear()

    def play(self, policy: ActorCritic, *, iteration: int, plies: int, rank: int = 0) -> None:
        """Play by searches, and keep the positions.

        Args:
            policy: the network; its present weights search.
            iteration: number of the PPO iteration.
            plies: of its rollout, of which as many positions as ``options.share`` says are searched.
            rank: which learner plays.

        Raises:
            ConfigError, GameError: the network does not fit the game, or its outputs are not finite.
        """
        start, options = time.perf_counter(), self.options
        openings, noise = np.random.SeedSequence(self._seed, spawn_key=(_PLAYING, iteration, rank)).spawn(2)
        game, window = self._made()
        game.seed(int(openings.generate_state(1)[0]))
        if self.is_empty:
            game.reset()
        with evaluation_mode(policy):
            # A new one: what the last one's trees and cache hold was said by other weights.
            search = TreeSearch(
                NetworkEvaluator(policy, game.spec),
                self._factory,
                SearchOptions(simulations=options.simulations, value_scale=options.value_scale),
                noise=np.random.default_rng(noise),
            )
            rounds = max(1, round(options.share * plies / options.games))
            for _ in range(rounds):
                _play_ply(game, search, window)
        self.seconds, self.searched = time.perf_counter() - start, rounds * options.games

    def join(
        self, minibatches: Iterator[TensorDict], device: torch.device, *, iteration: int, taken: int = 0, rank: int = 0
    ) -> Iterator[TensorDict]:
        """Put searched positions beside each of an iteration's minibatches; without any, the minibatches as they are.

        Args:
            minibatches: PPO's, TensorDict [b].
            device: of the network.
            iteration: number of the PPO iteration.
            taken: so many of its minibatches were handed out before.
            rank: which learner learns.

        Yields:
            What :func:`~keisei_lightning.training.search_loss.joined_minibatch` makes of each.
        """
        window, options = self._window, self.options
        if window is None or self.is_empty:
            yield from minibatches
            return
        for number, plies in enumerate(minibatches, start=taken):
            key = (_DRAWING, iteration, rank, number)
            rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))
            searched = window.take(rng.integers(len(window), size=options.minibatch_size), device)
            yield joined_minibatch(plies, searched, policy_coeff=options.policy_coeff, value_coeff=options.value_coeff)

    def stats(self) -> dict[str, float]:
        """Numbers of the latest iteration, for loggers."""
        kept = 0 if self._window is None else len(self._window)
        return {"search_s": self.seconds, "searched_positions": self.searched, "search_window": kept}

    def state_dict(self) -> dict[str, Any]:
        """What is kept, and the games in flight: primitives and tensors."""
        if self.is_empty:
            return {}
        game, window = self._made()
        histories = []
        if isinstance(game, ResumableGame):
            histories = [game.history(index) for index in range(game.num_games)]
        return {"window": window.state_dict(), "histories": histories, "searched": self.searched}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`; games begin anew where they cannot be continued, or are not as many."""
        self.skip()
        if not state:
            return
        game, window = self._made()
        window.load_state_dict(state["window"])
        self.searched = state["searched"]
        game.reset()
        if isinstance(game, ResumableGame) and len(state["histories"]) == game.num_games:
            for index, history in enumerate(state["histories"]):
                game.set_history(index, history)

    def _made(self) -> tuple[Game, SearchWindow]:
        if self._game is None or self._window is None:
            self._game = self._factory(self.options.games)
            self._window = SearchWindow(self._game.spec, self.options.window)
        return self._game, self._window


def _play_ply(game: Game, search: TreeSearch, window: SearchWindow) -> None:
    """Search all boards, keep what is found, play the moves, and begin new games in the place of those that end."""
    spec, count = game.spec, game.num_games
    observation = np.zeros((count, *spec.observation_shape), np.uint8)
    legal, mover = np.zeros((count, spec.mask_bytes), np.uint8), np.zeros(count, np.int8)
    game.observe(observation, legal, mover)
    found = search.run(
        Roots(
            boards=range(count),
            positions=copies_of(game, np.arange(count)),
            observation=observation,
            legal=legal,
            mover=mover,
        )
    )
    window.add(observation, legal, found)
    result = game.step(np.array([each.action for each in found], np.int64))
    over: NDArray[np.int64] = np.flatnonzero(result.terminated | result.truncated)
    game.reset(over)
