"""A game as a list of numbered moves below lines about it, much like PGN.

::

    game: connect_four
    first: alice
    second: bob
    outcome: first player wins

    1. x3 2. o3 {A comment.} 3. x2 1-0

The last word is ``1-0``, ``0-1``, ``1/2-1/2`` or ``*`` (no result). Lines about the game may be missing.
"""

from __future__ import annotations

import re
from typing import Any, Final

from keisei_lightning.errors import GameError
from keisei_lightning.games.open_spiel.played_state import PlayedState, refuse
from keisei_lightning.games.saved_game import DRAW, RESIGNATION, SavedGame

__all__ = ["RESULT_WORDS", "read_move_list", "write_move_list"]

RESULT_WORDS: Final = {0: "1-0", 1: "0-1", None: "1/2-1/2"}
"""The last word of a finished game by the seat that won."""
_RESULT: Final = re.compile(r"(1-0|0-1|1/2-1/2|\*)(?=\s|$)")
_NUMBER: Final = re.compile(r"(\d{1,6})\.\s*")
_HEADER: Final = re.compile(r"([A-Za-z][A-Za-z _]*): ?(.*)")


def write_move_list(saved: SavedGame, game_name: str) -> str:
    """The text of a game.

    Args:
        saved: the game.
        game_name: what it is one of.
    """
    about = {"game": game_name, "first": saved.players[0], "second": saved.players[1], "outcome": saved.outcome}
    about |= {key: value for key, value in saved.headers.items() if _HEADER.fullmatch(f"{key}: ")}
    lines = [f"{key}: {' '.join(value.split())}".rstrip() for key, value in about.items()]
    words = [_comment(saved.comments.get(0))]
    for ply, move in enumerate(saved.moves, start=1):
        words += [f"{ply}. {move}", _comment(saved.comments.get(ply))]
    is_told = bool(saved.outcome) and (saved.winner is not None or saved.outcome in ("draw", "max plies", DRAW))
    words.append(RESULT_WORDS[saved.winner] if is_told else "*")
    return "\n".join([*lines, "", " ".join(filter(None, words)), ""])


def read_move_list(text: str, game: Any, game_name: str) -> SavedGame:
    """A game of a text.

    Args:
        text: see above.
        game: a ``pyspiel.Game``.
        game_name: of the game, which the text must not contradict.

    Raises:
        GameError: see :meth:`~keisei_lightning.games.ReplayableGame.read_record`.
    """
    about, body, first_line = _split(text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))
    if (told := about.pop("game", game_name)) != game_name:
        raise GameError(f"line 1: game {told}: must be {game_name}")
    state = PlayedState(game)
    result, where = _play(state, body, first_line)
    if not state.moves and result is None:
        refuse(where, "there is no game in it")
    outcome = about.pop("outcome", "")
    players = (about.pop("first", ""), about.pop("second", ""))
    winner = {"1-0": 0, "0-1": 1}.get(result or "")
    if not outcome and result not in (None, "*"):
        outcome = DRAW if winner is None else RESIGNATION
    return state.close(where, outcome=outcome, winner=winner, players=players, headers=about)


def _comment(text: str | None) -> str:
    """A comment in braces; what it cannot hold is left out."""
    return "" if text is None else "{" + re.sub(r"[{}]", "", text) + "}"


def _split(text: str) -> tuple[dict[str, str], str, int]:
    """Lines about the game; the moves; and the number of the line in which these begin."""
    about: dict[str, str] = {}
    lines = text.split("\n")
    for at, line in enumerate(lines):
        found = _HEADER.fullmatch(line.strip())
        if found is None or found[1] in about:
            return about, "\n".join(lines[at:]), at + 1
        about[found[1]] = found[2].strip()
    return about, "", len(lines)


def _play(state: PlayedState, body: str, first_line: int) -> tuple[str | None, str]:
    """Play the moves; the word of the result, None where there is none, and the last line."""
    at = 0

    def where() -> str:
        return f"line {first_line + body.count(chr(10), 0, at)}"

    while at < len(body):
        if body[at].isspace():
            at += 1
        elif body[at] == "{":
            end = body.find("}", at)
            if end < 0:
                refuse(where(), "a comment has no end")
            state.note_comment(body[at + 1 : end])
            at = end + 1
        elif (found := _RESULT.match(body, at)) and not _names_at(state, body, at):
            if rest := body[found.end() :].strip():
                refuse(where(), f"{rest.split()[0]}: is behind the result")
            return found[1], where()
        else:
            number = _NUMBER.match(body, at)
            if number is not None:
                if int(number[1]) != len(state.moves) + 1:
                    refuse(where(), f"{number[0].strip()}: must be move {len(state.moves) + 1}")
                at = number.end()
            names = _names_at(state, body, at)
            word = max(names, key=len) if names else (body[at:].split() or ["nothing"])[0]
            state.play(word, where())
            at += len(word)
    return None, where()


def _names_at(state: PlayedState, body: str, at: int) -> list[str]:
    """Legal moves whose names stand at a place; names may have blanks in them."""
    return [
        name
        for name in state.legal()
        if body.startswith(name, at) and not body[at + len(name) : at + len(name) + 1].strip()
    ]
