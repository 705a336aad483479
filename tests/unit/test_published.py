"""Policies that come with the package: small, whole, data only, legal players, and as strong as their cards say."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import publish
import pytest
import torch
from policy_checkpoints import write_policy
from torch import Tensor

from keisei_lightning import PPOModule, load_policy, published_card, published_names
from keisei_lightning.commands.compose import compose_options
from keisei_lightning.commands.evaluate.checks import check_options
from keisei_lightning.commands.evaluate.options import EvalOptions
from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation import PolicyPlayer, RandomPlayer, play_match
from keisei_lightning.models import num_parameters
from keisei_lightning.published import checkpoint_file
from keisei_lightning.training import read_checkpoint_header
from keisei_lightning.training.checkpoint import AtomicCheckpointIO
from keisei_lightning.training.checkpoint_header import read_recipe
from keisei_lightning.training.saved_weights import SCALES_KEY, compact_weights, saved_weights

NAMES = published_names()
LIMIT_BYTES = 1_500_000


def test_there_is_one_for_each_of_five_games_and_together_they_are_small() -> None:
    assert NAMES == ["breakthrough", "connect_four", "hex", "othello", "shogi"]
    files = [file for file in publish.FOLDER.iterdir() if file.suffix in (".ckpt", ".json")]
    assert len(files) == 2 * len(NAMES)
    assert sum(file.stat().st_size for file in files) <= LIMIT_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_its_card_is_about_its_file(name: str) -> None:
    card, file, policy = published_card(name), checkpoint_file(f"published:{name}"), load_policy(f"published:{name}")
    assert (card["name"], card["game"], card["bytes"]) == (name, policy.header.game, file.stat().st_size)
    assert card["parameters"] == num_parameters(policy.actor_critic)
    assert card["model"] == policy.recipe.model
    assert card["licence"].startswith("MIT")
    training = card["training"]
    assert f"seed={training['seed']}" in training["command"]
    # One that is saved at the end of an epoch does not count it yet; the last one of a training does.
    assert training["epochs"] - policy.header.epoch == (training["epochs"] < training["max_epochs"])
    assert min(training["plies"], training["minutes"], training["machine"]["cpus"]) > 0
    assert card["compact"]["same_move"] > 0.99
    for row in [*card["strength"]["matches"], *card["strength"].get("positions", ())]:
        assert row["low"] <= row.get("score", row.get("optimal")) <= row["high"]


@pytest.mark.parametrize("name", NAMES)
def test_it_plays_legally_and_beats_random_play(name: str) -> None:
    policy = load_policy(f"published:{name}")
    player = PolicyPlayer(policy.actor_critic)
    result = play_match(
        policy.game,
        player,
        RandomPlayer(policy.game(1).spec.num_actions, seed=1),
        num_games=10,
        opening_plies=4,
        seed=2,
    )
    assert result.num_games == 10
    assert result.void == 0
    assert result.score >= 0.8


def test_the_page_is_what_the_cards_say() -> None:
    assert publish.PAGE.read_text(encoding="utf-8") == publish.page()


class TestNames:
    def test_whatever_reads_a_checkpoint_takes_one(self) -> None:
        header, recipe = read_checkpoint_header("published:hex"), read_recipe("published:hex")
        assert header.is_weights_only
        assert recipe is not None
        assert recipe.game == header.game
        module = PPOModule.load_from_checkpoint("published:breakthrough")  # has 8-bit weights
        policy = load_policy("published:breakthrough").actor_critic.state_dict()
        assert policy.keys() == module.actor_critic.state_dict().keys()
        assert all(torch.equal(weight, policy[key]) for key, weight in module.actor_critic.state_dict().items())

    def test_an_unknown_one_is_refused_in_a_line_that_lists_all(self) -> None:
        known = ", ".join(f"published:{name}" for name in NAMES)
        for read in (load_policy, read_checkpoint_header, read_recipe, checkpoint_file):
            with pytest.raises(ConfigError) as caught:
                read("published:go")
            assert caught.value.errors == (
                f"ckpt_path=published:go: there is no such published policy; must be one of {known}",
            )
        with pytest.raises(ConfigError) as caught:
            check_options(compose_options(EvalOptions, ["checkpoint=published:go", "opponents=[published:chess]"]))
        assert [line.partition(":")[0] for line in caught.value.errors] == [
            "checkpoint=published",
            "opponents=published",
        ]

    def test_no_name_leads_out_of_the_folder(self) -> None:
        for name in ("../published/hex", "hex.ckpt", "", "/etc/passwd"):
            with pytest.raises(ConfigError, match="no such published policy"):
                load_policy(f"published:{name}")

    def test_an_evaluation_takes_them_as_policy_and_as_opponent(self) -> None:
        options = compose_options(EvalOptions, ["checkpoint=published:hex", "opponents=[random,published:shogi]"])
        assert options.checkpoints == ["published:hex", "published:shogi"]
        assert list(check_options(options)) == ["random"]


class TestBits:
    def weights(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        return {
            "vector": torch.rand(300, generator=generator),
            "small": torch.rand(20, 30, generator=generator) - 0.5,
            "large": (torch.rand(256, 128, 2, 1, generator=generator) - 0.5) * torch.arange(256)[:, None, None, None],
            "index": torch.arange(300).view(3, 100),
        }

    def test_vectors_are_exact_and_matrices_within_half_a_step_of_their_rows(self) -> None:
        weights = self.weights()
        compact, scales = compact_weights(weights)
        assert {name: weight.dtype for name, weight in compact.items()} == {
            "vector": torch.float32,
            "small": torch.float16,
            "large": torch.int8,
            "index": torch.int64,
        }
        read = saved_weights({"state_dict": compact, SCALES_KEY: scales}, path="")
        assert torch.equal(read["vector"], weights["vector"])
        assert torch.equal(read["index"], weights["index"])
        assert (read["small"].float() - weights["small"]).abs().max() <= 0.5 * 2**-11
        step = weights["large"].flatten(1).abs().amax(1) / 127
        assert ((read["large"] - weights["large"]).flatten(1).abs().amax(1) <= 0.5001 * step).all()
        assert torch.equal(read["large"][0], torch.zeros(128, 2, 1))  # a row of zeros has a scale too

    def test_weights_that_half_precision_cannot_hold_are_refused(self) -> None:
        with pytest.raises(ValueError, match="w: has a weight that is not finite in half precision"):
            compact_weights({"w": torch.full((2, 2), 1e6)})

    def test_a_checkpoint_without_scales_is_read_as_it_is(self) -> None:
        content = {"state_dict": {"w": torch.ones(2)}}
        assert saved_weights(content, path="") is content["state_dict"]

    @pytest.mark.parametrize(
        "scales",
        [
            5,
            {"no.such": torch.ones(8)},
            {"actor_critic.network.0.weight": torch.ones(3)},
            {"actor_critic.network.0.weight": "text"},
            {5: torch.ones(8)},
        ],
        ids=str,
    )
    def test_scales_that_do_not_fit_are_refused_in_one_line(self, scales: Any, tmp_path: Path) -> None:
        path = tmp_path / "a.ckpt"
        write_policy(path)
        content = AtomicCheckpointIO().load_checkpoint(path)
        AtomicCheckpointIO().save_checkpoint({**content, SCALES_KEY: scales}, path)
        with pytest.raises(ConfigError) as caught:
            load_policy(path)
        assert caught.value.errors == (
            f"ckpt_path={path}: cannot be read as a checkpoint (its 'keisei_scales' do not fit its weights)",
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_file_holds_no_more_than_weights_and_what_they_are_for(name: str) -> None:
    file = checkpoint_file(f"published:{name}")
    assert zipfile.is_zipfile(file)
    content = torch.load(file, weights_only=True)
    assert content.keys() == {*publish.KEPT, "state_dict", SCALES_KEY}
    assert json.dumps(content["hyper_parameters"])
