"""A node agent in this process, with a backend of fakes: polls, grants that wait for weights, logs, ends."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from fakes import TinyNetwork, counting_game

from keisei_lightning.errors import ConfigError, WorkerCrashLoopError
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel.backend import Backend, WorkerInputs
from keisei_lightning.parallel.cluster.agent import NodeAgent
from keisei_lightning.parallel.cluster.messages import AgentBoot, Grant, Parcel, SnapshotBoot
from keisei_lightning.parallel.cluster.weight_codec import WeightCodec
from keisei_lightning.parallel.memory.slots import SlotLayout
from keisei_lightning.parallel.memory.weights import WeightLayout
from keisei_lightning.parallel.playing.worker import PlayerOptions
from keisei_lightning.parallel.supervision.events import WorkerHealth
from keisei_lightning.parallel.supervision.messages import Opponent, Play, RolloutHeader
from keisei_lightning.parallel.supervision.restarts import RestartPolicy, WorkerState

BEAT_S = 0.05


class FakeBackend(Backend):
    """Says what a test lets it say, and remembers what it is asked for."""

    def __init__(self, inputs: WorkerInputs, boot: AgentBoot, wake_by: int) -> None:
        self.inputs, self.boot, self.wake_by = inputs, boot, wake_by
        self.lost_rollouts = 0
        self.granted: list[tuple[int, Play]] = []
        self.resets: list[Sequence[int]] = []
        self.headers: list[RolloutHeader] = []
        self.error: Exception | None = None
        self.stopped: list[float] = []

    def start(self) -> None:
        logging.getLogger("keisei_lightning.supervisor").warning("worker 0 is tired")

    def grant(self, worker_id: int, play: Play) -> None:
        self.granted.append((worker_id, play))

    def wait(self, timeout_s: float) -> list[RolloutHeader]:
        if select.select([self.wake_by], [], [], timeout_s)[0]:
            os.read(self.wake_by, 1)
        if self.error is not None:
            raise self.error
        headers, self.headers = self.headers, []
        return headers

    def reset_games(self, worker_ids: Sequence[int]) -> None:
        self.resets.append(worker_ids)

    def games_in_flight(self) -> list[dict[str, Any]]:
        return []

    def health(self) -> list[WorkerHealth]:
        return [
            WorkerHealth(
                worker_id=worker_id,
                name=f"worker {worker_id}",
                state=WorkerState.RUNNING,
                pid=os.getpid(),
                incarnation=5,
                restarts=5,
                last_sign_of_life_s=0.0,
            )
            for worker_id in (0, 1)
        ]

    def shutdown(self, timeout_s: float) -> None:
        self.stopped.append(timeout_s)


def boot_of(**changes: Any) -> AgentBoot:
    policy = ActorCritic(TinyNetwork())
    slots = SlotLayout.for_game(counting_game()(1).spec, num_slots=2, num_workers=2, num_games=3, num_plies=4)
    values: dict[str, Any] = {
        "agent_id": 1,
        "incarnation": 0,
        "first_incarnations": (0, 0),
        "game_and_policy": cloudpickle.dumps((counting_game(), policy)),
        "options": PlayerOptions(
            device="cpu", precision="32-true", num_threads=1, stagger_games=False, augment_symmetry=False
        ),
        "slots": slots,
        "codec": WeightCodec(layout=WeightLayout.of(policy)),
        "snapshots": SnapshotBoot(num_buffers=2, share=0.5),
        "restart_policy": RestartPolicy(),
        "start_method": None,
        "beat_s": BEAT_S,
    }
    return AgentBoot(**{**values, **changes})


class Agent:
    """An agent, its backend, and what the object store holds."""

    def __init__(self, **changes: Any) -> None:
        self.store: dict[str, np.ndarray[Any, Any]] = {}
        self.boot = boot_of(**changes)
        self.made: list[FakeBackend] = []
        self.agent = NodeAgent(self.boot, fetch=self.fetch, make_backend=self.make)

    def fetch(self, data: str, within_s: float) -> np.ndarray[Any, Any]:
        if data not in self.store:
            raise TimeoutError(f"{data} is not here after {within_s:g} s")
        return self.store[data]

    def make(self, inputs: WorkerInputs, boot: AgentBoot, wake_by: int) -> FakeBackend:
        self.made.append(FakeBackend(inputs, boot, wake_by))
        return self.made[0]

    @property
    def backend(self) -> FakeBackend:
        return self.made[0]

    def send(self, version: int, value: float, buffer: int | None = None) -> None:
        flat = torch.full((self.boot.codec.layout.num_bytes // 4,), value).view(torch.uint8)
        self.store["weights"] = self.boot.codec.encode(flat)
        assert self.agent.receive(Parcel(version=version, data="weights", buffer=buffer, within_s=2.0))

    def beat(self, times: int = 2) -> None:
        """Let the pump finish what it was told to do."""
        for _ in range(times):
            self.agent.poll(10**6)


@pytest.fixture
def agent() -> Iterator[Agent]:
    made = Agent()
    yield made
    made.agent.stop(1.0)


def header(worker_id: int, sequence: int, slot: int = 0) -> RolloutHeader:
    return RolloutHeader(worker_id=worker_id, incarnation=5, sequence=sequence, slot=slot, policy_version=0, plies=12)


def test_a_poll_is_answered_at_every_beat_with_the_workers_and_the_log(agent: Agent) -> None:
    first = agent.agent.poll(0)
    assert first.pid == os.getpid()
    assert [(worker.name, worker.incarnation) for worker in first.workers] == [("worker 0", 5), ("worker 1", 5)]
    assert first.version == -1
    assert [(record.name, record.message) for record in first.logs] == [
        ("keisei_lightning.supervisor", "worker 0 is tired")
    ]
    second = agent.agent.poll(0)
    assert second.logs == ()
    assert second.rss_bytes is not None


def test_a_rollout_is_told_until_it_is_accepted_and_not_after(agent: Agent) -> None:
    agent.backend.inputs.slots.views(1, 1)["action"][:] = 7
    agent.backend.headers = [header(1, 0, slot=1), header(0, 0)]
    lost = agent.agent.poll(0)  # an answer that is lost on the way
    again = agent.agent.poll(0)
    assert [rollout.sequence for rollout in lost.rollouts] == [rollout.sequence for rollout in again.rollouts] == [1, 2]
    assert (again.rollouts[0].columns["action"] == 7).all()
    assert again.rollouts[0].columns["action"].shape == (3, 4)
    assert [rollout.sequence for rollout in agent.agent.poll(1).rollouts] == [2]
    assert agent.agent.poll(2).rollouts == ()


def test_a_grant_waits_for_weights_as_new_as_the_learners(agent: Agent) -> None:
    play = Play(slot=0)
    agent.send(3, 1.0)
    agent.agent.grant(Grant(number=1, worker=1, play=play, version=4))
    agent.beat()
    assert agent.backend.granted == []
    agent.send(5, 2.0)
    agent.beat()
    assert agent.backend.granted == [(1, play)]
    assert agent.agent.poll(0).version == 5


def test_a_grant_that_comes_again_is_one_grant_and_the_next_of_its_slot_another(agent: Agent) -> None:
    agent.send(0, 1.0)
    for number, slot in ((1, 0), (2, 1), (1, 0), (2, 1), (3, 0), (1, 0), (3, 0)):
        agent.agent.grant(Grant(number=number, worker=1, play=Play(slot=slot), version=0))
    agent.beat()
    assert agent.backend.granted == [(1, Play(slot=0)), (1, Play(slot=1)), (1, Play(slot=0))]


def test_a_snapshot_that_comes_again_is_not_written_again_under_games_that_use_it(agent: Agent) -> None:
    agent.send(2, 4.0, buffer=1)
    assert agent.agent.receive(Parcel(version=2, data="nowhere", buffer=1, within_s=2.0))
    agent.send(3, 5.0, buffer=1)
    opponents = agent.backend.inputs.opponents
    assert opponents is not None
    assert opponents.memory.versions.array().tolist() == [-1, 3]


def test_weights_that_are_older_than_what_is_here_are_not_fetched(agent: Agent) -> None:
    agent.send(5, 1.0)
    assert agent.agent.receive(Parcel(version=4, data="nowhere", within_s=2.0))
    assert agent.agent.poll(0).version == 5


def test_weights_that_cannot_be_fetched_are_told_as_missing_and_end_the_agent_at_the_last_try(agent: Agent) -> None:
    agent.send(5, 1.0)
    assert not agent.agent.receive(Parcel(version=6, data="nowhere", within_s=2.0))
    assert not agent.agent.receive(Parcel(version=6, data="nowhere", within_s=2.0, buffer=1))
    assert agent.agent.poll(0).version == 5
    with pytest.raises(TimeoutError, match="nowhere is not here after 4 s"):
        agent.agent.receive(Parcel(version=6, data="nowhere", within_s=4.0, is_last_try=True))


def test_a_grant_waits_for_its_snapshot_too(agent: Agent) -> None:
    agent.send(0, 1.0)
    play = Play(slot=0, opponent=Opponent(version=2, buffer=1))
    agent.agent.grant(Grant(number=1, worker=0, play=play, version=0))
    agent.send(2, 3.0, buffer=0)
    agent.beat()
    assert agent.backend.granted == []
    agent.send(2, 4.0, buffer=1)
    agent.beat()
    assert agent.backend.granted == [(0, play)]
    opponents = agent.backend.inputs.opponents
    assert opponents is not None
    assert opponents.memory.versions.array().tolist() == [2, 2]
    assert set(opponents.memory.buffers()[1].view(torch.float32).tolist()) >= {4.0}


def test_games_are_reset_by_the_agents_own_numbers_of_workers(agent: Agent) -> None:
    agent.agent.reset_games((1,))
    agent.beat()
    assert agent.backend.resets == [(1,)]


def test_what_ends_the_backend_is_in_every_further_report(agent: Agent) -> None:
    agent.backend.error = WorkerCrashLoopError("worker 1 died too often")
    for _ in range(3):
        failure = agent.agent.poll(0).failure
        if failure is not None:
            break
    assert failure is not None
    assert (failure.kind, failure.message) == ("WorkerCrashLoopError", "worker 1 died too often")
    assert "WorkerCrashLoopError" in failure.traceback
    assert agent.agent.poll(0).failure == failure
    agent.agent._pump.join(10)
    assert agent.backend.stopped == [BEAT_S]


def test_stopping_ends_the_workers_the_pump_and_a_waiting_poll(agent: Agent) -> None:
    polls = [threading.Thread(target=agent.agent.poll, args=(0,)) for _ in range(2)]
    for poll in polls:
        poll.start()
    agent.agent.stop(0.5)
    agent.agent.stop(0.5)
    for poll in polls:
        poll.join(10)
    assert not any(thread.is_alive() for thread in [*polls, agent.agent._pump])
    assert agent.backend.stopped == [0.5]
    agent.agent.grant(Grant(number=1, worker=0, play=Play(slot=0), version=0))  # too late, and harmless
    agent.agent.poll(0)


def test_a_game_that_this_node_does_not_have_is_named() -> None:
    missing = b"cnowhere_to_be_found\nGame\n."
    with pytest.raises(ConfigError, match=r"^agent 1: the game or the policy cannot be loaded on this node \(ModuleNo"):
        NodeAgent(boot_of(game_and_policy=missing), fetch=lambda data: data)
