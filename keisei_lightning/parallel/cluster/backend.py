"""``mode="ray"``: workers of several machines, each under a node agent. To the collector it is a backend as the others.

A rollout is copied twice on its way: by the agent's answer from its slot into the object store, and by :meth:`wait`
from there into the learner's slot. The object store is read in place; between two machines it sends the bytes once.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from typing_extensions import override

from keisei_lightning.errors import RolloutError, TooFewWorkersError
from keisei_lightning.parallel.backend import Backend, WorkerInputs
from keisei_lightning.parallel.cluster.calls import Agent, Call, Cluster
from keisei_lightning.parallel.cluster.deliveries import Deliveries
from keisei_lightning.parallel.cluster.fleet import Fleet
from keisei_lightning.parallel.cluster.messages import AgentBoot, Grant, Report, Rollout, SnapshotBoot
from keisei_lightning.parallel.cluster.weight_codec import WeightCodec
from keisei_lightning.parallel.options import ClusterOptions
from keisei_lightning.parallel.supervision.events import WorkerHealth
from keisei_lightning.parallel.supervision.messages import Play, RolloutHeader
from keisei_lightning.parallel.supervision.restarts import RestartPolicy, WorkerState

__all__ = ["ClusterBackend"]

_ALIVE = (WorkerState.STARTING, WorkerState.RUNNING)
_LONGEST_BEAT_S = 1.0
_BEATS = 4  # at least so many answers of an agent within heartbeat_s


class ClusterBackend(Backend):
    """Node agents, and the workers of each.

    Args:
        inputs: what the workers receive; the slots are those of all agents' workers.
        cluster: where the agents run.
        options: of the agents.
        num_agents: how many there are at most.
        needs: what each reserves of its node, by the name of the resource.
        restart_policy: of agents, and of the workers of each.
        start_method: of worker processes.
        needs_all: a batch needs every worker (``schedule="sync"``).

    Attributes:
        lost_rollouts: rollouts that workers began and never announced, and grants that ended with an agent.
        duplicate_rollouts: rollouts that came again, because the first answer seemed lost; thrown away.
    """

    def __init__(
        self,
        inputs: WorkerInputs,
        *,
        cluster: Cluster,
        options: ClusterOptions,
        num_agents: int,
        needs: dict[str, float],
        restart_policy: RestartPolicy,
        start_method: str | None,
        needs_all: bool,
    ) -> None:
        self.lost_rollouts, self.duplicate_rollouts = 0, 0
        self._inputs, self._cluster, self._restart_policy, self._start_method = (
            inputs,
            cluster,
            restart_policy,
            start_method,
        )
        num_workers = inputs.slots.layout.num_workers
        self._workers_each = num_workers // num_agents
        self._outstanding: list[list[Play]] = [[] for _ in range(num_workers)]
        self._grants: dict[tuple[int, int], Grant] = {}  # the newest that was sent, by worker and slot
        self._num_grants = 0
        self._incarnations = [-1] * num_workers  # the newest that was heard of
        self._sequences: dict[tuple[int, int], int] = {}
        self._lost_by_workers = [0] * num_agents  # of the present incarnation of each agent
        self._arrived: list[RolloutHeader] = []
        self._codec = WeightCodec(
            layout=inputs.weights.layout, dtype=options.weight_dtype, compression=options.weight_compression
        )
        self._fleet = Fleet(
            cluster,
            self,
            self._boot,
            num_agents=num_agents,
            needs=needs,
            placement=options.placement,
            # A number of workers is required of all agents together, and checked here.
            policy=dataclasses.replace(restart_policy, min_healthy_workers=0),
            needs_all=needs_all,
            has_standbys=options.standby_agents,
        )
        self._deliveries = Deliveries(
            self._codec,
            put=cluster.put,
            watch=self._fleet.watch,
            snapshots=None if inputs.opponents is None else inputs.opponents.memory,
        )
        self._game_and_policy = inputs.pickled(inputs.game, inputs.policy_structure())

    def _first(self, agent: Agent) -> int:
        return agent.agent_id * self._workers_each

    def _workers_of(self, agent: Agent) -> range:
        return range(self._first(agent), self._first(agent) + self._workers_each)

    def _boot(self, agent: Agent) -> AgentBoot:
        inputs, layout, opponents = self._inputs, self._inputs.slots.layout, self._inputs.opponents
        return AgentBoot(
            agent_id=agent.agent_id,
            incarnation=agent.incarnation,
            first_incarnations=tuple(self._incarnations[worker] + 1 for worker in self._workers_of(agent)),
            game_and_policy=self._game_and_policy,
            options=dataclasses.replace(
                inputs.options,
                first_worker=inputs.options.first_worker + self._first(agent),
                plies_per_batch=inputs.options.plies_per_batch or layout.plies_per_batch,
            ),
            slots=dataclasses.replace(layout, num_workers=self._workers_each),
            codec=self._codec,
            snapshots=None
            if opponents is None
            else SnapshotBoot(
                num_buffers=opponents.memory.num_buffers,
                share=opponents.share,
                players=opponents.players,
                patience_s=opponents.patience_s,
            ),
            restart_policy=dataclasses.replace(self._restart_policy, min_healthy_workers=0),
            start_method=self._start_method,
            beat_s=min(_LONGEST_BEAT_S, self._restart_policy.heartbeat_s / _BEATS),
        )

    @override
    def start(self) -> None:
        self._cluster.connect()
        self._fleet.start()

    @override
    def publish(self, weights: Tensor, version: int) -> None:
        self._deliveries.publish(weights, version)
        for agent in self._fleet.agents:
            self._deliveries.send(agent)

    @override
    def grant(self, worker_id: int, play: Play) -> None:
        self._outstanding[worker_id].append(play)
        self._pass_on(self._fleet.agents[worker_id // self._workers_each], worker_id, play)

    def _pass_on(self, agent: Agent, worker_id: int, play: Play) -> None:
        if agent.calls is None:
            return  # its next incarnation gets all that is outstanding
        if play.opponent is not None:
            self._deliveries.send_snapshot(agent, play.opponent)
        self._num_grants += 1
        grant = Grant(
            number=self._num_grants,
            worker=worker_id - self._first(agent),
            play=play,
            version=self._deliveries.version,
        )
        self._grants[worker_id, play.slot] = grant
        agent.calls.grant(grant)

    @override
    def wait(self, timeout_s: float) -> list[RolloutHeader]:
        if not self._arrived:  # an interrupted call may have left some
            self._fleet.wait(timeout_s, until=lambda: bool(self._arrived))
        arrived, self._arrived = self._arrived, []
        return arrived

    # ---- what the fleet tells

    def on_starting(self, agent: Agent) -> None:
        """An agent was started: it gets the weights, and all that is outstanding."""
        self._lost_by_workers[agent.agent_id] = 0
        self._deliveries.begin(agent)
        for worker_id in self._workers_of(agent):
            for play in self._outstanding[worker_id]:
                self._pass_on(agent, worker_id, play)

    def on_found(self, agent: Agent) -> None:
        """An agent answers again, after calls to it may have been lost: send all again that it may not have got."""
        assert agent.calls is not None
        self._deliveries.begin_again(agent)
        for worker_id in self._workers_of(agent):
            for play in self._outstanding[worker_id]:
                if play.opponent is not None:
                    self._deliveries.send_snapshot(agent, play.opponent)
                agent.calls.grant(self._grants[worker_id, play.slot])

    def on_result(self, agent: Agent, call: Call, result: Any) -> None:
        """A transfer of weights has ended."""
        self._deliveries.on_done(agent, call, has_arrived=result)

    def on_report(self, agent: Agent, report: Report) -> None:
        """Accept rollouts, count what was lost."""
        self.lost_rollouts += report.lost_rollouts - self._lost_by_workers[agent.agent_id]
        self._lost_by_workers[agent.agent_id] = report.lost_rollouts
        for worker in report.workers:
            worker_id = self._first(agent) + worker.worker_id
            self._incarnations[worker_id] = max(self._incarnations[worker_id], worker.incarnation)
        for rollout in report.rollouts:
            if rollout.sequence <= agent.accepted:
                self.duplicate_rollouts += 1
            else:
                self._accept(agent, rollout)
        self._check_enough(f"{agent.name} reports")

    def _accept(self, agent: Agent, rollout: Rollout) -> None:
        """Copy a rollout into the learner's slot, and note that it has come."""
        worker_id = self._first(agent) + rollout.header.worker_id
        header = dataclasses.replace(rollout.header, worker_id=worker_id)
        worker, expected = (worker_id, header.incarnation), self._sequences.get((worker_id, header.incarnation), 0)
        plays = self._outstanding[worker_id]
        play = next((play for play in plays if play.slot == header.slot), None)
        if rollout.sequence != agent.accepted + 1 or header.sequence != expected or play is None:
            raise RuntimeError(
                f"rollout {rollout.sequence} of {agent.name} (rollout {header.sequence} of worker {worker_id}."
                f"{header.incarnation}, slot {header.slot}) is out of order; expected {agent.accepted + 1}, {expected}"
            )
        if header.failure is None:
            _check_whole(rollout, header)
            for key, view in self._inputs.slots.views(header.slot, worker_id).items():
                np.copyto(view, rollout.columns[key])
        agent.accepted = rollout.sequence
        self._sequences[worker] = expected + 1
        self._incarnations[worker_id] = max(self._incarnations[worker_id], header.incarnation)
        plays.remove(play)
        self._arrived.append(header)

    def on_lost(self, agent: Agent) -> None:
        """Count what was granted to an agent that has ended; its next incarnation gets it again."""
        self.lost_rollouts += sum(len(self._outstanding[worker_id]) for worker_id in self._workers_of(agent))
        self._check_enough(f"{agent.name} was lost")

    def _check_enough(self, what: str) -> None:
        if not (least := self._restart_policy.min_healthy_workers):
            return
        workers = self.health()[: len(self._outstanding)]
        healthy = sum(worker.state in _ALIVE for worker in workers)
        if healthy < least:
            raise TooFewWorkersError(
                f"{what}; {healthy} of {len(workers)} workers are left, min_healthy_workers={least}"
            )

    @override
    def reset_games(self, worker_ids: Sequence[int]) -> None:
        for agent in self._fleet.agents:
            workers = tuple(
                worker_id - self._first(agent) for worker_id in worker_ids if worker_id in self._workers_of(agent)
            )
            if workers and agent.calls is not None:  # not running: its games will be new anyway
                agent.calls.reset_games(workers)

    @override
    def games_in_flight(self) -> list[dict[str, Any]]:
        return []  # as with workers of this machine

    @override
    def health(self) -> list[WorkerHealth]:
        agents = self._fleet.agents
        return [worker for agent in agents for worker in self._health_of_workers(agent)] + [
            WorkerHealth(
                worker_id=len(self._outstanding) + agent.agent_id,
                name=f"agent {agent.agent_id}",
                state=agent.state,
                pid=None if agent.report is None or agent.calls is None else agent.report.pid,
                incarnation=agent.incarnation,
                restarts=len(agent.restarts),
                last_sign_of_life_s=time.monotonic() - agent.answered_at,
                node="" if agent.node is None else agent.node.name,
                policy_version=None if agent.report is None or agent.report.version < 0 else agent.report.version,
                rss_bytes=None if agent.report is None else agent.report.rss_bytes,
            )
            for agent in agents
        ]

    def _health_of_workers(self, agent: Agent) -> list[WorkerHealth]:
        node = "" if agent.node is None else agent.node.name
        silence_s = time.monotonic() - agent.answered_at
        if agent.report is not None and agent.report.workers and agent.calls is not None:
            return [
                dataclasses.replace(
                    worker,
                    worker_id=worker_id,
                    name=f"worker {worker_id}",
                    last_sign_of_life_s=worker.last_sign_of_life_s + silence_s,
                    node=node,
                )
                for worker_id, worker in zip(self._workers_of(agent), agent.report.workers, strict=True)
            ]
        return [
            WorkerHealth(
                worker_id=worker_id,
                name=f"worker {worker_id}",
                state=agent.state,
                pid=None,
                incarnation=self._incarnations[worker_id],
                restarts=max(self._incarnations[worker_id], 0),
                last_sign_of_life_s=silence_s,
                node=node,
            )
            for worker_id in self._workers_of(agent)
        ]

    @override
    def shutdown(self, timeout_s: float) -> None:
        try:
            self._fleet.shutdown(timeout_s)
        finally:
            self._cluster.disconnect()


def _check_whole(rollout: Rollout, header: RolloutHeader) -> None:
    """Refuse a rollout whose plies are not all of the version that its header names."""
    versions = rollout.columns["collector", "policy_version"]
    if (versions != header.policy_version).any():
        raise RolloutError(
            f"a rollout of worker {header.worker_id} is torn: its header names version {header.policy_version}, its "
            f"plies {sorted(set(np.unique(versions).tolist()))}"
        )
