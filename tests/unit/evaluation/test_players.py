from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from fakes import TinyNetwork, counting_game, turn_of

from keisei_lightning.errors import ConfigError, GameError
from keisei_lightning.evaluation import Player, PolicyPlayer, RandomPlayer, Turn, play_match
from keisei_lightning.games import NO_MOVE, Game, GameSpec, Symmetry, game_factory
from keisei_lightning.models import ActorCritic, build_network

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
    assert player.deterministic


def test_a_sampling_policy_has_its_own_stream() -> None:
    actor_critic = ActorCritic(TinyNetwork())
    legal = packed(*(4 * [[0, 1, 2]]), num_actions=3)
    before = torch.get_rng_state()
    one, two = (PolicyPlayer(actor_critic, greedy=False, seed=3) for _ in range(2))
    games = [[player.choose(turn(NOTHING, legal)).tolist() for _ in range(20)] for player in (one, two)]
    assert games[0] == games[1]
    assert len({tuple(actions) for actions in games[0]}) > 1
    assert not one.deterministic
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


def uneven_network(spec: GameSpec) -> ActorCritic:
    """A network as it begins, but for strong opinions: its policy is far from even and from symmetric."""
    torch.manual_seed(0)
    actor_critic = ActorCritic(build_network(spec, kind="mlp", channels=32, num_blocks=1)).eval()
    with torch.no_grad():
        for parameter in actor_critic.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return actor_critic


def biased_network(*bias: float) -> ActorCritic:
    """Gives these numbers as logits wherever it is asked."""
    network = TinyNetwork(len(bias))
    with torch.no_grad():
        network.linear.weight.zero_()
        network.linear.bias.copy_(torch.tensor([*bias, 0.0]))
    return ActorCritic(network)


class TestLogitsThatAreNotFinite:
    """They are the player's fault, and neither a draw nor a void game."""

    @pytest.mark.parametrize("greedy", [True, False])
    @pytest.mark.parametrize("fault", [float("nan"), float("inf")])
    def test_a_match_ends_with_the_players_name(self, fault: float, greedy: bool) -> None:
        player = PolicyPlayer(biased_network(fault, 0.0, 0.0), greedy=greedy, name="broken")
        with pytest.raises(GameError, match=r"player broken: the network's logits .* are not finite in position \d+ 0"):
            play_match(counting_game(), player, RandomPlayer(3), num_games=4, seed=0)

    def test_logits_of_one_board_that_are_not_finite_are_an_error(self) -> None:
        player = PolicyPlayer(biased_network(0.0, float("nan"), 0.0))
        assert player.choose(turn(NOTHING[:2], packed([0, 2], [2], num_actions=3))).tolist() == [0, 2]
        with pytest.raises(GameError, match="not finite"):
            player.choose(turn(NOTHING[:3], packed([0], [0, 1], [2], num_actions=3)))

    def test_minus_infinity_on_every_legal_move_is_one_of_them_and_on_some_is_not(self) -> None:
        player = PolicyPlayer(biased_network(-float("inf"), 0.0, -float("inf")), greedy=False)
        assert player.choose(turn(NOTHING[:1], packed([0, 1, 2], num_actions=3))).tolist() == [1]
        with pytest.raises(GameError, match="not finite"):
            player.choose(turn(NOTHING[:1], packed([0, 2], num_actions=3)))

    def test_logits_of_an_image_that_are_not_finite_are_an_error(self) -> None:
        turned = Symmetry(name="turned", observation_index=np.arange(2), action_index=np.array([1, 2, 0]))
        player = PolicyPlayer(biased_network(float("nan"), 0.0, 0.0), symmetries=[turned])
        with pytest.raises(GameError, match="not finite"):
            player.choose(turn(NOTHING[:1], packed([0, 1, 2], num_actions=3)))

    def test_a_temperature_that_makes_logits_infinite_is_reported_too(self) -> None:
        player = PolicyPlayer(biased_network(1e38, 0.0, 0.0), greedy=False, temperature=0.01)
        with pytest.raises(GameError, match="not finite"):
            player.choose(turn(NOTHING[:1], packed([0, 1, 2], num_actions=3)))


@pytest.mark.parametrize("num_logits", [2, 4])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_network_of_another_number_of_actions_is_refused_before_it_moves(num_logits: int, mirrored: bool) -> None:
    turned = Symmetry(name="turned", observation_index=np.arange(2), action_index=np.array([1, 2, 0]))
    player = PolicyPlayer(biased_network(*[0.0] * num_logits), symmetries=[turned] if mirrored else (), name="other")
    rows = 2 if mirrored else 1
    with pytest.raises(
        ConfigError,
        match=rf"player other: the network does not fit the game: its logits are float32 \[{rows}, {num_logits}\]; "
        rf"must be floating point \[{rows}, 3\], one for each action of counting",
    ):
        player.choose(turn(NOTHING[:1], packed([0, 1, 2], num_actions=3)))


