"""What is left of an evaluation: a table for a person, CSV and JSON for programs, and the games themselves."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from keisei_lightning.commands.bench.report import describe_machine
from keisei_lightning.evaluation import GameRecord, MatchResult, Tally
from keisei_lightning.evaluation.ratings import RATING_MARKS, Rating, rate_players

__all__ = ["Report", "print_ratings", "print_results", "write_game"]


class Report:
    """The folder of an evaluation: ``results.csv``, ``results.json`` and, if wanted, ``records/``.

    ``records/`` has a folder for each match with the games that were played, and with ``games.csv``: who played, how it
    ended, and how often the game counts (:attr:`~keisei_lightning.evaluation.GameRecord.times`).

    All is written anew after each match, so that a program that is stopped leaves what was played.

    Args:
        folder: where to write; made at the first match.
        about: what stands at the head of ``results.json``: the command, the game, the seed and so on.
        anchor: the player whose rating is 0; None: nobody is rated.
        animate: draws a game as an SVG that plays by itself.
        num_animations: games of each match that are drawn so.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        about: Mapping[str, Any],
        *,
        anchor: str | None = None,
        animate: Callable[[GameRecord], str] = lambda _: "",
        num_animations: int = 0,
    ) -> None:
        self.folder = Path(folder)
        self.results: list[MatchResult] = []
        self._about = {**about, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": describe_machine()}
        self._anchor = anchor
        self._animate, self._num_animations = animate, num_animations

    @property
    def ratings(self) -> dict[str, Rating]:
        """Ratings of everybody who is connected by games with the anchor, the strongest first."""
        if self._anchor is None or not any(self._anchor in (r.player, r.opponent) for r in self.results):
            return {}
        return rate_players(self.results, anchor=self._anchor)

    def add(self, result: MatchResult) -> None:
        """Write a match that is over, with its games if it has kept them."""
        self.results.append(result)
        self.folder.mkdir(parents=True, exist_ok=True)
        if result.records:
            match = f"{len(self.results):02d}_{_file_name(result.player)}_vs_{_file_name(result.opponent)}"
            folder = self.folder / "records" / match
            folder.mkdir(parents=True, exist_ok=True)
            stems = [f"game_{number:04d}" for number in range(1, len(result.records) + 1)]
            for stem, record in zip(stems, result.records, strict=True):
                write_game(folder / stem, record, game=result.game)
            for stem, record in zip(stems[: self._num_animations], result.records, strict=False):
                (folder / f"{stem}.svg").write_text(self._animate(record), encoding="utf-8")
            rows = zip(stems, result.records, strict=True)
            _write_csv(folder / "games.csv", [{"game": stem, **_game_row(record)} for stem, record in rows])
        self.write()

    def write(self, **more: Any) -> None:
        """Write ``results.csv`` and ``results.json`` of the matches so far.

        Args:
            **more: further entries of ``results.json``.
        """
        rows = [_row(result) for result in self.results]
        _write_csv(self.folder / "results.csv", rows)
        self._about |= more
        whole = {
            **self._about,
            "matches": [{**row, "outcomes": dict(r.outcomes)} for row, r in zip(rows, self.results, strict=True)],
            "ratings": {name: rating.as_json() for name, rating in self.ratings.items()},
        }
        text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
        (self.folder / "results.json").write_text(text + "\n", encoding="utf-8")


def write_game(stem: Path, record: GameRecord, *, game: str) -> None:
    """Write one game: the files that the game makes of it, or else the moves below a few lines about them.

    Args:
        stem: path of the file without its ending.
        record: the game.
        game: name of the game that it is one of.
    """
    for ending, text in record.files.items():
        stem.with_suffix(ending).write_text(text, encoding="utf-8")
    if record.files:
        return
    lines = [f"game: {game}", f"first: {record.first}", f"second: {record.second}", f"outcome: {record.outcome}"]
    stem.with_suffix(".txt").write_text("\n".join([*lines, "", record.record, ""]), encoding="utf-8")


def print_results(title: str, results: Sequence[MatchResult], *, name_players: bool) -> None:
    """Print one line for each match.

    Args:
        title: a line above the table.
        results: the matches.
        name_players: with the first-named player of each match, where it is not always the same.
    """
    table = _table(title, caption="as first, as second: wins-draws-losses in that seat")
    for name in [*(["player"] if name_players else []), "opponent"]:
        table.add_column(name)
    for name in (
        "games",
        "wins",
        "draws",
        "losses",
        "void",
        "score",
        "95 % interval",
        "as first",
        "as second",
        "plies",
    ):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(
            *([result.player] if name_players else []),
            result.opponent,
            *(str(n) for n in (result.num_games, result.wins, result.draws, result.losses, result.void)),
            *_score(result),
            _short(result.as_first),
            _short(result.as_second),
            f"{result.mean_length:.1f}",
        )
    _print(table)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    games = sum(result.num_games + result.void for result in results)
    if once := sum(result.num_games + result.void - result.played for result in results if result.played):
        console.print(
            f"{games - once} of {games} games were played: deterministic players play an opening once, and its games "
            "count as often as it was drawn"
        )
    if repeated := sum(result.repeated for result in results):
        console.print(
            f"{repeated} of {games} games went move by move as another one from the same opening: the scores hold for "
            "openings like these; a larger opening_plies makes games differ"
        )


def print_ratings(ratings: Mapping[str, Rating], *, anchor: str) -> None:
    """Print ratings, the strongest first."""
    marks = any(rating.mark for rating in ratings.values())
    table = _table(f"ratings in Elo points, {anchor} is 0", caption=RATING_MARKS if marks else None)
    table.add_column("player")
    table.add_column("rating", justify="right")
    table.add_column("95 % interval", justify="right")
    if marks:
        table.add_column("rests on")
    for name, rating in ratings.items():
        shown = ("0", "") if name == anchor else (f"{rating.value:+.0f}", rating.interval)
        table.add_row(name, *shown, *([rating.mark] if marks else []))
    _print(table)


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )


