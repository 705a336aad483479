import numpy as np
import pytest
import torch

from keisei_lightning.errors import ConfigError
from keisei_lightning.games import GameSpec, game_factory
from keisei_lightning.models import LegalCategorical, PlanesEncoder, build_network, num_parameters
from keisei_lightning.models.heads import expected_score
from keisei_lightning.models.shogi_encoder import ShogiEncoder

KINDS = ["mlp", "resnet"]
VALUE_HEADS = ["scalar", "wdl"]


def positions(game: str, num_games: int, num_plies: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Observations and packed legal moves after random plies."""
    boards = game_factory(game)(num_games)
    rng = np.random.default_rng(0)
    observation = np.empty((num_games, *boards.spec.observation_shape), np.uint8)
    legal, mover = np.empty((num_games, boards.spec.mask_bytes), np.uint8), np.empty(num_games, np.int8)
    boards.reset()
    for _ in range(num_plies):
        boards.observe(observation, legal, mover)
        mask = np.unpackbits(legal, axis=1, count=boards.spec.num_actions)
        boards.step(np.array([rng.choice(np.flatnonzero(row)) for row in mask]))
    boards.observe(observation, legal, mover)
    return torch.from_numpy(observation), torch.from_numpy(legal)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value_head", VALUE_HEADS)
@pytest.mark.parametrize("game", ["connect_four", "shogi", "tic_tac_toe"])
def test_every_network_starts_near_uniform_and_undecided(game, kind, value_head):
    observation, legal = positions(game, 16, 4)
    network = build_network(game_factory(game)(1).spec, kind=kind, num_blocks=2, channels=32, value_head=value_head)
    logits, value = network(observation)
    assert (logits.dtype, value.dtype) == (torch.float32, torch.float32)
    assert value.shape == (16, 1)
    assert not value.any()
    distribution = LegalCategorical(logits, legal)
    uniform = LegalCategorical(torch.zeros_like(logits), legal).entropy()
    assert (uniform - distribution.entropy()).max() < 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value_head", VALUE_HEADS)
def test_every_parameter_learns(kind, value_head, shogi_spec, planes_spec):
    for spec in (shogi_spec, planes_spec):
        network = build_network(spec, kind=kind, num_blocks=2, channels=16, value_head=value_head)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        observation = torch.randint(0, 2, (32, *spec.observation_shape), dtype=torch.uint8)
        before = [parameter.detach().clone() for parameter in network.parameters()]
        for _ in range(3):
            logits, value = network(observation)
            (logits.log_softmax(-1)[:, 0].mean() + value.mean() + value.square().mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
        names = [name for name, _ in network.named_parameters()]
        after = network.parameters()
        assert [name for name, old, new in zip(names, before, after, strict=True) if torch.equal(old, new)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_evaluation_mode_compute_the_same_function(kind, shogi_spec):
    network = build_network(shogi_spec, kind=kind, num_blocks=2, channels=16)
    observation = torch.randint(0, 2, (8, 98), dtype=torch.uint8)
    training = network.train()(observation)
    evaluation = network.eval()(observation)
    assert all(torch.equal(a, b) for a, b in zip(training, evaluation, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_position_is_evaluated_alike_in_any_batch(kind, shogi_spec):
    network = build_network(shogi_spec, kind=kind, num_blocks=2, channels=16)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    observation = torch.randint(0, 2, (8, 98), dtype=torch.uint8)
    together, alone = network(observation), network(observation[3:4])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[3:4], b, atol=1e-5, rtol=1e-4)


def test_a_shogi_logit_is_its_move_type_on_its_square(shogi_spec):
    network = build_network(shogi_spec, num_blocks=1, channels=8)
    features = torch.randn(3, 8, 9, 9).to(memory_format=torch.channels_last)
    head = network.policy_head
    torch.nn.init.normal_(head.bias)
    logits = head(features)
    for move_type, square in ((0, 0), (26, 80), (13, 40)):
        expected = features[:, :, square // 9, square % 9] @ head.weight[move_type] + head.bias[move_type, square]
        torch.testing.assert_close(logits[:, move_type * 81 + square], expected)


def test_the_wdl_value_is_win_minus_loss(planes_spec):
    head = build_network(planes_spec, num_blocks=1, channels=8, value_head="wdl").value_head.output
    with torch.no_grad():
        head.output.bias.copy_(torch.tensor([0.5, 0.3, 0.2]).log())
    features = torch.randn(4, head.output.in_features)
    torch.testing.assert_close(head(features).exp()[0], torch.tensor([0.5, 0.3, 0.2]))
    torch.testing.assert_close(expected_score(head(features)), torch.full((4, 1), 0.3))


@pytest.mark.parametrize(("kind", "equivariant"), [("mlp", False), ("resnet", False), ("resnet", True)])
def test_a_network_of_outcomes_gives_logits_and_value_of_the_same_pass(kind, equivariant):
    spec = game_factory("connect_four")(1).spec
    network = build_network(spec, kind=kind, num_blocks=1, channels=8, value_head="wdl", equivariant=equivariant)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    observation = torch.randint(2, (5, *spec.observation_shape), dtype=torch.uint8)
    logits, value = network(observation)
    same_logits, log_probs = network.evaluate_outcomes(observation)
    assert torch.equal(same_logits, logits)
    assert log_probs.shape == (5, 3)
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(5))
    torch.testing.assert_close(log_probs[:, :1].exp() - log_probs[:, 2:].exp(), value)
    assert network.predicts_outcomes
    assert not build_network(spec, kind=kind, num_blocks=1, channels=8).predicts_outcomes


def test_the_shogi_encoder_puts_each_square_where_its_label_is():
    encoder = ShogiEncoder(5)
    observation = torch.zeros(1, 98, dtype=torch.uint8)
    observation[0, 37] = 8
    features = encoder(observation)
    assert features.shape == (1, 5, 9, 9)
    assert features.is_contiguous(memory_format=torch.channels_last)
    empty = encoder.squares.weight[0] + encoder.state.bias
    torch.testing.assert_close(features[0, :, 37 // 9, 37 % 9], encoder.squares.weight[8] + encoder.state.bias)
    torch.testing.assert_close(features[0, :, 0, 0], empty)


def test_the_shogi_encoder_spreads_hands_and_flags_over_the_board():
    encoder = ShogiEncoder(4)
    observation = torch.zeros(1, 98, dtype=torch.uint8)
    observation[0, 81] = 9  # nine of eighteen pawns
    observation[0, 96] = 1  # in check
    difference = encoder(observation) - encoder(torch.zeros_like(observation))
    expected = 0.5 * encoder.state.weight[:, 0] + encoder.state.weight[:, 15] + encoder.state.weight[:, 17]
    torch.testing.assert_close(difference[0], expected[:, None, None].expand(4, 9, 9))


def test_the_planes_encoder_keeps_the_numbers():
    planes = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    features = PlanesEncoder(3)(planes)
    assert features.dtype == torch.float32
    assert torch.equal(features, planes.float())
    assert features.is_contiguous(memory_format=torch.channels_last)


def test_all_errors_of_a_network_are_reported_at_once(planes_spec):
    with pytest.raises(ConfigError) as caught:
        build_network(planes_spec, kind="transformer", num_blocks=-1, channels=0, value_head="quantile")
    assert caught.value.errors == (
        "kind=transformer: must be one of mlp, resnet",
        "num_blocks=-1: must be a whole number, from 1 to 256",
        "channels=0: must be a whole number, from 1 to 8192",
        "value_head=quantile: must be one of scalar, wdl",
    )


def test_a_number_that_is_not_whole_is_refused(planes_spec):
    with pytest.raises(ConfigError, match=r"channels=1.5: must be a whole number"):
        build_network(planes_spec, channels=1.5)
    with pytest.raises(ConfigError, match=r"num_blocks=True"):
        build_network(planes_spec, num_blocks=True)


def test_a_game_that_no_encoder_fits_is_refused():
    unknown = GameSpec(name="go", num_actions=4, observation_shape=(4,), max_plies=9, encoding="sgf")
    with pytest.raises(
        ConfigError, match="encoding='sgf' of game 'go': encoder sgf: there is none; must be one of planes, shogi"
    ):
        build_network(unknown)
    flat = GameSpec(name="nim", num_actions=4, observation_shape=(4,), max_plies=9)
    with pytest.raises(ConfigError, match=r"game 'nim': observation_shape=\(4,\): must be \(planes, 1, 1\)"):
        build_network(flat)


def test_parameters_are_counted_once_and_only_if_they_train():
    layer = torch.nn.Linear(3, 2)
    assert num_parameters(torch.nn.Sequential(layer, layer)) == 8
    layer.bias.requires_grad_(False)
    assert num_parameters(layer) == 6
