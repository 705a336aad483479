"""When each step of a run was logged, from TensorBoard's event files."""

from __future__ import annotations

from pathlib import Path

from keisei_lightning.errors import ConfigError
from keisei_lightning.system.paths import one_line

__all__ = ["minutes_by_step"]


def minutes_by_step(run: Path) -> dict[int, float]:
    """Minutes since the run's first event, by the number of optimiser steps.

    Args:
        run: its folder.

    Raises:
        ConfigError: it has no event files that can be read.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    times: dict[int, float] = {}
    first: float | None = None
    try:
        for file in sorted((run / "tensorboard").glob("events.out.tfevents.*")):
            for record in RawEventFileLoader(str(file)).Load():
                event = Event.FromString(record)
                first = event.wall_time if first is None else min(first, event.wall_time)
                if event.HasField("summary"):
                    times.setdefault(int(event.step), event.wall_time)
    except Exception as error:  # the file may come from anybody, and protobuf raises errors of its own
        reason = " ".join(str(error).split())
        raise ConfigError(f"{one_line(str(run))}: its TensorBoard events cannot be read ({reason})") from error
    if first is None or not times:
        raise ConfigError(f"x=minutes: {one_line(str(run))} has no TensorBoard events, which tell times; must be plies")
    return {step: (seconds - first) / 60 for step, seconds in times.items()}
