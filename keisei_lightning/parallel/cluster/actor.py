"""A node agent as a Ray actor. It imports torch only when the fork server has begun to, so that both do it at once."""

from __future__ import annotations

from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import ray
from numpy.typing import NDArray

from keisei_lightning.parallel.supervision.fork_server import start_fork_server

if TYPE_CHECKING:
    from keisei_lightning.parallel.cluster.agent import NodeAgent
    from keisei_lightning.parallel.cluster.messages import Grant, Parcel, Report

__all__ = ["AgentActor"]

_STAND_BY_S = 1.0  # how often a standby gives a sign of life


class AgentActor:
    """A :class:`NodeAgent` as a Ray actor; polls and transfers have threads of their own.

    Args:
        boot: an :class:`AgentBoot`, pickled: what it is made of imports torch. None: a standby, until it begins.
        start_method: of the workers' processes.
    """

    def __init__(self, boot: bytes | None, start_method: str | None) -> None:
        start_fork_server(start_method)  # it imports torch while this process does
        from keisei_lightning.parallel.cluster.agent import NodeAgent

        self._make_agent = NodeAgent
        self._agent: Future[NodeAgent] = Future()
        if boot is not None:
            self._agent.set_result(NodeAgent(cloudpickle.loads(boot), fetch=_fetch))

    @ray.method(concurrency_group="polls")
    def stand_by(self) -> None:
        """Wait for :meth:`begin`, but no longer than a second: the answer is a sign of life."""
        wait([self._agent], timeout=_STAND_BY_S)

    def begin(self, boot: bytes) -> None:
        """Become an agent. Why it cannot, every later call raises, since nobody waits for this one.

        Args:
            boot: an :class:`AgentBoot`, pickled.
        """
        try:
            self._agent.set_result(self._make_agent(cloudpickle.loads(boot), fetch=_fetch))
        except BaseException as error:  # noqa: BLE001 - whatever importing a third party's module raises
            self._agent.set_exception(error)

    @ray.method(concurrency_group="polls")
    def poll(self, accepted: int) -> Report:
        """See :meth:`NodeAgent.poll`."""
        return self._agent.result().poll(accepted)

    @ray.method(concurrency_group="transfers")
    def receive(self, parcel: Parcel) -> bool:
        """See :meth:`NodeAgent.receive`."""
        return self._agent.result().receive(parcel)

    def grant(self, grant: Grant) -> None:
        """See :meth:`NodeAgent.grant`."""
        self._agent.result().grant(grant)

    def reset_games(self, workers: tuple[int, ...]) -> None:
        """See :meth:`NodeAgent.reset_games`."""
        self._agent.result().reset_games(workers)

    def stop(self, timeout_s: float) -> None:
        """See :meth:`NodeAgent.stop`."""
        self._agent.result().stop(timeout_s)


def _fetch(data: ray.ObjectRef[Any], within_s: float) -> NDArray[np.uint8]:
    fetched: NDArray[np.uint8] = ray.get(data, timeout=within_s)
    return fetched
