"""Draws games in progress, for people who watch a training. Whatever a drawing does, the games go on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from keisei_lightning.games import Game
from keisei_lightning.parallel.supervision.messages import BoardView

__all__ = ["BoardDrawer"]

_logger = logging.getLogger("keisei_lightning.drawing")
_MAX_SVG_BYTES: Final = 65_536
_MAX_SHARE: Final = 0.005  # of the time


class BoardDrawer:
    """Draws boards in at most half a percent of the time: after a slow drawing there is none for a while.

    A board is left out whose drawing raises, or is larger than 64 KB; the first one is a warning.

    Args:
        game: its boards.
        clock: seconds; injected by tests.
    """

    def __init__(self, game: Game, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._game, self._clock = game, clock
        self._due = clock()
        self._has_warned = False

    def draw(self, num_boards: int, plies: Sequence[int], movers: Sequence[int]) -> tuple[BoardView, ...]:
        """Draw the first boards; empty if it is too early.

        Args:
            num_boards: how many, at most.
            plies: of each board's game so far.
            movers: the seat to move on each board.
        """
        started = self._clock()
        if started < self._due:
            return ()
        views = []
        for board, (ply, mover) in enumerate(zip(plies[:num_boards], movers[:num_boards], strict=True)):
            if svg := self._draw(board):
                views.append(BoardView(board=board, ply=int(ply), mover=int(mover), svg=svg))
        ended = self._clock()
        self._due = ended + (ended - started) / _MAX_SHARE
        return tuple(views)

    def _draw(self, board: int) -> str:
        """The picture of a board; empty: there is none."""
        try:
            svg = self._game.render(board, "svg")
            if (num_bytes := len(svg.encode())) <= _MAX_SVG_BYTES:
                return svg
            reason = f"its picture has {num_bytes} bytes, at most {_MAX_SVG_BYTES} are shown"
        except Exception as error:  # noqa: BLE001 - whatever a game raises: a picture is worth no rollout
            reason = " ".join(f"{type(error).__name__}: {error}".split())
        if not self._has_warned:
            self._has_warned = True
            _logger.warning("%s: a game in progress cannot be shown: %s", self._game.spec.name, reason)
        return ""
