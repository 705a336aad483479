"""Pictures of boards: every piece in its place, every move on the picture, and nothing that needs a font."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from game_helpers import look, names, play, random_actions

from keisei_lightning.games import NO_MOVE, ClickableGame, Game, grid_svg, grid_text, make_game
from keisei_lightning.games.open_spiel.game import OpenSpielGame
from keisei_lightning.games.shogi.codec import PIECE_NAMES, square_name
from keisei_lightning.games.shogi.drawing import LETTERS
from keisei_lightning.games.shogi.game import Shogi
from keisei_lightning.games.svg_elements import INKS, element, label

XLINK = "{http://www.w3.org/1999/xlink}href"
DRAWN = ["shogi", "tic_tac_toe", "connect_four", "othello", "breakthrough", "hex(board_size=7)", "mnk(m=6,n=5,k=4)"]
DRAWN += ["go(board_size=7)", "gomoku(size=7)", "y(board_size=5)", "havannah(board_size=4)", "pentago", "clobber"]
DRAWN += ["checkers", "lines_of_action", "amazons(board_size=6)", "dots_and_boxes(num_rows=2,num_cols=3)"]

# What OpenSpiel writes for an empty square, the two players' stones, their crowned ones and a blocked square.
SYMBOLS = {
    **dict.fromkeys(["tic_tac_toe", "connect_four", "hex(board_size=7)", "mnk(m=6,n=5,k=4)"], ".xo"),
    **dict.fromkeys(["y(board_size=5)", "havannah(board_size=4)", "pentago"], ".O@"),
    **dict.fromkeys(["breakthrough", "gomoku(size=7)"], ".bw"),
    **{"othello": "-xo", "go(board_size=7)": "+XO", "clobber": ".ox", "lines_of_action": ".xo"},
    **{"checkers": ".o+8*", "amazons(board_size=6)": ".XO  #"},
}


def tag(drawn: Element) -> str:
    return drawn.tag.rpartition("}")[2]


def layer(svg: str, name: str) -> list[Element]:
    """The elements of one layer of a picture."""
    root = ElementTree.fromstring(svg)
    return [child for group in root.iter() if group.get("class", "").split()[:1] == [name] for child in group]


def middles(svg: str) -> dict[str, tuple[float, float]]:
    """The middle of each part; of a part that is drawn several times, the last one's."""
    drawn = [child for child in ElementTree.fromstring(svg).iter() if child.get("data-part") is not None]
    return {each.get("data-part", ""): (float(each.get("data-x", "")), float(each.get("data-y", ""))) for each in drawn}


def place(drawn: Element) -> tuple[float, float]:
    """Where an element's origin is put."""
    found = re.match(r"translate\((\S+) (\S+)\)", drawn.get("transform", ""))
    assert found is not None
    return float(found[1]), float(found[2])


def after_random_play(name: str, plies: int, seed: int) -> Game:
    game = make_game(name, 1)
    game.seed(seed)
    game.reset()
    rng = np.random.default_rng(seed)
    for _ in range(plies):
        game.step(random_actions(look(game).mask, rng))
    return game


@pytest.mark.parametrize("seed", range(8))
def test_every_piece_of_shogi_is_at_the_middle_of_its_square_and_points_to_its_side(seed: int) -> None:
    """Against rsshogi's own list of the pieces."""
    game = after_random_play("shogi", 40 * seed, seed)
    assert isinstance(game, Shogi)
    svg = game.render(0, "svg")
    squares = middles(svg)
    expected = {}
    for square, piece in game._board(0).iter_pieces():
        name, white = PIECE_NAMES[int(piece.piece_type) - 1], piece.color.is_white()
        letter = "玉" if name == "K" and white else LETTERS[name]
        expected[squares[square_name(int(square))]] = (f"#piece-{letter}", white)
    drawn = layer(svg, "pieces")
    assert {place(each): (each.get(XLINK), "rotate(180)" in each.get("transform", "")) for each in drawn} == expected
    assert len(drawn) == len(expected)


