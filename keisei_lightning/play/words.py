"""What a person reads of a game: lines with a style each, for any screen."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from keisei_lightning.play.analysis import Analysis
from keisei_lightning.play.session import GameSession
from keisei_lightning.play.typed_moves import move_labels

__all__ = [
    "SEATS",
    "Line",
    "Style",
    "analysis_lines",
    "board_lines",
    "evaluation_line",
    "list_lines",
    "plain",
    "result_line",
]

Style = Literal["plain", "board", "title", "note", "error"]

WIDTH: Final = 79
_HINTS: Final = 5
_VARIATION: Final = 10
_EXACT: Final = {1: "a forced win", 0: "a draw with best play", -1: "a forced loss"}
SEATS: Final = ("the first player", "the second player")
_FEN_WORDS: Final = re.compile(r"\+?[A-Za-z~]|\d+")


@dataclass(frozen=True, slots=True)
class Line:
    """A line, or several of a board.

    Attributes:
        text: what it says.
        style: how it may be shown.
        ascii_text: the same for a screen that lacks its characters.
    """

    text: str
    style: Style = "plain"
    ascii_text: str = ""


def plain(*texts: str, style: Style = "plain") -> list[Line]:
    """Lines, each broken at the width of a screen."""
    return [
        Line(part, style)
        for text in texts
        for part in textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    ]


def board_lines(session: GameSession) -> list[Line]:
    """The board as its game draws it."""
    text = session.game.render(0, "text")
    text = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
    return [Line(text, "board", text if text.isascii() else _drawn(session.game.position(0)))]


def _drawn(position: str) -> str:
    """A position in ASCII: row by row where it is written as FEN is, such as shogi's SFEN, else as it is."""
    board, *rest = position.split()
    rows = [_FEN_WORDS.findall(row) for row in board.split("/")]
    if len(rows) < 2 or "".join(map("".join, rows)) != board.replace("/", ""):
        return position
    squares = [
        [square for word in row for square in ([" ."] * int(word) if word.isdecimal() else [f"{word:>2}"])]
        for row in rows
    ]
    return "\n".join([*(" ".join(row) for row in squares), " ".join(rest)])


def evaluation_line(analysis: Analysis, name: str) -> str:
    """What a position is worth, and the play that is expected.

    Args:
        analysis: of the position.
        name: of who is to move there.
    """
    exact = f", {_EXACT[analysis.result]}" if analysis.result is not None else ""
    line = " ".join(analysis.variation[:_VARIATION])
    return f"value {_signed(analysis.value)} for {name} ({analysis.expected_score:.0%}{exact}); expects {line}"


def analysis_lines(analysis: Analysis, name: str) -> list[Line]:
    """The best moves as a table, and the evaluation.

    Args:
        analysis: of the position.
        name: of who is to move there.
    """
    best = analysis.moves[:_HINTS]
    wide = max(4, *(len(move.name) for move in best))
    lines = [Line(f"{'move':<{wide}}  policy  network  visits  value", "note")]
    for move in best:
        value = "" if move.value is None else _signed(move.value)
        row = f"{move.name:<{wide}}  {move.policy:6.1%}  {move.prior:7.1%}  {move.visits:6}  {value:>5}"
        lines.append(Line(row.rstrip()))
    return [*lines, *plain(evaluation_line(analysis, name))]


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # no -0.00


def list_lines(names: Sequence[str]) -> list[Line]:
    """All moves, each with the number that it can be chosen by, in columns."""
    cells = [f"{label}: {name}" for label, name in move_labels(names).items()]
    wide = max((len(cell) for cell in cells), default=0) + 2
    each = max(1, WIDTH // wide)
    rows = (cells[at : at + each] for at in range(0, len(cells), each))
    return [Line("".join(f"{cell:<{wide}}" for cell in row).rstrip()) for row in rows]


def result_line(session: GameSession, names: Sequence[str]) -> str:
    """How a game ended.

    Args:
        session: which is over.
        names: of the players in seat 0 and 1.
    """
    count = len(session.moves)
    plies = f"after {count} move{'' if count == 1 else 's'}"
    if session.result is None:
        return f"The game was cut short {plies} ({session.outcome})."
    is_told = session.outcome == "draw" or session.outcome.endswith(" wins")
    how = plies if is_told else f"by {session.outcome} {plies}"
    if session.result == 0.5:
        return f"A draw {how}."
    seat = 0 if session.result == 1.0 else 1
    return f"{_winner(seat, names[seat])} {how}."


def _winner(seat: int, name: str) -> str:
    if name == "you":
        return f"You ({SEATS[seat]}) win"
    return f"{name} ({SEATS[seat]}) wins" if name != SEATS[seat] else f"{name.capitalize()} wins"
