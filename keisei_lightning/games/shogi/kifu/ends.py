"""How a game of shogi ends, in the words of each record format."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from rsshogi.record import SpecialMoveEntry

from keisei_lightning.games.saved_game import (
    DRAW,
    FORFEIT,
    ILLEGAL_MOVE,
    IMPASSE,
    RESIGNATION,
    TIME_OUT,
    VOID,
)
from keisei_lightning.games.shogi.rules import (
    CHECKMATE,
    DECLARATION,
    MAX_PLIES,
    NO_LEGAL_MOVE,
    PERPETUAL_CHECK,
    REPETITION,
)

__all__ = ["CSA_ENDS", "KIF_ENDS", "USI_ENDS", "End", "read_summary", "terminal_of"]


@dataclass(frozen=True, slots=True)
class End:
    """An end as a record tells it.

    Attributes:
        outcome: see :attr:`~keisei_lightning.games.SavedGame.outcome`.
        for_mover: 1 the player to move wins, -1 loses, 0 nobody wins.
        winner: seat that wins, where the record names it instead.
    """

    outcome: str
    for_mover: int = 0
    winner: int | None = None

    def winner_of(self, mover: int) -> int | None:
        """The seat that wins.

        Args:
            mover: the seat to move at the end.
        """
        if self.winner is not None or self.for_mover == 0:
            return self.winner
        return mover if self.for_mover > 0 else 1 - mover


KIF_ENDS: Final = {
    "投了": End(RESIGNATION, -1),
    "詰み": End(CHECKMATE, -1),
    "詰": End(CHECKMATE, -1),
    "切れ負け": End(TIME_OUT, -1),
    "時間切れ": End(TIME_OUT, -1),
    "反則勝ち": End(ILLEGAL_MOVE, 1),
    "反則負け": End(ILLEGAL_MOVE, -1),
    "入玉勝ち": End(DECLARATION, 1),
    "勝ち宣言": End(DECLARATION, 1),
    "不戦勝": End(FORFEIT, 1),
    "不戦敗": End(FORFEIT, -1),
    "千日手": End(REPETITION),
    "持将棋": End(IMPASSE),
    "最大手数": End(MAX_PLIES),
    "裁定引分": End(DRAW),
    "引き分け": End(DRAW),
    "中断": End(VOID),
    "封じ手": End(VOID),
    "不詰": End(VOID),
}
"""Words of KIF that stand in the place of a move."""

CSA_ENDS: Final = {
    "TORYO": End(RESIGNATION, -1),
    "TSUMI": End(CHECKMATE, -1),
    "TIME_UP": End(TIME_OUT, -1),
    "ILLEGAL_MOVE": End(ILLEGAL_MOVE, -1),
    "+ILLEGAL_ACTION": End(ILLEGAL_MOVE, winner=1),
    "-ILLEGAL_ACTION": End(ILLEGAL_MOVE, winner=0),
    "KACHI": End(DECLARATION, 1),
    "SENNICHITE": End(REPETITION),
    "JISHOGI": End(IMPASSE),
    "HIKIWAKE": End(IMPASSE),
    "MAX_MOVES": End(MAX_PLIES),
    "CHUDAN": End(VOID),
    "MATTA": End(VOID),
    "FUZUMI": End(VOID),
    "ERROR": End(VOID),
}
"""What stands behind ``%`` in CSA, and in JKF's ``special``."""

USI_ENDS: Final = {"resign": End(RESIGNATION, -1), "win": End(DECLARATION, 1)}
"""What an engine answers instead of a move."""

_SEATS: Final = {"先手": 0, "下手": 0, "後手": 1, "上手": 1}
_SUMMARY: Final = re.compile(
    r"まで、?\s*(?:\d+|[〇一二三四五六七八九十百]+)?手?で?、?\s*(?P<what>.*?)[。．]?", re.DOTALL
)
_DECIDED: Final = re.compile(
    r"(?P<time>時間切れに(?:より|て))?(?P<seat>先手|後手|上手|下手)の(?P<how>勝ち?|負け|反則勝ち|反則負け|入玉勝ち|不戦勝|不戦敗|時間切れ負け)"
)
_HOW: Final = {"反則": ILLEGAL_MOVE, "入玉": DECLARATION, "不戦": FORFEIT, "時間": TIME_OUT}


def read_summary(text: str) -> End | None:
    """The end that the last line of KIF or KI2 tells, such as ``まで58手で後手の勝ち``; None: it tells of none.

    Args:
        text: the line.
    """
    found = _SUMMARY.fullmatch(text)
    what = found["what"] if found else text
    decided = _DECIDED.fullmatch(what)
    if decided is None:
        return KIF_ENDS.get(what)
    seat, how = _SEATS[decided["seat"]], decided["how"]
    outcome = TIME_OUT if decided["time"] else _HOW.get(how[:2], RESIGNATION)
    return End(outcome, winner=seat if "勝" in how else 1 - seat)


# How rsshogi names each end: where Black wins, where White wins, or one name of a draw.
_RESULTS: Final = {
    RESIGNATION: ("BLACK_WIN", "WHITE_WIN"),
    NO_LEGAL_MOVE: ("BLACK_WIN", "WHITE_WIN"),
    PERPETUAL_CHECK: ("BLACK_WIN_BY_ILLEGAL_MOVE", "WHITE_WIN_BY_ILLEGAL_MOVE"),
    ILLEGAL_MOVE: ("BLACK_WIN_BY_ILLEGAL_MOVE", "WHITE_WIN_BY_ILLEGAL_MOVE"),
    DECLARATION: ("BLACK_WIN_BY_DECLARATION", "WHITE_WIN_BY_DECLARATION"),
    TIME_OUT: ("BLACK_WIN_BY_TIMEOUT", "WHITE_WIN_BY_TIMEOUT"),
    FORFEIT: ("BLACK_WIN_BY_FORFEIT", "WHITE_WIN_BY_FORFEIT"),
    REPETITION: ("DRAW_BY_REPETITION",),
    MAX_PLIES: ("DRAW_BY_MAX_PLIES",),
    IMPASSE: ("DRAW_BY_IMPASSE",),
    DRAW: ("DRAW_BY_ADJUDICATION",),
    VOID: ("PAUSED",),
}


def terminal_of(outcome: str, winner: int | None) -> SpecialMoveEntry | None:
    """The entry that ends rsshogi's record; None while the game is not over.

    Args:
        outcome: how it ended.
        winner: seat that won, None for nobody.
    """
    if not outcome:
        return None
    if outcome == CHECKMATE and winner is not None:
        return SpecialMoveEntry("MATE", ("BLACK_WIN", "WHITE_WIN")[winner])
    names = _RESULTS.get(outcome, _RESULTS[VOID])
    if len(names) == 2 and winner is None:  # decided, but nobody says for whom
        names = _RESULTS[VOID]
    return SpecialMoveEntry.from_result(names[winner or 0] if len(names) == 2 else names[0])