def test_pieces_in_hand_are_drawn_with_their_number_and_only_the_movers_can_be_clicked() -> None:
    game = make_game("shogi", 1)
    game.set_position(0, "4k4/9/9/9/9/9/9/9/4K4 w 2R3Pb12p 1")
    svg = game.render(0, "svg")
    hands = [group for group in layer(svg, "hands") if tag(group) == "g"]
    pieces = Counter(use.get(XLINK) for group in hands for use in group if "#piece" in (use.get(XLINK) or ""))
    assert pieces == {"#piece-飛": 1, "#piece-歩": 2, "#piece-角": 1}
    counted = [use.get(XLINK) for group in hands for use in group.iter() if "#letter" in (use.get(XLINK) or "")]
    assert sorted(counted) == sorted(f"#letter-{ord(digit):x}" for digit in ("2", "3", "1", "2"))
    assert {part for part in middles(svg) if "*" in part} == {"B*", "P*"}
    clicks = {game.move_parts(0, action) for action in names(game).values()}  # type: ignore[attr-defined]
    assert {parts[0] for parts in clicks} == {"5a", "B*", "P*"}


def test_moves_of_shogi_with_and_without_promotion_are_the_same_clicks() -> None:
    game = make_game("shogi", 1)
    assert isinstance(game, ClickableGame)
    play(game, "7g7f", "3c3d")
    parts = Counter(game.move_parts(0, action) for action in names(game).values())
    assert parts["8h", "2b"] == 2
    assert parts["2g", "2f"] == 1


@pytest.mark.parametrize("name", DRAWN)
def test_every_legal_move_can_be_clicked(name: str) -> None:
    game = make_game(name, 1)
    assert isinstance(game, ClickableGame)
    game.reset()
    rng = np.random.default_rng(5)
    for ply in range(200):
        legal = names(game)
        if not legal:
            break
        if ply % 3 == 0:
            svg = game.render(0, "svg")
            parts = middles(svg)
            clicks = {name: game.move_parts(0, action) for name, action in legal.items()}
            assert all(set(clicked) <= parts.keys() for clicked in clicks.values())
            assert all(clicked or "pass" in move.lower() for move, clicked in clicks.items())
            told_apart = [(clicked, "+" in move, move[-1:] * (name == "pentago")) for move, clicked in clicks.items()]
            assert len(set(told_apart)) == len(told_apart)
        game.step(random_actions(look(game).mask, rng))
    assert ply >= 5


@pytest.mark.parametrize(("name", "symbols"), SYMBOLS.items())
def test_the_stones_are_those_of_open_spiels_own_text(name: str, symbols: str) -> None:
    for plies in (0, 5, 40):
        game = after_random_play(name, plies, seed=plies)
        assert isinstance(game, OpenSpielGame)
        drawing, state = game._drawing, game.state(0)
        assert drawing is not None
        board = drawing.squares(np.array(state.observation_tensor(0), np.float32)).tolist()
        expected = [[stone for stone in row if stone >= 0] for row in board]
        rows = [re.sub(r"^ *\d?", "", line) for line in str(state).splitlines()]  # without their numbers
        lines = [[symbols.index(letter) for letter in row if letter in symbols] for row in rows]
        found = [line for line in lines if len(line) in {len(row) for row in expected}]
        assert [row for row in found if row][: len(expected)] == expected


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("plies", [0, 9, 60])
def test_a_picture_is_small_and_needs_no_font_and_nothing_from_elsewhere(name: str, plies: int) -> None:
    svg = after_random_play(name, plies, seed=plies).render(0, "svg")
    root = ElementTree.fromstring(svg)
    tags = Counter(tag(each) for each in root.iter())
    assert tags["text"] == tags["image"] == tags["script"] == 0
    assert tags["svg"] == tags["title"] == tags["style"] == 1
    named = {each.get("id") for each in root.iter()} - {None}
    used = {each.get(XLINK, "").removeprefix("#") for each in root.iter() if each.get(XLINK) is not None}
    assert used <= named  # an outline of both shogi's sides may be unused, a letter may not
    assert {name for name in named if str(name).startswith("letter-")} <= used
    assert "font" not in svg
    assert len(svg.encode()) < 45_000


