"""Training with Lightning: a data module that plays, a module that learns, and callbacks around them.

::

    trainer = Trainer(max_epochs=200, callbacks=[SelfPlayMetrics()])
    trainer.fit(PPOModule(actor_critic), datamodule=SelfPlayDataModule(collector))

One epoch is one PPO iteration: the collector plays a rollout, the data module computes advantages and cuts minibatches,
the module learns from them, and the callback that it brings publishes the new weights to the workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keisei_lightning.system.lazy import lazy_names

if TYPE_CHECKING:
    from keisei_lightning.training.averaging import PolicyAverage
    from keisei_lightning.training.best_checkpoint import BestCheckpoint
    from keisei_lightning.training.calibration import CalibrationCallback
    from keisei_lightning.training.checkpoint import AtomicCheckpointIO
    from keisei_lightning.training.checkpoint_header import (
        CheckpointHeader,
        check_checkpoint,
        newest_whole_checkpoint,
        read_checkpoint_header,
    )
    from keisei_lightning.training.datamodule import SelfPlayDataModule
    from keisei_lightning.training.early_stopping import ScoreEarlyStopping
    from keisei_lightning.training.evaluation import EvaluationCallback
    from keisei_lightning.training.experiment_log import ExperimentLog
    from keisei_lightning.training.integrity import remove_stale_temporaries
    from keisei_lightning.training.league import LeagueCallback, make_league
    from keisei_lightning.training.live_state import LiveStateCallback
    from keisei_lightning.training.metrics import SelfPlayMetrics
    from keisei_lightning.training.module import PPOModule
    from keisei_lightning.training.options import EvaluationOptions, MinibatchOptions, PPOOptions, SearchTargetOptions
    from keisei_lightning.training.orderly_stop import FinalCheckpoint, OrderlyStop
    from keisei_lightning.training.progress import TrainingProgress
    from keisei_lightning.training.pruning import ScorePruning
    from keisei_lightning.training.report import CurvesCallback, plot_curves, write_last_game
    from keisei_lightning.training.search_targets import SearchTargets
    from keisei_lightning.training.snapshots import SnapshotCallback
    from keisei_lightning.training.source import RolloutSource
    from keisei_lightning.training.timeline import TimelineCallback
    from keisei_lightning.training.weight_sync import WeightSyncCallback

__all__ = [
    "AtomicCheckpointIO",
    "BestCheckpoint",
    "CalibrationCallback",
    "CheckpointHeader",
    "CurvesCallback",
    "EvaluationCallback",
    "EvaluationOptions",
    "ExperimentLog",
    "FinalCheckpoint",
    "LeagueCallback",
    "LiveStateCallback",
    "MinibatchOptions",
    "OrderlyStop",
    "PPOModule",
    "PPOOptions",
    "PolicyAverage",
    "RolloutSource",
    "ScoreEarlyStopping",
    "ScorePruning",
    "SearchTargetOptions",
    "SearchTargets",
    "SelfPlayDataModule",
    "SelfPlayMetrics",
    "SnapshotCallback",
    "TimelineCallback",
    "TrainingProgress",
    "WeightSyncCallback",
    "check_checkpoint",
    "make_league",
    "newest_whole_checkpoint",
    "plot_curves",
    "read_checkpoint_header",
    "remove_stale_temporaries",
    "write_last_game",
]

_MODULE_OF = {
    "AtomicCheckpointIO": "checkpoint",
    "BestCheckpoint": "best_checkpoint",
    "CalibrationCallback": "calibration",
    "CheckpointHeader": "checkpoint_header",
    "CurvesCallback": "report",
    "EvaluationCallback": "evaluation",
    "EvaluationOptions": "options",
    "ExperimentLog": "experiment_log",
    "FinalCheckpoint": "orderly_stop",
    "LeagueCallback": "league",
    "LiveStateCallback": "live_state",
    "MinibatchOptions": "options",
    "OrderlyStop": "orderly_stop",
    "PPOModule": "module",
    "PPOOptions": "options",
    "PolicyAverage": "averaging",
    "RolloutSource": "source",
    "ScoreEarlyStopping": "early_stopping",
    "ScorePruning": "pruning",
    "SearchTargetOptions": "options",
    "SearchTargets": "search_targets",
    "SelfPlayDataModule": "datamodule",
    "SelfPlayMetrics": "metrics",
    "SnapshotCallback": "snapshots",
    "TimelineCallback": "timeline",
    "TrainingProgress": "progress",
    "WeightSyncCallback": "weight_sync",
    "check_checkpoint": "checkpoint_header",
    "make_league": "league",
    "newest_whole_checkpoint": "checkpoint_header",
    "plot_curves": "report",
    "read_checkpoint_header": "checkpoint_header",
    "remove_stale_temporaries": "integrity",
    "write_last_game": "report",
}

# Lazy: whether there is a checkpoint, and whether it is whole, is checked without torch (``integrity.py``).
__getattr__ = lazy_names(__name__, _MODULE_OF, globals())
