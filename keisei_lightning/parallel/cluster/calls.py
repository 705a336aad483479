"""What the learner does with a cluster and its agents: calls that do not wait, and what it knows of each agent."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from keisei_lightning.parallel.cluster.messages import AgentBoot, Grant, Parcel, Report
from keisei_lightning.parallel.cluster.placement import Node
from keisei_lightning.parallel.supervision.restarts import WorkerState

__all__ = ["Agent", "AgentCalls", "AgentGoneError", "AnswerLostError", "Call", "Cluster", "Owner"]

_logger = logging.getLogger("keisei_lightning.cluster")

Call = Any
"""A call to an agent whose result has perhaps not come yet: hashable."""


class AgentGoneError(Exception):
    """An agent has ended.

    Args:
        reason: how, as words that follow its name.
        is_own_fault: it failed by itself, so that its next incarnation would too.
    """

    def __init__(self, reason: str, *, is_own_fault: bool = False) -> None:
        self.reason, self.is_own_fault = reason, is_own_fault
        super().__init__(reason)


class AnswerLostError(Exception):
    """The answer to a call was lost on the way; the agent may be well."""


class AgentCalls(Protocol):
    """Calls to one incarnation of an agent, or to a standby; none of them waits.

    Until ``begin``, a standby takes only ``stand_by``, answered within a second or as soon as it begins, and ``kill``.
    """

    def stand_by(self) -> Call: ...  # noqa: D102
    def begin(self, boot: AgentBoot) -> None: ...  # noqa: D102
    def poll(self, accepted: int) -> Call: ...  # noqa: D102
    def grant(self, grant: Grant) -> None: ...  # noqa: D102
    def reset_games(self, workers: tuple[int, ...]) -> None: ...  # noqa: D102
    def receive(self, parcel: Parcel) -> Call: ...  # noqa: D102
    def stop(self, timeout_s: float) -> Call: ...  # noqa: D102
    def kill(self) -> None: ...  # noqa: D102


class Cluster(Protocol):
    """Where agents run (tests give their own)."""

    def connect(self) -> None:
        """Connect; start the cluster first if it is ours."""
        ...

    def nodes(self) -> list[Node]:
        """The nodes that are alive."""
        ...

    def start_agent(self, boot: AgentBoot, node: Node) -> AgentCalls:
        """Start an agent on a node; returns at once."""
        ...

    def start_standby(self, agent_id: int, node: Node) -> AgentCalls:
        """Start a process on an agent's node that imports what it needs, and waits for ``begin``; returns at once."""
        ...

    def put(self, data: Any) -> Any:
        """Put data into the object store, from which every agent can fetch it while the reference is kept."""
        ...

    def wait(self, calls: Sequence[Call], timeout_s: float) -> list[Call]:
        """Those calls whose results are here; waits until there is one, or where there are no calls, that long."""
        ...

    def result(self, call: Call) -> Any:
        """The result of such a call.

        Raises:
            AgentGoneError, AnswerLostError: see there.
        """
        ...

    def disconnect(self) -> None:
        """Disconnect, and stop the cluster if it is ours; twice is harmless."""
        ...


@dataclass(slots=True)
class Agent:
    """What the learner knows of one agent, over all its incarnations; times are seconds of the fleet's clock.

    Attributes:
        agent_id: which agent.
        state: of the present incarnation, DEAD between two.
        incarnation: number of the present or last incarnation; -1 before the first.
        node: where it is, or was last.
        calls: to the present incarnation.
        call: the poll that it has not answered yet.
        asked_at: when that was sent, or the first of those whose answers were lost.
        ask_again_at: when it is asked again, after an answer that was lost on the way; None: it is not.
        has_lost_calls: an answer was lost, so that other calls may have been too.
        started_at: when the present incarnation was started.
        answered_at: when its last answer came.
        excused_sign: the answer after which its silence was excused.
        excused_until: until when.
        respawn_at: when the next incarnation is to be started; None: it is not.
        waits_since: since when it waits for a node with room; None: it does not.
        restarts: times of all restarts.
        accepted: sequence of the last rollout that was accepted.
        report: the last one of the present incarnation.
    """

    agent_id: int
    state: WorkerState = WorkerState.DEAD
    incarnation: int = -1
    node: Node | None = None
    calls: AgentCalls | None = None
    call: Call | None = None
    asked_at: float = 0.0
    ask_again_at: float | None = None
    has_lost_calls: bool = False
    started_at: float = 0.0
    answered_at: float = 0.0
    excused_sign: float = -math.inf
    excused_until: float = -math.inf
    respawn_at: float | None = 0.0
    waits_since: float | None = None
    restarts: list[float] = field(default_factory=list)
    accepted: int = 0
    report: Report | None = None

    @property
    def name(self) -> str:
        """The agent, for a person."""
        return f"agent {self.agent_id}" + ("" if self.node is None else f" on {self.node.name}")

    def move(self, to: WorkerState) -> None:
        """Change the state, by :meth:`WorkerState.moved`."""
        before, self.state = self.state, self.state.moved(to, self.name)
        _logger.debug("%s.%d: %s -> %s", self.name, self.incarnation, before.value, to.value)


class Owner(Protocol):
    """Whom a fleet tells what happens; it is told at once, within :meth:`Fleet.wait`."""

    def on_starting(self, agent: Agent) -> None:
        """An incarnation was started; calls to it wait until it is there."""
        ...

    def on_report(self, agent: Agent, report: Report) -> None:
        """An agent has answered a poll; ``agent.accepted`` is what the next one says."""
        ...

    def on_found(self, agent: Agent) -> None:
        """An agent has answered after answers were lost on the way: calls to it may have been lost too."""
        ...

    def on_result(self, agent: Agent, call: Call, result: Any) -> None:
        """The result of a watched call has come."""
        ...

    def on_lost(self, agent: Agent) -> None:
        """An incarnation has ended; all its reports came before."""
        ...
