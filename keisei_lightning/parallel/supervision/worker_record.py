"""What a supervisor knows of one worker."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from keisei_lightning.parallel.supervision.messages import Failure
from keisei_lightning.parallel.supervision.pipes import MessageReader
from keisei_lightning.parallel.supervision.processes import ProcessHandle
from keisei_lightning.parallel.supervision.restarts import WorkerState

__all__ = ["WorkerRecord"]

_logger = logging.getLogger("keisei_lightning.supervisor")


@dataclass(slots=True)
class WorkerRecord:
    """One worker, over all its incarnations; the times are seconds of the supervisor's clock.

    The record is flat: the supervisor alone uses it, and each step of a worker's life changes fields of several kinds.

    Attributes:
        worker_id: which worker.
        name: in messages.
        state: of the present incarnation, DEAD between two.
        incarnation: number of the present or last incarnation; -1 before the first.
        process: of the present incarnation; None between two.
        pid: its process id, kept here because another thread may read it while the process is being closed.
        connection: the learner's end of the pipe; None once it is closed.
        reader: reads from it.
        started_at: when the present incarnation was started.
        last_message_at: when its last message came.
        excused_sign: the sign of life after which its silence was excused.
        excused_until: until when.
        pipe_closed_at: when it closed its end of the pipe; None while it is open.
        respawn_at: when the next incarnation is to be started; None: it is not.
        failure: the exception that the present incarnation has reported.
        restarts: times of all restarts.
    """

    worker_id: int
    name: str
    state: WorkerState = WorkerState.DEAD
    incarnation: int = -1
    process: ProcessHandle | None = None
    pid: int | None = None
    connection: Connection[Any, Any] | None = None
    reader: MessageReader | None = None
    started_at: float = 0.0
    last_message_at: float = 0.0
    excused_sign: float = -math.inf
    excused_until: float = -math.inf
    pipe_closed_at: float | None = None
    respawn_at: float | None = None
    failure: Failure | None = None
    restarts: list[float] = field(default_factory=list)

    def move(self, to: WorkerState) -> None:
        """Change the state, by :meth:`WorkerState.moved`."""
        before, self.state = self.state, self.state.moved(to, f"worker {self.worker_id}")
        _logger.debug("%s.%d: %s -> %s", self.name, self.incarnation, before.value, to.value)

    def begin_incarnation(self) -> None:
        """Clear what belonged to the incarnation before."""
        self.incarnation += 1
        self.failure, self.respawn_at, self.pipe_closed_at = None, None, None
        self.move(WorkerState.STARTING)

    def attach(self, process: ProcessHandle, connection: Connection[Any, Any], now: float) -> None:
        """Note the process of the present incarnation, which has just been started."""
        self.process, self.connection, self.pid = process, connection, process.pid
        self.reader = MessageReader(connection)
        self.started_at = self.last_message_at = now

    def close_pipe(self) -> None:
        """Close the learner's end of the pipe; twice is harmless."""
        if self.connection is not None:
            self.connection.close()
            self.connection, self.reader = None, None
