"""Positions of any game as arrays in one NumPy file, which is read without pickle.

================== ==================== ==============================================================================
array              dtype, shape         meaning
================== ==================== ==============================================================================
``game_name``      str []               the game, by its name here
``files``          str [g]              the records
``game``           int32 [n]            number of the position's record among them
``ply``            int32 [n]            moves of the record before it
``position``       str [n]              in the game's own notation (SFEN for shogi)
``observation``    uint8 [n, ...]       what the network sees, in the mover's view
``mover``          int8 [n]             seat to move
``move``           str [n]              the move that was played, by its name
``action``         int32 [n]            its label
``result``         int8 [n]             of the game to the mover: 1, 0, -1
``outcome``        str [n]              how the game ended
``value``          float32 [n]          by the checkpoint: from -1 to 1, to the mover
``policy_offsets`` int64 [n + 1]        by the checkpoint: position i has entries offsets[i] to offsets[i + 1] - 1
``policy_actions`` int32 [entries]      labels of its legal moves
``policy``         float32 [entries]    their probabilities
================== ==================== ==============================================================================

The last four are there only where a checkpoint evaluated, or a record has values and policies; a position without has
the value NaN and no entries.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from keisei_lightning.commands.positions.replaying import Position

__all__ = ["as_npz"]


def as_npz(positions: Sequence[Position], *, game_name: str, files: Sequence[str]) -> bytes:
    """The content of a file.

    Args:
        positions: n of them, one or more.
        game_name: of the game.
        files: records, by the number of their game.
    """
    arrays: dict[str, Any] = {
        "game_name": np.array(game_name),
        "files": np.array(list(files)),
        "game": np.array([each.game for each in positions], dtype=np.int32),
        "ply": np.array([each.ply for each in positions], dtype=np.int32),
        "position": np.array([each.position for each in positions]),
        "observation": np.stack([each.observation for each in positions]),
        "mover": np.array([each.mover for each in positions], dtype=np.int8),
        "move": np.array([each.move for each in positions]),
        "action": np.array([each.action for each in positions], dtype=np.int32),
        "result": np.array([each.result for each in positions], dtype=np.int8),
        "outcome": np.array([each.outcome for each in positions]),
    }
    evaluations = [each.evaluation for each in positions]
    if known := [each for each in evaluations if each is not None]:
        sizes = [0 if each is None else len(each.actions) for each in evaluations]
        arrays |= {
            "value": np.array([np.nan if each is None else each.value for each in evaluations], dtype=np.float32),
            "policy_offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            "policy_actions": np.concatenate([each.actions for each in known]).astype(np.int32),
            "policy": np.concatenate([each.policy for each in known]),
        }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