@pytest.mark.parametrize("name", DRAWN)
def test_all_that_is_drawn_is_inside_the_view_box(name: str) -> None:
    svg = after_random_play(name, 30, seed=1).render(0, "svg")
    root = ElementTree.fromstring(svg)
    left, top, width, height = map(float, root.get("viewBox", "").split())
    assert (left, top, root.get("width"), root.get("height")) == (0, 0, f"{width:g}", f"{height:g}")
    places = [
        *middles(svg).values(),
        *(place(each) for each in layer(svg, "pieces") if "translate" in str(each.attrib)),
    ]
    for drawn in root.iter():
        if tag(drawn) == "circle":
            places.append((float(drawn.get("cx", "")), float(drawn.get("cy", ""))))
        if tag(drawn) == "polyline":
            places += [(float(x), float(y)) for x, y in (at.split(",") for at in drawn.get("points", "").split())]
    assert all(0 < x < width and 0 < y < height for x, y in places)
    assert len(places) >= 9


@pytest.mark.parametrize(
    ("name", "moves", "marked"),
    [
        ("shogi", ["7g7f"], ["7f", "7g"]),
        ("othello", ["d3"], ["d3"]),
        ("breakthrough", ["a7b6"], ["a7", "b6"]),
        ("hex(board_size=5)", ["c2", "a4"], ["a4"]),
        ("tic_tac_toe", ["x(0,2)"], ["0,2"]),
    ],
)
def test_the_last_move_is_marked(name: str, moves: list[str], marked: list[str]) -> None:
    game = make_game(name, 1)
    assert layer(game.render(0, "svg"), "last") == []
    play(game, *moves)
    svg = game.render(0, "svg")
    half = {"shogi": (22, 24)}.get(name, (20, 20))
    places = []
    for mark in layer(svg, "last"):
        corner = re.match(r"M(\S+) (\S+?)h", mark.get("d", ""))
        at = (mark.get("x"), mark.get("y")) if corner is None else corner.groups()
        x, y = (float(number or "nan") for number in at)
        places.append((x, y) if corner is None else (x + half[0], y + half[1]))
    assert sorted(places) == sorted(middles(svg)[part] for part in marked)


def test_the_last_move_of_connect_four_is_the_stone_that_fell() -> None:
    game = make_game("connect_four", 1)
    play(game, "x3", "o3")
    assert " . . .[o]. . .\n . . . x . . ." in game.render(0)


def test_a_drop_marks_one_square() -> None:
    game = make_game("shogi", 1)
    game.set_position(0, "4k4/9/9/9/9/9/9/9/4K4 b G 1")
    play(game, "G*5b")
    assert len(layer(game.render(0, "svg"), "last")) == 1


@pytest.mark.parametrize(
    ("name", "moves", "line"),
    [
        ("connect_four", ["x0", "o1", "x0", "o1", "x0", "o1", "x0"], 4),
        ("tic_tac_toe", ["x(0,0)", "o(1,0)", "x(1,1)", "o(2,0)", "x(2,2)"], 3),
        ("mnk(m=6,n=5,k=4)", ["x(0,0)", "o(1,0)", "x(0,1)", "o(1,1)", "x(0,3)", "o(1,2)", "x(0,2)"], 4),
        ("hex(board_size=3)", ["b1", "a1", "b2", "c1", "a3"], 3),  # a3 touches b2, which touches b1: top to bottom
    ],
)
def test_the_stones_that_won_are_ringed(name: str, moves: list[str], line: int) -> None:
    game = make_game(name, 1)
    play(game, *moves[:-1])
    assert layer(game.render(0, "svg"), "line") == []
    play(game, moves[-1])
    assert game.outcome(0) == "first player wins"
    assert len(layer(game.render(0, "svg"), "line")) == line


def test_hexagons_lie_half_a_width_to_the_right_of_those_above_and_have_six_neighbours() -> None:
    parts = middles(make_game("hex(board_size=5)", 1).render(0, "svg"))
    (x1, y1), (x2, y2), (right, _) = parts["b1"], parts["b2"], parts["c1"]
    assert (x2 - x1, y2 - y1) == (pytest.approx((right - x1) / 2, abs=0.02), pytest.approx(33))
    x, y = parts["c3"]
    near = [part for part, at in parts.items() if 0 < np.hypot(at[0] - x, at[1] - y) < 40]
    assert sorted(near) == ["b3", "b4", "c2", "c4", "d2", "d3"]


@pytest.mark.parametrize("name", DRAWN)
def test_pictures_of_one_game_have_one_size(name: str) -> None:
    sizes = {re.match("<svg[^>]*>", after_random_play(name, plies, seed=2).render(0, "svg")) for plies in (0, 1, 150)}
    assert len({found[0] for found in sizes if found is not None}) == 1


