"""How many learners a configuration asks for, what a launcher decides, and what goes to another process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from keisei_lightning.config import ranks
from keisei_lightning.config.ranks import PortableConfig, num_devices, ranks_to_start
from keisei_lightning.config.schemas import config_dir, register_configs
from keisei_lightning.config.validation import ValidatedConfig, config_warnings, validate
from keisei_lightning.errors import ConfigError

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
}


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    register_configs()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


def checked(*overrides: str) -> Any:
    words = ["output_dir=results/test", "experiment=tic_tac_toe", *overrides]
    return validate(compose("config", overrides=words)).cfg


def errors(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        checked(*overrides)
    return list(caught.value.errors)


@pytest.fixture
def under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("devices", "number"),
    [("1", 1), ("2", 2), ("auto", 1), ('"0,"', 1), ('"0,1,"', 2), ('"0,1"', 2)],
)
def test_each_device_is_a_rank(devices: str, number: int) -> None:
    cfg = checked(f"trainer.devices={devices}", "parallel.num_workers=1")
    assert (num_devices(cfg), ranks_to_start(cfg)) == (number, number)


def test_workers_are_shared_out_among_the_ranks_that_will_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keisei_lightning.parallel.options.available_cpus", lambda: 8)
    assert checked("trainer.devices=1").parallel.num_workers == 8
    assert checked("trainer.devices=2").parallel.num_workers == 4


@pytest.mark.usefixtures("under_torchrun")
def test_a_launcher_decides_the_numbers_of_devices_and_machines() -> None:
    for words in ((), ("trainer.devices=2",), ("trainer.devices=2", "trainer.num_nodes=2")):
        cfg = checked(*words)
        assert (cfg.trainer.devices, cfg.trainer.num_nodes, ranks_to_start(cfg)) == (2, 2, 1)
    started = "(torchrun has started 4 processes, 2 on this machine)"
    assert errors("trainer.devices=3", "trainer.num_nodes=4") == [
        f"trainer.devices=3: must be left out, or be 2 {started}",
        f"trainer.num_nodes=4: must be left out, or be 2 {started}",
    ]
    (error,) = errors("trainer.strategy=fsdp")
    assert error.startswith("trainer.strategy=fsdp: must be one of auto, ddp, ")


def test_several_machines_need_a_launcher_and_several_devices_ddp() -> None:
    (error,) = errors("trainer.num_nodes=2", "trainer.devices=4")
    assert "torchrun --nnodes 2 --nproc-per-node 4 " in error
    (error,) = errors("trainer.devices=2", "trainer.strategy=ddp_spawn")
    assert error.startswith("trainer.strategy=ddp_spawn: must be one of auto, ddp, ")


def test_more_ranks_than_cpus_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "allowed_cpus", lambda: 2)
    assert config_warnings(checked("trainer.devices=2", "parallel.num_workers=1")) == []
    (line,) = config_warnings(checked("trainer.devices=3", "parallel.num_workers=1"))
    assert line == "trainer.devices=3: 3 learners share 2 CPUs, and wait for one another"


def test_what_goes_to_a_rank_is_the_configuration_with_all_interpolations_resolved() -> None:
    cfg = checked("trainer.devices=2", "ppo.learning_rate=1e-3", 'name="1e3"')
    portable = ValidatedConfig(cfg).portable()
    again = portable.config()
    assert again == OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    assert "${" not in portable.text
    assert again.name == "1e3"
    assert OmegaConf.is_readonly(again)


def test_a_section_of_a_larger_configuration_keeps_its_place() -> None:
    again = PortableConfig("study.self_play.", "seed: 3\nname: x\n").config()
    assert again._get_full_key("seed") == "study.self_play.seed"
    assert again.seed == 3
