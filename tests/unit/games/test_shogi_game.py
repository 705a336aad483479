"""Shogi as a game object: options, openings, refusals, threads, positions, pictures and records."""

from __future__ import annotations

import gc
import random
import re
import sys
import threading
import weakref

import numpy as np
import pytest
from game_helpers import look, names, play, random_actions
from rsshogi.core import Board, Move
from rsshogi.record import Record

from keisei_lightning.errors import ConfigError, GameError, IllegalActionError
from keisei_lightning.games import NO_MOVE, make_game
from keisei_lightning.games.shogi import boards as shogi_boards
from keisei_lightning.games.shogi.codec import OBSERVATION_BYTES, REPETITION_BYTE
from keisei_lightning.games.shogi.game import OUTCOMES, Shogi
from keisei_lightning.games.shogi.rules import random_opening

pytestmark = pytest.mark.usefixtures("shogi_boards")


def test_the_start_position_in_bytes() -> None:
    view = look(Shogi(1))
    observation = view.observation[0]
    assert view.observation.shape == (1, OBSERVATION_BYTES)
    assert observation[9 * 1 + 7] == 6  # 2h: the mover's rook
    assert observation[9 * 1 + 1] == 14 + 5  # 2b: the opponent's bishop
    assert np.count_nonzero(observation[:81]) == 40
    assert not observation[81:].any()
    assert view.mask.sum() == 30
    assert view.mover[0] == 0


def test_the_arrays_of_a_long_game_are_those_of_its_positions() -> None:
    game, copy = Shogi(16), Shogi(16)
    rng = np.random.default_rng(3)
    for _ in range(200):
        view = look(game)
        going_on = np.array([not game.outcome(index) for index in range(16)])
        for index in np.flatnonzero(going_on).tolist():
            copy.set_position(index, game.position(index))
        restored = look(copy)
        known = np.delete(np.arange(OBSERVATION_BYTES), REPETITION_BYTE)
        np.testing.assert_array_equal(view.observation[going_on][:, known], restored.observation[going_on][:, known])
        np.testing.assert_array_equal(view.mask[going_on], restored.mask[going_on])
        result = game.step(random_actions(view.mask, rng))
        if result.terminated.any():
            game.reset(np.flatnonzero(result.terminated))


def test_an_illegal_action_names_game_ply_position_and_move_and_moves_no_board() -> None:
    game = make_game("shogi", 2)
    play(game, "7g7f", index=1)
    before = look(game)
    legal = int(np.flatnonzero(before.mask[0])[0])
    with pytest.raises(IllegalActionError) as caught:
        game.step(np.array([legal, 20 * 81 + 40]))
    error = caught.value
    assert (error.game, error.ply) == ("shogi", 1)
    assert error.position == "lnsgkgsnl/1r5b1/ppppppppp/9/9/2P6/PP1PPPPPP/1B5R1/LNSGKGSNL w - 2"
    assert error.move == "1660 (drop P to 5e in the mover's view)"
    assert all(map(np.array_equal, before, look(game)))


@pytest.mark.parametrize("action", [-2, 2187, 2191, 1 << 40])
def test_numbers_that_are_no_label_are_illegal(action: int) -> None:
    with pytest.raises(IllegalActionError):
        Shogi(1).step(np.array([action]))


@pytest.mark.parametrize("actions", [np.zeros(3, dtype=np.int64), np.zeros((2, 1), dtype=np.int64), np.zeros(2)])
def test_actions_of_another_shape_or_type_are_refused(actions: np.ndarray) -> None:
    with pytest.raises(GameError, match=r"actions must be integers of shape \(2,\)"):
        Shogi(2).step(actions)


