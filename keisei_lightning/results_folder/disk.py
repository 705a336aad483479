"""What a run takes of the disk."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["DiskUse", "disk_use"]

_CHECKPOINTS = ".ckpt"
_LOG_FOLDERS = ("csv", "tensorboard")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskUse:
    """Bytes of a run's files.

    Attributes:
        checkpoints: of its checkpoints.
        logs: of metrics and TensorBoard's events.
        rest: of all other files.
    """

    checkpoints: int = 0
    logs: int = 0
    rest: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.checkpoints + self.logs + self.rest


def disk_use(folder: str | os.PathLike[str]) -> DiskUse:
    """Add up the files of a run. Links count as themselves, and are not followed; what cannot be read is left out.

    Args:
        folder: of the run.
    """
    checkpoints = logs = rest = 0
    root = os.fspath(folder)
    for place, _, names in os.walk(root):
        of_logs = os.path.relpath(place, root).split(os.sep)[0] in _LOG_FOLDERS
        for name in names:
            try:
                size = os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
            if name.endswith(_CHECKPOINTS):
                checkpoints += size
            elif of_logs:
                logs += size
            else:
                rest += size
    return DiskUse(checkpoints=checkpoints, logs=logs, rest=rest)
