"""Records of OpenSpiel's games: lists of moves for all, SGF for hex and othello."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from game_helpers import look, play
from hypothesis import given, settings
from hypothesis import strategies as st

from keisei_lightning.errors import GameError, IllegalActionError
from keisei_lightning.games import ReplayableGame, SavedGame, make_game, replay
from keisei_lightning.games.open_spiel.game import OpenSpielGame

GAMES = [
    "hex(board_size=4)",
    "hex(board_size=4,swap=True)",
    "hex(num_cols=3,num_rows=5)",
    "othello",
    "connect_four",
    "tic_tac_toe",
    "breakthrough(rows=5,columns=5)",
]


def game_of(name: str) -> OpenSpielGame:
    game = make_game(name, 1)
    assert isinstance(game, OpenSpielGame)
    assert isinstance(game, ReplayableGame)
    game.reset()
    return game


def play_at_random(game: OpenSpielGame, seed: int, plies: int) -> None:
    rng = random.Random(seed)
    for _ in range(plies):
        legal = np.flatnonzero(look(game).mask[0])
        if not legal.size:
            return
        game.step(np.array([rng.choice(legal.tolist())]))


@pytest.mark.parametrize("name", GAMES)
def test_games_come_back_move_for_move_with_their_end_names_and_comments(name: str) -> None:
    for seed in range(12):
        game, other = game_of(name), game_of(name)
        play_at_random(game, seed, 200 if seed % 2 else 5)
        outcome = game.outcome(0) or ("resignation" if seed % 4 else "void")
        for suffix, text in game.record_files(0, players=("al ice", "b]o\\b"), outcome=outcome).items():
            saved = game.read_record(text, suffix)
            assert saved.players == ("al ice", "b]o\\b")
            assert saved.outcome == outcome
            winners = {"first player wins": 0, "second player wins": 1, "resignation": 1 - int(look(game).mover[0])}
            assert saved.winner == winners.get(outcome)
            replay(other, 0, saved)
            assert other.position(0) == game.position(0)
            told = replace(
                saved, comments={0: "the ] start", 2: "a \\ comment\nof two lines"}, headers={"event": "E: 1"}
            )
            for written in game.record_formats:
                again = game.read_record(game.write_record(told, written), written)
                assert again == told


def test_a_games_own_record_is_read_back_as_it_was_written_before() -> None:
    game = game_of("connect_four")
    play(game, "x0", "o1", "x0", "o1", "x0", "o1", "x0")
    saved = game.read_record(game.record(0), ".txt")
    assert (saved.moves, saved.outcome, saved.winner) == (("x0", "o1") * 3 + ("x0",), "first player wins", 0)
    old = f"game: connect_four\nfirst: a\nsecond: b\noutcome: resignation\n\n{game.record(0)[:11]} *\n"
    saved = game.read_record(old, ".txt")
    assert (saved.moves, saved.outcome, saved.winner, saved.players) == (("x0", "o1"), "resignation", 1, ("a", "b"))


def test_names_of_moves_with_blanks_and_brackets_are_read() -> None:
    game = game_of("tic_tac_toe")
    saved = game.read_record("1. x(0,0)\n2. o(1,1) {a comment} 3. x(2,2) *", ".txt")
    assert (saved.moves, saved.comments) == (("x(0,0)", "o(1,1)", "x(2,2)"), {2: "a comment"})
    assert game.read_record("1. x(0,0) 1-0", ".txt").outcome == "resignation"
    assert game.read_record("1. x(0,0) 1/2-1/2", ".txt").outcome == "draw"


class TestSgf:
    def test_hex_is_written_as_the_specification_says(self) -> None:
        game = game_of("hex(num_cols=3,num_rows=4)")
        play(game, "c1", "a4")
        text = game.record_files(0, players=("x", "y"), outcome="resignation")[".sgf"]
        assert text == "(;FF[4]GM[11]CA[UTF-8]AP[keisei-lightning]SZ[3:4]PB[x]PW[y]RE[W+R]\n;B[c1];W[a4])\n"

    def test_hex_of_another_program(self) -> None:
        game = game_of("hex(board_size=5,swap=True)")
        saved = game.read_record(
            " (;FF[4]EV[Cup]GM[11]SZ[5]PB[me\\]]\n;B[A3]C[one];W[swap-pieces]\n(;B[b4];W[resign])(;B[c3]))", ".sgf"
        )
        assert saved.moves == ("a3", "swap", "b4")
        assert (saved.outcome, saved.winner) == ("resignation", 0)
        assert (saved.players, saved.headers, saved.comments) == (("me]", ""), {"event": "Cup"}, {1: "one"})
        assert saved.left_out == ("line 3: what follows: variations or further games",)

    def test_othello_as_edax_writes_it_and_passes_that_others_leave_out(self) -> None:
        game = game_of("othello")
        text = (
            "(;FF[4]GM[2]AP[edax:4.4]\nPC[Edax]DT[2020-01-01]\nPB[a]PW[b]\nSZ[8]AB[e4][d5]AW[d4][e5]PL[B]\nRE[B+10]\n"
            "B[f5];W[d6];\nB[c3];W[d3];\n)\n"
        )
        saved = game.read_record(text, ".sgf")
        assert saved.moves == ("f5", "d6", "c3", "d3")
        assert (saved.players, saved.outcome, saved.winner) == (("a", "b"), "resignation", 0)
        assert saved.headers == {"site": "Edax", "start_date": "2020-01-01"}
        for seed in range(30):
            play_at_random(fresh := game_of("othello"), seed, 100)
            sgf = fresh.record_files(0, players=("a", "b"), outcome=fresh.outcome(0))[".sgf"]
            if "[PA]" in sgf:
                for spelled in ("", "pass", "tt"):
                    assert fresh.read_record(sgf.replace("PA]", f"{spelled}]"), ".sgf").moves == saved_moves(fresh)
                without = sgf.replace(";B[PA]", "").replace(";W[PA]", "")
                assert fresh.read_record(without, ".sgf").moves == saved_moves(fresh)
                return
        pytest.fail("no game has a pass")

    def test_the_board_counts_more_than_the_told_winner(self) -> None:
        game = game_of("hex(board_size=2)")
        saved = game.read_record("(;GM[11]SZ[2]RE[W+];B[a1];W[b1];B[a2])", ".sgf")
        assert (saved.outcome, saved.winner) == ("first player wins", 0)
        assert saved.left_out == ("line 1: the winner, whom the board contradicts (first player wins)",)


def saved_moves(game: OpenSpielGame) -> tuple[str, ...]:
    return game.read_record(game.record(0), ".txt").moves


@pytest.mark.parametrize(
    ("name", "suffix", "text", "message"),
    [
        ("connect_four", ".txt", "", "line 1: there is no game in it"),
        ("connect_four", ".txt", "game: hex\n\n1. a1 *", "line 1: game hex: must be connect_four"),
        ("connect_four", ".txt", "first: a\n\n1. x0\n2. x1 *", "line 4: move 2: x1: is not legal here"),
        ("connect_four", ".txt", "1. x0 3. o1", "line 1: 3.: must be move 2"),
        ("connect_four", ".txt", "1. x0 {", "line 1: a comment has no end"),
        ("connect_four", ".txt", "1. x0 1-0 2. o1", "line 1: 2.: is behind the result"),
        ("connect_four", ".sgf", "", ".sgf: is no record format of connect_four; must be one of .txt"),
        ("tic_tac_toe", ".txt", "1. x(0,0) 2. o(0,0) *", "line 1: move 2: o(0,0): is not legal here"),
        ("hex", ".sgf", "nothing", "line 1: is no SGF: there is no parenthesis"),
        ("hex", ".sgf", "(;GM[2];B[a1])", "line 1: GM[2]: is another game; must be GM[11] (hex)"),
        ("hex", ".sgf", "(;GM[11]SZ[5];B[a1])", "line 1: SZ[5]: is another board; hex has 11 columns and 11 rows here"),
        ("hex", ".sgf", "(;GM[11];B[a1]\n;B[a2])", "line 2: B[a2]: it is White's turn"),
        ("hex", ".sgf", "(;GM[11];B[a1]\n\n;W[a1])", "line 3: move 2: a1: is not legal here"),
        ("hex", ".sgf", "(;GM[11];B[a1];W[swap-pieces])", "line 1: move 2: swap: is not legal here"),
        ("hex", ".sgf", "(;GM[11]AB[c3];W[a1])", "line 1: AB: is another start than hex's own"),
        ("hex", ".sgf", "(;GM[11];B[a1]", "line 1: the closing parenthesis is missing"),
        ("hex", ".sgf", "(;GM[11];B)", "line 1: a property has no value"),
        ("hex", ".sgf", "(;GM[11", "line 1: a value has no closing bracket"),
        ("hex", ".sgf", "()", "line 1: there is no game in it"),
    ],
)
def test_one_line_names_the_line_and_what_is_wrong(name: str, suffix: str, text: str, message: str) -> None:
    with pytest.raises(GameError) as caught:
        game_of(name).read_record(text, suffix)
    assert str(caught.value) == message


def test_a_move_is_found_by_its_name() -> None:
    game = game_of("connect_four")
    assert game.action_name(0, game.action_of(0, "x3")) == "x3"
    with pytest.raises(IllegalActionError, match="connect_four: illegal move 'o3' at ply 0 in position -"):
        game.action_of(0, "o3")
    play(game, *("x0", "o1") * 3, "x0")
    with pytest.raises(IllegalActionError, match="illegal move 'o2' at ply 7"):
        game.action_of(0, "o2")


def test_a_move_behind_the_games_end_is_told() -> None:
    with pytest.raises(GameError, match=r"move 8: the game is over already \(first player wins\)"):
        replay(game_of("connect_four"), 0, SavedGame(start="-", moves=("x0", "o1") * 4))


EXAMPLES = [
    ("hex(board_size=3)", ".sgf", "(;FF[4]GM[11]SZ[3]PB[a]RE[B+R]\n;B[a1];W[b2]C[x\\]y]\n(;B[c3])(;B[c1]))"),
    ("othello", ".sgf", "(;GM[2]SZ[8]AB[e4][d5];B[f5];W[d6];B[c3])"),
    ("tic_tac_toe", ".txt", "game: tic_tac_toe\nfirst: a\n\n1. x(0,0) 2. o(1,1) {c} 3. x(2,2) 1-0"),
]


@settings(max_examples=200, deadline=None)
@given(
    which=st.sampled_from(EXAMPLES),
    edits=st.lists(
        st.tuples(
            st.floats(0, 1), st.integers(0, 12), st.one_of(st.text(max_size=3), st.sampled_from([*"[]();\\{}*\n"]))
        ),
        max_size=4,
    ),
)
def test_a_damaged_record_is_a_game_or_a_game_error(
    which: tuple[str, str, str], edits: list[tuple[float, int, str]]
) -> None:
    name, suffix, text = which
    for place, cut, put in edits:
        at = int(place * len(text))
        text = text[:at] + put + text[at + cut :]
    game = game_of(name)
    try:
        saved = game.read_record(text, suffix)
    except GameError as error:
        message = str(error)
    else:
        message = ""
        replay(game, 0, saved)
    assert "\n" not in message
