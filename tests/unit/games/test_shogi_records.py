"""Records of shogi: what is written is read back; other programs' files are read; nonsense is refused in a line."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rsshogi.core import Board
from rsshogi.record import Record

from keisei_lightning.errors import GameError, IllegalActionError
from keisei_lightning.games import ReplayableGame, SavedGame, make_game, read_record_file, replay
from keisei_lightning.games.records import decode_record, encode_record
from keisei_lightning.games.shogi import Shogi, kifu
from keisei_lightning.games.shogi.kifu.kif import read_ki2_line
from keisei_lightning.games.shogi.kifu.main_line import MainLine

T = TypeVar("T")
FORMATS = list(kifu.FORMATS)
ENDS = ("resignation", "time-out", "void", "impasse", "declaration", "illegal move", "max plies")
THEIR_READERS = {
    ".kifu": Record.from_kif_str,
    ".kif": Record.from_kif_str,
    ".ki2": Record.from_ki2_str,
    ".ki2u": Record.from_ki2_str,
    ".csa": Record.from_csa_str,
    ".jkf": Record.from_jkf_str,
}


def random_game(seed: int, *, outcome: str | None = None) -> SavedGame:
    """A random game from the start or a random position, with names, times, comments and an end."""
    rng, board = random.Random(seed), Board()
    for _ in range(rng.choice([0, 0, 30, 90])):
        board.apply_move(rng.choice(board.legal_moves()))
    start, moves = board.to_sfen(), list[str]()
    for _ in range(rng.randint(1, 140)):
        legal = board.legal_moves()
        if not legal:
            break
        moves.append((move := rng.choice(legal)).to_usi())
        board.apply_move(move)
    mover = int(board.turn.is_white())
    if not board.legal_moves():
        outcome = "checkmate" if board.is_in_check() else "no legal move"
    elif outcome is None:
        outcome = rng.choice(
            ["resignation", "time-out", "void", "impasse", "declaration", "illegal move", "max plies", ""]
        )
    loses = {"resignation", "time-out", "checkmate", "no legal move", "illegal move"}
    return SavedGame(
        start=start,
        moves=tuple(moves),
        players=("ひふみ", "player 2"),
        outcome=outcome,
        winner=1 - mover if outcome in loses else mover if outcome == "declaration" else None,
        times_s=tuple(float(rng.randint(1, 4000)) for _ in moves),
        comments={0: "before\nthe game", len(moves): "behind the last move"},
        headers={"event": "An Event", "site": "here", "start_date": "2026/11/27", "備考": "x"},
    )


class TestRoundTrips:
    @pytest.mark.parametrize("suffix", FORMATS)
    def test_moves_result_names_times_and_comments_come_back(self, suffix: str) -> None:
        for seed in range(40):
            saved = random_game(seed)
            again = kifu.read(kifu.write(saved, suffix), suffix)
            if suffix == ".usi":  # a start and moves, no more: ends that the board knows are known
                saved = replace(saved, players=("", ""), times_s=(), comments={}, headers={})
                if saved.outcome not in ("checkmate", "no legal move"):
                    saved = replace(saved, outcome="", winner=None)
            elif suffix in (".ki2", ".ki2u"):
                saved = replace(saved, times_s=())
            assert again == saved, seed

    @pytest.mark.parametrize("suffix", THEIR_READERS)
    def test_another_reader_finds_the_same_moves_and_the_same_winner(self, suffix: str) -> None:
        for seed in range(40):
            saved = random_game(seed)
            read = THEIR_READERS[suffix](kifu.write(saved, suffix))
            assert tuple(entry.move.to_usi() for entry in read.moves) == saved.moves
            assert (read.result.is_black_win(), read.result.is_white_win()) == (saved.winner == 0, saved.winner == 1)
            assert Board(read.init_position_sfen).to_sfen().split()[:3] == saved.start.split()[:3]

    @pytest.mark.parametrize("suffix", FORMATS)
    def test_a_chain_through_all_formats_keeps_every_move(self, suffix: str) -> None:
        saved = random_game(4, outcome="resignation")
        for other in FORMATS:
            saved = kifu.read(kifu.write(kifu.read(kifu.write(saved, suffix), suffix), other), other)
        assert saved.moves == random_game(4).moves

    @pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix != ".usi"])
    @pytest.mark.parametrize(
        "outcome",
        ["resignation", "time-out", "void", "impasse", "declaration", "illegal move", "max plies", "repetition"],
    )
    def test_each_end_comes_back_with_its_winner(self, suffix: str, outcome: str) -> None:
        mover_loses, mover_wins = {"resignation", "time-out", "illegal move"}, {"declaration", "illegal move"}
        for moves in (("7g7f", "3c3d"), ("7g7f", "3c3d", "2g2f")):
            mover = len(moves) % 2
            winners: set[int | None] = {1 - mover} if outcome in mover_loses else {None}
            winners = {mover} | (winners - {None}) if outcome in mover_wins else winners
            for winner in winners:
                saved = SavedGame(start=Board().to_sfen(), moves=moves, outcome=outcome, winner=winner)
                assert kifu.read(kifu.write(saved, suffix), suffix) == saved

    def test_a_fourth_occurrence_is_known_without_a_word_and_tells_who_gave_perpetual_check(self) -> None:
        shuffle = ("2h3h", "8b7b", "3h2h", "7b8b") * 3
        assert kifu.read(f"position startpos moves {' '.join(shuffle)}", ".usi").outcome == "repetition"
        start = "4k4/9/9/9/9/9/9/9/R3K4 b - 1"
        checks = ("9i9a", "5a5b", "9a9b", "5b5a", *("9b9a", "5a5b", "9a9b", "5b5a") * 3)
        saved = kifu.read(f"sfen {start} moves {' '.join(checks)}", ".usi")
        assert (saved.outcome, saved.winner) == ("perpetual check", 1)
        for suffix in (".kifu", ".csa", ".jkf", ".ki2"):
            again = kifu.read(kifu.write(saved, suffix), suffix)
            assert (again.outcome, again.winner, again.moves) == ("perpetual check", 1, saved.moves)

    def test_an_end_that_a_format_has_no_word_for_is_written_as_interrupted(self) -> None:
        saved = SavedGame(start=Board().to_sfen(), moves=("7g7f",), outcome="forfeit", winner=0)
        assert kifu.read(kifu.write(saved, ".kifu"), ".kifu").outcome == "forfeit"
        assert kifu.read(kifu.write(saved, ".csa"), ".csa").outcome == "void"

    def test_the_number_of_plies_before_the_start_comes_back(self) -> None:
        start = "lnsgkgsnl/1r5b1/pppppp1pp/6p2/9/2P6/PP1PPPPPP/1B5R1/LNSGKGSNL b - 3"
        saved = SavedGame(start=start, moves=("2g2f",))
        assert {kifu.read(kifu.write(saved, suffix), suffix).start for suffix in FORMATS} == {start}

    def test_names_and_headers_of_several_lines_become_one(self) -> None:
        saved = SavedGame(start=Board().to_sfen(), moves=(), players=("a\nb", "c：d"), headers={"event": "x\ny"})
        for suffix in (".kifu", ".csa", ".jkf"):
            again = kifu.read(kifu.write(saved, suffix), suffix)
            assert (again.players, again.headers["event"]) == (("a b", "c：d"), "x y")

    def test_a_header_whose_name_means_something_else_in_kif_is_left_out(self) -> None:
        names = ("先手", "手合割", "まで", "変化", "後手の持駒", "a b", "*a", "a：b", "|", "", "fine", "備考", "まえ")
        saved = SavedGame(start="startpos", moves=("7g7f",), headers=dict.fromkeys(names, "x"))
        for suffix in (".kifu", ".ki2", ".csa", ".jkf"):
            assert set(kifu.read(kifu.write(saved, suffix), suffix).headers) == {"fine", "備考", "まえ"}

    def test_what_is_no_game_is_not_written(self) -> None:
        for suffix in FORMATS:
            written = kifu.write(SavedGame(start="startpos", moves=("7g7f",)), suffix)
            assert kifu.read(written, suffix).start == Board().to_sfen()
            for start, move in (("startpos", "7g7e"), ("startpos", "x"), ("nonsense", "7g7f")):
                with pytest.raises(GameError, match="cannot"):
                    kifu.write(SavedGame(start=start, moves=(move,)), suffix)


class TestBoards:
    @pytest.mark.parametrize("suffix", FORMATS)
    def test_a_record_of_a_board_is_played_again_to_the_same_position(self, suffix: str) -> None:
        game, rng = Shogi(4, opening_plies=6), np.random.default_rng(3)
        other = Shogi(1)
        assert isinstance(game, ReplayableGame)
        game.reset()
        for _ in range(60):
            legal = np.zeros((4, game.spec.mask_bytes), np.uint8)
            game.observe(np.zeros((4, 98), np.uint8), legal, np.zeros(4, np.int8))
            mask = np.unpackbits(legal, axis=1)[:, : game.spec.num_actions]
            game.step(np.array([rng.choice(np.flatnonzero(row)) if row.any() else -1 for row in mask]))
        for index in range(4):
            text = game.record_files(index, players=("a", "b"), outcome=game.outcome(index))[".kifu"]
            saved = game.read_record(text, ".kifu")
            replay(other, 0, game.read_record(game.write_record(saved, suffix), suffix))
            assert other.position(0) == game.position(index)
            assert other.history(0) == game.history(index)

    def test_a_move_behind_the_end_or_against_the_rules_is_told(self) -> None:
        game = Shogi(2, max_plies=2)
        moves = ("7g7f", "3c3d", "2g2f")
        with pytest.raises(GameError, match=r"move 3: the game is over already \(max plies\)"):
            replay(game, 1, SavedGame(start="startpos", moves=moves))
        with pytest.raises(IllegalActionError, match="illegal move '3c3d' at ply 0"):
            replay(game, 1, SavedGame(start="startpos", moves=("3c3d",)))
        assert game.position(0) == game.position(1)


KIF_WINDOWS = """\
# ---- Kifu for Windows V7 V7.41 棋譜ファイル ----
*棋戦詳細：comment before the game
後手：後手の人  \u3000
開始日時：2001/02/03 10:00:00
先手：先手の人
手合割：平手\u3000\u3000
手数----指手---------消費時間--
   1 ７六歩(77)   ( 0:16/00:00:16)
