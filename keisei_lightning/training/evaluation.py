"""How strong is the policy by now: matches between training iterations."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation import MatchResult, Player, PolicyPlayer, RandomPlayer, play_match
from keisei_lightning.games.protocol import GameFactory
from keisei_lightning.stopping import Stopped, deferred, waiting

__all__ = ["EvaluationCallback", "evaluation_mode", "is_last_epoch"]

log = logging.getLogger(__name__)


class EvaluationCallback(Callback):
    """Plays the policy, greedily, against a random player (or another one) and logs the result.

    Logged as metrics that ``ModelCheckpoint`` and sweeps can monitor, with the opponent's name for ``random``:
    ``eval/score_vs_random`` with its 95 % interval in ``..._low`` and ``..._high``, ``eval/wins_vs_random``, ``draws``
    and
    ``losses``, ``eval/game_length_vs_random`` and ``eval/seconds_vs_random``.

    Every evaluation plays the same openings, so that scores of different epochs can be compared. Training is left as it
    was: the modules' modes and all global random streams are restored.

    Args:
        game: makes the boards.
        num_games: games of one evaluation, an even number (each opening is played from both seats).
        opening_plies: each opening is 0 to this many random plies; None: as the game's own options say.
        every_n_epochs: evaluate after every so many PPO iterations, and once more at the end; 0: only at the end.
        at_start: also evaluate the weights that training starts from.
        seed: of the openings and of the random player.
        make_opponent: makes another opponent, anew for each evaluation; it is given the number of actions and the seed.

    Raises:
        ConfigError: a number that cannot work.
    """

    def __init__(
        self,
        game: GameFactory,
        *,
        num_games: int = 100,
        opening_plies: int | None = None,
        every_n_epochs: int = 10,
        at_start: bool = False,
        seed: int = 0,
        make_opponent: Callable[[int, int], Player] = RandomPlayer,
    ) -> None:
        faults = []
        if num_games < 2 or num_games % 2:
            faults.append(f"num_games={num_games}: must be an even number from 2 on (both seats of each opening)")
        if opening_plies is not None and opening_plies < 0:
            faults.append(f"opening_plies={opening_plies}: must be 0 or more")
        if every_n_epochs < 0:
            faults.append(f"every_n_epochs={every_n_epochs}: must be 1 or more, or 0 for only at the end")
        if faults:
            raise ConfigError(faults)
        self.game = game
        self.num_games = num_games
        self.opening_plies = opening_plies
        self.every_n_epochs = every_n_epochs
        self.at_start = at_start
        self.seed = seed
        self.make_opponent = make_opponent
        self.last_result: MatchResult | None = None
        """The latest match, with the record of one of its games."""
        self.evaluated_step = -1
        """``trainer.global_step`` at the latest match."""

    def should_evaluate(self, trainer: Trainer) -> bool:
        """Decide, at the end of an epoch, whether to evaluate now."""
        due = self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        return due or is_last_epoch(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the weights that training starts from, if that is wanted."""
        if self.at_start and trainer.is_global_zero:
            self._log_aside(trainer, self.play(trainer, pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate if it is time."""
        if trainer.is_global_zero and self.should_evaluate(trainer):
            pl_module.log_dict(self.play(trainer, pl_module), batch_size=1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the final weights, unless that has been done (a stop that could not be foreseen)."""
        if trainer.is_global_zero and self.evaluated_step != trainer.global_step:
            self._log_aside(trainer, self.play(trainer, pl_module))

    def play(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Play one match with the module's present weights.

        A signal that asks the program to stop ends the match; training ends after this, with a checkpoint.

        Args:
            trainer: its ``fast_dev_run`` cuts the match to two games.
            pl_module: has the policy as ``actor_critic``.

        Returns:
            The metrics, by name. The match itself is kept in :attr:`last_result`.
        """
        started = time.perf_counter()
        with isolate_rng():
            try:
                with waiting():
                    result = self._play_match(trainer, pl_module)
            except Stopped as stop:
                if not deferred():
                    raise
                log.debug("the match was left in its middle: %s", stop)
                return {}
        self.last_result = result
        self.evaluated_step = trainer.global_step
        log.info("epoch %d: %s", trainer.current_epoch, result)
        return _metrics(result, seconds=time.perf_counter() - started)

    def _play_match(self, trainer: Trainer, pl_module: LightningModule) -> MatchResult:
        actor_critic: Any = pl_module.actor_critic
        with evaluation_mode(actor_critic):
            return play_match(
                self.game,
                PolicyPlayer(actor_critic, greedy=True, seed=self.seed),
                self.make_opponent(self.game(1).spec.num_actions, self.seed),
                num_games=2 if getattr(trainer, "fast_dev_run", False) else self.num_games,
                opening_plies=self.opening_plies,
                seed=self.seed,
            )

    def _log_aside(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Log where Lightning takes no ``self.log``, or would add it to the next epoch's."""
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)


def _metrics(result: MatchResult, *, seconds: float) -> dict[str, float]:
    low, high = result.interval
    values = {
        "score": result.score,
        "wins": float(result.wins),
        "draws": float(result.draws),
        "losses": float(result.losses),
        "game_length": result.mean_length,
        "seconds": seconds,
    }
    named = {f"eval/{name}_vs_{result.opponent}": value for name, value in values.items()}
    score = f"eval/score_vs_{result.opponent}"
    return {**named, f"{score}_low": low, f"{score}_high": high}


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, each submodule's own mode afterwards."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training


def is_last_epoch(trainer: Trainer) -> bool:
    """Whether the epoch that is ending is the last one, as far as can be known now."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    return (
        trainer.should_stop
        or (epochs is not None and 0 <= epochs <= trainer.current_epoch + 1)
        or 0 <= steps <= trainer.global_step
    )
