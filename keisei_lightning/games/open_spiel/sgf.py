"""SGF, the format of programs for many board games, for hex (GM[11]) and othello (GM[2]).

Squares are a letter for the column and a number for the row from the top, in both games, as OpenSpiel names them. Hex
knows ``swap-pieces``, ``resign`` and ``forfeit`` too; a pass in othello is ``PA`` (read also: ``pass``, ``tt`` and
nothing).

References:
    SGF FF[4]: https://www.red-bean.com/sgf/ ; hex: https://www.red-bean.com/sgf/hex.html
    Othello has no page of its own there; squares and passes are those of Edax: https://github.com/abulmo/edax-reversi
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from keisei_lightning.games.open_spiel.played_state import PlayedState, refuse
from keisei_lightning.games.saved_game import DRAW, FORFEIT, RESIGNATION, TIME_OUT, VOID, SavedGame

__all__ = ["read_sgf", "sgf_games", "write_sgf"]

_NUMBERS: Final = {"hex": 11, "othello": 2}
_USUAL_SIZE: Final = {"hex": 11, "othello": 8}
_OTHELLO: Final = {"AB": {"d5", "e4"}, "AW": {"d4", "e5"}}
_HEADERS: Final = {"EV": "event", "PC": "site", "DT": "start_date"}
_NO_HEADERS: Final = frozenset({"AB", "AP", "AW", "B", "C", "CA", "FF", "GM", "PB", "PL", "PW", "RE", "SZ", "W"})
_PASSES: Final = ("", "pa", "pass", "tt")
_BY: Final = {
    "R": RESIGNATION,
    "RESIGN": RESIGNATION,
    "T": TIME_OUT,
    "TIME": TIME_OUT,
    "F": FORFEIT,
    "FORFEIT": FORFEIT,
}
_MARKS: Final = {RESIGNATION: "R", TIME_OUT: "T", FORFEIT: "F"}
_IDENT: Final = re.compile(r"[A-Za-z]{1,16}")


def sgf_games() -> tuple[str, ...]:
    """OpenSpiel's names of the games that are written."""
    return tuple(_NUMBERS)


@dataclass(slots=True)
class _Node:
    """Properties of a node, and the line that it begins in."""

    where: str
    properties: dict[str, list[str]] = field(default_factory=dict)


def write_sgf(saved: SavedGame, game: Any) -> str:
    """The text of a game.

    Args:
        saved: the game.
        game: its ``pyspiel.Game``.
    """
    name = game.get_type().short_name
    rows, columns = _size(game)
    properties = [
        ("FF", "4"),
        ("GM", str(_NUMBERS[name])),
        ("CA", "UTF-8"),
        ("AP", "keisei-lightning"),
        ("SZ", str(rows) if rows == columns else f"{columns}:{rows}"),
        *((ident, saved.headers[key]) for ident, key in _HEADERS.items() if key in saved.headers),
        *((key, value) for key, value in saved.headers.items() if _is_header(key)),
        ("PB", saved.players[0]),
        ("PW", saved.players[1]),
        ("RE", _result(saved)),
    ]
    text = "(;" + "".join(f"{ident}[{_escaped(value)}]" for ident, value in properties if value)
    if name == "othello":
        text += "".join(key + "".join(f"[{square}]" for square in sorted(_OTHELLO[key])) for key in _OTHELLO)
    lines = [text + _comment(saved, 0)]
    state = PlayedState(game)
    for ply, move in enumerate(saved.moves, start=1):
        color = "BW"[state.mover]
        state.play(move, "the game")
        said = {"swap": "swap-pieces", "pass": "PA"}.get(move, move)
        lines.append(f";{color}[{said}]{_comment(saved, ply)}")
    return "\n".join([lines[0], *("".join(lines[at : at + 10]) for at in range(1, len(lines), 10))]) + ")\n"


def read_sgf(text: str, game: Any) -> SavedGame:
    """The main line of the first game of a text.

    Args:
        text: of a file.
        game: the ``pyspiel.Game`` that it must be one of.

    Raises:
        GameError: see :meth:`~keisei_lightning.games.ReplayableGame.read_record`.
    """
    nodes, left = _main_line(text.removeprefix("\ufeff"))
    root = nodes[0]
    _check_root(root, game)
    state = PlayedState(game)
    state.left_out += left
    outcome, winner = _told_result(_first(root, "RE"))
    for node in nodes:
        if end := _play(state, node, game.get_type().short_name):
            outcome, winner = end
            break
        for comment in node.properties.get("C", []):
            state.note_comment(comment)
    headers = {
        _HEADERS.get(key, key): _first(root, key) for key in root.properties if key in _HEADERS or _is_header(key)
    }
    return state.close(
        root.where,
        outcome=outcome,
        winner=winner,
        players=(" ".join(_first(root, "PB").split()), " ".join(_first(root, "PW").split())),
        headers=headers,
    )


def _size(game: Any) -> tuple[int, int]:
    """Rows and columns of the board."""
    given = game.get_parameters()
    usual = _USUAL_SIZE[game.get_type().short_name]
    return int(given.get("num_rows", usual)), int(given.get("num_cols", usual))


