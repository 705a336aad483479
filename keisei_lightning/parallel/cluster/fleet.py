"""The fleet: starts node agents, watches them and replaces them, as a supervisor does worker processes. Needs no Ray.

An agent answers one poll after another, each within a beat: that is its heartbeat. All times are of this process's
clock, so clocks of other machines do not matter. An agent that is silent is hung, also where it is the network that is
silent: it is killed, and what it says later is thrown away.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from keisei_lightning import errors
from keisei_lightning.errors import RemoteTraceback, TooFewWorkersError, WorkerError
from keisei_lightning.parallel.cluster.calls import Agent, AgentGoneError, AnswerLostError, Call, Cluster, Owner
from keisei_lightning.parallel.cluster.messages import AgentBoot, Report
from keisei_lightning.parallel.cluster.placement import Node, choose_node
from keisei_lightning.parallel.cluster.standbys import Standbys
from keisei_lightning.parallel.options import Placement
from keisei_lightning.parallel.supervision.messages import Failure
from keisei_lightning.parallel.supervision.restarts import GiveUp, RestartPolicy, WorkerExit, WorkerState, decide

__all__ = ["Fleet"]

_logger = logging.getLogger("keisei_lightning.cluster")
_LOOK_FOR_NODES_S = 1.0  # how often, while an agent waits for one
_ABSENCE_S = 0.5  # see Supervisor: an owner that was away for so long does not take silence for a hang ...
_RETURN_GRACE_S = 2.0  # ... for so long
_ASK_AGAIN_S = 0.2  # after an answer that was lost on the way


class Fleet:
    """Runs agents and replaces those that fail.

    Args:
        cluster: where they run.
        owner: is told what happens.
        make_boot: what an agent's next incarnation needs.
        num_agents: how many.
        needs: what each reserves of its node, by the name of the resource.
        placement: which nodes they go to.
        policy: timeouts and budget, of each agent.
        needs_all: training cannot go on without all of them (``schedule="sync"``).
        has_standbys: another process waits beside each one (see :class:`Standbys`).
        clock: seconds; injected by tests.
        jitter: a number in [-1, 1); injected by tests.

    Attributes:
        agents: all of them.
        late_reports: answers of incarnations that had been given up; they were thrown away.
    """

    def __init__(
        self,
        cluster: Cluster,
        owner: Owner,
        make_boot: Callable[[Agent], AgentBoot],
        *,
        num_agents: int,
        needs: dict[str, float],
        placement: Placement,
        policy: RestartPolicy,
        needs_all: bool,
        has_standbys: bool = False,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(-1, 1),
    ) -> None:
        self._cluster, self._owner, self._make_boot = cluster, owner, make_boot
        self._needs, self._placement = needs, placement
        self._policy, self._needs_all = policy, needs_all
        self._clock, self._jitter = clock, jitter
        self.agents = [Agent(agent_id) for agent_id in range(num_agents)]
        self.late_reports = 0
        self._standbys = Standbys(
            cluster, policy, num_agents=num_agents if has_standbys else 0, clock=clock, jitter=jitter
        )
        self._watched: dict[Call, tuple[Agent, int]] = {}
        self._given_up: set[Call] = set()
        self._silent_nodes: set[str] = set()
        self._look_at = 0.0
        self._last_wait_at = clock()

    def start(self) -> None:
        """Start all agents that there are nodes for; returns before they are ready."""
        now = self._clock()
        for agent in self.agents:
            agent.waits_since = now
        self._start_due()

    def watch(self, agent: Agent, call: Call) -> None:
        """Tell the owner when the result of a call is here, unless the agent is replaced before."""
        self._watched[call] = (agent, agent.incarnation)

    def wait(self, timeout_s: float, until: Callable[[], bool] = lambda: False) -> None:
        """Tell the owner what happens, and replace agents where necessary.

        Args:
            timeout_s: how long.
            until: ends the waiting sooner; it changes by what the owner is told.

        Raises:
            WorkerError: of the kind that an agent reported, or that an agent itself calls for: as a supervisor of
                workers raises it.
        """
        deadline = self._clock() + timeout_s
        for agent in self.agents:
            if agent.calls is not None and agent.call is None and agent.ask_again_at is None:
                self._ask(agent)  # an interrupt (Ctrl-C) came between answer and poll
        self._wait_once(0.0)  # pending answers first: a busy owner must not mistake a live agent for a hung one
        self._excuse_after_absence(0.0)
        while True:
            self._start_due()
            self._ask_due()
            self._end_silent()
            self._standbys.keep(self.agents)
            now = self._clock()
            if until() or now >= deadline:
                break
            timeout = min(deadline, self._next_check(now)) - now
            self._wait_once(timeout)
            self._excuse_after_absence(timeout)
        self._start_due()  # agents that ended just now, if at once: the owner may not wait again for some time

    def shutdown(self, timeout_s: float) -> None:
        """Stop all agents: ask, then kill. Returns within ``timeout_s`` + 1 s; twice is harmless."""
        alive = [agent for agent in self.agents if agent.calls is not None]
        try:
            asked = [agent.calls.stop(0.7 * timeout_s) for agent in alive if agent.calls is not None]
            deadline = self._clock() + timeout_s
            while asked and (left := deadline - self._clock()) > 0:
                done = self._cluster.wait(asked, left)
                asked = [call for call in asked if call not in done]
        finally:
            for agent in alive:
                self._end(agent)
            for agent in self.agents:
                self._standbys.end(agent)

    # ---- starting

    def _start_due(self) -> None:
        now = self._clock()
        due = [agent for agent in self.agents if agent.respawn_at is not None and now >= agent.respawn_at]
        doubtful = [agent for agent in self.agents if self._is_doubtful(agent)]
        if not due and not doubtful:
            return
        if now < self._look_at and all(agent.waits_since not in (None, now) for agent in due):
            return
        self._look_at = now + _LOOK_FOR_NODES_S
        nodes = self._cluster.nodes()
        for agent in doubtful:
            self._move(agent, nodes, now)
        for agent in due:
            self._place(agent, nodes, now)

    def _is_doubtful(self, agent: Agent) -> bool:
        """Whether an agent starts on a node that was silent, for want of another: the node may be gone."""
        return (
            agent.state is WorkerState.STARTING and agent.node is not None and agent.node.node_id in self._silent_nodes
        )

    def _move(self, agent: Agent, nodes: Sequence[Node], now: float) -> None:
        """Start an agent on another node, if there is one now; this is no restart of its budget."""
        heard = [node for node in nodes if node.node_id not in self._silent_nodes]
        if choose_node(heard, self._agents_by_node(), self._needs, self._placement) is None:
            return
        _logger.warning("%s has not started there; another node has room", agent.name)
        self._give_up(agent)
        self._place(agent, heard, now)
        agent.restarts.pop()

    def _agents_by_node(self) -> Mapping[str, int]:
        return Counter(
            agent.node.node_id for agent in self.agents if agent.calls is not None and agent.node is not None
        )

    def _place(self, agent: Agent, nodes: Sequence[Node], now: float) -> None:
        node = choose_node(
            nodes,
            self._agents_by_node(),
            self._needs,
            self._placement,
            avoided=self._silent_nodes,
            preferred=self._standbys.node_id_of(agent),
        )
        if node is None:
            if agent.waits_since is None:
                agent.waits_since = now
                _logger.warning("agent %d waits for a node with %s", agent.agent_id, _words(self._needs))
            self._check_patience(agent, nodes, now)
            return
        if agent.incarnation >= 0:
            agent.restarts.append(now)
        agent.incarnation += 1
        agent.node, agent.accepted, agent.report = node, 0, None
        agent.respawn_at = agent.waits_since = None
        agent.move(WorkerState.STARTING)
        boot, agent.calls = self._make_boot(agent), self._standbys.take(agent, node)
        if agent.calls is None:
            agent.calls = self._cluster.start_agent(boot, node)
        else:
            agent.calls.begin(boot)
        agent.started_at = agent.answered_at = now
        self._ask(agent)
        self._owner.on_starting(agent)

    def _check_patience(self, agent: Agent, nodes: Sequence[Node], now: float) -> None:
        if self._needs_all or not any(other.calls is not None for other in self.agents):
            assert agent.waits_since is not None
            if now - agent.waits_since >= self._policy.start_timeout_s:
                have = "; ".join(f"{node.name}: {self._room(node)}" for node in nodes) or "none is alive"
                raise TooFewWorkersError(
                    f"agent {agent.agent_id} found no node with {_words(self._needs)} within start_timeout_s="
                    f"{self._policy.start_timeout_s:g} (nodes: {have})"
                )

    def _room(self, node: Node) -> str:
        return _words({name: node.resources.get(name, 0.0) for name in self._needs})

    # ---- watching

    def _ask(self, agent: Agent) -> None:
        assert agent.calls is not None
        agent.call, agent.asked_at, agent.ask_again_at = agent.calls.poll(agent.accepted), self._clock(), None

    def _ask_due(self) -> None:
        """Ask again where an answer was lost; an agent whose answers never come is as good as silent."""
        for agent in self.agents:
            if agent.ask_again_at is not None and self._clock() >= agent.ask_again_at:
                asked_at = agent.asked_at
                self._ask(agent)
                agent.asked_at = asked_at

    def _wait_once(self, timeout_s: float) -> None:
        polls = {agent.call: agent for agent in self.agents if agent.call is not None}
        for call in self._cluster.wait([*polls, *self._watched, *self._given_up, *self._standbys.calls], timeout_s):
            if call in polls:
                self._on_answer(polls[call])
            elif call in self._given_up:
                self._on_late(call)
            elif call in self._watched:
                self._on_watched(call)
            else:
                self._standbys.on_answer(self.agents, call)

    def _on_answer(self, agent: Agent) -> None:
        try:
            report: Report = self._cluster.result(agent.call)
        except AnswerLostError as error:
            _logger.warning("%s: an answer was lost on the way (%s); it is asked again", agent.name, error)
            agent.call, agent.has_lost_calls = None, True
            agent.ask_again_at = self._clock() + _ASK_AGAIN_S
            return
        except AgentGoneError as error:
            agent.call = None
            self._on_gone(agent, error.reason, is_own_fault=error.is_own_fault)
            return
        agent.call, agent.answered_at = None, self._clock()
        if agent.state is WorkerState.STARTING:
            agent.move(WorkerState.RUNNING)
            assert agent.node is not None
            self._silent_nodes.discard(agent.node.node_id)
        agent.report = report
        for record in report.logs:
            logging.getLogger(record.name).log(record.level, "[%s] %s", agent.name, record.message)
        self._owner.on_report(agent, report)
        if report.failure is not None:
            raise _as_error(report.failure, agent) from RemoteTraceback(report.failure.traceback)
        self._ask(agent)
        if agent.has_lost_calls:
            agent.has_lost_calls = False
            self._owner.on_found(agent)

    def _on_late(self, call: Call) -> None:
        self._given_up.discard(call)
        try:
            self._cluster.result(call)
        except (AgentGoneError, AnswerLostError):
            return
        self.late_reports += 1
        _logger.warning("an agent that had been given up has answered; the answer was thrown away")

    def _on_watched(self, call: Call) -> None:
        agent, incarnation = self._watched.pop(call)
        if agent.incarnation != incarnation or agent.calls is None:
            return
        try:
            result = self._cluster.result(call)
        except AnswerLostError:
            agent.has_lost_calls = True
            return
        except AgentGoneError as error:
            if error.is_own_fault:  # such as weights that it cannot fetch; that it has ended, its poll tells too
                self._on_gone(agent, error.reason)
            return
        self._owner.on_result(agent, call, result)

    def _deadline(self, agent: Agent) -> float:
        if agent.state is WorkerState.STARTING:
            return agent.started_at + self._policy.start_timeout_s
        return max(agent.asked_at + self._policy.heartbeat_s, agent.excused_until)

    def _end_silent(self) -> None:
        now = self._clock()
        for agent in self.agents:
            if agent.calls is None or now < self._deadline(agent):
                continue
            if agent.state is WorkerState.STARTING:
                reason = f"was not ready within start_timeout_s={self._policy.start_timeout_s:g}"
                self._on_gone(agent, reason, is_own_fault=True)
            else:
                assert agent.node is not None
                self._silent_nodes.add(agent.node.node_id)
                self._standbys.end(agent)  # a call to begin might be lost as well
                self._on_gone(agent, f"gave no sign of life for heartbeat_s={self._policy.heartbeat_s:g}")

    def _excuse_after_absence(self, waited_s: float) -> None:
        now = self._clock()
        if now - self._last_wait_at > waited_s + _ABSENCE_S:
            for agent in self.agents:
                if agent.answered_at > agent.excused_sign:
                    agent.excused_sign = agent.answered_at
                    agent.excused_until = now + min(self._policy.heartbeat_s, _RETURN_GRACE_S)
        self._last_wait_at = now

    def _next_check(self, now: float) -> float:
        times = [agent.respawn_at for agent in self.agents if agent.respawn_at is not None]
        times = [max(at, self._look_at) for at in times]
        times += [self._deadline(agent) for agent in self.agents if agent.calls is not None]
        times += [agent.ask_again_at for agent in self.agents if agent.ask_again_at is not None]
        times += self._standbys.next_check(self.agents)
        times += [self._look_at for agent in self.agents if self._is_doubtful(agent)]
        return max(min(times, default=now + 1.0), now + 0.001)

    # ---- ends

    def _on_gone(self, agent: Agent, reason: str, *, is_own_fault: bool = False) -> None:
        """End an incarnation, and decide what follows."""
        state = agent.state
        self._give_up(agent)
        exit = WorkerExit(
            worker_id=agent.agent_id,
            incarnation=agent.incarnation,
            # A node that dies while its agent starts is not the agent's fault: that is no failed start.
            state=state if is_own_fault else WorkerState.RUNNING,
            exit_code=None,
            reason=reason,
            name=agent.name,
        )
        now = self._clock()
        decision = decide(exit, agent.restarts, now, self._policy)
        if isinstance(decision, GiveUp):
            raise decision.error(decision.message)
        agent.respawn_at = now + decision.delay_s * (1 + self._policy.jitter * self._jitter())
        _logger.warning(
            "%s; restart %d of %d in %.1f s, %d of %d agents left",
            exit.describe(),
            len(agent.restarts) + 1,
            self._policy.max_restarts,
            decision.delay_s,
            sum(other.calls is not None for other in self.agents),
            len(self.agents),
        )

    def _give_up(self, agent: Agent) -> None:
        """End an incarnation; what it says later is thrown away."""
        if agent.call is not None:
            self._given_up.add(agent.call)
        self._end(agent)
        self._owner.on_lost(agent)

    def _end(self, agent: Agent) -> None:
        calls, agent.calls, agent.call, agent.ask_again_at = agent.calls, None, None, None
        agent.has_lost_calls = False
        for call in [call for call, (owner, _) in self._watched.items() if owner is agent]:
            del self._watched[call]
        if calls is not None:
            calls.kill()
            agent.move(WorkerState.DEAD)


def _as_error(failure: Failure, agent: Agent) -> Exception:
    """The error that ended an agent, as its learner raises it."""
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, errors.KeiseiError) and kind is not errors.IllegalActionError:
        return kind(f"{agent.name}: {failure.message}")
    return WorkerError(f"{agent.name} raised {failure.kind}: {failure.message}")


def _words(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(resources.items())) or "no resources"