def test_a_finished_board_sits_still_until_its_reset() -> None:
    game = Shogi(2)
    game.set_position(0, "8k/9/8P/9/9/9/9/9/4K4 b G 1")
    play(game, "G*1b")
    before = look(game)
    result = game.step(np.array([NO_MOVE, NO_MOVE]))
    assert (result.terminated.tolist(), result.reward.tolist()) == ([True, False], [0.0, 0.0])
    assert all(map(np.array_equal, before, look(game)))
    with pytest.raises(IllegalActionError):
        game.step(np.array([0, NO_MOVE]))
    game.reset(np.array([0]))
    assert look(game).mask[0].sum() == 30
    assert game.outcome(0) == ""


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"max_plies": 0}, "shogi: max_plies=0 must be an integer of at least 1"),
        ({"opening_plies": -1}, "shogi: opening_plies=-1 must be an integer of at least 0"),
        ({"opening_plies": 2.5}, "shogi: opening_plies=2.5 must be an integer of at least 0"),
        ({"max_plies": True}, "shogi: max_plies=True must be an integer of at least 1"),
        ({"declaration": "no"}, "shogi: declaration='no' must be True or False"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_game("shogi", 1, **options)
    assert caught.value.errors == (fault,)


def test_a_game_has_at_least_one_board_and_no_board_beyond_the_last() -> None:
    with pytest.raises(ConfigError, match="num_games=0"):
        Shogi(0)
    with pytest.raises(GameError, match="there is no board 2: indices go from 0 to 1"):
        Shogi(2).position(2)
    with pytest.raises(GameError, match="there is no board -1"):
        Shogi(2).reset(np.array([-1]))
    with pytest.raises(GameError, match="named by their indices, not by bool"):
        Shogi(2).reset(np.array([True, False]))


def test_a_board_named_twice_is_reset_once_and_the_others_not_at_all() -> None:
    game = Shogi(2)
    play(game, "7g7f", index=1)
    game.reset(np.array([0, 0]))
    assert look(game).mask.sum(axis=1).tolist() == [30, 30]
    assert game.position(1).endswith(" w - 2")


# Openings


def test_openings_have_every_length_up_to_the_limit_and_none_ends_the_game() -> None:
    game = Shogi(200, opening_plies=4)
    game.seed(5)
    game.reset()
    plies = [int(game.position(index).split()[-1]) - 1 for index in range(200)]
    assert set(plies) == {0, 1, 2, 3, 4}
    assert look(game).mask.any(axis=1).all()


def test_long_openings_never_end_the_game_and_are_part_of_its_record() -> None:
    game = Shogi(100, opening_plies=80)
    game.seed(0)
    game.reset()
    view = look(game)
    assert view.mask.any(axis=1).all()
    plies = [int(game.position(index).split()[-1]) - 1 for index in range(100)]
    assert max(plies) > 60
    assert [len(Record.from_kif_str(game.record(index)).moves) for index in range(100)] == plies
    assert view.mover.tolist() == [ply % 2 for ply in plies]


def test_openings_stop_before_the_ply_limit() -> None:
    game = Shogi(50, opening_plies=40, max_plies=3)
    game.reset()
    assert look(game).mask.any(axis=1).all()


def test_openings_follow_the_seed() -> None:
    def positions(seed: int) -> list[str]:
        game = Shogi(8, opening_plies=20)
        game.seed(seed)
        game.reset()
        return [game.position(index) for index in range(8)]

    assert positions(1) == positions(1)
    assert positions(1) != positions(2)


class FirstChoice(random.Random):
    """Always begins at the same move."""

    def __init__(self, first: int) -> None:
        super().__init__(0)
        self.first = first

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return min(self.first, start - 1)


def test_an_opening_passes_over_moves_that_would_end_the_game() -> None:
    start = Board("8k/9/8P/9/9/9/9/9/4K4 b G 1")
    options = [move.to_usi() for move in start.legal_moves()]
    played = set()
    for first in range(len(options)):
        board = start.copy()
        (code,) = random_opening(board, {board.zobrist_hash(): 1}, 1, FirstChoice(first), declaration=True)
        played.add(Move(code).to_usi())
    assert "G*1b" in options
    assert played == {option for option in options if not ends_the_game(start, option)}


def ends_the_game(start: Board, option: str) -> bool:
    board = start.copy()
    board.apply_usi(option)
    return not board.legal_moves()


def test_an_opening_stops_where_every_move_would_end_the_game() -> None:
    board = Board("8k/9/8P/9/9/9/9/9/4K4 b G 1")
    only = {move.to_usi() for move in board.legal_moves()}
    seen = {}
    for option in only:
        copy = board.copy()
        copy.apply_usi(option)
        seen[copy.zobrist_hash()] = 3  # each would be a fourth occurrence
    before = board.to_sfen()
    assert random_opening(board, seen, 5, random.Random(0), declaration=True) == []
    assert board.to_sfen() == before


# Threads


def test_a_second_thread_is_refused_before_it_could_abort_the_process() -> None:
    game = Shogi(1)
    game.reset()
    errors: list[BaseException] = []

    def intrude() -> None:
        for use in (game.reset, lambda: look(game), lambda: game.step(np.array([NO_MOVE])), lambda: game.position(0)):
            try:
                use()
            except GameError as error:
                errors.append(error)

    thread = threading.Thread(target=intrude)
    thread.start()
    thread.join()
    assert len(errors) == 4
    assert "belongs to the thread" in str(errors[0])


def test_a_game_may_be_made_in_one_thread_and_played_in_another() -> None:
    game, found = Shogi(1), []
    thread = threading.Thread(target=lambda: found.append((look(game).mask.sum(), setattr(game, "_made", None))))
    thread.start()
    thread.join()
    assert found[0][0] == 30


# Notation


def test_positions_are_sfen_and_moves_are_usi() -> None:
    game = Shogi(1)
    play(game, "7g7f", "3c3d", "8h2b+")
    assert game.position(0) == "lnsgkgsnl/1r5+B1/pppppp1pp/6p2/9/2P6/PP1PPPPPP/7R1/LNSGKGSNL w B 4"
    assert "3a2b" in names(game)
    assert game.usi(0) == f"position sfen {Board().to_sfen()} moves 7g7f 3c3d 8h2b+"
    with pytest.raises(IllegalActionError):
        game.action_name(0, 0)


def test_a_sfen_may_lack_its_move_number() -> None:
    game = Shogi(1)
    game.set_position(0, "4k4/9/9/9/9/9/9/9/4K4 w -")
    assert game.position(0) == "4k4/9/9/9/9/9/9/9/4K4 w - 1"


ENDS = {
    "checkmate": ("8k/9/8P/9/9/9/9/9/4K4 b G 1", ("G*1b",), "詰み"),
    "no legal move": ("8k/9/6N2/7G1/9/9/9/9/4K4 b - 1", ("2d2c",), "投了"),
    "repetition": ("startpos", ("2h3h", "8b7b", "3h2h", "7b8b") * 3, "千日手"),
    "perpetual check": ("4k4/9/9/9/9/9/9/4R4/K8 w - 1", ("5a4a", "5h4h", "4a5a", "4h5h") * 3, "反則"),
    "declaration": ("4K4/RBGGGGSSS/8S/9/9/9/9/9/4k4 w RB 1", ("5i4i",), "入玉勝ち"),
    "max plies": ("startpos", ("7g7f",), "最大手数"),
}


def test_every_outcome_is_told_here() -> None:
    assert set(ENDS) == set(OUTCOMES)


# The CSA's standard, version 3.0, line by line: what is before the moves in this order, then moves and how it ended.
PIECE = r"(?:FU|KY|KE|GI|KI|KA|HI|OU|TO|NY|NK|NG|UM|RY)"
CSA_LINES = (
    r"'CSA encoding=UTF-8\nV3\.0\nN\+[^\n]+\nN-[^\n]+\n"
    rf"(?:PI\n|(?:P[1-9](?: \* |[+-]{PIECE}){{9}}\n){{9}}(?:P\+(?:00{PIECE})+\n)?(?:P-(?:00{PIECE})+\n)?)"
    rf"[+-]\n(?:[+-](?:[1-9]{{2}}|00)[1-9]{{2}}{PIECE}\n)*"
    r"(?:%(?:TORYO|TSUMI|SENNICHITE|KACHI|MAX_MOVES|[+-]ILLEGAL_ACTION)\n)?"
)


def test_a_position_is_written_in_csa_with_blanks_on_both_sides_of_an_empty_square() -> None:
    game = Shogi(1)
    game.set_position(0, "8k/9/8P/9/9/9/9/9/4K4 b G2p 1")
    play(game, "G*1b")
    assert game.csa(0).splitlines() == [
        "'CSA encoding=UTF-8",
        "V3.0",
        "N+first",
        "N-second",
        "P1 *  *  *  *  *  *  *  * -OU",
        "P2 *  *  *  *  *  *  *  *  * ",
        "P3 *  *  *  *  *  *  *  * +FU",
        *(f"P{rank} *  *  *  *  *  *  *  *  * " for rank in range(4, 9)),
        "P9 *  *  *  * +OU *  *  *  * ",
        "P+00KI",
        "P-00FU00FU",
        "+",
        "+0012KI",
        "%TSUMI",
    ]


@pytest.mark.parametrize("outcome", ["", *OUTCOMES])
def test_another_library_reads_what_is_written_in_csa(outcome: str) -> None:
    csa = pytest.importorskip("shogi.CSA", reason="python-shogi is not installed")
    sfen, moves, _ = ENDS.get(outcome, ("startpos", ("7g7f", "3c3d"), ""))
    game = Shogi(1, max_plies=1 if outcome == "max plies" else 320)
    game.set_position(0, sfen)
    play(game, *moves)
    (read,) = csa.Parser.parse_str(game.csa(0))
    assert read["names"] == ["first", "second"]
    assert read["moves"] == list(moves)
    assert read["sfen"].split()[:2] == Board(None if sfen == "startpos" else sfen).to_sfen().split()[:2]
    if outcome in ("no legal move", "perpetual check"):
        # White has no move left; Black gave perpetual check.
        assert read["win"] == {"no legal move": "b", "perpetual check": "w"}[outcome]


@pytest.mark.parametrize("side", ["black", "white"])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_end_can_be_written_as_kif_and_csa_and_read_again(outcome: str, side: str) -> None:
    sfen, moves, word = ENDS[outcome]
    game = Shogi(1, max_plies=1 if outcome == "max plies" else 320)
    if side == "white":
        sfen = Board(None if sfen == "startpos" else sfen).to_sfen_flipped()
        turn = str.maketrans("123456789abcdefghi", "987654321ihgfedcba")
        moves = tuple(
            move.translate(turn) if "*" not in move else move[:2] + move[2:].translate(turn) for move in moves
        )
    game.set_position(0, sfen)
    play(game, *moves)
    assert game.outcome(0) == outcome
    kif = game.record(0)
    assert word in kif
    assert outcome in game.render(0)
    assert re.fullmatch(CSA_LINES, game.csa(0))
    for read in (Record.from_kif_str(kif), Record.from_csa_str(game.csa(0))):
        assert [entry.move.to_usi() for entry in read.moves] == list(moves)
        board = Board(read.init_position_sfen)
        for entry in read.moves:
            board.apply_move(entry.move)
        assert board.to_sfen().split()[:3] == game.position(0).split()[:3]
    winner = {"checkmate": 1, "no legal move": 1, "perpetual check": -1, "declaration": -1}.get(outcome, 0)
    winner *= (1 if Board(Record.from_kif_str(kif).init_position_sfen).turn.is_black() else -1) * (-1) ** (
        len(moves) + 1
    )
    assert (read.result.is_black_win(), read.result.is_white_win()) == (winner > 0, winner < 0)


def test_an_unfinished_game_is_a_record_too() -> None:
    game = Shogi(1)
    play(game, "7g7f", "3c3d")
    assert [entry.move.to_usi() for entry in Record.from_kif_str(game.record(0)).moves] == ["7g7f", "3c3d"]


def test_pictures_show_the_board() -> None:
    game = Shogi(1)
    play(game, "7g7f")
    assert "v玉" in game.render(0)
    assert game.render(0).endswith("ply 1, second to move")
    assert game.render(0, "svg").startswith("<svg")


def test_boards_that_another_thread_finds_to_be_garbage_are_freed_by_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python collects garbage in whichever thread fills the quota, and only its own thread can free a board."""
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    game = Shogi(3)
    look(game)
    boards = weakref.ref(game._boards)
    cycle: list[object] = [game, game._boards.board(1)]
    cycle.append(cycle)
    gc.collect()
    del game, cycle
    collector = threading.Thread(target=gc.collect)
    collector.start()
    collector.join()
    assert boards() is None
    assert complaints == []
    assert [owner for owner, _ in shogi_boards._left_boards] == [threading.get_ident()]
    look(Shogi(1))
    assert list(shogi_boards._left_boards) == []
    assert complaints == []
