"""The rules of shogi, case by case; positions as SFEN."""

from __future__ import annotations

import numpy as np
import pytest
from game_helpers import look, names, play
from rsshogi.core import Board

from keisei_lightning.errors import GameError
from keisei_lightning.games import make_game
from keisei_lightning.games.shogi.codec import CHECK_BYTE, PLY_BYTE, REPETITION_BYTE
from keisei_lightning.games.shogi.game import Shogi

pytestmark = pytest.mark.usefixtures("shogi_boards")


def shogi(sfen: str, **options: object) -> Shogi:
    game = make_game("shogi", 1, **options)
    assert isinstance(game, Shogi)
    game.set_position(0, sfen)
    return game


def turned(sfen: str) -> str:
    """The same position with the sides exchanged."""
    return str(Board(sfen).to_sfen_flipped())


def turned_move(usi: str) -> str:
    digits, letters = str.maketrans("123456789", "987654321"), str.maketrans("abcdefghi", "ihgfedcba")
    return usi.translate(letters).translate(digits)


BOTH_SIDES = pytest.mark.parametrize("side", ["black", "white"])


def on_side(side: str, sfen: str, *moves: str, **options: object) -> tuple[Shogi, list[str]]:
    """A case told for Black, played by Black or by White."""
    if side == "black":
        return shogi(sfen, **options), list(moves)
    return shogi(turned(sfen), **options), [turned_move(move) for move in moves]


# Moves


@BOTH_SIDES
def test_a_dropped_pawn_may_not_mate(side: str) -> None:
    game, (drop, gold) = on_side(side, "8k/9/6N1G/9/9/9/9/9/4K4 b P 1", "P*1b", "1c1b")
    assert drop not in names(game)
    assert gold in names(game)


def test_another_dropped_piece_may_mate_and_a_dropped_pawn_may_give_check() -> None:
    mate = play(shogi("8k/9/6N1G/9/9/9/9/9/4K4 b L 1"), "L*1b")
    assert mate.terminated[0]
    check = play(shogi("8k/9/8G/9/9/9/9/9/4K4 b P 1"), "P*1b")
    assert not check.terminated[0]


@BOTH_SIDES
def test_no_second_pawn_on_a_file(side: str) -> None:
    game, drops = on_side(side, "4k4/9/9/9/9/9/4P4/9/4K4 b P 1", *(f"P*5{rank}" for rank in "bcdefh"))
    legal = names(game)
    assert not legal.keys() & set(drops)
    assert sum(name.startswith("P*") for name in legal) == 8 * 8  # every other file, all ranks but the last


def test_a_promoted_pawn_does_not_count_for_the_second_pawn() -> None:
    assert "P*5d" in names(shogi("4k4/9/9/9/9/9/4+P4/9/4K4 b P 1"))


@BOTH_SIDES
def test_pieces_are_not_dropped_where_they_could_never_move(side: str) -> None:
    game, _ = on_side(side, "4k4/9/9/9/9/9/9/9/4K4 b PLN 1")
    drops = [name for name in names(game) if "*" in name]
    last, second = ("a", "b") if side == "black" else ("i", "h")
    assert not [name for name in drops if name.endswith(last)]
    assert {name[0] for name in drops if name.endswith(second)} == {"P", "L"}


@BOTH_SIDES
@pytest.mark.parametrize(
    ("sfen", "legal", "illegal"),
    [
        ("k8/4P4/9/9/9/9/9/9/4K4 b - 1", {"5b5a+"}, {"5b5a"}),
        ("k8/9/9/4P4/9/9/9/9/4K4 b - 1", {"5d5c+", "5d5c"}, set()),
        ("k8/9/9/4N4/9/9/9/9/4K4 b - 1", {"5d4b+", "5d6b+"}, {"5d4b", "5d6b"}),
        ("k8/9/9/9/4N4/9/9/9/4K4 b - 1", {"5e4c+", "5e4c"}, set()),
        ("k8/9/4L4/9/9/9/9/9/4K4 b - 1", {"5c5b", "5c5b+", "5c5a+"}, {"5c5a"}),
        ("k8/9/4S4/9/9/9/9/9/4K4 b - 1", {"5c6d", "5c6d+"}, set()),
        ("k8/9/9/4G4/9/9/9/9/4K4 b - 1", {"5d5c"}, {"5d5c+"}),
        ("k8/9/9/4+S4/9/9/9/9/4K4 b - 1", {"5d5c"}, {"5d5c+"}),
    ],
)
def test_promotion_is_forced_optional_or_impossible(side: str, sfen: str, legal: set[str], illegal: set[str]) -> None:
    game, wanted = on_side(side, sfen, *sorted(legal))
    _, unwanted = on_side(side, sfen, *sorted(illegal))
    assert set(wanted) <= names(game).keys()
    assert not set(unwanted) & names(game).keys()


# Mate and no legal move


