"""A run folder from somebody else: what its files name is not called, however they name it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml
from installed_packages import installed
from omegaconf import OmegaConf
from policy_checkpoints import SMALL, write_policy
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameSpec, make_game
from keisei_lightning.models.registry import NETWORKS
from keisei_lightning.policies import load_policy
from keisei_lightning.training.checkpoint import AtomicCheckpointIO
from keisei_lightning.training.checkpoint_header import HEADER_KEY, RECIPE_KEY

SPEC = make_game("tic_tac_toe", 1).spec
CALLED: list[object] = []
GROUP = "keisei_lightning.networks"


def called(*args: object, **kwargs: object) -> nn.Module:
    """What no file may bring about."""
    CALLED.append((args, kwargs))
    return nn.Identity()


class Linear(nn.Module):
    """A third party's network; notes what it was made with."""

    def __init__(self, spec: GameSpec, **options: object) -> None:
        super().__init__()
        CALLED.append(options)
        self.linear = nn.Linear(spec.observation_bytes, spec.num_actions + 1)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        out = self.linear(observation.flatten(1).float())
        return out[:, :-1], out[:, -1:].tanh()


class Outer:
    """Holds a network, as a class may hold its factories."""

    Linear = Linear


CALL = {"_target_": f"{__name__}.called"}
LINEAR = f"{__name__}.Linear"

MODELS: dict[str, dict[str, Any]] = {
    "a function": CALL,
    "a class": {"_target_": LINEAR},
    "nested in a network of torch's": {"_target_": "torch.nn.Identity", "x": CALL},
    "nested in ours": {**SMALL, "channels": CALL},
    "nested deeper": {**SMALL, "channels": {"a": [{"b": CALL}]}},
    "positional": {"_target_": "torch.nn.Identity", "_args_": [CALL]},
    "partial": {"_target_": "functools.partial", "_partial_": True, "_args_": [CALL]},
    "get_method": {"_target_": "hydra.utils.get_method", "path": CALL["_target_"]},
    "get_object": {"_target_": "hydra.utils.get_object", "path": CALL["_target_"]},
    "instantiate": {"_target_": "hydra.utils.instantiate", "config": CALL},
    "numpy.load": {"_target_": "numpy.load", "file": "x.npy", "allow_pickle": True},
    "torch.load": {"_target_": "torch.load", "f": "x.pt", "weights_only": False},
    "our own other functions": {"_target_": "keisei_lightning.models.registry.importlib.import_module"},
    "a resolver": {**SMALL, "kind": "${foreign:}"},
    "a resolver in the target": {**SMALL, "_target_": "${foreign:}"},
    "no text": {**SMALL, "_target_": CALL},
    "a number": {"_target_": 5},
}


@pytest.fixture(autouse=True)
def nothing_called() -> Any:
    CALLED.clear()
    OmegaConf.register_new_resolver("foreign", called, replace=True)
    yield
    OmegaConf.clear_resolver("foreign")


def write_config(checkpoint: Path, env: object, model: object) -> None:
    folder = checkpoint.parent.parent / ".hydra"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"env": env, "model": model}))


ENV = {"game": "tic_tac_toe", "max_plies": None, "opening_plies": 0, "options": {}}


def in_the_checkpoint(path: Path, model: dict[str, Any]) -> None:
    write_policy(path, model=model)


def in_both(path: Path, model: dict[str, Any]) -> None:
    write_policy(path, model=model)
    write_config(path, ENV, model)


def beside_the_checkpoint(path: Path, model: dict[str, Any]) -> None:
    write_policy(path, recipe=False)
    write_config(path, ENV, model)


PLACES = (in_the_checkpoint, in_both, beside_the_checkpoint)


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    (line,) = caught.value.errors
    assert line.startswith(f"ckpt_path={path}: ")
    assert "\n" not in line
    assert CALLED == []
    return line.removeprefix(f"ckpt_path={path}: ")


