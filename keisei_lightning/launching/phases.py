"""What a rank is doing, so that one that dies or hangs can be named with it: a byte of shared memory for each rank."""

from __future__ import annotations

from collections.abc import MutableSequence
from enum import IntEnum

__all__ = ["Phase", "enter", "present_phase", "report_to"]


class Phase(IntEnum):
    """What a rank is doing."""

    STARTING = 0
    SETTING_UP = 1
    COLLECTING = 2
    LEARNING = 3
    BACKWARD = 4
    ENDING_AN_EPOCH = 5
    SAVING = 6
    ENDING = 7

    def __str__(self) -> str:
        """As it stands behind "while"."""
        return _WORDS[self]


_WORDS = {
    Phase.STARTING: "starting",
    Phase.SETTING_UP: "setting up the training",
    Phase.COLLECTING: "collecting a rollout",
    Phase.LEARNING: "learning",
    Phase.BACKWARD: "in a backward pass, where gradients are averaged over the ranks",
    Phase.ENDING_AN_EPOCH: "ending an epoch (evaluation and metrics)",
    Phase.SAVING: "saving a checkpoint",
    Phase.ENDING: "ending the training",
}

_phases: MutableSequence[int] = [Phase.STARTING]
_rank = 0


def report_to(phases: MutableSequence[int], rank: int) -> None:
    """Write this process's phases to shared memory from now on.

    Args:
        phases: an entry for each rank.
        rank: of this process.
    """
    global _phases, _rank
    _phases, _rank = phases, rank


def enter(phase: Phase) -> None:
    """Note what this process does from now on; costs less than a microsecond."""
    _phases[_rank] = phase


def present_phase() -> Phase:
    """What this process is doing."""
    return Phase(_phases[_rank])
