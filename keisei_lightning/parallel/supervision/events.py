"""Events that a supervisor reports to its owner, and the state of a worker as it reports it."""

from __future__ import annotations

from dataclasses import dataclass

from keisei_lightning.parallel.supervision.messages import ToLearner
from keisei_lightning.parallel.supervision.restarts import WorkerExit, WorkerState

__all__ = ["Event", "Exited", "Received", "Started", "WorkerHealth"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """Event: a message of a worker has come."""

    worker_id: int
    incarnation: int
    message: ToLearner


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """Event: a worker is ready."""

    worker_id: int
    incarnation: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Exited:
    """Event: a worker ended; all its messages came before this event."""

    exit: WorkerExit


Event = Received | Started | Exited


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerHealth:
    """The present state of one process; ``name`` is "worker 0" and so on, or that of a helper.

    ``last_sign_of_life_s`` is the number of seconds since its last heartbeat or message, or since it was started.
    """

    worker_id: int
    name: str
    state: WorkerState
    pid: int | None
    incarnation: int
    restarts: int
    last_sign_of_life_s: float
