"""The player that searches with a network, alone and by its name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_checkpoints import write_policy

from keisei_lightning import SearchPlayer, make_player, play_match
from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation import PolicyPlayer, RandomPlayer, Turn, start_player
from keisei_lightning.games import game_factory
from keisei_lightning.models import ActorCritic, build_network
from keisei_lightning.search import SearchOptions

FOUR = game_factory("connect_four")


def untrained(name: str = "connect_four", seed: int = 0) -> ActorCritic:
    torch.manual_seed(seed)
    return ActorCritic(build_network(game_factory(name)(1).spec, kind="mlp", num_blocks=1, channels=16))


def turn_of(name: str, num_games: int, opening_plies: int) -> Turn:
    game = game_factory(name, opening_plies=opening_plies)(num_games)
    game.seed(3)
    game.reset()
    observation = np.zeros((num_games, *game.spec.observation_shape), np.uint8)
    legal, mover = np.zeros((num_games, game.spec.mask_bytes), np.uint8), np.zeros(num_games, np.int8)
    game.observe(observation, legal, mover)
    return Turn(observation=observation, legal=legal, game=game, indices=np.arange(num_games))


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("name", ["connect_four", "shogi"])
def test_without_simulations_it_is_the_policy_to_the_last_bit(name: str, mirror: bool) -> None:
    policy, turn = untrained(name), turn_of(name, 64, 20)
    player = SearchPlayer(policy, game_factory(name), SearchOptions(simulations=0, mirror=mirror))
    symmetries = turn.game.spec.symmetries if mirror else ()
    np.testing.assert_array_equal(player.choose(turn), PolicyPlayer(policy, symmetries=symmetries).choose(turn))
    assert player.deterministic


def test_a_search_makes_a_network_that_knows_nothing_beat_one_that_plays_at_random() -> None:
    player = SearchPlayer(untrained(), FOUR, SearchOptions(simulations=64))
    result = play_match(FOUR, player, RandomPlayer(7, 1), num_games=60, opening_plies=4, seed=2)
    assert result.score > 0.85
    assert not player.deterministic


def test_mirror_images_are_searched_alike_where_it_is_asked_for() -> None:
    """The mean over both images of a position is the same for its mirror image; the network's own evaluation is not."""
    turn = turn_of("connect_four", 2, 0)
    for ply, action in enumerate([0, 1, 0, 1, 2]):
        actions = np.array([action, 6 - action])
        assert ply < 9
        turn.game.step(actions)
    observation, legal = turn.observation, turn.legal
    turn.game.observe(observation, legal, np.zeros(2, np.int8))
    player = SearchPlayer(untrained(), FOUR, SearchOptions(simulations=40, mirror=True))
    player.choose(turn)
    left, right = player.found
    assert left.visits.tolist() == right.visits[::-1].tolist()
    np.testing.assert_allclose(left.values, right.values[::-1], atol=1e-6)


def test_a_network_whose_outputs_are_not_finite_is_an_error_that_names_the_player() -> None:
    policy = untrained()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(torch.nan)
    player = SearchPlayer(policy, FOUR, SearchOptions(simulations=4), name="ours")
    with pytest.raises(GameError, match=r"player ours: the network's logits of the legal moves or its values are not"):
        player.choose(turn_of("connect_four", 2, 0))


def test_a_network_of_another_game_is_refused() -> None:
    player = SearchPlayer(untrained("tic_tac_toe"), game_factory("tic_tac_toe"), SearchOptions(simulations=4))
    with pytest.raises((ConfigError, GameError, RuntimeError)):
        player.choose(turn_of("connect_four", 2, 0))


def test_a_checkpoint_searches_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    policy = write_policy(path)
    game = game_factory("tic_tac_toe")
    named = make_player(f"search(checkpoint='{path}',simulations=20,method=puct)", game(1).spec)
    start_player(named)
    ours = SearchPlayer(policy, game, SearchOptions(simulations=20, method="puct"))
    turn = turn_of("tic_tac_toe", 8, 2)
    np.testing.assert_array_equal(named.choose(turn), ours.choose(turn))
    assert named.name == f"search(checkpoint='{path}',simulations=20,method=puct)"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("checkpoint=no.ckpt", "checkpoint=no.ckpt: there is no such file; must be a checkpoint file"),
        (
            "checkpoint='published:chess'",
            "checkpoint=published:chess: there is no such published policy; must be one of ",
        ),
        ("checkpoint=torn.ckpt", "checkpoint=torn.ckpt: cannot be read as a checkpoint (it is no zip file)"),
        ("checkpoint=a.ckpt,simulations=-1", "simulations=-1: must be a whole number, 0 or more"),
        ("checkpoint=a.ckpt,method=ucb", "method=ucb: must be one of gumbel, puct"),
        ("checkpoint=a.ckpt,simulation=4", "search has no option 'simulation' (did you mean simulations?)"),
        ("simulations=4", "checkpoint is missing; must be given as search(checkpoint=VALUE)"),
    ],
)
def test_a_name_that_makes_no_search_is_refused_before_torch_is_needed(
    words: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_policy(Path("a.ckpt"))
    Path("torn.ckpt").write_bytes(b"torn")
    with pytest.raises(ConfigError, match=re.escape(line)):
        make_player(f"search({words})", game_factory("tic_tac_toe")(1).spec)


def test_a_checkpoint_of_another_game_is_refused_when_the_player_starts(tmp_path: Path) -> None:
    write_policy(tmp_path / "a.ckpt")
    player = make_player(f"search(checkpoint='{tmp_path / 'a.ckpt'}')", FOUR(1).spec)
    with pytest.raises(ConfigError, match=r"a\.ckpt: its game is tic_tac_toe, this run's is connect_four"):
        start_player(player)
