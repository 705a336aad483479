"""Names of what a record tells of its game: ours, and those of KIF and CSA."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["CSA_HEADERS", "KIF_HEADERS", "START_PLIES", "is_header", "one_line"]

KIF_HEADERS: Final = {"棋戦": "event", "場所": "site", "開始日時": "start_date", "終了日時": "end_date"}
"""Headers of KIF, KI2 and JKF by ours; all others keep their names."""
CSA_HEADERS: Final = {"EVENT": "event", "SITE": "site", "START_TIME": "start_date", "END_TIME": "end_date"}
"""Headers of CSA by ours."""
START_PLIES: Final = "START_PLIES"
"""How many moves were played before the start: a header of our own, since no format tells it."""


def one_line(text: str) -> str:
    """A name or a header, as a line has room for it."""
    return " ".join(text.split())


_KEY: Final = re.compile(
    r"(?!まで|手数|手合割|変化|(?:先手|後手|上手|下手)(?:番|の持駒)?$)[^\s：:*#&|+$'{}\ud800-\udfff]+"
)


def is_header(key: str) -> bool:
    """Whether every format can hold a header of this name: in KIF some words and characters mean something else."""
    return _KEY.fullmatch(key) is not None
