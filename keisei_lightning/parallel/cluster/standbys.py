"""Standbys: a process beside each agent that has imported everything, and takes over at once when the agent ends.

An agent needs seconds to start, in which Python, Ray and torch are imported; a standby has done that. A standby that
dies or hangs is replaced after the pauses of the restart policy. Nothing is lost with it, so it ends no training, and
is no restart of its agent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from keisei_lightning.parallel.cluster.calls import Agent, AgentCalls, AgentGoneError, AnswerLostError, Call, Cluster
from keisei_lightning.parallel.cluster.placement import Node
from keisei_lightning.parallel.supervision.restarts import Respawn, RestartPolicy, WorkerExit, WorkerState, decide

__all__ = ["Standbys"]

_logger = logging.getLogger("keisei_lightning.cluster")
_ASK_AGAIN_S = 0.2  # after an answer that was lost on the way


@dataclass(slots=True)
class _Standby:
    """What is known of the standby of one agent; times are seconds of the fleet's clock.

    Attributes:
        node_id: where it is, or was last.
        calls: to it; None: there is none.
        call: that it has not answered yet; None: there is none.
        silent_at: when it counts as hung, if it has not answered by then.
        due_at: the next one, or the next call to this one, is not started before.
        restarts: when each one that died was to be replaced.
    """

    node_id: str = ""
    calls: AgentCalls | None = None
    call: Call | None = None
    silent_at: float = 0.0
    due_at: float = 0.0
    restarts: list[float] = field(default_factory=list)


class Standbys:
    """Keeps a standby beside each agent that runs.

    Args:
        cluster: where they wait.
        policy: timeouts and pauses.
        num_agents: how many agents there are; 0: none has a standby.
        clock: seconds.
        jitter: a number in [-1, 1).
    """

    def __init__(
        self,
        cluster: Cluster,
        policy: RestartPolicy,
        *,
        num_agents: int,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._cluster, self._policy, self._clock, self._jitter = cluster, policy, clock, jitter
        self._standbys = [_Standby() for _ in range(num_agents)]

    @property
    def calls(self) -> list[Call]:
        """Calls that standbys have not answered yet, for the fleet to wait for."""
        return [standby.call for standby in self._standbys if standby.call is not None]

    def keep(self, agents: Sequence[Agent]) -> None:
        """End those that are silent or not on their agent's node; ask again or start those that are due.

        A standby is started when its agent runs: not before, so that it does not compete with the agent's own start.
        """
        now = self._clock()
        for agent, standby in zip(agents, self._standbys, strict=False):
            if standby.calls is not None and now >= standby.silent_at:
                self._on_gone(agent, standby, "gave no sign of life")
            if standby.calls is not None and standby.call is None and now >= standby.due_at:
                standby.call = standby.calls.stand_by()
            if agent.state is not WorkerState.RUNNING or agent.node is None:
                continue
            if standby.calls is not None and standby.node_id != agent.node.node_id:
                self._end(standby)
            if standby.calls is None and now >= standby.due_at:
                self._start(agent, standby, agent.node)

    def node_id_of(self, agent: Agent) -> str | None:
        """The node on which an agent's standby waits; None: it has none."""
        standby = self._of(agent)
        return None if standby is None or standby.calls is None else standby.node_id

    def take(self, agent: Agent, node: Node) -> AgentCalls | None:
        """Hand over an agent's standby, if it has one on this node; otherwise end it."""
        standby = self._of(agent)
        if standby is None:
            return None
        if standby.node_id != node.node_id:
            self._end(standby)
        calls, standby.calls, standby.call = standby.calls, None, None
        return calls

    def on_answer(self, agents: Sequence[Agent], call: Call) -> None:
        """Take in the answer to a call, unless it is that of a standby which is none any more."""
        for agent, standby in zip(agents, self._standbys, strict=False):
            if standby.call == call:
                self._on_answer(agent, standby)

    def next_check(self, agents: Sequence[Agent]) -> list[float]:
        """When :meth:`keep` has something to do."""
        return [
            standby.due_at if standby.call is None else standby.silent_at
            for agent, standby in zip(agents, self._standbys, strict=False)
            if standby.calls is not None or agent.state is WorkerState.RUNNING
        ]

    def end(self, agent: Agent) -> None:
        """End an agent's standby, if it has one."""
        standby = self._of(agent)
        if standby is not None:
            self._end(standby)

    # ---- one standby

    def _of(self, agent: Agent) -> _Standby | None:
        return self._standbys[agent.agent_id] if self._standbys else None

    def _start(self, agent: Agent, standby: _Standby, node: Node) -> None:
        standby.node_id, standby.calls = node.node_id, self._cluster.start_standby(agent.agent_id, node)
        self._ask(standby, within_s=self._policy.start_timeout_s)

    def _ask(self, standby: _Standby, *, within_s: float) -> None:
        assert standby.calls is not None
        standby.call, standby.silent_at = standby.calls.stand_by(), self._clock() + within_s

    def _on_answer(self, agent: Agent, standby: _Standby) -> None:
        call, standby.call = standby.call, None
        try:
            self._cluster.result(call)
        except AnswerLostError:  # perhaps it is well; if no answer comes, it is as good as silent
            standby.due_at = self._clock() + _ASK_AGAIN_S
            return
        except AgentGoneError as error:
            self._on_gone(agent, standby, error.reason)
            return
        self._ask(standby, within_s=self._policy.heartbeat_s)

    def _on_gone(self, agent: Agent, standby: _Standby, reason: str) -> None:
        self._end(standby)
        now = self._clock()
        exit = WorkerExit(
            worker_id=agent.agent_id,
            incarnation=len(standby.restarts),
            state=WorkerState.RUNNING,
            exit_code=None,
            reason=reason,
            name=f"the standby of {agent.name}",
        )
        decision = decide(exit, standby.restarts, now, self._policy)
        delay_s = decision.delay_s if isinstance(decision, Respawn) else self._policy.backoff_cap_s
        standby.due_at = now + delay_s * (1 + self._policy.jitter * self._jitter())
        standby.restarts.append(standby.due_at)
        _logger.warning("%s; nothing is lost, another one is started in %.1f s", exit.describe(), delay_s)

    @staticmethod
    def _end(standby: _Standby) -> None:
        calls, standby.calls, standby.call = standby.calls, None, None
        if calls is not None:
            calls.kill()