@pytest.mark.parametrize("write", PLACES)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_what_a_file_names_is_not_called(
    model: dict[str, Any], write: Callable[[Path, dict[str, Any]], None], tmp_path: Path
) -> None:
    write(tmp_path / "run" / "checkpoints" / "last.ckpt", model)
    line = refusal(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert "a file may not choose what is called" in line or "only the command may have" in line
    assert CALLED == []


@pytest.mark.parametrize("write", PLACES)
def test_the_refusal_tells_both_ways_to_trust_a_network(
    write: Callable[[Path, dict[str, Any]], None], tmp_path: Path
) -> None:
    write(tmp_path / "run" / "checkpoints" / "last.ckpt", {"_target_": LINEAR, "width": 3})
    assert refusal(tmp_path / "run" / "checkpoints" / "last.ckpt") == (
        f"its network is {LINEAR}, and a file may not choose what is called; if you trust it, give it in the command "
        f"as model._target_={LINEAR}, with its other keys, or let its package register it "
        f"(entry-point group {GROUP})"
    )


def test_a_file_that_was_written_by_the_attack_of_the_report_is_not_there(tmp_path: Path) -> None:
    path, wrote = tmp_path / "run" / "checkpoints" / "last.ckpt", tmp_path / "wrote"
    attack = {
        "_target_": "torch.nn.Identity",
        "x": {
            "_target_": "pathlib.Path.write_text",
            "self": {"_target_": "pathlib.Path", "_args_": [str(wrote)]},
            "data": "whatever they like",
        },
    }
    in_both(path, attack)
    assert "a file may not choose what is called" in refusal(path)
    assert not wrote.exists()


class TestRegistered:
    @pytest.fixture(autouse=True)
    def _installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entries = [
            EntryPoint(name="linear", value=f"{__name__}:Linear", group=GROUP),
            EntryPoint(name="of_a_class", value=f"{__name__}:Outer.Linear [extra]", group=GROUP),
            EntryPoint(name="broken", value="no_such_package.networks:Net", group=GROUP),
        ]
        installed(monkeypatch, NETWORKS, *entries)

    @pytest.mark.parametrize("target", [LINEAR, f"{__name__}.Outer.Linear"])
    @pytest.mark.parametrize("write", PLACES)
    def test_what_a_package_registered_is_made_with_plain_values(
        self, write: Callable[[Path, dict[str, Any]], None], target: str, tmp_path: Path
    ) -> None:
        model = {"_target_": target, "width": 3, "sizes": [1, 2], "more": {"a": None}}
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        write(path, model)
        content = AtomicCheckpointIO().load_checkpoint(path)
        weights = {f"actor_critic.network.{key}": value for key, value in Linear(SPEC).state_dict().items()}
        AtomicCheckpointIO().save_checkpoint({**content, "state_dict": weights}, path)
        CALLED.clear()
        policy = load_policy(path)
        assert isinstance(policy.actor_critic.network, Linear)
        assert CALLED == [{"width": 3, "sizes": [1, 2], "more": {"a": None}}]

    @pytest.mark.parametrize(
        ("keys", "name"),
        [
            ({"body": CALL}, "body._target_"),
            ({"body": [{"deep": CALL}]}, "body[0].deep._target_"),
            ({"_args_": [1]}, "_args_"),
            ({"_partial_": True}, "_partial_"),
            ({"_convert_": "all"}, "_convert_"),
            ({"_recursive_": False}, "_recursive_"),
            ({"width": "${foreign:}"}, "width"),
        ],
    )
    @pytest.mark.parametrize("write", PLACES)
    def test_hydras_own_keys_and_interpolations_are_refused(
        self, write: Callable[[Path, dict[str, Any]], None], keys: dict[str, Any], name: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        write(path, {"_target_": LINEAR, **keys})
        assert f"model.{name}=" in refusal(path)

    def test_a_package_that_cannot_be_imported_is_told(self, tmp_path: Path) -> None:
        write_policy(tmp_path / "a.ckpt", model={"_target_": "no_such_package.networks.Net"})
        assert "ModuleNotFoundError: No module named 'no_such_package'" in refusal(tmp_path / "a.ckpt")

    def test_what_it_does_not_take_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def narrow(self: Linear, spec: GameSpec, *, width: int) -> None:
            raise AssertionError

        monkeypatch.setattr(Linear, "__init__", narrow)
        write_policy(tmp_path / "a.ckpt", model={"_target_": LINEAR, "depth": 3})
        assert "cannot be made (TypeError: " in refusal(tmp_path / "a.ckpt")


class TestGames:
    @pytest.mark.parametrize(
        "game",
        [
            f"{__name__}:called",
            f"{__name__}.called",
            "nosuch",
            "${foreign:}",
            "efg_game(filename=/etc/hostname)",
            "",
            "hex(",
            5,
            {"_target_": CALL["_target_"]},
        ],
    )
    @pytest.mark.parametrize("beside", [False, True])
    def test_only_games_that_are_known_here_are_made(self, game: Any, beside: bool, tmp_path: Path) -> None:
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        write_policy(path, recipe=False)
        if beside:
            write_config(path, {**ENV, "game": game}, SMALL)
        else:
            content = AtomicCheckpointIO().load_checkpoint(path)
            content[RECIPE_KEY] = {"env": {"game": game, "options": {}}, "model": SMALL}
            AtomicCheckpointIO().save_checkpoint(content, path)
        line = refusal(path)
        assert any(reason in line for reason in ("cannot be made", "cannot be read", "only the command may have"))
        assert CALLED == []

    @pytest.mark.parametrize(
        "options", [{"max_plies": CALL}, {"max_plies": "${foreign:}"}, {"num_games": 3}, {"opening_plies": [1]}]
    )
    @pytest.mark.parametrize("beside", [False, True])
    def test_their_options_are_plain_values(self, options: dict[str, Any], beside: bool, tmp_path: Path) -> None:
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        write_policy(path, game_options=options, recipe=not beside)
        if beside:
            write_config(path, {**ENV, "options": options}, SMALL)
        line = refusal(path)
        assert any(reason in line for reason in ("cannot be made", "only the command may have"))
        assert CALLED == []


class TestShapes:
    """Whatever else is in them, foreign files are refused in one line."""

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[1, 2]",
            "5",
            "env: {game: [",
            "env: {game: tic_tac_toe}\nmodel: 5",
            "env: {game: tic_tac_toe, max_plies: null, opening_plies: 0, options: 5}\nmodel: {}",
            "model: !!python/object/apply:os.system ['true']",
            "a: &a [*a]",
            "[" * 2000,
            "\x00",
        ],
    )
    def test_a_configuration_of_another_shape(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        write_policy(path, recipe=False)
        write_config(path, {}, {})
        (tmp_path / "run" / ".hydra" / "config.yaml").write_text(text)
        assert "config.yaml" in refusal(path)

    @pytest.mark.parametrize(
        "change",
        [
            {HEADER_KEY: {"format": 1}},
            {HEADER_KEY: {"format": 1, "game": "tic_tac_toe", "num_actions": "x", "observation_shape": 5}},
            {"global_step": "many"},
            {"state_dict": None},
            {"state_dict": {5: 6}},
            {"state_dict": {"actor_critic.x": "text"}},
        ],
        ids=str,
    )
    def test_a_checkpoint_of_another_shape(self, change: dict[str, Any], tmp_path: Path) -> None:
        write_policy(tmp_path / "a.ckpt")
        content = AtomicCheckpointIO().load_checkpoint(tmp_path / "a.ckpt")
        AtomicCheckpointIO().save_checkpoint({**content, **change}, tmp_path / "a.ckpt")
        line = refusal(tmp_path / "a.ckpt")
        assert line.startswith(("cannot be read as a checkpoint (it", "another network's checkpoint ("))
