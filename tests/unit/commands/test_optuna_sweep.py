"""The trials of a study: what is proposed, what the study is told, and how it goes on. The launcher is a fake one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from keisei_lightning.errors import ConfigError

optuna = pytest.importorskip("optuna", reason="the extra 'sweep' is not installed")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from hydra_plugins.keisei_optuna_sweeper import OptunaSweeper  # noqa: E402
from keisei_lightning.commands.optuna_sweep import search_space  # noqa: E402
from keisei_lightning.system.studies import open_storage  # noqa: E402

Job = Callable[[dict[str, str]], Any]


class FakeLauncher:
    """Runs a function of the overrides, and remembers them."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.batches: list[list[dict[str, str]]] = []
        self.first_jobs: list[int] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        parse = OverridesParser.create().parse_overrides
        batch = [{word.key_or_group: str(word.value()) for word in parse(list(words))} for words in job_overrides]
        self.batches.append(batch)
        self.first_jobs.append(initial_job_idx)
        return [self._run(values) for values in batch]

    def _run(self, values: dict[str, str]) -> JobReturn:
        folder = OmegaConf.create(
            {"hydra": {"runtime": {"output_dir": f"job_{values['hydra.job.env_set.KEISEI_TRIAL']}"}}}
        )
        try:
            value, status = self.job(values), JobStatus.COMPLETED
        except Exception as error:  # noqa: BLE001 - as Hydra does
            value, status = error, JobStatus.FAILED
        return JobReturn(_return_value=value, status=status, hydra_cfg=folder)

    @property
    def jobs(self) -> list[dict[str, str]]:
        return [job for batch in self.batches for job in batch]


class Sweeper(OptunaSweeper):
    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """There is no configuration to compose."""


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return str(tmp_path / "studies" / "study.journal")


def sweep(job: Job, storage: str, *words: str, n_trials: int = 4, **options: Any) -> FakeLauncher:
    """Run the sweeper once, as one command does."""
    launcher = FakeLauncher(job)
    defaults = {"direction": "maximize", "n_jobs": 1, "seed": 1, "params": {"x": "interval(0.0,1.0)"}}
    sweeper = Sweeper(
        storage=storage,
        study_name="test",
        n_trials=n_trials,
        sampler=functools.partial(optuna.samplers.TPESampler),
        **defaults | options,
    )
    sweeper.config = OmegaConf.create({})
    sweeper.folder = str(Path(storage).parent / "sweep")
    sweeper.launcher = launcher  # type: ignore[assignment]
    sweeper.sweep(list(words))
    return launcher


def trials(storage: str) -> list[Any]:
    study: Any = optuna.load_study(study_name="test", storage=open_storage(storage))
    return study.get_trials()


def x_of(values: dict[str, str]) -> float:
    return float(values["x"])


def test_each_word_of_hydras_syntax_becomes_the_distribution_that_it_means() -> None:
    space, fixed = search_space(
        [
            *(
                "a=choice(256,true,text)",
                "b=interval(0.5,2)",
                "c=tag(log,int(interval(1,64)))",
                "d=range(2,11,3)",
                "e=1,2",
            ),
            *("e=1,2", "f=7", "a.b=text", "+g=1e-3"),
        ]
    )
    assert space == {
        "a": CategoricalDistribution(["256", "True", "text"]),
        "b": FloatDistribution(0.5, 2.0),
        "c": IntDistribution(1, 64, log=True),
        "d": IntDistribution(2, 8, step=3),
        "e": CategoricalDistribution(["1", "2"]),
    }
    assert fixed == ["f=7", "a.b=text", "+g=1e-3"]


def test_a_word_of_the_command_line_takes_the_place_of_one_of_the_file() -> None:
    space, fixed = search_space(["a=choice(1,2)", "b=interval(0,1)", "a=3", "b=choice(5,6)"])
    assert (list(space), fixed) == (["b"], ["a=3"])
    assert space["b"] == CategoricalDistribution(["5", "6"])


def test_nothing_to_search_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.params=\{\}: must name what is searched"):
        search_space(["a=3"])


def test_an_interval_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a=interval\(2,1\): cannot be searched over"):
        search_space(["a=interval(2,1)"])


def test_a_pattern_of_names_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model=glob\(\*\): cannot be searched over; write choice\(\.\.\.\)$"):
        search_space(["model=glob(*)"])


@pytest.mark.parametrize(
    "storage", ["sqlite:////nosuch/folder/study.db", "nosuch://host/study", "/dev/null/study.journal"]
)
def test_a_storage_that_cannot_be_opened_is_one_line(storage: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"^hydra\.sweeper\.storage={storage}: must be a file or a database that can be opened \([^\n]+\)$",
    ):
        sweep(x_of, storage)


def test_a_study_keeps_values_scores_and_folders(storage: str) -> None:
    launcher = sweep(x_of, storage, "y=5")
    assert [trial.state for trial in trials(storage)] == [TrialState.COMPLETE] * 4
    assert [trial.value for trial in trials(storage)] == [x_of(job) for job in launcher.jobs]
    assert [trial.user_attrs["folder"] for trial in trials(storage)] == ["job_0", "job_1", "job_2", "job_3"]
    assert {job["y"] for job in launcher.jobs} == {"5"}
    best = max(launcher.jobs, key=x_of)
    result = OmegaConf.load(Path(storage).parent / "sweep" / "optimization_results.yaml")
    assert result == {"name": "optuna", "best_params": {"x": x_of(best)}, "best_value": x_of(best)}