def _print(table: Table) -> None:
    """Print a table as wide as it is: names that are cut off cannot be copied, and a terminal wraps lines."""
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, console.measure(table, options=console.options.update(width=10_000)).maximum)
    console.print(table)


def _score(result: MatchResult) -> tuple[str, str]:
    if not result.num_games:
        return "-", "-"
    low, high = result.interval
    return f"{result.score:.1%}", f"{low:.1%} to {high:.1%}"


def _short(tally: Tally) -> str:
    """Wins, draws and losses in one seat."""
    return f"{tally.wins}-{tally.draws}-{tally.losses}"


def _row(result: MatchResult) -> dict[str, Any]:
    """A match as numbers."""
    low, high = result.interval
    seats = {"as_first": result.as_first, "as_second": result.as_second}
    pairs = result.pairs or 5 * (None,)  # by half points
    return {
        "player": result.player,
        "opponent": result.opponent,
        "games": result.num_games,
        "wins": result.wins,
        "draws": result.draws,
        "losses": result.losses,
        "void": result.void,
        "played": result.played,
        "repeated": result.repeated,
        "score": None if math.isnan(result.score) else result.score,
        "score_low": low,
        "score_high": high,
        "effective_games": result.effective_games,
        **{
            f"{key}_{seat}": getattr(tally, key) for seat, tally in seats.items() for key in ("wins", "draws", "losses")
        },
        **{f"pairs_with_{half_points / 2:g}": number for half_points, number in enumerate(pairs)},
        "mean_length_plies": result.mean_length,
    }


def _game_row(record: GameRecord) -> dict[str, Any]:
    """A game as a row of ``games.csv``; its points are those of the match's first-named player."""
    return {
        "first": record.first,
        "second": record.second,
        "outcome": record.outcome,
        "points": record.points,
        "plies": record.plies,
        "times": record.times,
    }


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _file_name(text: str) -> str:
    """What a file system takes, and a person still reads."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.")[:60] or "player"
