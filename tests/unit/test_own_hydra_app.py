"""Our configuration inside somebody else's Hydra application: found as a package, in a section of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from keisei_lightning.config.schemas import SCHEMAS, config_dir
from keisei_lightning.config.validation import validate
from keisei_lightning.errors import ConfigError

OPTIONS = sorted(
    (file.parent.name, file.stem)
    for file in config_dir().glob("*/*.yaml")
    if "# @package _global_" not in file.read_text(encoding="utf-8")
)

STUDY = """
defaults:
  - keisei@self_play
  - override /env@self_play.env: connect_four
  - override /model@self_play.model: tiny
  - _self_
note: ours
self_play:
  trainer:
    max_epochs: 2
hydra:
  searchpath: [pkg://keisei_lightning.conf]
"""


@pytest.fixture(autouse=True)
def _nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which nobody has imported our configuration or called ``register_configs``."""
    store = ConfigStore.instance()
    ours = {"schema", "config_schema.yaml"}
    monkeypatch.setattr(store, "repo", {name: node for name, node in store.repo.items() if name not in ours})
    monkeypatch.delitem(sys.modules, "keisei_lightning.conf", raising=False)
    yield
    GlobalHydra.instance().clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The configuration of another application."""
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    return tmp_path


def study(folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose("study", overrides=["self_play.output_dir=results/study", *overrides])


def test_another_application_composes_with_a_key_of_its_own(folder: Path) -> None:
    cfg = study(folder, "env@self_play.env=hex", "self_play.ppo.gamma=0.9", "note=mine")
    assert cfg.note == "mine"
    assert set(cfg) == {"note", "self_play"}
    ours = validate(cfg.self_play).cfg
    assert (ours.env.game, ours.name) == ("hex(board_size=5)", "hex_board_size_5")
    assert (ours.model.channels, ours.ppo.gamma, ours.trainer.max_epochs) == (16, 0.9, 2)
    assert ours.logger.csv.save_dir == "results/study"


def test_a_typo_is_refused_by_the_schemas_there_too(folder: Path) -> None:
    with pytest.raises(ConfigCompositionException, match=r"self_play\.ppo\.gama"):
        study(folder, "self_play.ppo.gama=0.9")


def test_bad_values_are_told_by_their_keys_in_the_larger_configuration(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(study(folder, "self_play.ppo.gamma=2", "self_play.parallel.num_workers=0").self_play)
    assert sorted(fault.partition(":")[0] for fault in caught.value.errors) == [
        "self_play.parallel.num_workers=0",
        "self_play.ppo.gamma=2",
    ]
    with pytest.raises(ConfigError, match=r"^self_play\.env\.game: is missing; .* as self_play\.env\.game=VALUE$"):
        validate(study(folder, "env@self_play.env=open_spiel", "self_play.name=any").self_play)


def test_validating_a_section_leaves_the_larger_configuration_as_it_is(folder: Path) -> None:
    cfg = study(folder)
    before = OmegaConf.to_container(cfg, resolve=False)
    validate(cfg.self_play)
    cfg.self_play.seed = 3  # not read-only
    cfg.self_play.seed = 0
    assert OmegaConf.to_container(cfg, resolve=False) == before


@pytest.mark.parametrize(("group", "option"), OPTIONS)
@pytest.mark.slow
def test_every_option_can_be_taken_alone_into_a_section(group: str, option: str, folder: Path) -> None:
    cfg = study(folder, f"{group}@self_play.{group}={option}")
    if option in ("open_spiel", "own"):
        assert OmegaConf.missing_keys(cfg.self_play.env) == {"self_play.env.game"}
    else:
        OmegaConf.to_container(cfg.self_play, resolve=True, throw_on_missing=True)


def test_the_package_composes_by_itself_and_has_all_schemas() -> None:
    with initialize_config_module("keisei_lightning.conf", version_base="1.3"):
        assert compose("config", overrides=["env=tic_tac_toe"]).env.game == "tic_tac_toe"
    assert {name.removesuffix(".yaml") for name in ConfigStore.instance().list("schema")} == set(SCHEMAS)
