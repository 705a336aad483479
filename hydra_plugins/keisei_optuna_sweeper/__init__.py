"""Hydra finds its plugins in this package; what the sweeper does is in ``keisei_lightning.commands.optuna_sweep``.

Every Hydra application of an environment imports its plugins: nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

__all__ = ["OptunaSweeper"]


class OptunaSweeper(Sweeper):
    """Trials that Optuna proposes, of a study that is kept: run again, it goes on.

    Args:
        storage: of the study, as :func:`keisei_lightning.system.studies.open_storage` takes it.
        study_name: of the study in that storage.
        direction: whether more is better (``maximize``) or less (``minimize``).
        n_trials: when to stop: trials of the study that are complete or pruned, those of earlier commands included.
        n_jobs: trials that are launched together.
        seed: of the sampler's random choices; None: another one each time.
        sampler: makes one of Optuna's samplers, given ``seed``.
        params: what is searched, in Hydra's syntax for sweeps: keys and ``choice(...)``, ``interval(...)`` or
            ``range(...)``; the command line's words take precedence.
    """

    def __init__(
        self,
        *,
        storage: str,
        study_name: str,
        direction: str,
        n_trials: int,
        n_jobs: int,
        seed: int | None,
        sampler: Callable[..., Any],
        params: Mapping[str, str] | None = None,
    ) -> None:
        self.storage, self.study_name, self.direction = storage, study_name, direction
        self.n_trials, self.n_jobs, self.seed = n_trials, n_jobs, seed
        self.make_sampler = sampler
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher."""
        self.hydra_context, self.config = hydra_context, config
        self.folder = str(config.hydra.sweep.dir)
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that the study lacks."""
        from keisei_lightning.commands.optuna_sweep import run_study

        run_study(self, arguments)