*first comment
*of two lines
   2 ３四歩(33)   ( 0:00/00:00:00)+
   3 ２二角成(88) ( 1:00/00:01:16)
   4 同　銀(31)   ( 0:01/00:00:01)   \t
&しおり
   5 ４五角打     ( 0:05/00:01:21)
   6 投了         ( 0:03/00:00:04)
まで5手で先手の勝ち

変化：2手
   2 ８四歩(83)   ( 0:00/00:00:00)
   3 ２六歩(27)   ( 0:00/00:00:00)
"""
KIF_HANDICAP = """\
上手：Gote
下手：Sente
手合割：二枚落ち
   1 ６二銀(71)
   2 7六歩(77)
   3 中断
"""
KIF_DIAGRAM = """\
後手の持駒：飛二　歩十一\u3000
  ９ ８ ７ ６ ５ ４ ３ ２ １
+---------------------------+
| ・ ・ ・ ・ ・ ・ ・ ・v玉|一
| ・ ・ ・ ・ ・ ・ ・ ・ ・|二
| ・ ・ ・ ・ ・ ・ ・ 金 ・|三
| ・ ・ ・ ・ ・ ・ ・ ・ ・|四
| ・ ・ ・ ・ ・ ・ ・ ・ ・|五
| ・ ・ ・ ・ ・ ・ ・ ・ ・|六
| ・ ・ ・ ・ ・ ・ ・ ・ ・|七
| ・ ・ ・ ・ ・ ・ ・ ・ ・|八
| ・ ・ ・ ・ 王 ・ ・ ・ ・|九
+---------------------------+
先手の持駒：金\u3000
手数＝12  △１一玉  まで
手数----指手---------消費時間--
   1 １二金打
