"""The configuration composes, is checked as a whole, and names every fault in one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from keisei_lightning.compose_errors import COMPOSE_ERRORS, explain, quote_games
from keisei_lightning.config import SCHEMAS, Config, config_dir, register_configs
from keisei_lightning.errors import ConfigError
from keisei_lightning.machine import available_cpus
from keisei_lightning.validation import BOUNDS, advice, max_workers, resolve, validate

CONF = config_dir()
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")
OPTIONS = [(group, file.stem) for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]
OUTPUT = "output_dir=results/test"  # filled in by Hydra in a real run


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    register_configs()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


def composed(*overrides: str) -> DictConfig:
    cfg = compose("config", overrides=[OUTPUT, *overrides])
    resolve(cfg)
    return cfg


def faults(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(composed(*overrides))
    assert all("\n" not in fault for fault in caught.value.faults)
    return list(caught.value.faults)


class TestComposing:
    def test_the_default_configuration_is_valid(self) -> None:
        cfg = composed()
        validate(cfg)
        assert (cfg.env.game, cfg.model.channels, cfg.parallel.mode) == ("shogi", 32, "workers")

    @pytest.mark.parametrize(("group", "option"), OPTIONS)
    def test_every_file_composes_and_is_valid(self, group: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if option in ("wandb", "mlflow"):
            monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
        if group == "hparams_search" and option == "optuna":
            pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the extra 'sweep' is not installed")
        game = ['env.game="hex(board_size=3)"'] if option == "open_spiel" else []
        cfg = composed(f"{group}={option}", *game)
        if option == "gpu" and not torch.cuda.is_available():
            with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu: must be cpu"):
                validate(cfg)
        else:
            validate(cfg)

    @pytest.mark.parametrize("group", [g for g in GROUPS if g not in ("experiment", "debug", "hparams_search")])
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

    def test_every_bound_belongs_to_a_key(self) -> None:
        known = {field.name for field in fields(Config)}
        for section, schema in (
            *SCHEMAS.items(),
            ("checkpoint", Config.__dataclass_fields__["checkpoint"].default_factory),
        ):
            name = "model" if section in ("resnet", "mlp") else section
            known |= {f"{name}.{field.name}" for field in fields(schema)}  # type: ignore[arg-type]
        assert set(BOUNDS) <= known

    def test_a_game_gives_its_folder_a_plain_name(self) -> None:
        assert composed("env=hex").name == "hex_board_size_5"


class TestBadInput:
    @pytest.mark.parametrize(
        ("overrides", "expected"),
        [
            (["parallel.num_workers=0"], "parallel.num_workers=0: must be from 1 to "),
            (["parallel.num_workers=-5"], "parallel.num_workers=-5: must be from 1 to "),
            (["parallel.num_workers=100000"], "parallel.num_workers=100000: must be from 1 to "),
            (["parallel.num_workers=many"], "parallel.num_workers=many: must be from 1 to "),
            (["env.game=nosuch"], "env.game=nosuch: no game is called 'nosuch'"),
            (["env=open_spiel", "env.game=backgammon"], "env.game=backgammon: "),
            (["env=open_spiel", "env.game=kuhn_poker"], "env.game=kuhn_poker: "),
            (["env=open_spiel"], "env.game: is missing"),
            (["+env.options.colour=red"], "env.game=shogi: shogi: unknown option colour='red'"),
            (["model.channels=0"], "model.channels=0: must be from 1 to 8192"),
            (["model.value_head=vector"], "model.value_head=vector: must be one of scalar, wdl"),
            (["ppo.clip_epsilon=2"], "ppo.clip_epsilon=2: must be more than 0 and less than 1"),
            (["ppo.learning_rate=nan"], "ppo.learning_rate=nan: must be more than 0 and at most 1"),
            (["ppo.critic_loss=huber"], "ppo.critic_loss=huber: must be one of l2, smooth_l1, l1"),
            (["parallel.schedule=lazy"], "parallel.schedule=lazy: must be one of sync, async"),
            (["parallel=serial", "parallel.schedule=async"], "parallel.schedule=async: must be sync"),
            (["parallel.start_method=fork"], "parallel.start_method=fork: must be one of "),
            (["parallel.worker_device=tpu"], "parallel.worker_device=tpu: must be auto, cpu or cuda:N"),
            (
                ["parallel.num_workers=2", "parallel.min_healthy_workers=3"],
                "parallel.min_healthy_workers=3: must be from 0 to 2",
            ),
            (["evaluation.num_games=7"], "evaluation.num_games=7: must be even"),
            (["trainer.devices=2"], "trainer.devices=2: must be 1"),
            (["trainer.max_epochs=0"], "trainer.max_epochs=0: must be 1 or more"),
            (["seed=-1"], "seed=-1: must be from 0 to "),
            (["~ppo"], "ppo: is missing"),
            (["+parallel.num_worker=2"], "parallel.num_worker=2: no such key (did you mean parallel.num_workers?)"),
            (["+checkpoints=3"], "checkpoints=3: no such key (did you mean checkpoint?)"),
            (["ckpt_path=nowhere.ckpt"], "ckpt_path=nowhere.ckpt: there is no such file"),
            (["ckpt_path=last", "name=never_run"], "ckpt_path=last: there is no last.ckpt in results/never_run"),
        ],
    )
    def test_one_fault_is_one_line_with_key_value_and_range(self, overrides: list[str], expected: str) -> None:
        assert [fault[: len(expected)] for fault in faults(*overrides)] == [expected]

    def test_a_minibatch_larger_than_a_rollout_shows_the_arithmetic(self) -> None:
        shape = ["parallel.num_workers=2", "parallel.games_per_worker=8", "parallel.plies_per_rollout=16"]
        assert faults(*shape, "ppo.minibatch_size=257") == [
            "ppo.minibatch_size=257: must be from 1 to the plies of one batch, 256 = 2 workers x 8 games x 16 plies"
        ]
        validate(composed(*shape, "ppo.minibatch_size=256"))

    def test_slots_larger_than_the_memory_show_the_arithmetic(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("keisei_lightning.validation.available_memory", lambda: 2**20)
        (fault,) = faults("parallel.num_workers=2")
        assert "2 workers x 2 slots x 64 games x 32 plies x 426 bytes" in fault
        assert fault.endswith("must be at most 0.0 GiB (free memory)")

    def test_more_versions_than_the_lag_allows_are_refused(self) -> None:
        asynchronous = ["parallel.schedule=async", "parallel.num_workers=2", "weight_sync.every_n_steps=2"]
        (fault,) = faults(*asynchronous)
        # 2 x 64 x 32 plies / 1024 = 4 minibatches, twice: 8 steps, published after every other one
        assert fault.startswith("parallel.max_policy_lag=2: must be 4 or more with parallel.schedule=async")
        assert "8 optimiser steps / weight_sync.every_n_steps=2" in fault
        validate(composed(*asynchronous, "parallel.max_policy_lag=4"))

    def test_a_lag_that_costs_work_is_advice(self) -> None:
        assert advice(composed("parallel.schedule=async")) == []
        (line,) = advice(composed("parallel.schedule=async", "parallel.max_policy_lag=1"))
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
        cfg.model = OmegaConf.create({"_target_": "somewhere.else", "channels": 0, "wings": 2})
        validate(cfg)
        assert cfg.model.wings == 2

    def test_a_tracker_that_is_not_installed_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
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

    def test_a_file_that_is_no_checkpoint_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("not a checkpoint")
        (fault,) = faults(f"ckpt_path={path}")
        assert fault.startswith(f"ckpt_path={path}: cannot be read as a checkpoint")

    def test_last_is_the_newest_checkpoint_of_the_same_name(self, tmp_path: Path) -> None:
        import os

        for age, run in enumerate(("new", "old")):
            file = tmp_path / "shogi" / run / "checkpoints" / "last.ckpt"
            file.parent.mkdir(parents=True)
            file.touch()
            os.utime(file, (1000 - age, 1000 - age))
        cfg = composed(f"results_dir={tmp_path}", "ckpt_path=last")
        assert cfg.ckpt_path == str(tmp_path / "shogi" / "new" / "checkpoints" / "last.ckpt")


class TestWorkers:
    def test_auto_is_one_worker_for_each_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("keisei_lightning.validation.available_cpus", lambda: 6)
        assert composed().parallel.num_workers == 6
        assert composed("parallel.schedule=async").parallel.num_workers == 5
        assert composed("parallel=serial", "parallel.num_workers=auto").parallel.num_workers == 1

    def test_eight_workers_are_legal_on_two_cpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("keisei_lightning.validation.available_cpus", lambda: 2)
        validate(composed("experiment=smoke", "parallel.num_workers=8"))
        assert (max_workers(1), max_workers(2), max_workers(64)) == (64, 128, 1024)


class TestMachine:
    @pytest.mark.parametrize(("quota", "expected"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 4)])
    def test_a_containers_quota_limits_the_cpus(
        self, quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3})
        (tmp_path / "cpu.max").write_text(quota)
        assert available_cpus(tmp_path) == expected

    def test_without_control_groups_the_affinity_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5, 7})
        assert available_cpus(tmp_path) == 3


class TestExplaining:
    @pytest.mark.parametrize(
        ("override", "expected"),
        [
            (
                "parallel.num_worker=2",
                "parallel.num_worker=2: no such key (did you mean parallel.num_workers?); must be one of mode, ",
            ),
            ("modell=tiny", "modell=tiny: no such key (did you mean model?); must be one of name, seed, "),
            (
                "env=shogo",
                "env=shogo: no such option (did you mean shogi?); must be one of breakthrough, connect_four, hex, ",
            ),
            ("experiment=none", "experiment=none: no such option; must be one of connect_four, "),
            ("ppo.epochs=few", "ppo.epochs=few: Value 'few' of type 'str' could not be converted to Integer"),
            ("name=a(b", "name=a(b: cannot be read ("),
        ],
    )
    def test_hydras_complaint_becomes_one_line(self, override: str, expected: str) -> None:
        with pytest.raises(COMPOSE_ERRORS) as caught:
            compose("config", overrides=[override])
        line = explain(caught.value, [override])
        assert line[: len(expected)] == expected
        assert "\n" not in line

    def test_an_open_spiel_string_needs_no_quotes(self) -> None:
        words = ["env.game=hex(board_size=5)", "env.game=choice(hex,chess)", "ppo.gamma=1", "-m"]
        assert quote_games(words) == ['env.game="hex(board_size=5)"', *words[1:]]


def test_the_bytes_of_a_ply_are_those_of_the_slots() -> None:
    from keisei_lightning.games import make_game
    from keisei_lightning.parallel.transport import SlotLayout
    from keisei_lightning.validation import _OTHER_BYTES_PER_PLY

    spec = make_game("shogi", 1).spec
    layout = SlotLayout.for_game(spec, num_slots=1, num_workers=1, num_games=1, num_plies=1)
    assert layout.bytes_per_ply == spec.observation_bytes + spec.mask_bytes + _OTHER_BYTES_PER_PLY
