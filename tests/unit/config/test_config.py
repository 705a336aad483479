"""The configuration composes, is checked as a whole, and names every fault in one line."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_usi_engine
import pytest
import torch
from fakes import CountingGame
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from keisei_lightning.config.compose_errors import COMPOSE_ERRORS, explain
from keisei_lightning.config.schemas import SCHEMAS, config_dir, register_configs
from keisei_lightning.config.targets import TRAINER_ARGUMENTS
from keisei_lightning.config.validation import config_warnings, resolve_workers, validate
from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.players import make_random
from keisei_lightning.evaluation.registry import register_player
from keisei_lightning.games import register_game
from keisei_lightning.published import checkpoint_file
from keisei_lightning.system.machine import Allowance

CONF = config_dir()
GROUPS = sorted({file.parent.name for file in CONF.glob("*/*.yaml")})
OPTIONS = [(group, file.stem) for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]
OUTPUT = "output_dir=results/test"  # filled in by Hydra in a real run


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    register_configs()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


def winged_network(*, spec: object, channels: int, wings: int) -> None:
    """Stands for a third party's network."""


def typed(*overrides: str) -> DictConfig:
    return compose("config", overrides=[OUTPUT, *overrides])


def composed(*overrides: str) -> DictConfig:
    cfg = typed(*overrides)
    resolve_workers(cfg)
    return cfg


def checked(*overrides: str) -> DictConfig:
    return validate(composed(*overrides)).cfg


