"""An exported policy is read as data, plays by its name, and searches as the checkpoint does; without torch."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from keisei_lightning import make_player, play_match
from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation import PolicyPlayer, RandomPlayer, SearchPlayer, start_player
from keisei_lightning.export import OnnxPolicy, load_onnx
from keisei_lightning.export import onnx_policy as reading
from keisei_lightning.export.onnx_file import OnnxFile
from keisei_lightning.games import game_factory
from keisei_lightning.policies import load_policy
from keisei_lightning.search import SearchOptions

ROOT = Path(__file__).parents[3]
HEX = game_factory("hex(board_size=5)")
Exported = Callable[[str, str], Path]

pytestmark = pytest.mark.slow  # an export to ONNX takes seconds


def changed(file: Path, target: Path, card: dict[str, Any] | str, **names: str) -> Path:
    """Write a file with other words on its card, or with another card; with other names of what goes in and out."""
    model = onnx.load(file)
    for port in (*model.graph.input, *model.graph.output):
        port.name = names.get(port.name, port.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    digest = OnnxFile.read(model.SerializeToString(), path="").digest
    if isinstance(card, dict):
        whole = json.loads(model.metadata_props[0].value)
        for key, value in {"file.digest": digest, **card}.items():
            *section, name = key.split(".")
            (whole[section[0]] if section else whole)[name] = value
        card = json.dumps(whole)
    model.metadata_props[0].value = card
    target.write_bytes(model.SerializeToString())
    return target


def refused(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_onnx(file)
    (line,) = caught.value.errors
    assert "\n" not in line
    assert line.startswith(f"model={file}: ")
    return line.removeprefix(f"model={file}: ")


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ("no JSON", "cannot be read as an exported policy (its card is no JSON: "),
        ("[" * 100_000, "cannot be read as an exported policy (its card is no JSON: "),
        ("[1]", "cannot be read as an exported policy (its card is no dictionary)"),
        ({"format": 2}, "cannot be read as an exported policy (its card has format 2, this version reads format 1)"),
        ({"game": "hex"}, "cannot be read as an exported policy (game of its card is of type str)"),
        ({"game.name": 7}, "cannot be read as an exported policy (game.name of its card is of type int)"),
        ({"game.num_actions": True}, "cannot be read as an exported policy (game.num_actions of its card is of type "),
        ({"game.observation_shape": [9, -5]}, "cannot be read as an exported policy (game.observation_shape of its "),
        ({"file.digest": "0" * 64}, "cannot be read as an exported policy (damaged, or changed since: its graph is "),
        ({"file.digest": None}, "cannot be read as an exported policy (damaged, or changed since: its graph is not "),
        (
            {"game.name": "os.system"},
            "its game os.system cannot be made (UnsupportedGameError: game os.system: there is ",
        ),
        ({"game.options": {"_target_": "os.getcwd"}}, "env.options._target_=os.getcwd: only the command may have "),
        ({"game.options": {"max_plies": "${oc.env:HOME}"}}, "env.options.max_plies=${oc.env:HOME}: only the command "),
        ({"game.options": {"nosuch": 1}}, "its game hex(board_size=5) cannot be made (ConfigError: "),
        ({"game.name": "hex(board_size=6)"}, "its observation_shape is (9, 5, 5), the game's is (9, 6, 6)"),
        ({"game.num_actions": 26}, "its num_actions is 26, the game's is 25"),
        ({"game.encoding": "shogi"}, "its encoding is shogi, the game's is planes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_card_is_data_and_a_wrong_one_is_one_line(
    card: dict[str, Any] | str, reason: str, exported: Exported, tmp_path: Path
) -> None:
    assert refused(changed(exported("hex", ".onnx"), tmp_path / "a.onnx", card)).startswith(reason)


def test_a_graph_with_another_signature_is_refused(exported: Exported, tmp_path: Path) -> None:
    file = changed(exported("hex", ".onnx"), tmp_path / "a.onnx", {}, legal="mask")
    takes = "takes observation tensor(uint8)[n, 9, 5, 5], mask tensor(bool)[n, 25]"
    assert refused(file).startswith(f"{takes}; hex(board_size=5) needs observation tensor(uint8)[n, 9, 5, 5], legal ")


def test_what_is_no_exported_policy_is_one_line(exported: Exported, tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    assert refused(file) == "there is no such file; must be an ONNX file"
    model = onnx.load(exported("hex", ".onnx"))
    del model.metadata_props[:]
    file.write_bytes(model.SerializeToString())
    assert refused(file) == "is no exported policy (it has no card); `keisei export` writes one"
    file.write_bytes(exported("hex", ".pt2").read_bytes())
    assert refused(file).startswith("cannot be read as an ONNX file (damaged")
    whole = exported("hex", ".onnx").read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert refused(file) == "cannot be read as an ONNX file (damaged or cut off)"
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 1
    file.write_bytes(broken)
    assert refused(file).startswith("cannot be read as an exported policy (damaged, or changed since")


def test_without_its_library_one_line_says_what_to_install(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, found = exported("hex", ".onnx"), importlib.util.find_spec
    monkeypatch.setattr(reading, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    line = "onnxruntime is not installed; pip install 'keisei-lightning[export]'"
    assert refused(file) == line
    with pytest.raises(ConfigError) as caught:
        make_player(f"onnx(model={file})", HEX(1).spec)
    assert caught.value.errors == (f"player onnx(model={file}): model={file}: {line}",)


class TestPlayer:
    def test_without_simulations_it_plays_the_policys_likeliest_move(self, exported: Exported) -> None:
        policy = load_policy("published:hex")
        name = f"onnx(model={exported('hex', '.onnx')},simulations=0)"
        player = make_player(name, HEX(1).spec)
        assert (player.name, getattr(player, "deterministic", None)) == (name, True)
        whole = {"num_games": 40, "opening_plies": 6, "seed": 3, "keep_records": True}
        ours, theirs = (
            play_match(HEX, each, RandomPlayer(25, seed=1), **whole)  # type: ignore[arg-type]
            for each in (player, PolicyPlayer(policy.actor_critic))
        )
        assert ours.score == theirs.score > 0.9
        assert [game.record for game in ours.records] == [game.record for game in theirs.records]

    def test_it_searches_as_the_checkpoint_does(self, exported: Exported) -> None:
        options = SearchOptions(simulations=32)
        player = make_player(f"onnx(model={exported('hex', '.onnx')},simulations=32)", HEX(1).spec)
        start_player(player)
        searching = SearchPlayer(load_policy("published:hex").actor_critic, HEX, options)
        results = [
            play_match(HEX, each, RandomPlayer(25, seed=1), num_games=10, opening_plies=8, seed=3, keep_records=True)
            for each in (player, searching)
        ]
        assert [game.record for game in results[0].records] == [game.record for game in results[1].records]
        assert not getattr(player, "deterministic", True)

    def test_the_file_of_another_game_is_refused_when_it_starts(self, exported: Exported) -> None:
        name = f"onnx(model={exported('hex', '.onnx')})"
        player = make_player(name, game_factory("connect_four")(1).spec)
        with pytest.raises(ConfigError) as caught:
            start_player(player)
        line = f"model={exported('hex', '.onnx')}: its game is hex(board_size=5), this game's is connect_four"
        assert caught.value.errors == (f"player {name}: {line}",)

    def test_wrong_options_are_told_all_at_once(self) -> None:
        with pytest.raises(ConfigError) as caught:
            make_player("onnx(model=missing.onnx,simulations=-1)", HEX(1).spec)
        simulations, model = caught.value.errors
        assert simulations.startswith("player onnx(model=missing.onnx,simulations=-1): simulations=-1: must be ")
        assert model.endswith(": model=missing.onnx: there is no such file; must be an ONNX file")
        with pytest.raises(ConfigError, match="model is missing"):
            make_player("onnx", HEX(1).spec)


def test_numbers_that_are_none_are_an_error_that_names_the_file(exported: Exported) -> None:
    content = exported("hex", ".onnx").read_bytes()
    model = onnx.load_from_string(content)
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT:
            weights.raw_data = np.full(len(weights.raw_data) // 4, np.nan, np.float32).tobytes()
    policy = OnnxPolicy(model.SerializeToString(), path="nan.onnx", card=OnnxPolicy(content).card)
    legal = np.packbits(np.ones((2, 25), np.bool_), axis=1)
    with pytest.raises(GameError, match=r"^nan.onnx: log-probabilities of legal moves or values are not finite$"):
        policy.evaluator()(np.zeros((2, 9, 5, 5), np.uint8), legal)
    with pytest.raises(GameError, match=r"^nan.onnx: cannot be run \("):
        policy.run(np.zeros((2, 9, 5, 4), np.uint8), np.ones((2, 25), np.bool_))


@pytest.mark.process
def test_reading_a_policy_reports_nothing_to_anybody(exported: Exported, tmp_path: Path) -> None:
    """onnxruntime would write a number for the machine, and what it is going to report, into the home folder."""
    program = "import sys; from keisei_lightning.export import load_onnx; print(load_onnx(sys.argv[1]).spec.name)"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(exported("hex", ".onnx"))],
        env={**environment, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert done.stdout == "hex(board_size=5)\n"
    assert list(tmp_path.rglob("*onnxruntime*")) == []
