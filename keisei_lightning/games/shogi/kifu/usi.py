"""USI's ``position`` command as a record: the start and the moves, and nothing else.

References:
    "The Universal Shogi Interface", http://hgm.nubati.net/usi.html
"""

from __future__ import annotations

from keisei_lightning.games.saved_game import SavedGame
from keisei_lightning.games.shogi.kifu.ends import USI_ENDS
from keisei_lightning.games.shogi.kifu.kif import numbered_lines
from keisei_lightning.games.shogi.kifu.main_line import MainLine, refuse

__all__ = ["read_usi"]


def read_usi(text: str) -> SavedGame:
    """The first game of lines such as ``position startpos moves 7g7f 3c3d``; ``position`` may be left out.

    Raises:
        GameError: see :meth:`~keisei_lightning.games.ReplayableGame.read_record`.
    """
    main, where = None, "line 1"
    for where, line in numbered_lines(text):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if main is not None:
            main.left_out.append(f"{where}: what follows: further games")
            break
        main = _read_line(words[words[0] == "position" :], where)
    if main is None:
        refuse(where, "there is no game in it")
    return main.close(players=("", ""), headers={})


def _read_line(words: list[str], where: str) -> MainLine:
    at = words.index("moves") if "moves" in words else len(words)
    start, moves = words[:at], words[at + 1 :]
    if start[:1] == ["sfen"]:
        start = start[1:]
    elif start != ["startpos"]:
        refuse(where, f"{' '.join(start) or 'the start'}: must be startpos, or sfen and a position")
    main = MainLine(" ".join(start), where)
    for number, usi in enumerate(moves, start=1):
        if end := USI_ENDS.get(usi):
            main.end(end)
        else:
            main.play_usi(usi, where, f"move {number}: {usi}")
    return main
