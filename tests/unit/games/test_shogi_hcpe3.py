"""hcpe3: games with visit counts, byte for byte as another implementation writes them, and back."""

from __future__ import annotations

import json
import math
import random
import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rsshogi.core import Board

from keisei_lightning.errors import GameError
from keisei_lightning.games import LabelledPosition
from keisei_lightning.games.shogi import Shogi
from keisei_lightning.games.shogi.hcpe3 import VISITS, pack_game, unpack_games

# A random game of 60 plies that White won, written with cshogi 1.1.0 (GPL, no dependency): Board.to_hcp, move16, and
# dlshogi's dtypes of game, move and candidates, each candidate with visits, 65,535 a move.
ORACLE: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "shogi_records" / "hcpe3_by_cshogi.json").read_text(encoding="utf-8")
)
CONTENT = bytes.fromhex(ORACLE["hcpe3"])
GAME = np.dtype([("hcp", "u1", 32), ("moveNum", "<u2"), ("result", "u1"), ("opponent", "u1")])
SCALE = 756.0


def test_the_game_has_drops_and_promotions_of_both_sides() -> None:
    for side in (0, 1):
        moves = ORACLE["moves"][side::2]
        assert any("*" in move for move in moves)
        assert any("+" in move for move in moves)


def test_a_game_of_cshogi_is_read_with_its_moves_scores_and_visits() -> None:
    (positions,) = unpack_games(CONTENT, scale=SCALE)
    board = Board(ORACLE["start"])
    rows = zip(positions, ORACLE["moves"], ORACLE["scores"], ORACLE["visits"], strict=True)
    for ply, (position, move, score, visits) in enumerate(rows):
        assert position.position == board.to_sfen()
        assert position.move == move
        assert (position.result, position.outcome) == (1 if ply % 2 else -1, "resignation")
        assert position.value == pytest.approx(2 / (1 + math.exp(-score / SCALE)) - 1)
        assert position.policy == {name: count / VISITS for name, count in visits.items()}
        board.apply_usi(move)


def test_what_was_read_is_written_with_the_bytes_that_cshogi_writes() -> None:
    (positions,) = unpack_games(CONTENT, scale=SCALE)
    assert pack_game(positions, scale=SCALE) == CONTENT
    assert unpack_games(CONTENT * 3, scale=SCALE) == [positions] * 3


@pytest.mark.parametrize("seed", range(20))
def test_a_share_of_a_policy_is_restored_within_one_visit_and_the_most_visited_stands_last(seed: int) -> None:
    source = np.random.default_rng(seed)
    moves = [move.to_usi() for move in Board().legal_moves()]
    policy = dict(zip(moves, source.dirichlet(np.full(len(moves), 0.1)).tolist(), strict=True))
    start = LabelledPosition(position="startpos", move="7g7f", value=0.0, result=0, outcome="draw", policy=policy)
    content = pack_game([start], scale=SCALE)
    ((back,),) = unpack_games(content, scale=SCALE)
    assert back.policy is not None
    assert math.fsum(back.policy.values()) == pytest.approx(1.0)
    for move, share in policy.items():
        assert abs(back.policy.get(move, 0.0) - share) < 1 / VISITS
    counts = [count for _, count in struct.iter_unpack("<HH", content[42:])]
    assert sum(counts) == VISITS
    assert 0 not in counts
    assert counts == sorted(counts)
    assert content[-1] != 0  # or dlshogi may take it for hcpe


def test_without_policies_the_move_that_was_played_has_all_visits() -> None:
    first = LabelledPosition(position="startpos", move="7g7f", value=None, result=1, outcome="max plies")
    (game,) = unpack_games(pack_game([first, replace(first, move="3c3d", result=-1)], scale=SCALE), scale=SCALE)
    assert [(each.move, each.policy, each.value) for each in game] == [
        ("7g7f", {"7g7f": 1.0}, 0.0),
        ("3c3d", {"3c3d": 1.0}, 0.0),
    ]


def test_a_position_that_nobody_searched_stays_one_in_a_game_of_which_others_were() -> None:
    known = LabelledPosition(
        position="startpos", move="7g7f", value=0.5, result=1, outcome="declaration", policy={"7g7f": 3, "2g2f": 1}
    )
    other = replace(known, move="3c3d", value=None, policy=None, result=-1)
    ((first, second),) = unpack_games(pack_game([known, other], scale=SCALE), scale=SCALE)
    assert first.policy == {"2g2f": pytest.approx(0.25, abs=1 / VISITS), "7g7f": pytest.approx(0.75, abs=1 / VISITS)}
    assert (second.value, second.policy, second.result) == (None, None, -1)


@pytest.mark.parametrize(
    ("outcome", "result", "flags"),
    [
        ("resignation", -1, 2),
        ("declaration", 1, 1 + 8),
        ("repetition", 0, 4),
        ("perpetual check", -1, 2 + 4),
        ("max plies", 0, 16),
        ("draw", 0, 0),
    ],
)
def test_the_result_and_the_rule_that_ended_the_game_come_back(outcome: str, result: int, flags: int) -> None:
    given = LabelledPosition(position="startpos", move="7g7f", value=None, result=result, outcome=outcome)
    content = pack_game([given], scale=SCALE)
    header = np.frombuffer(content, GAME, 1)[0]
    assert (header["moveNum"], header["result"], header["opponent"]) == (1, flags, 0)
    ((back,),) = unpack_games(content, scale=SCALE)
    assert (back.outcome, back.result) == (outcome, result)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT + CONTENT[:-1], "game 2: the file ends within it"),
        (CONTENT[:20], "game 1: the file ends within it"),
        (bytes(36), r"game 1: its start is no position \("),
        (CONTENT[:36] + struct.pack("<HhH", 1, 0, 0), r"game 1: move 1: \S+ \(0x0001\) is not legal"),
    ],
)
def test_a_damaged_file_is_one_line(content: bytes, message: str) -> None:
    with pytest.raises(GameError, match=message):
        Shogi(1).unpack_games(content, ".hcpe3", scale=SCALE)


def test_whatever_the_bytes_are_nothing_else_is_raised() -> None:
    source = random.Random(1)
    for _ in range(300):
        damaged = bytearray(CONTENT)
        for _ in range(source.randint(1, 3)):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        with suppress(GameError):
            games = unpack_games(bytes(damaged), scale=SCALE)
            assert all(isinstance(each, LabelledPosition) for game in games for each in game)


def test_a_format_without_games_is_not_read() -> None:
    with pytest.raises(GameError, match=r"\.psv: must be \.hcpe3"):
        Shogi(1).unpack_games(b"", ".psv", scale=SCALE)
