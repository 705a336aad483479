"""Policies from checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from policy_checkpoints import SMALL, write_policy
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameSpec, make_game
from keisei_lightning.policies import load_policy
from keisei_lightning.training.checkpoint import AtomicCheckpointIO
from keisei_lightning.training.checkpoint_header import RECIPE_KEY, Recipe, read_recipe

SPEC = make_game("tic_tac_toe", 1).spec
CALLED: list[str] = []


def spec_of(spec: GameSpec) -> GameSpec:
    """Makes no network."""
    return spec


class ThirdParty(nn.Module):
    """Observation -> logits and value, by one linear map; notes that it was made."""

    def __init__(self, spec: GameSpec, *, scale: float = 1.0) -> None:
        super().__init__()
        CALLED.append(spec.name)
        self.scale = scale
        self.linear = nn.Linear(spec.observation_bytes, spec.num_actions + 1)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        out = self.linear(observation.flatten(1).float()) * self.scale
        return out[:, :-1], torch.tanh(out[:, -1:])


class OneShort(ThirdParty):
    """The same weights, but no logit for the last action."""

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        logits, state_value = super().forward(observation)
        return logits[:, :-1], state_value


TARGET = f"{__name__}.ThirdParty"


def write_run(folder: Path, config: str) -> Path:
    """The folder of a run with its configuration; returns where its checkpoint belongs."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(config, encoding="utf-8")
    return folder / "checkpoints" / "last.ckpt"