def test_a_job_is_told_its_trial_by_its_environment(storage: str) -> None:
    launcher = sweep(x_of, storage, n_trials=2)
    prefix = "hydra.job.env_set.KEISEI_"
    for number, job in enumerate(launcher.jobs):
        assert (job[f"{prefix}STORAGE"], job[f"{prefix}STUDY"], job[f"{prefix}TRIAL"]) == (storage, "test", f"{number}")


def test_a_job_in_another_folder_finds_the_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (job,) = sweep(x_of, "study.journal", n_trials=1).jobs
    assert job["hydra.job.env_set.KEISEI_STORAGE"] == str(tmp_path / "study.journal")


def test_a_study_goes_on_where_it_stopped_and_repeats_nothing(storage: str) -> None:
    first = sweep(x_of, storage, n_trials=3)
    kept = trials(storage)
    second = sweep(x_of, storage, n_trials=5)
    assert (len(first.jobs), len(second.jobs)) == (3, 2)
    assert trials(storage)[:3] == kept
    assert len({job["x"] for job in [*first.jobs, *second.jobs]}) == 5
    assert sweep(x_of, storage, n_trials=5).jobs == []


def test_the_same_seed_proposes_the_same_values_to_a_new_study(storage: str, tmp_path: Path) -> None:
    proposed = [[job["x"] for job in sweep(x_of, file).jobs] for file in (storage, str(tmp_path / "other.journal"))]
    assert proposed[0] == proposed[1]


def test_trials_are_launched_in_batches_with_numbers_that_go_on(storage: str) -> None:
    launcher = sweep(x_of, storage, n_trials=5, n_jobs=2)
    assert [len(batch) for batch in launcher.batches] == [2, 2, 1]
    assert launcher.first_jobs == [0, 2, 4]


def test_a_failed_trial_is_recorded_and_raised_after_the_others(storage: str) -> None:
    def job(values: dict[str, str]) -> float:
        if values["hydra.job.env_set.KEISEI_TRIAL"] == "1":
            raise OSError("disk full")
        return 0.5

    with pytest.raises(OSError, match="disk full"):
        sweep(job, storage)
    states = [trial.state for trial in trials(storage)]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert trials(storage)[1].user_attrs["error"] == "OSError: disk full"


def test_a_training_without_a_score_is_no_good_trial_and_no_error(storage: str) -> None:
    sweep(lambda values: math.nan, storage, n_trials=2)
    assert [trial.state for trial in trials(storage)] == [TrialState.FAIL] * 2


def test_a_pruned_trial_counts_and_is_no_error(storage: str) -> None:
    def job(values: dict[str, str]) -> float:
        raise optuna.TrialPruned("after epoch 1")

    sweep(job, storage, n_trials=2)
    assert [trial.state for trial in trials(storage)] == [TrialState.PRUNED] * 2
    assert sweep(job, storage, n_trials=2).jobs == []


def test_an_interrupt_leaves_no_trial_that_seems_to_run(storage: str) -> None:
    def job(values: dict[str, str]) -> float:
        if values["hydra.job.env_set.KEISEI_TRIAL"] == "1":
            raise KeyboardInterrupt
        return 0.5

    with pytest.raises(KeyboardInterrupt):
        sweep(job, storage)
    assert [trial.state for trial in trials(storage)] == [TrialState.COMPLETE, TrialState.FAIL]
    assert len(sweep(job, storage, n_trials=3).jobs) == 2


def test_two_commands_work_on_one_study(storage: str) -> None:
    inner: list[FakeLauncher] = []

    def job(values: dict[str, str]) -> float:
        if not inner:  # while the first command's first job runs, another command runs two trials
            inner.append(FakeLauncher(x_of))
            inner[0] = sweep(x_of, storage, n_trials=2, seed=2)
        return x_of(values)

    outer = sweep(job, storage, n_trials=4)
    numbers = [[job["hydra.job.env_set.KEISEI_TRIAL"] for job in each.jobs] for each in (outer, inner[0])]
    assert numbers == [["0", "3"], ["1", "2"]]
    assert [trial.state for trial in trials(storage)] == [TrialState.COMPLETE] * 4


def test_a_study_of_the_other_direction_is_refused(storage: str) -> None:
    sweep(x_of, storage, n_trials=1)
    with pytest.raises(
        ConfigError, match=r"hydra\.sweeper\.direction=minimize: must be maximize, as the study test in"
    ):
        sweep(x_of, storage, direction="minimize")


def test_a_database_is_a_storage_too(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    launcher = FakeLauncher(x_of)
    sweeper = Sweeper(
        storage=storage,
        study_name="test",
        direction="maximize",
        n_trials=1,
        n_jobs=1,
        seed=None,
        sampler=functools.partial(optuna.samplers.RandomSampler),
        params={"x": "interval(0.0,1.0)"},
    )
    sweeper.config, sweeper.folder, sweeper.launcher = OmegaConf.create({}), str(tmp_path), launcher  # type: ignore[assignment]
    sweeper.sweep([])
    assert [trial.value for trial in trials(storage)] == [x_of(job) for job in launcher.jobs]
