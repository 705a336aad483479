"""The data module: owns the collector, turns each rollout into one Lightning epoch.

::

    collector --rollout [G, T]--> advantages, once --> num_epochs shuffled passes --minibatch [b]--> PPOModule

One Lightning epoch is one PPO iteration. The rollout of an epoch is asked for with its first minibatch, never earlier,
so whatever was published at the end of the epoch before has been played with (``schedule="sync"``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameFactory, game_factory
from keisei_lightning.models import ActorCritic, evaluation_mode
from keisei_lightning.models.transfers import plies_to_device
from keisei_lightning.parallel import OpponentOptions, SelfPlayCollector
from keisei_lightning.system.options import with_keywords
from keisei_lightning.system.stopping import interruptible
from keisei_lightning.training.collection import SharedCollection
from keisei_lightning.training.finished_games import FinishedGames
from keisei_lightning.training.iteration import Iteration
from keisei_lightning.training.loader import MinibatchLoader
from keisei_lightning.training.minibatches import add_advantages_of_all, add_outcomes, decouple, largest_advantages
from keisei_lightning.training.module import PPOModule
from keisei_lightning.training.options import MinibatchOptions
from keisei_lightning.training.ranks import ALONE, Ranks, ranks_of
from keisei_lightning.training.search_targets import SearchTargets
from keisei_lightning.training.source import RolloutSource, actor_critic_of, check_same_policy, learned_policy
from keisei_lightning.training.weight_sync import PublishingWatch

__all__ = ["SelfPlayDataModule"]

_TIMEOUT_AFTER_ERROR_S = 2.0
"""Seconds that workers have to stop before they are killed, when their rollouts are not needed."""


class SelfPlayDataModule(LightningDataModule):
    """Self-play as a Lightning data module.

    Given a game, it makes the collector when a fit begins, for the policy (``actor_critic``) of the fit's module; every
    argument is then plain data, which LightningCLI and configuration files can give::

        data = SelfPlayDataModule(game="connect_four", collector_options={"num_workers": 4}, minibatch_size=512)

    Or give it a collector that you made for that policy.

    Either way the data module starts and stops the workers: they start with the first batch, after a checkpoint has
    been restored, and stop in :meth:`teardown` or, on errors and signals, in :meth:`on_exception` (the only hook that
    Lightning calls then). The next fit reopens the collector, which keeps its counters, version and snapshots, and in
    mode "serial" the games. Between fits a collector of yours is shut down; ``collector.reopen()`` lets you use it.

    A checkpoint that is written in the middle of an iteration holds its rollout: the run that resumes from it learns
    from the remaining minibatches, and nothing is played, learned from or counted twice. They keep the advantages and
    the size that they had, whatever is configured now; no more are taken than an iteration has now.

    With several learners (ranks) under DDP, each has a data module with a collector of its own, which plays its part of
    the workers. All take equally many minibatches, each of ``minibatch_size`` plies of its own, as Lightning's batch
    sizes are, and advantages are normalised over all. What one rank's collector raises, every rank hears of before the
    next step, so that none waits for one that has failed. A checkpoint has the counts and games of all ranks, and the
    rollouts of an interrupted iteration: any number of ranks can resume from it.

    ``overfit_batches`` repeats the first minibatches of the first rollout; ``limit_train_batches`` and ``fast_dev_run``
    leave the rest of a rollout unused.

    Args:
        collector: yields the rollouts; None: it is made from ``game``.
        options: discounting, passes and minibatches; None: their defaults.
        game: name of a game, or what makes its boards; None: the collector's.
        game_options: keyword arguments of :func:`~keisei_lightning.games.game_factory` for a game's name.
        collector_options: keyword arguments of :class:`~keisei_lightning.parallel.SelfPlayCollector` for ``game``, such
            as ``num_workers``; ``opponents`` may be a dictionary of ``OpponentOptions``.
        search_targets: also gives the module positions that it searches; None, or not enabled: there are none.
        seed: of the shuffling, and of the collector that is made.
        **keywords: single options by name, such as ``gamma=0.99``; they take precedence over ``options``. The passes
            are ``num_epochs`` here, since a Trainer has epochs too, and ``epochs`` in ``options``.

    Raises:
        ConfigError: an option is out of its bounds; there is no such game; or not exactly one of ``collector`` and
            ``game`` is given.
        TypeError: a keyword is no option.
    """

    def __init__(
        self,
        collector: RolloutSource | None = None,
        options: MinibatchOptions | None = None,
        *,
        game: str | GameFactory | None = None,
        game_options: dict[str, Any] | None = None,
        collector_options: dict[str, Any] | None = None,
        search_targets: SearchTargets | None = None,
        seed: int = 0,
        **keywords: Any,
    ) -> None:
        super().__init__()
        errors = [] if seed >= 0 else [f"seed={seed}: must be 0 or more"]
        if (collector is None) == (game is None):
            errors.append(f"game={game}: must be given without a collector, or a collector without it")
        if game_options and not isinstance(game, str):
            errors.append(f"game_options={game_options}: must be given with a game's name only")
        if collector_options and collector is not None:
            errors.append(f"collector_options={collector_options}: must be given without a collector only")
        if "num_epochs" in keywords:
            keywords["epochs"] = keywords.pop("num_epochs")
        self.options: MinibatchOptions
        try:
            (self.options,) = with_keywords(type(self).__name__, options or MinibatchOptions(), keywords=keywords)
        except ConfigError as error:
            raise ConfigError([*error.errors, *errors]) from None
        if errors := [*_minibatch_errors(self.options.minibatch_size, collector), *errors]:
            raise ConfigError(errors)
        self._collector = collector
        self._game = game_factory(game, **(game_options or {})) if isinstance(game, str) else game
        self._collector_options = dict(collector_options or {})
        self.seed = seed
        recorded = {"num_epochs" if name == "epochs" else name: value for name, value in asdict(self.options).items()}
        self.search_targets = search_targets if search_targets is not None and search_targets.options.enabled else None
        if self.search_targets is not None:
            recorded |= {f"search_{name}": value for name, value in asdict(self.search_targets.options).items()}
        # For loggers, in a section: a module's hyperparameters may have the same names.
        self.save_hyperparameters({"data": {**recorded, "seed": seed}})
        self.iteration = 0
        """PPO iterations begun, over all runs that this one resumes."""
        self.finished_games = FinishedGames()  # values and results of plies
        self._rollouts: Iterator[TensorDictBase] | None = None
        self._current: Iteration | None = None
        self._left_over: Iteration | None = None
        self._state_before: dict[str, Any] | None = None
        self._state_at_end: dict[str, Any] | None = None
        self._watch: PublishingWatch | None = None
        self._loader = MinibatchLoader(self)
        self._ranks: Ranks = ALONE

    @property
    def collector(self) -> RolloutSource:
        """The collector.

        Raises:
            AttributeError: it is made from ``game``, and no fit has begun.
        """
        if self._collector is None:
            raise AttributeError("collector: is made when a fit begins, around the policy of its module")
        return self._collector

    @property
    def num_epochs(self) -> int:
        """Shuffled passes over a rollout."""
        return self.options.epochs

    @property
    def num_minibatches(self) -> int:
        """Minibatches in one pass over a rollout."""
        return math.ceil(self.options.learned(self.collector.frames_per_batch) / self.options.minibatch_size)

    def setup(self, stage: str | None = None) -> None:
        """Make the collector, or reopen it after a fit; nothing is started.

        Raises:
            ConfigError: the strategy is not one for several learners; their collectors are not of one size; the
                collector's policy is not the one that the module learns; the searches' game is not the collector's; or
                an option of the collector is out of its bounds.
        """
        self._ranks = ranks_of(self.trainer)
        if stage not in (None, "fit"):
            return
        if self._game is not None:
            self._make_collector(self._game)
        if self.search_targets is not None:
            self.search_targets.check(self.collector.spec)
        interrupted, self._state_before, self._state_at_end = self._state_before, None, None
        self.collector.reopen()
        self._shared.begin()
        if interrupted is not None:  # in the middle of a rollout, which is played again
            self.collector.load_state_dict(interrupted)
        if self.trainer is not None:
            check_same_policy(self.collector, self.trainer.lightning_module)
            self._watch = PublishingWatch(self.trainer, self.collector)

    def _make_collector(self, game: GameFactory) -> None:
        """Make the collector for this fit's module; a module that was fitted before keeps its collector."""
        module = None if self.trainer is None else self.trainer.lightning_module
        policy = actor_critic_of(module, wanted_by=type(self).__name__)
        if self._collector is not None and learned_policy(self._collector) is policy:
            return
        options = {"zero_copy": True, "seed": self.seed} | self._collector_options
        if isinstance(options.get("opponents"), dict):
            options["opponents"] = OpponentOptions(**options["opponents"])
        try:
            collector = SelfPlayCollector(game, policy, **options)
        except TypeError as error:  # a misspelt name
            raise ConfigError(f"collector_options: {error}") from error
        if errors := _minibatch_errors(self.options.minibatch_size, collector):
            raise ConfigError(errors)
        self._collector, self.iteration = collector, 0

    def train_dataloader(self) -> MinibatchLoader:
        """The loader of minibatches, always the same object, so that reloading restarts no worker."""
        return self._loader

    def next_rollout(self) -> TensorDictBase | None:
        """The next rollout [G, T]; starts the workers if necessary. None when the collector has delivered its last one.

        The rollout is a view: it is valid until the next call.
        """
        rollouts = self._begin()
        if self._watch is not None:
            self._watch.check()
        # A signal may end the wait anywhere in the collector: a checkpoint then has the state before it.
        self._state_before = self.collector.state_dict()
        rollout: TensorDictBase | None = None

        def play() -> Mapping[int, Sequence[int]] | None:
            nonlocal rollout
            with interruptible():  # collect() tells the others
                rollout = next(rollouts, None)
            return None if rollout is None else self._shared.take_results()

        results = self._ranks.collect("collecting a batch", play)
        self._state_before = None
        if any(result is None for result in results):  # of one rank: the others have had their last one too
            rollout = None
        self._shared.add_results([result or {} for result in results])
        if rollout is not None:
            self.finished_games.add(rollout)
            self.iteration += 1
        elif self.trainer is not None:
            self.trainer.should_stop = True
        return rollout

    @property
    def _shared(self) -> SharedCollection:
        return SharedCollection(self._ranks, self.collector)

    def _start(self) -> None:
        with interruptible():
            self.collector.start()

    def _begin(self) -> Iterator[TensorDictBase]:
        """The iterator over rollouts of this fit."""
        if self._rollouts is None:
            self._rollouts = iter(self.collector)
        return self._rollouts

    def iteration_minibatches(self) -> Iterator[TensorDict]:
        """The minibatches of one PPO iteration; its rollout is collected with the first of them.

        After resuming in the middle of an iteration: the rest of its minibatches.
        """
        current, self._left_over = self._left_over, None
        device = self._device()
        if current is not None:
            self._begin()
            # So that the version counts up when this iteration ends.
            self._ranks.collect("starting the workers", self._start)
            current.plies = plies_to_device(current.plies, device)
        else:
            rollout = self.next_rollout()
            if rollout is None:
                return
            current = self._iteration_of(rollout, device)
            if self.search_targets is not None and self.trainer is not None:
                plies = self.collector.frames_per_batch
                self.search_targets.begin_iteration(self.trainer, self._ranks, iteration=self.iteration, plies=plies)
        self._current = current
        minibatches = current.minibatches(seed=self.seed, number=self.iteration)
        if self.search_targets is not None:
            place = {"iteration": self.iteration, "taken": current.taken, "rank": self._ranks.rank}
            minibatches = self.search_targets.join(minibatches, device, **place)
        try:
            yield from minibatches
        finally:
            self._current = None

    def _iteration_of(self, rollout: TensorDictBase, device: torch.device) -> Iteration:
        """The iteration that learns from a rollout [G, T]."""
        ranks, options = self._ranks, self.options
        plies, trainable, counts = add_advantages_of_all(
            rollout, ranks, gamma=options.gamma, lmbda=options.lmbda, normalize=options.normalize_advantage
        )
        trainable = largest_advantages(plies, trainable, options.learned(len(trainable)))
        plies = self._add_outcomes(plies_to_device(plies, device), rollout)
        if options.decoupled:
            plies = self._decouple(plies, trainable)
        return Iteration(
            plies,
            trainable,
            self.num_epochs,
            self.num_minibatches,
            counts=[options.learned(count) for count in counts],
            rank=ranks.rank,
            num_ranks=ranks.size,
        )

    def _device(self) -> torch.device:
        """Device of the network that learns; the CPU before there is one."""
        module = None if self.trainer is None else self.trainer.lightning_module
        return torch.device("cpu") if module is None else module.device

    def _add_outcomes(self, plies: TensorDict, rollout: TensorDictBase) -> TensorDict:
        """Add targets for a win-draw-loss head, if the network that learns has one."""
        trainer = self.trainer
        policy = None if trainer is None else getattr(trainer.lightning_module, "actor_critic", None)
        if trainer is None or not isinstance(policy, ActorCritic) or not policy.predicts_outcomes:
            return plies
        with trainer.precision_plugin.train_step_context(), evaluation_mode(policy):
            return add_outcomes(
                plies,
                rollout,
                policy.evaluate_outcomes,
                gamma=self.options.gamma,
                lmbda=self.options.lmbda,
                num_minibatches=self.num_minibatches,
            )

    def _decouple(self, plies: TensorDict, trainable: Tensor) -> TensorDict:
        trainer = self.trainer
        module = None if trainer is None else trainer.lightning_module
        actor_critic = actor_critic_of(module, wanted_by="decoupled=True")
        assert trainer is not None  # without one there is no module
        evaluate = module if isinstance(module, PPOModule) else actor_critic
        with trainer.precision_plugin.train_step_context():  # a loader's work is done outside of it
            return decouple(plies, trainable, evaluate, num_minibatches=self.num_minibatches)

    def state_dict(self) -> dict[str, Any]:
        """The position in the run, with the collector's own state: primitives and tensors."""
        if self._collector is None:
            return {}  # no fit has begun
        collector = self._state_at_end or self._state_before or self.collector.state_dict()
        rollout = self._current.state() if self._current is not None and self._in_an_iteration() else None
        states = self._shared.joined(collector, rollout)
        state = {"iteration": self.iteration, "collector": states[0], "rollout": states[1]}
        if self.search_targets is not None:
            state["search_targets"] = self._ranks.collect_at_first(self.search_targets.state_dict())
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a :meth:`state_dict`.

        Workers that play are stopped, and others start from there (``LearningRateFinder`` does this).
        """
        if not state_dict:
            return
        self.close()
        self.collector.reopen()
        self.iteration = int(state_dict["iteration"])
        shared, rollout = self._shared, state_dict.get("rollout")
        numbers = {"num_epochs": self.num_epochs, "num_minibatches": self.num_minibatches}
        self._left_over = None if rollout is None else shared.own_iteration(rollout, **numbers)
        self.collector.load_state_dict(dict(shared.own(state_dict["collector"])))
        if self.search_targets is not None:
            searched = dict(enumerate(state_dict.get("search_targets", ())))  # by rank
            self.search_targets.load_state_dict(searched.get(self._ranks.rank, {}))

    def _in_an_iteration(self) -> bool:
        """Whether Lightning, if it resumed from here, would ask for the rest of this iteration's minibatches."""
        trainer = self.trainer
        if trainer is None or trainer.is_last_batch or trainer.overfit_batches > 0:  # type: ignore[attr-defined]
            return False
        epochs: Any = trainer.fit_loop.epoch_progress.current
        return bool(epochs.started > epochs.processed)

    def teardown(self, stage: str | None = None) -> None:
        """Stop the workers at the end of a fit (but not at the end of a validation within it)."""
        if stage in (None, "fit"):
            if self._collector is not None and self._state_at_end is None:  # for a checkpoint that is saved later
                self._state_at_end = self.collector.state_dict()
            self.close()

    def on_exception(self, exception: BaseException) -> None:
        """Stop the workers on an error, on SIGTERM and on Ctrl-C."""
        self.close(timeout=_TIMEOUT_AFTER_ERROR_S)

    def close(self, timeout: float | None = None) -> None:
        """Stop the workers; may be called again.

        Args:
            timeout: seconds before workers are killed; None: the collector's own.
        """
        self._rollouts = None
        self._loader.release()
        if self._collector is not None:
            self._collector.shutdown(timeout)


def _minibatch_errors(size: int, collector: RolloutSource | None) -> list[str]:
    """Whether a rollout has so many plies."""
    plies = size if collector is None else collector.frames_per_batch
    return [] if size <= plies else [f"minibatch_size={size}: must be from 1 to {plies}, the plies of one rollout"]
