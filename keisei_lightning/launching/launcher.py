"""The parent of the ranks of one machine: starts them, watches them, and ends them all when one has failed."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from keisei_lightning.launching.outcomes import Died, Done, Failed, Halted, Outcome, conclude
from keisei_lightning.launching.phases import Phase
from keisei_lightning.launching.rank_process import rank_main
from keisei_lightning.system import stopping
from keisei_lightning.system.environment import environment_variables
from keisei_lightning.system.rank_place import LAUNCHED_BY_US, in_slurm_job

__all__ = ["run_ranks"]

T = TypeVar("T")

_AFTER_FAILURE_S = 8.0
"""How long the others have after one has failed: their next collective operation tells them too, and they end."""

_SAVING_S = 20.0
"""The same for a rank that is saving a checkpoint."""

_AFTER_STOP_S = 60.0
"""How long the others have after one has ended in order: the first one writes pictures and closes its loggers."""

_changing_environment = threading.Lock()


def run_ranks(function: Callable[[], T], num_ranks: int) -> T:
    """Run a function in several processes that are ranks of one training, and wait for them.

    In the main thread a signal is passed on to all ranks, which end in order; a second one ends everything at once, if
    :class:`~keisei_lightning.system.stopping.StopSignals` are active. Ranks end by themselves if this process is
    killed.

    Args:
        function: can be pickled; the ranks import the main module, as all children of ``multiprocessing`` do.
        num_ranks: at least 1.

    Returns:
        What rank 0 has returned.

    Raises:
        Stopped: a signal to this process or to a rank has ended the training.
        ConfigError: as a rank has raised it.
        Exception: what all ranks have raised alike, or have agreed to raise.
        RankError: a rank has failed or died, or has not answered the others.
        OSError: a process cannot be started.
    """
    ranks = _Ranks(function, num_ranks)
    # SLURM's signal for a job that is to be queued again would kill this process.
    further = (signal.SIGUSR1,) if in_slurm_job() else ()
    with stopping.passing_on(ranks.stop, *further), ranks:
        ranks.watch()
    return conclude(ranks.outcomes)  # type: ignore[no-any-return]  # what the function of rank 0 has returned


@dataclass(eq=False, kw_only=True, slots=True)
class _Rank:
    """A process, with the parent's end of its pipe."""

    number: int
    process: SpawnProcess
    connection: Connection
    outcome: Outcome | None = None
    killed: bool = False


class _Ranks:
    """The processes of one training on this machine.

    Args:
        function: of each.
        num_ranks: their number.

    Attributes:
        outcomes: of those that have ended, with their numbers, in that order.
    """

    def __init__(self, function: Callable[[], Any], num_ranks: int) -> None:
        self.outcomes: list[tuple[int, Outcome]] = []
        self._function, self._num_ranks = function, num_ranks
        self._context = multiprocessing.get_context("spawn")
        self._phases = self._context.RawArray("b", num_ranks)
        self._alive: list[_Rank] = []
        self._resources = contextlib.ExitStack()
        self._stopping: int | None = None
        self._ending_since = math.inf
        self._grace_s = math.inf

    def __enter__(self) -> _Ranks:
        """Start all of them."""
        try:
            port = self._resources.enter_context(_reserved_port())
            for number in range(self._num_ranks):
                self._start(number, port)
        except BaseException:
            self._kill_all()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave none behind."""
        self._kill_all()

    def _start(self, number: int, port: int) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=rank_main, args=(self._function, number, theirs, self._phases), name=f"keisei-rank-{number}"
        )
        with _environment_of(number, self._num_ranks, port):
            process.start()
        theirs.close()
        self._alive.append(_Rank(number=number, process=process, connection=ours))
        if self._stopping is not None:  # a signal came before this one could be told
            _send(self._alive[-1], self._stopping)

    def stop(self, signum: int) -> None:
        """Ask all ranks to stop in order; a signal's handler may call it.

        Args:
            signum: the signal that asks for it.
        """
        self._stopping = signum
        for rank in self._alive:
            _send(rank, signum)

    def watch(self) -> None:
        """Wait until all ranks have ended; those that do not end after another one has failed or stopped are killed."""
        while self._alive:
            sources = {rank.process.sentinel: rank for rank in self._alive}
            sources |= {rank.connection: rank for rank in self._alive if rank.outcome is None}  # type: ignore[misc]
            ready = wait(list(sources), self._time_left())
            for rank in {id(sources[source]): sources[source] for source in ready}.values():  # type: ignore[index]
                self._receive(rank)
                if not rank.process.is_alive():
                    self._has_ended(rank)
            if self._time_left() == 0.0:
                for rank in self._alive:
                    if rank.outcome is None or time.monotonic() > self._ending_since + _AFTER_STOP_S:
                        rank.killed = True
                        rank.process.kill()
                self._ending_since, self._grace_s = time.monotonic(), _AFTER_STOP_S

    def _receive(self, rank: _Rank) -> None:
        """Take what a rank has said last, if it has."""
        with contextlib.suppress(EOFError, OSError):  # it has ended, or is about to
            if rank.outcome is None and rank.connection.poll():
                rank.outcome = rank.connection.recv()
                self._note(rank)

    def _has_ended(self, rank: _Rank) -> None:
        rank.process.join()
        self._alive.remove(rank)
        if rank.outcome is None:
            code = rank.process.exitcode
            rank.outcome = Died(1 if code is None else code, Phase(self._phases[rank.number]), by_us=rank.killed)
            self._note(rank)
        rank.connection.close()
        rank.process.close()

    def _note(self, rank: _Rank) -> None:
        """Decide what follows for the others from how a rank has ended."""
        outcome = rank.outcome
        assert outcome is not None
        self.outcomes.append((rank.number, outcome))
        if isinstance(outcome, Done) or rank.killed:
            return
        if isinstance(outcome, Halted):
            if self._stopping is None:
                self.stop(outcome.signum)
            self._end_within(_AFTER_STOP_S)
        elif isinstance(outcome, Failed) and outcome.is_agreed:
            self._end_within(_AFTER_STOP_S)
        else:
            is_saving = any(self._phases[other.number] == Phase.SAVING for other in self._alive if other is not rank)
            self._end_within(_SAVING_S if is_saving else _AFTER_FAILURE_S)

    def _end_within(self, seconds: float) -> None:
        if self._ending_since == math.inf:
            self._ending_since = time.monotonic()
        self._grace_s = min(self._grace_s, seconds)

    def _time_left(self) -> float | None:
        """Seconds until ranks that are still there are killed; None: there is no such time."""
        if self._ending_since == math.inf:
            return None
        return max(0.0, self._ending_since + self._grace_s - time.monotonic())

    def _kill_all(self) -> None:
        for rank in self._alive:
            rank.process.kill()
        for rank in self._alive:
            rank.process.join()
            rank.connection.close()
        self._alive.clear()
        self._resources.close()


def _send(rank: _Rank, signum: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # it has ended
        rank.connection.send(signum)


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """Context that keeps a free port from everybody but those who, as torch's store does, set ``SO_REUSEADDR``."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))
        yield int(holder.getsockname()[1])


@contextlib.contextmanager
def _environment_of(rank: int, num_ranks: int, port: int) -> Iterator[None]:
    """Context with the variables of one rank: those of torchrun, by which Lightning knows that it need not launch.

    They must be there when the process starts: Lightning and OpenMP look as they are imported.
    """
    variables = {
        LAUNCHED_BY_US: "1",
        "TORCHELASTIC_RUN_ID": f"keisei-{uuid.uuid4().hex}",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with _changing_environment, environment_variables(variables):
        yield