"""
KI2 = """\
開始日時：2001/02/03
手合割：平手
先手：一
後手：二
▲７六歩　　△３四歩　　▲４八銀　　△４二銀
▲５八金右　△６二銀　　▲６八銀　　△５四歩
*a comment
▲５六歩　　△５三銀左　▲５七銀右　△８八角成
▲４六銀　　△８九馬　　▲３六歩
まで15手で先手の勝ち
"""
CSA_FLOODGATE = """\
V2
N+black-bot
N-white-bot
'Max_Moves:256
$EVENT:wdoor+floodgate-300-10F+black-bot+white-bot+20260101000000
$START_TIME:2026/01/01 00:00:01
P1-KY-KE-GI-KI-OU-KI-GI-KE-KY
P2 * -HI *  *  *  *  * -KA *
P3-FU-FU-FU-FU-FU-FU-FU-FU-FU
P4 *  *  *  *  *  *  *  *  *
P5 *  *  *  *  *  *  *  *  *
P6 *  *  *  *  *  *  *  *  *
P7+FU+FU+FU+FU+FU+FU+FU+FU+FU
P8 * +KA *  *  *  *  * +HI *
P9+KY+KE+GI+KI+OU+KI+GI+KE+KY
+
'rating:black-bot:white-bot
+7776FU
T12
'** 35 -3334FU
-3334FU
T0
+8822UM,T3
-3122GI
T1.5
%TORYO
'summary:toryo:black-bot lose:white-bot win
"""
CSA_HANDICAP = "V2.2\nPI82HI22KA\n-\n-7162GI\n+7776FU\n%CHUDAN\n"
CSA_PROBLEM = "P-11OU\nP+23KI59OU\nP+00KI\nP-00AL\n+\n+0012KI\n%TSUMI\n/\nPI\n+\n"
JKF = """{"header": {"後手": "B", "先手": "A", "棋戦": "E"}, "moves": [
 {"comments": ["start"]},
 {"move": {"from": {"x": 7, "y": 7}, "to": {"x": 7, "y": 6}, "piece": "FU"}, "time": {"now": {"m": 1, "s": 2}}},
 {"move": {"from": {"x": 3, "y": 3}, "to": {"x": 3, "y": 4}, "piece": "FU"}, "forks": [[{"special": "TORYO"}]]},
 {"move": {"from": {"x": 8, "y": 8}, "to": {"x": 2, "y": 2}, "piece": "KA", "promote": true, "capture": "KA"}},
 {"move": {"from": {"x": 3, "y": 1}, "same": true, "piece": "GI", "capture": "UM"}},
 {"move": {"to": {"x": 4, "y": 5}, "piece": "KA", "relative": "H"}},
 {"special": "SENNICHITE"}]}