def _is_header(key: str) -> bool:
    return bool(re.fullmatch(r"[A-Z]{2}", key)) and key not in _NO_HEADERS and key not in _HEADERS


def _escaped(value: str) -> str:
    return re.sub(r"([\\\]])", r"\\\1", value)


def _comment(saved: SavedGame, ply: int) -> str:
    return f"C[{_escaped(saved.comments[ply])}]" if ply in saved.comments else ""


def _result(saved: SavedGame) -> str:
    if saved.winner is not None:
        return f"{'BW'[saved.winner]}+{_MARKS.get(saved.outcome, '')}"
    if saved.outcome in ("draw", "max plies", DRAW):
        return "0"
    return "Void" if saved.outcome == VOID else ""


def _told_result(text: str) -> tuple[str, int | None]:
    """Outcome and winner as RE tells them."""
    told = text.strip().upper()
    if told[:2] in ("B+", "W+"):
        return _BY.get(told[2:], RESIGNATION), "BW".index(told[0])
    if told in ("0", "DRAW"):
        return DRAW, None
    return (VOID if told == "VOID" else ""), None


def _first(node: _Node, key: str) -> str:
    return node.properties.get(key, [""])[0]


def _check_root(root: _Node, game: Any) -> None:
    """Refuse another game, another board and another start."""
    name = game.get_type().short_name
    number = _first(root, "GM").strip() or str(_NUMBERS[name])
    if number != str(_NUMBERS[name]):
        refuse(root.where, f"GM[{number}]: is another game; must be GM[{_NUMBERS[name]}] ({name})")
    rows, columns = _size(game)
    size = _first(root, "SZ").strip() or str(_USUAL_SIZE[name])
    if size not in (f"{columns}:{rows}", str(rows) if rows == columns else ""):
        refuse(root.where, f"SZ[{size}]: is another board; {name} has {columns} columns and {rows} rows here")
    for key in ("AB", "AW"):
        squares = {square.strip().lower() for square in root.properties.get(key, [])}
        usual = _OTHELLO[key] if name == "othello" else set()
        if squares and squares != usual:
            refuse(root.where, f"{key}: is another start than {name}'s own")


def _play(state: PlayedState, node: _Node, name: str) -> tuple[str, int | None] | None:
    """Play a node's move, if it has one; the outcome and the winner where it ends the game."""
    for color in "BW":
        for value in node.properties.get(color, []):
            said = value.strip().lower()
            seat = "BW".index(color)
            if name == "hex" and said in ("resign", "forfeit"):
                return (RESIGNATION if said == "resign" else FORFEIT), 1 - seat
            if seat != state.mover and set(state.legal()) == {"pass"}:
                state.play("pass", node.where)  # some programs write passes down and some do not
            if seat != state.mover and not state.is_over:
                refuse(node.where, f"{color}[{value}]: it is {'Black' if state.mover == 0 else 'White'}'s turn")
            state.play(_name_of(said, name), node.where)
    return None


def _name_of(said: str, name: str) -> str:
    if name == "othello" and said in _PASSES:
        return "pass"
    return {"swap-pieces": "swap"}.get(said, said) if name == "hex" else said


def _main_line(text: str) -> tuple[list[_Node], list[str]]:
    """Nodes of the main line, and what is not in it.

    Raises:
        GameError: it is no SGF.
    """
    nodes: list[_Node] = []
    at, line = text.find("("), 1
    if at < 0:
        refuse("line 1", "is no SGF: there is no parenthesis")
    line += text.count("\n", 0, at)
    at += 1
    while at < len(text) and text[at] != ")":
        where = f"line {line}"
        char = text[at]
        if char == ";":
            nodes.append(_Node(where))
            at += 1
        elif char.isspace() or char == "(":
            line += char == "\n"
            at += 1
        elif (ident := _IDENT.match(text, at)) and nodes:
            end, values = _values(text, ident.end(), where)
            key = re.sub("[a-z]", "", ident[0])  # small letters are for people, in old versions
            nodes[-1].properties.setdefault(key, []).extend(values)
            line += text.count("\n", at, end)
            at = end
        else:
            refuse(where, f"{char}: is no SGF here")
    if at >= len(text):
        refuse(f"line {line}", "the closing parenthesis is missing")
    if not nodes:
        refuse(f"line {line}", "there is no game in it")
    left = [f"line {line}: what follows: variations or further games"] if "(" in text[at:] else []
    return nodes, left


def _values(text: str, at: int, where: str) -> tuple[int, list[str]]:
    """Values in brackets behind a property's name, and where they end."""
    values: list[str] = []
    while True:
        begin = at
        while begin < len(text) and text[begin].isspace():
            begin += 1
        if begin >= len(text) or text[begin] != "[":
            break
        end = begin + 1
        while end < len(text) and text[end] != "]":
            end += 2 if text[end] == "\\" else 1
        if end >= len(text):
            refuse(where, "a value has no closing bracket")
        inner = text[begin + 1 : end].replace("\\\r\n", "").replace("\\\n", "")
        values.append(re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL))
        at = end + 1
    if not values:
        refuse(where, "a property has no value")
    return at, values