def test_whose_turn_it_is_is_shown_until_the_game_is_over() -> None:
    game = make_game("tic_tac_toe", 1)
    turns = []
    for move in ["x(0,0)", "o(1,0)", "x(1,1)", "o(2,0)", "x(2,2)"]:
        turns.append(tag(layer(game.render(0, "svg"), "mover")[0]))
        play(game, move)
    assert turns == ["path", "circle", "path", "circle", "path"]  # a cross is a path
    assert layer(game.render(0, "svg"), "mover") == []
    assert "first player wins" in game.render(0, "svg")


def test_every_colour_has_a_dark_one_for_those_who_prefer_it() -> None:
    svg = make_game("shogi", 1).render(0, "svg")
    style = next(each.text for each in ElementTree.fromstring(svg).iter() if tag(each) == "style")
    assert style is not None
    dark = style.partition("@media (prefers-color-scheme:dark){")[2]
    for each in ElementTree.fromstring(svg).iter():
        for key in ("fill", "stroke"):
            value = each.get(key)
            if value is None or value == "none":
                continue
            (ink,) = [name for name in each.get("class", "").split() if name.startswith(f"{key}-")]
            light, other = INKS[ink.removeprefix(f"{key}-")]
            assert value == light
            assert f".keisei .{ink}{{{key}:{other}}}" in dark


def test_names_from_elsewhere_cannot_break_a_picture() -> None:
    svg = grid_svg(np.zeros((1, 2), np.int64), parts=[['<a&"b', "c"]], rows=["<é>"], columns=["a", "…"], title="<&>")
    root = ElementTree.fromstring(svg)
    assert [each.get("data-part") for each in root.iter() if each.get("data-part")] == ['<a&"b', "c"]
    assert element("a", b=0.5, c_d=2, e=None) == '<a b="0.5" c-d="2"/>'
    assert label("…", 0, 0, 10) == ""


def test_a_board_as_text_has_coordinates_and_the_last_move_in_brackets() -> None:
    board = np.array([[0, 1], [2, 0]])
    assert grid_text(board) == " . x\n o ."
    assert grid_text(board, rows=["9", "10"], columns=["a", "b"], last=[(0, 1)], symbols=".bw") == (
        "   a b\n 9 .[b]\n10 w ."
    )
    assert grid_text(board, columns=["10", "11"], last=[(1, 0)]) == " 10 11\n  .  x\n [o] ."
    assert grid_text(board, skewed=True, last=[(1, 0)]) == " . x\n [o]."


@pytest.mark.parametrize("name", [*DRAWN, "hex(board_size=11)"])
def test_text_fits_a_terminal(name: str) -> None:
    lines = after_random_play(name, 20, seed=3).render(0).splitlines()
    wide = [sum(2 if ord(letter) > 0x2E80 else 1 for letter in line) for line in lines]
    assert max(wide) <= 80
    assert re.search(r"^ply \d+", lines[-1])


def test_an_undrawn_game_is_shown_as_text_and_has_no_parts() -> None:
    game = make_game("nim", 1)
    assert isinstance(game, OpenSpielGame)
    game.reset()
    assert game.move_parts(0, int(np.flatnonzero(look(game).mask[0])[0])) == ()
    assert "<text" in game.render(0, "svg")
    assert NO_MOVE not in names(game).values()


def test_lines_and_boxes_are_those_that_were_taken() -> None:
    game = make_game("dots_and_boxes(num_rows=1,num_cols=2)", 1)
    play(game, "P1(h,0,0)", "P2(h,1,0)", "P1(v,0,0)", "P2(v,0,1)")
    svg = game.render(0, "svg")
    taken = Counter(str(each.get("class")) for each in layer(svg, "pieces"))
    assert taken == {"fill-red": 2, "fill-blue": 3}  # the second player's last line closed a box
    assert {part for part in middles(svg) if part.startswith("v")} == {"v,0,0", "v,0,1", "v,0,2"}
    x, y = middles(svg)["v,0,1"]
    (mark,) = layer(svg, "last")
    assert mark.get("d", "").startswith(f"M{x - 4:g} {y:g}a")
