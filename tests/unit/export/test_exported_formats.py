"""Exported files compute what their checkpoints do, on positions of real games; their cards say what they are."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from policy_checkpoints import write_policy
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError, KeiseiError
from keisei_lightning.export import ExportCard, OnnxPolicy, export_policy, load_onnx
from keisei_lightning.export.card import CARD_KEY
from keisei_lightning.export.comparison import compare, positions_of_random_games
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.policies import load_policy
from keisei_lightning.search.network import NetworkEvaluator

ROOT = Path(__file__).parents[3]
GAMES = ["breakthrough", "connect_four", "hex", "othello", "shogi"]
LIMIT = 1e-4
Exported = Callable[[str, str], Path]

pytestmark = pytest.mark.slow  # an export to ONNX takes seconds


def assert_alike(policy: OnnxPolicy, actor_critic: ActorCritic, *, mirror: bool = False, count: int = 300) -> None:
    """What a search is told by the file, and by the network itself; and masks, to the last bit."""
    (observation, legal), _ = positions_of_random_games(policy.game, count, seed=11)
    packed = np.packbits(legal, axis=1)
    symmetries = policy.spec.symmetries if mirror else ()
    wanted, wanted_values = NetworkEvaluator(actor_critic, policy.spec, symmetries=symmetries)(observation, packed)
    log_probs, values = policy.evaluator(mirror)(observation, packed)
    assert log_probs.shape == wanted.shape == (legal.sum(),)
    assert (np.abs(log_probs - wanted) / np.maximum(np.abs(wanted), 1)).max() <= LIMIT
    assert np.abs(values - wanted_values).max() <= LIMIT
    assert wanted.std() > 0.01
    assert wanted_values.std() > 0.001
    all_log_probs, _ = policy.run(observation, legal)
    np.testing.assert_array_equal(np.isneginf(all_log_probs), ~legal)
    np.testing.assert_allclose(np.exp(all_log_probs).sum(axis=1), 1.0, atol=1e-5)


def untrained(path: Path, game: str, **model: object) -> ActorCritic:
    """Write a checkpoint of a network that has opinions, though it has learned nothing."""
    network = build_network(game_factory(game)(1).spec, **model)  # type: ignore[arg-type]
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return write_policy(path, game=game, network=network, model=model).eval()


@pytest.mark.parametrize("name", GAMES)
def test_onnx_says_what_the_module_says(name: str, exported: Exported) -> None:
    policy = load_onnx(exported(name, ".onnx"))
    assert_alike(policy, load_policy(f"published:{name}").actor_critic)
    assert policy.card.check["positions"] == 50
    assert policy.card.check["wrong_masks"] == 0
    assert 0 < policy.card.check["max_log_prob_difference"] <= LIMIT


@pytest.mark.parametrize("name", ["breakthrough", "shogi"])
def test_the_mean_over_mirror_images_is_that_of_the_module(name: str, exported: Exported) -> None:
    policy = load_onnx(exported(name, ".onnx"))
    assert_alike(policy, load_policy(f"published:{name}").actor_critic, mirror=True)
    (observation, legal), _ = positions_of_random_games(policy.game, 50, seed=3)
    packed = np.packbits(legal, axis=1)
    plain, mirrored = (policy.evaluator(mirror)(observation, packed)[1] for mirror in (False, True))
    assert np.abs(plain - mirrored).max() > 1e-3


@pytest.mark.parametrize(
    ("game", "model"),
    [
        ("connect_four", {"kind": "resnet", "num_blocks": 2, "channels": 16, "value_head": "wdl", "equivariant": True}),
        ("shogi", {"kind": "resnet", "num_blocks": 1, "channels": 8, "value_head": "scalar", "equivariant": True}),
        ("tic_tac_toe", {"kind": "mlp", "num_blocks": 1, "channels": 8, "value_head": "wdl"}),
    ],
    ids=["equivariant with outcomes", "equivariant by squares", "mlp"],
)
def test_networks_of_every_kind_are_exported(game: str, model: dict[str, object], tmp_path: Path) -> None:
    actor_critic = untrained(tmp_path / "a.ckpt", game, **model)
    card = export_policy(tmp_path / "a.ckpt", tmp_path / "a.onnx", positions=100)
    assert (card.policy.model, card.policy.training) == (model, {"global_step": 70, "epochs": 0})
    assert_alike(load_onnx(tmp_path / "a.onnx"), actor_critic, count=200)


def test_a_batch_may_have_any_size_and_a_row_without_a_legal_move_has_no_probability(exported: Exported) -> None:
    policy = load_onnx(exported("hex", ".onnx"))
    (observation, legal), _ = positions_of_random_games(policy.game, 77, seed=1)
    together, values = policy.run(observation, legal)
    for size in (1, 2, 5):
        parts = [policy.run(observation[at : at + size], legal[at : at + size]) for at in range(0, 77, size)]
        np.testing.assert_allclose(np.concatenate([part for part, _ in parts]), together, atol=1e-5)
        np.testing.assert_allclose(np.concatenate([part for _, part in parts]), values, atol=1e-5)
    legal[3] = False
    log_probs, values = policy.run(observation, legal)
    assert np.isneginf(log_probs[3]).all()
    assert np.isfinite(values).all()
    assert [each.shape for each in policy.run(observation[:0], legal[:0])] == [(0, 25), (0,)]


def test_an_onnx_file_holds_its_card_its_opset_and_nothing_of_this_machine(exported: Exported) -> None:
    file = exported("hex", ".onnx")
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    (entry,) = model.metadata_props
    beside = file.with_name("hex.onnx.json").read_text(encoding="utf-8")
    assert (entry.key, entry.value + "\n") == (CARD_KEY, beside)
    ports = {port.name: port.type.tensor_type for port in (*model.graph.input, *model.graph.output)}
    kinds = {
        name: (port.elem_type, [dim.dim_param or dim.dim_value for dim in port.shape.dim])
        for name, port in ports.items()
    }
    assert kinds == {
        "observation": (onnx.TensorProto.UINT8, ["n", 9, 5, 5]),
        "legal": (onnx.TensorProto.BOOL, ["n", 25]),
        "log_probs": (onnx.TensorProto.FLOAT, ["n", 25]),
        "values": (onnx.TensorProto.FLOAT, ["n"]),
    }
    for content in (file.read_bytes(), *entries(exported("hex", ".pt2"))):
        assert str(ROOT).encode() not in content
        assert b"site-packages" not in content


def entries(archive: Path) -> list[bytes]:
    with zipfile.ZipFile(archive) as opened:
        return [opened.read(name) for name in opened.namelist()]


def test_a_card_says_what_is_known_of_the_checkpoint(exported: Exported) -> None:
    card = load_onnx(exported("shogi", ".onnx")).card
    published = json.loads((ROOT / "keisei_lightning" / "published" / "shogi.json").read_text(encoding="utf-8"))
    game = card.game
    assert (game.name, game.encoding, game.observation_shape, game.num_actions) == ("shogi", "shogi", (98,), 2187)
    assert card.file.inputs == {"observation": "uint8 [n, 98]", "legal": "bool [n, 2187]"}
    assert card.file.outputs == {"log_probs": "float32 [n, 2187]", "values": "float32 [n]"}
    assert (card.file.kind, card.file.opset, card.policy.checkpoint) == ("onnx", 18, "published:shogi")
    assert card.policy.parameters == published["parameters"]
    assert card.policy.training["command"] == published["training"]["command"]
    assert card.policy.training["plies"] == published["training"]["plies"]
    assert card.policy.rating == published["strength"]["rating"]
    assert {"python", "keisei-lightning", "torch", "onnx", "onnxruntime"} <= card.versions.keys()
    assert ExportCard.from_json(card.to_json(), path="") == card


def test_a_torch_export_gives_the_modules_own_numbers_again(exported: Exported) -> None:
    extra = {f"{CARD_KEY}.json": ""}
    program = torch.export.load(exported("hex", ".pt2"), extra_files=extra)
    actor_critic, policy = load_policy("published:hex").actor_critic, load_onnx(exported("hex", ".onnx"))
    for count in (1, 2, 40):
        (observation, legal), _ = positions_of_random_games(policy.game, count, seed=2)
        with torch.no_grad():
            log_probs, values = program.module()(torch.from_numpy(observation), torch.from_numpy(legal))
            logits, wanted = actor_critic(torch.from_numpy(observation))
        torch.testing.assert_close(values, wanted[:, 0], atol=1e-6, rtol=0)
        masked = logits.masked_fill(~torch.from_numpy(legal), -torch.inf).log_softmax(-1)
        torch.testing.assert_close(log_probs, masked, atol=1e-5, rtol=0)
    card = ExportCard.from_json(extra[f"{CARD_KEY}.json"], path="")
    assert (card.file.kind, card.file.opset, card.game.name) == ("torch_export", None, "hex(board_size=5)")


def test_safetensors_load_into_the_module_bit_for_bit(exported: Exported) -> None:
    file, policy = exported("shogi", ".safetensors"), load_policy("published:shogi")
    fresh = ActorCritic(build_network(policy.game(1).spec, kind="resnet", num_blocks=2, channels=32))
    weights = load_file(file)
    fresh.load_state_dict(weights)
    for name, weight in policy.actor_critic.state_dict().items():
        assert torch.equal(weight, fresh.state_dict()[name]), name
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    card = ExportCard.from_json(metadata[CARD_KEY], path="")
    assert (metadata["format"], card.file.kind, card.file.digest) == ("pt", "safetensors", None)
    assert card.check["max_value_difference"] == 0


class OddOne(nn.Module):
    """Does what no graph can hold: it looks at the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(9))

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.logits.expand(len(observation), 9)
        return (logits if observation.float().sum() > 3 else -logits), logits[:, :1] * 0


