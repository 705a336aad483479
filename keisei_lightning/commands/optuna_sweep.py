"""``hparams_search=optuna``: trials that Optuna proposes, run by Hydra's launchers, kept in a study.

::

    ask --> values; the trial, in the job's environment --> launcher --> job: ScorePruning reports its scores
     ^                                                                            |
     +----- tell: complete, pruned (the job raised TrialPruned) or failed <-------+

Several commands may work on one study at the same time, on one machine or many that share the storage.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import Trial, TrialState

from keisei_lightning.commands.sweep import is_pruned
from keisei_lightning.config.quoting import override_word
from keisei_lightning.errors import ConfigError
from keisei_lightning.system.studies import open_storage

if TYPE_CHECKING:
    from hydra_plugins.keisei_optuna_sweeper import OptunaSweeper

__all__ = ["run_study", "search_space"]

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

log = logging.getLogger(__name__)


def run_study(sweeper: OptunaSweeper, arguments: Sequence[str]) -> None:
    """Run trials until the study has as many as it shall have.

    Args:
        sweeper: its options, and the launcher of the jobs.
        arguments: words of the command line.

    Raises:
        ConfigError: an option of the sweeper cannot work.
        Exception: what the first failed job raised, after all trials.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, fixed = search_space([*(f"{key}={value}" for key, value in sweeper.params.items()), *arguments])
    study = _open_study(sweeper)
    folder = Path(sweeper.folder)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(sweeper.config, folder / "multirun.yaml")
    done = _count_finished(study)
    log.info("study %s in %s: %d of %d trials are done", study.study_name, sweeper.storage, done, sweeper.n_trials)
    failures: list[JobReturn] = []
    launched, wanted = 0, sweeper.n_trials - done
    while launched < wanted and (missing := sweeper.n_trials - _count_finished(study)) > 0:
        trials = [study.ask(space) for _ in range(min(sweeper.n_jobs, missing, wanted - launched))]
        failures += _run_trials(sweeper, study, trials, fixed, first_job=launched)
        launched += len(trials)
    _report(study, folder)
    for failure in failures:
        _ = failure.return_value  # raises what the job raised


def _open_study(sweeper: OptunaSweeper) -> Study:
    try:
        storage = open_storage(sweeper.storage)
    except ConfigError as error:
        raise ConfigError([f"hydra.sweeper.{line}" for line in error.errors]) from error
    study = optuna.create_study(
        storage=storage,
        study_name=sweeper.study_name,
        direction=StudyDirection[sweeper.direction.upper()],
        load_if_exists=True,
    )
    if study.direction.name.lower() != sweeper.direction:
        raise ConfigError(
            f"hydra.sweeper.direction={sweeper.direction}: must be {study.direction.name.lower()}, as the study "
            f"{sweeper.study_name} in {sweeper.storage} has it; or choose another hydra.sweeper.study_name"
        )
    seed = sweeper.seed
    if seed is not None:  # a study that goes on must not repeat what it began with
        (seed,) = np.random.SeedSequence([seed, len(study.trials)]).generate_state(1).tolist()
    study.sampler = sweeper.make_sampler(seed=seed)
    return study


def _count_finished(study: Study) -> int:
    return len(study.get_trials(deepcopy=False, states=_FINISHED))


def _run_trials(
    sweeper: OptunaSweeper, study: Study, trials: Sequence[Trial], fixed: Sequence[str], *, first_job: int
) -> list[JobReturn]:
    """Launch a job for each trial, wait for all, and tell the study; returns those that failed."""
    batch = [[*fixed, *_values(trial), *_environment(sweeper, trial)] for trial in trials]
    try:
        sweeper.validate_batch_is_legal(batch)
        returns = sweeper.launcher.launch(batch, initial_job_idx=first_job)
    except BaseException:  # such as Ctrl-C: nobody will tell the study what became of them
        for trial in trials:
            study.tell(trial, state=TrialState.FAIL)
        raise
    return [ended for trial, ended in zip(trials, returns, strict=True) if not _tell(study, trial, ended)]