@BOTH_SIDES
def test_checkmate_wins_for_who_has_just_moved(side: str) -> None:
    game, moves = on_side(side, "8k/9/8P/9/9/9/9/9/4K4 b G 1", "G*1b")
    result = play(game, *moves)
    assert (result.reward[0], result.terminated[0], result.truncated[0]) == (1.0, True, False)
    assert game.outcome(0) == "checkmate"
    assert not look(game).mask.any()


@BOTH_SIDES
def test_a_side_without_a_legal_move_loses_though_it_is_not_in_check(side: str) -> None:
    game, moves = on_side(side, "8k/9/6N2/7G1/9/9/9/9/4K4 b - 1", "2d2c")
    result = play(game, *moves)
    assert (result.reward[0], result.terminated[0]) == (1.0, True)
    assert game.outcome(0) == "no legal move"
    assert look(game).observation[0, CHECK_BYTE] == 0


# Repetition

ROOKS_WALK = ("2h3h", "8b7b", "3h2h", "7b8b")


def test_the_fourth_occurrence_of_a_position_is_a_draw() -> None:
    game = shogi("startpos")
    counts = [int(look(game).observation[0, REPETITION_BYTE])]
    for move in (ROOKS_WALK * 3)[:-1]:
        assert not play(game, move).terminated[0]
        counts.append(int(look(game).observation[0, REPETITION_BYTE]))
    result = play(game, ROOKS_WALK[-1])
    assert counts == [0] * 4 + [1] * 4 + [2] * 4
    assert (result.reward[0], result.terminated[0], result.truncated[0]) == (0.0, True, False)
    assert game.outcome(0) == "repetition"


def test_a_position_recurs_though_its_hands_were_others_meanwhile() -> None:
    game = shogi("4k4/9/9/9/9/9/9/9/4K4 b Gg 1")
    around = ("G*5b", "5a5b", "5i5h", "G*5g", "5h5g", "5b5a", "5g5h", "5a4a", "5h5i", "4a5a")
    for time in range(3):
        assert game.outcome(0) == ""
        play(game, *around)
        assert look(game).observation[0, REPETITION_BYTE] == time + 1
    assert game.outcome(0) == "repetition"


def test_the_same_board_with_other_hands_is_another_position() -> None:
    game = shogi("4k4/9/9/9/9/9/9/8R/K8 w p 1")
    before = look(game).observation[0].copy()
    play(game, "P*1e", "1h1e", "5a4a", "1e1h", "4a5a", "9i8i", "5a4a", "8i9h", "4a5a", "9h9i")
    after = look(game).observation[0]
    np.testing.assert_array_equal(after[:81], before[:81])
    assert after[REPETITION_BYTE] == 0


CHECKED = "4k4/9/9/9/9/9/9/4R4/K8 w - 1"
CHECK_ROUND = ("5a4a", "5h4h", "4a5a", "4h5h")
QUIET_ROUND = ("5a4a", "5h6h", "4a5a", "6h5h")  # its first move gives no check


@BOTH_SIDES
def test_perpetual_check_loses_when_the_checking_move_completes_it(side: str) -> None:
    game, moves = on_side(side, CHECKED, *CHECK_ROUND * 3)
    assert not play(game, *moves[:-1]).terminated[0]
    result = play(game, moves[-1])
    assert (result.reward[0], result.terminated[0]) == (-1.0, True)
    assert game.outcome(0) == "perpetual check"


@BOTH_SIDES
def test_perpetual_check_loses_when_the_escaping_move_completes_it(side: str) -> None:
    moves = ("5h6h", "6a5a", "6h5h", "5a6a")
    game, moves = on_side(side, "3k5/9/9/9/9/9/9/4R4/K8 b - 1", *moves * 3)
    assert not play(game, *moves[:-1]).terminated[0]
    result = play(game, moves[-1])
    assert (result.reward[0], result.terminated[0]) == (1.0, True)
    assert game.outcome(0) == "perpetual check"


@pytest.mark.parametrize("quiet_at", [0, 1, 2])
def test_a_single_quiet_move_makes_it_an_ordinary_repetition(quiet_at: int) -> None:
    rounds = [CHECK_ROUND] * 2
    rounds.insert(quiet_at, QUIET_ROUND)
    game = shogi(CHECKED)
    result = play(game, *(move for moves in rounds for move in moves))
    assert (result.reward[0], result.terminated[0]) == (0.0, True)
    assert game.outcome(0) == "repetition"


# Entering-king declaration: the opponent moves his king, then Black (or White) may declare or just not.

ENOUGH = "4K4/RBGGGGSSS/8S/9/9/9/9/9/4k4 w RB 1"  # ten pieces worth 18 and a hand worth 10: 28 points
ONE_LESS = "4K4/RBGGGGSSS/8S/9/9/9/9/9/4k4 w R4Pb 1"  # 27
TWO_LESS = "4K4/RBGGGGSSS/8S/9/9/9/9/9/4k4 w R3Pb 1"  # 26