def faults(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(typed(*overrides))
    assert all("\n" not in line for line in caught.value.errors)
    return list(caught.value.errors)


class TestComposing:
    def test_the_default_configuration_is_valid(self) -> None:
        cfg = composed()
        validate(cfg)
        assert (cfg.env.game, cfg.model.channels, cfg.parallel.mode) == ("shogi", 32, "workers")

    @pytest.mark.parametrize(("group", "option"), OPTIONS)
    @pytest.mark.slow
    def test_every_file_composes_and_is_valid(
        self, group: str, option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        if option == "shogi_ladder":  # asks for an engine, which need not be installed here
            engine = tmp_path / "fairy-stockfish"
            engine.write_text(f"#!/bin/sh\nexec {sys.executable} {Path(fake_usi_engine.__file__)}\n")
            engine.chmod(0o755)
            monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        if option in ("wandb", "mlflow"):
            monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
        if group == "hparams_search" and option == "optuna":
            pytest.importorskip("optuna", reason="the extra 'sweep' is not installed")
        game = ['env.game="hex(board_size=3)"'] if option == "open_spiel" else []
        game += ["env.game=tic_tac_toe"] if option == "own" else []
        cfg = composed(f"{group}={option}", *game)
        if option in ("gpu", "shogi_gpu") and not torch.cuda.is_available():
            with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu: must be cpu"):
                validate(cfg)
        else:
            validate(cfg)

    @pytest.mark.parametrize(
        "group",  # callbacks are anybody's classes, with keys of their own
        [group for group in GROUPS if group not in ("experiment", "debug", "hparams_search", "callbacks")],
    )
    def test_every_group_has_a_schema(self, group: str) -> None:
        schema_of = {"model": {"resnet", "mlp"}}.get(group, {group})
        assert schema_of <= SCHEMAS.keys()
        for file in (CONF / group).glob("*.yaml"):
            text = file.read_text(encoding="utf-8")
            first = text.partition("defaults:\n")[2].partition("\n")[0].strip().removeprefix("- ")
            assert (
                first in {f"/schema@_here_: {name}" for name in schema_of} or (CONF / group / f"{first}.yaml").exists()
            )

    def test_the_seed_and_the_schemas_defaults_are_those_of_the_files(self) -> None:
        cfg = composed()
        assert cfg.seed == 0
        for section in ("ppo", "parallel", "evaluation"):
            assert cfg[section] == OmegaConf.structured(SCHEMAS[section]) or section == "parallel"

    def test_a_game_gives_its_folder_a_plain_name(self) -> None:
        assert composed("env=hex").name == "hex_board_size_5"


class TestBadInput:
    """What one wrong value is answered with is the table of ``tests/e2e/test_bad_configurations.py``."""

    def test_a_minibatch_larger_than_a_rollout_shows_the_arithmetic(self) -> None:
        shape = ["parallel.num_workers=2", "parallel.games_per_worker=8", "parallel.plies_per_rollout=16"]
        assert faults(*shape, "ppo.minibatch_size=257") == [
            "ppo.minibatch_size=257: must be from 1 to the plies of one batch, 256 = 2 workers x 8 games x 16 plies"
        ]
        validate(composed(*shape, "ppo.minibatch_size=256"))

    def test_slots_larger_than_the_memory_show_the_arithmetic(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("keisei_lightning.system.limits.available_memory", lambda: 21 * 2**20)
        assert faults("parallel.num_workers=2", "parallel.start_method=forkserver") == [
            "parallel.games_per_worker=64: must be from 1 to 38 (21.7 MiB of memory are needed and 21.0 MiB are free: "
            "slots 1.7 MiB = 2 workers x 1 slots x 64 games x 32 plies x 426 bytes, "
            "processes 20.0 MiB = 2 workers x 10.0 MiB)"
        ]

    def test_more_versions_than_the_lag_allows_are_refused(self) -> None:
        asynchronous = ["parallel.schedule=async", "parallel.num_workers=2", "weight_sync.every_n_steps=2"]
        (fault,) = faults(*asynchronous)
        # 2 x 64 x 32 plies / 1024 = 4 minibatches, twice: 8 steps, published after every other one
        assert fault.startswith("parallel.max_policy_lag=2: must be 4 or more with parallel.schedule=async")
        assert "8 optimiser steps / weight_sync.every_n_steps=2" in fault
        validate(composed(*asynchronous, "parallel.max_policy_lag=4"))
        validate(composed(*asynchronous, "ppo.advantage_share=0.5"))  # learned from half of the plies: 4 steps

    def test_a_lag_that_costs_work_is_advice(self) -> None:
        assert config_warnings(composed("parallel.schedule=async")) == []
        (line,) = config_warnings(composed("parallel.schedule=async", "parallel.max_policy_lag=1"))
        assert line.startswith("parallel.max_policy_lag=1: workers that are faster than the learner fill 2 slots ahead")

    def test_all_faults_are_told_at_once(self) -> None:
        told = faults(
            "parallel.num_workers=0", "ppo.clip_epsilon=2", "model.channels=0", "env.game=nosuch", "ppo.epochs=0"
        )
        assert {fault.partition("=")[0] for fault in told} == {
            "parallel.num_workers",
            "ppo.clip_epsilon",
            "ppo.epochs",
            "model.channels",
            "env.game",
        }

    def test_a_third_partys_network_has_keys_of_its_own(self) -> None:
        cfg = composed()
        cfg.model = OmegaConf.create({"_target_": f"{__name__}.winged_network", "channels": 0, "wings": 2})
        validate(cfg)
        assert cfg.model.wings == 2
        cfg.model = OmegaConf.create({**cfg.model, "beak": 1})
        with pytest.raises(ConfigError, match=r"winged_network: cannot be called with spec, channels, wings, beak \("):
            validate(cfg)

    @pytest.mark.parametrize(
        ("target", "reason"),
        [
            ("os.nothing", "cannot be loaded (ModuleNotFoundError: No module named 'os.nothing'"),
            ("os.path.nothing.Network", "cannot be loaded (ModuleNotFoundError: No module named 'os.path.nothing'"),
            ("math.pi", "is a float"),
            ("a network", "cannot be loaded (ModuleNotFoundError: No module named 'a network'"),
            ("broken_network.Network", "cannot be loaded (ModuleNotFoundError: No module named 'gone'"),
            ("raising_network.Network", "cannot be loaded (ZeroDivisionError: division by zero)"),
        ],
    )
    def test_a_target_that_names_nothing_says_which_part_is_missing(
        self, target: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "broken_network.py").write_text("import gone\n")
        (tmp_path / "raising_network.py").write_text("1 / 0\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        cfg = composed()
        cfg.model = OmegaConf.create({"_target_": target})
        with pytest.raises(ConfigError) as caught:
            validate(cfg)
        (fault,) = caught.value.errors
        assert fault.startswith(f"model._target_={target}: {reason}")
        assert fault.endswith("a class or function")

    def test_a_symmetry_that_the_game_has_not_is_refused(self) -> None:
        register_game("lopsided", lambda num_games, **options: CountingGame(num_games))
        (fault,) = faults("env.game=lopsided", "parallel.augment_symmetry=true")
        assert fault == "parallel.augment_symmetry=true: must be false (counting has no symmetry)"

    @pytest.mark.parametrize(
        ("overrides", "line"),
        [
            (
                ["evaluation.ladder=nowhere"],
                "evaluation.ladder=nowhere: cannot be read (No such file or directory); must be shogi, or the path "
                "of a results.json of keisei eval round_robin=true",
            ),
            (
                ["env=tic_tac_toe", "env.max_plies=null", "evaluation.ladder=shogi"],
                "evaluation.ladder=shogi: is one of shogi; must be one of tic_tac_toe",
            ),
        ],
    )
    def test_a_ladder_that_cannot_rate_is_refused(self, overrides: list[str], line: str) -> None:
        assert faults(*overrides) == [line]

    def test_a_ladder_is_of_no_use_without_an_opponent_on_it(self) -> None:
        register_player("stranger", make_random)
        (fault,) = faults("evaluation.ladder=shogi", "evaluation.opponents=[stranger]")
        assert fault.startswith("evaluation.ladder=shogi: evaluation.opponents must name one or more of its players (")

    def test_a_game_that_raises_when_it_is_made_is_named_with_its_reason(self) -> None:
        def fragile(num_games: int, **options: object) -> CountingGame:
            raise RuntimeError("a rule\nis missing")

        register_game("fragile", fragile)
        assert faults("env.game=fragile") == [
            "env.game=fragile: cannot be made (RuntimeError: a rule is missing); see `keisei games` for those that can"
        ]

    def test_the_arguments_that_a_trainer_may_be_given_are_lightnings(self) -> None:
        from lightning.pytorch import Trainer

        assert tuple(inspect.signature(Trainer.__init__).parameters)[1:] == TRAINER_ARGUMENTS

    def test_a_tracker_that_is_not_installed_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("keisei_lightning.config.targets.importlib.util.find_spec", lambda name: None)
        assert faults("logger=wandb") == [
            "logger=wandb: is not installed; must be csv_tensorboard, or install keisei-lightning[tracking]"
        ]


class TestCheckpoints:
    def header(self, **changes: Any) -> dict[str, Any]:
        header = {"format": 1, "game": "tic_tac_toe", "num_actions": 9, "observation_shape": [3, 3, 3]}
        return {"keisei": {**header, **changes}, "epoch": 1, "global_step": 2, "state_dict": {}}

    def test_a_checkpoint_of_another_game_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "other.ckpt"
        torch.save(self.header(), path)
        (fault,) = faults(f"ckpt_path={path}")
        assert fault.startswith(f"ckpt_path={path}: ")
        assert "tic_tac_toe" in fault
        assert "shogi" in fault

    @pytest.mark.parametrize("name", ["published:shogi", "published:go"])
    def test_nothing_resumes_from_a_published_policy(self, name: str) -> None:
        assert faults(f"ckpt_path={name}") == [
            f"ckpt_path={name}: a published policy holds weights alone, and no training resumes from it; must be null, "
            "auto, last or a checkpoint file of a run"
        ]

    def test_nothing_resumes_from_a_file_of_weights_alone(self) -> None:
        path = checkpoint_file("published:shogi")
        assert faults(f"ckpt_path={path}", "trainer.max_epochs=1") == [  # which has done more
            f"ckpt_path={path}: holds weights alone (no optimiser's state), and no training resumes from it; must be a "
            "checkpoint of a run"
        ]

    def test_a_file_that_is_no_checkpoint_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("not a checkpoint")
        (fault,) = faults(f"ckpt_path={path}")
        assert fault.startswith(f"ckpt_path={path}: cannot be read as a checkpoint")

    def test_last_is_the_newest_checkpoint_of_the_same_name(self, tmp_path: Path) -> None:
        newest = save_last(tmp_path / "shogi" / "new", age_s=0)
        save_last(tmp_path / "shogi" / "old", age_s=60)
        assert checked(f"results_dir={tmp_path}", "ckpt_path=last").ckpt_path == str(newest)

    def test_auto_is_last_where_there_is_one_and_else_null(self, tmp_path: Path) -> None:
        assert checked(f"results_dir={tmp_path}", "ckpt_path=auto").ckpt_path is None
        newest = save_last(tmp_path / "shogi" / "run", age_s=0)
        assert checked(f"results_dir={tmp_path}", "ckpt_path=auto").ckpt_path == str(newest)


def save_last(folder: Path, *, age_s: int) -> Path:
    import os

    import torch

    file = folder / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    header = {"game": "shogi", "num_actions": 2187, "observation_shape": [98], "format": 1}
    torch.save({"keisei": header, "global_step": 1}, file)
    os.utime(file, (1000 - age_s, 1000 - age_s))
    return file


class TestWorkers:
    def test_auto_is_one_worker_for_each_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("keisei_lightning.parallel.options.available_cpus", lambda: 6)
        monkeypatch.setattr("keisei_lightning.system.limits.available_cpus", lambda: 6)
        assert composed().parallel.num_workers == 6
        assert composed("parallel=central").parallel.num_workers == 5
        assert composed("parallel.schedule=async", "trainer=gpu").parallel.num_workers == 5
        assert composed("parallel.schedule=async").parallel.num_workers == 1  # the others learn
        assert composed("parallel=serial", "parallel.num_workers=auto").parallel.num_workers == 1

    def test_auto_is_no_more_than_the_machine_allows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        few = Allowance(limit=64, used=17, name="ulimit -n", ceiling=64)
        monkeypatch.setattr("keisei_lightning.parallel.options.available_cpus", lambda: 96)
        monkeypatch.setattr("keisei_lightning.system.limits.available_cpus", lambda: 96)
        monkeypatch.setattr("keisei_lightning.system.limits.descriptor_allowance", lambda: few)
        cfg = composed("ppo.minibatch_size=64")
        assert cfg.parallel.num_workers == 5
        validate(cfg)

    def test_eight_workers_are_legal_on_two_cpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("keisei_lightning.system.limits.available_cpus", lambda: 2)
        cfg = composed("experiment=smoke", "parallel.num_workers=8")
        validate(cfg)
        assert cfg.parallel.num_workers == 8


class TestExplaining:
    @pytest.mark.parametrize(
        ("override", "expected"),
        [
            (
                "parallel.num_worker=2",
                "parallel.num_worker=2: no such key (did you mean parallel.num_workers?); must be one of mode, ",
            ),
            ("modell=tiny", "modell=tiny: no such key (did you mean model?); must be one of seed, name, "),
            (
                "env=shogo",
                "env=shogo: no such option (did you mean shogi?); must be one of breakthrough, connect_four, hex, ",
            ),
            ("experiment=none", "experiment=none: no such option; must be one of breakthrough, connect_four, "),
            ("ppo.epochs=few", "ppo.epochs=few: must be a whole number, from 1 to 100"),
            ("weight_sync.every_n_steps=x", "weight_sync.every_n_steps=x: must be a whole number, 1 or more, or null"),
            ("model=null", "model=null: no such option; must be one of large, medium, mlp, small, tiny"),
            ("=5", "=5: cannot be read (there is no key); write KEY=VALUE"),
            ("name=a(b", "name=a(b: cannot be read ("),
        ],
    )
    def test_hydras_complaint_becomes_one_line(self, override: str, expected: str) -> None:
        with pytest.raises(COMPOSE_ERRORS) as caught:
            compose("config", overrides=[override])
        line = explain(caught.value, [override])
        assert line[: len(expected)] == expected
        assert "\n" not in line


def test_the_bytes_of_a_ply_are_those_of_the_slots() -> None:
    from keisei_lightning.config.option_checks import _OTHER_BYTES_PER_PLY
    from keisei_lightning.games import make_game
    from keisei_lightning.parallel.memory.slots import SlotLayout

    spec = make_game("shogi", 1).spec
    layout = SlotLayout.for_game(spec, num_slots=1, num_workers=1, num_games=1, num_plies=1)
    assert layout.bytes_per_ply == spec.observation_bytes + spec.mask_bytes + _OTHER_BYTES_PER_PLY
