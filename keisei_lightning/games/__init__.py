"""Games: rules and arrays, without torch.

:class:`~keisei_lightning.games.protocol.Game` is the contract, :func:`make_game` finds a game by name, and
:func:`check_game` checks a game of your own. Shogi is in :mod:`keisei_lightning.games.shogi`, everything
else comes from OpenSpiel (:mod:`keisei_lightning.games.open_spiel`). The rules libraries are imported when a game is
made, not before. :mod:`~keisei_lightning.games.arrays` and :mod:`~keisei_lightning.games.svg` help to write one.
"""

from keisei_lightning.games.arrays import LegalMoves, OwnThread, as_actions, as_indices, check_options
from keisei_lightning.games.check import check_game
from keisei_lightning.games.protocol import (
    NO_MOVE,
    ClickableGame,
    CopyableGame,
    DescribedGame,
    Game,
    GameFactory,
    GameSpec,
    OpeningGame,
    RecordedGame,
    RenderFormat,
    ResumableGame,
    SolvingGame,
    StepResult,
    Symmetry,
)
from keisei_lightning.games.registry import canonical_name, game_factory, game_names, make_game, register_game
from keisei_lightning.games.svg import grid_svg, grid_text, text_svg

__all__ = [
    "NO_MOVE",
    "ClickableGame",
    "CopyableGame",
    "DescribedGame",
    "Game",
    "GameFactory",
    "GameSpec",
    "LegalMoves",
    "OpeningGame",
    "OwnThread",
    "RecordedGame",
    "RenderFormat",
    "ResumableGame",
    "SolvingGame",
    "StepResult",
    "Symmetry",
    "as_actions",
    "as_indices",
    "canonical_name",
    "check_game",
    "check_options",
    "game_factory",
    "game_names",
    "grid_svg",
    "grid_text",
    "make_game",
    "register_game",
    "text_svg",
]
