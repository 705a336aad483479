"""Events that a supervisor reports to its owner, and the state of a worker as it reports it."""

from __future__ import annotations

from dataclasses import dataclass

from keisei_lightning.parallel.supervision.messages import ToLearner
from keisei_lightning.parallel.supervision.restarts import WorkerExit, WorkerState

__all__ = ["Event", "Exited", "Received", "Started", "Woken", "WorkerHealth"]


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


@dataclass(frozen=True, slots=True)
class Woken:
    """Event: another thread wants the wait to end (:class:`Supervisor`, ``wake_by``)."""


Event = Received | Started | Exited | Woken


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerHealth:
    """The present state of one process; ``name`` is "worker 0" and so on, or that of a helper.

    Attributes:
        worker_id: which worker; those of helpers follow.
        name: for a person.
        state: of the present incarnation.
        pid: its process id; None between two incarnations.
        incarnation: number of the present or last incarnation.
        restarts: how often it was restarted.
        last_sign_of_life_s: seconds since its last heartbeat or message, or since it was started.
        node: name and address of the machine that it runs on; None: this one.
        policy_version: that it has adopted last; None before its first, and where this machine's memory tells.
        rss_bytes: its memory; None where it is not known, or this machine tells.
    """

    worker_id: int
    name: str
    state: WorkerState
    pid: int | None
    incarnation: int
    restarts: int
    last_sign_of_life_s: float
    node: str | None = None
    policy_version: int | None = None
    rss_bytes: int | None = None
