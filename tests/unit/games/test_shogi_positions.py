"""Training positions of shogi, byte for byte as another implementation writes them, and read by the rules library."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from rsshogi.core import Board, Move

from keisei_lightning.errors import GameError
from keisei_lightning.games import LabelledPosition, PackedGame
from keisei_lightning.games.shogi import Shogi
from keisei_lightning.games.shogi.packing import MAX_SCORE, pack_position, score_of

# Positions of random games with a legal move of each, written by cshogi 1.1.0 (GPL, no dependency): Board.to_psfen,
# Board.to_hcp, move16 and move16_to_psv.
VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data" / "shogi_records" / "positions_by_cshogi.json").read_text(encoding="utf-8")
)
PSV, HCPE = struct.Struct("<32shHHbB"), struct.Struct("<32shHbB")


def labelled(vector: dict[str, Any], **changes: Any) -> LabelledPosition:
    given: dict[str, Any] = {"value": 0.5, "result": 1, "outcome": "checkmate"} | changes
    return LabelledPosition(position=vector["sfen"], move=vector["move"], **given)


def test_the_vectors_have_drops_promotions_hands_and_both_sides() -> None:
    moves, positions = [v["move"] for v in VECTORS], [v["sfen"].split() for v in VECTORS]
    assert sum("*" in move for move in moves) >= 3
    assert sum("+" in move for move in moves) >= 3
    assert {turn for _, turn, *_ in positions} == {"b", "w"}
    assert sum(hands != "-" for _, _, hands, _ in positions) > 20
    assert sum("+" in board for board, *_ in positions) > 10


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["sfen"].split()[-1])
def test_psv_has_the_bytes_that_cshogi_writes_and_rsshogi_reads_the_position(vector: dict[str, Any]) -> None:
    packed = pack_position(labelled(vector, result=-1), ".psv", scale=600)
    assert len(packed) == 40
    position, score, move, number, result, padding = PSV.unpack(packed)
    assert position.hex() == vector["psfen"]
    assert (move, result, padding) == (vector["psv_move"], -1, 0)
    assert (score, number) == (round(600 * math.log(3)), int(vector["sfen"].split()[-1]))
    board = Board()
    board.set_packed_sfen(position)
    assert board.to_sfen().split()[:3] == Board(vector["sfen"]).to_sfen().split()[:3]
    assert Move(move).to_usi() == vector["move"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["sfen"].split()[-1])
def test_hcpe_has_the_bytes_that_cshogi_writes_and_rsshogi_reads_the_position(vector: dict[str, Any]) -> None:
    packed = pack_position(labelled(vector, value=-0.5), ".hcpe", scale=756)
    assert len(packed) == 38
    position, score, move, result, padding = HCPE.unpack(packed)
    assert (position.hex(), move) == (vector["hcp"], vector["move16"])
    assert (score, padding) == (round(-756 * math.log(3)), 0)
    assert result == (1 if " b " in vector["sfen"] else 2)
    board = Board()
    board.set_hcp(position)
    assert board.to_sfen().split()[:3] == Board(vector["sfen"]).to_sfen().split()[:3]


@pytest.mark.parametrize(
    ("outcome", "result", "flags"),
    [
        ("resignation", -1, 2),
        ("declaration", 1, 1 + 8),
        ("repetition", 0, 4),
        ("perpetual check", -1, 2 + 4),
        ("max plies", 0, 16),
        ("impasse", 0, 0),
    ],
)
def test_hcpe_says_who_won_and_by_which_rule(outcome: str, result: int, flags: int) -> None:
    start = {"sfen": Board().to_sfen(), "move": "7g7f"}
    assert HCPE.unpack(pack_position(labelled(start, result=result, outcome=outcome), ".hcpe", scale=600))[3] == flags


def test_a_score_gives_back_the_expected_score() -> None:
    for value in (-0.999, -0.3, 0.0, 0.2, 0.7, 0.99):
        score = score_of(value, 600)
        assert 1 / (1 + math.exp(-score / 600)) == pytest.approx((1 + value) / 2, abs=0.0005)
    assert [score_of(value, 600) for value in (1.0, -1.0, None)] == [MAX_SCORE, -MAX_SCORE, 0]
    assert score_of(0.9999999, 10_000) == MAX_SCORE


def test_what_is_no_position_no_move_or_no_format_is_refused() -> None:
    game, start = Shogi(1), {"sfen": "startpos", "move": "7g7f"}
    assert isinstance(game, PackedGame)
    assert set(game.position_formats) == {".psv", ".hcpe", ".hcpe3"}
    assert list(game.readable_formats) == [".hcpe3"]
    assert len(game.pack_game([labelled(start)], ".psv", scale=600)) == 40
    for wrong, suffix, message in (
        (start | {"sfen": "9/9 b - 1"}, ".psv", "cannot read the SFEN"),
        (start | {"move": "7g"}, ".psv", "'7g' is no move in USI"),
        (start, ".bin", r"\.bin: must be one of \.psv, \.hcpe, \.hcpe3"),
        (start | {"move": "7g"}, ".hcpe3", "'7g' is no move in USI"),
    ):
        with pytest.raises(GameError, match=message):
            game.pack_game([labelled(wrong)], suffix, scale=600)
