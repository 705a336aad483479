"""Ladders: players with known games against each other, so that others can be rated by games against them.

A ladder is the ``results.json`` that ``keisei eval round_robin=true`` writes. It holds the games, not the ratings:
their uncertainty is part of every rating on the ladder.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from keisei_lightning.errors import ConfigError
from keisei_lightning.evaluation.results import Tally

__all__ = ["Ladder", "Match", "ladder_names", "load_ladder"]

Match = tuple[str, str, Tally]
"""Player, opponent, and the player's wins, draws and losses."""

_ENDING = ".json"
_SHIPPED = files("keisei_lightning.evaluation") / "ladders"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """Players, and their games against each other.

    Attributes:
        game: name of the game that they play.
        matches: results of pairs of players, usually of all pairs.
        anchor: the player whose rating is 0.
    """

    game: str
    matches: tuple[Match, ...]
    anchor: str = "random"

    @property
    def names(self) -> list[str]:
        """Names of the players, sorted."""
        return sorted({name for one, other, _ in self.matches for name in (one, other)})


def ladder_names() -> list[str]:
    """Names of the ladders that are part of this library, sorted."""
    return sorted(file.name.removesuffix(_ENDING) for file in _SHIPPED.iterdir() if file.name.endswith(_ENDING))


def load_ladder(name: str | os.PathLike[str]) -> Ladder:
    """Read a ladder.

    Args:
        name: one of :func:`ladder_names`, or the path of a ``results.json`` of ``keisei eval round_robin=true``.

    Raises:
        ConfigError: there is no such ladder, or the file holds none.
    """
    text = os.fspath(name)
    file = _SHIPPED / f"{text}{_ENDING}" if text in ladder_names() else Path(text).expanduser()
    try:
        return _read(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(
            f"ladder {text}: cannot be read ({error.strerror}); must be {' or '.join(ladder_names())}, or the path of "
            "a results.json of keisei eval round_robin=true"
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"ladder {text}: is no results.json of keisei eval round_robin=true ({reason})") from error


def _read(whole: Mapping[str, Any]) -> Ladder:
    matches = tuple((str(match["player"]), str(match["opponent"]), _tally(match)) for match in whole["matches"])
    ladder = Ladder(game=str(whole["game"]), matches=matches)
    if ladder.anchor not in ladder.names:
        raise ValueError(f"no match of {ladder.anchor}")
    return ladder


def _tally(match: Mapping[str, Any]) -> Tally:
    tally = Tally(**{count: _count(match[count]) for count in ("wins", "draws", "losses")})
    effective = match.get("effective_games", tally.games)  # files of earlier versions have none
    if isinstance(effective, bool) or not isinstance(effective, int | float) or (tally.games and not effective > 0):
        raise ValueError(f"effective_games={effective!r} is no number of games")
    return dataclasses.replace(tally, design_effect=tally.games / effective) if tally.games else tally


def _count(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(f"{number!r} is no number of games")
    return number
