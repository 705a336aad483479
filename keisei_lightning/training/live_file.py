"""The present state of a running training, as a file that ``keisei serve`` reads. Needs no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["LIVE_EVERY_S", "LIVE_NAME", "LiveBoard", "LiveState", "LiveWorker"]

LIVE_NAME: Final = "live.json"
"""In the run's folder, while the training goes on."""

LIVE_EVERY_S: Final = 2.0
"""Seconds between two states, where nobody says otherwise."""

_MAX_WORKERS: Final = 4096
_MAX_BOARDS: Final = 64
_MAX_SVG_CHARS: Final = 65_536
_MAX_TEXT_CHARS: Final = 200
_MAX_NUMBER: Final = 2**53


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveWorker:
    """One worker process, or one that helps the workers.

    Attributes:
        name: "worker 0" and so on.
        state: "starting", "running", "stopping" or "dead".
        paused: it is to play no further rollouts.
        restarts: how often it was replaced.
        policy_lag: how many versions its weights are behind the latest; None: it has none.
        plies_per_s: of its newest rollout, while it played; None: there is none.
        last_rollout_s: seconds since its newest rollout came; None: there is none.
    """

    name: str
    state: str
    paused: bool = False
    restarts: int = 0
    policy_lag: int | None = None
    plies_per_s: float | None = None
    last_rollout_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveBoard:
    """One game in progress.

    Attributes:
        worker: number of the worker that plays it.
        board: which of the worker's boards.
        ply: how many plies of the game have been played, without random opening plies.
        mover: the seat to move, 0 or 1.
        svg: the picture.
    """

    worker: int
    board: int
    ply: int
    mover: int
    svg: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveState:
    """What is going on in a training.

    Attributes:
        time_s: when, in seconds since 1970.
        epoch: of the training, from 0.
        plies: that the learner (the first one of several) has received.
        workers: all of this learner's.
        boards: some games in progress.
    """

    time_s: float
    epoch: int
    plies: int
    workers: tuple[LiveWorker, ...] = ()
    boards: tuple[LiveBoard, ...] = ()

    def to_json(self) -> str:
        """As text, for :meth:`parse`."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> LiveState:
        """Read a text that anybody may have written.

        Raises:
            ValueError: it is no state, or one of its fields is not what it must be.
        """
        try:
            content = _fields(json.loads(text))
            return cls(
                time_s=_number(content.get("time_s")),
                epoch=_whole(content.get("epoch")),
                plies=_whole(content.get("plies")),
                workers=tuple(_worker(_fields(each)) for each in _items(content.get("workers"), _MAX_WORKERS)),
                boards=tuple(_board(_fields(each)) for each in _items(content.get("boards"), _MAX_BOARDS)),
            )
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error


def _worker(content: dict[str, Any]) -> LiveWorker:
    lag, speed, age = (content.get(name) for name in ("policy_lag", "plies_per_s", "last_rollout_s"))
    return LiveWorker(
        name=_text(content.get("name"), _MAX_TEXT_CHARS),
        state=_text(content.get("state"), _MAX_TEXT_CHARS),
        paused=content.get("paused") is True,
        restarts=_whole(content.get("restarts")),
        policy_lag=None if lag is None else _whole(lag),
        plies_per_s=None if speed is None else _number(speed),
        last_rollout_s=None if age is None else _number(age),
    )


def _board(content: dict[str, Any]) -> LiveBoard:
    mover = _whole(content.get("mover"))
    if mover > 1:
        raise ValueError("a mover is no seat")
    return LiveBoard(
        worker=_whole(content.get("worker")),
        board=_whole(content.get("board")),
        ply=_whole(content.get("ply")),
        mover=mover,
        svg=_text(content.get("svg"), _MAX_SVG_CHARS),
    )


def _fields(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("it has no fields")
    return value


def _items(value: object, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"a list is missing, or has more than {most} entries")
    return value


def _text(value: object, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError(f"a text is missing, or has more than {longest} characters")
    value.encode()  # half of a surrogate pair is no text; a UnicodeEncodeError is a ValueError
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _MAX_NUMBER:  # nor NaN
        raise ValueError("a number is missing, or out of its range")
    return float(value)


def _whole(value: object) -> int:
    number = _number(value)
    if not number.is_integer():
        raise ValueError("a number must be whole")
    return int(number)