@BOTH_SIDES
def test_a_declaration_wins_against_who_has_just_moved(side: str) -> None:
    game, moves = on_side(side, ENOUGH, "5i4i")
    result = play(game, *moves)
    assert (result.reward[0], result.terminated[0], result.truncated[0]) == (-1.0, True, False)
    assert game.outcome(0) == "declaration"
    assert not look(game).mask.any()


@pytest.mark.parametrize(
    ("side", "sfen", "declares"),
    [
        ("black", ENOUGH, True),
        ("black", ONE_LESS, False),
        ("white", ONE_LESS, True),
        ("white", TWO_LESS, False),
    ],
)
def test_black_needs_28_points_and_white_27(side: str, sfen: str, declares: bool) -> None:
    game, moves = on_side(side, sfen, "5i4i")
    assert bool(play(game, *moves).terminated[0]) is declares


@BOTH_SIDES
@pytest.mark.parametrize(
    ("sfen", "move"),
    [
        pytest.param("9/RBGGGGSSS/8S/4K4/9/9/9/9/4k4 w RB9P 1", "5i4i", id="the king outside the three ranks"),
        pytest.param("4K4/RBGGGGSS1/8S/9/9/9/9/9/4k4 w RB9P 1", "5i4i", id="only nine other pieces there"),
        pytest.param("4K4/RBGGGSSSS/8L/9/9/9/9/9/4k4 w RB9Pg 1", "G*4a", id="in check"),
        pytest.param("4K4/RBGGGGSS1/9/8S/4+P4/4+P4/9/9/4k4 w RB9P 1", "5i4i", id="pieces below the third rank"),
    ],
)
def test_no_declaration_with(side: str, sfen: str, move: str) -> None:
    game, moves = on_side(side, sfen, move)
    assert not play(game, *moves).terminated[0]


def test_promoted_rooks_and_bishops_count_five_and_other_promoted_pieces_one() -> None:
    enough = "4K4/+R+B+P+P+P+PSSS/8S/9/9/9/9/9/4k4 w RB 1"
    assert play(shogi(enough), "5i4i").terminated[0]
    assert not play(shogi(enough.replace("w RB", "w R4Pb")), "5i4i").terminated[0]


def test_the_declaration_can_be_switched_off() -> None:
    assert not play(shogi(ENOUGH, declaration=False), "5i4i").terminated[0]


# Ply limit


def test_the_ply_limit_is_a_draw_by_the_rules() -> None:
    game = shogi("startpos", max_plies=4)
    assert not play(game, "7g7f", "3c3d", "2g2f").terminated[0]
    result = play(game, "8c8d")
    assert (result.reward[0], result.terminated[0], result.truncated[0]) == (0.0, True, False)
    assert game.outcome(0) == "max plies"
    assert look(game).observation[0, PLY_BYTE] == 255


def test_mate_at_the_ply_limit_is_mate() -> None:
    game = shogi("8k/9/8P/9/9/9/9/9/4K4 b G 1", max_plies=1)
    assert play(game, "G*1b").reward[0] == 1
    assert game.outcome(0) == "checkmate"


def test_plies_are_counted_from_the_move_number_of_the_sfen() -> None:
    game = shogi("4k4/9/9/9/9/9/9/9/4K4 b - 5", max_plies=6)
    assert look(game).observation[0, PLY_BYTE] == 4 * 255 // 6
    assert not play(game, "5i4i").terminated[0]
    assert play(game, "5a4a").terminated[0]


# Positions that cannot be played


@pytest.mark.parametrize(
    ("sfen", "reason"),
    [
        ("no sfen", "cannot read"),
        ("4k4/9/9/9/9/9/9/9/9 b - 1", "Black king is missing"),
        ("4k4/9/4P4/4P4/9/9/9/9/4K4 b - 1", "double pawn"),
        ("4k4/9/9/9/9/9/9/9/4K4 b 19P 1", "excessive piece count"),
        ("4k4/9/9/9/9/9/9/4R4/K8 b - 1", "just moved is in check"),
        ("8k/8G/8P/9/9/9/9/9/4K4 w - 1", "already over: checkmate"),
        ("8k/9/6NG1/9/9/9/9/9/4K4 w - 1", "already over: no legal move"),
        (ENOUGH.replace(" w ", " b "), "already over: declaration"),
        ("4k4/9/9/9/9/9/9/9/4K4 b - 321", "already over: max plies"),
    ],
)
def test_impossible_and_finished_positions_are_refused_and_change_nothing(sfen: str, reason: str) -> None:
    game = shogi("startpos")
    before = look(game)
    with pytest.raises(GameError, match=reason):
        game.set_position(0, sfen)
    assert all(map(np.array_equal, before, look(game)))