class TestSymmetricPlay:
    """What is played is the mean of the policies in a position and in its images."""

    @pytest.fixture(params=["connect_four", "hex", "shogi"])
    def boards(self, request: pytest.FixtureRequest) -> Game:
        """Sixteen positions after six random plies."""
        game: Game = game_factory(request.param)(16)
        player = RandomPlayer(game.spec.num_actions)
        for _ in range(6):
            game.step(player.choose(turn_of(game)))
        return game

    def test_its_probabilities_are_the_mean_over_the_images(self, boards: Game) -> None:
        """With numpy, one image at a time: what a sample of 4000 shows is within 5 standard deviations of it."""
        actor_critic, spec = uneven_network(boards.spec), boards.spec
        (image,), at = spec.symmetries, turn_of(boards)
        legal = np.unpackbits(at.legal, axis=1, count=spec.num_actions).astype(bool)

        def probabilities(observation: np.ndarray, legal: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                logits = actor_critic(torch.from_numpy(observation))[0].double().numpy()
            weights = np.exp(logits - logits.max(1, keepdims=True)) * legal
            return np.asarray(weights / weights.sum(1, keepdims=True))

        mirrored = at.observation.reshape(len(legal), -1)[:, image.observation_index].reshape(at.observation.shape)
        in_the_mirror = probabilities(mirrored, legal[:, image.action_index])
        mean = probabilities(at.observation, legal) / 2
        mean[:, image.action_index] += in_the_mirror / 2  # label j of the image is action_index[j] of the original

        greedy = PolicyPlayer(actor_critic, symmetries=spec.symmetries)
        rows = np.arange(len(legal))
        assert mean[rows, greedy.choose(at)] == pytest.approx(mean.max(1), rel=1e-5)
        sampled = PolicyPlayer(actor_critic, greedy=False, symmetries=spec.symmetries)
        draws = 4000
        first = Turn(
            game=boards,
            indices=np.zeros(draws, np.int64),
            observation=np.repeat(at.observation[:1], draws, 0),
            legal=np.repeat(at.legal[:1], draws, 0),
        )
        shares = np.bincount(sampled.choose(first), minlength=spec.num_actions) / draws
        assert np.all(np.abs(shares - mean[0]) <= 5 * np.sqrt(mean[0] * (1 - mean[0]) / draws) + 1 / draws)

    def test_it_plays_the_mirrored_move_in_the_mirrored_position_and_plain_play_does_not(self, boards: Game) -> None:
        actor_critic, spec = uneven_network(boards.spec), boards.spec
        (image,), at = spec.symmetries, turn_of(boards)
        new_action = np.argsort(image.action_index)
        mirrored = Turn(
            game=boards,
            indices=at.indices,
            observation=at.observation.reshape(16, -1)[:, image.observation_index].reshape(at.observation.shape),
            legal=np.packbits(np.unpackbits(at.legal, axis=1, count=spec.num_actions)[:, image.action_index], axis=1),
        )
        plain, symmetric = PolicyPlayer(actor_critic), PolicyPlayer(actor_critic, symmetries=spec.symmetries)
        assert new_action[symmetric.choose(at)].tolist() == symmetric.choose(mirrored).tolist()
        assert new_action[plain.choose(at)].tolist() != plain.choose(mirrored).tolist()

    def test_all_images_of_all_boards_take_one_forward_pass(self, boards: Game) -> None:
        actor_critic, sizes = uneven_network(boards.spec), []
        actor_critic.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
        PolicyPlayer(actor_critic, symmetries=boards.spec.symmetries).choose(turn_of(boards))
        assert sizes == [32]

    def test_a_board_without_a_legal_move_is_left_alone(self, boards: Game) -> None:
        at = turn_of(boards)
        none = Turn(game=boards, indices=at.indices, observation=at.observation, legal=np.zeros_like(at.legal))
        player = PolicyPlayer(uneven_network(boards.spec), symmetries=boards.spec.symmetries)
        assert set(player.choose(none).tolist()) == {NO_MOVE}

    def test_images_are_mapped_back_by_their_inverse(self) -> None:
        """Of a symmetry that is not its own inverse: labels 0, 1, 2 show 1, 2, 0, so p becomes p + (p2, p0, p1)."""
        network = TinyNetwork()
        with torch.no_grad():
            network.linear.weight.zero_()
            network.linear.bias.copy_(torch.tensor([0.5, 0.1, 0.4, 1.0]).log())
        turned = Symmetry(name="turned", observation_index=np.arange(2), action_index=np.array([1, 2, 0]))
        player = PolicyPlayer(ActorCritic(network), symmetries=[turned])
        legal = packed([0, 1, 2], [1, 2], num_actions=3)
        # All legal: 0.9, 0.6, 0.5. Without 0, the image's labels 0 and 1 are left: 1/5 + 5/6 for 1, 4/5 + 1/6 for 2.
        assert player.choose(turn(NOTHING[:2], legal)).tolist() == [0, 1]
