"""JKF, the JSON kifu format of web boards.

References:
    json-kifu-format (MIT): https://github.com/na2hiro/Kifu-for-JS/tree/master/packages/json-kifu-format
"""

from __future__ import annotations

import json
from typing import Any, Final

from rsshogi.initial_positions import HANDICAP_TO_SFEN

from keisei_lightning.games.saved_game import SavedGame
from keisei_lightning.games.shogi.kifu.csa import CSA_PIECES
from keisei_lightning.games.shogi.kifu.ends import CSA_ENDS
from keisei_lightning.games.shogi.kifu.headers import KIF_HEADERS, START_PLIES, one_line
from keisei_lightning.games.shogi.kifu.main_line import MainLine, refuse
from keisei_lightning.games.shogi.kifu.start_position import sfen_of

__all__ = ["read_jkf"]

_PRESETS: Final = {
    **{"HIRATE": "平手", "KY": "香落ち", "KY_R": "右香落ち", "KA": "角落ち", "HI": "飛車落ち", "HIKY": "飛香落ち"},
    **{"2": "二枚落ち", "3": "三枚落ち", "4": "四枚落ち", "5": "五枚落ち", "5_L": "左五枚落ち"},
    **{"6": "六枚落ち", "8": "八枚落ち", "10": "十枚落ち"},
}
_PLAYERS: Final = {"先手": 0, "下手": 0, "後手": 1, "上手": 1}


def read_jkf(text: str) -> SavedGame:
    """A game in JKF; errors name the move instead of a line, of which JSON has often only one.

    Raises:
        GameError: see :meth:`~keisei_lightning.games.ReplayableGame.read_record`.
    """
    try:
        whole = json.loads(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        refuse(f"line {error.lineno}", f"is no JSON ({error.msg} at column {error.colno})")
    except (RecursionError, ValueError):
        refuse("line 1", "is JSON too deep or with numbers too long to be a game")
    whole = _section(whole, "the record", "line 1")
    moves = _list(whole.get("moves"), "moves", "line 1")
    if not moves:
        refuse("line 1", "there is no game in it: moves is empty")
    players, headers, plies = _headers(_section(whole.get("header") or {}, "header", "header"))
    main = MainLine(_start(_section(whole.get("initial") or {}, "initial", "initial"), plies), "initial")
    for number, entry in enumerate(moves):
        _take(main, _section(entry, "an entry", f"moves[{number}]"), number)
    return main.close(players=players, headers=headers)


def _headers(given: dict[str, Any]) -> tuple[tuple[str, str], dict[str, str], int]:
    names, headers, plies = ["", ""], dict[str, str](), 0
    for key, value in given.items():
        if not isinstance(value, str):
            refuse("header", f"{key}: must be text")
        if key in _PLAYERS:
            names[_PLAYERS[key]] = one_line(value)
        elif key == START_PLIES and value.isdecimal() and len(value) < 7:
            plies = int(value)
        else:
            headers[KIF_HEADERS.get(key, key)] = value
    return (names[0], names[1]), headers, plies


def _take(main: MainLine, entry: dict[str, Any], number: int) -> None:
    """One entry: a move or an end, then its time, comments and other lines of play."""
    where = f"moves[{number}]"
    if entry.get("move") is not None:
        _move(main, _section(entry["move"], "move", where), where)
        if entry.get("time") is not None:
            main.note_time(_seconds(_section(entry["time"], "time", where), where))
    if (special := entry.get("special")) is not None:
        end = CSA_ENDS.get(special) if isinstance(special, str) else None
        if end is None:
            refuse(where, f"special {special!r}: must be one of {' '.join(CSA_ENDS)}")
        main.end(end)
    for comment in _list(entry.get("comments") or [], "comments", where):
        if not isinstance(comment, str):
            refuse(where, "comments: must be text")
        for line in comment.split("\n"):
            main.note_comment(line)
    if entry.get("forks"):
        main.left_out.append(f"{where}: variations")


def _move(main: MainLine, move: dict[str, Any], where: str) -> None:
    piece = CSA_PIECES.get(move.get("piece") or "") if isinstance(move.get("piece"), str) else None
    if piece is None:
        refuse(where, f"piece {move.get('piece')!r}: must be one of {' '.join(CSA_PIECES)}")
    if move.get("to") is None and move.get("same") and main.last_square is not None:
        target = main.last_square
    else:
        target = _square(move.get("to"), "to", where)
    if move.get("from") is None:
        usi = f"{piece}*{target}"
    else:
        usi = f"{_square(move['from'], 'from', where)}{target}{'+' if move.get('promote') else ''}"
    main.play_usi(usi, where, usi)


def _square(given: Any, key: str, where: str) -> str:
    place = _section(given, key, where)
    x, y = place.get("x"), place.get("y")
    if not (isinstance(x, int) and isinstance(y, int) and 1 <= x <= 9 and 1 <= y <= 9):
        refuse(where, f"{key}: must have x and y from 1 to 9")
    return f"{int(x)}{'abcdefghi'[int(y) - 1]}"


def _seconds(time: dict[str, Any], where: str) -> float:
    now = _section(time.get("now"), "now", where)
    parts = [now.get(unit) or 0 for unit in ("h", "m", "s")]
    if not all(isinstance(part, int | float) and 0 <= part < 1e6 for part in parts):
        refuse(where, "time: h, m and s must be numbers, 0 or more")
    return float(3600 * parts[0] + 60 * parts[1] + parts[2])


def _start(initial: dict[str, Any], plies: int) -> str:
    preset = initial.get("preset") or "HIRATE"
    if preset == "OTHER":
        return _diagram(_section(initial.get("data"), "data", "initial"), plies)
    if not isinstance(preset, str) or preset not in _PRESETS:
        refuse("initial", f"preset {preset!r}: must be one of {' '.join(_PRESETS)} OTHER")
    return f"{HANDICAP_TO_SFEN[_PRESETS[preset]].rsplit(' ', 1)[0]} {plies + 1}"


def _diagram(data: dict[str, Any], plies: int) -> str:
    columns = _list(data.get("board"), "board", "initial")
    if len(columns) != 9 or any(not isinstance(column, list) or len(column) != 9 for column in columns):
        refuse("initial", "board: must be nine files of nine squares")
    rows = [[_piece(columns[8 - file][rank]) for file in range(9)] for rank in range(9)]
    hands: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for seat, given in enumerate(_list(data.get("hands") or [{}, {}], "hands", "initial")[:2]):
        for name, count in _section(given, "hands", "initial").items():
            letter = CSA_PIECES.get(name, "K")
            if letter not in "PLNSBRG" or not isinstance(count, int) or not 0 <= count <= 18:
                refuse("initial", f"hands: {name}={count!r} are no pieces in hand")
            hands[seat][letter] = int(count)
    return sfen_of(rows, hands, "w" if data.get("color") == 1 else "b", plies + 1)


def _piece(given: Any) -> str:
    square = _section(given, "board", "initial")
    name, color = square.get("kind"), square.get("color")
    if name is None:
        return ""
    if not isinstance(name, str) or name not in CSA_PIECES or color not in (0, 1):
        refuse("initial", f"board: {name!r} of color {color!r} is no piece")
    letter = CSA_PIECES[name]
    return letter.lower() if color == 1 else letter


def _section(given: Any, name: str, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        refuse(where, f"{name}: must be an object")
    return given


def _list(given: Any, name: str, where: str) -> list[Any]:
    if not isinstance(given, list):
        refuse(where, f"{name}: must be a list")
    return given