def fault(path: Path, model: dict[str, object] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_policy(path, model)
    (line,) = caught.value.errors
    return line.replace(str(path), "FILE").replace(str(path.parent.parent), "RUN")


class TestOurNetworks:
    def test_game_and_network_are_what_the_recipe_says(self, tmp_path: Path) -> None:
        saved = write_policy(tmp_path / "a.ckpt", game_options={"opening_plies": 3, "max_plies": 7})
        policy = load_policy(tmp_path / "a.ckpt")
        assert policy.game(2).spec.max_plies == 7
        assert policy.header.global_step == 70
        assert policy.recipe == read_recipe(tmp_path / "a.ckpt")
        assert not policy.actor_critic.training
        observation = torch.randint(0, 2, (5, *SPEC.observation_shape), dtype=torch.uint8)
        with torch.inference_mode():
            for there, here in zip(saved.eval()(observation), policy.actor_critic(observation), strict=True):
                assert torch.equal(there, here)

    def test_a_checkpoint_without_a_recipe_takes_the_configuration_of_its_run(self, tmp_path: Path) -> None:
        config = (
            "env: {game: tic_tac_toe, max_plies: 7, opening_plies: 2, options: {}}\n"
            f"model: {{_target_: {SMALL['_target_']}, kind: mlp, num_blocks: 1, channels: 8, value_head: scalar}}\n"
        )
        path = write_run(tmp_path / "run", config)
        write_policy(path, recipe=False)
        policy = load_policy(path)
        assert policy.recipe.game_options == {"opening_plies": 2, "max_plies": 7}
        assert policy.game(1).spec.max_plies == 7

    def test_without_either_the_network_must_be_given(self, tmp_path: Path) -> None:
        write_policy(tmp_path / "a.ckpt", recipe=False)
        assert fault(tmp_path / "a.ckpt") == (
            "ckpt_path=FILE: does not name its network, and no .hydra/config.yaml is in its run's folder; "
            "give it, such as model={kind:resnet,num_blocks:2,channels:32}"
        )
        policy = load_policy(tmp_path / "a.ckpt", {"kind": "mlp", "num_blocks": 1, "channels": 8})
        assert policy.recipe.game == "tic_tac_toe"

    def test_another_network_is_told_by_the_first_weight_that_differs(self, tmp_path: Path) -> None:
        write_policy(tmp_path / "a.ckpt")
        line = fault(tmp_path / "a.ckpt", {"kind": "mlp", "num_blocks": 1, "channels": 16})
        assert line.startswith("ckpt_path=FILE: another network's checkpoint (")

    def test_a_key_that_no_network_of_ours_has_is_refused(self, tmp_path: Path) -> None:
        write_policy(tmp_path / "a.ckpt")
        line = fault(tmp_path / "a.ckpt", {"kind": "mlp", "chanels": 16})
        assert line.startswith("model.chanels=16: no such key (did you mean model.channels?)")


class TestThirdParties:
    def write(self, path: Path) -> None:
        write_policy(path, network=ThirdParty(SPEC), model={"_target_": TARGET, "scale": 2.0})
        CALLED.clear()

    def test_neither_a_checkpoint_nor_the_configuration_beside_it_chooses_what_is_called(self, tmp_path: Path) -> None:
        env = "env: {game: tic_tac_toe, max_plies: null, opening_plies: 0, options: {}}"
        path = write_run(tmp_path / "run", f"{env}\nmodel: {{_target_: {TARGET}}}\n")
        for file in (tmp_path / "a.ckpt", path):
            self.write(file)
            assert "a file may not choose what is called" in fault(file)
        assert CALLED == []

    def test_the_user_may_name_it(self, tmp_path: Path) -> None:
        self.write(tmp_path / "a.ckpt")
        policy = load_policy(tmp_path / "a.ckpt", {"_target_": TARGET, "scale": 3.0})
        assert isinstance(policy.actor_critic.network, ThirdParty)
        assert policy.actor_critic.network.scale == 3.0
        assert CALLED == ["tic_tac_toe"]

    def test_its_results_must_be_those_of_the_game(self, tmp_path: Path) -> None:
        self.write(tmp_path / "a.ckpt")
        assert fault(tmp_path / "a.ckpt", {"_target_": f"{__name__}.OneShort"}) == (
            "ckpt_path=FILE: network=OneShort: its logits are float32 [2, 8]; "
            "must be floating point [2, 9], one for each action of tic_tac_toe"
        )

    def test_what_it_names_must_make_a_module(self, tmp_path: Path) -> None:
        self.write(tmp_path / "a.ckpt")
        assert fault(tmp_path / "a.ckpt", {"_target_": f"{__name__}.spec_of"}) == (
            f"model._target_={__name__}.spec_of: makes a GameSpec; must make a torch.nn.Module"
        )

    def test_what_cannot_be_called_is_told(self, tmp_path: Path) -> None:
        self.write(tmp_path / "a.ckpt")
        assert fault(tmp_path / "a.ckpt", {"_target_": "nowhere.Net"}).startswith("model._target_=nowhere.Net: ")
        line = fault(tmp_path / "a.ckpt", {"_target_": TARGET, "width": 3})
        assert line.startswith(f"model._target_={TARGET}: cannot be called with spec, width")
        line = fault(tmp_path / "a.ckpt", {"_target_": "builtins.dict"})
        assert line == "model._target_=builtins.dict: makes a dict; must make a torch.nn.Module"


class TestBadFiles:
    def test_a_missing_file_is_told(self, tmp_path: Path) -> None:
        assert fault(tmp_path / "no.ckpt") == "ckpt_path=FILE: there is no such file"

    def test_a_file_of_another_program_is_told(self, tmp_path: Path) -> None:
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, tmp_path / "a.ckpt")
        assert fault(tmp_path / "a.ckpt").startswith("ckpt_path=FILE: no checkpoint of keisei-lightning")

    def test_a_recipe_of_another_game_than_the_header_is_told(self, tmp_path: Path) -> None:
        write_policy(tmp_path / "a.ckpt")
        content = AtomicCheckpointIO().load_checkpoint(tmp_path / "a.ckpt")
        content[RECIPE_KEY]["env"]["game"] = "connect_four"
        AtomicCheckpointIO().save_checkpoint(content, tmp_path / "b.ckpt")
        line = fault(tmp_path / "b.ckpt")
        assert line == "ckpt_path=FILE: its game is tic_tac_toe, this run's is connect_four"

    def test_a_recipe_of_another_shape_is_told(self, tmp_path: Path) -> None:
        write_policy(tmp_path / "a.ckpt")
        content = AtomicCheckpointIO().load_checkpoint(tmp_path / "a.ckpt")
        for recipe in ({"env": {}}, {"env": {"game": "x", "options": 5}, "model": {}}, 5):
            content[RECIPE_KEY] = recipe
            AtomicCheckpointIO().save_checkpoint(content, tmp_path / "b.ckpt")
            with pytest.raises(ConfigError, match=r"has no env\.game, env\.options or model"):
                read_recipe(tmp_path / "b.ckpt")

    def test_a_configuration_that_cannot_be_read_is_told(self, tmp_path: Path) -> None:
        path = write_run(tmp_path / "run", "env: 5\n")
        write_policy(path, recipe=False)
        assert fault(path).startswith("ckpt_path=FILE: the run's RUN/.hydra/config.yaml cannot be read (")


def test_a_recipe_is_written_as_it_is_read(tmp_path: Path) -> None:
    recipe = Recipe(game="tic_tac_toe", game_options={"max_plies": 7}, model=SMALL)
    assert Recipe.from_checkpoint({RECIPE_KEY: recipe.to_dict()}, path="") == recipe
    assert Recipe.from_checkpoint({}, path="") is None
