"""Searching players against plain minimax, known positions and each other."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyspiel
import pytest
from fakes import CountingGame

from keisei_lightning.errors import ConfigError, GameError, UnsupportedGameError
from keisei_lightning.evaluation.arena import play_match
from keisei_lightning.evaluation.players import Player, RandomPlayer, Turn
from keisei_lightning.evaluation.search import (
    WIN,
    AlphaBetaPlayer,
    MCTSPlayer,
    best_moves,
    make_alpha_beta,
    make_mcts,
    make_tactics,
)
from keisei_lightning.games import Game, game_factory, make_game

MAKERS: list[Callable[..., Player]] = [make_alpha_beta, make_tactics, make_mcts]


def minimax(state: Any, depth: int, ply: int = 0) -> dict[int, int]:
    """Value of each move for the mover, without any pruning."""
    values = {}
    mover = state.current_player()
    for move in state.legal_actions():
        child = state.child(move)
        if child.is_terminal():
            values[move] = int(child.player_return(mover)) * (WIN - ply - 1)
        elif depth == 1:
            values[move] = 0
        else:
            value = max(minimax(child, depth - 1, ply + 1).values())
            values[move] = value if child.current_player() == mover else -value
    return values


def random_state(game: Any, plies: int, rng: random.Random) -> Any:
    """A state some random plies from the start that is not over."""
    while True:
        state = game.new_initial_state()
        for _ in range(plies):
            if state.is_terminal():
                break
            state.apply_action(rng.choice(state.legal_actions()))
        if not state.is_terminal():
            return state


def turn(game: Game) -> Turn:
    observation = np.zeros((game.num_games, *game.spec.observation_shape), np.uint8)
    legal = np.zeros((game.num_games, game.spec.mask_bytes), np.uint8)
    game.observe(observation, legal, np.zeros(game.num_games, np.int8))
    return Turn(game=game, indices=np.arange(game.num_games), observation=observation, legal=legal)


def answers(player: Player, *positions: str, name: str = "connect_four", **options: object) -> list[int]:
    """What a player does in some positions, as action labels."""
    game = make_game(name, len(positions), **options)
    for index, position in enumerate(positions):
        game.set_position(index, position)
    return player.choose(turn(game)).tolist()


@pytest.mark.parametrize(
    ("name", "plies", "depth"),
    [
        ("tic_tac_toe", (2, 8), 9),
        ("connect_four", (4, 38), 4),
        ("connect_four", (30, 38), 12),
        ("hex(board_size=3)", (1, 7), 5),
        ("breakthrough(rows=5,columns=3)", (0, 7), 4),
        ("dots_and_boxes", (4, 9), 5),  # who closes a box moves again
        ("nim", (2, 6), 4),  # who takes the last piece loses
        ("othello", (50, 58), 4),  # passes
    ],
)
def test_alpha_beta_finds_the_value_and_all_the_best_moves_of_plain_minimax(
    name: str, plies: tuple[int, int], depth: int
) -> None:
    game, rng = pyspiel.load_game(name), random.Random(3)
    values = set()
    for _ in range(25):
        state = random_state(game, rng.randint(*plies), rng)
        before = state.history()
        by_move = minimax(state, depth) if depth < 12 else minimax(state, 42 - state.move_number())
        value = max(by_move.values())
        expected = (value, sorted(move for move in by_move if by_move[move] == value))
        assert best_moves(state, depth) == expected
        assert best_moves(state, depth, lambda move: -move) == expected
        assert state.history() == before
        values.add(np.sign(value))
    assert len(values) > 1  # the positions were not all alike


def played(name: str, moves: str) -> Any:
    state = pyspiel.load_game(name).new_initial_state()
    for move in moves.split():
        state.apply_action(int(move))
    return state


def test_a_quick_win_is_better_than_a_slow_one_and_a_slow_loss_than_a_quick_one() -> None:
    assert best_moves(played("connect_four", "3 0 3 0 3 1"), 5) == (WIN - 1, [3])
    open_two = played("connect_four", "2 2 3 3")  # a third beside them is open at both ends
    assert best_moves(open_two, 2) == (0, list(range(7)))
    assert best_moves(open_two, 3) == (WIN - 3, [1, 4])
    assert best_moves(open_two, 7) == (WIN - 3, [1, 4])
    assert best_moves(played("connect_four", "2 2 3 3 4"), 4) == (2 - WIN, list(range(7)))  # one end stays open
    assert best_moves(played("tic_tac_toe", "0 1 4"), 9) == (4 - WIN, [8])  # closes the diagonal; two threats follow


def test_perfect_play_draws_tic_tac_toe_from_the_start() -> None:
    assert best_moves(played("tic_tac_toe", ""), 9) == (0, list(range(9)))


@pytest.mark.parametrize("make", [make_alpha_beta, make_tactics])
def test_alpha_beta_and_tactics_win_at_once_and_close_threats(make: Callable[..., Player]) -> None:
    player = make(make_game("connect_four", 1).spec, seed=0, name="some")
    assert isinstance(player, Player)
    assert player.name == "some"
    assert answers(player, "0 1 0 1 0", "0 1 0 1 0 1", "0 6 1 6 2", "0 6 1 6 2 6", "0 1 0 1 0 1 6") == [0, 0, 3, 3, 1]


def test_tactics_take_the_most_central_column_that_does_not_lose_at_once() -> None:
    player = make_tactics(make_game("connect_four", 1).spec, seed=0, name="tactics")
    assert answers(player, "-", "3", "3 3 3 3 3") == [3, 3, 3]
    full_centre = Counter(answers(player, *200 * ["3 3 3 3 3 3"]))
    assert sorted(full_centre) == [2, 4]
    assert 70 < full_centre[2] < 130  # 4.2 standard deviations
    # x has columns 0, 1 and 2 of the second row: a stone of o in the empty column 3 would let it have the fourth.
    assert set(answers(player, *20 * ["2 0 0 1 1 6 2"])) == {2, 4}


def test_ties_are_broken_at_random_by_the_players_own_seed() -> None:
    spec = make_game("hex(board_size=3)", 1).spec
    players = [AlphaBetaPlayer(spec, depth=1, seed=seed) for seed in (1, 1, 2)]
    one, same, other = (answers(player, *900 * ["-"], name="hex(board_size=3)") for player in players)
    assert one == same != other
    assert sorted(Counter(one)) == list(range(9))
    assert all(abs(count - 100) < 40 for count in Counter(one).values())  # 4.2 standard deviations


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "name",
    ["connect_four", "hex(board_size=4)", "breakthrough(rows=5,columns=4)", "othello", "nim", "mnk(m=4,n=4,k=3)"],
)
def test_both_seats_answer_with_legal_labels_in_the_movers_view(name: str, make: Callable[..., Player]) -> None:
    game = make_game(name, 30, opening_plies=7)
    game.seed(4)
    game.reset()
    shown = turn(game)
    before = [game.position(index) for index in range(30)]
    actions = make(game.spec, seed=0, name="some").choose(shown)
    legal = np.unpackbits(shown.legal, axis=1, count=game.spec.num_actions)
    assert actions.dtype == np.int64
    assert legal[np.arange(30), actions].all()
    assert [game.position(index) for index in range(30)] == before


@pytest.mark.parametrize("make", MAKERS)
def test_a_board_of_the_second_player_is_won_in_his_view(make: Callable[..., Player]) -> None:
    # Second to move, left to right: three stones of its own in a row of four, and the last square free.
    game = make_game("hex(board_size=4)", 1)
    game.set_position(0, "0 8 1 9 2 10 3")
    action = make(game.spec, seed=0, name="some").choose(turn(game))
    result = game.step(action)
    assert result.reward.tolist() == [1.0]
    assert game.outcome(0) == "second player wins"


@pytest.mark.parametrize("make", MAKERS)
def test_boards_that_are_over_or_not_asked_about_are_left_out(make: Callable[..., Player]) -> None:
    game = make_game("tic_tac_toe", 3)
    game.set_position(0, "0 3 1 4")
    game.set_position(2, "0 3 1 4 8")
    game.step(np.array([2, -1, -1]))
    player = make(game.spec, seed=0, name="some")
    shown = turn(game)
    assert player.choose(shown).tolist()[0] == -1
    some = Turn(game=game, indices=np.array([2]), observation=shown.observation[2:], legal=shown.legal[2:])
    assert player.choose(some).tolist() == [5]


def test_a_smaller_ply_limit_is_seen() -> None:
    position = "2 2 3 3"  # a win in three plies, by columns 1 and 4
    player = AlphaBetaPlayer(make_game("connect_four", 1).spec, depth=3)
    assert set(answers(player, *50 * [position])) == {1, 4}
    limited = make_game("connect_four", 1, max_plies=6).spec
    assert set(answers(AlphaBetaPlayer(limited, depth=3), *50 * [position], max_plies=6)) == set(range(7))


def test_tree_search_wins_at_once_closes_threats_and_repeats_itself() -> None:
    spec = make_game("connect_four", 1).spec
    positions = ["0 1 0 1 0", "0 1 0 1 0 1", "0 6 1 6 2", "0 6 1 6 2 6"]
    assert answers(MCTSPlayer(spec, simulations=300), *positions) == [0, 0, 3, 3]
    one, same = (answers(MCTSPlayer(spec, simulations=5, seed=3), *40 * ["3"]) for _ in range(2))
    assert one == same
    assert len(set(one)) > 1


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("connect_four", make_alpha_beta),
        ("connect_four", make_tactics),
        ("connect_four", make_mcts),
        ("hex(board_size=4)", make_alpha_beta),
        ("breakthrough(rows=5,columns=4)", make_tactics),
    ],
)
def test_they_beat_a_random_player_and_play_the_same_match_again(name: str, make: Callable[..., Player]) -> None:
    def match() -> Any:
        game = game_factory(name)
        spec = game(1).spec
        options = {"depth": 3} if make is make_alpha_beta else {"simulations": 50} if make is make_mcts else {}
        player = make(spec, seed=1, name="some", **options)
        return play_match(game, player, RandomPlayer(spec.num_actions, 2), num_games=20, opening_plies=2, seed=3)

    first, second = match(), match()
    assert first == second
    assert first.score >= 0.75


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (make_alpha_beta, {"depth": 0}, "player rung: depth=0 must be an integer of at least 1"),
        (make_alpha_beta, {"depth": 2.5}, "player rung: depth=2.5 must be an integer of at least 1"),
        (make_mcts, {"simulations": 0}, "player rung: simulations=0 must be an integer of at least 1"),
        (make_mcts, {"simulations": True}, "player rung: simulations=True must be an integer of at least 1"),
    ],
)
def test_options_out_of_range_are_named(make: Callable[..., Player], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(make_game("tic_tac_toe", 1).spec, seed=0, name="rung", **options)
    assert caught.value.errors == (message,)


@pytest.mark.parametrize("make", MAKERS)
def test_games_that_are_not_open_spiels_are_refused(make: Callable[..., Player]) -> None:
    # OpenSpiel has a game called shogi too, with other actions than ours.
    for game, name in ((make_game("shogi", 1), "shogi"), (CountingGame(1), "counting")):
        with pytest.raises(UnsupportedGameError) as caught:
            make(game.spec, seed=0, name="rung")
        assert caught.value.errors == (f"player rung: game={name}: must be one of OpenSpiel's, such as connect_four",)


def test_boards_of_another_kind_are_refused() -> None:
    player = make_tactics(make_game("tic_tac_toe", 1).spec, seed=0, name="tactics")
    with pytest.raises(GameError, match="player tactics: it searches OpenSpielGame boards, not CountingGame"):
        player.choose(turn(CountingGame(1)))
