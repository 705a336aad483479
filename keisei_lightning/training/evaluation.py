"""Evaluation during training: matches of the present policy between iterations."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation import MatchResult, Player, PolicyPlayer, SearchPlayer, play_match
from keisei_lightning.evaluation.ladder import Ladder, load_ladder
from keisei_lightning.evaluation.ratings import rate_against
from keisei_lightning.evaluation.registry import (
    PlayerMaker,
    closing_player,
    make_player,
    start_player,
)
from keisei_lightning.games.protocol import GameFactory
from keisei_lightning.models import ActorCritic, evaluation_mode
from keisei_lightning.search import SearchOptions
from keisei_lightning.system.options import with_keywords
from keisei_lightning.system.stopping import Stopped, deferred, interruptible
from keisei_lightning.training.averaging import averaged_weights
from keisei_lightning.training.metric_names import metric_name
from keisei_lightning.training.options import EvaluationOptions
from keisei_lightning.training.ranks import ALONE, Ranks, ranks_of
from keisei_lightning.training.source import actor_critic_of

__all__ = ["EvaluationCallback", "is_last_epoch", "metric_name"]

T = TypeVar("T")

log = logging.getLogger(__name__)


class EvaluationCallback(Callback):
    """Plays the policy, greedily or by a search, against one or more opponents and logs the results.

    It logs metrics that ``ModelCheckpoint`` and sweeps can monitor. For an opponent ``random`` (in other names, all
    characters but letters, digits, ``.`` and ``-`` become ``_``) they are ``eval/score_vs_random`` with its 95 %
    interval in ``..._low`` and ``..._high``, ``eval/wins_vs_random``, ``draws`` and ``losses``,
    ``eval/game_length_vs_random`` and ``eval/seconds_vs_random``; with a ``ladder`` also ``eval/rating`` with
    ``..._low`` and ``..._high``, one of which is missing if all games were won or lost.

    Every evaluation plays the same openings, so that scores of different epochs can be compared. Training is not
    affected: the modules' modes and all global random streams are restored.

    With several learners (ranks) each plays a part of every match, and all log the result of all games. Against
    opponents that are deterministic it is that of one learner alone; others, such as ``random``, draw from a stream of
    their own on each rank.

    An opponent that holds a resource, such as an engine's process (it has a ``close()``), is started once, before
    training begins (:meth:`start`, which ``setup`` calls), and closed when training ends; its own random stream
    continues from one evaluation to the next. All others are made anew for each evaluation, from the same seed.

    Args:
        game: makes the boards.
        options: what is played, and when; None: their defaults.
        opponents: in the place of those of ``options``: names of players
            (:func:`~keisei_lightning.evaluation.make_player`), or functions that make one. The first one's score is the
            run's.
        ladder: in the place of that of ``options``: opponents whose games against each other are known, from which and
            from the policy's own games its rating (Elo) is computed
            (:func:`~keisei_lightning.evaluation.load_ladder` reads it by its name or path).
        seed: of the openings and of the opponents.
        clock: seconds; injected by tests.
        **keywords: single options by name, such as ``num_games=200``; they take precedence over ``options``.

    Raises:
        ConfigError: an option is out of its bounds, or an opponent cannot play this game.
        TypeError: a keyword is no option.
    """

    def __init__(
        self,
        game: GameFactory,
        options: EvaluationOptions | None = None,
        *,
        opponents: Sequence[str | PlayerMaker] | None = None,
        ladder: Ladder | str | os.PathLike[str] | None = None,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        **keywords: Any,
    ) -> None:
        self.options: EvaluationOptions
        (self.options,) = with_keywords(type(self).__name__, options or EvaluationOptions(), keywords=keywords)
        self.opponents = list(self.options.opponents if opponents is None else opponents)
        if errors := _errors(self.options, self.opponents):
            raise ConfigError(errors)
        self.game = game
        ladder = self.options.ladder if ladder is None else ladder
        self.ladder = ladder if ladder is None or isinstance(ladder, Ladder) else load_ladder(ladder)
        self.seed = seed
        self.results: dict[str, MatchResult] = {}
        """The latest match against each opponent, by its name."""
        self.evaluated_step = -1
        """``trainer.global_step`` at the latest evaluation."""
        self._clock = clock
        self._started = clock()
        self._spent_s = self._latest_s = 0.0
        self._epochs_done = 0
        self._past: dict[int, dict[str, Any]] = {}  # weights by the number of epochs done
        self._held: dict[int, Player] = {}  # opponents that are kept from start() to close(), by their place
        self._ranks: Ranks = ALONE
        self._spec = game(1).spec
        names = []
        for opponent in self.opponents:  # refused here, not after the first hours
            with closing_player(self._make(opponent)) as player:
                names.append(player.name)
        self.monitor = f"eval/score_vs_{metric_name(names[0])}"
        """The metric of the first opponent's score, such as for ``ModelCheckpoint(monitor=..., mode="max")``."""

    @property
    def last_result(self) -> MatchResult | None:
        """The latest match against the first opponent, with the record of one of its games."""
        return next(iter(self.results.values()), None)

    def should_evaluate(self, trainer: Trainer) -> bool:
        """Decide, at the end of an epoch, whether to evaluate now."""
        due = self.options.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.options.every_n_epochs == 0
        return (due and self._is_affordable()) or is_last_epoch(trainer)

    def _is_affordable(self) -> bool:
        share = self.options.max_time_share
        if share is None or not self._spent_s:
            return True
        return self._ranks.collect(  # the first rank's clock decides for all
            "looking at the clock", lambda: self._spent_s + self._latest_s <= share * (self._clock() - self._started)
        )[0]

    def start(self) -> None:
        """Start the opponents that hold a resource, such as an engine's process. May be repeated.

        Raises:
            ConfigError: with one line for each that cannot be started; all others are closed.
        """
        errors: list[str] = []
        try:
            for place, opponent in enumerate(self.opponents):
                if place in self._held or not hasattr(player := self._make(opponent), "close"):
                    continue
                self._held[place] = player
                try:
                    start_player(player)
                except ConfigError as error:
                    errors += error.errors
        except BaseException:
            self.close()
            raise
        if errors:
            self.close()
            raise ConfigError(errors)

    def close(self) -> None:
        """Close the opponents that :meth:`start` has started. May be repeated."""
        held, self._held = self._held, {}
        for player in held.values():
            with closing_player(player):
                pass

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the opponents before any worker plays: one that cannot be started is refused at once.

        Raises:
            ConfigError: as :meth:`start`; or the module has no policy.
        """
        if stage == "fit":
            self._policy(pl_module)
            self._ranks = ranks_of(trainer)
            # Where there are fewer openings than ranks, some have no part of the matches, and need no engine.
            takes_part = self._ranks.rank < self.options.num_games // 2
            self._ranks.collect("starting the opponents", self.start if takes_part else lambda: None)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the opponents."""
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the opponents: Lightning calls no ``teardown`` after an error."""
        self.close()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; with ``at_start``, evaluate the weights that training starts from."""
        self._started, self._spent_s = self._clock(), 0.0
        self._remember(trainer.current_epoch, trainer, pl_module)
        if self.options.at_start:
            self._log_aside(trainer, self.play(trainer, pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate if it is time."""
        self._remember(trainer.current_epoch + 1, trainer, pl_module)
        if self.should_evaluate(trainer):
            pl_module.log_dict(self.play(trainer, pl_module), batch_size=1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the final weights, unless the last epoch's end did (it cannot foresee every stop)."""
        if self.evaluated_step != trainer.global_step:
            self._log_aside(trainer, self.play(trainer, pl_module))

    def play(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Play a match against each opponent with the module's present weights, or with their average if it is kept.

        A signal that asks the program to stop ends the matches; training ends after this, with a checkpoint.

        Args:
            trainer: its ``fast_dev_run`` cuts each match to two games.
            pl_module: has the policy as ``actor_critic``, or one :class:`ActorCritic` somewhere inside it.

        Returns:
            The metrics, by name. The matches themselves are kept in :attr:`results`.
        """
        started = self._clock()
        metrics: dict[str, float] = {}
        results: dict[str, MatchResult] = {}
        with isolate_rng():
            try:
                alone = self._ranks.size == 1
                with averaged_weights(trainer, pl_module), interruptible() if alone else nullcontext():
                    for opponent in self._opponents(pl_module):
                        before = self._clock()
                        result = self._play_match(trainer, pl_module, opponent)
                        results[opponent.name] = result
                        metrics |= _metrics(result, seconds=self._clock() - before)
            except Stopped as stop:
                if not deferred():
                    raise
                log.debug("the evaluation was interrupted: %s", stop)
                return {}
        self.results, self.evaluated_step = results, trainer.global_step
        self._latest_s = self._clock() - started
        self._spent_s += self._latest_s
        for result in results.values() if self._ranks.rank == 0 else ():
            log.info("epoch %d: %s", trainer.current_epoch, result)
        return metrics | self._rating()

    def _make(self, opponent: str | PlayerMaker) -> Player:
        if isinstance(opponent, str):
            return make_player(opponent, self._spec, seed=self._own_seed)
        return opponent(self._spec, seed=self._own_seed, name=getattr(opponent, "__name__", "opponent"))

    @property
    def _own_seed(self) -> int:
        """Seed of this rank's opponents, whose streams must not be the same on all."""
        rank = self._ranks.rank
        return self.seed if not rank else int(np.random.SeedSequence((self.seed, rank)).generate_state(1)[0])

    def _at_work(self, place: int) -> AbstractContextManager[Player]:
        """An opponent for one evaluation: the one that is held, or a new one that is closed after it."""
        if place in self._held:
            return nullcontext(self._held[place])
        return closing_player(self._make(self.opponents[place]))

    def _opponents(self, pl_module: LightningModule) -> Iterator[Player]:
        for place in range(len(self.opponents)):
            with self._at_work(place) as player:
                yield player
        ago = self.options.against_epochs_ago
        if ago is not None and (weights := self._past.get(self._epochs_done - ago)) is not None:
            past = copy.deepcopy(self._policy(pl_module)).eval()
            past.load_state_dict(weights)
            yield PolicyPlayer(past, seed=self.seed, name=f"{ago}_epochs_ago")

    def _policy(self, pl_module: LightningModule) -> ActorCritic:
        return actor_critic_of(pl_module, wanted_by=type(self).__name__)

    def _play_match(self, trainer: Trainer, pl_module: LightningModule, opponent: Player) -> MatchResult:
        actor_critic = self._policy(pl_module)
        search = SearchOptions(simulations=self.options.simulations)
        with evaluation_mode(actor_critic):
            return play_match(
                self.game,
                SearchPlayer(actor_critic, self.game, search, name="policy"),
                opponent,
                num_games=2 if getattr(trainer, "fast_dev_run", False) else self.options.num_games,
                opening_plies=self.options.opening_plies,
                seed=self.seed,
                partners=None if self._ranks.size == 1 else _Interruptible(self._ranks),
            )

    def _rating(self) -> dict[str, float]:
        if self.ladder is None:
            return {}
        rated = {name: result.total for name, result in self.results.items() if name in self.ladder.names}
        rating = rate_against(self.ladder, rated) if any(tally.games for tally in rated.values()) else None
        if rating is None:
            return {}
        values = {"eval/rating": rating.value, "eval/rating_low": rating.low, "eval/rating_high": rating.high}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _remember(self, epochs_done: int, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights for a later match against them."""
        self._epochs_done = epochs_done
        if self.options.against_epochs_ago is None or epochs_done % self.options.every_n_epochs:
            return
        with averaged_weights(trainer, pl_module):
            weights = self._policy(pl_module).state_dict()
            self._past[epochs_done] = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        for epoch in [epoch for epoch in self._past if epoch < epochs_done - self.options.against_epochs_ago]:
            del self._past[epoch]

    def state_dict(self) -> dict[str, Any]:
        """The weights of earlier epochs that are needed as opponents."""
        return {"past": dict(self._past)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a :meth:`state_dict`."""
        self._past = {int(epoch): weights for epoch, weights in state_dict["past"].items()}

    def _log_aside(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Log where Lightning does not allow ``self.log``, or would count it for the next epoch."""
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)


class _Interruptible:
    """Ranks that play a match together, which a signal to any of them interrupts on all.

    Args:
        ranks: the learners.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.rank, self.size = ranks.rank, ranks.size
        self._ranks = ranks

    def collect(self, what: str, work: Callable[[], T]) -> list[T]:
        """Do something that a signal may interrupt on all ranks."""

        def interrupted() -> T:
            with interruptible():
                return work()

        return self._ranks.collect(what, interrupted)


def _errors(options: EvaluationOptions, opponents: Sequence[object]) -> list[str]:
    """Errors that no single option has: one line each."""
    every, ago = options.every_n_epochs, options.against_epochs_ago
    errors = [] if opponents else ["opponents=[]: must name one or more"]
    if ago is not None and (every < 1 or ago % every):
        errors.append(f"against_epochs_ago={ago}: must be a multiple of every_n_epochs={every}, which must be above 0")
    return errors


def _metrics(result: MatchResult, *, seconds: float) -> dict[str, float]:
    low, high = result.interval
    opponent = metric_name(result.opponent)
    values = {
        "score": result.score,
        "wins": float(result.wins),
        "draws": float(result.draws),
        "losses": float(result.losses),
        "game_length": result.mean_length,
        "seconds": seconds,
    }
    named = {f"eval/{name}_vs_{opponent}": value for name, value in values.items()}
    score = f"eval/score_vs_{opponent}"
    values = {**named, f"{score}_low": low, f"{score}_high": high}
    return {name: value for name, value in values.items() if math.isfinite(value)}  # all games may be void


def is_last_epoch(trainer: Trainer) -> bool:
    """Whether the epoch that is ending is the last one, as far as can be known now."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    return (
        trainer.should_stop
        or (epochs is not None and 0 <= epochs <= trainer.current_epoch + 1)
        or 0 <= steps <= trainer.global_step
    )
