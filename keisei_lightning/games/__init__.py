"""Games: rules and arrays, without torch.

:class:`~keisei_lightning.games.protocol.Game` is the contract, :func:`make_game` finds a game by name, and
:func:`check_game` is what to run on a game of one's own. Shogi is in :mod:`keisei_lightning.games.shogi`, everything
else comes from OpenSpiel (:mod:`keisei_lightning.games.open_spiel`). The rules libraries are imported when a game is
made, not before.
"""

from keisei_lightning.games.check import check_game
from keisei_lightning.games.protocol import (
    NO_MOVE,
    Game,
    GameFactory,
    GameSpec,
    OpeningGame,
    RenderFormat,
    ResumableGame,
    StepResult,
    Symmetry,
)
from keisei_lightning.games.registry import canonical_name, game_factory, game_names, make_game, register_game

__all__ = [
    "NO_MOVE",
    "Game",
    "GameFactory",
    "GameSpec",
    "OpeningGame",
    "RenderFormat",
    "ResumableGame",
    "StepResult",
    "Symmetry",
    "canonical_name",
    "check_game",
    "game_factory",
    "game_names",
    "make_game",
    "register_game",
]