def odd_network(spec: object) -> OddOne:
    return OddOne()


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_network_that_cannot_be_followed_is_one_line_and_nothing_is_written(suffix: str, tmp_path: Path) -> None:
    write_policy(tmp_path / "a.ckpt", network=OddOne())
    with pytest.raises(
        ConfigError, match=r"ckpt_path=\S+a.ckpt: its network OddOne cannot be exported \(\w+"
    ) as caught:
        export_policy(tmp_path / "a.ckpt", tmp_path / f"a{suffix}", model={"_target_": f"{__name__}.odd_network"})
    assert len(caught.value.errors) == 1
    assert "\n" not in caught.value.errors[0]
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("what", ["a value", "a log-probability", "an unlikely move", "a mask", "no number"])
def test_a_file_that_computes_something_else_is_refused(what: str) -> None:
    policy = load_policy("published:hex")
    network, spec = policy.actor_critic, policy.game(1).spec

    def run(observation: np.ndarray, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            logits, values = (part.numpy() for part in network(torch.from_numpy(observation)))
        masked = np.where(legal, logits, -np.inf)
        log_probs = masked - np.log(np.exp(masked).sum(axis=1, keepdims=True))
        values = values[:, 0].copy()
        if what == "a value":
            values[0] += 2e-4
        elif what == "a log-probability":
            log_probs[-1, log_probs[-1].argmax()] += 2e-4 * log_probs[-1, legal[-1]].min()
        elif what == "an unlikely move":
            move = np.where(legal[-1], log_probs[-1], np.inf).argmin()
            log_probs[-1, move] *= 1 + 2e-4
        elif what == "a mask":
            log_probs[0, legal[0].argmax()] = -np.inf
        else:
            values[0] = np.nan
        return log_probs, values

    found = compare(run, network, policy.game, positions=30, seed=0, tolerance=1e-4)
    assert found.positions == 30
    assert found.games >= 8
    assert (found.wrong_masks > 0) == (what == "a mask")
    assert spec.num_actions == 25
    with pytest.raises(KeiseiError, match="does not compute what the checkpoint does, and was not written: on 30 pos"):
        found.check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_file_with_weights_in_half_precision_is_refused(dtype: torch.dtype) -> None:
    policy, other = load_policy("published:hex"), load_policy("published:hex").actor_critic
    with torch.no_grad():
        for part in other.parameters():
            part.copy_(part.to(dtype).float())

    def run(observation: np.ndarray, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            logits, values = (part.numpy() for part in other(torch.from_numpy(observation)))
        masked = np.where(legal, logits, -np.inf)
        return masked - np.logaddexp.reduce(masked, axis=1, keepdims=True), values[:, 0]

    found = compare(run, policy.actor_critic, policy.game, positions=300, seed=0, tolerance=1e-4)
    assert min(found.max_log_prob_difference, found.max_value_difference) > 1e-4  # each would be enough
    with pytest.raises(KeiseiError, match="does not compute what the checkpoint does"):
        found.check()


def test_rounding_of_a_policy_that_is_very_sure_is_no_difference() -> None:
    policy = load_policy("published:hex")
    network = policy.actor_critic
    with torch.no_grad():
        for part in network.network.policy_head.parameters():
            part.mul_(100)  # logits of thousands, of which float32 keeps seven digits
    rounding = np.random.default_rng(0)

    def run(observation: np.ndarray, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            logits, values = (part.numpy().astype(np.float64) for part in network(torch.from_numpy(observation)))
        logits += 1e-6 * np.abs(logits).max() * rounding.uniform(-1, 1, logits.shape)
        shifted = np.where(legal, logits, -np.inf)
        shifted -= shifted.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), values[:, 0]

    found = compare(run, network, policy.game, positions=300, seed=0, tolerance=1e-4)
    assert 0 < found.max_log_prob_difference < 1e-4
    found.check()


def test_positions_are_those_of_whole_games_and_of_the_seed() -> None:
    game = game_factory("tic_tac_toe")
    (observation, legal), games = positions_of_random_games(game, 500, seed=4)
    (again, _), _ = positions_of_random_games(game, 500, seed=4)
    (other, _), _ = positions_of_random_games(game, 500, seed=5)
    np.testing.assert_array_equal(observation, again)
    assert not np.array_equal(observation, other)
    assert set(legal.sum(axis=1)) == set(range(1, 10))
    assert 500 / 9 < games <= 100
    (one, mask), games = positions_of_random_games(game, 1, seed=4)
    assert (one.shape, mask.shape, games) == ((1, 3, 3, 3), (1, 9), 1)


def test_a_file_that_is_a_stream_of_bytes_is_read_too(exported: Exported) -> None:
    """As a browser's server has it, say."""
    content = io.BytesIO(exported("hex", ".onnx").read_bytes()).getvalue()
    assert OnnxPolicy(content).spec.name == "hex(board_size=5)"
