"""A run is checked once, and its opponents' engines are started once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import fake_usi_engine
import pytest
from omegaconf import DictConfig

from keisei_lightning import app
from keisei_lightning.commands import bench
from keisei_lightning.commands import main as cli
from keisei_lightning.commands.compose import compose_training
from keisei_lightning.config import validation

TINY = [
    "experiment=smoke",
    "env=tic_tac_toe",
    "env.max_plies=null",
    "model=mlp",
    "model.channels=16",
    "parallel=serial",
    "parallel.games_per_worker=4",
    "parallel.plies_per_rollout=4",
    "ppo.minibatch_size=16",
    "evaluation.num_games=2",
    "logger=none",
    "trainer.max_epochs=1",
]
SHOGI = [
    "experiment=smoke",
    "env=shogi",
    "env.max_plies=6",
    "model=tiny",
    "parallel=serial",
    "parallel.games_per_worker=2",
    "parallel.plies_per_rollout=4",
    "ppo.minibatch_size=8",
    "evaluation.num_games=2",
    "evaluation.every_n_epochs=1",
    "evaluation.opening_plies=0",
    "logger=none",
    "trainer.max_epochs=2",
]

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def _own_folder_and_logging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:  # Hydra sets up the root logger
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seed of each configuration that is checked, one entry a check."""
    seeds: list[int] = []
    real = validation.option_errors

    def counted(cfg: DictConfig) -> list[str]:
        seeds.append(cfg.seed)
        return real(cfg)

    monkeypatch.setattr(validation, "option_errors", counted)
    return seeds


def test_a_run_is_checked_once(checks: list[int]) -> None:
    assert cli.main(["train", *TINY, "seed=3"]) == 0
    assert checks == [3]


def test_each_job_of_a_sweep_is_checked_once(checks: list[int]) -> None:
    assert cli.main(["train", "-m", *TINY, "seed=3,4"]) == 0
    assert checks == [3, 4]


def test_what_one_command_has_checked_is_not_taken_for_another_ones(
    checks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    monkeypatch.setattr(app, "run", lambda config: trained.append(config.cfg.seed) or 0.5)
    for words in (["seed=3"], ["-m", "seed=4,5"], ["seed=6"]):
        assert cli.main(["train", *words, *TINY]) == 0
    assert checks == trained == [3, 4, 5, 6]


def test_a_profile_is_checked_once(checks: list[int]) -> None:
    assert bench.main(["profile", "json=true", "iterations=1", *TINY[:-1], "seed=3"]) == 0
    assert checks == [3]


def test_ones_own_program_may_hand_over_a_plain_configuration_or_a_checked_one(
    checks: list[int], tmp_path: Path
) -> None:
    words = [*TINY, "trainer.enable_checkpointing=false", f"output_dir={tmp_path}", "parallel.num_workers=auto"]
    cfg = compose_training(words)
    app.run(cfg)
    assert checks == [0]
    assert cfg.parallel.num_workers == "auto"  # the caller's own is left as it is
    checked = validation.validate(cfg)
    assert checked.cfg.parallel.num_workers == 1
    app.run(checked)
    assert checks == [0, 0]


def engine(diary: Path, *words: str) -> str:
    """An override with the fake engine as the only opponent."""
    command = " ".join([sys.executable, fake_usi_engine.__file__, "--diary", str(diary), *words])
    return f"evaluation.opponents=[usi(command='{command}',nodes=1)]"


def test_an_engine_is_started_once_in_a_whole_run_and_stopped_at_its_end(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    assert cli.main(["train", *SHOGI, engine(diary)]) == 0
    lines = diary.read_text().splitlines()
    assert sum(line.startswith("start ") for line in lines) == 1
    assert lines[-1] == "quit"
    assert sum(line == "go nodes 1" for line in lines) == 2 * 2 * 3  # evaluations, games, plies of the engine


def test_an_engine_that_does_not_start_is_one_line_and_code_2_before_a_worker_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: BaseProcess) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(BaseProcess, "start", refuse)
    diary = tmp_path / "diary"
    words = [*SHOGI, "parallel=workers", "parallel.num_workers=1", engine(diary, "--start", "crash")]
    assert cli.main(["train", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("keisei: player usi(command='")
    assert captured.err.endswith(
        ": the engine ended with exit status 1; it last wrote to its error output: no network file\n"
    )
    assert diary.read_text().count("start ") == 1


def test_an_engine_is_not_started_for_a_configuration_that_is_refused(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    assert cli.main(["train", *SHOGI, engine(diary), "parallel.augment_symmetry=true", "env=connect_four"]) == 2
    assert cli.main(["train", *SHOGI, engine(diary), "ckpt_path=missing.ckpt"]) == 2
    assert not diary.exists()
