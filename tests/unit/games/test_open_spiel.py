"""The OpenSpiel adapter against OpenSpiel itself."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pyspiel
import pytest
from game_helpers import look, names, perft, play, random_actions

from keisei_lightning.errors import ConfigError, GameError, IllegalActionError, UnsupportedGameError
from keisei_lightning.games import NO_MOVE, make_game
from keisei_lightning.games.open_spiel.game import OpenSpielGame

BUILT_IN = ["tic_tac_toe", "connect_four", "othello", "hex(board_size=5)", "breakthrough(rows=6,columns=6)"]
OTHERS = ["y(board_size=5)", "mancala", "dots_and_boxes", "nim", "go(board_size=5)", "checkers", "mnk(m=5,n=5,k=4)"]


def open_spiel_perft(state: pyspiel.State, depth: int) -> int:
    actions = state.legal_actions()
    if depth == 1:
        return len(actions)
    return sum(open_spiel_perft(state.child(action), depth - 1) for action in actions)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("tic_tac_toe", [9, 72, 504, 3024, 15120]),
        ("connect_four", [7, 49, 343, 2401, 16807]),
    ],
)
def test_move_sequences_are_counted_as_open_spiel_counts_them(name: str, counts: list[int]) -> None:
    assert perft(make_game(name, 512), "-", len(counts)) == counts
    assert open_spiel_perft(pyspiel.load_game(name).new_initial_state(), len(counts)) == counts[-1]


@pytest.mark.parametrize("name", BUILT_IN + OTHERS)
def test_random_games_have_open_spiels_movers_moves_and_results(name: str) -> None:
    game, rng = make_game(name, 4), np.random.default_rng(7)
    states = [pyspiel.load_game(name).new_initial_state() for _ in range(4)]
    for _ in range(120):
        view = look(game)
        for index, state in enumerate(states):
            if not state.is_terminal():
                assert view.mover[index] == state.current_player()
                spelled = sorted(state.action_to_string(action) for action in state.legal_actions())
                assert sorted(names(game, index)) == spelled
        actions = random_actions(view.mask, rng)
        moves = [game.action_name(index, action) if action >= 0 else "" for index, action in enumerate(actions)]
        result = game.step(actions)
        for index, (state, move) in enumerate(zip(states, moves, strict=True)):
            if not move:
                continue
            state.apply_action(state.string_to_action(move))
            assert result.terminated[index] == state.is_terminal()
            expected = np.sign(state.returns()[view.mover[index]]) if state.is_terminal() else 0
            assert result.reward[index] == expected
        if result.terminated.all():
            break


def test_extra_turns_and_passes_keep_reward_and_mover_right() -> None:
    game = make_game("dots_and_boxes(num_rows=1,num_cols=1)", 1)
    movers = []
    for _ in range(4):
        view = look(game)
        movers.append(int(view.mover[0]))
        result = game.step(np.array([np.flatnonzero(view.mask[0])[0]]))
    assert movers == [0, 1, 0, 1]
    assert result.reward[0] == 1  # the second player closed the only box

    othello, rng, passes = make_game("othello", 32), np.random.default_rng(0), 0
    for _ in range(70):
        view = look(othello)
        actions = random_actions(view.mask, rng)
        passes += int((actions == 64).sum())
        othello.step(actions)
    assert passes > 0


def test_the_winner_is_the_one_who_completes_four_in_a_row() -> None:
    game = make_game("connect_four", 1)
    result = play(game, "x0", "o1", "x0", "o1", "x0", "o1", "x0")
    assert (result.reward[0], result.terminated[0], result.truncated[0]) == (1.0, True, False)
    assert game.outcome(0) == "first player wins"
    assert game.record(0) == "1. x0 2. o1 3. x0 4. o1 5. x0 6. o1 7. x0 1-0"
    assert not look(game).mask.any()
    assert look(game).mover[0] == 1


def test_a_full_board_is_a_draw() -> None:
    game = make_game("tic_tac_toe", 1)
    for action in (0, 1, 2, 4, 3, 5, 7, 6, 8):
        result = game.step(np.array([action]))
    assert (result.reward[0], result.terminated[0]) == (0.0, True)
    assert game.outcome(0) == "draw"
    assert game.record(0).endswith(" 1/2-1/2")


def test_a_smaller_ply_limit_is_a_draw() -> None:
    game = make_game("connect_four", 1, max_plies=3)
    assert game.spec.max_plies == 3
    assert not play(game, "x0", "o0").terminated[0]
    result = play(game, "x0")
    assert (result.reward[0], result.terminated[0], result.truncated[0]) == (0.0, True, False)
    assert game.outcome(0) == "max plies"
    assert not look(game).mask.any()
    assert make_game("connect_four", 1, max_plies=1000).spec.max_plies == 42


def test_the_swap_of_hex_is_a_ply_and_a_full_board_has_a_winner() -> None:
    """OpenSpiel's longest game leaves the swap out: the last stone, which wins, was cut off and counted as a draw."""
    moves = [0, 9, 1, 5, 8, 3, 7, 6, 2, 4]  # 9 is the swap
    state = pyspiel.load_game("hex(board_size=3,swap=true)").new_initial_state()
    for move in moves:
        assert not state.is_terminal()
        state.apply_action(move)
    assert (state.is_terminal(), state.returns()) == (True, [-1.0, 1.0])
    game = make_game("hex(board_size=3,swap=true)", 1)
    assert game.spec.max_plies == len(moves) == 10
    results = [game.step(np.array([move])) for move in moves]
    assert [bool(result.terminated[0]) for result in results] == [False] * 9 + [True]
    assert results[-1].reward.tolist() == [1.0]  # the second player made it
    assert game.outcome(0) == "second player wins"
    assert make_game("hex(board_size=3)", 1).spec.max_plies == 9