"""


class TestOtherPrograms:
    @pytest.mark.parametrize(
        ("suffix", "text"),
        # rsshogi does not know bookmarks (&).
        [
            (".kif", KIF_WINDOWS.replace("&しおり\n", "")),
            (".kif", KIF_HANDICAP),
            (".ki2", KI2),
            (".csa", CSA_FLOODGATE),
            (".csa", CSA_HANDICAP),
        ],
    )
    def test_another_reader_finds_the_same_game_in_them(self, suffix: str, text: str) -> None:
        saved, read = kifu.read(text, suffix), THEIR_READERS[suffix](text)
        assert tuple(entry.move.to_usi() for entry in read.moves) == saved.moves
        assert (read.result.is_black_win(), read.result.is_white_win()) == (saved.winner == 0, saved.winner == 1)
        assert Board(read.init_position_sfen).to_sfen() == saved.start
        assert (read.metadata.black_player or "", read.metadata.white_player or "") == saved.players

    def test_kif_as_kifu_for_windows_writes_it(self) -> None:
        saved = kifu.read(KIF_WINDOWS, ".kif")
        assert saved.moves == ("7g7f", "3c3d", "8h2b+", "3a2b", "B*4e")
        assert (saved.outcome, saved.winner) == ("resignation", 0)
        assert saved.players == ("先手の人", "後手の人")
        assert saved.times_s == (16.0, 0.0, 60.0, 1.0, 5.0)
        assert saved.comments == {0: "棋戦詳細：comment before the game", 1: "first comment\nof two lines"}
        assert saved.headers == {"start_date": "2001/02/03 10:00:00"}
        assert saved.left_out == ("line 19: what follows: variations, from move 2 on",)

    @pytest.mark.parametrize("encode", ["utf-8", "utf-8-sig", "cp932"])
    @pytest.mark.parametrize("ends", ["\n", "\r\n"])
    def test_a_file_is_read_in_unicode_and_in_shift_jis(self, encode: str, ends: str, tmp_path: Path) -> None:
        file = tmp_path / "game.kif"
        file.write_bytes(KIF_WINDOWS.replace("\n", ends).encode(encode))
        assert read_record_file(Shogi(1), file) == kifu.read(KIF_WINDOWS, ".kif")

    def test_a_handicap_game_begins_with_white(self) -> None:
        saved = kifu.read(KIF_HANDICAP, ".kif")
        assert saved.start == "lnsgkgsnl/9/ppppppppp/9/9/9/PPPPPPPPP/1B5R1/LNSGKGSNL w - 1"
        assert (saved.moves, saved.players, saved.outcome) == (("7a6b", "7g7f"), ("Sente", "Gote"), "void")

    def test_a_diagram_with_hands_is_a_start(self) -> None:
        saved = kifu.read(KIF_DIAGRAM, ".kif")
        assert saved.start == "8k/9/7G1/9/9/9/9/9/4K4 b G2r11p 13"
        assert (saved.moves, saved.outcome, saved.winner) == (("G*1b",), "checkmate", 0)

    @pytest.mark.parametrize(
        ("word", "outcome", "winner"),
        [
            ("投了", "resignation", 1),
            ("中断", "void", None),
            ("千日手", "repetition", None),
            ("持将棋", "impasse", None),
            ("切れ負け", "time-out", 1),
            ("反則勝ち", "illegal move", 0),
            ("反則負け", "illegal move", 1),
            ("入玉勝ち", "declaration", 0),
            ("詰み", "checkmate", 1),
            ("不戦敗", "forfeit", 1),
        ],
    )
    def test_every_word_for_an_end_is_known(self, word: str, outcome: str, winner: int | None) -> None:
        saved = kifu.read(f"手合割：平手\n1 ７六歩(77)\n2 ３四歩(33)\n3 {word} ( 0:01/00:00:01)\n", ".kif")
        assert (saved.outcome, saved.winner, len(saved.moves)) == (outcome, winner, 2)

    @pytest.mark.parametrize(
        ("line", "outcome", "winner"),
        [
            ("まで2手で先手の勝ち", "resignation", 0),
            ("まで2手で後手の反則勝ち", "illegal move", 1),
            ("まで2手で後手の反則負け", "illegal move", 0),
            ("まで2手で時間切れにより後手の勝ち", "time-out", 1),
            ("まで2手で先手の入玉勝ち", "declaration", 0),
            ("まで2手で千日手", "repetition", None),
            ("まで、2手で中断", "void", None),
            ("まで2手", "", None),
        ],
    )
    def test_the_last_line_tells_the_end_where_no_move_does(self, line: str, outcome: str, winner: int | None) -> None:
        saved = kifu.read(f"▲７六歩 △３四歩\n{line}\n", ".ki2")
        assert (saved.outcome, saved.winner) == (outcome, winner)

    def test_ki2_finds_the_piece_that_is_meant(self) -> None:
        saved = kifu.read(KI2, ".ki2")
        assert saved.moves[:8] == ("7g7f", "3c3d", "3i4h", "3a4b", "4i5h", "7a6b", "7i6h", "5c5d")
        assert saved.moves[8:] == ("5g5f", "4b5c", "4h5g", "2b8h+", "5g4f", "8h8i", "3g3f")
        assert (saved.outcome, saved.winner, saved.comments) == ("resignation", 0, {8: "a comment"})

    def test_ki2_tells_every_legal_move_of_a_position_from_all_others(self) -> None:
        rng, board, seen = random.Random(1), Board(), set[str]()
        for ply in range(400):
            legal = board.legal_moves_move32()
            if not legal:
                board = Board()
                continue
            for move in legal if ply % 5 == 0 else []:
                text = move.to_ki2(board)
                if "同" in text:  # this line begins with the position
                    continue
                seen |= set(re.findall("[左右直上引寄打]|不成|成", text))
                line = MainLine(board.to_sfen(), "line 1")
                assert read_ki2_line(line, text, "line 1")
                assert line.close(players=("", ""), headers={}).moves == (move.to_usi(),), (board.to_sfen(), text)
            board.apply_move32(rng.choice(legal))
        assert seen == {*"左右直上引寄打成", "不成"}

    def test_csa_as_floodgate_writes_it(self) -> None:
        saved = kifu.read(CSA_FLOODGATE, ".csa")
        assert saved.moves == ("7g7f", "3c3d", "8h2b+", "3a2b")
        assert (saved.outcome, saved.winner) == ("resignation", 1)
        assert saved.players == ("black-bot", "white-bot")
        assert saved.times_s == (12.0, 0.0, 3.0, 1.5)
        assert saved.comments == {1: "* 35 -3334FU"}
        assert set(saved.headers) == {"event", "start_date"}

    def test_csa_starts_without_some_pieces_or_with_few(self) -> None:
        handicap, problem = kifu.read(CSA_HANDICAP, ".csa"), kifu.read(CSA_PROBLEM, ".csa")
        assert handicap.start == "lnsgkgsnl/9/ppppppppp/9/9/9/PPPPPPPPP/1B5R1/LNSGKGSNL w - 1"
        assert (handicap.moves, handicap.outcome) == (("7a6b", "7g7f"), "void")
        assert problem.start == "8k/9/7G1/9/9/9/9/9/4K4 b G2r2b2g4s4n4l18p 1"
        assert (problem.outcome, problem.winner) == ("checkmate", 0)
        assert problem.left_out == ("line 8: what follows: further games",)

    def test_jkf_with_times_comments_and_forks(self) -> None:
        saved = kifu.read(JKF, ".jkf")
        assert saved.moves == ("7g7f", "3c3d", "8h2b+", "3a2b", "B*4e")
        assert saved.times_s == (62.0, None, None, None, None)
        assert (saved.players, saved.comments, saved.headers) == (("A", "B"), {0: "start"}, {"event": "E"})
        assert (saved.outcome, saved.left_out) == ("repetition", ("moves[2]: variations",))

    def test_usi_with_a_position_and_a_resignation(self) -> None:
        assert kifu.read("startpos moves 7g7f resign\n", ".usi").winner == 0
        saved = kifu.read("# first\nposition sfen 4k4/9/9/9/9/9/9/9/4K4 w - 5 moves 5a5b\nstartpos\n", ".usi")
        assert (saved.start, saved.moves) == ("4k4/9/9/9/9/9/9/9/4K4 w - 5", ("5a5b",))
        assert saved.left_out == ("line 3: what follows: further games",)

    def test_a_game_that_an_illegal_move_lost_is_read_up_to_that_move(self) -> None:
        saved = kifu.read("PI\n+\n+7776FU\n-3335FU\n%ILLEGAL_MOVE\n", ".csa")
        assert (saved.moves, saved.outcome, saved.winner) == (("7g7f",), "illegal move", 0)
        assert saved.left_out[0].startswith("line 4: move 2: -3335FU: is not legal in lnsgkgsnl/")


class TestRefusals:
    @pytest.mark.parametrize(
        ("suffix", "text", "message"),
        [
            (
                ".kif",
                "手合割：平手\n1 ７六歩(77)\n2 ９四歩(33)\n3 投了\n",
                "line 3: move 2: ９四歩(33): is not legal in ",
            ),
            (".kif", "手合割：平手\n1 ７六歩(77)\nnonsense\n", "line 3: nonsense: is neither a move nor an end"),
            (".kif", "手合割：三枚半落ち\n1 ７六歩(77)\n", "line 1: 手合割：三枚半落ち: must be one of 平手 "),
            (".kif", "1 同　歩(77)\n", "line 1: 同 歩(77): is the same square as which?"),
            (
                ".kif",
                "1 ７六歩(77)\n2 中断\n3 ３四歩(33)\n",
                "line 3: move 3: ３四歩(33): is a move behind the game's end",
            ),
            (".kif", "| ・|一\n1 ７六歩(77)\n", "line 1: a diagram must have nine rows of nine squares"),
            (".kif", "先手の持駒：歩百\n", "line 1: 歩百: are no pieces in hand"),
            (".kif", "\n\n", "line 3: there is no game in it"),
            (".ki2", "▲７六歩 △８六歩\n", "line 1: move 2: △８六歩: is not legal in "),
            (".ki2", "▲５八金\n", "line 1: move 1: ▲５八金: can be several moves (4i5h, 6i5h)"),
            (".csa", "PI\n+\n+7776FU\n-3335FU\n%TORYO\n", "line 4: move 2: -3335FU: is not legal in "),
            (".csa", "PI\n+\n+7776XX\n", "line 3: move 1: +7776XX: is not legal in "),
            (".csa", "PI\n+\n%NOSUCH\n", "line 3: %NOSUCH: must be one of %TORYO "),
            (".csa", "V2.2\nPI\n", "there is no game in it: nobody is to move"),
            (".csa", "P1-KY\n+\n", "line 2: the start has 1 rows of pieces; must be 9, or PI"),
            (".csa", "PI55KI\n+\n", "line 1: 55KI: is not there to be taken away"),
            (".jkf", "[1,", "line 1: is no JSON"),
            (".jkf", "{}", "line 1: moves: must be a list"),
            (".jkf", '{"moves":[{},{"move":{"piece":"FU","to":{"x":10,"y":1}}}]}', "moves[1]: to: must have x and y"),
            (".jkf", '{"moves":[{"special":"X"}]}', "moves[0]: special 'X': must be one of TORYO"),
            (".usi", "7g7f", "line 1: 7g7f: must be startpos, or sfen and a position"),
            (".usi", "startpos moves 7g7f 7g7f", "line 1: move 2: 7g7f: is not legal in "),
            (".usi", "sfen 9/9/9/9/9/9/9/9/9 b - 1", "line 1: the position "),
            (".xyz", "", ".xyz: is no record format of shogi; must be one of .kifu, .csa, "),
        ],
    )
    def test_one_line_names_the_line_and_what_is_wrong(self, suffix: str, text: str, message: str) -> None:
        with pytest.raises(GameError) as caught:
            kifu.read(text, suffix)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_files_name_stands_before_the_line(self, tmp_path: Path) -> None:
        file = tmp_path / "bad.usi"
        file.write_text("startpos moves 7g7g")
        with pytest.raises(GameError, match=rf"^{re.escape(str(file))}: line 1: move 1: 7g7g: is not legal"):
            read_record_file(Shogi(1), file)
        with pytest.raises(GameError, match=r"nosuch\.kif: cannot be read \(No such file or directory\)"):
            read_record_file(Shogi(1), tmp_path / "nosuch.kif")
        with pytest.raises(GameError, match=r"a\.pgn: \.pgn is no format of shogi; must be one of \.kifu"):
            read_record_file(Shogi(1), tmp_path / "a.pgn")

    def test_bytes_that_are_no_text_are_told_with_their_line(self) -> None:
        with pytest.raises(GameError, match=r"line 2: is neither UTF-8 nor Shift JIS \(byte 0x81 at offset 4\)"):
            decode_record(b"ab\nc" + b"\x81\x00")

    def test_a_letter_that_an_encoding_lacks_is_told(self) -> None:
        with pytest.raises(GameError, match="line 2: cp932 has no 'é'; UTF-8 has"):
            encode_record("先手：a\n後手：é\n", "cp932")


def texts_of_games() -> Iterator[tuple[str, str]]:
    for seed in (0, 1, 2):
        saved = random_game(seed)
        for suffix in FORMATS:
            yield (
                suffix,
                kifu.write(replace(saved, moves=saved.moves[:20], times_s=saved.times_s[:20], comments={}), suffix),
            )
    yield from ((".kif", text) for text in (KIF_WINDOWS, KIF_HANDICAP, KIF_DIAGRAM))
    yield from ((".ki2", KI2), (".csa", CSA_FLOODGATE), (".csa", CSA_PROBLEM), (".jkf", JKF))


TEXTS = list(texts_of_games())
PIECES_OF_TEXT = st.one_of(
    st.text(max_size=4),
    st.sampled_from(
        ["\n", "同", "成", "打", "(77)", "+", "-", "%", "P", "00AL", ":", "：", "|", "{", "}", "1e999", "変化：", "99"]
    ),
)


class TestFuzz:
    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        which=st.sampled_from(TEXTS),
        edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), PIECES_OF_TEXT), min_size=1, max_size=5),
    )
    def test_a_damaged_record_is_a_game_of_legal_moves_or_a_game_error(
        self, which: tuple[str, str], edits: list[tuple[float, int, str]]
    ) -> None:
        suffix, text = which
        for place, cut, put in edits:
            at = int(place * len(text))
            text = text[:at] + put + text[at + cut :]
        self.assert_read_or_refused(text, suffix)

    @settings(max_examples=150, deadline=None)
    @given(text=st.text(max_size=60), suffix=st.sampled_from(FORMATS))
    def test_any_text_is_a_game_or_a_game_error(self, text: str, suffix: str) -> None:
        self.assert_read_or_refused(text, suffix)

    @settings(max_examples=150, deadline=None)
    @given(data=st.binary(max_size=60))
    def test_any_bytes_are_text_or_a_game_error(self, data: bytes) -> None:
        text = refused_or(lambda: decode_record(data))
        assert text is None or data.decode("utf-8-sig", "replace") == text or data.decode("cp932") == text

    def assert_read_or_refused(self, text: str, suffix: str) -> None:
        saved = refused_or(lambda: kifu.read(text, suffix))
        if saved is None:
            return
        board = Board(saved.start)
        for move in saved.moves:
            assert move in {legal.to_usi() for legal in board.legal_moves()}
            board.apply_usi(move)


def refused_or(read: Callable[[], T]) -> T | None:
    """What a reader gives; None where it refuses, in one line."""
    try:
        return read()
    except GameError as error:
        message = str(error)
    assert message
    assert "\n" not in message
    return None


def test_games_that_read_records_are_found_by_their_methods() -> None:
    assert all(isinstance(make_game(name, 1), ReplayableGame) for name in ("shogi", "hex", "connect_four"))
