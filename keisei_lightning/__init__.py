"""Parallel self-play training for PyTorch Lightning and TorchRL; flagship game: shogi.

::

     game --(1)--> worker --(2)--> slot --(3)--> collector --(4)--> data module --(5)--> PPO module
       ^              ^                                                                     |
       +--- moves ----+------------------------- (6) published weights <--- callback <------+

=================== ========================= ================================= ====================================
loop                consumes                  waits for                         is unblocked by
=================== ========================= ================================= ====================================
worker              moves of its own games    a granted slot                    the collector, when a batch is done
collector           rollouts in slots         a header on any pipe, or a death  a worker's header, a process sentinel
data module         one batch an epoch        the collector                     a complete batch
PPO module          minibatches               the data module                   the next minibatch
callback            optimiser steps           nothing: publishing never waits   -
=================== ========================= ================================= ====================================

Names are imported when they are first used: ``import keisei_lightning`` is quick and starts nothing.

There are three ways in: the parts in a Trainer of one's own (:class:`PPOModule`, :class:`SelfPlayDataModule`); the
collector alone (:class:`SelfPlayCollector`); and whole runs by configuration, in a Hydra application of one's own
(``hydra.searchpath: [pkg://keisei_lightning.conf]``): :func:`run` trains, :func:`build` makes the parts of a run,
:func:`validate` says what is wrong with it, :func:`load_policy` reads what came of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keisei_lightning.system.lazy import lazy_names

if TYPE_CHECKING:
    from keisei_lightning.app import Run, build, run
    from keisei_lightning.config.validation import ValidatedConfig, validate
    from keisei_lightning.envs import BoardGameEnv
    from keisei_lightning.errors import (
        CollectorClosedError,
        ConfigError,
        EngineError,
        GameError,
        IllegalActionError,
        KeiseiError,
        QuarantineError,
        RankError,
        RolloutError,
        StalePolicyError,
        TooFewWorkersError,
        UnsupportedGameError,
        WeightsError,
        WorkerBootError,
        WorkerCrashLoopError,
        WorkerError,
    )
    from keisei_lightning.evaluation import (
        MatchResult,
        Player,
        PolicyPlayer,
        RandomPlayer,
        SearchPlayer,
        Turn,
        make_player,
        play_match,
        register_player,
    )
    from keisei_lightning.export import OnnxPolicy, export_policy, load_onnx
    from keisei_lightning.games import (
        NO_MOVE,
        ClickableGame,
        CopyableGame,
        DescribedGame,
        Game,
        GameFactory,
        GameSpec,
        OpeningGame,
        RecordedGame,
        ResumableGame,
        SolvingGame,
        StepResult,
        Symmetry,
        check_game,
        game_factory,
        game_names,
        make_game,
        register_game,
    )
    from keisei_lightning.models import ActorCritic, LegalCategorical, build_network
    from keisei_lightning.parallel import (
        BatchOptions,
        CollectorOptions,
        League,
        OpponentOptions,
        PlayerMember,
        PolicyMember,
        SelfPlayCollector,
        SupervisionOptions,
        WorkerOptions,
    )
    from keisei_lightning.policies import LoadedPolicy, load_policy
    from keisei_lightning.published import published_card, published_names
    from keisei_lightning.rl import two_player_gae
    from keisei_lightning.system.allocator import keep_freed_memory
    from keisei_lightning.system.openmp import limit_spinning
    from keisei_lightning.system.stopping import Stopped
    from keisei_lightning.training import (
        AtomicCheckpointIO,
        CalibrationCallback,
        CurvesCallback,
        EvaluationCallback,
        EvaluationOptions,
        LeagueCallback,
        LiveStateCallback,
        MinibatchOptions,
        PolicyAverage,
        PPOModule,
        PPOOptions,
        SelfPlayDataModule,
        SelfPlayMetrics,
        SnapshotCallback,
        TimelineCallback,
        TrainingProgress,
        WeightSyncCallback,
        make_league,
    )

__version__ = "0.1.0"  # the one place: the metadata of wheels and installations is made from it

__all__ = [
    "NO_MOVE",
    "ActorCritic",
    "AtomicCheckpointIO",
    "BatchOptions",
    "BoardGameEnv",
    "CalibrationCallback",
    "ClickableGame",
    "CollectorClosedError",
    "CollectorOptions",
    "ConfigError",
    "CopyableGame",
    "CurvesCallback",
    "DescribedGame",
    "EngineError",
    "EvaluationCallback",
    "EvaluationOptions",
    "Game",
    "GameError",
    "GameFactory",
    "GameSpec",
    "IllegalActionError",
    "KeiseiError",
    "League",
    "LeagueCallback",
    "LegalCategorical",
    "LiveStateCallback",
    "LoadedPolicy",
    "MatchResult",
    "MinibatchOptions",
    "OnnxPolicy",
    "OpeningGame",
    "OpponentOptions",
    "PPOModule",
    "PPOOptions",
    "Player",
    "PlayerMember",
    "PolicyAverage",
    "PolicyMember",
    "PolicyPlayer",
    "QuarantineError",
    "RandomPlayer",
    "RankError",
    "RecordedGame",
    "ResumableGame",
    "RolloutError",
    "Run",
    "SearchPlayer",
    "SelfPlayCollector",
    "SelfPlayDataModule",
    "SelfPlayMetrics",
    "SnapshotCallback",
    "SolvingGame",
    "StalePolicyError",
    "StepResult",
    "Stopped",
    "SupervisionOptions",
    "Symmetry",
    "TimelineCallback",
    "TooFewWorkersError",
    "TrainingProgress",
    "Turn",
    "UnsupportedGameError",
    "ValidatedConfig",
    "WeightSyncCallback",
    "WeightsError",
    "WorkerBootError",
    "WorkerCrashLoopError",
    "WorkerError",
    "WorkerOptions",
    "build",
    "build_network",
    "check_game",
    "export_policy",
    "game_factory",
    "game_names",
    "keep_freed_memory",
    "limit_spinning",
    "load_onnx",
    "load_policy",
    "make_game",
    "make_league",
    "make_player",
    "play_match",
    "published_card",
    "published_names",
    "register_game",
    "register_player",
    "run",
    "two_player_gae",
    "validate",
]

_EXPORTS: dict[str, tuple[str, ...]] = {
    "system.allocator": ("keep_freed_memory",),
    "app": ("Run", "build", "run"),
    "envs": ("BoardGameEnv",),
    "errors": (
        "CollectorClosedError",
        "ConfigError",
        "EngineError",
        "GameError",
        "IllegalActionError",
        "KeiseiError",
        "QuarantineError",
        "RankError",
        "RolloutError",
        "StalePolicyError",
        "TooFewWorkersError",
        "UnsupportedGameError",
        "WeightsError",
        "WorkerBootError",
        "WorkerCrashLoopError",
        "WorkerError",
    ),
    "export": ("OnnxPolicy", "export_policy", "load_onnx"),
    "policies": ("LoadedPolicy", "load_policy"),
    "published": ("published_card", "published_names"),
    "evaluation": (
        "MatchResult",
        "Player",
        "PolicyPlayer",
        "RandomPlayer",
        "SearchPlayer",
        "Turn",
        "make_player",
        "play_match",
        "register_player",
    ),
    "games": (
        "NO_MOVE",
        "ClickableGame",
        "CopyableGame",
        "DescribedGame",
        "Game",
        "GameFactory",
        "GameSpec",
        "OpeningGame",
        "RecordedGame",
        "ResumableGame",
        "SolvingGame",
        "StepResult",
        "Symmetry",
        "check_game",
        "game_factory",
        "game_names",
        "make_game",
        "register_game",
    ),
    "models": ("ActorCritic", "LegalCategorical", "build_network"),
    "system.openmp": ("limit_spinning",),
    "parallel": (
        "BatchOptions",
        "CollectorOptions",
        "League",
        "OpponentOptions",
        "PlayerMember",
        "PolicyMember",
        "SelfPlayCollector",
        "SupervisionOptions",
        "WorkerOptions",
    ),
    "rl": ("two_player_gae",),
    "system.stopping": ("Stopped",),
    "training": (
        "AtomicCheckpointIO",
        "CalibrationCallback",
        "CurvesCallback",
        "EvaluationCallback",
        "EvaluationOptions",
        "LeagueCallback",
        "LiveStateCallback",
        "MinibatchOptions",
        "PPOModule",
        "PPOOptions",
        "PolicyAverage",
        "SelfPlayDataModule",
        "SelfPlayMetrics",
        "SnapshotCallback",
        "TimelineCallback",
        "TrainingProgress",
        "WeightSyncCallback",
        "make_league",
    ),
    "config.validation": ("ValidatedConfig", "validate"),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}


__getattr__ = lazy_names(__name__, _MODULE_OF, globals())


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return sorted({*globals(), *__all__})
