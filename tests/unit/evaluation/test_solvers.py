"""Exploitability against OpenSpiel's own, and against what is known."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pyspiel
import pytest
import torch
from absl import logging as absl_logging
from numpy.typing import NDArray
from open_spiel.python.algorithms.exploitability import exploitability
from open_spiel.python.policy import Policy
from torch import Tensor, nn

from keisei_lightning.errors import ConfigError, UnsupportedGameError
from keisei_lightning.evaluation import solvers
from keisei_lightning.evaluation.search import WIN, best_moves
from keisei_lightning.evaluation.solvers import PolicyFunction, SmallGame, policy_probabilities, uniform_policy
from keisei_lightning.games import make_game
from keisei_lightning.games.open_spiel.views import seat_view
from keisei_lightning.models import ActorCritic

SMALL = [
    "breakthrough(rows=4,columns=2)",
    "clobber(rows=2,columns=4)",
    "connect_four(rows=3,columns=3,x_in_row=3)",
    "dots_and_boxes(num_rows=1,num_cols=2)",
    "hex(board_size=2)",
    "mnk(m=2,n=3,k=2)",
    "nim(pile_sizes=1;2;3)",
    "y(board_size=3)",
]
KNOWN_TO_OPEN_SPIEL = [name for name in SMALL if name.partition("(")[0] not in ("breakthrough", "dots_and_boxes")]
"""OpenSpiel has no information states of breakthrough, and takes long for dots and boxes."""

# OpenSpiel's algorithms import absl, whose handler closes what was stderr then (pytest's own capture) as soon as
# logging is configured anew.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(scope="module")
def tic_tac_toe() -> SmallGame:
    return SmallGame("tic_tac_toe")


def unpacked(legal: NDArray[np.uint8], num_actions: int) -> NDArray[np.bool_]:
    return np.unpackbits(legal, axis=1, count=num_actions).astype(np.bool_)


def some_policy(num_actions: int, sharpness: float = 1.0) -> PolicyFunction:
    """The softmax of a linear map of the observation: nearly uniform to nearly deterministic by its sharpness."""
    weights = np.sin(np.arange(1000 * num_actions)).reshape(1000, num_actions)

    def policy(observation: NDArray[np.uint8], legal: NDArray[np.uint8]) -> NDArray[np.float64]:
        flat = observation.reshape(len(observation), -1).astype(np.float64)
        logits = sharpness * (flat @ weights[: flat.shape[1]])
        odds = np.where(unpacked(legal, num_actions), np.exp(logits - logits.max(axis=1, keepdims=True)), 0)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    return policy


class OpenSpielPolicy(Policy):
    """The same policy as OpenSpiel asks for it: state by state."""

    def __init__(self, name: str, policy: PolicyFunction) -> None:
        super().__init__(pyspiel.load_game(name), [0, 1])
        self._board = make_game(name, 1)
        self._policy = policy
        self._to_label = seat_view(self.game).to_label
        self._known: dict[str, dict[int, float]] = {}

    def action_probabilities(self, state: Any, player_id: int | None = None) -> dict[int, float]:
        history = state.history_str()
        if history not in self._known:
            self._known[history] = self._ask(state)
        return self._known[history]

    def _ask(self, state: Any) -> dict[int, float]:
        self._board.set_position(0, " ".join(map(str, state.history())) or "-")
        spec = self._board.spec
        observation, legal = np.zeros((1, *spec.observation_shape), np.uint8), np.zeros((1, spec.mask_bytes), np.uint8)
        self._board.observe(observation, legal, np.zeros(1, np.int8))
        probabilities = self._policy(observation, legal)[0]
        to_label = self._to_label[state.current_player()]
        return {move: float(probabilities[to_label[move]]) for move in state.legal_actions()}


@pytest.mark.parametrize("sharpness", [0.1, 1.0])
@pytest.mark.parametrize("name", KNOWN_TO_OPEN_SPIEL)
def test_exploitability_is_that_of_open_spiel(name: str, sharpness: float) -> None:
    game = SmallGame(name)
    policy = some_policy(game.num_actions, sharpness)
    expected = exploitability(pyspiel.load_game(name), OpenSpielPolicy(name, policy))
    assert game.exploitability(policy) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tic_tac_toe", 0.9909384962671148),
        ("dots_and_boxes(num_rows=1,num_cols=2)", 0.6121542093707246),  # who closes a box moves again
    ],
)
def test_exploitability_is_what_open_spiel_once_found_in_games_where_it_takes_long(name: str, expected: float) -> None:
    game = SmallGame(name)
    assert game.exploitability(some_policy(game.num_actions)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_positions_that_are_reached_in_several_ways_may_count_as_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = SmallGame(name)
    monkeypatch.setattr(solvers, "_BOARD_TELLS_ALL", frozenset())
    by_history = SmallGame(name)
    if not name.startswith("dots_and_boxes"):  # whose observation tells who drew which line
        assert by_history.num_positions > merged.num_positions
    policy = some_policy(merged.num_actions, 0.3)
    expected = pytest.approx(by_history.best_response_values(policy), abs=1e-12)
    assert merged.best_response_values(policy) == expected
    assert merged.values()[0] == by_history.values()[0]


def test_tic_tac_toe_has_4520_positions_and_the_exploitability_that_is_known_for_uniform_play(
    tic_tac_toe: SmallGame,
) -> None:
    assert tic_tac_toe.num_positions == 4520
    assert (tic_tac_toe.name, tic_tac_toe.num_actions) == ("tic_tac_toe", 9)
    uniform = uniform_policy(9)
    # OpenSpiel 2.0.2, exploitability.exploitability(game, UniformRandomPolicy): 20 seconds.
    assert tic_tac_toe.exploitability(uniform) == pytest.approx(0.9598296957671967, abs=1e-12)
    assert tic_tac_toe.best_response_values(uniform) == pytest.approx((0.99479167, 0.92486772), abs=1e-8)
    assert tic_tac_toe.exploitability(uniform, batch_size=7) == tic_tac_toe.exploitability(uniform)


@pytest.mark.parametrize("name", SMALL)
def test_perfect_play_cannot_be_exploited(name: str) -> None:
    game = SmallGame(name)
    first, second = game.best_response_values(game.optimal_policy())
    value = pytest.approx(game.values()[0], abs=1e-12)
    assert (first, -second) == (value, value)


def test_perfect_play_of_tic_tac_toe_draws_and_its_values_are_those_of_minimax(tic_tac_toe: SmallGame) -> None:
    assert tic_tac_toe.exploitability(tic_tac_toe.optimal_policy()) == 0
    values = tic_tac_toe.values()
    assert values[0] == 0
    assert set(values.tolist()) == {-1, 0, 1}
    number = {row.tobytes(): index for index, row in enumerate(tic_tac_toe.observation)}
    assert len(number) == 4520
    board = make_game("tic_tac_toe", 60, opening_plies=6)
    board.seed(1)
    board.reset()
    observation, legal = np.zeros((60, 3, 3, 3), np.uint8), np.zeros((60, 2), np.uint8)
    board.observe(observation, legal, np.zeros(60, np.int8))
    game, best = pyspiel.load_game("tic_tac_toe"), tic_tac_toe.optimal_policy()(observation, legal)
    for index in range(60):
        state = game.new_initial_state()
        for move in board.position(index).replace("-", "").split():
            state.apply_action(int(move))
        value, moves = best_moves(state, 9)
        assert values[number[observation[index].tobytes()]] == round(value / WIN)
        assert set(moves) <= set(np.flatnonzero(best[index]).tolist())  # the quickest of them


def test_a_player_who_can_be_beaten_from_both_seats_has_exploitability_one(tic_tac_toe: SmallGame) -> None:
    def lowest(observation: NDArray[np.uint8], legal: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.eye(9)[unpacked(legal, 9).argmax(axis=1)]

    assert tic_tac_toe.best_response_values(lowest) == (1.0, 1.0)
    assert tic_tac_toe.exploitability(lowest) == 1.0


def test_games_that_are_too_large_are_refused_in_one_line() -> None:
    with pytest.raises(UnsupportedGameError) as caught:
        SmallGame("connect_four", max_positions=1000)
    assert caught.value.errors == (
        "game=connect_four: has more than max_positions=1000 positions; exact measures need a small game, such as "
        "tic_tac_toe",
    )
    assert SmallGame("tic_tac_toe", max_positions=4520).num_positions == 4520
    with pytest.raises(UnsupportedGameError, match="max_positions=4519"):
        SmallGame("tic_tac_toe", max_positions=4519)
    with pytest.raises(ConfigError, match="SmallGame: max_positions=0 must be an integer of at least 1"):
        SmallGame("tic_tac_toe", max_positions=0)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.full((4520, 8), 0.125), r"probabilities are \(4520, 8\), must be \(4520, 9\)"),
        (np.full((4520, 9), 1 / 9), "0 for illegal actions"),
        (np.full((4520, 9), np.nan), "must be finite"),
        (np.zeros((4520, 9)), "add up to 0.0 to 0.0, must be 1"),
    ],
)
def test_what_is_no_policy_is_refused(tic_tac_toe: SmallGame, returned: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tic_tac_toe.exploitability(lambda observation, legal: returned, batch_size=5000)


class ByBias(nn.Module):
    """The same logits everywhere, with dropout in training mode; notes the modes that it is called in."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.dropout = nn.Dropout(0.5)
        self.asked: list[tuple[bool, bool]] = []

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append((self.training, self.dropout.training))
        logits = self.dropout(self.logits.expand(len(observation), -1))
        return logits, observation.new_zeros(len(observation), 1, dtype=torch.float32)


