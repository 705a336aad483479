from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from fakes import TinyNetwork, counting_game

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation import Player, PolicyPlayer, RandomPlayer, Turn
from keisei_lightning.models import ActorCritic

NOTHING = np.zeros((4, 2, 1, 1), np.uint8)


def turn(observation: np.ndarray, legal: np.ndarray) -> Turn:
    game = counting_game()(len(observation))
    return Turn(game=game, indices=np.arange(len(observation)), observation=observation, legal=legal)


def packed(*rows: list[int], num_actions: int = 10) -> np.ndarray:
    mask = np.zeros((len(rows), num_actions), np.uint8)
    for row, actions in zip(mask, rows, strict=True):
        row[actions] = 1
    return np.packbits(mask, axis=1)


def test_a_random_player_chooses_each_legal_move_equally_often() -> None:
    player = RandomPlayer(10, seed=1)
    legal = packed([2, 9], [0, 4, 5, 8])
    chosen = [player.choose(turn(NOTHING[:2], legal)) for _ in range(4000)]
    first, second = (Counter(int(actions[row]) for actions in chosen) for row in (0, 1))
    assert sorted(first) == [2, 9]
    assert sorted(second) == [0, 4, 5, 8]
    assert all(abs(count - 2000) < 150 for count in first.values())  # 4.7 standard deviations
    assert all(abs(count - 1000) < 130 for count in second.values())


def test_a_random_player_sits_out_where_nothing_is_legal() -> None:
    assert RandomPlayer(10).choose(turn(NOTHING[:3], packed([3], [], [7]))).tolist() == [3, -1, 7]


def test_random_players_of_one_seed_choose_alike_and_leave_other_streams_alone() -> None:
    legal = packed(*(4 * [list(range(10))]))
    before = torch.get_rng_state()
    one, two = RandomPlayer(10, seed=5), RandomPlayer(10, seed=5)
    assert [one.choose(turn(NOTHING, legal)).tolist() for _ in range(9)] == [
        two.choose(turn(NOTHING, legal)).tolist() for _ in range(9)
    ]
    assert torch.equal(before, torch.get_rng_state())


def test_a_greedy_policy_plays_its_most_likely_legal_move() -> None:
    network = TinyNetwork()
    with torch.no_grad():
        network.linear.weight.zero_()
        network.linear.bias.copy_(torch.tensor([0.0, 2.0, 1.0, 0.0]))
    player = PolicyPlayer(ActorCritic(network), name="mine")
    legal = packed([0, 1, 2], [0, 2], [0], num_actions=3)
    assert player.choose(turn(NOTHING[:3], legal)).tolist() == [1, 2, 0]
    assert isinstance(player, Player)
    assert player.name == "mine"


def test_a_sampling_policy_has_its_own_stream() -> None:
    actor_critic = ActorCritic(TinyNetwork())
    legal = packed(*(4 * [[0, 1, 2]]), num_actions=3)
    before = torch.get_rng_state()
    one, two = (PolicyPlayer(actor_critic, greedy=False, seed=3) for _ in range(2))
    games = [[player.choose(turn(NOTHING, legal)).tolist() for _ in range(20)] for player in (one, two)]
    assert games[0] == games[1]
    assert len({tuple(actions) for actions in games[0]}) > 1
    assert torch.equal(before, torch.get_rng_state())


def test_temperature_sharpens_or_flattens_a_sampled_policy() -> None:
    network = TinyNetwork()
    with torch.no_grad():
        network.linear.weight.zero_()
        network.linear.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0]))  # odds 1 : e : 1
    observation = np.zeros((4000, 2, 1, 1), np.uint8)
    legal = packed(*(4000 * [[0, 1, 2]]), num_actions=3)
    for temperature in (0.5, 1.0, 2.0):
        player = PolicyPlayer(ActorCritic(network), greedy=False, temperature=temperature, seed=1)
        share = float((player.choose(turn(observation, legal)) == 1).mean())
        odds = np.exp(1 / temperature)
        assert share == pytest.approx(odds / (odds + 2), abs=0.03)  # 4 standard deviations


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_must_be_above_zero_and_finite(temperature: float) -> None:
    with pytest.raises(ConfigError, match=r"temperature=.* must be above 0, and finite"):
        PolicyPlayer(ActorCritic(TinyNetwork()), greedy=False, temperature=temperature)