@pytest.mark.parametrize("name", ["hex(board_size=2,swap=true)", "hex(num_rows=2,num_cols=3)", *BUILT_IN])
def test_no_game_is_drawn_for_its_length_unless_that_was_asked_for(name: str) -> None:
    game, rng = make_game(name, 64), np.random.default_rng(1)
    longest = 0
    while (mask := look(game).mask).any():
        game.step(random_actions(mask, rng))
        longest += 1
    assert longest <= game.spec.max_plies
    assert "max plies" not in {game.outcome(index) for index in range(64)}


def test_a_game_longer_than_open_spiel_says_is_an_error_and_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keisei_lightning.games.open_spiel.game.longest_game", lambda game: 6)
    game = make_game("tic_tac_toe", 1)
    for move in (0, 1, 2, 4, 3):
        game.step(np.array([move]))
    with pytest.raises(GameError, match="no game is longer than 6 plies, and one goes on in position 0 1 2 4 3 5"):
        game.step(np.array([5]))


@pytest.mark.parametrize("label", [65534, 65535, 65536, 65791])
def test_labels_beyond_sixteen_bits_are_whole(label: int) -> None:
    """65535 was illegal, and 65536 put the stone of label 0."""
    game = make_game("mnk(m=257,n=256,k=5)", 1)
    assert look(game).mask.all()
    game.step(np.array([label]))
    assert game.position(0) == str(label)
    assert np.flatnonzero(~look(game).mask[0]).tolist() == [label]


def test_positions_are_the_moves_played() -> None:
    game, copy = make_game("breakthrough(rows=6,columns=6)", 1), make_game("breakthrough(rows=6,columns=6)", 2)
    assert game.position(0) == "-"
    rng = np.random.default_rng(0)
    for _ in range(11):
        game.step(random_actions(look(game).mask, rng))
    copy.set_position(1, game.position(0))
    assert all(np.array_equal(ours[0], theirs[1]) for ours, theirs in zip(look(game), look(copy), strict=True))
    assert copy.record(1) == game.record(0)
    copy.set_position(1, "-")
    assert copy.position(1) == "-"


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        ("0 0", "no legal move at '0'"),
        ("9", "no legal move at '9'"),
        ("a1", "no legal move at 'a1'"),
        ("0 3 1 4 2", "already over"),
        ("0 3 1 4 2 5", "no legal move at '5'"),
    ],
)
def test_move_lists_that_cannot_be_played_are_refused(position: str, reason: str) -> None:
    game = make_game("tic_tac_toe", 1)
    with pytest.raises(GameError, match=reason):
        game.set_position(0, position)
    assert game.position(0) == "-"


