"""Records back on the board: files to games, and games to positions from which they continue."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keisei_lightning.errors import GameError
from keisei_lightning.games.protocol import NO_MOVE
from keisei_lightning.games.saved_game import ReplayableGame, SavedGame

__all__ = ["decode_record", "encode_record", "read_record_file", "replay"]

_MAX_BYTES = 16 * 1024 * 1024  # the longest game takes some hundred kilobytes: this is something else


def read_record_file(game: ReplayableGame, path: str | os.PathLike[str]) -> SavedGame:
    """Read a file as a record of a game, in the format that its name's ending says.

    Args:
        game: the game that it is one of.
        path: the file; Unicode (UTF-8, with or without its mark) and Shift JIS are told apart.

    Raises:
        GameError: one line with the file, the line in it and what is wrong.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in game.record_formats:
        known = ", ".join(game.record_formats)
        raise GameError(f"{path}: {suffix or 'no ending'} is no format of {game.spec.name}; must be one of {known}")
    try:
        size = file.stat().st_size
        data = file.read_bytes() if size <= _MAX_BYTES else b""
    except OSError as error:
        raise GameError(f"{path}: cannot be read ({error.strerror})") from error
    if size > _MAX_BYTES:
        raise GameError(f"{path}: {size} bytes are no record of one game; must be {_MAX_BYTES} or less")
    try:
        return game.read_record(decode_record(data), suffix)
    except GameError as error:
        raise GameError(f"{path}: {error}") from error


def decode_record(data: bytes) -> str:
    """Text of a record's bytes: UTF-8 where it can be, else Shift JIS, as Windows writes it.

    Raises:
        GameError: it is neither.
    """
    for encoding in ("utf-8-sig", "cp932"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            at = error.start
    line = data[:at].count(b"\n") + 1
    raise GameError(f"line {line}: is neither UTF-8 nor Shift JIS (byte {data[at]:#04x} at offset {at})")


def encode_record(text: str, encoding: str) -> bytes:
    """Bytes of a record's text.

    Args:
        text: of the record.
        encoding: as :attr:`~keisei_lightning.games.ReplayableGame.record_formats` says.

    Raises:
        GameError: the encoding lacks a character.
    """
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        line = text[: error.start].count("\n") + 1
        raise GameError(f"line {line}: {encoding} has no {text[error.start]!r}; UTF-8 has") from error


def replay(game: ReplayableGame, index: int, saved: SavedGame) -> None:
    """Play a saved game again on one board, which then continues it; the other boards stay as they are.

    Args:
        game: the game; it has boards.
        index: the board.
        saved: what is played.

    Raises:
        GameError: the start is no position of the game, or a move is not legal; the board is where it was reached.
    """
    game.set_position(index, saved.start)
    actions = np.full(game.num_games, NO_MOVE, dtype=np.int64)
    for number, move in enumerate(saved.moves, start=1):
        if over := game.outcome(index):
            raise GameError(f"move {number}: the game is over already ({over})")
        actions[index] = game.action_of(index, move)
        game.step(actions)