LEGAL = np.packbits(np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1]], np.uint8), axis=1)


def test_a_networks_policy_is_the_softmax_of_its_legal_logits() -> None:
    actor_critic = ActorCritic(ByBias([np.log(1.0), np.log(2.0), np.log(6.0)]))
    observation = np.zeros((3, 1, 1, 1), np.uint8)
    sampled = policy_probabilities(actor_critic, greedy=False)(observation, LEGAL)
    assert sampled.dtype == np.float64
    np.testing.assert_allclose(sampled, [[1 / 3, 2 / 3, 0], [0, 1 / 4, 3 / 4], [1 / 9, 2 / 9, 6 / 9]], atol=1e-7)
    cold = policy_probabilities(actor_critic, greedy=False, temperature=0.5)(observation, LEGAL)
    np.testing.assert_allclose(cold, [[1 / 5, 4 / 5, 0], [0, 1 / 10, 9 / 10], [1 / 41, 4 / 41, 36 / 41]], atol=1e-7)
    greedy = policy_probabilities(actor_critic, greedy=True)(observation, LEGAL)
    assert greedy.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 1]]


def test_of_equal_logits_greedy_play_takes_the_lowest_label_as_a_match_does() -> None:
    policy = policy_probabilities(ActorCritic(ByBias([1.0, 1.0, 1.0])), greedy=True)
    assert policy(np.zeros((3, 1, 1, 1), np.uint8), LEGAL).argmax(axis=1).tolist() == [0, 1, 0]


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_no_policy(fault: float, greedy: bool) -> None:
    policy = policy_probabilities(ActorCritic(ByBias([0.0, fault, 0.0])), greedy=greedy)
    with pytest.raises(ValueError, match="logits of the legal moves are not finite"):
        policy(np.zeros((3, 1, 1, 1), np.uint8), LEGAL)


def test_a_network_is_evaluated_in_evaluation_mode_and_its_own_mode_is_restored() -> None:
    network = ByBias([0.0, 0.0, 0.0])
    actor_critic = ActorCritic(network)
    actor_critic.eval()
    network.dropout.train()
    before = torch.get_rng_state()
    policy_probabilities(actor_critic, greedy=False)(np.zeros((3, 1, 1, 1), np.uint8), LEGAL)
    assert network.asked == [(False, False)]
    assert [module.training for module in actor_critic.modules()] == [False, False, True]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_out_of_range_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match=f"temperature={temperature}: must be above 0"):
        policy_probabilities(ActorCritic(ByBias([0.0])), greedy=False, temperature=temperature)


def test_an_untrained_network_is_about_as_exploitable_as_uniform_play(tic_tac_toe: SmallGame) -> None:
    actor_critic = ActorCritic(ByBias(9 * [0.0]))
    sampled = tic_tac_toe.exploitability(policy_probabilities(actor_critic, greedy=False), batch_size=1000)
    assert sampled == pytest.approx(tic_tac_toe.exploitability(uniform_policy(9)), abs=1e-12)