@pytest.mark.parametrize("name", BUILT_IN)
def test_labels_of_open_spiels_actions_are_the_movers(name: str) -> None:
    game = make_game(name, 12, opening_plies=5)
    game.seed(2)
    game.reset()
    view = look(game)
    assert set(view.mover.tolist()) == {0, 1}
    for index in range(12):
        state = game.state(index)
        moves = state.legal_actions()
        assert sorted(game.label(index, move) for move in moves) == np.flatnonzero(view.mask[index]).tolist()
        for move in moves:
            spelled = state.action_to_string(state.current_player(), move)
            assert game.action_name(index, game.label(index, move)) == spelled
    with pytest.raises(GameError, match=f"no action {game.spec.num_actions}: they go from 0"):
        game.label(0, game.spec.num_actions)


def test_what_is_played_on_a_copy_of_a_state_stays_there() -> None:
    game = make_game("tic_tac_toe", 2)
    play(game, "x(1,1)", index=1)
    state = game.state(1)
    assert state.history() == [4]
    state.apply_action(0)
    assert [game.position(0), game.position(1)] == ["-", "4"]
    assert game.state(1).history() == [4]


def test_an_illegal_action_is_named_and_moves_no_board() -> None:
    game = make_game("tic_tac_toe", 2)
    play(game, "x(1,1)", index=1)
    before = look(game)
    with pytest.raises(IllegalActionError) as caught:
        game.step(np.array([0, 4]))
    error = caught.value
    assert (error.game, error.ply, error.position, error.move) == ("tic_tac_toe", 1, "4", "4")
    assert all(map(np.array_equal, before, look(game)))
    with pytest.raises(IllegalActionError):
        game.action_name(1, 4)


def test_a_board_may_sit_out() -> None:
    game = make_game("tic_tac_toe", 2)
    result = game.step(np.array([NO_MOVE, 4]))
    assert [game.position(0), game.position(1)] == ["-", "4"]
    assert not result.terminated.any()


@pytest.mark.parametrize("name", BUILT_IN)
def test_openings_have_every_length_and_never_end_a_game(name: str) -> None:
    game = make_game(name, 100, opening_plies=9)
    game.seed(1)
    game.reset()
    lengths = {len(game.position(index).replace("-", "").split()) for index in range(100)}
    assert lengths == set(range(9 if name == "tic_tac_toe" else 10))  # a ninth move would fill the board
    assert look(game).mask.any(axis=1).all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("kuhn_poker", "it has chance moves"),
        ("backgammon", "it has chance moves"),
        ("phantom_ttt", "it hides information"),
        ("matrix_pd", "its players move at the same time"),
        ("crossword", "it has 1 players"),
        ("chess", "whole numbers from 0 to 255"),
        ("hex(size=5)", "Unknown parameter 'size'"),
        ("no_such_game", "no OpenSpiel game 'no_such_game'"),
        ("hex(num_rows=2,num_cols=3,swap=true)", "swap=true must have as many rows as columns"),
    ],
)
def test_games_that_self_play_cannot_train_are_refused_in_one_line(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedGameError, match=reason) as caught:
        OpenSpielGame(name, 1)
    assert len(str(caught.value).splitlines()) == 1


def test_bad_options_are_named() -> None:
    with pytest.raises(ConfigError, match="tic_tac_toe: opening_plies=-1 must be an integer of at least 0"):
        make_game("tic_tac_toe", 1, opening_plies=-1)


def test_pictures_show_the_board() -> None:
    game = make_game("connect_four", 1)
    play(game, "x3", "o3")
    lines = game.render(0).splitlines()
    assert lines[0] == " 0 1 2 3 4 5 6"
    assert lines[5:7] == [" . . .[o]. . .", " . . . x . . ."]
    assert lines[7:] == ["x is the first player, o the second", "ply 2: first to move"]
    root = ElementTree.fromstring(game.render(0, "svg"))
    column = [drawn for drawn in root.iter() if drawn.get("data-part") == "3"]
    lowest, above = sorted((float(drawn.get("data-y", "")) for drawn in column), reverse=True)[:2]
    pieces = [drawn for drawn in root.iter() if drawn.tag.endswith("circle") and drawn.get("r") == "16"]
    places = [(float(drawn.get("cx", "")), float(drawn.get("cy", ""))) for drawn in pieces]
    assert places == [(float(column[0].get("data-x", "")), y) for y in (above, lowest)]
    assert game.render(0, "svg").count("<rect") == 42
    assert make_game("nim", 1).render(0, "svg").count("<text") >= 1
