"""The payoff matrix and the ratings of a league, from the table that its run has written."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from keisei_lightning.errors import ConfigError
from keisei_lightning.training.league_table import Period, draw_league

__all__ = ["LEAGUE_FILE", "draw_payoff", "read_league"]

LEAGUE_FILE: Final = "league.csv"
_COUNTS: Final = ("wins", "draws", "losses", "void")


def read_league(file: Path) -> tuple[list[Period], dict[str, float]]:
    """Read ``league.csv``.

    Args:
        file: of a run's folder.

    Returns:
        The periods in their order, and Elo by the name of a period or an opponent.

    Raises:
        ConfigError: it is not there, or is no such table.
    """
    periods: dict[str, Period] = {}
    ratings: dict[str, float] = {}
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                new = Period(name=row["period"], epoch=int(row["epoch"]), plies=int(row["plies"]))
                period = periods.setdefault(row["period"], new)
                period.results[row["opponent"]] = [int(row[name]) for name in _COUNTS]
                for name, rating in ((row["period"], row["elo"]), (row["opponent"], row["opponent_elo"])):
                    if rating and math.isfinite(float(rating)):
                        ratings[name] = float(rating)
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: is not there; only a run with opponents=league has a payoff") from error
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise ConfigError(f"{file}: is no table of a league ({' '.join(str(error).split())})") from error
    if not periods:
        raise ConfigError(f"{file}: has no games yet")
    return list(periods.values()), ratings


def draw_payoff(file: Path) -> Figure:
    """Draw points per game by period and opponent, and Elo over plies.

    Args:
        file: ``league.csv`` of a run's folder.

    Raises:
        ConfigError: as :func:`read_league`.
    """
    return draw_league(*read_league(file))