def _values(trial: Trial) -> list[str]:
    return [f"{key}={value}" for key, value in trial.params.items()]


def _environment(sweeper: OptunaSweeper, trial: Trial) -> list[str]:
    """Words that tell a job which trial it is; processes that the job starts inherit that."""
    storage = sweeper.storage if "://" in sweeper.storage else str(Path(sweeper.storage).absolute())
    variables = {"STORAGE": storage, "STUDY": sweeper.study_name, "TRIAL": str(trial.number)}
    return [override_word(f"++hydra.job.env_set.KEISEI_{name}", value) for name, value in variables.items()]


def _tell(study: Study, trial: Trial, ended: JobReturn) -> bool:
    """Tell the study how a trial's job ended; False if it failed."""
    value: Any = ended._return_value
    assert ended.hydra_cfg is not None
    trial.set_user_attr("folder", str(ended.hydra_cfg.hydra.runtime.output_dir))
    if ended.status is JobStatus.COMPLETED and isinstance(value, int | float) and not math.isnan(value):
        study.tell(trial, float(value))
        return True
    if isinstance(value, BaseException) and is_pruned(value):
        study.tell(trial, state=TrialState.PRUNED)
        return True
    reason = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else f"returned {value}"
    trial.set_user_attr("error", reason)
    study.tell(trial, state=TrialState.FAIL)
    return ended.status is JobStatus.COMPLETED  # a training without a match has no score, and has not failed


def _report(study: Study, folder: Path) -> None:
    trials = study.get_trials(deepcopy=False)
    counts = {state: sum(trial.state is state for trial in trials) for state in (*_FINISHED, TrialState.FAIL)}
    log.info("study %s: %s", study.study_name, ", ".join(f"{n} {state.name.lower()}" for state, n in counts.items()))
    if not counts[TrialState.COMPLETE]:
        return
    best = study.best_trial
    values = " ".join(f"{key}={value}" for key, value in best.params.items())
    log.info("best: trial %d, score %.4f, %s, in %s", best.number, best.value, values, best.user_attrs.get("folder"))
    result = {"name": "optuna", "best_params": best.params, "best_value": best.value}
    OmegaConf.save(OmegaConf.create(result), folder / "optimization_results.yaml")  # as Hydra's own sweepers write it


def search_space(words: Sequence[str]) -> tuple[dict[str, BaseDistribution], list[str]]:
    """What is searched, and what is the same in every trial.

    Args:
        words: in Hydra's syntax; a later one takes precedence over an earlier one of the same key.

    Returns:
        A distribution for each key that is searched, and the other words.

    Raises:
        ConfigError: a word cannot be searched over, or there is nothing to search.
    """
    space: dict[str, BaseDistribution] = {}
    fixed: dict[str, str] = {}
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = override.get_key_element()
        space.pop(key, None)
        fixed.pop(key, None)
        if override.is_sweep_override():
            space[key] = _distribution(override)
        else:
            fixed[key] = str(override.input_line)
    if not space:
        raise ConfigError("hydra.sweeper.params={}: must name what is searched, such as {seed: 'choice(1,2)'}")
    return space, list(fixed.values())


def _distribution(override: Override) -> BaseDistribution:
    value: Any = override.value()
    if isinstance(value, Glob):
        raise ConfigError(f"{override.input_line}: cannot be searched over; write choice(...)")
    try:
        if isinstance(value, IntervalSweep):
            bounds = (value.start, value.end)
            kind: Any = IntDistribution if all(isinstance(bound, int) for bound in bounds) else FloatDistribution
            distribution: BaseDistribution = kind(*bounds, log="log" in value.tags)
            return distribution
        values: Any = value.range() if isinstance(value, RangeSweep) else None
        if isinstance(values, range) and values:
            return IntDistribution(min(values), max(values), step=abs(values.step))
        return CategoricalDistribution(list(override.sweep_string_iterator()))  # as Hydra reads it again
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{override.input_line}: cannot be searched over ({error})") from error
