"""``PPOModule.load_from_checkpoint(path)`` makes the network from the file, and calls nothing that the file chose."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from policy_checkpoints import SMALL, write_policy
from torch import nn
from training_fakes import quiet_trainer

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.parallel import SelfPlayCollector
from keisei_lightning.training import PPOModule, SelfPlayDataModule

SPEC = game_factory("tic_tac_toe")(1).spec
RECIPE = {"env": {"game": "tic_tac_toe", "options": {"opening_plies": 2}}, "model": SMALL}
CALLED: list[object] = []


def called(**options: object) -> nn.Module:
    """What no file may bring about."""
    CALLED.append(options)
    return nn.Identity()


def trained(tmp_path: Path, **options: Any) -> tuple[PPOModule, Path]:
    """A module after one epoch, and its checkpoint."""
    policy = ActorCritic(build_network(SPEC, **{key: value for key, value in SMALL.items() if key != "_target_"}))
    collector = SelfPlayCollector(
        game_factory("tic_tac_toe"), policy, mode="serial", games_per_worker=4, plies_per_rollout=8
    )
    module = PPOModule(policy, **options)
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, datamodule=SelfPlayDataModule(collector, minibatch_size=16))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    return module, tmp_path / "one.ckpt"


def test_a_module_is_made_again_from_its_checkpoint_alone(tmp_path: Path) -> None:
    module, path = trained(tmp_path, recipe=RECIPE, learning_rate=0.02, clip_epsilon=0.1)
    loaded = PPOModule.load_from_checkpoint(path)
    observation = torch.randint(2, (5, *SPEC.observation_shape), dtype=torch.uint8)
    for ours, theirs in zip(loaded(observation), module(observation), strict=True):
        assert torch.equal(ours, theirs)
    assert (loaded.learning_rate, loaded.hparams["clip_epsilon"]) == (0.02, 0.1)
    again = quiet_trainer(tmp_path, max_epochs=1)  # it learns on, and its checkpoint tells as much as the first
    options = {"mode": "serial", "games_per_worker": 4, "plies_per_rollout": 8}
    again.fit(loaded, datamodule=SelfPlayDataModule(game="tic_tac_toe", collector_options=options, minibatch_size=16))
    again.save_checkpoint(tmp_path / "again.ckpt")
    assert not torch.equal(loaded(observation)[0], module(observation)[0])
    assert torch.equal(PPOModule.load_from_checkpoint(tmp_path / "again.ckpt")(observation)[0], loaded(observation)[0])


def test_what_is_given_has_precedence_over_the_file(tmp_path: Path) -> None:
    _, path = trained(tmp_path, recipe=RECIPE, learning_rate=0.02)
    assert PPOModule.load_from_checkpoint(str(path), learning_rate=0.5).learning_rate == 0.5


def test_a_network_that_only_the_file_names_is_not_called(tmp_path: Path) -> None:
    path = tmp_path / "foreign.ckpt"
    write_policy(path, model={"_target_": f"{__name__}.called", "channels": 3})
    with pytest.raises(
        ConfigError, match=f"its network is {__name__}.called, and a file may not choose what is called"
    ):
        PPOModule.load_from_checkpoint(path)
    assert CALLED == []


def test_a_nested_call_in_one_of_our_networks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.ckpt"
    write_policy(path, model={**SMALL, "channels": {"_target_": f"{__name__}.called"}})
    with pytest.raises(ConfigError, match="only the command may have such a key"):
        PPOModule.load_from_checkpoint(path)
    assert CALLED == []


def test_a_file_that_holds_code_is_refused(tmp_path: Path) -> None:
    class Calls:
        def __reduce__(self) -> tuple[Any, ...]:
            return called, ()

    path = tmp_path / "code.ckpt"
    torch.save({"state_dict": {}, "code": Calls()}, path)
    with pytest.raises(ConfigError, match="weights_only=True refuses it"):
        PPOModule.load_from_checkpoint(path)
    with pytest.raises(Exception, match="Weights only load failed"):
        PPOModule.load_from_checkpoint(path, actor_critic=ActorCritic(nn.Identity()))
    assert CALLED == []


def test_a_checkpoint_without_a_recipe_wants_the_network(tmp_path: Path) -> None:
    module, path = trained(tmp_path)
    with pytest.raises(ConfigError, match=r"does not name its network, give .* actor_critic=ActorCritic\(\.\.\.\)$"):
        PPOModule.load_from_checkpoint(path)
    network = build_network(SPEC, kind="mlp", num_blocks=1, channels=8)
    loaded = PPOModule.load_from_checkpoint(path, actor_critic=ActorCritic(network))
    for ours, theirs in zip(loaded.parameters(), module.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_weight_with_a_flipped_bit_is_refused_whoever_gives_the_network(tmp_path: Path) -> None:
    module, path = trained(tmp_path)
    data = bytearray(path.read_bytes())
    weight = next(module.parameters()).detach().numpy().tobytes()
    data[data.index(weight) + 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"cannot be read as a checkpoint \(corrupt: the checksum of .* is wrong\)$"):
        PPOModule.load_from_checkpoint(
            path, actor_critic=ActorCritic(build_network(SPEC, kind="mlp", num_blocks=1, channels=8))
        )


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("nowhere.ckpt", "checkpoint_path=nowhere.ckpt: there is no such file"),
        (io.BytesIO(b""), "must be a path, or give"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(path: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        PPOModule.load_from_checkpoint(path)
